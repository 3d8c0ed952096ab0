"""Compare a classifier's attributions with what people marked: movie reviews of up to several windows.

`python benchmarks/rationales.py runs/imdb/model` attributes the log-odds of the true label to the tokens of some
reviews (integrated gradients), and adds up what speaks for the label, beyond token 512, inside and outside the
rationales of Zaidan et al. 2007 (as ERASER carries them). Chance is the share of those tokens that are rationales:
what a model would score that spread its attributions evenly. A model that reads the first 512 tokens only has nothing
there.
"""

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import pandas as pd
import torch

from modeling_roberta_gru.inference.explanation import attribute
from modeling_roberta_gru.training.loading import load_classifier
from modeling_roberta_gru.training.record import describe_platform

RESULTS = measuring.RESULTS / "rationales"
DATA = measuring.SHARED / "data"
BEYOND = 512  # tokens that a truncated model reads
TEST_FOLD = 9  # ERASER's test split


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run's folder or a saved model's folder; labels negative and positive")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--fold", type=int, default=TEST_FOLD, help="of the reviews; the model must not know them")
    parser.add_argument("--most", type=int, default=100, help="reviews, the first of the fold that are long enough")
    parser.add_argument("--steps", type=int, default=16, help="of the integral")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args()
    result = measure(options.model, options.data, options.fold, options.most, options.steps)
    measuring.write_record(options.output / f"{Path(options.model).resolve().parent.name}.json", result)
    print("\n".join(table(result)))


def measure(model_name: str, data: Path, fold: int, most: int, steps: int) -> dict[str, Any]:
    """Attribute reviews; see the module."""
    model, tokenizer = load_classifier(model_name)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    started = time.time()
    reviews = []
    for text, label, marked in annotated(data, fold):
        encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
        is_rationale = on_tokens(encoding["offset_mapping"], marked)[BEYOND:]
        if not is_rationale.any():
            continue
        values = attribute(model, tokenizer, text, names[label], steps).values[BEYOND:].clip(min=0)
        reviews.append(
            {
                "tokens": len(is_rationale),
                "rationale_tokens": int(is_rationale.sum()),
                "mass": float(values.sum()),
                "rationale_mass": float(values[is_rationale].sum()),
            }
        )
        if len(reviews) == most:
            break
    if not reviews:
        raise SystemExit(f"No review of fold {fold} has a rationale beyond token {BEYOND}.")
    return {
        "command": shlex.join(["python", *sys.argv]),
        "model": model_name,
        "fold": fold,
        "num_steps": steps,
        "beyond": BEYOND,
        "seconds": round(time.time() - started, 1),
        "reviews": reviews,
        **describe_platform(),
    }


def annotated(data: Path, fold: int) -> list[tuple[str, int, list[tuple[int, int]]]]:
    """Return the fold's reviews that people marked: text, label, and where rationales begin and end, in characters."""
    reviews = pd.read_parquet(data / "movies-polarity" / "train.parquet")
    rationales = pd.read_parquet(data / "movies-polarity-rationales" / "train.parquet").set_index("id")
    found = []
    for review in reviews[reviews["fold"] == fold].itertuples():
        if review.id in rationales.index:
            theirs = rationales.loc[review.id, "text"]
            found.append((review.text, int(review.label), spans(review.text, theirs)))
    return found


def spans(text: str, rationales: Sequence[str]) -> list[tuple[int, int]]:
    """Find rationales in a text, whatever the white space between words; those that are not there are left out."""
    found = []
    for rationale in rationales:
        pattern = r"\s+".join(map(re.escape, rationale.split()))
        match = re.search(pattern, text) if pattern else None
        if match:
            found.append(match.span())
    return found


def on_tokens(offsets: Sequence[tuple[int, int]], marked: Sequence[tuple[int, int]]) -> np.ndarray:
    """Tell which tokens lie in a marked part, wholly or partly: (n,) bool."""
    begins, ends = np.array(offsets).T
    is_marked = np.zeros(len(offsets), dtype=bool)
    for begin, end in marked:
        is_marked |= (begins < end) & (ends > begin) & (ends > begins)
    return is_marked


def table(result: dict[str, Any], num_resamples: int = 2000) -> list[str]:
    """Return the lines of the Markdown table: the shares over all reviews, with 95 % bootstrap intervals over them."""
    fields = ("rationale_mass", "mass", "rationale_tokens", "tokens")
    sums = np.array([[review[field] for field in fields] for review in result["reviews"]])
    rng = np.random.default_rng(0)
    draws = rng.integers(len(sums), size=(num_resamples, len(sums)))

    totals = np.vstack([sums.sum(axis=0), sums[draws].sum(axis=1)])  # of the reviews, and of each resample
    found, chance = (totals[:, inside] / totals[:, whole] for inside, whole in ((0, 1), (2, 3)))

    def written(values: np.ndarray, unit: str) -> str:
        low, high = np.percentile(values[1:], [2.5, 97.5])
        return f"{values[0]:.1f}{unit} ({low:.1f} to {high:.1f})"

    return [
        f"| beyond token {result['beyond']}, {len(sums)} reviews | share inside the rationales |",
        "| --- | --- |",
        f"| attributions for the true label | {written(100 * found, ' %')} |",
        f"| tokens (chance) | {written(100 * chance, ' %')} |",
        f"| the first to the second | {written(found / chance, '')} |",
        "| a model cut at 512 tokens | none |",
    ]


def section(result: dict[str, Any]) -> list[str]:
    """Return what docs/results.md shows of a measurement."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return [
        "Of what speaks for the true label beyond the first window, how much lies in the sentences that people gave "
        "as their reasons (Zaidan et al. 2007)? Integrated gradients; in brackets 95 % bootstrap intervals over the "
        "reviews.",
        "",
        *table(result),
        "",
        f"- command: `{result['command']}`, {result['num_steps']} steps of the integral; fold {result['fold']}, "
        f"model {Path(result['model']).parent.name}, trained on IMDb with one seed",
        f"- commit: `{result['commit']}`; {versions}; {result['hardware']['processor']}",
    ]


def recorded() -> list[dict[str, Any]]:
    """Return what was recorded."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
