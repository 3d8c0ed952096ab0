"""Dropout on the CPU: independent draws at the asked rate, a mean that stays, gradients where something is kept."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.arguments import ModelArguments
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments
from modeling_roberta_gru.training.dropout import SLOW_ATTENTION, CPUDropout, use_cpu_dropout
from modeling_roberta_gru.training.record import model_lines

from .tiny import tiny_config

SIZE = 401, 997  # no multiple of four elements


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_element_is_dropped_by_itself_and_the_mean_stays(p, dtype) -> None:
    torch.manual_seed(0)
    inputs = torch.ones(SIZE, dtype=dtype, requires_grad=True)
    outputs = CPUDropout(p)(inputs)
    dropped = (outputs == 0).flatten().double()

    def near(share: float) -> Any:
        return pytest.approx(share, abs=5 * (share * (1 - share) / dropped.numel()) ** 0.5)  # five standard errors

    assert dropped.mean().item() == near(p)
    for distance in (1, 2, 3, 4, 8):  # elements of one draw, and of the next ones
        both = (dropped[:-distance] * dropped[distance:]).mean().item()
        assert both == near(p * p)
    kept = outputs[outputs != 0]
    # The probability is a multiple of 2**-16.
    assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=max(1e-4, torch.finfo(dtype).eps), atol=0)
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs)


def test_a_seed_gives_the_same_elements_again_and_the_next_call_others() -> None:
    dropout, inputs = CPUDropout(0.5), torch.ones(1001)
    torch.manual_seed(3)
    first, second = dropout(inputs), dropout(inputs)
    torch.manual_seed(3)
    assert torch.equal(dropout(inputs), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("p", "training", "factor"), [(0.5, False, 1.0), (0.0, True, 1.0), (1.0, True, 0.0)])
def test_nothing_is_drawn_where_nothing_or_everything_is_dropped(p, training, factor) -> None:
    inputs = torch.randn(7)
    assert torch.equal(CPUDropout(p).train(training)(inputs), inputs * factor)


def test_every_dropout_of_a_model_is_replaced_and_its_weights_stay() -> None:
    model = RobertaGRUForSequenceClassification(tiny_config(hidden_dropout_prob=0.3)).train()
    before = {
        name: (module.p, module.training) for name, module in model.named_modules() if type(module) is nn.Dropout
    }
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    use_cpu_dropout(model)
    replaced = {name: module for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert {name: (module.p, module.training) for name, module in replaced.items()} == before
    assert {type(module) for module in replaced.values()} == {CPUDropout}
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("freezes", [False, True])
def test_attention_dropout_is_called_slow_where_the_encoder_trains_with_it(p, freezes, tmp_path) -> None:
    model = RobertaGRUForSequenceClassification(tiny_config(attention_probs_dropout_prob=p))
    args = RobertaGRUTrainingArguments(output_dir=str(tmp_path), use_cpu=True, freeze_encoder=freezes)
    said = model_lines(model, ModelArguments(), args, None)
    assert (SLOW_ATTENTION in said) == (p > 0 and not freezes)


@pytest.mark.parametrize(("max_length", "said"), [(1, "cut to 1 token."), (1024, "cut to 1,024 tokens.")])
def test_one_token_is_no_plural(max_length, said, tmp_path) -> None:
    model = RobertaGRUForSequenceClassification(tiny_config())
    args = RobertaGRUTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert model_lines(model, ModelArguments(), args, max_length).endswith(said)
