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
import itertools
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
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import torch
import training_speed
import typer
from torch import nn
from training_speed import GEOMETRIES, ROOT, Settings, ceiling, draw_batches, make_model, now, training_flops
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
ONE_PASS, TOLERANCES = 1 / 3, {"float32": 1e-4, "bfloat16": 3e-2}
"""Forward's share of the FLOPs of training; and how far the GPU may be off, relative to the values' norm.

Without tf32, float32 differs by the order of summation. A bfloat16 has 8 bits: some layers of it differ by a percent.
"""
TRAINING_TARGET = 0.95  # ours, as a multiple of the linear head
CEILING_TARGETS = {"scoring": 0.60, "training": 0.45}


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
    gru_widths: tuple[int, ...] = (256, 128)  # the model's first
    num_warm: int = 5  # steps of a training before the clock starts
    folder: str = ""

    @property
    def settings(self) -> Settings:
        return Settings(self.folder, bf16=True, device=self.device, num_warm=self.num_warm)


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
        gru_widths=(8, 4),
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
    """Measure what the device can do at best: products of random matrices, and copies."""
    source = torch.randn(job.product**2 // 2, 16, device=job.device)
    target = torch.empty_like(source)
    copying = median(timed(job.device, lambda: target.copy_(source), 10))
    return {
        **{str(dtype).removeprefix("torch."): ceiling(job.device, dtype, job.product) for dtype in DTYPES},
        "copied_bytes_per_second": 2 * source.nbytes / copying,
    }


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
            model.roberta.compile(dynamic=True, backend=job.compiler)
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


def optimizer_steps(job: Job) -> dict[str, Any]:
    """Compare our NAdam with torch's on the device: what both make of a few steps, and what a step costs."""
    nadam = import_nadam()
    options: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.01}
    model = make_model(job.fields, has_gru=True, device=job.device)
    twins = [model, copy.deepcopy(model), copy.deepcopy(model)]
    optimizers = {
        "ours": nadam(twins[0].parameters(), **options),
        "torch": torch.optim.NAdam(twins[1].parameters(), decoupled_weight_decay=True, **options),
        "adamw_fused": torch.optim.AdamW(twins[2].parameters(), fused=True, **options),
    }
    for parameters in zip(*(twin.parameters() for twin in twins), strict=True):
        gradient = torch.randn_like(parameters[0])
        for parameter in parameters:
            parameter.grad = gradient
    seconds = interleaved(job, {name: optimizer.step for name, optimizer in optimizers.items()}, job.steps)
    off = max(off_by(one, other) for one, other in zip(*(twin.parameters() for twin in twins[:2]), strict=True))
    return {"off_torchs_by": off, "holds": off <= 1e-4, "milliseconds": in_milliseconds(seconds)}


def gru_share(job: Job) -> dict[str, Any]:
    """Time a training step, the same without GRU, and the GRU alone, at the window's length."""
    from modeling_roberta_gru.modeling_roberta_gru import RobertaGRURecurrence

    window = job.fields["max_position_embeddings"] - 2
    figures: dict[str, Any] = {}
    for batch_size in job.batch_sizes:
        rng = random.Random(0)
        rows = [training_speed.make_row(window, job.fields["vocab_size"], rng) for _ in range(batch_size)]
        inputs = collate(rows).to(job.device)
        models = {key: make_model(job.fields, has_gru=key == "ours", device=job.device) for key in ("linear", "ours")}
        parts = {f"step_{key}": step_of(job, model, inputs) for key, model in models.items()}
        lengths = torch.full((batch_size,), window, device=job.device)
        # cuDNN keeps a GRU's weights on the chip up to a width of 128 (192 forward) in any of these dtypes: see
        # use_rnn_persist_small_h in torch's aten/src/ATen/native/cudnn/RNN.cpp.
        for width, dtype in itertools.product(job.gru_widths, (*DTYPES, torch.float16)):
            config = copy.deepcopy(models["ours"].config)
            config.gru_hidden_size = width
            recurrence = RobertaGRURecurrence(config).to(job.device, dtype).train()
            states = torch.randn(batch_size, window, job.fields["hidden_size"], device=job.device, dtype=dtype)
            parts[f"gru_{str(dtype).removeprefix('torch.')}_{width}"] = gru_step(recurrence, states, lengths)
        seconds = interleaved(job, parts, job.steps)
        step, alone = median(seconds["step_ours"]), median(seconds[f"gru_bfloat16_{job.gru_widths[0]}"])
        figures[str(batch_size)] = {"milliseconds": in_milliseconds(seconds), "share": round(alone / step, 4)}
        del models, parts, inputs
    return figures


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
            train_with(import_nadam())(job.fields, batches, job.settings)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchroniz" in str(warning.message):
            place = f"{Path(warning.filename).name}:{warning.lineno}"
            places[place] = places.get(place, 0) + 1
    return {"steps": len(batches), "places": dict(sorted(places.items(), key=lambda item: -item[1]))}


