"""From rows to documents: joining, cleaning, and what happens to bad rows."""

import random
import re

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data import documents as module
from modeling_roberta_gru.data.documents import build_documents, clean_html, first_rows, stack
from modeling_roberta_gru.data.tables import Part
from modeling_roberta_gru.errors import InputError


def part(columns: dict, origin: str = "reviews.csv", **broken: list[int]) -> Part:
    return Part(origin, Dataset.from_dict(columns), broken)


def build(columns: dict, **args) -> Dataset:
    return build_documents("train", [part(columns)], DataArguments(**args))[0]


def test_other_columns_are_kept_and_named_ones_renamed():
    documents = build({"review": ["a"], "stars": [4], "author": ["Ann"]}, text_column=["review"], label_column="stars")
    assert documents[0] == {"row_id": "train:0", "text": "a", "label": 4, "author": "Ann"}


def test_the_chosen_columns_win_over_columns_that_happen_to_be_called_text_and_label():
    columns = {"text": ["wrong"], "label": ["wrong"], "row_id": ["wrong"], "body": ["right"], "mood": ["good"]}
    documents = build(columns, text_column=["body"], label_column="mood")
    assert documents[0] == {"row_id": "train:0", "text": "right", "label": "good"}


def test_several_text_columns_are_joined_by_a_line_break_passing_over_null():
    columns = {"title": ["A", None, ""], "body": ["b", "c", "d"], "label": [0, 1, 0]}
    assert build(columns, text_column=["title", "body"])["text"][:] == ["A\nb", "c", "\nd"]


def test_a_group_column_that_is_also_text_is_kept():
    columns = {"title": ["A"], "body": ["b"], "label": [0]}
    assert build(columns, text_column=["title", "body"], group_column="title")["title"][:] == ["A"]


def test_row_ids_count_on_over_the_files_of_a_split():
    parts = [part({"text": ["a", "b"], "label": [0, 1]}), part({"text": ["c"], "label": [1], "extra": ["x"]})]
    documents, _ = build_documents("test", parts, DataArguments())
    assert documents["row_id"][:] == ["test:0", "test:1", "test:2"]
    assert documents["extra"][:] == [None, None, "x"]


def test_row_ids_do_not_move_when_rows_are_skipped():
    documents = build({"text": ["a", None, "c"], "label": [0, 1, 1]}, on_bad_row="skip")
    assert documents["row_id"][:] == ["train:0", "train:2"]


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


def test_html_is_left_alone_unless_asked():
    columns = {"text": ["a<br />b"], "label": [0]}
    assert build(columns)["text"][0] == "a<br />b"
    assert build(columns, clean_html=True)["text"][0] == "a\nb"


BAD = {
    "text": ["fine", None, " \n\t", "fine", "fine", "fine", "\u3000"],
    "label": ["pos", "pos", "neg", None, "  ", "nan", "neg"],
}


def test_bad_rows_are_named_from_one_with_the_way_out():
    with pytest.raises(InputError) as error:
        build(BAD)
    assert str(error.value) == (
        "reviews.csv: 6 bad of 7 rows: the text is null (1: row 2); "
        "the text is empty or only whitespace (2: rows 3, 7); "
        "the label is missing or not a finite number (3: rows 4, 5, 6). "
        "Mend them, or leave them out with --on_bad_row skip."
    )


def test_bad_rows_are_skipped_on_request_and_counted(caplog):
    documents, skipped = build_documents("train", [part(BAD)], DataArguments(on_bad_row="skip"))
    assert documents["row_id"][:] == ["train:0"]
    assert skipped == {
        "the text is null": 1,
        "the text is empty or only whitespace": 2,
        "the label is missing or not a finite number": 3,
    }
    assert "reviews.csv: 6 bad of 7 rows left out" in caplog.text


def test_rows_that_could_not_be_read_are_bad_rows_and_counted_once():
    broken = Part("a.csv", Dataset.from_dict({"text": ["a", None], "label": ["x", None]}), {"the row is ragged": [1]})
    with pytest.raises(InputError, match=r"a.csv: 1 bad of 2 rows: the row is ragged \(1: row 2\)\."):
        build_documents("train", [broken], DataArguments())


def test_only_the_first_five_bad_rows_are_named():
    with pytest.raises(InputError, match=r"\(40: rows 1, 2, 3, 4, 5 and 35 more\)"):
        build({"text": [""] * 40, "label": [0] * 40})
    assert first_rows([8]) == "row 9"


@pytest.mark.parametrize("label", [float("nan"), float("inf"), None])
def test_targets_that_are_not_finite_are_bad_rows(label):
    with pytest.raises(InputError, match=r"the label is missing or not a finite number \(1: row 2\)"):
        build({"text": ["a", "b"], "label": [0.5, label]})
    with pytest.raises(InputError, match=r"the label is missing or not a finite number \(1: row 2\)"):
        build({"text": ["a", "b"], "label": [[0.5, 1.5], [0.1, label]]})


def test_an_integer_of_minus_one_is_missing_only_where_classes_are_named():
    assert build({"text": ["a", "b"], "label": [-1, 1]})["label"][:] == [-1, 1]
    features = Features(text=Value("string"), label=ClassLabel(names=["neg", "pos"]))
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [-1, 1]}, features=features)
    with pytest.raises(InputError, match=r"the label is missing .*row 1\)"):
        build_documents("train", [Part("hub", rows)], DataArguments())


def test_no_labels_at_all_are_labels_where_there_may_be_several():
    assert build({"text": ["a", "b"], "label": [["x"], []]})["label"][:] == [["x"], []]
    assert build({"text": ["a", "b"], "label": ["x;y", ""]}, label_delimiter=";")["label"][:] == ["x;y", ""]


def test_a_missing_column_names_those_there_are():
    with pytest.raises(InputError, match=r"no column 'label'. It has: review, stars\."):
        build({"review": ["a"], "stars": [1]}, text_column=["review"])
    with pytest.raises(InputError, match=r"no column 'text'. Did you mean 'texts'\? It has: texts, label\."):
        build({"texts": ["a"], "label": [1]})
    with pytest.raises(InputError, match=r"no column 'author'. It has: text, label\."):
        build({"text": ["a"], "label": [1]}, group_column="author")


@pytest.mark.parametrize(("cell", "kind"), [(5, "int64"), (b"bytes", "binary"), (["a"], "List"), ({"a": 1}, "dict")])
def test_a_text_column_that_holds_no_text_is_an_error(cell, kind):
    with pytest.raises(InputError, match=f"reviews.csv: column 'text' holds {kind}, not text"):
        build({"text": [cell], "label": [1]})


def test_columns_of_different_kinds_in_two_files_are_an_error():
    with pytest.raises(InputError, match="The files or splits disagree about a column"):
        stack([Dataset.from_dict({"label": ["1"]}), Dataset.from_dict({"label": [1]})])


def test_a_column_that_is_null_in_one_file_is_no_disagreement():
    assert stack([Dataset.from_dict({"a": [None]}), Dataset.from_dict({"a": ["x"]})])["a"][:] == [None, "x"]


def test_odd_cells_make_a_row_bad_only_where_their_column_is_used():
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1], "stars": [5, None]})
    odd = Part("reviews.jsonl", rows, odd_cells={"stars": ("'stars' is not a number, as it is in most rows", [1])})
    documents, skipped = build_documents("train", [odd], DataArguments())
    assert len(documents) == 2
    assert not skipped
    with pytest.raises(InputError, match=r"1 bad of 2 rows: 'stars' is not a number, as it is .*\(1: row 2\)"):
        build_documents("train", [odd], DataArguments(group_column="stars"))
