"""Markdown whose words stay words, whatever a label, a file or a command holds."""

import html
import re
from collections.abc import Sequence

from .errors import visible

# Emphasis, code, links, pictures, table cells; an underscore within a word is none of these.
ACTIVE = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")
# What opens a list, a heading or a rule, at the beginning of a line.
OPENING = re.compile(r"^(\d{1,9}(?=[.)](?: |$))|(?=[-+](?:[ -]|$)|[=#]))")
# Formulas, mentions and addresses, which are found without any mark around them.
BARE = re.compile(r"[$@]|(?<=[A-Za-z]):(?=//)|(?<=www)\.", re.IGNORECASE)


def cell(text: object) -> str:
    """Write a text on one line so that a reader sees it as it is, in a table or out of it."""
    line = html.escape(" ".join(visible(text).split()), quote=False)
    line = OPENING.sub(r"\1\\", ACTIVE.sub(r"\\\g<0>", line))
    return BARE.sub(lambda found: f"&#{ord(found[0])};", line)


def code(text: object) -> str:
    """Write a text on one line as code."""
    line = " ".join(visible(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose cells are Markdown already."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
