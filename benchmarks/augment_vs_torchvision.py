"""Time for one view of each of 525 images: batched here, image by image in torchvision.

Run with: python benchmarks/augment_vs_torchvision.py

Last result, 2026-11-24: AMD EPYC with AVX-512 (2 cores of a virtual machine, 1 thread), torch
2.14.1, torchvision 0.29.1, Python 3.11.7; median of 7 rounds in alternation.

    recipe       side   batched   per sample   ratio
    brightness  32 px      9 ms        91 ms    9.9x
    brightness  96 px    116 ms       128 ms    1.1x
    simclr      32 px     30 ms       327 ms   11.0x
    simclr      96 px    392 ms       661 ms    1.7x

At 96 px the batched products, dense in a side of 96, cost a CPU nearly as much as torchvision's
calls: there the batch pays on a card only, which has not been measured here.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
import torchvision
from common import machine
from torch import Tensor
from torchvision.transforms import v2

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.augment import Recipe, apply, draw
from nnclr_study.trainer.runtime import settle
from nnclr_study.trainer.world import CPU


def shifted(most: float) -> v2.Lambda:
    """Return the Keras example's brightness: one number added to all pixels of an image."""
    return v2.Lambda(lambda image: (image + most * (2 * torch.rand(()) - 1)).clamp(0, 1))


def per_sample(recipe: Recipe, side: int) -> v2.Compose:
    """Return the same recipe as torchvision's users write it, the jitters in random order."""
    aspects = (1 / recipe.crop_max_aspect, recipe.crop_max_aspect)
    jitter = v2.ColorJitter(
        recipe.jitter_brightness,
        recipe.jitter_contrast,
        recipe.jitter_saturation,
        recipe.jitter_hue,
    )
    kernel = 2 * max(side // 20, 1) + 1
    blur = v2.GaussianBlur(kernel, (recipe.blur_min_sigma, recipe.blur_max_sigma))
    steps = [
        v2.RandomResizedCrop(side, (recipe.crop_min_area, 1), aspects, antialias=False),
        v2.RandomHorizontalFlip(recipe.flip_prob),
        v2.ToDtype(torch.float32, scale=True),
    ]
    if recipe.brightness_shift:
        steps.append(shifted(recipe.brightness_shift))
    if recipe.jitter_brightness:
        steps.append(v2.RandomApply([jitter], recipe.jitter_prob))
    if recipe.grey_prob:
        steps.append(v2.RandomGrayscale(recipe.grey_prob))
    if recipe.blur_prob:
        steps.append(v2.RandomApply([blur], recipe.blur_prob))
    return v2.Compose(steps)


def seconds(work: Callable[[], Tensor]) -> float:
    """Return how long one call takes."""
    started = perf_counter()
    work()
    return perf_counter() - started


def main() -> None:
    """Measure both in alternation and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=525, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both")
    args = parser.parse_args()
    settle(CPU, "float32", args.threads)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    print(
        f"{machine()}, torchvision {torchvision.__version__}; "
        f"{args.images} images, median of {args.rounds}"
    )
    print("recipe       side   batched   per sample   ratio")
    for name in ("brightness", "simclr"):
        recipe = Recipe.of(TrialConfig(aug_recipe=name))
        for side in (32, 96):
            shape = (args.images, 3, side, side)
            images = torch.randint(0, 256, shape, dtype=torch.uint8)
            transform = per_sample(recipe, side)

            def batched(images: Tensor = images, recipe: Recipe = recipe) -> Tensor:
                return apply(images, draw(recipe, len(images), generator))

            def one_by_one(images: Tensor = images, transform: v2.Compose = transform) -> Tensor:
                return torch.stack([transform(image) for image in images])

            batched(), one_by_one()  # warm
            rounds = [(seconds(batched), seconds(one_by_one)) for _ in range(args.rounds)]
            ours, theirs = (median(times) for times in zip(*rounds, strict=True))
            print(
                f"{name:<10} {side:>3} px  {ours * 1e3:>5.0f} ms  {theirs * 1e3:>8.0f} ms"
                f"   {theirs / ours:>4.1f}x"
            )


if __name__ == "__main__":
    main()
