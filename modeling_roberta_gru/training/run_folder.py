"""The folder of a run: what may stand there before, what it resumes from, and what it leaves."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import check_writable, delete, location_name, replacing
from .arguments import RobertaGRUTrainingArguments, effective_batch_size

RUN_FILES = {
    "model": "the model; load it with AutoModelForSequenceClassification",
    "adapter": "the LoRA adapter alone, which model/ holds merged: its README.md says how to load it",
    "metrics.json": "every metric with its 95 % interval, for validation and test",
    "predictions.parquet": "each test row's label, prediction and probabilities",
    "confusion.png": "where the predictions go wrong",
    "curves.png": "loss and score over time",
    "history.jsonl": "what was logged during training",
    "run.json": "command, options, data, versions, hardware, duration",
}
AUTO = "auto"
OPTIMIZER_STATES = ("optimizer*", "global_step*")
"""What a checkpoint that can be resumed holds: a file, FSDP's folder, or DeepSpeed's."""
CHECKPOINT_FILES = "CheckpointFiles"
"""Where a checkpoint's trainer_state.json lists its files: the name of the callback that does."""


def find_checkpoint(args: RobertaGRUTrainingArguments) -> str | None:
    """Return the checkpoint folder that `--resume_from_checkpoint` means.

    That is a path; "true", the run's last one; or "auto", the last one if there is any, and else none.
    A folder whose writing or deletion was interrupted does not count: the trainer's state is written last, and says
    which files there are.

    Raises:
        InputError: if there is no such checkpoint, it is part of another run, or it holds weights alone.
    """
    checkpoint = _wanted_checkpoint(args)
    if checkpoint is None:
        return None
    _check_same_run(checkpoint, args)
    if not any(any(Path(checkpoint).glob(name)) for name in OPTIMIZER_STATES):
        raise InputError(
            f"{checkpoint} holds no state of the optimizer (--save_only_model), so training cannot be resumed: start "
            "a new run in another --output_dir.",
            file=checkpoint,
        )
    return checkpoint


def _check_same_run(checkpoint: str, args: RobertaGRUTrainingArguments) -> None:
    """Check that a checkpoint is of the same seeds, model, objective and batches, and of no longer training."""
    noted = _noted(Path(checkpoint))  # an older one says less
    seeds = {name: noted[name] for name in ("seed", "data_seed") if noted.get(name) is not None}
    ours = {"seed": args.seed, "data_seed": args.order_seed, **(args.shared_options or {})}
    for name, theirs in {**seeds, **(noted.get("options") or {})}.items():
        if name in ours and ours[name] != theirs:
            raise InputError(
                f"{checkpoint} was trained with --{name} {_written(theirs)}, not {_written(ours[name])}: resume with "
                "that, or start a new run in another --output_dir.",
                field=name,
                file=checkpoint,
            )
    batch_size = effective_batch_size(args)
    if not args.auto_find_batch_size and noted.get("batch_size") not in (None, batch_size):
        raise InputError(
            f"{checkpoint} was trained on batches of {noted['batch_size']} texts, not {batch_size}: resume with "
            "another --gradient_accumulation_steps, so that its product with --per_device_train_batch_size and the "
            "number of processes is the same, or start a new run in another --output_dir.",
            field="per_device_train_batch_size",
            file=checkpoint,
        )
    length = "max_steps" if args.max_steps > 0 else "num_train_epochs"
    if (noted.get(length) or 0) > getattr(args, length):
        raise InputError(
            f"{checkpoint} is of a run with --{length} {noted[length]:g}, and {getattr(args, length):g} are fewer: "
            "resume with as many or more, or start a new run in another --output_dir.",
            field=length,
            file=checkpoint,
        )


