"""One run, from data to a saved model and its report: what `train.py` does."""

import json
import logging
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    set_seed,
)
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER
from transformers.utils import logging as transformers_logging

from .arguments import (
    BAG_OF_WORDS,
    RECURRENT_NETS,
    ROBERTA_GRU,
    TRANSFORMER,
    DataArguments,
    ModelArguments,
    RobertaGRUTrainingArguments,
)
from .baselines import recurrent, transformer
from .baselines.bag_of_words import BagOfWords
from .configuration_roberta_gru import RobertaGRUConfig
from .data.documents import SPLITS
from .data.labels import SINGLE_LABEL, class_weights
from .data.splits import Splits, load_splits
from .data.tokenization import SelectingCollator, lift_limits, limit_length, tokenize
from .errors import InputError, unknown_name
from .files import delete, write_text
from .hub.publish import check_rights, publish
from .report import POOLED, RUN_FILES, measure_run, report, write_run
from .training import loading
from .training.adapter import adapt, base_of, count_parameters, is_adapted, write_adapter
from .training.calibration import fit_temperature
from .training.metrics import combined_metrics, figure_names, to_probabilities
from .training.optimizers import freeze
from .training.plots import draw_curves
from .training.record import (
    changed_options,
    describe_data,
    describe_hyperparameters,
    describe_model,
    describe_platform,
    describe_times,
    describe_training,
)
from .training.trainer import RobertaGRUTrainer, find_checkpoint

# Modules that have load_tokenizer and load_model.
LOADERS = {ROBERTA_GRU: loading, TRANSFORMER: transformer, **dict.fromkeys(RECURRENT_NETS, recurrent)}

# Options that an architecture has no use for.
OF_LAYERS = ("freeze_encoder", "freeze_layers", "layer_decay", "gradient_checkpointing", "lora")
WITHOUT_EFFECT = {
    TRANSFORMER: ("max_windows",),
    **dict.fromkeys(RECURRENT_NETS, ("max_windows", "model_revision", *OF_LAYERS)),
    BAG_OF_WORDS: (
        *("max_windows", "model_revision", "tokenizer_name", "resume_from_checkpoint", "hub_model_id", "lora"),
    ),
}


