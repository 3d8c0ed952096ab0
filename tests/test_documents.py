"""From rows to documents: joining, cleaning, and what happens to bad rows."""

import json
import random
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets.table import MemoryMappedTable

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data import documents as module
from modeling_roberta_gru.data.dialect import first_rows
from modeling_roberta_gru.data.documents import (
    Documents,
    as_numbers,
    build_documents,
    clean_html,
    in_memory,
    read_file,
    stack,
    text_key,
)
from modeling_roberta_gru.data.tables import Table, open_table
from modeling_roberta_gru.errors import InputError

from .refusals import refused


def table(columns: dict, name: str = "reviews.csv") -> Table:
    return in_memory(columns, name, DataArguments())


def documents(columns: dict, split: str = "train", **args) -> Documents:
    return build_documents(split, [table(columns)], DataArguments(**args))


def build(columns: dict, keep: tuple[str, ...] = (), **args) -> Dataset:
    return build_documents("train", [table(columns)], DataArguments(**args), keep).rows


def from_file(path: Path, **args) -> Documents:
    args = DataArguments(**args)
    return build_documents("train", [read_file(path, args)], args)


def test_columns_that_are_asked_for_are_kept_and_no_other():
    columns = {"review": ["a"], "stars": [4], "author": ["Ann"], "seen": [None]}
    args = {"text_column": ["review"], "label_column": "stars"}
    assert build(columns, **args)[0] == {"row_id": "train:0", "text": "a", "label": "4"}
    assert build(columns, ("author",), **args)[0]["author"] == "Ann"
    assert build(columns, group_column="author", **args)[0]["author"] == "Ann"


def test_the_chosen_columns_win_over_columns_that_happen_to_be_called_text_and_label():
    columns = {"text": ["wrong"], "label": ["wrong"], "row_id": ["wrong"], "body": ["right"], "mood": ["good"]}
    rows = build(columns, text_column=["body"], label_column="mood")
    assert rows[0] == {"row_id": "train:0", "text": "right", "label": "good"}


@pytest.mark.parametrize("name", ["text", "label", "row_id"])
def test_a_column_that_the_table_has_already_is_not_taken_for_another(name):
    columns = {"body": ["a"], "mood": ["good"], name: ["theirs"]}
    chosen: dict[str, Any] = {"text_column": ["body"], "label_column": "mood"}
    for keep, args in (((name,), chosen), ((), {**chosen, "group_column": name})):
        with refused(field=name):
            build(columns, keep, **args)
    assert build({"text": ["a"], "label": ["b"]}, ("text", "label"))[0]["text"] == "a"


def test_numbers_that_are_kept_stay_numbers():
    rows = build({"text": ["a", "b"], "label": ["x", "y"], "votes": [3, None], "name": ["1", "2"]}, ("votes", "name"))
    assert (rows["votes"][:], rows["name"][:]) == ([3.0, None], ["1", "2"])


def test_texts_that_are_all_numbers_say_numbers_unless_they_are_codes():
    assert as_numbers(["1", "", "-2.5", None, "1e3"]) == [1.0, None, -2.5, None, 1000.0]
    for kept in (["1", "02"], ["1", "x"], ["nan", "1"], [1, 2], ["", None], []):
        assert as_numbers(kept) is kept


def test_several_text_columns_are_joined_by_a_line_break_passing_over_null():
    columns = {"title": ["A", None, ""], "body": ["b", "c", "d"], "label": [0, 1, 0]}
    assert build(columns, text_column=["title", "body"])["text"][:] == ["A\nb", "c", "\nd"]


def test_row_ids_count_on_over_the_files_of_a_split():
    parts = [table({"text": ["a", "b"], "label": [0, 1]}), table({"text": ["c"], "label": ["1"], "extra": [{}]})]
    made = build_documents("test", parts, DataArguments())
    assert made.rows["row_id"][:] == ["test:0", "test:1", "test:2"]
    assert made.rows["label"][:] == ["0", "1", "1"]
    assert (len(made), made.num_read) == (3, 3)


