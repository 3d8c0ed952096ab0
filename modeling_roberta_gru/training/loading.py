"""Where the training of RoBERTa-GRU starts from: the tokenizer, and a model with fresh or loaded weights.

`baselines/transformer.py` and `baselines/recurrent.py` have the same two functions for what it is compared with.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils import logging

from ..arguments import ModelArguments
from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.corpus import train_tokenizer
from ..data.labels import LabelSpace
from ..data.tokenization import check_token_ids
from ..errors import InputError
from ..modeling_roberta_gru import RobertaGRUForSequenceClassification


def load_tokenizer(args: ModelArguments, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Load the tokenizer that `args` name, or train one on `texts`.

    Raises:
        InputError: if none can be read there.
    """
    name = args.tokenizer_name or args.model_name_or_path
    if name is None:
        vocab_size = args.config_fields(RobertaGRUConfig()).get("vocab_size")
        return train_tokenizer(texts, **({"vocab_size": vocab_size} if vocab_size else {}))
    return read_tokenizer(name, revision=None if args.tokenizer_name else args.model_revision)


def read_tokenizer(
    name: str, revision: str | None = None, tokenizer_class: Any = AutoTokenizer
) -> PreTrainedTokenizerBase:
    """Read a tokenizer from a folder or the Hub.

    Raises:
        InputError: if none can be read there.
    """
    try:
        return tokenizer_class.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(f"No tokenizer can be read from {name}: {first_line(error)}") from error


def load_model(
    args: ModelArguments,
    tokenizer: PreTrainedTokenizerBase,
    labels: LabelSpace,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
) -> RobertaGRUForSequenceClassification:
    """Build the classifier in float32, with the weights of `args.model_name_or_path` or with random ones.

    A checkpoint of a bare encoder gets a fresh GRU and head; one of RoBERTa-GRU keeps its own, and a fresh head where
    the labels are others.

    Raises:
        InputError: if the checkpoint cannot be read, is of another architecture or of other sizes than asked for, or
            if the tokenizer does not fit it.
    """
    loss_fields = {"class_weights": class_weights, "label_smoothing": label_smoothing}
    fields = {**args.config_fields(RobertaGRUConfig()), **labels.config_fields(), **loss_fields}
    name = args.model_name_or_path
    try:
        if name is None:
            special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
            config = RobertaGRUConfig(**{**fields, **special, "vocab_size": len(tokenizer)})
            return RobertaGRUForSequenceClassification(config)
        with quiet():
            config = RobertaGRUConfig.from_pretrained(name, revision=args.model_revision)
        for field, value in fields.items():
            setattr(config, field, value)
        config.calibration_temperature = 1.0
        config.check()
        check_token_ids(tokenizer, config.vocab_size)
        model, report = read_weights(RobertaGRUForSequenceClassification, args, config)
    except (OSError, ValueError) as error:
        raise InputError(f"The model {name or 'to be built'} is not usable: {first_line(error)}") from error
    check_encoder_came_whole(name, report, "roberta.", "head.out_proj.")
    return model


def read_weights(
    model_class: Any, args: ModelArguments, config: PreTrainedConfig
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Read the weights of `args.model_name_or_path` in float32, what is missing or of another size being fresh.

    Returns:
        The model, and what `check_encoder_came_whole` takes as its report.
    """
    with quiet():
        return model_class.from_pretrained(
            args.model_name_or_path,
            revision=args.model_revision,
            config=config,
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
                "checkpoint has them, or name another --model_name_or_path."
            )


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


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
