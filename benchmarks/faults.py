"""Kill, fill and crowd the commands, and see whether the same command again ends with the same bytes.

    python benchmarks/faults.py                                        # everything: some 20 minutes of one core
    python benchmarks/faults.py --parts kills --kills 40 --work /tmp/faults --workers 2

Every trial is a line of `trials.jsonl` in the folder of work. What stands there is not repeated: a campaign that was
interrupted continues. Needs Linux and strace, and root for the disks.

**kills.** A run of each command is recorded by strace: every system call that changes the folder of its output, each
known by its name and how many calls of that name its thread has made. A trial starts the command again and has strace
kill it (SIGKILL) as it enters one of them. strace, and no audit hook of Python, since it sees what native code writes,
too: safetensors, pyarrow, torch, SQLite, ONNX. What then stands under its final name must be whole. The same command
then runs to its end: the folder must hold the bytes of an undisturbed run, but for times, and nothing else.

**disk.** The output lies on a tmpfs with room for 0, 10, … 90 % of the pages that an undisturbed run leaves. The
command must end by itself, well or in one line; with more room, the same command ends with the same bytes.

**writers.** Two processes write to one output at once, with different input where the command permits it. The second
begins at a random moment of the first. Each must succeed or be refused in one line, at least one must succeed, and the
folder must hold the output of one of them and nothing of the other's.

Imports take longer than the commands. One process does them once, and is forked for each run; it computes nothing
itself, so that no thread is lost. Models are tiny, files are scored in pools of 8 texts, and studies take a process
for dead after seconds.
"""

import gc
import importlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from measuring import (
    RESULTS,
    conditions,
    forked,
    json_option,
    log,
    panels,
    roberta_gru,
    spread_rows,
    status_of,
    table_of,
    write,
)

RECORDED = RESULTS / "faults.json"
CALLS = (
    *("write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "ftruncate", "fallocate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "symlink"),
    *("fsync", "fdatasync", "chmod", "fchmod", "fchmodat"),
)
"""System calls before which a run is killed."""
SHARES = {"train": 0.34, "export": 0.08, "adapt": 0.19, "score": 0.19, "sweep": 0.19}
"""How the kills are dealt out."""
IMPORTS = (
    *(
        "matplotlib.backends.backend_agg",
        "onnx",
        "onnxruntime",
        "optuna.storages",
        "alembic.command",
        "pyarrow.parquet",
    ),
    *("pydantic.type_adapter", "scipy.stats", "sklearn.feature_extraction.text", "sklearn.linear_model", "torch.onnx"),
    *("transformers.models.bart", "transformers.models.roberta.tokenization_roberta"),
    *(f"modeling_roberta_gru.{name}" for name in ("cli", "experiment", "hub.publish", "training.pretraining")),
    *(f"modeling_roberta_gru.inference.{name}" for name in ("evaluation", "explanation", "export", "score_file")),
    *(f"modeling_roberta_gru.studies.{name}" for name in ("study", "comparison")),
)
"""What any command imports."""
NUM_LEVELS = 10
PAGE_BYTES = 4096
TIMES = re.compile(r"started|seconds|\w+_(seconds|runtime|per_second)|train_loss")
"""Names in JSON of what two undisturbed runs do not share; and the Trainer's mean loss since it was last resumed."""
TRAINING_TIME = re.compile(rb" in [\d.,]+ s\b")
"""What a card says of a training that was not resumed."""
OUT = "out"
LIMIT_SECONDS = 240


class Command(NamedTuple):
    """A command line, of which a second writer to the same output may have another."""

    words: tuple[str, ...]
    other: tuple[str, ...]
    """Further words of the second writer."""
    is_staged: bool = True
    """Whether what stands under its final name is part of a whole output as soon as it stands there."""


