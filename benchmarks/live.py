"""Measure reading on: documents that are still being written, many of them at once, and no further than needed.

    python benchmarks/live.py appends
    python benchmarks/live.py streams
    python benchmarks/live.py typing runs/quickstart
    python benchmarks/heads.py encode movies-polarity ../shared/encoders/minilm-l6-roberta ../states/polarity
    python benchmarks/live.py early ../states/polarity

Each part writes benchmarks/results/live/PART.json, and `make results` what docs/live.md shows of it. `appends` and
`streams` have random weights, on which neither time nor FLOPs depend. `early` trains RoBERTa-GRU's head on the states
of a frozen encoder in cross-validation (see heads.py): one fold tests, three tenths of the folds fit temperature and
thresholds, and the others train. What is done of a fold lies in the folder of states, from where the same command goes
on.
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import heads
import httpx
import numpy as np
import torch
import typer
from measuring import (
    GEOMETRIES,
    RESULTS,
    ROBERTA_GRU,
    SHARED,
    commit_line,
    conditions,
    cores,
    json_option,
    log,
    make_model,
    panels,
    ranged,
    spread,
    started_server,
    table_of,
    weight_flops,
    write,
    write_record,
)
from scipy.stats import beta
from transformers import AutoTokenizer, RobertaModel

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
from modeling_roberta_gru.data.labels import SINGLE_LABEL
from modeling_roberta_gru.inference import stopping
from modeling_roberta_gru.inference.scorer import Scorer
from modeling_roberta_gru.training.metrics import fit_temperature

RECORDED = RESULTS / "live"
TOKENIZERS = {
    "all-MiniLM-L6-v2": SHARED / "encoders" / "minilm-l6-roberta",
    "roberta-base": SHARED / "tokenizers" / "roberta-base",
}
LENGTHS = [100, 1_000, 10_000, 100_000]
STREAMS = [1, 16, 64, 256]
STREAM_DTYPES = ["float32", "bfloat16"]
APPENDED = 20
"""Tokens of an append."""
TIMES_CHEAPER, TIMES_FASTER = 12, 2.5
"""What is wanted: of an append to 10,000 tokens beside reading again; of 64 documents together beside one by one."""
SECONDS_A_LETTER = 0.15
"""Of a fast typist."""
PASTED = 1_900
"""Characters: the page reads up to 2,000 at once."""
MOST_WAIT = 300
QUANTILES = {"median": 0.5, "95 %": 0.95, "longest": 1.0}
LONG_RUN = 20.0
"""Seconds; what takes longer is measured once."""
VALIDATION_SHARE = 0.3
"""Of the folds."""
EARLY = {
    "movies-polarity": "Reviews of films",
    "imdb-long": "IMDb's reviews of more than 512 tokens",
    "contracts-cap": "Contracts: is liability capped?",
}
MOST_CLOCKED = 250_000  # about as many tokens are scored by whole models, to measure their time
SHARES = [0.05, *(round(0.1 * tenth, 1) for tenth in range(1, 11))]
# Each is one token of both tokenizers, behind a space.
WORDS = (
    "the",
    "film",
    "was",
    "very",
    "good",
    "and",
    "all",
    "of",
    "it",
    "had",
    "a",
    "great",
    "story",
    "but",
    "some",
    "time",
    "in",
    "the",
    "end",
    "we",
    "were",
    "not",
    "so",
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Geometry = Annotated[
    list[str] | None, typer.Option(help=f"{', '.join(GEOMETRIES)}; again for more. Unset: all but toy.")
]


# Appending


@app.command()
def appends(
    geometry: Geometry = None,
    length: Annotated[list[int] | None, typer.Option(help="Tokens read before; again for more.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Appends at each length.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
    output: Annotated[Path, json_option(RECORDED / "appends.json")] = RECORDED / "appends.json",
) -> None:
    """Measure an append beside classifying the whole text again, or the last 512 tokens of it."""
    torch.set_num_threads(threads)
    measured = conditions()
    rows = []
    for name in geometry or list(TOKENIZERS):
        model, tokenizer = load(name)
        reader, rng = model.reader(tokenizer), random.Random(0)
        for wanted in sorted(length or LENGTHS):
            while reader.num_tokens < wanted:
                reader.append(words(rng, min(2_000, wanted - reader.num_tokens)))
            row = {"geometry": name, "length": reader.num_tokens}
            row["reader"] = cost(model, lambda: reader.append(words(rng, APPENDED)), repeats)  # noqa: B023
            ids = torch.randint(5, 50, (1, wanted))
            row["whole"] = cost(model, lambda: model(ids), repeats)  # noqa: B023
            row["last_window"] = cost(model, lambda: model(ids[:, -model.config.encoder_window :]), repeats)  # noqa: B023
            log(row)
            rows.append(row)
    write(output, {**measured, "appended": APPENDED, "rows": rows}, appends_table({**measured, "rows": rows}))


def load(name: str) -> tuple[Any, Any]:
    """Return a model of a geometry with random weights, and a tokenizer for it."""
    if name == "toy":
        from modeling_roberta_gru.data.corpus import train_tokenizer

        tokenizer = train_tokenizer([" ".join(WORDS)] * 9, vocab_size=400)
    else:
        tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS[name])
    fields = {**GEOMETRIES[name], "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    fields["max_position_embeddings"] = 513 + tokenizer.pad_token_id
    return make_model(fields, has_gru=True).eval(), tokenizer


def words(rng: random.Random, count: int) -> str:
    """Return so many words, a token each, behind a space each."""
    return "".join(f" {word}" for word in rng.choices(WORDS, k=count))


@torch.no_grad()
def cost(model: Any, run: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Return milliseconds and encoder FLOPs of something, over some runs: several unless one takes long."""
    found: list[tuple[float, int]] = []
    while len(found) < repeats and (not found or found[-1][0] < LONG_RUN):
        num_flops = 0

        def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
            nonlocal num_flops
            num_windows, width = kwargs["position_ids"].shape
            num_flops += num_windows * window_flops(width, model.config)

        handle = model.roberta.register_forward_pre_hook(count, with_kwargs=True)
        started = time.perf_counter()
        run()
        found.append((time.perf_counter() - started, num_flops))
        handle.remove()
    milliseconds, gigaflops = zip(*((1e3 * seconds, flops / 1e9) for seconds, flops in found), strict=True)
    return {"milliseconds": spread(milliseconds), "encoder_gflops": spread(gigaflops, 6), "runs": len(found)}


