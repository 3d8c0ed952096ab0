"""Options: one parser for command line and recipe, and nothing misspelt passes."""

import pytest

from modeling_roberta_gru import RobertaGRUConfig
from modeling_roberta_gru.arguments import ModelArguments, RunArgumentParser
from modeling_roberta_gru.errors import InputError


@pytest.fixture
def parse(tmp_path):
    def parse(*argv, recipe=None):
        if recipe is not None:
            path = tmp_path / "recipe.yaml"
            path.write_text(recipe)
            argv = (f"--config={path}", *argv)
        return RunArgumentParser().parse(["--output_dir", str(tmp_path / "run"), *argv])

    return parse


def test_recipe_fills_what_the_command_line_leaves_out(parse):
    model, data, args, path = parse(
        "--learning_rate",
        "0.5",
        recipe="learning_rate: 1e-5\ntext_column: [title, body]\ngru_bidirectional: true\nsummary: max\n"
        "class_weights: {a: 1, b: 2.5}\nmax_length: null\nadam_beta1: 8e-1\n",
    )
    assert args.learning_rate == 0.5
    assert args.adam_beta1 == 0.8
    assert data.text_column == ["title", "body"]
    assert data.num_tokens is None
    assert model.gru_bidirectional is True
    assert model.summary == "max"
    assert args.class_weights == '{"a": "1", "b": "2.5"}'
    assert path.endswith("recipe.yaml")


def test_yes_and_no_stay_names(parse):
    _, data, args, _ = parse(recipe="class_names: [No, Yes]\nclass_weights: {Yes: 1, No: 3}\ncalibrate: No\n")
    assert data.class_names == ["No", "Yes"]
    assert args.class_weights == '{"Yes": "1", "No": "3"}'
    assert args.calibrate is False


def test_numbers_are_converted_by_the_fields_type(parse):
    # YAML reads 1e-5 as a text.
    _, _, args, _ = parse(recipe="learning_rate: 1e-5\nnum_train_epochs: 3\n")
    assert args.learning_rate == 1e-5
    assert isinstance(args.num_train_epochs, float)


@pytest.mark.parametrize(
    ("argv", "recipe", "message"),
    [
        (["--learning_rat", "1"], None, "Unknown option '--learning_rat'. Did you mean '--learning_rate'?"),
        (["--gru-hiden-size=3"], None, "Did you mean '--gru-hidden-size'?"),
        ([], "sumary: max", "recipe.yaml: 'sumary'. Did you mean 'summary'?"),
        (["stray"], None, "'stray' belongs to no option"),
        (["--learning_rate", "fast"], None, "--learning_rate/--learning-rate: invalid float value: 'fast'"),
        (["--optimizer", "nadm"], None, "invalid choice: 'nadm'"),
        (["--train_sampling_strategy", "by_length"], None, "invalid choice: 'by_length'"),
        (["--eval_strategy", "sometimes"], None, "sometimes"),
        (["--optim", "adafactor"], None, "--optim adafactor takes effect only with --optimizer optim"),
        (["--learning_rate", "-1"], None, "--learning_rate must be above 0"),
        (["--head_learning_rate", "0"], None, "--head_learning_rate must be above 0"),
        (["--report_to", "tensorbord"], None, "Did you mean 'tensorboard'?"),
        ([], "learning_rate: [1, 2]", "'2' belongs to no option"),
        (["--push_to_hub", "true"], None, "--push_to_hub needs a name on the Hub: --hub_model_id USER/NAME"),
        (["--hub_token", "hf_x"], None, "--hub_token would stand in the run's record: use `hf auth login`"),
        (["--hub_strategy", "end"], None, "--hub_strategy has no effect: a run publishes once, at its end"),
        (["--layer_decay", "1.5"], None, "--layer_decay must be above 0 and at most 1"),
        (["--early_stopping_patience", "0"], None, "--early_stopping_patience must be at least 1"),
        (["--max_length", "long"], None, "--max_length must be a positive whole number or none, got 'long'"),
        ([], "max_length: 0", "--max_length must be a positive whole number or none, got '0'"),
        (["--max_windows", "0"], None, "--max_windows must be positive, got 0"),
        (["--window_policy", "head"], None, "--window_policy head takes effect only with --max_windows"),
        (["--max_windows", "2", "--window_policy", "tail"], None, "invalid choice: 'tail'"),
        (["--length_curriculum", "-1"], None, "--length_curriculum must be at least 0, got -1"),
        (["--length_curriculum", "3"], None, "--length_curriculum 3 leaves no epoch of --num_train_epochs 3"),
        (
            ["--length_curriculum", "1", "--train_sampling_strategy", "batch_rebalance"],
            None,
            "--length_curriculum cannot go with --train_sampling_strategy batch_rebalance",
        ),
        ([], "- a list", "must hold lines such as 'learning_rate: 2e-5'"),
        ([], "a: b: c", "is not YAML"),
        (["--config", "nowhere.yaml"], None, "--config nowhere.yaml cannot be read: No such file"),
    ],
)
def test_mistakes_are_named(parse, argv, recipe, message):
    with pytest.raises(InputError) as error:
        parse(*argv, recipe=recipe)
    assert message in str(error.value)


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


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_checkpointing_has_two_names_and_warns_of_neither(parse, name):
    _, _, args, _ = parse(f"--{name}", "true")
    assert args.activation_checkpointing is args.gradient_checkpointing is True
    _, _, args, _ = parse()
    assert args.activation_checkpointing is args.gradient_checkpointing is False


def test_output_dir_is_required():
    with pytest.raises(InputError, match="--output_dir is missing"):
        RunArgumentParser().parse([])


def test_abbreviations_are_refused(parse):
    with pytest.raises(InputError, match="Unknown option '--learning'"):
        parse("--learning", "1")


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


def test_help_names_every_option_once_with_its_meaning(capsys):
    with pytest.raises(SystemExit):
        RunArgumentParser().parse(["--help"])
    text = capsys.readouterr().out
    for action in RunArgumentParser()._actions:
        if action.option_strings:
            assert action.option_strings[0] in text
            assert action.help, action.option_strings
