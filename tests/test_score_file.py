"""Files scored: each row keeps what it holds and gets its own prediction, whatever cuts the run off."""

import csv
import errno
import gzip
import json
import multiprocessing
import os
import re
import signal
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_roberta_gru.data import tables
from modeling_roberta_gru.data.documents import clean_html
from modeling_roberta_gru.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.inference import score_file as module
from modeling_roberta_gru.inference.score_file import (
    PredictedColumns,
    ScoreOptions,
    describe_scored,
    describe_verified,
    read_texts,
    score_file,
    share,
    verify,
)

from .refusals import refused

TEXTS = [f"text {number}\nof the file" for number in range(11)]
PART = 3
KINDS = [".csv", ".tsv", ".jsonl", ".parquet"]


class StubScorer:
    """Scores a text by its checksum, and notes what it was asked."""

    description = "float32, a stub"
    max_length = agreement = None

    def __init__(self, labels: tuple[str, ...] = ("bad", "good"), problem_type: str = SINGLE_LABEL, **fields: Any):
        self.labels, self.problem_type = labels, problem_type
        self.fingerprint, self.dtype, self.max_length = "one", "float32", None
        self.texts: list[str] = []
        self.stops_after, self.stop = -1, self.interrupt
        self.__dict__.update(fields)

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def stream(
        self, texts: Iterable[str], on_scored: Callable[[int], object] = lambda count: None
    ) -> Iterator[np.ndarray]:
        for text in texts:
            if len(self.texts) == self.stops_after:
                self.stop()
            self.texts.append(text)
            on_scored(1)
            yield scores_of(text, len(self.labels), self.problem_type)


def scores_of(text: str, num_labels: int = 2, problem_type: str = SINGLE_LABEL) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    scores = rng.random(num_labels)
    return (scores / scores.sum() if problem_type == SINGLE_LABEL else scores).astype(np.float32)


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([list(records[0]), *(record.values() for record in records)])
    return path


def write_texts(path: Path, texts: Iterable[str | None] = TEXTS) -> Path:
    return write(path, [{"id": f"{number:03}", "text": text} for number, text in enumerate(texts)])


def write_earlier(target: Path) -> bytes:
    """Leave the result of an earlier run there, and return what is in it."""
    return write(target, [{"predicted_label": "old"}]).read_bytes()


def read(path: Path) -> list[dict[str, Any]]:
    table = tables.open_table(path)
    return [record for chunk in table.chunks() for record in chunk.records]


def score(source: Path, target: Path, scorer: StubScorer | None = None, **options: Any) -> dict[str, Any]:
    settings = {name: options.pop(name) for name in ("restart", "excel_safe", "progress") if name in options}
    made = ScoreOptions(**options)
    return score_file(scorer or StubScorer(), source, target, made, **{"progress": False, **settings})


