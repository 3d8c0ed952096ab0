import json
from pathlib import Path

import evaluate
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.training.metrics import (
    METRICS,
    Accuracy,
    CalibrationError,
    LogLoss,
    MacroPrecisionRecallF1,
    PerClass,
    RSquared,
    Spearman,
    combined_metrics,
    measure,
    measure_calibration,
    measure_slices,
    metric_names,
    slice_rows,
    to_probabilities,
    written,
)

SINGLE, MULTI, REGRESSION = METRICS
PRF = ("precision", "recall", "f1")


def draw_single(seed, n=200, num_labels=3):
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_labels, size=n)
    logits = generator.normal(size=(n, num_labels)) + 1.5 * (labels[:, None] == np.arange(num_labels))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def draw_multi(seed, n=200, num_labels=4):
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=(n, num_labels))
    return np.clip(0.3 * labels + 0.7 * generator.random((n, num_labels)), 0, 1), labels


def draw_regression(seed, n=200):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=n).round(1)  # rounded: ranks have ties
    return (values + generator.normal(size=n)).round(1), values


DRAWS = {SINGLE: draw_single, MULTI: draw_multi, REGRESSION: draw_regression}


def sklearn_figures(predictions, references, problem_type):
    """Every figure of `measure` by scikit-learn and scipy."""
    if problem_type == REGRESSION:
        return {
            "mse": sklearn_metrics.mean_squared_error(references, predictions),
            "mae": sklearn_metrics.mean_absolute_error(references, predictions),
            "r2": sklearn_metrics.r2_score(references, predictions),
            "spearman": stats.spearmanr(references, predictions).statistic,
        }
    predicted = predictions.argmax(axis=1) if references.ndim == 1 else predictions >= 0.5
    occurring = np.unique(references) if references.ndim == 1 else np.flatnonzero(references.any(axis=0))
    triples = {
        f"{average}_": sklearn_metrics.precision_recall_fscore_support(
            references, predicted, labels=labels, average=average, zero_division=0
        )[:3]
        for average, labels in [("macro", occurring), ("micro", None)]
    }
    figures = {
        prefix + name: value for prefix, triple in triples.items() for name, value in zip(PRF, triple, strict=True)
    }
    figures["accuracy"] = sklearn_metrics.accuracy_score(references, predicted)
    if references.ndim == 1:
        figures["log_loss"] = sklearn_metrics.log_loss(references, predictions, labels=range(predictions.shape[1]))
        figures["calibration_error"] = calibration_error(predictions, references)
    else:
        columns = zip(references.T, predictions.T, strict=True)
        figures["log_loss"] = np.mean([sklearn_metrics.log_loss(true, p, labels=[0, 1]) for true, p in columns])
    return figures


