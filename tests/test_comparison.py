"""What a comparison of runs promises: known figures, paired rows, seeds taken together, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from modeling_roberta_gru.errors import InputError
from modeling_roberta_gru.studies import comparison
from modeling_roberta_gru.studies.comparison import compare, comparison_markdown, draw_comparison
from modeling_roberta_gru.training import metrics
from modeling_roberta_gru.training.metrics import measure

from .refusals import refused
from .tiny import script

systems = script("systems")
NAMES = ["bad", "good"]
SINGLE = "single_label_classification"
NUM_RESAMPLES = 200
FIGURES = ("accuracy", "macro_f1", "log_loss", "calibration_error")


def row_ids(n):
    return [f"test:{row}" for row in range(n)]


@pytest.fixture
def write_run(tmp_path, monkeypatch):
    """Write a run's folder, whose name is its path, from the rows' labels and probabilities of "good"."""
    monkeypatch.chdir(tmp_path)

    def write(name, labels, p_good, seed=None, order=None, ids=None, problem_type=SINGLE, **record):
        p_good = np.asarray(p_good, dtype=float)
        order = np.arange(len(labels)) if order is None else order
        columns = {
            "row_id": np.array(ids or row_ids(len(labels))),
            "label": np.array(NAMES)[labels],
            "prediction": np.array(NAMES)[(p_good > 0.5).astype(int)],
            "probabilities": np.stack([1 - p_good, p_good], axis=1),
        }
        options = {"output_dir": name} | record.pop("options", {"learning_rate": 1e-4})
        run = {
            "recipe": "tiny",
            "command": f"train.py --output_dir {name}",
            "training_seconds": 10.0,
            "tokens_seen": 5000,
            "data": {"problem_type": problem_type, "labels": NAMES, "source": "tiny", "fingerprint": "abc"},
            "model": {"num_parameters": 1234567, "num_trained_parameters": 7654},
            "options": options if seed is None else options | {"seed": seed},
            "commit": "c0ffee",
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "hardware": {"processor": "abacus", "num_cores": 2},
        } | record
        (tmp_path / name).mkdir()
        table = pa.table({column: values[order].tolist() for column, values in columns.items()})
        pq.write_table(table, tmp_path / name / "predictions.parquet")
        (tmp_path / name / "run.json").write_text(json.dumps(run))
        (tmp_path / name / "metrics.json").write_text("{}")
        return name

    return write


def drawn_probabilities(labels, generator, skill=1.0):
    """Draw probabilities of "good" that are right more often than not."""
    return 1 / (1 + np.exp(-generator.normal(skill * (2 * labels - 1), 1.5)))


def other(rate=2e-4, **options):
    return {"options": {"learning_rate": rate, **options}}


def intervals(compared):
    for system in compared["systems"]:
        yield from ((system[name], name) for name in FIGURES)
    for difference in compared["differences"]:
        yield from ((difference[name], name) for name in ("accuracy", "macro_f1"))


@pytest.fixture
def pair(write_run):
    """Return two runs' folders: on eight rows, a has six right and b five, of which four are the same."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    a = write_run("a", labels, [0.1, 0.2, 0.3, 0.9, 0.9, 0.8, 0.7, 0.4])
    b = write_run("b", labels, [0.1, 0.2, 0.8, 0.1, 0.9, 0.8, 0.2, 0.3], **other())
    return [a, b]


def test_tests_on_other_texts_are_refused_unless_texts_are_read_otherwise(write_run):
    labels = np.arange(8) % 2
    data = {"problem_type": SINGLE, "labels": NAMES, "source": "tiny", "fingerprint": "abc"}
    runs = [
        write_run("a", labels, labels, data=data | {"test_fingerprint": "1"}),
        write_run("b", labels, labels, data=data | {"test_fingerprint": "2"}, **other()),
        write_run("c", labels, labels, data=data | {"test_fingerprint": "2"}, **other(clean_html=True)),
        write_run("older", labels, labels, data=data, **other(3e-4)),
    ]
    with refused(file="b", match="a and b .* different texts"):
        compare(runs, NUM_RESAMPLES)
    assert len(compare([runs[0], *runs[2:]], NUM_RESAMPLES)["systems"]) == 3


