"""A whole run on tiny data: what it leaves, what it says, and what it refuses."""

import io
import json
import shutil
import subprocess
import sys
import sysconfig
from contextlib import redirect_stdout
from functools import wraps
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from modeling_roberta_gru import RobertaGRUForSequenceClassification, cli, evaluate, experiment
from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.data.splits import load_splits
from modeling_roberta_gru.data.tokenization import tokenize
from modeling_roberta_gru.experiment import run
from modeling_roberta_gru.hub.check import predict_in_clean_process
from modeling_roberta_gru.training import plots, record, trained
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments, parse_run
from modeling_roberta_gru.training.metrics import fit_temperature
from modeling_roberta_gru.training.record import describe_hyperparameters
from modeling_roberta_gru.training.run_folder import RUN_FILES

from .tiny import ROOT, on_two_ranks, write_reviews

TINY_RUN = [
    *("--max_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3", "--save_steps", "3"),
    *("--save_strategy", "steps", "--learning_rate", "0.01", "--gru_hidden_size", "5", "--head_hidden_size", "4"),
    *("--disable_tqdm", "true", "--use_cpu", "true"),
]

LEFT = RUN_FILES.keys() - {"adapter"}


def train_tiny(folder: Path, *options: object, verify: bool = False) -> dict:
    argv = ["--output_dir", str(folder), *TINY_RUN, "--verify_load", str(verify), *map(str, options)]
    return run(*parse_run(argv), command=["train.py", *argv]).metrics


class Finished(NamedTuple):
    folder: Path
    metrics: dict
    printed: str
    predicted: list[dict]  # in a clean process, of the first test rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory, reviews, stand_in, save_plot):
    """Return a whole run, its plots drawn and its model loaded in a clean process."""
    folder, printed = tmp_path_factory.mktemp("runs") / "tiny", io.StringIO()
    predicted = []

    def predict(*args):
        predicted.extend(predict_in_clean_process(*args))
        return predicted

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(plots, "save", save_plot)
        patch.setattr(experiment, "predict_in_clean_process", predict)
        metrics = train_tiny(folder, "--dataset_name", reviews, "--model_name_or_path", stand_in, verify=True)
    return Finished(folder, metrics, printed.getvalue(), predicted)


