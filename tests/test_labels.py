"""What labels mean: kinds of problems, order of classes, and labels nobody knows."""

from types import SimpleNamespace

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL, LabelSpace, encode_documents
from modeling_roberta_gru.data.labels import infer_labels as infer_from
from modeling_roberta_gru.errors import InputError

POLARITY = LabelSpace(SINGLE_LABEL, ("negative", "positive"))


def documents(labels: list, feature=None, split: str = "train") -> Dataset:
    rows = {"row_id": [f"{split}:{i}" for i in range(len(labels))], "label": labels}
    features = Features(row_id=Value("string"), label=feature) if feature else None
    return Dataset.from_dict(rows, features=features)


def infer_labels(labels: list, feature=None, **args) -> LabelSpace:
    return infer_from(documents(labels, feature), DataArguments(**args))


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
    assert encode_documents(documents([2, 1, 2], feature), space, DataArguments())["label"][:] == [2, 1, 2]


def test_class_label_features_of_two_splits_agree_by_name_not_by_number():
    space = infer_labels([0, 1], ClassLabel(names=["neg", "pos"]))
    other = documents([0, 1, 1], ClassLabel(names=["pos", "neg"]), "test")
    assert encode_documents(other, space, DataArguments())["label"][:] == [1, 0, 0]


def test_names_for_integers_go_from_the_smallest_and_remember_them():
    space = infer_labels([4, 0, 4], class_names=["negative", "positive"])
    assert space == LabelSpace(SINGLE_LABEL, ("negative", "positive"), ("0", "4"))
    assert space.encode([0, 4, "4", "positive", 4.0]) == [0, 1, 1, 1, 1]


def test_names_for_names_say_their_order():
    assert infer_labels(["good", "bad"], class_names=["good", "bad"]).label2id == {"good": 0, "bad": 1}


def test_names_may_translate_class_labels():
    space = infer_labels([0, 1], ClassLabel(names=["neg", "pos"]), class_names=["negative", "positive"])
    assert space.encode(["pos", "negative"]) == [1, 0]


def test_lists_are_several_labels_a_text():
    space = infer_labels([["red", "blue"], [], ["green"]])
    assert (space.problem_type, space.names) == (MULTI_LABEL, ("blue", "green", "red"))
    assert space.encode([["red", "blue"], [], ["green"]]) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_a_delimiter_makes_several_labels_of_a_cell():
    space = infer_labels(["red; blue", "", "blue"], label_delimiter=";")
    assert (space.problem_type, space.names) == (MULTI_LABEL, ("blue", "red"))
    assert space.encode(["red;blue", "", "blue"], ";") == [[1, 1], [0, 0], [1, 0]]


def test_lists_of_named_classes_keep_their_order():
    space = infer_labels([[1], [0, 1]], List(ClassLabel(names=["joy", "anger"])))
    assert (space.problem_type, space.names) == (MULTI_LABEL, ("joy", "anger"))


@pytest.mark.parametrize("labels", [[0.5, 1, 2], ["0.5", "1", "2"]])
def test_numbers_with_a_fraction_are_targets(labels):
    space = infer_labels(labels)
    assert (space.problem_type, space.num_labels) == (REGRESSION, 1)
    assert space.encode(labels) == [0.5, 1.0, 2.0]


def test_whole_numbers_are_targets_when_said():
    assert infer_labels([3, 5], problem_type=REGRESSION).encode([3, 5]) == [3.0, 5.0]


def test_several_targets_a_text_are_refused():
    with pytest.raises(InputError, match="Each text has several numbers, which cannot be measured together"):
        infer_labels([[0.5, 1.0], [2.0, 3.0]])


@pytest.mark.parametrize(
    ("labels", "dtype"), [(["a", "b"], "int64"), ([0.5, 1.5], "float32"), ([["a"], ["b"]], "float32")]
)
def test_encoded_columns_have_the_type_of_the_loss(labels, dtype):
    rows = documents(labels)
    feature = encode_documents(rows, infer_from(rows, DataArguments()), DataArguments()).features["label"]
    assert getattr(feature, "feature", feature).dtype == dtype


# saved models


