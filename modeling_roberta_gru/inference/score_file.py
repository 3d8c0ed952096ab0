"""Score the texts of a file: rows in, the same rows out with a prediction beside each.

The file is read three times, a few rows at a time: to look for what stands in the way before hours are spent, to score
its texts, and to write its rows. What is scored is kept in parts of [`POOL_SIZE`] texts in a folder beside the output
(`.unfinished-` and its name) until the output is whole. A run that was cut off resumes after its last part, and as
pools of the scorer begin where parts do, its output is the same to the byte.
"""

import errno
import json
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from io import BytesIO
from itertools import chain, count, cycle, islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest
from tqdm.auto import tqdm

from ..arguments import DataArguments
from ..data.dialect import NONE, BadRows, Dialect, encoding_hint, is_data, is_decoded
from ..data.documents import clean_html, is_null, join_columns
from ..data.labels import MULTI_LABEL, REGRESSION, SCORE_PREFIX
from ..data.tables import (
    PARQUET,
    UTF_8,
    Chunk,
    Columns,
    Table,
    begins_with_text,
    check_once,
    is_csv,
    is_text,
    open_table,
    write_table,
)
from ..errors import InputError, no_column
from ..files import alone, check_ending, delete, is_url, kind_of, location_name, redacted, replacing, write_json
from .scorer import POOL_SIZE, THRESHOLD, decide

if TYPE_CHECKING:
    from .scorer import Scorer

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
UNFINISHED, NOTED = "unfinished", "run.json"
IS_NULL, IS_EMPTY = "the text is null", "the text is empty"
BEGINNING = 2**20
"""Bytes that are hashed to recognise a file, besides its size and time."""


@dataclass(frozen=True)
class ScoreOptions:
    """How a file is scored.

    Attributes:
        text_column: the columns of the text, joined as in training; one may be given as it is.
        prefix: begins the names of the columns `label` and `score` or, of a regression, `value`.
        all_scores: also write each label's probability, as `score_` and its name.
        csv_encoding: of a CSV or TSV file that is read; UTF-8 is written.
        csv_delimiter, csv_quoting, csv_escape: how it is written; "auto": to be found.
        clean_html: remove HTML from the texts, as [`~.data.documents.clean_html`] does.
        skip_bad_rows: keep rows that cannot be read or have no text, with nothing in the new columns.
    """

    text_column: list[str] = field(default_factory=lambda: ["text"])
    prefix: str = "predicted_"
    all_scores: bool = False
    csv_encoding: str = "utf-8"
    csv_delimiter: str = "auto"
    csv_quoting: str = "auto"
    csv_escape: str = "auto"
    clean_html: bool = False
    skip_bad_rows: bool = False

    def __post_init__(self) -> None:
        columns = [self.text_column] if isinstance(self.text_column, str) else list(dict.fromkeys(self.text_column))
        if not columns:
            raise InputError("text_column names no column.", field="text_column")
        object.__setattr__(self, "text_column", columns)

    @property
    def csv(self) -> dict[str, Any]:
        """Those that [`DataArguments`] has for CSV and TSV files."""
        return {name: value for name, value in vars(self).items() if name.startswith("csv_")}


