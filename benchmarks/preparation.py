"""Preparing tweets for training: rows a second and memory, up to the first batch, beside transformers' own example.

    python benchmarks/preparation.py --rows 100000 1000000 1600000

A size that benchmarks/results/preparation.json has already is not measured again, unless with `--again`.

The tweets are made up by a seed from those of a Parquet file: the beginning of one and the end of another. Both
prepare the same CSV file, each in a process of its own. What `run_classification.py` of transformers does is restated
here: `load_dataset("csv")`, a fifth of the rows held out, labels to integers by a list of the sorted ones, truncation
to 128 tokens, a shuffling data loader. Ours also removes repeated texts and conflicting labels, keeps texts out of two
splits, stratifies, digests the data, and orders documents by length. Beside these, reading alone: what `score` reads,
and `datasets.load_dataset("csv")`.

Memory is what the process and its children cannot give back (anonymous pages), above what it held when the clock
started; pages of files on disk can be dropped at any time.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from measuring import MIB, RESULTS, ROOT, SHARED, cores, write_record

RECORDED = RESULTS / "preparation.json"
MAX_LENGTH = 128
BATCH_SIZE = 32
CLASSES = ("negative", "neutral", "positive")


def write_tweets(path: Path, source: Path, num_rows: int, seed: int = 0) -> None:
    """Write made-up tweets; about one in twenty is one of the source, so that some are repeated."""
    table = pq.read_table(source).to_pydict()
    texts, labels = [text.split() for text in table["text"]], table["label"]
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["text", "label"])
        for _ in range(num_rows):
            row, other = rng.randrange(len(texts)), rng.randrange(len(texts))
            words = texts[row]
            if rng.random() > 0.05:
                words = words[: rng.randint(1, len(words))] + texts[other][rng.randint(0, len(texts[other])) :]
            writer.writerow([" ".join(words), CLASSES[labels[row]]])


class Memory(threading.Thread):
    """Watch how much memory this process and its children hold for themselves."""

    def __init__(self, pause: float = 0.05) -> None:
        super().__init__(daemon=True)
        self.pause, self.most_bytes = pause, 0
        self.is_done = threading.Event()

    def run(self) -> None:
        """Look, pause for so many seconds, look again."""
        while not self.is_done.wait(self.pause):
            self.most_bytes = max(self.most_bytes, held_bytes(os.getpid()))


def held_bytes(process: int) -> int:
    """Return the anonymous memory of a process and its children, 0 of one that is gone."""
    folder = Path(f"/proc/{process}")
    try:
        lines = (folder / "status").read_text().splitlines()
        children = (folder / "task" / str(process) / "children").read_text().split()
    except OSError:
        return 0
    held = next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
    return held + sum(map(held_bytes, map(int, children)))


class Stages(dict[str, float]):
    """The seconds that each stage took."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = time.perf_counter()

    def end(self, stage: str) -> None:
        """Say that a stage is done."""
        now = time.perf_counter()
        self[stage], self.begun = now - self.begun, now


def prepare_ours(path: str, tokenizer: Any) -> dict[str, Any]:
    """Prepare as `roberta-gru train` does."""
    from itertools import islice

    from transformers import DataCollatorWithPadding

    from modeling_roberta_gru.arguments import DataArguments
    from modeling_roberta_gru.data.splits import SPLITS, load_splits
    from modeling_roberta_gru.data.tokenization import MODEL_COLUMNS, tokenize
    from modeling_roberta_gru.training.trainer import EpochSampler, GroupedSampler, document_lengths

    stages = Stages()
    splits = load_splits(DataArguments(train_file=[path]))
    stages.end("reading and splitting")
    fingerprint = splits.fingerprint
    stages.end("digest")
    train, *_ = [tokenize(getattr(splits, name), tokenizer, MAX_LENGTH) for name in SPLITS]
    stages.end("tokenising")
    sampler = EpochSampler(GroupedSampler(document_lengths(train), BATCH_SIZE), seed=0)
    rows = list(islice(sampler, BATCH_SIZE))
    batch = DataCollatorWithPadding(tokenizer)(train.select_columns(MODEL_COLUMNS).select(rows).to_list())
    stages.end("first batch")
    counts = {name: splits.counts[name] for name in ("rows", *SPLITS)}
    return {"batch": list(batch["input_ids"].shape), "counts": counts, "fingerprint": fingerprint, "stages": stages}


