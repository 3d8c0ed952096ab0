"""One run, from data to a saved model and its report: what `train.py` does."""

import json
import logging
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import disable_progress_bars
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, EvalPrediction, PreTrainedModel, set_seed
from transformers.utils import logging as transformers_logging

from .baselines.bag_of_words import measure_bag_of_words
from .configuration_roberta_gru import RobertaGRUConfig
from .data.arguments import DataArguments
from .data.collation import SelectingCollator, limit_length
from .data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from .data.splits import Splits, load_splits
from .data.tokenization import lift_limits, tokenize
from .errors import InputError, unknown_name
from .files import delete, replacing, write_json, write_text
from .hub.card import write_card
from .hub.load_check import predict_elsewhere
from .training.arguments import ModelArguments, RobertaGRUTrainingArguments
from .training.calibration import fit_temperature
from .training.checkpoint import class_weights, load_model, load_tokenizer
from .training.figures import draw_confusion, draw_curves
from .training.metrics import combined_metrics, figure_names, measure, to_probabilities, written
from .training.optimizers import freeze
from .training.record import (
    changed_options,
    describe_data,
    describe_hyperparameters,
    describe_model,
    describe_platform,
    describe_training,
)
from .training.trainer import RobertaGRUTrainer, find_checkpoint

RUN_FILES = {
    "model": "the model: loads anywhere by the Auto classes, with trust_remote_code=True",
    "metrics.json": "every figure with its 95 % interval, for validation and test",
    "predictions.parquet": "each test row's label, prediction and probabilities",
    "confusion.png": "where the predictions go wrong",
    "curves.png": "loss and score over time",
    "history.jsonl": "what was logged during training",
    "run.json": "command, options, data, versions, hardware, duration",
}

POOLED = "The given splits were pooled: these figures compare with nothing reported on the official test split."

logger = logging.getLogger(__name__)


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
    is_main = args.process_index == 0
    options = changed_options(model_args, data_args, args)
    checkpoint = find_checkpoint(args)
    if is_main:
        _check_output_dir(args, checkpoint)
    else:
        _fall_silent()
    set_seed(args.seed)

    splits = load_splits(data_args)
    labels = splits.labels
    _check_metric(args, labels.problem_type)
    tokenizer = load_tokenizer(model_args, splits.train["text"])
    weights = class_weights(args.class_weights, labels, splits.train["label"][:])
    model = load_model(model_args, tokenizer, labels, weights, args.label_smoothing_factor)
    freeze(model, args)
    if is_main:
        print(_describe(splits, model_args.model_name_or_path, model, args), flush=True)

    train, validation, test = (
        tokenize(split, tokenizer, data_args.num_tokens) for split in (splits.train, splits.validation, splits.test)
    )
    lift_limits(tokenizer)
    _check_sharding(args, max(max(part["length"][:]) for part in (train, validation, test)), model.config)
    collator = DataCollatorWithPadding(tokenizer)
    train_collator = None
    if data_args.max_windows is not None:
        capacity = model.config.window_capacity(data_args.max_windows)
        if data_args.num_tokens is not None and data_args.num_tokens <= capacity:
            raise InputError(
                f"--max_windows {data_args.max_windows} takes no effect: its windows hold {capacity} tokens, and "
                f"--max_length cuts texts to {data_args.num_tokens}. Leave one of them out."
            )
        train = limit_length(train, capacity)
        train_collator = SelectingCollator(collator, capacity, data_args.window_policy or "head", args.order_seed)
    trainer = RobertaGRUTrainer(
        model,
        args,
        train_dataset=train,
        eval_dataset=validation.select(np.argsort(validation["length"][:])),
        processing_class=tokenizer,
        data_collator=collator,
        train_collator=train_collator,
        compute_metrics=lambda prediction: _validation_figures(prediction, labels.problem_type),
        callbacks=_callbacks(args),
    )
    if is_main and checkpoint is None:
        # An earlier run's checkpoints must not be resumed as this one's; its results stay until ours replace them.
        for earlier in _checkpoints(Path(args.output_dir)):
            delete(earlier)
    training = trainer.train(resume_from_checkpoint=checkpoint)

    logits = {"validation": trainer.predict_logits(validation)}
    if args.calibrate and labels.problem_type == SINGLE_LABEL:
        model.config.calibration_temperature = fit_temperature(logits["validation"], validation["labels"][:])
    temperature = model.config.calibration_temperature
    logits["test"] = trainer.predict_logits(test) * temperature  # raw again
    if not is_main:
        return {}

    probabilities = {name: to_probabilities(raw / temperature, labels.problem_type) for name, raw in logits.items()}
    metrics = _measure(splits, logits, probabilities, temperature, args)
    record = {
        "recipe": recipe and Path(recipe).stem,
        "command": shlex.join(command),
        **describe_training(trainer, started, training.metrics["train_runtime"]),
        "data": describe_data(splits, data_args),
        "model": describe_model(model, model_args),
        "hyperparameters": describe_hyperparameters(args, model),
        "options": options,
        **describe_platform(args),
    }
    _write_run(trainer, splits, probabilities["test"], metrics, record)
    print(_report(splits, metrics, args), flush=True)
    return metrics


