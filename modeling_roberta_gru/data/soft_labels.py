"""A teacher's rows: each has a probability for every class instead of a label."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ..arguments import DataArguments
from ..errors import InputError, unknown_name
from .documents import Documents, Reader, columns_of
from .labels import SCORE_PREFIX, LabelSpace, listed, to_number
from .tables import Chunk, Table, open_table

TOLERANCE = 1e-3
"""How far from 1 the probabilities of a row may sum: they may have been rounded."""


def read_soft(args: DataArguments, labels: LabelSpace) -> Documents:
    """Read the files that `args.soft_train_file` names.

    Args:
        args: the options.
        labels: the C classes.

    Returns:
        Documents whose labels are (C,) float32 and sum to 1; row 17 (from 0, over all files) is "soft:17".

    Raises:
        InputError: if a file does not have a probability for each class and no other, rows are bad and
            `args.on_bad_row` is "error", or no row is left.
    """
    reader = _SoftReader(args, labels)
    for path in args.soft_train_file or ():
        reader.read(open_table(path, args))
    if not reader.spool.num_rows:
        raise InputError(
            f"No row of --soft_train_file is usable: {'; '.join(reader.skipped)}.", field="soft_train_file"
        )
    return reader.documents()


class _SoftReader(Reader):
    """Gathers rows whose labels are distributions."""

    def __init__(self, args: DataArguments, labels: LabelSpace):
        alone: dict[str, Any] = dict.fromkeys(("group_column", "split_column", "test_fold", "validation_fold"))
        super().__init__("soft", replace(args, **alone), ())
        self.classes = labels.names
        self.columns = [f"{SCORE_PREFIX}{name}" for name in self.classes]
        self.has_lists = False

    def read(self, table: Table) -> None:
        self.has_lists = self._find_lists(table)
        self.used = [*self.args.text_column, *(self.args.label_column if self.has_lists else self.columns)]
        super().read(table)

    def _find_lists(self, table: Table) -> bool:
        """Tell whether the label column holds the probabilities, and not a column of each class."""
        found, column = next(columns_of(table), []), self.args.label_column[0]
        scores = [name for name in found if name.startswith(SCORE_PREFIX)]
        if not found or (column in found and not set(scores) & set(self.columns)):
            return True
        for name in scores:
            if name not in {*self.columns, *self.args.text_column}:
                label = name.removeprefix(SCORE_PREFIX)
                problem = unknown_name(f"label in column {name!r} of {table.name}:", label, self.classes)
                raise InputError(f"{problem} Rename or drop the column.", field=name, file=table.name)
        if scores:
            return False
        raise InputError(
            f"{table.name} has no probabilities: neither a column for each label ({', '.join(self.columns[:3])} …), "
            f"as `roberta-gru score --all-scores` writes them, nor lists in a column {column!r}. Name that of the "
            "lists by --label_column.",
            field=column,
            file=table.name,
        )

    def _labels(self, chunk: Chunk, names: list[str] | None, faults: dict[int, str]) -> pa.Array:
        rows = self._lists(chunk, faults) if self.has_lists else zip(*map(chunk.values, self.columns), strict=True)
        numbers = [[to_number(item) for item in row] for row in rows]  # None becomes NaN
        given = np.array(numbers, dtype=np.float64).reshape(-1, len(self.classes))
        for at, place in zip(*np.nonzero(~np.isfinite(given) | (given < 0)), strict=True):
            what = "negative" if given[at, place] < 0 else "missing or not a number"
            faults.setdefault(int(at), f"the probability of {self.classes[place]!r} is {what}")
        for at in np.flatnonzero(~(abs(np.minimum(given, 2).sum(axis=1) - 1) <= TOLERANCE)):
            faults.setdefault(int(at), "the probabilities do not sum to 1")
        given[list(faults)] = 1  # they are left out
        shares = given.astype(np.float32).astype(np.float64)  # so that 0.1 is one number, read as text or float32
        shares = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
        offsets = pa.array(np.arange(len(shares) + 1) * len(self.classes), pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(shares.reshape(-1)))

    def _lists(self, chunk: Chunk, faults: dict[int, str]) -> Iterator[Sequence[Any]]:
        """Yield the list of each row, one of zeros where there is none of C numbers."""
        column, size = self.args.label_column[0], len(self.classes)
        for at, value in enumerate(chunk.values(column)):
            value = value.tolist() if hasattr(value, "tolist") else value
            items = listed(value) if isinstance(value, str) else value
            if not isinstance(items, list | tuple):
                faults.setdefault(
                    at, f"{column} is not a list of {size} probabilities, and there is no {self.columns[0]!r}"
                )
            elif len(items) != size:
                faults.setdefault(at, f"{column} is a list of {len(items)}, and there are {size} labels")
            yield items if at not in faults and items is not None else [0.0] * size