@pytest.fixture
def begun(finished, tmp_path):
    """Return a copy of the whole run, to go on from."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_leaves_what_it_promises_and_nothing_else(finished):
    folder = finished.folder
    assert {path.name for path in folder.iterdir()} == {*LEFT, "checkpoint-3"}
    assert {path.name for path in (folder / "model").iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("configuration_roberta_gru.py", "modeling_roberta_gru.py", "LICENSE"),
        *("handler.py", "reading.py", "requirements.txt"),
        *("README.md", "run.json", "metrics.json", "confusion.png", "curves.png"),
    }
    assert len(read_json(folder / "model" / "config.json")["auto_map"]) == 4


def test_metrics_have_an_interval_and_a_number_of_rows(finished):
    folder, metrics = finished.folder, finished.metrics
    assert read_json(folder / "metrics.json") == metrics
    assert metrics["validation"]["n"] == 11
    assert metrics["test"]["n"] == 32
    figures = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss", "calibration_error")
    for split in ("validation", "test"):
        for name in figures:
            figure = metrics[split][name]
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["n"] == metrics[split]["n"]
        assert metrics[split]["per_class"].keys() == {"bad", "good"}
    assert metrics["bag_of_words"]["test"]["n"] == 32
    assert metrics["stopping"] == read_json(folder / "model" / "config.json")["stop_thresholds"]
    assert [entry["n"] for entry in metrics["stopping"].values()] == [11] * 5


def test_predictions_are_those_of_the_test_rows(finished, reviews):
    folder, metrics = finished.folder, finished.metrics
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert [row["row_id"] for row in rows] == [f"test:{row}" for row in range(32)]
    assert [row["label"] for row in rows] == ["bad", "good"] * 16
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert right == pytest.approx(metrics["test"]["accuracy"]["value"])
    p_true = [row["probabilities"][["bad", "good"].index(row["label"])] for row in rows]
    assert -np.log(p_true).mean() == pytest.approx(metrics["test"]["log_loss"]["value"])


def test_the_temperature_that_is_stored_is_the_one_fitted_on_validation(finished, reviews):
    folder, metrics = finished.folder, finished.metrics
    model = RobertaGRUForSequenceClassification.from_pretrained(folder / "model")
    temperature = model.config.calibration_temperature
    assert temperature == metrics["calibration"]["temperature"] != 1.0
    assert metrics["calibration"]["test"]["after"] == metrics["test"]["calibration_error"]
    validation = load_splits(DataArguments(dataset_name=str(reviews))).validation
    inputs = AutoTokenizer.from_pretrained(folder / "model")(validation["text"][:], padding=True, return_tensors="pt")
    logits = model(**inputs).logits.detach().numpy() * temperature
    assert fit_temperature(logits, validation["label"][:]) == pytest.approx(temperature, rel=1e-3)


def test_the_record_says_what_the_run_was(finished, reviews, stand_in):
    folder = finished.folder
    record = read_json(folder / "run.json")
    assert record["hyperparameters"]["optimizer"] == "nadam"
    assert record["hyperparameters"]["learning_rate"] == 0.01
    assert record["options"]["gru_hidden_size"] == 5
    assert record["data"]["counts"]["train"] == 85
    assert len(record["data"]["fingerprint"]) == 64
    assert record["model"]["base"] == str(stand_in)
    assert record["command"].startswith("train.py --output_dir")
    assert record["versions"].keys() >= {"python", "torch", "transformers"}
    assert record["steps"] == 3
    assert record["tokens_seen"] > 0
    assert record["hardware"]["num_cores"] >= 1


def test_whoever_may_read_the_configuration_may_read_the_weights(finished):
    model = finished.folder / "model"
    assert (model / "model.safetensors").stat().st_mode == (model / "config.json").stat().st_mode


def test_what_travels_does_not_tell_where_things_lay(finished, reviews, stand_in):
    folder = finished.folder
    for place in (folder.parent, reviews, stand_in):
        assert str(place) in (folder / "run.json").read_text()
        for path in (folder / "model").iterdir():
            assert str(place).encode() not in path.read_bytes(), path.name
    assert read_json(folder / "model" / "run.json")["model"]["base"] == f"…/{stand_in.name}"


def test_history_holds_every_logged_row(finished):
    folder = finished.folder
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert rows == read_json(folder / "checkpoint-3" / "trainer_state.json")["log_history"] + rows[-1:]
    assert rows[-2]["eval_accuracy"] >= 0
    assert rows[-1]["train_runtime"] > 0


def test_a_clean_process_gets_the_calibrated_probabilities(finished):
    rows = pq.read_table(finished.folder / "predictions.parquet").to_pylist()[:4]
    for row, prediction in zip(rows, finished.predicted, strict=True):
        assert prediction["label"] == row["prediction"]
        assert prediction["score"] == pytest.approx(max(row["probabilities"]), abs=1e-5)


@pytest.mark.slow
def test_a_clean_process_finds_libraries_wherever_they_are_installed(finished, monkeypatch):
    monkeypatch.setattr(sys, "executable", sys._base_executable)
    monkeypatch.setenv("PYTHONPATH", sysconfig.get_path("purelib"))
    assert predict_in_clean_process(finished.folder / "model", ["a text"])


@pytest.mark.slow
def test_a_folder_that_does_not_load_is_no_success(finished, tmp_path):
    folder = finished.folder
    (tmp_path / "config.json").write_text((folder / "model" / "config.json").read_text())
    with pytest.raises(RuntimeError, match="does not load in a clean process"):
        predict_in_clean_process(tmp_path, ["text"])


def test_the_report_names_result_interval_files_and_predictions(finished):
    report = finished.printed
    assert "Test accuracy 0." in report
    assert "n = 32" in report
    assert "Bag of words on the same rows: accuracy" in report
    assert "where importing modeling_roberta_gru fails" in report
    for name in LEFT:
        assert name in report


def test_equal_seeds_give_equal_metrics(finished, tmp_path, reviews, stand_in):
    metrics = finished.metrics
    again = train_tiny(tmp_path / "again", "--dataset_name", reviews, "--model_name_or_path", stand_in)
    assert again == metrics


def test_a_saved_model_can_be_trained_on_with_other_labels(finished, tmp_path):
    folder = finished.folder
    write_reviews(tmp_path / "three.csv", 60, seed=1, num_labels=3)
    train_tiny(tmp_path / "run", "--train_file", tmp_path / "three.csv", "--model_name_or_path", folder / "model")
    config = read_json(tmp_path / "run" / "model" / "config.json")
    assert config["id2label"] == {"0": "bad", "1": "fair", "2": "good"}
    assert config["gru_hidden_size"] == 5


@pytest.mark.parametrize("architecture", ["roberta-gru", "transformer"])
def test_what_other_data_wrote_for_their_labels_is_forgotten(architecture, finished, tmp_path, stand_in):
    base = finished.folder / "model"
    if architecture == "transformer":
        base = tmp_path / "base"
        RobertaForSequenceClassification(RobertaConfig.from_pretrained(stand_in)).save_pretrained(base)
        AutoTokenizer.from_pretrained(stand_in).save_pretrained(base)
    else:
        base = shutil.copytree(base, tmp_path / "base")
    config = read_json(base / "config.json")
    (base / "config.json").write_text(json.dumps({**config, "label_values": ["0", "4"]}))
    write_reviews(tmp_path / "three.csv", 60, seed=1, num_labels=3)
    options = ["--train_file", tmp_path / "three.csv", "--model_name_or_path", base, "--architecture", architecture]
    if architecture == "transformer":
        options += ["--gru_hidden_size", "null", "--head_hidden_size", "null"]
    train_tiny(tmp_path / "run", *options)
    config = read_json(tmp_path / "run" / "model" / "config.json")
    assert "label_values" not in config
    assert evaluate(str(tmp_path / "run"), str(tmp_path / "three.csv"))["n"] == 60


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_several_labels_and_numbers_are_learned_too(kind, tmp_path, stand_in):
    lines = []
    for row in range(60):
        label = [["dull"], ["dull", "long"], []][row % 3] if kind.startswith("multi") else row % 3 + 0.5
        lines.append(json.dumps({"text": f"review {row} of this and that", "label": label}))
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    metrics = train_tiny(tmp_path / "run", "--train_file", tmp_path / "data.jsonl", "--model_name_or_path", stand_in)
    assert ("micro_f1" if kind.startswith("multi") else "mae") in metrics["test"]
    assert read_json(tmp_path / "run" / "model" / "config.json")["problem_type"] == kind
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*LEFT, "checkpoint-3"}


def test_training_from_nothing_needs_no_checkpoint(tmp_path, reviews):
    overrides = "hidden_size=12,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16,vocab_size=300"
    train_tiny(tmp_path / "run", "--dataset_name", reviews, "--config_overrides", overrides)
    config = read_json(tmp_path / "run" / "model" / "config.json")
    assert config["vocab_size"] == 300
    assert read_json(tmp_path / "run" / "run.json")["model"]["base"] is None


def test_balanced_class_weights_and_frozen_layers_reach_the_model(tmp_path, stand_in):
    rows = ["good"] * 40 + ["bad"] * 15 + ["fair"] * 5
    lines = [f"text {row} of many,{label}" for row, label in enumerate(rows)]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "\n".join(f"{split} {line}" for line in lines))
    options = ["--class_weights", "balanced", "--freeze_encoder", "true", "--early_stopping_patience", "1"]
    data = ["--dataset_name", tmp_path, "--model_name_or_path", stand_in]
    train_tiny(tmp_path / "run", *data, *options)
    record = read_json(tmp_path / "run" / "run.json")
    assert record["hyperparameters"]["class_weights"] == [60 / (3 * count) for count in (15, 5, 40)]
    assert record["model"]["num_trained_parameters"] < record["model"]["num_parameters"]
    mapping = ["--class_weights", "{bad: 1, good: 2, fair: 3}"]
    train_tiny(tmp_path / "mapped", *data, *mapping)
    assert read_json(tmp_path / "mapped" / "model" / "config.json")["class_weights"] == [1.0, 3.0, 2.0]


def test_a_finished_run_is_gone_on_with_and_replaced_on_request_or_where_no_checkpoint_is_whole(
    tmp_path, reviews, stand_in
):
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in, "--bag_of_words", "false"]
    options += ["--load_best_model_at_end", "false"]
    auto = ["--resume_from_checkpoint", "auto"]
    folder = tmp_path / "run"
    begun = train_tiny(folder, *options, *auto)  # nothing there
    resumed = train_tiny(folder, *options, "--resume_from_checkpoint", "true", "--max_steps", "6")
    assert read_json(folder / "run.json")["steps"] == 6
    assert train_tiny(folder, *options, "--overwrite_output_dir", "true") == begun != resumed
    assert read_json(folder / "run.json")["steps"] == 3
    train_tiny(folder, *options, *auto, "--max_steps", "6")  # from checkpoint-3
    record = read_json(folder / "run.json")
    assert (record["steps"], record["training_seconds"]) == (6, None)
    logged = [list(json.loads(line)) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert logged[-3] == logged[-2] == sorted(logged[-2])  # an evaluation before the last resume, and one after
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        state.write_text("{")  # killed while it was written
    train_tiny(folder, *options, *auto)
    record = read_json(folder / "run.json")
    assert record["steps"] == 3
    assert record["training_seconds"] is not None
    elsewhere = shutil.copytree(folder / "checkpoint-3", tmp_path / "elsewhere" / "checkpoint-3")
    shutil.copytree(folder / "checkpoint-3", folder / "checkpoint-99")
    train_tiny(
        folder, *options, "--resume_from_checkpoint", elsewhere, "--overwrite_output_dir", "true", "--max_steps", "4"
    )
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.fixture(scope="module")
def essays(tmp_path_factory):
    """Return a CSV of 60 texts of up to 250 words, most of them longer than the stand-in's window of 64 tokens."""
    path = tmp_path_factory.mktemp("essays") / "essays.csv"
    rows = [f"essay {row} on {'the plot ' * (row * 2 + 4)},{['bad', 'good'][row % 2]}" for row in range(60)]
    path.write_text("\n".join(["text,label", *rows]))
    return path


