"""Draw what a run leaves: its curves, and what it confuses.

Plots are drawn without pyplot: nothing global changes, no display is needed. Colours are Okabe and Ito's, which
colour-blind readers tell apart.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font, get_font_names
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike
from PIL import Image

from ..data.labels import MULTI_LABEL, REGRESSION
from ..files import replacing
from .metrics import PerClass

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6b6b6b"
DOTS_PER_INCH = 110
LONGEST_NAME = 18
FALLBACK_FONTS = (
    *("Noto Sans", "Noto Sans CJK JP", "Noto Sans JP", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari"),
    *("Noto Sans Thai", "Noto Sans Symbols2", "Noto Emoji", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Unifont"),
    *("Arial Unicode MS", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Segoe UI Symbol"),
)
"""Of these, those that are installed draw what DejaVu, which matplotlib brings, has no letters for."""
MOST_WRITTEN_CLASSES = 20
"""Confusion cells of more classes are too small to write in."""
MOST_BARS = 100
"""Of more classes, those with the lowest F1 are drawn."""
MOST_CLASSES = 500
"""Of more classes, a confusion matrix shows those that most documents are of."""
MOST_POINTS = 5000
"""A scatter shows at most this many documents."""


@contextmanager
def fallback_fonts() -> Iterator[None]:
    """Let text that is made and drawn meanwhile take from another font what matplotlib's own lacks."""
    with rc_context({"font.family": _font_families()}):
        yield


