"""Serve a model over HTTP: `roberta-gru serve`, or the app by itself.

`/` and `/classify` take and give what the handler of an Inference Endpoint does (model_card/handler.py). `/read` reads
a document while it is being written. Texts of all requests wait in one line of bounded length, from which threads take
as many as are best read at once: a text of each request in turn, so that a long list holds nobody up.

Nothing that holds a text is logged unless that is asked for.
"""

import asyncio
import copy
import hmac
import json
import logging
import math
import os
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from threading import BoundedSemaphore, Condition, Thread
from types import ModuleType
from typing import Any

import numpy as np
import torch

from .data.documents import clean_html
from .errors import InputError, first_line, say, unknown_name
from .files import carried_module
from .inference.batch_scorer import cpus_given, torch_threads
from .inference.demo import check_port
from .inference.reading import TimeLimit
from .inference.scorer import Scorer
from .modeling_roberta_gru import SettlingTokenizer
from .training.loading import was_cleaned

HOST, PORT = "127.0.0.1", 8000
TOKEN = "ROBERTA_GRU_TOKEN"
"""The environment variable of the token that requests must carry."""
EXTRA = ("fastapi", "uvicorn", "prometheus_client")
JSON, EVENTS = "application/json", "text/event-stream"
GONE = "roberta_gru.is_gone"
"""In a request's scope: whether its client is."""

log = logging.getLogger("roberta_gru.serving")


@dataclass(frozen=True)
class Limits:
    """What a server takes at once; what a single request may hold is in `model_card/handler.py`.

    Attributes:
        waiting_texts: texts that were accepted and are not scored yet.
        waiting_tokens: their tokens.
        body_bytes: of a request.
        open_bytes: of all bodies that are being received or prepared.
        text_tokens: of a text. Unset: what a request may hold.
        seconds_to_send: in which a request's head, and then its body, must have come, and each piece of `/read`; in
            which a client whose answers pile up must read some of them, too.
        readings: documents that are read while they are written; and requests that wait to be explained.
        piece_characters: of a piece of such a document.
    """

    waiting_texts: int = 1024
    waiting_tokens: int = 1_000_000
    body_bytes: int = 8_000_000
    open_bytes: int = 64_000_000
    text_tokens: int | None = None
    seconds_to_send: float = 30.0
    readings: int = 64
    piece_characters: int = 20_000


CHARACTERS_AT_ONCE = (
    20_000  # of pieces that are read together: who waits for a short one must not wait for all long ones
)

READS_IN_PART = (
    "This server cuts texts (max_length) or stops early (agreement), and what reads them whole would contradict it. "
    "Start one without these options."
)


