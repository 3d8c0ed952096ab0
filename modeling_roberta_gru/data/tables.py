"""The one reader and writer of rows: CSV, TSV, JSON Lines, JSON and Parquet, compressed or not, here or at a URL.

Rows come a few at a time, so files may be larger than memory (but for JSON documents that are not a list). A row that
cannot be read as it should is kept and said to be bad; who reads decides what becomes of it. Rows are counted from 1,
without a header.

Files written are of the kind that their ending says, whatever kind the rows came from:

- within a kind, columns stay what they are: CSV cells text, JSON objects as they are written, Parquet columns of their
  type and with their metadata; CSV keeps its delimiter and its way of quoting, only what is quoted is decided anew;
- in CSV and TSV, null is an empty cell, and what is neither text nor null stands as in JSON;
- in JSON Lines, dates and times are in ISO 8601, bytes in base64, decimals text, and NaN and infinity null;
- in Parquet, CSV cells are text; a JSON column has the type that holds all its values, if there is one.

Text files are written in UTF-8; CSV has a byte order mark if it had one.
"""

import atexit
import base64
import bz2
import codecs
import gzip
import io
import json
import logging
import lzma
import math
import os
import re
import shutil
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ..arguments import DataArguments
from ..errors import InputError, first_line
from ..files import (
    check_ending,
    endings_of,
    is_url,
    kind_of,
    location_name,
    redacted,
    threads,
    without_passwords,
)
from .dialect import (
    DOUBLED,
    SAMPLE_BYTES,
    Dialect,
    Row,
    column_names,
    find_dialect,
    fitted,
    is_decoded,
    not_text,
    read_rows,
    split_lines,
    without_trailing,
)

logger = logging.getLogger(__name__)

CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON = (".jsonl", ".ndjson", ".json")
PARQUET = ".parquet"
COMPRESSED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": None}
UTF_8 = "UTF-8"
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""What a compressed file raises that is cut off or damaged."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets may read as a formula."""
ROWS_PER_CHUNK = 256
BLOCK_BYTES = 2**22
"""CSV is read in blocks of this size, or of one row."""
PARSERS = min(4, os.cpu_count() or 1)
"""So many blocks of CSV are parsed at once."""
ROW_GROUP_BYTES = 32 * 2**20
"""Rows are gathered to this size for a row group of Parquet."""

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class TextChunk:
    """Rows that follow one another, as Python holds them.

    Attributes:
        first: how many rows of the file come before.
        records: column → value, of each.
        lines: the rows as they are written, where that is JSON.
        bad: row (from 0, in this chunk) → why it could not be read.
    """

    first: int
    records: list[dict[str, Any]]
    lines: list[str] | None = None
    bad: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for record in self.records for name in record))

    def values(self, column: str) -> list[Any]:
        return [record.get(column) for record in self.records]

    def array(self, column: str) -> pa.Array | list[Any]:
        return self.values(column)

    def batch(self, schema: pa.Schema) -> pa.RecordBatch:
        records = self.records
        if self.bad:  # bytes that are not text are escaped, as in CSV and JSON
            records = [{name: _escaped(value) for name, value in record.items()} for record in records]
        return pa.RecordBatch.from_pylist(records, schema)


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(name): _escaped(item) for name, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class ArrowChunk:
    """Rows that follow one another, as Arrow holds them; see [`TextChunk`]."""

    first: int
    rows: pa.RecordBatch
    bad: dict[int, str] = field(default_factory=dict)
    lines: ClassVar[None] = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        return self.rows.schema.names

    @property
    def records(self) -> list[dict[str, Any]]:
        columns = [map(_plain, _python_values(column)) for column in self.rows.columns]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)]

    def values(self, column: str) -> list[Any]:
        array = self.rows.column(column)
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            return array.to_numpy(zero_copy_only=False).tolist()  # a third of the time
        return _python_values(array)

    def array(self, column: str) -> pa.Array | list[Any]:
        return self.rows.column(column)

    def batch(self, schema: pa.Schema) -> pa.RecordBatch:
        return self.rows


def _python_values(column: pa.Array) -> list[Any]:
    """Return a column's values; a time that Python cannot hold, such as one in the year 10000, as Arrow writes it."""
    try:
        return column.to_pylist()
    except OverflowError:
        return [_python_value(scalar) for scalar in column]


def _python_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except OverflowError:
        return scalar.cast(pa.string()).as_py()


Chunk = TextChunk | ArrowChunk
Rows = Iterable[tuple[Chunk, Columns]]
"""Chunks, and of each the columns that are added to it."""


