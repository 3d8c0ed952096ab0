"""Read and write the rows of CSV, TSV, JSON Lines and Parquet files, a few at a time: files may be larger than memory.

Files written are of the kind that their ending says, whatever kind the rows came from:

- within a kind, columns stay what they are: CSV cells text, JSON objects as they are written, Parquet columns of their
  type and with their metadata; only the quoting of CSV cells and the row groups of Parquet are made anew;
- in CSV and TSV, null is an empty cell, and what is neither text nor null stands as in JSON;
- in JSON Lines, dates and times are in ISO 8601, bytes in base64, decimals text, and NaN and infinity null;
- in Parquet, CSV cells are text; a JSON column has the type that holds all its values, if there is one.

Text files are written in UTF-8; CSV has a byte order mark if it had one.
"""

import base64
import codecs
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable

from ..arguments import DataArguments
from ..errors import InputError

CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}
UTF_8 = "UTF-8"

JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = ".parquet"
ENDINGS = (*CSV_DELIMITERS, *JSON_LINES, PARQUET)

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets may read as a formula."""
ROWS_PER_CHUNK = 256
ROW_GROUP_BYTES = 32 * 2**20
"""Rows are gathered to this size for a row group of Parquet."""
LONGEST_CELL = 2**27
"""Characters. A quotation mark that nobody closed would make a cell of the rest of the file."""

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class TextChunk:
    """Rows of a text file that follow one another.

    Attributes:
        places: the line that each begins in, from 1.
        records: column → value, of each.
        lines: the rows as they are written, where that is JSON.
    """

    places: list[int]
    records: list[dict[str, Any]]
    lines: list[str] | None = None

    def values(self, column: str) -> list[Any]:
        return [record.get(column) for record in self.records]

    def batch(self, schema: pa.Schema) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist(self.records, schema)


@dataclass(frozen=True)
class ParquetChunk:
    """Rows of a Parquet file that follow one another.

    Attributes:
        places: their numbers, from 1.
        rows: the rows.
    """

    places: range
    rows: pa.RecordBatch
    lines: ClassVar[None] = None

    @property
    def records(self) -> list[dict[str, Any]]:
        return [{name: _plain(value) for name, value in record.items()} for record in self.rows.to_pylist()]

    def values(self, column: str) -> list[Any]:
        return self.rows.column(column).to_pylist()

    def batch(self, schema: pa.Schema) -> pa.RecordBatch:
        return self.rows


Chunk = TextChunk | ParquetChunk
Rows = Iterable[tuple[Chunk, Columns]]
"""Chunks, and of each the columns that are added to it."""


class Table:
    """A file of rows.

    Attributes:
        path: where it lies.
        place: what messages count, "line" or "row".
        schema: its columns, as far as they are known: those of JSON Lines show as the rows go by, see [`learn`].
    """

    place: ClassVar[str] = "line"
    schema: pa.Schema

    def __init__(self, path: Path):
        self.path = path

    @property
    def has_byte_order_mark(self) -> bool:
        return False

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows from the first, no more than [`ROWS_PER_CHUNK`] at a time.

        Raises:
            InputError: naming file and line, if the file is not what its ending says.
        """
        raise NotImplementedError

    def learn(self, chunk: Chunk) -> None:
        """Add what columns a chunk has to the schema."""


