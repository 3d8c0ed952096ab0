"""LoRA: what trains, what is written, and that a stranger has the same model, from the adapter as from the whole."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    RobertaConfig,
    RobertaModel,
    set_seed,
)

from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
from modeling_roberta_gru.configuration_roberta_gru import SUMMARIES
from modeling_roberta_gru.experiment import run
from modeling_roberta_gru.training.adapter import add_lora, base_of, count_parameters, write_adapter
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments, parse_run
from modeling_roberta_gru.training.loading import quiet
from modeling_roberta_gru.training.trainer import RobertaGRUTrainer

from .clean_process import without_the_package
from .refusals import refused
from .tiny import TINY_ENCODER
from .trajectory import WITHOUT_DROPOUT, collate, tiny_dataset

# peft 0.21 asks transformers 5.23 by a name that is on its way out; see https://github.com/huggingface/peft/pull/2817
by_peft_alone = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}
LABELS = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
TWO_LABELS = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
SIZES = {"gru_hidden_size": 7, "head_hidden_size": 5}
IDS = torch.randint(5, 61, (3, 57), generator=torch.Generator().manual_seed(1))  # of a window of 20


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Return a folder with a bare encoder."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(**TINY_ENCODER), add_pooling_layer=False).save_pretrained(folder)
    return folder


def load(folder: Path, **fields: Any) -> RobertaGRUForSequenceClassification:
    with quiet():
        config = RobertaGRUConfig.from_pretrained(folder, **{**SIZES, **LABELS, **fields})
        options = {"config": config, "dtype": torch.float32, "ignore_mismatched_sizes": True}
        return RobertaGRUForSequenceClassification.from_pretrained(folder, **options).eval()


def trained(model: Any) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def disturb(model: Any) -> Any:
    """Change all that trains, as training would."""
    with torch.no_grad():
        for parameter in trained(model).values():
            parameter.normal_(std=0.3)
    return model.eval()


def logits(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    model.requires_grad_(False)  # torch's GRU rounds otherwise with weights that could train, also under no_grad
    with torch.no_grad():
        return model(**(inputs or {"input_ids": IDS})).logits


def loading_code(folder: Path) -> str:
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


# What trains


def test_a_fresh_adapter_changes_nothing(encoder):
    model = load(encoder)
    before = logits(model)
    assert torch.equal(logits(add_lora(model, rank=3)), before)


def test_lora_trains_small_matrices_in_the_encoder_and_the_rest_wholly(encoder):
    names = [
        re.sub(r"\d", "N", name) for name in trained(base_of(add_lora(load(encoder, summary="attention"), rank=3)))
    ]
    beside = "roberta.encoder.layer.N.attention.self"
    assert {name for name in names if name.startswith("roberta")} == {
        f"{beside}.{target}.lora_{side}.default.weight" for target in ("query", "value") for side in "AB"
    }
    assert {name.partition(".")[0] for name in names} == {"roberta", "gru", "summary", "head"}
    without_query = add_lora(load(encoder, summary="mean"), rank=3)
    assert without_query.peft_config["default"].modules_to_save == ["gru", "head"]


@pytest.mark.parametrize("summary", SUMMARIES)
def test_gradients_reach_all_that_trains_and_nothing_else(summary, encoder):
    model = disturb(add_lora(load(encoder, summary=summary, gru_bidirectional=True), rank=3)).train()
    model(IDS, labels=torch.tensor([0, 1, 2])).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == parameter.requires_grad, name


def test_alpha_over_rank_scales_what_lora_adds(encoder):
    logits_of = [logits(disturb_alike(add_lora(load(encoder), 4, alpha))) for alpha in (None, 4, 8)]
    assert torch.equal(logits_of[0], logits_of[1])
    assert not torch.allclose(logits_of[1], logits_of[2], **FLOAT32)


def disturb_alike(model: Any) -> Any:
    torch.manual_seed(5)
    return disturb(model)


def test_all_linear_means_the_encoders_linear_layers_and_not_the_heads(encoder):
    model = add_lora(load(encoder), 2, target_modules=["all-linear"])
    targets = {name for name, module in base_of(model).named_modules() if hasattr(module, "lora_A")}
    linear = {name for name, module in load(encoder).roberta.named_modules() if isinstance(module, nn.Linear)}
    assert targets == {f"roberta.{name}" for name in linear}


def test_parameters_are_counted_as_those_of_the_merged_model(encoder):
    model = add_lora(load(encoder), rank=3)
    assert count_parameters(model) == (
        sum(parameter.numel() for parameter in load(encoder).parameters()),
        sum(parameter.numel() for parameter in trained(model).values()),
    )
    assert count_parameters(model.merge_and_unload())[0] == count_parameters(load(encoder))[0]


# What is written


@by_peft_alone
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("summary", SUMMARIES)
def test_an_adapter_loaded_onto_its_encoder_gives_equal_logits(summary, dtype, encoder, tmp_path):
    with quiet():
        RobertaModel.from_pretrained(encoder, dtype=dtype, add_pooling_layer=False).save_pretrained(tmp_path / "base")
    model = disturb(add_lora(load(tmp_path / "base", summary=summary, gru_bidirectional=True), rank=3))
    model.config.calibration_temperature = 1.7
    write_adapter(model, "apache-2.0", tmp_path / "adapter")
    code = loading_code(tmp_path / "adapter").replace('"."', f'"{tmp_path / "adapter"}"').rpartition("tokenizer")[0]
    code = code.replace("get_class_from_dynamic_module(", "(lambda *_: RobertaGRUForSequenceClassification)(")
    names: dict[str, Any] = {"RobertaGRUForSequenceClassification": RobertaGRUForSequenceClassification}
    with quiet():
        exec(code, names)
    assert torch.equal(logits(names["model"]), logits(model))
    assert names["model"].config.calibration_temperature == 1.7
    assert names["model"].config.id2label == LABELS["id2label"]


def test_merging_gives_the_same_logits_and_a_model_as_any_other(encoder, tmp_path):
    model = disturb(add_lora(load(encoder), rank=3))
    model.config.calibration_temperature = 1.7
    expected = logits(model)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, **FLOAT32)
    merged.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == load(encoder).state_dict().keys()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(loaded), logits(merged))
    assert loaded.config.calibration_temperature == 1.7


def test_a_folder_holds_what_was_trained_and_how_to_load_it_and_no_more(encoder, tmp_path):
    model = add_lora(load(encoder, summary="attention"), rank=3, revision="v1")
    write_adapter(model, "apache-2.0", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "LICENSE",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "configuration_roberta_gru.py",
        "modeling_roberta_gru.py",
    }
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) == count_parameters(model)[1]
    adapter = json.loads((tmp_path / "adapter_config.json").read_text())
    # A class that strangers cannot import, or a task type, would have peft's Auto classes build another model.
    assert (adapter["auto_mapping"], adapter["task_type"]) == (None, None)
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == (str(encoder), "v1")
    assert adapter["inference_mode"] is True
    config = json.loads((tmp_path / "config.json").read_text())
    assert "architectures" not in config  # or the loading of a bare encoder is refused for its missing GRU
    assert len(config["auto_map"]) == 4
    readme = (tmp_path / "README.md").read_text()
    for words in ("library_name: peft", f"adapter for {encoder}", "revision='v1'", "bad, fair, good"):
        assert words in readme
    assert "base_model:" not in readme  # a folder is not a model on the Hub


def test_labels_are_text_in_a_readme_and_many_are_counted(encoder, tmp_path):
    model = load(encoder)
    model.name_or_path = "somebody/encoder"
    model = add_lora(model, rank=3)
    for labels, told in ((["*a*", "<b>", "x\n# y"], r"\*a\*, &lt;b&gt;, x # y"), ([f"c{n}" for n in range(30)], "30")):
        base_of(model).config.id2label = dict(enumerate(labels))
        write_adapter(model, "apache-2.0", tmp_path)
        assert told in (tmp_path / "README.md").read_text()


def test_a_readme_names_the_encoder_on_the_hub(encoder, tmp_path):
    model = load(encoder)
    model.name_or_path = "somebody/encoder"
    write_adapter(add_lora(model, rank=1), "apache-2.0", tmp_path)
    assert "\nbase_model: somebody/encoder\n---" in (tmp_path / "README.md").read_text()


@by_peft_alone
def test_a_stock_head_keeps_its_pooler_even_where_the_encoder_came_without(tmp_path):
    sizes = {"hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 20}
    config = BertConfig(**sizes, vocab_size=61, **LABELS)
    whole = BertForSequenceClassification(config)
    weights = {name: tensor for name, tensor in whole.bert.state_dict().items() if "pooler" not in name}
    whole.bert.save_pretrained(tmp_path / "base", state_dict=weights)
    with quiet():
        base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", config=config)
        model = disturb(add_lora(base, rank=2))
        write_adapter(model, "apache-2.0", tmp_path / "adapter")
        code = loading_code(tmp_path / "adapter").replace('"."', f'"{tmp_path / "adapter"}"')
        names: dict[str, Any] = {}
        exec(code.rpartition("tokenizer")[0], names)
    assert torch.equal(logits(names["model"]), logits(model))
    assert not list((tmp_path / "adapter").glob("*.py"))


# In a fresh process without the package

COMPARE = """
{code}
import json, torch
from transformers import AutoModelForSequenceClassification
merged = AutoModelForSequenceClassification.from_pretrained({merged!r}, trust_remote_code=True)
inputs = tokenizer({texts!r}, padding=True, return_tensors="pt", return_token_type_ids=False)
with torch.no_grad():
    outputs = [system.requires_grad_(False)(**inputs).logits.tolist() for system in (model, merged)]
