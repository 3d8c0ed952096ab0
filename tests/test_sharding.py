"""A model in shards trains, evaluates and is saved as one that is not."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.arguments import DataArguments, ModelArguments
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.training import sharding
from modeling_roberta_gru.training.adapter import count_parameters
from modeling_roberta_gru.training.architectures import check_options
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments
from modeling_roberta_gru.training.sharding import check_sharding, is_sharded, whole_model

from .sharded import CASES, LENGTHS, train
from .tiny import ONLY_TRAIN, ROOT, on_two_ranks, tiny_config


@pytest.mark.slow
def test_two_ranks_that_hold_it_in_shards_train_as_one_process(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "tests.sharded", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,  # ranks that wait for each other wait for ever
    )
    assert process.returncode == 0, process.stderr
    said = json.loads(process.stdout.splitlines()[-1])
    for name in CASES:
        model, alone = train(name, [0, 1])
        losses = sum(torch.tensor(rank["losses"], dtype=torch.float64) for rank in said[name])
        torch.testing.assert_close(losses, torch.tensor(alone["losses"], dtype=torch.float64), atol=1e-10, rtol=0)
        assert [rank["is_finite"] for rank in said[name]] == [True, True]
        assert [rank["is_finite_with_nan_on_one"] for rank in said[name]] == [False, False]
        assert said[name][0]["num_trained"] == count_parameters(model)[1]
        first, other = (rank["num_calls"] for rank in said[name])
        assert first == other
        assert first[::2] == [1] * len(LENGTHS)  # with gradients
        assert max(first) > 1
        saved = RobertaGRUForSequenceClassification.from_pretrained(tmp_path / name, dtype=torch.float64)
        assert saved.config.architectures == ["RobertaGRUForSequenceClassification"]
        for key, value in model.state_dict().items():
            torch.testing.assert_close(saved.state_dict()[key], value, atol=1e-10, rtol=0)


@pytest.mark.slow
def test_zero_2_trains_as_data_parallelism_does(tmp_path, stand_in):
    pytest.importorskip("deepspeed")
    folder = tmp_path / "data"
    folder.mkdir()
    for split, num_rows in (("train", 32), ("test", 8)):  # of one window to four
        rows = [
            f"{'good' if row % 2 else 'bad'} {'film ' * (7 * row % 120)}{split} {row},{row % 2}"
            for row in range(num_rows)
        ]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    options = {
        "dataset_name": folder,
        "model_name_or_path": stand_in,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        **ONLY_TRAIN,
    }
    ways = {"sharded": {"deepspeed": ROOT / "configs" / "deepspeed" / "zero2.json"}, "parallel": {}}
    losses = {}
    for name, way in ways.items():
        words = [f"--{option}={value}" for option, value in {**options, **way, "output_dir": tmp_path / name}.items()]
        on_two_ranks(ROOT / "train.py", *words)
        lines = (tmp_path / name / "history.jsonl").read_text().splitlines()
        losses[name] = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert len(losses["sharded"]) == options["max_steps"]
    torch.testing.assert_close(torch.tensor(losses["sharded"]), torch.tensor(losses["parallel"]), rtol=1e-5, atol=0)


def test_a_model_that_nothing_shards_is_whole():
    model = RobertaGRUForSequenceClassification(tiny_config())
    assert whole_model(model) is model


def test_shards_that_cannot_be_put_together_again_are_refused(monkeypatch):
    def options(fsdp, **config):
        return SimpleNamespace(fsdp=fsdp, fsdp_config=config)

    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    check_sharding(options(True))
    check_sharding(options(""))
    assert (is_sharded(options(True)), is_sharded(options(""))) == (True, False)
    with pytest.raises(InputError, match="FSDP 1"):
        check_sharding(options(True, version=1))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="FSDP 1"):
        check_sharding(options(""))
    monkeypatch.setenv("FSDP_VERSION", "2")
    check_sharding(options(""))
    assert is_sharded(options(""))
    monkeypatch.setattr(sharding, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(InputError, match="ZeRO-3"):
        check_sharding(options(""))


def test_an_adapter_is_not_merged_into_shards(monkeypatch):
    options = ModelArguments(), DataArguments(), RobertaGRUTrainingArguments(lora=2, use_cpu=True)
    check_options(*options)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="--lora cannot be combined with FSDP"):
        check_options(*options)
