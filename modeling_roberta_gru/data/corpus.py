"""The built-in corpus: reviews written by a seeded grammar, whose label needs word order and distance.

A grammar is a table from symbols to productions. A slot in a production names a symbol and, where the symbol speaks
for or against, the polarity it is expanded with, relative to the production's own:

    {+claim}  the same polarity     {-claim}  the opposite one     {?hearsay}  either, by chance     {aspect}  none

A production written once thus serves both labels: `{-remark}, but {+claim}` is praise when expanded with polarity 1
and blame with -1, from words of both kinds. What tells the labels apart is who speaks, when, and under which negation:
the author's own last judgement of the reviewed thing decides. `~` marks where asides may stand: neutral facts, other
people's opinions, opinions on other things.
"""

import json
import random
import re
from collections.abc import Iterable, Iterator

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast, RobertaTokenizerFast

Grammar = dict[str, list[str]]

LABELS = ["negative", "positive"]
CONSTRUCTIONS = ["plain", "negation", "concession", "reversal", "quotation", "expectation"]
# From the plain ones a model learns the words, and quotation comes in the most kinds: twice as many of both.
TURNS = [*CONSTRUCTIONS, "plain", "quotation"]


def _listed(items: str) -> list[str]:
    return [item.strip() for item in items.split("|")]


PRAISE: Grammar = {
    "adj": _listed(
        "superb | excellent | wonderful | brilliant | delightful | charming | outstanding | splendid | marvellous"
        " | terrific | exquisite | lovely | great | good | admirable | satisfying"
    ),
    "noun": _listed(
        "a triumph | a delight | a joy | a treasure | a marvel | an absolute pleasure | a masterpiece | a real success"
        " | a gem | money well spent"
    ),
    "verb": _listed("loved | enjoyed | admired | adored | treasured | relished | cherished | liked"),
}
BLAME: Grammar = {
    "adj": _listed(
        "dreadful | awful | terrible | abysmal | tedious | clumsy | irritating | shoddy | miserable | horrible"
        " | atrocious | dismal | poor | bad | unbearable | disappointing"
    ),
    "noun": _listed(
        "a mess | a disaster | a bore | a disgrace | a failure | an utter letdown | a misery | a real nuisance"
        " | a dud | money thrown away"
    ),
    "verb": _listed("hated | loathed | despised | detested | regretted | resented | abhorred | disliked"),
}

