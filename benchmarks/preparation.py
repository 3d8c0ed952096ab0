"""Preparing tweets for training: rows a second and memory, up to the first batch, beside transformers' own example.

    python benchmarks/preparation.py --rows 100000 1000000 --output benchmarks/results/performance/preparation.json

The tweets are made up by a seed from those of a Parquet file: the beginning of one and the end of another. Each of
both prepares the same CSV file in a process of its own. What `run_classification.py` of transformers does is restated
here: `load_dataset("csv")`, labels to integers by a list of the sorted ones, truncation to 128 tokens, a fifth of the
rows held out. Ours also removes repeated texts and conflicting labels, keeps texts out of two
splits, stratifies, and digests the data.

Memory is what the process cannot give back (anonymous pages); pages of files on disk can be dropped at any time.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

OURS, THEIRS = "roberta-gru", "run_classification"
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

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most_bytes = 0
        self.is_done = threading.Event()

    def run(self) -> None:
        while not self.is_done.wait(0.05):
            self.most_bytes = max(self.most_bytes, held_bytes())


def held_bytes() -> int:
    """Return this process's anonymous memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def prepare_ours(path: str, tokenizer: Any) -> dict[str, Any]:
    """Prepare as `roberta-gru train` does."""
    import numpy as np
    from transformers import DataCollatorWithPadding

    from modeling_roberta_gru.arguments import DataArguments
    from modeling_roberta_gru.data.splits import load_splits
    from modeling_roberta_gru.data.tokenization import MODEL_COLUMNS, tokenize

    splits = load_splits(DataArguments(train_file=[path]))
    fingerprint = splits.fingerprint
    train = tokenize(splits.train, tokenizer, MAX_LENGTH)
    tokenize(splits.validation, tokenizer, MAX_LENGTH)
    tokenize(splits.test, tokenizer, MAX_LENGTH)
    lengths = np.asarray(train.with_format("numpy")["length"][:])
    order = np.argsort(-lengths, kind="stable")[:BATCH_SIZE]
    batch = DataCollatorWithPadding(tokenizer)(train.select_columns(MODEL_COLUMNS).select(order).to_list())
    return {"batch": list(batch["input_ids"].shape), "counts": splits.counts, "fingerprint": fingerprint}


def prepare_theirs(path: str, tokenizer: Any) -> dict[str, Any]:
    """Prepare as transformers' examples/pytorch/text-classification/run_classification.py does."""
    from datasets import load_dataset
    from torch.utils.data import DataLoader
    from transformers import DataCollatorWithPadding

    with tempfile.TemporaryDirectory() as cache:
        raw = load_dataset("csv", data_files={"train": path}, cache_dir=cache)["train"]
        raw = raw.train_test_split(test_size=0.2, seed=0)
        names = sorted(raw["train"].unique("label"))
        label_to_id = {name: index for index, name in enumerate(names)}

        def preprocess(examples: dict[str, list[Any]]) -> Any:
            result = tokenizer(
                examples["text"], padding=False, max_length=MAX_LENGTH, truncation=True, return_token_type_ids=False
            )
            result["labels"] = [label_to_id[label] for label in examples["label"]]
            return result

        tokens = raw.map(preprocess, batched=True)
        collator = DataCollatorWithPadding(tokenizer)
        train = tokens["train"].remove_columns(["text", "label"])
        batch = next(iter(DataLoader(train, batch_size=BATCH_SIZE, shuffle=True, collate_fn=collator)))
        return {"batch": list(batch["input_ids"].shape)}


def measure(system: str, path: str, tokenizer_folder: str) -> dict[str, Any]:
    """Prepare a file in this process: seconds, and bytes above what it held before."""
    import datasets
    from transformers import AutoTokenizer

    import modeling_roberta_gru.data.splits  # imported before the clock starts, as datasets is
    import modeling_roberta_gru.data.tokenization  # noqa: F401

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    before, memory = held_bytes(), Memory()
    memory.start()
    started, processor = time.perf_counter(), time.process_time()
    result = (prepare_ours if system == OURS else prepare_theirs)(path, tokenizer)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    memory.is_done.set()
    return {"seconds": seconds, "processor_seconds": processor, "bytes": memory.most_bytes - before, **result}


def measure_apart(system: str, path: Path, tokenizer_folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", system, str(path), tokenizer_folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--tweets", type=Path, default=Path("../shared/data/airline/train.parquet"))
    parser.add_argument("--tokenizer", help="folder of a tokenizer; unset: one learned from the tweets")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    from modeling_roberta_gru.data.corpus import train_tokenizer
    from modeling_roberta_gru.files import write_json
    from modeling_roberta_gru.training.record import describe_platform

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.tokenizer is None:
            args.tokenizer = str(folder / "tokenizer")
            tokenizer = train_tokenizer(pq.read_table(args.tweets)["text"].to_pylist(), 10_000)
            tokenizer.save_pretrained(args.tokenizer)
        results: list[dict[str, Any]] = []
        for num_rows in args.rows:
            path = folder / f"{num_rows}.csv"
            write_tweets(path, args.tweets, num_rows)
            for system in (OURS, THEIRS):
                measured = measure_apart(system, path, args.tokenizer)
                results.append({"system": system, "rows": num_rows, **measured})
                rate, size = num_rows / measured["seconds"], measured["bytes"] / 2**20
                print(f"{system:<20} {num_rows:>12,} rows {rate:>10,.0f} rows/s {size:>8,.0f} MiB", flush=True)
            path.unlink()
        if args.output:
            conditions = {"max_length": MAX_LENGTH, "batch_size": BATCH_SIZE, "seed": 0}
            write_json(args.output, {**conditions, **describe_platform(), "results": results})


if __name__ == "__main__":
    main()
