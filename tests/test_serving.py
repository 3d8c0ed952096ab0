"""A served model: the handler's answers, whatever other clients do, and however many there are."""

import asyncio
import contextlib
import http.client
import itertools
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from modeling_roberta_gru import RobertaGRUForSequenceClassification, Scorer, serving
from modeling_roberta_gru.data.tokenization import lift_limits
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.inference import reading
from modeling_roberta_gru.inference import scorer as scorer_module
from modeling_roberta_gru.inference.demo import check_port
from modeling_roberta_gru.serving import (
    TOKEN,
    Limits,
    ReadingLine,
    RefusedError,
    TextLine,
    create_app,
    load_handler,
    make_server,
)

from .refusals import refused
from .tiny import ROOT, script, tiny_config

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

load = script("load")
WORDS = ["the", "plot", "was", "long", "and", "slow", "but", "we", "liked", "its", "music", "splendid", "dreadful"]
SOON = 120.0  # seconds: a hang is an error, not a wait


def text_of(num_words, seed):
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


# Windows hold 20 tokens: some of these documents have a tenth of one, some several.
TEXTS = [text_of(length, seed) for seed, length in enumerate([3, 70, 1, 12, 18, 17, 5, 40, 2, 30, 0, 19, 3, 8, 25, 9])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, stand_in):
    folder = tmp_path_factory.mktemp("served")
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    lift_limits(tokenizer)
    names = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
    torch.manual_seed(0)
    config = tiny_config(vocab_size=len(tokenizer), problem_type="single_label_classification", **names)
    RobertaGRUForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.copy(ROOT / "model_card" / "handler.py", folder)
    shutil.copy(reading.__file__, folder)
    return folder


@pytest.fixture(scope="module")
def scorer(folder):
    """Return a scorer whose batches hold a text each, so that no answer depends on neighbours, not even by a bit."""
    return Scorer(str(folder), dtype="float32", device="cpu", tokens_per_batch=1)


class Served:
    """An app, served on loopback by a thread."""

    def __init__(self, app):
        self.app, self.service = app, app.state.service
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.server = make_server(app, "127.0.0.1", self.port)
        self.thread = threading.Thread(target=self.server.run, args=([listening],))
        self.thread.start()
        wait_until(lambda: self.server.started)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(SOON)
        assert not self.thread.is_alive()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=SOON)

    def ask(self, data, path="/classify", method="POST", **headers):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            said = response.read()
            is_json = response.headers["content-type"] == "application/json"
            return response.status, json.loads(said) if is_json else said.decode(), response.headers

    def answer(self, data, **others):
        status, said, _ = self.ask(data, **others)
        assert status == 200, said
        return said


def wait_until(holds, seconds=SOON):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def serve(scorer):
    """Return a function that serves the model, with other limits."""
    with contextlib.ExitStack() as stack:

        def start(limits=None, **options):
            served = Served(create_app(options.pop("scorer", scorer), limits=limits or Limits(), **options))
            stack.callback(served.stop)
            return served

        yield start


@pytest.fixture(scope="module")
def served(serve):
    return serve(Limits(body_bytes=100_000, readings=2))


@pytest.fixture(scope="module")
def impatient(serve):
    return serve(Limits(seconds_to_send=1.0, readings=2))


@pytest.fixture
def held(scorer, monkeypatch):
    """Hold every batch back until the event is set; yield it, and the batches that have begun."""
    go, begun = threading.Event(), []
    compute = Scorer.logits_of_tokens

    def logits_of_tokens(self, documents):
        begun.append(len(documents))
        assert go.wait(SOON)
        return compute(self, documents)

    monkeypatch.setattr(Scorer, "logits_of_tokens", logits_of_tokens)
    yield go, begun
    go.set()


def test_html_is_removed_as_in_training_from_whole_texts(folder, scorer, served, serve, tmp_path):
    model = shutil.copytree(folder, tmp_path / "trained")
    (model / "run.json").write_text(json.dumps({"options": {"clean_html": True}}))
    cleaning = serve(scorer=str(model), dtype="float32", device="cpu", tokens_per_batch=1)
    marked, plain = ["<b>the plot</b> was", "long"], ["the plot was", "long"]
    for parameters in ({"top_k": 3}, {"explain": True}):
        answers = [
            server.answer({"inputs": texts, "parameters": parameters})
            for server, texts in ((cleaning, marked), (served, plain), (served, marked))
        ]
        assert answers[0] == answers[1] != answers[2]
    assert cleaning.answer({"inputs": marked[0]}) == [served.answer({"inputs": plain})[0]]
    reading = b'"<b>the plot</b> was"\n'
    assert cleaning.ask(reading, "/read")[1] == served.ask(reading, "/read")[1]


