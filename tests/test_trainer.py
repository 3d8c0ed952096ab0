"""Training: what it learns, what stays equal however the batch is cut, and what resumes."""

import json
import resource
import shutil

import pytest
import torch
from datasets import Dataset
from datasets.arrow_dataset import Column
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments, set_seed, trainer_pt_utils

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments
from modeling_roberta_gru.training.dropout import CPUDropout
from modeling_roberta_gru.training.run_folder import find_checkpoint
from modeling_roberta_gru.training.trainer import WITHOUT_EVALUATION, EarlyStopping, RobertaGRUTrainer

from .tiny import on_two_ranks, tiny_config
from .trajectory import PROBLEM_TYPES, WITHOUT_DROPOUT, collate, losses_and_norms, make_trainer, tiny_dataset

needs_rebalancing = pytest.mark.skipif(
    not hasattr(trainer_pt_utils, "BatchRebalanceSampler"), reason="transformers 5.0 has no such sampler"
)


@pytest.mark.parametrize("summary", ["last", "attention"])
def test_one_batch_is_learned_by_heart(summary, tmp_path):
    config = {**WITHOUT_DROPOUT, "summary": summary, "initializer_range": 0.1}
    trainer = make_trainer(str(tmp_path), tiny_dataset(16), config, max_steps=60, lr_scheduler_type="constant")
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[0] > 1.0
    assert losses[-1] < 0.05


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_accumulated_batches_train_as_one(problem_type, tmp_path):
    whole = losses_and_norms(str(tmp_path / "a"), problem_type, 16, 1)
    parts = losses_and_norms(str(tmp_path / "b"), problem_type, 4, 4)
    torch.testing.assert_close(torch.tensor(parts), torch.tensor(whole), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path):
    whole = {name: losses_and_norms(str(tmp_path / name), name, 16, 1) for name in PROBLEM_TYPES}
    ranks = json.loads(on_two_ranks("-m", "tests.trajectory", tmp_path / "ranks").splitlines()[-1])
    for name in PROBLEM_TYPES:
        torch.testing.assert_close(torch.tensor(ranks[name]), torch.tensor(whole[name]), rtol=1e-6, atol=1e-9)


def test_equal_seeds_give_equal_runs_and_other_seeds_others(tmp_path):
    def parameters(seed):
        trainer = make_trainer(str(tmp_path / str(seed)), seed=seed)
        trainer.train()
        return torch.cat([parameter.flatten() for parameter in trainer.model.parameters()])

    assert torch.equal(parameters(1), parameters(1))
    assert not torch.equal(parameters(1), parameters(2))


def test_dropout_on_the_cpu_is_our_own_and_drops_the_same_when_a_layer_runs_again(tmp_path):
    def trained(name, **options):
        trainer = make_trainer(str(tmp_path / name), config={"hidden_dropout_prob": 0.3}, max_steps=3, **options)
        trainer.train()
        return trainer.model

    model = trained("kept")
    assert {type(module) for module in model.modules() if isinstance(module, nn.Dropout)} == {CPUDropout}
    again = trained("again", gradient_checkpointing=True)
    torch.testing.assert_close(list(again.parameters()), list(model.parameters()))


