"""What training leaves, before the test split is read: a model that predicts it, describes itself and is written."""

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..arguments import ModelArguments
from ..data.splits import Splits
from ..files import write_text
from .adapter import base_of, is_adapted, write_adapter
from .architectures import Architecture
from .arguments import RobertaGRUTrainingArguments
from .bag_of_words import BagOfWords
from .plots import draw_curves
from .record import describe_hyperparameters, describe_model, describe_times, describe_training
from .sharding import whole_model
from .trainer import RobertaGRUTrainer


@dataclass(kw_only=True)
class Trained:
    """What was trained, whatever it is.

    Attributes:
        architecture: which kind it is.
        splits: the data.
        validation_logits: (n, C), at temperature 1.
        max_length: the number of tokens that texts are cut to; None for whole texts.
        training_seconds: the time that training took; None where it resumed from a checkpoint.
    """

    architecture: Architecture
    splits: Splits
    validation_logits: np.ndarray
    max_length: int | None
    training_seconds: float | None

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged during training."""
        return []

    @property
    def best_step(self) -> int | None:
        """The step that the weights are of, where the best ones were kept."""
        return None

    def predict_test(self) -> np.ndarray:
        """Return the test split's logits (n, C) at temperature 1."""
        raise NotImplementedError

    def calibrate(self, temperature: float) -> None:
        """Have the model divide its logits by a temperature from now on."""
        raise NotImplementedError

    def make_whole(self) -> None:
        """Have the first process hold all of the model, for what follows; every process must call it."""

    def describe(
        self, model_args: ModelArguments, args: RobertaGRUTrainingArguments, started: float
    ) -> dict[str, Any]:
        """Return the record of model and training; `started` is when the run was, in seconds since 1970."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Write the model, where it is kept, and the course of its training."""


@dataclass(kw_only=True)
class TrainedModel(Trained):
    """A neural network.

    Attributes:
        trainer: holds the model and the course of its training.
        test: the tokenised test split.
        loss_fields: `class_weights` and `label_smoothing` of the loss.
        card_license: the model's licence.
        base_revision: the commit of the checkpoint that it started from, where that came from the Hub.
    """

    trainer: RobertaGRUTrainer
    test: Dataset
    loss_fields: dict[str, Any]
    card_license: str
    base_revision: str | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The network, without the adapter's wrapping."""
        return base_of(self.trainer.model)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.trainer.processing_class

    @property
    def history(self) -> list[dict[str, Any]]:
        # By name, as a checkpoint keeps them: so a resumed run writes them too, but for the first training loss after
        # it resumes, a mean of the steps since then.
        return [dict(sorted(row.items())) for row in self.trainer.state.log_history]

    @property
    def best_step(self) -> int | None:
        return self.trainer.state.best_global_step if self.trainer.args.load_best_model_at_end else None

    def predict_test(self) -> np.ndarray:
        return self.trainer.predict_test(self.test)

    def calibrate(self, temperature: float) -> None:
        self.architecture.calibrate(self.model, temperature)

    def make_whole(self) -> None:
        self.trainer.model = whole_model(self.trainer.model)

    def describe(
        self, model_args: ModelArguments, args: RobertaGRUTrainingArguments, started: float
    ) -> dict[str, Any]:
        # The state says what was found; where nothing was searched for, after a resume, what was before.
        found = self.trainer.state.train_batch_size if args.auto_find_batch_size else None
        return {
            **describe_training(self.trainer, started, self.training_seconds, self.best_step),
            "model": describe_model(
                self.trainer.model,
                replace(model_args, model_revision=self.base_revision),
                self.architecture.size_fields,
            ),
            "hyperparameters": describe_hyperparameters(args, found or args.train_batch_size, **self.loss_fields),
        }

    def write(self, folder: Path) -> None:
        """Write the model and its course; an adapter alone first, since it is then merged for good."""
        model, tokenizer = self.trainer.model, self.tokenizer
        if is_adapted(model):
            write_adapter(model, self.card_license, folder / "adapter")
            tokenizer.save_pretrained(folder / "adapter")
            model = model.merge_and_unload()
        model.save_pretrained(folder / "model", max_shard_size="5GB")  # as the Hub advises
        tokenizer.save_pretrained(folder / "model")
        lines = [json.dumps({name: _in_json(value) for name, value in row.items()}) + "\n" for row in self.history]
        write_text(folder / "history.jsonl", "".join(lines))
        draw_curves(self.history, folder / "curves.png", self.best_step)


def _in_json(value: Any) -> Any:
    """Return a value that was logged, or None for a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(kw_only=True)
class FittedBagOfWords(Trained):
    """TF-IDF and logistic regression, fitted to whole texts. It is not calibrated, and its model is not kept."""

    bag: BagOfWords
    weights: list[float] | None

    def predict_test(self) -> np.ndarray:
        return self.bag.predict_logits(self.splits.test["text"][:])

    def describe(
        self, model_args: ModelArguments, args: RobertaGRUTrainingArguments, started: float
    ) -> dict[str, Any]:
        return {
            **describe_times(started, self.training_seconds),
            "model": {"architecture": self.architecture.name, "num_parameters": self.bag.num_parameters},
            "hyperparameters": {"class_weights": self.weights},
        }


def fit_bag_of_words(architecture: Architecture, splits: Splits, weights: list[float] | None) -> FittedBagOfWords:
    """Fit TF-IDF and logistic regression to whole texts. Of the training options only the class weights matter.

    Raises:
        InputError: if the labels are not one class id a text.
    """
    started = time.time()
    bag = BagOfWords(weights).fit(splits.train["text"][:], splits.train["label"][:], splits.labels.num_labels)
    seconds = time.time() - started
    return FittedBagOfWords(
        architecture=architecture,
        splits=splits,
        validation_logits=bag.predict_logits(splits.validation["text"][:]),
        max_length=None,
        training_seconds=seconds,
        bag=bag,
        weights=weights,
    )
