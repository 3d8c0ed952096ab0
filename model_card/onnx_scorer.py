# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""Score texts of any length with an exported RoBERTa-GRU, without torch.

Needs numpy, onnxruntime and tokenizers only, and a folder that `roberta-gru export` wrote: `model.onnx`,
`tokenizer.json` and `config.json`.

    from onnx_scorer import OnnxScorer
    OnnxScorer("folder").score(["A text.", "Another one."])

On the command line, with a text a line and a line of JSON for each: `python onnx_scorer.py FOLDER < texts > scores`.
"""

import json
import reprlib
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

FILES = ("config.json", "tokenizer.json", "model.onnx")
TOKENS_PER_BATCH = 4_096
LINES_AT_ONCE = 4_096


class OnnxScorer:
    """Score texts.

    Attributes:
        labels: the names of the labels, by index.
    """

    def __init__(self, folder: str | Path, tokens_per_batch: int = TOKENS_PER_BATCH, num_threads: int = 0):
        """Load an exported model.

        Args:
            folder: what `roberta-gru export` wrote.
            tokens_per_batch: tokens read at once, padding included; one text may hold more.
            num_threads: threads that compute; 0 leaves it to ONNX Runtime.

        Raises:
            ValueError: if a file is missing or cannot be read, or a number is out of range.
        """
        _check_number("tokens_per_batch", tokens_per_batch, least=1)
        _check_number("num_threads", num_threads, least=0)
        config, tokenizer, model = (Path(folder) / name for name in FILES)
        for path in (config, tokenizer, model):
            if not path.is_file():
                raise ValueError(f"{path} is missing: give a folder that `roberta-gru export` wrote.")
        self.tokens_per_batch = tokens_per_batch
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        path = config
        try:
            fields = json.loads(config.read_text(encoding="utf-8"))
            self.labels = tuple(fields["id2label"][str(index)] for index in range(len(fields["id2label"])))
            self.problem_type = fields["problem_type"]
            path = tokenizer
            self.tokenizer = Tokenizer.from_file(str(tokenizer))
            path = model
            self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # either library has its own kinds, none of which says which file it was
            raise ValueError(f"{path} cannot be read: {error}. Export the model again.") from error

    def score(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return each text's best label, `{"label": …, "score": …}`, as `pipeline("text-classification")` does.

        Raises:
            ValueError: naming the first text that is none.
        """
        scores = self.probabilities(texts)
        best = scores.argmax(axis=1)
        return [
            {"label": self.labels[label], "score": float(row[label])} for row, label in zip(scores, best, strict=True)
        ]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return every label's probability, or the values of a regression: float64 `(number of texts, C)`.

        Raises:
            ValueError: naming the first text that is none.
        """
        logits = self.logits(texts).astype(np.float64)
        if self.problem_type == "regression":
            return logits
        if self.problem_type == "multi_label_classification" or len(self.labels) == 1:
            return np.exp(-np.logaddexp(0, -logits))
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return what the graph gives, calibrated: float32 `(number of texts, C)`, in the order of the texts.

        Raises:
            ValueError: naming the first text that is none.
        """
        _check_texts(texts)
        token_ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        logits = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        for rows in self._batches([len(ids) for ids in token_ids]):
            longest = len(token_ids[rows[0]])
            input_ids = np.zeros((len(rows), longest), dtype=np.int64)
            mask = np.zeros_like(input_ids)
            for place, row in enumerate(rows):
                input_ids[place, : len(token_ids[row])] = token_ids[row]
                mask[place, : len(token_ids[row])] = 1
            (logits[rows],) = self.session.run(["logits"], {"input_ids": input_ids, "attention_mask": mask})
        return logits

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Yield the rows of every batch, the longest first: as many as fit when padded, and one at least."""
        rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        while rows:
            count = max(1, self.tokens_per_batch // lengths[rows[0]])
            yield rows[:count]
            rows = rows[count:]


def _check_number(name: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:
        raise ValueError(f"`{name}` is {value!r}; it must be a whole number of at least {least}.")


def _check_texts(texts: Any) -> None:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise ValueError(f"`texts` is {reprlib.repr(texts)}; it must be a list of texts.")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Text {row} is {reprlib.repr(text)}, which is no text.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"character {error.start} of text {row} is half a character (U+{ord(text[error.start]):X})"
            raise ValueError(f"C{half[1:]}. Decode the text again.") from None


def main() -> None:
    """Score standard input, a text a line."""
    if len(sys.argv) != 2:
        sys.exit(f"Usage: python {Path(__file__).name} FOLDER < texts > scores")
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    try:
        scorer = OnnxScorer(sys.argv[1])
        while lines := list(islice(sys.stdin, LINES_AT_ONCE)):
            for score in scorer.score([line.rstrip("\n") for line in lines]):
                print(json.dumps(score, ensure_ascii=False))
    except ValueError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