class CsvTable(Table):
    """A CSV or TSV file with a header. All cells are text."""

    def __init__(self, path: Path, encoding: str):
        super().__init__(path)
        self.delimiter = CSV_DELIMITERS[path.suffix.lower()]
        self.encoding, self.called = encoding, encoding
        if codecs.lookup(encoding).name == "utf-8":
            self.encoding, self.called = "utf-8-sig", UTF_8  # with a byte order mark or without
        _, self.names = next(self._rows(), (1, []))
        _check_names(path, self.names)
        self.schema = pa.schema([(name, pa.string()) for name in self.names])

    @property
    def has_byte_order_mark(self) -> bool:
        with open(self.path, "rb") as file:
            return self.called == UTF_8 and file.read(3) == codecs.BOM_UTF8

    def chunks(self) -> Iterator[Chunk]:
        rows = self._rows()
        next(rows, None)  # the header
        while some := list(islice(rows, ROWS_PER_CHUNK)):
            yield TextChunk([line for line, _ in some], [self._record(line, cells) for line, cells in some])

    def _record(self, line: int, cells: list[str]) -> dict[str, str]:
        if len(cells) != len(self.names):
            raise InputError(
                f"{self.path}, line {line}: the row has {len(cells)} cells, the header {len(self.names)}. "
                f"A cell that holds {self.delimiter!r} stands in quotation marks."
            )
        return dict(zip(self.names, cells, strict=True))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line that each row begins in, and its cells."""
        csv.field_size_limit(LONGEST_CELL)
        not_text = f"not {self.called} text. Save the file as UTF-8, or name its --csv-encoding."
        line = 1
        with open(self.path, newline="", encoding=self.encoding, errors="surrogateescape") as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            try:
                for cells in reader:
                    if not is_decoded("".join(cells)):
                        raise InputError(f"{self.path}, line {line}: {not_text}")
                    if cells:
                        yield line, cells
                    line = reader.line_num + 1
            except csv.Error as error:
                raise InputError(f"{self.path}, the row that begins in line {line}: {error}.") from None
            except UnicodeError:  # for bytes that no surrogate can stand for, as in UTF-16
                raise InputError(f"{self.path}, after line {line}: {not_text}") from None


class JsonTable(Table):
    """A file of one JSON object a line; they need not have the same keys."""

    def __init__(self, path: Path, typed: bool):
        """Open it; `typed`: the types of its columns matter, since Parquet will be written."""
        super().__init__(path)
        self.typed = typed
        self.schema = pa.schema([])
        with open(path, "rb") as file:
            if file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
                raise InputError(
                    f"{path} is one JSON list, which cannot be read line by line: write one object a line, as "
                    f"jq -c '.[]' does."
                )

    def chunks(self) -> Iterator[Chunk]:
        lines = self._lines()
        while some := list(islice(lines, ROWS_PER_CHUNK)):
            numbers, texts = [number for number, _ in some], [text for _, text in some]
            yield TextChunk(numbers, [self._record(number, text) for number, text in some], texts)

    def learn(self, chunk: Chunk) -> None:
        for name in dict.fromkeys(name for record in chunk.records for name in record):
            try:
                kind = pa.array(chunk.values(name)).type if self.typed else pa.null()
                schemas = [self.schema, pa.schema([(name, kind)])]
                self.schema = pa.unify_schemas(schemas, promote_options="permissive")
            except (ValueError, TypeError, OverflowError) as error:  # Arrow's errors are subclasses of these
                raise InputError(
                    f"{self.path}: column {name!r} mixes kinds of values, which Parquet cannot hold ({error}). "
                    "Name an output that ends in .jsonl."
                ) from None

    def _record(self, line: int, text: str) -> dict[str, Any]:
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{self.path}, line {line}: not JSON ({error.msg}, character {error.pos + 1}).") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
            raise InputError(f"{self.path}, line {line}: not readable JSON ({error}).") from None
        if not isinstance(record, dict):
            raise InputError(f"{self.path}, line {line}: the row is not a JSON object.")
        return record

    def _lines(self) -> Iterator[tuple[int, str]]:
        with open(self.path, "rb") as file:  # in bytes: JSON strings may hold U+2028 and its like
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \t\r\n")
                except UnicodeDecodeError:
                    raise InputError(
                        f"{self.path}, line {number}: not {UTF_8} text. Save the file as UTF-8."
                    ) from None
                if text:
                    yield number, text


class ParquetTable(Table):
    """A Parquet file."""

    place = "row"

    def __init__(self, path: Path):
        super().__init__(path)
        with self._reading() as file:
            self.schema = file.schema_arrow
        _check_names(path, self.schema.names)

    def chunks(self) -> Iterator[Chunk]:
        first = 1
        with self._reading() as file:
            for rows in file.iter_batches(ROWS_PER_CHUNK):
                places = range(first, first + len(rows))
                self._check_utf_8(rows, places)
                yield ParquetChunk(places, rows)
                first += len(rows)

    def _check_utf_8(self, rows: pa.RecordBatch, places: range) -> None:
        try:
            rows.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.path}, rows {places[0]} to {places[-1]}: {error}.") from None

    @contextmanager
    def _reading(self) -> Iterator[pq.ParquetFile]:
        try:
            # So it is read piece by piece; pyarrow's defaults hold a whole row group, which may be the whole file.
            with pq.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path} is not a readable Parquet file: {error}.") from None


def open_table(path: Path, csv_encoding: str = "utf-8", typed: bool = False) -> Table:
    """Open a CSV, TSV, JSON Lines or Parquet file; only its beginning or its schema is read.

    Args:
        path: says by its ending what it is.
        csv_encoding: of a CSV or TSV file.
        typed: whether the columns of JSON Lines must have types.

    Raises:
        InputError: if it is missing, of another kind, empty, or not what its ending says.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it.")
    if not path.is_file():
        raise InputError(f"No file {str(path)!r}. {nearby(path)}")
    suffix = check_ending(path, "read")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.")
    if suffix in CSV_DELIMITERS:
        return CsvTable(path, csv_encoding)
    return ParquetTable(path) if suffix == PARQUET else JsonTable(path, typed)


