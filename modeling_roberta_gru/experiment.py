"""One run, from data to a saved model and its metrics: what `roberta-gru train` and `train.py` do."""

import logging
import math
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from .arguments import DataArguments, ModelArguments
from .configuration_roberta_gru import RobertaGRUConfig
from .data.documents import SPLITS
from .data.labels import REGRESSION, SINGLE_LABEL, class_weights, label_array
from .data.splits import Splits, load_splits
from .data.tokenization import SelectingCollator, lift_limits, limit_length, tokenize
from .errors import InputError, say, unknown_name
from .files import PACKAGE, alone, carried, redacted, staging, write_json, writing_to
from .hub.card import write_card
from .hub.check import predict_in_clean_process
from .hub.publish import check_rights, publish
from .inference.stopping import can_stop, fit_model
from .training.adapter import add_lora
from .training.architectures import Architecture, WordCounts, check_options
from .training.arguments import RobertaGRUTrainingArguments, effective_batch_size
from .training.bag_of_words import measure_bag_of_words
from .training.loading import longest_read, model_folder
from .training.metrics import (
    combined_metrics,
    fit_temperature,
    is_bound,
    measure,
    measure_calibration,
    metric_names,
    to_probabilities,
    written,
)
from .training.optimizers import check_optimizer, freeze
from .training.plots import draw_confusion
from .training.record import (
    POOLED,
    changed_options,
    data_lines,
    describe_data,
    describe_platform,
    model_lines,
    shared_options,
    write_predictions,
)
from .training.run_folder import (
    RUN_FILES,
    check_inputs_stay,
    check_output_dir,
    check_same_data,
    discard_checkpoints,
    find_checkpoint,
    move_run,
)
from .training.sharding import check_sharding, is_sharded
from .training.state_cache import keep_states
from .training.trained import Trained, TrainedModel, fit_bag_of_words
from .training.trainer import EarlyStopping, RobertaGRUTrainer
from .trust import describe_remote_code, pinned, remove_foreign_code

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        metrics: as in metrics.json; empty in all processes but the first.
        trained: what was trained, calibrated.
        output_dir: the run's folder, which holds [`RUN_FILES`].
    """

    metrics: dict[str, Any]
    trained: Trained
    output_dir: Path


def run(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: RobertaGRUTrainingArguments,
    recipe: str | None = None,
    command: Sequence[str] = (),
    splits: Splits | None = None,
    names_folder: bool = True,
) -> RunResult:
    """Train, calibrate, measure and save, leaving [`RUN_FILES`] in `args.output_dir`.

    The test split is read once, after training and calibration. With several processes, each does its part of the
    computing and the first writes.

    Args:
        model_args, data_args, args: the options.
        recipe: the file that some of them were read from.
        command: how the run was started, for its record.
        splits: the data, where they are not what `data_args` name.
        names_folder: whether the closing words say what lies in the folder.

    Raises:
        InputError: if options, data, checkpoint or output folder are not usable; nothing is written then.
    """
    with ExitStack() as held:  # which lets the folder go when all is written
        started = time.time()
        trained = train(model_args, data_args, args, splits=splits, held=held)
        temperature = _fit_temperature(trained) if args.calibrate else None
        predicting = time.time()
        logits = {"validation": trained.validation_logits, "test": trained.predict_test()}
        test_seconds = round(time.time() - predicting, 1)
        trained.make_whole()
        output_dir = Path(args.output_dir)
        if args.process_index != 0:
            return RunResult({}, trained, output_dir)

        metrics = measure_run(
            trained.splits, logits, temperature, args.bag_of_words and isinstance(trained, TrainedModel)
        )
        sources = ("dataset_name", "dataset_config_name", "dataset_revision", *(f"{split}_file" for split in SPLITS))
        unset: dict[str, Any] = dict.fromkeys(sources)
        told = data_args if splits is None else replace(data_args, **unset)  # a recipe may name what was not read
        record = {
            "recipe": recipe and Path(recipe).stem,
            "command": shlex.join(map(redacted, command)),
            **trained.describe(model_args, args, started),
            "test_seconds": test_seconds,
            "data": describe_data(trained.splits, data_args, trained.max_length, in_memory=splits is not None),
            "options": changed_options(model_args, told, args),
            **describe_platform(args),
        }
        if temperature is not None:
            trained.calibrate(temperature)
        stopping = _fit_stopping(trained, args)
        if stopping is not None:
            metrics["stopping"] = stopping
        probabilities = to_probabilities(logits["test"] / (temperature or 1), trained.splits.labels.problem_type)
        write_run(output_dir, trained, probabilities, metrics, record, keep_code=model_args.trust_remote_code)
        # The clean process runs no code but ours.
        is_checked = args.verify_load and not model_args.trust_remote_code
        checked = _predict_again(output_dir, trained.splits) if is_checked else []
        say(closing_words(metrics, output_dir, trained.splits.pooled, checked, names_folder))
        if args.publish_as is not None:
            _publish(args.publish_as, args)
        return RunResult(metrics, trained, output_dir)


def train(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: RobertaGRUTrainingArguments,
    callbacks: Sequence[TrainerCallback] = (),
    splits: Splits | None = None,
    held: ExitStack | None = None,
) -> Trained:
    """Train a model and predict the validation split; the test split is not predicted.

    Args:
        model_args, data_args, args: the options.
        callbacks: further callbacks of the Trainer.
        splits: the data, where they are not what `data_args` name.
        held: keeps the run's folder from other processes until it is closed; unset: the folder is this process's own.

    Raises:
        InputError: as [`run`] does.
    """
    architecture = check_options(model_args, data_args, args)
    check_optimizer(args)
    check_sharding(args)
    if args.num_idle_gpus:
        logger.warning(
            "%d GPUs are idle: `accelerate launch --num_processes %d` uses them all.",
            args.num_idle_gpus,
            args.num_idle_gpus + 1,
        )
    args.shared_options = shared_options(model_args, data_args, args)
    model_args = _resolve_runs(model_args)
    resumed = find_checkpoint(args)
    _check_destination(args, resumed)
    bases = (model_args.model_name_or_path, model_args.tokenizer_name, model_args.embeddings)
    check_inputs_stay(args, [*bases, data_args.dataset_name, *data_args.paths])
    set_seed(args.seed)
    if splits is None:
        if data_args.dataset_name is None and not data_args.paths:
            _say(args, "No data named (--train_file, --dataset_name): training on the built-in toy reviews.")
        splits = load_splits(data_args)
    labels = splits.labels
    if resumed is not None:
        check_same_data(resumed, splits.fingerprint)
    args.data_fingerprint = splits.fingerprint
    _check_metric(args, labels.problem_type)
    _check_batches(args, len(splits.train))
    weights = class_weights(args.class_weights, labels, label_array(splits.train))
    _say(args, data_lines(splits))
    if isinstance(architecture, WordCounts):
        bag = fit_bag_of_words(architecture, splits, weights)
        _begin_folder(args, resumed, held)
        return bag

    loss_fields = {"class_weights": weights, "label_smoothing": args.label_smoothing_factor}
    model, tokenizer = _build_model(architecture, model_args, args, splits, loss_fields)
    max_length = longest_read(model, tokenizer, data_args.num_tokens)
    _say(args, model_lines(model, model_args, args, max_length))

    tokens = {name: tokenize(getattr(splits, name), tokenizer, max_length) for name in SPLITS}
    lift_limits(tokenizer)
    if not architecture.reads_whole_texts and max_length is not None:
        tokenizer.model_max_length = max_length
    _warn_of_short_training(args, len(tokens["train"]))
    trainer = RobertaGRUTrainer(
        model,
        args,
        **_for_trainer(model, tokens, DataCollatorWithPadding(tokenizer), data_args, args),
        processing_class=tokenizer,
        published_by_caller=True,
        compute_metrics=lambda prediction: _validation_metrics(prediction, labels.problem_type),
        compute_loss_func=architecture.loss_function(labels, **loss_fields),
        callbacks=[*_early_stopping(args), *callbacks],
    )
    _begin_folder(args, resumed, held)
    outcome = trainer.train(resume_from_checkpoint=resumed)
    return TrainedModel(
        architecture=architecture,
        splits=splits,
        validation_logits=trainer.predict_logits(tokens["validation"]),
        max_length=max_length,
        training_seconds=outcome.metrics["train_runtime"] if resumed is None else None,
        trainer=trainer,
        test=tokens["test"],
        loss_fields=loss_fields,
        card_license=model_args.card_license,
        base_revision=model_args.model_revision,
    )


# Before training


def _resolve_runs(args: ModelArguments) -> ModelArguments:
    """Have a run's folder, named as what to start from, stand for the model in it, and a commit for a Hub's branch."""
    base, tokenizer = (name and model_folder(name) for name in (args.model_name_or_path, args.tokenizer_name))
    if args.model_revision is not None and (base is None or Path(base).is_dir()):
        raise InputError(
            "--model_revision takes effect only where --model_name_or_path is a model on the Hub: leave it out.",
            field="model_revision",
        )
    revision = args.model_revision if base is None else pinned(base, args.model_revision)
    return replace(args, model_name_or_path=base, tokenizer_name=tokenizer, model_revision=revision)


def _check_destination(args: RobertaGRUTrainingArguments, resumed: str | None) -> None:
    """Check where the run goes, in the first process; keep the others silent."""
    if args.process_index != 0:
        logging.getLogger(__package__).setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        disable_progress_bars()
        return
    check_output_dir(args, resumed)
    if args.publish_as is not None:
        check_rights(args.publish_as, private=args.hub_private_repo)


def _check_metric(args: RobertaGRUTrainingArguments, problem_type: str) -> None:
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    known = ["loss", *metric_names(problem_type)]
    if metric not in known:
        raise unknown_name("metric in --metric_for_best_model", metric, known, field="metric_for_best_model")
    if args.label_smoothing_factor and problem_type == REGRESSION:
        raise InputError(
            "--label_smoothing_factor needs classes; regression targets have none.", field="label_smoothing_factor"
        )


def _check_batches(args: RobertaGRUTrainingArguments, num_rows: int) -> None:
    batch = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and num_rows < batch:
        raise InputError(
            f"--dataloader_drop_last leaves nothing to train on: {num_rows:,} training rows do not fill a batch of "
            f"{batch:,}. Leave it out, or lower --per_device_train_batch_size.",
            field="dataloader_drop_last",
        )


def _build_model(
    architecture: Architecture,
    model_args: ModelArguments,
    args: RobertaGRUTrainingArguments,
    splits: Splits,
    loss_fields: Mapping[str, Any],
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load or make the model that is trained, frozen or with LoRA matrices as `args` say, and its tokenizer."""
    if model_args.trust_remote_code:
        for name in filter(None, (model_args.model_name_or_path, model_args.tokenizer_name)):
            revision = model_args.model_revision if name == model_args.model_name_or_path else None
            _say(args, f"Trusted to run: the code of {describe_remote_code(name, revision)}")
    tokenizer = architecture.load_tokenizer(model_args, splits.train["text"])
    model = architecture.load_model(model_args, tokenizer, splits.labels, **loss_fields)
    freeze(model, args)
    if args.lora is not None:
        chosen = (args.lora, args.lora_alpha, args.lora_dropout, args.lora_target_modules)
        model = add_lora(model, *chosen, revision=model_args.model_revision)
    return model, tokenizer


