"""The handler of an inference endpoint, through the contract by which Hugging Face's server calls it."""

import copy
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, pipeline

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.configuration_recurrent import RecurrentConfig
from modeling_roberta_gru.data.tokenization import lift_limits, train_word_tokenizer
from modeling_roberta_gru.inference import reading
from modeling_roberta_gru.inference.explanation import trace
from modeling_roberta_gru.inference.reading import turns
from modeling_roberta_gru.modeling_recurrent import RecurrentForSequenceClassification

from .clean_process import without_the_package
from .tiny import tiny_config

HANDLER = Path(__file__).parents[1] / "model_card" / "handler.py"
READING = Path(reading.__file__)
ALL_LOGITS = {"top_k": None, "function_to_apply": "none"}
# Neighbours change the sizes of the matrices, and with them the rounding.
FLOAT32 = {"rel": 1e-5, "abs": 1e-5}

# What the toolkit does with a repository that holds a handler.py, and with each request.
SERVER = """
import importlib.util, json

def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def answer(body):
    try:
        return 200, handler(body)
    except Exception as error:
        return 400, {"error": str(error)}

folder = sys.argv[1]
sys.path.insert(0, folder)
handler = load("handler", f"{folder}/handler.py").EndpointHandler(folder)
print(json.dumps([answer(body) for body in json.load(sys.stdin)]))
"""


