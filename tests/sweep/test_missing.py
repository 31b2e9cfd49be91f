"""Epoch rows that are missing come back from checkpoints, or are reported."""

from dataclasses import replace

import pytest
import torch

from nnclr_study.cli import main
from nnclr_study.errors import RunFolderWarning
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep.missing import restore_rows
from nnclr_study.sweep.store import Store
from nnclr_study.trainer import checkpoint
from nnclr_study.trainer.loop import Snapshot
from tests.study.test_run_folder import ended, epoch
from tests.study.test_spec import GOOD


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "good").keep(parse_study(GOOD, "good.toml"))


def save(folder, trial, epochs, **changes):
    rows = [epoch(number) for number in range(1, epochs + 1)]
    snapshot = Snapshot(trial.config, rows, {"encoder/x": torch.zeros(2)})
    checkpoint.save(replace(snapshot, **changes), folder.checkpoint(trial.id))


def end(folder, trial, epochs, status="finished"):
    folder.append_trial(ended(trial, status).model_copy(update={"epochs": epochs}))


@pytest.mark.parametrize("there", [[], [1], [4, 5], [1, 3, 5]])
@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_a_trial_that_ended_gets_its_rows_back(folder, there, status):
    trial = plan_trials(folder.study())[0]
    end(folder, trial, 5, status)
    save(folder, trial, 6)  # one more was trained before it was stopped
    for number in there:
        folder.append_epoch(trial.id, epoch(number))
    said = restore_rows(folder, folder.study())
    count = 5 - len(there)
    assert f"epochs.jsonl lacked {count} epoch row(s)" in said
    assert f"{count} of {trial.id}" in said
    assert folder.epochs() == {trial.id: [epoch(number) for number in range(1, 6)]}
    assert restore_rows(folder, folder.study()) is None


def test_rows_that_no_checkpoint_holds_are_reported_by_trial(folder):
    trials = plan_trials(folder.study())[:5]
    for trial in trials:
        end(folder, trial, 3)
        folder.append_epoch(trial.id, epoch(3))
    save(folder, trials[0], 2)
    with pytest.warns(RunFolderWarning) as said:
        restored = restore_rows(folder, folder.study())
    assert f"2 of {trials[0].id}" in restored
    text = str(said[0].message)
    assert "epochs.jsonl lacks 8 epoch row(s) of trials that ended" in text
    assert f"2 of {trials[1].id}" in text
    assert "and of 1 more" in text


@pytest.mark.parametrize("kind", ["torn", "of another config", "with a gap", "a link", "empty"])
def test_a_checkpoint_that_is_not_the_trial_s_gives_nothing(folder, tmp_path, kind):
    trial, other = plan_trials(folder.study())[:2]
    end(folder, trial, 2)
    save(folder, trial, 2)
    path = folder.checkpoint(trial.id)
    if kind == "torn":
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "of another config":
        save(folder, trial, 2, config=other.config)
    elif kind == "with a gap":
        save(folder, trial, 2, rows=[epoch(2), epoch(3)])
    elif kind == "a link":
        path.replace(tmp_path / "outside")
        path.symlink_to(tmp_path / "outside")
    else:
        path.write_bytes(b"")
    with pytest.warns(RunFolderWarning, match="lacks 2 epoch row"):
        assert restore_rows(folder, folder.study()) is None
    assert folder.epochs() == {}


def test_a_trial_that_is_to_go_on_gets_back_what_was_deleted(folder):
    first, second = plan_trials(folder.study())[:2]
    save(folder, first, 3)
    save(folder, second, 1)  # killed between its checkpoint and its row: it tells that itself
    assert f"3 of {first.id}" in restore_rows(folder, folder.study())
    assert folder.epochs() == {first.id: [epoch(1), epoch(2), epoch(3)]}


def test_checkpoints_in_an_object_store_are_looked_at(folder, tmp_path):
    trial = plan_trials(folder.study())[0]
    end(folder, trial, 2)
    save(folder, trial, 2)
    path, store = folder.checkpoint(trial.id), Store(f"file://{tmp_path}/there", "good")
    store.put(path, f"checkpoints/{path.name}")
    path.unlink()
    assert f"2 of {trial.id}" in restore_rows(folder, folder.study(), store)
    assert folder.epochs() == {trial.id: [epoch(1), epoch(2)]}


def test_the_command_restores_them_though_all_trials_have_ended(folder, tmp_path, capsys):
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    trials = plan_trials(folder.study())
    for trial in trials:
        end(folder, trial, 2)
        save(folder, trial, 2)
    for trial in trials[1:]:
        folder.append_epoch(trial.id, epoch(1))
        folder.append_epoch(trial.id, epoch(2))
    assert main(["run", str(file), "--storage", str(folder.path.parent)]) == 0
    said, complaint = capsys.readouterr()
    assert "epochs.jsonl lacked 2 epoch row(s), which are restored from checkpoints" in said
    assert complaint == ""
    assert folder.epochs() == {trial.id: [epoch(1), epoch(2)] for trial in trials}
