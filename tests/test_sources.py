"""Finding rows: files, folders of every layout, URLs, memory, the Hub; and what is said when there are none."""

import csv
import gzip
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.documents import as_numbers, class_names, describe_source, read_file, read_source
from modeling_roberta_gru.data.labels import LabelSpace
from modeling_roberta_gru.data.splits import load_labelled, load_splits
from modeling_roberta_gru.data.tables import Table, fetch
from modeling_roberta_gru.training.metrics import slice_rows

from .refusals import refused

ROWS = {"text": ["good", 'so, "so"', "bad\nvery bad"], "label": ["pos", "pos", "neg"]}
SENTIMENT140 = ["target", "id", "date", "flag", "user", "text"]
CSV = 'text,label\ngood,pos\n"so, ""so""",pos\n"bad\nvery bad",neg\n'


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(table: Table, column: str = "text") -> list:
    return [value for chunk in table.chunks() for value in chunk.values(column)]


def read(path: Path, **options: object) -> Table:
    return read_file(path, DataArguments(**options))


def json_lines(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_rows(path: Path) -> Path:
    """Write `ROWS` in the format that the ending of `path` says."""
    records = [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(ROWS), path)
        return path
    as_text = {
        ".csv": CSV,
        ".tsv": 'text\tlabel\ngood\tpos\n"so, ""so"""\tpos\n"bad\nvery bad"\tneg\n',
        ".jsonl": json_lines(records),
        ".ndjson": json_lines(records),
        ".json": json.dumps(records, indent=2),
    }
    return write(path, as_text[path.suffix])


# files


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"])
def test_every_format_reads_the_same_rows(tmp_path, ending):
    table = read(write_rows(tmp_path / f"reviews{ending}"))
    assert {name: cells(table, name) for name in ROWS} == ROWS


def test_several_files_of_a_split_are_its_tables_in_order(tmp_path):
    paths = [str(write(tmp_path / name, f"text,label\n{name},x\n")) for name in ("b.csv", "a.csv")]
    tables = read_source(DataArguments(train_file=paths))["train"]
    assert [cells(table) for table in tables] == [["b.csv"], ["a.csv"]]
    assert describe_source(DataArguments(train_file=paths)) == "b.csv, a.csv"


def test_sentiment140_as_published_gives_three_splits(tmp_path):
    tweets = {f'@user{row}, it\'s "été"\nin café {row} &amp; über': row % 2 for row in range(20)}
    path = tmp_path / "tweets.csv"
    with path.open("w", newline="", encoding="latin-1") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        for text, label in tweets.items():
            writer.writerow([4 * label, 1467810369, "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", "someone", text])
    splits = load_splits(
        DataArguments(
            train_file=[str(path)],
            csv_columns=SENTIMENT140,
            csv_encoding="latin-1",
            label_column="target",
            class_names=["negative", "positive"],
        )
    )
    assert (splits.labels.names, splits.labels.values) == (("negative", "positive"), ("0", "4"))
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [16, 2, 2]
    assert {text: label for part in parts for text, label in zip(part["text"], part["label"], strict=True)} == tweets


def test_named_columns_and_encoding_apply_to_the_csv_and_tsv_files_of_a_folder(tmp_path):
    write(tmp_path / "train.tsv", "caf\xe9\tgood\n".encode("latin-1"))
    write(tmp_path / "dev.csv", "th\xe9,bad\n".encode("latin-1"))
    write(tmp_path / "test.jsonl", json_lines([{"text": "crème", "label": "good"}]))
    options = {"csv_columns": ["text", "label"], "csv_encoding": "latin-1"}
    given = read_source(DataArguments(dataset_name=str(tmp_path), **options))
    assert {split: cells(table) for split, (table,) in given.items()} == {
        "train": ["café"],
        "validation": ["thé"],
        "test": ["crème"],
    }


@pytest.mark.parametrize(
    "options", [{"csv_columns": ["text", "label"]}, {"csv_encoding": "latin-1"}, {"csv_delimiter": ";"}]
)
@pytest.mark.parametrize("source", ["built-in", "folder", "file", "Hub"])
def test_csv_options_without_a_csv_file_are_refused(tmp_path, options, source):
    path = write_rows(tmp_path / "train.parquet")
    arguments = {
        "built-in": {},
        "folder": {"dataset_name": str(tmp_path)},
        "file": {"train_file": [str(path)]},
        "Hub": {"dataset_name": "some/reviews"},
    }[source]
    with refused(field=next(iter(options))):
        read_source(DataArguments(**arguments, **options))


def test_a_header_beside_named_columns_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na,b\n")
    with refused(field="csv_columns", file=str(path)):
        cells(read(path, csv_columns=["text", "label"]))


def test_an_unnamed_csv_column_gets_a_name(tmp_path):
    table = read(write(tmp_path / "pandas.csv", ",text,label\n0,good,pos\n"))
    assert table.schema.names == ["column_1", "text", "label"]


def test_class_names_in_parquet_metadata_are_kept(tmp_path):
    features = Features(text=Value("string"), label=ClassLabel(names=["neg", "pos"]))
    Dataset.from_dict({"text": ["a"], "label": [1]}, features=features).to_parquet(tmp_path / "hub.parquet")
    assert class_names(read(tmp_path / "hub.parquet"), "label") == ["neg", "pos"]


def test_a_missing_file_names_what_lies_there(tmp_path):
    write(tmp_path / "notes.txt", "-")
    with refused(file=str(tmp_path / "review.csv"), match=r"contains: notes.txt\."):
        read(tmp_path / "review.csv")
    with refused(file=str(tmp_path / "data" / "review.csv"), match="data' does not exist either"):
        read(tmp_path / "data" / "review.csv")


def test_a_folder_given_as_a_file_and_a_file_given_as_a_data_set_are_told(tmp_path):
    with refused(file=str(tmp_path), match="--dataset_name"):
        read(tmp_path)
    path = write_rows(tmp_path / "reviews.csv")
    with refused(field="dataset_name", match="--train_file"):
        read_source(DataArguments(dataset_name=str(path)))


@pytest.mark.parametrize(
    ("name", "content"),
    [("header.csv", "text,label\n"), ("none.jsonl", "\n\n"), ("list.json", "[]"), ("blank.csv", "\n")],
)
def test_a_file_without_rows_is_an_error(tmp_path, name, content):
    with refused(file=str(tmp_path / name), match="has no rows|has no column"):
        load_splits(DataArguments(train_file=[str(write(tmp_path / name, content))]))


# URLs


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    """Serve the test's folder on loopback."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_files_are_read_from_urls(tmp_path, server, ending):
    if ending == ".csv.gz":
        write(tmp_path / f"reviews{ending}", gzip.compress(CSV.encode()))
    else:
        write_rows(tmp_path / f"reviews{ending}")
    (table,) = read_source(DataArguments(train_file=[f"{server}/reviews{ending}?version=2"]))["train"]
    assert cells(table) == ROWS["text"]
    assert describe_source(DataArguments(train_file=[f"{server}/reviews.csv"])) == "reviews.csv"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_url_names_is_fetched_once_until_it_changes(tmp_path, server):
    location = f"{server}/reviews.csv"
    write(tmp_path / "reviews.csv", "text,label\na,b\n")
    first = fetch(location)
    assert fetch(location) == first
    write(tmp_path / "reviews.csv", "text,label\nother,b\n")
    assert cells(read_source(DataArguments(train_file=[location]))["train"][0]) == ["other"]


def test_a_url_of_a_file_of_this_machine_is_its_path(tmp_path):
    path = write_rows(tmp_path / "the reviews.csv")
    for url in (path.as_uri(), Path(path.as_uri())):
        (table,) = read_source(DataArguments(train_file=[str(url)]))["train"]
        assert (table.name, cells(table)) == (str(path), ROWS["text"])


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_url_that_cannot_be_read_is_one_clear_error(server):
    with refused(file=f"{server}/none.csv"):
        read_source(DataArguments(train_file=[f"{server}/none.csv"]))
    with refused(match="none.csv") as raised:  # "?" stands for nothing
        read_source(DataArguments(train_file=[f"{server}/none.csv?version=2"]))
    assert "glob" not in str(raised.value)
    with refused(file="nosuch://a/b.csv", match="Protocol not known"):
        read_source(DataArguments(train_file=["nosuch://a/b.csv"]))


# memory


def many(kind: str) -> Any:
    texts, labels = [f"text {row}" for row in range(40)], ["pos", "neg"] * 20
    columns = {"text": texts, "label": labels}
    return {
        "dataset": lambda: Dataset.from_dict(columns),
        "pandas": lambda: pd.DataFrame({**columns, "odd": [{}, 1] * 20}),
        "categories": lambda: pd.DataFrame({"text": texts, "label": pd.Categorical(labels)}),
        "arrow": lambda: pa.table(columns),
        "views": lambda: pa.table({"text": pa.array(texts, pa.string_view()), "label": labels}),
        "rows": lambda: [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        "columns": lambda: columns,
        "pair": lambda: (texts, labels),
        "arrays": lambda: (np.array(texts), np.array(labels)),
        "series": lambda: (pd.Series(texts), pd.Series(labels)),
    }[kind]()


KINDS = ["dataset", "pandas", "categories", "arrow", "views", "rows", "columns", "pair", "arrays", "series"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_memory_are_split_like_those_of_a_file(kind):
    expected = load_splits(DataArguments(), tables={"train": many("columns")})
    splits = load_splits(DataArguments(), tables={"train": many(kind), "test": None})
    assert splits.fingerprint == expected.fingerprint
    assert len(load_labelled(many(kind), DataArguments(), splits.labels)[0]) == 40
    assert splits.source == "rows in memory (train, test); validation and test split off from train"


def test_polars_frames_are_read_as_arrow_gives_them():
    assert len(load_splits(DataArguments(), tables={"train": polars.DataFrame(many("columns"))}).train) == 32


def test_missing_values_of_frames_are_bad_rows():
    frame = pd.DataFrame({"text": ["a", None, "c", float("nan")], "label": ["x", "y", pd.NA, "y"]})
    with refused(file="train", row=2, match="rows 2, 4: .*null; row 3: .*missing"):
        load_splits(DataArguments(), tables={"train": frame})


@pytest.mark.parametrize("rows", [[], {}, ([], [])])
def test_no_rows_in_memory_are_said_to_be_none(rows):
    with refused(file="train", match="no rows"):
        load_splits(DataArguments(), tables={"train": rows})


def test_numbers_of_numpy_are_numbers_beside_the_text():
    columns, labels = (
        {"text": list("abc"), "label": list("xyx")},
        LabelSpace("single_label_classification", ("x", "y")),
    )
    for stars in ([1, 2, 3], np.array([1, 2, 3]), np.array([1, 2, 3], np.float32)):
        documents, _ = load_labelled(columns | {"stars": stars}, DataArguments(), labels, ["stars"])
        assert documents["stars"][:] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", ["pandas", "parquet", "csv", "jsonl"])
def test_values_beside_the_text_are_the_same_wherever_a_frame_lies(tmp_path, kind):
    frame = pd.DataFrame({"text": list("abcd"), "label": ["x", "y"] * 2, "maker": ["A", None, "A", "B"]})
    frame["stars"] = [1.5, float("nan"), 2, 1.5]
    frame["sold"] = pd.array([3, pd.NA, 3, 4], "Int64")
    frame["shop"] = pd.array(["C", "", pd.NA, "C"], "string")
    path = str(tmp_path / f"frame.{kind}")
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "csv":
        frame.to_csv(path)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    columns, labels = ["maker", "stars", "sold", "shop"], LabelSpace("single_label_classification", ("x", "y"))
    rows, _ = load_labelled(frame if kind == "pandas" else path, DataArguments(), labels, columns)
    slices = [slice_rows(as_numbers(rows[column][:])) for column in columns]
    assert [{name: found.tolist() for name, found in named.items()} for named in slices] == [
        {"A": [0, 2], "B": [3], "(missing)": [1]},
        {"1.5": [0, 3], "2": [2], "(missing)": [1]},
        {"3": [0, 2], "4": [3], "(missing)": [1]},
        {"C": [0, 3], "(missing)": [1, 2]},
    ]


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT, np.float32("nan"), np.datetime64("NaT")])
def test_what_stands_for_none_in_memory_is_none_beside_the_text(value):
    columns = {"text": ["a", "b"], "label": ["x", "y"], "maker": ["A", value], "stars": [1, value]}
    labels = LabelSpace("single_label_classification", ("x", "y"))
    rows, _ = load_labelled(columns, DataArguments(), labels, ["maker", "stars"])
    assert rows["maker"][:] == ["A", None]
    assert rows["stars"][:] == [1.0, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a text", "got str"),
        (["a text"], r"got list\. .*train\(\(texts, labels\)"),
        (5, r"got int\.$"),
        (pd.Series(["a text"]), r"got Series\. .*train\(\(texts, labels\)"),
        (polars.Series(["a text"]), r"got Series\. .*train\(\(texts, labels\)"),
        ((["a"], ["x", "y"]), "there are 1 texts and 2 labels"),
        ({"text": ["a"], "label": []}, "its columns are not equally long"),
    ],
)
def test_what_is_no_table_in_memory_is_refused(rows, message):
    with refused(field="train", match=message):
        load_splits(DataArguments(), tables={"train": rows})


def test_polars_categories_are_labels():
    frame = polars.DataFrame(many("columns")).with_columns(polars.col("label").cast(polars.Categorical))
    assert load_splits(DataArguments(), tables={"train": frame}).labels.names == ("neg", "pos")


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_two_columns_of_one_name_matter_if_they_are_wanted(kind):
    table = pa.table([*many("columns").values(), ["x"] * 40, ["y"] * 40], names=["text", "label", "odd", "odd"])
    twice = table.append_column("text", table.column(2))
    table, twice = (rows.to_pandas() if kind == "pandas" else rows for rows in (table, twice))
    assert len(load_splits(DataArguments(), tables={"train": table}).train) == 32
    with refused(field="text", file="train", match="two columns"):
        load_splits(DataArguments(), tables={"train": twice})


# folders


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("my_train_2024.jsonl", "train"),
        ("dev-00000-of-00001.parquet", "validation"),
        ("valid.tsv", "validation"),
        ("val/part1.csv", "validation"),
        ("eval.ndjson", "validation"),
        ("TEST.csv", "test"),
        ("test/train_like.csv", "train"),
    ],
)
def test_a_file_name_says_its_split(tmp_path, name, split):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_rows(tmp_path / name)
    assert list(read_source(DataArguments(dataset_name=str(tmp_path)))) == [split]


def test_files_that_name_no_split_are_all_training(tmp_path):
    write_rows(tmp_path / "latest.csv")
    write_rows(tmp_path / "contest.parquet")
    given = read_source(DataArguments(dataset_name=str(tmp_path)))
    assert [len(parts) for parts in given.values()] == [2]
    assert list(given) == ["train"]


def test_beside_named_splits_other_files_are_left_out_aloud(tmp_path, caplog):
    write_rows(tmp_path / "train.csv")
    write_rows(tmp_path / "unlabelled.csv")
    given = read_source(DataArguments(dataset_name=str(tmp_path)))
    assert [table.name for table in given["train"]] == [str(tmp_path / "train.csv")]
    assert "unlabelled.csv is left out: its name says no split" in caplog.text


def test_a_folder_without_readable_files_names_what_it_holds(tmp_path):
    write(tmp_path / "data.arrow", "x")
    with refused(file=str(tmp_path), match=r"no file of rows .* It holds: data.arrow\."):
        read_source(DataArguments(dataset_name=str(tmp_path)))


@pytest.mark.parametrize("kind", ["rows", "texts"])
def test_linked_folders_are_read_as_linked_files_are_and_once(tmp_path, kind):
    held, data = tmp_path / "held", tmp_path / "data"
    for split, words in (("train", "abc"), ("test", "de")):
        for number, word in enumerate(words * 2):
            if kind == "texts":
                write(held / split / ("pos" if number % 2 else "neg") / f"{number}.txt", word * (number + 1))
        if kind == "rows":
            write(held / split / "part.csv", "text,label\n" + "".join(f"{word},{word}\n" for word in words))
    data.mkdir()
    (data / "train").symlink_to(held / "train")
    (data / "test").symlink_to(held / "test")
    (held / "train" / "above").symlink_to(held / "train")  # without end
    found = read_source(DataArguments(dataset_name=str(data)))
    rows = {split: sum(len(chunk) for table in tables for chunk in table.chunks()) for split, tables in found.items()}
    assert rows == ({"train": 3, "test": 2} if kind == "rows" else {"train": 6, "test": 4})


def test_a_file_beside_its_compressed_copy_is_refused(tmp_path):
    write(tmp_path / "train.csv", CSV)
    write(tmp_path / "test.csv", CSV)
    write(tmp_path / "test.csv.gz", gzip.compress(CSV.encode()))
    with refused(file=str(tmp_path / "test.csv.gz"), match=r"test\.csv and "):
        read_source(DataArguments(dataset_name=str(tmp_path)))


@pytest.mark.parametrize("name", ["folder", "built-in"])
@pytest.mark.parametrize("option", ["dataset_revision", "dataset_config_name"])
def test_what_only_the_hub_has_is_asked_of_the_hub_alone(tmp_path, monkeypatch, name, option):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "folder" / "train.csv", CSV)
    with refused(field=option, file=name):
        read_source(DataArguments(dataset_name=name, **{option: "v7"}))


def test_what_is_no_data_in_a_folder_is_left_out_quietly(tmp_path, caplog):
    write_rows(tmp_path / "train.csv")
    for name in (
        ".ipynb_checkpoints/train-checkpoint.csv",
        "__MACOSX/._train.csv",
        "._train.csv",
        ".hidden/train.csv",
        "_SUCCESS",
        "_metadata/train.parquet",
        "~$train.csv",
        "dataset_infos.json",
        "dataset_info.json",
    ):
        write(tmp_path / name, "{}")
    given = read_source(DataArguments(dataset_name=str(tmp_path)))
    assert [table.name for table in given["train"]] == [str(tmp_path / "train.csv")]
    assert caplog.text == ""


def test_the_unlabelled_test_file_of_a_competition_is_left_out_aloud(tmp_path, caplog):
    write(tmp_path / "train.csv", "text,label\n" + "".join(f"text {row},{'ab'[row % 2]}\n" for row in range(40)))
    write(tmp_path / "test.csv", "id,text\n0,a\n")
    write(tmp_path / "sample_submission.csv", "id,label\n0,a\n")
    splits = load_splits(DataArguments(dataset_name=str(tmp_path)))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (32, 4, 4)
    assert "test.csv is left out: it has no column 'label', so no labels" in caplog.text
    assert "sample_submission.csv is left out: its name says no split" in caplog.text


def test_a_test_file_of_json_without_labels_is_left_out_too(tmp_path, caplog):
    lines = [json.dumps({"text": f"text {row}", "label": "ab"[row % 2]}) for row in range(40)]
    write(tmp_path / "train.jsonl", "\n".join(lines))
    write(tmp_path / "test.jsonl", '{"text": "a"}\n{"text": "b"}\n')
    assert len(load_splits(DataArguments(dataset_name=str(tmp_path))).train) == 32
    assert "test.jsonl is left out: it has no column 'label', so no labels" in caplog.text
    for content in ('{"text": "a"}\n{"text": "b", "label": "a"}\n', "no JSON\n"):  # rows to be named
        write(tmp_path / "test.jsonl", content)
        with refused(file=str(tmp_path / "test.jsonl"), row=1):
            load_splits(DataArguments(dataset_name=str(tmp_path)))


@pytest.mark.parametrize(("content", "reason"), [(b" \n", "is empty"), (b"\xe9", "is not UTF-8 text")])
def test_a_text_file_that_is_bad_is_named(tmp_path, content, reason):
    for label in ("pos", "neg"):
        write(tmp_path / label / "1.txt", label)
    (tmp_path / "pos" / "2.txt").write_bytes(content)
    with refused(file=str(tmp_path), row=3, match=rf"{reason} \(pos/2\.txt\)"):
        load_splits(DataArguments(dataset_name=str(tmp_path)))


@pytest.mark.parametrize("nested", [True, False])
def test_folders_of_text_files_are_classes(tmp_path, nested):
    for split in ("train", "test") if nested else ("",):
        for label in ("pos", "neg", "unsup"):
            for number in range(3):
                write(tmp_path / split / label / f"{number}_7.txt", f"{split} {label} {number}\nmore")
        write(tmp_path / split / "urls_pos.txt", "no text")
    given = read_source(DataArguments(dataset_name=str(tmp_path), text_column=["review"], label_column=["mood"]))
    assert list(given) == (["train", "test"] if nested else ["train"])
    split = "train" if nested else ""
    assert cells(given["train"][0], "mood") == ["neg"] * 3 + ["pos"] * 3
    assert cells(given["train"][0], "review")[3] == f"{split} pos 0\nmore"


@pytest.mark.parametrize(
    ("files", "found", "left_out"),
    [
        # Of a split's only class, nothing is lost.
        ("train/pos/1 train/neg/1 test/pos/1", {"train": ["neg", "pos"], "test": ["pos"]}, 0),
        # Classes that are called as splits are.
        ("train/valid/1 train/invalid/1 train/test/1", {"train": ["invalid", "test", "valid"]}, 0),
        ("train/pos/1 train/neg/1 train/neg/2020/1 held/pos/1 misc/1 1", {"train": ["neg", "pos"]}, 4),
        ("pos/1 neg/1 neg/2020/1 train/1", {"train": ["neg", "pos"]}, 2),
        # Of IMDb as published, what has no label is left out without a word.
        (
            "train/pos/1 train/neg/1 train/unsup/1 test/pos/1 test/neg/1",
            {s: ["neg", "pos"] for s in ("train", "test")},
            0,
        ),
        ("pos/1 neg/1 test/pos/1 test/neg/1", {split: ["neg", "pos"] for split in ("train", "test")}, 0),
        ("pos/1 neg/1 test/notes/1", {"train": ["neg", "pos"]}, 1),
        ("train/pos/1 train/neg/1 test/all/1", {"train": ["neg", "pos"]}, 1),
        (
            "train/pos/1 train/neg/1 train/_none/1 train/~/2 train/.cache/1 __MACOSX/pos/1",
            {"train": ["neg", "pos"]},
            2,
        ),
    ],
)
def test_text_files_in_folders_are_read_or_left_out_aloud(tmp_path, caplog, files, found, left_out):
    for file in files.split():
        write(tmp_path / f"{file}.txt", file)
    given = read_source(DataArguments(dataset_name=str(tmp_path)))
    assert {split: cells(tables[0], "label") for split, tables in given.items()} == found
    warned = [record.args[0] for record in caplog.records if "text files are left out" in record.msg]
    assert warned == ([left_out] if left_out else [])


def test_a_saved_test_split_without_labels_is_left_out_aloud(tmp_path, caplog):
    splits = {"train": Dataset.from_dict(ROWS), "test": Dataset.from_dict({"text": ROWS["text"]})}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert list(read_source(DataArguments(dataset_name=str(tmp_path / "saved")))) == ["train"]
    assert "no labels" in caplog.text


def test_lists_of_labels_are_read_from_what_save_to_disk_writes(tmp_path):
    Dataset.from_dict({"text": ["a", "b"], "label": [[0], [0, 1]]}).save_to_disk(tmp_path / "saved")
    (table,) = read_source(DataArguments(dataset_name=str(tmp_path / "saved")))["train"]
    assert cells(table) == ["a", "b"]


def test_names_of_a_list_of_classes_are_read_as_older_datasets_wrote_them(tmp_path):
    info = {"info": {"features": {"label": [{"names": ["n", "p"], "_type": "ClassLabel"}]}}}
    rows = pa.table({"text": ["a", "b"], "label": [[0], [0, 1]]})
    pq.write_table(rows.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "in.parquet")
    assert class_names(read(tmp_path / "in.parquet"), "label") == ["n", "p"]


@pytest.mark.parametrize("splits", [True, False])
def test_what_save_to_disk_writes_is_read(tmp_path, splits):
    features = Features(text=Value("string"), label=ClassLabel(names=["n", "p"]))
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    (DatasetDict({"train": rows, "eval": rows}) if splits else rows).save_to_disk(tmp_path / "saved")
    given = read_source(DataArguments(dataset_name=str(tmp_path / "saved")))
    assert list(given) == (["train", "validation"] if splits else ["train"])
    assert cells(given["train"][0]) == ["a", "b"]
    assert class_names(given["train"][0], "label") == ["n", "p"]
    (tmp_path / "saved" / ("dataset_dict.json" if splits else "state.json")).write_text("{")
    with refused(file=str(tmp_path / "saved"), match="save_to_disk"):
        read_source(DataArguments(dataset_name=str(tmp_path / "saved")))


# the Hub and the built-in corpus


@pytest.fixture
def hub(monkeypatch):
    """Stand in for the Hub: `hub.splits` is what it gives, `hub.asked` what it was asked."""

    class Hub:
        splits: dict[str, Dataset] | Exception
        asked: tuple

    def load_dataset(name, config=None, revision=None):
        Hub.asked = (name, config, revision)
        if isinstance(Hub.splits, Exception):
            raise Hub.splits
        return DatasetDict(Hub.splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return Hub


def labelled(*labels: int) -> Dataset:
    features = Features(text=Value("string"), label=ClassLabel(names=["neg", "pos"]))
    return Dataset.from_dict({"text": [f"text {i}" for i in range(len(labels))], "label": labels}, features=features)


def test_a_hub_data_set_keeps_labelled_splits_and_leaves_out_others_aloud(hub, caplog):
    hub.splits = {"train": labelled(0, 1), "dev": labelled(1), "test": labelled(-1, -1), "unsupervised": labelled(-1)}
    args = DataArguments(dataset_name="some/reviews", dataset_config_name="small", dataset_revision="abc")
    given = read_source(args)
    assert list(given) == ["train", "validation"]
    assert class_names(given["train"][0], "label") == ["neg", "pos"]
    assert given["validation"][0].name == "some/reviews (dev)"
    assert hub.asked == ("some/reviews", "small", "abc")
    assert "'unsupervised' of some/reviews is left out: it is none of train" in caplog.text
    assert "'test' of some/reviews is left out: none of its rows has a label" in caplog.text
    assert describe_source(args) == "some/reviews (small, abc)"


def test_a_hub_data_set_without_labelled_splits_is_an_error(hub):
    hub.splits = {"unsupervised": labelled(-1)}
    with refused(file="some/reviews", match="it has: unsupervised"):
        read_source(DataArguments(dataset_name="some/reviews"))


@pytest.mark.parametrize("error", [FileNotFoundError, ValueError, ConnectionError])
def test_a_data_set_that_the_hub_does_not_give_is_one_clear_error(hub, error):
    hub.splits = error("No such thing.\nMore lines.")
    with refused(field="dataset_name", match=r": No such thing\.$"):
        read_source(DataArguments(dataset_name="some/reviws"))


def test_with_no_source_the_built_in_corpus_is_read(caplog):
    with caplog.at_level(logging.WARNING):
        given = read_source(DataArguments())
    assert list(given) == ["train", "validation", "test"]
    assert caplog.text == ""
    assert describe_source(DataArguments()) == "built-in"
