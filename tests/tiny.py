"""Tiny models, texts and commands that tests are made of."""

import csv
import importlib
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoTokenizer

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
from modeling_roberta_gru.data.tokenization import lift_limits

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


def assert_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], **tolerance: float) -> None:
    """Assert that the same parameters have a gradient, and the same one."""
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name, **tolerance)


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


def save_tiny_model(folder: Path, stand_in: Path) -> str:
    """Save a tiny classifier of two labels with the stand-in's tokenizer; return the folder."""
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    lift_limits(tokenizer)
    torch.manual_seed(0)
    config = tiny_config(vocab_size=len(tokenizer), problem_type="single_label_classification")
    RobertaGRUForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def assert_is_small_picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 2  # something is drawn
    assert path.stat().st_size < 60_000
