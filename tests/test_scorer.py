"""Scoring many texts: the same answers as one by one, whatever stands beside a text, and in the order of the texts."""

import copy
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from tokenizers import normalizers, pre_tokenizers
from torch.testing import assert_close
from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.configuration_recurrent import RecurrentConfig
from modeling_roberta_gru.data.labels import MULTI_LABEL, REGRESSION
from modeling_roberta_gru.data.tokenization import batches_by_length, lift_limits
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.inference import engine, scorer
from modeling_roberta_gru.inference.scorer import Scorer, slices_by_size
from modeling_roberta_gru.modeling_recurrent import RecurrentForSequenceClassification

from .refusals import refused
from .tiny import TINY_ENCODER, tiny_config

# Neighbours change the sizes of the matrices, and with them the rounding; a bfloat16 number has eight bits.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "int8": 2e-2}
WORDS = ["the", "plot", "was", "long", "and", "slow", "but", "we", "liked", "its", "music", "splendid", "dreadful"]

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


def reviews_of(lengths, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=length)) for length in lengths]


# Windows hold 20 tokens: some of these documents have a tenth of one, some several.
TEXTS = reviews_of([3, 70, 1, 12, 18, 17, 5, 40, 2, 30, 0, 19, 3, 8])


@pytest.fixture(scope="module")
def tokenizer(stand_in):
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    lift_limits(tokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    names = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
    config = tiny_config(vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, **names)
    model = RobertaGRUForSequenceClassification(config).eval()
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt", verbose=False)).logits for text in TEXTS])
        model.head.out_proj.bias -= logits.mean(dim=0)  # so that every label is some text's
    return model


@pytest.fixture(scope="module")
def scorers(model, tokenizer):
    return {dtype: Scorer(model, tokenizer, dtype=dtype, device="cpu") for dtype in engine.DTYPES}


@pytest.fixture(params=engine.DTYPES)
def dtype(request):
    return request.param


@torch.no_grad()
def alone(model, tokenizer, text):
    logits = model(**tokenizer(text, return_tensors="pt", verbose=False)).logits
    return logits.softmax(dim=-1)[0].numpy()


def test_every_text_gets_what_the_model_says_of_it_alone(model, tokenizer, scorers, dtype) -> None:
    found = scorers[dtype].predict_proba(TEXTS)
    expected = np.stack([alone(model, tokenizer, text) for text in TEXTS])
    assert found.dtype == np.float32
    # What rounds away from the model's float32 is the type's own error, over two random layers.
    assert found == pytest.approx(expected, abs={"float32": 1e-5, "bfloat16": 0.03, "int8": 0.05}[dtype])
    assert np.abs(expected[0] - expected[1]).max() > 0.1  # texts out of order would show


def test_neighbours_do_not_change_a_texts_scores(scorers, dtype) -> None:
    together = scorers[dtype].predict_proba(TEXTS)
    for row in (0, 1, 5):
        assert scorers[dtype].predict_proba([TEXTS[row]])[0] == pytest.approx(together[row], abs=TOLERANCE[dtype])


def test_order_follows_the_texts_however_they_come(scorers) -> None:
    shuffled = random.Random(0).sample(range(len(TEXTS)), len(TEXTS))
    found = scorers["float32"].predict_proba([TEXTS[row] for row in shuffled])
    assert found == pytest.approx(scorers["float32"].predict_proba(TEXTS)[shuffled], abs=1e-5)


def test_calls_of_whole_pools_give_the_bits_of_one_call(scorers, monkeypatch, dtype) -> None:
    monkeypatch.setattr(scorer, "POOL_SIZE", 4)
    whole = np.stack(list(scorers[dtype].stream(TEXTS)))
    parts = np.concatenate([np.stack(list(scorers[dtype].stream(TEXTS[n : n + 4]))) for n in range(0, len(TEXTS), 4)])
    assert (whole == parts).all()


def test_scoring_leaves_other_threads_the_processors_they_had(scorers) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        scorers["float32"].predict(TEXTS)
        with ThreadPoolExecutor(1) as others:
            assert others.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_stream_that_is_given_up_waits_for_no_thread(scorers, monkeypatch) -> None:
    scorer, begun, may_end = scorers["float32"], threading.Event(), threading.Event()
    threads = set(threading.enumerate())
    stream = scorer.stream(TEXTS[0] for _ in count())
    next(stream)

    def tokenise(texts):
        begun.set()
        assert may_end.wait(60)
        return [[0, 2] for _ in texts]

    monkeypatch.setattr(scorer, "_tokenise", tokenise)
    for _ in stream:
        if begun.is_set():
            break
    stream.close()
    assert set(threading.enumerate()) - threads  # still at work
    may_end.set()


def test_an_endless_stream_is_read_three_pools_ahead_at_most(scorers, monkeypatch) -> None:
    monkeypatch.setattr(scorer, "POOL_SIZE", 4)
    taken = []
    stream = scorers["float32"].stream((taken.append(n) or WORDS[n % 13]) for n in count())
    for number, _ in enumerate(islice(stream, 30)):
        assert len(taken) <= number + 3 * 4
    stream.close()
    num_taken = len(taken)
    assert list(stream) == []
    assert len(taken) == num_taken


def test_each_text_is_announced_once(scorers) -> None:
    counts = []
    list(scorers["int8"].stream(TEXTS, counts.append))
    assert sum(counts) == len(TEXTS)


def test_an_error_among_the_texts_is_the_callers(scorers) -> None:
    def texts():
        yield "the plot"
        raise OSError("the file broke off")

    with pytest.raises(OSError, match="broke off"):
        list(scorers["float32"].stream(texts()))


def test_predictions_are_as_scikit_learns(scorers) -> None:
    one = scorers["float32"]
    probabilities = one.predict_proba(TEXTS)
    labels = one.predict(TEXTS).tolist()
    assert one.classes_[probabilities.argmax(axis=1)].tolist() == labels
    assert set(labels) == {"bad", "fair", "good"}
    exponentials = np.exp(one.logits(TEXTS).astype(float))
    assert_close(exponentials / exponentials.sum(axis=1, keepdims=True), probabilities, check_dtype=False)


def test_a_single_text_is_one_text_and_never_its_letters(scorers) -> None:
    one, text = scorers["float32"], TEXTS[1]
    assert one.predict(text) == one.predict([text])[0]
    assert isinstance(one.predict(text), str)
    assert (one.predict_proba(text) == one.predict_proba([text])[0]).all()
    assert [row.tolist() for row in one.stream(text)] == [one.predict_proba(text).tolist()]


def test_texts_may_come_in_any_kind_of_column(scorers) -> None:
    one = scorers["float32"]
    expected = one.predict_proba(TEXTS)
    for texts in (iter(TEXTS), tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, dtype=object), pandas.Series(TEXTS)):
        assert (one.predict_proba(texts) == expected).all()


