"""What RoBERTa-GRU is compared with: every system through the same run, with the same figures and files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
    pipeline,
)

from modeling_roberta_gru import RecurrentConfig, RecurrentForSequenceClassification
from modeling_roberta_gru.arguments import DataArguments, ModelArguments
from modeling_roberta_gru.data.labels import SINGLE_LABEL, LabelSpace
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.experiment import train
from modeling_roberta_gru.hub.check import predict_in_clean_process
from modeling_roberta_gru.inference.evaluation import evaluate_model
from modeling_roberta_gru.inference.explanation import explain_model
from modeling_roberta_gru.training.architectures import ARCHITECTURES, RECURRENT_NETS, check_options
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments, parse_run
from modeling_roberta_gru.training.loading import load_classifier, longest_read
from modeling_roberta_gru.training.optimizers import freeze, parameter_groups
from modeling_roberta_gru.training.run_folder import RUN_FILES

from .refusals import refused
from .test_experiment import read_json, train_tiny
from .tiny import TINY_ENCODER

ENCODERS = {
    "bert": (BertConfig, BertModel, 66),
    "electra": (ElectraConfig, ElectraModel, 66),
    "roberta": (RobertaConfig, RobertaModel, 68),  # positions count from above the padding's id, 1
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel, 68),
}
WINDOW = 66
WITHOUT_MODEL = {"metrics.json", "predictions.parquet", "confusion.png", "run.json"}
# `train_tiny` sets the sizes of a RoBERTa-GRU.
NOT_OURS = ["--gru_hidden_size=null", "--head_hidden_size=null"]
SMALL_NET = "vocab_size=60,embedding_size=6,hidden_size=5"


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request, tmp_path_factory, stand_in):
    """Return a folder of a tiny encoder of a kind, with a tokenizer, as on the Hub."""
    folder = tmp_path_factory.mktemp(request.param)
    config_class, model_class, num_positions = ENCODERS[request.param]
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    sizes = {**TINY_ENCODER, "vocab_size": len(tokenizer), "max_position_embeddings": num_positions}
    torch.manual_seed(0)
    model_class(config_class(**sizes, pad_token_id=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, reviews, stand_in):
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_tiny(folder, "--dataset_name", reviews, "--model_name_or_path", stand_in)
    return folder


@pytest.fixture
def run_folder(finished_run, tmp_path):
    """Return a copy of the run of a RoBERTa-GRU, to be replaced."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.mark.parametrize("encoder", ["bert"], indirect=True)
def test_texts_are_cut_to_the_window_and_longer_cuts_refused(encoder, reviews, tmp_path):
    long = tmp_path / "long.csv"
    rows = [f'"{"slow " * (5 + 30 * (row % 5))} {row}",{["bad", "good"][row % 2]}' for row in range(40)]
    long.write_text("text,label\n" + "\n".join(rows) + "\n")
    options = ["--architecture", "transformer", "--model_name_or_path", encoder, "--train_file", long, *NOT_OURS]
    train_tiny(tmp_path / "run", *options)
    record = read_json(tmp_path / "run" / "run.json")
    assert record["data"]["max_length"] == WINDOW
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").model_max_length == WINDOW
    evaluate_model(str(tmp_path / "run"), str(long), DataArguments())
    with pytest.raises(InputError, match="--max_length 67 is more than the 66 tokens"):
        evaluate_model(str(tmp_path / "run"), str(long), DataArguments(max_length=67))
    with pytest.raises(InputError, match="--max_length 67 is more than the 66 tokens"):
        train_tiny(tmp_path / "other", *options, "--max_length", 67)


def test_a_stock_head_trains_calibrates_and_loads_without_our_code(encoder, reviews, tmp_path):
    options = ["--architecture", "transformer", "--model_name_or_path", encoder, "--dataset_name", reviews]
    metrics = train_tiny(tmp_path, *options, *NOT_OURS, "--class_weights", "balanced")
    assert {path.name for path in tmp_path.iterdir()} == {*RUN_FILES, "checkpoint-3"} - {"adapter"}
    assert not list((tmp_path / "model").glob("*.py"))
    assert metrics["calibration"]["temperature"] != 1
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = [line.split(",")[0] for line in (reviews / "test.csv").read_text().splitlines()[1:]]
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    probabilities = torch.tensor([row["probabilities"] for row in rows])
    torch.testing.assert_close(logits.softmax(dim=-1), probabilities, atol=1e-5, rtol=0)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "trust_remote_code" not in card
    assert f"reads the first {WINDOW} tokens" in card


