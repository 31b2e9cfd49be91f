"""Storage that is full or read-only: an error names file and bytes, and no row is half there."""

import errno
import json
import multiprocessing
import os
import resource
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nnclr_study.cli import main
from nnclr_study.errors import DataError, RunFolderError
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.trainer import checkpoint, prepared
from nnclr_study.trainer.contracts import Original, Part
from nnclr_study.trainer.loop import Snapshot
from nnclr_study.trainer.prepared import prepare
from tests.report.helpers import run_of
from tests.study.test_run_folder import ended, epoch
from tests.study.test_spec import GOOD
from tests.trainer.test_loop import config

EVIDENCE = Path(__file__).parents[2] / "reports" / "quickstart"


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "good").keep(parse_study(GOOD, "good.toml"))


def limited(size, work):
    """Return what `work` raises in a process whose files may have so many bytes."""

    def there(report):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            work()
        except RunFolderError as error:
            report.send(str(error))
        except BaseException:
            report.send(traceback.format_exc())
        else:
            report.send(None)

    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=there, args=(theirs,))
    child.start()
    assert ours.poll(60)
    said = ours.recv()
    child.join()
    return said


def snapshot(size=50_000):
    tensors = {"encoder/weight": torch.arange(size, dtype=torch.float32)}
    return Snapshot(config(), [epoch(1), epoch(2)], tensors)