def load_handler(folder):
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def review(num_words, seed=0):
    rng = random.Random(seed)
    words = ["the", "plot", "was", "long", "and", "slow", "but", "we", "liked", "its", "music", "splendid", "dreadful"]
    return " ".join(rng.choice(words) for _ in range(num_words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, stand_in):
    """Return a published model's folder; W = 20, so that a review of a hundred words has many windows."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    lift_limits(tokenizer)  # as a run saves it
    labels = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
    config = tiny_config(
        vocab_size=len(tokenizer),
        problem_type="single_label_classification",
        calibration_temperature=1.5,
        windows_per_chunk=2,
        gru_bidirectional=True,
        **labels,
    )
    torch.manual_seed(0)
    model = RobertaGRUForSequenceClassification(config).eval()
    with torch.no_grad():
        # What a text says tells, and no label leads throughout.
        model.head.out_proj.weight.mul_(20)
        running = model.running_logits(tokenizer(review(90), return_tensors="pt")["input_ids"])[0]
        model.head.out_proj.bias.sub_(running.mean(dim=0) * config.calibration_temperature)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.copy(HANDLER, folder)
    shutil.copy(READING, folder)
    return folder


@pytest.fixture(scope="module")
def module(folder):
    return load_handler(folder)


@pytest.fixture(scope="module")
def handler(module, folder):
    return module.EndpointHandler(str(folder))


@pytest.fixture(scope="module")
def expected_logits(folder):
    """Return what gives a text's logits by label, by the package's own model, alone."""
    model = RobertaGRUForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def logits(text):
        values = model(**tokenizer(text, return_tensors="pt")).logits[0].tolist()
        return {model.config.id2label[label]: value for label, value in enumerate(values)}

    return logits


def named(entries):
    return {entry["label"]: entry["score"] for entry in entries}


@pytest.mark.slow
def test_a_fresh_process_without_the_package_answers_as_the_packages_model_does(folder, expected_logits, tmp_path):
    texts = ["dreadful music", review(400), "", "splendid plot but slow"]
    requests = [
        {"inputs": texts, "parameters": ALL_LOGITS},
        {"inputs": texts[1], "parameters": {**ALL_LOGITS, "explain": True}},
        {"inputs": 7},
    ]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [sys.executable, "-I", "-c", without_the_package(SERVER), folder],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert "sequence length" not in process.stderr  # as said of a text beyond a tokenizer's limit
    (status, answers), (_, explained), refused = json.loads(process.stdout.splitlines()[-1])
    assert status == 200
    for text, answer in zip(texts, answers, strict=True):
        assert named(answer) == pytest.approx(expected_logits(text), **FLOAT32)
    assert named(explained["labels"]) == pytest.approx(expected_logits(texts[1]), **FLOAT32)
    assert refused == [400, {"error": "inputs: 7 is not a text. Send a text or a list of texts."}]


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression", None])
@pytest.mark.parametrize("inputs", ["dreadful music", ["slow", review(60), ""], ["slow"]], ids=["one", "list", "only"])
def test_answers_are_those_of_the_pipeline(problem, inputs, handler, module):
    config = tiny_config(vocab_size=400, problem_type=problem, num_labels=1 if problem == "regression" else 4)
    handler = copy.copy(handler)
    handler.model = RobertaGRUForSequenceClassification(config).eval()
    module.Contract.__init__(handler, config)
    classify = pipeline("text-classification", model=handler.model, tokenizer=handler.tokenizer, device="cpu")
    tops = [{}, {"top_k": None}, {"top_k": 1}, {"top_k": 2}, {"top_k": 9}]
    functions = [{"function_to_apply": name} for name in ("softmax", "sigmoid", "none", None)]
    for parameters in [*tops, *functions, {"top_k": 2, "function_to_apply": "sigmoid"}]:
        answer = handler({"inputs": inputs, "parameters": parameters})
        assert_same(answer, classify(inputs, **parameters))
    assert_same(handler({"inputs": inputs, "parameters": None}), classify(inputs))
    assert_same(handler({"inputs": inputs}), classify(inputs))


def assert_same(answer, expected):
    assert type(answer) is type(expected)
    if isinstance(answer, list):
        assert len(answer) == len(expected)
        for one, other in zip(answer, expected, strict=True):
            assert_same(one, other)
    else:
        assert answer == {"label": expected["label"], "score": pytest.approx(expected["score"], **FLOAT32)}


@pytest.mark.parametrize("batch_tokens", [1, 60, 10**6])
def test_results_stand_in_the_order_of_the_texts_whatever_the_batches(
    batch_tokens, handler, expected_logits, monkeypatch
):
    texts = [review(num_words, seed=num_words) for num_words in (3, 70, 1, 12, 0, 40, 13, 2, 71, 5)]
    read = []

    def forward(input_ids, attention_mask):
        assert torch.is_inference_mode_enabled()
        read.append(attention_mask)
        return model(input_ids, attention_mask=attention_mask)

    model = handler.model
    monkeypatch.setattr(handler, "batch_tokens", batch_tokens)
    monkeypatch.setattr(handler, "model", forward)
    forward.config = model.config
    answers = handler({"inputs": texts, "parameters": ALL_LOGITS})
    for text, answer in zip(texts, answers, strict=True):
        assert named(answer) == pytest.approx(expected_logits(text), **FLOAT32)
    assert all(mask.numel() <= batch_tokens or len(mask) == 1 for mask in read)
    assert sum(map(len, read)) == len(texts)
    assert {1: 10, 10**6: 1}.get(batch_tokens, len(read)) == len(read)
    # Like lengths stand together: sorted batches of these texts hold less padding than tokens.
    if batch_tokens == 60:
        assert 1 < len(read) < 10
        assert sum(mask.numel() for mask in read) < 2 * sum(int(mask.sum()) for mask in read)


@pytest.mark.parametrize("rounds", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_threads_do_not_disturb_each_other(handler, rounds):
    requests = [
        {"inputs": [review(words, seed) for words in (seed + 1, 150, 3)][: seed % 3 + 1]}
        | {"parameters": {"explain": bool(seed % 2), "top_k": None}}
        for seed in range(16)
    ]
    alone = [handler(request) for request in requests]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(handler, requests * rounds)) == alone * rounds


def test_the_contract_needs_no_model(handler, module):
    contract = module.Contract(handler.model.config)
    for inputs in ("slow", ["slow", review(30)]):
        for parameters in ({}, {"top_k": 2}, {"function_to_apply": "none", "top_k": None}):
            data = {"inputs": inputs, "parameters": parameters}
            request = contract.read(data)
            assert contract.answer(request, handler.logits(request.texts)) == handler(data)


@pytest.mark.parametrize("unit", ["\u200b", "e\u0301", "\U000e0100", "word "])
def test_tokens_are_bounded_before_all_are_made(unit, handler, module, monkeypatch):
    read = []
    tokenizer = handler.tokenizer

    def tokenize(text, **options):
        read.append(len(text))
        return tokenizer(text, **options)

    monkeypatch.setattr(handler, "tokenizer", tokenize)
    monkeypatch.setattr(handler, "max_tokens", 20_000)
    huge = (unit * 900_000)[:900_000]
    for inputs in (huge, ["slow", huge], [huge[:4000]] * 200):
        read.clear()
        with pytest.raises(module.RequestError, match=r"^inputs: more than 20,000 tokens"):
            handler({"inputs": inputs})
        assert sum(read) < 100_000


def test_time_is_bounded_within_a_text(handler, module, monkeypatch):
    passages = []
    now = iter(range(10**6))
    monkeypatch.setattr(reading.time, "monotonic", lambda: passages.append(0) or next(now))
    monkeypatch.setattr(handler, "max_seconds", 5)
    for parameters in ({}, {"explain": True}):
        passages.clear()
        with pytest.raises(module.RequestError, match=r"^inputs: they take longer than 5 seconds"):
            handler({"inputs": review(2000), "parameters": parameters})
        assert len(passages) < 10
    monkeypatch.undo()
    assert handler({"inputs": review(200)})


def test_an_explanation_is_the_packages_trace(handler, monkeypatch):
    text = f"  {review(90)}\n\n日本 😀 more than\tmost… "
    parameters = {"explain": True, "top_k": None}
    answer = handler({"inputs": text, "parameters": parameters})
    assert handler({"inputs": [text], "parameters": parameters}) == [answer]

    traced = trace(handler.model, handler.tokenizer, text)
    order = [traced.labels.index(entry["label"]) for entry in answer["labels"]]
    assert [entry["score"] for entry in answer["labels"]] == pytest.approx(traced.scores[-1, order].tolist())
    assert [point["end"] for point in answer["running"]] == [traced.word_at(at)[1] for at in traced.ends]
    running = np.array([point["scores"] for point in answer["running"]])
    assert running == pytest.approx(traced.scores[traced.ends][:, order])

    expected = [
        dict(zip(("start", "end"), traced.word_at(turn.position), strict=True))
        | {"label": turn.label, "before": pytest.approx(turn.before), "after": pytest.approx(turn.after)}
        for turn in turns(traced)
    ]
    assert len(expected) > 1
    assert answer["turns"] == expected
    monkeypatch.setattr(handler, "max_points", 1)
    assert len(handler({"inputs": text, "parameters": parameters})["turns"]) == 1


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("parameters", [{}, {"top_k": 2}])
def test_an_explanation_has_the_labels_and_the_function_that_were_asked_for(parameters, function, handler):
    parameters = {**parameters, "function_to_apply": function}
    answer = handler({"inputs": review(30), "parameters": {**parameters, "explain": True}})
    assert_same(answer["labels"], handler({"inputs": review(30), "parameters": parameters}))
    assert answer["running"][-1]["scores"] == [entry["score"] for entry in answer["labels"]]
    assert {len(point["scores"]) for point in answer["running"]} == {len(answer["labels"])}


def test_the_empty_text_can_be_explained(handler, expected_logits):
    answer = handler({"inputs": "", "parameters": {**ALL_LOGITS, "explain": True}})
    assert named(answer["labels"]) == pytest.approx(expected_logits(""), **FLOAT32)
    assert [point["end"] for point in answer["running"]] == [0, 0]


def test_an_explanation_is_thinned_evenly_and_keeps_the_end(handler, monkeypatch):
    text = review(200)
    parameters = {"explain": True}
    whole = handler({"inputs": text, "parameters": parameters})["running"]
    assert len(whole) <= 200 < len(text.split()) + 2
    monkeypatch.setattr(handler, "max_points", 7)
    points = handler({"inputs": text, "parameters": parameters})["running"]
    assert len(points) == 7
    assert points[-1] == whole[-1]
    assert points[-1]["end"] == len(text)
    steps = np.diff([0, *(point["end"] for point in points)])
    assert steps.min() > len(text) / 7 - 20
    assert steps.max() < len(text) / 7 + 20


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("slow", 'request: \'slow\' is not an object. Send {"inputs": "a text"}.'),
        ({}, "inputs: missing. Send a text or a list of texts."),
        ({"input": "slow"}, "input: there is no such field. Did you mean inputs?"),
        ({"inputs": "slow", "top_k": 2}, "top_k: there is no such field. Send inputs or parameters."),
        ({"inputs": None}, "inputs: None is not a text. Send a text or a list of texts."),
        (
            {"inputs": {"text": "slow"}},
            "inputs: {'text': 'slow'} is not a text. Send a text or a list of texts.",
        ),
        ({"inputs": []}, "inputs: the list is empty. Send one text at least."),
        ({"inputs": ["slow", 7]}, "inputs[1]: 7 is not a text. Send texts only."),
        ({"inputs": ["slow", ["long"]]}, "inputs[1]: ['long'] is not a text. Send texts only."),
        ({"inputs": ["slow"] * 5}, "inputs: 5 texts, but a request may hold 4. Send several requests."),
        (
            {"inputs": ["slow" * 10, "long" * 10]},
            "inputs: 80 characters, but a request may hold 79 in all. Send less, or several requests.",
        ),
        (
            {"inputs": ["slow", "a\ud800"]},
            "inputs[1]: character 1 is half a character (U+D800). Decode the text again.",
        ),
        ({"inputs": "\udc00"}, "inputs: character 0 is half a character (U+DC00). Decode the text again."),
        ({"inputs": "slow", "parameters": []}, 'parameters: [] is not an object. Send {"top_k": 2}, or none.'),
        (
            {"inputs": "slow", "parameters": {"topk": 2}},
            "parameters.topk: there is no such field. Did you mean top_k?",
        ),
        (
            {"inputs": "slow", "parameters": {"truncation": True}},
            "parameters.truncation: there is no such field. Send top_k, function_to_apply or explain.",
        ),
        *(
            (
                {"inputs": "slow", "parameters": {"top_k": value}},
                f"parameters.top_k: {value!r} is not a whole number of at least 1. For all labels, send null.",
            )
            for value in (0, -1, 1.0, True, "2")
        ),
        *(
            (
                {"inputs": "slow", "parameters": {"function_to_apply": value}},
                f"parameters.function_to_apply: {value!r} is not softmax, sigmoid or none.",
            )
            for value in ("softmaks", 1, [])
        ),
        (
            {"inputs": "slow", "parameters": {"explain": "yes"}},
            "parameters.explain: 'yes' is neither true nor false.",
        ),
    ],
)
def test_a_mistake_in_a_request_is_one_line_that_names_the_field(request_, message, handler, module, monkeypatch):
    monkeypatch.setattr(handler, "max_texts", 4)
    monkeypatch.setattr(handler, "max_characters", 79)
    with pytest.raises(module.RequestError) as caught:
        handler(request_)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "build",
    [
        lambda huge: {"inputs": huge},
        lambda huge: {"inputs": [huge, "slow"]},
        lambda huge: {"inputs": {"text": huge}},
        lambda huge: {"inputs": "slow", "parameters": {huge: 1}},
        lambda huge: {"inputs": "slow", "parameters": {"top_k": huge}},
        lambda huge: {huge: "slow"},
        lambda huge: {"inputs": [huge[:100]] * 1_000_000},
    ],
    ids=["text", "list", "wrong type", "parameter name", "parameter", "field", "texts"],
)
def test_a_hundred_megabytes_are_refused_unread_in_a_short_message(build, handler, module, monkeypatch):
    monkeypatch.setattr(handler, "tokenizer", None)
    request = build("x" * 100_000_000)
    with pytest.raises(module.RequestError) as caught:
        handler(request)
    assert len(str(caught.value)) < 200


def test_environment_variables_change_the_limits(module, folder, monkeypatch):
    for name in ("MAX_TEXTS", "MAX_CHARACTERS", "MAX_TOKENS", "MAX_SECONDS", "BATCH_TOKENS", "MAX_POINTS"):
        assert f"ROBERTA_GRU_{name} " in module.__doc__
        assert f"({getattr(module, name):,})" in module.__doc__
        monkeypatch.setenv(f"ROBERTA_GRU_{name}", "3")
    handler = module.EndpointHandler(str(folder))
    limits = [handler.max_texts, handler.max_characters, handler.max_tokens, handler.max_seconds]
    assert [*limits, handler.batch_tokens, handler.max_points] == [3] * 6
    for value in ("0", "-1", "many", "1.5", ""):
        monkeypatch.setenv("ROBERTA_GRU_MAX_TEXTS", value)
        with pytest.raises(ValueError, match=f"ROBERTA_GRU_MAX_TEXTS is {value!r}; it must be a whole number"):
            module.EndpointHandler(str(folder))


def test_the_model_is_that_of_its_own_folder_unless_another_is_named(folder, module, handler):
    own = module.EndpointHandler(task="text-classification")
    assert own({"inputs": "slow"}) == handler({"inputs": "slow"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_precision_is_that_of_the_config(dtype, folder, module, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    model = RobertaGRUForSequenceClassification.from_pretrained(folder).to(dtype)
    model.save_pretrained(tmp_path)
    handler = module.EndpointHandler(str(tmp_path))
    assert handler.model.dtype == dtype
    answer = handler({"inputs": "slow", "parameters": ALL_LOGITS})
    with torch.no_grad():
        logits = model(**handler.tokenizer("slow", return_tensors="pt")).logits[0]
    assert sorted(named(answer).values()) == sorted(logits.tolist())


def test_a_pickle_is_not_read(folder, module, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    model = RobertaGRUForSequenceClassification.from_pretrained(folder)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        module.EndpointHandler(str(tmp_path))


def test_a_recurrent_nets_folder_is_served_but_not_explained(module, tmp_path):
    tokenizer = train_word_tokenizer([review(200)])
    config = RecurrentConfig(vocab_size=len(tokenizer), embedding_size=5, hidden_size=4, num_labels=3)
    model = RecurrentForSequenceClassification(config).eval()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    handler = module.EndpointHandler(str(tmp_path))
    texts = ["slow", review(30), "liked its music"]
    assert_same(
        handler({"inputs": texts, "parameters": {"top_k": 2}}),
        pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")(texts, top_k=2),
    )
    with pytest.raises(module.RequestError, match=r"^parameters\.explain: a Recurrent.* Leave it out\.$"):
        handler({"inputs": "slow", "parameters": {"explain": True}})
    with pytest.raises(module.RequestError, match=r"^inputs\[1\]: the text has no words"):
        handler({"inputs": ["slow", ""]})
