"""From texts to token ids and batches: tokenising, cutting, tokenizers of whole words, and word vectors.

Batches are made by [`~transformers.DataCollatorWithPadding`]`(tokenizer)`: it pads, and makes int64 of class indices
and float32 of vectors and targets. It wants the model's columns only; the Trainer drops `row_id` and `length` itself,
another loop calls `dataset.select_columns(MODEL_COLUMNS)` first.
"""

import os
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value
from tokenizers import Regex, Tokenizer
from tokenizers import normalizers as normalize
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import WordLevelTrainer
from transformers import PreTrainedTokenizerBase, TokenizersBackend
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from ..errors import InputError

MODEL_COLUMNS = ["input_ids", "attention_mask", "labels"]
ROWS_PER_PROCESS = 100_000
"""So many are worth a process of their own to tokenise."""


def tokenize(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, num_proc: int | None = None
) -> Dataset:
    """Tokenise documents. What comes out lies on disk where the documents do.

    Args:
        dataset: columns `row_id`, `text` and encoded `label`.
        tokenizer: that of the model.
        max_length: texts are cut to this many tokens, special tokens included and kept; None cuts nothing.
        num_proc: the number of processes; unset: one for every two cores, where there are rows enough to be worth it.

    Returns:
        A data set with columns `row_id`, `input_ids`, `attention_mask`, `length` (tokens) and `labels`.

    Raises:
        InputError: if `max_length` leaves no room for text.
    """
    check_max_length(tokenizer, max_length)
    if num_proc is None:
        num_proc = min((os.cpu_count() or 1) // 2, len(dataset) // ROWS_PER_PROCESS)

    def encode(rows: pa.Table) -> pa.Table:
        ids = _token_ids(tokenizer, rows["text"].to_pylist(), max_length)
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        flat = np.fromiter(chain.from_iterable(ids), np.int32, lengths.sum())
        return pa.table(
            {
                "row_id": rows["row_id"],
                "input_ids": pa.ListArray.from_arrays(offsets, pa.array(flat)),
                "attention_mask": pa.ListArray.from_arrays(offsets, pa.array(np.ones(len(flat), np.int8))),
                "length": pa.array(lengths),
                "labels": rows["label"],
            }
        )

    features = Features(
        row_id=Value("string"),
        input_ids=List(Value("int32")),
        attention_mask=List(Value("int8")),
        length=Value("int32"),
        labels=dataset.features["label"],
    )
    tokens = dataset.select_columns(["row_id", "text", "label"]).with_format("arrow")
    tokens = tokens.map(
        encode,
        batched=True,
        remove_columns=tokens.column_names,
        features=features,
        num_proc=num_proc if num_proc > 1 else None,
        new_fingerprint=uuid.uuid4().hex[:16],  # or the tokenizer would be pickled to look for an earlier result
        desc="Tokenising",
    )
    return tokens.with_format(None)


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int | None) -> list[list[int]]:
    """Return the token ids of some texts; a fast tokenizer leaves out their places in the text, which take time."""
    if not tokenizer.is_fast:
        return tokenizer(texts, truncation=max_length is not None, max_length=max_length, verbose=False)["input_ids"]
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    if max_length is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    return [encoding.ids for encoding in backend.encode_batch_fast(texts)]


