# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""Serve the model in this folder from a Hugging Face Inference Endpoint.

Needs torch and transformers (4.57 to 5.x) only. The endpoint's server finds this file beside the weights, builds
`EndpointHandler(folder)` once and calls it with the parsed JSON of every request
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
                            `start` to `end` turned the verdict towards this label, or, of several labels a text,
                            about it; its score went from `before` to `after`

Characters are Unicode code points, the first is number 0. The encoder looks ahead as far as its window goes, so the
scores may move before the word that moved them; a GRU that reads both ways has read the whole text before.

Limits, each changed by an environment variable of the endpoint:
    ROBERTA_GRU_MAX_TEXTS        texts a request (256)
    ROBERTA_GRU_MAX_CHARACTERS   characters a request, all texts together (1,000,000)
    ROBERTA_GRU_BATCH_TOKENS     tokens read at once, padding included; one text may hold more (8,192)
    ROBERTA_GRU_MAX_POINTS       entries of `running`, and of `turns` (200)
"""

import os
import reprlib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BatchEncoding

MAX_TEXTS = 256
MAX_CHARACTERS = 1_000_000
BATCH_TOKENS = 8_192
MAX_POINTS = 200

FIELDS = ("inputs", "parameters")
LONGEST_NAME = 40
"""Of an unknown field's name, no more is read or repeated."""
FUNCTIONS = ("softmax", "sigmoid", "none")
SURE = 0.2
"""A verdict counts, and can turn, where it leads by this much: what wavers about a draw turns nowhere."""


class RequestError(ValueError):
    """A mistake in a request: the field, what is wrong with it, and the way out."""

    def __init__(self, field: str, problem: str):
        super().__init__(f"{field}: {problem}")


class Parameters(NamedTuple):
    """What a request may ask for."""

    top_k: int | None = 1
    function_to_apply: str | None = None
    explain: bool = False


