"""Train RoBERTa-GRU: `accelerate launch train.py --config recipes/quickstart.yaml`, or with options of your own.

`python train.py --help` lists every option.
"""

import sys

from modeling_roberta_gru.arguments import RunArgumentParser
from modeling_roberta_gru.cli import exit_status
from modeling_roberta_gru.experiment import run


def main() -> None:
    model_args, data_args, args, recipe = RunArgumentParser().parse(sys.argv[1:])
    run(model_args, data_args, args, recipe=recipe, command=sys.argv)


if __name__ == "__main__":
    sys.exit(exit_status(main))
