"""Train a LoRA adapter instead of the encoder's weights (Hu et al. 2021, LoRA: Low-Rank Adaptation), by PEFT.

The encoder stays as it was loaded; small matrices are trained beside its linear layers, and GRU, summary and head
wholly. What is written is the adapter alone. `merge_and_unload` of the adapted model gives the model as any other.
"""

import shutil
import warnings
from collections.abc import Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save

from ..configuration_roberta_gru import RobertaGRUConfig
from ..errors import InputError, unknown_name
from ..files import carried, write_text
from ..markdown import cell

ALL_LINEAR = "all-linear"
POOLER = "pooler"
"""A part of some encoders that some checkpoints lack, and that is trained wherever the head is."""

README = """\
---
library_name: peft
license: {license}
pipeline_tag: text-classification
tags: [lora]{metadata}
---

# LoRA adapter for {base}

Rank {rank}, alpha {alpha:g}, beside the encoder's {targets}; trained in full: {modules}. Labels: {labels}.

To load it with transformers, torch and peft alone{trust}:

```python
{code}
```

`model.merge_and_unload()` makes it an ordinary model, which pipelines take. `from_pretrained` reports weights that are
newly initialized: the adapter then replaces them. Auto classes that are given the adapter's name alone do not build
this model.
"""

CODE = """\
from peft import PeftModel
from transformers import AutoTokenizer
from transformers.dynamic_module_utils import get_class_from_dynamic_module

adapter = "."  # this folder, or its id on the Hub
Classifier = get_class_from_dynamic_module("{module}.{name}", adapter)
config = Classifier.config_class.from_pretrained(adapter)
"""

STOCK_CODE = """\
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification as Classifier, AutoTokenizer

adapter = "."  # this folder, or its id on the Hub
config = AutoConfig.from_pretrained(adapter)
"""

LOADING_CODE = """\
base = Classifier.from_pretrained({base!r}{revision}, config=config, ignore_mismatched_sizes=True)
model = PeftModel.from_pretrained(base, adapter)
tokenizer = AutoTokenizer.from_pretrained(adapter{trust})"""


def add_lora(
    model: PreTrainedModel,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
    revision: str | None = None,
) -> Any:
    """Put a fresh adapter into a model, in place: it changes nothing yet; of the encoder, only it is trained.

    Args:
        model: a classifier that was loaded from a checkpoint.
        rank: the rank of the update to each linear layer.
        alpha: the update is multiplied by alpha / rank. Unset: the rank.
        dropout: on the update's input.
        target_modules: ends of names of the encoder's linear layers, or "all-linear" alone. Unset: those that PEFT
            usually takes, which for RoBERTa are query and value, as in the paper.
        revision: of the checkpoint, to be written down.

    Returns:
        A `PeftModel`.

    Raises:
        InputError: if peft is not installed, the model comes from no checkpoint, or a target is not in its encoder.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise InputError("--lora needs peft: pip install peft.") from error
    if not model.name_or_path:
        raise InputError(
            "--lora needs --model_name_or_path: an adapter is useless without the encoder that it was trained on, "
            "and random weights are saved nowhere."
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=_target_modules(model, target_modules),
        modules_to_save=whole_modules(model),
        # No task type: it would have AutoPeftModel build a stock head around the adapter.
    )
    with warnings.catch_warnings():
        # TODO: drop when peft asks by the new name, is_activation_checkpointing (see
        # https://github.com/huggingface/peft/pull/2817).
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = get_peft_model(model, config, revision=revision)
    # Else each checkpoint asks the Hub whether the vocabulary is still the encoder's, and it is.
    adapted.save_pretrained = partial(adapted.save_pretrained, save_embedding_layers=False)
    return adapted


def _target_modules(model: PreTrainedModel, wanted: Sequence[str] | None) -> list[str]:
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    kind = model.config.model_type
    linear = [name for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)]
    known = sorted({name.rpartition(".")[2] for name in linear})
    if wanted is None:
        wanted = USUAL.get("roberta" if kind == RobertaGRUConfig.model_type else kind)
        if wanted is None:
            raise InputError(
                f"--lora: peft has no usual layers for a {kind}. Name some by --lora_target_modules: {ALL_LINEAR}, or "
                f"any of {', '.join(known)}."
            )
    if list(wanted) == [ALL_LINEAR]:
        return known
    for target in wanted:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            raise unknown_name("linear layer of the encoder in --lora_target_modules", target, [*known, ALL_LINEAR])
    return list(wanted)


def whole_modules(model: PreTrainedModel) -> list[str]:
    """Name what is trained and saved wholly: all that has weights beside the encoder, and an encoder's pooler."""
    parts = [(name, part) for name, part in model.named_children() if name != model.base_model_prefix]
    # A fresh pooler must be trained, and found again in the adapter.
    parts += [(name, part) for name, part in model.base_model.named_children() if name == POOLER]
    return [name for name, part in parts if any(True for _ in part.parameters())]


def base_of(model: Any) -> PreTrainedModel:
    """Return the model that an adapter was put into, adapter and all; any other model as it is.

    Its parameters are named as those of a model without an adapter are, a little longer at the end.
    """
    return model.get_base_model() if is_adapted(model) else model


def is_adapted(model: Any) -> bool:
    return hasattr(model, "get_base_model")


def count_parameters(model: Any) -> tuple[int, int]:
    """Return the number of a model's parameters, as it is without or after an adapter, and of those that train."""
    named = list(model.named_parameters())
    aside = (".lora_", ".original_module.")  # what merging does away with
    whole = sum(parameter.numel() for name, parameter in named if not any(part in name for part in aside))
    return whole, sum(parameter.numel() for _, parameter in named if parameter.requires_grad)


def write_adapter(adapted: Any, license_name: str, folder: Path) -> None:
    """Write an adapter: its weights and configuration, the model's configuration and code, and how to load it.

    The tokenizer is to be saved there, too.

    Args:
        adapted: what [`add_lora`] returned.
        license_name: the adapter's licence, as the Hub calls it.
        folder: made if need be.
    """
    adapted.save_pretrained(folder)
    config = copy(adapted.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(folder)  # again, without the name of a class that strangers cannot import
    model = adapted.get_base_model()
    model_config = copy(model.config)
    model_config.architectures = None  # nor do its weights lie here: GRU and head may start fresh
    model_config.save_pretrained(folder)
    if model._auto_class is not None:
        custom_object_save(model, folder, config=model.config)
        shutil.copy(carried("LICENSE"), folder)
    write_text(folder / "README.md", _readme(model, config, license_name))


def _readme(model: PreTrainedModel, config: Any, license_name: str) -> str:
    base, revision = config.base_model_name_or_path, config.revision
    kind = type(model)
    has_code = model._auto_class is not None
    code = CODE.format(module=kind.__module__.rpartition(".")[2], name=kind.__name__) if has_code else STOCK_CODE
    code += LOADING_CODE.format(
        base=base,
        revision=f", revision={revision!r}" if revision else "",
        trust=", trust_remote_code=True" if has_code else "",  # of the configuration, which is read first
    )
    names = list(model.config.id2label.values())
    return README.format(
        base=base,
        license=license_name,
        metadata="" if Path(base).exists() else f"\nbase_model: {base}",
        rank=config.r,
        alpha=config.lora_alpha,
        targets=", ".join(sorted(config.target_modules)),
        modules=", ".join(config.modules_to_save),
        labels=", ".join(map(cell, names)) if len(names) <= 20 else str(len(names)),
        trust=", running the code that lies in it" if has_code else "",
        code=code,
    )
