"""Reading a document that is still being written: equal to reading it whole, however it is cut, at constant cost."""

import copy
import io
import itertools
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AddedToken, PreTrainedTokenizerFast

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.configuration_roberta_gru import SUMMARIES
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.modeling_roberta_gru import RobertaGRUReader

from .test_modeling import FLOAT32, FLOAT64, encoded_batches, spread
from .tiny import tiny_config

SENTENCES = [
    "The plot was slow, but we liked its music more than most.",
    "It's dreadful: nobody's waiting for the 2nd part!  Two spaces, naïve café, straße.",
    "Splendid\tevening\nin the theatre — 10,000 people … 日本語 text and emoji 🎭🎭.",
]
WORDS = " ".join(SENTENCES).split(" ")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # ids 0 … 4; the model pads with 1


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def byte_level_bpe() -> PreTrainedTokenizerFast:
    return train_tokenizer(SENTENCES, vocab_size=320)


def byte_level_bpe_behind_a_space() -> PreTrainedTokenizerFast:
    """As a RoBERTa's that was saved with `add_prefix_space`."""
    tokenizer = train_tokenizer(SENTENCES, vocab_size=320)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.eos_token_id), ("<s>", tokenizer.bos_token_id), add_prefix_space=True
    )
    return tokenizer


def unigram() -> PreTrainedTokenizerFast:
    """As XLM-R's: white space is folded, and every word begins with a mark."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    return wrapped(tokenizer)


def sentence_piece_bpe() -> PreTrainedTokenizerFast:
    """As CamemBERT's: split at white space first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    return wrapped(tokenizer)


def word_piece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=True, lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    return wrapped(tokenizer)


def across_white_space() -> PreTrainedTokenizerFast:
    """Whose tokens reach over white space: nothing is settled before the end."""
    tokenizer = word_piece()
    tokenizer.add_tokens(["plot was"])
    return tokenizer


FAMILIES = {
    family.__name__: family()
    for family in (
        byte_level_bpe,
        byte_level_bpe_behind_a_space,
        unigram,
        sentence_piece_bpe,
        word_piece,
        across_white_space,
    )
}
SETTLING = [name for name in FAMILIES if name != "across_white_space"]


def classifier(tokenizer, **fields) -> RobertaGRUForSequenceClassification:
    fields = {"num_labels": 3, "calibration_temperature": 1.7, "pad_token_id": tokenizer.pad_token_id, **fields}
    return RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(tokenizer), **fields)).eval()


MODELS = {family: classifier(tokenizer) for family, tokenizer in FAMILIES.items()}


def whole(model, tokenizer, text) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokenizer(text, verbose=False)["input_ids"]])).logits[0]


def read(reader, model, tokenizer, pieces, tolerance) -> None:
    """Append piece by piece; after each one the reader says what the model says of the whole."""
    text = ""
    for piece in pieces:
        text += piece
        probabilities = reader.append(piece)
        expected = whole(model, tokenizer, text)
        torch.testing.assert_close(reader.logits, expected, **tolerance)
        torch.testing.assert_close(probabilities, expected.softmax(-1), **tolerance)
        assert reader.num_tokens == len(tokenizer(text, verbose=False)["input_ids"])


# Anything that is text: words, and what stands between them; special tokens, and those that swallow white space.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [*WORDS, " ", "  ", "\n", "\t", "\r\n", "", "'s", "e\u0301", "\u0301", "\u00a0", "\u3000", "\x1c"]
        ),
        st.sampled_from(["<mask>", " <ma", "sk>", "</s>", "<s>", "plot was", "▁", "Ġ", "\u034f", "\u200b"]),
        st.text(max_size=6).filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text)),
        st.sampled_from([" ".join(WORDS[:12]), " ".join(WORDS)]),
    ),
    max_size=14,
)


@pytest.mark.parametrize("family", FAMILIES)
@given(pieces=PIECES, reading=st.sampled_from([(summary, layers) for summary in SUMMARIES for layers in (1, 2)]))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_what_is_read_in_pieces_equals_the_whole(family, pieces, reading):
    tokenizer = FAMILIES[family]
    torch.manual_seed(0)
    summary, num_layers = reading
    model = classifier(tokenizer, summary=summary, num_gru_layers=num_layers).double()
    read(model.reader(tokenizer), model, tokenizer, pieces, FLOAT64)


@pytest.mark.parametrize("family", FAMILIES)
@given(pieces=PIECES)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_the_tokens_of_the_pieces_are_those_of_the_whole(family, pieces):
    tokenizer, text = FAMILIES[family], ""
    reader = MODELS[family].reader(tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RobertaGRUReader, "_settle_windows", lambda self: None)  # all tokens stay
        for piece in pieces:
            text += piece
            assert reader._take(piece) == tokenizer(text, verbose=False)["input_ids"]


