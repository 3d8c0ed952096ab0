"""Splits: what is kept, what is carved, and that no text stands in two of them."""

import hashlib
import json
import os
import random
import re
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from sklearn.model_selection import train_test_split

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.labels import SINGLE_LABEL, LabelSpace
from modeling_roberta_gru.data.splits import (
    Splits,
    _label_codes,
    assert_no_leak,
    load_labelled,
    load_splits,
    oversample,
    take_sample,
    text_key,
)
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.training.record import data_lines

from .refusals import refused

SHARED = Path(os.environ.get("ROBERTA_GRU_SHARED", "../shared"))
POLARITY = LabelSpace("single_label_classification", ("neg", "pos"))


def rows(name: str, count: int, **columns) -> list[dict]:
    """Make rows of distinct texts, a quarter of them "pos"; a column is given as a function of the row's number."""
    return [
        {"text": f"{name} {i}", "label": "pos" if i % 4 == 0 else "neg", **{k: f(i) for k, f in columns.items()}}
        for i in range(count)
    ]


def write_texts(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "1.txt").write_text(folder.name)


@pytest.fixture
def load(tmp_path):
    """Write the rows of each split as JSON Lines and load them: `load({"train": rows, …}, split=…, …)`."""

    def load(given: dict[str, list[dict]], **args) -> Splits:
        for split, records in given.items():
            path = tmp_path / f"{split}.jsonl"
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
            args[f"{split}_file"] = [str(path)]
        return load_splits(DataArguments(**args))

    return load


@pytest.fixture
def vectors(tmp_path):
    """Write word vectors in which "great" and "fine" are near "good"."""
    path = tmp_path / "vectors.txt"
    path.write_text("good 1 0\ngreat 1 0.1\nfine 1 0.2\nday 0 1\n")
    return path


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


def ids(splits: Splits) -> list[str]:
    return [*splits.train["row_id"], *splits.validation["row_id"], *splits.test["row_id"]]


# what is kept and what is carved


def test_given_splits_are_kept(load):
    splits = load({"train": rows("a", 8), "validation": rows("b", 4), "test": rows("c", 6)})
    assert sizes(splits) == (8, 4, 6)
    assert splits.source == "train.jsonl, validation.jsonl, test.jsonl"
    assert not splits.pooled
    assert splits.labels == POLARITY
    assert splits.test[4] == {"row_id": "test:4", "text": "c 4", "label": 1}


def test_training_rows_alone_are_split_by_the_fractions_with_each_label_in_proportion(load):
    splits = load({"train": rows("a", 200)}, split="0.6,0.1,0.3")
    assert sizes(splits) == (120, 20, 60)
    assert [sum(part["label"]) for part in (splits.train, splits.validation, splits.test)] == [30, 5, 15]
    assert sorted(ids(splits)) == sorted(f"train:{i}" for i in range(200))
    assert splits.source == "train.jsonl; validation and test split off from train"


@pytest.mark.parametrize(("given", "carved", "size"), [("test", "validation", 20), ("validation", "test", 60)])
def test_the_one_missing_split_is_carved_out_of_training_in_proportion(load, given, carved, size):
    # validation: 0.15 / (0.15 + 0.6) of 100; test: 0.9 / (0.9 + 0.6) of 100, both rounded
    fractions = {"validation": "0.6,0.15,0.25", "test": "0.36,0.1,0.54"}[carved]
    splits = load({"train": rows("a", 100), given: rows("b", 40)}, split=fractions)
    assert len(getattr(splits, carved)) == size
    assert getattr(splits, given)["row_id"][:] == [f"{given}:{i}" for i in range(40)]
    assert splits.source.endswith(f"; {carved} split off from train")


def test_pooling_splits_anew(load):
    splits = load({"train": rows("a", 60), "test": rows("b", 40)}, pool_splits=True, split="0.6,0.2,0.2")
    assert sizes(splits) == (60, 20, 20)
    assert {row_id.split(":")[0] for row_id in splits.test["row_id"]} == {"train", "test"}
    assert len(set(ids(splits))) == 100
    assert splits.pooled
    assert "given splits pooled" in splits.source


def test_the_seed_decides_the_split(load):
    given = {"train": rows("a", 40)}
    assert ids(load(given)) == ids(load(given))
    assert ids(load(given)) != ids(load(given, split_seed=1))


@pytest.mark.parametrize("labels", [["x", "y", "z", "w"] * 3, [*["x"] * 6, *["y"] * 5, "z"], list("aabbccddeeff")])
def test_rare_classes_and_few_rows_can_be_split(load, labels):
    splits = load({"train": [{"text": f"t {i}", "label": label} for i, label in enumerate(labels)]})
    assert sizes(splits) == (10, 1, 1)
    assert splits.labels.names == tuple(sorted(set(labels)))


