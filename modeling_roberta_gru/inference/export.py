"""Write a trained RoBERTa-GRU as one ONNX graph, beside the file that runs it without torch.

The graph takes documents of any length, padded on the right, and gives calibrated logits. It cuts long documents into
windows as the model does. It reads all windows of a batch at once, though, where the model reads a few at a time: at
roberta-base's size, a document of 65,536 tokens takes a few GB of memory.

int8 is a matter of the graph too: the encoder's linear layers multiply whole numbers, every token's states scaled by
that token's own range, every output of a layer by its largest weight. No token shares a scale with another, so that a
document's logits do not depend on its neighbours. (ONNX Runtime's own dynamic quantisation has one scale a batch, and
its `MatMulNBits` computes slower.)
"""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_roberta_gru import RobertaGRUConfig
from ..data.labels import MULTI_LABEL, SINGLE_LABEL
from ..errors import InputError, unknown_name
from ..files import alone, carried, check_writable, replacing, write_json, write_text, writing_to
from ..training.loading import load_classifier
from .reading import to_scores

FORMATS = ("onnx",)
QUANTIZATIONS = ("int8",)
GRAPH, SCORER, FIGURES = "model.onnx", "onnx_scorer.py", "export.json"
INPUTS = ("input_ids", "attention_mask")

OPSET = 20
"""The newest that torch's exporter by tracing writes; ONNX Runtime reads it from 1.17 on."""

CONFIG_FIELDS = ("model_type", "problem_type", "id2label")
"""What the scorer reads; the whole configuration would make others look for the model's code in the folder."""

TOLERANCES = {None: 1e-4, "int8": 0.1}
"""How far a probability, or a value of a regression over the largest, may lie from the model's: in float32 by the
order of the sums, in int8 by rounding. It is measured on tokens drawn at random, not on texts."""

LARGEST_STATE = 255
LARGEST_WEIGHT = 64
"""7 bits: where a processor lacks VNNI, products of 8 by 8 bits are added in pairs in 16 bits, and would overflow."""

TEXTS = (
    "",
    " ",
    "Two  spaces,\nlines\tand\u00a0more… ",
    "Ünïcödé 日本語 😀 e\u0301",
    "<s> </s> <mask> [CLS] [SEP] <pad> <unk>",
)
"""What tokenizers differ on if they differ at all."""

README = """\
# {name}, as ONNX

Scores texts of any length without torch. `pip install numpy onnxruntime tokenizers`, and in this folder:

```python
from onnx_scorer import OnnxScorer

texts = ["The plot was slow, but we liked the music.", "A splendid evening."]
scorer = OnnxScorer(".")
print(scorer.predict(texts))
print(scorer.classes_)
print(scorer.predict_proba(texts))
```

On the command line, a text a line: `python onnx_scorer.py . < texts.txt > scores.jsonl`

`model.onnx` takes `input_ids` and `attention_mask`, int64 `(B, T)` and padded on the right, and gives calibrated
`logits`, float32 `(B, C)`. `export.json` says how far it lies from the model in PyTorch.
"""


