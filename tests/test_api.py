"""The front door in Python: one call each, from rows in memory to a model that loads anywhere."""

import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import modeling_roberta_gru
from modeling_roberta_gru import Scorer, api, evaluate, explain, publish, train
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments

from .refusals import refused

TINY = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 32,
    "gru_hidden_size": 6,
    "head_hidden_size": 4,
    "config_overrides": "hidden_size=12,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16",
    "bag_of_words": False,
    "disable_tqdm": True,
    "learning_rate": "1e-3",
}


@pytest.fixture(scope="module")
def frame(reviews):
    return pd.read_csv(reviews / "train.csv")


@pytest.fixture(scope="module")
def classifier(frame, stand_in):
    return train(frame, model_name_or_path=str(stand_in), **{**TINY, "config_overrides": None})


def test_a_frame_becomes_a_classifier_that_predicts_as_what_it_saves(classifier, frame, tmp_path):
    texts = frame["text"][:5].tolist()
    probabilities = classifier.predict_proba(texts)
    assert probabilities.shape == (5, 2)
    labels = [classifier.model.config.id2label[index] for index in probabilities.argmax(axis=1)]
    assert list(classifier.predict(texts)) == labels
    assert 0 <= classifier.metrics["test"]["accuracy"]["value"] <= 1
    folder = classifier.save(tmp_path / "mine")
    saved = pipeline("text-classification", str(folder), trust_remote_code=True, top_k=None)
    scores = {score["label"]: score["score"] for score in saved(texts[:1])[0]}
    assert [scores["bad"], scores["good"]] == pytest.approx(probabilities[0], abs=1e-5)
    with refused(file=str(folder), match="not empty"):
        classifier.save(folder)


def test_what_was_trained_is_evaluated_explained_and_would_be_published(classifier, frame, tmp_path):
    rows = (frame["text"].tolist()[:20], frame["label"].tolist()[:20])
    metrics = evaluate(classifier, rows, batch_size=4)
    assert metrics["n"] == 20
    agreeing = np.mean(classifier.predict(rows[0]) == np.array(rows[1]))
    assert metrics["accuracy"]["value"] == pytest.approx(agreeing)
    explanation = explain(classifier, rows[0][0], attributions=False)
    assert rows[0][0] in explanation.trace.text
    assert classifier.predict(rows[0][0]) in str(explanation)
    assert explanation.files == ()
    (tmp_path / "drawn").mkdir()
    files = explain(classifier, "a", steps=2, output_dir=tmp_path / "drawn").files
    assert {path.name for path in files if path.is_file()} == {"explanation.png", "explanation.html"}


@pytest.mark.parametrize("kind", ["pair", "datasets"])
def test_other_tables_are_read_as_well(kind, frame, stand_in, tmp_path):
    texts, labels = frame["text"].tolist(), frame["label"].tolist()
    table = (texts, labels)
    if kind == "datasets":
        table = Dataset.from_dict({"review": texts, "label": labels}).cast_column(
            "label", ClassLabel(names=["bad", "good"])
        )
    options = {**TINY, "text_column": "text" if kind == "pair" else "review", "max_length": 9}
    (tmp_path / "recipe.yaml").write_text("train_file: not-read.csv\nmax_steps: 1\n")
    options["config"] = str(tmp_path / "recipe.yaml")
    trained = train(table, tokenizer_name=stand_in, output_dir=tmp_path / "run", **options)
    assert "train_file" not in json.loads((tmp_path / "run" / "run.json").read_text())["options"]
    assert trained.model.config.label2id == {"bad": 0, "good": 1}
    assert trained.max_length == 9
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")


