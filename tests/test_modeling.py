"""The model against its definition, and the properties that hold for every caller."""

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from warnings import catch_warnings, simplefilter

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CamembertConfig,
    CamembertModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from modeling_roberta_gru import (
    RobertaGRUForSequenceClassification,
    RobertaGRUForTokenClassification,
    RobertaGRUModel,
)
from modeling_roberta_gru import modeling_roberta_gru as modeling
from modeling_roberta_gru.configuration_roberta_gru import SUMMARIES
from modeling_roberta_gru.modeling_roberta_gru import Windows, classification_loss

from . import reference
from .tiny import TINY_ENCODER, assert_gradients, batch, gradients, tiny_config

FLOAT64 = {"rtol": 1e-10, "atol": 1e-10}
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
# bfloat16 keeps 8 bits, 2^-8 = 0.004 a rounding; two layers at this initialisation add up a few of them.
BFLOAT16 = {"rtol": 0.05, "atol": 0.05}

EVERY_READING = [
    {"summary": summary, "gru_bidirectional": bidirectional, "num_gru_layers": num_layers}
    for summary in SUMMARIES
    for bidirectional in (False, True)
    for num_layers in (1, 2)
]
EVERY_READING += [
    {"summary": "attention", "attention_horizons": [0]},
    {"summary": "last", "skip_connection": False, "gru_bidirectional": True},
]
# For what does not tell them all apart: each summary, one way and both, one layer and two.
SOME_READINGS = [
    {"summary": "last", "gru_bidirectional": True, "num_gru_layers": 2},
    {"summary": "mean", "gru_bidirectional": False, "num_gru_layers": 2},
    {"summary": "max", "gru_bidirectional": True, "num_gru_layers": 1},
    {"summary": "attention", "gru_bidirectional": False, "num_gru_layers": 1},
]
SIDES = ("left", "right", "scattered")
# Each with a side that the padding stands on, and each side.
PADDED_READINGS = [(fields, SIDES[number % 3]) for number, fields in enumerate(SOME_READINGS)]


def documents(*lengths: int) -> list[torch.Tensor]:
    return [torch.cat([torch.tensor([0]), torch.randint(3, 61, (n - 2,)), torch.tensor([2])]) for n in lengths]


def classifier(**fields) -> RobertaGRUForSequenceClassification:
    return RobertaGRUForSequenceClassification(tiny_config(num_labels=3, **fields)).eval()


@pytest.mark.parametrize(("fields", "side"), PADDED_READINGS, ids=str)
def test_padding_neighbours_and_row_order_do_not_change_logits(fields, side):
    model = classifier(**fields).double()
    ids = documents(3, 8, 20)
    alone = torch.cat([model(input_ids=row[None]).logits for row in ids])
    for extra in (0, 9):  # wider than the window: columns are not tokens
        inputs = batch(ids, side, extra)
        torch.testing.assert_close(model(**inputs).logits, alone, **FLOAT64)
    order = torch.tensor([2, 0, 1])
    permuted = model(**{name: tensor[order] for name, tensor in inputs.items()}).logits
    torch.testing.assert_close(permuted, alone[order], **FLOAT64)


def test_padding_does_not_change_gradients():
    model = classifier(gru_bidirectional=True, summary="attention").double()
    ids = documents(3, 8)
    narrow = gradients(model, model(**batch(ids)).logits.square().sum())
    wide = gradients(model, model(**batch(ids, side="scattered", extra=9)).logits.square().sum())
    for name in narrow:
        torch.testing.assert_close(wide[name], narrow[name], **FLOAT64, msg=name)


@pytest.mark.parametrize("fields", EVERY_READING, ids=str)
def test_a_token_is_labelled_as_a_document_of_that_token_by_the_same_weights(fields, tmp_path):
    model = classifier(**fields)
    model.save_pretrained(tmp_path)
    of_tokens, report = RobertaGRUForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    ids = torch.tensor([[0], [5], [9]])
    torch.testing.assert_close(of_tokens.eval()(ids).logits[:, 0], model(ids).logits, **FLOAT32)


def test_replicas_that_hold_no_parameters_read_long_documents():
    model = classifier(gru_bidirectional=True)
    ids = documents(40)[0][None]
    expected = model(ids).logits
    for module in model.modules():  # as DataParallel leaves its replicas
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            setattr(module, name, parameter.detach())
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, expected.detach(), **FLOAT32)


def test_torchs_dynamic_quantisation_may_replace_the_gru():
    model = classifier()
    ids = documents(20)[0][None]
    with catch_warnings():
        simplefilter("ignore")  # torch says that torchao does it too
        quantised = torch.ao.quantization.quantize_dynamic(model, dtype=torch.qint8)
    assert not any(isinstance(module, nn.GRU) for module in quantised.modules())
    with torch.no_grad():
        torch.testing.assert_close(quantised(ids).logits, model(ids).logits, atol=0.1, rtol=0.1)


def test_a_model_of_one_output_says_that_it_is_a_regression():
    assert RobertaGRUForSequenceClassification(tiny_config(num_labels=1)).config.problem_type == "regression"
    assert RobertaGRUForSequenceClassification(tiny_config(num_labels=2)).config.problem_type is None


def test_labels_of_padding_do_not_count():
    config = tiny_config(num_labels=3)
    model = RobertaGRUForTokenClassification(config).double().eval()
    ids = documents(3, 8)
    narrow, wide = batch(ids), batch(ids, side="scattered", extra=9)
    labels = torch.randint(0, 3, narrow["input_ids"].shape)
    expected = model(**narrow, labels=labels).loss
    spread = torch.zeros_like(wide["input_ids"])
    for row in range(2):
        spread[row, wide["attention_mask"][row] == 1] = labels[row, narrow["attention_mask"][row] == 1]
    torch.testing.assert_close(model(**wide, labels=spread).loss, expected, **FLOAT64)