def test_runs_on_other_data_are_other_systems(write_run):
    labels = np.arange(8) % 2
    data = {"problem_type": SINGLE, "labels": NAMES, "source": "tiny"}
    runs = [
        write_run(f"{name}{seed}", labels, labels, seed=seed, data=data | {"fingerprint": name * 9})
        for name in "ab"
        for seed in (0, 1)
    ]
    systems = compare(runs, NUM_RESAMPLES)["systems"]
    assert [(system["name"], system["seeds"]) for system in systems] == [
        ("roberta-gru, data aaaaaaaa", [0, 1]),
        ("roberta-gru, data bbbbbbbb", [0, 1]),
    ]


# Figures


def test_accuracy_and_macro_f1_are_those_counted_by_hand(pair):
    first, second = compare(pair, NUM_RESAMPLES)["systems"]
    assert first["accuracy"]["value"] == 6 / 8
    assert first["macro_f1"]["value"] == pytest.approx((6 / 8 + 6 / 8) / 2)
    assert second["accuracy"]["value"] == 5 / 8
    assert second["macro_f1"]["value"] == pytest.approx((6 / 9 + 4 / 7) / 2)


def test_a_system_of_one_seed_has_the_figures_and_intervals_of_its_run(write_run, monkeypatch):
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=300)
    probabilities = [drawn_probabilities(labels, generator) for _ in range(2)]
    folders = [write_run("a", labels, probabilities[0]), write_run("b", labels, probabilities[1], **other())]
    with monkeypatch.context() as small:
        small.setattr(metrics, "COUNTS_PER_BLOCK", 7 * 300)  # blocks of 7 resamples
        compared = compare(folders, NUM_RESAMPLES, seed=3)
    order = np.argsort(row_ids(300))
    for system, p_good in zip(compared["systems"], probabilities, strict=True):
        predictions = np.stack([1 - p_good, p_good], axis=1)[order]
        expected = measure(predictions, labels[order], SINGLE, NAMES, NUM_RESAMPLES, seed=3)
        for name in FIGURES:
            value = expected[name]["value"]
            assert system[name] == pytest.approx(expected[name] | {"min": value, "max": value})


def test_the_command_prints_and_writes_the_comparison(pair, roberta_gru):
    status, said, _ = roberta_gru("compare", *pair, "--output-dir", "out", "--resamples", 50)
    compared = compare(pair, 50)
    assert (status, said) == (0, f"{comparison_markdown(compared)}\n")
    assert json.loads(Path("out/comparison.json").read_text()) == json.loads(json.dumps(compared))
    assert {path.name for path in Path("out").iterdir()} == {f"comparison.{kind}" for kind in ("md", "json", "png")}


def test_the_difference_is_paired(write_run):
    # What is right differs in 10 of 1,000 rows only, so the difference is known far better than either accuracy.
    labels = np.arange(1000) % 2
    right = np.arange(1000) % 5 > 0
    better = right | (np.arange(1000) < 50)
    folders = [
        write_run("a", labels, np.where(right, labels, 1 - labels)),
        write_run("b", labels, np.where(better, labels, 1 - labels), **other()),
    ]
    compared = compare(folders, NUM_RESAMPLES)
    difference, accuracy = compared["differences"][0]["accuracy"], compared["systems"][0]["accuracy"]
    assert difference["value"] == pytest.approx(0.01)
    assert 0 < difference["low"] < 0.01 < difference["high"]
    # Standard errors: sqrt(0.01 · 0.99 / 1,000) and sqrt(0.2 · 0.8 / 1,000).
    assert difference["high"] - difference["low"] == pytest.approx(2 * 1.96 * 0.00315, rel=0.2)
    assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * 1.96 * 0.01265, rel=0.2)


def test_systems_that_predict_alike_do_not_differ(write_run):
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=50)
    p_good = drawn_probabilities(labels, generator)
    compared = compare([write_run("a", labels, p_good), write_run("b", labels, p_good, **other())], NUM_RESAMPLES)
    (difference,) = compared["differences"]
    for name in ("accuracy", "macro_f1"):
        assert difference[name] == {"value": 0, "low": 0, "high": 0, "n": 50}
    assert difference["mcnemar"] == {"seed": 42, "b": 0, "c": 0, "p": 1, "p_holm": 1}


