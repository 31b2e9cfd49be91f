"""What `plan` and `run` warn of: knobs without effect, and a space that is too small."""

import json

import pytest

from nnclr_study.cli import main
from nnclr_study.study.plan_warnings import plan_warnings
from nnclr_study.study.spec import load_study, parse_study
from tests.study.test_search import SEARCH
from tests.study.test_spec import SHIPPED

GRID = """
[study]
name = "inert"
seeds = [1, 2, 3]
[trial]
dataset = "digits"
batch_size = 32
labelled_batch_size = 8
"""


def warned(grid, fixed=""):
    return plan_warnings(parse_study(f"{GRID}{fixed}\n{grid}", "x.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_warns_of_nothing(path):
    assert plan_warnings(load_study(path)) == []


def test_a_knob_without_effect_anywhere_is_named_with_its_conditions_and_the_reason():
    (said,) = warned("[grid]\noptimizer_momentum = [0.9, 0.0, 0.5]")
    assert said == (
        "optimizer_momentum has no effect with optimizer = adam: 3 of 3 conditions, 9 trials, "
        "train only 3 different trials (optimizer_momentum 0.9; optimizer_momentum 0.0; "
        "optimizer_momentum 0.5)"
    )


def test_a_knob_without_effect_in_some_conditions_is_told_by_these():
    (said,) = warned("[grid]\nqueue_size = [0, 64]\nneighbours = [1, 4]\npushed_views = [1]")
    assert said.startswith(
        "neighbours and pushed_views have no effect with queue_size = 0: 2 of 4 conditions, 6 "
        "trials, train only 3 different trials (queue_size 0, neighbours 1"
    )
    assert warned("[grid]\nqueue_size = [40, 64]\nneighbours = [1, 4]") == []


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ("lars_trust = [0.1, 0.01]", "lars_trust has no effect with optimizer = adam"),
        ("solarise_threshold = [0.1, 0.5]", "with solarise_prob = 0 in both views"),
        ("jitter_prob = [0.1, 0.5]", "jitter_prob has no effect with all four jitters = 0"),
        ("projector_width = [8, 16]\nprojector_depth = [1, 2]", "with projector_depth = 1"),
        ("aug_strength = [0.0, 1.0]\naug_recipe = ['brightness', 'simclr']", "aug_strength = 0"),
        ("jitter_prob = [0.0, 0.5]\njitter_hue = [0.0, 0.1]", "jitter_hue has no effect with"),
    ],
)
def test_every_kind_is_told_of(grid, says):
    assert any(says in said for said in warned(f"[grid]\n{grid}"))


def test_a_recipe_whose_parts_are_all_set_has_no_strength():
    fixed = "crop_min_area = 0.3\ncrop_max_aspect = 1.2\nbrightness_shift = 0.1"
    (said,) = warned("[grid]\naug_strength = [0.5, 1.0]\nwidth = [8, 16]", fixed)
    assert said.startswith("aug_strength has no effect beside what else is set: 4 of 4 conditions")
    assert "12 trials, train only 6 different trials" in said


def test_points_are_told_of_where_they_set_what_has_no_effect():
    points = '[[points]]\noptimizer = "adam"\n{}[[points]]\noptimizer = "sgd"\n' + (
        "optimizer_momentum = 0.5\n"
    )
    assert warned(points.format("")) == [], "it sets nothing"
    assert warned(points.format("optimizer_momentum = 0.9\n")) == [], "that is the default"
    (said,) = warned(points.format("optimizer_momentum = 0.5\n"))
    assert "it is set in 1 of 2 conditions (optimizer adam, optimizer_momentum 0.5)" in said


def test_a_fixed_knob_without_effect_is_told_of():
    (said,) = warned('[grid]\noptimizer = ["adam", "adamw"]', "lars_trust = 0.5")
    assert said == (
        "lars_trust = 0.5 in [trial] has no effect with optimizer = adam or optimizer = adamw"
    )
    assert warned('[grid]\noptimizer = ["adam", "lars"]', "lars_trust = 0.5") == []
    assert warned("[grid]\nwidth = [8]", "lars_trust = 0.001") == [], "that is the default"


