"""Compare a trained model's labels in int8 and bfloat16 with those in float32: random weights would prove nothing.

`python benchmarks/agreement.py runs/mine` scores reviews of IMDb's test split in every type, and writes
`benchmarks/results/performance/agreement.json`; `make results` makes the table from it.

With `--linear-head runs/its` the peers of `scoring.py` are compared, too, on a stock RoBERTa classifier of the same
data: each engine's int8 with OpenVINO's float32.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measuring import (
    RESULTS,
    REVIEWS,
    be_quiet,
    conditions,
    json_option,
    now,
    reviews_option,
    spread_rows,
    table_of,
    write,
)
from scoring import cut
from scoring_engines import ALONE, SYSTEMS, Material, Workload, is_installed

RECORDED = RESULTS / "performance" / "agreement.json"
DTYPES = ("float32", "bfloat16", "int8")
PEERS = ("openvino", "torch-int8", "onnx-int8", "openvino-int8", "openvino-static", "ctranslate2-int8")
"""Of the systems in `scoring_engines.py`; all others' labels are compared with the first one's."""
NUM_CALIBRATION = 300
"""Training reviews that static scales are fixed on: as many as the library itself would take."""
TARGET_EQUAL = 0.995

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run of train.py on IMDb.")],
    rows: Annotated[int, typer.Option(min=1, help="Test reviews, evenly over the split.")] = 5000,
    data: Annotated[Path, reviews_option()] = REVIEWS,
    linear_head: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="The folder of a run with `--architecture transformer`: compare the peers, too."
        ),
    ] = None,
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Compare a trained model's labels in int8 and bfloat16 with those in float32."""
    from modeling_roberta_gru.arguments import DataArguments
    from modeling_roberta_gru.data.labels import LabelSpace
    from modeling_roberta_gru.data.splits import load_labelled
    from modeling_roberta_gru.inference.scorer import Scorer
    from modeling_roberta_gru.training.loading import load_classifier

    be_quiet()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    model, tokenizer = load_classifier(str(run))
    args = DataArguments(clean_html=record["options"].get("clean_html", False))
    labels = LabelSpace.from_config(model.config)
    documents = draw_rows(load_labelled(str(data), args, labels)[0], rows)
    max_length = record["data"]["max_length"]
    probabilities, scored = {}, {}
    for dtype in DTYPES:
        scorer = Scorer(model, tokenizer, dtype=dtype, max_length=max_length)
        started = now()
        probabilities[dtype] = scorer.predict_proba(documents["text"][:], progress=True)
        scored[dtype] = {"description": scorer.description, "seconds": round(now() - started, 1)}
    compared = compare_labels(probabilities, np.array(documents["label"][:]))
    measured = {
        **conditions(),
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
    if linear_head is not None:
        training, _ = load_labelled(str(data.with_name(f"train{data.suffix}")), args, labels)
        calibration = draw_rows(training, NUM_CALIBRATION)
        measured["peers"] = measure_peers(linear_head, documents, calibration["text"][:], labels)
    write(output, measured, table(measured))


def measure_peers(run: Path, documents: Any, calibration: list[str], labels: Any) -> dict[str, Any]:
    """Compare the labels of engines that read a stock classifier, on what it can read of the documents.

    Raises:
        InputError: if its labels are not these.
    """
    from modeling_roberta_gru.data.labels import LabelSpace
    from modeling_roberta_gru.errors import InputError
    from modeling_roberta_gru.training.loading import load_classifier

    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    model, tokenizer = load_classifier(str(run))
    its = LabelSpace.from_config(model.config)
    if its != labels:
        said = f"--linear-head {run} knows the labels {its.names}, and the other run {labels.names}."
        raise InputError(said, field="linear_head", file=str(run))
    texts = cut(documents["text"][:], tokenizer)
    workload = Workload("reviews", texts, tokenizer(texts)["input_ids"])
    others = tokenizer(cut(calibration, tokenizer))["input_ids"]
    probabilities, num_threads = {}, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        for part in (model, tokenizer):
            part.save_pretrained(Path(folder) / "stock")
        material = Material(Path(folder), model.config.to_dict(), others, num_threads)
        for name in PEERS:
            if not is_installed(SYSTEMS[name]):
                continue
            score = SYSTEMS[name].build(material, SYSTEMS[name].dtype, num_threads)
            torch.set_num_threads(num_threads)  # some engines change it
            probabilities[name] = score(workload, ALONE)
    compared = compare_labels(probabilities, np.array(documents["label"][:]))
    return {
        "model": {"name": run.name, "command": record["command"], "commit": record["commit"]},
        "num_calibration": len(calibration),
        "figures": {name: {"description": SYSTEMS[name].name, **compared[name]} for name in compared},
    }


def draw_rows(documents: Any, count: int) -> Any:
    """Return so many rows of a data set, evenly spread over it, or all if it has fewer."""
    return documents.select(spread_rows(len(documents), min(count, len(documents))))


def compare_labels(probabilities: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the accuracy of each, how many labels are those of the first, and how far a probability is from it."""
    from modeling_roberta_gru.inference.score_file import share

    reference = next(iter(probabilities.values()))
    return {
        name: {
            "accuracy": share(given.argmax(axis=1) == labels),
            "equal": share(given.argmax(axis=1) == reference.argmax(axis=1)),
            "largest_difference": round(float(np.abs(given - reference).max()), 5),
        }
        for name, given in probabilities.items()
    }


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the tables of labels that agree, and their conditions."""
    model = measured["model"]
    lines = [
        *_rows(measured["figures"]),
        "",
        f"n = {measured['n']:,} reviews of IMDb's test split, spread evenly over it; in percent, in brackets 95 % "
        f"intervals (Wilson); at least {100 * measured['target']:.1f} equal wanted.",
        "",
        f"- command: `{measured['command']}`; commit: `{measured['commit']}`",
        f"- the model: `{model['command']}`, commit `{model['commit']}`",
    ]
    if peers := measured.get("peers"):
        lines += [
            "",
            "The peers, on the encoder with a linear head and on the same reviews, cut at 512 tokens, one by one:",
            "",
            *_rows(peers["figures"]),
            "",
            f"Static scales were fixed on {peers['num_calibration']} training reviews. The model: "
            f"`{peers['model']['command']}`, commit `{peers['model']['commit']}`.",
        ]
    return lines


def _rows(figures: dict[str, dict[str, Any]]) -> list[str]:
    reference = next(iter(figures))
    rows = [
        [
            figure["description"],
            _percent(figure["accuracy"]),
            "" if name == reference else _percent(figure["equal"]),
            f"{figure['largest_difference']:.4f}",
        ]
        for name, figure in figures.items()
    ]
    return table_of(["", "accuracy", "labels equal to float32's", "largest difference of a probability"], rows)


def _percent(figure: dict[str, Any]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*(100 * figure[name] for name in ("value", "low", "high")))


if __name__ == "__main__":
    app()
