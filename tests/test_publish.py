"""Publishing, by the real client, on a Hub of our own: what arrives, what never travels, and what faults leave."""

import errno
import functools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import huggingface_hub
import pytest
import torch
import typer
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
from modeling_roberta_gru.cli import app
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.files import write_json, write_text
from modeling_roberta_gru.hub import publish as publishing
from modeling_roberta_gru.hub.publish import Publication, check_rights, describe_publication, publish
from modeling_roberta_gru.training import loading
from modeling_roberta_gru.training.adapter import add_lora, write_adapter

from .clean_process import without_the_package
from .hub_server import FAULTS, READER, STRANGER, WRITER, HubServer, Repository
from .refusals import refused
from .test_experiment import train_tiny
from .tiny import tiny_config

# huggingface_hub 2.4 gives an upload's file to its HTTP client as `data`, which has gone out of use there.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

NAME = "ada/model"
MADE_BY_THE_HUB = ".gitattributes"
CARD = "---\nlicense: apache-2.0\npipeline_tag: text-classification\n---\n\n# Model {seed}\n"


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> tuple[Path, Path]:
    """Save an earlier version, its weights in shards, and one that follows it."""
    folder = tmp_path_factory.mktemp("versions")
    texts = ["the plot was long and slow", "splendid music", "dreadful, and more so than most", "we liked it"] * 5
    tokenizer = train_tokenizer(texts, vocab_size=300)
    for seed, (name, options) in enumerate({"earlier": {"max_shard_size": "12KB"}, "later": {}}.items()):
        torch.manual_seed(seed)
        config = tiny_config(vocab_size=len(tokenizer), num_hidden_layers=1)
        RobertaGRUForSequenceClassification(config).save_pretrained(folder / name, **options)
        tokenizer.save_pretrained(folder / name)
        write_text(folder / name / "README.md", CARD.format(seed=seed))
        write_json(folder / name / "run.json", {"steps": seed})
    write_json(folder / "earlier" / "metrics.json", {})
    shutil.copy(Path(__file__).parents[1] / "model_card" / "handler.py", folder / "later")
    return folder / "earlier", folder / "later"


@pytest.fixture
def model(versions, tmp_path) -> Path:
    """Return a folder of one's own to spoil."""
    return Path(shutil.copytree(versions[1], tmp_path / "model"))


@pytest.fixture
def waits() -> Iterator[list[float]]:
    """Let the client reach our Hub, by plain LFS; return the seconds that it wanted to wait, which pass at once."""
    waits: list[float] = []
    flags = mock.patch.multiple(constants, HF_HUB_OFFLINE=False, HF_HUB_DISABLE_XET=True)
    with flags, mock.patch.object(time, "sleep", waits.append):
        yield waits
    huggingface_hub.close_session()


@pytest.fixture
def hub(waits):
    with HubServer() as hub:
        yield hub
        assert hub.unknown == []


def push(hub: HubServer, run: Path, repo_id: str = NAME, **options) -> Publication:
    return publish(run, repo_id, **{"token": WRITER, "endpoint": hub.url, **options})


def contents(hub: HubServer, branch: str = "main", repo_id: str = NAME) -> dict[str, bytes]:
    """Return what a branch holds, but for what the Hub itself puts there."""
    return {name: held for name, held in hub.head(repo_id, branch).contents.items() if name != MADE_BY_THE_HUB}


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def requests_before_any_upload(hub: HubServer) -> bool:
    return not any(request.method == "PUT" or "/commit/" in request.path for request in hub.requests)


# What travels


def test_what_arrives_is_what_the_folder_holds_of_a_model_byte_for_byte(hub, model) -> None:
    whole = read(model)
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", ".env", "notes.txt", "modeling_other.py"):
        (model / name).write_text("stays here")
    for folder in (".cache", "checkpoint-10"):
        (model / folder).mkdir()
        (model / folder / "model.safetensors").write_text("stays here")
    publication = push(hub, model)
    assert contents(hub) == whole
    assert publication.plan.left_out == sorted(path.name for path in model.iterdir() if path.name not in whole)
    assert not any(b"stays here" in content for content in hub.objects.values())


