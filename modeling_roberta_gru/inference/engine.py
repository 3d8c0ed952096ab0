"""What computes a model's scores: torch or OpenVINO, in float32, bfloat16 or int8.

Float32 is torch's, and the definition. On the CPU the encoder in bfloat16 and int8 is OpenVINO's where that is
installed, and so is the GRU, which stays in float32; window cutting, summary and head are torch's. On a GPU all is.

In int8, weights have a scale an output, and what they are multiplied with has scales of its own for every token: no
token's numbers depend on its neighbours' size (torch's dynamic quantisation scales over a whole batch).
"""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ..errors import InputError, first_line, unknown_name
from ..modeling_roberta_gru import RobertaGRUPreTrainedModel, RobertaGRURecurrence
from ..training.loading import quiet

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
DTYPES = (FLOAT32, BFLOAT16, INT8)
AUTO = "auto"

# What a processor must have for a type to be faster than float32, by torch's names for it.
INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")

TOKENS_PER_REQUEST = 256
"""Of short windows encoded together: from here on, more do not make a token cheaper."""
KEPT_KERNELS = 128
"""By each of OpenVINO's streams: fewer take longer, and more are seldom met again."""


class Engine(NamedTuple):
    """A model that is ready to score.

    Attributes:
        model: takes `input_ids` and `attention_mask` on `device`, gives `logits`.
        device: where it computes.
        dtype: "float32", "bfloat16" or "int8".
        description: one line for people.
        num_workers: how many batches are scored at once, on a processor each on one thread.
        tokens_per_batch: tokens that are best read at once.
        survives_fork: whether a forked child can go on scoring with it.
    """

    model: PreTrainedModel
    device: torch.device
    dtype: str
    description: str
    num_workers: int
    tokens_per_batch: int
    survives_fork: bool = False