def test_whole_documents_are_trained_on_by_default(tmp_path, essays, stand_in):
    folder = tmp_path / "run"
    options = ["--train_file", essays, "--model_name_or_path", stand_in]
    train_tiny(folder, *options)
    record = read_json(folder / "run.json")
    assert record["data"]["max_length"] is None
    assert record["data"]["max_windows"] is record["data"]["window_policy"] is None
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert tokenizer.model_max_length > 1e20
    train = tokenize(load_splits(DataArguments(train_file=[str(essays)])).train, tokenizer, None)
    assert max(train["length"]) > 100
    assert record["tokens_seen"] == round(sum(train["length"]) * record["epochs"])
    assert "Texts were read\nwhole." in (folder / "model" / "README.md").read_text()


def test_a_curriculum_is_recorded_and_its_tokens_are_not_guessed(tmp_path, essays, stand_in):
    train_tiny(tmp_path, "--train_file", essays, "--model_name_or_path", stand_in, "--length_curriculum", 1)
    record = read_json(tmp_path / "run.json")
    assert record["hyperparameters"]["length_curriculum"] == 1
    assert record["tokens_seen"] is None
    assert "epochs in" in (tmp_path / "model" / "README.md").read_text()


def test_training_documents_can_be_bounded(tmp_path, essays, stand_in):
    seen = set()
    forward = RobertaGRUForSequenceClassification.forward

    @wraps(forward)  # the Trainer reads off the signature which columns are wanted
    def listening(model, input_ids=None, **inputs):
        seen.add((model.training, input_ids.shape[1]))
        return forward(model, input_ids=input_ids, **inputs)

    options = ["--max_windows", 1, "--window_policy", "random", "--gradient_checkpointing", "true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RobertaGRUForSequenceClassification, "forward", listening)
        train_tiny(tmp_path / "run", "--train_file", essays, "--model_name_or_path", stand_in, *options)
    assert max(width for training, width in seen if training) == 64
    assert max(width for training, width in seen if not training) > 100
    record = read_json(tmp_path / "run" / "run.json")
    assert (record["data"]["max_windows"], record["data"]["window_policy"]) == (1, "random")
    assert record["tokens_seen"] <= 64 * 48 * record["epochs"]


def test_texts_can_be_cut_beyond_the_window(tmp_path, essays, stand_in):
    options = ["--train_file", essays, "--model_name_or_path", stand_in, "--max_steps", 1]
    train_tiny(tmp_path / "run", *options, "--max_length", 70)
    record = read_json(tmp_path / "run" / "run.json")
    assert record["data"]["max_length"] == record["options"]["max_length"] == 70
    assert read_json(tmp_path / "run" / "model" / "tokenizer.json")["truncation"] is None


def test_tensorboard_gets_the_history(tmp_path, reviews, stand_in, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in, "--bag_of_words", "false"]
    train_tiny(tmp_path / "run", *options, "--report_to", "tensorboard", "--logging_steps", 1)
    (log,) = {path.parent for path in (tmp_path / "board").rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(log))
    events.Reload()
    assert {"train/loss", "eval/loss", "eval/accuracy"} <= set(events.Tags()["scalars"])


# Interrupts


def test_an_interrupted_save_leaves_the_old_folder_whole(begun, reviews, stand_in, monkeypatch):
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in, "--bag_of_words", "false"]
    folder = begun
    before = {path: path.read_bytes() for path in sorted((folder / "model").iterdir())}
    save = RobertaGRUForSequenceClassification.save_pretrained

    def interrupted(model, path, *args, **kwargs):
        save(model, path, *args, **kwargs)
        if "checkpoint" not in str(path):
            raise KeyboardInterrupt

    monkeypatch.setattr(RobertaGRUForSequenceClassification, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(folder, *options, "--overwrite_output_dir", "true", "--learning_rate", "0.1")
    assert {path: path.read_bytes() for path in sorted((folder / "model").iterdir())} == before
    assert {path.name for path in folder.iterdir()} == {*LEFT, "checkpoint-3"}


def test_an_interrupt_after_the_model_is_written_leaves_the_old_run_whole(begun, reviews, stand_in, monkeypatch):
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in, "--bag_of_words", "false"]
    folder = begun
    results = [path for path in folder.rglob("*") if path.is_file() and "checkpoint" not in str(path)]
    before = {path: path.read_bytes() for path in results}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trained, "draw_curves", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(folder, *options, "--overwrite_output_dir", "true", "--learning_rate", "0.1")
    assert {path: path.read_bytes() for path in results} == before
    assert {path.name for path in folder.iterdir()} == {*LEFT, "checkpoint-3"}


