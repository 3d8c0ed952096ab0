"""What a run writes down about itself, so that its numbers can be repeated."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel, Trainer

from ..arguments import DataArguments, ModelArguments
from ..data.corpus import BUILT_IN_CORPORA
from ..data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, label_array
from ..data.splits import Splits
from ..files import redacted, replacing
from .adapter import count_parameters
from .arguments import RobertaGRUTrainingArguments
from .dropout import SLOW_ATTENTION
from .trainer import document_lengths

POOLED = "The given splits were pooled: these metrics are not comparable with those of the official test split."

FEW_PARAMETERS = 20_000_000  # which a corpus of labelled texts may train from random weights
RECORDED_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


def describe_times(started: float, training_seconds: float | None) -> dict[str, Any]:
    """Return when the run started (seconds since 1970), and how long it took and, where known, its training."""
    return {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "duration_seconds": round(time.time() - started, 1),
        "training_seconds": None if training_seconds is None else round(training_seconds, 1),
    }


def describe_training(
    trainer: Trainer, started: float, training_seconds: float | None, best_step: int | None
) -> dict[str, Any]:
    """Return what [`describe_times`] does, and how much was read; tokens are not counted in a curriculum."""
    state = trainer.state
    epochs = state.epoch or 0.0
    return {
        **describe_times(started, training_seconds),
        "steps": state.global_step,
        "epochs": round(epochs, 3),
        "best_step": best_step,
        "tokens_seen": None
        if trainer.args.length_curriculum
        else round(document_lengths(trainer.train_dataset).sum().item() * epochs),
    }


def describe_data(
    splits: Splits, args: DataArguments, max_length: int | None, in_memory: bool = False
) -> dict[str, Any]:
    """Return what the splits came from and how large they are.

    Args:
        splits: the data.
        args: where they were read.
        max_length: what texts were cut to.
        in_memory: whether they were given as they are, and read nowhere.
    """
    built_in = (args.dataset_name is None or args.dataset_name in BUILT_IN_CORPORA) and not in_memory
    on_hub = not (built_in or in_memory or args.dataset_name is None or Path(args.dataset_name).exists())
    return {
        "source": splits.source,
        "hub_id": args.dataset_name if on_hub else None,
        "built_in": not args.files and built_in,
        "counts": splits.counts,
        "pooled": splits.pooled,
        "split_seed": args.split_seed,
        "problem_type": splits.labels.problem_type,
        "labels": list(splits.labels.names),
        "max_length": max_length,
        "max_windows": args.max_windows,
        "window_policy": (args.window_policy or "head") if args.max_windows else None,
        "fingerprint": splits.fingerprint,
        "test_fingerprint": splits.test_fingerprint,
    }


def describe_model(model: PreTrainedModel, args: ModelArguments, size_fields: Sequence[str]) -> dict[str, Any]:
    """Return what the model started from, and its sizes, which these fields of its configuration tell."""
    name = args.model_name_or_path
    sizes = {field: getattr(model.config, field, None) for field in size_fields}
    num_parameters, num_trained_parameters = count_parameters(model)
    return {
        "architecture": args.architecture,
        "base": name,
        "base_on_hub": name is not None and not Path(name).exists(),
        "base_revision": args.model_revision,
        "num_parameters": num_parameters,
        "num_trained_parameters": num_trained_parameters,
        **sizes,
        "embeddings": args.embeddings and Path(args.embeddings).name,
        "license": args.card_license,
        "language": args.card_language,
    }


def describe_hyperparameters(
    args: RobertaGRUTrainingArguments,
    batch_size: int,
    class_weights: list[float] | None,
    label_smoothing: float,
) -> dict[str, Any]:
    """Return what the weights depend on, as it truly was; `batch_size` is that of a process."""
    optimizer = _optimizer_name(args)
    return {
        "optimizer": optimizer,
        "optimizer_arguments": args.optim_args,
        "learning_rate": args.learning_rate,
        "head_learning_rate": args.head_learning_rate or args.learning_rate,
        "layer_decay": args.layer_decay,
        "lr_scheduler": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        "warmup_steps": args.warmup_steps,
        "weight_decay": args.weight_decay,
        "adam_betas": [args.adam_beta1, args.adam_beta2] if "adam" in optimizer else None,
        "adam_epsilon": args.adam_epsilon if "adam" in optimizer else None,
        "max_grad_norm": args.max_grad_norm,
        "batch_size": batch_size * args.gradient_accumulation_steps * args.world_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "num_processes": args.world_size,
        "num_train_epochs": args.num_train_epochs,
        "max_steps": args.max_steps if args.max_steps > 0 else None,
        "length_curriculum": args.length_curriculum,
        "early_stopping_patience": args.early_stopping_patience,
        "metric_for_best_model": args.metric_for_best_model if args.load_best_model_at_end else None,
        "freeze_encoder": args.freeze_encoder,
        "freeze_layers": args.freeze_layers,
        "lora_rank": args.lora,
        "lora_alpha": args.lora_alpha or args.lora,
        "lora_dropout": args.lora_dropout if args.lora else None,
        "class_weights": class_weights,
        "label_smoothing": label_smoothing,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "train_sampling_strategy": args.train_sampling_strategy,
        "seed": args.seed,
    }


def _optimizer_name(args: RobertaGRUTrainingArguments) -> str:
    return args.optimizer if args.optimizer != "optim" else str(getattr(args.optim, "value", args.optim))


WITHOUT_EFFECT = (
    *("dataloader_pin_memory", "disable_tqdm", "cache_limit", "verify_load", "bag_of_words"),
    *("card_license", "card_language", "report_to", "run_name", "project"),
    *("hub_model_id", "hub_private_repo", "hub_revision"),
)
"""Options that change no prediction."""


def without_machine(options: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """Return recorded options without those in `left_out`, and without the device and precision of the machine."""
    chosen = ("use_cpu", "bf16") if options.get("bf16_if_available") else ("use_cpu",)
    return {name: value for name, value in options.items() if name not in (*left_out, *chosen)}


def changed_options(*arguments: Any) -> dict[str, Any]:
    """Return the options that are not at their default: with the commit, the run's whole recipe."""
    changed = {}
    for part in arguments:
        for field in fields(part):
            value = getattr(part, field.name)
            default = field.default if field.default_factory is MISSING else field.default_factory()
            is_plain = isinstance(value, (str, int, float, bool, list, dict))
            if field.init and is_plain and value != default and not field.name.endswith("_token"):
                changed[field.name] = _recorded(getattr(value, "value", value))
    return changed


