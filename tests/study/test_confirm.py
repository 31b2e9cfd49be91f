"""The study that a run's best must stand: the right conditions, on seeds it has not used."""

from dataclasses import replace

import pytest

from nnclr_study.errors import UsageError
from nnclr_study.study.confirm import confirmation
from nnclr_study.study.plan import plan_trials, suggested_trial
from nnclr_study.study.rows import Suggestion
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import arms, parse_study
from tests.study.test_run_folder import ended
from tests.study.test_search import SEARCH
from tests.study.test_spec import GOOD


def searched(tmp_path, *tops, text=SEARCH):
    study = parse_study(text, "hunt.toml")
    folder = RunFolder.create(tmp_path / "hunt").keep(study)
    for number, top1 in enumerate(tops):
        params = {"queue_size": 40 + number, "temperature": 0.1, "optimizer": "adam"}
        trial = suggested_trial(study, number, params)
        row = Suggestion(trial_id=trial.id, number=number, params=params)
        folder.append_suggestion(row)
        status = "finished" if top1 is not None else "stopped"
        known = {"val_probe_top1": top1}
        folder.append_trial(ended(trial, status).model_copy(update=known))
    return study, folder


def test_a_search_s_best_meet_the_defaults_on_fresh_seeds(tmp_path):
    study, folder = searched(tmp_path, 0.5, 0.9, None, 0.7)
    found = confirmation(folder, best=2, seeds=3)
    assert found.name == "hunt_confirm"
    assert found.seeds == [1, 2, 3], "7 is used"
    baseline, first, second = arms(found)
    assert baseline["queue_size"] == 10_000, "the default"
    assert (first["queue_size"], second["queue_size"]) == (41, 43)
    assert "# 90.0% (n = 1) queue_size 41" in found.text
    assert found.confirmation.run == "hunt"
    assert found.confirmation.val_probe_top1 == [0.9, 0.7], "as they were there, in file order"
    alike = {"temperature": 0.1, "optimizer": "adam", "lars_trust": 1e-3}
    assert found.fixed == study.fixed | alike, "what all have alike names no condition"
    assert found.knobs == ["queue_size"]
    assert len(plan_trials(found)) == 9


def test_other_epochs_leave_out_the_scores_that_they_cannot_be_held_against(tmp_path):
    study, folder = searched(tmp_path, 0.5, 0.9)
    longer = confirmation(folder, best=1, seeds=2, epochs=36)
    assert longer.fixed["epochs"] == 36
    assert longer.fixed.keys() - study.fixed.keys() == {"temperature", "optimizer", "lars_trust"}
    assert longer.confirmation.val_probe_top1 is None
    assert "chosen by their val_probe_top1 there, after 18 epochs:" in longer.text
    assert confirmation(folder, best=1, seeds=2, epochs=18).confirmation.val_probe_top1 == [0.9]
    varied = SEARCH.replace("[search.space]", "[search.space]\nepochs = { choices = [9, 18] }")
    _, folder = searched(tmp_path / "varied", 0.5, text=varied.replace("\nepochs = 18", ""))
    with pytest.raises(UsageError, match="varies epochs: leave --epochs out"):
        confirmation(folder, best=1, seeds=2, epochs=36)


def test_a_declared_baseline_counts_and_is_not_among_the_best(tmp_path):
    text = SEARCH.replace("seeds", "baseline = { queue_size = 41, temperature = 0.1 }\nseeds")
    _, folder = searched(tmp_path, 0.5, 0.9, 0.7, text=text)
    found = confirmation(folder, best=2, seeds=2)
    assert [arm["queue_size"] for arm in arms(found)] == [41, 42, 40]
    assert "[[points]]  # the baseline\nqueue_size = 41\n\n[[points]]\n" in found.text


