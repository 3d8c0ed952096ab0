"""Load a saved folder as a stranger would: in a fresh process that cannot import this package."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STRANGER = Path(__file__).with_name("stranger.py")


def predict_elsewhere(folder: str | os.PathLike[str], texts: Sequence[str]) -> list[dict[str, Any]]:
    """Predict texts by `pipeline("text-classification", folder)` in a fresh process, trusting the code that is there.

    The process runs outside this folder, offline, with an empty cache of remote code; importing this package is made
    to fail there, and is shown to fail before anything is loaded.

    Returns:
        `{"label": str, "score": float}` for each text.

    Raises:
        RuntimeError: if the folder does not load, with the other process's last words.
    """
    request = {"folder": str(Path(folder).resolve()), "texts": list(texts)}
    with tempfile.TemporaryDirectory() as elsewhere:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": elsewhere, "CUDA_VISIBLE_DEVICES": ""}
        # Not one of the ranks of a distributed run, if this is one.
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            environment.pop(name, None)
        process = subprocess.run(
            [sys.executable, "-I", STRANGER],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=environment,
        )
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"{folder} does not load in a fresh process: {last}")
    return json.loads(process.stdout.splitlines()[-1])
