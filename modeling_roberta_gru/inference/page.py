"""Draw an explanation: the curve as a picture, and the coloured text as one page that needs nothing beside itself.

Two colours run against each other where there are two sides, blue and orange; a colour is as strong as its side leads.
The text stays readable on every one of them, in light and in dark.
"""

import os
from collections.abc import Iterable
from html import escape
from itertools import groupby, pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator

from ..data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSpace
from ..errors import InputError
from ..files import check_writable, write_text
from ..training.loading import load_classifier
from ..training.plots import BLUE, GREEN, GREY, ORANGE, save, shortened, tidy
from .explanation import (
    NUM_STEPS,
    Attribution,
    Trace,
    Turn,
    attribute,
    check_captum,
    completeness,
    excerpt,
    label_index,
    landmarks,
    telling_words,
    trace,
    verdict,
    word_values,
)

PURPLE = "#CC79A7"
COLOURS = [BLUE, ORANGE, GREEN, PURPLE]
"""Of the labels that are drawn, those with the highest scores first."""
NUM_LEVELS = 5
STRONGEST = 0.55
"""Opacity of the strongest colour behind text."""
MOST_POINTS = 2000
"""A curve of more tokens is drawn through its lowest and highest points."""
MOST_BARS = 1000
MOST_NOTES = 6
NUM_NOTE_LINES = 3

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #16181c; --faint: #666666; --line: #dddddd; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181c; --text: #ffffff; --faint: #a4a8ae; --line: #3a3e45; }
}
body { background: var(--page); color: var(--text); font: 16px/1.7 system-ui, sans-serif; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
.note { color: var(--faint); font-size: .85rem; }
table { border-collapse: collapse; font-size: .9rem; }
td { padding: .1rem .9rem .1rem 0; vertical-align: top; font-variant-numeric: tabular-nums; }
td:not(:last-child) { white-space: nowrap; }
a { color: inherit; } svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--faint); } svg line { stroke: var(--line); }
svg polyline { fill: none; stroke: var(--text); stroke-width: 1.3; } svg polygon { fill-opacity: .55; }
svg circle { fill: var(--page); stroke: var(--text); stroke-width: 1.3; }
svg a text { fill: var(--text); font-size: 11px; text-anchor: middle; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; border-top: 1px solid var(--line); padding-top: 1rem; }
.text span { border-radius: 2px; } .text :target + span, .text :target + a + span { outline: 3px solid var(--text); }
.text [data-turn]::before { content: " ▸" attr(data-turn); font-size: .8em; font-weight: bold; }
.key { display: inline-block; padding: 0 .5rem; font-size: .85rem; color: var(--text); }
label { margin-right: 1.2rem; }
#by-attribution:checked ~ .running, #by-score:checked ~ .attribution { display: none; }
"""
VIEWS = """
<input type="radio" name="view" id="by-score" checked><label for="by-score"> by the verdict so far</label>
<input type="radio" name="view" id="by-attribution"><label for="by-attribution"> by attribution</label>
"""


class Cell(NamedTuple):
    """A piece of the text and how it is coloured."""

    start: int
    end: int
    position: int  # the token after which all of it is read
    colour: str  # CSS class
    said: str  # on hovering


def explain_model(
    name: str,
    text: str,
    output_dir: Path,
    label: str | None = None,
    num_steps: int | None = NUM_STEPS,
) -> tuple[Trace, Attribution | None, list[Path]]:
    """Explain what a saved model says of a text, and leave picture and page in a folder.

    Args:
        name: a run's folder, a saved model's folder or a Hub id.
        text: text of any length.
        output_dir: the folder; made if need be. Earlier explanations there are replaced, other files kept.
        label: the label in question; unset: the one with the highest score.
        num_steps: steps of the attributions' integral; None: no attributions.

    Returns:
        Trace, attribution if asked for, and the files written.

    Raises:
        InputError: if anything given is not usable; nothing is written then.
    """
    if num_steps is not None:
        check_captum()
    check_writable("--output-dir", output_dir)
    model, tokenizer = load_classifier(name)
    if not hasattr(model, "running_logits"):
        raise InputError(f"{name} is a {model.config.model_type}: only a RoBERTa-GRU says what it thought on the way.")
    if label is not None:
        label_index(LabelSpace.from_config(model.config).names, label)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    traced = trace(model, tokenizer, text)
    attribution = None if num_steps is None else attribute(model, tokenizer, text, label, num_steps)
    picture, page = output_dir / "explanation.png", output_dir / "explanation.html"
    draw_trace(traced, attribution, picture, label)
    write_page(traced, attribution, page, label)
    return traced, attribution, [picture, page]


def draw_trace(
    trace: Trace, attribution: Attribution | None, path: str | os.PathLike[str], label: str | None = None
) -> None:
    """Draw the scores after every token, the words at which the verdict turned, and the attributions below.

    Args:
        trace: what `explanation.trace` returned.
        attribution: what `explanation.attribute` returned, or None.
        path: the PNG file to write.
        label: whose moves to show where the verdict never turned; unset: the attribution's, or the leading one.
    """
    figure = Figure(figsize=(9, 3.8 if attribution is None else 6), layout="constrained")
    panels = [figure.subplots()] if attribution is None else figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for axes in panels:
        tidy(axes)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-0.01 * len(trace.tokens), 1.01 * (len(trace.tokens) - 1))
    _draw_scores(panels[0], trace, _followed(trace, attribution, label))
    if attribution is not None:
        _draw_attribution(panels[1], trace, attribution)
    panels[-1].set_xlabel("token")
    panels[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    title = f"{verdict(trace)} after {len(trace.tokens):,} tokens"
    figure.suptitle(title.replace("$", r"\$"), fontsize=11)
    save(figure, path)


def write_page(
    trace: Trace, attribution: Attribution | None, path: str | os.PathLike[str], label: str | None = None
) -> None:
    """Write one HTML page: verdict, curve, turns, and the text coloured by score and by attribution.

    It loads nothing, runs no script, follows the reader's light or dark mode, and gives the number behind every
    colour on hovering. Neighbours of equal colour and number share a span, so that long texts stay light.

    Args:
        trace, attribution, label: as for [`draw_trace`]. Where several labels can hold, `label` colours the text.
        path: the HTML file to write.
    """
    followed = _followed(trace, attribution, label)
    heading, turns = landmarks(trace, followed)
    title = escape(f"{verdict(trace)} after {len(trace.tokens):,} tokens")
    body = [f"<h1>{title}</h1>", _curve(trace, turns), f"<h2>{escape(heading)}</h2>", _turn_table(trace, turns)]
    if attribution is not None:
        told = f"What told most for (+) and against (-) {attribution.label}, in {attribution.unit}:"
        body += [f"<h2>{escape(told)}</h2>", _word_table(trace, attribution)]
        body.append(f'<p class="note">{escape(completeness(attribution))}</p>')
    body.append("<h2>The text, coloured</h2>")
    text = _spans(trace, _score_cells(trace, followed), _anchors(trace, turns))
    views = [_view("running", _score_legend(trace, followed), text)]
    if attribution is not None:
        text = _spans(trace, _attribution_cells(trace, attribution))
        views = [VIEWS, *views, _view("attribution", _attribution_legend(trace, attribution), text)]
    write_text(path, _page(title, "\n".join(body + views)))


def _followed(trace: Trace, attribution: Attribution | None, label: str | None) -> str:
    return label or (trace.leading if attribution is None else attribution.label)


def _is_binary(trace: Trace) -> bool:
    return trace.problem_type == SINGLE_LABEL and len(trace.labels) == 2


def _label_colours(trace: Trace) -> dict[int, str]:
    """Choose the labels that have a colour: index → colour, in the order of the legend."""
    if _is_binary(trace):
        return {1: BLUE, 0: ORANGE}
    highest = (-trace.scores.max(axis=0)).argsort(kind="stable")
    return {int(label): colour for label, colour in zip(highest, COLOURS, strict=False)}


def _sides(trace: Trace, attribution: Attribution) -> tuple[str, str]:
    """Return the colours of what speaks for the label and against it."""
    is_first_of_two = _is_binary(trace) and attribution.label == trace.labels[0]
    return (ORANGE, BLUE) if is_first_of_two else (BLUE, ORANGE)


def _drawn_positions(scores: np.ndarray) -> np.ndarray:
    """Choose the tokens (≤ MOST_POINTS) that a curve is drawn through."""
    if len(scores) <= MOST_POINTS:
        return np.arange(len(scores))
    stretches = np.array_split(np.arange(len(scores)), MOST_POINTS // 2 - 1)
    extremes = [stretch[extreme(scores[stretch])] for stretch in stretches for extreme in (np.argmin, np.argmax)]
    return np.unique([0, *extremes, len(scores) - 1])


def _draw_scores(axes: Axes, trace: Trace, followed: str) -> None:
    if _is_binary(trace):  # the other label's curve would be this one's mirror image
        positions = _drawn_positions(trace.scores[:, 1])
        scores = trace.scores[positions, 1]
        axes.plot(positions, scores, color="black", linewidth=0.9)
        for label, colour in _label_colours(trace).items():
            side = scores > 0.5 if label else scores < 0.5
            name = f"{shortened(trace.labels[label])} leads"
            axes.fill_between(
                positions, 0.5, scores, where=side, interpolate=True, color=colour, alpha=0.6, lw=0, label=name
            )
    else:
        for label, colour in _label_colours(trace).items():
            positions = _drawn_positions(trace.scores[:, label])
            name = shortened(trace.labels[label])
            axes.plot(positions, trace.scores[positions, label], color=colour, linewidth=1.3, label=name)
    axes.set_ylabel(_curve_name(trace))
    axes.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    low, high = axes.get_ylim() if trace.problem_type == REGRESSION else (-0.03, 1.03)
    axes.set_ylim(low, high + 0.08 * NUM_NOTE_LINES * (high - low))  # words stand above the curves
    if trace.problem_type != REGRESSION:
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    turns = landmarks(trace, followed, MOST_NOTES)[1]
    _note_words(axes, trace, [(turn.position, _curve_score(trace, turn)) for turn in turns])


def _curve_score(trace: Trace, turn: Turn) -> float:
    """Return the height of the curve that shows a turn."""
    return float(trace.scores[turn.position, 1 if _is_binary(trace) else label_index(trace.labels, turn.label)])


def _note_words(axes: Axes, trace: Trace, places: Iterable[tuple[int, float]]) -> None:
    """Mark places on a curve, and write their words above where there is room on one of the lines."""
    ends, centres = [-np.inf] * NUM_NOTE_LINES, [-np.inf] * NUM_NOTE_LINES  # of each line's last word, in axes
    for position, score in places:
        axes.plot(position, score, marker="o", markersize=6, color="black", markerfacecolor="white")
        word = _noted(trace, position)
        start, centre, end = _extent(axes, word, position)
        for line in range(NUM_NOTE_LINES):
            # Neither words on words, nor words on another's line down to the curve.
            if start > max(ends[line], *centres[:line], -np.inf) and centre > max(*ends[line + 1 :], -np.inf, -np.inf):
                break
        else:
            continue
        ends[line], centres[line] = end, centre
        axes.annotate(
            word,
            (position, score),
            (position, 1.0 - 0.065 * line),
            textcoords=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6},
        )


def _draw_attribution(axes: Axes, trace: Trace, attribution: Attribution) -> None:
    values, ends = word_values(trace, attribution), trace.ends
    largest = np.sort((-abs(values)).argsort(kind="stable")[:MOST_BARS])
    colours = [_sides(trace, attribution)[int(value < 0)] for value in values[largest]]
    axes.vlines(ends[largest], 0, values[largest], colors=colours, linewidth=np.clip(300 / len(values), 1.2, 6))
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_ylabel(f"for {shortened(attribution.label)}\n({attribution.unit})")
    axes.margins(y=0.25)
    for side in telling_words(trace, attribution, most=4):
        taken: list[tuple[float, float]] = []
        for position, value in side:
            word = _noted(trace, position)
            start, _, end = _extent(axes, word, position)
            if any(start < other_end and other_start < end for other_start, other_end in taken):
                continue
            taken.append((start, end))
            sign = 1 if value > 0 else -1
            axes.annotate(
                word,
                (position, value),
                (0, 4 * sign),
                textcoords="offset points",
                ha="center",
                va="bottom" if value > 0 else "top",
                fontsize=9,
            )


def _extent(axes: Axes, word: str, position: int) -> tuple[float, float, float]:
    """Estimate where a word written at a position begins, stands and ends, in axes."""
    centre = axes.transLimits.transform((position, 0))[0]
    half = 0.005 * (len(word) + 1)
    return centre - half, centre, centre + half


def _noted(trace: Trace, position: int) -> str:
    """Name a place by its word, or by its number where matplotlib's font cannot write the word."""
    word = excerpt(trace, position)[1]
    font = get_font(findfont(FontProperties()))
    return shortened(word) if all(font.get_char_index(ord(letter)) for letter in word) else f"token {position:,}"


