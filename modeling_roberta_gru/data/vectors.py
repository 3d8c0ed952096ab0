"""Read word vectors from text files as GloVe and word2vec write them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import InputError

BLOCK = 10_000  # lines parsed at a time: a whole file's text would need several times the room of its numbers

Line = tuple[int, str, str]
"""Number in the file (from 1), word, and the numbers as written."""


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their vectors, in the order of the file: most frequent first.

    Attributes:
        words: V words.
        vectors: (V, d), float32.
    """

    words: tuple[str, ...]
    vectors: np.ndarray

    @cached_property
    def rows(self) -> dict[str, int]:
        """Word → its row; the first one of a word that stands there twice."""
        return {word: row for row, word in reversed(list(enumerate(self.words)))}


def read_vectors(path: str | Path, words: Collection[str] | None = None, limit: int | None = None) -> WordVectors:
    """Read a text file with a word and its d numbers on each line, separated by single spaces.

    A first line of two whole numbers is word2vec's header: the numbers of words and of dimensions. Without one, the
    first line says how many numbers there are. A word may hold spaces itself (". . ." in GloVe 840B): it is what is
    left of the last d fields.

    Args:
        path: the file.
        words: read the vectors of these only, where the file has them; the numbers of others are not looked at.
        limit: look at so many lines only, which are the most frequent words.

    Raises:
        InputError: if the file is missing, packed, binary, not UTF-8 or empty; if a line has another number of fields
            or holds a number that is none or not finite; or if a header disagrees with what follows.
    """
    path = Path(path)
    _check_is_text(path)
    wanted = None if words is None else frozenset(words)
    lines = (line for line in islice(_lines(path), limit) if wanted is None or line[1] in wanted)
    kept: list[str] = []
    blocks: list[np.ndarray] = []
    while block := list(islice(lines, BLOCK)):
        kept += [word for _, word, _ in block]
        blocks.append(_parse(path, block))
    if not blocks:
        return WordVectors((), np.empty((0, _width(path)[0]), np.float32))
    return WordVectors(tuple(kept), np.concatenate(blocks))


def _check_is_text(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the file of word vectors in it.")
    if not path.is_file():
        raise InputError(f"No file {str(path)!r} with word vectors: name a text file of GloVe's or word2vec's.")
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if not start.strip():
        raise InputError(f"{path} is empty: word vectors were to be read from it.")
    if path.suffix == ".bin" or b"\0" in start:
        raise InputError(
            f"{path} is packed or binary, and text is wanted: unpack it, or rewrite word2vec's .bin by gensim: "
            "KeyedVectors.load_word2vec_format(FILE, binary=True).save_word2vec_format('vectors.txt')."
        )


def _lines(path: Path) -> Iterator[Line]:
    """Take a file's lines apart, checking their number and their fields."""
    width, count = _width(path)
    said = f"the first line says {width}" if count is None else f"the header says {width}"
    found = 0
    with path.open("rb") as file:
        # by bytes: words may hold what Python takes for the end of a line, such as U+0085
        for number, line in enumerate(file, 1):
            if (count is not None and number == 1) or not line.strip():
                continue
            text = _decoded(path, number, line)
            word, *numbers = text.rsplit(" ", width)
            # a number at the end of a word of several parts is one too many
            if not word or len(numbers) < width or (" " in word and _is_number(word.rpartition(" ")[2])):
                raise InputError(
                    f"{path}, line {number}: not a word and {width} numbers, as {said}. Mend or delete the line."
                )
            found += 1
            yield number, word, text[len(word) + 1 :]
    if count is not None and found != count:
        raise InputError(
            f"{path}: the header says {count} words, but {found} follow. Fetch the file anew, or mend the header."
        )


def _width(path: Path) -> tuple[int, int | None]:
    """Return how many numbers a line has, and how many lines a header promises; None without a header."""
    with path.open("rb") as file:
        fields = _decoded(path, 1, file.readline()).split(" ")
    if len(fields) == 2 and all(field.isascii() and field.isdecimal() for field in fields) and int(fields[1]):
        return int(fields[1]), int(fields[0])
    if len(fields) < 2:
        raise InputError(f"{path}, line 1: no word and numbers with single spaces between them, as GloVe writes them.")
    return len(fields) - 1, None


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode().rstrip()  # word2vec ends its lines in a space
    except UnicodeDecodeError:
        raise InputError(f"{path}, line {number}: not UTF-8 text. Save the file as UTF-8.") from None


def _parse(path: Path, block: list[Line]) -> np.ndarray:
    """Turn the numbers of some lines into a matrix; line by line, to name a bad one, where they are not clean."""
    try:
        values = np.loadtxt([numbers for _, _, numbers in block], np.float32, comments=None, delimiter=" ", ndmin=2)
    except ValueError:
        values = np.array(np.nan)
    if np.isfinite(values).all():
        return values
    if len(block) == 1:
        number, word, _ = block[0]
        raise InputError(f"{path}, line {number} ({word!r}): not all are finite numbers. Mend or delete the line.")
    return np.concatenate([_parse(path, [line]) for line in block])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
