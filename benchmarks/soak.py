"""Let 32 clients ask handler and demo for minutes, on loopback, and compare every answer with the one that is right.

    python benchmarks/soak.py --minutes 10                  # half of it the handler, half the demo

Of the demo's clients every fourth scores a file again and again while the others send texts: what is shared between
threads would show as an answer to somebody else's text. The right answers are computed before, one after the other.
Clients are a process of their own. The memory is the server's, after two minutes (of a short soak, a fifth) and at
the end. The demo turns away whom it has no room for, which counts as refused. The model is tiny.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer
from measuring import RESULTS, be_quiet, conditions, json_option, log, memory, release_memory, table_of, write

RECORDED = RESULTS / "soak.json"
NUM_CLIENTS = 32
SERVED = ("handler", "demo")
WARM_UP = 120
MOST_GROWTH = 0.05


# The clients' process


def ask(kind: str, url: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Have all clients ask until the time is over, and count how the answers were, and what the errors said."""
    expected, counts, ends = json.loads((folder / "expected.json").read_text()), Counter(), time.monotonic() + seconds
    messages: Counter[str] = Counter()

    def client(number: int) -> None:
        send = sender(kind, url, number % 4 == 0, folder)
        for turn in range(number, 10**9, 7):
            if time.monotonic() > ends:
                return
            text = list(expected)[turn % len(expected)]
            try:
                answer = send(text)
            except Exception as error:
                outcome = "refused" if "full" in str(error).lower() else "errors"
                counts[outcome] += 1
                if outcome == "errors":
                    messages[f"{type(error).__name__}: {error}"[:200]] += 1
                continue
            right = expected[text] if isinstance(answer, float) else list(expected.values())
            counts["right" if is_near(answer, right) else "wrong"] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**counts, "messages": dict(messages)}


def is_near(answer: Any, right: Any) -> bool:
    """Tell whether scores are the right ones, but for how they are rounded in a file."""
    if isinstance(answer, list):
        return len(answer) == len(right) and all(map(is_near, answer, right))
    return abs(answer - right) < 2e-6


def sender(kind: str, url: str, sends_files: bool, folder: Path) -> Callable[[str], Any]:
    """Return what sends a text, or the file of all texts, and returns the scores of the first label."""
    if kind == "handler":

        def post(text: str) -> float:
            body = json.dumps({"inputs": text, "parameters": {"top_k": None}}).encode()
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=300) as answer:
                scores = {row["label"]: row["score"] for row in json.load(answer)}
            return scores["bad"]

        return post
    import csv

    from gradio_client import Client, handle_file

    client = Client(url, verbose=False, download_files=str(folder))

    def show(text: str) -> float:
        prediction, _ = client.predict(text, api_name="/classify")
        return next(row["confidence"] for row in prediction["confidences"] if row["label"] == "bad")

    def score(_: str) -> list[float]:
        scored, _ = client.predict(handle_file(folder / "texts.csv"), "text", False, api_name="/score_file")
        with open(scored, newline="") as file:
            return [float(row["score_bad"]) for row in csv.DictReader(file)]

    return score if sends_files else show


# The server's process


