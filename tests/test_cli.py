"""`roberta-gru`: what it measures, says and refuses; its options are frozen."""

import json
import sys
from dataclasses import fields

import pytest
import torch
from transformers import AutoTokenizer, TrainingArguments
from typer.main import get_command
from typer.testing import CliRunner

from modeling_roberta_gru import RobertaGRUForSequenceClassification, RobertaGRUModel, cli
from modeling_roberta_gru.data.arguments import DataArguments
from modeling_roberta_gru.inference.evaluation import evaluate_model
from modeling_roberta_gru.training.arguments import ModelArguments, RobertaGRUTrainingArguments

from .conftest import TINY_ENCODER, tiny_config, write_reviews


@pytest.fixture(scope="module")
def saved(tmp_path_factory, stand_in):
    folder = tmp_path_factory.mktemp("run") / "model"
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    fields = {**TINY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": 66}
    torch.manual_seed(0)
    config = tiny_config(**fields, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    RobertaGRUForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def roberta_gru(monkeypatch, capsys):
    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["roberta-gru", *map(str, argv)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        output = capsys.readouterr()
        return end.value.code, output.out, output.err

    return call


def test_evaluate_equals_the_model_applied_row_by_row(saved, reviews):
    figures = evaluate_model(str(saved), str(reviews / "test.csv"), DataArguments())
    model = RobertaGRUForSequenceClassification.from_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    losses = []
    rows = [line.split(",") for line in (reviews / "test.csv").read_text().splitlines()[1:]]
    for text, label, _ in rows:
        logits = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=64)).logits
        losses.append(-logits[0].log_softmax(0)[model.config.label2id[label]].item())
    assert figures["n"] == len(rows) == 32
    assert figures["log_loss"]["value"] == pytest.approx(sum(losses) / 32, abs=1e-5)


def test_evaluate_prints_and_writes_figures_by_length_class_and_column(saved, reviews, tmp_path, roberta_gru):
    # The run's folder serves as well as the model's.
    status, said, _ = roberta_gru(
        "evaluate", saved.parent, reviews / "test.csv", "--slice-by", "venue", "--output", tmp_path / "figures.json"
    )
    assert status == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["slices"].keys() == {"length", "label", "venue"}
    assert figures["slices"]["venue"].keys() == {"v0", "v1", "v2"}
    assert sum(part["n"] for part in figures["slices"]["venue"].values()) == 32
    assert figures["accuracy"].keys() == {"value", "low", "high", "n"}
    for words in ("accuracy", "By length (tokens):", "By venue:", "n = 32", "bad: precision"):
        assert words in said


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["evaluate", "{model}", "nowhere.csv"], "nowhere.csv"),
        (["evaluate", "nowhere", "{data}"], "No model can be read from nowhere"),
        (["evaluate", "{model}", "{data}", "--text-column", "txt"], "'txt'"),
        (["evaluate", "{model}", "{data}", "--slice-by", "venu"], "Did you mean 'venue'?"),
        (
            ["evaluate", "{model}", "{data}", "--max-length", "all"],
            "must be a positive whole number or none, got 'all'",
        ),
        (["evaluate", "{model}", "{other}"], "Unknown label 'fair'"),
        (["evaluate", "{model}", "{data}", "--output", "{model}"], "is a folder: name a file"),
        (["evaluate", "{encoder}", "{data}"], "holds no trained RoBERTa-GRU classifier but a roberta"),
        (["evaluate", "{headless}", "{data}"], "(it lacks head."),
    ],
)
def test_mistakes_are_one_line_and_status_two(argv, message, saved, stand_in, reviews, tmp_path, roberta_gru):
    other = write_reviews(tmp_path / "other.csv", 9, seed=3, num_labels=3)
    headless = tmp_path / "headless"
    RobertaGRUModel.from_pretrained(saved).save_pretrained(headless)
    AutoTokenizer.from_pretrained(saved).save_pretrained(headless)
    places = {"model": saved, "data": reviews / "test.csv", "other": other, "encoder": stand_in, "headless": headless}
    before = {path: path.read_bytes() for path in saved.iterdir()}
    status, _, said = roberta_gru(*(word.format(**places) for word in argv))
    assert status == 2
    assert {path: path.read_bytes() for path in saved.iterdir()} == before
    assert said.strip().splitlines()[-1].startswith("Error: ")
    assert message in said


def test_the_command_lines_options_are_frozen():
    # A changed list is a changed interface: say so in CHANGELOG.md.
    evaluate = get_command(cli.app).commands["evaluate"]
    assert sorted(parameter.name for parameter in evaluate.params) == [
        "batch_size",
        "clean_html",
        "data",
        "label_column",
        "label_delimiter",
        "max_length",
        "model",
        "output",
        "skip_bad_rows",
        "slice_by",
        "text_column",
    ]
    assert [field.name for field in fields(ModelArguments)] == [
        "model_name_or_path",
        "model_revision",
        "tokenizer_name",
        "gru_hidden_size",
        "num_gru_layers",
        "gru_bidirectional",
        "gru_dropout",
        "summary",
        "head_hidden_size",
        "head_dropout",
        "config_overrides",
        "card_license",
        "card_language",
    ]
    assert [field.name for field in fields(DataArguments)] == [
        "dataset_name",
        "dataset_config_name",
        "dataset_revision",
        "train_file",
        "validation_file",
        "test_file",
        "text_column",
        "label_column",
        "class_names",
        "label_delimiter",
        "problem_type",
        "group_column",
        "split",
        "pool_splits",
        "split_seed",
        "clean_html",
        "on_bad_row",
        "max_train_samples",
        "max_validation_samples",
        "max_test_samples",
        "max_length",
        "max_windows",
        "window_policy",
    ]
    inherited = {field.name for field in fields(TrainingArguments)}
    assert [field.name for field in fields(RobertaGRUTrainingArguments) if field.name not in inherited] == [
        "bf16_if_available",
        "optimizer",
        "head_learning_rate",
        "layer_decay",
        "freeze_encoder",
        "freeze_layers",
        "class_weights",
        "length_curriculum",
        "early_stopping_patience",
        "calibrate",
        "bag_of_words",
        "verify_load",
        "overwrite_output_dir",
    ]


def test_help_teaches():
    command = get_command(cli.app).commands["evaluate"]
    assert "95 % intervals" in command.help
    assert all(parameter.help for parameter in command.params if parameter.name not in ("model", "data"))
    assert CliRunner().invoke(cli.app, []).output.count("evaluate") == 1