print(json.dumps([*outputs, model.config.id2label, getattr(model.config, "calibration_temperature", None)]))
"""


def load_elsewhere(adapter: Path, merged: Path, texts: list[str], cache: Path) -> list[Any]:
    """Run the README's code as it stands, in the adapter's folder, and load the merged model; see COMPARE."""
    code = COMPARE.format(code=loading_code(adapter), merged=str(merged), texts=texts)
    process = subprocess.run(
        [sys.executable, "-I", "-c", without_the_package(code)],
        cwd=adapter,
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_clean_process_has_the_same_model_from_the_adapter_and_from_the_whole(stand_in, tmp_path):
    # What it starts from is a RoBERTa-GRU itself, with other labels: the hardest to load.
    base = tmp_path / "base"
    load(stand_in, **TWO_LABELS).save_pretrained(base)
    AutoTokenizer.from_pretrained(stand_in).save_pretrained(base)
    model = disturb(add_lora(load(base), rank=3))
    model.config.calibration_temperature = 1.7
    write_adapter(model, "apache-2.0", tmp_path / "adapter")
    AutoTokenizer.from_pretrained(stand_in).save_pretrained(tmp_path / "adapter")
    texts = ["dreadful music", "splendid plot but slow " * 30]
    inputs = AutoTokenizer.from_pretrained(stand_in)(texts, padding=True, return_tensors="pt")
    assert inputs["input_ids"].shape[1] > 64  # the window
    expected = [logits(model, **inputs)]
    merged = model.merge_and_unload()
    expected.append(logits(merged, **inputs))
    merged.save_pretrained(tmp_path / "model")
    *outputs, names, temperature = load_elsewhere(tmp_path / "adapter", tmp_path / "model", texts, tmp_path)
    for output, tensor in zip(outputs, expected, strict=True):
        assert torch.equal(torch.tensor(output), tensor)
    assert list(names.values()) == ["bad", "fair", "good"]
    assert temperature == 1.7


# With the trainer


def make_trainer(encoder: Path, folder: Path, fields: dict[str, Any] | None = None, **options: Any):
    set_seed(0)
    model = add_lora(load(encoder, **(fields or {})), rank=3, dropout=0.1)
    defaults = {
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "learning_rate": 1e-2,
        "max_steps": 6,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "logging_steps": 1,
    }
    args = RobertaGRUTrainingArguments(output_dir=str(folder), **{**defaults, **options})
    data = {"train_dataset": tiny_dataset(), "eval_dataset": tiny_dataset(16), "data_collator": collate}
    return RobertaGRUTrainer(model, args, **data)


SAVES = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 9}


def test_training_moves_all_that_trains_and_leaves_the_encoder(encoder, tmp_path):
    trainer = make_trainer(encoder, tmp_path)
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(encoder, tmp_path):
    whole = make_trainer(encoder, tmp_path / "whole", **SAVES)
    whole.train()
    saved = {path.name for path in (tmp_path / "whole" / "checkpoint-3").iterdir()}
    assert "adapter_model.safetensors" in saved
    assert "model.safetensors" not in saved
    resumed = make_trainer(encoder, tmp_path / "resumed", **SAVES)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for (name, expected), actual in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(actual, expected), name


def test_the_best_checkpoint_is_the_one_kept_after_stopping_early(encoder, tmp_path):
    # Steps so long that the first evaluation is the best.
    options = {"eval_strategy": "steps", "eval_steps": 3, "max_steps": 30, "load_best_model_at_end": True}
    trainer = make_trainer(encoder, tmp_path, **SAVES, **options, learning_rate=3.0, lr_scheduler_type="constant")
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    best = trainer.state.best_global_step
    assert best < trainer.state.global_step < 30
    weights = load_file(tmp_path / f"checkpoint-{best}" / "adapter_model.safetensors")
    kept = trained(trainer.model)
    assert len(kept) == len(weights)
    for name, parameter in kept.items():
        name = name.replace(".modules_to_save.default", "").replace(".default", "")
        assert torch.equal(parameter, weights[name]), name


def test_activation_checkpointing_trains_to_the_same_weights(encoder, tmp_path):
    def parameters(**options: Any) -> torch.Tensor:
        trainer = make_trainer(encoder, tmp_path, WITHOUT_DROPOUT, **options, max_steps=2, optimizer="sgd")
        trainer.train()
        return torch.cat([parameter.flatten() for parameter in trained(trainer.model).values()])

    torch.testing.assert_close(parameters(gradient_checkpointing=True), parameters(), **FLOAT32)


def test_smoothing_and_weights_of_the_loss_are_those_of_the_model(encoder, tmp_path):
    fields = {"class_weights": [0.5, 1.0, 3.0]}
    trainer = make_trainer(encoder, tmp_path, fields, label_smoothing_factor=0.2)
    assert base_of(trainer.model).config.label_smoothing == 0.2
    expected = trainer.evaluate()["eval_loss"]
    plain = load(encoder, **fields, label_smoothing=0.2)
    plain.load_state_dict(make_trainer(encoder, tmp_path, fields).model.merge_and_unload().state_dict())
    with torch.no_grad():
        loss = plain(**collate(list(tiny_dataset(16)))).loss
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_training_resets_the_temperature(encoder, tmp_path):
    trainer = make_trainer(encoder, tmp_path, {"calibration_temperature": 3.0}, max_steps=1)
    trainer.train()
    assert trainer.model.config.calibration_temperature == 1.0


def test_a_checkpoint_of_another_rank_is_refused(encoder, tmp_path):
    make_trainer(encoder, tmp_path, **SAVES).train()
    trainer = make_trainer(encoder, tmp_path, **SAVES)
    trainer.model = trainer.model_wrapped = add_lora(load(encoder), rank=2)
    with refused(file=str(tmp_path / "checkpoint-3"), match="other sizes or labels"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


# Bad input


def test_without_peft_the_way_to_it_is_said(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with refused(field="lora", match="pip install peft"):
        add_lora(load(encoder), rank=1)


def test_an_adapter_needs_a_checkpoint_that_others_can_load():
    model = RobertaGRUForSequenceClassification(RobertaGRUConfig(**TINY_ENCODER, **SIZES))
    with refused(field="model_name_or_path"):
        add_lora(model, rank=1)


@pytest.mark.parametrize(
    ("target", "hint"), [("qeury", "Did you mean 'query'"), ("word_embeddings", "Known: "), ("out_proj", "Known: ")]
)
def test_only_linear_layers_of_the_encoder_can_be_targets(target, hint, encoder):
    with refused(field="lora_target_modules", match=f"'{target}'. {hint}"):
        add_lora(load(encoder), 1, target_modules=["query", target])


def test_an_encoder_without_usual_layers_is_asked_about(encoder):
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(
            "squeezebert",
            vocab_size=61,
            hidden_size=12,
            embedding_size=12,
            num_hidden_layers=1,
            num_attention_heads=3,
            intermediate_size=20,
        )
    )
    model.name_or_path = str(encoder)
    with refused(field="lora_target_modules", match="squeezebert"):
        add_lora(model, rank=1)


# A whole run


def rates(model: Any, groups: list[dict[str, Any]]) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in base_of(model).named_parameters()}
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


def test_lora_learns_at_its_layers_rate_and_the_rest_at_the_heads(encoder, tmp_path):
    options = {"learning_rate": 0.8, "layer_decay": 0.5, "head_learning_rate": 3.0}
    trainer = make_trainer(encoder, tmp_path, **options)
    found = rates(trainer.model, trainer.create_optimizer().param_groups)
    assert len(found) == len(trained(trainer.model))
    for name, rate in found.items():
        layer = re.search(r"layer\.(\d)", name)
        assert rate == (3.0 if layer is None else 0.8 * 0.5 ** (1 - int(layer[1]))), name


RUN = [
    *("--max_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3", "--save_strategy", "steps"),
    *("--save_steps", "3", "--learning_rate", "0.03", "--gru_hidden_size", "5", "--disable_tqdm", "true"),
    *("--use_cpu", "true", "--verify_load", "false", "--bag_of_words", "false", "--load_best_model_at_end", "false"),
]


def train(folder: Path, *options: object) -> dict[str, Any]:
    return run(*parse_run(["--output_dir", str(folder), *RUN, *map(str, options)])).metrics


@pytest.fixture(scope="module", params=["roberta-gru", "transformer"])
def finished(request, tmp_path_factory, reviews, stand_in):
    """Return a run's folder and options."""
    options = ["--dataset_name", reviews, "--model_name_or_path", stand_in, "--lora", 2]
    if request.param == "transformer":
        options += ["--architecture", "transformer", "--gru_hidden_size", "null"]
    folder = tmp_path_factory.mktemp("runs") / request.param
    train(folder, *options)
    return folder, options


