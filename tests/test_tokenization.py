"""From texts to batches: what is cut, what is kept, and the types the losses want."""

import json
import logging

import pytest
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, DataCollatorWithPadding, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils import logging as transformers_logging

from modeling_roberta_gru.data.tokenization import MODEL_COLUMNS, check_token_ids, lift_limits, tokenize
from modeling_roberta_gru.errors import InputError

from .refusals import refused

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "good", "bad", "film"]


@pytest.fixture
def tokenizer():
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=6, **names)


def documents(labels: list, feature=None) -> Dataset:
    features = Features(row_id=Value("string"), text=Value("string"), author=Value("string"), label=feature)
    texts = ["good film", "bad", "bad bad bad film " * 4][: len(labels)]
    rows = {"row_id": ["test:0", "test:4", "test:5"][: len(labels)], "text": texts, "label": labels}
    return Dataset.from_dict({**rows, "author": ["x"] * len(labels)}, features=features)


def test_rows_keep_their_order_and_ids_and_say_their_length(tokenizer):
    tokens = tokenize(documents([0, 1], Value("int64")), tokenizer, max_length=6)
    assert tokens.to_list() == [
        {"row_id": "test:0", "input_ids": [0, 4, 6, 2], "attention_mask": [1] * 4, "length": 4, "labels": 0},
        {"row_id": "test:4", "input_ids": [0, 5, 2], "attention_mask": [1] * 3, "length": 3, "labels": 1},
    ]


def test_several_processes_give_the_same_tokens(tokenizer):
    rows = concatenate_datasets([documents([[0.0, 1.0]] * 3, List(Value("float32")))] * 20)
    one, two = (tokenize(rows, tokenizer, None, num_proc=number) for number in (1, 2))
    assert two.to_list() == one.to_list()
    assert two.features == one.features
    assert one.with_format("numpy")["length"][:].tolist() == [len(ids) for ids in one["input_ids"]]


def test_a_long_text_is_cut_and_keeps_its_special_tokens(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        tokens = tokenize(documents([0, 1, 0], Value("int64")), tokenizer, max_length=6)
    assert tokens["input_ids"][2] == [0, 5, 5, 5, 6, 2]
    assert tokens["length"][:] == [4, 3, 6]
    assert caplog.text == ""


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [None, 5])
def test_texts_are_tokenised_as_by_the_tokenizer_itself(tokenizer, side, max_length):
    tokenizer.truncation_side = side
    rows = documents([0, 1, 0], Value("int64"))
    expected = tokenizer(rows["text"][:], truncation=max_length is not None, max_length=max_length)["input_ids"]
    tokenizer(rows["text"][:], padding="max_length", max_length=7, truncation=True)  # which it keeps as settings
    assert tokenize(rows, tokenizer, max_length)["input_ids"][:] == expected


def test_without_a_maximum_nothing_is_cut_and_nothing_warned(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        tokens = tokenize(documents([0, 1, 0], Value("int64")), tokenizer, max_length=None)
    assert tokens["length"][2] == 18
    assert caplog.text == ""


def test_a_saved_tokenizer_has_no_limit_and_warns_of_none(tokenizer, tmp_path, caplog):
    transformers_logging.enable_propagation()
    text = "good bad film " * 700
    try:
        tokenizer(text)
        assert "sequence length is longer than the specified maximum" in caplog.text
        caplog.clear()
        tokenize(documents([0, 1, 0], Value("int64")), tokenizer, max_length=6)
        lift_limits(tokenizer)
        tokenizer.save_pretrained(tmp_path)
        loaded = AutoTokenizer.from_pretrained(tmp_path)
        assert loaded.model_max_length > LARGE_INTEGER
        assert len(loaded(text)["input_ids"]) == 2102
        assert caplog.text == ""
    finally:
        transformers_logging.disable_propagation()
    assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"] is None


@pytest.mark.parametrize(
    ("labels", "feature", "dtype"),
    [
        ([0, 1, 0], Value("int64"), torch.int64),
        ([0.5, 1.0, 2.0], Value("float32"), torch.float32),
        ([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], List(Value("float32")), torch.float32),
    ],
)
def test_batches_have_the_labels_that_the_losses_want(tokenizer, labels, feature, dtype):
    tokens = tokenize(documents(labels, feature), tokenizer, max_length=6).select_columns(MODEL_COLUMNS)
    batch = DataCollatorWithPadding(tokenizer)([tokens[row] for row in range(3)])
    assert batch["labels"].dtype == dtype
    assert batch["labels"].tolist() == labels
    assert batch["attention_mask"].sum(1).tolist() == [4, 3, 6]
    assert batch["input_ids"][1].tolist() == [0, 5, 2, 1, 1, 1]


def test_a_maximum_without_room_for_text_is_an_error(tokenizer):
    with refused(field="max_length", match="2 special tokens"):
        tokenize(documents([0], Value("int64")), tokenizer, max_length=2)


def test_token_ids_beyond_the_vocabulary_are_an_error(tokenizer):
    check_token_ids(tokenizer, vocab_size=len(WORDS))
    tokenizer.add_tokens(["<extra>"])
    with pytest.raises(InputError, match=r"ids up to 7 \('<extra>'\), but the model's vocabulary ends at 6: use the"):
        check_token_ids(tokenizer, vocab_size=len(WORDS))
