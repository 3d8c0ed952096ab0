"""Score a folder of tables on a cluster: `roberta-gru score … --engine ray`.

A part of the input is a task, and a part of the output what remains of it: written under another name and renamed, so
that it is whole or not there. What was cut off resumes with the parts that are missing. Ray starts the workers, one
actor each, and says when one is lost; its part then goes to another.
"""

import json
import logging
import os
import posixpath
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import filelock
import fsspec
from tqdm.auto import tqdm

from ..errors import InputError, first_line, say
from ..files import (
    alone,
    check_compressed_once,
    delete,
    is_url,
    kind_of,
    location_name,
    redacted,
    without_passwords,
    writing_to,
)
from ..training.loading import load_classifier
from .batch_scorer import cpus_given, torch_threads
from .score_file import ScoreOptions, check_text_columns, score_file
from .scorer import Scorer, fingerprint

log = logging.getLogger(__name__)

MANIFEST = "_manifest.json"  # which whoever reads the folder passes over
MOST_TRIES = 4
"""How often a part may take a worker down with it, and a worker be lost before it has its model."""
SECONDS_FOR_A_LOCK = 60
"""In which a worker whose driver was killed lets go of its part."""
VERSIONS = (
    *("ETag", "etag", "blob_id", "mtime", "modificationTime", "modify"),
    *("LastModified", "last_modified", "Last-Modified", "updated", "created"),
)
"""What file systems call that of a file which changes with its content, the surest first."""


@dataclass(frozen=True)
class Part:
    """A file of the input, and of the output.

    Attributes:
        source: its path or URL.
        num_bytes: its size.
        version: what its file system says that changes with its content, such as a time or an ETag; "" if nothing.
        target: the name of what is made of it.
    """

    source: str
    num_bytes: int
    version: str
    target: str


@dataclass(frozen=True)
class PartOptions(ScoreOptions):
    """How every part is scored; `scorer` are arguments of [`Scorer`]."""

    scorer: dict[str, Any] = field(default_factory=dict)


class PartScorer:
    """A worker: a model on a node, which scores parts. What goes wrong with a part is an answer, no exception."""

    def begin(self, model: str, options: PartOptions) -> dict[str, Any]:
        """Load the model.

        Returns:
            `node`; `fingerprint` and `dtype` of the model, or `error`.
        """
        self.options = options
        node = {"node": socket.gethostname()}
        try:
            with torch_threads(cpus_given()):
                self.scorer = Scorer(model, **options.scorer)
        except InputError as error:
            return {**node, "error": str(error)}
        return {**node, "fingerprint": self.scorer.fingerprint, "dtype": self.scorer.dtype}

    def score(self, part: Part, folder: str) -> dict[str, Any]:
        """Score a part into a folder.

        Returns:
            What [`score_file`] returns, or `error`, and `is_broken` if this worker may fail over others, too.
        """
        try:
            return _score_part(self.scorer, part, folder, self.options)
        except InputError as error:
            return {"error": str(error)}
        except Exception as error:  # such as memory that does not suffice: no other part suffers from it
            source = redacted(part.source)
            log.exception("Part %s", source)
            return {"error": f"{source}: {type(error).__name__}: {_said(error)}.", "is_broken": True}


