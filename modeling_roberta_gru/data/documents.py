"""Find and read the data: from files, folders, the Hub, memory or a built-in corpus to documents.

A document is one text and one label; rows that give none are named or left out. Documents lie on disk, mapped into
memory, once they are many: no row is a Python object for longer than its chunk.
"""

import hashlib
import html
import itertools
import json
import logging
import math
import re
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict
from datasets.exceptions import DatasetsError
from datasets.table import InMemoryTable, MemoryMappedTable

from ..arguments import BUILT_IN, DataArguments
from ..errors import InputError, first_line, no_column
from ..files import TABLE_ENDINGS, check_compressed_once, is_url, kind_of, location_name, redacted, refuse_folder
from .corpus import BUILT_IN_CORPORA
from .dialect import BadRows, brief_list, encoding_hint, is_data, is_decoded, not_text
from .tables import (
    CSV_DELIMITERS,
    UTF_8,
    ArrowChunk,
    Chunk,
    Table,
    TextChunk,
    check_once,
    is_csv,
    is_text,
    listing,
    open_table,
    scratch_file,
)

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
}
NO_DATA = {"__macosx", "_success", "dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json"}
"""Names in a folder, in lower case, that hold no rows; nor do those that begin with one of [`HIDDEN`]."""
HIDDEN = (".", "_", "~")
HIDDEN_CLASS = ("_", "~")
TEXT_FILE = ".txt"
SPILL_BYTES = 64 * 2**20
"""Documents that take more go to disk."""

LINE_BREAK = re.compile(r"<\s*(?:br|/?(?:p|div|li|ul|ol|tr|h[1-6]|blockquote))\b[^<>]*>", re.IGNORECASE)
TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
NOT_FINITE = ("nan", "NaN")

ONE, SEVERAL = pa.large_string(), pa.large_list(pa.large_string())
"""The kinds of a column of cells: one a row, or a list of them."""


class DatasetTable(Table):
    """A data set of the Hub, of a folder or in memory."""

    def __init__(self, rows: Dataset, name: str):
        super().__init__(Path(name), name)
        self.rows = rows
        self.schema = pa.schema([(column, pa.null()) for column in rows.column_names])

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        rows = (
            self.rows if columns is None else self.rows.select_columns([c for c in self.schema.names if c in columns])
        )
        first = 0
        for table in rows.with_format("arrow").iter(1000):
            for batch in table.combine_chunks().to_batches():
                yield ArrowChunk(first, batch)
                first += len(batch)


class ArrowTable(Table):
    """An Arrow table in memory."""

    def __init__(self, rows: pa.Table, name: str):
        super().__init__(Path(name), name)
        self.rows, self.schema = rows, rows.schema

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        wanted = [name for name in self.schema.names if columns is None or name in columns]
        check_once(wanted, self.schema.names, self.name)
        rows = self.rows.select(wanted)
        first = 0
        for batch in rows.to_batches(max_chunksize=1000):
            yield ArrowChunk(first, batch)
            first += len(batch)


class MemoryTable(Table):
    """Columns in memory, whatever they hold."""

    def __init__(self, names: Sequence[Any], num_rows: int, column: Callable[[Any], list[Any]], name: str):
        super().__init__(Path(name), name)
        self.keys, self.num_rows, self.column = list(names), num_rows, column
        self.schema = pa.schema([(str(column), pa.null()) for column in names])

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        keys = [key for key in self.keys if columns is None or str(key) in columns]
        check_once(map(str, keys), self.schema.names, self.name)
        wanted = {str(key): self.column(key) for key in keys}
        for first in range(0, self.num_rows, 1000):
            part = {name: values[first : first + 1000] for name, values in wanted.items()}
            yield TextChunk(first, [dict(zip(part, row, strict=True)) for row in zip(*part.values(), strict=True)])


class ClassFolder(Table):
    """A folder of text files for each class, as IMDb is published."""

    def __init__(self, folders: dict[str, list[Path]], name: str, text_column: str, label_column: str):
        super().__init__(Path(name), name)
        self.folders, self.columns = folders, (text_column, label_column)
        self.schema = pa.schema([(column, pa.string()) for column in self.columns])

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[Chunk]:
        first = 0
        paths = [(label, path) for label, members in self.folders.items() for path in members]
        for start in range(0, len(paths), 256):
            texts, bad = [], {}
            for at, (_, path) in enumerate(paths[start : start + 256]):
                try:
                    texts.append(path.read_text(encoding="utf-8-sig"))
                    if not texts[-1].strip():
                        bad[at] = f"the file is empty ({path.parent.name}/{path.name})"
                except UnicodeDecodeError:
                    texts.append("")
                    bad[at] = f"the file is not {UTF_8} text ({path.parent.name}/{path.name})"
            labels = [label for label, _ in paths[start : start + 256]]
            yield ArrowChunk(first, pa.record_batch([texts, labels], names=list(self.columns)), bad)
            first += len(texts)


