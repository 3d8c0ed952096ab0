"""The built-in corpus and its tokenizer, at a reduced size: 3,000 reviews for training and 600 for the test."""

import random
import re
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from datasets import DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from modeling_roberta_gru.data.corpus import (
    BLAME,
    CONSTRUCTIONS,
    HELD_OUT,
    PRAISE,
    SHARED,
    Writer,
    built_in_corpus,
    train_tokenizer,
)

UNSEEN = ["hotel", "album", "Okafor", "Tanaka", "Meridian", "Sparrow", "February", "dentist", "umbrella", "Naples"]


@pytest.fixture(scope="module")
def corpus() -> DatasetDict:
    return built_in_corpus(seed=0, num_train=3000, num_validation=200, num_test=600)


@pytest.fixture(scope="module")
def tokenizer(corpus: DatasetDict) -> PreTrainedTokenizerFast:
    return train_tokenizer(corpus["train"]["text"])


def words(texts: list[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text)}


def test_equal_seeds_give_equal_corpora_and_other_seeds_other_ones() -> None:
    sizes = {"num_train": 60, "num_validation": 20, "num_test": 40}
    first, again, other = (built_in_corpus(seed=seed, **sizes) for seed in (3, 3, 4))
    for split in ("train", "validation", "test"):
        assert first[split].to_dict() == again[split].to_dict()
        assert not set(first[split]["text"]) & set(other[split]["text"])


def test_no_text_occurs_twice(corpus: DatasetDict) -> None:
    texts = [text for split in corpus.values() for text in split["text"]]
    assert len(texts) == 3800
    assert len(set(texts)) == 3800


def test_labels_are_balanced_in_every_split_and_construction(corpus: DatasetDict) -> None:
    assert corpus["train"].features["label"].names == ["negative", "positive"]
    for split in corpus.values():
        counts = Counter(zip(split["construction"], split["label"], strict=True))
        assert {construction for construction, _ in counts} == set(CONSTRUCTIONS)
        assert all(abs(counts[name, 0] - counts[name, 1]) <= 1 for name in CONSTRUCTIONS)
        assert sum(split["label"]) * 2 == len(split)


def test_order_of_rows_says_nothing_about_the_label(corpus: DatasetDict) -> None:
    labels = corpus["train"]["label"][:]
    assert 0.45 < sum(a == b for a, b in pairwise(labels)) / len(labels) < 0.55


@pytest.mark.parametrize("sublinear_tf", [False, True])
def test_bag_of_words_cannot_tell_the_label(corpus: DatasetDict, sublinear_tf: bool) -> None:
    train, test = corpus["train"], corpus["test"]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=sublinear_tf)
    baseline = make_pipeline(vectorizer, LogisticRegression(max_iter=1000)).fit(train["text"][:], train["label"][:])
    assert baseline.score(test["text"][:], test["label"][:]) < 0.70


@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_labels_differ_only_by_swapping_praise_and_blame(construction: str) -> None:
    opposite = {
        word: other
        for kind in PRAISE
        for pair in zip(PRAISE[kind], BLAME[kind], strict=True)
        for word, other in (pair, pair[::-1])
    }
    any_of_them = re.compile("|".join(sorted(map(re.escape, opposite), key=len, reverse=True)))
    for seed in range(20):
        praise, blame = (Writer(random.Random(seed), held_out=False).review(construction, sign, 0) for sign in (1, -1))
        assert praise != blame
        assert praise == any_of_them.sub(lambda word: opposite[word[0]], blame)


def test_held_out_words_occur_in_test_only(corpus: DatasetDict) -> None:
    held_out = corpus["test"].filter(lambda row: row["vocabulary"] == "held-out")
    shared = corpus["test"].filter(lambda row: row["vocabulary"] == "shared")
    assert 0.4 < len(held_out) / len(corpus["test"]) < 0.6
    assert words(held_out["text"]) >= set(UNSEEN)
    for split in (corpus["train"], corpus["validation"], shared):
        assert set(split["vocabulary"]) == {"shared"}
        assert not words(split["text"]) & set(UNSEEN)


def test_held_out_frames_occur_in_test_only(corpus: DatasetDict) -> None:
    for symbol, frames in HELD_OUT.items():
        assert set(frames) & set(SHARED[symbol]) <= {"{friend}"}
    for frame in ("Ask anyone: ", "Let them talk: ", "All right, "):
        assert any(frame in text for text in corpus["test"]["text"])
        assert not any(frame in text for text in corpus["train"]["text"])


def test_lengths_span_about_20_to_400_tokens(corpus: DatasetDict, tokenizer: PreTrainedTokenizerFast) -> None:
    lengths = sorted(len(ids) for ids in tokenizer(corpus["train"]["text"][:])["input_ids"])
    assert 15 <= lengths[0] <= 30
    assert 40 <= lengths[len(lengths) // 2] <= 90
    assert 300 <= lengths[-1] <= 510


def test_texts_are_plain_sentences(corpus: DatasetDict) -> None:
    for text in corpus["test"]["text"]:
        assert text[0].isupper() or text[0] == '"'
        assert text[-1] in '."'
        assert not re.search(r"[{}~]|  | [.,;:]|\.\.|,,", text), text


def test_special_tokens_have_roberta_ids_and_enclose_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]) == [0, 1, 2, 3, 4]
    ids = tokenizer("I loved this film.")["input_ids"]
    assert (ids[0], ids[-1]) == (0, 2)
    assert tokenizer.padding_side == "right"
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert len(tokenizer) == 1000


@pytest.mark.parametrize("text", ["I loved this film.", "Zoë’s naïve 日本語 🎬👍🏽 — ok?", "two  spaces\n\ttabs "])
def test_tokenizer_gives_any_text_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_saved_tokenizer_loads_from_its_folder_alone(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    pair = ("Velvet 🎬 <mask> hotels", "a second text")
    assert loaded(*pair).data == tokenizer(*pair).data
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.model_max_length == tokenizer.model_max_length
    # transformers 4.57 and 5 both know this name
    assert '"tokenizer_class": "RobertaTokenizer"' in (tmp_path / "tokenizer_config.json").read_text()


def test_a_long_text_brings_no_warning(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(tokenizer("a good film " * 5000)["input_ids"]) > 10000
    assert not caplog.records
    assert capfd.readouterr().err == ""
