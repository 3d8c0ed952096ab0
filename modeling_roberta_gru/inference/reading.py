# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""What a classifier said while it read a text: its scores after every token, where they turned, and how that looks.

    read(model, tokenizer, text)    what the scores were when the model had read so far: a [`Trace`]
    turns(trace)                    where the prediction turned
    html(trace, attribution)        curve, turns, and the text coloured, by reading.html

This file stands alone: on numpy, on torch where a text is read, and on jinja2 where something is drawn. The package
uses it, and so do model_card/handler.py and model_card/space/app.py; a copy lies beside each where it is published.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
SURE = 0.2
"""A prediction counts, and can turn, where it leads by this much: what wavers about a draw turns nowhere."""
LARGEST_GAP = 0.05
"""Attributions may miss this share of what they amount to."""
MOST_TURNS = 12
MOST_WORDS = 6
EXCERPT_WIDTH = 45
LONGEST_NAME = 18
WHITESPACE = re.compile(r"\s+")
PIECE, TOKENS_AT_A_CUT = 4096, 8
"""Characters of a piece whose tokens are counted; and tokens that a cut through a word, and special tokens, add."""

BLUE, ORANGE, GREEN, PURPLE = COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
"""Of the labels that are drawn, those with the highest scores first. Okabe and Ito's: colour-blind readers tell them
apart."""
GREY = "#6b6b6b"
"""For labels that have no colour of their own."""
NUM_LEVELS = 5
STRONGEST = 0.55
"""Opacity of the strongest colour behind text, which stays readable on it, in light and in dark."""
MOST_POINTS = 2000
"""A curve of more tokens is drawn through its lowest and highest points."""
MOST_TICKS = 8