@pytest.mark.parametrize("net", [RECURRENT_NETS[0], RECURRENT_NETS[2]], ids=lambda net: net.name)
def test_a_recurrent_net_trains_and_loads_with_its_own_code(net, reviews, tmp_path):
    options = ["--architecture", net.name, "--config_overrides", SMALL_NET, "--dataset_name", reviews]
    train_tiny(tmp_path, *options, *NOT_OURS, "--optimizer", "adam")
    shipped = {path.name for path in (tmp_path / "model").glob("*.py")}
    assert shipped == {"configuration_recurrent.py", "modeling_recurrent.py", "handler.py", "reading.py"}
    config = read_json(tmp_path / "model" / "config.json")
    assert (config["cell"], config["bidirectional"]) == (net.cell, net.bidirectional)
    assert (config["embedding_size"], config["hidden_size"]) == (6, 5)
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    classify = pipeline("text-classification", str(tmp_path / "model"), trust_remote_code=True, top_k=None)
    text = (reviews / "test.csv").read_text().splitlines()[1].split(",")[0]
    scores = {score["label"]: score["score"] for score in classify([text])[0]}
    assert [scores["bad"], scores["good"]] == pytest.approx(rows[0]["probabilities"], abs=1e-5)
    assert evaluate_model(str(tmp_path), str(reviews), DataArguments())["n"] == 32


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["bert"], indirect=True)
@pytest.mark.parametrize("architecture", ["bilstm", "transformer"])
def test_the_model_of_a_run_predicts_in_a_process_without_the_package(architecture, encoder, reviews, tmp_path):
    start = ["--config_overrides", SMALL_NET] if architecture == "bilstm" else ["--model_name_or_path", encoder]
    train_tiny(tmp_path, "--architecture", architecture, *start, "--dataset_name", reviews, *NOT_OURS)
    predictions = predict_in_clean_process(tmp_path / "model", ["splendid music " * 300])
    assert predictions[0]["label"] in ("bad", "good")


def test_vectors_are_what_the_embeddings_start_from_and_may_be_frozen(reviews, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("splendid 0.5 1 -1\ndreadful -0.5 2 1\nmusic 0 0.25 4\n")
    options = ["--architecture", "gru", "--config_overrides", "vocab_size=60,hidden_size=5", *NOT_OURS]
    options += ["--dataset_name", reviews, "--embeddings", vectors, "--freeze_embeddings", "true"]
    train_tiny(tmp_path / "run", *options)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    ids = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")("Splendid music")["input_ids"]
    assert model.recurrent.embeddings.weight[ids].tolist() == [[0.5, 1, -1], [0, 0.25, 4]]
    with pytest.raises(InputError, match=r"embedding_size=4 does not fit --embeddings .*vectors have 3 numbers"):
        train_tiny(tmp_path / "other", *options, "--config_overrides", "embedding_size=4")
    assert not (tmp_path / "other").exists()


def test_a_bag_of_words_leaves_figures_and_predictions_but_no_model(reviews, tmp_path):
    metrics = train_tiny(tmp_path, "--architecture", "bag-of-words", "--dataset_name", reviews, *NOT_OURS)
    assert {path.name for path in tmp_path.iterdir()} == WITHOUT_MODEL
    assert metrics["test"]["n"] == 32
    assert "bag_of_words" not in metrics
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert right == metrics["test"]["accuracy"]["value"] == 1.0
    assert read_json(tmp_path / "run.json")["model"]["architecture"] == "bag-of-words"


def test_a_bag_of_words_takes_the_place_of_a_whole_run(reviews, run_folder):
    assert (run_folder / "model").is_dir()
    options = ["--dataset_name", reviews, "--overwrite_output_dir", "true", *NOT_OURS]
    train_tiny(run_folder, *options, "--architecture", "bag-of-words")
    assert {path.name for path in run_folder.iterdir()} == WITHOUT_MODEL


def test_a_transformer_without_a_checkpoint_is_a_roberta_of_the_same_geometry(reviews, tmp_path):
    sizes = "hidden_size=8,num_hidden_layers=1,num_attention_heads=2,intermediate_size=8"
    options = ["--architecture", "transformer", "--config_overrides", sizes, "--dataset_name", reviews, *NOT_OURS]
    train_tiny(tmp_path, *options)
    config = read_json(tmp_path / "model" / "config.json")
    assert (config["model_type"], config["hidden_size"], config["max_position_embeddings"]) == ("roberta", 8, 514)
    assert read_json(tmp_path / "run.json")["data"]["max_length"] == 512


def test_the_window_is_what_the_encoder_has_positions_for(encoder):
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    assert longest_read(model, tokenizer) == WINDOW
    assert longest_read(model, tokenizer, 20) == 20
    ids = torch.full((1, WINDOW), 7)
    model(ids)
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        model(torch.full((1, WINDOW + 1), 7))


def test_folding_a_temperature_divides_the_logits(encoder):
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3).eval()
    ids = torch.arange(5, 25).reshape(2, 10)
    before = model(ids).logits
    ARCHITECTURES["transformer"].calibrate(model, 2.5)
    torch.testing.assert_close(model(ids).logits, before / 2.5, atol=1e-5, rtol=1e-5)


