"""RoBERTa-GRU as an ordinary Hugging Face model. Importing the package registers its classes with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from .configuration_roberta_gru import RobertaGRUConfig
from .modeling_roberta_gru import (
    RobertaGRUForSequenceClassification,
    RobertaGRUForTokenClassification,
    RobertaGRUModel,
)

__version__ = "0.1.0"

__all__ = [
    "RobertaGRUConfig",
    "RobertaGRUForSequenceClassification",
    "RobertaGRUForTokenClassification",
    "RobertaGRUModel",
]

AutoConfig.register(RobertaGRUConfig.model_type, RobertaGRUConfig, exist_ok=True)
# `register_for_auto_class` is what makes `save_pretrained` copy the two .py files beside the weights.
RobertaGRUConfig.register_for_auto_class()
for _auto_class, _model_class in (
    (AutoModel, RobertaGRUModel),
    (AutoModelForSequenceClassification, RobertaGRUForSequenceClassification),
    (AutoModelForTokenClassification, RobertaGRUForTokenClassification),
):
    _auto_class.register(RobertaGRUConfig, _model_class, exist_ok=True)
    _model_class.register_for_auto_class(_auto_class.__name__)
