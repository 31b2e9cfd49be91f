"""Images and batches: the right ones, once each, the same for every trial."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision

from nnclr_study.errors import DataError
from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import data
from nnclr_study.trainer.data import batches, load_dataset

DIGITS = TrialConfig(dataset="digits", batch_size=80, labelled_batch_size=16, val_fraction=0.5)


@pytest.fixture(autouse=True)
def fresh():
    data._prepared.cache_clear()
    yield
    data._prepared.cache_clear()


def test_the_digits_are_all_there_and_in_one_split_each(tmp_path):
    digits = load_dataset(DIGITS, tmp_path)
    everyone = [digits.unlabelled, digits.train.images, digits.val.images, digits.test.images]
    parts = [images[:] for images in everyone]
    assert [len(part) for part in parts] == [797, 250, 250, 500]
    assert digits.num_classes == 10
    assert digits.side == 32
    assert all(part.dtype == torch.uint8 and part.shape[1:] == (3, 32, 32) for part in parts)
    from sklearn.datasets import load_digits

    pixels = [hash(image.numpy().tobytes()) for part in parts for image in part]
    originals = load_digits().images
    assert len(set(pixels)) == len(pixels) == len(originals)
    for split in (digits.train, digits.val, digits.test):
        counts = split.labels.bincount()
        share = np.bincount(load_digits().target) / len(originals) * len(split.labels)
        assert np.abs(counts.numpy() - share).max() <= 1.5, "stratified"


def test_digits_look_like_the_digits_they_are_labelled(tmp_path):
    from sklearn.datasets import load_digits

    digits, original = load_dataset(DIGITS, tmp_path), load_digits()
    small = torch.nn.functional.avg_pool2d(digits.test.images[:][:, :1].float(), 4).flatten(1)
    means = np.stack([original.data[original.target == c].mean(0) for c in range(10)])
    nearest = torch.cdist(small / 255 * 16, torch.tensor(means).float()).argmin(1)
    assert (nearest == digits.test.labels).float().mean() > 0.85


def test_the_splits_are_the_same_for_every_seed_and_val_grows_with_its_share(tmp_path):
    one = load_dataset(DIGITS, tmp_path)
    other = load_dataset(DIGITS.model_copy(update={"seed": 7}), tmp_path)
    assert torch.equal(one.val.images[:], other.val.images[:])
    small = load_dataset(DIGITS.model_copy(update={"val_fraction": 0.2}), tmp_path)
    assert (len(small.train.labels), len(small.val.labels)) == (400, 100)
    assert torch.equal(small.test.images[:], one.test.images[:])


@pytest.mark.parametrize("knob", ["batch_size", "labelled_batch_size"])
def test_a_batch_larger_than_the_set_is_refused(tmp_path, knob):
    config = DIGITS.model_copy(update={knob: 1_000})
    with pytest.raises(DataError, match=f"{knob}=1000 is more than the .* images of digits; use"):
        load_dataset(config, tmp_path)


def write_stl10(folder, monkeypatch, counts):
    """Write tiny files in STL-10's binary format and have torchvision expect them."""
    generator = np.random.default_rng(0)
    sums = {}
    base = folder / "stl10_binary"
    base.mkdir(parents=True)
    images = {}
    for split, count in counts.items():
        # On disk each image is 3 x width x height: columns first.
        images[split] = generator.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        files = {f"{split}_X.bin": images[split].tobytes()}
        if split != "unlabeled":
            files[f"{split}_y.bin"] = (np.arange(count) % 10 + 1).astype(np.uint8).tobytes()
        for name, content in files.items():
            (base / name).write_bytes(content)
            sums[name] = hashlib.md5(content).hexdigest()
    dataset = torchvision.datasets.STL10
    lists = {
        "train_list": ["train_X.bin", "train_y.bin", "unlabeled_X.bin"],
        "test_list": ["test_X.bin", "test_y.bin"],
    }
    for name, files in lists.items():
        monkeypatch.setattr(dataset, name, [[file, sums[file]] for file in files])
    for name in ("class_names.txt", "fold_indices.txt"):
        (base / name).write_text("\n".join("abcdefghij"))
    return images