def test_answers_are_the_handlers(served, folder):
    handler = load_handler().EndpointHandler(str(folder))
    requests = [
        {"inputs": TEXTS[0]},
        {"inputs": TEXTS, "parameters": None},
        {"inputs": TEXTS[:3], "parameters": {"top_k": 2}},
        {"inputs": TEXTS[1], "parameters": {"top_k": None, "function_to_apply": "none"}},
        {"inputs": TEXTS[:2], "parameters": {"function_to_apply": "sigmoid", "top_k": 3}},
        {"inputs": TEXTS[:2], "parameters": {"explain": True}},
    ]
    for request in requests:
        expected = handler(request)
        for path in ("/", "/classify"):
            assert flat(served.answer(request, path=path)) == pytest.approx(flat(expected), abs=1e-5)


def flat(answer):
    """Return what an answer holds as paths and values, whose keys are compared exactly and numbers nearly."""
    if isinstance(answer, dict):
        return {f"{name}.{key}": value for name, part in answer.items() for key, value in flat(part).items()}
    if isinstance(answer, list):
        return flat({str(index): part for index, part in enumerate(answer)})
    return {"is " + answer: 1.0} if isinstance(answer, str) else {"": answer}


MISTAKES = [
    {},
    {"inputs": []},
    {"inputs": [1]},
    {"inputs": "a", "parameters": {"top_k": 0}},
    {"inputs": "a", "parameters": {"top_q": 1}},
    {"inputs": "\ud800"},
    {"inputs": ["a"] * 257},
    {"inputs": "a", "else": 1},
    ["a"],
    None,
]


@pytest.mark.parametrize("request_", MISTAKES, ids=lambda mistake: json.dumps(mistake)[:40])
def test_mistakes_are_told_in_the_handlers_words(served, folder, request_):
    contract = load_handler().Contract(served.service.scorer.engine.model.config)
    with pytest.raises(load_handler().RequestError) as error:
        contract.read(request_)
    assert served.ask(request_)[:2] == (400, {"error": str(error.value)})


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 50_000, b'{"inputs": 1e', b"9" * 10_000])
def test_what_is_not_json_is_a_mistake(served, body):
    status, said, _ = served.ask(body)
    assert status == 400
    assert said["error"].startswith("request: ")


def test_sixteen_clients_get_the_scorers_answers_to_the_bit(served, scorer):
    rng = random.Random(0)
    requests = [rng.sample(TEXTS, rng.randint(1, 5)) for _ in range(48)]
    parameters = {"top_k": None, "function_to_apply": "none"}
    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(lambda texts: served.answer({"inputs": texts, "parameters": parameters}), requests))
    for texts, answers in zip(requests, found, strict=True):
        for scores, expected in zip(answers, scorer.logits(texts), strict=True):
            assert {score["label"]: score["score"] for score in scores} == dict(
                zip(scorer.labels, expected.tolist(), strict=True)
            )


def test_batches_of_many_clients_change_answers_by_rounding_only(serve, folder, held):
    go, begun = held
    scorer = Scorer(str(folder), dtype="float32", device="cpu", tokens_per_batch=200)
    line = TextLine(scorer)
    answers = [line.submit(scorer.tokenize([text])) for text in TEXTS]
    go.set()
    found = np.concatenate([answer.result(SOON) for answer in answers])
    assert len(begun) < len(TEXTS)
    assert found == pytest.approx(scorer.logits(TEXTS), abs=1e-5)
    line.close()


def test_a_long_list_holds_no_short_one_up(scorer, held):
    go, begun = held
    line = TextLine(scorer)
    long = line.submit(scorer.tokenize(TEXTS * 4))
    wait_until(lambda: len(begun) == scorer.engine.num_workers)
    short = line.submit(scorer.tokenize(TEXTS[:1]))
    order = []
    long.add_done_callback(lambda _: order.append("long"))
    short.add_done_callback(lambda _: order.append("short"))
    go.set()
    long.result(SOON)
    short.result(SOON)
    line.close()
    assert order == ["short", "long"]


