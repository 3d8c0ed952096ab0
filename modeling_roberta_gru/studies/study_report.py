"""What a study leaves: its trials as a table and as plots, made from what sweep.json holds."""

import json
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..arguments import LOSSES
from ..markdown import cell, code, table
from ..training.metrics import SLICE_METRICS, written
from ..training.plots import BLUE, GREY, ORANGE, save, shortened, tidy

MARKERS = "os^Dv"
"""Of the lines of few trials."""


def best_trial(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the trial of the best validation metric among those that were trained to their end, if any."""
    ranked = [row for row in _ranked(record) if row["state"] == "complete"]
    return ranked[0] if ranked else None


def _ranked(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sort the trials, the best one first; those that were stopped early or failed stand last."""
    metric = record["space"]["metric"]
    sign = 1 if metric in LOSSES else -1
    order = ("complete", "pruned", "failed")

    def key(row: Mapping[str, Any]) -> tuple[int, float]:
        return order.index(row["state"]), sign * row["metrics"][metric]["value"] if row["metrics"] else 0

    return sorted(record["trials"], key=key)


def outcome(row: Mapping[str, Any], metric: str) -> str:
    """Say how a trial ended."""
    if row["state"] == "failed":
        return str(row.get("error", "failed: training diverged, its logits are not finite"))
    return written(row["metrics"][metric]) + (", stopped early" if row["state"] == "pruned" else "")


def study_markdown(record: Mapping[str, Any], name: str) -> str:
    """Write a study as Markdown: its trials, the best one first, and the conditions of their training."""
    metric, data = record["space"]["metric"], record["data"]
    names = list(record["space"]["space"])
    rows = [
        [
            str(row["trial"]),
            *(cell(_shown(row["params"][option])) for option in names),
            cell(outcome(row, metric)),
            "–" if row["best_step"] is None else f"{row['best_step']:,}",
            "–" if row["seconds"] is None else f"{row['seconds']:,.0f}",
        ]
        for row in _ranked(record)
    ]
    lines = [
        f"# Study: {cell(name)}",
        "",
        f"{len(rows)} of {record['num_trials']} trials ({record['space']['sampler']}), n = "
        f"{data['counts']['validation']:,} validation rows, temperature 1, seed {record['seed']}. In brackets: 95 % "
        "bootstrap intervals over the rows. The best options are chosen by validation; the test split was not read.",
        "",
        *table(["trial", *names, f"validation {metric}", "best step", "training, s"], rows),
        *final_markdown(record["final"], metric),
        "",
        f"- Command: {code(record['command'])}",
        f"- Data: {cell(data['source'])}, fingerprint {data['fingerprint']}",
        f"- Options that all trials share: {code(json.dumps(record['options'], ensure_ascii=False))}",
    ]
    for platform in record["platforms"]:
        hardware, versions = platform["hardware"], platform["versions"]
        lines.append(
            f"- Trained on: {hardware['device']}, {hardware['processor']}, {hardware['num_threads']} threads; torch "
            f"{versions['torch']}, transformers {versions['transformers']}; commit {platform['commit']}"
        )
    return "\n".join(lines) + "\n"


def final_markdown(runs: Mapping[str, Any] | None, metric: str) -> list[str]:
    """Write the final runs as lines of Markdown; none where there are none."""
    if runs is None:
        return []
    shown = [name for name in dict.fromkeys([metric, *SLICE_METRICS]) if name in runs["mean"]]
    rows = [[str(run["seed"]), *(written(run["test"][name]) for name in shown)] for run in runs["runs"]]
    mean = ["mean", *(f"{runs['mean'][name]:.4f}" for name in shown)]
    heading = f"The best options, trained again. Only these runs read the test split, n = {runs['n']:,} rows."
    return ["", heading, "", *table(["seed", *(f"test {name}" for name in shown)], [*rows, mean])]


def named(params: Mapping[str, Any]) -> str:
    """Write a point of the space."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in params.items())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


# Plots


def draw_options(record: Mapping[str, Any], path: Path) -> None:
    """Draw the metric of the whole trials against what was varied.

    Two options or more with choices: a heat map of the first two, means over the others. Else a panel for each option.
    """
    space = record["space"]["space"]
    rows = [row for row in record["trials"] if row["state"] == "complete"]
    if len(space) > 1 and all(isinstance(choices, list) for choices in space.values()):
        figure = _heat_map(record, rows)
    else:
        figure = Figure(figsize=(4 * len(space) + 0.5, 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(space), squeeze=False)[0], space, strict=True):
            _plot_option(axes, name, space[name], rows, record["space"]["metric"])
    save(figure, path)


def _heat_map(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Figure:
    metric, space = record["space"]["metric"], record["space"]["space"]
    down, across = list(space)[:2]
    means = np.full((len(space[down]), len(space[across])), np.nan)
    for i, j in np.ndindex(means.shape):
        cell = {down: space[down][i], across: space[across][j]}
        values = [row["metrics"][metric]["value"] for row in rows if row["params"] | cell == row["params"]]
        means[i, j] = np.mean(values) if values else np.nan
    height, width = means.shape
    figure = Figure(figsize=(1.1 * width + 2.6, 0.6 * height + 1.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(means, cmap="Blues_r" if metric in LOSSES else "Blues", aspect="auto")
    for i, j in np.argwhere(np.isfinite(means)):
        red, green, blue, _ = image.to_rgba(means[i, j])
        colour = "white" if red + green + blue < 1.5 else "black"
        axes.text(j, i, f"{means[i, j]:.4f}", ha="center", va="center", fontsize=9, color=colour)
    i, j = np.unravel_index(np.nanargmin(means) if metric in LOSSES else np.nanargmax(means), means.shape)
    axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5))
    axes.set_xticks(range(width), [shortened(_shown(value)) for value in space[across]])
    axes.set_yticks(range(height), [shortened(_shown(value)) for value in space[down]])
    others = f", mean over {', '.join(list(space)[2:])}" if len(space) > 2 else ""
    axes.set(xlabel=across, ylabel=down, title=f"Validation {metric}{others}")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _plot_option(axes: Axes, name: str, choices: Any, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    figures = [row["metrics"][metric] for row in rows]
    values = [row["params"][name] for row in rows]
    if isinstance(choices, list):
        axes.set_xticks(range(len(choices)), [shortened(_shown(value)) for value in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
        values = [choices.index(value) for value in values]
    elif choices["log"]:
        axes.set_xscale("log")
    around = [[figure["value"] - figure["low"], figure["high"] - figure["value"]] for figure in figures]
    heights = [figure["value"] for figure in figures]
    axes.errorbar(values, heights, np.transpose(around), fmt="o", color=BLUE, ecolor=GREY, elinewidth=1)
    best = int(np.argmin(heights) if metric in LOSSES else np.argmax(heights))
    axes.plot(values[best], heights[best], marker="o", markersize=11, color=ORANGE, fillstyle="none")
    axes.set(xlabel=name, ylabel=f"validation {metric}")
    tidy(axes)


def draw_curves(record: Mapping[str, Any], path: Path) -> None:
    """Draw the metric of all trials against the epoch: the best one in colour, those stopped early dashed.

    Of a few trials each is named, of many the best only.
    """
    metric, best = record["space"]["metric"], best_trial(record)
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    are_few = len(record["trials"]) <= len(MARKERS)
    for row, marker in zip(record["trials"], cycle(MARKERS), strict=False):
        style: dict[str, Any] = {
            "color": GREY,
            "linewidth": 1.0,
            "alpha": 0.6,
            "linestyle": "--" if row["state"] == "pruned" else "-",
            "marker": marker if are_few else MARKERS[0],
            "markersize": 5 if are_few else 3,
        }
        if row == best:
            style |= {"color": ORANGE, "linewidth": 2.0, "alpha": 1.0, "zorder": 3}
        if are_few or row == best:
            name = f"trial {row['trial']}: {named(row['params'])}"
            style["label"] = shorten(name, 80, placeholder="…").replace("$", r"\$")
        if row["curve"]:
            axes.plot(*zip(*row["curve"], strict=True), **style)
    axes.set(xlabel="epoch", ylabel=f"validation {metric}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    save(figure, path)
