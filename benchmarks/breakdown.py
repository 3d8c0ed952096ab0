"""Find where a processor's time goes in scoring and in training: how far from the ceiling each is, and why.

`python benchmarks/breakdown.py`, three minutes of a machine that does nothing else, writes
`benchmarks/results/performance/breakdown.json`; `make results` makes the table and the figure from it.

The encoder has roberta-base's geometry and random weights. Scoring: IMDb reviews of at most 512 tokens in int8 on one
core, by OpenVINO's own counters. Training: two steps of `training_speed.py` on all cores, forward, backward and
optimizer, by torch's profiler. The ceiling is a large matrix product of the same type on as many cores. Counting takes
time, too, most of all where operations are small, as a GRU's are in training: its share is an upper bound.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest import mock

import torch
import training_speed
import typer
from measuring import (
    GEOMETRIES,
    RESULTS,
    be_quiet,
    commit_line,
    conditions,
    json_option,
    measure_ceilings,
    now,
    panels,
    ranged,
    spread,
    table_of,
    weight_flops,
    write,
)
from scoring import SIZES, TOY_SIZES, prepare
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainerCallback

from modeling_roberta_gru import RobertaGRUConfig
from modeling_roberta_gru.training.arguments import has_bfloat16

RECORDED = RESULTS / "performance" / "breakdown.json"

PRODUCTS, ATTENTION, BETWEEN = "products with the encoder's weights", "attention", "norms, activations, embeddings"
GRU, OPTIMIZER, REST = "GRU", "optimizer and clipping", "everything else"
KINDS = (PRODUCTS, ATTENTION, BETWEEN, GRU, OPTIMIZER, REST)

# What the name of an operation holds, OpenVINO's (its type and where it stands in the model) or torch's; the encoder's
# others stand between the products.
OPERATIONS = {
    "scaled_dot_product": ATTENTION,
    "FullyConnected": PRODUCTS,
    "aten::mm": PRODUCTS,
    "aten::addmm": PRODUCTS,
    "_foreach_": OPTIMIZER,
}
BACKWARD = "autograd::engine::evaluate_function"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    rounds: Annotated[int, typer.Option(min=1, help="Times that both are measured.")] = 5,
    toy: Annotated[bool, typer.Option(help="A tiny encoder and few texts: to try the script.")] = False,
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Find where a processor's time goes in scoring and in training."""
    be_quiet()
    measured: dict[str, Any] = {**conditions(), "rounds": rounds, "jobs": {}}
    num_cores = 1 if toy else len(os.sched_getaffinity(0))
    for name, (watch, num_threads) in {"scoring": (watch_scoring, 1), "training": (watch_training, num_cores)}.items():
        torch.set_num_threads(num_threads)
        with tempfile.TemporaryDirectory() as folder:
            dtype, gflops, runs = watch(Path(folder), rounds, toy)
        ceiling = measure_ceilings((TOY_SIZES if toy else SIZES).ceiling)[dtype]["median"]
        measured["jobs"][name] = {"dtype": dtype, "num_threads": num_threads, **summarise(runs, gflops, ceiling)}
    write(output, measured, table(measured))


Watched = tuple[str, float, list[dict[str, float]]]
"""The type, the GFLOP of the products with the encoder's weights, and of each run the seconds of every kind."""


def watch_scoring(folder: Path, rounds: int, toy: bool) -> Watched:
    """Score reviews and count."""
    from modeling_roberta_gru.inference import engine
    from modeling_roberta_gru.inference.scorer import Scorer

    functions: list[Any] = []

    class Counting(engine.OpenVINOFunction):
        """Can tell what its one request has counted."""

        def __init__(self, module: Any, example: Any, **settings: Any) -> None:
            super().__init__(module, example, **settings, PERF_COUNT=True)
            self.num_calls = 0
            functions.append(self)

        def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
            self.num_calls += 1
            return super().__call__(*inputs)

        def seconds(self) -> Counter:
            """Return the seconds of every kind in all calls; OpenVINO gives the mean of a call."""
            request = self.requests.get()
            counted: Counter = Counter()
            for node in request.profiling_info:
                kind = _kind_by_name([f"{node.node_type} {node.node_name}"]) or BETWEEN
                counted[kind] += self.num_calls * node.real_time.total_seconds()
            self.requests.put(request)
            return counted

    workloads, _, material = prepare(folder, (TOY_SIZES if toy else SIZES)._replace(tweets=1, long=1, texts=(1,)), toy)
    reviews = workloads["reviews"]
    with mock.patch.object(engine, "OpenVINOFunction", Counting):
        scorer = Scorer(str(folder / "ours"), dtype="int8")
    config = RobertaGRUConfig(**material.geometry)
    runs = []
    for _ in range(rounds + 1):
        before, started = [function.seconds() for function in functions], now()
        scorer.predict_proba(reviews.texts)
        in_all = now() - started
        of_encoder, of_gru = (of.seconds() - earlier for of, earlier in zip(functions, before, strict=True))
        seconds = {**of_encoder, GRU: of_gru.total()}
        runs.append({**seconds, REST: in_all - sum(seconds.values())})
    return "int8", sum(map(len, reviews.ids)) * weight_flops(config) / 1e9, runs[1:]


