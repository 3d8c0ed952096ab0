"""From a source to three splits that share no text: the one entry to the data for training and for evaluation.

The minority classes of the training split are over-sampled here too, by rows that equal no held-out text.
"""

import hashlib
import json
import logging
import random
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetInfo, concatenate_datasets
from sklearn import config_context
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors

from ..arguments import DataArguments
from ..errors import InputError
from ..files import is_url, kind_of, redacted
from .documents import SPLITS, Documents, Spool, build_documents, describe_source, read_source, stack, text_key
from .labels import (
    REGRESSION,
    SINGLE_LABEL,
    LabelError,
    Labels,
    LabelSpace,
    infer_labels,
    label_array,
    plain_name,
    read_labels,
    with_labels,
)
from .soft_labels import read_soft
from .tokenization import read_vectors

logger = logging.getLogger(__name__)

LETTERS = r"[^\W\d_]+(?:-[^\W\d_]+)*"
# A word between white spaces, without the marks around it. What begins otherwise is left alone: @names, #tags, <tags>,
# &entities; and smileys. So is what other marks than hyphens hold together: contractions, addresses.
WORD = re.compile(rf"(?<!\S)[\"'“‘«(\[{{*¿¡….—–-]*({LETTERS})[^\w\s]*(?!\S)")
REDRAWS = 10


