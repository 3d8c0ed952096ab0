"""Compare ways of classifying documents beyond the encoder's window, for docs/long-documents.md.

Same encoder, same training rows, same steps, same order; what differs is what becomes of a long document:

    whole      RoBERTa-GRU as it is: windows, the GRU's state running through all of them
    head       the first 512 tokens
    head_tail  the first and the last 256
    mean       RoBERTa-GRU on every window, the mean of the windows' logits (what BELT does)
    max        the same, the largest

`python benchmarks/long_documents.py built-in-long whole --seed 0` writes a file to benchmarks/results/long-documents/.
Where a task has folds, each is tested once by a model that was trained on the others, and has a file of its own: the
same command goes on after the last one that was written.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import heads
import measuring
import numpy as np
from datasets import Dataset
from measuring import conditions, cores, now, table_of, write_record
from transformers import DataCollatorWithPadding, RobertaModel, set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.arguments import DataArguments, ModelArguments
from modeling_roberta_gru.data.corpus import long_reviews
from modeling_roberta_gru.data.splits import Splits, load_splits
from modeling_roberta_gru.data.tokenization import select_tokens, tokenize
from modeling_roberta_gru.modeling_roberta_gru import Windows, classification_loss
from modeling_roberta_gru.training.architectures import ARCHITECTURES
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments
from modeling_roberta_gru.training.trainer import RobertaGRUTrainer

RESULTS = measuring.RESULTS / "long-documents"
CUT = 512  # tokens that truncation leaves
SYSTEMS = ("whole", "head", "head_tail", "mean", "max")


class WindowVote(RobertaGRUForSequenceClassification):
    """RoBERTa-GRU on every window apart; `vote` makes one row of logits of a document's."""

    vote = "mean"

    def forward(self, input_ids, attention_mask, labels=None, num_items_in_batch=None):
        lengths = attention_mask.sum(dim=1)  # padding is on the right
        windows = Windows(lengths.cpu(), self.config)
        cut = windows.cut(0, int(windows.counts.max()), input_ids.device)
        ids = input_ids[cut.row_of_window[:, None], cut.positions]
        width = int(cut.mask.sum(dim=1).max())
        logits = super().forward(ids[:, :width], attention_mask=cut.mask[:, :width]).logits  # (N, C)
        rows = cut.row_of_window[:, None].expand_as(logits)
        reduction = {"mean": "mean", "max": "amax"}[self.vote]
        logits = logits.new_zeros(len(lengths), logits.shape[1]).scatter_reduce(
            0, rows, logits, reduction, include_self=False
        )
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class MaxVote(WindowVote):
    """The largest logit of each label, whichever window gives it."""

    vote = "max"


NO_ATTENTION_DROPOUT = "attention_probs_dropout_prob=0"  # with it, torch has no fused attention on the CPU
TASKS: dict[str, dict[str, Any]] = {
    "built-in-long": {
        "model": {
            "config_overrides": "hidden_size=64,num_hidden_layers=1,num_attention_heads=4,intermediate_size=128,"
            "max_position_embeddings=130," + NO_ATTENTION_DROPOUT,
            "gru_hidden_size": 128,
            "head_hidden_size": 64,
        },
        "data": {"dataset_name": "built-in-long", "max_test_samples": 500},
        "training": {
            "learning_rate": 2e-3,
            "warmup_steps": 0.05,
            "num_train_epochs": 8,
            "per_device_train_batch_size": 8,
            "length_curriculum": 2,
            "label_smoothing_factor": 0.1,
        },
    },
    "imdb": {
        "model": {
            "model_name_or_path": "../shared/encoders/minilm-l6-roberta",
            "config_overrides": NO_ATTENTION_DROPOUT,
        },
        "data": {
            "dataset_name": "../shared/data/imdb",
            "clean_html": True,
            "class_names": ["negative", "positive"],
            "max_train_samples": 2000,
        },
        "training": {
            "learning_rate": 1e-4,
            "head_learning_rate": 1e-3,
            "weight_decay": 0.01,
            "warmup_steps": 0.06,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "bf16_if_available": True,
        },
    },
}
# The same encoder and training, but for smaller batches and a second epoch: there are few documents in a fold.
TASKS |= {
    task: {
        "model": TASKS["imdb"]["model"],
        "data": {"split": "0.98,0.01,0.01"},
        "training": TASKS["imdb"]["training"] | {"num_train_epochs": 2, "gradient_accumulation_steps": 1},
        "num_folds": num_folds,
    }
    for task, num_folds in (("hyperpartisan", 3), ("movies-polarity", 2))
}
NUM_LONG, NUM_SHORT = 2000, 3000  # IMDb test reviews beyond the window, and within it
IN_TEST = {"long": 3086, "short": 21914}  # how many of either the test split holds
NUM_TEN_TIMES = 100  # reviews ten times longer than the longest trained on


