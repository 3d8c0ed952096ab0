"""Where a model comes from: its folder, tokenizer and weights, and how many tokens of a text it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils import logging

from ..arguments import ModelArguments
from ..configuration_recurrent import RecurrentConfig
from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.tokenization import check_token_ids
from ..errors import InputError, first_line
from ..trust import check_checkpoint, check_tokenizer_files, find_file, forget_code, model_type, pinned, read_json

logger = logging.get_logger(__name__)

OURS = (RobertaGRUConfig.model_type, RecurrentConfig.model_type)


def model_folder(name: str) -> str:
    """Return where the model of a run's folder lies; any other name, a model's folder or a Hub id, as it is.

    Raises:
        InputError: if it is the folder of a run that has no model.
    """
    folder = Path(name)
    if not (folder / "config.json").is_file():
        if (folder / "model").is_dir():
            return str(folder / "model")
        if (folder / "metrics.json").is_file():
            raise InputError(
                f"{name} is a run without a model: the folder {folder / 'model'} does not exist. A bag of words keeps "
                "none.",
                file=name,
            )
        if folder.is_absolute() and not folder.exists():
            raise InputError(
                f"{name} does not exist. Name the folder of a run or of a saved model, or a Hub id.", file=name
            )
    return name


def training_options(name: str) -> dict[str, Any]:
    """Return the options that a model was trained with, other than the defaults; {} where nothing says them.

    Args:
        name: a run's folder, one of its checkpoints, a saved model's folder or a Hub id.
    """
    try:
        name = model_folder(name)
        revision = pinned(name)
    except InputError:  # whoever loads the model says what is wrong with it
        return {}
    folder, unknown = Path(name), None
    try:
        record = find_file(str(folder.parent) if folder.name.startswith("checkpoint-") else name, "run.json", revision)
        fields = read_json(record) if record else None
        if record is None and revision is not None and is_offline_mode():
            unknown = "the cache has no run.json, and the Hub may not be asked."
    except InputError as error:
        fields, unknown = None, str(error)
    if unknown:
        logger.warning(
            "How texts were read to train %s, whether without HTML and from which columns, is unknown: %s",
            name,
            unknown,
        )
    options = fields.get("options") if isinstance(fields, dict) else None
    return options if isinstance(options, dict) else {}


def was_cleaned(name: str) -> bool:
    """Return whether a model was trained with `clean_html`, as [`training_options`] says."""
    return training_options(name).get("clean_html") is True


def load_classifier(
    name: str, trust_remote_code: bool = False, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load any trained text classifier and its tokenizer from a run's folder, a saved model's folder or the Hub.

    Args:
        name: of the folder or the model.
        trust_remote_code: run the code that the model brings along, a program of whoever wrote it. A model of ours is
            loaded by the installed classes all the same, whatever code lies beside it; its tokenizer may need code.
        revision: of a Hub id; unset: main.

    Raises:
        InputError: if they cannot be read there, or the head is not trained.
    """
    name = model_folder(name)
    try:
        revision = pinned(name, revision)
        runs_code = trust_remote_code and model_type(name, revision) not in OURS
        check_checkpoint(name, revision, trust_remote_code=runs_code)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name, revision=revision, trust_remote_code=runs_code, use_safetensors=True, output_loading_info=True
        )
        tokenizer = read_tokenizer(name, revision, trust_remote_code=trust_remote_code)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"No model can be read from {name}: {first_line(error)}.", file=name) from error
    if report["missing_keys"]:
        raise InputError(
            f"{name} holds no trained classifier but a {model.config.model_type} that lacks "
            f"{min(report['missing_keys'])}.",
            file=name,
        )
    check_token_ids(tokenizer, model.config.vocab_size)
    return model.eval(), tokenizer


def read_tokenizer(
    name: str,
    revision: str | None = None,
    tokenizer_class: Any = AutoTokenizer,
    trust_remote_code: bool = False,
) -> PreTrainedTokenizerBase:
    """Read a tokenizer from a folder or the Hub.

    Raises:
        InputError: if none can be read there.
    """
    check_tokenizer_files(name, revision)
    try:
        tokenizer = tokenizer_class.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # the libraries behind it have no common one
        raise InputError(f"No tokenizer can be read from {name}: {first_line(error)}.", file=name) from error
    if not isinstance(tokenizer.model_max_length, int | float):
        raise InputError(
            f"No tokenizer can be read from {name}: `model_max_length` is {tokenizer.model_max_length!r}, not a "
            "number. Correct the field.",
            field="model_max_length",
            file=name,
        )
    if not trust_remote_code:
        tokenizer.init_kwargs.pop("auto_map", None)  # which would be saved along
    return tokenizer


def check_padding(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Check that a tokenizer, read from `name`, has a padding token.

    Raises:
        InputError: if not.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"The tokenizer of {name} has no padding token, which batches need: take another one.", file=name
        )


def read_weights(
    model_class: Any, args: ModelArguments, config: PreTrainedConfig
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Read the weights of `args.model_name_or_path` in float32, what is missing or of another size being fresh.

    Returns:
        The model, and what `check_encoder_came_whole` takes as its report.
    """
    if not args.trust_remote_code:
        forget_code(config)
    with quiet():
        return model_class.from_pretrained(
            args.model_name_or_path,
            revision=args.model_revision,
            config=config,
            trust_remote_code=args.trust_remote_code,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )


def check_encoder_came_whole(name: str, report: dict[str, Any], encoder: str, head: str) -> None:
    """Check what was loaded: a head may be fresh, but a partly random encoder would only look as if it worked.

    Args:
        name: of the checkpoint.
        report: the loading information of `from_pretrained`.
        encoder: what the names of the encoder's parameters begin with. A pooler may be missing: some are never saved.
        head: what the names of the parameters begin with that may be of another size.

    Raises:
        InputError: naming the parameter.
    """
    mismatched = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    for key in [*mismatched, *report["missing_keys"]]:
        is_of_encoder = key.startswith(encoder) and not key.startswith(f"{encoder}pooler.")
        if is_of_encoder or (key in mismatched and not key.startswith(head)):
            what = "is of another size in" if key in mismatched else "is missing from"
            raise InputError(
                f"{key} {what} {name}: it is not a checkpoint for this configuration. Leave the sizes as the "
                "checkpoint has them, or name another --model_name_or_path.",
                file=name,
            )


def longest_read(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> int | None:
    """Return how many tokens of a text are read: ours and recurrent nets read all, a stock transformer cannot.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        max_length: how many shall be read at most; None: as many as can be.

    Raises:
        InputError: if the model cannot read so many.
    """
    reads_all = model.config.model_type in OURS
    limit = None if reads_all else encoder_window(model, tokenizer)
    if limit is not None and (max_length or 0) > limit:
        raise InputError(
            f"--max_length {max_length} is more than the {limit} tokens that the model reads at most: a transformer "
            "with its stock head has no windows.",
            field="max_length",
        )
    return max_length or limit


def encoder_window(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return how many tokens the model can read: those it has positions for, or else the tokenizer's own limit.

    RoBERTa and its kin count positions from above the padding's id on. None where neither bounds them.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return tokenizer.model_max_length if tokenizer.model_max_length < LARGE_INTEGER else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from warning about what is meant: another model type, a head that starts fresh."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
