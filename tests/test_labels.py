"""What labels mean: kinds of problems, order of classes, and labels nobody knows."""

import itertools
import json
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data import labels as module
from modeling_roberta_gru.data.documents import Documents, build_documents, in_memory, stack
from modeling_roberta_gru.data.labels import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    LabelSpace,
    label_array,
    read_labels,
    with_labels,
)
from modeling_roberta_gru.data.labels import infer_labels as infer_from

from .refusals import refused

POLARITY = LabelSpace(SINGLE_LABEL, ("negative", "positive"))


def documents(labels: list, feature=None, split: str = "train", **args) -> Documents:
    columns: Any = {"text": [f"text {row}" for row in range(len(labels))], "label": labels}
    if feature:
        columns = Dataset.from_dict(columns, features=Features(text=Value("string"), label=feature))
    args = DataArguments(**args)
    return build_documents(split, [in_memory(columns, split, args)], args)


def infer_labels(labels: list, feature=None, **args) -> LabelSpace:
    return infer_from(documents(labels, feature, **args), DataArguments(**args))


def encode(given: Documents, space: LabelSpace, **args) -> np.ndarray:
    return space.encode(read_labels(given, DataArguments(**args), space).column, given.rows.data.column("row_id"))


def encoded(labels: list, space: LabelSpace, **args) -> list:
    return encode(documents(labels, **args), space, **args).tolist()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        ([10, 9, 1], ("1", "9", "10")),
        (["10", "9", "1"], ("1", "9", "10")),
        ([1.0, 0.0], ("0", "1")),
        (["1.0", "0"], ("0", "1")),
        ([True, False], ("False", "True")),
        (["True", "False"], ("False", "True")),
        ([-1, 1, 0], ("-1", "0", "1")),
        ([" pos", "pos ", "neg"], ("neg", "pos")),
        (["007", "7"], ("007", "7")),
        (["2", "two"], ("2", "two")),
    ],
)
def test_one_label_a_text_is_single_label_with_classes_in_order(labels, names):
    space = infer_labels(labels)
    assert (space.problem_type, space.names) == (SINGLE_LABEL, names)
    assert [space.names[index] for index in space.encode(labels)] == [
        name if name in names else str(int(float(name))) for name in (str(label).strip() for label in labels)
    ]


def test_class_label_features_keep_their_order_and_their_absent_classes():
    feature = ClassLabel(names=["ugly", "bad", "good"])
    space = infer_labels([2, 1, 2], feature)
    assert space == LabelSpace(SINGLE_LABEL, ("ugly", "bad", "good"))
    assert encode(documents([2, 1, 2], feature), space).tolist() == [2, 1, 2]


def test_class_label_features_of_two_splits_agree_by_name_not_by_number():
    space = infer_labels([0, 1], ClassLabel(names=["neg", "pos"]))
    other = documents([0, 1, 1], ClassLabel(names=["pos", "neg"]), "test")
    assert encode(other, space).tolist() == [1, 0, 0]


def test_names_for_integers_go_from_the_smallest_and_remember_them():
    space = infer_labels([4, 0, 4], class_names=["negative", "positive"])
    assert space == LabelSpace(SINGLE_LABEL, ("negative", "positive"), ("0", "4"))
    assert space.encode([0, 4, "4", "positive", 4.0]).tolist() == [0, 1, 1, 1, 1]


def test_names_for_names_say_their_order():
    assert infer_labels(["good", "bad"], class_names=["good", "bad"]).label2id == {"good": 0, "bad": 1}


def test_names_may_translate_class_labels():
    space = infer_labels([0, 1], ClassLabel(names=["neg", "pos"]), class_names=["negative", "positive"])
    assert space.encode(["pos", "negative"]).tolist() == [1, 0]


def test_lists_are_several_labels_a_text():
    space = infer_labels([["red", "blue"], [], ["green"]])
    assert (space.problem_type, space.names) == (MULTI_LABEL, ("blue", "green", "red"))
    assert space.encode([["red", "blue"], [], ["green"]]).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_a_delimiter_makes_several_labels_of_a_cell():
    space = infer_labels(["red; blue", "", "blue"], label_delimiter=";")
    assert (space.problem_type, space.names) == (MULTI_LABEL, ("blue", "red"))
    assert encoded(["red;blue", "", "blue"], space, label_delimiter=";") == [[1, 1], [0, 0], [1, 0]]