def test_more_than_may_wait_is_told_when_to_come_back(serve, held):
    go, _ = held
    served = serve(Limits(waiting_texts=3))
    with ThreadPoolExecutor(3) as clients:
        first = clients.submit(served.answer, {"inputs": TEXTS[:3]})
        wait_until(lambda: served.service.texts.num_texts == 3)
        status, said, headers = served.ask({"inputs": TEXTS[0]})
        assert (status, list(said)) == (429, ["error"])
        assert 1 <= int(headers["retry-after"]) <= 60
        assert served.ask(b"", path="/health", method="GET")[0] == 200
        go.set()
        assert len(first.result(SOON)) == 3
    # What is larger than the line waits alone.
    assert len(served.answer({"inputs": TEXTS[:5]})) == 5
    assert served.service.texts.num_texts == served.service.texts.num_tokens == 0


def test_a_text_that_breaks_breaks_no_other(scorer, monkeypatch):
    compute = Scorer.logits_of_tokens

    def logits_of_tokens(self, documents):
        if any(len(document) == len(bad) for document in documents):
            raise MemoryError("too long")
        return compute(self, documents)

    (bad,) = scorer.tokenize([text_of(111, 0)])
    monkeypatch.setattr(Scorer, "logits_of_tokens", logits_of_tokens)
    monkeypatch.setattr(scorer, "tokens_per_batch", 10_000)
    line = TextLine(scorer)
    documents = scorer.tokenize(TEXTS)
    good, broken = line.submit(documents), line.submit([documents[0], bad])
    assert good.result(SOON).shape == (len(TEXTS), 3)
    with pytest.raises(MemoryError):
        broken.result(SOON)
    line.close()
    assert line.num_texts == line.num_tokens == 0
    with pytest.raises(RefusedError) as error:
        line.submit(documents)
    assert error.value.status == 503


def test_a_request_that_takes_too_long_is_left(serve, monkeypatch, held):
    go, begun = held
    monkeypatch.setenv("ROBERTA_GRU_MAX_SECONDS", "2")
    served = serve()
    status, _, headers = served.ask({"inputs": TEXTS})
    assert (status, "retry-after" in headers) == (503, True)
    go.set()
    wait_until(lambda: served.service.texts.num_texts == 0)
    assert len(begun) == served.service.scorer.engine.num_workers  # and not all the other texts


def test_a_request_whose_turn_does_not_come_is_left(serve, scorer, monkeypatch):
    monkeypatch.setenv("ROBERTA_GRU_MAX_SECONDS", "2")
    served, go = serve(), threading.Event()
    prepare, prepared = served.service.prepare, []
    monkeypatch.setattr(
        served.service, "prepare", lambda body: (prepared.append(body), go.wait(SOON), prepare(body))[2]
    )
    body = json.dumps({"inputs": TEXTS[0]}).encode()
    try:
        with ThreadPoolExecutor(3) as clients, served.socket() as client:
            answers = [clients.submit(served.ask, {"inputs": text}) for text in TEXTS[:3]]
            wait_until(lambda: len(prepared) == 1)
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            client.close()
            wait_until(lambda: 'status="499"' in served.ask(b"", path="/metrics", method="GET")[1])
            assert [answer.result(SOON)[0] for answer in answers] == [503] * 3
    finally:
        go.set()
    assert served.answer({"inputs": TEXTS[0]})
    assert len(prepared) == 2  # nothing was begun that nobody waits for
    assert served.service.open_bytes == 0


def test_what_takes_too_long_is_left_before_the_client_is_told(scorer, monkeypatch, held):
    go, begun = held
    monkeypatch.setenv("ROBERTA_GRU_MAX_SECONDS", "2")
    app = create_app(scorer, limits=Limits())
    texts = app.state.service.texts
    messages = [{"type": "http.request", "body": json.dumps({"inputs": TEXTS}).encode(), "more_body": False}]

    async def receive():
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message):
        go.set()
        wait_until(lambda: texts.num_texts == 0)  # without another turn of the loop

    path = {"path": "/classify", "raw_path": b"/classify", "query_string": b"", "root_path": ""}
    scope = {"type": "http", "method": "POST", "headers": [], "scheme": "http", "server": ("x", 80), **path}
    asyncio.run(app(scope, receive, send))
    assert len(begun) == scorer.engine.num_workers


