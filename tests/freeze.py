"""Freeze a tiny model of a release, for the tests of later ones: `python -m tests.freeze VERSION`, once per release.

tests/frozen/VERSION/ then holds model/, as it is saved, and recorded.json: inputs, and what the model made of them.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from modeling_roberta_gru import (
    RobertaGRUConfig,
    RobertaGRUForSequenceClassification,
    RobertaGRUForTokenClassification,
    RobertaGRUModel,
)
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.files import replacing, write_text

FROZEN = Path(__file__).with_name("frozen")
TEXTS = [
    "the plot was slow but we liked its music",
    "dreadful",
    "splendid and middling, long and slow, more than most",
]
# Longer than the window of 20 tokens, of one token, and in between; 1 pads.
LENGTHS = (61, 3, 20, 21)
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


def freeze(folder: Path) -> None:
    """Make a folder of tests/frozen/: a random classifier with every part in use, and its outputs, on one thread."""
    torch.set_num_threads(1)
    with replacing(folder / "model") as unfinished:
        save_model(unfinished)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    input_ids = [[0, *torch.randint(5, len(tokenizer), (length - 2,)).tolist(), 2] for length in LENGTHS]
    input_ids = [row + [1] * (max(LENGTHS) - len(row)) for row in input_ids]
    recorded = {
        "platform": describe_arithmetic(),
        "texts": TEXTS,
        "tokens": tokenizer(TEXTS)["input_ids"],
        "input_ids": input_ids,
        **compute(folder / "model", input_ids),
    }
    # One line each: exact, and small.
    lines = ",\n".join(f'"{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in recorded.items())
    write_text(folder / "recorded.json", f"{{\n{lines}\n}}\n")


def save_model(folder: Path, seed: int = 0) -> None:
    """Save a tiny random classifier and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(TEXTS, vocab_size=280)
    names = {"id2label": {0: "bad", 1: "good", 2: "fair"}, "label2id": {"bad": 0, "good": 1, "fair": 2}}
    config = RobertaGRUConfig(vocab_size=len(tokenizer), **SIZES, **names)
    RobertaGRUForSequenceClassification(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def compute(model: Path, input_ids: list[list[int]]) -> dict[str, Any]:
    """Return what the package makes of a frozen model's inputs; numbers in float32, which JSON keeps exactly."""
    ids = torch.tensor(input_ids)
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    classifier = RobertaGRUForSequenceClassification.from_pretrained(model)
    return {
        "logits": classifier(**inputs).logits.tolist(),
        "running_logits": classifier.running_logits(**inputs).tolist(),
        "summary": RobertaGRUModel.from_pretrained(model)(**inputs).pooler_output.tolist(),
        "token_logits": RobertaGRUForTokenClassification.from_pretrained(model)(**inputs).logits.tolist(),
    }


def describe_arithmetic() -> dict[str, str]:
    """Return what the last bits of a sum depend on: the order of its terms, chosen by torch for the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "processor": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), ""),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def read_tokens(model: Path, texts: list[str]) -> list[list[int]]:
    """Return what the tokenizer makes of texts."""
    return AutoTokenizer.from_pretrained(model)(texts)["input_ids"]


if __name__ == "__main__":
    freeze(FROZEN / sys.argv[1])
