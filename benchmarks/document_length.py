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

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import torch
import typer
from measuring import (
    GEOMETRIES,
    MIB,
    RESULTS,
    commit_line,
    conditions,
    cores,
    grouped,
    json_option,
    log,
    make_model,
    panels,
    table_of,
    write,
)

RECORDED = RESULTS / "document-length" / "measured.json"
PROBE = Path(__file__).with_name("read_document.py")

LENGTHS = [128, 512, 2_000, 5_000, 20_000, 100_000, 1_000_000]
SHORT, LONG = 20_000, 1_000_000
MOST_MEMORY, MOST_TIME = 1.1, 1.2
"""What the long document may need at most: of the short one's memory, apart from the ids, and of its time a token."""
LONG_RUN = 60.0  # seconds
ID_BYTES = 8
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
GEOMETRY = {**GEOMETRIES["all-MiniLM-L6-v2"], "max_position_embeddings": 513, "pad_token_id": 0}


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
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Measure every system at every length, in turn, and check the targets."""
    torch.set_num_threads(1)
    measured = conditions()
    with tempfile.TemporaryDirectory() as folder:
        models = {key: save_model(Path(folder) / key, system, GEOMETRY) for key, system in SYSTEMS.items()}
        runs = list(_runs(Path(folder), sorted(length or LENGTHS), repeats))
    figures = summarise(runs)
    measured |= {
        "dtype": "float32",
        "geometry": GEOMETRY,
        "models": models,
        "long_run_seconds": LONG_RUN,
        "targets": check_targets(figures),
        "figures": figures,
        "runs": runs,
    }
    write(output, measured, table(measured))


def save_model(folder: Path, system: System, geometry: dict[str, Any]) -> dict[str, Any]:
    """Save a classifier with random weights; return its sizes."""
    fields = dict(geometry)
    if system.sees_all:
        fields["max_position_embeddings"] = system.longest + geometry["pad_token_id"] + 1
    model = make_model(fields, has_gru=True, gru_bidirectional=system.is_bidirectional)
    model.save_pretrained(folder)
    return {
        "name": system.name,
        "num_parameters": model.num_parameters(),
        "encoder_window": model.config.encoder_window,
        "window_stride": model.config.window_stride,
        "windows_per_chunk": model.config.windows_per_chunk,
        "gru_hidden_size": model.config.gru_hidden_size,
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
                run = run_probe(folder / key, min(length, system.keeps or length), system.environment)
                took[key, length] = run["seconds"]
                log(f"{key} {length:,} {run}")
                yield {"system": key, "length": length, **run}


def run_probe(folder: Path, length: int, environment: dict[str, str]) -> dict[str, Any]:
    """Run read_document.py in a clean process."""
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_MODULES_CACHE": str(folder / "modules")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-I", PROBE, folder, str(length)]
    process = subprocess.run(
        command, env={**inherited, **quiet, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(process.stdout.splitlines()[-1])


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians, and least and largest values, over the runs of each system and length."""
    names = ("seconds", "cpu_seconds", "above_loaded_bytes", "loaded_bytes")
    return [
        {
            "system": system,
            "length": length,
            "num_runs": len(group),
            **{
                f"{name}{suffix}": reduce([run[name] for run in group])
                for name in names
                for suffix, reduce in (("", median), ("_min", min), ("_max", max))
            },
        }
        for (system, length), group in grouped(runs, "system", "length").items()
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
    targets = measured["targets"]
    num_runs = {figure["num_runs"] for figure in figures.values()}
    rows = [[f"{n:,}", *(_cell(figures.get((key, n))) for key in SYSTEMS)] for n in lengths]
    lines = [
        *table_of(["tokens", *(system.name for system in SYSTEMS.values())], rows, num_left=0),
        "",
        "Seconds of one core (processor time), and peak resident memory above that of the loaded model, the "
        f"document's own token ids ({ID_BYTES} bytes each) included: medians of {max(num_runs)} runs, each in a fresh "
        f"process; {min(num_runs)} of what takes longer than a minute.",
        "",
    ]
    if targets:
        lines += [
            f"A document of {targets['long_length']:,} tokens takes, apart from its ids, "
            f"{targets['memory_ratio']:.2f} times the memory of one of {targets['short_length']:,} tokens (our "
            f"target: at most {targets['memory_ratio_at_most']}), and {targets['time_per_token_ratio']:.2f} times as "
            f"long a token (at most {targets['time_per_token_ratio_at_most']}).",
            "",
        ]
    return [
        *lines,
        f"- command: `{measured['command']}`",
        commit_line(measured),
        f"- {measured['dtype']}, {cores(measured, '; shared with other work')}",
    ]


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    seconds = figure["cpu_seconds"]
    return f"{seconds:,.{0 if seconds >= 10 else 2}f} s, {figure['above_loaded_bytes'] / MIB:,.0f} MiB"


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw time and memory against length, side by side."""
    from modeling_roberta_gru.training import plots

    drawing, both = panels(9, 3.9, 1, 2)
    shown = (
        ("cpu_seconds", "Time (seconds of one core)", 1),
        ("above_loaded_bytes", "Peak memory above the loaded model (MiB)", MIB),
    )
    for axes, (name, title, unit), spots in zip(both, shown, LABEL_SPOTS, strict=True):
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


if __name__ == "__main__":
    app()
