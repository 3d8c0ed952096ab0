"""Options: the same from command line, recipe and call, and nothing misspelt passes."""

import json
import os
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from modeling_roberta_gru import RobertaGRUConfig, arguments
from modeling_roberta_gru.arguments import (
    GRU_OPTIONS,
    LOSSES,
    SHOWN,
    DataArguments,
    ModelArguments,
    all_options,
    find_recipe,
    help_text,
    read_options,
)
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.options import options_of, trainer_options
from modeling_roberta_gru.training import arguments as training_arguments
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments, parse_run
from modeling_roberta_gru.training.record import changed_options

from .refusals import refused


@pytest.fixture
def parse(tmp_path):
    def parse(*argv, recipe=None):
        if recipe is not None:
            path = tmp_path / "recipe.yaml"
            path.write_text(recipe)
            argv = (f"--config={path}", *argv)
        return parse_run(["--output_dir", str(tmp_path / "run"), *argv])

    return parse


def test_the_trainers_options_are_read_from_its_source_as_python_reads_them():
    read = {option.name: option for option in trainer_options()}
    for option in options_of(TrainingArguments):
        found = read.pop(option.name)
        # Its default depends on the release of torch.
        assert found == option or (option.name == "optim" and found.choices == option.choices)
    assert read == {}


def test_every_option_is_a_field_once():
    assert set(all_options()) >= {field.name for field in fields(RobertaGRUTrainingArguments) if field.init}
    defaults = RobertaGRUTrainingArguments.__dataclass_fields__
    for name, option in all_options().items():
        if name in defaults and name != "optim" and option.default:
            assert option.default == defaults[name].default or option.is_list


def test_gru_options_are_fields_of_the_configuration():
    assert set(GRU_OPTIONS) <= set(RobertaGRUConfig().to_dict())


def test_recipe_fills_what_the_command_line_leaves_out(parse):
    model, data, args, path = parse(
        "--learning_rate",
        "0.5",
        recipe="learning_rate: 1e-5\ntext_column: [title, body]\ngru-bidirectional: true\nsummary: max\n"
        "class_weights: {a: 1, b: 2.5}\nmax_length: null\nadam_beta1: 8e-1\n",
    )
    assert args.learning_rate == 0.5
    assert args.adam_beta1 == 0.8
    assert data.text_column == ["title", "body"]
    assert data.num_tokens is None
    assert model.gru_bidirectional is True
    assert model.summary == "max"
    assert args.class_weights == '{"a": 1, "b": 2.5}'
    assert path.endswith("recipe.yaml")


def test_null_takes_a_recipes_key_back(parse):
    recipe = "summary: max\nseed: 3\nmodel_name_or_path: roberta-base\n"
    model, _, args, _ = parse("--summary", "null", "--seed=~", "--model-name-or-path", "null", recipe=recipe)
    assert (model.summary, args.seed, model.model_name_or_path) == (None, 42, None)


def test_a_tilde_may_part_what_stands_in_a_file(parse):
    _, data, _, _ = parse("--label_delimiter", "~", "--csv_delimiter=~", recipe="csv_escape: ~")
    assert (data.label_delimiter, data.csv_delimiter, data.csv_escape) == ("~", "~", "auto")


@pytest.mark.parametrize("metric", LOSSES)
def test_of_errors_less_is_better(parse, metric):
    for name in (metric, f"eval_{metric}"):
        assert parse("--metric_for_best_model", name)[2].greater_is_better is False
    with pytest.raises(InputError, match="--greater_is_better"):
        parse("--metric_for_best_model", metric, "--greater_is_better", "true")


def test_of_what_is_no_error_more_is_better(parse):
    assert parse("--metric_for_best_model", "accuracy")[2].greater_is_better is True
    for options in (["--greater_is_better", "true"], ["--metric_for_best_model", "f1", "--greater_is_better=false"]):
        with pytest.raises(InputError, match="--greater_is_better"):
            parse(*options)


def test_the_best_model_is_kept_only_if_what_is_evaluated_is_saved(parse):
    steps = ["--eval_strategy", "steps", "--save_strategy", "steps"]
    for numbers in ([], ["--eval_steps", "100", "--save_steps", "200"]):  # by default 20 and 500
        with pytest.raises(InputError) as caught:
            parse(*steps, *numbers)
        assert caught.value.field == "save_steps"
        parse(*steps, *numbers, "--load_best_model_at_end", "false")
    parse(*steps, "--eval_steps", "100", "--save_steps", "100")
    parse("--eval_strategy", "steps", "--eval_steps", "100", "--save_strategy", "best")


