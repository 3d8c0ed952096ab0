"""The lines that docs/scale.md and docs/serving.md show for engines of others: each is run as it stands there."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from modeling_roberta_gru import Scorer
from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.serving import app

from .refusals import refused
from .space_browser import free_port
from .test_serving import wait_until
from .tiny import ONLY_TRAIN, ROOT, save_tiny_model

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


def settings() -> dict[str, str]:
    ours = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    ours |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    ours |= {"RAY_memory_monitor_refresh_ms": "0", "PYSPARK_PYTHON": sys.executable}
    return {**os.environ, **ours}


def run_lines(code: str, folder, **environment: str) -> None:
    # Spark and Dask start processes that import the program again.
    (folder / "program.py").write_text("if __name__ == '__main__':\n" + re.sub(r"(?m)^(?=.)", "    ", code))
    env = settings() | environment
    process = subprocess.run([sys.executable, "program.py"], cwd=folder, env=env, capture_output=True, text=True)
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


SERVE = """
import sys

import ray
from ray import serve

from modeling_roberta_gru.serving import app

ray.init(num_cpus=4, include_dashboard=False)
serve.start(http_options={"port": int(sys.argv[2])})
serve.run(app({"model": sys.argv[1], "min_replicas": 2, "max_replicas": 2, "num_cpus": 0.5}), blocking=True)
"""


@pytest.mark.slow
def test_ray_serve_answers_as_the_scorer_while_a_replica_is_killed(model):
    need("ray.serve")
    scorer, port, clients = Scorer(model), free_port(), 4
    expected = scorer.predict_proba(TEXTS).tolist()

    def ask(row: int) -> list[float] | None:
        """Return the probabilities that are answered, if any are."""
        with suppress(httpx.TransportError):
            asked = {"inputs": TEXTS[row], "parameters": {"top_k": None}}
            answer = httpx.post(f"http://127.0.0.1:{port}/classify", json=asked, timeout=60)
            if answer.status_code == 200:
                scores = {each["label"]: each["score"] for each in answer.json()}
                return [scores[label] for label in scorer.labels]
        return None

    def is_served() -> bool:
        assert process.poll() is None
        return ask(0) is not None

    process = subprocess.Popen([sys.executable, "-c", SERVE, model, str(port)], env=settings())
    try:
        wait_until(is_served, seconds=300)
        replicas = [each for each in psutil.process_iter() if "ServeReplica" in " ".join(each.cmdline())]
        assert len(replicas) == 2
        with ThreadPoolExecutor(clients) as pool:
            rows = list(range(len(TEXTS))) * 10
            answers = [pool.submit(ask, row) for row in rows]
            wait_until(lambda: sum(answer.done() for answer in answers) > len(TEXTS))
            replicas[0].kill()
        came = {at: answer.result() for at, answer in enumerate(answers) if answer.result()}
        assert len(came) >= len(rows) - clients  # but for those that it had begun
        for at, probabilities in came.items():
            assert probabilities == pytest.approx(expected[rows[at]], abs=1e-5)
    finally:
        process.terminate()
        process.wait(60)


def test_what_ray_serve_cannot_run_is_an_error_before_it_does():
    with pytest.raises(InputError, match="'replicas'"):
        app({"model": "here", "replicas": "2"})
    for arguments, field in (
        ({}, "model"),
        ({"model": "here", "max_replicas": "two"}, "max_replicas"),
        ({"model": "here", "min_replicas": "3", "max_replicas": "2"}, "min_replicas"),
    ):
        with refused(field=field):
            app(arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_replicas", "nan"),
        ("max_replicas", "inf"),
        ("max_replicas", None),
        ("min_replicas", 1.5),
        ("num_cpus", "x"),
    ],
)
def test_numbers_of_a_cluster_are_numbers(name, value):
    with refused(field=name):
        app({"model": "here", name: value})