def test_row_ids_do_not_move_when_rows_are_skipped():
    rows = build({"text": ["a", None, "c"], "label": [0, 1, 1]}, on_bad_row="skip")
    assert rows["row_id"][:] == ["train:0", "train:2"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Good.<br /><br/>Bad.", "Good.\n\nBad."),
        ("<p class='x'>One</p><p>Two</p>", "\nOne\n\nTwo\n"),
        ("a <b>very</b> <i>good</i> film", "a very good film"),
        ("R&amp;B &lt;3 caf&eacute;&nbsp;bar", "R&B <3 café\xa0bar"),
        ("I <3 it, 1 < 2 and 3 > 2", "I <3 it, 1 < 2 and 3 > 2"),
        ("seen<!-- never <b> seen --><script>var x = '<br>';</script> again", "seen   again"),
        ("<preface> <brand new>", " "),
    ],
)
def test_html_becomes_text(text, clean):
    assert clean_html(text) == clean


def test_html_is_left_alone_unless_asked():
    columns = {"text": ["a<br />b"], "label": [0]}
    assert build(columns)["text"][0] == "a<br />b"
    assert build(columns, clean_html=True)["text"][0] == "a\nb"


def test_hidden_parts_end_where_a_backtracking_pattern_would_end_them():
    pattern = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
    pieces = [
        "<!--",
        "-->",
        "<script>",
        "</script >",
        "<STYLE a=b>",
        "</style>",
        "<scripts>",
        "x",
        "\n",
        "<",
        ">",
        "--",
    ]
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 12)))
        assert module._without_invisible(text) == pattern.sub(" ", text)


@pytest.mark.parametrize("opening", ["<!--", "<script>", "<style>", "<!--<script><style>"])
def test_what_is_never_closed_is_looked_for_once(opening, monkeypatch):
    looked = []

    class Counting:
        def __init__(self, pattern):
            self.pattern = pattern

        def search(self, text, start):
            looked.append(start)
            return self.pattern.search(text, start)

    ends = {kind: Counting(pattern) for kind, pattern in module.INVISIBLE_ENDS.items()}
    monkeypatch.setattr(module, "INVISIBLE_ENDS", ends)
    clean_html(opening * 10_000)
    assert len(looked) <= 3


BAD = {
    "text": ["fine", None, " \n\t", "fine", "fine", "fine", "\u3000"],
    "label": ["pos", "pos", "neg", None, "  ", "nan", "neg"],
}


def test_bad_rows_are_named_from_one_with_the_way_out():
    rows = "row 2: .*null; rows 3, 7: .*empty; rows 4, 5, 6: .*missing.* the 6 rows .*--on_bad_row skip"
    with refused(file="reviews.csv", row=2, match=rows):
        build(BAD)
    with refused(file="reviews.csv", row=2, match="row 2: .*empty.* the row .*--on_bad_row skip"):
        build({"text": ["fine", ""], "label": [0, 1]})


def test_bad_rows_are_skipped_on_request_and_counted(caplog):
    made = documents(BAD, on_bad_row="skip")
    assert made.rows["row_id"][:] == ["train:0"]
    assert made.num_read == 7
    assert made.skipped == {"the text is null": 1, "the text is empty": 2, "the label is missing": 3}
    assert "reviews.csv: 6 of 7 rows left out" in caplog.text


@pytest.mark.parametrize(
    ("labels", "delimiter"),
    [
        (["a;b", "", "a", "b;c"], ";"),
        (["a|b", None, "a", "b|c"], "|"),
        (["a;b", "", "a"], None),
        (["a", "", "b"], None),
        ([["a;b"], None, ["a;b"]], None),
    ],
)
def test_a_missing_label_beside_several_in_one_cell_names_the_delimiter(labels, delimiter):
    columns = {"text": list("wxyz")[: len(labels)], "label": labels}
    with refused(row=2, match="label is missing") as error:
        build(columns)
    assert [mark for mark in ";|" if f"--label_delimiter {mark!r}" in str(error.value)] == [*filter(None, [delimiter])]


def test_what_is_kept_beside_must_be_text_that_can_be_written(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label,author\na,x,Ann\nb,y,Jos\xe9\n".encode("latin-1"))
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "label": "x", "author": "Ann"}\n{"text": "b", "label": "y", "author": "\\ud83d"}\n'
    )
    for name in ("a.csv", "a.jsonl"):
        with refused(file=str(tmp_path / name), row=2, match="not UTF-8"):
            from_file(tmp_path / name, group_column="author")
        assert from_file(tmp_path / name, group_column="author", on_bad_row="skip").rows["author"][:] == ["Ann"]