def test_a_searched_knob_without_effect_is_told_of():
    assert plan_warnings(parse_study(SEARCH, "x")) == []
    always = SEARCH.replace(', when = { optimizer = "lars" }', "")
    (said,) = plan_warnings(parse_study(always, "x"))
    assert said.startswith("lars_trust has no effect with optimizer = adam: a search trains")
    rare = SEARCH + "neighbours = { choices = [1, 2] }\n"
    rare = rare.replace("low = 40, high = 1_000, log = true", "low = 0, high = 1_000")
    assert plan_warnings(parse_study(rare, "x")) == [], "no queue is hardly ever drawn"
    (said,) = plan_warnings(parse_study(rare.replace("1_000", "1_000, step = 500"), "x"))
    assert "neighbours has no effect with queue_size = 0" in said


def test_a_space_that_is_smaller_than_the_budget_is_told_of(tmp_path, capsys):
    small = SEARCH.split("queue_size =")[0] + "queue_size = { choices = [0, 64] }\n"
    assert plan_warnings(parse_study(small, "x")) == [
        "[budget] trials = 12, but the search space holds 2 configurations to train: the search "
        "ends after these"
    ]
    assert plan_warnings(parse_study(small.replace("trials = 12", "trials = 2"), "x")) == []
    assert plan_warnings(parse_study(small.replace("trials = 12", "hours = 2.0"), "x")) == []
    path = tmp_path / "small.toml"
    path.write_text(small)
    assert main(["plan", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "ends after 12 trials or when all 2 configurations of its space have been" in shown
    assert "warning: [budget] trials = 12, but the search space holds 2 configurations" in shown


def test_plan_prints_warnings_and_json_holds_them(tmp_path, capsys):
    path = tmp_path / "inert.toml"
    path.write_text(f"{GRID}[grid]\noptimizer_momentum = [0.9, 0.5]\n")
    assert main(["plan", str(path)]) == 0
    assert "warning: optimizer_momentum has no effect" in capsys.readouterr().out
    assert main(["plan", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["warnings"] == plan_warnings(load_study(path))
    assert len(told["warnings"]) == 1


def test_all_of_many_conditions_are_counted():
    sizes = [*range(40, 340)]
    text = f"[grid]\nqueue_size = {sizes}\nneighbours = {[*range(1, 41)]}\nlars_clip = [true]"
    (said,) = warned(text)
    assert "lars_clip has no effect with optimizer = adam: it is set in 12000 of 12000" in said


def test_all_conditions_of_a_grid_are_counted(monkeypatch):
    monkeypatch.setattr("nnclr_study.study.plan_warnings.LIMIT", 2)
    (said,) = warned("[grid]\noptimizer_momentum = [0.9, 0.0, 0.5]")
    assert "3 of 3 conditions, 9 trials, train only 3 different trials" in said
    late = '[grid]\noptimizer = ["adam", "sgd"]\nwidth = [8, 16]'
    assert warned(late, "optimizer_momentum = 0.95") == []


def test_of_a_search_with_many_combinations_nothing_is_claimed_for_all_of_them(monkeypatch):
    monkeypatch.setattr("nnclr_study.study.plan_warnings.LIMIT", 2)
    space = 'optimizer = { choices = ["adam", "sgd"] }\nwidth = { choices = [8, 16] }\n'
    fixed = "epochs = 18\noptimizer_momentum = 0.95"
    text = SEARCH.split("queue_size =")[0].replace("epochs = 18", fixed)
    text = text.replace("trials = 12", "hours = 2.0")
    assert plan_warnings(parse_study(text + space, "x")) == []
    monkeypatch.setattr("nnclr_study.study.plan_warnings.LIMIT", 4)
    assert plan_warnings(parse_study(text + space, "x")) == []
    (said,) = plan_warnings(parse_study(text + space.replace("sgd", "adamw"), "x"))
    assert said.startswith("optimizer_momentum = 0.95 in [trial] has no effect")
