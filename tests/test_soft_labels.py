"""A teacher's probabilities: they weigh as labels do, bring no held-out text in, and nothing is left out unsaid."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from safetensors.torch import load_file
from transformers import RobertaConfig, RobertaForSequenceClassification

from modeling_roberta_gru import RobertaGRUForSequenceClassification, Scorer, cli, train
from modeling_roberta_gru.arguments import GRU_OPTIONS, DataArguments
from modeling_roberta_gru.configuration_recurrent import RecurrentConfig
from modeling_roberta_gru.data.labels import LabelSpace, class_weights
from modeling_roberta_gru.data.splits import Splits, assert_no_leak, load_splits
from modeling_roberta_gru.inference.score_file import ScoreOptions, score_file
from modeling_roberta_gru.modeling_recurrent import RecurrentForSequenceClassification
from modeling_roberta_gru.training.architectures import ARCHITECTURES
from modeling_roberta_gru.training.arguments import parse_run
from modeling_roberta_gru.training.record import data_lines

from .refusals import refused
from .tiny import ONLY_TRAIN, ROOT, TINY_ENCODER, assert_gradients, gradients, tiny_config, write_reviews

SINGLE = "single_label_classification"
FIELDS = {"problem_type": SINGLE, "class_weights": [0.5, 1.0, 3.0], "label_smoothing": 0.1}
CLASSES = LabelSpace(SINGLE, ("a", "b", "c"))
KINDS = ("roberta-gru", "lstm", "transformer")


# the loss


def losses_of(kind: str) -> tuple[torch.nn.Module, Any]:
    """Return a tiny model in float64 without dropout, and its loss as the Trainer has it: labels, items → loss."""
    torch.manual_seed(0)
    inputs = {"input_ids": torch.randint(3, 61, (4, 9))}
    if kind == "transformer":
        sizes = {name: size for name, size in TINY_ENCODER.items() if name not in GRU_OPTIONS}
        model = RobertaForSequenceClassification(RobertaConfig(**sizes, num_labels=3)).double().eval()
        loss = ARCHITECTURES[kind].loss_function(CLASSES, FIELDS["class_weights"], FIELDS["label_smoothing"])
        return model, lambda labels, items=None: loss(model(**inputs), labels, num_items_in_batch=items)
    if kind == "roberta-gru":
        model = RobertaGRUForSequenceClassification(tiny_config(num_labels=3, **FIELDS))
    else:
        config = RecurrentConfig(vocab_size=61, embedding_size=6, hidden_size=5, num_labels=3, **FIELDS)
        model = RecurrentForSequenceClassification(config)
    model = model.double().eval()
    return model, lambda labels, items=None: model(**inputs, labels=labels, num_items_in_batch=items).loss


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_of_one_class_is_that_label(kind):
    model, loss = losses_of(kind)
    hard = torch.tensor([2, 0, 1, 2])
    soft = torch.nn.functional.one_hot(hard, 3).float()
    expected, expected_gradients = loss(hard), gradients(model, loss(hard))
    for value in (loss(soft), loss(soft, soft.numel())):
        torch.testing.assert_close(value, expected)
    assert_gradients(gradients(model, loss(soft, soft.numel())), expected_gradients)
    # the Trainer counts the entries that are not -100, of either kind, in all of an accumulated batch
    torch.testing.assert_close(loss(soft, 2 * soft.numel()), loss(hard, 2 * hard.numel()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_distribution_is_its_mean_over_the_labels(kind):
    _, loss = losses_of(kind)
    shares = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)
    expected = sum(share * loss(torch.full((4,), label)) for label, share in enumerate(shares))
    torch.testing.assert_close(loss(shares.expand(4, 3)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_of_minus_100_do_not_count(kind):
    _, loss = losses_of(kind)
    hard = torch.tensor([2, 0, -100, 1])
    soft = torch.nn.functional.one_hot(hard.clamp(min=0), 3).float()
    soft[2] = -100
    torch.testing.assert_close(loss(soft), loss(hard))


def test_floats_of_another_shape_are_no_distributions():
    _, loss = losses_of("roberta-gru")
    with pytest.raises(ValueError, match=r"`labels` has shape \(4, 2\)"):
        loss(torch.full((4, 2), 0.5))


# what is read, and what is left out


def labelled(name: str, number: int) -> list[dict]:
    return [{"text": f"{name} {row}", "label": ["bad", "good"][row % 2]} for row in range(number)]


SOFT = [{"text": f"soft {row}", "score_bad": row / 16, "score_good": 1 - row / 16} for row in range(1, 5)]


def as_lists(rows: list[dict]) -> list[dict]:
    return [{"text": row["text"], "label": [row["score_bad"], row["score_good"]]} for row in rows]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([list(rows[0]), *(row.values() for row in rows)])
    return path


@pytest.fixture
def load(tmp_path):
    """Load 24, 6 and 8 labelled rows and a teacher's; those are written to a file of this name first."""

    def load(soft: list[dict] | None = None, name: str = "soft.csv", **options: Any) -> Splits:
        given = {"train": labelled("train", 24), "validation": labelled("validation", 6), "test": labelled("test", 8)}
        files = {f"{split}_file": [str(write(tmp_path / f"{split}.csv", rows))] for split, rows in given.items()}
        if soft is not None:
            options = {"soft_train_file": [str(write(tmp_path / name, soft))], **options}
        return load_splits(DataArguments(**files | options))

    return load


