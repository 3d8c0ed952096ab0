"""What a user got wrong, said in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A mistake in what the user gave.

    The message names the field, row or file and the way out. The command line prints it without a traceback and ends
    with exit status 2.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that is none of `known`, naming the nearest one, or all where none is near."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    return InputError(f"Unknown {kind} {name!r}. {hint}")
