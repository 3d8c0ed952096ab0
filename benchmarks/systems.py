"""Train the systems that docs/results.md compares, and record the comparison.

Every row is a command of train.py: a recipe, and what a system changes of it.

`python benchmarks/systems.py airline` trains what is not yet trained, in runs/systems/airline, and writes
benchmarks/results/airline/comparison.json. `--only gru` trains those systems only whose name holds it; `--dry-run`
prints the commands.
"""

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import RESULTS, ROBERTA_GRU, SHARED, table_of, write_record
from transformers import AutoTokenizer

from modeling_roberta_gru.data.documents import clean_html
from modeling_roberta_gru.studies.comparison import compare

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "systems"
# Reviews that the first system of a study labels, for others of the study to train on.
LABELLED = "runs/systems/imdb-few/labelled.parquet"
# The encoder whose pretraining a study continues.
ADAPTED = "runs/systems/imdb-adapted/encoder"
GLOVE = "../shared/data/glove/glove.6B.50d.subset.txt"
RECURRENT_NETS = ("rnn", "lstm", "bilstm", "gru", "bigru")


class Study(NamedTuple):
    """Systems that are compared on one test split.

    Attributes:
        systems: name → recipe and options. The first one is what the others are compared with.
        seeds: the seeds of each system.
        once: how the names of those systems begin that are run with the first seed only.
        is_kept: whether runs are kept beside the comparison, since no machine does all of them in one go.
        beside: kept runs of another study to include in the comparison: folders in benchmarks/results.
    """

    systems: dict[str, str]
    seeds: tuple[int, ...]
    once: tuple[str, ...] = ()
    is_kept: bool = False
    beside: tuple[str, ...] = ()


REMEDIES = {
    "": "",
    "balanced": "--class_weights balanced",
    "copies": "--oversample copies",
    "neighbours": f"--oversample neighbours --word_vectors {GLOVE}",
}
BAG_OF_WORDS = "--architecture bag-of-words --model_name_or_path null"
LINEAR = "--architecture transformer"
PAPERS_HEAD = "--summary last --attention_horizons 0 --skip_connection false"


def with_remedies(name: str, options: str) -> dict[str, str]:
    """Return a system with and without each remedy for imbalance."""
    return {f"{name}-{remedy}".rstrip("-"): f"{options} {words}".strip() for remedy, words in REMEDIES.items()}


def airline() -> Study:
    """Return every system on the airline tweets; what differs from the recipe is what a recurrent net wants."""
    recipe = "--config recipes/airline-minilm.yaml"
    recurrent = "--model_name_or_path null --optimizer adam --learning_rate 1e-3 --head_learning_rate null"
    recurrent += " --weight_decay 0 --num_train_epochs 10 --early_stopping_patience 2"
    recurrent += " --config_overrides vocab_size=5000,embedding_size=50,hidden_size=100,dropout=0.3"
    systems = with_remedies("roberta-gru", recipe) | with_remedies("linear-head", f"{recipe} {LINEAR}")
    for net in RECURRENT_NETS:
        systems |= with_remedies(net, f"{recipe} {recurrent} --architecture {net}")
        systems[f"{net}-glove"] = f"{recipe} {recurrent} --architecture {net} --embeddings {GLOVE}"
    systems |= with_remedies("bag-of-words", f"{recipe} {BAG_OF_WORDS}")
    # A run of an encoder takes over ten minutes of a CPU, and a bag of words has no seed to speak of.
    return Study(systems, (42, 43, 44), once=("roberta-gru", "linear-head", "bag-of-words"))


def airline_heads() -> Study:
    """Return `train`'s default head on the airline tweets beside a linear one and the paper's."""
    recipe = "--config recipes/airline-minilm.yaml"
    systems = {"roberta-gru": recipe, "linear-head": f"{recipe} {LINEAR}", "paper-head": f"{recipe} {PAPERS_HEAD}"}
    return Study(systems, (42, 43, 44))


