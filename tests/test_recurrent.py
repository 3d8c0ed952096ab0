"""The recurrent baselines against their definition, and the properties that hold for every caller."""

import inspect
import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from modeling_roberta_gru import (
    RecurrentConfig,
    RecurrentForSequenceClassification,
    RecurrentModel,
    configuration_recurrent,
    configuration_roberta_gru,
    modeling_recurrent,
    modeling_roberta_gru,
)

from .clean_process import without_the_package
from .tiny import batch, gradients

FLOAT64 = {"rtol": 1e-10, "atol": 1e-10}
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
# bfloat16 keeps 8 bits, 2^-8 = 0.004 a rounding; embedding and linear layer add up a few of them.
BFLOAT16 = {"rtol": 0.05, "atol": 0.05}

SYSTEMS = {
    "rnn": {"cell": "rnn"},
    "lstm": {"cell": "lstm"},
    "bilstm": {"cell": "lstm", "bidirectional": True},
    "gru": {"cell": "gru"},
    "bigru": {"cell": "gru", "bidirectional": True},
}
EVERY_SYSTEM = [{**fields, "num_layers": num_layers} for fields in SYSTEMS.values() for num_layers in (1, 2)]
every_system = pytest.mark.parametrize("fields", EVERY_SYSTEM, ids=lambda fields: " ".join(map(str, fields.values())))
SHIPPED = {"configuration_recurrent.py", "modeling_recurrent.py"}


def tiny_config(**fields: Any) -> RecurrentConfig:
    return RecurrentConfig(**{"vocab_size": 61, "embedding_size": 6, "hidden_size": 7, **fields})


