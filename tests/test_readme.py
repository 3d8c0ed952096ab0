"""What README.md tells a newcomer to type works as written."""

import json
import re
import shlex
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.training.arguments import parse_run

from .conftest import TINY_ENCODER, tiny_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = [word for words in commands() if words[0] == "make" for word in words[1:] if "=" not in word]
    assert {"train", "test", "check"} <= set(targets)
    assert all(f"\n{target}:" in makefile for target in targets)


def test_every_training_command_parses():
    trainings = [words[words.index("train.py") + 1 :] for words in commands() if "train.py" in words]
    trainings = [options for options in trainings if options != ["--help"]]
    assert len(trainings) >= 3
    for options in trainings:
        options = [str(ROOT / word) if word.startswith("recipes/") else word for word in options]
        parse_run(options)


def test_the_python_example_runs_and_prints_labels_with_scores(stand_in, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    fields = {**TINY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": 66}
    RobertaGRUForSequenceClassification(tiny_config(**fields)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (example,) = blocks("python")
    assert len(example.strip().splitlines()) <= 8
    assert "runs/quickstart/model" in example
    exec(compile(example.replace("runs/quickstart/model", str(tmp_path)), "README.md", "exec"), {})
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(printed) == 2
    assert all(re.match(r"LABEL_[01] [01]\.\d\d$", line) for line in printed)


def test_the_results_are_the_recorded_ones():
    recorded = json.loads((ROOT / "benchmarks" / "results" / "imdb-encoders" / "comparison.json").read_text())
    rows = [line for line in README.splitlines() if line.startswith("|") and "% (" in line]
    assert len(rows) == len(recorded["systems"]) == 3
    for row, system in zip(rows, recorded["systems"], strict=True):
        percent = [f"{100 * system['accuracy'][name]:.1f}" for name in ("value", "low", "high")]
        error = [f"{system['calibration_error'][name]:.3f}" for name in ("value", "low", "high")]
        assert row.endswith("| {} % ({} to {}) | {} ({} to {}) |".format(*percent, *error))
        assert README.count("{} % ({} to {})".format(*percent)) == 2


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()