class EndpointHandler:
    """Classify the texts of a request. Calls change nothing, so that several threads can make them."""

    def __init__(self, path: str = "", **kwargs: Any):
        """Load model and tokenizer, onto the GPU if there is one.

        Args:
            path: the model's folder; unset: the one that holds this file.
            kwargs: anything else that a server has to say; not used.

        Raises:
            ValueError: if an environment variable is no whole number of at least 1.
        """
        self.max_texts = _limit("ROBERTA_GRU_MAX_TEXTS", MAX_TEXTS)
        self.max_characters = _limit("ROBERTA_GRU_MAX_CHARACTERS", MAX_CHARACTERS)
        self.batch_tokens = _limit("ROBERTA_GRU_BATCH_TOKENS", BATCH_TOKENS)
        self.max_points = _limit("ROBERTA_GRU_MAX_POINTS", MAX_POINTS)
        folder = path or Path(__file__).resolve().parent
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        # In the precision that the config names; never from a pickle.
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=True, dtype="auto", use_safetensors=True
        )
        self.model = model.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, data: dict[str, Any]) -> list[Any] | dict[str, Any]:
        """Answer a request; the module's docstring describes both.

        Raises:
            RequestError: if there is a mistake in the request.
        """
        _check_fields(data)
        given = {} if data.get("parameters") is None else data["parameters"]
        parameters = _read_parameters(given)
        texts = self._read_texts(data["inputs"])
        if parameters.explain:
            self._check_can_explain()
            answers: list[Any] = [self._explain(text, parameters) for text in texts]
        else:
            answers = [self._name(scores, _best(scores, parameters)) for scores in self._score(texts, parameters)]
            if "top_k" not in given:
                # The pipeline's two shapes: a text's best label stands alone where nobody asked for more.
                return [best for (best,) in answers]
        return answers[0] if isinstance(data["inputs"], str) else answers

    def _read_texts(self, inputs: Any) -> list[str]:
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(texts, list):
            raise RequestError("inputs", f"{reprlib.repr(inputs)} is no text. Send a text or a list of texts.")
        if not texts:
            raise RequestError("inputs", "the list is empty. Send one text at least.")
        if len(texts) > self.max_texts:
            raise RequestError(
                "inputs", f"{len(texts):,} texts, but a request may hold {self.max_texts:,}. Send several requests."
            )
        names = ["inputs"] if isinstance(inputs, str) else [f"inputs[{row}]" for row in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            if not isinstance(text, str):
                raise RequestError(name, f"{reprlib.repr(text)} is no text. Send texts only.")
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

    def _check_can_explain(self) -> None:
        if not (hasattr(self.model, "running_logits") and self.tokenizer.is_fast):
            raise RequestError(
                "parameters.explain",
                f"a {type(self.model).__name__} with a {type(self.tokenizer).__name__} cannot tell how its scores "
                "moved. Leave it out.",
            )

    def _score(self, texts: list[str], parameters: Parameters) -> torch.Tensor:
        """Score texts, batches of like lengths at a time: `(number of texts, C)`, in the order of the texts."""
        token_ids = self._tokenize(texts)["input_ids"]
        for row, ids in enumerate(token_ids):
            if not ids:  # of a recurrent net, whose tokenizer adds no special tokens
                raise RequestError(f"inputs[{row}]", "there is no word in it. Leave it out.")
        batches = list(_batches([len(row) for row in token_ids], self.batch_tokens))
        parts = []
        for rows in batches:
            documents = [torch.tensor(token_ids[row]) for row in rows]
            input_ids = pad_sequence(documents, batch_first=True)
            mask = pad_sequence([torch.ones_like(document) for document in documents], batch_first=True)
            parts.append(self.model(input_ids.to(self.device), attention_mask=mask.to(self.device)).logits)
        order = torch.tensor([row for rows in batches for row in rows])
        return self._apply(torch.cat(parts).cpu()[order.argsort()], parameters)

    def _explain(self, text: str, parameters: Parameters) -> dict[str, Any]:
        encoding = self._tokenize(text, return_offsets_mapping=True)
        logits = self.model.running_logits(torch.tensor([encoding["input_ids"]], device=self.device))[0]  # (n, C)
        ends, spans = _words(encoding, len(text))
        scores = self._apply(logits[ends].cpu(), parameters)  # (number of words, C)
        best = _best(scores[-1], parameters)
        points = _spread(len(ends), self.max_points)
        turns = _turns(scores, self._function(parameters), self.max_points)
        return {
            "labels": self._name(scores[-1], best),
            "running": [{"end": spans[word][1], "scores": scores[word, best].tolist()} for word in points],
            "turns": [
                {"label": self.model.config.id2label[label], "start": spans[word][0], "end": spans[word][1]}
                | {"before": before, "after": after}
                for word, label, before, after in turns
            ],
        }

    def _tokenize(self, texts: str | list[str], **kwargs: Any) -> BatchEncoding:
        return self.tokenizer(texts, truncation=False, return_token_type_ids=False, verbose=False, **kwargs)

    def _function(self, parameters: Parameters) -> str:
        config = self.model.config
        if parameters.function_to_apply is not None:
            return parameters.function_to_apply
        if config.problem_type == "regression":
            return "none"
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        return "sigmoid" if several else "softmax"

    def _apply(self, logits: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Turn logits (…, C) into scores, in float64."""
        function = self._function(parameters)
        logits = logits.double()
        return logits.softmax(-1) if function == "softmax" else logits.sigmoid() if function == "sigmoid" else logits

    def _name(self, scores: torch.Tensor, labels: list[int]) -> list[dict[str, Any]]:
        return [{"label": self.model.config.id2label[label], "score": scores[label].item()} for label in labels]


def _check_fields(data: Any) -> None:
    if not isinstance(data, dict):
        raise RequestError("request", f'{reprlib.repr(data)} is no object. Send {{"inputs": "a text"}}.')
    _check_names("", data, FIELDS)
    if "inputs" not in data:
        raise RequestError("inputs", "missing. Send a text or a list of texts.")


def _read_parameters(given: Any) -> Parameters:
    if not isinstance(given, dict):
        raise RequestError("parameters", f'{reprlib.repr(given)} is no object. Send {{"top_k": 2}}, or none.')
    _check_names("parameters.", given, Parameters._fields)
    parameters = Parameters(**given)
    top_k, function, explain = parameters
    if top_k is not None and not (type(top_k) is int and top_k >= 1):
        raise RequestError(
            "parameters.top_k", f"{reprlib.repr(top_k)} is no whole number of at least 1. For all labels, send null."
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


def _best(scores: torch.Tensor, parameters: Parameters) -> list[int]:
    """Return the labels that were asked for, by their scores (C,)."""
    return scores.argsort(descending=True, stable=True)[: parameters.top_k].tolist()


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


def _words(encoding: BatchEncoding, num_characters: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Return each word's last token, and where in the text the word begins and ends; special tokens are words."""
    word_ids, offsets = encoding.word_ids(), encoding["offset_mapping"]
    begins = [at for at, word in enumerate(word_ids) if at == 0 or word is None or word != word_ids[at - 1]]
    ends = [*(begin - 1 for begin in begins[1:]), len(word_ids) - 1]
    spans = [(offsets[begin][0], offsets[end][1]) for begin, end in zip(begins, ends, strict=True)]
    # A special token that is not in the text has no place there: those after the first stand at its end.
    return ends, [span if at == 0 or span[1] else (num_characters, num_characters) for at, span in enumerate(spans)]


def _turns(scores: torch.Tensor, function: str, most: int) -> list[tuple[int, int, float, float]]:
    """Find where the verdict turned: word, label, and its score before and after, in reading order.

    By softmax: where another label took the lead, for good enough that it came to lead by [`SURE`]. By sigmoid: where
    a label's score crossed a half, by half of [`SURE`] either way. `before` is the label's furthest score since the
    turn before, `after` its furthest until the next. Of more than `most` turns, the largest are kept.
    """
    if function == "none" or (function == "softmax" and scores.shape[1] == 1):
        return []
    found: list[tuple[int, int, float, float]] = []
    if function == "softmax":
        first, second = scores.topk(2).values.T
        tracks = [(scores.argmax(dim=1), first - second)]
    else:
        tracks = [((score >= 0.5).long(), abs(2 * score - 1)) for score in scores.T]
    for track, (verdicts, lead) in enumerate(tracks):
        starts = [0, *_changes(verdicts, lead >= SURE), len(scores)]
        for begin, word, end in zip(starts, starts[1:], starts[2:], strict=False):
            verdict = int(verdicts[word])
            label = verdict if function == "softmax" else track
            before, after = scores[begin:word, label], scores[word:end, label]
            rises = function == "softmax" or verdict
            sides = (before.min(), after.max()) if rises else (before.max(), after.min())
            found.append((word, label, sides[0].item(), sides[1].item()))
    largest = sorted(found, key=lambda turn: -abs(turn[3] - turn[2]))[:most]
    return sorted(largest, key=lambda turn: turn[0])


def _changes(verdicts: torch.Tensor, is_sure: torch.Tensor) -> list[int]:
    """Return where each sure verdict that differs from the sure one before it began."""
    sure = is_sure.nonzero()[:, 0]
    changed = verdicts[sure].diff().nonzero()[:, 0]
    pairs = zip(sure[changed].tolist(), sure[changed + 1].tolist(), strict=True)
    return [one + 1 + int((verdicts[one : other + 1] != verdicts[other]).nonzero()[-1]) for one, other in pairs]
