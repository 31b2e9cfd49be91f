"""Whether files can be made in a folder, which may be missing yet: tried, and nothing is left."""

import errno
import fcntl
import tempfile
from pathlib import Path

SOME_BYTES = 1 << 16
"""What is written to see whether there is room."""


def nearest(path: Path) -> Path:
    """Return a folder, or the nearest one above it that is there.

    Raises:
        OSError: something else is there, or it cannot be known what is.
    """
    there = path.absolute()
    while True:
        try:
            there.stat()
        except (FileNotFoundError, NotADirectoryError):
            if there.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, "is a link to nothing", there) from None
            there = there.parent
        except ValueError as error:  # it holds a null character
            raise OSError(errno.EINVAL, str(error), there) from None
        else:
            break
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", there)
    return there


def try_writing(path: Path, lock: bool = False) -> Path:
    """Write a file where a folder is, or would be made, and return the place; the file is gone.

    Args:
        path: the folder.
        lock: whether the file has to be one that can be locked.

    Raises:
        OSError: no file can be made there; `filename` and `strerror` say where, and why not.
    """
    there = nearest(path)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(SOME_BYTES))
            file.flush()
            if lock:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", there) from None
    return there
