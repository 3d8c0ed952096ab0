"""Reading rows: every kind of file, folders, the Hub; and what is said when they are not as they should be."""

import csv
import json
import logging
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import HfArgumentParser, TrainingArguments

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.documents import describe_source, read_source
from modeling_roberta_gru.data.splits import load_splits
from modeling_roberta_gru.data.tables import Part, read_file
from modeling_roberta_gru.errors import InputError

ROWS = {"text": ["good", 'so, "so"', "bad\nvery bad"], "label": ["pos", "pos", "neg"]}
SENTIMENT140 = ["target", "id", "date", "flag", "user", "text"]
CSV = 'text,label\ngood,pos\n"so, ""so""",pos\n"bad\nvery bad",neg\n'


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **options: object) -> Part:
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
        ".json": json.dumps(records, indent=2),
    }
    return write(path, as_text[path.suffix])


# arguments


def test_data_arguments_parse_beside_training_arguments(tmp_path):
    parser = HfArgumentParser((DataArguments, TrainingArguments), allow_abbrev=False)
    options = ["--train_file", "a.csv", "b.csv", "--text_column", "title", "body", "--class_names", "no", "yes"]
    data, _ = parser.parse_args_into_dataclasses([*options, "--output_dir", str(tmp_path), "--on_bad_row", "skip"])
    assert data.files == {"train": ["a.csv", "b.csv"]}
    assert (data.text_column, data.class_names, data.on_bad_row) == (["title", "body"], ["no", "yes"], "skip")
    assert data.fractions == (0.8, 0.1, 0.1)


def test_two_sources_are_refused():
    with pytest.raises(InputError, match="Both --dataset_name and --test_file are given"):
        DataArguments(dataset_name="built-in", test_file=["test.csv"])


@pytest.mark.parametrize(
    "split", ["0.8,0.2", "0.8,0.2,0", "0.8,0.1,0.2", "most,some,few", "0.8,0.3,-0.1", "nan,nan,nan"]
)
def test_split_must_be_three_positive_fractions_that_sum_to_one(split):
    with pytest.raises(InputError, match="--split wants three"):
        DataArguments(split=split)


@pytest.mark.parametrize("name", ["max_train_samples", "max_windows"])
def test_sizes_must_be_positive(name):
    with pytest.raises(InputError, match=f"--{name} must be positive, got 0"):
        DataArguments(**{name: 0})


@pytest.mark.parametrize(
    ("max_length", "num_tokens"), [("none", None), ("None", None), (None, None), (512, 512), ("5000", 5000)]
)
def test_a_maximum_length_is_a_number_or_none(max_length, num_tokens):
    assert DataArguments(max_length=max_length).num_tokens == num_tokens


@pytest.mark.parametrize("max_length", [0, -3, "0", "5.5", 5.5, "many", "", True])
def test_a_maximum_length_that_is_neither_is_refused(max_length):
    with pytest.raises(InputError, match=f"--max_length must be a positive whole number or none, got {max_length!r}"):
        DataArguments(max_length=max_length)


def test_a_window_policy_without_max_windows_is_refused():
    with pytest.raises(InputError, match="--window_policy random takes effect only with --max_windows"):
        DataArguments(window_policy="random")


def test_a_hub_revision_without_a_data_set_is_refused():
    with pytest.raises(InputError, match="belong to a --dataset_name"):
        DataArguments(dataset_revision="main")


@pytest.mark.parametrize("encoding", ["latin-140", "", "hex", "undefined"])
def test_an_unknown_encoding_is_refused(encoding):
    with pytest.raises(InputError, match=f"--csv_encoding '{encoding}' is no text encoding that Python knows"):
        DataArguments(csv_encoding=encoding)


# files


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_every_format_reads_the_same_rows(tmp_path, ending):
    part = read(write_rows(tmp_path / f"reviews{ending}"))
    assert part.rows.to_dict() == ROWS
    assert part.broken == {}


