"""A vocabulary of whole words, and the vectors they start from."""

from collections.abc import Iterable

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase, Replace, Sequence
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import WordLevelTrainer
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from ..errors import InputError
from .vectors import WordVectors

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
    is no length limit. A text of white space alone is one `<unk>`. Only the empty string has no token: no part of a
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
        raise InputError(f"A vocabulary of {vocab_size} has no room for words beside {PAD} and {UNKNOWN}: take more.")
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    normalizers = [Lowercase(), Replace("’", "'")]
    tokenizer.normalizer = Sequence(normalizers)
    tokenizer.pre_tokenizer = Split(Regex(WORD), behavior="removed", invert=True)
    trainer = WordLevelTrainer(vocab_size=vocab_size, special_tokens=[PAD, UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # in upper case, or it might be a word that is known
    tokenizer.normalizer = Sequence([*normalizers, Replace(Regex(r"\A\s+\z"), "NOTHING")])
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
