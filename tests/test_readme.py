"""What README.md tells a newcomer to type works as written."""

import json
import re
import shlex

import pytest
import typer
from transformers import AutoTokenizer

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.cli import app
from modeling_roberta_gru.training.arguments import parse_run

from .tiny import ROOT, TINY_ENCODER, tiny_config, write_reviews

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def commands(page: str = README) -> list[list[str]]:
    lines = "\n".join(blocks("bash", page)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def anchors(page) -> set[str]:
    """Return what a link can name of a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = [word for words in commands() if words[0] == "make" for word in words[1:] if "=" not in word]
    assert {"train", "test", "check"} <= set(targets)
    assert all(f"\n{target}:" in makefile for target in targets)


@pytest.mark.parametrize("page", [README, TUTORIAL], ids=["README", "tutorial"])
def test_every_training_command_parses(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainings = [words[2:] for words in commands(page) if words[:2] == ["roberta-gru", "train"]]
    trainings = [options for options in trainings if options != ["--help"]]
    assert len(trainings) >= 3
    for options in trainings:
        parse_run(options)


@pytest.mark.parametrize("page", [README, TUTORIAL], ids=["README", "tutorial"])
def test_every_other_command_has_the_options_it_is_given(page):
    known = typer.main.get_command(app).commands
    others = [words[1:] for words in commands(page) if words[0] == "roberta-gru" and words[1] != "train"]
    assert len(others) >= 3
    for name, *words in others:
        known[name].make_context(name, words)  # raises where an option is unknown or a value missing


def loading_example() -> str:
    (example,) = (block for block in blocks("python") if "pipeline(" in block)
    assert len(example.strip().splitlines()) <= 8
    assert "runs/quickstart/model" in example
    return example


def test_the_loading_example_runs_and_prints_labels_with_scores(stand_in, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    fields = {**TINY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": 66}
    RobertaGRUForSequenceClassification(tiny_config(**fields)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    example = loading_example().replace("runs/quickstart/model", str(tmp_path))
    exec(compile(example, "README.md", "exec"), {})
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(printed) == 2
    assert all(re.match(r"LABEL_[01] [01]\.\d\d$", line) for line in printed)


def test_the_tutorials_and_the_readmes_python_runs(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "reviews.csv", 60, seed=0)
    tiny = f'model_name_or_path="{stand_in}", max_steps=1, use_cpu=True, bag_of_words=False, disable_tqdm=True'
    (training,) = (block for block in blocks("python") if "import train\n" in block)
    training = training.replace('config="quickstart"', f'pd.read_csv("reviews.csv"), {tiny}')
    for code in (f"import pandas as pd\n{training}", *blocks("python", TUTORIAL)):
        code = re.sub(r'model_name_or_path="distilroberta-base",\s+num_train_epochs=2', lambda _: tiny, code)
        exec(compile(code, "page", "exec"), {})
    assert capsys.readouterr().out.count("[") >= 2


def test_the_results_are_the_recorded_ones():
    recorded = json.loads((ROOT / "benchmarks" / "results" / "imdb-all" / "comparison.json").read_text())
    rows = README.partition("| IMDb, ")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) == len(recorded["systems"]) == 3
    for row, system, times in zip(rows, recorded["systems"], (3, 2, 1), strict=True):
        percent = [f"{100 * system['accuracy'][name]:.1f}" for name in ("value", "low", "high")]
        loss, error = (
            [f"{system[metric][name]:.3f}" for name in ("value", "low", "high")]
            for metric in ("log_loss", "calibration_error")
        )
        assert row.endswith("| {} % ({} to {}) | {} ({} to {}) | {} ({} to {}) |".format(*percent, *loss, *error))
        assert README.count("{} % ({} to {})".format(*percent)) == times


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for path, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not heading or heading in anchors(target), f"{path}#{heading}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^ *\|.*\n)+", text, flags=re.MULTILINE):
        head, under, *rows = (len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines())
        assert rows, table
        assert not re.search(r"\w", table.splitlines()[1]), table
        assert {head, under, *rows} == {head}, table


def test_the_house_as_drawn_names_every_module():
    house = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition("## Source tree")[2].split("```")[1]
    named = set(re.findall(r"\w+", house))
    modules = {path.stem for path in (ROOT / "modeling_roberta_gru").rglob("*.py")} - {"__init__"}
    assert modules - named == set()


def test_every_file_to_open_exists():
    page = (ROOT / "docs" / "where.md").read_text(encoding="utf-8")
    cells = [line.split(" | ")[1] for line in page.splitlines() if line.startswith("| ") and "`" in line]
    for path in (path for cell in cells for path in re.findall(r"`([^`]+)`", cell)):
        assert any((folder / path).exists() for folder in (ROOT, ROOT / "modeling_roberta_gru")), path
