"""Batched views against torchvision's, image by image."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from nnclr_study.trainer.augment import PROBE_RECIPE, Draw, Recipe, apply, draw

SIDE = 24


def images(count):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def random(count):
    return torch.Generator().manual_seed(count)


def test_whole_pixel_crops_are_torchvision_s():
    boxes = [(0, 0, 24, 24), (3, 5, 10, 7), (14, 0, 10, 24), (23, 23, 1, 1), (0, 9, 24, 3)]
    flips, shifts = [0, 1, 1, 0, 1], [0.0, 0.2, -0.3, 0.5, -0.5]
    box = torch.tensor(boxes) / SIDE
    view = Draw(torch.tensor(flips) > 0, *box.T, shift_B=torch.tensor(shifts))
    batch = images(len(boxes))
    ours = apply(batch, view)
    for i, (top, left, height, width) in enumerate(boxes):
        theirs = batch[i].float() / 255
        theirs = tv.resized_crop(
            theirs, top, left, height, width, [SIDE, SIDE], InterpolationMode.BILINEAR
        )
        theirs = tv.horizontal_flip(theirs) if flips[i] else theirs
        theirs = (theirs + shifts[i]).clamp(0, 1)
        assert torch.allclose(ours[i], theirs, atol=1e-6), f"box {i}"


def test_strength_0_leaves_the_flip_and_nothing_else():
    batch = images(64)
    view = draw(Recipe.of_strength(0), 64, random(64))
    assert 16 < view.flip_B.sum() < 48
    want = torch.where(view.flip_B[:, None, None, None], batch.flip(-1), batch).float() / 255
    assert torch.allclose(apply(batch, view), want, atol=1e-6)


def test_strength_1_is_the_keras_example_s():
    assert Recipe.of_strength(1) == pytest.approx(Recipe(0.2, 4 / 3, 0.5))
    assert Recipe(0.5, 4 / 3, 0.2) == PROBE_RECIPE


@pytest.mark.parametrize("strength", [0.3, 1, 1.2])
def test_draws_stay_within_the_recipe_and_fill_it(strength):
    recipe = Recipe.of_strength(strength)
    view = draw(recipe, 20_000, random(1))
    area, aspect = view.height_B * view.width_B, view.width_B / view.height_B
    whole = (view.height_B == 1) | (view.width_B == 1)  # cut to the image: another area, aspect
    assert area.min() >= recipe.min_crop_area * 0.7
    assert area[~whole].min() == pytest.approx(recipe.min_crop_area, abs=0.02)
    assert aspect[~whole].max() == pytest.approx(recipe.max_aspect, abs=0.01)
    assert aspect[~whole].min() == pytest.approx(1 / recipe.max_aspect, abs=0.01)
    assert view.shift_B.abs().max() == pytest.approx(recipe.brightness, abs=0.01)
    assert abs(view.shift_B.mean()) < 0.02
    for start, length in ((view.top_B, view.height_B), (view.left_B, view.width_B)):
        assert start.min() >= 0
        assert (start + length).max() <= 1 + 1e-6


def test_views_are_images_and_differ_from_each_other():
    batch = images(8)
    generator = random(2)
    view1, view2 = (apply(batch, draw(Recipe.of_strength(1), 8, generator)) for _ in range(2))
    for view in (view1, view2):
        assert view.shape == batch.shape
        assert view.min() >= 0
        assert view.max() <= 1
    assert (view1 - view2).abs().mean() > 0.05


def test_an_image_s_view_does_not_depend_on_who_computes_it():
    batch, view = images(10), draw(Recipe.of_strength(1), 10, random(3))
    parts = [apply(batch[rows], view.rows(rows)) for rows in (slice(0, 3), slice(3, 10))]
    assert torch.equal(torch.cat(parts), apply(batch, view))