def test_one_of_several_gpus_is_used_without_a_launcher(parse, monkeypatch):
    def device(args: TrainingArguments) -> torch.device:
        args.__dict__.setdefault("_n_gpu", 2)
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "device", property(device))
    args = parse()[2]
    assert (args.n_gpu, args.num_idle_gpus) == (1, 1)


def test_dashes_flags_and_negations_are_understood(parse):
    _, data, args, _ = parse("--clean-html", "--no-calibrate", "--no_bag_of_words", "--warmup-steps=3")
    assert (data.clean_html, args.calibrate, args.bag_of_words, args.warmup_steps) == (True, False, False, 3)


def test_yes_and_no_stay_names(parse):
    _, data, args, _ = parse(recipe="class_names: [No, Yes]\nclass_weights: {Yes: 1, No: 3}\ncalibrate: No\n")
    assert data.class_names == ["No", "Yes"]
    assert args.class_weights == '{"Yes": 1, "No": 3}'
    assert args.calibrate is False


def test_numbers_are_converted_by_the_fields_type(parse):
    # YAML reads 1e-5 as a text.
    _, _, args, _ = parse(recipe="learning_rate: 1e-5\nnum_train_epochs: 3\n")
    assert args.learning_rate == 1e-5
    assert isinstance(args.num_train_epochs, float)


def test_values_within_a_mapping_are_what_json_would_make_of_them(parse):
    kwargs = "lr_scheduler_kwargs: {min_lr: 1e-6, name: No, parts: [1, b], nested: {on: True, off: null}}\n"
    _, _, args, _ = parse(recipe=f"lr_scheduler_type: cosine_with_min_lr\n{kwargs}")
    expected = {"min_lr": 1e-6, "name": "No", "parts": [1, "b"], "nested": {"on": True, "off": None}}
    assert args.lr_scheduler_kwargs == expected


MISTAKES = [
    (["--learning_rat", "1"], None, "Unknown option '--learning_rat'. Did you mean '--learning_rate'?"),
    (["--gru-hiden-size=3"], None, "Did you mean '--gru-hidden-size'?"),
    (["--learning", "1"], None, "Unknown option '--learning'"),
    ([], "sumary: max", "recipe.yaml: 'sumary'. Did you mean 'summary'?"),
    (["--calibrate=true", "stray"], None, "argument 'stray'"),
    (["--config", "quickstart", "imdb"], None, "argument 'imdb'"),
    (["--learning_rate", "fast"], None, "--learning_rate must be a number, got 'fast'"),
    (["--seed", "1.5"], None, "--seed must be a whole number, got '1.5'"),
    (["--calibrate", "perhaps"], None, "--calibrate must be true or false, got 'perhaps'"),
    (["--learning_rate"], None, "--learning_rate needs a value"),
    (["--optimizer", "nadm"], None, "Unknown --optimizer 'nadm'. Did you mean 'nadam'?"),
    (["--train_sampling_strategy", "by_length"], None, "--train_sampling_strategy 'by_length'"),
    (["--eval_strategy", "sometimes"], None, "--eval_strategy 'sometimes'"),
    (["--learning_rate", "-1"], None, "--learning_rate must be above 0"),
    (["--learning_rate", "nan"], None, "--learning_rate must be finite, got 'nan'"),
    (["--max_grad_norm", "inf"], None, "--max_grad_norm must be finite, got 'inf'"),
    ([], "num_train_epochs: .inf", "--num_train_epochs must be a number, got '.inf'"),
    (["--label_smoothing_factor", "1"], None, "--label_smoothing_factor must be at least 0 and below 1, got 1"),
    (["--head_learning_rate", "0"], None, "--head_learning_rate must be above 0"),
    (["--per_device_train_batch_size", "0"], None, "--per_device_train_batch_size must be at least 1, got 0"),
    (["--num_train_epochs", "0"], None, "--num_train_epochs must be above 0, got 0"),
    (["--max_steps", "0"], None, "--max_steps 0 would train nothing"),
    (["--weight_decay", "-0.01"], None, "--weight_decay must be at least 0, got -0.01"),
    (["--dataloader_num_workers", "-1"], None, "--dataloader_num_workers must be at least 0, got -1"),
    (["--seed", "-1"], None, "--seed must be from 0 to 4294967295, got -1"),
    (["--data_seed", "4294967296"], None, "--data_seed must be from 0 to 4294967295, got 4294967296"),
    (["--split_seed", "-1"], None, "--split_seed must be from 0 to 4294967295, got -1"),
    (["--deepspeed", "ds.json"], None, "pip install deepspeed"),
    ([], "learning_rate: [1, 2]", "argument '2'"),
    (["--push_to_hub", "true"], None, "--push_to_hub needs a name on the Hub: --hub_model_id USER/NAME"),
    (["--hub_model_id", "me/model"], None, "--hub_model_id takes effect only with --push_to_hub true"),
    (["--hub_private_repo", "true"], None, "--hub_private_repo takes effect only with --push_to_hub true"),
    (["--hub_revision", "trial"], None, "--hub_revision takes effect only with --push_to_hub true"),
    (["--cache_limit", "5"], None, "--cache_limit takes effect only with --freeze_encoder true"),
    (["--freeze_encoder", "true", "--layer_decay", "0.9"], None, "--layer_decay has no effect with --freeze_encoder"),
    (
        ["--freeze_encoder", "true", "--freeze_layers", "3"],
        None,
        "--freeze_layers has no effect with --freeze_encoder",
    ),
    (
        ["--label_column", "one", "two", "--label_delimiter", ";"],
        None,
        "--label_delimiter has no effect with several label columns",
    ),
    (["--hub_token", "hf_x"], None, "--hub_token would be saved in the run's record: use `hf auth login`"),
    (["--layer_decay", "1.5"], None, "--layer_decay must be above 0 and at most 1"),
    (["--early_stopping_patience", "0"], None, "--early_stopping_patience must be at least 1"),
    ([], "max_length: 0", "--max_length must be a positive whole number or none, got '0'"),
    (["--max_windows", "0"], None, "--max_windows must be positive, got 0"),
    (["--max_train_samples", "0"], None, "--max_train_samples must be positive, got 0"),
    (["--window_policy", "head"], None, "--window_policy head takes effect only with --max_windows"),
    (["--max_windows", "2", "--window_policy", "tail"], None, "Unknown --window_policy 'tail'"),
    (["--length_curriculum", "-1"], None, "--length_curriculum must be at least 0, got -1"),
    (["--length_curriculum", "3"], None, "--length_curriculum 3 leaves no epoch of --num_train_epochs 3"),
    (
        ["--length_curriculum", "1", "--train_sampling_strategy", "batch_rebalance"],
        None,
        "--length_curriculum cannot be combined with --train_sampling_strategy batch_rebalance",
    ),
    ([], "- a list", "must hold lines such as 'learning_rate: 2e-5'"),
    ([], "a: b: c", "is not YAML"),
    (["--config", "nowhere.yaml"], None, "--config nowhere.yaml cannot be read: No such file"),
    (["--config", "quikstart"], None, "Unknown recipe 'quikstart'. Did you mean 'quickstart'?"),
]


