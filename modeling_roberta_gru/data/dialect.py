"""How a CSV file is written: found from its beginning or said by options; a careful reader of its rows, good and bad.

Standard library only, and nothing of this package: the Space carries this file as it is.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

SAMPLE_BYTES = 2**16
"""So much of a file says how it is written."""
SAMPLE_LINES = 2**12
"""Of these, lines that are looked at: each is read by some twenty dialects."""
LONGEST_CELL = 2**27
"""Characters. A quotation mark that nobody closed would make a cell of the rest of the file."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
DOUBLED, NONE = "doubled", "none"
QUOTINGS = (DOUBLED, NONE)
SEP_LINE = re.compile(r'("?)sep=(.)\1\s*$', re.IGNORECASE)
PADDED_QUOTE = re.compile(r' +"(?:[^"]|"")*"')
ESCAPED_QUOTE, ESCAPED_ESCAPE = "\ud800", "\ud801"  # stand for themselves nowhere: text cannot hold them
NEVER_CLOSED = "a quotation mark is never closed"
CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


@dataclass(frozen=True)
class Dialect:
    r"""How the rows of a CSV file are written.

    Attributes:
        delimiter: what stands between cells.
        quoting: "doubled": a cell may stand in quotation marks, doubled within it; "none": the marks mean nothing.
        escape: what takes the meaning from the character behind it, as Spark writes \" and MySQL \ and a tab.
        skip_spaces: whether spaces that follow a delimiter belong to no cell.
        has_sep_line: whether a first line such as "sep=;", written for Excel, is not a row.
        is_certain: whether the quoting was said and not found: then rows may span lines however they look.
    """

    delimiter: str = ","
    quoting: str = DOUBLED
    escape: str | None = None
    skip_spaces: bool = False
    has_sep_line: bool = False
    is_certain: bool = False

    def __str__(self) -> str:
        quoting = "quotes doubled" if self.quoting == DOUBLED else "quotes mean nothing"
        if self.quoting == DOUBLED and self.escape:
            quoting = f"quotes escaped by {self.escape}"
        parts = [DELIMITERS.get(self.delimiter, f"cells between {self.delimiter!r}"), quoting]
        parts += [f"{self.escape} escapes"] if self.escape and self.quoting == NONE else []
        parts += ["spaces after delimiters left out"] if self.skip_spaces else []
        parts += ["a sep= line"] if self.has_sep_line else []
        return ", ".join(parts)

    @property
    def is_usual(self) -> bool:
        """Whether there is nothing to say about it: commas or tabs, quotes doubled."""
        return self in (Dialect(","), Dialect("\t"), Dialect(",", is_certain=True), Dialect("\t", is_certain=True))

    def line(self, cells: Iterable[str]) -> str:
        """Write a row."""
        line = self.delimiter.join(map(self._cell, cells))
        if line.endswith("\r") and self.quoting == NONE and not self.escape:
            raise ValueError("the last cell of a row ends in a carriage return, which would be part of the line's end")
        return line + "\n"

    def _cell(self, cell: str) -> str:
        if self.quoting == NONE:
            if self.escape:
                return re.sub(
                    rf"[\n\r{re.escape(self.delimiter + self.escape)}]", rf"{re.escape(self.escape)}\g<0>", cell
                )
            if self.delimiter in cell or "\n" in cell:  # a \r is read back as it is, unless the row ends in it
                raise ValueError("a cell holds a delimiter or a line break, and quotation marks mean nothing here")
            return cell
        quoted = any(character in cell for character in (self.delimiter, "\n", "\r", '"'))
        if self.escape:
            cell = cell.replace(self.escape, 2 * self.escape).replace('"', f'{self.escape}"')
        else:
            cell = cell.replace('"', '""')
        return f'"{cell}"' if quoted or (self.skip_spaces and cell.startswith(" ")) else cell


@dataclass(frozen=True)
class Row:
    """A row as it was read.

    Attributes:
        cells: what it holds.
        fault: why it could not be read as it should; "" if it could.
    """

    cells: list[str]
    fault: str = ""


