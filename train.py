"""Train RoBERTa-GRU by `accelerate launch train.py …` or torchrun; elsewhere `roberta-gru train …` does the same."""

from modeling_roberta_gru.cli import main

if __name__ == "__main__":
    main("train")
