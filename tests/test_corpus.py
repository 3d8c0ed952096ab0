"""The built-in corpus and its tokenizer, at a reduced size: 3,000 reviews for training and 600 for the test.

The long corpus likewise: 40 long reviews for training, 400 for the test.
"""

import hashlib
import json
import random
import re
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.corpus import (
    BUILT_IN_CORPORA,
    CONSTRUCTIONS,
    LONG_TURNS,
    Writer,
    built_in_corpus,
    grammar,
    long_corpus,
    long_reviews,
    train_tokenizer,
)
from modeling_roberta_gru.data.documents import read_source
from modeling_roberta_gru.training.bag_of_words import BagOfWords

UNSEEN = ["hotel", "album", "Okafor", "Tanaka", "Meridian", "Sparrow", "February", "dentist", "umbrella", "Naples"]


@pytest.fixture(scope="module")
def corpus() -> DatasetDict:
    return built_in_corpus(seed=0, num_train=3000, num_validation=200, num_test=600)


@pytest.fixture(scope="module")
def tokenizer(corpus: DatasetDict) -> PreTrainedTokenizerFast:
    return train_tokenizer(corpus["train"]["text"])


@pytest.fixture(scope="module")
def long() -> DatasetDict:
    return long_corpus(0, 400, {(60, 250): 30, (250, 1000): 30, (1000, 8000): 40}, num_validation=20, num_test=400)


@pytest.fixture(scope="module")
def long_tokenizer(long: DatasetDict) -> PreTrainedTokenizerFast:
    return train_tokenizer(long["train"]["text"])