@pytest.mark.parametrize("bad", [None, float("nan"), 7, b"bytes", ["a"], "half \ud83d"])
def test_what_is_no_text_is_named_by_its_row(scorers, bad) -> None:
    for ask in (scorers["float32"].predict, lambda texts: [*scorers["int8"].stream(texts)]):
        with refused(field="texts", row=4):
            ask([*TEXTS[:3], bad, *TEXTS])
    for texts in (None, 7, b"bytes"):
        with refused(field="texts", row=None):
            scorers["float32"].predict(texts)


def test_texts_tokenised_before_are_scored_the_same(scorers, tokenizer) -> None:
    one = scorers["float32"]
    documents = one.tokenize(TEXTS)
    assert [ids.tolist() for ids in documents] == tokenizer(TEXTS, verbose=False)["input_ids"]
    assert (one.logits_of_tokens(documents) == one.logits(TEXTS)).all()


def test_a_text_of_too_many_tokens_is_found_before_all_of_it_is_tokenised(scorers, monkeypatch) -> None:
    one, read = scorers["float32"], []
    tokenise, kind = one._tokenise, type(one.tokenizer)
    call = kind.__call__
    monkeypatch.setattr(one, "_tokenise", lambda texts: read.extend(map(len, texts)) or tokenise(texts))
    monkeypatch.setattr(
        kind, "__call__", lambda self, text, **given: read.append(len(text)) or call(self, text, **given)
    )
    text = "\u200b" * 1_000_000
    with refused(field="texts", row=2, match="20,000 tokens"):
        one.tokenize(["slow", text], most_tokens=20_000)
    assert sum(read) < 100_000
    tokens = one.tokenize("slow " * 1000)[0]
    assert one.tokenize("slow " * 1000, most_tokens=len(tokens))[0].tolist() == tokens.tolist()
    with refused(field="texts", row=1, match=f"more than {len(tokens) - 1:,} tokens"):
        one.tokenize("slow " * 1000, most_tokens=len(tokens) - 1)


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_threads_that_share_a_tokenizer_do_not_disturb_each_other(model, tokenizer, rounds) -> None:
    whole = Scorer(model, tokenizer, dtype="float32", device="cpu")
    cut = Scorer(model, tokenizer, dtype="float32", device="cpu", max_length=10)
    texts = reviews_of([1, 300, 7, 40, 0, 19, 150, 3], seed=1)
    requests = [(one, texts[start:stop]) for one in (whole, cut) for start in range(4) for stop in (start + 1, 8)]
    alone = [one.predict_proba(some) for one, some in requests]

    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            tokenizer(texts, padding=True)
            tokenizer(texts, truncation=True, max_length=5, padding="max_length")

    def ask(row: int) -> bool:
        one, some = requests[row % len(requests)]
        return bool((one.predict_proba(some) == alone[row % len(requests)]).all())

    with ThreadPoolExecutor(16) as threads, ThreadPoolExecutor(2) as disturbers:
        disturbing = [disturbers.submit(disturb) for _ in range(2)]
        try:
            assert all(threads.map(ask, range(rounds * len(requests))))
        finally:
            done.set()
    for one in disturbing:
        one.exception()  # which of the two breaks the other is not ours to say


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_no_scorer_takes_cores_for_itself_that_other_processes_take_too(model, tokenizer, dtype, monkeypatch) -> None:
    import openvino

    compiled, compile_model = [], openvino.Core.compile_model
    monkeypatch.setattr(
        openvino.Core, "compile_model", lambda *args: compiled.append(compile_model(*args)) or compiled[-1]
    )
    torch.set_num_threads(1)  # so that, of several processes, each was bound to the first core
    Scorer(model, tokenizer, dtype=dtype, device="cpu")
    assert [one.get_property("ENABLE_CPU_PINNING") for one in compiled] == [False, False]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize(("dtype", "outcome"), [("float32", 0), ("bfloat16", 3), ("int8", 3)])