def soft_rows(splits: Splits) -> list[dict]:
    return [row for row in splits.train.to_list() if row["row_id"].startswith("soft:")]


def test_all_training_labels_become_distributions_and_all_else_stays(load):
    plain, splits = load(), load(SOFT)
    assert splits.validation.to_list() == plain.validation.to_list()
    assert splits.test.to_list() == plain.test.to_list()
    own = [dict(row, label=np.eye(2)[row["label"]].tolist()) for row in plain.train.to_list()]
    expected = [
        {"row_id": f"soft:{at}", "text": row["text"], "label": [row["score_bad"], row["score_good"]]}
        for at, row in enumerate(SOFT)
    ]
    assert splits.train.to_list() == own + expected
    assert splits.train.features["label"].feature.dtype == "float32"
    assert splits.hard_train.to_list() == plain.hard_train.to_list() == plain.train.to_list()
    counts = {"read": 4, "skipped": 0, "used": 4, "in_validation_or_test": 0, "in_training": 0, "repeated": 0}
    assert splits.counts == plain.counts | {"train": 28, "soft": counts}
    assert "soft" not in plain.counts


@pytest.mark.parametrize("name", ["soft.csv", "soft.tsv", "soft.jsonl", "soft.json", "soft.parquet"])
@pytest.mark.parametrize("form", [list, as_lists], ids=["columns", "lists"])
def test_every_form_gives_the_same_rows(load, name, form):
    shares = [0.1, 0.30000001192092896, 1 / 3, 1e-7, 0.0]
    rows = [{"text": f"soft {row}", "score_bad": share, "score_good": 1 - share} for row, share in enumerate(shares)]
    assert load(form(rows), name).fingerprint == load(rows, "first.csv").fingerprint


def test_numbers_in_float32_are_those_of_their_text(load, tmp_path):
    shares = np.random.default_rng(0).dirichlet([1, 1], 40).astype(np.float32)
    names = [f"soft {row}" for row in range(40)]
    table = pa.table({"text": names, "score_bad": shares[:, 0], "score_good": shares[:, 1]})
    pq.write_table(table, tmp_path / "soft.parquet")
    texts = [dict(zip(table.column_names, row, strict=True)) for row in zip(names, *shares.astype(str).T, strict=True)]
    assert load(soft_train_file=[str(tmp_path / "soft.parquet")]).fingerprint == load(texts).fingerprint


def test_a_teachers_file_goes_with_rows_in_memory(tmp_path):
    args = DataArguments(soft_train_file=[str(write(tmp_path / "soft.csv", SOFT))])
    assert len(soft_rows(load_splits(args, {"train": labelled("train", 30)}))) == 4


