"""The study file's JSON Schema takes what `parse_study` takes, and refuses what editors should."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

import nnclr_study
from nnclr_study.cli import main
from nnclr_study.errors import StudyFileError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.schema import FILE, study_schema
from nnclr_study.study.spec import parse_study
from nnclr_study.study.tables import BudgetTable, ReferenceTable, StudyTable

PACKAGE = Path(nnclr_study.__file__).parent
SHIPPED = sorted((PACKAGE.parent / "search_spaces").glob("*.toml"))

VALID = """
[study]
name = "whole"
seeds = [1, 2]
baseline = { queue_size = 0, encoder = "conv4" }
margin_points = 1
[budget]
hours = 2
[trial]
dataset = "folder:birds"
learning_rate = 1
[grid]
queue_size = [0, 2_000]
encoder = ["conv4", "resnet18"]
[[points]]
queue_size = 4_000
predictor_width = 256
[[references]]
label = "theirs"
test_top1 = 70
source = "a paper"
"""
SEARCH = """
[study]
name = "hunt"
seeds = [1]
[budget]
trials = 5
[search]
sampler = "random"
[search.space]
queue_size = { low = 1_050, high = 9_000, log = true }
pushed_views = { choices = [1, 2] }
optimizer = { choices = ["adam", "lars"] }
lars_trust = { low = 1e-4, high = 1e-2, when = { optimizer = "lars" } }
"""


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft7Validator.check_schema(study_schema())
    return jsonschema.Draft7Validator(study_schema())


def test_the_package_holds_the_current_one():
    said = "is not current: python docs/generate.py writes it"
    assert json.loads((PACKAGE / FILE).read_text()) == study_schema(), f"{FILE} {said}"


def test_the_command_prints_it(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == study_schema()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_keeps_it_and_names_it_in_its_first_line(path, validator):
    assert not list(validator.iter_errors(tomllib.loads(path.read_text())))
    (named,) = re.findall(r"\A#:schema (.*)\n", path.read_text())
    assert (path.parent / named).resolve() == PACKAGE / FILE


PLUGINS = VALID.replace("folder:birds", "plugin:birds").replace("resnet18", "plugin:mine")
PLUGINS = PLUGINS.replace("[trial]", '[trial]\naug_recipe = "plugin:rain"')


def as_an_editor(*paths):
    """Check files by the schema that their first line names; return what is complained of."""
    program = Path(sys.executable).with_name("taplo")
    done = subprocess.run([program, "lint", *paths], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def test_an_editor_finds_the_schema_by_the_first_line(tmp_path):
    assert as_an_editor(*SHIPPED) == ""
    (tmp_path / FILE).write_text((PACKAGE / FILE).read_text())
    study = tmp_path / "study.toml"
    study.write_text(f"#:schema ./{FILE}\n{VALID}")
    assert as_an_editor(study) == ""
    study.write_text(f"#:schema ./{FILE}\n{VALID}".replace("[trial]", "[trail]"))
    assert "'trail' was unexpected" in as_an_editor(study)


@pytest.mark.parametrize("text", [VALID, SEARCH, PLUGINS], ids=["grid", "search", "plugins"])
def test_what_a_study_may_hold_keeps_it(text, validator):
    parse_study(text, "made.toml")
    assert not list(validator.iter_errors(tomllib.loads(text)))


def test_what_confirm_writes_keeps_it(tmp_path, validator):
    from nnclr_study.study.confirm import confirmation
    from tests.report.helpers import make_run, study_text

    folder = make_run(tmp_path / "made", study_text("queue_size = [0, 500]"), lambda trial: 0.8)
    assert not list(validator.iter_errors(tomllib.loads(confirmation(folder, 1, 2).text)))


@pytest.mark.parametrize(
    "text, old, new",
    [
        (VALID, "[study]", "[stuyd]"),
        (VALID, 'name = "whole"', 'name = "no spaces please"'),
        (VALID, 'name = "whole"\n', ""),
        (VALID, "seeds = [1, 2]", "seeds = []"),
        (VALID, "seeds = [1, 2]", "seeds = [1, 1]"),
        (VALID, "seeds = [1, 2]", "seeds = [-1]"),
        (VALID, "margin_points = 1", "margin_points = 0"),
        (VALID, "margin_points = 1", "margin = 1"),
        (VALID, "baseline = { queue_size", "baseline = { queue"),
        (VALID, "hours = 2", 'hours = "2"'),
        (VALID, "hours = 2", "trials = 1.5"),
        (VALID, '"folder:birds"', '"folder:../birds"'),
        (VALID, '"folder:birds"', '"imagenet"'),
        (VALID, '"folder:birds"', '"plugin:no/name"'),
        (VALID, '["conv4", "resnet18"]', '["conv4", "folder:birds"]'),
        (VALID, "learning_rate = 1", "learning_rate = 0"),
        (VALID, "learning_rate = 1", "learning_rat = 1"),
        (VALID, "learning_rate = 1", "compile = 1"),
        (VALID, "learning_rate = 1", "seed = 1"),
        (VALID, "[0, 2_000]", "2_000"),
        (VALID, "[0, 2_000]", "[]"),
        (VALID, "[0, 2_000]", "[0, 0]"),
        (VALID, "[0, 2_000]", "[0, -5]"),
        (VALID, "[0, 2_000]", "[0, 2_000.5]"),
        (VALID, '["conv4", "resnet18"]', '["conv4", "resnet19"]'),
        (VALID, "predictor_width = 256", "predictor_width = 0"),
        (VALID, "[[points]]", "[points]"),
        (VALID, "test_top1 = 70", "test_top1 = 700"),
        (VALID, 'label = "theirs"\n', ""),
        (VALID, "[grid]", "[search]\n[search.space]\ntemperature = {low = 1, high = 2}\n[grid]"),
        (SEARCH, "[budget]\ntrials = 5\n", ""),
        (SEARCH, '"random"', '"grid"'),
        (SEARCH, "low = 1_050, ", ""),
        (SEARCH, "low = 1_050", "low = -1"),
        (SEARCH, "log = true", "logarithmic = true"),
        (SEARCH, "{ choices = [1, 2] }", "[1, 2]"),
        (SEARCH, "{ choices = [1, 2] }", "{ low = 1, high = 2 }"),
        (SEARCH, '["adam", "lars"]', '["adam", "muon"]'),
        (SEARCH, 'optimizer = "lars"', 'optimiser = "lars"'),
        (SEARCH, "[search.space]", "[search.spaces]"),
    ],
)
def test_both_refuse_a_broken_study(text, old, new, validator):
    assert text.count(old) == 1
    broken = text.replace(old, new)
    with pytest.raises(StudyFileError):
        parse_study(broken, "broken.toml")
    assert list(validator.iter_errors(tomllib.loads(broken)))


def test_every_key_is_described():
    schema = study_schema()
    knobs = schema["definitions"]
    assert {*knobs, "seed"} == {*TrialConfig.model_fields, "condition"}
    tables = schema["properties"]
    assert tables["study"]["properties"].keys() == StudyTable.model_fields.keys()
    assert tables["budget"]["properties"].keys() == BudgetTable.model_fields.keys()
    listed = tables["references"]["items"]["properties"]
    assert listed.keys() == ReferenceTable.model_fields.keys()
    keys = [*listed.values(), *tables["study"]["properties"].values()]
    keys += [rule for name, rule in knobs.items() if name != "condition"]
    assert all(rule["description"] for rule in keys)


def test_bounds_are_the_models_own():
    knobs = study_schema()["definitions"]
    assert knobs["temperature"]["exclusiveMinimum"] == 0
    assert knobs["temperature"]["maximum"] == 100
    assert knobs["queue_size"]["default"] == 10_000
    assert "null" not in json.dumps(study_schema())
