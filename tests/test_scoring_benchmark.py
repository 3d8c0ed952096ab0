"""What is measured of scoring, at toy size: the arithmetic, what the peers compute, the tables and the figures."""

import importlib
import itertools
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.data.labels import LabelSpace
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.modeling_roberta_gru import Windows

from .conftest import BENCHMARKS, script, tiny_config

agreement = script("agreement")

# The engines' own: converters that are on their way out, and packages that call each other's old names.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def scoring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("scoring")
    monkeypatch.setattr(module, "PAUSE", 0.0)
    return module


@pytest.mark.parametrize("is_sorted", [True, False])
def test_every_text_stands_in_one_batch(scoring, is_sorted):
    lengths = [9, 2, 7, 2, 5, 30, 1]
    batches = sys.modules["scoring_engines"].batches(lengths, scoring.Batching(3, is_sorted))
    assert [len(rows) for rows in batches] == [3, 3, 1]
    rows = list(itertools.chain(*batches))
    assert sorted(rows) == list(range(7))
    assert [lengths[row] for row in rows] == (sorted(lengths, reverse=True) if is_sorted else lengths)


def test_each_system_comes_first_in_one_round(scoring):
    keys = ["a", "b", "c"]
    turns = [scoring.turned(keys, index) for index in range(4)]
    assert turns == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_the_fastest_batching_is_chosen_for_each_workload(scoring):
    small, large = scoring.Batching(4), scoring.Batching(8)
    times = {("x", "reviews"): (3.0, 2.0), ("x", "tweets"): (1.0, 2.0), ("y", "reviews"): (5.0, 6.0)}
    tried = [
        {"system": key, "workload": name, "batching": batching, "seconds": seconds}
        for (key, name), both in times.items()
        for batching, seconds in zip((small, large), both, strict=True)
    ]
    assert scoring.choose(tried) == {("x", "reviews"): large, ("x", "tweets"): small, ("y", "reviews"): small}


def test_flops_are_those_that_torch_counts(scoring):
    config = tiny_config(num_labels=scoring.NUM_LABELS, attn_implementation="eager")
    model = RobertaForSequenceClassification(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randint(3, 61, (1, 17)))
    assert scoring.encoder_flops(17, config) + scoring.stock_head_flops(config) == counter.get_total_flops()


def test_flops_are_those_reckoned_by_hand(scoring):
    # Two layers of width 12 and 20 within: weights 4·12·12 + 2·12·20 = 1,056; 5 tokens meet 5 tokens.
    assert scoring.encoder_flops(5, tiny_config()) == 2 * (2 * 5 * 1056 + 4 * 5 * 5 * 12) == 23_520
    # GRU of 7, three gates reading 12 + 7 values; then a dense layer of 5 and two logits.
    assert scoring.gru_flops(5, tiny_config()) == 5 * 2 * 3 * 7 * 19 + 2 * (7 * 5 + 5 * 2) == 4_080


@pytest.mark.parametrize("length", [20, 21, 34, 35, 200])
def test_flops_are_counted_window_by_window(scoring, length):
    config = tiny_config()
    num_windows = int(Windows(torch.tensor([length]), config).counts[0])
    assert scoring.encoder_flops(length, config) == num_windows * scoring.encoder_flops(20, config)


def runs_of(times: dict[str, list[float]], workload: str = "reviews") -> list[dict[str, Any]]:
    return [
        {"workload": workload, "system": key, "round": index, "seconds": seconds, "load": 0.5}
        for key, of_rounds in times.items()
        for index, seconds in enumerate(of_rounds)
    ]


def described(title: str = "reviews") -> dict[str, Any]:
    flops = {"peers": 40_000_000_000, "ours": 50_000_000_000}
    return {"title": title, "num_texts": 3, "num_tokens": 600, "longest": 512, "flops": flops}


CEILINGS = {
    "float32": {"median": 20.0, "min": 19.0, "max": 21.0},
    "bfloat16": {"median": 40.0, "min": 39.0, "max": 41.0},
    "int8": {"median": 100.0, "min": 90.0, "max": 101.0},
}