TRAINING = (
    *("--dataset_name", "data", "--max_steps", "4", "--eval_strategy", "steps", "--eval_steps", "2"),
    *("--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "1", "--learning_rate", "0.01"),
    *("--gru_hidden_size", "5", "--head_hidden_size", "4", "--per_device_train_batch_size", "8"),
    *(
        "--disable_tqdm",
        "true",
        "--use_cpu",
        "true",
        "--verify_load",
        "false",
        "--bag_of_words",
        "false",
        "--model_name_or_path",
        "base",
    ),
)
COMMANDS = {
    "train": Command(
        ("train", *TRAINING, "--output_dir", f"{OUT}/run", "--resume_from_checkpoint", "auto"), ("--seed", "7"), False
    ),
    "adapt": Command(
        (
            *("adapt", "base", "data/train.csv", "--output-dir", f"{OUT}/encoder", "--epochs", "2"),
            *("--batch-size", "8", "--save-steps", "4", "--validation-share", "0.2"),
        ),
        ("--seed", "7"),
        False,
    ),
    "score": Command(
        ("score", "model", "data/train.csv", f"{OUT}/scored.csv", "--dtype", "float32", "--device", "cpu"),
        ("--all-scores",),
    ),
    "export": Command(("export", "model", "--output-dir", f"{OUT}/onnx"), ("--quantize", "int8")),
    "sweep": Command(
        (
            *("sweep", "--space", "space.yaml", "--dataset_name", "data", "--architecture", "bag-of-words"),
            *("--use_cpu", "true", "--output-dir", f"{OUT}/study", "--final", "--seeds", "1"),
        ),
        (),
        False,
    ),
    "evaluate": Command(
        ("evaluate", "model", "data/test.csv", "--output", f"{OUT}/metrics.json"), ("--slice-by", "venue")
    ),
    "explain": Command(
        (
            *("explain", "model", "The plot was long but we liked its music.", "--output-dir", f"{OUT}/explanation"),
            "--no-attributions",
        ),
        ("--label", "bad"),
    ),
    "compare": Command(("compare", "run", "run-2", "--output-dir", f"{OUT}/compared"), ("--resamples", "50")),
    "publish --dry-run": Command(("publish", "run", "me/mine", "--dry-run"), ()),
}


class Event(NamedTuple):
    """A system call of a recorded run: the nth of its name in its thread."""

    call: str
    nth: int
    path: str


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        status: its exit status; negative: the signal that killed it.
        errors: what it wrote to standard error.
    """

    status: int
    errors: str

    @property
    def is_refused(self) -> bool:
        """Whether it said in one line why it ended."""
        said = [line for line in self.errors.splitlines() if line.startswith("Error: ")]
        return self.status == 2 and len(said) == 1 and "Traceback" not in self.errors


@dataclass
class Campaign:
    """The folder of work, and what is tried there.

    Attributes:
        work: the folder; runs take place in it, so that every run has the same paths.
        seed: of what is left to chance.
        expected: what undisturbed runs leave, by their command lines.
        pages: how much of a disk that takes.
        durations: the seconds that they took.
    """

    work: Path
    seed: int
    expected: dict[tuple[str, ...], dict[str, bytes]] = field(default_factory=dict)
    pages: dict[tuple[str, ...], int] = field(default_factory=dict)
    durations: dict[tuple[str, ...], float] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """The folder that holds the output of a run and nothing else."""
        return self.work / OUT

    # Runs

    def start(self, words: Sequence[str], name: str = "first") -> tuple[int, Callable[[], None]]:
        """Fork a process that runs a command, and return its number and what lets it begin."""
        reads, writes = os.pipe()

        def run() -> None:
            os.close(writes)
            os.read(reads, 1)  # until the other end is closed
            os.environ["PATH"] = "/nowhere"  # git, whose calls strace would count
            roberta_gru(*words)

        process = forked(run, self.work / f"{name}.log")
        os.close(reads)
        return process, lambda: os.close(writes)

    def wait(self, process: int, name: str = "first") -> Outcome:
        """Wait for a run; one that hangs is killed."""
        ends = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < ends:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                said = (self.work / f"{name}.log").read_text(errors="replace")
                return Outcome(os.waitstatus_to_exitcode(status), said)
            time.sleep(0.005)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return Outcome(-signal.SIGALRM, "it hung")

    def run(self, words: Sequence[str]) -> Outcome:
        """Run a command to its end."""
        process, begin = self.start(words)
        begin()
        return self.wait(process)

    def traced(self, words: Sequence[str], *options: str) -> Outcome:
        """Run a command under strace."""
        process, begin = self.start(words)
        tracer = subprocess.Popen(
            ["strace", "-f", "-q", "-y", *options, "-p", str(process)], stderr=subprocess.DEVNULL
        )
        while "TracerPid:\t0\n" in Path(f"/proc/{process}/status").read_text():
            if tracer.poll() is not None:
                raise RuntimeError("strace could not attach: is ptrace permitted here?")
            time.sleep(0.002)
        begin()
        outcome = self.wait(process)
        tracer.wait()
        return outcome

    def clear(self) -> None:
        """Begin anew: an empty folder of output."""
        for folder in (self.out, self.work / "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def undisturbed(self, words: Sequence[str]) -> dict[str, bytes]:
        """Return what a run leaves that nothing disturbs."""
        if tuple(words) not in self.expected:
            self.clear()
            started = time.monotonic()
            outcome = self.run(words)
            if outcome.status != 0:
                raise RuntimeError(f"{' '.join(words)}: status {outcome.status}\n{outcome.errors}")
            self.durations[tuple(words)] = time.monotonic() - started
            self.pages[tuple(words)] = sum(
                -(-path.stat().st_size // PAGE_BYTES) for path in self.out.rglob("*") if path.is_file()
            )
            self.expected[tuple(words)] = self.held()
        return self.expected[tuple(words)]

    def held(self) -> dict[str, bytes]:
        """Return the files of the output, without their times."""
        files = (path for path in sorted(self.out.rglob("*")) if path.is_file() or path.is_symlink())
        return {
            path.relative_to(self.out).as_posix(): without_times(path)
            for path in files
            if not is_lock(path)  # which stay, empty
        }

    # Kills

    def events(self, words: Sequence[str]) -> list[Event]:
        """Record a run, and return the system calls that change its output."""
        self.clear()
        trace = self.work / "trace"
        outcome = self.traced(words, "-s", "0", "-e", f"trace={','.join(CALLS)}", "-o", str(trace))
        if outcome.status != 0:
            raise RuntimeError(outcome.errors)
        counts: Counter[tuple[str, str]] = Counter()
        events = []
        for line in trace.read_text(errors="replace").splitlines():
            found = re.match(r"(\d+) +(\w+)\((.*)", line)
            if not found:
                continue
            thread, call, arguments = found.groups()
            counts[thread, call] += 1
            path = re.search(rf"{re.escape(str(self.out))}(/[^>\"]*)|[\"]{OUT}(/[^\"]*)", arguments)
            if path:
                events.append(Event(call, counts[thread, call], path[1] or path[2]))
        return events

    def kill(self, name: str, event: Event) -> dict[str, Any]:
        """Kill a run before one system call; say what is wrong then, or after the same command ran again."""
        command = COMMANDS[name]
        expected = self.undisturbed(command.words)
        self.clear()
        inject = f"inject={event.call}:signal=SIGKILL:when={event.nth}"
        first = self.traced(command.words, "-e", f"trace={event.call}", "-e", inject, "-o", os.devnull)
        problems = []
        if command.is_staged:
            problems = [
                f"{path} was half written"
                for path, content in self.held().items()
                if not any(part.startswith(".") for part in Path(path).parts) and content != expected.get(path)
            ]
        return {
            "killed": first.status == -signal.SIGKILL,
            "problems": problems + self.again(command.words, expected),
        }

    def again(self, words: Sequence[str], expected: Mapping[str, bytes]) -> list[str]:
        """Run the same command again, and say what is wrong."""
        outcome = self.run(words)
        if outcome.status != 0:
            return [f"run again: status {outcome.status}: {last_line(outcome.errors)}"]
        return differences(self.held(), expected)

    # Full disks

    def fill(self, name: str, level: int) -> dict[str, Any]:
        """Run a command on a disk that is too small, and again with more room."""
        words = COMMANDS[name].words
        expected = self.undisturbed(words)
        self.clear()
        size = self.pages[words] * level // NUM_LEVELS * PAGE_BYTES
        with mounted(self.out, size):
            first = self.run(words)
            problems = []
            if first.status == 0:
                problems = differences(self.held(), expected)
            elif not first.is_refused:
                problems = [f"full disk: status {first.status}: {last_line(first.errors)}"]
            subprocess.run(["mount", "-o", "remount,size=256M", str(self.out)], check=True)
            problems += self.again(words, expected)
        return {"bytes": size, "status": first.status, "problems": problems}

    # Two writers

    def crowd(self, name: str, number: int) -> dict[str, Any]:
        """Have two processes write to one output, the second begun at a random moment of the first."""
        command = COMMANDS[name]
        both = (command.words, (*command.words, *command.other))
        expected = [self.undisturbed(words) for words in both]
        duration = self.durations[command.words]
        self.clear()
        delay = random.Random(f"{self.seed} {name} {number}").uniform(0, 0.8) * duration if number else 0
        names = ("first", "second")
        runs = [self.start(words, writer) for words, writer in zip(both, names, strict=True)]
        for at, (_, begin) in enumerate(runs):
            time.sleep(delay if at else 0)
            begin()
        ends = [self.wait(process, writer) for (process, _), writer in zip(runs, names, strict=True)]
        problems = [
            f"the {writer}: status {end.status}: {last_line(end.errors)}"
            for writer, end in zip(names, ends, strict=True)
            if end.status != 0 and not end.is_refused
        ]
        succeeded = [output for output, end in zip(expected, ends, strict=True) if end.status == 0]
        if not succeeded:
            problems.append("none succeeded")
        elif all(differences(self.held(), output) for output in succeeded):
            problems += differences(self.held(), succeeded[0])
        return {"delay": round(delay, 2), "refused": sum(end.is_refused for end in ends), "problems": problems}


def is_lock(path: Path) -> bool:
    """Tell whether a file is an empty lock, which stays."""
    return path.suffix == ".lock" and path.name.startswith(".") and path.stat().st_size == 0


def without_times(path: Path) -> bytes:
    """Return what a file holds, without the times that two undisturbed runs do not share."""
    if path.suffix == ".db":  # it says when each trial began, and keeps those that were cut off
        with closing(sqlite3.connect(path)) as database:
            return str(database.execute("PRAGMA integrity_check").fetchall()).encode()
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        with suppress(ValueError):
            rows = [json.loads(line) for line in (content.splitlines() if path.suffix == ".jsonl" else [content])]
            return json.dumps(_timeless(rows)).encode()
    if path.suffix == ".md":
        content = b"\n".join(_untimed_rows(content.split(b"\n")))
        return re.sub(rb"[\d.,:T+-]+( s\b)|20\d\d-\d\d-\d\d", rb"-\1", TRAINING_TIME.sub(b"", content))
    return content


def _untimed_rows(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Leave out the last column of a Markdown table if it holds seconds."""
    is_timed = False
    for line in lines:
        is_timed = line.startswith(b"|") and (is_timed or line.endswith(b", s |"))
        yield line.rpartition(b" | ")[0] if is_timed else line


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if not TIMES.fullmatch(key)}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Say which files are missing, are too many, or hold something else."""
    lines = [f"{name} is missing" for name in expected if name not in found]
    lines += [f"{name} is left over" for name in found if name not in expected]
    return lines + [f"{name} differs" for name in found if found[name] != expected.get(name, found[name])]


def last_line(text: str) -> str:
    """Return the last line of a text."""
    return (text.strip().splitlines() or [""])[-1]


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Have a folder on a file system of its own, of so many bytes, and no less than a page."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, PAGE_BYTES)}", "faults", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# What is set up once


def import_everything() -> None:
    """Import what any command needs, and draw once, which loads the fonts; nothing is computed by torch."""
    for name in IMPORTS:
        importlib.import_module(name)
    import PIL.Image

    from modeling_roberta_gru.inference import score_file, scorer
    from modeling_roberta_gru.studies import study
    from modeling_roberta_gru.training import plots

    PIL.Image.init()
    figure, axes = panels(4, 3)
    axes[0].plot([0.1, 10])
    plots.save(figure, Path(os.devnull).with_name("shm") / "faults.png")
    gc.collect()
    gc.freeze()  # what is shared with every fork need not be gone through again
    scorer.POOL_SIZE = score_file.POOL_SIZE = 8
    study.HEARTBEAT_SECONDS, study.GRACE_SECONDS, study.POLL_SECONDS = 1, 4, 0.1


def prepare(work: Path) -> None:
    """Write data, a base encoder, two finished runs and a study's space into the folder of work."""
    import csv

    from transformers import RobertaConfig, RobertaModel

    from modeling_roberta_gru.cli import app
    from modeling_roberta_gru.data.corpus import train_tokenizer

    rng = random.Random(0)
    words = ["the", "plot", "was", "long", "and", "slow", "but", "we", "liked", "its", "music", "more", "than", "most"]
    (work / "data").mkdir(parents=True)
    for split, num_rows in (("train", 48), ("test", 16)):
        with (work / "data" / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "venue"])
            for row in range(num_rows):
                opening = f"{['dreadful', 'splendid'][row % 2]} {split} {row}"
                text = f"{opening} {' '.join(rng.choices(words, k=rng.randint(4, 40)))}"
                writer.writerow([text, ["bad", "good"][row % 2], f"v{row % 3}"])
    tokenizer = train_tokenizer((work / "data" / "train.csv").read_text().splitlines(), vocab_size=400)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=34,
    )
    RobertaModel(config, add_pooling_layer=False).save_pretrained(work / "base")
    tokenizer.save_pretrained(work / "base")
    (work / "space.yaml").write_text(
        "sampler: grid\nmetric: accuracy\nspace:\n  class_weights: [none, balanced]\n", encoding="utf-8"
    )
    for folder, weight_decay in (("run", "0"), ("run-2", "0.1")):
        app(["train", *TRAINING, "--output_dir", folder, "--weight_decay", weight_decay], standalone_mode=False)
    shutil.copytree(work / "run" / "model", work / "model")
    (work / "prepared").touch()