@pytest.mark.parametrize(("argv", "recipe", "message"), MISTAKES)
def test_mistakes_are_named(parse, argv, recipe, message):
    with pytest.raises(InputError) as error:
        parse(*argv, recipe=recipe)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--optim", "adafactor"], "--optim adafactor takes effect only with --optimizer optim"),
        (["--report_to", "tensorbord"], "Did you mean 'tensorboard'?"),
        (["--hub_strategy", "end"], "--hub_strategy has no effect: a run publishes once, at its end"),
        (["--eval_strategy", "no"], "load_best_model_at_end"),
    ],
)
def test_what_only_the_trainer_knows_is_refused_too(parse, argv, message):
    with pytest.raises(InputError) as error:
        parse(*argv)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        (["--eval_accumulation_steps", "0"], "eval_accumulation_steps"),
        (["--dataloader_num_workers", "1", "--dataloader_prefetch_factor", "0"], "dataloader_prefetch_factor"),
        (["--optimizer", "sgd", "--adam_beta1", "0.8"], "adam_beta1"),
        (["--optimizer", "rmsprop", "--adam_epsilon", "1e-6"], "adam_epsilon"),
        (["--use_liger_kernel", "true"], "use_liger_kernel"),
        (["--optim_target_modules", "all-linear"], "optim_target_modules"),
        (["--report_to", "tensorboard", "wandb"], "report_to"),
        (["--fsdp", "full_shard"], "fsdp"),
        (["--ddp_backend", "gloo"], "ddp_backend"),
        (["--lr_scheduler_kwargs", "{bad"], "lr_scheduler_kwargs"),
        (["--accelerator_config", '{"split_batches": tru}'], "accelerator_config"),
    ],
)
def test_an_option_that_would_fail_or_count_for_nothing_is_refused(parse, monkeypatch, argv, field):
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    monkeypatch.setattr(training_arguments, "get_available_reporting_integrations", lambda: ["tensorboard"])
    for name in training_arguments.NUM_PROCESSES:
        monkeypatch.delenv(name, raising=False)
    with refused(field=field):
        parse(*argv)
    assert "ACCELERATE_USE_FSDP" not in os.environ