def test_lists_of_named_classes_keep_their_order():
    space = infer_labels([[1], [0, 1]], List(ClassLabel(names=["joy", "anger"])))
    assert (space.problem_type, space.names) == (MULTI_LABEL, ("joy", "anger"))


@pytest.mark.parametrize("labels", [[0.5, 1, 2], ["0.5", "1", "2"]])
def test_numbers_with_a_fraction_are_targets(labels):
    space = infer_labels(labels)
    assert (space.problem_type, space.num_labels) == (REGRESSION, 1)
    assert space.encode(labels).tolist() == [0.5, 1.0, 2.0]


def test_whole_numbers_are_targets_when_said():
    assert infer_labels([3, 5], problem_type=REGRESSION).encode([3, 5]).tolist() == [3.0, 5.0]


def test_several_targets_a_text_are_refused():
    with refused(field="label_column", match="several numbers"):
        infer_labels([[0.5, 1.0], [2.0, 3.0]])


@pytest.mark.parametrize(
    ("labels", "dtype"), [(["a", "b"], "int64"), ([0.5, 1.5], "float32"), ([["a"], ["b"]], "float32")]
)
def test_encoded_columns_have_the_type_of_the_loss(labels, dtype):
    rows = documents(labels)
    rows = with_labels(rows.rows, encode(rows, infer_from(rows, DataArguments())))
    feature = rows.features["label"]
    assert label_array(rows).shape == ((2, 2) if isinstance(labels[0], list) else (2,))
    assert getattr(feature, "feature", feature).dtype == dtype


# saved models


@pytest.mark.parametrize("space", [POLARITY, LabelSpace(SINGLE_LABEL, ("negative", "positive"), ("0", "4"))])
def test_config_fields_read_back(space):
    config = SimpleNamespace(**space.config_fields())
    assert LabelSpace.from_config(config).encode(["positive", "negative"]).tolist() == [1, 0]
    assert LabelSpace.from_config(config).values == space.values


def test_names_of_a_saved_model_are_in_the_order_of_their_indices():
    names = ("b", "a", "c")
    for order in itertools.permutations(range(3)):
        config = SimpleNamespace(problem_type=None, id2label={index: names[index] for index in order})
        assert LabelSpace.from_config(config).names == names


def test_a_saved_model_takes_indices_unless_its_classes_are_integers():
    stars = SimpleNamespace(problem_type=None, id2label={0: "1", 1: "2", 2: "3"})
    assert LabelSpace.from_config(stars).encode([1, 3]).tolist() == [0, 2]
    with refused(row=1, match=r"'0' .*Known: 1, 2, 3"):
        LabelSpace.from_config(stars).encode([0])
    for names, label in (({0: "+1", 1: "-1"}, "1"), ({0: "1", 1: "2", 2: "3+"}, 0)):  # nor where one is a number
        with refused(row=1, match="Unknown label"):
            LabelSpace.from_config(SimpleNamespace(problem_type=None, id2label=names)).encode([label])
    polarity = SimpleNamespace(problem_type=None, id2label={0: "negative", 1: "positive"})
    assert LabelSpace.from_config(polarity).encode([0, "1", "positive"]).tolist() == [0, 1, 1]


def test_indices_are_not_read_where_the_names_of_a_saved_model_have_digits_unless_these_are_the_indices():
    stars = SimpleNamespace(problem_type=None, id2label={index: f"{index + 1} stars" for index in range(5)})
    with refused(row=1, match=r"'1' .*Known: 1 stars, .*not read by index"):
        LabelSpace.from_config(stars).encode([1, 4])
    unnamed = SimpleNamespace(problem_type=None, id2label={0: "LABEL_0", 1: "LABEL_1"})
    assert LabelSpace.from_config(unnamed).encode([1, "0", "LABEL_1"]).tolist() == [1, 0, 1]