def test_a_real_token_with_the_padding_id_counts():
    model = classifier().double()
    tokens = torch.tensor([0, 9, 1, 9, 2])  # 1 is the padding id
    torch.testing.assert_close(model(tokens[None]).logits[0], reference.document_logits(model, tokens), **FLOAT64)
    assert not torch.allclose(model(tokens[None]).logits, model(tokens[[0, 1, 3, 4]][None]).logits)


def test_inputs_embeds_equal_input_ids_and_token_types_reach_the_encoder():
    model = classifier(type_vocab_size=2).double()
    inputs = batch(documents(5, 9), side="left")
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    mask = inputs["attention_mask"]
    expected = model(**inputs).logits
    torch.testing.assert_close(model(inputs_embeds=embeds, attention_mask=mask).logits, expected, **FLOAT64)
    token_types = torch.randint(2, mask.shape)
    typed = model(**inputs, token_type_ids=token_types).logits
    row = mask[1] == 1
    torch.testing.assert_close(
        typed[1],
        reference.document_logits(model, inputs["input_ids"][1, row], token_types[1, row]),
        **FLOAT64,
    )
    assert not torch.allclose(typed, expected)


def test_attention_implementations_agree_and_are_those_of_the_encoder():
    model = classifier()
    inputs = batch(documents(5, 20))
    expected = model(**inputs).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(**inputs).logits, expected, **FLOAT32)
    for support in ("_supports_sdpa", "_supports_flash_attn", "_supports_flex_attn"):
        assert getattr(model, support) == getattr(RobertaModel, support)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(dtype):
    model = classifier(gru_bidirectional=True, num_gru_layers=2)
    inputs = batch(documents(5, 20))
    expected = model(**inputs).logits
    with torch.autocast("cpu", dtype=dtype):
        torch.testing.assert_close(model(**inputs).logits.float(), expected, **BFLOAT16)
    logits = model.to(dtype)(**inputs).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, **BFLOAT16)


def test_the_recurrence_keeps_float32_on_the_cpu_under_autocast():
    model = classifier()
    states = torch.randn(1, 20, 12)
    lengths = torch.tensor([20])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = model.gru(states, lengths)[0]
    assert torch.equal(under_autocast, model.gru(states, lengths)[0])


@pytest.mark.parametrize("horizons", [[0], [0, 100]])
def test_an_average_over_tokens_keeps_float32_under_autocast(horizons):
    summary = modeling.RobertaGRUSummary(tiny_config(summary="attention", attention_horizons=horizons))
    nn.init.zeros_(summary.query)  # all tokens score alike, in any precision
    states = torch.randn(2, 300, summary.query.shape[1])
    known = torch.ones(2, 300, dtype=torch.bool), torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = summary(states, *known).value
    torch.testing.assert_close(under_autocast, summary(states, *known).value, atol=1e-6, rtol=1e-6)


def enable_checkpointing(model):
    """Call it by its name in the installed transformers: up to 5.17 there is only the older one."""
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


@pytest.mark.parametrize("side", ["left", "right", "scattered"])
def test_hidden_states_and_attentions_are_the_encoders_in_the_inputs_arrangement(side):
    model = classifier(attn_implementation="eager").double()
    ids = documents(5, 9)
    for extra in (0, 30):
        inputs = batch(ids, side, extra)
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
        assert (len(outputs.hidden_states), len(outputs.attentions)) == (3, 2)
        for row, (tokens, mask) in enumerate(zip(ids, inputs["attention_mask"] == 1, strict=True)):
            alone = model.roberta(tokens[None], output_hidden_states=True, output_attentions=True)
            for layer, expected in zip(outputs.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(layer[row, mask], expected[0], **FLOAT64)
            for layer, expected in zip(outputs.attentions, alone.attentions, strict=True):
                torch.testing.assert_close(layer[row][:, mask][:, :, mask], expected[0], **FLOAT64)


# Documents beyond the window

W = 20  # of tiny_config
LENGTHS = (1, 2, W - 1, W, W + 1, W + 2, 2 * W - 1, 2 * W, 2 * W + 1, 5 * W + 3)


def anything(*lengths: int) -> list[torch.Tensor]:
    """Make documents without special tokens: their first and last tokens serve."""
    return [torch.randint(3, 61, (n,)) for n in lengths]


@contextmanager
def encoded_batches(model: nn.Module) -> Iterator[list[torch.Size]]:
    """Collect the shapes of what the encoder is called on."""
    shapes: list[torch.Size] = []

    def note(_module, _args, kwargs):
        shapes.append(kwargs["position_ids"].shape)

    handle = model.roberta.register_forward_pre_hook(note, with_kwargs=True)
    yield shapes
    handle.remove()


@pytest.fixture(params=[False, True], ids=["kept", "encoded again"])
def encodes_again(request, monkeypatch) -> bool:
    """Have the encoder's states of a bidirectional GRU kept, or encoded anew for every pass; say which."""
    if request.param:
        monkeypatch.setattr(modeling, "MOST_STATES_KEPT", 0)
    return request.param


@pytest.mark.parametrize(
    ("fields", "overlap"),
    [
        *((fields, None) for fields in EVERY_READING),
        *((fields, overlap) for fields in SOME_READINGS[:2] for overlap in (0, 1, W - 3)),
    ],
    ids=str,
)
def test_documents_of_any_length_equal_the_reference(fields, overlap, monkeypatch):
    model = classifier(window_overlap=overlap, windows_per_chunk=2, calibration_temperature=1.7, **fields).double()
    ids = anything(*LENGTHS)
    weights = torch.randn(len(ids), 3, dtype=torch.float64)
    expected = torch.stack([reference.document_logits(model, row) for row in ids])
    expected_gradients = gradients(model, (expected * weights).sum())
    inputs = batch(ids, side="scattered", extra=3)
    logits = model(**inputs).logits
    torch.testing.assert_close(logits, expected, **FLOAT64)
    assert_gradients(gradients(model, (logits * weights).sum()), expected_gradients, **FLOAT64)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, expected, **FLOAT64)
        monkeypatch.setattr(modeling, "MOST_STATES_KEPT", 0)
        torch.testing.assert_close(model(**inputs).logits, expected, **FLOAT64)