def classifier(**fields: Any) -> RecurrentForSequenceClassification:
    """Return a classifier whose biases and padding embedding are not zero, as after training on given vectors."""
    model = RecurrentForSequenceClassification(tiny_config(num_labels=3, **fields)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or "embeddings" in name:
                parameter.normal_()
    return model


def documents(*lengths: int) -> list[torch.Tensor]:
    return [torch.randint(1, 61, (n,)) for n in lengths]


# The definition: one document, one step at a time


def step(
    cell: str, parameters: dict[str, torch.Tensor], x: torch.Tensor, h: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take one step (PyTorch's equations): input x (E,), state h (H,) and, of an LSTM, memory c (H,)."""
    inputs = parameters["weight_ih_l0"] @ x + parameters["bias_ih_l0"]
    recurrent = parameters["weight_hh_l0"] @ h + parameters["bias_hh_l0"]
    if cell == "rnn":
        return torch.tanh(inputs + recurrent), c
    if cell == "lstm":
        i, f, g, o = (inputs + recurrent).chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (x_r, x_z, x_n), (h_r, h_z, h_n) = inputs.chunk(3), recurrent.chunk(3)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.tanh(x_n + r * h_n) + z * h, c


def reference_states(
    model: RecurrentForSequenceClassification, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a document's states (n, K·H) and the final one of each direction (K·H,)."""
    config, n = model.config, len(tokens)
    states = model.recurrent.embeddings.weight[tokens]
    for layer in range(config.num_layers):
        halves, finals = [], []
        for name, times in (("left_to_right", range(n)), ("right_to_left", reversed(range(n)))):
            if name == "right_to_left" and not config.bidirectional:
                continue
            parameters = dict(getattr(model.recurrent.recurrence, name)[layer].named_parameters())
            h = c = states.new_zeros(config.hidden_size)
            half = [h] * n
            for t in times:
                h, c = step(config.cell, parameters, states[t], h, c)
                half[t] = h
            halves.append(torch.stack(half))
            finals.append(h)
        states = torch.cat(halves, dim=1)
    return states, torch.cat(finals)


def reference_logits(model: RecurrentForSequenceClassification, tokens: torch.Tensor) -> torch.Tensor:
    logits = model.classifier.weight @ reference_states(model, tokens)[1] + model.classifier.bias
    return logits / model.config.calibration_temperature


@pytest.mark.parametrize(
    ("fields", "side"), [*zip(EVERY_SYSTEM, ("left", "right", "scattered") * 4, strict=False)], ids=str
)
def test_values_and_gradients_equal_the_reference(fields, side):
    model = classifier(calibration_temperature=1.7, **fields).double()
    ids = documents(1, 9, 4, 20)
    weights = torch.randn(4, 3, dtype=torch.float64)
    expected = torch.stack([reference_logits(model, row) for row in ids])
    expected_gradients = gradients(model, (expected * weights).sum())
    logits = model(**batch(ids, side, extra=3)).logits
    torch.testing.assert_close(logits, expected, **FLOAT64)
    found = gradients(model, (logits * weights).sum())
    assert found.keys() == expected_gradients.keys() == dict(model.named_parameters()).keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected_gradients[name], **FLOAT64, msg=name)


@every_system
def test_states_come_in_the_inputs_arrangement_and_the_final_ones_beside_them(fields):
    model = classifier(**fields).double()
    ids = documents(1, 6, 11)
    inputs = batch(ids, side="scattered", extra=4)
    outputs = model.recurrent(**inputs)
    for row, tokens in enumerate(ids):
        states, final = reference_states(model, tokens)
        real = inputs["attention_mask"][row] == 1
        torch.testing.assert_close(outputs.last_hidden_state[row, real], states, **FLOAT64)
        assert not outputs.last_hidden_state[row, ~real].any()
        torch.testing.assert_close(outputs.pooler_output[row], final, **FLOAT64)


@every_system
def test_neighbours_and_row_order_do_not_change_logits(fields):
    model = classifier(**fields).double()
    ids = documents(5, 20, 1, 11)
    inputs = batch(ids)
    logits = model(**inputs).logits
    # Without a mask all tokens are real.
    torch.testing.assert_close(torch.cat([model(row[None]).logits for row in ids]), logits, **FLOAT64)
    order = torch.tensor([2, 0, 3, 1])
    permuted = model(**{name: tensor[order] for name, tensor in inputs.items()}).logits
    torch.testing.assert_close(permuted, logits[order], **FLOAT64)


@every_system
def test_poisoned_padding_reaches_neither_logits_nor_gradients(fields):
    model = classifier(**fields)
    inputs = batch(documents(4, 9), side="scattered", extra=3)
    mask = inputs["attention_mask"]
    expected = model(**inputs).logits
    out_of_vocabulary = inputs["input_ids"].masked_fill(mask == 0, -100)
    torch.testing.assert_close(model(input_ids=out_of_vocabulary, attention_mask=mask).logits, expected, **FLOAT32)
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    poisoned = embeds.masked_fill(mask[..., None] == 0, math.nan).requires_grad_()
    logits = model(inputs_embeds=poisoned, attention_mask=mask).logits
    torch.testing.assert_close(logits, expected, **FLOAT32)
    assert all(gradient.isfinite().all() for gradient in gradients(model, logits.sum()).values())
    assert poisoned.grad.isfinite().all()


def test_a_real_token_with_the_padding_id_counts():
    model = classifier(cell="lstm").double()
    tokens = torch.tensor([5, 0, 9, 0])  # 0 is the padding id
    torch.testing.assert_close(model(tokens[None]).logits[0], reference_logits(model, tokens), **FLOAT64)
    assert not torch.allclose(model(tokens[None]).logits, model(tokens[[0, 2]][None]).logits)
    assert not gradients(model, model(tokens[None]).logits.sum())["recurrent.embeddings.weight"][0].any()


@pytest.mark.parametrize("cell", configuration_recurrent.CELLS)
def test_dropout_acts_after_the_embedding_between_layers_and_before_the_linear_layer(cell):
    model = classifier(cell=cell, bidirectional=True, num_layers=2, dropout=0.5)
    inputs = batch(documents(9, 5))
    expected = model(**inputs).logits
    for dropout in (model.recurrent.dropout, model.recurrent.recurrence.dropout, model.dropout):
        dropout.train()
        assert not torch.allclose(model(**inputs).logits, expected)
        dropout.eval()
    single = classifier(cell=cell, dropout=0.5)
    expected = single(**inputs).logits
    single.recurrent.recurrence.train()
    assert torch.equal(single(**inputs).logits, expected)


@pytest.mark.parametrize("cell", configuration_recurrent.CELLS)
def test_the_recurrence_keeps_float32_on_the_cpu(cell):
    model = classifier(cell=cell, bidirectional=True, num_layers=2)
    inputs = batch(documents(5, 20))
    expected = model(**inputs).logits
    states = model.recurrent(**inputs).last_hidden_state
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.recurrent(**inputs).last_hidden_state, states)
    model.to(torch.bfloat16)
    outputs = model(**inputs, labels=torch.tensor([0, 1]))
    assert outputs.logits.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.logits.float(), expected, **BFLOAT16)
    assert {gradient.dtype for gradient in gradients(model, outputs.loss).values()} == {torch.bfloat16}
    # Rounded once, at the end.
    rounded_states = model.recurrent(**inputs).last_hidden_state
    assert torch.equal(rounded_states, model.float().recurrent(**inputs).last_hidden_state.to(torch.bfloat16))


def test_a_tuple_holds_what_the_output_holds():
    model = classifier(return_dict=False)
    inputs = batch(documents(5, 9))
    labels = torch.tensor([0, 2])
    outputs = model(**inputs, labels=labels, return_dict=True)
    loss, logits = model(**inputs, labels=labels)
    assert torch.equal(loss, outputs.loss)
    assert torch.equal(logits, outputs.logits)


def test_a_resized_vocabulary_keeps_the_old_logits():
    model = classifier()
    inputs = batch(documents(5, 9))
    expected = model(**inputs).logits
    model.resize_token_embeddings(70, mean_resizing=False)
    assert model.config.vocab_size == 70
    assert torch.equal(model(**inputs).logits, expected)


# Losses


@pytest.mark.parametrize("fields", SYSTEMS.values(), ids=SYSTEMS)
def test_initial_loss_is_the_logarithm_of_the_number_of_labels(fields):
    model = RecurrentForSequenceClassification(RecurrentConfig(num_labels=4, **fields))
    # Short documents: the RNN's orthogonal weights add up what it reads, and its first logits grow with the length.
    loss = model(torch.randint(1, 5000, (64, 8)), labels=torch.arange(64) % 4).loss
    assert abs(loss.item() - math.log(4)) < 0.1


@every_system
def test_every_parameter_gets_a_gradient(fields):
    model = RecurrentForSequenceClassification(tiny_config(num_labels=3, **fields))
    found = gradients(model, model(**batch(documents(20, 15, 9)), labels=torch.tensor([0, 1, 2])).loss)
    assert {name for name, gradient in found.items() if gradient.any()} == dict(model.named_parameters()).keys()


PROBLEMS = {
    "single_label_classification": torch.arange(16) % 3,
    "multi_label_classification": (torch.arange(48).reshape(16, 3) % 5 < 2).float(),
    "regression": torch.arange(48).reshape(16, 3).sin(),
}


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_parts_of_a_batch_add_up_to_the_whole(problem_type):
    labels = PROBLEMS[problem_type]
    model = classifier(problem_type=problem_type, class_weights=[0.5, 1.0, 3.0], bidirectional=True).double().train()
    ids = documents(*range(1, 17))
    whole = model(**batch(ids), labels=labels).loss
    parts = [
        model(**batch(ids[n : n + 4]), labels=labels[n : n + 4], num_items_in_batch=labels.numel()).loss
        for n in range(0, 16, 4)
    ]
    torch.testing.assert_close(sum(parts), whole, **FLOAT64)
    expected = gradients(model, whole)
    for name, gradient in gradients(model, sum(parts)).items():
        torch.testing.assert_close(gradient, expected[name], **FLOAT64, msg=name)


@pytest.mark.parametrize(
    ("original", "copy"),
    [
        (modeling_roberta_gru.classification_loss, modeling_recurrent.classification_loss),
        (modeling_roberta_gru._problem_type, modeling_recurrent._problem_type),
        (modeling_roberta_gru.RobertaGRUPreTrainedModel._calibrate, RecurrentForSequenceClassification._calibrate),
        (configuration_roberta_gru.RobertaGRUConfig._check_labels, RecurrentConfig._check_labels),
        (modeling_roberta_gru._take_columns, modeling_recurrent._take_columns),
        (modeling_roberta_gru._is_loaded, modeling_recurrent._is_loaded),
        (configuration_roberta_gru._require, configuration_recurrent._require),
        (configuration_roberta_gru._is_whole, configuration_recurrent._is_whole),
        (configuration_roberta_gru._is_number, configuration_recurrent._is_number),
        (configuration_roberta_gru._is_near, configuration_recurrent._is_near),
    ],
    ids=lambda function: function.__name__,
)
def test_what_is_copied_from_roberta_gru_is_equal(original, copy):
    assert inspect.getsource(copy) == inspect.getsource(original)
    assert modeling_recurrent.IGNORED_LABEL == modeling_roberta_gru.IGNORED_LABEL


def test_calibration_divides_single_label_logits_in_eval_mode_only():
    model = classifier()
    inputs = batch(documents(5, 9))
    raw = model(**inputs).logits
    model.config.calibration_temperature = 2.0
    torch.testing.assert_close(model(**inputs).logits, raw / 2)
    model.config.problem_type = "multi_label_classification"
    torch.testing.assert_close(model(**inputs).logits, raw)
    model.config.problem_type = None
    assert model.eval().config.calibration_temperature == 2.0
    torch.testing.assert_close(model.train()(**inputs).logits, raw)
    assert model.config.calibration_temperature == 1.0
    torch.testing.assert_close(model.eval()(**inputs).logits, raw)


def test_forward_leaves_the_configuration_alone():
    for labels in PROBLEMS.values():
        model = classifier()
        before = model.config.to_dict()
        model(**batch(documents(*[5] * 16)), labels=labels).loss.backward()
        assert model.config.to_dict() == before


# Initialisation and loading


@every_system
def test_embeddings_and_gates_start_as_designed(fields):
    model = RecurrentModel(RecurrentConfig(pad_token_id=2, **fields))
    assert [row for row, embedding in enumerate(model.embeddings.weight) if not embedding.any()] == [2]
    assert abs(model.embeddings.weight.std().item() - 0.1) < 0.001
    for cell in [*model.recurrence.left_to_right, *model.recurrence.right_to_left]:
        for gate in cell.weight_hh_l0.split(100):
            torch.testing.assert_close(gate @ gate.T, torch.eye(100), **FLOAT32)
        for gate in cell.weight_ih_l0.split(100):
            bound = math.sqrt(6 / sum(gate.shape))  # Glorot and Bengio 2010
            assert 0.95 * bound < gate.abs().max() <= bound
        biases = [gate.unique().tolist() for gate in (cell.bias_ih_l0 + cell.bias_hh_l0).split(100)]
        # input, forget, cell, output
        assert biases == ([[0.0], [1.0], [0.0], [0.0]] if fields["cell"] == "lstm" else [[0.0]] * len(biases))


@every_system
def test_saved_parameters_come_back_bit_equal_through_every_class(fields, tmp_path):
    model = classifier(calibration_temperature=1.3, **fields)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"} | SHIPPED
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is RecurrentForSequenceClassification
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    inputs = batch(documents(5, 9))
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is RecurrentModel
    assert torch.equal(base(**inputs).pooler_output, model.recurrent(**inputs).pooler_output)
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == configuration_recurrent.AUTO_MAP


@every_system
def test_missing_parameters_are_finite_equal_for_equal_seeds_and_leave_the_others_alone(fields, tmp_path):
    dtype = torch.bfloat16 if fields["num_layers"] == 2 else torch.float32
    classifier(**fields).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    # Parameters of one module go missing together with others that stay.
    kept = {name: tensor for name, tensor in saved.items() if "weight_ih" in name or "classifier.bias" in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = []
    for _ in range(2):
        torch.manual_seed(3)
        loaded.append(RecurrentForSequenceClassification.from_pretrained(tmp_path, dtype=dtype).state_dict())
    for name, tensor in loaded[0].items():
        assert torch.equal(tensor, loaded[1][name]), name
        if name in kept:
            assert torch.equal(tensor, kept[name].to(dtype)), name
        else:
            assert tensor.isfinite().all(), name
            assert tensor.abs().max() <= 1.5, name
            assert tensor.any() or "bias" in name, name


def test_a_saved_base_gives_its_parameters_and_a_fresh_linear_layer(tmp_path):
    base = classifier(bidirectional=True).recurrent
    base.save_pretrained(tmp_path)
    loaded = []
    for _ in range(2):
        torch.manual_seed(3)
        loaded.append(RecurrentForSequenceClassification.from_pretrained(tmp_path))
    for name, tensor in base.state_dict().items():
        assert torch.equal(loaded[0].recurrent.state_dict()[name], tensor), name
    assert torch.equal(loaded[0].classifier.weight, loaded[1].classifier.weight)
    bound = math.sqrt(6 / sum(loaded[0].classifier.weight.shape))
    assert 0.5 * bound < loaded[0].classifier.weight.abs().max() <= bound
    assert not loaded[0].classifier.bias.any()


# The configuration


def test_every_field_survives_saving(tmp_path):
    fields = {
        "vocab_size": 9,
        "embedding_size": 4,
        "cell": "lstm",
        "bidirectional": True,
        "hidden_size": 5,
        "num_layers": 3,
        "dropout": 0.2,
        "pad_token_id": 2,
        "calibration_temperature": 1.7,
        "class_weights": [1.0, 2.0, 3.0],
        "label_smoothing": 0.1,
        "id2label": {0: "a", 1: "b", 2: "c"},
        "label2id": {"a": 0, "b": 1, "c": 2},
        "problem_type": "single_label_classification",
    }
    RecurrentConfig(**fields).save_pretrained(tmp_path)
    for config in (RecurrentConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(config) is RecurrentConfig
        for name, value in fields.items():
            assert getattr(config, name) == value, name


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("vocab_size", 0, "a whole number of at least 1"),
        ("embedding_size", 2.5, "a whole number of at least 1"),
        ("hidden_size", True, "a whole number of at least 1"),
        ("num_layers", -1, "a whole number of at least 1"),
        ("dropout", 1.0, "a number from 0 to below 1"),
        ("label_smoothing", float("nan"), "a number from 0 to below 1"),
        ("cell", "elman", "one of rnn, lstm, gru"),
        ("bidirectional", "yes", "true or false"),
        ("pad_token_id", 61, "a whole number from 0 to 60"),
        ("pad_token_id", None, "a whole number from 0 to 60"),
        ("calibration_temperature", 0, "from 0.01 to 100"),
        ("calibration_temperature", 1e-300, "from 0.01 to 100"),
        ("class_weights", [1.0], "unset, or 2 numbers of at least 0, one per label"),
        ("class_weights", [1.0, -1.0], "unset, or 2 numbers of at least 0, one per label"),
        ("class_weights", 1.0, "unset, or 2 numbers of at least 0, one per label"),
        (
            "problem_type",
            "several",
            "unset, or one of single_label_classification, multi_label_classification, regression",
        ),
        ("id2label", {1: "a", 2: "b"}, "one name for each label from 0 to 1"),
    ],
)
def test_impossible_values_are_refused_by_name_also_when_set_later(name, value, allowed):
    with pytest.raises(ValueError, match="must be") as error:
        tiny_config(**{name: value})
    assert str(error.value) == f"`{name}` is {value!r}; it must be {allowed}."
    config = tiny_config()
    setattr(config, name, value)
    with pytest.raises(ValueError, match="must be") as error:
        RecurrentForSequenceClassification(config)
    assert str(error.value) == f"`{name}` is {value!r}; it must be {allowed}."


@pytest.mark.parametrize("name", ["hiden_size", "num_layer", "cells", "droput", "bidirectionel", "class_weight"])
def test_a_misspelt_field_is_refused_with_the_right_one(name):
    with pytest.raises(ValueError, match=f"Unknown configuration field `{name}`. Did you mean `"):
        tiny_config(**{name: 1})


def test_a_newer_versions_field_passes():
    assert tiny_config(memory_of_elephants=3).memory_of_elephants == 3


# Bad input


def test_bad_input_is_refused_with_the_row_or_token():
    model = classifier()
    ids = torch.full((3, 5), 4)
    mask = torch.ones(3, 5)
    mask[1] = 0
    with pytest.raises(ValueError, match="Row 1 of `attention_mask` has no real token"):
        model(ids, attention_mask=mask)
    with pytest.raises(ValueError, match="Token id 61 is outside the vocabulary of 61 entries"):
        model(torch.tensor([[0, 61, 2]]))
    with pytest.raises(ValueError, match="The batch holds no document"):
        model(ids[:0])
    for embeds in (None, torch.zeros(3, 5, 6)):
        with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
            model(None if embeds is None else ids, inputs_embeds=embeds)
    with pytest.raises(ValueError, match=r"`attention_mask` has shape \(3, 1, 5, 5\); it must be \(3, 5\)"):
        model(ids, attention_mask=torch.ones(3, 1, 5, 5))


# A saved folder in the hands of someone who has only transformers and torch

TEXTS = ["dreadful music", "splendid plot but slow and long"]

LOAD = """
import json, torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, resaved = sys.argv[1:3]
trusted = {"trust_remote_code": True}
texts = json.loads(sys.argv[3])
inputs = AutoTokenizer.from_pretrained(folder, **trusted)(texts, padding=True, return_tensors="pt")
model = AutoModelForSequenceClassification.from_pretrained(folder, **trusted)
with torch.no_grad():
    outputs = {
        "model_type": AutoConfig.from_pretrained(folder, **trusted).model_type,
        "logits": model(**inputs).logits.tolist(),
        "states": AutoModel.from_pretrained(folder, **trusted)(**inputs).pooler_output.tolist(),
        "pipeline": pipeline("text-classification", folder, **trusted, device="cpu")(texts, top_k=None),
    }
model.train()
model(**inputs, labels=torch.tensor([0, 1])).loss.backward()
torch.optim.SGD(model.parameters(), lr=0.1).step()
outputs["trained_logits"] = model.eval()(**inputs).logits.tolist()
model.save_pretrained(resaved)
print(json.dumps(outputs))
"""


@pytest.mark.slow
def test_every_auto_class_loads_in_a_fresh_process_without_the_package(stand_in, tmp_path):
    folder, resaved = tmp_path / "saved", tmp_path / "resaved"
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    fields = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "calibration_temperature": 1.5}
    config = tiny_config(**fields, cell="lstm", bidirectional=True, num_layers=2)
    model = RecurrentForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    process = subprocess.run(
        [sys.executable, "-I", "-c", without_the_package(LOAD), folder, resaved, json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
    )
    assert process.returncode == 0, process.stderr[-3000:]
    outputs = json.loads(process.stdout.splitlines()[-1])
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    logits = model(**inputs).logits
    assert outputs["model_type"] == "recurrent"
    torch.testing.assert_close(torch.tensor(outputs["logits"]), logits, **FLOAT32)
    torch.testing.assert_close(torch.tensor(outputs["states"]), model.recurrent(**inputs).pooler_output, **FLOAT32)
    scores = [[entry["score"] for entry in sorted(row, key=lambda e: e["label"])] for row in outputs["pipeline"]]
    torch.testing.assert_close(torch.tensor(scores), logits.softmax(1), **FLOAT32)
    assert {path.name for path in resaved.iterdir()} == {"config.json", "model.safetensors"} | SHIPPED
    again = RecurrentForSequenceClassification.from_pretrained(resaved)
    assert (again.config.auto_map, again.config.calibration_temperature) == (configuration_recurrent.AUTO_MAP, 1.0)
    torch.testing.assert_close(torch.tensor(outputs["trained_logits"]), again(**inputs).logits, **FLOAT32)
