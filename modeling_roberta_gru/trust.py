"""What a saved model is trusted with: no code but ours, no size that its weights do not have.

A folder names code in three ways: `auto_map` and `custom_pipelines` in any of its JSON files, `attn_implementation` in
config.json (a kernel of the Hub), and files of Python that lie in it. Code of ours is known by its bytes. The checks
read JSON and the headers of safetensors files, and build nothing larger than the names and shapes of a model.
"""

import json
import os
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils import cached_file, find_adapter_config_file

from . import configuration_recurrent, configuration_roberta_gru
from .errors import InputError
from .files import PACKAGE, carried, write_json

SHIPPED = {
    module.__name__.rpartition(".")[2].removeprefix("configuration_"): module.AUTO_MAP
    for module in (configuration_roberta_gru, configuration_recurrent)
}
"""What names the two files that travel with a model, by the end of their names."""

BESIDE = ("model_card/handler.py", "model_card/requirements.txt")
"""What an endpoint runs, and what it installs."""

RELEASED: dict[str, str] = {}
"""SHA-256 of files of earlier releases → file name. Before a file of a release changes, its digest is added here."""

TOKENIZER_CONFIG = "tokenizer_config.json"
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
SAVE_AGAIN = "Save the model again with `save_pretrained`, or take the folder that the run left."
NAMES_CODE = ("auto_map", "custom_pipelines")
LOADED = ("AutoConfig", "AutoTokenizer", "AutoModelForSequenceClassification")
"""The parts of an `auto_map` that this package looks up."""
NAMES_NO_CODE = ("tokenizer.json", "vocab.json", "run.json", "metrics.json", INDEX)
ATTENTION_FIELDS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
ATTENTIONS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
DTYPES = ("auto", "float32", "float16", "bfloat16", "float64")
DEEPEST = 50
SLACK = 16 * 2**20
"""Numbers that a model may have beside twice those of its checkpoint: a fresh head."""


# Code


@cache
def known_code() -> dict[str, set[str]]:
    """Return the digests that are known of each file of ours: of this version, and of released ones."""
    files = [PACKAGE / f"{kind}_{end}.py" for end in SHIPPED for kind in ("configuration", "modeling")]
    beside = (*map(carried, BESIDE), PACKAGE / "inference" / "reading.py")
    files += [path for path in beside if path.is_file()]
    known = {path.name: {_digest(path)} for path in files}
    for digest, name in RELEASED.items():
        known.setdefault(name, set()).add(digest)
    return known


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def is_known(path: Path) -> bool:
    """Tell whether a file is one of ours, byte for byte."""
    return path.is_file() and _digest(path) in known_code().get(path.name, ())


def check_code(folder: Path) -> None:
    """Check that a saved model's folder names no code but ours, and that ours is what it should be.

    Raises:
        InputError: naming the file and the entry.
    """
    for path, entry in _foreign_entries(folder):
        raise InputError(
            f"{path} names someone else's code in {entry}: it would run where the model is loaded. Remove the entry.",
            field=entry,
            file=str(path),
        )
    for name in known_code():
        if (folder / name).exists() and not is_known(folder / name):
            raise InputError(
                f"{folder / name} is not the file of this version or of a released one, and it would run, or be "
                "installed, where the model is loaded. Save the model again with `save_pretrained`, or take it out.",
                file=str(folder / name),
            )


def find_file(name: str, file: str, revision: str | None) -> Path | None:
    """Return where a file of a model lies, downloading it if needed; None where there is none.

    Raises:
        InputError: if no model can be found by that name.
    """
    if Path(name).is_dir():
        return Path(name) / file if (Path(name) / file).is_file() else None
    missing_ok = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_gated_repo": True}
    try:
        found = cached_file(name, file, revision=revision, **missing_ok)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"No model can be read from {name}: {reason}", file=name) from error
    return Path(found) if found else None


def pinned(name: str, revision: str | None = None) -> str | None:
    """Return the commit that a Hub id's revision names now, so that what is loaded is what was checked; or `revision`.

    That is where `name` is a folder or cannot be found.
    """
    config = None if Path(name).is_dir() else find_file(name, CONFIG, revision)
    return revision if config is None else config.parent.name  # the cache's folder of a commit


def model_type(name: str, revision: str | None = None) -> Any:
    """Return the `model_type` of a folder or a model of the Hub; None where it has no configuration or none in it."""
    config = find_file(name, CONFIG, revision)
    fields = read_json(config) if config else None
    return fields.get("model_type") if isinstance(fields, dict) else None


