"""Rewrite a BERT encoder as a RoBERTa encoder with the same outputs, so that RoBERTa-GRU can start from it.

    python benchmarks/bert_as_roberta.py sentence-transformers/all-MiniLM-L6-v2 ../shared/encoders/minilm-l6-roberta

RoBERTa counts positions from `pad_token_id` + 1 on, so its table of position embeddings begins with rows that are
never read. It has one type of token: BERT's first.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoTokenizer, BertModel, RobertaConfig, RobertaModel

SHARED_FIELDS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps", "pad_token_id"),
)


def convert(
    bert: Annotated[str, typer.Argument(help="A BERT encoder's folder or Hub id, with its tokenizer.")],
    folder: Annotated[Path, typer.Argument(help="The new encoder's folder.")],
) -> None:
    """Write the encoder and its tokenizer to a folder that `train --model_name_or_path` takes."""
    model, tokenizer = BertModel.from_pretrained(bert, add_pooling_layer=False), AutoTokenizer.from_pretrained(bert)
    offset = model.config.pad_token_id + 1
    config = RobertaConfig(
        **{name: getattr(model.config, name) for name in SHARED_FIELDS},
        max_position_embeddings=model.config.max_position_embeddings + offset,
        type_vocab_size=1,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    weights = model.state_dict()
    places, types = (f"embeddings.{name}_embeddings.weight" for name in ("position", "token_type"))
    weights[places] = torch.cat([weights[places].new_zeros(offset, config.hidden_size), weights[places]])
    weights[types] = weights[types][:1]
    converted = RobertaModel(config, add_pooling_layer=False)
    converted.load_state_dict(weights)
    converted.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    typer.run(convert)
