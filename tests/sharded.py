"""A short training run of an encoder in shards, against one process that holds all of it.

As a script (`python -m tests.sharded FOLDER`) it forks two ranks, prints their losses and counts of calls as JSON, and
saves the whole model, from the first rank, in FOLDER.
"""

import math
import sys
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import set_seed

from modeling_roberta_gru import RobertaGRUForSequenceClassification, modeling_roberta_gru
from modeling_roberta_gru.training.adapter import count_parameters
from modeling_roberta_gru.training.sharding import whole_model
from modeling_roberta_gru.training.trainer import is_finite
from tests.tiny import tiny_config
from tests.trajectory import WITHOUT_DROPOUT, say_and_end

LENGTHS = [(30, 5), (4, 130), (60, 7), (9, 11)]
"""Of the documents of each step: the first rank reads the first, the other one the other."""
NUM_RANKS = 2


def documents(step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return a step's documents, token ids (1, T) and label (1,) each."""
    generator = torch.Generator().manual_seed(step)
    made = []
    for length in LENGTHS[step]:
        ids = torch.randint(10, 61, (1, length), generator=generator)
        ids[0, 0], ids[0, -1] = 0, 2
        made.append((ids, torch.randint(0, 3, (1,), generator=generator)))
    return made


def train(
    name: str, ranks: list[int], shard: bool = False
) -> tuple[RobertaGRUForSequenceClassification, dict[str, Any]]:
    """Train on the documents that `ranks` read, and evaluate after each step.

    Returns:
        The model; and what this process has of `losses`, in training and evaluation, and `num_calls` of the encoder.
    """
    set_seed(0)
    fields = {**WITHOUT_DROPOUT, "problem_type": "single_label_classification", "windows_per_chunk": 2, **CASES[name]}
    model = RobertaGRUForSequenceClassification(tiny_config(num_labels=3, **fields)).double()
    if name == "frozen":
        model.roberta.embeddings.requires_grad_(False)
    if name == "checkpointing":
        model.activation_checkpointing_enable()
    if shard:
        mesh = init_device_mesh("cpu", (NUM_RANKS,))
        for layer in [*model.roberta.encoder.layer, model]:
            fully_shard(layer, mesh=mesh)
    calls: list[int] = []
    model.roberta.register_forward_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses, num_calls = [], []

    def loss_of(step: int) -> torch.Tensor:
        total = torch.zeros(())
        for ids, label in [documents(step)[rank] for rank in ranks]:
            calls.clear()
            total = total + model(input_ids=ids, labels=label, num_items_in_batch=NUM_RANKS).loss
            num_calls.append(len(calls))
        return total

    for step in range(len(LENGTHS)):
        model.train()
        loss = loss_of(step)
        (loss * NUM_RANKS / len(ranks)).backward()  # shards get the mean over the ranks
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            losses.append((loss.item(), loss_of(step).item()))
    return model, {"losses": losses, "num_calls": num_calls}


def run_rank(rank: int, folder: str) -> None:
    """Train in shards, as one of the ranks."""
    torch.set_num_threads(1)
    # Without it the encoder's states of a model this small are kept, and it is called in one pass.
    modeling_roberta_gru.MOST_STATES_KEPT = 0
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=NUM_RANKS)
    said = {}
    for name in CASES:
        model, trained = train(name, [rank], shard=True)
        whole = whole_model(model)
        if rank == 0:
            whole.save_pretrained(f"{folder}/{name}")
        trained |= {"num_trained": count_parameters(whole)[1], "is_finite": is_finite(model)}
        if rank == 1:
            with torch.no_grad():
                next(model.parameters()).to_local().fill_(math.nan)
        trained["is_finite_with_nan_on_one"] = is_finite(model)
        found: list[Any] = [None] * NUM_RANKS
        torch.distributed.all_gather_object(found, trained)
        said[name] = found
    say_and_end(said)


CASES: dict[str, dict[str, Any]] = {
    "one_way": {},
    "checkpointing": {},
    "frozen": {},
    "both_ways": {"gru_bidirectional": True, "summary": "mean"},
}

if __name__ == "__main__":
    torch.multiprocessing.start_processes(run_rank, (sys.argv[1],), NUM_RANKS, start_method="fork")
