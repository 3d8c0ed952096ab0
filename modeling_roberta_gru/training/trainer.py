"""The Trainer, with NAdam by default, this model's learning rates and evaluation in the order of the rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import BatchRebalanceSampler

from ..arguments import RobertaGRUTrainingArguments
from ..data.splits import origins
from ..errors import InputError
from .adapter import is_adapted
from .dropout import use_cpu_dropout
from .optimizers import check_optimizer_state, optimizer_class_and_kwargs, parameter_groups
from .sampler import EpochSampler


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


def find_checkpoint(args: RobertaGRUTrainingArguments) -> str | None:
    """Return the checkpoint folder that `--resume_from_checkpoint` means: a path, or "true" for the run's last one.

    A folder whose writing was interrupted does not count: the trainer's state is written last.

    Raises:
        InputError: if there is no such checkpoint.
    """
    wanted = args.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    if str(wanted).lower() != "true":
        if not (Path(wanted) / "trainer_state.json").is_file():
            raise InputError(f"--resume_from_checkpoint {wanted} holds no whole checkpoint (no trainer_state.json).")
        return str(wanted)
    states = Path(args.output_dir).glob("checkpoint-*/trainer_state.json")
    steps = {int(state.parent.name.rpartition("-")[2]): state.parent for state in states}
    if not steps:
        raise InputError(f"--resume_from_checkpoint true: {args.output_dir} holds no whole checkpoint yet.")
    return str(steps[max(steps)])
