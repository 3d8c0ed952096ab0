"""Rows of files, in and out: nothing in them changes, and what cannot be read is said."""

import codecs
import csv
import gzip
import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data import dialect, tables
from modeling_roberta_gru.data.tables import ROWS_PER_CHUNK, Table, open_table, scratch_file, write_table
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.files import kind_of

from .refusals import refused

ODD_CELLS = [
    *["007", "1e5", "NULL", "nan", "", " padded ", "\ttab", 'said "so"', '"', "a,b;c", "two\nlines", "mac\rline"],
    *["dos\r\nline", "naïve 漢字 🙂", "one\u2028line", "\x1c", "\x00", "\ufeff", "=1+1", "a\\nb"],
]
ODD_LINES = [
    '{"text": "a", "price": 1.10, "big": 12345678901234567890.5, "huge": 1e400}',
    '{"id":7,"text":"b","nested":{"z":[1,{"a":null}],"a":true}}',
    '  {"text": "half \\ud83d", "odd": NaN, "text2": "\u2028"  }\t',
    '{"twice": 1, "twice": 2}',
    "{}",
]


def parquet_rows() -> pa.Table:
    """Return 600 rows of columns that are easily lost."""
    columns = {
        "text": pa.array(["a", "b\n", "漢"] * 200, pa.large_string()),
        "kind": pa.array(["x", None, "y"] * 200).dictionary_encode(),
        "tags": pa.array([["u", None], [], None] * 200, pa.list_(pa.string())),
        "seen": pa.array([1, None, 1_700_000_000_000_000_001] * 200, pa.timestamp("ns", "UTC")),
        "price": pa.array([Decimal("1.10"), None, Decimal("2.00")] * 200, pa.decimal128(9, 2)),
        "raw": pa.array([b"\xff", None, b""] * 200),
        "who": pa.array([{"id": 2**53 + 1, "name": None}, None, {"id": 0, "name": "n"}] * 200),
        "pairs": pa.array([[("k", 1)], [], None] * 200, pa.map_(pa.string(), pa.int8())),
    }
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    fields[0] = pa.field("text", pa.large_string(), nullable=False, metadata={"unit": "none"})
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, {"origin": "a test"}))


def write(path: Path, content: Any) -> Path:
    if isinstance(content, pa.Table):
        pq.write_table(content, path, row_group_size=250)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def copy(source: Path, target: Path, added: pa.Array | None = None) -> Path:
    """Copy rows with one column added: `new`, unset: the number of the row."""
    table = open_table(source, typed=target.suffix == ".parquet")
    num_rows = 0
    for chunk in table.chunks():
        table.learn(chunk)
        num_rows += len(chunk)
    added = pa.array(range(num_rows)) if added is None else added
    schema = pa.schema([*table.schema, ("new", added.type)], table.schema.metadata)
    values = iter(added.to_pylist())
    rows = ((chunk, {"new": [next(values) for _ in range(len(chunk))]}) for chunk in table.chunks())
    kept = table.dialect if kind_of(source) == kind_of(target) else None
    write_table(target, schema, rows, kept, table.has_byte_order_mark)
    return target


def values(table: Table, column: str) -> list[Any]:
    return [value for chunk in table.chunks() for value in chunk.values(column)]


def faults(table: Table) -> dict[int, str]:
    """Return the bad rows, from 1, and why they are."""
    return {chunk.first + at + 1: why for chunk in table.chunks() for at, why in chunk.bad.items()}


def read_csv(path: Path, encoding: str = "utf-8") -> list[list[str]]:
    with path.open(newline="", encoding=encoding) as file:
        return list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True))


def read_json(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


# what goes in comes out


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_cells_stay_the_text_that_they_are(tmp_path, ending):
    rows = [["", "text", "a,\n"], *([cell, "x", other] for cell in ODD_CELLS for other in ODD_CELLS)]
    source = tmp_path / f"in{ending}"
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if ending == ".tsv" else ",", quoting=csv.QUOTE_ALL).writerows(rows)
    copied = read_csv(copy(source, tmp_path / f"out{ending}"))
    assert copied[0] == [*rows[0], "new"]
    assert copied[1:] == [[*row, str(number)] for number, row in enumerate(rows[1:])]


