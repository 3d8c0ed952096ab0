"""Compare with a transformer and its stock linear head, as `AutoModelForSequenceClassification` makes it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
)

from ..arguments import TRANSFORMER, ModelArguments
from ..configuration_recurrent import RecurrentConfig
from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.labels import LabelSpace
from ..data.tokenization import check_token_ids
from ..errors import InputError
from ..modeling_roberta_gru import classification_loss
from ..training.loading import check_encoder_came_whole, first_line, load_tokenizer, read_weights

__all__ = ["fold_temperature", "load_model", "load_tokenizer", "loss_function"]


def load_model(
    args: ModelArguments, tokenizer: PreTrainedTokenizerBase, labels: LabelSpace, **loss_fields: Any
) -> PreTrainedModel:
    """Load an encoder of any kind in float32 with a linear head, fresh unless the checkpoint's fits the labels.

    Without `args.model_name_or_path` it is a RoBERTa of random weights, in RoBERTa-GRU's geometry. `loss_fields` have
    no place in it: see [`loss_function`].

    Raises:
        InputError: if the checkpoint cannot be read or has no such head, or if the tokenizer does not fit it.
    """
    name = args.model_name_or_path
    try:
        if name is None:
            return AutoModelForSequenceClassification.from_config(_random_config(args, tokenizer, labels))
        config = AutoConfig.from_pretrained(name, revision=args.model_revision)
        _check_kind(name, config, tokenizer)
        for field, value in {**args.config_fields(config), **labels.config_fields()}.items():
            setattr(config, field, value)
        check_token_ids(tokenizer, config.vocab_size)
        model, report = read_weights(AutoModelForSequenceClassification, args, config)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"The model {name or 'to be built'} is not usable: {first_line(error)}") from error
    check_encoder_came_whole(name, report, f"{model.base_model_prefix}.", last_linear_name(model))
    return model


def _check_kind(name: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    if config.model_type == RobertaGRUConfig.model_type:
        raise InputError(f"{name} is a RoBERTa-GRU: leave --architecture {TRANSFORMER} out to train it.")
    if config.model_type == RecurrentConfig.model_type or config.is_encoder_decoder:
        raise InputError(f"{name} is a {config.model_type}, and --architecture {TRANSFORMER} wants an encoder.")
    if tokenizer.pad_token_id is None:
        raise InputError(f"The tokenizer of {name} has no padding token, which batches need: take another model.")


def _random_config(args: ModelArguments, tokenizer: PreTrainedTokenizerBase, labels: LabelSpace) -> RobertaConfig:
    geometry = RobertaGRUConfig()
    names = ("max_position_embeddings", "type_vocab_size", "layer_norm_eps")
    fields = {name: getattr(geometry, name) for name in names}
    fields |= {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    fields |= args.config_fields(RobertaConfig()) | labels.config_fields()
    return RobertaConfig(**{**fields, "vocab_size": len(tokenizer)})


def loss_function(
    labels: LabelSpace, class_weights: list[float] | None, label_smoothing: float
) -> Callable[..., torch.Tensor]:
    """Return RoBERTa-GRU's loss for the Trainer's `compute_loss_func`.

    A stock head knows neither class weights nor, for several labels a text, how a batch was divided.
    """
    fields = SimpleNamespace(
        problem_type=labels.problem_type,
        num_labels=labels.num_labels,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
    )

    def loss(
        outputs: Any, targets: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        return classification_loss(outputs["logits"], targets, fields, num_items_in_batch)

    return loss


def fold_temperature(model: PreTrainedModel, temperature: float) -> None:
    """Divide the logits by a temperature for good, in the weights of the last linear layer: a stock head has no other
    place for it.
    """
    linear = model.get_submodule(last_linear_name(model))
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.div_(temperature)


def last_linear_name(model: PreTrainedModel) -> str:
    """Return the name of the linear layer that gives the logits."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
        and not name.startswith(f"{model.base_model_prefix}.")
    ]
    return names[-1]
