"""Two processes at one output: the second is refused in one line before it writes, or waits for moments."""

import shutil
from pathlib import Path

import pytest

from modeling_roberta_gru.cli import app
from modeling_roberta_gru.files import alone

from .test_code import ours  # noqa: F401 (a fixture)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["train", "adapt", "score", "export"])
def test_a_second_process_is_refused_and_writes_nothing(name, ours, stand_in, reviews, tmp_path, capsys) -> None:  # noqa: F811
    output = tmp_path / ("out.csv" if name == "score" else "out")
    training = ["--model_name_or_path", stand_in, "--dataset_name", reviews, "--use_cpu", "true", "--max_steps", "1"]
    words = {
        "train": [*training, "--output_dir", output],
        "adapt": [stand_in, reviews / "train.csv", "--output-dir", output],
        "score": [ours, reviews / "test.csv", output, "--dtype", "float32"],
        "export": [ours, "--output-dir", output],
    }[name]
    with alone(output):
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as end:
            app([name, *map(str, words)])
        assert end.value.code == 2
        assert contents(tmp_path) == before
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert "Another process is writing to" in line


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "LONG", "data.csv"],
        ["evaluate", "model", "LONG.csv"],
        ["export", "model", "--output-dir", "LONG"],
        ["explain", "model", "text", "--output-dir", "/", "--no-attributions"],
        ["adapt", "model", "data.csv", "--output-dir", "/"],
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(words, ours, tmp_path, capsys, monkeypatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").touch()
    (tmp_path / "model").symlink_to(ours)
    with pytest.raises(SystemExit) as end:
        app([word.replace("LONG", "a" * 5000) for word in words])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 200


def test_explain_leaves_the_file_that_it_reads(ours, tmp_path) -> None:  # noqa: F811
    text = tmp_path / "explanation.html"
    text.write_text("a text")
    with pytest.raises(SystemExit):
        app(["explain", str(ours), "--file", str(text), "--output-dir", str(tmp_path), "--no-attributions"])
    assert text.read_text() == "a text"


@pytest.mark.parametrize("option", ["model_name_or_path", "train_file"])
@pytest.mark.parametrize("place", ["", "checkpoint-2"])
def test_a_run_replaces_nothing_that_it_reads(option, place, tmp_path, ours, reviews, capsys) -> None:  # noqa: F811
    folder = tmp_path / "run"
    model = folder / (place or "model")
    shutil.copytree(ours, model)
    data = shutil.copy(reviews / "train.csv", model)
    given = {"train_file": data, "model_name_or_path": model if option == "model_name_or_path" else ours}
    words = [word for name, path in given.items() for word in (f"--{name}", path)]
    before = contents(folder)
    with pytest.raises(SystemExit) as end:
        app(["train", *map(str, words), "--output_dir", str(folder), "--overwrite_output_dir", "true"])
    assert end.value.code == 2
    assert contents(folder) == before
    assert "is read by this run, which would replace it" in capsys.readouterr().err