def test_other_columns_do_not_matter_and_several_files_are_one(load, tmp_path):
    scored = [{"id": 7, **row, "label": "good", "predicted_label": "bad", "predicted_score": 0.9} for row in SOFT]
    assert load(scored).fingerprint == load(SOFT).fingerprint
    halves = [str(write(tmp_path / "a.csv", SOFT[:1])), str(write(tmp_path / "b.jsonl", as_lists(SOFT[1:])))]
    assert load(soft_train_file=halves).fingerprint == load(SOFT).fingerprint


def test_texts_are_made_as_those_of_other_files(tmp_path):
    given = write(tmp_path / "train.csv", [{"title": "t", "body": f"b {row}", "label": row % 2} for row in range(30)])
    rows = [{"title": "<b>x</b>", "body": "y &amp; z", "label": "[1e-1 0.9]"}]
    soft = write(tmp_path / "soft.csv", [*rows, {"title": "T", "body": "B 1", "label": "[1,0]"}])
    options = {"text_column": ["title", "body"], "clean_html": True}
    splits = load_splits(DataArguments(train_file=[str(given)], soft_train_file=[str(soft)], **options))
    (row,) = soft_rows(splits)
    assert (row["text"], row["label"]) == ("x\ny & z", pytest.approx([0.1, 0.9]))


def test_a_text_that_another_row_has_is_left_out_and_counted(load):
    taken = [("TEST  3", 0), ("validation 1", 0), ("train 5", 0), ("new", 0.5), (" New", 0.25), ("train  5 ", 1)]
    rows = [{"text": text, "score_bad": share, "score_good": 1 - share} for text, share in taken]
    splits = load(rows)
    assert soft_rows(splits) == [{"row_id": "soft:3", "text": "new", "label": [0.5, 0.5]}]
    expected = {"read": 6, "skipped": 0, "used": 1, "in_validation_or_test": 2, "in_training": 2, "repeated": 1}
    assert splits.counts["soft"] == expected
    assert_no_leak(splits.train, splits.validation, splits.test)
    # Nor is one that a subset leaves out for now.
    assert load(rows, max_validation_samples=2, max_test_samples=2).counts["soft"] == expected
    said = data_lines(splits)
    assert "A teacher's rows: 6 read, 0 skipped, 1 of the training rows" in said
    assert "2 whose text is in validation or test, 2 in training, 1 repeated." in said


@pytest.mark.parametrize("options", [{"group_column": "fold"}, {"split_column": "fold", "test_fold": 1}])
def test_splits_are_made_before_a_teachers_rows_come_in(tmp_path, options):
    rows = [row | {"fold": at % 5} for at, row in enumerate(labelled("one", 40))]
    options = options | {"train_file": [str(write(tmp_path / "train.csv", rows))]}
    texts = [*(row["text"].upper() for row in rows), "more"]
    soft = write(tmp_path / "soft.csv", [{"text": text, "score_bad": 0.5, "score_good": 0.5} for text in texts])
    plain = load_splits(DataArguments(**options))
    splits = load_splits(DataArguments(**options, soft_train_file=[str(soft)]))
    assert splits.validation.to_list() == plain.validation.to_list()
    assert splits.test.to_list() == plain.test.to_list()
    assert [row["text"] for row in soft_rows(splits)] == ["more"]


def test_options_of_ordinary_rows_stay_about_those(load):
    splits = load(SOFT, max_train_samples=6)
    assert (len(splits.train), splits.counts["soft"]["used"]) == (10, 4)
    skewed = load(SOFT, max_train_samples=7, oversample="copies", split_seed=3)
    plain = load(max_train_samples=7, oversample="copies", split_seed=3)
    assert skewed.counts["oversampled"] == plain.counts["oversampled"]
    assert skewed.hard_train.to_list() == plain.train.to_list()


def test_the_fingerprint_covers_probabilities(load):
    changed = [SOFT[0] | {"score_bad": 0.5, "score_good": 0.5}, *SOFT[1:]]
    assert len({load().fingerprint, load(SOFT).fingerprint, load(changed).fingerprint}) == 3


def test_sums_near_one_are_divided_out(load):
    splits = load([{"text": "x", "score_bad": 0.2, "score_good": 0.8009}])
    (row,) = soft_rows(splits)
    assert sum(row["label"]) == pytest.approx(1, abs=1e-7)
    assert row["label"][0] == pytest.approx(0.2 / 1.0009)


