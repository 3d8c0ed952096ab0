"""Word vectors: what GloVe and word2vec write is read as it stands, and a bad line is named."""

import numpy as np
import pytest

from modeling_roberta_gru.data import tokenization as module
from modeling_roberta_gru.data.tokenization import read_vectors

from .refusals import refused

LINES = ["the 0.5 -1 2", "good 1e-3 0.25 -0", "film 3 4 5"]
NUMBERS = [[0.5, -1, 2], [1e-3, 0.25, 0], [3, 4, 5]]


@pytest.fixture
def write(tmp_path):
    def write(lines, name="vectors.txt"):
        path = tmp_path / name
        path.write_bytes(lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode())
        return path

    return write


def check(vectors, words=("the", "good", "film"), numbers=NUMBERS):
    assert vectors.words == words
    assert vectors.vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors.vectors, np.array(numbers, np.float32))


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LINES),
        "\n".join(["3 3", *LINES, ""]),
        " \n".join(["3 3", *LINES, ""]),
        "\r\n".join(["3 3", *LINES, "", ""]),
    ],
    ids=["GloVe", "word2vec's header", "a space at the end, as word2vec writes", "Windows"],
)
def test_every_writer_gives_the_same_vectors(write, text):
    check(read_vectors(write(text.encode())))


def test_words_may_hold_spaces_and_what_looks_like_the_end_of_a_line(write):
    words = ("the", ". . .", "at name@domain.com", "\u0085", "\u00a0", "\u2028", "a\rb", '"', "#", "1")
    lines = [f"{word} {row} 0.5" for row, word in enumerate(words)]
    check(read_vectors(write(lines)), words, [[row, 0.5] for row in range(len(words))])
    check(
        read_vectors(write(["10 2", *lines[1:], lines[0]])), (*words[1:], "the"), [[r % 10, 0.5] for r in range(1, 11)]
    )


def test_the_first_lines_or_some_words_can_be_read_alone(write):
    path = write(["3 3", *LINES])
    check(read_vectors(path, limit=2), ("the", "good"), NUMBERS[:2])
    check(read_vectors(path, words={"film", "the", "absent"}), ("the", "film"), NUMBERS[::2])
    check(read_vectors(path, words=["film", "good"], limit=2), ("good",), NUMBERS[1:2])
    none = read_vectors(path, words=["absent"])
    assert none.words == ()
    assert none.vectors.shape == (0, 3)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_file_is_read_the_same_in_blocks_of_any_size(write, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    check(read_vectors(write(LINES)))
    with refused(row=4):
        read_vectors(write([*LINES, "bad 1 inf 2"]))


def test_of_a_word_that_stands_twice_the_first_counts(write):
    vectors = read_vectors(write([*LINES, "good 9 9 9"]))
    assert vectors.rows == {"the": 0, "good": 1, "film": 2}


MISTAKES = {
    "fewer numbers": ([*LINES, "bad 1 2"], 4, "not a word and 3 numbers, as the first line says 3"),
    "more numbers": ([*LINES, "bad 1 2 3 4"], 4, "not a word and 3 numbers, as the first line says 3"),
    "no word": (["the 1 2", " 3 4"], 2, "not a word and 2 numbers"),
    "fewer than the header says": (["1 4", LINES[0]], 2, "not a word and 4 numbers, as the header says 4"),
    "more than the header says": (["1 2", LINES[0]], 2, "not a word and 2 numbers, as the header says 2"),
    "a number that is none": ([LINES[0], "bad 1 x 3"], 2, "'bad'.*: not all are finite numbers"),
    "two spaces": ([LINES[0], "bad 1  3"], 2, "'bad'.*: not all are finite numbers"),
    "not a number": ([LINES[0], "bad 1 nan 3"], 2, "'bad'.*: not all are finite numbers"),
    "an infinite number": ([*LINES, "bad 1 1e99 3"], 4, "'bad'.*: not all are finite numbers"),
    "too few lines": (["4 3", *LINES], None, "the header says 4 words, but 3 follow"),
    "too many lines": (["2 3", *LINES], None, "the header says 2 words, but 3 follow"),
    "not separated by spaces": (["the,1,2"], 1, "single spaces"),
    "not UTF-8": (b"the 1 2\ncaf\xe9 3 4\n", 2, "not UTF-8"),
    "empty": (b"", None, "is empty"),
    "blank": (b" \n\n", None, "is empty"),
    "binary": (b"3 3\nthe \x00\x00\x80\x3f", None, "compressed or binary"),
}


@pytest.mark.parametrize(("lines", "row", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(write, lines, row, message):
    path = write(lines)
    with refused(file=str(path), row=row, match=message):
        read_vectors(path)


def test_a_header_is_not_held_against_a_part_of_the_file(write):
    check(read_vectors(write(["400000 3", *LINES]), limit=3))


def test_a_line_whose_word_is_not_wanted_must_still_have_its_fields(write):
    with refused(row=4, match="not a word and 3 numbers"):
        read_vectors(write([*LINES, "bad 1 2"]), words=["the"])


def test_what_is_no_text_file_is_refused_with_a_way_out(write, tmp_path):
    with refused(file=str(tmp_path / "absent.txt")):
        read_vectors(tmp_path / "absent.txt")
    with refused(file=str(tmp_path), match="is a folder"):
        read_vectors(tmp_path)
    with refused(file=str(tmp_path / "GoogleNews.bin"), match="gensim: KeyedVectors.load_word2vec_format"):
        read_vectors(write(LINES, "GoogleNews.bin"))
