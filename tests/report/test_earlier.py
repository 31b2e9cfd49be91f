"""What earlier rows tell a study to come: pace and noise, and what its seeds resolve."""

from pathlib import Path

import numpy as np
import pytest

from nnclr_study.report.earlier import noise_of, paces_of
from nnclr_study.report.evidence import load_any
from nnclr_study.report.load import load
from nnclr_study.report.noise import PUBLISHED, resolution
from nnclr_study.study.forecast import Pace
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from tests.study.test_run_folder import epoch
from tests.study.test_search import SEARCH
from tests.study.test_spec import GOOD

ROOT = Path(__file__).parents[2]
FOUR = GOOD.replace("seeds = [1, 2]", "seeds = [1, 2, 3, 4]")


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_the_published_noise_is_that_of_the_published_rows(dataset):
    noise = PUBLISHED[dataset]
    tables = load_any(ROOT / noise.source)
    found = noise_of(tables)
    assert noise.seed_sd == pytest.approx(found.seed_sd, rel=5e-3)
    assert noise.correlation == pytest.approx(found.correlation, abs=1e-3)
    within = tables.trials.groupby("arm")["val_probe_top1"].var()
    assert found.seed_sd == pytest.approx(np.sqrt(within.mean())), "pooled over conditions"


def test_a_study_without_rows_takes_the_noise_of_its_data_set_or_of_cifar10():
    digits = parse_study(FOUR, "")
    assert resolution(digits).noise.source == "reports/quickstart"
    other = parse_study(FOUR.replace("digits", "folder:birds"), "")
    found = resolution(other)
    assert found.noise.source == "reports/cifar10_queue_size"
    assert found.difference == found.residual_sds * found.noise.residual_sd


def test_a_budget_that_cuts_seeds_resolves_less():
    trials = len(plan_trials(parse_study(FOUR, "")))
    whole, cut, few = (
        resolution(parse_study(f"{FOUR}[budget]\ntrials = {count}\n", ""))
        for count in (trials, trials - 1, trials // 2)
    )
    assert whole.difference < cut.difference
    assert few is None, "two whole seeds"


def test_a_search_compares_nothing():
    assert resolution(parse_study(SEARCH, "")) is None


def test_a_run_s_pace_is_that_of_its_epochs(tmp_path):
    study = parse_study(GOOD, "")
    folder = RunFolder.create(tmp_path / "good").keep(study)
    trial = plan_trials(study)[0]
    assert paces_of(load(folder)) == []
    for number in (1, 2):
        folder.append_epoch(trial.id, epoch(number))
    assert paces_of(load(folder)) == [Pace(1.0 / 200, 0.5, None)]
    folder.checkpoints.mkdir()
    folder.checkpoint(trial.id).write_bytes(b"12345")
    assert paces_of(load(folder)) == [Pace(1.0 / 200, 0.5, 5)]
    assert noise_of(load(folder)) is None, "nothing has finished"
