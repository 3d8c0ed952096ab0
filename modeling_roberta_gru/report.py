"""What a run leaves: figures, predictions, pictures and the model, written whole, and the words it ends with."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .baselines.bag_of_words import measure_bag_of_words
from .data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from .data.splits import Splits
from .errors import InputError
from .files import carried, delete, replacing, write_json
from .hub.card import write_card
from .hub.check import predict_in_clean_process
from .training.metrics import measure, to_probabilities, written
from .training.plots import draw_confusion

RUN_FILES = {
    "model": "the model: loads anywhere by the Auto classes",
    "adapter": "the LoRA adapter alone, which model/ holds merged: its README.md says how to load it",
    "metrics.json": "every figure with its 95 % interval, for validation and test",
    "predictions.parquet": "each test row's label, prediction and probabilities",
    "confusion.png": "where the predictions go wrong",
    "curves.png": "loss and score over time",
    "history.jsonl": "what was logged during training",
    "run.json": "command, options, data, versions, hardware, duration",
}

POOLED = "The given splits were pooled: these figures compare with nothing reported on the official test split."

logger = logging.getLogger(__name__)


def measure_run(
    splits: Splits, logits: dict[str, np.ndarray], temperature: float | None, bag_of_words: bool
) -> dict[str, Any]:
    """Return what metrics.json holds.

    Args:
        splits: the data.
        logits: of "validation" and "test", (n, C), at temperature 1.
        temperature: that the probabilities are calibrated by, if they are.
        bag_of_words: whether to measure one beside.
    """
    labels = splits.labels
    metrics: dict[str, Any] = {}
    calibration: dict[str, Any] = {"temperature": temperature}
    for name, documents in (("validation", splits.validation), ("test", splits.test)):
        references = documents["label"][:]
        probabilities = to_probabilities(logits[name] / (temperature or 1), labels.problem_type)
        metrics[name] = measure(probabilities, references, labels.problem_type, labels.names)
        if temperature is not None:
            uncalibrated = to_probabilities(logits[name], labels.problem_type)
            before = measure(uncalibrated, references, labels.problem_type, labels.names)
            calibration[name] = {
                "before": before["calibration_error"],
                "after": metrics[name]["calibration_error"],
            }
    if temperature is not None:
        metrics["calibration"] = calibration
    if bag_of_words and labels.problem_type == SINGLE_LABEL:
        try:
            metrics["bag_of_words"] = {"test": measure_bag_of_words(splits.train, splits.test, labels.names)}
        except InputError as error:  # a line of sanity must not cost the model
            logger.warning("No bag of words beside it: %s", error)
    return metrics


def write_run(
    output_dir: str,
    splits: Splits,
    predictions: np.ndarray,
    metrics: dict[str, Any],
    record: dict[str, Any],
    write_model: Callable[[Path], None],
) -> None:
    """Leave a run's files in a folder, all of them or none.

    Args:
        output_dir: the folder, which exists.
        splits: the data.
        predictions: what `metrics.measure` takes, of the test split.
        metrics, record: what metrics.json and run.json will hold.
        write_model: writes the model and the course of its training into the folder it is given, if there are any.
    """
    labels, references = splits.labels, splits.test["label"][:]
    with TemporaryDirectory(dir=output_dir, prefix=".unfinished-") as staging:
        folder = Path(staging)
        write_model(folder)
        draw_confusion(predictions, references, labels.problem_type, labels.names, folder / "confusion.png")
        _write_predictions(splits, predictions, folder / "predictions.parquet")
        write_json(folder / "run.json", record)
        write_json(folder / "metrics.json", metrics)
        if (folder / "model").is_dir():
            _complete_model(folder, record, metrics)
        _move_run(folder, Path(output_dir))


def _complete_model(folder: Path, record: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Put beside a run's model what travels with it: card, figures, pictures, record, licence, endpoint."""
    model = folder / "model"
    write_card(model, record, metrics)
    for name in ("metrics.json", "confusion.png", "curves.png"):
        shutil.copy(folder / name, model)
    if any(model.glob("*.py")):  # code of ours
        for name in ("LICENSE", "model_card/handler.py", "model_card/requirements.txt"):
            shutil.copy(carried(name), model)
    for path in model.glob("*.safetensors"):  # which safetensors lets nobody else read, in a container neither
        path.chmod((model / "config.json").stat().st_mode)


def _move_run(source: Path, folder: Path) -> None:
    """Move a whole run to its place; a folder with metrics.json holds one run and no part of another."""
    marker = "metrics.json"
    (folder / marker).unlink(missing_ok=True)
    for name in [*(name for name in RUN_FILES if name != marker), marker]:
        if not (source / name).exists():  # a bag of words has no model, and most models no adapter
            delete(folder / name)
            continue
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


def report(splits: Splits, metrics: dict[str, Any], output_dir: str, verify_load: bool) -> str:
    """Say what came out, what a clean process makes of the saved folder, and where everything lies."""
    folder = Path(output_dir)
    lines = ["", *_result_lines(metrics), "In brackets: 95 % bootstrap intervals over the rows."]
    lines += [POOLED] if splits.pooled else []
    if verify_load and (folder / "model").is_dir():
        texts = [str(text) for text in splits.test["text"][:4]]
        lines += ["", "Predictions of a clean process, where importing modeling_roberta_gru fails, by", ""]
        trusted = ", trust_remote_code=True" if any((folder / "model").glob("*.py")) else ""
        lines += [f'  pipeline("text-classification", "{folder / "model"}"{trusted})', ""]
        for text, prediction in zip(texts, predict_in_clean_process(folder / "model", texts), strict=True):
            lines.append(f"  {prediction['label']:>12} {prediction['score']:.3f}  {shorten(text, 80)}")
    lines += ["", f"Everything lies in {folder}:", ""]
    lines += [f"  {name:<20} {what}" for name, what in RUN_FILES.items() if (folder / name).exists()]
    if any(folder.glob("checkpoint-*")):
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
