"""The lines that docs/scale.md and docs/serving.md show for engines of others: each is run as it stands there."""

import os
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from modeling_roberta_gru import Scorer
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.serving import app

from .conftest import ONLY_TRAIN, ROOT, save_tiny_model

TEXTS = [f"the plot was {'slow ' * (row % 7)}and we liked its music {row}" for row in range(40)]
ENGINES = {
    "Ray Data": ("ray.data", {"s3://bucket/": "", "concurrency=(1, 64)": "concurrency=1"}),
    "Spark": ("pyspark", {}),
    "Dask": ("distributed", {'Client("scheduler:8786")': "Client(n_workers=1, threads_per_worker=1)"}),
}
"""What each needs, and what its lines name that is not here."""


def need(module: str) -> None:
    pytest.importorskip(module)
    if module.startswith("ray") and "ROBERTA_GRU_RAY" not in os.environ:
        pytest.skip("starts Ray, which takes a busy machine many minutes: ROBERTA_GRU_RAY=1 runs it")


def lines_for(engine: str) -> str:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    return re.search(rf"^{engine}:\n\n```python\n(.*?)```", page, flags=re.DOTALL | re.MULTILINE)[1]


def run_lines(code: str, folder, **environment: str) -> None:
    # Spark and Dask start processes that import the program again.
    (folder / "program.py").write_text("if __name__ == '__main__':\n" + re.sub(r"(?m)^(?=.)", "    ", code))
    settings = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    settings |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", **environment}
    settings |= {"RAY_memory_monitor_refresh_ms": "0", "PYSPARK_PYTHON": sys.executable}
    process = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-4000:]


@pytest.fixture(scope="module")
def model(tmp_path_factory, stand_in):
    return save_tiny_model(tmp_path_factory.mktemp("model"), stand_in)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_lines_for_other_engines_score_every_row(engine, model, tmp_path):
    needs, replaced = ENGINES[engine]
    need(needs)
    (tmp_path / "reviews").mkdir()
    pq.write_table(pa.table({"id": range(len(TEXTS)), "text": TEXTS}), tmp_path / "reviews" / "part.parquet")
    code = lines_for(engine)
    for name, here in {"/shared/model": model, **replaced}.items():
        assert name in code
        code = code.replace(name, here)
    run_lines(code, tmp_path, PYSPARK_SUBMIT_ARGS="--master local[1] pyspark-shell")
    rows = [row for path in (tmp_path / "scored").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    rows.sort(key=lambda row: row["id"])
    scorer = Scorer(model)
    assert [row["text"] for row in rows] == TEXTS
    assert [row["predicted_label"] for row in rows] == scorer.predict(TEXTS).tolist()
    scores = torch.tensor([row["predicted_score"] for row in rows])
    torch.testing.assert_close(scores, torch.tensor(scorer.predict_proba(TEXTS)).amax(1).float(), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_the_lines_for_ray_train_train_on_two_workers(tmp_path, reviews, stand_in):
    need("ray.train")
    options = {
        "output_dir": tmp_path / "run",
        "dataset_name": reviews,
        "model_name_or_path": stand_in,
        "max_steps": 2,
        **ONLY_TRAIN,
    }
    code = lines_for("Ray Train")
    given = '{"config": "recipes/imdb.yaml", "output_dir": "/shared/runs/imdb"}'
    for name, here in {
        given: repr({key: str(value) for key, value in options.items()}),
        "num_workers=4, use_gpu=True": "num_workers=2, resources_per_worker={'CPU': 0.5}",
    }.items():
        assert name in code
        code = code.replace(name, here)
    run_lines(code, tmp_path)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_what_ray_serve_cannot_run_is_an_error_before_it_does():
    for arguments in ({}, {"model": "here", "replicas": "2"}, {"model": "here", "max_replicas": "two"}):
        with pytest.raises(InputError):
            app(arguments)
    with pytest.raises(InputError):
        app({"model": "here", "min_replicas": "3", "max_replicas": "2"})
