"""Kill what a cluster is made of and see whether the output is complete and equal; measure what a cluster costs.

    python benchmarks/cluster.py kills --kills 10            # workers, nodes and drivers of `score --engine ray`
    python benchmarks/cluster.py training --kills 10         # a machine of two in training
    python benchmarks/cluster.py speed runs/mine --rows 4000 # rows a second, beside `roberta-gru score`

Each writes its section of `benchmarks/results/cluster.json`. Needs the extra `ray`; the training needs none.

**kills.** Two Ray nodes of one core each on this machine; `roberta-gru score --engine ray` scores parts of more rows
than a worker keeps at once. At a random moment of the run one worker process, one node with all on it, or the driver
is killed (SIGKILL). After the run, or after the driver's same command again, every part must hold what
`roberta-gru score` makes of it alone. A node that was lost is replaced once the run is over.

**training.** Two agents of torchrun on loopback, one process each, stand for two machines. After a random step the
second one is killed with all it started, and started again. Losses and weights must be those of an undisturbed run,
bit for bit.

**speed.** In each round every system scores the same rows, and a quarter of them: what is told is the rows a second
between the two, without what starting costs, which is told beside. Nodes have one core each by Ray's count; nothing
pins them. Two processes that know nothing of each other, on one core each, show what a second core of this machine is
worth.

Drivers are forks of this process, which has imported everything and computes nothing.
"""

import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import torch
import typer
from measuring import (
    GEOMETRIES,
    RESULTS,
    REVIEWS,
    ROOT,
    conditions,
    cores,
    flops,
    forked,
    json_option,
    log,
    ranged,
    reviews_option,
    roberta_gru,
    spread,
    status_of,
    table_of,
    turned,
    write,
)

RECORDED = RESULTS / "cluster.json"
KINDS = {"worker": "a worker", "node": "a node", "driver": "the driver"}
WORDS = ("the", "plot", "was", "long", "and", "slow", "but", "we", "liked", "its", "music", "splendid", "dreadful")
STORE = 80 * 2**20
"""Bytes of a node's object store, through which no text passes."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_register_timeout_seconds": "600",  # a busy machine takes minutes to import torch,
    "RAY_memory_monitor_refresh_ms": "0",  # and its memory may be another process's;
    "RAY_worker_niceness": "0",  # at 15, as workers are by default, they get next to nothing of it
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    # The machine that stays would keep from the one that comes back what it told the first time, for ever
    # (pytorch/pytorch#135712).
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
FLOAT32 = ("--dtype", "float32", "--device", "cpu")
SYSTEMS = {
    "score": "`roberta-gru score`",
    "ray": "`--engine ray`, this machine",
    "core": "`roberta-gru score` on one core",
    "cores": "two of those at once",
    "one": "one node of one core",
    "two": "two nodes of one core",
}
IMPORTS = ("modeling_roberta_gru.cli", "modeling_roberta_gru.inference.cluster")
NUM_STEPS = 12
LIMIT_SECONDS = 900
PLANNED, ROWS_OF_A_PART, SPOT_HOURS = 1_000_000_000, 50_000, 6
GPU_FLOPS = 100e12
"""A second, assumed of a GPU: a third of what an A100 does in bfloat16 by its data sheet."""
KEPT = 1024
"""Texts after which `score` keeps what it has of a part."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Output = Annotated[Path, json_option(RECORDED)]


# Processes


def child(work: Callable[[], object], said: Path) -> int:
    """Fork a process that does some work, unless it hangs; what it says goes to a file."""
    return forked(work, said, LIMIT_SECONDS)