def test_a_client_that_goes_away_leaves_nothing_to_do(serve, held):
    go, begun = held
    served = serve()
    body = json.dumps({"inputs": TEXTS}).encode()
    with served.socket() as client:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: served.service.texts.num_texts == len(TEXTS))
        wait_until(lambda: len(begun) == served.service.scorer.engine.num_workers)
    wait_until(lambda: 'status="499"' in served.ask(b"", path="/metrics", method="GET")[1])
    go.set()
    wait_until(lambda: served.service.texts.num_texts == 0)
    assert len(begun) == served.service.scorer.engine.num_workers


def test_a_text_of_too_many_tokens_is_found_out_before_all_of_it_is_tokenised(serve, monkeypatch):
    served = serve(Limits(text_tokens=1000))
    sizes = []
    tokenise = Scorer._tokenise

    def count(self, texts):
        sizes.append(sum(map(len, texts)))
        return tokenise(self, texts)

    monkeypatch.setattr(Scorer, "_tokenise", count)
    status, said, _ = served.ask({"inputs": ["plot", "plot " * 100_000]})
    assert (status, said["error"].startswith("inputs[1]: ")) == (400, True)
    assert sum(sizes) < 20_000


def test_a_large_body_is_refused_before_it_is_sent(served):
    with served.socket() as client:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")  # without a byte of it
    with contextlib.closing(served.connect()) as client:

        def parts():  # of a length that nobody says
            for _ in range(10_000):
                yield b" " * 10_000

        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.request("POST", "/classify", parts())
            assert client.getresponse().status == 413
    assert served.service.open_bytes == 0
    assert served.answer({"inputs": "a"})


def test_a_body_that_does_not_come_is_not_waited_for(impatient):
    with impatient.socket() as client:
        client.sendall(b'POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"inputs"')
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")
    with impatient.socket() as client:
        client.sendall(b'POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"inputs"')
    wait_until(lambda: impatient.service.open_bytes == 0)


def test_what_all_clients_send_at_once_is_bounded(serve):
    served = serve(Limits(open_bytes=1000))
    with served.socket() as client:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 990\r\n\r\n" + b" " * 900)
        wait_until(lambda: served.service.open_bytes == 900)
        assert served.ask({"inputs": "a" * 200})[0] == 429
        assert served.answer({"inputs": "a"})


def test_silent_connections_keep_nobody_out(served):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.socket()) for _ in range(300)]
        for client in clients[::2]:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nX-")  # a head that has no end
        assert served.answer({"inputs": TEXTS[0]})


def test_silent_connections_are_closed(impatient):
    clients = [impatient.socket() for _ in range(300)]
    for client in clients[::2]:
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nX-")
    for client in clients:
        with client:
            assert client.recv(100)[:12] in (b"", b"HTTP/1.1 400")
    wait_until(lambda: not impatient.server.server_state.connections)


@pytest.mark.slow
def test_a_connection_stays_open_for_a_while_after_an_answer_that_took_long(serve, held):
    go, begun = held
    served = serve(Limits(seconds_to_send=3.0))  # looks at a connection after 3, 6 and 9 seconds
    with contextlib.closing(served.connect()) as connection:
        connection.request("POST", "/classify", json.dumps({"inputs": TEXTS[0]}))
        wait_until(lambda: begun)
        time.sleep(5)
        go.set()
        assert connection.getresponse().read()
        time.sleep(2)
        connection.request("POST", "/classify", json.dumps({"inputs": TEXTS[0]}))
        assert connection.getresponse().status == 200


def test_who_does_not_read_the_answers_keeps_nobody_out_and_no_server_up(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(tokenizer), num_labels=3000)).eval()
    many_labels = Scorer(model, tokenizer, dtype="float32", device="cpu")
    served = Served(create_app(many_labels, limits=Limits(seconds_to_send=1.0, readings=1)))
    appended, append = [], served.service.readings.append
    served.service.readings.append = lambda number, piece: appended.append(piece) or append(number, piece)
    deaf = socket.socket()
    try:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", served.port))
        lines = b'"a word "\n' * 5000
        body = b"%x\r\n%s\r\n" % (len(lines), lines)
        head = b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

        def send():
            with contextlib.suppress(OSError):
                deaf.sendall(head + body)

        threading.Thread(target=send, daemon=True).start()
        wait_until(lambda: not served.service.readings._free)
        wait_until(lambda: served.service.readings._free)
        assert len(appended) < 5000
        assert events_of(served.ask(b'"a word"', path="/read")[1])[-1][0] == "end"
    finally:
        served.stop()
        deaf.close()


