"""quickstart.ipynb runs from the first cell to the last.

QUICKSTART=new python -m pytest tests/test_quickstart.py    # also stores the new outputs in the notebook
"""

import os

import nbformat
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient

FILE = REPOSITORY / "quickstart.ipynb"


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tidy(notebook) -> None:
    """Keep what a reader looks at: no progress bars, one format per picture, no path of this machine."""
    for cell in notebook.cells:
        cell.metadata.clear()
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("image/png", None)
            if "text" in output:
                lines = [line.rpartition("\r")[2] for line in output.text.replace("\r\n", "\n").split("\n")]
                lines = [line for line in lines if "img/s" not in line]
                output.text = "\n".join(lines).replace(f"{REPOSITORY}{os.sep}", "")
        cell.outputs = [output for output in cell.outputs if output.get("text", "shown").strip()]


@pytest.mark.slow
def test_every_cell_runs_and_the_stored_outputs_are_of_the_same_kinds(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook, stored = (nbformat.read(FILE, as_version=4) for _ in range(2))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(REPOSITORY)}}).execute()
    tidy(notebook)
    if os.environ.get("QUICKSTART") == "new":
        nbformat.write(notebook, FILE)
        stored = notebook
    kinds = [{output.output_type for output in cell.outputs} for cell in code_cells(notebook)]
    assert [{output.output_type for output in cell.outputs} for cell in code_cells(stored)] == kinds
    assert all(kinds[1:]) and not any("error" in of_cell for of_cell in kinds)
    assert "error:" not in str([cell.outputs for cell in code_cells(notebook)])  # of a script that it starts
    assert "IoU" in str(code_cells(notebook)[2].outputs) and str(REPOSITORY) not in FILE.read_text(encoding="utf-8")