def main() -> None:
    """Train one system with one seed, and write which test rows it gets right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", help="a trained model whose encoder to begin with, instead of the task's own")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    name = f"{options.task}-{options.system}-{options.seed}"
    work = (options.task, options.system, options.seed, options.encoder)
    if "num_folds" not in TASKS[options.task]:
        splits = load_splits(DataArguments(**TASKS[options.task]["data"]))
        write_record(options.output / f"{name}.json", run(*work, splits))
        return
    for fold in range(TASKS[options.task]["num_folds"]):
        path = options.output / f"{name}-fold-{fold}.json"
        if not path.exists():
            splits = splits_of_fold(options.task, fold)
            write_record(path, run(*work, splits) | {"fold": fold})


def splits_of_fold(task: str, fold: int) -> Splits:
    """Return the rows of one of a task's folds, which benchmarks/heads.py knows too, as test; the others train."""
    documents = heads.load(heads.TASKS[task], heads.DATA)
    in_test = documents.folds % TASKS[task]["num_folds"] == fold
    rows = {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}
    tables = {
        split: Dataset.from_dict({"text": [documents.texts[row] for row in part], "label": documents.targets[part]})
        for split, part in rows.items()
    }
    return load_splits(DataArguments(**TASKS[task]["data"]), tables)


def run(task: str, system: str, seed: int, encoder: str | None, splits: Splits) -> dict[str, Any]:
    """Train and test; the GRU and the head begin untrained, the encoder as it is in `encoder`, if given.

    Returns:
        Conditions, and for each part of the test one digit a row: 1 where the system is right.
    """
    recipe = TASKS[task]
    model_args = ModelArguments(**recipe["model"])
    architecture = ARCHITECTURES["roberta-gru"]
    tokenizer = architecture.load_tokenizer(model_args, splits.train["text"])
    set_seed(seed)
    model = architecture.load_model(model_args, tokenizer, splits.labels)
    if encoder:
        model.roberta.load_state_dict(RobertaModel.from_pretrained(encoder, add_pooling_layer=False).state_dict())
    model.__class__ = {"mean": WindowVote, "max": MaxVote}.get(system, type(model))
    parts = test_parts(task, tokenize(splits.test, tokenizer, None), model.config.encoder_window)
    if task == "built-in-long" and system == "whole":
        parts["ten_times"] = tokenize(ten_times_longer(), tokenizer, None)
    whole = tokenize(splits.train, tokenizer, None)
    train = read_as(system, whole)
    with tempfile.TemporaryDirectory() as folder:
        args = RobertaGRUTrainingArguments(
            output_dir=folder,
            seed=seed,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            per_device_eval_batch_size=8,
            lr_scheduler_type="linear",
            **recipe["training"],
        )
        trainer = RobertaGRUTrainer(
            model,
            args,
            train_dataset=train,
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        started = now()
        training = trainer.train()
        seconds = now() - started
        tests = {name: right(trainer, read_as(system, part)) for name, part in parts.items()}
    return {
        **conditions(),
        "task": task,
        "system": system,
        "seed": seed,
        **({"encoder": encoder} if encoder else {}),
        "window": model.config.encoder_window,
        "window_stride": model.config.window_stride,
        "num_train": len(train),
        "longest_training_document": max(whole["length"][:]),
        "steps": training.global_step,
        "training_tokens": sum(train["length"][:]) * int(args.num_train_epochs),
        "training_seconds": round(seconds, 1),
        "final_loss": training.training_loss,
        "options": recipe,
        "precision": "bf16" if args.bf16 else "fp32",
        "tests": tests,
    }


def read_as(system: str, tokens: Dataset) -> Dataset:
    """Cut documents to what a system sees of them."""
    if system not in ("head", "head_tail"):
        return tokens

    def cut(row: dict[str, Any]) -> dict[str, Any]:
        ids = select_tokens(row["input_ids"], CUT, system, np.random.default_rng())
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "length": len(ids)}

    return tokens.map(cut)


