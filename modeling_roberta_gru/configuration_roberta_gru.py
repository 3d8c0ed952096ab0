# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""Configuration of RoBERTa-GRU. Travels to the Hub beside the weights: needs transformers only."""

import inspect
import math
from collections.abc import Iterable
from typing import Any

from transformers import RobertaConfig

SUMMARIES = ("last", "mean", "max", "attention")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
PROBABILITIES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "gru_dropout",
    "head_dropout",
    "label_smoothing",
)
LEAST_SIZES = {
    "vocab_size": 1,
    "hidden_size": 1,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "max_position_embeddings": 1,
    "type_vocab_size": 1,
    "gru_hidden_size": 1,
    "num_gru_layers": 1,
    "head_hidden_size": 0,
    "windows_per_chunk": 1,
}

# Encoders whose checkpoints hold RobertaModel's parameters under RobertaModel's names.
WARM_START_MODEL_TYPES = ("roberta", "xlm-roberta", "camembert")

# Complete from the start: saving one class must not hide the others from the Auto classes.
AUTO_MAP = {
    "AutoConfig": "configuration_roberta_gru.RobertaGRUConfig",
    "AutoModel": "modeling_roberta_gru.RobertaGRUModel",
    "AutoModelForSequenceClassification": "modeling_roberta_gru.RobertaGRUForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_roberta_gru.RobertaGRUForTokenClassification",
}


