"""One run, from data to a saved model and its report: what `train.py` does."""

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import DataCollatorWithPadding, EarlyStoppingCallback, EvalPrediction, PreTrainedModel, set_seed
from transformers.utils import logging

from .baselines.bag_of_words import measure_bag_of_words
from .data.arguments import DataArguments
from .data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from .data.splits import Splits, load_splits
from .data.tokenization import tokenize
from .errors import InputError
from .files import delete, replacing, write_json, write_text
from .hub.card import write_card
from .hub.load_check import predict_elsewhere
from .training.arguments import ModelArguments, RobertaGRUTrainingArguments
from .training.calibration import fit_temperature
from .training.checkpoint import class_weights, load_model, load_tokenizer
from .training.figures import draw_confusion, draw_curves
from .training.metrics import combined_metrics, measure, to_probabilities, written
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
    checkpoint = find_checkpoint(args)
    if is_main:
        _check_output_dir(args, is_resumed=checkpoint is not None)
    logging.set_verbosity(args.get_process_log_level())
    set_seed(args.seed)

    splits = load_splits(data_args)
    labels = splits.labels
    tokenizer = load_tokenizer(model_args, splits.train["text"])
    weights = class_weights(args.class_weights, labels, splits.train["label"][:])
    model = load_model(model_args, tokenizer, labels, weights)
    freeze(model, args)
    max_length = _max_length(data_args, model.config.encoder_window)
    tokenizer.model_max_length = model.config.encoder_window
    _say(is_main, _describe(splits, model, args))

    train, validation, test = (
        tokenize(split, tokenizer, max_length) for split in (splits.train, splits.validation, splits.test)
    )
    trainer = RobertaGRUTrainer(
        model,
        args,
        train_dataset=train,
        eval_dataset=validation.select(np.argsort(validation["length"][:])),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
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

    metrics = _measure(splits, logits, temperature, args)
    record = {
        "recipe": recipe and Path(recipe).stem,
        "command": shlex.join(command),
        **describe_training(trainer, started, training.metrics["train_runtime"]),
        "data": describe_data(splits, data_args, max_length),
        "model": describe_model(model, model_args),
        "hyperparameters": describe_hyperparameters(args, model),
        "options": changed_options(model_args, data_args, args),
        **describe_platform(args),
    }
    predictions = to_probabilities(logits["test"] / temperature, labels.problem_type)
    _write_run(trainer, splits, predictions, metrics, record)
    print(_report(splits, metrics, args), flush=True)
    return metrics


# Before training


def _check_output_dir(args: RobertaGRUTrainingArguments, is_resumed: bool) -> None:
    held = _run_contents(Path(args.output_dir))
    if held and not is_resumed and not args.overwrite_output_dir:
        raise InputError(
            f"--output_dir {args.output_dir} holds another run ({', '.join(path.name for path in held[:3])} …). Name "
            "another folder, go on with that run by --resume_from_checkpoint true, or replace it by "
            "--overwrite_output_dir true."
        )


def _run_contents(folder: Path) -> list[Path]:
    return [folder / name for name in RUN_FILES if (folder / name).exists()] + _checkpoints(folder)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))


def _max_length(data_args: DataArguments, window: int) -> int:
    if data_args.max_length is not None and data_args.max_length > window:
        raise InputError(f"--max_length is {data_args.max_length}; this encoder reads at most {window} tokens.")
    return data_args.max_length or window


def _callbacks(args: RobertaGRUTrainingArguments) -> list[EarlyStoppingCallback]:
    if args.early_stopping_patience is None:
        return []
    if not args.load_best_model_at_end:
        raise InputError("--early_stopping_patience needs --load_best_model_at_end true, to know what is better.")
    return [EarlyStoppingCallback(early_stopping_patience=args.early_stopping_patience)]


def _validation_figures(prediction: EvalPrediction, problem_type: str) -> dict[str, float]:
    probabilities = to_probabilities(prediction.predictions, problem_type)
    return combined_metrics(problem_type).compute(predictions=probabilities, references=prediction.label_ids)


def _describe(splits: Splits, model: PreTrainedModel, args: RobertaGRUTrainingArguments) -> str:
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
        lines.append("The given splits are pooled: figures compare with nothing reported on the official test split.")
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    lines.append(f"Model: {total:,} parameters, {trainable:,} of them trained by {args.optimizer}.")
    return "\n".join(lines)


def _say(is_main: bool, text: str) -> None:
    if is_main:
        print(text, flush=True)


# After training


def _measure(
    splits: Splits, logits: dict[str, np.ndarray], temperature: float, args: RobertaGRUTrainingArguments
) -> dict[str, Any]:
    labels = splits.labels
    metrics: dict[str, Any] = {}
    calibration: dict[str, Any] = {"temperature": temperature}
    for name, documents in (("validation", splits.validation), ("test", splits.test)):
        references = documents["label"][:]
        probabilities = to_probabilities(logits[name] / temperature, labels.problem_type)
        metrics[name] = measure(probabilities, references, labels.problem_type, labels.names)
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
            metrics["bag_of_words"] = {"test": measure_bag_of_words(splits.train, splits.test, labels.names)}
    return metrics


def _write_run(
    trainer: RobertaGRUTrainer,
    splits: Splits,
    predictions: np.ndarray,
    metrics: dict[str, Any],
    record: dict[str, Any],
) -> None:
    folder = Path(trainer.args.output_dir)
    labels, references = splits.labels, splits.test["label"][:]
    history = trainer.state.log_history
    with replacing(folder / "model") as unfinished:
        trainer.model.save_pretrained(unfinished)
        trainer.processing_class.save_pretrained(unfinished)
        write_card(unfinished, record, metrics)
    write_text(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
    draw_curves(history, folder / "curves.png")
    draw_confusion(predictions, references, labels.problem_type, labels.names, folder / "confusion.png")
    _write_predictions(splits, predictions, folder / "predictions.parquet")
    write_json(folder / "run.json", record)
    # Last: a folder with metrics.json holds a whole run.
    write_json(folder / "metrics.json", metrics)


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
    if args.verify_load:
        texts = [str(text) for text in splits.test["text"][:4]]
        lines += ["", "Predictions of a fresh process, where importing modeling_roberta_gru fails, by", ""]
        lines += [f'  pipeline("text-classification", "{folder / "model"}", trust_remote_code=True)', ""]
        for text, prediction in zip(texts, predict_elsewhere(folder / "model", texts), strict=True):
            lines.append(f"  {prediction['label']:>12} {prediction['score']:.3f}  {shorten(text, 80)}")
    lines += ["", f"Everything lies in {folder}:", ""]
    lines += [f"  {name:<20} {what}" for name, what in RUN_FILES.items()]
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