def ended(process: int) -> bool:
    """Tell whether a child has ended, which it is asked until it has."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def succeed(process: int, said: Path) -> None:
    """Wait for a child, which must succeed."""
    status = status_of(process)
    if status:
        raise RuntimeError(f"Status {status}:\n{said.read_text(errors='replace')[-4000:]}")


def lose(process: int) -> None:
    """Kill a child and all that it started, as the loss of a machine does."""
    for each in [*psutil.Process(process).children(recursive=True), psutil.Process(process)]:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    os.waitpid(process, 0)


# Ray


@contextmanager
def ray_nodes(count: int) -> Iterator[Any]:
    """Start a cluster of nodes of one core, in a process of its own.

    Yields:
        Its address, the process, and what loses a node and has another in its place when called again.
    """
    here, there = multiprocessing.get_context("fork").Pipe()

    def host() -> None:
        from ray.cluster_utils import Cluster

        signal.alarm(0)  # it stays for all runs
        made = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE},
        )
        nodes = [made.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(count)]
        there.send(made.address)
        while (wish := there.recv()) != "end":
            if wish == "lose":
                made.remove_node(nodes.pop(), allow_graceful=False)
            else:
                nodes.append(made.add_node(num_cpus=1, object_store_memory=STORE))
            there.send("done")
        made.shutdown()

    def ask(wish: str) -> None:
        here.send(wish)
        here.recv()

    with tempfile.NamedTemporaryFile(suffix=".log") as said:
        process = child(host, Path(said.name))
        while not here.poll(1):
            if ended(process):
                raise RuntimeError(Path(said.name).read_text(errors="replace")[-4000:])
        try:
            yield here.recv(), process, ask
        finally:
            here.send("end")
            os.waitpid(process, 0)


def workers_of(host: int) -> list[psutil.Process]:
    """Return the processes in which a cluster's nodes score or, before there are any, will score."""
    titles: dict[str, list[psutil.Process]] = {"ray::PartScorer": [], "ray::IDLE": []}
    for process in psutil.Process(host).children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            command = " ".join(process.cmdline())
            for title in titles:
                if command.startswith(title):
                    titles[title].append(process)
    return titles["ray::PartScorer"] or titles["ray::IDLE"]


