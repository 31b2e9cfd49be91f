"""`export`: which trial it takes, what it writes, and what it leaves alone."""

import json
import os
from pathlib import Path

import pytest
import torch

import nnclr_study
from nnclr_study.cli import main
from nnclr_study.errors import RunFolderError, RunFolderWarning
from nnclr_study.export import export
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.trainer import checkpoint, exports
from nnclr_study.trainer.encoder import build_encoder
from nnclr_study.trainer.loop import Snapshot
from tests.report.helpers import epoch_row, make_run, study_text

WITHOUT_ONNX = {"encoder.safetensors", "preprocessing.json", "config.json", "README.md"}
TOP1 = {0: {1: 0.80, 2: 0.99}, 500: {1: 0.91, 2: 0.89, 3: 0.95}}
"""Of queue_size 0 a lucky seed scores best; 500 has the higher mean."""


@pytest.fixture(autouse=True)
def without_onnx(monkeypatch):
    monkeypatch.setattr(exports, "find_spec", lambda name: None)


@pytest.fixture
def run(tmp_path):
    """A run of two conditions and three seeds; of both a seed is missing or failed."""

    def outcome(trial):
        size, seed = trial.config.queue_size, trial.config.seed
        return "out of memory" if (size, seed) == (500, 1) else TOP1[size].get(seed)

    folder = make_run(tmp_path / "made", study_text("queue_size = [0, 500]"), outcome)
    for number, trial in enumerate(plan_trials(folder.study())):
        if outcome(trial) is not None:
            save(folder, trial, number)
    return folder


def save(folder, trial, number, epochs=4):
    torch.manual_seed(number)
    state = build_encoder(trial.config, trial.config.image_size).state_dict()
    rows = [epoch_row(e, trial.config.epochs, 0.8, 1, last=e == 4) for e in range(1, epochs + 1)]
    tensors = {f"encoder/{name}": tensor for name, tensor in state.items()}
    checkpoint.save(Snapshot(trial.config, rows, tensors), folder.checkpoint(trial.id))


def of(folder, size, seed):
    (found,) = (
        trial
        for trial in plan_trials(folder.study())
        if (trial.config.queue_size, trial.config.seed) == (size, seed)
    )
    return found


