"""Score texts on the CPU beside what people use today; draw and tabulate what was measured.

`python benchmarks/scoring.py measure`, three quarters of an hour of a machine that does nothing else, writes
`benchmarks/results/performance/scoring.json`; `make results` makes the figure and the tables from it.

Every system gets a classifier of roberta-base's geometry with random weights, the same cores and the same texts, cut
beforehand so that none is longer than 512 tokens. The peers run `RobertaForSequenceClassification`; ours has the same
encoder and a GRU upon it. transformers' pipelines and ours read texts; the other peers are given token ids, so that
tokenisation is not counted for them. What takes batches is tried with each of BATCHINGS, one batch on all
cores and one batch a core, and keeps the fastest.

All systems run in one process, round after round, the order turned by one place in each. A speed is the stock
pipeline's time over a system's time in the same round. FLOPs are the model's, counted from its geometry and the real
tokens: padding is work that nobody asked for.
"""

import itertools
import os
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from measuring import (
    GEOMETRIES,
    LIGHT_GREY,
    MIB,
    PAUSE,
    RESULTS,
    SHARED,
    be_quiet,
    commit_line,
    conditions,
    cores,
    flops,
    grouped,
    json_option,
    log,
    make_model,
    measure_ceilings,
    memory,
    panels,
    ranged,
    release_memory,
    spread,
    table_of,
    timed,
    turned,
    whiskers,
    write,
)
from scoring_engines import (
    ALONE,
    AS_THEY_COME,
    BATCHINGS,
    SYSTEMS,
    Batching,
    Chosen,
    Material,
    Score,
    Scores,
    System,
    Workload,
    is_installed,
)

RECORDED = RESULTS / "performance" / "scoring.json"