def test_the_loss_of_a_stock_head_knows_weights_smoothing_and_the_parts_of_a_batch():
    labels = LabelSpace("single_label_classification", ("a", "b", "c"))
    loss = ARCHITECTURES["transformer"].loss_function(labels, [1.0, 2.0, 3.0], 0.1)
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    whole = loss({"logits": logits}, targets)
    parts = [loss({"logits": logits[part]}, targets[part], num_items_in_batch=6) for part in (slice(2), slice(2, 6))]
    torch.testing.assert_close(sum(parts), whole)
    expected = torch.nn.functional.cross_entropy(
        logits, targets, weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1, reduction="sum"
    )
    torch.testing.assert_close(whole, expected / 6)


@pytest.mark.parametrize("encoder", ["roberta"], indirect=True)
def test_accumulated_batches_of_a_stock_head_leave_its_losses_alone(encoder, reviews, tmp_path):
    losses = []
    for batch, parts in ((16, 1), (4, 4)):
        options = ["--architecture", "transformer", "--model_name_or_path", encoder, "--dataset_name", reviews]
        options += [*NOT_OURS, "--per_device_train_batch_size", batch, "--gradient_accumulation_steps", parts]
        options += ["--logging_steps", 1, "--config_overrides", "hidden_dropout_prob=0,attention_probs_dropout_prob=0"]
        options += ["--train_sampling_strategy", "sequential", "--label_smoothing_factor", 0.1, "--optimizer", "sgd"]
        folder = tmp_path / str(batch)
        train_tiny(folder, *options)
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in history if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_training_does_not_read_the_test_split_and_a_leak_is_caught(reviews, stand_in, tmp_path, monkeypatch):
    argv = ["--output_dir", str(tmp_path), "--dataset_name", str(reviews), "--model_name_or_path", str(stand_in)]
    argv += ["--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    system = train(*parse_run([*argv, "--disable_tqdm", "true"])[:3])
    assert len(system.predict_test()) == 32
    system.trainer.eval_dataset = system.test.select(range(3))
    with pytest.raises(AssertionError, match="Row test:0 of the test split was chosen by"):
        system.predict_test()
    system.trainer.eval_dataset = None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--architecture", "gru", "--model_name_or_path", "x"],
            "--model_name_or_path has no effect with --architecture gru",
        ),
        (
            ["--architecture", "lstm", "--gru_hidden_size", "5"],
            "--gru_hidden_size has no effect with --architecture lstm",
        ),
        (["--architecture", "bag-of-words", "--config_overrides", "a=1"], "--config_overrides has no effect with"),
        (
            ["--architecture", "bilstm", "--activation_checkpointing", "true"],
            "--activation_checkpointing has no effect",
        ),
        (["--embeddings", "x.txt"], "--embeddings has no effect with --architecture roberta-gru"),
        (["--architecture", "transformer", "--gru_bidirectional", "false"], "--gru_bidirectional has no effect"),
        (["--architecture", "gru", "--freeze_embeddings", "true"], "--freeze_embeddings needs --embeddings"),
        (["--architecture", "grru"], "Unknown --architecture 'grru'"),
    ],
)
def test_options_of_another_architecture_are_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        check_options(*parse_run(["--output_dir", str(tmp_path), *options])[:3])


