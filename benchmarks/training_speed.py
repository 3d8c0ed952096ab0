"""Measure the tokens a second of training on the CPU, beside the usual ways; draw and tabulate what was measured.

`python benchmarks/training_speed.py measure`, about an hour of a machine that does nothing else, writes
`benchmarks/results/performance/training.json`; `make results` makes the figure and the table from it.

Weights and token ids are random: no speed depends on them. Documents are as long as IMDb's reviews cut at 512 tokens
(LENGTHS). `group_by_length` sorts 50 batches at a time; of 50 drawn batches, every system reads the same few, evenly
spread over the lengths.

Every system trains anew in each round, the order turned by one place; the clock runs from the end of the first batch,
which is not counted, to the end of the last. What is counted are the real tokens: padding is work that nobody asked
for. FLOPs are the model's own, of the real tokens, forward and (twice that) backward; the ceiling is a product of two
2048 × 2048 matrices of the same dtype, measured in each round.
"""

import gc
import os
import random
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import torch
import typer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    PrinterCallback,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results" / "performance" / "training.json"

WINDOW = 512
MEGA_BATCH = 50  # batches that `group_by_length` sorts together
NOTEBOOK_TARGET, LINEAR_TARGET = 3.0, 0.98
"""What ours must reach at least, as multiples of the notebook's way and of the linear head."""

# Quantiles (1, 3, 5 … 99 %) of the length of IMDb's training reviews in roberta-base's tokens, cut at 512.
LENGTHS = [
    *(57, 71, 85, 99, 113, 127, 138, 143, 148, 151, 155, 158, 162, 165, 169, 174, 178, 182, 187, 192, 197, 202, 208),
    *(214, 221, 228, 235, 244, 252, 260, 271, 283, 294, 305, 317, 332, 348, 364, 388, 412, 434, 463, 491),
    *[WINDOW] * 7,
]

# The defaults of RobertaConfig are others than roberta-base's.
GEOMETRIES: dict[str, dict[str, Any]] = {
    "roberta-base": {
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    },
    "all-MiniLM-L6-v2": {
        "num_hidden_layers": 6,
        "hidden_size": 384,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-12,
    },
    "toy": {
        "num_hidden_layers": 1,
        "hidden_size": 12,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "vocab_size": 60,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "gru_hidden_size": 8,
    },
}

Row = dict[str, Any]
Batches = list[list[Row]]


class Settings(NamedTuple):
    """How the two that use the Trainer train."""

    folder: str
    bf16: bool
    device: str = "cpu"
    num_warm: int = 1  # steps before the clock starts
    multiple: int | None = None  # widths of batches are multiples of this
    ceiling_size: int = 2048  # rows and columns of the matrices whose product is the ceiling


class System(NamedTuple):
    """One way to train."""

    name: str
    train: Callable[[dict[str, Any], Batches, Settings], float]  # returns the seconds of all but the first steps
    is_padded: bool = False  # whether every document is padded to the window
    is_float32: bool = False


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _describe() -> None:
    """Measure the tokens a second of training."""


@app.command()
def measure(
    geometry: Annotated[
        list[str] | None, typer.Option(help="roberta-base or all-MiniLM-L6-v2; again for more. Unset: both.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of the encoder. Unset: the geometry's.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents of a batch.")] = 18,
    steps: Annotated[int, typer.Option(min=1, help="Batches on the clock.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Times that every system is measured.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads. Unset: one for each core.")] = None,
    toy: Annotated[bool, typer.Option(help="A tiny encoder: to try the script.")] = False,
    output: Annotated[
        Path, typer.Option(help="The JSON file to write.", show_default=str(RECORDED.relative_to(ROOT)))
    ] = RECORDED,
) -> None:
    """Train with every system in turn, and check the targets."""
    sys.path.insert(0, str(ROOT))
    from modeling_roberta_gru.files import write_json
    from modeling_roberta_gru.training.record import describe_platform

    torch.set_num_threads(threads or os.cpu_count() or 1)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    bf16 = torch.cpu._is_avx512_bf16_supported()
    runs: list[dict[str, Any]] = []
    kwargs = {"ceiling_size": 64} if toy else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ["toy"] if toy else geometry or ["roberta-base", "all-MiniLM-L6-v2"]:
            fields = {**GEOMETRIES[name], **({} if layers is None else {"num_hidden_layers": layers})}
            batches, settings = draw_batches(fields, steps + 1, batch_size), Settings(folder, bf16, **kwargs)
            for run in _runs(fields, batches, rounds, settings):
                runs.append({"geometry": name, "num_layers": fields["num_hidden_layers"], **run})
                print(runs[-1], file=sys.stderr)
    measured = {
        "command": shlex.join(["python", "benchmarks/training_speed.py", *sys.argv[1:]]),
        "started": started,
        **describe_platform(),
        "batch_size": batch_size,
        "steps": steps,
        "rounds": rounds,
        "dtype": "bfloat16" if bf16 else "float32",
        "figures": summarise(runs),
        "targets": check_targets(runs),
        "runs": runs,
    }
    write_json(output, measured)
    print("\n".join(table(measured)))