def prepare_theirs(path: str, tokenizer: Any) -> dict[str, Any]:
    """Prepare as transformers' examples/pytorch/text-classification/run_classification.py does."""
    from datasets import load_dataset
    from torch.utils.data import DataLoader
    from transformers import DataCollatorWithPadding

    stages = Stages()
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as cache:
        raw = load_dataset("csv", data_files={"train": path}, cache_dir=cache)["train"]
        raw = raw.train_test_split(test_size=0.2, seed=0)
        names = sorted(raw["train"].unique("label"))
        label_to_id = {name: index for index, name in enumerate(names)}
        stages.end("reading and splitting")

        def preprocess(examples: dict[str, list[Any]]) -> Any:
            result = tokenizer(
                examples["text"], padding=False, max_length=MAX_LENGTH, truncation=True, return_token_type_ids=False
            )
            result["labels"] = [label_to_id[label] for label in examples["label"]]
            return result

        tokens = raw.map(preprocess, batched=True)
        stages.end("tokenising")
        train = tokens["train"].remove_columns(["text", "label"])
        collator = DataCollatorWithPadding(tokenizer)
        batch = next(iter(DataLoader(train, batch_size=BATCH_SIZE, shuffle=True, collate_fn=collator)))
        stages.end("first batch")
    return {"batch": list(batch["input_ids"].shape), "stages": stages}


def read_ours(path: str, _: Any) -> dict[str, Any]:
    """Read a file as `score` does: every row, all columns, and what stands in the way of scoring it."""
    from modeling_roberta_gru.data.tables import open_table
    from modeling_roberta_gru.inference.score_file import ScoreOptions, faults_of

    num_texts = 0
    for chunk in open_table(path).chunks():
        num_texts += len(chunk) - len(faults_of(chunk, ScoreOptions()))
    return {"counts": {"texts": num_texts}}


def read_theirs(path: str, _: Any) -> dict[str, Any]:
    """Load a file as `datasets` does."""
    from datasets import load_dataset

    with tempfile.TemporaryDirectory(dir=Path(path).parent) as cache:
        return {"counts": {"texts": len(load_dataset("csv", data_files={"train": path}, cache_dir=cache)["train"])}}


SYSTEMS: dict[str, Callable[[str, Any], dict[str, Any]]] = {
    "roberta-gru": prepare_ours,
    "run_classification": prepare_theirs,
    "score, reading": read_ours,
    "datasets, reading": read_theirs,
}


def measure(system: str, path: str, tokenizer_folder: str) -> dict[str, Any]:
    """Prepare a file in this process: seconds, and bytes above what it held before."""
    import datasets
    from transformers import AutoTokenizer

    # Imported before the clock starts, as datasets is.
    import modeling_roberta_gru.data.splits
    import modeling_roberta_gru.inference.score_file
    import modeling_roberta_gru.training.trainer  # noqa: F401

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    before, memory = held_bytes(os.getpid()), Memory()
    memory.start()
    started, processor = time.perf_counter(), os.times()
    result = SYSTEMS[system](path, tokenizer)
    seconds, now = time.perf_counter() - started, os.times()
    memory.is_done.set()
    used = sum(now[:4]) - sum(processor[:4])  # of children too
    return {"seconds": seconds, "processor_seconds": used, "bytes": memory.most_bytes - before, **result}


