# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""Configuration of the recurrent baselines. Travels to the Hub beside the weights: needs transformers only."""

import inspect
import math
from collections.abc import Iterable
from typing import Any

from transformers import PretrainedConfig

CELLS = ("rnn", "lstm", "gru")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

# Complete from the start: saving one class must not hide the others from the Auto classes.
AUTO_MAP = {
    "AutoConfig": "configuration_recurrent.RecurrentConfig",
    "AutoModel": "modeling_recurrent.RecurrentModel",
    "AutoModelForSequenceClassification": "modeling_recurrent.RecurrentForSequenceClassification",
}


class RecurrentConfig(PretrainedConfig):
    """Configure a recurrent net that reads word embeddings.

    The defaults are the published ones: a vocabulary of 5,000, embeddings 50 wide, states 100 wide. Labels and
    `problem_type` are those of [`PretrainedConfig`].

    Args:
        vocab_size (`int`, defaults to 5000): number of words that have an embedding.
        embedding_size (`int`, defaults to 50): width E of a word embedding.
        cell (`str`, defaults to `"gru"`): `"rnn"` (Elman's, tanh), `"lstm"` or `"gru"`.
        bidirectional (`bool`, defaults to `False`): also read from right to left; states are then 2·H wide.
        hidden_size (`int`, defaults to 100): width H of one direction.
        num_layers (`int`, defaults to 1): number of recurrent layers.
        dropout (`float`, defaults to 0.0): dropout after the embedding, between layers and before the linear layer.
        pad_token_id (`int`, defaults to 0): its embedding starts as zeros and is not trained.
        calibration_temperature (`float`, defaults to 1.0): divides single-label logits in eval mode; fitted after
            training, reset to 1 when training starts.
        class_weights (`list[float]`, *optional*): one weight per label, for the loss.
        label_smoothing (`float`, defaults to 0.0): part of each target spread over all labels, for the loss.

    Raises:
        ValueError: if a field has a value it cannot have, or if a keyword looks like a misspelt field.
    """

    model_type = "recurrent"

    def __init__(
        self,
        vocab_size: int = 5000,
        embedding_size: int = 50,
        cell: str = "gru",
        bidirectional: bool = False,
        hidden_size: int = 100,
        num_layers: int = 1,
        dropout: float = 0.0,
        pad_token_id: int = 0,
        calibration_temperature: float = 1.0,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ):
        _refuse_misspelt_fields(kwargs)
        kwargs["auto_map"] = dict(AUTO_MAP)
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.cell = cell
        self.bidirectional = bidirectional
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.pad_token_id = pad_token_id
        self.calibration_temperature = calibration_temperature
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        self.check()

    @property
    def output_size(self) -> int:
        """The width K·H of a state."""
        return self.hidden_size * (2 if self.bidirectional else 1)

    def check(self) -> None:
        """Check every added field; the model does so again, since fields can be set after construction.

        Raises:
            ValueError: naming the field, its value and what it may be.
        """
        for name in ("vocab_size", "embedding_size", "hidden_size", "num_layers"):
            value = getattr(self, name)
            _require(_is_whole(value) and value >= 1, name, value, "a whole number of at least 1")
        for name in ("dropout", "label_smoothing"):
            value = getattr(self, name)
            _require(_is_number(value) and 0 <= value < 1, name, value, "a number from 0 to below 1")
        _require(self.cell in CELLS, "cell", self.cell, f"one of {', '.join(CELLS)}")
        _require(isinstance(self.bidirectional, bool), "bidirectional", self.bidirectional, "true or false")
        last, padding = self.vocab_size - 1, self.pad_token_id
        _require(
            _is_whole(padding) and 0 <= padding <= last, "pad_token_id", padding, f"a whole number from 0 to {last}"
        )
        temperature = self.calibration_temperature
        in_bounds = _is_number(temperature) and 0.01 <= temperature <= 100
        _require(in_bounds, "calibration_temperature", temperature, "from 0.01 to 100")
        self._check_labels()

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


def _refuse_misspelt_fields(names: Iterable[str]) -> None:
    # Other unknown names pass: a configuration written by a newer version must load. `num_labels` is not `num_layers`.
    fields = [name for name in inspect.signature(RecurrentConfig).parameters if name != "kwargs"]
    for name in names:
        for field in fields:
            if _is_near(name, field) and not hasattr(PretrainedConfig, name):
                raise ValueError(f"Unknown configuration field `{name}`. Did you mean `{field}`?")


# What follows is copied from configuration_roberta_gru: this file travels without it.


def _require(holds: bool, name: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ValueError(f"`{name}` is {value!r}; it must be {allowed}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


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
