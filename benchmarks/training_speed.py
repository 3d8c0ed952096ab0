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
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import torch
import typer
from measuring import (
    GEOMETRIES,
    RESULTS,
    commit_line,
    conditions,
    cores,
    flops,
    grouped,
    json_option,
    log,
    make_model,
    measure_ceilings,
    now,
    panels,
    ranged,
    spread,
    turned,
    whiskers,
    write,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from modeling_roberta_gru.training.arguments import has_bfloat16

RECORDED = RESULTS / "performance" / "training.json"

WINDOW = 512
MEGA_BATCH = 50  # batches that `group_by_length` sorts together
NOTEBOOK_TARGET, LINEAR_TARGET = 3.0, 0.98
"""What ours must reach at least, as multiples of the notebook's way and of the linear head."""
TRAINING_PASSES = 3
"""FLOPs of training in those of forward: backward takes twice as many."""

# Quantiles (1, 3, 5 … 99 %) of the length of IMDb's training reviews in roberta-base's tokens, cut at 512.
LENGTHS = [
    *(57, 71, 85, 99, 113, 127, 138, 143, 148, 151, 155, 158, 162, 165, 169, 174, 178, 182, 187, 192, 197, 202, 208),
    *(214, 221, 228, 235, 244, 252, 260, 271, 283, 294, 305, 317, 332, 348, 364, 388, 412, 434, 463, 491),
    *[WINDOW] * 7,
]

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
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Train with every system in turn, and check the targets."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    measured, bf16 = conditions(), has_bfloat16(on_cpu=True)
    runs: list[dict[str, Any]] = []
    kwargs = {"ceiling_size": 64} if toy else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ["toy"] if toy else geometry or ["roberta-base", "all-MiniLM-L6-v2"]:
            fields = {**GEOMETRIES[name], **({} if layers is None else {"num_hidden_layers": layers})}
            batches, settings = draw_batches(fields, steps + 1, batch_size), Settings(folder, bf16, **kwargs)
            for run in _runs(fields, batches, rounds, settings):
                runs.append({"geometry": name, "num_layers": fields["num_hidden_layers"], **run})
                log(runs[-1])
    measured |= {
        "batch_size": batch_size,
        "steps": steps,
        "rounds": rounds,
        "dtype": "bfloat16" if bf16 else "float32",
        "figures": summarise(runs),
        "targets": check_targets(runs),
        "runs": runs,
    }
    write(output, measured, table(measured))


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


# What is counted


def _runs(fields: dict[str, Any], batches: Batches, rounds: int, settings: Settings) -> Iterator[dict[str, Any]]:
    """Run round after round through all systems."""
    lengths = [row["length"] for batch in batches[settings.num_warm :] for row in batch]
    num_tokens, at_best = sum(lengths), "bfloat16" if settings.bf16 else "float32"
    for number in range(rounds):
        ceilings = measure_ceilings(settings.ceiling_size, sorted({"float32", at_best}), settings.device)
        for key in turned(list(SYSTEMS), number):
            system = SYSTEMS[key]
            seconds = system.train(fields, batches, settings)
            gc.collect()
            width = WINDOW if system.is_padded else None
            yield {
                "system": key,
                "round": number,
                "seconds": round(seconds, 4),
                "tokens": num_tokens,
                "padded_share": round(padded_share(batches[settings.num_warm :], width), 4),
                "tokens_per_second": round(num_tokens / seconds, 2),
                "flops_per_second": round(TRAINING_PASSES * flops(lengths, fields, key != "linear") / seconds),
                "ceiling": round(1e9 * ceilings["float32" if system.is_float32 else at_best]["median"]),
            }


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return medians, and least and largest speeds, over the runs of each geometry and system."""
    figures = []
    for (geometry, num_layers, system), group in grouped(runs, "geometry", "num_layers", "system").items():
        speed = spread([run["tokens_per_second"] for run in group])
        figures.append(
            {
                "geometry": geometry,
                "num_layers": num_layers,
                "system": system,
                "num_runs": len(group),
                "padded_share": group[0]["padded_share"],
                "tokens_per_second": speed["median"],
                "tokens_per_second_min": speed["min"],
                "tokens_per_second_max": speed["max"],
                "flops_per_second": median(run["flops_per_second"] for run in group),
                "ceiling": median(run["ceiling"] for run in group),
            }
        )
    return figures


def check_targets(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare ours with both others, round by round: the median of the ratios, the least and the largest."""
    targets = []
    for (geometry,), group in grouped(runs, "geometry").items():
        speeds = {(run["system"], run["round"]): run["tokens_per_second"] for run in group}
        for other, at_least in (("notebook", NOTEBOOK_TARGET), ("linear", LINEAR_TARGET)):
            ratios = [speed / speeds[other, number] for (system, number), speed in speeds.items() if system == "ours"]
            ratio = spread(ratios)
            targets.append(
                {
                    "geometry": geometry,
                    "other": other,
                    "ratio": ratio["median"],
                    "ratio_min": ratio["min"],
                    "ratio_max": ratio["max"],
                    "at_least": at_least,
                    "holds": median(ratios) >= at_least,
                }
            )
    return targets


# What is shown


def _speed(figure: dict[str, Any]) -> dict[str, float]:
    name = "tokens_per_second"
    return {"median": figure[name], "min": figure[f"{name}_min"], "max": figure[f"{name}_max"]}


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the Markdown table, the targets and the conditions."""
    rows = []
    for figure in measured["figures"]:
        its = [target for target in measured["targets"] if target["geometry"] == figure["geometry"]]
        ratio = {target["other"]: target["ratio"] for target in its}
        compared = f"{ratio['notebook']:.2f} × the notebook's, {ratio['linear']:.3f} × the linear head's"
        system = SYSTEMS[figure["system"]]
        cells = [
            f"{figure['geometry']}, {figure['num_layers']} layers",
            system.name,
            "float32" if system.is_float32 else measured["dtype"],
            ranged(_speed(figure), ",.0f"),
            f"{figure['padded_share']:.0%}",
            f"{figure['flops_per_second'] / 1e9:,.0f}",
            f"{figure['flops_per_second'] / figure['ceiling']:.0%}",
            compared if figure["system"] == "ours" else "",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    reached = [
        f"{target['geometry']}, {target['other']}: {'reached' if target['holds'] else 'missed'}"
        for target in measured["targets"]
    ]
    return [
        "| encoder | system | dtype | tokens a second | padding | GFLOP/s | of the ceiling | ours |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |",
        *rows,
        "",
        f"Medians of {measured['rounds']} rounds (in brackets the least and the largest), {measured['steps']} batches "
        f"of {measured['batch_size']} documents each after one that is not counted. Target: {NOTEBOOK_TARGET:g} × the "
        f"notebook's way, {LINEAR_TARGET:g} × the linear head; {'; '.join(reached)}.",
        "",
        f"- command: `{measured['command']}`",
        commit_line(measured),
        f"- {cores(measured)}",
    ]


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw the tokens a second of every system, a panel for each encoder."""
    from modeling_roberta_gru.training import plots

    by_geometry = grouped(measured["figures"], "geometry")
    drawing, all_axes = panels(9, 0.9 + 1.1 * len(by_geometry), len(by_geometry))
    colours = {"notebook": plots.GREY, "linear": plots.ORANGE, "ours": plots.BLUE}
    for axes, ((name,), figures) in zip(all_axes, by_geometry.items(), strict=True):
        shown = sorted(figures, key=lambda figure: list(SYSTEMS).index(figure["system"]))
        speeds = [_speed(figure) for figure in shown]
        labels = [SYSTEMS[figure["system"]].name for figure in shown]
        its = [colours[figure["system"]] for figure in shown]
        axes.barh(labels, [of["median"] for of in speeds], xerr=whiskers(speeds), color=its, height=0.6)
        axes.invert_yaxis()
        axes.set_title(f"{name}: tokens a second in training", fontsize=11)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        plots.tidy(axes)
    plots.save(drawing, path)


if __name__ == "__main__":
    app()
