"""Masked-language-model training on unlabelled texts: what is hidden, what is left out, and that a run resumes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, RobertaForMaskedLM, TrainingArguments

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.files import write_json
from modeling_roberta_gru.training import arguments, pretraining
from modeling_roberta_gru.training.dropout import SLOW_ATTENTION
from modeling_roberta_gru.training.loading import quiet
from modeling_roberta_gru.training.pretraining import AdaptOptions, Masking, TextWindows, adapt_encoder, masked_loss

from .refusals import refused

QUICK = AdaptOptions(epochs=4, learning_rate=3e-3, batch_size=8, validation_share=0.1, save_steps=10)


@pytest.fixture(scope="module")
def texts(reviews) -> Path:
    return reviews / "train.csv"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, stand_in, texts, reviews) -> tuple[Path, dict]:
    """Return the folder and the record of an adapted encoder, which never saw the test split."""
    folder = tmp_path_factory.mktemp("adapted") / "encoder"
    options = AdaptOptions(**{**vars(QUICK), "exclude": (str(reviews / "test.csv"),)})
    return folder, adapt_encoder(str(stand_in), [texts, reviews / "test.csv"], folder, options)


def windows_of(stand_in: Path, documents: list[str], size: int) -> tuple[TextWindows, AutoTokenizer]:
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    wrap = pretraining._wrapping(tokenizer)
    return TextWindows(pretraining._tokenise(documents, tokenizer), wrap, size), tokenizer


def test_windows_hold_every_token_once_and_look_like_documents(stand_in):
    document = "the plot was long and slow but we liked its music more than most " * 3
    windows, tokenizer = windows_of(stand_in, [document, "slow"], 12)
    rows = [window["input_ids"] for window in windows]
    assert all(len(row) <= 12 for row in rows)
    assert {(row[0], row[-1]) for row in rows} == {(tokenizer.bos_token_id, tokenizer.eos_token_id)}
    content = [token for row in rows for token in row[1:-1]]
    assert content == [*tokenizer(document)["input_ids"][1:-1], *tokenizer("slow")["input_ids"][1:-1]]


def test_words_are_hidden_whole_and_special_tokens_never(stand_in):
    documents = [f"unheardof plotting {number} slowness and musically likeable" for number in range(40)]
    windows, tokenizer = windows_of(stand_in, documents, 40)
    batch = Masking(tokenizer, whole_words=True, seed=3)([windows[row] for row in range(40)])
    hidden = batch["labels"] != -100
    assert 0.05 < hidden[batch["attention_mask"] == 1].float().mean() < 0.4
    assert torch.equal(batch["input_ids"] == tokenizer.mask_token_id, hidden)
    split_words = 0
    for row, document in enumerate(documents):
        words = tokenizer(document).word_ids(0)
        for word in {word for word in words if word is not None}:
            pieces = hidden[row, [place for place, owner in enumerate(words) if owner == word]]
            split_words += len(pieces) > 1 and bool(pieces.any())
            assert pieces.all() or not pieces.any()
        assert not hidden[row, [place for place, owner in enumerate(words) if owner is None]].any()
    assert split_words


def test_words_are_hidden_whole_whichever_side_a_tokenizer_pads(stand_in):
    documents = ["unheardof plotting slowness and musically likeable " * number for number in range(1, 5)]
    windows, tokenizer = windows_of(stand_in, documents, 60)
    batches = []
    for tokenizer.padding_side in ("right", "left"):
        batches.append(Masking(tokenizer, whole_words=True, seed=3)([windows[row] for row in range(len(windows))]))
    assert (batches[0]["labels"] != -100).any()
    assert all(torch.equal(values, batches[1][name]) for name, values in batches[0].items())


def test_the_loss_is_the_models_own(stand_in):
    with quiet():
        model = RobertaForMaskedLM.from_pretrained(stand_in).eval()
    windows, tokenizer = windows_of(stand_in, ["the plot was long", "we liked its music more than most " * 3], 60)
    batch = Masking(tokenizer, whole_words=False, seed=3)([windows[0], windows[1]])
    torch.testing.assert_close(masked_loss(model, **batch)["loss"], model(**batch).loss)
    number = int((batch["labels"] != -100).sum())
    halves = [{name: values[row : row + 1] for name, values in batch.items()} for row in range(2)]
    parts = sum(masked_loss(model, **half, num_items_in_batch=number)["loss"] for half in halves)
    torch.testing.assert_close(parts, model(**batch).loss)


def test_an_adapted_encoder_has_learned_and_starts_a_classifier(adapted, stand_in):
    folder, record = adapted
    assert record["validation_loss"] < record["validation_loss_before"] - 0.5
    steps = [row["step"] for row in record["history"]]
    assert steps == sorted(set(steps))
    assert record["history"][-1]["eval_loss"] == record["validation_loss"]
    with quiet():
        model = RobertaGRUForSequenceClassification.from_pretrained(folder)
        before = RobertaGRUForSequenceClassification.from_pretrained(stand_in)
    saved = load_file(folder / "model.safetensors")
    for name, parameter in model.roberta.named_parameters():
        assert torch.equal(parameter, saved[f"roberta.{name}"])
        assert not torch.equal(parameter, before.roberta.get_parameter(name))
    assert AutoTokenizer.from_pretrained(folder).mask_token == "<mask>"
    assert {path.name for path in folder.iterdir()}.isdisjoint({"checkpoints", "training_args.bin"})


def test_excluded_texts_are_left_out_and_counted(adapted):
    _, record = adapted
    assert (record["texts"], record["excluded"], record["repeated"], record["empty"]) == (96, 32, 0, 0)
    assert record["train_texts"] + record["validation_texts"] == 96


def test_html_is_removed_from_texts_and_from_those_left_out(tmp_path):
    texts, held_out = tmp_path / "texts.csv", tmp_path / "test.csv"
    texts.write_text("text\nslow<br />plot\n<b>good</b> &amp; long\nslow<br>plot\n<i></i>\n")
    held_out.write_text("text\ngood &amp; <p>long</p>\n")
    found, counts = pretraining._read_texts([texts], AdaptOptions(clean_html=True, exclude=(str(held_out),)))
    assert found == ["slow\nplot"]
    assert counts == {"texts": 1, "excluded": 1, "repeated": 1, "empty": 1}
    assert pretraining._read_texts([texts], AdaptOptions())[0][0] == "slow<br />plot"


def test_the_validation_loss_is_the_mean_over_hidden_tokens_whatever_the_batches(
    stand_in, texts, tmp_path, monkeypatch
):
    monkeypatch.setattr(arguments, "has_bfloat16", lambda on_cpu: False)  # whose rounding depends on the batch
    losses = [
        adapt_encoder(
            str(stand_in),
            [texts],
            tmp_path / str(size),
            AdaptOptions(**{**vars(QUICK), "batch_size": size, "epochs": 0.1}),
        )["validation_loss_before"]
        for size in (1, 3, 32)
    ]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_texts_without_a_token_are_left_out_and_counted(share, stand_in, tmp_path, monkeypatch):
    path = tmp_path / "texts.csv"
    path.write_text("text\nslow plot\nNONE\nlong music\nNONE and more\nslow\n")
    tokenise = pretraining._tokenise

    def without(texts, tokenizer):  # as some normalise characters away
        for text, document in zip(texts, tokenise(texts, tokenizer), strict=True):
            yield (
                document._replace(ids=document.ids[:0], begins_word=document.begins_word[:0])
                if text.startswith("NONE")
                else document
            )

    monkeypatch.setattr(pretraining, "_tokenise", without)
    options = AdaptOptions(epochs=1, validation_share=share, batch_size=2)
    record = adapt_encoder(str(stand_in), [path], tmp_path / "encoder", options)
    assert (record["texts"], record["empty"]) == (3, 2)
    assert (record["train_texts"], record["validation_texts"]) == ((2, 1) if share < 0.5 else (1, 2))


def test_rows_of_json_may_lack_the_text(stand_in, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"id": 1}\n' * 300 + '{"text": "slow plot"}\n')
    found, counts = pretraining._read_texts([path], AdaptOptions())
    assert (found, counts["empty"]) == (["slow plot"], 300)
    path.write_text('{"id": 1}\n' * 300)
    with refused(field="text_column", file=str(path)):
        pretraining._read_texts([path], AdaptOptions())


def test_a_classifier_can_be_adapted_too(stand_in, texts, tmp_path):
    with quiet():
        model = RobertaGRUForSequenceClassification.from_pretrained(stand_in)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(stand_in).save_pretrained(tmp_path / "model")
    options = AdaptOptions(epochs=0.1, validation_share=0.05, max_length=30)
    adapt_encoder(str(tmp_path / "model"), [texts], tmp_path / "encoder", options)
    assert json.loads((tmp_path / "encoder" / "config.json").read_text())["model_type"] == "roberta"


def test_dropout_is_set_for_the_training_only(stand_in, texts, tmp_path):
    options = AdaptOptions(**{**vars(QUICK), "epochs": 0.2})
    none = AdaptOptions(**{**vars(options), "dropout": 0.0})
    with quiet():
        model = RobertaForMaskedLM.from_pretrained(stand_in)
    own = model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob
    assert 0 not in own
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    model.roberta.save_pretrained(tmp_path / "without")
    AutoTokenizer.from_pretrained(stand_in).save_pretrained(tmp_path / "without")
    runs = {"own": (stand_in, options), "set": (stand_in, none), "without_any": (tmp_path / "without", options)}
    for name, (encoder, chosen) in runs.items():
        adapt_encoder(str(encoder), [texts], tmp_path / name, chosen)
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in runs}
    equal = {
        name: all(torch.equal(tensor, weights["set"][key]) for key, tensor in theirs.items())
        for name, theirs in weights.items()
    }
    assert equal == {"own": False, "set": True, "without_any": True}
    config = json.loads((tmp_path / "set" / "config.json").read_text())
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == own


def test_words_are_hidden_anew_in_every_epoch(stand_in, texts, tmp_path, monkeypatch):
    epochs: list[int] = []
    hide = Masking.__call__

    def noting(self, windows):
        if len(windows) > 1:  # of training: those of validation are hidden one by one, before it begins
            epochs.append(self.epoch)
        return hide(self, windows)

    monkeypatch.setattr(Masking, "__call__", noting)
    adapt_encoder(str(stand_in), [texts], tmp_path, AdaptOptions(**{**vars(QUICK), "epochs": 2}))
    assert epochs == sorted(epochs)
    assert epochs.count(0) == epochs.count(1) == len(epochs) / 2 > 1


def test_a_run_that_was_cut_off_resumes_as_if_it_had_not_been(stand_in, texts, tmp_path, monkeypatch):
    options = AdaptOptions(**{**vars(QUICK), "epochs": 2})
    adapt_encoder(str(stand_in), [texts], tmp_path / "whole", options)
    steps: list[int] = []
    step = pretraining._Trainer.training_step

    def interrupted(*args, **kwargs):
        steps.append(1)
        if len(steps) == at:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    monkeypatch.setattr(pretraining._Trainer, "training_step", interrupted)
    for at, checkpoint in ((5, 0), (15, 10)):  # before the first checkpoint, and after it
        steps.clear()
        folder = tmp_path / f"cut-off-{at}"
        with pytest.raises(KeyboardInterrupt):
            adapt_encoder(str(stand_in), [texts], folder, options)
        assert not (folder / "model.safetensors").exists()
        adapt_encoder(str(stand_in), [texts], folder, options)
        assert len(steps) - at == 22 - checkpoint
        whole, parts = (load_file(path / "model.safetensors") for path in (tmp_path / "whole", folder))
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
        assert (folder / "adapt.json").read_bytes() == (tmp_path / "whole" / "adapt.json").read_bytes()


def test_a_finished_encoder_stays_and_is_refused_for_other_texts(adapted, stand_in, texts, reviews, tmp_path):
    finished, record = adapted
    folder = Path(shutil.copytree(finished, tmp_path / "encoder"))
    options = AdaptOptions(**{**vars(QUICK), "exclude": (str(reviews / "test.csv"),)})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert adapt_encoder(str(stand_in), [texts, reviews / "test.csv"], folder, options) == record
    write_json(folder / "adapt.json", {**record, "texts_sha256": "of other texts"})
    with refused(field="output_dir", file=str(folder), match="other texts"):
        adapt_encoder(str(stand_in), [texts, reviews / "test.csv"], folder, options)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "adapt.json"} == {
        name: content for name, content in before.items() if name != "adapt.json"
    }


@pytest.mark.parametrize("dropout", [None, 0.0, 0.1])
@pytest.mark.parametrize("own", [0.0, 0.1])
@pytest.mark.skipif(torch.accelerator.is_available(), reason="it is slow on a CPU only")
def test_attention_dropout_is_called_slow_where_it_is(own, dropout, stand_in, texts, tmp_path, capsys):
    encoder = Path(shutil.copytree(stand_in, tmp_path / "own"))
    config = json.loads((encoder / "config.json").read_text())
    write_json(encoder / "config.json", {**config, "attention_probs_dropout_prob": own})
    options = AdaptOptions(**{**vars(QUICK), "epochs": 0.05, "dropout": dropout})
    adapt_encoder(str(encoder), [texts], tmp_path / "encoder", options)
    assert (SLOW_ATTENTION in capsys.readouterr().out) == bool(own if dropout is None else dropout)


@pytest.mark.parametrize(("fault", "said"), [("no padding", "^.*padding.*$"), ("nan", "^.*NaN.*$")])
def test_what_cannot_be_adapted_is_one_line_and_leaves_nothing(fault, said, stand_in, texts, tmp_path):
    encoder = Path(shutil.copytree(stand_in, tmp_path / "own"))
    if fault == "nan":
        weights = load_file(encoder / "model.safetensors")
        next(iter(weights.values())).flatten()[0] = float("nan")
        save_file(weights, encoder / "model.safetensors", {"format": "pt"})
    else:
        config = json.loads((encoder / "tokenizer_config.json").read_text())
        write_json(encoder / "tokenizer_config.json", {**config, "pad_token": None})
    with refused(file=str(encoder), match=said):
        adapt_encoder(str(encoder), [texts], tmp_path / "encoder", QUICK)
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"text_column": "txt"}, refused(field="text_column", match="Did you mean 'text'")),
        ({"exclude": ("TEXTS",)}, refused(field="files", match="No text is left")),
        ({"max_length": 500}, refused(field="max_length")),
        ({"max_length": 2}, refused(field="max_length")),
    ],
)
def test_bad_options_are_one_line(options, refusal, stand_in, texts, tmp_path):
    options = {**options, "exclude": tuple(str(texts) for _ in options.get("exclude", ()))}
    with refusal:
        adapt_encoder(str(stand_in), [texts], tmp_path / "encoder", AdaptOptions(**options))
    assert not (tmp_path / "encoder").exists()  # so that the corrected command may name the same folder


@pytest.mark.parametrize("name", ["epochs", "learning_rate", "dropout"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(name, value):
    with refused(field=name):
        AdaptOptions(**{name: value})


def test_a_record_from_before_an_option_existed_is_of_its_default(adapted, stand_in, texts, reviews):
    folder, record = adapted
    older = {**record, "options": {name: value for name, value in record["options"].items() if name != "clean_html"}}
    options = AdaptOptions(**{**vars(QUICK), "exclude": (str(reviews / "test.csv"),)})
    (folder / "adapt.json").write_text(json.dumps(older))
    assert adapt_encoder(str(stand_in), [texts, reviews / "test.csv"], folder, options) == older
    (folder / "adapt.json").write_text(json.dumps(record))


@pytest.mark.parametrize("name", ["epochs", "learning_rate", "validation_share"])
def test_numbers_out_of_range_are_refused(name):
    with refused(field=name):
        AdaptOptions(**{name: 0.0})


def test_an_encoder_without_tokenizer_or_mask_token_is_refused(stand_in, texts, tmp_path):
    with quiet():
        encoder = RobertaForMaskedLM.from_pretrained(stand_in)
    encoder.save_pretrained(tmp_path / "bare")
    with refused(file=str(tmp_path / "bare"), match="tokenizer"):
        adapt_encoder(str(tmp_path / "bare"), [texts], tmp_path / "encoder")
    encoder.save_pretrained(tmp_path / "unmasked")
    tokenizer = AutoTokenizer.from_pretrained(stand_in)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "unmasked")
    with refused(file=str(tmp_path / "unmasked"), match="mask token"):
        adapt_encoder(str(tmp_path / "unmasked"), [texts], tmp_path / "other")
    BertConfig().save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(stand_in).save_pretrained(tmp_path / "bert")
    with refused(file=str(tmp_path / "bert"), match="'bert'"):
        adapt_encoder(str(tmp_path / "bert"), [texts], tmp_path / "third")


def test_a_run_killed_at_its_first_or_last_write_ends_by_the_same_command(stand_in, texts, tmp_path):
    folder, options = tmp_path / "encoder", AdaptOptions(epochs=0.1, validation_share=0.05, max_length=30)
    folder.mkdir()
    (folder / ".unfinished-00000000-1.1-adapt.json").write_text("{")
    record = adapt_encoder(str(stand_in), [texts], folder, options)
    (folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert adapt_encoder(str(stand_in), [texts], folder, options) == record
    assert not (folder / "checkpoints").exists()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_text_that_cannot_be_written_is_named_by_its_row(stand_in, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "half \\ud83d"}\n')
    with refused(file=str(path), row=2):
        adapt_encoder(str(stand_in), [path], tmp_path / "encoder")


def test_other_texts_are_no_part_of_an_unfinished_run(stand_in, tmp_path, monkeypatch):
    path = tmp_path / "texts.csv"
    path.write_text("text\n" + "".join(f"text {row}\n" for row in range(40)))
    with monkeypatch.context() as patch:
        patch.setattr(pretraining._Trainer, "training_step", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            adapt_encoder(str(stand_in), [path], tmp_path / "encoder", QUICK)
    with open(path, "a") as file:
        file.write("a text that was not there\n")
    with refused(field="output_dir", file=str(tmp_path / "encoder"), match="other texts"):
        adapt_encoder(str(stand_in), [path], tmp_path / "encoder", QUICK)


def test_columns_that_nobody_asked_for_do_not_matter(stand_in, tmp_path):
    path = tmp_path / "texts.csv"
    rows = "".join(f"text {row},x\n" for row in range(40))
    path.write_bytes(b"text,author\n" + rows.encode() + b"last,caf\xe9\n")
    assert adapt_encoder(str(stand_in), [path], tmp_path / "encoder", QUICK)["texts"] == 41
    path.write_bytes(b"author\n\xe9\n")
    with refused(field="text_column", file=str(path)):
        adapt_encoder(str(stand_in), [path], tmp_path / "other", QUICK)


@pytest.mark.parametrize("record", ["{}", "[]", '{"options": 1}'])
def test_a_record_that_is_none_of_ours_is_refused(stand_in, texts, tmp_path, record):
    (tmp_path / "adapted").mkdir()
    (tmp_path / "adapted" / "adapt.json").write_text(record)
    with refused(field="output_dir", file=str(tmp_path / "adapted")):
        adapt_encoder(str(stand_in), [texts], tmp_path / "adapted", QUICK)


def test_a_folder_that_holds_something_else_is_not_touched(adapted, stand_in, texts, tmp_path):
    folder, record = adapted
    with refused(file=str(folder), match=" a finished run "):
        adapt_encoder(str(stand_in), [texts], folder, QUICK)
    (tmp_path / "notes.txt").write_text("mine")
    with refused(field="output_dir", file=str(tmp_path)):
        adapt_encoder(str(stand_in), [texts], tmp_path, QUICK)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "adapt.json").write_text(json.dumps({"options": {**record["options"], "seed": 7}}))
    with refused(file=str(unfinished), match="an unfinished run "):
        adapt_encoder(str(stand_in), [texts], unfinished, QUICK)


def test_something_is_hidden_of_every_validation_window(stand_in):
    windows, tokenizer = windows_of(stand_in, ["slow", "the plot was long", *["music"] * 20], 12)
    masking, hid_at_once = Masking(tokenizer, whole_words=True, seed=0), 0
    for row in range(len(windows)):
        masked = pretraining._hide_some(masking, windows[row])
        assert (masked["labels"] != -100).any()
        assert masking.epoch == 0
        first = masking([windows[row]])
        if (first["labels"] != -100).any():
            hid_at_once += 1
            assert torch.equal(masked["input_ids"], first["input_ids"][0])
    assert 0 < hid_at_once < len(windows)


@pytest.mark.parametrize("num_items", [None, 0, torch.tensor(0)])
def test_a_batch_without_anything_hidden_has_no_loss(stand_in, num_items):
    with quiet():
        model = RobertaForMaskedLM.from_pretrained(stand_in).eval()
    ids = torch.tensor([[0, 5, 6, 2]])
    loss = masked_loss(model, ids, torch.ones_like(ids), torch.full_like(ids, -100), num_items)["loss"]
    assert loss == 0


def test_one_of_several_gpus_is_adapted_on(stand_in, monkeypatch, tmp_path):
    found = TrainingArguments.device.fget

    def device(args: TrainingArguments) -> torch.device:
        is_first = "_n_gpu" not in vars(args)
        place = found(args)
        args._n_gpu = 2 if is_first else args._n_gpu
        return place

    monkeypatch.setattr(TrainingArguments, "device", property(device))
    with quiet():
        model = RobertaForMaskedLM.from_pretrained(stand_in)
    windows, tokenizer = windows_of(stand_in, ["the plot was long"] * 4, 12)
    parts = {"train": windows, "validation": windows}
    assert pretraining._trainer(model, tokenizer, parts, tmp_path, QUICK, True).args.n_gpu == 1


def test_an_encoder_that_diverges_is_not_written(stand_in, texts, tmp_path):
    options = AdaptOptions(epochs=1, learning_rate=1e30, save_steps=1)
    with refused(field="learning_rate"):
        adapt_encoder(str(stand_in), [texts], tmp_path / "adapted", options)
    assert not list((tmp_path / "adapted").glob("*.safetensors"))
    for path in (tmp_path / "adapted").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())