@dataclass(frozen=True)
class Documents:
    """The documents of a split.

    Attributes:
        rows: columns `row_id`, `text`, `label` (text, or lists of text: see [`cells`]), and those kept beside.
        keys: (n, 2) uint64: a hash of each text without regard to case and white space.
        num_read: how many rows were read.
        skipped: how many of them were left out, by reason.
        class_names: what the integers of a `ClassLabel` stand for, where labels were such.
        splits: where a column says it, the split of each: an index into [`SPLITS`].
        tables: of each split, the names of the tables that were read, and how many rows came before each.
    """

    rows: Dataset
    keys: np.ndarray
    num_read: int
    skipped: dict[str, int]
    class_names: list[str] | None = None
    splits: np.ndarray | None = None
    tables: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def table_of(self, row: int) -> str:
        """Return the name of the table that a row comes from."""
        split, _, number = self.rows[row]["row_id"].partition(":")
        return [name for name, start in self.tables[split] if start <= int(number)][-1]


# Finding


def read_source(
    args: DataArguments, tables: Mapping[str, Any] | None = None, must_have: str | None = None
) -> dict[str, list[Table]]:
    """Find what `args` name: split ("train", "validation", "test") → its tables, in the order given.

    Args:
        args: the options.
        tables: split → rows in memory, see [`in_memory`]; then `args` name no source.
        must_have: a split that is not left out for want of labels, as others are but training; rows that no split is
            named for are its rows, not training's.

    Raises:
        InputError: if a file, folder or data set is missing, empty or unreadable, an option does not apply to it, or
            the split in `must_have` has no labels.
    """
    if tables is not None:
        return {
            _split_named(split): [in_memory(rows, split, args)] for split, rows in tables.items() if rows is not None
        }
    files = _named_files(args)
    _check_csv_options(args)
    if files:
        return {split: [read_file(path, args) for path in paths] for split, paths in files.items()}
    name = args.dataset_name or BUILT_IN
    is_here = Path(name).is_dir()
    if (args.dataset_config_name or args.dataset_revision) and (is_here or name in BUILT_IN_CORPORA):
        raise InputError(
            f"--dataset_config_name and --dataset_revision are for the Hub, and {name} is "
            f"{'a folder here' if is_here else 'built in'}: leave them out, or rename the folder.",
            field="dataset_config_name" if args.dataset_config_name else "dataset_revision",
            file=name,
        )
    if is_here:
        return _read_folder(Path(name), args, must_have)
    splits = BUILT_IN_CORPORA[name]() if name in BUILT_IN_CORPORA else _load_from_hub(name, args)
    return _labelled_splits(name, splits, args.label_column, must_have)


def describe_source(args: DataArguments) -> str:
    """Name the source without the folders of this machine, for reports and cards."""
    if args.files:
        return ", ".join(_last_name(path) for paths in args.files.values() for path in paths)
    name = args.dataset_name or BUILT_IN
    if Path(name).is_dir() or is_url(name):
        return _last_name(name)
    details = [detail for detail in (args.dataset_config_name, args.dataset_revision) if detail]
    return f"{name} ({', '.join(details)})" if details else name


def _last_name(location: str) -> str:
    """Return the last name of a path or URL, without what is asked of the URL, such as a signature."""
    return Path(urlsplit(redacted(location)).path).name if is_url(location) else Path(location).resolve().name


def read_file(location: str | Path, args: DataArguments) -> Table:
    """Open a file of rows.

    Raises:
        InputError: if it is missing, of another kind, empty, or not what its ending says.
    """
    refuse_folder(location)
    return open_table(location, args)


def in_memory(rows: Any, name: str, args: DataArguments) -> Table:
    """Take rows that are in memory for a table.

    Args:
        rows: a `datasets.Dataset`, a frame of pandas or polars, an Arrow table, a list of dictionaries, a dictionary
            of columns, or texts and labels as a pair of sequences.
        name: what messages call them.
        args: name the columns of a pair.

    Raises:
        InputError: if they are something else.
    """
    if isinstance(rows, Dataset):
        return DatasetTable(rows, name)
    if isinstance(rows, Table):
        return rows
    if isinstance(rows, tuple) and len(rows) == 2 and not isinstance(rows[0], str | Mapping):
        texts, labels = (list(column) for column in rows)
        if len(texts) != len(labels):
            raise InputError(f"{name}: there are {len(texts)} texts and {len(labels)} labels.", field=name)
        rows = {args.text_column[0]: texts, args.label_column[0]: labels}
    if isinstance(rows, Mapping) and not isinstance(rows, DatasetDict):
        columns = {str(column): list(values) for column, values in rows.items()}
        if len({len(values) for values in columns.values()}) > 1:
            raise InputError(f"{name}: its columns are not equally long.", field=name)
        return MemoryTable(list(columns), len(next(iter(columns.values()), [])), columns.__getitem__, name)
    if isinstance(rows, list | tuple) and all(isinstance(row, Mapping) for row in rows):
        names = list(dict.fromkeys(column for row in rows for column in row))
        return MemoryTable(names, len(rows), lambda column: [row.get(column) for row in rows], name)
    if type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "columns"):
        return MemoryTable(list(rows.columns), len(rows), lambda column: rows[column].tolist(), name)
    if hasattr(rows, "__arrow_c_stream__"):  # polars, Arrow
        with suppress(pa.ArrowInvalid):  # it is a column
            return ArrowTable(pa.table(rows), name)
    is_texts = (isinstance(rows, list) or hasattr(rows, "to_list")) and isinstance(next(iter(rows), None), str)
    hint = " Texts and labels go together, as one argument: train((texts, labels), …)." if is_texts else ""
    raise InputError(
        f"{name}: rows must be a data set, a pandas or polars frame, an Arrow table, a list of dictionaries, a "
        f"dictionary of columns or a pair of texts and labels; got {type(rows).__name__}.{hint}",
        field=name,
    )


