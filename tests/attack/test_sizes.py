"""A configuration of somebody else asks for what its weights are not: one line, before memory or time is spent."""

import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from modeling_roberta_gru import RobertaGRUForSequenceClassification, trust
from modeling_roberta_gru.arguments import ModelArguments
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.training.architectures import ARCHITECTURES
from modeling_roberta_gru.training.loading import load_classifier
from modeling_roberta_gru.trust import check_checkpoint

from ..tiny import tiny_config
from .test_code import edit, ours  # noqa: F401 (a fixture)

WEIGHTS = "model.safetensors"
NONSENSE = [
    ("hidden_act", "gleu"),
    ("hidden_act", 7),
    ("hidden_act", {"a": 1}),
    ("dtype", "float8"),
    ("torch_dtype", 7),
    ("dtype", {"": "float32"}),
    ("attn_implementation", "mallory/kernel"),
    ("_attn_implementation", "nonsense"),
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    ("quantization_config", 7),
    ("num_hidden_layers", 100_000),
    ("num_gru_layers", 100_000),
    ("hidden_size", 10**12),
    ("hidden_size", 24),
    ("intermediate_size", 10**9),
    ("vocab_size", 10**10),
    ("max_position_embeddings", 10**10),
    ("type_vocab_size", 10**10),
    ("gru_hidden_size", 10**10),
    ("head_hidden_size", 10**10),
    ("hidden_size", -12),
    ("hidden_size", "wide"),
    ("num_attention_heads", 5),
    ("id2label", ["bad", "good"]),
    ("model_type", "elephant"),
    ("model_type", None),
    ("model_type", 7),
    ("transformers_weights", "adapter_model.bin"),
    ("transformers_weights", 7),
]


@pytest.fixture
def folder(ours, tmp_path) -> Path:  # noqa: F811
    return Path(shutil.copytree(ours, tmp_path / "model"))


@pytest.fixture
def unbuilt(monkeypatch) -> None:
    """Fail where weights are made room for."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a model was built")

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", refuse)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)


def refusal(folder: Path) -> str:
    """Return the one line with which a folder is refused, by every way of loading it."""
    with pytest.raises(InputError) as loaded:
        load_classifier(str(folder))
    with pytest.raises(InputError):
        ARCHITECTURES["roberta-gru"].load_tokenizer(ModelArguments(model_name_or_path=str(folder)), [])
    assert "\n" not in str(loaded.value)
    return str(loaded.value)


@pytest.mark.parametrize(("field", "value"), NONSENSE)
def test_nonsense_in_a_configuration_is_one_line_before_anything_is_built(field, value, folder, unbuilt) -> None:
    edit(folder / "config.json", **{field: value})
    assert str(folder / "config.json") in refusal(folder)


@pytest.mark.filterwarnings("ignore")
@given(
    field=st.sampled_from(sorted({name for name, _ in NONSENSE} | {"summary", "gru_bidirectional", "pad_token_id"})),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_field_holds_the_checkpoint_is_accepted_or_refused(field, value, folder) -> None:
    held = (folder / "config.json").read_text()
    try:
        edit(folder / "config.json", **{field: value})
        with suppress(InputError):
            check_checkpoint(str(folder))
    finally:
        (folder / "config.json").write_text(held)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b"7", b"{}", b'{"a":' * 400 + b"1" + b"}" * 400, b"[" * 100_000]
)
def test_what_is_no_configuration_is_one_line(content, folder, unbuilt) -> None:
    (folder / "config.json").write_bytes(content)
    refusal(folder)


def test_weights_of_other_sizes_are_one_line(folder, unbuilt) -> None:
    weights = load_file(folder / WEIGHTS)
    name = "roberta.embeddings.word_embeddings.weight"
    save_file({**weights, name: weights[name][:-1].clone()}, folder / WEIGHTS)
    assert name in refusal(folder)


def test_a_little_file_does_not_ask_for_a_large_model(folder, unbuilt) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({"head.out_proj.bias": weights["head.out_proj.bias"]}, folder / WEIGHTS)
    edit(folder / "config.json", vocab_size=10**8)
    refusal(folder)


def test_fresh_parts_may_be_twice_as_large_as_what_is_held_and_no_larger(folder, monkeypatch) -> None:
    monkeypatch.setattr(trust, "SLACK", 0)
    weights = load_file(folder / WEIGHTS)
    width = weights.pop("roberta.embeddings.word_embeddings.weight").shape[1]
    save_file(weights, folder / WEIGHTS)
    most = 2 * sum(tensor.numel() for tensor in weights.values()) // width
    edit(folder / "config.json", vocab_size=most)
    check_checkpoint(str(folder))
    edit(folder / "config.json", vocab_size=most + 1)
    with pytest.raises(InputError, match=f"asks for {(most + 1) * width:,} numbers"):
        check_checkpoint(str(folder))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def test_a_pickle_is_refused_unread(folder, unbuilt) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert "a pickle" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 64, b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"{" * 16])
def test_what_is_no_safetensors_file_is_one_line(content, folder, unbuilt) -> None:
    (folder / WEIGHTS).write_bytes(content)
    assert "safetensors" in refusal(folder)


@pytest.mark.parametrize("file", ["../other/model.safetensors", "/etc/hostname", "missing.safetensors", 7])
def test_an_index_leads_to_no_file_outside(file, folder, unbuilt) -> None:
    shutil.copytree(folder, folder.parent / "other")  # what the first file names is whole
    (folder / WEIGHTS).unlink()
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"head.out_proj.bias": file}}))
    assert ("`weight_map`" if file == 7 else "is missing, which") in refusal(folder)


def test_what_is_whole_is_accepted(folder, stand_in) -> None:
    check_checkpoint(str(folder))
    check_checkpoint(str(stand_in))  # a bare encoder, whose head is yet to come


def test_an_adapter_beside_the_weights_is_refused_unread(folder, unbuilt) -> None:
    """transformers would put it onto the model: from a pickle, by a pattern that may take years to match."""
    edit(folder / "adapter_config.json", base_model_name_or_path="mallory/base", target_modules="(.+)+#")
    assert "adapter_config.json" in refusal(folder)


def test_a_longest_text_that_is_no_number_is_one_line(folder) -> None:
    edit(folder / "tokenizer_config.json", model_max_length="long")
    with pytest.raises(InputError, match="`model_max_length` is 'long'"):
        load_classifier(str(folder))


def test_labels_may_be_called_as_fields_are(tmp_path):
    names = ["dtype", "hidden_act", "quantization_config", "num_layers", "auto_map", *map(str, range(80))]
    config = tiny_config(id2label=dict(enumerate(names)), label2id={name: row for row, name in enumerate(names)})
    RobertaGRUForSequenceClassification(config).save_pretrained(tmp_path)
    check_checkpoint(str(tmp_path))
