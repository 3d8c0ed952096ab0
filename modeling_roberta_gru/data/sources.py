"""Read rows as they stand from files, folders, the Hub or a built-in corpus.

Readers of text files are our own, so that a message can name the row. A row that cannot be read as it should is kept,
emptied where needed, and listed in [`Part.broken`]; `documents.py` decides what becomes of it.
"""

import codecs
import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.exceptions import DatasetsError
from datasets.table import InMemoryTable

from ..arguments import BUILT_IN, DataArguments
from ..errors import InputError
from .corpus import BUILT_IN_CORPORA

logger = logging.getLogger(__name__)

CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}
UTF_8 = "UTF-8"
SPLITS = ("train", "validation", "test")
SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


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


def read_source(args: DataArguments) -> dict[str, list[Part]]:
    """Read what `args` names: split ("train", "validation", "test") → its parts, in the order given.

    Raises:
        InputError: if a file, folder or data set is missing, empty or unreadable, or an option does not apply to it.
    """
    files = _named_files(args)
    _check_csv_options(args, files)
    if files:
        return {split: [read_file(path, args) for path in paths] for split, paths in files.items()}
    name = args.dataset_name or BUILT_IN
    splits = BUILT_IN_CORPORA[name]() if name in BUILT_IN_CORPORA else _load_from_hub(name, args)
    return _labelled_splits(name, splits, args.label_column)


def describe_source(args: DataArguments) -> str:
    """Name the source without the folders of this machine, for reports and cards."""
    if args.files:
        return ", ".join(Path(path).name for paths in args.files.values() for path in paths)
    name = args.dataset_name or BUILT_IN
    if Path(name).is_dir():
        return Path(name).resolve().name
    details = [detail for detail in (args.dataset_config_name, args.dataset_revision) if detail]
    return f"{name} ({', '.join(details)})" if details else name


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
        raise InputError(f"{path}: cannot read {path.suffix or 'a file without an ending'}; known: {_endings()}.")
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


def _named_files(args: DataArguments) -> dict[str, list[Path]]:
    """Return the files that `args` name, by split; none where a built-in corpus or the Hub is meant."""
    name = args.dataset_name or BUILT_IN
    if args.files or name in BUILT_IN_CORPORA:
        return {split: [Path(path) for path in paths] for split, paths in args.files.items()}
    if Path(name).is_file():
        raise InputError(f"--dataset_name {name} is a file: give it as --train_file.")
    return _files_of_folder(Path(name)) if Path(name).is_dir() else {}


def _check_csv_options(args: DataArguments, files: dict[str, list[Path]]) -> None:
    if any(path.suffix.lower() in CSV_DELIMITERS for paths in files.values() for path in paths):
        return
    for name in ("csv_columns", "csv_encoding"):
        if getattr(args, name) != getattr(DataArguments, name):
            raise InputError(
                f"--{name} takes effect only with CSV or TSV files; {describe_source(args)} has none. Leave it out."
            )


def _files_of_folder(folder: Path) -> dict[str, list[Path]]:
    """Return a folder's files, each in the split its name or its folder's name says; all in train if none says."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in READERS and path.is_file())
    if not paths:
        raise InputError(f"Folder {folder} has no {_endings()} file. It holds: {_listing(folder)}.")
    splits = {path: _split_of(path.relative_to(folder)) for path in paths}
    if not any(splits.values()):
        splits = dict.fromkeys(paths, "train")
    for path in (path for path, split in splits.items() if not split):
        logger.warning("%s is left out: its name says no split (train, validation or test).", path)
    named = {split: [path for path in paths if splits[path] == split] for split in SPLITS}
    return {split: members for split, members in named.items() if members}


def _split_of(path: Path) -> str:
    """Read the split off a path's words, the last that says one: "data/train/part-00.csv" → "train"."""
    words = re.findall("[a-z]+", str(path.with_suffix("")).lower())
    return next((SPLIT_OF_WORD[word] for word in reversed(words) if word in SPLIT_OF_WORD), "")


def _load_from_hub(name: str, args: DataArguments) -> dict[str, Dataset]:
    try:
        return datasets.load_dataset(name, args.dataset_config_name, revision=args.dataset_revision)
    # FileNotFoundError covers a data set that does not exist, ValueError an unknown configuration
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"--dataset_name {name!r} is no folder here, and the Hub gave none: {reason}.") from None


def _labelled_splits(name: str, splits: dict[str, Dataset], label_column: str) -> dict[str, list[Part]]:
    """Keep the splits we know whose labels are given; -1 is the Hub's way to withhold them."""
    parts: dict[str, list[Part]] = {}
    for given, rows in splits.items():
        split = SPLIT_OF_WORD.get(str(given))
        if split is None:
            logger.warning("Split %r of %s is left out: it is none of train, validation and test.", given, name)
        elif label_column in rows.column_names and all(label in (-1, None) for label in rows[label_column]):
            logger.warning("Split %r of %s is left out: none of its rows has a label.", given, name)
        else:
            parts.setdefault(split, []).append(Part(f"{name} ({given})", rows))
    if not parts:
        raise InputError(f"{name} has no labelled train, validation or test split; it has: {', '.join(splits)}.")
    return parts


def _endings() -> str:
    return ", ".join(READERS)


def nearby(path: Path) -> str:
    """Say what lies where a missing file was looked for, nearest names first."""
    if not path.parent.is_dir():
        return f"There is no folder {str(path.parent)!r} either."
    names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in READERS]
    near = get_close_matches(path.name, names, n=3)
    return f"Did you mean {near[0]!r}?" if near else f"In {str(path.parent)!r} lie: {_listing(path.parent)}."


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") if names else "nothing"
