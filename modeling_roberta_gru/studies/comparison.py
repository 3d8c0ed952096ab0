"""Compare systems by their finished runs: metrics on the same test rows, and differences from the first system.

Runs whose options differ in seeds and folders only are seeds of one system; those of one seed that were tested on
different folds (`--test_fold`) are put together to one run over the rows of all their folds. Every resample draws the
same rows for all runs, so that what differs between two systems is not the rows; a system of several seeds has its
seeds resampled too.

Shapes: n rows, C classes, k seeds of a system, r resamples. Draws of a metric have shape (1 + r,): the metric itself,
then one draw of it a resample.
"""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import binomtest

from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.labels import SINGLE_LABEL
from ..errors import InputError
from ..markdown import cell, code, table
from ..training.arguments import RobertaGRUTrainingArguments
from ..training.metrics import METRICS, interval, resample_counts, written
from ..training.plots import BLUE, GREY, ORANGE, save, tidy
from ..training.record import WITHOUT_EFFECT, without_machine

FILES = ("metrics.json", "run.json", "predictions.parquet")
NO_PART_OF_SYSTEM = (
    *("seed", "data_seed", "output_dir", "overwrite_output_dir", "resume_from_checkpoint"),
    *("test_fold", "validation_fold"),
    *WITHOUT_EFFECT,
)
"""Options in which runs of one system may differ."""

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "log_loss": "log-loss",
    "calibration_error": "calibration error",
}
DIFFERENCES = ("accuracy", "macro_f1")
"""The metrics whose differences are measured; they are written in percent."""

MISSING = "–"
NAME_WIDTH = 42
"""Characters of a line of a name in the picture."""

Draws = dict[str, np.ndarray]


class Run(NamedTuple):
    """A finished run, or one for each fold put together; its test rows sorted by `row_id`."""

    folder: str
    record: dict[str, Any]
    rows: pa.Table
    probabilities: np.ndarray  # (n, C)

    @property
    def architecture(self) -> str:
        """The architecture's name."""
        options = self.record["options"]
        default = options.get("architecture", RobertaGRUConfig.model_type)
        return self.record.get("model", {}).get("architecture", default)

    @property
    def options(self) -> dict[str, Any]:
        """The options that make the system what it is, where they are not at their default."""
        return without_machine(self.record["options"], (*NO_PART_OF_SYSTEM, "architecture"))

    @property
    def seed(self) -> int:
        """The run's `--seed`."""
        return self.record["options"].get("seed", RobertaGRUTrainingArguments.seed)

    @property
    def fold(self) -> int | None:
        """The run's `--test_fold`."""
        return self.record["options"].get("test_fold")

    @property
    def data(self) -> str | None:
        """The fingerprint of the run's data, where it is the same for all runs of a system: folds differ in it."""
        return self.record["data"].get("fingerprint") if self.fold is None else None

    @property
    def system(self) -> str:
        """What tells the system from others."""
        return json.dumps([self.architecture, self.options, self.data], sort_keys=True)