# What is read


def draw_batches(fields: dict[str, Any], num_batches: int, batch_size: int, seed: int = 0) -> Batches:
    """Return evenly spread batches of those that `group_by_length` makes of documents of IMDb's lengths.

    The one of middle length stands first: it is read before the clock starts.
    """
    rng = random.Random(seed)
    lengths = sorted(draw_length(rng) for _ in range(MEGA_BATCH * batch_size))
    chosen = [int((index + 0.5) / num_batches * MEGA_BATCH) for index in range(num_batches)]
    chosen.insert(0, chosen.pop(num_batches // 2))
    return [
        [make_row(length, fields["vocab_size"], rng) for length in lengths[index * batch_size :][:batch_size]]
        for index in chosen
    ]


def draw_length(rng: random.Random) -> int:
    """Draw a length as IMDb's reviews have them, between two quantiles every length with equal chance."""
    place = rng.uniform(0, len(LENGTHS) - 1)
    below = LENGTHS[int(place)]
    return round(below + (LENGTHS[min(int(place) + 1, len(LENGTHS) - 1)] - below) * (place % 1))


def make_row(length: int, vocab_size: int, rng: random.Random) -> Row:
    """Make a document of random tokens, `<s>` and `</s>` around them, and a label."""
    ids = [0, *(rng.randrange(4, vocab_size) for _ in range(length - 2)), 2]
    return {"input_ids": ids, "attention_mask": [1] * length, "length": length, "labels": rng.randrange(2)}


def count_tokens(batches: Batches) -> int:
    """Count the real tokens."""
    return sum(row["length"] for batch in batches for row in batch)


def padded_share(batches: Batches, width: int | None = None) -> float:
    """Return the share of padding in what is computed; `width` is that of every batch if it is fixed."""
    num_columns = sum(len(batch) * (width or max(row["length"] for row in batch)) for batch in batches)
    return 1 - count_tokens(batches) / num_columns


# The systems


def train_plainly(fields: dict[str, Any], batches: Batches, settings: Settings) -> float:
    """Train as a notebook does: shuffled, all padded to the window, eager attention, float32, torch's NAdam."""
    model = make_model(fields, has_gru=True, device=settings.device, attn_implementation="eager")
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-5)
    rows = [row for batch in batches[settings.num_warm :] for row in batch]
    random.Random(1).shuffle(rows)
    size = len(batches[0])
    shuffled = batches[: settings.num_warm] + [rows[start : start + size] for start in range(0, len(rows), size)]
    collate = DataCollatorWithPadding(make_tokenizer(), padding="max_length", max_length=WINDOW)
    for number, batch in enumerate(shuffled):
        if number == settings.num_warm:
            started = now(settings.device)
        inputs = collate(_model_columns(batch)).to(settings.device)
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        loss.item()  # what its progress bar shows
    return now(settings.device) - started


def train_linear(fields: dict[str, Any], batches: Batches, settings: Settings) -> float:
    """Train a stock linear head with the Trainer at its best settings."""
    arguments = trainer_options(settings, batches)
    args = TrainingArguments(**arguments, optim="adamw_torch_fused")
    return run_trainer(
        Trainer, make_model(_at_best(fields, settings), has_gru=False, device=settings.device), args, batches, settings
    )


def train_ours(fields: dict[str, Any], batches: Batches, settings: Settings, *callbacks: TrainerCallback) -> float:
    """Train ours as train.py does, at the same settings."""
    from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments
    from modeling_roberta_gru.training.trainer import RobertaGRUTrainer

    args = RobertaGRUTrainingArguments(**trainer_options(settings, batches), load_best_model_at_end=False)
    model = make_model(_at_best(fields, settings), has_gru=True)
    return run_trainer(RobertaGRUTrainer, model, args, batches, settings, *callbacks)


SYSTEMS = {
    "notebook": System("a notebook's loop: all padded to 512, eager attention", train_plainly, True, True),
    "linear": System("Trainer, linear head, AdamW", train_linear),
    "ours": System("RoBERTa-GRU, NAdam", train_ours),
}


def _at_best(fields: dict[str, Any], settings: Settings) -> dict[str, Any]:
    # torch's fused attention on the CPU knows no dropout.
    return {**fields, "attention_probs_dropout_prob": 0.0} if settings.device == "cpu" else fields


def make_model(fields: dict[str, Any], has_gru: bool, device: str = "cpu", **kwargs: Any) -> Any:
    """Return a classifier with random weights, drawn on the device."""
    from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification

    torch.manual_seed(0)
    with torch.device(device):
        if has_gru:
            return RobertaGRUForSequenceClassification(RobertaGRUConfig(**fields, **kwargs))
        return RobertaForSequenceClassification(RobertaConfig(**fields, **kwargs))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that can do no more than pad."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")), pad_token="<pad>", unk_token="<unk>"
    )


