"""`evaluate` beyond a run: exports, and weights that others published."""

import json
import subprocess
import sys

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from nnclr_study.cli import main
from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import exports, protocols
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.protocols import Subject, score
from nnclr_study.trainer.world import World
from tests.trainer.test_loop import config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A torchvision ResNet-18 that has learned nothing, with its classifier."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(torchvision.models.resnet18().state_dict(), path)
    return path


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_published_weights_are_scored_and_nothing_is_recorded(weights, capsys):
    words = ["evaluate", str(weights), "--dataset", "digits", "--normalise", "imagenet"]
    assert main([*words, "--protocol", "knn"]) == 0
    shown = capsys.readouterr().out
    assert "resnet18, width 64, 7x7 stem, on digits at 32 px, normalise imagenet" in shown
    assert "knn                400 labels  val" in shown
    assert main([*words, "--protocol", "knn", "--json"]) == 0
    (row,) = told(capsys)
    assert (row["dataset"], row["normalise"], row["protocol"]) == ("digits", "imagenet", "knn")
    assert row["test_top1"] > 0.5, "even random features tell digits apart"
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]
    assert main([*words[:-1], "none", "--protocol", "knn", "--json"]) == 0
    assert told(capsys)[0]["test_top1"] != row["test_top1"]


def test_they_are_fine_tuned_by_the_same_protocol(weights, capsys, monkeypatch):
    monkeypatch.setattr(protocols, "STEPS", 2)
    words = ["evaluate", str(weights), "--dataset", "digits", "--normalise", "none"]
    assert main([*words, "--protocol", "supervised-1", "--protocol", "finetune-1"]) == 0
    assert "points on test over never pretrained" in capsys.readouterr().out


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    trial = config(epochs=1)
    folder = tmp_path_factory.mktemp("export") / "x"
    digits = load_dataset(trial, folder.parent)
    (snapshot,) = train(trial, digits, World())
    exports.claim(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "find_spec", lambda name: None)
        exports.write(snapshot, {"trial_id": "s5_abcdef"}, folder)
    return folder, score("linear", Subject.of(snapshot), digits, World())


def test_an_export_scores_as_its_trial_did(exported, capsys):
    folder, expected = exported
    assert main(["evaluate", str(folder), "--protocol", "linear", "--json"]) == 0
    (row,) = told(capsys)
    assert {name: row[name] for name in expected._fields} == expected._asdict()


def test_an_export_is_scored_on_other_images_of_its_size(exported, tmp_path, capsys):
    folder, _ = exported
    words = ["evaluate", str(folder), "--dataset", "synthetic", "--data", str(tmp_path)]
    assert main([*words, "--protocol", "linear"]) == 0
    shown = capsys.readouterr().out
    assert "s5_abcdef, after epoch 1, on synthetic" in shown
    assert "800 labels" in shown


def test_its_weights_alone_are_a_file_like_any_other(tmp_path, capsys):
    from nnclr_study.trainer.encoder import build_encoder

    small = TrialConfig(dataset="digits", encoder="resnet18", width=4)
    save_file(build_encoder(small, 32).state_dict(), tmp_path / "encoder.safetensors")
    words = ["evaluate", str(tmp_path / "encoder.safetensors"), "--dataset", "digits"]
    assert main([*words, "--normalise", "none", "--protocol", "knn"]) == 0
    assert "resnet18, width 4, 3x3 stem" in capsys.readouterr().out


@pytest.mark.parametrize(
    "source, more, said",
    [
        ("weights", [], "name some by --dataset"),
        ("weights", ["--dataset", "digits"], "add --normalise imagenet"),
        ("weights", ["--dataset", "digitz", "--normalise", "none"], 'did you mean "digits"?'),
        ("weights", ["x", "--dataset", "digits"], "is no run folder"),
        ("export", ["x"], "is no run folder"),
        ("export", ["--normalise", "none"], "leave out --normalise"),
        ("export", ["--image-size", "40"], "leave out --image-size"),
        ("export", ["--protocol", "magic"], "--protocol magic: use one of linear, knn"),
        ("nope.safetensors", ["--dataset", "digits", "--normalise", "none"], "is not there"),
        ("nope.pth", ["--dataset", "digits", "--normalise", "none"], "is not there"),
        ("runs", ["--dataset", "digits"], "a run's trials are scored on their own images"),
        ("runs", [], "name one of them"),
        ("runs", ["s1"], "no run folder"),
    ],
)
def test_what_does_not_fit_is_told(weights, exported, tmp_path, capsys, source, more, said):
    known = {"weights": str(weights), "export": str(exported[0]), "runs": str(tmp_path)}
    assert main(["evaluate", known.get(source, source), *more]) == 2
    assert said in capsys.readouterr().err


def test_usage_of_evaluate_is_checked_before_torch_loads(tmp_path):
    (tmp_path / "encoder.safetensors").write_text("")
    code = (
        "import sys; from nnclr_study.cli import main; "
        f"assert main(['evaluate', {str(tmp_path)!r}, 'a_trial']) == 2; "
        "assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "has no trial 'a_trial'" in found.stderr