class RefusedError(Exception):
    """A refusal: its HTTP status and the message for the client."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _stopping() -> RefusedError:
    return RefusedError(503, "The server is stopping. Send the request to another one.", Retry_After="5")


class _Line:
    """Work that waits, and threads that take from it until it is closed and empty."""

    def __init__(self, num_threads: int):
        self._changed = Condition()
        self._is_closed = False
        # An app that nobody shuts down must not keep its process alive.
        self._threads = [Thread(target=self._run, daemon=True) for _ in range(num_threads)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Finish what was accepted, and end the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        if self._is_closed:
            raise _stopping()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (taken := self._take()):
                    if self._is_closed:
                        return
                    self._changed.wait()
            self._work(taken)

    def _take(self) -> list[Any]:
        raise NotImplementedError

    def _work(self, taken: list[Any]) -> None:
        raise NotImplementedError


class _Request:
    """The documents of one request, and how many of them are left to take and to score."""

    def __init__(self, documents: Sequence[np.ndarray], num_labels: int):
        self.documents = documents
        self.logits = np.empty((len(documents), num_labels), dtype=np.float32)
        self.num_taken, self.num_scored = 0, 0
        self.error: Exception | None = None
        self.answer: Future[np.ndarray] = Future()


class TextLine(_Line):
    """Texts that wait to be scored, a bounded number; as many threads as the scorer's engine has.

    Args:
        scorer: the model.
        limits: how many texts and tokens may wait.
        on_batch: called with the number of texts and tokens of every batch.
    """

    def __init__(
        self, scorer: Scorer, limits: Limits = Limits(), on_batch: Callable[[int, int], object] = lambda *_: None
    ):
        self.scorer, self.limits, self.on_batch = scorer, limits, on_batch
        self.num_texts, self.num_tokens = 0, 0  # waiting, or being scored
        self.tokens_per_second = 1000.0  # lately
        self._requests: deque[_Request] = deque()
        super().__init__(scorer.engine.num_workers)

    def submit(self, documents: Sequence[np.ndarray]) -> "Future[np.ndarray]":
        """Queue the token ids of a request's texts; the future holds their logits (n, C). Cancelled, they are left.

        Raises:
            RefusedError: if too much is waiting, or the line is closed.
        """
        request = _Request(documents, len(self.scorer.labels))
        num_tokens = sum(map(len, documents))
        with self._changed:
            self._accept()
            texts, tokens = self.num_texts + len(documents), self.num_tokens + num_tokens
            # What is larger than the line itself waits alone.
            if self.num_texts and (texts > self.limits.waiting_texts or tokens > self.limits.waiting_tokens):
                seconds = str(min(60, max(1, round(self.num_tokens / self.tokens_per_second))))
                raise RefusedError(429, "Too many texts are waiting. Send the request later.", Retry_After=seconds)
            self.num_texts, self.num_tokens = texts, tokens
            self._requests.append(request)
            self._changed.notify_all()
        return request.answer

    def _take(self) -> list[tuple[_Request, int]]:
        """Take a text of each request in turn, until there are enough tokens for a batch."""
        taken: list[tuple[_Request, int]] = []
        num_tokens = 0
        while self._requests:
            request = self._requests.popleft()
            if request.answer.cancelled():
                left = request.documents[request.num_taken :]
                self._forget(len(left), sum(map(len, left)))
                continue
            size = len(request.documents[request.num_taken])
            if taken and num_tokens + size > self.scorer.tokens_per_batch:
                self._requests.appendleft(request)
                break
            taken.append((request, request.num_taken))
            num_tokens += size
            request.num_taken += 1
            if request.num_taken < len(request.documents):
                self._requests.append(request)
        return taken

    def _work(self, taken: list[tuple[_Request, int]]) -> None:
        documents = [request.documents[row] for request, row in taken]
        num_tokens = sum(map(len, documents))
        started = time.perf_counter()
        try:
            for (request, row), scored in zip(taken, self.scorer.logits_of_tokens(documents), strict=True):
                request.logits[row] = scored
        except Exception:  # whatever it is: none suffers from a text beside its own
            for request, row in taken:
                self._score_alone(request, row)
        seconds = time.perf_counter() - started
        self.on_batch(len(documents), num_tokens)
        with self._changed:
            self._forget(len(documents), num_tokens)
            rate = num_tokens * len(self._threads) / max(seconds, 1e-6)
            self.tokens_per_second += (rate - self.tokens_per_second) / 8
            for request, _ in taken:
                request.num_scored += 1
            done = {request for request, _ in taken if request.num_scored == len(request.documents)}
        for request in done:
            _settle(request.answer, request.logits, request.error)

    def _score_alone(self, request: _Request, row: int) -> None:
        try:
            request.logits[row] = self.scorer.logits_of_tokens([request.documents[row]])[0]
        except Exception as error:  # those who wait are told
            request.error = error

    def _forget(self, num_texts: int, num_tokens: int) -> None:
        self.num_texts -= num_texts
        self.num_tokens -= num_tokens


class ReadingLine(_Line):
    """Documents that are read while they are written: what was appended to any of them is read together.

    Args:
        model: a RoBERTa-GRU that reads from left to right.
        tokenizer: its own.
        num_readings: how many documents may be open.
        limit: a context that ends what takes too long, by TimeoutError.

    Raises:
        ValueError: if the model cannot read what is still being written.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        num_readings: int,
        limit: Callable[[], AbstractContextManager[object]] = nullcontext,
    ):
        self._readers, self._limit = model.readers(tokenizer, num_readings), limit
        self._free = deque(range(num_readings))
        self._is_new: set[int] = set()
        self._pieces: dict[int, tuple[str, Future[tuple[np.ndarray, int]]]] = {}
        super().__init__(1)

    def open(self) -> int:
        """Open a document, and return its number.

        Raises:
            RefusedError: if too many are open, or the line is closed.
        """
        with self._changed:
            self._accept()
            if not self._free:
                raise RefusedError(429, "Too many documents are open. Open this one later.", Retry_After="10")
            number = self._free.popleft()
            self._is_new.add(number)
        return number

    def append(self, number: int, piece: str) -> "Future[tuple[np.ndarray, int]]":
        """Queue a piece of a document, one at a time; the future holds probabilities (C,) and the number of tokens."""
        answer: Future[tuple[np.ndarray, int]] = Future()
        with self._changed:
            self._accept()
            self._pieces[number] = piece, answer
            self._changed.notify_all()
        return answer

    def release(self, number: int) -> None:
        """Forget a document."""
        with self._changed:
            self._pieces.pop(number, None)
            self._free.append(number)

    def _take(self) -> list[tuple[int, str, Future]]:
        taken: list[tuple[int, str, Future]] = []
        size = 0
        while self._pieces:
            number, (piece, answer) = next(iter(self._pieces.items()))
            size += len(piece)
            if taken and size > CHARACTERS_AT_ONCE:
                break
            del self._pieces[number]
            taken.append((number, piece, answer))
        for number in self._is_new.intersection(number for number, _, _ in taken):
            # Here, where nothing is being read: what the number stood for before may have been given up meanwhile.
            self._readers[number].reset()
            self._is_new.remove(number)
        return taken

    def _work(self, taken: list[tuple[int, str, Future]]) -> None:
        pieces = {number: piece for number, piece, _ in taken}
        try:
            with self._limit():
                probabilities = self._readers.append(pieces).float().cpu().numpy()
        except Exception as error:  # whatever it is: none suffers from a piece beside its own, and its client is told
            if len(taken) == 1:
                _settle(taken[0][2], None, error)
                return
            for one in taken:
                self._work([one])
            return
        for (number, _, answer), row in zip(taken, probabilities, strict=True):
            _settle(answer, (row, self._readers[number].num_tokens), None)