def _pieces(trace: Trace) -> list[tuple[int, int, int]]:
    """Cut the text at the ends of its tokens: start, end, and the token after which all of it is read."""
    ends = {end: position for position, (start, end) in enumerate(trace.offsets) if end > start}
    return [(start, end, ends[end]) for start, end in pairwise([0, *sorted(ends)])]


def _score_cells(trace: Trace, followed: str) -> list[Cell]:
    """Colour by the label that leads; by whether `followed` holds, where several can; by the target's height."""
    label = label_index(trace.labels, followed)
    if trace.problem_type == SINGLE_LABEL:
        chosen, colours = trace.scores.argmax(axis=1), _label_colours(trace)
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
    hues = [_sides(trace, attribution)[int(value < 0)] for value in values]
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


def _anchors(trace: Trace, turns: list[Turn]) -> dict[int, list[int]]:
    """Return which turns, counted from 1, are to be found where in the text: at the first piece of their words."""
    pieces = _pieces(trace)
    starts = [start for start, _, _ in pieces]
    places = np.searchsorted(starts, [trace.word_at(turn.position)[0] for turn in turns], side="right") - 1
    anchors: dict[int, list[int]] = {}
    for number, place in enumerate(places, 1):
        anchors.setdefault(pieces[place][2], []).append(number)
    return anchors


