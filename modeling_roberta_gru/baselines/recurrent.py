"""Compare with a recurrent net that reads word embeddings: RNN, LSTM, GRU, one way or both."""

import logging
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from ..arguments import RECURRENT_NETS, ModelArguments
from ..configuration_recurrent import RecurrentConfig
from ..data.labels import LabelSpace
from ..data.tokenization import (
    PreTrainedTokenizerFast,
    WordVectors,
    check_token_ids,
    embedding_matrix,
    read_vectors,
    train_word_tokenizer,
)
from ..errors import InputError
from ..modeling_recurrent import RecurrentForSequenceClassification
from ..training.loading import first_line, read_tokenizer

SET_ELSEWHERE = {
    "cell": "--architecture",
    "bidirectional": "--architecture",
    "pad_token_id": "the tokenizer",
    "class_weights": "--class_weights",
    "label_smoothing": "--label_smoothing_factor",
}
"""Fields of the configuration that another option says."""

logger = logging.getLogger(__name__)


def load_tokenizer(args: ModelArguments, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """Learn the vocabulary from `texts`, or load the tokenizer that `args.tokenizer_name` names.

    Raises:
        InputError: if none can be read there.
    """
    if args.tokenizer_name is None:
        config = RecurrentConfig(**args.config_fields(RecurrentConfig()))
        return train_word_tokenizer(texts, config.vocab_size)
    return read_tokenizer(args.tokenizer_name, tokenizer_class=PreTrainedTokenizerFast)


def load_model(
    args: ModelArguments,
    tokenizer: PreTrainedTokenizerBase,
    labels: LabelSpace,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
) -> RecurrentForSequenceClassification:
    """Build a recurrent net of random weights; its embeddings start from the vectors of `args.embeddings`, if named.

    Raises:
        InputError: if the sizes are not possible, or the vectors do not fit them or the vocabulary.
    """
    cell, bidirectional = RECURRENT_NETS[args.architecture]
    overrides = args.config_fields(RecurrentConfig())
    for name in overrides.keys() & SET_ELSEWHERE.keys():
        raise InputError(f"--config_overrides {name}: it is set by {SET_ELSEWHERE[name]}. Leave it out.")
    vectors = read_vectors(args.embeddings, words=tokenizer.get_vocab()) if args.embeddings else None
    fields = {**overrides, **labels.config_fields()}
    fields |= {"cell": cell, "bidirectional": bidirectional, "pad_token_id": tokenizer.pad_token_id}
    fields |= {"vocab_size": len(tokenizer), "class_weights": class_weights, "label_smoothing": label_smoothing}
    if vectors is not None:
        width = vectors.vectors.shape[1]
        if fields.setdefault("embedding_size", width) != width:
            raise InputError(
                f"--config_overrides embedding_size={fields['embedding_size']} does not fit --embeddings "
                f"{args.embeddings}, whose vectors have {width} numbers: leave embedding_size out."
            )
    try:
        model = RecurrentForSequenceClassification(RecurrentConfig(**fields))
    except ValueError as error:
        raise InputError(f"The model to be built is not usable: {first_line(error)}") from error
    check_token_ids(tokenizer, model.config.vocab_size)
    if vectors is not None:
        _start_from(model, tokenizer, vectors, args)
    return model


def _start_from(
    model: RecurrentForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    vectors: WordVectors,
    args: ModelArguments,
) -> None:
    matrix, num_found = embedding_matrix(tokenizer, vectors, torch.initial_seed())
    embeddings = model.recurrent.embeddings.weight
    with torch.no_grad():
        embeddings.copy_(torch.from_numpy(matrix))
    embeddings.requires_grad = not args.freeze_embeddings
    num_words = len(tokenizer) - len(set(tokenizer.all_special_ids))
    if num_found < num_words:
        logger.warning(
            "%d of the vocabulary's %d words are not in %s: they %s random vectors.",
            num_words - num_found,
            num_words,
            args.embeddings,
            "keep" if args.freeze_embeddings else "start from",
        )
