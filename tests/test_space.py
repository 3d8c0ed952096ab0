"""The Space: what its functions promise, and what a person sees who types, clicks and uploads."""

import csv
import json
import re
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.documents import build_documents
from modeling_roberta_gru.data.tables import open_table, write_table
from modeling_roberta_gru.data.tokenization import lift_limits
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.inference import demo as demo_module
from modeling_roberta_gru.inference.demo import demo, load_space
from modeling_roberta_gru.inference.explanation import trace

from .refusals import refused
from .space_browser import APP, CHROMIUM, app, browser, classify, free_port, running, text_box
from .tiny import TINY_ENCODER, tiny_config

# Beyond three windows of 20 tokens, with whatever can go wrong on the way to HTML and back.
TEXT = (
    'The plot was dreadful & "slow".\n\n  But we <script>alert("liked")</script> its music 😀 more than\tmost, '
    "日本 ${1 + 1} {{value}} and <img src=x onerror=alert(1)> the rest &amp; so on…  "
)
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
WIDGET = ["A splendid plot.", 'Slow, and "long".']
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def space():
    return load_space()


@pytest.fixture(scope="module")
def tokenizer(stand_in):
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    lift_limits(tokenizer)  # as a run saves it
    return tokenizer


def make_model(tokenizer, labels=("bad", "good"), **fields):
    id2label = dict(enumerate(labels))
    label2id = {label: index for index, label in id2label.items()}
    fields |= {"vocab_size": len(tokenizer), "id2label": id2label, "label2id": label2id}
    torch.manual_seed(0)
    return RobertaGRUForSequenceClassification(tiny_config(**fields)).eval()


