"""What the labels mean: the kind of problem, the classes in order, and how raw labels become numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import yaml
from datasets import ClassLabel, Dataset, List, Value

from ..arguments import DataArguments
from ..errors import InputError, unknown_name
from ..modeling_roberta_gru import IGNORED_LABEL
from .documents import first_rows

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"

# "007" is a name: written back as an integer it would not be found again
INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?")

Encoded = int | float | list[float]


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a problem.

    Attributes:
        problem_type: "single_label_classification", "multi_label_classification" or "regression", as in transformers.
        names: the classes (or regression targets) by index, as people read them.
        values: how the data write each class, where that differs from its name: ("0", "4") for Sentiment140, whose
            names are ("negative", "positive"). Empty where the names are what stands in the data.
    """

    problem_type: str
    names: tuple[str, ...]
    values: tuple[str, ...] = ()

    @property
    def num_labels(self) -> int:
        return len(self.names)

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @classmethod
    def from_config(cls, config: Any) -> "LabelSpace":
        """Read the labels of a saved model.

        Data may write a class by its name or as the config's `label_values` say; without those, by its index, unless
        the names are integers themselves.
        """
        names = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
        problem_type = config.problem_type or (REGRESSION if len(names) == 1 else SINGLE_LABEL)
        by_index = () if _all_numbers(names) else tuple(map(str, range(len(names))))
        return cls(problem_type, names, tuple(getattr(config, "label_values", None) or by_index))

    def config_fields(self) -> dict[str, Any]:
        """Return the config fields that say all this, for [`LabelSpace.from_config`] to read back."""
        fields = {"problem_type": self.problem_type, "id2label": self.id2label, "label2id": self.label2id}
        return {**fields, "label_values": list(self.values)} if self.values else fields

    def encode(
        self, labels: Sequence[Any], delimiter: str | None = None, row_ids: Sequence[str] | None = None
    ) -> list[Encoded]:
        """Turn raw labels into class indices, 0/1 vectors or regression targets.

        Args:
            labels: one raw label a row, none missing.
            delimiter: splits strings into several labels.
            row_ids: what messages name the rows by ("test:17"); unset: their positions.

        Raises:
            InputError: if a label is unknown, or a target is not a number (or not as many as there are targets).
        """
        if self.problem_type == REGRESSION:
            return self._targets(labels, row_ids)
        if self.problem_type == SINGLE_LABEL:
            several = [row for row, label in enumerate(labels) if isinstance(label, list)]
            if several:
                raise InputError(f"One label a text is wanted, but a list stands in {_said(several, row_ids)}.")
        rows = [[_key(item) for item in items] for items in label_lists(labels, delimiter)]
        self._check_known(rows, row_ids)
        indices = [[self._index[key] for key in keys] for keys in rows]
        if self.problem_type == SINGLE_LABEL:
            return [only for (only,) in indices]
        return [[float(index in present) for index in range(self.num_labels)] for present in map(set, indices)]

    @cached_property
    def _index(self) -> dict[str, int]:
        # a name wins over another class's value
        return {_key(label): index for labels in (self.values, self.names) for index, label in enumerate(labels)}

    def _check_known(self, rows: list[list[str]], row_ids: Sequence[str] | None) -> None:
        unknown: dict[str, list[int]] = {}
        for row, keys in enumerate(rows):
            for key in keys:
                if key not in self._index:
                    unknown.setdefault(key, []).append(row)
        if unknown:
            label, at = next(iter(unknown.items()))
            near = get_close_matches(label, self.names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {_some(self._index)}."
            others = f" ({len(unknown) - 1} more labels are unknown.)" if len(unknown) > 1 else ""
            raise InputError(f"Unknown label {label!r} in {_said(at, row_ids)}. {hint}{others}")

    def _targets(self, labels: Sequence[Any], row_ids: Sequence[str] | None) -> list[Encoded]:
        numbers = [_number(label) for label in labels]
        bad = [row for row, number in enumerate(numbers) if number is None or number == IGNORED_LABEL]
        if bad:
            why = f"; {IGNORED_LABEL} is how transformers writes no label" if IGNORED_LABEL in numbers else ""
            raise InputError(f"The target is not a number in {_said(bad, row_ids)}: {labels[bad[0]]!r}{why}.")
        return [number for number in numbers if number is not None]


def infer_labels(documents: Dataset, args: DataArguments) -> LabelSpace:
    """Read off the training documents what their labels mean.

    Raises:
        InputError: if there are fewer than two classes, or `args` name another number of classes.
    """
    labels = raw_labels(documents)
    problem_type = _problem_type(labels, args)
    if problem_type == REGRESSION:
        return _target_space(labels, args.class_names)
    feature = _item_feature(documents)
    is_named = isinstance(feature, ClassLabel)
    found = feature.names if is_named else _distinct(labels, args.label_delimiter, documents["row_id"][:])
    if len(found) < 2:
        only = f"only {found[0]!r}" if found else "no label"
        raise InputError(f"Two classes are needed at least, but --label_column {args.label_column!r} holds {only}.")
    names = args.class_names
    if not names:
        return LabelSpace(problem_type, tuple(found))
    if len(names) != len(found) or len(set(names)) != len(names):
        raise InputError(f"--class_names names {len(set(names))} classes, the data hold {len(found)}: {_some(found)}.")
    if set(names) == set(found):
        return LabelSpace(problem_type, tuple(names))
    if not is_named and not _all_numbers(found):
        raise InputError(f"--class_names are others than those of the data: {_some(found)}.")
    return LabelSpace(problem_type, tuple(names), tuple(found))


def encode_documents(documents: Dataset, labels: LabelSpace, args: DataArguments) -> Dataset:
    """Replace the column `label` by what the model learns: int64, a float32 vector, or a float32.

    Raises:
        InputError: if a label is unknown or a target is not a number; rows are those of the source.
    """
    encoded = labels.encode(raw_labels(documents), args.label_delimiter, documents["row_id"][:])
    feature = Value("int64") if labels.problem_type == SINGLE_LABEL else Value("float32")
    if encoded and isinstance(encoded[0], list):
        feature = List(feature)
    return documents.remove_columns("label").add_column("label", encoded, feature=feature)


def raw_labels(documents: Dataset) -> list[Any]:
    """Return the labels as read, but the integers of a `ClassLabel` as its names."""
    labels = documents["label"][:]
    feature = _item_feature(documents)
    if not isinstance(feature, ClassLabel):
        return labels
    names = feature.names
    return [[names[item] for item in label] if isinstance(label, list) else names[label] for label in labels]


def label_lists(labels: Iterable[Any], delimiter: str | None) -> list[list[Any]]:
    """Return each row's labels as a list."""

    def several(label: Any) -> list[Any]:
        if isinstance(label, list):
            return label
        if delimiter and isinstance(label, str):
            return [item for item in label.split(delimiter) if item.strip()]
        return [label]

    return [several(label) for label in labels]


def _item_feature(documents: Dataset) -> Any:
    feature = documents.features["label"]
    return getattr(feature, "feature", feature)


def _problem_type(labels: list[Any], args: DataArguments) -> str:
    if args.problem_type != "auto":
        return args.problem_type
    numbers = [_number(item) for items in label_lists(labels, args.label_delimiter) for item in items]
    if None not in numbers and any(number % 1 for number in numbers if number is not None):
        return REGRESSION
    return MULTI_LABEL if args.label_delimiter or isinstance(labels[0], list) else SINGLE_LABEL


def _target_space(labels: list[Any], names: list[str] | None) -> LabelSpace:
    if isinstance(labels[0], list):
        raise InputError(
            "Each text has several numbers, which cannot be measured together: choose one of them by --label_column."
        )
    if names and len(names) != 1:
        raise InputError(f"--class_names names {len(names)} targets, the data hold 1.")
    return LabelSpace(REGRESSION, tuple(names or ["target"]))


def _distinct(labels: list[Any], delimiter: str | None, row_ids: Sequence[str]) -> list[str]:
    """Return the labels there are: integers by size, names by the alphabet."""
    rows = label_lists(labels, delimiter)
    repeated = [row for row, items in enumerate(rows) if len(set(map(_key, items))) < len(items)]
    if repeated:
        raise InputError(
            f"A label is repeated in {_said(repeated, row_ids)}: give the labels that hold, not a 0/1 vector."
        )
    keys = {_key(item) for items in rows for item in items}
    return sorted(keys, key=int) if _all_numbers(keys) else sorted(keys)


def _key(label: Any) -> str:
    """Write a label as its name: 1, 1.0, "1" and " 1.0" are one class, as JSON, pandas and CSV write it."""
    text = str(label).strip()
    integer = INTEGER.fullmatch(text)
    return integer[1] if integer else text


def _number(label: Any) -> float | None:
    if isinstance(label, bool):
        return None
    try:
        return float(label)
    except (TypeError, ValueError):
        return None


def _all_numbers(keys: Iterable[str]) -> bool:
    return all(INTEGER.fullmatch(key) for key in keys)


def _said(rows: Sequence[int], row_ids: Sequence[str] | None) -> str:
    """Say rows as the source counts them, from 1: "rows 3, 8 of the test split"."""
    if row_ids is None:
        return first_rows(rows)
    by_split: dict[str, list[int]] = {}
    for row in rows:
        split, number = row_ids[row].split(":")
        by_split.setdefault(split, []).append(int(number))
    return ", ".join(f"{first_rows(numbers)} of the {split} split" for split, numbers in by_split.items())


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def class_weights(option: str, labels: LabelSpace, encoded: Sequence[Any]) -> list[float] | None:
    """Return one weight per label, as `--class_weights` says.

    Args:
        option: "none", "balanced", or a mapping from label names to weights.
        labels: the labels.
        encoded: the training split's encoded labels.

    Raises:
        InputError: if the option is none of these, leaves a label out, or does not fit the problem.
    """
    if option == "none":
        return None
    if labels.problem_type == REGRESSION:
        raise InputError("--class_weights needs classes; regression targets have none.")
    if option == "balanced":
        if labels.problem_type != SINGLE_LABEL:
            raise InputError("--class_weights balanced needs one label a text; give a mapping instead.")
        counts = Counter(encoded)
        return [len(encoded) / (labels.num_labels * max(1, counts[index])) for index in range(labels.num_labels)]
    try:
        weights = yaml.load(option, Loader=yaml.BaseLoader)  # all as text: YAML's own reading makes true of Yes
    except yaml.YAMLError:
        weights = None
    if not isinstance(weights, dict):
        raise InputError(
            f"--class_weights must be none, balanced or a mapping from labels to weights, got {option!r}."
        )
    for name in weights:
        if name not in labels.names:
            raise unknown_name("label in --class_weights", name, labels.names)
    numbers = [_weight(name, weights.get(name)) for name in labels.names]
    if not any(numbers):
        raise InputError("--class_weights gives every label weight 0: nothing would be learned. Give one a weight.")
    return numbers


def _weight(label: str, text: Any) -> float:
    try:
        weight = float(text)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise InputError(f"--class_weights gives label {label!r} no weight of at least 0.")
    return weight
