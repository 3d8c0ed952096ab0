"""Stopping early: what is said after a window, when it is enough, and what is saved."""

import copy
import csv
import json
import threading
import time

import numpy as np
import pytest
import torch

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.configuration_roberta_gru import SUMMARIES
from modeling_roberta_gru.data.labels import MULTI_LABEL, SINGLE_LABEL
from modeling_roberta_gru.inference import scorer as scorer_module
from modeling_roberta_gru.inference.scorer import Scorer
from modeling_roberta_gru.inference.stopping import (
    AGREEMENTS,
    can_stop,
    certainty,
    find_threshold,
    fit_model,
    fit_thresholds,
    least_documents,
    predicted,
    read_by_windows,
    upper_bound,
)

from .refusals import refused
from .test_modeling import encoded_batches
from .test_reader import FAMILIES, long_text
from .tiny import tiny_config

TOKENIZER = FAMILIES["byte_level_bpe"]


def classifier(**fields) -> RobertaGRUForSequenceClassification:
    torch.manual_seed(0)
    fields = {"num_labels": 3, "calibration_temperature": 0.7, "pad_token_id": TOKENIZER.pad_token_id, **fields}
    return RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(TOKENIZER), **fields)).eval()


def documents(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[0, *torch.randint(5, 61, (n - 2,), generator=generator).tolist(), 2] for n in lengths]


def promised(threshold, max_length=None, agreements=AGREEMENTS):
    entry = {"threshold": threshold, "share_read": 0.5, "n": 9, "stopped": 9, "differ": 0, "max_length": max_length}
    return {f"{agreement:g}": dict(entry) for agreement in agreements}


