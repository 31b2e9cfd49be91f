"""The log of an internal error, for the user to attach to a report."""

import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from nnclr_study.study import provenance
from nnclr_study.study.provenance import masked

run_folder: Path | None = None
"""Where the command at work records, once that is known: the log goes there."""


def summary(error: BaseException) -> str:
    """Return the type of an error and the first line of its text, without passwords."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # the error's own code fails
        lines = []
    name = type(error).__name__
    return masked(f"{name}: {lines[0]}") if lines else name


def write_log(error: BaseException, argv: Sequence[str]) -> Path | None:
    """Write what is known of an error to a new file; return None where no folder takes it.

    The folders are tried in this order: the run folder, the one for temporary files, this one.
    """
    text = _log(error, argv)
    for folder in (run_folder, None, Path()):
        try:
            opened, path = tempfile.mkstemp(".log", "nnclr-study-error-", folder)
            with os.fdopen(opened, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return Path(path)
    return None


def _log(error: BaseException, argv: Sequence[str]) -> str:
    try:
        facts = _facts(argv)
    except Exception as failed:  # what broke the command may break this as well
        facts = [f"nothing else is known: {summary(failed)}"]
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join([*facts, "", *map(masked, lines), ""])


def _facts(argv: Sequence[str]) -> list[str]:
    versions = ", ".join(f"{name} {found}" for name, found in provenance.versions().items())
    return [
        f"time      {datetime.now(UTC).isoformat(timespec='seconds')}",
        f"command   {shlex.join(map(masked, ['nnclr-study', *argv]))}",
        f"folder    {Path.cwd()}",
        f"versions  {versions}",
        f"commit    {provenance.commit()}",
        f"machine   {provenance.machine()}, {platform.platform()}",
        f"python    {sys.executable}",
    ]