# Before training


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


def _callbacks(args: RobertaGRUTrainingArguments) -> list[EarlyStoppingCallback]:
    if args.early_stopping_patience is None:
        return []
    if not args.load_best_model_at_end:
        raise InputError("--early_stopping_patience needs --load_best_model_at_end true, to know what is better.")
    return [EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience)]


def _validation_figures(prediction: EvalPrediction, problem_type: str) -> dict[str, float]:
    probabilities = to_probabilities(prediction.predictions, problem_type)
    return combined_metrics(problem_type).compute(predictions=probabilities, references=prediction.label_ids)


def _describe(splits: Splits, base: str | None, model: PreTrainedModel, args: RobertaGRUTrainingArguments) -> str:
    counts = splits.counts
    duplicates = counts["removed_duplicates"]
    lines = [
        f"Data: {splits.source}: {counts['train']:,} training, {counts['validation']:,} validation, "
        f"{counts['test']:,} test rows.",
        f"Labels: {', '.join(splits.labels.names[:10])} ({splits.labels.problem_type.replace('_', ' ')}).",
        f"Removed: {counts['removed_conflicting']} training rows whose equal texts disagree, {duplicates['train']} "
        f"training and {duplicates['validation']} validation rows whose text stands in a later split.",
    ]
    if splits.pooled:
        lines.append(POOLED)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    start = "random weights, for want of --model_name_or_path" if base is None else base
    lines.append(f"Model: {start}; {total:,} parameters, {trainable:,} of them trained by {args.optimizer}.")
    return "\n".join(lines)


# After training


def _measure(
    splits: Splits,
    logits: dict[str, np.ndarray],
    probabilities: dict[str, np.ndarray],
    temperature: float,
    args: RobertaGRUTrainingArguments,
) -> dict[str, Any]:
    labels = splits.labels
    metrics: dict[str, Any] = {}
    calibration: dict[str, Any] = {"temperature": temperature}
    for name, documents in (("validation", splits.validation), ("test", splits.test)):
        references = documents["label"][:]
        metrics[name] = measure(probabilities[name], references, labels.problem_type, labels.names)
        if labels.problem_type == SINGLE_LABEL:
            uncalibrated = to_probabilities(logits[name], labels.problem_type)
            before = measure(uncalibrated, references, labels.problem_type, labels.names)
            calibration[name] = {
                "before": before["calibration_error"],
                "after": metrics[name]["calibration_error"],
            }
    if labels.problem_type == SINGLE_LABEL:
        metrics["calibration"] = calibration
        if args.bag_of_words:
            try:
                metrics["bag_of_words"] = {"test": measure_bag_of_words(splits.train, splits.test, labels.names)}
            except InputError as error:  # a line of sanity must not cost the model
                logger.warning("No bag of words beside it: %s", error)
    return metrics