def run(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: RobertaGRUTrainingArguments,
    recipe: str | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, calibrate, measure and save, leaving [`RUN_FILES`] in `args.output_dir`.

    The test split is read once, after training and calibration. With several processes, each does its part of the
    computing and the first writes.

    Returns:
        The metrics, as in metrics.json.

    Raises:
        InputError: if options, data, checkpoint or output folder are not usable; nothing is written then.
    """
    started = time.time()
    options = changed_options(model_args, data_args, args)
    fit = fit_bag_of_words if model_args.architecture == BAG_OF_WORDS else train
    system = fit(model_args, data_args, args)
    splits = system.splits
    temperature = None
    if args.calibrate and splits.labels.problem_type == SINGLE_LABEL and isinstance(system, TrainedModel):
        temperature = fit_temperature(system.validation_logits, splits.validation["label"][:])
    predicting = time.time()
    logits = {"validation": system.validation_logits, "test": system.predict_test()}
    test_seconds = round(time.time() - predicting, 1)
    if args.process_index != 0:
        return {}

    metrics = measure_run(splits, logits, temperature, args.bag_of_words and isinstance(system, TrainedModel))
    record = {
        "recipe": recipe and Path(recipe).stem,
        "command": shlex.join(command),
        **system.describe(model_args, args, started),
        "test_seconds": test_seconds,
        "data": describe_data(splits, data_args, system.max_length),
        "options": options,
        **describe_platform(args),
    }
    if isinstance(system, TrainedModel) and temperature is not None:
        system.calibrate(temperature)
    predictions = to_probabilities(logits["test"] / (temperature or 1), splits.labels.problem_type)
    write_run(args.output_dir, splits, predictions, metrics, record, system.write)
    print(report(splits, metrics, args.output_dir, args.verify_load), flush=True)
    if args.publish_as is not None:
        _publish(args.publish_as, args)
    return metrics


@dataclass
class TrainedModel:
    """A model that was trained and has not yet seen the test split.

    Attributes:
        splits: the data.
        trainer: holds the model and the course of its training.
        test: the tokenised test split.
        validation_logits: (n, C), at temperature 1.
        max_length: the number of tokens that texts are cut to; None for whole texts.
        loss_fields: `class_weights` and `label_smoothing` of the loss.
        training_seconds: the time that training took; None where it went on from a checkpoint.
        card_license: the model's licence.
    """

    splits: Splits
    trainer: RobertaGRUTrainer
    test: Dataset
    validation_logits: np.ndarray
    max_length: int | None
    loss_fields: dict[str, Any]
    training_seconds: float | None
    card_license: str

    def predict_test(self) -> np.ndarray:
        """Return the test split's logits (n, C) at temperature 1."""
        return self.trainer.predict_test(self.test)

    def calibrate(self, temperature: float) -> None:
        """Have the model divide its logits by a temperature from now on."""
        model = base_of(self.trainer.model)
        if hasattr(model.config, "calibration_temperature"):
            model.config.calibration_temperature = temperature
        else:
            transformer.fold_temperature(model, temperature)

    def describe(
        self, model_args: ModelArguments, args: RobertaGRUTrainingArguments, started: float
    ) -> dict[str, Any]:
        """Return the record of model and training; `started` is when the run was, in seconds since 1970."""
        return {
            **describe_training(self.trainer, started, self.training_seconds),
            "model": describe_model(self.trainer.model, model_args),
            "hyperparameters": describe_hyperparameters(args, **self.loss_fields),
        }

    def write(self, folder: Path) -> None:
        """Write the model and the course of its training; an adapter alone first, since it is then merged for good."""
        model, tokenizer = self.trainer.model, self.trainer.processing_class
        if is_adapted(model):
            write_adapter(model, self.card_license, folder / "adapter")
            tokenizer.save_pretrained(folder / "adapter")
            model = model.merge_and_unload()
        model.save_pretrained(folder / "model", max_shard_size="5GB")  # as the Hub advises
        tokenizer.save_pretrained(folder / "model")
        history = self.trainer.state.log_history
        write_text(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
        best_step = self.trainer.state.best_global_step if self.trainer.args.load_best_model_at_end else None
        draw_curves(history, folder / "curves.png", best_step)


def train(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: RobertaGRUTrainingArguments,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainedModel:
    """Train a model and predict the validation split; the test split is not predicted.

    Args:
        model_args, data_args, args: the options.
        callbacks: further callbacks of the Trainer.

    Raises:
        InputError: as [`run`] does.
    """
    is_main = args.process_index == 0
    resumed = find_checkpoint(args)
    splits = _prepare(model_args, data_args, args, resumed)
    labels = splits.labels
    loader = LOADERS[model_args.architecture]
    tokenizer = loader.load_tokenizer(model_args, splits.train["text"])
    loss_fields = {
        "class_weights": class_weights(args.class_weights, labels, splits.train["label"][:]),
        "label_smoothing": args.label_smoothing_factor,
    }
    model = loader.load_model(model_args, tokenizer, labels, **loss_fields)
    freeze(model, args)
    if args.lora is not None:
        chosen = (args.lora, args.lora_alpha, args.lora_dropout, args.lora_target_modules)
        model = adapt(model, *chosen, revision=model_args.model_revision)
    max_length = _max_length(model_args, data_args, model, tokenizer)
    if is_main:
        print(_described_data(splits), _described_model(model_args, model, args, max_length), sep="\n", flush=True)

    tokens = {name: tokenize(getattr(splits, name), tokenizer, max_length) for name in SPLITS}
    collator = DataCollatorWithPadding(tokenizer)
    train_collator = None
    if model_args.architecture == TRANSFORMER:
        tokenizer.model_max_length = max_length or VERY_LARGE_INTEGER
    else:
        lift_limits(tokenizer)
    if model_args.architecture == ROBERTA_GRU:
        _check_sharding(args, max(max(part["length"][:]) for part in tokens.values()), model.config)
        tokens["train"], train_collator = _bound_windows(tokens["train"], model.config, data_args, args, collator)
    validation = tokens["validation"]
    trainer = RobertaGRUTrainer(
        model,
        args,
        train_dataset=tokens["train"],
        eval_dataset=validation.select(np.argsort(validation["length"][:])),
        processing_class=tokenizer,
        data_collator=collator,
        train_collator=train_collator,
        compute_metrics=lambda prediction: _validation_figures(prediction, labels.problem_type),
        compute_loss_func=loader.loss_function(labels, **loss_fields) if loader is transformer else None,
        callbacks=[*_callbacks(args), *callbacks],
    )
    if is_main and resumed is None:
        _discard_checkpoints(args)
    training = trainer.train(resume_from_checkpoint=resumed)
    logits = trainer.predict_logits(validation)
    seconds = training.metrics["train_runtime"] if resumed is None else None
    return TrainedModel(
        splits, trainer, tokens["test"], logits, max_length, loss_fields, seconds, model_args.card_license
    )


@dataclass
class FittedBagOfWords:
    """A bag of words in the place of a trained model: see [`TrainedModel`]."""

    splits: Splits
    model: BagOfWords
    validation_logits: np.ndarray
    weights: list[float] | None
    training_seconds: float
    max_length: int | None = None

    def predict_test(self) -> np.ndarray:
        """Return the logarithms of the test split's probabilities (n, C)."""
        return self.model.predict_logits(self.splits.test["text"][:])

    def describe(
        self, model_args: ModelArguments, args: RobertaGRUTrainingArguments, started: float
    ) -> dict[str, Any]:
        """Return the record of model and training."""
        return {
            **describe_times(started, self.training_seconds),
            "model": {"architecture": BAG_OF_WORDS, "num_parameters": self.model.num_parameters},
            "hyperparameters": {"class_weights": self.weights},
        }

    def write(self, folder: Path) -> None:
        """Write nothing: figures and predictions are all that is left."""


def fit_bag_of_words(
    model_args: ModelArguments, data_args: DataArguments, args: RobertaGRUTrainingArguments
) -> FittedBagOfWords:
    """Fit TF-IDF and logistic regression to whole texts. Of the training options only the class weights matter.

    What comes out is not calibrated.

    Raises:
        InputError: as [`run`] does.
    """
    splits = _prepare(model_args, data_args, args, resumed=None)
    labels = splits.labels
    weights = class_weights(args.class_weights, labels, splits.train["label"][:])
    if args.process_index == 0:
        print(_described_data(splits), flush=True)
    started = time.time()
    model = BagOfWords(weights).fit(splits.train["text"][:], splits.train["label"][:], labels.num_labels)
    seconds = time.time() - started
    if args.process_index == 0:
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        _discard_checkpoints(args)
    return FittedBagOfWords(splits, model, model.predict_logits(splits.validation["text"][:]), weights, seconds)


def _publish(name: str, args: RobertaGRUTrainingArguments) -> None:
    """Publish the finished run; what goes wrong does not cost it."""
    try:
        publication = publish(args.output_dir, name, private=args.hub_private_repo, revision=args.hub_revision)
    except InputError as error:
        options = ["--private"] if args.hub_private_repo else []
        options += ["--revision", args.hub_revision] if args.hub_revision else []
        again = shlex.join(["roberta-gru", "publish", args.output_dir, name, *options])
        raise InputError(f"{error} The run itself is whole, and can be published later: {again}") from error
    print(f"\nPublished as {name}, {publication.tag}: {publication.url}", flush=True)


# Before training


def _prepare(
    model_args: ModelArguments, data_args: DataArguments, args: RobertaGRUTrainingArguments, resumed: str | None
) -> Splits:
    """Check the options and where the run goes, seed all that is random, and load the data."""
    _check_options(model_args, data_args, args)
    if args.process_index == 0:
        _check_output_dir(args, resumed)
        if args.publish_as is not None:
            check_rights(args.publish_as, private=args.hub_private_repo)
    else:
        _fall_silent()
    set_seed(args.seed)
    splits = load_splits(data_args)
    _check_metric(args, splits.labels.problem_type)
    return splits


def _check_options(model_args: ModelArguments, data_args: DataArguments, args: RobertaGRUTrainingArguments) -> None:
    if args.lora and args.fsdp:
        raise InputError("--lora cannot go with --fsdp, which leaves no process the whole model to merge it into.")
    changed = changed_options(model_args, data_args, args)
    for name in WITHOUT_EFFECT.get(model_args.architecture, ()):
        if changed.get(name):
            raise InputError(
                f"--{name} has no effect with --architecture {model_args.architecture}: leave it out (--{name} null, "
                "where a recipe names it)."
            )


def _max_length(
    model_args: ModelArguments, data_args: DataArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> int | None:
    """Return how many tokens of a text are read: all, but for a transformer no more than its window."""
    wanted = data_args.num_tokens
    if model_args.architecture != TRANSFORMER:
        return wanted
    window = loading.encoder_window(model, tokenizer)
    if wanted is not None and window is not None and wanted > window:
        raise InputError(
            f"--max_length {wanted} is more than the {window} tokens that the model reads at most: a transformer with "
            "its stock head has no windows."
        )
    return wanted or window


def _bound_windows(
    train: Dataset,
    config: RobertaGRUConfig,
    data_args: DataArguments,
    args: RobertaGRUTrainingArguments,
    collator: DataCollatorWithPadding,
) -> tuple[Dataset, SelectingCollator | None]:
    """Apply `--max_windows`: return the training split with its lengths bounded, and what bounds its documents."""
    if data_args.max_windows is None:
        return train, None
    capacity = config.window_capacity(data_args.max_windows)
    if data_args.num_tokens is not None and data_args.num_tokens <= capacity:
        raise InputError(
            f"--max_windows {data_args.max_windows} takes no effect: its windows hold {capacity} tokens, and "
            f"--max_length cuts texts to {data_args.num_tokens}. Leave one of them out."
        )
    policy = data_args.window_policy or "head"
    return limit_length(train, capacity), SelectingCollator(collator, capacity, policy, args.order_seed)


def _check_output_dir(args: RobertaGRUTrainingArguments, checkpoint: str | None) -> None:
    folder = Path(args.output_dir).resolve()
    held = _run_contents(folder)
    is_resumed = checkpoint is not None and Path(checkpoint).resolve().parent == folder
    if held and not is_resumed and not args.overwrite_output_dir:
        raise InputError(
            f"--output_dir {args.output_dir} holds another run ({', '.join(path.name for path in held[:3])} …). Name "
            "another folder, go on with that run by --resume_from_checkpoint true, or replace it by "
            "--overwrite_output_dir true."
        )
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(
            f"--output_dir {args.output_dir} cannot be made: {existing} is no folder that can be written to."
        )


def _check_sharding(args: RobertaGRUTrainingArguments, longest: int, config: RobertaGRUConfig) -> None:
    # The ranks of a sharded model must call it equally often; long documents come in one, two or more chunks.
    if args.fsdp and longest > config.encoder_window:
        raise InputError(
            f"--fsdp needs texts of at most {config.encoder_window} tokens, the encoder's window, and there is one of "
            f"{longest:,}. Cut them by --max_length {config.encoder_window}, or leave --fsdp out: each device then "
            "holds the whole model."
        )


def _fall_silent() -> None:
    """Leave words and progress bars to the first process."""
    logging.getLogger(__package__).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    disable_progress_bars()


def _check_metric(args: RobertaGRUTrainingArguments, problem_type: str) -> None:
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    known = ["loss", *figure_names(problem_type)]
    if metric not in known:
        raise unknown_name("figure in --metric_for_best_model", metric, known)


def _run_contents(folder: Path) -> list[Path]:
    return [folder / name for name in RUN_FILES if (folder / name).exists()] + _checkpoints(folder)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))


def _discard_checkpoints(args: RobertaGRUTrainingArguments) -> None:
    # An earlier run's must not be resumed as this one's; its results stay until ours replace them.
    for earlier in _checkpoints(Path(args.output_dir)):
        delete(earlier)


def _callbacks(args: RobertaGRUTrainingArguments) -> list[EarlyStoppingCallback]:
    if args.early_stopping_patience is None:
        return []
    if not args.load_best_model_at_end:
        raise InputError("--early_stopping_patience needs --load_best_model_at_end true, to know what is better.")
    return [EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience)]


def _validation_figures(prediction: EvalPrediction, problem_type: str) -> dict[str, float]:
    probabilities = to_probabilities(prediction.predictions, problem_type)
    return combined_metrics(problem_type).compute(predictions=probabilities, references=prediction.label_ids)


def _described_data(splits: Splits) -> str:
    counts = splits.counts
    duplicates = counts["removed_duplicates"]
    lines = [
        f"Data: {splits.source}: {counts['train']:,} training, {counts['validation']:,} validation, "
        f"{counts['test']:,} test rows.",
        f"Labels: {', '.join(splits.labels.names[:10])} ({splits.labels.problem_type.replace('_', ' ')}).",
        f"Removed: {counts['removed_repeats']} repeated rows before splitting, {counts['removed_conflicting']} "
        f"training rows whose equal texts disagree, {duplicates['train']} training and {duplicates['validation']} "
        "validation rows whose text stands in a later split.",
    ]
    if "oversampled" in counts:
        added = ", ".join(f"{number:,} of {label}" for label, number in counts["oversampled"]["added"].items())
        lines.append(f"Over-sampled by {counts['oversampled']['method']}: {added or 'none'}.")
    if splits.pooled:
        lines.append(POOLED)
    return "\n".join(lines)


def _described_model(
    model_args: ModelArguments, model: PreTrainedModel, args: RobertaGRUTrainingArguments, max_length: int | None
) -> str:
    total, trainable = count_parameters(model)
    base = model_args.model_name_or_path
    start = base or "random weights" + (f" and {model_args.embeddings}" if model_args.embeddings else "")
    cut = "" if max_length is None else f"\nTexts are cut to {max_length:,} tokens."
    return (
        f"Model: {model_args.architecture} from {start}; {total:,} parameters, {trainable:,} of them trained by "
        f"{args.optimizer}.{cut}"
    )