def test_a_system_that_is_right_where_the_other_is_wrong_differs_by_all(write_run):
    labels = np.arange(20) % 2
    compared = compare([write_run("a", labels, 1 - labels), write_run("b", labels, labels, **other())], NUM_RESAMPLES)
    (difference,) = compared["differences"]
    for name in ("accuracy", "macro_f1"):
        assert difference[name] == {"value": 1, "low": 1, "high": 1, "n": 20}
    assert difference["mcnemar"]["b"] == 0
    assert difference["mcnemar"]["c"] == 20
    assert difference["mcnemar"]["p"] == pytest.approx(2 / 2**20)


def test_mcnemars_test_counts_the_rows_that_one_alone_has_right(pair):
    # a alone is right on rows 2 and 6, b alone on row 3: p = 2 · (C(3, 0) + C(3, 1)) / 2³, at most 1.
    test = compare(pair, NUM_RESAMPLES)["differences"][0]["mcnemar"]
    assert test == {"seed": 42, "b": 2, "c": 1, "p": 1.0, "p_holm": 1.0}


def test_mcnemars_p_is_the_binomial_tail(write_run):
    labels = np.zeros(12, dtype=int)
    first = write_run("a", labels, [0] * 9 + [1] * 3)
    second = write_run("b", labels, [1] * 8 + [0] * 2 + [1] * 2, **other())
    # 8 against 1 of 9: p = 2 · (C(9, 0) + C(9, 1)) / 2⁹
    test = compare([first, second], NUM_RESAMPLES)["differences"][0]["mcnemar"]
    assert (test["b"], test["c"]) == (8, 1)
    assert test["p"] == pytest.approx(2 * (1 + 9) / 2**9)


def test_p_values_are_adjusted_over_the_systems(write_run):
    # Only the others are right on 4, 6 and 7 rows: p = 2 / 2⁴, 2 / 2⁶ and 2 / 2⁷.
    labels = np.ones(10, dtype=int)
    folders = [write_run("first", labels, np.zeros(10))]
    for number, count in enumerate((4, 7, 6)):
        folders.append(write_run(f"other-{count}", labels, np.arange(10) < count, **other(number)))
    tests = [difference["mcnemar"] for difference in compare(folders, 50)["differences"]]
    assert [test["p"] for test in tests] == pytest.approx([0.125, 0.015625, 0.03125])
    assert [test["p_holm"] for test in tests] == pytest.approx([0.125, 3 * 0.015625, 2 * 0.03125])


def test_an_adjusted_p_value_is_at_most_1_and_never_below_that_of_a_stronger_system():
    tests = [{"p": 0.04}, {"p": 0.03}, {"p": 0.7}, {"p": 0.8}]
    comparison._adjust(tests)
    assert [test["p_holm"] for test in tests] == pytest.approx([0.12, 0.12, 1, 1])


def test_rows_are_aligned_by_their_ids(write_run):
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=60)
    first, second = (drawn_probabilities(labels, generator) for _ in range(2))
    folders = [write_run("a", labels, first), write_run("b", labels, second, **other())]
    shuffled = write_run("c", labels, second, order=generator.permutation(60), **other())
    assert compare([folders[0], shuffled], 50)["differences"] == compare(folders, 50)["differences"]


def test_intervals_hold_their_values_and_shrink_with_more_rows(write_run):
    generator = np.random.default_rng(0)
    compared = []
    for n in (100, 1600):
        labels = generator.integers(2, size=n)
        folders = [
            write_run(f"{name}-{n}", labels, drawn_probabilities(labels, generator, skill), **other(skill))
            for name, skill in (("a", 0.5), ("b", 1.0))
        ]
        compared.append(compare(folders, NUM_RESAMPLES))
    for (few, name), (many, _) in zip(*map(intervals, compared), strict=True):
        assert few["low"] <= few["value"] <= few["high"], name
        assert many["low"] <= many["value"] <= many["high"], name
        assert 0 < many["high"] - many["low"] < (few["high"] - few["low"]) / 2, name


