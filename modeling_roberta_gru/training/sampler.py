"""In which order documents are read, epoch by epoch."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Read short documents only in the first epochs, more of them in each, then all as another sampler says.

    The first of three growing epochs reads the shortest quarter of the documents, the next one the shorter half, the
    last one three quarters. It takes as many readings as any other epoch, which are spread over the documents evenly.

    The order depends on seed and epoch alone: it is the same on every rank, which accelerate then gives every n-th
    batch of it, and the same after a resume. (transformers' own length grouping draws from torch's global state, which
    neither ranks nor a resumed run share.)

    Args:
        sampler: the order of all documents; one that takes chance from its `generator`, or from nothing.
        seed: what all chance comes from.
        lengths: number of tokens of each document; needed for growing epochs only.
        num_growing_epochs: how many epochs go by before all documents are read.
    """

    def __init__(
        self, sampler: Sampler[int], seed: int, lengths: Sequence[int] = (), num_growing_epochs: int = 0
    ) -> None:
        self.sampler = sampler
        self.seed = seed
        self.by_length = np.argsort(lengths, kind="stable")  # the shortest document first
        self.num_growing_epochs = num_growing_epochs
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next, the first being 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        seed = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1).item()
        self.sampler.generator = torch.Generator().manual_seed(seed)  # type: ignore[attr-defined]
        if self.epoch >= self.num_growing_epochs:
            return iter(self.sampler)
        # Each document gives way to a shorter one in proportion, so that batches of like lengths stay such.
        num_read = math.ceil(len(self) * (self.epoch + 1) / (self.num_growing_epochs + 1))
        rank = self.by_length.argsort()
        return iter(self.by_length[rank[list(self.sampler)] * num_read // len(self)].tolist())