@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        (lambda frame: train(frame, learning_rat=1), refused(field="learning_rat", match="'learning_rate'")),
        (lambda frame: train(frame, num_train_epochs="many"), refused(field="num_train_epochs")),
        (lambda frame: train(frame, per_device_train_batch_size=2.5), refused(field="per_device_train_batch_size")),
        (lambda frame: train(frame, seed=float("inf")), refused(field="seed", match="whole number")),
        (lambda frame: train(frame, seed=float("nan")), refused(field="seed", match="whole number")),
        (lambda frame: train(frame, optimizer="nadm"), refused(field="optimizer", match="'nadam'")),
        (lambda frame: train(frame, learning_rate=-1), refused(field="learning_rate")),
        (lambda frame: train(frame, config="quikstart"), refused(field="config", match="'quickstart'")),
        (lambda frame: train(eval_dataset=frame), refused(field="train_dataset")),
        (lambda frame: train(7), refused(match="got int")),
        (lambda frame: train("reviews.csv"), refused(field="train_file", file="reviews.csv")),
        (lambda frame: train(frame, test_dataset=Path("a.csv")), refused(field="test_file", file="a.csv")),
        (lambda frame: train(frame, test_file="test.csv"), refused(field="test_file")),
        (
            lambda frame: train(frame, eval_dataset=frame, dataset_name="imdb"),
            refused(field="dataset_name", match="beside rows"),
        ),
        (
            lambda frame: evaluate("nowhere", frame, text_colum="text"),
            refused(field="text_colum", match="'text_column'"),
        ),
        (lambda frame: evaluate("./nowhere", frame), refused(match="./nowhere")),
        (lambda frame: evaluate(frame.columns, frame), refused(match="No model can be read from")),
        (lambda frame: evaluate("/nowhere/at/all", frame), refused(file="/nowhere/at/all")),
        (lambda frame: publish("nowhere", "me/mine", dry_run=True), refused(match="nowhere")),
        (lambda frame: explain("nowhere", "a text", steps=0), refused(field="steps")),
    ],
)
def test_mistakes_are_named(call, refusal, frame):
    with refusal:
        call(frame)


def test_several_processes_are_sent_to_the_launcher(frame, tmp_path, monkeypatch):
    monkeypatch.setattr(RobertaGRUTrainingArguments, "world_size", property(lambda _: 2))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match="accelerate launch"):
        train(frame)
    assert not list(tmp_path.iterdir())