def _for_trainer(
    model: PreTrainedModel,
    tokens: Mapping[str, Dataset],
    collator: DataCollatorWithPadding,
    data_args: DataArguments,
    args: RobertaGRUTrainingArguments,
) -> dict[str, Any]:
    """Return what the Trainer reads, and how batches are made of it: tokens, or a frozen encoder's states of them."""
    train, validation = tokens["train"], tokens["validation"]
    train_collator: Callable[[list[dict[str, Any]]], Any] | None = None
    eval_tokens, eval_collator = validation.select(np.argsort(validation["length"][:])), collator
    if isinstance(model.config, RobertaGRUConfig):
        train, train_collator = _bound_windows(train, model.config, data_args, args, collator)
        if args.freeze_encoder:
            if train_collator is None:  # or stretches of long documents are chosen anew in each epoch
                train, train_collator = keep_states(model, train, collator, args, "training")
            eval_tokens, eval_collator = keep_states(
                model, eval_tokens, collator, args, "validation", beside=train_collator
            )
    return {
        "train_dataset": train,
        "train_collator": train_collator,
        "eval_dataset": eval_tokens,
        "data_collator": eval_collator,
    }


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
            f"--max_length cuts texts to {data_args.num_tokens}. Leave one of them out.",
            field="max_windows",
        )
    policy = data_args.window_policy or "head"
    return limit_length(train, capacity), SelectingCollator(collator, capacity, policy, args.order_seed)