def _split_named(name: str) -> str:
    if name not in SPLIT_OF_WORD:
        raise InputError(f"{name!r} is none of the splits {', '.join(SPLITS)}.", field=name)
    return SPLIT_OF_WORD[name]


def _named_files(args: DataArguments) -> dict[str, list[str]]:
    """Return the files that `args` name, by split; none where a folder, a built-in corpus or the Hub is meant."""
    name = args.dataset_name or BUILT_IN
    if args.files or name in BUILT_IN_CORPORA:
        return {split: [location_name(path) for path in paths] for split, paths in args.files.items()}
    if Path(name).is_file() or (is_url(name) and kind_of(name)):
        raise InputError(f"--dataset_name {name} is a file: give it as --train_file.", field="dataset_name")
    return {}


def _check_csv_options(args: DataArguments) -> None:
    names = args.paths
    folder = Path(args.dataset_name or BUILT_IN)
    if folder.is_dir():
        names += [str(path) for path in _data_files(folder)]
    if any(kind_of(name) in CSV_DELIMITERS for name in names):
        return
    for name in ("csv_columns", "csv_encoding", "csv_delimiter", "csv_quoting", "csv_escape"):
        if getattr(args, name) != getattr(DataArguments, name):
            raise InputError(
                f"--{name} takes effect only with CSV or TSV files; {describe_source(args)} has none. Leave it out.",
                field=name,
            )


def _read_folder(folder: Path, args: DataArguments, must_have: str | None) -> dict[str, list[Table]]:
    """Find the rows in a folder: what `save_to_disk` wrote, files of rows, or folders of text files by class."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        try:
            saved = datasets.load_from_disk(str(folder))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise InputError(
                f"{folder} is not what save_to_disk writes: {first_line(error)}.", file=str(folder)
            ) from None
        splits = saved if isinstance(saved, DatasetDict) else {must_have or "train": saved}
        return _labelled_splits(folder.name, splits, args.label_column, must_have)
    paths = _data_files(folder)
    if not paths:
        if classes := _class_folders(folder, must_have):
            columns = (args.text_column[0], args.label_column[0])
            return {split: [ClassFolder(labels, str(folder), *columns)] for split, labels in classes.items()}
        raise InputError(
            f"Folder {folder} has no file of rows ({', '.join(TABLE_ENDINGS)}), nor folders of text files. It holds: "
            f"{listing(folder)}.",
            file=str(folder),
        )
    splits = {path: _split_of(path.relative_to(folder)) for path in paths}
    if not any(splits.values()):
        splits = dict.fromkeys(paths, must_have or "train")
    for path in (path for path, split in splits.items() if not split):
        logger.warning("%s is left out: its name says no split (train, validation or test).", path)
    named = {
        split: [read_file(path, args) for path in paths if splits[path] == split]
        for split in SPLITS
        if split in splits.values()
    }
    return _with_labels(named, args.label_column, must_have)


def _with_labels(
    named: dict[str, list[Table]], label_columns: list[str], must_have: str | None
) -> dict[str, list[Table]]:
    """Leave out the test files of a competition, whose labels are withheld: there is no such column."""
    has_label = {
        split: all(_has_columns(table, label_columns) for table in tables)
        for split, tables in (named.items() if len(named) > 1 else ())
    }
    for split in ("validation", "test"):
        if has_label.get("train") and has_label.get(split) is False:
            names = ", ".join(table.name for table in named.pop(split))
            if split == must_have:
                raise InputError(
                    f"{names} has no column {label_columns[0]!r}, so no labels: name a file that has them.", file=names
                )
            logger.warning("%s is left out: it has no column %r, so no labels.", names, label_columns[0])
    return named


def _has_columns(table: Table, columns: Sequence[str]) -> bool:
    """Tell whether a table has some columns, or no row that says which it has."""
    found: set[str] = set()
    for names in columns_of(table):
        found.update(names)
        if found.issuperset(columns):
            return True
    return not found


def columns_of(table: Table) -> Iterator[list[str]]:
    """Yield the columns of a table; of JSON, which has no header, those of a few rows at a time."""
    if table.schema.names:
        yield table.schema.names
        return
    for chunk in table.chunks():
        good = (record for at, record in enumerate(chunk.records) if at not in chunk.bad)
        if names := list(dict.fromkeys(name for record in good for name in record)):
            yield names


def _data_files(folder: Path) -> list[Path]:
    paths = [path for path in _visible_files(folder) if kind_of(path.name)]
    check_compressed_once(paths)
    return paths


def _visible_files(folder: Path) -> list[Path]:
    """Return the files in a folder and its folders, less those that are hidden or hold metadata."""
    return sorted(
        path
        for path in _files_in(folder, set())
        if not any(part.startswith(HIDDEN) or part.lower() in NO_DATA for part in path.relative_to(folder).parts)
    )


def _files_in(folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files in a folder and its folders, those that are links too; not again those `above`."""
    about = folder.stat()
    own = (about.st_dev, about.st_ino)
    if own in above:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_in(path, above | {own})
        elif path.is_file():
            yield path