@pytest.fixture
def classifier(space, tokenizer):
    # Sharp enough that the prediction takes every colour.
    return space.Classifier(make_model(tokenizer, calibration_temperature=0.1), tokenizer)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer):
    """Return the folder of a classifier, with a card."""
    folder = tmp_path_factory.mktemp("saved") / "run" / "model"
    make_model(tokenizer, calibration_temperature=1.5).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    widget = json.dumps([{"text": text} for text in WIDGET])  # which is YAML too
    (folder / "README.md").write_text(f"---\nlicense: mit\nwidget: {widget}\n---\n# A model\n")
    return folder


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a file and gives its path."""

    def write(content, name="reviews.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / name)

    return write


def probabilities(model, tokenizer, text):
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        return model(inputs["input_ids"]).logits[0].softmax(-1)


@pytest.mark.parametrize("fields", [{}, {"summary": "attention", "gru_bidirectional": True}])
def test_a_text_is_read_and_shown_as_the_package_does(space, tokenizer, fields):
    model = make_model(tokenizer, calibration_temperature=1.5, **fields)
    read, traced = space.Classifier(model, tokenizer).read(TEXT), trace(model, tokenizer, TEXT)
    assert len(traced.tokens) > 60
    assert (read.scores == traced.scores).all()
    assert without_id(space.reading.html(read)) == without_id(space.reading.html(traced))
    torch.testing.assert_close(torch.tensor(read.scores[-1]).float(), probabilities(model, tokenizer, TEXT), **FLOAT32)


def without_id(html):
    return re.sub("reading-[0-9a-f]{8}", "reading", html)


@pytest.mark.parametrize("rounds", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_one_visitor_does_not_break_another(space, classifier, table, rounds):
    texts = ["the plot was slow " * (number % 7 + 1) + f"and {number}" for number in range(24)]
    path = table("text\n" + "\n".join(texts) + "\n")

    def file():
        scored = space.score_table(classifier, space.read_table(path), "text", lambda *_, **__: None)
        return scored.rows

    def one(number):
        return classifier.read(texts[number]).scores.tolist()

    alone, each_alone = file(), [one(number) for number in range(16)]
    with ThreadPoolExecutor(16) as visitors:
        files = [visitors.submit(file) for _ in range(rounds)]
        ones = [visitors.submit(one, number % 16) for number in range(16 * rounds)]
        assert [done.result() for done in files] == [alone] * rounds
        assert [done.result() for done in ones] == each_alone * rounds


def test_a_text_is_read_on_while_it_is_typed(space, tokenizer):
    classifier = space.Classifier(make_model(tokenizer), tokenizer)
    assert space.can_read_on(classifier)
    live = None
    typed = [TEXT[:end] for end in range(5, len(TEXT), 9)]
    edited = [TEXT[:40], TEXT[:20] + "other words", "", "anew"]
    for text in [*typed, TEXT, TEXT, *edited]:
        said, live = space.read_on(classifier, text, live)
        if not text:
            assert (said, live) == (None, None)
            continue
        expected = probabilities(classifier.model, tokenizer, text)
        assert list(said) == ["bad", "good"]
        torch.testing.assert_close(torch.tensor(list(said.values())), expected, **FLOAT32)
        assert live.text == text
    # What would take long waits for the button, and what is not text is not read.
    for text in ("word " * space.LIVE_CHARACTERS, "half \ud83d"):
        said, after = space.read_on(classifier, text, live)
        assert after is None
        assert "__type__" in said
    assert space.read_on(classifier, "a " * space.MAX_CHARACTERS, live)[1] is None
    live = None
    for end in range(100, space.LIVE_CHARACTERS + 200, 100):  # no word ends, so each time all is read again
        _, live = space.read_on(classifier, "a" * end, live)
        assert (live is None) == (end > space.LIVE_CHARACTERS)
    assert not space.can_read_on(space.Classifier(make_model(tokenizer, gru_bidirectional=True), tokenizer))


def test_what_takes_too_long_is_refused(space, classifier, monkeypatch):
    time = space.reading.TimeLimit(classifier.model)
    prediction, html = space.classify_text(classifier, time, TEXT)
    assert sum(prediction.values()) == pytest.approx(1)
    assert without_id(html) == without_id(space.reading.html(classifier.read(TEXT)))
    monkeypatch.setattr(space, "MAX_TOKENS", 1000)
    with pytest.raises(space.gr.Error, match="has more than 1,000 tokens"):
        space.classify_text(classifier, time, "\u200b" * 90_000)
    monkeypatch.setattr(space, "MAX_SECONDS", -1)
    with pytest.raises(space.gr.Error, match="takes longer"):
        space.classify_text(classifier, time, "a plot")


def test_labels_are_text_and_nothing_else(space, tokenizer):
    hostile = "**bold** <img src=x> \x1b[31m"
    classifier = space.Classifier(make_model(tokenizer, labels=(hostile, "good")), tokenizer)
    said = space.introduction(classifier)
    assert "**bold** &lt;img src=x&gt; ␛[31m, good" in said
    prediction, _ = space.classify_text(classifier, space.reading.TimeLimit(classifier.model), "a plot")
    assert set(prediction) == {"**bold** <img src=x> ␛[31m", "good"}


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_text_without_words_is_refused(space, text):
    with pytest.raises(space.gr.Error, match="Enter a text"):
        space.checked(text)


def test_half_a_character_is_refused_by_its_place(space):
    with pytest.raises(space.gr.Error, match="Character 5 of the text"):
        space.checked("half\ud83d")


def test_a_text_beyond_the_limit_is_refused_whole(space):
    assert space.checked("x" * space.MAX_CHARACTERS)
    with pytest.raises(space.gr.Error, match="has 100,001 characters"):
        space.checked("x" * (space.MAX_CHARACTERS + 1))


def test_rows_keep_their_order_and_columns_and_score_as_if_alone(space, classifier, tokenizer, table):
    texts = ["the plot was slow " * (number % 7 + 1) + f"and {number}" for number in range(20)]
    rows = [[str(number), text, 'a "quoted", cell'] for number, text in enumerate(texts)]
    path = table("")
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["id", "text", "note"], *rows])
    steps = []
    scored = space.score_table(classifier, space.read_table(path), "text", lambda step, unit: steps.append(step))
    assert scored.header == ["id", "text", "note", "predicted", "score_bad", "score_good"]
    assert [row[:3] for row in scored.rows] == rows
    for text, row in zip(texts, scored.rows, strict=True):
        expected = probabilities(classifier.model, tokenizer, text)
        torch.testing.assert_close(torch.tensor([*map(float, row[4:])]), expected, **FLOAT32)
        assert row[3] == ["bad", "good"][int(expected.argmax())]
    assert steps == [(0, 20), (8, 20), (16, 20)]


@pytest.mark.parametrize(
    ("problem_type", "scores", "cells"),
    [
        ("single_label_classification", [0.2, 0.8], ["good"]),
        ("multi_label_classification", [0.6, 0.5], ["bad|good"]),
        ("multi_label_classification", [0.4, 0.1], [""]),
        ("regression", [3.5], []),
    ],
)
def test_the_predicted_cell_says_what_the_kind_of_label_allows(space, problem_type, scores, cells):
    assert space.predicted(scores, ["bad", "good"], problem_type) == cells


FILES = {
    "usual.csv": 'text,id\n"so, ""so""",1\n\nfine,2\n\n',
    "semicolons.csv": '\ufefftext;id\r\n"\xfcber\n""alles""; ja";1\r\nja;2\r\n',
    "excel.csv": "sep=|\ntext|id\nfine, fine|1\nso|2\n",
    "spark.csv": 'text,id\n"a \\"good\\" one, too",1\n"b \\"bad\\" one",2\n',
    "spaces.csv": 'text, id\n"a, b", "1"\n"c, d", "2"\n',
    "trailing.csv": "text,id,,\na,1,,\nb,2,,\n",
    "nameless.csv": "text,id,,\na,1\nb,2\n",
    "barequotes.tsv": 'text\tid\n"so he said\t1\nand "left" it\t2\n"never\t3\n',
    "mysql.tsv": "text\tid\na\\\tb\t1\nc\\\nd\t2\n",
    "ragged.csv": "text,id\na,1\nb\nc,3,and,more\nd,4\n",
    "unclosed.csv": 'text,id\na,1\n"b,2\nc,3\n',
    "latin.csv": b"text,id\ncaf\xe9,1\nfine,2\n",
    "macintosh.csv": "text,id\ra,1\rb,2\r",
}


