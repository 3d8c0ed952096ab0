# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""RoBERTa-GRU: a RoBERTa encoder whose states a GRU reads in order.

Source: Tan, Lee, Lim, Applied Sciences 2023, 13(6), 3915. Travels to the Hub beside the weights: needs torch and
transformers only. `tests/reference.py` states the same model as slow, obvious code, and is the definition that this
file is tested against.

Shapes:
    B  documents in the batch
    T  columns of the batch as it came, S once it is packed; n real tokens in a document (`lengths`, shape (B,))
    D  encoder width (`hidden_size`)
    H  width of one GRU direction (`gru_hidden_size`), K directions (1 or 2), L layers
    C  labels
    W  the encoder's window (`encoder_window`), N windows encoded at once
    R  documents of the batch that reach into a chunk, S tokens there at most

A document's real tokens are those whose attention mask is 1. On entry they are moved to the left, and what stood
elsewhere is dropped; per-token outputs are moved back on exit (`Packing`). Between the two there is no padding, only
documents of different lengths: token t_1 stands at position 0, t_n at position n-1.

The encoder sees documents of up to W tokens as they are. Longer ones it sees in overlapping windows, each wrapped in
the document's first and last token; every token keeps its state from the window in which it lies farthest from an
edge. The GRU runs over these states, one a token, from the first to the last: windows are not boundaries for it. It
reads in *chunks*: all of the document at once where gradients are wanted, else a few windows at a time, carrying its
state along, so that memory does not grow with n. A document that is still being written is read in the same way
(`RobertaGRUReader`): what later text cannot change has been carried along, and the rest is read anew each time.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PretrainedConfig
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.roberta.modeling_roberta import RobertaModel, RobertaPreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_roberta_gru import RobertaGRUConfig

IGNORED_LABEL = -100

# A bidirectional GRU keeps the encoder's states of all tokens up to this size, and encodes again beyond it.
MOST_STATES_KEPT = 64 * 2**20  # bytes
MOST_SAMPLED = 4096  # numbers of each parameter, by which a reader's state knows its model


class Packing:
    """The model's door: moves real tokens to the left on entry, and what was made of them back on exit."""

    def __init__(self, inputs: torch.Tensor, attention_mask: torch.Tensor | None, window: int):
        """Find out where the real tokens stand.

        Args:
            inputs (`torch.Tensor` of shape `(B, T)` or `(B, T, D)`): what is to be packed.
            attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for real tokens; unset: all are real.
            window: the encoder's; wider batches are packed as tightly as their longest document allows.

        Raises:
            ValueError: if the mask has another shape, there is no row, or a row has no real token.
        """
        self.is_full = self.is_packed = attention_mask is None  # nothing to drop; nothing to move
        if attention_mask is None:
            attention_mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        if attention_mask.shape != inputs.shape[:2]:
            raise ValueError(
                f"`attention_mask` has shape {tuple(attention_mask.shape)}; it must be {tuple(inputs.shape[:2])}, "
                "one entry per token."
            )
        self.is_real = attention_mask == 1  # (B, T)
        self.lengths = self.is_real.sum(dim=1)  # (B,)
        self.known_lengths: torch.Tensor | None = None  # the same on the CPU, unless a trace forbids to look
        num_columns = self.width = self.is_real.shape[1]
        if _values_can_be_read(self.is_real):
            stand_first = (self.is_real[:, 1:] <= self.is_real[:, :-1]).all()
            *lengths, is_packed = torch.cat([self.lengths, stand_first[None]]).tolist()  # a GPU waits once only
            if not lengths:
                raise ValueError("The batch holds no document.")
            if 0 in lengths:
                raise ValueError(f"Row {lengths.index(0)} of `attention_mask` has no real token.")
            self.known_lengths = torch.tensor(lengths, device="cpu")
            self.is_full, self.is_packed = min(lengths) == num_columns, bool(is_packed)
            self.width = num_columns if num_columns <= window else max(lengths)
        self.mask = torch.arange(self.width, device=self.lengths.device) < self.lengths[:, None]  # (B, S)

    def pack(self, values: torch.Tensor, filling: float) -> torch.Tensor:
        """Move real tokens to the left: (B, T, …) → (B, S, …). What is beyond them is `filling`, never what was given:
        out-of-range ids or NaN in the padding must not reach the encoder."""
        if self.is_full:
            return values
        if self.is_packed:
            values = values[:, : self.width]
        else:
            # Unique keys make any sort a stable one; a call for a stable sort does not export.
            num_columns = self.is_real.shape[1]
            keys = torch.arange(num_columns, device=values.device) + ~self.is_real * num_columns
            order = keys.argsort(dim=1)[:, : self.width]
            values = torch.take_along_dim(values, _align(order, values, 1), dim=1)
        return values.masked_fill(_align(~self.mask, values, 1), filling)

    def unpack(self, values: torch.Tensor, dim: int = 1) -> torch.Tensor:
        """Move tokens back along an axis, S → T. Zeros where the mask is 0, or what is there if nothing moves."""
        if self.is_packed and self.width == self.is_real.shape[1]:
            return values
        positions = (self.is_real.cumsum(dim=1) - 1).clamp(min=0)  # (B, T)
        values = torch.take_along_dim(values, _align(positions, values, dim), dim=dim)
        return values.masked_fill(_align(~self.is_real, values, dim), 0.0)


class Chunk(NamedTuple):
    """Consecutive tokens of the documents that reach so far."""

    rows: torch.Tensor  # (R,) which documents of the batch these are
    first: torch.Tensor  # (R,) position of each one's first token here
    lengths: torch.Tensor  # (R,) number of its tokens here, at least one
    states: torch.Tensor  # (R, S, D) from the encoder, then (R, S, E) from the GRU; anything beyond `lengths`
    hidden_states: tuple[torch.Tensor, ...] = ()  # (R, S, D) each, if asked for

    @property
    def mask(self) -> torch.Tensor:
        """(R, S) bool: True for tokens, False beyond `lengths`."""
        return torch.arange(self.states.shape[1], device=self.lengths.device) < self.lengths[:, None]


class Windows:
    """How documents are cut for the encoder, as a table with a line for each window; on the CPU, from lengths alone.

    Window k of a document holds its first token, W-2 tokens from position `start` + 1 on, and its last token. The
    last window is moved back until it is full; a document of up to W tokens is one window as it stands. A document of
    which whole strides have been read and dropped, behind its first token, is cut as before: `first_wanted` (B,) is
    then the position of the first token that has not been read.
    """

    def __init__(self, lengths: torch.Tensor, config: RobertaGRUConfig, first_wanted: torch.Tensor | None = None):
        cpu = lengths.device  # said everywhere: the caller may have made another one torch's default
        self.lengths = lengths  # (B,)
        self.size, stride = config.encoder_window, config.window_stride
        self.width = min(self.size, int(lengths.max()))  # columns that a window fills
        last_start = (lengths - self.size).clamp(min=0)
        self.counts = (last_start + stride - 1) // stride + 1  # (B,) number of windows
        self.row = torch.arange(len(lengths), device=cpu).repeat_interleave(self.counts)  # which document
        first_of_row = self.counts.cumsum(0) - self.counts
        self.index = torch.arange(len(self.row), device=cpu) - first_of_row[self.row]  # k
        self.start = torch.minimum(self.index * stride, last_start[self.row])
        # A token lies farthest from an edge where it lies nearest to the middle; between two, the earlier window.
        after_middle = (self.start.roll(1) + self.start + self.size - 3) // 2 + 2
        # States are kept of the tokens from position `first_kept` to before `after_kept`.
        first_wanted = torch.zeros_like(lengths) if first_wanted is None else first_wanted
        self.first_kept = after_middle.where(self.index > 0, first_wanted[self.row])
        is_last = self.index == self.counts[self.row] - 1
        self.after_kept = self.first_kept.roll(-1).where(~is_last, lengths[self.row])

    def cut(self, begin: int, end: int, device: torch.device) -> "WindowCut":
        """Cut windows `begin` … `end` - 1 of every document that has any of them."""
        is_first = self.index == begin  # in this cut, of its document
        is_last = self.index == self.counts[self.row].clamp(max=end) - 1
        some = (self.index >= begin) & (self.index < end)
        row, start, first_kept, after_kept = (
            column[some, None] for column in (self.row, self.start, self.first_kept, self.after_kept)
        )
        columns = torch.arange(self.width, device=self.lengths.device)
        last = self.lengths[row] - 1
        last_column = last.clamp(max=self.size - 1)
        positions = (start + columns).where(columns > 0, 0).where(columns < last_column, last)  # (N, W)
        mask = columns <= last_column
        keep = mask & (positions >= first_kept) & (positions < after_kept)
        first = self.first_kept[is_first]
        lengths = self.after_kept[is_last & some] - first
        kept = keep.flatten().nonzero()[:, 0].split(lengths.tolist())
        cut = WindowCut(
            row_of_window=row[:, 0],
            positions=positions,
            mask=mask,
            rows=self.row[is_first],
            first=first,
            lengths=lengths,
            kept=pad_sequence(list(kept), batch_first=True),
        )
        return WindowCut(*(tensor.to(device) for tensor in cut))


