"""Measure time and memory against the length of a document; draw and tabulate what was measured.

`python benchmarks/document_length.py measure`, some twenty minutes of one core, writes
`benchmarks/results/document-length/measured.json`; `make results` makes the figure and the table from it.

Weights and token ids are random: neither time nor memory depends on them. Every figure comes from a fresh process that
knows torch, transformers and the saved folder only. It loads the classifier, reads every weight once, classifies three
tokens (so that libraries are loaded too) and gives freed memory back to the system: its resident memory is then that
of the loaded model. The kernel's record of the largest resident memory (VmHWM) is reset, the document's ids are made
(no attention mask), and the document is classified with gradients off, on one thread. Linux with glibc only.

glibc keeps freed blocks of up to 32 MiB and does not always find room in them again: left alone, a process grows by an
amount that differs from run to run, and more the longer it goes on. What a document needs shows when freed tensors
go back to the system at once (FREED_AT_ONCE); so all but the control are measured.
"""

import ctypes
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import torch
import typer

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results" / "document-length" / "measured.json"

LENGTHS = [128, 512, 2_000, 5_000, 20_000, 100_000, 1_000_000]
SHORT, LONG = 20_000, 1_000_000
MOST_MEMORY, MOST_TIME = 1.1, 1.2
"""What the long document may need at most: of the short one's memory, apart from the ids, and of its time a token."""
LONG_RUN = 60.0  # seconds
ID_BYTES = 8
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
MIB = 2**20

# ../shared's encoder, for machines without it: all-MiniLM-L6-v2.
GEOMETRY = {
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "max_position_embeddings": 513,
    "type_vocab_size": 1,
    "pad_token_id": 0,
    "layer_norm_eps": 1e-12,
}


class System(NamedTuple):
    """One way to classify a document."""

    name: str
    longest: int  # number of tokens up to which it is measured
    shortest: int = 1
    keeps: int | None = None  # number of tokens that it reads of a document; unset: all
    is_bidirectional: bool = False
    sees_all: bool = False  # whether the encoder's window holds the longest document
    environment: dict[str, str] = FREED_AT_ONCE


SYSTEMS = {
    "truncation": System("cut to 512 tokens", 1_000_000, keeps=512),
    "windows": System("RoBERTa-GRU", 1_000_000),
    "bidirectional": System("RoBERTa-GRU, both directions", 100_000, is_bidirectional=True),
    # Five times as many tokens would take twenty-five times as long: half an hour.
    "full_attention": System("one full-attention pass", 20_000, sees_all=True),
    "default_allocator": System("RoBERTa-GRU, freed memory left to glibc", 100_000, 20_000, environment={}),
}