def test_the_default_overlap_of_a_wide_window_equals_the_reference():
    model = classifier(max_position_embeddings=262 + 2, gru_bidirectional=True).double()
    assert model.config.encoder_window - 2 - model.config.window_stride == 64
    ids = documents(700)
    torch.testing.assert_close(model(**batch(ids)).logits[0], reference.document_logits(model, ids[0]), **FLOAT64)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("head_hidden_size", [0, 5])
def test_every_token_is_labelled_as_by_the_reference(bidirectional, head_hidden_size, encodes_again):
    config = tiny_config(
        num_labels=3, gru_bidirectional=bidirectional, head_hidden_size=head_hidden_size, windows_per_chunk=1
    )
    model = RobertaGRUForTokenClassification(config).eval().double()
    for ids in (documents(6, W), documents(W, 3 * W + 5)):
        inputs = batch(ids, side="scattered", extra=4)
        expected = [reference.token_logits(model, row) for row in ids]
        with_gradients = model(**inputs).logits
        with torch.no_grad():
            in_chunks = model(**inputs).logits
        for logits in (with_gradients, in_chunks):
            for row, mask in enumerate(inputs["attention_mask"] == 1):
                torch.testing.assert_close(logits[row, mask], expected[row], **FLOAT64)
                assert (logits[row, ~mask] == 0).all()


@pytest.mark.parametrize("lengths", [(6, 11), (6, 3 * W)], ids=["whole", "in windows"])
def test_states_come_in_the_inputs_arrangement(lengths, encodes_again):
    model = RobertaGRUModel(tiny_config(gru_bidirectional=True, windows_per_chunk=1)).eval().double()
    ids = documents(*lengths)
    inputs = batch(ids, side="left", extra=2)
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    assert len(outputs.hidden_states) == 3
    for row, tokens in enumerate(ids):
        real = inputs["attention_mask"][row] == 1
        encoded = reference.encoder_states(model, tokens)
        states = reference.gru_states(model, encoded)
        torch.testing.assert_close(outputs.hidden_states[-1][row, real], encoded, **FLOAT64)
        torch.testing.assert_close(outputs.last_hidden_state[row, real], states, **FLOAT64)
        torch.testing.assert_close(outputs.pooler_output[row], reference.summarise(model, states), **FLOAT64)
        assert (outputs.last_hidden_state[row, ~real] == 0).all()


@pytest.mark.parametrize(("fields", "side"), PADDED_READINGS, ids=str)
def test_padding_neighbours_and_row_order_do_not_change_long_documents(fields, side, encodes_again):
    model = classifier(windows_per_chunk=2, **fields).double()
    ids = documents(3 * W + 1, 5, 5 * W, W, 2 * W)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            alone = torch.cat([model(input_ids=row[None]).logits for row in ids])
            inputs = batch(ids, side, extra=9)
            torch.testing.assert_close(model(**inputs).logits, alone, **FLOAT64)
            order = torch.tensor([4, 2, 0, 1, 3])
            permuted = model(**{name: tensor[order] for name, tensor in inputs.items()}).logits
        torch.testing.assert_close(permuted, alone[order], **FLOAT64)


@pytest.mark.parametrize(("fields", "side"), PADDED_READINGS, ids=str)
@pytest.mark.parametrize("lengths", [(4, 9), (3 * W, 9)], ids=["whole", "in windows"])
def test_poisoned_padding_reaches_neither_logits_nor_gradients(lengths, fields, side):
    model = classifier(**fields)
    inputs = batch(documents(*lengths), side, extra=3)
    mask = inputs["attention_mask"]
    expected = model(**inputs).logits
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    poisoned = embeds.masked_fill(mask[..., None] == 0, math.nan).requires_grad_()
    logits = model(inputs_embeds=poisoned, attention_mask=mask).logits
    torch.testing.assert_close(logits, expected, **FLOAT32)
    assert all(gradient.isfinite().all() for gradient in gradients(model, logits.sum()).values())
    assert poisoned.grad.isfinite().all()
    assert (poisoned.grad[mask == 0] == 0).all()
    assert (poisoned.grad[mask == 1] != 0).any(dim=-1).all()
    out_of_vocabulary = inputs["input_ids"].masked_fill(mask == 0, -100)
    out_of_types = (mask == 0).long() * 7
    logits = model(input_ids=out_of_vocabulary, attention_mask=mask, token_type_ids=out_of_types).logits
    torch.testing.assert_close(logits, expected, **FLOAT32)