def test_a_baseline_that_cannot_be_had_does_not_cost_the_model(tmp_path, stand_in, caplog):
    # Without spaces each text is one long word, and no word stands in two texts.
    lines = [f"{'好坏'[row % 2]}电影第{row}号,{row % 2}" for row in range(150)]
    (tmp_path / "data.csv").write_text("text,label\n" + "\n".join(lines))
    metrics = train_tiny(tmp_path / "run", "--train_file", tmp_path / "data.csv", "--model_name_or_path", stand_in)
    assert "bag_of_words" not in metrics
    assert "The bag-of-words baseline was skipped" in caplog.text
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_every_row_is_validated_and_tested_whatever_training_drops(tmp_path, finished, reviews, stand_in):
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in, "--per_device_eval_batch_size", 5]
    metrics = train_tiny(tmp_path / "run", *options, "--dataloader_drop_last", "true", "--bag_of_words", "false")
    for split in ("validation", "test"):
        assert metrics[split]["n"] == finished.metrics[split]["n"]


@pytest.mark.slow
def test_two_ranks_leave_one_run_and_one_report(tmp_path, finished, reviews, stand_in):
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in, "--per_device_train_batch_size", "8"]
    said = on_two_ranks("train.py", *TINY_RUN, "--output_dir", tmp_path / "run", *options)
    assert said.count("Test accuracy") == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*LEFT, "checkpoint-3"}
    rows = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    assert [row["row_id"] for row in rows] == [f"test:{row}" for row in range(32)]
    metrics = finished.metrics  # of one rank, with the same sixteen rows a step
    both = read_json(tmp_path / "run" / "metrics.json")
    assert both["test"]["n"] == 32
    assert both["validation"]["n"] == metrics["validation"]["n"]