def test_parts(task: str, tokens: Dataset, window: int) -> dict[str, Dataset]:
    """Return the parts of the test that are measured apart."""
    if task != "imdb":
        return {"test": tokens}
    lengths = np.asarray(tokens["length"][:])
    rng = np.random.default_rng(0)
    rows = {"long": np.flatnonzero(lengths > window), "short": np.flatnonzero(lengths <= window)}
    if {name: len(rows[name]) for name in rows} != IN_TEST:
        raise ValueError(f"The test split holds other rows than {IN_TEST}.")
    sizes = {"long": NUM_LONG, "short": NUM_SHORT}
    return {name: tokens.select(np.sort(rng.choice(rows[name], sizes[name], replace=False))) for name in rows}


def ten_times_longer() -> Dataset:
    """Write reviews at least ten times longer than the longest that may be trained on."""
    reviews = long_reviews("ten times", 0, NUM_TEN_TIMES, 20_000, 26_000)
    return Dataset.from_list(
        [{"row_id": str(row), "text": review["text"], "label": review["label"]} for row, review in enumerate(reviews)]
    )


def right(trainer: RobertaGRUTrainer, tokens: Dataset) -> dict[str, Any]:
    """Return which rows are classified as labelled, and how long that took."""
    started = now()
    logits = trainer.predict_logits(tokens)
    hits = logits.argmax(axis=1) == np.asarray(tokens["labels"][:])
    return {
        "right": "".join(str(int(hit)) for hit in hits),
        "accuracy": float(hits.mean()),
        "tokens": int(sum(tokens["length"][:])),
        "seconds": round(now() - started, 1),
    }


# What docs/long-documents.md says of it

NAMES = {
    "whole": "**RoBERTa-GRU, whole document**",
    "head": "first 512 tokens",
    "head_tail": "first and last 256 tokens",
    "mean": "mean of window logits",
    "max": "largest window logits",
}


Strata = list[tuple[float, np.ndarray]]  # share of the rows, hits (seeds, rows)
PARTS: dict[str, dict[str, str]] = {
    "built-in-long": {"test": "1,000 to 8,000 tokens", "ten_times": "20,000 to 26,000 tokens"},
    "imdb": {"long": "over 512 tokens", "short": "up to 512 tokens", "all": "all, in the test split's proportion"},
    "hyperpartisan": {"test": "all articles"},
    "movies-polarity": {"test": "all reviews"},
}


def recorded(task: str) -> list[dict[str, Any]]:
    """Return a task's recorded runs, the folds of one system and seed joined; without those that lack a fold."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob(f"{task}-*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        runs.setdefault((run["system"], run["seed"]), []).append(run)
    return [_join(folds) for folds in runs.values() if len(folds) == TASKS[task].get("num_folds", 1)]


def _join(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the runs on a task's folds together: one run, over all their test rows, with the sizes of each."""
    first = folds[0]
    parts = {part: {"right": "".join(fold["tests"][part]["right"] for fold in folds)} for part in first["tests"]}
    sizes = {name: [fold[name] for fold in folds] for name in ("num_train", "longest_training_document", "steps")}
    return first | sizes | {"tests": parts, "training_seconds": sum(fold["training_seconds"] for fold in folds)}


def table(task: str) -> list[str]:
    """Return the lines of a task's Markdown table and its conditions, from the recorded runs."""
    runs = recorded(task)
    tests = {system: {run["seed"]: run["tests"] for run in runs if run["system"] == system} for system in SYSTEMS}
    ours = tests["whole"]
    num_rows = {part: sum(hits.shape[1] for _, hits in _strata(ours.values(), part)) for part in PARTS[task]}
    heads = [f"{name}, n = {num_rows[part]:,}" for part, name in PARTS[task].items()]
    rows = []
    for system, theirs in tests.items():
        if theirs:
            cells = [_cell(ours, theirs, part) for part in PARTS[task]]
            rows.append([NAMES[system], str(len(theirs)), *cells])
    heads = [f"W = {runs[0]['window']}", "seeds", *heads]
    return [*table_of(heads, rows, num_left=len(heads)), "", *_conditions(runs)]


