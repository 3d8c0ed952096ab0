"""Watch a text that is still being written, on standard input or in a file, and say when its prediction changes."""

import codecs
import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.labels import MULTI_LABEL, REGRESSION, LabelSpace
from ..errors import InputError, say
from ..modeling_roberta_gru import RobertaGRUReader
from ..training.loading import load_classifier
from .scorer import THRESHOLD, decide

READ_AT_ONCE = 2**16  # bytes
SECONDS_BETWEEN_LOOKS = 0.2
REMEMBERED = 64  # of the last bytes read of a file: one that was written anew in place has others there
MOST_HELD = 20_000  # characters whose tokens later text may change, without a word to the user
CHANGE, NEW_DOCUMENT, END = "change", "new document", "end"


@dataclass(frozen=True)
class Sighting:
    """What is said of a document that is still being written.

    Attributes:
        event: "change" of the prediction, "new document" (the followed file was replaced, truncated or rewritten) or
            "end".
        tokens: number of tokens read so far, special tokens included; 0 if there was no text.
        characters: number of characters read so far.
        prediction: the label, the list of labels, or the value; None if there was no text.
        probability: the label's; of several labels a list; None for a regression.
    """

    event: str
    tokens: int = 0
    characters: int = 0
    prediction: Any = None
    probability: Any = None

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        if self.event == NEW_DOCUMENT:
            return "The file was replaced, truncated or rewritten: a new document begins."
        if self.prediction is None:
            return "End: there was no text."
        words = {CHANGE: "At", END: "End, after"}[self.event]
        return f"{words} token {self.tokens:,}, character {self.characters:,}: {self._what()}"

    def _what(self) -> str:
        if isinstance(self.prediction, str):
            return f"{self.prediction} {self.probability:.3f}"
        if self.probability is None:
            values = self.prediction if isinstance(self.prediction, list) else [self.prediction]
            return ", ".join(f"{value:.3f}" for value in values)
        pairs = zip(self.prediction, self.probability, strict=True)
        return ", ".join(f"{label} {probability:.3f}" for label, probability in pairs) or "no label"


