"""A model that the ranks of a run hold in shards (FSDP, DeepSpeed): what it cannot read, and how it is made whole."""

import os
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from ..errors import InputError
from .arguments import RobertaGRUTrainingArguments


def check_sharding(args: RobertaGRUTrainingArguments, longest: int, window: int) -> None:
    """Check that documents beyond the encoder's window can be read by the ranks that hold it in shards.

    Args:
        args: the options.
        longest: tokens of the longest document.
        window: tokens that the encoder reads at once.

    Raises:
        InputError: if ranks would call the encoder unequally often, and wait for each other for ever: only for shards
            of FSDP 2 does the model see to it.
    """
    if longest <= window:
        return
    version = None
    if args.fsdp:
        version = int((args.fsdp_config or {}).get("version", 2))
    elif os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":  # by a configuration of `accelerate launch`
        version = int(os.environ.get("FSDP_VERSION", "1"))
    if version == 1:
        name = "FSDP 1"
        way_out = "Choose FSDP 2 (`fsdp_version: 2` in accelerate's configuration; --fsdp takes it by itself)"
    elif is_deepspeed_zero3_enabled():
        name, way_out = "DeepSpeed ZeRO-3", "Choose stage 2, or --fsdp full_shard"
    else:
        return
    raise InputError(
        f"{name} needs texts of at most {window} tokens, the encoder's window, and there is one of {longest:,}. "
        f"{way_out}; or cut them by --max_length {window}."
    )


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
    return whole.eval()
