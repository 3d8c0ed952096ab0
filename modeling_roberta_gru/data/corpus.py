"""The built-in corpus: reviews written by a seeded grammar, whose label needs word order and distance.

A grammar is a table from symbols to productions. A slot in a production names a symbol and, where the symbol speaks
for or against, the polarity it is expanded with, relative to the production's own:

    {+claim}  the same polarity     {-claim}  the opposite one     {?hearsay}  either, by chance     {aspect}  none

A production written once thus serves both labels: `{-remark}, but {+claim}` is praise when expanded with polarity 1
and blame with -1, from words of both kinds. What tells the labels apart is who speaks, when, and under which negation:
the author's own last judgement of the reviewed thing decides. `~` marks where asides may stand: neutral facts, other
people's opinions, opinions on other things.

A long review is a stream of asides in which the author judges once, twice or three times, wherever it may be. The
words and sentence frames are in corpus.yaml.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer
from tokenizers.processors import RobertaProcessing
from transformers import PreTrainedTokenizerFast, RobertaTokenizerFast

from ..arguments import BUILT_IN, BUILT_IN_LONG

Grammar = dict[str, list[str]]
Row = dict[str, str | int | float]

LABELS = ["negative", "positive"]
FEATURES = Features(
    text=Value("string"), label=ClassLabel(names=LABELS), construction=Value("string"), vocabulary=Value("string")
)
LONG_FEATURES = Features(FEATURES | {"num_judgements": Value("int64"), "verdict_at": Value("float64")})
CONSTRUCTIONS = ["plain", "negation", "concession", "reversal", "quotation", "expectation"]
# From the plain ones a model learns the words, and quotation comes in the most kinds: twice as many of both.
TURNS = [*CONSTRUCTIONS, "plain", "quotation"]
LONG = (1000, 8000)  # tokens of a long document
# Least and most tokens → how many of such reviews to train on. From hundreds of tokens to thousands goes by steps.
TRAINING_LENGTHS = {(60, 250): 3000, (250, 1000): 1500, (1000, 2000): 600}
# Where a review judges several times, those whose clauses need no others to be understood.
LONG_TURNS = ["plain", "negation", "concession", "plain"]


SLOT = re.compile(r"\{([+?-]?)(\w+)\}")
SENTENCE_START = re.compile(r'(^"?|[.?!]"? "?|: ")([a-z])')
HELD_OUT_SHARE = 0.12  # of a held-out review's choices, wherever there is one
NUM_JUDGEMENTS = (1, 1, 2, 3)  # of a long review, by turns: half judge only once
TOKENS_PER_WORD = 1.33  # of long reviews, under a tokenizer trained on them; measured: 1.25 to 1.45, sd 0.02
LEAST, MOST = 1.06, 0.9  # of the bounds of length that we aim at, so that these differences do not break them


@cache
def grammar() -> dict[str, Any]:
    """Read the tables of symbols and productions: praise, blame, shared, held_out, and by domain two of such."""
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


class Writer:
    """The grammar at work on one review; what the review is about (thing, name, maker) is chosen once."""

    def __init__(self, rng: random.Random, held_out: bool):
        words = grammar()
        new_domains = words["held_out_domains"].values()
        domain = rng.choice([*words["domains"].values(), *(new_domains if held_out else ())])
        self.rng = rng
        self.words = words
        self.table: Grammar = words["shared"] | domain
        self.held_out: Grammar = words["held_out"] if held_out else {}
        self.vocabulary = "held-out" if domain in new_domains else "shared"
        self.used: set[str] = set()
        for symbol in ("thing", "name", "maker"):
            self.table[symbol] = [self.expand(symbol)]

    def review(self, construction: str, polarity: int, num_asides: int) -> tuple[str, float]:
        """Write a review that praises (polarity 1) or blames (-1).

        Returns:
            The text, and where in it the judgement begins, as a share of its characters.
        """
        parts = _parts(f"{self.expand('opening')} ~ {self.expand(construction, polarity)}")
        num_before = self.scatter_asides(parts, num_asides)
        return _text(parts, judgement=1 + num_before)

    def long_review(self, judgements: Sequence[tuple[str, int]], num_words: float) -> tuple[str, float]:
        """Write a review of about so many words that judges several times, each a construction and a polarity.

        The last judgement begins anywhere among the asides, as likely here as there; the others anywhere before it.

        Returns:
            The text, and where in it the last judgement begins, as a share of its characters.
        """
        opening = self.expand("opening")
        blocks = [self.judgement(*judgement, anew=number > 0) for number, judgement in enumerate(judgements)]
        asides: list[str] = []
        num_left = num_words - sum(len(part.split()) for block in [[opening], *blocks] for part in block)
        while num_left > 0:
            asides.append(self.expand("aside"))
            num_left -= len(asides[-1].split())
        last = self.rng.randint(0, len(asides))
        places = [*sorted(self.rng.randint(0, last) for _ in blocks[1:]), last]
        for place, block in zip(reversed(places), reversed(blocks), strict=True):
            asides[place:place] = block
        return _text([opening, *asides], judgement=1 + last + sum(map(len, blocks[:-1])))

    def judgement(self, construction: str, polarity: int, anew: bool) -> list[str]:
        """Write one of a long review's judgements, with asides between its parts as in a short review."""
        start = f"{self.expand('anew')} " if anew else ""
        parts = _parts(start + self.expand(construction, polarity))
        self.scatter_asides(parts, _num_asides(self.rng))
        self.used.clear()  # or what stands around would avoid its words, and so tell of them
        return parts

    def scatter_asides(self, parts: list[str], num_asides: int) -> int:
        """Insert asides anywhere after the first part, and return how many now stand right after it."""
        gaps = sorted((self.rng.randrange(1, len(parts)) for _ in range(num_asides)), reverse=True)
        for gap in gaps:
            parts.insert(gap, self.expand("aside"))
        return gaps.count(1)

    def expand(self, symbol: str, polarity: int = 1) -> str:
        """Replace a symbol by one of its productions, and the slots in there likewise."""

        def fill(slot: re.Match[str]) -> str:
            sign = self.rng.choice("+-") if slot[1] == "?" else slot[1]
            return self.expand(slot[2], -polarity if sign == "-" else polarity)

        return SLOT.sub(fill, self.choose(symbol, polarity))

    def choose(self, symbol: str, polarity: int) -> str:
        """Choose a production: one not yet used in this review, where there is one."""
        options = self.words["praise" if polarity > 0 else "blame"].get(symbol) or self.table[symbol]
        if symbol in self.held_out and self.rng.random() < HELD_OUT_SHARE:
            options = self.held_out[symbol]
            self.vocabulary = "held-out"
        production = self.rng.choice([option for option in options if option not in self.used] or options)
        self.used.add(production)
        return production