def window_flops(width: int, config: Any) -> int:
    """Return the FLOPs of the encoder's matrix products for a window of so many tokens."""
    return width * weight_flops(config) + width**2 * config.num_hidden_layers * 4 * config.hidden_size


def appends_table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the table of appends."""
    rows = []
    for row in measured["rows"]:
        ours, whole = row["reader"], row["whole"]
        times = [whole[name]["median"] / ours[name]["median"] for name in ("milliseconds", "encoder_gflops")]
        cells = [f"{row[way]['milliseconds']['median']:,.0f} ms" for way in ("reader", "whole", "last_window")]
        flops = [f"{row[way]['encoder_gflops']['median']:,.1f}" for way in ("reader", "whole")]
        rows.append([row["geometry"], f"{row['length']:,}", *cells, *flops, *(f"{number:,.1f}" for number in times)])
    names = ["encoder", "tokens before", "append", "whole again", "last 512 only"]
    names += ["append, GFLOP", "whole, GFLOP", "times faster", "times fewer FLOP"]
    return [
        *table_of(names, rows),
        "",
        f"Medians of appends of {APPENDED} tokens. Target: at 10,000 tokens {TIMES_CHEAPER} times cheaper than "
        "reading again, and flat thereafter. The last 512 tokens alone are cheap, and know nothing of what came "
        "before.",
        "",
        *_conditions(measured),
    ]


# Many streams


@app.command()
def streams(
    geometry: Annotated[str, typer.Option(help=", ".join(GEOMETRIES))] = "all-MiniLM-L6-v2",
    documents: Annotated[list[int] | None, typer.Option(help="Open documents; again for more.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each before.")] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds: an append to every document.")] = 5,
    dtype: Annotated[list[str] | None, typer.Option(help="Of the model; again for more. Unset: both.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
    output: Annotated[Path, json_option(RECORDED / "streams.json")] = RECORDED / "streams.json",
) -> None:
    """Measure appends to many documents, together and one by one."""
    torch.set_num_threads(threads)
    measured = {**conditions(), "geometry": geometry, "tokens": tokens, "appended": APPENDED}
    model, tokenizer = load(geometry)
    rows = []
    for kind, count in itertools.product(dtype or STREAM_DTYPES, documents or STREAMS):
        model = model.to(getattr(torch, kind))
        together = model.readers(tokenizer, count)
        alone = model.readers(tokenizer, count)
        rng = random.Random(0)
        before = {index: words(rng, tokens) for index in range(count)}
        together.append(before)
        for index, text in before.items():
            alone[index].append(text)
        seconds: dict[str, list[float]] = {"together": [], "alone": []}
        for _ in range(repeats):
            texts = {index: words(rng, APPENDED) for index in range(count)}
            started = time.perf_counter()
            together.append(texts)
            seconds["together"].append(time.perf_counter() - started)
            started = time.perf_counter()
            for index, text in texts.items():
                alone[index].append(text)
            seconds["alone"].append(time.perf_counter() - started)
        rates = {way: spread([count / its for its in found]) for way, found in seconds.items()}
        ratios = spread([one / both for one, both in zip(seconds["alone"], seconds["together"], strict=True)])
        rows.append({"dtype": kind, "documents": count, **rates, "times_faster": ratios})
        log(rows[-1])
    measured["rows"] = rows
    write(output, measured, streams_table(measured))


def streams_table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the table of streams."""
    rows = [
        [
            row["dtype"],
            f"{row['documents']:,}",
            ranged(row["together"], ",.1f"),
            ranged(row["alone"], ",.1f"),
            ranged(row["times_faster"], ".2f"),
        ]
        for row in measured["rows"]
    ]
    return [
        *table_of(["", "open documents", "appends/s together", "appends/s one by one", "times faster"], rows),
        "",
        f"{measured['geometry']}; documents of {measured['tokens']:,} tokens in the beginning, {measured['appended']} "
        "appended to each in every round, so that they grow; median, least and largest of the rounds. Target at 64: "
        f"{TIMES_FASTER} times.",
        "",
        *_conditions(measured, ""),  # in the table
    ]


