"""The inputs that people really have (../shared/cases), each through the whole of `train`, `evaluate` and `score`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.documents import read_file
from modeling_roberta_gru.data.tables import open_table

from .test_experiment import TINY_RUN
from .tiny import SHARED

CASES = SHARED / "cases"
NUM_ROWS = 120
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases"),
]
# The case → the labels that the model has.
FILES = {
    "semicolon.csv": ["neg", "pos"],
    "barequotes.tsv": ["neg", "pos"],
    "trailing.csv": ["neg", "pos"],
    "vec2.jsonl": ["0", "1"],
    "strlists.csv": ["neg", "pos", "price"],
    "bools.jsonl": ["False", "True"],
    "bools_lower.csv": ["false", "true"],  # equal to those of the other file, which evaluates it
    "view.parquet": ["neg", "pos"],
    "pandas.json": ["neg", "pos"],
}


@pytest.fixture(name="roberta_gru")
def ends_well(roberta_gru) -> Callable[..., str]:
    """Return a function that runs a command, which must end well, and returns what it says."""

    def call(*argv: object) -> str:
        ended = roberta_gru(*argv)
        assert ended.status == 0, ended.error
        return ended.said + ended.error

    return call


@pytest.fixture
def train(roberta_gru, stand_in, tmp_path) -> Callable[..., dict[str, Any]]:
    """Return a function that trains for one step and returns what is recorded of the data."""

    def call(*options: object) -> dict[str, Any]:
        options = ("--output_dir", tmp_path / "run", *TINY_RUN, "--verify_load", False, "--max_steps", 1, *options)
        said = roberta_gru("train", "--model_name_or_path", stand_in, *options)
        recorded = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
        rows = recorded["counts"]["rows"]
        assert f"Rows: {rows['read']} read, {rows['skipped']} skipped, {rows['used']} used." in said
        return recorded

    return call


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [record for chunk in open_table(path).chunks() for record in chunk.records]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_trained_on_evaluated_and_scored_whole(roberta_gru, train, tmp_path, name):
    recorded = train("--train_file", CASES / name)
    kind = "multi" if name == "strlists.csv" else "single"
    assert recorded["counts"]["rows"] == {"read": NUM_ROWS, "skipped": 0, "used": NUM_ROWS}
    assert (recorded["labels"], recorded["problem_type"]) == (FILES[name], f"{kind}_label_classification")

    twin = {"bools.jsonl": "bools_lower.csv", "bools_lower.csv": "bools.jsonl"}.get(name, name)
    roberta_gru("evaluate", tmp_path / "run", CASES / twin, "--output", tmp_path / "metrics.json")
    assert (
        json.loads((tmp_path / "metrics.json").read_text())["accuracy" if kind == "single" else "micro_f1"]["n"]
        == NUM_ROWS
    )

    target = tmp_path / f"scored{Path(name).suffix}"
    assert f"{NUM_ROWS} rows in" in roberta_gru("score", tmp_path / "run", CASES / name, target, "--dtype", "float32")
    before, after = rows_of(CASES / name), rows_of(target)
    assert [{column: row[column] for column in before[0]} for row in after] == before
    assert all(row["predicted_label"] or kind == "multi" for row in after)
    assert open_table(target).dialect == open_table(CASES / name).dialect
    assert open_table(target).has_byte_order_mark == open_table(CASES / name).has_byte_order_mark


def test_quotation_marks_that_mean_nothing_stay_in_the_text():
    texts = [
        text
        for chunk in read_file(CASES / "barequotes.tsv", DataArguments()).chunks()
        for text in chunk.values("text")
    ]
    lines = (CASES / "barequotes.tsv").read_text().splitlines()[1:]
    assert texts == [line.split("\t")[0] for line in lines]
    assert any(text.startswith('"') for text in texts)


def test_files_whose_strings_are_of_two_kinds_are_read_together(train):
    recorded = train("--train_file", CASES / "lparta.parquet", CASES / "lpartb.parquet")
    assert pq.read_schema(CASES / "lparta.parquet") != pq.read_schema(CASES / "lpartb.parquet")
    assert recorded["counts"]["rows"] == {"read": NUM_ROWS, "skipped": 0, "used": NUM_ROWS}
    assert recorded["labels"] == ["neg", "pos"]


def test_what_jupyter_leaves_in_a_folder_is_no_data(train):
    recorded = train("--dataset_name", CASES / "jupyter")
    assert recorded["counts"]["rows"] == {"read": NUM_ROWS, "skipped": 0, "used": NUM_ROWS}
    assert recorded["counts"]["test"] == 20


def test_a_test_file_without_labels_is_left_out_and_said_so(train, caplog):
    recorded = train("--dataset_name", CASES / "kaggle")
    assert recorded["counts"]["rows"]["read"] == len(rows_of(CASES / "kaggle" / "train.csv"))
    assert "test.csv is left out: it has no column 'label'" in caplog.text
    assert "sample_submission.csv is left out" in caplog.text


def test_a_row_of_too_few_cells_comes_out_without_a_prediction(roberta_gru, train, tmp_path):
    train("--train_file", CASES / "semicolon.csv")
    target = tmp_path / "scored.csv"
    said = roberta_gru(
        "score", tmp_path / "run", CASES / "raggedscore.csv", target, "--skip-bad-rows", "--dtype", "float32"
    )
    assert "1 rows have no text" in said
    rows = rows_of(target)
    assert [row["text"] for row in rows] == ["fine one", "broken row", "another, fine"]
    assert [bool(row["predicted_label"]) for row in rows] == [True, False, True]
