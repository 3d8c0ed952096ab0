"""Training documents that are not read whole: which tokens are left, and that they come anew each epoch."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from modeling_roberta_gru.data.tokenization import SelectingCollator, limit_length, select_tokens

from .trajectory import collate

POLICIES = ("head", "head_tail", "random")
DOCUMENT = list(range(100, 120))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("policy", "num_tokens", "expected"),
    [
        ("head", 3, [100, 101, 119]),
        ("head", 6, [100, 101, 102, 103, 104, 119]),
        ("head", 19, [*range(100, 118), 119]),
        ("head_tail", 3, [100, 101, 119]),
        ("head_tail", 4, [100, 101, 118, 119]),
        ("head_tail", 7, [100, 101, 102, 103, 117, 118, 119]),
        ("head_tail", 19, [*range(100, 110), *range(111, 120)]),
    ],
)
def test_head_and_tail_are_those_of_the_text(policy, num_tokens, expected, rng):
    assert select_tokens(DOCUMENT, num_tokens, policy, rng) == expected
    assert select_tokens(np.array(DOCUMENT), num_tokens, policy, rng) == expected


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 5])
def test_a_document_that_fits_is_read_whole(policy, length, rng):
    assert select_tokens(DOCUMENT[:length], max(3, length), policy, rng) == DOCUMENT[:length]


@pytest.mark.parametrize("num_tokens", [3, 4, 11, 19])
def test_a_random_stretch_is_whole_and_lies_anywhere(num_tokens, rng):
    starts = set()
    for _ in range(400):
        first, *stretch, last = select_tokens(DOCUMENT, num_tokens, "random", rng)
        assert (first, last) == (100, 119)
        assert stretch == list(range(stretch[0], stretch[0] + num_tokens - 2))
        starts.add(stretch[0])
    assert starts == set(range(101, 122 - num_tokens))


def rows(num_rows: int = 12) -> list[dict]:
    ids = [[0, *range(10 + row, 40 + row), 2] for row in range(num_rows)]
    return [{"input_ids": row, "attention_mask": [1] * len(row), "labels": 0} for row in ids]


@pytest.mark.parametrize("policy", POLICIES)
def test_batches_hold_the_selected_tokens_only(policy):
    batch = SelectingCollator(collate, 9, policy, seed=0)(rows())
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (12, 9)
    assert (batch["attention_mask"] == 1).all()
    assert batch["labels"].tolist() == [0] * 12


def drawn(seed: int, epoch: int) -> torch.Tensor:
    collator = SelectingCollator(collate, 9, "random", seed)
    loader = DataLoader(rows(), batch_size=4, collate_fn=collator)
    collator.set_epoch(epoch)
    return torch.cat([batch["input_ids"] for batch in loader])


def test_a_stretch_is_drawn_anew_each_epoch_and_depends_on_the_seed_alone():
    assert torch.equal(drawn(0, 0), drawn(0, 0))
    assert torch.equal(drawn(0, 3), drawn(0, 3))
    assert not torch.equal(drawn(0, 0), drawn(0, 1))
    assert not torch.equal(drawn(0, 0), drawn(1, 0))


def test_the_length_column_says_what_is_left():
    dataset = limit_length(Dataset.from_list([{"length": 5, "labels": 0}, {"length": 5000, "labels": 1}]), 30)
    assert dataset["length"][:] == [5, 30]
    assert dataset["labels"][:] == [0, 1]
