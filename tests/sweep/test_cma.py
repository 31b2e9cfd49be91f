"""CMA-ES goes on from its state in the storage, and runs nothing that was put in its place."""

import os
import pickle

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages.journal import JournalFileBackend

from nnclr_study.errors import RunFolderError
from nnclr_study.sweep.cma import CmaEs

SPACE = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def study_of(storage, sampler):
    return optuna.create_study(
        study_name="hunt", storage=storage, sampler=sampler, load_if_exists=True
    )


def run(study, trials):
    """Return where a sphere was asked for its height."""
    asked = []
    for _ in range(trials):
        trial = study.ask(SPACE)
        asked.append((trial.params["x"], trial.params["y"]))
        study.tell(trial, sum((each - 0.3) ** 2 for each in asked[-1]))
    return asked


def test_it_asks_what_optuna_s_own_asks():
    ours, theirs = (
        run(study_of(optuna.storages.InMemoryStorage(), kind(seed=3)), 40)
        for kind in (CmaEs, optuna.samplers.CmaEsSampler)
    )
    assert ours == theirs
    assert sum((each - 0.3) ** 2 for each in ours[-1]) < 0.01, "it has learnt"


def test_it_goes_on_from_a_journal(tmp_path):
    def storage():
        return optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "journal")))

    run(study_of(storage(), CmaEs(seed=3)), 30)
    resumed = study_of(storage(), CmaEs(seed=33))
    kept = [t for t in resumed.trials if any("optimizer" in name for name in t.system_attrs)]
    assert kept, "the state is there"
    assert max((each - 0.3) ** 2 for pair in run(resumed, 10) for each in pair) < 0.1


@pytest.mark.parametrize(
    "state",
    [
        lambda path: pickle.dumps(Evil(path)),
        lambda path: pickle.dumps({"x": [Evil(path)]}),
        lambda path: pickle.dumps(7),
        lambda path: b"\x80\x04no pickle",
        lambda path: b"",
    ],
)
def test_what_is_no_state_is_refused_and_does_not_run(tmp_path, state):
    study = study_of(optuna.storages.InMemoryStorage(), CmaEs(seed=3))
    kept = {f"{CmaEs()._attr_key_optimizer}:0": state(tmp_path / "ran").hex()}
    point = {"params": {"x": 0.5, "y": 0.5}, "distributions": SPACE, "value": 0.5}
    study.add_trial(optuna.trial.create_trial(**point, system_attrs=kept))
    with pytest.raises(RunFolderError, match=r"no state of CMA-ES.*not loaded.*optuna\.journal"):
        run(study, 1)
    assert not (tmp_path / "ran").exists()
