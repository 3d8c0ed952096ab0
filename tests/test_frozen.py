"""Checkpoints of this release and of earlier ones keep loading, and say what they said."""

import json
import sys

import pytest
import torch

from modeling_roberta_gru import __version__
from modeling_roberta_gru.hub.folder import check_model

from .freeze import FROZEN, compute, describe_arithmetic, freeze, read_tokens
from .strangers import ask

RELEASES = sorted(path.name for path in FROZEN.iterdir())
COMPUTED = ("logits", "running_logits", "summary", "token_logits")
# Where torch or the processor is another than when it was recorded, sums of floats are taken in another order.
OTHER_PLATFORM = {"rtol": 1e-6, "atol": 1e-6}


def read(release):
    return json.loads((FROZEN / release / "recorded.json").read_text(encoding="utf-8"))


def check(outputs, recorded):
    here = {"rtol": 0.0, "atol": 0.0} if recorded["platform"] == describe_arithmetic() else OTHER_PLATFORM
    for name in outputs.keys() & set(COMPUTED):
        torch.testing.assert_close(torch.tensor(outputs[name]), torch.tensor(recorded[name]), **here, msg=name)


def test_this_release_is_frozen():
    assert __version__ in RELEASES


@pytest.mark.parametrize("release", RELEASES)
def test_a_frozen_model_is_small_whole_and_uses_every_part(release):
    files = [path for path in (FROZEN / release).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 150_000
    check_model(FROZEN / release / "model")
    logits = torch.tensor(read(release)["logits"])
    assert logits.std(dim=0).min() > 1e-2


@pytest.mark.parametrize("release", RELEASES)
def test_the_package_makes_the_same_of_it_bit_for_bit(release):
    recorded = read(release)
    outputs = compute(FROZEN / release / "model", recorded["input_ids"])
    assert outputs.keys() == set(COMPUTED)
    check(outputs, recorded)
    assert read_tokens(FROZEN / release / "model", recorded["texts"]) == recorded["tokens"]


def ask_it(python, release, home):
    recorded = read(release)
    options = ("--input-ids", json.dumps(recorded["input_ids"]), "--by")
    loaders = ("AutoModelForSequenceClassification", "AutoModelForTokenClassification", "AutoModel")
    return ask(python, FROZEN / release / "model", *options, *loaders, home=home), recorded


@pytest.mark.parametrize("release", RELEASES)
def test_the_code_frozen_with_it_does_so_too_where_the_package_is_not(release, tmp_path):
    outputs, recorded = ask_it(sys.executable, release, tmp_path)
    assert outputs.keys() == {"transformers", "logits", "summary", "token_logits"}
    check(outputs, recorded)


def test_freezing_makes_such_a_folder(tmp_path):
    freeze(tmp_path)
    check_model(tmp_path / "model")
    recorded = json.loads((tmp_path / "recorded.json").read_text(encoding="utf-8"))
    assert recorded.keys() == read(__version__).keys()
    assert recorded["platform"] == describe_arithmetic()