class Table:
    """A file of rows.

    Attributes:
        name: what messages call it.
        schema: its columns, as far as they are known: those of JSON show as the rows go by, see [`learn`].
        dialect: how its rows are written, of CSV and TSV.
        has_byte_order_mark: whether a CSV or TSV file begins with one.
    """

    schema: pa.Schema
    dialect: Dialect | None = None
    has_byte_order_mark = False

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        """Yield all rows from the first, a few at a time.

        Args:
            columns: those that are wanted, where leaving others out is cheaper; None: all.

        Raises:
            InputError: naming the file, if it is not what its ending says.
        """
        raise NotImplementedError

    def learn(self, chunk: Chunk) -> None:
        """Add what columns a chunk has to the schema."""


class CsvTable(Table):
    """A CSV or TSV file. All cells are text.

    Blocks that any reader would read the same way are read by Arrow; from the first other one on, `dialect.py` does.
    """

    def __init__(self, path: Path, name: str, args: DataArguments):
        super().__init__(path, name)
        self.encoding, self.called = args.csv_encoding, args.csv_encoding
        if codecs.lookup(self.encoding).name in ("utf-8", "utf-8-sig"):
            self.called = UTF_8
        with self._opened() as file:
            start = file.read(SAMPLE_BYTES)
            if self.called == UTF_8 and start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                encoding = "utf-32" if start.startswith(codecs.BOM_UTF32_LE) else "utf-16"
                raise InputError(
                    f"{name} is {encoding.upper()} text: pass --csv_encoding {encoding}.",
                    field="csv_encoding",
                    file=name,
                )
            is_cut = len(start) >= SAMPLE_BYTES
            self.dialect = find_dialect(
                start.decode(errors="surrogateescape"),
                args.csv_delimiter_character,
                args.csv_quoting_kind,
                args.csv_escape_character,
                preferred=CSV_DELIMITERS[endings_of(str(path))[0]],
                width=len(args.csv_columns) if args.csv_columns else None,
                is_cut=is_cut,
            )
            lines = _TakenLines(_lines(file, start, self.dialect))
            self.given = args.csv_columns
            if self.given is None:
                header = next(read_rows(lines, self.dialect), Row([]))
                if not header.cells:
                    raise InputError(f"{name} has no rows.", file=name)
                if header.fault:
                    raise InputError(f"{name}: in the header {header.fault}.", file=name)
            else:
                if self.dialect.has_sep_line:
                    next(lines, None)
                header = Row(self.given)
            self.header_bytes = lines.num_bytes
            self.header = header.cells
            if self.header and not self.header[-1].strip():
                first = next(read_rows(lines, replace(self.dialect, has_sep_line=False)), None)
                self.header = without_trailing(self.header, first)
        if not is_decoded("".join(self.header)):
            raise InputError(
                f"{name}: the header is not {self.called} text. Save the file as UTF-8, or name its --csv_encoding.",
                file=name,
            )
        self.names = column_names(self.header)
        metadata = {HEADER: json.dumps(self.header)} if self.header != self.names else None
        self.schema = pa.schema([(column, pa.string()) for column in self.names], metadata)

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        assert self.dialect is not None
        first, offset = 0, self.header_bytes
        for size, rows in self._plain_rows(self.dialect, columns):
            if rows is None:
                break
            if self.given and first == 0 and len(rows):
                self._check_no_header({name: rows.column(name)[0].as_py() for name in rows.schema.names})
            for start in range(0, len(rows), 16 * ROWS_PER_CHUNK):
                yield ArrowChunk(first + start, rows.slice(start, 16 * ROWS_PER_CHUNK))
            first, offset = first + len(rows), offset + size
        else:
            return
        with self._opened() as file:
            _pass_over(file, offset)
            yield from self._careful_chunks(_lines(file, file.read(BLOCK_BYTES), self.dialect), first, columns)

    def _plain_rows(
        self, dialect: Dialect, columns: Sequence[str] | None
    ) -> Iterator[tuple[int, pa.RecordBatch | None]]:
        """Yield the size and the rows of each block, parsed on several cores; None for rows that are not plain."""
        with self._opened() as file, threads(PARSERS) as parsers:
            _pass_over(file, self.header_bytes)
            waiting: deque[tuple[int, Future[pa.RecordBatch | None]]] = deque()
            for block in _plain_blocks(file, dialect):
                waiting.append((len(block), parsers.submit(_read_plain, block, dialect, self.names, columns)))
                if len(waiting) > PARSERS:
                    size, rows = waiting.popleft()
                    yield size, rows.result()
            for size, rows in waiting:
                yield size, rows.result()

    def _careful_chunks(self, lines: Iterator[str], first: int, columns: Sequence[str] | None) -> Iterator[Chunk]:
        assert self.dialect is not None
        width = len(self.names)
        wanted = "cells are named by --csv_columns" if self.given else "are in the header"
        read = read_rows(lines, replace(self.dialect, has_sep_line=False))
        while some := list(islice(read, ROWS_PER_CHUNK)):
            rows = [fitted(row, width, self.dialect, wanted) for row in some]
            cells = [row.cells for row in rows]
            if self.given and first == 0:
                self._check_no_header(dict(zip(self.names, cells[0], strict=True)))
            yield self._chunk(first, cells, {at: row.fault for at, row in enumerate(rows) if row.fault}, columns)
            first += len(rows)

    def _chunk(self, first: int, cells: list[list[str]], bad: dict[int, str], columns: Sequence[str] | None) -> Chunk:
        try:
            if not bad:
                arrays = [pa.array(column, pa.string()) for column in zip(*cells, strict=True)]
                return ArrowChunk(first, pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        except UnicodeEncodeError:
            pass
        wanted = [place for place, name in enumerate(self.names) if columns is None or name in columns]
        for at, row in enumerate(cells):
            if not is_decoded("".join(row[place] for place in wanted)):
                bad.setdefault(at, not_text(self.called))
        return TextChunk(first, [dict(zip(self.names, row, strict=True)) for row in cells], bad=bad)

    def _check_no_header(self, row: dict[str, str]) -> None:
        if all(row.get(name, name) == name for name in self.names):
            raise InputError(
                f"{self.name} has a header, which --csv_columns would take for a row: leave --csv_columns out.",
                field="csv_columns",
                file=self.name,
            )

    @contextmanager
    def _opened(self) -> Iterator["_Utf8"]:
        """Open the file as UTF-8 without a byte order mark; bytes that are not text stay what they are."""
        with decompressed(self.path, self.name) as file:
            try:
                stream = _Utf8(file, self.encoding)
                self.has_byte_order_mark = stream.has_byte_order_mark and self.called == UTF_8
                yield stream
            except UnicodeError as error:  # bytes that no surrogate can stand for, as in UTF-16
                raise InputError(
                    f"{self.name} is not {self.called} text: {error}. Name its --csv_encoding.", file=self.name
                ) from None


class _Utf8:
    """Bytes of a text file, turned into UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str):
        self.file = file
        is_utf_8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
        self.decoder = None if is_utf_8 else codecs.getincrementaldecoder(encoding)("surrogateescape")
        self.kept = file.read(3) if is_utf_8 else b""
        self.has_byte_order_mark = self.kept == codecs.BOM_UTF8
        self.kept = b"" if self.has_byte_order_mark else self.kept
        self.is_at_start = True

    def read(self, size: int) -> bytes:
        """Return about so many bytes, none only at the end."""
        if self.decoder is None:
            data, self.kept = self.kept + self.file.read(size), b""
            return data
        if self.kept:
            data, self.kept = self.kept, b""
            return data
        while raw := self.file.read(size):
            text = self.decoder.decode(raw)
            if text and self.is_at_start:  # utf-16-le and its like keep the mark
                text, self.is_at_start = text.removeprefix("\ufeff"), False
            if text:
                return text.encode(errors="surrogateescape")
        return self.decoder.decode(b"", final=True).encode(errors="surrogateescape")


def _pass_over(file: _Utf8, size: int) -> None:
    """Pass over so many bytes."""
    while size > 0:
        data = file.read(size)
        if not data:
            return
        file.kept, size = data[size:], size - len(data)


class _TakenLines:
    """Lines, and how many bytes of them were taken."""

    def __init__(self, lines: Iterator[str]):
        self.lines, self.num_bytes = lines, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.num_bytes += len(line.encode(errors="surrogateescape"))
        return line


def _lines(file: _Utf8, data: bytes, dialect: Dialect) -> Iterator[str]:
    """Yield lines with their ends, from the text that `data` begins and the file continues.

    A carriage return alone ends a line too, unless quotation marks mean nothing and there are line feeds.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    only_feeds = dialect.quoting != DOUBLED and b"\n" in data
    rest, block, size, is_last = "", data, BLOCK_BYTES, False
    while True:
        text = rest + decoder.decode(block, final=is_last)
        lines = split_lines(text, only_feeds)
        rest = lines.pop() if lines and not is_last else ""  # its end may come yet, or half of it
        size = BLOCK_BYTES if lines else 2 * size
        yield from lines
        if is_last:
            return
        block = file.read(size)
        is_last = not block


def _plain_blocks(file: _Utf8, dialect: Dialect) -> Iterator[memoryview]:
    """Yield whole rows, some millions of bytes at a time; an empty block, and no more, where readers might differ."""
    data, size = b"", BLOCK_BYTES
    while True:
        block = file.read(size)
        data += block
        if not data:
            return
        end = _end_of_plain_rows(data, dialect, is_last=not block)
        if end == 0:  # a row longer than the block
            size = min(2 * size, 2**28)
            continue
        yield memoryview(data)[: max(end, 0)]
        if end < 0 or not block:
            return
        data, size = data[end:], BLOCK_BYTES


def _end_of_plain_rows(data: bytes, dialect: Dialect, is_last: bool) -> int:
    """Return where the last whole row ends, 0 if none does, or -1 where readers might differ about a row.

    They do not where each quotation mark opens a cell at its start, closes it at its end, or is doubled within.
    """
    if dialect.escape or dialect.skip_spaces or not dialect.delimiter.isascii() or len(data) > 2**30:
        return -1
    array = np.frombuffer(data, np.uint8)
    delimiter = ord(dialect.delimiter)
    has_quotes = dialect.quoting == DOUBLED and b'"' in data
    quotes = np.flatnonzero(array == 34) if has_quotes else np.empty(0, np.intp)
    opening, closing = quotes[::2], quotes[1::2]
    before = array[opening[1:] - 1] if len(opening) and opening[0] == 0 else array[opening - 1]
    after = _following(array, closing, is_last)
    opens = (before == delimiter) | (before == 10) | (before == 34)
    closes = (after == delimiter) | (after == 10) | (after == 13) | (after == 34)
    if not (opens.all() and closes.all()):
        return -1
    if is_last:
        end = len(data) if len(quotes) % 2 == 0 else -1
    else:
        end = data.rfind(b"\n") + 1
        while end and _are_inside(quotes, end - 1):
            cell = int(quotes[np.searchsorted(quotes, end - 1).item() - 1])
            end = data.rfind(b"\n", 0, cell) + 1
    if b"\r" in data:
        returns = np.flatnonzero(array[: max(end, 0)] == 13)
        alone = returns[_following(array, returns, is_last) != 10]
        if not _are_inside(quotes, alone).all():
            return -1
    if dialect.delimiter == "\t" and not dialect.is_certain and len(quotes):
        feeds, tabs = (np.flatnonzero(array == byte) for byte in b"\n\t")
        if _are_inside(quotes, feeds).any() and _are_inside(quotes, tabs).any():
            return -1  # rows may have been merged by marks that mean nothing
    return end


def _are_inside(quotes: np.ndarray, places: np.ndarray | int) -> np.ndarray:
    """Tell whether places stand between an opening quotation mark and its closing one."""
    return (np.searchsorted(quotes, places) & 1).astype(bool)


def _following(array: np.ndarray, places: np.ndarray, is_last: bool) -> np.ndarray:
    """Return the bytes behind some places; behind the last byte a line ends, or a quotation mark may come."""
    following = array[np.minimum(places + 1, len(array) - 1)]
    if len(places) and places[-1] == len(array) - 1:
        following[-1] = 10 if is_last else 34
    return following


def _read_plain(
    data: memoryview, dialect: Dialect, names: Sequence[str], columns: Sequence[str] | None
) -> pa.RecordBatch | None:
    """Read rows by Arrow, or return None if there are none or it refuses them."""
    if not data:
        return None
    wanted = [name for name in names if columns is None or name in columns]
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            pa_csv.ReadOptions(use_threads=False, column_names=list(names), block_size=len(data) + 1),
            pa_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if dialect.quoting == DOUBLED else False,
                newlines_in_values=dialect.quoting == DOUBLED,
            ),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=wanted
            ),
        )
    except pa.ArrowInvalid:
        return None
    schema = pa.schema([(name, pa.string()) for name in wanted])
    arrays = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class JsonTable(Table):
    """A file of JSON objects: one a line, a list of them, or one document as pandas writes it.

    Objects need not have the same keys. A list is read piece by piece, other documents whole.
    """

    def __init__(self, path: Path, name: str, typed: bool):
        """Open it; `typed`: the types of its columns matter, since Parquet will be written."""
        super().__init__(path, name)
        self.typed = typed
        self.schema = pa.schema([])
        with decompressed(path, name) as file:
            start = file.read(SAMPLE_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f"{name} is UTF-16, not {UTF_8} text: save it as {UTF_8}.", file=name)
        is_lines = endings_of(str(path))[0] != ".json"
        self.kind = "lines"
        if start.startswith(b"[") and not (is_lines and _is_row_of_many(start)):
            self.kind = "list"
        elif start.startswith(b"{") and not is_lines and _names_cells(start):
            self.kind = "document"

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        rows, first = {"list": self._listed, "lines": self._lines, "document": self._document}[self.kind](), 0
        while some := list(islice(rows, ROWS_PER_CHUNK)):
            bad = {at: fault for at, (_, _, fault) in enumerate(some) if fault}
            lines = [text or json.dumps(record, ensure_ascii=False) for text, record, _ in some]
            yield TextChunk(first, [record for _, record, _ in some], lines, bad)
            first += len(some)

    def learn(self, chunk: Chunk) -> None:
        for name in chunk.names:
            try:
                kind = pa.array(chunk.values(name)).type if self.typed else pa.null()
                schemas = [self.schema, pa.schema([(name, kind)])]
                self.schema = pa.unify_schemas(schemas, promote_options="permissive")
            except (ValueError, TypeError, OverflowError) as error:  # Arrow's errors are subclasses of these
                raise InputError(
                    f"{self.name}: column {name!r} mixes kinds of values, which Parquet cannot hold ({error}). "
                    "Name an output that ends in .jsonl.",
                    field=name,
                    file=self.name,
                ) from None

    def _lines(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Yield each row's text, the object in it, and what is wrong with it."""
        with decompressed(self.path, self.name) as file:  # in bytes: JSON strings may hold U+2028 and its like
            for number, line in enumerate(file):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
                try:
                    text = line.decode().strip(JSON_SPACE)
                except UnicodeDecodeError:
                    text = line.decode(errors="backslashreplace").strip(JSON_SPACE)
                    yield json.dumps({UNREADABLE: text}), {UNREADABLE: text}, not_text(UTF_8)
                    continue
                if text:
                    yield self._parsed(text)

    def _parsed(self, text: str) -> tuple[str, dict[str, Any], str]:
        try:
            record = json.loads(text)
            fault = "" if isinstance(record, dict) else "the row is not a JSON object"
        except json.JSONDecodeError as error:
            fault = f"the row is not JSON ({error.msg}, character {error.pos + 1})"
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
            fault = f"the row is not readable JSON ({first_line(error)})"
        if fault:
            return json.dumps({UNREADABLE: text}), {UNREADABLE: text}, fault
        return text, record, ""

    def _listed(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        """Yield the items of a list that may be larger than memory."""
        decoder = json.JSONDecoder()
        text, at, size = "", 0, BLOCK_BYTES
        with self._text() as read:
            text = read(size).lstrip("\ufeff" + JSON_SPACE)
            at = 1  # behind the bracket
            is_first = True
            while True:
                at = JSON_GAP.match(text, at).end()  # type: ignore[union-attr]
                if at >= len(text) - 1 and (more := read(size)):
                    text, at = text[at:] + more, 0
                    continue
                if text[at : at + 1] == "]":
                    if text[at + 1 :].strip(JSON_SPACE) or read(1).strip(JSON_SPACE):
                        raise self._no_json("something follows the list")
                    return
                if not is_first:
                    if text[at : at + 1] != ",":
                        raise self._no_json("',' is missing between two items, or the list is not closed")
                    at = JSON_GAP.match(text, at + 1).end()  # type: ignore[union-attr]
                try:
                    record, end = decoder.raw_decode(text, at)
                except RecursionError:
                    raise self._no_json("it is nested too deeply") from None
                except ValueError as error:
                    if more := read(size):
                        text, at, size = text[at:] + more, 0, 2 * size
                        if not is_first:
                            text = "," + text
                        continue
                    raise self._no_json(_message(error)) from None
                if end >= len(text) and (more := read(size)):  # a number may go on
                    text, at = ("" if is_first else ",") + text[at:] + more, 0
                    continue
                is_first = False
                at = end
                if isinstance(record, dict):
                    yield "", record, ""
                else:
                    yield "", {UNREADABLE: json.dumps(record)}, "the row is not a JSON object"
                if at > BLOCK_BYTES:
                    text, at, size = text[at:], 0, BLOCK_BYTES

    def _document(self) -> Iterator[tuple[str, dict[str, Any], str]]:
        with self._text() as read:
            text = read(-1)
        try:
            document = json.loads(text.lstrip("\ufeff"))
        except (ValueError, RecursionError) as error:
            if _message(error) == "Extra data":  # lines after all, the first of them longer than the sample
                yield from self._lines()
                return
            raise self._no_json(_message(error)) from None
        for record in self._rows_of(document):
            if isinstance(record, dict):
                yield "", record, ""
            else:
                yield "", {UNREADABLE: json.dumps(record)}, "the row is not a JSON object"

    def _rows_of(self, document: dict[str, Any]) -> Iterable[Any]:
        """Return the rows of a document: pandas' orients split, table, columns and index, or rows under a key."""
        rows = next(
            (document[key] for key in ("data", "rows", "records") if isinstance(document.get(key), list)), None
        )
        inner = list(document.values())
        are_columns = all(isinstance(value, list) for value in inner) and len({len(value) for value in inner}) == 1
        if rows is not None:
            names = document.get("columns")
            if isinstance(names, list) and all(isinstance(row, list) and len(row) == len(names) for row in rows):
                return [dict(zip(map(str, names), row, strict=True)) for row in rows]
            if len(inner) == 1 or not are_columns or all(isinstance(row, dict) for row in rows):
                return rows
        if are_columns:
            return [dict(zip(document, row, strict=True)) for row in zip(*inner, strict=True)]
        if inner and all(isinstance(value, dict) for value in inner):
            keys = list(inner[0])
            # by columns the inner keys name the rows, by index the outer ones do: by numbers, or they are more
            outer_names_rows = all(key.isdecimal() for key in document) or len(document) > len(keys)
            by_column = all(key.isdecimal() for key in keys) or not outer_names_rows
            if by_column and all(list(value) == keys for value in inner):
                return [{name: cells[key] for name, cells in document.items()} for key in keys]
            return inner
        raise InputError(
            f"{self.name} is a JSON document but not a table: write one object a line, as "
            "DataFrame.to_json(orient='records', lines=True) does.",
            file=self.name,
        )

    @contextmanager
    def _text(self) -> Iterator[Any]:
        with decompressed(self.path, self.name) as file:
            try:
                yield codecs.getreader("utf-8")(file, "surrogateescape").read
            except UnicodeError as error:
                raise InputError(f"{self.name} is not {UTF_8} text: {error}.", file=self.name) from None

    def _no_json(self, reason: str) -> InputError:
        return InputError(f"{self.name} is not readable JSON: {reason.rstrip('.')}.", file=self.name)


def _message(error: Exception) -> str:
    return getattr(error, "msg", None) or (str(error).splitlines() or [type(error).__name__])[0]


UNREADABLE = "unreadable"
"""The column that keeps, in what is written, a row that is not a JSON object."""
JSON_SPACE = " \t\r\n"
JSON_GAP = re.compile(r"[ \t\r\n]*")


_TEXT = r'"(?:[^"\\]|\\.)*"'
HOLDS_ROWS = re.compile(rf"\{{(?:\s*{_TEXT}\s*:\s*(?:{_TEXT}|[\w.+-]+)\s*,)*\s*{_TEXT}\s*:\s*[\[{{]".encode())
"""What a document of rows begins with: perhaps text and numbers, then a list or an object."""


def _is_row_of_many(start: bytes) -> bool:
    """Tell whether the first line of a JSON file is JSON by itself, and more lines follow."""
    line, _, rest = start.partition(b"\n")
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return bool(rest.strip())


def _names_cells(start: bytes) -> bool:
    """Tell whether a JSON file is one document and not objects a line: its first line is not an object by itself."""
    line, end, _ = start.partition(b"\n")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        # cut off within its first line, or spread over lines: {"text": {"0": … or {"data": [{…
        return HOLDS_ROWS.match(start) is not None and (
            not end or re.match(rb"\{\s*$", line) is not None or line.rstrip().endswith((b"{", b"[", b","))
        )
    if end and start[len(line) + 1 :].strip():  # more lines
        return False
    values = list(record.values()) if isinstance(record, dict) else []
    return bool(values) and (
        all(isinstance(value, dict) for value in values)
        or any(
            isinstance(record.get(key), list) and record[key] and isinstance(record[key][0], dict | list)
            for key in ("data", "rows", "records")
        )
        or (len(values) > 1 and all(isinstance(value, list) for value in values))
    )


class ParquetTable(Table):
    """A Parquet file."""

    def __init__(self, path: Path, name: str):
        super().__init__(path, name)
        with self._reading() as file:
            self.schema = file.schema_arrow

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        first = 0
        wanted = None if columns is None else [name for name in self.schema.names if name in columns]
        check_once(self.schema.names if wanted is None else wanted, self.schema.names, self.name)
        with self._reading() as file:
            for rows in file.iter_batches(ROWS_PER_CHUNK, columns=wanted):
                rows, bad = _decoded(rows)
                yield ArrowChunk(first, rows, bad)
                first += len(rows)

    @contextmanager
    def _reading(self) -> Iterator[pq.ParquetFile]:
        try:
            # So it is read piece by piece; pyarrow's defaults hold a whole row group, which may be the whole file.
            with pq.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            said = f"{self.name} is not a readable Parquet file: {first_line(error)}."
            raise InputError(said, file=self.name) from None


def check_once(wanted: Iterable[str], names: Sequence[str], table: str) -> None:
    """Check that no other column has the name of a wanted one."""
    for name in wanted:
        if names.count(name) > 1:
            raise InputError(f"{table}: two columns are named {name!r}. Rename one.", field=name, file=table)


def _decoded(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Return rows whose text is text, null where the bytes are not UTF-8, and those rows as bad."""
    bad: dict[int, str] = {}
    for at, column in enumerate(rows.columns):
        if not is_text(column.type):
            continue
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            cells = [_text_or_none(cell) for cell in column.cast(pa.large_binary()).to_pylist()]
            bad |= {row: not_text(UTF_8) for row, cell in enumerate(cells) if cell is None and column[row].is_valid}
            rows = rows.set_column(at, rows.schema.field(at), pa.array(cells, column.type))
    return rows, bad


def _text_or_none(cell: bytes | None) -> str | None:
    try:
        return None if cell is None else cell.decode()
    except UnicodeDecodeError:
        return None


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def begins_with_text(column: pa.Array) -> np.ndarray:
    """Tell of each cell, (n,), whether it is sure to hold more than white space: it begins with a mark of ASCII."""
    kinds: dict[pa.DataType, Any] = {pa.string(): np.int32, pa.large_string(): np.int64}
    if column.type not in kinds or column.null_count or column.buffers()[2] is None:
        return np.zeros(len(column), dtype=bool)
    _, places, characters = column.buffers()
    places = np.frombuffer(places, kinds[column.type])[column.offset : column.offset + len(column) + 1]
    characters = np.frombuffer(characters, np.uint8)
    if not len(characters):
        return np.zeros(len(column), dtype=bool)
    first = characters[np.minimum(places[:-1], len(characters) - 1)]
    return (places[1:] > places[:-1]) & (first > 32) & (first < 127)


# Finding and opening files


def open_table(location: str | Path, args: DataArguments | None = None, typed: bool = False) -> Table:
    """Open a file; only its beginning or its schema is read.

    Args:
        location: a path, or a URL that fsspec opens, which is fetched whole; its ending says what the file is.
        args: how CSV and TSV files are written.
        typed: whether the columns of JSON must have types.

    Raises:
        InputError: if it is missing, of another kind, empty, or not what its ending says.
    """
    args = args or DataArguments()
    name = location_name(location)
    if Path(name).is_dir():
        raise InputError(f"{name} is a folder: name a file in it.", file=name)
    kind, compression = check_ending(name, "read"), endings_of(name)[1]
    path = fetch(name) if is_url(name) else Path(name)
    name = redacted(name)
    if not path.is_file():
        raise InputError(f"No file {name!r}. {nearby(path)}", file=name)
    if path.stat().st_size == 0:
        raise InputError(f"{name} is empty.", file=name)
    if kind == PARQUET:
        return ParquetTable(_decompressed_copy(path, name) if compression else path, name)
    if kind in JSON:
        return JsonTable(path, name, typed)
    table = CsvTable(path, name, args)
    assert table.dialect is not None
    if not table.dialect.is_usual:
        logger.warning("%s is read as: %s.", name, table.dialect)
    return table


def is_csv(location: str | Path) -> bool:
    return kind_of(location) in CSV_DELIMITERS


@contextmanager
def decompressed(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Open a file that may be compressed.

    Raises:
        InputError: if it is compressed and damaged or cut off.
    """
    compression = endings_of(str(path))[1]
    if not compression:
        with open(path, "rb") as file:
            yield file
        return
    try:
        with _decompressing(path, compression) as file:
            yield file
    except DAMAGED as error:
        raise InputError(f"{name} cannot be decompressed: {first_line(error)}.", file=name) from None


def _decompressing(path: Path, compression: str) -> Any:
    if compression == ".zst":  # Arrow's own stream has no lines
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), BLOCK_BYTES)
    return COMPRESSED[compression](path, "rb")  # type: ignore[misc]


@cache
def scratch() -> Path:
    """Return a folder for this process alone, which is deleted when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="roberta-gru-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def scratch_file(name: str) -> Path:
    """Make an empty file in there, and return its path."""
    descriptor, path = tempfile.mkstemp(suffix=f"-{name}", dir=scratch())
    os.close(descriptor)
    return Path(path)


_fetched: dict[tuple[str, str], Path] = {}  # URL and what its server says of it → its copy


def fetch(url: str) -> Path:
    """Copy what a URL names to this machine; of what has not changed since, the copy made before is returned.

    A copy's time is 0, the same in every process.

    Raises:
        InputError: if it cannot be read.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)  # `fsspec.open` takes "?" and "*" in it for a pattern
        system.invalidate_cache()  # of listings, which would hide a change
        # Not where it was redirected to, nor when it was read.
        known = {name: value for name, value in system.info(path).items() if name not in ("url", "atime")}
        version = url, str(known)
        if version not in _fetched:
            target = scratch_file(Path(urlsplit(url).path).name)
            with system.open(path, "rb") as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, BLOCK_BYTES)
            os.utime(target, ns=(0, 0))
            _fetched[version] = target
    except Exception as error:  # each protocol has errors of its own
        reason = without_passwords(first_line(error))
        raise InputError(f"Could not read {redacted(url)}: {reason}.", file=redacted(url)) from None
    return _fetched[version]


