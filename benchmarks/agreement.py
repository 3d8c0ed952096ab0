"""Compare a trained model's labels in int8 and bfloat16 with those in float32: random weights would prove nothing.

`python benchmarks/agreement.py runs/mine` scores reviews of IMDb's test split in every type, and writes
`benchmarks/results/performance/agreement.json`; `make results` makes the table from it.
"""

import itertools
import json
import random
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scoring import RESULTS, ROOT, SHARED, be_quiet, command

RECORDED = RESULTS / "agreement.json"
DTYPES = ("float32", "bfloat16", "int8")
TARGET_EQUAL = 0.995

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run of train.py on IMDb.")],
    rows: Annotated[int, typer.Option(min=1, help="Test reviews, evenly over the split.")] = 5000,
    data: Annotated[Path, typer.Option(help="Their file.", show_default="imdb/test.parquet of ../shared")] = SHARED
    / "data"
    / "imdb"
    / "test.parquet",
    output: Annotated[
        Path, typer.Option(help="The JSON file to write.", show_default=str(RECORDED.relative_to(ROOT)))
    ] = RECORDED,
) -> None:
    """Compare a trained model's labels in int8 and bfloat16 with those in float32."""
    from modeling_roberta_gru.data.arguments import DataArguments
    from modeling_roberta_gru.data.labels import LabelSpace
    from modeling_roberta_gru.data.splits import load_labelled
    from modeling_roberta_gru.files import write_json
    from modeling_roberta_gru.inference.evaluation import load_classifier
    from modeling_roberta_gru.inference.scorer import Scorer
    from modeling_roberta_gru.training.record import describe_platform

    be_quiet()
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    model, tokenizer = load_classifier(str(run))
    args = DataArguments(clean_html=record["options"].get("clean_html", False))
    documents = load_labelled(str(data), args, LabelSpace.from_config(model.config))
    documents = documents.select(spread_rows(len(documents), min(rows, len(documents))))
    max_length = record["data"]["max_length"]
    probabilities, scored = {}, {}
    for dtype in DTYPES:
        scorer = Scorer(model, tokenizer, dtype=dtype, max_length=max_length)
        started = time.perf_counter()
        probabilities[dtype] = scorer.score(documents["text"][:], progress=True).probabilities
        scored[dtype] = {"description": scorer.description, "seconds": round(time.perf_counter() - started, 1)}
    compared = compare_labels(probabilities, np.array(documents["label"][:]))
    measured = {
        "command": command("agreement.py"),
        **describe_platform(),
        "model": {
            "name": run.name,
            "command": record["command"],
            "commit": record["commit"],
            "fingerprint": scorer.fingerprint,
            "max_length": max_length,
        },
        "n": len(documents),
        "target": TARGET_EQUAL,
        "figures": {dtype: {**scored[dtype], **compared[dtype]} for dtype in DTYPES},
    }
    write_json(output, measured)
    print("\n".join(table(measured)))


def spread_rows(num_rows: int, count: int, seed: int = 0) -> list[int]:
    """Return a row drawn from each of so many stretches of equal length."""
    rng, edges = random.Random(seed), [index * num_rows // count for index in range(count + 1)]
    return [rng.randrange(start, end) for start, end in itertools.pairwise(edges)]


def compare_labels(probabilities: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return each type's accuracy, how many labels are those of float32, and how far a probability is from it."""
    from modeling_roberta_gru.inference.score_file import share

    reference = probabilities["float32"]
    return {
        dtype: {
            "accuracy": share(given.argmax(axis=1) == labels),
            "equal": share(given.argmax(axis=1) == reference.argmax(axis=1)),
            "largest_difference": round(float(np.abs(given - reference).max()), 5),
        }
        for dtype, given in probabilities.items()
    }


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the table of labels that agree, and its conditions."""
    model = measured["model"]
    return [
        "| | accuracy | labels equal to float32's | largest difference of a probability |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {figure['description']} | {_percent(figure['accuracy'])} | "
            f"{_percent(figure['equal']) if dtype != 'float32' else ''} | {figure['largest_difference']:.4f} |"
            for dtype, figure in measured["figures"].items()
        ),
        "",
        f"n = {measured['n']:,} reviews of IMDb's test split, spread evenly over it; in percent, in brackets 95 % "
        f"intervals (Wilson); at least {100 * measured['target']:.1f} equal wanted.",
        "",
        f"- command: `{measured['command']}`; commit: `{measured['commit']}`",
        f"- the model: `{model['command']}`, commit `{model['commit']}`",
    ]


def _percent(figure: dict[str, Any]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*(100 * figure[name] for name in ("value", "low", "high")))


if __name__ == "__main__":
    app()
