"""Every recipe: it parses, says what it reproduces, and takes two training steps on tiny stand-ins."""

import json
from pathlib import Path

import pytest

from modeling_roberta_gru.experiment import run
from modeling_roberta_gru.training.arguments import RunArgumentParser

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def parse(path: Path, *options: object):
    return RunArgumentParser().parse(["--config", str(path), *map(str, options)])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_opens_with_what_it_is_and_writes_to_its_own_folder(path):
    assert path.read_text().startswith("# ")
    _, _, args, _ = parse(path)
    assert args.output_dir == f"runs/{path.stem}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_takes_two_steps_from_a_stand_in(path, tmp_path, reviews, stand_in):
    options = ["--output_dir", tmp_path / "run", "--max_steps", 2, "--verify_load", "false"]
    options += ["--disable_tqdm", "true", "--dataset_name", reviews, "--max_train_samples", 64]
    model_args, data_args, args, recipe = parse(path, *options)
    if model_args.model_name_or_path:
        model_args.model_name_or_path = str(stand_in)
    else:
        model_args.config_overrides = "hidden_size=12,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
    data_args.class_names = None  # the stand-in's labels are names already
    run(model_args, data_args, args, recipe=recipe)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["recipe"] == path.stem
    assert record["steps"] == 2
    assert record["hyperparameters"]["optimizer"] == "nadam"


def test_the_papers_recipe_is_the_papers():
    model, data, args, _ = parse(RECIPES[0].parent / "paper-imdb.yaml")
    assert (model.model_name_or_path, model.gru_hidden_size) == ("FacebookAI/roberta-base", 256)
    assert (args.optimizer, args.learning_rate, args.per_device_train_batch_size) == ("nadam", 1e-5, 32)
    assert (args.num_train_epochs, data.pool_splits, data.fractions) == (100, True, (0.6, 0.2, 0.2))
    assert args.early_stopping_patience
