"""Load a model in a clean process: interpreters, caches, Hubs, and what comes out."""

import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
import sysconfig
import venv
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
from modeling_roberta_gru.data.corpus import train_tokenizer

from . import load_model
from .hub_server import LARGE, File, HubServer

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "load_model.py"

OLDER_RELEASES = ("4.57.6", "5.0.0")
LOADERS = (
    "AutoConfig",
    "AutoTokenizer",
    "AutoModel",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "pipeline",
)
MODEL = "ada/model"
SERVER, OFFLINE, PINNED = "from the Hub", "from the cache, offline", "pinned revision"
WAYS = (SERVER, OFFLINE, PINNED)

TEXTS = [
    "the plot was slow but we liked its music",
    "dreadful",
    "splendid and middling, long and slow, more than most",
]
SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 22,
    "gru_hidden_size": 7,
    "num_gru_layers": 2,
    "gru_bidirectional": True,
    "summary": "attention",
    "head_hidden_size": 5,
    "calibration_temperature": 1.5,
    # Large enough that every path through the network shows in the logits.
    "initializer_range": 0.3,
}


def without_the_package(code: str) -> str:
    """Return a program that shows first that this package cannot be imported, and runs code then."""
    return f"""
import runpy, sys
sys.meta_path.insert(0, runpy.run_path({str(SCRIPT)!r})["Refuse"]())
try:
    import modeling_roberta_gru
except ModuleNotFoundError:
    pass
else:
    sys.exit("the package can be imported: this would prove nothing")
{code}"""


def install(folder: Path, *requirements: str) -> Path:
    """Make a virtual environment with these packages, by pip, and return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True, capture_output=True)
    return python


def install_transformers(folder: Path, release: str) -> Path:
    """Make an environment with a release of transformers, and return its interpreter.

    Its tokenizers and huggingface_hub are those the release asks for; torch and what else it needs are borrowed from
    this process's environment.
    """
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--target", site]
    subprocess.run([*pip, f"transformers=={release}"], check=True, capture_output=True)
    (transformers,) = importlib.metadata.distributions(name="transformers", path=[str(site)])
    needs = transformers.requires or ()
    needed = [need for need in needs if re.match(r"(tokenizers|huggingface-hub)\b(?!.*extra)", need)]
    subprocess.run([*pip, *needed], check=True, capture_output=True)
    (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder / "bin" / "python"


def save_model(folder: Path, seed: int = 0) -> None:
    """Save a tiny random classifier, with every part in use, and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(TEXTS, vocab_size=280)
    names = {"id2label": {0: "bad", 1: "good", 2: "fair"}, "label2id": {"bad": 0, "good": 1, "fair": 2}}
    config = RobertaGRUConfig(vocab_size=len(tokenizer), **SIZES, **names)
    RobertaGRUForSequenceClassification(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def ask(
    python: str | Path, name: str | Path, *options: str, home: Path, hub: str = "", token: str = ""
) -> dict[str, Any]:
    """Load a model in a fresh process.

    Args:
        python: the interpreter.
        name: a folder, or the name of a model.
        options: further arguments of load_model.py.
        home: what the process has for HF_HOME; the caches of models and of their code lie there.
        hub: the address of a Hub; without one the process is offline.
        token: for the Hub.

    Raises:
        RuntimeError: with the process's last words.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_ENDPOINT": hub, "HF_TOKEN": token} if hub else {"HF_HUB_OFFLINE": "1"}
    home.mkdir(parents=True, exist_ok=True)
    process = subprocess.run(
        [python, "-I", SCRIPT, name, *options], capture_output=True, text=True, cwd=home, env=environment
    )
    if process.returncode:
        raise RuntimeError(process.stderr[-3000:])
    assert "sequence length" not in process.stderr  # as said of a text beyond a tokenizer's limit
    return json.loads(process.stdout.splitlines()[-1])


def push_twice(hub: HubServer, first: Path, second: Path) -> str:
    """Have a Hub hold one model under MODEL and then another; return the commit of the first."""
    repository = hub.create(MODEL, read_files(first))
    pinned = hub.head(MODEL).oid
    files = {name: File(content, name.endswith(LARGE)) for name, content in read_files(second).items()}
    repository.add("main", "trained again", files)
    return pinned


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def load(
    python: str | Path, loaders: Sequence[str], way: str, hub: HubServer, pinned: str, home: Path
) -> dict[str, Any]:
    """Load MODEL one way of WAYS, by each loader; offline, `home` must be one to which it was loaded before."""
    revision = ("--revision", pinned) if way == PINNED else ()
    address = "" if way == OFFLINE else hub.url
    home = home / ("pinned" if way == PINNED else "latest")
    outputs = ask(python, MODEL, *revision, "--by", *loaders, home=home, hub=address)
    assert set(find_code(home)) <= {pinned if way == PINNED else hub.head(MODEL).oid}
    del outputs["transformers"]
    return outputs


def find_code(home: Path) -> list[str]:
    """Return the commits whose code a process has run."""
    return [path.parent.name for path in home.glob("modules/transformers_modules/*/*/*/configuration_*.py")]


def expect(folder: Path, loaders: Sequence[str]) -> dict[str, Any]:
    """Return what the package makes of a folder, for the inputs of load_model.py."""
    arguments = Namespace(name=folder, input_ids=load_model.INPUT_IDS)
    outputs: dict[str, Any] = {}
    for loader in loaders:
        outputs |= load_model.LOADERS[loader](arguments, {})
    return outputs


def largest_difference(found: Any, expected: Any) -> float:
    """Return the largest difference between numbers in the same places; infinity where anything else differs."""
    if isinstance(expected, float):
        return abs(found - expected)
    if isinstance(expected, dict) and found.keys() == expected.keys():
        return max(largest_difference(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and len(found) == len(expected):
        return max((largest_difference(*pair) for pair in zip(found, expected, strict=True)), default=0.0)
    return 0.0 if found == expected else math.inf