def test_a_run_publishes_its_model_and_keeps_the_rest(hub, model, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    (run / "predictions.parquet").write_text("rows")
    push(hub, run)
    assert contents(hub) == read(model)


def test_the_next_version_replaces_the_earlier_one_in_one_commit(hub, versions) -> None:
    earlier, later = versions
    first = push(hub, earlier)
    repository = hub.repositories[NAME]
    commits = len(repository.commits)
    second = push(hub, later)
    assert contents(hub) == read(later)
    assert len(repository.commits) == commits + 1
    assert hub.head(NAME).parent == first.oid
    assert repository.tags == {"v1": first.oid, "v2": second.oid}
    assert repository.commits[first.oid].contents.items() >= read(earlier).items()
    assert (
        describe_publication(second).splitlines()[-1]
        == f"Published as {NAME}, v2: {hub.url}/{NAME}/commit/{second.oid}"
    )


def test_files_of_others_stay_in_the_repository(hub, versions) -> None:
    others = {"docs/notes.md": b"theirs", "logo.png": b"theirs", "app.py": b"theirs"}
    hub.create(NAME, {**read(versions[0]), **others})
    push(hub, versions[1])
    assert contents(hub) == {**read(versions[1]), **others}


def test_a_model_loads_from_the_hub_with_the_logits_it_was_saved_with(hub, model, tmp_path) -> None:
    tag = push(hub, model).tag
    push(hub, shutil.copytree(model, tmp_path / "other"), tag="other")
    loaded = HfApi(hub.url, token=READER).snapshot_download(NAME, revision=tag, local_dir=tmp_path / "loaded")
    inputs = AutoTokenizer.from_pretrained(loaded)("dreadful music, and long", return_tensors="pt")
    expected, actual = (
        RobertaGRUForSequenceClassification.from_pretrained(folder).eval()(**inputs).logits
        for folder in (model, loaded)
    )
    assert torch.equal(actual, expected)


def test_what_the_repository_ignores_travels_too(hub, model) -> None:
    hub.create(NAME, {".gitignore": b"*.json\n*.safetensors\n"})
    push(hub, model)
    assert contents(hub).items() >= read(model).items()


# A dry run


@pytest.mark.parametrize("token", [None, READER])
def test_a_dry_run_sends_no_request_that_writes_and_needs_no_rights(hub, versions, token, no_token) -> None:
    hub.create(NAME, read(versions[0]))
    publication = push(hub, versions[1], dry_run=True, token=token)
    assert {request.method for request in hub.requests} == {"GET"}
    assert publication.oid is None
    uploads = {name: len(content) for name, content in read(versions[1]).items()}
    plan = publication.plan
    assert {**plan.uploads, **plan.unchanged} == uploads
    assert set(plan.deletions) == read(versions[0]).keys() - uploads.keys()
    lines = describe_publication(publication).splitlines()
    assert any(re.fullmatch(r"upload +[\d,]+ bytes  model\.safetensors", line) for line in lines)
    assert any("delete" in line and "model.safetensors.index.json" in line for line in lines)


def test_a_dry_run_of_a_new_name_makes_no_repository(hub, model) -> None:
    publication = push(hub, model, dry_run=True)
    assert hub.repositories == {}
    assert (publication.tag, publication.plan.uploads.keys()) == ("v1", read(model).keys())


def test_a_dry_run_tells_what_would_be_overwritten_and_does_not_ask(hub, model) -> None:
    hub.create(NAME, {"config.json": b'{"model_type": "bert", "architectures": ["BertModel"]}'})
    questions: list[str] = []
    said = describe_publication(
        push(hub, model, dry_run=True, confirm=lambda question: bool(questions.append(question)))
    )
    assert "holds a bert model (BertModel)" in said
    assert questions == []


def nobody_listens() -> str:
    with HubServer() as hub:
        return hub.url


@pytest.mark.parametrize("hindrance", ["offline mode", "no Hub", "broken Hub", "wrong token"])
def test_a_dry_run_lists_the_files_where_the_hub_does_not_answer(hub, model, waits, hindrance) -> None:
    options: dict[str, Any] = {"dry_run": True}
    if hindrance == "no Hub":
        options["endpoint"] = nobody_listens()
    if hindrance == "wrong token":
        options["token"] = "hf_unknown"
    hub.faults = lambda *_: "503" if hindrance == "broken Hub" else None
    with mock.patch.object(constants, "HF_HUB_OFFLINE", hindrance == "offline mode"):
        publication = push(hub, model, **options)
    assert publication.plan.uploads == {name: len(content) for name, content in read(model).items()}
    assert waits == []
    *files, unasked, last = describe_publication(publication).splitlines()
    assert len(files) == len(read(model))
    assert unasked.startswith(f"Could not ask the Hub what {NAME} holds (")
    assert last.endswith("nothing was pushed.")


# Versions


def test_what_is_published_already_gets_no_second_commit_and_no_second_tag(hub, model) -> None:
    first = push(hub, model)
    assert push(hub, model).oid == first.oid
    assert hub.repositories[NAME].tags == {"v1": first.oid}
    push(hub, model, tag="paper")
    assert hub.repositories[NAME].tags == {"v1": first.oid, "paper": first.oid}


def test_versions_are_counted_as_numbers(hub, model) -> None:
    repository = hub.create(NAME)
    repository.tags = dict.fromkeys(["v2", "v10", "v3.5", "draft"], hub.head(NAME).oid)
    assert push(hub, model).tag == "v11"


@pytest.mark.parametrize("options", [{"tag": "v1"}, {"tag": "main"}, {"revision": "v1"}])
def test_a_name_that_means_something_else_is_refused_before_anything_is_pushed(hub, versions, options) -> None:
    head = push(hub, versions[0]).oid
    hub.requests.clear()
    with refused(field=next(iter(options))):
        push(hub, versions[1], **options)
    assert hub.head(NAME).oid == head
    assert requests_before_any_upload(hub)


@pytest.mark.parametrize("name", ["two words", "-x", "a..b", "v1.lock", "", "a/"])
def test_a_name_that_git_does_not_take_is_refused(waits, model, name) -> None:
    with refused(field="tag", match="git"):
        publish(model, NAME, tag=name, token=WRITER)


def test_a_branch_begins_at_main_and_leaves_main_alone(hub, versions) -> None:
    main = push(hub, versions[0])
    trial = push(hub, versions[1], revision="trials/one")
    assert hub.head(NAME).oid == main.oid
    assert hub.head(NAME, "trials/one").parent == main.oid
    assert contents(hub, "trials/one") == read(versions[1])
    assert trial.tag == "v2"


# What a repository holds


OTHERS = {
    "bert": {"config.json": b'{"model_type": "bert", "architectures": ["BertModel"]}'},
    "no config.json": {"data.csv": b"1,2"},
    "does not tell its type": {"config.json": b"[]"},
}


@pytest.mark.parametrize("held", OTHERS)
def test_something_else_is_overwritten_only_when_it_is_confirmed(hub, model, held) -> None:
    before = hub.create(NAME, OTHERS[held]).branches["main"]
    questions: list[str] = []
    with refused(file=NAME, match=held):
        push(hub, model, confirm=lambda question: bool(questions.append(question)))
    assert hub.head(NAME).oid == before
    assert requests_before_any_upload(hub)
    assert len(questions) == 1
    push(hub, model, confirm=lambda question: True)
    assert contents(hub) == {**OTHERS[held], **read(model)}


def test_labels_are_compared_whole_however_long(hub, model, tmp_path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "mine"))
    config = json.loads((folder / "config.json").read_text())

    def with_labels(*names: str) -> bytes:
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
        return json.dumps({**config, **labels}).encode()

    (folder / "config.json").write_bytes(with_labels("n" * 70, "p" * 70))
    hub.create(NAME, {"config.json": with_labels("q" * 70, "r" * 70)})
    with refused(file=NAME, match="other labels"):
        push(hub, folder)


