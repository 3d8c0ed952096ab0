"""Write files and folders so that nobody ever sees half of one, and find those that the package carries."""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .errors import InputError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

PACKAGE = Path(__file__).parent
STAGING = "run"
CANNOT_WRITE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Endings of the tables that are read and written."""
EXCEL_ENDINGS = (".xlsx", ".xls")
COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz", ".zst")
FILE_URL = re.compile(r"file:/+", re.IGNORECASE)
URL = re.compile(r"^([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])", re.IGNORECASE)  # pathlib makes one slash of two


def carried(name: str) -> Path:
    """Return where a file of the repository lies that is not code of this package, such as "model_card/template.md".

    An installed package has it inside itself, a checkout beside the package.
    """
    inside = PACKAGE / "carried" / name
    return inside if inside.exists() else PACKAGE.parent / name


def carried_module(name: str) -> ModuleType:
    """Import a carried file that is a program of its own and no module of this package."""
    path = carried(name)
    spec = spec_from_file_location(f"roberta_gru_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def location_name(location: str | os.PathLike[str]) -> str:
    """Return a path or URL as it was meant; of a URL that names a file of this machine (`file:///…`), the path."""
    name = str(location)
    if here := FILE_URL.match(name):
        return f"/{unquote(name[here.end() :])}"
    return URL.sub(lambda found: f"{found[1]}://", name, count=1) if is_url(name) else name


def is_url(location: str | os.PathLike[str]) -> bool:
    return URL.match(str(location)) is not None


def endings_of(name: str) -> tuple[str, str]:
    """Return the ending that says a file's kind, and the one that says how it is compressed."""
    path = Path(unquote(urlsplit(name).path) if is_url(name) else name)
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSED_ENDINGS else ""
    return (Path(path.stem) if compression else path).suffix.lower(), compression


def kind_of(location: str | os.PathLike[str]) -> str:
    """Return the ending that says a table's kind, less that of its compression; "" if it is none that can be read."""
    kind = endings_of(location_name(location))[0]
    return kind if kind in TABLE_ENDINGS else ""


