"""Why Ray could not start here, found without starting it: the same for `run` and `doctor`."""

import errno
import os
import resource
import shutil
import tempfile
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

import pytest
import ray

from nnclr_study.cli import main
from nnclr_study.errors import ClusterError, ClusterWarning
from nnclr_study.study.folders import try_writing
from nnclr_study.sweep import local_ray
from nnclr_study.sweep.cluster import joined
from nnclr_study.sweep.local_ray import CannotStartError, find_place

QUICKSTART = Path(__file__).parent.parent.parent / "search_spaces" / "quickstart.toml"
LONG = "slurm_jobdir/1355700/scratch_tmp"


@pytest.fixture
def short(monkeypatch):
    """A folder with a short path; nothing is set of what Ray reads."""
    for name in [*os.environ]:
        if name.startswith("RAY_AUTH") or name in ("RAY_TMPDIR", "TMPDIR", "TEMP", "TMP"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def padded(folder, length):
    """Return a folder in `folder` whose path has so many characters."""
    made = folder / ("x" * (length - len(str(folder)) - 1))
    made.mkdir()
    return made


def fit():
    """Return the most characters of a folder in which Ray's sockets fit."""
    return 107 - len(f"/ray/session_2026-11-28_09-22-01_086201_{os.getpid()}/sockets/plasma_store")


def test_without_any_setting_it_is_ray_s_usual_folder(short):
    place = find_place()
    assert (place.folder, place.instead) == (Path("/tmp/ray"), "")
    assert place.environment == {"RAY_TMPDIR": "/tmp"}


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_the_length_of_a_path_is_counted_as_ray_counts_it(short, monkeypatch, name):
    monkeypatch.setenv(name, str(padded(short, fit())))
    assert find_place().folder == Path(os.environ[name]) / "ray"
    monkeypatch.setenv(name, str(padded(short, fit() + 1)))
    if name == "RAY_TMPDIR":
        with pytest.raises(CannotStartError, match="is too long") as caught:
            find_place()
        assert "RAY_TMPDIR=/tmp" in caught.value.way_out
        monkeypatch.setenv(name, "/tmp")
        assert find_place().folder == Path("/tmp/ray"), "the way out works"
    else:
        place = find_place()
        assert place.folder == Path("/tmp/ray")
        assert "is too long" in place.instead
        assert "they go to /tmp/ray" in place.instead


def test_a_long_tmpdir_is_not_passed_on_where_python_s_own_sockets_do_not_fit(short, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    monkeypatch.setenv("TMPDIR", str(padded(short, 75)))
    assert find_place().environment == {"RAY_TMPDIR": str(short)}
    monkeypatch.setenv("TMPDIR", str(padded(short, 76)))
    assert find_place().environment == {"RAY_TMPDIR": str(short), "TMPDIR": str(short)}


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize(
    "make, said",
    [
        (lambda at: at.write_text(""), "is not a folder"),
        (lambda at: at.symlink_to("nowhere"), "is a link to nothing"),
        (lambda at: at.symlink_to(at), "Too many levels of symbolic links"),
        (lambda at: at.symlink_to("/proc"), "cannot be written"),
        (lambda at: (at.mkdir(), (at / "ray").write_text("")), "ray is not a folder"),
        (lambda at: (at.mkdir(), (at / "ray").symlink_to("nowhere")), "is a link to nothing"),
    ],
)
def test_a_folder_that_cannot_be_written_is_not_used(short, monkeypatch, name, make, said):
    make(short / "at")
    monkeypatch.setenv(name, str(short / "at"))
    if name == "TMPDIR":
        assert said in find_place().instead
    else:
        with pytest.raises(CannotStartError, match=said):
            find_place()


@pytest.mark.parametrize("name", ["é", "q'q", 'q"q', "q\\q", "q\nq", "\udce9"])
def test_a_path_that_ray_does_not_take_is_told(short, monkeypatch, name):
    monkeypatch.setenv("RAY_TMPDIR", str(short / name))
    with pytest.raises(CannotStartError, match="characters that Ray does not take") as caught:
        find_place()
    assert str(caught.value).isprintable()


def test_a_relative_path_and_an_empty_one_are_as_anywhere(short, monkeypatch):
    monkeypatch.chdir(short)
    monkeypatch.setenv("RAY_TMPDIR", "here")
    assert find_place().environment["RAY_TMPDIR"] == str(short / "here")
    assert not (short / "here").exists(), "nothing is left"
    monkeypatch.setenv("RAY_TMPDIR", "")
    assert find_place().environment["RAY_TMPDIR"] == "/tmp"


def test_a_full_disk_is_told(short, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CannotStartError, match="less than 16 MB are free"):
        find_place()


def test_too_few_files_are_told(short, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(CannotStartError, match="may open 64 files here; allow 128 or more"):
        find_place()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, resource.RLIM_INFINITY))
    assert find_place().folder == Path("/tmp/ray"), "Ray raises the limit as far as it may"


@pytest.mark.parametrize("place", ["/proc", "/proc/shm", "/dev/null", "/dev/nowhere"])
def test_shared_memory_that_is_missing_is_told(short, monkeypatch, place):
    monkeypatch.setattr(local_ray, "SHARED_MEMORY", Path(place))
    with pytest.raises(CannotStartError, match="Ray shares memory there"):
        find_place()


def test_shared_memory_that_is_full_does_not_matter_to_ray(short, monkeypatch):
    def full(path, lock=False):
        if path == local_ray.SHARED_MEMORY:
            raise OSError(errno.ENOSPC, "cannot be written: No space left on device", path)
        return try_writing(path, lock)

    monkeypatch.setattr(local_ray, "try_writing", full)
    assert find_place().folder == Path("/tmp/ray")


@pytest.mark.parametrize(
    "module, said", [("aiohttp_cors", "aiohttp_cors"), ("ray", "not install")]
)
def test_what_is_not_installed_is_told(short, monkeypatch, module, said):
    monkeypatch.setattr(
        local_ray, "find_spec", lambda name: None if name == module else find_spec(name)
    )
    with pytest.raises(CannotStartError, match=said) as caught:
        find_place()
    assert "pip install" in caught.value.way_out


def test_a_token_has_to_be_there_or_have_a_place(short, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("HOME", str(short))
    token = short / ".ray" / "auth_token"
    assert find_place().token == f"its token in {token}"
    token.mkdir(parents=True)
    with pytest.raises(CannotStartError, match="cannot keep a token"):
        find_place()
    token.rmdir()
    token.write_text(" \n")  # Ray writes another
    assert find_place().token == f"its token in {token}"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with pytest.raises(CannotStartError, match="there is no token in"):
        find_place()
    token.write_text("secret")
    assert find_place().token == f"its token in {token}"


def test_run_and_doctor_say_the_same(short, monkeypatch, capfd):
    monkeypatch.setenv("RAY_TMPDIR", str(short / LONG / LONG))
    data = ["--data", str(short / "data")]
    assert main(["run", str(QUICKSTART), "--storage", str(short / "runs"), *data]) == 3
    error = capfd.readouterr().err
    assert main(["doctor", "--storage", str(short / "runs"), *data, "--json"]) == 3
    told = capfd.readouterr().out
    assert "is too long: Ray's sockets there have paths of more than 107 bytes" in told
    assert "is too long: Ray's sockets there have paths of more than 107 bytes" in error
    assert "RAY_TMPDIR=/tmp" in error
    assert "RAY_TMPDIR=/tmp" in told


def test_ray_is_told_of_the_folder_as_it_starts_and_the_user_of_another_one(short, monkeypatch):
    seen = []
    monkeypatch.setattr(ray, "init", lambda **_: seen.append(dict(os.environ)))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    long = str(short / LONG / LONG / LONG)
    monkeypatch.setenv("TMPDIR", long)
    before = dict(os.environ)
    with pytest.warns(ClusterWarning, match="they go to /tmp/ray"), joined(None):
        assert dict(os.environ) == before
    assert seen[0]["RAY_TMPDIR"] == "/tmp"
    assert seen[0]["TMPDIR"] == "/tmp"


def test_a_cluster_that_is_joined_needs_no_place(short, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(short / LONG / LONG))
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with joined("auto"):
        pass
    with pytest.raises(ClusterError), joined(None):
        pass
