"""Knobs without effect: which ones change nothing that a trial trains, and what follows from that.

Only what holds for every data set and machine is listed: `tests/trainer/test_inert.py` trains each
of these pairs and compares them bit for bit.
"""

import json
from collections.abc import Callable

from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plugins import is_plugin

JITTERS = ("jitter_brightness", "jitter_contrast", "jitter_saturation", "jitter_hue")
_RULES: list[tuple[tuple[str, ...], Callable[[TrialConfig], bool], str]] = [
    (
        ("optimizer_momentum",),
        lambda config: config.optimizer not in ("sgd", "lars"),
        "optimizer = {0.optimizer}",
    ),
    (
        ("lars_trust", "lars_clip"),
        lambda config: config.optimizer != "lars",
        "optimizer = {0.optimizer}",
    ),
    (
        ("neighbours", "pushed_views", "neighbour_gradient"),
        lambda config: config.queue_size == 0,
        "queue_size = 0",
    ),
    (
        ("projector_width",),
        lambda config: config.projector_depth == 1,
        "projector_depth = 1",
    ),
    (
        ("schedule",),
        lambda config: (config.epochs - config.warmup_epochs) * config.steps_per_epoch == 1,
        "a single step after the warm-up",
    ),
    (
        ("aug_recipe",),
        lambda config: config.aug_strength == 0,
        "aug_strength = 0",
    ),
    (JITTERS, lambda config: config.jitter_prob == 0, "jitter_prob = 0"),
    (
        ("jitter_prob",),
        lambda config: not any(getattr(config, knob) for knob in JITTERS),
        "all four jitters = 0",
    ),
    (
        ("blur_min_sigma", "blur_max_sigma"),
        lambda config: config.blur_prob == config.view2_blur_prob == 0,
        "blur_prob = 0 in both views",
    ),
    (
        ("solarise_threshold",),
        lambda config: config.solarise_prob == config.view2_solarise_prob == 0,
        "solarise_prob = 0 in both views",
    ),
]
"""Knobs, the configs in which they have no effect, and the setting that is the reason."""


def inert_knobs(config: TrialConfig) -> dict[str, str]:
    """Return the knobs that change nothing about a trial, each with the setting that causes it.

    There are none beside the encoder of a plug-in, which may use any knob.
    """
    if is_plugin(config.encoder):
        return {}
    return {
        knob: reason.format(config)
        for knobs, applies, reason in _RULES
        if applies(config)
        for knob in knobs
    }


def training_key(config: TrialConfig) -> str:
    """Return a text that two configs share if they train the same trial, bit for bit.

    Unlike the digest it ignores knobs without effect, and the last digits of a float, which may
    differ between two ways to compute the same step of a range.
    """
    ignored = set(inert_knobs(config))
    if not is_plugin(config.encoder) and not (
        is_plugin(config.aug_recipe) and config.aug_strength
    ):
        ignored |= {"aug_recipe", "aug_strength"}  # the config holds every part that they set
    knobs = {
        knob: float(f"{value:.12g}") if isinstance(value, float) else value
        for knob, value in config.model_dump().items()
        # What is off is left out too: jitter_prob = 0 trains the same as four jitters of 0.
        if knob not in ignored and value
    }
    return json.dumps(knobs, sort_keys=True)
