"""What every test shares: offline, one thread, tiny models made on the spot."""

import os

# Before any import that reads these once. Where workers share the processors, threads that wait for each other cost as
# much as threads that work.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
)

import csv
import gc
import importlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, RobertaConfig, RobertaModel
from transformers.utils import logging

from modeling_roberta_gru import (
    RobertaGRUConfig,
    RobertaGRUForSequenceClassification,
    cli,
)
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.data.tokenization import lift_limits
from modeling_roberta_gru.training import plots

from .clean_process import install_transformers

logging.disable_progress_bar()
settings.register_profile("seeded", derandomize=True, database=None, deadline=None)  # equal for every run
settings.load_profile("seeded")
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
ONLY_TRAIN = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": "false",
    "use_cpu": "true",
    "bag_of_words": "false",
    "verify_load": "false",
    "disable_tqdm": "true",
}
"""Options of a run of train.py that trains, saves the model and does nothing else."""
ALONE = "ROBERTA_GRU_TEST_ALONE"
SAVE_PLOT = plots.save
SHARED = ROOT / os.environ.get("ROBERTA_GRU_SHARED", "../shared")


class Ended(NamedTuple):
    """How a command ended: its status, and what it said on standard output and on standard error."""

    status: int | str | None
    said: str
    error: str


TINY_ENCODER: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 22,  # W = 20
    "attention_horizons": [0, 9, 3],
    "skip_connection": True,
    # Large enough that every path through the network shows in the logits.
    "initializer_range": 0.3,
}


def tiny_config(**fields: Any) -> RobertaGRUConfig:
    return RobertaGRUConfig(**{**TINY_ENCODER, "gru_hidden_size": 7, "head_hidden_size": 5, **fields})


def batch(ids: list[torch.Tensor], side: str = "right", extra: int = 0) -> dict[str, torch.Tensor]:
    """Arrange documents in one batch; the padding holds a token that would matter if it were read."""
    width = max(len(row) for row in ids) + extra
    input_ids = torch.full((len(ids), width), 7)
    mask = torch.zeros(len(ids), width, dtype=torch.long)
    for row, tokens in enumerate(ids):
        if side == "scattered":
            columns = torch.randperm(width)[: len(tokens)].sort().values
        else:
            start = 0 if side == "right" else width - len(tokens)
            columns = torch.arange(start, start + len(tokens))
        input_ids[row, columns], mask[row, columns] = tokens, 1
    return {"input_ids": input_ids, "attention_mask": mask}


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def write_reviews(path: Path, num_rows: int, seed: int, num_labels: int = 2) -> Path:
    """Write a CSV of short texts, no two alike, whose first word tells the label."""
    rng = random.Random(f"{path.name} {seed}")
    words = ["the", "plot", "was", "long", "and", "slow", "but", "we", "liked", "its", "music", "more", "than", "most"]
    openings = ["dreadful", "splendid", "middling"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "venue"])
        for row in range(num_rows):
            rest = " ".join(rng.choice(words) for _ in range(rng.randint(5, 12)))
            label = row % num_labels
            opening = f"{openings[label]} {path.stem} {row}"
            writer.writerow([f"{opening} {rest}", ["bad", "good", "fair"][label], f"v{row % 3}"])
    return path


def on_two_ranks(*command: object) -> str:
    """Run a script or a module (`-m NAME`) with its options on two ranks; return what they print."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    process = subprocess.run(
        [sys.executable, *launch, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


def script(name: str) -> Any:
    """Return a fixture: the module of benchmarks/ that has this name."""

    @pytest.fixture(name=name)
    def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(BENCHMARKS)
        return importlib.import_module(name)

    return module


@pytest.fixture(scope="session", autouse=True)
def shortcuts() -> Iterator[None]:
    """Leave the plots of runs blank: they are a third of a tiny run's time."""

    def save(figure: Figure, path: Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1)).save(path, format="png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", save)
        yield


def assert_is_small_picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 2  # something is drawn
    assert path.stat().st_size < 60_000


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Draw plots after all, for a test that looks at them; return the figures."""
    kept: list[Figure] = []

    def save(figure: Figure, path: Path) -> None:
        kept.append(figure)
        SAVE_PLOT(figure, path)

    monkeypatch.setattr(plots, "save", save)
    return kept


@pytest.fixture
def roberta_gru(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return a function that runs a command with `text` as its input; it returns its status and what it said."""

    def call(*argv: object, text: bytes = b"") -> Ended:
        read, write = os.pipe()
        os.write(write, text)
        os.close(write)
        with os.fdopen(read) as stdin, monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["roberta-gru", *map(str, argv)])
            patch.setattr(sys, "stdin", stdin)
            with pytest.raises(SystemExit) as end:
                cli.main()
        output = capsys.readouterr()
        return Ended(end.value.code, output.out, output.err)

    return call


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of train.csv (96 rows) and test.csv (32 rows), labels bad and good."""
    folder = tmp_path_factory.mktemp("reviews")
    write_reviews(folder / "train.csv", 96, seed=0)
    write_reviews(folder / "test.csv", 32, seed=0)
    return folder


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory, reviews: Path) -> Path:
    """Return a folder as roberta-base's would be, but tiny: a bare encoder and a tokenizer."""
    folder = tmp_path_factory.mktemp("stand-in")
    tokenizer = train_tokenizer((reviews / "train.csv").read_text().splitlines(), vocab_size=400)
    torch.manual_seed(0)
    sizes = {**TINY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": 66}
    RobertaModel(RobertaConfig(**sizes), add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_model(folder: Path, stand_in: Path) -> str:
    """Save a tiny classifier of two labels with the stand-in's tokenizer; return the folder."""
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    lift_limits(tokenizer)
    torch.manual_seed(0)
    config = tiny_config(vocab_size=len(tokenizer), problem_type="single_label_classification")
    RobertaGRUForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str | Path]:
    """Return a function from a release of transformers, or "installed", to an interpreter that has it."""

    @cache
    def find(release: str) -> str | Path:
        if release == "installed":
            return sys.executable
        folder = tmp_path_factory.getbasetemp().parent / f"transformers-{release}"  # one for all of xdist's workers
        with FileLock(f"{folder}.lock"):
            if not (folder / "installed").exists():
                install_transformers(folder, release)
                (folder / "installed").touch()
        return folder / "bin" / "python"

    return find


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that no worker waits for the other's at the end."""
    items.sort(key=lambda item: item.path.stem not in ("test_real", "test_common_suite", "test_wheel"))


def pytest_collection_finish() -> None:
    """Spare every later collection of garbage, of which each training makes some, what is imported by now."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that forks in a process of its own.

    Beside the threads that hundreds of tests have left, the end of a forked data loader's worker can kill the process.
    """
    if pyfuncitem.get_closest_marker("forks") is None or ALONE in os.environ:
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    process = subprocess.run(command, cwd=ROOT, env=environment | {ALONE: "1"}, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout
    return True


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a benchmark before may have taken more,
    logging.set_verbosity_warning()  # and silenced transformers