def _settle(answer: Future, value: Any, error: Exception | None) -> None:
    """Give a future its value or error, unless nobody waits for it any more."""
    if answer.set_running_or_notify_cancel():
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)


class Service:
    """What answers requests, apart from HTTP.

    Args:
        scorer: the model.
        limits: what is taken at once.
        on_batch: called with the number of texts and tokens of every batch.
        cleans: whether HTML is removed from texts; not from those that are still being written.
    """

    def __init__(self, scorer: Scorer, limits: Limits, on_batch: Callable[[int, int], object], cleans: bool = False):
        self.scorer, self.limits, self.cleans = scorer, limits, cleans
        # Its own: a fast tokenizer keeps cut and padding as settings, and the scorer's may be set to cut.
        self.tokenizer = copy.deepcopy(scorer.tokenizer)
        self.handler = _handler_of(scorer.engine.model, self.tokenizer, scorer.engine.device)
        self.most_tokens = min(limits.text_tokens or self.handler.max_tokens, self.handler.max_tokens)
        self.open_bytes = 0
        self.is_stopping = False
        self.texts = TextLine(scorer, limits, on_batch)
        self.preparation, self.explanation = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.explanations_left = BoundedSemaphore(limits.readings)
        self.why_not_read = f"A {scorer.engine.model.config.model_type} cannot read what is still being written."
        self.readings: ReadingLine | None = None
        is_ours = hasattr(scorer.engine.model, "readers")
        self.reads_in_part = is_ours and not (scorer.max_length is None and scorer.agreement is None)
        if self.reads_in_part:
            self.why_not_read = READS_IN_PART
        elif is_ours:
            tokenizer = copy.deepcopy(self.tokenizer)
            limit = partial(self.handler.time.seconds, self.handler.max_seconds)
            try:
                self.readings = ReadingLine(scorer.engine.model, tokenizer, limits.readings, limit)
                self.settling = SettlingTokenizer(tokenizer, scorer.engine.model.config)
            except ValueError as error:
                self.why_not_read = str(error)

    def prepare(self, body: bytes) -> tuple[Any, Any, list[np.ndarray]]:
        """Parse, check and tokenise the body of a request: its JSON, the request, and the ids of its texts.

        Raises:
            RefusedError: if there is a mistake in it.
        """
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, f"request: not JSON ({_why_unreadable(error)}).") from None
        try:
            request = self.handler.read(data)
            if self.cleans:
                texts = [clean_html(text) for text in request.texts]
                data["inputs"] = texts[0] if request.is_single else texts
                request = request._replace(texts=texts)
            if request.parameters.explain and self.reads_in_part:
                raise RefusedError(400, f"parameters.explain: {READS_IN_PART}")
            left, documents = self.handler.max_tokens, []
            for row, text in enumerate(request.texts):
                (document,) = self._tokenise(text, row, min(left, self.most_tokens))
                documents.append(document)
                left -= len(document)
        except ValueError as error:  # InputError, and the handler's own
            raise RefusedError(400, str(error)) from None
        return data, request, documents

    def _tokenise(self, text: str, row: int, most: int) -> list[np.ndarray]:
        try:
            documents = self.scorer.tokenize([text], most)
        except InputError:
            raise RefusedError(
                400,
                f"inputs[{row}]: more than {self.most_tokens:,} tokens, or {self.handler.max_tokens:,} with those "
                "before it, which is what a request may hold in all. Send less, or several requests.",
            ) from None
        if not len(documents[0]):  # of a recurrent net, whose tokenizer adds no special tokens
            raise RefusedError(400, f"inputs[{row}]: the text has no words. Leave it out.")
        return documents

    def submit(self, data: Any, request: Any, documents: list[np.ndarray]) -> Future:
        """Queue a request; the future holds its answer, or its logits.

        Raises:
            RefusedError: if too much is waiting.
        """
        if not request.parameters.explain:
            return self.texts.submit(documents)
        if not self.explanations_left.acquire(blocking=False):
            raise RefusedError(429, "Too many texts wait to be explained. Send the request later.", Retry_After="10")
        answer = self.explanation.submit(self.handler, data)
        answer.add_done_callback(lambda _: self.explanations_left.release())
        return answer

    def close(self) -> None:
        """Finish what was accepted, and leave the model as it was."""
        self.is_stopping = True
        self.preparation.shutdown()
        self.texts.close()
        self.explanation.shutdown()
        if self.readings is not None:
            self.readings.close()
        self.handler.time.close()