def pieces_of(text: str, seed: str, sizes: tuple[int, ...] = (3, 10, 40, 400)) -> list[str]:
    rng, pieces = random.Random(seed), []
    while text:
        size = rng.choice(sizes)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def long_text(num_words: int, seed: str = "") -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=num_words))


@pytest.mark.parametrize(
    ("family", "overlap", "summary"),
    [
        ("byte_level_bpe", None, "last"),
        ("byte_level_bpe", 17, "attention"),
        ("unigram", 0, "max"),
        ("sentence_piece_bpe", 1, "mean"),
        ("word_piece", None, "attention"),
    ],
)
def test_a_long_document_in_pieces_of_any_size_equals_the_whole(family, overlap, summary):
    tokenizer = FAMILIES[family]
    model = classifier(tokenizer, window_overlap=overlap, windows_per_chunk=2, summary=summary, num_gru_layers=2)
    pieces = pieces_of(long_text(60), family)
    read(model.double().reader(tokenizer), model, tokenizer, pieces, FLOAT64)
    read(model.float().reader(tokenizer), model, tokenizer, pieces[::4], FLOAT32)


@pytest.mark.parametrize("family", SETTLING)
def test_a_token_that_takes_the_white_space_behind_it_is_read_as_in_the_whole(family):
    tokenizer = copy.deepcopy(FAMILIES[family])
    tokenizer.add_tokens([AddedToken("foo", rstrip=True)])
    model = classifier(tokenizer).double()
    for pieces in (["foo \u0301", " ", ""], ["a foo", " ", "  \u0301b", " c"]):
        read(model.reader(tokenizer), model, tokenizer, pieces, FLOAT64)


def test_parts_of_the_model_may_lie_on_other_devices():
    tokenizer = FAMILIES["byte_level_bpe"]
    torch.manual_seed(0)
    model = classifier(tokenizer, summary="attention", windows_per_chunk=1)
    expected = model.readers(tokenizer, 2)
    texts = [{0: long_text(40), 1: "few words"}, {1: long_text(40)}, {0: " more", 1: " more"}]
    for some in texts:
        expected.append(some)
    spread(model)
    readers = model.readers(tokenizer, 2)
    for some in texts:
        readers.append(some)
    for reader, one in zip(readers, expected, strict=True):
        assert torch.equal(reader.close(), one.close())


def test_nothing_is_encoded_where_nothing_is_appended():
    tokenizer = FAMILIES["byte_level_bpe"]
    model = classifier(tokenizer)
    readers = model.readers(tokenizer, 2)
    first = readers[0].append(long_text(30))
    with encoded_batches(model) as shapes:
        assert torch.equal(readers[0].append(""), first)
        assert not shapes
        both = readers.append({0: "", 1: ""})  # of which the second has never been read
    assert [shape[0] for shape in shapes] == [1]
    torch.testing.assert_close(both[0], first, **FLOAT32)
    torch.testing.assert_close(both[1], whole(model, tokenizer, "").softmax(-1), **FLOAT32)


def test_probabilities_are_those_of_the_problem():
    tokenizer = FAMILIES["byte_level_bpe"]
    for problem_type, num_labels, expected in (
        ("multi_label_classification", 3, torch.sigmoid),
        ("regression", 3, torch.nn.Identity()),
        (None, 1, torch.nn.Identity()),
    ):
        model = classifier(tokenizer, problem_type=problem_type, num_labels=num_labels)
        reader = model.reader(tokenizer)
        probabilities = reader.append(SENTENCES[0])
        torch.testing.assert_close(reader.logits, whole(model, tokenizer, SENTENCES[0]), **FLOAT32)
        assert torch.equal(probabilities, expected(reader.logits))
        assert not probabilities.requires_grad