# Systems and seeds


def write_seeds(write_run, labels, hits, prefix="s", **record):
    """Write a run for each seed, right on so many of the first rows."""
    return [
        write_run(
            f"{prefix}{seed}", labels, np.where(np.arange(len(labels)) < hit, labels, 1 - labels), seed, **record
        )
        for seed, hit in enumerate(hits)
    ]


def test_runs_that_differ_in_seeds_and_folders_are_one_system(write_run):
    labels = np.arange(100) % 2
    seeds = write_seeds(write_run, labels, (80, 90, 70), options={"bf16": True, "learning_rate": 1e-4})
    resumed = {"learning_rate": 1e-4, "bf16": True}
    resumed |= {"data_seed": 5, "overwrite_output_dir": True, "resume_from_checkpoint": "true"}
    seeds.append(write_run("resumed", labels, labels, seed=9, options=resumed))
    base = write_run("base", labels, labels, **other())
    system, _ = compare([seeds[3], base, seeds[2], seeds[0], seeds[1]], NUM_RESAMPLES)["systems"]
    assert system["seeds"] == [0, 1, 2, 9]
    assert [run["folder"] for run in system["runs"]] == ["s0", "s1", "s2", "resumed"]
    assert [run["accuracy"] for run in system["runs"]] == [0.8, 0.9, 0.7, 1.0]
    assert system["accuracy"]["value"] == pytest.approx(0.85)
    assert (system["accuracy"]["min"], system["accuracy"]["max"]) == (0.7, 1.0)


def test_another_split_seed_is_another_system(write_run):
    labels = np.arange(10) % 2
    folders = [write_run("a", labels, labels), write_run("b", labels, labels, **other(1e-4, split_seed=1))]
    assert [system["name"] for system in compare(folders, 50)["systems"]] == [
        "roberta-gru",
        "roberta-gru, split_seed 1",
    ]


def test_systems_stand_in_the_order_in_which_they_are_given(pair):
    names = [system["runs"][0]["folder"] for system in compare(pair[::-1], 50)["systems"]]
    assert names == ["b", "a"]
    assert compare(pair[::-1], 50)["differences"][0]["accuracy"]["value"] == 1 / 8


def test_seeds_that_disagree_widen_the_interval(write_run):
    labels = np.arange(400) % 2
    agreeing = write_seeds(write_run, labels, (320, 320, 320), prefix="agreeing")
    disagreeing = write_seeds(write_run, labels, (240, 320, 400), prefix="disagreeing", **other())
    compared = compare([*agreeing, *disagreeing], NUM_RESAMPLES)
    narrow, wide = (system["accuracy"] for system in compared["systems"])
    assert narrow["value"] == pytest.approx(wide["value"])
    # Of rows only, 2 · 1.96 · sqrt(0.8 · 0.2 / 400); the mean of resampled seeds has a deviation of 0.2 · sqrt(2 / 9).
    assert narrow["high"] - narrow["low"] == pytest.approx(0.078, rel=0.2)
    assert wide["high"] - wide["low"] > 0.3
    difference = compared["differences"][0]["accuracy"]
    assert difference["low"] < -0.1
    assert difference["high"] > 0.1


def test_seeds_of_two_systems_are_drawn_apart(write_run):
    labels = np.arange(40) % 2
    first = write_seeds(write_run, labels, (0, 40), prefix="a")
    second = write_seeds(write_run, labels, (0, 40), prefix="b", **other())
    difference = compare([*first, *second], NUM_RESAMPLES)["differences"][0]["accuracy"]
    assert (difference["low"], difference["value"], difference["high"]) == (-1, 0, 1)


def test_mcnemars_test_takes_the_lowest_seed_that_both_have(write_run):
    labels = np.arange(10) % 2
    first = write_seeds(write_run, labels, (10, 9, 8), prefix="a")
    second = write_seeds(write_run, labels, (1, 2, 3), prefix="b", **other())
    test = compare([*first[::-1], *second[1:]], 50)["differences"][0]["mcnemar"]
    assert (test["seed"], test["b"], test["c"]) == (1, 7, 0)


