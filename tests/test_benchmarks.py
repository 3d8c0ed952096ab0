"""The benchmarks at toy size: what they count and compare, that they run, and the pages made of what is recorded."""

import itertools
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from typer.testing import CliRunner

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.data.labels import LabelSpace
from modeling_roberta_gru.modeling_roberta_gru import Windows
from modeling_roberta_gru.training.arguments import parse_run

from .refusals import refused
from .tiny import BENCHMARKS, SHARED, TINY_ENCODER, script, tiny_config

# The engines' own: converters that are on their way out, and packages that call each other's old names.
pytestmark = pytest.mark.filterwarnings("ignore")

measuring, results, systems = map(script, ("measuring", "results", "systems"))
bert_as_roberta = script("bert_as_roberta")
document_length, long_documents, training_speed = map(script, ("document_length", "long_documents", "training_speed"))
preparation = script("preparation")
gpu_job, breakdown, agreement, scoring = map(script, ("gpu_job", "breakdown", "agreement", "scoring"))


def run_script(module: ModuleType, output: Path, *options: str) -> dict[str, Any]:
    outcome = CliRunner().invoke(module.app, [*options, "--output", str(output)])
    assert outcome.exit_code == 0, outcome.output
    return json.loads(output.read_text())


# What is counted


def test_flops_are_those_that_torch_counts(measuring):
    config = tiny_config(attn_implementation="eager")
    model = RobertaForSequenceClassification(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randint(3, 61, (1, 17)))
    assert measuring.flops([17], config.to_dict(), has_gru=False) == counter.get_total_flops()


def test_flops_are_those_reckoned_by_hand(measuring):
    # Two layers of width 12 and 20 within: weights 4·12·12 + 2·12·20 = 1,056; 5 tokens meet 5 tokens.
    assert measuring.encoder_flops(5, tiny_config()) == 2 * (2 * 5 * 1056 + 4 * 5 * 5 * 12) == 23_520
    # GRU of 7, three gates reading 12 + 7 values; then a dense layer of 5 and two logits.
    assert measuring.head_flops(5, tiny_config(), has_gru=True) == 5 * 2 * 3 * 7 * 19 + 2 * (7 * 5 + 5 * 2) == 4_080


@pytest.mark.parametrize("length", [20, 21, 34, 35, 200])
def test_flops_are_counted_window_by_window(measuring, length):
    config = tiny_config()
    num_windows = int(Windows(torch.tensor([length]), config).counts[0])
    assert measuring.encoder_flops(length, config) == num_windows * measuring.encoder_flops(20, config)


def test_padding_is_counted_by_hand(training_speed):
    batches = [[{"length": 3}, {"length": 5}], [{"length": 4}, {"length": 4}]]
    assert training_speed.count_tokens(batches) == 16
    assert training_speed.padded_share(batches) == pytest.approx(2 / 18)
    assert training_speed.padded_share(batches, width=8) == 0.5