def _spans(trace: Trace, cells: list[Cell], anchors: dict[int, list[int]] | None = None) -> str:
    """Write the whole text, every character once, in coloured spans."""
    anchors, parts, done = anchors or {}, [], 0
    for (colour, said, numbers), run in groupby(
        cells, lambda cell: (cell.colour, cell.said, anchors.get(cell.position, []))
    ):
        first, *_, last = [*run] * 2
        done = last.end
        tokens = f"token {last.position:,}"
        if last is not first:
            tokens = f"tokens {first.position:,} to {last.position:,}"
        mark = f' data-turn="{", ".join(map(str, numbers))}"' if numbers else ""
        parts += [f'<a id="turn-{number}"></a>' for number in numbers]
        title = escape(f"{said} ({tokens})")
        text = _escaped(trace.text[first.start : done])
        parts.append(f'<span class="{colour}"{mark} title="{title}">{text}</span>')
    return "".join(parts) + _escaped(trace.text[done:])


def _escaped(text: str) -> str:
    return escape(text).replace("\r", "&#13;")  # which HTML would read as a line feed


def _view(name: str, legend: str, text: str) -> str:
    return f'<div class="{name}">\n<p class="note">{legend}</p>\n<div class="text">{text}</div>\n</div>'


def _score_legend(trace: Trace, followed: str) -> str:
    if trace.problem_type == SINGLE_LABEL:
        keys = [_key(colour, trace.labels[label]) for label, colour in _label_colours(trace).items()]
        if len(trace.labels) > len(keys):
            keys.append(_key(GREY, "another label"))
        return f"Which label led when the model had read so far: {' '.join(keys)} The stronger, the farther it led."
    middle, half = _range(trace, label_index(trace.labels, followed))
    low, none, high = (trace.written(score) for score in (middle - half, middle, middle + half))
    keys = [_key(ORANGE, low), _key(BLUE, high)]
    return f"{escape(followed)} when the model had read so far: {' to '.join(keys)}, no colour at {none}."


