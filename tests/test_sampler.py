"""The order in which documents are read: each once an epoch, short ones first for as long as is asked."""

import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from modeling_roberta_gru.data.tokenization import SelectingCollator
from modeling_roberta_gru.training.trainer import EpochSampler, GroupedSampler

from .documents_read import NUM_DOCUMENTS, STEPS_PER_EPOCH, numbered_documents, read_by, same_weights
from .tiny import on_two_ranks
from .trajectory import WITHOUT_DROPOUT, collate, make_trainer

LENGTHS = np.random.default_rng(0).integers(20, 3000, 400).tolist()
EVERY = list(range(len(LENGTHS)))


def sampler(strategy="random", seed=0, num_growing_epochs=2):
    later = {
        "random": lambda: RandomSampler(LENGTHS),
        "sequential": lambda: SequentialSampler(LENGTHS),
        "group_by_length": lambda: GroupedSampler(np.array(LENGTHS), 8),
    }[strategy]()
    return EpochSampler(later, seed, LENGTHS, num_growing_epochs)


def order(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
def test_every_document_is_read_once_an_epoch_after_the_growing_ones(strategy):
    reader = sampler(strategy)
    assert len(reader) == len(LENGTHS)
    for epoch in (2, 3):
        assert sorted(order(reader, epoch)) == EVERY


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
@pytest.mark.parametrize(("epoch", "share"), [(0, 1 / 4), (1, 1 / 2), (2, 3 / 4)])
def test_growing_epochs_read_the_shortest_documents_and_each_equally_often(epoch, share, strategy):
    readings = Counter(order(sampler(strategy, num_growing_epochs=3), epoch))
    assert sum(readings.values()) == len(LENGTHS)
    shortest = sorted(EVERY, key=LENGTHS.__getitem__)[: int(share * len(LENGTHS))]
    assert sorted(readings) == sorted(shortest)
    assert max(readings.values()) - min(readings.values()) <= 1


def test_batches_of_like_lengths_stay_such_while_documents_grow():
    lengths = np.array(LENGTHS)[order(sampler("group_by_length"), 0)].reshape(-1, 8)
    assert (lengths.max(1) - lengths.min(1)).mean() < 0.2 * np.ptp(lengths)


@pytest.mark.parametrize("num_documents", [1, 5, 63, 400, 1700])
@pytest.mark.parametrize("longest", [7, 3000])
def test_documents_are_grouped_as_by_transformers(num_documents, longest):
    lengths = np.random.default_rng(num_documents).integers(3, longest, num_documents)
    ours, theirs = (torch.Generator().manual_seed(5) for _ in range(2))
    expected = list(LengthGroupedSampler(8, lengths=lengths.tolist(), generator=theirs))
    assert list(GroupedSampler(lengths, 8, ours)) == expected


def test_later_epochs_are_those_of_the_strategy():
    assert order(sampler("sequential"), 2) == EVERY
    lengths = np.array(LENGTHS)[order(sampler("group_by_length"), 2)].reshape(-1, 8)
    # level within a batch, and without an order among the four groups of batches
    assert (lengths.max(1) - lengths.min(1))[1:].mean() < 0.2 * np.ptp(LENGTHS)
    assert max(LENGTHS) in lengths[0]


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_the_order_depends_on_seed_and_epoch_alone(strategy):
    for epoch in (0, 3):
        torch.manual_seed(epoch)
        there = order(sampler(strategy), epoch)
        torch.manual_seed(99)
        state = torch.get_rng_state()
        reader = sampler(strategy)
        order(reader, 5)
        assert order(reader, epoch) == there
        assert order(sampler(strategy, seed=1), epoch) != there
        assert torch.equal(torch.get_rng_state(), state)
    # Neighbouring seeds are not each other's next epoch.
    assert order(sampler(strategy, seed=1), 2) != order(sampler(strategy, seed=0), 3)


# In the Trainer


def epochs(batches, per_step=1):
    size = STEPS_PER_EPOCH * per_step
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def shortest_half():
    lengths = numbered_documents()["length"][:]
    return sorted(range(NUM_DOCUMENTS), key=lengths.__getitem__)[: NUM_DOCUMENTS // 2]


@pytest.mark.parametrize(
    ("options", "per_step"),
    [
        ({"batch_size": 8}, 1),
        ({"batch_size": 4, "gradient_accumulation_steps": 2, "train_sampling_strategy": "random"}, 2),
    ],
)
def test_training_reads_short_documents_first(options, per_step, tmp_path):
    batches, trainer = read_by(str(tmp_path), save_strategy="no", **options)
    assert trainer.state.global_step == 3 * STEPS_PER_EPOCH
    growing, *later = epochs(batches, per_step)
    assert sorted(chain(*growing)) == sorted(2 * shortest_half())
    assert [sorted(chain(*part)) for part in later] == [list(range(NUM_DOCUMENTS))] * 2


@pytest.mark.parametrize(("strategy", "length_curriculum"), [("group_by_length", 2), ("random", 0)])
def test_a_run_resumed_within_any_epoch_equals_an_uninterrupted_one(strategy, length_curriculum, tmp_path):
    options = {"train_sampling_strategy": strategy, "length_curriculum": length_curriculum}
    batches, whole = read_by(str(tmp_path / "whole"), 8, **options)
    for step in (2, 10, 13):  # within an epoch that grows and one that does not, and between two
        resumed_batches, resumed = read_by(
            str(tmp_path / "resumed"), 8, str(tmp_path / "whole" / f"checkpoint-{step}"), save_strategy="no", **options
        )
        assert resumed_batches == batches[step:]
        assert same_weights(resumed, whole)


def random_stretches(trainer):
    """Have a trainer read five tokens of each training document, drawn anew in each epoch."""
    trainer.train_collator = SelectingCollator(collate, 5, "random", seed=0)


def test_a_resumed_run_draws_the_stretches_of_an_uninterrupted_one(tmp_path):
    def train(folder, resume=None):
        saves = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 9}
        trainer = make_trainer(str(tmp_path / folder), max_steps=10, **saves)
        random_stretches(trainer)
        widths = set()
        trainer.model.register_forward_pre_hook(
            lambda _, args, kwargs: widths.add(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        trainer.train(resume_from_checkpoint=resume)
        assert widths == {5}
        assert trainer.train_collator.epoch == 2  # of 0, 1, 2
        return trainer

    whole = train("whole")
    assert same_weights(train("resumed", str(tmp_path / "whole" / "checkpoint-6")), whole)
    # Only training is cut.
    assert next(iter(whole.get_eval_dataloader()))["input_ids"].shape[1] > 5


@pytest.mark.slow
@pytest.mark.forks
def test_workers_change_neither_order_nor_stretches_also_when_they_outlive_an_epoch(tmp_path):
    def read(**workers):
        # Without dropout: starting workers takes numbers from the stream that dropout draws from.
        return read_by(
            str(tmp_path), 8, save_strategy="no", config=WITHOUT_DROPOUT, prepare=random_stretches, **workers
        )

    batches, trainer = read()
    again, other = read(dataloader_num_workers=2, dataloader_persistent_workers=True)
    assert again == batches
    assert same_weights(trainer, other)


@pytest.mark.slow
def test_two_ranks_read_disjoint_documents_and_resume(tmp_path):
    one, other = json.loads(on_two_ranks("-m", "tests.documents_read", tmp_path).splitlines()[-1])
    growing, *later = (
        sorted(chain(*ours, *theirs))
        for ours, theirs in zip(epochs(one["whole"]), epochs(other["whole"]), strict=True)
    )
    assert growing == sorted(2 * shortest_half())
    assert later == [list(range(NUM_DOCUMENTS))] * 2
    for rank in (one, other):
        for step in (3, 12):
            assert rank[str(step)] == {"batches": rank["whole"][step:], "same_weights": True}
