"""What a user can mend, beneath what is raised when a study ends before its time."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from optuna.exceptions import StorageInternalError
from ray.exceptions import RayError, RayTaskError

from nnclr_study.errors import ClusterError, RunFolderError, StudyError, chain, lines_of
from nnclr_study.study.provenance import masked

NO_STORAGE = {errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EROFS}
GOES_ON = "what was recorded before is kept, and the same command goes on"


@contextmanager
def told() -> Iterator[None]:
    """Raise what a user can mend as itself, whatever Tune and Optuna have wrapped it in."""
    try:
        yield
    except Exception as error:
        cause = mendable(error)
        if cause is None or cause is error:
            raise
        raise cause from None


def mendable(error: BaseException) -> StudyError | None:
    """Return the error that a user can mend, or None: it is one of the program's."""
    for cause in chain(error):
        if isinstance(cause, StudyError):
            return cause
        # Optuna wraps what goes wrong as it writes, and not as it reads.
        if isinstance(cause, StorageInternalError) or _of_storage(cause):
            return ClusterError(
                f"the Optuna storage cannot be used any more: {_line(cause.__cause__ or cause)}; "
                f"{GOES_ON}: see to the database, or name another with --optuna-storage"
            )
        # A task's error is one of what ran there, and all others are of the cluster.
        if isinstance(cause, RayError) and not isinstance(cause, RayTaskError):
            return ClusterError(f"a part of the Ray cluster died: {_line(cause)}; {GOES_ON}")
        if isinstance(cause, OSError) and cause.errno in NO_STORAGE:
            return RunFolderError(
                f"{cause.filename or 'the run folder'} cannot be written: {cause.strerror}; "
                f"{GOES_ON}: make room, or the folder writable"
            )
    return None


def _of_storage(error: BaseException) -> bool:
    """Tell whether an Optuna storage raised an error: a damaged one raises any kind."""
    raised_in = {frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)}
    return type(error).__module__.partition(".")[0] == "sqlalchemy" or any(
        name.startswith(("optuna.storages", "optuna.study._tell")) for name in raised_in
    )


def _line(error: BaseException) -> str:
    return masked(lines_of(error)[0])
