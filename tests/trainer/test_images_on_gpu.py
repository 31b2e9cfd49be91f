"""Copies of images on a GPU: when they are made, and how long they stay."""

import warnings

import numpy as np
import pytest
import torch

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import images
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.world import CPU


def on_gpu(monkeypatch, total=2**30, free=0):
    """Return the device that stands for a GPU with some memory, which has no copies yet."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, total))
    monkeypatch.setattr(images, "_on_gpu", {})
    return torch.device("meta")


def held(dataset):
    parts = [dataset.unlabelled, *(split.images for split in (dataset.train, dataset.val))]
    return [part._pixels for part in parts]


def test_images_stay_on_a_gpu_for_the_next_trial_of_a_process(tmp_path, monkeypatch):
    gpu = on_gpu(monkeypatch)
    digits, larger = (TrialConfig(dataset="digits", image_size=side) for side in (32, 48))
    first = held(load_dataset(digits, tmp_path).on(gpu))
    again = held(load_dataset(digits.model_copy(update={"seed": 2}), tmp_path).on(gpu))
    assert {pixels.device for pixels in first} == {gpu}
    assert all(a is b for a, b in zip(first, again, strict=True)), "copied once"
    load_dataset(larger, tmp_path).on(gpu)
    assert [copy.shape[-1] for _, copy in images._on_gpu.values()] == [48], "others are freed"


def test_images_that_are_on_a_gpu_are_not_copied_again(tmp_path, monkeypatch):
    gpu = on_gpu(monkeypatch)
    once = load_dataset(TrialConfig(dataset="digits"), tmp_path).on(gpu)
    assert held(once.on(gpu)) == held(once)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_images_go_to_a_gpu_by_the_trial_s_share_whatever_is_free(tmp_path, monkeypatch, share):
    digits = load_dataset(TrialConfig(dataset="digits"), tmp_path)
    fits = int(2 * digits.bytes / share)
    for total, resident in ((fits, True), (fits - 8, False)):
        for free in (0, total):
            gpu = on_gpu(monkeypatch, total, free)
            assert isinstance(held(digits.on(gpu, share))[0], torch.Tensor) == resident
            assert bool(images._on_gpu) == resident


def test_images_are_copied_to_a_gpu_in_parts_and_without_a_warning(tmp_path, monkeypatch):
    pixels = np.arange(7 * 3 * 2 * 2, dtype=np.uint8).reshape(7, 3, 2, 2)
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    for size in (1, 3 * 12, 1_000):
        monkeypatch.setattr(images, "COPIED_BYTES", size)
        with warnings.catch_warnings(action="error"):
            copy = images._copied(mapped, CPU)
        assert torch.equal(copy, torch.from_numpy(pixels))
    assert images._copied(mapped[:0], CPU).shape == (0, 3, 2, 2)
