"""Hyperparameter studies of NNCLR (arXiv 2104.14548) on Ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnclr_study.api import Run as Run
    from nnclr_study.api import build_report as build_report
    from nnclr_study.api import load_encoder as load_encoder
    from nnclr_study.api import load_study as load_study
    from nnclr_study.api import open_run as open_run
    from nnclr_study.api import plan as plan
    from nnclr_study.api import run as run

__version__ = "0.1.0"

__all__ = ["Run", "build_report", "load_encoder", "load_study", "open_run", "plan", "run"]


def __getattr__(name: str) -> Any:
    """Load the Python API when something of it is asked for, so that the import costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'nnclr_study' has no attribute {name!r}")
    from nnclr_study import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