def test_token_types_of_long_documents_reach_the_encoder():
    model = classifier(type_vocab_size=2).double()
    (tokens,) = documents(3 * W)
    token_types = torch.randint(2, tokens.shape)
    logits = model(tokens[None], token_type_ids=token_types[None]).logits
    torch.testing.assert_close(logits[0], reference.document_logits(model, tokens, token_types), **FLOAT64)
    assert not torch.allclose(logits, model(tokens[None]).logits)


def test_documents_of_special_tokens_only_equal_the_reference():
    model = classifier().double()
    for tokens in (torch.tensor([0, 2]), torch.full((3 * W,), 2), torch.full((W + 1,), 1)):
        logits = model(tokens[None]).logits
        torch.testing.assert_close(logits[0], reference.document_logits(model, tokens), **FLOAT64)


def test_only_windows_that_hold_tokens_are_encoded_and_few_at_a_time():
    model = classifier(window_overlap=0, windows_per_chunk=2)
    inputs = batch(documents(5 * W + 3, 5, 2 * W, W + 1))
    counts = [math.ceil((n - 2) / (W - 2)) for n in (5 * W + 3, 5, 2 * W, W + 1)]
    with encoded_batches(model) as shapes:
        model(**inputs)
    assert [tuple(shape) for shape in shapes] == [(sum(counts), W)]
    with encoded_batches(model) as shapes, torch.no_grad():
        model(**inputs)
    assert [len_ for len_, _ in shapes] == [sum(min(2, max(0, n - begin)) for n in counts) for begin in (0, 2, 4)]


@pytest.mark.parametrize("num_gru_layers", [1, 2, 3])
def test_a_bidirectional_gru_encodes_once_what_it_can_keep_and_for_each_layer_once_more_beyond(
    num_gru_layers, monkeypatch
):
    model = classifier(gru_bidirectional=True, num_gru_layers=num_gru_layers, windows_per_chunk=1).double()
    ids = documents(4 * W, W + 1)
    expected = torch.stack([reference.document_logits(model, tokens) for tokens in ids])
    num_windows = [math.ceil((n - W) / model.config.window_stride) + 1 for n in (4 * W, W + 1)]
    size_of_states = len(ids) * 4 * W * model.config.hidden_size * 8
    for most_kept, num_passes in ((size_of_states + 1, 1), (size_of_states, num_gru_layers + 1)):
        monkeypatch.setattr(modeling, "MOST_STATES_KEPT", most_kept)
        with encoded_batches(model) as shapes, torch.no_grad():
            logits = model(**batch(ids)).logits
        torch.testing.assert_close(logits, expected, **FLOAT64)
        assert sum(shape[0] for shape in shapes) == sum(num_windows) * num_passes
        assert max(shape[0] for shape in shapes) == 2  # one of each document at once


@pytest.mark.parametrize(
    ("fields", "windows_per_chunk"),
    [*((fields, 2) for fields in EVERY_READING), *zip(SOME_READINGS, (1, 3, 50, 1), strict=True)],
    ids=str,
)
def test_running_logits_equal_the_reference_and_end_in_the_models_own(fields, windows_per_chunk, monkeypatch):
    monkeypatch.setattr(modeling, "MOST_STATES_KEPT", 0)
    model = classifier(windows_per_chunk=windows_per_chunk, calibration_temperature=1.7, **fields).double()
    ids = documents(1 + W // 2, 3 * W + 1)
    inputs = batch(ids, side="scattered", extra=2)
    running = model.running_logits(**inputs)
    monkeypatch.undo()
    torch.testing.assert_close(model.running_logits(**inputs), running, **FLOAT64)
    for row, mask in enumerate(inputs["attention_mask"] == 1):
        torch.testing.assert_close(running[row, mask], reference.running_logits(model, ids[row]), **FLOAT64)
        torch.testing.assert_close(running[row, mask][-1], model(**inputs).logits[row], **FLOAT64)
        assert (running[row, ~mask] == 0).all()


@pytest.mark.parametrize("horizons", [[1], [0, 2], [0, 9, 3]], ids=str)
def test_a_running_prediction_forgets_as_the_models_own_whatever_the_horizon(horizons):
    model = classifier(summary="attention", attention_horizons=horizons, windows_per_chunk=64).double()
    (ids,) = documents(50 * W)
    running = model.running_logits(ids[None])[0]
    assert running.isfinite().all()
    torch.testing.assert_close(running[-1], model(ids[None]).logits[0], **FLOAT64)
    model.config.windows_per_chunk = 1  # as the reference has it, which would take minutes
    torch.testing.assert_close(model.running_logits(ids[None])[0], running, **FLOAT64)


def test_short_rows_of_a_wide_batch_are_encoded_as_short():
    model = classifier().double()
    inputs = batch(documents(6, 9), side="left", extra=300)
    with encoded_batches(model) as shapes:
        logits = model(**inputs).logits
    assert [tuple(shape) for shape in shapes] == [(2, 9)]
    expected = torch.cat([model(ids[mask == 1][None]).logits for ids, mask in zip(*inputs.values(), strict=True)])
    torch.testing.assert_close(logits, expected, **FLOAT64)


def test_windows_do_not_depend_on_torchs_default_device():
    model = classifier()
    (tokens,) = documents(3 * W)
    expected = model(tokens[None]).logits
    cut = Windows(torch.tensor([3 * W]), model.config).cut(0, 2, torch.device("cpu"))
    with torch.device("meta"):
        again = Windows(torch.tensor([3 * W], device="cpu"), model.config).cut(0, 2, torch.device("cpu"))
    assert all(torch.equal(one, other) for one, other in zip(cut, again, strict=True))
    assert expected.isfinite().all()


def test_what_a_left_to_right_gru_carried_is_kept_no_longer_than_needed():
    model = classifier(windows_per_chunk=1)
    (tokens,) = documents(20 * W)
    carried, held = [], []

    def note_held(_module, args):
        held.append(sum(reference() is not None for reference in carried))
        carried.extend(weakref.ref(state) for state in args[2:] if state is not None)

    model.gru.register_forward_pre_hook(note_held)
    with torch.no_grad():
        model(tokens[None])
    assert len(held) > 20
    assert max(held) <= 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_chunks_of_half_precision_models_stay_near_float32(dtype):
    model = classifier(gru_bidirectional=True, summary="mean", windows_per_chunk=1)
    inputs = batch(documents(5, 4 * W))
    with torch.no_grad():
        model.head.out_proj.weight *= 10
        expected = model(**inputs).logits
        head = model(**{name: tensor[:, :W] for name, tensor in inputs.items()}).logits
        assert (head[1] - expected[1]).abs().max() > 3 * BFLOAT16["atol"]  # what was read must not be lost
        with torch.autocast("cpu", dtype=dtype):
            torch.testing.assert_close(model(**inputs).logits.float(), expected, **BFLOAT16)
        logits = model.to(dtype)(**inputs).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, **BFLOAT16)


