"""Write files and folders so that nobody ever sees half of one, and find those that the package carries."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

PACKAGE = Path(__file__).parent
CANNOT_WRITE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Endings of the tables that are read and written."""
PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zst")


def carried(name: str) -> Path:
    """Return where a file of the repository lies that is no code of this package, such as "model_card/template.md".

    An installed package has it inside itself, a checkout beside the package.
    """
    inside = PACKAGE / "carried" / name
    return inside if inside.exists() else PACKAGE.parent / name


def check_table(path: str | os.PathLike[str], exists: bool = True) -> None:
    """Refuse early, before anything heavy is imported, what cannot be a table.

    Args:
        path: of a file.
        exists: whether it must exist already.

    Raises:
        InputError: if the file is missing, or its ending is that of no table.
    """
    if "://" in str(path):
        return
    path = Path(path)
    unpacked = path.with_suffix("") if path.suffix.lower() in PACKED_ENDINGS else path
    if unpacked.suffix.lower() not in TABLE_ENDINGS:
        kind = f"{path.suffix} files" if path.suffix else "a file without an ending"
        raise InputError(f"{path}: cannot {'read' if exists else 'write'} {kind}; known: {', '.join(TABLE_ENDINGS)}.")
    if exists and not path.is_file():
        raise InputError(f"No file {str(path)!r}: {'it is a folder' if path.is_dir() else 'there is none'}.")


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


@contextmanager
def writing_to(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say in one line why a file or folder cannot be written, whatever the system calls it.

    Raises:
        InputError: for a full disk, missing rights, a read-only file system, a file where a folder is needed.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise InputError(f"{path} cannot be written: {error.strerror}. Name another place.") from error


def check_writable(option: str, folder: Path) -> None:
    """Check that files can be written to a folder, or that it can be made.

    Raises:
        InputError: naming the option and what stands in the way.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder} cannot be used: {existing} is not a folder that can be written to.")


def refuse_overwriting_inputs(output: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Check that a file to be written is none of those that are read, by whatever path or link it is named.

    Args:
        output: the file.
        inputs: files, and folders, of which every file counts. Names that are no path, such as a Hub id, are passed.

    Raises:
        InputError: if it is one of them.
    """
    if not output.exists():
        return
    for path in map(Path, inputs):
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file() and file.samefile(output):
                raise InputError(f"{output} is read as an input ({file}): name another file for the output.")


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
