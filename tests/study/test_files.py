"""Only regular files below a folder are opened; nothing outside of it is read or written."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnclr_study.errors import RunFolderError
from nnclr_study.study import files

SECRET = "the only copy\nwithout an end"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text(SECRET)
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def outside_is_untouched(folder: Path) -> Iterator[None]:
    yield
    assert (folder.parent / "outside" / "file").read_text() == SECRET
    assert names(folder.parent / "outside") == ["file"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plant_link(path: Path) -> None:
    path.symlink_to("../outside/file")


def plant_dangling_link(path: Path) -> None:
    path.symlink_to("../outside/new")


def plant_socket(path: Path) -> None:
    with contextlib.chdir(path.parent):  # a socket's path must be short
        socket.socket(socket.AF_UNIX).bind(path.name)


PLANTED = {
    "a symbolic link": plant_link,
    "a symbolic link ": plant_dangling_link,
    "a named pipe": os.mkfifo,
    "a socket": plant_socket,
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("mode", ["rb", "r+b", "ab+", "xb"])
def test_only_regular_files_are_opened(folder: Path, kind: str, mode: str) -> None:
    PLANTED[kind](folder / "f")
    with pytest.raises(RunFolderError, match=f"f is {kind.strip()}, not a regular file"):
        files.open_inside(folder, "f", mode)
    with pytest.raises(RunFolderError):
        files.checked(folder, "f")


def test_a_device_is_not_opened() -> None:
    with pytest.raises(RunFolderError, match="null is a device, not a regular file"):
        files.open_inside(Path("/dev"), "null")


@pytest.mark.parametrize("plant", [plant_link, os.mkfifo, plant_dangling_link])
def test_a_new_file_takes_the_place_of_what_is_there(folder: Path, plant: object) -> None:
    plant(folder / "f")
    files.write_whole(folder, "f", "new")
    assert files.read_bytes(folder, "f") == b"new"
    assert names(folder) == ["f"]


@pytest.mark.parametrize("plant", [plant_link, os.mkfifo, plant_dangling_link])
def test_what_lies_at_the_name_of_a_part_is_deleted_and_not_filled(
    folder: Path, plant: object
) -> None:
    plant(folder / "f.part")
    part = files.new_part(folder, "f")
    assert part.is_file() and not part.is_symlink() and part.stat().st_size == 0


@pytest.mark.parametrize("name", ["inner/file", "inner/new", "a/inner/file"])
def test_no_folder_on_the_way_is_a_link(folder: Path, name: str) -> None:
    (folder / "a").mkdir()
    (folder / name).parent.symlink_to(folder.parent / "outside", target_is_directory=True)
    for use in (
        lambda: files.open_inside(folder, name),
        lambda: files.open_inside(folder, name, "ab+"),
        lambda: files.write_whole(folder, name, "x"),
        lambda: files.new_part(folder, name),
        lambda: files.checked(folder, name),
        lambda: files.subfolder(folder, name),
        lambda: files.subfolder(folder, name.rpartition("/")[0]),
    ):
        with pytest.raises(RunFolderError, match="inner is a symbolic link, not a folder"):
            use()


@pytest.mark.parametrize("name", ["../outside/file", "/etc/passwd", "a/../f", "", "a//b", "f\0"])
def test_names_do_not_lead_out(folder: Path, name: str) -> None:
    for use in (files.open_inside, files.checked, files.new_part, files.subfolder):
        with pytest.raises(RunFolderError, match="is not the name of a file below"):
            use(folder, name)


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    (folder / "f").write_text("inside")
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert files.read_bytes(link, "f") == b"inside"
    files.write_whole(link, "f", "new")
    assert files.subfolder(link, "a/b").is_dir() and (folder / "a" / "b").is_dir()
    assert files.read_bytes(folder, "f") == b"new"


def test_a_hard_link_is_read_and_replaced_but_not_written_in_place(folder: Path) -> None:
    os.link(folder.parent / "outside" / "file", folder / "f")
    assert files.read_bytes(folder, "f") == SECRET.encode()
    for mode in ("ab+", "r+b"):
        with pytest.raises(RunFolderError, match="f has 2 hard links"):
            files.open_inside(folder, "f", mode)
    files.write_whole(folder, "f", "new")


def test_a_large_file_is_not_read(folder: Path) -> None:
    with (folder / "f").open("wb") as file:
        file.truncate(10**12)  # a sparse file
    with pytest.raises(RunFolderError, match="f has more than 1,000 bytes"):
        files.read_bytes(folder, "f", 1000)


def test_modes_write_what_they_say(folder: Path) -> None:
    with files.open_inside(folder, "f", "xb") as file:
        file.write(b"ab")
    with files.open_inside(folder, "f", "ab+") as file:
        file.write(b"c")
    with files.open_inside(folder, "f", "r+b") as file:
        file.truncate(2)
    assert files.read_bytes(folder, "f") == b"ab"
    (folder.parent / "usual").touch()
    assert (folder / "f").stat().st_mode == (folder.parent / "usual").stat().st_mode
    with pytest.raises(FileExistsError):
        files.open_inside(folder, "f", "xb")
    with pytest.raises(FileNotFoundError):
        files.open_inside(folder, "g")
    assert names(folder) == ["f"]


def test_a_failed_replacement_leaves_the_old_file_alone(folder: Path) -> None:
    files.write_whole(folder, "f", "old")
    with pytest.raises(ValueError), files.replacing(folder, "f") as file:
        file.write(b"half")
        raise ValueError
    assert files.read_bytes(folder, "f") == b"old" and names(folder) == ["f"]


@pytest.mark.parametrize("text", ["[" * 100_000, '"\\ud800"', "1" + "0" * 5000, "{", b"\xff", ""])
def test_json_that_cannot_be_used_is_one_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        files.parse_json(text)


def test_json_may_begin_with_a_byte_order_mark() -> None:
    assert files.parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


def test_a_folder_in_the_place_of_a_file_is_an_error_of_the_system(folder: Path) -> None:
    (folder / "f").mkdir()
    with pytest.raises(IsADirectoryError):
        files.open_inside(folder, "f")
    (folder / "g").touch()
    with pytest.raises(NotADirectoryError):
        files.subfolder(folder, "g")
