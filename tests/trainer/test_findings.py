"""What a user is told of a data set before any trial is trained on it."""

import json

import numpy as np
import pytest
from PIL import Image

from nnclr_study.cli import main
from nnclr_study.errors import PluginError
from nnclr_study.study.config import images_config
from nnclr_study.trainer import plugins, prepared
from nnclr_study.trainer.contracts import DatasetPlugin, Original, Part
from nnclr_study.trainer.findings import findings
from nnclr_study.trainer.prepared import prepare

SIDE = 32


def write(path, seed=0, size=(SIDE, SIDE)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def base(tmp_path):
    """An image folder `birds` of two classes, of which nothing is to be said."""
    for number in range(240):
        part = "train" if number < 180 else "test"
        write(tmp_path / "birds" / part / ("crow", "owl")[number % 2] / f"{number:03}.png", number)
    return tmp_path / "birds"


def told(base, **knobs):
    config = images_config("folder:birds", SIDE).model_copy(update={"val_fraction": 0.3} | knobs)
    return findings(prepare("folder:birds", SIDE, base.parent), config)


def copy(base, source, target):
    (base / target).parent.mkdir(exist_ok=True)
    (base / target).write_bytes((base / source).read_bytes())


def test_of_a_sound_folder_nothing_is_said(base):
    assert told(base) == (0, 0, [], [])


def test_images_of_test_in_train_are_counted_apart_from_those_in_val(base):
    for number in range(0, 20, 2):
        copy(base, f"train/crow/{number:03}.png", f"test/crow/x{number:03}.png")
    found = told(base)
    assert found.identical == 20
    in_train, in_val, all_copies = found.warnings
    counts = [int(text.split()[0]) for text in (in_train, in_val)]
    assert sum(counts) == 10
    assert all(counts)
    assert " of 70 test images are also in train, as test/crow/x" in in_train
    assert " of 70 test images are also in val, as test/crow/x" in in_val
    assert all_copies == "20 of 250 images are identical to another one; remove the copies"


def test_val_that_is_trained_on_is_counted(base):
    for number in range(0, 180, 2):
        copy(base, f"train/crow/{number:03}.png", f"train/crow/{number:03}-copy.png")
    val, _ = told(base).warnings
    assert "val images are also in train, as train/crow/" in val
    assert "val accuracy is of images that were trained on; remove the copies" in val


def test_unlabelled_images_that_test_val_and_train_have_are_told(base):
    for number in (180, 182, 184):
        copy(base, f"test/crow/{number}.png", f"unlabelled/{number}.png")
    copy(base, "train/crow/000.png", "unlabelled/000.png")
    write(base / "unlabelled" / "new.png", 999)
    found = told(base)
    assert found.warnings[0].startswith("3 of 60 test images are also in unlabelled, as test/crow")
    assert found.identical == 8


def test_an_image_in_two_classes_is_told(base):
    copy(base, "train/crow/000.png", "train/owl/000.png")
    assert told(base).warnings[-1] == (
        "1 images of train are in more than one class, as train/crow/000.png and "
        "train/owl/000.png; keep each in one"
    )


def test_images_of_one_color_and_dark_ones_are_told(base):
    Image.new("RGB", (9, 9), (200, 0, 0)).save(base / "train" / "crow" / "red.png")
    dark = np.random.default_rng(0).integers(0, 2000, (SIDE, SIDE)).astype(np.uint16)
    Image.fromarray(dark).save(base / "train" / "owl" / "dark.png")
    found = told(base)
    assert found.one_color == 1
    one_color, dark = found.warnings
    assert one_color.startswith("1 of 242 images have one color throughout, as train/crow/red.png")
    assert dark.startswith("1 of 242 images are almost black: no value is above 16 of 255, as ")


def test_what_was_done_to_images_is_counted(base):
    tags = Image.Exif()
    tags[0x0112] = 6
    for kind in ("L", "RGBA", "I;16", "F"):
        values = np.random.default_rng(1).integers(0, 200, (SIDE, SIDE, 4), np.uint8)
        image = Image.fromarray(values) if kind != "I;16" else None
        image = image or Image.fromarray(values[..., 0].astype(np.uint16) * 300)
        image = image if kind in ("RGBA", "I;16") else image.convert("RGB").convert(kind)
        if kind == "F":
            image = Image.fromarray(values[..., 1].astype(np.float32) / 255)
        image.save(base / "train" / "crow" / f"odd {kind[0]}.tif", exif=tags)
    write(base / "train" / "owl" / "long.png", 1000, (4 * SIDE, SIDE))
    write(base / "train" / "owl" / "small.png", 1001, (SIDE // 2, SIDE // 2))
    frames = [Image.effect_noise((SIDE, SIDE), 50).convert("RGB") for _ in range(2)]
    frames[0].save(base / "train" / "owl" / "moves.gif", save_all=True, append_images=frames[1:])
    found = told(base)
    assert found.notes == [
        "4 of 247 images were turned upright, as their EXIF orientation says",
        "1 of 247 images with transparency were put on white",
        "1 of 247 images of 16 bits were scaled to 8 bits",
        "1 of 247 images of floating-point values from 0 to 1 were scaled to 8 bits",
        "1 of 247 images are smaller than the image size, and were enlarged",
        "1 of 247 images have one side more than 2 times the other: less than half is kept",
    ]
    (frames,) = found.warnings
    assert "1 of 247 images have several frames" in frames
    assert "as train/owl/moves.gif; save those that you want" in frames


def test_a_class_that_val_lacks_is_told_with_a_way_out(base):
    write(base / "train" / "rare" / "1.png", 5000)
    for number in range(60):
        write(base / "test" / "rare" / f"{number}.png", 6000 + number)
    (said,) = told(base).warnings
    assert said == (
        "val has no image of 1 of 3 classes: rare; add images to train (4 of a class are "
        "enough), or raise val_fraction"
    )
    for number in range(3):
        write(base / "train" / "rare" / f"more{number}.png", 7000 + number)
    assert told(base).warnings == [], "as many as it says are enough"


def test_one_class_and_few_images_are_told(base):
    for part in ("train", "test"):
        for path in (base / part / "owl").iterdir():
            path.unlink()
    (said, *_) = [text for text in told(base).warnings if "one class" in text]
    assert "every accuracy is 100 %; put the images of each class in a folder of its own" in said
    for number in range(30):
        write(base / "test" / "owl" / f"{number}.png", 8000 + number)
        write(base / "train" / "owl" / f"{number}.png", 9000 + number)
    for path in sorted((base / "test" / "crow").iterdir())[10:]:
        path.unlink()
    few = [text for text in told(base).warnings if "steps of" in text]
    assert few == [
        "val has 36 images: its accuracy goes in steps of 2.8 points; add images",
        "test has 40 images: its accuracy goes in steps of 2.5 points; add images",
    ]
    mostly = [text for text in told(base).warnings if "compare accuracies" in text]
    assert [text.split(" of the class ")[0] for text in mostly] == [
        "75% of val are",
        "75% of test are",
    ]


def test_what_an_earlier_version_prepared_is_prepared_anew_or_told(base, monkeypatch):
    monkeypatch.setattr(prepared, "RULES", prepared.RULES - 1)
    old = prepare("folder:birds", SIDE, base.parent)
    monkeypatch.undo()
    for records in old.path.glob("*_records.npy"):
        records.unlink()
    base.rename(base.parent / "away")
    (said,) = told(base).warnings
    assert "was prepared by an earlier version" in said
    (base.parent / "away").rename(base)
    new = prepare("folder:birds", SIDE, base.parent)
    assert new.path != old.path
    assert new.about("x")["sha256"] == old.about("x")["sha256"], "plain images are what they were"
    assert told(base).warnings == []


def test_a_plugin_s_images_follow_the_same_rules(tmp_path, monkeypatch):
    deep = Image.fromarray(np.full((SIDE, SIDE), 32768, np.uint16))

    def open_dataset(_folder, _side):
        part = Part(6, lambda _row: deep, np.arange(6) % 2)
        return Original(["a", "b"], {"train": part, "test": part})

    dataset = DatasetPlugin(lambda _: "1", open_dataset)
    monkeypatch.setattr(plugins, "_dataset", lambda _: ("plug-in odd", dataset))
    found = prepare("plugin:odd", SIDE, tmp_path)
    assert found.pixels["train"][0].max() == 128
    said = findings(found, images_config("plugin:odd", SIDE))
    assert (said.identical, said.one_color) == (12, 12)
    assert said.notes == ["12 of 12 images of 16 bits were scaled to 8 bits"]
    assert "as plug-in odd: image 0 of train; look" in said.warnings[0]
    deep = Image.new("I", (SIDE, SIDE))
    dataset = DatasetPlugin(lambda _: "2", open_dataset)
    with pytest.raises(prepared.DataError, match=r"plug-in odd: image 0 of train cannot be used"):
        prepare("plugin:odd", SIDE, tmp_path)
    with pytest.raises(PluginError):
        plugins._checked("plug-in odd", "train", Part(1, lambda row: 1 / 0, None)).read(0)


def test_a_set_prepared_from_elsewhere_keeps_what_was_found_of_its_folder(base, tmp_path):
    (base / "train" / "heron").mkdir()
    (base / "train" / "Thumbs.db").write_bytes(b"")
    config = images_config("folder:birds", SIDE)
    prepare("folder:birds", SIDE, tmp_path / "data", base.parent)
    said = findings(prepare("folder:birds", SIDE, tmp_path / "data"), config)
    assert said.notes == ["ignored 1 hidden, system or metadata files: Thumbs.db (1)"]
    assert any("has folders without images: heron" in warning for warning in said.warnings)


def test_a_set_prepared_by_earlier_rules_is_named(base, monkeypatch):
    found = prepare("folder:birds", SIDE, base.parent)
    monkeypatch.setattr("nnclr_study.trainer.findings.RULES", 3)
    said = findings(found, images_config("folder:birds", SIDE))
    assert "was prepared by an earlier version, rules 2 of 3" in said.warnings[0]


def test_data_and_run_say_the_same(base, capsys, monkeypatch):
    from nnclr_study.output import console
    from nnclr_study.sweep import engine

    copy(base, "train/crow/000.png", "train/crow/000-copy.png")
    (base / "train" / "Thumbs.db").write_bytes(b"")
    argv = ["data", "folder:birds", "--data", str(base.parent), "--image-size", str(SIDE)]
    assert main([*argv, "--json"]) == 0
    captured = capsys.readouterr()
    as_json = json.loads(captured.out)
    assert captured.err == ""
    note = "ignored 1 hidden, system or metadata files: Thumbs.db (1)"
    assert (as_json["identical"], as_json["one_color"], as_json["notes"]) == (2, 0, [note])
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert note in captured.out
    assert "identical to another image: 2; one color: 0" in captured.out
    said = [line.removeprefix("warning: ") for line in captured.err.splitlines()]
    assert said == as_json["warnings"]
    config = images_config("folder:birds", SIDE)
    with pytest.warns(engine.DataWarning) as warned:
        engine._prepare([config, config], base.parent, console(__import__("sys").stdout))
    assert {str(w.message) for w in warned} == {f"folder:birds, 32 px: {text}" for text in said}
    assert f"folder:birds, 32 px: {note}" in capsys.readouterr().out