def measure_apart(system: str, path: Path, tokenizer_folder: str) -> dict[str, Any]:
    """Call [`measure`] in a process of its own."""
    command = [sys.executable, __file__, "--measure", system, str(path), tokenizer_folder]
    # What the process writes for itself lies beside the file.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TMPDIR": str(path.parent)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def table(record: dict[str, Any]) -> list[str]:
    """Return the tables of preparing and of reading, as Markdown."""
    by_system = {(one["system"], one["rows"]): one for one in record["results"]}
    sizes = sorted({rows for _, rows in by_system})

    def cells(system: str, rows: int) -> list[str]:
        one = by_system.get((system, rows))
        if one is None:
            return ["not measured"] * 2
        return [f"{rows / one['seconds']:,.0f}", f"{one['bytes'] / MIB:,.0f} MiB"]

    lines = [
        "| rows | `train` prepares, rows/s | peak memory | `run_classification.py`, rows/s | peak memory |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for rows in sizes:
        lines.append(
            f"| {' | '.join([f'{rows:,}', *cells('roberta-gru', rows), *cells('run_classification', rows)])} |"
        )
    lines += ["", "| rows | `score` reads, rows/s | `datasets` loads, rows/s |", "| ---: | ---: | ---: |"]
    for rows in sizes:
        reading = [cells(system, rows)[0] for system in ("score, reading", "datasets, reading")]
        lines.append(f"| {rows:,} | {' | '.join(reading)} |")
    ours = {rows: one["bytes"] for (system, rows), one in by_system.items() if system == "roberta-gru"}
    first, last = 1_000_000, max(ours, default=0)
    if first in ours and last > first:
        more = (ours[last] - ours[first]) / (last - first)
        lines += ["", f"From {first:,} to {last:,} rows, `train` holds {more:,.0f} bytes more for each row."]
    commits = ", ".join(f"`{commit[:7]}`" for commit in dict.fromkeys(one["commit"] for one in record["results"]))
    which = "`benchmarks/results/preparation.json` says which measured what"
    return [*lines, "", f"On {cores(record)}, one run each; commits {commits} ({which})."]


def main() -> None:
    """Measure the sizes that are not recorded, and record each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 1_600_000])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--again", action="store_true", help="measure what is recorded, too")
    parser.add_argument("--tweets", type=Path, default=SHARED / "data/airline/train.parquet")
    parser.add_argument("--tokenizer", help="folder of a tokenizer; unset: one learned from the tweets")
    parser.add_argument("--folder", type=Path, help="where files lie meanwhile: 1 GB for each million rows")
    parser.add_argument("--output", type=Path, default=RECORDED)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    from modeling_roberta_gru.data.corpus import train_tokenizer
    from modeling_roberta_gru.training.record import describe_platform

    recorded = json.loads(args.output.read_text())["results"] if args.output.exists() else []
    results = {(one["system"], one["rows"]): one for one in recorded}
    platform = describe_platform()
    commit = platform.pop("commit")
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        tokenizer = args.tokenizer or str(folder / "tokenizer")
        if args.tokenizer is None:
            train_tokenizer(pq.read_table(args.tweets)["text"].to_pylist(), 10_000).save_pretrained(tokenizer)
        for num_rows in args.rows:
            systems = [one for one in args.systems if args.again or (one, num_rows) not in results]
            if not systems:
                continue
            path = folder / f"{num_rows}.csv"
            write_tweets(path, args.tweets, num_rows)
            for system in systems:
                measured = measure_apart(system, path, tokenizer)
                results[system, num_rows] = {"system": system, "rows": num_rows, "commit": commit, **measured}
                rate, size = num_rows / measured["seconds"], measured["bytes"] / MIB
                print(f"{system:<20} {num_rows:>12,} rows {rate:>10,.0f} rows/s {size:>8,.0f} MiB", flush=True)
                conditions = {"max_length": MAX_LENGTH, "batch_size": BATCH_SIZE, "seed": 0}
                write_record(args.output, {**conditions, **platform, "results": list(results.values())})
            path.unlink()


if __name__ == "__main__":
    main()
