"""Two processes at one output: the second is refused in one line before it writes, or waits for moments."""

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
