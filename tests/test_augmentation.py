"""Over-sampling: only small classes grow, by rows that say where they come from and equal no other text."""

import math
from collections import Counter

import pytest
from datasets import Dataset, Features, Value

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data.labels import LabelSpace
from modeling_roberta_gru.data.splits import near_words, oversample, text_key

from .refusals import refused

LABELS = LabelSpace("single_label_classification", ("neg", "fair", "pos"))

# Directions in degrees: the cosine of two words is that of the angle between them. None is near one of another line.
ANGLES = {"good": 0, "great": 10, "fine": 20, "decent": 50}
ANGLES |= {"plot": 120, "story": 125}
ANGLES |= {"crew": 200, "flight": 290}


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "vectors.txt"
    rows = [f"{word} {math.cos(math.radians(a)):.6f} {math.sin(math.radians(a)):.6f}\n" for word, a in ANGLES.items()]
    path.write_text("".join(rows))
    return path


@pytest.fixture
def neighbours(glove):
    """Make the options of over-sampling by the neighbours in the tiny vectors."""
    return lambda **options: DataArguments(oversample="neighbours", word_vectors=str(glove), **options)


def documents(**texts: list[str]) -> Dataset:
    """Make a training split of the texts of each class, their venues numbered."""
    rows = [(text, LABELS.names.index(name)) for name, members in texts.items() for text in members]
    features = Features(label=Value("int64"), row_id=Value("string"), text=Value("string"), venue=Value("int32"))
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    ids = [f"train:{3 * row}" for row in range(len(rows))]
    return Dataset.from_dict({**columns, "row_id": ids, "venue": list(range(len(rows)))}, features=features)


def numbered(name: str, count: int) -> list[str]:
    return [f"{name} {number}" for number in range(count)]


def added(train: Dataset, larger: Dataset) -> list[dict]:
    """Return the rows that were added; the others are those of `train`, in their places."""
    assert larger.features == train.features
    assert larger.column_names == train.column_names
    rows = larger.to_list()
    assert rows[: len(train)] == train.to_list()
    return rows[len(train) :]


def grow(train: Dataset, args: DataArguments, held_out: tuple[str, ...] = ()) -> tuple[list[dict], dict]:
    larger, counts = oversample(train, iter([text_key(text) for text in held_out]), LABELS, args)
    return added(train, larger), counts


# which rows


@pytest.mark.parametrize(("share", "sizes"), [(1.0, [11, 11, 11]), (0.5, [11, 7, 6]), (0.3, [11, 7, 3])])
def test_only_classes_below_the_share_grow_and_no_further(share, sizes):
    train = documents(neg=numbered("n", 11), fair=numbered("f", 7), pos=numbered("p", 2))
    rows, counts = grow(train, DataArguments(oversample="copies", oversample_to=share))
    grown = Counter(train["label"]) + Counter(row["label"] for row in rows)
    assert [grown[label] for label in range(3)] == sizes
    missing = {"fair": sizes[1] - 7, "pos": sizes[2] - 2}
    wanted = {name: number for name, number in missing.items() if number}
    assert counts == {"method": "copies", "added": wanted, "refused": 0, "unchanged": 0}


def test_copies_are_their_origins_in_all_but_the_row_id():
    train = documents(neg=numbered("n", 9), pos=numbered("p", 4))
    rows, _ = grow(train, DataArguments(oversample="copies"))
    origins = {row["row_id"]: row for row in train}
    for row in rows:
        origin = row["row_id"].split("+")[0]
        assert row | {"row_id": origin} == origins[origin]


@pytest.mark.parametrize("method", ["copies", "neighbours"])
def test_every_origin_is_taken_once_before_any_twice_and_counted(method, neighbours):
    train = documents(neg=numbered("n", 11), pos=[f"good good good good {number}" for number in range(4)])
    rows, _ = grow(train, neighbours() if method == "neighbours" else DataArguments(oversample=method))
    origins = [row["row_id"].split("+")[0] for row in rows]
    assert len(set(origins[:4])) == 4
    assert origins[4:] == origins[:3]
    assert [row["row_id"].split("+")[1] for row in rows] == ["1"] * 4 + ["2"] * 3
    assert {row["row_id"]: row["venue"] for row in train}.items() >= {
        (origin, row["venue"]) for origin, row in zip(origins, rows, strict=True)
    }


