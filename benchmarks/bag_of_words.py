"""Measure the bag of words on all training rows of a data set, for docs/results.md.

`python benchmarks/bag_of_words.py ../shared/data/imdb benchmarks/results/imdb-minilm/bag_of_words.json`
"""

import sys

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.cli import exit_status
from modeling_roberta_gru.data.splits import load_splits
from modeling_roberta_gru.files import write_json
from modeling_roberta_gru.training.bag_of_words import measure_bag_of_words


def main() -> None:
    """Train on training and validation rows, measure on test, write the figures."""
    dataset, path = sys.argv[1:]
    splits = load_splits(DataArguments(dataset_name=dataset, clean_html=True))
    # Nothing is chosen here, so the rows that validate elsewhere train too.
    columns = ("text", "label")
    train = {name: splits.train[name][:] + splits.validation[name][:] for name in columns}
    figures = measure_bag_of_words(train, splits.test, splits.labels.names)
    write_json(path, {"command": " ".join(sys.argv), "n_train": len(train["text"]), "test": figures})


if __name__ == "__main__":
    sys.exit(exit_status(main))