def imdb_recurrent() -> Study:
    """Return the recurrent nets on all of IMDb's reviews, with and without GloVe, beside a bag of words."""
    recipe = "--config recipes/recurrent-imdb-local.yaml"
    systems = {"bag-of-words": f"{recipe} {BAG_OF_WORDS} --config_overrides null"}
    for net in RECURRENT_NETS:
        systems[net] = f"{recipe} --architecture {net}"
        systems[f"{net}-glove"] = f"{recipe} --architecture {net} --embeddings {GLOVE}"
    return Study(systems, (42,))


def imdb_encoders() -> Study:
    """Return the paper's head on the first 512 tokens, a linear head, which reads no more, and a bag of words."""
    recipe = "--config recipes/imdb-minilm.yaml"
    ours = f"{recipe} --max_length 512 {PAPERS_HEAD}"
    words = f"{recipe} {BAG_OF_WORDS} --config_overrides null"
    return Study({"roberta-gru": ours, "linear-head": f"{recipe} {LINEAR}", "bag-of-words": words}, (42,))


def imdb_whole() -> Study:
    """Return `train`'s default head on whole reviews beside the same others, on 5,000 of the test reviews."""
    systems, seeds, *_ = imdb_encoders()
    sample = "--max_test_samples 5000"
    others = {name: f"{options} {sample}" for name, options in systems.items()}
    return Study(others | {"roberta-gru": f"--config recipes/imdb-minilm.yaml {sample}"}, seeds)


def imdb_all() -> Study:
    """Return the same systems, trained on all training reviews but the 2 % that choose nothing but a temperature."""
    rows = "--max_train_samples null --split 0.96,0.02,0.02"
    others = {name: f"{options} {rows}" for name, options in imdb_encoders().systems.items()}
    ours = {"roberta-gru": f"--config recipes/imdb-minilm.yaml {rows}"}
    return Study(others | ours, (42, 43, 44), once=("bag-of-words",), is_kept=True)


def imdb_adapted() -> Study:
    """Return the same systems on an encoder also pretrained on IMDb's unlabelled reviews, and those of imdb-all."""
    encoder = f"--model_name_or_path {ADAPTED}"
    of_all, seeds, *_ = imdb_all()
    names = ("roberta-gru", "linear-head")
    systems = {f"{name}-adapted": f"{of_all[name]} {encoder}" for name in names}
    beside = tuple(f"imdb-all/{name}/seed-{seed}" for name in names for seed in seeds)
    return Study(systems, seeds, once=("linear-head",), is_kept=True, beside=beside)


def imdb_few() -> Study:
    """Return RoBERTa-GRU trained on 1,000 reviews, and on 2,000 more that it labelled itself."""
    rows = "--max_train_samples 1000 --max_test_samples 5000"
    recipe = "--config recipes/imdb-minilm.yaml"
    systems = {
        "roberta-gru": f"{recipe} {rows} --num_train_epochs 3",
        "roberta-gru-self-trained": f"{recipe} {rows} --soft_train_file {LABELLED}",
    }
    return Study(systems, (42,))


STUDIES = {
    "airline": airline,
    "airline-heads": airline_heads,
    "imdb-recurrent": imdb_recurrent,
    "imdb-encoders": imdb_encoders,
    "imdb-whole": imdb_whole,
    "imdb-all": imdb_all,
    "imdb-adapted": imdb_adapted,
    "imdb-few": imdb_few,
}


def commands(study: str, only: str) -> Iterator[tuple[Path, list[str]]]:
    """Yield each run's folder and command, seed by seed, so that whatever has run can be compared."""
    systems, seeds, once, *_ = STUDIES[study]()
    for seed in seeds:
        for name, options in systems.items():
            if only in name and (seed == seeds[0] or not name.startswith(once)):
                folder = RUNS / study / name / f"seed-{seed}"
                words = [*shlex.split(options), "--seed", str(seed), "--output_dir", str(folder.relative_to(ROOT))]
                yield folder, ["train.py", *words, "--bag_of_words", "false", "--verify_load", "false"]


