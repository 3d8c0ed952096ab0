"""docs/live.md: its worked example runs, and stops a language model where it says it does."""

import re

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
    language_model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=None)).eval()
    calls = []
    language_model.register_forward_hook(lambda *_: calls.append(1))
    model = classifier(TOKENIZER)
    guarded = example()["guarded"]

    def write(threshold: float):
        torch.manual_seed(1)
        calls.clear()
        reader = model.reader(TOKENIZER)
        options = {"max_new_tokens": MOST, "do_sample": True, "pad_token_id": 1}
        shown = list(guarded(language_model, TOKENIZER, "The plot", reader, 0, threshold, **options))
        return shown, reader, len(calls)

    everything, reader, num_written = write(2.0)
    assert num_written == MOST
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