def test_several_files_of_a_split_are_its_parts_in_order(tmp_path):
    paths = [str(write(tmp_path / name, f"text,label\n{name},x\n")) for name in ("b.csv", "a.csv")]
    parts = read_source(DataArguments(train_file=paths))["train"]
    assert [part.rows["text"][0] for part in parts] == ["b.csv", "a.csv"]
    assert describe_source(DataArguments(train_file=paths)) == "b.csv, a.csv"


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = write(tmp_path / "excel.csv", b"\xef\xbb\xbftext,label\ngood,pos\n")
    assert read(path).rows.column_names == ["text", "label"]


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
    rows = {split: part.rows.to_dict() for split, (part,) in given.items()}
    assert rows == {
        "train": {"text": ["café"], "label": ["good"]},
        "validation": {"text": ["thé"], "label": ["bad"]},
        "test": {"text": ["crème"], "label": ["good"]},
    }


@pytest.mark.parametrize("options", [{"csv_columns": ["text", "label"]}, {"csv_encoding": "latin-1"}])
@pytest.mark.parametrize("source", ["built-in", "folder", "file", "Hub"])
def test_csv_options_without_a_csv_file_are_refused(tmp_path, options, source):
    path = write_rows(tmp_path / "train.parquet")
    arguments = {
        "built-in": {},
        "folder": {"dataset_name": str(tmp_path)},
        "file": {"train_file": [str(path)]},
        "Hub": {"dataset_name": "some/reviews"},
    }[source]
    with pytest.raises(
        InputError, match=rf"--{next(iter(options))} takes effect only with CSV or TSV files; .* has none"
    ):
        read_source(DataArguments(**arguments, **options))


def test_utf_8_may_be_spelt_in_any_way(tmp_path):
    path = write(tmp_path / "excel.csv", b"\xef\xbb\xbftext,label\ncaf\xc3\xa9,pos\ncaf\xe9,neg\n")
    part = read(path, csv_encoding="UTF8")
    assert part.rows["text"][:] == ["café", None]
    assert part.broken == {"the row is not UTF-8 text": [1]}


def test_other_encodings_are_read(tmp_path):
    path = write(tmp_path / "excel.csv", "text,label\ncafé ☕,pos\n".encode("utf-16"))
    assert read(path, csv_encoding="utf-16").rows[0] == {"text": "café ☕", "label": "pos"}


def test_cells_may_be_longer_than_the_csv_module_allows_by_default(tmp_path):
    path = write(tmp_path / "long.csv", f"text,label\n{'word ' * 50_000},pos\n")
    assert len(read(path).rows["text"][0]) == 250_000


def test_csv_cells_stay_as_written(tmp_path):
    path = write(tmp_path / "codes.csv", "text,label,code\ngood,1,007\n")
    assert read(path).rows[0] == {"text": "good", "label": "1", "code": "007"}


def test_an_unnamed_csv_column_gets_a_name(tmp_path):
    path = write(tmp_path / "pandas.csv", ",text,label\n0,good,pos\n")
    assert read(path).rows.column_names == ["column_1", "text", "label"]