def _attribution_legend(trace: Trace, attribution: Attribution) -> str:
    pro, contra = _sides(trace, attribution)
    strongest = abs(word_values(trace, attribution)).max()
    keys = f"{_key(pro, f'for {attribution.label}')} {_key(contra, 'against it')}"
    return f"What a word tells: {keys} Full colour: {strongest:.2g} {attribution.unit}."


def _key(colour: str, name: str) -> str:
    return f'<span class="key {_css_class(colour, 1.0)}">{escape(name)}</span>'


def _turn_table(trace: Trace, turns: list[Turn]) -> str:
    rows = []
    for number, turn in enumerate(turns, 1):
        before, word, after = map(escape, excerpt(trace, turn.position))
        place = f'{number}. <a href="#turn-{number}">token {turn.position:,}</a>'
        rows.append([place, escape(turn.label), trace.written_move(turn), f"{before}<b>{word}</b>{after}"])
    return _table(rows)


def _word_table(trace: Trace, attribution: Attribution) -> str:
    pro, contra = (
        [[f"token {at:,}", attribution.written(value), escape(excerpt(trace, at)[1])] for at, value in side]
        for side in telling_words(trace, attribution)
    )
    return _table([left + right for left, right in zip_longest(pro, contra, fillvalue=["", "", ""])])