def test_activation_checkpointing_bounds_what_is_encoded_at_once_and_leaves_gradients_unchanged():
    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "head_dropout": 0.0}
    model = classifier(windows_per_chunk=2, **without_dropout).double().train()
    inputs = batch(documents(5, 5 * W + 3))
    expected = gradients(model, model(**inputs).logits.sum())
    enable_checkpointing(model)
    with encoded_batches(model) as shapes:
        found = gradients(model, model(**inputs).logits.sum())
    assert max(shape[0] for shape in shapes) == 2
    assert_gradients(found, expected, **FLOAT64)


def test_attentions_of_long_documents_are_refused():
    model = classifier(attn_implementation="eager")
    inputs = batch(documents(5, W + 1))
    with pytest.raises(ValueError, match="Row 1 holds 21 tokens: attentions exist for documents of up to 20 tokens"):
        model(**inputs, output_attentions=True)
    model.config.output_attentions = True
    with pytest.raises(ValueError, match="attentions exist"):
        model(**inputs)
    model(**inputs, output_attentions=False)
    wide = batch(documents(5, 9), extra=30)
    assert model(**wide).attentions[0].shape[-1] == wide["input_ids"].shape[1]


def test_a_compiled_model_says_that_it_cannot_cut_documents():
    model = torch.compile(classifier(), backend="eager")
    with pytest.raises(ValueError, match=r"compile `model.roberta` alone"):
        model(documents(W + 1)[0][None])


# Losses


def test_initial_loss_is_the_logarithm_of_the_number_of_labels():
    config = tiny_config(num_labels=4, initializer_range=0.02)
    inputs = batch(documents(*[12] * 16))
    loss = RobertaGRUForSequenceClassification(config)(**inputs, labels=torch.arange(16) % 4).loss
    assert abs(loss.item() - math.log(4)) < 0.05


PROBLEMS = {
    "single_label_classification": torch.tensor([0, 2, 1, 2]),
    "multi_label_classification": torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]]),
    "regression": torch.tensor([[0.5, 1, 2], [3, 1, 0], [0, 0, 0], [-1, 2, 0.1]]),
}


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_parts_of_a_batch_add_up_to_the_whole(problem_type):
    labels = PROBLEMS[problem_type]
    smoothing = 0.0 if problem_type == "regression" else 0.1
    config = tiny_config(
        num_labels=3, problem_type=problem_type, class_weights=[0.5, 1.0, 3.0], label_smoothing=smoothing
    )
    logits = torch.randn(4, 3, dtype=torch.float64)
    whole = classification_loss(logits, labels, config)
    parts = [
        classification_loss(logits[rows], labels[rows], config, num_items_in_batch=labels.numel())
        for rows in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), whole, **FLOAT64)
    ignored = torch.full_like(labels, -100)
    for num_items in (None, 0, torch.tensor(0)):
        assert classification_loss(logits, ignored, config, num_items_in_batch=num_items) == 0


def test_loss_is_weighted_per_item_and_divided_by_the_number_of_items():
    logits = torch.randn(4, 3, dtype=torch.float64)
    labels = PROBLEMS["single_label_classification"]
    weights = [0.5, 1.0, 3.0]
    smoothing = 0.1
    log_probabilities = logits.log_softmax(-1)
    expected = 0.0
    for row, label in enumerate(labels.tolist()):
        expected -= (1 - smoothing) * weights[label] * log_probabilities[row, label]
        expected -= sum(smoothing / 3 * weights[c] * log_probabilities[row, c] for c in range(3))
    config = tiny_config(num_labels=3, class_weights=weights, label_smoothing=smoothing)
    torch.testing.assert_close(classification_loss(logits, labels, config), expected / 4, **FLOAT64)

    targets = PROBLEMS["multi_label_classification"].double()
    smoothed = targets * 0.9 + 0.05
    elements = -(smoothed * torch.sigmoid(logits).log() + (1 - smoothed) * torch.sigmoid(-logits).log())
    config = tiny_config(
        num_labels=3, problem_type="multi_label_classification", class_weights=weights, label_smoothing=smoothing
    )
    expected = (elements * torch.tensor(weights)).sum() / 12
    torch.testing.assert_close(classification_loss(logits, targets, config), expected, **FLOAT64)