def label_reviews(teacher: Path) -> None:
    """Write 2,000 of IMDb's unlabelled reviews to [`LABELLED`], with a trained model's probabilities."""
    labelled = ROOT / LABELLED
    reviews = labelled.with_name("unlabelled.parquet")
    pq.write_table(pq.read_table(SHARED / "data" / "imdb-unlabelled" / "train.parquet").slice(0, 2000), reviews)
    words = ["score", str(teacher), str(reviews), str(labelled), "--all-scores", "--clean-html"]
    subprocess.run([sys.executable, *ROBERTA_GRU, *words], cwd=ROOT, check=True)


@cache  # once, whichever runs need it
def adapt_encoder() -> None:
    """Continue an encoder's pretraining on IMDb's unlabelled reviews, half a pass, and write it to [`ADAPTED`].

    Raises:
        ValueError: if the kept runs started from another one: on another machine, roundings differ.
    """
    words = "adapt ../shared/encoders/minilm-l6-roberta ../shared/data/imdb-unlabelled/train.parquet"
    words += f" --exclude ../shared/data/imdb/test.parquet --clean-html --output-dir {ADAPTED}"
    words += " --epochs 0.5 --learning-rate 3e-4 --dropout 0"
    subprocess.run([sys.executable, *ROBERTA_GRU, *words.split()], cwd=ROOT, check=True)
    kept = RESULTS / "imdb-adapted" / "adapt.json"
    record = json.loads((ROOT / ADAPTED / "adapt.json").read_text(encoding="utf-8"))
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8"))["history"] != record["history"]:
        raise ValueError(
            f"{ADAPTED} is not the encoder that the runs in {kept.parent} started from. To begin again with this one, "
            "delete that folder."
        )
    write_record(kept, record)


def keep(run: Path, kept: Path) -> None:
    """Copy what a comparison needs of a run; probabilities with eleven bits, for a file a fifth as large."""
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "metrics.json"):
        write_record(kept / name, json.loads((run / name).read_text(encoding="utf-8")))
    columns = ["row_id", "label", "probabilities"]
    rows = pq.read_table(run / "predictions.parquet", columns=columns).sort_by("row_id").combine_chunks()
    exact = np.vstack(rows["probabilities"].to_numpy()).astype(np.float32)
    rounded = exact.astype(np.float16).astype(np.float32)
    is_tied = rounded.argmax(axis=1) != exact.argmax(axis=1)
    rounded[is_tied] = exact[is_tied]
    lists = pa.FixedSizeListArray.from_arrays(rounded.ravel(), rounded.shape[1])
    pq.write_table(
        rows.set_column(2, "probabilities", lists),
        kept / "predictions.parquet",
        compression="zstd",
        compression_level=19,
        use_dictionary=["label", "probabilities.list.element"],
        column_encoding={"row_id": "DELTA_BYTE_ARRAY"},
    )