def _warn_of_short_training(args: RobertaGRUTrainingArguments, num_rows: int) -> None:
    """Say so where `--max_steps` ends training before the longest documents are read."""
    growing = args.length_curriculum * math.ceil(num_rows / effective_batch_size(args))
    if 0 < args.max_steps <= growing:
        logger.warning(
            "The longest documents are not trained on: --length_curriculum %d takes %s steps, and --max_steps is %s.",
            args.length_curriculum,
            f"{growing:,}",
            f"{args.max_steps:,}",
        )


def _early_stopping(args: RobertaGRUTrainingArguments) -> list[EarlyStopping]:
    if args.early_stopping_patience is None:
        return []
    return [EarlyStopping(args.length_curriculum, early_stopping_patience=args.early_stopping_patience)]


def _begin_folder(args: RobertaGRUTrainingArguments, resumed: str | None, held: ExitStack | None) -> None:
    """Make the folder and begin to write, in the first process."""
    if args.process_index == 0:
        if held is not None:
            held.enter_context(alone(args.output_dir))
            # Another process may have written there since it was looked at.
            check_output_dir(args, resumed)
            if find_checkpoint(args) != resumed:
                raise InputError(
                    f"--output_dir {args.output_dir} has just been written to by another run: start this one again.",
                    field="output_dir",
                    file=args.output_dir,
                )
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        discard_checkpoints(args, resumed)


