"""Kill, fill and crowd the commands, and see whether the same command again ends with the same bytes.

    python benchmarks/faults.py                                        # everything: some 15 minutes of one core
    python benchmarks/faults.py --parts kills --kills 40 --work /tmp/faults

Every trial is a line of `trials.jsonl` in the folder of work. What stands there is not repeated: a campaign that was
interrupted continues. Needs Linux and strace, and root for the disks.

**kills.** A run of each command is recorded by strace: every system call that changes the folder of its output, each
known by its name and how many calls of that name its thread has made. A trial starts the command again and has strace
kill it (SIGKILL) as it enters one of them. strace, and no audit hook of Python, since it sees what native code writes,
too: safetensors, pyarrow, torch, SQLite, ONNX. What then stands under its final name must be whole. The same command
then runs to its end: the folder must hold the bytes of an undisturbed run, but for times, and nothing else.

**disk.** The output lies on a tmpfs with room for 0, 10, … 90 % of what an undisturbed run leaves. The command must
end by itself, well or in one line; with more room, the same command ends with the same bytes.

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
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from measuring import RESULTS, conditions, json_option, log, panels, spread_rows, table_of, write

RECORDED = RESULTS / "faults.json"
CALLS = (
    *("write", "pwrite64", "writev", "pwritev", "sendfile", "copy_file_range", "ftruncate", "fallocate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "symlink"),
    *("fsync", "fdatasync", "chmod", "fchmod", "fchmodat"),
)
"""System calls before which a run is killed."""
SHARES = {"score": 0.3, "adapt": 0.19, "train": 0.2, "sweep": 0.19, "export": 0.12}
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
ON_FULL_DISKS = ("train", "score", "export")
NUM_LEVELS = 10
TIMES = re.compile(r"started|seconds|\w+_(seconds|runtime|per_second)|total_flos|train_loss")
"""Names in JSON of what two undisturbed runs do not share; and the Trainer's mean loss since it was last resumed."""
WITH_TIMES = ("study.db", "training_args.bin")
"""Files of which it is checked only that they are there."""
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
    "compare": Command(("compare", "run", "run-7", "--output-dir", f"{OUT}/compared"), ("--resamples", "50")),
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
    """

    work: Path
    seed: int
    expected: dict[tuple[str, ...], dict[str, bytes]] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """The folder that holds the output of a run and nothing else."""
        return self.work / OUT

    # Runs

    def start(self, words: Sequence[str], name: str = "first") -> tuple[int, Callable[[], None]]:
        """Fork a process that runs a command, and return its number and what lets it begin."""
        reads, writes = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(writes)
            self._be(words, name, reads)
        os.close(reads)
        return process, lambda: os.close(writes)

    def _be(self, words: Sequence[str], name: str, gate: int) -> None:
        status = 1
        try:
            log = os.open(self.work / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.read(gate, 1)  # until the other end is closed
            os.environ["PATH"] = "/nowhere"  # git, whose calls strace would count
            from modeling_roberta_gru import cli

            sys.argv = ["roberta-gru", *words]
            cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

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
            outcome = self.run(words)
            if outcome.status != 0:
                raise RuntimeError(f"{' '.join(words)}: status {outcome.status}\n{outcome.errors}")
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
        size = sum(map(len, expected.values())) * level // NUM_LEVELS
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
        started = time.monotonic()
        expected = [self.undisturbed(words) for words in both]
        self.clear()
        started = time.monotonic()
        self.run(command.words)
        duration = time.monotonic() - started
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
    if path.name in WITH_TIMES:
        return b""
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        with suppress(ValueError):
            rows = [json.loads(line) for line in (content.splitlines() if path.suffix == ".jsonl" else [content])]
            return json.dumps(_timeless(rows)).encode()
    if path.suffix == ".md":
        return re.sub(rb"[\d.,:T+-]+( s\b)|20\d\d-\d\d-\d\d", rb"-\1", content)
    return content


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
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "faults", str(folder)], check=True)
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
    study.HEARTBEAT_SECONDS, study.GRACE_SECONDS, study.POLL_SECONDS = 1, 2, 0.1


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
    for folder, seed in (("run", "42"), ("run-7", "7")):
        app(["train", *TRAINING, "--output_dir", folder, "--seed", seed], standalone_mode=False)
    shutil.copytree(work / "run" / "model", work / "model")
    (work / "prepared").touch()


def in_child(function: Callable[[], object]) -> None:
    """Call a function in a forked process."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(process, 0)[1] != 0:
        raise RuntimeError("The data could not be prepared.")


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


