"""Optimizers by name, learning rates by depth, and what is frozen."""

import copy
from typing import get_args

import pytest
import torch
from transformers import SchedulerType

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.arguments import ModelArguments
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments
from modeling_roberta_gru.training.optimizers import (
    OPTIMIZERS,
    NAdam,
    check_optimizer,
    check_optimizer_state,
    freeze,
    optimizer_class_and_kwargs,
    parameter_groups,
)
from modeling_roberta_gru.training.record import model_lines
from modeling_roberta_gru.training.trainer import RobertaGRUTrainer

from .refusals import refused
from .tiny import tiny_config


@pytest.fixture
def arguments(tmp_path):
    without_evaluation = {"eval_strategy": "no", "load_best_model_at_end": False}
    return lambda **fields: RobertaGRUTrainingArguments(output_dir=str(tmp_path), **without_evaluation, **fields)


@pytest.fixture
def model():
    return RobertaGRUForSequenceClassification(tiny_config(num_hidden_layers=3, summary="attention"))


def groups_by_name(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_every_optimizer_can_be_chosen():
    field = RobertaGRUTrainingArguments.__dataclass_fields__["optimizer"]
    assert {*OPTIMIZERS, "optim"} == set(get_args(field.type))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name_gives_the_optimizer_of_that_name(name, arguments, model):
    args = arguments(optimizer=name, learning_rate=0.1, weight_decay=0.01)
    optimizer = RobertaGRUTrainer(model, args).create_optimizer()
    assert type(optimizer).__name__.lower() == name
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.01}


def test_nadam_is_the_default_and_decays_weights_apart_from_the_gradient(arguments):
    optimizer_class, kwargs = optimizer_class_and_kwargs(arguments(adam_beta1=0.8, adam_epsilon=1e-6))
    assert optimizer_class is NAdam
    assert kwargs["betas"] == (0.8, 0.999)
    assert kwargs["eps"] == 1e-6
    with pytest.raises(InputError, match="Unknown argument of nadam in --optim_args 'decoupled_weight_decay'"):
        optimizer_class_and_kwargs(arguments(optim_args="decoupled_weight_decay=False"))


