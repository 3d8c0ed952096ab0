"""Files and folders are whole or not at all."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from modeling_roberta_gru.files import (
    alone,
    check_writable,
    refuse_overwriting_inputs,
    replacing,
    staging,
    write_json,
    write_text,
    writing_to,
)

from .refusals import refused


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


def test_what_a_killed_process_leaves_is_cleared_away_and_put_back(tmp_path):
    """Four kills: in a file, in a folder that was there, between its two renames, and in what is gathered."""
    code = """if True:
        import os, sys
        from pathlib import Path
        from modeling_roberta_gru import files
        folder, place = Path(sys.argv[1]), sys.argv[2]
        end = lambda *_: os._exit(9)
        if place == "renames":
            replace, seen = os.replace, []
            os.replace = lambda *paths: replace(*paths) if not seen.append(paths) and len(seen) < 2 else end()
        with files.staging(folder) if place == "gathered" else files.replacing(folder / place) as unfinished:
            if place == "file":
                unfinished.write_text("half")
            else:
                unfinished.mkdir(exist_ok=True)
                (unfinished / "half").touch()
            if place != "renames":
                end()
    """
    folders = ("folder", "renames")
    for name in folders:
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    for place in ("file", "gathered", *folders):
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path), place]).returncode == 9
    assert not (tmp_path / "renames").exists()
    assert len(list(tmp_path.glob(".unfinished-*"))) == 4
    for name in folders:
        with pytest.raises(KeyboardInterrupt), replacing(tmp_path / name):
            raise KeyboardInterrupt
        assert (tmp_path / name / "old").exists()
    write_text(tmp_path / "file", "whole")
    with staging(tmp_path) as folder:
        assert not list(folder.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"file", *folders}


def test_a_dead_process_is_not_taken_for_a_live_one_of_its_number(tmp_path):
    """As in a container that was killed and started again, where the first process has the number 1 both times."""
    with replacing(tmp_path / "other") as ours:
        ours.write_text("ours")
    number = str(os.getpid())
    (tmp_path / ours.name.replace("other", "file")).write_text("ours")
    earlier = ours.name.replace("other", "file").replace(f"-{number}.", f"-{number}.7")
    (tmp_path / earlier).write_text("half")
    write_text(tmp_path / "file", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]
    with staging(tmp_path) as folder:
        place = folder.name.replace(f"-{number}.", f"-{number}.7")
    (tmp_path / place).mkdir()
    with staging(tmp_path):
        assert not (tmp_path / place).exists()


def test_one_process_at_a_time_is_alone_and_the_next_may_wait(tmp_path):
    with alone(tmp_path / "new" / "run"):
        run = tmp_path / "new" / "run"
        with refused(file=str(run), match="Another process"), alone(run):
            pytest.fail("two were alone")
        with alone(tmp_path / "new" / "other"):
            pass
        (tmp_path / "new" / "run").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "new" / "run")
        with refused(file=str(tmp_path / "link"), match="Another process"), alone(tmp_path / "link"):
            pytest.fail("two were alone")
    with alone(tmp_path / "new" / "run", waits=True):
        pass
    long = tmp_path / "link" / ".." / ("x" * 300)
    with refused(file=str(long), match="cannot be written"), alone(long):
        pytest.fail("a name of 300 characters")


def test_what_a_live_process_is_writing_stays(tmp_path):
    code = """if True:
        import sys
        from modeling_roberta_gru.files import replacing
        with replacing(sys.argv[1]) as unfinished:
            unfinished.write_text("theirs")
            print(flush=True)
            sys.stdin.readline()
    """
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        write_text(tmp_path / "file", "ours")
        assert (tmp_path / "file").read_text() == "ours"
        other.communicate("\n")
    assert (tmp_path / "file").read_text() == "theirs"


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
        for inputs in ([data], [tmp_path / "data"], ["a/hub-id", tmp_path / "link.csv"], [data.as_uri()]):
            with refused(file=str(output)):
                refuse_overwriting_inputs(output, inputs)
    (tmp_path / "other.csv").touch()
    refuse_overwriting_inputs(tmp_path / "other.csv", [data, tmp_path / "data", "a/hub-id"])
    refuse_overwriting_inputs(tmp_path / "data" / "new.csv", [tmp_path / "data"])


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no file system here in which no file can be made")
def test_a_place_in_which_no_file_can_be_made_is_not_another_process():
    # The reason is ours, or filelock's as in 3.20.
    reason = "no file can be made in /proc|No such file or directory"
    with refused(file="/proc/model", match=reason), alone("/proc/model"):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_cannot_be_written_is_said_in_one_line(code):
    with refused(file="out", match=os.strerror(code)), writing_to("out"):
        raise OSError(code, os.strerror(code))
    # As tokenizers says it, and safetensors.
    with refused(file="out", match=os.strerror(code)), writing_to("out"):
        raise Exception(f"{os.strerror(code)} (os error {code})")
    with pytest.raises(OSError, match="broken"), writing_to("out"):
        raise OSError(errno.EIO, "broken")


@pytest.mark.parametrize("said", ["basic_ios::clear: iostream error", "[enforce fail] . unexpected pos 64 vs 0"])
def test_what_torch_says_of_a_full_disk_is_one_line(said):
    with refused(file="out", match="disk is full"), writing_to("out"):
        raise RuntimeError(said)


def test_a_database_that_has_no_room_is_said_in_one_line_whoever_wraps_the_error():
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count = 2")
        database.execute("CREATE TABLE rows (text TEXT)")

        def insert():
            try:
                database.execute("INSERT INTO rows VALUES (?)", ["x" * 100_000])
            except sqlite3.OperationalError as error:
                raise RuntimeError("An exception is raised during the commit.") from error

        with refused(file="out", match="disk is full"), writing_to("out"):
            insert()
        with pytest.raises(sqlite3.OperationalError), writing_to("out"):
            database.execute("SELECT nothing FROM nowhere")


def test_beside_a_folder_that_is_mounted_alone_the_lock_is_in_it(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == folder)  # root may write anywhere
    with alone(folder):
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        with refused(file=str(folder), match="Another process"), alone(folder):
            pass


def test_a_name_that_is_no_text_does_not_keep_json_from_being_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.csv")
    write_json(tmp_path / "a.json", {"source": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"source": name}


def test_a_url_is_no_folder_to_write_to():
    with refused(field="output_dir", file="s3://bucket/out", match="URL"):
        check_writable("--output-dir", Path("s3://bucket/out"))
