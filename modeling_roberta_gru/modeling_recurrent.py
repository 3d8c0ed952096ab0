# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""The recurrent baselines: an RNN, LSTM or GRU that reads word embeddings, one way or both.

Travels to the Hub beside the weights: needs torch and transformers only. Loss, calibration and padding are those of
RoBERTa-GRU, so that the two can be compared.

Shapes:
    B  documents in the batch
    T  columns of the batch, padding included; n real tokens in a document (`lengths`, shape (B,))
    E  width of a word embedding (`embedding_size`)
    H  width of one direction (`hidden_size`), K directions (1 or 2), L layers
    C  labels

A document's real tokens are those whose attention mask is 1. Nothing that stands where the mask is 0 can change a
result.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_recurrent import RecurrentConfig

IGNORED_LABEL = -100

# What holds the parameters of one layer in one direction, and what computes with them.
CELL_MODULES: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
CELL_FUNCTIONS: dict[type, Any] = {nn.RNN: torch.rnn_tanh, nn.LSTM: torch.lstm, nn.GRU: torch.gru}


class Recurrence(nn.Module):
    """Read word embeddings, packed to the left, with L recurrent layers in K directions.

    Packed sequences (`nn.utils.rnn`) are not used: on the CPU the time of their gradient grows with n² (pytorch
    #149194). One module per layer and direction gives the same numbers: left to right, what stands after the last real
    token comes too late to matter; right to left, the real tokens are reversed among themselves first.
    """

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        module = CELL_MODULES[config.cell]
        input_sizes = [config.embedding_size] + [config.output_size] * (config.num_layers - 1)
        self.left_to_right = nn.ModuleList(
            module(input_size, config.hidden_size, batch_first=True) for input_size in input_sizes
        )
        self.right_to_left = nn.ModuleList(
            module(input_size, config.hidden_size, batch_first=True)
            for input_size in (input_sizes if config.bidirectional else [])
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read documents whose real tokens stand first.

        Args:
            states (`torch.FloatTensor` of shape `(B, T, E)`): word embeddings, finite throughout.
            lengths (`torch.LongTensor` of shape `(B,)`): number of real tokens, at least 1.

        Returns:
            The last layer's states `(B, T, K·H)`, left-to-right half first, anything beyond `lengths`; and the final
            state of each direction `(B, K·H)`.
        """
        columns = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
        ends = lengths[:, None] - 1
        reversal = torch.where(columns <= ends, ends - columns, columns)  # (B, T), its own inverse
        dtype = states.dtype
        for layer, left_to_right in enumerate(self.left_to_right):
            inputs = self.dropout(states) if layer else states
            states = _run_cell(left_to_right, inputs)
            final = _take_columns(states, ends)
            if self.right_to_left:
                mirrored = _run_cell(self.right_to_left[layer], _take_columns(inputs, reversal))
                states = torch.cat([states, _take_columns(mirrored, reversal)], dim=-1)
                final = torch.cat([final, _take_columns(mirrored, ends)], dim=-1)
        return states.to(dtype), final[:, 0].to(dtype)


class RecurrentPreTrainedModel(PreTrainedModel):
    """What the recurrent classes share: loading and initialisation."""

    config_class = RecurrentConfig
    base_model_prefix = "recurrent"
    _input_embed_layer = "embeddings"

    def __init__(self, config: RecurrentConfig):
        super().__init__(config)
        config.check()

    def train(self, mode: bool = True) -> "RecurrentPreTrainedModel":
        # A temperature fitted to the weights as they were says nothing about the weights to come.
        if mode:
            self.config.calibration_temperature = 1.0
        return super().train(mode)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if _is_loaded(parameter):
                continue
            if isinstance(module, nn.Embedding):
                parameter.normal_(std=0.1)
                parameter[module.padding_idx].zero_()
            elif name.startswith("bias"):
                parameter.zero_()
                if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                    # The forget gate starts open: Jozefowicz, Zaremba, Sutskever 2015. Its biases add up to 1.
                    parameter.chunk(4)[1].fill_(1.0)
            elif isinstance(module, nn.RNNBase):
                for gate in parameter.split(module.hidden_size):
                    _init_gate(gate, is_recurrent=name.startswith("weight_hh"))
            else:
                nn.init.xavier_uniform_(parameter)


class RecurrentModel(RecurrentPreTrainedModel):
    """A recurrent net without a head: its states and the last of them."""

    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config: RecurrentConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.recurrence = Recurrence(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Read a batch of documents of any length.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): token ids.
            attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for real tokens; each row needs one. Unset: all real.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, E)`): word embeddings instead of `input_ids`.

        Returns:
            `last_hidden_state`: the last layer's states `(B, T, K·H)` in the input's arrangement, zeros where the mask
            is 0. `pooler_output`: its final states `(B, K·H)`, left to right at the last real token, then right to
            left at the first.

        Raises:
            ValueError: if there is no row, or one without a real token, or if a token id is outside the vocabulary.
        """
        inputs = inputs_embeds if input_ids is None else input_ids
        if inputs is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        mask = _real_tokens(inputs, attention_mask)
        if inputs_embeds is None:
            inputs_embeds = self.embeddings(self._token_ids(inputs, mask))
        is_padding = ~mask[..., None]
        states = self.dropout(inputs_embeds.masked_fill(is_padding, 0.0))
        order = mask.byte().argsort(dim=1, descending=True, stable=True)  # columns: those of real tokens first
        states, final = self.recurrence(_take_columns(states, order), mask.sum(dim=1))
        states = _take_columns(states, order.argsort(dim=1)).masked_fill(is_padding, 0.0)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=final)

    def _token_ids(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Replace what stands where the mask is 0, and refuse ids outside the vocabulary."""
        input_ids = input_ids.masked_fill(~mask, self.config.pad_token_id)
        # On an accelerator this would cost a synchronisation, and the embedding's own assertion fires.
        if input_ids.device.type == "cpu":
            wrong = input_ids[(input_ids < 0) | (input_ids >= self.config.vocab_size)]
            if len(wrong):
                raise ValueError(
                    f"Token id {int(wrong[0])} is outside the vocabulary of {self.config.vocab_size} entries: the "
                    "tokenizer is not the one this model was trained with."
                )
        return input_ids


class RecurrentForSequenceClassification(RecurrentPreTrainedModel):
    """A recurrent net that labels documents: one label, several labels, or numbers, by `config.problem_type`."""

    def __init__(self, config: RecurrentConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.recurrent = RecurrentModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.output_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Score a batch of documents; see [`RecurrentModel.forward`] for the inputs and errors.

        Args:
            labels: `(B,)` int64 for one label per document, or `(B, C)` float, a distribution over the labels, where
                `config.problem_type` says "single_label_classification"; `(B, C)` float for several; `(B,)` or
                `(B, C)` float for regression. Entries equal to -100 do not count.

        Returns:
            `logits` `(B, C)`, raw: softmax or sigmoid is the caller's. `loss` (scalar) if labels are given.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        outputs = self.recurrent(input_ids, attention_mask, inputs_embeds, return_dict=True)
        logits = self._calibrate(self.classifier(self.dropout(outputs.pooler_output)))
        return SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch),
            logits=logits,
        )

    # Copied from modeling_roberta_gru.RobertaGRUPreTrainedModel._calibrate
    def _calibrate(self, logits: torch.Tensor) -> torch.Tensor:
        single_label = self.config.problem_type in (None, "single_label_classification") and self.config.num_labels > 1
        if self.training or not single_label:
            return logits
        return logits / self.config.calibration_temperature


# Copied from modeling_roberta_gru.classification_loss
def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    config: PretrainedConfig,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Compute Σ w·ℓ / number of items, in at least float32.

    An item is an entry of `labels` other than -100. Dividing by their number, and not by Σ w, is what lets a batch be
    accumulated in parts or spread over ranks: each part divides by the whole batch's number and the parts add up.
    The C entries of a distribution are C items, and its loss counts C times. It does not count if one of them is -100.

    Args:
        logits (`torch.FloatTensor` of shape `(…, C)`).
        labels: `(…)` int64, or float of the logits' shape; a trailing axis of one target may be left out. Where one
            label of C is wanted, floats are a distribution over them.
        config: gives `problem_type`, `class_weights` and `label_smoothing`.
        num_items_in_batch: the number of items in the whole batch that this one is a part of; unset: in this one.

    Raises:
        ValueError: if the labels' shape does not fit the logits'.
    """
    problem_type = config.problem_type or _problem_type(labels, config.num_labels)
    logits = logits.to(labels.device, torch.promote_types(logits.dtype, torch.float32))
    weights = None if config.class_weights is None else logits.new_tensor(config.class_weights)
    counted = labels != IGNORED_LABEL
    if problem_type == "single_label_classification":
        size = logits.shape[-1]
        is_soft = labels.is_floating_point() and labels.shape == logits.shape
        if is_soft:
            counted = counted.all(dim=-1, keepdim=True).expand(labels.shape)
            labels = labels.to(logits.dtype).masked_fill(~counted, 0.0)
        elif labels.shape != logits.shape[:-1]:
            raise ValueError(
                f"`labels` has shape {tuple(labels.shape)}; one label each for {tuple(logits.shape[:-1])}."
            )
        losses = F.cross_entropy(
            logits.reshape(-1, size),
            labels.reshape(-1, size) if is_soft else labels.reshape(-1),
            weight=weights,
            ignore_index=IGNORED_LABEL,
            reduction="none",
            label_smoothing=config.label_smoothing,
        )
        if is_soft:
            losses = losses[:, None].expand(-1, size).masked_fill(~counted.reshape(-1, size), 0.0)
    else:
        if labels.numel() != logits.numel():
            raise ValueError(
                f"`labels` has shape {tuple(labels.shape)}; for `problem_type` {problem_type!r} it must be "
                f"{tuple(logits.shape)}. For one label each, load the model with "
                "`problem_type='single_label_classification'`."
            )
        counted = counted.reshape(logits.shape)
        targets = labels.reshape(logits.shape).to(logits.dtype).masked_fill(~counted, 0.0)
        if problem_type == "multi_label_classification":
            targets = targets * (1 - config.label_smoothing) + config.label_smoothing / 2
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        else:
            losses = F.mse_loss(logits, targets, reduction="none")
        losses = losses.masked_fill(~counted, 0.0)
        losses = losses if weights is None else losses * weights
    num_items = counted.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
    return losses.sum() / num_items.clamp(min=1)  # nothing counts in some batches


# Copied from modeling_roberta_gru._problem_type
def _problem_type(labels: torch.Tensor, num_labels: int) -> str:
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def _real_tokens(inputs: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Return the (B, T) bool mask of real tokens, one in every row at least."""
    if attention_mask is None:
        attention_mask = torch.ones(inputs.shape[:2], device=inputs.device)
    if attention_mask.shape != inputs.shape[:2]:
        raise ValueError(
            f"`attention_mask` has shape {tuple(attention_mask.shape)}; it must be {tuple(inputs.shape[:2])}, "
            "one entry per token."
        )
    mask = attention_mask == 1
    lengths = mask.sum(dim=1).tolist()
    if not lengths:
        raise ValueError("The batch holds no document.")
    if 0 in lengths:
        raise ValueError(f"Row {lengths.index(0)} of `attention_mask` has no real token.")
    return mask


def _run_cell(cell: Any, states: torch.Tensor) -> torch.Tensor:
    """Run one layer in one direction from a state of zeros: (B, T, E) → (B, T, H).

    On the CPU the recurrence computes in at least float32, whatever the parameters or autocast say: rounding would add
    up over the steps.
    """
    weights, is_on_cpu = cell.all_weights[0], states.device.type == "cpu"
    if is_on_cpu:
        dtype = torch.promote_types(states.dtype, torch.float32)
        weights = [weight.to(dtype) for weight in weights]
    else:
        dtype = states.dtype if torch.is_autocast_enabled(states.device.type) else weights[0].dtype
    zeros = states.new_zeros(1, states.shape[0], cell.hidden_size, dtype=dtype)
    initial = [zeros, zeros] if isinstance(cell, nn.LSTM) else zeros
    # cuDNN keeps what gradients need where it is told that it trains: in evaluation mode too, if there are any.
    trains = torch.is_grad_enabled() and not is_on_cpu
    with torch.autocast("cpu", enabled=False):
        return CELL_FUNCTIONS[type(cell)](states.to(dtype), initial, weights, True, 1, 0.0, trains, False, True)[0]


def _init_gate(gate: torch.Tensor, is_recurrent: bool) -> None:
    if not is_recurrent:
        nn.init.xavier_uniform_(gate)
        return
    # The QR factorisation behind it exists in float32 and float64 only.
    dtype = torch.promote_types(gate.dtype, torch.float32)
    gate.copy_(nn.init.orthogonal_(torch.empty_like(gate, dtype=dtype)))


# Copied from modeling_roberta_gru._take_columns
def _take_columns(states: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Pick, for each row, the given columns (B, T) of states (B, T, D)."""
    return states.gather(1, columns[..., None].expand(-1, -1, states.shape[-1]))


# Copied from modeling_roberta_gru._is_loaded
def _is_loaded(parameter: torch.Tensor) -> bool:
    # Set by transformers (4.57 and 5) on each parameter that a checkpoint gave.
    return getattr(parameter, "_is_hf_initialized", False)


__all__ = [
    "RecurrentForSequenceClassification",
    "RecurrentModel",
    "RecurrentPreTrainedModel",
]