GEOMETRY = GEOMETRIES["roberta-base"]
# The initial range is large enough that what a system gets wrong shows in the probabilities.
TOY = {**GEOMETRY, "vocab_size": 1000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TOY |= {"intermediate_size": 64, "initializer_range": 0.1}
WINDOW = 512
NUM_CALIBRATION = 16
ENGINES = ("onnx", "onnxruntime", "openvino", "nncf", "ctranslate2")
GROWTH = {"texts": "tweets", "tokens": "tokens of a batch, reviews"}
GROWTH_ROUNDS = 3
TARGET_SPEED = 4.0


class Sizes(NamedTuple):
    """How much is measured."""

    reviews: int
    tweets: int
    long: int
    texts: tuple[int, ...]  # numbers of tweets, for the growth
    tokens: tuple[int, ...]  # tokens of a batch, for the growth
    ceiling: int  # width of the matrices whose product is the ceiling


SIZES = Sizes(40, 192, 8, (512, 1024, 2048, 4096), (256, 512, 1024, 2048, 4096), 2048)
TOY_SIZES = Sizes(5, 8, 2, (4, 8), (64, 256), 64)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _describe() -> None:
    """Score texts on the CPU beside what people use today."""


@app.command()
def measure(
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each system on each workload.")] = 5,
    toy: Annotated[bool, typer.Option(help="A tiny encoder, few texts, one thread: to try the script.")] = False,
    system: Annotated[
        list[str] | None, typer.Option(help="A system beside the stock pipeline; again for more. Unset: all.")
    ] = None,
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Measure every system on every workload, in turn, and how ours grows."""
    keys = check_systems(system or list(SYSTEMS))
    be_quiet()
    torch.set_num_threads(1 if toy else len(os.sched_getaffinity(0)))
    measured = conditions()
    sizes = TOY_SIZES if toy else SIZES
    with tempfile.TemporaryDirectory() as folder:
        workloads, tweets, material = prepare(Path(folder), sizes, toy)
        scores, tried = build(material, keys, workloads)
        chosen = choose(tried)
        differences = compare_probabilities(scores, workloads, chosen)
        ceilings = measure_ceilings(sizes.ceiling)
        runs = list(run_rounds(scores, workloads, chosen, rounds))
        peak = memory("VmHWM")
        scores.clear()
        growth_runs = list(
            grow(material.folder, workloads["reviews"].texts, tweets, sizes, min(rounds, GROWTH_ROUNDS))
        )
    described = {name: describe_workload(workload, material.geometry) for name, workload in workloads.items()}
    figures = summarise(runs, described, ceilings)
    for figure in figures:
        batching = chosen.get((figure["system"], figure["workload"]), ALONE)
        figure["batching"] = "its own" if SYSTEMS[figure["system"]].batches == "own" else str(batching)
    measured |= {
        "engines": {name: version(name) for name in ENGINES if find_spec(name)},
        "rounds": rounds,
        "geometry": material.geometry,
        "peak_memory_gib": round(peak / 2**30, 2),
        "workloads": described,
        "ceiling_size": sizes.ceiling,
        "ceilings": ceilings,
        "targets": check_targets(figures),
        "figures": figures,
        "largest_differences": differences,
        "growth": summarise_growth(growth_runs),
        "tried": [{**trial, "batching": str(trial["batching"])} for trial in tried],
        "runs": runs,
        "growth_runs": growth_runs,
    }
    write(output, measured, [*table(measured), "", *long_table(measured), "", *growth_table(measured)])


def check_systems(keys: list[str]) -> list[str]:
    """Return the keys.

    Raises:
        InputError: if one is unknown.
    """
    from modeling_roberta_gru.errors import unknown_name

    for key in keys:
        if key not in SYSTEMS:
            raise unknown_name("--system", key, SYSTEMS)
    return keys


def prepare(folder: Path, sizes: Sizes, toy: bool) -> tuple[dict[str, Workload], list[str], Material]:
    """Save the classifiers; return the workloads, tweets for the growth, and what systems are built from."""
    texts = toy_texts() if toy else read_texts()
    tokenizer = load_tokenizer(texts, toy)
    geometry = {**(TOY if toy else GEOMETRY), "vocab_size": len(tokenizer)}
    save_models(folder, geometry, tokenizer)
    rng = random.Random(0)
    tweets = rng.sample(texts["tweets"], max(sizes.tweets, *sizes.texts))
    reviews = rng.sample(texts["reviews"], len(texts["reviews"]))
    calibration = tokenizer(cut(reviews[-NUM_CALIBRATION:], tokenizer))["input_ids"]
    is_long = (text for text in reviews if num_tokens(text, tokenizer) > WINDOW)
    long = list(itertools.islice(is_long, sizes.long))
    workloads = {
        "reviews": ("IMDb reviews, cut at 512 tokens", cut(reviews[: sizes.reviews], tokenizer)),
        "tweets": ("tweets", cut(tweets[: sizes.tweets], tokenizer)),
        "long-cut": ("cut at 512 tokens", cut(long, tokenizer)),
        "long": ("whole", long),
    }
    return (
        {
            name: Workload(title, given, tokenizer(given, verbose=False)["input_ids"], name in BATCHINGS)
            for name, (title, given) in workloads.items()
        },
        tweets,
        Material(folder, geometry, calibration, torch.get_num_threads()),
    )


def read_texts() -> dict[str, list[str]]:
    """Return the reviews of IMDb's test split and the airline tweets, from ../shared."""
    from pyarrow import parquet

    files = {"reviews": "imdb/test.parquet", "tweets": "airline/train.parquet"}
    return {
        name: parquet.read_table(SHARED / "data" / path, columns=["text"])["text"].to_pylist()
        for name, path in files.items()
    }


def toy_texts() -> dict[str, list[str]]:
    """Return reviews of the built-in corpus, long ones and short ones."""
    from modeling_roberta_gru.data.corpus import long_reviews

    bounds = {"reviews": (300, 1500), "tweets": (60, 90)}
    return {
        name: [str(row["text"]) for row in long_reviews("scoring", 0, 32, *lengths)]
        for name, lengths in bounds.items()
    }


def load_tokenizer(texts: dict[str, list[str]], toy: bool) -> Any:
    """Return roberta-base's tokenizer, or one that knows the toy's texts."""
    from transformers import AutoTokenizer

    from modeling_roberta_gru.data.corpus import train_tokenizer

    if toy:
        return train_tokenizer(texts["reviews"], vocab_size=TOY["vocab_size"])
    return AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "roberta-base")


def save_models(folder: Path, geometry: dict[str, Any], tokenizer: Any) -> None:
    """Save the two classifiers with random weights, and the tokenizer with each."""
    for name, has_gru in (("stock", False), ("ours", True)):
        make_model(geometry, has_gru).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def num_tokens(text: str, tokenizer: Any) -> int:
    """Return the number of a text's tokens, special tokens included."""
    return len(tokenizer(text, verbose=False)["input_ids"])


def cut(texts: Sequence[str], tokenizer: Any) -> list[str]:
    """Return the words of each text that make no more than 512 tokens."""
    shortened = []
    for text in texts:
        offsets = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        # Of 512 tokens the last is `</s>`: the first that does not fit may stand within a word.
        shortened.append(text[: offsets[WINDOW - 1][0]].rsplit(maxsplit=1)[0] if len(offsets) > WINDOW else text)
    return shortened


def build(
    material: Material, keys: Sequence[str], workloads: dict[str, Workload]
) -> tuple[Scores, list[dict[str, Any]]]:
    """Build the systems whose packages are installed, say which are not, and try the batchings of each.

    Returns:
        The systems, by name and by how many batches they compute at once, as far as that was the fastest somewhere;
        and the trials.
    """
    scores: Scores = {}
    tried: list[dict[str, Any]] = []
    for key, system in SYSTEMS.items():
        if key not in (*keys, "stock") or not is_installed(system):
            continue
        # The pipelines and torch compute one batch at a time, and ours chooses by itself.
        for at_once in sorted({1, material.num_threads} if system.packages else {1}):
            scores[key, at_once] = system.build(material, system.dtype, at_once)
            be_quiet()  # some packages turn it off
            torch.set_num_threads(material.num_threads)  # CTranslate2 changes it
            tried += try_batchings(key, at_once, scores[key, at_once], workloads)
        wanted = {(name, batching.at_once) for (name, _), batching in choose(tried).items()}
        scores = {place: score for place, score in scores.items() if place in wanted}
        release_memory()
        log(f"{key}: built, {memory('VmRSS') / MIB:,.0f} MiB in all")
    return scores, tried


def candidates(system: System, workload: str) -> tuple[Batching, ...]:
    """Return the batchings that a system is tried with."""
    if system.batches in ("alone", "own"):
        return (ALONE,)
    return BATCHINGS[workload] if system.batches == "any" else (AS_THEY_COME, *BATCHINGS[workload][1:])


def try_batchings(key: str, at_once: int, score: Score, workloads: dict[str, Workload]) -> Iterator[dict[str, Any]]:
    """Time a system with each of its batchings, after every third text to warm up.

    On all texts: of fewer, two batches at once may lose by the one that is left over.
    """
    for name in BATCHINGS:
        workload = workloads[name]
        third = workload._replace(texts=workload.texts[::3], ids=workload.ids[::3])
        for batching in candidates(SYSTEMS[key], name):
            batching = batching._replace(at_once=at_once)
            seconds_of(score, third, batching)
            seconds = seconds_of(score, workload, batching)
            log(f"tried {name} {key} {batching}: {seconds}")
            yield {"workload": name, "system": key, "batching": batching, "seconds": seconds}


def choose(tried: Iterable[dict[str, Any]]) -> Chosen:
    """Return each system's fastest batching on each workload."""
    slowest_first = sorted(tried, key=lambda trial: -trial["seconds"])
    return {(trial["system"], trial["workload"]): trial["batching"] for trial in slowest_first}


def seconds_of(score: Score, workload: Workload, batching: Batching) -> float:
    """Return the seconds that a system takes."""
    time.sleep(PAUSE)
    return round(timed(lambda: score(workload, batching)), 4)


def compare_probabilities(scores: Scores, workloads: dict[str, Workload], chosen: Chosen) -> dict[str, float]:
    """Return how far a system's probabilities are from those of the same model in float32, at most."""
    differences: dict[str, float] = {}
    keys = dict.fromkeys(key for key, _ in scores)
    for name in BATCHINGS:
        batching = {key: chosen[key, name] for key in keys}
        given = {key: scores[key, batching[key].at_once](workloads[name], batching[key]) for key in keys}
        for key, probabilities in given.items():
            reference = given.get("ours" if SYSTEMS[key].is_ours else "stock", probabilities)
            difference = float(np.abs(probabilities - reference).max())
            differences[key] = round(max(difference, differences.get(key, 0.0)), 5)
    return differences


def run_rounds(
    scores: Scores, workloads: dict[str, Workload], chosen: Chosen, rounds: int
) -> Iterator[dict[str, Any]]:
    """Time every system on every workload, round after round."""
    keys = list(dict.fromkeys(key for key, _ in scores))
    for number, (name, workload) in itertools.product(range(rounds), workloads.items()):
        for key in turned(keys, number):
            if workload.is_peers or SYSTEMS[key].is_ours:
                batching = chosen.get((key, name), ALONE)
                seconds = seconds_of(scores[key, batching.at_once], workload, batching)
                log(f"round {number} {name} {key}: {seconds}")
                yield {"workload": name, "system": key, "round": number, "seconds": seconds}


def describe_workload(workload: Workload, geometry: dict[str, Any]) -> dict[str, Any]:
    """Return how much there is to read, and the FLOPs of reading it."""
    lengths = [len(ids) for ids in workload.ids]
    return {
        "title": workload.title,
        "num_texts": len(lengths),
        "num_tokens": sum(lengths),
        "longest": max(lengths),
        "flops": {"peers": flops(lengths, geometry, has_gru=False), "ours": flops(lengths, geometry, has_gru=True)},
    }


def summarise(
    runs: list[dict[str, Any]], workloads: dict[str, dict[str, Any]], ceilings: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """Return each system's figures on each workload.

    A speed is the stock pipeline's time over the system's in the same round; where the stock pipeline did not run,
    there is none.
    """
    baseline = {(run["workload"], run["round"]): run["seconds"] for run in runs if run["system"] == "stock"}
    figures = []
    for (name, key), group in grouped(runs, "workload", "system").items():
        seconds = spread([run["seconds"] for run in group])
        speeds = [baseline[name, run["round"]] / run["seconds"] for run in group if (name, run["round"]) in baseline]
        workload, system = workloads[name], SYSTEMS[key]
        gflops = workload["flops"]["ours" if system.is_ours else "peers"] / seconds["median"] / 1e9
        figures.append(
            {
                "workload": name,
                "system": key,
                "num_runs": len(group),
                "seconds": seconds,
                "speed": spread(speeds) if speeds else None,
                "tokens_per_second": round(workload["num_tokens"] / seconds["median"], 1),
                "gflops": round(gflops, 1),
                "of_ceiling": round(gflops / ceilings[system.dtype]["median"], 4),
            }
        )
    return figures


def check_targets(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare our fastest with the stock pipeline, and with the fastest of the peers."""
    targets = {}
    for name in BATCHINGS:
        speeds = {f["system"]: f["speed"]["median"] for f in figures if f["workload"] == name and f["speed"]}
        ours = {key: speed for key, speed in speeds.items() if SYSTEMS[key].is_ours}
        peers = {key: speed for key, speed in speeds.items() if not SYSTEMS[key].is_ours}
        if ours and peers:
            fastest, peer = max(ours, key=ours.__getitem__), max(peers, key=peers.__getitem__)
            targets[name] = {
                "ours": fastest,
                "speed": ours[fastest],
                "speed_at_least": TARGET_SPEED if name == "reviews" else None,
                "peer": peer,
                "peer_speed": peers[peer],
                "ours_over_peer": round(ours[fastest] / peers[peer], 4),
            }
    return targets


def grow(folder: Path, reviews: list[str], tweets: list[str], sizes: Sizes, rounds: int) -> Iterator[dict[str, Any]]:
    """Time our scorer on more and more tweets, and on the reviews in larger and larger batches."""
    from modeling_roberta_gru.inference.scorer import Scorer

    model, dtype = str(folder / "ours"), "int8" if find_spec("openvino") else "float32"
    by_default = Scorer(model, dtype=dtype)
    by_tokens = {tokens: Scorer(model, dtype=dtype, tokens_per_batch=tokens) for tokens in sizes.tokens}
    jobs = [("texts", count, by_default, tweets[:count]) for count in sizes.texts]
    jobs += [("tokens", tokens, scorer, reviews) for tokens, scorer in by_tokens.items()]
    for _, _, scorer, texts in jobs:
        scorer.predict_proba(texts)
    for index in range(rounds):
        for by, value, scorer, texts in jobs:
            seconds, above = watched(scorer, texts)
            log(f"round {index} {by} {value}: {seconds}, {above / MIB:.0f} MiB")
            yield {"by": by, "value": value, "dtype": dtype, "seconds": seconds, "above_bytes": above}


def watched(scorer: Any, texts: list[str]) -> tuple[float, int]:
    """Return the seconds of a run, and the largest resident memory meanwhile above that before. Linux only."""
    release_memory()
    time.sleep(PAUSE)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    seconds = timed(lambda: scorer.predict_proba(texts))
    return round(seconds, 4), memory("VmHWM") - before


def summarise_growth(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the spread of time and memory at every size."""
    return [
        {
            **{"by": by, "value": value, "dtype": dtype, "num_runs": len(group)},
            "seconds": spread([run["seconds"] for run in group]),
            "above_mib": spread([run["above_bytes"] / MIB for run in group]),
        }
        for (by, value, dtype), group in grouped(runs, "by", "value", "dtype").items()
    ]


# What the page says of it


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the tables of reviews and tweets, and their conditions."""
    lines = []
    for name in BATCHINGS:
        workload = measured["workloads"][name]
        heads = (workload["title"], "batches", "times the stock pipeline", "tokens/s", "GFLOP/s", "of the ceiling")
        lines += [
            *table_of(heads, [_row(figure) for figure in by_speed(measured, name)], num_left=2),
            "",
            f"{workload['num_texts']:,} texts, {workload['num_tokens']:,} tokens. {_target(measured, name)} "
            f"{_tried(measured, name)}",
            "",
        ]
    ceilings = ", ".join(f"{dtype} {achieved['median']:,.0f}" for dtype, achieved in measured["ceilings"].items())
    geometry = measured["geometry"]
    return [
        *lines,
        f"Medians of {measured['rounds']} rounds, all systems in turn (in brackets the least and the largest). "
        f"Ceilings: a matrix product of {measured['ceiling_size']:,}³, GFLOP/s: {ceilings}.",
        "",
        f"- command: `{measured['command']}`",
        commit_line(measured),
        f"- random weights, {geometry['num_hidden_layers']} layers × {geometry['hidden_size']}; {cores(measured)}, "
        f"load at the start {measured['load_at_start']}",
    ]


def by_speed(measured: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a workload's figures, the fastest system first."""
    figures = [figure for figure in measured["figures"] if figure["workload"] == name]
    return sorted(figures, key=lambda figure: figure["seconds"]["median"])


def _row(figure: dict[str, Any]) -> list[str]:
    system = SYSTEMS[figure["system"]]
    return [
        f"**{system.name}**" if system.is_ours else system.name,
        figure["batching"],
        ranged(figure["speed"], ".2f"),
        f"{figure['tokens_per_second']:,.0f}",
        f"{figure['gflops']:,.0f}",
        f"{100 * figure['of_ceiling']:.0f} %",
    ]


def _target(measured: dict[str, Any], name: str) -> str:
    target = measured["targets"].get(name)
    if target is None:
        return ""
    wanted = f" (our target: at least {target['speed_at_least']:.0f})" if target["speed_at_least"] else ""
    return (
        f"{SYSTEMS[target['ours']].name}: {target['speed']:.2f} times the stock pipeline{wanted}, and "
        f"{target['ours_over_peer']:.2f} times the fastest peer, {SYSTEMS[target['peer']].name} (our target: 1)."
    )


def _tried(measured: dict[str, Any], name: str) -> str:
    """Return what the pipeline's batches came to when they were tried, beside one by one in the rounds."""
    one_by_one = next(figure for figure in by_speed(measured, name) if figure["system"] == "stock")
    speeds = [
        f"{trial['batching']}: {one_by_one['seconds']['median'] / trial['seconds']:.2f}"
        for trial in measured["tried"]
        if (trial["workload"], trial["system"]) == (name, "stock-batches")
    ]
    return f"The pipeline's batches, when they were tried: {'; '.join(speeds)}." if speeds else ""


def long_table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the table of documents beyond 512 tokens."""
    figures = {(figure["workload"], figure["system"]): figure for figure in measured["figures"]}
    keys = [key for key in SYSTEMS if ("long", key) in figures]
    rows = []
    for name in ("long-cut", "long"):
        workload = measured["workloads"][name]
        cells = (
            f"{of['seconds']['median']:.2f} s, {of['tokens_per_second']:,.0f} tokens/s, {100 * of['of_ceiling']:.0f} %"
            for of in (figures[name, key] for key in keys)
        )
        rows.append([workload["title"], f"{workload['num_tokens']:,}", *cells])
    return table_of(["", "tokens", *(SYSTEMS[key].dtype for key in keys)], rows)


def growth_table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the tables of more texts and of larger batches."""
    lines = []
    for by, head in GROWTH.items():
        rows = [
            [f"{point['value']:,}", ranged(point["seconds"], ",.2f"), ranged(point["above_mib"], ",.0f")]
            for point in measured["growth"]
            if point["by"] == by
        ]
        lines += [*table_of((head, "seconds", "peak memory above that before, MiB"), rows, num_left=0), ""]
    of = measured["growth"][0]
    return [*lines, f"RoBERTa-GRU in {of['dtype']}, medians of {of['num_runs']} rounds."]


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw the speeds on reviews and on tweets, side by side."""
    from modeling_roberta_gru.training import plots

    keys = [figure["system"] for figure in by_speed(measured, "reviews")]
    drawing, both = panels(9, 4.6, 1, 2, sharey=True)
    for axes, name in zip(both, BATCHINGS, strict=True):
        found = {figure["system"]: figure for figure in by_speed(measured, name)}
        speeds = [found[key]["speed"] for key in keys]
        colours = [plots.BLUE if SYSTEMS[key].is_ours else LIGHT_GREY for key in keys]
        medians = [speed["median"] for speed in speeds]
        axes.barh(range(len(keys)), medians, xerr=whiskers(speeds), color=colours, height=0.7)
        for dtype, achieved in measured["ceilings"].items():
            ceiling = achieved["median"] / found["stock"]["gflops"]
            place = {"xytext": (2, 0), "textcoords": "offset points", "xycoords": ("data", "axes fraction")}
            axes.axvline(ceiling, color=plots.ORANGE, linewidth=1, linestyle="--")
            axes.annotate(dtype, (ceiling, 0.02), rotation=90, fontsize=8, color=plots.ORANGE, **place)
        axes.set_yticks(range(len(keys)), [SYSTEMS[key].name for key in keys], fontsize=9)
        axes.set_title(measured["workloads"][name]["title"], fontsize=11)
        axes.set_xlabel("times the stock pipeline")
        axes.margins(x=0.07)
        plots.tidy(axes)
        axes.grid(axis="y", visible=False)
    both[-1].invert_yaxis()
    plots.save(drawing, path)


def draw_growth(measured: dict[str, Any], path: Path) -> None:
    """Draw time against the number of texts and against the size of a batch, side by side."""
    from matplotlib.ticker import MaxNLocator

    from modeling_roberta_gru.training import plots

    drawing, both = panels(9, 3.4, 1, 2)
    for axes, (by, head) in zip(both, GROWTH.items(), strict=True):
        points = [point for point in measured["growth"] if point["by"] == by]
        values, seconds = [point["value"] for point in points], [point["seconds"] for point in points]
        style = {"color": plots.BLUE, "marker": "o", "markersize": 4, "linewidth": 1.5}
        axes.errorbar(values, [of["median"] for of in seconds], yerr=whiskers(seconds), **style)
        longest = max(of["max"] for of in seconds)
        axes.set(xlabel=head, ylabel="seconds", xlim=(0, None), ylim=(0, 1.1 * longest))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        plots.tidy(axes)
    plots.save(drawing, path)


if __name__ == "__main__":
    app()