def test_class_weights_name_labels_as_json_escapes_them():
    labels = LabelSpace(SINGLE, ("\U0001f600", "no"))
    assert class_weights(json.dumps({"\U0001f600": 2, "no": 0.5}), labels, []) == [2, 0.5]


def test_balanced_class_weights_count_the_sums_of_probabilities():
    encoded = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 1.5, 0.0], [0.0, 1.0, 0.0]]
    assert class_weights("balanced", CLASSES, encoded) == [4 / (3 * 2), 4 / (3 * 3), 4 / 3]
    hard = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    assert class_weights("balanced", CLASSES, hard) == class_weights("balanced", CLASSES, [0, 0, 1, 2, 2, 2])


# bad input


def changed(**cells: Any) -> list[dict]:
    """Return good rows and a bad one, the second."""
    row = {name: cell for name, cell in (SOFT[1] | cells).items() if cell != "left out"}
    return [SOFT[0], row, *SOFT[2:]]


def with_list(cell: Any) -> list[dict]:
    good = as_lists(SOFT)
    return [good[0], good[1] | {"label": cell}, *good[2:]]


BAD_ROWS = {
    "sum": (changed(score_bad=0.5), "the probabilities do not sum to 1"),
    "huge": (changed(score_bad=1e308, score_good=1e308), "the probabilities do not sum to 1"),
    "negative": (changed(score_bad=-0.25, score_good=1.25), "the probability of 'bad' is negative"),
    "NaN": (changed(score_good=float("nan")), "the probability of 'good' is missing or not a number"),
    "infinite": (changed(score_good=float("inf")), "the probability of 'good' is missing or not a number"),
    "missing": (changed(score_good=None), "the probability of 'good' is missing or not a number"),
    "word": (changed(score_good="high"), "the probability of 'good' is missing or not a number"),
    "truth": (changed(score_bad=False, score_good=True), "the probability of 'bad' is missing or not a number"),
    "no text": (changed(text=" "), "the text is empty"),
    "null text": (changed(text=None), "the text is null"),
    "longer list": (with_list([0.25, 0.25, 0.5]), "label is a list of 3, and there are 2 labels"),
    "no list": (with_list("good"), "label is not a list of 2 probabilities, and there is no 'score_bad'"),
    "a number": (with_list(0.5), "label is not a list of 2 probabilities, and there is no 'score_bad'"),
    "null": (with_list(None), "label is not a list of 2 probabilities, and there is no 'score_bad'"),
    "list of lists": (with_list([[0.5], 0.5]), "the probability of 'bad' is missing or not a number"),
    "list with null": (with_list([0.5, None]), "the probability of 'good' is missing or not a number"),
}


