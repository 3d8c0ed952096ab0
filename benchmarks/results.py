"""Write docs/results.md, and other pages' plots and tables, from the measurements in benchmarks/results/."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import agreement
import breakdown
import cluster
import document_length
import faults
import heads
import live
import load
import long_documents
import preparation
import rationales
import scoring
import soak
import systems
import training_speed
from measuring import RESULTS, ROOT, table_of

from modeling_roberta_gru.files import write_text
from modeling_roberta_gru.studies import comparison
from modeling_roberta_gru.studies import study_report as study
from modeling_roberta_gru.studies.comparison import MISSING

DOCS = ROOT / "docs"

INTRODUCTION = """\
# Results

Written by `make results` from the files in `benchmarks/results/`: change those, not this page. In brackets: 95 %
percentile bootstrap intervals over the test rows (1,000 resamples, or as said below a table). They tell how far a
metric depends on the rows that were drawn; where only one seed was run, nothing here tells how far it depends on the
seed. Other runs shared the machine: a training time may be twice what it would be alone
([performance.md](performance.md) has speeds that were measured alone); – stands where a run was resumed. A command
repeats a measurement at the commit that is named beside it: recipes and defaults have changed since.
"""
# The comparisons that benchmarks/systems.py records, in the page's order.
COMPARISONS = {
    "imdb-all": "IMDb, all training reviews: whole reviews or the first 512 tokens",
    "imdb-adapted": "IMDb, all training reviews, on an encoder also pretrained on IMDb's unlabelled reviews",
    "imdb-whole": "IMDb, 5,000 training reviews: whole reviews or the first 512 tokens, 5,000 of the test reviews",
    "imdb-few": "IMDb, 1,000 training reviews: self-training on 2,000 unlabelled ones, 5,000 of the test reviews",
    "imdb-encoders": "IMDb: the paper's head or a linear head on the same encoder, 512 tokens",
    "imdb-recurrent": "IMDb: recurrent nets from word embeddings, all training reviews",
    "airline-heads": "US Airline: `train`'s head (three seeds) or a linear head (two) on the same encoder",
    "airline": "US Airline: every system (RoBERTa-GRU with the paper's head), with and without remedies for imbalance",
}
# The README's table: texts, and what RoBERTa-GRU is compared with.
TEXTS = {
    "movies-polarity": "film reviews, good or bad",
    "movies-scale": "film reviews, four classes, authors known from training",
    "movies-authors": "the same reviews, author left out of training",
    "hyperpartisan": "news, one-sided or not, outlet left out of training",
    "contracts": "contracts, 28 clauses that may be anywhere; macro-F1",
}
OTHERS = {
    "first": "first 512 tokens",
    "last": "last 512 tokens",
    "vote-mean": "mean of window logits",
    "horizons": "attention with horizons, no GRU",
    "bag-of-words": "TF-IDF",
}
# What benchmarks/heads.py records.
HEADS = {
    "movies-polarity": "Film reviews of Pang and Lee, good or bad",
    "movies-scale": "Film ratings of Pang and Lee, four classes",
    "movies-scale-epochs": "The same ratings, on MiniLM as published, the epochs of each head chosen",
    "movies-authors": "The same ratings, an author left out",
    "movies-rating": "The same ratings, as a number",
    "contracts": "Contracts, 28 clauses",
    "hyperpartisan": "News, one-sided or not, an outlet left out",
}
MARKED = "Film reviews of Pang and Lee: attributions beside what people marked"
# Page, script, and what its recorded measurement becomes there: tables by their marks, plots by their files.
PAGES: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    (
        "long-documents",
        document_length,
        {"document-length": document_length.table},
        {"document-length": document_length.draw},
    ),
    (
        "performance",
        scoring,
        {"scoring": scoring.table, "long": scoring.long_table, "growth": scoring.growth_table},
        {"scoring": scoring.draw, "scoring-growth": scoring.draw_growth},
    ),
    ("performance", training_speed, {"training": training_speed.table}, {"training-speed": training_speed.draw}),
    ("performance", breakdown, {"breakdown": breakdown.table}, {"breakdown": breakdown.draw}),
    ("performance", agreement, {"agreement": agreement.table}, {}),
    ("tables", preparation, {"preparation": preparation.table}, {}),
    ("serving", load, {"load": load.table}, {}),
    (
        "scale",
        cluster,
        {
            "kills": cluster.kills_table,
            "machines": cluster.training_table,
            "speed": cluster.speed_table,
            "plan": cluster.plan_table,
        },
        {},
    ),
]
# Measured by hand, since it takes strace, root and a quiet machine.
PAGES += [("reliability", script, {name: script.table}, {}) for name, script in (("faults", faults), ("soak", soak))]
# What is recorded of benchmarks/live.py: table, plot, and what the plot shows.
LIVE: dict[str, tuple[Any, Any, str]] = {
    **{
        f"early-{task}": (
            live.early_table,
            live.draw_curve,
            "The running prediction's accuracy against the share read",
        )
        for task in live.EARLY
    },
    "appends": (live.appends_table, live.draw_appends, "Time of an append against the length of the document"),
    "streams": (live.streams_table, None, ""),
    "typing": (live.typing_table, None, ""),
}


def main() -> None:
    """Write the pages."""
    write_text(DOCS / "results.md", results_page(DOCS))
    for page, script, tables, plots in PAGES:
        if not script.RECORDED.is_file():  # not measured yet
            continue
        record = json.loads(script.RECORDED.read_text(encoding="utf-8"))
        for name, make_table in tables.items():
            renew(DOCS / f"{page}.md", name, make_table(record))
        for name, draw in plots.items():
            draw(record, DOCS / f"{name}.png")
    for task in filter(long_documents.recorded, long_documents.TASKS):
        renew(DOCS / "long-documents.md", task, long_documents.table(task))
    renew(DOCS / "long-documents.md", "verdicts", long_documents.verdicts_table())
    renew(DOCS / "long-documents.md", "ratings", ratings_table())
    renew(ROOT / "README.md", "others", others_table())
    renew_live(DOCS)


def others_table() -> list[str]:
    """Return the lines of the README's table: RoBERTa-GRU minus every other way to read the same texts, in points."""
    long = json.loads((RESULTS / "imdb-all" / "by-length.json").read_text(encoding="utf-8"))["over 512 tokens"]
    compared = json.loads((RESULTS / "imdb-all" / "comparison.json").read_text(encoding="utf-8"))
    of_imdb = {"first": long["systems"]["linear-head"], "bag-of-words": long["systems"]["bag-of-words"]}
    accuracy = heads.METRICS["classes"][0]
    cells = [_minus(of_imdb[name]["less_first"], accuracy) if name in of_imdb else MISSING for name in OTHERS]
    num_seeds = len(compared["systems"][0]["seeds"])
    rows = [
        ["film reviews of IMDb, good or bad; encoder fine-tuned", f"{long['n']:,}", str(num_seeds), *cells, MISSING]
    ]
    records = heads.recorded()
    for task, texts in TEXTS.items():
        record, metric = records[task], heads.metrics_of(heads.TASKS[task])[0]
        found = {name: system["metrics"][metric.name] for name, system in record["systems"].items()}
        cells = [_minus(found[name]["less_ours"], metric) if name in found else MISSING for name in OTHERS]
        num_seeds = len(record["systems"][heads.OURS]["seeds"])
        shuffled = heads.written(found[heads.OURS]["shuffled"], metric, "shuffled")
        rows.append([texts, f"{record['n']:,}", str(num_seeds), *cells, shuffled])
    columns = ["RoBERTa-GRU minus …", "n", "seeds", *OTHERS.values(), "change when its windows are shuffled"]
    return table_of(columns, rows)


