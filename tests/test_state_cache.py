"""States of a frozen encoder: read once, found again, equal to what the encoder gives, and bounded on disk."""

import errno
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from transformers import DataCollatorWithPadding, RobertaModel

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.data.corpus import train_tokenizer
from modeling_roberta_gru.experiment import run
from modeling_roberta_gru.files import alone, replacing
from modeling_roberta_gru.training import state_cache
from modeling_roberta_gru.training.arguments import RobertaGRUTrainingArguments, parse_run
from modeling_roberta_gru.training.state_cache import StatesCollator, keep_states, states_folder

from .refusals import refused
from .tiny import tiny_config


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "roberta-gru" / "states"


@pytest.fixture
def encoded(monkeypatch):
    """Return the list of how many windows each call of an encoder reads."""
    calls: list[int] = []
    forward = RobertaModel.forward

    def counting(self, *args, **kwargs):
        calls.append(len(kwargs["position_ids"]))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(RobertaModel, "forward", counting)
    return calls


def train(folder: Path, reviews: Path, encoder: Path, *options: object) -> list[float]:
    """Train on frozen states for two epochs, and return the losses."""
    argv = [
        "--output_dir",
        folder,
        "--dataset_name",
        reviews,
        "--model_name_or_path",
        encoder,
        "--freeze_encoder=true",
    ]
    argv += ["--num_train_epochs", 2, "--learning_rate", 0.01, "--gru_hidden_size", 5, "--head_hidden_size", 4]
    argv += ["--per_device_train_batch_size", 8, "--logging_steps", 1, "--bag_of_words=false", "--verify_load=false"]
    run(*parse_run(list(map(str, [*argv, "--disable_tqdm=true", "--use_cpu=true", *options]))))
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [row[name] for row in rows for name in ("loss", "eval_loss") if name in row]


def test_training_on_kept_states_is_training_and_later_runs_read_nothing(reviews, stand_in, tmp_path, encoded, cache):
    plain = train(tmp_path / "plain", reviews, stand_in, "--cache_limit", 0)
    per_run = len(encoded)
    assert not cache.exists()
    first = train(tmp_path / "first", reviews, stand_in)
    assert len(list(cache.glob("*.npy"))) == 2  # training and validation
    assert first == pytest.approx(plain, rel=2e-3)  # float16 keeps 11 bits
    encoded.clear()
    again = train(tmp_path / "again", reviews, stand_in)
    # Of the frozen encoder only what is read at the end is left: validation and test, for calibration and metrics.
    assert len(encoded) < per_run / 4
    assert again == first
    other = train(tmp_path / "other", reviews, stand_in, "--seed", 7, "--summary", "max")
    assert other != first
    assert len(list(cache.glob("*.npy"))) == 2


def rows_of(*lengths: int) -> Dataset:
    ids = [[0, *np.random.default_rng(n).integers(5, 61, n - 2), 2] for n in lengths]
    columns = {"input_ids": ids, "attention_mask": [[1] * n for n in lengths], "length": list(lengths)}
    return Dataset.from_dict({**columns, "labels": [0] * len(lengths)})


@pytest.fixture
def collator():
    return DataCollatorWithPadding(train_tokenizer(["a few words"], vocab_size=270))


def options(folder: Path, **fields) -> RobertaGRUTrainingArguments:
    common = {"use_cpu": True, "disable_tqdm": True, "freeze_encoder": True}
    return RobertaGRUTrainingArguments(output_dir=str(folder), **common, **fields)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_hold_the_states_that_the_encoder_gives(collator, side, tmp_path):
    collator.tokenizer.padding_side = side
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    tokens = rows_of(5, 66, 3, 20)
    kept, states_collator = keep_states(model, tokens, collator, options(tmp_path), "training")
    wanted = collator(list(tokens.select_columns(["input_ids", "attention_mask"])))
    expected = model(**wanted, output_hidden_states=True).hidden_states[-1].detach()
    batch = states_collator([kept[row] for row in (0, 1, 2, 3)])
    assert set(batch) == {"encoder_states", "attention_mask", "labels", "length"}
    mask = wanted["attention_mask"] == 1
    assert batch["encoder_states"][mask] == pytest.approx(expected[mask].numpy(), rel=1e-3, abs=1e-3)
    assert not batch["encoder_states"][~mask].any()
    plain = states_collator(list(tokens.select_columns(["input_ids", "attention_mask"])))
    assert "input_ids" in plain  # rows without states are made into batches as before


def test_another_encoder_other_tokens_and_other_windows_have_states_of_their_own(collator, tmp_path, cache):
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    others = [
        RobertaGRUForSequenceClassification(tiny_config()).eval(),
        RobertaGRUForSequenceClassification(tiny_config(window_overlap=0)).eval(),
    ]
    others[1].load_state_dict(model.state_dict())
    for number, (one, tokens) in enumerate(
        [(model, rows_of(5, 30)), (others[0], rows_of(5, 30)), (others[1], rows_of(5, 30)), (model, rows_of(30, 5))], 1
    ):
        for _ in range(2):
            keep_states(one, tokens, collator, options(tmp_path), "training")
            assert len(list(cache.glob("*.npy"))) == number


@pytest.mark.parametrize("changed", [{"bf16": True}, {"fp16": True}])
def test_another_precision_has_states_of_its_own(changed, collator, tmp_path, cache):
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    args = options(tmp_path)
    keep_states(model, rows_of(5, 30), collator, args, "training")
    for name, value in changed.items():
        setattr(args, name, value)
    keep_states(model, rows_of(5, 30), collator, args, "training")
    assert len(list(cache.glob("*.npy"))) == 2