def test_an_empty_cell_alone_in_its_row_stays_a_row(tmp_path):
    source = write(tmp_path / "in.csv", 'text\n""\nb\n')
    assert read_csv(copy(source, tmp_path / "out.csv")) == [["text", "new"], ["", "0"], ["b", "1"]]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_order_mark_stays_and_is_no_part_of_a_name(tmp_path, mark):
    source = write(tmp_path / "in.csv", mark + b"text\nna\xc3\xafve\n")
    assert open_table(source).schema.names == ["text"]
    assert copy(source, tmp_path / "out.csv").read_bytes() == mark + b"text,new\nna\xc3\xafve,0\n"
    lines = write(tmp_path / "in.jsonl", mark + b'{"text": "a"}\n')
    assert copy(lines, tmp_path / "out.jsonl").read_bytes() == b'{"text": "a", "new": 0}\n'


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32-be"])
def test_csv_is_read_in_its_encoding(tmp_path, encoding, mark):
    source = write(tmp_path / "in.csv", f"{mark * encoding.endswith('e')}text\nnaïve\n".encode(encoding))
    assert values(open_table(source, DataArguments(csv_encoding=encoding)), "text") == ["naïve"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_the_encoding_that_a_byte_order_mark_tells_is_named(tmp_path, encoding):
    source = write(tmp_path / "in.csv", "\ufefftext\nnaïve\n".encode(encoding))
    named = encoding[:-3]
    with refused(field="csv_encoding", file=str(source), match=f"--csv_encoding {named}"):
        open_table(source)
    assert values(open_table(source, DataArguments(csv_encoding=named)), "text") == ["naïve"]


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".json"])
def test_json_objects_stay_as_they_are_written(tmp_path, ending):
    source = write(tmp_path / f"in{ending}", "\r\n\n".join(ODD_LINES))  # the last line has no end
    lines = copy(source, tmp_path / f"out{ending}").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    for number, (line, odd) in enumerate(zip(lines, ODD_LINES, strict=True)):
        start = odd.strip()[:-1].rstrip()
        assert line == start + (", " if start != "{" else "") + f'"new": {number}}}'


def test_parquet_keeps_types_values_and_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 10_000)
    rows = parquet_rows()
    source = write(tmp_path / "in.parquet", rows)
    before, after = pq.read_table(source), pq.read_table(copy(source, tmp_path / "out.parquet"))
    assert after["new"].to_pylist() == list(range(600))
    assert after.drop_columns("new").schema.equals(before.schema, check_metadata=True)
    assert after.drop_columns("new").equals(before)
    assert before.equals(rows)
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups > 1


def test_a_data_set_of_the_hub_keeps_its_features(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features=features).to_parquet(tmp_path / "in.parquet")
    copied = copy(tmp_path / "in.parquet", tmp_path / "out.parquet", pa.array(["x"]))
    again = datasets.Dataset.from_parquet(str(copied), cache_dir=str(tmp_path / "cache"))
    assert again.features == {**features, "new": datasets.Value("string")}
    assert again[0] == {"text": "a", "label": 1, "new": "x"}


# from kind to kind


