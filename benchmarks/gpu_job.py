"""The job for a lent GPU: check the model there against the CPU, and time it beside its peers, in under nine minutes.

    python benchmarks/gpu_job.py

It needs torch, transformers, accelerate, tokenizers, pyyaml and typer, but neither `datasets` and `evaluate` nor a
network. The parts run in turn while there is time; one for which none is left is skipped and says so, one that fails
leaves its error and the others go on. `gpu.json`, in `$OUT` or where it is told, is renewed after each part. Without
a GPU, `--toy` runs everything on the CPU in seconds.

What takes turns is timed round by round; weights and token ids are random, lengths are IMDb's, cut at 512 tokens, as
in training_speed.py, and FLOPs are counted as there: the model's, of the real tokens.
"""

import copy
import gc
import json
import os
import platform
import random
import shlex
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import torch
import training_speed
import typer
from measuring import GEOMETRIES, flops, make_model, measure_ceilings, spread, timed
from torch import nn
from training_speed import TRAINING_PASSES, Batches, Settings, count_tokens, draw_batches
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}
"""How far the GPU may be off, relative to the values' norm.

Without tf32, float32 differs by the order of summation. A bfloat16 has 8 bits: some layers of it differ by a percent.
"""
TRAINING_TARGET = 0.95  # ours, as a multiple of the linear head
CEILING_TARGETS = {"scoring": 0.60, "training": 0.45}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

Change = Callable[[nn.Module], Any] | None
"""What is done to a model before it is timed."""


class Job(NamedTuple):
    """What is run, and how large."""

    device: str
    fields: dict[str, Any]  # the encoder's geometry
    batch_sizes: tuple[int, ...] = (18, 128)
    steps: int = 20
    rounds: int = 5
    lengths: tuple[int, ...] = (128, 512, 2048, 8192, 32768, 65536)
    checked: tuple[int, ...] = (1, 17, 511, 512, 513, 1500)  # lengths of documents; the window is of 512
    variants: tuple[str, ...] = ("float32", "bfloat16", "bfloat16_compiled")  # that are checked
    product: int = 8192  # rows and columns of the matrices whose product is the ceiling
    compiler: str = "inductor"
    num_warm: int = 5  # steps of a training before the clock starts
    folder: str = ""

    @property
    def settings(self) -> Settings:
        return Settings(self.folder, bf16=True, device=self.device, num_warm=self.num_warm)

    def compile_encoder(self, model: nn.Module) -> None:
        """Compile the encoder for batches of any size."""
        model.roberta.compile(dynamic=True, backend=self.compiler)


class Part(NamedTuple):
    """One thing to find out."""

    run: Callable[[Job], dict[str, Any]]
    seconds: float  # about what it takes: without them left, it is skipped


