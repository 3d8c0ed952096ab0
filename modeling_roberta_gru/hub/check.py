"""Is a folder a whole model that others can load? By reading it, and by loading it in a clean process.

Weights are read by `safetensors`, headers first and then one tensor at a time; nothing is read through pickle. Code
that lies in the folder runs in the clean process only, and there if it is ours, byte for byte.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from ..data.tokenization import check_token_ids
from ..errors import InputError
from ..training.loading import quiet
from ..trust import (
    CONFIG,
    INDEX,
    SAVE_AGAIN,
    TOKENIZER_CONFIG,
    WEIGHTS,
    Stored,
    build_on_meta,
    check_code,
    check_fields,
    find_tensors,
    one_line,
    read_header,
    read_index,
    read_json,
)

TOKENIZER = "tokenizer.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HUB_NAME = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"
CLEAN_PROCESS = Path(__file__).with_name("clean_process.py")


def check_model(folder: Path) -> None:
    """Check that a folder holds configuration, weights, code and tokenizer, and that they belong together.

    Args:
        folder: of a classifier, as `save_pretrained` or a run leaves it.

    Raises:
        InputError: naming the file and the way out.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that holds a saved model.", file=str(folder))
    config = _read_config(folder / CONFIG)
    stored = find_tensors(str(folder))
    if not (folder / WEIGHTS).is_file():
        _check_index(folder / INDEX, stored)
    _check_names(folder, dict(stored), _expected_shapes(folder))
    for path in sorted({tensor.path for tensor in stored.values()}):
        _check_values(path)
    _check_tokenizer(folder, config)


def check_adapter(folder: Path) -> None:
    """Check that a folder holds a LoRA adapter, as a run leaves it, that others can load onto its encoder.

    Raises:
        InputError: naming the file and the way out.
    """
    base = _read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or Path(base).exists() or not re.fullmatch(HUB_NAME, base):
        raise InputError(
            f"{folder / ADAPTER_CONFIG}: the adapter's encoder is {base!r}, a folder of this machine: nobody else "
            "could load it. Train from an encoder of the Hub, or publish the merged model, model/.",
            file=str(folder / ADAPTER_CONFIG),
        )
    config = _read_config(folder / CONFIG)
    whole = next((name for name in (WEIGHTS, INDEX) if (folder / name).exists()), None)
    if whole is not None:
        raise InputError(
            f"{folder} holds an adapter and, in {whole}, a model: put one of them into another folder.",
            file=str(folder),
        )
    read_header(folder / ADAPTER_WEIGHTS)
    _check_values(folder / ADAPTER_WEIGHTS)
    _check_tokenizer(folder, config)


def predict_in_clean_process(folder: str | os.PathLike[str], texts: Sequence[str]) -> list[dict[str, Any]]:
    """Predict texts by `pipeline("text-classification", folder)` in a clean process.

    The process runs outside this folder, offline, with an empty cache of remote code; importing this package is made
    to fail there, and is shown to fail before anything is loaded.

    Returns:
        `{"label": str, "score": float}` for each text.

    Raises:
        InputError: if the folder names code that is not ours, or ours has been changed; nothing has run then.
        RuntimeError: if the folder does not load, with the last line of the process.
    """
    check_code(Path(folder))
    request = {"folder": str(Path(folder).resolve()), "texts": list(texts)}
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": elsewhere, "CUDA_VISIBLE_DEVICES": ""}
        # Not one of the ranks of a distributed run, if this is one.
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            environment.pop(name, None)
        process = subprocess.run(
            [sys.executable, "-P", CLEAN_PROCESS],  # not -I: libraries may lie in the user's site or on PYTHONPATH
            input=json.dumps(request),
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=environment,
        )
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise RuntimeError(f"{folder} does not load in a clean process: {last}")
    return json.loads(process.stdout.splitlines()[-1])


def _read_config(path: Path) -> PretrainedConfig:
    """Build the configuration, whose class checks its fields, and see that the code that it names lies beside it."""
    fields = _read_object(path)
    if not isinstance(fields.get("model_type"), str):
        raise InputError(
            f"{path} has no `model_type`: it is not the configuration of a model. {SAVE_AGAIN}",
            field="model_type",
            file=str(path),
        )
    check_fields(path, fields)
    named = fields.get("auto_map", {})
    if not isinstance(named, dict | str):
        raise InputError(
            f"{path}: `auto_map` is {named!r}, not an object. {SAVE_AGAIN}", field="auto_map", file=str(path)
        )
    try:
        with quiet():
            config = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
    except Exception as error:  # whatever a field edited to nonsense makes fail
        raise InputError(f"{path} cannot be used: {one_line(error)} Correct the field.", file=str(path)) from error
    check_code(path.parent)
    for auto_class, reference in getattr(config, "auto_map", {}).items():
        _check_named(path, auto_class, named.get(auto_class) if isinstance(named, dict) else None, reference)
    return config


