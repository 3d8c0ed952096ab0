"""A frozen encoder's states, computed once and kept on disk: training then costs the GRU and the head alone.

The states of a split are one float16 array (tokens, D) in a file whose name says encoder, windows, precision and token
ids, so that a later epoch, seed or head finds them. The folder is `roberta-gru/states` in `$XDG_CACHE_HOME`
(`~/.cache`); what was used least recently leaves it first.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.tokenization import batches_by_length
from ..errors import InputError, say
from ..files import alone, delete, is_being_written, replacing, writing_to
from .arguments import RobertaGRUTrainingArguments

COLUMN = "encoder_states"
"""Where in the file a row's states begin; the model's argument of this name takes the states themselves."""
TOKENS_AT_ONCE = 8192
GIB = 2**30

Collator = Callable[[list[dict[str, Any]]], Any]


class StatesCollator:
    """Make batches of encoder states in place of token ids.

    Args:
        collator: pads rows; makes the batch itself of rows that have no states.
        path: the file of states.
    """

    def __init__(self, collator: Collator, path: Path):
        self.collator, self.path = collator, path
        self._states = np.load(path, mmap_mode="r")  # at once: what another run deletes meanwhile stays readable

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_states": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _states=np.load(state["path"], mmap_mode="r"))

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """Return `encoder_states` `(B, T, D)` float32, `attention_mask` and `labels`."""
        if COLUMN not in rows[0]:
            return self.collator(rows)
        batch = self.collator([{name: value for name, value in row.items() if name != COLUMN} for row in rows])
        shape = batch.pop("input_ids").shape
        batch.pop("token_type_ids", None)
        states = torch.zeros(*shape, self._states.shape[1])
        for number, row in enumerate(rows):
            begin = row[COLUMN]
            own = np.array(self._states[begin : begin + len(row["input_ids"])], np.float32)
            states[number, batch["attention_mask"][number] == 1] = torch.from_numpy(own)
        return {**batch, COLUMN: states}


def keep_states(
    model: PreTrainedModel,
    tokens: Dataset,
    collator: Collator,
    args: RobertaGRUTrainingArguments,
    split: str,
    beside: Collator | None = None,
) -> tuple[Dataset, Collator]:
    """Read a split by the encoder once, unless that was done before or would take more room than `args.cache_limit`.

    Args:
        model: a RoBERTa-GRU whose encoder is frozen.
        tokens: the split's `input_ids` and `length`.
        collator: makes batches of its rows.
        args: the options.
        split: its name, for what is said.
        beside: the collator of the run's other split: its states, if it has any, count too and are not deleted.

    Returns:
        The split with [`COLUMN`], and the collator that puts the states in its place; both as they were if the states
        are not kept, or cannot be written.
    """
    lengths = np.asarray(tokens.with_format("numpy")["length"][:], np.int64)
    width, num_tokens = model.config.hidden_size, int(lengths.sum())
    needed = beside.path if isinstance(beside, StatesCollator) else None
    size, limit = 2 * width * num_tokens, args.cache_limit * GIB
    room = limit - (needed.stat().st_size if needed else 0)
    path = states_folder() / f"{_digest(model, tokens, args)}.npy"
    if size > room:
        if limit and args.process_index == 0:
            left = f", of which {room / GIB:.1f} are left" if needed else ""
            say(
                f"The encoder's states of the {split} split would take {size / GIB:.1f} GiB and are not kept: "
                f"--cache_limit is {args.cache_limit:g}{left}. The texts are encoded again in every epoch."
            )
        return tokens, collator
    try:
        with alone(path, waits=True):  # a barrier of torch's would time out
            if path.is_file():
                os.utime(path)
            else:
                say(f"The encoder reads the {split} split once: {size / GIB:.2f} GiB of states, in {path.parent}.")
                _make_room(path.parent, room - size, needed)
                with writing_to(path), replacing(path) as place:
                    _write(model, tokens, lengths, collator, args, place)
    except InputError as error:  # a full disk, or no right to write there
        say(
            f"The encoder's states of the {split} split are not kept: {error} The texts are encoded again in every "
            "epoch. To keep the states elsewhere, set XDG_CACHE_HOME; to keep none, --cache_limit 0."
        )
        return tokens, collator
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return tokens.add_column(COLUMN, begins), StatesCollator(collator, path)


def states_folder() -> Path:
    """Return the folder that states are kept in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "roberta-gru" / "states"


def _digest(model: PreTrainedModel, tokens: Dataset, args: RobertaGRUTrainingArguments) -> str:
    """Name what the states depend on."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.roberta.state_dict().items()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    config = model.config
    parts = [config.encoder_window, config.window_stride, config.hidden_act, config.layer_norm_eps]
    parts += [config.num_attention_heads, config.pad_token_id, args.bf16, args.fp16]
    digest.update(json.dumps(parts).encode())
    for batch in tokens.select_columns("input_ids").with_format("arrow").iter(batch_size=10_000):
        column = batch["input_ids"].combine_chunks()
        digest.update(np.asarray(column.value_lengths(), np.int64).tobytes())
        digest.update(np.asarray(column.flatten(), np.int32).tobytes())
    return digest.hexdigest()[:32]


def _make_room(folder: Path, limit: float, needed: Path | None) -> None:
    """Delete the states used least recently until what is left, beside those that are needed, fits."""
    paths = [path for path in folder.glob("*.npy") if path != needed and not is_being_written(path)]
    kept = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in kept:
        total += path.stat().st_size
        if total > limit:
            delete(path)


def _take_room(path: Path) -> None:
    """Give a sparse file its room on the disk: where a mapped page finds the disk full, the process is killed."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # not on every file system
                raise


@torch.no_grad()
def _write(
    model: PreTrainedModel,
    tokens: Dataset,
    lengths: np.ndarray,
    collator: Collator,
    args: RobertaGRUTrainingArguments,
    path: Path,
) -> None:
    begins = np.concatenate([[0], np.cumsum(lengths)])
    shape = (int(begins[-1]), model.config.hidden_size)
    states = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    _take_room(path)
    was_training, device = model.training, args.device
    model.to(device).eval()
    dtype = torch.bfloat16 if args.bf16 else torch.float16
    rows = tokens.select_columns(["input_ids", "attention_mask"])
    with (
        torch.autocast(device.type, dtype, enabled=args.bf16 or args.fp16),
        tqdm(total=shape[0], desc="Encoding", unit=" tokens", unit_scale=True, disable=args.disable_tqdm) as progress,
    ):
        for some in batches_by_length(lengths, TOKENS_AT_ONCE):
            batch = collator([rows[int(row)] for row in some])
            mask = batch["attention_mask"] == 1
            inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            encoded = model(**inputs, output_hidden_states=True).hidden_states[-1].float().cpu()
            for number, row in enumerate(some):
                states[begins[row] : begins[row + 1]] = encoded[number, mask[number]].numpy()
            progress.update(int(lengths[some].sum()))
    states.flush()
    model.train(was_training)
