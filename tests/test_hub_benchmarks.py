"""What is measured of loading from a Hub, at toy size: what is recorded, and the tables made of it."""

import json
import sys
import urllib.request
from pathlib import Path

import pytest

from .conftest import script
from .hub_server import HubServer
from .strangers import OFFLINE, PINNED, SERVER, WAYS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CONDITIONS = {
    "command": "python benchmarks/some.py",
    "commit": "0123abc",
    "versions": {"python": "3.11", "torch": "2.13", "transformers": "5.23"},
    "hardware": {"num_threads": 1, "num_cores": 2, "processor": "a processor"},
    "dtype": "float32",
}


loading_matrix, first_prediction = map(script, ("loading_matrix", "first_prediction"))


def test_the_matrix_shows_what_is_equal_what_differs_and_what_fails(loading_matrix):
    def cell(way, loader, **outcome):
        return {"transformers": "5.0", "loader": loader, "way": way, "seconds": 1.0, **outcome}

    cells = [
        cell(SERVER, "AutoModel", is_equal=True, difference=2e-8),
        cell(SERVER, "pipeline", is_equal=True, difference=0.0),
        cell(OFFLINE, "AutoModel", is_equal=False, difference=0.5),
        cell(OFFLINE, "pipeline", is_equal=False, error="OSError: no such file"),
        cell(PINNED, "pipeline", is_equal=True, difference=0.0),
    ]
    lines = loading_matrix.table({**CONDITIONS, "equal_up_to": 1e-5, "cells": cells})
    assert lines[:5] == [
        "| transformers | loaded | `AutoModel` | `pipeline` |",
        "| --- | --- | --- | --- |",
        f"| 5.0 | {SERVER} | equal | equal |",
        f"| 5.0 | {OFFLINE} | differs | fails |",
        f"| 5.0 | {PINNED} |  | equal |",
    ]
    assert lines[6].startswith(
        "3 of 5 cells give what was saved; numbers count as equal up to 1e-05, and differ by 2e-08"
    )


@pytest.mark.slow
def test_a_cell_that_fails_or_differs_is_recorded_as_such(loading_matrix, tmp_path, monkeypatch):
    pythons = {"here": Path(sys.executable), "bare": tmp_path / "python"}
    pythons["bare"].write_text("#!/bin/sh\necho 'no torch here' >&2\nexit 1\n")
    pythons["bare"].chmod(0o755)
    here, bare = (
        list(loading_matrix.load_cells({name: python}, tmp_path / name, ["AutoConfig"]))
        for name, python in pythons.items()
    )
    assert [(cell["way"], cell["is_equal"], cell["difference"]) for cell in here] == [(way, True, 0.0) for way in WAYS]
    assert [(cell["is_equal"], cell["error"]) for cell in bare] == [(False, "no torch here")] * 3


def test_medians_and_extremes_of_each_system_and_cache_are_taken(first_prediction):
    names = ("seconds", "cpu_seconds", "loading_seconds", "prediction_seconds", "bytes", "requests")
    runs = [
        {"system": system, "cache": cache, **dict.fromkeys(names, scale * value)}
        for value in (1.0, 2.0, 9.0)
        for system, scale in (("roberta", 1), ("roberta-gru", 10))
        for cache in ("cold", "warm")
    ]
    figures = first_prediction.summarise(runs)
    assert [(figure["system"], figure["cache"]) for figure in figures] == [
        ("roberta", "cold"),
        ("roberta", "warm"),
        ("roberta-gru", "cold"),
        ("roberta-gru", "warm"),
    ]
    assert [figures[3][f"seconds{suffix}"] for suffix in ("", "_min", "_max")] == [20.0, 10.0, 90.0]
    lines = first_prediction.table({**CONDITIONS, "repeats": 3, "figures": figures})
    assert lines[2] == "| stock RoBERTa | cold | 2.00 (1.00 to 9.00) | 2.00 | 2 | 2 |"


def test_every_body_that_the_hub_sends_is_counted_once():
    with HubServer() as hub:
        hub.create("ada/model", {"config.json": b"x" * 1000})
        url = f"{hub.url}/ada/model/resolve/main/config.json"
        for method in ("GET", "HEAD"):
            with urllib.request.urlopen(urllib.request.Request(url, method=method)):
                pass
    assert hub.bytes_sent == 1000


@pytest.mark.slow
def test_a_model_of_toy_size_is_measured_cold_and_warm(first_prediction, tmp_path):
    sizes = {
        system: first_prediction.save_model(tmp_path / system, system, first_prediction.TOY)
        for system in first_prediction.SYSTEMS
    }
    runs = list(first_prediction.measure(tmp_path, repeats=1))
    assert [(run["system"], run["cache"]) for run in runs] == [
        (system, cache) for system in first_prediction.SYSTEMS for cache in first_prediction.CACHES
    ]
    for run in runs:
        assert 0 < run["prediction_seconds"] < run["seconds"]
        assert run["loading_seconds"] + run["prediction_seconds"] == pytest.approx(run["seconds"], abs=1e-3)
        files = sizes[run["system"]]["files"]
        # Cold, the weights travel, and once; warm, they do not.
        assert (run["bytes"] > files["model.safetensors"]) == (run["cache"] == "cold")
        assert run["bytes"] < files["model.safetensors"] + sum(files.values())
    json.dumps(first_prediction.summarise(runs), allow_nan=False)
