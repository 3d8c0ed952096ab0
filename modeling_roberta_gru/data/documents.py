"""What to read, and what becomes of it: from files, folders, the Hub or a built-in corpus to documents.

A document is one text and one label; rows that give none are named or left out.
"""

import html
import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, Value, concatenate_datasets
from datasets.exceptions import DatasetsError

from ..arguments import BUILT_IN, DataArguments
from ..errors import InputError
from .corpus import BUILT_IN_CORPORA
from .tables import CSV_DELIMITERS, READERS, Part, endings, listing, read_file

logger = logging.getLogger(__name__)

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

LINE_BREAK = re.compile(r"<\s*(?:br|/?(?:p|div|li|ul|ol|tr|h[1-6]|blockquote))\b[^<>]*>", re.IGNORECASE)
INVISIBLE = re.compile(r"<!--|<(script|style)\b[^<>]*>", re.IGNORECASE)
INVISIBLE_ENDS = {
    "": re.compile("-->"),
    **{name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in ("script", "style")},
}
TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


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
        raise InputError(f"Folder {folder} has no {endings()} file. It holds: {listing(folder)}.")
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


# Documents


def build_documents(split: str, parts: list[Part], args: DataArguments) -> tuple[Dataset, dict[str, int]]:
    """Make one document of each good row of a split.

    Args:
        split: names the rows: row 17 (from 0, over all parts, bad rows included) of "train" is "train:17".
        parts: the rows as read.
        args: says which columns to use, and what to do with bad rows.

    Returns:
        A data set with columns `row_id`, `text`, `label` and every other column of the source; and how many rows were
        left out, by reason.

    Raises:
        InputError: if a column is missing, rows are bad and `args.on_bad_row` is "error", or no row is left.
    """
    built, skipped, start = [], Counter[str](), 0
    for part in parts:
        documents, bad = _part_documents(part, args)
        documents = documents.add_column("row_id", [f"{split}:{start + row}" for row in range(len(part.rows))])
        start += len(part.rows)
        if bad:
            _report(part, bad, args.on_bad_row)
            skipped.update({reason: len(rows) for reason, rows in bad.items()})
            left_out = set().union(*bad.values())
            documents = documents.select([row for row in range(len(documents)) if row not in left_out])
        built.append(documents)
    if not any(map(len, built)):
        raise InputError(f"No row of the {split} split is usable: {'; '.join(skipped)}.")
    return stack(built), dict(skipped)


def stack(documents: list[Dataset]) -> Dataset:
    """Put data sets one under the other; a column that some lack is null there.

    Raises:
        InputError: if they hold different kinds of values in a column of the same name.
    """
    try:
        return concatenate_datasets(documents) if len(documents) > 1 else documents[0]
    except ValueError as error:
        raise InputError(f"The files or splits disagree about a column. {str(error).splitlines()[0]}") from None


def join_columns(columns: list[list[Any]]) -> list[str | None]:
    """Join the cells of each row by a line break, passing over null ones; null where all are."""
    if len(columns) == 1:
        return columns[0]
    rows = [[cell for cell in cells if cell is not None] for cells in zip(*columns, strict=True)]
    return ["\n".join(cells) if cells else None for cells in rows]


def clean_html(text: str) -> str:
    """Turn breaks and blocks into line breaks, drop other tags, comments and scripts, and decode entities.

    >>> clean_html("Good.<br /><br />Not <b>great</b> &amp; not &quot;bad&quot;.")
    'Good.\\n\\nNot great & not "bad".'
    """
    text = LINE_BREAK.sub("\n", _without_invisible(text))
    return html.unescape(TAG.sub("", text))


def _without_invisible(text: str) -> str:
    """Put a space for each comment, script and style; what is never closed stays, to its end."""
    parts, done, unclosed = [], 0, set()
    begin = INVISIBLE.search(text)
    while begin:
        kind = (begin[1] or "").lower()
        # One search to the end of the text for each kind: looking again after every opening would be quadratic.
        end = None if kind in unclosed else INVISIBLE_ENDS[kind].search(text, begin.end())
        if end is None:
            unclosed.add(kind)
        else:
            parts += [text[done : begin.start()], " "]
            done = end.end()
        begin = INVISIBLE.search(text, begin.end() if end is None else done)
    return "".join([*parts, text[done:]])


