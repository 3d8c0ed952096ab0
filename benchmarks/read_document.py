"""Classify one document of random tokens, and print as JSON what it took: `python -I read_document.py FOLDER LENGTH`.

What document_length.py runs in a clean process, which knows torch, transformers and the saved folder only.
"""

import ctypes
import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification


def memory(name: str) -> int:
    """Return an entry of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@torch.no_grad()
def main(folder: str, length: str) -> None:
    """Load, warm up, and classify."""
    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # a weight that was only mapped from the file is not in memory yet
        parameter.sum()
    model(torch.ones(1, 3, dtype=torch.long))
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    loaded = memory("VmRSS")
    started, cpu_started = time.perf_counter(), time.process_time()
    model(torch.randint(model.config.vocab_size, (1, int(length)), generator=generator))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    figures = {"seconds": round(seconds, 4), "cpu_seconds": round(cpu_seconds, 4)}
    print(json.dumps({"loaded_bytes": loaded, "above_loaded_bytes": memory("VmHWM") - loaded, **figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