@pytest.mark.parametrize("argv", [["--accelerator_config", '{"foo": 1}'], ["--log_level", "foo"]])
def test_a_value_that_transformers_does_not_know_is_named(parse, argv):
    with refused(match="foo"):
        parse(*argv)


def test_one_text_or_several_are_given_where_transformers_takes_both(parse, monkeypatch):
    monkeypatch.setattr(training_arguments, "get_available_reporting_integrations", lambda: ["tensorboard", "wandb"])
    assert parse("--report_to", "tensorboard", "wandb")[2].report_to == ["tensorboard", "wandb"]
    assert parse(recipe="report_to: [tensorboard, wandb]")[2].report_to == ["tensorboard", "wandb"]
    assert parse("--report_to", "tensorboard")[2].report_to == ["tensorboard"]
    assert parse("--report_to", "none")[2].report_to == []
    optim = ["--optimizer", "optim", "--optim_target_modules"]
    assert parse(*optim, "all-linear")[2].optim_target_modules == "all-linear"
    assert parse(*optim, "query", "value")[2].optim_target_modules == ["query", "value"]


def test_mistakes_are_found_without_importing_torch_or_transformers():
    # All that are found above, but for recipes in files.
    cases = [argv for argv, recipe, _ in MISTAKES if recipe is None]
    program = (
        "import json, sys\n"
        "from modeling_roberta_gru.arguments import read_options\n"
        "from modeling_roberta_gru.errors import InputError\n"
        "found = 0\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    try: read_options(['--output_dir', 'unused', *argv])\n"
        "    except InputError: found += 1\n"
        "print(found, [name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    process = subprocess.run([sys.executable, "-c", program, json.dumps(cases)], capture_output=True, text=True)
    assert (process.stdout, process.stderr) == (f"{len(cases)} []\n", "")


@pytest.mark.parametrize(
    ("argv", "recipe", "num_tokens"),
    [
        ([], None, None),
        ([], "max_length: none", None),
        ([], "max_length: null", None),
        ([], "max_length: 700", 700),
        (["--max_length", "none"], "max_length: 700", None),
        (["--max-length=900"], None, 900),
    ],
)
def test_texts_are_read_whole_unless_a_length_is_given(parse, argv, recipe, num_tokens):
    assert parse(*argv, recipe=recipe)[1].num_tokens == num_tokens


def test_a_curriculum_may_exceed_epochs_that_steps_decide(parse):
    _, _, args, _ = parse("--length_curriculum", "4", "--max_steps", "9")
    assert args.length_curriculum == 4


@pytest.mark.skipif("activation_checkpointing" not in all_options(), reason="this transformers has one name for it")
@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_checkpointing_has_two_names_and_warns_of_neither(parse, name):
    _, _, args, _ = parse(f"--{name}", "true")
    assert args.activation_checkpointing is args.gradient_checkpointing is True
    _, _, args, _ = parse()
    assert args.activation_checkpointing is args.gradient_checkpointing is False


def test_output_dir_is_required():
    with pytest.raises(InputError, match="--output_dir is missing"):
        read_options([])


def test_recipes_come_along_and_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_options(["--config", "quickstart"]).recipe == str(find_recipe("quickstart"))
    assert find_recipe("optimizers", "recipes/spaces").is_file()
    # A file of that name is meant before.
    (tmp_path / "quickstart").write_text("output_dir: here\n")
    assert read_options(["--config", "quickstart"]).training["output_dir"] == "here"


def test_config_overrides_take_the_fields_type():
    fields = ModelArguments(
        gru_hidden_size=9, config_overrides="hidden_size=8, layer_norm_eps=1e-6,hidden_act=relu,window_overlap=0"
    ).config_fields(RobertaGRUConfig())
    overrides = {"hidden_size": 8, "layer_norm_eps": 1e-6, "hidden_act": "relu", "window_overlap": 0}
    assert fields == {"gru_hidden_size": 9, **overrides}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("hidden_sise=8", "Unknown field in --config_overrides 'hidden_sise'. Did you mean 'hidden_size'?"),
        ("hidden_size=big", "hidden_size must be a int, got 'big'"),
        ("hidden_dropout_prob=", "hidden_dropout_prob must be a float, got ''"),
    ],
)
def test_config_overrides_that_mean_nothing_are_named(overrides, message):
    with pytest.raises(InputError) as error:
        ModelArguments(config_overrides=overrides).config_fields(RobertaGRUConfig())
    assert message in str(error.value)