@pytest.mark.parametrize(
    ("fields", "overlap"),
    [
        *(({"summary": summary}, overlap) for summary, overlap in zip(SUMMARIES, (None, 0, 17, 0), strict=True)),
        *(
            ({"summary": "attention", "attention_horizons": [0, 7], "skip_connection": True}, overlap)
            for overlap in (None, 0, 17)
        ),
    ],
)
def test_after_a_window_the_logits_are_those_of_the_text_so_far(fields, overlap):
    model = classifier(window_overlap=overlap, num_gru_layers=2, **fields).double()
    window, stride = model.config.encoder_window, model.config.window_stride
    texts = documents([window + 1, window + 2 * stride, 3 * window + 5, window + stride + 1])
    seen = dict.fromkeys(range(len(texts)), 0)
    for step in read_by_windows(model, texts, at_once=3):
        seen[step.row] += 1
        assert step.num_windows == seen[step.row]
        ids = texts[step.row]
        so_far = [*ids[: step.num_tokens - 1], ids[-1]]
        assert step.is_last == (len(so_far) == len(ids))
        with torch.no_grad():
            expected = model(torch.tensor([so_far])).logits[0]
        # Steps are float32: what rounding leaves of float64.
        np.testing.assert_allclose(step.logits, expected.float().numpy(), rtol=1e-6, atol=1e-6)
    assert list(seen.values()) == [-(-(len(ids) - window) // stride) + 1 for ids in texts]


def simulated(rng, num_documents, num_windows=6):
    """Draw documents whose running log-odds wander: (n, K, 2), exchangeable."""
    steps = rng.normal(0.4, 1.5, (num_documents, num_windows)) * rng.choice([-1, 1], (num_documents, 1))
    odds = steps.cumsum(axis=1)
    return np.stack([np.zeros_like(odds), odds], axis=-1)


def share_differing(running, threshold):
    """Return the share of the stopped documents whose label is not the last one's."""
    early = certainty(running[:, :-1], SINGLE_LABEL) >= threshold
    stops = early.any(axis=1)
    at = early.argmax(axis=1)
    labels = predicted(running, SINGLE_LABEL)
    return (labels[np.arange(len(running)), at] != labels[:, -1])[stops].mean()


def test_a_promise_is_broken_no_more_often_than_its_confidence_allows():
    rng = np.random.default_rng(0)
    population = simulated(rng, 20_000)
    tokens = np.arange(1, 7) * 100
    made = dict.fromkeys(("0.95", "0.975", "0.99"), 0)
    broken = dict(made)
    num_trials = 40
    for _ in range(num_trials):
        running = simulated(rng, 400)
        fitted = fit_thresholds(running, [tokens] * 400, SINGLE_LABEL, None, np.full(400, 600))
        for name in made:
            threshold = fitted[name]["threshold"]
            if threshold is not None:
                made[name] += 1
                broken[name] += share_differing(population, threshold) > 1 - float(name)
    assert made["0.95"] > 20
    for name, times in broken.items():
        # 5 %, and what chance adds to it in so many trials.
        assert times / num_trials <= 0.05 + 2.4 * (0.05 * 0.95 / num_trials) ** 0.5, name


def test_a_threshold_below_one_that_fails_is_not_taken_even_if_it_would_pass():
    def documents(number, doubt, keeps_label):
        odds = np.log(1 / doubt - 1)
        return [np.array([[0, odds], [0, odds if keeps_label else -odds]])] * number

    strict, low, lowest = (documents(n, doubt, True) for n, doubt in ((60, 1e-3), (20, 0.02), (2000, 0.1)))
    wrong = documents(5, 0.02, False)

    def fitted(running):
        found = fit_thresholds(
            running, [np.array([9, 18])] * len(running), SINGLE_LABEL, None, np.full(len(running), 18)
        )
        return found["0.95"]

    # So many that stop with the right label make up for the five, and the search is over by then.
    every = fitted([*strict, *wrong, *low, *lowest])
    assert upper_bound(5, 2085) < 0.05 < upper_bound(5, 85)
    assert (every["stopped"], every["differ"]) == (60, 0)
    assert every["threshold"] == fitted([*strict, *wrong, *low])["threshold"] > 0.98


def test_higher_agreements_read_more_and_too_few_documents_promise_nothing():
    rng = np.random.default_rng(1)
    running, tokens = simulated(rng, 6_000), [np.arange(1, 7) * 100] * 6_000
    fitted = fit_thresholds(running, tokens, SINGLE_LABEL, 700, np.full(6_000, 600))
    kept = [entry for entry in fitted.values() if entry["threshold"] is not None]
    assert len(kept) >= 3
    thresholds, shares = ([entry[name] for entry in kept] for name in ("threshold", "share_read"))
    assert thresholds == sorted(thresholds)
    assert shares == sorted(shares)
    assert 1 / 6 < shares[0] < shares[-1] < 1
    entry = fitted["0.95"]
    assert upper_bound(entry["differ"], entry["stopped"]) <= 0.05
    assert share_differing(running, entry["threshold"]) == entry["differ"] / entry["stopped"]
    assert (entry["n"], entry["max_length"]) == (6_000, 700)

    few = fit_thresholds(running[:200], tokens[:200], SINGLE_LABEL, None, np.full(200, 600))
    for name, entry in few.items():
        if least_documents(float(name)) > 200:
            assert (entry["threshold"], entry["share_read"]) == (None, 1.0)
    assert upper_bound(0, least_documents(0.99)) <= 0.01 < upper_bound(0, least_documents(0.99) - 1)


def test_of_several_labels_the_least_certain_decides():
    logits = np.array([[4.0, -5.0, 0.2], [4.0, -5.0, 3.0]])
    low, high = certainty(logits, MULTI_LABEL)
    assert low == pytest.approx(1 / (1 + np.exp(-0.2)))
    assert high == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert predicted(logits, MULTI_LABEL).tolist() == [[True, False, True], [True, False, True]]


def test_documents_within_the_window_count_as_read():
    running = np.tile(np.array([[[0.0, 20.0], [0.0, 20.0]]]), (100, 1, 1))
    fitted = fit_thresholds(running, [np.array([20, 40])] * 100, SINGLE_LABEL, None, np.array([40] * 100 + [10] * 200))
    assert fitted["0.95"]["share_read"] == (100 * 20 + 200 * 10) / (100 * 40 + 200 * 10)
    assert fitted["0.99"]["threshold"] is None


def test_fitting_reads_nothing_where_nothing_can_be_promised():
    model = classifier()
    with encoded_batches(model) as shapes:
        fitted = fit_model(model, documents([50] * 58 + [10] * 100), None)
    assert shapes == []
    assert {entry["threshold"] for entry in fitted.values()} == {None}
    assert fitted["0.95"]["n"] == 158
    fitted = fit_model(model, documents([50] * 70), None)
    assert fitted.keys() == {f"{agreement:g}" for agreement in AGREEMENTS}


# Scoring


@pytest.fixture(scope="module")
def texts():
    return [long_text(n, str(n)) for n in (3, 50, 9, 70, 40, 2, 60, 1, 33)]


def scorer(model, agreement=0.99, **options) -> Scorer:
    return Scorer(model, TOKENIZER, dtype="float32", device="cpu", agreement=agreement, **options)


@pytest.mark.parametrize("tokens_per_batch", [None, 60])
def test_a_document_is_read_until_it_is_certain_and_no_further(texts, tokens_per_batch):
    model = classifier()
    window, stride = model.config.encoder_window, model.config.window_stride
    whole = scorer(model, None, tokens_per_batch=tokens_per_batch)
    ids = whole.tokenize(texts)
    num_windows = [1 if len(row) <= window else -(-(len(row) - window) // stride) + 1 for row in ids]
    steps = list(read_by_windows(model, [row for row in ids if len(row) > window]))
    middle = float(np.median([certainty(step.logits, SINGLE_LABEL) for step in steps]))
    for threshold in (1.0, middle, 0.0):
        model.config.stop_thresholds = promised(threshold)
        stopping_early = scorer(model, tokens_per_batch=tokens_per_batch)
        with encoded_batches(model) as shapes:
            logits = stopping_early.logits(texts)
        num_read = [1] * len(texts)
        expected = whole.logits(texts)
        for row, tokens in enumerate(ids):
            if len(tokens) > window:
                read = [step for step in steps if step.row == len(ids[:row]) - num_windows[:row].count(1)]
                is_enough = [certainty(step.logits, SINGLE_LABEL) >= threshold for step in read]
                last = read[is_enough.index(True)] if True in is_enough else read[-1]
                num_read[row], expected[row] = last.num_windows, last.logits
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        assert sum(shape[0] for shape in shapes) == sum(num_read)
        if threshold == 1.0:
            np.testing.assert_allclose(logits, whole.logits(texts), atol=1e-5)
            assert num_read == num_windows
        elif threshold == 0.0:
            assert num_read == [1] * len(texts)
        else:
            assert len(texts) < sum(num_read) < sum(num_windows)


def test_what_is_saved_is_saved_in_batches_too(texts):
    # Of 8 long documents that stop after one window, 4 at once are 2 calls: others take the place of those that stop.
    model = classifier(stop_thresholds=promised(0.0))
    with encoded_batches(model) as shapes:
        scorer(model, tokens_per_batch=4 * model.config.encoder_window).logits([texts[1]] * 8)
    assert [shape[0] for shape in shapes] == [4, 4]


def test_what_is_given_up_is_read_no_further(texts, monkeypatch):
    monkeypatch.setattr(scorer_module, "POOL_SIZE", 8)
    model = classifier(stop_thresholds=promised(1.0))
    threads, one = set(threading.enumerate()), scorer(model, tokens_per_batch=20)
    with encoded_batches(model) as shapes:
        stream = one.stream([texts[3]] * 24)
        next(stream)
        num_read, end = len(shapes), time.monotonic() + 60
        while len(shapes) == num_read:  # until the next pool is begun
            assert time.monotonic() < end
            time.sleep(0.001)
        stream.close()
        num_read = len(shapes)
        for thread in set(threading.enumerate()) - threads:
            thread.join(60)
    assert num_read <= len(shapes) <= num_read + one.engine.num_workers


def test_where_nothing_is_promised_everything_is_read(texts):
    model = classifier(stop_thresholds=promised(None))
    found = scorer(model)
    assert "everything" in found.description
    np.testing.assert_allclose(found.logits(texts), scorer(model, None).logits(texts), atol=1e-5)


def test_thresholds_are_fitted_to_other_texts_and_used_by_the_command_line(tmp_path, roberta_gru):
    folder, data, scored = tmp_path / "model", tmp_path / "texts.csv", tmp_path / "scored.csv"
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    model = classifier(num_labels=2, **names)
    model.head.out_proj.bias.data[1] += 5  # always sure, and always of the same
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    with data.open("w", newline="") as file:
        rows = [[long_text(9, str(number)), ["bad", "good"][number % 2]] for number in range(70)]
        csv.writer(file).writerows([["text", "label"], *rows])
    command = ["score", folder, data, scored, "--dtype", "float32", "--agreement", "0.95"]
    ended = roberta_gru(*command)
    assert (ended.status, "--agreements" in ended.error) == (2, True)
    before = json.loads((folder / "config.json").read_text())
    (folder / "README.md").write_text("### Stopping early\n\nAt probability 0.5.\n")
    ended = roberta_gru("evaluate", folder, data, "--agreements")
    assert (ended.status, "95.0% of labels: stop at" in ended.said) == (0, True), ended
    assert str(folder / "README.md") in ended.error  # which shows the earlier thresholds
    config = json.loads((folder / "config.json").read_text())
    assert {**config, "stop_thresholds": None} == {**before, "stop_thresholds": None}
    entry = config["stop_thresholds"]["0.95"]
    assert (entry["n"], entry["differ"], entry["max_length"]) == (70, 0, None)
    assert entry["stopped"] >= 59
    assert entry["share_read"] < 1
    ended = roberta_gru(*command)
    assert ended.status == 0, ended
    with scored.open(newline="") as file:
        assert [row["predicted_label"] for row in csv.DictReader(file)] == ["good"] * 70
    assert roberta_gru(*command, "--max-length", 30).status == 2


@pytest.mark.parametrize(
    ("fields", "agreement", "max_length", "field", "said"),
    [
        ({}, 0.99, None, "stop_thresholds", None),
        ({"stop_thresholds": promised(0.9)}, 0.98, None, "agreement", "0.98"),
        ({"stop_thresholds": promised(0.9)}, 0.99, 30, "max_length", "on whole texts"),
        ({"stop_thresholds": promised(0.9, max_length=30)}, 0.99, None, "max_length", "on 30 tokens"),
        ({"gru_bidirectional": True}, 0.99, None, "agreement", "gru_bidirectional"),
        ({"problem_type": "regression", "num_labels": 1}, 0.99, None, "agreement", "numbers"),
    ],
)
def test_an_agreement_that_cannot_be_kept_is_refused(fields, agreement, max_length, field, said):
    with refused(field=field, match=said):
        scorer(classifier(**fields), agreement, max_length=max_length)


def test_one_label_alone_is_never_in_doubt():
    config = tiny_config(num_labels=1)
    config.problem_type = "single_label_classification"  # which newer releases of transformers refuse from the start
    assert not can_stop(config)
    config.problem_type = "multi_label_classification"
    assert can_stop(config)


def test_thresholds_travel_in_the_configuration_and_end_with_its_weights(tmp_path):
    model = classifier(stop_thresholds=promised(0.9))
    model.save_pretrained(tmp_path)
    loaded = RobertaGRUForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.stop_thresholds == promised(0.9)
    assert find_threshold(loaded.config, 0.975, None) == 0.9
    loaded.train()
    assert loaded.config.stop_thresholds is None
    for wrong in (
        {"0.99": 0.9},
        {"high": {"threshold": 0.9}},
        {"0.99": {"threshold": 2}},
        [0.9],
        {"2": promised(0.9)},
    ):
        with pytest.raises(ValueError, match="stop_thresholds"):
            classifier(stop_thresholds=copy.deepcopy(wrong))