def calibration_error(probabilities, labels):
    """Guo et al. (2017), eq. 3, one bin at a time."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def names(predictions):
    return [f"class {index}" for index in range(predictions.shape[-1])]


@pytest.mark.parametrize("problem_type", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_those_of_scikit_learn(problem_type, seed):
    predictions, references = DRAWS[problem_type](seed)
    expected = sklearn_figures(predictions, references, problem_type)
    for name, value in combined_metrics(problem_type).compute(predictions=predictions, references=references).items():
        assert value == pytest.approx(expected[name], abs=1e-12), name


@pytest.mark.parametrize("problem_type", METRICS)
def test_counts_weigh_documents_as_repeating_them_would(problem_type):
    predictions, references = DRAWS[problem_type](0)
    rows = np.random.default_rng(1).integers(len(references), size=(3, len(references)))
    counts = np.stack([np.bincount(drawn, minlength=len(references)) for drawn in rows]).astype(float)
    for metric in METRICS[problem_type]:
        for name, values in metric.results(predictions, references, counts).items():
            for drawn, value in zip(rows, values, strict=True):
                expected = sklearn_figures(predictions[drawn], references[drawn], problem_type)[name]
                assert value == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("draw", [draw_single, draw_multi])
def test_per_class_figures_equal_those_of_scikit_learn(draw):
    predictions, references = draw(0)
    predicted = predictions.argmax(axis=1) if references.ndim == 1 else predictions >= 0.5
    expected = sklearn_metrics.precision_recall_fscore_support(references, predicted)
    figures = PerClass().compute(predictions=predictions, references=references)
    measured = measure(predictions, references, SINGLE if references.ndim == 1 else MULTI, names(predictions), 20)
    for name, values in zip(PRF, expected, strict=False):
        np.testing.assert_allclose(figures[name], values, atol=1e-12)
        for label, value, count in zip(names(predictions), values, expected[3], strict=True):
            assert measured["per_class"][label][name]["value"] == pytest.approx(value, abs=1e-12)
            assert measured["per_class"][label][name]["n"] == count


@pytest.mark.parametrize("problem_type", METRICS)
def test_the_measure_holds_the_metrics_values_inside_their_intervals(problem_type):
    predictions, references = DRAWS[problem_type](0)
    figures = combined_metrics(problem_type).compute(predictions=predictions, references=references)
    measured = measure(predictions, references, problem_type, names(predictions), num_resamples=100)
    assert set(measured) - {"n", "per_class"} == set(figures)
    for name, value in figures.items():
        assert measured[name]["value"] == pytest.approx(value, abs=1e-12)
        assert measured[name]["low"] <= measured[name]["value"] <= measured[name]["high"]
        assert measured[name]["low"] < measured[name]["high"]
        assert measured[name]["n"] == 200


@pytest.mark.parametrize("problem_type", METRICS)
def test_the_measure_is_ready_for_json(problem_type):
    predictions, references = DRAWS[problem_type](0)
    measured = measure(predictions, references, problem_type, names(predictions), num_resamples=10)
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    predictions, references = draw_regression(0)
    first, second, third = (measure(predictions, references, REGRESSION, num_resamples=50, seed=s) for s in (0, 0, 1))
    assert first == second
    assert first["mse"]["low"] != third["mse"]["low"]
    assert first["mse"]["value"] == third["mse"]["value"]


def test_the_blocks_of_resamples_do_not_change_the_intervals(monkeypatch):
    predictions, references = draw_single(0)
    in_one_block = measure(predictions, references, SINGLE, names(predictions), num_resamples=50)
    monkeypatch.setattr("modeling_roberta_gru.training.metrics.COUNTS_PER_BLOCK", 600)
    in_many = measure(predictions, references, SINGLE, names(predictions), num_resamples=50)
    assert in_one_block["accuracy"] == in_many["accuracy"]
    assert in_one_block["log_loss"] == pytest.approx(in_many["log_loss"], abs=1e-12)


def test_about_95_of_100_intervals_hold_the_true_accuracy():
    generator = np.random.default_rng(0)
    true_accuracy, held = 0.8, []
    for seed in range(200):
        is_right = generator.random(200) < true_accuracy
        probabilities = np.where(is_right[:, None], [0.9, 0.1], [0.1, 0.9])
        figure = measure(probabilities, np.zeros(200, dtype=int), SINGLE, ["a", "b"], 200, seed)["accuracy"]
        held.append(figure["low"] <= true_accuracy <= figure["high"])
    assert 0.91 <= np.mean(held) <= 0.98


def test_the_interval_narrows_with_the_root_of_the_number_of_documents():
    widths = []
    for n in (400, 6400):
        accuracy = measure(*draw_single(0, n=n), SINGLE, ["a", "b", "c"])["accuracy"]
        widths.append(accuracy["high"] - accuracy["low"])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.2)


def test_perfect_predictions_score_1_without_width():
    labels = np.array([0, 1, 2, 1])
    measured = measure(np.eye(3)[labels], labels, SINGLE, ["a", "b", "c"], num_resamples=50)
    assert measured["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 4}
    assert measured["macro_f1"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 4}
    assert measured["log_loss"]["value"] == measured["calibration_error"]["value"] == 0


@pytest.mark.parametrize("problem_type", METRICS)
def test_one_row_has_figures(problem_type):
    predictions, references = (values[:1] for values in DRAWS[problem_type](0))
    measured = measure(predictions, references, problem_type, names(predictions) if predictions.ndim == 2 else [], 20)
    json.dumps(measured, allow_nan=False)
    for name in set(measured) - {"n", "per_class"}:
        assert measured[name]["low"] == measured[name]["value"] == measured[name]["high"]


def test_a_class_without_documents_is_left_out_of_macro_averages_and_has_no_recall():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    measured = measure(probabilities, [0, 1, 1, 0], SINGLE, ["a", "b", "absent"], num_resamples=20)
    assert measured["macro_recall"]["value"] == pytest.approx((1 + 1 / 2) / 2)
    assert measured["macro_f1"]["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert measured["per_class"]["absent"]["recall"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 0}


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_a_rare_class_that_is_always_right_has_no_width(problem_type):
    is_rare = np.arange(100) == 7
    references = is_rare.astype(int) if problem_type == SINGLE else np.stack([~is_rare, is_rare], axis=1).astype(int)
    measured = measure(np.stack([~is_rare, is_rare], axis=1), references, problem_type, ["often", "rare"])
    for name in PRF:
        assert measured["per_class"]["rare"][name] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}


@pytest.mark.parametrize("seed", range(6))  # of which some draw no document of the class
def test_a_class_in_no_resample_keeps_its_value(seed):
    probabilities = np.eye(2)[[0, 1, 0, 0]]
    measured = measure(probabilities, [0, 1, 0, 0], SINGLE, ["often", "rare"], num_resamples=1, seed=seed)
    assert measured["per_class"]["rare"]["f1"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}


def test_a_class_never_predicted_has_a_precision_of_0():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    measured = measure(probabilities, [0, 1], SINGLE, ["a", "b"], num_resamples=20)
    assert measured["per_class"]["b"]["precision"]["value"] == 0
    assert measured["macro_precision"]["value"] == pytest.approx(0.25)


def test_several_labels_of_which_none_is_true_or_predicted_score_0():
    figures = combined_metrics(MULTI).compute(predictions=np.full((3, 2), 0.1), references=np.zeros((3, 2), dtype=int))
    assert figures["accuracy"] == 1
    assert figures["micro_f1"] == figures["macro_f1"] == 0


def test_a_probability_of_0_for_the_truth_costs_a_finite_loss():
    figures = LogLoss().compute(predictions=[[1.0, 0.0]], references=[1])
    assert figures["log_loss"] == pytest.approx(36.04, abs=0.01)


def test_probabilities_on_the_bounds_of_bins_belong_to_the_lower_bin():
    probabilities = np.array([[1.0, 0.0], [14.5 / 15, 0.5 / 15]])
    # one bin for both: their errors cancel in part
    assert CalibrationError().compute(predictions=probabilities, references=[0, 1])["calibration_error"] == (
        pytest.approx(abs(0.5 - (1 + 14.5 / 15) / 2))
    )


def test_calibrated_probabilities_have_a_small_calibration_error():
    generator = np.random.default_rng(0)
    top = generator.uniform(0.5, 1, size=20_000)
    probabilities, labels = np.stack([top, 1 - top], axis=1), (generator.random(20_000) > top).astype(int)
    assert measure(probabilities, labels, SINGLE, ["a", "b"], 50)["calibration_error"]["value"] < 0.015
    assert measure(np.sqrt(probabilities), labels, SINGLE, ["a", "b"], 50)["calibration_error"]["low"] > 0.05


@pytest.mark.parametrize(("prediction", "r2"), [(0.1, 1.0), (0.2, 0.0)])
def test_values_that_do_not_vary_have_r2_of_1_or_0_and_no_rank_correlation(prediction, r2):
    data = {"predictions": [prediction] * 7, "references": [0.1] * 7}
    assert RSquared().compute(**data) == {"r2": r2}
    assert Spearman().compute(**data) == {"spearman": 0}


def test_regression_takes_a_column_of_values():
    predictions, references = draw_regression(0)
    as_columns = measure(predictions[:, None], references[:, None], REGRESSION, num_resamples=20)
    assert as_columns == measure(predictions, references, REGRESSION, num_resamples=20)


def test_metrics_combine_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    predictions, references = draw_single(0)
    combined = evaluate.combine([Accuracy(), MacroPrecisionRecallF1(), LogLoss()])
    figures = combined.compute(predictions=predictions, references=references)
    assert set(figures) == {"accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss"}
    assert list(Path().iterdir()) == []


def test_metrics_add_up_over_batches():
    predictions, references = draw_single(0)
    metric = LogLoss()
    for rows in np.array_split(np.arange(200), 7):
        metric.add_batch(predictions=predictions[rows], references=references[rows])
    assert metric.compute() == pytest.approx(LogLoss().compute(predictions=predictions, references=references))


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="no rows to measure"):
        measure(np.zeros((0, 2)), [], SINGLE, ["a", "b"])


def test_outputs_that_are_no_numbers_are_refused_by_row():
    with pytest.raises(InputError, match=r"row 1 is not a finite number \(2 such rows\)"):
        measure([[0.5, 0.5], [np.nan, np.nan], [0.5, np.inf]], [0, 1, 1], SINGLE, ["a", "b"])


def test_softmax_and_sigmoid_survive_huge_logits():
    np.testing.assert_allclose(to_probabilities([[1e4, 0], [0, 0]], SINGLE), [[1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(to_probabilities([[1e4, -1e4], [0, np.log(3)]], MULTI), [[1, 0], [0.5, 0.75]])


def test_probabilities_of_logits_undo_the_logarithm():
    probabilities, _ = draw_single(0)
    np.testing.assert_allclose(to_probabilities(np.log(probabilities) + 3, SINGLE), probabilities, atol=1e-12)


def test_regression_logits_are_the_values():
    assert to_probabilities(np.array([[1.5], [-2.0]], dtype=np.float32), REGRESSION).tolist() == [1.5, -2.0]


def test_the_calibration_error_alone_is_the_one_among_all_metrics() -> None:
    probabilities, references = draw_single(0)
    names = [str(label) for label in range(probabilities.shape[1])]
    among_all = measure(probabilities, references, SINGLE, names, num_resamples=50)["calibration_error"]
    assert measure_calibration(probabilities, references, SINGLE, num_resamples=50) == among_all


def test_figures_are_written_with_their_interval() -> None:
    assert written({"value": 0.90684, "low": 0.9032, "high": 0.91036}) == "0.9068 (0.9032 to 0.9104)"


def test_the_figures_that_can_be_followed_are_those_that_are_computed() -> None:
    for problem_type, references in (
        ("single_label_classification", [0, 1]),
        ("multi_label_classification", [[0, 1], [1, 0]]),
        ("regression", [0.5, 1.5]),
    ):
        predictions = [0.5, 1.0] if problem_type == "regression" else [[0.2, 0.8], [0.6, 0.4]]
        computed = combined_metrics(problem_type).compute(predictions=predictions, references=references)
        assert set(metric_names(problem_type)) == set(computed)


def test_slices_hold_what_the_measure_of_their_rows_holds():
    predictions, references = draw_single(0)
    languages = ["de" if row % 3 else "en" for row in range(200)]
    slices = measure_slices(predictions, references, SINGLE, {"language": languages}, num_resamples=50)
    assert list(slices["language"]) == ["de", "en"]
    for language, figures in slices["language"].items():
        rows = [row for row in range(200) if languages[row] == language]
        whole = measure(predictions[rows], references[rows], SINGLE, ["a", "b", "c"], num_resamples=50)
        assert figures == {name: whole[name] for name in ("n", "accuracy", "macro_f1")}


def test_a_slice_of_one_class_scores_that_class_alone():
    probabilities = np.array([[0.9, 0.1]] * 3 + [[0.1, 0.9]])
    slices = measure_slices(probabilities, [0, 0, 0, 0], SINGLE, {"class": ["a"] * 4}, num_resamples=20)
    assert slices["class"]["a"]["macro_f1"]["value"] == pytest.approx(2 * 3 / (3 + 4))


def test_slices_of_a_regression_hold_the_mean_absolute_error():
    predictions, references = draw_regression(0)
    slices = measure_slices(predictions, references, REGRESSION, {"all": ["yes"] * 200}, num_resamples=20)
    expected = measure(predictions, references, REGRESSION, num_resamples=20)
    assert slices == {"all": {"yes": {"n": 200, "mae": expected["mae"]}}}


def test_many_numbers_are_cut_into_five_bands_of_about_equal_size_in_ascending_order():
    lengths = np.random.default_rng(0).permutation(1000).tolist()
    rows = slice_rows(lengths)
    assert list(rows) == ["0 to 199", "200 to 399", "400 to 599", "600 to 799", "800 to 999"]
    assert sorted(np.concatenate(list(rows.values()))) == list(range(1000))
    assert all(200 <= lengths[row] <= 399 for row in rows["200 to 399"])


def test_a_number_that_fills_several_bands_leaves_no_band_empty():
    rows = slice_rows([7] * 900 + list(range(100, 200)))
    assert all(len(indices) for indices in rows.values())
    assert sum(len(indices) for indices in rows.values()) == 1000


def test_few_numbers_keep_their_values_in_ascending_order():
    assert {name: indices.tolist() for name, indices in slice_rows([10, 9, 10]).items()} == {"9": [1], "10": [0, 2]}


@pytest.mark.parametrize(
    "numbers",
    [
        [0.1234561, 0.1234562, 0.5] * 3,
        [1_700_000_000.5 + 60 * minute for minute in range(100)],
        [13.40495 + 1e-13 * step for step in range(3)],
    ],
)
def test_numbers_that_are_nearly_equal_lose_no_row(numbers):
    assert sorted(np.concatenate(list(slice_rows(numbers).values()))) == list(range(len(numbers)))


def test_many_names_keep_the_nineteen_most_frequent_and_pool_the_others():
    values = [f"film {index}" for index in range(30) for _ in range(30 - index)]
    rows = slice_rows(values)
    assert list(rows) == [*(f"film {index}" for index in range(19)), "(other)"]
    assert len(rows["(other)"]) == sum(range(1, 12))


def test_rows_without_a_value_are_a_slice_of_their_own():
    assert {name: list(rows) for name, rows in slice_rows(["a", None, "a"]).items()} == {"a": [0, 2], "(missing)": [1]}
    assert {name: list(rows) for name, rows in slice_rows([1.5, float("nan")]).items()} == {
        "1.5": [0],
        "(missing)": [1],
    }
    assert {name: list(rows) for name, rows in slice_rows([None, None]).items()} == {"(missing)": [0, 1]}


def test_values_called_like_the_pools_are_kept():
    rows = {name: list(found) for name, found in slice_rows(["(other)", "a", None, "(missing)"]).items()}
    assert rows == {"(other)": [0], "a": [1], "(missing)": [2, 3]}
    names = ["(other)", *(f"film {index}" for index in range(30) for _ in range(2))]
    assert sum(map(len, slice_rows(names).values())) == len(names)
    assert 0 in slice_rows(names)["(other)"]
    assert sum(map(len, slice_rows([*names, "(other)", "(other)"]).values())) == len(names) + 2


def test_truth_values_are_names():
    assert {name: list(rows) for name, rows in slice_rows([True, False, True]).items()} == {
        "True": [0, 2],
        "False": [1],
    }