def test_max_windows_is_for_roberta_gru(reviews, tmp_path):
    options = ["--architecture", "gru", "--dataset_name", reviews, "--max_windows", 2, *NOT_OURS]
    with pytest.raises(InputError, match="--max_windows has no effect with --architecture gru: leave it out"):
        train_tiny(tmp_path, *options)


@pytest.mark.parametrize(
    ("architecture", "option"),
    [
        ("lstm", ["--layer_decay", 0.5]),
        ("lstm", ["--freeze_encoder", "true"]),
        ("lstm", ["--activation_checkpointing", "true"]),
        ("bag-of-words", ["--resume_from_checkpoint", "true"]),
        ("bag-of-words", ["--tokenizer_name", "x"]),
    ],
)
def test_an_option_without_effect_is_refused_before_anything_is_read(architecture, option, tmp_path):
    message = f"{option[0]} has no effect with --architecture {architecture}"
    with pytest.raises(InputError, match=message):
        train_tiny(tmp_path / "run", *NOT_OURS, "--architecture", architecture, "--dataset_name", "nowhere", *option)


@pytest.mark.parametrize("architecture", ["gru", "transformer"])
def test_what_another_option_says_is_no_field_to_override(architecture, reviews, tmp_path):
    field, value, owner = {
        "gru": ("cell", "lstm", "--architecture"),
        "transformer": ("problem_type", "regression", "--problem_type"),
    }[architecture]
    options = ["--architecture", architecture, "--dataset_name", reviews, *NOT_OURS]
    with pytest.raises(InputError, match=f"--config_overrides {field}: it is set by {owner}"):
        train_tiny(tmp_path, *options, "--config_overrides", f"{field}={value}")


@pytest.mark.parametrize("architecture", ["roberta-gru", "gru", "transformer"])
@pytest.mark.parametrize("field", ["vocab_size", "bos_token_id"])
def test_what_the_tokenizer_says_is_no_field_to_override(architecture, field, reviews, stand_in, tmp_path):
    if (architecture, field) == ("gru", "bos_token_id"):
        pytest.skip("it has none")
    options = ["--architecture", architecture, "--dataset_name", reviews, "--tokenizer_name", stand_in, *NOT_OURS]
    with refused(field="config_overrides"):
        train_tiny(tmp_path, *options, "--config_overrides", f"{field}=5")


@pytest.mark.parametrize("architecture", ["roberta-gru", "gru", "transformer"])
def test_a_tokenizer_without_padding_is_refused(architecture, stand_in, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with refused(match="has no padding token"):
        ARCHITECTURES[architecture].load_tokenizer(ModelArguments(architecture, tokenizer_name=str(tmp_path)), ["a"])


@pytest.mark.parametrize("encoder", ["bert", "electra"], indirect=True)
@pytest.mark.parametrize("options", [{"freeze_encoder": True}, {"freeze_layers": 2}], ids=str)
def test_a_pooler_is_trained_above_a_frozen_encoder(encoder, options, tmp_path):
    config = AutoModelForSequenceClassification.from_pretrained(encoder).config
    model = AutoModelForSequenceClassification.from_config(config)
    freeze(model, RobertaGRUTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options))
    trained = {name for name, parameter in model.base_model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.base_model.named_parameters() if name.startswith("pooler.")}


@pytest.mark.parametrize("option", ["do_train", "do_eval", "do_predict"])
def test_what_other_scripts_ask_to_be_done_is_refused(option, tmp_path):
    without = {"eval_strategy": "no", "load_best_model_at_end": False, "output_dir": str(tmp_path)}
    with refused(field=option):
        check_options(ModelArguments(), DataArguments(), RobertaGRUTrainingArguments(**without, **{option: True}))


def test_a_folder_has_no_revision(stand_in, tmp_path):
    options = ["--model_name_or_path", stand_in, "--model_revision", "main", "--dataset_name", "nowhere"]
    with pytest.raises(InputError) as caught:
        train_tiny(tmp_path, *options)
    assert caught.value.field == "model_revision"


