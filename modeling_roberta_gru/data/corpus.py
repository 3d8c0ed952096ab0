"""The built-in corpus: reviews written by a seeded grammar, whose label needs word order and distance.

A grammar is a table from symbols to productions. A slot in a production names a symbol and, where the symbol speaks for
or against, the polarity it is expanded with, relative to the production's own:

    {+claim}  the same polarity      {-claim}  the opposite one      {?hearsay}  either, by chance      {aspect}  none

A production written once thus serves both labels: `{-remark}, but {+claim}` is praise when expanded with polarity +1 and
blame with -1, from the same words. What tells the labels apart is who speaks, when, and under which negation; the rule is
that the author's own last judgement of the reviewed thing decides. `~` marks where asides may be inserted: neutral facts,
other people's opinions, opinions on other things.
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
        "{+denial}. ~ {+denial}.",
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
        "{early} {-claim}. ~ {late} {+verdict}.",
        "{early} {-claim}, and {-remark}. ~ {late}, however, {+verdict}.",
        "{early} {+claim}. ~ {midway} {-claim}. ~ {late} {+verdict}.",
        "{late} {+verdict}. ~ it took me a while: {early} {-claim}.",
        "{late} {+claim}, though {early} {-claim}. ~",
    ],
    "quotation": [
        "{-hearsay}. ~ {own} {+verdict}.",
        "{-hearsay}, and {-hearsay}. ~ {own} {+verdict}.",
        "{own} {+verdict}. ~ {-hearsay}.",
        "{-hearsay}, and I could not disagree more. ~",
        "{+hearsay}, and I agree with every word. ~",
        "{person} is wrong to say: {-claim}. ~",
        "{person} is right to say: {+claim}. ~",
    ],
    "expectation": [
        "I had expected {-noun}. ~ what I got was {+noun}.",
        "what I got was {+noun}. ~ what I had expected was {-noun}.",
        "where I had expected {-noun}, I got {+noun}. ~",
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
        "I said that I {+verb} {it}",
    ],
    "denial": [
        "at no point in {span} would I have said that I {-verb} {it}",
        "not for a moment, {hedge}, did I think {it} {-adj}",
        "nobody who was there, {hedge}, could say that I found {it} {-adj}",
        "it would be a lie, {hedge}, if I said that I {-verb} {it}",
        "never in {span} would I call {it} {-noun}",
        "I refuse, {hedge}, to say that {it} struck me as {-adj}",
        "I do not think, {hedge}, that I would call {it} {-adj}",
    ],
    "affirmation": [
        "nobody, {hedge}, could deny that I found {it} {+adj}",
        "I will not deny, {hedge}, that I {+verb} {it}",
        "never in {span} did I doubt that I would call {it} {+noun}",
        "it would be a lie, {hedge}, to deny that {it} struck me as {+adj}",
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
        'according to {person}, "{it} seemed to me {+noun}"',
        '{person} told me: "I {+verb} {it}"',
        "{person} said: {+claim}",
        '"I found {it} {+adj}," said {person}',
    ],
    # small parts
    "it": ["this {thing}", "the {thing}", "{name}"],
    "own": ["for my own part,", "to my mind,", "as for me,", "speaking for myself,", "in my own view,"],
    "still": ["all the same", "even so", "nevertheless", "for all that"],
    "early": ["at first", "to begin with", "in the beginning", "on the first day", "early on"],
    "midway": ["halfway through", "after a while", "a little later", "the next day"],
    "late": ["in the end", "now that it is over", "looking back", "by the time I was done", "today"],
    "span": _listed("{number} days | {number} hours | all that time | those {number} evenings"),
    "hedge": _listed("to be fair | if I am honest | in all seriousness | I have to say | when all is counted"),
    "number": _listed("two | three | four | five | six | seven | eight | nine | ten | twelve"),
    "weekday": _listed("Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday"),
    "month": _listed("January | March | April | May | July | August | October | November"),
    "city": _listed("Lisbon | Leeds | Oslo | Chicago | Porto | Dublin | Vienna | Boston"),
    "first": _listed("Anna | Peter | Maria | Tom | Helen | Jack | Laura | Simon | Nadia | Oscar"),
    "last": _listed("Miller | Costa | Brown | Novak | Rossi | Larsen | Grant | Weber | Silva | Moore"),
    "person": _listed(
        "my brother | my sister | my neighbour | a friend of mine | the man behind me | my old teacher | {first}"
        " | the paper | my cousin {first} | a colleague | our guide | my aunt {first} | one critic | the woman next to us"
    ),
    "colour": _listed("Red | Silver | Glass | Blue | Wooden | Golden | Quiet | Hidden"),
    "object": _listed("Orchard | Lantern | River | Garden | Window | Harbour | Station | Bridge"),
    # what stands around
    "opening": [
        "I came to {it} on a {weekday} in {month}.",
        "{person} gave me {it} for my birthday.",
        "some words about {it}, by {maker}.",
        "everyone in {city} seems to talk about {it}.",
        "{number} of us tried {it} last {month}.",
        "we had heard of {it} from {person}.",
        "this is about {name}, the new {thing} by {maker}.",
    ],
    "aside": ["{fact}.", "{fact}.", "{detail}.", "{detail}.", "{?hearsay}.", "{?rival}."],
    "rival": [
        "I {+verb} the last {thing} by {maker}",
        "I found the other {thing} by {first} {last} {+adj}",
        "last {month} we tried another {thing}, and I would call that one {+noun}",
        "the {thing} before that struck me as {+adj}",
    ],
    "fact": [
        "it was not raining that {weekday}, but we took a taxi",
        "I never found out who {first} {last} is",
        "{person} came along and paid for both of us",
        "I wrote this on the train to {city}",
        "we talked about other things over coffee",
        "it was {month}, and the evenings were long",
        "although it was late, there were {number} other people",
        "I had read about it in a paper from {city}",
        "{first} asked {number} questions on the way home",
        "there was a queue, though not for long",
        "I am {number} years older than {person}",
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
        "{early}, I told {person}, {-claim}. ~ {late}, I tell {person}, {+verdict}.",
        "{early} and {midway} {-claim}. ~ but {late} {+verdict}.",
    ],
    "quotation": [
        "{-hearsay}; {-hearsay}. ~ let them talk: {own} {+verdict}.",
        "{own} {+verdict}, though {-hearsay}. ~",
    ],
    "expectation": ["{person} and I had expected {-noun}. ~ what we got, {hedge}, was {+noun}."],
    "span": _listed("that whole fortnight | {number} long winters"),
    "hedge": _listed("between ourselves | on balance | cards on the table"),
    "number": _listed("eleven | thirteen | forty"),
    "month": _listed("February | June | September | December"),
    "city": _listed("Kraków | Naples | Toronto | Zürich"),
    "first": _listed("Ingrid | Rafael | Yusuf | Beatrix | Chloé"),
    "last": _listed("Okafor | Lindqvist | Tanaka | Dvořák | Whitcombe"),
    "person": _listed("my dentist | the twins upstairs | a retired pilot | my godmother {first} | the night porter"),
    "colour": _listed("Crimson | Velvet | Frozen | Copper"),
    "object": _listed("Meridian | Sparrow | Citadel | Compass"),
    "opening": [
        "chance, a wet {weekday} and {person} led us to {it}.",
        "dear readers of {city}, today's subject is {it}.",
        "{maker} needs no introduction, so let us turn to {it}.",
    ],
    "rival": [
        "compare the {thing} that {first} {last} launched in {month}: I found that one {+adj}",
        "by contrast, {number} years ago {maker} gave us a {thing} which I {+verb}",
    ],
    "fact": [
        "outside, a brass band rehearsed until midnight",
        "my umbrella is still in {city}",
        "{person} collects stamps and hardly noticed",
        "the tram broke down twice, but nobody complained",
    ],
}

DOMAINS: dict[str, Grammar] = {
    "film": {
        "thing": _listed("film | movie | picture"),
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
        "thing": _listed("book | novel"),
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
        "thing": _listed("restaurant | place | bistro"),
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
        "thing": _listed("camera | phone | radio"),
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
for _domain in DOMAINS.values():
    _domain["name"] = ["The {colour} {object}"]
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
