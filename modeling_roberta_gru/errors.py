"""What a user got wrong, said in one line; and text of others, printed so that it stays text."""

import sys
from collections.abc import Iterable
from difflib import get_close_matches

MOST_LISTED = 40


class InputError(ValueError):
    """A mistake in what the user gave.

    The message names the field, row or file and the way out. The command line prints it without a traceback and ends
    with exit status 2.

    Attributes:
        field: the option or column that is wrong, if one is.
        file: the file or data set.
        row: the first row, from 1.
    """

    def __init__(self, message: str, *, field: str | None = None, file: str | None = None, row: int | None = None):
        super().__init__(message)
        self.field, self.file, self.row = field, file, row


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, without its full stop, or the error's kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that is none of `known`, naming the nearest one, or all if they are few."""
    return InputError(f"Unknown {kind} {name!r}. {nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which of `known` is most like a name, or which there are if they are few."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    listed = f"Known: {', '.join(known)}." if len(known) <= MOST_LISTED else f"None of {len(known)} is like it."
    return f"Did you mean {near[0]!r}?" if near else listed


def no_column(table: str, column: str, columns: Iterable[str], otherwise: str = "") -> InputError:
    """Build the error for a table that lacks a column, naming the nearest one, or else saying what to do."""
    known = list(columns)
    near = get_close_matches(column, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else otherwise
    more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
    said = [f"{table} has no column {column!r}.", hint, f"It has: {', '.join(known[:MOST_LISTED])}{more}."]
    return InputError(" ".join(filter(None, said)), field=column, file=table)


# Control characters but tab and line break, and what turns the direction of the text around it.
_SYMBOLS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: "␡"}
_SYMBOLS |= {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
_SYMBOLS |= {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def visible(text: object) -> str:
    """Return a text with symbols in the place of control characters, which a terminal would obey."""
    return str(text).translate(_SYMBOLS)


def say(text: object, error: bool = False) -> None:
    """Print a text that may hold words of others, on standard output or standard error."""
    print(visible(text), file=sys.stderr if error else sys.stdout, flush=True)