def main(
    minutes: Annotated[float, typer.Option(help="When to have ended.")] = 8.5,
    toy: Annotated[bool, typer.Option(help="A tiny encoder on the CPU: to try the script.")] = False,
    part: Annotated[list[str] | None, typer.Option(help="Run this part only; again for more.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="The JSON file to write. Unset: gpu.json in $OUT, else here.")
    ] = None,
) -> None:
    """Run the parts for which there is time."""
    started = time.perf_counter()
    output = output or Path(os.environ.get("OUT", ".")) / "gpu.json"
    job = toy_job() if toy else Job("cuda", GEOMETRIES["roberta-base"])
    measured: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/gpu_job.py", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": describe_device(job.device),
        "geometry": job.fields,
        "parts": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in part or PARTS:
            left = minutes * 60 - (time.perf_counter() - started)
            begun = time.perf_counter()
            figures = attempt(PARTS[name], job._replace(folder=folder), left)
            figures["took_seconds"] = round(time.perf_counter() - begun, 1)
            measured["parts"][name] = figures
            output.write_text(json.dumps(measured, indent=1), encoding="utf-8")
            print(name, json.dumps(figures), flush=True)
    print("\n".join(summary(measured)))
    if any("error" in figures for figures in measured["parts"].values()):
        raise typer.Exit(1)


def attempt(part: Part, job: Job, seconds_left: float) -> dict[str, Any]:
    """Return a part's figures, why it failed, or that there was no time for it."""
    if seconds_left < part.seconds:
        return {"skipped": f"it takes about {part.seconds:.0f} s, and {max(seconds_left, 0):.0f} s were left"}
    try:
        return part.run(job)
    except Exception:  # the machine is lent for minutes: what else can be measured is
        return {"error": traceback.format_exc()}
    finally:
        gc.collect()
        if job.device != "cpu":
            torch.cuda.empty_cache()


def toy_job() -> Job:
    """Return a job that takes seconds on the CPU."""
    fields = {**GEOMETRIES["toy"], "max_position_embeddings": 34, "attention_probs_dropout_prob": 0.0}
    return Job(
        device="cpu",
        fields=fields,
        batch_sizes=(2,),
        steps=2,
        num_warm=1,
        rounds=1,
        lengths=(16, 64),
        checked=(1, 17, 31, 32, 33, 80),
        product=64,
        compiler="eager",
    )


def describe_device(device: str) -> dict[str, Any]:
    """Return what computes."""
    if device == "cpu":
        return {"device": "cpu", "num_threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "num_cores": os.cpu_count(),
    }


# The parts


def ceilings(job: Job) -> dict[str, Any]:
    """Measure what the device can do at best: products of random matrices, in GFLOP/s, and copies."""
    source = torch.randn(job.product**2 // 2, 16, device=job.device)
    target = torch.empty_like(source)
    copying = median(timed(lambda: target.copy_(source), job.device) for _ in range(10))
    found = measure_ceilings(job.product, ("bfloat16", "float32"), job.device)
    return {**found, "copied_bytes_per_second": 2 * source.nbytes / copying}


def checks(job: Job) -> dict[str, Any]:
    """Compare values and gradients on the device with those on the CPU, the encoder compiled or not."""
    fields = {**job.fields, "num_hidden_layers": min(job.fields["num_hidden_layers"], 2), **WITHOUT_DROPOUT}
    reference = make_model(fields, has_gru=True, gru_bidirectional=True, head_dropout=0.0)
    rng = random.Random(0)
    rows = [training_speed.make_row(max(n, 3), fields["vocab_size"], rng) for n in job.checked]
    inputs = collate(rows)
    inputs["attention_mask"][0, 1:] = 0  # a single token
    expected = values_and_gradients(reference, inputs)
    found: dict[str, Any] = {"tolerances": TOLERANCES, "holds": True}
    for variant in job.variants:
        dtype, _, compiled = variant.partition("_")
        model = copy.deepcopy(reference).to(job.device)
        if compiled:
            job.compile_encoder(model)
        # cuDNN would compute its GRU in tf32.
        with (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            torch.autocast(job.device, torch.bfloat16, enabled=dtype == "bfloat16"),
        ):
            actual = values_and_gradients(model, inputs)
        found[variant] = {key: round(off_by(actual[key], expected[key]), 7) for key in expected}
        # Some gradients (of a key's bias) are nothing but rounding: all are judged together.
        found["holds"] &= max(found[variant].values()) <= TOLERANCES[dtype]
    return found


def waiting(job: Job) -> dict[str, Any]:
    """Count what makes the host wait for the device in a training step, by the line that asks for it."""
    if job.device == "cpu":
        return {"skipped": "a CPU waits for nothing"}
    batches = draw_batches(job.fields, 8, job.batch_sizes[0])
    places: dict[str, int] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train(job.fields, batches, job.settings)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchroniz" in str(warning.message):
            place = f"{Path(warning.filename).name}:{warning.lineno}"
            places[place] = places.get(place, 0) + 1
    return {"steps": len(batches), "places": dict(sorted(places.items(), key=lambda item: -item[1]))}


def training(job: Job, is_compiled: bool = False) -> dict[str, Any]:
    """Time the Trainer's loop: ours, the linear head, and the notebook's way; or ours and the head compiled."""
    change = job.compile_encoder if is_compiled else None
    systems: dict[str, Callable[..., float]] = {
        "linear": partial(train, has_gru=False, change=change),
        "ours": partial(train, change=change),
    }
    found: dict[str, Any] = {}
    for number, batch_size in enumerate(job.batch_sizes[-1:] if is_compiled else job.batch_sizes):
        notebook = {} if is_compiled or number else {"notebook": training_speed.train_plainly}
        found[str(batch_size)] = training_speeds(job, {**notebook, **systems}, batch_size)
    return found


@torch.no_grad()
def scoring(job: Job, is_compiled: bool = False) -> dict[str, Any]:
    """Time classification in bfloat16, in batches of like lengths, beside one by one in float32 as a pipeline does."""
    batches = job_batches(job, job.steps, job.batch_sizes[-1])
    inputs = [collate(batch).to(job.device) for batch in batches]
    seconds: dict[str, list[float]] = {}
    models = {name: make_model(job.fields, name == "ours", job.device).eval() for name in ("linear", "ours")}
    found: dict[str, Any] = {}
    if not is_compiled:
        rows = batches[0][:64]
        alone = [collate([row]).to(job.device) for row in rows]
        one_by_one = median(timed(lambda: classify(models["linear"], alone), job.device) for _ in range(4))
        found["one_by_one_float32"] = round(count_tokens([rows]) / one_by_one, 1)
    for model in models.values():
        model.to(torch.bfloat16)
        if is_compiled:
            job.compile_encoder(model)
        classify(model, inputs)
    for _ in range(job.rounds):
        for name, model in models.items():
            seconds.setdefault(name, []).append(timed(lambda model=model: classify(model, inputs), job.device))
    found["tokens_per_second"] = speeds = tokens_per_second(job, batches, seconds, passes=1)
    reached = speeds["ours"]["share_of_ceiling"]
    at_least = CEILING_TARGETS["scoring"]
    return {**found, "targets": {"ceiling": {"at_least": at_least, "holds": reached >= at_least}}}


@torch.no_grad()
def growth(job: Job) -> dict[str, Any]:
    """Time one document of each length, and record the memory above the model's."""
    model = make_model(job.fields, has_gru=True, device=job.device).to(torch.bfloat16).eval()
    rng, figures = random.Random(0), {}
    for length in job.lengths:
        inputs = collate([training_speed.make_row(length, job.fields["vocab_size"], rng)]).to(job.device)
        run = lambda inputs=inputs: classify(model, [inputs])  # noqa: E731
        run()
        held = reset_peak(job.device)
        seconds = median(timed(run, job.device) for _ in range(job.rounds))
        figures[str(length)] = {
            "milliseconds": round(seconds * 1e3, 3),
            "microseconds_per_token": round(seconds / length * 1e6, 3),
            "bytes_above_model": peak(job.device) - held,
        }
    return figures


PARTS = {
    "ceilings": Part(ceilings, 5),
    "checks": Part(checks, 60),
    "waiting": Part(waiting, 15),
    "training": Part(training, 120),
    "scoring": Part(scoring, 45),
    "growth": Part(growth, 20),
    "training_compiled": Part(partial(training, is_compiled=True), 90),
    "scoring_compiled": Part(partial(scoring, is_compiled=True), 60),
}


# What the parts share


def collate(rows: list[dict[str, Any]]) -> Any:
    """Pad documents to the longest."""
    columns = ("input_ids", "attention_mask", "labels")
    return DataCollatorWithPadding(training_speed.make_tokenizer())(
        [{name: row[name] for name in columns} for row in rows]
    )


def values_and_gradients(model: nn.Module, inputs: Any) -> dict[str, torch.Tensor]:
    """Return logits and all gradients, on the CPU."""
    outputs = model(**inputs.to(next(model.parameters()).device))
    outputs.loss.backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    inputs.to("cpu")
    return {"logits": outputs.logits.detach().float().cpu(), "gradients": gradients.cpu()}


def off_by(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return how far values are off, relative to all that was expected: ‖actual - expected‖ / ‖expected‖."""
    return ((actual - expected).norm() / expected.norm()).item()


def train(
    fields: dict[str, Any], batches: Batches, settings: Settings, has_gru: bool = True, change: Change = None
) -> float:
    """Train by the stock Trainer, as ours needs `datasets`, with NAdam or, for a linear head, AdamW."""
    args = TrainingArguments(**training_speed.trainer_options(settings, batches), optim="adamw_torch_fused")
    model = make_model(fields, has_gru, settings.device)
    if change is not None:
        change(model)
    options = {"lr": args.learning_rate, "weight_decay": args.weight_decay, "decoupled_weight_decay": True}
    nadam = {"optimizer_cls_and_kwargs": (torch.optim.NAdam, options)}
    return training_speed.run_trainer(Trainer, model, args, batches, settings, **(nadam if has_gru else {}))


def training_speeds(job: Job, systems: dict[str, Callable[..., float]], batch_size: int) -> dict[str, Any]:
    """Train with each system in turn: tokens and FLOPs a second, and the targets."""
    settings = job.settings
    batches = job_batches(job, job.steps + settings.num_warm, batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(job.rounds):
        for name, train_system in systems.items():
            seconds[name].append(train_system(job.fields, batches, settings))
            gc.collect()
    ratios = {
        other: median(its / mine for mine, its in zip(seconds["ours"], found, strict=True))
        for other, found in seconds.items()
        if other != "ours"
    }
    speeds = tokens_per_second(job, batches[settings.num_warm :], seconds, TRAINING_PASSES)
    of_ceiling, at_least = speeds["ours"]["share_of_ceiling"], CEILING_TARGETS["training"]
    return {
        "tokens_per_second": speeds,
        "ours_to": {name: round(ratio, 4) for name, ratio in ratios.items()},
        "targets": {
            "linear": {"at_least": TRAINING_TARGET, "holds": ratios["linear"] >= TRAINING_TARGET},
            "ceiling": {"at_least": at_least, "holds": of_ceiling >= at_least},
        },
    }


def tokens_per_second(job: Job, batches: Batches, seconds: dict[str, list[float]], passes: int) -> dict[str, Any]:
    """Return each system's speed on the same batches, and its share of the ceiling."""
    lengths = [row["length"] for batch in batches for row in batch]
    best = 1e9 * measure_ceilings(job.product, ("bfloat16",), job.device)["bfloat16"]["median"]
    work = {has_gru: passes * flops(lengths, job.fields, has_gru) for has_gru in (False, True)}
    return {
        name: {
            **spread([sum(lengths) / its for its in found], 1),
            "share_of_ceiling": round(work[name != "linear"] / median(found) / best, 4),
        }
        for name, found in seconds.items()
    }


def job_batches(job: Job, number: int, batch_size: int) -> Batches:
    """Return batches of IMDb's lengths, no longer than the window."""
    window = job.fields["max_position_embeddings"] - 2
    rng = random.Random(1)
    return [
        [
            row
            if row["length"] <= window
            else training_speed.make_row(rng.randint(3, window), job.fields["vocab_size"], rng)
            for row in batch
        ]
        for batch in draw_batches(job.fields, number, batch_size)
    ]


@torch.no_grad()
def classify(model: nn.Module, batches: list[Any]) -> None:
    """Compute the logits of some batches, and fetch them."""
    logits = [
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits for inputs in batches
    ]
    torch.cat(logits).cpu()


def reset_peak(device: str) -> int:
    """Forget the most memory held so far; return what is held now."""
    if device == "cpu":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak(device: str) -> int:
    """Return the most memory held since `reset_peak`; nothing is known of a CPU's."""
    return 0 if device == "cpu" else torch.cuda.max_memory_allocated()


def summary(measured: dict[str, Any]) -> list[str]:
    """Return a few lines: what was found of each part, the targets above all."""
    lines = [f"{measured['hardware']['device']}: {measured['command']}"]
    for name, figures in measured["parts"].items():
        state = next(
            (f"{word}: {figures[word].splitlines()[-1]}" for word in ("skipped", "error") if word in figures), ""
        )
        lines.append(f"{name} ({figures['took_seconds']} s) {state}".rstrip())
        if "holds" in figures:
            lines.append(f"  holds: {figures['holds']}")
        for key, values in figures.items():
            if isinstance(values, dict) and "tokens_per_second" in values:
                lines += [f"  {key}: {values['ours_to']}", f"  {key}: {values['targets']}"]
    return lines


if __name__ == "__main__":
    typer.run(main)