def test_what_was_trained_scores_and_is_measured_as_it_was_trained(classifier, frame, tmp_path):
    folder = classifier.save(tmp_path / "saved")
    texts = frame["text"].tolist()
    assert Scorer(folder, dtype="float32").predict(texts).tolist() == Scorer(str(folder)).predict(texts).tolist()
    with pytest.raises(InputError, match="`output_dir`"):
        Scorer(classifier)
    with pytest.raises(InputError, match="its tokenizer"):
        Scorer(classifier.model)
    for table in (frame, {"text": texts}):
        with pytest.raises(InputError, match="texts is a table"):
            classifier.predict(table)
    assert len(classifier.predict(frame["text"])) == len(frame)
    cut = replace(classifier, max_length=4)
    expected = evaluate(classifier, frame, max_length=4)["log_loss"]
    assert evaluate(cut, frame)["log_loss"] == expected != evaluate(classifier, frame)["log_loss"]
    trace = explain(cut, texts[0], attributions=False).trace
    assert len(trace.tokens) == 4
    assert trace.scores[-1] == pytest.approx(cut.predict_proba(texts[0]), abs=1e-5)
    assert texts[0].startswith(trace.text)
    assert trace.text != texts[0]
    cleaned = replace(classifier, clean_html=True)
    marked, plain = ([f"{begin}{text}{end}" for text in texts] for begin, end in (("<p>", "</p>"), ("\n", "\n")))
    assert cleaned.predict(marked[0]) == classifier.predict(plain[0])
    assert (cleaned.predict_proba(iter(marked)) == classifier.predict_proba(plain)).all()
    assert (cleaned.predict_proba(marked) != classifier.predict_proba(marked)).any()
    asked = [(cleaned, marked), (classifier, plain), (classifier, marked)]
    losses = [evaluate(measured, frame.assign(text=theirs))["log_loss"] for measured, theirs in asked]
    assert losses[0] == losses[1] != losses[2]
    unsaid = evaluate(cleaned, frame.assign(text=marked), clean_html=None, max_length=None)
    assert unsaid["log_loss"] == losses[0]
    explained = [explain(*asked, attributions=False) for asked in ((cleaned, marked[0]), (classifier, plain[0]))]
    assert explained[0].trace.text == explained[1].trace.text
    for wrong in (frame, {"text": texts}, b"a text", 5, [5]):
        with pytest.raises(InputError, match=r"^texts"):
            cleaned.predict(wrong)
    some = frame.assign(author=["ann", "bob"] * (len(frame) // 2) + ["ann"] * (len(frame) % 2))
    assert "author" in evaluate(classifier, some, slice_by="author")["slices"]
    for name, value in {"test_file": "nowhere.csv", "class_names": ["a", "b"], "problem_type": "regression"}.items():
        with refused(field=name):
            evaluate(classifier, frame, **{name: value})


def test_every_public_name_is_there_and_importing_them_is_light():
    assert {getattr(modeling_roberta_gru, name).__name__ for name in modeling_roberta_gru.__all__} == set(
        modeling_roberta_gru.__all__
    )
    assert set(modeling_roberta_gru.__all__) <= set(dir(modeling_roberta_gru))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        modeling_roberta_gru.trian  # noqa: B018
    heavy = "[name for name in ('torch', 'transformers', 'numpy', 'datasets') if name in sys.modules]"
    program = f"import sys, modeling_roberta_gru; print({heavy})"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


# The package loads no more than what transformers loads.
AFTER_TRANSFORMERS = """
import sys
from transformers import AutoConfig, RobertaModel
theirs = set(sys.modules)
import modeling_roberta_gru
added = {name.partition(".")[0] for name in set(sys.modules) - theirs}
assert not added & {"accelerate", "datasets", "evaluate", "matplotlib", "pandas", "sklearn", "typer"}, added
"""
ORDERS = [
    "import modeling_roberta_gru; from transformers import AutoConfig",
    AFTER_TRANSFORMERS,
    "import modeling_roberta_gru.modeling_recurrent; from transformers import AutoConfig",
    "import modeling_roberta_gru; from importlib.util import find_spec; "
    "find_spec('modeling_roberta_gru.modeling_recurrent'); from transformers import AutoConfig",
]
# transformers comes first: it puts another module in its own place at the end of its import, and a thread that waited
# for that gets the empty one (`from transformers import` then fails in it, whatever else is imported).
THREADS = """
import threading
import modeling_roberta_gru
import transformers
def bare(): from transformers import AutoConfig
def shipped(): from modeling_roberta_gru.modeling_roberta_gru import RobertaGRUModel
def public(): from modeling_roberta_gru import RecurrentModel
threads = [threading.Thread(target=target) for target in (public, shipped, bare, shipped)]
for thread in threads: thread.start()
for thread in threads: thread.join()
from transformers import AutoConfig
"""


# torch, which takes longest and knows neither, is imported once, before the processes of the orders part.
@pytest.mark.slow
@pytest.mark.parametrize(("first", "orders"), [("import torch", ORDERS), ("", [THREADS])], ids=["in turn", "threads"])
def test_the_auto_classes_know_ours_in_whatever_order_they_are_imported(first, orders):
    checks = """
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification
import modeling_roberta_gru as ours
for auto, model in (
    (AutoModel, ours.RobertaGRUModel),
    (AutoModelForSequenceClassification, ours.RobertaGRUForSequenceClassification),
    (AutoModelForTokenClassification, ours.RobertaGRUForTokenClassification),
    (AutoModelForSequenceClassification, ours.RecurrentForSequenceClassification),
):
    config = AutoConfig.for_model(model.config_class.model_type)
    assert type(config) is model.config_class
    assert model._auto_class == auto.__name__
    assert type(auto.from_config(type(config)(**SIZES[config.model_type]))) is model
"""
    sizes = {
        "roberta-gru": {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9},
        "recurrent": {"vocab_size": 9},
    }
    program = f"""
import os
{first}
for order in {orders!r}:
    if os.fork() == 0:
        exec(order + {checks!r}, {{"SIZES": {sizes}}})
        os._exit(0)
    assert os.wait()[1] == 0, order
"""
    quiet = ["-W", "ignore::DeprecationWarning"]  # Python 3.12 warns of a fork beside threads; torch's wait
    process = subprocess.run([sys.executable, *quiet, "-c", program], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_nothing_is_left_of_what_was_kept_nowhere(frame, stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trained = train(frame, model_name_or_path=str(stand_in), **{**TINY, "config_overrides": None})
    trained.save(tmp_path / "kept")
    del trained
    gc.collect()
    explain(tmp_path / "kept", "so it was", attributions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    monkeypatch.setattr(api, "load_classifier", lambda *_: pytest.fail("it cannot be loaded"))
    with pytest.raises(pytest.fail.Exception):
        train(frame, model_name_or_path=str(stand_in), **{**TINY, "config_overrides": None})
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