def _decompressed_copy(path: Path, name: str) -> Path:
    """Unpack a file to a scratch copy with the same modification time."""
    target = scratch_file(path.stem)
    with decompressed(path, name) as source, open(target, "wb") as file:
        while block := source.read(BLOCK_BYTES):
            file.write(block)
    os.utime(target, ns=(0, path.stat().st_mtime_ns))
    return target


def nearby(path: Path) -> str:
    """Say what lies where a missing file was looked for, nearest names first."""
    if not path.parent.is_dir():
        return f"The folder {str(path.parent)!r} does not exist either."
    names = [file.name for file in path.parent.iterdir() if kind_of(file.name)]
    near = get_close_matches(path.name, names, n=3)
    return f"Did you mean {near[0]!r}?" if near else f"{str(path.parent)!r} contains: {listing(path.parent)}."


def listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") if names else "nothing"


# Writing


def write_table(
    path: Path,
    schema: pa.Schema,
    rows: Rows,
    dialect: Dialect | None = None,
    byte_order_mark: bool = False,
    excel_safe: bool = False,
) -> None:
    """Write rows with columns added to them, as they come, to a file of the kind that its ending says.

    Args:
        path: the file, which is written over.
        schema: all columns, the added ones last.
        rows: chunks and added columns; a list in an added column is joined by "|" in CSV and TSV.
        dialect: how CSV and TSV are written; None: as usual.
        byte_order_mark: whether CSV and TSV begin with one.
        excel_safe: put an apostrophe before CSV and TSV cells that a spreadsheet would run as a formula.

    Raises:
        InputError: if Parquet cannot hold a column, or the dialect a cell.
    """
    kind = check_ending(path, "write")
    with _compressing(path) as file:
        if kind in CSV_DELIMITERS:
            usual = Dialect(CSV_DELIMITERS[kind])
            _write_csv(file, path, schema, rows, dialect or usual, byte_order_mark, excel_safe)
        elif kind == PARQUET:
            _write_parquet(file, path, schema, rows)
        else:
            _write_json(file, rows)