@pytest.mark.parametrize("method", ["copies", "neighbours"])
def test_the_seed_decides_and_nothing_else(method, neighbours):
    def args(**seed):
        return neighbours(**seed) if method == "neighbours" else DataArguments(oversample=method, **seed)

    train = documents(neg=numbered("n", 30), pos=[f"a good plot number {number}" for number in range(20)])
    first = grow(train, args())
    assert grow(train, args()) == first
    assert grow(train, args(oversample_seed=1)) != first


def test_balanced_classes_stay_as_they_are(neighbours):
    train = documents(neg=numbered("n", 3), pos=["good 1", "good 2", "good 3"])
    assert grow(train, neighbours()) == ([], {"method": "neighbours", "added": {}, "refused": 0, "unchanged": 0})


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_several_labels_and_targets_are_refused(problem_type):
    labels = LabelSpace(problem_type, ("a", "b"))
    with refused(field="oversample", match="one label per text"):
        oversample(documents(neg=["n"]), [], labels, DataArguments(oversample="copies"))


# near words


@pytest.mark.parametrize(
    ("options", "near"),
    [
        ({}, ["great", "fine", "decent"]),
        ({"replace_similarity": 0.7}, ["great", "fine"]),  # cos 50° is 0.64
        ({"replace_similarity": 0.98}, ["great"]),  # cos 20° is 0.94
        ({"replace_similarity": 0.99}, None),
        ({"replace_neighbours": 2}, ["great", "fine"]),
        ({"replace_neighbours": 1}, ["great"]),
        ({"replace_vocabulary": 3}, ["great", "fine"]),
        ({"replace_vocabulary": 1}, None),
    ],
)
def test_floor_number_and_vocabulary_bound_what_is_near(neighbours, options, near):
    found = near_words(["a GOOD film"], neighbours(**options))
    assert found == ({"good": near} if near else {})


def test_near_words_are_words_and_never_the_word_itself_in_another_case(glove, neighbours):
    others = ["Good 1 0.001", "GREAT 0.98 0.17", "! 1 0", "7 1 0", "n't 1 0", "so-so 1 0.1"]
    glove.write_text(glove.read_text() + "".join(f"{line}\n" for line in others))
    near = near_words(["Good."], neighbours())
    assert near == {"good": ["so-so", "great", "fine", "decent"]}


def test_no_more_than_so_many_are_near_where_vectors_are_equal(glove, neighbours):
    words = ["alpha", "beta", "gamma", "delta"]
    glove.write_text("".join(f"{word} 1 2\n" for word in words))
    near = near_words([" ".join(words)], neighbours(replace_neighbours=2))
    for word in words:
        assert len(set(near[word]) - {word}) == len(near[word]) == 2


def test_words_are_replaced_by_near_ones_only(neighbours):
    train = documents(neg=numbered("n", 200), pos=["good", "plot"] + [f"a good plot {n}" for n in range(10)])
    rows, _ = grow(train, neighbours(replace_similarity=0.7, replace_share=1.0))
    words = {word for row in rows for word in row["text"].split() if not word.isdecimal()}
    assert words == {"a", "great", "fine", "story"}


# what is left of the text


@pytest.mark.parametrize(("share", "number"), [(0.01, 1), (0.2, 2), (0.5, 5), (1.0, 10)])
def test_the_share_says_how_many_words_are_replaced(neighbours, share, number):
    text = " ".join(["good so"] * 10)
    rows, _ = grow(documents(neg=numbered("n", 8), pos=[text]), neighbours(replace_share=share))
    assert len(rows) == 7
    for row in rows:
        assert row["text"].split()[1::2] == ["so"] * 10
        assert sum(word != "good" for word in row["text"].split()[::2]) == number


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("Plot,\u00a0plot;\t PLOT\r\n", "Story,\u00a0story;\t Story\r\n"),
        ("“plot” (plot) *Plot*… …plot <plot plot>", "“story” (story) *Story*… …story <plot story>"),
        (
            "@plot #plot &plot; :plot plot/plot http://plot.com plot",
            "@plot #plot &plot; :plot plot/plot http://plot.com story",
        ),
        ("plot's plot-plot plot_ 1plot plot@plot.com plot", "plot's plot-plot plot_ 1plot plot@plot.com story"),
    ],
)
def test_all_that_is_not_replaced_stays_byte_for_byte(neighbours, text, rewritten):
    rows, _ = grow(documents(neg=["n", "m"], pos=[text]), neighbours(replace_share=1.0))
    assert [row["text"] for row in rows] == [rewritten]