def by_length(kept: Sequence[Path]) -> dict[str, Any]:
    """Compare the first system with the others on reviews that an encoder reads whole and on longer ones.

    Args:
        kept: the folders of runs, `SYSTEM/seed-SEED`, tested on all of IMDb's test split.

    Returns:
        What JSON can hold: for both parts, n, and of each system accuracy and paired difference, with 95 % intervals.
    """
    rows = pd.read_parquet(SHARED / "data" / "imdb" / "test.parquet")
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "encoders" / "minilm-l6-roberta")
    ids = tokenizer([clean_html(text) for text in rows["text"]], verbose=False)["input_ids"]
    is_long = np.array([len(tokens) > 512 for tokens in ids])
    hits: dict[str, list[np.ndarray]] = {}
    for folder in kept:
        table = pq.read_table(folder / "predictions.parquet").to_pandas()
        table.index = table["row_id"].str.removeprefix("test:").astype(int)
        table = table.sort_index()
        predicted = np.vstack(table["probabilities"]).argmax(axis=1)
        hits.setdefault(folder.parent.name, []).append(predicted == (table["label"] == "positive"))
    rng = np.random.default_rng(0)
    parts = {}
    for name, part in {"up to 512 tokens": ~is_long, "over 512 tokens": is_long}.items():
        draws = [rng.choice(np.flatnonzero(part), part.sum()) for _ in range(2000)]
        # The metric itself, then a draw of rows and seeds a resample, as roberta-gru compare does it.
        values = {
            system: np.array(
                [
                    np.mean([seed[part].mean() for seed in seeds]),
                    *(
                        np.mean([seeds[s][rows].mean() for s in rng.integers(len(seeds), size=len(seeds))])
                        for rows in draws
                    ),
                ]
            )
            for system, seeds in hits.items()
        }
        first = next(iter(values.values()))
        systems = {
            system: {
                "accuracy": _with_interval(theirs),
                "less_first": None if theirs is first else _with_interval(theirs - first),
            }
            for system, theirs in values.items()
        }
        parts[name] = {"n": int(part.sum()), "systems": systems}
    return parts


def _with_interval(values: np.ndarray) -> list[float]:
    """Return a metric and its 95 % interval, from the metric itself and its resamples."""
    return [float(values[0]), *np.percentile(values[1:], [2.5, 97.5]).tolist()]


def length_table(parts: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown table of what [`by_length`] found."""
    rows = []
    for system in next(iter(parts.values()))["systems"]:
        cells = [system.replace("linear-head", "transformer (linear head)").replace("-adapted", ", adapted")]
        for part in parts.values():
            found = part["systems"][system]
            value, low, high = (f"{100 * number:.1f}" for number in found["accuracy"])
            cells.append(f"{value} ({low} to {high})")
            if found["less_first"]:
                value, low, high = (f"{100 * number:+.1f}" for number in found["less_first"])
                cells[-1] += f"; {value} ({low} to {high})"
        rows.append(cells)
    heads = [f"{name}, n = {part['n']:,}" for name, part in parts.items()]
    return table_of(["accuracy, %; minus the first system", *heads], rows, num_left=3)


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--only", default="", help="train the systems whose name holds this")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    options = parser.parse_args()
    study = STUDIES[options.study]()

    def place(run: Path) -> Path:
        return RESULTS / options.study / run.parent.name / run.name if study.is_kept else run

    def is_done(folder: Path) -> bool:
        return (folder / "metrics.json").is_file()

    for folder, words in commands(options.study, options.only):
        if not is_done(folder) and not is_done(place(folder)):
            print(shlex.join(["python", *words]), flush=True)
            if not options.dry_run:
                if LABELLED in words and not (ROOT / LABELLED).is_file():
                    label_reviews(folder.parents[1] / next(iter(study.systems)) / folder.name)
                if ADAPTED in words:
                    adapt_encoder()  # which leaves a finished one as it is
                subprocess.run([sys.executable, *words], cwd=ROOT, check=True)
    for folder, _ in commands(options.study, ""):
        if study.is_kept and is_done(folder):
            keep(folder, place(folder))
    finished = [place(folder) for folder, _ in commands(options.study, "") if is_done(place(folder))]
    if not finished or finished[0].parent.name != next(iter(study.systems)) or options.dry_run:
        return  # the others are compared with the first system
    finished += [RESULTS / folder for folder in study.beside]
    if len(finished) > 1:
        with contextlib.chdir(ROOT):  # which the record does not name
            compared = compare([folder.relative_to(ROOT) for folder in finished])
        write_record(RESULTS / options.study / "comparison.json", compared)
        if study.is_kept:
            write_record(RESULTS / options.study / "by-length.json", by_length(finished))


if __name__ == "__main__":
    main()