def test_a_forked_child_scores_or_is_refused_and_never_hangs(scorers, dtype, outcome) -> None:
    expected = scorers[dtype].predict_proba(TEXTS)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if (scorers[dtype].predict_proba(TEXTS) == expected).all() else 1)
        except InputError:
            os._exit(3)
        finally:
            os._exit(2)
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == outcome


def test_nothing_gives_nothing(scorers) -> None:
    assert scorers["float32"].predict([]).tolist() == []
    assert scorers["float32"].predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize(("problem_type", "num_labels"), [(MULTI_LABEL, 3), (REGRESSION, 1)])
def test_several_labels_and_values(tokenizer, problem_type, num_labels) -> None:
    config = tiny_config(vocab_size=len(tokenizer), num_labels=num_labels, problem_type=problem_type)
    model = RobertaGRUForSequenceClassification(config).eval()
    one = Scorer(model, tokenizer, dtype="float32")
    probabilities, predicted = one.predict_proba(TEXTS), one.predict(TEXTS)
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[1], return_tensors="pt", verbose=False)).logits[0]
    if problem_type == REGRESSION:
        assert predicted[1] == pytest.approx(logits.item(), abs=1e-5)
        assert probabilities[:, 0].tolist() == predicted.tolist()
        assert one.predict(TEXTS[1]) == pytest.approx(predicted[1], abs=1e-5)
    else:
        assert probabilities[1] == pytest.approx(logits.sigmoid().numpy(), abs=1e-5)
        assert predicted[1].tolist() == (logits >= 0).int().tolist()


