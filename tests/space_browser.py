"""The Space's page in a process of its own, and a browser to look at it. As a script, take the README's picture:

.venv/bin/python -m tests.space_browser runs/long-quickstart/model docs/demo.png
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
APP = REPOSITORY / "model_card/space/app.py"
STRANGER = REPOSITORY / "tests/load_model.py"
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# Runs app.py as a stranger does, who has not installed this package.
AS_STRANGER = """
import runpy, sys

stranger, app, *sys.argv[1:] = sys.argv[1:]
sys.meta_path.insert(0, runpy.run_path(stranger)["Refuse"]())
sys.path.insert(0, app.rpartition("/")[0])
runpy.run_path(app, run_name="__main__")
"""
# As the built-in long corpus has them: others' opinions, opinions on other things, and the author's own two.
REVIEW = (
    "My old teacher gave me this biography for my birthday. It is told by a sailor called Laura, and it has three "
    'parts and a map of Ostville. "I would call The Blue Rudton dreadful", said the man behind us. As for me, I '
    "thought The Blue Rudton admirable. I had read about it in a paper from Penstadt. One critic admired this "
    "biography. The library has two copies. Another word on the biography, now that some time has passed. It is true "
    "that the prose struck me as satisfying. It was not raining that Wednesday, but we took a taxi. Nevertheless, "
    "this biography is dreadful. The woman next to us would call the biography a triumph. It was May, and the "
    "evenings were long."
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(command: list[str | Path], port: int, log: Path) -> Iterator[str]:
    """Run a server until the end of the block; give its address once it answers."""
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    # A proxy that knows nothing, as in many a company: the page must not ask it for itself.
    environment |= {"http_proxy": "http://proxy.invalid:3128", "no_proxy": ""}
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=output, stderr=output)
    try:
        for _ in range(600):
            if process.poll() is not None or answers(url):
                break
            time.sleep(0.2)
        assert process.poll() is None, log.read_text()[-3000:]
        yield url
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/config", timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def app(model: str | os.PathLike[str], log: Path) -> Iterator[str]:
    """Run app.py without this package; give its address."""
    port = free_port()
    with tempfile.TemporaryDirectory() as space:
        copied = copy_space(Path(space))
        with running([sys.executable, "-I", "-c", AS_STRANGER, STRANGER, copied, Path(model)], port, log) as url:
            yield url


def copy_space(folder: Path) -> Path:
    """Copy what makes a Space into a folder; return its app.py."""
    package = REPOSITORY / "modeling_roberta_gru"
    carried = [*(package / "inference").glob("reading.*"), package / "data/dialect.py"]
    for file in (*APP.parent.iterdir(), *carried):
        if file.is_file():
            shutil.copy(file, folder)
    return folder / APP.name


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


def text_box(page: Any) -> Any:
    return page.get_by_role("textbox", name=re.compile("^Text"))


def classify(page: Any, text: str) -> None:
    """Type a text, click, and wait for what comes."""
    text_box(page).fill(text)
    page.get_by_role("button", name="Classify").click()
    page.get_by_role("region", name="The text, coloured").wait_for()


def take_picture(model: str, path: Path) -> None:
    """Photograph the page after it has read [`REVIEW`]."""
    with app(model, Path(os.devnull)) as url, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1000, "height": 800})
        page.goto(url)
        classify(page, REVIEW)
        text_box(page).evaluate("box => { box.blur(); box.scrollTop = 0; }")
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)  # until bars and buttons stand still
        page.screenshot(path=path, full_page=True)


if __name__ == "__main__":
    take_picture(sys.argv[1], Path(sys.argv[2]))