def serve_handler(folder: Path) -> str:
    """Serve the endpoint's handler, a thread for each request; return its address."""
    from modeling_roberta_gru.files import carried

    sys.path.insert(0, str(carried("model_card")))
    from handler import EndpointHandler

    answer = EndpointHandler(str(folder / "model"))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.dumps(answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size, daemon_threads = 2 * NUM_CLIENTS, True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def serve_demo(folder: Path) -> str:
    """Serve the demo's page; return its address."""
    from modeling_roberta_gru.inference.demo import load_space
    from modeling_roberta_gru.training.loading import load_classifier

    space = load_space()
    page = space.page(space.Classifier(*load_classifier(str(folder / "model"))), [])
    space.serve(page, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    return page.local_url


def prepare(folder: Path, num_texts: int = 40) -> None:
    """Write a tiny model, texts of many lengths, and the right score of each."""
    import csv
    import random

    import torch

    from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
    from modeling_roberta_gru.data.corpus import train_tokenizer

    rng, words = random.Random(0), ["plot", "slow", "splendid", "dreadful", "music", "and", "but", "we", "liked", "it"]
    texts = [f"{number} {' '.join(rng.choices(words, k=rng.randint(1, 300)))}" for number in range(num_texts)]
    tokenizer, labels = train_tokenizer(texts, vocab_size=300), {0: "bad", 1: "good"}
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    sizes |= {"gru_hidden_size": 16, "head_hidden_size": 8, "max_position_embeddings": 66, "initializer_range": 0.3}
    torch.manual_seed(0)
    config = RobertaGRUConfig(vocab_size=len(tokenizer), id2label=labels, label2id={"bad": 0, "good": 1}, **sizes)
    model = RobertaGRUForSequenceClassification(config).eval()
    for part in (model, tokenizer):
        part.save_pretrained(folder / "model")
    with torch.inference_mode():
        scores = [model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0, 0].item() for text in texts]
    (folder / "expected.json").write_text(json.dumps(dict(zip(texts, scores, strict=True))))
    with (folder / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])


def soak(kind: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Serve, let the clients ask, and watch the memory."""
    url = {"handler": serve_handler, "demo": serve_demo}[kind](folder)
    command = [sys.executable, __file__, "--ask", kind, "--url", url, "--minutes", str(seconds / 60)]
    started, samples = time.monotonic(), []
    with subprocess.Popen([*command, "--folder", str(folder)], stdout=subprocess.PIPE, text=True) as clients:
        while clients.poll() is None:
            time.sleep(min(5, seconds / 20))
            samples.append((time.monotonic() - started, memory("VmRSS")))
        said = clients.stdout.read() if clients.stdout else ""
    answers = json.loads(said)
    counts = {name: answers.get(name, 0) for name in ("right", "wrong", "refused", "errors")}
    release_memory()
    early = next(size for at, size in samples if at >= min(WARM_UP, seconds / 5))
    late = samples[-1][1]
    log(kind, counts, answers["messages"], f"{early / 2**20:,.0f} to {late / 2**20:,.0f} MiB")
    described = {"served": kind, "seconds": round(seconds), **counts, "messages": answers["messages"]}
    return {**described, "bytes_early": early, "bytes_late": late}


def main(
    minutes: Annotated[float, typer.Option(help="For both.")] = 10,
    ask_kind: Annotated[str | None, typer.Option("--ask", hidden=True)] = None,
    url: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
    output: Annotated[Path, json_option(RECORDED)] = RECORDED,
) -> None:
    """Soak both, and write what came of it."""
    if ask_kind is not None and folder is not None:
        print(json.dumps(ask(ask_kind, url, 60 * minutes, folder)))
        return
    described = conditions()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    be_quiet()
    with tempfile.TemporaryDirectory() as work:
        prepare(Path(work))
        figures = [soak(kind, 60 * minutes / len(SERVED), Path(work)) for kind in SERVED]
    measured = {**described, "num_clients": NUM_CLIENTS, "figures": figures}
    write(output, measured, table(measured))
    os._exit(0)  # servers' threads would not end


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the Markdown table, and the conditions."""
    rows = [
        [
            f"`{row['served']}`, {row['seconds']:,} s",
            *(f"{row[name]:,}" for name in ("right", "wrong", "refused", "errors")),
            f"{row['bytes_early'] / 2**20:,.0f}",
            f"{row['bytes_late'] / 2**20:,.0f} ({row['bytes_late'] / row['bytes_early'] - 1:+.1%})",
        ]
        for row in measured["figures"]
    ]
    heads = ["served", "right", "wrong", "refused", "errors", "MiB after warming up", "MiB at the end"]
    return [
        *table_of(heads, rows),
        "",
        f"- {measured['num_clients']} clients; within {MOST_GROWTH:.0%}, memory counts as flat",
        f"- command: `{measured['command']}`",
        f"- commit: `{measured['commit']}`",
    ]


if __name__ == "__main__":
    typer.run(main)
