"""Scoring on a cluster: every row once and as a scorer alone would have it, whoever is killed meanwhile."""

import csv
import json
import os
import random
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import filelock
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import load_file, save_file

from modeling_roberta_gru import Scorer
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.files import alone
from modeling_roberta_gru.inference import cluster
from modeling_roberta_gru.inference.cluster import PartOptions, PartScorer, find_parts, score_folder
from modeling_roberta_gru.inference.score_file import score_file

from .refusals import refused
from .tiny import BENCHMARKS, ROOT, save_tiny_model

FLOAT32 = {"dtype": "float32", "device": "cpu"}
WORDS = ["the", "plot", "was", "long", "and", "slow", "but", "we", "liked", "its", "music", "splendid", "dreadful"]


def texts_of(num_rows, seed):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(num_rows)]


@pytest.fixture(scope="module")
def model(tmp_path_factory, stand_in):
    return save_tiny_model(tmp_path_factory.mktemp("model"), stand_in)


def write_parts(folder, num_parts=6, num_rows=5):
    """Write parts of every kind, some in a folder below; hidden files are notes of other engines."""
    (folder / "below").mkdir(parents=True)
    for number in range(num_parts):
        texts = texts_of(num_rows, number)
        rows = [{"id": number * 10_000 + row, "text": text} for row, text in enumerate(texts)]
        path = folder / ("below" if number % 2 else ".") / f"rows{number}"
        if number % 3 == 0:
            pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
        elif number % 3 == 1:
            path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            with path.with_suffix(".csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["id", "text"])
                writer.writeheader()
                writer.writerows(rows)
    (folder / "_SUCCESS.csv").touch()
    return folder


@pytest.fixture
def parts(tmp_path):
    return write_parts(tmp_path / "in")


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    """Return the rows of all parts as [`score_file`] scores them."""
    folder = tmp_path_factory.mktemp("expected")
    scorer = Scorer(model, **FLOAT32)
    rows = []
    for number, part in enumerate(find_parts(str(write_parts(folder / "in")))):
        score_file(scorer, part.source, folder / f"{number}.parquet", progress=False)
        rows += pq.read_table(folder / f"{number}.parquet").to_pylist()
    return sorted(rows, key=lambda row: int(row["id"]))


def rows_of(folder):
    rows = [row for path in sorted(Path(folder).glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: int(row["id"]))


class LostError(Exception):
    """As Ray's, when a worker or its node is gone."""


class RayTaskError(LostError):
    """As Ray's, when a worker raised an exception."""


class Call:
    """What a worker was asked to do."""

    def __init__(self, method, args, is_lost):
        self.method, self.args, self.is_lost = method, args, is_lost


class FakeRay:
    """Ray, in this process: workers do their work when somebody waits for it, unless they are lost over it.

    `losses` are the numbers of those calls of all workers that take the worker down.
    """

    exceptions = SimpleNamespace(RayError=LostError, RayTaskError=RayTaskError)

    def __init__(self, losses=(), num_cpus=2):
        self.losses, self.num_cpus = set(losses), num_cpus
        self.num_calls, self.num_workers = 0, 0

    def cluster_resources(self):
        return {"CPU": self.num_cpus}

    def remote(self, **_):
        def with_remote(call):
            return SimpleNamespace(remote=call)

        def make(worker_class):
            def start():
                self.num_workers += 1
                worker = worker_class()
                return SimpleNamespace(
                    begin=with_remote(lambda *args: self._call(worker.begin, *args)),
                    score=with_remote(lambda *args: self._call(worker.score, *args)),
                )

            return with_remote(start)

        return make

    def _call(self, method, *args):
        self.num_calls += 1
        return Call(method, args, self.num_calls in self.losses)

    def wait(self, answers, num_returns):
        return random.Random(self.num_calls).sample(answers, num_returns), []

    def get(self, answer):
        if answer.is_lost:
            raise LostError("the worker died")
        return answer.method(*answer.args)


@pytest.fixture
def run(model, monkeypatch):
    """Return a function that scores a folder on workers of this process."""

    def score(source, target, ray=None, **options):
        settings = {name: options.pop(name) for name in ("workers", "restart", "address") if name in options}
        name = options.pop("model", model)

        @contextmanager
        def connected(address):
            yield ray or FakeRay()

        monkeypatch.setattr(cluster, "_connected", connected)
        made = PartOptions(scorer={**FLOAT32, **options.pop("scorer", {})}, **options)
        return score_folder(name, source, target, made, progress=False, **settings)

    return score


def test_every_part_is_scored_as_alone(run, parts, tmp_path, expected):
    result = run(parts, tmp_path / "out")
    assert rows_of(tmp_path / "out") == expected
    assert (result["parts"], result["rows"], result["done_before"]) == (6, 30, 0)
    left = {path.name for path in (tmp_path / "out").iterdir()} - {".lock", "_manifest.json"}
    assert left == {part.target for part in find_parts(str(parts))}


@pytest.mark.parametrize("seed", range(5))
def test_lost_workers_lose_and_double_no_row(run, parts, tmp_path, expected, seed):
    losses = random.Random(seed).sample(range(1, 12), 3)
    ray = FakeRay(losses)
    result = run(parts, tmp_path / "out", ray)
    assert rows_of(tmp_path / "out") == expected
    assert result["workers_lost"] <= 3
    assert ray.num_workers <= 2 + 3


def test_a_part_that_takes_every_worker_down_stands_in_nobodys_way(run, parts, tmp_path, monkeypatch):
    ray = FakeRay()
    get = ray.get

    def lose(answer):
        if len(answer.args) == 2 and "rows4" in getattr(answer.args[0], "source", ""):
            raise LostError("out of memory")
        return get(answer)

    monkeypatch.setattr(ray, "get", lose)
    with pytest.raises(InputError, match=r"rows4.*out of memory"):
        run(parts, tmp_path / "out", ray)
    assert len(rows_of(tmp_path / "out")) == 25


def test_the_last_worker_may_be_lost_after_another_was_given_up(run, parts, tmp_path, monkeypatch):
    for path in parts.rglob("rows*"):
        if path.stem not in ("rows1", "rows4"):
            path.unlink()
    monkeypatch.setattr(cluster, "MOST_TRIES", 2)
    ray = FakeRay()
    get, lost = ray.get, []

    def part_of(answer):
        return Path(getattr(answer.args[0], "source", "")).stem

    def lose(answer):
        if part_of(answer) == "rows4" or (part_of(answer) == "rows1" and "rows1" not in lost):
            lost.append(part_of(answer))
            raise LostError("out of memory")
        return get(answer)

    monkeypatch.setattr(ray, "get", lose)
    # Of what can be waited for, the part that the other worker scores ends last.
    monkeypatch.setattr(ray, "wait", lambda answers, **_: ([min(answers, key=lambda it: part_of(it) == "rows1")], []))
    with pytest.raises(InputError, match=r"rows4.*out of memory"):
        run(parts, tmp_path / "out", ray, workers=(2, 2))
    assert lost == ["rows4", "rows4", "rows1"]
    assert len(rows_of(tmp_path / "out")) == 5


def test_a_restart_that_was_killed_can_be_made_again(run, parts, tmp_path, expected, monkeypatch):
    run(parts, tmp_path / "out")
    delete, deleted = LocalFileSystem.rm_file, []

    def die(self, path):
        if len(deleted) == 2:
            raise KeyboardInterrupt
        deleted.append(path)
        delete(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "rm_file", die)
        with pytest.raises(KeyboardInterrupt):
            run(parts, tmp_path / "out", restart=True)
    run(parts, tmp_path / "out", restart=True)
    assert rows_of(tmp_path / "out") == expected


def test_workers_that_never_come_up_end_the_run(run, parts, tmp_path):
    with pytest.raises(InputError, match="before they had their model"):
        run(parts, tmp_path / "out", FakeRay(range(1, 100)))


def test_workers_that_do_not_come_up_end_no_run_that_has_others(run, parts, tmp_path, expected, monkeypatch, capsys):
    ray = FakeRay(losses=[3, 5, 6, 7, 8])  # a worker of two over its first part, and all that are started in its place
    monkeypatch.setattr(ray, "wait", lambda answers, **_: (answers[:1], []))  # starts end before parts
    assert run(parts, tmp_path / "out", ray)["workers_lost"] == 1
    assert rows_of(tmp_path / "out") == expected
    assert ray.num_workers == 2 + 4
    assert "Workers left to continue with: 1." in capsys.readouterr().err


def test_no_worker_is_started_for_whom_no_part_waits(run, parts, tmp_path, monkeypatch):
    ray = FakeRay(losses=[2])  # the second worker does not come up, while the first scores the last of two parts
    monkeypatch.setattr(ray, "wait", lambda answers, **_: ([answers[-1 if ray.num_calls == 3 else 0]], []))
    assert run(parts / "rows[24].*", tmp_path / "out", ray)["parts"] == 2
    assert ray.num_workers == 2


def test_a_run_that_waits_for_workers_begins_with_all_of_them(run, parts, tmp_path, expected, monkeypatch):
    ray = FakeRay(losses=[2, 3, 4, 5])
    monkeypatch.setattr(ray, "wait", lambda answers, **_: (answers[-1:], []))  # the first is the last to come up
    run(parts, tmp_path / "out", ray, workers=(2, 2))
    assert rows_of(tmp_path / "out") == expected


def test_what_was_cut_off_resumes_with_the_parts_that_are_missing(run, parts, tmp_path, expected):
    out = tmp_path / "out"
    run(parts, out)
    targets = [part.target for part in find_parts(str(parts))]
    kept = {name: (out / name).stat().st_mtime_ns for name in targets[2:]}
    for name in targets[:2]:
        (out / name).unlink()
    result = run(parts, out)
    assert (result["done_before"], result["rows"]) == (4, 10)
    assert rows_of(out) == expected
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    ray = FakeRay()
    assert run(parts, out, ray)["rows"] == 0
    assert ray.num_workers == 0


def test_another_model_or_other_options_do_not_mix(run, parts, tmp_path, expected, stand_in):
    out = tmp_path / "out"
    run(parts, out)
    with refused(file=str(out), match="other options"):
        run(parts, out, prefix="other_")
    with refused(file=str(out), match="other scorer"):
        run(parts, out, scorer={"max_length": 10})
    manifest = json.loads((out / "_manifest.json").read_text())
    (out / "_manifest.json").write_text(json.dumps({**manifest, "fingerprint": "of another model"}))
    (out / find_parts(str(parts))[0].target).unlink()
    with refused(field="model", file=str(out)):
        run(parts, out)
    (parts / "rows6.jsonl").write_text('{"id": 1, "text": "new"}\n')
    with refused(file=str(out), match="other parts"):
        run(parts, out)
    (parts / "rows6.jsonl").unlink()
    run(parts, out, restart=True, all_scores=True)
    assert [{name: row[name] for name in expected[0]} for row in rows_of(out)] == expected


@pytest.mark.parametrize("place", ["here", "memory://of_equal_size"])
def test_an_input_that_changes_at_equal_size_is_not_taken_for_scored(run, tmp_path, place):
    source = str(tmp_path / "in") if place == "here" else place
    filesystem, path = fsspec.url_to_fs(source)
    filesystem.makedirs(path)
    filesystem.pipe({f"{path}/{name}.csv": f"id,text\n{name},good\n".encode() for name in "12"})
    run(source, tmp_path / "out")
    filesystem.pipe(f"{path}/2.csv", b"id,text\n2,evil\n")
    with refused(file=str(tmp_path / "out"), match=r": part-00001-2\.parquet\. "):
        run(source, tmp_path / "out")
    (tmp_path / "out" / "part-00001-2.parquet").unlink()
    assert run(source, tmp_path / "out")["done_before"] == 1
    assert [row["text"] for row in rows_of(tmp_path / "out")] == ["good", "evil"]


def test_what_another_model_has_finished_is_not_taken_for_this_ones(run, parts, tmp_path, stand_in):
    model = save_tiny_model(tmp_path / "model", stand_in)
    run(parts, tmp_path / "out", model=model)
    weights = load_file(Path(model) / "model.safetensors")
    weights["head.out_proj.bias"] += 1
    save_file(weights, Path(model) / "model.safetensors", metadata={"format": "pt"})
    with refused(field="model", file=str(tmp_path / "out")):
        run(parts, tmp_path / "out", model=model)


def test_workers_are_told_places_that_do_not_depend_on_a_working_directory(run, parts, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ray = FakeRay()
    asked = []
    begin, score = PartScorer.begin, PartScorer.score
    monkeypatch.setattr(PartScorer, "begin", lambda self, name, *rest: asked.append(name) or begin(self, name, *rest))
    monkeypatch.setattr(PartScorer, "score", lambda self, part, to: asked.append(to) or score(self, part, to))
    run(os.path.relpath(parts), "out", ray, model=os.path.relpath(model))
    assert asked
    assert all(os.path.isabs(place) for place in asked)
    assert (tmp_path / "out" / "_manifest.json").is_file()


def test_a_server_that_refuses_a_part_costs_no_other(run, parts, tmp_path, monkeypatch):
    class ResponseError(Exception):
        """What a protocol raises that is no OSError."""

    memory = fsspec.filesystem("memory")
    for path in parts.glob("[!_]*.csv"):
        memory.pipe_file(f"/refused/{path.name}", path.read_bytes())
    first = min(path.name for path in parts.glob("[!_]*.csv"))
    get = MemoryFileSystem.get_file

    def get_file(self, source, *rest, **options):
        if source.endswith(first):
            raise ResponseError("403, message='Forbidden'")
        return get(self, source, *rest, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    with pytest.raises(InputError, match=rf"(?s)1 of \d+ parts could not be scored.*{first}: 403"):
        run("memory://refused", tmp_path / "out")


def test_a_folder_of_something_else_is_left_as_it_is(run, parts, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    for restart in (False, True):
        with refused(file=str(tmp_path / "out"), match=r"thesis\.txt"):
            run(parts, tmp_path / "out", restart=restart)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    with refused(file=str(tmp_path / "out" / "thesis.txt"), match="is a file"):
        run(parts, tmp_path / "out" / "thesis.txt")


@pytest.mark.parametrize("manifest", ['{"name": "my web app"}', "[1]", "no JSON"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_manifest_that_is_none_of_ours_is_left_as_it_is(run, parts, tmp_path, manifest, restart):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_manifest.json").write_text(manifest)
    with refused(file=str(tmp_path / "out"), match=r"_manifest\.json"):
        run(parts, tmp_path / "out", restart=restart)
    assert (tmp_path / "out" / "_manifest.json").read_text() == manifest


def test_a_restart_leaves_files_that_are_no_parts(run, parts, tmp_path, expected):
    run(parts, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run(parts, tmp_path / "out", restart=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert rows_of(tmp_path / "out") == expected


def test_what_is_named_is_found_whatever_its_name(tmp_path):
    folder = tmp_path / "reviews [2024]"
    folder.mkdir()
    for name in ("a.csv", "_b.csv", ".c.csv"):
        (folder / name).write_text("text\na\n")
    for named, found in {
        folder: ["a.csv"],
        folder / "a.csv": ["a.csv"],
        folder / "_b.csv": ["_b.csv"],
        tmp_path / "reviews*" / "*.csv": ["a.csv"],
    }.items():
        assert [Path(part.source).name for part in find_parts(str(named))] == found


def test_who_waits_for_workers_is_told_so(run, parts, tmp_path, capsys):
    class Small(FakeRay):
        def wait(self, answers, num_returns):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(parts, tmp_path / "out", Small(num_cpus=1), workers=(3, 3), address="10.0.0.1:6379")
    assert "room for 1" in capsys.readouterr().err


def test_two_runs_into_one_folder_are_one_too_many(run, parts, tmp_path):
    with alone(tmp_path / "out"), pytest.raises(InputError, match="Another process is writing to"):
        run(parts, tmp_path / "out")


def test_a_worker_waits_for_one_that_was_cut_off_from_its_driver(model, parts, tmp_path):
    worker, part = PartScorer(), find_parts(str(parts))[0]
    worker.begin(model, PartOptions(scorer=FLOAT32))
    lock = filelock.FileLock(tmp_path / f".{part.target}.lock", thread_local=False)  # let go by another thread
    lock.acquire()
    threading.Timer(1.0, lambda: lock.release(force=True)).start()
    assert worker.score(part, str(tmp_path))["rows"] == 5


def test_what_stands_in_the_way_is_known_before_work_begins(run, parts, tmp_path):
    (parts / "below" / "late.csv").write_text("id,review\n1,slow\n")
    ray = FakeRay()
    with refused(field="text", file=str(parts / "below" / "late.csv")):
        run(parts, tmp_path / "out", ray)
    assert ray.num_workers == 0
    for source in (tmp_path / "nowhere", tmp_path / "*.parquet", "nosuch://bucket/in"):
        with refused(file=str(source)):
            run(source, tmp_path / "out")
    with refused(field="workers", match="room for 2"):
        run(parts / "*.csv", tmp_path / "out", workers=(3, None))
    with refused(field="workers", match="MIN:MAX"):
        run(parts / "*.csv", tmp_path / "out", workers=(3, 2))


def test_a_node_without_the_model_is_named(parts, tmp_path, run, monkeypatch):
    monkeypatch.setattr(cluster, "Scorer", lambda *_, **__: (_ for _ in ()).throw(InputError("No model there.")))
    with pytest.raises(InputError, match=r"On node .*: No model there\. Every node"):
        run(parts, tmp_path / "out")


def test_parts_with_bad_rows_are_told_together_and_the_others_are_scored(run, parts, tmp_path):
    for number in (1, 3):
        with (parts / "below" / f"late{number}.jsonl").open("w") as file:
            file.write('{"id": 1, "text": "slow"}\n{"id": 2, "text": ""}\n')
    with pytest.raises(InputError, match=r"(?s)2 of 8 parts.*late1.*late3"):
        run(parts, tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 30
    assert run(parts, tmp_path / "other", skip_bad_rows=True)["rows_without_text"] == 2


def write_late(folder, text):
    (folder / "late.jsonl").write_text(f'{{"id": 1, "text": "slow"}}\n{{"id": 2, "text": "{text}"}}\n')


def test_a_part_that_no_worker_can_score_costs_no_other(run, parts, tmp_path, monkeypatch, caplog):
    def run_out_of_memory(scorer, source, *rest, **options):
        if "rows4" in str(source):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return score_file(scorer, source, *rest, **options)

    monkeypatch.setattr(cluster, "score_file", run_out_of_memory)
    with pytest.raises(InputError, match=r"(?s)1 of 6 parts.*rows4.*OutOfMemoryError: CUDA out of memory\.$"):
        run(parts, tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 25
    assert "run_out_of_memory" in caplog.text  # its traceback


def test_a_broken_worker_gets_no_other_part(run, parts, tmp_path, expected, monkeypatch):
    broken = []

    def fail_in_the_first(scorer, source, *rest, **options):
        if scorer in (broken or [scorer]):
            broken[:] = [scorer]
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return score_file(scorer, source, *rest, **options)

    monkeypatch.setattr(cluster, "score_file", fail_in_the_first)
    with pytest.raises(InputError, match=r"1 of 6 parts"):
        run(parts, tmp_path / "out", FakeRay(num_cpus=1))
    assert run(parts, tmp_path / "out", FakeRay())["done_before"] == 5
    assert rows_of(tmp_path / "out") == expected


def test_a_bad_row_may_be_mended_and_the_run_resumed(run, parts, tmp_path):
    write_late(parts, "")
    with pytest.raises(InputError, match=r"1 of 7 parts"):
        run(parts, tmp_path / "out")
    write_late(parts, "mended")
    (target,) = (part.target for part in find_parts(str(parts)) if "late" in part.target)
    unfinished = tmp_path / "out" / f".unfinished-{target}"  # of a worker that was killed over it
    unfinished.mkdir()
    (unfinished / "run.json").write_text("{}")
    (unfinished / "part-00000000.npy").write_bytes(b"of before")
    assert run(parts, tmp_path / "out")["done_before"] == 6
    assert run(parts, tmp_path / "out")["done_before"] == 7
    write_late(parts, "another")
    with refused(file=str(tmp_path / "out"), match="1 of the parts .*late"):
        run(parts, tmp_path / "out")


def test_bad_rows_may_be_skipped_by_the_run_that_resumes_and_are_from_then_on(run, parts, tmp_path):
    write_late(parts, "")
    with pytest.raises(InputError, match=r"1 of 7 parts"):
        run(parts, tmp_path / "out")
    result = run(parts, tmp_path / "out", skip_bad_rows=True)
    assert (result["done_before"], result["rows_without_text"]) == (6, 1)
    with refused(file=str(tmp_path / "out"), match="other options"):
        run(parts, tmp_path / "out")


def test_folders_may_be_urls(run, parts, tmp_path, expected):
    memory = fsspec.filesystem("memory")
    memory.put(str(parts), "/in", recursive=True)
    run("memory://in", "memory://out")
    memory.rm("/out/part-00002-rows5.parquet")
    assert run("memory://in/**", "memory://out")["done_before"] == 5
    memory.get("/out", str(tmp_path / "out"), recursive=True)
    assert rows_of(tmp_path / "out") == expected
    assert not list((tmp_path / "out").glob(".unfinished*"))
    run(parts.as_uri(), (tmp_path / "files").as_uri())
    assert rows_of(tmp_path / "files") == expected


class Bucket(MemoryFileSystem):
    """As a bucket is: folders are there once they hold something, and some may not read, or write."""

    protocol = "bucket"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    forbidden: ClassVar[set[str]] = set()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("bucket:/"))

    def makedirs(self, path, exist_ok=False):
        """Do nothing."""

    def ls(self, path, detail=True, **kwargs):
        if "read" in self.forbidden:
            raise PermissionError("Access Denied")
        return super().ls(path, detail=detail, **kwargs)

    def pipe_file(self, path, value, **kwargs):
        if "write" in self.forbidden:
            raise PermissionError("Access Denied")
        super().pipe_file(path, value, **kwargs)


class Host(MemoryFileSystem):
    """As FTP is: a path does not say which host it is on."""

    protocol = "hosted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        after = path.partition("://")[2] if "://" in path else path
        return f"/{after.partition('/')[2]}".rstrip("/")


@pytest.fixture
def host():
    fsspec.register_implementation("hosted", Host, clobber=True)
    return Host()


@pytest.mark.parametrize("pattern", ["in", "in/", "in/*.csv"])
def test_files_are_found_on_the_host_that_was_named(pattern, host):
    host.pipe({"/in/a.csv": b"text\n", "/in/b.csv": b"text\n"})
    found = [part.source for part in find_parts(f"hosted://me:secret@here:21/{pattern}")]
    assert found == [f"hosted://me:secret@here:21/in/{name}.csv" for name in "ab"]


def test_passwords_of_the_output_are_not_told(run, parts, host):
    assert "secret" not in cluster.report(run(parts, "hosted://me:secret@here/out"))
    with refused(file="hosted://***@here/out") as caught:
        run(parts, "hosted://me:secret@here/out", prefix="other_")
    assert "secret" not in str(caught.value)


def test_passwords_of_the_input_are_neither_noted_nor_told_and_may_change(run, tmp_path, host):
    host.pipe({"/in/a.csv": b"id,text\n1,long\n", "/in/b.csv": b"id,text\n2,\n"})
    for password in ("secret", "another"):
        with pytest.raises(InputError, match=r"1 of 2 parts .*(?s:.*)b\.csv") as caught:
            run(f"hosted://me:{password}@here:21/in", tmp_path / "out")
        assert password not in str(caught.value)
        assert password not in (tmp_path / "out" / "_manifest.json").read_text()
    assert len(rows_of(tmp_path / "out")) == 1


def test_a_signature_is_no_part_of_a_files_name(run, tmp_path, host, monkeypatch):
    find, url = fsspec.core.url_to_fs, "https://host/a.csv?key=x/y"
    for place in (fsspec, fsspec.core):
        monkeypatch.setattr(place, "url_to_fs", lambda name: (host, "/signed?x/y") if name == url else find(name))
    monkeypatch.setattr(host, "_strip_protocol", lambda path: path)
    host.pipe("/signed?x/y", b"id,text\n1,long and slow\n")
    monkeypatch.setattr(cluster, "find_parts", lambda source: [cluster.Part(url, 9, "", cluster._part_name(0, url))])
    assert run(url, tmp_path / "out")["rows"] == 1
    assert (tmp_path / "out" / "part-00000-a.parquet").is_file()


def test_a_bucket_without_rights_is_known_before_work_begins(run, parts, tmp_path, expected, monkeypatch):
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    run(parts, "bucket://ours/out")
    Bucket().get("/ours/out", str(tmp_path / "out"), recursive=True)
    assert rows_of(tmp_path / "out") == expected
    ray = FakeRay()
    monkeypatch.setattr(Bucket, "forbidden", {"write"})
    with refused(file="bucket://theirs/out", match="cannot be written: Access Denied"):
        run(parts, "bucket://theirs/out", ray)
    monkeypatch.setattr(Bucket, "forbidden", {"read"})
    with refused(file="bucket://theirs/out", match="Could not list .*Access Denied"):
        run(parts, "bucket://theirs/out", ray)
    with refused(file="bucket://ours/out", match="Access Denied"):
        run("bucket://ours/out", tmp_path / "other", ray)
    assert ray.num_workers == 0


def test_without_ray_the_error_says_what_to_install(model, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with refused(field="engine", match=r"pip install 'roberta-gru\[ray\]'"):
        score_folder(model, parts, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_largest_part_comes_first(run, parts, tmp_path, monkeypatch):
    order = []
    score = PartScorer.score
    monkeypatch.setattr(
        PartScorer, "score", lambda self, part, folder: order.append(part) or score(self, part, folder)
    )
    run(parts, tmp_path / "out", FakeRay(num_cpus=1))
    assert order == sorted(order, key=lambda part: -part.num_bytes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_address_that_nobody_answers_is_an_error(model, parts, tmp_path):
    with refused(field="address", match=r"127\.0\.0\.1:1 "):
        score_folder(model, parts, tmp_path / "out", address="127.0.0.1:1", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["kills --parts 6 --rows 1500", "training"])
def test_whatever_is_killed_the_output_is_complete_and_equal(part, tmp_path):
    if "ROBERTA_GRU_KILLS" not in os.environ:
        pytest.skip("a busy machine takes many minutes: ROBERTA_GRU_KILLS=1 kills one of each kind")
    pytest.importorskip("ray")
    options = ["--kills", os.environ["ROBERTA_GRU_KILLS"], "--output", str(tmp_path / "cluster.json")]
    command = [sys.executable, str(BENCHMARKS / "cluster.py"), *part.split(), *options]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr[-4000:]


def test_what_was_scored_is_an_input_again_but_no_output_lies_in_its_input(run, parts, tmp_path):
    run(parts, tmp_path / "out")
    assert len(find_parts(str(tmp_path / "out"))) == 6
    for source in (parts, f"{parts}/"):
        with refused(file=str(parts / "scored")):
            run(source, parts / "scored")
    assert not (parts / "scored").exists()
    run(parts, parts / "_scored")  # hidden from the input
    run(f"{parts}/**/*.csv", parts / "tables")
    # What is scored is no input of this command.
    assert run(f"{parts}/*", parts / "scored")["parts"] == run(f"{parts}/*", parts / "scored")["parts"]


def test_a_part_beside_its_compressed_copy_is_refused(tmp_path):
    for name in ("a.csv", "a.csv.gz"):
        (tmp_path / name).touch()
    with refused(file=str(tmp_path / "a.csv.gz")):
        find_parts(str(tmp_path))
