"""Passwords in URLs: they are used, and neither recorded nor printed nor published."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_roberta_gru.arguments import DataArguments, ModelArguments
from modeling_roberta_gru.cli import app
from modeling_roberta_gru.data import tables
from modeling_roberta_gru.data.documents import describe_source
from modeling_roberta_gru.data.tables import open_table
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.files import redacted, without_passwords
from modeling_roberta_gru.hub.card import published_record
from modeling_roberta_gru.inference.score_file import _check_target
from modeling_roberta_gru.studies.study import sweep
from modeling_roberta_gru.training import pretraining
from modeling_roberta_gru.training.record import changed_options

from .test_code import ours  # noqa: F401

PASSWORDS = ["s3cret-Pass", "a/b/s3cret", "s3cret with spaces", "s3cret?x=1", "s3cret#y", "s3:cret", "p@s3cret@"]


@given(
    st.text(st.characters(blacklist_categories=("Cs",)), min_size=1), st.sampled_from(["", "?sslmode=require", "/"])
)
def test_no_character_of_a_password_is_left(password, rest):
    url = f"postgresql://me:\x00{password}\x00@host/studies{rest}"
    assert "\x00" not in redacted(url)
    assert "host/studies" in redacted(url)


@pytest.mark.parametrize("between", [" and ", ",", "?", "/?a=b "])
def test_every_url_of_an_option_is_redacted(between):
    said = redacted(f"see https://host/a{between}https://me:s3cret@other")
    assert "s3cret" not in said
    assert said.startswith("see https://host/a")


@pytest.mark.parametrize("name", ["password", "token", "sslpassword", "X-Amz-Signature"])
@pytest.mark.parametrize("others", ["", "a=1&"])
@pytest.mark.parametrize("mark", ["?", "#", ";", "?a#"])
def test_no_value_of_a_query_is_left(name, others, mark):
    assert redacted(f"https://host/a{mark}{others}{name}=s3cret&b=2").count("***") == 2 + bool(others)
    assert "s3cret" not in redacted(f"--run_name=https://host/a{mark}{others}{name}=s3cret")


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////tmp/a b/study.db",
        "https://host:8080/a/b",
        "https://host/@user/page",
        "runs/mine",
        "a:b@c",
        "/r/movies",
    ],
)
def test_what_has_no_password_is_left_as_it_is(text):
    assert redacted(text) == text


@pytest.mark.parametrize("before", ["", "no ", "(", "é=", "1", "+", "..", "'"])
def test_every_url_within_a_text_is_redacted(before):
    said = without_passwords(f"{before}https://me:s3cret@host/a: none, nor ftp://me:s3cret@host.")
    assert said == f"{before}https://***@host/a: none, nor ftp://***@host."


@pytest.mark.parametrize("unit", ["a", "a.", "a:/", "a://", "a://@", "@"])
def test_urls_are_looked_for_in_proportion_to_the_text(unit):
    begun = time.process_time()
    without_passwords(unit * (100_000 // len(unit)))
    assert time.process_time() - begun < 5  # milliseconds; what grows with the square takes a minute


@pytest.mark.parametrize("url", ["https://me:s3cret@127.0.0.1:9/a.csv", "http://127.0.0.1:9/a.csv?X-Signature=s3cret"])
def test_a_table_at_a_url_is_named_without_its_password(url, capsys):
    with pytest.raises(InputError) as refused:
        open_table(url)
    assert "127.0.0.1:9/a.csv" in str(refused.value)
    assert "s3cret" not in f"{refused.value} {refused.value.file}"
    assert describe_source(DataArguments(train_file=[url])) == "a.csv"


@pytest.mark.parametrize("password", ["a/b s3cret?x"])
def test_a_sweep_leaves_no_password(password, tmp_path, reviews, capsys):
    (tmp_path / "space.yaml").write_text("space: {class_weights: [none, balanced]}\n")
    storage = f"sqlite:///{tmp_path}/study.db?timeout={password}"
    words = [
        "--dataset_name",
        str(reviews),
        "--architecture",
        "bag-of-words",
        "--run_name",
        f"https://me:{password}@h",
    ]
    command = ["roberta-gru", "sweep", f"--storage={storage}", *words]
    sweep(None, tmp_path / "space.yaml", words, tmp_path / "study", command=command)
    elsewhere = f"nosuch://me:{password}@host/x"
    with pytest.raises(InputError) as refused:
        sweep(None, tmp_path / "space.yaml", words, tmp_path / "other", elsewhere, command=command)
    assert password not in str(refused.value)
    written = [path.read_text() for path in (tmp_path / "study").iterdir() if path.suffix in (".json", ".md")]
    assert written
    for text in [*written, *capsys.readouterr()]:
        assert password not in text


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_run_records_and_publishes_no_password(password):
    url = f"https://me:{password}@host/run?token={password}"
    arguments = ModelArguments(card_language=url)
    record = {
        "options": changed_options(arguments),
        "command": f"train.py '--run_name={url}'",
        "data": {"source": url, "labels": ["/r/movies"]},
    }
    assert password not in json.dumps(record["options"])
    assert password not in json.dumps(published_record(record))


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "URL/model", "data.csv"],
        ["evaluate", "model", "URL/data"],
        ["score", "model", "URL/a.xyz", "out.csv"],
        ["explain", "model", "--file", "URL/text"],
        ["train", "--output_dir", "out", "--train_file", "URL/a.xyz"],
        ["compare", "URL/run"],
    ],
)
def test_no_error_prints_a_password(words, tmp_path, ours, capsys, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").touch()
    (tmp_path / "model").symlink_to(ours)
    with pytest.raises(SystemExit) as end:
        app([word.replace("URL", "https://me:s3cret@127.0.0.1:9") for word in words])
    assert end.value.code == 2
    said = "".join(capsys.readouterr())
    assert "127.0.0.1:9" in said  # the URL is what could not be read
    assert "s3cret" not in said


def test_adapting_records_no_password(tmp_path, monkeypatch):
    described = []

    def keep(folder, options):
        described.append(options)
        raise InputError("enough")

    monkeypatch.setattr(pretraining, "_earlier", keep)
    url = "https://me:s3cret@host/a.csv"
    with pytest.raises(InputError, match="enough"):
        pretraining.adapt_encoder("base", [url], tmp_path / "out", pretraining.AdaptOptions(exclude=(url,)))
    assert described[0]["files"] == described[0]["exclude"] == ["https://***@host/a.csv"]


@pytest.mark.parametrize("content", [b"text,label\na,b\n", b"words\na\n", b"text\n\xe9\n"])
def test_reading_texts_to_adapt_to_says_no_password(content, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.csv").write_bytes(content)
    monkeypatch.setattr(tables, "fetch", lambda name: tmp_path / "a.csv")
    said = ""
    try:
        list(pretraining._texts_of(["https://me:s3cret@host/a.csv"], pretraining.AdaptOptions(), "TEXTS"))
    except InputError as error:
        said = str(error)
    said += "".join(capsys.readouterr())
    assert "https://***@host/a.csv" in said
    assert "s3cret" not in said


def test_a_url_is_no_place_for_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^https://\*\*\*@host/out\.csv is a URL"):
        _check_target("in.csv", Path("https://me:s3cret@host/out.csv"))
