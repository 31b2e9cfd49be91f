"""Imports point one way, and asking for help costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nnclr_study"
MAY_IMPORT = {
    "study": {"study"},
    "trainer": {"trainer", "study"},
    "sweep": {"sweep", "trainer", "study"},
    "report": {"report", "study"},
}
FORBIDDEN = {
    "study": {"torch", "torchvision", "ray", "pandas", "plotly", "optuna"},
    "trainer": {"ray", "rich", "typer", "pandas", "plotly", "optuna"},
    "sweep": {"pandas", "plotly", "typer"},
    "report": {"torch", "torchvision", "ray", "typer", "optuna"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room):
    files = list((PACKAGE / room).glob("*.py"))
    assert len(files) > 1
    for path in files:
        for name in imported(path):
            top, *rest = name.split(".")
            assert top not in FORBIDDEN[room], f"{path.name} imports {name}"
            if top == "nnclr_study" and rest and rest[0] != "errors":
                assert rest[0] in MAY_IMPORT[room], f"{path.name} imports {name}"


def test_only_the_sweep_knows_ray():
    knowing = {p.parent.name for p in PACKAGE.rglob("*.py") if "ray" in {*map(top, imported(p))}}
    assert knowing == {"sweep"}


def top(name):
    return name.split(".")[0]


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["run", "--help"], ["plan", "search_spaces/quickstart.toml"]],
    ids=" ".join,
)
def test_help_and_plan_load_neither_torch_nor_ray_nor_pandas(argv):
    code = f"""
import sys
from nnclr_study.cli import main
assert main({argv!r}) == 0
heavy = {{"ray", "torch", "pandas", "plotly", "optuna", "sklearn"}} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