def score_folder(
    model: str,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: PartOptions = PartOptions(),
    *,
    address: str | None = None,
    workers: tuple[int, int | None] = (1, None),
    gpus_per_worker: float = 0,
    restart: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Score every table of a folder on a Ray cluster, and write a Parquet file for each.

    Args:
        model: a run's folder, a saved model's folder or a Hub id that every node can read.
        source: a file, a folder, a glob, or such a URL that fsspec opens: CSV, TSV, JSON Lines, JSON, Parquet.
        target: a folder that every node can write, or its URL.
        options: how every part is scored.
        address: of the cluster. Unset: that in the environment variable RAY_ADDRESS; there none, this machine's own.
        workers: how many must be there to begin, and how many there may be; None: as many as the cluster has room for.
        gpus_per_worker: GPUs of a worker.
        restart: forget what an unfinished run into `target` has scored.
        progress: show a bar.

    Returns:
        What JSON can hold: `parts`, those `done_before`, `rows` and `rows_without_text` of the others, `seconds`,
        `workers_lost`.

    Raises:
        InputError: if Ray, the address, the input, the model or another run stands in the way, or parts could not be
            scored. The same call resumes.
    """
    if find_spec("ray") is None:
        raise InputError("--engine ray needs Ray: pip install 'roberta-gru[ray]'.", field="engine")
    source, target = location_name(source), location_name(target)
    # A worker's working directory is not ours.
    target = _absolute(target)
    model = os.path.abspath(model) if Path(model).exists() else model
    least, most = workers
    if least < 1 or (most is not None and most < least):
        raise InputError(
            f"--workers {least}:{most} is not MIN:MAX, two whole numbers from 1 on, such as 1:8.", field="workers"
        )
    parts = find_parts(source)
    root = f"{_absolute(source).rstrip('/')}/"  # of a folder, of which all that is not hidden is read
    is_within = target.startswith(root) and not _is_hidden(target.removeprefix(root))
    if is_within or any(part.source.startswith(f"{target.rstrip('/')}/") for part in parts):
        raise InputError(
            f"The output {redacted(target)} is within the input: name a folder outside.", file=redacted(target)
        )
    _check_parts(parts, options)
    started = perf_counter()
    with _alone_in(target):
        names = _names_in(target)
        of_file = asdict(options)
        run = {
            "model_name": model,
            "scorer": of_file.pop("scorer"),
            "options": of_file,
            "parts": [{**asdict(part), "source": redacted(part.source)} for part in parts],
        }
        earlier = _begin(target, run, names, restart)
        done = set() if restart else names & {part.target for part in parts}
        # The largest first: what is left for the end is small, and nobody waits long for the last.
        left = sorted((part for part in parts if part.target not in done), key=lambda part: -part.num_bytes)
        said = {"parts": len(parts), "done_before": len(done), "rows": 0, "rows_without_text": 0, "workers_lost": 0}
        if left:
            with _connected(address) as ray:
                can_grow = address is not None or "RAY_ADDRESS" in os.environ
                crew = _Crew(ray, model, options, target, run, earlier, gpus_per_worker, can_grow)
                bar = tqdm(total=len(parts), initial=len(done), disable=not progress, desc="Scoring", unit=" parts")
                with bar:
                    crew.score(left, least, most, bar)
                said |= crew.counts
        elif earlier is not None and earlier["fingerprint"] != fingerprint(*load_classifier(model)):
            raise InputError(
                f"{redacted(target)} was scored by another model. Name another folder, or start over with --restart.",
                field="model",
                file=redacted(target),
            )
        _tidy(target)
    if left and crew.errors:
        listed = "\n".join(crew.errors[:10])
        raise InputError(
            f"{len(crew.errors):,} of {len(parts):,} parts could not be scored; the others are in {redacted(target)}, "
            f"and the same command resumes:\n{listed}"
        )
    return {**said, "seconds": perf_counter() - started, "target": redacted(target)}


class _Crew:
    """The workers of a run, and who does what."""

    def __init__(
        self,
        ray: Any,
        model: str,
        options: PartOptions,
        target: str,
        run: dict[str, Any],
        earlier: dict[str, Any] | None,
        gpus_per_worker: float,
        can_grow: bool,
    ):
        self.ray, self.model, self.options, self.target = ray, model, options, target
        self.run, self.noted = run, earlier
        self.Worker = ray.remote(num_cpus=1, num_gpus=gpus_per_worker, max_restarts=0)(PartScorer)
        self.gpus_per_worker, self.can_grow = gpus_per_worker, can_grow
        self.counts = {"rows": 0, "rows_without_text": 0, "workers_lost": 0}
        self.errors: list[str] = []
        self.starting: dict[Any, Any] = {}  # what a worker's `begin` will return → the worker
        self.working: dict[Any, tuple[Any, Part]] = {}
        self.idle: list[Any] = []
        self.num_failed_starts = 0

    def score(self, parts: Sequence[Part], least: int, most: int | None, bar: tqdm) -> None:
        """Score parts, in their order, until all are done or have an error."""
        ray = self.ray
        waiting = deque(parts)
        tries: dict[Part, int] = dict.fromkeys(parts, 0)
        room = self._room()
        if least > room and not self.can_grow:
            each = f" of {self.gpus_per_worker:g} GPUs each" if self.gpus_per_worker else ""
            raise InputError(
                f"--workers {least}: this machine has room for {room}{each}. Ask for fewer.", field="workers"
            )
        if least > room:
            say(f"Waiting for {least} workers: the cluster has room for {room} now.", error=True)
        for _ in range(min(most or max(room, least), len(parts))):
            self._start()
        least = min(least, len(parts))
        while waiting or self.working:
            if len(self.idle) >= least:
                least = 0  # only the beginning waits for all of them
                while waiting and self.idle:
                    worker, part = self.idle.pop(), waiting.popleft()
                    tries[part] += 1
                    self.working[worker.score.remote(part, self.target)] = worker, part
            if not (self.starting or self.working):  # too few to begin with
                self._start()
            (answer,), _ = ray.wait([*self.starting, *self.working], num_returns=1)
            if answer in self.starting:
                self._meet(answer, bool(waiting))
                continue
            worker, part = self.working.pop(answer)
            try:
                said = ray.get(answer)
            except ray.exceptions.RayTaskError:
                raise  # a mistake of this program
            except ray.exceptions.RayError as error:  # worker or node is lost
                self.counts["workers_lost"] += 1
                if tries[part] >= MOST_TRIES:
                    lost = f"{tries[part]} workers were lost over it"
                    self.errors.append(f"{redacted(part.source)}: {lost} ({first_line(error)}).")
                    bar.update()
                else:
                    waiting.append(part)
                if waiting:
                    self._start()
                continue
            if not said.get("is_broken"):
                self.idle.append(worker)
            elif waiting:
                self._start()
            bar.update()
            if "error" in said:
                self.errors.append(said["error"])
            else:
                self.counts["rows"] += said["rows"]
                self.counts["rows_without_text"] += said["rows_without_text"]

    def _room(self) -> int:
        """Return how many workers the cluster has room for."""
        resources = self.ray.cluster_resources()
        room = int(resources.get("CPU", 0))
        if self.gpus_per_worker:
            room = min(room, int(resources.get("GPU", 0) / self.gpus_per_worker))
        return room

    def _start(self) -> None:
        worker = self.Worker.remote()
        self.starting[worker.begin.remote(self.model, self.options)] = worker

    def _meet(self, answer: Any, is_wanted: bool) -> None:
        """Take in a worker that has its model, or learn why it has none and start another, if one is wanted."""
        worker = self.starting.pop(answer)
        try:
            said = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError:
            raise
        except self.ray.exceptions.RayError as error:
            self.num_failed_starts += 1
            lost = (
                f"{self.num_failed_starts} workers were lost before they had their model ({first_line(error)}). "
                "Is the package installed on every node, and is there memory for a model in each worker?"
            )
            if is_wanted and self.num_failed_starts < MOST_TRIES:
                self._start()
            elif not (self.starting or self.working):
                raise InputError(lost) from None
            elif is_wanted:
                num_left = len(self.idle) + len(self.starting) + len(self.working)
                say(f"{lost} Workers left to continue with: {num_left}.", error=True)
            return
        if "error" in said:
            raise InputError(
                f"On node {said['node']}: {said['error']} Every node must be able to read the model: give a shared "
                "folder or a Hub id."
            )
        self.num_failed_starts = 0
        self._agree({name: said[name] for name in ("fingerprint", "dtype")}, said["node"])
        self.idle.append(worker)

    def _agree(self, found: dict[str, Any], node: str) -> None:
        """Note the run and what its first worker has loaded; refuse whoever has loaded something else."""
        noted = self.noted or found
        for name, option, what in (
            ("fingerprint", "model", "another model"),
            ("dtype", "dtype", "another type of numbers"),
        ):
            if found[name] != noted[name]:
                raise InputError(
                    f"{redacted(self.target)} was begun with {what} than node {node} has loaded ({found[name][:12]}, "
                    f"not {noted[name][:12]}). Give what it had (by --dtype), or start over with --restart.",
                    field=option,
                    file=redacted(self.target),
                )
        if self.noted != {**self.run, **found}:
            self.noted = {**self.run, **found}
            _write(self.target, MANIFEST, self.noted)


def find_parts(source: str) -> list[Part]:
    """List the tables of a folder, a glob or a URL, by their names.

    Raises:
        InputError: if there are none, or they cannot be listed.
    """
    try:
        filesystem, path = fsspec.url_to_fs(source)
        filesystem.invalidate_cache()  # or an earlier listing would say what changes
        is_glob = any(mark in path for mark in "*?[") and not filesystem.exists(path)  # "reviews [2024]" is a name
        if is_glob:
            found = filesystem.glob(path, detail=True)
        elif filesystem.isdir(path):
            filesystem.ls(path, detail=False)  # which raises where it may not; `find` would find nothing
            found = filesystem.find(path, detail=True)
        else:
            found = {path: filesystem.info(path)} if filesystem.exists(path) else {}
    except Exception as error:  # each protocol has errors of its own
        raise InputError(
            f"Could not list {redacted(source)}: {_said(error)}. Check the spelling and your read permission.",
            file=redacted(source),
        ) from None
    root = path.rstrip("/")
    if is_glob:
        root = path[: next(at for at, mark in enumerate(path) if mark in "*?[")].rpartition("/")[0]
    names = sorted(
        name
        for name, about in found.items()
        if about["type"] == "file"
        and kind_of(name)
        and (name == path or not _is_hidden(name.removeprefix(root)))  # what is named itself may be hidden
    )
    check_compressed_once(names)
    if not names:
        raise InputError(
            f"{redacted(source)} holds no CSV, TSV, JSON Lines, JSON or Parquet file.", file=redacted(source)
        )
    return [
        Part(
            _located(name, path, source),
            int(found[name].get("size") or 0),
            next((str(found[name][key]) for key in VERSIONS if found[name].get(key)), ""),
            _part_name(number, name),
        )
        for number, name in enumerate(names)
    ]


def _located(name: str, path: str, source: str) -> str:
    """Write where a file lies that a file system lists as `name`, and the source that it is of as `path`."""
    if not is_url(source) or "://" in name:
        return name
    # With some protocols a path holds the host, or the bucket, and with others it follows it.
    before = source.rstrip("/").removesuffix(path.rstrip("/"))
    if before == source.rstrip("/"):
        return f"{source.partition('://')[0]}://{name.lstrip('/')}"
    return f"{before}{name}"


def _part_name(number: int, source: str) -> str:
    """Name the file that one of the sources is scored into."""
    return f"part-{number:05}-{_file_name(source).partition('.')[0]}.parquet"


def _file_name(location: str) -> str:
    """Return a file's name; of a web address without what follows its path, such as a signature."""
    is_web = location.startswith(("http://", "https://"))
    return posixpath.basename(urlsplit(location).path if is_web else location)


def _absolute(location: str) -> str:
    """Write a location as one that does not depend on the working directory."""
    return location if is_url(location) else os.path.abspath(location)


def _is_hidden(path: str) -> bool:
    """Tell whether a file, or a folder on the way to it, is a note of an engine's own."""
    return any(piece.startswith((".", "_")) for piece in path.split("/"))


def report(result: dict[str, Any]) -> str:
    """Write what [`score_folder`] returns as text."""
    lines = [f"{result['parts']:,} parts in {result['target']}, {result['rows']:,} rows of them scored now."]
    if result["done_before"]:
        lines.append(f"{result['done_before']:,} parts were there already.")
    if result["rows_without_text"]:
        lines.append(f"{result['rows_without_text']:,} rows have no text, and nothing in the new columns.")
    if result["workers_lost"]:
        lines.append(f"{result['workers_lost']:,} workers were lost, and their parts scored by others.")
    return "\n".join(lines)


def _check_parts(parts: Sequence[Part], options: PartOptions) -> None:
    """Look at the columns of every part that lies here; of what is fetched whole to be looked at, at one only."""
    here = [part for part in parts if not is_url(part.source)] or parts[:1]
    with ThreadPoolExecutor(8) as readers:
        list(readers.map(lambda part: check_text_columns(part.source, options), here))


def _score_part(scorer: Scorer, part: Part, folder: str, options: PartOptions) -> dict[str, Any]:
    with TemporaryDirectory() as scratch:
        source, target = Path(part.source), Path(folder) / part.target
        try:
            if is_url(part.source):
                source = Path(scratch) / _file_name(part.source)
                with _transferring(part.source):
                    filesystem, path = fsspec.url_to_fs(part.source)
                    filesystem.get_file(path, str(source))
                os.utime(source, ns=(0, 0))  # so that whoever takes the part over finds the same file
            if is_url(folder):
                target = Path(scratch) / "scored" / part.target
            result = _score_when_free(scorer, source, target, options)
            if is_url(folder):
                with _transferring(folder):
                    filesystem, path = fsspec.url_to_fs(folder)
                    unfinished = f"{path}/.unfinished-{part.target}"
                    filesystem.put_file(str(target), unfinished)
                    filesystem.mv(unfinished, f"{path}/{part.target}")
        except InputError as error:
            fetched, name = str(source), redacted(part.source)
            file = error.file and error.file.replace(fetched, name)
            raise InputError(str(error).replace(fetched, name), field=error.field, file=file, row=error.row) from None
        except OSError as error:
            raise InputError(f"{redacted(part.source)}: {_said(error)}.", file=redacted(part.source)) from None
        return result


def _said(error: BaseException) -> str:
    return without_passwords(first_line(error))


@contextmanager
def _transferring(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each protocol has errors of its own
        raise InputError(f"{redacted(name)}: {_said(error)}.", file=redacted(name)) from None


def _score_when_free(scorer: Scorer, source: Path, target: Path, options: PartOptions) -> dict[str, Any]:
    """Score a part, once a worker that was cut off from its driver has let go of it."""
    end = time.monotonic() + SECONDS_FOR_A_LOCK
    while True:
        try:
            return score_file(scorer, source, target, options, progress=False)
        except InputError as error:
            if not isinstance(error.__context__, filelock.Timeout) or time.monotonic() > end:
                raise
            time.sleep(0.5)


@contextmanager
def _alone_in(target: str) -> Iterator[None]:
    """Let one run at a time write into a folder; one at a URL has no lock."""
    if is_url(target):
        try:
            filesystem, path = fsspec.url_to_fs(target)
            filesystem.makedirs(path, exist_ok=True)
            # A bucket says only when something is written, which would be when the first part is scored.
            filesystem.pipe_file(f"{path}/.unfinished-probe", b"")
            filesystem.rm_file(f"{path}/.unfinished-probe")
        except Exception as error:  # each protocol has errors of its own
            place = redacted(target)
            raise InputError(
                f"{place} cannot be written: {_said(error)}. Check that you may write and delete there.", file=place
            ) from None
        yield
        return
    folder = Path(target)
    if folder.is_file():
        raise InputError(f"{target} is a file: --engine ray writes a folder. Name one.", file=target)
    with alone(folder):
        with writing_to(folder):
            folder.mkdir(exist_ok=True)
        yield


def _names_in(target: str) -> set[str]:
    filesystem, path = fsspec.url_to_fs(target)
    filesystem.invalidate_cache()
    try:
        return {posixpath.basename(name) for name in filesystem.ls(path, detail=False)}
    except FileNotFoundError:  # a bucket's folder is there once it holds something
        return set()
    except Exception as error:  # each protocol has errors of its own
        place = redacted(target)
        raise InputError(f"Could not list {place}: {_said(error)}. May you read there?", file=place) from None


def _begin(target: str, run: dict[str, Any], names: set[str], restart: bool) -> dict[str, Any] | None:
    """Return what is noted of an unfinished run into a folder of these files, if it is this one.

    What has not been scored may be another file by now.
    """
    names = {name for name in names if not name.startswith(".")}
    filesystem, path = fsspec.url_to_fs(target)
    earlier = None
    with suppress(ValueError):
        earlier = json.loads(filesystem.cat_file(f"{path}/{MANIFEST}")) if MANIFEST in names else None
    if not (isinstance(earlier, dict) and earlier.keys() >= {"fingerprint", *run}):  # none of ours
        if names:
            raise InputError(
                f"{redacted(target)} is not empty ({min(names)}), and no run was begun there. Name another folder.",
                file=redacted(target),
            )
        return None
    if restart:
        parts = {part["target"] for part in earlier["parts"]} & names
        for name in [*sorted(parts), MANIFEST]:  # last what says whose the parts are
            filesystem.rm_file(f"{path}/{name}")
        if not is_url(target):
            for unfinished in Path(target).glob(".unfinished-part-*"):
                delete(unfinished)
        return None
    options, before, now = run["options"], earlier["parts"], run["parts"]
    if not earlier["options"]["skip_bad_rows"]:  # what is done has no bad row: others may be skipped from now on
        options = {**options, "skip_bad_rows": False}
    differs = {  # and not the model's name: its fingerprint tells
        "scorer": earlier["scorer"] != run["scorer"],
        "options": earlier["options"] != options,
        "parts": [part["source"] for part in before] != [part["source"] for part in now],
    }
    if any(differs.values()):
        others = " and other ".join(name for name in differs if differs[name])
        raise InputError(
            f"{redacted(target)} was begun with other {others}. Give what it had and it resumes, or start over with "
            "--restart, which deletes its parts.",
            file=redacted(target),
        )
    changed = [part["target"] for part, old in zip(now, before, strict=True) if part != {**part, **old}]
    if stale := [name for name in changed if name in names]:
        raise InputError(
            f"{redacted(target)} holds {len(stale):,} of the parts whose input has changed since (size or time): "
            f"{', '.join(stale[:10])}{', …' if len(stale) > 10 else ''}. Delete them and the same command scores them "
            "again, or start over with --restart.",
            file=redacted(target),
        )
    for name in changed if not is_url(target) else ():
        delete(Path(target) / f".unfinished-{name}")
    return earlier


def _write(target: str, name: str, value: dict[str, Any]) -> None:
    filesystem, path = fsspec.url_to_fs(target)
    filesystem.pipe_file(f"{path}/.unfinished-{name}", json.dumps(value, indent=1).encode())
    filesystem.mv(f"{path}/.unfinished-{name}", f"{path}/{name}")


def _tidy(target: str) -> None:
    """Delete the locks of parts, which nobody can want while this run has the folder for itself."""
    if not is_url(target):
        for lock in Path(target).glob(".part-*.lock"):
            with suppress(OSError):
                lock.unlink()


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    # Texts never pass through Ray's own memory: workers read and write files.
    alone_here = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    settings: dict[str, Any] = {"address": address} if address else alone_here
    was_there = ray.is_initialized()
    try:
        if not was_there:
            _knock(address)
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    except Exception as error:  # it has one of its own for each way in which nobody answers
        if address is None:
            raise InputError(f"Ray could not start on this machine ({first_line(error)}).") from None
        raise InputError(
            f"No Ray cluster answers at {address} ({first_line(error)}). Is it up (ray status), and the address "
            "right? Without --address this machine alone is used.",
            field="address",
        ) from None
    try:
        yield ray
    finally:
        if not was_there:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Connect to HOST:PORT and hang up: Ray itself tries for minutes.

    Raises:
        OSError: if nobody answers there.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
