"""benchmarks/heads.py at toy size: it keeps the model's states, and predicts each row by heads that never saw it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics
from transformers import AutoTokenizer
from typer.testing import CliRunner

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.training.loading import quiet

from .tiny import save_tiny_model, script

heads = script("heads")
live = script("live")
WORDS = ["the", "plot", "was", "long", "and", "slow", "but", "we", "liked", "its", "music", "more", "than", "most"]


@pytest.fixture
def data(tmp_path):
    """Return a data folder: 40 documents of 5 to 160 words, the label said at the end; four folds."""
    rng = np.random.default_rng(0)
    texts = [
        " ".join([*rng.choice(WORDS, rng.integers(5, 160)), ["dreadful", "splendid"][row % 2]]) for row in range(40)
    ]
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    table = {"text": texts, "label": np.arange(40) % 2, "fold": np.arange(40) // 2 % 4, "rating": np.arange(40) % 2}
    pd.DataFrame(table).to_parquet(folder / "train.parquet")
    return tmp_path / "data"


@pytest.fixture
def task(heads, monkeypatch):
    monkeypatch.setitem(heads.TASKS, "toy", heads.Task("toy/train.parquet", "classes", num_folds=4))
    monkeypatch.setitem(heads.HYPERPARAMETERS, "epochs", 2)
    return "toy"


@pytest.fixture
def states_of_some(heads, stand_in, tmp_path):
    texts = [" ".join(WORDS * number) for number in (1, 3, 9, 2)]
    heads.encode_texts(texts, str(stand_in), tmp_path / "states", "whole")
    return heads.States(tmp_path / "states", every=2)


def test_the_states_are_those_that_the_model_reads(heads, stand_in, tmp_path):
    texts = [" ".join(WORDS * number) for number in (1, 3, 9)]
    heads.encode_texts(texts, str(stand_in), tmp_path / "states", "whole")
    states = heads.States(tmp_path / "states", every=1)
    with quiet():
        model = RobertaGRUForSequenceClassification.from_pretrained(stand_in).eval()
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    for row, text in enumerate(texts):
        inputs = tokenizer(text, return_tensors="pt", verbose=False)
        with torch.no_grad():
            expected = model(**inputs, output_hidden_states=True).hidden_states[-1][0]
        batch = states.batch([row], "whole")
        # kept in float16, of products in bfloat16
        torch.testing.assert_close(batch.states[0], expected, atol=0.1, rtol=0.1)
        assert (batch.states[0] - expected).abs().mean() < 0.02
    assert len(states.batch([2], "windows").lengths) > 2
    assert torch.equal(states.batch([2], "first").states, states.batch([2], "windows").states[:1, :64])


def test_shuffling_moves_whole_windows_and_loses_nothing(heads, stand_in, tmp_path):
    heads.encode_texts([" ".join(WORDS * 12)], str(stand_in), tmp_path / "states", "whole")
    states = heads.States(tmp_path / "states", every=2)
    (tokens,) = states.sequences(0, "whole")
    (moved,) = states.sequences(0, "whole", np.random.default_rng(3))
    assert sorted(moved) == sorted(tokens)
    assert list(moved) != list(tokens)


def test_every_row_is_predicted_by_heads_that_never_saw_it(heads, stand_in, data, task, tmp_path, monkeypatch):
    trained_on = []
    fit = heads.fit
    monkeypatch.setattr(heads, "fit", lambda *args: trained_on.append(args[3]) or fit(*args))
    run = CliRunner().invoke
    states, results = tmp_path / "states", tmp_path / "results"
    common = ["--data", str(data)]
    assert run(heads.app, ["encode", task, str(stand_in), str(states), *common]).exit_code == 0
    systems = ["bag-of-words", "vote-mean", "attention", "gru-attention", "gru"]
    arguments = ["train", task, str(states), *systems, *common, "--output", str(results)]
    outcome = run(heads.app, arguments)
    assert outcome.exit_code == 0, outcome.output
    folds = pd.read_parquet(data / "toy/train.parquet")["fold"].to_numpy()
    assert len(trained_on) == len(systems) - 1
    for of_heads in trained_on:
        for number, rows in enumerate(of_heads):
            assert set(folds[rows]) == {0, 1, 2, 3} - {number}

    monkeypatch.setattr(heads, "fit", None)  # what is done is not done again
    assert run(heads.app, arguments).exit_code == 0
    record = json.loads((results / "toy.json").read_text())
    assert list(record["systems"]) == systems
    for name, system in record["systems"].items():
        for figures in system["metrics"].values():
            value, low, high = figures["value"]
            assert low <= value <= high
            assert ("less_ours" in figures) == (name != "gru")
            assert ("shuffled" in figures) == name.startswith("gru")  # the others have no order
    predicted = np.load(states / "predicted" / "toy-every-2" / "gru" / "0.npz")
    labels = np.arange(40) % 2
    assert record["systems"]["gru"]["metrics"]["accuracy, %"]["value"][0] == pytest.approx(
        (predicted["logits"].argmax(axis=1) == labels).mean()
    )

    monkeypatch.setattr(heads, "RESULTS", results)
    outcome = run(heads.app, ["compare", task])
    lines = [line for line in outcome.output.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(systems)
    assert all(line.count("|") == 9 for line in lines)

    assert run(heads.app, ["encode", task, str(stand_in), str(states), *common]).exit_code == 0
    assert not (states / "predicted").exists()  # by heads on other states, for all one knows


def test_epochs_are_chosen_for_each_fold_on_the_next_one_which_is_then_learned_too(
    heads, stand_in, data, task, tmp_path, monkeypatch
):
    best, folds = [5, 2, 2, 5], pd.read_parquet(data / "toy/train.parquet")["fold"].to_numpy()
    calls = []

    def fit(system, states, targets, trained_on, num_outputs, seed, epochs):
        calls.append((epochs, [sorted(set(folds[rows])) for rows in trained_on]))
        return [epochs] * len(trained_on)

    def predict(epochs, states, rows, view, shuffled_by=None):
        is_best = np.array([best[folds[row] - 1] == epochs for row in rows])  # the fold before this one's
        return np.stack([np.zeros(len(rows)), np.where(is_best, 1.0, -1.0) * (2 * (rows % 2) - 1)], axis=1)

    monkeypatch.setitem(heads.TASKS, task, heads.TASKS[task]._replace(epochs=(2, 5)))
    monkeypatch.setattr(heads, "fit", fit)
    monkeypatch.setattr(heads, "predict", predict)
    states, common = str(tmp_path / "states"), ["--data", str(data)]
    run = CliRunner().invoke
    assert run(heads.app, ["encode", task, str(stand_in), states, *common]).exit_code == 0
    outcome = run(heads.app, ["train", task, states, "attention", *common, "--output", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    both_left_out = [[2, 3], [0, 3], [0, 1], [1, 2]]
    assert calls[:2] == [(2, both_left_out), (5, both_left_out)]
    assert sorted(calls[2:]) == [(2, [[0, 2, 3], [0, 1, 3]]), (5, [[1, 2, 3], [0, 1, 2]])]
    record = json.loads((tmp_path / "toy.json").read_text())
    assert record["systems"]["attention"]["epochs"] == [best]
    assert any("2, 5" in line for line in heads.table(task, record))


def test_a_rare_label_weighs_as_much_where_it_is_there_as_where_it_is_not(heads):
    targets = np.array([[1, 0], [0, 0], [0, 0], [0, 1], [1, 0]], np.float32)
    balance = heads._balance(targets)
    assert (targets * balance).sum(axis=0) == pytest.approx((1 - targets).sum(axis=0))
    logits = torch.zeros(5, 2)  # of loss ln 2 a label
    losses = heads._losses(logits, torch.from_numpy(targets), torch.from_numpy(balance))
    assert losses.tolist() == pytest.approx((np.log(2) * np.where(targets, balance, 1)).mean(axis=1).tolist())
    assert heads._balance(np.arange(3)).tolist() == heads._balance(np.ones((3, 1))).tolist() == [1]


@pytest.mark.parametrize("name", ["vote-mean", "vote-max", "attention", "gru-last", "gru", "bigru-attention"])
def test_a_head_is_trained_as_the_models_own_parts_compute(heads, states_of_some, name):
    system = heads.SYSTEMS[name]
    torch.manual_seed(0)
    head = heads.Head(system, states_of_some, 3).eval()
    batch = states_of_some.batch([0, 2, 1], system.view)
    torch.testing.assert_close(head(batch, is_mapped=True), head(batch))


def test_heads_are_trained_in_parts_as_at_once_and_on_their_own_documents_only(
    heads, states_of_some, task, monkeypatch
):
    monkeypatch.setitem(heads.HYPERPARAMETERS, "head_dropout", 0.0)
    monkeypatch.setitem(heads.HYPERPARAMETERS, "state_dropout", 0.0)
    trained_on = np.array([[True, True, True, False], [False, True, True, True]])

    def fit(targets):
        fitted = heads.fit(heads.SYSTEMS["gru"], states_of_some, np.array(targets), trained_on, 3, seed=0)
        return [dict(head.named_parameters()) for head in fitted]

    together = fit([0, 1, 2, 1])
    others = fit([0, 1, 2, 0])  # the last document is the second head's
    torch.testing.assert_close(others[0], together[0], atol=0, rtol=0)
    assert not torch.equal(others[1]["head.out_proj.weight"], together[1]["head.out_proj.weight"])
    monkeypatch.setattr(heads, "MOST_STATES", 1)
    torch.testing.assert_close(fit([0, 1, 2, 1]), together, atol=1e-5, rtol=1e-4)


def test_few_documents_make_smaller_batches_not_fewer_steps(heads, states_of_some, monkeypatch):
    monkeypatch.setitem(heads.HYPERPARAMETERS, "epochs", 10)
    monkeypatch.setitem(heads.HYPERPARAMETERS, "fewest_steps", 20)
    batches = list(heads._batches(states_of_some, heads.SYSTEMS["gru"], np.arange(4), np.random.default_rng(0), 10))
    assert len(batches) == 20
    assert np.bincount(np.concatenate(batches)).tolist() == [10, 10, 10, 10]


def test_promises_are_fitted_on_one_fold_and_tested_on_another(
    live, heads, stand_in, data, task, tmp_path, monkeypatch
):
    monkeypatch.setitem(live.EARLY, task, "Toys")
    encoder = save_tiny_model(tmp_path / "model", stand_in)  # whose head has another shape
    states, output = str(tmp_path / "states"), tmp_path / "early.json"
    assert CliRunner().invoke(heads.app, ["encode", task, encoder, states, "--data", str(data)]).exit_code == 0
    arguments = ["early", states, "--task", task, "--fold", "1", "--fold", "3", "--data", str(data), "--threads", "1"]
    outcome = CliRunner().invoke(live.app, [*arguments, "--output", str(output)])
    assert outcome.exit_code == 0, outcome.output
    measured = json.loads(output.read_text())
    assert (measured["n"], measured["folds"]) == (20, 2)
    everything = measured["seconds"]["everything"]
    assert everything["texts"] == 10
    # Ten documents cannot hold a promise: nothing stops, and everything is said as by reading all.
    for name, held in measured["held"].items():
        if name != "first window only":
            assert held["folds_promised"] == held["stopped"] == held["differ"] == 0
            assert held["tokens"] == measured["tokens"]
    monkeypatch.setattr(heads, "fit", None)  # what is done is not done again
    assert CliRunner().invoke(live.app, [*arguments, "--output", str(output)]).exit_code == 0


def test_metrics_are_scikit_learns(heads):
    rng = np.random.default_rng(0)
    ranks, found = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    assert heads.accuracy(found, ranks) == pytest.approx(metrics.accuracy_score(ranks, found))
    kappa = metrics.cohen_kappa_score(ranks, found, weights="quadratic")
    assert heads.quadratic_kappa(found, ranks) == pytest.approx(kappa)
    labels, logits = rng.integers(0, 2, (50, 3)), rng.normal(size=(50, 3))
    assert heads.macro_f1(logits, labels) == pytest.approx(metrics.f1_score(labels, logits > 0, average="macro"))
    precision = metrics.average_precision_score(labels, logits, average="macro")
    assert heads.mean_average_precision(logits, labels) == pytest.approx(precision)
    error = metrics.root_mean_squared_error(labels[:, :1], logits[:, :1])
    assert heads.root_mean_squared_error(logits[:, :1], labels[:, :1]) == pytest.approx(error)
    assert heads.loss_of(torch.tensor([[0.5], [0.0]]), torch.tensor([[0.0], [0.0]])) == pytest.approx(0.125)


def test_words_tell_classes_labels_and_values(heads):
    texts = [" ".join([word] * 3 + WORDS[:4]) for word in ("dreadful", "splendid")] * 10
    positive = np.arange(20) % 2
    asked = ["dreadful dreadful plot", "splendid splendid plot"]
    for targets in (positive, np.stack([positive, 1 - positive], axis=1), positive[:, None].astype(np.float32)):
        predicted = heads.predict_by_words(texts, targets, asked)
        assert predicted.shape == (2, 1 if targets.shape[1:] == (1,) else 2)
        assert predicted[1, -1] != predicted[0, -1]
        assert (predicted[1, -1] > predicted[0, -1]) == (targets.ndim == 1 or targets.shape[1] == 1)


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ({"kind": "classes", "is_ranked": True}, 11),
        ({"kind": "labels", "columns": ("label", "rating")}, 8),
        ({"kind": "value", "columns": ("rating",)}, 5),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_every_kind_of_task_has_its_table(heads, data, tmp_path, monkeypatch, task, columns):
    monkeypatch.setitem(heads.TASKS, "toy", heads.Task("toy/train.parquet", num_folds=4, **task))
    monkeypatch.setattr(heads, "RESULTS", tmp_path)
    output = ["--output", str(tmp_path)]
    documents = heads.load(heads.TASKS["toy"], data)
    (tmp_path / "encoded.json").write_text('{"encoder": "a/b", "tokens": 9, "window": 8}')
    logits = np.random.default_rng(0).normal(size=(40, documents.num_outputs)).astype(np.float32)
    for name in ("mean", heads.OURS):
        place = tmp_path / "predicted" / "toy-every-2" / name / "0.npz"
        place.parent.mkdir(parents=True)
        np.savez(place, logits=logits, shuffled=logits, seconds=1.0, commit="0", epochs=[3] * 4)
    outcome = CliRunner().invoke(heads.app, ["train", "toy", str(tmp_path), "mean", "--data", str(data), *output])
    assert outcome.exit_code == 0, outcome.output
    lines = [line for line in heads.table("toy", heads.recorded()["toy"]) if line.startswith("|")]
    assert len(lines) == 4
    assert all(line.count("|") - 1 == columns for line in lines)