def check_max_length(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> None:
    """Check that a text cut to so many tokens has some of its own.

    Raises:
        InputError: if not.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= special:
        raise InputError(
            f"--max_length {max_length} leaves no room for text beside {special} special tokens.", field="max_length"
        )


def lift_limits(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a tokenizer, also once it is saved, give every token of a text: the model reads texts of any length."""
    tokenizer.model_max_length = VERY_LARGE_INTEGER
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()  # otherwise the last truncation would be saved to tokenizer.json


def check_token_ids(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    """Check that the model has an embedding for every token.

    Raises:
        InputError: if the tokenizer can give an id of `vocab_size` or more.
    """
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= vocab_size:
        raise InputError(
            f"The tokenizer gives ids up to {largest} ({token!r}), but the model's vocabulary ends at "
            f"{vocab_size - 1}: use the tokenizer that came with the checkpoint, or resize its token embeddings."
        )


# Cutting documents in training


def select_tokens(ids: Sequence[int], num_tokens: int, policy: str, rng: np.random.Generator) -> list[int]:
    """Select the tokens of a document that are read: its first and its last one, and as many between as fit.

    Args:
        ids: the document, `<s>` and `</s>` (or whatever stands first and last) included.
        num_tokens: how many may be read, at least 3; a document that has no more is returned whole.
        policy: "head": those that follow the first; "head_tail": half of them from the start, half from the end, an
            odd one from the start; "random": one stretch, at any place with equal chance.
        rng: where "random" takes its chance from.
    """
    left_out, room = len(ids) - num_tokens, num_tokens - 2
    if left_out <= 0:
        return list(ids)
    if policy == "random":
        start = 1 + int(rng.integers(left_out + 1))
        return [ids[0], *ids[start : start + room], ids[-1]]
    hole = num_tokens - 1 if policy == "head" else 1 + room - room // 2
    return [*ids[:hole], *ids[hole + left_out :]]


def limit_length(dataset: Dataset, num_tokens: int) -> Dataset:
    """Let the column `length` say what a [`SelectingCollator`] of `num_tokens` leaves of each document."""
    lengths = np.minimum(dataset["length"][:], num_tokens)
    return dataset.remove_columns("length").add_column("length", lengths.tolist(), feature=Value("int32"))


class SelectingCollator:
    """Make batches of the selected tokens of training documents.

    A random stretch depends on seed, epoch and the document's own tokens: another one each epoch, the same one after a
    resume, however many workers load the data. Documents of equal tokens get equal stretches.

    Args:
        collator: makes a batch of rows with `input_ids` and `attention_mask`.
        num_tokens: see [`select_tokens`].
        policy: see [`select_tokens`].
        seed: what all chance comes from.
    """

    def __init__(
        self, collator: Callable[[list[dict[str, Any]]], Any], num_tokens: int, policy: str, seed: int
    ) -> None:
        self.collator = collator
        self.num_tokens = num_tokens
        self.policy = policy
        self.seed = seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers may outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next, the first being 0."""
        self.epoch.fill_(epoch)

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        return self.collator([self._select(row) for row in rows])

    def _select(self, row: dict[str, Any]) -> dict[str, Any]:
        ids = row["input_ids"]
        rng = np.random.default_rng([self.seed, self.epoch.item(), zlib.crc32(np.asarray(ids).tobytes())])
        selected = select_tokens(ids, self.num_tokens, self.policy, rng)
        return {**row, "input_ids": selected, "attention_mask": row["attention_mask"][: len(selected)]}


def batches_by_length(lengths: Sequence[int] | np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, longest first: as many as fit the budget once padded, and one at least."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        num_rows = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + num_rows]
        start += num_rows


# Word vectors

BLOCK = 10_000  # lines parsed at a time: a whole file's text takes several times the memory of its numbers

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
        InputError: if the file is missing, compressed, binary, not UTF-8 or empty; if a line has another number of
            fields or holds a number that is none or not finite; or if a header disagrees with what follows.
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
        raise InputError(f"{path} is a folder: name the file of word vectors in it.", file=str(path))
    if not path.is_file():
        raise InputError(
            f"No file {str(path)!r} with word vectors: name a text file of GloVe's or word2vec's.", file=str(path)
        )
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if not start.strip():
        raise InputError(f"{path} is empty: word vectors were to be read from it.", file=str(path))
    if path.suffix == ".bin" or b"\0" in start:
        raise InputError(
            f"{path} is compressed or binary, but must be text: decompress it, or rewrite word2vec's .bin by gensim: "
            "KeyedVectors.load_word2vec_format(FILE, binary=True).save_word2vec_format('vectors.txt').",
            file=str(path),
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
                    f"{path}, line {number}: not a word and {width} numbers, as {said}. Fix or delete the line.",
                    file=str(path),
                    row=number,
                )
            found += 1
            yield number, word, text[len(word) + 1 :]
    if count is not None and found != count:
        raise InputError(
            f"{path}: the header says {count} words, but {found} follow. Download the file again, or fix the header.",
            file=str(path),
        )


def _width(path: Path) -> tuple[int, int | None]:
    """Return how many numbers a line has, and how many lines a header promises; None without a header."""
    with path.open("rb") as file:
        fields = _decoded(path, 1, file.readline()).split(" ")
    if len(fields) == 2 and all(field.isascii() and field.isdecimal() for field in fields) and int(fields[1]):
        return int(fields[1]), int(fields[0])
    if len(fields) < 2:
        raise InputError(
            f"{path}, line 1: no word and numbers with single spaces between them, as GloVe writes them.",
            file=str(path),
            row=1,
        )
    return len(fields) - 1, None


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode().rstrip()  # word2vec ends its lines in a space
    except UnicodeDecodeError:
        raise InputError(
            f"{path}, line {number}: not UTF-8 text. Save the file as UTF-8.", file=str(path), row=number
        ) from None


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
        raise InputError(
            f"{path}, line {number} ({word!r}): not all are finite numbers. Fix or delete the line.",
            file=str(path),
            row=number,
        )
    return np.concatenate([_parse(path, [line]) for line in block])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Tokenizers of whole words

PAD, UNKNOWN = "<pad>", "<unk>"

# GloVe writes "did n't" and "it 's". BertPreTokenizer and Whitespace leave "didn", "'" and "t" of "didn't", and
# Whitespace takes ")." for one word: of IMDb's running words, more have a vector this way than either of those ways.
WORD = r"\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]"


class PreTrainedTokenizerFast(TokenizersBackend):
    """transformers' own class by the name that 4.57 has for it too.

    transformers 5 saves the name of the class, and 4.57 does not know `TokenizersBackend`.
    """


def train_word_tokenizer(texts: Iterable[str], vocab_size: int = 5000) -> PreTrainedTokenizerFast:
    """Learn the most frequent words of some texts, for a tokenizer that takes every other word for `<unk>`.

    Words are lower-cased; punctuation marks are words. `<pad>` has id 0 and `<unk>` id 1, then come the words, most
    frequent first (those of equal frequency by their code points). No token is put before or after a text, and there
    is not a length limit. A text of white space alone is one `<unk>`. Only the empty string has no token: no part of a
    tokenizer sees it; `documents.py` refuses it.

    Saved, it names a class that transformers 4.57 and 5 both know, so that `AutoTokenizer` loads it from its folder
    alone.

    Args:
        texts: what to learn from: the training texts.
        vocab_size: number of entries, the two special ones included.

    Raises:
        InputError: if `vocab_size` leaves no room for a word.
    """
    if vocab_size < 3:
        raise InputError(
            f"A vocabulary of {vocab_size} has no room for words beside {PAD} and {UNKNOWN}: take more.",
            field="vocab_size",
        )
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    steps = [normalize.Lowercase(), normalize.Replace("’", "'")]
    tokenizer.normalizer = normalize.Sequence(steps)
    tokenizer.pre_tokenizer = Split(Regex(WORD), behavior="removed", invert=True)
    trainer = WordLevelTrainer(vocab_size=vocab_size, special_tokens=[PAD, UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # in upper case, or it might be a word that is known
    tokenizer.normalizer = normalize.Sequence([*steps, normalize.Replace(Regex(r"\A\s+\z"), "NOTHING")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_input_names=["input_ids", "attention_mask"],
    )


def embedding_matrix(
    tokenizer: PreTrainedTokenizerBase, vectors: WordVectors, seed: int | np.random.Generator = 0
) -> tuple[np.ndarray, int]:
    """Make the embeddings that a vocabulary starts from.

    A word that has a vector gets it. Others are drawn from a normal distribution with the vectors' own mean and
    standard deviation, dimension by dimension. Padding is zero.

    Args:
        tokenizer: gives V tokens their ids.
        vectors: those of the words that have one, d wide.
        seed: of the vectors that are drawn, or the generator to draw them from.

    Returns:
        (V, d), float32; and how many tokens got their vector from `vectors`.

    Raises:
        InputError: if no token has a vector.
    """
    tokens = {token: row for token, row in tokenizer.get_vocab().items() if row != tokenizer.pad_token_id}
    known = [(row, vectors.rows[token]) for token, row in tokens.items() if token in vectors.rows]
    if not known:
        ours, theirs = max(tokens, key=lambda token: tokens[token]), vectors.words[:1]
        raise InputError(
            f"No word of the vocabulary, such as {ours!r}, is among those with a vector"
            + "".join(f", such as {word!r}" for word in theirs)
            + ": take vectors of the texts' language, of words in lower case."
        )
    rng = np.random.default_rng(seed)
    mean, deviation = vectors.vectors.mean(0, dtype=np.float64), vectors.vectors.std(0, dtype=np.float64)
    matrix = rng.normal(mean, deviation, (len(tokenizer), len(mean))).astype(np.float32)
    rows, sources = zip(*known, strict=True)
    matrix[list(rows)] = vectors.vectors[list(sources)]
    matrix[tokenizer.pad_token_id] = 0
    return matrix, len(known)