@pytest.mark.parametrize("is_pretrained", [False, True])
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"gru_dropout": 0.2}, "gru_dropout"),
        ({"config_overrides": "gru_dropout=0.2"}, "gru_dropout"),
        ({"gru_dropout": 0.2, "num_gru_layers": 2}, None),
        ({"attention_horizons": [0, 9], "summary": "max"}, "attention_horizons"),
        ({"attention_horizons": [0, 9], "summary": "attention"}, None),
        ({"attention_horizons": [0], "summary": "last"}, None),  # the paper's head, in full
    ],
)
def test_options_without_effect_in_the_head_that_they_make_are_refused(options, field, is_pretrained, stand_in):
    small = "hidden_size=12,num_hidden_layers=1,num_attention_heads=2,intermediate_size=16"
    encoder = {"model_name_or_path": str(stand_in)} if is_pretrained else {"config_overrides": small}
    args = ModelArguments(**{"gru_hidden_size": 6, "head_hidden_size": 6, **encoder, **options})
    tokenizer, labels = AutoTokenizer.from_pretrained(stand_in), LabelSpace(SINGLE_LABEL, ("bad", "good"))
    load = ARCHITECTURES["roberta-gru"].load_model
    if field is None:
        config = load(args, tokenizer, labels).config
        assert {name: getattr(config, name) for name in options} == options
    else:
        with pytest.raises(InputError) as caught:
            load(args, tokenizer, labels)
        assert caught.value.field == field


def test_a_field_without_a_default_can_be_set(stand_in):
    args = ModelArguments(model_name_or_path=str(stand_in), config_overrides="classifier_dropout=0.25")
    labels = LabelSpace(SINGLE_LABEL, ("bad", "good"))
    model = ARCHITECTURES["transformer"].load_model(args, AutoTokenizer.from_pretrained(stand_in), labels)
    assert model.config.classifier_dropout == 0.25


def test_a_recurrent_net_is_no_transformer_to_start_from(reviews, stand_in, tmp_path):
    RecurrentForSequenceClassification(RecurrentConfig(vocab_size=400, hidden_size=5)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(stand_in).save_pretrained(tmp_path)
    options = ["--architecture", "transformer", "--model_name_or_path", tmp_path, "--dataset_name", reviews]
    with pytest.raises(InputError, match="is a recurrent, and --architecture transformer needs an encoder"):
        train_tiny(tmp_path / "run", *options, *NOT_OURS)


@pytest.mark.parametrize("encoder", ["electra", "xlm-roberta"], indirect=True)
def test_layers_of_other_encoders_are_frozen_and_decayed_too(encoder):
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    args = RobertaGRUTrainingArguments(output_dir="unused", freeze_layers=1, layer_decay=0.5, learning_rate=1.0)
    freeze(model, args)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name in trained if "embedding" in name or ".layer.0." in name]
    assert [name for name in trained if ".layer.1." in name]
    assert {group["lr"] for group in parameter_groups(model, args)} == {1.0}


def test_an_encoder_whose_layers_share_their_weights_cannot_be_frozen_by_layers():
    model = AlbertForSequenceClassification(AlbertConfig(**TINY_ENCODER, embedding_size=4))
    args = RobertaGRUTrainingArguments(output_dir="unused", freeze_layers=1)
    with pytest.raises(InputError, match="--freeze_layers: the layers of a albert cannot be told apart"):
        freeze(model, args)