def _class_folders(folder: Path, must_have: str | None) -> dict[str, dict[str, list[Path]]]:
    """Return split → class → text files, where each class has a folder, perhaps within folders of the splits."""
    found, others = _texts_by_class(folder)
    at_the_top = found.pop("", {})
    trained = found.setdefault("train" if found else must_have or "train", at_the_top)
    if trained is not at_the_top:
        others += itertools.chain(*at_the_top.values())
    chosen = {}
    for split in SPLITS:
        classes = found.get(split, {})
        if len(classes) > 1 or (len(trained) > 1 and classes and classes.keys() <= trained.keys()):
            chosen[split] = classes
        else:
            others += itertools.chain(*classes.values())
    if chosen and others:
        logger.warning(
            "%s text files are left out, since no class has their folder: %s … (A folder called train, valid, test or "
            "so is a split's.)",
            len(others),
            others[0],
        )
    hidden = [path for path in _files_in(folder, set()) if _is_in_hidden_class(path.relative_to(folder))]
    if chosen and hidden:
        logger.warning(
            "%s text files are left out, since their folder's name begins with %s: %s …",
            len(hidden),
            " or ".join(HIDDEN_CLASS),
            hidden[0],
        )
    return chosen


def _is_in_hidden_class(path: Path) -> bool:
    """Tell whether a text file is passed over for its folder's name alone, which may be meant as a class."""
    *outer, name = path.parts
    is_text = path.suffix.lower() == TEXT_FILE and not name.startswith(HIDDEN)
    return is_text and any(part.startswith(HIDDEN_CLASS) and part.lower() not in NO_DATA for part in outer)


def _texts_by_class(folder: Path) -> tuple[dict[str, dict[str, list[Path]]], list[Path]]:
    """Return split → class → text files, with "" for folders in no split's folder; and the other text files."""
    found: dict[str, dict[str, list[Path]]] = {}
    others = []
    for path in _visible_files(folder):
        *outer, label, _ = ("", *path.relative_to(folder).parts)
        if path.suffix.lower() != TEXT_FILE or label == "unsup":  # IMDb's unlabelled reviews
            continue
        split = SPLIT_OF_WORD.get(outer[1].lower()) if len(outer) == 2 else None
        if split or (len(outer) == 1 and label.lower() not in SPLIT_OF_WORD):
            found.setdefault(split or "", {}).setdefault(label, []).append(path)
        else:
            others.append(path)
    return found, others


def _split_of(path: Path) -> str:
    """Read the split off a path's words, the last that says one: "data/train/part-00.csv" → "train"."""
    words = re.findall("[a-z]+", str(path).lower())
    return next((SPLIT_OF_WORD[word] for word in reversed(words) if word in SPLIT_OF_WORD), "")


def _load_from_hub(name: str, args: DataArguments) -> dict[str, Dataset]:
    try:
        return datasets.load_dataset(name, args.dataset_config_name, revision=args.dataset_revision)
    # FileNotFoundError covers a data set that does not exist, ValueError an unknown configuration
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise InputError(
            f"--dataset_name {name!r} is not a folder here, and the Hub gave none: {first_line(error)}.",
            field="dataset_name",
        ) from None


def _labelled_splits(
    name: str, splits: Mapping[str, Dataset], label_columns: list[str], must_have: str | None
) -> dict[str, list[Table]]:
    """Keep the splits we know whose labels are given; -1 is the Hub's way to withhold them."""
    tables: dict[str, list[Table]] = {}
    for given, rows in splits.items():
        split = SPLIT_OF_WORD.get(str(given))
        if split is None:
            logger.warning("Split %r of %s is left out: it is none of train, validation and test.", given, name)
        elif all(_is_withheld(rows, column) for column in label_columns):
            if split == must_have:
                raise InputError(f"Split {given!r} of {name} has no labels: name a file that has them.", file=name)
            logger.warning("Split %r of %s is left out: none of its rows has a label.", given, name)
        else:
            tables.setdefault(split, []).append(DatasetTable(rows, f"{name} ({given})"))
    if not tables:
        raise InputError(
            f"{name} has no labelled train, validation or test split; it has: {', '.join(splits)}.", file=name
        )
    return _with_labels(tables, label_columns, must_have)


def _is_withheld(rows: Dataset, column: str) -> bool:
    if column not in rows.column_names:
        return False
    labels = rows.select_columns([column]).with_format("arrow")
    return all(_are_withheld(batch[column]) for batch in labels.iter(10_000))


