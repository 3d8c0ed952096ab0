"""Measure a saved model on labelled texts it has not seen."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import DataCollatorWithPadding

from ..arguments import DataArguments
from ..data.documents import as_numbers
from ..data.labels import MULTI_LABEL, REGRESSION, LabelSpace
from ..data.splits import load_labelled
from ..data.tokenization import tokenize
from ..errors import InputError, say
from ..files import check_writable, redacted, write_json, writing_to
from ..training.arguments import RobertaGRUTrainingArguments
from ..training.loading import load_classifier, longest_read, model_folder
from ..training.metrics import measure, measure_slices, to_probabilities, written
from ..training.record import rows_line
from ..training.trainer import RobertaGRUTrainer
from ..trust import describe_remote_code, pinned
from . import stopping


def evaluate_model(
    name: str,
    data: Any,
    data_args: DataArguments,
    slice_by: Sequence[str] = (),
    batch_size: int = 32,
    trust_remote_code: bool = False,
    agreements: bool = False,
) -> dict[str, Any]:
    """Measure a model on a labelled file, folder or data set.

    Args:
        name: a run's folder, a saved model's folder or a Hub id.
        data: a file, a folder, a Hub id, or rows in memory.
        data_args: columns, clean-up, `max_length`.
        slice_by: columns whose values are measured apart, beside length (in tokens) and label.
        batch_size: texts per batch.
        trust_remote_code: run the code that the model brings along, and say whose; see
            [`~.training.loading.load_classifier`].
        agreements: also fit to these texts when reading may stop, and write that into the model's configuration.

    Returns:
        The metrics of [`~.training.metrics.measure`]; how many `rows` were read, skipped and used; the metrics of each
        slice (`slices`); and, if asked for, what [`~.inference.stopping.fit_thresholds`] returns (`stopping`).

    Raises:
        InputError: if model, data, a column or a label is not usable.
    """
    folder = model_folder(name)
    revision = pinned(folder)
    if trust_remote_code:
        say(f"Trusted to run: the code of {describe_remote_code(folder, revision)}")
    model, tokenizer = load_classifier(name, trust_remote_code, revision)
    if agreements:
        stopping.check_can_stop(model.config)
        if not (Path(folder) / "config.json").is_file():
            raise InputError(
                f"--agreements writes into the model's folder, and {name} is not a folder: download the model first.",
                field="agreements",
                file=name,
            )
        check_writable("--agreements", Path(folder))
    labels = LabelSpace.from_config(model.config)
    if labels.problem_type == REGRESSION and labels.num_labels > 1:
        raise InputError(
            f"{name} is a regression with {labels.num_labels} outputs, which cannot be measured together. Name a "
            "model with one.",
            file=name,
        )
    if "length" in slice_by:
        raise InputError(
            "--slice-by length: lengths in tokens are always measured apart. Rename the column in the data.",
            field="length",
        )
    kept = [column for column in slice_by if [column] != data_args.label_column]
    slice_by = [column if column in kept else "label" for column in slice_by]
    documents, counts = load_labelled(data, data_args, labels, kept)
    is_validation = documents["row_id"][0].startswith("validation:")  # there is no test split
    tokens = tokenize(documents, tokenizer, longest_read(model, tokenizer, data_args.num_tokens))
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer wants one; nothing is written
        args = RobertaGRUTrainingArguments(
            output_dir=scratch,
            per_device_eval_batch_size=batch_size,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
        )
        trainer = RobertaGRUTrainer(model, args, data_collator=DataCollatorWithPadding(tokenizer))
        logits = trainer.predict_logits(tokens)
    predictions, references = to_probabilities(logits, labels.problem_type), documents["label"][:]
    columns = {"length": tokens["length"][:], **{column: as_numbers(documents[column][:]) for column in slice_by}}
    if labels.problem_type == MULTI_LABEL and "label" in columns:
        columns["label"] = [
            " + ".join(name for name, holds in zip(labels.names, row, strict=True) if holds) or "(none)"
            for row in references
        ]
    elif labels.problem_type not in (REGRESSION, MULTI_LABEL):
        columns["label"] = [labels.names[label] for label in references]
    metrics = {
        "model": name,
        "data": (redacted(data) if isinstance(data, str) else "rows in memory")
        + " (validation split)" * is_validation,
        "rows": counts,
        **measure(predictions, references, labels.problem_type, labels.names),
        "slices": measure_slices(predictions, references, labels.problem_type, columns),
    }
    if agreements:
        metrics["stopping"] = stopping.fit_model(model.eval(), tokens["input_ids"][:], data_args.num_tokens)
        path = Path(folder) / "config.json"
        with writing_to(path):
            write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "stop_thresholds": metrics["stopping"]})
        card = Path(folder) / "README.md"
        if card.is_file() and "Stopping early" in card.read_text(encoding="utf-8", errors="replace"):
            say(
                f'{card} still shows the earlier thresholds: change its section "Stopping early" to these.',
                error=True,
            )
    return metrics


def report(figures: dict[str, Any]) -> str:
    """Write the figures of [`evaluate_model`] as text."""
    lines = [f"{figures['model']} on {figures['data']}, n = {figures['n']:,}; in brackets 95 % intervals"]
    lines += [rows_line(figures["rows"]), ""]
    whole = {name: figure for name, figure in figures.items() if isinstance(figure, dict) and "value" in figure}
    lines += [f"  {name.replace('_', ' '):<20} {written(figure)}" for name, figure in whole.items()]
    for label, per_class in figures.get("per_class", {}).items():
        text = ", ".join(f"{name} {written(figure)}" for name, figure in per_class.items())
        lines.append(f"  {label}: {text}, n = {per_class['f1']['n']:,}")
    for column, values in figures["slices"].items():
        lines += ["", f"By {column} (tokens):" if column == "length" else f"By {column}:"]
        for value, slice_figures in values.items():
            # Within one class, macro-F1 means nothing.
            left_out = ("n", "macro_f1") if column == "label" else ("n",)
            text = ", ".join(
                f"{name.replace('_', ' ')} {written(figure)}"
                for name, figure in slice_figures.items()
                if name not in left_out
            )
            lines.append(f"  {value:<20} n = {slice_figures['n']:<7,} {text}")
    if "stopping" in figures:
        lines += ["", stopping.report(figures["stopping"])]
    return "\n".join(lines)
