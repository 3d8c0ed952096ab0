"""The Trainer, with NAdam by default, this model's learning rates and evaluation in the order of the rows."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint, has_length

from ..data.splits import origins
from ..errors import InputError
from ..files import delete, why_not_written
from .adapter import base_of, is_adapted, whole_modules
from .arguments import RobertaGRUTrainingArguments, effective_batch_size
from .dropout import use_cpu_dropout
from .optimizers import check_optimizer_state, optimizer_class_and_kwargs, parameter_groups

NOT_KEPT = ["hidden_states", "attentions", "last_hidden_state", "pooler_output", "past_key_values"]
"""What a model may return beside its logits; gathered over an evaluation it would fill the memory."""


LENGTHS_AT_ONCE = 10_000
WITHOUT_EVALUATION: dict[str, Any] = {"eval_strategy": "no", "load_best_model_at_end": False}
NO_PUSH = (
    "this Trainer does not push. Save the model and publish its folder: `roberta-gru publish FOLDER USER/NAME`, or "
    "modeling_roberta_gru.publish."
)

logger = logging.getLogger(__name__)


class ResumingTrainer(Trainer):
    """The Trainer, made to resume exactly: a resumed run ends as an uninterrupted one would.

    Resumed from the checkpoint at the end of a training, it trains no step more: transformers' own trains one, where
    that end lies within an epoch. Each checkpoint says which files it has, so that one that was half deleted when the
    process died is not taken for whole.

    Attributes:
        train_sampler, train_collator: `set_epoch` is called on them at each epoch, where they have it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.resumed_from: str | None = None
        self.train_sampler: Any = None
        self.train_collator: Any = self.data_collator
        self.add_callback(CheckpointFiles())
        self.add_callback(_FiniteCallback())
        self.add_callback(_EpochCallback(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, or resume: see [`~transformers.Trainer.train`]."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) or True
        self.resumed_from = resume_from_checkpoint if isinstance(resume_from_checkpoint, str) else None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> Any:
        """Return how long training is; no epoch, where it is over already."""
        num_epochs, *others, max_steps = super().set_initial_training_values(*args, **kwargs)
        return (0 if self._is_over(max_steps) else num_epochs, *others, max_steps)

    def _load_callback_state(self) -> None:
        """Restore what callbacks had counted, those that the checkpoint knows, and leave their options as given."""
        patience = [callback.early_stopping_patience for callback in self._early_stopping()]
        super()._load_callback_state()
        for callback, given in zip(self._early_stopping(), patience, strict=True):
            callback.early_stopping_patience = given
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):  # transformers writes into a checkpoint those it finds here
                self.state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())

        noted = TrainerState.load_from_json(str(Path(self.resumed_from or "", "trainer_state.json")))
        best = noted.best_model_checkpoint
        if best is not None and self.state.best_model_checkpoint is None:  # the folder was moved
            moved = Path(self.resumed_from or "").parent / Path(best).name
            if not moved.is_dir():
                raise InputError(
                    f"{moved}, which holds the best weights so far, is missing: put it back, or start a new run in "
                    "another --output_dir.",
                    file=str(moved),
                )
            self.state.best_model_checkpoint = str(moved)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        return is_finite(self.model) and super()._determine_best_metric(metrics, trial)

    def _early_stopping(self) -> list[EarlyStoppingCallback]:
        return [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]

    def _is_over(self, max_steps: int) -> bool:
        file = Path(self.resumed_from or "") / "trainer_state.json"
        if self.resumed_from is None or not file.is_file():
            return False
        state = TrainerState.load_from_json(str(file))
        return state.global_step >= max_steps or any(
            isinstance(counted := state.stateful_callbacks.get(type(callback).__name__), dict)
            and counted["attributes"]["early_stopping_patience_counter"] >= callback.early_stopping_patience
            for callback in self._early_stopping()
        )