def test_that_indices_of_a_saved_model_are_read_is_noted():
    space = LabelSpace.from_config(SimpleNamespace(problem_type=None, id2label={0: "fake", 1: "real", 2: "unsure"}))
    assert (
        read_labels(documents([1, 0]), DataArguments(), space).note == "labels are read as indices: 0 = fake, 1 = real"
    )
    assert read_labels(documents(["real"]), DataArguments(), space).note == ""


@pytest.mark.parametrize("names", [("1", "2", "3"), ("b1", "b2", "b3")])
def test_vectors_are_read_by_place_whatever_the_names(names):
    space = LabelSpace.from_config(SimpleNamespace(problem_type=MULTI_LABEL, id2label=dict(enumerate(names))))
    assert encoded([[0, 1, 1], [1, 0, 0]], space) == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("id2label", {"id2label": {0: "a", 1: "a"}}),
        ("id2label", {"id2label": {0: "1", 1: 1}}),
        ("id2label", {"id2label": {0: ["x"], 1: None}}),
        ("label_values", {"label_values": ["0"]}),
        ("label_values", {"label_values": "04"}),
    ],
)
def test_labels_of_a_saved_model_that_cannot_be_told_apart_are_refused(field, fields):
    config = SimpleNamespace(**{"id2label": {0: "a", 1: "b"}, "problem_type": None, **fields})
    with refused(field=field):
        LabelSpace.from_config(config)


def test_a_saved_model_with_one_output_is_a_regression():
    assert LabelSpace.from_config(SimpleNamespace(problem_type=None, id2label={0: "x"})).problem_type == REGRESSION


# errors


@pytest.mark.parametrize("labels", [["pos"] * 3, [1, 1.0], [["pos"], [], ["pos"]]])
def test_one_class_only_is_an_error(labels):
    with refused(field="label_column", match="two classes .* holds only '"):
        infer_labels(labels)


def test_an_unknown_label_is_named_with_its_rows_and_the_nearest_known():
    rows = documents(["positive", "postive", "postive", "odd"], split="test")
    message = "'postive' and 1 more in rows 2, 3, 4 of the test split. .* 'positive'"
    with refused(row=2, match=message) as raised:
        encode(rows, POLARITY)
    assert raised.value.rows.tolist() == [1, 2, 3]
    with refused(row=1, match=r"'3' .*Known: negative, positive\.$"):
        POLARITY.encode([3])


def test_rows_of_pooled_splits_are_named_by_split():
    pooled = stack([documents(["x", "positive"]), documents(["x", "x"], split="test")])
    with refused(row=1, match="in row 1 of the train split, rows 1, 2 of the test split"):
        encode(pooled, POLARITY)


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["a", "a"]])
def test_a_wrong_number_of_class_names_is_an_error(names):
    with refused(field="class_names", match=f" {len(set(names))} classes, .* 2: 0, 1"):
        infer_labels([0, 1], class_names=names)


def test_a_wrong_number_of_target_names_is_an_error():
    with refused(field="class_names", match="2 targets"):
        infer_labels([0.5, 1.5], class_names=["valence", "arousal"])


def test_class_names_that_are_not_those_of_the_data_are_an_error():
    with refused(field="class_names", match="differ .*: bad, good"):
        infer_labels(["good", "bad"], class_names=["positive", "negative"])


@pytest.mark.parametrize(
    ("labels", "names"), [([0, 1, 2], ["1", "2", "3"]), ([1, 2, 3], ["0", "1", "2"]), ([0, 4], ["4", "0!"])]
)
def test_class_names_by_which_the_data_write_other_classes_are_an_error(labels, names):
    with refused(field="class_names", match="which is how the data write class"):
        infer_labels(labels, class_names=names)


def test_lists_where_one_label_is_wanted_are_an_error():
    with refused(row=1, match="a list in rows 1, 2"):
        POLARITY.encode([["positive"], ["negative"]])


def test_a_label_that_is_repeated_is_an_error():
    with refused(row=2, match="repeated"):
        LabelSpace(MULTI_LABEL, ("a", "b")).encode([["a"], ["b", "b"]])


# vectors, lists as text, several columns