def ratings_table() -> list[str]:
    """Return the lines of the table of film ratings in docs/long-documents.md."""
    records = heads.recorded()
    columns = [
        (metric, {name: system["metrics"][metric.name] for name, system in records[task]["systems"].items()})
        for task in ("movies-scale", "movies-rating")
        for metric in heads.metrics_of(heads.TASKS[task])
    ]
    rows = [
        ["RoBERTa-GRU", *(heads.written(found[heads.OURS]["value"], metric, "value") for metric, found in columns)]
    ]
    others = OTHERS | {"attention": "attention over all states, no GRU"}
    for name in ("horizons", "attention", "vote-mean", "first", "bag-of-words"):
        cells = [_minus(found[name]["less_ours"], metric) for metric, found in columns]
        rows.append([f"RoBERTa-GRU minus {others[name]}", *cells])
    shuffled = [heads.written(found[heads.OURS]["shuffled"], metric, "shuffled") for metric, found in columns]
    rows.append(["change when its windows are shuffled", *shuffled])
    return table_of(["", *(metric.name for metric, _ in columns)], rows)


def _minus(less_ours: Sequence[float], metric: heads.Metric) -> str:
    """Write what RoBERTa-GRU is above another system, given what that one is above it."""
    value, low, high = less_ours
    return heads.written([-value, -high, -low], metric, "less_ours")


