"""What the benchmarks share: geometries, FLOPs, clocks, memory, and how a measurement is written, told and drawn."""

import ctypes
import gc
import itertools
import json
import math
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # a lent machine has the checkout, not the package

SHARED = ROOT / os.environ.get("ROBERTA_GRU_SHARED", "../shared")
REVIEWS = SHARED / "data" / "imdb" / "test.parquet"
RESULTS = ROOT / "benchmarks" / "results"
MIB = 2**20
ROBERTA_GRU = ["-c", "from modeling_roberta_gru.cli import main; main()"]
"""Python's arguments for a command line of this checkout."""
SECONDS_TO_START = 120
PAUSE = 0.3  # seconds; until then threads of the system before may be spinning
LIGHT_GREY = "#b9b9b9"

# The defaults of RobertaConfig are others than roberta-base's.
GEOMETRIES: dict[str, dict[str, Any]] = {
    "roberta-base": {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    },
    "all-MiniLM-L6-v2": {
        "num_hidden_layers": 6,
        "hidden_size": 384,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-12,
    },
    "toy": {
        "num_hidden_layers": 1,
        "hidden_size": 12,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "vocab_size": 60,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "gru_hidden_size": 8,
    },
}


def make_model(fields: dict[str, Any], has_gru: bool, device: str = "cpu", **kwargs: Any) -> Any:
    """Return a classifier with random weights, drawn on the device: ours, or stock RoBERTa with its linear head."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification

    torch.manual_seed(0)
    with torch.device(device):
        if has_gru:
            return RobertaGRUForSequenceClassification(RobertaGRUConfig(**fields, **kwargs))
        return RobertaForSequenceClassification(RobertaConfig(**fields, **kwargs))


# FLOPs: the model's, of real tokens; padding is work that nobody asked for


def encoder_flops(length: int, config: Any) -> int:
    """Return the FLOPs of the encoder's matrix products for a document of so many tokens, window by window."""
    num_more_windows = max(0, math.ceil((length - config.encoder_window) / config.window_stride))
    windows = [config.encoder_window] * (1 + num_more_windows) if num_more_windows else [length]
    # Beside the weights, every token meets every token of its window twice: for the scores, and for the values.
    meetings = config.num_hidden_layers * 4 * config.hidden_size
    return sum(n * weight_flops(config) + n * n * meetings for n in windows)


def weight_flops(config: Any) -> int:
    """Return the FLOPs of the products with the encoder's weights for a token."""
    width = config.hidden_size
    # Query, key, value and output; the two maps of the feed-forward part.
    return config.num_hidden_layers * 2 * (4 * width**2 + 2 * width * config.intermediate_size)


def head_flops(length: int, config: Any, has_gru: bool) -> int:
    """Return the FLOPs of what stands upon the encoder: the stock head, or a GRU of one layer and its head."""
    width, hidden = config.hidden_size, config.gru_hidden_size
    if not has_gru:
        return 2 * width * (width + config.num_labels)
    return length * 2 * 3 * hidden * (width + hidden) + 2 * config.head_hidden_size * (hidden + config.num_labels)


def flops(lengths: Sequence[int], fields: dict[str, Any], has_gru: bool) -> int:
    """Return the FLOPs of reading documents once, by a model of these fields."""
    from modeling_roberta_gru import RobertaGRUConfig

    config = RobertaGRUConfig(**fields)
    return sum(encoder_flops(n, config) + head_flops(n, config, has_gru) for n in lengths)


# Clocks and memory