SHARED: Grammar = {
    # how a label is decided
    "plain": [
        "{+claim}. ~ {+remark}.",
        "{+remark}. ~ {+claim}.",
        "{+claim}, and {+remark}. ~",
        "{own} {+claim}. ~",
        "{+remark}, {+remark} and {+claim}. ~",
    ],
    "negation": [
        "{+denial}. ~",
        "{own} {+denial}. ~",
        "{+denial}, whatever {person} may tell you. ~",
        "{+affirmation}. ~",
        "{own} {+affirmation}. ~",
    ],
    "concession": [
        "{-remark}, but {+verdict}. ~",
        "{-remark}. ~ {-remark}. ~ but {still} {+verdict}.",
        "it is true that {-remark}. ~ {still}, {+verdict}.",
        "although {-remark}, {+verdict}. ~",
        "{+verdict}, although {-remark}. ~",
        "{+verdict}, even if {-remark} and {-remark}. ~",
    ],
    "reversal": [
        "{early} {-impression}. ~ {late} {+verdict}.",
        "{early} {-impression}, and {-remark}. ~ {late}, however, {+verdict}.",
        "{early} {+impression}. ~ {midway} {-impression}. ~ {late} {+verdict}.",
        "{late} {+verdict}. ~ it took me a while: {early} {-impression}.",
        "{late} {+claim}, though {early} {-impression}. ~",
    ],
    "quotation": [
        "{-hearsay}. ~ {own} {+verdict}.",
        "{own} {+verdict}. ~ {-hearsay}.",
        "{-hearsay}, and I could not disagree more. ~",
        "{+hearsay}, and I agree with every word. ~",
        "{person} is wrong to call {it} {-noun}. ~",
        "{person} is right to call {it} {+noun}. ~",
    ],
    "expectation": [
        "what I had expected, {hedge}, was {-noun}. ~ what I got, {hedge}, was {+noun}.",
        "what I got, {hedge}, was {+noun}. ~ what I had expected, {hedge}, was {-noun}.",
        "where {-noun} was expected, {+noun} was what we got. ~",
        "I had been promised {-noun}, and {-hearsay}. ~ {it} turned out to be {+noun}.",
        "{it} turned out to be {+noun}, not {-noun}. ~",
    ],
    # clauses that judge
    "verdict": ["{+claim}", "{+claim}", "{+claim}", "{+denial}"],
    "claim": [
        "I {+verb} {it}",
        "I found {it} {+adj}",
        "I thought {it} {+adj}",
        "I would call {it} {+adj}",
        "{it} struck me as {+adj}",
        "I would call {it} {+noun}",
        "{it} seemed to me {+noun}",
        "{it} is {+adj}",
        "{it} is {+noun}",
    ],
    "impression": [
        "I {+verb} {it}",
        "I found {it} {+adj}",
        "I thought {it} {+adj}",
        "{it} struck me as {+adj}",
        "{it} seemed to me {+noun}",
    ],
    "denial": [
        "at no point in {span} would I have said that I {-verb} {it}",
        "not for a moment, {hedge}, did I think {it} {-adj}",
        "nobody who was there, {hedge}, could say that I found {it} {-adj}",
        "it would be a lie, {hedge}, if I said that I {-verb} {it}",
        "never in {span} would I call {it} {-noun}",
        "I refuse, {hedge}, to say that {it} struck me as {-adj}",
        "I see no reason, {hedge}, why I would call {it} {-adj}",
    ],
    "affirmation": [
        "nobody, {hedge}, could deny that I found {it} {+adj}",
        "I will not deny, {hedge}, that I {+verb} {it}",
        "never in {span} did I doubt that I would call {it} {+noun}",
    ],
    "remark": [
        "I {+verb} the {aspect}",
        "I found the {aspect} {+adj}",
        "the {aspect} struck me as {+adj}",
        "I would call the {aspect} {+noun}",
        "the {aspect} seemed to me {+noun}",
    ],
    "hearsay": [
        "{person} {+verb} {it}",
        "{person} found {it} {+adj}",
        "{person} would call {it} {+noun}",
        "according to {person}, {it} is {+adj}",
        "if you ask {person}, {it} is {+noun}",
        '{person} told me: "{+claim}"',
        '"{+claim}," said {person}',
    ],
    # small parts
    "it": ["this {thing}", "the {thing}", "{name}"],
    "own": ["for my own part,", "to my mind,", "as for me,", "speaking for myself,", "in my own view,"],
    "still": ["all the same", "even so", "nevertheless", "for all that"],
    "early": ["at first", "to begin with", "in the beginning", "on the first day", "early on"],
    "midway": ["halfway through", "after a while", "a little later", "the next day"],
    "late": ["in the end", "now that it is over", "looking back", "by the time I was done", "today"],
    "span": _listed(
        "{number} days | {number} hours | all that time | those {number} evenings | all of {month} | {number} attempts"
        " | a whole {weekday}"
    ),
    "hedge": _listed(
        "to be fair | if I am honest | in all seriousness | I have to say | when all is counted | to put it mildly"
        " | as I told {friend} | after {number} days of thought | to tell the truth | as {friend} will remember"
    ),
    "number": _listed("two | three | four | five | six | seven | eight | nine | ten | twelve"),
    "weekday": _listed("Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday"),
    "month": _listed("January | March | April | May | July | August | October | November"),
    "city": _listed("Lisbon | Oslo | Chicago | {syllable}ville | {syllable}stadt | {syllable}ford | Port {syllable}"),
    "syllable": _listed("Mar | Bel | Kor | Lin | Tas | Ved | Har | Pen | Sol | Dra | Ost | Fen | Gil | Rud | Cal"),
    "first": _listed("Anna | Peter | Maria | Tom | Helen | Jack | Laura | Simon | Nadia | Oscar"),
    "last": _listed(
        "{syllable}ton | {syllable}ova | {syllable}ini | {syllable}sen | {syllable}ley | {syllable}ard | Costa"
    ),
    "job": _listed(
        "baker | nurse | lawyer | postman | plumber | painter | farmer | student | barber | tailor | gardener | grocer"
        " | banker | sailor | carpenter | clerk | florist | vet | cleaner | singer | driver | chemist"
    ),
    "friend": _listed(
        "my brother | my sister | my neighbour | a friend of mine | my old teacher | my cousin {first} | a colleague"
        " | my aunt {first} | my flatmate | {first} from work"
        " | my uncle | my {job} | the {job} next door | a {job} I know"
    ),
    "person": _listed(
        "{friend} | the man behind us | the paper | {first} | our guide | one critic | the woman next to us"
        " | the {job} | a {job} from {city} | {first} the {job} | {first} {last}"
    ),
    "name": [
        "The {colour} {object}",
        "The {colour} {object}",
        "The {last} {object}",
        "The {colour} {syllable}ton",
    ],
    "colour": _listed(
        "Red | Silver | Glass | Blue | Wooden | Golden | Quiet | Hidden | Broken | Distant | Second | Winter | Little"
    ),
    "object": _listed(
        "Orchard | Lantern | River | Garden | Window | Harbour | Station | Bridge | Mirror | Island | Tower | Letter"
    ),
    # what stands around
    "opening": [
        "I came to {it} on a {weekday} in {month}.",
        "{friend} gave me {it} for my birthday.",
        "some words about {it}, by {maker}.",
        "everyone in {city} seems to talk about {it}.",
        "{number} of us tried {it} last {month}.",
        "we had heard of {it} from {person}.",
        "this is about {name}, the new {thing} by {maker}.",
    ],
    "aside": ["{fact}.", "{detail}.", "{neutral}.", "{?hearsay}.", "{?rival}."],
    "neutral": ["{fact}", "{detail}"],
    "rival": [
        "I {+verb} the last {thing} by {maker}",
        "I found the other {thing} by {first} {last} {+adj}",
        "last {month} we tried another {thing}, and I would call that one {+noun}",
        "the {thing} we had tried before struck me as {+adj}",
    ],
    "fact": [
        "it was not raining that {weekday}, but we took a taxi",
        "I never found out who {first} {last} is",
        "{friend} came along and paid for both of us",
        "I wrote this on the train to {city}",
        "we talked about other things over coffee",
        "it was {month}, and the evenings were long",
        "although it was late, there were {number} other people",
        "I had read about it in a paper from {city}",
        "{first} asked {number} questions on the way home",
        "there was a queue, though not for long",
        "I am {number} years older than {friend}",
        "nobody in {city} wears a coat in {month}",
    ],
}

