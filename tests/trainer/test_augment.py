"""Batched views against torchvision's, image by image."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import augment, loop
from nnclr_study.trainer.augment import PROBE_RECIPE, Draw, Recipe, apply, draw
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.world import World
from tests.trainer.test_loop import config

SIDE = 24


def images(count, side=SIDE):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def of_strength(strength, recipe="brightness"):
    return Recipe.of(TrialConfig(aug_recipe=recipe, aug_strength=strength))


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


def whole(count, **parts):
    """Return the draw of whole images, not flipped, with the given parts."""
    nought, one = torch.zeros(count), torch.ones(count)
    return Draw(nought > 0, nought, nought, one, one, **parts)


FACTORS = torch.tensor([1.0, 0.0, 0.4, 1.3, 2.0, 0.97])
TURNS = torch.tensor([0.0, 0.5, -0.5, 0.1, -0.07, 0.333])
SIGMAS = torch.tensor([0.1, 2.0, 0.4, 1.0, 0.9, 1.7])
LEVELS = torch.tensor([0.5, 0.0, 1.0, 128 / 255, 0.2, 0.9])


def blurred(image, sigma):
    size = 2 * max(image.shape[-1] // 20, 1) + 1
    return tv.gaussian_blur(image, [size, size], [sigma, sigma])


@pytest.mark.parametrize(
    "field, values, theirs",
    [
        ("brightness_B", FACTORS, tv.adjust_brightness),
        ("contrast_B", FACTORS, tv.adjust_contrast),
        ("saturation_B", FACTORS, tv.adjust_saturation),
        ("hue_B", TURNS, tv.adjust_hue),
        (
            "grey_B",
            FACTORS > 1,
            lambda image, lost: tv.rgb_to_grayscale(image, 3) if lost else image,
        ),
        ("sigma_B", SIGMAS, blurred),
        ("solarise_B", LEVELS, tv.solarize),
    ],
)
@pytest.mark.parametrize("side", [24, 32, 96])
def test_every_part_is_torchvision_s(field, values, theirs, side):
    batch = images(len(values), side)
    batch[3] = batch[3, :1]  # without colour
    batch[4] //= 64  # nearly black, few levels
    batch[5] |= 0xF0  # nearly white
    ours = apply(batch, whole(len(values), **{field: values}))
    for i, value in enumerate(values.tolist()):
        want = theirs(batch[i].float() / 255, value)
        assert torch.allclose(ours[i], want, atol=1e-5), f"{field} {value}"


@pytest.mark.parametrize(
    "field, value",
    [
        ("brightness_B", 1.0),
        ("contrast_B", 1.0),
        ("saturation_B", 1.0),
        ("hue_B", 0.0),
        ("grey_B", False),
        ("sigma_B", 0.0),
        ("solarise_B", torch.inf),
    ],
)
def test_an_image_that_a_part_passes_by_stays_as_it_is(field, value):
    batch = images(5)
    same = apply(batch, whole(5, **{field: torch.tensor([value] * 5)}))
    assert torch.allclose(same, apply(batch, whole(5)), atol=2e-6)


def test_all_parts_together_are_torchvision_s_in_the_order_said():
    count = 40
    everything = TrialConfig(
        aug_recipe="simclr", brightness_shift=0.2, solarise_prob=0.4, crop_min_area=1.0
    )
    view = draw(Recipe.of(everything)._replace(crop_max_aspect=1.0), count, random(9))
    batch = images(count)
    ours = apply(batch, view)
    for i in range(count):
        one = [None if values is None else values[i].item() for values in view]
        flip, _, _, _, _, shift, brightness, contrast, saturation, hue, grey, sigma, level = one
        want = batch[i].float() / 255
        want = tv.horizontal_flip(want) if flip else want
        want = (want + shift).clamp(0, 1)
        want = tv.adjust_contrast(tv.adjust_brightness(want, brightness), contrast)
        want = tv.adjust_hue(tv.adjust_saturation(want, saturation), hue)
        want = tv.rgb_to_grayscale(want, 3) if grey else want
        want = blurred(want, sigma) if sigma else want
        near = (want - level).abs() < 2e-5  # rounding may carry it over the threshold
        want = tv.solarize(want, level) if level <= 1 else want
        assert (near | ((ours[i] - want).abs() < 2e-5)).all(), f"image {i}"


def test_strength_0_leaves_the_flip_and_nothing_else():
    batch = images(64)
    view = draw(of_strength(0), 64, random(64))
    assert 16 < view.flip_B.sum() < 48
    want = torch.where(view.flip_B[:, None, None, None], batch.flip(-1), batch).float() / 255
    assert torch.allclose(apply(batch, view), want, atol=1e-6)


def test_strength_0_is_the_same_in_every_recipe():
    assert of_strength(0, "simclr") == of_strength(0, "brightness")


def test_strength_1_is_the_keras_example_s():
    assert of_strength(1) == pytest.approx(Recipe(0.2, 4 / 3, 0.5))
    assert Recipe(0.5, 4 / 3, 0.2) == PROBE_RECIPE


@pytest.mark.parametrize("strength", [0.3, 1, 1.2])
def test_draws_stay_within_the_recipe_and_fill_it(strength):
    recipe = of_strength(strength)
    view = draw(recipe, 20_000, random(1))
    area, aspect = view.height_B * view.width_B, view.width_B / view.height_B
    whole = (view.height_B == 1) | (view.width_B == 1)  # cut to the image: another area, aspect
    assert area.min() >= recipe.crop_min_area * 0.7
    assert area[~whole].min() == pytest.approx(recipe.crop_min_area, abs=0.02)
    assert aspect[~whole].max() == pytest.approx(recipe.crop_max_aspect, abs=0.01)
    assert aspect[~whole].min() == pytest.approx(1 / recipe.crop_max_aspect, abs=0.01)
    assert view.shift_B.abs().max() == pytest.approx(recipe.brightness_shift, abs=0.01)
    assert abs(view.shift_B.mean()) < 0.02
    for start, length in ((view.top_B, view.height_B), (view.left_B, view.width_B)):
        assert start.min() >= 0
        assert (start + length).max() <= 1 + 1e-6


def test_views_are_images_and_differ_from_each_other():
    batch = images(8)
    generator = random(2)
    view1, view2 = (apply(batch, draw(of_strength(1), 8, generator)) for _ in range(2))
    for view in (view1, view2):
        assert view.shape == batch.shape
        assert view.min() >= 0
        assert view.max() <= 1
    assert (view1 - view2).abs().mean() > 0.05


@pytest.mark.parametrize(
    "recipe",
    [of_strength(1), of_strength(1.2, "simclr")._replace(solarise_prob=0.5)],
)
def test_an_image_s_view_does_not_depend_on_who_computes_it(recipe):
    batch, view = images(10), draw(recipe, 10, random(3))
    parts = [apply(batch[rows], view.rows(rows)) for rows in (slice(0, 3), slice(3, 10))]
    assert torch.equal(torch.cat(parts), apply(batch, view))


def test_every_recipe_takes_fifteen_numbers_an_image():
    for recipe in (PROBE_RECIPE, of_strength(1, "simclr")):
        ours, theirs = random(4), random(4)
        view = draw(recipe, 50, ours)
        uniform = torch.rand(15, 50, generator=theirs)
        assert torch.equal(ours.get_state(), theirs.get_state())
        assert torch.equal(view.flip_B, uniform[0] < 0.5), "rows are reproducible: order matters"
        if recipe.brightness_shift:
            assert torch.equal(view.shift_B, 0.2 * (2 * uniform[5] - 1))


def test_the_second_view_may_be_blurred_and_solarised_by_itself():
    for knobs in ({}, {"aug_recipe": "simclr"}, {"blur_prob": 0.3, "solarise_prob": 0.1}):
        first, second = Recipe.of_both_views(TrialConfig(**knobs))
        assert first == second == Recipe.of(TrialConfig(**knobs))
    asked = {"view2_blur_prob": 0.1, "view2_solarise_prob": 0.2}
    first, second = Recipe.of_both_views(TrialConfig(blur_prob=1.0, **asked))
    assert (first.blur_prob, first.solarise_prob) == (1.0, 0.0)
    assert (second.blur_prob, second.solarise_prob) == (0.1, 0.2)
    assert second._replace(blur_prob=1.0, solarise_prob=0.0) == first


PARTS = [
    "_scale_brightness",
    "_scale_contrast",
    "_scale_saturation",
    "_turn_hue",
    "_lose_colour",
    "_blur",
    "_solarise",
]


@pytest.mark.parametrize(
    "knobs, used",
    [
        ({}, set()),
        ({"jitter_prob": 1.0}, set()),
        ({"aug_recipe": "simclr", "aug_strength": 0.0}, set()),
        ({"aug_recipe": "simclr", "jitter_prob": 0.0}, {"_lose_colour", "_blur"}),
        ({"aug_recipe": "simclr"}, set(PARTS) - {"_solarise"}),
        ({"aug_recipe": "simclr", "blur_prob": 0.0}, set(PARTS) - {"_solarise", "_blur"}),
        ({"jitter_hue": 0.1}, {"_turn_hue"}),
        ({"solarise_prob": 0.2}, {"_solarise"}),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_a_part_that_is_off_costs_nothing(knobs, used, monkeypatch):
    called = set()

    def watch(name, part):
        def watched(batch, values, **options):
            called.add(name)
            return part(batch, values, **options)

        monkeypatch.setattr(augment, name, watched)

    for name in PARTS:
        watch(name, getattr(augment, name))
    apply(images(4), draw(Recipe.of(TrialConfig(**knobs)), 4, random(1)))
    assert called == used


def test_parts_are_as_frequent_as_their_probability():
    trial = TrialConfig(
        flip_prob=0.3,
        jitter_prob=0.7,
        jitter_contrast=0.4,
        jitter_hue=0.1,
        grey_prob=0.15,
        blur_prob=0.6,
        solarise_prob=0.25,
    )
    view = draw(Recipe.of(trial), 40_000, random(5))
    frequency = {
        "flip": view.flip_B,
        "contrast": view.contrast_B != 1,
        "hue": view.hue_B != 0,
        "grey": view.grey_B,
        "blur": view.sigma_B > 0,
        "solarise": view.solarise_B < torch.inf,
    }
    wanted = [0.3, 0.7, 0.7, 0.15, 0.6, 0.25]
    for (part, drawn), want in zip(frequency.items(), wanted, strict=True):
        assert drawn.float().mean() == pytest.approx(want, abs=0.01), part  # 4 standard errors
    assert torch.equal(view.contrast_B != 1, view.hue_B != 0), "all jitters or none"
    both = (view.grey_B & (view.sigma_B > 0)).float().mean()
    assert both == pytest.approx(0.15 * 0.6, abs=0.01), "parts are drawn independently"
    always = draw(Recipe.of(TrialConfig(flip_prob=1, grey_prob=1)), 1000, random(5))
    assert always.flip_B.all()
    assert always.grey_B.all()
    assert not draw(Recipe.of(TrialConfig(flip_prob=0)), 1000, random(5)).flip_B.any()


CROP = {"top_B", "left_B", "height_B", "width_B"}
COLOURS = {"brightness_B", "contrast_B", "saturation_B", "hue_B"}


@pytest.mark.parametrize(
    "knob, value, fields",
    [
        ("crop_min_area", 0.5, CROP),
        ("crop_max_aspect", 2.0, CROP),
        ("flip_prob", 0.1, {"flip_B"}),
        ("brightness_shift", 0.3, {"shift_B"}),
        ("jitter_prob", 0.1, COLOURS),
        ("jitter_brightness", 0.9, {"brightness_B"}),
        ("jitter_contrast", 0.9, {"contrast_B"}),
        ("jitter_saturation", 0.9, {"saturation_B"}),
        ("jitter_hue", 0.5, {"hue_B"}),
        ("grey_prob", 0.9, {"grey_B"}),
        ("blur_prob", 0.9, {"sigma_B"}),
        ("blur_min_sigma", 1.5, {"sigma_B"}),
        ("blur_max_sigma", 4.0, {"sigma_B"}),
        ("solarise_prob", 0.9, {"solarise_B"}),
        ("solarise_threshold", 0.1, {"solarise_B"}),
    ],
)
def test_every_knob_turns_its_part_and_no_other(knob, value, fields):
    usual = {"aug_recipe": "simclr", "solarise_prob": 0.5, "brightness_shift": 0.1}
    before, after = (
        draw(Recipe.of(TrialConfig(**knobs)), 200, random(6))
        for knobs in (usual, usual | {knob: value})
    )
    turned = {
        field
        for field, old, new in zip(Draw._fields, before, after, strict=True)
        if not torch.equal(old, new)
    }
    assert turned == fields


def test_every_field_of_a_recipe_is_a_knob():
    assert set(Recipe._fields) <= set(TrialConfig.model_fields)


def test_jitters_fill_their_range_and_stay_in_it():
    recipe = of_strength(1.2, "simclr")._replace(blur_prob=1.0)
    view = draw(recipe, 20_000, random(7))
    for values, middle, reach in (
        (view.brightness_B, 1, recipe.jitter_brightness),
        (view.contrast_B, 1, recipe.jitter_contrast),
        (view.saturation_B, 1, recipe.jitter_saturation),
        (view.hue_B, 0, recipe.jitter_hue),
        (view.sigma_B, 1.05, 0.95),
    ):
        assert values.min() == pytest.approx(middle - reach, abs=0.002)
        assert values.max() == pytest.approx(middle + reach, abs=0.002)
        assert values.mean() == pytest.approx(middle, abs=0.01)


@pytest.mark.parametrize("side", [2, 8, 32, 96])
def test_the_strongest_views_are_images(side):
    batch = images(12, side)
    batch[0], batch[1], batch[2], batch[3, 1:] = 0, 255, 7, 0
    strongest = Recipe.of(
        TrialConfig(
            aug_strength=1.2,
            jitter_prob=1,
            jitter_brightness=1,
            jitter_contrast=1,
            jitter_saturation=1,
            jitter_hue=0.5,
            blur_prob=0.7,
            solarise_prob=0.5,
        )
    )
    for _ in range(5):
        views = apply(batch, draw(strongest, 12, random(side)))
        assert views.shape == batch.shape
        assert views.is_contiguous(memory_format=torch.channels_last)
        assert views.min() >= 0
        assert views.max() <= 1, "and no number is missing"


def test_no_part_has_to_look_at_a_value():
    """Tensors without data: what would wait for a card, `.item()` or a mask as index, fails."""
    recipe = of_strength(1, "simclr")._replace(brightness_shift=0.1, solarise_prob=0.5)
    view = draw(recipe, 6, random(8))
    assert None not in view
    with FakeTensorMode() as fake:
        hollow = Draw(*(fake.from_tensor(values) for values in view))
        views = apply(fake.from_tensor(images(6)), hollow.rows(slice(0, 6)))
    assert views.shape == (6, 3, SIDE, SIDE)


def test_a_trial_trains_under_its_own_recipe(tmp_path, monkeypatch):
    trial = config(aug_recipe="simclr", grey_prob=0.4, view2_solarise_prob=0.3, steps_per_epoch=1)
    recipes = []

    def spy(recipe, count, generator):
        recipes.append((recipe, count))
        return draw(recipe, count, generator)

    monkeypatch.setattr(loop.augment, "draw", spy)
    next(loop.train(trial, load_dataset(trial, tmp_path), World()))
    contrastive = [(recipe, trial.global_batch) for recipe in Recipe.of_both_views(trial)]
    assert recipes[:3] == [*contrastive, (PROBE_RECIPE, trial.labelled_batch_size)]
    assert [recipe.solarise_prob for recipe, _ in recipes[:2]] == [0.0, 0.3]
    assert recipes[0][0].grey_prob == 0.4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_card_draws_and_paints_without_waiting_and_as_the_cpu_does():
    recipe = of_strength(1, "simclr")._replace(brightness_shift=0.1)
    batch, generator = images(32).cuda(), torch.Generator("cuda").manual_seed(1)
    apply(batch, draw(recipe, 32, generator))
    torch.cuda.set_sync_debug_mode("error")
    try:
        view = draw(recipe, 32, generator)
        ours = apply(batch, view)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_cpu = Draw(*(None if values is None else values.cpu() for values in view))
    assert torch.allclose(ours.cpu(), apply(batch.cpu(), on_cpu), atol=1e-4)


def test_in_bf16_a_view_is_off_by_a_level_of_the_256():
    """Whole numbers up to 255 are exact in bf16; what its two products lose is looked at here."""
    batch = images(12)
    recipe = Recipe.of(TrialConfig(aug_recipe="simclr"))._replace(blur_prob=1.0)
    view = draw(recipe, 12, random(3))
    exact, ours = (apply(batch, view, precision) for precision in ("float32", "bf16"))
    assert ours.dtype == torch.float32
    plain = view._replace(saturation_B=None, hue_B=None, contrast_B=None, sigma_B=None)
    crops = [apply(batch, plain, precision) for precision in ("float32", "bf16")]
    off = (crops[0] - crops[1]).abs() * 255
    assert 0 < off.mean() < 0.5 and off.max() < 3
    assert 0 < (exact - ours).abs().mean() * 255 < 1
