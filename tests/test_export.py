"""ONNX export: the graph is the model at any length, and runs without torch."""

import errno
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, pipeline

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.configuration_recurrent import RecurrentConfig
from modeling_roberta_gru.data.tokenization import lift_limits, train_word_tokenizer
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.inference import export as exporting
from modeling_roberta_gru.inference.export import export, quantize_linear_layers, report, write_graph
from modeling_roberta_gru.inference.scorer import Scorer
from modeling_roberta_gru.modeling_recurrent import RecurrentForSequenceClassification

from .refusals import refused
from .tiny import batch, tiny_config

W = 20
TEXTS = ["dreadful music", "the plot was slow but we liked its music " * 12, "", "日本 😀 <mask>\tmost… ", "slow"]
FLOAT32 = {"rel": 1e-5, "abs": 1e-5}

# Everything that the options can do to the graph, in pairs.
OPTIONS = [
    {"summary": "last"},
    {"summary": "mean", "gru_bidirectional": True, "head_hidden_size": 0, "problem_type": "regression"},
    {"summary": "max", "num_gru_layers": 3, "window_overlap": 0, "problem_type": "multi_label_classification"},
    {"summary": "attention", "gru_bidirectional": True, "num_gru_layers": 2, "window_overlap": 17},
    {"summary": "last", "gru_bidirectional": True, "num_gru_layers": 3, "head_hidden_size": 0, "pad_token_id": 0},
]

WITHOUT_TORCH = """
import json, sys

sys.dont_write_bytecode = True

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "transformers", "onnx", "modeling_roberta_gru"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Refuse())
for name in ("torch", "transformers", "modeling_roberta_gru"):
    try:
        __import__(name)
        sys.exit(f"{name} can be imported: this would prove nothing")
    except ModuleNotFoundError:
        pass

sys.path.insert(0, ".")
"""


