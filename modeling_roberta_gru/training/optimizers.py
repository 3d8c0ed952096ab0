"""Optimizers by name, and which parameters learn at which rate."""

import ast
import inspect
import math
import re
from collections import defaultdict
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, SchedulerType, Trainer, get_scheduler

from ..errors import InputError, first_line, unknown_name
from .adapter import POOLER, base_of
from .arguments import RobertaGRUTrainingArguments


class NAdam(torch.optim.AdamW):
    """NAdam with decoupled weight decay on the CPU, by torch's fused AdamW: two passes over memory instead of ten.

    NAdam (Dozat 2016) steps along a·g + b·m, where m = β₁·m₀ + (1-β₁)·g is the moving average of the gradients g, and
    a = (1-μ) / (1-Πμ), b = μ₊ / (1-Πμ·μ₊); μ and μ₊ are this step's and the next one's momentum. AdamW steps along
    β·m₀ + (1-β)·g: with β = β₁·b / (a+b), that is the same direction, a+b times as short. It leaves n in the place of
    m; a second pass restores m = n - a/b·(g-n).

    Steps and state are those of [`torch.optim.NAdam`], and either resumes from the other's checkpoint. Weights decay
    as in AdamW, apart from the gradient's moments (Loshchilov and Hutter 2019).

    Args:
        params, lr, betas, eps, weight_decay, momentum_decay: see [`torch.optim.NAdam`].
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
    ) -> None:
        if momentum_decay < 0:
            raise ValueError(f"Invalid momentum_decay value: {momentum_decay}")
        super().__init__(params, lr, betas, eps, weight_decay, fused=True)
        self.defaults["momentum_decay"] = momentum_decay
        for group in self.param_groups:
            group.setdefault("momentum_decay", momentum_decay)
            # torch 2.6 leaves it out, and `torch.optim.NAdam` would then resume with coupled decay.
            group["decoupled_weight_decay"] = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # from a checkpoint that another device wrote
            group.update(fused=True, foreach=None, capturable=False, decoupled_weight_decay=True)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step; return what `closure`, if given, makes of the loss."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        groups = self.param_groups
        try:
            for group in groups:
                for step, parameters in self._by_steps(group).items():
                    self._advance(parameters, group, step + 1)
        finally:
            self.param_groups = groups
        return loss

    def _by_steps(self, group: dict[str, Any]) -> dict[float, list[torch.Tensor]]:
        """Gather the parameters that have gradients by the number of steps they have taken."""
        by_steps: dict[float, list[torch.Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_steps[float(self.state[parameter].get("step", 0.0))].append(parameter)
        return by_steps

    @torch.no_grad()
    def _advance(self, parameters: list[torch.Tensor], group: dict[str, Any], step: float) -> None:
        """Take step number `step` with parameters that have taken as many before."""
        beta1, beta2 = group["betas"]
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (n * group["momentum_decay"])) for n in (step, step + 1))
        mu_product = self.state[parameters[0]].get("mu_product", torch.tensor(1.0)) * mu
        product = mu_product.item()  # in float32, as torch keeps it
        a, b = (1 - mu) / (1 - product), mu_next / (1 - product * mu_next)
        beta = beta1 * b / (a + b)
        stretch = (a + b) * (1 - beta**step)  # AdamW divides by 1 - β^step
        self.param_groups = [
            {
                **group,
                "params": parameters,
                "lr": group["lr"] * stretch,
                "betas": (beta, beta2),
                "weight_decay": group["weight_decay"] / stretch,
            }
        ]
        super().step()
        for parameter in parameters:
            state = self.state[parameter]
            state["mu_product"] = mu_product.clone()
            if b:
                state["exp_avg"].lerp_(parameter.grad, -a / b)


OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "nadam": NAdam,
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "adamw": torch.optim.AdamW,
}

# Set for each group of parameters, which would override what --optim_args says.
OWN_OPTIONS = {"lr": "learning_rate", "weight_decay": "weight_decay"}


def optimizer_class_and_kwargs(
    args: RobertaGRUTrainingArguments,
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Return the class named by `args.optimizer` and its keyword arguments.

    Raises:
        InputError: if `args.optim_args` names an argument that the optimizer does not have.
    """
    optimizer_class = OPTIMIZERS[args.optimizer]
    kwargs: dict[str, Any] = {"lr": args.learning_rate}
    known = inspect.signature(optimizer_class).parameters.keys() - {"params", *OWN_OPTIONS}
    if optimizer_class is NAdam and args.device.type != "cpu":
        optimizer_class = torch.optim.NAdam
        # Capturable, the state lies on the GPU and no step waits for it to be read, after a resume neither.
        kwargs |= {"decoupled_weight_decay": True, "foreach": True, "capturable": args.device.type == "cuda"}
    if "betas" in known:
        kwargs |= {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    for assignment in re.findall(r"(?:\([^()]*\)|[^,])+", args.optim_args or ""):  # not at the commas within brackets
        name, _, text = assignment.strip().partition("=")
        if name in OWN_OPTIONS:
            raise InputError(
                f"--optim_args: {name} has an option of its own, --{OWN_OPTIONS[name]}.", field="optim_args"
            )
        if name not in known:
            raise unknown_name(f"argument of {args.optimizer} in --optim_args", name, known, field="optim_args")
        try:
            kwargs[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            raise InputError(
                f"--optim_args: {name} has no value that can be read, got {text!r}.", field="optim_args"
            ) from None
    return optimizer_class, kwargs


def check_optimizer(args: RobertaGRUTrainingArguments) -> None:
    """Build optimizer and schedule of nothing, so that a value which they refuse is known before a run begins.

    Raises:
        InputError: in the words of torch or transformers; also if the optimizer needs a package that is missing.
    """
    if args.optimizer == "optim":
        _check_optim(args)
    parameters = [nn.Parameter(torch.zeros(1))]
    try:
        if args.optimizer in OPTIMIZERS:
            optimizer_class, kwargs = optimizer_class_and_kwargs(args)
            optimizer = optimizer_class(parameters, **kwargs)
        else:  # transformers' own
            optimizer = torch.optim.SGD(parameters, lr=args.learning_rate)
        if args.lr_scheduler_type != SchedulerType.REDUCE_ON_PLATEAU:  # which may name a rate for each group
            given = dict(args.lr_scheduler_kwargs or {})
            get_scheduler(args.lr_scheduler_type, optimizer, 1, 2, scheduler_specific_kwargs=given)
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"The optimizer or its schedule cannot be built: {first_line(error)}") from error


def _check_optim(args: RobertaGRUTrainingArguments) -> None:
    """Have transformers look for the optimizer that `args.optim` names."""
    probed = copy(args)
    if args.optim_target_modules:  # no names of the probe's, whose one layer stands for whatever they are
        probed.optim_target_modules = "all-linear"
    try:
        Trainer.get_optimizer_cls_and_kwargs(probed, nn.Sequential(nn.Linear(1, 1)))
    except (ImportError, ValueError, TypeError, RuntimeError) as error:
        name = getattr(args.optim, "value", args.optim)
        raise InputError(f"--optim {name} cannot be used: {first_line(error)}.", field="optim") from error


def parameter_groups(model: PreTrainedModel, args: RobertaGRUTrainingArguments) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    The encoder's top layer learns at `learning_rate`, each layer below at `layer_decay` times the rate above it, the
    embeddings below the lowest layer; all that is not the encoder at `head_learning_rate`. Matrices decay, vectors
    (biases and norms) do not. LoRA matrices learn as the layer that they stand beside.
    """
    model = base_of(model)
    num_layers = _num_layers(model)
    if args.layer_decay != 1:
        _check_layers(model, "--layer_decay")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = args.head_learning_rate or args.learning_rate
        if name.startswith(f"{model.base_model_prefix}."):
            rate = args.learning_rate * args.layer_decay ** (num_layers - _height(name, num_layers))
        decay = args.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        raise InputError("Every parameter is frozen: there is nothing to train.")
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def _num_layers(model: PreTrainedModel) -> int:
    return getattr(model.config, "num_hidden_layers", 0)  # a recurrent net has none


def _height(name: str, num_layers: int) -> int:
    """Return 0 for embeddings, i + 1 for the encoder's layer i, and the top for what stands above the layers."""
    layer = re.search(r"\.layers?\.(\d+)\.", name)
    if layer:
        return int(layer[1]) + 1
    return 0 if "embedding" in name else num_layers


def _check_layers(model: PreTrainedModel, option: str) -> None:
    """Check that the names of the parameters tell the encoder's layers apart."""
    num_layers = _num_layers(model)
    names = [f".{name}" for name, _ in model.base_model.named_parameters()]
    if {_height(name, num_layers) for name in names} < set(range(num_layers + 1)):
        raise InputError(
            f"{option}: the layers of a {model.config.model_type} cannot be told apart. Leave it out.",
            field=option.removeprefix("--"),
        )


def freeze(model: PreTrainedModel, args: RobertaGRUTrainingArguments) -> None:
    """Take the whole encoder, dropout and all, or its embeddings and `freeze_layers` lowest layers, out of training.

    A pooler is trained: it may be fresh.

    Raises:
        InputError: if the encoder has fewer layers.
    """
    num_layers = _num_layers(model)
    if not 0 <= args.freeze_layers <= num_layers:
        raise InputError(
            f"--freeze_layers is {args.freeze_layers}; the encoder has {num_layers} layers.", field="freeze_layers"
        )
    if not (args.freeze_encoder or args.freeze_layers):
        return
    if args.freeze_layers:
        _check_layers(model, "--freeze_layers")
    for name, parameter in model.base_model.named_parameters():
        if name.startswith(f"{POOLER}."):
            continue
        if args.freeze_encoder or _height(f".{name}", num_layers) <= args.freeze_layers:
            parameter.requires_grad = False
    if args.freeze_encoder:
        # What never changes is read without noise, and so but once.
        for module in model.base_model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


def check_optimizer_state(
    optimizer: torch.optim.Optimizer, args: RobertaGRUTrainingArguments, checkpoint: str
) -> None:
    """Check that a checkpoint's optimizer state is one that `optimizer`, as `args` describe it, could have written.

    Raises:
        InputError: if the checkpoint was written by another optimizer, with other groups of parameters, or with other
            [`FIXED_OPTIONS`].
    """
    path = Path(checkpoint) / "optimizer.pt"
    if not path.is_file():  # sharded: written and checked by the library that shards
        return
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if args.optimizer != "optim":
        _check_state(saved, args, checkpoint)
    groups, expected_groups = saved["param_groups"], optimizer.param_groups
    sizes, expected_sizes = ([len(group["params"]) for group in each] for each in (groups, expected_groups))
    if sizes != expected_sizes:
        raise InputError(
            f"{checkpoint} groups its parameters as {sizes}, this run as {expected_sizes}: resume with the learning "
            "rates, decays and frozen layers it was trained with, or start a new run in another --output_dir.",
            file=checkpoint,
        )
    # What the checkpoint says would be taken over without a word.
    for old, new in zip(groups, expected_groups, strict=True):
        for name, option in FIXED_OPTIONS.items():
            before, now = old.get(name, False), new.get(name, False)
            is_known = name != "decoupled_weight_decay" or name in old.keys() & new.keys()  # not to older torch
            if is_known and not _is_same(before, now):
                raise InputError(
                    f"{checkpoint} was trained with {option} {before}, not {now}: resume with the optimizer and the "
                    "options it was trained with, or start a new run in another --output_dir.",
                    file=checkpoint,
                )


FIXED_OPTIONS = {
    "initial_lr": "a learning rate of",
    "weight_decay": "a weight decay of",
    "decoupled_weight_decay": "decoupled weight decay",
    "betas": "betas of",
    "eps": "an epsilon of",
    "amsgrad": "AMSGrad",
    "momentum": "a momentum of",
    "momentum_decay": "a momentum decay of",
    "dampening": "a dampening of",
    "nesterov": "Nesterov momentum",
    "alpha": "an alpha of",
    "centered": "centred gradients",
}
"""What an optimizer never changes of a group's options, and how a message names it."""


def _is_same(old: Any, new: Any) -> bool:
    if isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)):
        return len(old) == len(new) and all(map(_is_same, old, new))
    is_numeric = isinstance(old, (int, float)) and isinstance(new, (int, float))
    return math.isclose(old, new, rel_tol=1e-9) if is_numeric else old == new


def _check_state(saved: dict[str, Any], args: RobertaGRUTrainingArguments, checkpoint: str) -> None:
    """Check that the state has the names that the optimizer of `args` gives it."""
    optimizer_class, kwargs = optimizer_class_and_kwargs(args)
    kwargs.pop("capturable", None)  # the probe is on the CPU, where its state has the same names
    probe = nn.Parameter(torch.zeros(1))
    probe.grad = torch.zeros(1)
    twin = optimizer_class([probe], **kwargs)
    twin.step()
    expected = set(twin.state[probe])
    for state in list(saved["state"].values()) or [{}]:
        if set(state) != expected:
            raise InputError(
                f"{checkpoint} was written by another optimizer than {args.optimizer}: its state is "
                f"{sorted(state)}, not {sorted(expected)}. Resume with the --optimizer it was trained with, or start "
                "a new run in another --output_dir.",
                field="optimizer",
                file=checkpoint,
            )
