"""CSV as people write it: every dialect is found or said, read back as it was written, and kept by the writer."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data import tables
from modeling_roberta_gru.data.dialect import (
    DOUBLED,
    NONE,
    SAMPLE_BYTES,
    Dialect,
    find_dialect,
    read_rows,
    split_lines,
)
from modeling_roberta_gru.data.documents import build_documents
from modeling_roberta_gru.data.splits import load_splits
from modeling_roberta_gru.data.tables import open_table, write_table
from modeling_roberta_gru.errors import InputError

from .refusals import refused


def read(path: Path, **options: Any) -> list[list[str]]:
    """Read the rows of a CSV file, none of which is bad."""
    table = open_table(path, DataArguments(**options))
    chunks = list(table.chunks())
    assert not any(chunk.bad for chunk in chunks)
    return [list(record.values()) for chunk in chunks for record in chunk.records]


def found(text: str, **options: Any) -> tuple[str, str, str | None]:
    dialect = find_dialect(text, **options)
    return dialect.delimiter, dialect.quoting, dialect.escape


TEXTS = ["good, really", 'he said "no"', "two\nlines", "plain", "back\\slash"]
ROWS = [[text, "pos" if number % 2 else "neg"] for number, text in enumerate(TEXTS)]


# what is found


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_delimiter_is_found_whatever_the_ending_says(tmp_path, delimiter, quoting, end, mark):
    for name in ("in.csv", "in.tsv"):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            file.write(mark)
            writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
            writer.writerows([["text", "label"], *ROWS])
        assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("text,label\na,x\n", (",", DOUBLED, None)),
        ("text\na; b, c\n", (",", DOUBLED, None)),
        ("text;score\na;1,5\nb, c;2,0\n", (";", DOUBLED, None)),
        ('text,label\n"he said \\"hi\\", twice",x\nb,y\n', (",", DOUBLED, "\\")),
        ('text,label\n"C:\\new\\folder",x\nb,y\n', (",", DOUBLED, None)),
        ("a\tb\nx\\\ty\tz\nq\\\nr\ts\n", ("\t", NONE, "\\")),
        ("a\tb\nx\\ny\tz\nq\ts\n", ("\t", DOUBLED, None)),
        ('a\tb\n"x\t1\ny\t2\n', ("\t", NONE, None)),
        ('a\tb\n"x\t1\ny"\t2\n', ("\t", NONE, None)),
        ('a\tb\n"x y"\t1\n"z, z"\t2\n', ("\t", DOUBLED, None)),
        ("sep=;\ntext;label\na,b;x\n", (";", DOUBLED, None)),
        ('"sep=;"\ntext;label\na,b;x\n', (";", DOUBLED, None)),
        ('text,label\n"a",x\n"b",y\n"broken,x\n', (",", DOUBLED, None)),
        ('text,label\na,x\nb,y\n"broken,x\nc,y\n', (",", DOUBLED, None)),
    ],
)
def test_the_way_of_quoting_is_found(text, dialect):
    assert found(text) == dialect


def test_a_cut_within_a_cell_does_not_mislead():
    row = '"' + "prose, of many\nlines and commas; " * 40 + '",pos\n'
    text = "text,label\n" + row * 30
    for cut in (len(text) - 5, len(text) - 200, len(text) - len(row) + 1):
        assert found(text[:cut], is_cut=True) == (",", DOUBLED, None)


def test_what_is_said_holds_and_is_named_in_one_line(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_text("text;label\na,b;x\n")
    assert read(path) == [["a,b", "x"]]
    assert "a.csv is read as: semicolons, quotes doubled." in caplog.text
    assert open_table(path, DataArguments(csv_delimiter=",")).schema.names == ["text;label"]
    path.write_text('text\tlabel\n"a\tx\nb"\ty\n')
    assert read(path, csv_delimiter="tab", csv_quoting="doubled") == [["a\tx\nb", "y"]]
    assert read(path, csv_delimiter="tab") == [['"a', "x"], ['b"', "y"]]


# what people write


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("text,label,,\na,x,,\nb,y,,\n", [["a", "x", "", ""], ["b", "y", "", ""]]),
        ("text,label\na,x,\nb,y,\n", [["a", "x"], ["b", "y"]]),
        ('text, label\na, "x, y"\nb, z\n', [["a", "x, y"], ["b", "z"]]),
        ('text, label\n"a, b", "x"\n"c", "y"\n', [["a, b", "x"], ["c", "y"]]),
        ('text,label\n"a\0b",x\nc,y\n', [["a\0b", "x"], ["c", "y"]]),
        ('text,label\n5" screen,x\nsay "hi" now,y\n', [['5" screen', "x"], ['say "hi" now', "y"]]),
        ("text,label\ra,x\rb,y\r", [["a", "x"], ["b", "y"]]),
        ("text,label\n\na,x\n\r\n\nb,y", [["a", "x"], ["b", "y"]]),
        ("a\tb\nnull\t\\N\nx\\\\y\tz\\\ty\n", [["null", ""], ["x\\y", "z\ty"]]),
        ("text,label\n" + "x" * 3_000_000 + ",y\nb,z\n", [["x" * 3_000_000, "y"], ["b", "z"]]),
    ],
)
def test_rows_are_read_as_they_are_meant(tmp_path, text, rows):
    (tmp_path / "in.csv").write_bytes(text.encode())
    assert read(tmp_path / "in.csv") == rows


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("text,label,,\ngood,pos\nbad,neg\n", ["text", "label"]),
        ("text,label,,\ngood,pos,,\nbad,neg,,\n", ["text", "label", "column_3", "column_4"]),
        ("text,label,,\ngood,pos,\nbad,neg,note\n", ["text", "label", "column_3"]),
        ("sep=;\n;text;label; ;\n1;good;pos\n2;bad;neg\n", ["column_1", "text", "label"]),
        ("text,label,\n", ["text", "label", "column_3"]),
    ],
)
def test_nameless_columns_that_end_a_header_are_none_where_the_first_row_has_no_cells_for_them(tmp_path, text, names):
    (tmp_path / "in.csv").write_text(text)
    assert open_table(tmp_path / "in.csv", DataArguments()).names == names
    rows = read(tmp_path / "in.csv")
    assert [row[names.index("text") :][:2] for row in rows] == [["good", "pos"], ["bad", "neg"]][: len(rows)]
    assert len(rows) == len(text.replace("sep=;\n", "").splitlines()) - 1


def test_a_damaged_first_row_does_not_decide_what_columns_there_are(tmp_path):
    (tmp_path / "in.csv").write_text('text,label,,\n"never closed\n"good",pos,a,note\n"bad",neg,a,note\n')
    table = open_table(tmp_path / "in.csv", DataArguments())
    assert table.names == ["text", "label", "column_3", "column_4"]
    assert [sorted(chunk.bad) for chunk in table.chunks()] == [[0]]


@pytest.mark.parametrize("block", [1000, 2**20])
@pytest.mark.parametrize("between", ["", "\n", "whole\tneg\n\n"])
def test_rows_are_never_merged_without_a_word(tmp_path, monkeypatch, block, between):
    # quotes are doubled where the file begins, so a mark that nobody closed is one row that is bad, and named
    monkeypatch.setattr(tables, "BLOCK_BYTES", block)
    usual = "".join(f'"text, {row}"\tpos\n' for row in range(5000))
    (tmp_path / "in.tsv").write_text("text\tlabel\n" + usual + f'"begins\tneg\n{between}ends"\tpos\nlast\tneg\n')
    table = open_table(tmp_path / "in.tsv")
    bad = {chunk.first + at: why for chunk in table.chunks() for at, why in chunk.bad.items()}
    assert list(bad) == [5000]
    assert "--csv_quoting" in bad[5000]
    args = DataArguments(train_file=[str(tmp_path / "in.tsv")])
    with refused(file=str(tmp_path / "in.tsv"), row=5001, match=r"\d lines .* between two quotation"):
        load_splits(args)


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


@pytest.mark.parametrize("compression", [gzip.compress, bz2.compress, lzma.compress, zstd])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".parquet"])
def test_compressed_files_are_read_and_written(tmp_path, compression, ending):
    suffix = {"gzip": ".gz", "bz2": ".bz2", "lzma": ".xz"}.get(compression.__module__, ".zst")
    records = [{"text": f"text {row}, and more", "label": "x"} for row in range(700)]
    plain = tmp_path / f"in{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), plain)
    elif ending == ".csv":
        plain.write_text("text,label\n" + "".join(f'"{row["text"]}",x\n' for row in records))
    else:
        lines = [json.dumps(record) for record in records]
        plain.write_text("\n".join(lines) if ending == ".jsonl" else f"[{','.join(lines)}]")
    compressed = tmp_path / f"in{ending}{suffix}"
    compressed.write_bytes(compression(plain.read_bytes()))
    table = open_table(compressed)
    chunks = list(table.chunks())
    assert [record for chunk in chunks for record in chunk.records] == records
    for chunk in chunks:
        table.learn(chunk)
    target = tmp_path / f"out{ending}{suffix}"
    rows = ((chunk, {"new": ["y"] * len(chunk)}) for chunk in open_table(compressed).chunks())
    write_table(target, pa.schema([*table.schema, ("new", pa.string())]), rows)
    again = [record for chunk in open_table(target).chunks() for record in chunk.records]
    assert again == [{**record, "new": "y"} for record in records]
    damaged = tmp_path / f"cut{ending}{suffix}"
    damaged.write_bytes(compressed.read_bytes()[:-20])
    with refused(file=str(damaged)):
        [chunk.records for chunk in open_table(damaged).chunks()]


TABLE = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]


@pytest.mark.parametrize(
    "document",
    [
        TABLE,
        {"data": TABLE},
        {"rows": TABLE},
        {"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}},
        {"0": TABLE[0], "1": TABLE[1]},
        {"text": ["a", "b"], "label": [1, 0]},
        {"columns": ["text", "label"], "index": [0, 1], "data": [["a", 1], ["b", 0]]},
        {"schema": {"fields": []}, "data": TABLE},
        {"version": "1.0", "rows": 2, "ok": True, "data": TABLE},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("block", [1, 5, 2**20])
def test_json_documents_are_read_in_every_form(tmp_path, monkeypatch, document, indent, block):
    monkeypatch.setattr(tables, "BLOCK_BYTES", block)
    path = tmp_path / "in.json"
    path.write_text(json.dumps(document, indent=indent))
    assert [record for chunk in open_table(path).chunks() for record in chunk.records] == TABLE


@pytest.mark.parametrize("name", ["data", "rows", "records"])
def test_a_column_may_be_called_as_the_rows_are_elsewhere(tmp_path, name):
    path = tmp_path / "in.json"
    path.write_text(json.dumps({name: ["a", "b"], "label": [1, 0]}))
    rows = [record for chunk in open_table(path).chunks() for record in chunk.records]
    assert rows == [{name: "a", "label": 1}, {name: "b", "label": 0}]


def test_rows_that_have_names_are_read_by_index_and_by_columns(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [1, 0, 1]}, index=["x", "y", "z"])
    for orient in ("index", "columns", "split"):
        frame.to_json(tmp_path / "in.json", orient=orient)
        assert [record for chunk in open_table(tmp_path / "in.json").chunks() for record in chunk.records] == (
            frame.to_dict("records")
        )


@pytest.mark.parametrize("first", [{"version": "1"}, {}])
def test_a_document_on_one_long_line_is_no_row(tmp_path, first):
    path = tmp_path / "in.json"
    path.write_text(json.dumps({**first, "data": TABLE * SAMPLE_BYTES}))
    assert sum(map(len, open_table(path).chunks())) == 2 * SAMPLE_BYTES
    path.write_text("".join(json.dumps({"tags": [], **row, "more": "x" * SAMPLE_BYTES}) + "\n" for row in TABLE))
    records = [record for chunk in open_table(path).chunks() for record in chunk.records]
    assert [{"text": record["text"], "label": record["label"]} for record in records] == TABLE


def test_json_lists_are_read_piece_by_piece_whatever_they_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_BYTES", 7)
    rows = [{"text": 'x,]}"\\ ' * row, "n": [[row], {"k": -1.5e3}], "z": "é\u2028"} for row in range(40)]
    for indent in (None, 1):
        (tmp_path / "in.json").write_text(json.dumps(rows, indent=indent))
        assert [record for chunk in open_table(tmp_path / "in.json").chunks() for record in chunk.records] == rows


# the writer keeps the dialect


DIALECTS = [
    Dialect(";"),
    Dialect("\t", NONE),
    Dialect("\t", NONE, "\\"),
    Dialect(",", DOUBLED, "\\"),
    Dialect("|", skip_spaces=True),
    Dialect(";", has_sep_line=True),
]


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
def test_what_is_written_in_a_dialect_is_read_in_it(dialect):
    cells = ["plain", " padded", 'said "so"', "a;b", "a,b", "\\", "\\n", "", 'ends "', "é 漢"]
    cells += [] if dialect.quoting == NONE and not dialect.escape else ["tab\there", "two\nlines", "a|b"]
    rows = [[one, other] for one in cells for other in cells if one or other]
    text = "".join(map(dialect.line, rows))
    sep = f"sep={dialect.delimiter}\n" if dialect.has_sep_line else ""
    assert [row.cells for row in read_rows(split_lines(sep + text), dialect)] == rows


def test_a_cell_that_a_dialect_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="holds a delimiter"):
        Dialect("\t", NONE).line(["a\tb", "c"])


# properties

TEXT = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(list(",;\t|\"\\\n\r '=#"))), max_size=12
)


@st.composite
def written_tables(draw: Any) -> tuple[bytes, list[list[str]], dict[str, Any], str]:
    """Draw a table and write it: its bytes, its rows, the options that say how it is written, its ending."""
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1, max_size=12))
    delimiter = draw(st.sampled_from([",", ";", "\t", "|", "^"]))
    way = draw(st.sampled_from(["minimal", "all", "escaped", "none", "none escaped"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    if way == "none":
        drop = str.maketrans(dict.fromkeys(f"{delimiter}\n\r"))
        rows = [[cell.translate(drop) for cell in row] for row in rows]
    if way == "minimal":  # where lines end in a line feed, the csv module leaves a carriage return unquoted
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    if width == 1 or way.startswith("none"):  # an empty line is no row
        rows = [["x", *row[1:]] if not any(row) else row for row in rows]
    header = [f"name{number}" for number in range(width)]
    out = io.StringIO()
    if way in ("minimal", "all"):
        quoting = csv.QUOTE_MINIMAL if way == "minimal" else csv.QUOTE_ALL
        csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows([header, *rows])
    else:
        dialect = Dialect(delimiter, DOUBLED if way == "escaped" else NONE, None if way == "none" else "\\")
        out.write("".join(dialect.line(row)[:-1] + end for row in [header, *rows]))
    text = out.getvalue()
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    options = {
        "csv_delimiter": delimiter,
        "csv_quoting": "none" if way.startswith("none") else "doubled",
        "csv_escape": "backslash" if "escaped" in way else "none",
        "csv_encoding": "utf-16" if encoding == "utf-16" else "utf-8",
    }
    return text.encode(encoding), rows, options, draw(st.sampled_from([".csv", ".tsv"]))


@pytest.mark.parametrize("examples", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_table_of_any_dialect_reads_back(tmp_path_factory, examples):
    folder = tmp_path_factory.mktemp("tables")

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(written_tables(), st.sampled_from([3, 64, 2**20]))
    def reads_back(written: tuple[bytes, list[list[str]], dict[str, Any], str], block: int) -> None:
        data, rows, options, ending = written
        path = folder / f"in{ending}"
        path.write_bytes(data)
        before, tables.BLOCK_BYTES = tables.BLOCK_BYTES, block
        try:
            assert read(path, **options) == rows
        finally:
            tables.BLOCK_BYTES = before

    reads_back()


WORDS = ["good", "bad", "film,", "it's", '"fine"', "a;b", '5"', "and", "C:\\x", "so\nso", "café", "1|2"]


@pytest.mark.parametrize("examples", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_dialect_of_a_table_of_prose_is_found(tmp_path_factory, examples):
    folder = tmp_path_factory.mktemp("prose")

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @example(texts=["good good"] * 11 + ['"fine" "fine"'], delimiter=",", quoting=csv.QUOTE_NONE)
    @given(
        st.lists(st.lists(st.sampled_from(WORDS), min_size=2, max_size=9).map(" ".join), min_size=12, max_size=30),
        st.sampled_from([",", ";", "\t", "|"]),
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE]),
    )
    def is_found(texts: list[str], delimiter: str, quoting: int) -> None:
        rows = [[text, "pos" if number % 3 else "neg", str(number)] for number, text in enumerate(texts)]
        if quoting == csv.QUOTE_NONE:
            delimiter = "\t"
            rows = [[text.replace("\n", " "), *rest] for text, *rest in rows]
            content = "".join("\t".join(row) + "\n" for row in [["text", "label", "id"], *rows])
        else:
            out = io.StringIO()
            csv.writer(out, delimiter=delimiter, quoting=quoting).writerows([["text", "label", "id"], *rows])
            content = out.getvalue()
        (folder / "in.csv").write_bytes(content.encode())
        assert read(folder / "in.csv") == rows

    is_found()


# damaged files


INSERTED = [b'"', b"\n", b"\r", b",", b"\t", b"\0", b"\xff", b"[", b"{", b"\\", b"\xef\xbb\xbf"]


def damaged(rng: random.Random, files: dict[str, bytes]) -> tuple[str, bytes]:
    name = rng.choice(list(files))
    data = bytearray(files[name])
    for _ in range(rng.randint(1, 6)):
        at, way = rng.randrange(len(data) + 1), rng.randrange(5)
        if way == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            del data[at : at + rng.randint(1, 40)]
        elif way == 2:
            data[at:at] = rng.choice(INSERTED)
        elif way == 3:
            data[at:at] = rng.choice(list(files.values()))[: rng.randint(1, 300)]
        else:
            del data[at:]
        data = data or bytearray(b"\n")
    return name, bytes(data)


def outcome(path: Path, args: DataArguments) -> str:
    """Say what becomes of a file; anything but an `InputError` passes."""
    refusal = ""
    try:
        made = build_documents("train", [open_table(path, args)], args)
    except InputError as error:
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        return "refused"
    assert len(made) + sum(made.skipped.values()) == made.num_read
    return "skipped" if made.skipped else "read"


@pytest.mark.parametrize("number", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_skipped_by_row_or_refused_in_one_line(tmp_path, number):
    records = [{"text": f'text, {row} "so"\nand é', "label": ["pos", "neg"][row % 2], "n": row} for row in range(12)]
    files: dict[str, bytes] = {}
    for ending in (".csv", ".tsv"):
        out = io.StringIO()
        delimiter = "\t" if ending == ".tsv" else ","
        csv.writer(out, delimiter=delimiter).writerows([list(records[0]), *(row.values() for row in records)])
        files[ending] = out.getvalue().encode()
    files[".jsonl"] = "".join(json.dumps(row) + "\n" for row in records).encode()
    files[".json"] = json.dumps(records, indent=1).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), buffer)
    files[".parquet"] = buffer.getvalue()
    files[".csv.gz"], files[".jsonl.xz"] = gzip.compress(files[".csv"]), lzma.compress(files[".jsonl"])
    files[".jsonl.zst"] = pa.compress(files[".jsonl"], "zstd", asbytes=True)
    rng = random.Random(number)
    ends = {"read": 0, "skipped": 0, "refused": 0}
    for _ in range(number):
        ending, data = damaged(rng, files)
        path = tmp_path / f"in{ending}"
        path.write_bytes(data)
        args = DataArguments(on_bad_row="skip")
        ends[outcome(path, args)] += 1
    assert min(ends.values()) > number / 50
