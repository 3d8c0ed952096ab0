# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""RoBERTa-GRU: a RoBERTa encoder whose states a GRU reads in order.

Source: Tan, Lee, Lim, Applied Sciences 2023, 13(6), 3915. Travels to the Hub beside the weights: needs torch and
transformers only. `reference.py` in the package states the same model as slow, obvious code, and is the definition
that this file is tested against.

Shapes:
    B  documents in the batch
    T  columns of the batch, padding included; n real tokens in a document (`lengths`, shape (B,))
    D  encoder width (`hidden_size`)
    H  width of one GRU direction (`gru_hidden_size`), K directions (1 or 2), L layers
    C  labels

A document's real tokens are those whose attention mask is 1. The encoder sees the batch as it came; the GRU, its
summary and the heads see each document *packed*: real tokens moved to columns 0 … n-1, in order. Nothing that stands
where the mask is 0 can change a result.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput, TokenClassifierOutput
from transformers.models.roberta.modeling_roberta import RobertaModel, RobertaPreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_roberta_gru import RobertaGRUConfig

IGNORED_LABEL = -100


class Packing(NamedTuple):
    """Where the real tokens of a batch stand."""

    mask: torch.Tensor  # (B, T) bool, True for real tokens, in the input's arrangement
    order: torch.Tensor  # (B, T) columns of the input, real ones first
    lengths: torch.Tensor  # (B,) number n of real tokens

    @classmethod
    def from_mask(cls, mask: torch.Tensor) -> "Packing":
        num_columns = mask.shape[1]
        # Unique keys make any sort a stable one; a call for a stable sort does not export.
        keys = torch.arange(num_columns, device=mask.device) + (~mask) * num_columns
        return cls(mask, keys.argsort(dim=1), mask.sum(dim=1))

    @property
    def packed_mask(self) -> torch.Tensor:
        """(B, T) bool: True for columns 0 … n-1."""
        return torch.arange(self.mask.shape[1], device=self.mask.device) < self.lengths[:, None]

    def pack(self, states: torch.Tensor) -> torch.Tensor:
        """Move the real tokens' states (B, T, D) to the front."""
        return _take_columns(states, self.order)

    def unpack(self, states: torch.Tensor) -> torch.Tensor:
        """Put packed states (B, T, D) back where their tokens stand, zeros elsewhere."""
        return _take_columns(states, self.order.argsort(dim=1)).masked_fill(~self.mask[..., None], 0.0)