@cache
def _font_families() -> list[str]:
    installed = set(get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


@cache
def _fonts() -> list[FT2Font]:
    return [get_font(findfont(family)) for family in _font_families()]


def draw_curves(
    history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], saved_step: int | None = None
) -> None:
    """Draw the losses and the validation score against the training step.

    Args:
        history: the Trainer's log rows, such as `{"loss", "step", …}` and `{"eval_loss", "eval_accuracy", "step", …}`.
            A regression's score is `eval_mae`.
        path: the PNG file to write.
        saved_step: the step whose weights were kept; unset: the last.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, scores = figure.subplots(1, 2, sharex=True)
    _plot_curve(losses, history, "loss", label="training", color=BLUE)
    _plot_curve(losses, history, "eval_loss", label="validation", color=ORANGE, marker="o", markersize=4)
    losses.set(title="Loss", xlabel="step", ylabel="loss")
    if losses.lines:
        losses.legend(frameon=False)
    is_regression = any("eval_mae" in row for row in history)
    name = "mean absolute error" if is_regression else "accuracy"
    _plot_curve(
        scores, history, "eval_mae" if is_regression else "eval_accuracy", color=ORANGE, marker="o", markersize=4
    )
    scores.set(title=f"Validation {name}", xlabel="step", ylabel=name)
    if not is_regression:
        scores.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    else:
        scores.ticklabel_format(axis="y", useOffset=False)
    losses.ticklabel_format(axis="y", useOffset=False)
    for axes in (losses, scores):
        tidy(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _mark_saved(scores, saved_step, "{:.3g}" if is_regression else "{:.1%}")
    save(figure, path)


@fallback_fonts()
def draw_confusion(
    predictions: ArrayLike,
    references: ArrayLike,
    problem_type: str,
    label_names: Sequence[str],
    path: str | os.PathLike[str],
) -> None:
    """Draw where predictions go wrong.

    One label a document: the confusion matrix. Several: every class's F1. Regression: predicted against true values.

    Args:
        predictions, references, problem_type, label_names: as in `metrics.measure`.
        path: the PNG file to write.
    """
    values, labels = np.asarray(predictions), np.asarray(references)
    if problem_type == REGRESSION:
        figure = _scatter(values.reshape(-1), labels.reshape(-1))
    elif problem_type == MULTI_LABEL:
        figure = _f1_bars(values, labels, label_names)
    else:
        figure = _confusion_matrix(values.argmax(axis=1), labels, label_names)
    save(figure, path)


def _confusion_matrix(predicted: np.ndarray, true: np.ndarray, label_names: Sequence[str]) -> Figure:
    totals = np.bincount(true, minlength=len(label_names))
    shown = np.sort(np.argsort(-totals, kind="stable")[:MOST_CLASSES])
    num_labels = len(shown)
    place = np.full(len(label_names), -1)
    place[shown] = np.arange(num_labels)
    cells = np.stack([place[true], place[predicted]], axis=1)
    cells = cells[(cells >= 0).all(axis=1)] @ [num_labels, 1]
    counts = np.bincount(cells, minlength=num_labels**2).reshape(num_labels, num_labels)
    shares = counts / np.maximum(totals[shown, None], 1)
    is_large = num_labels > 4
    side = np.clip(0.42 * num_labels, 3.4, 11)
    figure = Figure(figsize=(side + 1.8, side + 1.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if num_labels <= MOST_WRITTEN_CLASSES:
        for row, column in np.argwhere(counts):
            share = shares[row, column]
            text = f"{counts[row, column]:,}"
            if num_labels <= 10 or row == column:  # twice as many numbers would be too many to read
                text += f"\n{share:.0%}" if is_large else f"\n{share:.1%}"
            colour, size = "white" if share > 0.55 else "black", 7 if is_large else 11
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    else:
        figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(xmax=1), label="share of the true class")
    names = [shortened(label_names[label]) for label in shown]
    axes.set_xticks(range(num_labels), names, rotation=45 if is_large else 0, ha="right" if is_large else "center")
    axes.set_yticks(range(num_labels), names)
    num_right = int((predicted == true).sum())
    title = f"{num_right:,} of {len(true):,} documents right ({num_right / len(true):.1%})"
    if num_labels < len(label_names):
        title += f"; the {num_labels} most frequent of {len(label_names):,} classes"
    figure.suptitle(title, fontsize=11)
    axes.set(xlabel="predicted", ylabel="true (each row adds up to 100 %)")
    axes.tick_params(length=0, labelsize=min(10, 400 / num_labels))
    axes.spines[:].set_visible(False)
    return figure


def _f1_bars(probabilities: np.ndarray, labels: np.ndarray, label_names: Sequence[str]) -> Figure:
    f1 = np.nan_to_num(PerClass.results(probabilities, labels, np.ones((1, len(labels))))["f1"][0])
    num_documents = (labels >= 0.5).sum(axis=0)
    shown = np.sort(np.argsort(f1, kind="stable")[:MOST_BARS])
    figure = Figure(figsize=(7, 1.4 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(shown)), f1[shown], color=BLUE, height=0.7)
    axes.bar_label(bars, [f"{value:.2f}" for value in f1[shown]], padding=3, fontsize=9)
    names = [f"{shortened(label_names[label])} (n = {num_documents[label]:,})" for label in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    is_cut = len(shown) < len(f1)
    title = f"F1: the {len(shown)} lowest of {len(f1):,} classes" if is_cut else "F1 by class"
    axes.set(xlim=(0, 1.08), xlabel="F1", title=title)
    tidy(axes)
    axes.grid(axis="y", visible=False)
    return figure


def _scatter(predicted: np.ndarray, true: np.ndarray) -> Figure:
    shown = np.linspace(0, len(true) - 1, min(len(true), MOST_POINTS)).astype(int)
    figure = Figure(figsize=(5.2, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(true[shown], predicted[shown], linestyle="", marker="o", markersize=3, alpha=0.35, color=BLUE, mew=0)
    axes.axline((true.mean(), true.mean()), slope=1, color=GREY, linewidth=1, linestyle="--", label="predicted = true")
    axes.set(xlabel="true", ylabel="predicted", title=f"Predicted against true ({len(true):,} documents)")
    axes.legend(frameon=False)
    tidy(axes)
    return figure


def _plot_curve(axes: Axes, history: Sequence[Mapping[str, Any]], key: str, **style: Any) -> None:
    points = [(row["step"], row[key]) for row in history if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), linewidth=1.5, **style)


def _mark_saved(axes: Axes, saved_step: int | None, template: str) -> None:
    points = np.asarray(axes.lines[0].get_xydata()).tolist() if axes.lines else []
    for step, value in [point for point in points if saved_step in (None, point[0])][-1:]:
        axes.plot(step, value, marker="o", markersize=9, color=GREEN, markerfacecolor="none", markeredgewidth=1.5)
        text = f"saved: {template.format(value)} at step {step:,.0f}"
        axes.text(0.97, 0.06, text, transform=axes.transAxes, ha="right", color=GREEN)


def tidy(axes: Axes) -> None:
    """Draw a faint grid behind, and no frame above and to the right."""
    axes.grid(color="#e3e3e3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def shortened(name: str) -> str:
    """Cut a long class name short, and write it so that it can be drawn."""
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    drawn = drawable(short)
    return drawn if len(drawn) <= 2 * LONGEST_NAME else drawn[: 2 * LONGEST_NAME - 1] + "…"


def drawable(text: str) -> str:
    """Escape what no font here can draw, as in \\u65e5, and the dollar sign, which would start a formula."""
    drawn = (letter if can_draw(letter) else letter.encode("unicode_escape").decode() for letter in text)
    return "".join(drawn).replace("$", r"\$")


def can_draw(text: str) -> bool:
    """Tell whether the fonts of [`fallback_fonts`] have every character of a text."""
    return all(any(font.get_char_index(ord(letter)) for font in _fonts()) for letter in text)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG of 16 colours, a quarter of the full-colour file."""
    figure.set_dpi(DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    with replacing(path) as unfinished:
        pixels.quantize(16).save(unfinished, format="png", optimize=True)