def write_parts(folder: Path, num_parts: int, num_rows: int) -> None:
    """Write parts of short texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for number in range(num_parts):
        rng = random.Random(number)
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(num_rows)]
        ids = list(range(number * num_rows, (number + 1) * num_rows))
        pq.write_table(pa.table({"id": ids, "text": texts}), folder / f"{number:03}.parquet")


def make_tiny_model(folder: Path) -> None:
    """Save a classifier of random weights that knows a few words."""
    from modeling_roberta_gru import RobertaGRUConfig, RobertaGRUForSequenceClassification
    from modeling_roberta_gru.data.corpus import train_tokenizer

    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, vocab_size=300)
    torch.manual_seed(0)
    fields = {**GEOMETRIES["toy"], "vocab_size": len(tokenizer), "problem_type": "single_label_classification"}
    RobertaGRUForSequenceClassification(RobertaGRUConfig(**fields)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@app.command()
def kills(
    kills: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 10,
    kinds: Annotated[list[str] | None, typer.Option(help="Of worker, node, driver. Unset: all.")] = None,
    parts: Annotated[int, typer.Option(min=2)] = 12,
    rows: Annotated[int, typer.Option(min=1, help="Of a part.")] = 6000,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    output: Output = RECORDED,
) -> None:
    """Kill workers, nodes and drivers, each at random moments of runs of its own."""
    began = set_up()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        succeed(child(lambda: prepare(work, parts, rows), work / "said"), work / "said")
        with ray_nodes(2) as (address, host, ask):
            words = ("score", str(work / "model"), str(work / "in"), str(work / "out"), *FLOAT32, "--engine", "ray")
            run = partial(roberta_gru, *words, "--address", address, "--workers", "1:2")
            started = time.monotonic()
            succeed(child(run, work / "said"), work / "said")
            undisturbed = time.monotonic() - started
            log(f"undisturbed: {undisturbed:.1f} s")
            trials = [
                {
                    "kind": kind,
                    "number": number,
                    **trial(kind, run, host, ask, work, undisturbed, f"{seed} {kind} {number}"),
                }
                for kind in kinds or KINDS
                for number in range(kills)
            ]
    measured = {"seconds_undisturbed": undisturbed, "parts": parts, "rows": rows, "seed": seed, "trials": trials}
    record(output, "kills", {**began, **measured})
    if not all(each["equal"] for each in trials):
        raise typer.Exit(1)


def prepare(work: Path, num_parts: int, num_rows: int) -> None:
    """Make model and parts, and score every part as the command does without a cluster."""
    from modeling_roberta_gru import Scorer
    from modeling_roberta_gru.inference.score_file import score_file

    make_tiny_model(work / "model")
    write_parts(work / "in", num_parts, num_rows)
    scorer = Scorer(str(work / "model"), dtype="float32", device="cpu")
    for part in sorted((work / "in").iterdir()):
        score_file(scorer, part, work / "expected" / part.name, progress=False)


def trial(
    kind: str,
    run: Callable[[], None],
    host: int,
    ask: Callable[[str], None],
    work: Path,
    undisturbed: float,
    seed: str,
) -> dict[str, Any]:
    """Kill something at a random moment of a run; say when, how long all took and what came out.

    A run that ended before is begun anew, with an earlier moment.
    """
    rng = random.Random(seed)
    moment = rng.uniform(0.02, 0.98) * undisturbed
    while True:
        shutil.rmtree(work / "out", ignore_errors=True)
        started = time.monotonic()
        driver = child(run, work / "said")
        while time.monotonic() - started < moment and not ended(driver):
            time.sleep(0.01)
        done = len(list((work / "out").glob("part-*.parquet")))
        killed = strike(kind, driver, host, ask, rng)
        if killed:
            break
        succeed(driver, work / "said")
        moment *= 0.7
    if kind == "driver":
        os.waitpid(driver, 0)
        driver = child(run, work / "said")
    status = status_of(driver)
    if kind == "node":
        ask("replace")
    lost = re.search(r"(\d+) workers were lost", (work / "said").read_text(errors="replace"))
    said = {
        "moment": round(moment, 2),
        "parts_before": done,
        "workers_lost": int(lost[1]) if lost else 0,
        "seconds": round(time.monotonic() - started, 1),
    }
    equal = status == 0 and is_equal(work)
    log(kind, said, "equal" if equal else f"NOT EQUAL: {(work / 'said').read_text(errors='replace')[-2000:]}")
    return {**said, "status": status, "equal": equal}


def strike(kind: str, driver: int, host: int, ask: Callable[[str], None], rng: random.Random) -> bool:
    """Kill a worker, a node or the driver of a run; return False if the run ended before."""
    while not ended(driver):
        if kind == "driver":
            os.kill(driver, signal.SIGKILL)
            return True
        if kind == "node":
            ask("lose")
            return True
        workers = workers_of(host)
        if workers:
            rng.choice(workers).kill()
            return True
        time.sleep(0.02)  # none has started yet
    return False


def is_equal(work: Path) -> bool:
    """Tell whether a run left every part, each as it is scored alone, and nothing else."""
    import pyarrow.parquet as pq

    found, expected = (sorted(folder.glob("*.parquet")) for folder in (work / "out", work / "expected"))
    return len(found) == len(expected) and all(
        pq.read_table(one).equals(pq.read_table(other)) for one, other in zip(found, expected, strict=True)
    )


# Training


@app.command()
def training(
    kills: Annotated[int, typer.Option(min=0, max=NUM_STEPS - 2)] = 10,
    seed: Annotated[int, typer.Option(help="Of the steps.")] = 0,
    output: Output = RECORDED,
) -> None:
    """Lose one of two machines after random steps of a training."""
    began = set_up()
    steps = sorted(random.Random(seed).sample(range(1, NUM_STEPS), kills))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        succeed(child(lambda: make_tiny_model(work / "base"), work / "said"), work / "said")
        write_reviews(work / "data")
        undisturbed = train(work, "undisturbed", [])
        log("undisturbed", undisturbed)
        disturbed = train(work, "disturbed", steps)
        log("disturbed", disturbed)
        weights = [(work / run / "model" / "model.safetensors").read_bytes() for run in ("undisturbed", "disturbed")]
    equal = {"losses": undisturbed["losses"] == disturbed["losses"], "weights": weights[0] == weights[1]}
    measured = {"steps": NUM_STEPS, "killed_after": steps, "undisturbed": undisturbed, "disturbed": disturbed}
    record(output, "training", {**began, **measured, "equal": equal})
    if not all(equal.values()):
        raise typer.Exit(1)


def write_reviews(folder: Path) -> None:
    """Write texts whose first word tells the label."""
    folder.mkdir()
    for split, num_rows in (("train", 96), ("test", 16)):
        rng = random.Random(split)
        rows = [
            f"{('dreadful', 'splendid')[row % 2]} {split} {row} {' '.join(rng.choices(WORDS, k=8))},{row % 2}"
            for row in range(num_rows)
        ]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")


def train(work: Path, name: str, kill_after: Sequence[int]) -> dict[str, Any]:
    """Train on two machines, of which the second is lost after some steps and comes back.

    Returns:
        `seconds`, and `losses` of all steps.
    """
    out = work / name
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = time.monotonic()
    machines = [start_machine(number, port, work, out) for number in range(2)]
    try:
        for step in kill_after:
            while not (out / f"checkpoint-{step}" / "trainer_state.json").exists():
                if ended(machines[0]):
                    raise RuntimeError((work / "machine-0.log").read_text(errors="replace")[-4000:])
                time.sleep(0.02)
            log(f"step {step}, {time.monotonic() - started:.0f} s")
            lose(machines[1])
            machines[1] = start_machine(1, port, work, out)
        for number in range(2):
            process, machines[number] = machines[number], 0
            succeed(process, work / f"machine-{number}.log")
    finally:
        for machine in filter(None, machines):
            lose(machine)
    lines = map(json.loads, (out / "history.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    return {"seconds": round(time.monotonic() - started, 1), "losses": losses}


def start_machine(number: int, port: int, work: Path, out: Path) -> int:
    """Start what stands for a machine: an agent of torchrun with one process."""
    options = {
        "output_dir": out,
        "dataset_name": work / "data",
        "model_name_or_path": work / "base",
        "max_steps": NUM_STEPS,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 99,
        "eval_strategy": "no",
        "load_best_model_at_end": "false",
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "use_cpu": "true",
        "bag_of_words": "false",
        "verify_load": "false",
        "disable_tqdm": "true",
        "resume_from_checkpoint": "auto",
    }
    agent = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=30", "--rdzv-backend=c10d", "--rdzv-id=training"]
    meeting = [f"--rdzv-endpoint=127.0.0.1:{port}", f"--rdzv-conf=is_host={int(number == 0)},read_timeout=600"]
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]

    # Not a fork that has imported everything: torchrun looks through all modules at every turn of a rendezvous.
    command = [sys.executable, "-m", "torch.distributed.run", *agent, *meeting, str(ROOT / "train.py"), *words]
    return child(lambda: os.execv(sys.executable, command), work / f"machine-{number}.log")


# Speed


@app.command()
def speed(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder or a saved model's folder.")],
    data: Annotated[Path, reviews_option()] = REVIEWS,
    rows: Annotated[int, typer.Option(min=64)] = 4000,
    parts: Annotated[int, typer.Option(min=4)] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Times that every system is measured.")] = 3,
    systems: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SYSTEMS)}. Unset: all.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the scorers' numbers.")] = "auto",
    output: Output = RECORDED,
) -> None:
    """Measure the rows a second of a cluster on this machine, beside `roberta-gru score`."""
    import pyarrow.parquet as pq

    began = set_up()
    table = pq.read_table(data, columns=["text"])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for part_of, count in (("all", rows), ("quarter", rows // 4)):
            some = table.take([index * len(table) // count for index in range(count)])
            (work / part_of).mkdir()
            pq.write_table(some, work / f"{part_of}.parquet")
            for half in range(2):
                begin, end = (at * count // 2 for at in (half, half + 1))
                pq.write_table(some.slice(begin, end - begin), work / f"{part_of}-{half}.parquet")
            for number in range(parts):
                begin, end = (at * count // parts for at in (number, number + 1))
                pq.write_table(some.slice(begin, end - begin), work / part_of / f"{number:03}.parquet")
        found: list[dict[str, dict[str, float]]] = []
        for number in range(rounds):
            found.append({})
            for system in turned(systems or list(SYSTEMS), number):
                seconds = {part_of: time_of(system, model, work, part_of, dtype) for part_of in ("quarter", "all")}
                seconds["rows_a_second"] = (rows - rows // 4) / (seconds["all"] - seconds["quarter"])
                log(system, seconds)
                found[-1][system] = seconds
        written = work / "out" if (work / "out").exists() else next(work.glob("scored-*"))
        bytes_a_row = {"in": size_of(work / "all") / rows, "out": size_of(written) / rows}
    measured = {"rows": rows, "parts": parts, "dtype": dtype, "bytes_a_row": bytes_a_row, "rounds": found}
    record(output, "speed", {**began, **measured})


def time_of(system: str, model: str, work: Path, part_of: str, dtype: str) -> float:
    """Return the seconds that a system takes for a folder of parts, from command to end."""
    shutil.rmtree(work / "out", ignore_errors=True)
    torch.set_num_threads(1)
    options = ["--dtype", dtype, "--device", "cpu"]
    if system in ("score", "core", "cores"):
        if system == "score":
            os.environ.pop("OMP_NUM_THREADS", None)
            torch.set_num_threads(os.cpu_count() or 1)
        files = [f"{part_of}-{half}.parquet" for half in range(2)] if system == "cores" else [f"{part_of}.parquet"]
        try:
            return seconds_of(
                [["score", model, str(work / name), str(work / f"scored-{name}"), *options] for name in files], work
            )
        finally:
            os.environ.update(SETTINGS)
    words = ["score", model, str(work / part_of), str(work / "out"), *options, "--engine", "ray"]
    if system == "ray":
        return seconds_of([words], work)
    count = {"one": 1, "two": 2}[system]
    with ray_nodes(count) as (address, *_):
        return seconds_of([[*words, "--address", address, "--workers", f"{count}:{count}"]], work)


def seconds_of(commands: Sequence[Sequence[str]], work: Path) -> float:
    """Return the seconds that commands take at once, which must succeed."""
    for each in work.glob("scored-*"):
        each.unlink()
    started = time.monotonic()
    logs = [work / f"said{number}" for number in range(len(commands))]
    processes = [child(partial(roberta_gru, *words), said) for words, said in zip(commands, logs, strict=True)]
    for process, said in zip(processes, logs, strict=True):
        succeed(process, said)
    return round(time.monotonic() - started, 2)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of a folder's files."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir()))


# What is written and told


def set_up() -> dict[str, Any]:
    """Set what the processes need, import what drivers need, and return the conditions."""
    os.environ.update(SETTINGS)
    for name in IMPORTS:
        importlib.import_module(name)
    return conditions()


def record(output: Path, section: str, measured: dict[str, Any]) -> None:
    """Put a section into the file of records, and print its table."""
    before = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    write(output, {**before, section: measured}, TABLES[section]({section: measured}))


def kills_table(measured: dict[str, Any]) -> list[str]:
    """Return the table of what was killed in scoring."""
    if "kills" not in measured:
        return ["Not measured yet."]
    found = measured["kills"]
    rows = []
    for kind, words in KINDS.items():
        trials = [each for each in found["trials"] if each["kind"] == kind]
        if trials:
            share = f"{sum(each['equal'] for each in trials)} of {len(trials)}"
            least, most = (f"{reduce(each['seconds'] for each in trials):.0f}" for reduce in (min, max))
            rows.append([words, share, f"{least} s" if least == most else f"{least} to {most} s"])
    table = table_of(["killed at a random moment", "output complete and equal", "the run took"], rows)
    about = f"{found['parts']} parts of {found['rows']:,} rows, {found['seconds_undisturbed']:.0f} s undisturbed"
    return [*table, "", f"{about}; {cores(found)}. `{found['command']}`"]


def training_table(measured: dict[str, Any]) -> list[str]:
    """Return the table of machines lost in training."""
    if "training" not in measured:
        return ["Not measured yet."]
    found = measured["training"]
    steps = ", ".join(map(str, found["killed_after"]))
    equal = ("all equal" if all(found["equal"].values()) else "NOT equal", "bit for bit")
    rows = [
        ["steps", f"{found['steps']}"],
        ["one of two machines killed after steps", steps],
        ["losses and weights against an undisturbed run", ", ".join(equal)],
        ["seconds", f"{found['disturbed']['seconds']:.0f}, undisturbed {found['undisturbed']['seconds']:.0f}"],
    ]
    return [*table_of(["", ""], rows), "", f"{cores(found)}. `{found['command']}`"]


def speed_table(measured: dict[str, Any]) -> list[str]:
    """Return the table of rows a second."""
    if "speed" not in measured:
        return ["Not measured yet."]
    found = measured["speed"]
    beside = {"ray": "score", "cores": "core", "two": "one"}
    rows = []
    for system, words in SYSTEMS.items():
        if system not in found["rounds"][0]:
            continue
        rates, other, ratio = rates_of(found, system), beside.get(system, ""), ""
        if other in found["rounds"][0]:
            ratios = [own / its for own, its in zip(rates, rates_of(found, other), strict=True)]
            ratio = f"{ranged(spread(ratios), '.2f')} × {SYSTEMS[other]}"
        rows.append([words, ranged(spread(rates), ".1f"), ratio, f"{start_of(found, system):.0f} s"])
    table = table_of(["", "rows a second", "", "start"], rows)
    about = f"{found['rows']:,} texts in {found['parts']} parts; median (least to largest) of {len(found['rounds'])}"
    return [*table, "", f"{about}; {cores(found)}. `{found['command']}`"]


def rates_of(found: dict[str, Any], system: str) -> list[float]:
    """Return a system's rows a second in each round."""
    return [each[system]["rows_a_second"] for each in found["rounds"]]