def _table(rows: list[list[str]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _curve(trace: Trace, turns: list[Turn]) -> str:
    """Draw the scores after every token as SVG, the turns as links into the text."""
    last = max(len(trace.tokens) - 1, 1)
    is_regression = trace.problem_type == REGRESSION
    low, high = (float(trace.scores.min()), float(trace.scores.max())) if is_regression else (0.0, 1.0)
    scale = max(high - low, np.finfo(float).tiny)

    def place(position: float, score: float) -> tuple[float, float]:
        return 48 + 940 * position / last, 195 - 175 * (score - low) / scale

    def points(label: int) -> str:
        positions = _drawn_positions(trace.scores[:, label])
        return " ".join("{:.1f},{:.1f}".format(*place(at, trace.scores[at, label])) for at in positions)

    parts = []
    for score in (low, (low + high) / 2, high):
        x, y = place(0, score)
        parts.append(f'<line x1="{x}" x2="988" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{trace.written(score)}</text>')
    for tick in MaxNLocator(8, integer=True).tick_values(0, last):
        if 0 <= tick <= last:
            parts.append(f'<text x="{place(tick, low)[0]:.1f}" y="213" text-anchor="middle">{tick:,.0f}</text>')
    parts.append('<text x="988" y="229" text-anchor="end">token</text>')
    colours = _label_colours(trace)
    if _is_binary(trace):
        (_, middle), (_, bottom) = place(0, 0.5), place(0, 0.0)
        for label, top in ((1, 0.0), (0, middle)):
            half = f'<rect y="{top}" width="1000" height="{bottom - middle + 20}"/>'
            area = f'points="48,{middle} {points(1)} 988,{middle}" fill="{colours[label]}"'
            parts.append(f'<clipPath id="side-{label}">{half}</clipPath>')
            parts.append(f'<polygon {area} clip-path="url(#side-{label})"/>')
        parts.append(f'<polyline points="{points(1)}"/>')
    else:
        lines = (f'<polyline points="{points(label)}" style="stroke: {colour}"/>' for label, colour in colours.items())
        parts.extend(lines)
    for number, turn in enumerate(turns, 1):
        x, y = place(turn.position, _curve_score(trace, turn))
        said = escape(f"{turn.label} {trace.written_move(turn)}: {excerpt(trace, turn.position)[1]}")
        mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/><text x="{x:.1f}" y="12">{number}</text>'
        parts.append(f'<a href="#turn-{number}"><title>{said}</title>{mark}</a>')
    keys = " ".join(_key(colour, trace.labels[label]) for label, colour in colours.items())
    svg = f'<svg viewBox="0 0 1000 234" role="img" aria-label="curve">{"".join(parts)}</svg>'
    return f'<p class="note">{escape(_curve_name(trace))} {keys}</p>\n{svg}'


def _curve_name(trace: Trace) -> str:
    if _is_binary(trace):
        return f"probability of {shortened(trace.labels[1])}"
    return "predicted" if trace.problem_type == REGRESSION else "probability"


def _page(title: str, body: str) -> str:
    colours = "".join(
        f".h{hue}{level} {{ background: {colour}{round(255 * STRONGEST * level / NUM_LEVELS):02x}; }}\n"
        for hue, colour in enumerate([*COLOURS, GREY])
        for level in range(1, NUM_LEVELS + 1)
    )
    return f"""<!doctype html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}{colours}</style>
</head>
<body>
{body}
</body>
</html>
"""
