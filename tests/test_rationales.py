"""benchmarks/rationales.py at toy size."""

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification

from .tiny import TINY_ENCODER, script

rationales = script("rationales")


def test_rationales_are_found_whatever_the_white_space(rationales):
    text = "a plot .\nvery , very\nslow ( and long ) ."
    found = rationales.spans(text, ["very , very slow", "( and  long )", "not there", ""])
    assert [text[begin:end] for begin, end in found] == ["very , very\nslow", "( and long )"]


def test_tokens_that_touch_a_rationale_count_and_special_ones_do_not(rationales):
    marked = rationales.on_tokens([(0, 0), (0, 4), (5, 9), (9, 12), (0, 0)], [(7, 10)])
    assert marked.tolist() == [False, False, True, True, False]


def test_chance_is_what_even_attributions_score(rationales):
    reviews = [{"tokens": 10, "rationale_tokens": 2, "mass": 5.0, "rationale_mass": 1.0} for _ in range(4)]
    lines = rationales.table({"reviews": reviews, "beyond": 512}, num_resamples=10)
    assert lines[2].count("20.0 %") == lines[3].count("20.0 %") == 1


@pytest.mark.parametrize("label", [0, 1])
def test_a_model_is_measured(rationales, stand_in, tmp_path, monkeypatch, label):
    pytest.importorskip("captum")
    monkeypatch.setattr(rationales, "BEYOND", 8)
    words = "the plot was long and slow but we liked its music more than most"
    tables = {
        "movies-polarity": {"id": ["a", "b"], "text": [words, words[:20]], "label": [label] * 2, "fold": [9, 9]},
        "movies-polarity-rationales": {"id": ["a", "b"], "text": [["liked its music"], ["the plot"]]},
    }
    for name, columns in tables.items():
        (tmp_path / name).mkdir()
        pd.DataFrame(columns).to_parquet(tmp_path / name / "train.parquet")
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    config = RobertaGRUConfig(
        **{**TINY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": 66},
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    RobertaGRUForSequenceClassification(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    result = rationales.measure(str(tmp_path / "model"), tmp_path, 9, most=5, steps=4)
    (review,) = result["reviews"]  # the other one has no rationale so far on
    assert 0 <= review["rationale_mass"] <= review["mass"]
    assert np.isfinite(review["mass"])
    assert 0 < review["rationale_tokens"] < review["tokens"]
