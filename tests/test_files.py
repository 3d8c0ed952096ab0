"""Files and folders are whole or not at all."""

import errno
import os

import pytest

from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.files import refuse_overwriting_inputs, replacing, write_json, write_text, writing_to


def test_what_is_whole_replaces_what_was_there(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    with replacing(tmp_path / "run") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
        assert (tmp_path / "run" / "old").exists()
    write_text(tmp_path / "figures.json", "{}")
    write_text(tmp_path / "figures.json", "{1}")
    assert (tmp_path / "figures.json").read_text() == "{1}"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["figures.json", "new", "run"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_fails_leaves_what_was_there(tmp_path, error):
    write_text(tmp_path / "a.txt", "old")

    def fail():
        with replacing(tmp_path / "a.txt") as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "reviews.csv").touch()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "data", "figures")
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "reviews.csv"]


def test_json_without_numbers_is_refused_whole(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "metrics.json", {"accuracy": float("nan")})
    assert not list(tmp_path.iterdir())


def test_an_output_is_never_one_of_the_inputs_by_whatever_name(tmp_path):
    (tmp_path / "data").mkdir()
    data = tmp_path / "data" / "reviews.csv"
    data.touch()
    (tmp_path / "link.csv").symlink_to(data)
    (tmp_path / "hard.csv").hardlink_to(data)
    for output in (
        data,
        tmp_path / "data" / ".." / "data" / "reviews.csv",
        tmp_path / "link.csv",
        tmp_path / "hard.csv",
    ):
        for inputs in ([data], [tmp_path / "data"], ["a/hub-id", tmp_path / "link.csv"]):
            with pytest.raises(InputError, match="name another file for the output"):
                refuse_overwriting_inputs(output, inputs)
    (tmp_path / "other.csv").touch()
    refuse_overwriting_inputs(tmp_path / "other.csv", [data, tmp_path / "data", "a/hub-id"])
    refuse_overwriting_inputs(tmp_path / "data" / "new.csv", [tmp_path / "data"])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_cannot_be_written_is_said_in_one_line(code):
    with pytest.raises(InputError, match=f"^out cannot be written: {os.strerror(code)}"), writing_to("out"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(OSError, match="broken"), writing_to("out"):
        raise OSError(errno.EIO, "broken")