def trainer_options(settings: Settings, batches: Batches) -> dict[str, Any]:
    """Return the options of the Trainer that all systems share."""
    return {
        "output_dir": settings.folder,
        "per_device_train_batch_size": len(batches[0]),
        "train_sampling_strategy": "sequential",  # the batches are grouped by length already
        "max_steps": len(batches),
        "learning_rate": 1e-5,
        "weight_decay": 0.01,
        "bf16": settings.bf16,
        "use_cpu": settings.device == "cpu",
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_nan_inf_filter": False,
        "dataloader_pin_memory": settings.device != "cpu",
        "disable_tqdm": True,
        "report_to": "none",
    }


class Clock(TrainerCallback):
    """Note when the first steps have ended, and when the last one has."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in (self.settings.num_warm, state.max_steps):
            self.times.append(now(self.settings.device))


def run_trainer(
    trainer_class: type[Trainer],
    model: nn.Module,
    args: TrainingArguments,
    batches: Batches,
    settings: Settings,
    *callbacks: TrainerCallback,
    **kwargs: Any,
) -> float:
    """Train, and return the seconds after the first steps."""
    clock = Clock(settings)
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=_model_columns(row for batch in batches for row in batch),
        data_collator=DataCollatorWithPadding(make_tokenizer(), pad_to_multiple_of=settings.multiple),
        callbacks=[clock, *callbacks],
        **kwargs,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    first, last = clock.times
    return last - first


def _model_columns(rows: Any) -> list[Row]:
    return [{name: row[name] for name in ("input_ids", "attention_mask", "labels")} for row in rows]


def now(device: str) -> float:
    """Return the time in seconds at which all that was asked of the device is done."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


# What is counted


def _runs(fields: dict[str, Any], batches: Batches, rounds: int, settings: Settings) -> Iterator[dict[str, Any]]:
    """Run round after round through all systems, so that a busy spell hits all of them."""
    timed = batches[settings.num_warm :]
    keys = list(SYSTEMS)
    for number in range(rounds):
        ceilings = {
            bf16: ceiling(settings.device, torch.bfloat16 if bf16 else torch.float32, settings.ceiling_size)
            for bf16 in (False, True)
        }
        for turn in range(len(keys)):
            key = keys[(number + turn) % len(keys)]
            system = SYSTEMS[key]
            load = os.getloadavg()[0]
            seconds = system.train(fields, batches, settings)
            gc.collect()
            flops = sum(
                training_flops(fields, row["length"], has_gru=key != "linear") for batch in timed for row in batch
            )
            yield {
                "system": key,
                "round": number,
                "load": round(load, 2),
                "seconds": round(seconds, 4),
                "tokens": count_tokens(timed),
                "padded_share": round(padded_share(timed, WINDOW if system.is_padded else None), 4),
                "tokens_per_second": round(count_tokens(timed) / seconds, 2),
                "flops_per_second": round(flops / seconds),
                "ceiling": round(ceilings[settings.bf16 and not system.is_float32]),
            }


def training_flops(fields: dict[str, Any], length: int, has_gru: bool) -> int:
    """Count the FLOPs of one document forward and backward: matrix products only, the head left out."""
    width, inner, gru_width = fields["hidden_size"], fields["intermediate_size"], fields.get("gru_hidden_size", 256)
    layer = 2 * length * (4 * width**2 + 2 * width * inner) + 4 * length**2 * width
    gru = 2 * length * 3 * gru_width * (width + gru_width) if has_gru else 0
    return 3 * (fields["num_hidden_layers"] * layer + gru)


def ceiling(device: str, dtype: torch.dtype, size: int, repeats: int = 10) -> float:
    """Return the FLOPs a second of a product of two random matrices: the median of some."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        started = now(device)
        left @ right
        seconds.append(now(device) - started)
    return 2 * size**3 / median(seconds[1:])


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians, and least and largest speeds, over the runs of each geometry and system."""
    groups = defaultdict(list)
    for run in runs:
        groups[run["geometry"], run["num_layers"], run["system"]].append(run)
    return [
        {
            "geometry": geometry,
            "num_layers": num_layers,
            "system": system,
            "num_runs": len(group),
            "padded_share": group[0]["padded_share"],
            "tokens_per_second": median(run["tokens_per_second"] for run in group),
            "tokens_per_second_min": min(run["tokens_per_second"] for run in group),
            "tokens_per_second_max": max(run["tokens_per_second"] for run in group),
            "flops_per_second": median(run["flops_per_second"] for run in group),
            "ceiling": median(run["ceiling"] for run in group),
        }
        for (geometry, num_layers, system), group in groups.items()
    ]


