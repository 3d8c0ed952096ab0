"""What a trace and an attribution promise, and the page and picture that show them."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast, dynamic_module_utils
from transformers.utils import logging

from modeling_roberta_gru import RobertaGRUForSequenceClassification, RobertaGRUModel, explain
from modeling_roberta_gru.api import Explanation
from modeling_roberta_gru.configuration_roberta_gru import SUMMARIES
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.inference import explanation, reading
from modeling_roberta_gru.inference.explanation import attribute, draw_trace, explain_model, report, trace
from modeling_roberta_gru.inference.reading import Attribution, Trace, html, jumps, turns
from modeling_roberta_gru.training import plots

from .refusals import refused
from .tiny import tiny_config

# Beyond three windows of 20 tokens, with whatever can go wrong on the way to HTML and back.
TEXT = (
    'The plot was dreadful & "slow".\r\n\n  But we <script>alert("liked")</script> its music 😀 more than\tmost, '
    "日本 and the rest &amp; so on…  "
)


@pytest.fixture(scope="module")
def byte_level(stand_in):
    return AutoTokenizer.from_pretrained(stand_in)


@pytest.fixture(scope="module")
def wordpiece():
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", ",", ".", '"', "&", "the"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", mask_token="[MASK]", **special)


def classifier(**fields):
    config = tiny_config(**{"vocab_size": 400, "num_labels": 3, **fields})
    return RobertaGRUForSequenceClassification(config).eval()


def made_trace(*scores, problem_type="single_label_classification", labels=("bad", "good")):
    """Make a trace of one-token words between special tokens: "w1 w2 …"."""
    words = [f"w{number}" for number in range(1, len(scores) - 1)]
    text = " ".join(words)
    starts = [match.start() for match in re.finditer(r"\w+", text)]
    offsets = [(0, 0), *((start, start + len(word)) for start, word in zip(starts, words, strict=True)), (0, 0)]
    array = np.array(scores, dtype=float)
    array = (
        np.stack([1 - array, array], axis=1) if array.ndim == 1 and len(labels) == 2 else array.reshape(len(array), -1)
    )
    return Trace(text, ["<s>", *words, "</s>"], offsets, np.arange(len(array)), array, list(labels), problem_type)


class Reader(HTMLParser):
    """Read a page: the text of each coloured view, anchors, links, and tags that were left open."""

    VOID = {"meta", "input"}

    def __init__(self):
        super().__init__()
        self.in_text, self.depth = False, 0
        self.views, self.ids, self.links, self.titles, self.open, self.tags = [], set(), set(), [], [], set()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.ids |= {attributes.get("id")}
        self.links |= {value for name, value in attributes.items() if name in ("href", "src")}
        self.titles.append(attributes.get("title"))
        if attributes.get("class") == "text":
            self.views.append("")
            self.in_text, self.depth = True, len(self.open)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.in_text &= len(self.open) > self.depth

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        if self.in_text:
            self.views[-1] += data


def read_page(path):
    reader = Reader()
    reader.feed(path.read_bytes().decode())
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize(("summary", "bidirectional"), [*zip(SUMMARIES, (True, False) * 2, strict=True)])
def test_the_last_running_scores_are_the_models_own(summary, bidirectional, byte_level):
    model = classifier(summary=summary, gru_bidirectional=bidirectional, num_gru_layers=2)
    traced = trace(model, byte_level, TEXT)
    inputs = byte_level(TEXT, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == len(traced.tokens) > 3 * model.config.encoder_window
    expected = model(**inputs).logits[0].softmax(dim=0).tolist()
    assert traced.scores[-1].tolist() == pytest.approx(expected, abs=1e-5)
    assert np.allclose(traced.scores.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "say"),
    [
        ("multi_label_classification", 3, torch.sigmoid),
        ("regression", 1, lambda logits: logits),
        ("regression", 2, lambda logits: logits),
    ],
)
def test_scores_are_what_the_problem_type_makes_of_logits(problem_type, num_labels, say, byte_level):
    model = classifier(problem_type=problem_type, num_labels=num_labels)
    traced = trace(model, byte_level, TEXT)
    expected = say(model(**byte_level(TEXT, return_tensors="pt")).logits[0]).tolist()
    assert traced.scores[-1].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_trace_does_not_depend_on_the_chunks(byte_level):
    model = classifier(gru_bidirectional=True, summary="attention")
    whole = trace(model, byte_level, TEXT)
    for windows_per_chunk in (1, 2):
        model.config.windows_per_chunk = windows_per_chunk
        assert np.allclose(trace(model, byte_level, TEXT).scores, whole.scores, atol=1e-6)


@pytest.mark.parametrize("tokenizer", ["byte_level", "wordpiece"])
def test_offsets_slice_the_text_back_to_the_tokens(tokenizer, request):
    traced = trace(classifier(), request.getfixturevalue(tokenizer), TEXT)
    assert len(traced.tokens) == len(traced.offsets) == len(traced.words) == len(traced.scores)
    assert traced.offsets[0] == traced.offsets[-1] == (0, 0)
    assert traced.tokens[0] in ("<s>", "[CLS]")
    for token, (start, end) in zip(traced.tokens[1:-1], traced.offsets[1:-1], strict=True):
        assert token == (TEXT[start:end] or " ")
    assert {"music", "dreadful"} <= {TEXT[slice(*traced.word_at(position))] for position in range(len(traced.tokens))}


def test_a_token_of_no_character_lies_where_it_stands():
    traced = replace(made_trace(0.5, 0.5, 0.5, 0.5, 0.5), offsets=[(0, 0), (0, 0), (0, 2), (3, 5), (0, 0)])
    assert [traced.word_at(position) for position in range(5)] == [(0, 0), (0, 0), (0, 2), (3, 5), (8, 8)]


def test_the_saved_code_of_a_model_is_traced_as_the_packages_own(tmp_path, byte_level, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)  # where other tests' code lies
    model, folder = classifier(), str(tmp_path / "model")
    model.save_pretrained(folder)
    remote = dynamic_module_utils.get_class_from_dynamic_module(
        "modeling_roberta_gru.RobertaGRUForSequenceClassification", folder
    )
    assert remote is not RobertaGRUForSequenceClassification
    loaded = remote.from_pretrained(folder)
    assert np.allclose(trace(loaded, byte_level, TEXT).scores, trace(model, byte_level, TEXT).scores, atol=1e-6)
    assert attribute(loaded, byte_level, TEXT, num_steps=2).values.shape == (len(byte_level(TEXT)["input_ids"]),)


@pytest.mark.parametrize(
    "fields",
    [
        {"summary": "last"},
        {"summary": "attention", "gru_bidirectional": True},
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression", "num_labels": 1},
    ],
)
def test_attributions_are_complete_beyond_the_window(fields, byte_level):
    # A smaller initialisation, as trained models are smoother than TINY_ENCODER's.
    model = classifier(initializer_range=0.1, **fields)
    label = None if fields.get("num_labels") == 1 else model.config.id2label[1]
    found = attribute(model, byte_level, TEXT, label, num_steps=24)
    assert np.isfinite(found.values).all()
    assert abs(found.gap) < 0.01 * abs(found.values).sum()  # the integral's 24 steps
    assert found.warning is None
    assert abs(found.output - found.baseline) > 1e-3


def test_what_is_cut_off_is_neither_read_nor_attributed_nor_shown(byte_level):
    model, most = classifier(vocab_size=len(byte_level)), 9
    ids = byte_level(TEXT, truncation=True, max_length=most, return_tensors="pt")
    traced = trace(model, byte_level, TEXT, max_length=most)
    attribution = attribute(model, byte_level, TEXT, num_steps=2, max_length=most)
    assert len(traced.tokens) == len(attribution.values) == most
    assert traced.scores[-1] == pytest.approx(model(**ids).logits[0].softmax(dim=-1).detach().numpy(), abs=1e-5)
    assert TEXT.startswith(traced.text)
    assert len(traced.text) < len(TEXT)
    assert len(trace(model, byte_level, TEXT).tokens) > most  # the tokenizer keeps no cut


def test_log_odds_are_those_of_the_labels_probability(byte_level):
    model = classifier()
    last = trace(model, byte_level, TEXT).scores[-1]
    for index, label in model.config.id2label.items():
        found = attribute(model, byte_level, TEXT, label, num_steps=1)
        assert found.output == pytest.approx(np.log(last[index] / (1 - last[index])), abs=1e-4)
    assert attribute(model, byte_level, TEXT, num_steps=1).label == model.config.id2label[int(last.argmax())]


def test_what_the_baseline_holds_too_tells_nothing(byte_level):
    text = f"The plot {byte_level.mask_token} slow"
    values = attribute(classifier(), byte_level, text, num_steps=2).values
    masked = byte_level(text)["input_ids"].index(byte_level.mask_token_id)
    assert values[[0, masked, -1]].tolist() == [0, 0, 0]
    assert (np.delete(values, [0, masked, len(values) - 1]) != 0).all()


def test_checkpointing_changes_no_value_and_leaves_no_mark(byte_level):
    # A dropout that woke up would show.
    model = classifier(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    embeds = torch.randn(1, 70, 12, requires_grad=True)
    before = {name: dict(vars(module)) for name, module in model.named_modules()}

    def output_and_gradient():
        output = model(inputs_embeds=embeds).logits[0, 1]
        return output, *torch.autograd.grad(output, embeds)

    plain = output_and_gradient()
    with explanation._checkpointed(model):
        assert [layer.gradient_checkpointing for layer in model.roberta.encoder.layer] == [True, True]
        checkpointed = output_and_gradient()
    for one, other in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    with pytest.raises(ZeroDivisionError), explanation._checkpointed(model):
        raise ZeroDivisionError
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before
    attribute(model, byte_level, TEXT, num_steps=2)
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_too_few_steps_are_said():
    found = Attribution(
        "good", np.array([0.0, 2.0, -1.0, 0.0]), output=2.5, baseline=1.0, unit="log-odds", num_steps=4
    )
    assert found.gap == pytest.approx(0.5)
    assert found.warning == (
        "The attributions add up to +1.00 log-odds instead of +1.50: 4 steps are too few. Take twice as many."
    )
    assert replace(found, output=2.1).warning is None


def test_a_turn_is_where_another_label_takes_the_lead_for_good():
    traced = made_trace(0.3, 0.2, 0.1, 0.52, 0.45, 0.55, 0.7, 0.9, 0.45, 0.55, 0.8)
    # The lead at token 3 is lost again, and that at token 8 never amounts to anything.
    assert [vars(turn) for turn in turns(traced)] == [{"position": 5, "label": "good", "before": 0.1, "after": 0.9}]
    assert turns(made_trace(0.55, 0.45, 0.55, 0.45)) == []


def test_every_turn_of_a_prediction_is_found_in_order():
    scores = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7], [0.9, 0.0, 0.1]]
    found = turns(made_trace(*scores, labels=["a", "b", "c"]))
    assert [(turn.position, turn.label, turn.before, turn.after) for turn in found] == [
        (1, "b", 0.1, 0.8),
        (3, "c", 0.1, 0.7),
        (4, "a", 0.2, 0.9),
    ]


def test_each_of_several_labels_turns_by_itself_up_and_down():
    scores = [[0.1, 0.9], [0.8, 0.9], [0.8, 0.2], [0.1, 0.2]]
    found = turns(made_trace(*scores, problem_type="multi_label_classification"))
    assert [(turn.position, turn.label, turn.before, turn.after) for turn in found] == [
        (1, "bad", 0.1, 0.8),
        (2, "good", 0.9, 0.2),
        (3, "bad", 0.8, 0.1),
    ]


def test_a_regression_jumps_where_it_moved_most():
    traced = made_trace(1.0, 1.5, 4.0, 3.9, 2.0, 2.0, problem_type="regression", labels=["stars"])
    assert turns(traced) == []
    found = jumps(traced, "stars", most=2)
    assert [(turn.position, turn.before, turn.after) for turn in found] == [(2, 1.5, 4.0), (4, 3.9, 2.0)]
    assert "Where stars moved most:" in report(traced)
    assert "token      2  stars 1.5 → 4  w1 «w2» w3 w4" in report(traced)


def test_a_report_tells_prediction_turns_and_words():
    traced = made_trace(0.3, 0.1, 0.9, 0.8, 0.8)
    said = report(traced, Attribution("good", np.array([0, -1.0, 3.0, 0.5, 0]), 2.0, -0.5, "log-odds", 32))
    assert said.splitlines() == [
        "Prediction: good 0.80, after 5 tokens.",
        "",
        "The prediction turned once:",
        "  token      2  good 0.10 → 0.90  w1 «w2» w3",
        "",
        "Most influential words, for (+) and against (-) good, in log-odds:",
        "  token      2  +3.00  w2",
        "  token      3  +0.50  w3",
        "  token      1  -1.00  w1",
        "All tokens add up to +2.50: from -0.50 for a text of masked words to +2.00 (missed by 0 in 32 steps).",
    ]


@pytest.mark.parametrize(
    ("scores", "problem_type", "said"),
    [
        ([[0.2, 0.8]] * 3, "multi_label_classification", "good 0.80"),
        ([[0.7, 0.8]] * 3, "multi_label_classification", "bad 0.70, good 0.80"),
        ([[0.2, 0.3]] * 3, "multi_label_classification", "no label (the nearest: good 0.30)"),
        ([[1.5, 1234.5678]] * 3, "regression", "bad 1.5, good 1235"),
    ],
)
def test_a_prediction_is_said_as_the_problem_asks(scores, problem_type, said):
    assert reading.prediction(made_trace(*scores, problem_type=problem_type)) == said


@pytest.mark.parametrize(
    ("tokenizer", "fields"),
    [
        ("byte_level", {"num_labels": 2}),
        ("wordpiece", {"num_labels": 7}),
        ("byte_level", {"num_labels": 3, "problem_type": "multi_label_classification"}),
        ("wordpiece", {"num_labels": 1, "problem_type": "regression"}),
    ],
)
def test_a_page_holds_the_text_exactly_and_needs_nothing_beside_itself(tokenizer, fields, tmp_path, request):
    tokenizer = request.getfixturevalue(tokenizer)
    model = classifier(**fields)
    model.config.id2label = {index: f'<b>"{index}"&' for index in model.config.id2label}
    traced, attribution = trace(model, tokenizer, TEXT), attribute(model, tokenizer, TEXT, num_steps=2)
    for attributed in (attribution, None):
        (tmp_path / "page.html").write_text(html(traced, attributed, whole_page=True))
        read = read_page(tmp_path / "page.html")
        assert read.views == [TEXT] * (2 if attributed else 1)
        assert "script" not in read.tags
        assert all(link.startswith("#") and link[1:] in read.ids for link in read.links)
        assert sum(title is not None for title in read.titles) > 10
        text = (tmp_path / "page.html").read_text()
        assert not re.search(r"https?:|@import|<link|src=|url\((?!#)", text)
        draw_trace(traced, attributed, tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as picture:
            picture.load()
            assert picture.format == "PNG"
            assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.png"]


@pytest.mark.parametrize("tokenizer", ["byte_level", "wordpiece"])
@pytest.mark.parametrize("text", ["", " ", "\u200b", "\ufeff", "\x00"])
def test_a_text_that_leaves_no_token_has_its_page_too(tokenizer, text, tmp_path, request):
    tokenizer = request.getfixturevalue(tokenizer)
    for problem_type, num_labels in (("single_label_classification", 3), ("regression", 1)):
        read = reading.read(classifier(problem_type=problem_type, num_labels=num_labels), tokenizer, text)
        (tmp_path / "page.html").write_text(html(read, whole_page=True))
        page = read_page(tmp_path / "page.html")
        assert page.views == [reading.visible(text)]
        assert {link[1:] for link in page.links} <= page.ids


def test_a_page_gives_the_number_behind_every_token(tmp_path):
    (tmp_path / "page.html").write_text(html(made_trace(0.3, 0.1, 0.2, 0.2, 0.9, 0.9), None, whole_page=True))
    titles = [title for title in read_page(tmp_path / "page.html").titles if title and "token" in title]
    assert titles == ["bad 0.90 (token 1)", "bad 0.80 (tokens 2 to 3)", "good 0.90 (token 4)"]


def test_the_curve_runs_through_every_score(tmp_path):
    scores = np.random.default_rng(0).random(50)
    (tmp_path / "page.html").write_text(html(made_trace(*scores), None, whole_page=True))
    drawn = re.search(r'<polyline points="([^"]*)"', (tmp_path / "page.html").read_text())[1]
    points = np.array([[float(number) for number in point.split(",")] for point in drawn.split()])
    assert points[:, 1] == pytest.approx(100 * (1 - scores), abs=0.051)
    assert points[[0, -1], 0].tolist() == [0, 1000]


def test_a_long_curve_keeps_its_peaks():
    scores = np.random.default_rng(0).random(12345)
    scores[[0, 777, 12344]], scores[9999] = (0.5, 2.0, 0.5), -1
    chosen = reading.drawn_positions(scores).tolist()
    assert {0, 777, 9999, 12344} <= set(chosen)
    assert chosen == sorted(chosen)
    assert len(chosen) <= reading.MOST_POINTS


def test_a_trace_shows_itself_in_a_notebook(byte_level):
    traced = trace(classifier(), byte_level, TEXT)
    shown = [traced._repr_html_() for _ in range(2)]
    for page in shown:
        reader = Reader()
        reader.feed(page)
        assert reader.views == [TEXT]
        assert reader.open == []
        assert all(link[1:] in reader.ids for link in reader.links)
    first, second = (set(re.findall(r'id="([^"]*)"', page)) for page in shown)
    assert first.isdisjoint(second)  # a link leads into its own view


def test_an_explanation_shows_its_attribution_in_a_notebook():
    traced = made_trace(0.3, 0.1, 0.9, 0.9)
    attribution = Attribution(traced.labels[1], np.array([0, 1.25, -1.0, 0]), 1.0, 0.0, "log-odds", 2)
    alone, both = (Explanation(traced, found, None, ())._repr_html_() for found in (None, attribution))
    assert "+1.25" not in alone
    assert "+1.25" in both


def test_control_characters_and_active_text_are_shown_and_do_nothing(tmp_path):
    hostile = "\x1b[31m\x07\u202egood\x00\x85<img src=x onerror=alert(1)>{{7*7}}{% raw %}"
    traced = made_trace(0.3, 0.1, 0.9, 0.9, labels=(hostile, f"{hostile} too"))
    text = traced.text.replace("w1", "w\x1b")
    attribution = Attribution(hostile, np.array([0, 1.0, -1.0, 0]), 1.0, 0.0, "log-odds", 2)
    (tmp_path / "page.html").write_text(html(replace(traced, text=text), attribution, whole_page=True))
    written = (tmp_path / "page.html").read_text()
    assert not set(written) & {*map(chr, range(9)), *map(chr, range(14, 32)), *map(chr, range(127, 160)), "\u202e"}
    assert "img" not in read_page(tmp_path / "page.html").tags
    assert "␛[31m␇�good␀�&lt;img src=x onerror=alert(1)&gt;{{7*7}}{% raw %}" in written
    assert read_page(tmp_path / "page.html").views == ["w␛ w2"] * 2


def test_names_that_no_font_can_write_are_escaped_without_a_warning(tmp_path):
    labels = ("日本 😀 $x$ \n", "مرحبا")
    draw_trace(made_trace(0.3, 0.1, 0.9, 0.9, labels=labels), None, tmp_path / "page.png")
    assert plots.shortened("good $1$") == r"good \$1\$"
    for name in labels:
        drawn = plots.shortened(name).replace(r"\$", "$")
        assert len(drawn) <= 2 * plots.LONGEST_NAME + 1
        assert plots.can_draw(drawn)


def test_a_very_long_text_is_attributed_only_where_that_is_asked_for(byte_level, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(explanation, "MOST_ATTRIBUTED", 20)
    folder = tmp_path / "model"
    classifier(vocab_size=len(byte_level)).save_pretrained(folder)
    byte_level.save_pretrained(folder)
    text = "abcdefghij" * 8
    assert explain_model(str(folder), text, tmp_path / "out")[1] is None
    assert "--steps" in caplog.text
    assert explain_model(str(folder), text, tmp_path / "out", steps=2)[1].num_steps == 2
    assert explain(folder, text, steps=2).attribution.num_steps == 2
    assert explain(folder, text).attribution is None


def test_progress_is_shown_on_standard_error(byte_level, capsys):
    logging.enable_progress_bar()
    try:
        attribute(classifier(), byte_level, TEXT, num_steps=2)
    finally:
        logging.disable_progress_bar()
    assert "Attributing" in capsys.readouterr().err


def test_a_bar_that_is_drawn_anew_does_not_change_what_is_read(byte_level, monkeypatch):
    model = classifier()
    expected = trace(model, byte_level, TEXT).scores
    bars = MagicMock()
    bars().__enter__().update.return_value = True  # tqdm's answer where it draws
    monkeypatch.setattr(explanation, "_progress", bars)
    assert np.array_equal(trace(model, byte_level, TEXT).scores, expected)
    assert bars().__enter__().update.called


def test_two_turns_at_one_word_are_both_to_be_found(tmp_path):
    scores = [[0.1, 0.1], [0.1, 0.1], [0.9, 0.9], [0.9, 0.9]]
    traced = made_trace(*scores, problem_type="multi_label_classification")
    assert len({turn.position for turn in turns(traced)}) == 1 < len(turns(traced))
    (tmp_path / "page.html").write_text(html(traced, None, whole_page=True))
    read = read_page(tmp_path / "page.html")
    assert {"#reading-turn-1", "#reading-turn-2"} <= set(read.links)
    assert {"reading-turn-1", "reading-turn-2"} <= set(read.ids)


def test_a_page_of_twenty_thousand_tokens_stays_light(tmp_path):
    steps = np.random.default_rng(0).normal(size=20_000).cumsum() / 5
    traced = made_trace(*(1 / (1 + np.exp(-steps))))
    attribution = Attribution("good", np.random.default_rng(1).normal(size=20_000) ** 9, 1.0, 0.0, "log-odds", 32)
    (tmp_path / "page.html").write_text(html(traced, attribution, whole_page=True))
    draw_trace(traced, attribution, tmp_path / "page.png")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<span") < 24_000
    assert len(text) < 2_400_000
    assert read_page(tmp_path / "page.html").views == [traced.text] * 2
    assert (tmp_path / "page.png").stat().st_size < 150_000


@pytest.mark.parametrize(("background", "text"), [("#ffffff", "#16181c"), ("#16181c", "#ffffff")])
def test_text_stands_out_from_every_colour_in_light_and_dark(background, text):
    assert f"--page: {background}; --text: {text};" in reading.style()

    def channels(colour):
        return np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])

    def luminance(rgb):  # WCAG 2.2
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for colour in [*reading.COLOURS, reading.GREY]:
        behind = reading.STRONGEST * channels(colour) + (1 - reading.STRONGEST) * channels(background)
        low, high = sorted([luminance(behind), luminance(channels(text))])
        assert (high + 0.05) / (low + 0.05) > 4.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("<s></s>", "only special tokens"),
        ("half a \ud83d smile", "Character 8 "),
    ],
)
def test_texts_that_cannot_be_read_are_refused(text, said, byte_level):
    for compute in (trace, attribute):
        with refused(field="text", match=said):
            compute(classifier(), byte_level, text)


def test_models_and_tokenizers_that_cannot_do_it_are_refused(byte_level, monkeypatch):
    with pytest.raises(InputError, match="RoBERTa-GRU classifier can be explained, but a RobertaGRUModel was given"):
        trace(RobertaGRUModel(tiny_config()).eval(), byte_level, TEXT)
    with pytest.raises(InputError, match=r"training mode.*call model.eval\(\)"):
        attribute(classifier().train(), byte_level, TEXT)
    with pytest.raises(InputError, match="ByT5Tokenizer gives no token offsets"):
        trace(classifier(), ByT5Tokenizer(), TEXT)
    with pytest.raises(InputError, match=r"Unknown label 'LABL_1'\. Did you mean 'LABEL_1'"):
        attribute(classifier(), byte_level, TEXT, "LABL_1")
    monkeypatch.setattr(explanation, "find_spec", lambda name: None)
    with refused(field="attributions", match="pip install captum"):
        attribute(classifier(), byte_level, TEXT)