def first_rows(rows: Sequence[int]) -> str:
    """Say row numbers (given from 0, said from 1), the first five of many: "rows 1, 2, 3, 4, 5 and 7 more"."""
    said = ", ".join(str(row + 1) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"row{'s' if len(rows) > 1 else ''} {said}{more}"


def _part_documents(part: Part, args: DataArguments) -> tuple[Dataset, dict[str, list[int]]]:
    """Return a document for every row, with null text where there is none, and the bad rows by reason."""
    _check_columns(part, args)
    rows = part.rows
    texts = join_columns([rows[column][:] for column in args.text_column])
    if args.clean_html:
        texts = [text and clean_html(text) for text in texts]
    used = [*args.text_column, args.label_column, args.group_column]
    odd = dict(part.odd_cells[column] for column in part.odd_cells if column in used)
    bad = _bad_rows(part.broken | odd, texts, _missing_labels(rows, args))
    replaced = {*args.text_column, "text", "row_id"} | ({"label"} - {args.label_column})
    rows = rows.remove_columns([name for name in rows.column_names if name in replaced - {args.group_column}])
    rows = rows.rename_column(args.label_column, "label") if args.label_column != "label" else rows
    return rows.add_column("text", texts, feature=Value("string")), bad


def _check_columns(part: Part, args: DataArguments) -> None:
    features = part.rows.features
    for column in filter(None, (*args.text_column, args.label_column, args.group_column)):
        if column not in features:
            near = get_close_matches(column, features, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{part.origin} has no column {column!r}.{hint} It has: {', '.join(features)}.")
    for column in args.text_column:
        dtype = getattr(features[column], "dtype", type(features[column]).__name__)
        if dtype not in ("string", "large_string", "null"):
            raise InputError(f"{part.origin}: column {column!r} holds {dtype}, not text.")


def _missing_labels(rows: Dataset, args: DataArguments) -> list[bool]:
    unlabelled = -1 if isinstance(rows.features[args.label_column], ClassLabel) else None
    empty_counts = args.label_delimiter is None  # with a delimiter, an empty cell is a text with no labels
    return [
        label == unlabelled or _is_missing(label, empty_counts) for label in rows.with_format(None)[args.label_column]
    ]


def _is_missing(label: Any, empty_counts: bool) -> bool:
    """Tell whether a label is null, empty, NaN or infinite, or a list that holds such a label."""
    if isinstance(label, list):
        return any(_is_missing(item, empty_counts) for item in label)
    if isinstance(label, str):
        return label in ("nan", "NaN") or (empty_counts and not label.strip())
    return label is None or (isinstance(label, float) and not math.isfinite(label))


def _bad_rows(
    broken: dict[str, list[int]], texts: list[str | None], missing_labels: list[bool]
) -> dict[str, list[int]]:
    """Return reason → rows; a row is counted once, under the first reason that holds."""
    reasons = {
        **broken,
        "the text is null": [row for row, text in enumerate(texts) if text is None],
        "the text is empty or only whitespace": [
            row for row, text in enumerate(texts) if text is not None and not text.strip()
        ],
        "the label is missing or not a finite number": [row for row, missing in enumerate(missing_labels) if missing],
    }
    bad: dict[str, list[int]] = {}
    seen: set[int] = set()
    for reason, rows in reasons.items():
        if fresh := [row for row in rows if row not in seen]:
            bad[reason] = fresh
            seen.update(fresh)
    return bad


def _report(part: Part, bad: dict[str, list[int]], on_bad_row: str) -> None:
    """Stop at bad rows, or say that they are left out."""
    said = "; ".join(f"{reason} ({len(rows)}: {first_rows(rows)})" for reason, rows in bad.items())
    count = sum(map(len, bad.values()))
    if on_bad_row == "error":
        raise InputError(
            f"{part.origin}: {count} bad of {len(part.rows)} rows: {said}. "
            "Mend them, or leave them out with --on_bad_row skip."
        )
    logger.warning("%s: %d bad of %d rows left out: %s.", part.origin, count, len(part.rows), said)