def left(folder: Path) -> list[str]:
    """Return what lies in a folder, but for the locks of exports, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def tiny_model(**fields):
    torch.manual_seed(0)
    model = RobertaGRUForSequenceClassification(tiny_config(**{"num_labels": 3, **fields})).eval()
    with torch.no_grad():
        model.head.out_proj.weight.mul_(5)  # a difference is to show
    model.config.calibration_temperature = 1.7
    return model


def documents(*lengths):
    return [torch.randint(5, 61, (length,)) for length in lengths]


@torch.no_grad()
def model_logits(model, inputs):
    return model(**inputs).logits.numpy()


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def graph_logits(graph, inputs):
    return graph.run(["logits"], {name: part.numpy() for name, part in inputs.items()})[0]


def load_scorer(folder):
    spec = importlib.util.spec_from_file_location("onnx_scorer", folder / "onnx_scorer.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)  # the folder is to stay as it was written
        spec.loader.exec_module(module)
    return module


def save(folder, stand_in, **fields):
    """Save a classifier as a run does."""
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    lift_limits(tokenizer)
    tokenizer.save_pretrained(folder)
    tiny_model(vocab_size=len(tokenizer), **fields).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory, stand_in):
    names = ["schlecht", "très bien", "日本 😀"]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: label for label, name in enumerate(names)}}
    folder = tmp_path_factory.mktemp("saved")
    return save(folder, stand_in, problem_type="single_label_classification", **labels, num_labels=3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, saved):
    folder = tmp_path_factory.mktemp("exports") / "onnx"
    export(str(saved), folder)
    return folder


@pytest.fixture(scope="module")
def scorer_module(exported):
    return load_scorer(exported)


@pytest.fixture(scope="module")
def scorer(exported, scorer_module):
    return scorer_module.OnnxScorer(exported, num_threads=1)


@pytest.fixture(scope="module")
def expected(saved):
    classify = pipeline("text-classification", str(saved), device="cpu")
    return lambda texts, **parameters: classify(list(texts), **parameters)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_the_graph_gives_the_models_logits_at_any_length(options, tmp_path):
    model = tiny_model(**options)
    write_graph(model, tmp_path / "model.onnx")
    graph = session(tmp_path / "model.onnx")
    one_of_each = documents(1, 2, W - 1, W, W + 1, W + 2, 2 * W, 66, 67, 200)
    for document in one_of_each:
        inputs = batch([document])
        assert graph_logits(graph, inputs) == pytest.approx(model_logits(model, inputs), **FLOAT32)
    for several in (one_of_each, documents(3, 9, 5), documents(W, 1), documents(200, 3, 150)):
        expected = np.concatenate([model_logits(model, batch([document])) for document in several])
        for extra in (0, 1, 50):
            inputs = batch(several, extra=extra)
            inputs["input_ids"][inputs["attention_mask"] == 0] = 10**6  # never looked up
            assert graph_logits(graph, inputs) == pytest.approx(expected, **FLOAT32)


def test_an_export_leaves_the_model_in_eval_mode_and_its_temperature_alone(tmp_path):
    model = tiny_model()
    write_graph(model, tmp_path / "model.onnx")
    assert not any(module.training for module in model.modules())
    assert model.config.calibration_temperature == 1.7


def test_documents_within_the_window_are_encoded_once_as_they_stand(tmp_path):
    model = tiny_model()
    seen = []
    model.roberta.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    graph = exporting.Graph(model)
    for lengths, extra in [((3, 9, 5), 0), ((3, 9, 5), 90), ((W, 1), 0), ((W + 1, 1, 4), 0)]:
        inputs = batch(documents(*lengths), extra=extra)
        with torch.no_grad():
            graph(inputs["input_ids"], inputs["attention_mask"])
    # The last: two windows of the long document, one of each other.
    assert seen == [(3, 9), (3, 9), (2, W), (4, W)]


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """Return a model, its graph in float32, and in int8."""
    folder = tmp_path_factory.mktemp("int8")
    model = tiny_model(hidden_size=48, intermediate_size=96, gru_bidirectional=True, skip_connection=False)
    write_graph(model, folder / "float32.onnx")
    proto = onnx.load(folder / "float32.onnx")
    quantize_linear_layers(proto)
    onnx.checker.check_model(proto)
    onnx.save(proto, folder / "int8.onnx")
    return model, session(folder / "float32.onnx"), proto, session(folder / "int8.onnx")


def test_int8_is_close_to_float32(int8):
    model, float32, _, graph = int8
    batches = [batch(several) for several in (documents(1, 17, W), documents(66), documents(3, 200, 21, 9))]
    exact = np.concatenate([graph_logits(float32, inputs) for inputs in batches])
    assert exact == pytest.approx(np.concatenate([model_logits(model, inputs) for inputs in batches]), **FLOAT32)
    difference = abs(np.concatenate([graph_logits(graph, inputs) for inputs in batches]) - exact)
    assert 0 < difference.max() < 0.2 * exact.std()


def test_int8_holds_for_every_linear_layer_of_the_encoder(int8):
    model, _, proto, _ = int8
    linear = [module for module in model.roberta.modules() if isinstance(module, torch.nn.Linear)]
    products = [node for node in proto.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == len(linear) == 12
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in products:
        assert weights[node.input[1]].dtype == np.int8
        # In steps of 1/64 of each output's largest weight: pairs of products fit into 16 bits.
        assert (abs(weights[node.input[1]].astype(int)).max(axis=0) == 64).all()
    left = {name: tensor.size for name, tensor in weights.items() if tensor.dtype == np.float32}
    assert sum(left.values()) < sum(parameter.numel() for parameter in model.parameters()) - sum(
        module.weight.numel() - module.out_features for module in linear
    ) + 100 * len(linear)


def test_int8_leaves_an_attentions_query_as_it_is(tmp_path):
    model = tiny_model(summary="attention")
    write_graph(model, tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    quantize_linear_layers(proto)
    products = [node for node in proto.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == sum(isinstance(module, torch.nn.Linear) for module in model.roberta.modules())


@pytest.mark.parametrize("length", [9, W, 66])
def test_in_int8_a_documents_logits_do_not_depend_on_its_neighbours(length, int8):
    *_, graph = int8
    several = documents(*[length] * 6)
    alone = np.concatenate([graph_logits(graph, batch([document])) for document in several])
    for rows in ([0, 1, 2, 3, 4, 5], [5, 0], [2, 2, 2, 4]):
        together = graph_logits(graph, batch([several[row] for row in rows]))
        assert together == pytest.approx(alone[rows], rel=1e-6, abs=1e-6)


def test_without_torch_a_fresh_process_answers_as_the_pipeline_does(exported, expected):
    code = (
        "import onnx_scorer\nscorer, texts = onnx_scorer.OnnxScorer('.'), json.loads(sys.argv[1])\n"
        "print(json.dumps([scorer.predict(texts).tolist(), scorer.predict_proba(texts).tolist()]))"
    )
    example = (exported / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    ours, theirs = (
        subprocess.run(
            [sys.executable, "-I", "-X", "utf8", "-c", WITHOUT_TORCH + program, json.dumps(TEXTS)],
            cwd=exported,
            capture_output=True,
            encoding="utf-8",
        )
        for program in (code, example)
    )
    assert ours.returncode == 0, ours.stderr
    predicted, probabilities = json.loads(ours.stdout)
    assert predicted == [answer["label"] for answer in expected(TEXTS)]
    assert [max(row) for row in probabilities] == pytest.approx(
        [answer["score"] for answer in expected(TEXTS)], **FLOAT32
    )
    assert theirs.returncode == 0, theirs.stderr
    assert theirs.stdout.splitlines()[1] == "['schlecht' 'très bien' '日本 😀']"


def best(scorer, texts):
    """Return what a pipeline would."""
    rows = scorer.predict_proba(texts)
    return [{"label": scorer.labels[row.argmax()], "score": float(row.max())} for row in rows]


def assert_same(answers, expected):
    assert len(answers) == len(expected)
    for one, other in zip(answers, expected, strict=True):
        assert one == {"label": other["label"], "score": pytest.approx(other["score"], **FLOAT32)}


def test_the_command_line_scores_a_line_a_text(exported, expected, tmp_path):
    texts = ["dreadful music", "", "日本 😀", "slow"]
    command = [sys.executable, "-I", "onnx_scorer.py"]
    text = "".join(text + "\n" for text in texts)
    run = subprocess.run([*command, "."], cwd=exported, input=text.encode("utf-8-sig"), capture_output=True)
    assert_same([json.loads(line) for line in run.stdout.decode().splitlines()], expected(texts))
    assert "日本".encode() in run.stdout or all(answer["label"] != "日本 😀" for answer in expected(texts))

    (tmp_path / "texts.txt").write_text(text * 500)
    seen = f"{shlex.join(command)} . < {tmp_path / 'texts.txt'} | head -1"
    run = subprocess.run(["bash", "-c", seen], cwd=exported, capture_output=True)
    assert (run.stdout.count(b"\n"), run.stderr) == (1, b"")

    for arguments, given, message in (
        ([], b"", "Usage: python onnx_scorer.py FOLDER < texts > scores\n"),
        (
            ["elsewhere"],
            b"",
            "Error: elsewhere/config.json is missing: give a folder that `roberta-gru export` wrote.\n",
        ),
        (["."], b"\xff\n", "Error: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte\n"),
    ):
        run = subprocess.run([*command, *arguments], cwd=exported, input=given, capture_output=True)
        assert (run.returncode, run.stdout, run.stderr.decode()) == (1, b"", message)


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 10**6])
def test_scores_stand_in_the_order_of_the_texts_whatever_the_batches(
    tokens_per_batch, exported, scorer_module, expected
):
    scorer = scorer_module.OnnxScorer(exported, tokens_per_batch, num_threads=1)
    texts = [" ".join(["slow", "music", "liked"][: number % 3 + 1] * number) for number in (3, 20, 1, 12, 0, 30, 13)]
    shapes = []

    class Session:
        def run(self, names, inputs):
            shapes.append(inputs["input_ids"].shape)
            return graph.run(names, inputs)

    graph, scorer.session = scorer.session, Session()
    assert_same(best(scorer, texts), expected(texts))
    assert sum(rows for rows, _ in shapes) == len(texts)
    assert all(rows * width <= tokens_per_batch or rows == 1 for rows, width in shapes)
    assert (len(shapes) == len(texts)) == (tokens_per_batch == 1)
    assert (len(shapes) == 1) == (tokens_per_batch == 10**6)


PROBLEMS = [
    ("single_label_classification", 3),
    ("multi_label_classification", 3),
    ("regression", 1),
    (None, 1),
    (None, 4),
]


@pytest.fixture(scope="module", params=PROBLEMS, ids=str)
def pair(request, tmp_path_factory, stand_in):
    """Return a classifier of each kind, and the scorer of its export."""
    problem, num_labels = request.param
    folder = tmp_path_factory.mktemp("pair")
    saved = save(folder / "saved", stand_in, problem_type=problem, num_labels=num_labels)
    export(str(saved), folder / "onnx")
    return saved, load_scorer(folder / "onnx").OnnxScorer(folder / "onnx", num_threads=1)


def test_every_problem_is_scored_as_the_pipeline_scores_it(pair):
    saved, scorer = pair
    classify = pipeline("text-classification", str(saved), device="cpu")
    for row, entries in zip(scorer.predict_proba(TEXTS), classify(TEXTS, top_k=None), strict=True):
        scores = {entry["label"]: entry["score"] for entry in entries}
        assert dict(zip(scorer.labels, row, strict=True)) == pytest.approx(scores, **FLOAT32)


def test_probabilities_of_far_logits_are_finite(scorer, monkeypatch):
    far = np.array([[1000.0, 0.0, -1000.0]], dtype=np.float32)
    monkeypatch.setattr(scorer, "logits", lambda texts: far)
    assert scorer.predict_proba([""]).tolist() == [[1.0, 0.0, 0.0]]
    monkeypatch.setattr(scorer, "problem_type", "multi_label_classification")
    assert scorer.predict_proba([""]).tolist() == [[1.0, 0.5, 0.0]]


def test_token_ids_are_those_of_transformers(scorer, saved):
    tokenizer = AutoTokenizer.from_pretrained(saved)
    texts = [*TEXTS, *exporting.TEXTS, "\x00\x7f", "a\r\nb", "e\u0301" * 700]
    encodings = scorer.tokenizer.encode_batch_fast(texts)
    assert [encoding.ids for encoding in encodings] == tokenizer(texts)["input_ids"]


def test_no_texts_have_no_scores(scorer):
    assert scorer.predict([]).tolist() == []
    assert scorer.predict_proba([]).shape == (0, 3)


def test_a_text_without_tokens_is_named(scorer, monkeypatch):
    def encode(texts):
        return [SimpleNamespace(ids=[0] * len(text.split())) for text in texts]

    monkeypatch.setattr(scorer, "tokenizer", SimpleNamespace(encode_batch_fast=encode))
    with pytest.raises(ValueError, match=r"^texts\[1\] has no word in it"):
        scorer.predict(["a splendid plot", ""])


def test_both_scorers_answer_in_the_same_names_and_types(pair):
    saved, without = pair
    with_torch = Scorer(str(saved), dtype="float32", device="cpu")
    if AutoConfig.from_pretrained(saved).problem_type is None:
        pytest.skip("without a problem type, the pipeline's rules and ours differ")
    assert (without.labels, without.problem_type) == (with_torch.labels, with_torch.problem_type)
    assert without.classes_.tolist() == with_torch.classes_.tolist()
    for make in (lambda: TEXTS, lambda: iter(TEXTS), lambda: np.array(TEXTS), lambda: TEXTS[0], list):
        for method in ("predict", "predict_proba", "logits"):
            one, other = getattr(without, method)(make()), getattr(with_torch, method)(make())
            assert type(one).__name__ == type(other).__name__
            if isinstance(one, np.ndarray):
                assert (one.shape, one.dtype) == (other.shape, other.dtype)
                same = one.tolist() == other.tolist() if one.dtype.kind == "U" else np.allclose(one, other, atol=1e-4)
                assert same
    for scorer in (without, with_torch):
        with pytest.raises(ValueError, match=r"^texts\[1\] is None, not text: leave it out\.$"):
            scorer.predict(["slow", None])
        with pytest.raises(ValueError, match=r"^texts is None, neither a text nor a list of texts\.$"):
            scorer.predict(None)
        with pytest.raises(ValueError, match=r"^texts\[0\] holds half a character"):
            scorer.predict_proba("a\ud800")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.onnx"])
def test_a_file_that_is_missing_or_broken_is_named(name, exported, scorer_module, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copy")
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=rf"{name} cannot be read: .* Export the model again\.$"):
        scorer_module.OnnxScorer(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is missing: give a folder that `roberta-gru export` wrote\.$"):
        scorer_module.OnnxScorer(folder)


@pytest.mark.parametrize("options", [{"tokens_per_batch": 0}, {"tokens_per_batch": 1.5}, {"num_threads": -1}])
def test_numbers_out_of_range_are_named(options, exported, scorer_module):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"^`{name}` is {value}; it must be a whole number of at least"):
        scorer_module.OnnxScorer(exported, **options)


def test_an_export_holds_its_files_and_figures(saved, exported):
    files = {path.name for path in exported.iterdir()}
    assert files == {"model.onnx", "tokenizer.json", "config.json", "onnx_scorer.py", "README.md", "export.json"}
    figures = json.loads((exported / "export.json").read_text())
    assert figures["quantize"] is None
    assert set(figures["versions"]) == {"torch", "transformers", "onnx", "onnxruntime"}
    parity = figures["parity"]
    assert [row["tokens"] for row in parity["alone"]] == [1, 17, W, W + 1, 49]
    assert max(parity["batch"], *(row["difference"] for row in parity["alone"])) < 1e-5
    assert f"      49 tokens  {parity['alone'][-1]['difference']:.1e}" in report(figures)


def test_an_int8_export_is_scored_close_to_float32_and_replaces_the_one_before(
    saved, exported, expected, scorer_module, tmp_path
):
    folder = shutil.copytree(exported, tmp_path / "onnx")
    figures = export(str(saved), folder, quantize="int8")
    assert json.loads((folder / "export.json").read_text()) == figures
    assert figures["quantize"] == "int8"
    assert 1e-6 < figures["parity"]["batch"] < figures["parity"]["tolerance"]
    assert left(tmp_path) == ["onnx"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in exported.iterdir()}
    probabilities = scorer_module.OnnxScorer(folder, num_threads=1).predict_proba(TEXTS)
    exact = scorer_module.OnnxScorer(exported, num_threads=1).predict_proba(TEXTS)
    assert 0 < abs(probabilities - exact).max() < 0.1


@pytest.mark.parametrize(("amount", "name"), [(0.01, "onnx"), (float("nan"), "new")])
def test_a_graph_that_is_not_the_model_is_not_left_behind(amount, name, saved, exported, tmp_path, monkeypatch):
    def write_another(model, path):
        with torch.no_grad():
            model.head.out_proj.bias[0] += amount
        write_graph(model, path)

    monkeypatch.setattr(exporting, "write_graph", write_another)
    folder = shutil.copytree(exported, tmp_path / "onnx")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=r"^The graph differs from the model by .*; nothing was written\. "):
        export(str(saved), tmp_path / name)
    assert left(tmp_path) == ["onnx"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_is_no_export_is_left_alone(saved, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("one")
    for folder in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.txt"):
        with refused(field="output_dir", file=str(folder), match="is not an export"):
            export(str(saved), folder)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "one"


@pytest.mark.parametrize("folder", [".", "..", "../here"])
def test_the_folder_that_one_is_in_is_not_replaced(folder, saved, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / exporting.FIGURES).touch()  # or `..` would be refused as no export
    monkeypatch.chdir(tmp_path / "here")
    with refused(field="output_dir", file=folder, match="the folder you are in"):
        export(str(saved), Path(folder))
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_place_that_cannot_be_written_is_said_and_nothing_is_left(code, saved, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(exporting, "write_graph", fail)
    with pytest.raises(InputError, match=f"onnx cannot be written: {os.strerror(code)}"):
        export(str(saved), tmp_path / "onnx")
    assert left(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--output-dir .* cannot be used: .*file is not a folder"):
        export(str(saved), tmp_path / "file" / "onnx")


def test_misspelt_formats_are_named(saved, tmp_path):
    with pytest.raises(InputError, match=r"^Unknown format in --to 'onx'\. Did you mean 'onnx'\?"):
        export(str(saved), tmp_path / "onnx", to="onx")
    with pytest.raises(InputError, match=r"^Unknown kind in --quantize 'int4'\. "):
        export(str(saved), tmp_path / "onnx", quantize="int4")


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_a_missing_library_is_named_with_the_way_out(library, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == library else "there")
    with pytest.raises(InputError, match=rf"^{library} is not installed, .*: pip install 'roberta-gru\[onnx\]'$"):
        export(str(saved), tmp_path / "onnx")


def test_other_architectures_are_refused(tmp_path):
    tokenizer = train_word_tokenizer(["the plot was slow"])
    config = RecurrentConfig(vocab_size=len(tokenizer), embedding_size=5, hidden_size=4, num_labels=3)
    for part in (RecurrentForSequenceClassification(config), tokenizer):
        part.save_pretrained(tmp_path / "saved")
    with refused(file=str(tmp_path / "saved"), match="is a recurrent"):
        export(str(tmp_path / "saved"), tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_tokenizer_that_runs_in_transformers_only_is_refused(saved, tmp_path, monkeypatch):
    model, tokenizer = exporting.load_classifier(str(saved))
    monkeypatch.setattr(exporting, "load_classifier", lambda name: (model, tokenizer))
    with monkeypatch.context() as slow:
        slow.setattr(type(tokenizer), "is_fast", False)
        with refused(file=str(saved), match="save a fast tokenizer"):
            export(str(saved), tmp_path / "onnx")
    tokenizer.split_special_tokens = True  # an option that tokenizer.json does not hold
    with refused(file=str(saved), match="tokenizes '<s> "):
        export(str(saved), tmp_path / "onnx")
    assert left(tmp_path) == []