@pytest.mark.parametrize(
    "changed",
    [{"layer_norm_eps": 1e-3}, {"hidden_act": "relu"}, {"num_attention_heads": 4}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_configuration_of_the_same_weights_has_states_of_its_own(changed, collator, tmp_path, cache):
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    other = RobertaGRUForSequenceClassification(tiny_config(**changed)).eval()
    other.load_state_dict(model.state_dict())
    for one in (model, other):
        keep_states(one, rows_of(5, 30), collator, options(tmp_path), "training")
    assert len(list(cache.glob("*.npy"))) == 2


def test_what_is_used_least_recently_makes_room(collator, tmp_path, cache, monkeypatch):
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    size = 2 * 12 * 50 + 128  # bytes of 50 tokens' states and the file's header
    monkeypatch.setattr(state_cache, "GIB", size)
    args = options(tmp_path, cache_limit=2.5)

    def kept(*lengths: int) -> Path:
        _, states = keep_states(model, rows_of(*lengths), collator, args, "training")
        assert isinstance(states, StatesCollator)
        return states.path

    first, second = kept(50), kept(20, 30)
    for time, path in enumerate((first, second)):
        os.utime(path, (time, time))
    assert kept(50) == first  # which is used again
    third = kept(10, 40)
    assert set(cache.glob("*.npy")) == {first, third}


@pytest.mark.parametrize(("limit", "kept"), [(1.5, 1), (2.5, 2)])
def test_a_runs_second_split_does_not_take_the_room_of_its_first(collator, tmp_path, cache, monkeypatch, limit, kept):
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    monkeypatch.setattr(state_cache, "GIB", 2 * 12 * 50 + 128)
    args = options(tmp_path, cache_limit=limit)
    keep_states(model, rows_of(10), collator, args, "training")  # of an earlier run
    rows, first = keep_states(model, rows_of(50), collator, args, "training")
    _, second = keep_states(model, rows_of(20, 30), collator, args, "validation", beside=first)
    assert isinstance(second, StatesCollator) is (kept == 2)
    assert first([rows[0]])["encoder_states"].shape == (1, 50, 12)
    assert len([path for path in cache.iterdir() if path.stat().st_size > 2 * 12 * 49]) == kept


def test_states_beyond_the_limit_are_not_kept_and_that_is_said(collator, tmp_path, cache, capsys):
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    tokens = rows_of(50)
    kept, same = keep_states(model, tokens, collator, options(tmp_path, cache_limit=1e-9), "training")
    assert (kept, same) == (tokens, collator)
    assert "--cache_limit" in capsys.readouterr().out
    assert not cache.exists()


def test_where_states_cannot_be_kept_training_goes_on_without_and_that_is_said(
    collator, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    tokens = rows_of(5)
    assert keep_states(model, tokens, collator, options(tmp_path), "training") == (tokens, collator)
    said = capsys.readouterr().out
    assert all(word in said for word in (str(tmp_path / "file"), "XDG_CACHE_HOME", "--cache_limit 0"))
    assert states_folder().parent.parent == tmp_path / "file"


def test_what_another_run_is_writing_makes_no_room(collator, tmp_path, cache):
    cache.mkdir(parents=True)
    with replacing(cache / "other.npy") as unfinished:
        unfinished.write_bytes(b"0" * 10_000)
        dead = unfinished.with_name(unfinished.name.replace(f"-{os.getpid()}.", "-999999999."))
        dead.write_bytes(b"0" * 10_000)
        model = RobertaGRUForSequenceClassification(tiny_config()).eval()
        keep_states(model, rows_of(5), collator, options(tmp_path, cache_limit=9_000 / 2**30), "training")
        assert (unfinished.exists(), dead.exists()) == (True, False)


def test_a_disk_without_room_is_found_full_before_states_are_written(collator, tmp_path, cache, monkeypatch, capsys):
    def allocate(descriptor, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    tokens = rows_of(5)
    assert keep_states(model, tokens, collator, options(tmp_path), "training") == (tokens, collator)
    assert "No space left" in capsys.readouterr().out
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(limit, tmp_path):
    with refused(field="cache_limit"):
        options(tmp_path, cache_limit=limit)


def test_what_another_run_deletes_stays_readable(collator, tmp_path):
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    rows, kept = keep_states(model, rows_of(5, 9), collator, options(tmp_path), "training")
    twin = pickle.loads(pickle.dumps(kept))  # as a worker gets it
    before = kept([rows[1]])["encoder_states"]
    kept.path.unlink()
    for reader in (kept, twin):
        assert reader([rows[1]])["encoder_states"].tolist() == before.tolist()


def test_states_that_another_process_is_writing_are_waited_for(collator, tmp_path, monkeypatch):
    model = RobertaGRUForSequenceClassification(tiny_config()).eval()
    path = keep_states(model, rows_of(5), collator, options(tmp_path), "training")[1].path
    written = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(state_cache, "_write", None)
    with ThreadPoolExecutor(1) as threads:
        with alone(path):
            waiting = threads.submit(keep_states, model, rows_of(5), collator, options(tmp_path), "training")
            with pytest.raises(TimeoutError):
                waiting.result(1)
            path.write_bytes(written)
        assert waiting.result(60)[1].path == path