# Typing into the page


@app.command()
def typing(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder or a saved model's folder.")],
    letters: Annotated[int, typer.Option(min=1, help="That each of the typists types.")] = 400,
    pastes: Annotated[int, typer.Option(min=1, help="After that: as long as the page reads at once.")] = 10,
    typists: Annotated[list[int] | None, typer.Option(help="At once; again for more. Unset: 1 and 4.")] = None,
    output: Annotated[Path, json_option(RECORDED / "typing.json")] = RECORDED / "typing.json",
) -> None:
    """Type into the demo's page, and measure how long each letter, and each paste, waits for its prediction."""
    measured = {**conditions(), "letters": letters, "pastes": pastes, "rows": []}
    for count in typists or [1, 4]:
        with started_server([*ROBERTA_GRU, "demo", model, "--no-browser"]) as (port, _):
            page = Page(f"http://127.0.0.1:{port}")
            with ThreadPoolExecutor(count) as pool:
                typed = list(pool.map(page.type, range(count), [letters] * count, [pastes] * count))
        for kind in ("letter", "paste"):
            waited = [seconds for each in typed for seconds in each[kind]]
            quantiles = {name: 1e3 * float(np.quantile(waited, share)) for name, share in QUANTILES.items()}
            measured["rows"].append({"typists": count, "kind": kind, "waited": len(waited), "milliseconds": quantiles})
            log(measured["rows"][-1])
    write(output, measured, typing_table(measured))


