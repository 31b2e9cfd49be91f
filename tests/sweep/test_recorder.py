"""What the recorder makes of what Tune tells it. No cluster."""

import io
import json
import pickle
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
from ray.tune import Callback
from rich.console import Console

from nnclr_study.errors import RunFolderError, RunFolderWarning
from nnclr_study.study.budget import allowed
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import BudgetTable, parse_study
from nnclr_study.sweep.engine import _warm_start
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.missing import restore_rows
from nnclr_study.sweep.recorder import Recorder
from nnclr_study.sweep.terminal import Progress, show_seconds
from nnclr_study.sweep.trackers import TensorBoard, Tracker
from tests.study.test_run_folder import epoch, session

STUDY = """
[study]
name = "x"
seeds = [1]
[trial]
dataset = "digits"
epochs = 2
[grid]
queue_size = [0, 1000]
"""


@pytest.fixture
def heard(tmp_path):
    """Return a recorder, its folder, a trial as planned and as Tune has it, and the terminal."""
    study = parse_study(STUDY, "x.toml")
    folder = RunFolder.create(tmp_path / "x").keep(study)
    todo = plan_trials(study)
    terminal = io.StringIO()
    progress = Progress(Console(file=terminal, width=120), study, folder, todo)
    planned = todo[0]
    trial = SimpleNamespace(config={"trial_id": planned.id})
    recorder = recorder_of(study, folder, progress)
    recorder.begin(planned)
    return SimpleNamespace(**locals())


def recorder_of(study, folder, progress, *trackers):
    """Return the recorder of a further call of `run`, which held half a GPU a trial."""
    call = session(gpus_per_trial=0.5)
    folder.append_session(call)
    trackers = [TensorBoard(folder.tensorboard), *trackers]
    return Recorder(study, folder, [], call, Mirror(study, folder), progress, trackers=trackers)


def test_rows_of_trials_that_are_not_planned_are_not_kept(tmp_path, monkeypatch):
    study = replace(parse_study(STUDY, "x.toml"), budget=BudgetTable(trials=1))
    folder = RunFolder.create(tmp_path / "x").keep(study)
    todo = plan_trials(study)
    for trial_id in (todo[0].id, "other"):
        folder.append_epoch(trial_id, epoch(1))
    asked = []

    def noting(read):
        def noted(self, planned=None):
            asked.append(planned)
            return read(self, planned)

        return noted

    for name in ("trials", "epochs", "epoch_seconds"):
        monkeypatch.setattr(RunFolder, name, noting(getattr(RunFolder, name)))
    with pytest.warns(RunFolderWarning, match="1 row of trials that are not part of the study"):
        progress = Progress(Console(file=io.StringIO()), study, folder, todo)
        recorder_of(study, folder, progress)
        restore_rows(folder, study)
        assert allowed(folder, study, todo) == (todo[:1], None)
        table = SimpleNamespace(warm_start=[str(folder.path)])
        other = SimpleNamespace(search=SimpleNamespace(table=table), knobs=[])
        assert list(_warm_start(other, None)) == [
            f"0 of 0 trials of {folder.path} are of use to this search"
        ]
    assert len(asked) > 8 and None not in asked


def result(heard, number, top1=0.5, **knobs):
    ran = heard.planned.config.model_dump() | knobs
    row = epoch(number, top1).model_copy(update={"test_probe_top1": 0.25 if number == 2 else None})
    facts = {"host": "node-1", "device": "CPU", "peak_memory_bytes": 12_345}
    return {"row": row.model_dump_json(), "ran": json.dumps(ran)} | facts


def test_a_trial_that_ran_as_asked_is_finished_with_its_last_epoch(heard):
    for number, top1 in ((1, 0.9), (2, 0.75)):
        heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, number, top1))
    heard.recorder.on_trial_complete(trial=heard.trial)
    (row,) = heard.folder.trials().values()
    assert (row.status, row.val_probe_top1, row.test_probe_top1) == ("finished", 0.75, 0.25)
    assert (row.seconds, row.epochs, row.session, row.host) == (3.0, 2, 0, "node-1")
    assert (row.gpu_seconds, row.peak_memory_bytes) == (1.5, 12_345)
    assert "finished  queue_size 0, seed 1" in heard.terminal.getvalue()
    assert "val  75.0%  test  25.0%" in heard.terminal.getvalue()


