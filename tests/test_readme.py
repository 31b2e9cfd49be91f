"""The README says what is so: its commands, its tree, its study file and its numbers."""

import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from nnclr_study.cli import main
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.spec import parse_study
from tests.test_cli import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EVIDENCE = ROOT / "reports" / "quickstart"


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", README, flags=re.M | re.S)


def test_the_two_commands_are_there():
    said = [line for block in blocks("console") for line in block.splitlines()]
    assert said[0] == "pip install -e . && nnclr-study run search_spaces/quickstart.toml"
    assert said[1] == "pip install -e '.[test]' && pytest"


def test_every_command_and_flag_it_names_exists(capsys):
    used = re.findall(r"nnclr-study ([a-z]+)((?: [^`\n&]*)?)", README)
    assert {name for name, _ in used} == set(COMMANDS)
    for name, rest in used:
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in shown, f"{name} {flag}"
        for path in re.findall(r"search_spaces/\S+", rest):
            assert (ROOT / path).exists()
    flags = set(re.findall(r"`(--[a-z-]+)", README))
    for name in ("run", "plan"):
        main([name, "--help"])
    assert flags <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def test_its_study_file_is_one():
    grid, search = (parse_study(text, "README.md") for text in blocks("toml"))
    assert len(plan_trials(grid)) == 5 * 5
    assert search.knobs == ["queue_size", "optimizer", "lars_trust"]


def test_its_tree_is_the_package():
    tree = re.search(r"^```\n(nnclr_study/.*?)^```", README, flags=re.M | re.S)[1]
    folder, named = "", set()
    for line in tree.splitlines():
        name = line.split()[0]
        if re.match(r"  \S+/", line):
            folder = name
        elif line.startswith("    ") or name.endswith(".py"):
            named.add((folder if line.startswith("    ") else "") + name)
    package = ROOT / "nnclr_study"
    paths = [path.relative_to(package).parts for path in package.rglob("*.py")]
    # A folder within a room is named as a whole.
    modules = {"/".join(parts) if len(parts) < 3 else f"{parts[0]}/{parts[1]}/" for parts in paths}
    assert named == {name for name in modules if not name.endswith("__init__.py")}


def test_its_table_is_computed_from_the_published_trials():
    trials = pd.read_csv(EVIDENCE / "trials.csv")
    assert (trials["status"] == "finished").all()
    for queue_size, arm in trials.groupby("queue_size"):
        val, test = (100 * arm[f"{split}_probe_top1"] for split in ("val", "test"))
        row = f"| {queue_size:,} | {len(arm)} | {val.mean():.2f} | {test.mean():.2f} |"
        assert row in README
    assert README.count("\n| ") >= trials["queue_size"].nunique()


def test_its_answer_is_the_report_s():
    quoted = " ".join(re.findall(r"^> (.*)$", README, flags=re.M))
    assert quoted in " ".join((EVIDENCE / "summary.md").read_text().split())


def test_its_picture_is_there():
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "path", ["study.toml", "trials.csv", "epochs.csv", "summary.md", "environment.json"]
)
def test_the_evidence_is_complete(path):
    assert (EVIDENCE / path).stat().st_size > 0
    if path == "study.toml":
        shipped = ROOT / "search_spaces" / "quickstart.toml"
        assert tomllib.loads((EVIDENCE / path).read_text()) == tomllib.loads(shipped.read_text())
