"""Every recipe: it parses, says what it reproduces, and takes two training steps on tiny stand-ins."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from modeling_roberta_gru.arguments import DataArguments, all_options
from modeling_roberta_gru.experiment import run
from modeling_roberta_gru.training.architectures import ARCHITECTURES, RecurrentNet
from modeling_roberta_gru.training.arguments import parse_run

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
SPACES = sorted((FOLDER / "spaces").glob("*.yaml"))


def parse(path: Path, *options: object):
    return parse_run(["--config", str(path), *map(str, options)])


@pytest.fixture
def data(reviews, tmp_path) -> dict[str, str]:
    """Return a folder of stand-in reviews, of which more are bad than good, and a file of vectors for their words."""
    header, *rows = (reviews / "train.csv").read_text().splitlines(keepends=True)
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "train.csv").write_text("".join([header, *rows[:48], *rows[48::2]]))
    (folder / "test.csv").write_text((reviews / "test.csv").read_text())
    rng = random.Random(0)
    words = sorted({word for row in rows for word in row.split(",")[0].split() if word.isalpha()})
    vectors = tmp_path / "vectors.txt"
    # Near each other, so that any may replace any.
    vectors.write_text("".join(f"{word} 1 1 {rng.random():.3f} {rng.random():.3f}\n" for word in words))
    return {"dataset_name": str(folder), "word_vectors": str(vectors)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_opens_with_what_it_is_and_writes_to_its_own_folder(path):
    assert path.read_text().startswith("# ")
    _, _, args, _ = parse(path)
    assert args.output_dir == f"runs/{path.stem}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_takes_two_steps_from_a_stand_in(path, tmp_path, data, stand_in):
    options = ["--output_dir", tmp_path / "run", "--max_steps", 2, "--verify_load", "false", "--disable_tqdm", "true"]
    model_args, data_args, args, recipe = parse(path, *options)
    if isinstance(ARCHITECTURES[model_args.architecture], RecurrentNet):
        model_args.config_overrides = "vocab_size=50,embedding_size=4,hidden_size=6"
    elif model_args.model_name_or_path:
        model_args.model_name_or_path = str(stand_in)
    else:
        model_args.config_overrides = "hidden_size=12,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
    of_the_file = ("train_file", "csv_columns", "csv_encoding", "label_column", "class_names")
    data_args = replace(
        data_args,
        **{name: getattr(DataArguments(), name) for name in of_the_file},
        dataset_name=data["dataset_name"],
        word_vectors=data_args.word_vectors and data["word_vectors"],
        max_train_samples=64,
    )
    run(model_args, data_args, args, recipe=recipe)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["recipe"] == path.stem
    assert record["steps"] == 2
    assert record["model"]["architecture"] == model_args.architecture
    assert record["hyperparameters"]["optimizer"] == args.optimizer
    added = record["data"]["counts"].get("oversampled", {"added": {}})["added"]
    assert any(added.values()) == (data_args.oversample != "none")


@pytest.mark.parametrize("name", ["paper-imdb", "paper-airline", "paper-sentiment140"])
def test_the_papers_recipes_are_the_papers(name):
    model, data, args, _ = parse(FOLDER / f"{name}.yaml")
    assert (model.architecture, model.model_name_or_path) == ("roberta-gru", "FacebookAI/roberta-base")
    assert (model.gru_hidden_size, model.head_hidden_size, model.summary) == (256, 256, "last")
    assert (args.optimizer, args.learning_rate, args.per_device_train_batch_size) == ("nadam", 1e-5, 32)
    assert (args.num_train_epochs, data.fractions) == (100, (0.6, 0.2, 0.2))
    assert data.pool_splits == (name == "paper-imdb")
    assert data.oversample == ("neighbours" if name == "paper-airline" else "none")
    assert args.early_stopping_patience


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_space_opens_with_what_it_repeats_and_holds_options(path):
    assert path.read_text().startswith("# ")
    assert set(yaml.safe_load(path.read_text())["space"]) <= set(all_options())