def code_of_others(name: str, revision: str | None = None) -> list[str]:
    """Return what names code of others in a folder, or in what the cache has of a model of the Hub, each in words."""
    config = find_file(name, CONFIG, revision)
    return [f"{entry} in {path.name}" for path, entry in _foreign_entries(config.parent)] if config else []


def check_tokenizer_files(name: str, revision: str | None = None) -> None:
    """Check that a tokenizer is not told to read files of this machine, whose lines would be saved and published.

    Raises:
        InputError: naming the entry of tokenizer_config.json.
    """
    path = find_file(name, TOKENIZER_CONFIG, revision)
    held = read_json(path) if path else None
    if path is None or not isinstance(held, dict):
        return
    if held.get("init_inputs"):  # the same, by their places alone
        raise InputError(
            f"{path}: `init_inputs` gives the tokenizer arguments without their names, any of which may be a file of "
            "this machine. Take the entry out.",
            field="init_inputs",
            file=str(path),
        )
    for field, value in held.items():
        if not isinstance(value, str) or not (field.endswith("_file") or field in ("vocab", "merges")):
            continue
        # Old folders name files of the machine that saved them, which are not here.
        if os.path.isfile(value) and Path(value).parent.resolve() != path.parent.resolve():
            raise InputError(
                f"{path}: `{field}` is {value!r}, a file of this machine, which the tokenizer would read and save. "
                "Take the entry out.",
                field=field,
                file=str(path),
            )


def forget_code(config: PreTrainedConfig) -> None:
    """Take out of a configuration what names code of others, so that it is not saved."""
    for key in NAMES_CODE:
        held = _without_foreign({key: getattr(config, key, None)}, Path(CONFIG), [])
        if key in vars(config) and key not in held:
            delattr(config, key)
        elif key in vars(config):
            setattr(config, key, held[key])


def remove_foreign_code(folder: Path) -> list[str]:
    """Take out of a saved model's folder whatever names or is code of others.

    Returns:
        What was removed, each in words.
    """
    removed = [f"{entry} in {path.name}" for path, entry in _foreign_entries(folder)]
    for path in {path for path, _ in _foreign_entries(folder)}:
        write_json(path, _without_foreign(read_json(path), path, []))
    for path in sorted(folder.glob("*.py")):
        if not is_known(path):
            path.unlink()
            removed.append(path.name)
    return removed


def describe_remote_code(name: str, revision: str | None = None) -> str:
    """Say whose code `--trust_remote_code` runs: the repository, its revision, and its files of Python.

    Raises:
        InputError: if it is another repository's, of which no commit could be pinned and named.
    """
    _check_whose_code(name, revision)
    if Path(name).is_dir():
        files = [f"{path.name} (SHA-256 {_digest(path)[:16]}…)" for path in sorted(Path(name).glob("*.py"))]
        return f"{name} (a folder): {', '.join(files) or 'no file of Python'}"
    try:
        info = HfApi().model_info(name, revision=revision)
    except (HTTPError, OSError, ValueError) as error:
        return f"{name} at revision {revision or 'main'} (could not ask the Hub for its files: {one_line(error)})"
    files = [file.rfilename for file in info.siblings or [] if file.rfilename.endswith(".py")]
    return f"{name} at revision {info.sha}: {', '.join(files) or 'no file of Python'}"


def _check_whose_code(name: str, revision: str | None) -> None:
    """Check that what is loaded of a model names no code of another repository, as "owner/repo--module.Class" does."""
    for path in filter(None, (find_file(name, file, revision) for file in (CONFIG, TOKENIZER_CONFIG))):
        held = read_json(path)
        auto_map = held.get("auto_map") if isinstance(held, dict) else None
        parts = auto_map if isinstance(auto_map, dict) else {"AutoTokenizer": auto_map}
        for part in LOADED:
            codes = parts.get(part)
            for code in codes if isinstance(codes, list) else [codes]:
                repository, is_elsewhere, _ = str(code).partition("--")
                if is_elsewhere and repository != name:
                    raise InputError(
                        f"{path}: `auto_map` names code of another repository, {code!r}, of which no commit is "
                        f"pinned. Download the model and that code into one folder, take {repository}-- out of the "
                        "entry, and name the folder.",
                        field=f"auto_map.{part}",
                        file=str(path),
                    )