def _write_run(
    trainer: RobertaGRUTrainer,
    splits: Splits,
    predictions: np.ndarray,
    metrics: dict[str, Any],
    record: dict[str, Any],
) -> None:
    labels, references, history = splits.labels, splits.test["label"][:], trainer.state.log_history
    with TemporaryDirectory(dir=trainer.args.output_dir, prefix=".unfinished-") as staging:
        folder = Path(staging)
        trainer.model.save_pretrained(folder / "model")
        trainer.processing_class.save_pretrained(folder / "model")
        write_card(folder / "model", record, metrics)
        write_text(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
        draw_curves(history, folder / "curves.png", record["best_step"])
        draw_confusion(predictions, references, labels.problem_type, labels.names, folder / "confusion.png")
        _write_predictions(splits, predictions, folder / "predictions.parquet")
        write_json(folder / "run.json", record)
        write_json(folder / "metrics.json", metrics)
        _move_run(folder, Path(trainer.args.output_dir))


def _move_run(source: Path, folder: Path) -> None:
    """Move a whole run to its place; a folder with metrics.json holds one run and no part of another."""
    marker = "metrics.json"
    (folder / marker).unlink(missing_ok=True)
    for name in [*(name for name in RUN_FILES if name != marker), marker]:
        with replacing(folder / name) as place:
            os.replace(source / name, place)


def _write_predictions(splits: Splits, predictions: np.ndarray, path: Path) -> None:
    labels = splits.labels

    def names(label: Any) -> Any:
        if labels.problem_type == SINGLE_LABEL:
            return labels.names[label]
        if labels.problem_type == MULTI_LABEL:
            return [name for name, holds in zip(labels.names, label, strict=True) if holds >= 0.5]
        return label

    chosen = predictions.argmax(axis=1) if labels.problem_type == SINGLE_LABEL else predictions
    columns = {
        "row_id": splits.test["row_id"][:],
        "label": [names(label) for label in splits.test["label"][:]],
        "prediction": [names(label) for label in chosen.tolist()],
    }
    if labels.problem_type != REGRESSION:
        columns["probabilities"] = predictions.tolist()
    with replacing(path) as unfinished:
        pq.write_table(pa.table(columns), unfinished)


def _report(splits: Splits, metrics: dict[str, Any], args: RobertaGRUTrainingArguments) -> str:
    """Say what came out, what a stranger's process makes of the saved folder, and where everything lies."""
    folder = Path(args.output_dir)
    lines = ["", *_result_lines(metrics), "In brackets: 95 % bootstrap intervals over the rows."]
    lines += [POOLED] if splits.pooled else []
    if args.verify_load:
        texts = [str(text) for text in splits.test["text"][:4]]
        lines += ["", "Predictions of a fresh process, where importing modeling_roberta_gru fails, by", ""]
        lines += [f'  pipeline("text-classification", "{folder / "model"}", trust_remote_code=True)', ""]
        for text, prediction in zip(texts, predict_elsewhere(folder / "model", texts), strict=True):
            lines.append(f"  {prediction['label']:>12} {prediction['score']:.3f}  {shorten(text, 80)}")
    lines += ["", f"Everything lies in {folder}:", ""]
    lines += [f"  {name:<20} {what}" for name, what in RUN_FILES.items()]
    lines.append(f"  {'checkpoint-*':<20} for --resume_from_checkpoint; may be deleted")
    return "\n".join(lines)


def _result_lines(metrics: dict[str, Any]) -> list[str]:
    test = metrics["test"]
    lines = [
        f"Test {name.replace('_', ' ')} {written(test[name])}, n = {test['n']:,}"
        for name in ("accuracy", "macro_f1", "mae", "r2")
        if name in test
    ]
    if "bag_of_words" in metrics:
        lines.append(f"Bag of words on the same rows: accuracy {written(metrics['bag_of_words']['test']['accuracy'])}")
    if "calibration" in metrics:
        calibration = metrics["calibration"]
        lines.append(
            f"Test calibration error {written(calibration['test']['before'])} before, "
            f"{written(calibration['test']['after'])} after dividing logits by {calibration['temperature']:.3f}"
        )
    return lines