def test_the_encoding_of_excel_is_named_where_rows_are_not_utf_8(tmp_path):
    for name, content in (
        ("a.csv", b"text,label\ncaf\xe9,x\nb,y\n"),
        ("a.jsonl", b'{"text": "caf\xe9", "label": 1}\n'),
    ):
        (tmp_path / name).write_bytes(content)
        with refused(file=str(tmp_path / name), row=1) as error:
            build_documents("train", [open_table(tmp_path / name)], DataArguments())
        before, _, _ = str(error.value).partition("--on_bad_row")
        assert ("--csv_encoding cp1252" in before) == name.endswith(".csv")
    read = build_documents(
        "train", [open_table(tmp_path / "a.csv", DataArguments(csv_encoding="cp1252"))], DataArguments()
    )
    assert read.rows["text"][:] == ["café", "b"]


def test_only_the_first_five_bad_rows_are_named():
    with refused(row=1, match="rows 1, 2, 3, 4, 5 and 35 more: .* the 40 rows"):
        build({"text": [""] * 40, "label": [0] * 40})
    assert first_rows([8]) == "row 9"


def test_only_the_first_ten_reasons_are_said():
    names = [f"label {number}" for number in range(15)]
    columns = {"text": ["a"] * 15, **{name: [0] * at + [2] + [0] * (14 - at) for at, name in enumerate(names)}}
    with refused(row=1, match="label 9 .*; and 5 more reasons.* the 15 rows"):
        build(columns, label_column=names)


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"one": range(2, 502), "two": [0] * 500}, {"label_column": ["one", "two"]}),
        ({"label": [0] * 500, "day": [f"2026-{day}" for day in range(500)]}, {"split_column": "day"}),
        ({"label": [0] * 500, "day": [f"{day} a.m." for day in range(500)]}, {"split_column": "day", "test_fold": 1}),
    ],
    ids=["labels", "splits", "folds"],
)
def test_bad_cells_that_all_differ_are_one_reason_with_an_example(columns, options):
    rows = {"text": ["a"] * 500, **{name: list(cells) for name, cells in columns.items()}}
    with refused(file="reviews.csv", row=1) as error:
        build(rows, **options)
    assert len(str(error.value)) < 250
    assert "rows 1, 2, 3, 4, 5 and 495 more" in str(error.value)
    assert repr(str(next(iter(list(columns.values())[-1 if "day" in columns else 0])))) in str(error.value)
    numbers = {name: cells if name == "text" else [1, *cells[1:]] for name, cells in rows.items()}
    good = {
        **numbers,
        **({"day": ["1" if "test_fold" in options else "train", *rows["day"][1:]]} if "day" in rows else {}),
    }
    args = DataArguments(**options, on_bad_row="skip")
    assert list(build_documents("train", [table(good)], args).skipped.values()) == [499]


# whatever makes a row bad, in every kind of file: error that names the row, or skipped and counted

