"""The card of an export: its code runs, and gives the features of the trial's encoder."""

import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import nnclr_study
from nnclr_study.card import TERMS, Facts, card
from nnclr_study.study.config import IMAGE_SIZES
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.spec import parse_study
from nnclr_study.trainer import exports
from nnclr_study.trainer.encoder import build_encoder
from nnclr_study.trainer.fitting import fitted
from nnclr_study.trainer.loop import Snapshot
from tests.report.helpers import epoch_row

ONE_ARM = {"finished": 1, "planned": 1, "failed": 0}
ONE_ARM |= {
    f"{split}_probe_top1": {"n": 1, "mean": 0.8, "interval": None} for split in ("val", "test")
}


def facts(onnx=False, search=False, **knobs):
    """What a card tells of a trial with these knobs."""
    knobs = {"dataset": "digits"} | knobs
    trial = "\n".join(f"{name} = {value!r}" for name, value in knobs.items())
    study = parse_study(
        f'[study]\nname = "made"\nquestion = "Does it\\nload?"\nseeds = [1]\n[trial]\n{trial}\n',
        "made.toml",
    )
    (planned,) = plan_trials(study)
    return Facts(
        study=study,
        trial=planned,
        row=epoch_row(25, 25, 0.8, 1, last=True),
        arm=ONE_ARM,
        chosen=True,
        versions={"torch": "2.9.0"},
        small_stem=planned.config.image_size <= 64,
        onnx=onnx,
    )


def exported(folder, told):
    """Write an export with weights and batch norms that are nothing special."""
    config = told.trial.config
    torch.manual_seed(0)
    encoder = build_encoder(config, config.image_size)
    state = {n: t + 0.1 if "running" in n else t for n, t in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    snapshot = Snapshot(config, [told.row], {f"encoder/{n}": t for n, t in state.items()})
    exports.claim(folder)
    assert (exports.write(snapshot, {"trial_id": "x"}, folder) is None) == told.onnx
    exports.write_text(card(told), folder / exports.CARD)
    return encoder.eval()


def code(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)


CONV4 = {"encoder": "conv4", "width": 8, "image_size": 40}
NARROW = {"encoder": "resnet18", "width": 8}
SMALL = {"encoder": "resnet18"}
LARGE = {"encoder": "resnet18", "image_size": 72}
DEEP = {"encoder": "resnet50"}


@pytest.mark.parametrize(
    "knobs, loaders",
    [
        (CONV4, ["OrderedDict", "onnxruntime"]),
        (NARROW, ["onnxruntime"]),
        (SMALL, ["torchvision", "timm"]),
        (LARGE, ["torchvision", "timm"]),
        (DEEP, ["torchvision", "timm"]),
        pytest.param(SMALL, ["torchvision", "timm", "onnxruntime"], marks=pytest.mark.slow),
        pytest.param(LARGE, ["torchvision", "timm", "onnxruntime"], marks=pytest.mark.slow),
        pytest.param(DEEP, ["torchvision", "timm", "onnxruntime"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_way_to_load_it_gives_the_same_features(tmp_path, monkeypatch, knobs, loaders):
    for name in loaders:
        if name != "OrderedDict":
            pytest.importorskip(name)
    onnx = "onnxruntime" in loaders
    if not onnx:
        monkeypatch.setattr(exports, "find_spec", lambda name: None)
    told = facts(onnx, **knobs)
    encoder = exported(tmp_path, told)
    monkeypatch.chdir(tmp_path)
    side = told.trial.config.image_size
    images = torch.rand(5, 3, side, side)
    with torch.no_grad():
        expected = encoder(images)
    _, *blocks = code((tmp_path / "README.md").read_text())
    wanted = ["load_encoder", *loaders]
    assert [name in block for name, block in zip(wanted, blocks, strict=True)] == [True] * len(
        wanted
    )
    for block in blocks:
        names = {"images": images}
        exec(block, names)
        found = torch.as_tensor(names["features"]).detach()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_its_first_lines_make_images_as_the_study_s_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = Image.effect_noise((50, 37), 90).convert("RGB")
    photo.save("photo.jpg")
    names = {}
    exec(code(card(facts()))[0], names)
    ours = torch.from_numpy(fitted(Image.open("photo.jpg"), 32)[0].copy()).permute(2, 0, 1)
    torch.testing.assert_close(names["images"], ours[None].float() / 255)


def test_it_is_headed_as_hubs_read_it_and_names_no_folder_of_ours():
    text = card(facts())
    _, head, body = text.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["license"] == "apache-2.0"
    assert {"nnclr", "self-supervised-learning"} <= set(told["tags"])
    for line in ("*Does it load?*", "| seed | 1 |", "One trial's figure is one draw", "80.0 %"):
        assert line in body
    for path in (Path.home(), Path.cwd(), os.sep + "tmp"):
        assert str(path) not in text


def test_it_says_on_which_terms_every_data_set_is():
    assert set(TERMS) == set(IMAGE_SIZES)
    assert "non-commercial" in card(facts(dataset="stl10"))
    assert "name their terms here" in card(facts(dataset="folder:birds"))
    assert "A plug-in's data set" in card(facts(dataset="plugin:birds", image_size=32))


def test_what_others_cannot_hold_or_build_is_said():
    assert "has 64 and cannot hold these weights" in card(facts(encoder="resnet18", width=8))
    plugged = facts(encoder="plugin:mine")
    assert "`plugin:mine` comes from a plug-in" in card(plugged)


def test_a_trial_that_is_not_over_is_no_result():
    early = facts()._replace(row=epoch_row(3, 25, 0.8, 1, last=False), chosen=False)
    text = card(early)
    assert "3 of 25" in text
    assert "has not finished" in text
    assert "lowest seed" not in text


def test_load_encoder_reads_an_export(tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    exported(tmp_path / "x", facts(width=4))
    encoder = nnclr_study.load_encoder(tmp_path / "x")
    assert encoder.image_size == 32
    with pytest.raises(ValueError, match="use float RGB"):
        encoder(torch.zeros(1, 3, 31, 31))