def test_texts_are_cut_where_that_is_asked_for(model, tokenizer) -> None:
    cut = Scorer(model, tokenizer, dtype="float32", max_length=10).predict_proba([TEXTS[1]])[0]
    ids = tokenizer(TEXTS[1], truncation=True, max_length=10, return_tensors="pt")
    with torch.no_grad():
        assert cut == pytest.approx(model(**ids).logits.softmax(dim=-1)[0].numpy(), abs=1e-5)


def test_a_length_without_room_for_text_is_refused(model, tokenizer) -> None:
    with pytest.raises(InputError, match="--max_length 2 leaves no room for text beside 2 special tokens"):
        Scorer(model, tokenizer, max_length=2)


def test_a_stock_transformer_reads_as_far_as_it_can(tokenizer) -> None:
    config = RobertaConfig(**{**TINY_ENCODER, "vocab_size": len(tokenizer)})
    stock = RobertaForSequenceClassification(config).eval()
    found = Scorer(stock, tokenizer, dtype="float32").predict_proba(TEXTS)
    ids = tokenizer(TEXTS[1], truncation=True, max_length=20, return_tensors="pt")
    with torch.no_grad():
        assert found[1] == pytest.approx(stock(**ids).logits.softmax(dim=-1)[0].numpy(), abs=1e-5)


def test_the_model_that_was_given_stays_as_it_is(model, tokenizer, dtype) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    encoder = model.roberta
    Scorer(model, tokenizer, dtype=dtype, device="cpu").predict(TEXTS[:2])
    assert model.roberta is encoder
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_model_saved_in_half_precision_is_scored_in_any_type(model, tokenizer, dtype) -> None:
    half = RobertaGRUForSequenceClassification(model.config).eval()
    half.load_state_dict(model.state_dict())
    found = Scorer(half.bfloat16(), tokenizer, dtype=dtype, device="cpu").predict_proba(TEXTS)
    assert found == pytest.approx(Scorer(model, tokenizer, dtype="float32").predict_proba(TEXTS), abs=0.05)
    assert half.dtype == torch.bfloat16


def test_a_model_on_a_gpu_stays_there_where_the_cpu_is_asked_for(model, tokenizer, dtype, monkeypatch) -> None:
    monkeypatch.setattr(type(model), "device", property(lambda self: torch.device("cuda")))
    fast = engine.prepare(model, dtype, "cpu").model
    assert fast is not model
    assert fast.head is not model.head


def test_another_model_has_another_fingerprint(model, tokenizer, scorers) -> None:
    assert len({one.fingerprint for one in scorers.values()}) == 1
    other = RobertaGRUForSequenceClassification(copy.deepcopy(model.config))
    other.load_state_dict(model.state_dict())
    assert Scorer(other, tokenizer).fingerprint == scorers["int8"].fingerprint
    other.config._name_or_path = "moved/elsewhere"
    assert Scorer(other, tokenizer).fingerprint == scorers["int8"].fingerprint
    with torch.no_grad():
        other.gru.left_to_right[0].weight_hh_l0[0, 0] += 1e-3
    assert Scorer(other, tokenizer).fingerprint != scorers["int8"].fingerprint


def test_another_tokenizer_of_the_same_vocabulary_has_another_fingerprint(model, tokenizer, scorers) -> None:
    other = copy.deepcopy(tokenizer)
    other("cut", truncation=True, max_length=3, padding="max_length")  # settings of a call that a fast one keeps
    assert scorer.fingerprint(model, other) == scorers["float32"].fingerprint
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert scorer.fingerprint(model, other) != scorers["float32"].fingerprint
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(SimpleNamespace())  # cannot be written
    smaller = copy.deepcopy(tokenizer)
    smaller.add_tokens("a-token-of-its-own")
    smaller.backend_tokenizer.pre_tokenizer = other.backend_tokenizer.pre_tokenizer
    assert scorer.fingerprint(model, other) != scorer.fingerprint(model, smaller)


# Engines