@dataclass(frozen=True)
class Splits:
    """Three labelled splits that share no text.

    Each data set has columns `row_id` ("train:17": the split and row of the source, from 0; "train:17+2": the second
    row that over-sampling made of it; "soft:17": a row with a teacher's probabilities), `text`, `label` (int64, a
    float32 vector or a float32, by problem type) and what was asked for beside. Where a teacher's rows are among them,
    all training labels are float32 vectors, distributions over the classes.

    Attributes:
        labels: what the labels mean.
        counts: for the run's record: rows of each split, `rows` that were read, skipped and used, rows skipped as bad
            by split and reason, rows removed from training and validation, rows over-sampled, and a teacher's rows.
            Where repeats were dropped, so were texts whose labels disagree, and count among them.
        pooled: whether given splits were pooled and split anew.
        source: names the source, what was carved out of it, and how much of the test split was taken.
        note: what form the labels had, in words, where they were brought into another.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    labels: LabelSpace
    counts: dict[str, Any]
    pooled: bool
    source: str
    note: str = ""

    @property
    def hard_train(self) -> Dataset:
        """The training split without a teacher's rows, with class indices for labels."""
        if "soft" not in self.counts:
            return self.train
        rows = self.train.select(range(len(self.train) - self.counts["soft"]["used"]))
        return with_labels(rows, label_array(rows).argmax(axis=1))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over row ids, texts and labels of the three splits: equal for equal data, in any process."""
        return self._digest(*SPLITS)

    @cached_property
    def test_fingerprint(self) -> str:
        """The same over the test split alone."""
        return self._digest("test")

    def _digest(self, *splits: str) -> str:
        digest = hashlib.sha256(json.dumps([self.labels.problem_type, self.labels.names]).encode())
        for name in splits:
            rows = getattr(self, name).select_columns(["row_id", "text", "label"]).with_format("arrow")
            for batch in rows.iter(1000):
                cells = zip(*(_as_json(batch[column].to_pylist()) for column in batch.column_names), strict=True)
                digest.update("".join(f'["{name}", {", ".join(row)}]' for row in cells).encode())
        return digest.hexdigest()


def _as_json(values: list[Any]) -> list[str]:
    """Return each value as JSON, by one call where they hold no lists: it takes a fifth of the time."""
    if values and isinstance(values[0], list):
        return [json.dumps(value) for value in values]
    return json.dumps(values, separators=("\0", ":"))[1:-1].split("\0")  # JSON writes that character as \u0000


@dataclass
class _Pool:
    """The documents of all splits, and which of them each split has.

    Attributes:
        rows: the documents, with encoded labels.
        texts: (n,): equal for documents of equal text, up to case and white space.
        labels: (n,): equal for documents of equal labels.
        names: how a label of each value of `labels` is written.
        splits: the rows of each split, ascending.
        groups: (n,): equal for documents of one group, if there are any.
    """

    rows: Dataset
    texts: np.ndarray
    labels: np.ndarray
    names: list[str]
    splits: dict[str, np.ndarray]
    groups: np.ndarray | None = None


def load_splits(args: DataArguments, tables: Mapping[str, Any] | None = None, keep: Sequence[str] = ()) -> Splits:
    """Read, label, split and purge the data that `args` name.

    Splits that are given are kept; missing ones are carved out of training, whose repeated texts are dropped before
    that on request. Then, in this order, texts whose labels disagree leave training (targets of a regression may
    disagree), texts of validation or test leave training, and texts of test leave validation. Test stays whole. Then
    subsets are taken, minority classes of training are over-sampled, and last, a teacher's rows are added.

    Args:
        args: the options.
        tables: split → rows in memory, instead of a source that `args` name: see [`~.documents.in_memory`].
        keep: columns that the splits shall have beside text and label.

    Raises:
        InputError: if the source, its columns, rows or labels cannot be used, or a split ends up empty.
    """
    given = read_source(args, tables)
    source = _source(args, tables)
    if "train" not in given:
        raise InputError(f"There are no training rows: {source} gives {', '.join(given)} only.", file=source)
    if args.split_column and len(given) > 1:
        raise InputError(
            f"--split_column says the split of each training row, but {source} gives "
            f"{' and '.join(split for split in given if split != 'train')} too: name one of them.",
            field="split_column",
            file=source,
        )
    built = {split: build_documents(split, parts, args, keep) for split, parts in given.items()}
    num_read = sum(documents.num_read for documents in built.values())
    pooled = args.pool_splits and len(built) > 1
    if args.pool_splits:
        built = {"train": stack(list(built.values()))}
    pool, labels, note = _pool(built, args)
    if args.soft_train_file and labels.problem_type != SINGLE_LABEL:
        raise InputError(
            "--soft_train_file takes effect only where a text has one label of several, not with "
            f"{labels.problem_type.replace('_', ' ')}: leave it out.",
            field="soft_train_file",
        )
    skipped = {split: documents.skipped for split, documents in built.items() if documents.skipped}
    del built  # and the keys of all texts
    num_used = len(pool.rows)
    repeats = _drop_repeats(pool, labels) if args.drop_repeats else 0
    carved = _fill_splits(pool, args)
    removed = _purge(pool, labels)
    # All of them, whatever subset is measured.
    held_out = [pool.splits[split] for split in ("validation", "test")]
    sizes = (args.max_train_samples, args.max_validation_samples, args.max_test_samples)
    for split, size in zip(SPLITS, sizes, strict=True):
        pool.splits[split] = _sample(pool, pool.splits[split], size, args.split_seed)
    _check_sizes(pool, labels)
    _check_disjoint(pool)
    train, validation, test = (take_rows(pool.rows, pool.splits[split]) for split in SPLITS)
    made: dict[str, Any] = {}
    if args.oversample != "none" or args.soft_train_file:
        keys = [key for rows in held_out for key in _keys(take_rows(pool.rows, rows))]
        if args.oversample != "none":
            train, made["oversampled"] = oversample(train, keys, labels, args)
        if args.soft_train_file:
            train, made["soft"], bad = _add_soft(train, keys, labels, args)
            skipped |= {"soft": bad} if bad else {}
        assert_no_leak(train, validation, test)
    counts = {
        "rows": {"read": num_read, "skipped": num_read - num_used, "used": num_used},
        **{"train": len(train), "validation": len(validation), "test": len(test)},
        "skipped": skipped,
        **removed,
        "removed_repeats": repeats,
        **made,
    }
    how = "; given splits pooled" * pooled + (f"; {carved}" if carved else "")
    num_test = len(held_out[1])
    how += f"; {len(test):,} of {num_test:,} test rows" * (len(test) < num_test)
    return Splits(train, validation, test, labels, counts, pooled, source + how, note)


def load_labelled(
    name: Any, args: DataArguments, labels: LabelSpace, keep: Sequence[str] = ()
) -> tuple[Dataset, dict[str, int]]:
    """Read one labelled set to evaluate a saved model on: a file, or a folder's or data set's test split.

    Where splits are named and validation is the only one with labels, it is read in place of test; training never is.

    Args:
        name: a file, a local folder, a URL, a Hub id, "built-in", or rows in memory: see [`~.documents.in_memory`].
        args: columns, clean-up and `on_bad_row`; its own source is not read.
        labels: those of the model; a label it does not know is an error.
        keep: columns to keep in addition to text and label.

    Returns:
        A data set with the columns of [`Splits`]; and how many rows were `read`, `skipped` as bad, and `used`.

    Raises:
        InputError: if there is no test split with labels, or if columns, rows or labels of it cannot be used.
    """
    tables, dataset, file = None, None, None
    if not isinstance(name, str | Path):
        tables, name = {"test": name}, "the data"
    elif kind_of(name) and (is_url(name) or not Path(name).is_dir()):
        file = [str(name)]
    else:
        dataset = str(name)
    args = replace(args, dataset_name=dataset, train_file=None, validation_file=None, test_file=file)
    columns = args.label_column
    wanted = labels.values or labels.names  # columns that `class_names` renamed
    if len(columns) > 1 and set(columns) not in (set(labels.names), set(wanted)):
        wrong = sorted(set(wanted) ^ set(columns))
        raise InputError(
            f"--label_column must name the labels of the model, all and no others: {', '.join(wanted)}. Wrong "
            f"or missing: {', '.join(wrong)}.",
            field="label_column",
        )
    given = read_source(args, tables, must_have="test")
    split = "test" if "test" in given else next(iter(given))
    if split != "test" and (len(given) > 1 or (split == "train" and not args.split_column)):
        raise InputError(
            f"{name} has no test split with labels, only {' and '.join(given)}: name the file that is meant, or give "
            "its rows in Python.",
            file=str(name),
        )
    documents = build_documents(split, given[split], args, keep)
    if documents.splits is not None:
        is_test = np.flatnonzero(documents.splits == SPLITS.index("test"))
        if not len(is_test):
            raise InputError(f"--split_column {args.split_column!r} marks no row as test.", field="split_column")
        documents = _take(documents, is_test)
    form = read_labels(documents, args, labels)
    if form.note:
        logger.warning("%s: %s.", redacted(str(name)), form.note)
    documents, encoded = _encode(documents, form, labels, args)
    rows = with_labels(documents.rows, encoded)
    rows = take_sample(rows, args.max_test_samples, labels, args.split_seed)
    counts = {"read": documents.num_read, "skipped": sum(documents.skipped.values()), "used": len(rows)}
    return rows, counts


def assert_no_leak(*splits: Dataset) -> None:
    """Check that no text stands in two of the splits, equal up to case and white space, nor two rows of one origin.

    The origin of a row is what its `row_id` says before "+": rows made of one row may differ in their texts, and still
    tell of each other's label.

    Raises:
        AssertionError: if there are such, naming two.
    """
    seen: dict[bytes | str, str] = {}
    for split in splits:
        texts = dict(zip(_keys(split), split["row_id"][:], strict=True))
        row_of_origin = origins(split)
        for key in texts.keys() & seen.keys():
            raise AssertionError(f"Rows {seen[key]} and {texts[key]} of different splits have the same text.")
        for origin in row_of_origin.keys() & seen.keys():
            rows = f"{seen[origin]} and {row_of_origin[origin]}"
            raise AssertionError(f"Rows {rows} of different splits are of the same origin.")
        seen |= texts | row_of_origin


def origins(documents: Dataset) -> dict[str, str]:
    """Return the rows of the source that some documents were made of, each with the id of one of these documents."""
    return {row_id.partition("+")[0]: row_id for row_id in documents["row_id"][:]}


def take_sample(documents: Dataset, size: int | None, labels: LabelSpace, seed: int) -> Dataset:
    """Return a stratified random subset of `size` rows in their order, or all if there are no more."""
    if size is None or size >= len(documents):
        return documents
    codes, names = _label_codes(label_array(documents), labels)
    nothing = np.empty(0, np.int64)
    rows = np.arange(len(documents))
    return documents.select(_sample(_Pool(documents, nothing, codes, names, {}), rows, size, seed))


def take_rows(documents: Dataset, rows: np.ndarray) -> Dataset:
    """Return some rows, ascending, written anew one after another: rows behind an index are slow to read."""
    if len(rows) == len(documents):
        return documents
    spool, start = Spool(), 0
    for table in documents.with_format("arrow").iter(10_000):
        here = rows[slice(*np.searchsorted(rows, [start, start + len(table)]))]
        for batch in table.take(pa.array(here - start)).combine_chunks().to_batches():
            spool.append(batch)
        start += len(table)
    return Dataset(spool.table(), info=DatasetInfo(features=documents.features))


def _take(documents: Documents, rows: np.ndarray) -> Documents:
    splits = None if documents.splits is None else documents.splits[rows]
    return replace(documents, rows=take_rows(documents.rows, rows), keys=documents.keys[rows], splits=splits)


def _source(args: DataArguments, tables: Mapping[str, Any] | None) -> str:
    return describe_source(args) if tables is None else f"rows in memory ({', '.join(tables)})"


def _pool(built: dict[str, Documents], args: DataArguments) -> tuple[_Pool, LabelSpace, str]:
    """Put all splits in one place, with their labels encoded; `built` loses the rows whose labels are skipped."""
    first = read_labels(built["train"], args)
    labels = infer_labels(built["train"], args, first)
    parts, encoded, are_vectors = [], [], first.width is not None
    for split in built:
        form = first if split == "train" else read_labels(built[split], args, labels, may_be_vectors=are_vectors)
        built[split], codes = _encode(built[split], form, labels, args)
        encoded.append(codes)
        parts.append(with_labels(built[split].rows, codes))
    keys = [documents.keys for documents in built.values()]
    texts = _ids(np.concatenate(keys) if len(keys) > 1 else keys[0])
    del keys
    codes, names = _label_codes(np.concatenate(encoded) if len(encoded) > 1 else encoded[0], labels)
    rows = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    ends = np.cumsum([len(part) for part in parts])
    splits = {split: _numbers(end - len(part), end) for split, part, end in zip(built, parts, ends, strict=True)}
    if args.split_column:
        said = built["train"].splits
        splits = {split: _numbers(0, len(rows))[said == index] for index, split in enumerate(SPLITS)}
        splits = {split: members for split, members in splits.items() if len(members)}
        if "train" not in splits:
            raise InputError(f"--split_column {args.split_column!r} leaves no row to train on.", field="split_column")
        for split, fold in {"validation": args.validation_fold, "test": args.test_fold}.items():
            if fold is not None and split not in splits:
                raise InputError(
                    f"No row has --{split}_fold {fold} in --split_column {args.split_column!r}.", field=f"{split}_fold"
                )
    groups = _group_codes(rows, args.group_column) if args.group_column else None
    return _Pool(rows, texts, codes, names, splits, groups), labels, first.note


def _encode(
    documents: Documents, form: Labels, labels: LabelSpace, args: DataArguments
) -> tuple[Documents, np.ndarray]:
    """Encode the labels of documents, and leave out those that cannot be, if bad rows are to be skipped."""
    column = form.column
    while True:
        try:
            return documents, labels.encode(column, documents.rows.data.column("row_id"))
        except LabelError as error:
            kept = np.setdiff1d(np.arange(len(documents)), error.rows)
            if args.on_bad_row == "error" or not len(kept):
                name = documents.table_of(int(error.rows[0]))
                raise InputError(f"{name}: {error}", file=name, row=error.row) from None
            logger.warning("%s rows left out: %s", f"{len(error.rows):,}", error)
            skipped = {**documents.skipped, error.reason: len(error.rows)}
            documents = replace(_take(documents, kept), skipped=skipped)
            column = column.take(pa.array(kept))


def _numbers(start: int, end: int) -> np.ndarray:
    """Return the numbers from `start` to `end` less one, in four bytes each where they fit."""
    return np.arange(start, end, dtype=np.int64 if end > 2**31 else np.int32)


def _ids(keys: np.ndarray) -> np.ndarray:
    """Return a number for each of the (n, 2) keys, the same for equal ones."""
    order = np.argsort(keys[:, 0], kind="stable")
    is_new, is_split = _are_new(keys, order)
    if is_split:  # of texts that differ, half a key is equal, so one may stand between two of the other
        order = np.argsort(keys[:, 1], kind="stable")
        order = order[np.argsort(keys[order, 0], kind="stable")]
        is_new, _ = _are_new(keys, order)
    kind = np.int64 if len(keys) > 2**31 else np.int32
    numbers: np.ndarray[Any, np.dtype[np.signedinteger]] = np.cumsum(is_new, dtype=kind)
    numbers -= 1
    ids = np.empty(len(keys), dtype=kind)
    ids[order] = numbers
    return ids


def _are_new(keys: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, bool]:
    """Tell of each key, in an order, whether the one before differs, and whether any does in its second half alone."""
    is_new, is_split = np.ones(len(keys), dtype=bool), False
    for start in range(1, len(keys), 2**20):
        now, before = order[start : start + 2**20], order[start - 1 : start - 1 + 2**20][: len(order) - start]
        differ = keys[now] != keys[before]
        is_new[start : start + 2**20] = differ.any(axis=1)
        is_split = is_split or bool((differ[:, 1] & ~differ[:, 0]).any())
    return is_new, is_split


def _label_codes(encoded: np.ndarray, labels: LabelSpace) -> tuple[np.ndarray, list[str]]:
    """Return a number for each label or set of labels, and how each is written; targets are all alike."""
    if labels.problem_type == REGRESSION:
        return np.zeros(len(encoded), dtype=np.int32), ["target"]
    if encoded.ndim == 1:
        return encoded, [str(index) for index in range(labels.num_labels)]
    distinct, codes = np.unique(encoded, axis=0, return_inverse=True)
    # As many labels as there are cost memory when written out, and the rows are in order already.
    return codes.reshape(-1).astype(np.int32), [f"{number:09}" for number in range(len(distinct))]


def _group_codes(rows: Dataset, column: str) -> np.ndarray:
    """Return a number for each group, in the order of their names; rows without one are one group."""
    values = rows.data.column(column)
    if pa.types.is_nested(values.type):
        raise InputError(f"--group_column {column!r} holds lists: a group is a name or a number.", field=column)
    distinct = pc.unique(values)
    # 1 of one file is 1.0 of another
    names = np.array(["" if name is None else plain_name(name) for name in distinct.to_pylist()], dtype=object)
    ranks = np.unique(names, return_inverse=True)[1].astype(np.int32)
    return ranks[pc.index_in(values, value_set=distinct).to_numpy()]


def _sample(pool: _Pool, rows: np.ndarray, size: int | None, seed: int) -> np.ndarray:
    return rows if size is None or size >= len(rows) else _carve_rows(pool, rows, size, seed)[1]


def _fill_splits(pool: _Pool, args: DataArguments) -> str:
    """Carve the splits that are missing out of training, and say so."""
    share = dict(zip(SPLITS, args.fractions, strict=True))
    # shares are relative to what training still has to give: itself and the splits not yet carved
    missing = [split for split in ("test", "validation") if split not in pool.splits]
    num_rows = len(pool.splits["train"])
    if missing and num_rows <= len(missing):
        raise InputError(
            f"{num_rows} usable rows are too few to split into training, validation and test: label more, or give "
            "--validation_file and --test_file."
        )
    for number, split in enumerate(missing, 1):
        rest = share["train"] + sum(share[other] for other in missing if other not in pool.splits)
        part = share[split] / rest
        others = len(missing) - number + 1  # which need a row each
        pool.splits["train"], pool.splits[split] = _carve(pool, pool.splits["train"], part, args, others)
    if pool.groups is not None and len(missing) < 2:
        _warn_of_shared_groups(pool, str(args.group_column))
    return f"{' and '.join(reversed(missing))} split off from train" if missing else ""


def _carve(
    pool: _Pool, rows: np.ndarray, share: float, args: DataArguments, fewest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Part rows in two, the second with about `share` of them, stratified; groups stay together.

    Args:
        fewest: rows that the first keeps, where there are no groups.
    """
    if pool.groups is not None:
        return _carve_groups(pool, rows, share, str(args.group_column), args.split_seed)
    return _carve_rows(pool, rows, min(max(1, round(share * len(rows))), len(rows) - fewest), args.split_seed)