class WindowCut(NamedTuple):
    """Some windows of some documents, and which states are kept of them."""

    row_of_window: torch.Tensor  # (N,)
    positions: torch.Tensor  # (N, W) which token of its document stands in each column
    mask: torch.Tensor  # (N, W) bool, False beyond the end of a document shorter than W
    rows: torch.Tensor  # (R,)
    first: torch.Tensor  # (R,) position of the first token whose state is kept
    lengths: torch.Tensor  # (R,) number of such tokens
    kept: torch.Tensor  # (R, S) where their states stand among the N·W


class RobertaGRURecurrence(nn.Module):
    """Read packed states with L layers of GRU in K directions.

    Packed sequences (`nn.utils.rnn`) are not used: they need the lengths on the CPU and break export. One `nn.GRU` per
    layer and direction gives the same numbers: left to right, what stands after the last real token comes too late to
    matter; right to left, the real tokens are reversed among themselves first.
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
        self.has_skip_connection = config.skip_connection

    def forward(
        self,
        states: torch.Tensor,
        lengths: torch.Tensor,
        left: torch.Tensor | None = None,
        right: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Read consecutive tokens.

        Args:
            states (`torch.FloatTensor` of shape `(R, S, D)`): encoder states, packed.
            lengths (`torch.LongTensor` of shape `(R,)`): number of real tokens, at least 1.
            left (`torch.FloatTensor` of shape `(L, R, H)`): what the left-to-right GRUs carry to the first token.
            right (`torch.FloatTensor` of shape `(L, R, H)`): what the right-to-left GRUs carry to the last token.

        Returns:
            Packed states `(R, S, E)`: of the GRUs left to right, of those right to left, and with a skip connection
            the encoder's. What the left-to-right GRUs carry on beyond the last token, and the right-to-left ones
            beyond the first, `(L, R, H)` each.
        """
        columns = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
        ends = lengths[:, None] - 1
        reversal = torch.where(columns <= ends, ends - columns, columns)  # (R, S), its own inverse
        encoded, carried_right, carried_left = states, [], []
        for layer, left_to_right in enumerate(self.left_to_right):
            inputs = self.dropout(states) if layer else states
            outputs = _run_gru(left_to_right, inputs, None if left is None else left[layer])
            carried_right.append(_take_columns(outputs, ends)[:, 0])
            if self.right_to_left:
                inputs = _take_columns(self.dropout(states) if layer else states, reversal)
                mirrored = _run_gru(self.right_to_left[layer], inputs, None if right is None else right[layer])
                carried_left.append(_take_columns(mirrored, ends)[:, 0])
                outputs = torch.cat([outputs, _take_columns(mirrored, reversal)], dim=-1)
            states = outputs
        states = states.to(encoded.dtype)
        if self.has_skip_connection:
            states = torch.cat([states, encoded], dim=-1)
        return states, torch.stack(carried_right), torch.stack(carried_left) if carried_left else None


class Part(NamedTuple):
    """A summary of some of a document's tokens, in at least float32, and what they weigh together.

    The A attentions' values (for other kinds A is 1) stand side by side.
    """

    value: torch.Tensor  # (…, A·E)
    log_weight: torch.Tensor  # (…, A), as seen from the last of the tokens; for "mean" and "attention"
    last: torch.Tensor  # (…, 1), that token's position


