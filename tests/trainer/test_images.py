"""Data sets prepared once, read where they lie, and streamed where they do not fit."""

import hashlib
import io
import json
import pickle
import subprocess
import sys
import threading
from shutil import rmtree
from textwrap import dedent

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from nnclr_study.errors import DataError
from nnclr_study.trainer import feed as feeding
from nnclr_study.trainer import loop, prepared, sources
from nnclr_study.trainer.data import _prepared, batches, load_dataset
from nnclr_study.trainer.feed import feed
from nnclr_study.trainer.images import Images
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.prepared import prepare
from nnclr_study.trainer.world import CPU, World
from tests.trainer.test_loop import config, rows


@pytest.fixture(autouse=True)
def fresh():
    _prepared.cache_clear()


def picture(seed, size=(40, 40)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    """An image folder `birds` of two classes in several formats and shapes."""
    base = tmp_path / "birds"
    for part, count in (("train", 12), ("test", 4)):
        for kind, name in enumerate(("crow", "owl")):
            (base / part / name).mkdir(parents=True)
            for row in range(count):
                picture(100 * kind + row, (40 + 10 * kind, 40)).save(
                    base / part / name / f"{row:02}.png"
                )
    picture(1).convert("L").save(base / "train" / "crow" / "00.png")
    picture(2).convert("RGBA").save(base / "train" / "crow" / "01.png")
    picture(3).save(base / "train" / "crow" / "02.bmp")
    (base / "train" / ".DS_Store").write_text("not ours")
    return base


def half():
    """Return the first half of an image's bytes."""
    content = io.BytesIO()
    picture(1).save(content, "PNG")
    return content.getvalue()[: len(content.getvalue()) // 2]


def birds(**knobs):
    usual = {"dataset": "folder:birds", "image_size": 32, "batch_size": 12, "queue_size": 40}
    return config(**(usual | {"labelled_batch_size": 4, "val_fraction": 0.2} | knobs))


def test_an_image_folder_is_what_lies_in_it(folder, tmp_path):
    found = prepare("folder:birds", 40, tmp_path)
    assert found.classes == ["crow", "owl"]
    assert {part: len(pixels) for part, pixels in found.pixels.items()} == {"train": 25, "test": 8}
    assert found.labels["train"].tolist() == [0] * 13 + [1] * 12
    stored = np.asarray(Image.open(folder / "train" / "crow" / "05.png"))
    # 00, 01, 02.bmp, 02.png, 03, 04, 05
    assert np.array_equal(found.pixels["train"][6], stored.transpose(2, 0, 1))
    grey = found.pixels["train"][0]
    assert np.array_equal(grey[0], grey[1])
    wide = np.asarray(Image.open(folder / "test" / "owl" / "01.png"))
    assert wide.shape == (40, 50, 3)
    assert np.array_equal(found.pixels["test"][5], wide[:, 5:45].transpose(2, 0, 1)), "the middle"
    assert not found.pixels["train"].flags.writeable


def test_without_unlabelled_images_train_less_val_serves(folder, tmp_path):
    data = load_dataset(birds(), tmp_path)
    assert len(data.unlabelled) == len(data.train.labels) == 20
    assert (len(data.val.labels), len(data.test.labels)) == (5, 8)
    assert torch.equal(data.unlabelled[:], data.train.images[:])
    seen = {image.numpy().tobytes() for image in data.unlabelled[:]}
    assert seen.isdisjoint(image.numpy().tobytes() for image in data.val.images[:])
    (folder / "unlabelled" / "deep").mkdir(parents=True)
    for row in range(14):
        picture(500 + row).save(folder / "unlabelled" / "deep" / f"{row:02}.jpg")
    prepare("folder:birds", 32, tmp_path)
    _prepared.cache_clear()
    assert len(load_dataset(birds(), tmp_path).unlabelled) == 14


def test_it_is_prepared_once_and_anew_when_it_has_changed(folder, tmp_path, monkeypatch):
    first = prepare("folder:birds", 32, tmp_path)
    opened = []
    original = sources.open_original
    monkeypatch.setattr(prepared, "open_original", lambda *a: opened.append(a) or original(*a))
    assert prepare("folder:birds", 32, tmp_path).path == first.path
    assert opened == []
    picture(77).save(folder / "train" / "owl" / "new.png")
    second = prepare("folder:birds", 32, tmp_path)
    assert len(opened) == 1
    assert second.path != first.path
    assert len(second.pixels["train"]) == 26
    assert second.about("folder:birds")["sha256"] != first.about("folder:birds")["sha256"]
    (folder / "train" / "owl" / "new.png").unlink()
    assert prepare("folder:birds", 32, tmp_path).path == first.path
    chosen = prepared.prepared("folder:birds", 32, tmp_path)
    assert chosen.path == first.path, "trials take what was asked for last"
    assert len(opened) == 1
    folder.rename(tmp_path / "gone")
    assert prepare("folder:birds", 32, tmp_path).path == first.path
    with pytest.raises(DataError, match=r"no folder .*birds for dataset 'folder:birds'; put"):
        prepare("folder:birds", 64, tmp_path)


def test_a_trial_keeps_to_the_images_of_its_study_whatever_is_prepared_meanwhile(folder, tmp_path):
    first = prepare("folder:birds", 32, tmp_path)
    before = load_dataset(birds(), tmp_path, [first.path]).test.images[:]
    picture(77).save(next((folder / "test").rglob("*.png")))
    second = prepare("folder:birds", 32, tmp_path)
    again = load_dataset(birds(), tmp_path, [tmp_path / "prepared" / "other-32px-0", first.path])
    assert torch.equal(again.test.images[:], before)
    assert not torch.equal(
        load_dataset(birds(), tmp_path, [second.path]).test.images[:], before
    ), "it did change"


def test_one_process_prepares_and_an_interrupted_one_leaves_nothing_half(folder, tmp_path):
    bad = folder / "train" / "owl" / "zz.png"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"zz\.png is not an image that can be read"):
        prepare("folder:birds", 32, tmp_path)
    assert not [path for path in (tmp_path / "prepared").iterdir() if path.suffix == ""]
    bad.unlink()
    code = f"""
        from pathlib import Path
        from nnclr_study.trainer import prepared
        write = prepared._write
        prepared._write = lambda *a: print("prepares") or write(*a)
        print(len(prepared.prepare("folder:birds", 32, Path({str(tmp_path)!r})).pixels["train"]))
    """
    runs = [
        subprocess.Popen([sys.executable, "-c", dedent(code)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [run.communicate()[0].split() for run in runs]
    assert sorted(said, key=len) == [["25"], ["25"], ["prepares", "25"]]


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda base: (base / "test/crow").rename(base / "test/cow"), "a class 'cow' that"),
        (lambda base: (base / "train/x.png").write_bytes(b""), "x.png is not in a class; move it"),
        (lambda base: (base / "test").rename(base / "validation"), "no images in .*test; an"),
        (lambda base: rmtree(base / "test/owl"), "train has a class 'owl' that .*test does not"),
        (lambda base: rmtree(base / "train/owl"), "test has a class 'owl' that .*train does not"),
        (lambda base: rmtree(base / "train"), "no images in .*train; an"),
        (lambda base: (base / "unlabelled").mkdir(), "no images in .*unlabelled; an"),
        (lambda base: (base / "test/owl/x.png").symlink_to("none"), "x.png cannot be read: No"),
        (
            lambda base: (base / "test/owl/x.png").write_bytes(b""),
            "x.png is not an image that can",
        ),
        (
            lambda base: (base / "test/owl/x.png").write_bytes(half()),
            "x.png is not an image that can",
        ),
        (lambda base: (base / "test/owl/x.zip").write_text("notes"), "x.zip is not an image that"),
    ],
)
def test_a_folder_that_is_none_is_told_how_to_be_one(folder, tmp_path, spoil, said):
    spoil(folder)
    with pytest.raises(DataError, match=said):
        prepare("folder:birds", 32, tmp_path)


def replaced(name, content):
    return lambda path: np.save(path / name, content)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda path: (path / "about.json").write_text("{"), "Expecting property name"),
        (lambda path: (path / "about.json").write_text("[]"), "list indices"),
        (lambda path: (path / "about.json").write_text("{}"), "'parts'"),
        (lambda path: (path / "about.json").write_text('{"parts": {}}'), "no labelled train"),
        (lambda path: (path / "test.npy").unlink(), "No such file"),
        (lambda path: (path / "test.npy").write_bytes(b""), "No data|EOF|reading"),
        (lambda path: (path / "test.npy").write_bytes(b"\x93NUMPY"), "test.npy|expected|EOF"),
        (lambda path: (path / "test.npy").write_bytes(pickle.dumps([1])), "pickle"),
        (replaced("test.npy", np.zeros((8, 32, 32, 3), np.uint8)), r"test.npy .*\(8, 32, 32, 3\)"),
        (replaced("test.npy", np.zeros((8, 3, 32, 32))), "test.npy holds float64"),
        (replaced("test.npy", np.zeros((0, 3, 32, 32), np.uint8)), "test has no images"),
        (replaced("test_labels.npy", np.zeros(7, int)), "test has 8 images and 7 labels"),
        (replaced("test_labels.npy", np.arange(8)), "test has the label 7; labels go from 0 to 1"),
        (replaced("train_labels.npy", np.arange(25) - 1), "train has the label -1"),
        (replaced("train_labels.npy", np.array([MemoryError] * 25)), "allow_pickle"),
    ],
)
def test_prepared_images_that_were_spoilt_are_told(folder, tmp_path, spoil, said):
    home = prepare("folder:birds", 32, tmp_path).path
    spoil(home)
    with pytest.raises(DataError, match=f"(?s){home.name} is no prepared .*({said}).*; delete it"):
        load_dataset(birds(), tmp_path)
    rmtree(home)
    assert len(load_dataset(birds(), tmp_path).test.labels) == 8