# What is drawn; the control is not.
COLOURS = {"truncation": "GREY", "windows": "BLUE", "bidirectional": "GREEN", "full_attention": "ORANGE"}
LABEL_SPOTS = (  # in the time and the memory panel: points right of and above a line's last point, and the text's side
    {
        "truncation": (0, -11, "right"),
        "windows": (-8, 4, "right"),
        "bidirectional": (-6, 9, "right"),
        "full_attention": (-9, 0, "right"),
    },
    {
        "truncation": (0, -11, "right"),
        "windows": (0, 11, "right"),
        "bidirectional": (12, -17, "center"),
        "full_attention": (-9, 0, "right"),
    },
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _describe() -> None:
    """Measure time and memory against the length of a document."""


@app.command()
def measure(
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens of a document; again for more. Unset: 128 to 1,000,000.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; one only of those longer than a minute.")] = 3,
    output: Annotated[
        Path, typer.Option(help="The JSON file to write.", show_default=str(RECORDED.relative_to(ROOT)))
    ] = RECORDED,
) -> None:
    """Measure every system at every length, in turn, and check the targets."""
    from modeling_roberta_gru.files import write_json
    from modeling_roberta_gru.training.record import describe_platform

    torch.set_num_threads(1)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    geometry, source = read_geometry()
    with tempfile.TemporaryDirectory() as folder:
        models = {key: save_model(Path(folder) / key, system, geometry) for key, system in SYSTEMS.items()}
        runs = list(_runs(Path(folder), sorted(length or LENGTHS), repeats))
    figures = summarise(runs)
    targets = check_targets(figures)
    measured = {
        "command": shlex.join(["python", "benchmarks/document_length.py", *sys.argv[1:]]),
        "started": started,
        **describe_platform(),
        "dtype": "float32",
        "geometry": {"source": source, **geometry},
        "models": models,
        "long_run_seconds": LONG_RUN,
        "targets": targets,
        "figures": figures,
        "runs": runs,
    }
    write_json(output, measured)
    print("\n".join(table(measured)))


@app.command(hidden=True)
def probe(folder: Path, length: int) -> None:
    """Classify one document of random tokens and print what it took, as JSON."""
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # a weight that was only mapped from the file is not in memory yet
            parameter.sum()
        model(torch.ones(1, 3, dtype=torch.long))
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        loaded = memory("VmRSS")
        started, cpu_started = time.perf_counter(), time.process_time()
        input_ids = torch.randint(model.config.vocab_size, (1, length), generator=generator)
        model(input_ids)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    print(
        json.dumps(
            {
                "loaded_bytes": loaded,
                "above_loaded_bytes": memory("VmHWM") - loaded,
                "seconds": round(seconds, 4),
                "cpu_seconds": round(cpu_seconds, 4),
            }
        )
    )


def read_geometry() -> tuple[dict[str, Any], str]:
    """Return the fields of ../shared's encoder that make its geometry, and where they come from."""
    shared = ROOT / os.environ.get("ROBERTA_GRU_SHARED", "../shared")
    path = shared / "encoders" / "minilm-l6-roberta" / "config.json"
    if not path.is_file():
        return GEOMETRY, "benchmarks/document_length.py"
    config = json.loads(path.read_text(encoding="utf-8"))
    return {name: config[name] for name in GEOMETRY}, "minilm-l6-roberta/config.json"


def save_model(folder: Path, system: System, geometry: dict[str, Any]) -> dict[str, Any]:
    """Save a classifier with random weights; return its sizes."""
    from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification

    fields = dict(geometry)
    if system.sees_all:
        fields["max_position_embeddings"] = system.longest + geometry["pad_token_id"] + 1
    config = RobertaGRUConfig(**fields, gru_bidirectional=system.is_bidirectional)
    torch.manual_seed(0)
    model = RobertaGRUForSequenceClassification(config)
    model.save_pretrained(folder)
    return {
        "name": system.name,
        "num_parameters": model.num_parameters(),
        "encoder_window": config.encoder_window,
        "window_stride": config.window_stride,
        "windows_per_chunk": config.windows_per_chunk,
        "gru_hidden_size": config.gru_hidden_size,
        "reads_at_most": system.keeps,
        "environment": system.environment,
    }


def _runs(folder: Path, lengths: list[int], repeats: int) -> Iterator[dict[str, Any]]:
    """Run round after round through all lengths and systems, so that a busy spell hits all of them."""
    took: dict[tuple[str, int], float] = {}
    for _ in range(repeats):
        for length in lengths:
            for key, system in SYSTEMS.items():
                if not system.shortest <= length <= system.longest or took.get((key, length), 0.0) > LONG_RUN:
                    continue
                load = os.getloadavg()[0]
                run = run_probe(folder / key, min(length, system.keeps or length), system.environment)
                took[key, length] = run["seconds"]
                print(f"{key} {length:,} {run}", file=sys.stderr)
                yield {"system": key, "length": length, "load": round(load, 2), **run}


def run_probe(folder: Path, length: int, environment: dict[str, str]) -> dict[str, Any]:
    """Run `probe` in a fresh process, without this package."""
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_MODULES_CACHE": str(folder / "modules")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-I", __file__, "probe", str(folder), str(length)]
    process = subprocess.run(
        command, env={**inherited, **quiet, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(process.stdout.splitlines()[-1])


def memory(name: str) -> int:
    """Return an entry of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians, and least and largest values, over the runs of each system and length."""
    groups = defaultdict(list)
    for run in runs:
        groups[run["system"], run["length"]].append(run)
    return [
        {
            "system": system,
            "length": length,
            "num_runs": len(group),
            **{
                f"{name}{suffix}": reduce([run[name] for run in group])
                for name in ("seconds", "cpu_seconds", "above_loaded_bytes", "loaded_bytes")
                for suffix, reduce in (("", median), ("_min", min), ("_max", max))
            },
        }
        for (system, length), group in groups.items()
    ]


def check_targets(figures: list[dict[str, Any]], short: int = SHORT, long: int = LONG) -> dict[str, Any] | None:
    """Compare the long document with the short one; None if they were not measured."""
    ours = {figure["length"]: figure for figure in figures if figure["system"] == "windows"}
    if not {short, long} <= ours.keys():
        return None
    memory = (ours[long]["above_loaded_bytes"] - ID_BYTES * long) / ours[short]["above_loaded_bytes"]
    time_per_token = ours[long]["cpu_seconds"] / long / (ours[short]["cpu_seconds"] / short)
    return {
        "short_length": short,
        "long_length": long,
        "memory_ratio": round(memory, 4),
        "memory_ratio_at_most": MOST_MEMORY,
        "memory_holds": memory <= MOST_MEMORY,
        "time_per_token_ratio": round(time_per_token, 4),
        "time_per_token_ratio_at_most": MOST_TIME,
        "time_per_token_holds": time_per_token <= MOST_TIME,
    }


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the Markdown table, its conditions and the targets."""
    figures = {(figure["system"], figure["length"]): figure for figure in measured["figures"]}
    lengths = sorted({length for _, length in figures})
    hardware, targets = measured["hardware"], measured["targets"]
    versions = ", ".join(f"{name} {measured['versions'][name]}" for name in ("python", "torch", "transformers"))
    num_runs = {figure["num_runs"] for figure in figures.values()}
    lines = [
        f"| tokens | {' | '.join(system.name for system in SYSTEMS.values())} |",
        "| ---: |" + " ---: |" * len(SYSTEMS),
        *(f"| {n:,} | {' | '.join(_cell(figures.get((key, n))) for key in SYSTEMS)} |" for n in lengths),
        "",
        "Seconds of one core (processor time), and peak resident memory above that of the loaded model, the "
        f"document's own token ids ({ID_BYTES} bytes each) included: medians of {max(num_runs)} runs, each in a fresh "
        f"process; {min(num_runs)} of what takes longer than a minute.",
        "",
    ]
    if targets:
        lines += [
            f"A document of {targets['long_length']:,} tokens takes, apart from its ids, "
            f"{targets['memory_ratio']:.2f} times the memory of one of {targets['short_length']:,} tokens (at most "
            f"{targets['memory_ratio_at_most']} wanted), and {targets['time_per_token_ratio']:.2f} times as long a "
            f"token (at most {targets['time_per_token_ratio_at_most']}).",
            "",
        ]
    return [
        *lines,
        f"- command: `{measured['command']}`",
        f"- commit: `{measured['commit']}`; {versions}",
        f"- {measured['dtype']}, {hardware['num_threads']} of {hardware['num_cores']} cores "
        f"({hardware['processor']}; shared with other work)",
    ]


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    seconds = figure["cpu_seconds"]
    return f"{seconds:,.{0 if seconds >= 10 else 2}f} s, {figure['above_loaded_bytes'] / MIB:,.0f} MiB"


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw time and memory against length, side by side."""
    from matplotlib.figure import Figure

    from modeling_roberta_gru.training import plots

    drawing = Figure(figsize=(9, 3.9), layout="constrained")
    panels = (
        ("cpu_seconds", "Time (seconds of one core)", 1),
        ("above_loaded_bytes", "Peak memory above the loaded model (MiB)", MIB),
    )
    for axes, (name, title, unit), spots in zip(drawing.subplots(1, 2), panels, LABEL_SPOTS, strict=True):
        for key, colour in COLOURS.items():
            points = sorted((f["length"], f[name] / unit) for f in measured["figures"] if f["system"] == key)
            if not points:
                continue
            style = {"color": getattr(plots, colour)}
            axes.loglog(*zip(*points, strict=True), marker="o", markersize=3.5, linewidth=1.5, **style)
            *offset, side = spots[key]
            label = SYSTEMS[key].name
            axes.annotate(label, points[-1], offset, textcoords="offset points", ha=side, va="center", **style)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("tokens of the document")
        axes.margins(y=0.09)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,g}")
        plots.tidy(axes)
    plots.save(drawing, path)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
