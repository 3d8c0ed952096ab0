"""Write docs/results.md from the measurements recorded in benchmarks/results/ (`make results`)."""

import json
from pathlib import Path
from typing import Any

from modeling_roberta_gru.files import write_text
from modeling_roberta_gru.training.metrics import written

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results"

INTRODUCTION = """\
# Results

Written by `make results` from the files in `benchmarks/results/`: change those, not this page. In brackets: 95 % percentile
bootstrap intervals over the test rows (1,000 resamples). They tell how far a figure depends on the rows that were drawn;
where only one seed was run, nothing here tells how far it depends on the seed.
"""


def main() -> None:
    """Write the page."""
    runs = [_read(folder) for folder in sorted(RECORDED.iterdir()) if (folder / "metrics.json").is_file()]
    write_text(ROOT / "docs" / "results.md", "\n".join([INTRODUCTION, *(_section(run) for run in runs)]))


def _read(folder: Path) -> dict[str, Any]:
    return {
        "name": folder.name,
        **{path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))},
    }


def _section(run: dict[str, Any]) -> str:
    record, metrics = run["run"], run["metrics"]
    counts, hardware = record["data"]["counts"], record["hardware"]
    test = metrics["test"]
    rows = [("RoBERTa-GRU", counts["train"], test)]
    rows.append(("bag of words, same training rows", counts["train"], metrics["bag_of_words"]["test"]))
    if "bag_of_words" in run:
        rows.append(("bag of words, all training rows", run["bag_of_words"]["n_train"], run["bag_of_words"]["test"]))
    lines = [
        f"## {run['name']}",
        "",
        f"{record['data']['source']}: {counts['train']:,} training, {counts['validation']:,} validation, {test['n']:,} test "
        f"rows, texts cut to {record['data']['max_length']} tokens.",
        "",
        f"| system | training rows | accuracy (n = {test['n']:,}) | macro-F1 | log-loss | calibration error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for system, num_rows, figures in rows:
        cells = [written(figures[name]) for name in ("accuracy", "macro_f1", "log_loss", "calibration_error")]
        lines.append(f"| {system} | {num_rows:,} | {' | '.join(cells)} |")
    calibration = metrics["calibration"]
    lines += [
        "",
        f"Calibration error on test {written(calibration['test']['before'])} before dividing the logits by "
        f"{calibration['temperature']:.3f}, {written(calibration['test']['after'])} after.",
        "",
        f"- command: `{record['command']}`",
        f"- commit: `{record['commit']}`; seeds: {record['hyperparameters']['seed']} (one)",
        f"- {record['steps']} steps, {record['tokens_seen']:,} tokens, {record['training_seconds']:,} s of training on "
        f"{hardware['num_threads']} of {hardware['num_cores']} cores ({hardware['processor']}, {record['hyperparameters']['precision']}); "
        f"{record['duration_seconds']:,} s in all",
        f"- splits: `{record['data']['fingerprint'][:16]}`; versions: "
        + ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
