# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""Serve the model in this folder from a Hugging Face Inference Endpoint.

Needs torch and transformers (4.57 to 5.x) only, and reading.py beside it. The endpoint's server finds this file beside
the weights, builds `EndpointHandler(folder)` once and calls it with the parsed JSON of every request
(https://github.com/huggingface/huggingface-inference-toolkit). What a call raises, the server answers with status 400
and `{"error": message}`.

Request:
    inputs              a text, or a list of texts; of any length, "" included (but for recurrent nets)
    parameters          optional, and so is each of these:
        top_k               how many labels to return, the best first; null: all of them. Unset: the best one
        function_to_apply   "softmax", "sigmoid" or "none". Unset: by the kind of problem, as transformers does
        explain             true: also how the scores moved in the course of the text

Answer, as `pipeline("text-classification")` gives it:
    one text            [{"label": …, "score": …}], with as many entries as `top_k` asks for
    a list              an entry a text: {"label": …, "score": …}, or a list of these where `top_k` is given
    with `explain`      an object a text:
        labels              [{"label": …, "score": …}, …]
        running             [{"end": …, "scores": […]}, …]: the scores of these labels, in their order, once the text
                            up to character `end` was read
        turns               [{"label": …, "start": …, "end": …, "before": …, "after": …}, …]: the word from character
                            `start` to `end` turned the prediction towards this label, or, of several labels a text,
                            about it; its score went from `before` to `after`

Characters are Unicode code points, the first is number 0. The encoder looks ahead as far as its window goes, so the
scores may move before the word that moved them; a GRU that reads both ways has read the whole text before.

Limits, each changed by an environment variable of the endpoint:
    ROBERTA_GRU_MAX_TEXTS        texts a request (256)
    ROBERTA_GRU_MAX_CHARACTERS   characters a request, all texts together (1,000,000)
    ROBERTA_GRU_MAX_TOKENS       tokens a request, all texts together (300,000)
    ROBERTA_GRU_MAX_SECONDS      seconds that a request may take (120)
    ROBERTA_GRU_BATCH_TOKENS     tokens read at once, padding included; one text may hold more (8,192)
    ROBERTA_GRU_MAX_POINTS       entries of `running`, and of `turns` (200)
"""

import os
import reprlib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer

try:
    from modeling_roberta_gru.inference import reading
except ImportError:  # not installed: a copy lies beside this file
    import reading  # type: ignore[import-not-found, no-redef]  # the server puts this folder on the path

MAX_TEXTS = 256
MAX_CHARACTERS = 1_000_000
MAX_TOKENS = 300_000
MAX_SECONDS = 120
BATCH_TOKENS = 8_192
MAX_POINTS = 200

FIELDS = ("inputs", "parameters")
LONGEST_NAME = 40
"""Of an unknown field's name, no more is read or repeated."""
FUNCTIONS = ("softmax", "sigmoid", "none")
PROBLEM_OF = dict(zip(FUNCTIONS, (reading.SINGLE_LABEL, reading.MULTI_LABEL, reading.REGRESSION), strict=True))
"""The kind of problem whose scores a function gives."""


class RequestError(ValueError):
    """A mistake in a request: the field, what is wrong with it, and the way out."""

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field}: {problem}")


class Parameters(NamedTuple):
    """What a request may ask for."""

    top_k: int | None = 1
    function_to_apply: str | None = None
    explain: bool = False


class Request(NamedTuple):
    """A request without a mistake."""

    texts: list[str]
    parameters: Parameters
    is_single: bool
    """Whether it holds a text, and no list."""
    asks_top_k: bool


