"""Batches of columns, as Ray Data, Spark and Dask hand them over: the scorer's predictions beside the same rows."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from modeling_roberta_gru import BatchScorer, RobertaGRUForSequenceClassification, Scorer
from modeling_roberta_gru.data.tokenization import lift_limits
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.inference import batch_scorer

from .refusals import refused
from .tiny import tiny_config

TEXTS = ["the plot was slow", "splendid " * 40, "we liked its music", "dreadful"]
BATCH = {"id": [7, 5, 9, 1], "text": TEXTS}
KINDS = {
    "arrays": lambda batch: {name: np.array(values, dtype=object) for name, values in batch.items()},
    "pandas": lambda batch: pandas.DataFrame(batch, index=range(len(batch["id"]), 0, -1)),
    "table": pa.table,
    "record batch": lambda batch: pa.RecordBatch.from_pydict(batch),
}
PROBLEMS = {"single": "single_label_classification", "multi": "multi_label_classification", "regression": "regression"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, stand_in):
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    lift_limits(tokenizer)
    found = {}
    for name, problem in PROBLEMS.items():
        folder = found[name] = str(tmp_path_factory.mktemp(name))
        torch.manual_seed(0)
        config = tiny_config(vocab_size=len(tokenizer), problem_type=problem, num_labels=3)
        RobertaGRUForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return found


@pytest.fixture(scope="module")
def score(folders):
    return BatchScorer(folders["single"], dtype="float32", all_scores=True)


def columns_of(batch):
    if isinstance(batch, pa.Table | pa.RecordBatch):
        return batch.to_pydict()
    return {name: list(batch[name]) for name in batch}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_order_stay_and_predictions_are_the_scorers(score, kind):
    batch = KINDS[kind](BATCH)
    scored = score(batch)
    assert type(scored) is type(batch)
    columns, probabilities = columns_of(scored), score.scorer.predict_proba(TEXTS)
    assert {name: columns[name] for name in BATCH} == BATCH
    assert columns["predicted_label"] == score.scorer.predict(TEXTS).tolist()
    for column, name in enumerate(score.scorer.labels):
        assert (np.float32(columns[f"score_{name}"]) == probabilities[:, column]).all()
    if kind == "pandas":
        assert list(scored.index) == [4, 3, 2, 1]
    assert columns_of(batch) == BATCH  # nor is what was given changed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_no_rows_give_the_same_columns_of_the_same_types(folders, problem, kind):
    score = BatchScorer(folders[problem], dtype="float32", skip_bad_rows=True)
    whole, nothing = (score(KINDS[kind](batch)) for batch in (BATCH, {name: [] for name in BATCH}))
    assert list(columns_of(nothing)) == list(columns_of(whole))
    assert all(values == [] for values in columns_of(nothing).values())
    new = [name for name in columns_of(whole) if name not in BATCH]
    types = [
        [batch.schema.field(name).type if hasattr(batch, "schema") else batch[name].dtype for name in new]
        for batch in (whole, nothing)
    ]
    assert types[0] == types[1]


@pytest.mark.parametrize("null", [None, float("nan"), pandas.NA], ids=str)
def test_null_is_null_however_pandas_writes_it(folders, null):
    frame = pandas.DataFrame({"text": pandas.Series(["a plot", null], dtype=object)})
    with refused(field="text", row=2, match="null"):
        BatchScorer(folders["single"], dtype="float32")(frame)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_rows_without_a_text_are_an_error_or_stay_without_a_prediction(folders, problem, kind):
    bad = KINDS[kind]({"id": [1, 2, 3], "text": ["a plot", None, "slow"]})
    with refused(field="text", row=2):
        BatchScorer(folders[problem], dtype="float32")(bad)
    score = BatchScorer(folders[problem], dtype="float32", skip_bad_rows=True)
    found, alone = columns_of(score(bad)), score.scorer.predict_proba(["a plot", "slow"])
    for name, values in found.items():
        if name not in BATCH:
            assert values[1] is None or np.isnan(values[1])
    if problem == "single":
        assert [np.float32(found["predicted_score"][row]) for row in (0, 2)] == alone.max(axis=1).tolist()
    elif problem == "regression":
        for column, name in enumerate(score.scorer.labels):
            assert [np.float32(found[f"predicted_{name}"][row]) for row in (0, 2)] == alone[:, column].tolist()
    else:
        names = np.array(score.scorer.labels)
        assert [list(found["predicted_label"][row]) for row in (0, 2)] == [list(names[row >= 0.5]) for row in alone]


def test_what_does_not_fit_is_named(score):
    for batch in ({"texts": ["a"]}, pandas.DataFrame({"texts": ["a"]}), pa.table({"texts": ["a"]})):
        with pytest.raises(InputError, match="Did you mean 'texts'"):
            score(batch)
    with refused(field="predicted_label"):
        score({"text": ["a"], "predicted_label": [1]})
    with pytest.raises(InputError, match="list"):
        score(["a"])
    with refused(field="model"):
        BatchScorer(score.scorer)


def test_it_travels_as_its_arguments_and_loads_its_model_once(score, folders, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        batch_scorer, "Scorer", lambda *args, **options: loaded.append(args) or Scorer(*args, **options)
    )
    assert len(pickle.dumps(score)) < 1000
    copy = pickle.loads(pickle.dumps(score))
    assert loaded == []
    batches = [pa.table({**BATCH, "text": TEXTS[row:] + TEXTS[:row]}) for row in range(len(TEXTS))]
    with ThreadPoolExecutor(16) as workers:
        found = list(workers.map(copy, batches * 16))
    assert loaded == [(folders["single"],)]
    assert found == [score(batch) for batch in batches] * 16


def test_iterators_are_mapped_as_they_come(score):
    read = []

    def batches():
        for number in range(3):
            read.append(number)
            yield pandas.DataFrame(BATCH)

    mapped = score.map(batches())
    assert read == []
    assert len(next(mapped)) == 4
    assert read == [0]


def test_threads_follow_what_the_engine_gave_and_torchs_number_stays(folders, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = torch.get_num_threads()
    assert BatchScorer(folders["single"], dtype="float32").scorer.engine.num_workers == 3
    assert BatchScorer(folders["single"], dtype="float32", num_threads=2).scorer.engine.num_workers == 2
    assert torch.get_num_threads() == before
