"""The lock of a run folder, whatever somebody does to its files while a run is at work."""

import errno
import fcntl
import os
import shutil
import stat

import pytest

from nnclr_study.cli import main
from nnclr_study.errors import RunFolderError, RunFolderWarning
from nnclr_study.study import lock as module
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.study.test_run_folder import ended, epoch, session
from tests.study.test_spec import GOOD


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ASKING_SECONDS", 0.02)
    return RunFolder.create(tmp_path / "runs" / "good").keep(parse_study(GOOD, "good.toml"))


def another(folder):
    """Return whether another run would get in."""
    try:
        with RunFolder(folder.path).lock():
            return True
    except RunFolderError as error:
        assert "in use by" in str(error)
        return False


@pytest.fixture
def no_folder_locks(monkeypatch):
    """Give folders the flock of NFS: none."""
    usual = fcntl.flock

    def flock(descriptor, operation):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        usual(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", flock)


def test_a_deleted_lock_lets_nobody_in(folder):
    with folder.lock():
        for _ in range(3):
            (folder.path / "lock").unlink(missing_ok=True)
            assert folder.is_running()
            assert not another(folder)
        folder.append_epoch("a", epoch(1))
        assert f"process {os.getpid()}" in (folder.path / "lock").read_text()
    assert not folder.is_running()
    assert another(folder)


def test_where_folders_cannot_be_locked_the_file_is_made_again(folder, no_folder_locks):
    with folder.lock():
        assert not another(folder)
        (folder.path / "lock").unlink()
        folder.append_epoch("a", epoch(1))
        assert not another(folder)
        assert folder.is_running()
    assert another(folder)


def test_a_run_stops_where_another_took_the_lock_that_was_deleted(folder, no_folder_locks):
    with pytest.raises(RunFolderError, match="in use by `run`, process"), folder.lock():
        (folder.path / "lock").unlink()
        with RunFolder(folder.path).lock():
            folder.append_epoch("a", epoch(1))
    assert folder.epochs() == {}


def test_a_version_that_locks_the_file_alone_is_kept_out_and_keeps_out(folder):
    with (folder.path / "lock").open("a+") as older:
        fcntl.flock(older, fcntl.LOCK_EX)
        older.write("`run`, process 12 on old")
        older.flush()
        assert folder.is_running()
        with pytest.raises(RunFolderError, match="`run`, process 12 on old"), folder.lock():
            pass
    with (
        folder.lock(),
        (folder.path / "lock").open("a+") as older,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_deleted_as_it_was_taken_is_taken_again(folder, monkeypatch):
    usual, deleted = fcntl.flock, []

    def flock(descriptor, operation):
        usual(descriptor, operation)
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode) and not deleted:
            (folder.path / "lock").unlink()
            deleted.append(True)

    monkeypatch.setattr("fcntl.flock", flock)
    with folder.lock():
        assert (folder.path / "lock").read_text().startswith("`run`, process")
    assert deleted


@pytest.mark.parametrize("what", ["moved", "deleted", "replaced"])
def test_a_folder_that_is_gone_is_reported_in_a_line(folder, what):
    said = "good was moved or deleted while `run` was at work on it"
    with pytest.raises(RunFolderError, match=said) as caught, folder.lock():
        folder.append_epoch("a", epoch(1))
        if what == "deleted":
            shutil.rmtree(folder.path)
        else:
            folder.path.rename(folder.path.with_name("other"))
        if what == "replaced":
            RunFolder.create(folder.path)
        folder.append_epoch("a", epoch(2))
    assert caught.value.exit_code == 2
    assert not (folder.path / "epochs.jsonl").exists()
    if what == "moved":
        assert RunFolder(folder.path.with_name("other")).epochs() == {"a": [epoch(1)]}


def test_whatever_a_missing_folder_leads_to_is_reported_as_that(folder):
    with pytest.raises(RunFolderError, match="was moved or deleted"), folder.lock():
        shutil.rmtree(folder.path)
        raise FileNotFoundError(2, "No such file or directory")
    with pytest.raises(KeyError), RunFolder.create(folder.path).lock():
        raise KeyError("of the program")


def test_a_copy_of_a_running_folder_is_not_locked(folder):
    with folder.lock():
        shutil.copytree(folder.path, folder.path.with_name("copy"))
        copy = RunFolder.open(folder.path.with_name("copy"))
        assert not copy.is_running()
        assert another(copy)


def test_a_folder_that_moves_takes_its_lock_along(folder):
    moved = folder.path.with_name("moved")
    with folder.lock():
        folder.path.rename(moved)
        assert RunFolder(moved).is_running()
        assert not another(RunFolder(moved))


ROWS = ["suggestions", "sessions", "epochs", "trials", "evaluations"]


@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied", "replaced by one line"])
def test_rows_that_are_deleted_while_a_run_works_are_written_again(folder, damage):
    trials = plan_trials(folder.study())
    folder.append_epoch("old", epoch(1))
    folder.append_trial(ended(trials[0]))
    path = {name: folder.path / f"{name}.jsonl" for name in ROWS}
    with folder.lock():
        folder.append_epoch("a", epoch(1))
        whole = {name: path[name].read_bytes() for name in ("epochs", "trials")}
        for name, text in whole.items():
            if damage == "deleted":
                path[name].unlink()
            else:
                left = {"cut": text[:-20], "emptied": b"", "replaced by one line": b"{}\n"}
                path[name].write_bytes(left[damage])
        with pytest.warns(RunFolderWarning, match=r"epochs\.jsonl was deleted or cut"):
            folder.append_epoch("a", epoch(2))
        with pytest.warns(RunFolderWarning, match=r"trials\.jsonl was deleted or cut"):
            folder.mend()
    if damage == "replaced by one line":
        for name in whole:
            path[name].write_bytes(path[name].read_bytes().replace(b"{}\n", b""))
    assert path["trials"].read_bytes() == whole["trials"]
    assert folder.epochs() == {"old": [epoch(1)], "a": [epoch(1), epoch(2)]}
    assert path["epochs"].read_bytes().startswith(whole["epochs"])


@pytest.mark.parametrize("name", ROWS)
def test_what_is_deleted_after_the_last_row_is_there_in_the_end(folder, name):
    path = folder.path / f"{name}.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.warns(RunFolderWarning, match="2 row"), folder.lock():
        path.unlink()
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n'


def test_a_study_file_that_is_deleted_is_there_in_the_end(folder):
    with folder.lock():
        folder.keep(folder.study())
        folder.study_file.unlink()
    assert folder.study().text == GOOD


def test_a_file_system_that_makes_inode_numbers_up_can_hold_runs(folder, monkeypatch):
    monkeypatch.setattr("os.path.samestat", lambda *_: False)
    with folder.lock():
        folder.append_epoch("a", epoch(1))
        assert not another(folder)
    assert folder.epochs() == {"a": [epoch(1)]}


def test_rows_that_another_program_adds_stay(folder, recwarn):
    with folder.lock():
        folder.append_epoch("a", epoch(1))
        RunFolder(folder.path).append_epoch("b", epoch(1))
        with (folder.path / "epochs.jsonl").open("a") as file:
            file.write("torn")
        folder.append_epoch("a", epoch(2))
        (folder.path / "epochs.jsonl").unlink()
    assert folder.epochs() == {"a": [epoch(1), epoch(2)], "b": [epoch(1)]}
    assert len(recwarn) == 1


def test_a_session_s_number_is_new_where_the_sessions_were_deleted(folder):
    trial = plan_trials(folder.study())[0]
    folder.append_trial(ended(trial).model_copy(update={"session": 4}))
    assert folder.append_session(session()) == 5
    assert [call.number for call in folder.sessions()] == [5]


def test_the_command_ends_with_2_where_its_folder_is_deleted(
    folder, tmp_path, capsys, monkeypatch
):
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    for trial in plan_trials(folder.study()):
        folder.append_trial(ended(trial))

    def report(path, **_):
        shutil.rmtree(path)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("nnclr_study.report.page.build_report", report)
    assert main(["run", str(file), "--storage", str(folder.path.parent)]) == 2
    said = capsys.readouterr().err
    assert "was moved or deleted while `run` was at work on it" in said