class RobertaGRURecurrence(nn.Module):
    """Read packed states with L layers of GRU in K directions.

    Packed sequences (`nn.utils.rnn`) are not used: they need the lengths on the CPU and break export. One `nn.GRU` per
    layer and direction gives the same numbers: left to right, what stands after column n-1 comes too late to matter;
    right to left, the real tokens are reversed among themselves first.
    """

    def __init__(self, config: RobertaGRUConfig):
        super().__init__()
        input_sizes = [config.hidden_size] + [config.gru_output_size] * (config.num_gru_layers - 1)
        self.left_to_right = nn.ModuleList(
            nn.GRU(input_size, config.gru_hidden_size, batch_first=True) for input_size in input_sizes
        )
        self.right_to_left = nn.ModuleList(
            nn.GRU(input_size, config.gru_hidden_size, batch_first=True)
            for input_size in (input_sizes if config.gru_bidirectional else [])
        )
        self.dropout = nn.Dropout(config.gru_dropout)

    def forward(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Map packed encoder states (B, T, D) to packed GRU states (B, T, K·H), left-to-right half first."""
        columns = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
        ends = lengths[:, None] - 1
        reversal = torch.where(columns <= ends, ends - columns, columns)  # (B, T), its own inverse
        for layer, left_to_right in enumerate(self.left_to_right):
            outputs = _run_gru(left_to_right, self.dropout(states) if layer else states)
            if self.right_to_left:
                reversed_states = _take_columns(self.dropout(states) if layer else states, reversal)
                reversed_outputs = _run_gru(self.right_to_left[layer], reversed_states)
                outputs = torch.cat([outputs, _take_columns(reversed_outputs, reversal)], dim=-1)
            states = outputs
        return states


class RobertaGRUSummary(nn.Module):
    """Reduce a document's packed GRU states (B, T, K·H) to one vector (B, K·H)."""

    def __init__(self, config: RobertaGRUConfig):
        super().__init__()
        self.kind = config.summary
        self.gru_hidden_size = config.gru_hidden_size
        if self.kind == "attention":
            self.query = nn.Parameter(torch.empty(config.gru_output_size))

    def forward(self, states: torch.Tensor, packing: Packing) -> torch.Tensor:
        if self.kind == "last":
            # The final state of each direction: left to right at t_n, right to left at t_1.
            last = (packing.lengths - 1)[:, None, None].expand(-1, 1, self.gru_hidden_size)
            left_to_right, right_to_left = states.split(
                [self.gru_hidden_size, states.shape[-1] - self.gru_hidden_size], dim=-1
            )
            return torch.cat([left_to_right.gather(1, last)[:, 0], right_to_left[:, 0]], dim=-1)
        mask = packing.packed_mask[..., None]  # (B, T, 1)
        if self.kind == "mean":
            return states.masked_fill(~mask, 0.0).sum(dim=1) / packing.lengths[:, None]
        if self.kind == "max":
            return states.masked_fill(~mask, float("-inf")).amax(dim=1)
        scores = (states @ self.query)[..., None] / states.shape[-1] ** 0.5  # (B, T, 1)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=1)
        return (weights * states.masked_fill(~mask, 0.0)).sum(dim=1)


class RobertaGRUClassificationHead(nn.Module):
    """Map a summary (B, K·H), or every GRU state (B, T, K·H), to logits (…, C)."""

    def __init__(self, config: RobertaGRUConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.head_dropout)
        self.dense = nn.Linear(config.gru_output_size, config.head_hidden_size) if config.head_hidden_size else None
        self.out_proj = nn.Linear(config.head_hidden_size or config.gru_output_size, config.num_labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.dense is not None:
            features = torch.relu(self.dense(self.dropout(features)))
        return self.out_proj(self.dropout(features))


class RobertaGRUPreTrainedModel(RobertaPreTrainedModel):
    """What the RoBERTa-GRU classes share: loading, initialisation, and reading a batch up to its GRU states."""

    config_class = RobertaGRUConfig
    _no_split_modules = ["RobertaEmbeddings", "RobertaLayer", "RobertaGRURecurrence", "RobertaGRUSummary"]
    # Left over when a masked language model or a stock encoder warm-starts one of our classes.
    _keys_to_ignore_on_load_unexpected = [r"lm_head\.", r"pooler\."]

    def __init__(self, config: RobertaGRUConfig):
        super().__init__(config)
        config.check()
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.gru = RobertaGRURecurrence(config)

    def train(self, mode: bool = True) -> "RobertaGRUPreTrainedModel":
        # A temperature fitted to the weights as they were says nothing about the weights to come.
        if mode:
            self.config.calibration_temperature = 1.0
        return super().train(mode)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.GRU):
            for name, parameter in module.named_parameters(recurse=False):
                if _is_loaded(parameter):
                    continue
                for gate in parameter.chunk(3):
                    if name.startswith("bias"):
                        gate.zero_()
                    elif name.startswith("weight_ih"):
                        nn.init.xavier_uniform_(gate)
                    else:
                        # The QR factorisation behind it exists in float32 and float64 only.
                        dtype = torch.promote_types(gate.dtype, torch.float32)
                        gate.copy_(nn.init.orthogonal_(torch.empty_like(gate, dtype=dtype)))
        elif isinstance(module, RobertaGRUSummary) and module.kind == "attention" and not _is_loaded(module.query):
            module.query.normal_(mean=0.0, std=self.config.initializer_range)

    def _read(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, Packing, BaseModelOutputWithPooling]:
        """Return packed GRU states (B, T, K·H), where the tokens stand, and the encoder's own outputs."""
        if kwargs.pop("position_ids", None) is not None:
            raise ValueError("`position_ids` are not accepted: positions follow from `attention_mask`.")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        padding_idx = self.config.pad_token_id
        # What stands where the mask is 0 is replaced: out-of-range ids or NaN there must not reach the encoder.
        if input_ids is not None:
            mask = self._real_tokens(input_ids, attention_mask)
            self._check_token_ids(input_ids, mask)
            input_ids = input_ids.masked_fill(~mask, padding_idx)
        if inputs_embeds is not None:
            mask = self._real_tokens(inputs_embeds, attention_mask)
            inputs_embeds = inputs_embeds.masked_fill(~mask[..., None], 0.0)
        token_type_ids = torch.zeros_like(mask, dtype=torch.long) if token_type_ids is None else token_type_ids
        encoded = self.roberta(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=None if attention_mask is None else mask.long(),
            token_type_ids=token_type_ids.masked_fill(~mask, 0),
            position_ids=mask.cumsum(dim=1) * mask + padding_idx,
            return_dict=True,
            **kwargs,
        )
        packing = Packing.from_mask(mask)
        states = self.gru(packing.pack(encoded.last_hidden_state), packing.lengths)
        return states, packing, encoded

    def _real_tokens(self, inputs: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Return the (B, T) bool mask of real tokens, checked to hold 1 to W of them in every row."""
        if attention_mask is None:
            attention_mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        if attention_mask.shape != inputs.shape[:2]:
            raise ValueError(
                f"`attention_mask` has shape {tuple(attention_mask.shape)}; it must be {tuple(inputs.shape[:2])}, "
                "one entry per token."
            )
        mask = attention_mask == 1
        if _values_can_be_read(mask):
            lengths = mask.sum(dim=1)
            shortest, longest, window = lengths.argmin(), lengths.argmax(), self.config.encoder_window
            if lengths[shortest] == 0:
                raise ValueError(f"Row {int(shortest)} of `attention_mask` has no real token.")
            if lengths[longest] > window:
                raise ValueError(
                    f"Row {int(longest)} holds {int(lengths[longest])} tokens; the encoder reads at most {window}. "
                    f"Tokenize with `truncation=True, max_length={window}`."
                )
        return mask

    def _check_token_ids(self, input_ids: torch.Tensor, mask: torch.Tensor) -> None:
        # On an accelerator this would cost a synchronisation more, and the embedding's own assertion fires.
        if input_ids.device.type != "cpu" or not _values_can_be_read(input_ids):
            return
        wrong = input_ids[mask & ((input_ids < 0) | (input_ids >= self.config.vocab_size))]
        if len(wrong):
            raise ValueError(
                f"Token id {int(wrong[0])} is outside the vocabulary of {self.config.vocab_size} entries: the "
                "tokenizer is not the one this model was trained with."
            )

    def _calibrate(self, logits: torch.Tensor) -> torch.Tensor:
        single_label = self.config.problem_type in (None, "single_label_classification") and self.config.num_labels > 1
        if self.training or not single_label:
            return logits
        return logits / self.config.calibration_temperature


class RobertaGRUModel(RobertaGRUPreTrainedModel):
    """RoBERTa-GRU without a head: GRU states and their summary."""

    _keys_to_ignore_on_load_unexpected = [*RobertaGRUPreTrainedModel._keys_to_ignore_on_load_unexpected, r"^head\."]

    def __init__(self, config: RobertaGRUConfig):
        super().__init__(config)
        self.summary = RobertaGRUSummary(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Read a batch of documents.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): token ids, `<s>` … `</s>`.
            attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for real tokens; each row needs one. Unset: all real.
            token_type_ids (`torch.LongTensor` of shape `(B, T)`): passed to the encoder.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, D)`): word embeddings instead of `input_ids`.

        Returns:
            `last_hidden_state`: GRU states `(B, T, K·H)` in the input's arrangement, zeros where the mask is 0.
            `pooler_output`: the summary `(B, K·H)`. `hidden_states` and `attentions` are the encoder's own.

        Raises:
            ValueError: if a row has no real token or more than the encoder's window, if a token id is outside the
                vocabulary, or if `position_ids` are given.
        """
        states, packing, encoded = self._read(input_ids, attention_mask, token_type_ids, inputs_embeds, **kwargs)
        return BaseModelOutputWithPooling(
            last_hidden_state=packing.unpack(states),
            pooler_output=self.summary(states, packing),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class RobertaGRUForSequenceClassification(RobertaGRUPreTrainedModel):
    """RoBERTa-GRU that labels documents: one label, several labels, or numbers, by `config.problem_type`."""

    def __init__(self, config: RobertaGRUConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.summary = RobertaGRUSummary(config)
        self.head = RobertaGRUClassificationHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Score a batch of documents; see [`RobertaGRUModel.forward`] for the inputs and errors.

        Args:
            labels: `(B,)` int64 for one label per document; `(B, C)` float for several; `(B,)` or `(B, C)` float for
                regression. Entries equal to -100 do not count.

        Returns:
            `logits` `(B, C)`, raw: softmax or sigmoid is the caller's. `loss` (scalar) if labels are given.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        states, packing, encoded = self._read(input_ids, attention_mask, token_type_ids, inputs_embeds, **kwargs)
        logits = self._calibrate(self.head(self.summary(states, packing)))
        return SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class RobertaGRUForTokenClassification(RobertaGRUPreTrainedModel):
    """RoBERTa-GRU that labels every token: the same head on every GRU state."""

    _keys_to_ignore_on_load_unexpected = [*RobertaGRUPreTrainedModel._keys_to_ignore_on_load_unexpected, r"^summary\."]

    def __init__(self, config: RobertaGRUConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.head = RobertaGRUClassificationHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """Score every token of a batch; see [`RobertaGRUModel.forward`] for the inputs and errors.

        Args:
            labels (`torch.LongTensor` of shape `(B, T)`): one label per token; -100 does not count.

        Returns:
            `logits` `(B, T, C)` in the input's arrangement, zeros where the mask is 0. `loss` (scalar) if
            labels are given.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        states, packing, encoded = self._read(input_ids, attention_mask, token_type_ids, inputs_embeds, **kwargs)
        logits = packing.unpack(self._calibrate(self.head(states)))
        return TokenClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    config: RobertaGRUConfig,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Compute Σ w·ℓ / number of items, in at least float32.

    An item is an entry of `labels` other than -100. Dividing by their number, and not by Σ w, is what lets a batch be
    accumulated in parts or spread over ranks: each part divides by the whole batch's number and the parts add up.

    Args:
        logits (`torch.FloatTensor` of shape `(…, C)`).
        labels: `(…)` int64, or float of the logits' shape; a trailing axis of one target may be left out.
        config: gives `problem_type`, `class_weights` and `label_smoothing`.
        num_items_in_batch: the number of items in the whole batch that this one is a part of; unset: in this one.

    Raises:
        ValueError: if the labels' shape does not fit the logits'.
    """
    problem_type = config.problem_type or _problem_type(labels, config.num_labels)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    weights = None if config.class_weights is None else logits.new_tensor(config.class_weights)
    counted = labels != IGNORED_LABEL
    if problem_type == "single_label_classification":
        if labels.shape != logits.shape[:-1]:
            raise ValueError(
                f"`labels` has shape {tuple(labels.shape)}; one label each for {tuple(logits.shape[:-1])}."
            )
        losses = F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            labels.reshape(-1),
            weight=weights,
            ignore_index=IGNORED_LABEL,
            reduction="none",
            label_smoothing=config.label_smoothing,
        )
    else:
        if labels.numel() != logits.numel():
            raise ValueError(f"`labels` has shape {tuple(labels.shape)}; it must be {tuple(logits.shape)}.")
        counted = counted.reshape(logits.shape)
        targets = labels.reshape(logits.shape).to(logits.dtype).masked_fill(~counted, 0.0)
        if problem_type == "multi_label_classification":
            targets = targets * (1 - config.label_smoothing) + config.label_smoothing / 2
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        else:
            losses = F.mse_loss(logits, targets, reduction="none")
        losses = losses.masked_fill(~counted, 0.0)
        losses = losses if weights is None else losses * weights
    num_items = counted.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    return losses.sum() / num_items


def _problem_type(labels: torch.Tensor, num_labels: int) -> str:
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def _take_columns(states: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Pick, for each row, the given columns (B, T) of states (B, T, D)."""
    return states.gather(1, columns[..., None].expand(-1, -1, states.shape[-1]))


def _values_can_be_read(tensor: torch.Tensor) -> bool:
    """Tell whether looking at values neither stops a trace nor meets a tensor without data."""
    return not (tensor.device.type == "meta" or torch.compiler.is_compiling() or torch.jit.is_tracing())


def _run_gru(gru: Any, states: torch.Tensor) -> torch.Tensor:
    """Run one layer in one direction: (B, T, D) → (B, T, H), in the states' dtype.

    On the CPU the recurrence computes in at least float32, whatever the parameters or autocast say: bfloat16 is half
    as fast there, and rounding would add up over the steps.
    """
    if states.device.type not in ("cpu", "meta"):
        autocast = torch.is_autocast_enabled(states.device.type)
        return gru(states if autocast else states.to(gru.weight_ih_l0.dtype))[0].to(states.dtype)
    dtype = torch.promote_types(states.dtype, torch.float32)
    weights = [gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0]
    with torch.autocast("cpu", enabled=False):
        initial = states.new_zeros(1, states.shape[0], gru.hidden_size, dtype=dtype)
        outputs, _ = torch.gru(
            states.to(dtype), initial, [weight.to(dtype) for weight in weights], True, 1, 0.0, False, False, True
        )
    return outputs.to(states.dtype)


def _is_loaded(parameter: torch.Tensor) -> bool:
    # Set by transformers (4.57 and 5) on each parameter that a checkpoint gave.
    return getattr(parameter, "_is_hf_initialized", False)


__all__ = [
    "RobertaGRUForSequenceClassification",
    "RobertaGRUForTokenClassification",
    "RobertaGRUModel",
    "RobertaGRUPreTrainedModel",
]
