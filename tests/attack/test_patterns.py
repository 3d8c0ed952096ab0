"""Every regular expression of the package, as it is used, on 100 KB that are made to hurt it."""

import ast
import importlib
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from modeling_roberta_gru.files import PACKAGE, carried

METHODS = ("search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")
SIZE, MOST_SECONDS = 100_000, 0.5


def modules() -> Iterator[tuple[Path, ast.Module, dict[str, Any]]]:
    """Yield every file of code, parsed, and the names that it has once it is imported."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join([PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        yield path, ast.parse(path.read_text(encoding="utf-8")), vars(importlib.import_module(name))
    for path in sorted(carried("model_card").rglob("*.py")):  # programs of their own
        yield path, ast.parse(path.read_text(encoding="utf-8")), {}


def uses() -> dict[str, tuple[re.Pattern[Any], str]]:
    """Return every pattern with a method that is called on it, by file, line and method."""
    found: dict[str, tuple[re.Pattern[Any], str]] = {}
    kept: dict[str, tuple[re.Pattern[Any], str]] = {}
    for path, tree, names in modules():
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in METHODS):
            if isinstance(node.value, ast.Name) and isinstance(names.get(node.value.id), re.Pattern):
                found[f"{path.stem}:{node.lineno} {node.attr}"] = names[node.value.id], node.attr
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if not (isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "re"):
                continue
            flags = next((ast.unparse(word.value) for word in node.keywords if word.arg == "flags"), "0")
            if node.func.attr == "compile" and len(node.args) > 1:
                flags = ast.unparse(node.args[1])
            try:
                pattern = eval(f"re.compile({ast.unparse(node.args[0])}, {flags})", {**names, "re": re})
            except NameError:  # made of what is known only then
                continue
            method = node.func.attr if node.func.attr in METHODS else None
            (found if method else kept)[f"{path.stem}:{node.lineno} {method}"] = pattern, method or "search"
    called = [pattern for pattern, _ in found.values()]
    return found | {where: use for where, use in kept.items() if use[0] not in called}


USES = uses()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt, by an error, what takes more of the processor's time."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def adversarial(pattern: str) -> Iterator[str]:
    """Yield texts of one or two characters of a pattern again and again, and an end that does not fit."""
    letters = sorted({*re.sub(r"\\.", "", pattern), *"a0 \n\"'\\<:/="} - set("()[]{}?*+^$|"))[:24]
    for unit in [*letters, *map("".join, product(letters, repeat=2))]:
        yield unit * (SIZE // len(unit)) + "\0"


def test_the_patterns_are_found():
    assert len(USES) > 40


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_no_pattern_takes_long_on_what_is_made_to_hurt_it(use):
    pattern, method = USES[use]
    is_text = isinstance(pattern.pattern, str)
    for text in adversarial(pattern.pattern if is_text else pattern.pattern.decode("latin-1")):
        value: Any = text if is_text else text.encode("latin-1", "replace")
        given = ("" if is_text else b"", value) if method in ("sub", "subn") else (value,)
        try:
            with at_most(MOST_SECONDS):
                result = getattr(pattern, method)(*given)
                if method == "finditer":
                    list(result)
        except TimeoutError:
            pytest.fail(f"{pattern.pattern!r}.{method} takes over {MOST_SECONDS} s on {text[:20]!r} again and again")
