"""Image folders: what is an image, what is ignored and counted, and what is refused by name."""

import os
import unicodedata
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from nnclr_study.errors import DataError
from nnclr_study.trainer import folders
from nnclr_study.trainer.folders import LISTED, ImageFolder
from nnclr_study.trainer.prepared import prepare


@pytest.fixture
def base(tmp_path):
    """An image folder `birds` of two classes, with two images each in train and test."""
    for number in range(8):
        part, name = ("train", "test")[number // 4], ("crow", "owl")[number // 2 % 2]
        write(tmp_path / "birds" / part / name / f"{number}.png", number)
    return tmp_path / "birds"


def write(path, seed=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


JUNK = [
    *(".DS_Store", "._crow.png", ".hidden.png", "Thumbs.db", "THUMBS.DB", "desktop.ini"),
    *("x.png~", "x.png.part", "x.png.tmp", "labels.csv", "x.txt", "x.JSON", "x.xmp"),
    *(".ipynb_checkpoints/x.png", ".thumbnails/normal/x.png", ".AppleDouble/x.png"),
    *("@eaDir/x.png/SYNOPHOTO_THUMB_S.jpg", "__MACOSX/x.png", "$RECYCLE.BIN/x.png"),
    *("lost+found/x.png", "#recycle/x.png", ".git/objects/x", "System Volume Information/x.png"),
]


@pytest.mark.parametrize("at", ["train", "test", "train/crow", "test/owl", "unlabelled/deep"])
def test_junk_is_ignored_and_counted_at_every_level(base, at):
    write(base / "unlabelled" / "deep" / "1.png")
    before = ImageFolder(base)
    for name in JUNK:
        write(base / at / name)
    after = ImageFolder(base)
    assert after.files == before.files
    assert after.fingerprint() == before.fingerprint()
    assert after.original().classes == ["crow", "owl"]
    assert (before.notes(), len(after.notes())) == ([], 1)
    assert after.ignored.total() == len(JUNK)
    (note,) = after.notes()
    assert note.startswith(f"ignored {len(JUNK)} hidden, system or metadata files: ")


def test_a_line_names_the_most_common_of_the_ignored(base):
    for number in range(10):
        write(base / "train" / "crow" / ".ipynb_checkpoints" / f"{number}.png")
    for part in ("train", "test"):
        write(base / part / "owl" / "Thumbs.db")
    write(base / "train" / ".a\x1b[31m")
    (note,) = ImageFolder(base).notes()
    assert note == (
        "ignored 13 hidden, system or metadata files: .ipynb_checkpoints (10), Thumbs.db (2), "
        ".a\x1b[31m (1)"
    )


def test_a_linked_folder_of_a_junk_name_is_ignored_and_a_class_of_an_odd_name_is_not(base):
    (base / "train" / ".linked").symlink_to(base / "train" / "owl")
    for part in ("train", "test"):
        write(base / part / "old.bak" / "1.png")
    assert ImageFolder(base).original().classes == ["crow", "old.bak", "owl"]


@pytest.mark.parametrize("spelling", ["unlabelled", "unlabeled"])
def test_both_spellings_of_unlabelled_are_read_but_not_together(base, spelling):
    write(base / spelling / "1.png")
    assert ImageFolder(base).original().parts["unlabelled"].length == 1
    other = {"unlabelled": "unlabeled", "unlabeled": "unlabelled"}[spelling]
    write(base / other / "1.png")
    with pytest.raises(DataError, match=r"birds has both unlabelled and unlabeled; merge them"):
        ImageFolder(base)


@pytest.mark.parametrize("part", ["unlabelled", "unlabeled", "test"])
def test_a_part_that_is_a_file_or_a_link_to_nothing_is_not_taken_for_missing(base, part):
    (base / "test").rename(base / "away" if part == "test" else base / "test")
    (base / part).symlink_to("gone")
    with pytest.raises(DataError, match=rf"birds/{part} is not a folder, or a link to one that"):
        ImageFolder(base)
    (base / part).unlink()
    (base / part).write_text("")
    with pytest.raises(DataError, match=rf"birds/{part} is not a folder"):
        ImageFolder(base)


def denied(monkeypatch, *paths):
    """Have some folders unreadable, as for root none is."""
    scandir, names = os.scandir, {str(path) for path in paths}

    def failing(path):
        if str(path) in names:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)


@pytest.mark.parametrize("at", ["train", "test/owl", "train/owl/deep", "unlabelled/deep"])
def test_a_folder_that_cannot_be_read_is_named(base, at, monkeypatch):
    write(base / "unlabelled" / "1.png")
    write(base / at / "x.png")
    denied(monkeypatch, base / at)
    with pytest.raises(DataError, match=rf"birds/{at} cannot be read: Permission denied; make"):
        ImageFolder(base)


def test_an_error_while_a_folder_is_read_is_told(base, monkeypatch):
    class Failing:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __iter__(self):
            raise OSError(116, "Stale file handle")

    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: Failing() if path.name == "owl" else scandir(path)
    )
    with pytest.raises(DataError, match=r"(?s)2 problems in .*owl cannot be read: Stale file ha"):
        ImageFolder(base)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_without_permission_a_folder_is_named(base):
    (base / "train" / "owl").chmod(0)
    try:
        with pytest.raises(DataError, match=r"train/owl cannot be read: Permission denied"):
            ImageFolder(base)
    finally:
        (base / "train" / "owl").chmod(0o700)