def test_a_part_of_prepared_images_is_no_way_to_another_folder(folder, tmp_path):
    home = prepare("folder:birds", 32, tmp_path).path
    about = json.loads((home / "about.json").read_text())
    about["parts"]["../../stolen"] = about["parts"]["test"]
    (home / "about.json").write_text(json.dumps(about))
    np.save(tmp_path / "stolen.npy", np.zeros((8, 3, 32, 32), np.uint8))
    assert set(prepare("folder:birds", 32, tmp_path).pixels) == {"train", "test"}


def test_cifar_is_read_from_its_own_files(tmp_path, monkeypatch):
    base, kind = tmp_path / "cifar-10-batches-py", torchvision.datasets.CIFAR10
    base.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (70, 3072), dtype=np.uint8)
    files = {
        "data_batch_1": {"data": pixels[:40], "labels": [n % 10 for n in range(40)]},
        "test_batch": {"data": pixels[40:], "labels": [n % 10 for n in range(30)]},
        "batches.meta": {"label_names": [f"class {n}" for n in range(10)]},
    }
    sums = {}
    for name, content in files.items():
        (base / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((base / name).read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(kind, "meta", meta)
    data = load_dataset(birds(dataset="cifar10", labelled_batch_size=8), tmp_path)
    assert data.num_classes == 10
    assert (len(data.train.labels), len(data.val.labels), len(data.test.labels)) == (32, 8, 30)
    assert torch.equal(data.test.images[:], torch.from_numpy(pixels[40:].reshape(-1, 3, 32, 32)))


def test_synthetic_images_can_be_learned_but_not_from_their_pixels(tmp_path):
    found = prepare("synthetic", 32, tmp_path)
    again = prepare("synthetic", 32, tmp_path / "elsewhere")
    assert found.about("synthetic")["sha256"] == again.about("synthetic")["sha256"]
    pixels = {p: found.pixels[p].reshape(1000, -1) / 255.0 for p in ("train", "test")}
    power = {
        p: np.abs(np.fft.fft2(found.pixels[p].mean(1)))[:, :16].reshape(1000, -1)
        for p in ("train", "test")
    }
    for kind, least, most in ((pixels, 0.0, 0.25), (power, 0.35, 1.0)):
        means = np.stack([kind["train"][found.labels["train"] == c].mean(0) for c in range(10)])
        distance = ((kind["test"][:, None] - means) ** 2).sum(2)
        right = (distance.argmin(1) == found.labels["test"]).mean()
        assert least <= right <= most


def test_another_size_is_the_same_image_resized(tmp_path):
    small, large = (prepare("synthetic", size, tmp_path) for size in (32, 48))
    assert large.pixels["test"].shape == (1000, 3, 48, 48)
    digits = [load_dataset(config(image_size=size), tmp_path) for size in (32, 64)]
    near = torch.nn.functional.avg_pool2d(digits[1].test.images[:20].float(), 2)
    assert (near - digits[0].test.images[:20].float()).abs().mean() < 8
    assert small.path != large.path


@pytest.mark.parametrize("chunk_steps", [1, 3, 100])
def test_streamed_batches_are_the_same(chunk_steps, monkeypatch):
    images = Images(picture_array(50), torch.arange(50).flip(0))
    wanted = [(images, batches(50, size, range(7), 1, "x")) for size in (5, 3)]
    wanted.append((images, wanted[0][1][:, :0]))  # a worker without a share
    monkeypatch.setattr(feeding, "CHUNK_BYTES", chunk_steps * 8 * 3 * 16)
    direct, streamed = (list(feed(wanted, CPU, stream)) for stream in (False, True))
    assert len(direct) == len(streamed) == 7
    for ours, theirs in zip(streamed, direct, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(direct[2][0], images[wanted[0][1][2]])


def picture_array(count):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, 3, 4, 4), dtype=np.uint8)


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "image reader"]