def test_a_connection_is_used_again(served):
    with contextlib.closing(served.connect()) as connection:
        for text in TEXTS[:5]:
            connection.request("POST", "/classify", json.dumps({"inputs": text}))
            assert json.loads(connection.getresponse().read())[0]["label"] in ("bad", "fair", "good")


def test_who_has_no_token_is_told_so_before_the_body_is_read(serve):
    served = serve(token="s3cret")
    for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}, {"Authorization": "é"}):
        status, said, answered = served.ask({"inputs": "a"}, **headers)
        assert (status, list(said), answered["www-authenticate"]) == (401, ["error"], "Bearer")
    with served.socket() as client:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 401 ")
    assert served.ask(b"", path="/metrics", method="GET")[0] == 401
    assert served.ask(b"", path="/health", method="GET")[0] == 200
    assert served.answer({"inputs": "a"}, Authorization="Bearer s3cret")


def test_the_token_is_had_from_the_environment(scorer, monkeypatch):
    monkeypatch.setenv(TOKEN, "schlüssel")
    with refused(field=TOKEN, match="ASCII"):
        create_app(scorer)
    monkeypatch.setenv(TOKEN, " ")
    with refused(field=TOKEN, match="empty"):
        create_app(scorer)


def test_replicas_of_ray_serve_have_the_token_of_whoever_started_them(folder, monkeypatch, capsys):
    built = []

    def ingress(build):
        built.append(build)
        return object

    deployment = SimpleNamespace(bind=lambda: None)
    serve = SimpleNamespace(ingress=ingress, deployment=lambda *_, **__: deployment)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(serve=serve))
    arguments = {"model": str(folder), "dtype": "float32", "device": "cpu"}
    monkeypatch.setenv(TOKEN, " ")
    with refused(field=TOKEN):
        serving.app(arguments)
    monkeypatch.setenv(TOKEN, "s3cret")
    serving.app(arguments)
    assert TOKEN not in capsys.readouterr().err
    monkeypatch.delenv(TOKEN)  # as in a replica on another node
    served = Served(built[-1]())
    try:
        assert served.ask({"inputs": "a"})[0] == 401
        assert served.answer({"inputs": "a"}, Authorization="Bearer s3cret")
    finally:
        served.stop()
    serving.app(arguments)
    assert TOKEN in capsys.readouterr().err