@pytest.fixture(scope="module")
def offsets(long: DatasetDict, long_tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Return where the tokens of the first 200 long test reviews begin, by the tokenizer of their training split."""
    encoding = long_tokenizer(long["test"]["text"][:200], return_offsets_mapping=True, add_special_tokens=False)
    return [[begin for begin, _ in review] for review in encoding["offset_mapping"]]


def swap_praise_and_blame(text: str) -> str:
    opposite = {
        word: other
        for kind in grammar()["praise"]
        for pair in zip(grammar()["praise"][kind], grammar()["blame"][kind], strict=True)
        for word, other in (pair, pair[::-1])
    }
    return re.sub("|".join(sorted(map(re.escape, opposite), key=len, reverse=True)), lambda m: opposite[m[0]], text)


def split_at_verdict(row: dict[str, Any]) -> tuple[str, str]:
    begin = round(row["verdict_at"] * len(row["text"]))
    return row["text"][:begin], row["text"][begin:]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.?!]) |(?<=[.?!]\") ", text)


def words(texts: list[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text)}


def test_equal_seeds_give_equal_corpora_and_other_seeds_other_ones() -> None:
    sizes = {"num_train": 60, "num_validation": 20, "num_test": 40}
    first, again, other = (built_in_corpus(seed=seed, **sizes) for seed in (3, 3, 4))
    for split in ("train", "validation", "test"):
        assert first[split].to_dict() == again[split].to_dict()
        assert not set(first[split]["text"]) & set(other[split]["text"])


@pytest.mark.parametrize(
    ("make", "digest"),
    [
        (
            lambda: built_in_corpus(seed=3, num_train=300, num_validation=20, num_test=200),
            "99edb39a6d93ce6c383ad0e7817f9a430d521621dd64040a2e8dc4925d762d2a",
        ),
        (
            lambda: long_corpus(num_short=50, training_lengths={(60, 250): 20}, num_validation=4, num_test=10),
            "7956fc850dda2abcfc1e05aeb7888fbd7404cf3f2e891c869b0a0f3c6e542ec4",
        ),
    ],
)
def test_the_rows_of_a_seed_stay_what_they_are(make: Any, digest: str) -> None:
    rows = [json.dumps([name, row], ensure_ascii=False) for name, split in make().items() for row in split.to_list()]
    assert hashlib.sha256("".join(rows).encode()).hexdigest() == digest


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
    for seed in range(20):
        praise, blame = (
            Writer(random.Random(seed), held_out=False).review(construction, sign, 0)[0] for sign in (1, -1)
        )
        assert praise != blame
        assert praise == swap_praise_and_blame(blame)


def test_held_out_words_occur_in_test_only(corpus: DatasetDict) -> None:
    held_out = corpus["test"].filter(lambda row: row["vocabulary"] == "held-out")
    shared = corpus["test"].filter(lambda row: row["vocabulary"] == "shared")
    assert 0.4 < len(held_out) / len(corpus["test"]) < 0.6
    assert words(held_out["text"]) >= set(UNSEEN)
    for split in (corpus["train"], corpus["validation"], shared):
        assert set(split["vocabulary"]) == {"shared"}
        assert not words(split["text"]) & set(UNSEEN)


def test_held_out_frames_occur_in_test_only(corpus: DatasetDict) -> None:
    for symbol, frames in grammar()["held_out"].items():
        assert set(frames) & set(grammar()["shared"][symbol]) <= {"{friend}"}
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


# the long corpus


def test_long_corpora_of_equal_seeds_are_equal_and_of_other_seeds_differ() -> None:
    sizes = {"num_short": 10, "training_lengths": {(60, 250): 12, (1000, 8000): 6}, "num_validation": 2, "num_test": 4}
    first, again, other = (long_corpus(seed=seed, **sizes) for seed in (3, 3, 4))
    for split in ("train", "validation", "test"):
        assert first[split].to_dict() == again[split].to_dict()
        assert not set(first[split]["text"]) & set(other[split]["text"])


def test_no_text_of_the_long_corpus_occurs_twice(long: DatasetDict) -> None:
    texts = [text for split in long.values() for text in split["text"]]
    assert len(texts) == len(set(texts)) == 920


def test_labels_are_balanced_in_every_construction_and_number_of_judgements(long: DatasetDict) -> None:
    for split in long.values():
        for column in ("construction", "num_judgements"):
            counts = Counter(zip(split[column], split["label"], strict=True))
            assert all(counts[value, 0] == counts[value, 1] for value, _ in counts)
    assert Counter(long["test"]["num_judgements"]) == {1: 200, 2: 100, 3: 100}
    assert set(long["test"]["construction"]) == set(LONG_TURNS)


@pytest.mark.parametrize("column", ["length", "verdict_at"])
def test_neither_length_nor_place_of_the_verdict_tells_the_label(long: DatasetDict, column: str) -> None:
    test = long["test"].to_pandas().assign(length=long["test"].to_pandas()["text"].str.len())
    assert abs(test[column].corr(test["label"])) < 0.1


def test_shorter_reviews_of_the_long_corpus_are_only_trained_on(long: DatasetDict) -> None:
    lengths = np.array([len(text) for text in long["train"]["text"]])
    assert np.sum(lengths < 1000) >= 400
    assert np.sum(lengths < 4000) == 460
    assert min(map(len, [*long["validation"]["text"], *long["test"]["text"]])) > 3000


@pytest.mark.parametrize("construction", CONSTRUCTIONS)
def test_only_the_last_judgement_decides_the_label_of_a_long_review(
    construction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeling_roberta_gru.data.corpus._num_asides", lambda rng: 0)  # between a judgement's parts
    earlier = [("plain", 1), ("negation", -1)]
    for seed in range(5):
        (praise, at), (blame, also_at) = (
            Writer(random.Random(seed), held_out=False).long_review([*earlier, (construction, sign)], num_words=800)
            for sign in (1, -1)
        )
        (before, after), (also_before, also_after) = (
            split_at_verdict({"text": text, "verdict_at": share}) for text, share in ((praise, at), (blame, also_at))
        )
        assert before == also_before
        assert after != also_after
        different = [pair for pair in zip(sentences(after), sentences(also_after), strict=True) if len(set(pair)) > 1]
        assert 1 <= len(different) <= 6
        assert all(one == swap_praise_and_blame(other) for one, other in different)


def test_what_begins_at_the_verdict_is_an_own_judgement_of_the_labels_polarity(long: DatasetDict) -> None:
    praise, blame = (
        re.compile(rf"\b({'|'.join(word for words in kinds.values() for word in words)})\b")
        for kinds in (grammar()["praise"], grammar()["blame"])
    )
    plain = long["test"].filter(lambda row: row["construction"] == "plain")
    assert len(plain) == 200
    for row in plain:
        before, after = split_at_verdict(row)
        assert before.endswith((". ", '" ', '."'))
        first = next(sentence for sentence in sentences(after) if praise.search(sentence) or blame.search(sentence))
        assert bool(praise.search(first)) is bool(row["label"])
        assert bool(blame.search(first)) is not bool(row["label"])


def test_the_verdict_of_a_short_review_begins_a_sentence_before_which_nothing_is_decided(long: DatasetDict) -> None:
    short = long["train"].filter(lambda row: len(row["text"]) < 3000)
    assert len(short) > 400
    for row in short:
        before, after = split_at_verdict(row)
        assert before.endswith((". ", '." ', '" '))
        assert after[0].isupper() or after[0] == '"'


def test_long_reviews_have_1000_to_8000_tokens_spread_evenly(offsets: list[list[int]]) -> None:
    lengths = np.array([len(review) + 2 for review in offsets])
    assert 1000 <= lengths.min() < 1300
    assert 7000 < lengths.max() <= 8000
    counts, _ = np.histogram(lengths, bins=6, range=(1060, 7200))
    assert counts.min() > len(lengths) / 6 * 0.6
    assert counts.max() < len(lengths) / 6 * 1.4


@pytest.mark.parametrize("judges_once", [True, False])
def test_the_verdict_begins_anywhere(long: DatasetDict, judges_once: bool) -> None:
    rows = long["test"].filter(lambda row: (row["num_judgements"] == 1) is judges_once)
    counts, _ = np.histogram(rows["verdict_at"][:], bins=5, range=(0, 1))
    assert counts.min() > len(rows) / 5 * 0.6
    assert counts.max() < len(rows) / 5 * 1.4


def test_the_first_512_tokens_rarely_hold_the_verdict(long: DatasetDict, offsets: list[list[int]]) -> None:
    held = [
        round(row["verdict_at"] * len(row["text"])) < review[510]
        for row, review in zip(long["test"].select(range(200)), offsets, strict=True)
    ]
    assert np.mean(held) < 0.2


def test_bag_of_words_cannot_tell_the_label_of_long_reviews() -> None:
    train, test = (list(long_reviews(name, 0, 300, 1000, 1500)) for name in ("train", "test"))
    baseline = BagOfWords().fit([row["text"] for row in train], [row["label"] for row in train])
    predictions = baseline.predict_probabilities([row["text"] for row in test]).argmax(-1)
    assert abs(np.mean(predictions == [row["label"] for row in test]) - 0.5) < 0.08


def test_long_reviews_of_other_lengths_can_be_had(long_tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [row["text"] for row in long_reviews("longer", seed=0, count=8, min_tokens=10_000, max_tokens=20_000)]
    lengths = [len(ids) for ids in long_tokenizer(texts)["input_ids"]]
    assert 10_000 <= min(lengths) < max(lengths) <= 20_000


def test_long_texts_are_plain_sentences(long: DatasetDict) -> None:
    for text in long["test"]["text"]:
        assert text[0].isupper() or text[0] == '"'
        assert text[-1] in '."'
        assert not re.search(r"[{}~]|  | [.,;:]|\.\.|,,", text)


def test_built_in_corpora_are_read_by_their_names(monkeypatch: pytest.MonkeyPatch, long: DatasetDict) -> None:
    monkeypatch.setitem(BUILT_IN_CORPORA, "built-in-long", lambda: long)
    parts = read_source(DataArguments(dataset_name="built-in-long"))
    assert {split: [part.name for part in given] for split, given in parts.items()} == {
        split: [f"built-in-long ({split})"] for split in ("train", "validation", "test")
    }


# the tokenizer


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