def training(job: Job) -> dict[str, Any]:
    """Time the Trainer's loop: ours, ours with torch's NAdam, the linear head, and the notebook's way."""
    nadam = import_nadam()
    systems: dict[str, Callable[..., float]] = {
        "linear": training_speed.train_linear,
        "ours": train_with(nadam),
        "ours_torch_nadam": train_with(torch.optim.NAdam, decoupled_weight_decay=True),
        "ours_multiple_of_8": train_with(nadam, multiple=8),
    }
    figures: dict[str, Any] = {}
    for number, batch_size in enumerate(job.batch_sizes):
        notebook = {"notebook": training_speed.train_plainly} if number == 0 else {}
        figures[str(batch_size)] = training_speeds(job, {**notebook, **systems}, batch_size)
    return figures


def training_compiled(job: Job) -> dict[str, Any]:
    """Time the Trainer's loop with compiled encoders."""
    compile_encoder = lambda model: model.roberta.compile(dynamic=True, backend=job.compiler)  # noqa: E731
    systems = {
        "linear": train_with(None, has_gru=False, change=compile_encoder),
        "ours": train_with(import_nadam(), change=compile_encoder),
    }
    return {str(size): training_speeds(job, systems, size, rounds=3) for size in job.batch_sizes[-1:]}


def scoring(job: Job) -> dict[str, Any]:
    """Time classification in bfloat16, in batches of like lengths, and one by one in float32 as a pipeline does."""
    return scoring_speeds(job, change=None)


def scoring_compiled(job: Job) -> dict[str, Any]:
    """Time classification with compiled encoders."""
    return scoring_speeds(job, change=lambda model: model.roberta.compile(dynamic=True, backend=job.compiler))


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
        seconds = median(timed(job.device, run, job.rounds))
        figures[str(length)] = {
            "milliseconds": round(seconds * 1e3, 3),
            "microseconds_per_token": round(seconds / length * 1e6, 3),
            "bytes_above_model": peak(job.device) - held,
        }
    return figures


PARTS = {
    "ceilings": Part(ceilings, 5),
    "checks": Part(checks, 60),
    "optimizer_steps": Part(optimizer_steps, 15),
    "waiting": Part(waiting, 15),
    "gru_share": Part(gru_share, 60),
    "training": Part(training, 120),
    "scoring": Part(scoring, 45),
    "growth": Part(growth, 20),
    "training_compiled": Part(training_compiled, 90),
    "scoring_compiled": Part(scoring_compiled, 60),
}
DTYPES = (torch.bfloat16, torch.float32)
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


# What the parts share


def import_nadam() -> type[torch.optim.Optimizer]:
    from modeling_roberta_gru.training.optimizers import NAdam

    return NAdam


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


def timed(device: str, run: Callable[[], Any], repeats: int) -> list[float]:
    """Return the seconds of each of some runs, after one that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        started = now(device)
        run()
        seconds.append(now(device) - started)
    return seconds


def interleaved(job: Job, runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time some things in turn: a list of seconds for each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(job.rounds):
        for name, run in runs.items():
            seconds[name].append(median(timed(job.device, run, repeats)))
    return seconds


def in_milliseconds(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return median, least and largest of each."""
    return {
        name: {key: round(reduce(found) * 1e3, 4) for key, reduce in REDUCTIONS.items()}
        for name, found in seconds.items()
    }


REDUCTIONS: dict[str, Callable[[list[float]], float]] = {"median": median, "min": min, "max": max}


