"""What a run is resumed with: the options it was begun with, but for those that change no weight."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from modeling_roberta_gru import experiment
from modeling_roberta_gru.training.arguments import parse_run
from modeling_roberta_gru.training.record import shared_options
from modeling_roberta_gru.training.run_folder import find_checkpoint

from .refusals import refused

BEGUN = {
    **{"num_train_epochs": 2, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "use_cpu": True},
    **{"gru_hidden_size": 5, "head_hidden_size": 4, "summary": "mean", "disable_tqdm": True},
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory, reviews, stand_in):
    """Return the folder of a run that has been trained, and the options that name its model and data."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    options = {**BEGUN, "dataset_name": reviews, "model_name_or_path": stand_in, "output_dir": folder}
    experiment.train(*_parsed(options))
    return options


def _parsed(options):
    return parse_run([word for name, value in options.items() for word in (f"--{name}", str(value))])[:3]


def _resume(options):
    """Do what a resumed run does before it reads its data."""
    model_args, data_args, args = _parsed({**options, "resume_from_checkpoint": "true"})
    args.shared_options = shared_options(model_args, data_args, args)
    return find_checkpoint(args)


@pytest.mark.parametrize(
    "changed",
    [
        *({"summary": "max"}, {"head_dropout": 0.3}, {"config_overrides": "hidden_dropout_prob=0.3"}),
        *({"max_length": 16}, {"max_windows": 1}, {"label_smoothing_factor": 0.1}, {"class_weights": "balanced"}),
        *({"length_curriculum": 1}, {"train_sampling_strategy": "random"}, {"optimizer": "adamw"}, {"lora": 2}),
        *({"lr_scheduler_type": "constant"}, {"warmup_steps": 3}, {"learning_rate": 1e-3}, {"max_grad_norm": 0.5}),
        *({"num_train_epochs": 1}, {"max_steps": 1}, {"seed": 1}, {"metric_for_best_model": "accuracy"}),
        *({"per_device_train_batch_size": 16}, {"per_device_train_batch_size": 4}),
    ],
    ids=str,
)
def test_a_run_is_not_resumed_with_options_that_would_change_it(begun, changed):
    with refused(field=next(iter(changed)), match="start a new run in another --output_dir"):
        _resume({**begun, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        *({}, {"num_train_epochs": 3}, {"max_steps": 99}, {"eval_strategy": "steps", "eval_steps": 500}),
        *(
            {"logging_steps": 1},
            {"save_total_limit": 9},
            {"dataloader_num_workers": 1},
            {"early_stopping_patience": 1},
        ),
        *({"load_best_model_at_end": False}, {"bf16": True}, {"card_license": "mit"}, {"trust_remote_code": True}),
        *({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}, {"auto_find_batch_size": True}),
        {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1},
    ],
    ids=str,
)
def test_a_run_may_be_resumed_with_other_options_and_longer(begun, changed):
    saves = {"save_strategy": "steps"} if "eval_steps" in changed else {}
    assert Path(_resume({**begun, **saves, **changed})).parent == begun["output_dir"]


def test_a_checkpoint_that_does_not_say_its_options_is_resumed(begun, tmp_path):
    options = {**begun, "output_dir": tmp_path, "summary": "max"}
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "optimizer.pt").touch()
    attributes = {"files": ["optimizer.pt"], "seed": 42, "data_seed": 42, "data": None}
    state = {"stateful_callbacks": {"CheckpointFiles": {"args": {}, "attributes": attributes}}}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    assert _resume(options) == str(checkpoint)


def test_a_batch_that_the_rows_do_not_fill_is_refused_before_an_earlier_run_is_touched(begun):
    before = sorted(begun["output_dir"].rglob("*"))
    options = {**begun, "overwrite_output_dir": True, "dataloader_drop_last": True, "per_device_train_batch_size": 999}
    with refused(field="dataloader_drop_last"):
        experiment.train(*_parsed(options))
    with refused(field="optim"):
        experiment.train(*_parsed({**begun, "overwrite_output_dir": True, "optimizer": "optim", "optim": "lomo"}))
    assert sorted(begun["output_dir"].rglob("*")) == before


def test_numbers_that_json_does_not_have_are_null_in_the_history(begun, tmp_path):
    trained = experiment.train(*_parsed({**begun, "output_dir": tmp_path / "run", "max_steps": 1}))
    trained.trainer.state.log_history += [{"loss": float("nan"), "grad_norm": float("inf"), "step": 9}]
    folder = tmp_path / "written"
    folder.mkdir()
    trained.write(folder)
    (*_, last) = (folder / "history.jsonl").read_text().splitlines()
    assert json.loads(last, parse_constant=pytest.fail) == {"grad_norm": None, "loss": None, "step": 9}


def test_a_resumed_run_records_the_batch_size_that_it_trains_with(begun):
    smaller = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "num_train_epochs": 3}
    model_args, data_args, args = _parsed({**begun, **smaller, "resume_from_checkpoint": "true"})
    with ExitStack() as held:
        trained = experiment.train(model_args, data_args, args, held=held)
    assert trained.describe(model_args, args, 0.0)["hyperparameters"]["batch_size"] == 16
