"""RoBERTa-GRU in transformers' own common tests; tests/test_common_suite.py copies it there and runs it."""

import json
import os
import unittest

import torch
from transformers.models.auto import modeling_auto

from modeling_roberta_gru import (
    RobertaGRUConfig,
    RobertaGRUForSequenceClassification,
    RobertaGRUForTokenClassification,
    RobertaGRUModel,
)

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, ids_tensor

NUM_DOCUMENTS, NUM_TOKENS = 5, 7

# By these the common tests know which classes take labels, and of what shape.
modeling_auto.MODEL_MAPPING_NAMES["roberta-gru"] = RobertaGRUModel.__name__
modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["roberta-gru"] = (
    RobertaGRUForSequenceClassification.__name__
)
modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES["roberta-gru"] = RobertaGRUForTokenClassification.__name__


class RobertaGRUModelTester:
    """Give the common tests a small model and a padded batch.

    The padding is on the right, where it leaves hidden states as the encoder made them: of documents that are moved,
    they are copies, which get no gradient (`test_retain_grad_hidden_states_attentions`).
    """

    batch_size, seq_length, is_training = NUM_DOCUMENTS, NUM_TOKENS, True
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4

    def __init__(self, parent: unittest.TestCase, fields: dict):
        self.parent, self.fields = parent, fields

    def get_config(self) -> RobertaGRUConfig:
        return RobertaGRUConfig(
            vocab_size=99,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            max_position_embeddings=40,
            type_vocab_size=2,
            gru_hidden_size=8,
            head_hidden_size=10,
            **self.fields,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[RobertaGRUConfig, dict[str, torch.Tensor]]:
        lengths = torch.randint(1, NUM_TOKENS + 1, (NUM_DOCUMENTS, 1))
        lengths[0] = NUM_TOKENS
        inputs = {
            "input_ids": ids_tensor([NUM_DOCUMENTS, NUM_TOKENS], 99),
            "token_type_ids": ids_tensor([NUM_DOCUMENTS, NUM_TOKENS], 2),
            "attention_mask": (torch.arange(NUM_TOKENS) < lengths).long(),
        }
        return self.get_config(), inputs


class CommonTests(ModelTesterMixin):
    all_model_classes = (RobertaGRUModel, RobertaGRUForSequenceClassification, RobertaGRUForTokenClassification)
    test_can_init_all_missing_weights_before_2023 = True  # else the year of a file's copyright may skip the test
    fields: dict = {}

    def setUp(self):
        self.model_tester = RobertaGRUModelTester(self, self.fields)
        self.config_tester = ConfigTester(self, config_class=RobertaGRUConfig, hidden_size=37)

    def test_config(self):
        self.config_tester.run_common_tests()


for fields in json.loads(os.environ["COMMON_TESTS_OF"]):
    name = "Test" + "".join(str(value).title() for value in fields.values())
    globals()[name] = type(name, (CommonTests, unittest.TestCase), {"fields": fields})
