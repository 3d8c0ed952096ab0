"""What the fields of a dataclass take from a command line or a recipe. Nothing heavy is imported here."""

import ast
import builtins
import json
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from functools import cache
from importlib.util import find_spec
from inspect import isclass
from numbers import Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import InputError, unknown_name

UNSET = ("", "null", "~")  # how YAML writes nothing; on the command line, the latter two
YES = ("yes", "true", "t", "y", "1")
NO = ("no", "false", "f", "n", "0")
KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping in JSON"}


@dataclass(frozen=True)
class Option:
    """An option of a run.

    Attributes:
        name: without dashes, words joined by underscores.
        kind: `str`, `int`, `float`, `bool` or `dict`, of one value.
        choices: what it may be, if that is listed.
        is_list: whether it takes several values.
        default: its value when it is not given; `MISSING` where only the library that has it knows.
        help: one sentence or more, the first of which says what it is.
    """

    name: str
    kind: type = str
    choices: tuple[str, ...] = ()
    is_list: bool = False
    default: Any = None
    help: str = ""

    def convert(self, text: str) -> Any:
        """Return one value, from what stands on a command line or in a recipe.

        Raises:
            InputError: if the text is not of the option's kind, or none of its choices.
        """
        if self.choices:
            if text not in self.choices:
                raise unknown_name(f"--{self.name}", text, self.choices)
            return text
        try:
            if self.kind is bool:
                return (*YES, *NO).index(text.lower()) < len(YES)
            value = json.loads(text) if self.kind is dict else self.kind(text)
        except ValueError:
            value = None
        if isinstance(value, float) and not math.isfinite(value):  # which no record in JSON can hold
            raise InputError(f"--{self.name} must be finite, got {text!r}.")
        if not isinstance(value, self.kind):
            raise InputError(f"--{self.name} must be {KIND_NAMES[self.kind]}, got {text!r}.")
        return value

    def convert_words(self, words: list[str]) -> Any:
        """Return the option's value, from the words that follow it on the command line.

        Raises:
            InputError: if there are too few or too many words, or one cannot be converted.
        """
        if not words and self.kind is bool:
            return True
        if not words:
            raise InputError(f"--{self.name} needs a value.")
        if self.is_list:
            return [self.convert(word) for word in words]
        if len(words) > 1:
            raise stray_word(words[1])
        return self.convert(words[0])

    def accept(self, value: Any) -> Any:
        """Return the option's value, from what a Python program gives: a text is read as on the command line.

        Raises:
            InputError: if the value is not of the option's kind, or none of its choices.
        """
        if self.is_list:
            values = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
            return [self._accept_one(item) for item in values]
        return self._accept_one(value)

    def _accept_one(self, value: Any) -> Any:
        value = getattr(value, "value", value)  # of an enumeration
        if isinstance(value, str):
            return self.convert(value)
        if isinstance(value, Mapping):
            return dict(value) if self.kind is dict else json.dumps(value, ensure_ascii=False)
        convert: Any = self.kind
        if self.kind is float and isinstance(value, Real) and not math.isfinite(value):
            return self.convert(str(value))
        is_number = isinstance(value, Real) and math.isfinite(value)
        if self.kind in (int, float) and is_number and convert(value) == value:
            return convert(value)
        if self.kind is bool and value in (True, False):
            return bool(value)
        if self.kind is str and isinstance(value, Real | Path):
            return self.convert(str(value))
        raise InputError(f"--{self.name} must be {KIND_NAMES.get(self.kind, 'a text')}, got {value!r}.")


def stray_word(word: str) -> InputError:
    """Build the error for a word that belongs to no option."""
    return InputError(f"Unexpected argument {word!r}: options look like --learning_rate 2e-5.")


def options_of(dataclass_type: type) -> list[Option]:
    """Return the options that a dataclass takes."""
    hints = get_type_hints(dataclass_type)
    return [_option(field.name, hints[field.name], field) for field in fields(dataclass_type) if field.init]


def _option(name: str, hint: Any, field: Field) -> Option:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    kind, choices, is_list = _read_hint(hint)
    return Option(name, kind, choices, is_list, getattr(default, "value", default), field.metadata.get("help", ""))


def _read_hint(hint: Any) -> tuple[type, tuple[str, ...], bool]:
    """Return kind, choices and whether there may be several values."""
    parts = [part for part in _members(hint) if part is not NoneType]
    listed = [part for part in parts if isclass(part) and issubclass(part, Enum)]
    if listed:
        return str, tuple(item.value for item in listed[0]), False
    if bool in parts:
        return bool, (), False
    if any(get_origin(part) is list and get_args(part) == (str,) for part in parts):  # or one text alone
        return str, (), True
    if str in parts:  # what else the value may be, its owner reads from the text
        return str, (), False
    origin = get_origin(parts[0]) or parts[0]
    if origin is Literal:
        return str, tuple(map(str, get_args(parts[0]))), False
    if origin is list:
        kind, choices, _ = _read_hint(get_args(parts[0])[0])
        return kind, choices, True
    return origin if origin in (int, float, dict) else str, (), False


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


# The Trainer's options. Importing transformers takes seconds; its source says what they are called and take.


@cache
def trainer_options() -> tuple[Option, ...]:
    """Return the options of the installed [`~transformers.TrainingArguments`], without importing transformers."""
    spec = find_spec("transformers")
    try:
        return tuple(_options_of_source(Path(spec.submodule_search_locations[0]) / "training_args.py"))  # type: ignore
    except (OSError, SyntaxError, AttributeError, TypeError, ValueError):  # there is no source to read
        from transformers import TrainingArguments

        return tuple(options_of(TrainingArguments))


def _options_of_source(path: Path) -> Iterator[Option]:
    module = _parse(path)
    (definition,) = (
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
    )
    for node in definition.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        settings = {word.arg: word.value for word in node.value.keywords} if isinstance(node.value, ast.Call) else {}
        if _literal(settings.get("init"), True) is False:
            continue
        default = node.value if not settings else settings.get("default")
        metadata = settings.get("metadata")
        pairs = zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
        texts = {_literal(key, None): _literal(value, "") for key, value in pairs}
        kind, choices, is_list = _read_hint(_evaluated(node.annotation, module, path))
        empty_list: Any = [] if "default_factory" in settings else MISSING
        yield Option(node.target.id, kind, choices, is_list, _literal(default, empty_list), texts.get("help", ""))


def _literal(node: ast.expr | None, otherwise: Any) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else otherwise
    except (ValueError, TypeError):
        return otherwise


def _evaluated(annotation: ast.expr, module: ast.Module, path: Path) -> Any:
    """Return an annotation as Python would; a name that is neither typing's nor a list of choices is anything."""
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)} - vars(builtins).keys()
    known = {name: getattr(typing, name, None) or _choices(name, module, path) or Any for name in names}
    return eval(compile(ast.Expression(annotation), path, "eval"), known)


def _choices(name: str, module: ast.Module, path: Path) -> type[Enum] | None:
    """Return a copy of an enumeration that a module defines, or imports from a module beside it."""
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            values = {
                part.targets[0].id: _literal(part.value, None)
                for part in node.body
                if isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name)
            }
            return Enum(name, values) if values else None  # type: ignore[return-value]
        if isinstance(node, ast.ImportFrom) and node.level == 1 and name in [alias.name for alias in node.names]:
            file = path.parent.joinpath(*(node.module or "").split(".")).with_suffix(".py")
            return _choices(name, _parse(file), file) if file.is_file() else None
    return None


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