def check_targets(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare ours with both others, round by round: the median of the ratios, the least and the largest."""
    speeds = {(run["geometry"], run["system"], run["round"]): run["tokens_per_second"] for run in runs}
    targets = []
    for geometry in dict.fromkeys(run["geometry"] for run in runs):
        for other, at_least in (("notebook", NOTEBOOK_TARGET), ("linear", LINEAR_TARGET)):
            rounds = sorted({number for name, _, number in speeds if name == geometry})
            ratios = [speeds[geometry, "ours", number] / speeds[geometry, other, number] for number in rounds]
            targets.append(
                {
                    "geometry": geometry,
                    "other": other,
                    "ratio": round(median(ratios), 4),
                    "ratio_min": round(min(ratios), 4),
                    "ratio_max": round(max(ratios), 4),
                    "at_least": at_least,
                    "holds": median(ratios) >= at_least,
                }
            )
    return targets


# What is shown


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the Markdown table, the targets and the conditions."""
    hardware = measured["hardware"]
    versions = ", ".join(f"{name} {measured['versions'][name]}" for name in ("python", "torch", "transformers"))
    rows = []
    for figure in measured["figures"]:
        ratios = {
            target["other"]: target["ratio"]
            for target in measured["targets"]
            if target["geometry"] == figure["geometry"] and figure["system"] == "ours"
        }
        dtype = "float32" if SYSTEMS[figure["system"]].is_float32 else measured["dtype"]
        share = figure["flops_per_second"] / figure["ceiling"]
        rows.append(
            f"| {figure['geometry']}, {figure['num_layers']} layers | {SYSTEMS[figure['system']].name} | {dtype} | "
            f"{figure['tokens_per_second']:,.0f} ({figure['tokens_per_second_min']:,.0f} to "
            f"{figure['tokens_per_second_max']:,.0f}) | {figure['padded_share']:.0%} | "
            f"{figure['flops_per_second'] / 1e9:,.0f} | {share:.0%} |"
        )
        if ratios:
            rows[-1] += f" {ratios['notebook']:.2f} × the notebook's, {ratios['linear']:.3f} × the linear head's |"
        else:
            rows[-1] += "  |"
    return [
        "| encoder | system | dtype | tokens a second | padding | GFLOP/s | of the ceiling | ours |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |",
        *rows,
        "",
        f"Medians of {measured['rounds']} rounds (in brackets the least and the largest), {measured['steps']} batches "
        f"of {measured['batch_size']} documents each after one that is not counted. Wanted: {NOTEBOOK_TARGET:g} × the "
        f"notebook's way, {LINEAR_TARGET:g} × the linear head; "
        + "; ".join(
            f"{target['geometry']}, {target['other']}: {'reached' if target['holds'] else 'missed'}"
            for target in measured["targets"]
        )
        + ".",
        "",
        f"- command: `{measured['command']}`",
        f"- commit: `{measured['commit']}`; {versions}",
        f"- {hardware['num_threads']} of {hardware['num_cores']} cores ({hardware['processor']})",
    ]


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw the tokens a second of every system, a panel for each encoder."""
    from matplotlib.figure import Figure

    from modeling_roberta_gru.training import plots

    names = list(dict.fromkeys(figure["geometry"] for figure in measured["figures"]))
    drawing = Figure(figsize=(9, 0.9 + 1.1 * len(names)), layout="constrained")
    panels = drawing.subplots(len(names), 1, squeeze=False)[:, 0]
    colours = {"notebook": plots.GREY, "linear": plots.ORANGE, "ours": plots.BLUE}
    for axes, name in zip(panels, names, strict=True):
        shown = [figure for key in SYSTEMS for figure in measured["figures"] if _is(figure, name, key)]
        middle = [figure["tokens_per_second"] for figure in shown]
        spread = [
            [figure["tokens_per_second"] - figure["tokens_per_second_min"] for figure in shown],
            [figure["tokens_per_second_max"] - figure["tokens_per_second"] for figure in shown],
        ]
        labels = [SYSTEMS[figure["system"]].name for figure in shown]
        axes.barh(labels, middle, xerr=spread, color=[colours[figure["system"]] for figure in shown], height=0.6)
        axes.invert_yaxis()
        axes.set_title(f"{name}: tokens a second in training", fontsize=11)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        plots.tidy(axes)
    plots.save(drawing, path)


def _is(figure: dict[str, Any], geometry: str, system: str) -> bool:
    return (figure["geometry"], figure["system"]) == (geometry, system)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
