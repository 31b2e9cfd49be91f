"""CMA-ES as Optuna has it, whose state lies in the storage as a pickle: read with care here."""

import io
import pickle
from typing import Any

from cmaes import CMA
from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

from nnclr_study.errors import RunFolderError

PARTS = {
    ("cmaes._cma", "CMA"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
}
"""What a state is made of: numbers, and nothing that could run."""


class CmaEs(CmaEsSampler):
    """The sampler, for a storage that came with a run folder, or that others write to.

    Raises:
        RunFolderError: from asking for a trial, where the storage holds something else.
    """

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        for trial in reversed(completed_trials):
            attributes = trial.system_attrs.items()
            kept = {k: v for k, v in attributes if k.startswith(self._attr_key_optimizer)}
            if kept:
                return _state(self._concat_optimizer_attrs(kept))
        return None


def _state(text: str) -> CMA:
    try:
        state = _Unpickler(io.BytesIO(bytes.fromhex(text))).load()
        if not isinstance(state, CMA):
            raise ValueError(f"it is of {type(state).__name__}")
    except Exception as error:  # whatever bytes that are no pickle lead to
        raise RunFolderError(
            f"the Optuna storage holds no state of CMA-ES where one should be: {error}; it was "
            "not loaded. Somebody else has written there: delete optuna.journal in the run "
            "folder, which is made anew from its rows, or name another --optuna-storage"
        ) from None
    return state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PARTS:
            raise pickle.UnpicklingError(f"it would load {module}.{name}")
        return super().find_class(module, name)