class Graph(nn.Module):
    """The classifier with its windows as tensor operations, so that a trace holds for documents of any length.

    What [`~..modeling_roberta_gru.Windows`] plans on the CPU from the lengths, this computes in the graph; a batch of
    documents of up to W tokens is one window each.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model
        self.eval()  # else the exporter would put it back to training afterwards, and the model with it

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Score documents `(B, T)` int64, padded on the right: logits `(B, C)`."""
        model, size, stride = self.model, self.model.config.encoder_window, self.model.config.window_stride
        lengths = (attention_mask == 1).sum(dim=1)  # (B,)
        longest: Any = lengths.max()  # sizes are tensors, for the trace to see where they come from
        width = longest.clamp(max=size)
        last_start = (lengths - size).clamp(min=0)
        counts = _divide(last_start + stride - 1, stride) + 1
        most: Any = counts.max()
        # N windows, one row of the batch after another.
        rows, index = (torch.arange(most) < counts[:, None]).nonzero(as_tuple=True)
        last_start = _take(last_start, rows)  # (N,)
        starts = torch.minimum(index * stride, last_start)
        starts_before = torch.minimum((index - 1) * stride, last_start)
        states = self._encode(input_ids, rows, starts, lengths, width)  # (N, W, D)

        # A token lies farthest from an edge where it lies nearest to the middle; between two, the earlier window.
        first_kept = (_divide(starts_before + starts + size - 3, 2) + 2).where(index > 0, 0)
        begins = torch.zeros(lengths.shape[0] * longest, dtype=torch.long)
        begins = begins.scatter(0, rows * longest + first_kept, torch.ones_like(rows))
        window = begins.cumsum(dim=0).reshape(lengths.shape[0], -1) - 1  # (B, T) among the N
        tokens = torch.arange(longest)
        column = torch.minimum(tokens - _take(starts, window), width - 1)
        states = _take(states.flatten(0, 1), window * width + column, model.config.hidden_size)  # (B, T, D)

        states = model.gru(states, lengths)[0]
        first, ends = torch.zeros_like(lengths), torch.ones_like(lengths, dtype=torch.bool)
        summary = model.summary(states, tokens < lengths[:, None], first, ends)
        return model._calibrate(model.head(summary.value))

    def _encode(
        self,
        input_ids: torch.Tensor,
        rows: torch.Tensor,
        starts: torch.Tensor,
        lengths: torch.Tensor,
        width: Any,
    ) -> torch.Tensor:
        """Encode windows, each between its document's first and last token: (N, W, D), or as wide as the longest."""
        size, padding_idx = self.model.config.encoder_window, self.model.config.pad_token_id
        columns = torch.arange(width)
        last = _take(lengths, rows)[:, None] - 1
        last_column = last.clamp(max=size - 1)
        positions = (starts[:, None] + columns).where(columns > 0, 0)
        positions = positions.where(columns < last_column, last)
        mask = columns <= last_column  # (N, W)
        tokens = _take(input_ids.flatten(), rows[:, None] * input_ids.shape[1] + positions)
        encoded = self.model.roberta(
            input_ids=tokens.masked_fill(~mask, padding_idx),
            attention_mask=mask.long(),
            token_type_ids=torch.zeros_like(tokens),
            position_ids=mask.long().cumsum(dim=1) * mask + padding_idx,
            return_dict=True,
        )
        return encoded.last_hidden_state


def export(name: str, folder: Path, to: str = "onnx", quantize: str | None = None) -> dict[str, Any]:
    """Write a model's graph, tokenizer and labels, and the file that runs them, into a folder of their own.

    Args:
        name: a run's folder, a saved model's folder or a Hub id.
        folder: made, whole or not at all; an export that is there is replaced.
        to: the format: "onnx".
        quantize: "int8", or None for float32.

    Returns:
        What `export.json` says: the model, versions, and how far the graph's probabilities lie from the model's.

    Raises:
        InputError: if onnx is not installed, the model is not a RoBERTa-GRU, its tokenizer has no `tokenizer.json`,
            the folder holds something else, or the graph does not give what the model gives.
    """
    _check_request(folder, to, quantize)
    with alone(folder):
        return _export(name, folder, to, quantize)


