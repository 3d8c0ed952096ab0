"""Fit the temperature that makes probabilities honest (Guo et al. 2017, On Calibration of Modern Neural Networks)."""

import numpy as np
from numpy.typing import ArrayLike

LOWEST_TEMPERATURE = 0.2
HIGHEST_TEMPERATURE = 20.0
"""A validation split predicted without error would have T fall to 0, one predicted by chance have it grow for ever.
The lower bound is the nearer to 1, since too low a temperature makes every later error a certain one."""

NUM_BISECTIONS = 60
"""Enough to exhaust float64."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature T in [0.2, 20] whose logits / T have the lowest log-loss.

    The log-loss is convex in 1/T, so its slope changes sign at most once: bisection on log T finds where.

    Args:
        logits: validation logits at temperature 1, (n, C).
        labels: class ids, (n,).
    """
    scores = np.asarray(logits, dtype=np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)  # so that exp() stays finite
    true_scores = np.take_along_axis(scores, np.asarray(labels)[:, None], axis=1)
    low, high = np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE)
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        weights = np.exp(scores / np.exp(middle))
        expected_scores = (weights * scores).sum(axis=1) / weights.sum(axis=1)
        # d log-loss / d(1/T) = E[score] - score of the truth; positive where the logits are too sure: T must grow
        if expected_scores.mean() > true_scores.mean():
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))