def step_of(job: Job, model: nn.Module, inputs: Any) -> Callable[[], None]:
    """Return forward and backward in bfloat16."""

    def step() -> None:
        model.zero_grad()
        with torch.autocast(job.device, torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()

    return step


def gru_step(recurrence: nn.Module, states: torch.Tensor, lengths: torch.Tensor) -> Callable[[], None]:
    """Return forward and backward of a GRU alone."""
    states.requires_grad_()

    def step() -> None:
        recurrence(states, lengths)[0][:, -1].sum().backward()

    return step


def train_with(
    optimizer: type[torch.optim.Optimizer] | None,
    has_gru: bool = True,
    change: Callable[[nn.Module], Any] | None = None,
    multiple: int | None = None,
    **optimizer_options: Any,
) -> Callable[..., float]:
    """Return a training by the stock Trainer: `datasets`, which ours needs, is not there."""

    def train(fields: dict[str, Any], batches: training_speed.Batches, settings: Settings) -> float:
        settings = settings._replace(multiple=multiple)
        args = TrainingArguments(**training_speed.trainer_options(settings, batches), optim="adamw_torch_fused")
        model = make_model(fields, has_gru=has_gru, device=settings.device)
        if change is not None:
            change(model)
        options = {"lr": args.learning_rate, "weight_decay": args.weight_decay, **optimizer_options}
        kwargs = {} if optimizer is None else {"optimizer_cls_and_kwargs": (optimizer, options)}
        return training_speed.run_trainer(Trainer, model, args, batches, settings, **kwargs)

    return train


def training_speeds(
    job: Job, systems: dict[str, Callable[..., float]], batch_size: int, rounds: int | None = None
) -> dict[str, Any]:
    """Train with each system in turn: tokens and FLOPs a second, and the targets."""
    settings = job.settings
    batches = job_batches(job, job.steps + settings.num_warm, batch_size)
    counted = batches[settings.num_warm :]
    tokens = training_speed.count_tokens(counted)
    best = ceiling(job.device, torch.bfloat16, job.product)
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds or job.rounds):
        for name, train in systems.items():
            speeds[name].append(tokens / train(job.fields, batches, settings))
            gc.collect()
    flops = {
        has_gru: sum(training_flops(job.fields, row["length"], has_gru) for batch in counted for row in batch)
        for has_gru in (False, True)
    }
    figures: dict[str, Any] = {}
    for name, found in speeds.items():
        share = median(found) * flops[name != "linear"] / tokens / best
        figures[name] = {
            **{key: round(reduce(found), 1) for key, reduce in REDUCTIONS.items()},
            "share_of_ceiling": round(share, 4),
        }
    ratios = {
        other: median(mine / its for mine, its in zip(speeds["ours"], speeds[other], strict=True))
        for other in systems
        if other != "ours"
    }
    return {
        "tokens_per_second": figures,
        "ours_to": {name: round(ratio, 4) for name, ratio in ratios.items()},
        "targets": {
            "linear": {"at_least": TRAINING_TARGET, "holds": ratios["linear"] >= TRAINING_TARGET},
            "ceiling": {
                "at_least": CEILING_TARGETS["training"],
                "holds": figures["ours"]["share_of_ceiling"] >= CEILING_TARGETS["training"],
            },
        },
    }


def job_batches(job: Job, number: int, batch_size: int) -> training_speed.Batches:
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
def scoring_speeds(job: Job, change: Callable[[nn.Module], Any] | None) -> dict[str, Any]:
    """Time classification of the same documents by ours and by the linear head."""
    batches = job_batches(job, job.steps, job.batch_sizes[-1])
    inputs = [collate(batch).to(job.device) for batch in batches]
    tokens = training_speed.count_tokens(batches)
    runs = {}
    for name, has_gru in (("linear", False), ("ours", True)):
        model = make_model(job.fields, has_gru=has_gru, device=job.device).to(torch.bfloat16).eval()
        if change is not None:
            change(model)
        runs[name] = lambda model=model: classify(model, inputs)
    if change is None:
        alone = [collate([row]).to(job.device) for row in batches[0][:64]]
        stock = make_model(job.fields, has_gru=False, device=job.device).eval()
        one_by_one = median(timed(job.device, lambda: classify(stock, alone), 3))
        stock_speed = sum(row["length"] for row in batches[0][:64]) / one_by_one
    seconds = interleaved(job, runs, 1)
    best = ceiling(job.device, torch.bfloat16, job.product)
    figures: dict[str, Any] = {}
    for name, found in seconds.items():
        speeds = [tokens / its for its in found]
        flops = ONE_PASS * sum(
            training_flops(job.fields, row["length"], name == "ours") for batch in batches for row in batch
        )
        figures[name] = {
            **{key: round(reduce(speeds), 1) for key, reduce in REDUCTIONS.items()},
            "share_of_ceiling": round(median(speeds) * flops / tokens / best, 4),
        }
    ceiling_reached = figures["ours"]["share_of_ceiling"] >= CEILING_TARGETS["scoring"]
    return {
        "tokens_per_second": figures,
        **({} if change is not None else {"one_by_one_float32": round(stock_speed, 1)}),
        "targets": {"ceiling": {"at_least": CEILING_TARGETS["scoring"], "holds": ceiling_reached}},
    }


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


sys.path.insert(0, str(ROOT))  # the package is not installed there

if __name__ == "__main__":
    typer.run(main)