SHARED_BY_A_RUN = (
    *(each.name for each in fields(ModelArguments) if each.name not in ("trust_remote_code", *WITHOUT_EFFECT)),
    *("max_length", "max_windows", "window_policy", "class_weights", "label_smoothing_factor"),
    *("optimizer", "optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("learning_rate", "head_learning_rate", "layer_decay", "weight_decay", "max_grad_norm", "neftune_noise_alpha"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "metric_for_best_model"),
    *("freeze_encoder", "freeze_layers", "lora", "lora_alpha", "lora_dropout", "lora_target_modules"),
    *("length_curriculum", "train_sampling_strategy", "dataloader_drop_last", "average_tokens_across_devices"),
)
"""Options of model and objective, in which a resumed run may not differ from what it resumes."""


def shared_options(*arguments: Any) -> dict[str, Any]:
    """Return the options that a resumed run must share, as JSON keeps them."""
    options = {field.name: getattr(part, field.name) for part in arguments for field in fields(part)}
    if options["optimizer"] != "optim":  # whose default is that of the installed torch
        options["optim"] = None
    options["metric_for_best_model"] = options["metric_for_best_model"] or "loss"
    return {name: _recorded(getattr(options[name], "value", options[name])) for name in SHARED_BY_A_RUN}


def _recorded(value: Any) -> Any:
    if isinstance(value, list):
        return [_recorded(part) for part in value]
    if isinstance(value, dict):
        return {name: _recorded(part) for name, part in value.items()}
    return redacted(value) if isinstance(value, str) else value


def describe_platform(args: RobertaGRUTrainingArguments | None = None) -> dict[str, Any]:
    """Return the versions and the hardware; without options, of one process on the CPU."""
    device = args.device if args else torch.device("cpu")
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in RECORDED_PACKAGES}},
        "hardware": {
            "processor": _processor(),
            "num_cores": os.cpu_count(),
            "num_threads": torch.get_num_threads(),
            "memory_gib": _memory_gib(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "num_processes": args.world_size if args else 1,
        },
    }


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf"):  # Windows
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def _commit() -> str | None:
    """Return the commit of the checkout that the package runs from, if any, marked where files differ from it."""
    if (Path(__file__).parents[1] / "carried").exists():  # installed: a repository around it is the user's own
        return None
    describe = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=40",
        "--dirty",
        "--exclude=*",
    ]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def rows_line(rows: dict[str, int]) -> str:
    """Say how many rows were read, skipped and used."""
    return f"Rows: {rows['read']:,} read, {rows['skipped']:,} skipped, {rows['used']:,} used."