def events_of(said):
    pairs = [event.split("\n") for event in said.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def test_a_document_is_read_while_it_is_written(served, scorer):
    pieces = [text_of(12, seed) + " " for seed in range(5)]
    with served.socket() as client:
        client.sendall(b"POST /read?top_k=2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = client.makefile("rb")
        found = []
        for piece in pieces:  # each is answered before the next is written
            line = json.dumps({"append": piece}).encode() + b"\n"
            client.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            while not (said := answer.readline()).startswith(b"data: "):
                pass
            found.append(json.loads(said.removeprefix(b"data: ")))
        client.sendall(b"0\r\n\r\n")
        assert b"event: end\n" in answer.read(200)
    for count, event in enumerate(found, 1):
        text = "".join(pieces[:count])
        expected = dict(zip(scorer.labels, scorer.predict_proba(text).tolist(), strict=True))
        assert event["num_tokens"] == len(scorer.tokenize([text])[0])
        assert {given["label"]: given["score"] for given in event["labels"]} == pytest.approx(
            dict(sorted(expected.items(), key=lambda item: -item[1])[:2]), abs=1e-5
        )


def test_many_documents_are_read_at_once_and_none_too_many(served, scorer):
    def read(seed):
        pieces = [f"{text_of(9, 10 * seed + n)} " for n in range(4)]
        body = "\n".join(map(json.dumps, pieces)).encode()
        status = 429
        while status == 429:
            status, said, _ = served.ask(body, path="/read")
        events = events_of(said)
        expected = [scorer.predict_proba("".join(pieces[: n + 1])).max() for n in range(4)]
        assert [name for name, _ in events] == ["prediction"] * 4 + ["end"]
        assert [event["labels"][0]["score"] for _, event in events[:4]] == pytest.approx(expected, abs=1e-5)
        return events

    with ThreadPoolExecutor(6) as clients:
        assert len(list(clients.map(read, range(12)))) == 12
    assert len(served.service.readings._free) == 2


def test_a_document_too_many_is_told_when_to_come_back(serve):
    served = serve(Limits(readings=1))
    with served.socket() as client:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        wait_until(lambda: not served.service.readings._free)
        status, said, headers = served.ask(b'"a"', path="/read")
        assert (status, list(said), "retry-after" in headers) == (429, ["error"], True)
        assert 'path="/read",status="429"' in served.ask(b"", path="/metrics", method="GET")[1]
    wait_until(lambda: served.service.readings._free)
    assert "event: end" in served.ask(b'"a"', path="/read")[1]


def test_a_document_is_closed_whose_client_is_gone_before_its_answer_begins(scorer):
    app = create_app(scorer, limits=Limits(readings=1))

    async def send(message):
        raise OSError

    path = {"path": "/read", "raw_path": b"/read", "query_string": b"", "root_path": ""}
    scope = {"type": "http", "method": "POST", "headers": [], "scheme": "http", "server": ("x", 80), **path}
    asyncio.run(app(scope, None, send))
    assert len(app.state.service.readings._free) == 1
    app.state.service.close()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"{", 400),
        (b"1", 400),
        (b'{"appends": "a"}', 400),
        (b'"\\ud800"', 400),
        (b'"' + b"a" * 20_001 + b'"', 413),
        (b'"' + b"a" * 900_000, 413),
    ],
)
def test_a_piece_that_is_none_ends_its_document_alone(served, line, status):
    ((last, said),) = events_of(served.ask(b'"a good start"\n' + line, path="/read")[1])[-1:]
    assert (last, said["status"]) == ("error", status)
    assert len(served.service.readings._free) == 2


def test_a_text_without_white_space_is_not_read_again_for_ever(served):
    pieces = "\n".join([json.dumps("a" * 15_000)] * 3)
    ((last, said),) = events_of(served.ask(pieces.encode(), path="/read")[1])[-1:]
    assert (last, said["status"], "/classify" in said["error"]) == ("error", 400, True)
    assert len(served.service.readings._free) == 2


def test_a_tokenizer_that_may_change_what_is_before_reads_no_more_than_it_can_again(serve, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["New York"])
    model = RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(tokenizer), num_labels=3)).eval()
    open_ended = serve(Limits(piece_characters=100), scorer=Scorer(model, tokenizer, dtype="float32", device="cpu"))
    pieces = [f"{text_of(6, seed)} " for seed in range(9)]
    events = events_of(open_ended.ask("\n".join(map(json.dumps, pieces)).encode(), path="/read")[1])
    read = list(itertools.takewhile(lambda end: end <= 100, itertools.accumulate(map(len, pieces))))
    assert [name for name, _ in events] == ["prediction"] * len(read) + ["error"]
    assert (events[-1][1]["status"], "/classify" in events[-1][1]["error"]) == (400, True)


class Reading:
    """Stands for `model.readers`: holds every batch back until it may go, and reads no "bad" piece."""

    def __init__(self):
        self.go, self.batches = threading.Event(), []

    def readers(self, tokenizer, number):
        return self

    def __getitem__(self, number):
        return SimpleNamespace(reset=lambda: None, num_tokens=7)

    def append(self, pieces):
        self.batches.append(list(pieces.values()))
        assert self.go.wait(SOON)
        if "bad" in pieces.values():
            raise MemoryError("too much")
        return torch.full((len(pieces), 2), 0.5)


