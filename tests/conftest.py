"""What every test shares: offline, one thread, tiny models made on the spot.

What takes seconds to import is imported by the fixtures: xdist's own process reads this file before its workers start.
"""

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

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("seeded", derandomize=True, database=None, deadline=None)  # equal for every run
settings.load_profile("seeded")

ROOT = Path(__file__).parents[1]
ALONE = "ROBERTA_GRU_TEST_ALONE"


@pytest.fixture(scope="session", autouse=True)
def save_plot() -> Iterator[Callable[[Any, Path], None]]:
    """Leave the plots of runs blank, which are a third of a tiny run's time; return what saves them otherwise."""
    from PIL import Image
    from transformers.utils import logging

    from modeling_roberta_gru.training import plots

    def save(figure: Any, path: Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1)).save(path, format="png")

    logging.disable_progress_bar()
    draw = plots.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", save)
        yield draw


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, save_plot: Callable[[Any, Path], None]) -> list[Any]:
    """Draw plots after all, for a test that looks at them; return the figures."""
    from modeling_roberta_gru.training import plots

    kept: list[Any] = []

    def save(figure: Any, path: Path) -> None:
        kept.append(figure)
        save_plot(figure, path)

    monkeypatch.setattr(plots, "save", save)
    return kept


@pytest.fixture
def roberta_gru(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return a function that runs a command with `text` as its input; it returns its status and what it said."""
    from modeling_roberta_gru import cli

    from .tiny import Ended

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
    from .tiny import write_reviews

    folder = tmp_path_factory.mktemp("reviews")
    write_reviews(folder / "train.csv", 96, seed=0)
    write_reviews(folder / "test.csv", 32, seed=0)
    return folder


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory, reviews: Path) -> Path:
    """Return a folder as roberta-base's would be, but tiny: a bare encoder and a tokenizer."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    from modeling_roberta_gru.data.corpus import train_tokenizer

    from .tiny import TINY_ENCODER

    folder = tmp_path_factory.mktemp("stand-in")
    tokenizer = train_tokenizer((reviews / "train.csv").read_text().splitlines(), vocab_size=400)
    torch.manual_seed(0)
    sizes = {**TINY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": 66}
    RobertaModel(RobertaConfig(**sizes), add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str | Path]:
    """Return a function from a release of transformers, or "installed", to an interpreter that has it."""
    from filelock import FileLock

    from .clean_process import install_transformers

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
    import torch
    from transformers.utils import logging

    torch.manual_seed(0)
    torch.set_num_threads(1)  # a benchmark before may have taken more,
    logging.set_verbosity_warning()  # and silenced transformers