@pytest.mark.parametrize("name", FILES)
def test_the_page_reads_and_writes_as_the_package_does(space, table, tmp_path, name):
    content = FILES[name]
    path = table(content, name)
    read, theirs = space.read_table(path), open_table(path)
    chunks = list(theirs.chunks())
    assert (read.names, read.written, read.has_byte_order_mark) == (
        theirs.schema.names,
        theirs.dialect,
        theirs.has_byte_order_mark,
    )
    records = [record for chunk in chunks for record in chunk.records]
    assert [dict(zip(read.names, row, strict=True)) for row in read.rows] == records
    assert read.faults == {chunk.first + at: fault for chunk in chunks for at, fault in chunk.bad.items()}
    packages = tmp_path / f"theirs{Path(name).suffix}"
    schema = pa.schema([*theirs.schema, ("added", pa.string())], theirs.schema.metadata)
    rows = ((chunk, {"added": [""] * len(chunk)}) for chunk in chunks)
    write_table(packages, schema, rows, theirs.dialect, theirs.has_byte_order_mark)
    read = read._replace(header=[*read.header, "added"], rows=[[*row, ""] for row in read.rows])
    written = Path(space.write_table(read, str(tmp_path)))
    assert written.name == f"{Path(name).stem}-scored{Path(name).suffix}"
    assert written.read_bytes() == packages.read_bytes()


@pytest.mark.parametrize("name", ["ragged.csv", "unclosed.csv", "latin.csv"])
def test_bad_rows_are_refused_by_number_or_kept_without_a_prediction_and_counted(space, classifier, table, name):
    path = table(FILES[name], name)
    with refused(file=path) as raised:
        build_documents("train", [open_table(path)], DataArguments(label_column="id"))
    read = space.read_table(path)
    with pytest.raises(space.gr.Error) as error:
        space.score_table(classifier, read, "text", lambda *_, **__: pytest.fail("began"))
    theirs = str(raised.value).replace(path, name).partition(". ")[0]
    assert error.value.message.partition(". ")[0] == theirs  # but for the way out
    scored = space.score_table(classifier, read, "text", lambda *_, **__: None, skip_bad_rows=True)
    assert [row[:2] for row in scored.rows] == read.rows
    assert [not any(row[2:]) for row in scored.rows] == [at in read.faults for at in range(len(read.rows))]
    said, num_bad = space.described(scored), len(read.faults)
    assert f"{len(read.rows)} rows, {len(read.rows) - num_bad} scored" in said
    assert f"row {raised.value.row}" in said.replace("rows", "row")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "reviews.csv is empty"),
        ("\n\n", "reviews.csv is empty"),
        ("text,id\n", "has a header and no rows"),
        (b"caf\xe9,id\nfine,1\n", "in the header the row is not UTF-8 text"),
        ("text,id\n" + "a,1\n" * 5001, "has 5,001 rows, and this page scores up to 5,000"),
    ],
)
def test_a_broken_file_is_refused(space, table, content, said):
    with pytest.raises(space.gr.Error, match=said):
        space.read_table(table(content))


