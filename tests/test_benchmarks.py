"""The scripts that measure, at toy size: what they record, and the page made of it."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.experiment import run
from modeling_roberta_gru.files import write_json
from modeling_roberta_gru.studies.comparison import compare
from modeling_roberta_gru.training.arguments import parse_run

from .conftest import TINY_ENCODER, script, tiny_config

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TOKENS = {"short": 100, "long": 1000}


document_length, long_documents, systems, results = map(
    script, ("document_length", "long_documents", "systems", "results")
)


def run_of(system: str, length: int, mib: float, seconds: float) -> dict[str, Any]:
    return {
        "system": system,
        "length": length,
        "above_loaded_bytes": round(mib * 2**20),
        "loaded_bytes": 500 * 2**20,
        "seconds": 2 * seconds,
        "cpu_seconds": seconds,
    }


def runs_where_the_long_document_takes(times_memory: float, times_time: float) -> list[dict[str, Any]]:
    ids = 8 * TOKENS["long"] / 2**20
    return [
        *(run_of("windows", TOKENS["short"], 80.0, seconds) for seconds in (0.9, 1.0, 7.0)),
        run_of("windows", TOKENS["long"], 80.0 * times_memory + ids, 10.0 * times_time),
        run_of("full_attention", TOKENS["short"], 90.0, 2.0),
    ]


def measured(document_length: ModuleType, runs: list[dict[str, Any]]) -> dict[str, Any]:
    figures = document_length.summarise(runs)
    return {
        "command": "python benchmarks/document_length.py measure",
        "commit": "0123abc",
        "versions": {"python": "3.11", "torch": "2.13", "transformers": "5.23"},
        "hardware": {"num_threads": 1, "num_cores": 2, "processor": "a processor"},
        "dtype": "float32",
        "figures": figures,
        "targets": document_length.check_targets(figures, *TOKENS.values()),
    }


def test_a_fresh_process_measures_a_document_longer_than_the_window(document_length, tmp_path):
    system = document_length.SYSTEMS["windows"]
    geometry = {name: TINY_ENCODER.get(name, value) for name, value in document_length.GEOMETRY.items()}
    sizes = document_length.save_model(tmp_path, system, geometry)
    assert sizes["encoder_window"] < 50
    run = document_length.run_probe(tmp_path, 50, system.environment)
    assert set(run) == {"loaded_bytes", "above_loaded_bytes", "seconds", "cpu_seconds"}
    assert run["loaded_bytes"] > 2**26
    assert 0 <= run["above_loaded_bytes"] < 2**26
    assert 0 < run["seconds"] < 10


@pytest.mark.parametrize(
    ("times_memory", "times_time", "holds"),
    [(1.09, 1.19, (True, True)), (1.11, 1.19, (False, True)), (1.09, 1.21, (True, False))],
)
def test_the_targets_compare_the_medians_of_long_and_short(document_length, times_memory, times_time, holds):
    figures = document_length.summarise(runs_where_the_long_document_takes(times_memory, times_time))
    targets = document_length.check_targets(figures, *TOKENS.values())
    assert (targets["memory_holds"], targets["time_per_token_holds"]) == holds
    assert targets["memory_ratio"] == pytest.approx(times_memory, abs=1e-3)
    assert targets["time_per_token_ratio"] == pytest.approx(times_time, abs=1e-3)


def test_without_the_long_document_no_target_is_judged(document_length):
    figures = document_length.summarise([run_of("windows", TOKENS["short"], 80.0, 1.0)])
    assert document_length.check_targets(figures, *TOKENS.values()) is None


def test_the_page_gets_its_table_and_keeps_the_rest(document_length, results, tmp_path):
    page = tmp_path / "long-documents.md"
    page.write_text("before\n\n<!-- it:begin -->\nold\n<!-- it:end -->\n\nafter\n")
    record = measured(document_length, runs_where_the_long_document_takes(1.02, 1.05))
    for _ in range(2):
        results.renew(page, "it", document_length.table(record))
    text = page.read_text()
    assert text.startswith("before\n\n<!--")
    assert text.endswith("-->\n\nafter\n")
    assert "old" not in text
    assert text.count("| 100 |  | 1.00 s, 80 MiB |  | 2.00 s, 90 MiB |  |") == 1
    assert "1.02 times the memory" in text
    document_length.draw(record, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 800


def test_the_recorded_measurement_is_what_the_script_writes_today(document_length):
    record = json.loads(document_length.RECORDED.read_text(encoding="utf-8"))
    assert record["figures"] == document_length.summarise(record["runs"])
    assert record["targets"] == document_length.check_targets(record["figures"])
    assert set(record["models"]) == set(document_length.SYSTEMS)


@pytest.mark.parametrize(("system", "pooled"), [("mean", lambda logits: logits.mean(0)), ("max", lambda x: x.amax(0))])
def test_windows_vote_on_their_own(long_documents, system, pooled):
    model = RobertaGRUForSequenceClassification(tiny_config(window_overlap=0)).eval()
    ids = torch.randint(3, 61, (1, 2 + 3 * 18))
    first, last = ids[:, :1], ids[:, -1:]
    windows = torch.cat([torch.cat([first, part, last], 1) for part in ids[:, 1:-1].split(18, dim=1)])
    expected = pooled(model(windows).logits)
    short = torch.randint(3, 61, (7,))
    expected_short = model(short[None]).logits[0]
    model.__class__ = {"mean": long_documents.WindowVote, "max": long_documents.MaxVote}[system]
    batch = torch.nn.functional.pad(short, (0, ids.shape[1] - 7), value=1)[None]
    logits = model(torch.cat([ids, batch]), torch.cat([torch.ones_like(ids), (batch != 1).long()])).logits
    torch.testing.assert_close(logits, torch.stack([expected, expected_short]), rtol=1e-5, atol=1e-5)


def record_run(folder: Path, task: str, system: str, seed: int, tests: dict[str, str]) -> None:
    """Write what a run of benchmarks/long_documents.py does; `tests` says which rows were right, part by part."""
    run = {
        **{"task": task, "system": system, "seed": seed, "window": 512, "commit": "0123abc", "steps": 3},
        **{"num_train": 5, "longest_training_document": 9, "training_seconds": 2.0, "precision": "fp32"},
        "tests": {part: {"right": right} for part, right in tests.items()},
        "versions": {"python": "3.11", "torch": "2.13", "transformers": "5.23"},
        "hardware": {"num_threads": 1, "num_cores": 2, "processor": "a processor"},
    }
    (folder / f"{task}-{system}-{seed}.json").write_text(json.dumps(run))


def rows_of(table: list[str]) -> dict[str, str]:
    return {line.split(" | ")[0].strip("| "): line for line in table if line.startswith("| ")}


def test_systems_are_compared_on_the_same_rows(long_documents, tmp_path, monkeypatch):
    monkeypatch.setattr(long_documents, "RESULTS", tmp_path)
    hits = {"whole": "1" * 60, "head": "10" * 30, "mean": "1" * 60, "max": "0" * 60}
    for system, right in hits.items():
        for seed in (0, 1):
            short = "1" * 60 if system == "max" else right
            record_run(tmp_path, "imdb", system, seed, {"long": right, "short": short})
    rows = rows_of(long_documents.table("imdb"))
    assert rows["first 512 tokens"].count("| 50.0 (") == 3
    assert "; +50.0 (+3" in rows["first 512 tokens"]
    assert rows["mean of window logits"].count("100.0 (100.0 to 100.0); +0.0 (+0.0 to +0.0)") == 3
    share = 3086 / 25000  # of long ones, which "max" gets wrong
    assert f"| {100 * (1 - share):.1f} (87.7 to 87.7); +{100 * share:.1f}" in rows["largest window logits"]
    assert "first and last 256 tokens" not in rows


def test_what_only_ours_was_tested_on_stays_empty_for_the_others(long_documents, tmp_path, monkeypatch):
    monkeypatch.setattr(long_documents, "RESULTS", tmp_path)
    record_run(tmp_path, "built-in-long", "whole", 0, {"test": "1" * 60, "ten_times": "1" * 60})
    record_run(tmp_path, "built-in-long", "head", 0, {"test": "10" * 30})
    rows = rows_of(long_documents.table("built-in-long"))
    assert rows["**RoBERTa-GRU, whole document**"].endswith("| 100.0 (100.0 to 100.0) | 100.0 (100.0 to 100.0) |")
    assert rows["first 512 tokens"].endswith(") |  |")


@pytest.mark.parametrize("study", ["airline", "imdb-recurrent", "imdb-encoders"])
def test_every_systems_command_parses_and_writes_to_a_folder_of_its_own(systems, study):
    runs = list(systems.commands(study, ""))
    assert len({folder for folder, _ in runs}) == len(runs)
    for folder, words in runs:
        options = [str(systems.ROOT / word) if word.startswith("recipes/") else word for word in words[1:]]
        model_args, data_args, args, _ = parse_run(options)
        assert systems.ROOT / args.output_dir == folder
        assert folder.name == f"seed-{args.seed}"
        assert model_args.architecture in folder.parent.name.replace("linear-head", "transformer")
        assert ("neighbours" in folder.parent.name) == (data_args.oversample == "neighbours")


def test_a_recorded_comparison_becomes_a_section_and_a_figure(systems, results, tmp_path, monkeypatch, reviews):
    runs = []
    for name in ("bag-of-words", "bag-of-words-balanced"):
        words = [
            "--architecture",
            "bag-of-words",
            "--dataset_name",
            str(reviews),
            "--output_dir",
            str(tmp_path / name),
        ]
        words += ["--class_weights", "balanced"] if "balanced" in name else []
        run(*parse_run(words), command=["train.py", *words])
        runs.append(tmp_path / name)
    monkeypatch.setattr(results, "RECORDED", tmp_path / "results")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    write_json(tmp_path / "results" / "airline" / "comparison.json", compare(runs))
    section = results._comparison("airline", "Airline")
    assert section.startswith("## Airline\n\n![Accuracy and macro-F1 of every system](airline.png)\n")
    assert "| bag-of-words, class_weights balanced | 42 | 100.0 (100.0 to 100.0) |" in section
    assert "`python benchmarks/systems.py airline`" in section
    with Image.open(tmp_path / "docs" / "airline.png") as picture:
        assert picture.width > 300


def test_a_recorded_study_becomes_a_section_and_figures(results, tmp_path, monkeypatch):
    figures = {"accuracy": {"value": 0.75, "low": 0.5, "high": 1.0, "n": 8}}
    row = {"figures": figures, "state": "complete", "best_step": 2, "seconds": 3.0, "curve": [[1.0, 0.5], [2.0, 0.75]]}
    better = {"accuracy": {"value": 0.875, "low": 0.5, "high": 1.0, "n": 8}}
    record = {
        "space": {"sampler": "grid", "metric": "accuracy", "space": {"optimizer": ["sgd", "nadam"]}},
        "num_trials": 2,
        "trials": [
            {**row, "trial": 0, "params": {"optimizer": "sgd"}},
            {**row, "trial": 1, "params": {"optimizer": "nadam"}, "figures": better},
        ],
        **{"data": {"counts": {"validation": 8}, "source": "reviews", "fingerprint": "ab12"}, "seed": 42},
        **{"final": None, "command": "roberta-gru sweep", "options": {}, "platforms": []},
    }
    monkeypatch.setattr(results, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    write_json(tmp_path / "reviews-optimizers.json", record)
    section = results._study(tmp_path / "reviews-optimizers.json")
    assert section.startswith("## Study: reviews-optimizers\n\n![")
    assert section.index("| 1 | nadam | 0.8750 (0.5000 to 1.0000) |") < section.index("| 0 | sgd |")
    for name in ("reviews-optimizers.png", "reviews-optimizers-curves.png"):
        assert f"({name})" in section
        with Image.open(tmp_path / "docs" / name) as picture:
            assert picture.width > 300