@pytest.mark.parametrize("optimizer", ["nadam", "sgd", "adam", "rmsprop", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(optimizer, tmp_path):
    options = {
        "optimizer": optimizer,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "save_total_limit": 9,
    }
    whole = make_trainer(str(tmp_path / "whole"), **options)
    whole.train()
    resumed = make_trainer(str(tmp_path / "resumed"), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for (name, expected), actual in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(actual, expected), name


@pytest.mark.parametrize(
    ("trained", "resumed"),
    [
        ({"optimizer": "adamw"}, {"optimizer": "adam"}),
        ({}, {"adam_beta1": 0.5}),
        ({}, {"adam_epsilon": 1e-3}),
        ({"optimizer": "sgd", "optim_args": "momentum=0.5"}, {"optimizer": "sgd", "optim_args": "momentum=0.9"}),
        ({}, {"optimizer": "optim", "optim": "adamw_torch"}),
        ({"optimizer": "optim"}, {"optimizer": "optim", "learning_rate": 1e-3}),
    ],
)
def test_a_run_is_not_resumed_with_another_optimizer_or_other_options_of_it(trained, resumed, tmp_path):
    common = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 9}
    make_trainer(str(tmp_path), **common, **trained).train()
    checkpoint = str(tmp_path / "checkpoint-2")
    make_trainer(str(tmp_path), **common, **trained).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(InputError, match=f"{checkpoint} was trained with .* start a new run in another --output_dir"):
        make_trainer(str(tmp_path), **common, **resumed).train(resume_from_checkpoint=checkpoint)


def test_a_checkpoint_of_weights_alone_is_not_resumed(tmp_path):
    make_trainer(str(tmp_path), save_strategy="steps", save_steps=2, save_total_limit=9, save_only_model=True).train()
    for wanted in ("auto", "true", str(tmp_path / "checkpoint-2")):
        args = RobertaGRUTrainingArguments(output_dir=str(tmp_path), resume_from_checkpoint=wanted)
        with pytest.raises(InputError, match="--save_only_model"):
            find_checkpoint(args)


def test_a_run_resumed_in_a_moved_folder_ends_with_its_best_weights(tmp_path):
    options = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    options |= {"save_total_limit": 9, "load_best_model_at_end": True}
    make_trainer(str(tmp_path / "run"), **options).train()
    state_file = tmp_path / "run" / "checkpoint-6" / "trainer_state.json"
    state = json.loads(state_file.read_text())
    best = {
        "best_global_step": 2,
        "best_model_checkpoint": str(tmp_path / "run" / "checkpoint-2"),
        "best_metric": -1.0,
    }
    state_file.write_text(json.dumps({**state, **best}))
    (tmp_path / "run").rename(tmp_path / "moved")
    trainer = make_trainer(str(tmp_path / "moved"), **options)
    trainer.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-6"))
    expected = load_file(tmp_path / "moved" / "checkpoint-2" / "model.safetensors")
    assert torch.equal(trainer.model.state_dict()["head.out_proj.weight"], expected["head.out_proj.weight"])
    shutil.rmtree(tmp_path / "moved" / "checkpoint-2")
    trainer = make_trainer(str(tmp_path / "moved"), **options)
    with pytest.raises(InputError, match="checkpoint-2, which holds the best weights so far, is missing"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-6"))


def test_a_run_whose_best_step_was_not_saved_is_resumed(tmp_path):
    options = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    options |= {"metric_for_best_model": "accuracy", "greater_is_better": True, "save_total_limit": 9}
    scores = iter([0.9, *[0.1] * 20])
    for resumed in (None, str(tmp_path / "checkpoint-2")):
        trainer = make_trainer(str(tmp_path), **options)
        trainer.compute_metrics = lambda prediction: {"accuracy": next(scores)}
        trainer.train(resume_from_checkpoint=resumed)
        assert trainer.state.best_global_step == 1
        assert trainer.state.best_model_checkpoint is None


@pytest.mark.parametrize("strategy", ["steps", "best"])
def test_weights_that_are_no_numbers_are_never_the_best(strategy, tmp_path):
    class Diverging(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            if state.global_step == 3:
                with torch.no_grad():
                    next(model.parameters()).fill_(float("nan"))

    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": strategy, "save_steps": 2, "max_steps": 8}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": True}
    trainer = make_trainer(str(tmp_path), **options)
    scores = iter([0.5, 0.6, 0.7, 0.8])
    trainer.compute_metrics = lambda prediction: {"accuracy": next(scores)}  # as guesses of one class may have
    trainer.add_callback(Diverging())
    trainer.train()
    assert (trainer.state.global_step, trainer.state.best_global_step) == (4, 2)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_patience_is_not_worn_by_the_epochs_that_read_short_documents_only(tmp_path):
    options = {"learning_rate": 1e-12, "max_steps": -1, "num_train_epochs": 8, "eval_strategy": "epoch"}
    options |= {"save_strategy": "epoch", "load_best_model_at_end": True, "save_total_limit": 9}
    for growing, last in ((0, 3), (4, 6)):
        trainer = make_trainer(str(tmp_path / str(growing)), config=WITHOUT_DROPOUT, **options)
        trainer.add_callback(EarlyStopping(growing, early_stopping_patience=2))
        trainer.train()
        assert trainer.state.epoch == last
        resumed = make_trainer(str(tmp_path / str(growing)), config=WITHOUT_DROPOUT, **options)
        resumed.add_callback(EarlyStopping(growing, early_stopping_patience=2))
        steps = trainer.state.global_step // last
        resumed.train(resume_from_checkpoint=str(tmp_path / str(growing) / f"checkpoint-{steps}"))
        assert resumed.state.epoch == last


def test_a_resumed_run_keeps_count_of_its_patience(tmp_path):
    # Nothing is learned, so every evaluation after the first wears patience down.
    options = {"learning_rate": 1e-12, "max_steps": 20, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    options |= {"save_strategy": "steps", "save_total_limit": 9, "load_best_model_at_end": True}

    def stopped_at(folder, **more):
        trainer = make_trainer(str(tmp_path / folder), config=WITHOUT_DROPOUT, **options, **more)
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=3))
        return trainer

    whole = stopped_at("run")
    whole.train()
    assert whole.state.global_step < 20
    # From the checkpoint at the end, too, after which no step is left.
    for step in (whole.state.global_step - 2, whole.state.global_step):
        resumed = stopped_at("run")
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert resumed.state.global_step == whole.state.global_step


def test_patience_may_be_given_or_changed_where_a_run_is_resumed(tmp_path):
    options = {"learning_rate": 1e-12, "max_steps": 20, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    options |= {"save_strategy": "steps", "save_total_limit": 9, "load_best_model_at_end": True}
    make_trainer(str(tmp_path), config=WITHOUT_DROPOUT, **{**options, "max_steps": 4}).train()
    for checkpoint, patience, last in ((4, 3, 10), (6, 5, 14)):  # the first run had none
        trainer = make_trainer(str(tmp_path), config=WITHOUT_DROPOUT, **options)
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=patience))
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{checkpoint}"))
        assert trainer.state.global_step == last


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
@pytest.mark.parametrize("length", [{"max_steps": 6}, {"num_train_epochs": 0.4}, {"num_train_epochs": 2}])
def test_a_run_resumed_at_its_end_trains_no_step_more_and_a_longer_one_does(length, strategy, tmp_path):
    options = {"save_strategy": strategy, "save_steps": 50, "eval_strategy": strategy, "eval_steps": 50, **length}
    whole = make_trainer(str(tmp_path / "whole"), **options)
    whole.train()
    last = whole.state.global_step
    (checkpoint,) = (tmp_path / "whole").glob(f"checkpoint-{last}")
    resumed = make_trainer(str(tmp_path / "resumed"), **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == last
    assert [row["step"] for row in resumed.state.log_history] == [row["step"] for row in whole.state.log_history]
    for expected, actual in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(actual, expected)
    longer = make_trainer(str(tmp_path / "resumed"), **{**options, "max_steps": last + 2})
    longer.train(resume_from_checkpoint=str(checkpoint))
    assert longer.state.global_step == last + 2


def test_a_checkpoint_that_lacks_any_of_its_files_is_not_whole_and_one_of_old_is(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 9}
    trainer = make_trainer(str(tmp_path), max_steps=4, **options)
    trainer.train()
    trainer.args.resume_from_checkpoint = "auto"
    last = tmp_path / "checkpoint-4"
    assert find_checkpoint(trainer.args) == str(last)
    files = [path for path in last.iterdir() if path.is_file()]
    assert len(files) > 5
    for file in files:  # in whatever order a process that died has deleted them
        file.rename(tmp_path / "deleted")
        assert find_checkpoint(trainer.args) == str(tmp_path / "checkpoint-2")
        (tmp_path / "deleted").rename(file)
    trainer.args.seed += 1
    with pytest.raises(InputError, match=r"checkpoint-4 was trained with --seed \d+, not \d+"):
        find_checkpoint(trainer.args)
    trainer.args.seed -= 1
    trainer.args.data_seed = trainer.args.seed + 1
    with pytest.raises(InputError) as caught:
        find_checkpoint(trainer.args)
    assert caught.value.field == "data_seed"
    trainer.args.data_seed = None
    state = json.loads((last / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["CheckpointFiles"]
    (last / "trainer_state.json").write_text(json.dumps(state))
    assert find_checkpoint(trainer.args) == str(last)
    make_trainer(str(tmp_path), max_steps=6, **options).train(resume_from_checkpoint=str(last))
    trainer.args.max_steps = 6
    assert find_checkpoint(trainer.args) == str(tmp_path / "checkpoint-6")


def test_a_short_trajectory_is_as_recorded(tmp_path):
    # Recorded from this very run, in float64: a change of model, initialisation, loss, NAdam or row order moves it.
    recorded = [(1.12886, 1.09215), (1.09533, 0.03774), (1.10807, 0.18980), (1.10861, 0.17572)]
    steps = losses_and_norms(str(tmp_path), "single_label_classification", 16, 1, weighted=False)
    torch.testing.assert_close(torch.tensor(steps), torch.tensor(recorded), rtol=0, atol=1e-4)


def test_frozen_parameters_stay_and_all_others_move(tmp_path):
    trainer = make_trainer(str(tmp_path))
    for parameter in trainer.model.roberta.parameters():
        parameter.requires_grad = False
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("roberta."), name


def test_of_what_a_model_returns_logits_alone_are_kept(tmp_path):
    class Remembering(RobertaGRUForSequenceClassification):
        def forward(self, *args, **kwargs):
            return {**super().forward(*args, **kwargs), "mems": torch.zeros(16, 9)}

    trainer = make_trainer(str(tmp_path), remove_unused_columns=False)
    trainer.model.__class__ = Remembering
    trainer.model.config.keys_to_ignore_at_inference = ["mems"]
    assert trainer.predict(tiny_dataset(16)).predictions.shape == (16, 3)


def test_evaluation_keeps_the_order_of_the_rows(tmp_path):
    trainer = make_trainer(str(tmp_path), train_sampling_strategy="group_by_length")
    dataset = tiny_dataset(50)
    assert trainer.predict(dataset).label_ids.tolist() == dataset["labels"][:]
    alone = [trainer.model(**collate([row])).logits[0] for row in dataset]
    torch.testing.assert_close(torch.tensor(trainer.predict_logits(dataset)), torch.stack(alone), rtol=1e-5, atol=1e-5)


def test_length_grouping_pads_less(tmp_path):
    def padding(strategy):
        trainer = make_trainer(str(tmp_path), tiny_dataset(640), train_sampling_strategy=strategy)
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in trainer.get_train_dataloader())

    assert padding("group_by_length") < padding("random") / 2


@pytest.mark.parametrize("strategy", ["group_by_length", pytest.param("batch_rebalance", marks=needs_rebalancing)])
def test_lengths_are_read_at_once_from_a_column_or_the_tokens(strategy, tmp_path, monkeypatch):
    dataset = tiny_dataset(64).shuffle(seed=1)
    tables = (dataset, dataset.remove_columns("length"), list(dataset))
    asked: list[object] = []  # keys of single reads, and 0 for an iteration

    def watch(kind: type, name: str) -> None:
        original = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *key: asked.append(*key or [0]) or original(self, *key))

    for kind in (Column, Dataset):
        watch(kind, "__getitem__")
        watch(kind, "__iter__")
    read = []
    for rows in tables:
        trainer = make_trainer(str(tmp_path), rows, train_sampling_strategy=strategy)
        set_seed(0)
        sampler = trainer.get_train_dataloader().batch_sampler
        read.append([list(batch) for batch in sampler])
    assert read[0] == read[1] == read[2]
    assert not [key for key in asked if isinstance(key, int)]  # a row at a time


@needs_rebalancing
def test_rebalanced_batches_depend_on_seed_and_epoch(tmp_path):
    def batches(seed, epoch):
        trainer = make_trainer(str(tmp_path), train_sampling_strategy="batch_rebalance", seed=seed)
        sampler = trainer.get_train_dataloader().batch_sampler
        trainer.state.epoch = epoch
        trainer.callback_handler.on_epoch_begin(trainer.args, trainer.state, trainer.control)  # after a resume, too
        return list(sampler)

    assert batches(1, 0) == batches(1, 0)
    assert batches(1, 0) != batches(2, 0)
    assert batches(1, 0) != batches(1, 1)


def test_rebalancing_without_the_releases_sampler_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr(trainer_pt_utils, "BatchRebalanceSampler", raising=False)
    with pytest.raises(InputError, match="batch_rebalance needs a newer transformers"):
        make_trainer(str(tmp_path), train_sampling_strategy="batch_rebalance")


def test_a_trainer_needs_neither_lengths_nor_options_nor_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = RobertaGRUForSequenceClassification(tiny_config(num_labels=3))
    dataset = tiny_dataset(16).remove_columns("length")
    trainer = RobertaGRUTrainer(model, train_dataset=dataset, data_collator=collate)
    trainer.args.max_steps, trainer.args.save_strategy = 1, "no"
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.predict_logits(dataset).shape == (16, 3)


def test_a_push_is_refused_aloud(tmp_path):
    with pytest.raises(InputError, match=r"this Trainer does not push\. .*roberta-gru publish"):
        make_trainer(str(tmp_path), push_to_hub=True, hub_model_id="ann/model")
    with pytest.raises(InputError, match="this Trainer does not push"):
        make_trainer(str(tmp_path)).push_to_hub()


# peft asks by the old name: https://github.com/huggingface/peft/pull/2817
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_that_leaves_a_fresh_head_untrained_is_refused(tmp_path):
    def adapted(**fields):
        model = RobertaGRUForSequenceClassification(tiny_config(num_labels=3))
        return get_peft_model(model, LoraConfig(r=2, target_modules=["query"], **fields))

    args = make_trainer(str(tmp_path)).args
    with pytest.raises(InputError, match=r"leaves gru, head .*modules_to_save=\['gru', 'head'\]"):
        RobertaGRUTrainer(adapted(task_type="SEQ_CLS"), args)
    whole = adapted(task_type="SEQ_CLS", modules_to_save=["gru", "head"])
    trainer = RobertaGRUTrainer(whole, args, train_dataset=tiny_dataset(), data_collator=collate)
    before = {name: value.clone() for name, value in whole.named_parameters() if "modules_to_save" in name}
    trainer.train()
    assert before
    after = dict(whole.named_parameters())
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_the_length_column_is_what_groups_batches(tmp_path):
    dataset = tiny_dataset(64)
    told = [row % 7 for row in range(64)]  # not the rows' own lengths
    dataset = dataset.remove_columns("length").add_column("length", told)
    trainer = make_trainer(str(tmp_path), dataset, train_sampling_strategy="group_by_length")
    assert trainer.get_train_dataloader().batch_sampler.sampler.sampler.lengths.tolist() == told


def test_label_smoothing_is_done_by_the_model(tmp_path):
    config = {**WITHOUT_DROPOUT, "class_weights": [0.5, 1.0, 3.0]}
    smoothed = make_trainer(str(tmp_path), config=config, label_smoothing_factor=0.2, max_steps=1)
    assert smoothed.label_smoother is None
    args = RobertaGRUTrainingArguments(str(tmp_path), label_smoothing_factor=0.2, **WITHOUT_EVALUATION)
    for _ in range(2):  # what the caller asked for stays, for the record and for the next trainer
        model = RobertaGRUForSequenceClassification(tiny_config(num_labels=3))
        RobertaGRUTrainer(model, args, train_dataset=tiny_dataset(), data_collator=collate)
        assert (args.label_smoothing_factor, model.config.label_smoothing) == (0.2, 0.2)
    smoothed.train()
    assert smoothed.model.config.label_smoothing == 0.2
    plain = make_trainer(str(tmp_path), config={**config, "label_smoothing": 0.2}, max_steps=1)
    plain.train()
    assert smoothed.state.log_history[0]["loss"] == plain.state.log_history[0]["loss"]


def test_a_loss_that_is_no_number_shows_in_the_log(tmp_path):
    trainer = make_trainer(str(tmp_path), max_steps=2)
    trainer.model.head.out_proj.bias.data[0] = float("nan")
    trainer.train()
    assert [row["loss"] != row["loss"] for row in trainer.state.log_history if "loss" in row] == [True, True]


def test_weights_that_are_not_finite_make_no_checkpoint_and_end_training(tmp_path, caplog):
    trainer = make_trainer(str(tmp_path), max_steps=9, save_strategy="steps", save_steps=2, save_total_limit=1)

    class Diverge(TrainerCallback):
        def on_step_begin(self, args, state, control, model, **kwargs):
            if state.global_step == 3:
                model.head.out_proj.bias.data[0] = float("nan")

    trainer.add_callback(Diverge())
    trainer.train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    assert trainer.state.global_step == 4
    assert "not finite after step 4" in caplog.text


@pytest.mark.parametrize("room", [1_000, 20_000, 40_000])
def test_a_checkpoint_without_room_is_one_error_and_leaves_the_ones_before(room, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 9}
    make_trainer(str(tmp_path), max_steps=2, **options).train()
    trainer = make_trainer(str(tmp_path), max_steps=4, **options)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # model, optimizer or state do not fit
    try:
        with pytest.raises(InputError, match=r"checkpoint-4 cannot be written: .*--resume_from_checkpoint auto"):
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    make_trainer(str(tmp_path), max_steps=4, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_training_resets_the_temperature(tmp_path):
    trainer = make_trainer(str(tmp_path), config={"calibration_temperature": 3.0}, max_steps=1)
    trainer.train()
    assert trainer.model.config.calibration_temperature == 1.0


def test_bfloat16_training_learns(tmp_path):
    config = {**WITHOUT_DROPOUT, "initializer_range": 0.1}
    trainer = make_trainer(
        str(tmp_path), tiny_dataset(16), config, max_steps=60, lr_scheduler_type="constant", bf16=True
    )
    trainer.train()
    assert trainer.state.log_history[-2]["loss"] < 0.1
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def long_documents() -> Dataset:
    """Make documents of up to 90 tokens, for a window of 20."""
    rows = []
    for row in tiny_dataset(32):
        ids = [row["input_ids"][0], *row["input_ids"][1:-1] * 6, row["input_ids"][-1]]
        rows.append({**row, "input_ids": ids, "attention_mask": [1] * len(ids), "length": len(ids)})
    return Dataset.from_list(rows)


def test_activation_checkpointing_trains_to_the_same_weights(tmp_path):
    def parameters(**options):
        # In float32, NAdam makes steps of the noise that a key's bias, which changes nothing, has for a gradient.
        trainer = make_trainer(str(tmp_path), long_documents(), WITHOUT_DROPOUT, torch.float64, max_steps=2, **options)
        trainer.train()
        return torch.cat([parameter.flatten() for parameter in trainer.model.parameters()])

    torch.testing.assert_close(parameters(gradient_checkpointing=True), parameters(), rtol=1e-7, atol=1e-7)


# Bad input


def test_a_checkpoint_with_other_groups_of_parameters_is_refused(tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 9}
    make_trainer(str(tmp_path), **options).train()
    trainer = make_trainer(str(tmp_path), layer_decay=0.5, **options)
    with pytest.raises(InputError, match="checkpoint-1 groups its parameters as"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.parametrize(
    ("changed", "named"), [({"learning_rate": 1e-3}, "learning rate"), ({"weight_decay": 0.5}, "weight decay")]
)
def test_a_checkpoint_of_another_rate_is_refused(changed, named, tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 9, "weight_decay": 0.1}
    make_trainer(str(tmp_path), **options).train()
    trainer = make_trainer(str(tmp_path), **{**options, **changed})
    with pytest.raises(InputError, match=f"checkpoint-1 was trained with a {named} of"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.parametrize("written_by", ["adamw", "sgd"])
def test_a_checkpoint_of_another_optimizer_is_refused(written_by, tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 9}
    make_trainer(str(tmp_path), optimizer=written_by, **options).train()
    trainer = make_trainer(str(tmp_path), optimizer="nadam", **options)
    with pytest.raises(InputError, match="checkpoint-1 was written by another optimizer than nadam"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_a_checkpoint_of_the_stock_trainer_is_refused_with_nadam(tmp_path):
    trainer = make_trainer(str(tmp_path))
    args = TrainingArguments(
        str(tmp_path), max_steps=1, save_strategy="steps", save_steps=1, use_cpu=True, report_to="none"
    )
    args.dataloader_pin_memory = False
    Trainer(trainer.model, args, train_dataset=tiny_dataset(), data_collator=collate).train()
    with pytest.raises(InputError, match="Resume with the --optimizer it was trained with"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_the_last_whole_checkpoint_is_found(tmp_path):
    args = make_trainer(str(tmp_path)).args
    assert find_checkpoint(args) is None
    args.resume_from_checkpoint = "auto"
    assert find_checkpoint(args) is None
    args.resume_from_checkpoint = "true"
    with pytest.raises(InputError, match="holds no whole checkpoint yet"):
        find_checkpoint(args)
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step < 11:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
            (tmp_path / f"checkpoint-{step}" / "optimizer.pt").touch()
    (tmp_path / "checkpoint-12").mkdir()
    (tmp_path / "checkpoint-12" / "trainer_state.json").write_text('{"epoch": ')  # the writing was interrupted
    for args.resume_from_checkpoint in ("true", "auto"):
        assert find_checkpoint(args) == str(tmp_path / "checkpoint-10")
    args.resume_from_checkpoint = str(tmp_path / "checkpoint-11")
    with pytest.raises(InputError, match=r"holds no whole checkpoint: trainer_state\.json"):
        find_checkpoint(args)