@pytest.mark.parametrize("size", [7, 20, 66, 150])
def test_rows_are_drawn_as_by_sklearn(size):
    labels = [min(i % 5, i % 7) for i in range(199)]
    documents = Dataset.from_dict({"row_id": list(map(str, range(199))), "label": labels})
    drawn = take_sample(documents, size, LabelSpace("single_label_classification", tuple("abcde")), seed=3)
    _, theirs = train_test_split(range(199), test_size=size, random_state=3, stratify=labels)
    assert list(map(int, drawn["row_id"])) == sorted(theirs)


def test_several_labels_and_targets_can_be_split(load):
    several = [{"text": f"t {i}", "label": ["a"] * (i % 2) + ["b"] * (i % 3 == 0)} for i in range(60)]
    assert sizes(load({"train": several})) == (48, 6, 6)
    targets = [{"text": f"t {i}", "label": i / 7} for i in range(60)]
    splits = load({"train": targets})
    assert sizes(splits) == (48, 6, 6)
    assert splits.train.features["label"].dtype == "float32"


# groups


@pytest.mark.parametrize("fractions", ["0.8,0.1,0.1", "0.4,0.3,0.3", "0.64,0.16,0.2"])
def test_groups_stay_together_near_the_fractions_and_the_proportions(load, fractions):
    given = rows("a", 600, film=lambda i: f"film {random.Random(i).randrange(60)}")
    splits = load({"train": given}, group_column="film", split=fractions)
    films = [set(part["film"]) for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, films)) == len(set.union(*films))
    for part, share in zip((splits.train, splits.validation, splits.test), fractions.split(","), strict=True):
        assert len(part) == pytest.approx(600 * float(share), rel=0.25)
        assert sum(part["label"]) == pytest.approx(len(part) / 4, rel=0.35)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [120, 360])
