"""The options that the Trainer takes: all of transformers' and ours."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments, trainer_pt_utils
from transformers.integrations import get_available_reporting_integrations
from transformers.utils import logging

from ..arguments import (
    DataArguments,
    ModelArguments,
    TrainingOptions,
    check_training_options,
    is_loss,
    read_options,
)
from ..errors import InputError, nearest, unknown_name

NUM_PROCESSES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where what starts several processes, torch's or MPI's, says how many there are."""


@dataclass
class RobertaGRUTrainingArguments(TrainingOptions, TrainingArguments):
    """Everything of [`~transformers.TrainingArguments`], with what [`~.arguments.TrainingOptions`] adds and changes.

    `push_to_hub` is taken over: it leaves `publish_as`, the name to publish the finished model under, if any.
    `data_fingerprint` and `shared_options`, where they are set, are noted in every checkpoint: see
    [`~.run_folder.check_same_data`] and [`~.run_folder.find_checkpoint`].
    `dataloader_pin_memory` is on only where there is an accelerator.

    Raises:
        InputError: if options contradict each other or a value is out of range.
    """

    publish_as: str | None = field(default=None, init=False)
    data_fingerprint: str | None = field(default=None, init=False)
    shared_options: dict[str, Any] | None = field(default=None, init=False)
    num_idle_gpus: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_training_options(self)
        for name in ("optim", "optim_target_modules"):
            value = getattr(self, name)
            if value is not None and self.optimizer != "optim" and value != _default(name):
                raise InputError(f"--{name} {value} takes effect only with --optimizer optim.", field=name)
            if isinstance(value, list) and len(value) == 1:  # a text, which transformers takes for a pattern
                setattr(self, name, value[0])
        for name in ("fsdp", "ddp_backend"):  # which, once begun with, would disturb later runs of this process, too
            if getattr(self, name) and all(os.environ.get(number, "1") == "1" for number in NUM_PROCESSES):
                raise InputError(
                    f"--{name} is for several processes: start them by `accelerate launch --num_processes N` or "
                    "torchrun, or leave it out.",
                    field=name,
                )
        _check_json(self)
        levels = ("passive", *logging.get_log_levels_dict())
        for name in ("log_level", "log_level_replica"):
            if getattr(self, name) not in levels:
                raise unknown_name(f"--{name}", getattr(self, name), levels, field=name)
        if self.train_sampling_strategy == "batch_rebalance" and not hasattr(
            trainer_pt_utils, "BatchRebalanceSampler"
        ):
            raise InputError(
                "--train_sampling_strategy batch_rebalance needs a newer transformers: upgrade it.",
                field="train_sampling_strategy",
            )
        trackers = ("none", "all", *get_available_reporting_integrations())
        for name in [self.report_to] if isinstance(self.report_to, str) else self.report_to or []:
            if name not in trackers:
                raise InputError(
                    f"--report_to {name}: no such tracker is installed. {nearest(name, trackers)}",
                    field="report_to",
                )
        for name in ("hub_strategy", "hub_always_push"):
            if getattr(self, name) != _default(name):
                raise InputError(
                    f"--{name} has no effect: a run publishes once, at its end. Leave it out.", field=name
                )
        # The Trainer must not push by itself: it would push pickles, and a card with another optimizer.
        self.publish_as = self.hub_model_id if self.push_to_hub else None
        self.push_to_hub = False
        if self.bf16_if_available and not (self.bf16 or self.fp16):
            _prefer_bfloat16(self)
        # The older names are as good; transformers would warn of them.
        for name in ("checkpointing", "checkpointing_kwargs"):
            if hasattr(self, f"activation_{name}") and getattr(self, f"activation_{name}") is None:
                setattr(self, f"activation_{name}", getattr(self, f"gradient_{name}"))
        if is_loss(self.metric_for_best_model):  # transformers tells by the name's end
            self.greater_is_better = False
        try:
            super().__post_init__()
        except (ValueError, ImportError, OSError, TypeError) as error:
            raise InputError(str(error)) from error
        if self.load_best_model_at_end and self.save_strategy == "steps" and self.save_steps != self.eval_steps:
            raise InputError(
                f"--save_steps {self.save_steps:g} and --eval_steps {self.eval_steps:g} differ: the best model can be "
                "kept only if it is saved whenever it is evaluated. Give both the same number, or set "
                "--load_best_model_at_end false.",
                field="save_steps",
            )
        self.num_idle_gpus = max(0, self.n_gpu - 1)
        if self.num_idle_gpus:
            self._n_gpu = 1  # or the Trainer would wrap the model into torch's DataParallel
        # Pinning memory for a device that is not there only warns.
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False

    @property
    def order_seed(self) -> int:
        """The seed of the order in which documents are read."""
        return self.seed if self.data_seed is None else self.data_seed


def effective_batch_size(args: TrainingArguments) -> int:
    """Return how many texts a step is made of, over all processes and accumulated batches."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def _check_json(args: TrainingArguments) -> None:
    """Check the options that are written as JSON."""
    for each in fields(args):
        value = getattr(args, each.name)
        is_json = isinstance(value, str) and value.startswith("{")
        if not (is_json and (each.name.endswith(("_kwargs", "_config")) or each.name == "deepspeed")):
            continue
        try:
            json.loads(value)
        except ValueError as error:
            raise InputError(f"--{each.name} is not JSON: {error}.", field=each.name) from error


def parse_run(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, RobertaGRUTrainingArguments, str | None]:
    """Return the options of a command line, and the path of the recipe: see [`~.arguments.read_options`].

    Raises:
        InputError: if an option or key is unknown, or a value is not usable.
    """
    options = read_options(argv)
    return options.model, options.data, RobertaGRUTrainingArguments(**options.training), options.recipe


def _prefer_bfloat16(args: TrainingArguments) -> None:
    # Without an accelerator the CPU is meant; transformers allows bf16 there only if told so.
    if not torch.accelerator.is_available():
        args.use_cpu = True
    args.bf16 = has_bfloat16(args.use_cpu)


def has_bfloat16(on_cpu: bool) -> bool:
    """Tell whether the device multiplies in bfloat16; of a CPU, older releases of torch cannot say, which means no."""
    if on_cpu:
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16", False))
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _default(name: str) -> Any:
    return TrainingArguments.__dataclass_fields__[name].default
