"""A search trains no configuration twice, and ends when its space holds nothing new. No Ray."""

import json
from itertools import islice

import pytest
from optuna.trial import TrialState

from nnclr_study.cli import main
from nnclr_study.errors import StudyFileError
from nnclr_study.study.budget import allowed, spent_by
from nnclr_study.study.configurations import LIMIT, exhausted, most_trials, size
from nnclr_study.study.inert import training_key
from nnclr_study.study.plan import suggested_trial
from nnclr_study.study.rows import Suggestion
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.suggestions import PATIENCE, REPEATS, searched
from tests.study.test_run_folder import ended, epoch
from tests.sweep.test_mirror import SAMPLERS, finish, folder_of, states

SMALL = """
[study]
name = "small"
seeds = [1]
[budget]
trials = 7
[trial]
dataset = "digits"
batch_size = 16
labelled_batch_size = 4
epochs = 9
[search]
sampler = "tpe"
early_stopping = "none"
[search.space]
queue_size = { choices = [0, 64] }
head_batch_norm = { choices = [true, false] }
"""
TOO_LARGE = SMALL.replace("[0, 64]", str([*range(20, 20 + LIMIT)]))
CONDITIONAL = SMALL.replace("head_batch_norm = { choices = [true, false] }", "") + (
    'optimizer = { choices = ["adam", "lars"] }\n'
    "lars_clip = { choices = [true, false], when = { optimizer = 'lars' } }\n"
    "temperature = { low = 0.1, high = 0.3, step = 0.1 }\n"
)


def small(path, *changes):
    text = SMALL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return folder_of(text, path)


def train_all(study, folder, top1=lambda trial: trial.config.queue_size / 1_000, say=print):
    """Finish every trial of a search, one after another; return them and the mirror."""
    mirror, trials = Mirror(study, folder), []
    for trial in searched(study, folder, mirror, folder.todo(study), say):
        finish(folder, mirror, trial, top1(trial))
        trials.append(trial)
    return trials, mirror


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_configuration_is_trained_once_and_then_the_search_ends(tmp_path, sampler):
    study, folder = small(tmp_path, ('"tpe"', f'"{sampler}"'))
    trials, mirror = train_all(study, folder)
    assert len({trial.config.digest for trial in trials}) == len(trials) == 4
    assert [row.number for row in folder.suggestions()] == [0, 1, 2, 3]
    assert set(states(mirror)) == {TrialState.COMPLETE}
    assert spent_by(folder, study).trials == 4
    told = mirror.study.get_trials()
    values = {t.user_attrs["trial_id"]: t.values for t in told if "trial_id" in t.user_attrs}
    repeats = [t for t in told if "repeats" in t.user_attrs]
    assert len(values) == 4
    assert len(values) + len(repeats) == len(told)
    assert all(t.values == values[t.user_attrs["repeats"]] for t in repeats)
    assert train_all(study, folder)[0] == [], "nor when it is called again"


def test_several_objectives_and_a_constraint_are_told_again_too(tmp_path):
    table = (
        '"tpe"',
        '"nsga2"\nobjectives = ["val_probe_top1", "gpu_seconds"]\nmax_memory_gb = 1.0',
    )
    study, folder = small(tmp_path, table)
    mirror = Mirror(study, folder)
    trial = next(searched(study, folder, mirror, []))
    finish(folder, mirror, trial, 0.5, gpu_seconds=3.0, peak_memory_bytes=2_000_000_000)
    mirror.repeated(mirror.study.ask(), trial.id)
    first, second = mirror.study.get_trials()
    assert (first.values, second.values) == ([0.5, 3.0], [0.5, 3.0])
    assert first.constraints == second.constraints != {}