def start_of(found: dict[str, Any], system: str) -> float:
    """Return the seconds before a system scores, the median of the rounds."""
    few = found["rows"] // 4
    return median(each[system]["quarter"] - few / each[system]["rows_a_second"] for each in found["rounds"])


def plan_table(measured: dict[str, Any]) -> list[str]:
    """Return the table of what a billion reviews take, computed from what this script and scoring.py measured."""
    if "speed" not in measured:
        return ["Not measured yet."]
    speed, scoring = measured["speed"], json.loads((RESULTS / "performance" / "scoring.json").read_text("utf-8"))
    pair = median(rates_of(speed, "two"))
    reviews = scoring["workloads"]["reviews"]
    ours = next(each for each in scoring["figures"] if each["workload"] == "reviews" and each["system"] == "ours-int8")
    load = json.loads((RESULTS / "performance" / "load.json").read_text("utf-8"))
    whole = flops([round(load["tokens"]["mean"])], GEOMETRIES["all-MiniLM-L6-v2"], has_gru=True)
    rate_of_base = reviews["num_texts"] / ours["seconds"]["median"] / scoring["hardware"]["num_cores"]
    planned = {  # rows a second and core, and FLOPs of a row
        "all-MiniLM-L6-v2, whole reviews": (pair / 2, whole),
        "roberta-base, cut at 512 tokens": (rate_of_base, reviews["flops"]["ours"] / reviews["num_texts"]),
    }
    start = start_of(speed, "two")
    rows = []
    for model, (rate, work) in planned.items():
        hours = PLANNED / rate / 3600
        lost = start + KEPT / 2 / rate
        cells = [f"{rate:.1f}", f"{hours:,.0f}", f"{hours / 1000:,.0f} h", f"{lost / 3600 / SPOT_HOURS:.1%}"]
        rows.append([model, *cells, f"{PLANNED * work / GPU_FLOPS / 3600:,.0f}"])
    heads = [
        "",
        "rows a second and core",
        "core hours",
        "on 1,000 cores",
        "extra time if each core fails every 6 hours",
    ]
    heads.append(f"GPU hours, at {GPU_FLOPS / 1e12:.0f} TFLOP/s")
    sizes = {name: each * PLANNED / 1e12 for name, each in speed["bytes_a_row"].items()}
    about = f"{sizes['in']:.2f} TB of Parquet are read, and {sizes['out']:.2f} TB written"
    return [*table_of(heads, rows), "", f"{about}, in {PLANNED // ROWS_OF_A_PART:,} parts of {ROWS_OF_A_PART:,} rows."]


TABLES = {"kills": kills_table, "training": training_table, "speed": speed_table}

if __name__ == "__main__":
    app()
