"""What every test shares: offline, one thread, tiny models made on the spot."""

import os

# Before any Hugging Face import: they read these once.
os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false"
)

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modeling_roberta_gru import RobertaGRUConfig

torch.set_num_threads(1)

TINY_ENCODER: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 22,  # W = 20
    # Large enough that every path through the network shows in the logits.
    "initializer_range": 0.3,
}


def tiny_config(**fields: Any) -> RobertaGRUConfig:
    return RobertaGRUConfig(**{**TINY_ENCODER, "gru_hidden_size": 7, "head_hidden_size": 5, **fields})


@pytest.fixture
def make_config() -> Callable[..., RobertaGRUConfig]:
    return tiny_config


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