@cache
def load_handler() -> ModuleType:
    """Import handler.py, which travels with models."""
    return carried_module("model_card/handler.py")


def _handler_of(model: Any, tokenizer: Any, device: torch.device) -> Any:
    """Return an endpoint's handler for a model that is loaded already."""
    handler = load_handler()

    class Handler(handler.EndpointHandler):  # type: ignore[name-defined]
        def __init__(self) -> None:
            try:
                handler.Contract.__init__(self, model.config)
            except ValueError as error:  # of an environment variable
                raise InputError(str(error)) from None
            self.model, self.tokenizer, self.device = model, tokenizer, device
            self.time = TimeLimit(model)
            self.tokenizer("", truncation=False, padding=False)

    return Handler()


class Measures:
    """What a server has done, as Prometheus reads it."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self.prometheus, self.registry = prometheus, prometheus.CollectorRegistry()
        registry = self.registry
        self.answered = prometheus.Counter(
            "roberta_gru_requests", "Requests answered.", ["path", "status"], registry=registry
        )
        self.seconds = prometheus.Histogram(
            "roberta_gru_request_seconds",
            "From a request's head to its answer.",
            ["path"],
            registry=registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
        )
        self.texts = prometheus.Counter("roberta_gru_texts", "Texts scored.", registry=registry)
        self.tokens = prometheus.Counter("roberta_gru_tokens", "Tokens scored.", registry=registry)
        self.batches = prometheus.Histogram(
            "roberta_gru_batch_texts", "Texts of a batch.", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )

    def watch(self, service: Service) -> None:
        """Tell from now on how many texts wait."""
        waiting = self.prometheus.Gauge(
            "roberta_gru_waiting_texts", "Texts accepted and not scored yet.", registry=self.registry
        )
        waiting.set_function(lambda: service.texts.num_texts)

    def on_batch(self, texts: int, tokens: int) -> None:
        """Count a batch that was scored."""
        self.texts.inc(texts)
        self.tokens.inc(tokens)
        self.batches.observe(texts)

    def on_answer(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.answered.labels(path, status).inc()
        self.seconds.labels(path).observe(seconds)

    def page(self) -> tuple[bytes, str]:
        """Return the page that Prometheus asks for, and its media type."""
        return self.prometheus.generate_latest(self.registry), self.prometheus.CONTENT_TYPE_LATEST


def create_app(
    model: str | Scorer,
    *,
    limits: Limits = Limits(),
    token: str | None = None,
    log_texts: bool = False,
    clean_html: bool | None = None,
    **options: Any,
) -> Any:
    """Make the app that serves a model, for any ASGI server.

    Args:
        model: a scorer, or what [`Scorer`] takes: a run's folder, a saved model's folder or a Hub id.
        limits: what is taken at once.
        token: what requests must carry as `Authorization: Bearer …`, but those to `/health` and `/openapi.json`.
            Unset: that in the environment variable ROBERTA_GRU_TOKEN; there none, everybody is served.
        log_texts: log every text with its answer, and errors with all that they say.
        clean_html: remove HTML from texts, but not from those that are still being written. Unset: if the model of
            that name was trained so.
        options: of [`Scorer`], with a name.

    Raises:
        InputError: if the extra `serve` is not installed, the token is empty, or there is no such model.
    """
    check_installed()
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response, StreamingResponse

    token = find_token(token)
    scorer = model if isinstance(model, Scorer) else Scorer(model, **options)
    measures = Measures()
    if clean_html is None:
        clean_html = isinstance(model, str) and was_cleaned(model)
    service = Service(scorer, limits, measures.on_batch, clean_html)
    measures.watch(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.get_running_loop().run_in_executor(None, service.close)

    app = FastAPI(
        title="RoBERTa-GRU",
        description="Classifies texts of any length.",
        lifespan=lifespan,
        docs_url=None,  # these pages fetch their code from elsewhere
        redoc_url=None,
    )
    app.state.service = service

    async def answering(request: Request, answer: Callable[[], Any]) -> Response:
        """Answer, whatever happens; and count it."""
        path, started = request.scope["route"].path, time.perf_counter()
        try:
            check_token(request.headers.get("authorization"), token)
            response = await answer()
        except RefusedError as refusal:
            response = JSONResponse({"error": refusal.message}, refusal.status, refusal.headers)
        except Exception as error:
            response = JSONResponse({"error": _log_failure(error, path, log_texts)}, 500)
        measures.on_answer(path, response.status_code, time.perf_counter() - started)
        return response

    @app.post("/", openapi_extra=CLASSIFY, include_in_schema=False)
    @app.post("/classify", openapi_extra=CLASSIFY, responses=REFUSALS)
    async def classify(request: Request) -> Response:
        """Classify a text or a list of texts."""

        async def answer() -> Response:
            result, texts = await _classify(service, request)
            if log_texts:
                log.info("%s", json.dumps({"texts": texts, "answer": result}))
            return JSONResponse(result)

        return await answering(request, answer)

    class EventStream(StreamingResponse):
        """A stream that leaves the request's body to whoever reads it, and does not listen for its end itself."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                with suppress(OSError):  # the client is gone
                    await self.stream_response(send)
            finally:
                await self.body_iterator.aclose()  # type: ignore[attr-defined]

    @app.post("/read", openapi_extra=READ, responses=REFUSALS)
    async def read(request: Request) -> Response:
        """Read a document while it is being written: a prediction after every piece."""

        async def answer() -> Response:
            if service.is_stopping:
                raise _stopping()
            if service.readings is None:
                raise RefusedError(501, service.why_not_read)
            events = _read(service, service.readings, request, _top_k(request), log_texts)
            await anext(events)  # or a refusal: there is a status for it as long as no event was sent
            return EventStream(events, media_type=EVENTS, headers={"Cache-Control": "no-store"})

        return await answering(request, answer)

    @app.get("/health")
    async def health() -> Response:
        """Say whether requests are taken, and what model answers."""
        said = {"status": "stopping" if service.is_stopping else "ok", "labels": scorer.labels}
        return JSONResponse({**said, "engine": scorer.description}, 503 if service.is_stopping else 200)

    @app.get("/metrics")
    async def metrics_page(request: Request) -> Response:
        """Say what was done, in the form that Prometheus reads."""

        async def answer() -> Response:
            page, media_type = measures.page()
            return Response(page, media_type=media_type)

        return await answering(request, answer)

    return app