def renew_live(docs: Path) -> None:
    """Renew what docs/live.md shows of the parts that have been measured."""
    for part, (make_table, draw, words) in LIVE.items():
        record = live.recorded(part)
        if record is None:
            continue
        lines = make_table(record)
        if draw is not None:
            draw(record, docs / f"live-{part}.png")
            lines = [*lines, "", f"![{words}](live-{part}.png)"]
        renew(docs / "live.md", part, lines)


def results_page(folder: Path) -> str:
    """Return docs/results.md, and draw its plots into a folder."""
    recorded = {name: title for name, title in COMPARISONS.items() if (RESULTS / name / "comparison.json").is_file()}
    compared = [_comparison(name, title, folder) for name, title in recorded.items()]
    studies = [_study(path, folder) for path in sorted(RESULTS.glob("studies/*.json"))]
    frozen = [
        "\n".join([f"## {HEADS[task]}: heads on one frozen encoder", "", *heads.table(task, record), ""])
        for task, record in heads.recorded().items()
    ]
    marked = ["\n".join([f"## {MARKED}", "", *rationales.section(found), ""]) for found in rationales.recorded()]
    first, *others = compared
    return "\n".join([INTRODUCTION, first, *frozen, *marked, *others, *studies])


def renew(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between a page's marks of this name."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if not found:
        raise ValueError(f"{page} lacks the marks {begin} and {end}: write them where the lines belong.")
    after = rest.partition(end)[2]
    write_text(page, "\n".join([before + begin, *lines, end + after]))


def _comparison(name: str, title: str, folder: Path) -> str:
    """Return a comparison's section, and draw its plot."""
    compared = json.loads((RESULTS / name / "comparison.json").read_text(encoding="utf-8"))
    comparison.draw_comparison(compared, folder / f"{name}.png")
    picture = f"![Accuracy and macro-F1 of every system]({name}.png)"
    command = f"- recorded by `python benchmarks/systems.py {name}`"
    section = [f"## {title}", "", picture, "", comparison.comparison_markdown(compared), command, ""]
    lengths = RESULTS / name / "by-length.json"
    if lengths.is_file():
        section += [*systems.length_table(json.loads(lengths.read_text(encoding="utf-8"))), ""]
    return "\n".join(section)


def _study(path: Path, folder: Path) -> str:
    """Return the section of a study, recorded as the sweep.json of `roberta-gru sweep`, and draw its plots."""
    record, name = json.loads(path.read_text(encoding="utf-8")), path.stem
    study.draw_options(record, folder / f"{name}.png")
    study.draw_curves(record, folder / f"{name}-curves.png")
    heading, _, rest = study.study_markdown(record, name).partition("\n")
    pictures = [f"![The options and their metrics]({name}.png)", "", f"![Metrics by epoch]({name}-curves.png)"]
    return "\n".join([f"#{heading}", "", *pictures, rest])


if __name__ == "__main__":
    main()
