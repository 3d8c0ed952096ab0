"""What the labels mean: the kind of problem, the classes in order, and how raw labels become numbers."""

import json
import logging
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from datasets import Dataset, List, Value

from ..arguments import DataArguments
from ..errors import InputError, unknown_name
from ..modeling_roberta_gru import IGNORED_LABEL
from .dialect import first_rows
from .documents import ONE, SEVERAL, Documents, cells

logger = logging.getLogger(__name__)

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
SCORE_PREFIX = "score_"
"""Begins the column of each label's probability, in files that `score --all-scores` writes."""

# "007" is a name: written back as an integer it would not be found again
INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?")
LIST_ITEM = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s,'"\[\]]+)""")


class LabelError(InputError):
    """Some labels cannot be learned.

    Attributes:
        reason: why.
        rows: (k,) their positions, ascending.
    """

    def __init__(self, reason: str, rows: np.ndarray, row_ids: Any, more: str):
        super().__init__(f"{reason} in {_said(rows, row_ids)}{more}", row=_place(rows[0], row_ids)[1] + 1)
        self.reason, self.rows = reason, rows


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a problem.

    Attributes:
        problem_type: "single_label_classification", "multi_label_classification" or "regression", as in transformers.
        names: the classes (or regression targets) by index, as people read them.
        values: how the data write each class, where that differs from its name: ("0", "4") for Sentiment140, whose
            names are ("negative", "positive"). Empty where the names are what stands in the data.
        takes_indices: whether data may also write each class by its index.
    """

    problem_type: str
    names: tuple[str, ...]
    values: tuple[str, ...] = ()
    takes_indices: bool = False

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
        there is a digit in one of the names. Those of transformers (LABEL_0, LABEL_1) say the index.

        Raises:
            InputError: if names are not text, or not one for each label, or values not one for each name.
        """
        named = [config.id2label[index] for index in sorted(config.id2label)]
        names = tuple(map(str, named))
        if not all(isinstance(name, str | int) for name in named) or len(set(names)) < len(names):
            raise InputError(
                f"The model's `id2label` is {reprlib.repr(config.id2label)}: each label needs its own name. "
                "Correct the field in config.json.",
                field="id2label",
            )
        values = getattr(config, "label_values", None) or ()
        if values and not (isinstance(values, list | tuple) and len(values) == len(names)):
            raise InputError(
                f"The model's `label_values` are {reprlib.repr(values)}: one for each of its {len(names)} labels is "
                "wanted. Correct the field in config.json.",
                field="label_values",
            )
        problem_type = config.problem_type or (REGRESSION if len(names) == 1 else SINGLE_LABEL)
        says_index = all(name == f"LABEL_{index}" for index, name in enumerate(names))
        is_clear = says_index or not any(re.search(r"\d", name) for name in names)
        return cls(
            problem_type, names, tuple(map(str, values)), is_clear and not values and problem_type != REGRESSION
        )

    def config_fields(self) -> dict[str, Any]:
        """Return the config fields that say all this, for [`LabelSpace.from_config`] to read back."""
        fields = {"problem_type": self.problem_type, "id2label": self.id2label, "label2id": self.label2id}
        return {**fields, "label_values": list(self.values)} if self.values else fields

    def encode(
        self, labels: Sequence[Any] | pa.ChunkedArray, row_ids: pa.ChunkedArray | Sequence[str] | None = None
    ) -> np.ndarray:
        """Turn n labels into what a model of C labels learns.

        Args:
            labels: one label a row or, where a text may have several, a list of them; none missing.
            row_ids: what messages name the rows by ("test:17"); unset: their positions.

        Returns:
            (n,) int64 class indices, (n, C) float32 of 0 and 1, or (n,) float32 targets, by problem type.

        Raises:
            LabelError: if labels are unknown or repeated, or targets are not numbers.
            InputError: if there is a list where one label is wanted.
        """
        if not isinstance(labels, pa.ChunkedArray):
            column, odd = cells(list(labels))
            if odd:
                what = (
                    "target is not a number"
                    if self.problem_type == REGRESSION
                    else f"label is {next(iter(odd.values()))}"
                )
                raise InputError(f"The {what} in {_said(list(odd), row_ids)}.", row=_place(min(odd), row_ids)[1] + 1)
            labels = pa.chunked_array([column])
        if self.problem_type == REGRESSION:
            return self._targets(labels, row_ids)
        if self.problem_type == SINGLE_LABEL:
            if labels.type == SEVERAL:
                sizes = np.concatenate([pc.list_value_length(chunk).to_numpy() for chunk in labels.chunks])
                rows = np.flatnonzero(sizes != 1)
                rows = rows if len(rows) else np.arange(len(sizes))
                raise LabelError("Each text needs one label, but there is a list", rows, row_ids, ".")
            return self._indices(labels, row_ids, np.arange(len(labels)))
        if labels.type == ONE:
            labels = _lists_of_one(labels)
        encoded = np.zeros((len(labels), self.num_labels), dtype=np.float32)
        start = 0
        for chunk in labels.chunks:
            rows = start + pc.list_parent_indices(chunk).to_numpy()
            indices = self._indices(pa.chunked_array([pc.list_flatten(chunk)], ONE), row_ids, rows)
            np.add.at(encoded, (rows, indices), 1)
            start += len(chunk)
        repeated = np.flatnonzero((encoded > 1).any(axis=1))
        if len(repeated):
            raise LabelError("A label is repeated", repeated, row_ids, ". Name each once.")
        return encoded

    @cached_property
    def _index(self) -> dict[str, int]:
        # a name wins over another class's value
        values = tuple(map(str, range(self.num_labels))) if self.takes_indices else self.values
        return {_key(label): index for labels in (values, self.names) for index, label in enumerate(labels)}

    def _indices(self, labels: pa.ChunkedArray, row_ids: Any, rows: np.ndarray) -> np.ndarray:
        """Return the class index of each label; `rows` says in which row each stands."""
        distinct = pc.unique(labels)
        codes = pc.index_in(labels, value_set=distinct)
        found = np.array([self._index.get(_key(label), -1) for label in distinct.to_pylist()] or [0], dtype=np.int64)
        indices = found[_numpy(codes)] if len(codes) else np.empty(0, np.int64)
        unknown = np.flatnonzero(indices < 0)
        if len(unknown):
            names = [name for name in distinct.to_pylist() if _key(name) not in self._index]
            label = labels[int(unknown[0])].as_py()
            near = get_close_matches(plain_name(label), self.names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {_some(self._index_names())}."
            if {_key(name) for name in names} <= {str(index) for index in range(self.num_labels)}:
                hint = f"Known: {_some(self._index_names())}; these are not read by index here."
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise LabelError(
                f"Unknown label {plain_name(label)!r}{others}", np.unique(rows[unknown]), row_ids, f". {hint}"
            )
        return indices

    def _index_names(self) -> list[str]:
        return list(dict.fromkeys([*self.values, *self.names]))

    def _targets(self, labels: pa.ChunkedArray, row_ids: Any) -> np.ndarray:
        numbers = None if labels.type == SEVERAL or labels.null_count else _numbers(labels)
        if numbers is None:
            bad = np.array([row for row, text in enumerate(labels.to_pylist()) if to_number(text) is None])
        else:
            bad = np.flatnonzero(~(np.abs(numbers) <= np.finfo(np.float32).max))  # NaN and infinity too
        if numbers is None or len(bad):
            target = labels[int(bad[0])].as_py()
            raise LabelError("The target is not a number", bad, row_ids, f": {reprlib.repr(target)}.")
        ignored = np.flatnonzero(numbers == IGNORED_LABEL)
        if len(ignored):
            raise LabelError(f"The target is {IGNORED_LABEL}", ignored, row_ids, ": so transformers writes no label.")
        return numbers.astype(np.float32)


@dataclass(frozen=True)
class Labels:
    """The labels of documents, in one form.

    Attributes:
        column: one label a row, or a list of them.
        width: of 0/1 vectors their length: they are now the places that held 1, one where each vector held one, by
            the label's name if that is known, else by index.
        note: what was made of them, in words; "" if they were left as they are.
    """

    column: pa.ChunkedArray
    width: int | None = None
    note: str = ""


def read_labels(
    documents: Documents, args: DataArguments, known: LabelSpace | None = None, may_be_vectors: bool = True
) -> Labels:
    """Bring labels into one form: take apart lists that are written as text, and 0/1 vectors.

    Args:
        documents: their labels as read.
        args: the options.
        known: what the labels mean, if it is known.
        may_be_vectors: whether lists of 0 and 1 may be vectors; otherwise they are numbers of labels.
    """
    column, notes, width = documents.rows.data.column("label"), [], None
    if column.type == ONE and len(args.label_column) == 1:
        split = _split_text(column, args.label_delimiter)
        if split is not None:
            notes += [] if args.label_delimiter else ["lists written as text are read as lists"]
            column = split
    if may_be_vectors and column.type == SEVERAL and len(args.label_column) == 1 and documents.class_names is None:
        width = _vector_width(column, known)
        if width is not None:
            column = _held(column, width, known)
            notes.append(f"vectors of {width} are read as {'one class' if column.type == ONE else 'labels'} each")
    if known is not None and known.takes_indices:
        written = set(map(_key, pc.unique(column if column.type == ONE else pc.list_flatten(column)).to_pylist()))
        read = [f"{index} = {name}" for index, name in enumerate(known.names) if str(index) in written]
        notes += [f"labels are read as indices: {_some(read)}"] if read else []
    return Labels(column, width, "; ".join(notes))


def infer_labels(documents: Documents, args: DataArguments, labels: Labels | None = None) -> LabelSpace:
    """Read off the training documents what their labels mean.

    Raises:
        InputError: if there are fewer than two classes, or `args` name another number of classes, or one class by what
            the data write for another.
    """
    labels = labels or read_labels(documents, args)
    column = labels.column
    problem_type = _problem_type(column, args)
    if problem_type == REGRESSION:
        return _target_space(column, args.class_names)
    is_named = documents.class_names is not None or len(args.label_column) > 1
    if len(args.label_column) > 1:
        found = list(args.label_column)
    elif labels.width is not None:
        found = [str(index) for index in range(labels.width)]
    else:
        found = documents.class_names or _distinct(column, args)
    label_column = " ".join(args.label_column)
    if len(found) < 2:
        only = f"only {found[0]!r}" if found else "no label"
        raise InputError(
            f"At least two classes are needed, but --label_column {label_column!r} holds {only}.", field="label_column"
        )
    names = args.class_names
    if not names:
        return LabelSpace(problem_type, tuple(found))
    if len(names) != len(found) or len(set(names)) != len(names):
        raise InputError(
            f"--class_names names {len(set(names))} classes, the data hold {len(found)}: {_some(found)}.",
            field="class_names",
        )
    if set(names) == set(found):
        return LabelSpace(problem_type, tuple(names))
    if not is_named and not _all_numbers(found):
        raise InputError(f"--class_names differ from the classes in the data: {_some(found)}.", field="class_names")
    places = {_key(label): index for index, label in enumerate(found)}
    for index, name in enumerate(names):
        if places.get(_key(name), index) != index:
            raise InputError(
                f"--class_names names class {index} {name!r}, which is how the data write class "
                f"{places[_key(name)]} (the classes in order: {_some(found)}). Choose other names.",
                field="class_names",
            )
    return LabelSpace(problem_type, tuple(names), tuple(found))


def with_labels(rows: Dataset, encoded: np.ndarray) -> Dataset:
    """Replace the column `label` by what the model learns: int64, a float32 vector, or a float32."""
    if encoded.ndim == 2:
        offsets = pa.array(np.arange(len(encoded) + 1) * encoded.shape[1], pa.int32())
        column = pa.ListArray.from_arrays(offsets, pa.array(encoded.reshape(-1)))
        return rows.remove_columns("label").add_column("label", column, feature=List(Value("float32")))
    feature = Value("int64") if encoded.dtype.kind == "i" else Value("float32")
    return rows.remove_columns("label").add_column("label", pa.array(encoded), feature=feature)


def label_array(rows: Dataset) -> np.ndarray:
    """Return the encoded labels of documents, (n,) or (n, C), without making Python objects of them."""
    return np.asarray(rows.select_columns(["label"]).with_format("numpy")["label"][:])


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy() if column.num_chunks else np.empty(0, np.int64)


def _split_text(column: pa.ChunkedArray, delimiter: str | None) -> pa.ChunkedArray | None:
    """Return the lists that cells of text stand for: those between delimiters or, if all are, those in brackets."""
    distinct = pc.unique(column)
    texts = distinct.to_pylist()
    if delimiter:
        lists = [[item for item in text.split(delimiter) if item.strip()] for text in texts]
    else:
        found = [listed(text) for text in texts]
        lists = [items for items in found if items is not None]
        if len(lists) < len(texts):
            if len(lists) > len(texts) / 2:
                other = texts[found.index(None)]
                raise InputError(
                    f"Most labels are lists in brackets, but {reprlib.repr(other)} is not: write all of them alike.",
                    field="label_column",
                )
            return None
    codes = pc.index_in(column, value_set=distinct)
    values = pa.array(lists, SEVERAL)
    return pa.chunked_array([values.take(chunk) for chunk in codes.chunks], SEVERAL)


def listed(text: str) -> list[str] | None:
    """Return the items of a list as Python, JSON, numpy or Spark writes it, or None if the text is none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    with suppress(ValueError, RecursionError):
        items = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
        if all(isinstance(item, str) for item in items):
            return items
    inner = text[1:-1]
    if not re.search(r"""['"\[\]]""", inner):  # Java and Spark write no quotation marks, numpy no commas
        items, words = inner.split(","), inner.split()
        if len(items) == 1 and all(to_number(word) is not None or word in ("True", "False") for word in words):
            items = words
        return [item.strip() for item in items if item.strip()]
    items, at, end = [], 1, len(text) - 1
    while at < end:  # not by a search, which would look for the end of a quotation from each of its marks
        if text[at] in ", \t\n":
            at += 1
        elif match := LIST_ITEM.match(text, at, end):
            items.append(next(group for group in match.groups() if group is not None))
            at = match.end()
        else:
            return None
    return [item.replace("\\'", "'").replace('\\"', '"') for item in items]


def _vector_width(column: pa.ChunkedArray, known: LabelSpace | None) -> int | None:
    """Return the length of the lists if they are vectors of 0 and 1, one place for each label."""
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    width = widths[0] if len(widths) == 1 else 0
    if width < 2 or (known is not None and width != known.num_labels):
        return None
    items = set(pc.unique(pc.list_flatten(column)).to_pylist())
    return width if {_key(item) for item in items} <= {"0", "1", "true", "false"} else None


def _held(column: pa.ChunkedArray, width: int, known: LabelSpace | None) -> pa.ChunkedArray:
    """Return the places that hold 1 in each vector: one a row if each has one, else lists."""
    items = pc.list_flatten(column)
    truths = [item for item in pc.unique(items).to_pylist() if _key(item) in ("1", "true")]
    holds = _numpy(pc.is_in(items, value_set=pa.array(truths, ONE))).reshape(-1, width)
    names = pa.array(known.names if known else [str(index) for index in range(width)], ONE)
    places = np.nonzero(holds)[1]
    if (known is None or known.problem_type == SINGLE_LABEL) and (holds.sum(axis=1) == 1).all():
        return pa.chunked_array([names.take(pa.array(places))])
    offsets = np.concatenate([[0], np.cumsum(holds.sum(axis=1))])
    return pa.chunked_array([pa.LargeListArray.from_arrays(pa.array(offsets), names.take(pa.array(places)))])


def _lists_of_one(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = [pa.LargeListArray.from_arrays(pa.array(np.arange(len(part) + 1)), part) for part in column.chunks]
    return pa.chunked_array(chunks, SEVERAL)


def _problem_type(column: pa.ChunkedArray, args: DataArguments) -> str:
    if len(args.label_column) > 1:
        if args.problem_type not in ("auto", MULTI_LABEL):
            raise InputError(
                f"Several columns of --label_column are several labels a text, not {args.problem_type}.",
                field="label_column",
            )
        return MULTI_LABEL
    if args.problem_type != "auto":
        return args.problem_type
    numbers = _numbers(column if column.type == ONE else pc.list_flatten(column))
    if numbers is not None and (numbers[np.isfinite(numbers)] % 1 != 0).any():
        return REGRESSION
    return MULTI_LABEL if column.type == SEVERAL else SINGLE_LABEL


def _numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return the numbers that the texts are, or None if one is none."""
    try:
        return _numpy(pc.utf8_trim_whitespace(column).cast(pa.float64()))
    except pa.ArrowInvalid:
        pass
    numbers = [to_number(text) for text in pc.unique(column).to_pylist()]
    if None in numbers:
        return None
    return np.array(numbers, dtype=np.float64)[_numpy(pc.index_in(column, value_set=pc.unique(column)))]


def _target_space(column: pa.ChunkedArray, names: list[str] | None) -> LabelSpace:
    if column.type == SEVERAL:
        raise InputError(
            "Each text has several numbers, which cannot be measured together: choose one of them by --label_column, "
            "or, if they are labels, give --problem_type multi_label_classification.",
            field="label_column",
        )
    if names and len(names) != 1:
        raise InputError(f"--class_names names {len(names)} targets, the data hold 1.", field="class_names")
    return LabelSpace(REGRESSION, tuple(names or ["target"]))


def _distinct(column: pa.ChunkedArray, args: DataArguments) -> list[str]:
    """Return the labels there are: integers by size, names by the alphabet."""
    items = column if column.type == ONE else pc.list_flatten(column)
    labels = [label for label in pc.unique(items).to_pylist() if label is not None]
    names: dict[str, str] = {}
    for label in sorted(labels):
        names.setdefault(_key(label), plain_name(label))
    found = list(names.values())
    _warn_of_look_alikes(labels)
    if column.type == ONE and len(column) >= 20 and len(found) > 0.8 * len(column):
        logger.warning(
            "--label_column %r has %s different values in %s rows: is it an id column? Name the label column.",
            args.label_column[0],
            f"{len(found):,}",
            f"{len(column):,}",
        )
    return sorted(found, key=int) if _all_numbers(found) else sorted(found)


def _warn_of_look_alikes(labels: Iterable[str]) -> None:
    """Say which labels differ only by case, white space or how letters are composed, and how many classes they are."""
    alike: dict[str, list[str]] = {}
    for label in sorted(labels):
        alike.setdefault(unicodedata.normalize("NFKC", " ".join(label.casefold().split())), []).append(label)
    for members in alike.values():
        if len(members) > 1:
            number = len({_key(member) for member in members})
            is_composed = len({unicodedata.normalize("NFKC", member) for member in members}) < len(members)
            logger.warning(
                "Labels %s look alike, and are %s.",
                ", ".join(map(ascii if is_composed else repr, members)),
                "one class" if number == 1 else f"{number} classes: --label_column should write a class one way",
            )


def plain_name(label: Any) -> str:
    """Write a label as its name: 1, 1.0, "1" and " 1.0" are one class, as JSON, pandas and CSV write it."""
    text = str(label).strip()
    integer = INTEGER.fullmatch(text)
    return integer[1] if integer else text


def _key(label: Any) -> str:
    """Return what equal labels share: `true` of JSON is `True` of pandas."""
    name = plain_name(label)
    return name.lower() if name.lower() in ("true", "false") else name


def to_number(label: Any) -> float | None:
    """Return a number, or the number that a text says; None where there is none."""
    try:
        return None if isinstance(label, bool | list) else float(label)
    except (TypeError, ValueError, OverflowError):
        return None


def _all_numbers(keys: Iterable[str]) -> bool:
    return all(INTEGER.fullmatch(key) for key in keys)


def _said(rows: Sequence[int] | np.ndarray, row_ids: Any) -> str:
    """Say rows as the source counts them, from 1: "rows 3, 8 of the test split"."""
    by_split: dict[str, list[int]] = {}
    for row in rows:
        split, number = _place(row, row_ids)
        by_split.setdefault(split, []).append(number)
    return ", ".join(
        first_rows(numbers) + (f" of the {split} split" if split else "") for split, numbers in by_split.items()
    )


def _place(row: int, row_ids: Any) -> tuple[str, int]:
    """Return a row's split and its number there, from 0; without ids, no split and its position."""
    if row_ids is None:
        return "", int(row)
    row_id = row_ids[int(row)]
    split, number = (row_id if isinstance(row_id, str) else row_id.as_py()).split(":")
    return split, int(number)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def class_weights(option: str, labels: LabelSpace, encoded: Sequence[Any] | np.ndarray) -> list[float] | None:
    """Return one weight per label, as `--class_weights` says.

    Args:
        option: "none", "balanced", or a mapping from label names to weights.
        labels: the labels.
        encoded: the training split's encoded labels; of distributions (n, C), "balanced" counts the sums.

    Raises:
        InputError: if the option is none of these, leaves a label out, or does not fit the problem.
    """
    if option == "none":
        return None
    if labels.problem_type == REGRESSION:
        raise InputError("--class_weights needs classes; regression targets have none.", field="class_weights")
    if option == "balanced":
        if labels.problem_type != SINGLE_LABEL:
            raise InputError(
                "--class_weights balanced needs one label per text; give a mapping instead.", field="class_weights"
            )
        given = np.asarray(encoded)
        is_soft = given.ndim == 2
        counts = given.sum(0, np.float64) if is_soft else np.bincount(given, minlength=labels.num_labels)
        return [len(given) / (labels.num_labels * max(1, count)) for count in counts.tolist()]
    weights: Any = None
    try:
        weights = json.loads(option, parse_int=str, parse_float=str)
    except ValueError:
        with suppress(yaml.YAMLError):
            weights = yaml.load(option, Loader=yaml.BaseLoader)  # all as text: YAML's own reading makes true of Yes
    if not isinstance(weights, dict):
        raise InputError(
            f"--class_weights must be none, balanced or a mapping from labels to weights, got {option!r}.",
            field="class_weights",
        )
    for name in weights:
        if name not in labels.names:
            raise unknown_name("label in --class_weights", name, labels.names, field="class_weights")
    numbers = [_weight(name, weights.get(name)) for name in labels.names]
    if not any(numbers):
        raise InputError(
            "--class_weights gives every label weight 0: nothing would be learned. Give one a weight.",
            field="class_weights",
        )
    return numbers


def _weight(label: str, text: Any) -> float:
    try:
        weight = float(text)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        fault = f"no weight for label {label!r}" if text is None else f"{text!r} as the weight of label {label!r}"
        raise InputError(f"--class_weights has {fault}: give it a number of at least 0.", field="class_weights")
    return weight