def test_weights_of_another_format_are_asked_about_and_stay(hub, model) -> None:
    hub.create(NAME, {**read(model), "pytorch_model.bin": b"theirs"})
    with refused(file=NAME, match=r"pytorch_model\.bin"):
        push(hub, model)
    push(hub, model, confirm=lambda question: True)
    assert contents(hub) == {**read(model), "pytorch_model.bin": b"theirs"}


def test_a_second_attempt_does_not_ask_again(hub, model) -> None:
    hub.create(NAME, OTHERS["bert"])
    questions: list[str] = []
    hub.faults = lambda index, method, path: "503" if "/validate-yaml" in path and len(hub.requests) < 12 else None
    push(hub, model, confirm=lambda question: not questions.append(question))
    assert len(questions) == 1
    assert sum("/validate-yaml" in request.path for request in hub.requests) > 1


@pytest.mark.parametrize("name", [".gitattributes", "README.md", "LICENSE"])
def test_a_repository_without_a_model_is_not_asked_about(hub, model, name) -> None:
    hub.create(NAME, {name: b"begun by hand"})
    push(hub, model)
    assert contents(hub)["config.json"] == (model / "config.json").read_bytes()


def test_a_private_model_is_for_its_owner(hub, model) -> None:
    push(hub, model, private=True)
    assert HfApi(hub.url, token=READER).repo_exists(NAME)
    assert not HfApi(hub.url, token=STRANGER).repo_exists(NAME)


