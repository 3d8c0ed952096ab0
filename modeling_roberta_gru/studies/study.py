"""Studies over options: many trainings, compared by a validation metric. None of them reads the test split.

A study is kept in a database: `study.db` in its folder, unless told otherwise. The same command, run again, resumes
it; run on several machines with one `--storage`, it shares the trials out. One process trains a trial:
`accelerate launch` with several is not supported.

A trial is for one point of the study: the n-th of a grid, or the n-th that is drawn. All points are queued when the
study begins. A point whose trial ended without a result (killed, interrupted, stopped by an error) is queued again,
but left out when three of its trials were killed or stopped by an error. Two workers may queue a point at once: the
lower trial counts. Optuna's GridSampler and RetryHeartbeatStaleTrialCallback are not a substitute: the one hands a
point that another machine still trains out again when no others are left, the other sees neither interrupts nor
errors.
"""

import json
import math
import shlex
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.utils import logging

from .. import experiment
from ..arguments import LOSSES, DataArguments, ModelArguments, all_options, words_by_option
from ..data.splits import load_splits
from ..errors import InputError, first_line, say, unknown_name
from ..files import delete, redacted, why_not_written, without_passwords, write_json, write_text, writing_to
from ..training.architectures import check_options
from ..training.arguments import RobertaGRUTrainingArguments, parse_run
from ..training.metrics import measure, metric_names, to_probabilities
from ..training.record import WITHOUT_EFFECT, changed_options, describe_data, describe_platform, without_machine
from .space import OF_THE_STUDY, Space, read_space
from .study_report import best_trial, draw_curves, draw_options, final_markdown, named, outcome, study_markdown

if TYPE_CHECKING:
    import optuna

logger = logging.get_logger(__name__)

NO_PART_OF_STUDY = (*OF_THE_STUDY, *WITHOUT_EFFECT)
"""Options in which the machines of one study may differ."""

HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 30
POLL_SECONDS = 5.0
STORAGE_ATTEMPTS = 5
POINT_ATTEMPTS = 3
RUNNING, WAITING, FAILED, ENDED = "RUNNING", "WAITING", "FAIL", ("COMPLETE", "PRUNED")  # optuna's names


def _words(name: str, value: Any) -> list[str]:
    """Write an option as on the command line: of one that takes several values, each is a word."""
    if value is not None and all_options()[name].is_list:
        return [f"--{name}", *str(value).split()]
    return [f"--{name}={'null' if value is None else value}"]