@pytest.mark.parametrize(
    ("instructions", "installed", "expected"),
    [
        ({"avx512_vnni", "avx512_bf16"}, True, "int8"),
        ({"avx_vnni"}, True, "int8"),
        ({"avx512_vnni", "avx512_bf16"}, False, "bfloat16"),
        ({"amx_bf16"}, False, "bfloat16"),
        ({"avx512_vnni"}, False, "float32"),
        ({"avx2"}, True, "float32"),
        (None, True, "float32"),  # an older release of torch, which cannot say
    ],
)
def test_the_type_is_the_fastest_that_the_processor_has(model, monkeypatch, instructions, installed, expected) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    if instructions is not None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True), raising=False)
    monkeypatch.setattr(engine, "find_spec", lambda name: installed or None)
    chosen = engine.prepare(model, device="cpu")
    assert chosen.dtype == expected
    assert chosen.description.startswith(expected)
    assert "1 threads" not in chosen.description
    assert ("OpenVINO" in chosen.description) == (installed and expected != "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_no_window_changes_the_states_of_another_in_a_compiled_encoder(model, monkeypatch, dtype) -> None:
    monkeypatch.setattr(engine, "TOKENS_PER_REQUEST", 12)
    encoder = engine.OpenVINOEncoder(model.roberta, dtype)
    lengths = torch.tensor([[12], [5], [9], [5], [12], [5]])  # two of the length 5 are encoded together, one is left
    mask = (torch.arange(12) < lengths).long()
    input_ids, positions = torch.randint(5, 60, (len(lengths), 12)), mask.cumsum(dim=1) * mask + 1
    states = encoder(input_ids, mask, positions).last_hidden_state
    for row, (length,) in enumerate(lengths.tolist()):
        short = input_ids[row : row + 1, :length], None, positions[row : row + 1, :length]
        assert torch.equal(encoder(*short).last_hidden_state[0], states[row, :length])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_engine_reads_documents_beyond_the_window(tokenizer, dtype, bidirectional) -> None:
    torch.manual_seed(0)
    config = tiny_config(vocab_size=len(tokenizer), gru_bidirectional=bidirectional, num_labels=2)
    model = RobertaGRUForSequenceClassification(config).eval()
    texts = [" ".join(TEXTS) * 3, TEXTS[0]]
    found = Scorer(model, tokenizer, dtype=dtype, device="cpu").predict_proba(texts)
    with torch.no_grad():
        expected = [model(**tokenizer(text, return_tensors="pt")).logits.softmax(dim=-1)[0].tolist() for text in texts]
    assert found == pytest.approx(np.array(expected), abs=0.05)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_compiled_gru_reads_as_the_models_own_does(num_layers, bidirectional) -> None:
    config = tiny_config(num_gru_layers=num_layers, gru_bidirectional=bidirectional)
    recurrence = RobertaGRUForSequenceClassification(config).eval().gru
    compiled = engine.OpenVINORecurrence(recurrence)
    states, lengths = torch.randn(5, 40, config.hidden_size), torch.tensor([40, 1, 17, 39, 40])
    is_token = torch.arange(40) < lengths[:, None]
    carried = tuple(torch.randn(num_layers, 5, config.gru_hidden_size) for _ in range(bidirectional + 1))
    for start in ((), carried):
        (expected, *leaving), (read, *compiled_leaving) = (
            reader(states, lengths, *start) for reader in (recurrence, compiled)
        )
        assert_close(read[is_token], expected[is_token], rtol=0, atol=1e-5)
        assert_close(compiled_leaving, leaving, rtol=0, atol=1e-5)
        alone = compiled(states[2:3, :17], lengths[2:3], *(part[:, 2:3] for part in start))
        assert torch.equal(alone[0][0], read[2, :17])


def test_a_compiled_gru_remembers_over_thousands_of_tokens() -> None:
    recurrence = RobertaGRUForSequenceClassification(tiny_config(skip_connection=False)).eval().gru
    gru, states = recurrence.left_to_right[0], torch.zeros(1, 2000, tiny_config().hidden_size)
    _, update, candidate = gru.bias_ih_l0.data.chunk(3)
    update += 6.0  # a state moves by a four hundredth of the way: less than bfloat16 can tell
    candidate += 3.0
    expected, *_ = recurrence(states, torch.tensor([2000]))
    read, *_ = engine.OpenVINORecurrence(recurrence)(states, torch.tensor([2000]))
    assert expected[0, -1].min() > 0.9
    assert_close(read, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", engine.DTYPES)
def test_a_model_in_training_mode_is_scored_without_its_dropout(model, tokenizer, dtype) -> None:
    evaluating = Scorer(model, tokenizer, dtype=dtype, device="cpu").predict_proba(TEXTS)
    training = Scorer(model.train(), tokenizer, dtype=dtype, device="cpu").predict_proba(TEXTS)
    assert_close(training, evaluating)
    assert not model.training


@pytest.mark.parametrize(
    ("dtype", "hidden", "intermediate"),
    [
        ("int8", 12, 20),
        ("bfloat16", 64, 128),
        ("int8", 156, 600),
        *(pytest.param("bfloat16", *sizes, marks=pytest.mark.slow) for sizes in ((12, 20), (48, 96), (156, 600))),
        *(pytest.param("int8", *sizes, marks=pytest.mark.slow) for sizes in ((64, 128), (72, 144))),
    ],
)
def test_several_threads_encode_as_one_at_any_width(dtype, hidden, intermediate) -> None:
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_attention_heads": 2}
    config = tiny_config(**sizes, initializer_range=0.1)
    encoder = RobertaGRUForSequenceClassification(config).eval().roberta
    ids = torch.randint(3, config.vocab_size, (4, 18))
    positions = torch.arange(2, 20).repeat(4, 1)
    one = engine.OpenVINOEncoder(encoder, dtype)(ids, None, positions).last_hidden_state
    torch.set_num_threads(2)
    several = engine.OpenVINOEncoder(encoder, dtype)(ids, None, positions).last_hidden_state
    assert_close(several, one, rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = encoder(ids, position_ids=positions).last_hidden_state
    assert_close(one, expected, rtol=0, atol=0.2)


def test_int8_weights_are_within_half_a_step_of_the_trained_ones(model) -> None:
    linear = model.roberta.encoder.layer[0].intermediate.dense
    held = engine._Int8Linear(linear)
    step = linear.weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((held.weight * held.scale - linear.weight).abs() <= step / 2 * 1.001).all()
    assert held.weight.abs().amax(dim=1).eq(127).all()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"dtype": "int4"}, {"match": r"--dtype 'int4'\. Did you mean 'int8'\?"}),
        ({"dtype": "int8", "device": "meta"}, {"field": "dtype", "match": "not for meta"}),
        ({"device": "cdua"}, {"field": "device", "match": "Expected one of cpu, cuda"}),
        ({"device": "cuda:99"}, {"field": "device"}),
    ],
)
def test_a_type_that_cannot_be_had_is_refused(model, options, names) -> None:
    with refused(**names):
        engine.prepare(model, **options)


def test_int8_without_openvino_says_what_to_install(model, monkeypatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with refused(field="dtype", match=r"pip install 'roberta-gru\[fast\]'"):
        engine.prepare(model, "int8", "cpu")


def test_int8_is_for_roberta_gru_only() -> None:
    net = RecurrentForSequenceClassification(RecurrentConfig(vocab_size=9, embedding_size=4, hidden_size=3))
    with refused(field="dtype", match="this is a recurrent"):
        engine.prepare(net, "int8", "cpu")


# Batches


def test_batches_hold_each_row_once_and_keep_to_the_budget() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(0, 50) for _ in range(100)] + [500, 90]
    batches = list(batches_by_length(lengths, 100))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= 100
    assert lengths[batches[0][0]] == 500


def test_slices_hold_every_text_in_order() -> None:
    texts = ["a" * n for n in (3, 9, 0, 1, 40, 2, 2)]
    slices = [list(some) for some in slices_by_size(texts, 10)]
    assert [text for some in slices for text in some] == texts
    assert all(sum(map(len, some[:-1])) < 10 for some in slices)
