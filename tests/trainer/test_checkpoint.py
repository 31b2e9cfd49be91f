"""Checkpoints that are half, foreign or another trial's: never loaded, never in the way."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from nnclr_study.errors import RunFolderError
from nnclr_study.trainer import checkpoint
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.loop import Snapshot, train
from nnclr_study.trainer.world import World
from tests.study.test_run_folder import epoch
from tests.trainer.test_loop import config, rows

MARK = []


class Attack:
    """Marks when it is unpickled."""

    def __reduce__(self):
        return MARK.append, ("ran",)


def snapshot(*numbers, **knobs):
    return Snapshot(config(**knobs), [epoch(n) for n in numbers], {"x": torch.zeros(3)})


def rubbish(path):
    """Yield files that are no checkpoints, one after another, in a path."""
    checkpoint.save(snapshot(1, 2), path)
    whole = path.read_bytes()
    for cut in (0, 1, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        yield f"cut at {cut}"
    path.write_bytes(whole + b"\0" * 100)
    yield "too long"
    path.write_bytes(b"\xff" * len(whole))
    yield "binary"
    path.write_bytes(pickle.dumps(Attack()))
    yield "a pickle"
    torch.save(Attack(), path)
    yield "torch's"
    save_file({"x": torch.zeros(3)}, path)
    yield "without metadata"
    about = {"config": config().model_dump_json(), "rows": json.dumps([epoch(1).model_dump()])}
    for key, value in (
        ("config", "{}}"),
        ("config", '{"queue_size": -1}'),
        ("rows", "[1]"),
        ("rows", "[" * 100_000),
        ("rows", '[{"epoch": 1}]'),
        ("rows", "null"),
    ):
        save_file({"x": torch.zeros(3)}, path, metadata=about | {key: value})
        yield f"{key} is {value[:9]}"


def test_what_is_no_checkpoint_is_refused_and_set_aside(tmp_path):
    path = tmp_path / "t.safetensors"
    for kind in rubbish(path):
        content = path.read_bytes()
        with pytest.raises(RunFolderError, match=r"t\.safetensors is no checkpoint"):
            checkpoint.load(path)
        assert path.read_bytes() == content, "whoever only reads changes nothing"
        assert checkpoint.resume(path, config()) is None, kind
        assert not path.exists()
        assert (tmp_path / "t.safetensors.bad").read_bytes() == content
    assert MARK == []
    assert checkpoint.resume(path, config()) is None


@pytest.mark.parametrize(
    "other",
    [
        snapshot(1, 2, learning_rate=0.5),
        snapshot(1, 2, seed=6),
        snapshot(),
        snapshot(2, 3),
        snapshot(1, 3),
        snapshot(1, 1),
        snapshot(1, 2, 3, 4, 5),
    ],
    ids=["another rate", "another seed", "no epoch", "no first", "a gap", "twice", "beyond"],
)
def test_another_trial_s_state_is_not_gone_on_from(tmp_path, other):
    path = tmp_path / "t.safetensors"
    checkpoint.save(other, path)
    assert checkpoint.resume(path, config()) is None
    assert path.with_name("t.safetensors.bad").exists()


def test_a_folder_in_its_place_is_set_aside(tmp_path):
    path = tmp_path / "t.safetensors"
    path.mkdir()
    assert checkpoint.resume(path, config()) is None
    checkpoint.save(snapshot(1), path)
    assert checkpoint.resume(path, config()).rows == [epoch(1)]


def test_what_a_killed_writer_left_is_not_the_checkpoint(tmp_path):
    path = tmp_path / "t.safetensors"
    checkpoint.save(snapshot(1), path)
    path.with_name("t.safetensors.part").write_bytes(path.read_bytes()[:50])
    assert checkpoint.resume(path, config()).rows == [epoch(1)]
    checkpoint.save(snapshot(1, 2), path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert len(checkpoint.resume(path, config()).rows) == 2


def test_a_trial_whose_checkpoint_was_spoilt_ends_with_the_rows_it_would_have_had(tmp_path):
    path = tmp_path / "t.safetensors"
    data = load_dataset(config(), tmp_path)
    whole = rows(train(config(), data, World()))
    for state in train(config(), data, World()):
        checkpoint.save(state, path)
        if len(state.rows) == 2:
            break
    recorded = [row.model_dump(exclude={"seconds", "train_seconds"}) for row in state.rows]
    path.write_bytes(path.read_bytes()[:-1])
    again = rows(train(config(), data, World(), checkpoint.resume(path, config())))
    assert again == whole
    assert again[:2] == recorded, "so that rows which are recorded already stand for its own"
