"""Loading from a Hub with only transformers and torch: new and old releases, online and offline."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .clean_process import (
    LOADERS,
    MODEL,
    OFFLINE,
    OLDER_RELEASES,
    PINNED,
    WAYS,
    ask,
    expect,
    find_code,
    install,
    largest_difference,
    load,
    push_twice,
    save_model,
)
from .hub_server import WRITER, HubServer

CLASSIFIER = ("AutoModelForSequenceClassification",)
SHIPPED = {"configuration_roberta_gru.py", "modeling_roberta_gru.py"}
FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return two folders with models that differ in their weights and in their code."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for seed, folder in enumerate(folders):
        save_model(folder, seed)
    with (folders[1] / "modeling_roberta_gru.py").open("a") as code:
        code.write("\n# trained again\n")
    return folders


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        yield hub
        assert hub.unknown == []


@pytest.fixture(scope="module")
def pinned(hub, saved):
    return push_twice(hub, *saved)


def check(python, loaders, way, hub, pinned, saved, home):
    num_requests = len(hub.requests)
    outputs = load(python, loaders, way, hub, pinned, home)
    assert largest_difference(outputs, expect(saved[way != PINNED], loaders)) <= FLOAT32
    assert (len(hub.requests) == num_requests) == (way == OFFLINE)


@pytest.mark.slow
@pytest.mark.parametrize("release", [*OLDER_RELEASES, "installed"])
def test_every_auto_class_loads_every_way(release, interpreter, hub, pinned, saved, tmp_path):
    for way in WAYS:
        if way == OFFLINE:  # as where only `hf download` was run before: transformers issue 34855
            shutil.rmtree(tmp_path / "latest" / "modules")
        check(interpreter(release), LOADERS, way, hub, pinned, saved, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("release", [*OLDER_RELEASES, "installed"])
def test_a_model_from_the_hub_trained_on_keeps_its_code_where_it_is_saved_or_pushed(release, interpreter, tmp_path):
    # transformers issue 29714
    python, folder = interpreter(release), tmp_path / "trained"
    save_model(tmp_path / "model")
    with HubServer() as hub:
        files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
        hub.create(MODEL, files)
        options = ("--by", "AutoConfig", "--train", "--save-to", str(folder), "--push-to", "ada/trained")
        trained = ask(python, MODEL, *options, home=tmp_path / "trainer", hub=hub.url, token=WRITER)["trained_logits"]
        pushed = hub.head("ada/trained").contents
        for content in (pushed, {path.name: path.read_bytes() for path in folder.iterdir()}):
            assert content.keys() >= SHIPPED | {"config.json", "model.safetensors", "tokenizer.json"}
            assert all(content[name] == files[name] for name in SHIPPED)
            assert json.loads(content["config.json"])["auto_map"] == json.loads(files["config.json"])["auto_map"]
        home = tmp_path / "next"
        again = ask(python, "ada/trained", "--by", *CLASSIFIER, home=home, hub=hub.url)["logits"]
        assert find_code(home) == [hub.head("ada/trained").oid]
        assert hub.unknown == []
    assert largest_difference(again, trained) <= FLOAT32
    assert largest_difference(ask(python, folder, "--by", *CLASSIFIER, home=tmp_path)["logits"], trained) <= FLOAT32


# Through a Hub that is not ours


@pytest.fixture(scope="module")
def olah(tmp_path_factory) -> str:
    """Return the command of olah, in an environment of its own: it wants other releases than we do."""
    try:
        python = install(tmp_path_factory.mktemp("venv") / "olah", "olah")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"olah cannot be installed: {error.stderr.decode().strip().splitlines()[-1]}")
    return str(python.with_name("olah-cli"))


@contextmanager
def serve_by_olah(command: str, files: Path, workplace: Path) -> Iterator[str]:
    """Have olah serve a folder's files as MODEL, from a git repository of its own; give its address."""
    repository = shutil.copytree(files, workplace / "mirrors" / "models" / MODEL)
    identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
    for step in (["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "-m", "files"]):
        subprocess.run(["git", "-C", repository, *identity, *step], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = workplace / "olah.toml"
    settings.write_text(
        f"[basic]\nhost = '127.0.0.1'\nport = {port}\nrepos-path = '{workplace / 'repos'}'\n"
        f"mirrors-path = ['{workplace / 'mirrors'}']\n[accessibility]\noffline = true\n"
    )
    log = (workplace / "olah.log").open("w")
    with log, subprocess.Popen([command, "--config", settings], cwd=workplace, stdout=log, stderr=log) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(f"{url}/api/models/{MODEL}/revision/main", process)
            yield url
        finally:
            process.terminate()


def wait_for(url: str, process: subprocess.Popen) -> None:
    for _ in range(600):
        assert process.poll() is None, "olah ended"
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


@pytest.mark.slow
def test_another_hubs_server_gives_the_same_model(olah, saved, tmp_path):
    with serve_by_olah(olah, saved[0], tmp_path) as url:
        # Offline, olah 0.5 knows a mirror's commits only where a revision is asked for.
        options = ("--revision", "main", "--by", *CLASSIFIER)
        outputs = ask(sys.executable, MODEL, *options, home=tmp_path / "home", hub=url)
    assert largest_difference(outputs["logits"], expect(saved[0], CLASSIFIER)["logits"]) <= FLOAT32