def check_ending(path: Path, verb: str) -> str:
    """Return the ending of a file that can be read and written.

    Raises:
        InputError: if it is none of those.
    """
    suffix = path.suffix.lower()
    if suffix not in ENDINGS:
        ending = path.suffix or "a file without an ending"
        raise InputError(f"{path}: cannot {verb} {ending}; known: {', '.join(ENDINGS)}.")
    return suffix


def write_table(
    path: Path, schema: pa.Schema, rows: Rows, byte_order_mark: bool = False, excel_safe: bool = False
) -> None:
    """Write rows with columns added to them, as they come, to a file of the kind that its ending says.

    Args:
        path: the file, which is written over.
        schema: all columns, the added ones last.
        rows: chunks and added columns; a list in an added column is joined by "|" in CSV and TSV.
        byte_order_mark: whether CSV and TSV begin with one.
        excel_safe: put an apostrophe before CSV and TSV cells that a spreadsheet would run as a formula.

    Raises:
        InputError: if Parquet cannot hold a column.
    """
    suffix = check_ending(path, "write")
    if suffix in CSV_DELIMITERS:
        _write_csv(path, schema, rows, "utf-8-sig" if byte_order_mark else "utf-8", excel_safe)
    elif suffix == PARQUET:
        _write_parquet(path, schema, rows)
    else:
        _write_json(path, rows)


def _write_csv(path: Path, schema: pa.Schema, rows: Rows, encoding: str, excel_safe: bool) -> None:
    delimiter = CSV_DELIMITERS[path.suffix.lower()]

    def line(cells: list[str]) -> str:
        return _csv_line([_unlike_formula(cell) for cell in cells] if excel_safe else cells, delimiter)

    # JSON may hold halves of characters (lone surrogates); they are written as JSON escapes them
    with open(path, "w", newline="", encoding=encoding, errors="backslashreplace") as file:
        file.write(line(schema.names))
        for chunk, columns in rows:
            for record, added in zip(chunk.records, _by_row(columns), strict=True):
                joined = {
                    name: "|".join(map(str, value)) if isinstance(value, list) else value
                    for name, value in added.items()
                }
                row = record | joined
                file.write(line([_cell(row.get(name)) for name in schema.names]))


def _csv_line(cells: list[str], delimiter: str) -> str:
    """Write a row. The csv module would end lines in CR LF, or leave a CR within a cell unquoted."""
    special = (delimiter, '"', "\n", "\r")
    quoted = [
        '"' + cell.replace('"', '""') + '"' if any(character in cell for character in special) else cell
        for cell in cells
    ]
    return delimiter.join(quoted) + "\n"


