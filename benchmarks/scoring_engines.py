"""The systems that benchmarks/scoring.py times: what people use today, and ours.

Each is built from the same saved classifier (ours has a GRU upon its encoder) and is a function from texts to
probabilities. transformers' pipelines and ours read the texts; the other peers are given token ids.
"""

import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

NUM_LABELS = 2


class Workload(NamedTuple):
    """Texts to score."""

    title: str
    texts: list[str]
    ids: list[list[int]]
    is_peers: bool = True  # whether the peers can score them, too


class Batching(NamedTuple):
    """How a list of texts is cut into batches."""

    size: int
    is_sorted: bool = True
    at_once: int = 1  # batches computed at the same time, which share the cores

    def __str__(self) -> str:
        size = "one by one" if self.size == 1 else f"{self.size}, {'by length' if self.is_sorted else 'as they come'}"
        return size if self.at_once == 1 else f"{size}; {self.at_once} at once"


class Material(NamedTuple):
    """What systems are built from."""

    folder: Path  # holds the classifiers `stock` and `ours`, each with the tokenizer
    geometry: dict[str, Any]
    calibration: list[list[int]]  # token ids of other texts
    num_threads: int


Score = Callable[[Workload, Batching], np.ndarray]
"""From texts to probabilities, of shape `(n, C)`, in the texts' order."""

ALONE = Batching(1, is_sorted=False)
BATCHINGS = {
    "reviews": (ALONE, Batching(4), Batching(8)),
    "tweets": (ALONE, Batching(16), Batching(64)),
}
AS_THEY_COME = Batching(8, is_sorted=False)
Chosen = dict[tuple[str, str], Batching]
"""By system and workload."""
Scores = dict[tuple[str, int], Score]
"""By system, and by how many batches it computes at once."""


class System(NamedTuple):
    """One way to score texts."""

    name: str
    dtype: str  # of the ceiling that it is held against
    build: Callable[[Material, str, int], Score]
    packages: tuple[str, ...] = ()
    batches: str = "any"  # "alone": one by one only; "several": never one by one; "own": by its own choice
    is_ours: bool = False


def is_installed(system: System) -> bool:
    """Tell whether a system's packages are installed, and say which are not."""
    missing = [package for package in system.packages if find_spec(package) is None]
    if missing:
        print(f"{system.name} is left out: {', '.join(missing)} is not installed.", file=sys.stderr)
    return not missing


def batches(lengths: Sequence[int], batching: Batching) -> list[list[int]]:
    """Return the rows of every batch; sorted, the longest texts come first."""
    rows = list(range(len(lengths)))
    if batching.is_sorted:
        rows.sort(key=lengths.__getitem__, reverse=True)
    return [rows[start : start + batching.size] for start in range(0, len(rows), batching.size)]


