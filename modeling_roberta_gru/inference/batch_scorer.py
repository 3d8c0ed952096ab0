"""Score batches of columns: one callable for the engines that distribute them (Ray Data, Spark, Dask)."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..errors import InputError, unknown_name
from .score_file import PredictedColumns, beside_texts, why_not_scored
from .scorer import Scorer


class BatchScorer:
    """Adds predictions to batches of columns; the number and order of rows, and all that a batch holds, stay.

    A batch is a dict of arrays, a pandas frame, or an Arrow table or record batch; what is returned is of the same
    kind, with the columns that `roberta-gru score` adds. The model is loaded with the first batch, once for each
    object, so that the object travels to a worker as its arguments. Several threads may call it.

    Args:
        model: a run's folder, a saved model's folder or a Hub id, which every worker can read.
        text_column: the column of the text.
        prefix: begins the names of the columns `label` and `score` or, of a regression, `value`.
        all_scores: also add each label's probability, as `score_` and its name.
        skip_bad_rows: leave the new columns empty for rows without text, in place of an error.
        num_threads: processors that the model may use. Unset: as many as the engine gave.
        options: of [`Scorer`], with a name.
    """

    def __init__(
        self,
        model: str,
        *,
        text_column: str = "text",
        prefix: str = "predicted_",
        all_scores: bool = False,
        skip_bad_rows: bool = False,
        num_threads: int | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(model, str):
            kind = type(model).__name__
            said = f"BatchScorer loads a model by name or folder in each worker; it cannot take a {kind}."
            raise InputError(said, field="model")
        self.model, self.text_column, self.prefix, self.all_scores = model, text_column, prefix, all_scores
        self.skip_bad_rows, self.num_threads, self.options = skip_bad_rows, num_threads, options
        self._scorer: Scorer | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_scorer", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._scorer, self._lock = None, threading.Lock()

    @property
    def scorer(self) -> Scorer:
        """The model, loaded."""
        with self._lock:
            if self._scorer is None:
                with torch_threads(self.num_threads or cpus_given()):
                    self._scorer = Scorer(self.model, **self.options)
            return self._scorer

    def __call__(self, batch: Any) -> Any:
        """Return a batch with its predictions.

        Raises:
            InputError: naming the column that is missing or there already, or the first row that is not text.
        """
        predictions = PredictedColumns(self.scorer.labels, self.scorer.problem_type, self.prefix, self.all_scores)
        names = list(batch) if isinstance(batch, Mapping) else _names_of(batch)
        if self.text_column not in names:
            raise unknown_name("column", self.text_column, names)
        there = [name for name in predictions.schema.names if name in names]
        if there:
            raise InputError(f"The batch has a column {there[0]!r} already: choose another prefix.", field=there[0])
        texts = _values(batch, self.text_column)
        faults = list(map(why_not_scored, texts))
        if any(faults) and not self.skip_bad_rows:
            row = next(row for row, fault in enumerate(faults) if fault)
            raise InputError(
                f"Row {row + 1} of a batch: {faults[row]}. Leave it out, or keep it without a prediction by "
                "skip_bad_rows=True.",
                field=self.text_column,
                row=row + 1,
            )
        are_texts = [not fault for fault in faults]
        good = [text for text, is_text in zip(texts, are_texts, strict=True) if is_text]
        columns = predictions.columns(self.scorer.predict_proba(good))
        added = pa.table(
            {name: beside_texts(values, are_texts) for name, values in columns.items()},
            schema=predictions.schema,
        )
        return _with_columns(batch, added)

    def map(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield each batch with its predictions: what Spark's `mapInPandas` and `mapInArrow` call."""
        return map(self, batches)


def cpus_given() -> int:
    """Return how many processors an engine gave to this process; without an engine, how many torch would take.

    Ray, Spark and Dask all say it to their workers by the environment variable OMP_NUM_THREADS.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else torch.get_num_threads()


@contextmanager
def torch_threads(num_threads: int) -> Iterator[None]:
    """Let a scorer that is made here take so many threads, and leave torch's number as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _names_of(batch: Any) -> list[str]:
    if isinstance(batch, pa.Table | pa.RecordBatch):
        return batch.schema.names
    if hasattr(batch, "assign") and hasattr(batch, "columns"):  # of pandas, which need not be installed
        return list(batch.columns)
    raise InputError(f"A batch is a dict of arrays, a pandas frame, or an Arrow table; not a {type(batch).__name__}.")


def _values(batch: Any, column: str) -> list[Any]:
    if isinstance(batch, pa.RecordBatch):
        return batch.column(column).to_pylist()
    values = batch[column]
    if isinstance(values, pa.ChunkedArray | pa.Array):
        return values.to_pylist()
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _with_columns(batch: Any, added: pa.Table) -> Any:
    if isinstance(batch, pa.Table):
        for field, column in zip(added.schema, added.columns, strict=True):
            batch = batch.append_column(field, column)
        return batch
    if isinstance(batch, pa.RecordBatch):
        arrays = [column.combine_chunks() for column in added.columns]
        schema = pa.schema([*batch.schema, *added.schema], batch.schema.metadata)
        return pa.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema)
    columns = {name: _array(added[name]) for name in added.schema.names}
    if isinstance(batch, Mapping):
        return {**batch, **columns}
    # The type that pandas has for strings, where it has one: of no rows it could not find it by itself.
    strings = {field.name for field in added.schema if pa.types.is_string(field.type)}
    return batch.assign(
        **{name: added[name].to_pandas().array if name in strings else column for name, column in columns.items()}
    )


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """Return an array of float32, where nothing is NaN; or of objects, where it is None."""
    if pa.types.is_floating(column.type):
        values = column.to_numpy()
        return values.astype(np.float32)
    array = np.empty(len(column), dtype=object)
    array[:] = column.to_pylist()
    return array