def _export(name: str, folder: Path, to: str, quantize: str | None) -> dict[str, Any]:
    model, tokenizer = load_classifier(name)
    if model.config.model_type != RobertaGRUConfig.model_type:
        raise InputError(f"{name} is a {model.config.model_type}: only a RoBERTa-GRU can be exported.", file=name)
    model = model.float()
    with writing_to(folder), replacing(folder) as unfinished:
        unfinished.mkdir()
        _write_tokenizer(tokenizer, unfinished / "tokenizer.json", name)
        documents = parity_documents(model.config)
        expected = [_run_model(model, [document]) for document in documents]
        _write_model(model, unfinished / GRAPH, quantize)
        figures = {
            "model": name,
            "format": to,
            "quantize": quantize,
            "versions": {library: version(library) for library in ("torch", "transformers", "onnx", "onnxruntime")},
            "bytes": sum(path.stat().st_size for path in unfinished.iterdir()),
            "parity": _measure_parity(unfinished / GRAPH, model.config, documents, expected, quantize),
        }
        config = model.config.to_dict()
        write_json(unfinished / "config.json", {field: config[field] for field in CONFIG_FIELDS})
        write_json(unfinished / FIGURES, figures)
        write_text(unfinished / "README.md", README.format(name=Path(name).name))
        shutil.copy(carried(f"model_card/{SCORER}"), unfinished)
    return figures


def report(figures: dict[str, Any]) -> str:
    """Write the figures of [`export`] as text."""
    parity = figures["parity"]
    kind = "int8" if figures["quantize"] else "float32"
    lines = [f"{figures['model']} as ONNX in {kind}, {figures['bytes'] / 1e6:,.1f} MB"]
    lines += [f"Largest difference from the model in PyTorch, of {parity['tolerance']:g} allowed:"]
    lines += [f"  {row['tokens']:>6,} tokens  {row['difference']:.1e}" for row in parity["alone"]]
    lines += [f"  all of these in one batch  {parity['batch']:.1e}"]
    return "\n".join(lines)


def write_graph(model: PreTrainedModel, path: Path) -> None:
    """Trace a classifier in float32 to an ONNX file with free batch size and length.

    Weights of more than 2 GB stand in files of their own beside it.
    """
    model.set_attn_implementation("eager")  # the one whose trace has no branches
    example = torch.full((2, model.config.encoder_window + 1), model.config.pad_token_id)
    mask = torch.ones_like(example)
    mask[1, 2:] = 0
    free = {name: {0: "batch", 1: "tokens"} for name in INPUTS} | {"logits": {0: "batch"}}
    with _quiet_exporter(), torch.no_grad():
        torch.onnx.export(
            Graph(model),
            (example, mask),
            str(path),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,  # the other exporter fixes the GRU's number of steps
        )