def test_each_system_comes_first_in_one_round(measuring):
    turns = [measuring.turned(["a", "b", "c"], index) for index in range(4)]
    assert turns == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_rows_are_drawn_one_from_each_stretch(measuring):
    rows = measuring.spread_rows(1003, 100)
    assert all(1003 * index // 100 <= row < 1003 * (index + 1) // 100 for index, row in enumerate(rows))
    assert measuring.spread_rows(7, 7) == list(range(7))


# The pages


def test_the_pages_hold_what_is_recorded(results, tmp_path, drawn):
    for page, module, tables, plots in results.PAGES:
        if not module.RECORDED.is_file():
            continue
        record = json.loads(module.RECORDED.read_text())
        text = (results.DOCS / f"{page}.md").read_text()
        for name, make_table in tables.items():
            shown = text.partition(f"<!-- {name}:begin -->\n")[2].partition(f"\n<!-- {name}:end -->")[0]
            assert shown == "\n".join(make_table(record)), name
        for draw in plots.values():
            draw(record, tmp_path / "plot.png")
            with Image.open(tmp_path / "plot.png") as picture:
                assert picture.width > 800


def test_a_page_keeps_what_stands_around_its_table(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- it:begin -->\nold\n<!-- it:end -->\n\nafter\n")
    for lines in (["longer", "than", "before"], ["new"]):
        results.renew(page, "it", lines)
    assert page.read_text() == "before\n\n<!-- it:begin -->\nnew\n<!-- it:end -->\n\nafter\n"
    with pytest.raises(ValueError, match="another:begin"):
        results.renew(page, "another", ["lines"])


@pytest.mark.slow
def test_every_page_is_what_is_made_of_the_records(results, tmp_path, monkeypatch):
    pages = [*results.DOCS.glob("*.md"), results.ROOT / "README.md"]
    copies = {page: tmp_path / page.relative_to(results.ROOT) for page in pages}
    (tmp_path / "docs").mkdir()
    for page, copy in copies.items():
        # Something else stands in every table, so that one which is not renewed is seen, too.
        tables = re.compile(r"(<!-- \S+:begin -->\n).*?(?=<!-- \S+:end -->)", re.DOTALL)
        copy.write_text(tables.sub(r"\1old\n", page.read_text()))
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "DOCS", tmp_path / "docs")
    results.main()
    assert [page.name for page, copy in copies.items() if copy.read_text() != page.read_text()] == []


def test_recorded_figures_are_what_the_scripts_make_of_the_runs_today(document_length, training_speed, scoring):
    record = json.loads(document_length.RECORDED.read_text())
    assert record["figures"] == document_length.summarise(record["runs"])
    assert record["targets"] == document_length.check_targets(record["figures"])
    record = json.loads(training_speed.RECORDED.read_text())
    assert record["figures"] == training_speed.summarise(record["runs"])
    assert record["targets"] == training_speed.check_targets(record["runs"])
    record = json.loads(scoring.RECORDED.read_text())
    figures = scoring.summarise(record["runs"], record["workloads"], record["ceilings"])
    assert [{**figure, "batching": None} for figure in record["figures"]] == [
        {**figure, "batching": None} for figure in figures
    ]
    assert record["targets"] == scoring.check_targets(figures)
    assert record["growth"] == scoring.summarise_growth(record["growth_runs"])


# Documents longer than a window


@pytest.mark.slow
def test_a_clean_process_measures_a_document_longer_than_the_window(document_length, tmp_path):
    system = document_length.SYSTEMS["windows"]
    geometry = {name: TINY_ENCODER.get(name, value) for name, value in document_length.GEOMETRY.items()}
    assert document_length.save_model(tmp_path, system, geometry)["encoder_window"] < 50
    run = document_length.run_probe(tmp_path, 50, system.environment)
    assert set(run) == {"loaded_bytes", "above_loaded_bytes", "seconds", "cpu_seconds"}
    assert 0 <= run["above_loaded_bytes"] < 2**26 < run["loaded_bytes"]
    assert run["seconds"] > 0


@pytest.mark.parametrize(
    ("times_memory", "times_time", "holds"),
    [(1.09, 1.19, (True, True)), (1.11, 1.19, (False, True)), (1.09, 1.21, (True, False))],
)
def test_the_long_document_is_compared_with_the_short_one(document_length, times_memory, times_time, holds):
    def run_of(length: int, mib: float, seconds: float) -> dict[str, Any]:
        run = {"system": "windows", "length": length, "above_loaded_bytes": round(mib * 2**20), "loaded_bytes": 2**29}
        return {**run, "seconds": 2 * seconds, "cpu_seconds": seconds}

    short = [run_of(100, 80.0, seconds) for seconds in (0.9, 1.0, 7.0)]
    long = run_of(1000, 80.0 * times_memory + 8 * 1000 / 2**20, 10.0 * times_time)
    targets = document_length.check_targets(document_length.summarise([*short, long]), 100, 1000)
    assert (targets["memory_holds"], targets["time_per_token_holds"]) == holds
    assert document_length.check_targets(document_length.summarise(short), 100, 1000) is None


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


def record_run(folder: Path, task: str, system: str, seed: int, tests: dict[str, str], fold: str = "") -> None:
    """Write what a run of benchmarks/long_documents.py does; `tests` says which rows were right, part by part."""
    run = {
        **{"task": task, "system": system, "seed": seed, "window": 512, "commit": "0123abc", "steps": 3},
        **{"num_train": 5, "longest_training_document": 9, "training_seconds": 2.0, "precision": "fp32"},
        "tests": {part: {"right": right} for part, right in tests.items()},
        "versions": {"python": "3.11", "torch": "2.13", "transformers": "5.23"},
        "hardware": {"num_threads": 1, "num_cores": 2, "processor": "a processor"},
    }
    (folder / f"{task}-{system}-{seed}{fold}.json").write_text(json.dumps(run))


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


def test_a_seed_is_compared_with_itself(long_documents, tmp_path, monkeypatch):
    monkeypatch.setattr(long_documents, "RESULTS", tmp_path)
    for system, seed, right in (("whole", 0, "0"), ("whole", 2, "1"), ("head", 2, "1"), ("head", 1, "0")):
        record_run(tmp_path, "hyperpartisan", system, seed, {"test": right * 60}, "-fold-0")
    monkeypatch.setitem(long_documents.TASKS["hyperpartisan"], "num_folds", 1)
    assert (
        "| 50.0 (0.0 to 100.0); +0.0 (+0.0 to +0.0) |"
        in rows_of(long_documents.table("hyperpartisan"))["first 512 tokens"]
    )


def test_what_only_ours_was_tested_on_stays_empty_for_the_others(long_documents, tmp_path, monkeypatch):
    monkeypatch.setattr(long_documents, "RESULTS", tmp_path)
    record_run(tmp_path, "built-in-long", "whole", 0, {"test": "1" * 60, "ten_times": "1" * 60})
    record_run(tmp_path, "built-in-long", "head", 0, {"test": "10" * 30})
    rows = rows_of(long_documents.table("built-in-long"))
    assert rows["**RoBERTa-GRU, whole document**"].endswith("| 100.0 (100.0 to 100.0) | 100.0 (100.0 to 100.0) |")
    assert rows["first 512 tokens"].endswith(") |  |")


def test_folds_are_joined_and_runs_that_lack_one_left_out(long_documents, tmp_path, monkeypatch):
    monkeypatch.setattr(long_documents, "RESULTS", tmp_path)
    for system in ("whole", "mean", "max"):
        for fold in range(2 if system == "max" else 3):
            right = "1" * 20 if system == "whole" or fold else "0" * 20
            record_run(tmp_path, "hyperpartisan", system, 0, {"test": right}, f"-fold-{fold}")
    table = long_documents.table("hyperpartisan")
    rows = rows_of(table)
    assert "all articles, n = 60" in table[0]
    assert "| 66.7 (" in rows["mean of window logits"]
    assert "; +33.3 (" in rows["mean of window logits"]
    assert "largest window logits" not in rows
    assert table[-1].startswith("- 6 to 6 s of training")


def test_every_article_is_tested_once_and_never_trained_on(long_documents, monkeypatch):
    texts = [f"Article {row} of outlet {row % 10}." for row in range(60)]
    documents = long_documents.heads.Documents(texts, np.arange(60) // 10 % 2, np.arange(60) % 10)
    monkeypatch.setattr(long_documents.heads, "load", lambda task, data: documents)
    tested = []
    for fold in range(3):
        splits = long_documents.splits_of_fold("hyperpartisan", fold)
        test = set(splits.test["text"][:])
        others = set(splits.train["text"][:]) | set(splits.validation["text"][:])
        assert test | others == set(texts)
        assert not {text.split()[-1] for text in test} & {text.split()[-1] for text in others}
        tested += test
    assert sorted(tested) == sorted(texts)


def test_a_bert_that_is_written_as_a_roberta_gives_the_same_states(bert_as_roberta, tmp_path):
    tokenizer = train_tokenizer(["the plot was long and slow but we liked its music"], vocab_size=300)
    fields = {"vocab_size": len(tokenizer), "hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20}
    bert = BertModel(BertConfig(**fields, num_hidden_layers=2, max_position_embeddings=20, pad_token_id=1)).eval()
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    bert_as_roberta.convert(str(tmp_path / "bert"), tmp_path / "roberta")
    roberta = AutoModel.from_pretrained(tmp_path / "roberta").eval()
    batch = tokenizer(["the plot was long", "slow"], padding=True, return_tensors="pt")
    states = [model(**batch).last_hidden_state[batch["attention_mask"] == 1] for model in (bert, roberta)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    longest = torch.full((1, 20), 5)
    torch.testing.assert_close(*(model(longest).last_hidden_state for model in (bert, roberta)), rtol=0, atol=0)
    assert AutoTokenizer.from_pretrained(tmp_path / "roberta")("slow")["input_ids"] == tokenizer("slow")["input_ids"]


@pytest.mark.parametrize(
    "study", ["airline", "imdb-recurrent", "imdb-encoders", "imdb-whole", "imdb-all", "imdb-adapted", "imdb-few"]
)
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


# Scoring


def test_a_speed_compares_runs_of_the_same_round(scoring):
    times = {"stock": [10.0, 20.0, 30.0], "ours-int8": [5.0, 4.0, 10.0], "openvino-int8": [5.0, 10.0, 15.0]}
    runs = [
        {"workload": "reviews", "system": key, "round": index, "seconds": seconds}
        for key, of_rounds in times.items()
        for index, seconds in enumerate(of_rounds)
    ]
    runs.append({"workload": "long", "system": "ours-int8", "round": 0, "seconds": 2.0})
    workload = {"num_tokens": 600, "flops": {"peers": 40e9, "ours": 50e9}}
    ceilings = {"float32": {"median": 20.0}, "int8": {"median": 100.0}}
    stock, ours, _, long = figures = scoring.summarise(runs, {"reviews": workload, "long": workload}, ceilings)
    assert ours["speed"] == {"median": 3.0, "min": 2.0, "max": 5.0}  # 10 / 5, 20 / 4, 30 / 10
    assert (ours["tokens_per_second"], ours["gflops"], ours["of_ceiling"]) == (120.0, 10.0, 0.1)
    assert (stock["gflops"], stock["of_ceiling"]) == (2.0, 0.1)
    assert long["speed"] is None  # the stock pipeline cannot read it
    target = scoring.check_targets(figures)["reviews"]
    assert (target["ours"], target["peer"], target["ours_over_peer"]) == ("ours-int8", "openvino-int8", 1.5)


@pytest.mark.parametrize("is_sorted", [True, False])
def test_every_text_stands_in_one_batch(scoring, is_sorted):
    lengths = [9, 2, 7, 2, 5, 30, 1]
    batches = sys.modules["scoring_engines"].batches(lengths, scoring.Batching(3, is_sorted))
    assert [len(rows) for rows in batches] == [3, 3, 1]
    rows = list(itertools.chain(*batches))
    assert sorted(rows) == list(range(7))
    assert [lengths[row] for row in rows] == (sorted(lengths, reverse=True) if is_sorted else lengths)


def test_the_fastest_batching_is_chosen_for_each_workload(scoring):
    small, large = scoring.Batching(4), scoring.Batching(8)
    times = {("x", "reviews"): (3.0, 2.0), ("x", "tweets"): (1.0, 2.0), ("y", "reviews"): (5.0, 6.0)}
    tried = [
        {"system": key, "workload": name, "batching": batching, "seconds": seconds}
        for (key, name), both in times.items()
        for batching, seconds in zip((small, large), both, strict=True)
    ]
    assert scoring.choose(tried) == {("x", "reviews"): large, ("x", "tweets"): small, ("y", "reviews"): small}


def test_texts_are_cut_between_words_to_512_tokens(scoring):
    texts = scoring.toy_texts()["reviews"][:8]
    tokenizer = train_tokenizer(texts, vocab_size=300)
    lengths = [scoring.num_tokens(text, tokenizer) for text in texts]
    assert min(lengths) > 512
    short = texts[0][:200]
    for text, shortened in zip([*texts, short], scoring.cut([*texts, short], tokenizer), strict=True):
        assert text.startswith(shortened)
        assert 490 < scoring.num_tokens(shortened, tokenizer) <= 512 or shortened == short


def built(scoring: ModuleType, monkeypatch: pytest.MonkeyPatch, num_threads: int) -> tuple[Any, Any]:
    """Build stand-ins for all systems, of which each takes as many seconds as it computes batches at once."""
    stand_ins = {
        key: system._replace(build=lambda material, dtype, at_once: at_once) for key, system in scoring.SYSTEMS.items()
    }
    monkeypatch.setattr(scoring, "SYSTEMS", stand_ins)
    monkeypatch.setattr(scoring, "seconds_of", lambda score, workload, batching: float(score))
    workloads = dict.fromkeys(scoring.BATCHINGS, scoring.Workload("texts", ["a"], [[0, 2]]))
    material = scoring.Material(Path(), {}, [], num_threads)
    return scoring.build(material, list(stand_ins), workloads)


def test_a_peer_that_is_not_installed_is_left_out_and_named(scoring, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["scoring_engines"], "find_spec", lambda name: None)
    scores, _ = built(scoring, monkeypatch, num_threads=1)
    assert {key for key, _ in scores} == {
        *("stock", "stock-batches", "stock-bfloat16", "torch-int8", "ours", "ours-bfloat16", "ours-int8")
    }
    assert "CTranslate2, int8 is left out: ctranslate2 is not installed." in capsys.readouterr().err


def test_engines_are_tried_with_a_batch_on_all_cores_and_with_a_batch_a_core(scoring, monkeypatch):
    monkeypatch.setattr(sys.modules["scoring_engines"], "find_spec", lambda name: name)
    scores, tried = built(scoring, monkeypatch, num_threads=3)
    assert {trial["batching"].at_once for trial in tried if trial["system"] == "openvino-int8"} == {1, 3}
    assert {trial["batching"].at_once for trial in tried if trial["system"] in ("stock-bfloat16", "ours")} == {1}
    assert all(at_once == 1 for _, at_once in scores)  # the slower ones are gone


# Largest difference of a probability from that of the same model in float32.
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.002, "int8": 0.012}  # the texts' probabilities differ by 0.02


@pytest.mark.slow
def test_the_toy_runs_end_to_end_and_every_system_computes_the_same(scoring, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "PAUSE", 0.0)
    scoring.measure(rounds=1, toy=True, system=None, output=tmp_path / "toy.json")
    measured = json.loads((tmp_path / "toy.json").read_text())
    differences = measured["largest_differences"]
    assert {"stock", "stock-batches", "stock-bfloat16", "torch-int8", "ours"} <= set(differences)
    for key, difference in differences.items():
        assert difference < TOLERANCES[scoring.SYSTEMS[key].dtype], key
    assert {run["system"] for run in measured["runs"] if run["workload"] == "tweets"} == set(differences)
    assert max(workload["longest"] for workload in measured["workloads"].values()) > 512
    assert measured["workloads"]["long-cut"]["longest"] <= 512
    assert scoring.table(measured)[0].startswith("| IMDb reviews")


# A trained model's labels


def test_labels_are_compared_with_float32s_and_with_the_true_ones(agreement):
    float32 = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    int8 = np.array([[0.8, 0.2], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]])
    compared = agreement.compare_labels({"float32": float32, "int8": int8}, np.array([0, 1, 1, 0]))
    assert [compared[dtype]["equal"]["hits"] for dtype in compared] == [4, 3]
    assert [compared[dtype]["accuracy"]["hits"] for dtype in compared] == [2, 3]
    assert compared["int8"]["largest_difference"] == 0.2


@pytest.mark.slow
def test_a_trained_models_labels_are_compared(scoring, agreement, tmp_path, monkeypatch, reviews, stand_in):
    pytest.importorskip("openvino")
    run, linear = tmp_path / "mine", tmp_path / "linear"
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    vocabulary = {"vocab_size": len(tokenizer)}
    models = {
        run: RobertaGRUForSequenceClassification(tiny_config(**vocabulary, max_position_embeddings=66, **names)),
        linear: RobertaForSequenceClassification(RobertaConfig(**{**scoring.TOY, **vocabulary}, **names)),
    }
    record = {"command": "train.py --seed 3", "commit": "0123abc", "options": {}, "data": {"max_length": None}}
    for folder, model in models.items():
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        (folder / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(sys, "argv", ["agreement.py", str(run)])
    output = tmp_path / "agreement.json"
    agreement.measure(run, rows=20, data=reviews / "test.csv", linear_head=linear, output=output)
    measured = json.loads((tmp_path / "agreement.json").read_text())
    assert measured["n"] == 20
    assert measured["command"] == "python benchmarks/agreement.py mine"
    assert measured["model"]["command"] == "train.py --seed 3"
    assert set(measured["figures"]) == {"float32", "bfloat16", "int8"}
    assert measured["figures"]["float32"]["equal"]["value"] == 1.0
    assert 0 < measured["figures"]["int8"]["largest_difference"] < 0.1
    peers = measured["peers"]["figures"]
    assert peers["openvino"]["equal"]["value"] == 1.0
    assert set(peers) == {name for name in agreement.PEERS if all(map(find_spec, scoring.SYSTEMS[name].packages))}
    assert all(0 < peers[name]["largest_difference"] < 0.1 for name in peers if name != "openvino")
    rows = [line for line in agreement.table(measured) if "float32" in line and "| " in line]
    assert "`train.py --seed 3`, commit `0123abc`" in "\n".join(agreement.table(measured))
    assert len(rows) >= 2
    with refused(field="linear_head", file=str(linear), match="labels .*bad.*, and the other run .*fair"):
        agreement.measure_peers(linear, None, [], LabelSpace("single_label_classification", ("fair", "good")))


# Training


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


def test_ours_is_compared_round_by_round(training_speed):
    speeds = {"notebook": (100.0, 110.0, 300.0), "linear": (400.0, 500.0, 600.0), "ours": (392.0, 480.0, 606.0)}
    runs = [
        {"geometry": "toy", "system": system, "round": number, "tokens_per_second": speed}
        for system, of_rounds in speeds.items()
        for number, speed in enumerate(of_rounds)
    ]
    notebook, linear = training_speed.check_targets(runs)
    assert (notebook["ratio"], notebook["ratio_min"], notebook["ratio_max"]) == (3.92, 2.02, 4.3636)
    assert (linear["ratio"], linear["ratio_min"], linear["ratio_max"]) == (0.98, 0.96, 1.01)
    assert notebook["holds"]
    assert linear["holds"]
    runs[-2]["tokens_per_second"] -= 1
    runs[-3]["tokens_per_second"] -= 1
    assert not training_speed.check_targets(runs)[1]["holds"]


@pytest.mark.slow
def test_every_system_trains_on_the_same_tokens(training_speed, tmp_path):
    options = ["--toy", "--steps", "1", "--rounds", "2", "--batch-size", "2", "--layers", "1", "--threads", "1"]
    measured = run_script(training_speed, tmp_path / "measured.json", "measure", *options)
    assert [(run["round"], run["system"]) for run in measured["runs"]] == [
        *((0, system) for system in ("notebook", "linear", "ours")),
        *((1, system) for system in ("linear", "ours", "notebook")),
    ]
    assert len({run["tokens"] for run in measured["runs"]}) == 1
    padded = {run["system"]: run["padded_share"] for run in measured["runs"]}
    assert padded["ours"] == padded["linear"] < padded["notebook"]
    lines = training_speed.table(measured)
    assert {line.count("|") for line in lines if line.startswith("|")} == {9}


# Where the time goes


@pytest.mark.slow
def test_every_kind_of_work_is_found_and_shares_add_up(breakdown, tmp_path):
    pytest.importorskip("openvino")
    measured = run_script(breakdown, tmp_path / "breakdown.json", "--toy", "--rounds", "1")
    for name, job in measured["jobs"].items():
        (run,) = job["runs"]
        assert all(run[kind] > 0 for kind in set(breakdown.KINDS) - {breakdown.OPTIMIZER, breakdown.REST})
        assert (breakdown.OPTIMIZER in run) == (name == "training")
        assert sum(share["median"] for share in job["shares"].values()) == pytest.approx(1, abs=1e-3)


BACKWARD = "autograd::engine::evaluate_function: AddmmBackward0"


@pytest.mark.parametrize(
    ("names", "sequence_nr", "kind"),
    [
        (["aten::addmm", "aten::linear"], -1, "PRODUCTS"),
        (["aten::mm", BACKWARD], 4, "PRODUCTS"),
        (["aten::addmm", "aten::gru", "GRU"], -1, "GRU"),
        (["aten::mm", BACKWARD], 5, "GRU"),
        (["aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu"], -1, "ATTENTION"),
        (["aten::native_layer_norm"], -1, "BETWEEN"),
        (["aten::_foreach_norm"], -1, "OPTIMIZER"),
        (["aten::mul", "Optimizer.step#NAdam.step"], -1, "OPTIMIZER"),
        ([BACKWARD], 4, "REST"),
    ],
)
def test_an_operation_is_of_the_kind_that_its_surroundings_say(breakdown, names, sequence_nr, kind):
    line = [SimpleNamespace(name=name, sequence_nr=sequence_nr if name == BACKWARD else -1) for name in names]
    assert breakdown._kind(line, gru_numbers={5}) == getattr(breakdown, kind)


def test_shares_are_of_each_runs_own_time(breakdown):
    runs = [{breakdown.PRODUCTS: 3.0, breakdown.REST: 1.0}, {breakdown.PRODUCTS: 2.0, breakdown.REST: 2.0}]
    summary = breakdown.summarise(runs, gflops=50.0, ceiling=40.0)
    assert summary["shares"][breakdown.PRODUCTS] == {"median": 0.625, "min": 0.5, "max": 0.75}
    assert summary["shares"][breakdown.GRU]["max"] == 0.0
    assert summary["products_of_ceiling"] == 50.0 / 2.5 / 40.0


# The GPU's job


@pytest.fixture
def toy(gpu_job, tmp_path):
    return gpu_job.toy_job()._replace(folder=str(tmp_path))


def attempt(gpu_job, toy, name):
    found = gpu_job.attempt(gpu_job.PARTS[name], toy, seconds_left=1e9)
    assert "error" not in found, found
    return found


def test_every_part_of_the_gpus_job_runs_on_the_cpu(gpu_job, toy):
    toy = toy._replace(variants=("float32", "bfloat16"))
    assert attempt(gpu_job, toy, "ceilings").keys() == {"float32", "bfloat16", "copied_bytes_per_second"}
    assert attempt(gpu_job, toy, "checks")["holds"]
    assert attempt(gpu_job, toy, "waiting") == {"skipped": "a CPU waits for nothing"}
    assert attempt(gpu_job, toy, "training")["2"]["tokens_per_second"].keys() == {"linear", "notebook", "ours"}
    assert attempt(gpu_job, toy, "scoring")["tokens_per_second"].keys() == {"linear", "ours"}
    assert attempt(gpu_job, toy, "growth").keys() == {"16", "64"}


@pytest.mark.slow
def test_the_gpus_job_compiles_on_the_cpu(gpu_job, toy):
    assert attempt(gpu_job, toy._replace(variants=("bfloat16_compiled",)), "checks")["holds"]
    attempt(gpu_job, toy, "scoring_compiled")


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


@pytest.mark.slow
def test_the_gpus_job_needs_neither_datasets_nor_evaluate(tmp_path):
    # Those that it needs must not bring them in: the lent machine does not have them.
    program = (
        "import sys; sys.modules['datasets'] = sys.modules['evaluate'] = None; "
        f"sys.path.insert(0, {str(BENCHMARKS)!r}); import gpu_job; "
        "gpu_job.make_model(gpu_job.toy_job().fields, has_gru=True)"
    )
    process = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


# Preparing tables


@pytest.mark.slow
def test_preparing_is_measured_by_size_recorded_and_not_measured_again(preparation, tmp_path, monkeypatch, capsys):
    tweets, record = tmp_path / "tweets.parquet", tmp_path / "preparation.json"
    texts = [f"the {word} crew was {word} {row}" for row, word in enumerate(["kind", "rude", "late"] * 10)]
    pq.write_table(pa.table({"text": texts, "label": [row % 3 for row in range(30)]}), tweets)
    options = ["--tweets", str(tweets), "--output", str(record), "--folder", str(tmp_path)]
    ours = ["--systems", "roberta-gru", "score, reading"]
    for rows in (["80"], ["80", "90"]):
        monkeypatch.setattr(sys, "argv", ["preparation.py", *options, *ours, "--rows", *rows])
        preparation.main()
    assert capsys.readouterr().out.count("rows/s") == 4  # and not six
    recorded = json.loads(record.read_text())
    assert [(one["system"], one["rows"]) for one in recorded["results"]] == [
        (system, rows) for rows in (80, 90) for system in ours[1:]
    ]
    counts = recorded["results"][0]["counts"]
    assert counts["rows"]["read"] == 80
    assert recorded["results"][3]["counts"] == {"texts": 90}
    assert [line.count("not measured") for line in preparation.table(recorded)[2:4]] == [2, 2]