def test_without_a_seed_in_common_there_is_no_test(write_run):
    labels = np.arange(10) % 2
    first, second = write_seeds(write_run, labels, (9,), prefix="a"), write_run("b", labels, labels, 7, **other())
    compared = compare([*first, second], 50)
    assert compared["differences"][0]["mcnemar"] is None
    assert comparison_markdown(compared).split("\n\n")[1].endswith(" | – | – | – | – | – |")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (({"class_weights": "balanced"}, {}), ["roberta-gru, class_weights balanced", "roberta-gru"]),
        (
            ({"bf16": True, "learning_rate": 2e-5}, {"bf16": True, "learning_rate": 1e-4}),
            ["roberta-gru, learning_rate 2e-05", "roberta-gru, learning_rate 0.0001"],
        ),
        (
            ({"model_name_or_path": "x/roberta-base"}, {"model_name_or_path": "../y/minilm", "bf16": True}),
            ["roberta-gru, model_name_or_path roberta-base", "roberta-gru, model_name_or_path minilm, bf16 true"],
        ),
        (
            ({"model_name_or_path": "runs/a/model"}, {"model_name_or_path": "runs/b/model"}),
            ["roberta-gru, model_name_or_path runs/a/model", "roberta-gru, model_name_or_path runs/b/model"],
        ),
        (
            ({"train_file": ["data/x.csv", "data/y.csv"]}, {"train_file": ["data/x.csv"]}),
            ["roberta-gru, train_file x.csv y.csv", "roberta-gru, train_file x.csv"],
        ),
        (({"architecture": "bigru", "learning_rate": 1e-3}, {"learning_rate": 1e-4}), ["bigru", "roberta-gru"]),
        (({"label_delimiter": "/"}, {}), ["roberta-gru, label_delimiter /", "roberta-gru"]),
    ],
)
def test_systems_are_named_by_what_tells_them_apart(write_run, options, names):
    labels = np.arange(4) % 2
    folders = [write_run(name, labels, labels, options=given) for name, given in zip("ab", options, strict=True)]
    assert [system["name"] for system in compare(folders, 50)["systems"]] == names


def test_systems_of_two_architectures_are_told_apart_by_the_record(write_run):
    labels = np.arange(4) % 2
    model = {"architecture": "transformer"}
    compared = compare([write_run("a", labels, labels), write_run("b", labels, labels, model=model)], 50)
    assert [system["architecture"] for system in compared["systems"]] == ["roberta-gru", "transformer"]


# Sizes and times


def test_times_are_taken_over_the_seeds_and_what_is_missing_is_none(write_run):
    labels = np.arange(30) % 2
    folders = [
        write_run("a", labels, labels, seed=0, training_seconds=10.0, tokens_seen=4000, test_seconds=1.0),
        write_run("b", labels, labels, seed=1, training_seconds=30.0, tokens_seen=4000, test_seconds=5.0),
        write_run("c", labels, labels, seed=0, training_seconds=None, model={}, **other()),
        write_run("d", labels, labels, seed=0, training_seconds=0.0, **other(3e-4)),
        write_run("e", labels, labels, seed=0, **other(4e-4)),
        write_run("f", labels, labels, seed=1, training_seconds=None, **other(4e-4)),
    ]
    first, second, third, fourth = compare(folders, 50)["systems"]
    assert first["training_seconds"] == {"mean": 20, "min": 10, "max": 30}
    assert first["training_tokens_per_second"] == 200
    assert first["test_texts_per_second"] == 10
    assert (first["num_parameters"], first["num_trained_parameters"]) == (1234567, 7654)
    names = ("num_parameters", "num_trained_parameters", "training_seconds", "training_tokens_per_second")
    assert [second[name] for name in (*names, "test_texts_per_second")] == [None] * 5
    assert third["training_tokens_per_second"] is None
    assert fourth["training_seconds"] is None


# What is refused


def test_a_folder_without_a_finished_run_is_refused(pair, tmp_path):
    (tmp_path / "b" / "metrics.json").unlink()
    (tmp_path / "b" / "predictions.parquet").unlink()
    with refused(file="b", match="lacks metrics.json, predictions.parquet"):
        compare(pair, 10)