def find_dialect(
    sample: str,
    delimiter: str | None = None,
    quoting: str | None = None,
    escape: str | None = None,
    preferred: str = ",",
    width: int | None = None,
    is_cut: bool = False,
) -> Dialect:
    """Find how a file is written, from the text it begins with; what is given holds.

    Args:
        sample: its beginning, perhaps cut off within a row.
        delimiter: between cells; None: to be found.
        quoting: "doubled" or "none"; None: to be found.
        escape: a character, or "" for none; None: to be found.
        preferred: the delimiter where several would do.
        width: the number of columns, where there is no header.
        is_cut: whether the file continues.
    """
    base = Dialect(preferred, is_certain=quoting is not None)
    lines = split_lines(sample)
    if lines and (said := SEP_LINE.match(lines[0].lstrip("\ufeff"))):
        base = replace(base, has_sep_line=True)
        delimiter, lines = delimiter or said[2], lines[1:]
    lines, is_cut = lines[:SAMPLE_LINES], is_cut or len(lines) > SAMPLE_LINES
    if not lines:
        return replace(base, delimiter=delimiter or preferred, quoting=quoting or DOUBLED, escape=escape or None)
    delimiters = [delimiter] if delimiter else [preferred, *(other for other in DELIMITERS if other != preferred)]
    candidates = [
        replace(base, delimiter=character, quoting=how, escape=by, skip_spaces=skip)
        for character in delimiters
        for how in ([quoting] if quoting else QUOTINGS)
        for by in ([escape or None] if escape is not None else [None, "\\"])
        for skip in ([False, True] if how == DOUBLED and any(f'{character} "' in line for line in lines) else [False])
        if by is None or escape or any(by in line for line in lines)
    ]
    fits = []
    for candidate in candidates:
        fits.append(_fit(lines, candidate, width, is_cut))
        if fits[-1] == BEST_FIT:
            break
    return candidates[fits.index(max(fits))]  # of equals the first: what is usual comes first


BEST_FIT = (True, 1.0, True)


def _fit(lines: list[str], dialect: Dialect, width: int | None, is_cut: bool) -> tuple[bool, float, bool]:
    """Say how well a dialect explains some lines: the larger, the better."""
    dialect = replace(dialect, has_sep_line=False)
    rows = list(read_rows(lines, dialect))
    open_row = next((at for at, row in enumerate(rows) if row.fault.startswith(NEVER_CLOSED)), None)
    if is_cut and open_row is not None:
        # What follows are the lines of a cell that is cut off; between tabs it may be a mark that means nothing.
        del rows[open_row + (dialect.delimiter == "\t") :]
    elif is_cut and len(rows) > 1:
        del rows[-1]
    if not rows:
        return (False, 0.0, False)
    header, *rest = rows if width is None else [Row([""] * width), *rows]
    columns = len(header.cells)
    good = sum(not row.fault and has_width(row.cells, columns) for row in rest)
    share = good / len(rest) if rest else 1.0
    if dialect.quoting == NONE and not dialect.is_certain and dialect.delimiter != "\t":
        share /= 2  # quotation marks have a meaning in nearly all files, and rows that are bad are to be named
    if dialect.quoting == NONE and not dialect.is_certain and _encloses(rows):
        share = 0.0
    if dialect.quoting == DOUBLED and not dialect.skip_spaces:
        padded = sum(any(PADDED_QUOTE.fullmatch(cell) for cell in row.cells) for row in rest)
        share /= 2 if 2 * padded > len(rest) else 1
    is_header = not header.fault and not any(len(name) > 200 or '"' in name for name in header.cells)
    has_columns = columns > 1  # a file of one column has no delimiter to find
    return (has_columns and share > 0.5, share if has_columns else 0.0, is_header)


def _encloses(rows: list[Row]) -> bool:
    """Tell whether more cells stand between quotation marks than have one at an end that encloses nothing."""
    marked = [cell for row in rows for cell in row.cells if len(cell) > 1 and '"' in (cell[0], cell[-1])]
    # Within enclosing marks, others are doubled or escaped: not so in `"fine" "fine"`.
    enclosed = [cell for cell in marked if cell[0] == cell[-1] and '"' not in re.sub(r'""|\\"', "", cell[1:-1])]
    return 2 * len(enclosed) > len(marked)


def fitted(row: Row, width: int, dialect: Dialect, wanted: str = "are in the header") -> Row:
    """Give a row the number of cells that it should have; one that has another is bad, and nothing of it is lost.

    Args:
        row: as it was read.
        width: how many cells it should have.
        dialect: puts what is too much into the last cell.
        wanted: where that number comes from.
    """
    cells = row.cells
    if len(cells) == width:
        return row
    if not row.fault and has_width(cells, width):
        return Row(cells[:width])
    has = f"{len(cells)} cell{'s' if len(cells) != 1 else ''}"
    fault = row.fault or f"the row has {has}, and {width} {wanted}"
    if len(cells) < width:
        return Row([*cells, *[""] * (width - len(cells))], fault)
    return Row([*cells[: width - 1], dialect.delimiter.join(cells[width - 1 :])], fault)