def prepare(model: PreTrainedModel, dtype: str = AUTO, device: str | None = None) -> Engine:
    """Prepare a model for scoring.

    Args:
        model: a classifier; put into evaluation mode, and else left as it is.
        dtype: "float32", "bfloat16", "int8", or "auto": the fastest that the processor has instructions for and that
            is installed.
        device: "cpu", "cuda", …; unset: a GPU if there is one.

    Raises:
        InputError: if type or device is unknown, or cannot be had here.
    """
    place = _place(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype not in (AUTO, *DTYPES):
        raise unknown_name("--dtype", dtype, (AUTO, *DTYPES))
    with_openvino = place.type == "cpu" and _is_openvino_usable(model)
    if dtype == AUTO:
        dtype = _fastest(place, with_openvino)
    model.eval()
    if dtype == INT8 and not with_openvino:
        raise InputError(f"--dtype int8 {_lacking(model, place)} Or leave --dtype out.", field="dtype")
    stays = place.type == model.device.type == "cpu"
    if with_openvino and dtype != FLOAT32:  # what OpenVINO returns is in float32
        whole = model if stays and model.dtype == torch.float32 else copy.deepcopy(model).to(place, torch.float32)
        encoder = OpenVINOEncoder(whole.roberta, dtype)
        fast = _with_parts(whole, roberta=encoder, gru=OpenVINORecurrence(whole.gru))
        what = f"{dtype}, OpenVINO {version('openvino')}, {_threads(encoder.num_requests)}"
        return Engine(fast, place, dtype, what, encoder.num_requests, tokens_per_batch=2048)
    kind = getattr(torch, dtype)
    fast = model if stays and model.dtype == kind else copy.deepcopy(model).to(place, kind)
    what = f"{dtype}, torch {torch.__version__}"
    if place.type == "cpu":
        # A batch a thread: torch's threads wait for each other after every operation.
        num_threads = torch.get_num_threads()
        return Engine(fast, place, dtype, f"{what}, {_threads(num_threads)}", num_threads, 256, survives_fork=True)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    return Engine(fast, place, dtype, f"{what}, {name}", num_workers=1, tokens_per_batch=65536)


def _place(device: str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {device} is not available: {first_line(error)}.", field="device") from error
    return place


def _fastest(place: torch.device, with_openvino: bool) -> str:
    if place.type == "cuda":
        return BFLOAT16 if torch.cuda.is_bf16_supported(including_emulation=False) else FLOAT32
    if place.type != "cpu":
        return FLOAT32
    # Older releases of torch cannot say what the processor has.
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if with_openvino and any(map(has.get, INT8_INSTRUCTIONS)):
        return INT8
    return BFLOAT16 if any(map(has.get, BFLOAT16_INSTRUCTIONS)) else FLOAT32


def _is_openvino_usable(model: PreTrainedModel) -> bool:
    return isinstance(model, RobertaGRUPreTrainedModel) and find_spec("openvino") is not None


def _lacking(model: PreTrainedModel, place: torch.device) -> str:
    if place.type != "cpu":
        return f"is for processors, not for {place.type}: give --device cpu."
    if not isinstance(model, RobertaGRUPreTrainedModel):
        return f"is for RoBERTa-GRU, and this is a {model.config.model_type}: give --dtype bfloat16."
    return "needs OpenVINO: pip install 'roberta-gru[fast]'."


def _with_parts(model: PreTrainedModel, **parts: nn.Module) -> PreTrainedModel:
    """Return a model with other parts that shares everything else with the given one."""
    other = copy.copy(model)
    other._modules = {**model._modules, **parts}
    return other


class OpenVINOFunction:
    """A module compiled by OpenVINO, for as many calls at once as torch has threads: each has one thread."""

    def __init__(self, module: nn.Module, example: Sequence[torch.Tensor], **settings: str | int):
        """Compile a module.

        Args:
            module: a function of tensors, in float32.
            example: what to call it with; calls may have any sizes.
            settings: OpenVINO's.
        """
        import openvino

        self.num_requests = torch.get_num_threads()
        threads: dict[str, int | bool] = {"NUM_STREAMS": self.num_requests, "INFERENCE_NUM_THREADS": self.num_requests}
        threads["ENABLE_CPU_PINNING"] = False  # or each process takes the first cores, and several share them
        # By default 5,000 of the kernels that each new size asks for are kept, and memory grows for hours. There is no
        # public setting (openvinotoolkit/model_server#4299).
        kept = {"CPU_RUNTIME_CACHE_CAPACITY": KEPT_KERNELS}
        converted = _converted(module, tuple(example))
        try:
            compiled = openvino.Core().compile_model(converted, "CPU", {**threads, **settings, **kept})
        except RuntimeError:  # a release that has no such setting
            compiled = openvino.Core().compile_model(converted, "CPU", {**threads, **settings})
        self.requests: SimpleQueue = SimpleQueue()
        for _ in range(self.num_requests):
            self.requests.put(compiled.create_infer_request())

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        request = self.requests.get()
        try:
            return [torch.from_numpy(output) for output in request.infer([part.numpy() for part in inputs]).values()]
        finally:
            self.requests.put(request)


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number != 1 else ''}"


class OpenVINOEncoder(nn.Module):
    """A RoBERTa encoder compiled by OpenVINO, in the place of [`~transformers.RobertaModel`].

    No padding is computed: short windows of the same length are encoded together, and others by themselves. As many
    such groups at once as there are cores, each on one thread, are faster than batches, and no window can change
    another's states.
    """

    def __init__(self, roberta: PreTrainedModel, dtype: str):
        """Compile an encoder.

        Args:
            roberta: the encoder, in float32 on the CPU.
            dtype: "bfloat16" or "int8"; with int8, all but matrix products with weights computes in bfloat16 where the
                processor can and OpenVINO does it right.
        """
        super().__init__()
        config = roberta.config
        settings: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "bf16" if _has_bfloat16() else "f32"}
        if dtype == INT8:
            # With int8 weights, bfloat16 and several streams, OpenVINO 2026.4 computes nonsense at other widths.
            if math.gcd(config.hidden_size, config.intermediate_size) % 64:
                settings["INFERENCE_PRECISION_HINT"] = "f32"
            # One scale for so many inputs of a token; OpenVINO wants a divisor of every product's width.
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = math.gcd(config.hidden_size, config.intermediate_size)
            roberta = _in_int8(roberta)
        ids = torch.ones(2, 3, dtype=torch.long)
        self.encode = OpenVINOFunction(_UnpaddedEncoder(roberta), (ids, ids), **settings)
        self.hidden_size = config.hidden_size
        self.num_requests = self.encode.num_requests
        self.threads = ThreadPoolExecutor(self.num_requests)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, position_ids: torch.Tensor, **kwargs: Any
    ) -> BaseModelOutput:
        """Encode windows (N, W), as [`~transformers.RobertaModel`] does; states (N, W, D) float32, 0 for padding."""
        is_token = (torch.ones_like(input_ids) if attention_mask is None else attention_mask).bool()
        groups = list(_same_lengths(is_token.sum(dim=1)))
        ids, positions = (
            [part[rows][is_token[rows]].view(len(rows), -1) for rows in groups] for part in (input_ids, position_ids)
        )
        padded = torch.zeros(*input_ids.shape, self.hidden_size)
        for rows, (states,) in zip(groups, self.threads.map(self.encode, ids, positions), strict=True):
            into = torch.zeros_like(is_token)
            into[rows] = is_token[rows]
            padded[into] = states.flatten(0, 1)
        return BaseModelOutput(last_hidden_state=padded)