@dataclass
class Plan:
    """A study as it was ordered.

    Attributes:
        space: what it varies.
        config: the recipe of its trials, if any.
        words: options of `train.py` that are the same in all trials.
        output_dir: its folder.
        command: what it was ordered by.
    """

    space: Space
    config: str | None
    words: Sequence[str]
    output_dir: Path
    command: str = ""

    def run_words(self, params: Mapping[str, Any], folder: str | Path, seed: int | None = None) -> list[str]:
        """Return the options of `train.py` that train a point into a folder."""
        varied = [word for name, value in params.items() for word in _words(name, value)]
        config = [f"--config={self.config}"] if self.config else []
        seeds = [f"--seed={seed}"] if seed is not None else []
        return [*config, *self.words, *varied, *seeds, f"--output_dir={folder}", "--overwrite_output_dir=true"]

    def parse(
        self, params: Mapping[str, Any], folder: str | Path = "unused"
    ) -> tuple[ModelArguments, DataArguments, RobertaGRUTrainingArguments]:
        """Return the dataclasses of [`run_words`]."""
        parsed = parse_run(self.run_words(params, folder))[:3]
        check_options(*parsed)
        return parsed

    def options(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a point that are not at their default and do not depend on the machine."""
        return without_machine(changed_options(*self.parse(params)), NO_PART_OF_STUDY)

    def describe(self) -> dict[str, Any]:
        """Check all that can be checked before training, and return what makes this study the one it is.

        Raises:
            InputError: if a point, an option or the data are not usable.
        """
        given = words_by_option(self.words)
        for name in (*OF_THE_STUDY, *self.space.options):
            if name in given:
                owner = "the study" if name in OF_THE_STUDY else self.space.path
                raise InputError(f"--{name} is set by {owner}: leave it out of the command.")
        samples = self.space.samples
        for params in samples:
            try:
                self.parse(params)
            except InputError as error:
                self.parse({})  # what is wrong with recipe or command is not the point's fault
                raise InputError(f"{self.space.path}: {named(params)}: {error}") from error
        _, data_args, args = self.parse(samples[0])
        if args.publish_as is not None:
            raise InputError("A study publishes nothing: leave --push_to_hub out, and publish a run of --final.")
        if args.world_size > 1:
            raise InputError("A study trains in one process: start it without accelerate launch or torchrun.")
        splits = load_splits(data_args)
        known = metric_names(splits.labels.problem_type)
        if self.space.metric not in known:
            raise unknown_name(f"metric of these data in {self.space.path}:", self.space.metric, known)
        base = {name: value for name, value in self.options(samples[0]).items() if name not in self.space.options}
        data = describe_data(splits, data_args, data_args.num_tokens)
        return {"space": self.space.describe(), "options": base, "seed": args.seed, "data": data}


def sweep(
    config: str | None,
    space_path: str | Path,
    words: Sequence[str],
    output_dir: str | Path,
    storage: str | None = None,
    num_final_seeds: int = 0,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Run a study, or resume it, until no trial is left, here or on another machine.

    Args:
        config: the recipe of its trials.
        space_path: what it varies; see [`read_space`].
        words: further options of `train.py`, the same in all trials.
        output_dir: its folder, where sweep.json, sweep.md, heat-map.png and curves.png are written anew after each
            trial.
        storage: a database's URL, for several machines; there, the folder's name is the study's. Unset: `study.db` in
            the folder.
        num_final_seeds: train the best options again with so many seeds and read the test split: see [`final`]. One
            machine alone must be told so.
        command: what this was ordered by, for the record.

    Returns:
        What sweep.json holds.

    Raises:
        InputError: if something given is not usable, or the folder holds another study.
    """
    if find_spec("optuna") is None:
        raise InputError("A study needs optuna: pip install optuna.")
    plan = Plan(read_space(space_path), config, words, Path(output_dir), shlex.join(map(redacted, command)))
    described = plan.describe()
    try:
        plan.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output-dir {output_dir} cannot be made: {error.strerror}.") from error
    with writing_to(output_dir), open_study(plan, storage) as study:
        _join(study, described, output_dir)
        _work(study, plan)
        record = write_outputs(study, plan)
        return train_best(study, plan, num_final_seeds) if num_final_seeds else record


@contextmanager
def open_study(plan: Plan, storage: str | None = None) -> Iterator["optuna.Study"]:
    """Open a plan's study, which is made where there is none."""
    import optuna

    # Trials are reported by one line each, failed ones too.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage or f"sqlite:///{(plan.output_dir / 'study.db').resolve()}"
    pruners = {"none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner}
    held = _open_storage(url)
    try:
        yield optuna.create_study(
            storage=held,
            study_name=plan.output_dir.resolve().name if storage else "study",
            direction="minimize" if plan.space.metric in LOSSES else "maximize",
            pruner=pruners[plan.space.pruning](),
            load_if_exists=True,
        )
    finally:
        held.remove_session()
        held.engine.dispose()


def _open_storage(url: str) -> "optuna.storages.RDBStorage":
    import optuna

    problem: Exception | None = None
    for attempt in range(STORAGE_ATTEMPTS):
        time.sleep(attempt / 5)
        try:
            with warnings.catch_warnings():
                # optuna calls its heartbeats experimental; our tests rely on them.
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.storages.RDBStorage(
                    url,
                    # Others write too: wait for them.
                    engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                )
        # Of processes that make the same tables at once all but one fail, and find them made the next time. What is
        # raised is SQLAlchemy's or the driver's own.
        except Exception as error:
            problem = error
    assert problem is not None
    reason = redacted(first_line(problem))
    raise InputError(f"The study's database (--storage) cannot be opened: {reason}.") from problem


def _join(study: "optuna.Study", described: Mapping[str, Any], output_dir: str | Path) -> None:
    """Give a new study its description; an old one must have the same.

    Raises:
        InputError: naming what differs.
    """
    held = study.user_attrs.get("study", described)
    old, new = _compared(held), _compared(described)
    differing = [
        f"{name} was {json.dumps(old.get(name))} and is {json.dumps(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    if differing or list(old) != list(new):
        raise InputError(
            f"--output-dir {output_dir} holds another study: {'; '.join(differing) or 'options in another order'}. "
            "Resume it with the options it was started with, or name another folder."
        )
    # Only the number of draws may have changed.
    study.set_user_attr("study", {**held, "space": described["space"]})


def _compared(described: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten what makes a study the one it is, in the order that its points depend on."""
    space = {name: value for name, value in described["space"].items() if name not in ("trials", "space")}
    options = dict(sorted(without_machine(described["options"], ()).items()))
    return {**space, **described["space"]["space"], "data": described["data"]["fingerprint"], **options}


# Trials


def _work(study: "optuna.Study", plan: Plan) -> None:
    """Take trials from the queue until none is left or running.

    What failed here is not queued again here: it would most likely fail again.
    """
    import optuna

    said = 0
    failed: set[int] = set()
    while True:
        with warnings.catch_warnings():
            # As for heartbeats.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        _queue_missing(study, plan.space, failed)
        states = [trial.state.name for trial in study.get_trials(deepcopy=False)]
        if WAITING in states:
            callback = partial(_tell, plan=plan, failed=failed)
            study.optimize(partial(_objective, plan=plan), n_trials=1, gc_after_trial=True, callbacks=[callback])
        elif RUNNING in states:
            if states.count(RUNNING) != said:
                said = states.count(RUNNING)
                say(f"Waiting for {said} that run in other processes or were just interrupted.")
            time.sleep(POLL_SECONDS)
        else:
            # Processes that were killed left their checkpoints.
            with suppress(FileNotFoundError):
                delete(plan.output_dir / "trials")
            return


def _is_cut_off(trial: "optuna.trial.FrozenTrial") -> bool:
    """Tell whether a trial ended by no doing of its options, which leaves its point to others."""
    result = trial.user_attrs.get("result")
    has_diverged = result is not None and result["metrics"] is None
    return trial.state.name == FAILED and not has_diverged


def _failures(trials: Sequence["optuna.trial.FrozenTrial"]) -> defaultdict[int, list["optuna.trial.FrozenTrial"]]:
    """Return, by point, the trials that began to train and were killed or stopped by an error."""
    failures = defaultdict(list)
    for trial in trials:
        if _is_cut_off(trial) and trial.params and "interrupted" not in trial.user_attrs:
            failures[trial.user_attrs["point"]].append(trial)
    return failures


def _points(study: "optuna.Study", space: Space) -> list[dict[str, Any]]:
    """Return the study's points: as many as the latest command asked for, on whatever machine."""
    return replace(space, trials=study.user_attrs["study"]["space"]["trials"]).points


def _queue_missing(study: "optuna.Study", space: Space, failed: set[int]) -> None:
    """Queue the points that have no trial, or none that was not cut off; not those that failed here or too often."""
    trials = study.get_trials(deepcopy=False)
    taken = {trial.user_attrs.get("point") for trial in trials if not _is_cut_off(trial)} | failed
    failures = _failures(trials)
    for point, params in enumerate(_points(study, space)):
        if point not in taken and len(failures[point]) < POINT_ATTEMPTS:
            study.enqueue_trial(params, user_attrs={"point": point})


def _is_idle(trial: "optuna.Trial", space: Space) -> bool:
    """Tell whether there is nothing to do: the queue was empty after all, or a lower trial has the same point.

    Nor is there where fewer points are wanted by now than were queued, or the point has failed too often.
    """
    point, trials = trial.user_attrs.get("point"), trial.study.get_trials(deepcopy=False)
    return (
        point is None
        or point >= len(_points(trial.study, space))
        or len(_failures(trials)[point]) >= POINT_ATTEMPTS
        or any(
            other.number < trial.number and other.user_attrs.get("point") == point and not _is_cut_off(other)
            for other in trials
        )
    )


def _objective(trial: "optuna.Trial", plan: Plan) -> float:
    """Train a point and return its metric; nan, which optuna counts as failed, where there is none.

    Raises:
        InputError: for a user's mistake before any trial has ended: the other points would most likely meet it too.
    """
    import optuna

    if _is_idle(trial, plan.space):
        return math.nan
    point, space = trial.user_attrs["point"], plan.space
    sampler = optuna.samplers.TPESampler if space.sampler == "tpe" else optuna.samplers.RandomSampler
    # Neither another worker nor a study that is resumed may draw the same again.
    trial.study.sampler = sampler(seed=trial.study.user_attrs["study"]["seed"] + point)
    params = space.draw(trial)
    folder = plan.output_dir / "trials" / str(trial.number)
    name = f"Trial {point + 1} ({named(params)})"
    pruning, are_parsed = PruningCallback(trial, space.metric), False
    try:
        model_args, data_args, args = plan.parse(params, folder)
        are_parsed = True
        result = _result(experiment.train(model_args, data_args, args, callbacks=[pruning]), space.metric)
    except (Exception, KeyboardInterrupt) as error:
        is_mistake = isinstance(error, InputError)
        is_common = is_mistake and not any(
            other.state.name in ENDED for other in trial.study.get_trials(deepcopy=False)
        )
        if isinstance(error, KeyboardInterrupt) or (is_common and are_parsed) or why_not_written(error):
            # No doing of this point's options: it does not count among its failures.
            trial.set_user_attr("interrupted", True)
        else:
            trial.set_user_attr("error", f"{type(error).__name__}: {without_passwords(first_line(error))}")
        if is_mistake and "interrupted" in trial.user_attrs:
            raise InputError(f"{name}: {error}") from error
        if "interrupted" in trial.user_attrs:
            raise
        if is_mistake:
            logger.error("%s failed: %s", name, error)
        else:
            logger.error("%s failed.", name, exc_info=True)
        return math.nan
    finally:
        delete(folder)
    trial.set_user_attr("result", {**result, "platform": describe_platform(args)})
    if result["metrics"] is None:
        return math.nan
    if pruning.is_behind:
        raise optuna.TrialPruned
    return result["metrics"][space.metric]["value"]


def _result(system: Any, metric: str) -> dict[str, Any]:
    """Return validation metrics, how training came to them, and how long it took; of a diverged model no metrics."""
    labels = system.splits.labels
    points = [[row["epoch"], row[f"eval_{metric}"]] for row in system.history if f"eval_{metric}" in row]
    figures = None
    if np.isfinite(system.validation_logits).all():
        probabilities = to_probabilities(system.validation_logits, labels.problem_type)
        references = system.splits.validation["label"][:]
        figures = measure(probabilities, references, labels.problem_type, labels.names)
        figures = {name: figures[name] for name in metric_names(labels.problem_type)}
    return {
        "metrics": figures,
        "curve": [point for point in points if math.isfinite(point[1])],
        "best_step": system.best_step,
        "seconds": round(system.training_seconds, 1),
    }


class PruningCallback(TrainerCallback):
    """Report a trial's metric evaluation by evaluation, and end its training where it falls behind the others.

    Evaluations are counted: batches of another size would make of the same epoch another step.
    """

    def __init__(self, trial: "optuna.Trial", metric: str) -> None:
        self.trial = trial
        self.metric = metric
        self.num_evaluations = 0
        self.is_behind = False

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.num_evaluations += 1
        self.trial.report(kwargs["metrics"][f"eval_{self.metric}"], self.num_evaluations)
        # A training that is at its end costs no more.
        if state.global_step < state.max_steps and self.trial.should_prune():
            self.is_behind = control.should_training_stop = True


# What a study leaves


def _tell(study: "optuna.Study", trial: "optuna.trial.FrozenTrial", plan: Plan, failed: set[int]) -> None:
    """Write the outputs anew after a trial, and say how it ended; keep the point of one that failed."""
    if "error" in trial.user_attrs:
        failed.add(trial.user_attrs["point"])
    elif _is_cut_off(trial):
        return
    record, metric = write_outputs(study, plan), plan.space.metric
    row = next(row for row in record["trials"] if row["trial"] == trial.user_attrs["point"] + 1)
    best = best_trial(record)
    so_far = f"{best['metrics'][metric]['value']:.4f} (trial {best['trial']})" if best else "none"
    seconds = "" if row["seconds"] is None else f", {row['seconds']:.0f} s"
    say(
        f"Trial {row['trial']} of {record['num_trials']}: {named(row['params'])}: {metric} {outcome(row, metric)}, "
        f"best so far {so_far}{seconds}"
    )


def write_outputs(study: "optuna.Study", plan: Plan) -> dict[str, Any]:
    """Write sweep.json, sweep.md and the pictures, each whole, and return what sweep.json holds."""
    record = _record(study, plan)
    write_json(plan.output_dir / "sweep.json", record)
    write_text(plan.output_dir / "sweep.md", study_markdown(record, plan.output_dir.resolve().name))
    if best_trial(record):
        draw_options(record, plan.output_dir / "heat-map.png")
    if any(row["curve"] for row in record["trials"]):
        draw_curves(record, plan.output_dir / "curves.png")
    return record


def _record(study: "optuna.Study", plan: Plan) -> dict[str, Any]:
    described = study.user_attrs["study"]
    platforms: list[dict[str, Any]] = []
    rows = []
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state.is_finished() and not _is_cut_off(trial):
            result = dict(trial.user_attrs["result"])
            platform = result.pop("platform")
            if platform not in platforms:
                platforms.append(platform)
            rows.append({**_row(trial, plan.space), **result, "platform": platforms.index(platform)})
    with_result = {row["trial"] for row in rows}
    for point, attempts in _failures(trials).items():
        errors = [trial.user_attrs["error"] for trial in attempts if "error" in trial.user_attrs]
        if point + 1 not in with_result and (errors or len(attempts) >= POINT_ATTEMPTS):
            num, error = len(attempts), errors[-1] if errors else "killed, perhaps for want of memory"
            times = f"left out after {num}" if num >= POINT_ATTEMPTS else f"failed in {num} of {POINT_ATTEMPTS}"
            result = {"metrics": None, "curve": [], "best_step": None, "seconds": None, "platform": None}
            rows.append({**_row(attempts[-1], plan.space), **result, "error": f"{times} attempts: {error}"})
    record = {
        **described,
        "num_trials": max(len(_points(study, plan.space)), len(rows)),
        "command": plan.command,
        "recipe": plan.config and Path(plan.config).stem,
        "optuna": version("optuna"),
        "platforms": platforms,
        "trials": sorted(rows, key=lambda row: row["trial"]),
    }
    best = best_trial(record)
    return {**record, "best": best and best["trial"], "final": _final_runs(plan, best["params"]) if best else None}


def _row(trial: "optuna.trial.FrozenTrial", space: Space) -> dict[str, Any]:
    return {
        "trial": trial.user_attrs["point"] + 1,
        "params": {name: trial.params.get(name) for name in space.options},
        "state": "failed" if trial.state.name == FAILED else trial.state.name.lower(),
    }


# The best options, on the test split


def train_best(study: "optuna.Study", plan: Plan, num_seeds: int) -> dict[str, Any]:
    """Train the best options again with several seeds, as `train.py` does, which reads the test split.

    The runs are left in `final/seed-S` of the study's folder; those that are there already are not repeated.

    Returns:
        What sweep.json holds.

    Raises:
        InputError: if trials are not finished, or none has a result.
    """
    record = _record(study, plan)
    num_finished = len(record["trials"])
    if num_finished < record["num_trials"]:
        raise InputError(
            f"Only {num_finished} of {record['num_trials']} trials are finished: the best options are not known yet. "
            "Run the same command without --final first."
        )
    best = best_trial(record)
    if best is None:
        raise InputError("No trial finished with a result: there are no best options to train again.")
    finished = {run["seed"] for run in record["final"]["runs"]} if record["final"] else set()
    for seed in range(record["seed"], record["seed"] + num_seeds):
        if seed not in finished:
            words = plan.run_words(best["params"], plan.output_dir / "final" / f"seed-{seed}", seed)
            experiment.run(*parse_run(words), command=["train.py", *words])
    record = write_outputs(study, plan)
    say("\n".join(final_markdown(record["final"], record["space"]["metric"])))
    return record


def _final_runs(plan: Plan, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the test metrics of the final runs that there are with these options, by seed, and their means."""
    found = (plan.output_dir / "final").glob("seed-*/metrics.json")
    paths = [path for path in found if path.parent.name.removeprefix("seed-").isdecimal()]  # not a copy of one
    if not paths:
        return None
    left_out = (*NO_PART_OF_STUDY, "seed")
    wanted = without_machine(plan.options(params), left_out)
    runs = []
    for path in paths:
        options = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))["options"]
        if without_machine(options, left_out) == wanted:
            test = json.loads(path.read_text(encoding="utf-8"))["test"]
            figures = {name: figure for name, figure in test.items() if name not in ("n", "per_class")}
            folder = path.parent.relative_to(plan.output_dir).as_posix()
            seed = int(path.parent.name.removeprefix("seed-"))
            runs.append({"seed": seed, "folder": folder, "n": test["n"], "test": figures})
    if not runs:
        return None
    mean = {name: float(np.mean([run["test"][name]["value"] for run in runs])) for name in runs[0]["test"]}
    return {"n": runs[0]["n"], "runs": sorted(runs, key=lambda run: run["seed"]), "mean": mean}