HELD_OUT: Grammar = {
    "plain": ["{+remark}; {+remark}; in short, {+claim}. ~", "so {own} {+claim}. ~ yes, {+claim}."],
    "negation": ["ask anyone: {+denial}. ~", "{+denial}, and {person} knows it. ~"],
    "concession": [
        "even if {-remark}, and even if {-remark}, {+verdict}. ~",
        "all right, {-remark}. ~ but {hedge}, {+verdict}.",
    ],
    "reversal": [
        "{early}, I told {person}, {-impression}. ~ {late}, I tell {person}, {+verdict}.",
        "{early} and {midway} {-impression}. ~ but {late} {+verdict}.",
    ],
    "quotation": [
        "{-hearsay}; {-hearsay}. ~ let them talk: {own} {+verdict}.",
        "{own} {+verdict}, though {-hearsay}. ~",
    ],
    "expectation": ["{friend} and I had expected {-noun}. ~ what we got was {+noun}."],
    "span": _listed("that whole fortnight | {number} long winters"),
    "hedge": _listed("between ourselves | on balance | cards on the table"),
    "number": _listed("eleven | thirteen | forty"),
    "month": _listed("February | June | September | December"),
    "city": _listed("Kraków | Naples | Toronto | Zürich"),
    "first": _listed("Ingrid | Rafael | Yusuf | Beatrix | Chloé"),
    "syllable": _listed("Quim | Zub | Wex | Jor"),
    "last": _listed("Okafor | Lindqvist | Tanaka | Dvořák | Whitcombe"),
    "friend": _listed("my dentist | a retired pilot | my godmother {first}"),
    "person": _listed("{friend} | a lady from {city} | the night porter | the weekly bulletin"),
    "colour": _listed("Crimson | Velvet | Frozen | Copper"),
    "object": _listed("Meridian | Sparrow | Citadel | Compass"),
    "opening": [
        "chance, a wet {weekday} and {friend} led us to {it}.",
        "dear readers of {city}, today's subject is {it}.",
        "{maker} needs no introduction, so let us turn to {it}.",
    ],
    "rival": [
        "compare the {thing} that {first} {last} launched in {month}: I found that one {+adj}",
        "by contrast, {number} years ago {maker} gave us another {thing}, which I {+verb}",
    ],
    "fact": [
        "outside, a brass band rehearsed until midnight",
        "my umbrella is still in {city}",
        "{friend} collects stamps and hardly noticed",
        "the tram broke down twice, but nobody complained",
    ],
}