def serve(
    model: str | Scorer,
    host: str = HOST,
    port: int = PORT,
    *,
    limits: Limits = Limits(),
    log_texts: bool = False,
    clean_html: bool | None = None,
    **options: Any,
) -> None:
    """Serve a model until interrupted; then finish what was accepted.

    Args:
        model: as [`create_app`] takes it.
        host: the address to listen on; 0.0.0.0 lets other machines in.
        port: the port to listen on.
        limits: what is taken at once.
        log_texts: log every text with its answer.
        clean_html: as [`create_app`] takes it.
        options: of [`Scorer`], with a name.

    Raises:
        InputError: if the extra `serve` is not installed, the port is not free, or there is no such model.
    """
    check_installed()
    check_port(host, port)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    log.setLevel(logging.INFO)
    app = create_app(model, limits=limits, log_texts=log_texts, clean_html=clean_html, **options)
    say(f"Serving in {app.state.service.scorer.description}: http://{host}:{port}/classify", error=True)
    if host not in (HOST, "localhost", "::1") and not os.environ.get(TOKEN):
        say(
            f"Anyone who can reach {host} can use this server. Set {TOKEN} in the environment to require a token.",
            error=True,
        )
    with suppress(KeyboardInterrupt):
        make_server(app, host, port).run()