@pytest.mark.parametrize(("rows", "reason"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_a_bad_row_is_named_or_skipped_and_counted(load, tmp_path, rows, reason, caplog):
    with refused(file=str(tmp_path / "soft.jsonl"), row=2, match=reason):
        load(rows, "soft.jsonl")
    splits = load(rows, "soft.jsonl", on_bad_row="skip")
    assert [row["row_id"] for row in soft_rows(splits)] == ["soft:0", "soft:2", "soft:3"]
    assert splits.counts["soft"] | {"read": 4, "skipped": 1, "used": 3} == splits.counts["soft"]
    assert splits.counts["skipped"] == {"soft": {reason: 1}}
    assert f"1 of 4 rows left out: row 2: {reason}" in caplog.text


def renamed(**names: str) -> list[dict]:
    return [{names.get(name, name): cell for name, cell in row.items()} for row in SOFT]


BAD_FILES = {
    "misspelt": (
        renamed(score_good="score_god"),
        "score_god",
        "'god'.*mean 'good'",
    ),
    "one more": (
        [row | {"score_fair": 0} for row in SOFT],
        "score_fair",
        "Known: bad, good",
    ),
    "one less": (
        [{name: cell for name, cell in row.items() if name != "score_good"} for row in SOFT],
        "score_good",
        "no column 'score_good'",
    ),
    "none": (
        [{"text": "x", "stars": 5}],
        "label",
        r"neither a column for each label \(score_bad, ",
    ),
    "no text column": (renamed(text="review"), "text", "no column 'text'"),
    "header alone": ([], None, "no rows"),
}


@pytest.mark.parametrize(("rows", "field", "message"), BAD_FILES.values(), ids=list(BAD_FILES))
def test_a_file_without_just_these_classes_is_refused(load, tmp_path, rows, field, message):
    if not rows:
        path = tmp_path / "soft.csv"
        path.write_text("text,score_bad,score_good\n")
        with refused(field=field, file=str(path), match=message):
            load(soft_train_file=[str(path)])
        return
    for name in ("soft.csv", "soft.jsonl"):
        with refused(field=field, file=str(tmp_path / name), match=message):
            load(rows, name)


def test_a_missing_file_or_a_folder_is_named(load, tmp_path):
    with refused(file=str(tmp_path / "nowhere.csv")):
        load(soft_train_file=[str(tmp_path / "nowhere.csv")])
    with refused(file=str(tmp_path), match="is a folder"):
        load(soft_train_file=[str(tmp_path)])


def test_no_row_left_is_an_error(load):
    taken = [{"text": f"{split} 1", "score_bad": 0.5, "score_good": 0.5} for split in ("train", "validation", "test")]
    with refused(field="soft_train_file", match="of 3 texts, 2 stand in validation or test, and 1 in training"):
        load(taken)
    with refused(field="soft_train_file", match="the probabilities do not sum to 1"):
        load([{"text": "x", "score_bad": 1, "score_good": 1}], on_bad_row="skip")


@pytest.mark.parametrize(
    ("label", "problem"),
    [(lambda row: ["a", "b"][: 1 + row % 2], "multi label classification"), (lambda row: row / 7, "regression")],
)
def test_other_problems_are_refused(tmp_path, label, problem):
    given = write(tmp_path / "train.jsonl", [{"text": f"t {row}", "label": label(row)} for row in range(30)])
    soft = write(tmp_path / "soft.csv", SOFT)
    with refused(field="soft_train_file", match=f"not with {problem}"):
        load_splits(DataArguments(train_file=[str(given)], soft_train_file=[str(soft)]))


def test_a_bag_of_words_refuses_the_option(tmp_path):
    with refused(field="soft_train_file", match="bag-of-words"):
        train(soft_train_file="x.csv", architecture="bag-of-words", output_dir=str(tmp_path / "run"))


def test_csv_options_count_where_only_a_teachers_file_is_csv(tmp_path):
    given = write(tmp_path / "train.jsonl", labelled("t", 30))
    path = tmp_path / "soft.csv"
    path.write_text("text;score_bad;score_good\nso, so;0.25;0.75\n", encoding="utf-16")
    splits = load_splits(
        DataArguments(
            train_file=[str(given)], soft_train_file=[str(path)], csv_encoding="utf-16", csv_delimiter="semicolon"
        )
    )
    assert soft_rows(splits) == [{"row_id": "soft:0", "text": "so, so", "label": [0.25, 0.75]}]


# whole runs


TINY = {
    **ONLY_TRAIN,
    **{"gru_hidden_size": 5, "head_hidden_size": 4, "per_device_train_batch_size": 8, "learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def scored(reviews, stand_in, tmp_path_factory):
    """Return what a teacher made of 24 texts, of which one is of the test split."""
    folder = tmp_path_factory.mktemp("teacher")
    files = {"train_file": str(reviews / "train.csv"), "test_file": str(reviews / "test.csv")}
    teacher = train(**files, model_name_or_path=str(stand_in), max_steps=2, output_dir=str(folder / "run"), **TINY)
    with (reviews / "test.csv").open() as file:
        leak = next(csv.DictReader(file))["text"]
    with write_reviews(folder / "more.csv", 23, seed=1).open() as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    source = write(folder / "texts.csv", [{"text": text} for text in [*texts, leak]])
    score_file(teacher.scorer, source, folder / "scored.csv", ScoreOptions(all_scores=True), progress=False)
    return folder / "scored.csv"


@pytest.mark.parametrize("architecture", KINDS)
def test_a_student_learns_from_what_score_wrote(architecture, scored, reviews, stand_in, tmp_path, capsys):
    base = {} if architecture == "lstm" else {"model_name_or_path": str(stand_in)}
    options = TINY if architecture == "roberta-gru" else {k: v for k, v in TINY.items() if "hidden" not in k}
    options = options | {"bag_of_words": True, "class_weights": "balanced", "label_smoothing_factor": 0.1}
    options |= {"train_file": str(reviews / "train.csv"), "test_file": str(reviews / "test.csv")}
    options |= {"architecture": architecture, "max_steps": 3, "soft_train_file": scored}
    folder = tmp_path / "run"
    student = train(**base, **options, output_dir=str(folder))
    assert student.metrics["test"]["n"] == student.metrics["bag_of_words"]["test"]["n"] == 32
    assert student.predict_proba(["splendid"]).shape == (1, 2)
    record = json.loads((folder / "run.json").read_text())
    counts = record["data"]["counts"]
    expected = {"read": 24, "skipped": 0, "used": 23, "in_validation_or_test": 1, "in_training": 0, "repeated": 0}
    assert counts["soft"] == expected
    assert record["options"]["soft_train_file"] == [str(scored)]
    card = (folder / "model" / "README.md").read_text()
    assert "Of the training rows, 23 are\nlabelled with another model's probabilities." in card
    assert "A teacher's rows: 24 read, 0 skipped, 23 of the training rows" in capsys.readouterr().out
    assert Scorer(str(folder)).predict(["a splendid plot"])


def test_the_commands_do_the_same_and_a_resumed_run_is_the_undisturbed_one(
    scored, reviews, stand_in, tmp_path, roberta_gru
):
    again = tmp_path / "scored.parquet"
    status, _, error = roberta_gru("score", scored.parent / "run", scored.parent / "texts.csv", again, "--all-scores")
    assert status == 0, error
    options = {**TINY, "save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    options |= {"train_file": reviews / "train.csv", "test_file": reviews / "test.csv", "soft_train_file": again}
    options |= {"model_name_or_path": stand_in}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]

    def run(name: str, steps: int, *more: str) -> dict[str, torch.Tensor]:
        folder = tmp_path / name
        status, said, error = roberta_gru("train", *words, "--max_steps", steps, "--output_dir", folder, *more)
        assert status == 0, error
        assert "1 whose text is in validation or test" in said
        return load_file(folder / "model" / "model.safetensors")

    whole = run("whole", 4)
    run("stopped", 2)
    resumed = run("stopped", 4, "--resume_from_checkpoint", "true")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    fewer = write(tmp_path / "fewer.csv", [{"text": "x", "score_bad": 0.5, "score_good": 0.5}])
    status, _, error = roberta_gru(
        *("train", *words, "--max_steps", 6, "--output_dir", tmp_path / "stopped", "--resume_from_checkpoint", "true"),
        *("--soft_train_file", fewer),
    )
    assert status == 2
    assert "was trained on other rows" in error


def test_a_run_does_not_write_over_a_teachers_file(scored, stand_in, reviews):
    folder = scored.parent / "run"
    inside = write(folder / "model" / "soft.csv", SOFT)
    with refused(field="output_dir", match=r"soft\.csv"):
        train(
            train_file=str(reviews / "train.csv"),
            soft_train_file=str(inside),
            model_name_or_path=str(stand_in),
            output_dir=str(folder),
            overwrite_output_dir=True,
            **TINY,
        )
    inside.unlink()


def test_the_commands_in_the_documentation_parse():
    section = (ROOT / "docs" / "few-labels.md").read_text().partition("## Train on a teacher's probabilities")[2]
    (block,) = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    teacher, score, student = (shlex.split(line) for line in block.replace("\\\n", " ").splitlines())
    for command in (teacher, student, shlex.split(re.findall(r"`(roberta-gru train [^`]*)`", section)[0])):
        parse_run(command[2:])
    typer.main.get_command(cli.app).commands["score"].make_context("score", score[2:])
