"""Measure predictions: metrics, each with a 95 % interval.

Every metric is stated once, on how often each document counts: `results(predictions, references, counts)`, `counts` of
shape (r, n). All ones give the metric itself, the counts of a bootstrap resample give one draw of it; so a thousand
resamples cost a few matrix products.

Shapes: n documents, C classes, r resamples. Predictions are probabilities (n, C) (softmax for one label a document,
sigmoid for several) or, for regression, values (n,). References are class ids (n,), zeros and ones (n, C), or for
regression values (n,).

A ratio whose denominator is 0 is 0: the precision of a class never predicted. Metrics of a class without documents
are 0, too, but resamples that happen to have none of it do not count in its interval.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np
from datasets import Features, List, Value
from numpy.typing import ArrayLike

from ..data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from ..errors import InputError

Results = dict[str, np.ndarray]

NUM_BINS = 15
"""Equal-width bins of the calibration error."""

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
"""A smaller probability counts as this one in the log-loss (a loss of 36), where its logarithm would be infinite."""

COUNTS_PER_BLOCK = 2_000_000
"""Resamples are drawn in blocks of about this many counts: 16 MB."""

LOWEST_TEMPERATURE = 0.2
HIGHEST_TEMPERATURE = 20.0
"""A validation split predicted without error would have T fall to 0, one predicted by chance have it grow for ever.
The lower bound is the nearer to 1, since too low a temperature makes every later error a certain one."""

NUM_BISECTIONS = 60
"""Enough to exhaust float64."""

NUM_SLICES = 20
"""The most values of a column that are sliced apart; further values are banded (numbers) or pooled (names)."""

NUM_BANDS = 5
"""Quantile bands for a column of many different numbers."""


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator != 0)


def _indicators(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell which classes are predicted and which are true, as two boolean arrays of shape (n, C)."""
    if labels.ndim == 2:
        return probabilities >= 0.5, labels >= 0.5
    classes = np.arange(probabilities.shape[1])
    return probabilities.argmax(axis=1)[:, None] == classes, labels[:, None] == classes


def _precision_recall_f1(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> Results:
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, true),
        "f1": _ratio(2 * hits, predicted + true),
    }


class CountedMetric(evaluate.Metric):
    """An `evaluate.Metric` that is stated on how often each document counts.

    It is kept in memory and leaves no file; `evaluate.combine([Accuracy(), LogLoss()])` works without a network.
    """

    feature_choices: ClassVar[list[Features]]

    def __init__(self, **options: Any) -> None:
        super().__init__(keep_in_memory=True, **options)

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        """Compute the named values, each of shape (r,) or (r, C), from counts of shape (r, n)."""
        raise NotImplementedError

    def _build_data_dir(self) -> str:
        return ""  # evaluate makes a cache folder even for what is kept in memory

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(description=type(self).__doc__ or "", citation="", features=self.feature_choices)

    def _compute(self, *, predictions: ArrayLike, references: ArrayLike, **_: Any) -> dict[str, Any]:
        references = np.asarray(references)
        results = self.results(np.asarray(predictions), references, np.ones((1, len(references))))
        return {name: values[0].tolist() for name, values in results.items()}


class ClassificationMetric(CountedMetric):
    """A metric of probabilities against one label a document, or several."""

    feature_choices: ClassVar[list[Features]] = [
        Features({"predictions": List(Value("float64")), "references": List(Value("int64"))}),
        Features({"predictions": List(Value("float64")), "references": Value("int64")}),
    ]


class RegressionMetric(CountedMetric):
    """A metric of values against values."""

    feature_choices: ClassVar[list[Features]] = [
        Features({"predictions": Value("float64"), "references": Value("float64")})
    ]


class Accuracy(ClassificationMetric):
    """Share of documents whose most probable class is the true one; with several labels, of those with all right."""

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        predicted, true = _indicators(predictions, references)
        return {"accuracy": counts @ (predicted == true).all(axis=1) / counts.sum(axis=1)}


class PerClass(ClassificationMetric):
    """Precision, recall and F1 of every class, in the order of the class ids; NaN of a class without documents."""

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        predicted, true = _indicators(predictions, references)
        num_documents = counts @ true  # (r, C)
        figures = _precision_recall_f1(counts @ (predicted & true), counts @ predicted, num_documents)
        return {name: np.where(num_documents > 0, values, np.nan) for name, values in figures.items()}


class MacroPrecisionRecallF1(ClassificationMetric):
    """Means of the classes' precision, recall and F1 over the classes that have documents.

    A class without documents has no recall, and what is wrongly given to it already costs the other classes theirs.
    """

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        per_class = PerClass.results(predictions, references, counts)
        return {
            f"macro_{name}": _ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))
            for name, values in per_class.items()
        }


