"""`roberta-gru`: what it measures, says and refuses; its options are frozen."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer, TrainingArguments
from typer.main import get_command

from modeling_roberta_gru import (
    RobertaGRUForSequenceClassification,
    RobertaGRUModel,
    __version__,
    cli,
    experiment,
    explain,
    serving,
)
from modeling_roberta_gru.arguments import DataArguments, ModelArguments
from modeling_roberta_gru.errors import InputError, visible
from modeling_roberta_gru.inference import demo, evaluation, explanation, score_file
from modeling_roberta_gru.inference.evaluation import evaluate_model
from modeling_roberta_gru.studies import study
from modeling_roberta_gru.training import loading
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments

from .refusals import refused
from .tiny import TINY_ENCODER, tiny_config, write_reviews


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


@pytest.fixture(scope="module")
def headless(tmp_path_factory, saved):
    folder = tmp_path_factory.mktemp("headless")
    RobertaGRUModel.from_pretrained(saved).save_pretrained(folder)
    AutoTokenizer.from_pretrained(saved).save_pretrained(folder)
    return folder


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


def test_evaluate_has_written_before_it_says_anything(saved, reviews, tmp_path, monkeypatch):
    def nobody_listens(text):
        raise BrokenPipeError

    monkeypatch.setattr(cli, "say", nobody_listens)
    with pytest.raises(BrokenPipeError):
        cli.evaluate.__wrapped__(str(saved), str(reviews / "test.csv"), output=tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())["accuracy"]


def test_evaluate_reads_a_folder_that_is_named_as_a_file(saved, reviews, tmp_path, roberta_gru):
    (tmp_path / "new.csv").mkdir()
    shutil.copy(reviews / "test.csv", tmp_path / "new.csv" / "part-0.csv")
    status, said, _ = roberta_gru("evaluate", saved, tmp_path / "new.csv")
    assert status == 0
    assert "n = 32" in said


def test_evaluate_says_when_it_measures_the_validation_split_for_want_of_another(saved, reviews, tmp_path):
    shutil.copy(reviews / "test.csv", tmp_path / "dev.csv")
    assert evaluate_model(str(saved), str(tmp_path), DataArguments())["data"] == f"{tmp_path} (validation split)"


def test_evaluate_refuses_a_regression_with_several_outputs_before_it_reads_data(saved, tmp_path):
    config = RobertaGRUForSequenceClassification.from_pretrained(saved).config
    config.problem_type = "regression"
    RobertaGRUForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(saved).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a regression with 2 outputs"):
        evaluate_model(str(tmp_path), "nowhere.csv", DataArguments())


def test_evaluate_counts_the_rows_it_read_skipped_and_used(saved, tmp_path, roberta_gru):
    (tmp_path / "new.csv").write_text("text,label\nsplendid,good\n,bad\ndreadful,bad\n")
    options = ["--skip-bad-rows", "--output", tmp_path / "figures.json"]
    status, said, _ = roberta_gru("evaluate", saved, tmp_path / "new.csv", *options)
    assert status == 0
    assert json.loads((tmp_path / "figures.json").read_text())["rows"] == {"read": 3, "skipped": 1, "used": 2}
    assert "Rows: 3 read, 1 skipped, 2 used." in said


@pytest.mark.parametrize(
    ("record", "options", "is_cleaned"),
    [
        ({"options": {"clean_html": True}}, (), True),
        ({"options": {"clean_html": True}}, ("--no-clean-html",), False),
        ({"options": {"clean_html": False}}, (), False),
        ({"options": {}}, ("--clean-html",), True),
        ({"options": ["clean_html"]}, (), False),
        ({"options": {"clean_html": "no"}}, (), False),
        (["clean_html"], (), False),
        (None, (), False),
    ],
)
def test_html_is_removed_as_in_training_unless_told_otherwise(
    record, options, is_cleaned, saved, tmp_path, roberta_gru
):
    model = shutil.copytree(saved, tmp_path / "model")
    (model / "run.json").write_text("neither" if record is None else json.dumps(record))
    (tmp_path / "marked.csv").write_text("text,label\n<b>a good venue</b><br />,good\n<i>a bad one</i>,bad\n")
    (tmp_path / "plain.csv").write_text('text,label\n"a good venue\n",good\na bad one,bad\n')
    probabilities, losses = [], []
    for name, words in (("marked", options), ("plain", ()), ("marked", ("--no-clean-html",))):
        scored, measured = tmp_path / "scored.jsonl", tmp_path / "measured.json"
        table = tmp_path / f"{name}.csv"
        assert roberta_gru("evaluate", model, table, "--output", measured, *words)[0] == 0
        assert roberta_gru("score", model, table, scored, "--dtype", "float32", "--all-scores", *words)[0] == 0
        losses.append(json.loads(measured.read_text())["log_loss"]["value"])
        probabilities.append([json.loads(line)["score_good"] for line in scored.read_text().splitlines()])
        scored.unlink()
    for marked, plain, as_it_is in (probabilities, losses):
        assert marked == pytest.approx(plain if is_cleaned else as_it_is, abs=1e-6)
        assert marked != pytest.approx(as_it_is if is_cleaned else plain, abs=1e-6)


@pytest.mark.parametrize(
    "trained", [None, {"text_column": "title", "label_column": [], "label_delimiter": 3}, {"text_column": [1]}]
)
def test_columns_are_text_and_label_where_no_record_names_others(trained, saved, reviews, tmp_path, roberta_gru):
    model = shutil.copytree(saved, tmp_path / "model")
    (model / "run.json").write_text(json.dumps({"options": trained}))
    assert roberta_gru("evaluate", model, reviews / "test.csv")[0] == 0
    assert roberta_gru("score", model, reviews / "test.csv", tmp_path / "scored.csv")[0] == 0


def test_columns_are_read_as_in_training_unless_told_otherwise(saved, tmp_path, roberta_gru):
    model = shutil.copytree(saved, tmp_path / "model")
    trained = {"text_column": ["title", "body"], "label_column": ["stars"], "label_delimiter": ";"}
    (model / "run.json").write_text(json.dumps({"options": trained}))
    (tmp_path / "two.csv").write_text("title,body,stars,text,label\nA venue,a good one,good,so so,bad\n")
    (tmp_path / "one.csv").write_text('text,label\n"A venue\na good one",good\nso so,bad\n')
    scores = {}
    for name, *words in (("two",), ("one", "--text-column", "text"), ("two", "--text-column", "text")):
        scored = tmp_path / "scored.jsonl"
        words = (tmp_path / f"{name}.csv", scored, "--dtype", "float32", "--all-scores", *words)
        status, _, said = roberta_gru("score", model, *words)
        assert (status, "as in training" in said) == (0, len(words) == 5)
        scores[name, len(words)] = [json.loads(line)["score_good"] for line in scored.read_text().splitlines()]
    (as_trained,), both, (as_told,) = scores.values()
    assert [as_trained, as_told] == pytest.approx(both, abs=1e-6)
    given = []
    for words in ((), ("--label-column", "label"), ("--text-column", "text", "--label-delimiter", "|")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluation, "evaluate_model", lambda model, data, args, *_: given.append(args))
            patch.setattr(evaluation, "describe_metrics", str)
            assert roberta_gru("evaluate", model, tmp_path / "two.csv", *words)[0] == 0
    assert [(args.text_column, args.label_column, args.label_delimiter) for args in given] == [
        (["title", "body"], ["stars"], ";"),
        (["title", "body"], ["label"], None),
        (["text"], ["stars"], "|"),
    ]


def test_explain_and_serve_remove_html_as_in_training_unless_told_otherwise(saved, tmp_path, roberta_gru, monkeypatch):
    model = shutil.copytree(saved, tmp_path / "model")
    (model / "run.json").write_text(json.dumps({"options": {"clean_html": True}}))
    served = []
    monkeypatch.setattr(serving, "serve", lambda *_, clean_html, **__: served.append(clean_html))
    explained = {}
    for text, *words in (("a <b>good</b> venue",), ("a good venue",), ("a <b>good</b> venue", "--no-clean-html")):
        options = ("--no-attributions", "--output-dir", tmp_path / "drawn", *words)
        status, said, told = roberta_gru("explain", model, text, *options)
        assert (status, "HTML is removed" in told) == (0, not words)
        explained[text, *words] = said
        assert roberta_gru("serve", model, *words)[0] == 0
    as_trained, plain, as_it_is = explained.values()
    assert as_trained == plain != as_it_is
    assert served == [True, True, False]
    assert explain(str(model), "a <b>good</b> venue", attributions=False).trace.text == "a good venue"


def test_score_writes_every_row_with_what_the_model_says_of_it(saved, reviews, tmp_path, roberta_gru):
    status, said, _ = roberta_gru(
        "score",
        saved.parent,
        reviews / "test.csv",
        tmp_path / "scored.jsonl",
        "--all-scores",
        "--verify",
        9,
        "--dtype",
        "float32",
    )
    assert status == 0
    assert "9 labels equal, 100.00%" in said
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [",".join((row["text"], row["label"], row["venue"])) for row in rows] == (
        (reviews / "test.csv").read_text().splitlines()[1:]
    )
    model = RobertaGRUForSequenceClassification.from_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    for row in rows[:3]:
        probabilities = model(**tokenizer(row["text"], return_tensors="pt")).logits.softmax(dim=-1)[0].tolist()
        assert [row["score_bad"], row["score_good"]] == pytest.approx(probabilities, abs=1e-5)
        assert (
            row["predicted_score"]
            == row[f"score_{row['predicted_label']}"]
            == max(row["score_bad"], row["score_good"])
        )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["evaluate", "{model}", "nowhere.csv"], "nowhere.csv"),
        (["score", "{model}", "nowhere.csv", "{scored}"], "'nowhere.csv' does not exist"),
        (["score", "{model}", "{data}", "scored.xlsx"], "scored.xlsx: cannot write .xlsx"),
        (["score", "{model}", "{data}", "{scored}", "--text-column", "txt"], "Did you mean 'text'?"),
        (["score", "{model}", "{data}", "{scored}", "--dtype", "int9"], "'--dtype': Value error, 'int9'"),
        (["evaluate", "nowhere", "{data}"], "No model can be read from nowhere"),
        (["evaluate", "{model}", "{data}", "--text-column", "txt"], "'txt'"),
        (["evaluate", "{model}", "{data}", "--slice-by", "venu"], "Did you mean 'venue'?"),
        (
            ["evaluate", "{model}", "{data}", "--max-length", "all"],
            "must be a positive whole number or none, got 'all'",
        ),
        (["evaluate", "{model}", "{data}", "--slice-by", "length"], "always measured apart"),
        (["evaluate", "{model}", "{data}", "--slice-by", "label", "--label-column", "venue"], "'label'"),
        (["evaluate", "{model}", "{other}"], "Unknown label 'fair'"),
        (["sweep", "--space", "optimizers", "--seeds", "2"], "--seeds takes effect only with --final"),
        (["score", "{model}", "{data}", "{scored}", "--engine", "rya"], "'--engine': Value error, 'rya'"),
        (["score", "{model}", "{data}", "{scored}", "--engine", "ray", "--verify", "3"], "--verify takes effect only"),
        (["score", "{model}", "{data}", "{scored}", "--workers", "1:2"], "--workers takes effect only"),
        (["evaluate", "{model}", "{data}", "--output", "{model}"], "is a folder: name a file"),
        (["evaluate", "{model}", "{data}", "--output", "{data}"], "is read as an input"),
        (["evaluate", "{encoder}", "{data}"], "holds no trained classifier but a roberta that lacks classifier."),
        (["evaluate", "{headless}", "{data}"], "holds no trained classifier but a roberta-gru that lacks head."),
    ],
)
def test_mistakes_are_one_line_and_status_two(
    argv, message, saved, headless, stand_in, reviews, tmp_path, roberta_gru
):
    other = write_reviews(tmp_path / "other.csv", 9, seed=3, num_labels=3)
    places = {"model": saved, "data": reviews / "test.csv", "other": other, "encoder": stand_in, "headless": headless}
    places["scored"] = tmp_path / "scored.csv"
    before = {path: path.read_bytes() for path in saved.iterdir()}
    status, _, said = roberta_gru(*(word.format(**places) for word in argv))
    assert status == 2
    assert {path: path.read_bytes() for path in saved.iterdir()} == before
    assert said.strip().splitlines()[-1].startswith("Error: ")
    assert message in said


def test_explain_prints_and_draws_how_the_prediction_came_about(saved, tmp_path, roberta_gru):
    text = "splendid plot, slow music\r\n" * 12  # beyond the window of 64 tokens
    (tmp_path / "text.txt").write_bytes(text.encode("utf-8-sig"))
    folder = tmp_path / "new" / "explanation"
    options = ["--file", tmp_path / "text.txt", "--label", "good", "--steps", 2, "--output-dir", folder]
    status, said, error = roberta_gru("explain", saved, *options)
    assert (status, [line for line in error.splitlines() if "Loading weights" not in line]) == (0, [])
    assert sorted(path.name for path in folder.iterdir()) == ["explanation.html", "explanation.png"]
    assert str(folder / "explanation.html") in said
    model, tokenizer = RobertaGRUForSequenceClassification.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    probabilities = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(dim=0)
    label = model.config.id2label[int(probabilities.argmax())]
    assert f"Prediction: {label} {probabilities.max():.2f}, after {len(tokenizer(text)['input_ids'])} tokens." in said
    assert "Most influential words, for (+) and against (-) good, in log-odds:" in said

    status, said, _ = roberta_gru("explain", saved, "splendid music", "--no-attributions", "--output-dir", folder)
    assert status == 0
    assert "influential" not in said
    assert "attribution" not in (folder / "explanation.html").read_text().partition("<body")[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give a text in quotes, or --file"),
        (["a text", "--file", "{text}"], "Both a text and --file are given"),
        (["--file", "nowhere.txt"], "--file nowhere.txt cannot be read: No such file or directory"),
        (["--file", "{model}"], "cannot be read: Is a directory"),
        (["--file", "{latin}"], "is not UTF-8 text (byte 4). Save the file as UTF-8."),
        (["--file", "{empty}"], "holds no text"),
        (["<s></s>"], "The text holds no words, only special tokens."),
        (["a text", "--output-dir", "{text}/folder"], "is not a folder that can be written to"),
        (["a text", "--no-attributions", "--steps", "9"], "--steps belongs to the attributions"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line_and_leaves_nothing(
    options, message, saved, tmp_path, roberta_gru, monkeypatch
):
    places = {name: tmp_path / name for name in ("text", "latin", "empty")}
    for path, content in zip(places.values(), (b"a text", "caf\xe9".encode("latin-1"), b" \n"), strict=True):
        path.write_bytes(content)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    status, _, said = roberta_gru("explain", saved, *(word.format(model=saved, **places) for word in options))
    assert status == 2
    assert said.strip().splitlines()[-1].startswith("Error: ")
    assert message in said
    assert list((tmp_path / "here").iterdir()) == []


def test_what_cannot_explain_is_said(saved, stand_in, roberta_gru, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, said = roberta_gru("explain", stand_in, "a text")
    assert (status, "holds no trained classifier but a roberta that lacks classifier." in said) == (2, True)
    monkeypatch.setattr(explanation, "find_spec", lambda name: None)
    status, _, said = roberta_gru("explain", saved, "a text")
    assert (status, "pip install captum" in said) == (2, True)
    assert list(tmp_path.iterdir()) == []
    assert roberta_gru("explain", saved, "a text", "--no-attributions")[0] == 0


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "/x/m"), OSError(36, "too long", "x" * 999)]
)
def test_a_name_that_the_system_refuses_is_one_line(error, capsys):
    def program():
        raise error

    assert cli.exit_status(program) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_version_is_said(roberta_gru):
    assert roberta_gru("--version")[:2] == (0, f"roberta-gru {__version__}\n")


@pytest.mark.parametrize("command", ["evaluate", "train"])
@pytest.mark.parametrize("name", ["runs/nosuch", "./nosuch", "plain.csv"])
def test_a_model_that_can_be_no_name_on_the_hub_is_refused_at_once(command, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    write_reviews(tmp_path / "plain.csv", 9, seed=3)
    monkeypatch.setattr(loading, "pinned", lambda *_: pytest.fail("the Hub was asked"))
    monkeypatch.setattr(experiment, "run", lambda *_, **__: pytest.fail("the model was accepted"))
    if command == "evaluate":
        with refused(field=None, file=name):
            cli.evaluate.__wrapped__(name, "plain.csv")
    else:
        options = ["--output_dir", "out", "--train_file", "plain.csv", "--model_name_or_path", name]
        with refused(field="model_name_or_path", file=name):
            cli.train.__wrapped__(SimpleNamespace(args=options))


def test_a_name_on_the_hub_is_looked_for_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nosuch", "ada/nosuch", "ada/nosuch-1.5"):
        cli._check_model(name)


@pytest.mark.parametrize(
    ("command", "saved_before", "advice"),
    [
        ("train", False, "Nothing was saved yet."),
        ("train", True, "--resume_from_checkpoint auto"),
        ("score", False, "the same command again"),
        ("evaluate", False, "Interrupted.\n"),
    ],
)
def test_an_interrupt_says_how_that_command_goes_on(
    command, saved_before, advice, saved, reviews, tmp_path, roberta_gru, monkeypatch
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run", interrupt)
    monkeypatch.setattr(score_file, "ScoreOptions", interrupt)
    monkeypatch.setattr(cli, "DataArguments", interrupt)
    if saved_before:
        (tmp_path / "run" / "checkpoint-3").mkdir(parents=True)
    table = reviews / "test.csv"
    words = {
        "train": ["--output_dir", tmp_path / "run", "--dataset_name", reviews],
        "score": [saved, table, tmp_path / "scored.csv"],
        "evaluate": [saved, table],
    }
    status, _, said = roberta_gru(command, *words[command])
    assert (status, said.count("\n"), advice in said) == (130, 1, True)


def test_the_command_lines_options_are_frozen():
    # A changed list is a changed interface: say so in CHANGELOG.md.
    commands = get_command(cli.app).commands
    evaluate = commands["evaluate"]
    assert sorted(parameter.name for parameter in evaluate.params) == [
        *("agreements", "batch_size", "clean_html", "csv_columns", "csv_delimiter", "csv_encoding", "csv_escape"),
        *(
            "csv_quoting",
            "data",
            "dataset_config_name",
            "dataset_revision",
            "label_column",
            "label_delimiter",
            "max_length",
            "model",
            "output",
        ),
        *("skip_bad_rows", "slice_by", "text_column", "trust_remote_code"),
    ]
    assert {parameter.name: parameter.default for parameter in commands["explain"].params} == {
        "model": None,
        "text": None,
        "file": None,
        "output_dir": Path("explanation"),
        "label": None,
        "steps": None,
        "attributions": True,
        "clean_html": None,
    }
    compare = commands["compare"]
    assert [parameter.name for parameter in compare.params] == ["runs", "output_dir", "resamples"]
    sweep = commands["sweep"]
    names = ["space", "config", "output_dir", "storage", "final", "seeds"]
    assert [parameter.name for parameter in sweep.params] == names
    assert [field.name for field in fields(ModelArguments)] == [
        *("architecture", "model_name_or_path", "model_revision", "tokenizer_name", "trust_remote_code"),
        *("gru_hidden_size", "num_gru_layers", "gru_bidirectional", "gru_dropout", "skip_connection", "summary"),
        *("attention_horizons", "head_hidden_size", "head_dropout", "config_overrides", "embeddings"),
        *("freeze_embeddings", "card_license", "card_language"),
    ]
    assert [field.name for field in fields(DataArguments)] == [
        *("dataset_name", "dataset_config_name", "dataset_revision", "train_file", "validation_file", "test_file"),
        *("soft_train_file", "csv_columns", "csv_encoding", "csv_delimiter", "csv_quoting", "csv_escape"),
        "text_column",
        *("label_column", "class_names", "label_delimiter", "problem_type", "group_column", "split_column"),
        *("test_fold", "validation_fold", "split", "pool_splits", "drop_repeats", "split_seed", "clean_html"),
        *("on_bad_row", "max_train_samples", "max_validation_samples", "max_test_samples", "max_length"),
        *("max_windows", "window_policy", "oversample", "oversample_to", "word_vectors", "replace_share"),
        *("replace_neighbours", "replace_similarity", "replace_vocabulary", "oversample_seed"),
    ]
    others = {
        "adapt": "model texts output_dir exclude text_column clean_html max_length epochs learning_rate batch_size "
        "validation_share save_steps whole_words dropout seed trust_remote_code",
        "demo": "model host port browser",
        "export": "model to quantize output_dir",
        "publish": "run name private revision tag dry_run yes",
        "score": "model source target text_column prefix all_scores dtype device max_length tokens_per_batch "
        "agreement csv_encoding csv_delimiter csv_quoting csv_escape clean_html skip_bad_rows restart excel_safe "
        "verify engine address workers gpus_per_worker",
        "serve": "model host port dtype device tokens_per_batch waiting_texts clean_html log_texts",
        "train": "",
        "watch": "model follow jsonl every",
    }
    assert commands.keys() == {"compare", "evaluate", "explain", "sweep", *others}
    for name, options in others.items():
        assert [parameter.name for parameter in commands[name].params] == options.split(), name
    inherited = {field.name for field in fields(TrainingArguments)}
    own = [field for field in fields(RobertaGRUTrainingArguments) if field.init and field.name not in inherited]
    assert [field.name for field in own] == [
        *("bf16_if_available", "optimizer", "head_learning_rate", "layer_decay", "freeze_encoder", "cache_limit"),
        *("freeze_layers", "lora", "lora_alpha", "lora_dropout", "lora_target_modules", "class_weights"),
        *("length_curriculum", "early_stopping_patience", "calibrate", "bag_of_words", "verify_load"),
        "overwrite_output_dir",
    ]


@pytest.mark.parametrize(
    ("words", "num_seeds"), [([], 0), (["--final"], 3), (["--final", "--seeds", "2"], 2)], ids=["search", "3", "2"]
)
def test_a_sweep_is_given_what_the_command_says(words, num_seeds, roberta_gru, monkeypatch):
    given = []
    monkeypatch.setattr(study, "sweep", lambda *arguments: given.append(arguments))
    words = ["--space", "optimizers", "--config", "quickstart", *words, "--learning_rate", "1"]
    assert roberta_gru("sweep", *words)[0] == 0
    ((recipe, space, options, folder, storage, seeds, command),) = given
    assert (Path(recipe).name, Path(space).name) == ("quickstart.yaml", "optimizers.yaml")
    assert (options, storage, seeds) == (["--learning_rate", "1"], None, num_seeds)
    assert folder == Path("runs/sweeps/quickstart-optimizers")
    assert command[1:] == ["sweep", *words]


def test_a_demo_is_given_what_the_command_says(saved, roberta_gru, monkeypatch):
    given = []
    monkeypatch.setattr(demo, "demo", lambda *arguments: given.append(arguments))
    assert roberta_gru("demo", saved, "--port", "7861", "--no-browser")[0] == 0
    assert given == [(str(saved), "127.0.0.1", 7861, False)]


def test_help_has_a_line_a_command_and_an_example(roberta_gru):
    status, said, _ = roberta_gru("--help")
    lines = said.splitlines()
    commands = get_command(cli.app).commands
    for name, command in commands.items():
        (line,) = (line for line in lines if line.startswith(f"  {name} "))
        assert line.endswith(".")
        assert not line.endswith("...")
        assert name == "train" or all(parameter.help for parameter in command.params)
    assert (status, any(line.strip() == "roberta-gru train --config quickstart" for line in lines)) == (0, True)


@pytest.mark.slow
def test_a_console_that_cannot_show_a_character_shows_its_code(saved, tmp_path):
    program = "import torch; torch.set_num_threads(1); from modeling_roberta_gru.cli import main; main()"
    command = [sys.executable, "-c", program, "explain", saved, "splendid → 映画", "--no-attributions"]
    process = subprocess.run(
        [*map(str, command), "--output-dir", str(tmp_path)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert process.returncode == 0, process.stderr
    assert b"\\u6620" in process.stdout


def test_control_characters_of_others_are_shown_not_obeyed(saved, roberta_gru):
    status, _, error = roberta_gru("evaluate", saved, "no\x1b[31mwhere\x07\x9b.csv")
    assert status == 2
    assert not set(error) & set("\x1b\x07\x9b")
    assert visible("a\x1b[31mb\x07\x9b\u202e\tc\n") == "a␛[31mb␇\\x9b\\u202e\tc\n"


USAGE_ERRORS = {
    "a command": ["scor"],
    "an option": ["score", "--text_colum", "x", "a", "b.csv", "c.csv"],
    "an argument": ["evaluate"],
    "a number": ["evaluate", "--batch-size", "many", "a", "b.csv"],
    "a file's kind": ["score", "a", "b.xlsx", "c.csv"],
    "a file": ["evaluate", "a", "nowhere.csv"],
    "a training option": ["train", "--learning_rat", "1"],
    "a training value": ["train", "--output-dir", "unused", "--seed", "some"],
    "a training file": ["train", "--output-dir", "unused", "--train-file", "nowhere.csv"],
    "a recipe": ["train", "--config", "quikstart"],
    "help": ["--help"],
    "help of training": ["train", "--help"],
    "a model": ["explain", "./nowhere", "a text"],
    "a model to start from": ["train", "--output-dir", "unused", "--model-name-or-path", "./nowhere"],
    "a followed file": ["watch", "a", "--follow", "nowhere.log"],
    "a run": ["publish", "nowhere", "me/mine"],
    "a space": ["sweep", "--space", "optimisers"],
    "seeds without a use": ["sweep", "--space", "optimizers", "--seeds", "2"],
    "workers": ["score", "model", "texts", "scored", "--engine", "ray", "--workers", "many"],
}


def test_help_and_usage_errors_import_neither_torch_nor_transformers():
    program = """