# Bad input: one line, status 2, nothing written


def write_bert(folder: Path) -> None:
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForSequenceClassification(BertConfig(**sizes, intermediate_size=8)).save_pretrained(folder)


BAD_RUNS = {
    "missing file": (["--train_file", "{tmp}/nowhere.csv"], "nowhere.csv"),
    "unknown metric": (["--metric_for_best_model", "acuracy"], "Did you mean 'accuracy'?"),
    "one class": (["--train_file", "{tmp}/one.csv"], "two classes are needed"),
    "blank rows": (["--train_file", "{tmp}/blank.csv"], "--on_bad_row skip"),
    "targets that are not numbers": (
        ["--train_file", "{tmp}/targets.csv", "--problem_type", "regression"],
        "targets.csv",
    ),
    "another architecture": (["--model_name_or_path", "{tmp}/bert"], "`model_type` is 'bert'"),
    "no checkpoint": (["--model_name_or_path", "{tmp}/nothing"], "nothing"),
    "foreign tokenizer": (["--tokenizer_name", "{wide}"], "vocabulary ends at"),
    "tokenizer without padding": (["--tokenizer_name", "{unpadded}"], "has no padding token"),
    "an optimizer's value": (["--optimizer", "sgd", "--optim_args", "nesterov=True"], "cannot be built: Nesterov"),
    "other sizes": (["--config_overrides", "hidden_size=24"], "is of another size in"),
    "unknown weight": (["--class_weights", "{{bda: 1, good: 1}}"], "Did you mean 'bad'?"),
    "weights of nothing": (["--class_weights", "{{bad: 0, good: 0}}"], "gives every label weight 0"),
    "missing weight": (["--class_weights", "{{bad: 1}}"], "gives label 'good' no weight"),
    "strange weights": (["--class_weights", "heavy"], "must be none, balanced or a mapping"),
    "no room": (["--max_length", "2"], "--max_length 2 leaves no room for text beside 2 special tokens"),
    "idle windows": (
        ["--max_windows", "2", "--max_length", "64"],
        "--max_windows 2 takes no effect: its windows hold 111 tokens, and --max_length cuts texts to 64",
    ),
    "impossible field": (["--gru_hidden_size", "-3"], "`gru_hidden_size` is -3"),
    "losses alone": (["--prediction_loss_only", "true"], "--prediction_loss_only is set by the run itself"),
    "weights of half the bits": (["--bf16_full_eval", "true"], "--bf16_full_eval is set by the run itself"),
    "metrics of batches": (["--batch_eval_metrics", "true"], "--batch_eval_metrics is set by the run itself"),
    "batches apart": (["--eval_do_concat_batches", "false"], "--eval_do_concat_batches is set by the run itself"),
    "a field said by an option": (["--config_overrides", "label_smoothing=0.3"], "--label_smoothing_factor"),
    "a field said twice": (
        ["--gru_hidden_size", "8", "--config_overrides", "gru_hidden_size=4"],
        "--config_overrides gru_hidden_size: it is given twice",
    ),
    "classes by another option": (["--label_names", "bad", "good"], "Class names are --class_names"),
    "every column": (["--remove_unused_columns", "false"], "--remove_unused_columns is set by the run itself"),
    "impatient": (["--early_stopping_patience", "2", "--load_best_model_at_end", "false"], "needs --load_best_model"),
    "another optimizer": (
        ["--output_dir", "{finished}", "--resume_from_checkpoint", "true", "--optimizer", "adamw", "--max_steps", "6"],
        "was trained with --optimizer nadam, not adamw",
    ),
    "another seed's splits": (
        [
            *("--output_dir", "{finished}", "--resume_from_checkpoint", "true", "--split_seed", "9"),
            *("--max_steps", "6", "--tokenizer_name", "null"),
        ],
        "was trained on other rows, or other splits of them",
    ),
    "another model": (
        [
            "--output_dir",
            "{finished}",
            "--resume_from_checkpoint",
            "true",
            "--gru_hidden_size",
            "6",
            "--max_steps",
            "6",
        ],
        "was trained with --gru_hidden_size 5, not 6",
    ),
    "another run's checkpoint": (
        ["--output_dir", "{finished}", "--resume_from_checkpoint", "{elsewhere}", "--tokenizer_name", "null"],
        "holds another run",
    ),
    "a file for a folder": (["--output_dir", "{tmp}/one.csv"], "not a folder that can be written to"),
    "another run": (["--output_dir", "{finished}"], "holds another run"),
    "no rank": (["--lora", "0"], "--lora must be a rank of at least 1, got 0"),
    "no alpha": (["--lora", "2", "--lora_alpha", "0"], "--lora_alpha must be above 0"),
    "dropout of all": (["--lora", "2", "--lora_dropout", "1"], "--lora_dropout must be at least 0 and below 1"),
    "no LoRA": (["--lora_target_modules", "query"], "--lora_target_modules takes effect only with --lora RANK"),
    "twice frozen": (["--lora", "2", "--freeze_layers", "1"], "--freeze_layers cannot be combined with --lora"),
    "unknown layer": (["--lora", "2", "--lora_target_modules", "qeury"], "Did you mean 'query'?"),
    "LoRA on a checkpoint without": (
        [*("--output_dir", "{finished}", "--resume_from_checkpoint", "true", "--max_steps", "6"), "--lora", "2"],
        "was trained with --lora null, not 2",
    ),
    "nothing to resume": (["--resume_from_checkpoint", "true"], "holds no whole checkpoint yet"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory, reviews, finished):
    """Return what the options of BAD_RUNS name: files and folders that will not do."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "one.csv").write_text("text,label\n" + "".join(f"text {row},same\n" for row in range(9)))
    (folder / "blank.csv").write_text("text,label\n" + "".join(f"   ,{row % 2}\n" for row in range(9)))
    (folder / "targets.csv").write_text("text,label\n" + "".join(f"text {row},nan\n" for row in range(9)))
    write_bert(folder / "bert")
    wide, elsewhere = folder / "wide", folder / "elsewhere" / "checkpoint-3"
    train_tokenizer([f"word{row} wort{row * 7}" for row in range(500)], vocab_size=900).save_pretrained(wide)
    shutil.copytree(finished.folder / "checkpoint-3", elsewhere)
    tokenizer = AutoTokenizer.from_pretrained(finished.folder / "model")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder / "unpadded")
    named = {"elsewhere": elsewhere, "wide": wide, "unpadded": folder / "unpadded"}
    return {**named, "tmp": folder, "reviews": reviews, "finished": finished.folder}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_mistake_is_one_line_and_leaves_nothing(
    case, places, tmp_path, reviews, stand_in, finished, monkeypatch, capsys
):
    options, message = BAD_RUNS[case]
    options = [option.format(**places) for option in options]
    given = set(options)
    argv = ["roberta-gru", "train", *TINY_RUN]
    if not given & {"--dataset_name", "--train_file"}:
        argv += ["--dataset_name", str(reviews)]
    if "--model_name_or_path" not in given:
        argv += ["--model_name_or_path", str(stand_in)]
    if "--tokenizer_name" not in given:
        argv += ["--tokenizer_name", str(stand_in)]
    if "--output_dir" not in given:
        argv += ["--output_dir", str(tmp_path / "run")]
    before = sorted(finished.folder.rglob("*"))
    monkeypatch.setattr(sys, "argv", [*argv, *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("Error: ")
    assert message in said[-1]
    assert not (tmp_path / "run").exists()
    assert sorted(finished.folder.rglob("*")) == before


def test_the_script_ends_with_status_two():
    process = subprocess.run(
        [sys.executable, "train.py", "--output_dir", "unused", "--train_file", "nowhere.csv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert process.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(("max_steps", "is_said"), [(6, True), (7, False), (-1, False)])
def test_a_training_that_ends_before_the_longest_documents_is_said_to(tmp_path, caplog, max_steps, is_said):
    args = RobertaGRUTrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        length_curriculum=2,
        max_steps=max_steps,
        num_train_epochs=3,
        use_cpu=True,
    )
    experiment._warn_of_short_training(args, num_rows=12)
    assert ("--length_curriculum 2 takes 6 steps" in caplog.text) == is_said


def test_the_batch_size_that_was_found_is_the_one_recorded(tmp_path):
    args = RobertaGRUTrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=64, gradient_accumulation_steps=2, use_cpu=True
    )
    assert describe_hyperparameters(args, 16, None, 0.0)["batch_size"] == 32


def test_an_installed_package_names_no_commit_of_the_users_own_repository(tmp_path, monkeypatch):
    package = tmp_path / "venv" / "modeling_roberta_gru"
    (package / "training").mkdir(parents=True)
    for words in (
        ["init", "--quiet"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a", "--allow-empty"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(record, "__file__", str(package / "training" / "record.py"))
    assert len(record.describe_platform()["commit"]) == 40
    (package / "carried").mkdir()  # which an installed package has
    assert record.describe_platform()["commit"] is None
