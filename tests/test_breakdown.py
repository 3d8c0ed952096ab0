"""Where the time of scoring and of training is said to go, at toy size."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner

from .conftest import script

breakdown = script("breakdown")

BACKWARD = "autograd::engine::evaluate_function: AddmmBackward0"


@pytest.mark.filterwarnings("ignore")  # OpenVINO's tracer's own
def test_every_kind_of_work_is_found_and_shares_add_up(breakdown, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "breakdown.json"
    outcome = CliRunner().invoke(breakdown.app, ["--toy", "--rounds", "1", "--output", str(path)])
    assert outcome.exit_code == 0, outcome.output
    measured = json.loads(path.read_text())
    for name, job in measured["jobs"].items():
        assert len(job["runs"]) == 1
        for run in job["runs"]:
            assert all(run[kind] > 0 for kind in set(breakdown.KINDS) - {breakdown.OPTIMIZER, breakdown.REST})
            assert (breakdown.OPTIMIZER in run) == (name == "training")
        assert 0 < job["products_of_ceiling"] < 1
    lines = breakdown.table(measured)
    assert {line.count("|") for line in lines if line.startswith("|")} == {4}
    breakdown.draw(measured, tmp_path / "breakdown.png")
    with Image.open(tmp_path / "breakdown.png") as picture:
        assert picture.size[0] > 500


@pytest.mark.parametrize(
    ("names", "sequence_nr", "kind"),
    [
        (["aten::addmm", "aten::linear"], -1, "PRODUCTS"),
        (["aten::mm", BACKWARD], 4, "PRODUCTS"),
        (["aten::addmm", "aten::gru", "GRU"], -1, "GRU"),
        (["aten::mm", BACKWARD], 5, "GRU"),
        (["aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu"], -1, "ATTENTION"),
        (["aten::native_layer_norm"], -1, "BETWEEN"),
        (["aten::_foreach_norm"], -1, "OPTIMIZER"),
        (["aten::mul", "Optimizer.step#NAdam.step"], -1, "OPTIMIZER"),
        ([BACKWARD], 4, "REST"),
    ],
)
def test_an_operation_is_of_the_kind_that_its_surroundings_say(breakdown, names, sequence_nr, kind):
    line = [SimpleNamespace(name=name, sequence_nr=sequence_nr if name == BACKWARD else -1) for name in names]
    assert breakdown._kind(line, gru_numbers={5}) == getattr(breakdown, kind)


def test_shares_are_of_each_runs_own_time(breakdown):
    runs = [{breakdown.PRODUCTS: 3.0, breakdown.REST: 1.0}, {breakdown.PRODUCTS: 2.0, breakdown.REST: 2.0}]
    summary = breakdown.summarise(runs, gflops=50.0, ceiling=40.0)
    assert summary["shares"][breakdown.PRODUCTS] == {"median": 0.625, "min": 0.5, "max": 0.75}
    assert summary["shares"][breakdown.GRU]["max"] == 0.0
    assert summary["products_of_ceiling"] == 50.0 / 2.5 / 40.0


def test_products_are_counted_by_hand(breakdown):
    # A layer of width 12 and 20 within: query, key, value and output 4·12·12, feed-forward 2·12·20.
    fields = {"num_hidden_layers": 3, "hidden_size": 12, "intermediate_size": 20}
    assert breakdown.weight_gflops(fields) * 1e9 == pytest.approx(3 * 2 * (4 * 144 + 2 * 240))