def _same_lengths(lengths: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the rows of windows of the same length, the longest first, as many as a request should hold."""
    for length in lengths.unique().flip(0).tolist():
        yield from torch.where(lengths == length)[0].split(max(1, TOKENS_PER_REQUEST // max(1, length)))


class OpenVINORecurrence(nn.Module):
    """A GRU compiled by OpenVINO, in the place of [`~.modeling_roberta_gru.RobertaGRURecurrence`].

    In float32: from one token to the next a state may move by less than bfloat16 can tell, and would stand still.
    """

    def __init__(self, recurrence: RobertaGRURecurrence):
        super().__init__()
        first = cast(nn.GRU, recurrence.left_to_right[0])
        self.num_directions = 2 if len(recurrence.right_to_left) else 1
        self.num_layers, self.hidden_size = len(recurrence.left_to_right), first.hidden_size
        states, lengths = torch.zeros(2, 3, first.input_size), torch.ones(2, dtype=torch.long)
        example = states, lengths, *self._carried(2)
        self.read = OpenVINOFunction(_CarryingRecurrence(recurrence), example, INFERENCE_PRECISION_HINT="f32")

    def forward(
        self, states: torch.Tensor, lengths: torch.Tensor, *given: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """Read consecutive tokens, as what this stands for does."""
        outputs = self.read(states, lengths, *self._carried(len(states), *given))
        return *outputs, *[None] * (3 - len(outputs))

    def _carried(self, num_rows: int, *given: torch.Tensor | None) -> list[torch.Tensor]:
        """Return what each direction starts from, (L, R, H) each: what is given, or zeros."""
        zeros = torch.zeros(self.num_layers, num_rows, self.hidden_size)
        given = given or (None, None)
        return [zeros if start is None else start for start in given[: self.num_directions]]


def _has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _converted(module: nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    """Make an OpenVINO model of a module."""
    # What `openvino.convert_model` does, less its telemetry.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of itself, and of shapes that never change
        traced = TorchScriptPythonDecoder(module, example_input=example)
        frontend = FrontEndManager().load_by_framework("pytorch")
        return frontend.convert(frontend.load(traced))


class _UnpaddedEncoder(nn.Module):
    """An encoder as a function of tensors alone, for windows without padding."""

    def __init__(self, roberta: nn.Module):
        super().__init__()
        self.roberta = roberta

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        types = torch.zeros_like(input_ids)
        return self.roberta(input_ids, token_type_ids=types, position_ids=position_ids).last_hidden_state


class _CarryingRecurrence(nn.Module):
    """A GRU as a function of tensors alone."""

    def __init__(self, recurrence: nn.Module):
        super().__init__()
        self.recurrence = recurrence

    def forward(self, states: torch.Tensor, lengths: torch.Tensor, *carried: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part for part in self.recurrence(states, lengths, *carried) if part is not None)


class _Int8Linear(nn.Module):
    """A linear map, its weights int8 times a scale an output: OpenVINO knows the pattern, and multiplies in int8."""

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        scale = linear.weight.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("weight", (linear.weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return F.linear(inputs, self.weight.to(self.scale.dtype) * self.scale, self.bias)


@torch.no_grad()
def _in_int8(roberta: PreTrainedModel) -> PreTrainedModel:
    roberta = copy.deepcopy(roberta)
    for module in list(roberta.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, _Int8Linear(child))
    return roberta