def load_watcher(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model that can read a document while it is written.

    Args:
        name: a run's folder, a saved model's folder or a Hub id.

    Raises:
        InputError: if there is none, or it is another architecture's, or its GRU reads both ways.
    """
    model, tokenizer = load_classifier(name)
    if model.config.model_type != RobertaGRUConfig.model_type:
        raise InputError(
            f"{name} is a {model.config.model_type}, which would have to read the whole text again at every word: "
            "only RoBERTa-GRU can continue where it stopped.",
            file=name,
        )
    try:
        model.reader(tokenizer)
    except ValueError as error:
        raise InputError(f"{name}: {error}", file=name) from error
    return model, tokenizer


def watch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pieces: Iterable[bytes | None], every: int = 200
) -> Generator[Sighting, None, None]:
    """Read a document as it comes, and yield what changes.

    Args:
        model: a RoBERTa-GRU that reads left to right, in evaluation mode.
        tokenizer: its own.
        pieces: UTF-8, cut anywhere, also inside a character; None: a new document begins.
        every: characters that are read at once at most; the fewer, the more exact the place, and the more work.

    Yields:
        A "change" whenever the prediction is another one (of a regression: its second decimal), a "new document" for
        each None, and one "end", which an interrupt brings about too.
    """
    labels = LabelSpace.from_config(model.config)
    reader = model.reader(tokenizer)
    decoder = _decoder()
    num_characters, now, is_warned = 0, Sighting(END), False

    def read_on(text: str) -> Iterator[Sighting]:
        nonlocal now, num_characters, is_warned
        for start in range(0, len(text), every):
            piece = text[start : start + every]
            probabilities = reader.append(piece)
            num_characters += len(piece)
            if not is_warned and num_characters % MOST_HELD < len(piece):
                is_warned = len(reader.state_dict()["text"]) > MOST_HELD
                if is_warned:
                    say(
                        "No word ends in a long stretch of this text (or none for this tokenizer): what has been "
                        "written since the last one ended is read again with every piece, more and more slowly.",
                        error=True,
                    )
            before, now = now, _sighting(reader, probabilities.float().cpu().numpy(), num_characters, labels)
            if _differs(before.prediction, now.prediction):
                yield now

    try:
        for piece in pieces:
            if piece is not None:
                yield from read_on(decoder.decode(piece))
                continue
            decoder, num_characters, now = _decoder(), 0, Sighting(END)
            reader.reset()
            yield Sighting(NEW_DOCUMENT)
        yield from read_on(decoder.decode(b"", final=True))
    except KeyboardInterrupt:  # how a followed file ends
        pass
    yield replace(now, event=END)


def read_stream(stream: BinaryIO) -> Iterator[bytes]:
    """Yield what a stream brings, as it comes, to its end."""
    while True:
        try:
            piece = os.read(stream.fileno(), READ_AT_ONCE)
        except BlockingIOError:  # who shares the stream has told it not to wait
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        if not piece:
            return
        yield piece


def follow_file(
    path: Path, pause: Callable[[], object] = lambda: time.sleep(SECONDS_BETWEEN_LOOKS)
) -> Iterator[bytes | None]:
    """Yield what a file holds and what is added to it, for ever.

    Args:
        path: the file; one that takes its place (a rotated log) is read from its beginning.
        pause: called whenever there is nothing new.

    Yields:
        Bytes; None where the file was replaced by another, cut or written anew: a new document begins.

    Raises:
        InputError: if there is no such file in the beginning.
    """
    try:
        file = _open(path)
    except OSError as error:
        raise InputError(
            f"--follow {path} cannot be read: {error.strerror}.", field="follow", file=str(path)
        ) from error
    place, seen = 0, b""  # up to where the file has been read, and the last bytes before
    try:
        while True:
            file.seek(place - len(seen))
            found = file.read(len(seen) + READ_AT_ONCE)
            if not found.startswith(seen):
                place, seen = 0, b""
                yield None
            elif piece := found[len(seen) :]:
                place, seen = place + len(piece), found[-REMEMBERED:]
                yield piece
            elif (successor := _successor(path, file)) is not None:
                if file.read(1):  # written between the last look and the change
                    successor.close()
                    continue
                file.close()
                file, place, seen = successor, 0, b""
                yield None
            else:
                pause()
    finally:
        file.close()


def _open(path: Path) -> FileIO:
    return open(path, "rb", buffering=0)  # a buffer would hold what the file held before


def _successor(path: Path, file: FileIO) -> FileIO | None:
    """Open the file that has taken another's name, if one has."""
    try:
        other = _open(path)
    except OSError:  # between two files
        return None
    if os.path.sameopenfile(other.fileno(), file.fileno()):
        other.close()
        return None
    return other


def _decoder() -> codecs.IncrementalDecoder:
    """Return what holds back the beginning of a character; bytes that are not UTF-8 become U+FFFD."""
    return codecs.getincrementaldecoder("utf-8-sig")(errors="replace")


def _sighting(
    reader: RobertaGRUReader, probabilities: np.ndarray, num_characters: int, labels: LabelSpace
) -> Sighting:
    prediction = decide(probabilities[None], labels.names, labels.problem_type)[0]
    if labels.problem_type == REGRESSION:
        probability = None
    elif labels.problem_type == MULTI_LABEL:
        probability = probabilities[probabilities >= THRESHOLD].tolist()
    else:
        probability = float(probabilities.max())
    return Sighting(CHANGE, reader.num_tokens, num_characters, prediction, probability)


def _differs(before: Any, now: Any) -> bool:
    return before is None or _rounded(before) != _rounded(now)


def _rounded(prediction: Any) -> Any:
    if isinstance(prediction, list):
        return [_rounded(part) for part in prediction]
    return round(prediction, 2) if isinstance(prediction, float) else prediction
