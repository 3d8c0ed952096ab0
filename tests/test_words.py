"""The vocabulary of words: what is a word, which are kept, the same in every release, and the vectors they get."""

import json
import subprocess

import numpy as np
import pytest
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import LARGE_INTEGER

from modeling_roberta_gru.data.tokenization import WordVectors, embedding_matrix, train_word_tokenizer
from modeling_roberta_gru.errors import InputError

from .clean_process import OLDER_RELEASES

TEXTS = ["A film, a film: didn't like it.", "It's a FILM; nothing else.", "a bee or\na cat"]


@pytest.fixture
def tokenizer():
    return train_word_tokenizer(TEXTS)


def vectors_of(words: list[str], width: int = 4) -> WordVectors:
    return WordVectors(tuple(words), np.random.default_rng(7).normal(3, 2, (len(words), width)).astype(np.float32))


# tokens


def test_words_and_punctuation_are_tokens_whatever_their_case(tokenizer):
    tokens = ["<unk>", ",", "<unk>", "<unk>", "a", ".", "film", ";", "nothing", "."]
    assert tokenizer.tokenize("Well, I'a.FILM;nothing.") == tokens
    assert tokenizer("cat\tbee\n\nOR  nothing")["input_ids"] == tokenizer("Cat bee or nothing")["input_ids"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("didn't", "did n't"),
        ("It’s", "it 's"),
        ("it'said", "it ' said"),
        ("We'll've", "we 'll 've"),
        ("n't", "n't"),
        ("can't.", "ca n't ."),
        ("don'ts", "don ' ts"),
        ("well-known!?", "well - known ! ?"),
        ("Ärger 50%", "ärger 50 %"),
    ],
)
def test_contractions_are_split_as_in_glove(text, tokens):
    assert train_word_tokenizer([tokens, text]).tokenize(text) == tokens.split()


def test_the_most_frequent_words_are_kept_and_ties_are_settled_by_their_letters():
    texts = ["c c c b b", "e d b", "a e d"]
    for order in (texts, texts[::-1], [" ".join(reversed(text.split())) for text in texts]):
        vocabulary = train_word_tokenizer(order, vocab_size=6).get_vocab()
        assert vocabulary == {"<pad>": 0, "<unk>": 1, "b": 2, "c": 3, "d": 4, "e": 5}


def test_nothing_is_put_around_a_text_and_nothing_is_cut(tokenizer, caplog, recwarn):
    ids = tokenizer("a film " * 20_000)["input_ids"]
    a, film = tokenizer.convert_tokens_to_ids(["a", "film"])
    assert ids == [a, film] * 20_000
    assert tokenizer.model_max_length > LARGE_INTEGER
    assert not caplog.records
    assert not recwarn.list
    assert tokenizer.bos_token is tokenizer.eos_token is None


@pytest.mark.parametrize("text", [" ", "\n\t \u00a0\u3000", "\x00", "\u200b", "🎬"])
def test_a_text_without_words_is_one_unknown_token(tokenizer, text):
    assert tokenizer(text) == {"input_ids": [1], "attention_mask": [1]}
    # also where such texts were learnt from
    assert train_word_tokenizer([*TEXTS, " ", "NOTHING"])(" ")["input_ids"] == [1]


def test_a_vocabulary_without_room_for_words_is_an_error():
    with pytest.raises(InputError, match="A vocabulary of 2 has no room for words beside <pad> and <unk>: take more"):
        train_word_tokenizer(TEXTS, vocab_size=2)


def test_a_saved_tokenizer_loads_from_its_folder_alone(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    for text in (*TEXTS, " ", "It’s unheard of", ["a", "film a bee"]):
        assert loaded(text).data == tokenizer(text).data
    assert loaded.pad(loaded([" ", "a film"]))["attention_mask"] == [[1, 0], [1, 1]]
    assert (loaded.pad_token_id, loaded.unk_token_id, loaded.model_max_length) == (0, 1, tokenizer.model_max_length)
    # transformers 4.57 and 5 both know this name
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.slow
@pytest.mark.parametrize("release", OLDER_RELEASES)
def test_older_releases_of_transformers_give_the_same_tokens(tokenizer, interpreter, tmp_path, release):
    tokenizer.save_pretrained(tmp_path / "saved")
    texts = [*TEXTS, " ", "It’s unheard of"]
    code = "import json, sys, transformers; t = transformers.AutoTokenizer.from_pretrained(sys.argv[1]); "
    code += "print(json.dumps([transformers.__version__, dict(t(json.loads(sys.argv[2]))), t.model_max_length]))"
    command = [interpreter(release), "-I", "-c", code, tmp_path / "saved", json.dumps(texts)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    tokens = {name: list(rows) for name, rows in tokenizer(texts).items()}
    assert json.loads(process.stdout.splitlines()[-1]) == [release, tokens, tokenizer.model_max_length]


# vectors


def test_known_words_start_from_their_vectors_and_padding_from_zero(tokenizer):
    vectors = vectors_of(["else", "absent", "film", "<pad>", "n't"])
    matrix, found = embedding_matrix(tokenizer, vectors)
    assert matrix.shape == (len(tokenizer), 4)
    assert matrix.dtype == np.float32
    assert found == 3
    for row, word in enumerate(vectors.words):
        if word in ("else", "film", "n't"):
            np.testing.assert_array_equal(matrix[tokenizer.convert_tokens_to_ids(word)], vectors.vectors[row])
    assert not matrix[tokenizer.pad_token_id].any()
    assert len(np.unique(matrix, axis=0)) == len(matrix)


def test_other_words_are_drawn_from_the_distribution_of_the_vectors():
    words = [f"w{number}" for number in range(4000)]
    tokenizer = train_word_tokenizer([" ".join(words)], vocab_size=5000)
    scale, shift = np.array([0.1, 1, 10], np.float32), np.array([5, 0, -2], np.float32)
    known = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * scale + shift
    matrix, found = embedding_matrix(tokenizer, WordVectors(("w0", *(f"other{n}" for n in range(499))), known))
    assert found == 1
    drawn = matrix[2:]
    # standard errors of 500 and 4,000 draws: 0.05 and 0.02 deviations
    np.testing.assert_allclose((drawn.mean(0) - known.mean(0)) / known.std(0), 0, atol=0.06)
    np.testing.assert_allclose(drawn.std(0) / known.std(0), 1, atol=0.06)


def test_the_seed_decides_what_is_drawn(tokenizer):
    vectors = vectors_of(["film", "else"])
    first, _ = embedding_matrix(tokenizer, vectors, 3)
    np.testing.assert_array_equal(embedding_matrix(tokenizer, vectors, 3)[0], first)
    np.testing.assert_array_equal(embedding_matrix(tokenizer, vectors, np.random.default_rng(3))[0], first)
    film, bee = tokenizer.convert_tokens_to_ids(["film", "bee"])
    other, _ = embedding_matrix(tokenizer, vectors, 4)
    assert (other[bee] != first[bee]).all()
    assert (other[film] == first[film]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Der", "die"], r"such as 'or', is among those with a vector, such as 'Der': take vectors of the texts'"),
        ([], r"such as 'or', is among those with a vector: take vectors of the texts' language, of words in lower"),
    ],
)
def test_vectors_of_none_of_the_words_are_an_error(words, message):
    tokenizer = train_word_tokenizer(["film or film"])
    with pytest.raises(InputError, match=f"No word of the vocabulary, {message}"):
        embedding_matrix(tokenizer, vectors_of(words))