def nadam_twins(dtype=torch.float64, **options):
    """Return torch's NAdam and ours on equal parameters, and a step that gives both the same random gradients."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (
        [
            torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))
            for shape in ((7, 5), (3,), (64, 33))
        ]
        for _ in range(2)
    )
    for one, other in zip(ours, theirs, strict=True):
        other.data.copy_(one.data)
    options = {"lr": 1e-2, "weight_decay": 0.1, **options}
    mine, torchs = NAdam(ours, **options), torch.optim.NAdam(theirs, decoupled_weight_decay=True, **options)

    def step(number, left_out=None):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(one.shape, generator=generator, dtype=dtype) * 10.0 ** (number % 5 - 3)
            one.grad, other.grad = (None, None) if index == left_out else (gradient, gradient.clone())
        mine.step()
        torchs.step()

    return mine, torchs, step


def assert_equal_twins(mine, torchs, tolerance):
    for one, other in zip(mine.param_groups[0]["params"], torchs.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
        assert mine.state[one].keys() == torchs.state[other].keys()
        for name, value in torchs.state[other].items():
            torch.testing.assert_close(mine.state[one][name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    "options", [{}, {"betas": (0.5, 0.9), "momentum_decay": 0.1, "eps": 1e-3}, {"betas": (0.0, 0.99)}]
)
def test_nadam_steps_as_torchs_does(dtype, tolerance, options):
    mine, torchs, step = nadam_twins(dtype, **options)
    for number in range(60):
        step(number, left_out=number % 4)  # parameters of several histories
    assert_equal_twins(mine, torchs, tolerance)


def test_a_nadam_without_a_rate_stays_where_it_is():
    mine, torchs, step = nadam_twins(lr=0.0)  # the first step of a warm-up
    step(0)
    assert_equal_twins(mine, torchs, 1e-10)


def test_nadam_goes_on_from_torchs_state_and_torchs_from_its():
    for exchanged in (False, True):
        mine, torchs, step = nadam_twins(torch.float32)
        for number in range(5):
            step(number)
        source, target = (mine, torchs) if exchanged else (torchs, mine)
        target.load_state_dict(copy.deepcopy(source.state_dict()))
        for number in range(5):
            step(number)
        assert_equal_twins(mine, torchs, 1e-5)


def test_transformers_own_optimizers_stay_reachable(arguments, model):
    args = arguments(optimizer="optim", optim="adafactor")
    assert "trained by adafactor." in model_lines(model, ModelArguments(), args, None)
    optimizer = RobertaGRUTrainer(model, args).create_optimizer()
    assert type(optimizer).__name__ == "Adafactor"


def test_optimizer_arguments_reach_the_optimizer(arguments):
    _, kwargs = optimizer_class_and_kwargs(arguments(optimizer="sgd", optim_args="momentum=0.9,nesterov=True"))
    assert (kwargs["momentum"], kwargs["nesterov"]) == (0.9, True)
    with pytest.raises(
        InputError, match=r"^Unknown argument of sgd in --optim_args 'momentun'\. Did you mean 'momentum'"
    ):
        check_optimizer(arguments(optimizer="sgd", optim_args="momentun=0.9"))
    with pytest.raises(InputError, match="--optim_args: lr has an option of its own, --learning_rate"):
        optimizer_class_and_kwargs(arguments(optimizer="sgd", optim_args="lr=5"))
    with pytest.raises(InputError, match="momentum has no value that can be read"):
        optimizer_class_and_kwargs(arguments(optimizer="sgd", optim_args="momentum=lots"))
    _, kwargs = optimizer_class_and_kwargs(arguments(optim_args="betas=(0.8, 0.99), momentum_decay=0.1"))
    assert (kwargs["betas"], kwargs["momentum_decay"]) == ((0.8, 0.99), 0.1)


def test_arguments_that_are_listed_are_taken(arguments):
    with refused() as caught:
        optimizer_class_and_kwargs(arguments(optimizer="sgd", optim_args="zzz=1"))
    listed = str(caught.value).partition("Known: ")[2].rstrip(".").split(", ")
    assert "momentum" in listed
    for name in listed:
        optimizer_class_and_kwargs(arguments(optimizer="sgd", optim_args=f"{name}=1"))


def test_a_momentum_that_grows_is_refused_on_every_device(arguments):
    for optimizer_class in (NAdam, torch.optim.NAdam):
        with pytest.raises(ValueError, match="momentum_decay"):
            optimizer_class([torch.nn.Parameter(torch.zeros(1))], momentum_decay=-0.1)


@pytest.mark.parametrize(
    "name", ["adamw_8bit", "galore_adamw", "lomo", "schedule_free_adamw", "adamw_torch_npu_fused"]
)
def test_an_optimizer_whose_package_is_missing_is_refused_before_a_run_begins(arguments, name):
    with refused(field="optim"):
        check_optimizer(arguments(optimizer="optim", optim=name, optim_target_modules=["query"]))


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "optim_args": "nesterov=True"},
        {"optimizer": "sgd", "optim_args": "momentum='much'"},
        {"optimizer": "adamw", "optim_args": "fused=True,foreach=True"},
        {"adam_beta2": 1.0},
        {"lr_scheduler_type": "cosine_with_min_lr"},
        {"lr_scheduler_type": "warmup_stable_decay"},
        {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"power": 2}},
        {"optimizer": "optim", "lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}},
    ],
)
def test_values_that_optimizer_or_schedule_refuse_are_known_before_a_run_begins(arguments, options):
    with pytest.raises(InputError, match="optimizer or its schedule cannot be built"):
        check_optimizer(arguments(**options))


@pytest.mark.parametrize("name", [kind.value for kind in SchedulerType])
def test_every_schedule_passes_that_transformers_builds(tmp_path, name):
    needed = {"cosine_with_min_lr": {"min_lr": 0.0}, "cosine_warmup_with_min_lr": {"min_lr": 0.0}}
    needed["warmup_stable_decay"] = {"num_decay_steps": 100}
    for optimizer in (*OPTIMIZERS, "optim"):
        fields = {"optimizer": optimizer, "lr_scheduler_type": name, "lr_scheduler_kwargs": needed.get(name)}
        check_optimizer(RobertaGRUTrainingArguments(output_dir=str(tmp_path), **fields))


def test_every_trainable_parameter_is_in_one_group(arguments, model):
    groups = parameter_groups(model, arguments(layer_decay=0.5, head_learning_rate=1.0, weight_decay=0.1))
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_learning_rates_fall_by_layer_and_the_head_has_its_own(arguments, model):
    args = arguments(learning_rate=0.8, layer_decay=0.5, head_learning_rate=3.0, weight_decay=0.1)
    named = groups_by_name(model, parameter_groups(model, args))
    rates = {
        "roberta.encoder.layer.2.output.dense.weight": 0.8,
        "roberta.encoder.layer.1.output.dense.weight": 0.4,
        "roberta.encoder.layer.0.output.dense.weight": 0.2,
        "roberta.embeddings.word_embeddings.weight": 0.1,
        "gru.left_to_right.0.weight_hh_l0": 3.0,
        "summary.query": 3.0,
        "head.out_proj.bias": 3.0,
    }
    for name, rate in rates.items():
        assert named[name]["lr"] == pytest.approx(rate), name
    assert named["head.dense.weight"]["weight_decay"] == 0.1
    for name in ("head.dense.bias", "gru.left_to_right.0.bias_hh_l0", "roberta.embeddings.LayerNorm.weight"):
        assert named[name]["weight_decay"] == 0.0, name


def test_freezing_takes_the_lowest_layers_or_the_whole_encoder(arguments, model):
    freeze(model, arguments(freeze_layers=2))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {".".join(name.split(".")[:4]) for name in frozen if ".layer." in name} == {
        "roberta.encoder.layer.0",
        "roberta.encoder.layer.1",
    }
    assert any(name.startswith("roberta.embeddings.") for name in frozen)
    freeze(model, arguments(freeze_encoder=True))
    assert not any(parameter.requires_grad for parameter in model.roberta.parameters())
    assert all(parameter.requires_grad for parameter in model.gru.parameters())
    with pytest.raises(InputError, match="--freeze_layers is 4; the encoder has 3 layers"):
        freeze(model, arguments(freeze_layers=4))


def test_the_state_that_a_gpu_wrote_is_known_again(arguments, model, tmp_path, monkeypatch):
    optimizer = RobertaGRUTrainer(model, arguments()).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    monkeypatch.setattr(RobertaGRUTrainingArguments, "device", property(lambda _: torch.device("cuda")))
    args = arguments()
    assert optimizer_class_and_kwargs(args)[1]["capturable"]
    check_optimizer_state(optimizer, args, str(tmp_path))
    with pytest.raises(InputError, match="was written by another optimizer than sgd"):
        check_optimizer_state(optimizer, arguments(optimizer="sgd"), str(tmp_path))
