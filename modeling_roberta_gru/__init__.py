"""RoBERTa-GRU, and the recurrent baselines, as ordinary Hugging Face models.

Importing the package registers their classes with transformers' Auto classes: at once where transformers has been
imported, else as soon as it is. Names are imported when they are used, so that a usage error need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registration import register_when_imported

if TYPE_CHECKING:
    from .api import evaluate, explain, publish, train
    from .configuration_recurrent import RecurrentConfig
    from .configuration_roberta_gru import RobertaGRUConfig
    from .inference.batch_scorer import BatchScorer
    from .inference.scorer import Scorer
    from .modeling_recurrent import RecurrentForSequenceClassification, RecurrentModel
    from .modeling_roberta_gru import (
        RobertaGRUForSequenceClassification,
        RobertaGRUForTokenClassification,
        RobertaGRUModel,
    )
    from .training.arguments import RobertaGRUTrainingArguments
    from .training.trainer import RobertaGRUTrainer

__version__ = "0.1.0"

_MODULES = {
    "BatchScorer": "inference.batch_scorer",
    "RecurrentConfig": "configuration_recurrent",
    "RecurrentForSequenceClassification": "modeling_recurrent",
    "RecurrentModel": "modeling_recurrent",
    "RobertaGRUConfig": "configuration_roberta_gru",
    "RobertaGRUForSequenceClassification": "modeling_roberta_gru",
    "RobertaGRUForTokenClassification": "modeling_roberta_gru",
    "RobertaGRUModel": "modeling_roberta_gru",
    "RobertaGRUTrainer": "training.trainer",
    "RobertaGRUTrainingArguments": "training.arguments",
    "Scorer": "inference.scorer",
    "evaluate": "api",
    "explain": "api",
    "publish": "api",
    "train": "api",
}

__all__ = [
    "BatchScorer",
    "RecurrentConfig",
    "RecurrentForSequenceClassification",
    "RecurrentModel",
    "RobertaGRUConfig",
    "RobertaGRUForSequenceClassification",
    "RobertaGRUForTokenClassification",
    "RobertaGRUModel",
    "RobertaGRUTrainer",
    "RobertaGRUTrainingArguments",
    "Scorer",
    "evaluate",
    "explain",
    "publish",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