@contextmanager
def _compressing(path: Path) -> Iterator[IO[bytes]]:
    compression = endings_of(str(path))[1]
    with open(path, "wb") as file:
        if compression == ".gz":
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:  # the same bytes every time
                yield compressed  # type: ignore[misc]
        elif compression == ".zst":
            with pa.CompressedOutputStream(file, "zstd") as compressed:
                yield compressed
        elif compression:
            with COMPRESSED[compression](file, "wb") as compressed:  # type: ignore[misc]
                yield compressed  # type: ignore[misc]
        else:
            yield file


def _write_csv(
    file: IO[bytes],
    path: Path,
    schema: pa.Schema,
    rows: Rows,
    dialect: Dialect,
    byte_order_mark: bool,
    excel_safe: bool,
) -> None:
    # JSON may hold halves of characters (lone surrogates); they are written as JSON escapes them
    def write(cells: list[str]) -> None:
        cells = [_unlike_formula(cell) for cell in cells] if excel_safe else cells
        try:
            file.write(_csv_line(cells, dialect).encode("utf-8", "backslashreplace"))
        except ValueError as error:
            raise InputError(
                f"{path}: {error}. Name an output of another kind, such as one that ends in .jsonl.", file=str(path)
            ) from None

    file.write(codecs.BOM_UTF8 if byte_order_mark else b"")
    file.write(f"sep={dialect.delimiter}\n".encode() if dialect.has_sep_line else b"")
    header = json.loads((schema.metadata or {}).get(HEADER, b"[]"))
    write([*header, *schema.names[len(header) :]])
    for chunk, columns in rows:
        for record, added in zip(chunk.records, _by_row(columns), strict=True):
            joined = {
                name: "|".join(map(str, value)) if isinstance(value, list) else value for name, value in added.items()
            }
            row = record | joined
            write([_cell(row.get(name)) for name in schema.names])