def test_short_help_fits_two_screens_and_full_help_names_every_option():
    short, full = help_text().splitlines(), help_text(full=True).splitlines()
    assert len(short) <= 111
    assert max(map(len, short)) <= 100
    named = [line.split()[0] for line in full if line.startswith("  --")]
    assert sorted(named) == sorted({"--config", *(f"--{name}" for name in all_options())})
    shown = [name for names in SHOWN.values() for name in names]
    assert len(set(shown)) == len(shown)
    assert set(shown) - set(all_options()) <= {"activation_checkpointing"}  # as newer releases call it
    assert all(all_options()[name].help for name in shown if name in all_options())


def test_two_sources_are_refused():
    with pytest.raises(InputError, match="Both --dataset_name and --test_file are given"):
        DataArguments(dataset_name="built-in", test_file=["test.csv"])


@pytest.mark.parametrize(
    "split", ["0.8,0.2", "0.8,0.2,0", "0.8,0.1,0.2", "most,some,few", "0.8,0.3,-0.1", "nan,nan,nan"]
)
def test_split_must_be_three_positive_fractions_that_sum_to_one(split):
    with pytest.raises(InputError, match="--split needs three"):
        DataArguments(split=split)


@pytest.mark.parametrize(
    ("max_length", "num_tokens"), [("none", None), ("None", None), (None, None), (512, 512), ("5000", 5000)]
)
def test_a_maximum_length_is_a_number_or_none(max_length, num_tokens):
    assert DataArguments(max_length=max_length).num_tokens == num_tokens


@pytest.mark.parametrize("max_length", [0, -3, "0", "5.5", 5.5, "many", "", True])
def test_a_maximum_length_that_is_neither_is_refused(max_length):
    with pytest.raises(InputError, match=f"--max_length must be a positive whole number or none, got {max_length!r}"):
        DataArguments(max_length=max_length)


def test_a_hub_revision_without_a_data_set_is_refused():
    with pytest.raises(InputError, match="belong to a --dataset_name"):
        DataArguments(dataset_revision="main")


@pytest.mark.parametrize("encoding", ["latin-140", "", "hex", "undefined"])
def test_an_unknown_encoding_is_refused(encoding):
    with pytest.raises(InputError, match=f"--csv_encoding '{encoding}' is not a text encoding that Python knows"):
        DataArguments(csv_encoding=encoding)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csv_delimiter": "::"}, "--csv_delimiter must be one character, got '::'"),
        ({"text_column": []}, "--text_column names no column"),
        ({"dataset_name": ""}, "is empty: name the data"),
        ({"train_file": [""]}, "is empty: name the data"),
        ({"soft_train_file": ["a.csv", ""]}, "is empty: name the data"),
        ({"label_column": []}, "--label_column names no column"),
        ({"csv_columns": []}, "--csv_columns names no column"),
        ({"csv_escape": '"'}, "--csv_escape must be one character"),
        ({"csv_quoting": "single"}, "--csv_quoting must be auto, doubled or none"),
        ({"test_fold": 1}, "take effect only with --split_column"),
        ({"split_column": "fold", "test_fold": 1, "validation_fold": 1}, "are both 1: name two folds"),
    ],
)
def test_options_of_tables_and_folds_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        DataArguments(**options)


def test_one_column_may_be_given_as_it_is():
    data = DataArguments(text_column="review", label_column="stars")
    assert (data.text_column, data.label_column) == (["review"], ["stars"])


def test_delimiter_and_escape_may_be_named():
    args = DataArguments(csv_delimiter="tab", csv_escape="backslash")
    assert (args.csv_delimiter_character, args.csv_escape_character) == ("\t", "\\")
    assert DataArguments(csv_delimiter="\\t", csv_escape="none").csv_escape_character == ""


def test_several_label_columns_are_taken_from_command_line_and_recipe(parse):
    assert parse("--label_column", "toxic", "threat")[1].label_column == ["toxic", "threat"]
    assert parse(recipe="label_column: stars\n")[1].label_column == ["stars"]
    assert DataArguments(label_column="stars").label_column == ["stars"]


@pytest.mark.parametrize("value", [512, 512.0, "512", [512], (512,), np.array([512])])
def test_one_value_is_a_list_of_one(value):
    (horizons,) = (option for option in options_of(ModelArguments) if option.name == "attention_horizons")
    assert horizons.accept(value) == [512]


def test_options_that_are_mappings_are_recorded_too(parse):
    recorded = [
        changed_options(*parse(f'--lr_scheduler_kwargs={{"num_cycles": {number}}}')[:3])["lr_scheduler_kwargs"]
        for number in (1, 5)
    ]
    assert recorded == [{"num_cycles": 1}, {"num_cycles": 5}]
