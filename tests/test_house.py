"""The house: which way imports run, and that nobody asks a row for its name."""

import ast
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from utils.rows import ROWS

SOURCES = sorted(
    path
    for pattern in ("*.py", "models/*.py", "utils/**/*.py", "data/**/*.py", "experiments/*.py")
    for path in REPOSITORY.glob(pattern)
)
WINGS = {
    "inputs": set(),
    "training": {"inputs"},
    "rows": {"inputs"},
    "scoring": {"rows", "inputs"},
    "figures": {"scoring", "rows", "inputs"},
}


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize("wing", WINGS)
def test_imports_run_one_way(wing):
    files = list((REPOSITORY / "utils" / wing).glob("*.py"))
    assert len(files) > 1
    for path in files:
        wings = {name.split(".")[1] for name in imports_of(path) if name.startswith("utils.")} & WINGS.keys()
        assert wings <= WINGS[wing] | {wing}, path


def test_models_import_nothing_of_the_project_and_nobody_but_experiments_imports_those():
    for path in SOURCES:
        folders = {name.split(".")[0] for name in imports_of(path)}
        place = path.relative_to(REPOSITORY).parts[0]
        if place == "models":
            assert not folders & {"utils", "data", "experiments"}, path
        if place != "experiments":
            assert "experiments" not in folders, path


def test_nobody_compares_the_name_of_a_row():
    names = {name for row in ROWS for name in (row.name, row.file)}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                values = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                assert path.stem == "compare" or not values & names, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("requirements*.txt")), ids=lambda path: path.stem)
def test_every_requirement_has_a_lower_bound(path):
    """.ci/run finds the bounds with sed and runs tests with these versions: one that it misses is not tested."""
    for line in path.read_text(encoding="utf-8").splitlines():
        assert re.match(r"#|-r |[A-Za-z0-9_-]+>=[0-9.]+(,<[0-9.]+)?(  # |$)", line), f"{path.name}: {line}"