CONTENTS = {
    "ragged.csv": ('text,label\n"a, b",x\nc\n"d, e",y\n', "the row has 1 cell, and 2 are in the header"),
    "wide.csv": ('text,label\n"a, b",x\nc,d,y\n"d, e",y\n', "the row has 3 cells, and 2 are in the header"),
    "quote.csv": ('text,label\n"a, b",x\n"c"c,z\n"d, e",y\n', "text follows a closing quotation mark"),
    "open.csv": ('text,label\n"a, b",x\n"d, e,y\n', "a quotation mark is never closed"),
    "latin.csv": (b"text,label\na,x\ncaf\xe9,y\nd,y\n", "the row is not UTF-8 text"),
    "latin.jsonl": (b'{"text": "a", "label": 1}\n{"text": "caf\xe9"}\n', "the row is not UTF-8 text"),
    "half.jsonl": ('{"text": "a", "label": 1}\n{"text": "\\ud800", "label": 2}\n', "the row is not UTF-8 text"),
    "broken.jsonl": ('{"text": "a", "label": 1}\n{"text": \n{"text": "b", "label": 2}\n', "the row is not JSON"),
    "scalar.ndjson": ('{"text": "a", "label": 1}\n[1]\n', "the row is not a JSON object"),
    "scalar.json": ('[{"text": "a", "label": 1}, 2]', "the row is not a JSON object"),
    "number.jsonl": ('{"text": "a", "label": 1}\n{"text": 5, "label": 2}\n', "'text' is a number, not text"),
    "list.jsonl": (
        '{"text": "a", "label": 1}\n{"text": "b", "label": [2]}\n',
        "the label is a list, unlike the others",
    ),
    "object.jsonl": ('{"text": "a", "label": 1}\n{"text": "b", "label": {}}\n', "the label is an object"),
    "nan.jsonl": ('{"text": "a", "label": 0.5}\n{"text": "b", "label": NaN}\n', "the label is missing"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_row_that_is_bad_is_named_or_skipped(tmp_path, name):
    content, reason = CONTENTS[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(file=str(path), row=2) as raised:
        from_file(path)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
    made = from_file(path, on_bad_row="skip")
    assert made.skipped == {reason: 1}
    assert (len(made), made.num_read) == (made.num_read - 1, made.num_read)
    assert "train:1" not in made.rows["row_id"][:]


# labels


@pytest.mark.parametrize("label", [float("nan"), float("inf"), None])
def test_targets_that_are_not_finite_are_bad_rows(label):
    with refused(row=2, match="label is missing"):
        build({"text": ["a", "b"], "label": [0.5, label]})
    with refused(row=2, match="label is missing"):
        build({"text": ["a", "b"], "label": [[0.5, 1.5], [0.1, label]]})


def test_an_integer_of_minus_one_is_missing_only_where_classes_are_named():
    assert build({"text": ["a", "b"], "label": [-1, 1]})["label"][:] == ["-1", "1"]
    features = Features(text=Value("string"), label=ClassLabel(names=["neg", "pos"]))
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [-1, 1]}, features=features)
    with refused(file="hub", row=1, match="label is missing"):
        build_documents("train", [in_memory(rows, "hub", DataArguments())], DataArguments())


def test_no_labels_at_all_are_labels_where_there_may_be_several():
    assert build({"text": ["a", "b"], "label": [["x"], []]})["label"][:] == [["x"], []]
    assert build({"text": ["a", "b"], "label": ["x;y", ""]}, label_delimiter=";")["label"][:] == ["x;y", ""]


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["1", "0"]),
        pa.array(["1", "0"], pa.large_string()),
        pa.array(["1", "0"], pa.string_view()),
        pa.array(["1", "0"]).dictionary_encode(),
        pa.array([1, 0], pa.int8()),
        pa.array([1, 0], pa.uint64()),
        pa.array([1.0, 0.0], pa.float32()),
        pa.array([Decimal("1"), Decimal("0")]),
    ],
)
def test_labels_are_equal_whatever_type_a_file_gives_them(tmp_path, labels):
    pq.write_table(pa.table({"text": ["a", "b"], "label": labels}), tmp_path / "typed.parquet")
    assert from_file(tmp_path / "typed.parquet").rows["label"][:] == ["1", "0"]


def test_columns_that_nobody_asked_for_do_not_matter(tmp_path):
    odd = {
        "pairs": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
        "price": pa.array([Decimal("1.10"), None]),
        "raw": pa.array([b"\xff", b""]),
    }
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"], **odd}), tmp_path / "odd.parquet")
    lines = [{"text": "c", "label": "x", "tags": [1, "a"]}, {"text": "d", "label": "y", "tags": {}, "price": "dear"}]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = [read_file(tmp_path / name, DataArguments()) for name in ("odd.parquet", "odd.jsonl")]
    assert build_documents("train", parts, DataArguments()).rows["text"][:] == ["a", "b", "c", "d"]


# columns


def test_bytes_that_are_no_text_in_a_column_that_nobody_asked_for_do_not_matter(tmp_path):
    for end in (b"", b","):  # plain rows, and rows that are read with care
        (tmp_path / "a.csv").write_bytes(b"text,label,note\na,x,caf\xe9" + end + b"\nb,y,c\n")
        assert len(from_file(tmp_path / "a.csv")) == 2


