"""Encoders that others trained: recognised by their shapes, or told what is wrong with them."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from nnclr_study.errors import UsageError
from nnclr_study.trainer.encoder import WidthResNet
from nnclr_study.trainer.weights import NORMALISED, published


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    model.load_state_dict(
        {n: t + 0.1 if "mean" in n else t for n, t in model.state_dict().items()}
    )
    return model.eval()


def features(model, images):
    whole, model.fc = model.fc, torch.nn.Identity()
    with torch.no_grad():
        found = model(images)
    model.fc = whole
    return found


def saved(path, state):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def loaded(path, normalise="none"):
    about, subject = published(path, normalise)
    model = subject.build()
    model.load_state_dict(subject.tensors)
    return about, subject, model.eval()


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder_q."])
def test_a_published_resnet_gives_its_own_features(resnet18, tmp_path, prefix):
    state = {f"{prefix}{name}": tensor for name, tensor in resnet18.state_dict().items()}
    if prefix:
        state |= {"projector.0.weight": torch.zeros(2, 512)}  # what it was pretrained with
    images = torch.rand(2, 3, 40, 40)
    about, subject, model = loaded(saved(tmp_path / "x.safetensors", state))
    assert about == "resnet18, width 64, 7x7 stem"
    assert subject.features == 512
    with torch.no_grad():
        torch.testing.assert_close(model(images), features(resnet18, images))


@pytest.mark.parametrize("normalise", ["imagenet", "0.485,0.456,0.406/0.229,0.224,0.225"])
def test_it_gets_normalised_images_if_it_expects_them(resnet18, tmp_path, normalise):
    path = saved(tmp_path / "x.safetensors", resnet18.state_dict())
    images = torch.rand(2, 3, 40, 40)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in NORMALISED["imagenet"])
    with torch.no_grad():
        found = loaded(path, normalise)[2](images)
        torch.testing.assert_close(found, features(resnet18, (images - mean) / std))
        assert not torch.allclose(found, features(resnet18, images))


@pytest.mark.parametrize("name, size", [("resnet34", 512), ("resnet50", 2_048)])
def test_deeper_ones_are_recognised_and_old_ones_without_counts(tmp_path, name, size):
    state = getattr(torchvision.models, name)().state_dict()
    state = {n: t.half() for n, t in state.items() if not n.endswith("num_batches_tracked")}
    about, subject, model = loaded(saved(tmp_path / "x.safetensors", state))
    assert about == f"{name}, width 64, 7x7 stem"
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, subject.features) == (2, size)


def test_width_and_stem_follow_from_the_shapes(tmp_path):
    block = torchvision.models.resnet.BasicBlock
    ours = WidthResNet(block, [2, 2, 2, 2], 8, small_stem=True).eval()
    about, _, model = loaded(saved(tmp_path / "x.safetensors", ours.state_dict()))
    assert about == "resnet18, width 8, 3x3 stem"
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), ours(images))


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda s: without(s, "bn1.weight", "layer2.0.bn1.bias"), "lacks bn1.weight, layer2.0"),
        (lambda s: s | {"layer1.0.se.weight": torch.ones(1)}, "besides layer1.0.se.weight"),
        (lambda s: s | {"conv1.weight": torch.ones(64, 3, 5, 5)}, r"64x3x5x5, not 64x3x7x7"),
        (lambda s: s | {"conv1.weight": torch.ones(64)}, "conv1.weight or one of its four"),
        (lambda s: {n: t for n, t in s.items() if "layer4" not in n}, "one of its four stages"),
        (lambda s: {"blocks.0.qkv": torch.ones(2)}, "holds blocks.0.qkv, and not"),
        (lambda s: {f"{p}.{n}": t for p in ("encoder", "model") for n, t in s.items()}, "several"),
        (lambda s: s | {"conv1.weight": torch.full((64, 3, 7, 7), torch.nan)}, "no numbers"),
        (lambda s: s | {"bn1.bias": torch.full((64,), 1e308, dtype=torch.double)}, "no numbers"),
        (
            lambda s: s | {"bn1.bias": torch.ones(64, dtype=torch.int32)},
            "int32 values, not",
        ),
        (lambda s: s | {"conv1.weight": torch.ones(10**9, 0, 7, 7)}, "shape 1000000000x0x7x7"),
        (lambda s: s | {f"layer1.{n}.x": torch.ones(1) for n in range(20_001)}, "20,000 at most"),
    ],
)
def test_what_is_no_such_resnet_is_told(resnet18, tmp_path, change, said):
    state = {n: t.clone() for n, t in change(resnet18.state_dict()).items()}
    with pytest.raises(UsageError, match=said):
        published(saved(tmp_path / "x.safetensors", state), "none")


def test_a_pickle_is_not_opened_and_its_conversion_works(resnet18, tmp_path, monkeypatch):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"x": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "trap.pth").rename(tmp_path / "trap.safetensors")
    torch.save({"state_dict": resnet18.state_dict()}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        published(tmp_path / "trap.safetensors", "none")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="is a pickle") as told:
        published(tmp_path / "x.pth", "none")
    import safetensors.torch

    monkeypatch.chdir(tmp_path)
    lines = [line.strip() for line in str(told.value).splitlines()[1:]]
    exec("\n".join(lines), {"torch": torch, "safetensors": safetensors})
    assert published(tmp_path / "x.safetensors", "none").about.startswith("resnet18")


@pytest.mark.parametrize(
    "normalise", ["imagenett", "1,2/3", "1,2,3", "0,0,0/1,1,0", "a,b,c/1,1,1"]
)
def test_a_normalisation_that_is_none_is_told(tmp_path, normalise):
    with pytest.raises(UsageError, match=r"use none, imagenet, or a mean"):
        published(tmp_path / "x.safetensors", normalise)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        published(tmp_path / "x.safetensors", "none")
