"""Load a served model on loopback: how many requests it answers, how soon, and whether each answer is right.

`python benchmarks/load.py measure runs/mine` starts `roberta-gru serve` and, after it, transformers' own pipeline
behind a FastAPI app of a few lines, each in a process of its own. So many clients send a review each, again and again,
and compare every answer with what `Scorer` says of the text. `python benchmarks/load.py soak runs/mine` has 32 clients
send for minutes, and watches the server's memory. Both write to `benchmarks/results/performance/load.json`.
"""

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measuring import (
    MIB,
    RESULTS,
    REVIEWS,
    ROBERTA_GRU,
    be_quiet,
    commit_line,
    conditions,
    cores,
    json_option,
    log,
    now,
    reviews_option,
    spread_rows,
    started_server,
    table_of,
    write,
)

RECORDED = RESULTS / "performance" / "load.json"
SOAK_PARTS = 10
"""Of a soak: after each, the memory is read."""
CLIENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SYSTEMS = {"serve": "`roberta-gru serve`", "pipeline": "transformers' pipeline"}
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "int8": 3e-2}
"""By which an answer may differ from the scorer's: neighbours change the sizes of matrices, and with them rounding."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder or a saved model's folder.")]
Texts = Annotated[int, typer.Option(min=1, help="How many of them, evenly over the file.")]
Dtype = Annotated[str, typer.Option(help="Of the served model.")]


@app.command()
def measure(
    model: Model,
    data: Annotated[Path, reviews_option()] = REVIEWS,
    texts: Texts = 512,
    seconds: Annotated[float, typer.Option(min=0, help="For which each number of clients sends.")] = 60.0,
    clients: Annotated[list[int] | None, typer.Option(help="Clients at once. Unset: 1 to 256.")] = None,
    dtype: Dtype = "auto",
    systems: Annotated[list[str] | None, typer.Option(help="serve, pipeline; unset: both.")] = None,
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Load the server and its peer, and write what was measured."""
    asked = Asked(model, data, texts, dtype)
    started = now()
    asked.scorer.predict_proba(asked.texts)
    rate = len(asked.texts) / (now() - started)
    lengths = [len(ids) for ids in asked.scorer.tokenize(asked.texts)]
    measured: dict[str, Any] = {
        **conditions(),
        **asked.described(),
        "tokens": {"mean": float(np.mean(lengths)), "p90": float(np.quantile(lengths, 0.9)), "max": max(lengths)},
        "scorer_texts_per_second": rate,
        "seconds": seconds,
        "runs": [],
    }
    for system in systems or list(SYSTEMS):
        # The pipeline cuts at what its encoder can read, and is not held to a scorer's answers of whole texts.
        right = asked.right if system == "serve" else None
        peer = [str(Path(__file__).absolute()), "peer", asked.folder]
        with started_server(asked.program if system == "serve" else peer) as (port, pid):
            for number in clients or CLIENTS:
                run = asyncio.run(load(port, asked.texts, right, seconds, number))
                measured["runs"].append({"system": system, "clients": number, **run, "memory": resident(pid)})
                log(measured["runs"][-1])
            busiest = max(
                (run for run in measured["runs"] if run["system"] == system), key=lambda run: run["per_second"]
            )
            half = asyncio.run(load(port, asked.texts, right, seconds, None, busiest["per_second"] / 2))
            measured["runs"].append({"system": system, "clients": None, **half, "memory": resident(pid)})
            log(measured["runs"][-1])
    before = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    if "soak" in before:
        measured["soak"] = before["soak"]
    write(output, measured, table(measured))