@dataclass(frozen=True)
class PredictedColumns:
    """The columns that a model adds.

    Attributes:
        labels: the C labels' names, by index.
        problem_type: see [`~.data.labels.LabelSpace`].
        prefix: begins the names of the columns of the prediction.
        all_scores: whether each label's probability has a column too.

    Raises:
        InputError: if two columns would have one name, or `all_scores` has nothing to add.
    """

    labels: Sequence[str]
    problem_type: str
    prefix: str = "predicted_"
    all_scores: bool = False

    def __post_init__(self) -> None:
        if self.all_scores and self.problem_type == REGRESSION:
            raise InputError(
                "--all-scores has nothing to add: a regression has no labels. Leave it out.", field="all_scores"
            )
        names = self.schema.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"Two new columns would be named {twice!r}. Choose another --prefix.", field="prefix")

    @property
    def schema(self) -> pa.Schema:
        """Their names and types."""
        if self.problem_type == REGRESSION:
            values = self.labels if len(self.labels) > 1 else ["value"]
            return pa.schema([(f"{self.prefix}{name}", pa.float32()) for name in values])
        kinds = [pa.string(), pa.float32()]
        label, score = map(pa.list_, kinds) if self.problem_type == MULTI_LABEL else kinds
        prediction = [(f"{self.prefix}label", label), (f"{self.prefix}score", score)]
        return pa.schema(
            prediction + [(f"{SCORE_PREFIX}{name}", pa.float32()) for name in self.labels if self.all_scores]
        )

    def columns(self, probabilities: np.ndarray) -> Columns:
        """Return the columns of n texts from their probabilities (n, C), or from the values of a regression."""
        scores = probabilities.astype(str).astype(float)  # 0.1, where float32 in float64 is 0.10000000149
        decided = decide(probabilities, self.labels, self.problem_type)
        if self.problem_type == REGRESSION:
            prediction = scores.T.tolist()
        elif self.problem_type == MULTI_LABEL:
            prediction = [decided, [row[row >= THRESHOLD].tolist() for row in scores]]
        else:
            prediction = [decided, scores.max(axis=1).tolist()]
        others = scores.T.tolist() if self.all_scores else []
        return dict(zip(self.schema.names, prediction + others, strict=True))