class RobertaGRUConfig(RobertaConfig):
    """Configure a RoBERTa encoder whose states are read by a GRU.

    The defaults are roberta-base's geometry and the GRU of Tan, Lee, Lim (Applied Sciences 2023, 13(6), 3915). Fields
    of [`RobertaConfig`] keep their meaning; the ones below are added.

    Args:
        gru_hidden_size (`int`, defaults to 256): width H of one GRU direction.
        num_gru_layers (`int`, defaults to 1): number of GRU layers.
        gru_bidirectional (`bool`, defaults to `False`): also read from right to left; states are then 2·H wide.
        gru_dropout (`float`, defaults to 0.0): dropout between GRU layers.
        skip_connection (`bool`, defaults to `False`): hand on the encoder's state of each token beside the GRU's.
        summary (`str`, defaults to `"last"`): what the head sees of a document: the GRU's final state (`"last"`), or
            the `"mean"`, the `"max"` or a learned `"attention"` over the states.
        attention_horizons (`list[int]`, defaults to `[0]`): one attention for each, side by side in what the head sees
            of the summary `"attention"`; each looks back over about so many tokens from the document's end (a token's
            weight falls by a factor of e over that many tokens), with 0 over the whole document alike.
        head_hidden_size (`int`, defaults to 256): width of the head's dense layer; 0 leaves a single linear layer.
        head_dropout (`float`, defaults to 0.1): dropout before each of the head's linear layers.
        window_overlap (`int`, *optional*): number of tokens that neighbouring windows of a long document share, 0 to
            W - 3. Unset: 64, or a quarter of the window's content where that is less.
        windows_per_chunk (`int`, defaults to 8): how many windows of each document are encoded at once where
            gradients are off, and how many of all documents where activations are checkpointed; bounds the memory
            that long documents take.
        calibration_temperature (`float`, defaults to 1.0): divides single-label logits in eval mode; fitted after
            training, reset to 1 when training starts.
        class_weights (`list[float]`, *optional*): one weight per label, for the loss.
        label_smoothing (`float`, defaults to 0.0): part of each target spread over all labels, for the loss.
        stop_thresholds (`dict`, *optional*): from which certainty of the running prediction a scorer may stop reading:
            for each agreement with the labels of whole documents (`"0.99"`) its `threshold` and what it was fitted on;
            fitted after training, unset when training starts. The model itself always reads everything.

    Raises:
        ValueError: if a field has a value it cannot have, if a keyword looks like a misspelt field, or if the
            configuration is that of another architecture.
    """

    model_type = "roberta-gru"

    def __init__(
        self,
        vocab_size: int = 50265,
        max_position_embeddings: int = 514,
        type_vocab_size: int = 1,
        layer_norm_eps: float = 1e-5,
        gru_hidden_size: int = 256,
        num_gru_layers: int = 1,
        gru_bidirectional: bool = False,
        gru_dropout: float = 0.0,
        skip_connection: bool = False,
        summary: str = "last",
        attention_horizons: list[int] | None = None,
        head_hidden_size: int = 256,
        head_dropout: float = 0.1,
        window_overlap: int | None = None,
        windows_per_chunk: int = 8,
        calibration_temperature: float = 1.0,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        stop_thresholds: dict[str, dict[str, Any]] | None = None,
        **kwargs: Any,
    ):
        source = kwargs.pop("model_type", self.model_type)
        if source not in (self.model_type, *WARM_START_MODEL_TYPES):
            raise ValueError(
                f"`model_type` is {source!r}: RoBERTa-GRU starts from its own checkpoints or from those of "
                f"{', '.join(WARM_START_MODEL_TYPES)}."
            )
        _refuse_misspelt_fields(kwargs)
        kwargs["auto_map"] = dict(AUTO_MAP)
        super().__init__(
            vocab_size=vocab_size,
            max_position_embeddings=max_position_embeddings,
            type_vocab_size=type_vocab_size,
            layer_norm_eps=layer_norm_eps,
            **kwargs,
        )
        self.gru_hidden_size = gru_hidden_size
        self.num_gru_layers = num_gru_layers
        self.gru_bidirectional = gru_bidirectional
        self.gru_dropout = gru_dropout
        self.skip_connection = skip_connection
        self.summary = summary
        self.attention_horizons = [0] if attention_horizons is None else attention_horizons
        self.head_hidden_size = head_hidden_size
        self.head_dropout = head_dropout
        self.window_overlap = window_overlap
        self.windows_per_chunk = windows_per_chunk
        self.calibration_temperature = calibration_temperature
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        self.stop_thresholds = stop_thresholds
        self.check()

    @property
    def encoder_window(self) -> int:
        """The number W of tokens that the encoder can see at once: 512 for roberta-base."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @property
    def window_stride(self) -> int:
        """The number of tokens from the start of one window of a long document to the start of the next."""
        content = self.encoder_window - 2
        return content - (min(64, content // 4) if self.window_overlap is None else self.window_overlap)

    def window_capacity(self, num_windows: int) -> int:
        """Return the number of tokens that this many windows hold, `<s>` and `</s>` included."""
        return self.encoder_window + (num_windows - 1) * self.window_stride

    @property
    def gru_output_size(self) -> int:
        """The width K·H of a GRU state."""
        return self.gru_hidden_size * (2 if self.gru_bidirectional else 1)

    @property
    def state_size(self) -> int:
        """The width E of a token's state as it is handed on: K·H, with a skip connection D more."""
        return self.gru_output_size + (self.hidden_size if self.skip_connection else 0)

    @property
    def summary_size(self) -> int:
        """The width of what the head sees of a document: E, with A attentions A·E."""
        return self.state_size * (len(self.attention_horizons) if self.summary == "attention" else 1)

    def check(self, is_built: bool = False) -> None:
        """Check the fields that make the model; the model does so again, since fields can be set after construction.

        Args:
            is_built: also check that fields fit each other that the encoder alone needs. As with the library's own
                configurations, one that is never built into a model may have them as it likes.

        Raises:
            ValueError: naming the field, its value and what it may be.
        """
        for name, least in LEAST_SIZES.items():
            value = getattr(self, name)
            _require(_is_whole(value) and value >= least, name, value, f"a whole number of at least {least}")
        for name in PROBABILITIES:
            value = getattr(self, name)
            _require(_is_number(value) and 0 <= value < 1, name, value, "a number from 0 to below 1")
        _require(self.summary in SUMMARIES, "summary", self.summary, f"one of {', '.join(SUMMARIES)}")
        horizons = self.attention_horizons
        _require(
            isinstance(horizons, list)
            and len(horizons) > 0
            and all(_is_whole(tokens) and tokens >= 0 for tokens in horizons),
            "attention_horizons",
            horizons,
            "a list of whole numbers of at least 0",
        )
        for name in ("gru_bidirectional", "skip_connection"):
            value = getattr(self, name)
            _require(isinstance(value, bool), name, value, "true or false")
        epsilon, temperature = self.layer_norm_eps, self.calibration_temperature
        _require(_is_number(epsilon) and epsilon > 0, "layer_norm_eps", epsilon, "above 0")
        in_bounds = _is_number(temperature) and 0.01 <= temperature <= 100
        _require(in_bounds, "calibration_temperature", temperature, "from 0.01 to 100")
        spread = self.initializer_range
        _require(_is_number(spread) and spread >= 0, "initializer_range", spread, "a number of at least 0")
        _require(
            _are_thresholds(self.stop_thresholds),
            "stop_thresholds",
            self.stop_thresholds,
            'unset, or for each agreement between 0 and 1, such as "0.99", a `threshold` from 0 to 1 or null',
        )
        self._check_labels()
        self._check_encoder(is_built)
        window, overlap = self.encoder_window, self.window_overlap
        _require(window >= 3, "max_position_embeddings", self.max_position_embeddings, "above `pad_token_id` + 3")
        _require(
            overlap is None or (_is_whole(overlap) and 0 <= overlap <= window - 3),
            "window_overlap",
            overlap,
            f"unset, or a whole number from 0 to {window - 3}, three below the encoder's window",
        )

    def _check_labels(self) -> None:
        num_labels, weights, problem_type = self.num_labels, self.class_weights, self.problem_type
        _require(_is_whole(num_labels) and num_labels >= 1, "num_labels", num_labels, "a whole number of at least 1")
        _require(
            {str(label) for label in self.id2label} == {str(label) for label in range(num_labels)},
            "id2label",
            self.id2label,
            f"one name for each label from 0 to {num_labels - 1}",
        )
        _require(
            problem_type is None or problem_type in PROBLEM_TYPES,
            "problem_type",
            problem_type,
            f"unset, or one of {', '.join(PROBLEM_TYPES)}",
        )
        _require(
            weights is None
            or (
                isinstance(weights, (list, tuple))
                and len(weights) == num_labels
                and all(_is_number(weight) and weight >= 0 for weight in weights)
            ),
            "class_weights",
            weights,
            f"unset, or {num_labels} numbers of at least 0, one per label",
        )

    def _check_encoder(self, is_built: bool) -> None:
        width, heads = self.hidden_size, self.num_attention_heads
        last, padding = self.vocab_size - 1, self.pad_token_id
        fits = not is_built or width % heads == 0
        _require(fits, "num_attention_heads", heads, f"a divisor of `hidden_size`, {width}")
        _require(not self.is_decoder, "is_decoder", self.is_decoder, "false: the encoder reads both ways")
        _require(
            _is_whole(padding) and 0 <= padding <= last, "pad_token_id", padding, f"a whole number from 0 to {last}"
        )