@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_ignored_entries_do_not_count(problem_type):
    labels = PROBLEMS[problem_type].clone()
    config = tiny_config(num_labels=3, problem_type=problem_type)
    logits = torch.randn(4, 3)
    expected = classification_loss(logits[:3], labels[:3], config)
    labels[3] = -100
    torch.testing.assert_close(classification_loss(logits, labels, config), expected)


def test_a_distribution_with_one_ignored_entry_does_not_count():
    shares = torch.rand(4, 3).softmax(-1)
    config = tiny_config(num_labels=3, problem_type="single_label_classification")
    logits = torch.randn(4, 3)
    expected = classification_loss(logits[:3], shares[:3], config)
    shares[3, 1] = -100
    torch.testing.assert_close(classification_loss(logits, shares, config), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("problem_type", PROBLEMS)
def test_losses_of_half_precision_are_computed_in_float32(problem_type, dtype):
    config = tiny_config(num_labels=3, problem_type=problem_type)
    logits, labels = torch.randn(4, 3, dtype=dtype), PROBLEMS[problem_type]
    # Equal to the bit, in the dtype too.
    assert_equal = partial(torch.testing.assert_close, rtol=0, atol=0)
    assert_equal(classification_loss(logits, labels, config), classification_loss(logits.float(), labels, config))


def test_one_regression_target_may_lack_its_axis():
    config = tiny_config(num_labels=1)
    logits, labels = torch.randn(4, 1), torch.randn(4)
    torch.testing.assert_close(classification_loss(logits, labels, config), ((logits[:, 0] - labels) ** 2).mean())


def test_labels_of_another_shape_are_refused():
    logits = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"`labels` has shape \(4, 3\)"):
        classification_loss(logits, torch.zeros(4, 3, dtype=torch.long), tiny_config(num_labels=3))
    with pytest.raises(ValueError, match=r"`labels` has shape \(4,\).*`problem_type`"):
        classification_loss(logits, torch.zeros(4), tiny_config(num_labels=3))
    with pytest.raises(ValueError, match="`problem_type` 'regression'"):  # of a checkpoint that was one
        classification_loss(logits, torch.zeros(4).long(), tiny_config(num_labels=3, problem_type="regression"))


def test_forward_leaves_the_configuration_alone():
    for labels in PROBLEMS.values():
        model = RobertaGRUForSequenceClassification(tiny_config(num_labels=3))
        before = model.config.to_dict()
        model(**batch(documents(5, 5, 5, 5)), labels=labels).loss.backward()
        assert model.config.to_dict() == before


def test_every_parameter_gets_a_gradient():
    for model_class, labels in (
        (RobertaGRUForSequenceClassification, torch.tensor([0, 1, 2])),
        (RobertaGRUForTokenClassification, torch.randint(3, (3, 20))),
    ):
        model = model_class(tiny_config(num_labels=3, summary="attention", gru_bidirectional=True, num_gru_layers=2))
        found = gradients(model, model(**batch(documents(20, 15, 9)), labels=labels).loss)
        silent = {name for name, _ in model.named_parameters() if name not in found or not found[name].any()}
        assert silent == {"roberta.embeddings.token_type_embeddings.weight"} - {
            name for name in found if found[name].any()
        }


WITHOUT_DROPOUT = dict.fromkeys(
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "gru_dropout", "head_dropout"), 0.0
)


@pytest.mark.parametrize("model_class", [RobertaGRUForSequenceClassification, RobertaGRUForTokenClassification])
def test_calibration_divides_single_label_logits_in_eval_mode_only(model_class):
    model = model_class(tiny_config(num_labels=3, **WITHOUT_DROPOUT)).eval()
    inputs = batch(documents(5, 9))
    raw = model(**inputs).logits
    model.config.calibration_temperature = 2.0
    torch.testing.assert_close(model(**inputs).logits, raw / 2)
    model.config.problem_type = "multi_label_classification"
    torch.testing.assert_close(model(**inputs).logits, raw)
    model.config.problem_type = None
    torch.testing.assert_close(model.train()(**inputs).logits, raw)
    assert model.config.calibration_temperature == 1.0


@pytest.mark.parametrize("model_class", [RobertaGRUForSequenceClassification, RobertaGRUForTokenClassification])
@pytest.mark.parametrize("head_hidden_size", [0, 5])
def test_head_dropout_acts_in_training_only(model_class, head_hidden_size):
    fields = {"num_labels": 3, "head_hidden_size": head_hidden_size, **WITHOUT_DROPOUT, "head_dropout": 0.5}
    model = model_class(tiny_config(**fields)).eval()
    inputs = batch(documents(5, 9))
    expected = model(**inputs).logits
    assert torch.equal(model(**inputs).logits, expected)
    model.train()
    assert not torch.allclose(model(**inputs).logits, expected)
    model.head.dropout.p = 0.0
    torch.testing.assert_close(model(**inputs).logits, expected)  # by nothing else


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_gru_dropout_acts_in_training_and_between_layers_only(num_layers):
    fields = {"num_gru_layers": num_layers, "gru_bidirectional": True, "gru_dropout": 0.5, "skip_connection": False}
    gru = RobertaGRUModel(tiny_config(**fields)).gru.eval()
    states, lengths = torch.randn(2, 9, 12), torch.tensor([9, 5])
    expected = gru(states, lengths)[0].split(7, dim=-1)
    found = gru.train()(states, lengths)[0].split(7, dim=-1)
    for direction, wanted in zip(found, expected, strict=True):
        assert torch.equal(direction, wanted) is (num_layers == 1)
        assert direction.all()  # nothing is dropped behind the last layer