def quantize_linear_layers(model: Any) -> None:
    """Let the encoder's linear layers in an `onnx.ModelProto` multiply in int8.

    States are scaled by token, weights by output:
    x W ≈ s_x s_w (q_x q_w) + min(x) Σ s_w q_w, where q_x = round((x - min(x)) / s_x) and s_x = (max(x) - min(x)) / 255
    for each token, q_w = round(W / s_w) and s_w = max |W| / 64 for each output.
    """
    import onnx
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array, to_array

    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constants = {
        "int8_one": np.float32(1),
        "int8_largest": np.float32(LARGEST_STATE),
        "int8_step": np.float32(1 / LARGEST_STATE),
        "int8_least": np.float32(1e-20),  # a token of one value throughout must not divide by zero
        "int8_last_axis": np.array([-1]),
        "int8_state_zero": np.uint8(0),
        "int8_weight_zero": np.int8(0),
    }
    nodes, quantized = [], set()
    for node in graph.node:
        is_of_encoder = node.op_type == "MatMul" and node.name.startswith("/roberta/")  # a summary's query stays exact
        if not is_of_encoder or node.input[1] not in weights or len(weights[node.input[1]].dims) != 2:
            nodes.append(node)
            continue
        (states, weight), (output,) = node.input, node.output
        if states not in quantized:  # once for queries, keys and values
            quantized.add(states)
            nodes += [
                make_node("ReduceMax", [states, "int8_last_axis"], [f"{states}_max"]),
                make_node("ReduceMin", [states, "int8_last_axis"], [f"{states}_min"]),
                make_node("Sub", [f"{states}_max", f"{states}_min"], [f"{states}_range"]),
                make_node("Max", [f"{states}_range", "int8_least"], [f"{states}_divisor"]),
                make_node("Mul", [f"{states}_divisor", "int8_step"], [f"{states}_scale"]),
                make_node("Div", ["int8_largest", f"{states}_divisor"], [f"{states}_inverse"]),
                make_node("Sub", [states, f"{states}_min"], [f"{states}_shifted"]),
                make_node("Mul", [f"{states}_shifted", f"{states}_inverse"], [f"{states}_scaled"]),
                make_node("QuantizeLinear", [f"{states}_scaled", "int8_one", "int8_state_zero"], [f"{states}_int8"]),
            ]
        values = to_array(weights[weight])  # (D, outputs)
        scale = np.maximum(np.abs(values).max(axis=0), 1e-20) / LARGEST_WEIGHT
        whole = np.round(values / scale)
        constants[f"{weight}_int8"] = whole.astype(np.int8)
        constants[f"{weight}_scale"] = scale.astype(np.float32)
        constants[f"{weight}_sum"] = (whole * scale).sum(axis=0).astype(np.float32)
        operands = [f"{states}_int8", f"{weight}_int8", "int8_one", f"{weight}_scale"]
        zeros = ["int8_state_zero", "int8_weight_zero"]
        nodes += [
            make_node("MatMulIntegerToFloat", operands + zeros, [f"{output}_unscaled"], domain="com.microsoft"),
            make_node("Mul", [f"{output}_unscaled", f"{states}_scale"], [f"{output}_shifted"]),
            make_node("Mul", [f"{states}_min", f"{weight}_sum"], [f"{output}_shift"]),
            make_node("Add", [f"{output}_shifted", f"{output}_shift"], [output]),
        ]
    read = {name for node in nodes for name in node.input}
    tensors = [from_array(np.asarray(value), name) for name, value in constants.items()]
    tensors += [tensor for tensor in graph.initializer if tensor.name in read]
    for field, values in ((graph.node, nodes), (graph.initializer, tensors)):
        del field[:]
        field.extend(values)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def parity_documents(config: RobertaGRUConfig) -> list[torch.Tensor]:
    """Return token ids, drawn at random, of documents on which the graph is compared with the model."""
    window = config.encoder_window
    generator = torch.Generator().manual_seed(0)
    lengths = sorted({1, min(17, window), window, window + 1, config.window_capacity(3) + 1})
    return [torch.randint(config.vocab_size, (length,), generator=generator) for length in lengths]


def _write_model(model: PreTrainedModel, path: Path, quantize: str | None) -> None:
    if quantize is None:
        write_graph(model, path)
        return
    import onnx

    with tempfile.TemporaryDirectory(dir=path.parent) as whole:
        write_graph(model, Path(whole) / GRAPH)
        proto = onnx.load(Path(whole) / GRAPH)
    quantize_linear_layers(proto)
    onnx.save(proto, path)


