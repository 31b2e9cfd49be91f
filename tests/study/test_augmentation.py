"""Recipes: one dial sets every part, and any part can be set by itself."""

import pytest
from pydantic import ValidationError

from nnclr_study.errors import StudyFileError
from nnclr_study.study.augmentation import OFF, RECIPES
from nnclr_study.study.config import OWN, TrialConfig
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.spec import parse_study
from tests.study.test_spec import GOOD


def parts(**knobs):
    return TrialConfig(**knobs).model_dump(include=set(OFF))


def test_the_recipes_name_knobs_and_the_knob_names_the_recipes():
    assert tuple(RECIPES) == OWN["aug_recipe"]
    for recipe in RECIPES.values():
        assert set(recipe) <= set(OFF) <= set(TrialConfig.model_fields)


def test_the_default_is_the_keras_example_s():
    assert parts() == pytest.approx(
        OFF | {"crop_min_area": 0.2, "crop_max_aspect": 4 / 3, "brightness_shift": 0.5}
    )
    assert TrialConfig().flip_prob == 0.5


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_dial_goes_from_nothing_through_the_recipe(recipe):
    assert parts(aug_recipe=recipe, aug_strength=0) == OFF
    assert parts(aug_recipe=recipe) == pytest.approx(OFF | RECIPES[recipe])
    half = parts(aug_recipe=recipe, aug_strength=0.5)
    assert half["crop_min_area"] == pytest.approx(0.6)
    assert half["crop_max_aspect"] ** 2 == pytest.approx(4 / 3)
    for part, value in RECIPES[recipe].items():
        if not part.startswith("crop"):
            assert half[part] == pytest.approx(value / 2)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_strongest_setting_stays_within_the_bounds(recipe):
    strong = parts(aug_recipe=recipe, aug_strength=1.2)
    # A default is not checked by pydantic: only given values are.
    assert parts(**strong) == strong
    assert strong["crop_min_area"] < 0.2


def test_a_probability_never_passes_1(monkeypatch):
    monkeypatch.setitem(RECIPES["simclr"], "grey_prob", 0.9)
    assert parts(aug_recipe="simclr", aug_strength=1.2)["grey_prob"] == 1


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("part", OFF)
def test_one_part_can_be_set_and_the_others_follow(recipe, part):
    value = 1.5 if part == "crop_max_aspect" else 0.35
    dial = {"aug_recipe": recipe, "aug_strength": 0.7}
    assert parts(**dial, **{part: value}) == parts(**dial) | {part: value}


def test_a_config_is_flat_complete_and_its_own_default():
    config = TrialConfig(aug_recipe="simclr", aug_strength=0.3)
    assert TrialConfig(**config.model_dump()) == config
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config
    assert config.crop_min_area == 0.76, "as a person would write it, whatever the power function"


def test_a_part_set_to_what_the_recipe_says_makes_the_same_trial():
    def ids(line):
        return [
            trial.id
            for trial in plan_trials(
                parse_study(GOOD.replace("[trial]", f"[trial]\n{line}"), "x.toml")
            )
        ]

    plain = ids('aug_recipe = "simclr"')
    assert ids('aug_recipe = "simclr"\ngrey_prob = 0.2') == plain
    assert not set(ids('aug_recipe = "simclr"\ngrey_prob = 0.3')) & set(plain)
    assert not set(ids("")) & set(plain)


def test_recipes_and_parts_can_be_varied():
    text = GOOD.replace(
        "[grid]", '[grid]\naug_recipe = ["brightness", "simclr"]\nblur_prob = [0, 0.5]'
    )
    study = parse_study(text, "x.toml")
    seen = {
        (trial.config.aug_recipe, trial.config.blur_prob, trial.config.grey_prob)
        for trial in plan_trials(study)
    }
    assert seen == {
        (recipe, blur, grey)
        for recipe, grey in (("brightness", 0), ("simclr", 0.2))
        for blur in (0, 0.5)
    }


@pytest.mark.parametrize(
    "line, said",
    [
        ("jitter_hue = 0.6", ["<= 0.5", "default: by recipe and strength"]),
        ("crop_min_area = 0", ["> 0 and <= 1"]),
        ("crop_max_aspect = 0.75", [">= 1"]),
        ("flip_prob = 1.1", ["<= 1", "default 0.5"]),
        ("blur_prob = -0.1", [">= 0"]),
        ("solarise_threshold = 2", ["<= 1"]),
        ("blur_min_sigma = 3.0", ["blur_min_sigma <= 2.0"]),
        ('aug_recipe = "byol"', ["use one of brightness, simclr", "default 'brightness'"]),
        ("gray_prob = 0.2", ['did you mean "grey_prob"']),
    ],
)
def test_a_part_out_of_bounds_is_named_with_its_rule(line, said):
    with pytest.raises(StudyFileError) as caught:
        parse_study(GOOD.replace("[trial]", f"[trial]\n{line}"), "x.toml")
    assert len(caught.value.problems) == 1
    text = str(caught.value)
    assert "PydanticUndefined" not in text
    for words in said:
        assert words in text


@pytest.mark.parametrize(
    "knobs", [{"aug_recipe": "x"}, {"aug_strength": 5}, {"aug_strength": "1"}]
)
def test_what_is_no_recipe_or_no_strength_is_refused(knobs):
    with pytest.raises(ValidationError) as caught:
        TrialConfig(**knobs)
    assert caught.value.errors()[0]["loc"] == tuple(knobs)
