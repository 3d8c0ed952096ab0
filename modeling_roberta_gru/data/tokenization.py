"""From texts to token ids, ready for the Trainer.

Batches are made by [`~transformers.DataCollatorWithPadding`]`(tokenizer)`: it pads, and makes int64 of class indices
and float32 of vectors and targets. It wants the model's columns only; the Trainer drops `row_id` and `length` itself,
another loop calls `dataset.select_columns(MODEL_COLUMNS)` first.
"""

from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from ..errors import InputError

MODEL_COLUMNS = ["input_ids", "attention_mask", "labels"]


def tokenize(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> Dataset:
    """Tokenise documents.

    Args:
        dataset: columns `row_id`, `text` and encoded `label`.
        tokenizer: that of the model.
        max_length: texts are cut to this many tokens, special tokens included and kept; None cuts nothing.

    Returns:
        A data set with columns `row_id`, `input_ids`, `attention_mask`, `length` (tokens) and `labels`.

    Raises:
        InputError: if `max_length` leaves no room for text.
    """
    check_max_length(tokenizer, max_length)

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        encoded = tokenizer(
            batch["text"],
            truncation=max_length is not None,
            max_length=max_length,
            return_token_type_ids=False,
            verbose=False,
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        return {"row_id": batch["row_id"], **encoded, "length": lengths, "labels": batch["label"]}

    features = Features(
        row_id=Value("string"),
        input_ids=List(Value("int32")),
        attention_mask=List(Value("int8")),
        length=Value("int32"),
        labels=dataset.features["label"],
    )
    return dataset.map(encode, batched=True, remove_columns=dataset.column_names, features=features, desc="Tokenising")


def check_max_length(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> None:
    """Check that a text cut to so many tokens has some of its own.

    Raises:
        InputError: if not.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= special:
        raise InputError(f"--max_length {max_length} leaves no room for text beside {special} special tokens.")


def lift_limits(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a tokenizer, also once it is saved, give every token of a text: the model reads texts of any length."""
    tokenizer.model_max_length = VERY_LARGE_INTEGER
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()  # the last cut would else be written to tokenizer.json


def check_token_ids(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    """Check that the model has an embedding for every token.

    Raises:
        InputError: if the tokenizer can give an id of `vocab_size` or more.
    """
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= vocab_size:
        raise InputError(
            f"The tokenizer gives ids up to {largest} ({token!r}), but the model's vocabulary ends at "
            f"{vocab_size - 1}: use the tokenizer that came with the checkpoint, or resize its token embeddings."
        )