def now(device: str = "cpu") -> float:
    """Return the time in seconds at which all that was asked of the device is done."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(run: Callable[[], Any], device: str = "cpu") -> float:
    """Return the seconds that something takes."""
    started = now(device)
    run()
    return now(device) - started


def measure_ceilings(
    size: int, dtypes: Sequence[str] = ("float32", "bfloat16", "int8"), device: str = "cpu", repeats: int = 9
) -> dict[str, dict[str, float]]:
    """Return the GFLOP/s of a product of two square matrices in every type, in turn."""
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    products: dict[str, Callable[[], Any]] = {}
    for dtype in dtypes:
        if dtype == "int8":
            pair = [matrix.mul(20).clamp(-127, 127).to(torch.int8) for matrix in (left, right)]
            products[dtype] = lambda pair=pair: torch._int_mm(*pair)
        else:
            pair = [matrix.to(getattr(torch, dtype)) for matrix in (left, right)]
            products[dtype] = lambda pair=pair: torch.mm(*pair)
    seconds = defaultdict(list)
    for _ in range(repeats + 1):
        for dtype, product in products.items():
            seconds[dtype].append(timed(product, device))
    # The first warms up.
    return {dtype: spread([2 * size**3 / 1e9 / its for its in found[1:]]) for dtype, found in seconds.items()}


def turned(keys: Sequence[str], places: int) -> list[str]:
    """Return a list that begins so many places later: each round another system comes first."""
    places %= len(keys)
    return [*keys[places:], *keys[:places]]


def memory(name: str) -> int:
    """Return an entry of /proc/self/status, in bytes. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def release_memory() -> None:
    """Give freed memory back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def started_server(program: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start a server, given Python's arguments, in a process of its own; give its port and process id, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, *program, "--port", str(port)], env=environment)
    try:
        end = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{shlex.join(program)} has not come up") from None
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()  # a shell's background job ignores SIGINT, and so would the server
        process.wait()


def be_quiet() -> None:
    """Silence transformers; some engines make it speak."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def spread_rows(num_rows: int, count: int, seed: int = 0) -> list[int]:
    """Return a row drawn from each of so many stretches of equal length."""
    rng, edges = random.Random(seed), [index * num_rows // count for index in range(count + 1)]
    return [rng.randrange(start, end) for start, end in itertools.pairwise(edges)]


# Processes


def forked(work: Callable[[], object], said: Path | None = None, limit_seconds: int = 0) -> int:
    """Fork a process that does some work and ends, and return its number.

    Args:
        work: what it does.
        said: the file that what it says goes to, if not where this process writes.
        limit_seconds: after which it is ended; 0: never.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        if said is not None:
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        signal.alarm(limit_seconds)
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):  # the disk may be full
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def status_of(process: int) -> int:
    """Wait for a forked process and return its exit status; negative: the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def roberta_gru(*words: str) -> None:
    """Run a command line in this process, which ends with it."""
    from modeling_roberta_gru import cli

    sys.argv = ["roberta-gru", *words]
    cli.main()


# What is written and told


def json_option(recorded: Path) -> Any:
    """Return the option that names the file to write."""
    return typer.Option(help="The JSON file to write.", show_default=str(recorded.relative_to(ROOT)))


def reviews_option() -> Any:
    """Return the option that names the file of texts, by default [`REVIEWS`]."""
    return typer.Option(help="The file of their texts.", show_default="imdb/test.parquet of ../shared")


def conditions() -> dict[str, Any]:
    """Return the command, without the folders of absolute paths, when it began, and on what it runs."""
    from modeling_roberta_gru.training.record import describe_platform

    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_at_start": round(os.getloadavg()[0], 2),
        **describe_platform(),
    }


def log(*words: Any) -> None:
    """Say how far a measurement is."""
    print(*words, file=sys.stderr)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record whole or not at all, without indentation: the repository holds many."""
    from modeling_roberta_gru.files import write_text

    write_text(path, json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")


def write(output: Path, measured: dict[str, Any], lines: Sequence[str]) -> None:
    """Write a measurement, and print the tables made of it."""
    write_record(output, measured)
    print("\n".join(lines))


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Return the median, the least and the largest."""
    return {name: round(reduce(values), digits) for name, reduce in (("median", median), ("min", min), ("max", max))}


def grouped(runs: Sequence[dict[str, Any]], *names: str) -> dict[tuple, list[dict[str, Any]]]:
    """Return runs by what they have in these columns, in order."""
    groups = defaultdict(list)
    for run in runs:
        groups[tuple(run[name] for name in names)].append(run)
    return groups


def ranged(values: Mapping[str, float], digits: str, scale: float = 1) -> str:
    """Write a median with the least and the largest."""
    median, least, largest = (scale * values[name] for name in ("median", "min", "max"))
    return f"{median:{digits}} ({least:{digits}} to {largest:{digits}})"


def table_of(heads: Sequence[str], rows: Sequence[Sequence[str]], num_left: int = 1) -> list[str]:
    """Return the lines of a Markdown table; all but the first columns are aligned right."""
    bars = ["---"] * num_left + ["---:"] * (len(heads) - num_left)
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, bars, *rows)]
    return [line.replace("|  |", "| |", 1) if line.startswith("|  |") else line for line in lines]


def commit_line(measured: Mapping[str, Any], *more: str) -> str:
    """Return the line of commit and versions; the recorded `engines` are named, too."""
    versions = {**measured["versions"], **measured.get("engines", {})}
    names = ("python", "torch", "transformers", *measured.get("engines", {}))
    words = [", ".join(f"{name} {versions[name]}" for name in names), *more]
    return f"- commit: `{measured['commit']}`; {'; '.join(words)}"


def cores(measured: Mapping[str, Any], note: str = "") -> str:
    """Return how many cores of which processor."""
    hardware = measured["hardware"]
    return f"{hardware['num_threads']} of {hardware['num_cores']} cores ({hardware['processor']}{note})"


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any) -> tuple[Any, list[Any]]:
    """Return a drawing and its axes."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, list(drawing.subplots(rows, columns, squeeze=False, **kwargs).flat)


def whiskers(spreads: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """Return how far the least and the largest are from each median."""
    return [[of["median"] - of["min"] for of in spreads], [of["max"] - of["median"] for of in spreads]]
