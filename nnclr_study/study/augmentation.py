"""What an augmentation recipe sets, and how its parts follow the one dial."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

RECIPES = {
    "brightness": {
        "crop_min_area": 0.2,
        "crop_max_aspect": 4 / 3,
        "brightness_shift": 0.5,
    },
    "simclr": {
        "crop_min_area": 0.2,
        "crop_max_aspect": 4 / 3,
        "jitter_brightness": 0.4,
        "jitter_contrast": 0.4,
        "jitter_saturation": 0.2,
        "jitter_hue": 0.1,
        "grey_prob": 0.2,
        "blur_prob": 0.5,
    },
}
"""Each recipe at strength 1; a part that it does not name is off.

brightness: the contrastive augmentation of the Keras example "Self-supervised contrastive
learning with NNCLR".

simclr: SimCLR's parts (arXiv:2002.05709, appendix A; `data_util.py` of google-research/simclr)
with the jitter that solo-learn gives NNCLR on CIFAR
(`scripts/pretrain/cifar/augmentations/asymmetric.yaml`, which is BYOL's, arXiv:2006.07733): half
of SimCLR's, and a quarter of its saturation. Both of them crop from 0.08 of the area; 0.2 is
MoCo v2's (`main_moco.py` of facebookresearch/moco) and the Keras example's, so that the two
recipes differ in their colours alone. Blur as in SimCLR on ImageNet; SimCLR on CIFAR and
solo-learn's file have none: `blur_prob = 0`.
"""

OFF = {
    "crop_min_area": 1.0,
    "crop_max_aspect": 1.0,
    "brightness_shift": 0.0,
    "jitter_brightness": 0.0,
    "jitter_contrast": 0.0,
    "jitter_saturation": 0.0,
    "jitter_hue": 0.0,
    "grey_prob": 0.0,
    "blur_prob": 0.0,
}
"""The value of each part that leaves an image as it is: what a recipe comes to at strength 0."""


def following(part: str) -> Callable[[dict[str, Any]], float]:
    """Return a part's default as it follows the knobs already known."""
    return lambda known: part_at(part, known["aug_recipe"], known["aug_strength"])


def part_at(part: str, recipe: str, strength: float) -> float:
    """Return a part of a recipe at a strength: off at 0, the recipe's own value at 1.

    In a straight line, beyond 1 too as far as a probability goes; the aspect, a ratio, as a
    power. A plug-in's recipe has no parts: all are off.
    """
    return _at(part, RECIPES.get(recipe, {}).get(part, OFF[part]), strength)


@lru_cache(maxsize=4_096)  # asked for each part of each of 100,000 trials
def _at(part: str, own: float, strength: float) -> float:
    off = OFF[part]
    value = own**strength if part == "crop_max_aspect" else off + strength * (own - off)
    if part.endswith("_prob"):
        value = min(value, 1.0)
    # Twelve digits: a trial's id must not hang on the last bit of a machine's power function.
    return round(value, 12)