def kills(campaign: Campaign, num_kills: int) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Yield what names each trial, and the trial."""
    for name, share in SHARES.items():
        recorded = campaign.work / f"events-{name}.json"
        if not recorded.exists():
            recorded.write_text(json.dumps(campaign.events(COMMANDS[name].words)))
        events = [Event(*event) for event in json.loads(recorded.read_text())]
        log(f"{name}: {len(events)} system calls change its output")
        for event in chosen(events, round(num_kills * share), campaign.seed):
            yield {"command": name, **event._asdict()}, lambda name=name, event=event: campaign.kill(name, event)


def disks(campaign: Campaign) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Yield what names each trial, and the trial."""
    for name in ON_FULL_DISKS:
        for level in range(NUM_LEVELS):
            yield {"command": name, "level": level}, lambda name=name, level=level: campaign.fill(name, level)


def writers(campaign: Campaign, num_rounds: int) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, Any]]]]:
    """Yield what names each trial, and the trial."""
    for name in COMMANDS:
        for number in range(num_rounds):
            yield {"command": name, "round": number}, lambda name=name, number=number: campaign.crowd(name, number)


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
        row = {"part": part, "command": name, "tried": len(its), "survived": sum(not t["problems"] for t in its)}
        if part == "kills":
            row |= {"killed": sum(trial["killed"] for trial in its), "calls": Counter(trial["call"] for trial in its)}
        if part == "writers":
            row["refused"] = sum(trial["refused"] for trial in its)
        rows.append(row)
    return rows


def main(
    parts: Annotated[str, typer.Option(help="Which of kills, disk, writers, with commas.")] = "kills,disk,writers",
    num_kills: Annotated[int, typer.Option("--kills", help="How many, over all commands.")] = 320,
    rounds: Annotated[int, typer.Option(help="Of two writers, for each command.")] = 6,
    only: Annotated[str | None, typer.Option(help="Of one command only; nothing is recorded.")] = None,
    work: Annotated[Path, typer.Option(help="Folder of work; what was tried there is not repeated.")] = Path(
        "/tmp/faults"
    ),
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
        in_child(lambda: prepare(work))
    os.chdir(work)
    campaign, path = Campaign(work, seed), work / "trials.jsonl"
    tried = {key(trial) for trial in read_trials(path)}
    makers = {
        "kills": lambda: kills(campaign, num_kills),
        "disk": lambda: disks(campaign),
        "writers": lambda: writers(campaign, rounds),
    }
    for part in parts.split(","):
        for named, trial in makers[part]():
            row = {"part": part, **named}
            if key(row) in tried or only not in (None, row["command"]):
                continue
            started = time.monotonic()
            row |= trial()
            row["seconds"] = round(time.monotonic() - started, 2)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if row["problems"]:
                log(row)
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
    refused = sum(row.get("refused", 0) for row in measured["figures"])
    return [
        *table_of(["fault", "command", "tried", "survived"], rows, num_left=2),
        "",
        f"- of the second writers, {refused} were refused in one line; all others were right",
        f"- command: `{measured['command']}`; seed {measured['seed']}",
        f"- commit: `{measured['commit']}`",
    ]


if __name__ == "__main__":
    typer.run(main)
