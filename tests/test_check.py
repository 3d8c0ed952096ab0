"""Is a folder a whole model? What others would stumble over is told before anything is pushed."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, RobertaConfig, T5Config
from transformers import RobertaForSequenceClassification as StockClassifier
from transformers import T5ForSequenceClassification as TiedClassifier

from modeling_roberta_gru import (
    RecurrentConfig,
    RecurrentForSequenceClassification,
    RobertaGRUForSequenceClassification,
    RobertaGRUModel,
)
from modeling_roberta_gru.hub.check import check_model

from .refusals import refused
from .tiny import TINY_ENCODER, tiny_config

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TINY_T5 = {"d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 1, "num_heads": 3}


@pytest.fixture(scope="module")
def tokenizer(stand_in):
    return AutoTokenizer.from_pretrained(stand_in)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokenizer):
    """Return a folder as a run leaves it."""
    torch.manual_seed(0)
    model = RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(tokenizer)))
    return save(model, tokenizer, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path):
    """Return a copy of it that a test may break."""
    return shutil.copytree(whole, tmp_path / "model")


def save(model: Any, tokenizer: Any, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = change(load_file(folder / WEIGHTS))
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def check_refuses(folder: Path, file: str, **names: Any) -> None:
    """Check a model, and expect one line that names this file of its folder."""
    with refused(file=str(folder / file), **names) as error:
        check_model(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("kind", ["roberta-gru", "recurrent", "transformer", "tied transformer"])
@pytest.mark.parametrize("max_shard_size", ["5GB", "5KB"])
def test_what_training_saves_is_whole_in_one_file_or_several(kind, max_shard_size, tokenizer, tmp_path):
    size = {"vocab_size": len(tokenizer)}
    model = {
        "roberta-gru": lambda: RobertaGRUForSequenceClassification(tiny_config(**size, summary="attention")),
        "recurrent": lambda: RecurrentForSequenceClassification(RecurrentConfig(**size, bidirectional=True)),
        "transformer": lambda: StockClassifier(RobertaConfig(**{**TINY_ENCODER, **size})),
        "tied transformer": lambda: TiedClassifier(T5Config(**TINY_T5, **size)),
    }[kind]()
    save(model, tokenizer, tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / INDEX).is_file() == (max_shard_size == "5KB")
    check_model(tmp_path)


def test_a_model_in_bfloat16_is_whole_too(tokenizer, tmp_path):
    model = RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(tokenizer))).to(torch.bfloat16)
    check_model(save(model, tokenizer, tmp_path))


def test_no_folder_or_no_config_is_said(folder):
    (folder / "config.json").unlink()
    check_refuses(folder, "config.json", match="is missing")
    check_refuses(folder / "elsewhere", "")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"{", {"match": "JSONDecodeError"}),
        (b"\xff\xfe", {"match": "UnicodeDecodeError"}),
        (b"[]", {"match": "JSON list"}),
        (b"{}", {"field": "model_type"}),
        (b'{"model_type": "elephant"}', {"match": "ValueError"}),
    ],
)
def test_a_config_that_is_none_is_named(content, names, folder):
    (folder / "config.json").write_bytes(content)
    check_refuses(folder, "config.json", **names)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", -12),
        ("hidden_size", "wide"),
        ("summary", "median"),
        ("hidden_dropout_prob", 1.5),
        ("vocab_size", None),
        ("id2label", ["bad", "good"]),
        ("hidden_act", "gleu"),
        ("gru_hidden_size", 10**12),
    ],
)
def test_a_config_edited_to_nonsense_is_named(field, value, folder):
    edit(folder / "config.json", **{field: value})
    check_refuses(folder, "config.json")


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "summary", "hidden_dropout_prob"])
def test_the_field_edited_to_nonsense_is_named(field, folder):
    edit(folder / "config.json", **{field: -5})
    check_refuses(folder, "config.json", match=f"`{field}`")


def test_code_that_auto_map_does_not_name_or_that_is_missing_is_named(folder):
    (folder / "modeling_roberta_gru.py").unlink()
    check_refuses(folder, "modeling_roberta_gru.py")
    edit(folder / "config.json", auto_map={})
    said = r"AutoConfig .*'configuration_roberta_gru\.RobertaGRUConfig'"
    check_refuses(folder, "config.json", field="auto_map", match=said)


class Bomb:
    """Go off where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def test_a_pickle_is_refused_unread_and_harmless_beside_the_weights(folder):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    check_model(folder)
    (folder / WEIGHTS).unlink()
    check_refuses(folder, "pytorch_model.bin")


def test_missing_weights_are_said(folder):
    (folder / WEIGHTS).unlink()
    check_refuses(folder, WEIGHTS)


@pytest.mark.parametrize("num_bytes", [0, -1])
def test_weights_cut_off_anywhere_are_named(num_bytes, folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:num_bytes])
    check_refuses(folder, WEIGHTS, match="SafetensorError")


def test_a_pointer_in_place_of_the_weights_is_named(folder):
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n")
    check_refuses(folder, WEIGHTS)


@pytest.fixture
def sharded(tokenizer, tmp_path):
    model = RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(tokenizer)))
    return save(model, tokenizer, tmp_path / "sharded", max_shard_size="5KB")


def test_a_shard_missing_or_cut_off_is_named(sharded):
    *_, last = sorted(sharded.glob("*.safetensors"))
    last.write_bytes(last.read_bytes()[:-1])
    check_refuses(sharded, last.name, match="not a complete")
    last.unlink()
    check_refuses(sharded, last.name, match="is missing")