@pytest.mark.parametrize(
    "labels",
    [
        [[1, 0], [0, 1], [0, 1]],
        [[1.0, 0.0], [0, 1], [False, True]],
        ["[1, 0]", "[0, 1]", "[0 1]"],
        ["[1. 0.]", "[0. 1.]", "[0.00, 1.00]"],  # as numpy writes them
    ],
)
def test_vectors_with_one_1_each_are_classes(labels):
    space = infer_labels(labels)
    assert space == LabelSpace(SINGLE_LABEL, ("0", "1"))
    assert encoded(labels, space) == [0, 1, 1]
    assert encoded(labels, LabelSpace(SINGLE_LABEL, ("neg", "pos"), ("0", "1"))) == [0, 1, 1]
    assert infer_labels(labels, class_names=["neg", "pos"]).names == ("neg", "pos")


def test_a_vector_that_is_no_class_is_named_by_its_row():
    space = LabelSpace(SINGLE_LABEL, ("neg", "pos"))
    with refused(row=3, match="a list in row 3") as raised:
        space.encode([["neg"], ["pos"], ["neg", "pos"]])
    assert raised.value.rows.tolist() == [2]


def test_sets_are_lists():
    assert infer_labels([{"b", "a"}, {"a"}, frozenset({"c"})]) == LabelSpace(MULTI_LABEL, ("a", "b", "c"))


def test_lists_in_brackets_and_names_are_not_mixed():
    with refused(field="label_column", match="'neg' is not"):
        infer_labels(["['neg', 'price']", "['pos']", "neg"])
    assert infer_labels(["[deleted]", "neg", "pos"]).problem_type == SINGLE_LABEL


def test_infinity_among_whole_numbers_makes_no_targets_of_them():
    assert infer_labels(["0", "1", "inf", "1"]).problem_type == SINGLE_LABEL


def test_vectors_of_0_and_1_are_several_labels_also_those_that_no_row_has():
    labels = [[0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    space = infer_labels(labels)
    assert space == LabelSpace(MULTI_LABEL, ("0", "1", "2", "3"))
    assert encoded(labels, space) == labels


@pytest.mark.parametrize(
    "labels",
    [
        ["['neg', 'price']", "[]", "['pos']"],
        ['["neg", "price"]', "[]", '["pos"]'],
        ["['neg' 'price']", "[]", "['pos']"],
        ["[neg, price]", "[ ]", "[pos]"],
    ],
)
def test_lists_written_as_text_are_lists_however_they_are_written(labels):
    space = infer_labels(labels)
    assert space == LabelSpace(MULTI_LABEL, ("neg", "pos", "price"))
    assert encoded(labels, space) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert "lists" in read_labels(documents(labels), DataArguments()).note


def test_labels_in_brackets_are_names_where_not_all_are_lists():
    assert infer_labels(["[sic]", "plain"]).problem_type == SINGLE_LABEL


@pytest.mark.parametrize("one", [1, 1.0, "1", True, "true", " 1.0 "])
@pytest.mark.parametrize("zero", [0, "False"])
def test_columns_of_0_and_1_are_a_label_each(one, zero):
    columns = {"text": ["a", "b", "c"], "toxic": [one, zero, zero], "threat": [one, zero, one], "rude": [zero] * 3}
    args = DataArguments(label_column=["toxic", "threat", "rude"])
    given = build_documents("train", [in_memory(columns, "train", args)], args)
    space = infer_from(given, args)
    assert space == LabelSpace(MULTI_LABEL, ("toxic", "threat", "rude"))
    labels = read_labels(given, args, space).column
    assert space.encode(labels).tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("value", "reason"), [(-1, "missing"), (None, "missing"), (0.5, r"neither 0 nor 1 \('0\.5'\)")]
)
def test_a_column_of_labels_that_holds_something_else_makes_a_row_bad(value, reason):
    args = DataArguments(label_column=["toxic", "threat"])
    columns = {"text": ["a", "b"], "toxic": [1, value], "threat": [0, 1]}
    with refused(file="train", row=2, match=f"toxic is {reason}"):
        build_documents("train", [in_memory(columns, "train", args)], args)


# what is equal, and what only looks so


@pytest.mark.parametrize("labels", [[1, 0, 1], [1.0, 0.0, 1.0], ["1", "0", "1.0"], [" 1", "0 ", "1"]])
def test_whole_numbers_are_equal_however_they_are_written(labels):
    assert encoded(labels, LabelSpace(SINGLE_LABEL, ("0", "1"))) == [1, 0, 1]


@pytest.mark.parametrize("labels", [[True, False], ["true", "false"], ["True", "FALSE"]])
@pytest.mark.parametrize("names", [("False", "True"), ("false", "true")])
def test_true_and_false_are_equal_however_they_are_written(labels, names):
    assert encoded(labels, LabelSpace(SINGLE_LABEL, names)) == [1, 0]


def test_a_class_for_nearly_every_row_is_warned_of(caplog):
    infer_labels([f"id-{row}" for row in range(30)])
    assert "has 30 different values in 30 rows: is it an id" in caplog.text
    caplog.clear()
    infer_labels([f"class-{row % 10}" for row in range(30)])
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["caf\u00e9", "cafe\u0301", "neg"], r"Labels 'cafe\u0301', 'caf\xe9' look alike, and are 2 classes"),
        (["pos", "Pos", "neg"], "Labels 'Pos', 'pos' look alike, and are 2 classes"),
        (["new  york", "new york"], "are 2 classes"),
        (["pos", "pos ", "neg"], "Labels 'pos', 'pos ' look alike, and are one class"),
        (["true", "True", "maybe"], "one class"),
    ],
)
def test_labels_that_differ_by_case_or_space_only_are_warned_of(caplog, labels, said):
    infer_labels(labels)
    assert said in caplog.text


