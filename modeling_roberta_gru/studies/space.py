"""What a study varies: a small file of options with their values, and how points are taken from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..arguments import DataArguments, all_options, read_yaml
from ..errors import InputError, unknown_name
from ..options import UNSET, Option
from ..training.metrics import METRICS, metric_names

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("grid", "random", "tpe")
PRUNINGS = ("none", "median")

OF_THE_STUDY = ("config", "output_dir", "overwrite_output_dir", "resume_from_checkpoint")
"""Options that a study sets by itself."""
OF_TRAINING_ROWS = (
    *("max_train_samples", "max_length", "max_windows", "window_policy", "oversample", "oversample_to"),
    *("word_vectors", "replace_share", "replace_neighbours", "replace_similarity", "replace_vocabulary"),
)
"""Options of the data that leave the validation rows as they are; all others must be the same in all trials."""


class Range(NamedTuple):
    """Numbers to draw from, both ends included; whole numbers where both ends are."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Space:
    """What a study varies and how, as its file has it.

    Attributes:
        path: the file.
        options: choices or a range for each option, in the order of the file.
        sampler: one of [`SAMPLERS`].
        metric: the validation metric that trials are compared by.
        trials: how many points are drawn; None for a grid.
        pruning: one of [`PRUNINGS`]; median: a trial ends at an evaluation where it is below the median of the others.
    """

    path: str
    options: dict[str, list[Any] | Range]
    sampler: str = "grid"
    metric: str = "accuracy"
    trials: int | None = None
    pruning: str = "none"

    @property
    def points(self) -> list[dict[str, Any]]:
        """The options of each trial, a grid's last one changing fastest; empty where they are yet to be drawn."""
        if self.trials is not None:
            return [{}] * self.trials
        return [dict(zip(self.options, values, strict=True)) for values in product(*self.options.values())]

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Points in which each value occurs: all of a grid, or each choice and end beside the first of the others."""
        if self.trials is None:
            return self.points
        values = {
            name: choices[:2] if isinstance(choices, Range) else choices for name, choices in self.options.items()
        }
        first = {name: choices[0] for name, choices in values.items()}
        return [first | {name: value} for name, choices in values.items() for value in choices]

    def describe(self) -> dict[str, Any]:
        """Return what JSON can hold, as the file has it."""
        settings = {name: getattr(self, name) for name in ("sampler", "metric", "trials", "pruning")}
        ranges = {name: choices._asdict() for name, choices in self.options.items() if isinstance(choices, Range)}
        return {**settings, "space": self.options | ranges}

    def draw(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Draw a trial's options; those of a queued point are given back."""
        return {name: _draw(trial, name, choices) for name, choices in self.options.items()}


def _draw(trial: "optuna.Trial", name: str, choices: list[Any] | Range) -> Any:
    if isinstance(choices, list):
        return trial.suggest_categorical(name, choices)
    low, high, log = choices
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, low, high, log=log)


def read_space(path: str | Path) -> Space:
    """Read a space file; `recipes/spaces` has examples.

    Raises:
        InputError: if the file is not such a file, or varies what a study cannot compare.
    """
    held = read_yaml("--space", path)
    if not isinstance(held, dict) or not isinstance(held.get("space"), dict) or not held["space"]:
        raise InputError(
            f"--space {path} must have a key space, with lines such as 'optimizer: [sgd, adam]' under it.",
            field="space",
            file=str(path),
        )
    known = ("sampler", "metric", "trials", "pruning", "space")
    for key in held:
        if key not in known:
            raise unknown_name(f"key in {path}:", key, known, field=key, file=str(path))
    figures = dict.fromkeys(name for problem_type in METRICS for name in metric_names(problem_type))
    if str(held.get("metric", "")).startswith("test"):
        raise InputError(
            f"{path}: metric {held['metric']}: a study chooses by validation only. Known: {[*figures]}.",
            field="metric",
            file=str(path),
        )
    sampler = _read_name(path, held, "sampler", SAMPLERS)
    return Space(
        path=str(path),
        options={name: _read_option(path, name, value, sampler) for name, value in held["space"].items()},
        sampler=sampler,
        metric=_read_name(path, held, "metric", ["accuracy", *figures]),
        trials=_read_trials(path, held.get("trials"), sampler),
        pruning=_read_name(path, held, "pruning", PRUNINGS),
    )


