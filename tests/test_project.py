"""Files that contributors, GitHub and citation tools read: they parse, and say what is so."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import nnclr_study
from tests.test_docs import commands

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def parsed(path):
    return yaml.safe_load((ROOT / path).read_text())


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = parsed("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == nnclr_study.__version__
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2104.14548"
    assert paper["authors"][0]["family-names"] == "Dwibedi"


def test_the_workflow_calls_the_gate_with_the_oldest_python_and_no_rights():
    workflow = parsed(".github/workflows/test.yml")
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML 1.1 reads "on" as true
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert re.search(r"@[0-9a-f]{40}$", step.get("uses", f"@{'0' * 40}")), "pin the commit"
    gate = workflow["jobs"]["gate"]["steps"]
    assert ".ci/run" in [step.get("run") for step in gate]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    (python,) = (
        step["with"]["python-version"] for step in gate if "python" in step.get("uses", "")
    )
    assert PROJECT["requires-python"] == f">={python}"


def test_the_workflow_runs_the_test_command_of_the_readme():
    newer = parsed(".github/workflows/test.yml")["jobs"]["newer-python"]["steps"]
    (command,) = (step["run"] for step in newer if "run" in step)
    assert f"\n{command}\n" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_an_issue_form_is_as_github_wants_it(name):
    form = parsed(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_a_bug_report_asks_for_the_command_its_output_and_the_doctor():
    form = parsed(".github/ISSUE_TEMPLATE/bug.yml")
    asked = {field["id"] for field in form["body"] if field.get("validations")}
    assert {"command", "output", "doctor"} <= asked
    text = (GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    assert "nnclr-study doctor --json" in text
    assert {name for name, _ in commands(text)} == {"doctor", "run"}


def test_the_hooks_are_the_gates_own_linters():
    hooks = {
        hook["id"]: hook
        for repo in parsed(".pre-commit-config.yaml")["repos"]
        for hook in repo["hooks"]
    }
    gate = (ROOT / ".ci" / "run").read_text()
    for name in ("ruff format", "ruff check", "mypy"):
        assert f"\n{name}" in gate
        assert any(hook.get("entry", "").startswith(name) for hook in hooks.values())
    assert {"end-of-file-fixer", "trailing-whitespace", "check-yaml"} <= set(hooks)


def test_the_gate_builds_the_site_with_pinned_tools():
    assert "mkdocs build --strict" in (ROOT / ".ci" / "run").read_text()
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().split("\n")
    }
    needed = {re.match(r"[\w-]+", each)[0] for each in PROJECT["optional-dependencies"]["docs"]}
    assert needed and needed <= pinned


@pytest.mark.parametrize("path", ["CONTRIBUTING.md", "SECURITY.md", "CITATION.cff"])
def test_no_address_is_invented(path):
    assert not re.search(r"[\w.]+@[\w-]+\.\w+", (ROOT / path).read_text())