def compare(folders: Sequence[str | os.PathLike[str]], num_resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Compare the systems that some runs are of, the first one with each of the others.

    Args:
        folders: the runs' folders; systems keep the order in which they come.
        num_resamples: bootstrap resamples.
        seed: seed of the resamples.

    Returns:
        What JSON can hold: `n`, `labels`, `num_resamples`, `seed`; `systems`, with metrics as `metrics.measure` gives
        them and their `min` and `max` over seeds, sizes, times and runs; `differences` of each other system less the
        first, with McNemar's exact test. What a run did not record is None.

    Raises:
        InputError: if a folder holds no finished run of single-label classification, runs were tested on different
            rows or classes, two runs of one system have the same seed and fold, two folds of one have a test row in
            common, or there is only one system.
    """
    runs = [_read(folder) for folder in folders]
    for run in runs[1:]:
        _check_classes(runs[0], run)
    runs = _join_folds(runs)
    for run in runs[1:]:
        _check_rows(runs[0], run)
    systems = _group(runs)
    labels, n = runs[0].record["data"]["labels"], len(runs[0].rows)
    references = np.array([labels.index(label) for label in runs[0].rows["label"].to_pylist()])
    draws = dict(zip((run.folder for run in runs), _draw(runs, references, num_resamples, seed), strict=True))
    pooled = [
        _over_seeds([draws[run.folder] for run in system], seed + number) for number, system in enumerate(systems, 1)
    ]
    names = _names([system[0] for system in systems])
    differences: list[dict[str, Any]] = [
        {
            "system": name,
            **{figure: _with_interval(theirs[figure] - pooled[0][figure], n) for figure in DIFFERENCES},
            "mcnemar": _mcnemar(systems[0], system, references),
        }
        for name, system, theirs in zip(names[1:], systems[1:], pooled[1:], strict=True)
    ]
    _adjust([difference["mcnemar"] for difference in differences if difference["mcnemar"]])
    return {
        "n": n,
        "labels": labels,
        "num_resamples": num_resamples,
        "seed": seed,
        "systems": [
            {"name": name, **_describe(system, draws, theirs, n)}
            for name, system, theirs in zip(names, systems, pooled, strict=True)
        ],
        "differences": differences,
    }


# Which runs, and which systems


def _read(folder: str | os.PathLike[str]) -> Run:
    missing = [name for name in FILES if not (Path(folder) / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} holds no finished run: it lacks {', '.join(missing)}. Name the --output_dir of a run that "
            "has ended.",
            file=str(folder),
        )
    record = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
    problem_type = record["data"]["problem_type"]
    if problem_type != SINGLE_LABEL:
        raise InputError(
            f"{folder} is a run of {problem_type.replace('_', ' ')}: only {SINGLE_LABEL.replace('_', ' ')} can be "
            "compared. Leave it out.",
            file=str(folder),
        )
    columns = ["row_id", "label", "probabilities"]
    rows = pq.read_table(Path(folder) / "predictions.parquet", columns=columns).sort_by("row_id")
    probabilities = pc.list_flatten(rows["probabilities"]).to_numpy().reshape(len(rows), -1)
    return Run(str(folder), record, rows.select(columns[:2]), probabilities)


def _join_folds(runs: Sequence[Run]) -> list[Run]:
    """Put together the runs of a system and seed that were tested on different folds."""
    folds: dict[tuple[str, int], dict[int | None, Run]] = {}
    for run in runs:
        tested = folds.setdefault((run.system, run.seed), {})
        twin = tested.get(run.fold) or (next(iter(tested.values()), None) if None in {run.fold, *tested} else None)
        if twin is not None:
            where = "" if run.fold is None or twin.fold is None else f" and the same test fold, {run.fold}"
            raise InputError(
                f"{twin.folder} and {run.folder} are runs of one system with the same seed, {run.seed}{where}. "
                "Leave one of them out.",
                file=run.folder,
            )
        tested[run.fold] = run
    return [_joined(sorted(tested.values(), key=lambda run: run.fold or 0)) for tested in folds.values()]


def _joined(folds: Sequence[Run]) -> Run:
    """Return folds of one system and seed as one run, whose times are theirs together."""
    if len(folds) == 1:
        return folds[0]
    tested: dict[str, str] = {}
    for run in folds:
        for row_id in run.rows["row_id"].to_pylist():
            if row_id in tested:
                raise InputError(
                    f"{tested[row_id]} and {run.folder} are folds of one system, and both were tested on {row_id}. "
                    "Leave one of them out, or train both on folds of the same data.",
                    file=run.folder,
                )
            tested[row_id] = run.folder
    rows = pa.concat_tables([run.rows for run in folds])
    order = pc.sort_indices(rows["row_id"])
    record = dict(folds[0].record)
    for name in ("training_seconds", "test_seconds", "tokens_seen"):
        known = [run.record[name] for run in folds if run.record.get(name) is not None]
        record[name] = sum(known) if len(known) == len(folds) else None
    for name in ("commit", "versions", "hardware"):
        told = {_flat(run.record.get(name)): run.record.get(name) for run in folds}
        record[name] = next(iter(told.values())) if len(told) == 1 else "; ".join(told)
    if record.get("command"):
        record["command"] += f" (and {len(folds) - 1} more, one a fold)"
    names = [
        name for name in ("fingerprint", "test_fingerprint") if all(run.record["data"].get(name) for run in folds)
    ]
    joined = {name: ", ".join(dict.fromkeys(run.record["data"][name] for run in folds)) for name in names}
    record["data"] = {**record["data"], "test_fingerprint": None, **joined}
    probabilities = np.concatenate([run.probabilities for run in folds])[order.to_numpy()]
    return Run(", ".join(run.folder for run in folds), record, rows.take(order), probabilities)


def _check_classes(first: Run, other: Run) -> None:
    names, other_names = (run.record["data"]["labels"] for run in (first, other))
    if names != other_names:
        raise InputError(
            f"{first.folder} and {other.folder} have different classes: {', '.join(names)}, and "
            f"{', '.join(other_names)}. Compare runs of the same data and --class_names.",
            file=other.folder,
        )


def _check_rows(first: Run, other: Run) -> None:
    """Compare the labels of two runs' test rows."""
    labels, other_labels = (
        dict(zip(run.rows["row_id"].to_pylist(), run.rows["label"].to_pylist(), strict=True)) for run in (first, other)
    )
    differing = {row_id for row_id, _ in labels.items() ^ other_labels.items()}
    if differing:
        example = min(differing)
        said, other_said = (repr(given[example]) if example in given else "absent" for given in (labels, other_labels))
        raise InputError(
            f"{first.folder} and {other.folder} were tested on different rows: {len(differing):,} differ, such as "
            f"{example} ({said} in the first, {other_said} in the second). Compare runs of the same data, split "
            "options, folds and --max_test_samples.",
            file=other.folder,
        )
    texts, other_texts = (run.record["data"].get("test_fingerprint") for run in (first, other))  # None: an older run
    is_read_alike = all(first.options.get(name) == other.options.get(name) for name in ("text_column", "clean_html"))
    if texts and other_texts and texts != other_texts and is_read_alike:
        raise InputError(
            f"{first.folder} and {other.folder} were tested on different texts, though as many, with the same labels. "
            "Compare runs of the same test rows.",
            file=other.folder,
        )


def _group(runs: Sequence[Run]) -> list[list[Run]]:
    """Put the runs of a system together, by seed."""
    systems: dict[str, dict[int, Run]] = {}
    for run in runs:
        systems.setdefault(run.system, {})[run.seed] = run
    if len(systems) < 2:
        raise InputError(
            f"There is only one system ({', '.join(run.folder for run in runs)}). Name runs of another, too: their "
            "options differ in more than seeds and folders."
        )
    return [[seeds[seed] for seed in sorted(seeds)] for seeds in systems.values()]


def _names(runs: Sequence[Run]) -> list[str]:
    """Name systems by their architecture and the options in which those of the same architecture differ."""
    names = []
    for run in runs:
        alike = [other for other in runs if other.architecture == run.architecture]
        parts = [run.architecture]
        for option, value in run.options.items():
            values = [other.options.get(option) for other in alike]
            if any(other != value for other in values):
                parts.append(f"{option} {_shortest(value, values)}")
        if any(other.options == run.options and other.data != run.data for other in alike):
            parts.append(f"data {str(run.data)[:8]}")
        names.append(", ".join(parts))
    return names


def _shortest(value: Any, others: Sequence[Any]) -> str:
    """Write an option's value; of a path only the last part, where that tells it from the others."""
    short = _option(value, short=True)
    is_telling = all(other == value or _option(other, short=True) != short for other in others)
    return short if is_telling else _option(value, short=False)


def _option(value: Any, short: bool) -> str:
    if isinstance(value, list):
        return " ".join(_option(item, short) for item in value)
    if isinstance(value, str):
        return (short and Path(value).name) or value
    return json.dumps(value)


# Figures


def _draw(runs: Sequence[Run], references: np.ndarray, num_resamples: int, seed: int) -> list[Draws]:
    """Return each run's metrics on all rows, and on resampled rows that are the same for all runs."""
    blocks: list[list[Draws]] = [[] for _ in runs]
    n = len(references)
    for counts in chain([np.ones((1, n))], resample_counts(n, num_resamples, seed)):
        for run, theirs in zip(runs, blocks, strict=True):
            named = [metric.results(run.probabilities, references, counts) for metric in METRICS[SINGLE_LABEL]]
            theirs.append({name: values for figures in named for name, values in figures.items()})
    return [{name: np.concatenate([figures[name] for figures in theirs]) for name in TITLES} for theirs in blocks]


def _over_seeds(draws: Sequence[Draws], seed: int) -> Draws:
    """Return the metrics' means over a system's seeds: over all of them, then over those of each resample."""
    k, r = len(draws), len(draws[0]["accuracy"]) - 1
    counts = np.concatenate([np.ones((1, k)), *resample_counts(k, r, seed)])  # (1 + r, k)
    return {name: (counts * np.stack([run[name] for run in draws], axis=1)).sum(axis=1) / k for name in TITLES}


def _with_interval(draws: np.ndarray, n: int) -> dict[str, Any]:
    return interval(draws[0], draws[1:], n)


def _mcnemar(first: Sequence[Run], other: Sequence[Run], references: np.ndarray) -> dict[str, Any] | None:
    """Test whether two systems are right equally often, on the lowest seed that both have; None if there is none."""
    shared = {run.seed for run in first} & {run.seed for run in other}
    if not shared:
        return None
    seed = min(shared)
    mine, theirs = (run.probabilities.argmax(axis=1) == references for run in (*first, *other) if run.seed == seed)
    b, c = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    return {"seed": seed, "b": b, "c": c, "p": float(binomtest(b, b + c).pvalue) if b + c else 1.0}


def _adjust(tests: Sequence[dict[str, Any]]) -> None:
    """Add Holm's adjusted p-values, `p_holm`."""
    highest = 0.0
    for rank, test in enumerate(sorted(tests, key=lambda test: test["p"])):
        highest = max(highest, min(1.0, (len(tests) - rank) * test["p"]))
        test["p_holm"] = highest


def _describe(system: Sequence[Run], draws: Mapping[str, Draws], pooled: Draws, n: int) -> dict[str, Any]:
    """Return a system's metrics, sizes, times and runs."""
    values = [{name: float(draws[run.folder][name][0]) for name in TITLES} for run in system]
    figures = {
        name: {
            **_with_interval(pooled[name], n),
            "min": min(value[name] for value in values),
            "max": max(value[name] for value in values),
        }
        for name in TITLES
    }
    model = system[0].record.get("model", {})
    tokens, training, testing = (
        [run.record.get(name) for run in system] for name in ("tokens_seen", "training_seconds", "test_seconds")
    )
    return {
        "architecture": system[0].architecture,
        "options": system[0].options,
        "seeds": [run.seed for run in system],
        **figures,
        "num_parameters": model.get("num_parameters"),
        "num_trained_parameters": model.get("num_trained_parameters"),
        "training_seconds": _spread(training),
        "training_tokens_per_second": _rate(tokens, training),
        "test_texts_per_second": _rate([n], testing),
        "runs": [_conditions(run) | value for run, value in zip(system, values, strict=True)],
    }


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return mean, minimum and maximum; None where a value is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return {"mean": sum(known) / len(known), "min": min(known), "max": max(known)}


def _rate(amounts: Sequence[float | None], seconds: Sequence[float | None]) -> float | None:
    """Return amount by second, in the mean; None where one is not known or no time passed."""
    amount, time = _spread(amounts), _spread(seconds)
    return amount["mean"] / time["mean"] if amount and time and time["mean"] else None


def _conditions(run: Run) -> dict[str, Any]:
    data = run.record["data"]
    return {
        "folder": run.folder,
        "seed": run.seed,
        "data": {"source": data.get("source"), "splits": data.get("fingerprint")},
        **{name: run.record.get(name) for name in ("command", "commit", "versions", "hardware")},
    }


# What is said of them


def comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """Write what [`compare`] gives as Markdown: systems, differences, conditions."""
    return "\n".join([*_systems(comparison), "", *_differences(comparison), "", *_notes(comparison)])


def _systems(comparison: Mapping[str, Any]) -> list[str]:
    n = f" (n = {comparison['n']:,})"
    heads = [f"{title}, %{n}" if name in DIFFERENCES else title for name, title in TITLES.items()]
    rows = [
        [
            cell(system["name"]),
            ", ".join(map(str, system["seeds"])),
            *(_figure(name, system) for name in TITLES),
            _number(system["num_parameters"]),
            _number(system["num_trained_parameters"]),
            _seconds(system["training_seconds"]),
            _number(system["training_tokens_per_second"]),
            _number(system["test_texts_per_second"]),
        ]
        for system in comparison["systems"]
    ]
    sizes = ["parameters", "trained", "training, s", "training tokens / s", "test texts / s"]
    return table(["system", "seeds", *heads, *sizes], rows)


def _differences(comparison: Mapping[str, Any]) -> list[str]:
    rows = []
    for difference in comparison["differences"]:
        points = [_percent(difference[name], sign="+") for name in DIFFERENCES]
        rows.append([cell(difference["system"]), *points, *_test(difference["mcnemar"])])
    first = cell(comparison["systems"][0]["name"])
    points = [f"{TITLES[name]}, points" for name in DIFFERENCES]
    return table([f"system, minus {first}", *points, "seed", "b", "c", "p", "p (Holm)"], rows)


def _test(test: Mapping[str, Any] | None) -> list[str]:
    if test is None:
        return [MISSING] * 5
    return [str(test["seed"]), f"{test['b']:,}", f"{test['c']:,}", f"{test['p']:.2g}", f"{test['p_holm']:.2g}"]


def _figure(name: str, system: Mapping[str, Any]) -> str:
    """Write a metric with its interval, and with its range where there are several seeds."""
    figure, is_percent = system[name], name in DIFFERENCES
    text = _percent(figure) if is_percent else written(figure)
    if len(system["seeds"]) == 1:
        return text
    low, high = (f"{100 * figure[end]:.1f}" if is_percent else f"{figure[end]:.4f}" for end in ("min", "max"))
    return f"{text}, seeds {low} to {high}"


def _percent(figure: Mapping[str, float], sign: str = "") -> str:
    value, low, high = (f"{100 * figure[name]:{sign}.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def _seconds(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return MISSING
    if spread["min"] == spread["max"]:
        return _number(spread["mean"])
    return f"{spread['mean']:,.0f} ({spread['min']:,.0f} to {spread['max']:,.0f})"


def _notes(comparison: Mapping[str, Any]) -> list[str]:
    runs = [run for system in comparison["systems"] for run in system["runs"]]
    first = cell(comparison["systems"][0]["name"])
    labels = ", ".join(map(cell, comparison["labels"]))
    commands = {system["name"]: system["runs"][0]["command"] or MISSING for system in comparison["systems"]}
    num_tests = sum(difference["mcnemar"] is not None for difference in comparison["differences"])
    return [
        f"- n = {comparison['n']:,} test rows, the same for all; classes: {labels}",
        f"- in brackets: 95 % percentile bootstrap intervals, {comparison['num_resamples']:,} resamples (seed "
        f"{comparison['seed']}) of the rows; of a system with several seeds, its metrics are means over them, and "
        "seeds and rows are resampled at once. Few seeds say little about others, and one says nothing: resamples of "
        "two seeds show half of the variance between seeds, those of three two thirds, so that such intervals are "
        "somewhat too narrow",
        "- differences: each resample draws the same rows for both systems, and each system's seeds apart; their "
        "intervals are not adjusted for the number of systems",
        f"- p: McNemar's exact test, on the lowest seed that both have, of the b rows that only {first} has right "
        f"against the c that only the other has; p (Holm) is adjusted for {num_tests} test{'s' * (num_tests != 1)} by "
        "Holm's method",
        *(f"- {cell(name)}: {code(command)}" for name, command in commands.items()),
        *(_condition(name, runs) for name in ("commit", "versions", "hardware", "data")),
    ]


def _condition(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """Say a condition once where all runs share it, and otherwise which runs had which."""
    folders: dict[str, list[str]] = {}
    for run in runs:
        folders.setdefault(cell(_flat(run[name])), []).append(cell(run["folder"]))
    if len(folders) == 1:
        return f"- {name}: {next(iter(folders))}"
    said = "; ".join(f"{text} ({', '.join(theirs)})" for text, theirs in folders.items())
    return f"- {name}, not the same for all runs: {said}"


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(part)}" for name, part in value.items())
    return MISSING if value is None else str(value)


def draw_comparison(comparison: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draw accuracy and macro-F1 of what [`compare`] gives: a dot with its interval, and a small mark for each seed.

    Args:
        comparison: what [`compare`] gives.
        path: the PNG file to write.
    """
    systems = comparison["systems"]
    # A dollar sign would start a formula.
    names = ["\n".join(wrap(system["name"], NAME_WIDTH)).replace("$", r"\$") for system in systems]
    num_lines = max(name.count("\n") + 1 for name in names)
    figure = Figure(figsize=(10, 1.2 + len(systems) * (0.12 + 0.14 * num_lines)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, DIFFERENCES, strict=True):
        axes.axvline(systems[0][name]["value"], color=GREY, linewidth=1, linestyle="--")
        for row, system in enumerate(systems):
            value, low, high = (system[name][part] for part in ("value", "low", "high"))
            seeds = [run[name] for run in system["runs"]]
            axes.plot(seeds, [row] * len(seeds), linestyle="", marker="|", markersize=12, color=ORANGE)
            axes.errorbar(value, row, xerr=[[value - low], [high - value]], fmt="o", markersize=5, color=BLUE)
        axes.set(title=TITLES[name])
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        tidy(axes)
    panels[0].set_yticks(range(len(systems)), names, fontsize=8)
    panels[0].set_ylim(len(systems) - 0.5, -0.5)
    figure.supxlabel(f"n = {comparison['n']:,}; lines: 95 % intervals; strokes: seeds", fontsize=9)
    save(figure, path)