def test_a_row_that_finds_no_room_is_not_half_there(folder):
    path = folder.path / "epochs.jsonl"
    folder.append_epoch("a", epoch(1))
    before = path.read_bytes()
    for room in (0, 1, len(before) // 2, len(before) - 1):
        said = limited(len(before) + room, lambda: folder.append_epoch("a", epoch(2)))
        assert said is not None
        assert said.startswith(f"{path} cannot be written: File too large, with a row of ")
        assert f"a row of {len(before):,} bytes" in said
        assert "the same command goes on" in said
        assert path.read_bytes() == before
    assert limited(10 * len(before), lambda: folder.append_epoch("a", epoch(2))) is None
    assert folder.epochs() == {"a": [epoch(1), epoch(2)]}, "it goes on when there is room again"


@pytest.mark.parametrize(
    "append",
    [
        lambda folder, trial: folder.append_trial(ended(trial)),
        lambda folder, trial: folder.append_epoch(trial.id, epoch(1)),
    ],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_whatever_the_disk_says_is_told_with_the_file(folder, monkeypatch, append, code):
    def fails(*_):
        raise OSError(code, os.strerror(code))

    trial = plan_trials(folder.study())[0]
    append(folder, trial)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", fails)
        with pytest.raises(RunFolderError, match=rf"jsonl cannot be written: {os.strerror(code)}"):
            append(folder, trial)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
    append(folder, trial)


def test_a_full_disk_ends_a_run_in_a_line_and_it_goes_on_later(tmp_path, folder, capsys):
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    for trial in plan_trials(folder.study()):
        folder.append_trial(ended(trial))
    words = ["run", str(file), "--storage", str(folder.path.parent)]
    study = folder.study_file.read_text()

    def run():
        raise RunFolderError(f"exit {main(words)}")

    assert limited(len(GOOD) - 10, run) == "exit 2"
    assert folder.study_file.read_text() == study
    assert not list(folder.path.glob("*.part"))
    assert main(words) == 0
    assert "all 12 trials have ended" in capsys.readouterr().out


def test_a_checkpoint_that_finds_no_room_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoints" / "t.safetensors"
    checkpoint.save(snapshot(), path)
    newer = replace(snapshot(), rows=[epoch(1), epoch(2), epoch(3)])
    for room in (0, 100, 5_000, 150_000):
        said = limited(room, lambda: checkpoint.save(newer, path))
        assert said is not None
        assert said.startswith(f"{path} cannot be written: ")
        assert "a checkpoint of 200,000 bytes" in said
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        assert len(checkpoint.load(path).rows) == 2
    assert limited(10**7, lambda: checkpoint.save(newer, path)) is None
    assert len(checkpoint.load(path).rows) == 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_checkpoint_that_cannot_take_the_old_one_s_place_is_told(tmp_path, monkeypatch, code):
    path = tmp_path / "t.safetensors"
    checkpoint.save(snapshot(), path)

    def fails(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(RunFolderError, match=f"{os.strerror(code)}, with a checkpoint of"):
        checkpoint.save(snapshot(10), path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert len(checkpoint.load(path).tensors["encoder/weight"]) == 50_000


def test_a_folder_that_is_a_file_is_no_traceback(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(RunFolderError, match=r"t\.safetensors cannot be written: "):
        checkpoint.save(snapshot(), tmp_path / "checkpoints" / "t.safetensors")


def test_images_that_find_no_room_are_a_data_error(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    said = r"synthetic-32px-.* cannot be written: No space .* for 18,432,000 bytes; .*--data"
    with pytest.raises(DataError, match=said):
        prepare("synthetic", 32, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        prepare("synthetic", 32, tmp_path / "file")


def test_a_real_disk_that_is_full(tmp_path):
    mount = tmp_path / "tiny"
    mount.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=64k tiny {mount} 2>/dev/null"):
        pytest.skip("mounting a disk takes root")
    try:
        folder = RunFolder.create(mount / "good").keep(parse_study(GOOD, "good.toml"))
        (mount / "ballast").write_bytes(bytes(30_000))
        with pytest.raises(RunFolderError, match="No space left on device, with a row of"):
            for number in range(1, 1_000):
                folder.append_epoch("a", epoch(number))
        kept = folder.epochs()["a"]
        assert len(kept) > 10
        lines = (folder.path / "epochs.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [row.epoch for row in kept]
        with pytest.raises(RunFolderError, match=r"No space left on device.*200,000 bytes"):
            checkpoint.save(snapshot(), folder.checkpoint("a"))
        assert not list(folder.checkpoints.iterdir())
        (mount / "ballast").unlink()
        folder.append_epoch("a", epoch(len(kept) + 1))
        assert len(folder.epochs()["a"]) == len(kept) + 1
        Path(folder.path / "checkpoints").rmdir()
    finally:
        os.system(f"umount {mount}")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["report", "RUN", "-o", "FILE"], "--output"),
        (["report", "RUN", "RUN", "-o", "FILE"], "--output"),
        (["run", "STUDY", "--storage", "FILE"], "--storage"),
        (["restore", "EVIDENCE", "--storage", "FILE"], "--storage"),
        (["data", "digits", "--data", "FILE"], "--data"),
        (["data", "synthetic", "--data", "FILE"], "--data"),
        (["run", "DONE"], "--storage"),
    ],
)
def test_another_folder_is_named_by_an_option_that_the_command_has(
    tmp_path, capsys, words, option
):
    folder = run_of(tmp_path / "runs" / "made", q0=[0.8], q500=[0.9])
    folder.report.write_text("no folder")
    file = tmp_path / "file"
    file.write_text("no folder")
    stand = {"RUN": folder.path, "FILE": file, "EVIDENCE": EVIDENCE}
    stand |= {"STUDY": folder.study_file, "DONE": folder.study_file}
    more = ["--storage", str(tmp_path / "runs")] if "DONE" in words else []
    assert main([str(stand.get(word, word)) for word in words] + more) in (2, 3)
    said = capsys.readouterr().err
    assert "cannot be written: " in said
    assert {found for found in ("--output", "--storage", "--data") if found in said} == {option}


def test_an_original_that_cannot_be_read_is_not_told_as_one_to_be_written(tmp_path, monkeypatch):
    def read(_row):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    part = Part(20, read, np.arange(20) % 2)
    original = Original(["a", "b"], {"train": part, "test": part})
    monkeypatch.setattr(prepared, "open_original", lambda *_: original)
    with pytest.raises(DataError, match="cannot be read: Input/output error") as caught:
        prepared.prepare("synthetic", 32, tmp_path)
    assert "written" not in str(caught.value)