def names(folder: Path) -> list[str]:
    """Return what lies in a folder, but for the locks of scoring, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def interrupt(source: Path, target: Path, after: int, **options: Any) -> None:
    """Leave an unfinished run behind that was cut off when so many texts were scored."""
    with pytest.raises(KeyboardInterrupt):
        score(source, target, StubScorer(stops_after=after), **options)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL_SIZE", PART)
    monkeypatch.setattr(tables, "ROWS_PER_CHUNK", 4)


# predictions


def test_one_label_is_the_most_probable_with_its_probability():
    predictions = PredictedColumns(("a", "b", "c"), SINGLE_LABEL, "p_", all_scores=True)
    columns = predictions.columns(np.array([[0.1, 0.7, 0.2], [0.25, 0.25, 0.5]], dtype=np.float32))
    assert columns == {
        "p_label": ["b", "c"],
        "p_score": [0.7, 0.5],
        "score_a": [0.1, 0.25],
        "score_b": [0.7, 0.25],
        "score_c": [0.2, 0.5],
    }
    assert list(columns) == predictions.schema.names
    assert list(PredictedColumns(("a", "b"), SINGLE_LABEL).schema.names) == ["predicted_label", "predicted_score"]


def test_several_labels_are_those_of_one_half_at_least():
    probabilities = np.array([[0.5, 0.49, 0.9], [0.1, 0.2, 0.3]], dtype=np.float32)
    columns = PredictedColumns(("a", "b", "c"), MULTI_LABEL).columns(probabilities)
    assert columns == {"predicted_label": [["a", "c"], []], "predicted_score": [[0.5, 0.9], []]}


@pytest.mark.parametrize(
    ("labels", "columns"),
    [(("stars",), {"predicted_value": [0.1]}), (("x", "y"), {"predicted_x": [0.1], "predicted_y": [-2.0]})],
)
def test_a_regression_gives_its_values(labels, columns):
    values = np.array([[0.1, -2.0]], dtype=np.float32)[:, : len(labels)]
    assert PredictedColumns(labels, REGRESSION).columns(values) == columns


def test_scores_keep_every_bit_of_float32():
    scores = np.random.default_rng(0).random((500, 3)).astype(np.float32) ** 20
    columns = PredictedColumns(("a", "b", "c"), SINGLE_LABEL, all_scores=True).columns(scores)
    kept = np.array([columns[f"score_{name}"] for name in "abc"], dtype=np.float32).T
    assert (kept == scores).all()


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_columns_fit_their_types_for_no_texts_too(problem_type):
    predictions = PredictedColumns(("a", "b"), problem_type)
    for num_texts in (0, 2):
        columns = predictions.columns(np.full((num_texts, 2), 0.75, dtype=np.float32))
        table = pa.Table.from_pydict(columns, predictions.schema)
        assert table.num_rows == num_texts
        assert table.to_pydict() == columns


def test_new_columns_of_one_name_are_refused():
    with refused(field="prefix", match="'score_label'"):
        PredictedColumns(("label", "b"), SINGLE_LABEL, "score_", all_scores=True)
    with refused(field="all_scores"):
        PredictedColumns(("stars",), REGRESSION, all_scores=True)


# files


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("here", KINDS)
def test_each_row_gets_the_prediction_on_its_own_text(tmp_path, here, there):
    source = write_texts(tmp_path / f"in{here}")
    result = score(source, tmp_path / f"new folder/out{there}", all_scores=True)
    rows = read(tmp_path / f"new folder/out{there}")
    assert [(row["id"], row["text"]) for row in rows] == [(f"{n:03}", text) for n, text in enumerate(TEXTS)]
    for row, text in zip(rows, TEXTS, strict=True):
        bad, good = scores_of(text)
        assert row["predicted_label"] == ("good" if good > bad else "bad")
        written = [np.float32(row[name]) for name in ("predicted_score", "score_bad", "score_good")]
        assert written == [max(bad, good), bad, good]
    assert {row["predicted_label"] for row in rows} == {"bad", "good"}
    assert result["rows"] == len(TEXTS)
    assert names(tmp_path / "new folder") == [f"out{there}"]


def test_several_labels_are_lists_where_a_file_can_hold_them(tmp_path):
    source = write_texts(tmp_path / "in.jsonl")
    several = ("a", "b", "c")
    for ending in (".jsonl", ".parquet", ".csv"):
        score(source, tmp_path / f"out{ending}", StubScorer(several, MULTI_LABEL))
    lists = [
        [label for label, p in zip(several, scores_of(text, 3, MULTI_LABEL), strict=True) if p >= 0.5]
        for text in TEXTS
    ]
    assert [row["predicted_label"] for row in read(tmp_path / "out.jsonl")] == lists
    assert [row["predicted_label"] for row in read(tmp_path / "out.parquet")] == lists
    assert [row["predicted_label"] for row in read(tmp_path / "out.csv")] == ["|".join(labels) for labels in lists]
    scores = [row["predicted_score"] for row in read(tmp_path / "out.jsonl")]
    assert [row["predicted_score"] for row in read(tmp_path / "out.csv")] == ["|".join(map(str, s)) for s in scores]
    assert list(map(len, scores)) == list(map(len, lists))
    assert len(set(map(len, lists))) > 1


@pytest.mark.parametrize("ending", KINDS)
def test_rows_without_text_are_kept_and_get_nothing(tmp_path, ending):
    texts = [None if ending in (".jsonl", ".parquet") else "", "a", " \n", "b", "c", "d", "e", ""]
    source = write_texts(tmp_path / f"in{ending}", texts)
    with refused(file=str(source), row=1, match="3 of 8 rows .*--skip-bad-rows"):
        score(source, tmp_path / f"out{ending}")
    assert names(tmp_path) == [source.name]
    scorer = StubScorer()
    result = score(source, tmp_path / f"out{ending}", scorer, skip_bad_rows=True)
    assert scorer.texts == ["a", "b", "c", "d", "e"]
    rows = read(tmp_path / f"out{ending}")
    assert [row["text"] for row in rows] == texts
    for row in rows:
        if row["text"] in scorer.texts:
            assert np.float32(row["predicted_score"]) == scores_of(row["text"]).max()
        else:
            assert {row["predicted_label"], row["predicted_score"]} <= {None, ""}
    assert (result["rows"], result["rows_without_text"]) == (8, 3)
    assert "3 rows have no text" in describe_scored(result)


@pytest.mark.parametrize("kind", ["latin.csv", "latin.parquet", "long.jsonl", "deep.jsonl", "two.jsonl"])
@pytest.mark.parametrize("there", [".jsonl", ".parquet"])
def test_a_row_that_another_column_makes_bad_shifts_no_prediction(tmp_path, kind, there):
    source = tmp_path / kind
    if kind == "latin.csv":
        source.write_bytes(b"text,note\na,x\nbb,caf\xe9\nccc,y\n")
    elif kind == "latin.parquet":
        notes = pa.array([b"x", b"\xe9", b"y"]).view(pa.string())
        pq.write_table(pa.table({"text": ["a", "bb", "ccc"], "note": notes}), source)
    else:  # what Arrow reads and Python does not
        bad = {
            "long.jsonl": '{"text": "bb", "note": ' + "1" * 5000 + "}",
            "deep.jsonl": '{"text": "bb", "note": ' + "[" * 100_000 + "]" * 100_000 + "}",
            "two.jsonl": '{"text": "bb"} {"text": "dd"}\n',
        }[kind]
        source.write_text(f'{{"text": "a"}}\n{bad}\n{{"text": "ccc"}}\n')
    target = tmp_path / f"out{there}"
    assert score(source, target, skip_bad_rows=True)["rows_without_text"] == 1
    first, bad, last = (row["predicted_score"] for row in read(target))
    assert (bad, first, last) == (None, *(pytest.approx(float(scores_of(text).max())) for text in ("a", "ccc")))


def test_a_row_without_text_is_named(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"text": "two\\nlines"}\n\n{"text": 5}\n{"other": 1}\n{"text": "half \\ud83d"}\n{"text": null}\n'
    )
    said = "4 of 5 rows .*: row 2: .* not text; rows 3, 5: .* null; row 4: .* not UTF-8 text"
    with refused(file=str(source), row=2, match=said):
        score(source, tmp_path / "out.jsonl")
    write_texts(tmp_path / "in.parquet", ["a", "b", "c", "d", "e", " "])
    with refused(file=str(tmp_path / "in.parquet"), row=6, match="empty"):
        score(tmp_path / "in.parquet", tmp_path / "out.csv")


def test_text_may_be_a_dictionary_of_parquet(tmp_path):
    rows = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()}, metadata={"origin": "a test"})
    pq.write_table(rows, tmp_path / "in.parquet")
    scorer = StubScorer()
    score(tmp_path / "in.parquet", tmp_path / "out.parquet", scorer)
    assert scorer.texts == ["a", "b", "a"]
    kept = pq.read_table(tmp_path / "out.parquet").drop_columns(["predicted_label", "predicted_score"])
    assert kept.equals(rows, check_metadata=True)


def test_a_byte_order_mark_stays_where_it_was(tmp_path):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    for mark in (b"", b"\xef\xbb\xbf"):
        source.write_bytes(mark + source.read_bytes())
        score(source, target)
        assert target.read_bytes().startswith(mark + b"id,text,")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(module, "POOL_SIZE", 64)
    monkeypatch.setattr(module, "BEGINNING", 400)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 10_000)
    source, target = tmp_path / f"in{ending}", tmp_path / f"out{ending}"
    write_texts(source, [f"{number} " + "x" * 3000 for number in range(400)])
    score(write_texts(tmp_path / f"small{ending}"), target)  # what is loaded once is loaded now
    scorer = StubScorer(texts=Forgetful())
    tracemalloc.start()
    score(source, target, scorer)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read(target)) == 400
    assert most < 300_000  # of 1,200,000


class Forgetful(list):
    """Keeps nothing that is put into it."""

    def append(self, item: str) -> None:
        pass


def test_the_bar_says_how_many_rows_a_second(tmp_path, capsys):
    score(write_texts(tmp_path / "in.csv"), tmp_path / "out.csv", progress=True)
    said = capsys.readouterr().err
    assert "11/11" in said
    assert "rows/s" in said


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_no_cell_is_a_formula_where_that_is_asked_for(tmp_path, ending):
    texts = ["=1+1", "+49 30", "-2", "-x", "@SUM(A1)", "\tdef", "plain", "-1e5", "'=1"]
    rows = [{"=id": str(number), "text": text} for number, text in enumerate(texts)]
    source = write(tmp_path / "in.jsonl", rows)
    scorer = StubScorer(("=bad", "@good"))
    score(source, tmp_path / f"raw{ending}", scorer)
    assert [row["text"] for row in read(tmp_path / f"raw{ending}")] == texts
    score(source, tmp_path / f"out{ending}", scorer, excel_safe=True)
    written = read(tmp_path / f"out{ending}")
    safe = ["'=1+1", "'+49 30", "-2", "'-x", "'@SUM(A1)", "'\tdef", "plain", "-1e5", "'=1"]
    assert [row["text"] for row in written] == safe
    assert next(iter(written[0])) == "'=id"
    assert {row["predicted_label"] for row in written} == {"'=bad", "'@good"}
    with refused(field="excel_safe", file=str(tmp_path / "out.jsonl")):
        score(source, tmp_path / "out.jsonl", excel_safe=True)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            'text,n\n"fine one",1\nbroken row\n"another, fine",2\n',
            'text,n,predicted_label,predicted_score\nfine one,1,{}\nbroken row,,,\n"another, fine",2,{}\n',
        ),
        ('text;n\nfine, so;"a;b"\n', 'text;n;predicted_label;predicted_score\nfine, so;"a;b";{}\n'),
        ("text,n,,\nfine,1,,\n", "text,n,,,predicted_label,predicted_score\nfine,1,,,{}\n"),
    ],
)
def test_the_way_a_csv_file_is_written_stays(tmp_path, source, expected):
    (tmp_path / "in.csv").write_text(source)
    result = score(tmp_path / "in.csv", tmp_path / "out.csv", skip_bad_rows=True)
    written = (tmp_path / "out.csv").read_text()
    assert result["rows"] == source.count("\n") - 1
    pattern = re.escape(expected).replace(r"\{\}", r"\w+[,;][\d.]+")
    assert re.fullmatch(pattern, written)


def test_a_file_whose_quotes_mean_nothing_keeps_them(tmp_path):
    lines = "".join(f'"text {row}\t{row}\n' for row in range(9)) + '"half\rmore\t9\n'
    (tmp_path / "in.tsv").write_bytes(("text\tn\n" + lines).encode())
    scorer = StubScorer()
    score(tmp_path / "in.tsv", tmp_path / "out.tsv", scorer)
    assert scorer.texts[0] == '"text 0'
    written = (tmp_path / "out.tsv").read_bytes().decode().split("\n")
    assert written[1].startswith('"text 0\t0\t')
    assert written[10].startswith('"half\rmore\t9\t')
    assert [row["text"] for row in read(tmp_path / "out.tsv")] == scorer.texts


# cut off and gone on


@pytest.mark.parametrize(("here", "there"), [(".csv", ".jsonl"), (".jsonl", ".parquet"), (".parquet", ".csv")])
def test_a_run_cut_off_anywhere_goes_on_to_the_same_bytes(tmp_path, here, there):
    source = write_texts(tmp_path / f"in{here}", [*TEXTS[:5], "", *TEXTS[5:]])
    whole, target = tmp_path / f"whole{there}", tmp_path / f"out{there}"
    score(source, whole, skip_bad_rows=True)
    old = write_earlier(target)
    for stops_after in range(len(TEXTS)):
        interrupt(source, target, stops_after, skip_bad_rows=True)
        assert target.read_bytes() == old
        finished = stops_after // PART * PART
        assert (f".unfinished-{target.name}" in names(tmp_path)) == bool(finished)
        scorer = StubScorer()
        result = score(source, target, scorer, skip_bad_rows=True)
        assert scorer.texts == TEXTS[finished:]
        assert result["texts_scored_before"] == finished
        assert target.read_bytes() == whole.read_bytes()
        assert names(tmp_path) == sorted([source.name, whole.name, target.name])
        old = write_earlier(target)


def test_a_run_may_be_cut_off_twice(tmp_path):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    score(source, tmp_path / "whole.csv")
    interrupt(source, target, 4)
    interrupt(source, target, 4)  # of the rest: parts of three and six texts are finished
    scorer = StubScorer()
    result = score(source, target, scorer)
    assert scorer.texts == TEXTS[6:]
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert "Of 6 rows an earlier run had the scores" in describe_scored(result)


# Python 3.12 warns of a fork beside threads; the child starts none and waits for none.
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_killed_run_goes_on(tmp_path):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    score(source, tmp_path / "whole.csv")
    old = write_earlier(target)
    killed = StubScorer(stops_after=7, stop=lambda: os.kill(os.getpid(), signal.SIGKILL))
    process = multiprocessing.get_context("fork").Process(target=score, args=(source, target, killed))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert target.read_bytes() == old
    scorer = StubScorer()
    score(source, target, scorer)
    assert scorer.texts == TEXTS[6:]
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert names(tmp_path) == ["in.csv", "out.csv", "whole.csv"]


@pytest.mark.parametrize("options", [{}, {"restart": True}])
@pytest.mark.parametrize("num_deleted", range(6))
def test_a_run_killed_while_it_deletes_its_parts_mixes_nothing(tmp_path, monkeypatch, options, num_deleted):
    """Some parts are deleted and others are not: what is left must not be taken for a file's first texts."""
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    score(source, tmp_path / "whole.csv")
    interrupt(source, target, 9)
    unlink, deleted = os.unlink, []

    def kill(path, **kwargs):
        if "part-" in str(path) or "run.json" in str(path):
            if len(deleted) == num_deleted:
                raise KeyboardInterrupt
            deleted.append(path)
        unlink(path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", kill)
        with suppress(KeyboardInterrupt):
            score(source, target, **options)
    score(source, target)
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert names(tmp_path) == ["in.csv", "out.csv", "whole.csv"]


@pytest.mark.parametrize("place", ["url", "compressed"])
def test_another_process_goes_on_with_what_is_copied_before_it_is_read(tmp_path, place):
    if place == "url":
        fsspec.filesystem("memory").pipe_file("/here/in.csv", write_texts(tmp_path / "in.csv").read_bytes())
        source = "memory://here/in.csv"
    else:
        source = tmp_path / "in.parquet.gz"
        source.write_bytes(gzip.compress(write_texts(tmp_path / "in.parquet").read_bytes()))
    interrupt(source, tmp_path / "out.csv", 9)
    tables._fetched.clear()  # as of a new process
    assert score(source, tmp_path / "out.csv")["texts_scored_before"] > 0
    if place == "url":
        interrupt(source, tmp_path / "out.csv", 9)
        fsspec.filesystem("memory").pipe_file("/here/in.csv", write_texts(tmp_path / "in.csv", "abcdef").read_bytes())
        with refused(field="input", file=str(tmp_path / ".unfinished-out.csv")):
            score(source, tmp_path / "out.csv")


def test_a_run_killed_while_it_writes_scores_nothing_again(tmp_path, monkeypatch):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", fail_after(5, os.replace, KeyboardInterrupt()))  # one for each part
        with pytest.raises(KeyboardInterrupt):
            score(source, target)
    assert not target.exists()
    scorer = StubScorer()
    score(source, target, scorer)
    assert scorer.texts == []
    assert [row["text"] for row in read(target)] == TEXTS


@pytest.mark.parametrize(
    ("fields", "options", "field", "said"),
    [
        ({"fingerprint": "two"}, {}, "model", "another model"),
        ({"dtype": "int8"}, {}, "dtype", "another dtype"),
        ({"max_length": 64}, {}, "max_length", "another --max-length"),
        ({}, {"text_column": ["id"]}, "text_column", "another --text-column"),
        ({}, {"csv_encoding": "latin-1"}, "csv_encoding", "another --csv-encoding"),
        ({"fingerprint": "two", "dtype": "int8"}, {}, "model", "another model and another dtype"),
    ],
)
def test_an_unfinished_run_of_another_kind_is_refused_and_kept(tmp_path, fields, options, field, said):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupt(source, target, 7)
    kept = names(tmp_path / ".unfinished-out.csv")
    with refused(field=field, file=str(tmp_path / ".unfinished-out.csv"), match=rf"{said}\. "):
        score(source, target, StubScorer(**fields), **options)
    assert names(tmp_path / ".unfinished-out.csv") == kept
    again = StubScorer()
    score(source, tmp_path / "out.csv", again)
    assert again.texts == TEXTS[6:]
    interrupt(source, target, 7)
    other = StubScorer(**fields)
    score(source, target, other, restart=True, **options)
    assert len(other.texts) == len(TEXTS)
    assert names(tmp_path) == ["in.csv", "out.csv"]


def test_an_unfinished_run_without_bad_rows_may_skip_such_from_now_on(tmp_path):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupt(source, target, 7)
    assert score(source, target, skip_bad_rows=True)["texts_scored_before"] == 6


@pytest.mark.parametrize("change", ["beginning", "time", "length"])
def test_an_unfinished_run_on_a_changed_input_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.setattr(module, "BEGINNING", 30)
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupt(source, target, 7)
    status, content = source.stat(), source.read_bytes()
    if change == "beginning":
        source.write_bytes(content.replace(b"text 0", b"TEXT 0"))
    elif change == "length":
        source.write_bytes(content + b"999,more\r\n")
    moment = status.st_mtime_ns + (1 if change == "time" else 0)
    os.utime(source, ns=(status.st_atime_ns, moment))
    with refused(field="input", file=str(tmp_path / ".unfinished-out.csv")):
        score(source, target)


def test_what_is_written_of_the_scores_may_change_when_a_run_goes_on(tmp_path):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupt(source, target, 7)
    scorer = StubScorer()
    score(source, target, scorer, prefix="p_", all_scores=True)
    assert scorer.texts == TEXTS[6:]
    assert list(read(target)[0]) == ["id", "text", "p_label", "p_score", "score_bad", "score_good"]


def test_an_input_that_changes_meanwhile_is_said(tmp_path):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    scorer = StubScorer(stops_after=8, stop=lambda: os.utime(source, ns=(0, 0)))
    with refused(file=str(source), match="has changed"):
        score(source, target, scorer)
    assert not target.exists()


def test_two_processes_do_not_score_into_one_file(tmp_path):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"

    def second() -> None:
        with pytest.raises(InputError, match=r"Another process is writing to .*out.csv: wait for it"):
            score(source, target, restart=True)

    score(source, target, StubScorer(stops_after=5, stop=second))
    assert [row["text"] for row in read(target)] == TEXTS


def keep_scoring(source: Path, target: Path, results: Path, rounds: int) -> None:
    """Score a file again and again, and note how each round ended, and what stood at the target then."""
    with results.open("w") as file:
        for _ in range(rounds):
            try:
                score(source, target, StubScorer(fingerprint=source.stem))
                file.write(f"scored {zlib.crc32(target.read_bytes())}\n")
            except InputError as error:
                file.write(f"{'refused' if 'Another process' in str(error) else error}\n")


# Python 3.12 warns of a fork beside threads; the children start none and wait for none.
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("rounds", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_many_processes_at_one_output_are_refused_or_right(tmp_path, rounds):
    sources = [write_texts(tmp_path / f"in{n}.csv", [f"{n} {text}" for text in TEXTS]) for n in range(8)]
    whole = set()
    for source in sources:
        score(source, tmp_path / "whole.csv")
        whole.add(zlib.crc32((tmp_path / "whole.csv").read_bytes()))
    context, target = multiprocessing.get_context("fork"), tmp_path / "out.csv"
    results = [tmp_path / f"{source.stem}.results" for source in sources]
    processes = [
        context.Process(target=keep_scoring, args=(source, target, result, rounds))
        for source, result in zip(sources, results, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    ends = [line.split() for result in results for line in result.read_text().splitlines()]
    assert len(ends) == rounds * len(sources)
    assert {end for end, *_ in ends} == {"scored", "refused"}
    assert {int(checksum) for _, *checksums in ends for checksum in checksums} <= whole
    assert not (tmp_path / ".unfinished-out.csv").exists()


def test_parts_that_a_killed_run_was_deleting_are_not_read_again(tmp_path):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    interrupt(source, target, 7)
    (tmp_path / ".unfinished-out.csv" / "run.json").unlink()
    scorer = StubScorer()
    score(source, target, scorer)
    assert scorer.texts == TEXTS
    assert names(tmp_path) == ["in.csv", "out.csv"]


# a full disk


def fail_after(calls: int, function: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    made = iter(range(calls))

    def failing(*args: Any, **options: Any) -> Any:
        if next(made, None) is None:
            raise error
        return function(*args, **options)

    return failing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    ("place", "name", "calls", "scored"),
    [
        (Path, "write_bytes", 0, 0),
        (Path, "write_bytes", 2, 6),
        (tables, "_csv_line", 1, 11),  # the header is written once before
        (tables, "_csv_line", 8, 11),
    ],
)
def test_a_full_disk_is_said_and_what_is_scored_is_kept(tmp_path, monkeypatch, place, name, calls, scored, code):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    score(source, tmp_path / "whole.csv")
    old = write_earlier(target)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fail_after(calls, getattr(place, name), OSError(code, "full")))
        with refused(file=str(target), match=r"full\. .*/\.unfinished-out\.csv: make room"):
            score(source, target)
    assert target.read_bytes() == old
    folder = tmp_path / ".unfinished-out.csv"
    assert not folder.exists() or {name.partition("-")[0] for name in names(folder)} == {"run.json", "part"}
    scorer = StubScorer()
    score(source, target, scorer)
    assert scorer.texts == TEXTS[scored:]
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("num_texts", [300, 3000])  # of which the C library keeps all back until the end, or some
def test_a_part_for_which_there_is_no_room_is_not_kept(tmp_path, monkeypatch, num_texts):
    resource = pytest.importorskip("resource")
    source, target = write_texts(tmp_path / "in.csv", ["a text"] * num_texts), tmp_path / "out.csv"
    monkeypatch.setattr(module, "POOL_SIZE", num_texts)
    monkeypatch.setattr(module, "DISK_IS_FULL", (errno.EFBIG,))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with refused(file=str(target), match="make room"):
            score(source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert score(source, target)["rows"] == num_texts


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_device_without_room_is_a_full_disk(tmp_path, monkeypatch, ending):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / f"out{ending}"
    write_rows, calls = module.write_table, []

    def full(path: Path, schema: pa.Schema, rows: Any, *options: Any) -> None:
        calls.append(path)
        if len(calls) > 1:  # not the check before scoring
            path.unlink()
            path.symlink_to("/dev/full")
        write_rows(path, schema, rows, *options)

    monkeypatch.setattr(module, "write_table", full)
    with refused(file=str(target), match="is full"):
        score(source, target)
    assert not target.exists()
    assert names(tmp_path / f".unfinished-out{ending}")[-1].startswith("run.json")


def test_other_errors_of_the_system_are_not_called_a_full_disk(tmp_path, monkeypatch):
    source = write_texts(tmp_path / "in.csv")
    monkeypatch.setattr(module.np, "save", fail_after(1, np.save, OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        score(source, tmp_path / "out.csv")


# what stands in the way


def test_the_encoding_of_excel_is_named_where_rows_are_not_utf_8(tmp_path):
    for content, said in ((b"b\n", "--csv_encoding cp1252.*--skip-bad-rows"), (b"", "--csv_encoding cp1252")):
        (tmp_path / "in.csv").write_bytes(b"text\ncaf\xe9\n" + content)
        with refused(file=str(tmp_path / "in.csv"), row=1, match=said):
            score(tmp_path / "in.csv", tmp_path / "out.csv")
    assert score(tmp_path / "in.csv", tmp_path / "out.csv", csv_encoding="cp1252")["rows"] == 1


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_several_text_columns_are_joined_as_in_training(tmp_path, ending):
    rows = [("A", "b"), (None, "c"), ("d", None), (None, None), ("", "e"), ("", " "), ("f", "g")]
    expected = ["A\nb", "c", "d", "\ne", "f\ng"]
    if ending == "csv":  # has no null
        rows = [("" if title is None else title, "" if body is None else body) for title, body in rows]
        expected[1:3] = ["\nc", "d\n"]
    source = write(tmp_path / f"in.{ending}", [{"title": title, "body": body} for title, body in rows])
    scorer, columns = StubScorer(), ["title", "body"]
    score(source, tmp_path / f"out.{ending}", scorer, text_column=columns, skip_bad_rows=True)
    assert scorer.texts == list(read_texts(source, ScoreOptions(text_column=columns))) == expected
    labels = [record["predicted_label"] for record in read(tmp_path / f"out.{ending}")]
    assert [bool(label) for label in labels] == [True, True, True, False, True, False, True]
    assert ScoreOptions(text_column="title").text_column == ["title"]
    assert ScoreOptions(text_column=("title", "body", "title")).text_column == columns
    with refused(file=str(source), row=4, match="2 of 7 rows"):
        score(source, tmp_path / f"other.{ending}", text_column=columns)


def test_nan_is_null_in_one_of_several_text_columns(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"title": NaN, "body": "a"}\n{"title": "b", "body": NaN}\n')
    scorer = StubScorer()
    score(tmp_path / "in.jsonl", tmp_path / "out.jsonl", scorer, text_column=["title", "body"])
    assert scorer.texts == ["a", "b"]


def test_two_columns_of_one_name_are_one_line(tmp_path):
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "in.parquet")
    with refused(file=str(tmp_path / "in.parquet"), match="two columns .*'text'"):
        score(tmp_path / "in.parquet", tmp_path / "out.csv")


def test_a_byte_order_mark_stays_whatever_the_encoding_is_called(tmp_path):
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbftext\na\n")
    for encoding in ("utf-8", "utf-8-sig"):
        score(tmp_path / "in.csv", tmp_path / f"{encoding}.csv", csv_encoding=encoding)
        assert (tmp_path / f"{encoding}.csv").read_bytes().startswith(b"\xef\xbb\xbftext")


def test_html_is_cleaned_as_in_training_and_only_in_what_is_scored(tmp_path):
    texts = ["Good.<br />Not <b>great</b> &amp; long", "<br /><p>", "plain", None]
    source, target = write_texts(tmp_path / "in.jsonl", texts), tmp_path / "out.jsonl"
    options = {"clean_html": True, "skip_bad_rows": True}
    scorer = StubScorer()
    score(source, target, scorer, **options)
    assert scorer.texts == list(read_texts(source, ScoreOptions(**options))) == [clean_html(texts[0]), "plain"]
    assert [record["text"] for record in read(target)] == texts
    assert [bool(record["predicted_label"]) for record in read(target)] == [True, False, True, False]
    with refused(file=str(source), row=2, match="2 of 4 rows"):
        score(source, tmp_path / "other.jsonl", clean_html=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"text_column": ["txt"]}, {"field": "txt", "match": r"in\.csv .*Did you mean 'text'.* It has: id, text"}),
        ({"prefix": "", "text_column": ["text"]}, None),
        ({"csv_encoding": "latin-140"}, {"match": "'latin-140' is not a text encoding"}),
    ],
)
def test_options_that_do_not_fit_are_said(tmp_path, options, expected):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / "out.csv"
    scorer = StubScorer()
    if expected is None:
        score(source, target, scorer, **options)
        assert list(read(target)[0])[2:] == ["label", "score"]
        return
    with refused(**expected):
        score(source, target, scorer, **options)
    assert (scorer.texts, names(tmp_path)) == ([], ["in.csv"])


@pytest.mark.parametrize("header", ["The boring service and its hated plot were slow,n", "Slow,1", "review,n"])
def test_no_sentence_of_a_file_without_a_header_is_proposed_as_a_column(tmp_path, header):
    (tmp_path / "in.csv").write_text(f"{header}\nb,c\n")
    with refused(field="text", file=str(tmp_path / "in.csv")) as error:
        score(tmp_path / "in.csv", tmp_path / "out.csv")
    assert ("--text-column" in str(error.value)) == (header == "review,n")
    assert ("no header" in str(error.value)) == (header != "review,n")


def test_an_encoding_without_csv_is_said(tmp_path):
    with refused(field="csv_encoding", file=str(tmp_path / "in.jsonl")):
        score(write_texts(tmp_path / "in.jsonl"), tmp_path / "out.csv", csv_encoding="latin-1")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("name", "options", "way_out"),
    [
        ("predicted_label", {}, "another --prefix"),
        ("x_score", {"prefix": "x_"}, "another --prefix"),
        ("score_bad", {"all_scores": True}, "leave --all-scores out"),
    ],
)
def test_a_column_that_exists_already_is_said(tmp_path, ending, name, options, way_out):
    rows = [{"text": "a", "n": 1}] * 9 + [{"text": "b", "n": 1, name: "mine"}]
    rows = [{**dict.fromkeys(rows[-1]), **row} for row in rows] if ending != ".jsonl" else rows
    source = write(tmp_path / f"in{ending}", rows)
    scorer = StubScorer()
    with refused(field=name, file=str(source), match=way_out):
        score(source, tmp_path / "out.jsonl", scorer, **options)
    assert (scorer.texts, names(tmp_path)) == ([], [source.name])


@pytest.mark.parametrize(
    ("ending", "rows", "expected"),
    [
        (".csv", [{"text": "", "id": "1"}], {"field": "text", "row": 1, "match": "empty"}),
        (".jsonl", [{"text": 5}, {"text": None}], {"field": "text", "row": 1, "match": "row 1: .* not text"}),
        (".jsonl", [{"txet": "a"}], {"field": "text", "match": "Did you mean 'txet'"}),
        (".jsonl", [{}], {"field": "text", "row": 1, "match": "null"}),
        (".jsonl", [], {"match": "no rows"}),
        (".parquet", [{"text": 5}], {"field": "text", "match": "int64"}),
        (".parquet", [{"text": ["a"]}], {"field": "text", "match": "list<"}),
    ],
)
def test_an_input_without_texts_is_refused_even_if_bad_rows_are_kept(tmp_path, ending, rows, expected):
    source = write(tmp_path / f"in{ending}", rows)
    if not rows:
        source.write_text("\n\n")
    with refused(file=str(source), **expected):
        score(source, tmp_path / "out.jsonl", skip_bad_rows=True)
    assert names(tmp_path) == [source.name]


def test_a_broken_row_at_the_end_is_found_before_anything_is_scored(tmp_path):
    source = write_texts(tmp_path / "in.csv")
    source.write_text(source.read_text() + "one,two,three\n")
    scorer = StubScorer()
    with refused(file=str(source), row=len(TEXTS) + 1, match="3 cells, and 2 "):
        score(source, tmp_path / "out.csv", scorer)
    assert (scorer.texts, names(tmp_path)) == ([], ["in.csv"])


def test_columns_that_the_output_cannot_hold_are_found_before_anything_is_scored(tmp_path):
    source = tmp_path / "in.jsonl"
    scorer = StubScorer()
    for row, file in (({"text": "a", "x": {}}, "out.parquet"), ({"text": "a", "x": [1, "b"]}, "in.jsonl")):
        source.write_text(json.dumps(row))
        with refused(file=str(tmp_path / file), match=r"Name an output that ends in \.jsonl"):
            score(source, tmp_path / "out.parquet", scorer)
    assert (scorer.texts, names(tmp_path)) == ([], ["in.jsonl"])


def test_an_output_that_cannot_be_is_said(tmp_path):
    source = write_texts(tmp_path / "in.csv")
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "folder.csv").mkdir()
    for target in (source, tmp_path / "folder.csv" / ".." / "in.csv", tmp_path / "link.csv"):
        with refused(file=str(target), match="the input itself"):
            score(source, target)
    with refused(file=str(tmp_path / "folder.csv"), match=r"such as .*/folder\.csv/in\.csv"):
        score(source, tmp_path / "folder.csv")
    with pytest.raises(InputError, match=r"cannot write .xlsx; known: .csv"):
        score(source, tmp_path / "out.xlsx")
    with pytest.raises(InputError, match=r"out.csv cannot be written: .*in.csv"):
        score(source, source / "out.csv")
    with pytest.raises(InputError, match="No file"):
        score(tmp_path / "missing.csv", tmp_path / "out.csv")
    assert names(tmp_path) == ["folder.csv", "in.csv", "link.csv"]