def _say(args: RobertaGRUTrainingArguments, text: str) -> None:
    if args.process_index == 0:
        say(text)


# After training


def _validation_metrics(prediction: EvalPrediction, problem_type: str) -> dict[str, float]:
    probabilities = to_probabilities(prediction.predictions, problem_type)
    return combined_metrics(problem_type).compute(predictions=probabilities, references=prediction.label_ids)


def _fit_temperature(trained: Trained) -> float | None:
    """Return the temperature that calibrates the model, where one can; 1 where the best lies beyond all allowed."""
    splits = trained.splits
    if splits.labels.problem_type != SINGLE_LABEL or not trained.architecture.has_temperature:
        return None
    temperature = fit_temperature(trained.validation_logits, splits.validation["label"][:])
    if is_bound(temperature):
        logger.warning(
            "Probabilities are not calibrated: the best temperature for %s validation rows is at the bound of %.1f, "
            "so it stays at 1. More validation rows, or longer training, would help.",
            f"{len(splits.validation):,}",
            temperature,
        )
        return 1.0
    return temperature


def _fit_stopping(trained: Trained, args: RobertaGRUTrainingArguments) -> dict[str, Any] | None:
    """Have the configuration say when reading may stop, where the model has a running prediction to stop by."""
    is_whole = not (args.deepspeed or is_sharded(args))
    if not (isinstance(trained, TrainedModel) and can_stop(trained.model.config) and is_whole):
        return None
    documents = trained.trainer.eval_dataset["input_ids"][:]
    model = trained.model.eval()
    at_once = args.per_device_eval_batch_size
    with torch.autocast(args.device.type, torch.bfloat16, enabled=bool(args.bf16)):
        model.config.stop_thresholds = fit_model(
            model, documents, trained.max_length, at_once, progress=not args.disable_tqdm
        )
    return model.config.stop_thresholds


def measure_run(
    splits: Splits, logits: dict[str, np.ndarray], temperature: float | None, bag_of_words: bool
) -> dict[str, Any]:
    """Return what metrics.json holds.

    Args:
        splits: the data.
        logits: of "validation" and "test", (n, C), at temperature 1.
        temperature: that the probabilities are calibrated by, if they are.
        bag_of_words: whether to measure that baseline too.
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
            calibration[name] = {
                "before": measure_calibration(uncalibrated, references, labels.problem_type),
                "after": metrics[name]["calibration_error"],
            }
    if temperature is not None:
        metrics["calibration"] = calibration
    if bag_of_words and labels.problem_type == SINGLE_LABEL:
        try:
            metrics["bag_of_words"] = {"test": measure_bag_of_words(splits.hard_train, splits.test, labels.names)}
        except (InputError, MemoryError) as error:  # a baseline must not cost the model
            logger.warning("The bag-of-words baseline was skipped: %s", str(error) or "out of memory")
    return metrics


def write_run(
    output_dir: Path,
    trained: Trained,
    probabilities: np.ndarray,
    metrics: dict[str, Any],
    record: dict[str, Any],
    keep_code: bool = False,
) -> None:
    """Leave a run's files in a folder, all of them or none.

    Args:
        output_dir: the folder, which exists.
        trained: what was trained.
        probabilities: what `metrics.measure` takes, of the test split.
        metrics, record: what metrics.json and run.json will hold.
        keep_code: whether what the model needs to be loaded is kept even if it is code of others.
    """
    splits, labels = trained.splits, trained.splits.labels
    with writing_to(output_dir), staging(output_dir) as folder:
        trained.write(folder)
        for saved in () if keep_code else [path for path in folder.iterdir() if path.is_dir()]:
            remove_foreign_code(saved)
        references = splits.test["label"][:]
        draw_confusion(probabilities, references, labels.problem_type, labels.names, folder / "confusion.png")
        write_predictions(splits, probabilities, folder / "predictions.parquet")
        write_json(folder / "run.json", record)
        write_json(folder / "metrics.json", metrics)
        if (folder / "model").is_dir():
            _complete_model(folder, trained.architecture, record, metrics)
        move_run(folder, output_dir)


def _complete_model(folder: Path, architecture: Architecture, record: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Put beside a run's model what travels with it: card, metrics, plots, record, licence, endpoint."""
    model = folder / "model"
    write_card(model, record, metrics)
    for name in ("metrics.json", "confusion.png", "curves.png"):
        shutil.copy(folder / name, model)
    if architecture.ships_code:
        for name in ("LICENSE", "model_card/handler.py", "model_card/requirements.txt"):
            shutil.copy(carried(name), model)
        shutil.copy(PACKAGE / "inference" / "reading.py", model)  # which the endpoint's handler uses
    for path in model.glob("*.safetensors"):  # which safetensors lets nobody else read, in a container neither
        path.chmod((model / "config.json").stat().st_mode)


