import json
import os
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset

from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.training import bag_of_words
from modeling_roberta_gru.training.bag_of_words import BagOfWords, measure_bag_of_words

WORDS = {0: ["dull", "flat", "weak"], 1: ["warm", "sharp", "rich"], 2: ["odd", "long", "blue"]}


def write_texts(class_ids, num_texts=300, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.choice(class_ids, size=num_texts)
    texts = [" ".join(["the", "film", "was", *generator.choice(WORDS[int(label)], size=2)]) for label in labels]
    return texts, labels.tolist()


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_words_that_tell_the_class_are_learned():
    model = BagOfWords().fit(*write_texts([0, 1, 2]))
    texts, labels = write_texts([0, 1, 2], seed=1)
    assert (model.predict_probabilities(texts).argmax(axis=1) == labels).mean() == 1


def test_word_pairs_tell_what_single_words_do_not():
    texts = ["not good but fine", "good but not fine"] * 60
    labels = [0, 1] * 60
    assert (BagOfWords().fit(texts, labels).predict_probabilities(texts).argmax(axis=1) == labels).all()


def test_probabilities_add_up_to_one():
    model = BagOfWords().fit(*write_texts([0, 1, 2]))
    probabilities = model.predict_probabilities(["the film was dull", "unseen words only", ""])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize(("present", "missing"), [([0, 2], 1), ([1, 2], 0), ([0, 1], 2)])
def test_a_class_missing_from_training_keeps_its_column(present, missing):
    model = BagOfWords().fit(*write_texts(present), num_labels=3)
    texts, labels = write_texts(present, seed=1)
    probabilities = model.predict_probabilities(texts)
    assert (probabilities[:, missing] == 0).all()
    assert (probabilities.argmax(axis=1) == labels).all()


def test_the_number_of_classes_follows_from_the_labels():
    model = BagOfWords().fit(*write_texts([0, 2]))
    assert model.predict_probabilities(["the film was odd"]).argmax() == 2


def test_a_handful_of_texts_suffices():
    model = BagOfWords().fit(["splendid", "dreadful"], [1, 0])
    assert model.predict_probabilities(["splendid"]).argmax() == 1


def test_the_measure_of_two_data_sets_is_ready_for_json_and_leaves_no_file():
    train, test = (
        Dataset.from_dict(dict(zip(("text", "label"), write_texts([0, 1], seed=seed), strict=True))) for seed in (0, 1)
    )
    measured = measure_bag_of_words(train, test, ["bad", "good"], num_resamples=50)
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    assert measured["accuracy"]["value"] == 1
    assert measured["n"] == 300
    assert set(measured["per_class"]) == {"bad", "good"}
    assert list(Path().iterdir()) == []


def test_equal_data_gives_equal_figures():
    train, test = (dict(zip(("text", "label"), write_texts([0, 1], seed=seed), strict=True)) for seed in (0, 1))
    first, second = (measure_bag_of_words(train, test, ["bad", "good"], num_resamples=50) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("labels", [[[0, 1], [1, 0]], [0.5, 1.5]])
def test_other_labels_than_one_class_a_text_are_refused(labels):
    with pytest.raises(InputError, match="needs one class per text"):
        BagOfWords().fit(["one", "two"], labels)


def test_a_single_class_is_refused():
    with pytest.raises(InputError, match="all 2 texts are of one"):
        BagOfWords().fit(["one", "two"], [1, 1])


@pytest.mark.slow
def test_imdb_gives_the_accuracy_that_the_docstring_states():
    folder = Path(__file__).parents[1] / os.environ.get("ROBERTA_GRU_SHARED", "../shared") / "data" / "imdb"
    if not folder.exists():
        pytest.skip(f"{folder} is absent; set ROBERTA_GRU_SHARED to the folder that holds data/imdb")
    files = {split: str(folder / f"{split}.parquet") for split in ("train", "test")}
    splits = load_dataset("parquet", data_files=files, cache_dir=str(Path().resolve()))
    measured = measure_bag_of_words(splits["train"], splits["test"], ["negative", "positive"])
    assert measured["accuracy"]["value"] == pytest.approx(0.907, abs=0.0005)


def test_a_baseline_that_would_not_fit_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr(bag_of_words, "MOST_COEFFICIENTS", 10)
    with pytest.raises(InputError, match="coefficients"):
        BagOfWords().fit(*write_texts([0, 1]))