def test_other_problem_types_are_refused(write_run, pair):
    values = write_run("values", [0, 1], [0, 1], problem_type="regression")
    with refused(file="values", match="run of regression"):
        compare([*pair, values], 10)


def test_other_test_rows_are_refused(write_run):
    first = write_run("a", [0, 1, 0, 1], [0, 1, 0, 1])
    second = write_run("b", [0, 0, 0], [0, 1, 0], ids=["test:0", "test:1", "test:7"], **other())
    with refused(file="b", match=r"a and b .* 4 differ, such as test:1 \('good' in the first, 'bad' in the second\)"):
        compare([first, second], 10)
    third = write_run("c", [0, 1, 0], [0, 1, 0], **other())
    with refused(file="c", match=r" 1 differ, such as test:3 \('good' in the first, absent in the second\)"):
        compare([first, third], 10)


def test_other_classes_are_refused(write_run, pair):
    data = {"problem_type": SINGLE, "labels": ["good", "bad"]}
    other_order = write_run("c", [0] * 8, [0] * 8, data=data)
    with refused(file="c", match="a and c .*: bad, good, and good, bad"):
        compare([*pair, other_order], 10)


def test_a_seed_that_is_given_twice_is_refused(write_run, pair):
    again = write_run("again", [0, 0, 0, 0, 1, 1, 1, 1], np.zeros(8), seed=42)
    with refused(file="again", match=r"a and again .* seed, 42\."):
        compare([*pair, again], 10)


def write_folds(write_run, name, labels, p_good, **record):
    """Write a run for each of three folds of interleaved rows."""
    ids, options = np.array(row_ids(len(labels))), record.pop("options")
    return [
        write_run(
            f"{name}-{fold}",
            labels[fold::3],
            p_good[fold::3],
            ids=ids[fold::3].tolist(),
            options={**options, "test_fold": fold, "validation_fold": (fold + 1) % 3},
            **record,
        )
        for fold in range(3)
    ]


def test_progress_bars_and_devices_make_no_other_system(write_run):
    labels, rate = np.arange(10) % 2, {"learning_rate": 1e-4}
    runs = [
        write_run("a", labels, labels, seed=0, options={**rate, "disable_tqdm": False}),
        write_run("b", labels, labels, seed=1, options={**rate, "disable_tqdm": True, "dataloader_pin_memory": False}),
        write_run("c", labels, labels, seed=2, options={**rate, "use_cpu": True}),
        write_run("d", labels, labels, **other()),
    ]
    assert [system["seeds"] for system in compare(runs, 50)["systems"]] == [[0, 1, 2], [42]]


def test_bfloat16_makes_another_system_unless_it_was_left_to_the_machine(write_run):
    labels, left = np.arange(10) % 2, {"bf16_if_available": True}
    runs = [
        write_run("a", labels, labels, seed=0, options={**left, "bf16": True, "use_cpu": True}),
        write_run("b", labels, labels, seed=1, options=left),
        write_run("c", labels, labels, seed=0, options={"bf16": True}),
        write_run("d", labels, labels, seed=0),
    ]
    assert [system["seeds"] for system in compare(runs, 50)["systems"]] == [[0, 1], [0], [0]]


def test_folds_of_several_commits_say_so(write_run):
    labels = np.arange(99) % 2
    folds = write_folds(write_run, "a", labels, np.full(99, 0.4), options={"learning_rate": 1e-4})
    folds += write_folds(write_run, "b", labels, np.full(99, 0.6), **other())
    path = Path(folds[1]) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "0ther"}))
    assert "- commit, not the same for all runs: c0ffee; 0ther" in comparison_markdown(compare(folds, 50))