def test_a_piece_that_breaks_breaks_no_other_and_batches_are_bounded():
    model = Reading()
    line = ReadingLine(model, None, 8)
    first, *numbers = [line.open() for _ in range(6)]
    held = line.append(first, "held")
    wait_until(lambda: len(model.batches) == 1)
    answers = [
        line.append(number, piece) for number, piece in zip(numbers, ["a", "bad", "b", "c" * 20_000, "d"], strict=True)
    ]
    model.go.set()
    assert held.result(SOON)[1] == 7
    for answer, piece in zip(answers, ["a", "bad", "b", "c", "d"], strict=True):
        if piece == "bad":
            with pytest.raises(MemoryError):
                answer.result(SOON)
        else:
            assert answer.result(SOON)[0].tolist() == [0.5, 0.5]
    assert all(sum(map(len, batch)) <= 20_001 for batch in model.batches)
    line.close()
    with pytest.raises(RefusedError) as refused:
        line.append(first, "late")
    assert refused.value.status == 503


def test_a_limit_in_the_environment_that_is_none_is_said(scorer, monkeypatch):
    monkeypatch.setenv("ROBERTA_GRU_MAX_SECONDS", "2.5")
    with pytest.raises(InputError, match="ROBERTA_GRU_MAX_SECONDS"):
        create_app(scorer)