def _written(value: Any) -> str:
    """Return an option's value as a command line has it."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def check_same_data(checkpoint: str, fingerprint: str) -> None:
    """Check that a checkpoint was trained on the splits that have this fingerprint.

    Raises:
        InputError: if not: rows that are now tested may have been trained on.
    """
    if _noted(Path(checkpoint)).get("data") not in (None, fingerprint):
        raise InputError(
            f"{checkpoint} was trained on other rows, or other splits of them: resume with the data and the options "
            "of splits that it was trained with, or start a new run in another --output_dir.",
            file=checkpoint,
        )


def _wanted_checkpoint(args: RobertaGRUTrainingArguments) -> str | None:
    wanted = args.resume_from_checkpoint
    word = str(wanted).lower()
    if wanted is None or word == "false":
        return None
    if word not in ("true", AUTO):
        if not _is_whole(Path(wanted)):
            raise InputError(
                f"--resume_from_checkpoint {wanted} holds no whole checkpoint: trainer_state.json or a file that it "
                "lists is missing. Name a folder checkpoint-N of a run that has them all, or leave the option out.",
                field="resume_from_checkpoint",
                file=str(wanted),
            )
        return str(wanted)
    last = last_checkpoint(Path(args.output_dir))
    if last is None and word != AUTO:
        raise InputError(
            f"--resume_from_checkpoint true: {args.output_dir} holds no whole checkpoint yet. Give auto, which "
            "begins a new run there, or another --output_dir.",
            field="resume_from_checkpoint",
            file=args.output_dir,
        )
    return last


def last_checkpoint(folder: Path) -> str | None:
    """Return the last whole checkpoint in a folder, if there is one."""
    whole = [checkpoint for checkpoint in _checkpoints(folder) if _is_whole(checkpoint)]
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]))) if whole else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        files = _noted(checkpoint).get("files", [])
    except (OSError, ValueError):  # not there, or cut off
        return False
    return all((checkpoint / name).exists() for name in files)


def _noted(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint says of its files, seeds and data; an older one says nothing."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state.get("stateful_callbacks", {}).get(CHECKPOINT_FILES, {}).get("attributes", {})


def check_output_dir(args: RobertaGRUTrainingArguments, checkpoint: str | None) -> None:
    """Check that a run can write to its folder and takes nothing there for its own.

    Args:
        args: the options.
        checkpoint: what the run resumes from, if it does.

    Raises:
        InputError: if it cannot.
    """
    folder = Path(args.output_dir).resolve()
    held = _run_contents(folder)
    is_resumed = _is_own(checkpoint, args)
    is_auto = str(args.resume_from_checkpoint).lower() == AUTO  # restarted by a machine, which answers no questions
    if held and not (is_resumed or is_auto or args.overwrite_output_dir):
        raise InputError(
            f"--output_dir {args.output_dir} holds another run ({', '.join(path.name for path in held[:3])} …). Name "
            "another folder, resume that run by --resume_from_checkpoint true, or replace it by "
            "--overwrite_output_dir true.",
            field="output_dir",
            file=args.output_dir,
        )
    check_writable("--output_dir", folder)


def check_inputs_stay(args: RobertaGRUTrainingArguments, inputs: Iterable[str | None]) -> None:
    """Check that no file or folder that a run reads is among what it replaces in its folder.

    Raises:
        InputError: naming it.
    """
    replaced = [path.resolve() for path in _run_contents(Path(args.output_dir))]
    for path in (Path(location_name(name)) for name in inputs if name is not None):
        if os.path.exists(path) and any(path.resolve().is_relative_to(part) for part in replaced):
            raise InputError(
                f"{path} is read by this run, which would replace it in --output_dir {args.output_dir}: name another "
                "folder.",
                field="output_dir",
                file=str(path),
            )


def _run_contents(folder: Path) -> list[Path]:
    return [folder / name for name in RUN_FILES if (folder / name).exists()] + _checkpoints(folder)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("checkpoint-*")) if path.name.rpartition("-")[2].isdecimal()]


def _is_own(checkpoint: str | None, args: RobertaGRUTrainingArguments) -> bool:
    """Tell whether a run resumes from a checkpoint of its own folder."""
    return checkpoint is not None and Path(checkpoint).resolve().parent == Path(args.output_dir).resolve()


def discard_checkpoints(args: RobertaGRUTrainingArguments, resumed: str | None) -> None:
    """Delete the checkpoints of an earlier run in the same folder, unless this run resumes from one of them."""
    if _is_own(resumed, args):
        return
    # An earlier run's must not be resumed as this one's; its results stay until ours replace them.
    for earlier in _checkpoints(Path(args.output_dir)):
        delete(earlier)


def move_run(source: Path, folder: Path) -> None:
    """Move a whole run to its place; a folder with metrics.json holds one run and no part of another."""
    marker = "metrics.json"
    (folder / marker).unlink(missing_ok=True)
    for name in [*(name for name in RUN_FILES if name != marker), marker]:
        if not (source / name).exists():  # a bag of words has no model, and most models no adapter
            delete(folder / name)
            continue
        with replacing(folder / name) as place:
            os.replace(source / name, place)
