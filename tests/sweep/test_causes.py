"""A study that ends before its time says what to mend, whatever Tune has wrapped around it."""

import errno
import os
import sqlite3
import traceback

import optuna
import pytest
from ray import exceptions as of_ray
from ray.tune import TuneError

from nnclr_study.errors import ClusterError, DataError, RunFolderError, chain
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep.causes import mendable
from nnclr_study.sweep.mirror import Mirror
from nnclr_study.sweep.trial import reason
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


def spoil(database):
    database.write_bytes(b"not a database" * 1_000)


def delete_study(database):
    optuna.delete_study(study_name="good", storage=f"sqlite:///{database}")


def end_trials(database):
    study = optuna.load_study(study_name="good", storage=f"sqlite:///{database}")
    for trial in study.get_trials():
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def hold(database):
    there = sqlite3.connect(database)
    there.execute("begin exclusive")
    hold.connections.append(there)  # type: ignore[attr-defined]


hold.connections = []  # type: ignore[attr-defined]


@pytest.mark.parametrize("harm", [spoil, delete_study, end_trials, hold])
def test_a_database_that_others_change_is_told(tmp_path, folder, harm):
    database = tmp_path / "optuna.db"
    mirror = Mirror(folder.study(), folder, f"sqlite:///{database}?timeout=0.1")
    first = plan_trials(folder.study())[0]
    mirror.begin(first)
    harm(database)
    found = mendable(wrapped(lambda: mirror.end(ended(first), epoch(1))))
    assert isinstance(found, ClusterError)
    assert "the Optuna storage cannot be used any more" in str(found)
    assert "the same command goes on" in str(found)
    assert "\n" not in str(found)
    for there in hold.connections:
        there.close()


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


@pytest.mark.parametrize(
    "error",
    [
        of_ray.NodeDiedError("its node is gone"),
        of_ray.RaySystemError("the system is gone\nand more"),
        of_ray.LocalRayletDiedError(),
        of_ray.RayActorError(),
        of_ray.RpcError("unavailable", rpc_code=14),
    ],
)
def test_what_dies_of_the_cluster_is_told_as_such(error):
    def work():
        raise error

    for found in (mendable(error), mendable(wrapped(work))):
        assert isinstance(found, ClusterError)
        assert str(found).startswith("a part of the Ray cluster died: ")
        assert "the same command goes on" in str(found)
        assert "\n" not in str(found)


def test_an_error_of_a_task_is_not_one_of_the_cluster():
    for cause, expected in ((KeyError("x"), type(None)), (DataError("no images"), DataError)):
        error = of_ray.RayTaskError("task", "its traceback", cause)
        assert isinstance(mendable(error), expected)
        assert isinstance(mendable(error.as_instanceof_cause()), expected)


def cycle(link, length):
    """Return the first of some errors, each of which names the next by `link`, the last the first.

    The last one names a further error as well, as its context.
    """
    errors = [ValueError(str(number)) for number in range(length)]
    for error, following in zip(errors, [*errors[1:], errors[0]], strict=True):
        setattr(error, link, following)
    return errors


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("link", ["cause", "__cause__", "__context__"])
def test_a_chain_of_errors_with_a_cycle_has_an_end(link, length):
    errors = cycle(link, length)
    assert list(chain(errors[0])) == errors
    assert mendable(errors[0]) is None
    assert reason(errors[0]).startswith("ValueError: ")
    beside = DataError("no images")
    setattr(errors[-1], "__context__" if link == "__cause__" else "__cause__", beside)
    assert mendable(errors[0]) is beside
    assert len(list(chain(errors[0]))) == length + 1


def test_what_ray_raises_where_its_dashboard_dies_is_walked_once():
    with pytest.raises(ConnectionError) as caught:
        try:
            raise ConnectionError("Failed to start the dashboard")
        except Exception as error:
            raise error from error
    assert caught.value.__cause__ is caught.value
    assert mendable(caught.value) is None


def test_the_members_of_a_group_are_walked_and_a_long_chain_is_too():
    group = ExceptionGroup("several", [KeyError("x"), DataError("no images")])
    group.exceptions[0].__cause__ = group
    assert str(mendable(group)) == "no images"
    first = error = ValueError()
    for _ in range(10_000):
        error.__cause__ = ValueError()
        error = error.__cause__
    error.__context__ = DataError("at its end")
    assert str(mendable(first)) == "at its end"


def test_a_cause_that_is_no_error_is_left_out():
    error = ValueError("x")
    error.cause, error.exceptions = "a text", 3
    assert list(chain(error)) == [error]