def _are_withheld(labels: pa.ChunkedArray) -> bool:
    if pa.types.is_nested(labels.type):  # of lists, Arrow cannot tell which differ
        return labels.null_count == len(labels)
    return all(label in (-1, None) for label in pc.unique(labels).to_pylist())


# Documents


def build_documents(split: str, tables: Sequence[Table], args: DataArguments, keep: Sequence[str] = ()) -> Documents:
    """Make one document of each good row of a split.

    Args:
        split: names the rows: row 17 (from 0, over all tables, bad rows included) of "train" is "train:17".
        tables: the rows as read.
        args: says which columns to use, and what to do with bad rows.
        keep: other columns that are wanted beside.

    Raises:
        InputError: if a column is missing, rows are bad and `args.on_bad_row` is "error", no row is left, or a column
            beside text and label has a name that is taken.
    """
    reader = Reader(split, args, keep)
    for table in tables:
        reader.read(table)
    return reader.documents()


class Reader:
    """Gathers the documents of a split."""

    def __init__(self, split: str, args: DataArguments, keep: Sequence[str]):
        self.split, self.args, self.name = split, args, ""
        beside = dict.fromkeys(filter(None, [args.group_column, *keep]))
        own = {"text": args.text_column, "label": args.label_column, "row_id": []}
        for column in beside:
            if own.get(column, [column]) != [column]:
                raise InputError(
                    f"Column {column!r} cannot be used beside text and label: that name is taken. Rename the column "
                    "in the data.",
                    field=column,
                )
        self.beside = [column for column in beside if column not in own]
        used = [*args.text_column, *args.label_column, *self.beside, *filter(None, [args.split_column])]
        self.used = list(dict.fromkeys(used))
        self.num_read = 0
        self.skipped: Counter[str] = Counter()
        self.kind: pa.DataType | None = None  # of labels: ONE or SEVERAL
        self.class_names: list[str] | None = None
        self.is_numeric = dict.fromkeys(keep, True)
        self.spool = Spool()
        self.keys = bytearray()
        self.splits: list[np.ndarray] = []
        self.tables: list[tuple[str, int]] = []

    def read(self, table: Table) -> None:
        """Read a table; see [`build_documents`]."""
        self.name = table.name
        start, found = self.num_read, dict.fromkeys(table.schema.names)
        self.tables.append((table.name, start))
        self._check_columns(table.name, found)
        names = class_names(table, self.args.label_column[0]) if len(self.args.label_column) == 1 else None
        self.class_names = self.class_names or names
        bad = BadRows()
        for chunk in table.chunks(self.used):
            if not found.keys() >= set(self.used):
                found |= dict.fromkeys(chunk.names)
            self._add(chunk, names, start, bad)
            self.num_read += len(chunk)
        num_rows = self.num_read - start
        if num_rows == 0:
            raise InputError(f"{table.name} has no rows.", file=table.name)
        if not bad.reasons or not set(bad.reasons) <= bad.unread:  # rows that cannot be read say nothing of columns
            self._check_columns(table.name, found)
        report_bad_rows(bad, table.name, num_rows, self.args.on_bad_row)
        self.skipped.update(bad.counts)

    def documents(self) -> Documents:
        """Return all that was read."""
        if not self.spool.num_rows:
            raise InputError(f"No row of the {self.split} split is usable: {brief_list(self.skipped)}.")
        rows = Dataset(self.spool.table())
        for column in (column for column in self.beside if self.is_numeric.get(column)):
            numbers = [None if cell is None else float(cell) for cell in rows[column][:]]
            rows = rows.remove_columns(column).add_column(column, numbers)
        splits = np.concatenate(self.splits) if self.args.split_column else None
        keys = np.frombuffer(self.keys, np.uint64).reshape(-1, 2)
        tables = {self.split: self.tables}
        return Documents(rows, keys, self.num_read, dict(self.skipped), self.class_names, splits, tables)

    def _check_columns(self, name: str, found: Collection[str]) -> None:
        hint = "Has the file no header? Name its columns by --csv_columns." if is_csv(name) and is_data(found) else ""
        for column in self.used if found else ():
            if column not in found:
                raise no_column(name, column, found, otherwise=hint)

    def _add(self, chunk: Chunk, names: list[str] | None, start: int, bad: BadRows) -> None:
        faults = dict(chunk.bad)
        bad.unread.update(map(BadRows.brief, faults.values()))
        texts = self._texts(chunk, faults)
        labels = self._labels(chunk, names, faults)
        beside = {column: self._beside(chunk, column, faults) for column in self.beside}
        splits = self._split_column(chunk, faults) if self.args.split_column else None
        bad.add(faults, chunk.first)
        rows = np.array([at for at in range(len(chunk)) if at not in faults], dtype=np.int64)
        if not len(rows):
            return
        cells = [texts[at] for at in rows]
        self.keys += b"".join(map(text_key, cells))
        if splits is not None:
            self.splits.append(splits[rows])
        ids = [f"{self.split}:{start + chunk.first + at}" for at in rows]
        columns = {"row_id": pa.array(ids), "text": pa.array(cells, ONE), "label": labels.take(pa.array(rows))}
        columns |= {column: values.take(pa.array(rows)) for column, values in beside.items()}
        self.spool.append(pa.RecordBatch.from_pydict(columns))

    def _texts(self, chunk: Chunk, faults: dict[int, str]) -> list[str | None]:
        columns = [_text_cells(chunk, column, faults, self.name) for column in self.args.text_column]
        texts = join_columns(columns)
        if self.args.clean_html:
            texts = [text and clean_html(text) for text in texts]
        for at, text in enumerate(texts):
            if text is None:
                faults.setdefault(at, "the text is null")
            elif not text.strip():
                faults.setdefault(at, "the text is empty")
        return texts

    def _labels(self, chunk: Chunk, names: list[str] | None, faults: dict[int, str]) -> pa.Array:
        columns = self.args.label_column
        if len(columns) > 1:
            return _labels_of_columns(chunk, columns, faults)
        labels, odd = cells(chunk.array(columns[0]), names, self.kind)
        for at, reason in odd.items():
            faults.setdefault(at, f"the label is {reason}")
        empty_counts = self.args.label_delimiter is None  # with a delimiter, an empty cell is a text with no labels
        missing = np.flatnonzero(_are_missing(labels, empty_counts)).tolist()
        hint = _delimiter_hint(labels) if missing and empty_counts else ""
        for at in missing:
            faults.setdefault(at, f"the label is missing{hint}")
        self.kind = self.kind or (labels.type if len(faults) < len(chunk) else None)
        return labels

    def _beside(self, chunk: Chunk, column: str, faults: dict[int, str]) -> pa.Array:
        array = chunk.array(column)
        values = [None if is_null(value) else value for value in chunk.values(column)]
        if self.is_numeric.get(column):
            self.is_numeric[column] = (
                all(isinstance(value, Real | None) and not isinstance(value, bool) for value in values)
                if isinstance(array, list)
                else _is_number(array.type)
            )
        items = [None if value is None else str(value) for value in values]
        for at, item in enumerate(items):
            if item is not None and not is_decoded(item):
                faults.setdefault(at, f"{column} is not {UTF_8} text")
                items[at] = None
        return pa.array(items, ONE)

    def _split_column(self, chunk: Chunk, faults: dict[int, str]) -> np.ndarray:
        column = str(self.args.split_column)
        values, _ = cells(chunk.array(column), None, ONE)
        encoded = values.dictionary_encode()
        indices = [self._split_index(value) for value in encoded.dictionary.to_pylist()]
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        splits = np.array([*indices, -1], dtype=np.int8)[codes]
        for at in np.flatnonzero(splits < 0):
            value = values[int(at)].as_py()
            wanted = "the number of a fold" if self._has_folds else "train, validation or test"
            reason = "is missing" if value is None else f"is not {wanted} ({reprlib.repr(value)})"
            faults.setdefault(int(at), f"{column} {reason}")
        return splits

    @property
    def _has_folds(self) -> bool:
        return self.args.test_fold is not None or self.args.validation_fold is not None

    def _split_index(self, value: str) -> int:
        """Return which of [`SPLITS`] a cell says, or -1."""
        text = value.strip()
        if not self._has_folds:
            split = SPLIT_OF_WORD.get(text.lower())
            return -1 if split is None else SPLITS.index(split)
        if not re.fullmatch(r"-?\d{1,9}(\.0*)?", text):
            return -1
        fold = int(float(text))
        return {self.args.validation_fold: 1, self.args.test_fold: 2}.get(fold, 0)