def _measure_parity(
    path: Path,
    config: RobertaGRUConfig,
    documents: list[torch.Tensor],
    expected: list[np.ndarray],
    quantize: str | None,
) -> dict[str, Any]:
    """Compare the graph's answers with the model's, document by document and in one batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def difference(batch: list[torch.Tensor], answers: np.ndarray) -> float:
        (logits,) = session.run(["logits"], {name: part.numpy() for name, part in _pad(batch).items()})
        wanted = _scores(answers, config)
        return float(np.abs(_scores(logits, config) - wanted).max() / max(1.0, np.abs(wanted).max()))

    alone = [difference([document], answer) for document, answer in zip(documents, expected, strict=True)]
    batch = difference(documents, np.concatenate(expected))
    largest, tolerance = float(np.max([*alone, batch])), TOLERANCES[quantize]
    if not largest <= tolerance:  # NaN is refused too
        way_out = "Please report it" if quantize is None else "Export without --quantize"
        raise InputError(
            f"The graph differs from the model by {largest:.2g}, where {tolerance:g} is allowed; nothing was written. "
            f"{way_out}.",
            field=None if quantize is None else "quantize",
        )
    rows = [{"tokens": len(document), "difference": value} for document, value in zip(documents, alone, strict=True)]
    return {"tolerance": tolerance, "alone": rows, "batch": batch}


def _scores(logits: np.ndarray, config: RobertaGRUConfig) -> np.ndarray:
    """Return what is compared: probabilities, or the values of a regression."""
    problem_type = config.problem_type or SINGLE_LABEL
    if config.num_labels == 1 and problem_type == SINGLE_LABEL:  # whose softmax is 1, whatever the logit
        problem_type = MULTI_LABEL
    return to_scores(logits, problem_type)


@torch.no_grad()
def _run_model(model: PreTrainedModel, documents: list[torch.Tensor]) -> np.ndarray:
    return model(**_pad(documents)).logits.numpy()


def _pad(documents: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    masks = [torch.ones_like(document) for document in documents]
    parts = (pad_sequence(rows, batch_first=True) for rows in (documents, masks))
    return dict(zip(INPUTS, parts, strict=True))


def _write_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path, name: str) -> None:
    """Write the tokenizer, without cuts and padding, and see that it gives the same ids without transformers."""
    if not tokenizer.is_fast:
        raise InputError(
            f"{name} has a {type(tokenizer).__name__}, which runs in transformers only: save a fast tokenizer, with a "
            "tokenizer.json, beside the model.",
            file=name,
        )
    alone = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    alone.no_truncation()
    alone.no_padding()
    for text in TEXTS:
        if alone.encode(text).ids != tokenizer(text, verbose=False)["input_ids"]:
            raise InputError(f"{name} has a tokenizer whose tokenizer.json tokenizes {text!r} differently.", file=name)
    alone.save(str(path))


def _check_request(folder: Path, to: str, quantize: str | None) -> None:
    if to not in FORMATS:
        raise unknown_name("format in --to", to, FORMATS)
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise unknown_name("kind in --quantize", quantize, QUANTIZATIONS)
    for library in ("onnx", "onnxruntime"):
        if find_spec(library) is None:
            raise InputError(f"{library} is not installed, which an export needs: pip install 'roberta-gru[onnx]'")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / FIGURES).is_file()):
        raise InputError(
            f"--output-dir {folder} exists and is not an export: name another folder.",
            field="output_dir",
            file=str(folder),
        )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise InputError(
            f"--output-dir {folder} is the folder you are in, or holds it, and an export replaces its folder whole: "
            f"name one inside, such as {folder / 'onnx'}.",
            field="output_dir",
            file=str(folder),
        )
    check_writable("--output-dir", folder if folder.is_dir() else folder.absolute().parent)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings that do not apply to this model."""
    with warnings.catch_warnings():
        for message, category in (
            # There is a newer one, which fixes the GRU's number of steps.
            ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
            ("The feature will be removed", DeprecationWarning),  # torch's own call inside
            # Checks inside torch's embedding and transformers' mask that hold for any document.
            ("Converting a tensor to a Python boolean", torch.jit.TracerWarning),
            # The 0 of transformers 5.0's mask, which is a constant indeed.
            ("torch.tensor results are registered as constants", torch.jit.TracerWarning),
            # transformers' mask picks rows and columns by a count from 0 on.
            ("Exporting aten::index operator of advanced indexing", UserWarning),
            # The initial state has the batch's size in the graph, not the example's.
            ("Exporting a model to ONNX with a batch_size other than 1, with a variable length with GRU", UserWarning),
        ):
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def _divide(numbers: torch.Tensor, divisor: int) -> torch.Tensor:
    """Divide numbers of at least 0, rounding down."""
    return torch.div(numbers, divisor, rounding_mode="trunc")


def _take(values: torch.Tensor, places: torch.Tensor, *sizes: int) -> torch.Tensor:
    """Pick rows (…) of values (n,), or (n, D) where `sizes` is D; plain indexing is exported as several operations."""
    return values.index_select(0, places.flatten()).reshape(*places.shape, *sizes)