def check_compressed_once(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse a file beside its compressed copy, whose rows would count twice.

    Raises:
        InputError: naming both.
    """
    seen: dict[str, str] = {}
    for path in map(str, paths):
        compression = endings_of(path)[1]
        other = seen.setdefault(path[: len(path) - len(compression)], path)
        if other != path:
            raise InputError(f"{other} and {path} are the same table, once compressed: delete one of them.", file=path)


def check_ending(location: str | os.PathLike[str], verb: str) -> str:
    """Return the ending that says a table's kind.

    Raises:
        InputError: if it is none that can be read and written.
    """
    kind, compression = endings_of(location_name(location))
    if kind not in TABLE_ENDINGS:
        name = redacted(location_name(location))
        ending = f"{kind}{compression}" or ("a folder" if Path(name).is_dir() else "a file without an ending")
        known = f"{', '.join(TABLE_ENDINGS)}, each also compressed ({', '.join(COMPRESSED_ENDINGS)})"
        hint = " Save it as CSV (UTF-8) in Excel." if verb == "read" and kind in EXCEL_ENDINGS else ""
        raise InputError(f"{name}: cannot {verb} {ending}; known: {known}.{hint}", file=name)
    return kind


def refuse_folder(location: str | os.PathLike[str]) -> None:
    """Refuse a folder in the place of a file of training, validation or test.

    Raises:
        InputError: naming the option that takes folders.
    """
    if not is_url(location) and Path(location).is_dir():
        raise InputError(
            f"{location} is a folder: give it as --dataset_name.", field="dataset_name", file=str(location)
        )


def check_table(path: str | os.PathLike[str], exists: bool = True) -> None:
    """Refuse early, before anything heavy is imported, what cannot be a table.

    Args:
        path: of a file.
        exists: whether it must exist already.

    Raises:
        InputError: if the file is missing, or its ending is that of no table.
    """
    path = location_name(path)
    if is_url(path):
        return
    check_ending(path, "read" if exists else "write")
    if exists and not Path(path).is_file():
        what = "is a folder, not a file" if Path(path).is_dir() else "does not exist"
        raise InputError(f"The file {path!r} {what}.", file=path)


@contextmanager
def threads(number: int, **options: Any) -> Iterator["ThreadPoolExecutor"]:
    """Hold a pool of threads, and wait for none of them in the end.

    Waiting may last for ever: whoever reads a generator no further leaves its end to the garbage collector, which may
    run where another thread is being started, under a lock that a thread needs to end.

    Args:
        number: of threads.
        options: of `ThreadPoolExecutor`.
    """
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(number, **options)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` to write a file or folder to, and move it to `path` once it is whole.

    If the writing fails or is interrupted, what stood at `path` before stands there still and nothing else is left.
    What a process that was killed has left of an earlier attempt is cleared away.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    # The suffix stays the last: writers choose the format by it.
    unfinished = path.with_name(f".unfinished-{_process()}-{path.name}")
    replaced = path.with_name(f".replaced-{_process()}-{path.name}")
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
def alone(path: str | os.PathLike[str], waits: bool = False) -> Iterator[None]:
    """Be the only process that writes to a file or folder.

    The lock is a file beside it (`.NAME.lock`) that stays: one on a file that somebody may delete can be held twice.
    Beside a folder that is mounted where nothing else can be written, it is in the folder.

    Args:
        path: of the output.
        waits: for another process to be done, where it takes moments; otherwise it is an error.

    Raises:
        InputError: if another process writes there, or the lock cannot be made.
    """
    import filelock

    path = Path(path)
    try:
        place = path.resolve() if path.is_dir() else path.absolute()
        if not place.name:
            raise InputError(f"{path} is the root of all folders: name one in it.", file=str(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        is_inside = place.is_dir() and not os.access(place.parent, os.W_OK)
        lock = filelock.FileLock(place / ".lock" if is_inside else place.with_name(f".{place.name}.lock"))
        lock.acquire(blocking=waits)
    except filelock.Timeout:
        if not os.path.exists(lock.lock_file):
            raise InputError(
                f"{path} cannot be written: no file can be made in {place.parent}.", file=str(path)
            ) from None
        raise InputError(
            f"Another process is writing to {path}: wait for it, or name another output.", file=str(path)
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror} ({error.filename}).", file=str(path)) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give an empty folder inside `folder` to gather files in that are moved from there; it goes afterwards.

    What a process that was killed has left of an earlier attempt is cleared away.
    """
    _clear_leftovers(folder / STAGING)
    staged = folder / f".unfinished-{_process()}-{STAGING}"
    staged.mkdir()
    try:
        yield staged
    finally:
        delete(staged)


def _process() -> str:
    """Name this process apart from all others that may write to the same folder, on other machines too."""
    return f"{_machine()}-{os.getpid()}.{_started(os.getpid())}"


def _started(process: int) -> str:
    """Return when a process began, in ticks since the machine did: numbers are given again, in a container at once."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:  # not Linux, or no such process
        return "0"


@cache
def _machine() -> str:
    # Containers may share a host's name, but not its process numbers.
    numbering = Path("/proc/self/ns/pid")
    inode = numbering.stat().st_ino if numbering.exists() else 0
    return hashlib.sha256(f"{socket.gethostname()} {inode}".encode()).hexdigest()[:8]


def _clear_leftovers(path: Path) -> None:
    """Clear away what a dead process of this machine has left beside `path`; put back what it had moved aside."""
    for leftover in path.parent.glob(f".*-{_machine()}-*-{glob.escape(path.name)}"):
        kind, _, process, name = leftover.name.split("-", 3)
        if kind not in (".unfinished", ".replaced") or name != path.name or _is_alive(process):
            continue
        if kind == ".replaced" and not path.exists():
            os.replace(leftover, path)
        else:
            delete(leftover)


def is_being_written(path: Path) -> bool:
    """Tell whether a file is what [`replacing`] gives a process that may be running, on another machine too."""
    kind, machine, process, *_ = [*path.name.split("-", 3), "", ""]
    return kind == ".unfinished" and (machine != _machine() or _is_alive(process))


def _is_alive(process: str) -> bool:
    """Tell whether a process, by its number and when it began, may be running; in doubt it is."""
    number, _, started = process.partition(".")
    if not number.isdecimal() or os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        pass
    return _started(int(number)) in ("0", started)


@contextmanager
def writing_to(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say in one line why a file or folder cannot be written, whatever the system calls it.

    Raises:
        InputError: for a full disk, missing rights, a read-only file system, a file where a folder is needed.
    """
    try:
        yield
    except Exception as error:
        reason = why_not_written(error)
        if reason is None:
            raise
        raise InputError(f"{path} cannot be written: {reason}. Name another place.", file=str(path)) from error


def why_not_written(error: Exception) -> str | None:
    """Return why a file could not be written, in the system's words; None where the error is of another kind."""
    # safetensors, tokenizers and torch wrap the system's error, torch without its number.
    number = re.search(r"\(os error (\d+)\)", str(error))
    code = error.errno if isinstance(error, OSError) else int(number[1]) if number else None
    if code in CANNOT_WRITE:
        return os.strerror(code)
    is_torchs = isinstance(error, RuntimeError) and re.search(
        "PytorchStreamWriter|unexpected pos|iostream error", str(error)
    )
    is_sqlites = any(
        isinstance(cause, sqlite3.Error) and re.search("disk is full|disk I/O error", str(cause))
        for cause in _causes(error)  # optuna and SQLAlchemy raise errors of their own
    )
    return "the disk is full, or files may not grow so large" if is_torchs or is_sqlites else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def check_writable(option: str, folder: Path) -> None:
    """Check that files can be written to a folder, or that it can be made.

    Raises:
        InputError: naming the option and what stands in the way.
    """
    field = option.removeprefix("--").replace("-", "_")
    if is_url(folder):
        name = redacted(location_name(folder))
        raise InputError(f"{option} {name} is a URL: name a folder of this machine.", field=field, file=name)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with TemporaryDirectory(dir=existing):
            return
    except OSError as error:
        raise InputError(
            f"{option} {folder} cannot be used: {existing} is not a folder that can be written to ({error.strerror}).",
            field=field,
            file=str(folder),
        ) from error


def refuse_overwriting_inputs(output: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Check that a file to be written is none of those that are read, by whatever path or link it is named.

    Args:
        output: the file.
        inputs: files, and folders, of which every file counts. Names that are not paths, such as Hub ids, are skipped.

    Raises:
        InputError: if it is one of them.
    """
    if not output.exists():
        return
    for path in map(Path, map(location_name, inputs)):
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file() and file.samefile(output):
                raise InputError(
                    f"{output} is read as an input ({file}): name another file for the output.", file=str(output)
                )


def delete(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")  # of names that are not text


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file whole or not at all; NaN is an error, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def without_passwords(text: str) -> str:
    """Return a text of several words, such as an error of a library, with every URL in it [`redacted`]."""
    # A scheme begins where the characters of one do: looked for from each letter, it takes the square of the length.
    return re.sub(r"(?<![\w+.-])(?:[\w+.-]+://|[\w+.-]{2,}:/)[^\s'\"<>]+", _without_password, text)


def _without_password(found: re.Match[str]) -> str:
    url = found[0]
    if "://" not in url and "@" in url:  # pathlib makes one slash of two
        url = url.replace(":/", "://", 1)
    return redacted(url)


def redacted(text: str) -> str:
    """Return a word or a text without the passwords of the URLs in it: their user info and every value of a query.

    A password may hold any character, `/` and spaces too: where it is not clear where one ends, more is taken out.
    """
    head, scheme, rest = text.partition("://")
    passed, more = "", scheme
    while more:  # there may be further URLs in what follows
        authority = re.split(r"[/?#\s]", rest, maxsplit=1)[0]
        if "@" in rest and ("@" in authority or ":" in authority):
            rest = f"***@{rest.rpartition('@')[2]}"
        before, more, rest = rest.partition("://")
        passed += before + more
    return head + scheme + re.sub(r"([?#&;][^=?#&;]*=)[^&;#]*", r"\1***", passed + rest)
