"""A model that the ranks of a run hold in shards (FSDP, DeepSpeed): what it cannot read, and how it is made whole."""

import os
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from ..errors import InputError
from .arguments import RobertaGRUTrainingArguments


def check_sharding(args: RobertaGRUTrainingArguments) -> None:
    """Check that a model in shards can be read by its ranks and put together again.

    Raises:
        InputError: for FSDP 1 and DeepSpeed's ZeRO-3. Ranks that called the encoder unequally often would wait for
            each other for ever, and the first one could not save the model by itself. For shards of FSDP 2 the model
            and [`whole_model`] see to both.
    """
    if _fsdp_version(args) == 1:
        raise InputError(
            "FSDP 1 is not supported: choose FSDP 2 (`fsdp_version: 2` in accelerate's configuration; --fsdp takes it "
            "by itself)."
        )
    if is_deepspeed_zero3_enabled():
        raise InputError("DeepSpeed ZeRO-3 is not supported: choose stage 2, or --fsdp full_shard.")


def is_sharded(args: RobertaGRUTrainingArguments) -> bool:
    """Tell whether ranks hold the model in shards."""
    return _fsdp_version(args) is not None


def _fsdp_version(args: RobertaGRUTrainingArguments) -> int | None:
    if args.fsdp:
        return int((args.fsdp_config or {}).get("version", 2))
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":  # by a configuration of `accelerate launch`
        return int(os.environ.get("FSDP_VERSION", "1"))
    return None


def whole_model(model: PreTrainedModel) -> PreTrainedModel:
    """Put a model's shards together; all ranks must call it.

    Returns:
        In the first process a model on the CPU that nothing shards, in evaluation mode; elsewhere, and where nothing
        is sharded, the model as it is.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return model
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import FSDPModule

    kinds: tuple[Any, ...] = type(model).__mro__
    if FSDPModule not in kinds:
        return model
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if torch.distributed.get_rank() != 0:
        return model
    # Sharding gave the model a class of its own, made from this one.
    original = next(kind for kind in kinds if not issubclass(kind, FSDPModule))
    whole: PreTrainedModel = original(model.config).to(model.dtype)
    whole.load_state_dict(state)
    frozen = {
        name.replace("_checkpoint_wrapped_module.", "")
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    }
    for name, parameter in whole.named_parameters():
        parameter.requires_grad = name not in frozen
    return whole.eval()
