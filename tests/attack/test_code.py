"""A model of somebody else brings code along: it runs and travels only where that was asked for."""

import ast
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

import modeling_roberta_gru
from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.cli import app
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.files import carried
from modeling_roberta_gru.hub.check import check_model, predict_in_clean_process
from modeling_roberta_gru.inference import evaluation
from modeling_roberta_gru.inference.evaluation import evaluate_model
from modeling_roberta_gru.training.loading import load_classifier, read_tokenizer
from modeling_roberta_gru.trust import check_code, describe_remote_code, remove_foreign_code

from ..refusals import refused
from ..test_experiment import train_tiny
from ..tiny import tiny_config

PACKAGE = Path(modeling_roberta_gru.__file__).parent

EVIL = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification
from transformers import TextClassificationPipeline

Path({marker!r}).write_text("code of somebody else has run")

class EvilTokenizer(PreTrainedTokenizerFast):
    pass

class EvilConfig(RobertaConfig):
    pass

class EvilModel(RobertaForSequenceClassification):
    pass

class EvilPipeline(TextClassificationPipeline):
    pass
"""


def edit(path: Path, **fields) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **fields}))


def of_tokenizer(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.EvilTokenizer"]})


def of_unknown_tokenizer(folder: Path) -> None:
    of_tokenizer(folder)
    edit(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer")


def of_tokenizer_elsewhere(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mallory/evil--evil.EvilTokenizer", None]})


def of_config(folder: Path) -> None:
    held = json.loads((folder / "config.json").read_text()).get("auto_map", {})
    evil = {"AutoConfig": "evil.EvilConfig", "AutoModelForSequenceClassification": "evil.EvilModel"}
    edit(folder / "config.json", auto_map={**held, **evil})


def of_config_elsewhere(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForSequenceClassification": "mallory/evil--evil.EvilModel"})


def of_one_more_class(folder: Path) -> None:
    held = json.loads((folder / "config.json").read_text()).get("auto_map", {})
    edit(folder / "config.json", auto_map={**held, "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]})


def of_pipeline(folder: Path) -> None:
    task = {"impl": "evil.EvilPipeline", "pt": ["AutoModelForSequenceClassification"]}
    edit(folder / "config.json", custom_pipelines={"text-classification": task})


def of_processor(folder: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        edit(folder / name, auto_map={"AutoProcessor": "evil.EvilTokenizer"}, inner={"auto_map": {"A": "evil.B"}})


TRAPS = [
    of_tokenizer,
    of_unknown_tokenizer,
    of_tokenizer_elsewhere,
    of_config,
    of_config_elsewhere,
    of_one_more_class,
    of_pipeline,
    of_processor,
]


@pytest.fixture
def marker(tmp_path) -> Path:
    """Return the file that code of somebody else writes where it runs; at the end of the test it must not be there."""
    return tmp_path / "has-run"


@pytest.fixture
def lay(marker) -> Callable[..., Path]:
    """Return a function that copies a model and lays traps in the copy."""

    def lay(model: Path, target: Path, *traps: Callable[[Path], None]) -> Path:
        shutil.copytree(model, target)
        (target / "evil.py").write_text(EVIL.format(marker=str(marker)))
        for trap in traps:
            trap(target)
        return target

    return lay


@pytest.fixture(scope="module")
def ours(tmp_path_factory, stand_in) -> Path:
    """Return the folder of a classifier of ours."""
    folder = tmp_path_factory.mktemp("ours")
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    torch.manual_seed(0)
    RobertaGRUForSequenceClassification(tiny_config(vocab_size=len(tokenizer), **labels)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# Loading


@pytest.mark.parametrize("trap", TRAPS)
def test_loading_runs_no_code_of_a_folder(trap, ours, lay, tmp_path, marker) -> None:
    folder = lay(ours, tmp_path / "model", trap)
    with suppress(InputError):
        model, tokenizer = load_classifier(str(folder))
        assert type(model) is RobertaGRUForSequenceClassification
        assert type(tokenizer).__module__.startswith("transformers.")
    assert not marker.exists()


def test_what_cannot_be_looked_through_is_not_taken_for_clear(ours, lay, tmp_path, marker) -> None:
    nested: list = []
    for _ in range(60):
        nested = [nested]
    folder = lay(ours, tmp_path / "model", of_tokenizer)
    edit(folder / "tokenizer_config.json", x=nested)
    for refuse in (check_model, check_code, remove_foreign_code):
        with pytest.raises(InputError, match="nested in more than"):
            refuse(folder)
    assert not marker.exists()


def test_a_folder_of_ours_is_loaded_by_the_installed_classes(ours, tmp_path, marker) -> None:
    folder = Path(shutil.copytree(ours, tmp_path / "model"))
    for path in folder.glob("*.py"):
        path.write_text(f"{path.read_text()}\nopen({str(marker)!r}, 'w').close()\n")
    model, _ = load_classifier(str(folder))
    assert type(model) is RobertaGRUForSequenceClassification
    assert not marker.exists()


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "MODEL", "DATA"],
        ["score", "MODEL", "DATA", "OUT.csv"],
        ["explain", "MODEL", "splendid music", "--no-attributions", "--output-dir", "OUT"],
        ["export", "MODEL", "--output-dir", "OUT"],
        ["publish", "MODEL", "ada/model", "--dry-run"],
    ],
    ids=lambda command: command[0],
)
def test_no_command_runs_code_of_a_folder(command, ours, reviews, lay, tmp_path, marker) -> None:
    traps = (of_tokenizer, of_one_more_class, of_pipeline, of_processor)
    places = {
        "MODEL": str(lay(ours, tmp_path / "model", *traps)),
        "DATA": str(reviews / "test.csv"),
        "OUT": str(tmp_path / "out"),
        "OUT.csv": str(tmp_path / "out.csv"),
    }
    result = CliRunner().invoke(app, [places.get(word, word) for word in command])
    assert not marker.exists()
    is_refused = command[0] == "publish"
    assert result.exit_code == (2 if is_refused else 0), result.output
    assert not is_refused or "someone else's code" in " ".join(result.output.split())


def test_every_load_in_the_package_says_whether_it_trusts() -> None:
    unsaid = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            is_auto = isinstance(node.func.value, ast.Name) and node.func.value.id.startswith("Auto")
            options = {option.arg: option.value for option in node.keywords}
            trusts = options.get("trust_remote_code")
            is_true = isinstance(trusts, ast.Constant) and trusts.value is True
            if node.func.attr == "from_pretrained" and (is_true or (is_auto and trusts is None)):
                unsaid.append(f"{path.name}:{node.lineno}")
    assert unsaid == []


# Training


@pytest.mark.slow
def test_a_base_model_brings_no_code_into_a_run(stand_in, reviews, lay, tmp_path, marker, capsys, caplog) -> None:
    base = lay(stand_in, tmp_path / "base", of_tokenizer, of_config, of_pipeline, of_processor)
    train_tiny(tmp_path / "run", "--dataset_name", reviews, "--model_name_or_path", base, verify=True)
    assert not marker.exists()
    for path in (tmp_path / "run").rglob("*.json"):
        assert "evil" not in path.read_text(), path
    assert not list((tmp_path / "run").rglob("evil.py"))
    check_model(tmp_path / "run" / "model")
    (said,) = [record.getMessage() for record in caplog.records if "code of others" in record.getMessage()]
    assert "auto_map in tokenizer_config.json" in said
    assert "Predictions of a clean process" in capsys.readouterr().out


def test_a_tokenizer_of_a_class_of_its_own_runs_no_code(stand_in, reviews, lay, tmp_path, marker) -> None:
    base = lay(stand_in, tmp_path / "base", of_unknown_tokenizer)
    with suppress(InputError):
        train_tiny(tmp_path / "run", "--dataset_name", reviews, "--model_name_or_path", base)
    assert not marker.exists()


def test_what_is_trusted_is_named_runs_and_is_not_published(stand_in, reviews, lay, tmp_path, marker, capsys) -> None:
    base = lay(stand_in, tmp_path / "base", of_tokenizer)
    options = ["--dataset_name", reviews, "--model_name_or_path", base, "--trust_remote_code", "true"]
    train_tiny(tmp_path / "run", *options, verify=True)
    assert marker.read_text()
    said = capsys.readouterr().out
    assert f"Trusted to run: the code of {base} (a folder): evil.py" in said
    assert "Predictions of a clean process" not in said
    with pytest.raises(InputError, match="names someone else's code in"):
        check_model(tmp_path / "run" / "model")


@pytest.mark.parametrize("command", ["adapt", "evaluate"])
@pytest.mark.parametrize("is_trusted", [False, True])
def test_other_commands_run_what_is_trusted_and_name_it(
    command, is_trusted, ours, stand_in, reviews, lay, tmp_path, marker, capsys
) -> None:
    if command == "adapt":
        folder = lay(stand_in, tmp_path / "model", of_tokenizer, of_config)
        words = [folder, reviews / "train.csv", "--output-dir", tmp_path / "out", "--epochs", "0.1"]
    else:
        folder = lay(ours, tmp_path / "model", of_tokenizer)
        words = [folder, reviews / "test.csv"]
    for path in folder.glob("*_roberta_gru.py"):  # ours is loaded by the installed classes even then
        path.write_text("raise RuntimeError")
    with pytest.raises(SystemExit) as end:
        app([command, *map(str, words), *(["--trust-remote-code"] if is_trusted else [])])
    assert end.value.code in (0, None)
    assert marker.exists() == is_trusted
    assert (f"Trusted to run: the code of {folder} (a folder): " in capsys.readouterr().out) == is_trusted
    if command == "adapt" and not is_trusted:
        for path in (tmp_path / "out").glob("*.json"):
            assert "evil" not in path.read_text(), path


@pytest.mark.parametrize("trap", [of_tokenizer_elsewhere, of_config_elsewhere])
def test_code_of_another_repository_is_not_trusted_along(trap, ours, lay, tmp_path) -> None:
    """Of it no commit is pinned, and nothing of it is named."""
    folder = lay(ours, tmp_path / "model", trap)
    for name in ("config.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        if "mallory/evil--" in text:
            with refused(file=str(folder / name)):
                evaluate_model(str(folder), "unread.csv", DataArguments(), trust_remote_code=True)
            (folder / name).write_text(text.replace("mallory/evil--", f"{folder}--"))  # its own, as others save it
    assert "evil.py" in describe_remote_code(str(folder))


def test_evaluate_loads_the_commit_whose_code_it_names(monkeypatch, capsys) -> None:
    """Even if another one is pushed in between."""
    commits = iter(["first", "second"])
    monkeypatch.setattr(evaluation, "pinned", lambda name: next(commits))
    monkeypatch.setattr(evaluation, "describe_remote_code", lambda name, revision=None: f"{name} at {revision}")
    loaded: list = []
    monkeypatch.setattr(evaluation, "load_classifier", lambda *args: loaded.append(args) or (None, None))
    with pytest.raises(AttributeError):  # evaluation ends here: None was loaded in place of a model
        evaluate_model("ada/model", "unread.csv", DataArguments(), trust_remote_code=True)
    assert loaded == [("ada/model", True, "first")]
    assert "ada/model at first" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["vocab", "vocab_file", "tokenizer_file"])
def test_a_tokenizer_reads_no_other_file_of_this_machine(field, stand_in, tmp_path) -> None:
    """Its lines would become words of the vocabulary, and be published with it."""
    folder = Path(shutil.copytree(stand_in, tmp_path / "base"))
    (folder / "tokenizer.json").unlink()
    secret = tmp_path / "secret.txt"
    secret.write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\nhunter2\n")
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", **{field: str(secret)})
    with pytest.raises(InputError, match=f"`{field}`"):
        read_tokenizer(str(folder))
    edit(
        folder / "tokenizer_config.json", **{field: "/nowhere/tokenizer.json"}
    )  # of another machine, as old ones have it
    shutil.copy(stand_in / "tokenizer.json", folder)
    assert "hunter2" not in read_tokenizer(str(folder)).get_vocab()


def test_a_tokenizer_takes_no_arguments_without_their_names(stand_in, tmp_path) -> None:
    """The first of them may be the file of its vocabulary."""
    folder = Path(shutil.copytree(stand_in, tmp_path / "base"))
    (folder / "tokenizer.json").unlink()
    secret = tmp_path / "secret.txt"
    secret.write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\nhunter2\n")
    config = folder / "tokenizer_config.json"
    edit(config, tokenizer_class="BertTokenizer", init_inputs=[str(secret)])
    with refused(field="init_inputs", file=str(config)):
        read_tokenizer(str(folder))
    edit(config, init_inputs=[])
    assert "hunter2" not in read_tokenizer(str(folder)).get_vocab()


# What is saved, published, and run in the clean process


@pytest.mark.parametrize("trap", TRAPS)
def test_a_folder_that_names_code_of_others_is_refused_until_it_is_removed(trap, ours, lay, tmp_path, marker) -> None:
    folder = lay(ours, tmp_path / "model", trap)
    for refuse in (check_model, lambda folder: predict_in_clean_process(folder, ["text"])):
        with pytest.raises(InputError, match=r"\.json names someone else's code in"):
            refuse(folder)
    assert remove_foreign_code(folder)
    check_code(folder)
    assert not (folder / "evil.py").exists()
    for path in folder.glob("*.json"):
        assert "evil" not in path.read_text().replace("EvilTokenizer", "")
    assert remove_foreign_code(folder) == []
    assert not marker.exists()


@pytest.mark.parametrize("name", ["modeling_roberta_gru.py", "configuration_roberta_gru.py"])
def test_one_changed_byte_of_our_code_is_refused(name, ours, tmp_path) -> None:
    folder = Path(shutil.copytree(ours, tmp_path / "model"))
    check_code(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    for refuse in (check_model, lambda folder: predict_in_clean_process(folder, ["text"])):
        with pytest.raises(InputError, match=f"{name} is not the file of this version"):
            refuse(folder)


@pytest.mark.parametrize("name", ["modeling_roberta_gru.py", "configuration_roberta_gru.py"])
@pytest.mark.parametrize("other", ["model_card/handler.py", "model_card/requirements.txt"])
def test_a_file_of_ours_is_known_by_its_name_only(name, other, ours, tmp_path) -> None:
    folder = Path(shutil.copytree(ours, tmp_path / "model"))
    shutil.copy(carried(other), folder)
    check_code(folder)
    shutil.copy(carried(other), folder / name)
    with pytest.raises(InputError, match=f"{name} is not the file of this version"):
        check_code(folder)


def test_what_an_endpoint_would_install_is_ours(ours, tmp_path) -> None:
    folder = Path(shutil.copytree(ours, tmp_path / "model"))
    shutil.copy(carried("model_card/requirements.txt"), folder)
    check_code(folder)
    (folder / "requirements.txt").write_text("--index-url https://mallory.example\nevil\n")
    with pytest.raises(InputError, match=r"requirements\.txt is not the file of this version"):
        check_model(folder)


@pytest.mark.parametrize("auto_map", [None, [], 7])
def test_an_auto_map_of_another_kind_is_one_line(auto_map, ours, tmp_path) -> None:
    folder = Path(shutil.copytree(ours, tmp_path / "model"))
    edit(folder / "config.json", auto_map=auto_map)
    with pytest.raises(InputError, match=r"config\.json: `auto_map` is"):
        check_model(folder)


@pytest.mark.parametrize("length", [256, 5000])
def test_a_name_too_long_for_a_file_is_no_file_of_a_tokenizer(length, stand_in, tmp_path) -> None:
    folder = Path(shutil.copytree(stand_in, tmp_path / "base"))
    edit(folder / "tokenizer_config.json", vocab_file="a" * length)
    read_tokenizer(str(folder))


def test_what_is_ours_is_left_as_it_is(ours, tmp_path) -> None:
    folder = Path(shutil.copytree(ours, tmp_path / "model"))
    assert remove_foreign_code(folder) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in ours.iterdir()
    }