# Control characters but tab and line breaks, and what turns the direction of the text around it, as one symbol each.
SYMBOLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}
SYMBOLS |= dict.fromkeys((*range(0x80, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)


@dataclass(frozen=True)
class Trace:
    """A text as the model reads it, and its scores after every token.

    Attributes:
        text: the text.
        tokens: its n tokens as a person reads them: what stands in the text, or a special token's name. The tokens
            that one character is made of are that character each.
        offsets: where in the text each token begins and ends, in characters; empty for the special tokens around it.
        words: `(n,)` int64, the number of the word that each token belongs to, as the tokenizer splits words.
        scores: `(n, C)` float64, after every token: probabilities by softmax for one label a text, by sigmoid for
            several, the targets themselves for a regression.
        labels: the C labels or targets.
        problem_type: as in transformers.
    """

    text: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    words: np.ndarray
    scores: np.ndarray
    labels: list[str]
    problem_type: str

    @property
    def leading(self) -> str:
        """The label with the highest score in the end."""
        return self.labels[int(self.scores[-1].argmax())]

    @property
    def ends(self) -> np.ndarray:
        """The position of each word's last token."""
        return np.flatnonzero(np.diff(self.words, append=-1))

    def word_at(self, position: int) -> tuple[int, int]:
        """Return where in the text the word of a token begins and ends, in characters."""
        first, after = (int(np.searchsorted(self.words, self.words[position], side)) for side in ("left", "right"))
        start, end = self.offsets[first][0], self.offsets[after - 1][1]
        if first and not end and not any(end for _, end in self.offsets[after:]):  # a special token at the end
            start = end = len(self.text)
        return start, end

    def written(self, score: float) -> str:
        """Write a score as people read it."""
        return f"{score:.4g}" if self.problem_type == REGRESSION else f"{score:.2f}"

    def _repr_html_(self) -> str:
        """Show itself in a notebook."""
        return f"<style>{style()}</style>{html(self)}"

    def written_move(self, turn: "Turn") -> str:
        return f"{self.written(turn.before)} → {self.written(turn.after)}"


@dataclass(frozen=True)
class Turn:
    """A place where a score moved.

    Attributes:
        position: the token after which it had; the last one of a word.
        label: whose score it is.
        before, after: the score before and after.
    """

    position: int
    label: str
    before: float
    after: float


@dataclass(frozen=True)
class Attribution:
    """How much each token of a text speaks for a label.

    Attributes:
        label: the label.
        values: `(n,)` float64, one a token, in `unit`; with steps enough they add up to `output` - `baseline`.
        output: what the model says of the text.
        baseline: what it says of the same text with every token but the first and last one masked.
        unit: "log-odds", or "target" for a regression.
        num_steps: steps of the integral.
    """

    label: str
    values: np.ndarray
    output: float
    baseline: float
    unit: str
    num_steps: int

    def written(self, value: float) -> str:
        """Write a value as people read it, with its sign."""
        return f"{value:+.2f}" if self.unit == "log-odds" else f"{value:+.3g}"

    @property
    def gap(self) -> float:
        """What the attributions miss of the difference between text and baseline."""
        return self.output - self.baseline - float(self.values.sum())

    @property
    def warning(self) -> str | None:
        """Say so if the gap is large."""
        if abs(self.gap) <= LARGEST_GAP * float(np.abs(self.values).sum()):
            return None
        return (
            f"The attributions add up to {self.written(self.values.sum())} {self.unit} instead of "
            f"{self.written(self.output - self.baseline)}: {self.num_steps} steps are too few. Take twice as many."
        )


def read(model: Any, tokenizer: Any, text: str, problem_type: str | None = None, encoding: Any = None) -> Trace:
    """Follow a RoBERTa-GRU classifier through a text, in bounded memory.

    The last scores are what the model says of the text. The encoder looks ahead as far as a token's window goes, and
    a right-to-left GRU has read the whole text before.

    Args:
        model: in evaluation mode, with `running_logits`.
        tokenizer: its fast tokenizer. It is called without cut and padding, which fast tokenizers keep as settings:
            threads may share one that is never called otherwise.
        text: of any length.
        problem_type: as in transformers; unset: the model's own.
        encoding: of the text, with `offset_mapping`, if it is there already.
    """
    import torch

    if encoding is None:
        encoding = tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
    config = model.config
    problem_type = problem_type or config.problem_type or (REGRESSION if config.num_labels == 1 else SINGLE_LABEL)
    with torch.inference_mode():
        logits = model.running_logits(torch.tensor([encoding["input_ids"]], device=model.device))[0]
    word_ids = encoding.word_ids()
    begins = [one is None or one != other for one, other in zip(word_ids, [None, *word_ids], strict=False)]
    return Trace(
        text=text,
        # A token without characters of its own is a special one, or a space that its offsets leave out.
        tokens=[
            text[start:end] or tokenizer.convert_tokens_to_string([token])
            for token, (start, end) in zip(encoding.tokens(), encoding["offset_mapping"], strict=True)
        ],
        offsets=[tuple(offsets) for offsets in encoding["offset_mapping"]],
        words=np.cumsum(begins) - 1,
        scores=to_scores(logits.cpu().double().numpy(), problem_type),
        labels=[str(config.id2label[index]) for index in range(config.num_labels)],
        problem_type=problem_type,
    )


def to_scores(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """Turn logits (…, C) into float64 probabilities, by softmax or, for several labels, sigmoid."""
    logits = logits.astype(np.float64)
    if problem_type == REGRESSION:
        return logits
    if problem_type == MULTI_LABEL:
        return (1 + np.tanh(logits / 2)) / 2  # where exp() could overflow
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def has_more_tokens(tokenizer: Any, text: str, most: int) -> bool:
    """Tell whether a text clearly has more tokens than `most`, without tokenising more of it than that takes."""
    num_tokens = 0
    for start in range(0, len(text), PIECE):
        ids = tokenizer(text[start : start + PIECE], truncation=False, verbose=False)["input_ids"]
        num_tokens += len(ids) - TOKENS_AT_A_CUT
        if num_tokens > most:
            return True
    return False


class TimeLimit:
    """Ends what takes too long: looks at the clock whenever a model's encoder begins a passage.

    Every thread has its own time.
    """

    def __init__(self, model: Any):
        self._mine = threading.local()
        self._hook = model.base_model.register_forward_pre_hook(lambda *_: self._look())

    def close(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    @contextmanager
    def seconds(self, most: float) -> Iterator[None]:
        """Raise TimeoutError where the block takes longer."""
        self._mine.end = time.monotonic() + most
        try:
            yield
        finally:
            self._mine.end = None

    def _look(self) -> None:
        end = getattr(self._mine, "end", None)
        if end is not None and time.monotonic() > end:
            raise TimeoutError


def last_word(text: str) -> str:
    """Return what follows a text's last white space: a word that may go on, so that a reader reads it again."""
    return text[1 + max(map(text.rfind, " \n\t\r")) :]


def turns(trace: Trace) -> list[Turn]:
    """Find where the prediction turned, in reading order.

    For one label a text: where another label took the lead, for good enough that it came to lead by [`SURE`]. For
    several: where a label's probability crossed a half, by half of [`SURE`] either way. A turn's `before` is the
    label's furthest score since the turn before it, `after` its furthest until the next. A regression has none.
    """
    ends = trace.ends
    scores = trace.scores[ends]
    if trace.problem_type == REGRESSION or (trace.problem_type == SINGLE_LABEL and scores.shape[1] < 2):
        return []
    found: list[Turn] = []
    if trace.problem_type == SINGLE_LABEL:
        second, first = np.partition(scores, -2, axis=1)[:, -2:].T
        tracks = [(scores.argmax(axis=1), first - second)]
    else:
        tracks = [(score >= 0.5, abs(2 * score - 1)) for score in scores.T]
    for label, (predictions, lead) in enumerate(tracks):
        starts = [0, *_changes(predictions, lead >= SURE), len(ends)]
        for begin, word, end in zip(starts, starts[1:], starts[2:], strict=False):
            of = label if trace.problem_type == MULTI_LABEL else int(predictions[word])
            rises = trace.problem_type == SINGLE_LABEL or predictions[word]
            before, after = scores[begin:word, of], scores[word:end, of]
            sides = (before.min(), after.max()) if rises else (before.max(), after.min())
            found.append(Turn(int(ends[word]), trace.labels[of], *map(float, sides)))
    return sorted(found, key=lambda turn: turn.position)


def jumps(trace: Trace, label: str, most: int = 3) -> list[Turn]:
    """Return the words that moved a label's score most, in reading order."""
    scores = trace.scores[trace.ends, trace.labels.index(label)]
    steps = np.diff(scores)
    largest = sorted((-abs(steps)).argsort(kind="stable")[:most])
    return [Turn(int(trace.ends[w + 1]), label, float(scores[w]), float(scores[w + 1])) for w in largest if steps[w]]


def landmarks(trace: Trace, label: str, most: int = MOST_TURNS) -> tuple[str, list[Turn]]:
    """Say where to look, and return these places: the largest turns, or jumps where the prediction never turned."""
    found = turns(trace)
    if not found:
        never = "" if trace.problem_type == REGRESSION else "The prediction never turned. "
        return f"{never}Where {label} moved most:", jumps(trace, label)
    largest = sorted(found, key=lambda turn: -abs(turn.after - turn.before))[:most]
    times = {1: "once", 2: "twice"}.get(len(found), f"{len(found):,} times")
    shown = f"; the {most} largest turns" if len(found) > most else ""
    return f"The prediction turned {times}{shown}:", sorted(largest, key=lambda turn: turn.position)


def prediction(trace: Trace) -> str:
    """Say what the model says in the end: "positive 0.97"."""
    scores = trace.scores[-1]
    said = [f"{label} {trace.written(score)}" for label, score in zip(trace.labels, scores, strict=True)]
    if trace.problem_type == REGRESSION:
        return ", ".join(said)
    highest = said[int(scores.argmax())]
    if trace.problem_type == SINGLE_LABEL:
        return highest
    return ", ".join(said[index] for index in np.flatnonzero(scores >= 0.5)) or f"no label (the nearest: {highest})"


def influential_words(
    trace: Trace, attribution: Attribution, most: int = MOST_WORDS
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Return the words that speak most for the label, and those most against it: last token and attribution each."""
    values = word_values(trace, attribution)
    order = values.argsort(kind="stable")
    pro, contra = (
        [(int(trace.ends[word]), float(values[word])) for word in side[:most]] for side in (order[::-1], order)
    )
    return [(at, value) for at, value in pro if value > 0], [(at, value) for at, value in contra if value < 0]


def word_values(trace: Trace, attribution: Attribution) -> np.ndarray:
    """Add up the attributions of each word's tokens: `(number of words,)`."""
    return np.bincount(trace.words, weights=attribution.values)


def excerpt(trace: Trace, position: int, width: int = EXCERPT_WIDTH) -> tuple[str, str, str]:
    """Return what stands before the word of a token, that word, and what stands after it, in one line."""
    start, end = trace.word_at(position)
    before, word, after = (
        WHITESPACE.sub(" ", part)
        for part in (trace.text[:start][-width:], trace.text[start:end], trace.text[end:][:width])
    )
    if start > width:
        before = "…" + (before.partition(" ")[2] or before)
    if end + width < len(trace.text):
        after = (after.rpartition(" ")[0] or after) + "…"
    word = word if len(word) <= width else word[:width] + "…"
    return before.lstrip(), word.strip() or trace.tokens[position].strip() or "⏎", after.rstrip()


def influence_heading(attribution: Attribution) -> str:
    return f"Most influential words, for (+) and against (-) {attribution.label}, in {attribution.unit}:"


def completeness(attribution: Attribution) -> str:
    """Say what all attributions add up to, and whether that is what they should."""
    total, baseline, output = map(
        attribution.written, (attribution.values.sum(), attribution.baseline, attribution.output)
    )
    return attribution.warning or (
        f"All tokens add up to {total}: from {baseline} for a text of masked words to {output} (missed by "
        f"{abs(attribution.gap):.2g} in {attribution.num_steps} steps)."
    )


def _changes(predictions: np.ndarray, is_sure: np.ndarray) -> list[int]:
    """Return where each sure prediction that differs from the sure one before it began."""
    sure = np.flatnonzero(is_sure)
    changed = np.flatnonzero(predictions[sure][1:] != predictions[sure][:-1])
    return [
        int(one + 1 + np.flatnonzero(predictions[one : other + 1] != predictions[other])[-1])
        for one, other in zip(sure[changed], sure[changed + 1], strict=True)
    ]


def visible(text: object) -> str:
    """Return a text with symbols in the place of control characters, and of those that turn the text's direction."""
    return str(text).translate(SYMBOLS)


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def is_binary(trace: Trace) -> bool:
    """Tell whether one label's score tells the other's."""
    return trace.problem_type == SINGLE_LABEL and len(trace.labels) == 2


def label_colours(trace: Trace) -> dict[int, str]:
    """Choose the labels that have a colour: index → colour, in the order of the legend."""
    if is_binary(trace):
        return {1: BLUE, 0: ORANGE}
    highest = (-trace.scores.max(axis=0)).argsort(kind="stable")
    return {int(label): colour for label, colour in zip(highest, COLOURS, strict=False)}


def sides(trace: Trace, attribution: Attribution) -> tuple[str, str]:
    """Return the colours of what speaks for the label and against it."""
    is_first_of_two = is_binary(trace) and attribution.label == trace.labels[0]
    return (ORANGE, BLUE) if is_first_of_two else (BLUE, ORANGE)


def drawn_positions(scores: np.ndarray) -> np.ndarray:
    """Choose the tokens (≤ MOST_POINTS) that a curve is drawn through."""
    if len(scores) <= MOST_POINTS:
        return np.arange(len(scores))
    stretches = np.array_split(np.arange(len(scores)), MOST_POINTS // 2 - 1)
    extremes = [stretch[extreme(scores[stretch])] for stretch in stretches for extreme in (np.argmin, np.argmax)]
    return np.unique([0, *extremes, len(scores) - 1])


def curve_name(trace: Trace) -> str:
    if is_binary(trace):
        return f"probability of {shortened(trace.labels[1])}"
    return "predicted" if trace.problem_type == REGRESSION else "probability"


def curve_score(trace: Trace, turn: Turn) -> float:
    """Return the height of the curve that shows a turn."""
    return float(trace.scores[turn.position, 1 if is_binary(trace) else trace.labels.index(turn.label)])


def html(
    trace: Trace, attribution: Attribution | None = None, label: str | None = None, whole_page: bool = False
) -> str:
    """Show a trace: prediction, curve, turns, and the text coloured by score and by attribution.

    It loads nothing, runs no script, follows the reader's light or dark mode, and gives the number behind every
    colour on hovering. Neighbours of equal colour and number share a span, so that long texts stay light.

    Args:
        trace: what was read.
        attribution: of the same text, if it was attributed.
        label: whose moves to show where the prediction never turned, and, where several labels can hold, whose score
            colours the text; unset: the attribution's, or the leading one.
        whole_page: whether to write a page; else what one can hold, without its [`style`].
    """
    followed = label or (trace.leading if attribution is None else attribution.label)
    heading, places = landmarks(trace, followed)
    pieces = _pieces(trace)
    places = places if pieces else []  # a text that leaves no token has none to point at
    view = {
        "id": "reading" if whole_page else f"reading-{uuid4().hex[:8]}",  # a notebook may hold several
        "title": f"{prediction(trace)} after {len(trace.tokens):,} tokens",
        "prediction": prediction(trace),
        "curve": _curve(trace, places),
        "heading": heading,
        "turns": [_turn_row(trace, turn) for turn in places],
        "running": {
            "legend": _score_legend(trace, followed),
            "spans": _spans(trace, _score_cells(trace, followed), _anchors(trace, places) if places else {}),
            "rest": trace.text[pieces[-1][1] if pieces else 0 :],
        },
        "attribution": attribution and _attribution_view(trace, attribution),
    }
    template = _template()
    return str(template.page(view) if whole_page else template.fragment(view)).strip()


def style() -> str:
    """Return the style sheet of [`html`]."""
    return str(_template().style())


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["shown"] = visible
    colours = [
        (f"h{hue}{level}", f"{colour}{round(255 * STRONGEST * level / NUM_LEVELS):02x}")
        for hue, colour in enumerate([*COLOURS, GREY])
        for level in range(1, NUM_LEVELS + 1)
    ]
    environment.globals["colours"] = colours
    source = Path(__file__).with_name("reading.html").read_text(encoding="utf-8")
    return environment.from_string(source).module


class Cell(NamedTuple):
    """A piece of the text and how it is coloured."""

    start: int
    end: int
    position: int  # the token after which all of it is read
    colour: str  # CSS class
    said: str  # on hovering


def _pieces(trace: Trace) -> list[tuple[int, int, int]]:
    """Cut the text at the ends of its tokens: start, end, and the token after which all of it is read."""
    ends = {end: position for position, (start, end) in enumerate(trace.offsets) if end > start}
    return [(start, end, ends[end]) for start, end in pairwise([0, *sorted(ends)])]


def _score_cells(trace: Trace, followed: str) -> list[Cell]:
    """Colour by the label that leads; by whether `followed` holds, where several can; by the target's height."""
    label = trace.labels.index(followed)
    if trace.problem_type == SINGLE_LABEL:
        chosen, colours = trace.scores.argmax(axis=1), label_colours(trace)
        second, first = np.partition(trace.scores, -2, axis=1)[:, -2:].T
        lead, hues = first - second, [colours.get(int(index), GREY) for index in chosen]
        said = [f"{trace.labels[index]} {trace.written(score)}" for index, score in zip(chosen, first, strict=True)]
    else:
        middle, half = _range(trace, label)
        scores = trace.scores[:, label]
        lead, hues = abs(scores - middle) / half, [BLUE if score >= middle else ORANGE for score in scores]
        said = [f"{followed} {trace.written(score)}" for score in scores]
    return [Cell(*piece, _css_class(hues[piece[2]], lead[piece[2]]), said[piece[2]]) for piece in _pieces(trace)]


def _attribution_cells(trace: Trace, attribution: Attribution) -> list[Cell]:
    values = word_values(trace, attribution)[trace.words]  # each token's word's
    strengths = abs(values) / max(abs(values).max(), np.finfo(float).tiny)
    hues = [sides(trace, attribution)[int(value < 0)] for value in values]
    return [
        Cell(*piece, _css_class(hues[piece[2]], strengths[piece[2]]), attribution.written(values[piece[2]]))
        for piece in _pieces(trace)
    ]


def _range(trace: Trace, label: int) -> tuple[float, float]:
    """Return the middle of the colours' scale and half its width."""
    if trace.problem_type == MULTI_LABEL:
        return 0.5, 0.5
    low, high = trace.scores[:, label].min(), trace.scores[:, label].max()
    return float(low + high) / 2, max(float(high - low) / 2, np.finfo(float).tiny)


def _css_class(colour: str, strength: float) -> str:
    return f"h{[*COLOURS, GREY].index(colour)}{round(strength * NUM_LEVELS)}"


def _anchors(trace: Trace, places: list[Turn]) -> dict[int, list[int]]:
    """Return which turns, counted from 1, are to be found where in the text: at the first piece of their words."""
    pieces = _pieces(trace)
    starts = [start for start, _, _ in pieces]
    found = np.searchsorted(starts, [trace.word_at(turn.position)[0] for turn in places], side="right") - 1
    anchors: dict[int, list[int]] = {}
    for number, place in enumerate(found, 1):
        anchors.setdefault(pieces[place][2], []).append(number)
    return anchors


def _spans(trace: Trace, cells: list[Cell], anchors: dict[int, list[int]]) -> Iterator[dict[str, Any]]:
    """Yield the text in coloured spans, every character once; what follows the last token is left."""
    for (colour, said, numbers), run in groupby(
        cells, lambda cell: (cell.colour, cell.said, anchors.get(cell.position, []))
    ):
        first, *_, last = [*run] * 2
        tokens = f"token {last.position:,}"
        if last is not first:
            tokens = f"tokens {first.position:,} to {last.position:,}"
        text = trace.text[first.start : last.end]
        yield {"css": colour, "turns": numbers, "said": f"{said} ({tokens})", "text": text}


def _key(colour: str, name: str) -> dict[str, str]:
    return {"css": _css_class(colour, 1.0), "name": name}


def _score_legend(trace: Trace, followed: str) -> dict[str, Any]:
    if trace.problem_type == SINGLE_LABEL:
        keys = [_key(colour, trace.labels[label]) for label, colour in label_colours(trace).items()]
        if len(trace.labels) > len(keys):
            keys.append(_key(GREY, "another label"))
        before = "Which label led when the model had read up to that point:"
        return {
            "before": before,
            "keys": keys,
            "between": "",
            "after": "The stronger the colour, the larger the lead.",
        }
    middle, half = _range(trace, trace.labels.index(followed))
    low, none, high = (trace.written(score) for score in (middle - half, middle, middle + half))
    before, after = f"{followed} when the model had read up to that point:", f"no colour at {none}."
    return {"before": before, "keys": [_key(ORANGE, low), _key(BLUE, high)], "between": "to", "after": after}


def _attribution_view(trace: Trace, attribution: Attribution) -> dict[str, Any]:
    pro, contra = sides(trace, attribution)
    strongest = abs(word_values(trace, attribution)).max()
    words = (
        [(f"token {at:,}", attribution.written(value), excerpt(trace, at)[1]) for at, value in side]
        for side in influential_words(trace, attribution)
    )
    return {
        "heading": influence_heading(attribution),
        "words": [left + right for left, right in zip_longest(*words, fillvalue=("", "", ""))],
        "completeness": completeness(attribution),
        "legend": {
            "before": "What a word contributes:",
            "keys": [_key(pro, f"for {attribution.label}"), _key(contra, "against it")],
            "between": "",
            "after": f"Full colour: {strongest:.2g} {attribution.unit}.",
        },
        "spans": _spans(trace, _attribution_cells(trace, attribution), {}),
        "rest": trace.text[_pieces(trace)[-1][1] if _pieces(trace) else 0 :],
    }


def _turn_row(trace: Trace, turn: Turn) -> dict[str, Any]:
    before, word, after = excerpt(trace, turn.position)
    row = {"token": f"token {turn.position:,}", "label": turn.label, "moved": trace.written_move(turn)}
    return row | {"before": before, "word": word, "after": after}


def _curve(trace: Trace, places: list[Turn]) -> dict[str, Any]:
    """Lay out the scores after every token: x in thousandths, y in hundredths from the top."""
    last = max(len(trace.tokens) - 1, 1)
    low, high = 0.0, 1.0
    if trace.problem_type == REGRESSION:
        low, high = float(trace.scores.min()), float(trace.scores.max())
    scale = (high - low) or 1.0

    def place(position: float, score: float) -> tuple[float, float]:
        return 1000 * position / last, 100 * (high - score) / scale

    def points(label: int, top: float = 0.0, bottom: float = 100.0) -> str:
        places = (place(at, trace.scores[at, label]) for at in drawn_positions(trace.scores[:, label]))
        return " ".join(f"{x:.1f},{min(max(y, top), bottom):.1f}" for x, y in places)

    colours = label_colours(trace)
    ended = ", ".join(
        f"{label} {trace.written(score)}" for label, score in zip(trace.labels, trace.scores[-1], strict=True)
    )
    marks = []
    for turn in places:
        x, y = place(turn.position, curve_score(trace, turn))
        said = f"{turn.label} {trace.written_move(turn)}: {excerpt(trace, turn.position)[1]}"
        marks.append({"left": f"{x / 10:.2f}", "top": f"{y:.1f}", "said": said})
    two_sided = is_binary(trace)
    upper, lower = (1, 0, 50), (0, 50, 100)  # of two labels: whose side, and between which heights
    return {
        "name": curve_name(trace),
        "keys": [_key(colour, trace.labels[label]) for label, colour in colours.items()],
        "said": f"Curve of the scores while reading; in the end {ended}",
        "scale": [trace.written(score) for score in (high, (low + high) / 2, low)],
        "areas": [(points(1, *half), colours[side]) for side, *half in (upper, lower) if two_sided],
        "lines": [(points(1), None)] if two_sided else [(points(label), colour) for label, colour in colours.items()],
        "marks": marks,
        "ticks": [(f"{100 * tick / last:.2f}", f"{tick:,}") for tick in _ticks(last)],
    }


def _ticks(last: int) -> range:
    """Return round numbers from 0 to `last`."""
    step = next(one * 10**power for power in range(20) for one in (1, 2, 5) if last <= MOST_TICKS * one * 10**power)
    return range(0, last + 1, step)