def test_a_speed_compares_runs_of_the_same_round(scoring):
    runs = runs_of({"stock": [10.0, 20.0, 30.0], "ours-int8": [5.0, 4.0, 10.0]})
    stock, ours = scoring.summarise(runs, {"reviews": described()}, CEILINGS)
    assert ours["seconds"] == {"median": 5.0, "min": 4.0, "max": 10.0}
    assert ours["speed"] == {"median": 3.0, "min": 2.0, "max": 5.0}  # 10 / 5, 20 / 4, 30 / 10
    assert ours["tokens_per_second"] == 120.0
    assert (ours["gflops"], ours["of_ceiling"]) == (10.0, 0.1)
    assert stock["speed"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert (stock["gflops"], stock["of_ceiling"]) == (2.0, 0.1)


def test_what_the_stock_pipeline_cannot_read_has_no_speed(scoring):
    (figure,) = scoring.summarise(runs_of({"ours": [2.0]}, "long"), {"long": described()}, CEILINGS)
    assert figure["speed"] is None
    assert figure["tokens_per_second"] == 300.0


def test_our_fastest_is_held_against_the_fastest_peer(scoring):
    times = {"stock": [12.0], "openvino-int8": [4.0], "onnx": [6.0], "ours": [8.0], "ours-int8": [2.0]}
    figures = scoring.summarise(runs_of(times), {"reviews": described()}, CEILINGS)
    target = scoring.check_targets(figures)["reviews"]
    assert (target["ours"], target["speed"], target["peer"], target["peer_speed"]) == (
        "ours-int8",
        6.0,
        "openvino-int8",
        3.0,
    )
    assert target["ours_over_peer"] == 2.0


def recorded(scoring: ModuleType) -> dict[str, Any]:
    """Return what `measure` writes, of three systems and round times that are easy to reckon with."""
    times = {"stock": [10.0, 20.0, 30.0], "stock-batches": [20.0, 40.0, 60.0], "ours-int8": [5.0, 4.0, 10.0]}
    long = {"ours": [8.0], "ours-int8": [2.0]}
    workloads = {name: described(name) for name in ("reviews", "tweets", "long-cut", "long")}
    runs = [run for name in ("reviews", "tweets") for run in runs_of(times, name)]
    runs += [run for name in ("long-cut", "long") for run in runs_of(long, name)]
    figures = scoring.summarise(runs, workloads, CEILINGS)
    growth = [
        {"by": by, "value": value, "dtype": "int8", "seconds": value / 100, "above_bytes": 3 * 2**20}
        for by, values in {"texts": (64, 1024), "tokens": (1024, 4096)}.items()
        for value in values
    ]
    return {
        "command": "python benchmarks/scoring.py measure",
        "commit": "0123abc",
        "versions": {"python": "3.11", "torch": "2.13", "transformers": "5.23"},
        "engines": {"openvino": "2026.4"},
        "hardware": {"num_threads": 2, "num_cores": 2, "processor": "a processor"},
        "load_at_start": 0.25,
        "rounds": 3,
        "geometry": scoring.GEOMETRY,
        "workloads": workloads,
        "ceiling_size": 2048,
        "ceilings": CEILINGS,
        "targets": scoring.check_targets(figures),
        "figures": [{**figure, "batching": "one by one"} for figure in figures],
        "tried": [
            {"system": "stock", "workload": "reviews", "batching": "one by one", "seconds": 2.0},
            {"system": "stock-batches", "workload": "reviews", "batching": "8, as they come", "seconds": 25.0},
        ],
        "growth": scoring.summarise_growth(growth),
    }


def test_the_page_names_the_fastest_first_and_says_what_the_targets_came_to(scoring):
    lines = scoring.table(recorded(scoring))
    rows = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert rows[1:4] == [
        "| **RoBERTa-GRU, int8** | one by one | 3.00 (2.00 to 5.00) | 120 | 10 | 10 % |",
        "| transformers pipeline | one by one | 1.00 (1.00 to 1.00) | 30 | 2 | 10 % |",
        "| transformers pipeline, batches | one by one | 0.50 (0.50 to 0.50) | 15 | 1 | 5 % |",
    ]
    text = "\n".join(lines)
    assert "RoBERTa-GRU, int8: 3.00 times the stock pipeline (at least 4 wanted), and 3.00 times the fastest" in text
    assert "8, as they come: 0.80" in text
    assert "float32 20, bfloat16 40, int8 100" in text
    assert "openvino 2026.4" in text


def test_the_pages_other_tables_hold_what_was_measured(scoring):
    long = scoring.long_table(recorded(scoring))
    assert long[0] == "| | tokens | float32 | int8 |"
    assert long[3] == "| long | 600 | 8.00 s, 75 tokens/s, 31 % | 2.00 s, 300 tokens/s, 25 % |"
    growth = scoring.growth_table(recorded(scoring))
    assert "| 1,024 | 10.24 (10.24 to 10.24) | 3 (3 to 3) |" in growth


def test_the_figures_are_drawn(scoring, tmp_path):
    for draw in (scoring.draw, scoring.draw_growth):
        draw(recorded(scoring), tmp_path / "figure.png")
        with Image.open(tmp_path / "figure.png") as figure:
            assert figure.width > 800
            blue = [colour for _, colour in figure.convert("RGB").getcolors()]
            assert any(b > 150 and r < 40 for r, _, b in blue)


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
    monkeypatch.setattr(scoring, "timed", lambda score, workload, batching: float(score))
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


def test_an_unknown_system_is_named_with_the_nearest(scoring):
    with pytest.raises(InputError, match="Did you mean 'openvino-int8'"):
        scoring.check_systems(["openvino-int"])


# Largest difference of a probability from that of the same model in float32.
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.002, "int8": 0.012}  # the texts' probabilities differ by 0.02


@pytest.mark.slow
def test_the_toy_runs_end_to_end_and_every_system_computes_the_same(scoring, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scoring.py", "measure", "--toy"])
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


def test_labels_are_compared_with_float32s_and_with_the_true_ones(agreement):
    float32 = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    int8 = np.array([[0.8, 0.2], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]])
    compared = agreement.compare_labels({"float32": float32, "int8": int8}, np.array([0, 1, 1, 0]))
    assert [compared[dtype]["equal"]["hits"] for dtype in compared] == [4, 3]
    assert [compared[dtype]["accuracy"]["hits"] for dtype in compared] == [2, 3]
    assert compared["int8"]["largest_difference"] == 0.2


def test_rows_are_drawn_one_from_each_stretch(agreement):
    rows = agreement.spread_rows(1003, 100)
    assert all(1003 * index // 100 <= row < 1003 * (index + 1) // 100 for index, row in enumerate(rows))
    assert rows == agreement.spread_rows(1003, 100)
    assert rows != agreement.spread_rows(1003, 100, seed=1)
    assert agreement.spread_rows(7, 7) == list(range(7))


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
    with pytest.raises(InputError, match=r"--linear-head .*linear knows the labels .*bad.*, and the other run .*fair"):
        agreement.measure_peers(linear, None, [], LabelSpace("single_label_classification", ("fair", "good")))