def _unlike_formula(cell: str) -> str:
    if not cell.startswith(FORMULA_STARTS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a number with its sign


def _write_json(path: Path, rows: Rows) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        for chunk, columns in rows:
            records = chunk.records
            lines = chunk.lines or [json.dumps(record, ensure_ascii=False) for record in records]
            for line, record, added in zip(lines, records, _by_row(columns), strict=True):
                # added to what is written there: numbers keep their digits, and keys their order
                start = line[:-1].rstrip() + (", " if record else "")
                file.write(start + json.dumps(added, ensure_ascii=False)[1:] + "\n")


def _write_parquet(path: Path, schema: pa.Schema, rows: Rows) -> None:
    try:
        with open(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:
            for group in _row_groups(schema, rows):
                writer.write_table(pa.Table.from_batches(group, schema))
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise InputError(
            f"Parquet cannot hold these columns: {str(error).rstrip('.')}. Name an output that ends in .jsonl."
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


def _check_names(path: Path, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two columns are named {twice!r}. Rename one.")


# Whole files, for training


@dataclass(frozen=True)
class Part:
    """The rows of one file, or of one split of a data set.

    Attributes:
        origin: what messages call it: a path, or "stanfordnlp/imdb (train)".
        rows: every column as read.
        broken: reason → numbers (from 0) of the rows that could not be read for it.
        odd_cells: column → why its odd cells are null now, and their rows; they matter where the column is used.
    """

    origin: str
    rows: Dataset
    broken: dict[str, list[int]] = field(default_factory=dict)
    odd_cells: dict[str, tuple[str, list[int]]] = field(default_factory=dict)


def read_file(path: Path, args: DataArguments) -> Part:
    """Read one CSV, TSV, JSON Lines or Parquet file; `args` say the columns and the encoding of CSV and TSV.

    Raises:
        InputError: if it is missing, of another kind, empty, or not what its ending says.
    """
    reader = READERS.get(path.suffix.lower())
    if path.is_dir():
        raise InputError(f"{path} is a folder: give it as --dataset_name.")
    if not path.is_file():
        raise InputError(f"No file {str(path)!r}. {nearby(path)}")
    if reader is None:
        raise InputError(f"{path}: cannot read {path.suffix or 'a file without an ending'}; known: {endings()}.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.")
    part = reader(path, args)
    if len(part.rows) == 0:
        raise InputError(f"{path} has no rows.")
    return part


def _read_csv(path: Path, args: DataArguments) -> Part:
    csv.field_size_limit(2**31 - 1)  # the default refuses cells over 128 KiB, and documents may be longer
    encoding, called = args.csv_encoding, args.csv_encoding
    if codecs.lookup(encoding).name == "utf-8":
        encoding, called = "utf-8-sig", UTF_8  # with a byte order mark or without
    with open(path, newline="", encoding=encoding, errors="surrogateescape") as file:
        reader = csv.reader(file, delimiter=CSV_DELIMITERS[path.suffix.lower()], strict=True)
        try:
            header = args.csv_columns or next(reader, [])
            rows = [row for row in reader if row]
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}.") from None
        except UnicodeError as error:  # for bytes that no surrogate can stand for, as in UTF-16
            raise InputError(f"{path} is not {called} text: {error}.") from None
    if args.csv_columns and rows[:1] == [args.csv_columns]:
        raise InputError(f"{path} has a header, which --csv_columns would take for a row: leave --csv_columns out.")
    names = _column_names(path, header, called)
    ragged = [number for number, row in enumerate(rows) if len(row) != len(names)]
    columns = {name: [row[at] if at < len(row) else "" for row in rows] for at, name in enumerate(names)}
    wanted = f"{len(names)} cells of --csv_columns" if args.csv_columns else f"header's {len(names)} cells"
    return _part(path, columns, {f"the row does not have the {wanted}": ragged}, called)


def _column_names(path: Path, header: list[str], encoding: str) -> list[str]:
    """Return a name for every column of a CSV file, no two alike."""
    if not is_decoded("".join(header)):
        raise InputError(
            f"{path}: the header is not {encoding} text. Save the file as UTF-8, or name its --csv_encoding."
        )
    names = [name.strip() or f"column_{number}" for number, name in enumerate(header, 1)]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{path}: two columns are named {twice!r}. Rename one.")
    return names


def _read_json(path: Path, _: DataArguments) -> Part:
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    try:  # one list of objects is no JSON Lines, but it is what many tools write
        records = json.loads(text) if text.lstrip().startswith("[") else None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from None
    if records is None:
        # not splitlines(): JSON strings may hold U+2028 and its like
        records = [_parse_line(line) for line in text.split("\n") if line.strip()]
    broken = [number for number, record in enumerate(records) if not isinstance(record, dict)]
    if records and len(broken) == len(records):
        raise InputError(f"{path} holds no JSON objects: one object a line is wanted.")
    objects = [record if isinstance(record, dict) else {} for record in records]
    names = list(dict.fromkeys(name for record in objects for name in record))
    columns = {name: [record.get(name) for record in objects] for name in names}
    return _part(path, columns, {"the row is not a JSON object": broken})


def _read_parquet(path: Path, _: DataArguments) -> Part:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}.") from None
    undecodable: set[int] = set()
    for at, name in enumerate(table.column_names):
        column = table[name]
        if pa.types.is_dictionary(column.type):
            table = table.set_column(at, name, column.cast(column.type.value_type))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            cells, bad = _decoded(column)
            undecodable.update(bad)
            table = table.set_column(at, name, pa.array(cells, column.type)) if bad else table
    return Part(str(path), Dataset(InMemoryTable(table)), _reasons({_not_text(UTF_8): sorted(undecodable)}))


READERS: dict[str, Callable[[Path, DataArguments], Part]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _part(path: Path, columns: dict[str, list[Any]], broken: dict[str, list[int]], encoding: str = UTF_8) -> Part:
    """Turn cells into Arrow columns, with null for those that do not fit."""
    undecodable: set[int] = set()
    odd_cells = {}
    arrays = {}
    for name, cells in columns.items():
        bad = {at for at, cell in enumerate(cells) if isinstance(cell, str) and not is_decoded(cell)}
        undecodable |= bad
        usual, odd = _odd_kinds(cells)
        if odd:
            odd_cells[name] = (f"{name!r} is not {usual}, as it is in most rows", sorted(odd))
        cells = [None if at in bad or at in odd else cell for at, cell in enumerate(cells)]
        try:
            arrays[name] = pa.array(cells)
        except (ValueError, TypeError, OverflowError) as error:  # Arrow's errors are subclasses of these
            raise InputError(f"{path}: column {name!r} mixes kinds of values: {error}.") from None
    broken[_not_text(encoding)] = sorted(undecodable)
    return Part(str(path), Dataset(InMemoryTable(pa.table(arrays))), _reasons(broken), odd_cells)


def _odd_kinds(cells: list[Any]) -> tuple[str, set[int]]:
    """Return the usual kind of value in a column and the rows that hold another."""
    kinds = [_kind(cell) for cell in cells]
    counts = Counter(kind for kind in kinds if kind)
    usual = counts.most_common(1)[0][0] if counts else ""
    return usual, {at for at, kind in enumerate(kinds) if kind and kind != usual} if len(counts) > 1 else set()


def _kind(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):  # before numbers: bool is an int
        return "true or false"
    return {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}[type(cell)]


def _reasons(broken: dict[str, list[int]]) -> dict[str, list[int]]:
    return {reason: rows for reason, rows in broken.items() if rows}


def _parse_line(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _not_text(encoding: str) -> str:
    return f"the row is not {encoding} text"


def is_decoded(text: str) -> bool:
    """Tell whether `text` can be written: bytes that could not be decoded stand in it as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(column: pa.ChunkedArray) -> tuple[list[str | None], list[int]]:
    """Return the cells, None where the bytes are not UTF-8, and the numbers of those rows; cheap where all are."""
    try:
        column.validate(full=True)
        return [], []
    except pa.ArrowInvalid:
        binary = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        cells = [cell and cell.decode(errors="surrogateescape") for cell in column.cast(binary).to_pylist()]
    bad = [at for at, cell in enumerate(cells) if cell and not is_decoded(cell)]
    return [cell if cell and is_decoded(cell) else None for cell in cells], bad


def endings() -> str:
    return ", ".join(READERS)


def nearby(path: Path) -> str:
    """Say what lies where a missing file was looked for, nearest names first."""
    if not path.parent.is_dir():
        return f"There is no folder {str(path.parent)!r} either."
    names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in READERS]
    near = get_close_matches(path.name, names, n=3)
    return f"Did you mean {near[0]!r}?" if near else f"In {str(path.parent)!r} lie: {listing(path.parent)}."


def listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") if names else "nothing"
