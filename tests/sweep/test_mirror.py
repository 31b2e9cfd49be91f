"""What Optuna's storage holds of a study: the same as its rows, whatever happened before."""

import math
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from optuna.trial import TrialState

from nnclr_study.errors import ClusterError, StudyFileError
from nnclr_study.study.plan import plan_trials, suggested_trial
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.space import suggest
from nnclr_study.sweep.suggestions import searched
from tests.study.test_run_folder import ended, epoch
from tests.study.test_search import SEARCH
from tests.study.test_spec import GOOD


def folder_of(text, path):
    study = parse_study(text, "x.toml")
    return study, RunFolder.create(path / study.name).keep(study)


def states(mirror):
    return [trial.state for trial in mirror.study.get_trials(deepcopy=False)]


def finish(folder, mirror, trial, top1=0.5, epochs=None, **known):
    """Record a trial as its recorder would."""
    folder.append_epoch(trial.id, epoch(1, top1))
    mirror.begin(trial)
    mirror.epoch(trial.id, epoch(1, top1))
    row = ended(trial).model_copy(update={"val_probe_top1": top1} | known)
    folder.append_trial(row)
    mirror.end(row, epoch(1, top1))
    return row


def test_a_grid_is_there_with_its_states_and_all_its_epochs(tmp_path):
    study, folder = folder_of(GOOD, tmp_path)
    first, second, third = plan_trials(study)[:3]
    mirror = Mirror(study, folder)
    finish(folder, mirror, first, 0.75, gpu_seconds=3.0)
    mirror.begin(second)
    mirror.epoch(second.id, epoch(1, 0.25))
    mirror.end(ended(second, "failed").model_copy(update={"error": "full"}), epoch(1, 0.25))
    mirror.begin(third)
    shown = mirror.study.get_trials()
    assert states(mirror) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING]
    assert shown[0].value == 0.75
    assert shown[0].params == {"queue_size": 0, "temperature": 0.1}
    assert shown[0].user_attrs["trial_id"] == first.id
    assert shown[0].user_attrs["gpu_seconds"] == 3.0
    assert shown[1].intermediate_values == {1: 0.25}
    assert shown[1].user_attrs["error"] == "full"


def test_a_fresh_storage_is_brought_in_step_with_the_rows(tmp_path):
    study, folder = folder_of(GOOD, tmp_path)
    first, second, third = plan_trials(study)[:3]
    folder.append_epoch(first.id, epoch(1, 0.75))
    folder.append_trial(ended(first))
    folder.append_epoch(second.id, epoch(1))
    folder.append_trial(ended(third, "failed"))
    url = f"sqlite:///{tmp_path}/other.db"
    for _ in range(2):  # the second time there is nothing to do
        mirror = Mirror(study, folder, url)
        assert states(mirror) == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL]
    assert mirror.study.get_trials()[1].intermediate_values == {1: 0.5}
    folder.append_trial(ended(second))
    assert states(Mirror(study, folder, url))[1] == TrialState.COMPLETE


def test_more_values_and_other_types_of_knob_do_not_disturb_a_grid(tmp_path):
    study, folder = folder_of(GOOD, tmp_path)
    finish(folder, Mirror(study, folder), plan_trials(study)[0])
    wider = parse_study(GOOD.replace("[0, 40, 100]", "[0, 40, 98_304]"), "x.toml")
    finish(folder, Mirror(wider, folder), plan_trials(wider)[4])
    odd = GOOD.replace("queue_size = [0, 40, 100]", 'optimizer = ["adam", "lars"]').replace(
        "temperature = [0.1, 1]", 'dataset = ["digits", "synthetic"]\ncompile = [false]'
    )
    odd = odd.replace('dataset = "digits"\n', "queue_size = 40\n", 1).replace("good", "odd")
    study, folder = folder_of(odd, tmp_path)
    mirror = Mirror(study, folder)
    finish(folder, mirror, plan_trials(study)[1])
    assert mirror.study.get_trials()[0].params == {"optimizer": "adam", "compile": False}