def test_a_replacement_takes_over_the_first_letters_case(glove, neighbours):
    glove.write_text("paris 1 0\nLondon 1 0.1\n")
    train = documents(neg=numbered("n", 6), pos=["Paris or paris", "a PARIS", "london, London"])
    rows, _ = grow(train, neighbours(replace_share=1.0))
    assert {row["text"] for row in rows} == {"London or london", "a London", "paris, Paris"}


# what must not come out


def test_a_held_out_text_is_never_made_even_where_nothing_else_can_be(neighbours):
    train = documents(neg=numbered("n", 5), pos=["The plot, again", "the crew, again"])
    rows, counts = grow(train, neighbours(), held_out=("the  STORY, again",))
    assert rows == []
    assert counts == {"method": "neighbours", "added": {"pos": 0}, "refused": 1, "unchanged": 1}


@pytest.mark.parametrize("seed", range(20))
def test_a_text_that_is_taken_is_drawn_again(neighbours, seed):
    # three may stand for "good", of which two are taken: eleven draws miss the third once in 90 times
    train = documents(neg=["n", "Great"], pos=["good"])
    rows, counts = grow(train, neighbours(oversample_seed=seed), held_out=("decent",))
    assert [row["text"] for row in rows] == ["fine"]
    assert counts["refused"] == 0


def test_no_text_is_made_twice(neighbours, caplog):
    train = documents(neg=numbered("n", 40), pos=["good", "good plot", "crew"])
    rows, counts = grow(train, neighbours(replace_share=1.0))
    # all there are: each is drawn once, then its origin gives no more
    assert sorted(row["text"] for row in rows) == [
        "decent",
        "decent story",
        "fine",
        "fine story",
        "great",
        "great story",
    ]
    assert counts == {"method": "neighbours", "added": {"pos": 6}, "refused": 2, "unchanged": 1}
    assert "--oversample adds 6 rows of class 'pos' where 37 were wanted: its texts give no more." in caplog.text


def test_texts_of_other_classes_are_not_made_either(neighbours):
    rows, counts = grow(documents(neg=["a story", "x"], pos=["a plot"]), neighbours())
    assert rows == []
    assert counts["refused"] == 1


def test_texts_with_nothing_to_replace_give_way_to_the_next(neighbours):
    train = documents(neg=numbered("n", 9), pos=["the crew", "nothing", "a good plot", "!"])
    rows, counts = grow(train, neighbours(replace_share=1.0))
    assert {row["row_id"].split("+")[0] for row in rows} == {train["row_id"][11]}
    assert counts["added"] == {"pos": 3}
    assert counts["unchanged"] == 3


# options


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"oversample": "neighbours"}, "word_vectors", "neighbours needs --word_vectors FILE"),
        ({"word_vectors": "v.txt"}, "word_vectors", "only with --oversample neighbours"),
        ({"replace_share": 0.3}, "replace_share", "only with --oversample neighbours"),
        ({"replace_neighbours": 3}, "replace_neighbours", "only with --oversample neighbours"),
        ({"replace_similarity": 0.3}, "replace_similarity", "only with --oversample neighbours"),
        ({"replace_vocabulary": 3}, "replace_vocabulary", "only with --oversample neighbours"),
        ({"oversample": "copies", "replace_share": 0.3}, "replace_share", "only with"),
        ({"oversample_to": 0.5}, "oversample_to", "only with --oversample copies or neighbours"),
        ({"oversample_seed": 1}, "oversample_seed", "only with --oversample copies or neighbours"),
        ({"oversample": "copies", "oversample_to": 0.0}, "oversample_to", "got 0.0"),
        ({"oversample": "copies", "oversample_to": 1.1}, "oversample_to", "got 1.1"),
        ({"oversample": "copies", "oversample_to": math.nan}, "oversample_to", "got nan"),
    ],
)
def test_options_that_are_wrong_or_in_vain_are_refused(options, field, message):
    with refused(field=field, match=message):
        DataArguments(**options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("replace_share", 0.0),
        ("replace_share", 1.5),
        ("replace_neighbours", 0),
        ("replace_vocabulary", 0),
        ("replace_similarity", -0.1),
        ("replace_similarity", 1.01),
    ],
)
def test_options_of_neighbours_have_bounds(neighbours, option, value):
    with refused(field=option, match=f"got {value}"):
        neighbours(**{option: value})


def test_word_vectors_that_are_missing_are_an_error(neighbours, glove):
    glove.unlink()
    with refused(file=str(glove)):
        grow(documents(neg=["n", "m"], pos=["good"]), neighbours())
