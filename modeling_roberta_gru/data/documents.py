"""From rows to documents: one text and one label each, with bad rows named or left out."""

import html
import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from datasets import ClassLabel, Dataset, Value, concatenate_datasets

from ..arguments import DataArguments
from ..errors import InputError
from .sources import Part

logger = logging.getLogger(__name__)

LINE_BREAK = re.compile(r"<\s*(?:br|/?(?:p|div|li|ul|ol|tr|h[1-6]|blockquote))\b[^<>]*>", re.IGNORECASE)
INVISIBLE = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


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
    text = LINE_BREAK.sub("\n", INVISIBLE.sub(" ", text))
    return html.unescape(TAG.sub("", text))


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
