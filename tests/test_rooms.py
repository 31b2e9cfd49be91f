"""Imports point one way, and asking for help costs nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.helpers import make_run, study_text

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
ALLOWED = {("report/search_diagnostics.py", "optuna")}
"""For a search's importances alone; inside functions, so that a grid's report does without."""


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert getattr(node, "level", 0) == 0, f"{path}: relative import"
        yield from imports(node, deep=False)


def imports(tree, deep=True):
    for node in ast.walk(tree) if deep else [tree]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert len(files) > 1
    for path in files:
        allowed = {top for file, top in ALLOWED if path == PACKAGE / file}
        for name in imported(path):
            top, *rest = name.split(".")
            assert top not in FORBIDDEN[room] - allowed, f"{path.name} imports {name}"
            if (
                top == "nnclr_study"
                and rest
                and rest[0] not in {"errors", "interrupts", "printable"}
            ):
                assert rest[0] in MAY_IMPORT[room], f"{path.name} imports {name}"


def test_only_the_sweep_knows_ray():
    knowing = {p.parent.name for p in PACKAGE.rglob("*.py") if "ray" in {*map(top, imported(p))}}
    assert knowing == {"sweep"}


def test_what_is_allowed_is_imported_inside_functions_alone():
    for file, forbidden in ALLOWED:
        tree = ast.parse((PACKAGE / file).read_text())
        inside = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
        found = {top(name) for function in inside for name in imports(function)}
        assert forbidden in found, f"{file} needs no {forbidden}: take it out of ALLOWED"
        at_once = ast.Module([node for node in tree.body if not _for_types(node)], [])
        for function in inside:
            function.body = []
        assert forbidden not in {top(name) for name in imports(at_once)}


def _for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_a_grids_report_loads_no_optuna(tmp_path):
    make_run(tmp_path / "grid", study_text("queue_size = [0, 500]"), lambda trial: 0.8)
    code = """
import sys
from pathlib import Path
from nnclr_study.report.page import build_report
build_report(Path("grid"))
heavy = {"optuna", "torch", "ray", "sklearn"} & sys.modules.keys()
assert not heavy, heavy
"""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


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