@pytest.mark.slow
def test_a_clean_process_has_the_runs_probabilities_from_the_adapter_and_from_the_whole(finished, reviews, tmp_path):
    folder, _ = finished
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()[:4]
    texts = [line.split(",")[0] for line in (reviews / "test.csv").read_text().splitlines()[1:5]]
    expected = torch.tensor([row["probabilities"] for row in rows], dtype=torch.float32)
    *outputs, names, _ = load_elsewhere(folder / "adapter", folder / "model", texts, tmp_path)
    assert list(names.values()) == ["bad", "good"]
    for output in outputs:
        torch.testing.assert_close(torch.tensor(output).softmax(-1), expected, **FLOAT32)


def test_a_run_leaves_the_adapter_and_the_merged_model(finished):
    folder, _ = finished
    assert not (folder / "model" / "adapter_config.json").exists()
    assert not any("lora" in name for name in load_file(folder / "model" / "model.safetensors"))
    assert not [path for path in folder.glob("*/*") if path.suffix == ".bin" and path.parent.name != "checkpoint-3"]
    record = json.loads((folder / "run.json").read_text())
    weights = load_file(folder / "model" / "model.safetensors")
    assert record["model"]["num_parameters"] == sum(tensor.numel() for tensor in weights.values())
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert record["model"]["num_trained_parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert record["hyperparameters"]["lora_rank"] == record["hyperparameters"]["lora_alpha"] == 2


def test_a_run_is_gone_on_with_and_replaced_by_one_without_an_adapter(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    options = finished[1]
    train(folder, *options, "--resume_from_checkpoint", "true", "--max_steps", "6")
    assert json.loads((folder / "run.json").read_text())["steps"] == 6
    with refused(field="lora"):
        train(folder, *options, "--lora", "null", "--resume_from_checkpoint", "true", "--max_steps", "9")
    train(folder, *options, "--lora", "null", "--overwrite_output_dir", "true")
    assert not (folder / "adapter").exists()
