"""Score many texts of any length, fast: pools sorted by length, batches by token budget, tokenised ahead."""

import copy
import hashlib
import json
import os
import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.dialect import is_decoded
from ..data.labels import MULTI_LABEL, REGRESSION, LabelSpace
from ..data.tokenization import batches_by_length, check_max_length
from ..errors import InputError
from ..files import threads
from ..training.loading import load_classifier, longest_read
from .engine import AUTO, Engine, prepare
from .reading import has_more_tokens, to_scores
from .stopping import certainty, find_threshold, read_by_windows

DOCUMENTS_PER_TURN = 8
"""That a worker reads by windows before it takes others, for each that it reads at once."""
POOL_SIZE = 1024
"""Texts that are sorted by length together. Pools begin anew with every call."""
THRESHOLD = 0.5
"""From this probability on, a text has a label where it may have several."""
TOKENISED_AT_ONCE = 2**20
"""Characters."""
OF_A_COPY = ("_name_or_path", "auto_map", "transformers_version")
"""What a configuration says of where a model lies and what read it, and not of the model."""


class Scorer:
    """A trained text classifier, ready to score.

    A text's scores do not depend on the texts beside it, but for rounding. Several threads may call one scorer.

    Args:
        model: a run's folder, a saved model's folder, a Hub id, or a classifier, which is put into
            evaluation mode and else stays as it is.
        tokenizer: that of the model; for a model given by name, its own. It is copied.
        dtype: "float32", "bfloat16", "int8", or "auto": the fastest that this machine has.
        device: "cpu", "cuda", …; unset: a GPU if there is one.
        max_length: texts are cut to this many tokens, special tokens included. Unset: texts are read whole, by a
            stock transformer as far as it can.
        tokens_per_batch: tokens read at once, padding included; one text may hold more. Unset: as suits the engine.
        agreement: read a text no further than needed for this share of labels to equal those of whole texts, with 95 %
            confidence on texts like those of `config.stop_thresholds`. Unset: read everything.

    Attributes:
        dtype: what was chosen.
        description: one line that says what computes.
        labels: the labels' names, by index.
        classes_: the same as an array, as scikit-learn's classifiers have it.
        problem_type: see [`~.data.labels.LabelSpace`].
        fingerprint: a digest of weights, configuration and tokenizer.

    Raises:
        InputError: if model, type or device is not usable.

    Every method takes a list of texts, or anything else that gives texts: an array, a pandas column, a generator. A
    single `str` is one text, never its letters.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        dtype: str = AUTO,
        device: str | None = None,
        max_length: int | None = None,
        tokens_per_batch: int | None = None,
        agreement: float | None = None,
    ) -> None:
        if isinstance(model, str | os.PathLike):
            model, tokenizer = load_classifier(os.fspath(model))
        if not hasattr(model, "config") or tokenizer is None:
            raise InputError(
                "A scorer takes a folder, a Hub id, or a model and its tokenizer. What `train` returned predicts by "
                "itself; a scorer takes its `output_dir`, or its `model` and `tokenizer`."
            )
        labels = LabelSpace.from_config(model.config)
        self.labels, self.problem_type = labels.names, labels.problem_type
        self.classes_ = np.array(self.labels)
        self.fingerprint = fingerprint(model, tokenizer)
        # Its own, always called with the same cut and no padding: a fast tokenizer keeps both as settings, and
        # whoever else called it would change them for every thread.
        self.tokenizer = copy.deepcopy(tokenizer)
        check_max_length(tokenizer, max_length)
        self.max_length = longest_read(model, tokenizer, max_length)
        self._tokenise([""])
        self.agreement = agreement
        self.threshold = None if agreement is None else find_threshold(model.config, agreement, self.max_length)
        self.engine = prepare(model, dtype, device)
        self.dtype, self.description = self.engine.dtype, self.engine.description
        if agreement is not None:
            stops = "too few texts stopped early in fitting to promise this, so everything is read"
            stops = stops if self.threshold is None else f"a text ends at certainty {self.threshold:.6f}"
            self.description += f"; {agreement:.1%} of labels those of whole texts ({stops})"
        self.tokens_per_batch = tokens_per_batch or self.engine.tokens_per_batch
        self._process = os.getpid()

    def predict(self, texts: str | Iterable[str]) -> Any:
        """Predict the label of each text, as scikit-learn's classifiers do.

        Returns:
            `(n,)` names of labels; for several labels a text `(n, C)` int64, 1 where a text has the label (its
            probability is at least one half); for a regression its values, `(n,)` or `(n, C)` float32. Of a single
            text its own entry: a label's name, `(C,)`, or a value.

        Raises:
            InputError: naming the first entry that is not text.
        """
        probabilities = self.predict_proba([texts] if isinstance(texts, str) else texts)
        if self.problem_type == REGRESSION:
            predicted = probabilities[:, 0] if len(self.labels) == 1 else probabilities
        elif self.problem_type == MULTI_LABEL:
            predicted = (probabilities >= THRESHOLD).astype(np.int64)
        else:
            predicted = self.classes_[probabilities.argmax(axis=1)]
        if not isinstance(texts, str):
            return predicted
        return predicted[0] if predicted.ndim == 2 else predicted[0].item()

    def predict_proba(self, texts: str | Iterable[str], progress: bool = False) -> np.ndarray:
        """Return the probability of each label, `(n, C)` float32, its columns in the order of `classes_`.

        Of a regression its values; of a single text `(C,)`.

        Args:
            texts: of any length.
            progress: show a bar.

        Raises:
            InputError: naming the first entry that is not text.
        """
        probabilities = self._probabilities(self.logits(texts, progress).reshape(-1, len(self.labels)))
        return probabilities[0] if isinstance(texts, str) else probabilities

    def logits(self, texts: str | Iterable[str], progress: bool = False) -> np.ndarray:
        """Return the calibrated logits of each text, `(n, C)` float32; of a single text `(C,)`.

        Raises:
            InputError: naming the first entry that is not text.
        """
        logits = self._logits(list(checked_texts([texts] if isinstance(texts, str) else texts)), progress)
        return logits[0] if isinstance(texts, str) else logits

    def tokenize(self, texts: str | Iterable[str], most_tokens: int | None = None) -> list[np.ndarray]:
        """Turn texts into token ids, `(n,)` int32 each, cut to `max_length` where that is set.

        Args:
            texts: of any length.
            most_tokens: how many a text may have. One that has more is found out before all of it is tokenised.

        Raises:
            InputError: naming the first entry that is not text, or has too many tokens.
        """
        some = list(checked_texts([texts] if isinstance(texts, str) else texts))
        if most_tokens is None:
            return self._tokenise(some)
        documents = []
        for row, text in enumerate(some):
            is_beyond = self.max_length is None and has_more_tokens(self.tokenizer, text, most_tokens)
            document = None if is_beyond else self._tokenise([text])[0]
            if document is None or len(document) > most_tokens:
                raise InputError(
                    f"texts[{row}] has more than {most_tokens:,} tokens: shorten it, or cut it in two.",
                    field="texts",
                    row=row + 1,
                )
            documents.append(document)
        return documents

    def logits_of_tokens(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        """Return the calibrated logits `(n, C)` float32 of what [`tokenize`] gave."""
        return self._logits(documents, progress=False)

    def stream(
        self, texts: Iterable[str], on_scored: Callable[[int], object] = lambda count: None
    ) -> Iterator[np.ndarray]:
        """Yield each text's probabilities (C,) in float32, in the order of the texts.

        Reads two pools ahead, so that tokenisation runs beside the model.

        Args:
            texts: as many as there are.
            on_scored: called with the number of texts whenever some are scored.

        Raises:
            InputError: naming the first entry that is not text.
        """
        for logits in self._stream_logits(checked_texts([texts] if isinstance(texts, str) else texts), on_scored):
            yield from self._probabilities(logits)

    def _logits(self, texts: Sequence[str] | Sequence[np.ndarray], progress: bool) -> np.ndarray:
        with tqdm(total=len(texts), disable=not progress, desc="Scoring", unit=" texts") as bar:
            pools = list(self._stream_logits(texts, bar.update))
        return np.concatenate(pools) if pools else np.empty((0, len(self.labels)), dtype=np.float32)

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Turn logits (n, C) into probabilities, or a regression's values, in float32."""
        return to_scores(logits, self.problem_type).astype(np.float32)

    def _stream_logits(
        self, texts: Iterable[str | np.ndarray], on_scored: Callable[[int], object]
    ) -> Iterator[np.ndarray]:
        """Yield the logits (n, C) of each pool, in order."""
        self._check_process()
        texts = iter(texts)
        engine = self.engine
        pools: deque[tuple[int, Future]] = deque()
        first = 0
        is_given_up = Event()
        # Left in this order: first what fills the queue, then what empties it.
        with (
            threads(engine.num_workers, initializer=_begin_worker, initargs=(engine,)) as workers,
            threads(1) as tokenisation,
        ):
            try:
                while pool := list(islice(texts, POOL_SIZE)):
                    pools.append((len(pool), tokenisation.submit(self._submit, pool, first, workers, is_given_up)))
                    first += len(pool)
                    if len(pools) > 2:
                        yield self._collect(*pools.popleft(), on_scored)
                while pools:
                    yield self._collect(*pools.popleft(), on_scored)
            finally:
                is_given_up.set()

    def _check_process(self) -> None:
        if os.getpid() != self._process and not self.engine.survives_fork:
            raise InputError(
                f"This scorer was made in another process, and {self.description} does not outlive a fork: make the "
                'scorer in the process that scores, or start processes by "spawn".'
            )

    def _submit(
        self, texts: list[Any], first: int, workers: ThreadPoolExecutor, is_given_up: Event
    ) -> list[tuple[np.ndarray, Future]]:
        """Tokenise a pool, whose texts are numbered from `first`, unless it is, and queue its batches."""
        documents = self._tokenise(texts) if isinstance(texts[0], str) else texts
        for row, ids in enumerate(documents, first):
            if not len(ids):  # of a recurrent net, whose tokenizer adds no special tokens
                raise InputError(f"texts[{row}] has no word in it: leave it out.", field="texts", row=row + 1)
        lengths = np.array([len(ids) for ids in documents])
        is_stoppable = np.zeros(len(lengths), dtype=bool)
        if self.threshold is not None:
            is_stoppable = lengths > self.engine.model.config.encoder_window
        longest_first = np.flatnonzero(is_stoppable)[np.argsort(-lengths[is_stoppable], kind="stable")]
        by_windows: Callable[[list[np.ndarray]], np.ndarray] = partial(self._predict_by_windows, is_given_up)
        turns = [(rows, by_windows) for rows in self._turns(longest_first)]
        others = np.flatnonzero(~is_stoppable)
        batches = [(others[rows], self._predict) for rows in batches_by_length(lengths[others], self.tokens_per_batch)]
        return [
            (rows, workers.submit(predict, [documents[row] for row in rows])) for rows, predict in [*turns, *batches]
        ]

    def _turns(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the rows that a worker reads by windows, in turn: which ones does not depend on how fast it is."""
        size = DOCUMENTS_PER_TURN * self._windows_at_once if self.engine.num_workers > 1 else len(rows)
        for start in range(0, len(rows), max(1, size)):
            yield rows[start : start + size]

    @property
    def _windows_at_once(self) -> int:
        return max(1, self.tokens_per_batch // self.engine.model.config.encoder_window)

    def _collect(self, num_texts: int, submitted: Future, on_scored: Callable[[int], object]) -> np.ndarray:
        logits = np.empty((num_texts, len(self.labels)), dtype=np.float32)
        for rows, predicted in submitted.result():
            logits[rows] = predicted.result()
            on_scored(len(rows))
        return logits

    def _tokenise(self, texts: list[str]) -> list[np.ndarray]:
        documents: list[np.ndarray] = []
        for some in slices_by_size(texts, TOKENISED_AT_ONCE):
            encoded = self.tokenizer(
                some,
                truncation=self.max_length is not None,
                max_length=self.max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
            documents.extend(np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"])
        return documents

    @torch.inference_mode()
    def _predict(self, documents: list[np.ndarray]) -> np.ndarray:
        """Score one batch: logits (B, C)."""
        shape = len(documents), max(map(len, documents))
        input_ids, mask = np.full(shape, self.tokenizer.pad_token_id or 0), np.zeros(shape, dtype=np.int64)
        for row, ids in enumerate(documents):
            input_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        device = self.engine.device
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}
        logits = self.engine.model(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits
        return logits.float().cpu().numpy()

    def _predict_by_windows(self, is_given_up: Event, documents: list[np.ndarray]) -> np.ndarray:
        """Score documents beyond the window, each until it is certain enough, unless nobody waits: logits (B, C)."""
        logits = np.empty((len(documents), len(self.labels)), dtype=np.float32)

        def is_certain(scores: np.ndarray) -> np.ndarray:
            return certainty(scores, self.problem_type) >= self.threshold

        for step in read_by_windows(self.engine.model, documents, is_certain, self._windows_at_once):
            if is_given_up.is_set():
                break
            if step.is_last:
                logits[step.row] = step.logits
        return logits


def checked_texts(texts: Iterable[Any]) -> Iterator[str]:
    """Yield texts, and stop at the first that is none.

    Raises:
        InputError: naming it.
    """
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise InputError(f"texts is {reprlib.repr(texts)}, neither a text nor a list of texts.", field="texts")
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise InputError('texts is a table: give its column of texts, such as table["text"].', field="texts")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(
                f"texts[{row}] is {reprlib.repr(text)}, not text: leave it out.", field="texts", row=row + 1
            )
        if not is_decoded(text):
            raise InputError(
                f"texts[{row}] holds half a character (a lone surrogate): decode the text again.",
                field="texts",
                row=row + 1,
            )
        yield text


_beginning = Lock()


def _begin_worker(engine: Engine) -> None:
    if engine.device.type == "cpu":
        with _beginning:
            before = torch.get_num_threads()
            torch.set_num_threads(1)  # of this thread, and of all that begin later: so another one sets it back
            other = Thread(target=torch.set_num_threads, args=(before,))
            other.start()
            other.join()


def decide(probabilities: np.ndarray, labels: Sequence[str], problem_type: str) -> list[Any]:
    """Return what n texts' probabilities (n, C) say: of each its label, its list of labels, or its value or values."""
    if problem_type == REGRESSION:
        return (probabilities[:, 0] if len(labels) == 1 else probabilities).tolist()
    if problem_type == MULTI_LABEL:
        return [[labels[index] for index in np.flatnonzero(row).tolist()] for row in probabilities >= THRESHOLD]
    return [labels[index] for index in probabilities.argmax(axis=1).tolist()]


def slices_by_size(texts: Sequence[str], num_characters: int) -> Iterator[Sequence[str]]:
    """Yield consecutive texts that hold about as many characters together; one text may hold more."""
    start, size = 0, 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= num_characters or index == len(texts) - 1:
            yield texts[start : index + 1]
            start, size = index + 1, 0


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest what a text's scores follow from, wherever the model lies and however many threads compute."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in OF_A_COPY}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    told: Any = sorted(tokenizer.get_vocab().items())
    with suppress(Exception):  # slow ones, and those with parts in Python, cannot tell all that they do to a text
        told = json.loads(tokenizer.backend_tokenizer.to_str())
        told |= {"truncation": None, "padding": None}  # settings of whoever called it last
    digest.update(repr(told).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