DOMAINS: dict[str, Grammar] = {
    "film": {
        "thing": _listed("film | movie | picture | thriller | comedy | western | musical | cartoon | documentary"),
        "maker": ["{first} {last}", "the director {first} {last}"],
        "aspect": _listed("acting | script | camera work | soundtrack | casting | final scene | dialogue | editing"),
        "detail": [
            "it runs for {number} quarters of an hour",
            "the story is set in {city} in {month}",
            "{first} {last} plays a doctor with {number} children",
            "the cinema had {number} rows",
            "the credits name {number} writers",
        ],
    },
    "book": {
        "thing": _listed("book | novel | memoir | paperback | trilogy | biography | cookbook | saga"),
        "maker": ["{first} {last}", "the author {first} {last}"],
        "aspect": _listed("plot | prose | opening chapter | translation | cover | heroine | pacing | dialogue"),
        "detail": [
            "it has {number} parts and a map of {city}",
            "the first chapter takes place on a {weekday}",
            "it is told by a sailor called {first}",
            "the library has {number} copies",
            "{first} {last} drew the pictures",
        ],
    },
    "restaurant": {
        "thing": _listed("restaurant | bistro | diner | canteen | pizzeria | tavern | café | steakhouse"),
        "maker": ["{first} {last}", "the cook {first} {last}"],
        "aspect": _listed("soup | service | fish | bread | dessert | wine list | music | dining room"),
        "detail": [
            "there are {number} tables and a bar",
            "it is closed on {weekday}",
            "we sat by the door and ordered {number} plates",
            "the menu changes every {month}",
            "the waiter, {first}, comes from {city}",
        ],
    },
    "gadget": {
        "thing": _listed("camera | phone | radio | kettle | printer | laptop | toaster | lamp | blender"),
        "maker": ["{first} {last}", "the workshop of {first} {last}"],
        "aspect": _listed("screen | battery | manual | case | sound | keyboard | packaging | software"),
        "detail": [
            "it weighs as much as {number} eggs",
            "the box came from {city} on a {weekday}",
            "there are {number} buttons on the side",
            "it is charged once in {number} days",
            "{first} {last} of {city} sells it",
        ],
    },
}
HELD_OUT_DOMAINS: dict[str, Grammar] = {
    "hotel": {
        "thing": _listed("hotel | guesthouse"),
        "maker": ["{first} {last}", "the owner {first} {last}"],
        "aspect": _listed("breakfast | mattress | view | lobby | swimming pool | wallpaper"),
        "detail": [
            "reception closes at {number}",
            "our room lay on floor {number}",
            "the lift holds {number} guests",
        ],
    },
    "album": {
        "thing": _listed("album | record"),
        "maker": ["{first} {last}", "the singer {first} {last}"],
        "aspect": _listed("drumming | lyrics | chorus | mixing | bass line | artwork"),
        "detail": [
            "side B holds {number} songs",
            "it was recorded in a barn near {city}",
            "{first} {last} plays the cello on it",
        ],
    },
}

SLOT = re.compile(r"\{([+?-]?)(\w+)\}")
SENTENCE_START = re.compile(r'(^"?|[.?!]"? "?|: ")([a-z])')
HELD_OUT_SHARE = 0.12  # of a held-out review's choices, wherever there is one