def data_lines(splits: Splits) -> str:
    """Say what the data are, as a run begins."""
    counts, names = splits.counts, splits.labels.names
    repeats, duplicates, rows = counts["removed_repeats"], counts["removed_duplicates"], counts["rows"]
    removed = {
        "rows before splitting that repeat another text or whose equal texts have different labels": repeats,
        "training rows whose text has several labels": counts["removed_conflicting"],
        "training rows whose text is in validation or test": duplicates["train"],
        "validation rows whose text is in test": duplicates["validation"],
    }
    lines = [
        rows_line(rows),
        f"Data: {splits.source}: {counts['train']:,} training, {counts['validation']:,} validation, "
        f"{counts['test']:,} test rows.",
        f"Labels: {', '.join(names[:10])}{f' and {len(names) - 10:,} more' if len(names) > 10 else ''} "
        f"({splits.labels.problem_type.replace('_', ' ')}){f'; {splits.note}' if splits.note else ''}.",
    ]
    if any(removed.values()):
        said = ", ".join(f"{number:,} {which}" for which, number in removed.items() if number)
        lines.append(f"Removed: {said}.")
    if splits.labels.problem_type == SINGLE_LABEL:
        labels = label_array(splits.train)  # or distributions over them
        are_seen = (labels > 0).any(axis=0) if labels.ndim > 1 else np.bincount(labels, minlength=len(names)) > 0
        never = [names[index] for index in np.flatnonzero(np.logical_not(are_seen)).tolist()]
        if never:
            said = ", ".join(map(repr, never[:10]))
            lines.append(f"No training row has the label {said}, so the model cannot learn it; add labelled rows.")
    if "oversampled" in counts:
        added = ", ".join(f"{number:,} of {label}" for label, number in counts["oversampled"]["added"].items())
        lines.append(f"Over-sampled by {counts['oversampled']['method']}: {added or 'none'}.")
    if "soft" in counts:
        soft = counts["soft"]
        lines.append(
            f"A teacher's rows: {soft['read']:,} read, {soft['skipped']:,} skipped, {soft['used']:,} of the training "
            f"rows; left out: {soft['in_validation_or_test']:,} whose text is in validation or test, "
            f"{soft['in_training']:,} in training, {soft['repeated']:,} repeated."
        )
    if splits.pooled:
        lines.append(POOLED)
    return "\n".join(lines)


def model_lines(
    model: PreTrainedModel, model_args: ModelArguments, args: RobertaGRUTrainingArguments, max_length: int | None
) -> str:
    """Say what is trained, from where on and by what, as a run begins."""
    total, trainable = count_parameters(model)
    embeddings = f" and {model_args.embeddings}" if model_args.embeddings else ""
    start = model_args.model_name_or_path or "random weights" + embeddings
    lines = [
        f"Model: {model_args.architecture} from {start}; {total:,} parameters, {trainable:,} of them trained by "
        f"{_optimizer_name(args)}."
    ]
    is_transformer = model_args.architecture in ("roberta-gru", "transformer")
    if is_transformer and model_args.model_name_or_path is None and total > FEW_PARAMETERS:
        lines.append(
            "So many random weights need very many texts. To start from a pretrained encoder: --model_name_or_path "
            "roberta-base, or any other of its kind."
        )
    has_attention_dropout = bool(getattr(model.config, "attention_probs_dropout_prob", 0))
    if has_attention_dropout and args.device.type == "cpu" and not args.freeze_encoder:
        lines.append(f"{SLOW_ATTENTION}: attention_probs_dropout_prob=0 in --config_overrides.")
    if max_length is not None:
        lines.append(f"Texts are cut to {max_length:,} tokens.")
    return "\n".join(lines)


def write_predictions(splits: Splits, predictions: np.ndarray, path: Path) -> None:
    """Write each test row's label, prediction and probabilities; `predictions` is what `metrics.measure` takes."""
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