@pytest.mark.parametrize("family", SETTLING)
@pytest.mark.parametrize("overlap", [None, 0, 10])
def test_an_append_encodes_what_is_new_and_two_windows_at_most(family, overlap):
    tokenizer = FAMILIES[family]
    model = classifier(tokenizer, window_overlap=overlap, windows_per_chunk=3)
    stride = model.config.window_stride
    reader, num_words = model.reader(tokenizer), 0
    for size in [1] * 60 + [5, 0, 40, 3, 90, 1, 1, 1]:
        text = "".join(f"{word} " for word in random.Random(num_words).choices(WORDS[:12], k=size))
        num_words += size
        before = reader.num_tokens
        with encoded_batches(model) as shapes:
            reader.append(text)
        most = -(-(reader.num_tokens - before) // stride) + 2
        assert sum(shape[0] for shape in shapes) <= most
    assert reader.num_tokens > 8 * stride


def test_cost_and_memory_of_an_append_do_not_grow():
    tokenizer = FAMILIES["byte_level_bpe"]
    model = classifier(tokenizer, summary="attention")
    reader = model.reader(tokenizer)

    def read_on() -> tuple[int, int]:
        """Append 30 pieces; return how many windows were encoded, and the bytes of what the reader then holds."""
        with encoded_batches(model) as shapes:
            for seed in range(30):
                reader.append(long_text(8, str(seed)) + " ")
        state = reader.state_dict()
        held = sum(value.nbytes for value in state.values() if isinstance(value, torch.Tensor)) + len(state["text"])
        return sum(shape[0] for shape in shapes), held

    first, *later = [read_on() for _ in range(3)]
    assert reader.num_tokens > 20 * model.config.encoder_window
    for windows, held in later:
        assert windows <= first[0] * 1.02 + 2
        assert held <= 2 * first[1]


def test_one_long_append_is_read_in_chunks():
    tokenizer = FAMILIES["byte_level_bpe"]
    model = classifier(tokenizer, windows_per_chunk=2)
    with encoded_batches(model) as shapes:
        model.reader(tokenizer).append(long_text(500))
    assert len(shapes) > 20
    assert max(shape[0] for shape in shapes) == 2


def test_the_cost_of_one_long_append_is_in_proportion_to_it(monkeypatch):
    tokenizer = FAMILIES["byte_level_bpe"]
    sizes, tensor = [], torch.tensor

    def counting(data, *args, **kwargs):
        sizes.append(len(data) if isinstance(data, list) else 0)
        return tensor(data, *args, **kwargs)

    reader = classifier(tokenizer, windows_per_chunk=2).reader(tokenizer)
    monkeypatch.setattr(torch, "tensor", counting)
    reader.append(long_text(2000))
    assert sum(sizes) < 4 * reader.num_tokens


def test_probabilities_have_the_precision_of_float32_whatever_the_models():
    tokenizer = FAMILIES["byte_level_bpe"]
    model = classifier(tokenizer, problem_type="multi_label_classification").to(torch.bfloat16)
    reader = model.reader(tokenizer)
    probabilities = reader.append("the plot was long ")
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, reader.logits.float().sigmoid(), atol=0, rtol=0)


def test_many_documents_are_read_in_one_batch_each_as_if_alone():
    tokenizer = FAMILIES["byte_level_bpe"]
    model = classifier(tokenizer, summary="mean").double()
    readers, alone = model.readers(tokenizer, 5), [model.reader(tokenizer) for _ in range(5)]
    assert len(readers) == 5
    rng = random.Random(0)
    for step in range(12):
        texts = {index: long_text(rng.randint(0, 9), f"{step} {index}") + " " for index in rng.sample(range(5), 3)}
        with encoded_batches(model) as shapes:
            probabilities = readers.append(texts)
        assert len(shapes) <= 1 + sum(reader._num_windows > 0 for reader in readers)
        for row, (index, text) in enumerate(texts.items()):
            torch.testing.assert_close(probabilities[row], alone[index].append(text), **FLOAT64)
            torch.testing.assert_close(readers[index].logits, alone[index].logits, **FLOAT64)
            assert readers[index].num_tokens == alone[index].num_tokens
    assert any(reader._num_windows > 2 for reader in readers)


def test_a_reader_survives_copying_and_its_state_a_restart():
    tokenizer = FAMILIES["unigram"]
    model = classifier(tokenizer, summary="attention", num_gru_layers=2)
    reader = model.reader(tokenizer)
    for number, piece in enumerate(pieces_of(long_text(60), "copied")):
        file = io.BytesIO()
        torch.save(reader.state_dict(), file)
        file.seek(0)
        again = model.reader(tokenizer)
        again.load_state_dict(torch.load(file, weights_only=True))  # nothing executable
        copied = copy.deepcopy(reader)
        assert copied._model is model
        expected = reader.append(piece)
        assert torch.equal(again.append(piece), expected), number
        assert torch.equal(copied.append(piece), expected), number
        assert (again.num_tokens, again.close().tolist()) == (reader.num_tokens, expected.tolist())


def test_what_fails_half_way_has_read_nothing():
    tokenizer = FAMILIES["byte_level_bpe"]
    model = classifier(tokenizer, windows_per_chunk=2).double()
    readers, begun, more = model.readers(tokenizer, 2), long_text(40, "begun"), f" {long_text(80, 'more')}"
    readers.append({0: begun, 1: begun})
    with encoded_batches(model) as shapes:
        copy.deepcopy(readers[0]).append(more)
    assert len(shapes) > 3
    for number in range(1, len(shapes) + 1):
        calls = itertools.count(1)

        def fail(*_, calls=calls, number=number) -> None:
            if next(calls) == number:
                raise KeyboardInterrupt

        hook = model.roberta.register_forward_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            readers.append({0: more, 1: "few words"})
        hook.remove()
        assert readers[0].num_tokens == readers[1].num_tokens == len(tokenizer(begun)["input_ids"])
    again = copy.copy(readers[0])  # which shares nothing that changes
    readers.append({0: more, 1: "few words"})
    for reader, text in ((readers[0], begun + more), (readers[1], f"{begun}few words")):
        torch.testing.assert_close(reader.logits, whole(model, tokenizer, text), **FLOAT64)
    again.append(more)
    torch.testing.assert_close(again.logits, readers[0].logits, **FLOAT64)