def score_file(
    scorer: "Scorer",
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: ScoreOptions = ScoreOptions(),
    *,
    restart: bool = False,
    excel_safe: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Score the texts of a file, and write its rows with the predictions; an earlier result at `target` is replaced.

    Args:
        scorer: the model.
        source: a CSV, TSV, JSON Lines, JSON or Parquet file, or the URL of one.
        target: another file of any of these kinds. CSV to CSV keeps how cells are separated and quoted.
        options: which column is read and how, and what is added.
        restart: forget what an unfinished run into `target` has scored.
        excel_safe: put an apostrophe before every cell of a CSV or TSV output that begins with = + - @, a tab or a
            carriage return and is not a number: a spreadsheet would run it as a formula.
        progress: show a bar.

    Returns:
        What JSON can hold: the counts `rows`, `rows_without_text` and `texts_scored_before` (by an unfinished run),
        `seconds`, `rows_per_second` of scoring, the `columns` added, `dtype` and `description` of the scorer.

    Raises:
        InputError: if file, columns, rows, an unfinished run or another file at `target` stand in the way, or the
            disk is full. What is scored is kept, and the same call resumes.
    """
    source, target = location_name(source), Path(target)
    started = perf_counter()
    predictions = PredictedColumns(scorer.labels, scorer.problem_type, options.prefix, options.all_scores)
    _check_target(source, target)
    _check_earlier_result(target, predictions.schema.names[0])
    if excel_safe and not is_csv(target):
        raise InputError(
            f"--excel-safe takes effect only with CSV or TSV output: leave it out for {target}.",
            field="excel_safe",
            file=str(target),
        )
    table = _open(source, options, typed=kind_of(target) == PARQUET)
    run = {
        "model": scorer.fingerprint,
        "dtype": scorer.dtype,
        "--max-length": scorer.max_length,
        "--agreement": scorer.agreement,
        "--text-column": options.text_column,
        **{f"--{name.replace('_', '-')}": value for name, value in options.csv.items()},
        "--clean-html": options.clean_html,
        "input": _identity(table.path),
        "pool size": POOL_SIZE,
    }
    with _disk_space(target), _parts_folder(target) as folder:
        _begin(folder, run, restart)
        num_rows, bad = _survey(table, options, predictions)
        num_texts = num_rows - bad.number
        unfinished = folder / f"{UNFINISHED}{''.join(target.suffixes[-2:])}"
        schema = pa.schema([*table.schema, *predictions.schema], table.schema.metadata)
        dialect = table.dialect if kind_of(source) == kind_of(target) else None
        _check_writing(unfinished, target, schema, table, options, predictions, dialect)
        before = _num_scored(folder)
        scoring = perf_counter()
        _score(scorer, _texts(table, options, bad.reasons), folder, before, num_texts, progress)
        scoring = perf_counter() - scoring
        if _identity(table.path) != run["input"]:
            raise InputError(
                f"{table.name} has changed while it was scored. Start over with --restart.", file=table.name
            )
        rows = _rows(table, options, predictions, chain.from_iterable(map(np.load, _parts(folder))))
        write_table(unfinished, schema, rows, dialect, table.has_byte_order_mark, excel_safe)
        os.replace(unfinished, target)
        _forget(folder)
    return {
        "source": redacted(source),
        "target": str(target),
        "rows": num_rows,
        "rows_without_text": bad.number,
        "texts_scored_before": before,
        "seconds": perf_counter() - started,
        "rows_per_second": (num_texts - before) / scoring,
        "columns": predictions.schema.names,
        "dtype": scorer.dtype,
        "description": scorer.description,
    }


def read_texts(source: str | os.PathLike[str], options: ScoreOptions = ScoreOptions()) -> Iterator[str]:
    """Yield the texts of a file that can be scored, in order.

    Raises:
        InputError: if the file cannot be read, or has no such column.
    """
    table = _open(location_name(source), options)
    _check_text_columns(table, options.text_column)
    yield from _texts(table, options, ())


def check_text_columns(source: str | os.PathLike[str], options: ScoreOptions) -> None:
    """Check that a file can be opened and has the columns of the text.

    Raises:
        InputError: if not.
    """
    _check_text_columns(_open(location_name(source), options), options.text_column)


def verify(scorer: "Scorer", reference: "Scorer", texts: Iterable[str], n: int) -> dict[str, Any]:
    """Compare what two scorers of one model say of the first n texts.

    Returns:
        What JSON can hold: `n`, `dtype`, `reference_dtype`, `largest_difference` of two probabilities (or values), and
        but for a regression the [`share`] of texts whose labels are `equal`, all of them where there are several.

    Raises:
        InputError: without any text.
    """
    some = list(islice(texts, n))
    if not some:
        raise InputError("The file holds no text whose scores could be verified.")
    ours, theirs = (np.stack(list(each.stream(some))) for each in (scorer, reference))
    figures = {
        "n": len(some),
        "dtype": scorer.dtype,
        "reference_dtype": reference.dtype,
        "largest_difference": float(abs(ours - theirs).max()),
    }
    if scorer.problem_type == REGRESSION:
        return figures
    said = (decide(scores, scorer.labels, scorer.problem_type) for scores in (ours, theirs))
    return {**figures, "equal": share([one == other for one, other in zip(*said, strict=True)])}


def share(holds: Sequence[bool] | np.ndarray) -> dict[str, Any]:
    """Return how often something holds, as `hits` of `n`, and its share, `value`, with Wilson's 95 % interval."""
    hits, n = int(np.sum(holds)), len(holds)
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    return {"value": hits / n, "low": float(low), "high": float(high), "hits": hits, "n": n}


def describe_scored(result: dict[str, Any]) -> str:
    """Write what [`score_file`] returns as text."""
    lines = [
        f"{result['rows']:,} rows in {result['target']}, with {', '.join(result['columns'])}.",
        f"{result['rows_per_second']:,.1f} rows/s, {result['seconds']:,.1f} s in all: {result['description']}.",
    ]
    if result["texts_scored_before"]:
        lines.append(f"Of {result['texts_scored_before']:,} rows an earlier run had the scores.")
    if result["rows_without_text"]:
        lines.append(f"{result['rows_without_text']:,} rows have no text, and nothing in the new columns.")
    return "\n".join(lines)


def describe_verified(figures: dict[str, Any]) -> str:
    """Write what [`verify`] returns as text."""
    what = f"{figures['dtype']} beside {figures['reference_dtype']}, first {figures['n']:,} texts"
    difference = f"scores differ by {figures['largest_difference']:.2g} at most"
    if "equal" not in figures:
        return f"{what}: {difference}."
    equal = figures["equal"]
    labels = f"{equal['hits']:,} labels equal, {equal['value']:.2%} ({equal['low']:.2%} to {equal['high']:.2%})"
    return f"{what}: {labels}; {difference}."


def _open(source: str, options: ScoreOptions, typed: bool = False) -> Table:
    args = DataArguments(**options.csv)
    for name, value in options.csv.items():
        if value != getattr(DataArguments, name) and not is_csv(source):
            option = name.replace("_", "-")
            raise InputError(
                f"--{option} takes effect only with CSV or TSV files: leave it out for {source}.",
                field=name,
                file=source,
            )
    return open_table(source, args, typed)


def _check_target(source: str, target: Path) -> None:
    if is_url(target):
        name = redacted(location_name(target))
        raise InputError(f"{name} is a URL: name a file of this machine for the output.", file=name)
    if target.is_dir():
        raise InputError(f"{target} is a folder: name a file, such as {target / Path(source).name}.", file=str(target))
    check_ending(target, "write")
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise InputError(f"{target} is the input itself: name another file for the output.", file=str(target))


def _check_earlier_result(target: Path, column: str) -> None:
    """Refuse to replace a file that holds anything but the result of an earlier run: it lacks the column.

    Only the file's beginning is read.
    """
    if not target.exists() or target.stat().st_size == 0:
        return
    names: list[str] = []
    with suppress(InputError):  # of a file that is not what its ending says
        table = open_table(target)
        names = table.schema.names or [name for chunk in islice(table.chunks(), 1) for name in chunk.names]
    if column not in names:
        raise InputError(
            f"{target} exists and has no column {column!r}, so it is not an earlier result: name another file for the "
            "output, or delete this one.",
            field=column,
            file=str(target),
        )


def _identity(path: Path) -> dict[str, Any]:
    """Return what identifies a file."""
    status = path.stat()
    with open(path, "rb") as file:
        # A copy of what a URL names has no time of its own, so that all of it must tell.
        digest = sha256(file.read(BEGINNING)) if status.st_mtime_ns else file_digest(file, "sha256")
    return {"bytes": status.st_size, "changed_ns": status.st_mtime_ns, "sha256": digest.hexdigest()}


@contextmanager
def _disk_space(target: Path) -> Iterator[None]:
    """Say it when a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_IS_FULL:
            raise
        raise InputError(
            f"The disk of {target} is full. What is scored is kept in {_folder(target)}: make room and run the same "
            "command again to resume.",
            file=str(target),
        ) from error


@contextmanager
def _parts_folder(target: Path) -> Iterator[Path]:
    """Give the folder of a run's parts, to one process at a time; it is deleted if it holds none afterwards."""
    folder = _folder(target)
    with alone(target):
        try:
            folder.mkdir(exist_ok=True)
            yield folder
        finally:
            for unfinished in folder.glob(f"{UNFINISHED}.*"):
                unfinished.unlink()
            if not _parts(folder):
                delete(folder)


def _folder(target: Path) -> Path:
    return target.with_name(f".unfinished-{target.name}")


def _begin(folder: Path, run: dict[str, Any], restart: bool) -> None:
    """Note what the parts will follow from, if there are none yet; else check that it is what theirs did.

    Names and number of the new columns are none of it: they are made when all is scored. Nor is `skip_bad_rows`:
    without it, nothing is scored of a file with such rows.
    """
    noted = folder / NOTED
    if restart or not noted.exists():  # which goes first of all that is deleted: what is left then is of no use
        _forget(folder)
        folder.mkdir()
    if not _parts(folder):
        write_json(noted, run)
        return
    earlier = json.loads(noted.read_text(encoding="utf-8"))
    changed = [name for name, value in run.items() if earlier.get(name) != value]
    if changed:
        raise InputError(
            f"{folder} holds the results of an unfinished run with another {' and another '.join(changed)}. Repeat "
            "its settings to resume it, or start over with --restart, which deletes them.",
            field=changed[0].removeprefix("--").replace("-", "_"),
            file=str(folder),
        )


def _forget(folder: Path) -> None:
    """Delete what is scored. Whatever a kill leaves of it is not taken for the parts of a run: these have a note."""
    (folder / NOTED).unlink(missing_ok=True)
    delete(folder)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.npy"))


def _num_scored(folder: Path) -> int:
    return sum(len(np.load(part, mmap_mode="r")) for part in _parts(folder))


def _survey(table: Table, options: ScoreOptions, predictions: PredictedColumns) -> tuple[int, BadRows]:
    """Read a whole file, stop at what would stop its scoring, and return its number of rows and the bad ones."""
    num_rows, bad = 0, BadRows()
    _check_columns(table, options.text_column, predictions)
    for chunk in table.chunks():
        table.learn(chunk)
        num_rows += len(chunk)
        bad.add(faults_of(chunk, options), chunk.first)
    if not num_rows:
        raise InputError(f"{table.name} has no rows.", file=table.name)
    _check_columns(table, options.text_column, predictions)
    said = str(bad)
    hint = encoding_hint(said) if is_csv(table.name) else ""
    if bad.number == num_rows:
        named = " and ".join(map(repr, options.text_column))
        raise InputError(
            f"{table.name}: column {named} has no text in any row: {said}.{hint}",
            field=options.text_column[0],
            file=table.name,
            row=bad.first,
        )
    if bad.number and not options.skip_bad_rows:
        raise InputError(
            f"{table.name}: {bad.number:,} of {num_rows:,} rows cannot be scored: {said}.{hint} "
            f"{'Otherwise fix' if hint else 'Fix'} them, or pass --skip-bad-rows to keep them without a prediction.",
            file=table.name,
            row=bad.first,
        )
    return num_rows, bad


def _check_writing(
    unfinished: Path,
    target: Path,
    schema: pa.Schema,
    table: Table,
    options: ScoreOptions,
    predictions: PredictedColumns,
    dialect: Dialect | None,
) -> None:
    """Say before all is scored what cannot be written then: the header, and where cells may matter, every row.

    Raises:
        InputError: naming `target`.
    """
    num_labels = len(predictions.labels)
    # All labels at once, as some text may have them, and one after the other.
    scores = chain([np.ones(num_labels)], cycle(np.eye(num_labels)))
    is_converted = kind_of(target) == PARQUET and kind_of(table.path) != PARQUET
    is_unquoted = dialect is not None and dialect.quoting == NONE
    rows = _rows(table, options, predictions, scores) if is_converted or is_unquoted else ()
    try:
        write_table(unfinished, schema, rows, dialect)
    except InputError as error:
        said = str(error).replace(str(unfinished), str(target))
        raise InputError(said, field=error.field, file=str(target), row=error.row) from None


def _check_columns(table: Table, text_columns: Sequence[str], predictions: PredictedColumns) -> None:
    _check_text_columns(table, text_columns)
    there = [name for name in predictions.schema.names if name in table.schema.names]
    if there and there[0].startswith(predictions.prefix):
        raise InputError(
            f"{table.name} has a column {there[0]!r} already. Name the new ones by another --prefix.",
            field=there[0],
            file=table.name,
        )
    if there:
        raise InputError(
            f"{table.name} has a column {there[0]!r} already. Rename it, or leave --all-scores out.",
            field=there[0],
            file=table.name,
        )


def _check_text_columns(table: Table, columns: Sequence[str]) -> None:
    names = table.schema.names
    no_header = is_csv(table.name) and is_data(names)
    for column in columns if names else ():  # JSON Lines have none before their rows have been read
        if column not in names:
            hint = f"Name yours by --text-column {shlex.quote(names[0])}."
            hint = "Has the file no header? Write the columns' names in its first line." if no_header else hint
            raise no_column(table.name, column, names, otherwise=hint)
        check_once([column], names, table.name)
        kind = table.schema.field(column).type
        item = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (is_text(item) or pa.types.is_null(item)):
            raise InputError(f"{table.name}: column {column!r} holds {kind}, not text.", field=column, file=table.name)


def faults_of(chunk: Chunk, options: ScoreOptions) -> dict[int, str]:
    """Return the rows of a chunk, from 0, that cannot be scored, and why: of several columns, one may be empty."""
    first, *others = [_faults_of_column(chunk, column, options.clean_html) for column in options.text_column]
    if others:
        faults = [first, *others]
        for row in sorted(set().union(*faults)):
            reasons = [fault.get(row, "") for fault in faults]
            broken = [reason for reason in reasons if reason not in ("", IS_NULL, IS_EMPTY)]
            first[row] = broken[0] if broken else min(reasons)
    return {row: reason for row, reason in first.items() if reason} | chunk.bad


def _faults_of_column(chunk: Chunk, column: str, is_cleaned: bool) -> dict[int, str]:
    texts = chunk.array(column)
    if is_cleaned:
        texts = [clean_html(text) if isinstance(text, str) else text for text in chunk.values(column)]
    if isinstance(texts, list):
        rows: Iterable[int] = range(len(texts))
    else:
        rows = np.flatnonzero(~begins_with_text(texts)).tolist()
        texts = {row: texts[row].as_py() for row in rows}
    return {row: fault for row in rows if (fault := why_not_scored(texts[row]))}


def why_not_scored(text: Any) -> str:
    """Say why a value of a text column cannot be scored; "" if it can."""
    if is_null(text):
        return IS_NULL
    if not isinstance(text, str):
        return "the text is not text"
    if not text.strip():
        return IS_EMPTY
    return "" if text.isascii() or is_decoded(text) else f"the text is not {UTF_8} text"


def _texts(table: Table, options: ScoreOptions, faults_found: Collection[str]) -> Iterator[str]:
    # A cell of another column may make a row bad: where there are bad rows, those are found that are written.
    for chunk in table.chunks(None if faults_found else options.text_column):
        faults = faults_of(chunk, options)
        columns = [chunk.values(column) for column in options.text_column]
        if faults:
            columns = [[text for at, text in enumerate(column) if at not in faults] for column in columns]
        texts: list[str] = join_columns(columns)  # type: ignore[assignment]  # none is null
        yield from map(clean_html, texts) if options.clean_html else texts


def _score(scorer: "Scorer", texts: Iterator[str], folder: Path, done: int, num_texts: int, progress: bool) -> None:
    """Score the texts that no part has, and write a part whenever there is enough for one."""
    with tqdm(total=num_texts, initial=done, disable=not progress, desc="Scoring", unit=" rows") as bar:
        scores = scorer.stream(islice(texts, done, None), bar.update)
        for number in count(len(_parts(folder))):
            part = list(islice(scores, POOL_SIZE))
            if not part:
                return
            if not np.isfinite(part).all():
                raise InputError("The model's scores are not finite numbers: its weights are damaged.")
            content = BytesIO()
            np.save(content, np.stack(part))
            with replacing(folder / f"part-{number:08}.npy") as unfinished:
                unfinished.write_bytes(content.getbuffer())  # numpy itself writes past Python: it loses a full disk


def _rows(
    table: Table, options: ScoreOptions, predictions: PredictedColumns, scores: Iterator[np.ndarray]
) -> Iterator[tuple[Chunk, Columns]]:
    """Yield a file's rows and their new columns, which are null for rows without a text."""
    for chunk in table.chunks():
        faults = faults_of(chunk, options)
        are_texts = [at not in faults for at in range(len(chunk))]
        probabilities = np.array(list(islice(scores, sum(are_texts))), dtype=np.float32)
        columns = predictions.columns(probabilities.reshape(-1, len(predictions.labels)))
        yield chunk, {name: beside_texts(values, are_texts) for name, values in columns.items()}


def beside_texts(values: Iterable[Any], are_texts: Sequence[bool]) -> list[Any]:
    """Return one entry per row: the next of the texts' values, or None where the row has no text."""
    following = iter(values)
    return [next(following) if is_text else None for is_text in are_texts]