def test_a_grid_is_confirmed_by_its_means(tmp_path):
    study = parse_study(GOOD, "good.toml")
    folder = RunFolder.create(tmp_path / "good").keep(study)
    for trial in plan_trials(study):
        top1 = trial.condition["queue_size"] / 1000 + trial.config.seed / 10
        folder.append_trial(ended(trial).model_copy(update={"val_probe_top1": top1}))
    found = confirmation(folder, best=1, seeds=4)
    assert found.seeds == [3, 4, 5, 6]
    assert arms(found) == [{"queue_size": 0}, {"queue_size": 100}]
    assert found.fixed["temperature"] == 0.1
    assert found.confirmation.val_probe_top1 == pytest.approx([0.1 + 0.15]), "the mean of two"
    there = {trial.config.digest for trial in plan_trials(replace(study, seeds=found.seeds))}
    assert {trial.config.digest for trial in plan_trials(found)} <= there, "the same trials"


def test_conditions_that_are_printed_alike_are_not_the_same(tmp_path):
    space = SEARCH.split("[search.space]")[0] + "[search.space]\n"
    study = parse_study(space + "temperature = { low = 0.05, high = 0.5 }\n", "hunt.toml")
    folder = RunFolder.create(tmp_path / "hunt").keep(study)
    for number, (temperature, top1) in enumerate([(0.1234100001, 0.6), (0.1234490001, 0.9)]):
        params = {"temperature": temperature}
        trial = suggested_trial(study, number, params)
        folder.append_suggestion(Suggestion(trial_id=trial.id, number=number, params=params))
        folder.append_trial(ended(trial).model_copy(update={"val_probe_top1": top1}))
    found = confirmation(folder, best=1, seeds=2)
    assert found.confirmation.val_probe_top1 == [0.9]
    assert arms(found)[1] == {"temperature": 0.1234490001}


def test_seeds_that_rows_have_are_not_fresh(tmp_path):
    _, folder = searched(tmp_path, 0.5, 0.9)
    (first, *_) = folder.trials().values()
    folder.append_trial(first.model_copy(update={"seed": 1}))
    assert confirmation(folder, best=1, seeds=2).seeds == [2, 3]


def test_unless_told_how_many_up_to_three_are_confirmed(tmp_path):
    _, folder = searched(tmp_path / "two", 0.5, 0.9)
    assert len(confirmation(folder, best=None, seeds=2).points) == 1 + 2
    _, folder = searched(tmp_path / "five", 0.5, 0.9, 0.7, 0.6, 0.4)
    assert len(confirmation(folder, best=None, seeds=2).points) == 1 + 3
    _, folder = searched(tmp_path / "none", None)
    with pytest.raises(UsageError, match=r"has 0 condition.* none to confirm; `run` it further"):
        confirmation(folder, best=None, seeds=2)


def test_too_few_and_a_baseline_that_is_no_trial_are_told(tmp_path):
    _, folder = searched(tmp_path, 0.5, None)
    with pytest.raises(UsageError, match="has 1 condition"):
        confirmation(folder, best=2, seeds=2)
    text = SEARCH.replace("\nbatch_size = 32", "\nbatch_size = 11_000").replace("= 40", "= 11_100")
    text = text.replace("1_000,", "20_000,")
    study = parse_study(text, "hunt.toml")
    folder = RunFolder.create(tmp_path / "large").keep(study)
    params = {"queue_size": 12_000, "optimizer": "adam"}
    trial = suggested_trial(study, 0, params)
    folder.append_suggestion(Suggestion(trial_id=trial.id, number=0, params=params))
    folder.append_trial(ended(trial))
    with pytest.raises(UsageError, match=r"baseline = . queue_size"):
        confirmation(folder, best=1, seeds=2)


def test_conditions_that_train_the_same_are_confirmed_once(tmp_path):
    text = GOOD.replace("temperature = [0.1, 1]", "neighbours = [1, 2]")
    study = parse_study(text, "good.toml")
    folder = RunFolder.create(tmp_path / "good").keep(study)
    for trial in plan_trials(study):
        top1 = 0.5 - trial.condition["queue_size"] / 1000
        folder.append_trial(ended(trial).model_copy(update={"val_probe_top1": top1}))
    found = confirmation(folder, best=4, seeds=2)
    assert [arm["queue_size"] for arm in arms(found)] == [0, 40, 40, 100, 100]
    with pytest.raises(UsageError, match="has 4 condition"):
        confirmation(folder, best=5, seeds=2)
