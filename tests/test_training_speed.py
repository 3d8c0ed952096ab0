"""What is measured of training's speed, here and on a lent GPU, at toy size: what is counted and recorded."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from .conftest import BENCHMARKS, script

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("ROBERTA_GRU_SHARED", ROOT.parent / "shared"))
ROUNDS = {"notebook": (100.0, 110.0, 300.0), "linear": (400.0, 500.0, 600.0), "ours": (392.0, 480.0, 606.0)}


training_speed, gpu_job = map(script, ("training_speed", "gpu_job"))


@pytest.fixture
def runs():
    return [
        {
            "geometry": "roberta-base",
            "num_layers": 12,
            "system": system,
            "round": number,
            "tokens_per_second": speeds[number],
            "flops_per_second": 1e9 * speeds[number],
            "ceiling": 1e12,
            "padded_share": 0.25,
        }
        for number in range(3)
        for system, speeds in ROUNDS.items()
    ]


@pytest.fixture
def toy(gpu_job, tmp_path):
    return gpu_job.toy_job()._replace(folder=str(tmp_path))


# What is read


def test_lengths_are_distributed_as_recorded(training_speed):
    rng = training_speed.random.Random(0)
    lengths = torch.tensor([training_speed.draw_length(rng) for _ in range(20_000)], dtype=torch.float)
    recorded = torch.tensor(training_speed.LENGTHS, dtype=torch.float)
    assert lengths.mean().item() == pytest.approx(recorded.mean().item(), rel=0.01)
    for share in (0.1, 0.5, 0.8):
        assert lengths.quantile(share).item() == pytest.approx(recorded.quantile(share).item(), rel=0.03)


@pytest.mark.slow
@pytest.mark.skipif(
    not (SHARED / "data" / "imdb").is_dir(), reason="ROBERTA_GRU_SHARED names no folder with data/imdb"
)
def test_the_recorded_lengths_are_those_of_the_reviews(training_speed):
    from pyarrow import parquet
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "roberta-base")
    texts = parquet.read_table(SHARED / "data" / "imdb" / "train.parquet")["text"].to_pylist()[::5]
    lengths = torch.tensor([min(len(ids), 512) for ids in tokenizer(texts, verbose=False)["input_ids"]]).float()
    shares = (torch.arange(50) + 0.5) / 50
    torch.testing.assert_close(lengths.quantile(shares), torch.tensor(training_speed.LENGTHS).float(), rtol=0, atol=1)


def test_batches_are_of_like_lengths_and_spread_over_all(training_speed):
    batches = training_speed.draw_batches(training_speed.GEOMETRIES["toy"], 5, 8)
    lengths = [[row["length"] for row in batch] for batch in batches]
    first, *rest = lengths
    assert rest == sorted(rest)  # documents of one batch are neighbours
    assert max(rest[0]) < 170
    assert min(rest[-1]) == 512
    assert max(rest[1]) <= min(first)  # what goes before the clock is of middle length
    assert max(first) <= min(rest[2])
    for batch in batches:
        for row in batch:
            assert len(row["input_ids"]) == len(row["attention_mask"]) == row["length"]
            assert max(row["input_ids"]) < 60
            assert 1 not in row["input_ids"]  # no padding among the real tokens


# What is counted


def test_padding_is_counted_by_hand(training_speed):
    batches = [[{"length": 3}, {"length": 5}], [{"length": 4}, {"length": 4}]]
    assert training_speed.count_tokens(batches) == 16
    assert training_speed.padded_share(batches) == pytest.approx(2 / 18)
    assert training_speed.padded_share(batches, width=8) == 0.5


def test_flops_are_counted_by_hand(training_speed):
    fields = {"num_hidden_layers": 2, "hidden_size": 4, "intermediate_size": 8, "gru_hidden_size": 3}
    # A layer: 4 products of 4 × 4 and two of 4 × 8 for each of 5 tokens; scores and their sums: two of 5 · 5 · 4.
    layer = 2 * 5 * (4 * 16 + 2 * 32) + 2 * 2 * 25 * 4
    gru = 2 * 5 * (9 * 4 + 9 * 3)
    assert training_speed.training_flops(fields, 5, has_gru=False) == 3 * 2 * layer
    assert training_speed.training_flops(fields, 5, has_gru=True) == 3 * (2 * layer + gru)


def test_flops_are_those_that_torch_counts(training_speed):
    from torch.utils.flop_counter import FlopCounterMode

    fields = training_speed.GEOMETRIES["toy"]
    model = training_speed.make_model(fields, has_gru=False, attn_implementation="eager")
    row = training_speed.draw_batches(fields, 1, 1)[0][0]
    counter = FlopCounterMode(display=False)
    with counter:
        model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([1])).loss.backward()
    # The embeddings need no gradient of their input, but the head, which is not counted, is nearly nothing.
    assert training_speed.training_flops(fields, row["length"], has_gru=False) == pytest.approx(
        counter.get_total_flops(), rel=0.01
    )


def test_ours_is_compared_round_by_round(training_speed, runs):
    notebook, linear = training_speed.check_targets(runs)
    assert notebook == {
        "geometry": "roberta-base",
        "other": "notebook",
        "ratio": 3.92,
        "ratio_min": 2.02,
        "ratio_max": 4.3636,
        "at_least": 3.0,
        "holds": True,
    }
    assert (linear["ratio"], linear["ratio_min"], linear["ratio_max"]) == (0.98, 0.96, 1.01)
    assert linear["holds"]
    for run in runs:
        if run["system"] == "ours":
            run["tokens_per_second"] -= 1
    assert not training_speed.check_targets(runs)[1]["holds"]


# What is recorded


def test_every_system_trains_and_the_page_gets_its_table(training_speed, tmp_path, monkeypatch):
    monkeypatch.setitem(training_speed.GEOMETRIES, "toy", {**training_speed.GEOMETRIES["toy"], "num_hidden_layers": 2})
    path = tmp_path / "measured.json"
    options = ["--toy", "--steps", "1", "--rounds", "2", "--batch-size", "2", "--layers", "1", "--threads", "1"]
    outcome = CliRunner().invoke(training_speed.app, ["measure", *options, "--output", str(path)])
    assert outcome.exit_code == 0, outcome.output
    measured = json.loads(path.read_text())
    assert [(run["round"], run["system"]) for run in measured["runs"]] == [
        *((0, system) for system in ("notebook", "linear", "ours")),
        *((1, system) for system in ("linear", "ours", "notebook")),
    ]
    assert len({run["tokens"] for run in measured["runs"]}) == 1  # all read the same
    padded = {run["system"]: run["padded_share"] for run in measured["runs"]}
    assert padded["ours"] == padded["linear"] < padded["notebook"]
    assert {run["num_layers"] for run in measured["runs"]} == {1}
    lines = training_speed.table(measured)
    assert len([line for line in lines if line.startswith("| toy, 1 layers |")]) == 3
    assert {line.count("|") for line in lines if line.startswith("|")} == {9}


def test_the_table_and_the_figure_show_what_was_measured(training_speed, runs, tmp_path):
    measured = {
        "command": "python benchmarks/training_speed.py measure",
        "commit": "0123abc",
        "versions": {"python": "3.11", "torch": "2.13", "transformers": "5.23"},
        "hardware": {"num_threads": 2, "num_cores": 2, "processor": "a processor"},
        "batch_size": 18,
        "steps": 4,
        "rounds": 3,
        "dtype": "bfloat16",
        "figures": training_speed.summarise(runs),
        "targets": training_speed.check_targets(runs),
    }
    lines = training_speed.table(measured)
    assert lines[4] == (
        "| roberta-base, 12 layers | RoBERTa-GRU, NAdam | bfloat16 | 480 (392 to 606) | 25% | 480 | 48% | "
        "3.92 × the notebook's, 0.980 × the linear head's |"
    )
    assert "| float32 | 110 (100 to 300) |" in lines[2]
    assert "roberta-base, notebook: reached; roberta-base, linear: reached." in lines[6]
    training_speed.draw(measured, tmp_path / "training.png")
    with Image.open(tmp_path / "training.png") as picture:
        assert picture.size[0] > 500


# The GPU's job


def test_every_part_of_the_gpus_job_runs_on_the_cpu(gpu_job, toy):
    found = {
        name: gpu_job.attempt(part, toy._replace(variants=("float32", "bfloat16")), seconds_left=1e9)
        for name, part in gpu_job.PARTS.items()
        if not name.endswith("compiled")
    }
    assert not any("error" in figures for figures in found.values()), found
    assert found["waiting"] == {"skipped": "a CPU waits for nothing"}
    assert found["optimizer_steps"]["holds"]
    assert found["checks"]["holds"]
    assert found["growth"].keys() == {"16", "64"}
    assert found["training"]["2"]["tokens_per_second"].keys() == {
        *("linear", "notebook", "ours", "ours_multiple_of_8", "ours_torch_nadam")
    }
    assert found["scoring"]["tokens_per_second"].keys() == {"linear", "ours"}


@pytest.mark.slow
def test_the_gpus_job_compiles_on_the_cpu(gpu_job, toy):
    for name in ("checks", "training_compiled", "scoring_compiled"):
        figures = gpu_job.attempt(gpu_job.PARTS[name], toy, seconds_left=1e9)
        assert "error" not in figures, figures
        assert figures.get("holds", True), figures


def test_a_gpu_that_computes_something_else_is_told(gpu_job, toy, monkeypatch):
    original = gpu_job.values_and_gradients
    calls = itertools.count()

    def of_another_model(model, inputs):
        with torch.no_grad():
            model.head.out_proj.weight += 0.01 * next(calls)
        return original(model, inputs)

    monkeypatch.setattr(gpu_job, "values_and_gradients", of_another_model)
    found = gpu_job.checks(toy._replace(checked=(3, 9), variants=("float32",)))
    assert not found["holds"]


def test_a_part_without_time_is_skipped_and_one_that_fails_leaves_the_others(gpu_job, tmp_path, monkeypatch):
    def fail(job):
        raise RuntimeError("out of memory")

    parts = {
        "broken": gpu_job.Part(fail, 0.0),
        "long": gpu_job.Part(fail, 1e9),
        "short": gpu_job.Part(lambda job: {"found": job.device}, 0.0),
    }
    monkeypatch.setattr(gpu_job, "PARTS", parts)
    path = tmp_path / "gpu.json"
    app = gpu_job.typer.Typer()
    app.command()(gpu_job.main)
    outcome = CliRunner().invoke(app, ["--toy", "--output", str(path)])
    assert outcome.exit_code == 1  # a part failed
    measured = json.loads(path.read_text())["parts"]
    assert "RuntimeError: out of memory" in measured["broken"]["error"]
    assert measured["long"]["skipped"].startswith("it takes about 1000000000 s, and 5")
    assert measured["short"]["found"] == "cpu"
    assert "RuntimeError: out of memory" in outcome.output


def test_the_gpus_job_needs_neither_datasets_nor_evaluate(tmp_path):
    # Those that it needs must not bring them in: the lent machine does not have them.
    program = (
        "import sys; sys.modules['datasets'] = sys.modules['evaluate'] = None; "
        f"sys.path.insert(0, {str(BENCHMARKS)!r}); import gpu_job; gpu_job.import_nadam(); "
        "gpu_job.make_model(gpu_job.toy_job().fields, has_gru=True)"
    )
    process = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