def test_categories_in_parquet_are_read_as_text(tmp_path):
    table = pa.table({"text": ["a", "b"], "label": pa.array(["pos", "neg"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "pandas.parquet")
    assert read(tmp_path / "pandas.parquet").rows["label"][:] == ["pos", "neg"]


def test_class_names_in_parquet_metadata_are_kept(tmp_path):
    features = Features(text=Value("string"), label=ClassLabel(names=["neg", "pos"]))
    Dataset.from_dict({"text": ["a"], "label": [1]}, features=features).to_parquet(tmp_path / "hub.parquet")
    assert read(tmp_path / "hub.parquet").rows.features["label"].names == ["neg", "pos"]


# rows that cannot be read


def test_undecodable_csv_rows_are_listed(tmp_path):
    path = write(tmp_path / "latin1.csv", "text,label\ngood,pos\ncafé,neg\n".encode("latin-1"))
    assert read(path).broken == {"the row is not UTF-8 text": [1]}


def test_rows_that_another_encoding_cannot_decode_are_listed(tmp_path):
    path = write(tmp_path / "windows.csv", b"text,label\n\x80 5,pos\n\x81,neg\n")
    part = read(path, csv_encoding="cp1252")
    assert part.broken == {"the row is not cp1252 text": [1]}
    assert part.rows["text"][:] == ["€ 5", None]


def test_undecodable_json_rows_are_listed(tmp_path):
    path = write(tmp_path / "lines.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n{"text": "\\ud800"}\n')
    assert read(path).broken == {"the row is not UTF-8 text": [1, 2]}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_undecodable_parquet_rows_are_listed(tmp_path, kind):
    binary = pa.large_binary() if kind == pa.large_string() else pa.binary()
    text = pa.array([b"fine", None, b"caf\xe9"], binary).view(kind)
    pq.write_table(pa.table({"text": text, "label": [0, 1, 0]}), tmp_path / "spark.parquet")
    part = read(tmp_path / "spark.parquet")
    assert part.broken == {"the row is not UTF-8 text": [2]}
    assert part.rows["text"][:] == ["fine", None, None]


def test_ragged_csv_rows_are_listed(tmp_path):
    path = write(tmp_path / "ragged.csv", "text,label\ngood,pos\nbad\nso, so,neg\n")
    assert read(path).broken == {"the row does not have the header's 2 cells": [1, 2]}


def test_rows_with_other_cells_than_the_named_columns_are_listed(tmp_path):
    path = write(tmp_path / "ragged.csv", "pos,good\npos\nneg,so, so\n")
    part = read(path, csv_columns=["label", "text"])
    assert part.broken == {"the row does not have the 2 cells of --csv_columns": [1, 2]}


def test_lines_that_are_no_json_objects_are_listed(tmp_path):
    path = write(tmp_path / "lines.jsonl", '{"text": "a"}\n\n{"text": \n[1]\n{"text": "b"}\n')
    part = read(path)
    assert part.broken == {"the row is not a JSON object": [1, 2]}
    assert part.rows["text"][:] == ["a", None, None, "b"]


def test_json_values_of_another_kind_than_the_column_are_listed(tmp_path):
    rows = [
        {"text": "a", "label": 1},
        {"text": 5, "label": 0},
        {"text": "b", "label": "1"},
        {"text": "c", "label": 2.5},
    ]
    part = read(write(tmp_path / "mixed.jsonl", json_lines(rows)))
    assert part.odd_cells == {
        "text": ("'text' is not text, as it is in most rows", [1]),
        "label": ("'label' is not a number, as it is in most rows", [2]),
    }
    assert part.broken == {}


def test_json_lists_of_mixed_kinds_are_an_error(tmp_path):
    path = write(tmp_path / "mixed.jsonl", json_lines([{"label": [1]}, {"label": ["a"]}]))
    with pytest.raises(InputError, match=r"mixed.jsonl: column 'label' mixes kinds of values"):
        read(path)


# files that cannot be read


def test_a_missing_file_names_the_nearest(tmp_path):
    write_rows(tmp_path / "reviews.csv")
    with pytest.raises(InputError, match=r"No file '.*review.csv'. Did you mean 'reviews.csv'\?"):
        read(tmp_path / "review.csv")


def test_a_missing_file_names_what_lies_there(tmp_path):
    write(tmp_path / "notes.txt", "-")
    with pytest.raises(InputError, match=r"No file .* lie: notes.txt\."):
        read(tmp_path / "review.csv")
    with pytest.raises(InputError, match=r"There is no folder '.*data' either"):
        read(tmp_path / "data" / "review.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", r"empty.csv is empty\."),
        ("header.csv", "text,label\n", r"header.csv has no rows\."),
        ("none.jsonl", "\n\n", r"none.jsonl has no rows\."),
        ("list.json", "[]", r"list.json has no rows\."),
        ("table.xlsx", "x", r"table.xlsx: cannot read .xlsx; known: .csv, .tsv, .jsonl, .json, .parquet\."),
        ("not.parquet", "text,label\n", r"not.parquet is not a readable Parquet file"),
        ("object.json", '{\n"text": "a"\n}', r"object.json holds no JSON objects: one object a line is wanted"),
        ("list.json", '[\n{"text": "a"},\n', r"list.json, line 3: not JSON"),
        ("twice.csv", "text,text\na,b\n", r"twice.csv: two columns are named 'text'"),
        ("open.csv", 'text,label\n"never closed,pos\n', r"open.csv, line 2: unexpected end of data"),
        ("utf16.csv", "text,label\na,b\n".encode("utf-16"), r"utf16.csv: the header is not UTF-8 text"),
    ],
)
def test_an_unreadable_file_is_one_clear_error(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n", {"csv_columns": ["text", "text"]}, r"tweets.csv: two columns are named 'text'"),
        ("\n", {"csv_columns": ["text", "label"]}, r"tweets.csv has no rows\."),
        (
            "text,é\n",
            {"csv_encoding": "ascii"},
            r"tweets.csv: the header is not ascii text\. .* or name its --csv_enc",
        ),
        ("text,label\na,b\n".encode("utf-16")[:-1], {"csv_encoding": "utf-16"}, r"tweets.csv is not utf-16 text: "),
    ],
)
def test_a_file_that_its_csv_options_do_not_fit_is_one_clear_error(tmp_path, content, options, message):
    path = write(tmp_path / "tweets.csv", content)
    with pytest.raises(InputError, match=message):
        read(path, **options)


def test_a_folder_given_as_a_file_and_a_file_given_as_a_data_set_are_told(tmp_path):
    with pytest.raises(InputError, match="is a folder: give it as --dataset_name"):
        read(tmp_path)
    path = write_rows(tmp_path / "reviews.csv")
    with pytest.raises(InputError, match="is a file: give it as --train_file"):
        read_source(DataArguments(dataset_name=str(path)))


# folders


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("my_train_2024.jsonl", "train"),
        ("dev-00000-of-00001.parquet", "validation"),
        ("valid.tsv", "validation"),
        ("val/part1.csv", "validation"),
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
    assert [part.origin for part in given["train"]] == [str(tmp_path / "train.csv")]
    assert "unlabelled.csv is left out: its name says no split" in caplog.text


def test_a_folder_without_readable_files_names_what_it_holds(tmp_path):
    write(tmp_path / "data.arrow", "x")
    with pytest.raises(InputError, match=r"has no .csv, .* file. It holds: data.arrow\."):
        read_source(DataArguments(dataset_name=str(tmp_path)))


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
    assert given["train"][0].rows.features["label"].names == ["neg", "pos"]
    assert given["validation"][0].origin == "some/reviews (dev)"
    assert hub.asked == ("some/reviews", "small", "abc")
    assert "'unsupervised' of some/reviews is left out: it is none of train" in caplog.text
    assert "'test' of some/reviews is left out: none of its rows has a label" in caplog.text
    assert describe_source(args) == "some/reviews (small, abc)"


def test_a_hub_data_set_without_labelled_splits_is_an_error(hub):
    hub.splits = {"unsupervised": labelled(-1)}
    with pytest.raises(
        InputError, match="some/reviews has no labelled train, validation or test split; it has: unsup"
    ):
        read_source(DataArguments(dataset_name="some/reviews"))


@pytest.mark.parametrize("error", [FileNotFoundError, ValueError, ConnectionError])
def test_a_data_set_that_the_hub_does_not_give_is_one_clear_error(hub, error):
    hub.splits = error("No such thing.\nMore lines.")
    with pytest.raises(InputError, match=r"'some/reviws' is no folder here, and the Hub gave none: No such thing\.$"):
        read_source(DataArguments(dataset_name="some/reviws"))


def test_with_no_source_the_built_in_corpus_is_read(caplog):
    with caplog.at_level(logging.WARNING):
        given = read_source(DataArguments())
    assert list(given) == ["train", "validation", "test"]
    assert caplog.text == ""
    assert describe_source(DataArguments()) == "built-in"
