"""Knobs that are said to have no effect: two trials that differ in them alone are the same."""

import pytest

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.inert import JITTERS, inert_knobs, training_key
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.world import World

JITTERED = {"jitter_brightness": 0.4, "jitter_contrast": 0.4, "jitter_saturation": 0.2}
CASES = {
    "adam": ({}, {"optimizer_momentum": 0.0, "lars_trust": 0.1, "lars_clip": True}),
    "adamw": (
        {"optimizer": "adamw"},
        {"optimizer_momentum": 0.0, "lars_trust": 0.1, "lars_clip": True},
    ),
    "sgd": ({"optimizer": "sgd"}, {"lars_trust": 0.1, "lars_clip": True}),
    "no queue": (
        {"queue_size": 0, "encoder_momentum": 0.9},
        {"neighbours": 3, "pushed_views": 2, "neighbour_gradient": "stop"},
    ),
    "one layer": ({"projector_depth": 1}, {"projector_width": 17}),
    "one step": ({"steps_per_epoch": 1}, {"schedule": "cosine"}),
    "no augmentation": ({"aug_strength": 0.0}, {"aug_recipe": "simclr"}),
    "jitter never": ({"jitter_prob": 0.0}, {**JITTERED, "jitter_hue": 0.1}),
    "jitter of 0": ({}, {"jitter_prob": 0.3}),
    "no blur": ({}, {"blur_min_sigma": 0.5, "blur_max_sigma": 3.0}),
    "no solarisation": ({}, {"solarise_threshold": 0.1}),
}
"""What stands in both trials, and the values that the second one sets beside it."""
EFFECTIVE = {
    "optimizer_momentum": ({"optimizer": "sgd"}, 0.0),
    "lars_trust": ({"optimizer": "lars"}, 0.1),
    "lars_clip": ({"optimizer": "lars", "learning_rate": 1e-4}, True),
    "neighbours": ({}, 3),
    "pushed_views": ({}, 2),
    "neighbour_gradient": ({}, "stop"),
    "projector_width": ({}, 17),
    "schedule": ({}, "cosine"),
    "aug_recipe": ({}, "simclr"),
    "jitter_brightness": ({}, 0.4),
    "jitter_prob": (JITTERED, 0.3),
    "blur_min_sigma": ({"view2_blur_prob": 1.0}, 0.5),
    "solarise_threshold": ({"view2_solarise_prob": 1.0}, 0.1),
}
"""What a trial needs for a knob to have an effect, and another value of the knob."""


def config(**knobs):
    small = {"dataset": "digits", "epochs": 1, "steps_per_epoch": 2, "width": 8, "seed": 5}
    return TrialConfig(
        **(small | {"batch_size": 24, "labelled_batch_size": 8, "queue_size": 70} | knobs)
    )


@pytest.fixture(scope="module")
def rows_of(tmp_path_factory):
    digits = load_dataset(config(), tmp_path_factory.mktemp("data"))
    known = {}

    def rows(trial):
        if trial not in known:
            *_, last = train(trial, digits, World())
            (row,) = last.rows
            known[trial] = row.model_dump(exclude={"seconds", "train_seconds"})
        return known[trial]

    return rows


@pytest.mark.parametrize("case", CASES)
def test_a_knob_without_effect_changes_no_bit(rows_of, case):
    both, second = CASES[case]
    one, other = config(**both), config(**both | second)
    assert second.keys() <= inert_knobs(one).keys() | {"jitter_hue"}
    assert one.digest != other.digest
    assert training_key(one) == training_key(other)
    assert rows_of(one) == rows_of(other)


@pytest.mark.parametrize("knob", EFFECTIVE)
def test_elsewhere_the_same_knob_has_an_effect(rows_of, knob):
    both, value = EFFECTIVE[knob]
    one, other = config(**both), config(**both | {knob: value})
    assert knob not in inert_knobs(one)
    assert training_key(one) != training_key(other)
    assert rows_of(one) != rows_of(other)


def test_every_knob_without_effect_is_trained_here():
    tried = {knob for _, second in CASES.values() for knob in second}
    listed = {knob for both, _ in CASES.values() for knob in inert_knobs(config(**both))}
    assert listed == tried


def test_an_augmentation_is_told_by_its_parts():
    """A jitter that is never drawn, jitters of 0 and another recipe without them are one trial."""
    never = config(**JITTERED, jitter_prob=0.0)
    assert training_key(never) == training_key(config()) == training_key(config(jitter_prob=0.5))
    parts = {"crop_min_area": 0.3, "crop_max_aspect": 1.2, "brightness_shift": 0.1}
    assert training_key(config(**parts)) == training_key(config(**parts, aug_strength=0.5))
    assert training_key(config()) != training_key(config(aug_strength=0.5))
    assert all(knob in inert_knobs(never) for knob in JITTERS)


def test_a_plug_in_may_use_any_knob():
    assert inert_knobs(config(encoder="plugin:mine")) == {}
    keys = {training_key(config(encoder="plugin:mine", lars_trust=trust)) for trust in (0.1, 0.2)}
    assert len(keys) == 2
    mine = [config(aug_recipe="plugin:mine", aug_strength=strength) for strength in (0.0, 0.5, 1)]
    assert len({training_key(each) for each in mine}) == 3
    assert training_key(mine[0]) == training_key(config(aug_strength=0.0))


def test_two_ways_to_compute_a_step_are_one_value():
    assert training_key(config(temperature=0.1 + 0.2)) == training_key(config(temperature=0.3))
    assert training_key(config(temperature=0.3001)) != training_key(config(temperature=0.3))