def test_a_repeat_of_a_running_trial_is_told_when_that_ends(tmp_path):
    study, folder = small(tmp_path)
    mirror = Mirror(study, folder)
    trials = list(searched(study, folder, mirror, []))
    assert len(trials) == 4, "all of them run at once"
    assert set(states(mirror)) == {TrialState.RUNNING}
    assert len(states(mirror)) > 4
    again = Mirror(study, folder)  # as after a kill
    assert states(again) == states(mirror)
    for trial in trials:
        finish(folder, again, trial, 0.25)
    told = again.study.get_trials()
    assert {(trial.state, trial.value) for trial in told} == {(TrialState.COMPLETE, 0.25)}


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_a_repeat_fails_or_is_stopped_as_the_trial_before_it(tmp_path, status):
    study, folder = small(tmp_path, ('"none"', '"asha"'), ("[true, false]", "[true]"))
    mirror = Mirror(study, folder)
    first = next(searched(study, folder, mirror, []))
    folder.append_epoch(first.id, epoch(1, 0.125))
    mirror.epoch(first.id, epoch(1, 0.125))
    folder.append_trial(ended(first, status))
    mirror.end(ended(first, status), epoch(1, 0.125))
    asked = mirror.study.ask()
    mirror.repeated(asked, first.id)
    told = mirror.study.get_trials()[asked.number]
    assert told.state == {"failed": TrialState.FAIL, "stopped": TrialState.PRUNED}[status]
    assert told.intermediate_values == ({1: 0.125} if status == "stopped" else {})
    assert len(list(searched(study, folder, mirror, []))) == 1, "neither is it trained again"


def test_a_failed_trial_runs_again_if_that_is_asked_for_and_only_then(tmp_path):
    study, folder = small(tmp_path)
    mirror = Mirror(study, folder)
    first, *others = searched(study, folder, mirror, [])
    for trial in others:
        finish(folder, mirror, trial)
    row = ended(first, "failed")
    folder.append_trial(row)
    mirror.end(row, None)
    assert exhausted(study, folder.planned(), folder.trials()) is not None
    assert list(searched(study, folder, Mirror(study, folder), folder.todo(study))) == []
    again = folder.todo(study, retry_failed=True)
    assert list(searched(study, folder, Mirror(study, folder), again)) == [first]


def test_a_kill_between_asking_and_telling_loses_no_configuration(tmp_path):
    study, folder = small(tmp_path)
    mirror = Mirror(study, folder)
    mirror.study.ask()
    trials, mirror = train_all(study, folder)
    assert len(trials) == 4
    folder.optuna.unlink()
    assert states(Mirror(study, folder)) == [TrialState.COMPLETE] * 4, "made anew from the rows"
    assert train_all(study, folder)[0] == []


def test_conditional_knobs_and_steps_make_no_copies(tmp_path):
    study, folder = folder_of(CONDITIONAL, tmp_path)
    assert size(study) == 2 * (1 + 2) * 3
    trials, _ = train_all(study, folder)
    assert len({trial.config.digest for trial in trials}) == len(trials) == 18


def test_configurations_that_train_alike_are_one(tmp_path):
    text = CONDITIONAL.replace(", when = { optimizer = 'lars' }", "")
    study, folder = folder_of(text, tmp_path)
    assert size(study) == 18, "lars_clip has no effect with adam"
    trials, _ = train_all(study, folder)
    assert len({training_key(trial.config) for trial in trials}) == len(trials) == 18


def test_points_come_first_and_a_copy_of_one_is_not_trained(tmp_path):
    points = "".join(
        f"[[points]]\nqueue_size = 64\n{further}"
        for further in ("head_batch_norm = true\n", "head_batch_norm = false\n", "")
    )
    study, folder = folder_of(SMALL + points, tmp_path)
    trials, mirror = train_all(study, folder)
    assert [trial.condition["queue_size"] for trial in trials] == [64, 64, 0, 0]
    third = mirror.study.get_trials()[2]
    assert third.user_attrs["repeats"] in {trial.id for trial in trials[:2]}


def test_what_an_earlier_run_trained_is_known_and_trained_here_nevertheless(tmp_path):
    study, folder = small(tmp_path / "earlier")
    trials, _ = train_all(study, folder)
    rows = folder.trials()
    other, there = small(tmp_path / "later", ('name = "small"', 'name = "later"'))
    mirror = Mirror(other, there)
    for trial in trials:
        assert mirror.learn("runs/small", trial, rows[trial.id], epoch(1, 0.5))
    assert len(list(searched(other, there, mirror, []))) == 4, "its page counts its own rows"


