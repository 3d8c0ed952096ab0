"""Load a model as strangers do: every release of transformers, every Auto class, from a Hub, offline and pinned.

    python benchmarks/loading_matrix.py

Each cell is a fresh process whose interpreter holds a release of transformers and torch, and which cannot import this
package. The Hub is tests/hub_server.py on loopback. It holds two commits of a tiny model: *from the Hub* loads the
newest into an empty cache; *offline* then loads it from that cache, the network refused; *pinned revision* loads the
first into an empty cache. What comes out is compared with what the package makes of the saved folder.
"""

import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results" / "hub" / "loading.json"
FLOAT32 = 1e-5
"""The largest difference between numbers that count as equal: other releases may add in another order."""


def main(
    release: Annotated[list[str] | None, typer.Option(help="Again for more. Unset: all that are supported.")] = None,
    output: Annotated[
        Path, typer.Option(help="The JSON file to write.", show_default=str(RECORDED.relative_to(ROOT)))
    ] = RECORDED,
) -> None:
    """Load every cell of the matrix; older releases are installed by pip first."""
    sys.path.insert(0, str(ROOT))
    from modeling_roberta_gru.files import write_json
    from modeling_roberta_gru.training.record import describe_platform
    from tests.strangers import OLDER_RELEASES, install_transformers

    torch.set_num_threads(1)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory() as folder:
        workplace = Path(folder)
        pythons = {
            name: Path(sys.executable)
            if name == transformers.__version__
            else install_transformers(workplace / name, name)
            for name in release or [*OLDER_RELEASES, transformers.__version__]
        }
        cells = list(load_cells(pythons, workplace))
    measured = {
        "command": shlex.join(["python", "benchmarks/loading_matrix.py", *sys.argv[1:]]),
        "started": started,
        **describe_platform(),
        "equal_up_to": FLOAT32,
        "cells": cells,
    }
    write_json(output, measured)
    print("\n".join(table(measured)))


def load_cells(
    pythons: Mapping[str, Path], workplace: Path, loaders: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Load every way by every loader with every interpreter, and tell how far what came out is from what was saved."""
    from tests.freeze import save_model
    from tests.hub_server import HubServer
    from tests.strangers import LOADERS, PINNED, WAYS, expect, largest_difference, load, push_twice

    first, second = workplace / "first", workplace / "second"
    for seed, folder in enumerate((first, second)):
        save_model(folder, seed)
    with HubServer() as hub:
        pinned = push_twice(hub, first, second)
        for release, python in pythons.items():
            for loader in loaders or LOADERS:
                for way in WAYS:
                    cell: dict[str, Any] = {"transformers": release, "loader": loader, "way": way}
                    begun = time.perf_counter()
                    try:
                        found = load(python, loader, way, hub, pinned, workplace / "homes" / release)
                        expected = expect(first if way == PINNED else second, loader)
                        difference = largest_difference(found, expected)
                        # JSON has no infinity, which stands for another label or shape.
                        cell |= {"difference": min(difference, 1e38), "is_equal": difference <= FLOAT32}
                    except RuntimeError as error:
                        cell |= {"is_equal": False, "error": str(error).strip().splitlines()[-1]}
                    cell["seconds"] = round(time.perf_counter() - begun, 1)
                    print(cell, file=sys.stderr)
                    yield cell
        if hub.unknown:
            raise RuntimeError(f"The Hub was asked for what it does not know: {hub.unknown}")


def table(measured: dict[str, Any]) -> list[str]:
    """Return the lines of the Markdown table and its conditions."""
    cells = {(cell["transformers"], cell["way"], cell["loader"]): cell for cell in measured["cells"]}
    loaders = list(dict.fromkeys(loader for *_, loader in cells))
    rows = dict.fromkeys((release, way) for release, way, _ in cells)
    differences = [cell.get("difference", 0.0) for cell in cells.values() if cell["is_equal"]]
    hardware, versions = measured["hardware"], measured["versions"]
    return [
        f"| transformers | loaded | {' | '.join(f'`{loader}`' for loader in loaders)} |",
        "| --- | --- |" + " --- |" * len(loaders),
        *(
            f"| {release} | {way} | {' | '.join(_cell(cells.get((release, way, loader))) for loader in loaders)} |"
            for release, way in rows
        ),
        "",
        f"{sum(cell['is_equal'] for cell in cells.values())} of {len(cells)} cells give what was saved; numbers count "
        f"as equal up to {measured['equal_up_to']:g}, and differ by {max(differences, default=0.0):.1g} at most.",
        "",
        f"- command: `{measured['command']}`",
        f"- commit: `{measured['commit']}`; python {versions['python']}, torch {versions['torch']}; float32 on "
        f"{hardware['processor']}",
    ]


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    if cell["is_equal"]:
        return "equal"
    return "fails" if "error" in cell else "differs"


if __name__ == "__main__":
    typer.run(main)