def test_a_bag_of_words_that_cannot_be_fitted_leaves_the_run_that_was_there(run_folder, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("text,label\n" + "".join(f"slow {row},{row / 7}\n" for row in range(1, 40)))
    options = ["--architecture", "bag-of-words", "--train_file", numbers, "--overwrite_output_dir", "true", *NOT_OURS]
    with pytest.raises(InputError, match="needs one class per text"):
        train_tiny(run_folder, *options)
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")} == before


def test_the_run_of_a_bag_of_words_cannot_be_evaluated_or_trained_on(reviews, tmp_path):
    train_tiny(tmp_path / "bag", "--architecture", "bag-of-words", "--dataset_name", reviews, *NOT_OURS)
    with pytest.raises(InputError, match="A bag of words keeps none"):
        evaluate_model(str(tmp_path / "bag"), str(reviews), DataArguments())
    with pytest.raises(InputError, match="A bag of words keeps none"):
        train_tiny(tmp_path / "run", "--model_name_or_path", tmp_path / "bag", "--dataset_name", reviews)


@pytest.mark.parametrize("architecture", ["roberta-gru", "transformer"])
def test_a_run_its_model_folder_and_a_copy_of_that_are_loaded_and_trained_on(
    architecture, reviews, stand_in, tmp_path
):
    options = ["--architecture", architecture, "--dataset_name", reviews, "--bag_of_words", "false"]
    options += NOT_OURS if architecture == "transformer" else []
    train_tiny(tmp_path / "run", *options, "--model_name_or_path", stand_in)
    copy = shutil.copytree(tmp_path / "run" / "model", tmp_path / "copy")
    assert (copy / "metrics.json").is_file()
    places = (tmp_path / "run", tmp_path / "run" / "model", copy)
    models = [load_classifier(str(place))[0] for place in places]
    for model in models[1:]:
        torch.testing.assert_close(model.state_dict(), models[0].state_dict(), rtol=0, atol=0)
    train_tiny(tmp_path / "again", *options, "--model_name_or_path", tmp_path / "run", "--learning_rate", 1e-12)
    again, _ = load_classifier(str(tmp_path / "again"))
    torch.testing.assert_close(again.base_model.state_dict(), models[0].base_model.state_dict())


@pytest.mark.parametrize("architecture", ["roberta-gru", "transformer"])
def test_a_base_that_asks_for_states_and_attentions_is_trained_as_any_other(architecture, reviews, stand_in, tmp_path):
    base = shutil.copytree(stand_in, tmp_path / "base")
    asks = {"output_hidden_states": True, "output_attentions": True, "attn_implementation": "eager"}
    (base / "config.json").write_text(json.dumps(read_json(base / "config.json") | asks))
    options = ["--architecture", architecture, "--dataset_name", reviews]
    options += NOT_OURS if architecture == "transformer" else []
    assert train_tiny(tmp_path / "run", *options, "--model_name_or_path", base)["test"]["n"] == 32
    saved = tmp_path / "run" / "model" / "config.json"
    assert not read_json(saved).get("output_hidden_states")
    saved.write_text(json.dumps(read_json(saved) | {"output_hidden_states": True}))
    assert evaluate_model(str(tmp_path / "run"), str(reviews), DataArguments())["n"] == 32


def test_a_roberta_gru_is_no_transformer_to_start_from(finished_run, reviews, tmp_path):
    options = ["--architecture", "transformer", "--dataset_name", reviews, *NOT_OURS, "--model_name_or_path"]
    with pytest.raises(InputError, match="is a RoBERTa-GRU: leave --architecture transformer out"):
        train_tiny(tmp_path / "run", *options, finished_run / "model")


@pytest.mark.parametrize("encoder", ["electra"], indirect=True)
def test_only_a_roberta_gru_can_be_explained(encoder, tmp_path):
    for part in (AutoModelForSequenceClassification, AutoTokenizer):
        part.from_pretrained(encoder).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="only a RoBERTa-GRU has running predictions"):
        explain_model(str(tmp_path / "model"), "splendid", tmp_path / "explanation", attributions=False)


def test_null_on_the_command_line_takes_a_recipes_key_back(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: {tmp_path}\nmodel_name_or_path: roberta-base\ngru_hidden_size: 9\n")
    model, *_ = parse_run(
        ["--config", str(recipe), "--architecture", "gru", "--model_name_or_path", "null", "--gru_hidden_size=null"]
    )
    assert (model.model_name_or_path, model.gru_hidden_size) == (None, None)
    with pytest.raises(InputError, match="Unknown option '--model_name_or_pat'"):
        parse_run(["--config", str(recipe), "--model_name_or_pat", "null"])


def test_a_fresh_gru_on_an_encoder_attends_and_a_trained_one_keeps_its_summary(stand_in, tmp_path):
    load = ARCHITECTURES["roberta-gru"].load_model
    labels = LabelSpace(SINGLE_LABEL, ("bad", "good"))
    tokenizer = AutoTokenizer.from_pretrained(stand_in)

    def summary(name: Path | None, **options: str) -> str:
        args = ModelArguments(model_name_or_path=None if name is None else str(name), **options)
        return load(args, tokenizer, labels).config.summary

    assert summary(stand_in) == "attention"
    assert summary(stand_in, summary="last") == summary(stand_in, config_overrides="summary=last") == "last"
    assert (
        summary(None, config_overrides="hidden_size=12,num_attention_heads=2,intermediate_size=8") == "last"
    )  # as in the paper
    load(ModelArguments(model_name_or_path=str(stand_in), summary="max"), tokenizer, labels).save_pretrained(tmp_path)
    assert summary(tmp_path) == "max"