@pytest.mark.parametrize(
    ("content", "column", "said"),
    [
        ("review,id\na,1\n", "text", "has no column 'text': choose one of review, id"),
        ("text,text\na,1\n", "text", "has no column 'text': choose one of text (1), text (2)"),
        ("review,id\na,1\n", None, "has no column '': choose one of review, id"),
        ("<b>,id\na,1\n", "<i>", "has no column '&lt;i&gt;': choose one of &lt;b&gt;, id"),
        ("text,predicted\na,1\n", "text", "has a column 'predicted' already"),
        ("text,id\na,1\n  ,2\n", "text", "reviews.csv, row 2: the text is empty"),
        ("text,id\n" + "a" * 100_001 + ",1\n", "text", "row 1: the text has more than 100,000 characters"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_by_name(space, classifier, table, content, column, said):
    with pytest.raises(space.gr.Error, match=re.escape(said)):
        space.score_table(classifier, space.read_table(table(content)), column, lambda *_, **__: pytest.fail("began"))


def test_the_examples_are_the_cards(space, saved, tmp_path):
    assert space.examples(str(saved)) == WIDGET
    assert space.examples(str(tmp_path)) == list(space.EXAMPLES)
    for front in ("", "---\nlicense: mit\n---\n", "---\nwidget: ]\n---\n", "---\nwidget: [text, {text: [1]}]\n---\n"):
        (tmp_path / "README.md").write_text(f"{front}# Nothing in front\n")
        assert space.examples(str(tmp_path)) == list(space.EXAMPLES)


def test_a_model_that_is_no_roberta_gru_is_refused(space, tokenizer, tmp_path):
    RobertaForSequenceClassification(RobertaConfig(**{**TINY_ENCODER, "vocab_size": 400})).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a roberta"):
        space.load(str(tmp_path))
    with refused(file=str(tmp_path), match="is a roberta:"):
        demo(str(tmp_path), port=free_port())


def test_the_demo_says_what_to_install(monkeypatch):
    monkeypatch.setattr(demo_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install gradio")):
        demo("anything")


def test_the_demo_says_that_a_port_is_taken(saved):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with refused(field="port", match=rf"127.0.0.1:{port} \(Address already in use\)"):
            demo(str(saved), port=port)


def test_the_demo_serves_a_run_where_it_is_told_to(space, saved, monkeypatch, capsys):
    made, served = [], {}
    monkeypatch.setattr(demo_module, "load_space", lambda: space)
    monkeypatch.setattr(space, "page", lambda classifier, texts: made.append(texts))  # Gradio leaves loops open
    monkeypatch.setattr(space, "serve", lambda blocks, **options: served.update(options))
    port = free_port()
    demo(str(saved.parent), host="127.0.0.1", port=port, open_browser=False)
    assert made == [WIDGET]
    assert served == {"server_name": "127.0.0.1", "server_port": port, "inbrowser": False, "quiet": True}
    assert f"http://127.0.0.1:{port}." in capsys.readouterr().out


def test_an_unnamed_model_ends_the_program(space, monkeypatch):
    monkeypatch.delenv("MODEL_ID", raising=False)
    monkeypatch.setattr(sys, "argv", [str(APP)])
    with pytest.raises(SystemExit, match="Name the model: MODEL_ID="):
        space.main()


def test_a_model_that_is_not_there_ends_the_program_in_one_line(space, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [str(APP), str(tmp_path)])
    with pytest.raises(SystemExit, match=f"^{tmp_path} cannot be shown: "):
        space.main()


# In a browser


@pytest.fixture(scope="module")
def url(saved, tmp_path_factory):
    with app(saved, tmp_path_factory.mktemp("log") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture
def page(chromium, url):
    """Return the page, which may ask this machine only, and open no dialogue."""
    context = chromium.new_context(viewport={"width": 375, "height": 800}, color_scheme="dark")
    page = context.new_page()
    asked, dialogues, errors = [], [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (dialogues.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    text_box(page).wait_for()
    yield page
    context.close()
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
    assert (dialogues, errors) == ([], [])


def toast(page):
    return page.get_by_test_id("toast-body").inner_text()


def upload(page, path):
    page.get_by_role("tab", name="A file").click()
    page.locator("input[type=file]").set_input_files(path)
    # Its columns are in the list once the choice that it does not have is gone.
    page.wait_for_function("document.querySelector('[role=combobox]').value === ''")


def score(page, column):
    box = page.get_by_role("combobox", name="Column of the text")
    box.fill(column)
    box.press("Enter")
    page.get_by_role("button", name="Score the rows").click()


@needs_chromium
@pytest.mark.slow
def test_a_typed_text_is_scored_and_shown_as_it_is(page, saved, tokenizer):
    classify(page, TEXT)
    expected = probabilities(RobertaGRUForSequenceClassification.from_pretrained(saved), tokenizer, TEXT)
    label = page.get_by_test_id("label-output-value").inner_text()
    assert label.strip() == ["bad", "good"][int(expected.argmax())]
    shown = page.locator(".confidence-set, [data-testid$=confidence-set]").all_inner_texts()
    for name, probability in zip(["bad", "good"], expected.tolist(), strict=True):
        assert any(name in line and f"{100 * probability:.0f}%" in line for line in shown), shown
    assert page.get_by_role("region", name="The text, coloured").evaluate("region => region.textContent") == TEXT
    curve = page.get_by_role("img", name="Curve of the scores").get_attribute("aria-label")
    assert curve.endswith(f"bad {expected[0]:.2f}, good {expected[1]:.2f}")
    assert page.evaluate("document.documentElement.scrollWidth") == 375  # nothing sticks out on a phone


@needs_chromium
@pytest.mark.slow
def test_the_prediction_follows_the_typing(page, saved, tokenizer):
    model = RobertaGRUForSequenceClassification.from_pretrained(saved)
    typed = ""
    for words in ("the plot was ", "slow and splendid ", "music"):
        text_box(page).press_sequentially(words)
        typed += words
        expected = probabilities(model, tokenizer, typed)
        shown = f"{100 * expected.max():.0f}%"
        page.wait_for_function("shown => document.body.innerText.includes(shown)", arg=shown)
        label = page.get_by_test_id("label-output-value").inner_text()
        assert label.strip() == ["bad", "good"][int(expected.argmax())]


@needs_chromium
@pytest.mark.slow
def test_an_example_of_the_card_can_be_clicked(page):
    page.get_by_role("button", name=WIDGET[0]).click()
    page.wait_for_function("text => document.querySelector('textarea').value === text", arg=WIDGET[0])


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize(("text", "said"), [("  \n", "Enter a text"), ("word " * 210_000, "1,050,000 characters")])
def test_nonsense_is_answered_by_one_sentence(page, text, said):
    text_box(page).fill(text)
    page.get_by_role("button", name="Classify").click()
    assert said in toast(page)
    classify(page, "a plot")  # and the page goes on


@needs_chromium
@pytest.mark.slow
def test_an_uploaded_file_comes_back_scored(page, saved, tokenizer, table, tmp_path):
    texts = [f"the plot was slow {number} " * (number + 1) for number in range(11)]
    path = table("id;review\n" + "".join(f"{number};{text}\n" for number, text in enumerate(texts)))
    upload(page, path)
    score(page, "review")
    with page.expect_download() as download:
        page.get_by_role("row", name="reviews-scored.csv").get_by_role("link").click()
    download.value.save_as(tmp_path / "scored.csv")
    with (tmp_path / "scored.csv").open(newline="") as file:
        header, *rows = csv.reader(file, delimiter=";")
    assert header == ["id", "review", "predicted", "score_bad", "score_good"]
    model = RobertaGRUForSequenceClassification.from_pretrained(saved)
    for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
        expected = probabilities(model, tokenizer, text)
        assert row[:3] == [str(number), text, ["bad", "good"][int(expected.argmax())]]
        torch.testing.assert_close(torch.tensor([*map(float, row[3:])]), expected, **FLOAT32)


@needs_chromium
@pytest.mark.slow
def test_a_file_without_the_column_is_answered_by_its_columns(page, table):
    upload(page, table("<img src=x onerror=alert(1)>,id\na,1\n"))
    score(page, "text")
    assert "has no column 'text': choose one of <img src=x onerror=alert(1)>, id" in toast(page)


@pytest.mark.slow
def test_a_built_page_names_its_endpoints_and_has_limits(saved):
    script = f"""
import json, runpy
blocks = runpy.run_path({str(APP)!r})["build"]({str(saved)!r})
named = [function["api_name"] for function in blocks.config["dependencies"]]
queue = blocks._queue
print(json.dumps([named, queue.max_size, queue.default_concurrency_limit, blocks.api_open, blocks.analytics_enabled]))
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    named, *limits = json.loads(output.splitlines()[-1])
    assert {"classify", "columns", "score_file"} <= set(named)
    assert limits == [20, 1, False, False]


@pytest.mark.slow
def test_the_demo_answers(saved, tmp_path):
    port = free_port()
    call = (
        f"from modeling_roberta_gru.inference.demo import demo; demo({str(saved)!r}, port={port}, open_browser=False)"
    )
    with (
        running([sys.executable, "-c", call], port, tmp_path / "log") as url,
        urllib.request.urlopen(f"{url}/gradio_api/info", timeout=20) as answer,
    ):
        assert {"/classify", "/columns", "/score_file"} <= set(json.load(answer)["named_endpoints"])
