"""docs/live.md: its worked example runs, and stops a language model where it says it does."""

import itertools
import re
import threading
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from .test_reader import FAMILIES, classifier
from .tiny import ROOT

TOKENIZER = FAMILIES["byte_level_bpe"]
MOST = 40


def example() -> dict:
    page = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Stop" in block)
    names: dict = {}
    exec(code, names)
    return names


def test_a_reader_stops_a_language_model_once_a_prediction_passes_a_threshold():
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 128, "vocab_size": len(TOKENIZER)}
    language_model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=TOKENIZER.eos_token_id)).eval()
    calls = []
    language_model.register_forward_hook(lambda *_: calls.append(1))
    model = classifier(TOKENIZER)
    guarded = example()["guarded"]

    def write(threshold: float):
        torch.manual_seed(1)
        calls.clear()
        reader = model.reader(TOKENIZER)
        # As language models do, it ends with a token of its own, which is no part of the text.
        options = {"max_new_tokens": MOST, "min_new_tokens": MOST - 1, "forced_eos_token_id": TOKENIZER.eos_token_id}
        options |= {"do_sample": True, "pad_token_id": 1}
        shown = list(guarded(language_model, TOKENIZER, "The plot", reader, 0, threshold, **options))
        return shown, reader, len(calls)

    everything, reader, num_written = write(2.0)
    assert num_written == MOST
    assert not any(token in "".join(everything) for token in TOKENIZER.all_special_tokens)
    assert reader.num_tokens == len(TOKENIZER("".join(everything))["input_ids"])
    again = model.reader(TOKENIZER)
    probabilities = [again.append(chunk)[0].item() for chunk in everything]
    assert torch.equal(again.logits, reader.logits)
    # A threshold that is passed within the first half, and where.
    threshold = sorted(set(probabilities[: MOST // 2]))[-2]
    passed = next(place for place, probability in enumerate(probabilities) if probability > threshold)
    shown, reader, num_written = write(threshold)
    assert shown == everything[:passed]
    assert reader.num_tokens == len(TOKENIZER("".join(everything[: passed + 1]))["input_ids"])
    assert num_written <= passed + 4 < MOST


@pytest.mark.parametrize("fails", [True, False], ids=["the language model fails", "nobody reads on"])
def test_a_guarded_generation_ends_however_it_ends(fails):
    model, threads = classifier(TOKENIZER), set(threading.enumerate())

    def generate(streamer, stopping_criteria, **_):
        for token in itertools.cycle(range(10, 20)):
            streamer.put(torch.tensor([token]))
            if fails:
                raise MemoryError("out of memory")
            if stopping_criteria(torch.zeros(1, 1), None).all():
                return streamer.end()

    language_model = SimpleNamespace(generate=generate)
    chunks = example()["guarded"](language_model, TOKENIZER, "The plot", model.reader(TOKENIZER), 0, 2.0)
    if fails:
        with pytest.raises(MemoryError):
            list(chunks)
    else:
        next(chunks)
        chunks.close()
    assert set(threading.enumerate()) == threads