def test_rows_told_again_after_a_resume_are_not_written_again(heard):
    tell = heard.recorder.on_trial_result
    tell(trial=heard.trial, result=result(heard, 1))
    tell(trial=heard.trial, result=result(heard, 1))
    again = recorder_of(heard.study, heard.folder, heard.progress)
    again.begin(heard.planned)
    for number in (1, 2):
        again.on_trial_result(trial=heard.trial, result=result(heard, number))
    lines = (heard.folder.path / "epochs.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert [row.epoch for row in heard.folder.epochs()[heard.planned.id]] == [1, 2]


def test_a_knob_that_did_not_reach_the_trainer_fails_the_trial(heard):
    for number in (1, 2):
        told = result(heard, number, queue_size=1000)
        heard.recorder.on_trial_result(trial=heard.trial, result=told)
    heard.recorder.on_trial_complete(trial=heard.trial)
    (row,) = heard.folder.trials().values()
    assert row.status == "failed"
    assert row.error == "asked to run {'queue_size': 0}, but ran {'queue_size': 1000}"
    assert row.val_probe_top1 is None


def test_a_trial_that_ended_early_is_not_finished(heard):
    heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, 1))
    heard.recorder.on_trial_complete(trial=heard.trial)
    (row,) = heard.folder.trials().values()
    assert (row.status, row.error) == ("failed", "ended after epoch 1 of 2")


def test_what_a_trial_says_of_its_own_failure_is_recorded(heard):
    heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, 1))
    heard.recorder.on_trial_result(trial=heard.trial, result={"failed": "DivergedError: nan"})
    heard.recorder.on_trial_complete(trial=heard.trial)
    (row,) = heard.folder.trials().values()
    assert (row.status, row.error, row.epochs) == ("failed", "DivergedError: nan", 1)
    assert "failed" in heard.terminal.getvalue()


def test_a_trial_that_a_search_stopped_is_neither_finished_nor_failed(heard, monkeypatch):
    monkeypatch.setattr(heard.recorder._mirror.study.pruner, "prune", lambda *_: True)
    told = result(heard, 1)
    assert heard.recorder.stops(heard.planned.id, epoch(1))
    heard.recorder.on_trial_result(trial=heard.trial, result=told)
    heard.recorder.on_trial_complete(trial=heard.trial)
    (row,) = heard.folder.trials().values()
    assert (row.status, row.epochs, row.val_probe_top1, row.error) == ("stopped", 1, None, None)
    assert "after epoch 1 of 2" in heard.terminal.getvalue()


def test_tensorboard_has_every_epoch(heard):
    for number in (1, 2):
        heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, number))
    heard.recorder.on_trial_complete(trial=heard.trial)
    (file,) = (heard.folder.tensorboard / heard.planned.id).iterdir()
    assert file.read_bytes().count(b"val_probe_top1") == 2


def test_trackers_are_told_only_what_is_new_after_a_resume(heard):
    heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, 1))
    tracker = create_autospec(Tracker, instance=True)
    again = recorder_of(heard.study, heard.folder, heard.progress, tracker)
    again.begin(heard.planned)
    for number in (1, 2, 2):
        again.on_trial_result(trial=heard.trial, result=result(heard, number))
    again.on_trial_complete(trial=heard.trial)
    ((trial, row),) = (one.args for one in tracker.epoch.call_args_list)
    assert (trial, row.epoch) == (heard.planned, 2)
    ((trial, row),) = (one.args for one in tracker.end.call_args_list)
    assert (trial, row.status) == (heard.planned, "finished")


def test_a_budget_that_is_spent_is_said_once(heard):
    study = replace(heard.study, budget=BudgetTable(trials=1))
    recorder = recorder_of(study, heard.folder, heard.progress)
    assert not recorder.budget_reached()
    recorder.begin(heard.planned)
    assert recorder.budget_reached()
    assert recorder.budget_reached()
    assert heard.terminal.getvalue().count("budget reached: 1 of 1 trials") == 1