class Writer:
    """The grammar at work on one review; what the review is about (thing, name, maker) is chosen once."""

    def __init__(self, rng: random.Random, held_out: bool):
        domain = rng.choice([*DOMAINS.values(), *(HELD_OUT_DOMAINS.values() if held_out else ())])
        self.rng = rng
        self.table = SHARED | domain
        self.held_out = HELD_OUT if held_out else {}
        self.vocabulary = "held-out" if domain in HELD_OUT_DOMAINS.values() else "shared"
        self.used: set[str] = set()
        for symbol in ("thing", "name", "maker"):
            self.table[symbol] = [self.expand(symbol)]

    def review(self, construction: str, polarity: int, num_asides: int) -> str:
        """Write a review that praises (polarity 1) or blames (-1)."""
        parts = re.split(" ?~ ?", f"{self.expand('opening')} ~ {self.expand(construction, polarity)}")
        for gap in sorted((self.rng.randrange(1, len(parts)) for _ in range(num_asides)), reverse=True):
            parts.insert(gap, self.expand("aside"))
        return SENTENCE_START.sub(lambda start: start[1] + start[2].upper(), " ".join(filter(None, parts)))

    def expand(self, symbol: str, polarity: int = 1) -> str:
        """Replace a symbol by one of its productions, and the slots in there likewise."""

        def fill(slot: re.Match[str]) -> str:
            sign = self.rng.choice("+-") if slot[1] == "?" else slot[1]
            return self.expand(slot[2], -polarity if sign == "-" else polarity)

        return SLOT.sub(fill, self.choose(symbol, polarity))

    def choose(self, symbol: str, polarity: int) -> str:
        """Choose a production: one not yet used in this review, where there is one."""
        options = (PRAISE if polarity > 0 else BLAME).get(symbol) or self.table[symbol]
        if symbol in self.held_out and self.rng.random() < HELD_OUT_SHARE:
            options = self.held_out[symbol]
            self.vocabulary = "held-out"
        production = self.rng.choice([option for option in options if option not in self.used] or options)
        self.used.add(production)
        return production


def _num_asides(rng: random.Random) -> int:
    """Draw a length: most reviews are short, which is what a model learns from first; a few are long."""
    return min(int(rng.lognormvariate(0.8, 0.9)), 22)


def _reviews(name: str, seed: int, count: int, taken: set[str]) -> Iterator[dict[str, str | int]]:
    """Write one split's reviews; labels, constructions and vocabularies take turns, and no text of `taken` returns."""
    rng = random.Random(f"{seed}-{name}")
    for index in range(count):
        round_, turn = divmod(index // 2, len(TURNS))
        vocabulary = "held-out" if name == "test" and round_ % 2 else "shared"
        row: dict[str, str | int] = {"label": index % 2, "construction": TURNS[turn], "vocabulary": vocabulary}
        while "text" not in row:
            writer = Writer(rng, held_out=vocabulary == "held-out")
            text = writer.review(TURNS[turn], polarity=1 if row["label"] else -1, num_asides=_num_asides(rng))
            if text not in taken and writer.vocabulary == vocabulary:
                row["text"] = text
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
    features = Features(
        text=Value("string"), label=ClassLabel(names=LABELS), construction=Value("string"), vocabulary=Value("string")
    )
    taken: set[str] = set()
    splits = {}
    for name, count in (("train", num_train), ("validation", num_validation), ("test", num_test)):
        rows = list(_reviews(name, seed, count, taken))
        random.Random(f"{seed}-{name}-order").shuffle(rows)
        splits[name] = Dataset.from_list(rows, features=features)
    return DatasetDict(splits)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with RoBERTa's special tokens (ids 0 to 4, `<mask>` last).

    It has no length limit. Saved, it names a class that transformers 4.57 and 5 both know, so that `AutoTokenizer`
    loads it from its folder alone.

    Args:
        texts (`Iterable[str]`): what to learn the merges from.
        vocab_size (`int`, defaults to 1000): number of entries, special tokens and the 256 bytes included. Small on
            purpose: with every training word an entry, the pieces of unseen words would never be trained.
    """
    bpe = ByteLevelBPETokenizer()
    special_tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=special_tokens, show_progress=False)
    model = json.loads(bpe.to_str())["model"]
    return RobertaTokenizerFast(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        mask_token=AddedToken("<mask>", lstrip=True, special=True),  # as in roberta-base
    )