def test_folds_of_a_system_are_compared_as_one_run_over_all_their_rows(write_run):
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=100)
    drawn = [drawn_probabilities(labels, generator) for _ in range(2)]
    whole = [write_run("a", labels, drawn[0]), write_run("b", labels, drawn[1], **other())]
    folds = write_folds(write_run, "fold-a", labels, drawn[0], options={"learning_rate": 1e-4})
    folds += write_folds(write_run, "fold-b", labels, drawn[1], **other())
    expected, compared = (
        compare(whole, NUM_RESAMPLES),
        compare(generator.permutation(folds).tolist()[::-1], NUM_RESAMPLES),
    )
    by_name = {system["name"]: system for system in compared["systems"]}
    assert compared["n"] == expected["n"] == 100
    for system in expected["systems"]:
        assert {figure: by_name[system["name"]][figure] for figure in FIGURES} == {
            figure: system[figure] for figure in FIGURES
        }
        assert by_name[system["name"]]["training_seconds"]["mean"] == 30
        assert by_name[system["name"]]["seeds"] == [42]


@pytest.mark.parametrize(
    ("drop", "file", "message"), [(5, "b-0, b-1", "3[34] differ"), (None, "c-1", "b-1 and c-1 .* test fold, 1")]
)
def test_folds_that_lack_or_repeat_are_refused(write_run, drop, file, message):
    labels = np.arange(100) % 2
    folds = write_folds(write_run, "a", labels, np.full(100, 0.4), options={"learning_rate": 1e-4})
    folds += write_folds(write_run, "b", labels, np.full(100, 0.6), **other())
    if drop is None:
        folds += write_folds(write_run, "c", labels, np.full(100, 0.6), **other())[1:2]
    else:
        del folds[drop]
    with refused(file=file, match=message):
        compare(folds, NUM_RESAMPLES)


def test_folds_that_share_a_test_row_are_refused(write_run):
    options = {"learning_rate": 1e-4}
    write_run("a", [0, 1], [0, 1], ids=["train:0", "train:1"], options=options | {"test_fold": 0})
    write_run("b", [1, 0], [1, 0], ids=["train:1", "train:2"], options=options | {"test_fold": 1})
    write_run("other", [0, 1, 0], [0, 1, 0], **other())
    with refused(file="b", match="a and b .* train:1"):
        compare(["a", "b", "other"], 10)


def test_one_system_alone_is_refused(write_run):
    labels = np.arange(10) % 2
    with pytest.raises(InputError, match=r"only one system \(s0, s1\)"):
        compare(write_seeds(write_run, labels, (9, 8)), 10)


# Report and figure


def test_the_report_says_what_the_comparison_holds(write_run):
    labels = np.arange(1200) % 2
    record = {"test_seconds": 2.0, "options": {"label_delimiter": "|"}}
    first = write_seeds(write_run, labels, (900, 960), prefix="a", **record)
    compared = compare([*first, write_run("b", labels, labels, seed=0)], NUM_RESAMPLES)
    assert json.loads(json.dumps(compared, allow_nan=False)) == compared
    text = comparison_markdown(compared)
    systems, differences, notes = text.split("\n\n")
    system, plain = systems.splitlines()[2:]
    low, high = (100 * compared["systems"][0]["accuracy"][end] for end in ("low", "high"))
    assert system.startswith(
        rf"| roberta-gru, label_delimiter \| | 0, 1 | 77.5 ({low:.1f} to {high:.1f}), seeds 75.0 to 80.0 | "
    )
    assert system.endswith("| 1,234,567 | 7,654 | 10 | 500 | 600 |")
    assert plain.startswith("| roberta-gru, learning_rate 0.0001 | 0 | 100.0 (100.0 to 100.0) | ")
    assert plain.endswith("| 10 | 500 | – |")
    assert len({line.replace(r"\|", "").count("|") for line in systems.splitlines()}) == 1
    difference = compared["differences"][0]
    low, high = (100 * difference["accuracy"][end] for end in ("low", "high"))
    assert f"| +22.5 (+{low:.1f} to +{high:.1f}) | " in differences
    assert differences.endswith(f"| 0 | 0 | 300 | {difference['mcnemar']['p']:.2g} | {2 / 2**300:.2g} |")
    for said in (
        "n = 1,200 test rows, the same for all; classes: bad, good",
        "200 resamples (seed 0) of the rows",
        "seeds and rows are resampled at once",
        "adjusted for 1 test by Holm's method",
        r"roberta-gru, label_delimiter \|: `train.py --output_dir a0`",
        "roberta-gru, learning_rate 0.0001: `train.py --output_dir b`",
        "commit: c0ffee",
        "versions: python 3.11.7, torch 2.13.0",
        "hardware: processor abacus, num_cores 2",
        "data: source tiny, splits abc",
    ):
        assert said in notes
    assert "not the same" not in notes