class MicroPrecisionRecallF1(ClassificationMetric):
    """Precision, recall and F1 over all labels of all documents; with one label a document they equal the accuracy."""

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        predicted, true = _indicators(predictions, references)
        totals = (counts @ (predicted & true).sum(axis=1), counts @ predicted.sum(axis=1), counts @ true.sum(axis=1))
        return {f"micro_{name}": values for name, values in _precision_recall_f1(*totals).items()}


class LogLoss(ClassificationMetric):
    """Mean of -log p(true class) in nats; with several labels, the mean over the labels too."""

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        if references.ndim == 2:
            p_true = np.where(references >= 0.5, predictions, 1 - predictions)
        else:
            p_true = np.take_along_axis(predictions, references[:, None], axis=1)
        loss = -np.log(np.clip(p_true, SMALLEST_PROBABILITY, 1)).mean(axis=1)
        return {"log_loss": counts @ loss / counts.sum(axis=1)}


class CalibrationError(ClassificationMetric):
    """Expected calibration error of the top probability: sum over 15 equal-width bins of |right - expected| / n.

    The bins are ((b - 1) / 15, b / 15], as in Guo et al. (2017), eq. 3.
    """

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        confidence = predictions.max(axis=1)
        right = predictions.argmax(axis=1) == references
        bins = np.clip(np.ceil(confidence * NUM_BINS) - 1, 0, NUM_BINS - 1)
        surplus = (bins[:, None] == np.arange(NUM_BINS)) * (right - confidence)[:, None]  # (n, bins)
        return {"calibration_error": np.abs(counts @ surplus).sum(axis=1) / counts.sum(axis=1)}


class MeanSquaredError(RegressionMetric):
    """Mean squared error."""

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        return {"mse": counts @ (predictions - references) ** 2 / counts.sum(axis=1)}


class MeanAbsoluteError(RegressionMetric):
    """Mean absolute error."""

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        return {"mae": counts @ np.abs(predictions - references) / counts.sum(axis=1)}


class RSquared(RegressionMetric):
    """Share of the references' variance that is explained; where they do not vary, 1 if all are met and 0 if not."""

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        residual = counts @ (predictions - references) ** 2
        means = counts @ references / counts.sum(axis=1)
        total = (counts * (references - means[:, None]) ** 2).sum(axis=1)
        highest = np.where(counts > 0, references, -np.inf).max(axis=1)
        lowest = np.where(counts > 0, references, np.inf).min(axis=1)
        varies = highest > lowest  # exact, where `total` may round to 1e-33
        return {"r2": np.where(varies, 1 - _ratio(residual, total), residual == 0)}


class Spearman(RegressionMetric):
    """Spearman's rank correlation with mid-ranks for ties; 0 where predictions or references do not vary."""

    @staticmethod
    def results(predictions: np.ndarray, references: np.ndarray, counts: np.ndarray) -> Results:
        a, b = (Spearman._centred_ranks(values, counts) for values in (predictions, references))
        covariance = (counts * a * b).sum(axis=1)
        return {"spearman": _ratio(covariance, np.sqrt((counts * a**2).sum(axis=1) * (counts * b**2).sum(axis=1)))}

    @staticmethod
    def _centred_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Rank the documents of each resample, less the mean rank: half of how many lie below minus how many above."""
        order = np.argsort(values, kind="stable")
        _, first, group = np.unique(values[order], return_index=True, return_inverse=True)
        tied = np.add.reduceat(counts[:, order], first, axis=1)  # (r, different values)
        up_to = np.cumsum(tied, axis=1)
        centred = (2 * up_to - tied - up_to[:, -1:]) / 2
        ranks = np.empty_like(counts)
        ranks[:, order] = centred[:, group]
        return ranks


METRICS: dict[str, list[type[CountedMetric]]] = {
    SINGLE_LABEL: [Accuracy, MacroPrecisionRecallF1, LogLoss, CalibrationError],
    MULTI_LABEL: [Accuracy, MacroPrecisionRecallF1, MicroPrecisionRecallF1, LogLoss],
    REGRESSION: [MeanSquaredError, MeanAbsoluteError, RSquared, Spearman],
}
"""What is measured, by the model's `problem_type`."""

SLICE_METRICS = ("accuracy", "macro_f1", "mae")
"""What is reported of a slice: of these, the metrics that its problem type has."""