def verdicts_table() -> list[str]:
    """Return the lines of the built-in corpus's table by how often a document's verdict is given and overturned."""
    runs = recorded("built-in-long")
    test = load_splits(DataArguments(**TASKS["built-in-long"]["data"]), keep=["num_judgements"]).test
    counts = np.asarray(test["num_judgements"][:], dtype=int)
    heads = [f"{number}, n = {(counts == number).sum()}" for number in np.unique(counts)]
    rows = []
    for system in SYSTEMS:
        hits = _matrix([run["tests"] for run in runs if run["system"] == system], "test")
        cells = [_written([(1, hits[:, counts == number])]) for number in np.unique(counts)]
        rows.append([NAMES[system], *cells])
    return table_of(["verdicts in the document", *heads], rows, num_left=1 + len(heads))


def _strata(tests: Iterable[dict[str, Any]], part: str) -> Strata:
    """Return the shares of a part's strata, and their hits (seeds, rows)."""
    shares = IN_TEST if part == "all" else {part: 1}
    total = sum(shares.values())
    return [(share / total, _matrix(tests, name)) for name, share in shares.items()]


def _matrix(tests: Iterable[dict[str, Any]], part: str) -> np.ndarray:
    hits = [[int(digit) for digit in test[part]["right"]] for test in tests if part in test]
    return np.array(hits, dtype=float) if hits else np.empty((0, 0))


def _cell(ours: dict[int, Any], theirs: dict[int, Any], part: str) -> str:
    """Write a system's accuracy on a part and, if it is not ours, the difference; both are given as tests by seed."""
    strata = _strata(theirs.values(), part)
    if not all(len(hits) for _, hits in strata):
        return ""
    if theirs is ours:
        return _written(strata)
    shared = sorted(ours.keys() & theirs.keys())  # the same seeds and rows are compared
    pairs = zip(*(_strata([tests[seed] for seed in shared], part) for tests in (ours, theirs)), strict=True)
    differences = [(share, mine - hits) for (share, mine), (_, hits) in pairs]
    return f"{_written(strata)}; {_written(differences, sign='+')}"


def _written(strata: Strata, sign: str = "") -> str:
    """Write a mean in percent with a 95 % interval: bootstrap over seeds and rows at once, 2,000 resamples."""
    rng = np.random.default_rng(0)
    num_seeds = len(strata[0][1])

    def draw() -> float:
        seeds = rng.integers(num_seeds, size=num_seeds)
        means = [rng.choice(values[seeds].mean(axis=0), values.shape[1]).mean() for _, values in strata]
        return sum(share * mean for (share, _), mean in zip(strata, means, strict=True))

    mean = sum(share * values.mean() for share, values in strata)
    low, high = np.percentile([draw() for _ in range(2000)], [2.5, 97.5])
    return f"{100 * mean:{sign}.1f} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def _conditions(runs: list[dict[str, Any]]) -> list[str]:
    first = runs[0]
    seeds, commits = (sorted({run[name] for run in runs}) for name in ("seed", "commit"))
    longest = max(max(run["longest_training_document"]) for run in runs)
    seconds = [run["training_seconds"] for run in runs]
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in ("python", "torch", "transformers"))
    num_folds = TASKS[first["task"]].get("num_folds")
    folds = f" in each of {num_folds} folds" if num_folds else ""
    encoder = f" --encoder {first['encoder']}" if "encoder" in first else ""
    return [
        f"- command: `python benchmarks/long_documents.py {first['task']} SYSTEM --seed SEED{encoder}`, seeds "
        f"{', '.join(map(str, seeds))}; commit {', '.join(f'`{commit}`' for commit in commits)}",
        f"- {_range(first['num_train'])} training documents of up to {longest:,} tokens, {_range(first['steps'])} "
        f"steps for every system{folds}; {versions}",
        f"- {min(seconds):,.0f} to {max(seconds):,.0f} s of training, {first['precision']}, "
        f"{cores(first, '; shared')}",
    ]


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


if __name__ == "__main__":
    main()