def _carve_rows(pool: _Pool, rows: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    strata = _strata(pool, rows, at_least=2)
    counts = np.bincount(strata)
    has_room = min(size, len(rows) - size) >= np.count_nonzero(counts)  # for one of each
    rng = np.random.RandomState(seed)
    if has_room:
        is_held_out = _draw_stratified(strata, counts[counts > 0], size, rng)
    else:
        is_held_out = np.zeros(len(rows), dtype=bool)
        is_held_out[rng.permutation(len(rows))[:size]] = True
    return rows[~is_held_out], rows[is_held_out]


def _draw_stratified(strata: np.ndarray, counts: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw what sklearn's `train_test_split` draws, which makes a Python object of each row: (n,), true if drawn."""
    kept = _shares(counts, len(strata) - size, rng)
    drawn = _shares(counts - kept, size, rng)
    is_drawn = np.zeros(len(strata), dtype=bool)
    members = np.split(np.argsort(strata, kind="stable"), np.cumsum(counts)[:-1])
    for rows, after, number in zip(members, kept, drawn, strict=True):
        is_drawn[rows[rng.permutation(len(rows))[after : after + number]]] = True
    return is_drawn


def _shares(counts: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
    """Return how many of each class make up `size`, in proportion; chance decides between equal remainders."""
    exact = counts / counts.sum() * size
    shares = np.floor(exact)
    remainders, missing = exact - shares, int(size - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if not missing:
            break
        alike = np.flatnonzero(remainders == remainder)
        alike = rng.choice(alike, size=min(len(alike), missing), replace=False)
        shares[alike] += 1
        missing -= len(alike)
    return shares.astype(np.int64)


def _carve_groups(
    pool: _Pool, rows: np.ndarray, share: float, column: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    assert pool.groups is not None
    groups = pool.groups[rows]
    count = len(np.unique(groups))
    if count < 2:
        raise InputError(f"--group_column {column!r} has too few different values to split by.", field="group_column")
    # folds can only be taken whole (0.3 is three of ten), at least one and not all
    finest = Fraction(1, min(20, count))
    folds = min(max(Fraction(share).limit_denominator(finest.denominator), finest), 1 - finest)
    strata = _strata(pool, rows, at_least=folds.denominator)
    splitter = StratifiedGroupKFold(folds.denominator, shuffle=True, random_state=seed)
    parts = [held_out for _, held_out in splitter.split(groups, strata, groups)]
    parts.sort(key=lambda part: abs(len(part) - len(rows) / folds.denominator))  # what a large group fills stays
    held_out = np.sort(np.concatenate(parts[: folds.numerator]))
    rest = np.setdiff1d(np.arange(len(rows)), held_out)
    return rows[rest], rows[held_out]


def _strata(pool: _Pool, rows: np.ndarray, at_least: int) -> np.ndarray:
    """Return what is to be spread evenly: the label (or set of labels), rare ones counted as the commonest.

    Strata are numbered in the order of how they are written, on which it depends what chance picks.
    """
    ranks = np.empty(len(pool.names), dtype=np.int32)
    ranks[np.argsort(np.array(pool.names), kind="stable")] = np.arange(len(pool.names))
    strata = ranks[pool.labels[rows]]
    counts = np.bincount(strata, minlength=len(ranks))
    is_commonest = counts == counts.max()
    commonest = strata[np.argmax(is_commonest[strata])]  # of several, the one that comes first
    is_rare = counts < at_least
    strata[is_rare[strata]] = commonest
    return strata


def _warn_of_shared_groups(pool: _Pool, column: str) -> None:
    assert pool.groups is not None
    groups = {split: np.unique(pool.groups[pool.splits[split]]) for split in SPLITS}
    for split, earlier in (("validation", ("train",)), ("test", ("train", "validation"))):
        shared = np.isin(groups[split], np.concatenate([groups[other] for other in earlier]))
        if shared.any():
            logger.warning(
                "%d of %d values of --group_column %r in %s stand in %s too: given splits are kept as they are.",
                shared.sum(),
                len(groups[split]),
                column,
                split,
                " or ".join(earlier),
            )


def _keys(documents: Dataset) -> Iterator[bytes]:
    for batch in documents.select_columns(["text"]).iter(1000):
        yield from map(text_key, batch["text"])


def _purge(pool: _Pool, labels: LabelSpace) -> dict[str, Any]:
    """Leave out training texts whose labels disagree, then texts that stand in a later split; count both."""
    splits = pool.splits
    disagreeing = _leave_out(pool, "train", _conflicting(pool, splits["train"], labels))
    held_out = np.concatenate([splits["validation"], splits["test"]])
    from_train = _leave_out(pool, "train", _marked(pool, held_out))
    from_validation = _leave_out(pool, "validation", _marked(pool, splits["test"]))
    return {
        "removed_conflicting": disagreeing,
        "removed_duplicates": {"train": from_train, "validation": from_validation},
    }


def _drop_repeats(pool: _Pool, labels: LabelSpace) -> int:
    """Keep the first of equal training texts, and none of those whose labels disagree; return how many are dropped."""
    rows = pool.splits["train"]
    num_conflicting = _leave_out(pool, "train", _conflicting(pool, rows, labels))
    rows = pool.splits["train"]
    _, first = np.unique(pool.texts[rows], return_index=True)
    pool.splits["train"] = rows[np.sort(first)]
    return num_conflicting + len(rows) - len(first)


def _marked(pool: _Pool, rows: np.ndarray) -> np.ndarray:
    """Return for each text whether one of some rows has it."""
    marked = np.zeros(int(pool.texts.max(initial=-1)) + 1, dtype=bool)
    marked[pool.texts[rows]] = True
    return marked


def _leave_out(pool: _Pool, split: str, unwanted: np.ndarray) -> int:
    """Take the rows out of a split whose text is marked as unwanted, and return their number."""
    rows = pool.splits[split]
    pool.splits[split] = rows[~unwanted[pool.texts[rows]]]
    return len(rows) - len(pool.splits[split])


def _conflicting(pool: _Pool, rows: np.ndarray, labels: LabelSpace) -> np.ndarray:
    """Mark the texts whose labels disagree. Targets may: equal texts rated differently are there to be averaged."""
    texts, codes = pool.texts[rows], pool.labels[rows]
    marked = _marked(pool, rows[:0])
    if labels.problem_type != REGRESSION:
        first = np.zeros(len(marked), dtype=codes.dtype)
        first[texts] = codes  # of equal texts, the label of one
        marked[texts[first[texts] != codes]] = True
    return marked


def _check_disjoint(pool: _Pool) -> None:
    """Check that no text and no row stands in two splits: see [`assert_no_leak`]."""
    for split, others in (("train", ("validation", "test")), ("validation", ("test",))):
        rows = np.concatenate([pool.splits[other] for other in others])
        both = pool.splits[split][_marked(pool, rows)[pool.texts[pool.splits[split]]]]
        if len(both):
            raise AssertionError(f"The text of {pool.rows[int(both[0])]['row_id']} stands in two splits.")


def _check_sizes(pool: _Pool, labels: LabelSpace) -> None:
    for split in SPLITS:
        if len(pool.splits[split]) == 0:
            raise InputError(f"The {split} split is empty once texts that leak are removed: give more rows.")
    present = np.unique(pool.labels[pool.splits["train"]])
    if labels.problem_type == SINGLE_LABEL and len(present) == 1:
        raise InputError(f"All training rows have one label, {labels.names[present[0]]!r}: two are needed at least.")


# Over-sampling


def oversample(
    train: Dataset, held_out: Iterable[bytes], labels: LabelSpace, args: DataArguments
) -> tuple[Dataset, dict[str, Any]]:
    """Add rows to the classes that have few, until each has `args.oversample_to` times as many as the largest.

    Rows of a class are repeated in a seeded order, each of them once before any twice. With "neighbours", words of the
    repeated text are replaced by near ones, see [`Rewriter`]: so do Tan, Lee and Lim (Applied Sciences 2023, 13(6)
    3915), of whom it is not known how many words they replace and how near the others are.

    Args:
        train: the training split; what is added comes after its rows.
        held_out: the [`text_key`] of every validation and test text.
        labels: what the labels mean: one a text.
        args: the options.

    Returns:
        The larger split: an added row has the `row_id` of its origin with "+1", "+2" … behind it, and the origin's
        other columns. And counts: `method`; `added`, by class, for those that had too few; `refused` and `unchanged`,
        the rows that a [`Rewriter`] could do nothing with.

    Raises:
        InputError: if a text has several labels or a target, or if the word vectors cannot be read.
    """
    if labels.problem_type != SINGLE_LABEL:
        raise InputError(f"--oversample {args.oversample} needs one label per text: leave it out.", field="oversample")
    texts, classes = train["text"][:], train["label"][:]
    rng = random.Random(args.oversample_seed)
    sizes = Counter(classes)
    wanted = round(args.oversample_to * max(sizes.values()))
    missing = {label: wanted - sizes[label] for label in sorted(sizes) if sizes[label] < wanted}
    rewriter = None
    if args.oversample == "neighbours":
        near = near_words([text for text, label in zip(texts, classes, strict=True) if label in missing], args)
        rewriter = Rewriter(near, {*held_out, *map(text_key, texts)}, args.replace_share, rng)

    origins: list[int] = []
    new_texts: list[str] = []
    added: dict[str, int] = {}
    for label, number in missing.items():
        rows = [row for row, other in enumerate(classes) if other == label]
        drawn = _draw_rows(rng.sample(rows, len(rows)), number, texts, rewriter)
        origins += [row for row, _ in drawn]
        new_texts += [text for _, text in drawn]
        added[labels.names[label]] = len(drawn)
        if len(drawn) < number:
            logger.warning(
                "--oversample adds %d rows of class %r where %d were wanted: its texts give no more.",
                len(drawn),
                labels.names[label],
                number,
            )
    counts = {"method": args.oversample, "added": added, "refused": 0, "unchanged": 0}
    if rewriter:
        counts |= {"refused": rewriter.refused, "unchanged": rewriter.unchanged}
    return _add_rows(train, origins, new_texts), counts


class Rewriter:
    """Replaces words of texts by near ones, never giving a text that is taken.

    Args:
        near: what may stand for each case-folded word, see [`near_words`].
        taken: the [`text_key`] of every text that must not come out; those that do are added.
        share: how many of a text's words that can be replaced are; one at least.
        rng: where all chance comes from.

    Attributes:
        refused: number of texts given up after ten more draws, as what came out was always taken.
        unchanged: number of texts without a word that can be replaced.
    """

    def __init__(self, near: dict[str, list[str]], taken: set[bytes], share: float, rng: random.Random) -> None:
        self.near = near
        self.taken = taken
        self.share = share
        self.rng = rng
        self.refused = self.unchanged = 0

    def rewrite(self, text: str) -> str | None:
        """Return the text with other words, or None where there is no way."""
        places = [place for place in WORD.finditer(text) if place[1].casefold() in self.near]
        if not places:
            self.unchanged += 1
            return None
        for _ in range(1 + REDRAWS):
            rewritten = self._draw(text, places)
            if (key := text_key(rewritten)) not in self.taken:
                self.taken.add(key)
                return rewritten
        self.refused += 1
        return None

    def _draw(self, text: str, places: Sequence[re.Match[str]]) -> str:
        chosen = self.rng.sample(places, max(1, round(self.share * len(places))))
        parts, end = [], 0
        for place in sorted(chosen, key=lambda place: place.start(1)):
            word = self.rng.choice(self.near[place[1].casefold()])
            first = word[0].upper() if place[1][0].isupper() else word[0].lower()
            parts += [text[end : place.start(1)], first, word[1:]]
            end = place.end(1)
        return "".join([*parts, text[end:]])


def near_words(texts: Iterable[str], args: DataArguments) -> dict[str, list[str]]:
    """Find what may stand for the words of some texts: those of the most similar vectors.

    Near is what is used alike, not what means the same: "good" is near "bad".

    Args:
        texts: whose words are looked up, without regard to case.
        args: `word_vectors`, of which the first `replace_vocabulary` words take part; of each word, at most
            `replace_neighbours` are near, whose cosine is `replace_similarity` at least.

    Returns:
        Case-folded word → near words, nearest first, for those that have any.
    """
    vectors = read_vectors(str(args.word_vectors), limit=args.replace_vocabulary)
    rows: dict[str, int] = {}
    for row, word in enumerate(vectors.words):
        if re.fullmatch(LETTERS, word):
            rows.setdefault(word.casefold(), row)  # of "good" and "Good", the more frequent
    words, matrix = [vectors.words[row] for row in rows.values()], vectors.vectors[list(rows.values())]
    present = {place[1].casefold() for text in texts for place in WORD.finditer(text)}
    asked = [at for at, word in enumerate(rows) if word in present]
    if not asked:
        return {}
    num_nearest = min(1 + args.replace_neighbours, len(words))  # the word itself is one of them
    search = NearestNeighbors(n_neighbors=num_nearest, metric="cosine").fit(matrix)
    with config_context(working_memory=64):  # MiB; all distances at once may take gigabytes
        distances, found = search.kneighbors(matrix[asked])
    near = {}
    for at, *pairs in zip(asked, distances, found, strict=True):
        others = [
            words[other]
            for distance, other in zip(*pairs, strict=True)
            if other != at and 1 - distance >= args.replace_similarity
        ]
        near[words[at].casefold()] = others[: args.replace_neighbours]
    return {word: others for word, others in near.items() if others}


def _draw_rows(
    origins: Sequence[int], number: int, texts: Sequence[str], rewriter: Rewriter | None
) -> list[tuple[int, str]]:
    """Draw rows, each with its text, taking turns among the origins that still give one."""
    turns = deque(origins)
    drawn: list[tuple[int, str]] = []
    while turns and len(drawn) < number:
        row = turns.popleft()
        text = rewriter.rewrite(texts[row]) if rewriter else texts[row]
        if text is not None:
            drawn.append((row, text))
            turns.append(row)
    return drawn


def _add_rows(train: Dataset, origins: list[int], texts: list[str]) -> Dataset:
    if not origins:
        return train
    row_ids, times, added_ids = train["row_id"][:], Counter[int](), []
    for row in origins:
        times[row] += 1
        added_ids.append(f"{row_ids[row]}+{times[row]}")
    added = Dataset.from_dict({**train[origins], "row_id": added_ids, "text": texts}, features=train.features)
    return concatenate_datasets([train, added])


# A teacher's rows


def _add_soft(
    train: Dataset, held_out: Iterable[bytes], labels: LabelSpace, args: DataArguments
) -> tuple[Dataset, dict[str, int], dict[str, int]]:
    """Add the rows of `args.soft_train_file`, but for texts that others have, and make distributions of all labels.

    Args:
        train: the training split; what is added comes after its rows.
        held_out: the [`text_key`] of every validation and test text.
        labels: what the labels mean: one a text.
        args: the options.

    Returns:
        The larger split, with (C,) float32 labels; how many rows were read, skipped, used and left out; and how many
        were skipped as bad, by reason.

    Raises:
        InputError: if the files are not usable, or no row of them is left.
    """
    soft = read_soft(args, labels)
    why = dict.fromkeys(_keys(train), "in_training") | dict.fromkeys(held_out, "in_validation_or_test")
    left_out, kept = {"in_validation_or_test": 0, "in_training": 0, "repeated": 0}, []
    for row, key in enumerate(map(bytes, soft.keys)):
        if key in why:
            left_out[why[key]] += 1
        else:
            why[key] = "repeated"
            kept.append(row)
    if not kept:
        raise InputError(
            f"--soft_train_file adds no row: of {len(soft):,} texts, {left_out['in_validation_or_test']:,} stand in "
            f"validation or test, and {left_out['in_training']:,} in training. Give other texts, or leave it out.",
            field="soft_train_file",
        )
    hard = with_labels(train, np.eye(labels.num_labels, dtype=np.float32)[label_array(train)])
    counts = {"read": soft.num_read, "skipped": soft.num_read - len(soft), "used": len(kept), **left_out}
    return concatenate_datasets([hard, take_rows(soft.rows, np.array(kept))]), counts, soft.skipped