def _parts(text: str) -> list[str]:
    """Split a text where asides may stand."""
    return re.split(" ?~ ?", text)


def _text(parts: list[str], judgement: int) -> tuple[str, float]:
    """Join the parts; return the text and where in it the part numbered `judgement` begins, as a share of it."""
    text = " ".join(filter(None, parts))
    begin = sum(len(part) + 1 for part in parts[:judgement] if part)
    return SENTENCE_START.sub(lambda start: start[1] + start[2].upper(), text), begin / len(text)


def _num_asides(rng: random.Random) -> int:
    """Draw a length: most reviews are short, which is what a model learns from first; a few are long."""
    return min(int(rng.lognormvariate(0.8, 0.9)), 22)


def _reviews(name: str, seed: int, count: int, taken: set[str], turns: Sequence[str] = TURNS) -> Iterator[Row]:
    """Write one split's reviews; labels, constructions and vocabularies take turns, and no text of `taken` returns."""
    rng = random.Random(f"{seed}-{name}")
    for index in range(count):
        round_, turn = divmod(index // 2, len(turns))
        vocabulary = "held-out" if name == "test" and round_ % 2 else "shared"
        row: Row = {"label": index % 2, "construction": turns[turn], "vocabulary": vocabulary, "num_judgements": 1}
        while "text" not in row:
            writer = Writer(rng, held_out=vocabulary == "held-out")
            text, verdict_at = writer.review(
                turns[turn], polarity=1 if row["label"] else -1, num_asides=_num_asides(rng)
            )
            if text not in taken and writer.vocabulary == vocabulary:
                row |= {"text": text, "verdict_at": verdict_at}
        taken.add(text)
        yield row


def built_in_corpus(
    seed: int = 0, num_train: int = 12000, num_validation: int = 500, num_test: int = 1000
) -> DatasetDict:
    """Write the built-in corpus: reviews of about 20 to 400 tokens, no text twice, equal for equal arguments.

    Both labels are equally frequent in every split and (to within one) in every construction. About half of the test
    reviews hold words, kinds of things and sentence frames that no training or validation review has; all of these are
    neutral words, or new arrangements of known ones, so that the label can still be told.

    Args:
        seed (`int`, defaults to 0): of all random choices.
        num_train (`int`, defaults to 12000): number of reviews to train on.
        num_validation (`int`, defaults to 500): number of reviews to choose by.
        num_test (`int`, defaults to 1000): number of reviews to measure on.

    Returns:
        `datasets.DatasetDict` with splits `train`, `validation`, `test` and columns `text` (string), `label`
        (ClassLabel: negative, positive), `construction` (string, one of `CONSTRUCTIONS`: what decides the label) and
        `vocabulary` (string: "shared", or "held-out" where something held out from training occurs).
    """
    taken: set[str] = set()
    splits = {}
    for name, count in (("train", num_train), ("validation", num_validation), ("test", num_test)):
        rows = list(_reviews(name, seed, count, taken))
        random.Random(f"{seed}-{name}-order").shuffle(rows)
        splits[name] = _dataset(rows, FEATURES)
    return DatasetDict(splits)


def long_reviews(name: str, seed: int, count: int, min_tokens: int, max_tokens: int) -> Iterator[Row]:
    """Write long reviews that judge one to three times, at places of their own; the last judgement decides.

    Both labels are equally frequent (with an even `count`), also in each construction and number of judgements.
    Nothing but the last judgement tells the label: length, places, asides and the earlier judgements' polarities are
    drawn regardless of it. No review holds anything held out from training.

    Args:
        name (`str`): of the split; other names and other bounds give other reviews.
        seed (`int`): of all random choices.
        count (`int`): number of reviews.
        min_tokens, max_tokens (`int`): bounds of the length, which is spread evenly between them, in tokens of a
            tokenizer that `train_tokenizer` trained on such reviews; kept if the one is 1.3 times the other or more.

    Yields:
        The columns of [`long_corpus`] by name, labels as integers.
    """
    rng = random.Random(f"{seed}-{name}-{min_tokens}")
    for index in range(count):
        label = index % 2
        round_, turn = divmod(index // 2, len(LONG_TURNS))
        num_earlier = NUM_JUDGEMENTS[(round_ + turn) % len(NUM_JUDGEMENTS)] - 1
        earlier = [(rng.choice(LONG_TURNS), rng.choice((1, -1))) for _ in range(num_earlier)]
        judgements = [*earlier, (LONG_TURNS[turn], 1 if label else -1)]
        num_tokens = rng.uniform(LEAST * min_tokens, MOST * max_tokens)
        writer = Writer(rng, held_out=False)
        text, verdict_at = writer.long_review(judgements, num_tokens / TOKENS_PER_WORD)
        yield {
            "text": text,
            "label": label,
            "construction": LONG_TURNS[turn],
            "vocabulary": writer.vocabulary,
            "num_judgements": len(judgements),
            "verdict_at": verdict_at,
        }


def long_corpus(
    seed: int = 0,
    num_short: int = 4000,
    training_lengths: Mapping[tuple[int, int], int] = TRAINING_LENGTHS,
    num_validation: int = 200,
    num_test: int = 1000,
) -> DatasetDict:
    """Write the built-in corpus of long documents: reviews of 1,000 to 8,000 tokens, and shorter ones to train on.

    The author's verdict begins anywhere and can be overturned later: see [`long_reviews`]. Validation and test reviews
    have 1,000 to 8,000 tokens. The training split holds what makes that learnable: short reviews as those of
    [`built_in_corpus`], which judge once, and longer and longer ones, up to 2,000 tokens, that judge up to three
    times. Equal arguments give equal texts.

    Args:
        seed (`int`, defaults to 0): of all random choices.
        num_short (`int`, defaults to 4000): number of short reviews to train on.
        training_lengths (`dict[tuple[int, int], int]`): how many reviews of so many tokens (least, most) to train on.
        num_validation (`int`, defaults to 200): number of long reviews to choose by.
        num_test (`int`, defaults to 1000): number of long reviews to measure on.

    Returns:
        `datasets.DatasetDict` with splits `train`, `validation`, `test` and columns `text` (string), `label`
        (ClassLabel: negative, positive), `construction` (string: of the deciding judgement), `vocabulary` (string:
        "shared" throughout), `num_judgements` (integer, 1 to 3) and `verdict_at` (float: where the deciding judgement
        begins, as a share of the text's characters).
    """
    train = list(_reviews("train", seed, num_short, set(), LONG_TURNS))
    for bounds, count in training_lengths.items():
        train += long_reviews("train", seed, count, *bounds)
    random.Random(f"{seed}-order").shuffle(train)
    splits = {
        "train": train,
        "validation": list(long_reviews("validation", seed, num_validation, *LONG)),
        "test": list(long_reviews("test", seed, num_test, *LONG)),
    }
    return DatasetDict({name: _dataset(rows, LONG_FEATURES) for name, rows in splits.items()})


BUILT_IN_CORPORA: dict[str, Callable[[], DatasetDict]] = {BUILT_IN: built_in_corpus, BUILT_IN_LONG: long_corpus}


def _dataset(rows: list[Row], features: Features) -> Dataset:
    """Turn rows into a data set of the columns that `features` names."""
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with RoBERTa's special tokens (ids 0 to 4, `<mask>` last).

    It has no length limit. Saved, it names a class that transformers 4.57 and 5 both know, so that `AutoTokenizer`
    loads it from its folder alone.

    Args:
        texts (`Iterable[str]`): what to learn the merges from.
        vocab_size (`int`, defaults to 1000): number of entries, special tokens and the 256 bytes included. Small on
            purpose: with every training word an entry, the pieces of unseen words would never be trained.
    """
    mask = AddedToken("<mask>", lstrip=True, special=True)  # as in roberta-base
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=vocab_size, special_tokens=["<s>", "<pad>", "</s>", "<unk>", mask], show_progress=False
    )
    trained = Tokenizer.from_str(bpe.to_str())
    trained.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    # What transformers 5.12 makes of a vocabulary and merges is not a byte-level tokenizer.
    return RobertaTokenizerFast(tokenizer_object=trained, mask_token=mask)
