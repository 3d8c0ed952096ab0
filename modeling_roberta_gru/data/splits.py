"""From a source to three splits that share no text: the one entry to the data for training and for evaluation.

The minority classes of the training split are over-sampled here too, by rows that equal no held-out text.
"""

import hashlib
import json
import logging
import random
import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from sklearn import config_context
from sklearn.model_selection import StratifiedGroupKFold, train_test_split
from sklearn.neighbors import NearestNeighbors

from ..arguments import DataArguments
from ..errors import InputError
from .documents import SPLITS, build_documents, describe_source, read_source, stack
from .labels import REGRESSION, SINGLE_LABEL, LabelSpace, encode_documents, infer_labels
from .tables import READERS
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


# Over-sampling


def text_key(text: str) -> bytes:
    """Return what equal texts share: a hash of the text without regard to case and white space."""
    return hashlib.blake2b(" ".join(text.split()).casefold().encode(), digest_size=16).digest()


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
        raise InputError(f"--oversample {args.oversample} needs one label a text: leave it out.")
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
