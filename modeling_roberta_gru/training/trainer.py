"""The Trainer, with NAdam by default, this model's learning rates and evaluation in the order of the rows."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import BatchRebalanceSampler

from ..data.splits import origins
from ..errors import InputError
from .adapter import is_adapted
from .arguments import RobertaGRUTrainingArguments
from .dropout import use_cpu_dropout
from .optimizers import check_optimizer_state, optimizer_class_and_kwargs, parameter_groups

NOT_KEPT = ["hidden_states", "attentions", "last_hidden_state", "pooler_output", "past_key_values"]
"""What a model may return beside its logits; gathered over an evaluation it would fill the memory."""


class RobertaGRUTrainer(Trainer):
    """[`~transformers.Trainer`] for [`RobertaGRUTrainingArguments`].

    What it changes: the optimizer comes from `args.optimizer`; training reads only short documents in the
    first `args.length_curriculum` epochs, in an order that depends on seed and epoch alone; evaluation keeps the order
    of the rows also where training groups them by length; label smoothing is done by the model, which knows its class
    weights; dropout on the CPU is a faster one; a checkpoint of another optimizer is refused; FLOPs are not
    estimated.

    Args:
        model: the model.
        args: the options.
        train_collator: makes the batches of training; unset, `data_collator` does, as everywhere else. If it has a
            method `set_epoch`, it is told each epoch.
        **kwargs: see [`~transformers.Trainer`].
    """

    data_collator: Callable[[list[dict[str, Any]]], Any]

    def __init__(
        self,
        model: PreTrainedModel,
        args: RobertaGRUTrainingArguments,
        train_collator: Callable[[list[dict[str, Any]]], Any] | None = None,
        **kwargs: Any,
    ):
        if args.label_smoothing_factor:
            # The Trainer's own smoothing would keep the labels from the model; another loss has its own.
            if kwargs.get("compute_loss_func") is None:
                model.config.label_smoothing = args.label_smoothing_factor
            args.label_smoothing_factor = 0.0
        if args.device.type == "cpu":
            use_cpu_dropout(model)
        super().__init__(model=model, args=args, **kwargs)
        self.train_collator = train_collator or self.data_collator
        self.train_sampler: Sampler | None = None
        self.add_callback(_EpochCallback(self))

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: TrainingArguments, model: PreTrainedModel | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Return the optimizer's class and keyword arguments, parameter groups among them if a model is given."""
        if args.optimizer == "optim":
            optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
        else:
            optimizer_class, kwargs = optimizer_class_and_kwargs(args)
        if model is not None:
            kwargs.setdefault("params", parameter_groups(model, args))
        return optimizer_class, kwargs

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Keep of an evaluation step loss, logits and labels, whatever else the configuration has the model return."""
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys or NOT_KEPT)

    def predict_logits(self, dataset: Dataset) -> np.ndarray:
        """Return the logits (n, C) of a tokenised data set in the order of its rows.

        Rows are read longest first: level batches pad little, and one that does not fit in memory fails at once.
        """
        order = np.argsort(-np.asarray(dataset["length"][:]), kind="stable")
        predictions = self.predict(dataset.select(order)).predictions
        logits = np.empty_like(predictions)
        logits[order] = predictions
        return logits

    def predict_test(self, test: Dataset) -> np.ndarray:
        """Return the logits of a test split.

        Raises:
            AssertionError: if a row of it, or what was made of it, was trained on or chosen by.
        """
        for use, known in (("trained on", self.train_dataset), ("chosen by", self.eval_dataset)):
            common = origins(known).keys() & origins(test)
            if common:
                raise AssertionError(f"Row {min(common)} of the test split was {use}.")
        return self.predict_logits(test)

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of training, made by `train_collator`."""
        collator, self.data_collator = self.data_collator, self.train_collator
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        # The data set that the Trainer passes has lost its length column, and would be measured row by row.
        sampler = super()._get_train_sampler(self.train_dataset)
        if sampler is not None and not isinstance(sampler, BatchRebalanceSampler):
            lengths = self.train_dataset["length"][:] if self.args.length_curriculum else ()
            sampler = EpochSampler(sampler, self.args.order_seed, lengths, self.args.length_curriculum)
        self.train_sampler = sampler
        return sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        return SequentialSampler(eval_dataset)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the Trainer would go through all parameters at each step, to estimate what nothing here reads."""
        return 0

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        holds_adapter = (Path(resume_from_checkpoint) / "adapter_config.json").is_file()
        if holds_adapter != is_adapted(self.model):
            raise InputError(
                f"{resume_from_checkpoint} was written {'with' if holds_adapter else 'without'} --lora: resume as it "
                "was trained, or train anew in another --output_dir."
            )
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except RuntimeError as error:
            if "size mismatch" not in str(error):  # torch's word for parameters of other sizes
                raise
            raise InputError(
                f"{resume_from_checkpoint} holds a model of other sizes or labels: resume with the options and data "
                "it was trained with, or train anew in another --output_dir."
            ) from error

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.args.optimizer != "optim":
            check_optimizer_state(self.optimizer, self.args, checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)


class EpochSampler(Sampler[int]):
    """Read short documents only in the first epochs, more of them in each, then all as another sampler says.

    The first of three growing epochs reads the shortest quarter of the documents, the next one the shorter half, the
    last one three quarters. It takes as many readings as any other epoch, which are spread over the documents evenly.

    The order depends on seed and epoch alone: it is the same on every rank, which accelerate then gives every n-th
    batch of it, and the same after a resume. (transformers' own length grouping draws from torch's global state, which
    neither ranks nor a resumed run share.)

    Args:
        sampler: the order of all documents; one that takes chance from its `generator`, or from nothing.
        seed: what all chance comes from.
        lengths: number of tokens of each document; needed for growing epochs only.
        num_growing_epochs: how many epochs go by before all documents are read.
    """

    def __init__(
        self, sampler: Sampler[int], seed: int, lengths: Sequence[int] = (), num_growing_epochs: int = 0
    ) -> None:
        self.sampler = sampler
        self.seed = seed
        self.by_length = np.argsort(lengths, kind="stable")  # the shortest document first
        self.num_growing_epochs = num_growing_epochs
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next, the first being 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        seed = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1).item()
        self.sampler.generator = torch.Generator().manual_seed(seed)  # type: ignore[attr-defined]
        if self.epoch >= self.num_growing_epochs:
            return iter(self.sampler)
        # Each document gives way to a shorter one in proportion, so that batches of like lengths stay such.
        num_read = math.ceil(len(self) * (self.epoch + 1) / (self.num_growing_epochs + 1))
        rank = self.by_length.argsort()
        return iter(self.by_length[rank[list(self.sampler)] * num_read // len(self)].tolist())


class _EpochCallback(TrainerCallback):
    """Say which epoch begins: on several ranks, accelerate's own word does not reach the sampler after a resume."""

    def __init__(self, trainer: RobertaGRUTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for part in (self.trainer.train_sampler, self.trainer.train_collator):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(int(state.epoch))
