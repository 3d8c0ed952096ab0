import numpy as np
import pytest

from modeling_roberta_gru.training.plots import draw_confusion, draw_curves

from .tiny import assert_is_small_picture

pytestmark = pytest.mark.usefixtures("drawn")

HISTORY = [
    {"loss": 0.69, "learning_rate": 1e-3, "step": 10, "epoch": 0.5},
    {"loss": 0.40, "learning_rate": 1e-3, "step": 20, "epoch": 1.0},
    {"eval_loss": 0.45, "eval_accuracy": 0.81, "step": 20, "epoch": 1.0},
    {"loss": 0.20, "learning_rate": 1e-3, "step": 30, "epoch": 1.5},
    {"eval_loss": 0.30, "eval_accuracy": 0.92, "step": 40, "epoch": 2.0},
    {"train_runtime": 3.0, "train_loss": 0.4, "step": 40, "epoch": 2.0},
]


def texts_in(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_curves_hold_the_logged_points(tmp_path, drawn):
    draw_curves(HISTORY, tmp_path / "curves.png")
    losses, scores = drawn[0].axes
    training, validation = (line.get_xydata().tolist() for line in losses.lines)
    assert training == [[10, 0.69], [20, 0.40], [30, 0.20]]
    assert validation == [[20, 0.45], [40, 0.30]]
    assert losses.get_ylabel() == "loss"  # of several labels a document, each counts
    assert scores.lines[0].get_xydata().tolist() == [[20, 0.81], [40, 0.92]]
    assert [text.get_text() for text in scores.texts] == ["saved: 92.0% at step 40"]
    assert_is_small_picture(tmp_path / "curves.png")


def test_curves_of_a_regression_mark_the_step_that_was_saved(tmp_path, drawn):
    history = [{"eval_mae": 0.5, "eval_loss": 1.0, "step": 1}, {"eval_mae": 0.7, "eval_loss": 1.2, "step": 2}]
    draw_curves(history, tmp_path / "curves.png", saved_step=1)
    scores = drawn[0].axes[1]
    assert scores.get_ylabel() == "mean absolute error"
    assert [text.get_text() for text in scores.texts] == ["saved: 0.5 at step 1"]


@pytest.mark.parametrize("history", [[], HISTORY[:1], HISTORY[2:3]])
def test_curves_of_a_short_run_are_drawn(tmp_path, history):
    draw_curves(history, tmp_path / "curves.png")
    assert_is_small_picture(tmp_path / "curves.png")


def test_the_confusion_matrix_counts_true_rows_and_predicted_columns(tmp_path, drawn):
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    draw_confusion(probabilities, [0, 0, 0, 1], "single_label_classification", ["bad", "good"], tmp_path / "c.png")
    axes = drawn[0].axes[0]
    assert texts_in(drawn[0]) == ["2\n66.7%", "1\n33.3%", "1\n100.0%"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[2 / 3, 1 / 3], [1, 0]])
    assert drawn[0].get_suptitle() == "2 of 4 documents right (50.0%)"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bad", "good"]


@pytest.mark.parametrize("num_labels", [2, 3, 5, 20, 60])
def test_confusions_of_any_number_of_classes_are_small_pictures(tmp_path, num_labels):
    generator = np.random.default_rng(0)
    labels = generator.integers(num_labels, size=500)
    probabilities = generator.random((500, num_labels))
    names = [f"class {index}" for index in range(num_labels)]
    draw_confusion(probabilities, labels, "single_label_classification", names, tmp_path / "c.png")
    assert_is_small_picture(tmp_path / "c.png")


def test_of_very_many_classes_some_are_drawn_and_that_is_said(tmp_path, drawn):
    labels = np.arange(1400) % 700
    labels[:50] = 699
    probabilities = np.eye(700)[labels]
    names = [f"class {index}" for index in range(700)]
    draw_confusion(probabilities, labels, "single_label_classification", names, tmp_path / "c.png")
    assert drawn[0].axes[0].images[0].get_array().shape == (500, 500)
    assert drawn[0].axes[0].get_yticklabels()[-1].get_text() == "class 699"  # the most frequent
    assert "1,400 of 1,400 documents right (100.0%); the 500 most frequent of 700" in drawn[0].get_suptitle()
    assert np.diag(drawn[0].axes[0].images[0].get_array()).min() == 1
    wanted = np.eye(700)[np.arange(700)]
    draw_confusion(1 - wanted, wanted, "multi_label_classification", names, tmp_path / "f.png")
    assert len(drawn[1].axes[0].patches) == 100
    assert "the 100 lowest of 700" in drawn[1].axes[0].get_title()


def test_a_class_without_documents_has_an_empty_row(tmp_path, drawn):
    draw_confusion([[0.9, 0.1]], [0], "single_label_classification", ["bad", "good"], tmp_path / "c.png")
    assert texts_in(drawn[0]) == ["1\n100.0%"]


def test_dollar_signs_in_class_names_start_no_formula_and_long_names_are_cut(tmp_path, drawn):
    names = ["under $5_a$", "a name that goes on and on"]
    draw_confusion(np.eye(2), [0, 1], "single_label_classification", names, tmp_path / "c.png")
    written = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert written == [r"under \$5_a\$", "a name that goes …"]


def test_several_labels_give_a_bar_of_f1_for_each(tmp_path, drawn):
    probabilities, labels = np.array([[0.9, 0.1], [0.9, 0.9]]), np.array([[1, 1], [0, 1]])
    draw_confusion(probabilities, labels, "multi_label_classification", ["fun", "sad"], tmp_path / "c.png")
    axes = drawn[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([2 / 3, 2 / 3])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fun (n = 1)", "sad (n = 2)"]
    assert_is_small_picture(tmp_path / "c.png")


def test_a_regression_gives_a_point_for_each_document(tmp_path, drawn):
    draw_confusion(np.array([[1.0], [2.5]]), [1.5, 2.0], "regression", [], tmp_path / "c.png")
    assert drawn[0].axes[0].lines[0].get_xydata().tolist() == [[1.5, 1.0], [2.0, 2.5]]
    assert_is_small_picture(tmp_path / "c.png")


def test_a_scatter_of_many_documents_stays_small(tmp_path, drawn):
    values = np.random.default_rng(0).normal(size=(2, 20_000))
    draw_confusion(values[0], values[1], "regression", [], tmp_path / "c.png")
    assert len(drawn[0].axes[0].lines[0].get_xydata()) == 5000
    assert_is_small_picture(tmp_path / "c.png")


def test_an_interrupted_drawing_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    draw_curves(HISTORY, path)
    before = path.read_bytes()

    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_curves(HISTORY[:3], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
