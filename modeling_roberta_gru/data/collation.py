"""From rows to batches of training documents that are not read whole, to bound memory."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Value

from ..errors import unknown_name

WINDOW_POLICIES = ("head", "head_tail", "random")


def select_tokens(ids: Sequence[int], num_tokens: int, policy: str, rng: np.random.Generator) -> list[int]:
    """Select the tokens of a document that are read: its first and its last one, and as many between as fit.

    Args:
        ids: the document, `<s>` and `</s>` (or whatever stands first and last) included.
        num_tokens: how many may be read, at least 3; a document that has no more is returned whole.
        policy: "head": those that follow the first; "head_tail": half of them from the start, half from the end, an
            odd one from the start; "random": one stretch, at any place with equal chance.
        rng: where "random" takes its chance from.

    Raises:
        ValueError: if `num_tokens` is less than 3.
        InputError: if there is no such policy.
    """
    if num_tokens < 3:
        raise ValueError(f"`num_tokens` is {num_tokens}; it must be at least 3: first, last, and one between.")
    if policy not in WINDOW_POLICIES:
        raise unknown_name("--window_policy", policy, WINDOW_POLICIES)
    left_out, room = len(ids) - num_tokens, num_tokens - 2
    if left_out <= 0:
        return list(ids)
    if policy == "random":
        start = 1 + int(rng.integers(left_out + 1))
        return [ids[0], *ids[start : start + room], ids[-1]]
    hole = num_tokens - 1 if policy == "head" else 1 + room - room // 2
    return [*ids[:hole], *ids[hole + left_out :]]


def limit_length(dataset: Dataset, num_tokens: int) -> Dataset:
    """Let the column `length` say what a [`SelectingCollator`] of `num_tokens` leaves of each document."""
    lengths = np.minimum(dataset["length"][:], num_tokens)
    return dataset.remove_columns("length").add_column("length", lengths.tolist(), feature=Value("int32"))


class SelectingCollator:
    """Make batches of the selected tokens of training documents.

    A random stretch depends on seed, epoch and the document's own tokens: another one each epoch, the same one after a
    resume, however many workers load the data. Documents of equal tokens get equal stretches.

    Args:
        collator: makes a batch of rows with `input_ids` and `attention_mask`.
        num_tokens: see [`select_tokens`].
        policy: see [`select_tokens`].
        seed: what all chance comes from.
    """

    def __init__(
        self, collator: Callable[[list[dict[str, Any]]], Any], num_tokens: int, policy: str, seed: int
    ) -> None:
        self.collator = collator
        self.num_tokens = num_tokens
        self.policy = policy
        self.seed = seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers may outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next, the first being 0."""
        self.epoch.fill_(epoch)

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        return self.collator([self._select(row) for row in rows])

    def _select(self, row: dict[str, Any]) -> dict[str, Any]:
        ids = row["input_ids"]
        rng = np.random.default_rng([self.seed, self.epoch.item(), zlib.crc32(np.asarray(ids).tobytes())])
        selected = select_tokens(ids, self.num_tokens, self.policy, rng)
        return {**row, "input_ids": selected, "attention_mask": row["attention_mask"][: len(selected)]}
