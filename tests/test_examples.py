"""The notebook runs as it stands."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "train_on_your_texts.ipynb"


def test_the_notebook_is_kept_without_output():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
# Of the client's own: its event loop and sockets are not closed by hand.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_the_notebook_trains_explains_scores_and_would_publish(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("'positive'" in str(output.get("data", "")) for output in said)
    assert any("<style>" in output.get("data", {}).get("text/html", "") for output in said)
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