class Contract:
    """What a request may hold, and what its answer looks like; needs no model.

    Args:
        config: of the model.

    Raises:
        ValueError: if an environment variable is not a whole number of at least 1.
    """

    def __init__(self, config: Any):
        self.max_texts = _limit("ROBERTA_GRU_MAX_TEXTS", MAX_TEXTS)
        self.max_characters = _limit("ROBERTA_GRU_MAX_CHARACTERS", MAX_CHARACTERS)
        self.max_tokens = _limit("ROBERTA_GRU_MAX_TOKENS", MAX_TOKENS)
        self.max_seconds = _limit("ROBERTA_GRU_MAX_SECONDS", MAX_SECONDS)
        self.batch_tokens = _limit("ROBERTA_GRU_BATCH_TOKENS", BATCH_TOKENS)
        self.max_points = _limit("ROBERTA_GRU_MAX_POINTS", MAX_POINTS)
        self.labels = [str(config.id2label[index]) for index in range(config.num_labels)]
        one_or_several = reading.SINGLE_LABEL if config.num_labels > 1 else reading.MULTI_LABEL  # as a pipeline has it
        self.problem_type = config.problem_type or one_or_several
        if self.problem_type == reading.SINGLE_LABEL and config.num_labels == 1:
            self.problem_type = reading.MULTI_LABEL

    def read(self, data: Any) -> Request:
        """Check the parsed JSON of a request, but for the number of its tokens.

        Raises:
            RequestError: if there is a mistake in it.
        """
        _check_fields(data)
        given = {} if data.get("parameters") is None else data["parameters"]
        parameters = _read_parameters(given)
        texts = self._read_texts(data["inputs"])
        return Request(texts, parameters, isinstance(data["inputs"], str), "top_k" in given)

    def answer(self, request: Request, logits: np.ndarray) -> list[Any]:
        """Return the answer to a request that asks for no explanation, from its texts' logits `(n, C)`."""
        scores = reading.to_scores(logits, self.scores_of(request.parameters))
        answers = [self.named(row, _best(row, request.parameters)) for row in scores]
        if not request.asks_top_k:
            # The pipeline's two shapes: a text's best label stands alone where nobody asked for more.
            return [best for (best,) in answers]
        return answers[0] if request.is_single else answers

    def scores_of(self, parameters: Parameters) -> str:
        """Return the kind of problem whose scores are asked for."""
        function = parameters.function_to_apply
        return self.problem_type if function is None else PROBLEM_OF[function]

    def named(self, scores: np.ndarray, labels: list[int]) -> list[dict[str, Any]]:
        """Return labels with their scores (C,)."""
        return [{"label": self.labels[label], "score": float(scores[label])} for label in labels]

    def _read_texts(self, inputs: Any) -> list[str]:
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(texts, list):
            raise RequestError("inputs", f"{reprlib.repr(inputs)} is not a text. Send a text or a list of texts.")
        if not texts:
            raise RequestError("inputs", "the list is empty. Send one text at least.")
        if len(texts) > self.max_texts:
            raise RequestError(
                "inputs", f"{len(texts):,} texts, but a request may hold {self.max_texts:,}. Send several requests."
            )
        names = ["inputs"] if isinstance(inputs, str) else [f"inputs[{row}]" for row in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            if not isinstance(text, str):
                raise RequestError(name, f"{reprlib.repr(text)} is not a text. Send texts only.")
        num_characters = sum(map(len, texts))
        if num_characters > self.max_characters:
            raise RequestError(
                "inputs",
                f"{num_characters:,} characters, but a request may hold {self.max_characters:,} in all. Send less, or "
                "several requests.",
            )
        for name, text in zip(names, texts, strict=True):
            _check_characters(name, text)
        return texts


class EndpointHandler(Contract):
    """Classify the texts of a request. Calls change nothing, so that several threads can make them."""

    def __init__(self, path: str = "", **kwargs: Any):
        """Load model and tokenizer, onto the GPU if there is one.

        Args:
            path: the model's folder; unset: the one that holds this file.
            kwargs: anything else that a server has to say; not used.

        Raises:
            ValueError: if an environment variable is not a whole number of at least 1.
        """
        folder = path or Path(__file__).resolve().parent
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        # In the precision that the config names; never from a pickle.
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=True, dtype="auto", use_safetensors=True
        )
        super().__init__(model.config)
        self.model = model.to(self.device).eval()
        self.time = reading.TimeLimit(self.model)
        # A fast tokenizer keeps cut and padding as settings. Once they are off, no call here changes them again.
        self.tokenizer("", truncation=False, padding=False)

    @torch.inference_mode()
    def __call__(self, data: dict[str, Any]) -> list[Any] | dict[str, Any]:
        """Answer a request; the module's docstring describes both.

        Raises:
            RequestError: if there is a mistake in the request, or it takes too long.
        """
        request = self.read(data)
        try:
            with self.time.seconds(self.max_seconds):
                if not request.parameters.explain:
                    return self.answer(request, self.logits(request.texts))
                self._check_can_explain()
                self._check_tokens(request.texts)
                answers = [self._explain(text, request.parameters) for text in request.texts]
                return answers[0] if request.is_single else answers
        except TimeoutError:
            raise RequestError(
                "inputs", f"they take longer than {self.max_seconds:,} seconds. Send less, or several requests."
            ) from None

    @torch.inference_mode()
    def logits(self, texts: list[str]) -> np.ndarray:
        """Score texts, batches of like lengths at a time: `(n, C)` float32, in the order of the texts.

        Raises:
            RequestError: if there are too many tokens, or none in a text.
        """
        token_ids = self._check_tokens(texts)
        for row, ids in enumerate(token_ids):
            if not ids:  # of a recurrent net, whose tokenizer adds no special tokens
                raise RequestError(f"inputs[{row}]", "the text has no words. Leave it out.")
        logits = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        for rows in _batches([len(row) for row in token_ids], self.batch_tokens):
            documents = [torch.tensor(token_ids[row]) for row in rows]
            input_ids = pad_sequence(documents, batch_first=True)
            mask = pad_sequence([torch.ones_like(document) for document in documents], batch_first=True)
            scored = self.model(input_ids.to(self.device), attention_mask=mask.to(self.device)).logits
            logits[rows] = scored.float().cpu().numpy()
        return logits

    def _check_tokens(self, texts: list[str]) -> list[list[int]]:
        """Tokenise texts, until there are too many tokens."""
        token_ids, left = [], self.max_tokens
        for text in texts:
            ids = None
            if not reading.has_more_tokens(self.tokenizer, text, left):
                ids = self.tokenizer(text, truncation=False, verbose=False)["input_ids"]
            if ids is None or len(ids) > left:
                raise RequestError(
                    "inputs",
                    f"more than {self.max_tokens:,} tokens, which is what a request may hold in all. Send less, or "
                    "several requests.",
                )
            token_ids.append(ids)
            left -= len(ids)
        return token_ids

    def _check_can_explain(self) -> None:
        if not (hasattr(self.model, "running_logits") and self.tokenizer.is_fast):
            raise RequestError(
                "parameters.explain",
                f"a {type(self.model).__name__} with a {type(self.tokenizer).__name__} cannot tell how its scores "
                "moved. Leave it out.",
            )

    def _explain(self, text: str, parameters: Parameters) -> dict[str, Any]:
        trace = reading.read(self.model, self.tokenizer, text, self.scores_of(parameters))
        best = _best(trace.scores[-1], parameters)
        ends = trace.ends
        points = [ends[word] for word in _spread(len(ends), self.max_points)]
        turns = sorted(reading.turns(trace), key=lambda turn: -abs(turn.after - turn.before))[: self.max_points]
        return {
            "labels": self.named(trace.scores[-1], best),
            "running": [{"end": trace.word_at(at)[1], "scores": trace.scores[at, best].tolist()} for at in points],
            "turns": [
                {"label": turn.label, **dict(zip(("start", "end"), trace.word_at(turn.position), strict=True))}
                | {"before": turn.before, "after": turn.after}
                for turn in sorted(turns, key=lambda turn: turn.position)
            ],
        }