def test_the_report_says_which_runs_had_other_commits_and_versions(write_run):
    labels = np.arange(10) % 2
    folders = [
        write_run("a", labels, labels, seed=0),
        write_run("b", labels, labels, seed=1, commit=None),
        write_run("c", labels, labels, **other(), versions={"python": "3.12.1"}, command=""),
    ]
    lines = comparison_markdown(compare(folders, 50)).splitlines()
    assert "- commit, not the same for all runs: c0ffee (a, c); – (b)" in lines
    assert "- versions, not the same for all runs: python 3.11.7, torch 2.13.0 (a, b); python 3.12.1 (c)" in lines
    assert "- hardware: processor abacus, num_cores 2" in lines
    assert "- roberta-gru, learning_rate 0.0002: `–`" in lines


def test_the_figure_shows_every_system_its_interval_and_its_seeds(write_run, tmp_path, monkeypatch):
    kept, save = [], comparison.save
    monkeypatch.setattr(comparison, "save", lambda figure, path: (kept.append(figure), save(figure, path)))
    labels = np.arange(100) % 2
    seeds = write_seeds(write_run, labels, (70, 90), prefix="a")
    weights = {"options": {"class_weights": '{"$": 1, "€": 2}'}}
    compared = compare([*seeds, write_run("b", labels, np.arange(100) < 60, **weights)], NUM_RESAMPLES)
    draw_comparison(compared, tmp_path / "comparison.png")
    (figure,) = kept
    for axes, name in zip(figure.axes, ("accuracy", "macro_f1"), strict=True):
        dots = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
        strokes = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "|"]
        figures = [system[name] for system in compared["systems"]]
        assert dots == [[[values["value"], row]] for row, values in enumerate(figures)]
        assert strokes == [
            [[run[name], row] for run in system["runs"]] for row, system in enumerate(compared["systems"])
        ]
        ends = [bar.get_segments()[0][:, 0].tolist() for bar in axes.collections]
        assert np.allclose(ends, [[values["low"], values["high"]] for values in figures])
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == ["roberta-gru, learning_rate 0.0001", 'roberta-gru, class_weights {"\\$": 1, "€":\n2}']
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.format == "PNG"


def test_a_run_that_is_kept_compares_as_the_run_itself(systems, write_run, tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=4000)
    for name, options in ("a", {}), ("b", other()):
        write_run(name, labels, drawn_probabilities(labels, generator), order=generator.permutation(4000), **options)
        systems.keep(tmp_path / name, tmp_path / "kept" / name)
        kept, whole = ((tmp_path / folder / name / "predictions.parquet").stat().st_size for folder in ("kept", "."))
        assert kept < 0.35 * whole
    expected = compare(["a", "b"], num_resamples=NUM_RESAMPLES)
    found = compare(["kept/a", "kept/b"], num_resamples=NUM_RESAMPLES)
    assert found["differences"] == expected["differences"]
    for ours, theirs in zip(found["systems"], expected["systems"], strict=True):
        assert ours["log_loss"]["value"] == pytest.approx(theirs["log_loss"]["value"], abs=1e-4)


def test_options_that_change_no_prediction_make_no_other_system(write_run):
    labels = [0, 1] * 10
    runs = [
        write_run(
            "a-1", labels, labels, seed=1, options={"run_name": "first", "hub_model_id": "me/a", "cache_limit": 5}
        ),
        write_run("a-2", labels, labels, seed=2, options={"run_name": "second"}),
        write_run("b", labels, labels, seed=1, options={"lr_scheduler_kwargs": {"num_cycles": 1}}),
        write_run("c", labels, labels, seed=1, options={"lr_scheduler_kwargs": {"num_cycles": 5}}),
    ]
    compared = compare(runs, num_resamples=NUM_RESAMPLES)
    assert [system["seeds"] for system in compared["systems"]] == [[1, 2], [1], [1]]
