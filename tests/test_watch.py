"""Watching a text while it is written: what is said, when, and of which place."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from modeling_roberta_gru import RobertaGRUForSequenceClassification, cli
from modeling_roberta_gru.inference import watch as watching
from modeling_roberta_gru.inference.watch import END, NEW_DOCUMENT, Sighting, follow_file, read_stream, watch

from .refusals import refused
from .test_reader import FAMILIES, long_text, whole
from .tiny import TINY_ENCODER, tiny_config

TOKENIZER = FAMILIES["byte_level_bpe"]
NAMES = {0: "bad", 1: "good", 2: "fair"}


def classifier(seed: int = 0, **fields) -> RobertaGRUForSequenceClassification:
    torch.manual_seed(seed)
    labels = {"id2label": NAMES, "label2id": {name: index for index, name in NAMES.items()}}
    return RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(TOKENIZER), **{**labels, **fields})).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    classifier().save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def pieces(content: bytes, seed: int) -> list[bytes]:
    """Cut anywhere, inside characters too."""
    rng, cut = random.Random(seed), []
    while content:
        size = rng.choice([0, 1, 2, 3, 50])
        cut.append(content[:size])
        content = content[size:]
    return cut


@pytest.mark.parametrize("seed", range(3))
def test_a_line_says_what_the_model_says_of_the_text_so_far_whenever_that_changes(seed):
    text = long_text(40, str(seed)) + " 日本語 text 🎭🎭 café"
    model = classifier(seed).double()
    *changes, end = watch(model, TOKENIZER, pieces(text.encode(), seed), every=4)
    assert (end.event, end.characters) == (END, len(text))
    for sighting in [*changes, end]:
        probabilities = whole(model, TOKENIZER, text[: sighting.characters]).softmax(-1)
        assert sighting.prediction == NAMES[int(probabilities.argmax())]
        assert sighting.probability == pytest.approx(float(probabilities.max()), abs=1e-6)
        assert sighting.tokens == len(TOKENIZER(text[: sighting.characters], verbose=False)["input_ids"])
    predictions = [sighting.prediction for sighting in changes]
    assert len(changes) >= 1
    assert all(before != after for before, after in pairwise(predictions))
    assert end.prediction == predictions[-1]


def test_bytes_that_are_no_text_end_nothing():
    *_, end = watch(classifier(), TOKENIZER, [b"caf\xe9 and ", "日".encode()[:2]])
    assert (end.event, end.characters) == (END, len("caf\ufffd and \ufffd"))
    assert list(watch(classifier(), TOKENIZER, [])) == [Sighting(END)]
    assert "no text" in str(Sighting(END))


def test_an_interrupt_ends_with_what_was_said_last():
    def interrupted():
        yield b"some words "
        raise KeyboardInterrupt

    change, end = watch(classifier(), TOKENIZER, interrupted())
    assert (end.event, end.prediction, end.tokens) == (END, change.prediction, change.tokens)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"problem_type": "multi_label_classification"}, list),
        ({"problem_type": "regression", "id2label": {0: "stars"}, "label2id": {"stars": 0}}, float),
    ],
)
def test_several_labels_and_values_are_watched_too(fields, kind):
    model = classifier(**fields)
    *changes, end = watch(model, TOKENIZER, [long_text(40).encode()], every=20)
    values = model.readers(TOKENIZER, 1).append({0: long_text(40)})[0]
    assert isinstance(end.prediction, kind)
    if kind is list:
        assert end.prediction == [NAMES[index] for index in (values >= 0.5).nonzero()[:, 0].tolist()]
        assert len(end.probability) == len(end.prediction)
    else:
        assert (end.prediction, end.probability) == (pytest.approx(float(values), abs=1e-5), None)
    assert all(json.loads(sighting.to_json())["event"] == sighting.event for sighting in changes)
    assert "token" in str(end)


def test_a_followed_file_is_read_as_it_grows_and_anew_once_it_is_another(tmp_path):
    path, old = tmp_path / "log", tmp_path / "log.1"
    path.write_bytes("first é".encode()[:-1])

    def append(content: bytes, file=path) -> None:
        with open(file, "ab") as stream:
            stream.write(content)

    def rotate() -> None:
        path.rename(old)
        append(b" late", old)  # by a writer that has not noticed

    def interrupt() -> None:
        raise KeyboardInterrupt

    script = iter(
        [
            lambda: append("é".encode()[1:] + b" word"),
            lambda: None,
            lambda: path.write_bytes(b"cut"),
            rotate,
            lambda: path.write_bytes(b"rotated"),
            lambda: path.write_bytes(b"anew"),
            lambda: path.write_bytes(b"anew, longer"),
            lambda: path.write_bytes(b"another text, longer still"),
            interrupt,
        ]
    )
    seen: list[bytes | None] = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(follow_file(path, pause=lambda: next(script)()))
    documents = b"".join(b"|" if piece is None else piece for piece in seen).split(b"|")
    assert documents == [
        "first é word".encode(),
        b"cut late",
        b"rotated",
        b"anew, longer",
        b"another text, longer still",
    ]
    with refused(field="follow", file=str(tmp_path / "nowhere")):
        next(follow_file(tmp_path / "nowhere"))


def test_a_new_document_owes_nothing_to_the_one_before():
    model = classifier()
    *_, begun, change, end = watch(model, TOKENIZER, [b"some words caf\xc3", None, b"other words"])
    assert begun == Sighting(NEW_DOCUMENT)
    *_, alone = watch(model, TOKENIZER, [b"other words"])
    assert end == alone
    assert change.characters == len("other words")


def test_a_stream_that_does_not_wait_is_waited_for(monkeypatch):
    read, write = os.pipe()
    os.set_blocking(read, False)
    waits = []

    def write_late(seconds: float) -> None:
        waits.append(seconds)
        os.write(write, b"late")
        os.close(write)

    monkeypatch.setattr(time, "sleep", write_late)
    with os.fdopen(read, "rb") as stream:
        assert list(read_stream(stream)) == [b"late"]
    assert len(waits) == 1


def test_a_text_without_white_space_is_said_once_to_be_slow(monkeypatch, capsys):
    monkeypatch.setattr(watching, "MOST_HELD", 100)
    list(watch(classifier(), TOKENIZER, [b"word " * 60]))
    assert capsys.readouterr().err == ""
    list(watch(classifier(), TOKENIZER, [b"x" * 350], every=30))
    assert capsys.readouterr().err.count("No word ends") == 1


def test_the_command_reads_standard_input_to_its_end(saved, roberta_gru):
    text = long_text(30)
    status, said, _ = roberta_gru("watch", saved, "--every", 10, text=text.encode())
    assert status == 0
    assert said.splitlines()[-1].startswith("End, after token")
    status, said, _ = roberta_gru("watch", saved, "--every", 10, "--jsonl", text=text.encode())
    lines = [json.loads(line) for line in said.splitlines()]
    assert (status, lines[-1]["event"], lines[-1]["characters"]) == (0, "end", len(text))
    probabilities = whole(classifier(), TOKENIZER, text).softmax(-1)
    assert lines[-1]["probability"] == pytest.approx(float(probabilities.max()), abs=1e-5)


def test_what_cannot_be_watched_is_one_line_and_status_two(saved, roberta_gru, tmp_path):
    classifier(gru_bidirectional=True).save_pretrained(tmp_path / "both-ways")
    stock = RobertaConfig(**{**TINY_ENCODER, "vocab_size": len(TOKENIZER)})
    RobertaForSequenceClassification(stock).save_pretrained(tmp_path / "stock")
    for folder in ("both-ways", "stock"):
        TOKENIZER.save_pretrained(tmp_path / folder)
    for argv, said in (
        (["watch", tmp_path / "both-ways"], "gru_bidirectional"),
        (["watch", tmp_path / "stock"], "is a roberta"),
        (["watch", saved, "--follow", tmp_path / "nowhere"], "--follow"),
        (["watch", saved, "--follow", tmp_path], "regular file"),
        (["watch", "./nowhere"], "./nowhere"),
    ):
        status, _, error = roberta_gru(*argv)
        assert status == 2
        assert error.strip().splitlines()[-1].startswith("Error: ")
        assert said in error


def test_whoever_has_seen_enough_may_leave(saved, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return spare

    read, write = os.pipe()
    spare = os.dup(write)
    os.close(write)
    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(os, "read", lambda *_: b"words ")
    monkeypatch.setattr(sys, "argv", ["roberta-gru", "watch", str(saved)])
    with os.fdopen(read, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False, buffer=stdin))
        with pytest.raises(SystemExit) as end:
            cli.main()
    os.close(spare)
    assert end.value.code == 0


@pytest.mark.slow
def test_a_slow_writer_is_answered_at_once_and_an_interrupt_ends_cleanly(saved):
    # What a shell starts in the background ignores interrupts, and so would the process.
    program = "import signal, torch; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "torch.set_num_threads(1); from modeling_roberta_gru.cli import main; main()"
    command = [sys.executable, "-c", program, "watch", str(saved), "--jsonl", "--every", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write("splendid é".encode()[:-1])  # the last character is not whole yet
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["characters"] == 1
        process.send_signal(signal.SIGINT)
        lines = [json.loads(line) for line in process.stdout]
        assert (process.wait(), lines[-1]["event"]) == (0, "end")