def test_a_budget_counts_no_trial_that_is_no_longer_planned(heard):
    heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, 1))
    heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, 2))
    heard.recorder.on_trial_complete(trial=heard.trial)
    changed = STUDY.replace("[0, 1000]", "[2000, 3000]") + "[budget]\ntrials = 1\n"
    study = parse_study(changed, "x.toml")
    recorder = recorder_of(study, heard.folder.keep(study), heard.progress)
    assert recorder.spent().trials == 0
    assert not recorder.budget_reached()


def test_a_crash_is_recorded_with_its_root_cause_in_a_line(heard):
    root = OSError("the disk is\nno more")
    wrapped = RuntimeError("a hundred lines of Ray")
    wrapped.cause = root
    heard.trial.error_file = None
    heard.trial.pickled_error_file = heard.folder.path / "error.pkl"
    heard.trial.pickled_error_file.write_bytes(pickle.dumps(wrapped))
    heard.recorder.on_trial_error(trial=heard.trial)
    (row,) = heard.folder.trials().values()
    assert (row.status, row.error) == ("failed", "OSError: no more")


def test_tune_may_pickle_it(heard):
    assert type(pickle.loads(pickle.dumps(heard.recorder))) is Callback


def test_the_living_line_counts_and_foresees(heard):
    line = str(heard.progress.__rich__())
    assert "0 of 2 trials finished" in line
    assert "starting" in line
    heard.recorder.on_trial_start(trial=heard.trial)
    heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, 1))
    line = str(heard.progress.__rich__())
    assert "1 running" in line
    assert "left" in line


def test_the_living_lines_fit_a_terminal_of_80_columns(heard):
    for number in (1, 2):
        heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, number))
    heard.recorder.on_trial_complete(trial=heard.trial)
    above, below = str(heard.progress.__rich__()).splitlines()
    assert len(above) < 80
    assert len(below) < 80
    assert "1 of 2 trials finished" in above
    assert "best so far (interim)" in below


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7_800, "2 h 10 min"),
    ],
)
def test_durations_read_well(seconds, shown):
    assert show_seconds(seconds) == shown


def test_without_room_the_study_stops_and_no_trial_has_failed(heard):
    heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, 1))
    with pytest.raises(RunFolderError, match="no room for 7 bytes"):
        stops = RunFolderError("no room for 7 bytes")
        heard.recorder.on_trial_result(trial=heard.trial, result={"stops": stops})
    assert heard.folder.trials() == {}
    assert len(heard.folder.epochs()[heard.planned.id]) == 1


def test_an_epoch_that_was_lost_is_recorded_when_it_is_told_again(heard):
    heard.folder.append_epoch(heard.planned.id, epoch(2, 0.5))
    recorder = recorder_of(heard.study, heard.folder, heard.progress)
    recorder.begin(heard.planned)
    for number in (1, 2):
        recorder.on_trial_result(trial=heard.trial, result=result(heard, number))
    recorder.on_trial_complete(trial=heard.trial)
    assert [row.epoch for row in heard.folder.epochs()[heard.planned.id]] == [1, 2]
    assert heard.folder.trials()[heard.planned.id].status == "finished"


def test_a_clock_that_is_set_changes_no_duration(heard, monkeypatch):
    class SetBack(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2001, 1, 1, tzinfo=tz)

    monkeypatch.setattr("nnclr_study.sweep.recorder.datetime", SetBack, raising=False)
    heard.recorder.on_trial_start(trial=heard.trial)
    for number in (1, 2):
        heard.recorder.on_trial_result(trial=heard.trial, result=result(heard, number))
    heard.recorder.on_trial_complete(trial=heard.trial)
    (row,) = heard.folder.trials().values()
    began = heard.folder.sessions()[-1].started_at
    assert began <= row.started_at <= row.ended_at
    assert 0 <= heard.recorder.spent().hours < 1
