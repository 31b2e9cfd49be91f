"""Plug-ins in the trainer: the example trains, and what breaks a contract is named."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nnclr_study.cli import main
from nnclr_study.errors import DataError, PluginError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.spec import parse_study
from nnclr_study.trainer.contracts import DatasetPlugin, Original, Part
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.encoder import build_encoder, initialise
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.plugins import augmentation, check_plugins
from nnclr_study.trainer.prepared import prepare
from nnclr_study.trainer.world import CPU, World
from tests.plugin_package import install, install_example
from tests.trainer.test_loop import config, rows

STUDY = """
[study]
name = "shapes"
seeds = [1]
[trial]
dataset = "plugin:shapes"
image_size = 32
epochs = 2
steps_per_epoch = 2
batch_size = 24
labelled_batch_size = 8
encoder = "plugin:patches"
width = 8
[grid]
aug_recipe = ["plugin:erase", "simclr"]
queue_size = [64]
"""
KINDS = {"dataset": "datasets", "encoder": "encoders", "aug_recipe": "augmentations"}


@pytest.fixture
def example(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(install_example(tmp_path / "site"))
    yield tmp_path
    sys.modules.pop("shapes_for_nnclr", None)


@pytest.fixture
def brings(tmp_path, monkeypatch):
    """Put what a knob may name as plugin:mine into a package that is installed."""

    def put(knob, what, source="mine = None\n"):
        points = {f"nnclr_study.{KINDS[knob]}": {"mine": "my_plugins:mine"}}
        monkeypatch.syspath_prepend(install(tmp_path / "mine", "my-plugins", source, points))
        if what is not None:
            __import__("my_plugins").mine = what

    yield put
    sys.modules.pop("my_plugins", None)


def images(labels=(0, 1), read=None, **parts):
    """A data set of grey images with these labels, in train and in test."""
    read = read or (lambda row: np.full((8, 8, 3), 128, np.uint8))
    known = Part(len(labels), read, np.array(labels))
    return Original(["a", "b"], {"train": known, "test": known} | parts)


def dataset(found, key="1"):
    return DatasetPlugin(key=lambda folder: key, open=lambda folder, size: found)


def refused(knob):
    """Return what is said of a trial whose plug-in breaks its contract."""
    with pytest.raises(PluginError) as caught:
        check_plugins(config(**{knob: "plugin:mine"}))
    assert str(caught.value).startswith(f"{knob} plugin:mine of my-plugins 1.0")
    return str(caught.value)


def test_a_trial_of_all_three_runs_and_a_second_time_to_the_bit(example, capsys):
    study = example / "shapes.toml"
    study.write_text(STUDY)
    told = []
    for trial in plan_trials(parse_study(STUDY, "x")):
        for _ in range(2):
            assert main(["trial", str(study), trial.id, "--data", str(example / "data")]) == 0
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            told.append([{k: v for k, v in row.items() if "seconds" not in k} for row in lines])
            assert [row["epoch"] for row in told[-1]] == [1, 2]
    erased, again, plain, _ = told
    assert erased == again
    for measured in ("c_loss", "alignment"):
        assert erased[0][measured] != plain[0][measured]
    assert len(list((example / "data" / "prepared").glob("plugin-shapes-32px-*/about.json"))) == 1


def test_a_stopped_trial_goes_on_to_the_bit(example):
    trial = plan_trials(parse_study(STUDY, "x"))[0].config
    prepare(trial.dataset, 32, example / "data")
    data = load_dataset(trial, example / "data")
    first = next(train(trial, data, World()))
    first.tensors.update({name: tensor.clone() for name, tensor in first.tensors.items()})
    assert rows(train(trial, data, World(), first)) == rows(train(trial, data, World()))


def test_an_encoder_s_weights_follow_the_seed_and_are_left_as_they_are(example):
    state = torch.random.get_rng_state()
    one, same, other = (
        build_encoder(config(encoder="plugin:patches", seed=seed), 32) for seed in (5, 5, 6)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    initialise(one, torch.Generator())
    assert torch.equal(one[0].weight, same[0].weight)
    assert one.training


@pytest.mark.parametrize(
    "what, said",
    [
        (5, "must be a function, and is int"),
        (lambda config, side: 5, "must return a torch.nn.Module, not int"),
        (lambda config, side: 1 / 0, "building it raised ZeroDivisionError: division by zero"),
        (lambda config, side: nn.Flatten(), "set width to the features that it gives"),
        (lambda config, side: nn.Flatten(), "gives float32 (2, 3072) for two images, and width=8"),
        (lambda config, side: nn.Identity(), "asks for float32 (2, 8)"),
        (
            lambda config, side: nn.Linear(7, 8),
            "encoding (2, 3, 32, 32) raised RuntimeError: mat1",
        ),
    ],
)
def test_an_encoder_that_breaks_its_contract_is_named(what, said, brings):
    brings("encoder", what)
    told = refused("encoder")
    assert said in told
    assert len(told.splitlines()) == 1, "a trial's reason is a line"


@pytest.mark.parametrize(
    "source, said",
    [
        ("import nothing_such", "raised ModuleNotFoundError: No module named 'nothing_such'"),
        ("1 +", "importing my_plugins:mine raised SyntaxError"),
        ("other = 1", "raised AttributeError"),
        ("raise ValueError('two\\nlines')", "raised ValueError: two lines"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(source, said, brings, tmp_path):
    brings("dataset", None, source)
    with pytest.raises(PluginError) as caught:
        prepare("plugin:mine", 32, tmp_path / "data")
    assert str(caught.value).startswith("dataset plugin:mine of my-plugins 1.0")
    assert said in str(caught.value)


def test_an_augmentation_gets_views_on_the_device_and_what_it_may_draw_from(brings):
    seen = []

    def mine(views, generator, strength):
        seen.append((views.shape, views.dtype, views.device, generator.device, strength))
        return views + torch.rand(len(views), 1, 1, 1, generator=generator)

    brings("aug_recipe", mine)
    trial = config(aug_recipe="plugin:mine", aug_strength=0.7)
    views = torch.full((4, 3, 32, 32), 0.5)
    one, same, other = (
        augmentation(trial, torch.Generator().manual_seed(seed))(views) for seed in (1, 1, 2)
    )
    assert seen[0] == ((4, 3, 32, 32), torch.float32, CPU, CPU, 0.7)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.max() == 1, "values end at 1"
    asleep = config(aug_recipe="plugin:mine", aug_strength=0.0)
    assert augmentation(asleep, torch.Generator())(views) is views
    assert len(seen) == 3


def test_workers_of_a_trial_draw_differently(brings, monkeypatch):
    from nnclr_study.trainer.learner import Learner
    from nnclr_study.trainer.loop import _further

    brings("aug_recipe", lambda views, generator, _: views + torch.rand(1, generator=generator))
    learner = Learner(config(aug_recipe="plugin:mine"), 32, 10, World())
    views = torch.zeros(1, 3, 32, 32)
    found = set()
    for rank in (0, 1):
        learner.world = World(rank=rank, size=2)
        found |= {float(_further(learner, "augment", epoch)(views).max()) for epoch in (0, 1)}
    assert len(found) == 4


@pytest.mark.parametrize(
    "what, said",
    [
        ("erase", "must be a function, and is str"),
        (lambda views, *_: None, "returned NoneType"),
        (
            lambda views, *_: views[:, :1],
            "must return float32 (2, 3, 32, 32) on cpu, and returned",
        ),
        (lambda views, *_: views.double(), "returned float64 (2, 3, 32, 32) on cpu"),
        (lambda views, *_: views.to("meta"), "returned float32 (2, 3, 32, 32) on meta"),
        (lambda views, *_: views[5], "augmenting (2, 3, 32, 32) raised IndexError"),
        (lambda: None, "raised TypeError"),
    ],
)
def test_an_augmentation_that_breaks_its_contract_is_named(what, said, brings):
    brings("aug_recipe", what)
    assert said in refused("aug_recipe")


def test_images_of_any_kind_are_taken(brings, tmp_path):
    grey = Image.new("L", (20, 10), 7)
    brings("dataset", dataset(images(read=lambda row: grey)))
    found = prepare("plugin:mine", 32, tmp_path)
    assert found.pixels["train"].shape == (2, 3, 32, 32)
    assert (found.pixels["test"] == 7).all()


def test_another_key_or_version_is_prepared_anew_and_the_same_is_not(
    brings, tmp_path, monkeypatch
):
    opened = []

    def mine(key):
        return DatasetPlugin(lambda folder: key, lambda *_: opened.append(key) or images())

    brings("dataset", mine("1"))
    first = prepare("plugin:mine", 32, tmp_path / "data")
    assert prepare("plugin:mine", 32, tmp_path / "data").path == first.path
    __import__("my_plugins").mine = mine("2")
    second = prepare("plugin:mine", 32, tmp_path / "data")
    points = {"nnclr_study.datasets": {"mine": "my_plugins:mine"}}
    newer = install(tmp_path / "newer", "my-plugins", "", points, version="2.0")
    monkeypatch.syspath_prepend(newer)
    third = prepare("plugin:mine", 32, tmp_path / "data")
    assert opened == ["1", "2", "2"]
    assert len({first.path, second.path, third.path}) == 3


@pytest.mark.parametrize(
    "what, said",
    [
        (lambda folder, size: images(), "must be a DatasetPlugin, and is function"),
        (dataset(images(), key=5), "key must return a text, and returned 5"),
        (DatasetPlugin(lambda folder: 1 / 0, lambda *_: images()), "key raised ZeroDivision"),
        (dataset([1]), "open must return an Original, and returned list"),
        (dataset(Original(["a"], {"train": 5})), "raised AttributeError"),
        (dataset(Original(["a"], {})), "its parts are none; there must be train and test"),
        (dataset(images(val=images().parts["train"])), "its parts are train, test, val; there"),
        (dataset(images(test=Part(2, len, None))), "both with labels"),
        (dataset(images(labels=(0.5, 1))), "what open returned raised TypeError: Cannot cast"),
        (dataset(images(labels=(0, 2))), "has the label 2; labels go from 0 to 1"),
        (dataset(images(read=lambda row: 1 / 0)), "reading image 0 of train raised ZeroDiv"),
        (dataset(images(read=lambda row: np.zeros((8, 8)))), "image 0 of train is float64 (8, 8)"),
        (dataset(images(read=lambda row: Image.open("/no/such"))), "raised FileNotFoundError"),
    ],
)
def test_a_data_set_that_breaks_its_contract_is_named(what, said, brings, tmp_path):
    brings("dataset", what)
    with pytest.raises((PluginError, DataError)) as caught:
        prepare("plugin:mine", 32, tmp_path / "data")
    assert "plugin:mine" in str(caught.value)
    assert said in str(caught.value)


def test_what_a_plug_in_tells_users_is_left_as_it_is(brings, tmp_path):
    def missing(folder):
        raise DataError(f"put birds.npz into {folder}")

    brings("dataset", DatasetPlugin(missing, lambda *_: images()))
    with pytest.raises(DataError, match=r"^put birds.npz into .*data$"):
        prepare("plugin:mine", 32, tmp_path / "data")


def test_the_command_data_shows_one(example, capsys):
    words = ["data", "plugin:shapes", "--image-size", "32", "--data", str(example / "data")]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parts"]["train"]["images_of_class"] == [100, 100, 100]
    assert main(["data", "plugin:shape", "--data", str(example / "data")]) == 2
    assert 'did you mean "plugin:shapes"?' in capsys.readouterr().err