class RobertaGRUTrainer(ResumingTrainer):
    """[`~transformers.Trainer`] for [`RobertaGRUTrainingArguments`].

    What it changes: the optimizer comes from `args.optimizer`; training reads only short documents in the
    first `args.length_curriculum` epochs, in an order that depends on seed and epoch alone; evaluation keeps the order
    of the rows also where training groups them by length; label smoothing is done by the model, which knows its class
    weights; dropout on the CPU is a faster one; a checkpoint of another optimizer is refused; FLOPs are not
    estimated.

    Args:
        model: the model.
        args: the options; unset, their defaults, and without an `eval_dataset` no evaluation.
        train_collator: makes the batches of training; unset, `data_collator` does, as everywhere else. If it has a
            method `set_epoch`, it is told each epoch.
        published_by_caller: whether the caller publishes what comes out, as `push_to_hub` asks.
        **kwargs: see [`~transformers.Trainer`]. Data sets need what the model takes and `labels`, no more: lengths
            are read from the column that `args.length_column_name` names, or else counted.

    Raises:
        InputError: if the model is to be pushed, or is a PEFT model that leaves fresh layers untrained.
    """

    data_collator: Callable[[list[dict[str, Any]]], Any]

    def __init__(
        self,
        model: PreTrainedModel,
        args: RobertaGRUTrainingArguments | None = None,
        train_collator: Callable[[list[dict[str, Any]]], Any] | None = None,
        published_by_caller: bool = False,
        **kwargs: Any,
    ):
        if args is None:
            evaluation: dict[str, Any] = {} if kwargs.get("eval_dataset") is not None else WITHOUT_EVALUATION
            args = RobertaGRUTrainingArguments(**evaluation)
        if args.publish_as is not None and not published_by_caller:
            raise InputError(f"push_to_hub: {NO_PUSH}", field="push_to_hub")
        _check_adapter(model)
        if args.label_smoothing_factor:
            # The Trainer's own smoothing would keep the labels from the model; another loss has its own.
            if kwargs.get("compute_loss_func") is None:
                model.config.label_smoothing = args.label_smoothing_factor
            args = copy(args)  # the caller's own still say what was asked for
            args.label_smoothing_factor = 0.0
        if args.device.type == "cpu":
            use_cpu_dropout(model)
        super().__init__(model=model, args=args, **kwargs)
        self.train_collator = train_collator or self.data_collator

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
        others = getattr(base_of(self.model).config, "keys_to_ignore_at_inference", [])
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys or [*NOT_KEPT, *others])

    def predict_logits(self, dataset: Dataset) -> np.ndarray:
        """Return the logits (n, C) of a tokenised data set in the order of its rows.

        Rows are read longest first: level batches pad little, and one that does not fit in memory fails at once.
        """
        order = np.argsort(-document_lengths(dataset, self.args.length_column_name), kind="stable")
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

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Return the batches of an evaluation, of every row: `dataloader_drop_last` is for training."""
        with self._every_row():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Return the batches of a prediction, of every row."""
        with self._every_row():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def _every_row(self) -> Iterator[None]:
        given, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = given

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        # Not `train_dataset`, which has lost its length column; and transformers would ask that for every row.
        args, strategy = self.args, self.args.train_sampling_strategy
        if self.train_dataset is None or not has_length(self.train_dataset):
            return super()._get_train_sampler(train_dataset)
        lengths = np.empty(0, np.int64)
        sampler: Sampler[int]
        if args.length_curriculum or strategy in ("group_by_length", "batch_rebalance"):
            lengths = document_lengths(self.train_dataset, args.length_column_name)
        if strategy == "group_by_length":
            # Of the effective batch, so that the order is the same however that is cut.
            sampler = GroupedSampler(lengths, effective_batch_size(args))
        elif strategy == "batch_rebalance":
            from transformers.trainer_pt_utils import BatchRebalanceSampler  # the arguments see that it is there

            self.train_sampler = BatchRebalanceSampler(
                lengths.tolist(),
                effective_batch_size(args),
                dp_size=args.world_size,
                grad_accum=args.gradient_accumulation_steps,
                seed=args.order_seed,
                rank=args.process_index,
                drop_last=args.dataloader_drop_last,
            )
            return self.train_sampler
        else:
            in_order = strategy == "sequential"
            sampler = SequentialSampler(self.train_dataset) if in_order else RandomSampler(self.train_dataset)
        self.train_sampler = EpochSampler(sampler, args.order_seed, lengths, args.length_curriculum)
        return self.train_sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        return SequentialSampler(eval_dataset)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the Trainer would go through all parameters at each step, to estimate what nothing here reads."""
        return 0

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse to push: transformers would push pickles, and a card with another optimizer.

        Raises:
            InputError: always.
        """
        raise InputError(NO_PUSH)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            reason = why_not_written(error)
            if reason is None:
                raise
            delete(folder)  # which makes room, and is not whole
            raise InputError(
                f"{folder} cannot be written: {reason}. Make room or name another --output_dir; earlier checkpoints "
                "are whole, and --resume_from_checkpoint auto continues from the last one.",
                field="output_dir",
                file=str(folder),
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        holds_adapter = (Path(resume_from_checkpoint) / "adapter_config.json").is_file()
        if holds_adapter != is_adapted(self.model):
            raise InputError(
                f"{resume_from_checkpoint} was written {'with' if holds_adapter else 'without'} --lora: resume as it "
                "was trained, or start a new run in another --output_dir.",
                field="lora",
                file=resume_from_checkpoint,
            )
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except RuntimeError as error:
            if "size mismatch" not in str(error):  # torch's word for parameters of other sizes
                raise
            raise InputError(
                f"{resume_from_checkpoint} holds a model of other sizes or labels: resume with the options and data "
                "it was trained with, or start a new run in another --output_dir.",
                file=resume_from_checkpoint,
            ) from error

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            check_optimizer_state(self.optimizer, self.args, checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)


class EarlyStopping(EarlyStoppingCallback):
    """transformers' own, which does not count the epochs that read short documents only.

    Args:
        num_growing_epochs: how many epochs go by before all documents are read.
        **kwargs: see [`~transformers.EarlyStoppingCallback`].
    """

    def __init__(self, num_growing_epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_growing_epochs = num_growing_epochs

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        state = super().state()
        return {**state, "args": {**state["args"], "num_growing_epochs": self.num_growing_epochs}}

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count an evaluation."""
        if (state.epoch or 0) > self.num_growing_epochs:
            super().on_evaluate(args, state, control, **kwargs)


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
        self, sampler: Sampler[int], seed: int, lengths: Sequence[int] | np.ndarray = (), num_growing_epochs: int = 0
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
        later = np.fromiter(self.sampler, np.int64, len(self))
        return map(int, self.by_length[rank[later] * num_read // len(self)])


class GroupedSampler(Sampler[int]):
    """Draw documents in the order of transformers' `LengthGroupedSampler`, which makes a Python object of each.

    In groups of fifty batches (fewer of few documents) the longest come first, the longest of all in the first group.

    Args:
        lengths: (n,): number of tokens of each document.
        batch_size: documents in a batch.
        generator: where chance is taken from.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, generator: torch.Generator | None = None) -> None:
        self.lengths, self.generator = np.asarray(lengths), generator
        self.group_size = batch_size * max(1, min(len(self.lengths) // (4 * batch_size), 50))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return self._grouped(torch.randperm(len(self), generator=self.generator).numpy())

    def _grouped(self, rows: np.ndarray) -> Iterator[int]:
        longest = int(np.argmax((self.lengths == self.lengths.max())[rows]))
        shortened = 0  # what gives its place to the longest document of all
        for start in range(0, len(rows), self.group_size):
            group = rows[start : start + self.group_size]
            group = group[np.argsort(-self.lengths[group], kind="stable")]
            if start == 0:
                shortened, group[0] = group[0], rows[longest]
            if start == longest - longest % self.group_size:
                group[0] = shortened
            yield from group.tolist()


def document_lengths(dataset: Any, column: str = "length") -> np.ndarray:
    """Return the number of tokens of each row, (n,) int32.

    Args:
        dataset: rows with `input_ids`.
        column: of the lengths, if there is one: it is believed.
    """
    if not isinstance(dataset, Dataset):
        return np.array([len(row["input_ids"]) for row in dataset], dtype=np.int32)
    if column in dataset.column_names:
        rows = dataset.select_columns(column).with_format("numpy")
        parts = (part[column] for part in rows.iter(LENGTHS_AT_ONCE))
    else:
        rows = dataset.select_columns("input_ids").with_format("arrow")
        parts = (pyarrow.compute.list_value_length(part["input_ids"]) for part in rows.iter(LENGTHS_AT_ONCE))
    return np.concatenate([np.empty(0, np.int32), *(np.asarray(part).astype(np.int32) for part in parts)])


def _check_adapter(model: Any) -> None:
    """Check that a PEFT model trains what is fresh in a classifier: PEFT knows the names of stock heads only."""
    if not is_adapted(model):
        return
    base = base_of(model)
    untrained = [
        name
        for name in whole_modules(base)
        if not any(parameter.requires_grad for parameter in base.get_submodule(name).parameters())
    ]
    if untrained:
        raise InputError(
            f"The adapter leaves {', '.join(untrained)} of the model untrained. Pass modules_to_save={untrained} to "
            "LoraConfig.",
            field="modules_to_save",
        )


class CheckpointFiles(TrainerCallback, ExportableState):
    """Write into a checkpoint's trainer_state.json, the last of its files, which others there are, and what of.

    That is seeds, data, options, and how much is trained: what [`~.run_folder.find_checkpoint`] compares.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.run: TrainerState | None = None
        self.noted: dict[str, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.folder, self.run = Path(args.output_dir), state
        self.noted = {
            "seed": args.seed,
            "data_seed": getattr(args, "order_seed", args.seed),
            "data": getattr(args, "data_fingerprint", None),
            "options": getattr(args, "shared_options", None),
            "batch_size": None if args.auto_find_batch_size else effective_batch_size(args),
            "num_train_epochs": args.num_train_epochs if args.max_steps < 0 else None,
            "max_steps": state.max_steps,
        }

    def state(self) -> dict[str, Any]:
        files: list[str] = []
        if self.folder is not None and self.run is not None:
            checkpoint = self.folder / f"checkpoint-{self.run.global_step}"
            paths = sorted(path for path in checkpoint.rglob("*") if path.is_file())
            files = [path.relative_to(checkpoint).as_posix() for path in paths]
        return {"args": {}, "attributes": {"files": files, **self.noted}}


def is_finite(model: nn.Module) -> bool:
    """Tell whether all weights are numbers, on every rank: each may hold another part; all ranks must call it."""
    finite = all(bool(torch.isfinite(_local(parameter)).all()) for parameter in model.parameters())
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return finite
    least = torch.tensor(int(finite), device=next(model.parameters()).device)
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    return bool(least)


def _local(parameter: torch.Tensor) -> torch.Tensor:
    """Return what this rank holds of a parameter."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


class _FiniteCallback(TrainerCallback):
    """Keep no checkpoint of weights that are not finite, and end a training that nothing can bring back."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_save:
            self._check(state, control, **kwargs)

    on_epoch_end = on_step_end

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._check(state, control, **kwargs)

    def _check(self, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any) -> None:
        if not is_finite(model):
            logger.warning(
                "The weights are not finite after step %d: training has diverged and ends; no checkpoint of them is "
                "kept. Lower the learning rate.",
                state.global_step,
            )
            control.should_save, control.should_training_stop = False, True


class _EpochCallback(TrainerCallback):
    """Say which epoch begins: on several ranks, accelerate's own word does not reach the sampler after a resume."""

    def __init__(self, trainer: ResumingTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for part in (self.trainer.train_sampler, self.trainer.train_collator):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(int(state.epoch or 0))
