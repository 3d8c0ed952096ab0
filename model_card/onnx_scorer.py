# Copyright 2026 The RoBERTa-GRU authors. Licensed under the Apache License, Version 2.0.
"""Score texts of any length with an exported RoBERTa-GRU, without torch.

Needs numpy, onnxruntime and tokenizers only, and a folder that `roberta-gru export` wrote: `model.onnx`,
`tokenizer.json` and `config.json`.

    from onnx_scorer import OnnxScorer
    OnnxScorer("folder").predict(["A text.", "Another one."])

Methods have the names, arguments and results of the package's `Scorer`.

On the command line, with a text a line and a line of JSON for each: `python onnx_scorer.py FOLDER < texts > scores`.
"""

import json
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

FILES = ("config.json", "tokenizer.json", "model.onnx")
TOKENS_PER_BATCH = 4_096
LINES_AT_ONCE = 4_096
THRESHOLD = 0.5
"""From this probability on, a text has a label where it may have several."""


class OnnxScorer:
    """Score texts. A single `str` is one text, never its letters.

    Attributes:
        labels: the names of the labels, by index.
        classes_: the same as an array, as scikit-learn's classifiers have it.
        problem_type: "single_label_classification", "multi_label_classification" or "regression".
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
            self.classes_ = np.array(self.labels)
            self.problem_type = fields["problem_type"]
            if self.problem_type != "regression" and len(self.labels) == 1:
                self.problem_type = "multi_label_classification"
            path = tokenizer
            self.tokenizer = Tokenizer.from_file(str(tokenizer))
            path = model
            self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # either library has its own kinds, none of which says which file it was
            raise ValueError(f"{path} cannot be read: {error}. Export the model again.") from error

    def predict(self, texts: str | Iterable[str]) -> Any:
        """Predict the label of each text, as scikit-learn's classifiers do.

        Returns:
            `(n,)` names of labels; for several labels a text `(n, C)` int64, 1 where a text has the label (its
            probability is at least one half); for a regression its values, `(n,)` or `(n, C)` float32. Of a single
            text its own entry: a label's name, `(C,)`, or a value.

        Raises:
            ValueError: naming the first entry that is not text.
        """
        probabilities = self.predict_proba([texts] if isinstance(texts, str) else texts)
        if self.problem_type == "regression":
            predicted = probabilities[:, 0] if len(self.labels) == 1 else probabilities
        elif self.problem_type == "multi_label_classification":
            predicted = (probabilities >= THRESHOLD).astype(np.int64)
        else:
            predicted = self.classes_[probabilities.argmax(axis=1)]
        if not isinstance(texts, str):
            return predicted
        return predicted[0] if predicted.ndim == 2 else predicted[0].item()

    def predict_proba(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the probability of each label, `(n, C)` float32, its columns in the order of `classes_`.

        Of a regression its values; of a single text `(C,)`.

        Raises:
            ValueError: naming the first entry that is not text.
        """
        logits = self.logits(texts)
        if self.problem_type == "regression":
            return logits
        values = logits.astype(np.float64)
        if self.problem_type == "multi_label_classification":
            return np.exp(-np.logaddexp(0, -values)).astype(np.float32)
        exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
        return (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)

    def logits(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return what the graph gives, calibrated: `(n, C)` float32, in the order of the texts; of one text `(C,)`.

        Raises:
            ValueError: naming the first entry that is not text, or has no word in it.
        """
        some = _checked([texts] if isinstance(texts, str) else texts)
        token_ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(some)]
        if not all(token_ids):
            raise ValueError(f"texts[{token_ids.index([])}] has no word in it: leave it out.")
        logits = np.empty((len(some), len(self.labels)), dtype=np.float32)
        for rows in self._batches([len(ids) for ids in token_ids]):
            longest = len(token_ids[rows[0]])
            input_ids = np.zeros((len(rows), longest), dtype=np.int64)
            mask = np.zeros_like(input_ids)
            for place, row in enumerate(rows):
                input_ids[place, : len(token_ids[row])] = token_ids[row]
                mask[place, : len(token_ids[row])] = 1
            (logits[rows],) = self.session.run(["logits"], {"input_ids": input_ids, "attention_mask": mask})
        return logits[0] if isinstance(texts, str) else logits

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


def _checked(texts: Iterable[Any]) -> list[str]:
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise ValueError(f"texts is {reprlib.repr(texts)}, neither a text nor a list of texts.")
    some = list(texts)
    for row, text in enumerate(some):
        if not isinstance(text, str):
            raise ValueError(f"texts[{row}] is {reprlib.repr(text)}, not text: leave it out.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(
                f"texts[{row}] holds half a character (a lone surrogate): decode the text again."
            ) from None
    return some


def main() -> None:
    """Score standard input, a text a line: `{"label": …, "score": …}` of each, as a pipeline of transformers does."""
    if len(sys.argv) != 2:
        sys.exit(f"Usage: python {Path(__file__).name} FOLDER < texts > scores")
    sys.stdin.reconfigure(encoding="utf-8-sig")
    sys.stdout.reconfigure(encoding="utf-8")
    try:
        scorer = OnnxScorer(sys.argv[1])
        while lines := list(islice(sys.stdin, LINES_AT_ONCE)):
            for scores in scorer.predict_proba([line.rstrip("\n") for line in lines]):
                best = int(scores.argmax())
                print(json.dumps({"label": scorer.labels[best], "score": float(scores[best])}, ensure_ascii=False))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