def has_width(cells: list[str], width: int) -> bool:
    """Tell whether a row has so many cells; empty ones behind them do not count."""
    return len(cells) == width or (len(cells) > width and not any(cells[width:]))


def without_trailing(header: list[str], first: Row | None) -> list[str]:
    """Leave out the nameless columns at the end of a header which the first row has no cells for."""
    width = len(header) if first is None or first.fault else len(first.cells)
    named = max((number for number, name in enumerate(header, 1) if name.strip()), default=len(header))
    return header[: max(width, named)]


def read_rows(lines: Iterable[str], dialect: Dialect) -> Iterator[Row]:
    """Read rows from lines that keep their ends. Blank lines are not rows.

    A row whose quotes do not fit is a fault, and ends with its first line: what follows is read anew.
    """
    source = iter(lines)
    if dialect.has_sep_line:
        next(source, None)
    if dialect.quoting == NONE:
        yield from _unquoted(source, dialect)
    else:
        yield from _quoted(_Lines(source, dialect.escape), dialect)


class _Lines:
    """Lines, of which those of the present row can be taken back."""

    def __init__(self, source: Iterator[str], escape: str | None):
        self.source, self.escape = source, escape
        self.taken: list[str] = []
        self.returned: list[str] = []  # last one first

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.returned.pop() if self.returned else next(self.source)
        self.taken.append(line)
        if self.escape and self.escape in line:
            marks = {'"': ESCAPED_QUOTE, self.escape: ESCAPED_ESCAPE}
            pattern = rf'{re.escape(self.escape)}(["{re.escape(self.escape)}])'
            return re.sub(pattern, lambda found: marks[found[1]], line)
        return line

    def give_back(self) -> None:
        """Give back all lines of the present row but the first."""
        self.returned += reversed(self.taken[1:])


def _quoted(lines: _Lines, dialect: Dialect) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    options: dict[str, Any] = {"delimiter": dialect.delimiter, "skipinitialspace": dialect.skip_spaces, "strict": True}
    reader = csv.reader(lines, **options)
    while True:
        lines.taken.clear()
        fault, cells = "", []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = _explain(str(error), len(lines.taken))
        num_lines = len(lines.taken)
        if num_lines > 1 and not dialect.is_certain and looks_merged(lines.taken, dialect.delimiter, len(cells)):
            fault = (
                f"{num_lines} lines that could be rows are between two quotation marks "
                "(--csv_quoting says whether quotation marks mean anything)"
            )
        if fault:
            first = lines.taken[0] if lines.taken else ""
            lines.give_back()
            reader = csv.reader(lines, **options)
            yield Row([first.rstrip("\r\n")], fault)
        elif cells:
            if dialect.escape:
                cells = [cell.replace(ESCAPED_QUOTE, '"').replace(ESCAPED_ESCAPE, dialect.escape) for cell in cells]
            yield Row(cells)


def looks_merged(lines: list[str], delimiter: str, width: int) -> bool:
    """Tell whether first and last line of a row would be rows by themselves; between commas prose looks so too."""
    return delimiter == "\t" and width > 1 and all(lines[at].count(delimiter) == width - 1 for at in (0, -1))


def _explain(error: str, num_lines: int) -> str:
    if "unexpected end" in error:
        return NEVER_CLOSED
    if "field larger" in error:
        return f"a cell has more than {LONGEST_CELL:,} characters: a quotation mark is never closed"
    return "text follows a closing quotation mark" + (f" {num_lines - 1} lines below" if num_lines > 1 else "")


def _unquoted(lines: Iterator[str], dialect: Dialect) -> Iterator[Row]:
    escape = dialect.escape
    for line in lines:
        parts = [line]
        while escape and _has_escaped_end(parts[-1], escape):
            parts.append(next(lines, ""))
        line = "".join(parts)
        if parts[-1].endswith(("\n", "\r")):
            line = line[:-1]
        if line.endswith("\r") and not (escape and _is_escaped(line[:-1], escape)):
            line = line[:-1]
        if not line:
            continue
        if escape and escape in line:
            yield Row(_unescaped_cells(line, dialect.delimiter, escape))
        else:
            yield Row(line.split(dialect.delimiter))


def _has_escaped_end(line: str, escape: str) -> bool:
    return line.endswith(("\n", "\r")) and _is_escaped(line[:-1], escape)


