"""Files larger than memory, and texts of ever other lengths: what is held does not grow with them."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from .tiny import BENCHMARKS, ROOT

MIB = 2**20
LONG_WORD = 100  # characters: texts of many bytes and few tokens
SCRIPT = """
import gc, json, os, random, sys
from pathlib import Path

sys.path[:0] = sys.argv[1:3]
import numpy as np
from preparation import Memory

from modeling_roberta_gru.arguments import DataArguments
from modeling_roberta_gru.data import documents, tables
from modeling_roberta_gru.data.splits import load_splits
from modeling_roberta_gru.data.tokenization import tokenize, train_word_tokenizer
from modeling_roberta_gru.inference.score_file import score_file

documents.SPILL_BYTES = tables.BLOCK_BYTES = 2**20  # how many blocks wait to be parsed differs by run


class Scorer:
    labels, problem_type = ["neg", "pos"], "single_label_classification"
    fingerprint, dtype, max_length, agreement = "one", "float32", None, None
    description = "nothing is read"

    def stream(self, texts, update=lambda _: None):
        return (np.array([0.25, 0.75], np.float32) for _ in texts)


def write(path, num_rows):
    rng = random.Random(num_rows)
    with path.open("w") as file:
        file.write("text,label\\n")
        for row in range(num_rows):
            words = " ".join(rng.choice("abcdefgh") * %(long_word)d for _ in range(20))
            file.write(f'"{row}, {words}",{"neg pos".split()[row %% 2]}\\n')
    return path.stat().st_size


def most_held(path):
    memory = Memory(pause=0.005)
    memory.start()
    splits = load_splits(DataArguments(train_file=[str(path)]))
    splits.fingerprint
    for part in (splits.train, splits.validation, splits.test):
        tokenize(part, tokenizer, None, num_proc=1)
    score_file(Scorer(), path, path.with_name("scored.csv"), progress=False)
    memory.is_done.set()
    memory.join()
    return memory.most_bytes


tokenizer = train_word_tokenizer(["a b c"])
path = Path(sys.argv[3]) / "reviews.csv"
told = []
for num_rows in map(int, sys.argv[4:]):
    size = write(path, num_rows)
    gc.collect()
    told.append([size, most_held(path)])
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    code = SCRIPT % {"long_word": LONG_WORD}
    command = [sys.executable, "-c", code, str(BENCHMARKS), str(ROOT), str(tmp_path), "20000", "80000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (small, held), (large, held_of_large) = json.loads(done.stdout.splitlines()[-1])
    assert large - small > 64 * MIB
    assert held_of_large - held < (large - small) / 6  # a few bytes hold numbers for each row


KERNELS = """
import sys

sys.path.insert(0, sys.argv[1])
import torch
from tests.tiny import tiny_config

from modeling_roberta_gru import RobertaGRUForSequenceClassification
from modeling_roberta_gru.inference.engine import OpenVINOEncoder

torch.set_num_threads(2)
model = RobertaGRUForSequenceClassification(tiny_config(max_position_embeddings=260)).eval()
encoder = OpenVINOEncoder(model.roberta, "int8")
for num_rows in range(1, 7):
    for length in range(1, 200):
        ids = torch.randint(3, model.config.vocab_size, (num_rows, length))
        encoder(ids, None, torch.arange(2, 2 + length).repeat(num_rows, 1))
    lines = open("/proc/self/status").read().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO")
def test_memory_does_not_grow_with_the_sizes_that_an_engine_met():
    done = subprocess.run([sys.executable, "-c", KERNELS, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    held = list(map(int, done.stdout.split()[-6:]))
    assert held[-1] - held[1] < 32 * MIB  # OpenVINO's own choice keeps 70 MiB