def pad(ids: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Return `input_ids` and `attention_mask` of a batch, int64 of shape `(B, T)`; padding is 1, on the right."""
    width = max(map(len, ids))
    return {
        "input_ids": np.array([[*row, *[1] * (width - len(row))] for row in ids], dtype=np.int64),
        "attention_mask": np.array([[1] * len(row) + [0] * (width - len(row)) for row in ids], dtype=np.int64),
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities; `logits` of shape `(n, C)`."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def over_batches(forward: Callable[[list[list[int]]], np.ndarray], num_workers: int) -> Score:
    """Make a system of a function from the token ids of a batch to its logits, called by several threads at once."""
    workers = ThreadPoolExecutor(num_workers)

    def score(workload: Workload, batching: Batching) -> np.ndarray:
        logits = np.empty((len(workload.ids), NUM_LABELS), dtype=np.float32)
        arranged = batches([len(ids) for ids in workload.ids], batching)
        computed = workers.map(lambda rows: forward([workload.ids[row] for row in rows]), arranged)
        for rows, of_batch in zip(arranged, computed, strict=True):
            logits[rows] = of_batch
        return softmax(logits)

    return score


def stock_pipeline(material: Material, dtype: str, at_once: int) -> Score:
    """Build transformers' pipeline; in int8, by torch's dynamic quantisation of the linear layers."""
    from transformers import pipeline

    loaded_as = "float32" if dtype == "int8" else dtype
    classify = pipeline("text-classification", str(material.folder / "stock"), dtype=loaded_as, device="cpu")
    if dtype == "int8":
        with warnings.catch_warnings():  # torch.ao.quantization is on its way out, and says so
            warnings.simplefilter("ignore", DeprecationWarning)
            classify.model = torch.ao.quantization.quantize_dynamic(classify.model, {nn.Linear}, dtype=torch.qint8)

    def score(workload: Workload, batching: Batching) -> np.ndarray:
        probabilities = np.empty((len(workload.texts), NUM_LABELS), dtype=np.float32)
        rows = [row for batch in batches([len(ids) for ids in workload.ids], batching) for row in batch]
        answers = classify([workload.texts[row] for row in rows], batch_size=batching.size, top_k=None)
        for row, answer in zip(rows, answers, strict=True):
            probabilities[row] = [label["score"] for label in sorted(answer, key=lambda label: label["label"])]
        return probabilities

    return score


class Logits(nn.Module):
    """The stock classifier as engines take it: ids and mask in, logits out."""

    def __init__(self, folder: Path, attention: str) -> None:
        super().__init__()
        from transformers import RobertaForSequenceClassification

        model = RobertaForSequenceClassification.from_pretrained(folder / "stock", attn_implementation=attention)
        self.model = model.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids, attention_mask=attention_mask).logits


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask to trace with; without padding among them, the mask would be traced away."""
    padded = pad([[0, *[5] * 14, 2], [0, *[5] * 6, 2]])
    return torch.from_numpy(padded["input_ids"]), torch.from_numpy(padded["attention_mask"])


def onnx_file(material: Material) -> Path:
    """Export the stock classifier once and fuse its operators; return the path."""
    from onnxruntime.transformers import optimizer

    path = material.folder / "fused.onnx"
    if path.exists():
        return path
    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    exported = str(material.folder / "exported.onnx")
    torch.onnx.export(
        Logits(material.folder, "eager"),  # the only attention that the optimiser knows how to fuse
        example(),
        exported,
        dynamo=False,
        input_names=list(axes),
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=18,
    )
    heads, width = material.geometry["num_attention_heads"], material.geometry["hidden_size"]
    fused = optimizer.optimize_model(exported, model_type="bert", num_heads=heads, hidden_size=width, opt_level=0)
    fused.save_model_to_file(str(path))
    return path


def onnx_runtime(material: Material, dtype: str, at_once: int) -> Score:
    """Build ONNX Runtime; in int8, by dynamic quantisation with a scale for every output channel."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with warnings.catch_warnings():  # the exporter that traces is on its way out; the other one needs more packages
        warnings.simplefilter("ignore")
        path = onnx_file(material)
        if dtype == "int8":
            source, path = path, material.folder / "int8.onnx"
            extra = {"DefaultTensorType": 1}  # float: fused operators are unknown to onnx's shape inference
            if not path.exists():
                quantize_dynamic(source, path, weight_type=QuantType.QInt8, per_channel=True, extra_options=extra)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, material.num_threads // at_once)
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or its threads take time from the next
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return over_batches(lambda ids: session.run(["logits"], pad(ids))[0], at_once)


def openvino_file(material: Material, kind: str = "float32") -> Path:
    """Convert the stock classifier once, to float32, int8 or static int8 weights; return the path."""
    import openvino

    path = material.folder / f"{kind}.xml"
    if path.exists():
        return path
    if kind == "float32":
        with warnings.catch_warnings():  # of the tracer
            warnings.simplefilter("ignore")
            model = openvino.convert_model(Logits(material.folder, "sdpa"), example_input=example())
    else:
        import nncf

        nncf.set_log_level("ERROR")
        model = openvino.Core().read_model(openvino_file(material))
        if kind == "int8":
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        else:
            texts = nncf.Dataset([tuple(pad([ids]).values()) for ids in material.calibration])
            options = {"model_type": nncf.ModelType.TRANSFORMER, "subset_size": len(material.calibration)}
            model = nncf.quantize(model, texts, **options)
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def openvino_compiled(path: Path, material: Material, at_once: int, precision: str, **options: Any) -> Score:
    """Compile a model for OpenVINO."""
    import openvino

    options |= {"INFERENCE_NUM_THREADS": material.num_threads, "NUM_STREAMS": at_once}
    compiled = openvino.Core().compile_model(path, "CPU", {**options, "INFERENCE_PRECISION_HINT": precision})
    of_thread = threading.local()

    def forward(ids: list[list[int]]) -> np.ndarray:
        if not hasattr(of_thread, "request"):
            of_thread.request = compiled.create_infer_request()
        return of_thread.request.infer(tuple(pad(ids).values()))[0]

    return over_batches(forward, at_once)


def openvino_engine(material: Material, dtype: str, at_once: int) -> Score:
    """Build OpenVINO; in int8, weights are stored so and activations scaled token by token, the rest is bfloat16."""
    if dtype != "int8":
        precision = "f32" if dtype == "float32" else "bf16"
        return openvino_compiled(openvino_file(material), material, at_once, precision)
    group = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": material.geometry["hidden_size"]}
    return openvino_compiled(openvino_file(material, "int8"), material, at_once, "bf16", **group)


def openvino_static(material: Material, dtype: str, at_once: int) -> Score:
    """Build OpenVINO with scales that were fixed beforehand, on other texts."""
    return openvino_compiled(openvino_file(material, "static"), material, at_once, "bf16")


def ctranslate2_engine(material: Material, dtype: str, at_once: int) -> Score:
    """Build CTranslate2, which takes the encoder; the head is computed here."""
    import ctranslate2
    from transformers import AutoTokenizer, RobertaForSequenceClassification

    source, path = material.folder / "encoder", material.folder / "ctranslate2"
    model = RobertaForSequenceClassification.from_pretrained(material.folder / "stock")
    head = {name: parameter.detach().numpy() for name, parameter in model.classifier.named_parameters()}
    if not path.exists():
        model.config.position_embedding_type = "absolute"  # its converter asks; transformers 5 no longer says
        model.roberta.save_pretrained(source)
        AutoTokenizer.from_pretrained(material.folder / "stock").save_pretrained(source)
        ctranslate2.converters.TransformersConverter(str(source)).convert(str(path), quantization=dtype)
    threads = {"inter_threads": at_once, "intra_threads": max(1, material.num_threads // at_once)}
    encoder = ctranslate2.Encoder(str(path), device="cpu", compute_type=dtype, **threads)

    def forward(ids: list[list[int]]) -> np.ndarray:
        first = np.asarray(encoder.forward_batch(ids).last_hidden_state)[:, 0]
        hidden = np.tanh(first @ head["dense.weight"].T + head["dense.bias"])
        return hidden @ head["out_proj.weight"].T + head["out_proj.bias"]

    return over_batches(forward, at_once)


def ours(material: Material, dtype: str, at_once: int) -> Score:
    """Build this package's scorer; it makes its own batches."""
    from modeling_roberta_gru.inference.scorer import Scorer

    scorer = Scorer(str(material.folder / "ours"), dtype=dtype)
    return lambda workload, _: scorer.predict_proba(workload.texts)


SYSTEMS = {
    "stock": System("transformers pipeline", "float32", stock_pipeline, batches="alone"),
    "stock-batches": System("transformers pipeline, batches", "float32", stock_pipeline, batches="several"),
    "stock-bfloat16": System("transformers pipeline, bfloat16", "bfloat16", stock_pipeline),
    # Its scales depend on the whole batch: with neighbours a row would get another result.
    "torch-int8": System("torch, dynamic int8", "int8", stock_pipeline, batches="alone"),
    "onnx": System("ONNX Runtime, float32", "float32", onnx_runtime, ("onnxruntime", "onnx")),
    "onnx-int8": System("ONNX Runtime, dynamic int8", "int8", onnx_runtime, ("onnxruntime", "onnx")),
    "openvino": System("OpenVINO, float32", "float32", openvino_engine, ("openvino",)),
    "openvino-bfloat16": System("OpenVINO, bfloat16", "bfloat16", openvino_engine, ("openvino",)),
    "openvino-int8": System("OpenVINO, int8", "int8", openvino_engine, ("openvino", "nncf")),
    "openvino-static": System("OpenVINO, static int8", "int8", openvino_static, ("openvino", "nncf")),
    "ctranslate2-int8": System("CTranslate2, int8", "int8", ctranslate2_engine, ("ctranslate2",)),
    "ours": System("RoBERTa-GRU, float32", "float32", ours, batches="own", is_ours=True),
    "ours-bfloat16": System("RoBERTa-GRU, bfloat16", "bfloat16", ours, batches="own", is_ours=True),
    "ours-int8": System("RoBERTa-GRU, int8", "int8", ours, batches="own", is_ours=True),
}