@pytest.mark.parametrize("bad", ["high", True, [1.0, 2.0], [], None, "inf", "-Infinity", "1e39", "1e400", "NAN"])
def test_a_target_that_is_not_a_number_is_an_error(bad):
    with refused(row=2, match="target is not a number"):
        LabelSpace(REGRESSION, ("target",)).encode([0.5, bad])


def test_infinity_in_text_is_a_target_that_is_no_number():
    assert infer_labels(["0.5", "inf"]).problem_type == REGRESSION


def test_a_target_that_the_loss_would_ignore_is_an_error():
    with refused(row=1, match="target is -100"):
        LabelSpace(REGRESSION, ("target",)).encode(["-100.0", 0.5])


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_lists_are_read_as_a_search_would_and_in_one_pass(monkeypatch):
    pattern, pieces = module.LIST_ITEM, ["'", '"', "\\'", "\\", ",", " ", "\n", "\r", "a", "b'", "[", "1.0"]
    rng = random.Random(0)
    for _ in range(3000):
        inner = "".join(rng.choices(pieces, k=rng.randint(0, 10)))
        if not set(inner) & set("'\"[]") or is_json(f"[{inner}]"):
            continue  # see the next test
        found = [next(group for group in match.groups() if group is not None) for match in pattern.finditer(inner)]
        read = [item.replace("\\'", "'").replace('\\"', '"') for item in found]
        assert module.listed(f"[{inner}]") == (None if pattern.sub("", inner).strip(", \t\n") else read)

    looked = []

    class Counting:
        def match(self, text, at, end):
            looked.append(at)
            return pattern.match(text, at, end)

    monkeypatch.setattr(module, "LIST_ITEM", Counting())
    assert module.listed("[" + '"\\' * 50_000 + "]") is None
    assert len(looked) == 1


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("[Science Fiction, Drama]", ["Science Fiction", "Drama"]),  # of Java and Spark
        ("[Science Fiction]", ["Science Fiction"]),
        ("['Science Fiction', 'Drama']", ["Science Fiction", "Drama"]),
        ("['Science Fiction' 'Drama']", ["Science Fiction", "Drama"]),  # of numpy
        (json.dumps(["Comédie", "Drame", 'a "b"', "c\\d"]), ["Comédie", "Drame", 'a "b"', "c\\d"]),
        ("[1 0 1]", ["1", "0", "1"]),
        ("[1. 0.]", ["1.", "0."]),
        ("[ True False]", ["True", "False"]),
        ("[1, 2.50, true]", ["1", "2.50", "true"]),
        ("[]", []),
        ("[[1], [2]]", None),
        ("[" * 100_000 + "]", None),
    ],
)
def test_lists_are_read_whoever_wrote_them(text, items):
    assert module.listed(text) == items