@pytest.mark.parametrize("is_private", [True, False])
def test_what_is_public_is_not_taken_for_private_nor_the_other_way_round(hub, model, is_private) -> None:
    before = hub.create(NAME, is_private=is_private).branches["main"]
    for call in (check_rights, lambda *names, **options: publish(model, *names, **options)):
        with refused(file=NAME, match=f"is {'private' if is_private else 'public'}, "):
            call(NAME, private=not is_private, token=WRITER, endpoint=hub.url)
    assert hub.head(NAME).oid == before


# Bad folders: nothing is even asked of the Hub


def link(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to("/etc/hostname")


def edit_run(**fields: Any):
    return lambda model: write_json(model / "run.json", fields)


def cut_weights(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def card(text: str):
    return lambda model: (model / "README.md").write_text(text)


SPOILT = {
    "truncated": (cut_weights, "model.safetensors", None),
    "no configuration": (lambda model: (model / "config.json").unlink(), "config.json", None),
    "link": (lambda model: link(model, "vocab.txt"), "vocab.txt", None),
    "link in place of the weights": (lambda model: link(model, "model.safetensors"), "model.safetensors", None),
    "dangling link": (lambda model: (model / "spm.model").symlink_to("nowhere"), "spm.model", None),
    "record of something else": (edit_run(environment={}), "run.json", "environment"),
    "record of other options": (edit_run(options={"api_key": "x"}), "run.json", "api_key"),
    "record that is no JSON": (lambda model: write_text(model / "run.json", "{"), "run.json", None),
    "record of many levels": (lambda model: write_text(model / "run.json", "[" * 100_000), "run.json", None),
    "record with odd options": (edit_run(options=[]), "run.json", "options"),
    "adapter beside a model": (
        lambda model: write_json(model / "adapter_config.json", {"base_model_name_or_path": "ada/encoder"}),
        "",
        None,
    ),
    "pipe": (lambda model: os.mkfifo(model / "vocab.txt"), "vocab.txt", None),
    "no card": (lambda model: (model / "README.md").unlink(), "README.md", None),
    "card without metadata": (card("# A model"), "README.md", "license"),
    "card without licence": (card("---\nlanguage: en\n---\n"), "README.md", "license"),
    "card that is no YAML": (card("---\nlicense: [mit\n---\n"), "README.md", None),
    "card of a list": (card("---\n- mit\n---\n"), "README.md", None),
    "card with odd results": (card("---\nlicense: mit\nmodel-index: 7\n---\n"), "README.md", None),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_folder_that_is_not_whole_is_one_clear_error_and_no_request(hub, model, spoilt) -> None:
    spoil, file, field = SPOILT[spoilt]
    spoil(model)
    said = "symbolic link" if "link" in spoilt else None  # which is no whole file either
    with refused(field=field, file=str(model / file), match=said) as raised:
        push(hub, model)
    assert "\n" not in str(raised.value)
    assert hub.requests == []


def test_a_run_whose_model_is_a_link_is_refused(waits, model, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(model)
    with refused(file=str(tmp_path / "run" / "model")):
        publish(tmp_path / "run", NAME, token=WRITER)


def test_a_run_without_a_model_says_so(waits, tmp_path) -> None:
    with refused(file=str(tmp_path / "nowhere")):
        publish(tmp_path / "nowhere", NAME, token=WRITER)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="without a model"):
        publish(tmp_path, NAME, token=WRITER)


# Names, tokens and rights


@pytest.fixture
def no_token(monkeypatch, tmp_path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))


@pytest.mark.parametrize("name", ["model", "a/b/c", "ada/a model", "ada/", "ada/x--y"])
def test_a_name_that_the_hub_cannot_have_is_refused(hub, model, name) -> None:
    for call in (check_rights, lambda *names, **options: publish(model, *names, **options)):
        with refused(file=name):
            call(name, token=WRITER, endpoint=hub.url)
    assert hub.requests == []


def test_without_a_token_the_way_to_one_is_told(hub, model, no_token) -> None:
    for call in (check_rights, lambda *names, **options: publish(model, *names, **options)):
        with refused(field="HF_TOKEN", match="hf auth login"):
            call(NAME, endpoint=hub.url)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "name", "said"),
    [
        ("hf_unknown", NAME, "does not accept .*hf auth login"),
        (READER, NAME, "ada may only read.*hf auth login"),
        (STRANGER, NAME, "Name it charles/model"),
        (WRITER, "babbage/model", "ada, lovelace.*Name it ada/model"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_missing_rights_are_told_before_anything_is_written(hub, model, token, name, said, exists) -> None:
    if exists:
        hub.create(name)
    for call in (check_rights, lambda *names, **options: publish(model, *names, **options)):
        with refused(field="token", match=said):
            call(name, token=token, endpoint=hub.url)
    assert {request.method for request in hub.requests} == {"GET"}


@pytest.mark.parametrize("name", [NAME, "Ada/model", "lovelace/model"])
def test_rights_are_found_out_without_writing(hub, name) -> None:
    check_rights(name, token=WRITER, endpoint=hub.url)
    assert {request.method for request in hub.requests} == {"GET"}
    assert hub.repositories == {}


def test_a_repository_that_a_token_may_not_write_to_is_found_out(hub) -> None:
    hub.create(NAME)
    hub.faults = lambda index, method, path: "403" if path.endswith("/auth-check/write") else None
    with refused(field="token", file=NAME):
        check_rights(NAME, token=WRITER, endpoint=hub.url)


def test_offline_mode_is_named(model) -> None:
    with refused(field="HF_HUB_OFFLINE"):
        publish(model, NAME, token=WRITER)


# Faults


def fail(hub: HubServer, part: str, *faults: str) -> None:
    """Let the first requests whose method and path hold `part` meet these faults."""
    remaining = list(faults)
    hub.faults = lambda index, *words: remaining.pop(0) if part in " ".join(words) and remaining else None


def test_what_may_pass_is_tried_again_with_a_line_for_each(hub, model, waits, caplog) -> None:
    fail(hub, "/commit/", "503", "500", "cut")
    with caplog.at_level(logging.WARNING, logger=publishing.__name__):
        push(hub, model)
    assert contents(hub) == read(model)
    lines = [record.getMessage() for record in caplog.records if record.name == publishing.__name__]
    assert [f"({number} of 5)" in line for number, line in enumerate(lines, start=1)] == [True] * 3
    assert waits == [2, 4, 8]


def test_the_wait_that_the_hub_asks_for_is_kept(hub, model, waits) -> None:
    hub.retry_after = 7
    fail(hub, "/commit/", "429")
    push(hub, model)
    assert waits == [7]


def test_a_wait_that_is_too_long_is_told_instead(hub, model, waits) -> None:
    hub.retry_after = 3600
    fail(hub, "/commit/", "429")
    with refused(file=NAME, match="in 3,600 s"):
        push(hub, model)
    assert waits == []


def test_trying_ends(hub, model, waits) -> None:
    fail(hub, "/commit/", *["503"] * 100)
    with refused(file=NAME, match=r"6 attempts.*HTTP 503"):
        push(hub, model)
    assert sum("/commit/" in request.path for request in hub.requests) == 6
    assert waits == sorted(waits)


def test_what_the_hub_refuses_is_not_tried_again(hub, model, waits) -> None:
    fail(hub, "/validate-yaml", "400")
    with refused(file=NAME, match="Bad request"):
        push(hub, model)
    assert waits == []


def test_an_upload_whose_address_has_expired_is_begun_again(hub, model, waits) -> None:
    fail(hub, "PUT /lfs/", "403")
    push(hub, model)
    assert contents(hub) == read(model)
    assert waits == [2]


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub, versions) -> None:
    push(hub, versions[0])
    commits = len(hub.repositories[NAME].commits)
    fail(hub, "/commit/", "lost")
    publication = push(hub, versions[1])
    assert len(hub.repositories[NAME].commits) == commits + 1
    assert hub.repositories[NAME].tags["v2"] == publication.oid == hub.head(NAME).oid


def test_a_commit_of_somebody_else_in_between_is_kept(hub, versions) -> None:
    push(hub, versions[0])
    repository = hub.repositories[NAME]

    def interfere(index: int, method: str, path: str) -> None:
        if "/commit/" in path and "theirs" not in [commit.title for commit in repository.commits.values()]:
            files = hub.head(NAME).files
            theirs = {"theirs.md": files["README.md"], "tokenizer.json": files["README.md"]}
            repository.add("main", "theirs", {**files, **theirs})

    hub.faults = interfere
    push(hub, versions[1])
    assert contents(hub) == {**read(versions[1]), "theirs.md": read(versions[0])["README.md"]}
    assert repository.commits[hub.head(NAME).parent].title == "theirs"


def test_a_tag_of_somebody_else_in_between_is_kept(hub, versions) -> None:
    first = push(hub, versions[0]).oid
    tags = hub.repositories[NAME].tags
    hub.faults = lambda index, method, path: tags.setdefault("v2", first) and None if "/tag/" in path else None
    second = push(hub, versions[1])
    assert tags == {"v1": first, "v2": first, "v3": second.oid}


class Outcome(NamedTuple):
    """What came of one fault: which, at which request, whether at all later ones too, and what it broke."""

    fault: str
    index: int
    is_lasting: bool
    broken: str | None


def rehearse(earlier: Path | None, later: Path, faults=FAULTS, paths: str = "") -> list[Outcome]:
    """Publish a folder over an earlier one, or for the first time, with each fault at each request whose path fits."""
    # The folders do not change: they are checked once.
    checked_once = functools.cache(publishing.travelling_files)
    with mock.patch.object(publishing, "travelling_files", checked_once), HubServer() as hub:
        if earlier is not None:
            push(hub, earlier)
        start = copy(hub.repositories)
        hub.requests.clear()
        push(hub, later)
        end = copy(hub.repositories)[NAME]
        indices = [request.index for request in hub.requests if paths in request.path]
        return [
            Outcome(fault, index, is_lasting, break_push(hub, later, start, end, fault, index, is_lasting))
            for fault in faults
            for index in indices
            for is_lasting in (False, True)
        ]


def break_push(hub, folder: Path, start, end: Repository, fault: str, index: int, is_lasting: bool) -> str | None:
    """Return what a push that meets a fault breaks, or what the next one does not mend; None if nothing."""
    hub.repositories, hub.objects = copy(start), {}
    hub.requests.clear()
    hub.faults = lambda at, *_: fault if at == index or (is_lasting and at > index) else None
    try:
        completes(hub, folder)
    except Exception as error:
        return f"the push raised {error!r}"
    held = hub.repositories.get(NAME)
    whole = {oid for oid, commit in end.commits.items() if commit.parent is None} | {end.branches["main"]}
    whole |= start[NAME].commits.keys() if NAME in start else set()
    if hub.unknown:
        return f"the push asked for {hub.unknown[0]}"
    if held is None and NAME in start:
        return "the repository is gone"
    if held is not None and not held.commits.keys() <= whole:
        return "the repository held neither the earlier version nor the new one"
    if held is not None and not held.tags.items() <= end.tags.items():
        return "a tag names another commit than it should"
    hub.faults = lambda *_: None
    if not completes(hub, folder) or hub.repositories[NAME] != end:
        return "the second push left another state than an undisturbed one"
    return None


def copy(repositories: dict[str, Repository]) -> dict[str, Repository]:
    """Copy what changes: a commit never does."""
    return {
        name: Repository(held.is_private, dict(held.commits), dict(held.branches), dict(held.tags))
        for name, held in repositories.items()
    }


def completes(hub: HubServer, folder: Path) -> bool:
    try:
        push(hub, folder)
    except InputError:
        return False
    return True


def broken(outcomes: list[Outcome]) -> list[Outcome]:
    assert outcomes
    return [outcome for outcome in outcomes if outcome.broken is not None]


@pytest.mark.parametrize(("faults", "paths"), [(FAULTS, "/commit/"), (("cut", "lost"), "/tag/")])
def test_a_broken_push_leaves_the_repository_whole(versions, waits, faults, paths) -> None:
    assert broken(rehearse(*versions, faults=faults, paths=paths)) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("is_first", [True, False])
def test_no_fault_at_any_request_does_harm(versions, waits, fault, is_first) -> None:
    earlier, later = versions
    before = [read(folder) for folder in versions]
    assert broken(rehearse(None if is_first else earlier, later, faults=(fault,))) == []
    assert [read(folder) for folder in versions] == before


# Adapters

LOAD_ADAPTER = """
{code}
import json, torch
with torch.no_grad():
    print(json.dumps(model.requires_grad_(False)(torch.tensor({ids})).logits.tolist()))
"""


def with_adapter(encoder: Path, base: str) -> Any:
    """Return a model with a fresh adapter, which says that its encoder is `base`."""
    config = RobertaGRUConfig.from_pretrained(encoder, gru_hidden_size=7, head_hidden_size=5)
    model = add_lora(RobertaGRUForSequenceClassification.from_pretrained(encoder, config=config), rank=2).eval()
    model.peft_config["default"].base_model_name_or_path = base
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_travels_and_loads_from_the_hub_onto_its_encoder(hub, stand_in, tmp_path) -> None:
    hub.create("ada/encoder", read(stand_in))
    model = with_adapter(stand_in, base="ada/encoder")
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    write_adapter(model, "apache-2.0", tmp_path / "adapter")
    AutoTokenizer.from_pretrained(stand_in).save_pretrained(tmp_path / "adapter")
    push(hub, tmp_path / "adapter", "ada/adapter")
    assert contents(hub, repo_id="ada/adapter") == read(tmp_path / "adapter")

    readme = (tmp_path / "adapter" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1].replace('adapter = "."', 'adapter = "ada/adapter"')
    ids = [[0, 5, 9, 30, 2]]
    program = without_the_package(LOAD_ADAPTER.format(code=code, ids=ids))
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, "-I", "-c", program], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    expected = model.requires_grad_(False)(torch.tensor(ids)).logits
    torch.testing.assert_close(torch.tensor(json.loads(process.stdout.splitlines()[-1])), expected)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("base", [None, "../shared/encoder", "/home/ada/encoder", "encoders\\ours"])
def test_an_adapter_of_a_local_encoder_is_refused(hub, stand_in, tmp_path, base) -> None:
    write_adapter(with_adapter(stand_in, base or str(stand_in)), "apache-2.0", tmp_path / "adapter")
    with refused(file=str(tmp_path / "adapter" / "adapter_config.json")):
        push(hub, tmp_path / "adapter")
    assert hub.repositories == {}


# At the end of a training, and by the command line


@pytest.fixture
def at_home(hub, monkeypatch) -> HubServer:
    """Return the Hub that the client talks to without being told."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    return hub


def test_a_training_publishes_its_run_at_the_end(at_home, reviews, stand_in, tmp_path, capsys) -> None:
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in]
    train_tiny(tmp_path / "run", *options, "--push_to_hub", "true", "--hub_model_id", NAME, "--hub_private_repo", True)
    assert contents(at_home) == read(tmp_path / "run" / "model")
    assert at_home.repositories[NAME].is_private
    assert f"Published as {NAME}, v1: {at_home.url}/{NAME}/commit/" in capsys.readouterr().out


def test_the_commit_that_a_training_began_from_is_recorded(at_home, model, reviews, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert CliRunner().invoke(app, ["publish", str(model), NAME]).exit_code == 0
    config = json.loads((model / "config.json").read_text())
    sizes = [word for name in ("gru_hidden_size", "head_hidden_size") for word in (f"--{name}", config[name])]
    train_tiny(tmp_path / "run", "--dataset_name", reviews, "--model_name_or_path", NAME, *sizes)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["model"]["base_revision"] == HfApi(at_home.url, token=WRITER).model_info(NAME).sha


def test_whether_html_was_removed_in_training_is_asked_of_the_hub_or_said_to_be_unknown(
    at_home, model, tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    record = {"options": {"clean_html": True}}
    files = {"config.json": (model / "config.json").read_bytes(), "run.json": json.dumps(record).encode()}
    at_home.create("ada/cleaned", files)
    at_home.create("ada/plain", {"config.json": files["config.json"]})
    assert loading.was_cleaned("ada/cleaned")
    assert not loading.was_cleaned("ada/plain")
    assert not caplog.records
    (cached,) = (tmp_path / "cache").rglob("run.json")
    cached.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not loading.was_cleaned("ada/cleaned")
    assert "How texts were read to train ada/cleaned" in caplog.text


def test_a_file_that_cannot_be_read_is_not_the_hubs_fault(at_home, model, monkeypatch) -> None:
    monkeypatch.setattr(publishing.time, "sleep", lambda seconds: pytest.fail("the Hub was asked again"))

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(model / "LICENSE"))

    monkeypatch.setattr(publishing, "_commit", refuse)
    outcome = CliRunner().invoke(app, ["publish", str(model), NAME])
    assert outcome.exit_code == 2
    assert "LICENSE cannot be read: Permission denied" in outcome.output.replace("\n", "")


def test_missing_rights_are_told_before_the_training(at_home, reviews, stand_in, tmp_path) -> None:
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in]
    with refused(field="token", file="bob/model"):
        train_tiny(tmp_path / "run", *options, "--push_to_hub", "true", "--hub_model_id", "bob/model")
    assert not (tmp_path / "run").exists()


def test_a_failed_push_does_not_cost_the_run(at_home, reviews, stand_in, tmp_path) -> None:
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in]
    fail(at_home, "/commit/", *["500"] * 9)
    with pytest.raises(
        InputError, match=f"The run itself is whole.*: roberta-gru publish {tmp_path}/run {NAME} --private$"
    ):
        train_tiny(
            tmp_path / "run", *options, "--push_to_hub", True, "--hub_model_id", NAME, "--hub_private_repo", True
        )
    at_home.faults = lambda index, method, path: None
    published = CliRunner().invoke(app, ["publish", str(tmp_path / "run"), NAME])
    assert published.exit_code == 0, published.output
    assert f"Published as {NAME}, v1" in published.output
    assert contents(at_home) == read(tmp_path / "run" / "model")


def test_without_a_terminal_nothing_is_overwritten_unless_told(at_home, model) -> None:
    at_home.create(NAME, {"config.json": b"{}"})
    outcome = CliRunner().invoke(app, ["publish", str(model), NAME])
    assert outcome.exit_code == 2
    assert contents(at_home) == {"config.json": b"{}"}
    assert CliRunner().invoke(app, ["publish", str(model), NAME, "--yes"]).exit_code == 0
    assert contents(at_home) == read(model)


def test_a_question_that_is_broken_off_ends_it_and_is_not_asked_again(at_home, model, monkeypatch) -> None:
    asked: list[str] = []

    def break_off(question: str) -> bool:
        asked.append(question)
        raise typer.Abort

    def publish(*_: Any, confirm: Callable[[str], bool], **__: Any) -> None:
        publishing._retry(lambda: confirm("Overwrite it?"), NAME)

    monkeypatch.setattr(typer, "confirm", break_off)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(publishing, "publish", publish)
    with pytest.raises(SystemExit) as ended:
        app(["publish", str(model), NAME])
    assert (ended.value.code, len(asked)) == (130, 1)


def test_a_model_of_other_labels_is_something_else(at_home, model) -> None:
    config = json.loads((model / "config.json").read_text())
    others = {"id2label": {"0": "spam", "1": "ham"}, "label2id": {"spam": 0, "ham": 1}}
    at_home.create(NAME, {"config.json": json.dumps({**config, **others}).encode()})
    outcome = CliRunner().invoke(app, ["publish", str(model), NAME])
    assert outcome.exit_code == 2
    assert "spam, ham" in outcome.output.replace("\n", " ")


def test_what_is_loaded_from_the_hub_is_what_was_checked(at_home, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert CliRunner().invoke(app, ["publish", str(model), NAME]).exit_code == 0
    check = loading.check_checkpoint

    def check_and_be_overtaken(*args, **kwargs):
        check(*args, **kwargs)
        weights = {name: torch.zeros_like(tensor) for name, tensor in load_file(model / "model.safetensors").items()}
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        HfApi(at_home.url, token=WRITER).upload_file(
            path_or_fileobj=tmp_path / "model.safetensors", path_in_repo="model.safetensors", repo_id=NAME
        )

    monkeypatch.setattr(loading, "check_checkpoint", check_and_be_overtaken)
    loaded, _ = loading.load_classifier(NAME)
    expected = load_file(model / "model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items() if name in expected)