# Initialisation and loading


def test_queries_start_as_the_encoders_weights_do():
    config = tiny_config(summary="attention", gru_hidden_size=200, initializer_range=0.02)
    query = RobertaGRUForSequenceClassification(config).summary.query
    deviation, mean = torch.std_mean(query)
    error = 0.02 / query.numel() ** 0.5
    assert deviation.item() == pytest.approx(0.02, abs=5 * error)
    assert mean.item() == pytest.approx(0, abs=5 * error)


def test_gru_gates_start_as_designed():
    model = RobertaGRUModel(tiny_config(gru_bidirectional=True, num_gru_layers=2))
    for gru in [*model.gru.left_to_right, *model.gru.right_to_left]:
        for gate in gru.weight_hh_l0.chunk(3):
            torch.testing.assert_close(gate @ gate.T, torch.eye(7), **FLOAT32)
        for gate in gru.weight_ih_l0.chunk(3):
            bound = math.sqrt(6 / sum(gate.shape))  # Glorot and Bengio 2010
            assert 0.8 * bound < gate.abs().max() <= bound
        assert not gru.bias_ih_l0.any()
        assert not gru.bias_hh_l0.any()


@pytest.fixture
def bare_encoder(tmp_path):
    encoder = RobertaModel(RobertaConfig(**TINY_ENCODER), add_pooling_layer=False)
    encoder.save_pretrained(tmp_path / "encoder")
    return encoder, tmp_path / "encoder"


@pytest.mark.parametrize(
    "model_class", [RobertaGRUModel, RobertaGRUForSequenceClassification, RobertaGRUForTokenClassification]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_head_on_a_bare_encoder_is_finite_and_equal_for_equal_seeds(model_class, dtype, bare_encoder):
    encoder, folder = bare_encoder
    loaded = []
    for _ in range(2):
        torch.manual_seed(3)
        model = model_class.from_pretrained(
            folder, summary="attention", gru_bidirectional=True, gru_hidden_size=7, dtype=dtype
        )
        loaded.append(model.state_dict())
        for gru in model.gru.left_to_right:
            gate = gru.weight_hh_l0.chunk(3)[0].float()
            torch.testing.assert_close(gate @ gate.T, torch.eye(7), rtol=0.02, atol=0.02)
    for name, tensor in loaded[0].items():
        assert tensor.isfinite().all(), name
        assert torch.equal(tensor, loaded[1][name]), name
        if name.startswith("roberta."):
            assert torch.equal(tensor, encoder.state_dict()[name.removeprefix("roberta.")].to(dtype)), name


@pytest.mark.parametrize(
    ("relative", "config_class"),
    [
        (RobertaForSequenceClassification, RobertaConfig),
        (XLMRobertaForMaskedLM, XLMRobertaConfig),
        (CamembertModel, CamembertConfig),
    ],
)
def test_relatives_of_roberta_give_their_encoder_and_nothing_else(relative, config_class, tmp_path):
    parent = relative(config_class(**TINY_ENCODER))
    parent.save_pretrained(tmp_path)
    model = RobertaGRUForSequenceClassification.from_pretrained(tmp_path, gru_hidden_size=12, head_hidden_size=12)
    encoder = {
        name.removeprefix("roberta."): tensor
        for name, tensor in parent.state_dict().items()
        if "embeddings." in name or "encoder." in name
    }
    for name, tensor in model.roberta.state_dict().items():
        assert torch.equal(tensor, encoder[name]), name
    # A stock head of the same sizes is not ours: our head starts fresh.
    assert not any(torch.equal(model.head.dense.weight, tensor) for tensor in parent.state_dict().values())


def test_saved_parameters_come_back_bit_equal(tmp_path):
    model = classifier(summary="attention", gru_bidirectional=True, num_gru_layers=2, calibration_temperature=1.3)
    model.save_pretrained(tmp_path)
    again = RobertaGRUForSequenceClassification.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    inputs = batch(documents(5, 9))
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "configuration_roberta_gru.py",
        "model.safetensors",
        "modeling_roberta_gru.py",
    ]