@pytest.mark.parametrize("space", [POLARITY, LabelSpace(SINGLE_LABEL, ("negative", "positive"), ("0", "4"))])
def test_config_fields_read_back(space):
    config = SimpleNamespace(**space.config_fields())
    assert LabelSpace.from_config(config).encode(["positive", "negative"]) == [1, 0]
    assert LabelSpace.from_config(config).values == (space.values or ("0", "1"))


def test_a_saved_model_takes_indices_unless_its_classes_are_integers():
    stars = SimpleNamespace(problem_type=None, id2label={0: "1", 1: "2", 2: "3"})
    assert LabelSpace.from_config(stars).encode([1, 3]) == [0, 2]
    with pytest.raises(InputError, match=r"Unknown label '0' in row 1\. Known: 1, 2, 3"):
        LabelSpace.from_config(stars).encode([0])
    polarity = SimpleNamespace(problem_type=None, id2label={0: "negative", 1: "positive"})
    assert LabelSpace.from_config(polarity).encode([0, "1", "positive"]) == [0, 1, 1]


def test_a_saved_model_with_one_output_is_a_regression():
    assert LabelSpace.from_config(SimpleNamespace(problem_type=None, id2label={0: "x"})).problem_type == REGRESSION


# errors


@pytest.mark.parametrize("labels", [["pos"] * 3, [1, 1.0], [["pos"], [], ["pos"]]])
def test_one_class_only_is_an_error(labels):
    with pytest.raises(InputError, match=r"Two classes are needed at least, but --label_column 'label' holds only '"):
        infer_labels(labels)


def test_an_unknown_label_is_named_with_its_rows_and_the_nearest_known():
    rows = documents(["positive", "postive", "postive", "odd"], split="test")
    message = r"^Unknown label 'postive' in rows 2, 3 of the test split. Did you mean 'positive'\? \(1 more labels are"
    with pytest.raises(InputError, match=message):
        encode_documents(rows, POLARITY, DataArguments())
    with pytest.raises(InputError, match=r"Unknown label '3' in row 1\. Known: negative, positive\.$"):
        POLARITY.encode([3])


def test_rows_of_pooled_splits_are_named_by_split():
    rows = Dataset.from_dict({"row_id": ["train:4", "test:0", "test:9"], "label": ["x", "x", "x"]})
    with pytest.raises(InputError, match="in row 5 of the train split, rows 1, 10 of the test split"):
        encode_documents(rows, POLARITY, DataArguments())


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["a", "a"]])
def test_a_wrong_number_of_class_names_is_an_error(names):
    with pytest.raises(InputError, match=f"--class_names names {len(set(names))} classes, the data hold 2: 0, 1"):
        infer_labels([0, 1], class_names=names)


def test_a_wrong_number_of_target_names_is_an_error():
    with pytest.raises(InputError, match="--class_names names 2 targets, the data hold 1"):
        infer_labels([0.5, 1.5], class_names=["valence", "arousal"])


def test_class_names_that_are_not_those_of_the_data_are_an_error():
    with pytest.raises(InputError, match="--class_names are others than those of the data: bad, good"):
        infer_labels(["good", "bad"], class_names=["positive", "negative"])


def test_lists_where_one_label_is_wanted_are_an_error():
    with pytest.raises(InputError, match="One label a text is wanted, but a list stands in rows 1, 2"):
        POLARITY.encode([["positive"], ["negative"]])


def test_zero_one_vectors_are_an_error():
    with pytest.raises(InputError, match="A label is repeated in rows 1, 2 of the train split: give the labels"):
        infer_labels([[0, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize("bad", ["high", True, [1.0, 2.0], [], None])
def test_a_target_that_is_not_a_number_is_an_error(bad):
    with pytest.raises(InputError, match="The target is not a number in row 2: "):
        LabelSpace(REGRESSION, ("target",)).encode([0.5, bad])


def test_a_target_that_the_loss_would_ignore_is_an_error():
    with pytest.raises(
        InputError, match=r"not a number in row 1: '-100\.0'; -100 is how transformers writes no label"
    ):
        LabelSpace(REGRESSION, ("target",)).encode(["-100.0", 0.5])
