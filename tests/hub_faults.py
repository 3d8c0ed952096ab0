"""Break a push to the Hub at every request, in every way, and see what the repository holds afterwards.

Tiny models are published on a Hub of our own on loopback (hub_server.py) by the real client: for the first time
("first"), and over an earlier version of which files change, come and go ("next"). At every request of the push comes
every fault, once or from there on ("lasting"). Afterwards the repository must hold the earlier state or the new one,
whole; a second push, without faults, must complete it to what an undisturbed one leaves, to the commit. Nothing is
waited for in between.
"""

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import huggingface_hub
import torch

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.files import write_json, write_text
from modeling_roberta_gru.hub import publish as publishing
from modeling_roberta_gru.hub.publish import publish

from .hub_server import FAULTS, WRITER, HubServer, Repository

NAME = "ada/rehearsed"
CARD = "---\nlicense: apache-2.0\npipeline_tag: text-classification\n---\n\n# Model {seed}\n"
TEXTS = ["the plot was long and slow", "splendid music", "dreadful, and more so than most", "we liked it"] * 5


class Outcome(NamedTuple):
    """What came of one fault.

    Attributes:
        scenario: "first" or "next".
        fault, index, is_lasting: what met which request, and whether all further ones.
        completed: whether the push got through all the same.
        broken: what was not as it must be afterwards; None where nothing was.
    """

    scenario: str
    fault: str
    index: int
    is_lasting: bool
    completed: bool
    broken: str | None


def save_model(folder: Path, seed: int, **options: Any) -> Path:
    """Save a tiny classifier with tokenizer and card, ready to be published."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 20}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 22, "gru_hidden_size": 7}
    torch.manual_seed(seed)
    RobertaGRUForSequenceClassification(RobertaGRUConfig(**sizes)).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    write_text(folder / "README.md", CARD.format(seed=seed))
    write_json(folder / "run.json", {"seed": seed})
    return folder


def save_versions(folder: Path) -> tuple[Path, Path]:
    """Save an earlier version, its weights in shards, and one that follows it."""
    earlier, later = folder / "earlier", folder / "later"
    save_model(earlier, 0, max_shard_size="12KB")
    write_json(earlier / "metrics.json", {})
    save_model(later, 1)
    write_text(later / "handler.py", "class EndpointHandler:\n    pass\n")
    return earlier, later


@contextmanager
def on_loopback() -> Iterator[list[float]]:
    """Let the client reach our Hub, by plain LFS; what is to be waited for is listed and not waited for."""
    waits: list[float] = []
    flags = mock.patch.multiple(huggingface_hub.constants, HF_HUB_OFFLINE=False, HF_HUB_DISABLE_XET=True)
    with flags, mock.patch.object(time, "sleep", waits.append):
        yield waits
    huggingface_hub.close_session()


def rehearse(
    earlier: Path | None,
    later: Path,
    faults: Sequence[str] = FAULTS,
    paths: str = "",
    lasting: Sequence[bool] = (False, True),
) -> Iterator[Outcome]:
    """Publish a folder over an earlier one, or for the first time, with each fault at each request.

    Args:
        earlier, later: the folders; no earlier one for the first time.
        faults: of `hub_server.FAULTS`.
        paths: break those requests only whose path holds this.
        lasting: whether one request is broken, or all from it on, or both in turn.
    """
    # The folders do not change: they are checked once.
    checked_once = mock.patch.object(publishing, "pack", functools.cache(publishing.pack))
    with checked_once, HubServer() as hub:
        if earlier is not None:
            publish(earlier, NAME, token=WRITER, endpoint=hub.url)
        start = _copy(hub.repositories)
        hub.requests.clear()
        publish(later, NAME, token=WRITER, endpoint=hub.url)
        end = _copy(hub.repositories)
        indices = [request.index for request in hub.requests if paths in request.path]
        for fault in faults:
            for index in indices:
                for is_lasting in lasting:
                    completed, broken = _break(hub, later, start, end[NAME], fault, index, is_lasting)
                    yield Outcome("next" if earlier else "first", fault, index, is_lasting, completed, broken)


def _break(
    hub: HubServer,
    folder: Path,
    start: dict[str, Repository],
    end: Repository,
    fault: str,
    index: int,
    is_lasting: bool,
) -> tuple[bool, str | None]:
    hub.repositories, hub.objects = _copy(start), {}
    hub.requests.clear()
    hub.faults = lambda at, *_: fault if at == index or (is_lasting and at > index) else None
    completed = _completes(hub, folder)
    if completed is None:
        return False, "the push raised something else than an InputError"
    broken = _broken(hub, start, end)
    hub.faults = lambda *_: None
    if broken is None and not _completes(hub, folder):
        broken = "the second attempt failed"
    if broken is None and hub.repositories[NAME] != end:
        broken = "the second attempt left another state than an undisturbed one"
    return completed, broken


def _copy(repositories: dict[str, Repository]) -> dict[str, Repository]:
    """Copy what changes: a commit never does."""
    return {
        name: Repository(held.is_private, dict(held.commits), dict(held.branches), dict(held.tags))
        for name, held in repositories.items()
    }


def _completes(hub: HubServer, folder: Path) -> bool | None:
    """Publish; tell whether it got through, or None where it did not fail as it should."""
    try:
        publish(folder, NAME, token=WRITER, endpoint=hub.url)
    except InputError:
        return False
    except Exception:
        return None
    return True


def _broken(hub: HubServer, start: dict[str, Repository], end: Repository) -> str | None:
    held = hub.repositories.get(NAME)
    if hub.unknown:
        return f"the push asked for {hub.unknown[0]}"
    if held is None:
        return "the repository is gone" if NAME in start else None
    whole = {oid for oid, commit in end.commits.items() if commit.parent is None} | {end.branches["main"]}
    if NAME in start:
        whole |= start[NAME].commits.keys()
    if not held.commits.keys() <= whole:
        return "the repository held neither the earlier state nor the new one"
    return None if held.tags.items() <= end.tags.items() else "a tag names another commit than it should"