class RobertaGRUSummary(nn.Module):
    """Reduce a document's states to one vector (A·E,), chunk by chunk.

    "last" adds what the chunk that holds t_n and the one that holds t_1 have to give; of the skip connection's states
    it also takes the one at t_n. "mean" is an attention that scores all tokens alike; the parts of an attention merge
    as in Milakov and Gimelshein 2018 (Online normalizer calculation for softmax). An attention with a horizon takes
    from a token's score its distance from the last token over the horizon, as ALiBi does between tokens (Press, Smith,
    Lewis 2022, Train Short, Test Long); only differences of positions matter, so that parts merge before anybody knows
    where the document ends.
    """

    def __init__(self, config: RobertaGRUConfig):
        super().__init__()
        self.kind = config.summary
        gru, encoder = config.gru_hidden_size, config.hidden_size if config.skip_connection else 0
        self.sizes = [gru, config.gru_output_size - gru, encoder]  # left to right, right to left, from the encoder
        horizons = config.attention_horizons if self.kind == "attention" else [0]
        self.decays = [1 / tokens if tokens else 0.0 for tokens in horizons]  # of a weight's logarithm, per token
        if self.kind == "attention":
            self.query = nn.Parameter(torch.empty(len(horizons), config.state_size))

    def forward(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        first: torch.Tensor,
        ends: torch.Tensor,
        is_running: bool = False,
    ) -> Part:
        """Summarise a chunk.

        Args:
            states (`torch.FloatTensor` of shape `(R, S, E)`): states, packed.
            mask (`torch.BoolTensor` of shape `(R, S)`): True for real tokens.
            first (`torch.LongTensor` of shape `(R,)`): position in its document of the chunk's first token.
            ends (`torch.BoolTensor` of shape `(R,)`): whether the document ends in this chunk.
            is_running: summarise, for every token, the chunk up to it.

        Returns:
            Value `(R, A·E)` and log-weight `(R, A)`; with `is_running`, `(R, S, A·E)` and `(R, S, A)`.
        """
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        if is_running:
            return self._running(states, first)
        lengths = mask.sum(dim=1, keepdim=True)
        last = first[:, None] + lengths - 1
        if self.kind == "last":
            # The final state of each direction: left to right at t_n, right to left at t_1.
            at_end = _take_columns(states, lengths - 1)[:, 0].masked_fill(~ends[:, None], 0.0)
            at_begin = states[:, 0].masked_fill(first[:, None] > 0, 0.0)
            return Part(self._join(at_end, at_begin), _no_weight(at_end), last)
        if self.kind == "max":
            largest = states.masked_fill(~mask[..., None], float("-inf")).amax(dim=1)
            return Part(largest, _no_weight(largest), last)
        distances = lengths - 1 - torch.arange(mask.shape[1], device=mask.device)
        scores = self._scores(states) - self._decay(distances, states)
        scores = scores.masked_fill(~mask[..., None], float("-inf"))
        states = states.masked_fill(~mask[..., None], 0.0)
        with _without_autocast(states.device):
            value = scores.softmax(dim=1).transpose(1, 2) @ states  # (R, A, E)
        return Part(value.flatten(1), scores.logsumexp(dim=1), last)

    def _running(self, states: torch.Tensor, first: torch.Tensor) -> Part:
        columns = torch.arange(states.shape[1], device=states.device)[None, :, None]
        last = first[:, None, None] + columns
        # "last" keeps the right-to-left half of t_1 throughout: it has read the whole document.
        if self.kind == "last":
            at_begin = states[:, :1].masked_fill(first[:, None, None] > 0, 0.0).expand_as(states)
            return Part(self._join(states, at_begin), _no_weight(states), last)
        if self.kind == "max":
            return Part(states.cummax(dim=1).values, _no_weight(states), last)
        # The smallest weights of a stretch must not vanish beside its largest: e⁻⁶⁴ is within float32.
        most = int(64 / max(self.decays)) if any(self.decays) else states.shape[1]
        parts: list[Part] = []
        for begin in range(0, states.shape[1], most):
            part = self._running_attention(states[:, begin : begin + most], first + begin)
            if parts:
                part = self.merge(Part(*(field[:, -1:] for field in parts[-1])), part)
            parts.append(part)
        return Part(*(torch.cat(fields, dim=1) for fields in zip(*parts, strict=True)))

    def _running_attention(self, states: torch.Tensor, first: torch.Tensor) -> Part:
        columns = torch.arange(states.shape[1], device=states.device)[None, :, None]
        # A sum of weights far apart must not lose the small ones; Apple's devices have no float64.
        scores = self._scores(states).to(torch.float32 if states.device.type == "mps" else torch.float64)
        decay = self._decay(columns[..., 0], scores)  # (1, S, A), to a token from the chunk's first
        scores = scores + decay
        largest = scores.amax(dim=1, keepdim=True)
        weights = (scores - largest).exp()
        log_total = weights.cumsum(dim=1).log()
        values = [(one * states).cumsum(dim=1) for one in weights.split(1, dim=-1)]
        shares = (-log_total).exp().repeat_interleave(states.shape[-1], dim=-1)
        log_weight = log_total + largest - decay
        value = torch.cat(values, dim=-1) * shares
        return Part(value.to(states.dtype), log_weight.to(states.dtype), first[:, None, None] + columns)

    def merge(self, one: Part, other: Part) -> Part:
        """Merge summaries of different tokens of the same documents."""
        last = torch.maximum(one.last, other.last)
        if self.kind == "last":
            return Part(one.value + other.value, other.log_weight, last)
        if self.kind == "max":
            return Part(torch.maximum(one.value, other.value), other.log_weight, last)
        seen = [part.log_weight - self._decay((last - part.last)[..., 0], part.log_weight) for part in (one, other)]
        log_weight = torch.logaddexp(*seen)
        width = one.value.shape[-1] // len(self.decays)
        shares = [(weight - log_weight).exp().repeat_interleave(width, dim=-1) for weight in seen]
        return Part(shares[0] * one.value + shares[1] * other.value, log_weight, last)

    def of_nothing(self, num_rows: int, like: torch.Tensor) -> Part:
        """Return the summary of no tokens: merged with any other, it gives that other."""
        value = like.new_full((num_rows, like.shape[-1]), float("-inf") if self.kind == "max" else 0.0)
        log_weight = value.new_full((num_rows, len(self.decays)), float("-inf"))
        return Part(value, log_weight, torch.zeros(num_rows, 1, dtype=torch.long, device=value.device))

    def _join(self, at_end: torch.Tensor, at_begin: torch.Tensor) -> torch.Tensor:
        """Take of states (…, E) the right-to-left part of those at the beginning, and the rest of those at the end."""
        left_to_right, _, encoded = at_end.split(self.sizes, dim=-1)
        return torch.cat([left_to_right, at_begin.split(self.sizes, dim=-1)[1], encoded], dim=-1)

    def _scores(self, states: torch.Tensor) -> torch.Tensor:
        """Score every token: (R, S, A)."""
        if self.kind == "mean":
            return states.new_zeros((*states.shape[:2], 1))
        return (states @ self.query.T.to(states.dtype)).to(states.dtype) / states.shape[-1] ** 0.5

    def _decay(self, distances: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return what tokens at these distances (…,) lose of their scores: (…, A)."""
        return distances[..., None] * like.new_tensor(self.decays)


class RobertaGRUClassificationHead(nn.Module):
    """Map a summary (B, A·E), or every token's state (B, T, E), to logits (…, C)."""

    def __init__(self, config: RobertaGRUConfig, size: int):
        super().__init__()
        self.dropout = nn.Dropout(config.head_dropout)
        self.dense = nn.Linear(size, config.head_hidden_size) if config.head_hidden_size else None
        self.out_proj = nn.Linear(config.head_hidden_size or size, config.num_labels)

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
        config.check(is_built=True)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.gru = RobertaGRURecurrence(config)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load weights; see [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            ValueError: if the weights lack a part of the encoder, or if the configuration says that they are of this
                very class and they are not: random values in their place would only look as if they worked. Weights
                of which the model has none are not wrong ones: it starts at random, with the library's warning.
        """
        model, report = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        # What is of another size is refused before, or was asked for by `ignore_mismatched_sizes`.
        resized = {key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]}
        missing = set(report["missing_keys"]) - resized
        if missing >= model.state_dict().keys():
            wrong = set()
        elif cls.__name__ in (model.config.architectures or ()):
            wrong = missing.union(report["unexpected_keys"])
        else:
            wrong = {name for name in missing if name.startswith("roberta.")}
        if wrong:
            name = min(wrong)
            raise ValueError(
                f"The weights are not those of this configuration: {name} is "
                f"{'missing' if name in missing else 'left over'}. Leave the configuration as it was saved with them; "
                "for a fresh GRU and head on an encoder, start from a configuration without `architectures`."
            )
        return (model, report) if output_loading_info else model

    def train(self, mode: bool = True) -> "RobertaGRUPreTrainedModel":
        # What was fitted to the weights as they were says nothing about the weights to come.
        if mode:
            self.config.calibration_temperature = 1.0
            self.config.stop_thresholds = None
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
        encoder_states: torch.Tensor | None = None,
        ascending: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> "Reading":
        """Check the inputs and return their reading, over whose chunks the caller iterates."""
        if kwargs.pop("position_ids", None) is not None:
            raise ValueError("`position_ids` are not accepted: positions follow from `attention_mask`.")
        named = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "encoder_states": encoder_states}
        given = [name for name, value in named.items() if value is not None]
        if len(given) != 1:
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`, or else `encoder_states`.")
        (name,) = given
        inputs: Any = named[name]
        packing = Packing(inputs, attention_mask, self.config.encoder_window)
        packed = {name: packing.pack(inputs, self.config.pad_token_id if name == "input_ids" else 0.0)}
        if name == "input_ids":
            self._check_token_ids(packed["input_ids"])
        if token_type_ids is not None and token_type_ids.shape != inputs.shape[:2]:
            raise ValueError(
                f"`token_type_ids` has shape {tuple(token_type_ids.shape)}; it must be {tuple(inputs.shape[:2])}, one "
                "entry per token."
            )
        if name != "encoder_states":
            packed["token_type_ids"] = (
                torch.zeros_like(packing.mask, dtype=torch.long)
                if token_type_ids is None
                else packing.pack(token_type_ids, 0)
            )
            if token_type_ids is not None:
                self._check_token_types(packed["token_type_ids"])
        return Reading(self, packing, packed, ascending, kwargs)

    def _check_token_ids(self, input_ids: torch.Tensor) -> None:
        wrong = _first_outside(input_ids, self.config.vocab_size)
        if wrong is not None:
            raise ValueError(
                f"Token id {wrong} is outside the vocabulary of {self.config.vocab_size} entries: the "
                "tokenizer is not the one this model was trained with."
            )

    def _check_token_types(self, token_type_ids: torch.Tensor) -> None:
        number = self.config.type_vocab_size
        wrong = _first_outside(token_type_ids, number)
        if wrong is not None:
            raise ValueError(
                f"`token_type_ids` holds {wrong}, and this encoder knows the types 0 to {number - 1} only: "
                "leave them out."
            )

    def _encode(self, mask: torch.Tensor, is_full: bool, **inputs: Any) -> Any:
        """Run the encoder on documents or windows (N, S) whose `mask` is True for tokens; `is_full`: everywhere."""
        if "encoder_states" in inputs:
            return BaseModelOutput(last_hidden_state=inputs["encoder_states"])
        encoded = self.roberta(
            attention_mask=None if is_full else mask.long(),
            position_ids=mask.cumsum(dim=1) * mask + self.config.pad_token_id,
            return_dict=True,
            **inputs,
        )
        if encoded.last_hidden_state.device != mask.device:  # the encoder may be on another one (device_map)
            encoded.last_hidden_state = encoded.last_hidden_state.to(mask.device)
            layers = encoded.hidden_states or ()
            encoded.hidden_states = tuple(layer if layer is None else layer.to(mask.device) for layer in layers)
        return encoded

    def _summarise(self, reading: "Reading", chunk: Chunk, before: Part | None) -> Part:
        """Add a chunk to the summary (B, A·E) of what was read before."""
        part = self._summarise_chunk(chunk, reading.ends(chunk))
        before = before or self.summary.of_nothing(reading.packing.lengths.shape[0], like=part.value)
        merged = self.summary.merge(Part(*(field[chunk.rows] for field in before)), part)
        return Part(*(old.index_copy(0, chunk.rows, new) for old, new in zip(before, merged, strict=True)))

    def _summarise_chunk(self, chunk: Chunk, ends: torch.Tensor, is_running: bool = False) -> Part:
        """Call the summary, which may be on another device (device_map), for the device of the batch."""
        part = self.summary(chunk.states, chunk.mask, chunk.first, ends, is_running)
        return Part(*(field.to(chunk.rows.device) for field in part))

    def _calibrate(self, logits: torch.Tensor) -> torch.Tensor:
        single_label = self.config.problem_type in (None, "single_label_classification") and self.config.num_labels > 1
        if self.training or not single_label:
            return logits
        return logits / self.config.calibration_temperature


class Reading:
    """A batch on its way through encoder and GRU; iterating over it, once, gives its chunks.

    With gradients there is one chunk. Without, documents beyond the window come in chunks of `windows_per_chunk`
    windows. A GRU that reads both ways then needs L + 1 passes over them, in turn from the left and from the right:
    what its layers carry over every boundary is kept and is right up to one more layer after each pass. Every pass
    encodes anew, in training mode with other dropout; unless the encoder's states are few enough to be kept: then
    there is one chunk too, though its windows are encoded a few at a time.

    Where ranks hold an encoder in shards, each layer is put together by all of them, so all must call it equally
    often: once with gradients; without, as often as the rank with the most to read, and the others read one token
    for the sake of being there.
    """

    def __init__(
        self,
        model: RobertaGRUPreTrainedModel,
        packing: Packing,
        inputs: dict[str, torch.Tensor],
        ascending: bool,
        encoder_kwargs: dict[str, Any],
    ):
        """Plan the reading.

        Args:
            model: the model that reads.
            packing: how the batch was packed.
            inputs: the packed batch: `input_ids` or `inputs_embeds`, and `token_type_ids`, `(B, S)` or `(B, S, D)`.
            ascending: chunks must come from the first to the last; costs a pass more where the last one runs back.
            encoder_kwargs: passed to the encoder.
        """
        self.model, self.packing, self.inputs, self.encoder_kwargs = model, packing, inputs, encoder_kwargs
        # The encoder's own, packed; whole when the iteration has ended.
        self._hidden_states: tuple[torch.Tensor, ...] = ()
        self._attentions: tuple[torch.Tensor, ...] | None = None
        config = model.config
        self.windows = self._windows(config)
        self.num_chunks = self.num_passes = 1
        self.shard_groups = _shard_groups(model.roberta)
        if self.windows is None:
            return
        most = int(self.windows.counts.max())
        # How many windows of each document make a chunk, and how many of all documents are encoded at once.
        self.windows_per_chunk, self.windows_at_once = most, most * len(packing.lengths)
        if not torch.is_grad_enabled():
            self.windows_at_once = config.windows_per_chunk * len(packing.lengths)
            if not (config.gru_bidirectional and self._size_of_states() < MOST_STATES_KEPT):
                self.windows_per_chunk = config.windows_per_chunk
        elif not self.shard_groups and any(layer.gradient_checkpointing for layer in model.roberta.encoder.layer):
            # Where layers keep their inputs only, what one layer needs for all windows at once would be the most.
            self.windows_at_once = config.windows_per_chunk
        self.num_chunks = -(-most // self.windows_per_chunk)
        if config.gru_bidirectional and self.num_chunks > 1:
            self.num_passes = config.num_gru_layers + 1
            if ascending and self.num_passes % 2 == 0:
                self.num_passes += 1

    def __iter__(self) -> Iterator[Chunk]:
        left: list[torch.Tensor | None] = [None] * (self.num_chunks + 1)  # left[c] (L, B, H) enters chunk c
        right: list[torch.Tensor | None] = [None] * (self.num_chunks + 1)  # right[c + 1] (L, B, H) does, backwards
        num_empty_calls = self._num_empty_calls()
        for number in range(self.num_passes):
            indices = range(self.num_chunks)
            for index in indices if number % 2 == 0 else reversed(indices):
                chunk = self._encode_whole() if self.windows is None else self._encode_windows(self.windows, index)
                states, left[index + 1], right[index] = self._run(chunk, left[index], right[index + 1])
                if self.num_passes == 1:
                    left[index] = None  # read for the last time
                if number == self.num_passes - 1:
                    self._collect_hidden_states(chunk)
                    yield chunk._replace(states=states)
        first = {name: values[:1, :1] for name, values in self.inputs.items()}
        for _ in range(num_empty_calls):
            self.model._encode(self.packing.mask[:1, :1], True, **first, **self.encoder_kwargs)

    def ends(self, chunk: Chunk) -> torch.Tensor:
        """Tell which of a chunk's documents end in it: (R,) bool."""
        return chunk.first + chunk.lengths == self.packing.lengths[chunk.rows]

    def place(self, values: torch.Tensor, chunk: Chunk, into: torch.Tensor | None) -> torch.Tensor:
        """Put a chunk's values (R, S, C) where their tokens are in the packed batch, `into` (B, S, C)."""
        values = values.to(chunk.rows.device)  # a head may be on another one (device_map)
        # What is not a token adds zero, wherever that is: no list of the real ones is needed, which would stop a GPU.
        values = values if self.packing.is_full else values.masked_fill(~chunk.mask[..., None], 0.0)
        if self.num_chunks == 1:
            return values
        num_documents, num_tokens = self.packing.mask.shape
        if into is None:
            into = values.new_zeros(num_documents, num_tokens, values.shape[-1])
        positions = chunk.first[:, None] + torch.arange(values.shape[1], device=values.device)
        targets = chunk.rows[:, None] * num_tokens + positions.clamp(max=num_tokens - 1)  # (R, S)
        into.flatten(0, 1).index_add_(0, targets.flatten(), values.flatten(0, 1))
        return into

    def encoder_outputs(self) -> dict[str, tuple[torch.Tensor, ...] | None]:
        """Return the encoder's own `hidden_states` (B, T, D) and `attentions` (B, heads, T, T), if asked for."""
        unpack = self.packing.unpack
        return {
            "hidden_states": tuple(unpack(layer) for layer in self._hidden_states) or None,
            "attentions": self._attentions
            and tuple(unpack(unpack(layer, dim=2), dim=3) for layer in self._attentions),
        }

    def _windows(self, config: RobertaGRUConfig) -> Windows | None:
        """Return how the documents are cut, or None if the encoder is to see them as they are."""
        width, window, lengths = self.packing.width, config.encoder_window, self.packing.known_lengths
        if width <= window or self.packing.mask.device.type == "meta":
            return None
        if lengths is None:
            raise ValueError(
                f"The batch has {width} columns. How it is cut into windows of {window} tokens depends "
                "on its values, which a compiled or traced model cannot read: compile `model.roberta` alone."
            )
        wanted = self.encoder_kwargs.get("output_attentions")
        if config.output_attentions if wanted is None else wanted:
            raise ValueError(
                f"Row {int(lengths.argmax())} holds {int(lengths.max())} tokens: attentions exist for documents of up "
                f"to {window} tokens only, the encoder's window. Leave `output_attentions` out, or cut the text."
            )
        return Windows(lengths, config)

    def _size_of_states(self) -> int:
        """Return how many bytes the encoder's states of the whole batch would take."""
        # A replica of DataParallel has no parameters, and so no `model.dtype`; an encoder of another engine in this
        # one's place has no embeddings, and its states are float32.
        embeddings = getattr(self.model.roberta, "embeddings", None)
        dtype = torch.float32 if embeddings is None else embeddings.word_embeddings.weight.dtype
        return self.packing.mask.numel() * self.model.config.hidden_size * dtype.itemsize

    def _run(
        self, chunk: Chunk, left: torch.Tensor | None, right: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Run the GRU over a chunk: its states, and what is carried over either boundary, for all B documents."""
        entering = [None if carried is None else carried[:, chunk.rows] for carried in (left, right)]
        states, *leaving = self.model.gru(chunk.states, chunk.lengths, *entering)
        states = states.to(chunk.rows.device)
        leaving = [None if carried is None else carried.to(states.device) for carried in leaving]
        if self.num_chunks == 1:
            return states, None, None
        num_documents = len(self.packing.lengths)
        # Documents that do not reach this chunk have nothing to carry: zeros, in which any direction starts.
        left, right = (
            None
            if carried is None
            else carried.new_zeros(len(carried), num_documents, carried.shape[-1]).index_copy(1, chunk.rows, carried)
            for carried in leaving
        )
        return states, left, right

    def _encode_whole(self) -> Chunk:
        """Encode documents that fit the window."""
        packing = self.packing
        encoded = self.model._encode(packing.mask, packing.is_full, **self.inputs, **self.encoder_kwargs)
        self._attentions = encoded.attentions
        rows = torch.arange(packing.mask.shape[0], device=packing.mask.device)
        states, hidden_states = encoded.last_hidden_state, encoded.hidden_states or ()
        return Chunk(rows, torch.zeros_like(rows), packing.lengths, states, hidden_states)

    def _encode_windows(self, windows: Windows, index: int) -> Chunk:
        """Encode a chunk's windows, and keep of each the states of its own tokens."""
        begin = index * self.windows_per_chunk
        cut = windows.cut(begin, begin + self.windows_per_chunk, self.packing.mask.device)
        num_windows, at_once = len(cut.positions), self.windows_at_once
        parts = [self._encode_some(cut, slice(begin, begin + at_once)) for begin in range(0, num_windows, at_once)]
        layers = [torch.cat(layer) if len(parts) > 1 else layer[0] for layer in zip(*parts, strict=True)]
        states, *hidden_states = (_take_rows(layer.flatten(0, 1), cut.kept) for layer in layers)  # (R, S, D) each
        return Chunk(cut.rows, cut.first, cut.lengths, states, tuple(hidden_states))

    def _encode_some(self, cut: WindowCut, some: slice) -> tuple[torch.Tensor, ...]:
        """Encode some windows: their final states (N, W, D), and those of every layer if they are asked for."""
        places = cut.row_of_window[some, None] * self.packing.width + cut.positions[some]  # (N, W) among the B·S
        inputs = {name: _take_rows(values.flatten(0, 1), places) for name, values in self.inputs.items()}
        encoded = self.model._encode(cut.mask[some], False, **inputs, **self.encoder_kwargs)
        return encoded.last_hidden_state, *(encoded.hidden_states or ())

    def _num_empty_calls(self) -> int:
        """Return how much more often than here the encoder is called by the rank with the most to read."""
        if not self.shard_groups or torch.is_grad_enabled() or "encoder_states" in self.inputs:
            return 0
        num_calls = 1 if self.windows is None else self._num_calls(self.windows)
        most = torch.tensor(num_calls, device=self.packing.mask.device)
        for group in self.shard_groups:
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX, group)
        return int(most) - num_calls

    def _num_calls(self, windows: Windows) -> int:
        """Return how often the encoder is called to read the windows."""
        at_once, per_chunk = self.windows_at_once, self.windows_per_chunk
        in_chunk = [
            int((windows.counts - index * per_chunk).clamp(0, per_chunk).sum()) for index in range(self.num_chunks)
        ]
        return self.num_passes * sum(-(-num_windows // at_once) for num_windows in in_chunk)

    def _collect_hidden_states(self, chunk: Chunk) -> None:
        if self.num_chunks == 1:
            self._hidden_states = chunk.hidden_states
        elif chunk.hidden_states:
            places = self._hidden_states or (None,) * len(chunk.hidden_states)
            self._hidden_states = tuple(
                self.place(layer, chunk, into) for layer, into in zip(chunk.hidden_states, places, strict=True)
            )


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
        """Read a batch of documents of any length.

        With gradients off, documents beyond the encoder's window are read in chunks of `config.windows_per_chunk`
        windows: memory then grows with what is returned only. A bidirectional GRU pays with L + 1 passes once the
        encoder's states of the batch would take 64 MiB.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): token ids, `<s>` … `</s>`. A document's first and last
                token stand around each of its windows, whatever they are.
            attention_mask (`torch.Tensor` of shape `(B, T)`): 1 for real tokens; each row needs one. Unset: all real.
            token_type_ids (`torch.LongTensor` of shape `(B, T)`): passed to the encoder.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, D)`): word embeddings instead of `input_ids`.

        Returns:
            `last_hidden_state`: the states `(B, T, E)` in the input's arrangement, zeros where the mask is 0.
            `pooler_output`: the summary `(B, A·E)`. `hidden_states`: the encoder's own, each token's from the window
            that its state comes from; anything where the mask is 0. `attentions`: the encoder's own, for documents of
            up to W tokens.

        Raises:
            ValueError: if there is no row, or one without a real token, if a token id is outside the vocabulary, if
                `position_ids` are given, or if attentions are asked for and a row holds more than W tokens.
        """
        reading = self._read(input_ids, attention_mask, token_type_ids, inputs_embeds, **kwargs)
        states: Any = None  # (B, S, E)
        summary: Any = None
        for chunk in reading:
            states = reading.place(chunk.states, chunk, states)
            summary = self._summarise(reading, chunk, summary)
        return BaseModelOutputWithPooling(
            last_hidden_state=reading.packing.unpack(states),
            pooler_output=summary.value.to(states.dtype),
            **reading.encoder_outputs(),
        )


class RobertaGRUForSequenceClassification(RobertaGRUPreTrainedModel):
    """RoBERTa-GRU that labels documents: one label, several labels, or numbers, by `config.problem_type`."""

    def __init__(self, config: RobertaGRUConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        if config.problem_type is None and config.num_labels == 1:
            config.problem_type = "regression"  # as the loss takes it; pipelines would show a probability
        self.summary = RobertaGRUSummary(config)
        self.head = RobertaGRUClassificationHead(config, config.summary_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        encoder_states: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Score a batch of documents; see [`RobertaGRUModel.forward`] for the inputs and errors.

        Args:
            encoder_states (`torch.FloatTensor` of shape `(B, T, D)`): what the encoder gave for each token before, as
                `hidden_states[-1]` says, in place of all other inputs but the mask: the encoder is not run.
            labels: `(B,)` int64 for one label per document, or `(B, C)` float, a distribution over the labels, where
                `config.problem_type` says "single_label_classification"; `(B, C)` float for several; `(B,)` or
                `(B, C)` float for regression. Entries equal to -100 do not count.

        Returns:
            `logits` `(B, C)`, raw: softmax or sigmoid is the caller's. `loss` (scalar) if labels are given.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        reading = self._read(input_ids, attention_mask, token_type_ids, inputs_embeds, encoder_states, **kwargs)
        summary: Any = None
        for chunk in reading:
            summary = self._summarise(reading, chunk, summary)
        logits = self._calibrate(self.head(summary.value.to(chunk.states.dtype)))
        return SequenceClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch),
            logits=logits,
            **reading.encoder_outputs(),
        )

    @torch.no_grad()
    def running_logits(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score every document after each of its tokens: the prediction once the GRU had read that far.

        The summary is taken over the tokens read so far; after the last token, the logits are those of `forward`. The
        encoder looks ahead as far as a token's window goes. A right-to-left GRU has read the whole document before:
        with it, the logits show what reading from the left adds. In bounded memory, as in `forward`.

        Returns:
            `torch.FloatTensor` of shape `(B, T, C)`: calibrated logits in the input's arrangement, zeros where the
            mask is 0.
        """
        inputs = (input_ids, attention_mask, token_type_ids, inputs_embeds)
        reading = self._read(*inputs, ascending=True, output_hidden_states=False)
        logits: Any = None  # (B, S, C)
        summary: Any = None
        for chunk in reading:
            running = self._summarise_chunk(chunk, reading.ends(chunk), is_running=True)
            if summary is not None:
                before = Part(*(field[chunk.rows, None] for field in summary))
                running = self.summary.merge(before, running)
            scores = self._calibrate(self.head(running.value.to(chunk.states.dtype)))
            logits = reading.place(scores, chunk, logits)
            summary = self._summarise(reading, chunk, summary)
        return reading.packing.unpack(logits)

    def reader(self, tokenizer: Any) -> "RobertaGRUReader":
        """Open a document that is still being written.

        Args:
            tokenizer: the model's own.

        Raises:
            ValueError: if the GRU reads both ways (what it says of the first word changes with the last one), or the
                tokenizer is not the model's.
        """
        return self.readers(tokenizer, 1)[0]

    def readers(self, tokenizer: Any, num_documents: int) -> "RobertaGRUReaders":
        """Open many such documents, to append to any of them at once.

        They are the faster the more documents each append brings together: their windows are one encoder batch.
        """
        return RobertaGRUReaders(self, tokenizer, num_documents)


class SettlingTokenizer:
    """A tokenizer, and what it promises: how much of a text keeps its tokens whatever follows.

    Where a tokenizer splits at white space and does nothing across it, a text cut before white space has the tokens of
    its parts. This is looked for in the parts of the tokenizer; where it is not sure, nothing is promised.
    """

    # Parts that change a text, and that split it, without looking across white space.
    LOCAL_NORMALIZERS = (
        *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Nmt", "Precompiled"),
        *("ByteLevel", "Prepend", "Strip"),
    )
    LOCAL_SPLITTERS = (
        "ByteLevel",
        "Metaspace",
        "BertPreTokenizer",
        "Whitespace",
        "WhitespaceSplit",
        "Punctuation",
        "Digits",
    )
    LOCAL_REPLACEMENTS = ({"String": " "}, {"Regex": " {2,}"}, {"Regex": r"\s+"}, {"String": "``"}, {"String": "''"})

    def __init__(self, tokenizer: Any, config: RobertaGRUConfig):
        """Look at a tokenizer.

        Raises:
            ValueError: if it is not the tokenizer of a model of this configuration.
        """
        if not callable(tokenizer) or not hasattr(tokenizer, "pad_token_id"):
            raise ValueError(f"A reader needs the model's tokenizer, not a {type(tokenizer).__name__}.")
        if len(tokenizer) > config.vocab_size or tokenizer.pad_token_id != config.pad_token_id:
            raise ValueError(
                f"The tokenizer is not the model's: it has {len(tokenizer)} tokens and `pad_token_id` "
                f"{tokenizer.pad_token_id}, the model {config.vocab_size} and {config.pad_token_id}."
            )
        self.tokenizer = tokenizer
        self.opening: list[int] = []  # token ids that begin every document, `<s>`,
        self.closing: list[int] = []  # and that end it, `</s>`
        self.separators = ""  # white space at which texts may be cut; none: no promise
        if tokenizer.is_fast:
            around = tokenizer("a", verbose=False)
            kinds, ids = around.sequence_ids(), around["input_ids"]
            text = [index for index, kind in enumerate(kinds) if kind is not None] or [0]
            self.opening, self.closing = ids[: text[0]], ids[text[-1] + 1 :]
            if self.opening and self.closing and self._is_local():
                self.separators = "".join(filter(self._splits_at, " \n\t\r"))

    def tokenize(self, text: str) -> tuple[list[int], list[int]]:
        """Return a text's token ids, without those of every document, and where in the text each one ends."""
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return encoding["input_ids"], [end for _, end in encoding["offset_mapping"]]

    def tokenize_whole(self, text: str) -> list[int]:
        """Return the token ids of a whole document."""
        return self.tokenizer(text, verbose=False)["input_ids"]

    def find_settled(self, text: str) -> int:
        """Return how much of a text (in characters) no later text can change: up to its last white space."""
        end = max((text.rfind(separator) for separator in self.separators), default=0)
        # All white space in a row belongs together: special tokens may swallow it.
        return len(text[: max(end, 0)].rstrip())

    def _is_local(self) -> bool:
        backend = self.tokenizer.backend_tokenizer
        added = self.tokenizer.added_tokens_decoder.values()
        return (
            all(map(self._is_local_normalizer, _parts(backend.normalizer, "normalizers")))
            and all(part["type"] in self.LOCAL_SPLITTERS for part in _parts(backend.pre_tokenizer, "pretokenizers"))
            and not any(token.rstrip or len(token.content.split()) != 1 for token in added)
        )

    def _is_local_normalizer(self, part: dict[str, Any]) -> bool:
        if part["type"] == "Replace":
            return part["pattern"] in self.LOCAL_REPLACEMENTS
        return part["type"] in self.LOCAL_NORMALIZERS

    def _splits_at(self, separator: str) -> bool:
        backend = self.tokenizer.backend_tokenizer
        text = f"a{separator}a"
        text = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
        pieces = [] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(text)
        return sum("a" in piece for piece, _ in pieces) == 2


class RobertaGRUReader:
    """A document that is still being written.

    What no later text can change is *settled*, and is kept in the GRU's state and the summary alone: tokens that end
    before the last white space, in windows that can no longer be the last one (which alone is moved back). The rest,
    at most two windows and the words appended, is read anew each time. What is left of the document behind the
    settled strides, the *tail*, is cut into the same windows as the whole, its first token standing before them.
    """

    def __init__(self, model: RobertaGRUForSequenceClassification, tokenizer: SettlingTokenizer):
        self._model, self._tokenizer = model, tokenizer
        self.reset()

    def append(self, text: str) -> torch.Tensor:
        """Read on, without gradients.

        Returns:
            `torch.FloatTensor` of shape `(C,)`: probabilities of the document so far, for regression its values: what
            the model gives for `tokenizer(everything appended)`.

        Raises:
            ValueError: if the document is closed, the text is none, or the model is in training mode.
        """
        return _append([self], [text])[0]

    def close(self) -> torch.Tensor:
        """End the document: return its final probabilities `(C,)`, and refuse more text."""
        probabilities = self.append("") if self.logits is None else _to_probabilities(self.logits, self._model.config)
        self._is_closed = True
        return probabilities

    @torch.no_grad()
    def reset(self) -> None:
        """Begin another document."""
        model, config = self._model, self._model.config
        dtype = torch.promote_types(model.dtype, torch.float32)
        nothing = torch.zeros(1, config.summary_size, dtype=dtype, device=model.device)
        self.logits: torch.Tensor | None = None  # (C,) of the document so far
        self.num_tokens = 0  # of the document so far, those that begin and end every document among them
        self._is_closed = False
        self._text = ""  # not settled, behind one settled word for the tokenizer to see what stood before
        self._num_seen = 0  # characters of that word
        self._num_windows = 0  # settled
        self._tail: list[int] = self._tokenizer.opening[1:]  # token ids behind the settled windows' strides
        self._carried = torch.zeros(config.num_gru_layers, 1, config.gru_hidden_size, dtype=dtype, device=model.device)
        self._summary = model.summary.of_nothing(1, like=nothing)
        self._window: torch.Tensor | None = None  # (W, D) states of the tail's first window, once that cannot change

    def state_dict(self) -> dict[str, Any]:
        """Return everything read so far as tensors, text and numbers, and by which model."""
        state = {name.lstrip("_"): value for name, value in vars(self).items() if name not in ("_model", "_tokenizer")}
        summary = state.pop("summary")
        summary = {f"summary_{name}": field for name, field in summary._asdict().items()}
        return {**state, "tail": torch.tensor(self._tail), **summary, "read_by": self._digest()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where `state_dict` was taken, by a reader of the same model and tokenizer.

        Raises:
            ValueError: if it is another model's, or of a tokenizer that cuts texts in other places, naming the entry;
                this reader is then as it was.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ValueError(f"The state of a reader has {', '.join(sorted(own))}; not {', '.join(sorted(state))}.")
        config = self._model.config
        shapes = {
            **{name: own[name].shape for name in own if name == "carried" or name.startswith("summary_")},
            "window": (config.encoder_window, config.hidden_size),
            "logits": (config.num_labels,),
        }
        device = self._model.device
        tensors: dict[str, Any] = {}
        for name, shape in shapes.items():
            value = state[name]
            if value is None and name not in ("window", "logits"):
                raise ValueError(f"`{name}` is None; this model's has shape {tuple(shape)}.")
            if value is not None and value.shape != shape:
                raise ValueError(f"`{name}` has shape {tuple(value.shape)}; this model's is {tuple(shape)}.")
            tensors[name] = None if value is None else value.to(device)
        if state["read_by"] != own["read_by"]:
            raise ValueError(
                "`read_by` differs: other weights (or another dtype), windows or tokenizer read this text."
            )
        tail = state["tail"].tolist()
        self._summary = Part(*(tensors[f"summary_{name}"] for name in Part._fields))
        self.logits, self._carried, self._window = tensors["logits"], tensors["carried"], tensors["window"]
        self._tail = tail
        self._text, self._num_seen = state["text"], state["num_seen"]
        self.num_tokens, self._num_windows = state["num_tokens"], state["num_windows"]
        self._is_closed = state["is_closed"]

    def __deepcopy__(self, memo: dict[int, Any]) -> "RobertaGRUReader":
        copy = RobertaGRUReader(self._model, self._tokenizer)
        copy.load_state_dict(self.state_dict())
        return copy

    def _digest(self) -> str:
        """Tell one model and tokenizer from others: by how they cut a text, and some numbers of each parameter."""
        model, tokenizer = self._model, self._tokenizer
        config = model.config
        cut = (config.encoder_window, config.window_stride, config.summary, list(config.attention_horizons))
        split = (tokenizer.separators, tokenizer.opening, tokenizer.closing)
        digest = hashlib.sha256(repr((cut, split)).encode())
        for name, weights in model.named_parameters():
            if not weights.is_meta:
                some = weights.detach().flatten()[:: weights.numel() // MOST_SAMPLED + 1]
                digest.update(name.encode() + some.cpu().double().numpy().tobytes())
        return digest.hexdigest()

    def _move(self, device: torch.device) -> None:
        """Follow the model to another device."""
        self._carried, self._summary = self._carried.to(device), Part(*(field.to(device) for field in self._summary))
        self._window, self.logits = (
            None if values is None else values.to(device) for values in (self._window, self.logits)
        )

    def _take(self, text: str) -> list[int]:
        """Add text, and settle what that lets settle; return the token ids of the tail, to the document's end."""
        self._text += text
        tokenizer = self._tokenizer
        if not tokenizer.separators:
            return tokenizer.tokenize_whole(self._text)
        ids, ends = tokenizer.tokenize(self._text)
        # Nothing settles at 0, though a first token may end there: the white space that some tokenizers put in front.
        settled = tokenizer.find_settled(self._text) or -1
        unseen = [(id_, end) for id_, end in zip(ids, ends, strict=True) if end > self._num_seen or not self._num_seen]
        self._tail = [*self._tail, *(id_ for id_, end in unseen if end <= settled)]
        rest = [id_ for id_, end in unseen if end > settled]
        if settled > self._num_seen:
            word = tokenizer.find_settled(self._text[:settled])  # where the white space before the last word begins
            self._text, self._num_seen = self._text[word:], settled - word
        self._settle_windows()
        return [*tokenizer.opening[:1], *self._tail, *rest, *tokenizer.closing]

    def _settle_windows(self) -> None:
        """Read for good, a few at a time, the windows whose tokens and neighbours are settled."""
        model, config = self._model, self._model.config
        tail = torch.tensor([*self._tokenizer.opening[:1], *self._tail, *self._tokenizer.closing[-1:]])
        num_windows = max(0, len(tail) - config.encoder_window) // config.window_stride
        for begin in range(0, num_windows, config.windows_per_chunk):
            end = min(begin + config.windows_per_chunk, num_windows)
            chunk, _ = _encode_tails(model, [self], [tail], begin, end)
            states, carried, _ = model.gru(chunk.states, chunk.lengths, self._carried)
            ends = torch.zeros_like(chunk.lengths, dtype=torch.bool)
            part = model._summarise_chunk(chunk._replace(states=states), ends)
            self._summary = model.summary.merge(self._summary, part)
            self._carried, self._window = carried.to(model.device), None
        self._tail = self._tail[num_windows * config.window_stride :]
        self._num_windows += num_windows


class RobertaGRUReaders(Sequence[RobertaGRUReader]):
    """Documents that are still being written, each a [`RobertaGRUReader`], appended to together."""

    def __init__(self, model: RobertaGRUForSequenceClassification, tokenizer: Any, num_documents: int):
        if model.config.gru_bidirectional:
            raise ValueError(
                "A document that is still being written can be read from left to right only, and this model's GRU "
                "reads both ways (`gru_bidirectional`): what it says of the first word changes with the last one."
            )
        settling = SettlingTokenizer(tokenizer, model.config)
        self._readers = [RobertaGRUReader(model, settling) for _ in range(num_documents)]

    def __len__(self) -> int:
        return len(self._readers)

    def __getitem__(self, index: Any) -> Any:
        return self._readers[index]

    def append(self, texts: Mapping[int, str]) -> torch.Tensor:
        """Read on in some of the documents, in one encoder batch.

        Args:
            texts: what to append, by the document's index.

        Returns:
            `torch.FloatTensor` of shape `(R, C)`: a row of probabilities for each text, as it alone would give.

        Raises:
            ValueError: as [`RobertaGRUReader.append`], or if `texts` does not name documents by their index. After an
                error every document is as it was before.
            IndexError: if there is no such document.
        """
        if not isinstance(texts, Mapping) or not all(hasattr(index, "__index__") and index >= 0 for index in texts):
            raise ValueError(f"`texts` must map a document's index, 0 to {len(self) - 1}, to the text to append.")
        return _append([self[index] for index in texts], list(texts.values()))


@torch.no_grad()
def _append(readers: Sequence[RobertaGRUReader], texts: Sequence[str]) -> torch.Tensor:
    """Append a text to each of some documents of one model: probabilities (R, C); or, on any error, to none."""
    for reader, text in zip(readers, texts, strict=True):
        if reader._is_closed:
            raise ValueError("This document is closed: `reset()` begins another one.")
        if not isinstance(text, str):
            raise ValueError(f"A reader takes text, not {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"Character {error.start} of the text is half of a surrogate pair.") from error
    if not readers:
        raise ValueError("`append` needs at least one text.")
    model = readers[0]._model
    if model.training:
        raise ValueError(
            "The model is in training mode, in which dropout makes every reading different: call `model.eval()`."
        )
    before = [dict(vars(reader)) for reader in readers]  # whose values are replaced, never changed
    try:
        for reader in readers:
            reader._move(model.device)
        # A streamer gives "" for each token that ends no word: nothing is encoded for it.
        rows = [row for row, text in enumerate(texts) if text or readers[row].logits is None]
        if rows:
            _read_on(model, [readers[row] for row in rows], [texts[row] for row in rows])
        logits: list[Any] = [reader.logits for reader in readers]
        return _to_probabilities(torch.stack(logits), model.config)
    except BaseException:
        for reader, attributes in zip(readers, before, strict=True):
            vars(reader).update(attributes)
        raise


def _read_on(
    model: RobertaGRUForSequenceClassification, readers: Sequence[RobertaGRUReader], texts: Sequence[str]
) -> None:
    tails = [reader._take(text) for reader, text in zip(readers, texts, strict=True)]
    if not all(tails):
        raise ValueError("The document has no token yet: this tokenizer adds none of its own.")
    chunk, windows = _encode_tails(model, readers, tails)
    states, _, _ = model.gru(chunk.states, chunk.lengths, torch.cat([reader._carried for reader in readers], dim=1))
    part = model._summarise_chunk(chunk._replace(states=states), torch.ones_like(chunk.lengths, dtype=torch.bool))
    before = Part(*(torch.cat(fields) for fields in zip(*(reader._summary for reader in readers), strict=True)))
    summary = model.summary.merge(before, part).value
    logits = model._calibrate(model.head(summary.to(states.dtype))).to(model.device)
    config = model.config
    for row, (reader, tail) in enumerate(zip(readers, tails, strict=True)):
        reader.logits = logits[row].clone()
        reader.num_tokens = reader._num_windows * config.window_stride + len(tail)
        # Once there are settled tokens beyond the first window, it is not the last, and holds settled tokens only.
        if reader._tokenizer.separators and len(reader._tail) + 2 > config.encoder_window:
            reader._window = windows[row].clone()


def _encode_tails(
    model: RobertaGRUForSequenceClassification,
    readers: Sequence[RobertaGRUReader],
    tails: Sequence[list[int] | torch.Tensor],
    begin: int = 0,
    end: int | None = None,
) -> tuple[Chunk, torch.Tensor]:
    """Encode windows `begin` … `end` - 1 of tails, those apart whose states a reader keeps.

    Returns:
        The chunk of their unread tokens, at their positions in the document, and the first window of each tail
        `(R, W, D)`.
    """
    config, device = model.config, model.device
    size, stride = config.encoder_window, config.window_stride
    # Of a tail behind settled windows, the first token unread is where it would be in any window but the first.
    unread = torch.tensor([(size - 3 - stride) // 2 + 2 if reader._num_windows else 0 for reader in readers])
    windows = Windows(torch.tensor([len(tail) for tail in tails]), config, unread)
    end = int(windows.counts.max()) if end is None else end
    cut = windows.cut(begin, end, device)
    ids = pad_sequence([torch.as_tensor(tail) for tail in tails], batch_first=True).to(device)
    ids = ids[cut.row_of_window[:, None], cut.positions].masked_fill(~cut.mask, config.pad_token_id)  # (N, W)
    first_windows = (windows.index[(windows.index >= begin) & (windows.index < end)] == 0).nonzero()[:, 0].tolist()
    known = {
        n: reader._window for n, reader in zip(first_windows, readers, strict=False) if reader._window is not None
    }
    states = torch.empty(*ids.shape, config.hidden_size, dtype=model.dtype, device=device)  # (N, W, D)
    for n, window in known.items():
        states[n] = window
    others = torch.tensor([n for n in range(len(ids)) if n not in known], dtype=torch.long)
    is_full = min(map(len, tails)) >= windows.width
    for some in others.to(device).split(config.windows_per_chunk * len(readers)):
        if len(some):
            encoded = model._encode(
                cut.mask[some], is_full, input_ids=ids[some], token_type_ids=torch.zeros_like(ids[some])
            )
            states[some] = encoded.last_hidden_state.to(states.dtype)
    behind = torch.tensor([reader._num_windows * stride for reader in readers], device=device)
    kept = _take_rows(states.flatten(0, 1), cut.kept)  # (R, S, D)
    return Chunk(cut.rows, cut.first + behind, cut.lengths, kept), states[first_windows]


def _to_probabilities(logits: torch.Tensor, config: RobertaGRUConfig) -> torch.Tensor:
    problem_type = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    if problem_type == "regression":
        return logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # 8 bits would round 0.4998 to 0.5
    return logits.softmax(dim=-1) if problem_type == "single_label_classification" else logits.sigmoid()


def _parts(component: Any, of_sequence: str) -> list[dict[str, Any]]:
    """Describe the parts of a tokenizer's component: a sequence's, or itself."""
    if component is None:
        return []
    described = json.loads(component.__getstate__())
    return described.get(of_sequence, [described])


class RobertaGRUForTokenClassification(RobertaGRUPreTrainedModel):
    """RoBERTa-GRU that labels every token: the same head on every token's states, as on a document of that token."""

    _keys_to_ignore_on_load_unexpected = [*RobertaGRUPreTrainedModel._keys_to_ignore_on_load_unexpected, r"^summary\."]

    def __init__(self, config: RobertaGRUConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.head = RobertaGRUClassificationHead(config, config.summary_size)
        self.num_summaries = config.summary_size // config.state_size  # of one token, all alike
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
            labels (`torch.LongTensor` of shape `(B, T)`): one label per token; -100, and one where the mask is 0,
                does not count.

        Returns:
            `logits` `(B, T, C)` in the input's arrangement, zeros where the mask is 0. `loss` (scalar) if
            labels are given.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        reading = self._read(input_ids, attention_mask, token_type_ids, inputs_embeds, **kwargs)
        logits: Any = None  # (B, S, C)
        for chunk in reading:
            scores = self.head(chunk.states.repeat(1, 1, self.num_summaries))
            logits = reading.place(self._calibrate(scores), chunk, logits)
        logits = reading.packing.unpack(logits)
        if labels is not None and labels.shape == reading.packing.is_real.shape:
            labels = labels.masked_fill(~reading.packing.is_real, IGNORED_LABEL)
        return TokenClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch),
            logits=logits,
            **reading.encoder_outputs(),
        )


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


def _problem_type(labels: torch.Tensor, num_labels: int) -> str:
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def _align(tensor: torch.Tensor, values: torch.Tensor, dim: int) -> torch.Tensor:
    """View a (B, S) tensor so that it stands along axes 0 and `dim` of `values`."""
    shape = [1] * values.ndim
    shape[0], shape[dim] = tensor.shape
    return tensor.view(shape)


def _take_columns(states: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Pick, for each row, the given columns (B, T) of states (B, T, D)."""
    return states.gather(1, columns[..., None].expand(-1, -1, states.shape[-1]))


def _take_rows(states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Pick rows (…) of states (n, D) or (n,). Plain indexing has a slow gradient on the CPU."""
    return states.index_select(0, rows.flatten()).unflatten(0, rows.shape)


def _values_can_be_read(tensor: torch.Tensor) -> bool:
    """Tell whether looking at values neither stops a trace nor meets a tensor without data."""
    return not (tensor.device.type == "meta" or torch.compiler.is_compiling() or torch.jit.is_tracing())


def _first_outside(indices: torch.Tensor, number: int) -> int | None:
    """Return the first index that is not in 0 … `number` - 1, if there is one and looking for it costs little."""
    # On an accelerator this would cost a synchronisation more, and the embedding's own assertion fires.
    if indices.device.type != "cpu" or not _values_can_be_read(indices):
        return None
    outside = indices[(indices < 0) | (indices >= number)]
    return int(outside[0]) if len(outside) else None


def _shard_groups(module: nn.Module) -> list[Any]:
    """Return the groups of ranks that hold the layers of a module in shards (FSDP 2); none if each holds all."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return []
    try:
        from torch.distributed.tensor import DTensor
    except ImportError:  # torch before 2.5 has no FSDP 2 either
        return []
    meshes = [parameter.device_mesh for parameter in module.parameters() if isinstance(parameter, DTensor)]
    return meshes[0].get_all_groups() if meshes else []


def _no_weight(states: torch.Tensor) -> torch.Tensor:
    return states.new_zeros(*states.shape[:-1], 1)


def _without_autocast(device: torch.device) -> Any:
    """Return a context in which products keep their operands' precision."""
    if device.type == "cpu" or (device.type != "meta" and _has_autocast(device)):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _has_autocast(device: torch.device) -> bool:
    try:
        return torch.is_autocast_enabled(device.type)
    except TypeError:  # torch before 2.4 says it of GPUs only
        return torch.is_autocast_enabled()


def _run_gru(gru: Any, states: torch.Tensor, initial: torch.Tensor | None) -> torch.Tensor:
    """Run one layer in one direction from state `initial` (R, H) or from zeros: (R, S, D) → (R, S, H).

    On the CPU the recurrence computes in at least float32, whatever the parameters or autocast say: bfloat16 is half
    as fast there, and rounding would add up over the steps.
    """
    if not hasattr(gru, "weight_ih_l0"):  # torch's dynamic quantisation puts its own in the place
        return gru(states.float(), None if initial is None else initial[None].float())[0]
    weights = [gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0]
    if initial is None:
        initial = states.new_zeros(states.shape[0], gru.hidden_size)
    if states.device.type not in ("cpu", "meta"):
        dtype = states.dtype if _has_autocast(states.device) else weights[0].dtype
        # cuDNN keeps what gradients need where it is told that it trains: in evaluation mode too, if there are any.
        trains = torch.is_grad_enabled()
        return torch.gru(states.to(dtype), initial[None].to(dtype), weights, True, 1, 0.0, trains, False, True)[0]
    dtype = torch.promote_types(states.dtype, torch.float32)
    with _without_autocast(states.device):
        weights = [weight.to(dtype) for weight in weights]
        return torch.gru(states.to(dtype), initial[None].to(dtype), weights, True, 1, 0.0, False, False, True)[0]


def _is_loaded(parameter: torch.Tensor) -> bool:
    # Set by transformers (4.57 and 5) on each parameter that a checkpoint gave.
    return getattr(parameter, "_is_hf_initialized", False)


__all__ = [
    "RobertaGRUForSequenceClassification",
    "RobertaGRUForTokenClassification",
    "RobertaGRUModel",
    "RobertaGRUPreTrainedModel",
]