def _foreign_entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the JSON files and the entries, as `auto_map.AutoModel`, that name code of others.

    Raises:
        InputError: if a file is nested too deeply to be looked through, as others may do all the same.
    """
    for path in sorted(folder.glob("*.json")):
        if path.name in NAMES_NO_CODE:
            continue
        try:
            held = read_json(path)
        except InputError as error:
            if isinstance(error.__cause__, (OSError, json.JSONDecodeError, UnicodeDecodeError)):
                continue  # nobody can read it
            raise
        foreign: list[str] = []
        _without_foreign(held, path, foreign)
        yield from ((path, entry) for entry in foreign)


def _is_ours(part: str, code: Any) -> bool:
    return any(auto_map.get(part) == code for auto_map in SHIPPED.values())


def _without_foreign(held: Any, path: Path, foreign: list[str], at: str = "") -> Any:
    """Return what a JSON file holds without the entries that name code of others, which are added to `foreign`."""
    if isinstance(held, list):
        return [_without_foreign(value, path, foreign, at) for value in held]
    if not isinstance(held, dict):
        return held
    kept = {}
    for key, value in held.items():
        if key not in NAMES_CODE or not isinstance(value, dict | list | str) or not value:
            kept[key] = _without_foreign(value, path, foreign, f"{at}{key}.")
        elif path.name == CONFIG and not at and key == "auto_map" and isinstance(value, dict):
            ours = {part: code for part, code in value.items() if _is_ours(part, code)}
            foreign += (f"{at}{key}.{part}" for part in value if part not in ours)
            kept |= {key: ours} if ours else {}
        else:
            foreign.append(f"{at}{key}")
    return kept


# Sizes and kinds


def check_checkpoint(name: str, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Check, before a model is loaded or built, that its configuration is one, and that its weights have its sizes.

    Args:
        name: a folder or a Hub id, whose weights are downloaded if they are not in the cache.
        revision: of the Hub id.
        trust_remote_code: whether its own code will build the model; names and shapes are then not compared.

    Raises:
        InputError: naming the field or file, and the way out.
    """
    config = find_file(name, CONFIG, revision)
    if config is None:
        where = f"{name} has no {CONFIG}" if Path(name).is_dir() else "it is neither a folder nor a model on the Hub"
        raise InputError(
            f"No model can be read from {name}: {where}. Name a run's or saved model's folder, or a Hub id.", file=name
        )
    if find_adapter_config_file(name, revision=revision) is not None:
        raise InputError(
            f"{name} has an adapter_config.json: transformers would put the adapter onto the model, or onto another "
            "model that it names, without saying so. Merge the adapter, or take the file out.",
            file=name,
        )
    fields = read_json(config)
    check_fields(config, fields)
    shapes = {tensor: stored.shape for tensor, stored in find_tensors(name, revision).items()}
    _check_sizes(config, fields, shapes)
    if not trust_remote_code:
        _check_shapes(config, build_on_meta(config.parent), shapes)


def build_on_meta(folder: Path) -> PreTrainedModel:
    """Build a classifier's names and shapes without its numbers.

    Raises:
        InputError: if its configuration is not that of a classifier.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a field edited to nonsense makes fail
        raise InputError(
            f"{folder / CONFIG} does not describe a classifier that can be built: {one_line(error)}",
            file=str(folder / CONFIG),
        ) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: if it is none, or nested so deeply that reading on would fail.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        is_too_deep = _depth(held) > DEEPEST
    except RecursionError:
        is_too_deep = True
    except (OSError, ValueError) as error:  # neither JSON nor text
        raise InputError(f"{path} is not JSON: {one_line(error)} Save the model again.", file=str(path)) from error
    if is_too_deep:
        raise InputError(f"{path} is nested in more than {DEEPEST} levels, which no saved model is.", file=str(path))
    return held


def _depth(held: Any) -> int:
    depth, level = 0, [held]
    while level := [part for outer in level for part in _parts(outer)]:
        depth += 1
        if depth > DEEPEST:
            break
    return depth


def _parts(held: Any) -> Iterable[Any]:
    return held.values() if isinstance(held, dict) else held if isinstance(held, list) else ()


def one_line(error: Exception) -> str:
    """Write an error of a library as a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(".") + "."


LABELS = ("id2label", "label2id")
"""The fields whose own keys are not fields, but names that a user chose."""


