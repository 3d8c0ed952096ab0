"""Write docs/results.md, and other pages' figures and tables, from the measurements in benchmarks/results/."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import agreement
import breakdown
import document_length
import long_documents
import scoring
import training_speed

from modeling_roberta_gru.files import write_text
from modeling_roberta_gru.studies import comparison
from modeling_roberta_gru.studies import study_report as study
from modeling_roberta_gru.training.metrics import written

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results"

INTRODUCTION = """\
# Results

Written by `make results` from the files in `benchmarks/results/`: change those, not this page. In brackets: 95 %
percentile bootstrap intervals over the test rows (1,000 resamples, or as said below a table). They tell how far a
figure depends on the rows that were drawn; where only one seed was run, nothing here tells how far it depends on the
seed. Other runs shared the machine: a training time may be twice what it would be alone (docs/performance.md has
speeds that were measured alone).
"""
# The comparisons that benchmarks/systems.py records, in the page's order.
COMPARISONS = {
    "airline": "US Airline: every system, with and without remedies for imbalance",
    "imdb-encoders": "IMDb: a GRU or a linear head on the same encoder",
    "imdb-recurrent": "IMDb: recurrent nets from word embeddings, all training reviews",
}


def main() -> None:
    """Write the pages."""
    runs = [_read(folder) for folder in sorted(RECORDED.iterdir()) if (folder / "metrics.json").is_file()]
    compared = [_comparison(name, title) for name, title in COMPARISONS.items() if _recorded(name).is_file()]
    studies = [_study(path) for path in sorted(RECORDED.glob("studies/*.json"))]
    sections = [INTRODUCTION, *compared, *studies, *(_section(run) for run in runs)]
    write_text(ROOT / "docs" / "results.md", "\n".join(sections))
    page = ROOT / "docs" / "long-documents.md"
    measured = json.loads(document_length.RECORDED.read_text(encoding="utf-8"))
    document_length.draw(measured, ROOT / "docs" / "document-length.png")
    renew(page, "document-length", document_length.table(measured))
    for task in long_documents.TASKS:
        if long_documents.recorded(task):
            renew(page, task, long_documents.table(task))
    renew(page, "verdicts", long_documents.verdicts_table())
    page = ROOT / "docs" / "performance.md"
    if scoring.RECORDED.is_file():
        record = json.loads(scoring.RECORDED.read_text(encoding="utf-8"))
        scoring.draw(record, ROOT / "docs" / "scoring.png")
        scoring.draw_growth(record, ROOT / "docs" / "scoring-growth.png")
        for name, make_table in {
            "scoring": scoring.table,
            "long": scoring.long_table,
            "growth": scoring.growth_table,
        }.items():
            renew(page, name, make_table(record))
    if training_speed.RECORDED.is_file():
        record = json.loads(training_speed.RECORDED.read_text(encoding="utf-8"))
        training_speed.draw(record, ROOT / "docs" / "training-speed.png")
        renew(page, "training", training_speed.table(record))
    if breakdown.RECORDED.is_file():
        record = json.loads(breakdown.RECORDED.read_text(encoding="utf-8"))
        breakdown.draw(record, ROOT / "docs" / "breakdown.png")
        renew(page, "breakdown", breakdown.table(record))
    if agreement.RECORDED.is_file():
        renew(page, "agreement", agreement.table(json.loads(agreement.RECORDED.read_text(encoding="utf-8"))))


def renew(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between a page's marks of this name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    write_text(page, "\n".join([before + begin, *lines, end + after]))


def _recorded(name: str) -> Path:
    return RECORDED / name / "comparison.json"


def _comparison(name: str, title: str) -> str:
    """Return a comparison's section, and draw its figure."""
    compared = json.loads(_recorded(name).read_text(encoding="utf-8"))
    comparison.draw_comparison(compared, ROOT / "docs" / f"{name}.png")
    picture = f"![Accuracy and macro-F1 of every system]({name}.png)"
    command = f"- recorded by `python benchmarks/systems.py {name}`"
    return "\n".join([f"## {title}", "", picture, "", comparison.comparison_markdown(compared), command, ""])


def _study(path: Path) -> str:
    """Return the section of a study, recorded as the sweep.json of `roberta-gru sweep`, and draw its figures."""
    record, name = json.loads(path.read_text(encoding="utf-8")), path.stem
    study.draw_options(record, ROOT / "docs" / f"{name}.png")
    study.draw_curves(record, ROOT / "docs" / f"{name}-curves.png")
    heading, _, rest = study.study_markdown(record, name).partition("\n")
    pictures = [f"![The options and their figures]({name}.png)", "", f"![Figures by epoch]({name}-curves.png)"]
    return "\n".join([f"#{heading}", "", *pictures, rest])


def _read(folder: Path) -> dict[str, Any]:
    return {
        "name": folder.name,
        **{path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))},
    }


def _section(run: dict[str, Any]) -> str:
    data, metrics = run["run"]["data"], run["metrics"]
    counts, test, calibration = data["counts"], metrics["test"], metrics["calibration"]
    length = data["max_length"]
    texts = "whole texts" if length is None else f"texts cut to {length} tokens (of the bag of words, whole)"
    return "\n".join(
        [
            f"## {run['name']}",
            "",
            f"{data['source']}: {counts['train']:,} training, {counts['validation']:,} validation and {test['n']:,} "
            f"test rows; {texts}.",
            "",
            *_table(run),
            "",
            f"Calibration error on test {written(calibration['test']['before'])} before dividing the logits by "
            f"{calibration['temperature']:.3f}, {written(calibration['test']['after'])} after.",
            "",
            *_conditions(run["run"]),
            "",
        ]
    )


def _table(run: dict[str, Any]) -> list[str]:
    metrics, num_rows = run["metrics"], run["run"]["data"]["counts"]["train"]
    systems = [
        (run["run"]["model"].get("architecture", "RoBERTa-GRU"), num_rows, metrics["test"]),
        ("bag of words, same training rows", num_rows, metrics["bag_of_words"]["test"]),
    ]
    if "bag_of_words" in run:
        systems.append(
            ("bag of words, all training rows", run["bag_of_words"]["n_train"], run["bag_of_words"]["test"])
        )
    n = metrics["test"]["n"]
    lines = [
        f"| system | training rows | accuracy (n = {n:,}) | macro-F1 | log-loss | calibration error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for system, rows, figures in systems:
        cells = [written(figures[name]) for name in ("accuracy", "macro_f1", "log_loss", "calibration_error")]
        lines.append(f"| {system} | {rows:,} | {' | '.join(cells)} |")
    return lines


def _conditions(record: dict[str, Any]) -> list[str]:
    hardware, hyperparameters = record["hardware"], record["hyperparameters"]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return [
        f"- command: `{record['command']}`",
        f"- commit: `{record['commit']}`, the recipe as it stood there; seeds: {hyperparameters['seed']} (one)",
        f"- {record['steps']} steps, {record['tokens_seen']:,} tokens, {record['training_seconds']:,} s of training, "
        f"{record['duration_seconds']:,} s in all, on {hardware['num_threads']} of {hardware['num_cores']} cores "
        f"({hardware['processor']}, {hyperparameters['precision']}; shared with other work)",
        f"- splits: `{record['data']['fingerprint'][:16]}`; versions: {versions}",
    ]


if __name__ == "__main__":
    main()