def test_what_is_no_regular_file_is_refused_at_once(base):
    os.mkfifo(base / "train" / "owl" / "fifo.png")
    (base / "train" / "owl" / "zero.png").symlink_to("/dev/zero")
    (base / "train" / "owl" / "gone.png").symlink_to("gone")
    (base / "test" / "owl" / "self.png").symlink_to("self.png")
    with pytest.raises(DataError) as error:
        ImageFolder(base)
    for said in ("4 problems in", "fifo.png is not a regular", "zero.png is not a regular"):
        assert said in str(error.value)
    assert "gone.png cannot be read: No such file" in str(error.value)
    assert "self.png cannot be read: Too many levels" in str(error.value)


def test_links_that_lead_round_in_circles_end(base):
    for number in range(4):  # each alone is walked forty levels deep; together without an end
        (base / "train" / "owl" / f"up{number}").symlink_to("..")
    with pytest.raises(DataError, match=r"(?s)4 problems.*up0 is a link to a folder that holds"):
        ImageFolder(base)


def test_classes_are_compared_in_one_form_of_unicode(base, tmp_path):
    for part, form in (("train", "NFC"), ("test", "NFD")):
        (base / part / "owl").rename(base / part / unicodedata.normalize(form, "été"))
    found = prepare("folder:birds", 32, tmp_path)
    assert found.classes == ["crow", unicodedata.normalize("NFC", "été")]
    assert [found.labels[part].tolist() for part in ("train", "test")] == [[0, 0, 1, 1]] * 2
    write(base / "train" / unicodedata.normalize("NFD", "été") / "1.png")
    with pytest.raises(DataError, match=r"'e\\u0301te\\u0301' and '\\xe9t\\xe9', whose .* merge"):
        ImageFolder(base).original()


@pytest.mark.parametrize("near", ["Owl", "owl ", "o\u200bwl", "\uff4fwl"])
def test_names_that_look_alike_are_shown_apart(base, near):
    (base / "test" / "owl").rename(base / "test" / near)
    with pytest.raises(DataError) as error:
        ImageFolder(base).original()
    assert f"train has a class 'owl', and {base}/test has {near!a}; if" in str(error.value)
    for part in ("train", "test"):
        write(base / part / "owl" / "1.png")
        write(base / part / near / "1.png")
    (warning,) = ImageFolder(base).warnings()
    assert ascii(near) in warning
    assert "'owl'" in warning


def test_all_classes_and_images_that_are_out_of_place_are_told_together(base):
    for number in range(LISTED + 5):
        write(base / "train" / f"only {number}" / "1.png")
    with pytest.raises(DataError, match=r"(?s)25 problems .*'only 0' that .*\.\.\. and 5 more$"):
        ImageFolder(base).original()
    write(base / "train" / "x.png")
    write(base / "test" / "y.png")
    with pytest.raises(DataError, match=r"(?s)2 problems .*x.png is not in a .*y.png is not in"):
        ImageFolder(base).original()


def test_folders_that_are_not_used_and_classes_without_images_are_told(base):
    for name in ("val", "Unlabelled", "__MACOSX", ".git"):
        write(base / name / "crow" / "1.png")
    write(base / "train" / "kite" / ".DS_Store")
    unused, empty = ImageFolder(base).warnings()
    assert "test, train of" in unused
    assert "not Unlabelled, val; val is held out of train" in unused
    assert "birds/train has folders without images: kite" in empty


def test_a_missing_part_is_told_with_what_is_there(base):
    (base / "test").rename(base / "Test")
    with pytest.raises(DataError, match=r"no images in .*test; .* \(birds has Test, train\)"):
        ImageFolder(base)


def test_all_broken_files_are_told_at_once_and_nothing_is_left(base, tmp_path):
    for number in range(LISTED + 3):
        (base / "train" / "owl" / f"bad{number:02}.png").write_bytes(b"")
    whole = (base / "test" / "owl" / "6.png").read_bytes()
    (base / "test" / "owl" / "6.png").write_bytes(whole[: len(whole) // 2])
    Image.new("I", (9, 9)).save(base / "train" / "crow" / "deep.tif")
    with pytest.raises(DataError) as error:
        prepare("folder:birds", 32, tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{LISTED + 5} problems in folder:birds:"
    assert f"{base}/train/crow/deep.tif cannot be used: signed integers" in lines[1]
    assert f"{base}/train/owl/bad00.png is not an image that can be read" in lines[2]
    assert lines[-1] == "  ... and 5 more"
    kept = [path.suffix for path in (tmp_path / "prepared").iterdir()]
    assert kept == [".lock"], "no half of a data set takes room"
    for path in [*base.rglob("bad*"), *base.rglob("deep*")]:
        path.unlink()
    with pytest.raises(DataError, match=rf"^{base}/test/owl/6.png is not an image .*truncated"):
        prepare("folder:birds", 32, tmp_path)


def test_a_file_that_cannot_be_opened_is_told_as_such(base, tmp_path, monkeypatch):
    monkeypatch.setattr(
        folders.Image, "open", lambda path: (_ for _ in ()).throw(OSError(5, "I/O error"))
    )
    with pytest.raises(DataError, match=r"8 problems .*"):
        prepare("folder:birds", 32, tmp_path)


def test_the_ignored_do_not_prepare_a_folder_anew(base, tmp_path):
    first = prepare("folder:birds", 32, tmp_path).path
    write(base / "train" / "owl" / ".ipynb_checkpoints" / "4.png")
    (base / "train" / "notes.txt").write_text("notes")
    assert prepare("folder:birds", 32, tmp_path).path == first
    assert Counter(ImageFolder(base).ignored) == {".ipynb_checkpoints": 1, "*.txt": 1}