@pytest.mark.parametrize("there", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("here", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_text_is_the_same_in_every_kind(tmp_path, here, there):
    first = write(tmp_path / "first.jsonl", "".join(json.dumps({"text": cell}) + "\n" for cell in ODD_CELLS))
    source = copy(first, tmp_path / f"in{here}", pa.array(ODD_CELLS))
    table = open_table(source)
    schema = pa.schema([("text", pa.string()), ("new", pa.string()), ("again", pa.string())])
    rows = ((chunk, {"again": chunk.values("text")}) for chunk in table.chunks())
    write_table(tmp_path / f"out{there}", schema, rows)
    table = open_table(tmp_path / f"out{there}")
    assert [values(table, name) for name in ("text", "new", "again")] == [ODD_CELLS] * 3


def test_parquet_becomes_json(tmp_path):
    source = write(tmp_path / "in.parquet", parquet_rows())
    rows = read_json(copy(source, tmp_path / "out.jsonl", pa.array([["l"], [], None] * 200)))
    assert rows[0] == {
        "text": "a",
        "kind": "x",
        "tags": ["u", None],
        "seen": "1970-01-01T00:00:00.000000001+00:00",
        "price": "1.10",
        "raw": "/w==",
        "who": {"id": 2**53 + 1, "name": None},
        "pairs": [["k", 1]],
        "new": ["l"],
    }
    assert rows[1]["new"] == []
    assert rows[2]["new"] is None


def test_json_has_null_where_a_float_is_none(tmp_path):
    odd = pa.table({"x": [float("nan"), float("inf"), 0.5], "l": [[float("nan")], [1.0], []]})
    rows = read_json(copy(write(tmp_path / "in.parquet", odd), tmp_path / "out.jsonl"))
    assert [(row["x"], row["l"]) for row in rows] == [(None, [None]), (None, [1.0]), (0.5, [])]


def test_what_is_no_text_is_json_in_a_cell(tmp_path):
    source = write(tmp_path / "in.jsonl", '{"a": [1, "é"], "b": true}\n{"c": null, "b": 0.5, "a": {"k": "v"}}\n{}\n')
    copied = copy(source, tmp_path / "out.csv", pa.array([["l", "m"], [], None]))
    assert read_csv(copied) == [
        ["a", "b", "c", "new"],
        ['[1, "é"]', "true", "", "l|m"],
        ['{"k": "v"}', "0.5", "", ""],
        ["", "", "", ""],
    ]
    seen = datetime(2020, 1, 2, tzinfo=UTC)
    source = write(tmp_path / "in.parquet", pa.table({"seen": pa.array([seen], pa.timestamp("s", "UTC"))}))
    assert read_csv(copy(source, tmp_path / "seen.csv"))[1] == ["2020-01-02T00:00:00+00:00", "0"]


def test_half_characters_of_json_are_escaped_in_csv(tmp_path):
    source = write(tmp_path / "in.jsonl", '{"a": "half \\ud83d"}')
    assert read_csv(copy(source, tmp_path / "out.csv")) == [["a", "new"], ["half \\ud83d", "0"]]


def test_json_columns_take_the_type_that_holds_all_rows(tmp_path):
    # the kinds differ between chunks, and a key comes late
    early = '{"a": 1, "n": null, "s": {"x": 1}}\n' * ROWS_PER_CHUNK
    source = write(tmp_path / "in.jsonl", early + '{"late": ["é"], "a": 0.5, "s": {"y": "z"}}\n')
    copied = pq.read_table(copy(source, tmp_path / "out.parquet"))
    assert copied.schema.field("a").type == pa.float64()
    rows = copied.to_pylist()
    assert rows[0] == {"a": 1.0, "n": None, "s": {"x": 1, "y": None}, "late": None, "new": 0}
    assert rows[-1]["late"] == ["é"]
    assert rows[-1]["s"] == {"x": None, "y": "z"}


@pytest.mark.parametrize(
    ("lines", "field", "file"),
    [
        ('{"a": 1}\n' * ROWS_PER_CHUNK + '{"a": "x"}\n', "a", "in.jsonl"),
        ('{"a": 1}\n{"a": "x"}\n', "a", "in.jsonl"),
        ('{"a": 99999999999999999999}\n', "a", "in.jsonl"),
        ('{"a": "\\ud83d"}\n', "a", "in.jsonl"),
        ('{"a": {}}\n', None, "out.parquet"),
    ],
)
def test_json_that_parquet_cannot_hold_is_refused(tmp_path, lines, field, file):
    with refused(field=field, file=str(tmp_path / file), match=r"Parquet cannot hold .*\.jsonl"):
        copy(write(tmp_path / "in.jsonl", lines), tmp_path / "out.parquet")


# a few rows at a time


def test_rows_are_there_before_the_next_are_read(tmp_path):
    chunks = open_table(write(tmp_path / "in.jsonl", '{"text": "a"}\n' * 3 * ROWS_PER_CHUNK + "{")).chunks()
    assert [next(chunks).first for _ in range(3)] == [0, ROWS_PER_CHUNK, 2 * ROWS_PER_CHUNK]
    assert list(next(chunks).bad) == [0]


@pytest.mark.parametrize("row", ["a,b\n", '"a\n",b\n', 'a" b,c\n'])
@pytest.mark.parametrize("block", [1, 3, 7, 64, 1000])
def test_csv_is_read_the_same_in_blocks_of_any_size(tmp_path, monkeypatch, row, block):
    source = write(tmp_path / "in.csv", "text,n\n" + row * 300 + '"last",1')
    whole = [record for chunk in open_table(source).chunks() for record in chunk.records]
    monkeypatch.setattr(tables, "BLOCK_BYTES", block)
    assert [record for chunk in open_table(source).chunks() for record in chunk.records] == whole
    assert len(whole) == 301


def test_a_row_group_is_read_piece_by_piece(tmp_path):
    text = "".join(map(chr, range(32, 8000)))
    rows = pa.table({"text": [f"{number}{text}" for number in range(2000)]})
    pq.write_table(rows, tmp_path / "in.parquet", use_dictionary=False, data_page_size=2**16, write_batch_size=16)
    assert pq.ParquetFile(tmp_path / "in.parquet").num_row_groups == 1
    size = rows.nbytes
    del rows
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in open_table(tmp_path / "in.parquet").chunks()]
    assert len(held) == 8
    assert max(held) < size / 3


# what cannot be read


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_json_in_utf_16_is_refused_by_that_name(tmp_path, ending):
    with refused(file=str(tmp_path / f"in{ending}"), match="UTF-16"):
        open_table(write(tmp_path / f"in{ending}", '{"a": 1}\n'.encode("utf-16")))


@pytest.mark.parametrize(
    ("name", "content", "bad"),
    [
        ("in.csv", "text,n\na,1\nb\n", {2: "the row has 1 cell, and 2 are in the header"}),
        ("in.csv", "text,n\na,b,1\nc,2\nd,3\n", {1: "the row has 3 cells, and 2 are in the header"}),
        ("in.csv", 'text,n\n"a, b",1\n"c\nd",2\n"e,3\nf,4\n', {3: "a quotation mark is never closed"}),
        ("in.csv", 'text,n\n"a, b",1\n"c"d,1\ne,1\n', {2: "text follows a closing quotation mark"}),
        ("in.csv", b"text\na\n\xe9\n", {2: "the row is not UTF-8 text"}),
        ("in.jsonl", '{"a": 1}\n\n{"a": "b\n', {2: "the row is not JSON (Unterminated string"}),
        ("in.jsonl", '{"a": 1}\n[1]\n', {2: "the row is not a JSON object"}),
        ("in.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', {2: "the row is not UTF-8 text"}),
        ("in.jsonl", '{"a": ' + "[" * 200_000, {1: "the row is not readable JSON"}),
        ("in.jsonl", '{"a": ' + "1" * 5000 + "}", {1: "the row is not readable JSON"}),
        ("in.json", '[{"a": 1}, 2]', {2: "the row is not a JSON object"}),
    ],
)
def test_rows_that_cannot_be_read_are_bad_and_the_others_are_read(tmp_path, name, content, bad):
    found = faults(open_table(write(tmp_path / name, content)))
    assert {row: found[row][: len(why)] for row, why in bad.items()} == bad
    assert len(found) == len(bad)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", "", "is empty"),
        ("in.csv", b"t\xe9xt\na\n", "header is not UTF-8"),
        ("in.csv", "text\na\n".encode("utf-16"), "is UTF-16 text"),
        ("in.json", '[{"a": 1},', "not readable JSON"),
        ("in.json", '[{"a": 1} {"a": 2}]', "',' is missing"),
        ("in.json", '[{"a": 1}] x', "something follows the list"),
        ("in.json", '{\n"a": [1, 2], "b": {}}', "not a table"),
        ("in.parquet", "text\na\n", "not a readable Parquet"),
        ("in.parquet", pa.table([["a"], ["b"]], names=["text", "text"]), "two columns are named 'text'"),
        ("in.csv.gz", "text\na\n", "cannot be decompressed"),
        ("in.xlsx", "PK", "known: .csv, .tsv, .jsonl, .ndjson, .json, .parquet.*Save it as CSV"),
        ("in.xls", "PK", "Save it as CSV"),
        ("in", "text\na\n", "without an ending"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, content, message):
    source = write(tmp_path / name, content)
    with refused(file=str(source), match=message) as raised:
        list(open_table(source).chunks())
    assert "\n" not in str(raised.value)


def test_a_parquet_file_cut_off_or_damaged_is_said(tmp_path):
    whole = write(tmp_path / "whole.parquet", parquet_rows()).read_bytes()
    with refused(file=str(tmp_path / "half.parquet")):
        open_table(write(tmp_path / "half.parquet", whole[: len(whole) // 2]))
    damaged = write(tmp_path / "damaged.parquet", whole[:4] + bytes(2000) + whole[2004:])
    with refused(file=str(damaged)):
        list(open_table(damaged).chunks())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_parquet_text_that_is_no_utf_8_is_a_bad_row(tmp_path, kind):
    binary = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}[kind]
    cells = pa.array([b"a", None, b"\xe9"], binary)
    text = cells.view(kind) if kind != pa.string_view() else cells.cast(pa.binary()).view(pa.string())
    table = open_table(write(tmp_path / "in.parquet", pa.table({"text": text})))
    assert faults(table) == {3: "the row is not UTF-8 text"}
    assert values(table, "text") == ["a", None, None]


def test_a_cell_that_never_ends_is_a_bad_row(tmp_path, monkeypatch):
    limit = csv.field_size_limit()
    monkeypatch.setattr(dialect, "LONGEST_CELL", 1000)
    source = write(tmp_path / "in.csv", 'text,n\nx" y,1\n"a\n' + "b,1\n" * 1000)
    assert faults(open_table(source))[2].startswith("a cell has more than 1,000 characters")
    csv.field_size_limit(limit)


def test_a_missing_file_is_said_with_what_lies_near(tmp_path):
    write(tmp_path / "reviews.csv", "text\na\n")
    with refused(file=str(tmp_path / "review.csv"), match="'reviews.csv'"):
        open_table(tmp_path / "review.csv")
    with refused(file=str(tmp_path), match="is a folder"):
        open_table(tmp_path)


def test_scratch_files_of_one_name_are_apart():
    assert len({scratch_file("part.parquet") for _ in range(3)}) == 3


def test_a_reading_that_is_given_up_waits_for_no_thread(tmp_path, monkeypatch) -> None:
    read_plain, may_end = tables._read_plain, threading.Event()

    def read_late(block, *arguments):
        assert bytes(block[:2]) == b"0," or may_end.wait(60)
        return read_plain(block, *arguments)

    monkeypatch.setattr(tables, "_read_plain", read_late)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 2**10)
    threads = set(threading.enumerate())
    path = write(tmp_path / "rows.csv", "id,text\n" + "".join(f"{row},some words\n" for row in range(2_000)))
    chunks = open_table(path).chunks()
    assert next(chunks).values("id")[0] == "0"
    chunks.close()
    assert set(threading.enumerate()) - threads  # still at work
    may_end.set()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_that_python_cannot_hold_are_written_as_arrow_writes_them(tmp_path, unit):
    most = 2**62 if unit == "ns" else {"s": 1, "ms": 10**3, "us": 10**6}[unit] * 253402300799  # the end of 9999
    column = pa.array([most, None, 0], pa.timestamp(unit, tz="Asia/Tokyo"))
    pq.write_table(pa.table({"text": ["a", "b", "c"], "until": column}), tmp_path / "in.parquet")
    table = copy(tmp_path / "in.parquet", tmp_path / "out.csv")
    assert [row["text"] for row in read_json(copy(table, tmp_path / "out.jsonl"))] == ["a", "b", "c"]
    (_, *cells) = (row[1] for row in read_csv(tmp_path / "out.csv"))
    assert cells[1] == ""
    assert cells[0][:4] in ("2116", "1000")
    assert cells[2].startswith("1970-01-01")


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".csv", "text\na\nb\n"),
        (".jsonl", '{"text": "a"}\n{"text": "b"}\n'),
        (".json", '[{"text": "a"}, {"text": "b"}]'),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_urls_ending_is_known_whatever_is_hidden_of_its_name(ending, content, compressed):
    import fsspec

    ending += ".gz" * compressed
    with fsspec.open(f"memory://R&D/year=2024/r{ending}", "wb") as file:
        file.write(gzip.compress(content.encode()) if compressed else content.encode())
    assert values(open_table(f"memory://R&D/year=2024/r{ending}"), "text") == ["a", "b"]


@pytest.mark.parametrize("location", ["https://me:s3cret@host/data.xlsx", "s3://b/a?token=s3cret"])
def test_an_ending_that_is_none_is_said_without_the_password(location):
    with pytest.raises(InputError) as error:
        open_table(location)
    assert "s3cret" not in f"{error.value}{error.value.file}"


def test_of_the_lines_that_a_header_takes_only_their_size_is_kept():
    lines = tables._TakenLines(iter(["abc\n", "é\n"] * 50))
    assert sum(map(len, lines)) == 300
    assert lines.num_bytes == 350
    assert all(isinstance(value, int) for name, value in vars(lines).items() if name != "lines")