def _read_name(path: str | Path, held: Mapping[str, Any], key: str, known: Sequence[str]) -> str:
    name = held.get(key, known[0])
    if name not in known:
        raise unknown_name(f"{key} in {path}:", str(name), known, field=key, file=str(path))
    return name


def _read_trials(path: str | Path, trials: Any, sampler: str) -> int | None:
    if sampler == "grid":
        if trials is not None:
            raise InputError(
                f"{path}: trials is for the samplers random and tpe; a grid has its points. Leave it out.",
                field="trials",
                file=str(path),
            )
        return None
    if not (isinstance(trials, str) and trials.isdecimal() and int(trials)):
        raise InputError(
            f"{path}: sampler {sampler} needs trials, a whole number above 0, got {trials}.",
            field="trials",
            file=str(path),
        )
    return int(trials)


def _read_option(path: str | Path, name: str, value: Any, sampler: str) -> list[Any] | Range:
    known = all_options()
    if name not in (*known, "config"):
        raise unknown_name(f"option in {path}:", name, known, field=name, file=str(path))
    of_data = {field.name for field in fields(DataArguments)} - set(OF_TRAINING_ROWS)
    if name in (*OF_THE_STUDY, "seed", "data_seed") or name in of_data:
        raise InputError(
            f"{path}: {name} must be the same in all trials, otherwise their metrics cannot be compared.",
            field=name,
            file=str(path),
        )
    if isinstance(value, dict):
        return _read_range(path, name, value, sampler, is_whole=name in known and known[name].kind is int)
    if not isinstance(value, list) or not value:
        raise InputError(
            f"{path}: {name} needs a list of values, or a range such as {{low: 1e-5, high: 1e-3}}.",
            field=name,
            file=str(path),
        )
    if not all(isinstance(item, str) for item in value):
        raise InputError(
            f"{path}: {name} has a list or mapping among its values: write it in quotes, as one text.",
            field=name,
            file=str(path),
        )
    choices = [_converted(known[name], item) for item in value]
    if len(set(map(repr, choices))) < len(choices):
        raise InputError(f"{path}: {name} has a value twice: {', '.join(value)}.", field=name, file=str(path))
    return choices


def _converted(option: Option, text: str) -> Any:
    """Convert a text as `train` does; what it refuses stays a text, which `train` then is given to refuse."""
    if text in UNSET:
        return None
    try:
        return option.convert(text)
    except InputError:
        return text


def _read_range(path: str | Path, name: str, value: Mapping[str, Any], sampler: str, is_whole: bool) -> Range:
    if sampler == "grid":
        raise InputError(
            f"{path}: {name} is a range, which a grid has no points of: list values, or draw by random.",
            field=name,
            file=str(path),
        )
    for key in value:
        if key not in Range._fields:
            raise unknown_name(f"key in {path}: {name}:", key, Range._fields, field=name, file=str(path))
    ends = [value.get(key) for key in ("low", "high")]
    try:
        low, high = (int(str(end)) if is_whole else float(str(end)) for end in ends)
    except ValueError:
        numbers = "whole numbers" if is_whole else "numbers"
        raise InputError(
            f"{path}: {name} needs two {numbers}, low and high, got {ends[0]} and {ends[1]}.",
            field=name,
            file=str(path),
        ) from None
    log = str(value.get("log", "false")).lower()
    if log not in ("true", "false"):
        raise InputError(f"{path}: {name}: log must be true or false, got {value['log']}.", field=name, file=str(path))
    if not low < high < math.inf or (log == "true" and low <= 0):
        bound = ", above 0 where log is true" if log == "true" else ""
        raise InputError(
            f"{path}: {name} needs low below high{bound}, got {low} and {high}.", field=name, file=str(path)
        )
    return Range(low, high, log == "true")
