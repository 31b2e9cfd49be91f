"""A study that ends before its time says what to mend, whatever Tune has wrapped around it."""

import errno
import os
import sqlite3
import traceback

import pytest
from ray.tune import TuneError

from nnclr_study.errors import ClusterError, DataError, RunFolderError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep.causes import mendable
from nnclr_study.sweep.mirror import Mirror
from tests.study.test_run_folder import ended, epoch
from tests.study.test_spec import GOOD


def wrapped(work):
    """Return what Tune raises where a callback fails."""
    try:
        try:
            work()
        except Exception:
            raise TuneError(traceback.format_exc())  # noqa: B904, as Tune does
    except TuneError as error:
        return error
    return None


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "good").keep(parse_study(GOOD, "good.toml"))


@pytest.mark.parametrize("call", ["begin", "epoch", "end"])
def test_a_database_that_is_gone_is_told_and_the_study_can_go_on(tmp_path, folder, call):
    database = tmp_path / "optuna.db"
    mirror = Mirror(folder.study(), folder, f"sqlite:///{database}")
    first, second = plan_trials(folder.study())[:2]
    mirror.begin(first)
    with sqlite3.connect(database) as there:
        for name in ("studies", "trials", "trial_user_attributes", "trial_intermediate_values"):
            there.execute(f"drop table {name}")
    work = {
        "begin": lambda: mirror.begin(second),
        "epoch": lambda: mirror.epoch(first.id, epoch(1)),
        "end": lambda: mirror.end(ended(first), epoch(1)),
    }
    found = mendable(wrapped(work[call]))
    assert isinstance(found, ClusterError)
    assert "no such table" in str(found)
    assert "the same command goes on" in str(found)
    assert "--optuna-storage" in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_no_more_is_told_with_its_file(folder, monkeypatch, code):
    def fails(*_):
        raise OSError(code, os.strerror(code), str(folder.optuna))

    mirror = Mirror(folder.study(), folder)
    monkeypatch.setattr("os.fsync", fails)
    found = mendable(wrapped(lambda: mirror.begin(plan_trials(folder.study())[0])))
    assert isinstance(found, RunFolderError)
    assert str(found).startswith(f"{folder.optuna} cannot be written: {os.strerror(code)}; ")


def test_what_a_user_can_mend_is_found_however_deep():
    def work():
        try:
            raise DataError("no images")
        except DataError as error:
            raise RuntimeError("of Ray") from error

    assert str(mendable(wrapped(lambda: (_ for _ in ()).throw(wrapped(work))))) == "no images"


def test_an_error_of_the_program_s_own_stays_one():
    for error in (KeyError("x"), FileNotFoundError(2, "No such file"), ValueError()):

        def work(error=error):
            raise error

        assert mendable(wrapped(work)) is None