def _check_named(path: Path, auto_class: str, named: Any, reference: str) -> None:
    if named != reference:
        raise InputError(
            f"{path} has {named!r} for {auto_class} in `auto_map`, where {reference!r} belongs: nobody without this "
            f"package could load the model. {SAVE_AGAIN}",
            field="auto_map",
            file=str(path),
        )
    code = path.with_name(reference.split(".")[0] + ".py")
    if not code.is_file():
        raise InputError(f"{code} is missing, which {path.name} names for {auto_class}. {SAVE_AGAIN}", file=str(code))


def _check_index(index: Path, stored: dict[str, Stored]) -> None:
    files = read_index(index)
    for name in sorted(files.keys() | stored.keys()):
        if name not in files or name not in stored or stored[name].path.name != files[name]:
            raise InputError(
                f"{index} and the files beside it do not agree on where {name} lies. {SAVE_AGAIN}", file=str(index)
            )


def _expected_shapes(folder: Path) -> list[tuple[set[str], list[int]]]:
    """Return names and shape of every tensor of the model; a tied one has several names, any of which will do."""
    with quiet():
        model = build_on_meta(folder)
    tensors: dict[int, tuple[set[str], list[int]]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        tensors.setdefault(id(tensor), (set(), list(tensor.shape)))[0].add(name)
    return list(tensors.values())


def _check_names(folder: Path, stored: dict[str, Stored], expected: list[tuple[set[str], list[int]]]) -> None:
    """Check that the weights are those of the model: all of them, no others, every one of its shape."""
    foreign = (
        f"The weights are not those of {folder / CONFIG}: keep a configuration with the weights it was saved with."
    )
    for names, shape in expected:
        if names.isdisjoint(stored):
            raise InputError(f"{min(names)} is missing from the weights in {folder}. {foreign}", file=str(folder))
        for name in sorted(names & stored.keys()):
            path, found = stored.pop(name)
            if found != shape:
                raise InputError(
                    f"{name} in {path} has the shape {found}, and in the model {shape}. {foreign}", file=str(path)
                )
    for name, (path, _) in sorted(stored.items()):
        raise InputError(f"{name} in {path} is not a part of the model. {foreign}", file=str(path))


def _check_values(path: Path) -> None:
    with safe_open(path, "pt") as tensors:
        for name in tensors.offset_keys():
            tensor = tensors.get_tensor(name)
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise InputError(
                    f"{name} in {path} holds NaN or infinity: the training diverged. Take an earlier checkpoint, or "
                    "train with a lower --learning_rate.",
                    file=str(path),
                )


def _check_tokenizer(folder: Path, config: PretrainedConfig) -> None:
    keep = "Save the tokenizer that the model was trained with there."
    if not (folder / TOKENIZER_CONFIG).is_file():  # transformers 4.57 finds its class there only
        raise InputError(f"{folder / TOKENIZER_CONFIG} is missing. {keep}", file=str(folder / TOKENIZER_CONFIG))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the libraries behind it have no common one
        raise InputError(
            f"No tokenizer can be read from {folder}: {one_line(error)} {keep}", file=str(folder)
        ) from error
    # Without a vocabulary, transformers 5 makes a tokenizer that gives <unk> for every word.
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
        raise InputError(f"{folder / TOKENIZER} is missing or holds no words. {keep}", file=str(folder / TOKENIZER))
    try:
        check_token_ids(tokenizer, config.vocab_size)
    except InputError as error:
        said = f"{folder / TOKENIZER} does not fit {CONFIG}: {error}"
        raise InputError(said, field=error.field, file=str(folder / TOKENIZER)) from error


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing. {SAVE_AGAIN}", file=str(path))
    fields = read_json(path)
    if not isinstance(fields, dict):
        raise InputError(
            f"{path} is a JSON {type(fields).__name__} instead of an object. {SAVE_AGAIN}", file=str(path)
        )
    return fields