@pytest.mark.parametrize("end", ["", ","])  # plain rows, and rows that are read with care
def test_columns_of_one_name_are_numbered_and_none_is_taken_for_another(tmp_path, end):
    (tmp_path / "a.csv").write_text(f"text,label,x,x,x (1)\na,y,1,2,3{end}\nb,n,4,5,6{end}\n")
    expected = {"x (2)": ["1", "4"], "x (3)": ["2", "5"], "x (1)": ["3", "6"]}
    parts = [read_file(tmp_path / "a.csv", DataArguments())]
    rows = build_documents("train", parts, DataArguments(), list(expected)).rows
    assert {name: rows[name][:] for name in expected} == expected
    (tmp_path / "a.csv").write_text("text,text,label\na,b,y\n")
    path = str(tmp_path / "a.csv")
    with refused(field="text", file=path, match=r"2 columns .* 'text \(1\)' or 'text \(2\)'"):
        from_file(tmp_path / "a.csv")


def test_a_missing_column_names_those_there_are(tmp_path):
    with refused(field="text", match=r"c038, c039 and 960 more\.$"):
        build({f"c{number:03}": ["a"] for number in range(1000)})
    with refused(field="label", match=r"'label'\. It has: review, stars\."):
        build({"review": ["a"], "stars": [1]}, text_column=["review"])
    with refused(field="text", match=r"'texts'\? It has: texts, label\."):
        build({"texts": ["a"], "label": [1]})
    with refused(field="author", match=r"'author'\. It has: text, label\."):
        build({"text": ["a"], "label": [1]}, group_column="author")
    (tmp_path / "b.jsonl").write_text('{"text": "a", "label": 1}\n')
    with refused(field="autor", file=str(tmp_path / "b.jsonl"), match=r"It has: text, label\."):
        from_file(tmp_path / "b.jsonl", group_column="autor")


@pytest.mark.parametrize(
    ("header", "is_asked"),
    [
        ("The boring service and its hated plot were slow,negative", True),
        ("Slow,-1.5", True),
        ("review,stars", False),
        ("0.5 stars,review 1", False),
    ],
)
def test_a_header_that_looks_like_data_is_asked_about(tmp_path, header, is_asked):
    (tmp_path / "a.csv").write_text(f"{header}\nb,1\n")
    with refused(field="text", file=str(tmp_path / "a.csv")) as error:
        from_file(tmp_path / "a.csv")
    assert ("--csv_columns" in str(error.value)) == is_asked
    (tmp_path / "a.jsonl").write_text('{"texts": "a", "label": 1}\n')
    with refused(field="text", file=str(tmp_path / "a.jsonl"), match="'texts'"):
        from_file(tmp_path / "a.jsonl")


@pytest.mark.parametrize("cell", [5, b"bytes", ["a"], {"a": 1}])
def test_a_text_column_that_holds_no_text_is_an_error(tmp_path, cell):
    with refused(file="reviews.csv", row=1, match="not text"):
        build({"text": [cell], "label": [1]})
    pq.write_table(pa.table({"text": [cell], "label": [1]}), tmp_path / "a.parquet")
    with refused(field="text", file=str(tmp_path / "a.parquet")):
        from_file(tmp_path / "a.parquet")


def test_splits_of_one_label_and_of_several_cannot_be_pooled():
    with pytest.raises(InputError, match="Some splits have one label per text, and others lists"):
        stack([documents({"text": ["a"], "label": ["1"]}), documents({"text": ["a"], "label": [["1"]]})])


# many rows


def test_many_documents_lie_on_disk_and_are_the_same(monkeypatch):
    columns = {"text": [f"Text {row}" for row in range(5000)], "label": [row % 3 for row in range(5000)]}
    columns["film"] = [row // 7 for row in range(5000)]
    small = documents(columns, group_column="film")
    monkeypatch.setattr(module, "SPILL_BYTES", 10_000)
    large = documents(columns, group_column="film")
    assert isinstance(large.rows.data, MemoryMappedTable)
    assert large.rows.to_list() == small.rows.to_list()
    assert np.array_equal(large.keys, small.keys)
    assert small.keys[7].tobytes() == text_key("text  7 ")
