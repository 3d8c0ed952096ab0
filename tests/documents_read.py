"""Which documents a training run reads, in which order: for the tests of the sampler, here or on several ranks.

As a script (`torchrun --nproc_per_node 2 -m tests.documents_read FOLDER`) it trains a whole run and two that resume
it, and prints as JSON what each rank read, and whether the resumed ones end with the same weights.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset

from modeling_roberta_gru.training.trainer import RobertaGRUTrainer

from .trajectory import make_trainer, say_and_end

NUM_DOCUMENTS = 40
STEPS_PER_EPOCH = 5


def numbered_documents() -> Dataset:
    """Make documents of 4 to 18 tokens that carry their number in the second."""
    generator = torch.Generator().manual_seed(2)
    rows = []
    for row in range(NUM_DOCUMENTS):
        length = int(torch.randint(4, 19, (1,), generator=generator))
        ids = [0, 10 + row, *torch.randint(10, 61, (length - 3,), generator=generator).tolist(), 2]
        rows.append({"input_ids": ids, "attention_mask": [1] * length, "length": length, "labels": row % 3})
    return Dataset.from_list(rows)


def read_by(
    folder: str,
    batch_size: int,
    resume: str | None = None,
    prepare: Callable[[RobertaGRUTrainer], None] = lambda trainer: None,
    **arguments: Any,
) -> tuple[list, RobertaGRUTrainer]:
    """Train three epochs, the first on short documents; return each batch's documents, by number, and the trainer."""
    batches: list[list[int]] = []
    defaults = {
        "max_steps": 3 * STEPS_PER_EPOCH,
        "length_curriculum": 1,
        "per_device_train_batch_size": batch_size,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 99,
    }
    trainer = make_trainer(folder, numbered_documents(), **{**defaults, **arguments})
    training_step = trainer.training_step

    def listening(model: Any, inputs: dict[str, torch.Tensor], *rest: Any) -> torch.Tensor:
        batches.append((inputs["input_ids"][:, 1] - 10).tolist())
        return training_step(model, inputs, *rest)

    trainer.training_step = listening
    prepare(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return batches, trainer


def same_weights(one: RobertaGRUTrainer, other: RobertaGRUTrainer) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def main() -> None:
    folder = sys.argv[1]
    whole, trainer = read_by(f"{folder}/whole", 4)
    said: dict[str, Any] = {"whole": whole}
    for step in (3, 12):
        batches, resumed = read_by(f"{folder}/resumed", 4, f"{folder}/whole/checkpoint-{step}")
        said[str(step)] = {"batches": batches, "same_weights": same_weights(trainer, resumed)}
    ranks: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(ranks, said)
    say_and_end(ranks)


if __name__ == "__main__":
    main()
