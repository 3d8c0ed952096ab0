"""In which order documents are read, epoch by epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

LIKE_LENGTHS = 0.1  # lengths that differ by less than this share count as alike


class EpochSampler(Sampler[int]):
    """Read from the shortest document to the longest in the first epochs, then as another sampler says.

    The order depends on seed and epoch alone: it is the same on every rank, which accelerate then gives every n-th
    batch of it, and the same after a resume. (transformers' own length grouping draws from torch's global state, which
    neither ranks nor a resumed run share.)

    Args:
        sampler: the order of the later epochs; one that takes chance from its `generator`, or from nothing.
        seed: what all chance comes from.
        lengths: number of tokens of each document; needed for growing epochs only.
        num_growing_epochs: how many epochs go from short to long.
    """

    def __init__(
        self, sampler: Sampler[int], seed: int, lengths: Sequence[int] = (), num_growing_epochs: int = 0
    ) -> None:
        self.sampler = sampler
        self.seed = seed
        self.lengths = torch.tensor(lengths, dtype=torch.float64)
        self.num_growing_epochs = num_growing_epochs
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next, the first being 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        seed = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1).item()
        generator = torch.Generator().manual_seed(seed)
        if self.epoch < self.num_growing_epochs:
            return iter(growing_order(self.lengths, generator))
        self.sampler.generator = generator  # type: ignore[attr-defined]
        return iter(self.sampler)


def growing_order(lengths: torch.Tensor, generator: torch.Generator) -> list[int]:
    """Order documents by length, those of like length by chance.

    Args:
        lengths: number of tokens of each document, shape (n,).
        generator: what chance comes from.

    Returns:
        The documents' indices, each once.
    """
    chance = torch.rand(len(lengths), generator=generator, dtype=torch.float64)
    return (lengths * (1 + LIKE_LENGTHS * chance)).argsort().tolist()