HEADER = b"header"
"""In the metadata of a CSV file's schema: its columns' names as they are written, if empty or padded."""


def _csv_line(cells: list[str], dialect: Dialect) -> str:
    """Write a row. The csv module would end lines in CR LF, or leave a CR within a cell unquoted."""
    return dialect.line(cells)


def _unlike_formula(cell: str) -> str:
    if not cell.startswith(FORMULA_STARTS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a number with its sign


def _write_json(file: IO[bytes], rows: Rows) -> None:
    for chunk, columns in rows:
        records = chunk.records
        lines = chunk.lines or [json.dumps(record, ensure_ascii=False) for record in records]
        for line, record, added in zip(lines, records, _by_row(columns), strict=True):
            # added to what is written there: numbers keep their digits, and keys their order
            start = line[:-1].rstrip() + (", " if record else "")
            text = start + json.dumps(added, ensure_ascii=False)[1:] + "\n"
            file.write(text.encode("utf-8", "backslashreplace"))


def _write_parquet(file: IO[bytes], path: Path, schema: pa.Schema, rows: Rows) -> None:
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != HEADER}
    schema = schema.with_metadata(metadata or None)
    try:
        with pq.ParquetWriter(file, schema) as writer:
            for group in _row_groups(schema, rows):
                writer.write_table(pa.Table.from_batches(group, schema))
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise InputError(
            f"{path}: Parquet cannot hold these columns: {str(error).rstrip('.')}. Name an output that ends in "
            ".jsonl.",
            file=str(path),
        ) from None


def _row_groups(schema: pa.Schema, rows: Rows) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    size = 0
    for chunk, columns in rows:
        theirs = chunk.batch(pa.schema(list(schema)[: len(schema) - len(columns)]))
        ours = [pa.array(values, schema.field(name).type) for name, values in columns.items()]
        group.append(pa.RecordBatch.from_arrays([*theirs.columns, *ours], schema=schema))
        size += group[-1].nbytes
        if size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _by_row(columns: Columns) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value of Arrow's."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
