"""The model card, matched whole, and read back as the Hub reads it."""

import shlex
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from modeling_roberta_gru.hub.card import WIDGET_TEXTS, build_card, published_record

EXPECTED = Path(__file__).with_name("expected_card.md")


def figure(value: float, n: int = 200) -> dict:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": n}


def figures(accuracy: float, n: int) -> dict:
    names = ("macro_f1", "macro_precision", "macro_recall", "log_loss", "calibration_error")
    per_class = {
        label: {name: figure(accuracy, n // 2) for name in ("precision", "recall", "f1")} for label in ("bad", "good")
    }
    return {
        "n": n,
        "accuracy": figure(accuracy, n),
        **{name: figure(0.5, n) for name in names},
        "per_class": per_class,
    }


@pytest.fixture
def metrics():
    return {
        "validation": figures(0.91, 100),
        "test": figures(0.93, 200),
        "calibration": {
            "temperature": 1.25,
            "validation": {"before": figure(0.08), "after": figure(0.02)},
            "test": {"before": figure(0.09), "after": figure(0.03)},
        },
        "bag_of_words": {"test": figures(0.71, 200)},
    }


@pytest.fixture
def record():
    return {
        "recipe": "imdb",
        "command": "train.py --config recipes/imdb.yaml",
        "duration_seconds": 130.0,
        "training_seconds": 100.5,
        "steps": 300,
        "epochs": 2.0,
        "best_step": 150,
        "tokens_seen": 123456,
        "data": {
            "source": "stanfordnlp/imdb; validation split off from train",
            "hub_id": "stanfordnlp/imdb",
            "built_in": False,
            "counts": {
                "train": 1000,
                "validation": 100,
                "test": 200,
                "skipped": {},
                "removed_conflicting": 2,
                "removed_duplicates": {"train": 3, "validation": 1},
            },
            "pooled": False,
            "split_seed": 0,
            "problem_type": "single_label_classification",
            "labels": ["bad", "good"],
            "max_length": None,
            "max_windows": None,
            "window_policy": None,
            "fingerprint": "0123456789abcdef" * 4,
        },
        "model": {
            "architecture": "roberta-gru",
            "base": "roberta-base",
            "base_on_hub": True,
            "base_revision": None,
            "num_parameters": 125_000_000,
            "num_trained_parameters": 125_000_000,
            "num_hidden_layers": 12,
            "hidden_size": 768,
            "encoder_window": 512,
            "num_gru_layers": 1,
            "gru_hidden_size": 256,
            "gru_bidirectional": False,
            "summary": "last",
            "head_hidden_size": 256,
            "license": "mit",
            "language": "en",
        },
        "hyperparameters": {"optimizer": "nadam", "learning_rate": 1e-5, "class_weights": None, "seed": 42},
        "versions": {"python": "3.11.0", "torch": "2.13.0"},
        "hardware": {"processor": "A processor", "device": "cpu"},
    }


def test_the_card_is_as_expected_to_the_letter(record, metrics):
    assert build_card(record, metrics).content == EXPECTED.read_text()


def test_the_hub_reads_the_results_back(record, metrics, tmp_path):
    path = tmp_path / "README.md"
    build_card(record, metrics).save(path)
    data = ModelCard.load(path).data
    assert data.license == "mit"
    assert data.language == "en"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert data.datasets == ["stanfordnlp/imdb"]
    assert data.base_model == "roberta-base"
    results = {result.metric_name: result for result in data.eval_results}
    assert results["Accuracy"].metric_value == 0.93
    assert results["Accuracy"].dataset_type == "stanfordnlp/imdb"
    assert results["Accuracy"].dataset_split == "test"
    assert results["Macro-F1"].metric_type == "f1"
    assert data.get("widget") is None


@pytest.mark.parametrize("built_in", [True, False])
def test_only_a_card_of_built_in_reviews_shows_such_reviews(record, metrics, built_in):
    record["data"]["built_in"] = built_in
    card = build_card(record, metrics)
    assert [example["text"] for example in card.data.get("widget") or ()] == list(WIDGET_TEXTS if built_in else ())


def test_labels_cannot_break_the_tables_or_the_page(record, metrics):
    record["data"]["labels"] = ["a|b", "<b>c</b>\nd"]
    per_class = metrics["test"]["per_class"]
    metrics["test"]["per_class"] = dict(zip(record["data"]["labels"], per_class.values(), strict=True))
    card = build_card(record, metrics).content
    assert "| a\\|b | 100 |" in card
    assert "| &lt;b&gt;c&lt;/b&gt; d | 100 |" in card
    assert "<b>" not in card


def test_a_card_claims_no_calibration_where_the_temperature_stays_at_1(record, metrics):
    assert "not calibrated" not in build_card(record, metrics).content
    metrics["calibration"]["temperature"] = 1.0
    card = build_card(record, metrics).content
    assert "not calibrated" in card
    assert "which took the expected" not in card


def test_the_card_says_when_reading_may_stop(record, metrics):
    stops = {"threshold": 0.9875, "share_read": 0.432, "n": 1200, "stopped": 700, "differ": 3, "max_length": None}
    unpromised = {**stops, "threshold": None}
    plain = build_card(record, metrics).content
    assert build_card(record, {**metrics, "stopping": {"0.99": unpromised}}).content == plain
    card = build_card(record, {**metrics, "stopping": {"0.99": stops, "0.999": unpromised}}).content
    lines = [line for line in card.splitlines() if line not in plain.splitlines()]
    assert "| 99.0 % | 0.987500 | 43.2 % | 700 | 3 |" in lines
    assert "| 99.9 % | too few texts to promise it | all | | |" in lines
    assert "1,200 validation texts" in card
    assert "`roberta-gru score --agreement 0.99` stops" in card
    cut = {"0.95": {**stops, "max_length": 4000}, "0.99": {**unpromised, "max_length": 4000}}
    card = build_card(record, {**metrics, "stopping": cut}).content  # a command that works
    assert "`roberta-gru score --agreement 0.95 --max-length 4000` stops" in card
    assert "enough for 95 % of labels to\nbe those of texts cut to 4000 tokens" in card


def test_a_pooled_split_is_owned_up_to(record, metrics):
    sentence = "these metrics are not comparable with those reported on the official test"
    assert sentence not in " ".join(build_card(record, metrics).content.split())
    record["data"]["pooled"] = True
    assert sentence in " ".join(build_card(record, metrics).content.split())


def test_texts_that_were_not_read_whole_are_owned_up_to(record, metrics):
    record["data"] |= {"max_length": 4000, "max_windows": 3, "window_policy": "head_tail"}
    card = " ".join(build_card(record, metrics).content.split())
    assert "cut to 4000 tokens, and the metrics were measured on the cut texts; the loaded model reads whole" in card
    assert "Of each training text, no more tokens were read than 3 windows hold (head and tail)." in card


def test_texts_that_were_freed_of_html_are_owned_up_to(record, metrics):
    assert "HTML" not in build_card(record, metrics).content
    record["options"] = {"clean_html": True}
    assert "\n\nIt was trained on texts without HTML: in yours, turn `<br />`" in build_card(record, metrics).content


def test_that_dropped_repeats_may_have_had_different_labels_is_owned_up_to(record, metrics):
    record["data"]["counts"]["removed_repeats"] = 4
    card = " ".join(build_card(record, metrics).content.split())
    assert "4 rows that repeat another text, or whose equal texts have different labels, were dropped" in card


def test_a_model_of_the_built_in_corpus_is_called_a_toy(record, metrics):
    assert "This is a toy" not in build_card(record, metrics).content
    record["data"]["built_in"] = True
    assert "This is a toy" in build_card(record, metrics).content


def test_local_data_and_checkpoints_are_not_passed_off_as_the_hubs(record, metrics):
    record["data"] |= {"hub_id": None, "source": "reviews.csv"}
    record["model"] |= {"base": "/somewhere/private", "base_on_hub": False}
    card = build_card(record, metrics)
    assert card.data.datasets is None
    assert card.data.base_model is None
    assert "/somewhere" not in card.content


def test_regression_and_several_labels_have_cards_too(record, metrics):
    for problem_type, name in (("regression", "mae"), ("multi_label_classification", "micro_f1")):
        record["data"]["problem_type"] = problem_type
        card = build_card(record, {split: {"n": 9, name: figure(0.4)} for split in ("validation", "test")})
        assert len(card.data.eval_results) == 1
        assert "0.4000 (0.3800 to 0.4200)" in card.content
        assert "Probabilities are calibrated" not in card.content


# The record beside it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--train_file=/home/ann/my data/a.csv", "--train_file=…/a.csv"),
        ("/home/ann/my data/secret project/a.csv", "…/a.csv"),
        ("file:///home/ann/a.csv", "…/a.csv"),
        (r"\\server\ann\a.csv", "…/a.csv"),
        ("/home/ann/a.csv; test split off", "…/a.csv; test split off"),
        ("rows of /home/ann/a.csv", "rows of …/a.csv"),
        (r"C:\Users\ann\a.csv", "…/a.csv"),
        ("../data/imdb and/or runs/mine", "../data/imdb and/or runs/mine"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_absolute_paths_are_shortened_and_nothing_else(text, expected):
    assert published_record({"data": {"source": [text, 3]}}) == {"data": {"source": [expected, 3]}}


def test_labels_that_look_like_paths_are_kept():
    labels = ["/r/movies", "/r/books", "C:\\"]
    weights = '{"/r/movies": 1, "/r/books": 2}'
    record = {"data": {"labels": labels}, "options": {"class_names": labels, "class_weights": weights}}
    words = ["train.py", "--class_names", *labels, "--train_file", "/home/ann/a.csv"]
    published = published_record({**record, "command": shlex.join([*words, f"--class-weights={weights}"])})
    assert {name: published[name] for name in record} == record
    assert shlex.split(published["command"]) == [*words[:-1], "…/a.csv", f"--class-weights={weights}"]


def test_what_no_run_records_is_not_published():
    assert published_record({"steps": 3, "environment": {"TOKEN": "secret"}}) == {"steps": 3}