def test_a_group_too_large_for_a_split_stays_in_training(load, seed, count):
    given = rows("a", 120, film=lambda i: str(i // 4)) + rows("b", count, film=lambda i: None)
    splits = load({"train": given}, group_column="film", split_seed=seed)
    assert None not in [*splits.validation["film"], *splits.test["film"]]
    assert 0 < max(len(splits.validation), len(splits.test)) < 40


def test_few_large_groups_stay_together(load):
    splits = load({"train": rows("a", 40, film=lambda i: i % 4)}, group_column="film")
    assert sizes(splits) == (20, 10, 10)


@pytest.mark.parametrize("fractions", ["0.04,0.48,0.48", "0.98,0.01,0.01"])
def test_extreme_fractions_leave_a_group_to_every_split(load, fractions):
    splits = load({"train": rows("a", 40, film=lambda i: i // 10)}, group_column="film", split=fractions)
    assert all(size >= 10 for size in sizes(splits))


@pytest.mark.parametrize("fractions", ["0.05,0.05,0.9", "0.05,0.9,0.05", "0.9,0.05,0.05"])
@pytest.mark.parametrize("count", [3, 4, 6])
def test_extreme_fractions_leave_a_row_to_every_split(load, fractions, count):
    given = [{"text": f"a {row}", "label": row / 2} for row in range(count)]
    found = sizes(load({"train": given}, problem_type="regression", split=fractions))
    assert min(found) >= 1
    assert sum(found) == count


def test_lists_are_no_groups(load):
    given = [{"text": f"a {i}", "label": [["x"], ["x", "y"], []][i % 3]} for i in range(40)]
    with refused(field="label", match="holds lists"):
        load({"train": given}, group_column="label")


def test_targets_can_be_split_by_group(load):
    given = [{"text": f"t {i}", "label": i / 7, "film": i % 12} for i in range(60)]
    splits = load({"train": given}, group_column="film", split="0.6,0.2,0.2")
    films = [set(part["film"]) for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, films)) == len(set.union(*films)) == 12


def test_a_group_is_one_however_files_write_it(load):
    given = rows("a", 40, film=lambda i: f"{i % 8}" if i % 3 else f"{i % 8}.0")
    splits = load({"train": given}, group_column="film", split="0.6,0.2,0.2")
    films = [{float(film) for film in part["film"]} for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, films)) == len(set().union(*films)) == 8


def test_rows_without_a_group_are_one_group(load):
    given = rows("a", 64, film=lambda i: [None, float("nan"), "", "A", "B", "C", "D", "E"][i % 8])
    splits = load({"train": given}, group_column="film", split="0.6,0.2,0.2")
    films = [{film or None for film in part["film"]} for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, films)) == len(set().union(*films)) == 6


def test_too_few_groups_are_an_error(load):
    with refused(field="group_column", match="'film'"):
        load({"train": rows("a", 40, film=lambda i: i % 2)}, group_column="film")


def test_given_splits_that_share_groups_are_kept_with_a_warning(load, caplog):
    given = {name: rows(name, 12, film=lambda i: i) for name in ("train", "validation", "test")}
    assert sizes(load(given, group_column="film")) == (12, 12, 12)
    assert "12 of 12 values of --group_column 'film' in test stand in train or validation too" in caplog.text


# a column that says the split


def test_a_column_may_say_the_split_of_each_row(load):
    names = ["train", "Test", "dev", "train"]
    splits = load({"train": rows("a", 40, part=lambda i: names[i % 4])}, split_column="part")
    assert sizes(splits) == (20, 10, 10)
    assert splits.test["row_id"][:3] == ["train:1", "train:5", "train:9"]
    splits = load({"train": rows("a", 40, part=lambda i: names[i % 2])}, split_column="part")
    assert (len(splits.test), splits.source) == (20, "train.jsonl; validation split off from train")


@pytest.mark.parametrize("written", [int, float, str])
def test_a_column_may_number_the_fold_of_each_row(load, written):
    given = {"train": rows("a", 40, fold=lambda i: written(i // 10))}
    splits = load(given, split_column="fold", test_fold=2, validation_fold=0)
    assert sizes(splits) == (20, 10, 10)
    assert splits.test["row_id"][:2] == ["train:20", "train:21"]
    assert len(load(given, split_column="fold", test_fold=2).test) == 10


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ("unlabelled", {}, r"part is not train, validation or test \('unlabelled'\)"),
        (None, {}, "part is missing"),
        ("one", {"test_fold": 1}, r"part is not the number of a fold \('one'\)"),
        ("one", {"validation_fold": 1}, r"part is not the number of a fold \('one'\)"),
        ("9" * 400, {"test_fold": 1}, r"part is not the number of a fold \('9+\.\.\.9+'\)"),
    ],
)
def test_a_row_without_a_split_is_bad(load, tmp_path, value, options, message):
    given = rows("a", 20, part=lambda i: value if i == 0 else ("0" if options else "train"))
    with refused(file=str(tmp_path / "train.jsonl"), row=1, match=message):
        load({"train": given}, split_column="part", **options)


@pytest.mark.parametrize(
    ("folds", "field"),
    [({"test_fold": 7}, "test_fold"), ({"test_fold": 1, "validation_fold": 7}, "validation_fold")],
)
def test_a_fold_that_no_row_is_of_is_refused(load, folds, field):
    with refused(field=field, match="7"):
        load({"train": rows("a", 20, part=lambda i: i % 2)}, split_column="part", **folds)


def test_splits_that_a_column_keeps_apart_are_not_pooled(load):
    with refused(field="pool_splits", match="--split_column"):
        load({"train": rows("a", 20, part=lambda i: "train")}, split_column="part", pool_splits=True)


def test_a_column_of_splits_beside_given_splits_is_refused(load):
    given = {"train": rows("a", 20, part=lambda i: "train"), "test": rows("b", 4, part=lambda i: "test")}
    with refused(field="split_column", file="train.jsonl, test.jsonl"):
        load(given, split_column="part")


def test_of_a_column_of_splits_the_test_split_is_evaluated():
    given = {"text": [f"text {i}" for i in range(9)], "label": ["a"] * 9, "part": ["train", "dev", "test"] * 3}
    labels = LabelSpace(SINGLE_LABEL, ("a", "b"))
    rows, _ = load_labelled(given, DataArguments(split_column="part"), labels)
    assert rows["row_id"][:] == ["test:2", "test:5", "test:8"]
    with refused(field="split_column", match="'part'"):
        load_labelled({**given, "part": ["train"] * 9}, DataArguments(split_column="part"), labels)


# leaks


def test_equal_texts_never_straddle_and_the_test_split_stays_whole(load):
    train = [*rows("a", 8), {"text": "In test", "label": "pos"}, {"text": "in  VALIDATION\n", "label": "neg"}]
    validation = [*rows("b", 4), {"text": "in validation", "label": "neg"}, {"text": "in test ", "label": "pos"}]
    test = [*rows("c", 4), {"text": "in\ttest", "label": "neg"}, {"text": "in test", "label": "neg"}]
    splits = load({"train": train, "validation": validation, "test": test})
    assert sizes(splits) == (8, 5, 6)
    assert splits.counts == {
        "rows": {"read": 22, "skipped": 0, "used": 22},
        "train": 8,
        "validation": 5,
        "test": 6,
        "skipped": {},
        "removed_conflicting": 0,
        "removed_repeats": 0,
        "removed_duplicates": {"train": 2, "validation": 1},
    }


def test_texts_whose_labels_disagree_leave_training_first(load):
    disagreeing = [
        {"text": "well", "label": "pos"},
        {"text": "Well", "label": "neg"},
        {"text": "well", "label": "pos"},
    ]
    agreeing = [{"text": "fine", "label": "pos"}] * 2
    test = [*rows("c", 4), *disagreeing]
    splits = load({"train": [*rows("a", 8), *disagreeing, *agreeing], "validation": rows("b", 4), "test": test})
    assert splits.counts["removed_conflicting"] == 3
    assert splits.counts["removed_duplicates"] == {"train": 0, "validation": 0}
    assert sizes(splits) == (10, 4, 7)


def test_repeats_are_dropped_before_anything_is_split_off(load):
    disagreeing = [{"text": "well", "label": "pos"}, {"text": "Well", "label": "neg"}]
    repeated = [{"text": "fine", "label": "pos"}, {"text": " fine", "label": "pos"}, {"text": "FINE", "label": "pos"}]
    splits = load({"train": [*rows("a", 30), *disagreeing, *repeated]}, drop_repeats=True, split="0.5,0.25,0.25")
    assert splits.counts["removed_repeats"] == 4
    said = "Removed: 4 rows before splitting that repeat another text or whose equal texts have different labels."
    assert said in data_lines(splits).splitlines()
    assert (splits.counts["removed_conflicting"], splits.counts["removed_duplicates"]["train"]) == (0, 0)
    texts = [text for split in (splits.train, splits.validation, splits.test) for text in split["text"]]
    assert sorted(texts) == sorted([*(row["text"] for row in rows("a", 30)), "fine"])


def test_repeats_of_a_given_test_split_stay(load):
    test = [*rows("c", 4), *[{"text": "fine", "label": "pos"}] * 2]
    splits = load({"train": rows("a", 8), "validation": rows("b", 4), "test": test}, drop_repeats=True)
    assert sizes(splits) == (8, 4, 6)


def test_targets_of_equal_texts_may_disagree(load):
    given = {name: [{"text": name, "label": i + 0.5} for i in range(3)] for name in ("train", "validation", "test")}
    assert load(given).counts["removed_conflicting"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_carved_splits_share_no_text_whatever_the_seed(load, seed):
    given = [{"text": f"text {i % 37}", "label": i % 37 % 3} for i in range(150)]
    splits = load({"train": given}, split_seed=seed, split="0.6,0.2,0.2")
    texts = [set(part["text"]) for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert len(splits.test) == 30
    assert sum(sizes(splits)) + sum(splits.counts["removed_duplicates"].values()) == 150


def test_a_leak_is_our_own_mistake_and_raises():
    ours = Dataset.from_dict({"row_id": ["train:0"], "text": ["The  same"]})
    theirs = Dataset.from_dict({"row_id": ["test:7"], "text": ["the same "]})
    with pytest.raises(AssertionError, match="Rows train:0 and test:7 of different splits have the same text"):
        assert_no_leak(ours, theirs)
    assert_no_leak(ours, theirs.select([]))


def test_rows_of_one_origin_must_not_straddle_whatever_their_texts():
    def split(**texts: str) -> Dataset:
        return Dataset.from_dict({"row_id": list(texts.values()), "text": list(texts)})

    ours = split(a="train:1", b="train:1+1", c="train:2+11")
    for theirs, row in ((split(d="train:1+2"), "train:1+2"), (split(e="train:2"), "train:2")):
        ours_too = "train:1+1" if row == "train:1+2" else "train:2+11"
        message = re.escape(f"Rows {ours_too} and {row} of different splits are of the same origin")
        with pytest.raises(AssertionError, match=message):
            assert_no_leak(ours, split(f="train:3"), theirs)
    assert_no_leak(ours, split(g="train:11", h="test:1", i="validation:1+1"))


def test_over_sampling_before_splitting_is_caught(vectors):
    """A leak on purpose: no text is repeated, but what is made of a row lands in another split than the row."""
    given = [{"row_id": f"train:{i}", "text": f"a good day {i}", "label": int(i > 5)} for i in range(36)]
    args = DataArguments(oversample="neighbours", word_vectors=str(vectors))
    larger, counts = oversample(Dataset.from_list(given), [], POLARITY, args)
    assert counts["added"] == {"neg": 12}
    assert len({text_key(text) for text in larger["text"]}) == len(larger) == 48
    parts = larger.train_test_split(20, seed=0)
    with pytest.raises(AssertionError, match="of different splits are of the same origin"):
        assert_no_leak(parts["train"], parts["test"])


@pytest.mark.parametrize(
    ("given", "args"),
    [
        (("train",), {}),
        (("train", "test"), {}),
        (("train", "validation", "test"), {}),
        (("train", "validation", "test"), {"pool_splits": True}),
    ],
)
def test_every_row_of_the_source_has_an_origin_of_its_own(load, given, args):
    # equal row numbers in every split
    splits = load({name: rows(name, 30) for name in given}, **args)
    assert len({row_id.partition("+")[0] for row_id in ids(splits)}) == sum(sizes(splits)) == 30 * len(given)


def test_texts_are_equal_up_to_case_and_white_space_only():
    assert text_key(" Straße\u00a0one\n") == text_key("STRASSE one")
    assert text_key("good.") != text_key("good")


# counts, subsets, fingerprint


@pytest.mark.parametrize(
    ("bad", "split", "reason", "args"),
    [
        (["pos", "pos"], "train", "A label is repeated", {}),
        ("much", "train", "The target is not a number", {"problem_type": "regression"}),
        ("inf", "test", "The target is not a number", {"problem_type": "regression"}),
        ("-100", "train", "The target is -100", {"problem_type": "regression"}),
        ("meh", "test", "Unknown label 'meh'", {}),
    ],
)
def test_rows_whose_labels_cannot_be_learned_are_skipped_on_request_and_counted(
    load, tmp_path, bad, split, reason, args
):
    good = [["pos"], ["neg"]] if isinstance(bad, list) else ["1.5", "2"] if args else ["pos", "neg"]
    names = {"train": 8, "validation": 4, "test": 4}
    given = {name: [{"text": f"{name} {i}", "label": good[i % 2]} for i in range(n)] for name, n in names.items()}
    given[split].insert(1, {"text": "bad", "label": bad})
    with refused(file=str(tmp_path / f"{split}.jsonl"), row=2, match=reason):
        load(given, **args)
    splits = load(given, on_bad_row="skip", **args)
    assert splits.counts["skipped"] == {split: {reason: 1}}
    assert splits.counts["rows"] == {"read": 17, "skipped": 1, "used": 16}
    assert getattr(splits, split)["text"][:] == [row["text"] for row in given[split] if row["text"] != "bad"]


def test_skipped_rows_are_counted_by_split_and_reason(load):
    given = {"train": [*rows("a", 8), {"text": "", "label": "pos"}], "validation": rows("b", 4), "test": rows("c", 4)}
    splits = load(given, on_bad_row="skip")
    assert splits.counts["skipped"] == {"train": {"the text is empty": 1}}
    assert splits.counts["train"] == 8


def test_subsets_are_stratified_and_taken_after_splitting(load):
    whole = load({"train": rows("a", 400)})
    part = load({"train": rows("a", 400)}, max_train_samples=40, max_validation_samples=8, max_test_samples=999)
    assert sizes(part) == (40, 8, 40)
    assert Counter(part.train["label"]) == {0: 30, 1: 10}
    assert set(part.train["row_id"]) < set(whole.train["row_id"])
    assert part.test["row_id"][:] == whole.test["row_id"][:]
    assert part.source == whole.source


def test_a_subset_of_the_test_split_is_owned_up_to(load):
    given = {"train": rows("a", 8), "validation": rows("b", 4), "test": rows("c", 10)}
    source = load(given, max_test_samples=3).source
    assert source == "train.jsonl, validation.jsonl, test.jsonl; 3 of 10 test rows"


@pytest.mark.parametrize("method", ["copies", "neighbours"])
def test_over_sampling_changes_training_alone(load, vectors, method):
    given = [row | {"text": f"a good {row['text']}"} for row in rows("a", 100)]
    options = {"word_vectors": str(vectors)} if method == "neighbours" else {}
    plain = load({"train": given}, max_validation_samples=5)
    splits = load({"train": given}, max_validation_samples=5, oversample=method, **options)
    assert splits.validation.to_list() == plain.validation.to_list()
    assert splits.test.to_list() == plain.test.to_list()
    assert splits.train.to_list()[: len(plain.train)] == plain.train.to_list()
    assert Counter(splits.train["label"]) == {0: 60, 1: 60}
    assert splits.counts == plain.counts | {
        "train": 120,
        "oversampled": {"method": method, "added": {"pos": 40}, "refused": 0, "unchanged": 0},
    }
    assert "oversampled" not in plain.counts


def test_over_sampling_knows_the_texts_of_validation_and_test(load, vectors):
    given = {
        "train": [{"text": "so good", "label": "pos"}, *rows("a", 12)[1:3]],
        "validation": [{"text": "So  great", "label": "pos"}, *rows("b", 3)],
        "test": [{"text": "so fine", "label": "pos"}, *rows("c", 3)],
    }
    splits = load(given, oversample="neighbours", word_vectors=str(vectors))
    assert splits.train.to_list() == load(given).train.to_list()
    assert splits.counts["oversampled"] == {
        "method": "neighbours",
        "added": {"pos": 0},
        "refused": 1,
        "unchanged": 0,
    }
    # Nor is one generated that a subset leaves out for now.
    seeds = [load(given, max_validation_samples=2, max_test_samples=2, split_seed=seed) for seed in range(4)]
    texts = [{*splits.validation["text"], *splits.test["text"]} for splits in seeds]
    assert any("So  great" not in held_out and "so fine" not in held_out for held_out in texts)
    for seed in range(4):
        sampled = {"max_validation_samples": 2, "max_test_samples": 2, "split_seed": seed}
        again = load(given, oversample="neighbours", word_vectors=str(vectors), **sampled)
        assert again.counts["oversampled"] == splits.counts["oversampled"]


def test_over_sampling_goes_by_the_subset_that_is_trained_on(load):
    splits = load({"train": rows("a", 400)}, max_train_samples=40, oversample="copies", oversample_to=0.5)
    assert Counter(splits.train["label"]) == {0: 30, 1: 15}


def test_the_fingerprint_is_that_of_the_data(load):
    given = {"train": rows("a", 40)}
    fingerprint = load(given).fingerprint
    assert load(given).fingerprint == fingerprint
    assert load(given, split_seed=1).fingerprint != fingerprint
    assert load({"train": [*rows("a", 39), {"text": "a 39", "label": "pos"}]}).fingerprint != fingerprint


def test_the_fingerprint_depends_on_no_process_and_no_library(load):
    splits = load({"train": rows("a", 3), "validation": rows("b", 1), "test": rows("ç", 1)})
    assert splits.fingerprint == "8a27a316fb18bc0d928fed5eec5b7c99d043675c34c33d3d149a40cc6b69966a"


# bad input


@pytest.mark.parametrize("label", [lambda i: "ab"[i % 2], lambda i: i / 3, lambda i: ["a", "b", "c"][: 1 + i % 3]])
def test_the_fingerprint_is_a_digest_of_the_rows_as_json(load, label):
    records = [{"text": f'{i} \u2028 "\\" \0 \u00e9 \U0001f600', "label": label(i)} for i in range(60)]
    splits = load({"train": records})
    digest = hashlib.sha256(json.dumps([splits.labels.problem_type, splits.labels.names]).encode())
    for name in ("train", "validation", "test"):
        for row in getattr(splits, name):
            digest.update(json.dumps([name, row["row_id"], row["text"], row["label"]]).encode())
    assert splits.fingerprint == digest.hexdigest()


def test_without_training_rows_there_is_nothing_to_train_on(load):
    with refused(file="test.jsonl", match="gives test only"):
        load({"test": rows("a", 8)})


def test_a_split_of_nothing_but_bad_rows_is_an_error(load):
    given = {"train": rows("a", 8), "validation": rows("b", 4), "test": [{"text": " ", "label": "pos"}]}
    with pytest.raises(InputError, match="No row of the test split is usable: the text is empty"):
        load(given, on_bad_row="skip")


def test_training_rows_that_all_stand_in_test_are_an_error(load):
    with pytest.raises(InputError, match="The train split is empty"):
        load({"train": rows("a", 8), "validation": rows("b", 4), "test": rows("a", 8)})


def test_one_class_left_in_training_is_an_error(load):
    train = [*rows("a", 2)[1:], {"text": "both", "label": "pos"}]
    with pytest.raises(InputError, match="All training rows have one label, 'neg': two are needed"):
        load({"train": train, "validation": rows("b", 4), "test": [{"text": "both", "label": "pos"}]})


def test_an_unknown_label_in_test_is_an_error(load, tmp_path):
    with refused(file=str(tmp_path / "test.jsonl"), row=1, match="'Pos' .*'pos'"):
        load({"train": rows("a", 20), "test": [{"text": "c", "label": "Pos"}]})


def test_what_lists_of_0_and_1_mean_is_told_by_the_training_rows(load):
    every, numbers = [{"text": "c", "label": [0, 1]}], [[0], [1], [0, 1]]
    splits = load({"train": [{"text": f"a {i}", "label": numbers[i % 3]} for i in range(20)], "test": every})
    assert splits.test["label"][:] == [[1.0, 1.0]]
    vectors = [[1, 1], [1, 0], [0, 1]]
    splits = load({"train": [{"text": f"a {i}", "label": vectors[i % 3]} for i in range(20)], "test": every})
    assert splits.test["label"][:] == [[0.0, 1.0]]


def test_all_rows_whose_labels_are_unusable_are_counted(load, tmp_path):
    given = [{"text": f"c {i}", "label": "odd"} for i in range(1500)]
    with refused(file=str(tmp_path / "test.jsonl"), row=1, match="rows 1, 2, 3, 4, 5 and 1,495 more"):
        load({"train": rows("a", 20), "test": given})


def test_as_many_rows_as_splits_are_split(load):
    splits = load({"train": [{"text": f"a {row}", "label": row / 2} for row in range(3)]}, problem_type="regression")
    assert [len(getattr(splits, name)) for name in ("train", "validation", "test")] == [1, 1, 1]


def test_many_sets_of_labels_take_little_more_memory_than_the_labels(load):
    encoded = np.random.default_rng(0).integers(0, 2, (500, 1000)).astype(np.float32)
    labels = LabelSpace("multi_label_classification", tuple(map(str, range(1000))))
    tracemalloc.start()
    codes, names = _label_codes(encoded, labels)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * encoded.nbytes
    assert len(set(names)) == len(set(codes.tolist())) == 500
    assert sorted(names) == names


def test_too_few_rows_to_split_are_an_error(load):
    with pytest.raises(InputError, match=r"2 usable rows are too few to split .* --validation_file and --test_file"):
        load({"train": rows("a", 2)})


def test_a_class_that_is_never_trained_is_said_as_the_run_begins(load):
    rare = [{"text": "c", "label": "rare"}]
    never = []
    for seed in range(5):
        splits = load({"train": [*rows("a", 20), *rare]}, split="0.4,0.3,0.3", split_seed=seed)
        said = data_lines(splits)
        never.append("No training row has the label 'rare'" in said)
        assert never[-1] == (splits.labels.names.index("rare") not in splits.train["label"][:])
        assert "Removed" not in said  # nothing was
    assert any(never)
    said = data_lines(load({"train": [*rows("a", 20), *rare], "validation": rows("b", 4), "test": rows("a", 3)}))
    assert "No training row" not in said
    assert "Removed: 3 training rows whose text is in validation or test." in said


# evaluation


def test_one_labelled_file_can_be_loaded_for_evaluation(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("review,stars,label\nfine,5,pos\nawful,1,neg\n")
    args = DataArguments(train_file=["elsewhere.csv"], text_column=["review"])
    loaded, _ = load_labelled(str(path), args, POLARITY, keep=["stars"])
    assert loaded.to_list() == [
        {"row_id": "test:0", "text": "fine", "label": 1, "stars": "5"},
        {"row_id": "test:1", "text": "awful", "label": 0, "stars": "1"},
    ]


def test_a_test_split_without_labels_is_not_replaced_by_training_rows(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,negative\nb,positive\n")
    (tmp_path / "test.csv").write_text("text\nc\n")
    with refused(file=str(tmp_path / "test.csv"), match="no column 'label'"):
        load_labelled(str(tmp_path), DataArguments(), POLARITY)
    withheld = {"train": {"text": ["a"], "label": [1]}, "test": {"text": ["b"], "label": [-1]}}
    splits = DatasetDict({name: Dataset.from_dict(rows) for name, rows in withheld.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.load_dataset", lambda *_, **__: splits)
        with refused(file="some/reviews", match="Split 'test'"):
            load_labelled("some/reviews", DataArguments(), POLARITY)


def test_a_configuration_and_a_revision_of_the_hub_can_be_evaluated(monkeypatch):
    asked = []

    def load_dataset(*names, **options):
        asked.append((*names, options["revision"]))
        return DatasetDict({"test": Dataset.from_dict({"text": ["a"], "label": ["pos"]})})

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    args = DataArguments(dataset_name="some/reviews", dataset_config_name="short", dataset_revision="abc")
    assert len(load_labelled("some/reviews", args, POLARITY)[0]) == 1
    assert asked == [("some/reviews", "short", "abc")]
    with refused(field="dataset_config_name"):
        load_labelled("a.csv", args, POLARITY)


def test_of_a_folder_the_test_split_is_evaluated(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name},pos\n")
    assert load_labelled(str(tmp_path), DataArguments(), POLARITY)[0]["text"][:] == ["test"]
    (tmp_path / "test.csv").rename(tmp_path / "dev.csv")
    with refused(file=str(tmp_path), match="only train and validation"):
        load_labelled(str(tmp_path), DataArguments(), POLARITY)


@pytest.mark.parametrize("kind", ["files", "saved", "class folders", "hub"])
def test_training_rows_are_not_evaluated_in_place_of_a_test_split(tmp_path, monkeypatch, kind):
    labelled, unlabelled = {"text": ["a", "b"], "label": ["neg", "pos"]}, {"text": ["c"]}
    splits = DatasetDict(train=Dataset.from_dict(labelled), validation=Dataset.from_dict(unlabelled))
    if kind == "files":
        pd.DataFrame(labelled).to_csv(tmp_path / "train.csv")
        pd.DataFrame(unlabelled).to_csv(tmp_path / "dev.csv")
    elif kind == "saved":
        splits.save_to_disk(tmp_path)
    elif kind == "class folders":
        write_texts(tmp_path / "train" / "neg", tmp_path / "train" / "pos", tmp_path / "test" / "all")
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: splits)
    name = "some/reviews" if kind == "hub" else str(tmp_path)
    with refused(file=name, match="only train:"):
        load_labelled(name, DataArguments(), POLARITY)


@pytest.mark.parametrize("kind", ["files", "saved", "class folders"])
def test_a_folder_that_names_no_split_is_evaluated_whole(tmp_path, kind):
    columns = {"text": ["a", "b"], "label": ["neg", "pos"]}
    if kind == "files":
        pd.DataFrame(columns).to_csv(tmp_path / "reviews.csv")
    elif kind == "saved":
        Dataset.from_dict(columns).save_to_disk(tmp_path)
    else:
        write_texts(tmp_path / "neg", tmp_path / "pos")
    assert load_labelled(str(tmp_path), DataArguments(), POLARITY)[0]["row_id"][:] == ["test:0", "test:1"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_of_a_hub_data_set_of_one_split_a_column_may_say_which_rows_are_test(monkeypatch, split):
    rows = {"text": ["a", "b"], "label": ["neg", "pos"], "part": ["train", "test"]}
    splits = DatasetDict({split: Dataset.from_dict(rows)})
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: splits)
    assert load_labelled("some/reviews", DataArguments(split_column="part"), POLARITY)[0]["text"][:] == ["b"]


def test_columns_whose_labels_were_given_other_names_are_evaluated_by_either():
    given = {"text": ["a", "b"], "fun": [1, 0], "sad": [1, 1]}
    labels = LabelSpace("multi_label_classification", ("Funny!", "Sad!"), ("fun", "sad"))
    columns = DataArguments(label_column=["sad", "fun"])
    assert load_labelled(given, columns, labels)[0]["label"][:] == [[1.0, 1.0], [0.0, 1.0]]
    given = {"text": ["a", "b"], "Funny!": [1, 0], "Sad!": [1, 1]}
    columns = DataArguments(label_column=["Sad!", "Funny!"])
    assert load_labelled(given, columns, labels)[0]["label"][:] == [[1.0, 1.0], [0.0, 1.0]]
    with refused(field="label_column", match="no others: fun, sad"):
        load_labelled(given, DataArguments(label_column=["Sad!", "Fun"]), labels)


def test_a_saved_model_names_the_columns_that_are_wrong_or_missing():
    labels = LabelSpace("multi_label_classification", ("fun", "sad"))
    saved = LabelSpace.from_config(SimpleNamespace(**labels.config_fields()))
    given = {"text": ["a"], "fun": [1], "said": [1]}
    with refused(field="label_column", match="missing: sad, said"):
        load_labelled(given, DataArguments(label_column=["fun", "said"]), saved)


def test_integers_that_are_read_as_indices_are_warned_about(caplog):
    saved = LabelSpace.from_config(SimpleNamespace(problem_type=None, id2label={0: "fake", 1: "real"}))
    assert load_labelled({"text": ["a", "b"], "label": [1, 0]}, DataArguments(), saved)[0]["label"][:] == [1, 0]
    assert "labels are read as indices: 0 = fake, 1 = real" in caplog.text


@pytest.mark.parametrize("columns", [["fun", "sad"], ["fun", "sad", "long", "odd"], ["fun", "sad", "odd"]])
def test_a_column_for_each_label_of_the_model_is_evaluated_or_none(columns):
    labels = LabelSpace("multi_label_classification", ("fun", "sad", "long"))
    given = {"text": ["a", "b"], **{name: [0, 1] for name in ("fun", "sad", "long", "odd")}}
    with refused(field="label_column"):
        load_labelled(given, DataArguments(label_column=columns), labels)
    assert len(load_labelled(given, DataArguments(label_column=["long", "fun", "sad"]), labels)[0]) == 2


def test_a_label_that_the_model_does_not_know_is_an_error(tmp_path):
    (tmp_path / "new.csv").write_text("text,label\nfine,pos\nmeh,neutral\n")
    with refused(file=str(tmp_path / "new.csv"), row=2, match="'neutral' .*Known: neg, pos"):
        load_labelled(str(tmp_path / "new.csv"), DataArguments(), POLARITY)


def test_a_missing_file_to_evaluate_is_an_error(tmp_path):
    with refused(file=str(tmp_path / "new.csv")):
        load_labelled(str(tmp_path / "new.csv"), DataArguments(), POLARITY)


# real data


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data/imdb").is_dir(), reason="ROBERTA_GRU_SHARED names no folder with IMDB")
def test_imdb_keeps_its_test_split_and_shares_no_text():
    splits = load_splits(DataArguments(dataset_name=str(SHARED / "data/imdb"), class_names=["negative", "positive"]))
    assert len(splits.test) == 25_000
    removed = splits.counts["removed_duplicates"]
    assert len(splits.train) + len(splits.validation) + sum(removed.values()) == 25_000
    assert 100 < removed["train"] < 200
    assert sum(splits.validation["label"]) == pytest.approx(len(splits.validation) / 2, rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data/airline").is_dir(), reason="ROBERTA_GRU_SHARED names no folder with tweets")
def test_airline_tweets_lose_conflicting_and_repeated_texts():
    splits = load_splits(DataArguments(dataset_name=str(SHARED / "data/airline"), split="0.6,0.2,0.2"))
    assert splits.counts["removed_conflicting"] > 0
    assert sum(splits.counts["removed_duplicates"].values()) > 50
    for part in (splits.train, splits.validation, splits.test):
        assert Counter(part["label"])[0] / len(part) == pytest.approx(9178 / 14640, abs=0.01)