def test_a_folder_without_any_of_the_weights_starts_at_random_with_the_librarys_warning(tmp_path, caplog):
    classifier(summary="attention").save_pretrained(tmp_path)
    save_file({"elephant": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = []
    for _ in range(2):
        torch.manual_seed(3)
        loaded.append(RobertaGRUForSequenceClassification.from_pretrained(tmp_path).state_dict())
    assert "MISSING" in caplog.text
    for name, tensor in loaded[0].items():
        assert tensor.isfinite().all(), name
        assert torch.equal(tensor, loaded[1][name]), name


def test_a_checkpoint_of_one_class_warm_starts_another(tmp_path):
    model = classifier(summary="attention", attention_horizons=[0])
    model.save_pretrained(tmp_path)
    for model_class in (RobertaGRUModel, RobertaGRUForTokenClassification):
        again = model_class.from_pretrained(tmp_path)
        shared = again.state_dict().keys() & model.state_dict().keys()
        assert {name.split(".")[0] for name in shared} >= {"roberta", "gru"}
        assert all(torch.equal(again.state_dict()[name], model.state_dict()[name]) for name in shared)


def test_device_map_loading_equals_plain_loading(tmp_path):
    model = classifier(gru_bidirectional=True)
    model.save_pretrained(tmp_path)
    again = RobertaGRUForSequenceClassification.from_pretrained(tmp_path, device_map="cpu")
    inputs = batch(documents(5, 9))
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


class Elsewhere:
    """A tensor of another device: what is computed with it and with one of this device is an error."""

    device = torch.device("meta")

    def __init__(self, values: torch.Tensor):
        self.values = values

    def to(self, *where):
        moved = self.values.to(*where)
        return moved if any(isinstance(one, torch.device) for one in where) else Elsewhere(moved)

    def __getattr__(self, name: str):
        assert name in ("dtype", "shape"), f"{name} of a tensor on another device"
        return getattr(self.values, name)

    def __truediv__(self, number: float) -> "Elsewhere":
        return Elsewhere(self.values / number)


def spread(model) -> None:
    """Put what follows the encoder on another device, as `device_map` does: inputs are moved there, outputs stay."""

    def move(_, inputs):
        return tuple(one.values if isinstance(one, Elsewhere) else one for one in inputs)

    def leave(_, inputs, outputs):
        if isinstance(outputs, torch.Tensor):
            return Elsewhere(outputs)
        moved = [None if one is None else Elsewhere(one) for one in outputs]
        return type(outputs)(*moved) if hasattr(outputs, "_fields") else tuple(moved)

    for name in ("gru", "summary", "head"):
        if hasattr(model, name):
            getattr(model, name).register_forward_pre_hook(move)
            getattr(model, name).register_forward_hook(leave)


@pytest.mark.parametrize("lengths", [(5, 9), (5, 75)], ids=["one chunk", "several chunks"])
@pytest.mark.parametrize("fields", SOME_READINGS, ids=str)
@torch.no_grad()
def test_parts_of_the_model_may_lie_on_other_devices(fields, lengths):
    config = tiny_config(num_labels=3, windows_per_chunk=1, **fields)
    inputs = batch(documents(*lengths))
    model, of_tokens = (
        model_class(config).eval()
        for model_class in (RobertaGRUForSequenceClassification, RobertaGRUForTokenClassification)
    )
    expected = model.running_logits(**inputs), of_tokens(**inputs).logits
    for one in (model, of_tokens):
        spread(one)
    assert torch.equal(model.running_logits(**inputs), expected[0])
    assert torch.equal(of_tokens(**inputs).logits, expected[1])


def test_the_model_runs_on_the_meta_device():
    with torch.device("meta"):
        model = RobertaGRUForSequenceClassification(tiny_config())
        assert model(torch.zeros(2, 5, dtype=torch.long)).logits.shape == (2, 2)


@pytest.mark.parametrize("fields", SOME_READINGS, ids=str)
def test_states_that_the_encoder_gave_stand_for_the_tokens(fields):
    model = classifier(**fields).double()
    inputs = batch(documents(3, 20, 21, 75), side="scattered", extra=2)
    labels = torch.tensor([0, 1, 2, 0])
    expected = model(**inputs, labels=labels, output_hidden_states=True)
    wanted = gradients(model, expected.loss)
    mask = {"attention_mask": inputs["attention_mask"]}
    given = model(**mask, labels=labels, encoder_states=expected.hidden_states[-1].detach())
    torch.testing.assert_close(given.logits, expected.logits, **FLOAT64)
    found = gradients(model, given.loss)
    trained = {name for name in wanted if not name.startswith("roberta.")}
    torch.testing.assert_close(*({name: those[name] for name in trained} for those in (found, wanted)), **FLOAT64)
    assert not any(those is not None and those.any() for name, those in found.items() if name not in trained)
    with pytest.raises(ValueError, match="exactly one"):
        model(**inputs, encoder_states=expected.hidden_states[-1])


# Bad input


def test_bad_input_is_refused_with_the_row_or_field():
    model = classifier()
    ids = torch.full((3, 5), 4)
    mask = torch.ones(3, 5)
    mask[1] = 0
    with pytest.raises(ValueError, match="Row 1 of `attention_mask` has no real token"):
        model(ids, attention_mask=mask)
    with pytest.raises(ValueError, match="Token id 61 is outside the vocabulary of 61 entries"):
        model(torch.tensor([[0, 61, 2]]))
    with pytest.raises(ValueError, match="`position_ids` are not accepted"):
        model(ids, position_ids=ids)
    for types in (torch.zeros(3, 6, dtype=torch.long), torch.zeros(1, 5, dtype=torch.long)):
        with pytest.raises(ValueError, match="`token_type_ids` has shape"):
            model(ids, token_type_ids=types)
    with pytest.raises(ValueError, match="`token_type_ids` holds 1, and this encoder knows the types 0 to 0"):
        model(ids, token_type_ids=torch.ones(3, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="The batch holds no document"):
        model(ids[:0])
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        model()
    with pytest.raises(ValueError, match=r"`attention_mask` has shape \(3, 1, 5, 5\); it must be \(3, 5\)"):
        model(ids, attention_mask=torch.ones(3, 1, 5, 5))


# Export


# Tracing is what ONNX export still rests on: `torch.export` freezes the time axis of a GRU.
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # read by the tracer itself
def test_a_trace_serves_other_batch_sizes_and_lengths():
    model = classifier(gru_bidirectional=True, return_dict=False, attn_implementation="eager")
    traced = torch.jit.trace(model, example_kwarg_inputs=batch(documents(6, 9)), check_trace=False)
    inputs = batch(documents(5, 20, 11))
    torch.testing.assert_close(traced(**inputs)[0], model(**inputs)[0], **FLOAT32)


def test_releases_of_torch_that_tell_of_gpus_only_are_asked_about_these(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda: True)  # before 2.4 it took no device
    assert modeling._has_autocast(torch.device("cuda"))