@pytest.mark.parametrize("options", [{"max_length": 20}, {"agreement": 0.95}])
def test_what_reads_whole_texts_is_refused_where_texts_are_read_in_part(serve, folder, options, monkeypatch):
    monkeypatch.setattr(scorer_module, "find_threshold", lambda *_: 0.5)
    one = Scorer(str(folder), dtype="float32", device="cpu", **options)
    server = serve(scorer=one)
    assert server.ask({"inputs": TEXTS[0]})[0] == 200
    status, said, _ = server.ask({"inputs": TEXTS[0], "parameters": {"explain": True}})
    assert (status, next(iter(options)) in said["error"]) == (400, True)
    status, said, _ = server.ask(b'"a"', path="/read")
    assert (status, next(iter(options)) in said["error"]) == (501, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_is_tried_in_the_hosts_own_family(host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        probe.listen()
        port = probe.getsockname()[1]
        with refused(field="port"):
            check_port(host, port)
    check_port(host, port)


def test_a_document_that_falls_silent_is_given_up(impatient):
    with impatient.socket() as client:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
        said = b""
        while b'"status": 408' not in said:
            part = client.recv(1000)
            assert part
            said += part
    wait_until(lambda: len(impatient.service.readings._free) == 2)


def test_a_document_of_which_no_piece_ever_ends_is_given_up(impatient):
    with impatient.socket() as client:
        client.settimeout(0.3)
        client.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n")
        said, end = b"", time.monotonic() + SOON
        while b'"status": 408' not in said:
            assert time.monotonic() < end
            client.sendall(b"\n")
            with contextlib.suppress(TimeoutError):
                said += client.recv(1000)


def test_white_space_that_goes_on_and_on_is_as_long_as_any_other_text(serve):
    served = serve(Limits(piece_characters=100))
    pieces = [json.dumps(piece) for piece in ("some words", *[" " * 60] * 4, "more")]
    said = served.ask("\n".join(pieces).encode(), path="/read")[1]
    assert said.count("event: prediction") == 2
    assert said.count('"status": 400') == 1


def test_a_document_that_takes_too_long_keeps_no_other_waiting(serve, monkeypatch):
    monkeypatch.setenv("ROBERTA_GRU_MAX_SECONDS", "3")
    served, calls = serve(), []

    def be_slow(*_):
        calls.append(1)
        time.sleep(0.5)

    hook = served.service.scorer.engine.model.base_model.register_forward_pre_hook(be_slow)
    try:
        assert '"status": 503' in served.ask(json.dumps("slow " * 3900).encode(), path="/read")[1]
        assert "event: end" in served.ask(b'"splendid"', path="/read")[1]
    finally:
        hook.remove()
    assert len(calls) <= 12  # of some hundred


@pytest.mark.parametrize("top_k", ["abc", "0", "-1", "1.5", ""])
def test_a_number_of_labels_that_is_none_is_refused_as_all_else_is(served, top_k):
    status, said, _ = served.ask(b'"a"', path=f"/read?top_k={top_k}")
    assert (status, list(said)) == (400, ["error"])


def test_what_cannot_be_read_while_it_is_written_is_said(serve, folder):
    model = RobertaGRUForSequenceClassification(tiny_config(gru_bidirectional=True, vocab_size=400))
    scorer = Scorer(model, AutoTokenizer.from_pretrained(folder), dtype="float32", device="cpu")
    status, said, _ = serve(scorer=scorer).ask(b'"a"', path="/read")
    assert (status, "left to right" in said["error"]) == (501, True)


def test_a_stop_finishes_what_was_accepted(scorer, held):
    go, _ = held
    served = Served(create_app(scorer))
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(served.answer, {"inputs": TEXTS[:n]}) for n in range(1, 6)]
        wait_until(lambda: served.service.texts.num_texts == sum(range(1, 6)))
        with served.socket() as reader:
            reader.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
            wait_until(lambda: len(served.service.readings._free) < 64)
            served.server.should_exit = True
            wait_until(lambda: served.service.is_stopping)
            go.set()
            assert [len(answer.result(SOON)) for answer in answers] == list(range(1, 6))
        served.stop()
    with pytest.raises(ConnectionRefusedError):
        served.socket()


def test_an_app_that_has_stopped_leaves_the_model_as_it_was(scorer):
    hooks = scorer.engine.model.base_model._forward_pre_hooks
    before = list(hooks)
    served = Served(create_app(scorer))
    assert list(hooks) != before
    served.stop()
    assert list(hooks) == before


@pytest.mark.parametrize("log_texts", [False, True])
def test_texts_are_logged_only_where_that_is_asked_for(serve, scorer, monkeypatch, caplog, log_texts):
    caplog.set_level(logging.DEBUG)
    secret = "splendid secret"

    def fail(self, documents, progress=False):
        raise RuntimeError(f"cannot read {secret}")

    served = serve(log_texts=log_texts)
    served.answer({"inputs": secret})
    served.ask(f'{{"inputs": {secret}'.encode())
    served.ask(json.dumps(secret).encode(), path="/read")
    monkeypatch.setattr(Scorer, "logits_of_tokens", fail)
    status, said, _ = served.ask({"inputs": secret})
    assert (status, secret in said["error"]) == (500, False)
    assert "RuntimeError" in caplog.text
    assert (secret in caplog.text) == log_texts


def test_metrics_count_what_was_done(serve):
    served = serve()
    served.answer({"inputs": TEXTS[:3]})
    served.ask({"inputs": []})
    lines = served.ask(b"", path="/metrics", method="GET")[1].splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["roberta_gru_texts_total"] == "3.0"
    assert values['roberta_gru_requests_total{path="/classify",status="200"}'] == "1.0"
    assert values['roberta_gru_requests_total{path="/classify",status="400"}'] == "1.0"
    assert values["roberta_gru_waiting_texts"] == "0.0"


def test_the_interface_is_described(served):
    described = served.ask(b"", path="/openapi.json", method="GET")[1]
    assert {"/classify", "/read", "/health", "/metrics"} == set(described["paths"])
    assert "requestBody" in described["paths"]["/classify"]["post"]


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_stop(folder, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = "from modeling_roberta_gru.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", str(folder), "--port", str(port), "--dtype", "float32"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        for line in process.stderr:
            if line.startswith("Serving in"):
                break
        answer = None
        end = time.monotonic() + SOON
        while answer is None and time.monotonic() < end:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
            with contextlib.closing(connection), contextlib.suppress(ConnectionRefusedError):
                connection.request("POST", "/", json.dumps({"inputs": TEXTS[0]}))
                answer = connection.getresponse().status
        assert answer == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_load_benchmark_loses_no_answer_and_finds_none_wrong(load, folder, tmp_path):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS if text))
    output = tmp_path / "load.json"
    load.measure(str(folder), tmp_path / "texts.jsonl", 8, 1.0, [1, 4], "float32", None, output)
    load.soak(str(folder), tmp_path / "texts.jsonl", 8, 0.05, "float32", output)
    soak = json.loads(output.read_text())["soak"]
    assert soak["answered"] > 0 == soak["wrong"] == soak["lost"]
    assert len(soak["memory"]) == load.SOAK_PARTS
    runs = json.loads(output.read_text())["runs"]
    assert [(run["system"], run["clients"]) for run in runs] == [
        (system, clients) for system in ("serve", "pipeline") for clients in (1, 4, None)
    ]
    assert all(run["answered"] > 0 == run["wrong"] == run["lost"] for run in runs)
    assert len(load.table(json.loads(output.read_text()))) > len(runs)