def test_stl10_is_read_from_a_folder_that_holds_its_binary_files(tmp_path, monkeypatch):
    files = write_stl10(tmp_path, monkeypatch, {"unlabeled": 30, "train": 50, "test": 20})
    config = TrialConfig(dataset="stl10", batch_size=20, labelled_batch_size=5, queue_size=100)
    stl10 = load_dataset(config, tmp_path)
    assert [len(s.labels) for s in (stl10.train, stl10.val, stl10.test)] == [40, 10, 20]
    assert stl10.unlabelled[:].shape == (30, 3, 96, 96)
    assert stl10.num_classes == 10
    assert stl10.val.labels.bincount().tolist() == [1] * 10, "stratified"
    upright = torch.from_numpy(files["unlabeled"]).mT
    assert torch.equal(stl10.unlabelled[:], upright)
    held_out = {image.numpy().tobytes() for image in stl10.val.images[:]}
    assert held_out.isdisjoint(image.numpy().tobytes() for image in stl10.train.images[:])


def test_stl10_that_cannot_be_had_is_a_data_error_with_a_way_out(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("network unreachable")

    monkeypatch.setattr(torchvision.datasets.STL10, "download", offline)
    with pytest.raises(DataError, match=r"network unreachable.*--data"):
        load_dataset(TrialConfig(), tmp_path / "new")


def test_a_label_beyond_the_classes_is_told_before_the_first_trial(tmp_path, monkeypatch):
    for label, said in ((0, "train has the label -1"), (11, "train has the label 10")):
        home = tmp_path / str(label)
        write_stl10(home, monkeypatch, {"unlabeled": 30, "train": 50, "test": 20})
        base, kind = home / "stl10_binary", torchvision.datasets.STL10
        content = bytes([label]) + (base / "train_y.bin").read_bytes()[1:]
        (base / "train_y.bin").write_bytes(content)
        sums = [[n, hashlib.md5((base / n).read_bytes()).hexdigest()] for n, _ in kind.train_list]
        monkeypatch.setattr(kind, "train_list", sums)
        with pytest.raises(DataError, match=rf"stl10 in .*{said}; labels go from 0 to 9"):
            load_dataset(TrialConfig(dataset="stl10"), home)


@pytest.mark.parametrize(
    "counts, cut, said",
    [
        ({"unlabeled": 30, "train": 50, "test": 20}, 1, "test_X.bin has 552,959 bytes: not a num"),
        ({"unlabeled": 30, "train": 50, "test": 20}, 27_648, "test has 19 images and 20 labels"),
        ({"unlabeled": 30, "train": 50, "test": 0}, 0, "test_X.bin has 0 bytes"),
    ],
)
def test_files_of_the_wrong_shape_are_told(tmp_path, monkeypatch, counts, cut, said):
    write_stl10(tmp_path, monkeypatch, counts)
    base, kind = tmp_path / "stl10_binary", torchvision.datasets.STL10
    content = (base / "test_X.bin").read_bytes()
    (base / "test_X.bin").write_bytes(content[: len(content) - cut])
    sums = [[n, hashlib.md5((base / n).read_bytes()).hexdigest()] for n, _ in kind.test_list]
    monkeypatch.setattr(kind, "test_list", sums)
    # What torchvision itself reads of them, it reads by its own rules.
    monkeypatch.setattr(kind, "__init__", lambda *_, **__: None)
    with pytest.raises(DataError, match=said):
        load_dataset(TrialConfig(dataset="stl10"), tmp_path)


@pytest.mark.parametrize("share, said", [(1e-4, "no image to val"), (0.9999, "to train on")])
def test_a_share_that_leaves_a_split_empty_is_told(tmp_path, share, said):
    with pytest.raises(DataError, match=f"val_fraction={share} of the 500 labelled .*{said}"):
        load_dataset(DIGITS.model_copy(update={"val_fraction": share}), tmp_path)


def test_a_pass_shows_every_image_once_before_any_twice():
    order = batches(100, 8, range(50), seed=1, name="x").flatten()
    for k in range(4):
        assert sorted(order[k * 100 : (k + 1) * 100].tolist()) == list(range(100))
    assert not torch.equal(order[:100], order[100:200])
    assert Counter(order.tolist()).most_common(1)[0][1] == 4


def test_a_step_s_batch_is_the_same_however_one_got_there():
    whole = batches(37, 5, range(40), seed=1, name="x")
    parts = [batches(37, 5, range(a, b), seed=1, name="x") for a, b in ((0, 3), (3, 29), (29, 40))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(batches(37, 5, range(40), seed=2, name="x"), whole)
    assert not torch.equal(batches(37, 5, range(40), seed=1, name="y"), whole)