@app.command()
def soak(
    model: Model,
    data: Annotated[Path, reviews_option()] = REVIEWS,
    texts: Texts = 512,
    minutes: Annotated[float, typer.Option(min=0, help="Of load.")] = 10.0,
    dtype: Dtype = "auto",
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Load the server for minutes with 32 clients, and watch its memory; written beside what `measure` wrote."""
    measured = json.loads(output.read_text(encoding="utf-8"))
    asked, described = Asked(model, data, texts, dtype), conditions()
    memory: list[int] = []
    with started_server(asked.program) as (port, pid):
        parts = []
        for _ in range(SOAK_PARTS):
            parts.append(asyncio.run(load(port, asked.texts, asked.right, 60 * minutes / SOAK_PARTS, 32)))
            memory.append(resident(pid))
            log(parts[-1], f"{memory[-1] / MIB:,.0f} MiB")
    counts = {name: sum(part[name] for part in parts) for name in ("answered", "refused", "wrong", "lost")}
    measured["soak"] = {**described, **asked.described(), "minutes": minutes, **counts, "memory": memory}
    write(output, measured, soak_lines(measured))


class Asked:
    """What is asked of a server: texts, evenly from a file, and the right answers.

    Attributes:
        texts: the requests'.
        scorer: of the same model.
        right: what it says of them.
        folder: of the model.
        program: that serves it.
    """

    def __init__(self, model: str, data: Path, texts: int, dtype: str) -> None:
        from modeling_roberta_gru.inference.score_file import read_texts
        from modeling_roberta_gru.inference.scorer import Scorer
        from modeling_roberta_gru.training.loading import model_folder

        be_quiet()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        every = list(read_texts(data))
        self.texts = [every[row] for row in spread_rows(len(every), min(texts, len(every)))]
        self.scorer = Scorer(model, dtype=dtype)
        labels = dict(zip(self.scorer.labels, range(len(self.scorer.labels)), strict=True))
        self.right = Answers(labels, self.scorer.predict_proba(self.texts), TOLERANCE[self.scorer.dtype])
        self.folder = str(Path(model_folder(model)).absolute())
        self.program = [*ROBERTA_GRU, "serve", self.folder, "--dtype", dtype]
        self.model = Path(model).name

    def described(self) -> dict[str, Any]:
        """Return what is recorded of it."""
        scorer = self.scorer
        return {
            "model": self.model,
            "dtype": scorer.dtype,
            "description": scorer.description,
            "texts": len(self.texts),
        }


@app.command()
def peer(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    port: Annotated[int, typer.Option()],
) -> None:
    """Serve transformers' pipeline, one request at a time: the peer that `measure` starts."""
    import threading

    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline

    import modeling_roberta_gru  # noqa: F401  (registers its classes)

    be_quiet()
    classify = pipeline("text-classification", model=model)
    served, lock = FastAPI(), threading.Lock()

    @served.post("/classify")
    def answer(data: dict) -> Any:
        with lock:
            return classify(data["inputs"], truncation=True, max_length=512, **data.get("parameters", {}))

    uvicorn.run(served, host="127.0.0.1", port=port, log_level="warning")


class Answers:
    """What is right, (n, C) by label, and by how much an answer may differ from it."""

    def __init__(self, labels: dict[str, int], expected: np.ndarray, tolerance: float):
        self.labels, self.expected, self.tolerance = labels, expected, tolerance

    def difference(self, row: int, answer: list[dict[str, Any]]) -> float:
        """Return by how much the answer to a text differs."""
        given = np.full(len(self.labels), np.inf)
        for entry in answer:
            given[self.labels[entry["label"]]] = entry["score"]
        return float(np.abs(given - self.expected[row]).max())


async def load(
    port: int, texts: list[str], right: Answers | None, seconds: float, clients: int | None, rate: float = 0.0
) -> dict[str, Any]:
    """Send requests for some time, and wait for the last answer.

    Args:
        port: of the server.
        texts: a request each, in random order.
        right: what the answers are compared with.
        seconds: for which requests are sent.
        clients: each sends its next request when the last is answered. None: requests come at `rate` a second, at
            random moments, whether or not others are answered.
        rate: requests a second.
    """
    import httpx

    rng = random.Random(0)
    found: dict[str, Any] = {"answered": 0, "refused": 0, "wrong": 0, "lost": 0}
    latencies: list[float] = []
    differences: list[float] = [0.0]
    begun = time.perf_counter()
    end = begun + seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=512)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=limits) as http:

        async def ask() -> float:
            """Send a text; return for how long to hold back."""
            row = rng.randrange(len(texts))
            started = time.perf_counter()
            try:
                response = await http.post("/classify", json={"inputs": texts[row], "parameters": {"top_k": None}})
            except httpx.HTTPError:
                found["lost"] += 1
                return 0.1
            if response.status_code == 429:
                found["refused"] += 1
                return min(1.0, float(response.headers["retry-after"]))
            latencies.append(time.perf_counter() - started)
            found["answered" if response.status_code == 200 else "lost"] += 1
            if right is not None and response.status_code == 200:
                differences.append(right.difference(row, response.json()))
                found["wrong"] += differences[-1] > right.tolerance
            return 0.0

        async def client() -> None:
            while time.perf_counter() < end:
                await asyncio.sleep(await ask())

        if clients is not None:
            await asyncio.gather(*(client() for _ in range(clients)))
        else:
            waiting = set()
            while time.perf_counter() < end:
                waiting.add(asyncio.ensure_future(ask()))
                await asyncio.sleep(rng.expovariate(rate))
            await asyncio.gather(*waiting)
    took = time.perf_counter() - begun
    quantiles = np.quantile(latencies, (0.5, 0.95, 0.99)) if latencies else [float("nan")] * 3
    return {
        **found,
        "per_second": found["answered"] / took,
        **dict(zip(("p50", "p95", "p99"), map(float, quantiles), strict=True)),
        "largest_difference": max(differences),
    }


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has. Linux only."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the table, and its conditions."""
    rows = []
    for run in measured["runs"]:
        asked = run["answered"] + run["refused"] + run["lost"]
        is_checked = run["system"] == "serve"
        rows.append(
            [
                SYSTEMS[run["system"]],
                "half the load" if run["clients"] is None else f"{run['clients']}",
                f"{run['per_second']:,.1f}",
                *(f"{run[name]:,.2f}" for name in ("p50", "p95", "p99")),
                f"{run['refused'] / max(1, asked):.1%}",
                f"{run['wrong'] + run['lost']}" if is_checked else f"{run['lost']}",
                f"{run['memory'] / MIB:,.0f}",
            ]
        )
    heads = ["", "clients", "requests/s", "p50 (s)", "p95 (s)", "p99 (s)", "refused", "wrong or lost", "MiB"]
    tokens = measured["tokens"]
    lines = [
        *table_of(heads, rows),
        "",
        f"`Scorer` on the same {measured['texts']:,} texts: {measured['scorer_texts_per_second']:,.1f} a second. A "
        f"request is a text of {tokens['mean']:.0f} tokens in the mean (p90 {tokens['p90']:.0f}, longest "
        f"{tokens['max']:,}); {measured['seconds']:g} s a row. Every answer of `roberta-gru serve` was compared with "
        f"`Scorer`'s: they differ by {max_difference(measured):.1g} at most. The pipeline cuts texts at 512 tokens.",
    ]
    return [
        *lines,
        "",
        f"- command: `{measured['command']}`; {cores(measured)}, which the clients share; {measured['description']}",
        commit_line(measured),
        *(["", *soak_lines(measured)] if "soak" in measured else []),
    ]


def soak_lines(measured: dict[str, Any]) -> list[str]:
    """Return the lines of what a soak came to, and its conditions."""
    soak = measured["soak"]
    memory = [f"{size / MIB:,.0f}" for size in soak["memory"]]
    return [
        f"{soak['minutes']:g} minutes of 32 clients: {soak['answered']:,} answers, {soak['refused']:,} refused, "
        f"{soak['wrong'] + soak['lost']} wrong or lost. The server's memory after each tenth of it, MiB: "
        f"{', '.join(memory)}.",
        "",
        f"- command: `{soak['command']}`; {cores(soak)}, which the clients share; {soak['description']}",
        commit_line(soak),
    ]


def max_difference(measured: dict[str, Any]) -> float:
    """Return by how much an answer differs from the scorer's at most."""
    return max((run["largest_difference"] for run in measured["runs"] if run["system"] == "serve"), default=0.0)


if __name__ == "__main__":
    app()