class Page:
    """The demo's page, as a browser sees it."""

    def __init__(self, url: str):
        config = httpx.get(f"{url}/config").json()
        self.url = url + config.get("api_prefix", "")
        self.function = next(each["id"] for each in config["dependencies"] if each["trigger_mode"] == "always_last")

    def type(self, seed: int, letters: int, pastes: int) -> dict[str, list[float]]:
        """Type letters at a typist's pace, then paste; return the seconds that each waited."""
        rng, text, waited = random.Random(seed), "", {"letter": [], "paste": []}
        session = f"typist{seed}"
        with httpx.Client(base_url=self.url, timeout=60) as client:
            self.show(client, session, "The")  # what is loaded with the first
            for letter in words(rng, letters).lstrip()[:letters]:
                text += letter
                waited["letter"].append(self.show(client, session, text))
                time.sleep(max(0, SECONDS_A_LETTER - waited["letter"][-1]))
            for _ in range(pastes):
                text += words(rng, PASTED)[:PASTED]
                waited["paste"].append(self.show(client, session, text))
        return waited

    def show(self, client: httpx.Client, session: str, text: str) -> float:
        """Send what stands in the box; return the seconds until the prediction is there."""
        started = time.perf_counter()
        asked = {"data": [text, None], "fn_index": self.function, "session_hash": session}
        client.post("/queue/join", json=asked).raise_for_status()
        with client.stream("GET", "/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                said = json.loads(line[5:]) if line.startswith("data:") else {}
                if said.get("msg") == "process_completed":
                    if not said["success"] or "confidences" not in said["output"]["data"][0]:
                        raise RuntimeError(f"The page did not predict: {said}")
                    return time.perf_counter() - started
        raise RuntimeError("The page hung up.")


def typing_table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the table of what was typed."""
    rows = [
        [
            f"{row['typists']}",
            {"letter": "a letter", "paste": f"{PASTED:,} characters at once"}[row["kind"]],
            f"{row['waited']:,}",
            *(f"{row['milliseconds'][name]:.0f}" for name in QUANTILES),
        ]
        for row in measured["rows"]
    ]
    heads = ["typists", "typed", "requests", *(f"{name}, ms" for name in QUANTILES)]
    wanted = f"Target: none above {MOST_WAIT} ms."
    return [*table_of(heads, rows, num_left=2), "", wanted, "", *_conditions(measured)]


# Stopping early


class Replay:
    """A trained head on recorded states, in the place of a model; a token's "id" tells its row and position."""

    SHIFT = 2**24

    def __init__(self, head: heads.Head, states: heads.States, temperature: float = 1.0):
        self.config, self.states, self.temperature = head.config, states, temperature
        self.gru, self.summary, self.head = head.gru, head.summary, head.head
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def document(self, row: int) -> np.ndarray:
        """Return what stands for a document's token ids."""
        return row * self.SHIFT + np.arange(len(self.states.tokens[row]))

    def _encode(self, mask: torch.Tensor, is_full: bool, input_ids: torch.Tensor, **_: Any) -> Any:
        states = torch.empty(*input_ids.shape, self.states.width)
        stride = self.config.window_stride
        for number, ids in enumerate(input_ids.tolist()):
            row, start = ids[0] // self.SHIFT, ids[1] % self.SHIFT - 1
            window = self.states.windows[row][-(-start // stride)]
            states[number] = torch.from_numpy(np.array(self.states.raw[window], dtype=np.float32))
        return SimpleNamespace(last_hidden_state=states)

    def _calibrate(self, logits: torch.Tensor) -> torch.Tensor:
        return logits / self.temperature


@app.command()
def early(
    folder: heads.Folder,
    task: Annotated[str, typer.Option(help=f"{', '.join(EARLY)}.")] = next(iter(EARLY)),
    system: Annotated[str, typer.Option(help="Of heads.py, left to right.")] = "gru-attention",
    fold: Annotated[list[int] | None, typer.Option(help="Test fold; again for more. Unset: all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    data: heads.DataFolder = heads.DATA,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
    clock: Annotated[bool, typer.Option(help="Also score texts of the first test fold with the whole model.")] = True,
    output: Annotated[Path | None, json_option(RECORDED / "early-TASK.json")] = None,
) -> None:
    """Train, fit thresholds, and see on other documents what they promised."""
    torch.set_num_threads(threads)
    measured = {**conditions(), "task": task, "system": system, "seed": seed}
    documents, states = heads.load(heads.TASKS[task], data), heads.States(folder, 1)
    numbers = fold or sorted(set(documents.folds.tolist()))
    kept = {number: folder / f"early-{task}-{system}-{seed}-{number}.json" for number in numbers}
    missing = [number for number, file in kept.items() if not file.is_file()]
    splits = [Split(documents, number) for number in missing]
    is_trained_on = np.array([split.trained for split in splits])
    started = time.perf_counter()
    fitted = (
        heads.fit(heads.SYSTEMS[system], states, documents.targets, is_trained_on, documents.num_outputs, seed)
        if missing
        else []
    )
    seconds = (time.perf_counter() - started) / max(1, len(missing))
    for number, split, head in zip(missing, splits, fitted, strict=True):
        record = one_fold(documents, states, head, split, clock and number == numbers[0])
        write_record(kept[number], {"fold": number, "training_seconds": round(seconds, 1), **record})
    folds = [json.loads(file.read_text(encoding="utf-8")) for file in kept.values()]
    log("; ".join(f"fold {number}: {found['accuracy']}" for number, found in zip(kept, folds, strict=True)))
    measured |= {"encoder": heads.name_of(states.record["encoder"]), "hyperparameters": heads.HYPERPARAMETERS}
    measured |= pool(folds)
    write(output or RECORDED / f"early-{task}.json", measured, early_table(measured))


class Split:
    """Documents of one fold for testing, of some for fitting thresholds, of the others for training."""

    def __init__(self, documents: heads.Documents, fold: int):
        num_folds = int(documents.folds.max()) + 1
        distance, num_fitting = (documents.folds - fold) % num_folds, round(VALIDATION_SHARE * num_folds)
        self.test = np.flatnonzero(distance == 0)
        self.validation = np.flatnonzero((distance > 0) & (distance <= num_fitting))
        self.trained = distance > num_fitting  # (n,) bool


def one_fold(
    documents: heads.Documents, states: heads.States, head: heads.Head, split: Split, clock: bool
) -> dict[str, Any]:
    """Fit thresholds for a trained head, and test them."""
    test, validation = split.test, split.validation
    whole = heads.predict(head, states, validation, "whole")
    model = Replay(head, states, fit_temperature(whole, documents.targets[validation]))
    fitted = stopping.fit_model(model, [model.document(row) for row in validation], None)
    window = model.config.encoder_window
    labels = documents.targets[test]
    logits = heads.predict(head, states, test, "whole") / model.temperature
    final = logits.argmax(axis=1)
    lengths = np.array([len(states.tokens[row]) for row in test])
    long = np.flatnonzero(lengths > window)
    steps: list[list[stopping.Step]] = [[] for _ in long]
    for step in stopping.read_by_windows(model, [model.document(row) for row in test[long]], at_once=8):
        steps[step.row].append(step)
    ways = {"first window only": -1.0, **{name: entry["threshold"] for name, entry in fitted.items()}}
    held = {}
    for name, threshold in ways.items():
        said, read, stopped, num_windows = final.copy(), lengths.copy(), 0, len(test) - len(long)
        for row, some in zip(long, steps, strict=True):
            sure = [step for step in some[:-1] if threshold is not None and certainty(step) >= threshold]
            step = sure[0] if sure else some[-1]
            stopped += bool(sure)
            said[row], read[row] = step.logits.argmax(), step.num_tokens
            num_windows += step.num_windows
        held[name] = {
            "promised": threshold is not None and threshold >= 0,
            "n": len(test),
            "stopped": stopped,
            "differ": int((said != final).sum()),
            "right": int((said == labels).sum()),
            "tokens": int(read.sum()),
            "windows": num_windows,
        }
    return {
        "accuracy": float((final == labels).mean()),
        "right": int((final == labels).sum()),
        "tokens": int(lengths.sum()),
        "windows": sum(len(some) for some in steps) + len(test) - len(long),
        "thresholds": fitted,
        "held": held,
        "curve": curve(model, test, labels),
        "seconds": clocked(model, documents, test, fitted) if clock else None,
    }


def certainty(step: stopping.Step) -> float:
    return float(stopping.certainty(step.logits[None], SINGLE_LABEL)[0])


@torch.no_grad()
def curve(model: Replay, rows: np.ndarray, labels: np.ndarray) -> list[int]:
    """Count the documents whose running prediction is right after each share of their tokens."""
    right = np.zeros(len(SHARES), dtype=int)
    for row, label in zip(rows, labels, strict=True):
        read = torch.from_numpy(np.array(model.states.raw[model.states.tokens[row]], dtype=np.float32))[None]
        length = torch.tensor([read.shape[1]])
        outputs = model.gru(read, length)[0]
        mask = torch.ones(outputs.shape[:2], dtype=torch.bool)
        running = model.summary(outputs, mask, torch.tensor([0]), torch.tensor([True]), is_running=True).value
        at = [max(0, round(share * read.shape[1]) - 1) for share in SHARES]
        right += (model.head(running[0, at]).argmax(dim=-1) == int(label)).numpy()
    return right.tolist()


def clocked(
    model: Replay, documents: heads.Documents, rows: np.ndarray, fitted: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the seconds that whole models take for some texts: reading all, the first window, and to certainty."""
    own = ("gru_hidden_size", "skip_connection", "summary", "attention_horizons", "head_hidden_size", "num_labels")
    fields = {name: getattr(model.config, name) for name in own}
    with heads.quiet():
        config = RobertaGRUConfig.from_pretrained(model.states.record["encoder"], **fields)
    config.calibration_temperature, config.stop_thresholds = model.temperature, fitted
    with heads.quiet():  # its encoder alone: the saved model's own head may have another shape
        full = RobertaGRUForSequenceClassification(config).eval()
        full.roberta = RobertaModel.from_pretrained(
            model.states.record["encoder"], add_pooling_layer=False, dtype=torch.float32
        ).eval()
    for name in ("gru", "summary", "head"):
        getattr(full, name).load_state_dict(getattr(model, name).state_dict())
    tokenizer = AutoTokenizer.from_pretrained(model.states.record["encoder"])
    every = -(-sum(len(model.states.tokens[row]) for row in rows) // MOST_CLOCKED)
    texts = [documents.texts[row] for row in rows[::every]]
    ways: dict[str, dict[str, Any]] = {"everything": {}, "first window only": {"max_length": config.encoder_window}}
    ways |= {name: {"agreement": float(name)} for name, entry in fitted.items() if entry["threshold"] is not None}
    found = {}
    for name, options in ways.items():
        scorer = Scorer(full, tokenizer, dtype="float32", device="cpu", **options)
        scorer.predict(texts[:2])
        started = time.perf_counter()
        scorer.predict(texts)
        found[name] = {"seconds": round(time.perf_counter() - started, 2), "texts": len(texts)}
    return found


def pool(folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up what the folds came to."""
    held = {}
    for name in folds[0]["held"]:
        parts = [fold["held"][name] for fold in folds]
        sums = {
            key: sum(part[key] for part in parts) for key in ("n", "stopped", "differ", "right", "tokens", "windows")
        }
        held[name] = {**sums, "folds_promised": sum(part["promised"] for part in parts)}
    return {
        "folds": len(folds),
        **{key: sum(fold[key] for fold in folds) for key in ("right", "tokens", "windows")},
        "n": held["first window only"]["n"],
        "held": held,
        "curve": {"shares": SHARES, "right": np.sum([fold["curve"] for fold in folds], axis=0).tolist()},
        "seconds": next((fold["seconds"] for fold in folds if fold["seconds"]), None),
    }


def early_table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the table of what was promised and what held."""
    n, seconds = measured["n"], measured["seconds"] or {}
    rows = [["everything", "", "100 %", "", "", f"{measured['right'] / n:.3f}", _seconds(seconds, "everything")]]
    kept = [name for name, held in measured["held"].items() if name.startswith("first") or held["folds_promised"]]
    for name in kept:
        held = measured["held"][name]
        share = f"{held['tokens'] / measured['tokens']:.1%}".replace("%", " %")
        agreement = 1 - held["differ"] / n
        low = beta.ppf(0.025, n - held["differ"], held["differ"] + 1)
        high = beta.ppf(0.975, n - held["differ"] + 1, held["differ"]) if held["differ"] else 1.0
        promise = (
            "" if name.startswith("first") else f"{float(name):.1%} in {held['folds_promised']} of {measured['folds']}"
        )
        cells = [promise, share, f"{held['stopped']:,}", f"{agreement:.4f} ({low:.4f} to {high:.4f})"]
        label = name if name.startswith("first") else "until certain"
        rows.append([label, *cells, f"{held['right'] / n:.3f}", _seconds(seconds, name)])
    none = [f"{float(name):.1%}" for name in measured["held"] if name not in kept]
    names = [
        "read",
        "agreement promised, in folds",
        "tokens read",
        "ended early",
        "labels as of the whole",
        "accuracy",
        "time",
    ]
    return [
        f"### {EARLY[measured['task']]}",
        "",
        *table_of(names, rows),
        "",
        f"{measured['task']}, n = {n:,} in {measured['folds']} test fold{'s' * (measured['folds'] > 1)}; "
        f"`{measured['system']}` on {measured['encoder']}, frozen, seed {measured['seed']}; thresholds "
        "fitted on other folds, 30 % of them (of five: two). In brackets: 95 % Clopper-Pearson intervals. Where the "
        "texts that thresholds are fitted on are too few to promise an agreement, everything is read."
        + (f" No fold could promise {', '.join(none)}." if none else "")
        + (f" Time: of {seconds['everything']['texts']} texts of one fold, by the whole model." if seconds else ""),
        "",
        *_conditions(measured),
    ]


def _seconds(found: dict[str, Any], name: str) -> str:
    return f"{found[name]['seconds']:.1f} s" if name in found else ""


def draw_curve(measured: dict[str, Any], path: Path) -> None:
    """Draw the running prediction's accuracy against the share of the document that has been read."""
    from modeling_roberta_gru.training import plots

    drawing, (axes,) = panels(6, 3.6)
    shares = [100 * share for share in measured["curve"]["shares"]]
    axes.plot(shares, [right / measured["n"] for right in measured["curve"]["right"]], marker="o", color=plots.BLUE)
    first = measured["held"]["first window only"]
    axes.plot(100 * first["tokens"] / measured["tokens"], first["right"] / measured["n"], "s", color=plots.ORANGE)
    axes.annotate(
        "first window only",
        (100 * first["tokens"] / measured["tokens"], first["right"] / measured["n"]),
        (8, -10),
        textcoords="offset points",
        color=plots.ORANGE,
    )
    axes.set_xlabel("share of the document that has been read (%)")
    axes.set_ylabel("accuracy of the running prediction")
    plots.tidy(axes)
    plots.save(drawing, path)


def draw_appends(measured: dict[str, Any], path: Path) -> None:
    """Draw the time of an append against what was read before, beside reading again."""
    from modeling_roberta_gru.training import plots

    names = list(dict.fromkeys(row["geometry"] for row in measured["rows"]))
    drawing, axes = panels(4.5 * len(names), 3.6, 1, len(names))
    ways = {
        "reader": ("append", plots.BLUE),
        "whole": ("whole again", plots.ORANGE),
        "last_window": ("last 512 only", plots.GREY),
    }
    for name, panel in zip(names, axes, strict=True):
        rows = [row for row in measured["rows"] if row["geometry"] == name]
        for way, (label, colour) in ways.items():
            points = [(row["length"], row[way]["milliseconds"]["median"]) for row in rows]
            panel.loglog(*zip(*points, strict=True), marker="o", color=colour, label=label)
        panel.set_title(name, fontsize=11)
        panel.set_xlabel("tokens of the document")
        panel.set_ylabel("milliseconds")
        panel.legend(frameon=False)
        plots.tidy(panel)
    plots.save(drawing, path)


def _conditions(measured: dict[str, Any], dtype: str = "float32") -> list[str]:
    where = ", ".join(filter(None, [dtype, cores(measured)]))
    return [f"- command: `{measured['command']}`", commit_line(measured), f"- {where}"]


def recorded(part: str) -> dict[str, Any] | None:
    """Return what a part came to, if it was measured."""
    path = RECORDED / f"{part}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    app()