def test_close_and_reset_end_a_document_and_begin_another():
    tokenizer = FAMILIES["word_piece"]
    model = classifier(tokenizer)
    reader = model.reader(tokenizer)
    torch.testing.assert_close(reader.close(), whole(model, tokenizer, "").softmax(-1), **FLOAT32)
    reader.reset()
    probabilities = [reader.append(text) for text in SENTENCES][-1]
    assert torch.equal(reader.close(), probabilities)
    with pytest.raises(ValueError, match="is closed"):
        reader.append("more")
    reader.reset()
    assert (reader.logits, reader.num_tokens) == (None, 0)
    torch.testing.assert_close(reader.append("again"), whole(model, tokenizer, "again").softmax(-1), **FLOAT32)


def test_bad_input_is_refused_before_any_document_is_read_on():
    tokenizer = FAMILIES["byte_level_bpe"]
    model = classifier(tokenizer)
    readers = model.readers(tokenizer, 2)
    readers.append({0: "some words ", 1: "other words "})
    before = copy.deepcopy(readers[0].state_dict())
    for text, said in ((None, "takes text, not NoneType"), (b"x", "not bytes"), ("x\ud800", "surrogate")):
        with pytest.raises(ValueError, match=said):
            readers.append({0: "fine", 1: text})
    model.train()
    with pytest.raises(ValueError, match="training mode"):
        readers.append({0: "fine"})
    model.eval()
    after = readers[0].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items() if isinstance(value, torch.Tensor))
    assert before["text"] == after["text"]
    for texts in ({}, ["fine"], {-1: "fine"}, {"0": "fine"}):
        with pytest.raises(ValueError, match=r"`append` needs at least one text|must map a document's index"):
            readers.append(texts)
    with pytest.raises(IndexError):
        readers.append({0: "fine", 2: "fine"})
    with pytest.raises(ValueError, match="gru_bidirectional"):
        classifier(tokenizer, gru_bidirectional=True).reader(tokenizer)
    with pytest.raises(ValueError, match="not the model's"):
        model.reader(FAMILIES["unigram"] if len(FAMILIES["unigram"]) > len(tokenizer) else larger(tokenizer))
    with pytest.raises(ValueError, match="not a str"):
        model.reader("roberta-base")


def larger(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["elephant"])
    return tokenizer


def test_the_state_of_another_model_is_refused_by_its_entry():
    tokenizer = FAMILIES["byte_level_bpe"]
    state = classifier(tokenizer).reader(tokenizer).state_dict()
    with pytest.raises(ValueError, match="`carried` has shape"):
        classifier(tokenizer, num_gru_layers=2).reader(tokenizer).load_state_dict(state)
    with pytest.raises(ValueError, match="`carried` is None"):
        classifier(tokenizer).reader(tokenizer).load_state_dict({**state, "carried": None})
    torch.manual_seed(0)
    model = classifier(tokenizer, summary="mean")
    other = classifier(tokenizer, summary="mean")
    cut = classifier(tokenizer, summary="mean", window_overlap=0)
    largest = classifier(tokenizer, summary="max")
    for another in (cut, largest):
        another.load_state_dict(model.state_dict())
    reader = model.reader(tokenizer)
    reader.append(long_text(40))
    for another in (other, cut, largest):
        opened = another.reader(tokenizer)
        opened.append("some words")
        with pytest.raises(ValueError, match="`read_by`"):
            opened.load_state_dict(reader.state_dict())
        assert opened.num_tokens == len(tokenizer("some words")["input_ids"])
    same = classifier(tokenizer, summary="mean")
    same.load_state_dict(model.state_dict())
    same.reader(tokenizer).load_state_dict(reader.state_dict())
    for parameter in same.parameters():  # a difference in any one of them is enough
        before = parameter.detach().clone()
        parameter.data.add_(0.01)
        with pytest.raises(ValueError, match="`read_by`"):
            same.reader(tokenizer).load_state_dict(reader.state_dict())
        parameter.data.copy_(before)
    with pytest.raises(ValueError, match="The state of a reader has"):
        classifier(tokenizer).reader(tokenizer).load_state_dict({"tail": state["tail"]})