def _nested(fields: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a configuration, and those of the configurations in it."""
    if isinstance(fields, dict):
        for field, value in fields.items():
            yield field, value
            if field not in LABELS:
                yield from _nested(value)


def check_fields(path: Path, fields: Any) -> None:
    """Check what a configuration says of kernels, types and files of weights.

    Raises:
        InputError: naming the field.
    """
    for field, value in _nested(fields):
        _check_field(path, field, value)


def _check_field(path: Path, field: str, value: Any) -> None:
    if value is None:
        return
    if field == "transformers_weights":  # which transformers reads in the place of model.safetensors, pickles too
        raise InputError(
            f"{path}: `{field}` names another file of weights, {value!r}. Save them as {WEIGHTS}, and take the field "
            "out.",
            field=field,
            file=str(path),
        )
    if field == "quantization_config":
        raise InputError(
            f"{path}: `{field}` says that the weights are quantised: take the model they were made from.",
            field=field,
            file=str(path),
        )
    known: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(ATTENTION_FIELDS, ATTENTIONS),
        **dict.fromkeys(("dtype", "torch_dtype"), DTYPES),
        "hidden_act": tuple(ACT2FN),
    }
    if field in known and value not in known[field]:
        raise InputError(
            f"{path}: `{field}` is {value!r}, and must be one of {', '.join(known[field])}.",
            field=field,
            file=str(path),
        )


class Stored(NamedTuple):
    """Where a tensor lies."""

    path: Path
    shape: list[int]


def find_tensors(name: str, revision: str | None = None) -> dict[str, Stored]:
    """Return where the tensors of a folder or a model of the Hub lie, by name, from the headers of its files.

    Raises:
        InputError: if weights are missing or not whole, or lie in a pickle.
    """
    whole = find_file(name, WEIGHTS, revision)
    if whole is not None:
        return read_header(whole)
    index = find_file(name, INDEX, revision)
    if index is None:
        pickle = next((file for file in PICKLES if find_file(name, file, revision) is not None), None)
        if pickle is not None:
            raise InputError(
                f"{Path(name) / pickle} is a pickle, which can run code where it is loaded, and {WEIGHTS} is missing. "
                "Where you trust it, load it and save it again with `save_pretrained`.",
                file=str(Path(name) / pickle),
            )
        raise InputError(f"{Path(name) / WEIGHTS} is missing. {SAVE_AGAIN}", file=str(Path(name) / WEIGHTS))
    stored: dict[str, Stored] = {}
    for file in sorted(set(read_index(index).values())):
        path = find_file(name, file, revision) if Path(file).name == file else None
        if path is None:
            raise InputError(
                f"{Path(name) / file} is missing, which {INDEX} names. {SAVE_AGAIN}", file=str(Path(name) / file)
            )
        stored |= read_header(path)
    return stored


def read_index(path: Path) -> dict[str, str]:
    """Return the files that an index names, by tensor.

    Raises:
        InputError: if it names none.
    """
    held = read_json(path)
    files = held.get("weight_map") if isinstance(held, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise InputError(
            f"{path} has no `weight_map` from tensors to files. {SAVE_AGAIN}", field="weight_map", file=str(path)
        )
    return files


def read_header(path: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file; its header says where it ends, so one cut off is found out.

    Raises:
        InputError: if it is not such a file.
    """
    try:
        with safe_open(path, "pt") as tensors:
            return {name: Stored(path, tensors.get_slice(name).get_shape()) for name in tensors.offset_keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a complete safetensors file ({one_line(error)}) It was cut off or is something else: "
            "download or save it again.",
            file=str(path),
        ) from error


def _check_sizes(path: Path, fields: Any, shapes: dict[str, list[int]]) -> None:
    """Refuse sizes that the weights cannot have, before as much as the names of so many layers is built."""
    num_numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    for field, value in _nested(fields):
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        is_count = field.startswith(("num_", "n_")) or field.endswith("_layers")
        is_size = field.endswith(("_size", "_dim", "_embeddings")) or field.startswith("d_")
        bound = len(shapes) if is_count and "layer" in field else num_numbers
        if (is_count or is_size) and value > bound:
            raise InputError(
                f"{path}: `{field}` is {value:,}, and the weights beside it have only {len(shapes):,} tensors of "
                f"{num_numbers:,} numbers. Keep a configuration with the weights it was saved with.",
                field=field,
                file=str(path),
            )


def _check_shapes(path: Path, model: PreTrainedModel, shapes: dict[str, list[int]]) -> None:
    """Check that what weights and configuration both have is of the same shape, and that little else is asked for."""
    num_fresh = 0
    for name, parameter in model.named_parameters():
        found = shapes.get(name, shapes.get(name.removeprefix(f"{model.base_model_prefix}.")))
        if found is None:
            num_fresh += parameter.numel()
        elif found != list(parameter.shape):
            raise InputError(
                f"{path} gives {name} the shape {list(parameter.shape)}, and the weights beside it have {found}. Put "
                "the two that were saved together into one folder.",
                file=str(path),
            )
    num_held = sum(torch.Size(shape).numel() for shape in shapes.values())
    if num_fresh > 2 * num_held + SLACK:
        raise InputError(
            f"{path} asks for {num_fresh:,} numbers that the weights beside it, of {num_held:,} in all, do not hold. "
            "Keep a configuration with the weights it was saved with.",
            file=str(path),
        )