def test_a_search_of_an_endless_space_ends_when_nothing_new_comes(tmp_path):
    """The momentum is continuous, and has no effect with adam."""
    axis = ("head_batch_norm = { choices = [true, false] }", "")
    momentum = "optimizer_momentum = { low = 0.0, high = 0.9 }\n"
    text = SMALL.replace(*axis) + momentum
    study, folder = folder_of(text, tmp_path)
    assert size(study) is None
    said = []
    trials, mirror = train_all(study, folder, say=said.append)
    assert len(trials) == 2
    assert f"the search ends: {REPEATS} suggestions in a row had been trained before" in said[0]
    assert len(said) == 1
    assert len(states(mirror)) <= 2 + 2 * REPEATS


def test_a_sampler_that_insists_is_helped_out(tmp_path, monkeypatch):
    study, folder = small(tmp_path)
    mirror = Mirror(study, folder)
    insists = {"queue_size": 0, "head_batch_norm": True}

    def suggest(asked, search):
        shown = asked.study.get_trials(deepcopy=False)[asked.number]
        return shown.system_attrs.get("fixed_params", insists)

    monkeypatch.setattr("nnclr_study.sweep.suggestions.suggest", suggest)
    trials = []
    for trial in searched(study, folder, mirror, []):
        finish(folder, mirror, trial)
        trials.append(trial)
    assert len({trial.config.digest for trial in trials}) == 4
    assert len(states(mirror)) == 4 + 3 * (PATIENCE - 1)


def test_few_values_that_fit_each_other_are_found(tmp_path):
    """Of 2,000 pairs three are valid."""
    text = SMALL.replace("batch_size = 16\nlabelled", "labelled").split("[search.space]")[0]
    text += (
        "[search.space]\nbatch_size = { low = 1_000, high = 1_999 }\n"
        "queue_size = { choices = [1_006, 1_000] }\n"
    )
    study, folder = folder_of(text, tmp_path)
    trials, _ = train_all(study, folder, lambda trial: 0.5)
    assert sorted(trial.config.batch_size for trial in trials) == [1_000, 1_001, 1_002]


def test_a_finite_space_without_a_valid_configuration_is_told(tmp_path):
    study, folder = small(tmp_path, ("[0, 64]", "[5, 6]"))
    assert size(study) is None
    assert exhausted(study, [], {}) is None
    with pytest.raises(StudyFileError, match="cannot hold one global batch"):
        next(searched(study, folder, Mirror(study, folder), []))


def test_a_space_is_counted_no_further_than_it_must_be():
    study = parse_study(SMALL, "x")
    assert (size(study), size(study, 4), size(study, 3)) == (4, 4, None)
    assert most_trials(study) == 4
    assert most_trials(parse_study(SMALL.replace("trials = 7", "trials = 3"), "x")) == 3
    assert most_trials(parse_study(SMALL.replace("trials = 7", "hours = 1.0"), "x")) is None
    large = parse_study(TOO_LARGE, "x")
    assert size(large) is None
    assert most_trials(large) == 7


def test_a_space_that_was_narrowed_is_exhausted_by_what_is_left_of_it(tmp_path):
    text = SMALL.replace("[0, 64]", "[64, 128]").replace(
        "head_batch_norm = { choices = [true, false] }",
        "neighbours = { low = 1, high = 4, step = 1 }",
    )
    study, folder = folder_of(text, tmp_path)
    assert len(train_all(study, folder)[0]) == 8
    narrow = parse_study(text.replace("high = 4", "high = 2"), "x")
    folder.keep(narrow)
    assert exhausted(narrow, folder.planned(narrow), folder.trials()).endswith(
        "all 4 configurations have been trained"
    )
    wide = parse_study(text.replace("high = 4", "high = 5"), "x")
    folder.keep(wide)
    trials, _ = train_all(wide, folder)
    assert [trial.condition["neighbours"] for trial in trials] == [5, 5]