def _predict_again(output_dir: Path, splits: Splits) -> list[tuple[str, dict[str, Any]]]:
    """Return what a clean process, where importing this package fails, predicts for a few test texts."""
    if not (output_dir / "model").is_dir():
        return []
    texts = [str(text) for text in splits.test["text"][:4]]
    return list(zip(texts, predict_in_clean_process(output_dir / "model", texts), strict=True))


def closing_words(
    metrics: dict[str, Any],
    output_dir: Path,
    pooled: bool,
    checked: list[tuple[str, dict[str, Any]]],
    names_folder: bool = True,
) -> str:
    """Say what came out, what a clean process makes of the saved model, and where everything lies.

    Args:
        metrics: as in metrics.json.
        output_dir: the run's folder.
        pooled: whether given splits were pooled.
        checked: texts, and the label and score that the clean process predicts for each.
        names_folder: whether to say what lies there.
    """
    test = metrics["test"]
    # The one metric of several labels alone.
    notes = {"accuracy": " (all labels of a row right)"} if "micro_f1" in test else {}
    lines = [""] + [
        f"Test {name.replace('_', ' ')}{notes.get(name, '')} {written(test[name])}, n = {test['n']:,}"
        for name in ("accuracy", "macro_f1", "mae", "r2")
        if name in test
    ]
    if "bag_of_words" in metrics:
        lines.append(f"Bag of words on the same rows: accuracy {written(metrics['bag_of_words']['test']['accuracy'])}")
    if "calibration" in metrics:
        temperature, errors = metrics["calibration"]["temperature"], metrics["calibration"]["test"]
        if temperature == 1:
            lines.append(f"Test calibration error {written(errors['before'])}; the temperature stays at 1")
        else:
            lines.append(
                f"Test calibration error {written(errors['before'])} before, {written(errors['after'])} after "
                f"dividing logits by {temperature:.3f}"
            )
    lines.append("In brackets: 95 % bootstrap intervals over the rows.")
    lines += [POOLED] if pooled else []
    if checked:
        trusted = ", trust_remote_code=True" if any((output_dir / "model").glob("*.py")) else ""
        lines += ["", "Predictions of a clean process, where importing modeling_roberta_gru fails, by", ""]
        lines += [f'  pipeline("text-classification", "{output_dir / "model"}"{trusted})', ""]
        for text, prediction in checked:
            lines.append(f"  {prediction['label']:>12} {prediction['score']:.3f}  {shorten(text, 80)}")
    if not names_folder:
        return "\n".join(lines)
    lines += ["", f"The run is in {output_dir}:", ""]
    lines += [f"  {name:<20} {what}" for name, what in RUN_FILES.items() if (output_dir / name).exists()]
    if any(output_dir.glob("checkpoint-*")):
        lines.append(f"  {'checkpoint-*':<20} for --resume_from_checkpoint; may be deleted")
    return "\n".join(lines)


def _publish(name: str, args: RobertaGRUTrainingArguments) -> None:
    """Publish the finished run; what goes wrong does not cost it."""
    try:
        publication = publish(args.output_dir, name, private=args.hub_private_repo, revision=args.hub_revision)
    except InputError as error:
        options = ["--private"] if args.hub_private_repo else []
        options += ["--revision", args.hub_revision] if args.hub_revision else []
        again = shlex.join(["roberta-gru", "publish", args.output_dir, name, *options])
        raise InputError(
            f"{error} The run itself is whole, and can be published later: {again}",
            field=error.field,
            file=error.file,
            row=error.row,
        ) from error
    say(f"\nPublished as {name}, {publication.tag}: {publication.url}")
