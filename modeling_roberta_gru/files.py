"""Write files and folders so that nobody ever sees half of one, and find those that the package carries."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


def carried(name: str) -> Path:
    """Return where a file of the repository lies that is no code of this package, such as "model_card/template.md".

    An installed package has it inside itself, a checkout beside the package.
    """
    inside = PACKAGE / "carried" / name
    return inside if inside.exists() else PACKAGE.parent / name


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` to write a file or folder to, and move it to `path` once it is whole.

    If the writing fails or is interrupted, what stood at `path` before stands there still and nothing else is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays the last: writers choose the format by it.
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    replaced = path.with_name(f".replaced-{os.getpid()}-{path.name}")
    try:
        yield unfinished
        if path.is_dir() and not unfinished.is_dir():
            raise IsADirectoryError(f"{path} is a folder, and a file was to be written there.")
        if path.is_dir():  # a folder that is not empty cannot be renamed over
            os.replace(path, replaced)
        os.replace(unfinished, path)
    except BaseException:
        if replaced.exists() and not path.exists():
            os.replace(replaced, path)
        raise
    finally:
        for leftover in (unfinished, replaced):
            delete(leftover)


def delete(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file whole or not at all; NaN is an error, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
