"""A saved folder in the hands of someone who has only transformers and torch."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from modeling_roberta_gru import (
    RobertaGRUForSequenceClassification,
    RobertaGRUForTokenClassification,
    RobertaGRUModel,
)
from modeling_roberta_gru.data.tokenization import lift_limits

from .clean_process import OLDER_RELEASES, ask
from .load_model import INPUT_IDS, LONG_TEXT, TEXTS
from .tiny import TINY_ENCODER, tiny_config

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
SHIPPED = {"configuration_roberta_gru.py", "modeling_roberta_gru.py"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, stand_in):
    """Return a folder with a classifier whose every feature is in use."""
    folder = tmp_path_factory.mktemp("saved")
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    fields = {**TINY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": 66}
    fields |= {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}, "calibration_temperature": 1.5}
    fields |= {"summary": "attention", "attention_horizons": [0, 24], "gru_bidirectional": True, "num_gru_layers": 2}
    config = tiny_config(**fields)
    torch.manual_seed(0)
    RobertaGRUForSequenceClassification(config).eval().save_pretrained(folder)
    lift_limits(tokenizer)  # as a run saves it
    tokenizer.save_pretrained(folder)
    return folder


def load_in_a_clean_process(python: str | Path, folder: Path, workplace: Path) -> dict:
    return ask(python, folder, "--train", "--save-to", str(workplace / "resaved"), home=workplace / "home")


def check_outputs(outputs: dict, saved: Path, resaved: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert outputs["tokens"] == tokenizer(TEXTS)["input_ids"]
    input_ids = torch.tensor(INPUT_IDS)
    inputs = {"input_ids": input_ids, "attention_mask": (input_ids != 1).long()}
    classifier = RobertaGRUForSequenceClassification.from_pretrained(saved)
    logits = classifier(**inputs).logits
    torch.testing.assert_close(torch.tensor(outputs["logits"]), logits, **FLOAT32)
    summary = RobertaGRUModel.from_pretrained(saved)(**inputs).pooler_output
    torch.testing.assert_close(torch.tensor(outputs["summary"]), summary, **FLOAT32)
    token_model = RobertaGRUForTokenClassification.from_pretrained(saved)
    torch.testing.assert_close(torch.tensor(outputs["token_logits"]), token_model(**inputs).logits, **FLOAT32)
    # bfloat16 keeps 8 bits, and the logits are of order 1.
    torch.testing.assert_close(torch.tensor(outputs["bfloat16_logits"]), logits, rtol=0.05, atol=0.1)
    read = classifier(**tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)).logits
    for row, scores in enumerate(outputs["pipeline"]):
        named = {entry["label"]: entry["score"] for entry in scores}
        torch.testing.assert_close(
            torch.tensor([named["bad"], named["good"]]), read[row].detach().softmax(0), **FLOAT32
        )
    check_long_text(outputs["long"], saved, classifier)
    assert {path.name for path in resaved.iterdir()} >= SHIPPED
    config = json.loads((resaved / "config.json").read_text())
    assert config["auto_map"] == json.loads((saved / "config.json").read_text())["auto_map"]
    # Trained on: the old temperature is gone, also from what is saved.
    assert config["calibration_temperature"] == 1.0
    again = RobertaGRUForSequenceClassification.from_pretrained(resaved)(**inputs).logits
    torch.testing.assert_close(torch.tensor(outputs["trained_logits"]), again, **FLOAT32)


def check_long_text(prediction: dict, saved: Path, classifier: RobertaGRUForSequenceClassification) -> None:
    """The pipeline, called without arguments, read all of a text of more than 5,000 words."""
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert len(LONG_TEXT.split()) > 5000
    inputs = tokenizer(LONG_TEXT, return_tensors="pt", return_token_type_ids=False)
    assert inputs["input_ids"].shape[1] > 100 * classifier.config.encoder_window
    with torch.no_grad():
        probabilities = classifier(**inputs).logits[0].softmax(0)
        head = classifier(**{name: tensor[:, :64] for name, tensor in inputs.items()}).logits[0].softmax(0)
    assert abs(probabilities.max() - head.max()) > 1e-3
    assert prediction["label"] == classifier.config.id2label[int(probabilities.argmax())]
    torch.testing.assert_close(torch.tensor(prediction["score"]), probabilities.max(), **FLOAT32)


@pytest.mark.slow
def test_every_auto_class_loads_in_a_fresh_process_without_the_package(saved, tmp_path):
    outputs = load_in_a_clean_process(sys.executable, saved, tmp_path)
    check_outputs(outputs, saved, tmp_path / "resaved")


@pytest.mark.slow
@pytest.mark.parametrize("release", OLDER_RELEASES)
def test_older_releases_of_transformers_load_it_too(release, interpreter, saved, tmp_path):
    outputs = load_in_a_clean_process(interpreter(release), saved, tmp_path)
    assert outputs["transformers"] == release
    check_outputs(outputs, saved, tmp_path / "resaved")
