"""What of a folder travels to the Hub: an allow-list, and no secrets."""

import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path

import yaml
from huggingface_hub import ModelCard

from ..errors import InputError
from .folder import ADAPTER_CONFIG, check_adapter, check_model

CODE = ("configuration_*.py", "modeling_*.py")
# What a published model is made of; of the code, that travels which config.json names.
TRAVELS = (
    *("config.json", "generation_config.json"),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("adapter_config.json", "adapter_model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "bpe.codes"),
    *("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model"),
    *(*CODE, "handler.py", "requirements.txt"),
    *("README.md", "LICENSE", "run.json", "metrics.json", "confusion.png", "curves.png"),
)
BINARY = (".safetensors", ".png", ".model")
SECRETS = {
    "a Hugging Face token": r"\b(hf|api_org)_[A-Za-z0-9]{30,}",
    "an AWS key": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|(?i:aws_secret_access_key)\W{1,5}[A-Za-z0-9/+]{40}",
    "a GitHub token": r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,})",
    "a private key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY",
}


def model_folder(run: str | os.PathLike[str]) -> Path:
    """Return where the model of a run lies: in its folder `model`, or where the folder is a saved model's itself."""
    folder = Path(run)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name a run's folder, or a saved model's.")
    if (folder / "model").is_dir():
        return folder / "model"
    if (folder / "metrics.json").is_file() and not (folder / "config.json").is_file():
        raise InputError(f"{folder} is a run that keeps no model: there is no folder {folder / 'model'}.")
    return folder


def pack(folder: Path) -> dict[str, int]:
    """Return what travels of a model's folder, with sizes in bytes.

    Raises:
        InputError: if the model is not whole, its card cannot be read or names no licence, or a file seems to hold a
            secret.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        check_adapter(folder)
    else:
        check_model(folder)
    _check_card(folder / "README.md")
    classes = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {}).values()
    code = {name.split(".")[0] + ".py" for name in classes}
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and belongs(path.name)]
    files = [path for path in files if path.name in code or not _matches(path.name, CODE)]
    for path in files:
        if path.suffix not in BINARY:
            _check_for_secrets(path)
    return {path.name: path.stat().st_size for path in files}


def belongs(name: str) -> bool:
    """Tell whether a file's name is one of those that a published model is made of."""
    return _matches(name, TRAVELS)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _check_card(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing: a published model needs a card, which names its licence.")
    try:
        data = ModelCard.load(path).data
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no model card, by what stands between its --- lines: {reason}") from error
    if not data.license:
        raise InputError(f"{path} names no licence: write `license: apache-2.0`, or yours, between its --- lines.")


def _check_for_secrets(path: Path) -> None:
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        for kind, pattern in SECRETS.items():
            if re.search(pattern, line):
                raise InputError(
                    f"{path}, line {number}, holds what looks like {kind}: take it out, and revoke it if others may "
                    "have seen it. Nothing was pushed."
                )
