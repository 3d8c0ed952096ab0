"""From a source to three splits that share no text: the one entry to the data for training and for evaluation."""

import hashlib
import json
import logging
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from ..arguments import DataArguments
from ..errors import InputError
from .augmentation import oversample, text_key
from .documents import build_documents, stack
from .labels import REGRESSION, SINGLE_LABEL, LabelSpace, encode_documents, infer_labels
from .sources import READERS, SPLITS, describe_source, read_source

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Three labelled splits that share no text.

    Each data set has columns `row_id` ("train:17": the split and row of the source, from 0; "train:17+2": the second
    row that over-sampling made of it), `text`, `label` (int64, a float32 vector or a float32, by problem type) and the
    source's other columns.

    Attributes:
        labels: what the labels mean.
        counts: for the run's record: rows of each split, rows skipped as bad by reason, rows removed from training and
            validation, and rows over-sampled.
        pooled: whether given splits were pooled and split anew.
        source: names the source and what was carved out of it.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    labels: LabelSpace
    counts: dict[str, Any]
    pooled: bool
    source: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 over row ids, texts and labels of the three splits: equal for equal data, in any process."""
        digest = hashlib.sha256(json.dumps([self.labels.problem_type, self.labels.names]).encode())
        for name in SPLITS:
            split = getattr(self, name)
            for row in zip(split["row_id"][:], split["text"][:], split["label"][:], strict=True):
                digest.update(json.dumps([name, *row]).encode())
        return digest.hexdigest()


def load_splits(args: DataArguments) -> Splits:
    """Read, label, split and purge the data that `args` name.

    Splits that are given are kept; missing ones are carved out of training, whose repeated texts are dropped before
    that on request. Then, in this order, texts whose labels disagree leave training (targets of a regression may
    disagree), texts of validation or test leave training, and texts of test leave validation. Test stays whole. Then
    subsets are taken, and last, minority classes of training are over-sampled.

    Raises:
        InputError: if something is wrong with source, columns, rows or labels, or a split ends up empty.
    """
    given = read_source(args)
    built = {split: build_documents(split, parts, args) for split, parts in given.items()}
    skipped = {split: reasons for split, (_, reasons) in built.items() if reasons}
    documents = {split: rows for split, (rows, _) in built.items()}
    pooled = args.pool_splits and len(documents) > 1
    if args.pool_splits:
        documents = {"train": stack(list(documents.values()))}
    if "train" not in documents:
        raise InputError(f"There are no training rows: {describe_source(args)} gives {', '.join(documents)} only.")
    labels = infer_labels(documents["train"], args)
    documents = {split: encode_documents(rows, labels, args) for split, rows in documents.items()}
    repeats = 0
    if args.drop_repeats:
        documents["train"], repeats = _drop_repeats(documents["train"], labels)
    documents, carved = _fill_splits(documents, labels, args)
    documents, removed = _purge(documents, labels)
    removed["removed_repeats"] = repeats
    sizes = (args.max_train_samples, args.max_validation_samples, args.max_test_samples)
    documents = {
        split: take_sample(documents[split], size, labels, args.split_seed)
        for split, size in zip(SPLITS, sizes, strict=True)
    }
    _check_sizes(documents, labels)
    train, validation, test = (documents[split] for split in SPLITS)
    made: dict[str, Any] = {}
    if args.oversample != "none":
        train, made["oversampled"] = oversample(train, [*_keys(validation), *_keys(test)], labels, args)
    assert_no_leak(train, validation, test)
    counts = {"train": len(train), "validation": len(validation), "test": len(test), "skipped": skipped}
    counts |= {**removed, **made}
    how = "; given splits pooled" * pooled + (f"; {carved}" if carved else "")
    return Splits(train, validation, test, labels, counts, pooled, describe_source(args) + how)


def load_labelled(name: str, args: DataArguments, labels: LabelSpace) -> Dataset:
    """Read one labelled set to evaluate a saved model on: a file, or a folder's or data set's test split.

    Args:
        name: a file, a local folder, a Hub id or "built-in".
        args: columns, clean-up and `on_bad_row`; its own source is not read.
        labels: those of the model; a label it does not know is an error.

    Returns:
        A data set with the columns of [`Splits`].
    """
    args = replace(args, dataset_name=None, train_file=None, validation_file=None, test_file=None)
    is_file = Path(name).suffix.lower() in READERS and not Path(name).is_dir()
    args = replace(args, test_file=[name]) if is_file else replace(args, dataset_name=name)
    given = read_source(args)
    split = "test" if "test" in given else next(iter(given))
    if len(given) > 1 and split != "test":
        raise InputError(f"{name} has no test split but {', '.join(given)}: name the file that is meant.")
    documents, _ = build_documents(split, given[split], args)
    return take_sample(encode_documents(documents, labels, args), args.max_test_samples, labels, args.split_seed)


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
    return _carve_rows(documents, size, labels, seed)[1]


def _fill_splits(
    documents: dict[str, Dataset], labels: LabelSpace, args: DataArguments
) -> tuple[dict[str, Dataset], str]:
    """Carve the splits that are missing out of training, and say so."""
    share = dict(zip(SPLITS, args.fractions, strict=True))
    # shares are relative to what training still has to give: itself and the splits not yet carved
    missing = [split for split in ("test", "validation") if split not in documents]
    documents = dict(documents)
    for split in missing:
        rest = share["train"] + sum(share[other] for other in missing if other not in documents)
        part = share[split] / rest
        documents["train"], documents[split] = _carve(documents["train"], part, labels, args)
    if args.group_column and len(missing) < 2:
        _warn_of_shared_groups(documents, args.group_column)
    carved = f"{' and '.join(reversed(missing))} carved out of train" if missing else ""
    return documents, carved


def _carve(documents: Dataset, share: float, labels: LabelSpace, args: DataArguments) -> tuple[Dataset, Dataset]:
    """Part documents in two, the second with about `share` of the rows, stratified; groups stay together."""
    if len(documents) < 3:
        raise InputError(f"{len(documents)} rows are too few to split; give --validation_file and --test_file.")
    if args.group_column:
        return _carve_groups(documents, share, labels, args.group_column, args.split_seed)
    return _carve_rows(documents, max(1, round(share * len(documents))), labels, args.split_seed)


def _carve_rows(documents: Dataset, size: int, labels: LabelSpace, seed: int) -> tuple[Dataset, Dataset]:
    strata = _strata(documents, labels, at_least=2)
    has_room = min(size, len(documents) - size) >= len(set(strata))  # for one of each
    rows = np.arange(len(documents))
    rest, held_out = train_test_split(rows, test_size=size, random_state=seed, stratify=strata if has_room else None)
    return documents.select(np.sort(rest)), documents.select(np.sort(held_out))


def _carve_groups(
    documents: Dataset, share: float, labels: LabelSpace, column: str, seed: int
) -> tuple[Dataset, Dataset]:
    groups = [str(group) for group in documents[column][:]]
    count = len(set(groups))
    if count < 2:
        raise InputError(f"--group_column {column!r} has too few different values to split by.")
    # folds can only be taken whole (0.3 is three of ten), at least one and not all
    finest = Fraction(1, min(20, count))
    folds = min(max(Fraction(share).limit_denominator(finest.denominator), finest), 1 - finest)
    strata = _strata(documents, labels, at_least=folds.denominator)
    splitter = StratifiedGroupKFold(folds.denominator, shuffle=True, random_state=seed)
    parts = [held_out for _, held_out in splitter.split(groups, strata, groups)]
    held_out = np.sort(np.concatenate(parts[: folds.numerator]))
    rest = np.setdiff1d(np.arange(len(documents)), held_out)
    return documents.select(rest), documents.select(held_out)


def _strata(documents: Dataset, labels: LabelSpace, at_least: int) -> list[str]:
    """Return what is to be spread evenly: the label (or set of labels), rare ones counted as the commonest."""
    if labels.problem_type == REGRESSION:
        return ["target"] * len(documents)
    keys = [str(label) for label in documents["label"][:]]
    counts = Counter(keys)
    commonest = counts.most_common(1)[0][0]
    return [key if counts[key] >= at_least else commonest for key in keys]


def _warn_of_shared_groups(documents: dict[str, Dataset], column: str) -> None:
    groups = {split: set(documents[split][column][:]) for split in SPLITS}
    for split, earlier in (("validation", ("train",)), ("test", ("train", "validation"))):
        shared = groups[split] & set().union(*(groups[other] for other in earlier))
        if shared:
            logger.warning(
                "%d of %d values of --group_column %r in %s stand in %s too: given splits are kept as they are.",
                len(shared),
                len(groups[split]),
                column,
                split,
                " or ".join(earlier),
            )


def _keys(documents: Dataset) -> list[bytes]:
    return [text_key(text) for text in documents["text"][:]]


def _purge(documents: dict[str, Dataset], labels: LabelSpace) -> tuple[dict[str, Dataset], dict[str, Any]]:
    """Leave out training texts whose labels disagree, then texts that stand in a later split; count both."""
    train, validation, test = (documents[split] for split in SPLITS)
    train_keys, validation_keys, test_keys = _keys(train), _keys(validation), _keys(test)
    conflicting = _conflicting(train_keys, train["label"][:], labels)
    train, train_keys, disagreeing = _leave_out(train, train_keys, conflicting)
    train, _, from_train = _leave_out(train, train_keys, {*validation_keys, *test_keys})
    validation, _, from_validation = _leave_out(validation, validation_keys, set(test_keys))
    return {"train": train, "validation": validation, "test": test}, {
        "removed_conflicting": disagreeing,
        "removed_duplicates": {"train": from_train, "validation": from_validation},
    }


def _drop_repeats(documents: Dataset, labels: LabelSpace) -> tuple[Dataset, int]:
    """Keep the first of equal texts, and none of those whose labels disagree; return how many were dropped, too."""
    keys = _keys(documents)
    row_of_key = {key: row for row, key in reversed(list(enumerate(keys)))}
    for key in _conflicting(keys, documents["label"][:], labels):
        del row_of_key[key]
    kept = documents.select(sorted(row_of_key.values()))
    return kept, len(documents) - len(kept)


def _leave_out(documents: Dataset, keys: list[bytes], unwanted: set[bytes]) -> tuple[Dataset, list[bytes], int]:
    keep = [row for row, key in enumerate(keys) if key not in unwanted]
    removed = len(keys) - len(keep)
    return documents.select(keep) if removed else documents, [keys[row] for row in keep], removed


def _conflicting(keys: list[bytes], encoded: list[Any], labels: LabelSpace) -> set[bytes]:
    """Return the texts whose labels disagree. Targets may: equal texts rated differently are there to be averaged."""
    if labels.problem_type == REGRESSION:
        return set()
    first: dict[bytes, Any] = {}
    return {key for key, label in zip(keys, encoded, strict=True) if first.setdefault(key, label) != label}


def _check_sizes(documents: dict[str, Dataset], labels: LabelSpace) -> None:
    for split in SPLITS:
        if len(documents[split]) == 0:
            raise InputError(f"The {split} split is empty once texts that leak are removed: give more rows.")
    present = set(documents["train"]["label"][:]) if labels.problem_type == SINGLE_LABEL else set()
    if len(present) == 1:
        raise InputError(
            f"All training rows have one label, {labels.names[present.pop()]!r}: two are needed at least."
        )