def test_an_index_that_disagrees_with_its_shards_is_named(sharded):
    index = sharded / INDEX
    shards = json.loads(index.read_text())["weight_map"]
    first, last = min(shards.items(), key=lambda item: item[1]), max(shards.items(), key=lambda item: item[1])
    for name, wrong in (
        (first[0], {**shards, first[0]: last[1]}),
        ("head.elephant", {**shards, "head.elephant": last[1]}),
        (last[0], {name: shard for name, shard in shards.items() if name != last[0]}),
    ):
        edit(index, weight_map=wrong)
        check_refuses(sharded, INDEX, match=f"where {re.escape(name)} lies")
    for wrong in (None, {first[0]: 7}):
        edit(index, weight_map=wrong)
        check_refuses(sharded, INDEX, field="weight_map")
    (sharded.parent / first[1]).write_bytes((sharded / first[1]).read_bytes())
    edit(index, weight_map={**shards, first[0]: f"../{first[1]}"})
    check_refuses(sharded, f"../{first[1]}")


@pytest.mark.parametrize(
    ("change", "file", "name"),
    [
        (lambda weights: {"elephant": torch.ones(2)}, "", "roberta.embeddings.word_embeddings.weight"),
        (lambda weights: {**weights, "elephant": torch.ones(2)}, WEIGHTS, "elephant"),
        (lambda weights: {**weights, "head.out_proj.bias": torch.ones(3)}, WEIGHTS, "head.out_proj.bias"),
        (
            lambda weights: {name: tensor for name, tensor in weights.items() if name != "head.dense.weight"},
            "",
            "head.dense.weight",
        ),
    ],
)
def test_foreign_weights_are_named(change, file, name, folder):
    rewrite(folder, change)
    check_refuses(folder, file, match=f"^{re.escape(name)} ")


def test_weights_of_another_number_of_layers_are_foreign(folder):
    for layers, file, start in ((1, WEIGHTS, r"roberta\.encoder\.layer\.1"), (3, "", r"roberta\.encoder\.layer\.2")):
        edit(folder / "config.json", num_hidden_layers=layers)
        check_refuses(folder, file, match=rf"^{start}\.")


def test_a_model_without_a_head_is_no_classifier(tokenizer, tmp_path):
    save(RobertaGRUModel(tiny_config(vocab_size=len(tokenizer))), tokenizer, tmp_path)
    check_refuses(tmp_path, "", match=r"^head\.dense\.weight ")


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), torch.float32), (float("-inf"), torch.bfloat16)])
def test_one_value_that_is_no_number_is_found_and_its_tensor_named(value, dtype, folder):
    def poison(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
        weights["gru.left_to_right.0.weight_hh_l0"][-1, -1] = value
        return weights

    rewrite(folder, poison)
    check_refuses(folder, WEIGHTS, match=r"^gru\.left_to_right\.0\.weight_hh_l0 .* NaN or infinity")


def test_a_tokenizer_missing_broken_or_empty_is_named(folder):
    (folder / "tokenizer.json").rename(folder / "kept")
    # transformers 5 would load one that knows its special tokens only.
    check_refuses(folder, "tokenizer.json")
    (folder / "tokenizer.json").write_text("{")
    check_refuses(folder, "", match="JSONDecodeError")
    (folder / "kept").replace(folder / "tokenizer.json")
    check_model(folder)
    (folder / "tokenizer_config.json").unlink()
    check_refuses(folder, "tokenizer_config.json")


def test_a_tokenizer_larger_than_the_vocabulary_is_named(tokenizer, tmp_path):
    save(RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(tokenizer) - 1)), tokenizer, tmp_path)
    check_refuses(tmp_path, "tokenizer.json", match=f"ids up to {len(tokenizer) - 1} ")


# What loading itself says


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: {**weights, "elephant": torch.ones(2)}, "elephant is left over"),
        (lambda weights: {name: tensor for name, tensor in weights.items() if "gru" not in name}, "is missing"),
        (lambda weights: {name: tensor for name, tensor in weights.items() if "head" not in name}, "is missing"),
    ],
)
def test_foreign_weights_do_not_load_as_random_ones(change, said, folder):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=rf"^The weights are not those of this configuration: .*{said}\."):
        AutoModelForSequenceClassification.from_pretrained(folder)


@pytest.mark.parametrize(
    "fields", [{"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"summary": "attention", "attention_horizons": [0]}]
)
def test_a_config_edited_to_other_parts_does_not_load(fields, folder):
    edit(folder / "config.json", **fields)
    with pytest.raises(ValueError, match=r"^The weights are not those of this configuration: "):
        AutoModelForSequenceClassification.from_pretrained(folder)


def test_an_encoder_of_other_layers_does_not_warm_start(stand_in):
    with pytest.raises(ValueError, match=r"encoder\.layer\.2\.attention\.output\.LayerNorm\.bias is missing"):
        RobertaGRUForSequenceClassification.from_pretrained(stand_in, num_hidden_layers=3)
    # Fewer layers are a choice, and a fresh GRU and head are meant.
    model = RobertaGRUForSequenceClassification.from_pretrained(stand_in, num_hidden_layers=1)
    assert len(model.roberta.encoder.layer) == 1


def test_fresh_parts_on_a_checkpoint_of_our_own_are_to_be_had_where_they_are_meant(folder):
    _, report = RobertaGRUForSequenceClassification.from_pretrained(
        folder, num_labels=3, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {key[0] for key in report["mismatched_keys"]} == {"head.out_proj.weight", "head.out_proj.bias"}
    edit(folder / "config.json", architectures=None, num_gru_layers=2)
    _, report = RobertaGRUForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert {name.rpartition(".")[0] for name in report["missing_keys"]} == {"gru.left_to_right.1"}