def watch_training(folder: Path, rounds: int, toy: bool) -> Watched:
    """Train for some steps and count all but the first."""
    fields = GEOMETRIES["toy" if toy else "roberta-base"]
    batches = training_speed.draw_batches(fields, 3, 1 if toy else 18)
    bf16 = has_bfloat16(on_cpu=True)
    settings = training_speed.Settings(str(folder), bf16)
    num_tokens = training_speed.count_tokens(batches[settings.num_warm :])
    gflops = training_speed.TRAINING_PASSES * num_tokens * weight_flops(RobertaGRUConfig(**fields)) / 1e9
    runs = []
    for _ in range(rounds):
        watch = Watch(settings.num_warm)
        training_speed.train_ours(fields, batches, settings, watch)
        runs.append(watch.seconds())
    return "bfloat16" if bf16 else "float32", gflops, runs


class Watch(TrainerCallback):
    """Watches a training's operations after its first steps."""

    def __init__(self, num_warm: int) -> None:
        self.num_warm = num_warm
        self.profiler = profile(activities=[ProfilerActivity.CPU])

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        """Mark what the GRU does."""
        forward = model.gru.forward

        def marked(*inputs: Any, **named: Any) -> Any:
            with record_function(GRU):
                return forward(*inputs, **named)

        model.gru.forward = marked

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin after the first steps, end after the last."""
        if state.global_step == self.num_warm:
            self.profiler.start()
            self.started = now()
        if state.global_step == state.max_steps:
            self.in_all = now() - self.started
            self.profiler.stop()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every kind."""
        # Events whose lifetime lies within one another's, from the innermost outwards.
        lines = [(event, [event, *_around(event)]) for event in self.profiler.events()]
        # A backward operation has the number of the forward one.
        numbers = {event.sequence_nr for event, line in lines if any(outer.name == GRU for outer in line)} - {-1}
        seconds: Counter = Counter()
        for event, line in lines:
            seconds[_kind(line, numbers)] += event.self_cpu_time_total / 1e6
        seconds[REST] += self.in_all - seconds.total()
        return dict(seconds)


def _around(event: Any) -> Iterator[Any]:
    while event := event.cpu_parent:
        yield event


def _kind(line: Sequence[Any], gru_numbers: set[int]) -> str:
    """Return the kind of the innermost of some events."""
    names = [event.name for event in line]
    if GRU in names or any(e.name.startswith(BACKWARD) and e.sequence_nr in gru_numbers for e in line):
        return GRU
    if any(name.startswith("Optimizer.") for name in names):
        return OPTIMIZER
    return _kind_by_name(names) or (BETWEEN if names[0].startswith("aten::") else REST)


def _kind_by_name(names: Iterable[str]) -> str | None:
    """Return the kind of the first operation that has one."""
    return next((kind for name in names for part, kind in OPERATIONS.items() if part in name), None)


def summarise(runs: list[dict[str, float]], gflops: float, ceiling: float) -> dict[str, Any]:
    """Return the seconds, the share of every kind, and how close to the ceiling the products come."""
    in_all = [sum(run.values()) for run in runs]
    shares = {kind: [run.get(kind, 0.0) / total for run, total in zip(runs, in_all, strict=True)] for kind in KINDS}
    return {
        "num_runs": len(runs),
        "seconds": round(median(in_all), 4),
        "ceiling": ceiling,
        "products_of_ceiling": round(gflops / median(run[PRODUCTS] for run in runs) / ceiling, 4),
        "shares": {kind: spread(of) for kind, of in shares.items()},
        "runs": runs,
    }


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the Markdown table and its conditions."""
    jobs = measured["jobs"]
    heads = [f"{name}, {job['dtype']}, {_cores(job)}" for name, job in jobs.items()]
    rows = [[kind, *(ranged(job["shares"][kind], ".1f", 100) for job in jobs.values())] for kind in KINDS]
    reached = [f"{100 * job['products_of_ceiling']:.0f} %" for job in jobs.values()]
    rows.append(["*speed of the products, of the ceiling's*", *reached])
    return [
        *table_of(["share of the time, percent", *heads], rows),
        "",
        f"Medians of {measured['rounds']} runs (in brackets the least and the largest).",
        "",
        f"- command: `{measured['command']}`",
        commit_line(measured, measured["hardware"]["processor"]),
    ]


def _cores(job: dict[str, Any]) -> str:
    return "one core" if job["num_threads"] == 1 else f"{job['num_threads']} cores"


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw the shares, a bar for each job."""
    from modeling_roberta_gru.training import plots

    colours = (plots.BLUE, "#6fa8dc", "#b9d3ee", plots.ORANGE, plots.GREY, "#d0d0d0")
    drawing, (axes,) = panels(9, 2.4)
    for place, job in enumerate(measured["jobs"].values()):
        start = 0.0
        for kind, colour in zip(KINDS, colours, strict=True):
            share = 100 * job["shares"][kind]["median"]
            axes.barh(place, share, left=start, color=colour, height=0.6, label="" if place else kind)
            if share >= 3:
                of_text = "white" if kind == PRODUCTS else "black"
                axes.text(
                    start + share / 2, place, f"{share:.0f}", ha="center", va="center", fontsize=9, color=of_text
                )
            start += share
    axes.set_yticks(range(len(measured["jobs"])), [f"{n}, {job['dtype']}" for n, job in measured["jobs"].items()])
    axes.set(xlabel="percent of the time", xlim=(0, 100))
    axes.invert_yaxis()
    plots.tidy(axes)
    axes.grid(visible=False)
    drawing.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    plots.save(drawing, path)


if __name__ == "__main__":
    app()