def test_it_takes_the_lowest_finished_seed_of_the_best_mean(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(run.path), "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    wanted = of(run, 500, 2)
    assert f"{wanted.id}, after epoch 4" in shown
    assert "encoder.onnx is left out: it needs pip install 'nnclr-study[onnx]'" in shown
    assert {path.name for path in out.iterdir()} == WITHOUT_ONNX
    told = json.loads((out / "config.json").read_text())
    assert told["trial_id"] == wanted.id
    assert TrialConfig.model_validate(told["config"]) == wanted.config
    assert told["trained_with"] == {"nnclr-study": "0.1.0", "torch": "2.9.0"}
    card = (out / "README.md").read_text()
    assert "the lowest seed, and not the one that scored best" in card
    assert "| mean of its condition | 92.0 % (95 % CI" in card
    assert "n = 2 of 3" in card
    assert "queue_size 500" in card
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_what_trained_it_is_named_beside_foreign_lines(run, tmp_path):
    sessions = run.path / "sessions.jsonl"
    (told,) = (json.loads(line) for line in sessions.read_text().splitlines())
    told |= {"number": 1, "commit": "c" * 40}
    sessions.write_text(f"no row of ours\n{json.dumps(told)}\n")
    trials = run.path / "trials.jsonl"
    trials.write_text(trials.read_text().replace('"session": 0', '"session": 1'))
    with pytest.warns(RunFolderWarning):
        export(run.path, None, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["commit"] == "c" * 40


def test_what_it_wrote_loads_as_the_run_s_encoder(run, tmp_path):
    wanted = of(run, 0, 1)
    assert main(["export", str(run.path), wanted.id[:16], "-o", str(tmp_path / "out")]) == 0
    images = torch.rand(3, 3, 32, 32)
    exported = nnclr_study.load_encoder(tmp_path / "out")
    assert torch.equal(exported(images), nnclr_study.load_encoder(run.path, wanted.id)(images))
    other = nnclr_study.load_encoder(run.path, of(run, 0, 2).id)
    assert not torch.equal(exported(images), other(images))
    assert "lowest seed" not in (tmp_path / "out" / "README.md").read_text()


def test_preprocessing_says_what_the_encoder_takes(run, tmp_path):
    assert main(["export", str(run.path), "-o", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert (told["image_size"], told["channels"], told["range"]) == (32, "RGB", [0.0, 1.0])
    assert (told["mean"], told["std"]) == ([0.0] * 3, [1.0] * 3)
    assert (told["resize"], told["interpolation"], told["crop"]) == (
        *("shorter side", "bicubic", "centre"),
    )


def test_an_earlier_export_is_replaced_and_other_files_are_not(run, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["export", str(run.path), "-o", str(out)]
    assert main(words) == 0
    (out / "encoder.onnx").write_text("of an earlier export")
    (out / ".gitattributes").write_text("a repository's")
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["trial_id"] == of(run, 500, 2).id
    assert {path.name for path in out.iterdir()} == WITHOUT_ONNX | {".gitattributes"}
    (out / "thesis.tex").write_text("years of work")
    assert main(words) == 2
    assert "holds thesis.tex, which no export wrote" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    assert main(["export", str(run.path), "-o", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"


class KilledError(BaseException):
    """As SIGKILL: nobody catches it."""


@pytest.mark.parametrize("changes", range(8))
def test_one_killed_after_so_many_changes_is_never_half_of_each(
    run, tmp_path, monkeypatch, changes
):
    out, earlier, later = tmp_path / "out", of(run, 500, 2).id, of(run, 0, 1).id
    export(run.path, earlier, out)
    (out / "encoder.onnx").write_text("of the earlier trial")
    left = iter(range(changes))

    def killed(change):
        def changed(*words, **more):
            if next(left, None) is None:
                raise KilledError
            return change(*words, **more)

        return changed

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(Path, "unlink", killed(Path.unlink))
        patched.setattr(os, "replace", killed(os.replace))
        export(run.path, later, out)
    if 0 < changes < 7:
        with pytest.raises(RunFolderError, match="write it anew with `export`"):
            exports.read(out)
    else:  # all is there, or all but the card
        assert exports.read(out).trial_id == (later if changes else earlier)
        assert (out / "README.md").exists() == (out / "encoder.onnx").exists() == (not changes)
    export(run.path, later, out)
    assert {path.name for path in out.iterdir()} == WITHOUT_ONNX
    assert exports.read(out).trial_id == later


def test_one_that_has_not_finished_is_exported_when_it_is_named(tmp_path, capsys):
    folder = make_run(tmp_path / "made", study_text("width = [4]"), lambda trial: 2)
    trial = plan_trials(folder.study())[0]
    save(folder, trial, 0, epochs=2)
    words = ["export", str(folder.path), "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert "has finished; wait for one, or name the TRIAL" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, trial.id]) == 0
    assert "epoch 2" in capsys.readouterr().out
    assert "has not finished" in (tmp_path / "out" / "README.md").read_text()


def test_a_trial_or_a_folder_that_cannot_be_is_told(run, tmp_path, capsys):
    out, file = str(tmp_path / "out"), tmp_path / "file"
    file.write_text("")
    run.checkpoint(of(run, 0, 2).id).unlink()
    for words, said in (
        ([str(run.path), "nobody", "-o", out], "'nobody' is no trial of this study"),
        ([str(run.path), "queue", "-o", out], "is the beginning of several"),
        ([str(run.path), of(run, 0, 2).id, "-o", out], "has no checkpoint"),
        ([str(tmp_path / "none"), "-o", out], "no run folder"),
        ([str(run.path), "-o", str(file)], "cannot be written"),
        ([str(run.path)], "--output"),
    ):
        assert main(["export", *words]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_plug_in_s_encoder_is_not_translated(tmp_path):
    config = TrialConfig(dataset="digits", encoder="plugin:mine")
    snapshot = Snapshot(config, [], {"encoder/x": torch.ones(2)})
    exports.claim(tmp_path / "out")
    assert "plug-in" in exports.write(snapshot, {}, tmp_path / "out")


def test_a_plug_in_s_encoder_may_hold_buffers_of_any_type(monkeypatch):
    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("index", torch.zeros(3, dtype=torch.int64))
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    monkeypatch.setattr(exports, "build_encoder", lambda *_: Masked())
    config = TrialConfig(dataset="digits", encoder="plugin:mine")
    tensors = {"index": torch.tensor([1, 2, 3]), "mask": torch.tensor([-torch.inf, 0.0])}
    found = exports.rebuilt(config, tensors, Path("x")).state_dict()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("broken", ["config.json", "encoder.safetensors"])
def test_an_export_that_is_broken_is_told(run, tmp_path, capsys, broken):
    out = tmp_path / "out"
    assert main(["export", str(run.path), "-o", str(out)]) == 0
    (out / broken).write_text("{")
    with pytest.raises(nnclr_study.errors.RunFolderError, match="is no export of this version"):
        nnclr_study.load_encoder(out)
    assert main(["evaluate", str(out)]) == 2
    assert "is no export of this version" in capsys.readouterr().err


def test_weights_of_another_encoder_are_told(run, tmp_path):
    out = tmp_path / "out"
    assert main(["export", str(run.path), "-o", str(out)]) == 0
    told = json.loads((out / "config.json").read_text())
    told["config"]["width"] = 64
    (out / "config.json").write_text(json.dumps(told))
    with pytest.raises(nnclr_study.errors.RunFolderError, match="weights that its config has not"):
        nnclr_study.load_encoder(out)


def test_a_search_s_card_says_that_it_is_one_of_many(tmp_path):
    from tests.report.helpers import make_search

    folder = RunFolder.open(make_search(tmp_path / "hunt", [0.5, 0.9, 0.7]).path)
    best = folder.planned()[1]
    save(folder, best, 0)
    assert main(["export", str(folder.path), "-o", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert best.id in card
    assert "the best of many looks better" in card
