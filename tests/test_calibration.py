from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from modeling_roberta_gru import experiment
from modeling_roberta_gru.data.labels import SINGLE_LABEL
from modeling_roberta_gru.training.metrics import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, fit_temperature, is_bound


def log_loss(logits, labels, temperature=1.0):
    scaled = logits / temperature
    log_normaliser = np.logaddexp.reduce(scaled, axis=1)
    return float((log_normaliser - scaled[np.arange(len(labels)), labels]).mean())


def draw_labels(generator, logits):
    """Draw labels for which `logits` are perfectly calibrated."""
    gumbel = generator.gumbel(size=logits.shape)
    return (logits + gumbel).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("num_labels", [2, 7])
def test_a_known_temperature_is_recovered(temperature, num_labels):
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2, size=(20_000, num_labels))
    labels = draw_labels(generator, logits)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("seed", range(10))
def test_no_other_temperature_has_a_lower_log_loss(seed):
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=generator.uniform(0.1, 10), size=(60, 3))
    labels = np.where(generator.random(60) < 0.7, logits.argmax(axis=1), generator.integers(3, size=60))
    fitted = log_loss(logits, labels, fit_temperature(logits, labels))
    for temperature in [1.0, *np.geomspace(LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE, 200)]:
        assert fitted <= log_loss(logits, labels, temperature) + 1e-12


def test_the_order_of_the_classes_stays():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(500, 4))
    temperature = fit_temperature(logits, generator.integers(4, size=500))
    assert (np.argsort(logits / temperature) == np.argsort(logits)).all()


def test_equal_input_gives_the_equal_temperature():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(100, 3)), generator.integers(3, size=100)
    assert fit_temperature(logits, labels) == fit_temperature(logits.copy(), labels.tolist())


def test_a_split_without_errors_ends_at_the_lower_bound():
    logits = np.array([[3.0, -3.0], [-3.0, 3.0]])
    assert fit_temperature(logits, [0, 1]) == pytest.approx(LOWEST_TEMPERATURE)


def test_a_split_that_is_always_wrong_ends_at_the_upper_bound():
    logits = np.array([[3.0, -3.0], [-3.0, 3.0]])
    assert fit_temperature(logits, [1, 0]) == pytest.approx(HIGHEST_TEMPERATURE)


def test_huge_logits_do_not_overflow():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]])
    assert fit_temperature(logits, [0, 1, 1]) == pytest.approx(HIGHEST_TEMPERATURE)


def test_a_temperature_at_its_bound_is_told_from_one_that_was_found():
    right = np.eye(2)[[0, 1] * 20]
    assert is_bound(fit_temperature(right, [0, 1] * 20))
    assert is_bound(fit_temperature(right, [1, 0] * 20))
    assert not is_bound(fit_temperature(right, [0, 1] * 15 + [1, 0] * 5))


@pytest.mark.parametrize(("num_wrong", "is_kept"), [(0, True), (40, True), (5, False)])
def test_the_temperature_of_a_run_stays_at_1_where_the_best_is_at_a_bound(num_wrong, is_kept, caplog):
    labels = np.arange(40) % 2
    logits = 4.0 * np.eye(2)[np.where(np.arange(40) < num_wrong, 1 - labels, labels)]
    trained = SimpleNamespace(
        splits=SimpleNamespace(
            labels=SimpleNamespace(problem_type=SINGLE_LABEL), validation=Dataset.from_dict({"label": labels})
        ),
        architecture=SimpleNamespace(has_temperature=True),
        validation_logits=logits,
    )
    temperature = experiment._fit_temperature(trained)
    assert (temperature == 1, "stays at 1" in caplog.text) == (is_kept, is_kept)
