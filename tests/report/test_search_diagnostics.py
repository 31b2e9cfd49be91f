"""The numbers of a search: what a stupid count over the rows says, and what is left out."""

import json
import subprocess
import sys
from dataclasses import replace
from textwrap import dedent

import numpy as np
import pytest

from nnclr_study.report.load import load
from nnclr_study.report.search_diagnostics import MIN_FINISHED, diagnose, place_on
from nnclr_study.report.search_findings import search_findings
from nnclr_study.study.plan import suggested_trial
from nnclr_study.study.rows import Suggestion, TrialRow
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.report.helpers import NOW, make_run, study_text, write_trial
from tests.study.test_search import SEARCH


def suggestions(count, seed=0):
    """Return params as a random sampler suggests them: lars_trust with lars alone."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        params = {
            "queue_size": int(np.exp(generator.uniform(np.log(40), np.log(1000)))),
            "temperature": float(generator.integers(1, 11)) / 20,
            "optimizer": str(generator.choice(["adam", "lars"])),
        }
        if params["optimizer"] == "lars":
            params["lars_trust"] = float(10 ** generator.uniform(-4, -2))
        yield params


def searched(path, outcomes, params=None, text=SEARCH, hours=lambda number: 1.0, gpus=0):
    """Write a search whose trials became what `outcomes` says; (3, "stopped"): after epoch 3."""
    study = parse_study(text, "hunt.toml")
    folder = RunFolder.create(path).keep(study)
    params = list(suggestions(len(outcomes))) if params is None else params
    for number, (outcome, chosen) in enumerate(zip(outcomes, params, strict=True)):
        trial = suggested_trial(study, number, chosen)
        folder.append_suggestion(Suggestion(trial_id=trial.id, number=number, params=chosen))
        stopped = isinstance(outcome, tuple)
        write_trial(folder, trial, outcome[0] if stopped else outcome)
        if stopped:
            folder.append_trial(
                TrialRow(
                    trial_id=trial.id,
                    status="stopped",
                    seed=trial.config.seed,
                    config=trial.config.model_dump(),
                    epochs=outcome[0],
                    val_probe_top1=None,
                    test_probe_top1=None,
                    seconds=1.0,
                    session=0,
                    ended_at=NOW,
                )
            )
    tables = load(folder)
    seconds = [3600.0 * hours(number) for number in range(len(tables.trials))]
    spent = {"seconds": seconds, "gpu_seconds": [gpus * spent for spent in seconds]}
    return replace(tables, trials=tables.trials.assign(**spent))


def by_queue(params, noise=0.0, seed=1):
    """Return an accuracy that queue_size alone decides, and noise."""
    generator = np.random.default_rng(seed)
    return [
        float(0.8 - 0.05 * np.log(p["queue_size"] / 200) ** 2 + noise * generator.normal())
        for p in params
    ]


STOPPED = (3, "stopped")


def test_the_best_so_far_is_over_finished_trials_alone(tmp_path):
    tables = searched(tmp_path, ["lost", 0.5, STOPPED, 0.4, 0.7, None, 0.6])
    rows = diagnose(tables)["history"]
    assert [row["trial"] for row in rows] == [0, 1, 2, 3, 4, 6]
    assert [row["best"] for row in rows] == [None, 0.5, 0.5, 0.5, 0.7, 0.7]
    assert [row["status"] for row in rows][:3] == ["failed", "finished", "stopped"]
    assert [row["val_probe_top1"] for row in rows] == [None, 0.5, None, 0.4, 0.7, 0.6]
    assert rows[2]["epochs_done"] == 3


def test_diagnostics_are_json_at_every_stage(tmp_path):
    whole = [0.5, STOPPED, "lost", 0.6, 2, None]
    for count in range(len(whole) + 1):
        found = diagnose(searched(tmp_path / str(count), whole[:count]))
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert found["begun"] == count
        assert found["importance"] is None


def test_the_knob_that_decides_is_the_most_important_and_beats_chance(tmp_path):
    params = list(suggestions(60))
    found = diagnose(searched(tmp_path, by_queue(params, noise=0.005), params))["importance"]
    assert next(iter(found["shares"])) == "queue_size"
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["n"] == 60
    assert found["times_chance"]["queue_size"] > 1
    assert max(v for knob, v in found["times_chance"].items() if knob != "queue_size") < 1


@pytest.mark.slow
def test_where_no_knob_decides_chance_is_seldom_beaten(tmp_path):
    beaten = 0
    for seed in range(20):
        params = list(suggestions(30, seed=seed))
        tops = [float(top) for top in np.random.default_rng(100 + seed).uniform(0.6, 0.8, 30)]
        found = diagnose(searched(tmp_path / str(seed), tops, params))["importance"]
        beaten += max(found["times_chance"].values()) > 1
    assert beaten <= 4


def test_stopped_and_failed_trials_move_no_importance(tmp_path):
    params = list(suggestions(30))
    tops = by_queue(params)
    more = list(suggestions(10, seed=5))
    alone = searched(tmp_path / "alone", tops, params)
    among = searched(tmp_path / "among", [*tops, *[STOPPED] * 5, *["lost"] * 5], params + more)
    assert diagnose(alone)["importance"] == diagnose(among)["importance"]
    assert diagnose(alone)["edf"] == diagnose(among)["edf"]


@pytest.mark.parametrize(("count", "known"), [(MIN_FINISHED - 1, False), (MIN_FINISHED, True)])
def test_importances_need_trials(tmp_path, count, known):
    params = list(suggestions(count))
    found = diagnose(searched(tmp_path, by_queue(params), params))
    assert (found["importance"] is not None) == known
    assert (found["contour"]["means"] is not None) == (
        known and not {"optimizer", "lars_trust"} & set(found["contour"]["knobs"])
    )


def test_trials_that_are_all_alike_have_no_importances(tmp_path):
    assert diagnose(searched(tmp_path / "tops", [0.5] * 25))["importance"] is None
    params = [{"queue_size": 50, "temperature": 0.1, "optimizer": "adam"}] * 25
    tops = [0.5 + 0.01 * number for number in range(25)]
    found = diagnose(searched(tmp_path / "params", tops, params))
    assert found["importance"] is None
    assert found["finished"] == len(found["history"]) == 1, "copies of a config count once"


def test_of_a_knob_that_all_have_alike_nothing_is_said(tmp_path):
    params = [params | {"optimizer": "adam"} for params in suggestions(40)]
    for chosen in params:
        chosen.pop("lars_trust", None)
    found = diagnose(searched(tmp_path, by_queue(params), params))
    assert found["alike"] == {"optimizer": "adam", "lars_trust": None}
    assert set(found["importance"]["shares"]) == {"queue_size", "temperature"}
    said = search_findings({"search": found})
    assert "All of these have optimizer adam, lars_trust none" in said["importance"].text
    assert "agree most in queue_size" in said["parallel"].text


def test_the_best_third_and_its_values(tmp_path):
    params = list(suggestions(7))
    tops = [0.1, 0.7, 0.3, 0.6, 0.2, 0.5, 0.4]
    found = diagnose(searched(tmp_path, tops, params))
    assert found["good"] == [1, 3, 5]
    sizes = [params[place]["queue_size"] for place in (1, 3, 5)]
    assert found["good_values"]["queue_size"] == [min(sizes), max(sizes)]
    trusts = [params[p]["lars_trust"] for p in (1, 3, 5) if "lars_trust" in params[p]]
    assert found["good_values"]["lars_trust"] == ([min(trusts), max(trusts)] if trusts else [])
    assert found["edf"]["median"] == pytest.approx(0.4)
    assert found["edf"]["best_tenth"] is None


def test_a_scale_is_wide_enough_for_what_was_tried_before_it_was_narrowed(tmp_path):
    params = [{"queue_size": size, "temperature": 0.1, "optimizer": "adam"} for size in (40, 2000)]
    scales = diagnose(searched(tmp_path, [0.5, 0.6], params))["scales"]
    assert (scales["queue_size"]["low"], scales["queue_size"]["high"]) == (40, 2000)
    assert scales["optimizer"] == {"choices": ["adam", "lars"]}
    assert place_on(scales["queue_size"], 40) == 0
    assert place_on(scales["queue_size"], 200) == pytest.approx(np.log(5) / np.log(50))
    assert place_on(scales["optimizer"], "lars") == 0.75


def test_a_contour_is_the_weighted_mean_of_what_lies_near(tmp_path):
    params = list(suggestions(60))
    for chosen in params:
        chosen.pop("lars_trust", None)
        chosen.pop("optimizer")
    text = SEARCH.split("optimizer =")[0]
    tops = by_queue(params)
    found = diagnose(searched(tmp_path, tops, params, text=text))
    across, up = found["contour"]["knobs"]
    means = found["contour"]["means"]
    for row, column in ((5, 12), (12, 5), (20, 20)):
        weights = [
            np.exp(
                -sum(
                    ((place_on(found["scales"][knob], p[knob]) - at / 24) / 0.12) ** 2
                    for knob, at in ((across, column), (up, row))
                )
                / 2
            )
            for p in params
        ]
        if sum(weights) < 1:
            assert means[row][column] is None
        else:
            assert means[row][column] == pytest.approx(np.average(tops, weights=weights))


def test_the_front_is_who_is_beaten_by_none(tmp_path):
    tops = [0.5, 0.6, 0.55, 0.7, 0.7, 0.2]
    hours = [1.0, 2.0, 3.0, 4.0, 5.0, 1.0]
    tables = searched(tmp_path, tops, hours=lambda number: hours[number], gpus=2)
    found = diagnose(tables)["pareto"]
    beaten = {
        a
        for a in range(6)
        for b in range(6)
        if (hours[b] <= hours[a] and tops[b] >= tops[a])
        and (hours[b], tops[b]) != (hours[a], tops[a])
    }
    assert found["front"] == [place for place in range(6) if place not in beaten] == [0, 1, 3]
    assert found["cost"] == "GPU-hours"
    assert [point["hours"] for point in found["points"]] == [2 * spent for spent in hours]


def test_hours_count_where_a_trial_held_no_gpu(tmp_path):
    tables = searched(tmp_path, [0.5, 0.6], hours=lambda number: 3.0)
    mixed = replace(tables, trials=tables.trials.assign(gpu_seconds=[7200.0, 0.0]))
    for each in (tables, mixed):
        found = diagnose(each)["pareto"]
        assert found["cost"] == "hours"
        assert [point["hours"] for point in found["points"]] == [3.0, 3.0]


def test_a_grid_has_no_search_and_loads_no_optuna(tmp_path):
    tables = load(make_run(tmp_path, study_text(), lambda trial: 0.8))
    with pytest.raises(ValueError, match="a grid"):
        diagnose(tables)
    code = """
    import sys
    import nnclr_study.report.search_figures
    assert "optuna" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=True)