def report_bad_rows(bad: BadRows, name: str, num_rows: int, on_bad_row: str) -> None:
    """Stop at the bad rows of a table, or say that they are left out."""
    if not bad.reasons:
        return
    num_bad = bad.number
    if on_bad_row == "error":
        which = "the row" if num_bad == 1 else f"the {num_bad:,} rows"
        hint = encoding_hint(str(bad)) if is_csv(name) else ""
        fix = "Otherwise fix" if hint else "Fix"
        message = f"{name}, {bad}.{hint} {fix} {which} or pass --on_bad_row skip (to evaluate: --skip-bad-rows)."
        raise InputError(message, file=name, row=bad.first)
    logger.warning("%s: %s of %s rows left out: %s.", name, f"{num_bad:,}", f"{num_rows:,}", bad)


class Spool:
    """Rows that are written to disk once they are many."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.num_bytes = self.num_rows = 0
        self.path: Path | None = None
        self.writer: pa.RecordBatchStreamWriter | None = None

    def append(self, batch: pa.RecordBatch) -> None:
        """Add rows; all have the columns of the first."""
        self.batches.append(batch)
        self.num_rows += len(batch)
        self.num_bytes += batch.nbytes
        if self.num_bytes > SPILL_BYTES or (self.writer and self.num_bytes > SPILL_BYTES // 16):
            self._write()

    def table(self) -> InMemoryTable | MemoryMappedTable:
        """Return all rows."""
        if self.writer is None:
            return InMemoryTable(pa.Table.from_batches(self.batches).combine_chunks())
        self._write()
        self.writer.close()
        return MemoryMappedTable.from_file(str(self.path))

    def _write(self) -> None:
        if not self.batches:
            return
        if self.writer is None:
            self.path = scratch_file("rows.arrow")
            self.writer = pa.ipc.new_stream(str(self.path), self.batches[0].schema)
        table = pa.Table.from_batches(self.batches).combine_chunks()
        self.writer.write_table(table, max_chunksize=2**14)
        self.batches, self.num_bytes = [], 0


def stack(documents: Sequence[Documents]) -> Documents:
    """Put the documents of splits one under the other.

    Raises:
        InputError: if some have a label a text and others several.
    """
    if len({part.rows.features["label"] == documents[0].rows.features["label"] for part in documents}) > 1:
        raise InputError("Some splits have one label per text, and others lists of labels.")
    skipped: Counter[str] = Counter()
    for part in documents:
        skipped.update(part.skipped)
    return Documents(
        datasets.concatenate_datasets([part.rows for part in documents]),
        np.concatenate([part.keys for part in documents]),
        sum(part.num_read for part in documents),
        dict(skipped),
        documents[0].class_names,
        tables={split: tables for part in documents for split, tables in part.tables.items()},
    )


def text_key(text: str) -> bytes:
    """Return what equal texts share: a hash of the text, whatever its case, white space and way to compose letters."""
    plain = unicodedata.normalize("NFC", " ".join(text.split())).casefold()
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()


def as_numbers(values: Sequence[Any]) -> Sequence[Any]:
    """Convert texts to numbers if all of them are numbers, as in a column of CSV; an empty text becomes None.

    Texts with a leading zero are taken for codes: then, and if any text is not a number, the values are returned
    unchanged.
    """
    found = [value for value in values if value is not None and value != ""]
    if not found or not all(isinstance(value, str) and NUMBER.fullmatch(value) for value in found):
        return values
    return [float(value) if value else None for value in values]


NUMBER = re.compile(r"\s*[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?\s*", re.IGNORECASE | re.ASCII)


def join_columns(columns: list[list[Any]]) -> list[str | None]:
    """Join the cells of each row by a line break, passing over null ones; null where all are."""
    if len(columns) == 1:
        return columns[0]
    rows = [[cell for cell in row if not is_null(cell)] for row in zip(*columns, strict=True)]
    return ["\n".join(row) if row else None for row in rows]


# Cells


def cells(
    column: pa.Array | list[Any], names: Sequence[str] | None = None, kind: pa.DataType | None = None
) -> tuple[pa.Array, dict[int, str]]:
    """Write values as text, so that 1, 1.0 and "1" are found equal whatever kind of file they come from.

    Args:
        column: the values; lists of them stay lists.
        names: what integers stand for; -1 is null then.
        kind: [`ONE`] or [`SEVERAL`], if it is known what is wanted; None: what most of the rows are.

    Returns:
        An array of text or of lists of text, and the rows that are neither null nor of that kind: row → what it is.
    """
    if not isinstance(column, list):
        if pa.types.is_dictionary(column.type):
            words = column.dictionary  # of polars, in views, which Arrow cannot look up
            words = words.cast(ONE) if is_text(words.type) else words
            column = pa.DictionaryArray.from_arrays(column.indices, words).dictionary_decode()
        is_word = is_text(column.type) or pa.types.is_null(column.type)
        if kind != SEVERAL and (is_word or (names is None and pa.types.is_integer(column.type))):
            return column.cast(ONE), {}
        column = column.to_pylist()
    odd: dict[int, str] = {}
    values = [_cell(value, names, at, odd) for at, value in enumerate(column)]
    num_lists = sum(isinstance(value, list) for value in values)
    if kind is None:
        kind = SEVERAL if num_lists > sum(value is not None for value in values) / 2 else ONE
    for at, value in enumerate(values):
        if value is not None and isinstance(value, list) != (kind == SEVERAL):
            odd[at] = "not a list, unlike the others" if kind == SEVERAL else "a list, unlike the others"
            values[at] = None
    return pa.array(values, kind), odd


def is_null(value: Any) -> bool:
    """Tell whether a value stands for none, as NaN does and what pandas and numpy have for it."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.generic) and bool(value != value)


