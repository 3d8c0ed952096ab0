"""Studies over options: each point is trained once, whoever is killed, and nothing is chosen by the test split."""

import errno
import json
import math
import sqlite3
from contextlib import closing, redirect_stdout
from functools import cache, partial
from io import StringIO
from itertools import product
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from modeling_roberta_gru import experiment
from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.labels import SINGLE_LABEL
from modeling_roberta_gru.data.splits import Splits, load_splits
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.studies import space as spaces
from modeling_roberta_gru.studies import study as studies
from modeling_roberta_gru.studies import study_report as reports
from modeling_roberta_gru.training import plots
from modeling_roberta_gru.training.arguments import parse_run
from modeling_roberta_gru.training.metrics import METRICS, to_probabilities
from modeling_roberta_gru.training.record import changed_options, describe_platform
from modeling_roberta_gru.training.trainer import RobertaGRUTrainer

from .tiny import assert_is_small_picture, write_reviews

SPACES = sorted((Path(__file__).parents[1] / "recipes" / "spaces").glob("*.yaml"))
GRID = "space:\n  optimizer: [sgd, adam]\n  learning_rate: [1e-4, 1e-5]\n"
POINTS = list(product(["sgd", "adam"], [0.0001, 0.00001]))
RATES = "space:\n  learning_rate: [1e-3, 1e-4, 1e-5]\n"
TWO = "space:\n  learning_rate: [1e-3, 1e-4]\n"
ONE = "space:\n  learning_rate: [1e-4]\n"
FULL = OSError(errno.ENOSPC, "No space left on device")
RANDOM = "sampler: random\ntrials: 3\nspace:\n  learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"


@pytest.fixture(scope="module", autouse=True)
def unwritten():
    """Let SQLite not wait for the disk: what a killed process has written is there, and machines do not crash here."""

    def connect(connection, _):
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connect)
    yield
    event.remove(Engine, "connect", connect)