def _is_escaped(text: str, escape: str) -> bool:
    """Tell whether what follows a text is escaped."""
    return (len(text) - len(text.rstrip(escape))) % 2 == 1


def _unescaped_cells(line: str, delimiter: str, escape: str) -> list[str]:
    """Split and unescape as MySQL and PostgreSQL write: a cell of \\N alone is null, which is empty here."""
    cells: list[str] = []
    cell: list[str] = []
    pieces = re.split(rf"({re.escape(escape)}[\s\S]|{re.escape(delimiter)})", line)
    for piece in pieces:
        if piece == delimiter:
            cells.append("".join(cell))
            cell = []
        elif len(piece) == 2 and piece[0] == escape:
            cell.append("" if piece[1] == "N" else CONTROLS.get(piece[1], piece[1]))
        else:
            cell.append(piece)
    return [*cells, "".join(cell)]


def split_lines(text: str, only_feeds: bool = False) -> list[str]:
    """Split a text behind \\n, \\r\\n and \\r alone; `str.splitlines` knows more, which stand within cells.

    With `only_feeds`, a \\r alone ends no line: where quotation marks mean nothing, it may stand in a cell.
    """
    return re.findall("[^\n]*\n|[^\n]+" if only_feeds else r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


def column_names(header: list[str]) -> list[str]:
    """Return a name for every column: those without one, and those of one name ("text (1)"), are numbered."""
    names = [name.strip() or f"column_{number}" for number, name in enumerate(header, 1)]
    numbers = {name: iter(range(1, 2 * len(names) + 1)) for name, count in Counter(names).items() if count > 1}
    for at, name in enumerate(names):
        if name in numbers:
            numbered = (f"{name} ({number})" for number in numbers[name])
            names[at] = next(new for new in numbered if new not in names)
    return names


def is_data(header: Iterable[str]) -> bool:
    """Tell whether a header looks like a row: a name is a number, or as long as a sentence."""
    return any(len(name) > 40 or re.fullmatch(r"[+-]?\d+(\.\d*)?", name) for name in header)


# Bad rows


class BadRows:
    """The rows of a table that are bad.

    Attributes:
        reasons: why → how many rows, and the first of them (from 0).
        examples: why → what exactly is wrong with the first one.
        unread: the reasons that hold before any column is looked at.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, tuple[int, list[int]]] = {}
        self.examples: dict[str, str] = {}
        self.unread: set[str] = set()

    def __str__(self) -> str:
        return brief_list(
            f"{first_rows(rows, number)}: {self.examples[reason]}" for reason, (number, rows) in self.reasons.items()
        )

    @staticmethod
    def brief(reason: str) -> str:
        """Shorten a reason to what other rows may share."""
        return reason.partition(" (")[0]

    @property
    def counts(self) -> dict[str, int]:
        return {reason: number for reason, (number, _) in self.reasons.items()}

    @property
    def number(self) -> int:
        return sum(self.counts.values())

    @property
    def first(self) -> int:
        """The first bad row, from 1."""
        return 1 + min(rows[0] for _, rows in self.reasons.values())

    def add(self, faults: Mapping[int, str], first: int = 0) -> None:
        """Count the bad rows of a chunk before which so many rows stand."""
        for at in sorted(faults):
            number, rows = self.reasons.get(reason := self.brief(faults[at]), (0, []))
            self.examples.setdefault(reason, faults[at])
            self.reasons[reason] = number + 1, rows if len(rows) >= 5 else [*rows, first + at]


def brief_list(said: Iterable[str]) -> str:
    """Join reasons, the first ten of many."""
    said = list(said)
    more = [f"and {len(said) - 10:,} more reasons"] if len(said) > 10 else []
    return "; ".join(said[:10] + more)


def first_rows(rows: Sequence[int], number: int | None = None) -> str:
    """Say row numbers (given from 0, said from 1), the first five of many: "rows 1, 2, 3, 4, 5 and 7 more"."""
    number = len(rows) if number is None else number
    said = ", ".join(str(row + 1) for row in rows[:5])
    more = f" and {number - 5:,} more" if number > 5 else ""
    return f"row{'s' if number > 1 else ''} {said}{more}"


def not_text(encoding: str) -> str:
    return f"the row is not {encoding} text"


def encoding_hint(said: str) -> str:
    """Name the likely encoding to whoever is told that rows are not UTF-8 text; "" in all other cases."""
    return " If Excel wrote the file: --csv_encoding cp1252." if not_text("UTF-8") in said else ""


def is_decoded(text: str) -> bool:
    """Tell whether `text` can be written: bytes that could not be decoded stand in it as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
