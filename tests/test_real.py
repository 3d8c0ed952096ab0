"""A whole recipe, and real tweets where they are at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_readme import blocks, loading_example
from .tiny import ROOT, SHARED

needs_shared = pytest.mark.skipif(
    not (SHARED / "data" / "airline").is_dir(), reason="ROBERTA_GRU_SHARED names no folder with data/airline"
)


def launch(folder: Path, *options: object) -> tuple[dict, str]:
    """Train as a user does, in processes of its own; return the metrics and what was printed."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu.yaml"]
    command += ["train.py", "--output_dir", str(folder), "--disable_tqdm", "true", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads((folder / "metrics.json").read_text()), process.stdout


@pytest.mark.slow
def test_quickstart_learns_what_a_bag_of_words_cannot_and_says_what_the_readme_prints(tmp_path, capsys):
    metrics, printed = launch(tmp_path / "run", "--config", "recipes/quickstart.yaml")
    assert metrics["test"]["accuracy"]["value"] >= 0.96
    assert metrics["bag_of_words"]["test"]["accuracy"]["value"] < 0.75
    assert "Test accuracy 0.9" in printed
    assert "where importing modeling_roberta_gru fails" in printed
    (promised,) = blocks("text")
    exec(
        compile(
            loading_example().replace("runs/quickstart/model", str(tmp_path / "run" / "model")), "README.md", "exec"
        ),
        {},
    )
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    for (label, score), line in zip(said, promised.splitlines(), strict=True):
        assert label == line.split()[0]
        assert float(score) == pytest.approx(float(line.split()[1]), abs=0.1)  # processors round differently


@pytest.mark.slow
@needs_shared
def test_a_pretrained_encoder_beats_the_bag_of_words_on_few_real_tweets(tmp_path):
    options = ["--config", "recipes/airline-minilm.yaml", "--dataset_name", SHARED / "data" / "airline"]
    options += ["--model_name_or_path", SHARED / "encoders" / "minilm-l6-roberta", "--num_train_epochs", 2]
    # A hundred rows' accuracy is too coarse to choose a checkpoint by.
    options += ["--metric_for_best_model", "loss", "--max_validation_samples", 100]
    options += ["--max_train_samples", 600, "--max_test_samples", 400]
    metrics, _ = launch(tmp_path / "run", *options)
    ours, theirs = metrics["test"], metrics["bag_of_words"]["test"]
    assert ours["macro_f1"]["value"] > theirs["macro_f1"]["value"] + 0.05
    assert ours["accuracy"]["value"] > theirs["accuracy"]["value"]