def test_a_grid_s_encoder_is_a_choice_of_ours_and_a_plug_in_is_left_out(tmp_path):
    text = GOOD.replace("queue_size = [0, 40, 100]", 'encoder = ["conv4", "plugin:mine"]')
    study, folder = folder_of(text.replace("[0.1, 1]", "[0.1]"), tmp_path)
    mirror = Mirror(study, folder)
    for trial in plan_trials(study)[:2]:
        finish(folder, mirror, trial)
    ours, theirs = mirror.study.get_trials()
    assert ours.params == {"encoder": "conv4", "temperature": 0.1}
    assert ours.distributions["encoder"].choices == ("conv4", "resnet18", "resnet50")
    assert theirs.params == {"temperature": 0.1}


def hunt(path, *changes):
    text = SEARCH
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return folder_of(text, path)


SAMPLERS = ["tpe", "random", "qmc", "gp", "cmaes", "nsga2"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_suggests_within_the_space_and_learns(tmp_path, sampler):
    study, folder = hunt(tmp_path, ("[search]\n", f'[search]\nsampler = "{sampler}"\n'))
    mirror = Mirror(study, folder)
    trials = searched(study, folder, mirror, [])
    for _ in range(14):
        trial = next(trials)
        knobs = trial.condition
        assert 40 <= knobs["queue_size"] <= 1_000
        assert knobs["temperature"] * 20 == pytest.approx(round(knobs["temperature"] * 20))
        assert ("lars_trust" in knobs) == (knobs["optimizer"] == "lars")
        finish(folder, mirror, trial, top1=1 - knobs["temperature"])
    assert states(mirror) == [TrialState.COMPLETE] * 14
    assert [row.number for row in folder.suggestions()] == list(range(14))
    assert len({row.trial_id for row in folder.suggestions()}) == 14


def test_trials_in_parallel_are_told_apart_and_a_resumed_search_says_new_things(tmp_path):
    study, folder = hunt(tmp_path)
    mirror = Mirror(study, folder)
    trials = searched(study, folder, mirror, [])
    four = [next(trials) for _ in range(4)]
    assert len({trial.config.digest for trial in four}) == 4
    again = Mirror(study, folder)  # as after a kill
    assert states(again) == [TrialState.RUNNING] * 4
    resumed = searched(study, folder, again, four)
    assert [next(resumed) for _ in range(4)] == four
    fifth = next(resumed)
    assert fifth.id.startswith("0004_")
    assert fifth.config.digest not in {trial.config.digest for trial in four}
    for trial in [*four, fifth]:
        finish(folder, again, trial)
    assert states(again) == [TrialState.COMPLETE] * 5


def test_points_come_first_and_once(tmp_path):
    point = '[[points]]\nqueue_size = 123\noptimizer = "adam"\ntemperature = 0.1\n'
    study, folder = folder_of(SEARCH + point, tmp_path)
    trials = searched(study, folder, Mirror(study, folder), [])
    assert next(trials).condition == {"queue_size": 123, "temperature": 0.1, "optimizer": "adam"}
    again = searched(study, folder, Mirror(study, folder), [])
    assert next(again).condition["queue_size"] != 123


def test_halving_stops_what_falls_behind_and_never_at_the_end(tmp_path):
    study, folder = hunt(tmp_path)
    mirror = Mirror(study, folder)
    trials = searched(study, folder, mirror, [])
    good, bad, last = next(trials), next(trials), next(trials)
    for number in range(1, 19):
        assert not mirror.epoch(good.id, epoch(number, 0.9))
    assert not mirror.epoch(bad.id, epoch(1, 0.1)), "not before min_epochs"
    assert mirror.epoch(bad.id, epoch(2, 0.1))
    assert not mirror.epoch(bad.id, epoch(2, 0.1)), "told again after a retry"
    stopped = ended(bad, "stopped")
    mirror.end(stopped, epoch(2, 0.1))
    assert states(mirror)[1] == TrialState.PRUNED
    assert mirror.study.get_trials()[1].intermediate_values == {1: 0.1, 2: 0.1}
    mirror._running[last.id].epochs = 2
    assert not mirror.epoch(last.id, epoch(2, 0.0)), "it has run to its end"


def test_the_declared_baseline_is_never_stopped_not_even_after_a_kill(tmp_path):
    point = '[[points]]\nqueue_size = {}\noptimizer = "adam"\ntemperature = 0.1\n'
    baseline = '\nbaseline = { queue_size = 90, optimizer = "adam", temperature = 0.1 }\n'
    text = SEARCH.replace("\n[budget]", baseline + "[budget]")
    study, folder = folder_of(text + "".join(map(point.format, (80, 90, 100))), tmp_path)
    mirror = Mirror(study, folder)
    good, ours, bad = islice(searched(study, folder, mirror, []), 3)
    assert ours.condition["queue_size"] == 90
    assert not mirror.epoch(good.id, epoch(2, 0.9))
    assert not mirror.epoch(ours.id, epoch(2, 0.1))
    again = Mirror(study, folder)
    assert not again.epoch(ours.id, epoch(3, 0.1))
    assert again.epoch(bad.id, epoch(2, 0.1))


def test_a_grid_s_baseline_may_name_a_part_of_its_condition(tmp_path):
    batch = "batch_size = {}\nqueue_size = {}\n"
    points = "".join("[[points]]\n" + batch.format(*each) for each in ((8, 16), (32, 100)))
    text = GOOD.split("[grid]")[0].replace("batch_size = 32\n", "", 1) + points
    text = text.replace("seeds", "baseline = { queue_size = 16 }\nseeds")
    study, folder = folder_of(text, tmp_path)
    mirror = Mirror(study, folder)
    finish(folder, mirror, plan_trials(study)[0])
    assert states(mirror) == [TrialState.COMPLETE]


def test_a_mirror_made_anew_stops_as_before_and_tries_no_point_again(tmp_path):
    point = "[[points]]\nqueue_size = 123\n"
    study, folder = folder_of(SEARCH + point, tmp_path)
    mirror = Mirror(study, folder)
    trials = searched(study, folder, mirror, [])
    good = next(trials)
    for number in range(1, 19):
        folder.append_epoch(good.id, epoch(number, 0.9))
        mirror.epoch(good.id, epoch(number, 0.9))
    folder.append_trial(ended(good))
    folder.optuna.unlink()
    again = Mirror(study, folder)
    assert states(again) == [TrialState.COMPLETE]
    bad = next(searched(study, folder, again, []))
    assert bad.condition["queue_size"] != 123
    assert again.epoch(bad.id, epoch(2, 0.1)), "what the first reached is known"


def test_a_point_is_tried_with_values_that_fit_it(tmp_path):
    """Beside a queue of 45 most batches that could be drawn are no trial."""
    text = SEARCH.replace("\nbatch_size = 32", "") + "batch_size = { low = 32, high = 2_000 }\n"
    study, folder = folder_of(text + "[[points]]\nqueue_size = 990\n", tmp_path)
    tried = islice(searched(study, folder, Mirror(study, folder), []), 3)
    assert 990 in [trial.condition["queue_size"] for trial in tried]


def test_early_stopping_needs_no_trial_of_the_fixed_knobs_alone(tmp_path):
    text = SEARCH.replace("batch_size = 32", "batch_size = 20_000")
    text = text.replace("low = 40, high = 1_000", "low = 30_000, high = 60_000")
    study, folder = folder_of(text, tmp_path)
    assert next(searched(study, folder, Mirror(study, folder), []))


def test_a_storage_that_aims_at_something_else_is_told(tmp_path):
    url = f"sqlite:///{tmp_path}/other.db"
    Mirror(*hunt(tmp_path), url)
    other = ("[search]\n", '[search]\nobjectives = ["gpu_seconds"]\nearly_stopping = "none"\n')
    with pytest.raises(ClusterError, match="aims at something else; give this study another name"):
        Mirror(*hunt(tmp_path / "other", other), url)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_constraint_holds_for_trials_of_unknown_memory_too(tmp_path, sampler):
    limit = f'[search]\nmax_memory_gb = 1.0\nsampler = "{sampler}"\nearly_stopping = "none"\n'
    study, folder = hunt(tmp_path, ("[search]\n", limit))
    mirror = Mirror(study, folder)
    for number, trial in enumerate(islice(searched(study, folder, mirror, []), 12)):
        peak = {"peak_memory_bytes": None if number % 2 else 2_000_000_000}
        finish(folder, mirror, trial, 0.5 + number / 100, **peak)


def test_of_an_earlier_run_what_is_off_the_steps_is_of_no_use(tmp_path):
    study, folder = hunt(tmp_path)
    mirror = Mirror(study, folder)
    trial = suggested_trial(study, 0, {"queue_size": 50, "temperature": 0.12, "optimizer": "adam"})
    assert not mirror.learn("runs/a", trial, ended(trial), epoch(1))


def test_the_median_stops_too(tmp_path):
    study, folder = hunt(tmp_path, ("[search]\n", '[search]\nearly_stopping = "median"\n'))
    mirror = Mirror(study, folder)
    trials = searched(study, folder, mirror, [])
    for _ in range(4):
        trial = next(trials)
        for number in (1, 2, 3):
            mirror.epoch(trial.id, epoch(number, 0.8))
        finish(folder, mirror, trial)
    trial = next(trials)
    assert not mirror.epoch(trial.id, epoch(1, 0.1))
    assert mirror.epoch(trial.id, epoch(2, 0.1))


def test_several_objectives_and_a_constraint(tmp_path):
    table = (
        '[search]\nobjectives = ["val_probe_top1", "gpu_seconds"]\nearly_stopping = "none"\n'
        "max_memory_gb = 2.0\n"
    )
    study, folder = hunt(tmp_path, ("[search]\n", table))
    mirror = Mirror(study, folder)
    trials = searched(study, folder, mirror, [])
    finish(folder, mirror, next(trials), 0.9, gpu_seconds=50.0, peak_memory_bytes=3_000_000_000)
    finish(folder, mirror, next(trials), 0.8, gpu_seconds=20.0, peak_memory_bytes=1_000_000_000)
    large, small = mirror.study.get_trials()
    assert large.values == [0.9, 50.0]
    assert large.constraints == {"memory_gb": pytest.approx(1.0)}
    assert small.constraints == {"memory_gb": pytest.approx(-1.0)}
    assert [t.number for t in mirror.study.best_trials] == [1], "the large one breaks it"
    fresh = Mirror(study, folder, f"sqlite:///{tmp_path}/o.db")
    assert [t.constraints for t in fresh.study.get_trials()] == [
        t.constraints for t in mirror.study.get_trials()
    ]


def test_an_objective_that_is_not_known_is_no_success(tmp_path):
    study, folder = hunt(tmp_path, ("[search]\n", '[search]\nobjectives = ["val_knn_top1"]\n'))
    mirror = Mirror(study, folder)
    finish(folder, mirror, next(searched(study, folder, mirror, [])))
    assert states(mirror) == [TrialState.FAIL]
    assert math.isnan(mirror.study.get_trials()[0].intermediate_values[1])


def test_a_search_learns_from_an_earlier_run(tmp_path):
    study, folder = hunt(tmp_path)
    mirror = Mirror(study, folder)
    trial = next(searched(study, folder, mirror, []))
    row = finish(folder, mirror, trial, 0.7)
    other, there = hunt(tmp_path / "later")
    new = Mirror(other, there)
    for _ in range(2):
        assert new.learn("runs/hunt", trial, row, epoch(1, 0.7))
    (known,) = new.study.get_trials()
    assert (known.value, known.params) == (0.7, trial.condition)
    assert known.user_attrs == {"warm_start": f"runs/hunt: {trial.id}"}
    assert not new.learn("runs/hunt", trial, ended(trial, "stopped"), epoch(1))
    outside = replace(trial, condition=trial.condition | {"queue_size": 5_000})
    assert not new.learn("runs/hunt", outside, row, epoch(1))


def test_a_space_whose_values_never_fit_is_told(tmp_path):
    study, folder = hunt(tmp_path, ("low = 40, high = 1_000", "low = 2, high = 30"))
    with pytest.raises(StudyFileError, match="cannot hold one global batch"):
        next(searched(study, folder, Mirror(study, folder), []))
    assert folder.suggestions() == []


def test_a_storage_that_cannot_be_had_is_told(tmp_path):
    study, folder = folder_of(GOOD, tmp_path)
    for url in (
        "sqlite:////nowhere/at/all.db",
        "postgresql+psycopg://nobody@127.0.0.1:1/x",
        "what",
    ):
        with pytest.raises(ClusterError, match="SQLAlchemy URL") as caught:
            Mirror(study, folder, url)
        assert "\n" not in str(caught.value)


def test_a_suggestion_is_whole_where_the_knob_is(tmp_path):
    study, folder = hunt(tmp_path)
    params = suggest(Mirror(study, folder).study.ask(), study.search)
    assert type(params["queue_size"]) is int
    assert type(params["temperature"]) is float


@pytest.fixture
def postgres():
    """Return the URL of an empty database on a server of its own."""
    if shutil.which("pg_ctl") is None:
        pytest.skip("no PostgreSQL server is installed")
    if os.getuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        as_user = []
        if os.getuid() == 0:
            shutil.chown(home, "postgres")
            as_user = ["runuser", "-u", "postgres", "--"]
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        for words in (
            ["initdb", "-D", f"{home}/data", "-U", "lab", "-A", "trust"],
            ["pg_ctl", "-D", f"{home}/data", "-w", "-l", f"{home}/log", "-o", options, "start"],
        ):
            subprocess.run([*as_user, *words], check=True, stdout=subprocess.DEVNULL, cwd="/tmp")
        yield f"postgresql+psycopg://lab@127.0.0.1:{port}/postgres"
        stop = ["pg_ctl", "-D", f"{home}/data", "-m", "immediate", "stop"]
        subprocess.run([*as_user, *stop], check=True, stdout=subprocess.DEVNULL, cwd="/tmp")


def test_postgresql_holds_a_search_too(tmp_path, postgres):
    study, folder = hunt(tmp_path)
    mirror = Mirror(study, folder, postgres)
    trials = searched(study, folder, mirror, [])
    finish(folder, mirror, next(trials), 0.9, gpu_seconds=50.0)
    stopped = next(trials)
    mirror.epoch(stopped.id, epoch(1, 0.1))
    mirror.end(ended(stopped, "stopped"), epoch(1, 0.1))
    shown = Mirror(study, folder, postgres).study.get_trials()
    assert [trial.state for trial in shown] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert shown[0].user_attrs["gpu_seconds"] == 50.0
    assert shown[1].intermediate_values == {1: 0.1}


@pytest.mark.parametrize("left", ["half a line", "half a line, and more after it"])
def test_a_writer_that_died_leaves_nothing_that_lasts(tmp_path, monkeypatch, left):
    monkeypatch.chdir(tmp_path)  # Optuna's own lock is never given up where the path is relative
    monkeypatch.setattr("nnclr_study.sweep.journal.LOCK_SECONDS", 3)
    study, folder = folder_of(GOOD, Path("runs"))
    trials = plan_trials(study)[:3]
    mirror = Mirror(study, folder)
    for trial in trials[:2]:
        finish(folder, mirror, trial)
    before = mirror.study.get_trials()
    whole = folder.optuna.read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = {
        "half a line": whole[:-20],
        "half a line, and more after it": b"".join([*lines[:-3], lines[-3][:-20], *lines[-2:]]),
    }[left]
    folder.optuna.write_bytes(torn)
    Path(f"{folder.optuna}.lock").touch()
    again = Mirror(study, folder)
    finish(folder, again, trials[2])
    shown = Mirror(study, folder).study.get_trials()
    assert [(t.values, t.params, t.user_attrs) for t in shown[:2]] == [
        (t.values, t.params, t.user_attrs) for t in before
    ]
    assert states(again) == [TrialState.COMPLETE] * 3


def test_a_lock_of_a_program_that_knew_another_way_here_is_given_up(tmp_path):
    study, folder = folder_of(GOOD, tmp_path)
    lock = Path(f"{folder.optuna}.lock")
    lock.symlink_to("runs/good/optuna.journal")  # as Optuna's own are, from where it was started
    Mirror(study, folder)
    assert not lock.is_symlink()


def test_a_point_that_was_asked_for_and_never_begun_is_asked_for_again(tmp_path):
    study, folder = folder_of(SEARCH + "\n[[points]]\nqueue_size = 50\n", tmp_path)
    for point in study.points:
        Mirror(study, folder).study.enqueue_trial(point)
    Mirror(study, folder).study.ask()  # and then it was killed
    first, *_ = islice(searched(study, folder, Mirror(study, folder), []), 1)
    assert study.points[0].items() <= first.condition.items()