def to_probabilities(logits: ArrayLike, problem_type: str) -> np.ndarray:
    """Turn logits (n, C) into what `measure` takes: probabilities (n, C), or a regression's values (n,) unchanged."""
    scores = np.asarray(logits, dtype=np.float64)
    if problem_type == REGRESSION:
        return scores.reshape(len(scores))
    if problem_type == MULTI_LABEL:
        return (1 + np.tanh(scores / 2)) / 2  # the sigmoid, where exp() could overflow
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def metric_names(problem_type: str) -> list[str]:
    """Return the names of the metrics that [`combined_metrics`] gives."""
    references = {SINGLE_LABEL: np.arange(2), MULTI_LABEL: np.eye(2), REGRESSION: np.arange(2.0)}[problem_type]
    predictions = np.arange(2.0) if problem_type == REGRESSION else np.eye(2)
    counts = np.ones((1, 2))
    return [name for metric in METRICS[problem_type] for name in metric.results(predictions, references, counts)]


def combined_metrics(problem_type: str) -> evaluate.CombinedEvaluations:
    """Combine the metrics of a problem type: `.compute(predictions=, references=)` gives one flat dict of floats."""
    return evaluate.combine([metric() for metric in METRICS[problem_type]])


def measure(
    predictions: ArrayLike,
    references: ArrayLike,
    problem_type: str,
    label_names: Sequence[str] = (),
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure predictions, each metric with its percentile bootstrap 95 % interval over documents.

    The interval is widened to hold its value where resampling shifts the metric (a calibration error only grows by
    it). Where no document goes wrong it is one point wide, however few there are: read it together with n.

    Args:
        predictions: probabilities (n, C); for regression, values (n,) or (n, 1).
        references: class ids (n,), zeros and ones (n, C), or values (n,) or (n, 1).
        problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
        label_names: the C class names; unused for regression.
        num_resamples: bootstrap resamples, the same for all metrics.
        seed: seed of the resamples.

    Returns:
        What JSON can hold: `n`, each metric as `{"value", "low", "high", "n"}`, and for classification `per_class`:
        precision, recall and F1 under each class name, where n counts the class's own documents, and the resamples
        are those that have some.

    Raises:
        InputError: if there are no rows, or a prediction is not a finite number.
    """
    predictions, references = _as_arrays(predictions, references, problem_type)
    metrics = METRICS[problem_type]
    n = len(references)
    if problem_type == REGRESSION:
        return {"n": n} | _with_intervals(metrics, predictions, references, num_resamples, seed)
    values = _with_intervals([*metrics, PerClass], predictions, references, num_resamples, seed)
    columns = {name: values.pop(name) for name in ("precision", "recall", "f1")}  # each a list over the classes
    num_documents = _indicators(predictions, references)[1].sum(axis=0).tolist()
    per_class = {
        label: {name: column[index] | {"n": count} for name, column in columns.items()}
        for index, (label, count) in enumerate(zip(label_names, num_documents, strict=True))
    }
    return {"n": n} | values | {"per_class": per_class}


def measure_calibration(
    predictions: ArrayLike, references: ArrayLike, problem_type: str, num_resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Measure the calibration error alone, and the same as [`measure`] does."""
    predictions, references = _as_arrays(predictions, references, problem_type)
    return _with_intervals([CalibrationError], predictions, references, num_resamples, seed)["calibration_error"]


def written(metric: Mapping[str, float]) -> str:
    """Write a metric of `measure` with its interval for people: `0.9068 (0.9032 to 0.9104)`."""
    return f"{metric['value']:.4f} ({metric['low']:.4f} to {metric['high']:.4f})"


def measure_slices(
    predictions: ArrayLike,
    references: ArrayLike,
    problem_type: str,
    columns: Mapping[str, Sequence[Any]],
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Measure the documents of each value of each column apart.

    A column of more than 20 different numbers is cut into five quantile bands; of more than 20 different names, the
    19 most frequent stay and the rest are "(other)". Rows without a value, or with an empty one, are "(missing)".

    Args:
        predictions, references, problem_type, num_resamples, seed: as in `measure`.
        columns: n values for each column name.

    Returns:
        For each column, for each of its values (numbers ascending, names by frequency): `n` and, as `measure` gives
        them, accuracy and macro-F1, or for regression the mean absolute error.
    """
    predictions, references = _as_arrays(predictions, references, problem_type)
    metrics = METRICS[problem_type]

    def measured(rows: np.ndarray) -> dict[str, Any]:
        values = _with_intervals(metrics, predictions[rows], references[rows], num_resamples, seed)
        return {"n": len(rows)} | {name: values[name] for name in SLICE_METRICS if name in values}

    return {
        column: {name: measured(rows) for name, rows in slice_rows(values).items()}
        for column, values in columns.items()
    }


def slice_rows(values: Sequence[Any]) -> dict[str, np.ndarray]:
    """Name the slices of a column and list the rows of each; see `measure_slices`."""
    # NaN differs from itself
    is_missing = np.array([value in (None, "") or value != value for value in values], dtype=bool)
    rows = np.flatnonzero(~is_missing)
    values_present = [values[int(row)] for row in rows]
    is_numeric = all(isinstance(value, (int, float)) for value in values_present)
    present = np.array(values_present if is_numeric else [str(value) for value in values_present])
    slices = _number_slices(present) if present.dtype.kind in "iuf" else _name_slices(present.astype(str))
    named = {name: rows[inside] for name, inside in slices.items()}
    if is_missing.any():  # a value may be called so, too
        named["(missing)"] = np.union1d(named.get("(missing)", []), np.flatnonzero(is_missing)).astype(int)
    return named


def _number_slices(values: np.ndarray) -> dict[str, np.ndarray]:
    distinct = np.unique(values)
    if len(distinct) <= NUM_SLICES:
        return {name: values == value for name, value in zip(_names_of(distinct), distinct, strict=True)}
    quantiles = np.quantile(values, np.arange(NUM_BANDS + 1) / NUM_BANDS, method="inverted_cdf")  # values that occur
    band = np.searchsorted(np.unique(quantiles)[1:], values)
    bands = [band == index for index in range(band.max() + 1)]
    ends = np.unique([end(values[inside]) for inside in bands for end in (np.min, np.max)])
    name_of = dict(zip(ends.tolist(), _names_of(ends), strict=True))
    return {
        f"{name_of[values[inside].min().item()]} to {name_of[values[inside].max().item()]}": inside for inside in bands
    }


def _names_of(numbers: np.ndarray) -> list[str]:
    """Write different numbers as people do, whole ones without a point, with as many digits as tell them apart."""
    for digits in (6, 9, 12):
        names = [str(int(number)) if float(number).is_integer() else f"{number:.{digits}g}" for number in numbers]
        if len(set(names)) == len(names):
            return names
    return [repr(number) for number in numbers.tolist()]


def _name_slices(values: np.ndarray) -> dict[str, np.ndarray]:
    names = [str(name) for name, _ in Counter(values).most_common()]
    kept = names if len(names) <= NUM_SLICES else names[: NUM_SLICES - 1]
    slices = {name: values == name for name in kept}
    others = ~np.isin(values, kept)
    if others.any():
        slices["(other)"] = others | slices.get("(other)", False)
    return slices


def _as_arrays(predictions: ArrayLike, references: ArrayLike, problem_type: str) -> tuple[np.ndarray, np.ndarray]:
    values, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references)
    if len(labels) == 0:
        raise InputError("There are no rows to measure: the split is empty.")
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        row, count = int(np.argmin(finite)), int((~finite).sum())
        raise InputError(
            f"The model's output for row {row} is not a finite number ({count} such rows): its training diverged. "
            "Lower the learning rate and train again."
        )
    if problem_type == REGRESSION:
        return values.reshape(len(labels)), labels.reshape(len(labels)).astype(np.float64)
    return values, labels


def resample_counts(num_documents: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield, in blocks of shape (r, n), how often each bootstrap resample draws each document."""
    generator = np.random.default_rng(seed)
    block = max(1, COUNTS_PER_BLOCK // num_documents)
    for start in range(0, num_resamples, block):
        drawn = generator.integers(num_documents, size=(min(block, num_resamples - start), num_documents))
        yield np.stack([np.bincount(row, minlength=num_documents) for row in drawn]).astype(np.float64)


def _with_intervals(
    metrics: Sequence[type[CountedMetric]],
    predictions: np.ndarray,
    references: np.ndarray,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    def results(counts: np.ndarray) -> Results:
        named = [metric.results(predictions, references, counts) for metric in metrics]
        return {name: values for part in named for name, values in part.items()}

    n = len(references)
    whole = results(np.ones((1, n)))
    blocks = [results(counts) for counts in resample_counts(n, num_resamples, seed)]
    return {name: interval(whole[name][0], np.concatenate([block[name] for block in blocks]), n) for name in whole}


def interval(value: np.ndarray, draws: np.ndarray, n: int) -> Any:
    """Put a value beside its interval; per-class values, draws of shape (r, C), give a list of C.

    Draws that are NaN do not count; a value that is NaN is 0.
    """
    if value.ndim == 1:
        return [interval(value[index], draws[:, index], n) for index in range(len(value))]
    value, draws = np.nan_to_num(value), draws[~np.isnan(draws)]
    low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) else (value, value)
    return {"value": float(value), "low": float(min(low, value)), "high": float(max(high, value)), "n": n}


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature T in [0.2, 20] whose logits / T have the lowest log-loss (Guo et al. 2017).

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


def is_bound(temperature: float) -> bool:
    """Tell whether a temperature is the lowest or the highest that [`fit_temperature`] finds: the best lies beyond."""
    return not LOWEST_TEMPERATURE * 1.001 < temperature < HIGHEST_TEMPERATURE * 0.999
