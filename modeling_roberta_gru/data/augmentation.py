"""Over-sample the minority classes of the training split by rows that equal no held-out text."""

import hashlib
import logging
import random
import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

from datasets import Dataset, concatenate_datasets
from sklearn import config_context
from sklearn.neighbors import NearestNeighbors

from ..arguments import DataArguments
from ..errors import InputError
from .labels import SINGLE_LABEL, LabelSpace
from .vectors import read_vectors

logger = logging.getLogger(__name__)

LETTERS = r"[^\W\d_]+(?:-[^\W\d_]+)*"
# A word between white spaces, without the marks around it. What begins otherwise is left alone: @names, #tags, <tags>,
# &entities; and smileys. So is what other marks than hyphens hold together: contractions, addresses.
WORD = re.compile(rf"(?<!\S)[\"'“‘«(\[{{*¿¡….—–-]*({LETTERS})[^\w\s]*(?!\S)")
REDRAWS = 10


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
        drawn = _draw(rng.sample(rows, len(rows)), number, texts, rewriter)
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


def _draw(
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