def test_a_stream_that_is_left_early_ends_its_reader(monkeypatch):
    monkeypatch.setattr(feeding, "CHUNK_BYTES", 1)
    images = Images(picture_array(50), torch.arange(50))
    stream = feed([(images, batches(50, 5, range(100), 1, "x"))], CPU, stream=True)
    next(stream)
    assert len(readers()) == 1
    stream.close()
    assert readers() == []


def test_what_goes_wrong_in_the_reader_is_raised_in_the_trainer():
    images = Images(picture_array(50), torch.arange(50))
    stream = feed([(images, torch.full((3, 2), 50))], CPU, stream=True)
    with pytest.raises(IndexError):
        list(stream)
    assert readers() == []


def test_a_trial_is_the_same_streamed_or_not(folder, tmp_path, monkeypatch):
    trial = birds(epochs=2)
    data = load_dataset(trial, tmp_path)
    direct = rows(train(trial, data, World()))
    monkeypatch.setattr(loop, "must_stream", lambda *_: True)
    monkeypatch.setattr(feeding, "CHUNK_BYTES", 1)
    assert rows(train(trial, data, World())) == direct


def test_a_contact_sheet_shows_every_class(folder, tmp_path):
    from nnclr_study.trainer.contact_sheet import PER_ROW, contact_sheet

    sheet = Image.open(contact_sheet(prepare("folder:birds", 64, tmp_path), tmp_path / "s.png"))
    shown = np.asarray(sheet)
    first = np.asarray(prepare("folder:birds", 64, tmp_path).pixels["train"][13])
    assert any(
        np.array_equal(shown[top : top + 64, left : left + 64], first.transpose(1, 2, 0))
        for top in range(shown.shape[0] - 63)
        for left in range(shown.shape[1] - 64 * PER_ROW - 200, shown.shape[1] - 63)
        if np.array_equal(shown[top, left], first[:, 0, 0])
    )