@pytest.mark.parametrize("ending", KINDS)
def test_only_an_earlier_result_is_overwritten(tmp_path, ending):
    source, target = write_texts(tmp_path / "in.csv"), tmp_path / f"out{ending}"
    target.touch()
    for options in ({}, {"all_scores": True}, {}):
        score(source, target, **options)
    scored = target.read_bytes()
    with refused(field="other_label", file=str(target)):
        score(source, target, prefix="other_")
    assert target.read_bytes() == scored
    for precious in (write_texts(target).read_bytes(), b"\xff precious"):
        target.write_bytes(precious)
        with refused(field="predicted_label", file=str(target)):
            score(source, target)
        assert target.read_bytes() == precious
    target.unlink()
    score(source, target)


def test_scores_that_are_no_numbers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.scores_of", lambda *args: np.full(2, np.nan, dtype=np.float32))
    with pytest.raises(InputError, match="not finite numbers: its weights are damaged"):
        score(write_texts(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert names(tmp_path) == ["in.csv"]


# verified


class Other(StubScorer):
    """Scores every fourth text the other way round, and the others a little differently."""

    def stream(
        self, texts: Iterable[str], on_scored: Callable[[int], object] = lambda count: None
    ) -> Iterator[np.ndarray]:
        for number, scores in enumerate(super().stream(texts, on_scored)):
            yield scores[::-1] if number % 4 == 3 else scores + np.float32(0.001) * (number == 0)


def test_verification_counts_equal_labels():
    figures = verify(Other(dtype="int8"), StubScorer(), iter(TEXTS), 8)
    assert (figures["n"], figures["dtype"], figures["reference_dtype"]) == (8, "int8", "float32")
    assert (figures["equal"]["hits"], figures["equal"]["n"], figures["equal"]["value"]) == (6, 8, 0.75)
    turned = [scores_of(TEXTS[number]) for number in (3, 7)]
    assert figures["largest_difference"] == pytest.approx(max(abs(one - other) for one, other in turned))
    assert "6 labels equal, 75.00% (" in describe_verified(figures)
    assert "int8 beside float32, first 8 texts" in describe_verified(figures)


@pytest.mark.parametrize(("hits", "n"), [(6, 8), (8, 10), (100, 100)])
def test_shares_have_wilsons_interval(hits, n):
    found = share([True] * hits + [False] * (n - hits))
    z, p = 1.959963984540054, hits / n
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((p, centre - half, centre + half))


def test_verification_reads_no_more_than_it_needs():
    texts = iter(TEXTS)
    assert verify(StubScorer(), StubScorer(), texts, 4)["equal"]["value"] == 1
    assert next(texts) == TEXTS[4]
    assert verify(StubScorer(), StubScorer(), iter(TEXTS), 99)["n"] == 11


def test_several_labels_are_equal_if_all_are():
    figures = verify(Other(problem_type=MULTI_LABEL), StubScorer(problem_type=MULTI_LABEL), TEXTS, 11)
    differing = [n for n in (3, 7) if len({bool(p >= 0.5) for p in scores_of(TEXTS[n], 2, MULTI_LABEL)}) == 2]
    assert figures["equal"]["hits"] == 11 - len(differing)


def test_a_regression_is_verified_by_its_difference():
    figures = verify(Other(problem_type=REGRESSION), StubScorer(problem_type=REGRESSION), TEXTS, 3)
    assert figures["largest_difference"] == pytest.approx(0.001, rel=1e-3)
    assert "equal" not in figures
    assert describe_verified(figures).endswith("scores differ by 0.001 at most.")


def test_verification_wants_texts():
    with pytest.raises(InputError, match="holds no text whose scores could be verified"):
        verify(StubScorer(), StubScorer(), [], 5)


def test_texts_are_read_without_bad_rows(tmp_path):
    source = write_texts(tmp_path / "in.jsonl", [None, *TEXTS, " "])
    assert list(read_texts(source)) == TEXTS
    with refused(field="txt", file=str(tmp_path / "in.csv")):
        list(read_texts(write_texts(tmp_path / "in.csv"), ScoreOptions(text_column=["txt"])))


def test_what_is_returned_is_written_for_people(tmp_path):
    started = time.perf_counter()
    result = score(write_texts(tmp_path / "in.csv"), tmp_path / "out.jsonl")
    assert json.loads(json.dumps(result)) == result
    assert 0 < result["seconds"] <= time.perf_counter() - started
    assert result["rows_per_second"] >= 11 / result["seconds"]
    said = describe_scored(result)
    assert "11 rows in " in said
    assert "out.jsonl, with predicted_label, predicted_score." in said
    assert "float32, a stub" in said


def write_unquoted(path: Path, *cells: str) -> Path:
    """Write a TSV in which quotation marks mean nothing, one row for each of some cells, in the middle."""
    usual = [f'{number}\t"so\t a text of {number}' for number in range(30)]
    path.write_bytes(
        ("\n".join(["id\tbeside\ttext", *usual, *(f"1\t{cell}\ta text" for cell in cells)]) + "\n").encode()
    )
    return path


def test_what_a_file_cannot_hold_is_said_before_anything_is_scored(tmp_path):
    cases = [
        (write_unquoted(tmp_path / "a.tsv", "too\tmany"), {"skip_bad_rows": True}, StubScorer()),
        (
            write(tmp_path / "b.jsonl", [{"text": "a", "n": 2**60}] * 300 + [{"text": "b", "n": 0.5}] * 300),
            {},
            StubScorer(),
        ),
        (write_unquoted(tmp_path / "c.tsv"), {}, StubScorer(labels=("bad", "go\tod"))),
    ]
    for source, options, scorer in cases:
        target = tmp_path / f"scored{'.parquet' if source.suffix == '.jsonl' else source.suffix}"
        with refused(file=str(target), match=re.escape(f"{target}: ")):
            score(source, target, scorer, **options)
        assert scorer.texts == []
        assert not target.exists()


def test_a_carriage_return_within_an_unquoted_row_is_kept(tmp_path):
    source = write_unquoted(tmp_path / "a.tsv", "old\r")
    score(source, tmp_path / "scored.tsv")
    assert [row["beside"] for row in read(tmp_path / "scored.tsv")][-1] == "old\r"


def test_many_reasons_are_said_in_few_words(tmp_path):
    rows = [{"text": [] if number % 2 else {"a": number}} for number in range(40)] + [{"text": "a"}]
    with refused(file=str(tmp_path / "a.jsonl"), row=1) as error:
        score(write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl")
    assert len(str(error.value)) < 400