@pytest.fixture(scope="module", autouse=True)
def read_once(save_plot):
    """Have optuna's migrations read once, not at each opening of a database; leave pictures blank."""
    from_config, scripts = ScriptDirectory.from_config, []

    def kept(config):
        if not scripts:
            scripts.append(from_config(config))
        return scripts[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", kept)
        patch.setattr(reports, "save", plots.save)
        yield


class Killed(BaseException):
    """What optuna does not catch: the trial is left as a killed process leaves it."""


class Stub:
    """In place of `experiment.train`: how many of 11 rows are right follows from the options; calls are kept."""

    def __init__(self):
        self.trained = []
        self.num_evaluations = []
        self.before = lambda args: None
        rates = {0.001: 2, 0.0001: 4, 0.00001: 3}
        # 4, 6, 5 for the rates of SGD; 8, 10, 9 for those of others
        self.num_right = lambda args: (2 if args.optimizer == "sgd" else 6) + rates.get(args.learning_rate, 1)

    def train(self, model_args, data_args, args, callbacks=()):
        self.before(args)
        Path(args.output_dir, "checkpoint-1").mkdir(parents=True)
        splits = splits_of(data_args.dataset_name, data_args.train_file and data_args.train_file[0])
        labels = np.array(splits.validation["label"][:])
        said = np.where(np.arange(len(labels)) < self.num_right(args), labels, 1 - labels)
        logits = 4.0 * (said[:, None] == np.arange(2))
        history, control = [], SimpleNamespace(should_training_stop=False)
        while len(history) < 3 and not control.should_training_stop:
            step = len(history) + 1
            probabilities = to_probabilities(logits * step / 3, splits.labels.problem_type)
            named = [
                metric.results(probabilities, labels, np.ones((1, len(labels)))) for metric in METRICS[SINGLE_LABEL]
            ]
            evaluated = {f"eval_{name}": value[0] for figures in named for name, value in figures.items()}
            history.append({"epoch": float(step), "step": step, **evaluated})
            for callback in callbacks:
                callback.on_evaluate(args, SimpleNamespace(global_step=step, max_steps=3), control, metrics=evaluated)
        self.trained.append((args.optimizer, args.learning_rate))
        self.num_evaluations.append(len(history))
        course = {"history": history, "best_step": 2, "training_seconds": 41.6}
        return SimpleNamespace(splits=splits, validation_logits=logits, **course)


platform, parsed = cache(describe_platform), cache(parse_run)


@cache
def splits_of(dataset_name: str | None, train_file: str | None) -> Splits:
    return load_splits(DataArguments(dataset_name=dataset_name, train_file=train_file and [train_file]))


def refuse_to_wait(seconds: float) -> None:
    assert seconds < 1, "a study waits for trials that nobody trains"


def load(args: DataArguments) -> Splits:
    return load_splits(args) if args.train_file else splits_of(args.dataset_name, None)


def put_in_place(patch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    patch.setattr(experiment, "train", stub.train)
    patch.setattr(studies, "describe_platform", lambda args: platform())
    patch.setattr(studies, "load_splits", load)
    patch.setattr(studies, "parse_run", lambda words: parsed(tuple(words)))
    patch.setattr(studies.time, "sleep", refuse_to_wait)
    patch.setattr("gc.collect", lambda *generation: 0)  # after each trial: a second in a process that holds torch
    return stub


@pytest.fixture
def stub(monkeypatch):
    return put_in_place(monkeypatch)


def leave_out_pictures(patch: pytest.MonkeyPatch) -> None:
    for name in ("draw_options", "draw_curves"):
        patch.setattr(studies, name, lambda record, path: None)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the pictures out, which take most of the time."""
    leave_out_pictures(monkeypatch)


@pytest.fixture
def in_memory(monkeypatch):
    """Keep studies in memory, at a fifth of the time: for tests that kill no trial and read no database."""

    @cache
    def open_storage(url: str) -> optuna.storages.InMemoryStorage:
        storage = optuna.storages.InMemoryStorage()
        storage.engine = SimpleNamespace(dispose=lambda: None)
        return storage

    monkeypatch.setattr(studies, "_open_storage", open_storage)


@pytest.fixture(scope="module")
def grid(tmp_path_factory, reviews):
    """Return a study of a grid that came to its end: its folder and record, what was trained, and what was said."""
    folder, said = tmp_path_factory.mktemp("grid"), StringIO()
    (folder / "space.yaml").write_text(GRID)
    command = ["roberta-gru", "sweep", "--space", "a b"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        stub = put_in_place(patch)
        leave_out_pictures(patch)
        words = ["--dataset_name", str(reviews), "--seed", "7"]
        record = studies.sweep(None, folder / "space.yaml", words, folder / "study", command=command)
    return SimpleNamespace(folder=folder / "study", record=record, trained=stub.trained, said=said.getvalue())


@pytest.fixture
def study_of_grid(tmp_path, grid, stub, study_of, undrawn):
    """Run the study of a grid again, in a copy of its folder."""
    copytree(grid.folder, tmp_path / "study")
    return partial(study_of, GRID, "--seed", "7", command=["roberta-gru", "sweep", "--space", "a b"])


@pytest.fixture
def study_of(tmp_path, reviews):
    """Run the study of a space file's text in `tmp_path / "study"`."""

    def run(text: str, *words: str, **given):
        (tmp_path / "space.yaml").write_text(text)
        words = ["--dataset_name", str(reviews), *words]
        return studies.sweep(None, tmp_path / "space.yaml", words, tmp_path / "study", **given)

    return run


@pytest.fixture
def plan_of(tmp_path, reviews):
    """Make the plan that `study_of` runs."""

    def plan(text: str, *words: str) -> studies.Plan:
        (tmp_path / "space.yaml").write_text(text)
        space = spaces.read_space(tmp_path / "space.yaml")
        return studies.Plan(space, None, ["--dataset_name", str(reviews), *words], tmp_path / "study")

    return plan


def let_an_hour_pass(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "study.db")) as base, base:
        base.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")


def stop_at(number: int, stub: Stub, error: BaseException):
    """Have the n-th training of a stub end in an error, once."""

    def before(args):
        if len(stub.trained) == number - 1:
            stub.before = lambda args: None
            raise error

    stub.before = before


# The order of things


def test_a_grid_is_trained_point_by_point_with_the_last_option_fastest(grid):
    record = grid.record
    assert grid.trained == POINTS
    assert [tuple(row["params"].values()) for row in record["trials"]] == POINTS
    values = [row["metrics"]["accuracy"]["value"] for row in record["trials"]]
    assert values == pytest.approx([n / 11 for n in (6, 5, 10, 9)])
    assert (record["best"], record["num_trials"], record["command"]) == (3, 4, "roberta-gru sweep --space 'a b'")
    assert record["seed"] == record["options"]["seed"] == 7
    assert {"optimizer", "learning_rate", "output_dir"}.isdisjoint(record["options"])
    first = record["trials"][0]
    assert (first["trial"], first["seconds"], first["best_step"]) == (1, 41.6, 2)
    # at temperature 1: 6 of 11 rows are right, all with logits 4 apart
    assert first["metrics"]["log_loss"]["value"] == pytest.approx(math.log1p(math.exp(-4)) + 4 * 5 / 11)
    assert first["curve"] == [[epoch, pytest.approx(6 / 11)] for epoch in (1, 2, 3)]
    lines = grid.said.splitlines()
    assert len(lines) == 4
    figure = record["trials"][1]["metrics"]["accuracy"]
    assert figure["low"] < 5 / 11 < figure["high"]
    assert lines[1] == (
        f"Trial 2 of 4: optimizer=sgd, learning_rate=1e-05: accuracy 0.4545 ({figure['low']:.4f} to "
        f"{figure['high']:.4f}), best so far 0.5455 (trial 1), 42 s"
    )


def test_outputs_are_written_after_every_trial_and_checkpoints_deleted(tmp_path, stub, study_of, drawn):
    folder = tmp_path / "study"
    counts = []

    def look(args):
        assert Path(args.output_dir).parent == folder / "trials"
        assert not list((folder / "trials").glob("*"))
        counts.append(len(read(folder)["trials"]) if stub.trained else 0)

    stub.before = look
    record = study_of(TWO)
    assert counts == [0, 1]
    assert read(folder) == record
    outputs = {"sweep.json", "sweep.md", "heat-map.png", "curves.png"}
    assert {path.name for path in folder.iterdir()} == {"study.db", *outputs}
    for name in ("heat-map.png", "curves.png"):
        assert_is_small_picture(folder / name)


def read(folder: Path) -> dict:
    return json.loads((folder / "sweep.json").read_text())


def test_the_table_is_sorted_by_the_metric_and_says_how_it_came_about(grid):
    text = (grid.folder / "sweep.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [row[0] for row in rows] == [f"| {n}" for n in (3, 4, 1, 2)]
    assert rows[0][1:3] == ["adam", "0.0001"]
    assert rows[0][3].startswith("0.9091 (")
    assert "chosen by validation; the test split was not read" in text
    assert "n = 11 validation rows" in text
    assert "Command: `roberta-gru sweep --space 'a b'`" in text
    assert grid.record["data"]["fingerprint"] in text
    assert grid.record["platforms"][0]["hardware"]["processor"] in text


@pytest.mark.parametrize("metric", ["log_loss", "calibration_error"])
def test_of_a_loss_less_is_better(metric, tmp_path, stub, study_of, undrawn, in_memory):
    assert study_of(f"metric: {metric}\n{TWO}")["best"] == 2  # right most often, at equal confidence
    assert (tmp_path / "study" / "sweep.md").read_text().split("| --- |\n")[1].startswith("| 2 |")


def test_trials_say_who_trained_them(monkeypatch, stub, study_of, undrawn, in_memory):
    platforms = [{"commit": commit, "hardware": {}, "versions": {}} for commit in "aba"]
    monkeypatch.setattr(studies, "study_markdown", lambda record, name: "")
    monkeypatch.setattr(studies, "describe_platform", lambda args: platforms.pop(0))
    record = study_of(RATES)
    assert [platform["commit"] for platform in record["platforms"]] == ["a", "b"]
    assert [row["platform"] for row in record["trials"]] == [0, 1, 0]


# Going on


def fail_at(rate: float, stub: Stub, error: BaseException) -> list[float]:
    """Have each training at a rate end in an error; return the rates of all trainings that began."""
    begun = []

    def before(args):
        begun.append(args.learning_rate)
        if args.learning_rate == rate:
            raise error

    stub.before = before
    return begun


def test_a_point_that_fails_each_time_ends_no_command_and_is_left_out_after_three(
    tmp_path, stub, study_of, finals, undrawn, in_memory, capsys
):
    begun = fail_at(0.0001, stub, RuntimeError("CUDA out of memory: 2 | 3 GiB\nSee the manual."))
    for said in ("failed in 1 of 3", "failed in 2 of 3", "left out after 3", "left out after 3"):
        record = study_of(RATES)
        assert [row["state"] for row in record["trials"]] == ["complete", "failed", "complete"]
        assert record["trials"][1]["error"] == f"{said} attempts: RuntimeError: CUDA out of memory: 2 | 3 GiB"
        assert record["best"] == 3
        assert read(tmp_path / "study") == record
        row = f"| 2 | 0.0001 | {said} attempts: RuntimeError: CUDA out of memory: 2 \\| 3 GiB | – | – |"
        assert row in (tmp_path / "study" / "sweep.md").read_text().splitlines()
    assert begun == [0.001, 0.0001, 0.00001, 0.0001, 0.0001]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Trial 2 of 3")]
    assert len(lines) == 3
    assert lines[0].endswith("out of memory: 2 | 3 GiB, best so far 0.7273 (trial 1)")
    assert len(study_of(RATES, num_final_seeds=1)["final"]["runs"]) == 1


def test_a_point_that_failed_is_trained_by_the_next_command(stub, study_of, undrawn):
    stop_at(1, stub, RuntimeError("CUDA out of memory"))
    assert [study_of(ONE)["trials"][0]["state"] for _ in range(2)] == ["failed", "complete"]


def test_a_point_at_which_each_process_is_killed_is_left_out_after_three(tmp_path, stub, study_of, undrawn):
    begun = fail_at(0.0001, stub, Killed())
    for _ in range(3):
        with pytest.raises(Killed):
            study_of(ONE)
        let_an_hour_pass(tmp_path / "study")
    record = study_of(ONE)
    assert len(begun) == 3
    assert record["trials"][0]["error"] == "left out after 3 attempts: killed, perhaps for want of memory"


def test_a_mistake_in_what_all_points_need_ends_each_command_and_is_no_failure_of_a_point(
    stub, study_of, undrawn, in_memory
):
    fail_at(0.0001, stub, InputError("the Hub cannot be reached"))
    for _ in range(4):
        with pytest.raises(InputError, match=r"Trial 1 \(learning_rate=0.0001\): the Hub cannot be reached"):
            study_of(ONE)
    stub.before = lambda args: None
    assert [row["state"] for row in study_of(ONE)["trials"]] == ["complete"]


def test_an_error_is_recorded_without_passwords(stub, study_of, undrawn, in_memory):
    fail_at(0.0001, stub, OSError("https://me:secret@host/model has gone"))
    assert study_of(ONE)["trials"][0]["error"].endswith("OSError: https://***@host/model has gone")


def test_options_that_were_drawn_and_cannot_go_together_are_left_out(stub, study_of, undrawn, in_memory):
    text = "sampler: random\ntrials: 2\nspace: {max_windows: [2, null], window_policy: [null, head]}\n"
    trials = study_of(text)["trials"]
    assert [row["state"] for row in trials] == ["complete", "failed"]
    assert "--window_policy" in trials[1]["error"]


def test_options_that_cannot_go_together_may_be_drawn_first(stub, study_of, undrawn, in_memory):
    text = "sampler: random\ntrials: 3\nspace: {max_windows: [2, null], window_policy: [null, head]}\n"
    states = [row["state"] for row in study_of(text, "--seed", "43")["trials"]]
    assert states[0] == "failed"
    assert "complete" in states


def test_a_mistake_at_one_point_is_listed_and_the_others_are_trained(
    stub, study_of, finals, undrawn, in_memory, caplog
):
    fail_at(0.0001, stub, InputError("there are too many layers"))
    record = study_of(RATES, num_final_seeds=1)
    assert [row["state"] for row in record["trials"]] == ["complete", "failed", "complete"]
    assert record["trials"][1]["error"] == "failed in 1 of 3 attempts: InputError: there are too many layers"
    assert "Trial 2 (learning_rate=0.0001) failed: there are too many layers" in caplog.text
    assert len(record["final"]["runs"]) == 1


@pytest.mark.parametrize(("error", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (FULL, InputError)])
def test_interrupts_and_full_disks_are_no_failures_of_a_point(error, raised, stub, study_of, undrawn, in_memory):
    begun = fail_at(0.0001, stub, error)
    for _ in range(3):
        with pytest.raises(raised):
            study_of(ONE)
    stub.before = lambda args: None
    assert study_of(ONE)["trials"][0]["state"] == "complete"
    assert len(begun) == 3


def test_a_killed_study_finishes_exactly_what_is_missing(tmp_path, stub, study_of, undrawn):
    stop_at(2, stub, Killed())
    with pytest.raises(Killed):
        study_of(RATES)
    assert stub.trained == [("nadam", 0.001)]
    let_an_hour_pass(tmp_path / "study")
    record = study_of(RATES)
    assert stub.trained == [("nadam", rate) for rate in (0.001, 0.00001, 0.0001)]
    assert [row["trial"] for row in record["trials"]] == [1, 2, 3]
    assert study_of(RATES) == record
    assert len(stub.trained) == 3


def test_a_trial_killed_after_its_training_is_trained_again(tmp_path, monkeypatch, stub, study_of, undrawn):
    set_user_attr = optuna.Trial.set_user_attr

    def kill_after(trial, key, value):
        set_user_attr(trial, key, value)
        if trial.number == 1:
            raise Killed

    monkeypatch.setattr(optuna.Trial, "set_user_attr", kill_after)
    with pytest.raises(Killed):
        study_of(TWO)
    let_an_hour_pass(tmp_path / "study")
    assert [row["state"] for row in study_of(TWO)["trials"]] == ["complete"] * 2
    assert stub.trained == [("nadam", rate) for rate in (0.001, 0.0001, 0.0001)]


def test_a_study_killed_while_it_was_begun_misses_nothing(monkeypatch, stub, study_of, undrawn, in_memory):
    enqueue = optuna.Study.enqueue_trial

    def queue_two(study, params, **given):
        if len(study.get_trials()) == 2:
            raise Killed
        enqueue(study, params, **given)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", queue_two)
        with pytest.raises(Killed):
            study_of(GRID)
    study_of(GRID)
    assert stub.trained == POINTS


def test_a_trial_that_found_no_data_is_trained_by_the_next_command(stub, study_of, undrawn, in_memory):
    stop_at(2, stub, InputError("the data are gone"))
    assert [row["state"] for row in study_of(RATES)["trials"]] == ["complete", "failed", "complete"]
    assert [row["state"] for row in study_of(RATES)["trials"]] == ["complete"] * 3


def test_an_interrupted_trial_is_trained_by_the_next_command(stub, study_of, plan_of, undrawn, in_memory):
    stop_at(2, stub, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        study_of(RATES)
    with studies.open_study(plan_of(RATES)) as study:
        assert "RUNNING" not in [trial.state.name for trial in study.trials]
    assert len(study_of(RATES)["trials"]) == 3
    assert sorted(stub.trained, reverse=True) == [("nadam", rate) for rate in (0.001, 0.0001, 0.00001)]


def test_a_full_disk_is_said_in_one_line(stub, study_of, undrawn):
    error = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = sqlite3.OperationalError("database or disk is full")
    stop_at(1, stub, error)
    with pytest.raises(InputError, match="study cannot be written: the disk is full"):
        study_of(ONE)


def test_what_others_train_is_waited_for_and_taken_over_if_they_die(
    tmp_path, monkeypatch, stub, study_of, undrawn, capsys
):
    stop_at(1, stub, Killed())
    with pytest.raises(Killed):
        study_of(TWO)
    naps = []

    def nap(seconds):
        if seconds:
            assert len(naps) < 2
            naps.append(len(stub.trained))
            if len(naps) == 2:
                let_an_hour_pass(tmp_path / "study")

    monkeypatch.setattr(studies.time, "sleep", nap)
    record = study_of(TWO)
    assert naps == [1, 1]
    assert stub.trained[-1] == ("nadam", 0.001)
    assert [row["trial"] for row in record["trials"]] == [1, 2]
    assert capsys.readouterr().out.count("Waiting for 1 that run in other processes") == 1


@pytest.fixture
def second_worker(monkeypatch, stub, study_of):
    """Have another worker take up a study during the n-th training, until it waits for that one."""

    def start(number: int, text: str) -> None:
        def work(args):
            if len(stub.trained) == number - 1:
                stub.before = lambda args: None
                with pytest.raises(Killed):
                    study_of(text)

        stub.before = work

    monkeypatch.setattr(studies, "POLL_SECONDS", 1e-9)
    monkeypatch.setattr(studies.time, "sleep", lambda seconds: kill() if seconds == 1e-9 else None)
    return start


def test_two_workers_share_a_grid_and_do_no_point_twice(stub, study_of, second_worker, undrawn):
    second_worker(1, RATES)
    record = study_of(RATES)
    assert stub.trained == [("nadam", rate) for rate in (0.0001, 0.00001, 0.001)]
    assert [row["trial"] for row in record["trials"]] == [1, 2, 3]


def kill():
    raise Killed


def test_what_fails_here_is_trained_by_another_worker(stub, study_of, second_worker, undrawn, in_memory):
    second_worker(1, RATES)
    take_over = stub.before

    def fail(args):
        stub.before = take_over
        raise RuntimeError("CUDA out of memory")

    stub.before = fail
    assert [row["state"] for row in study_of(RATES)["trials"]] == ["complete"] * 3
    assert stub.trained == [("nadam", rate) for rate in (0.00001, 0.001, 0.0001)]


def test_what_two_workers_queued_at_once_is_trained_once(stub, study_of, plan_of, undrawn, in_memory):
    plan = plan_of(GRID)
    (plan.output_dir).mkdir()
    with studies.open_study(plan) as study:
        for point, params in [*enumerate(plan.space.points)] * 2:
            study.enqueue_trial(params, user_attrs={"point": point})
    record = study_of(GRID)
    assert stub.trained == POINTS
    assert len(record["trials"]) == 4


def test_a_worker_that_finds_the_queue_empty_after_all_trains_nothing(grid, stub, study_of_grid, plan_of):
    plan = plan_of(GRID)
    with studies.open_study(plan) as study:
        study.optimize(lambda trial: studies._objective(trial, plan), n_trials=1)
    assert study_of_grid() == grid.record
    assert stub.trained == []


def test_a_data_base_that_another_process_makes_meanwhile_is_no_error(monkeypatch, stub, study_of, undrawn):
    failures = iter([OperationalError("CREATE TABLE studies", {}, Exception("table studies already exists"))])
    make = optuna.storages.RDBStorage.__init__

    def collide(storage, *given, **named):
        for failure in failures:
            raise failure
        make(storage, *given, **named)

    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", collide)
    assert len(study_of(ONE)["trials"]) == 1
    assert next(failures, None) is None


def test_a_diverged_training_is_shown_as_failed_and_not_repeated(tmp_path, stub, study_of, in_memory, capsys):
    train = stub.train

    def diverge(model_args, data_args, args, callbacks=()):
        system = train(model_args, data_args, args, callbacks)
        if args.learning_rate == 0.001:
            system.validation_logits[3] = np.nan
            system.history[0]["eval_accuracy"] = math.nan
        return system

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "train", diverge)
        study_of(TWO)
        record = study_of(TWO)
    assert len(stub.trained) == 2
    assert [row["state"] for row in record["trials"]] == ["failed", "complete"]
    assert record["trials"][0]["metrics"] is None
    assert record["best"] == 2
    assert "learning_rate=0.001: accuracy failed: training diverged" in capsys.readouterr().out
    rows = [line for line in (tmp_path / "study" / "sweep.md").read_text().splitlines() if line.startswith("| 1 |")]
    assert "failed: training diverged" in rows[0]


@pytest.mark.parametrize(("metric", "pruning"), [("accuracy", "median"), ("log_loss", "median"), ("accuracy", "none")])
def test_a_trial_behind_the_median_of_the_others_is_stopped(
    metric, pruning, stub, study_of, undrawn, in_memory, capsys
):
    stub.num_right = lambda args: 3 if args.warmup_steps == 6 else 4 + round(args.warmup_steps)
    record = study_of(f"metric: {metric}\npruning: {pruning}\nspace: {{warmup_steps: [1, 2, 3, 4, 5, 6]}}\n")
    is_stopped = pruning == "median"
    assert stub.num_evaluations == [3, 3, 3, 3, 3, 1 if is_stopped else 3]
    assert [row["state"] for row in record["trials"]] == ["complete"] * 5 + ["pruned" if is_stopped else "complete"]
    assert len(record["trials"][-1]["curve"]) == stub.num_evaluations[-1]
    assert capsys.readouterr().out.count("stopped early") == is_stopped
    assert record["best"] == 5


def test_a_training_that_is_at_its_end_is_not_stopped():
    trial = SimpleNamespace(report=lambda value, step: None, should_prune=lambda: True)
    for step, is_behind in ((3, False), (2, True)):
        course, control = studies.PruningCallback(trial, "accuracy"), SimpleNamespace(should_training_stop=False)
        state = SimpleNamespace(global_step=step, max_steps=3)
        course.on_evaluate(None, state, control, metrics={"eval_accuracy": 0.5})
        assert course.is_behind == control.should_training_stop == is_behind


def test_an_interrupted_study_draws_what_an_uninterrupted_one_draws(stub, study_of, undrawn, in_memory):
    drawn = [row["params"]["learning_rate"] for row in study_of(RANDOM, storage="memory:///another")["trials"]]
    assert len(set(drawn)) == 3
    assert all(1e-5 <= rate <= 1e-3 for rate in drawn)
    stub.trained.clear()
    stop_at(2, stub, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        study_of(RANDOM)
    assert [row["params"]["learning_rate"] for row in study_of(RANDOM)["trials"]] == drawn
    more = study_of(RANDOM.replace("trials: 3", "trials: 4"))
    assert [row["params"]["learning_rate"] for row in more["trials"]][:3] == drawn
    assert len(more["trials"]) == len(set(stub.trained)) == len(stub.trained) == 4


def test_fewer_trials_than_were_queued_end_a_study(stub, study_of, undrawn, in_memory):
    stop_at(2, stub, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        study_of(RANDOM.replace("trials: 3", "trials: 6"))
    record = study_of(RANDOM.replace("trials: 3", "trials: 2"))
    assert len(set(stub.trained)) == len(record["trials"]) == record["num_trials"] == 2


def test_fewer_trials_on_one_machine_end_the_study_on_all(stub, study_of, second_worker, undrawn, in_memory):
    second_worker(2, RANDOM.replace("trials: 3", "trials: 2"))
    record = study_of(RANDOM.replace("trials: 3", "trials: 6"))
    assert len(stub.trained) == len(record["trials"]) == record["num_trials"] == 2


def test_lists_are_varied_as_texts(plan_of):
    plan = plan_of('space: {attention_horizons: ["0", "0 1024 512"]}\n')
    assert [plan.parse(point)[0].attention_horizons for point in plan.space.points] == [[0], [0, 1024, 512]]


def test_a_range_is_of_the_options_kind_however_its_ends_are_written(stub, study_of, undrawn, in_memory):
    drawn = study_of(
        "sampler: random\ntrials: 8\nspace: {weight_decay: {low: 0, high: 1}, max_windows: {low: 1, high: 9}}\n"
    )
    values = [row["params"] for row in drawn["trials"]]
    assert all(isinstance(row["max_windows"], int) for row in values)
    assert not all(row["weight_decay"] in (0, 1) for row in values)
    with pytest.raises(InputError, match="max_windows needs two whole numbers"):
        study_of("sampler: random\ntrials: 8\nspace: {max_windows: {low: 1, high: 2.5}}\n")


def test_tpe_draws_whole_numbers_fractions_and_choices(stub, study_of, undrawn, in_memory):
    ranges = "gru_hidden_size: {low: 8, high: 64, log: true}, label_smoothing_factor: {low: 0, high: 0.3}"
    record = study_of(f"sampler: tpe\ntrials: 11\nspace: {{{ranges}, optimizer: [sgd, adam]}}\n")
    drawn = [row["params"] for row in record["trials"]]
    assert len({json.dumps(params) for params in drawn}) == 11  # ten at random, then by what went well
    assert all(type(params["gru_hidden_size"]) is int for params in drawn)
    assert all(0 <= params["label_smoothing_factor"] <= 0.3 for params in drawn)
    assert {params["optimizer"] for params in drawn} == {"sgd", "adam"}


# What is refused


def test_another_study_in_the_same_folder_is_refused(stub, study_of, study_of_grid):
    header, optimizers, rates = GRID.splitlines(keepends=True)
    for text, words, message in (
        (GRID, ["--seed", "7", "--num_train_epochs", "9"], "num_train_epochs was null and is 9.0"),
        (GRID, [], "seed was 7 and is null"),
        (GRID.replace("1e-5", "1e-6"), ["--seed", "7"], r"learning_rate was \[.* 1e-05\] and is \[.* 1e-06\]"),
        (f"metric: log_loss\n{GRID}", ["--seed", "7"], 'metric was "accuracy" and is "log_loss"'),
        (f"{GRID}  warmup_steps: [6]\n", ["--seed", "7"], r"warmup_steps was null and is \[6.*\]"),
        (header + rates + optimizers, ["--seed", "7"], "options in another order"),
    ):
        with pytest.raises(InputError, match=f"holds another study: {message}.*name another folder"):
            study_of(text, *words)
    assert stub.trained == []


def test_machines_of_other_kinds_share_a_study():
    study, shared = optuna.create_study(), {"bf16_if_available": True, "learning_rate": 1e-4}
    for chosen in ({"use_cpu": True, "bf16": True}, {}, {"use_cpu": True}):
        space = {"sampler": "grid", "metric": "accuracy", "trials": None, "pruning": "none", "space": {}}
        described = {"space": space, "data": {"fingerprint": "the same"}, "options": {**shared, **chosen}}
        studies._join(study, described, "out")


def test_a_study_of_data_that_changed_is_refused(tmp_path, stub, plan_of, undrawn):
    plan = plan_of(ONE)
    for num_rows in (40, 44):
        file = write_reviews(tmp_path / "reviews.csv", num_rows, seed=0)
        given = (None, plan.space.path, ["--train_file", str(file)], plan.output_dir)
        if num_rows == 40:
            studies.sweep(*given)
    with pytest.raises(InputError, match="data was"):
        studies.sweep(*given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed: 3\n" + RATES, "Unknown key in .*space.yaml: 'speed'"),
        ("sampler: grit\n" + RATES, "sampler in .*space.yaml: 'grit'. Did you mean 'grid'"),
        ("pruning: mean\n" + RATES, "pruning in .*space.yaml: 'mean'"),
        ("metric: acuracy\n" + RATES, "metric in .*space.yaml: 'acuracy'. Did you mean 'accuracy'"),
        ("metric: test_accuracy\n" + RATES, "a study chooses by validation only"),
        ("metric: mae\n" + RATES, "Unknown metric of these data in .*space.yaml: 'mae'"),
        ("trials: 3\n" + RATES, "trials is for the samplers random and tpe"),
        ("sampler: tpe\n" + RATES, "sampler tpe needs trials, a whole number above 0, got None"),
        ("sampler: random\ntrials: 0\n" + RATES, "needs trials, a whole number above 0, got 0"),
        ("space: {}\n", "must have a key space"),
        ("- 1\n", "must have a key space"),
        ("space: [\n", "is not YAML"),
        (
            "space: {learning_rates: [1e-3]}\n",
            "Unknown option in .*space.yaml: 'learning_rates'. Did you mean 'learning_rate'",
        ),
        ("space: {learning_rate: []}\n", "learning_rate needs a list of values"),
        ("space: {learning_rate: 1e-3}\n", "learning_rate needs a list of values"),
        ("space: {learning_rate: [1e-3, 0.001]}\n", "learning_rate has a value twice"),
        ("space: {class_weights: [{bad: 1, good: 2}]}\n", "class_weights has a list or mapping among its values"),
        (
            "space: {learning_rate: {low: 1e-5, high: 1e-3}}\n",
            "learning_rate is a range, which a grid has no points of",
        ),
        (RANDOM.replace("1e-3", "1e-5"), "learning_rate needs low below high, above 0 where log is true"),
        (RANDOM.replace("1e-5", "0"), "learning_rate needs low below high, above 0"),
        (RANDOM.replace("1e-5", "few"), "learning_rate needs two numbers, low and high, got few and 1e-3"),
        (RANDOM.replace("high: 1e-3,", ""), "learning_rate needs two numbers, low and high, got 1e-5 and None"),
        (RANDOM.replace("true", "maybe"), "learning_rate: log must be true or false"),
        (RANDOM.replace("log", "lag"), "Unknown key in .*space.yaml: learning_rate: 'lag'. Did you mean 'log'"),
        # what train.py refuses
        ("space: {optimizer: [adam, adma]}\n", "space.yaml: optimizer=adma: .*'adma'"),
        ("space: {learning_rate: [1e-3, high]}\n", "space.yaml: learning_rate=high: .*'high'"),
        (
            RANDOM.replace("low: 1e-5", "low: -1").replace("true", "false"),
            r"space.yaml: learning_rate=-1(\.0)?: .*above 0",
        ),
        (RANDOM.replace("learning_rate", "gru_hidden_size"), "gru_hidden_size needs two whole numbers"),
        ("space: {max_windows: [2], optimizer: [sgd, adam], window_policy: [tail]}\n", "window_policy=tail: .*'tail'"),
    ],
)
def test_a_space_that_makes_no_sense_is_one_line_before_any_training(text, message, stub, study_of):
    with pytest.raises(InputError, match=message) as raised:
        study_of(text)
    assert "space.yaml" in str(raised.value)
    assert stub.trained == []


@pytest.mark.parametrize(
    "name",
    [
        *("output_dir", "config", "seed", "data_seed", "overwrite_output_dir", "resume_from_checkpoint"),
        *("dataset_name", "dataset_revision", "train_file", "validation_file", "test_file", "split", "split_seed"),
        *("max_validation_samples", "max_test_samples", "pool_splits", "clean_html", "on_bad_row", "text_column"),
    ],
)
def test_what_must_be_the_same_in_all_trials_cannot_be_varied(name, stub, study_of):
    with pytest.raises(InputError, match=f"{name} must be the same in all trials"):
        study_of(f"space: {{{name}: [1, 2]}}\n")


def test_options_of_the_data_that_can_be_varied_leave_the_validation_rows_alone(tmp_path, reviews):
    lines = (reviews / "train.csv").read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text("".join(lines[:60] + lines[61::2]))

    def validation(**options):
        return load_splits(DataArguments(train_file=[str(tmp_path / "train.csv")], **options)).validation["row_id"][:]

    rows = validation()
    assert set(spaces.OF_TRAINING_ROWS) <= set(DataArguments.__dataclass_fields__)
    for options in ({"max_train_samples": 20}, {"oversample": "copies"}, {"max_length": 9}, {"max_windows": 1}):
        assert set(options) <= set(spaces.OF_TRAINING_ROWS)
        assert validation(**options) == rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output_dir", "elsewhere"], "--output_dir is set by the study"),
        (["--learning_rate=1e-3"], "--learning_rate is set by .*space.yaml"),
        (["--no_calibrate"], "--calibrate is set by .*space.yaml"),
        (["--learning_rat=1e-3"], "^Unknown option '--learning_rat'"),
        (["--optimizer", "adma"], "^Unknown --optimizer 'adma'"),
        (["--dataset_name", "nowhere/at-all"], "nowhere/at-all"),
    ],
)
def test_a_mistake_in_the_command_is_named_before_any_training(words, message, stub, study_of):
    with pytest.raises(InputError, match=message):
        study_of(f"{RATES}  calibrate: [true, false]\n", *words)
    assert stub.trained == []


def test_several_processes_are_refused(monkeypatch, stub, study_of):
    monkeypatch.setattr("modeling_roberta_gru.training.arguments.RobertaGRUTrainingArguments.world_size", 2)
    with pytest.raises(InputError, match="start it without accelerate launch"):
        study_of(RATES)


def test_optuna_is_asked_for_where_it_is_missing(monkeypatch, study_of):
    monkeypatch.setattr(studies, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install optuna"):
        study_of(RATES)


@pytest.mark.parametrize("storage", ["here", "nosuch://host/name", "sqlite:////no/such/folder/study.db"])
def test_a_storage_that_cannot_be_used_is_one_line(storage, monkeypatch, stub, study_of):
    monkeypatch.setattr(studies.time, "sleep", lambda seconds: None)
    with pytest.raises(InputError, match="--storage"):
        study_of(RATES, storage=storage)


def test_a_shared_storage_is_found_by_the_folder_s_name(tmp_path, stub, study_of, undrawn):
    storage = f"sqlite:///{tmp_path}/shared.db"
    record = study_of(ONE, storage=storage, command=["sweep", "--storage", storage])
    assert not (tmp_path / "study" / "study.db").exists()
    with closing(sqlite3.connect(tmp_path / "shared.db")) as database:
        assert database.execute("SELECT study_name FROM studies").fetchall() == [("study",)]
    assert record["command"] == f"sweep --storage {storage}"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_that_comes_along_is_read(path):
    space = spaces.read_space(path)
    assert space.points
    assert all(name in sample for sample in space.samples for name in space.options)


def test_a_null_takes_a_recipe_s_option_back(tmp_path, plan_of):
    plan = plan_of("space: {early_stopping_patience: [null, 2], verify_load: [no, yes]}\n")
    (tmp_path / "recipe.yaml").write_text("early_stopping_patience: 5\n")
    plan.config = str(tmp_path / "recipe.yaml")
    parsed = [plan.parse(params)[2] for params in plan.space.points]
    assert [args.early_stopping_patience for args in parsed] == [None, None, 2, 2]
    assert [args.verify_load for args in parsed] == [False, True, False, True]


# The best options, on the test split


@pytest.fixture
def finals(monkeypatch):
    """Stand in for `experiment.run`: keep the seeds, and leave what a run leaves."""
    seeds = []

    def run(model_args, data_args, args, recipe=None, command=()):
        seeds.append(args.seed)
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        value = {"value": args.seed / 100, "low": 0.0, "high": 1.0, "n": 32}
        options = changed_options(model_args, data_args, args)
        (folder / "run.json").write_text(json.dumps({"options": options, "command": command}))
        metrics = {"test": {"n": 32, "accuracy": value, "macro_f1": value, "per_class": {}}}
        (folder / "metrics.json").write_text(json.dumps(metrics))

    monkeypatch.setattr(experiment, "run", run)
    return seeds


def test_the_best_options_are_trained_again_once_a_seed(tmp_path, grid, study_of_grid, finals, capsys):
    assert grid.record["final"] is None
    record = study_of_grid(num_final_seeds=2)
    assert finals == [7, 8]
    run = json.loads((tmp_path / "study" / "final" / "seed-8" / "run.json").read_text())
    assert (run["options"]["optimizer"], run["options"]["learning_rate"]) == ("adam", 0.0001)
    assert run["command"][0] == "train.py"
    assert [row["folder"] for row in record["final"]["runs"]] == ["final/seed-7", "final/seed-8"]
    assert record["final"]["mean"]["accuracy"] == pytest.approx(0.075)
    assert "| mean | 0.0750 |" in (tmp_path / "study" / "sweep.md").read_text()
    assert "| 8 | 0.0800 (0.0000 to 1.0000) |" in capsys.readouterr().out
    record = study_of_grid(num_final_seeds=3)
    assert finals == [7, 8, 9]
    assert study_of_grid()["final"] == record["final"] == read(tmp_path / "study")["final"]


def test_folders_beside_the_final_runs_do_not_count(tmp_path, study_of_grid, finals):
    record = study_of_grid(num_final_seeds=1)
    final = tmp_path / "study" / "final"
    copytree(final / "seed-7", final / "seed-7-old")
    assert study_of_grid()["final"] == record["final"]


def test_final_runs_of_other_options_do_not_count(tmp_path, study_of_grid, finals):
    study_of_grid(num_final_seeds=1)
    path = tmp_path / "study" / "final" / "seed-7" / "run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps({"options": {**run["options"], "learning_rate": 0.5}}))
    assert study_of_grid()["final"] is None
    assert study_of_grid(num_final_seeds=1)["final"]["runs"][0]["seed"] == 7
    assert finals == [7, 7]


def test_final_runs_wait_for_the_last_trial(stub, study_of, plan_of, finals, undrawn, in_memory):
    stop_at(2, stub, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        study_of(TWO)
    plan = plan_of(TWO)
    with studies.open_study(plan) as study, pytest.raises(InputError, match="Only 1 of 2 trials are finished"):
        studies.train_best(study, plan, 1)
    assert finals == []


# Pictures


@pytest.fixture
def drawn(drawn, monkeypatch):
    monkeypatch.setattr(reports, "save", plots.save)
    return drawn


def record_of(space: dict, points: list, values: list[float], states: str = "", metric: str = "accuracy") -> dict:
    """Make of sweep.json what pictures need: a trial for each point, with the figure, and c, p or f for its state."""
    names = {"c": "complete", "p": "pruned", "f": "failed"}
    rows = [
        {
            "trial": number,
            "params": dict(zip(space, point, strict=True)),
            "state": names[state],
            "metrics": None if state == "f" else {metric: {"value": value, "low": value - 0.1, "high": value + 0.2}},
            "curve": [[1.0, value / 2], [2.0, value]],
        }
        for number, (point, value, state) in enumerate(zip(points, values, states or "c" * 99, strict=False), 1)
    ]
    return {"space": {"metric": metric, "space": space}, "trials": rows}


@pytest.mark.parametrize(("metric", "best"), [("accuracy", (0.5, 0.5)), ("log_loss", (-0.5, -0.5))])
def test_the_heat_map_shows_means_over_the_other_options_and_marks_the_best(metric, best, tmp_path, drawn):
    space = {"optimizer": ["sgd", "adam"], "learning_rate": [1e-3, 1e-4, 1e-5], "class_weights": ["none", "balanced"]}
    values = [0.1, 0.3, 0.3, 0.5, 0.5, 0.7, 0.6, 0.6, 0.9, 0.0, 0.8, 0.8]
    record = record_of(space, [*product(*space.values())], values, "cccccccccpcc", metric)
    reports.draw_options(record, tmp_path / "map.png")
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.2, 0.4, 0.6], [0.6, 0.9, 0.8]])  # 0.0 was cut short
    assert [text.get_text() for text in axes.texts] == ["0.2000", "0.4000", "0.6000", "0.6000", "0.9000", "0.8000"]
    assert axes.patches[0].get_xy() == best
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["sgd", "adam"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.001", "0.0001", "1e-05"]
    assert axes.get_title() == f"Validation {metric}, mean over class_weights"
    assert_is_small_picture(tmp_path / "map.png")


def test_cells_without_a_whole_trial_stay_empty(tmp_path, drawn):
    space = {"optimizer": ["sgd", "adam"], "calibrate": [True, False]}
    reports.draw_options(record_of(space, [*product(*space.values())], [0.5] * 4, "cfpc"), tmp_path / "map.png")
    assert [text.get_position() for text in drawn[0].axes[0].texts] == [(0, 0), (1, 1)]
    assert [tick.get_text() for tick in drawn[0].axes[0].get_xticklabels()] == ["true", "false"]


def test_one_option_is_drawn_as_dots_with_intervals(tmp_path, drawn):
    record = record_of({"optimizer": ["sgd", "adam", "nadam"]}, [("sgd",), ("nadam",), ("adam",)], [0.5, 0.7, 0.6])
    reports.draw_options(record, tmp_path / "dots.png")
    (axes,) = drawn[0].axes
    dots, best = axes.lines
    np.testing.assert_allclose(dots.get_xydata(), [[0, 0.5], [2, 0.7], [1, 0.6]])
    np.testing.assert_allclose(best.get_xydata(), [[2, 0.7]])
    np.testing.assert_allclose(axes.collections[0].get_segments()[0], [[0, 0.4], [0, 0.7]])
    assert_is_small_picture(tmp_path / "dots.png")


def test_ranges_are_drawn_against_their_values(tmp_path, drawn):
    space = {
        "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "weight_decay": {"low": 0, "high": 0.1, "log": False},
        "optimizer": ["sgd", "adam"],
    }
    record = record_of(space, [(1e-4, 0.02, "adam"), (3e-5, 0.07, "sgd")], [0.5, 0.7])
    reports.draw_options(record, tmp_path / "ranges.png")
    rate, decay, optimizer = drawn[0].axes
    assert [axes.get_xscale() for axes in drawn[0].axes] == ["log", "linear", "linear"]
    assert [axes.get_xlabel() for axes in drawn[0].axes] == list(space)
    np.testing.assert_allclose(rate.lines[0].get_xydata(), [[1e-4, 0.5], [3e-5, 0.7]])
    np.testing.assert_allclose(decay.lines[0].get_xydata(), [[0.02, 0.5], [0.07, 0.7]])
    np.testing.assert_allclose(optimizer.lines[0].get_xydata(), [[1, 0.5], [0, 0.7]])


def test_the_best_curve_stands_out_and_those_cut_short_are_dashed(tmp_path, drawn):
    record = record_of({"optimizer": ["a", "b", "c"]}, [("a",), ("b",), ("c",)], [0.5, 0.7, 0.9], "ccp")
    reports.draw_curves(record, tmp_path / "curves.png")
    axes = drawn[0].axes[0]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--"]
    assert [line.get_color() == reports.ORANGE for line in axes.lines] == [False, True, False]
    assert axes.lines[0].get_xydata().tolist() == [[1.0, 0.25], [2.0, 0.5]]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["trial 1: optimizer=a", "trial 2: optimizer=b", "trial 3: optimizer=c"]
    assert len({line.get_marker() for line in axes.lines}) == 3
    assert_is_small_picture(tmp_path / "curves.png")


def test_of_many_curves_the_best_alone_is_named(tmp_path, drawn):
    values = list("abcdefg")
    record = record_of({"optimizer": values}, [(value,) for value in values], [0.5, 0.7, 0.9, *[0.6] * 4], "c" * 7)
    reports.draw_curves(record, tmp_path / "curves.png")
    axes = drawn[0].axes[0]
    assert len(axes.lines) == 7
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["trial 3: optimizer=c"]


# The real thing

TINY = [
    *("--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "1", "--save_strategy", "steps"),
    *("--save_steps", "1", "--gru_hidden_size", "5", "--head_hidden_size", "4", "--disable_tqdm", "true"),
    *("--use_cpu", "true", "--verify_load", "false", "--bag_of_words", "false"),
]


@pytest.mark.slow
def test_a_study_trains_real_models_and_reads_the_test_split_only_at_the_end(
    tmp_path, study_of, stand_in, monkeypatch
):
    words = ["--model_name_or_path", str(stand_in), *TINY]
    text = "space:\n  learning_rate: [1e-2, 1e-4]\n"

    def refuse(trainer, test):
        raise AssertionError("the test split was asked for")

    with monkeypatch.context() as patch:
        patch.setattr(RobertaGRUTrainer, "predict_test", refuse)
        record = study_of(text, *words)
        assert [row["state"] for row in record["trials"]] == ["complete", "complete"]
        for row in record["trials"]:
            assert [epoch for epoch, _ in row["curve"]] == pytest.approx([1 / 6, 2 / 6], abs=0.01)
            assert row["metrics"]["accuracy"]["n"] == 11
            assert row["best_step"] in (1, 2)
        assert record["trials"][0]["metrics"]["log_loss"] != record["trials"][1]["metrics"]["log_loss"]
    record = study_of(text, *words, num_final_seeds=1)
    best = record["trials"][record["best"] - 1]
    folder = tmp_path / "study" / "final" / "seed-42"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert record["final"]["runs"][0]["test"]["accuracy"] == metrics["test"]["accuracy"]
    assert metrics["validation"]["accuracy"] == best["metrics"]["accuracy"]  # the same training
    assert (folder / "model" / "model.safetensors").is_file()


def test_a_real_training_is_stopped_without_an_error(monkeypatch, study_of, stand_in, in_memory):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    record = study_of(
        "pruning: median\nspace:\n  learning_rate: [1e-2, 1e-4]\n", "--model_name_or_path", str(stand_in), *TINY
    )
    assert [row["state"] for row in record["trials"]] == ["complete", "pruned"]
    assert [len(row["curve"]) for row in record["trials"]] == [2, 1]


def test_a_bag_of_words_can_be_studied_too(tmp_path, study_of, in_memory):
    record = study_of("space: {class_weights: [none, balanced]}\n", "--architecture", "bag-of-words")
    assert [row["curve"] for row in record["trials"]] == [[], []]
    assert record["trials"][0]["metrics"]["accuracy"]["n"] == 11
    assert not (tmp_path / "study" / "curves.png").exists()