@pytest.mark.slow
def test_an_image_folder_larger_than_memory_trains(tmp_path):
    # More than twice the memory that the process may claim beyond its own start.
    base, count, side, spare = tmp_path / "big", 24_000, 128, 480 << 20
    for part in ("train", "test"):
        for kind in range(2):
            (base / part / str(kind)).mkdir(parents=True)
    for row in range(count):
        part, kind = "test" if row % 100 < 2 else "train", str(row % 2)
        first, path = tmp_path / f"{row % 50}.bmp", base / part / kind / f"{row}.bmp"
        if row < 50:
            picture(row, (side, side)).save(first)
        path.hardlink_to(first)
    code = f"""
        import json, resource, sys
        from pathlib import Path
        import numpy as np
        import torch
        from nnclr_study.study.config import TrialConfig
        from nnclr_study.trainer.data import load_dataset
        from nnclr_study.trainer.loop import train
        from nnclr_study.trainer.prepared import prepare
        from nnclr_study.trainer.world import World
        from nnclr_study.trainer import feed, loop

        small = dict(steps_per_epoch=20, width=8, batch_size=28, labelled_batch_size=4, epochs=1,
                     queue_size=64)
        *_, = train(TrialConfig(dataset="digits", **small), load_dataset(
            TrialConfig(dataset="digits", **small), Path(".")), World())
        used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1])
        limit = used * 1024 + {spare}
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        home = Path({str(tmp_path)!r})
        found = prepare("folder:big", {side}, home)
        whole = sum(p.nbytes for p in found.pixels.values())
        trial = TrialConfig(dataset="folder:big", image_size={side}, **small)
        loop.must_stream = lambda *_: True
        feed.CHUNK_BYTES = 4 << 20
        (last,) = train(trial, load_dataset(trial, home), World())
        try:
            np.array(found.pixels["train"]); held = True
        except MemoryError:
            held = False
        print(json.dumps([whole / {spare}, last.rows[-1].val_probe_top1, held]))
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    larger, top1, held = json.loads(done.stdout.splitlines()[-1])
    assert larger > 2
    assert 0 <= top1 <= 1
    assert not held, "the same limit breaks a loader that holds the set"