def _require(holds: bool, name: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` is {value!r}; it must be {allowed}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_thresholds(value: Any) -> bool:
    if value is None:
        return True
    try:
        return all(
            0 < float(agreement) < 1
            and (entry["threshold"] is None or (_is_number(entry["threshold"]) and 0 <= entry["threshold"] <= 1))
            for agreement, entry in value.items()
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _refuse_misspelt_fields(names: Iterable[str]) -> None:
    # Other unknown names pass: a configuration written by a newer version must load.
    fields = [name for name in inspect.signature(RobertaGRUConfig).parameters if name != "kwargs"]
    for name in names:
        for field in fields:
            if name != field and _is_near(name, field):
                raise ValueError(f"Unknown configuration field `{name}`. Did you mean `{field}`?")


def _is_near(name: str, field: str, most: int = 2) -> bool:
    """Tell whether so many insertions, deletions and substitutions make one of the other (Levenshtein 1966)."""
    if len(set(name) ^ set(field)) > 2 * most:  # nearly every pair ends here, which costs little
        return False
    previous = list(range(len(field) + 1))
    for row, character in enumerate(name, start=1):
        current = [row]
        for column, other in enumerate(field, start=1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (character != other)))
        if min(current) > most:
            return False
        previous = current
    return previous[-1] <= most