def _check_fields(data: Any) -> None:
    if not isinstance(data, dict):
        raise RequestError("request", f'{reprlib.repr(data)} is not an object. Send {{"inputs": "a text"}}.')
    _check_names("", data, FIELDS)
    if "inputs" not in data:
        raise RequestError("inputs", "missing. Send a text or a list of texts.")


def _read_parameters(given: Any) -> Parameters:
    if not isinstance(given, dict):
        raise RequestError("parameters", f'{reprlib.repr(given)} is not an object. Send {{"top_k": 2}}, or none.')
    _check_names("parameters.", given, Parameters._fields)
    parameters = Parameters(**given)
    top_k, function, explain = parameters
    if top_k is not None and not (type(top_k) is int and top_k >= 1):
        raise RequestError(
            "parameters.top_k",
            f"{reprlib.repr(top_k)} is not a whole number of at least 1. For all labels, send null.",
        )
    if function is not None and function not in FUNCTIONS:
        raise RequestError("parameters.function_to_apply", f"{reprlib.repr(function)} is not {_any_of(FUNCTIONS)}.")
    if not isinstance(explain, bool):
        raise RequestError("parameters.explain", f"{reprlib.repr(explain)} is neither true nor false.")
    return parameters


def _check_names(before: str, given: dict[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            name = name[:LONGEST_NAME]
            near = get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Send {_any_of(known)}."
            raise RequestError(f"{before}{name}", f"there is no such field. {hint}")


def _any_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _check_characters(name: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"character {error.start} is half a character (U+{ord(text[error.start]):X})"
        raise RequestError(name, f"{half}. Decode the text again.") from None


def _limit(name: str, default: int) -> int:
    given = os.environ.get(name, str(default))
    if not (given.isdecimal() and int(given) >= 1):
        raise ValueError(f"The environment variable {name} is {given!r}; it must be a whole number of at least 1.")
    return int(given)


def _best(scores: np.ndarray, parameters: Parameters) -> list[int]:
    """Return the labels that were asked for, by their scores (C,)."""
    return (-scores).argsort(kind="stable")[: parameters.top_k].tolist()


def _spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers 0 … `count` - 1, evenly spread; the last is among them."""
    steps = min(count, most)
    return [(step + 1) * count // steps - 1 for step in range(steps)]


def _batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield the rows of every batch, the longest first: as many as fit when padded, and one at least."""
    rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while rows:
        count = max(1, batch_tokens // max(1, lengths[rows[0]]))
        yield rows[:count]
        rows = rows[count:]
