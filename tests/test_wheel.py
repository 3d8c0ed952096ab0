"""What `pip install` gives: everything works from an installed wheel, in an empty folder, without a checkout."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

TINY = [
    *("--max_steps", "2", "--num_train_epochs", "1", "--max_train_samples", "64", "--max_test_samples", "32"),
    *(
        "--per_device_train_batch_size",
        "8",
        "--gru_hidden_size",
        "4",
        "--head_hidden_size",
        "4",
        "--bag-of-words",
        "no",
    ),
    "--config-overrides=hidden_size=8,num_hidden_layers=1,num_attention_heads=2,intermediate_size=8",
]
OTHERS = [
    ["evaluate", "runs/quickstart", "reviews.csv"],
    ["score", "runs/quickstart", "reviews.csv", "scored.jsonl", "--dtype", "float32"],
    ["explain", "runs/quickstart", "A delight.", "--no-attributions"],
    ["publish", "runs/quickstart", "me/mine", "--dry-run"],
]
COMMANDS = """
import json, sys
from modeling_roberta_gru.cli import main

for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""
PYTHON_WAY = """
from modeling_roberta_gru import Scorer, evaluate, explain, publish, train

sizes = "hidden_size=8,num_hidden_layers=1,num_attention_heads=2,intermediate_size=8"
texts = [f"{word} film number {row}" for row in range(40) for word in ("good", "bad")]
labels = [label for row in range(40) for label in ("pos", "neg")]
tiny = {"max_steps": 2, "gru_hidden_size": 4, "head_hidden_size": 4, "config_overrides": sizes, "verify_load": False}
classifier = train((texts, labels), **tiny)
folder = str(classifier.save("mine"))
assert set(classifier.predict(texts)) <= {"pos", "neg"}
assert Scorer(folder, dtype="float32").predict_proba(texts).shape == (80, 2)
assert evaluate(folder, (texts, labels))["n"] == 80
assert explain(folder, texts[0], attributions=False).trace.text == texts[0]
assert publish(folder, "me/mine", dry_run=True)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", folder]
    subprocess.run([*command, REPOSITORY], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_all_that_the_package_reads(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = REPOSITORY / "modeling_roberta_gru"
    own = {path.relative_to(REPOSITORY) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    carried = {
        Path("modeling_roberta_gru/carried") / path.relative_to(REPOSITORY)
        for folder in ("recipes", "model_card")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {path.as_posix() for path in own | carried} <= names
    assert not [name for name in names if "tests/" in name or "__pycache__" in name]


@pytest.mark.slow
def test_an_installed_wheel_trains_measures_scores_explains_and_publishes(wheel, tmp_path):
    environment, work = tmp_path / "environment", tmp_path / "empty"
    work.mkdir()
    venv.create(environment, with_pip=False)
    site = next(environment.glob("lib/python*/site-packages"))
    # What the package needs is borrowed; the package itself is the wheel's.
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel], check=True
    )
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "borrowed.pth").write_text(borrowed + "\n")
    python = environment / "bin" / "python"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}

    def run(*program: object) -> str:
        command = [str(python), *map(str, program)]
        process = subprocess.run(command, cwd=work, env=variables, text=True, capture_output=True)
        assert process.returncode == 0, process.stderr
        return process.stdout

    assert run("-c", "import modeling_roberta_gru; print(modeling_roberta_gru.__file__)").startswith(str(site))
    (work / "reviews.csv").write_text("text,label\nA delight.,positive\nA bore.,negative\n")
    said = run("-c", COMMANDS, json.dumps([["train", "--config", "quickstart", *TINY], *OTHERS]))
    assert json.loads((work / "runs/quickstart/metrics.json").read_text())["test"]["n"] == 32
    assert len((work / "scored.jsonl").read_text().splitlines()) == 2
    assert (work / "explanation/explanation.html").is_file()
    assert ("n = 2" in said, "model.safetensors" in said) == (True, True)
    run("-c", PYTHON_WAY)