def test_a_run_of_an_exhausted_search_has_nothing_to_do(tmp_path):
    study, folder = small(tmp_path)
    train_all(study, folder)
    todo, over = allowed(folder, study, folder.todo(study))
    assert todo == []
    assert over == "the search space is exhausted: all 4 configurations have been trained"
    once, there = small(tmp_path / "once", ("[0, 64]", "[0]"), ("[true, false]", "[true]"))
    assert allowed(there, once, [])[1] is None
    train_all(once, there)
    assert allowed(there, once, [])[1].endswith("its one configuration has been trained")


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (None, None),
        ("failed", "the search space is exhausted: all 4 configurations have been tried"),
        ("stopped", "the search space is exhausted: all 4 configurations have been trained"),
    ],
)
def test_a_space_is_exhausted_once_its_last_trial_has_ended(last, says, tmp_path, capsys):
    study, folder = small(tmp_path, ("trials = 7", "trials = 4"))
    params = [
        {"queue_size": q, "head_batch_norm": norm} for q in (0, 64) for norm in (True, False)
    ]
    trials = [suggested_trial(study, number, each) for number, each in enumerate(params)]
    for number, trial in enumerate(trials):
        row = Suggestion(trial_id=trial.id, number=number, params=trial.condition)
        folder.append_suggestion(row)
        folder.append_epoch(trial.id, epoch(1))
    for trial, status in zip(trials, ["finished"] * 3 + [last], strict=True):
        if status:
            folder.append_trial(ended(trial, status))
    assert exhausted(study, folder.planned(), folder.trials()) == says
    assert main(["status", str(folder.path)]) == 0
    shown = capsys.readouterr().out
    assert (says or "budget reached: 4 of 4 trials") in shown
    assert ("exhausted" in shown) == ("budget reached" not in shown) == bool(says)
    assert main(["status", str(folder.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exhausted"] == says


def write_copies(folder, study, outcomes):
    """Write suggestions as an earlier version did: the same config again under another number."""
    for number, (params, status, top1) in enumerate(outcomes):
        trial = suggested_trial(study, number, params)
        folder.append_suggestion(Suggestion(trial_id=trial.id, number=number, params=params))
        if status:
            top1s = dict.fromkeys(("val_probe_top1", "test_probe_top1"), top1)
            folder.append_epoch(trial.id, epoch(1, top1 or 0.5))
            folder.append_trial(ended(trial, status).model_copy(update=top1s))


def test_of_copies_by_an_earlier_version_the_first_that_finished_counts(tmp_path):
    study, folder = small(tmp_path)
    a, b, c = (
        {"queue_size": size, "head_batch_norm": norm}
        for size, norm in ((0, True), (64, True), (64, False))
    )
    write_copies(
        folder,
        study,
        [
            (a, "failed", None),
            (b, "finished", 0.5),
            (a, None, None),
            (a, "finished", 0.75),
            (b, "finished", 0.5),
            (a, "finished", 0.75),
            (c, "failed", None),
            (c, None, None),
            (b, None, None),
        ],
    )
    assert [trial.id[:4] for trial in folder.planned()] == ["0001", "0003", "0007"]
    assert spent_by(folder, study).trials == 3
    assert [trial.id[:4] for trial in folder.todo(study)] == ["0007"]
    trials, _ = train_all(study, folder)
    assert [trial.id[:4] for trial in trials] == ["0007", "0009"]
    rows = [json.loads(line) for line in (folder.path / "trials.jsonl").open()]
    assert len(rows) == 6 + 2, "no row is lost"


def test_a_search_that_is_resumed_beside_copies_goes_on(tmp_path):
    study, folder = small(tmp_path)
    same = {"queue_size": 0, "head_batch_norm": True}
    write_copies(folder, study, [(same, "finished", 0.5)] * 3)
    trials = list(islice(searched(study, folder, Mirror(study, folder), []), 9))
    assert [trial.id[:4] for trial in trials] == ["0003", "0004", "0005"]