def app(arguments: Mapping[str, Any]) -> Any:
    """Build what Ray Serve runs: `serve run modeling_roberta_gru.serving:app model=/shared/model max_replicas=8`.

    Every replica is the app with a model of its own; Ray has as many as the requests that are open ask for. The token
    is that in the environment variable ROBERTA_GRU_TOKEN where this is called; replicas may have another environment.

    Args:
        arguments: `model`, which every replica must be able to read; `min_replicas` (1) and `max_replicas` (1);
            `num_cpus` (1) and `num_gpus` (0) of a replica; `dtype` and `device` of [`Scorer`].

    Raises:
        InputError: if the model is missing, an argument is unknown or no number, the token is empty, or Ray Serve is
            not installed.
    """
    numbers: dict[str, float] = {"min_replicas": 1, "max_replicas": 1, "num_cpus": 1, "num_gpus": 0}
    known = ["model", "dtype", "device", *numbers]
    for name, value in arguments.items():
        if name not in known:
            raise unknown_name("argument", name, known)
        if name in numbers:
            try:
                numbers[name] = float(value)
            except (TypeError, ValueError):
                numbers[name] = math.nan
            is_whole = numbers[name].is_integer() or not name.endswith("replicas")
            if not (math.isfinite(numbers[name]) and is_whole):
                raise InputError(f"{name}={value} is not a {'whole ' * (not is_whole)}number.", field=name)
    if not arguments.get("model"):
        raise InputError("Name a model that every replica can read: model=/shared/model.", field="model")
    options = {name: arguments[name] for name in ("dtype", "device") if name in arguments}
    least, most = int(numbers["min_replicas"]), int(numbers["max_replicas"])
    if not 0 <= least <= most or most < 1:
        raise InputError(
            f"min_replicas={least} and max_replicas={most}: give 0 <= min_replicas <= max_replicas.",
            field="min_replicas",
        )

    check_installed()
    try:
        from ray import serve as ray_serve
    except ImportError as error:
        raise InputError(f"Ray Serve is not installed ({first_line(error)}): pip install 'ray[serve]'.") from None
    token = find_token()
    if token is None:
        say(f"Anyone who can reach the cluster can use this service. Set {TOKEN} where it is run.", error=True)

    def build() -> Any:
        with torch_threads(cpus_given()):
            return create_app(arguments["model"], token=token, **options)

    deployment = ray_serve.deployment(
        ray_serve.ingress(build)(),
        name="roberta-gru",
        # The app has a queue of its own, from which batches are made: Ray's must not keep it empty.
        max_ongoing_requests=256,
        autoscaling_config={"min_replicas": least, "max_replicas": most, "target_ongoing_requests": 32},
        ray_actor_options={"num_cpus": numbers["num_cpus"], "num_gpus": numbers["num_gpus"]},
    )
    return deployment.bind()


def make_server(app: Any, host: str = HOST, port: int = PORT, **settings: Any) -> Any:
    """Make the server of an app: a `uvicorn.Server` that lets no silent or deaf connection stay.

    Args:
        app: of [`create_app`].
        host: the address to listen on.
        port: the port to listen on.
        settings: of `uvicorn.Config`.
    """
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    service: Service = app.state.service
    _allow_connections()

    class Connection(H11Protocol):
        """A connection that is closed where no request comes on it in time, or nobody reads its answers."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch(None)

        def _watch(self, before: Any) -> None:
            cycle = self.cycle
            is_answering = cycle is not None and not cycle.response_complete
            if self.transport.is_closing():
                return
            if cycle is before and not is_answering and (before is not None or self._was_silent):
                self.transport.close()
                return
            self._was_silent = cycle is None
            self.loop.call_later(service.limits.seconds_to_send, self._watch, None if is_answering else cycle)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait_for_reader(self.transport.get_write_buffer_size())

        def resume_writing(self) -> None:
            self._end.cancel()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            scope: Any = self.scope
            if scope is not None:
                scope[GONE] = True

        def _wait_for_reader(self, num_bytes: int) -> None:
            self._end = self.loop.call_later(service.limits.seconds_to_send, self._end_if_deaf, num_bytes)

        def _end_if_deaf(self, before: int) -> None:
            left = self.transport.get_write_buffer_size()
            if left < before:
                self._wait_for_reader(left)
            else:
                self.transport.abort()

        _was_silent = False

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: Any = None) -> None:
            service.is_stopping = True  # ends what is read while it is written
            await super().shutdown(sockets)

    defaults = {"http": Connection, "ws": "none", "log_level": "warning", "server_header": False, "backlog": 2048}
    return Server(uvicorn.Config(app, host, port, **{**defaults, "timeout_keep_alive": 30, **settings}))


def check_installed() -> None:
    """Check that the extra `serve` is installed.

    Raises:
        InputError: if not.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise InputError(f"Serving needs {' and '.join(missing)}: pip install 'roberta-gru[serve]'.")


def find_token(token: str | None = None) -> str | None:
    """Return the token that requests must carry: the given one, or that in the environment; None without any.

    Raises:
        InputError: if it cannot be used.
    """
    token = os.environ.get(TOKEN) if token is None else token
    if token is not None and not token.strip():
        raise InputError(
            f"The token in {TOKEN} is empty: give one, or unset the variable to serve everybody.", field=TOKEN
        )
    if token is not None and not token.isascii():  # clients encode others in different ways
        raise InputError(f"The token in {TOKEN} has characters beyond ASCII: choose another.", field=TOKEN)
    return token