def _cell(value: Any, names: Sequence[str] | None, at: int, odd: dict[int, str]) -> str | list[str | None] | None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            odd[at] = f"not {UTF_8} text"
            return None
        return value
    if is_null(value):
        return None
    if hasattr(value, "tolist"):  # of numpy
        value = value.tolist()
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, list | tuple):
        items = [_cell(item, names, at, odd) for item in value]
        if any(isinstance(item, list) for item in items):
            odd[at] = "a list of lists"
            return None
        return items  # type: ignore[return-value]
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        if names is None:
            return str(value)
        if value == -1:
            return None
        if not 0 <= value < len(names):
            odd[at] = f"{value}, and there are {len(names)} classes"
            return None
        return names[value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, dict | bytes):
        odd[at] = "an object" if isinstance(value, dict) else "bytes"
        return None
    return str(value)


def _are_missing(labels: pa.Array, empty_counts: bool) -> np.ndarray:
    """Tell of each label whether it is null, empty or NaN, or a list that holds such a label."""
    if labels.type == SEVERAL:
        values = labels.to_pylist()
        return np.array([value is None or any(_is_missing(item) for item in value) for value in values], dtype=bool)
    missing = pc.or_(labels.is_null(), pc.is_in(labels, pa.array(NOT_FINITE, ONE)).fill_null(True))
    if empty_counts:
        missing = pc.or_(missing, pc.equal(pc.utf8_trim_whitespace(labels), "").fill_null(True))
    return missing.to_numpy(zero_copy_only=False)


