"""A short training run on tiny data: what the learning tests compare, here or on several ranks.

As a script (`torchrun --nproc_per_node 2 -m tests.trajectory FOLDER`) it prints the losses and gradient norms of each
problem type as JSON.
"""

import json
import os
import sys
from typing import Any, NoReturn

import torch
from datasets import Dataset
from transformers import set_seed

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments
from modeling_roberta_gru.training.trainer import RobertaGRUTrainer
from tests.tiny import tiny_config

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "head_dropout": 0.0}


def tiny_dataset(num_rows: int = 64, problem_type: str = "single_label_classification") -> Dataset:
    """Make rows of 4 to 18 tokens whose label is told by the order of two of them."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for row in range(num_rows):
        length = int(torch.randint(4, 19, (1,), generator=generator))
        ids = torch.randint(10, 61, (length,), generator=generator).tolist()
        label = row % 3
        ids[1:3] = [[3, 4], [4, 3], [3, 3]][label]
        ids = [0, *ids[1:-1], 2] if length > 4 else [0, *ids[1:3], 2]
        labels: Any = label
        if problem_type == "multi_label_classification":
            labels = [float(label != 1), float(label != 2), 1.0]
        elif problem_type == "regression":
            labels = [label / 2, label - 1.0, 0.5]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "length": len(ids), "labels": labels})
    return Dataset.from_list(rows)


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    padded = {
        name: torch.tensor([row[name] + [0] * (width - len(row[name])) for row in rows])
        for name in ("input_ids", "attention_mask")
    }
    return {**padded, "labels": torch.tensor([row["labels"] for row in rows])}


def make_trainer(
    folder: str,
    dataset: Dataset | None = None,
    config: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> RobertaGRUTrainer:
    set_seed(0)
    model = RobertaGRUForSequenceClassification(tiny_config(num_labels=3, **(config or {}))).to(dtype)
    defaults = {
        "output_dir": folder,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "max_steps": 4,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
    }
    args = RobertaGRUTrainingArguments(**{**defaults, **arguments})
    return RobertaGRUTrainer(
        model,
        args,
        train_dataset=tiny_dataset() if dataset is None else dataset,
        eval_dataset=tiny_dataset(16),
        data_collator=collate,
    )


def losses_and_norms(
    folder: str, problem_type: str, batch_size: int, accumulation: int, weighted: bool = True
) -> list[tuple[float, float]]:
    """Train four steps in float64 without dropout, rows in order; return each step's loss and gradient norm."""
    config = {**WITHOUT_DROPOUT, "problem_type": problem_type, "skip_connection": False}
    if weighted:
        config["class_weights"] = [0.5, 1.0, 3.0]
    trainer = make_trainer(
        folder,
        tiny_dataset(problem_type=problem_type),
        config,
        torch.float64,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
    )
    trainer.train()
    return [(row["loss"], float(row["grad_norm"])) for row in trainer.state.log_history if "loss" in row]


def say_and_end(said: Any) -> NoReturn:
    """Let the first of several ranks print what was found, as JSON, and end all of them."""
    if torch.distributed.get_rank() == 0:
        print(json.dumps(said))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    # Gloo's threads sometimes abort a process while the interpreter goes down; all that is tested has been said.
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    (folder,) = sys.argv[1:]
    say_and_end({problem_type: losses_and_norms(folder, problem_type, 8, 1) for problem_type in PROBLEM_TYPES})


if __name__ == "__main__":
    main()
