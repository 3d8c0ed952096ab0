"""The configuration: its defaults, what it refuses, and what it lets pass."""

import json

import pytest
from transformers import AutoConfig

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification

from .tiny import tiny_config


def test_every_field_survives_saving(tmp_path):
    fields = {
        "gru_hidden_size": 5,
        "num_gru_layers": 3,
        "gru_bidirectional": True,
        "gru_dropout": 0.2,
        "summary": "attention",
        "head_hidden_size": 0,
        "head_dropout": 0.3,
        "calibration_temperature": 1.7,
        "class_weights": [1.0, 2.0, 3.0],
        "label_smoothing": 0.1,
        "id2label": {0: "a", 1: "b", 2: "c"},
        "label2id": {"a": 0, "b": 1, "c": 2},
        "problem_type": "single_label_classification",
    }
    tiny_config(**fields).save_pretrained(tmp_path)
    for config in (RobertaGRUConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        for name, value in fields.items():
            assert getattr(config, name) == value, name
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"].keys() == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForSequenceClassification",
        "AutoModelForTokenClassification",
    }


PROBLEM_TYPES = "unset, or one of single_label_classification, multi_label_classification, regression"


def is_refused_by_the_library() -> bool:
    """Tell whether this transformers checks a problem type's value before us, as 5.12 does."""
    try:
        RobertaGRUConfig(problem_type="guessing")
    except Exception as error:
        return "must be" not in str(error)
    return False


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("gru_hidden_size", 0, "a whole number of at least 1"),
        ("gru_hidden_size", 2.5, "a whole number of at least 1"),
        ("num_gru_layers", -1, "a whole number of at least 1"),
        ("head_hidden_size", -1, "a whole number of at least 0"),
        ("gru_dropout", 1.0, "a number from 0 to below 1"),
        ("head_dropout", "much", "a number from 0 to below 1"),
        ("label_smoothing", float("nan"), "a number from 0 to below 1"),
        ("summary", "median", "one of last, mean, max, attention"),
        ("gru_bidirectional", "yes", "true or false"),
        ("calibration_temperature", 0, "from 0.01 to 100"),
        ("calibration_temperature", 1e-300, "from 0.01 to 100"),
        ("class_weights", [1.0], "unset, or 2 numbers of at least 0, one per label"),
        ("class_weights", [1.0, -1.0], "unset, or 2 numbers of at least 0, one per label"),
        ("class_weights", 3, "unset, or 2 numbers of at least 0, one per label"),
        pytest.param(
            *("problem_type", "guessing", PROBLEM_TYPES),
            marks=pytest.mark.skipif(
                is_refused_by_the_library(), reason="this transformers refuses it in its own words"
            ),
        ),
        ("id2label", {0: "bad", 2: "good"}, "one name for each label from 0 to 1"),
        ("vocab_size", 0, "a whole number of at least 1"),
        ("hidden_size", -12, "a whole number of at least 1"),
        ("num_hidden_layers", 0, "a whole number of at least 1"),
        ("num_attention_heads", 0, "a whole number of at least 1"),
        ("intermediate_size", -1, "a whole number of at least 1"),
        ("type_vocab_size", 0, "a whole number of at least 1"),
        ("hidden_dropout_prob", 1.5, "a number from 0 to below 1"),
        ("hidden_dropout_prob", float("nan"), "a number from 0 to below 1"),
        ("attention_probs_dropout_prob", -0.1, "a number from 0 to below 1"),
        ("layer_norm_eps", 0.0, "above 0"),
        ("initializer_range", float("inf"), "a number of at least 0"),
        ("pad_token_id", -1, "a whole number from 0 to 60"),
        ("pad_token_id", 61, "a whole number from 0 to 60"),
        ("pad_token_id", None, "a whole number from 0 to 60"),
        ("is_decoder", True, "false: the encoder reads both ways"),
        ("windows_per_chunk", 0, "a whole number of at least 1"),
        ("window_overlap", -1, "unset, or a whole number from 0 to 17, three below the encoder's window"),
        ("window_overlap", 18, "unset, or a whole number from 0 to 17, three below the encoder's window"),
        ("window_overlap", True, "unset, or a whole number from 0 to 17, three below the encoder's window"),
        ("max_position_embeddings", 2, "above `pad_token_id` + 3"),
    ],
)
def test_impossible_values_are_refused_by_name_also_when_set_later(name, value, allowed):
    with pytest.raises(ValueError, match="must be") as error:
        tiny_config(**{name: value})
    assert str(error.value) == f"`{name}` is {value!r}; it must be {allowed}."
    config = tiny_config()
    setattr(config, name, value)
    with pytest.raises(ValueError, match="must be") as error:
        RobertaGRUForSequenceClassification(config)
    assert str(error.value) == f"`{name}` is {value!r}; it must be {allowed}."


def test_sizes_that_do_not_fit_each_other_are_refused_where_a_model_is_built():
    config = RobertaGRUConfig(hidden_size=37)
    with pytest.raises(ValueError, match="`num_attention_heads` is 12; it must be a divisor of `hidden_size`, 37"):
        RobertaGRUForSequenceClassification(config)


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"])
@pytest.mark.parametrize("value", [12.5, "12", None, True])
def test_a_size_that_is_no_whole_number_is_refused_by_name(name, value):
    # By this configuration under transformers 4.57, by RobertaConfig's own types before it under 5.
    with pytest.raises(Exception, match=rf"['`]{name}['`]"):
        tiny_config(**{name: value})


def test_a_problem_type_that_is_none_is_refused_by_name():
    # By this configuration, or by the types of PreTrainedConfig before it, as in transformers 5.12.
    with pytest.raises(Exception, match=r"['`]problem_type['`]"):
        tiny_config(problem_type="guessing")


def test_no_labels_are_refused():
    with pytest.raises(ValueError, match="`num_labels` is 0; it must be a whole number of at least 1"):
        tiny_config(num_labels=0)


@pytest.mark.parametrize("name", ["gru_hiden_size", "gru_hidden_sizes", "sumary", "class_weight", "head_dropuot"])
def test_a_misspelt_field_is_refused_with_the_right_one(name):
    with pytest.raises(ValueError, match=f"Unknown configuration field `{name}`. Did you mean `"):
        tiny_config(**{name: 1})


def test_a_newer_versions_field_passes():
    assert tiny_config(memory_of_elephants=3).memory_of_elephants == 3


def test_another_architecture_is_refused_and_a_relative_is_not(tmp_path):
    for model_type in ("roberta", "xlm-roberta", "camembert"):
        assert RobertaGRUConfig(model_type=model_type).model_type == "roberta-gru"
    with pytest.raises(ValueError, match="`model_type` is 'bert': RoBERTa-GRU starts from its own checkpoints"):
        RobertaGRUConfig(model_type="bert")


def test_windows_hold_what_they_are_said_to_hold():
    config = tiny_config()
    assert config.encoder_window == 20
    assert [tiny_config(window_overlap=overlap).window_stride for overlap in (None, 0, 1, 17)] == [14, 18, 17, 1]
    assert RobertaGRUConfig().window_stride == 512 - 2 - 64
    assert [config.window_capacity(windows) for windows in (1, 2, 3)] == [20, 34, 48]