import contextlib, io, json, sys
from modeling_roberta_gru.cli import main
status = {}
for name, argv in json.loads(sys.argv.pop(1)).items():
    sys.argv[1:] = argv
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try: main()
        except SystemExit as end: status[name] = end.code
print(json.dumps([status, [name for name in ("torch", "transformers", "pyarrow", "numpy") if name in sys.modules]]))
"""
    command = [sys.executable, "-c", program, json.dumps(USAGE_ERRORS)]
    status, imported = json.loads(subprocess.check_output(command, text=True))
    assert status == {name: 0 if name.startswith("help") else 2 for name in USAGE_ERRORS}
    assert imported == []


@pytest.mark.parametrize("option", ["--text-column", "--text_column"])
def test_dashes_are_as_good_as_underscores(option, saved, reviews, roberta_gru):
    status, _, said = roberta_gru("evaluate", saved, reviews / "test.csv", option, "txt")
    assert (status, "'txt'" in said) == (2, True)


@pytest.mark.parametrize("ending", ["", ".csv"])
def test_a_folder_named_as_a_training_file_is_told_its_option(tmp_path, roberta_gru, ending):
    folder = tmp_path / f"texts{ending}"
    folder.mkdir()
    status, _, said = roberta_gru("train", "--train_file", folder, "--output_dir", tmp_path / "run")
    assert (status, "--dataset_name" in said) == (2, True)
    status, _, said = roberta_gru("score", "nowhere", folder, tmp_path / "scored.csv")
    assert (status, "folder" in said) == (2, True)