def in_children(functions: Sequence[Callable[[], object]]) -> None:
    """Call each function in a forked process of its own, all at once."""
    processes = [forked(function) for function in functions]
    statuses = [status_of(process) for process in processes]
    if any(statuses):
        raise RuntimeError("What a process was to do could not be done.")


# The campaign


def chosen(events: Sequence[Event], count: int, seed: int) -> list[Event]:
    """Return as many events, spread over the run; every rename and the like first, writes with what is left."""
    distinct = list({event[:2]: event for event in events}.values())
    rare = [event for event in distinct if "write" not in event.call and "sync" not in event.call]
    others = [event for event in distinct if event not in rare]
    if len(rare) > count * 2 // 3 and others:
        rare = [rare[row] for row in spread_rows(len(rare), min(len(rare), count * 2 // 3), seed)]
    rest = min(len(others), count - len(rare))
    return rare + [others[row] for row in spread_rows(len(others), rest, seed) if others]


Trial = tuple[dict[str, Any], Callable[[Campaign], dict[str, Any]]]
"""What names a trial, and the trial."""


def kills(campaign: Campaign, names: Sequence[str], num_kills: int) -> Iterator[Trial]:
    """Yield kills of these commands; the system calls are recorded where they have not been."""
    for name in names:
        if name not in SHARES:
            continue
        recorded = campaign.work / f"events-{name}.json"
        if not recorded.exists():
            recorded.write_text(json.dumps(campaign.events(COMMANDS[name].words)))
        events = [Event(*event) for event in json.loads(recorded.read_text())]
        log(f"{name}: {len(events)} system calls change its output")
        for event in chosen(events, round(num_kills * SHARES[name]), campaign.seed):
            yield (
                {"part": "kills", "command": name, **event._asdict()},
                lambda campaign, name=name, event=event: campaign.kill(name, event),
            )


def disks(names: Sequence[str]) -> Iterator[Trial]:
    """Yield full disks for those of these commands that write much."""
    for name in names:
        for level in range(NUM_LEVELS if name in SHARES else 0):
            yield (
                {"part": "disk", "command": name, "level": level},
                lambda campaign, name=name, level=level: campaign.fill(name, level),
            )


def writers(names: Sequence[str], num_rounds: int) -> Iterator[Trial]:
    """Yield pairs of processes for each of these commands."""
    for name in names:
        for number in range(num_rounds):
            yield (
                {"part": "writers", "command": name, "round": number},
                lambda campaign, name=name, number=number: campaign.crowd(name, number),
            )


def work_off(campaign: Campaign, trials: Sequence[Trial], path: Path) -> None:
    """Make trials in a campaign's folder, and append what came of them to a file."""
    os.chdir(campaign.work)
    os.environ["TMPDIR"] = str(campaign.work / "tmp")
    for named, trial in trials:
        started = time.monotonic()
        row = named | trial(campaign)
        row["seconds"] = round(time.monotonic() - started, 2)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if row["problems"]:
            log(row)


def place_of(worker: int, work: Path) -> Path:
    """Return the folder that a worker has for itself, with all that `prepare` wrote."""
    if worker == 0:
        return work
    place = work / f"worker-{worker}"
    if not place.exists():
        place.mkdir()
        for name in ("data", "base", "model", "run", "run-2"):
            shutil.copytree(work / name, place / name)
        shutil.copy(work / "space.yaml", place)
    return place


def read_trials(path: Path) -> list[dict[str, Any]]:
    """Return the trials that were made."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Count the trials of every part and command, and those that were survived."""
    rows = []
    for part, name in dict.fromkeys((trial["part"], trial["command"]) for trial in trials):
        its = [trial for trial in trials if (trial["part"], trial["command"]) == (part, name)]
        its = [trial for trial in its if trial.get("killed", True)]  # a run may do without a call that was recorded
        row = {"part": part, "command": name, "tried": len(its), "survived": sum(not t["problems"] for t in its)}
        if part == "kills":
            row["calls"] = Counter(trial["call"] for trial in its)
        if part == "writers":
            row["refused"] = sum(trial["refused"] for trial in its)
        rows.append(row)
    return rows


def main(
    parts: Annotated[str, typer.Option(help="Which of kills, disk, writers, with commas.")] = "kills,disk,writers",
    num_kills: Annotated[int, typer.Option("--kills", help="How many, over all commands.")] = 320,
    rounds: Annotated[int, typer.Option(help="Of two writers, for each command.")] = 3,
    only: Annotated[str | None, typer.Option(help="Of these commands only, with commas; nothing is recorded.")] = None,
    work: Annotated[Path, typer.Option(help="Folder of work; what was tried there is not repeated.")] = Path(
        "/tmp/faults"
    ),
    workers: Annotated[int, typer.Option(help="How many trials are made at once.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the choice of system calls and moments.")] = 0,
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Try the faults that have not been tried yet, and write what came of all of them."""
    described = conditions()
    work = work.resolve()
    os.environ.update(
        TMPDIR=str(work / "tmp"), HF_HOME=str(work / "cache"), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false"
    )
    torch.set_num_threads(1)
    import_everything()
    if not (work / "prepared").exists():
        shutil.rmtree(work, ignore_errors=True)
        (work / "tmp").mkdir(parents=True)
        os.chdir(work)
        in_children([lambda: prepare(work)])
    os.chdir(work)
    path = work / "trials.jsonl"
    tried = {key(trial) for trial in read_trials(path)}
    names = list(dict.fromkeys((*SHARES, *COMMANDS))) if only is None else only.split(",")
    makers = {
        "kills": lambda: kills(Campaign(work, seed), names, num_kills),
        "disk": lambda: disks(names),
        "writers": lambda: writers(names, rounds),
    }
    left = [trial for part in parts.split(",") for trial in makers[part]() if key(trial[0]) not in tried]
    campaigns = [Campaign(place_of(worker, work), seed) for worker in range(workers)]
    in_children(
        [lambda worker=worker: work_off(campaigns[worker], left[worker::workers], path) for worker in range(workers)]
    )
    trials = read_trials(path)
    measured = {
        **described,
        "seed": seed,
        "figures": summary(trials),
        "failures": [trial for trial in trials if trial["problems"]],
    }
    if only is None:
        write(output, measured, table(measured))
    else:
        print("\n".join(table(measured)))


def key(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what names a trial."""
    return tuple(trial.get(name) for name in ("part", "command", "call", "nth", "level", "round"))


PART_NAMES = {
    "kills": "killed (SIGKILL) as it enters a system call that changes its output",
    "disk": "on a disk that fills, at ten levels",
    "writers": "two processes on one output",
}


def table(measured: Mapping[str, Any]) -> list[str]:
    """Return the lines of the Markdown table, and the conditions."""
    rows = [
        [PART_NAMES[row["part"]], f"`{row['command']}`", str(row["tried"]), str(row["survived"])]
        for row in measured["figures"]
    ]
    refused = ", ".join(f"`{row['command']}` {row['refused']}" for row in measured["figures"] if row.get("refused"))
    return [
        *table_of(["fault", "command", "tried", "survived"], rows, num_left=2),
        "",
        f"- second writers that were refused in one line: {refused}; all others wrote the right output",
        f"- command: `{measured['command']}`; seed {measured['seed']}",
        f"- commit: `{measured['commit']}`",
    ]


if __name__ == "__main__":
    typer.run(main)
