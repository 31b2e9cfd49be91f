"""Trials: their ids say what they are and depend on nothing else."""

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import condition_label, plan_trials
from nnclr_study.study.spec import parse_study
from tests.study.test_spec import GOOD


def ids(text):
    return [trial.id for trial in plan_trials(parse_study(text, "x.toml"))]


def test_an_id_is_readable_and_the_same_everywhere():
    # Written down: with another id for the same trial a run folder would not know its own.
    assert ids(GOOD)[2] == "queue_size-40_temperature-0.1_s1_bc464f"


def test_a_seed_s_conditions_stand_together():
    seeds = [trial.config.seed for trial in plan_trials(parse_study(GOOD, "x.toml"))]
    assert seeds == [1] * 6 + [2] * 6


def test_an_id_follows_the_resolved_config_and_nothing_else():
    plain = ids(GOOD)
    assert len(set(plain)) == 12
    more = ids(GOOD.replace("[1, 2]", "[1, 2, 3]").replace("[0, 40, 100]", "[0, 40, 100, 200]"))
    assert set(plain) < set(more), "adding seeds and values leaves trials as they are"
    assert ids(GOOD.replace("[trial]", "[trial]\nwidth = 128")) == plain, "128 is the default"
    assert not set(ids(GOOD.replace("[trial]", "[trial]\nwidth = 64"))) & set(plain)
    assert ids(GOOD.replace('"good"', '"other"').replace("0.1, 1", "0.1, 1.0")) == plain, (
        "neither the study's name nor the spelling of a number counts"
    )


def test_the_projection_is_as_wide_as_the_encoder_unless_set():
    assert TrialConfig(width=64).projection_dim == 64
    assert TrialConfig(width=64, projection_dim=32).projection_dim == 32
    assert TrialConfig().projection_dim == 128


def test_a_condition_reads_as_a_person_would_write_it():
    assert condition_label({"queue_size": 98_304, "temperature": 0.1}) == (
        "queue_size 98,304, temperature 0.1"
    )
    assert condition_label({}) == "as set"