def _delimiter_hint(labels: pa.Array) -> str:
    """Name the delimiter that several of the labels hold, or "" if none does."""
    for mark in ";|" if labels.type == ONE else "":
        if pc.match_substring(labels, mark).true_count > 1:
            return f" (if a text may have several labels or none, name --label_delimiter {mark!r})"
    return ""


def _is_missing(label: str | None) -> bool:
    return label is None or not label.strip() or label in NOT_FINITE


def _labels_of_columns(chunk: Chunk, columns: Sequence[str], faults: dict[int, str]) -> pa.Array:
    """Return the lists of the columns that hold 1, or true, in each row."""
    holds: list[list[bool]] = []
    for column in columns:
        values = cells(chunk.array(column), None, ONE)[0].to_pylist()
        truths = [TRUTHS.get(value.strip().lower().removesuffix(".0")) if value else None for value in values]
        holds.append([bool(truth) for truth in truths])
        for at, (value, truth) in enumerate(zip(values, truths, strict=True)):
            if truth is None:
                is_missing = value is None or _is_missing(value) or value.strip() in ("-1", "-1.0")
                reason = "missing" if is_missing else f"neither 0 nor 1 ({reprlib.repr(value)})"
                faults.setdefault(at, f"{column} is {reason}")
    rows = zip(*holds, strict=True)
    return pa.array([[name for name, truth in zip(columns, row, strict=True) if truth] for row in rows], SEVERAL)


TRUTHS = {"1": True, "0": False, "true": True, "false": False}


def _text_cells(chunk: Chunk, column: str, faults: dict[int, str], name: str) -> list[str | None]:
    array = chunk.array(column)
    if not isinstance(array, list):
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        if not (is_text(kind) or pa.types.is_null(kind)):
            raise InputError(f"{name}: column {column!r} holds {kind}, not text.", field=column, file=name)
        return chunk.values(column)
    texts: list[str | None] = []
    for at, value in enumerate(array):
        if is_null(value):
            texts.append(None)
        elif not isinstance(value, str):
            faults.setdefault(at, f"{column!r} is {KINDS.get(type(value), type(value).__name__)}, not text")
            texts.append(None)
        else:
            texts.append(value)
            if not value.isascii() and not is_decoded(value):
                faults.setdefault(at, not_text(UTF_8))
    return texts


KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
}


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def class_names(table: Table, column: str) -> list[str] | None:
    """Return what the integers of a `ClassLabel` stand for: of a data set, or of Parquet that `datasets` wrote."""
    if isinstance(table, DatasetTable):
        feature = table.rows.features.get(column)
        feature = getattr(feature, "feature", feature)
        return list(feature.names) if isinstance(feature, ClassLabel) else None
    metadata = (table.schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        feature = json.loads(metadata)["info"]["features"][column]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)  # of a list's items
        return list(feature["names"]) if feature["_type"] == "ClassLabel" else None
    return None


# HTML


def clean_html(text: str) -> str:
    """Turn breaks and blocks into line breaks, drop other tags, comments and scripts, and decode entities.

    >>> clean_html("Good.<br /><br />Not <b>great</b> &amp; not &quot;bad&quot;.")
    'Good.\\n\\nNot great & not "bad".'
    """
    text = LINE_BREAK.sub("\n", _without_invisible(text))
    return html.unescape(TAG.sub("", text))


INVISIBLE = re.compile(r"<!--|<(script|style)\b[^<>]*>", re.IGNORECASE)
INVISIBLE_ENDS = {
    kind: re.compile(end, re.IGNORECASE)
    for kind, end in (("", "-->"), ("script", r"</script\s*>"), ("style", r"</style\s*>"))
}


def _without_invisible(text: str) -> str:
    """Replace comments, scripts and styles by a space; those that never end stay. Linear in the text."""
    parts, at, endless = [], 0, set[str]()
    while begin := INVISIBLE.search(text, at):
        kind = (begin[1] or "").lower()
        end = None if kind in endless else INVISIBLE_ENDS[kind].search(text, begin.end())
        if end is None:
            endless.add(kind)
            parts.append(text[at : begin.end()])
            at = begin.end()
        else:
            parts += [text[at : begin.start()], " "]
            at = end.end()
    return "".join([*parts, text[at:]])