def check_token(header: str | None, token: str | None) -> None:
    """Compare a request's token with the server's, in a time that does not tell how much of it is right.

    Raises:
        RefusedError: if it is another.
    """
    if token is None:
        return
    kind, _, given = (header or "").partition(" ")
    is_same = hmac.compare_digest(given.strip().encode(), token.strip().encode())
    if kind.lower() != "bearer" or not is_same:
        raise RefusedError(
            401, "The token is wrong or missing: send Authorization: Bearer …", WWW_Authenticate="Bearer"
        )


async def _classify(service: Service, request: Any) -> tuple[Any, list[str]]:
    """Return the answer to a request, and its texts."""
    if service.is_stopping:
        raise _stopping()
    most = service.handler.max_seconds
    end = time.monotonic() + most
    body = await _receive(service, request)
    gone = asyncio.ensure_future(_wait_until_gone(request))

    async def wait_for(work: Future) -> Any:
        answer = asyncio.wrap_future(work)
        await asyncio.wait({answer, gone}, timeout=end - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        work.cancel()  # at once: what was not begun of it when the client is told never will be
        answer.cancel()
        if gone.done():
            raise RefusedError(499, "The client is gone.")
        raise RefusedError(503, f"inputs: they take longer than {most:,} seconds. Send less.", Retry_After="30")

    try:
        try:
            data, asked, documents = await wait_for(service.preparation.submit(service.prepare, body))
        finally:
            service.open_bytes -= len(body)
        result = await wait_for(service.submit(data, asked, documents))
    except load_handler().RequestError as error:
        raise RefusedError(400, str(error)) from None
    finally:
        gone.cancel()
    return (result if asked.parameters.explain else service.handler.answer(asked, result)), asked.texts


async def _receive(service: Service, request: Any) -> bytes:
    """Receive a body, as long as it is neither too large nor too slow; `open_bytes` then counts its bytes."""
    limits = service.limits
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds_to_send):
            async for part in request.stream():
                service.open_bytes += len(part)
                body += part
                if len(body) > limits.body_bytes:
                    raise _too_large(limits)
                if service.open_bytes > limits.open_bytes:
                    raise RefusedError(429, "Too much is being sent. Send the request later.", Retry_After="5")
    except BaseException as error:
        service.open_bytes -= len(body)
        if isinstance(error, TimeoutError):
            raise RefusedError(408, "The body did not arrive in time. Send the request again.") from None
        if type(error).__name__ == "ClientDisconnect":
            raise RefusedError(499, "The client is gone.") from None
        raise
    return bytes(body)


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"More than {limits.body_bytes:,} bytes. Send less, or several requests.")


async def _wait_until_gone(request: Any) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _top_k(request: Any) -> int | None:
    """Return how many labels a request asks for, the best first; None for all."""
    given = request.query_params.get("top_k")
    if given is None:
        return None
    if not (given.isdecimal() and int(given[:10]) >= 1):
        raise RefusedError(400, "top_k: not a whole number of at least 1. Leave it out for all labels.")
    return int(given[:10])


async def _read(
    service: Service, readings: ReadingLine, request: Any, top_k: int | None, log_texts: bool
) -> AsyncIterator[str]:
    """Yield nothing once a document is open, an event after every piece of it, and one at its end.

    Raises:
        RefusedError: if none can be opened.
    """
    number = readings.open()
    event: dict[str, Any] = {}
    try:
        yield ""
        num_characters = 0
        open_text = ""  # which is read again with every piece, since what follows may change its tokens
        async for piece in _pieces(service, request):
            if GONE in request.scope:
                return
            num_characters += len(piece)
            open_text += piece
            open_text = open_text[service.settling.find_settled(open_text) :]
            if len(open_text) > service.limits.piece_characters:
                what = "in which no word ends" if service.settling.separators else "for this model's tokenizer"
                most = f"{service.limits.piece_characters:,}"
                raise RefusedError(400, f"More than {most} characters {what}. Send them to /classify.")
            if num_characters > service.handler.max_characters:
                most = f"{service.handler.max_characters:,}"
                raise RefusedError(400, f"More than {most} characters. Read the rest as another document.")
            answer = asyncio.wrap_future(readings.append(number, piece))
            async with asyncio.timeout(service.handler.max_seconds):
                probabilities, num_tokens = await answer
            best = (-probabilities).argsort(kind="stable")[:top_k].tolist()
            event = {"labels": service.handler.named(probabilities, best), "num_tokens": num_tokens}
            if log_texts:
                log.info("%s", json.dumps({"piece": piece, **event}))
            yield _event("prediction", event)
        yield _event("end", event)
    except RefusedError as refusal:
        yield _event("error", {"error": refusal.message, "status": refusal.status})
    except TimeoutError:
        yield _event("error", {"error": "The document takes too long.", "status": 503})
    except Exception as error:
        yield _event("error", {"error": _log_failure(error, "/read", log_texts), "status": 500})
    finally:
        readings.release(number)


