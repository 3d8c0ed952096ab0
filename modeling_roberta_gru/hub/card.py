"""What a reader finds beside a model: its card, filled from what the run recorded and measured, and the record."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..files import carried, redacted, write_json, write_text
from ..markdown import cell, code
from ..training.architectures import ARCHITECTURES
from ..training.metrics import written

# (our metric, the Hub's, what people call it), in the card's order
REPORTED = (
    ("accuracy", "accuracy", "Accuracy"),
    ("macro_f1", "f1", "Macro-F1"),
    ("macro_precision", "precision", "Macro-precision"),
    ("macro_recall", "recall", "Macro-recall"),
    ("micro_f1", "f1", "Micro-F1"),
    ("log_loss", "log_loss", "Log-loss"),
    ("calibration_error", "expected_calibration_error", "Expected calibration error"),
    ("mse", "mse", "Mean squared error"),
    ("mae", "mae", "Mean absolute error"),
    ("r2", "r_squared", "R²"),
    ("spearman", "spearmanr", "Spearman correlation"),
)
RUN_KEYS = (
    *("recipe", "command", "commit", "started", "duration_seconds", "training_seconds", "test_seconds", "steps"),
    *("epochs", "best_step", "tokens_seen", "model", "hyperparameters", "data", "options", "versions", "hardware"),
)
"""What of a run's record is published; nothing else is."""

NO_PATHS = (
    *("class_names", "class_weights", "text_column", "label_column", "label_delimiter", "group_column"),
    *("csv_columns", "labels"),
)
"""Fields and options of words that only look like paths: a label such as /r/movies."""

SLASHES = r"[/\\]"
WHOLE_PATH = re.compile(rf"(?:file://)?(?:[A-Za-z]:)?{SLASHES}")
# In running text. Neither what follows a URL's scheme nor "and/or".
ABSOLUTE_FOLDERS = re.compile(rf"(?<![\w.:/\\])(?:[A-Za-z]:)?{SLASHES}(?:[^\s/\\'\"]+{SLASHES})+")

WIDGET_TEXTS = (
    "I had hoped for more, but from the second half on it won me over completely.",
    "Everyone around me loved it; I counted the minutes until it was over.",
)
"""What the Hub's widget proposes for a model of the built-in reviews."""


def write_card(folder: str | os.PathLike[str], record: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Write README.md and run.json into a saved model's folder.

    Args:
        folder: where the model is saved.
        record: the run's record, as in run.json of the run.
        metrics: its metrics, as in metrics.json.
    """
    write_text(Path(folder) / "README.md", build_card(record, metrics).content)
    write_json(Path(folder) / "run.json", published_record(record))


def published_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return what of a run's record others may read: its known keys, absolute paths cut to their last name."""
    return {key: _without_places(record[key], key) for key in RUN_KEYS if key in record}


def _without_places(value: Any, key: str) -> Any:
    if key in NO_PATHS:
        return value
    if key == "command":
        return _shorten_command(value)
    if isinstance(value, dict):
        return {name: _without_places(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_places(part, key) for part in value]
    return _shorten(value) if isinstance(value, str) else value


def _shorten_command(command: str) -> str:
    option, words = "", []
    for word in shlex.split(command):
        if word.startswith("--"):
            option = word[2:].partition("=")[0].replace("-", "_")
        words.append(word if option in NO_PATHS else _shorten(word))
    return shlex.join(words)


def _shorten(text: str) -> str:
    text = redacted(text)
    option, equals, path = text.rpartition("=") if text.startswith("--") else ("", "", text)
    if WHOLE_PATH.match(path):
        return f"{option}{equals}…/{re.split(SLASHES, path)[-1]}"
    return ABSOLUTE_FOLDERS.sub("…/", text)


def build_card(record: dict[str, Any], metrics: dict[str, Any]) -> ModelCard:
    """Fill the template; every number in the card is a field of `record` or `metrics`."""
    architecture = ARCHITECTURES[record["model"]["architecture"]]
    return ModelCard.from_template(
        _metadata(record, metrics),
        template_path=str(carried("model_card/template.md")),
        name=_name(record),
        record=record,
        metrics=metrics,
        rows=[(title, name) for name, _, title in REPORTED if name in metrics["test"]],
        example=WIDGET_TEXTS[0],
        sentence=architecture.sentence,
        travels=architecture.ships_code,
        sizes={name: record["model"].get(name) for name in architecture.size_fields},
        written=written,
        cell=cell,
        code=code,
    )


def _name(record: dict[str, Any]) -> str:
    return f"{record['model']['architecture']}-{record['recipe'] or 'classifier'}"


def _metadata(record: dict[str, Any], metrics: dict[str, Any]) -> ModelCardData:
    data, model, test = record["data"], record["model"], metrics["test"]
    own_code = ["custom_code"] if ARCHITECTURES[model["architecture"]].ships_code else []
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=data["hub_id"] or ("built-in" if data["built_in"] else "local"),
            dataset_name=data["source"],
            dataset_split="test",
            metric_type=metric,
            metric_name=title,
            metric_value=round(test[name]["value"], 6),
        )
        for name, metric, title in REPORTED
        if name in test
    ]
    return ModelCardData(
        license=model["license"],
        language=model["language"],
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=[model["architecture"], "text-classification", *own_code],
        datasets=[data["hub_id"]] if data["hub_id"] else None,
        base_model=model["base"] if model["base_on_hub"] else None,
        metrics=list(dict.fromkeys(metric for name, metric, _ in REPORTED if name in test)),
        eval_results=results,
        model_name=_name(record),
        widget=[{"text": text} for text in WIDGET_TEXTS] if data["built_in"] else None,
    )
