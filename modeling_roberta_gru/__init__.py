"""RoBERTa-GRU, and the recurrent baselines, as ordinary Hugging Face models.

Importing the package registers their classes with the Auto classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from .configuration_recurrent import RecurrentConfig
from .configuration_roberta_gru import RobertaGRUConfig
from .modeling_recurrent import RecurrentForSequenceClassification, RecurrentModel
from .modeling_roberta_gru import (
    RobertaGRUForSequenceClassification,
    RobertaGRUForTokenClassification,
    RobertaGRUModel,
)

__version__ = "0.1.0"

__all__ = [
    "RecurrentConfig",
    "RecurrentForSequenceClassification",
    "RecurrentModel",
    "RobertaGRUConfig",
    "RobertaGRUForSequenceClassification",
    "RobertaGRUForTokenClassification",
    "RobertaGRUModel",
]

for _config_class in (RobertaGRUConfig, RecurrentConfig):
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)
    # `register_for_auto_class` is what makes `save_pretrained` copy the two .py files beside the weights.
    _config_class.register_for_auto_class()
for _auto_class, _model_class in (
    (AutoModel, RobertaGRUModel),
    (AutoModelForSequenceClassification, RobertaGRUForSequenceClassification),
    (AutoModelForTokenClassification, RobertaGRUForTokenClassification),
    (AutoModel, RecurrentModel),
    (AutoModelForSequenceClassification, RecurrentForSequenceClassification),
):
    _auto_class.register(_model_class.config_class, _model_class, exist_ok=True)
    _model_class.register_for_auto_class(_auto_class.__name__)
