"""From `from_pretrained` to the first prediction: time and bytes, beside stock RoBERTa.

    python benchmarks/first_prediction.py

Both are classifiers of roberta-base's geometry with random weights, and lie on tests/hub_server.py on loopback. A
fresh process without this package loads tokenizer and model by `pipeline` and classifies a sentence: with an empty
cache (*cold*), then again (*warm*). Time runs from before the first of these calls, `transformers` and torch already
imported, to the answer; bytes are those that the Hub sent in the bodies of its answers. The two take turns.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results" / "hub" / "first-prediction.json"
STRANGER = ROOT / "tests" / "stranger.py"

SYSTEMS = {"roberta": "stock RoBERTa", "roberta-gru": "RoBERTa-GRU"}
CACHES = ("cold", "warm")
SENTENCE = "I had hoped for more, but from the second half on it won me over completely."
# roberta-base's; the defaults of RobertaConfig are others.
GEOMETRY = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
TOY = {
    **GEOMETRY,
    "vocab_size": 300,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 20,
}

PROBE = """
import json, runpy, sys, time

stranger, name, sentence = sys.argv[1:]
sys.meta_path.insert(0, runpy.run_path(stranger)["Refuse"]())
import torch
from transformers import pipeline

torch.set_num_threads(1)
started, cpu_started = time.perf_counter(), time.process_time()
classify = pipeline("text-classification", name, trust_remote_code=True, device="cpu")
loaded = time.perf_counter()
classify(sentence)
predicted = time.perf_counter()
print(json.dumps({
    "seconds": predicted - started,
    "cpu_seconds": time.process_time() - cpu_started,
    "loading_seconds": loaded - started,
    "prediction_seconds": predicted - loaded,
}))
"""


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 5,
    toy: Annotated[bool, typer.Option(help="A tiny encoder: to try the script.")] = False,
    output: Annotated[
        Path, typer.Option(help="The JSON file to write.", show_default=str(RECORDED.relative_to(ROOT)))
    ] = RECORDED,
) -> None:
    """Measure both, in turn, with empty and with full caches."""
    sys.path.insert(0, str(ROOT))
    from modeling_roberta_gru.files import write_json
    from modeling_roberta_gru.training.record import describe_platform

    torch.set_num_threads(1)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory() as folder:
        models = {system: save_model(Path(folder) / system, system, TOY if toy else GEOMETRY) for system in SYSTEMS}
        runs = list(measure(Path(folder), repeats))
    measured = {
        "command": shlex.join(["python", "benchmarks/first_prediction.py", *sys.argv[1:]]),
        "started": started,
        **describe_platform(),
        "dtype": "float32",
        "repeats": repeats,
        "models": models,
        "figures": summarise(runs),
        "runs": runs,
    }
    write_json(output, measured)
    print("\n".join(table(measured)))


def save_model(folder: Path, system: str, geometry: dict[str, Any]) -> dict[str, Any]:
    """Save a classifier with random weights, and a tokenizer that is the same for both; return its sizes."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
    from modeling_roberta_gru.data.corpus import train_tokenizer

    torch.manual_seed(0)
    model: Any
    if system == "roberta":
        model = RobertaForSequenceClassification(RobertaConfig(**geometry))
    else:
        model = RobertaGRUForSequenceClassification(RobertaGRUConfig(**geometry))
    model.save_pretrained(folder)
    train_tokenizer([SENTENCE], vocab_size=300).save_pretrained(folder)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    return {"num_parameters": model.num_parameters(), "files": files}


def measure(folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """Run both systems in turn, cold and then warm, round after round."""
    from tests.hub_server import HubServer

    with HubServer() as hub:
        for system in SYSTEMS:
            hub.create(f"ada/{system}", {path.name: path.read_bytes() for path in (folder / system).iterdir()})
        for repeat in range(repeats):
            for system in SYSTEMS:
                with tempfile.TemporaryDirectory(dir=folder) as home:
                    for cache in CACHES:
                        num_requests, num_bytes = len(hub.requests), hub.bytes_sent
                        load = os.getloadavg()[0]
                        run = run_probe(f"ada/{system}", home, hub.url)
                        run |= {"requests": len(hub.requests) - num_requests, "bytes": hub.bytes_sent - num_bytes}
                        run = {"system": system, "cache": cache, "repeat": repeat, "load": round(load, 2), **run}
                        print(run, file=sys.stderr)
                        yield run


def run_probe(name: str, home: str, url: str) -> dict[str, Any]:
    """Load and predict in a fresh process, without this package."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": home, "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-I", "-c", PROBE, STRANGER, name, SENTENCE]
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=home)
    figures = json.loads(process.stdout.splitlines()[-1])
    return {key: round(value, 4) for key, value in figures.items()}


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians, and least and largest values, over the runs of each system and cache."""
    names = ("seconds", "cpu_seconds", "loading_seconds", "prediction_seconds", "bytes", "requests")
    figures = []
    for system in SYSTEMS:
        for cache in CACHES:
            group = [run for run in runs if (run["system"], run["cache"]) == (system, cache)]
            reduced = {
                f"{name}{suffix}": reduce([run[name] for run in group])
                for name in names
                for suffix, reduce in (("", median), ("_min", min), ("_max", max))
            }
            figures.append({"system": system, "cache": cache, "num_runs": len(group), **reduced})
    return figures


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the Markdown table and its conditions."""
    hardware, versions = measured["hardware"], measured["versions"]
    return [
        "| model | cache | seconds to the first prediction | of processor time | bytes sent | requests |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {SYSTEMS[figure['system']]} | {figure['cache']} | {figure['seconds']:.2f} "
            f"({figure['seconds_min']:.2f} to {figure['seconds_max']:.2f}) | {figure['cpu_seconds']:.2f} | "
            f"{figure['bytes']:,.0f} | {figure['requests']:.0f} |"
            for figure in measured["figures"]
        ),
        "",
        f"Medians of {measured['repeats']} runs, the two in turn, each in a fresh process (in brackets the least and "
        "the largest); the Hub is on loopback, so that bytes cost next to no time here.",
        "",
        f"- command: `{measured['command']}`",
        f"- commit: `{measured['commit']}`; "
        + ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "transformers")),
        f"- {measured['dtype']}, {hardware['num_threads']} of {hardware['num_cores']} cores ({hardware['processor']})",
    ]


if __name__ == "__main__":
    typer.run(main)