async def _pieces(service: Service, request: Any) -> AsyncIterator[str]:
    """Yield the pieces of a document as they come, a line each."""
    limits = service.limits
    most = 12 * limits.piece_characters + 100  # a character may be written as \ud83d\ude00
    received = bytearray()
    is_whole = False
    end = time.monotonic() + limits.seconds_to_send
    while not is_whole:
        message = await _next_message(service, request, end)
        if message["type"] == "http.disconnect":
            return
        received += message.get("body", b"")
        is_whole = not message.get("more_body", False)
        *lines, received = received.split(b"\n")
        if any(len(line) > most for line in [*lines, received]):
            raise _piece_too_large(limits)
        for line in [*lines, received] if is_whole else lines:
            if line.strip():
                yield _piece(bytes(line), limits)
                end = time.monotonic() + limits.seconds_to_send


async def _next_message(service: Service, request: Any, end: float) -> dict[str, Any]:
    """Wait for more of a body, but not beyond `end`, of the monotonic clock, and not longer than the server runs."""
    message = asyncio.ensure_future(request.receive())
    try:
        while not message.done():
            if service.is_stopping:
                raise RefusedError(503, "The server is stopping. Open the document on another one.")
            if time.monotonic() > end:
                raise RefusedError(408, "No piece arrived in time. Send an empty one from time to time.")
            await asyncio.wait({message}, timeout=min(0.5, service.limits.seconds_to_send))
    finally:
        if not message.done():
            message.cancel()
    return message.result()


def _piece(line: bytes, limits: Limits) -> str:
    try:
        given = json.loads(line)
        piece = given["append"] if isinstance(given, dict) and list(given) == ["append"] else given
        if not isinstance(piece, str):
            raise ValueError('a line is {"append": "a piece"}, or the piece alone')
        piece.encode("utf-8")
    except (ValueError, RecursionError) as error:
        said = "half a character" if isinstance(error, UnicodeEncodeError) else _why_unreadable(error)
        raise RefusedError(400, f"A line is not a piece of text ({said}).") from None
    if len(piece) > limits.piece_characters:
        raise _piece_too_large(limits)
    return piece


def _piece_too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"A piece may have {limits.piece_characters:,} characters. Send it in several.")


def _log_failure(error: Exception, path: str, log_texts: bool) -> str:
    """Log where the server failed, with the error's message only if texts may be logged; return what is told."""
    said = traceback.format_exc() if log_texts else "".join(traceback.format_tb(error.__traceback__))
    log.error("%s while answering %s\n%s", type(error).__name__, path, said)
    return "The server failed; its log says where."


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _why_unreadable(error: BaseException) -> str:
    # Of a JSON error the place only: the rest of others' messages may repeat what was sent.
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error).partition("\n")[0][:200]


def _allow_connections() -> None:
    """Allow as many open connections as the system lets this process have."""
    with suppress(ImportError, ValueError, OSError):  # not everywhere, and not for everybody
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": {JSON: {"schema": _ERROR}}}
    for status, what in {
        400: "There is a mistake in the request.",
        401: "The token is wrong or missing.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        429: "Too much is waiting: Retry-After says when to come back.",
        503: "The request takes too long, or the server is stopping.",
    }.items()
}
CLASSIFY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "additionalProperties": False,
                    "properties": {
                        "inputs": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
                        "parameters": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "top_k": {"type": ["integer", "null"], "minimum": 1},
                                "function_to_apply": {"enum": ["softmax", "sigmoid", "none", None]},
                                "explain": {"type": "boolean"},
                            },
                        },
                    },
                },
                "example": {"inputs": "At first I adored it. In the end I thought it awful."},
            }
        },
    }
}
READ: dict[str, Any] = {
    "parameters": [
        {
            "name": "top_k",
            "in": "query",
            "required": False,
            "description": "So many labels, the likeliest first. Left out: all.",
            "schema": {"type": "integer", "minimum": 1},
        }
    ],
    "requestBody": {
        "required": True,
        "description": "JSON Lines: a piece of the document each, sent when it is written.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": '{"append": "At first "}\n'}},
    },
}
