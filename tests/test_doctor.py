"""`doctor` says what stands in the way of `run`, in 80 columns, and leaves all as it was."""

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from nnclr_study import doctor
from nnclr_study.cli import main
from nnclr_study.doctor import can_run, examine, lines

ROOT = Path(__file__).parent.parent
GB = 10**9
NAMES = ["software", "devices", "CPUs", "bf16", "memory", "storage", "data", "Ray", "cluster"]
NAMES += ["images"]


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine on which nothing is amiss but that it has no GPU."""
    for name in list(os.environ):
        if name.startswith("RAY_") and "OVERRIDE" not in name:
            monkeypatch.delenv(name)
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(doctor, "LITTLE_DISK", 0)
    for name in ("home", "data"):
        (tmp_path / name).mkdir()
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # as sockets need it
        monkeypatch.setenv("RAY_TMPDIR", short)
        (tmp_path / "tmp").symlink_to(short)
        yield tmp_path


def look(machine, storage=None, data=None):
    found = examine(str(storage or machine / "runs"), data or machine / "data")
    assert [check.name for check in found] == NAMES
    return {check.name: check for check in found}


def files(folder):
    return sorted(path for path in folder.rglob("*"))


def test_where_run_can_work_it_says_so_and_leaves_nothing(machine, capsys):
    before = files(machine)
    argv = ["doctor", "--storage", str(machine / "runs"), "--data", str(machine / "data")]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("`run` can work here\n")
    assert "torch 2" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert files(machine) == before
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["can_run"] is True
    assert [check["name"] for check in told["checks"]] == NAMES


def test_it_loads_no_ray_and_starts_none(machine):
    code = """
import sys
from nnclr_study.cli import main
assert main(["doctor", "--json"]) == 0
assert "ray" not in sys.modules
assert "torch" in sys.modules, "the test would pass if nothing were looked at"
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=machine, env=environment)


def test_a_folder_that_cannot_be_written_stands_in_the_way(machine, capsys):
    (machine / "file").write_text("")
    argv = ["doctor", "--storage", str(machine / "file" / "runs"), "--data", str(machine / "data")]
    assert main(argv) == 3
    shown = capsys.readouterr().out
    assert "bad  storage" in shown
    assert "--storage" in shown
    assert shown.endswith("`run` cannot work here: storage\n")
    assert max(len(line) for line in shown.splitlines() if "/" not in line) <= 80
    # Not by its mode: the superuser may write anywhere but to what is no disk.
    assert look(machine, data=Path("/proc/data"))["data"].level == "bad"


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda at: at.write_text(""), "at"),
        (lambda at: at.write_text(""), "at/below/it"),
        (lambda at: at.symlink_to("nowhere"), "at"),
        (lambda at: at.symlink_to("nowhere"), "at/below/it"),
        (lambda at: at.symlink_to(at), "at"),
        (lambda at: at.symlink_to("/proc"), "at"),
        (lambda at: None, "n" * 300),
        (lambda at: None, "nosuchscheme://bucket"),
        (lambda at: None, "s3:///folder"),
    ],
)
def test_a_storage_that_run_refuses_stands_in_the_way(machine, monkeypatch, capfd, make, name):
    make(machine / "at")
    storage = name if "://" in name else str(machine / name)
    monkeypatch.chdir(machine)
    check = look(machine, storage)["storage"]
    assert check.level == "bad", check
    assert check.way_out
    quickstart = str(ROOT / "search_spaces" / "quickstart.toml")
    assert main(["run", quickstart, "--storage", storage]) in (2, 3)
    assert "Traceback" not in capfd.readouterr().err


def test_a_storage_by_way_of_a_folder_that_is_not_there_yet_can_be_made(machine):
    check = look(machine, machine / "new" / ".." / "runs")["storage"]
    assert check.level == "ok"
    assert not (machine / "new").exists()


def test_a_full_disk_and_one_without_locks_stand_in_the_way(machine, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("nnclr_study.study.folders.fcntl.flock", no_locks)
    found = look(machine)
    assert [found[name].level for name in ("storage", "data", "Ray")] == ["bad", "bad", "ok"]
    assert "cannot be written: No locks available" in found["storage"].said


def test_an_object_store_is_not_asked(machine, monkeypatch):
    monkeypatch.chdir(machine)
    check = look(machine, "s3://bucket/studies")["storage"]
    assert check.level == "ok"
    assert "was not asked" in check.said
    assert look(machine, "s3://")["storage"].said == "s3:// names no bucket"


def test_prepared_images_are_named(machine):
    for name in ("cifar10-32px-0123456789ab", "folder-birds-224px-0123456789ab"):
        (machine / "data" / "prepared" / name).mkdir(parents=True)
        (machine / "data" / "prepared" / name / "about.json").write_text("{}")
    assert look(machine)["data"].said.endswith("prepared: cifar10-32px, folder-birds-224px")


def test_little_disk_and_memory_are_slow(machine, monkeypatch):
    monkeypatch.setattr(doctor, "LITTLE_DISK", 10**18)
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 10**18)
    found = look(machine)
    assert [found[name].level for name in ("memory", "storage", "data")] == ["slow"] * 3
    assert can_run(list(found.values()))
    assert all(check.way_out for check in found.values() if check.level == "slow")


def test_a_container_s_limit_is_its_memory(machine, monkeypatch):
    (machine / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    monkeypatch.setattr(doctor, "MEMORY", machine / "meminfo")
    monkeypatch.setattr(doctor, "CONTAINER", machine)
    assert look(machine)["memory"].said == "32.8 of 65.5 GB free"
    (machine / "memory.max").write_text(f"{8 * GB}\n")
    (machine / "memory.current").write_text(f"{6 * GB}\n")
    check = look(machine)["memory"]
    assert check.said == "2.0 of 8.0 GB free"
    assert check.level == "slow"
    (machine / "memory.max").write_text("max\n")
    assert look(machine)["memory"].level == "ok"
    (machine / "meminfo").unlink()
    assert look(machine)["memory"].said == "not known on this system"


def test_one_core_is_slow(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert look(machine)["CPUs"].level == "slow"


def test_whether_bf16_is_worth_it_is_told_of_processors_alone(machine, monkeypatch):
    import torch

    said = look(machine)["bf16"].said
    assert said.startswith("a step ")
    monkeypatch.setattr("nnclr_study.trainer.pace.bf16_speed", lambda: 0.5)
    slow = look(machine)["bf16"]
    assert slow.said == "a step takes 2.0 times as long as in float32 on this processor"
    assert slow.way_out == 'leave `precision` at "float32"'
    monkeypatch.setattr("nnclr_study.trainer.pace.bf16_speed", lambda: 1.5)
    assert look(machine)["bf16"].said.startswith("a step is 1.5 times as fast")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [*doctor._bf16()] == []


def test_gpus_are_named_and_a_driver_without_a_fitting_torch_is_slow(machine, monkeypatch):
    import torch

    gpu = namedtuple("Gpu", "name total_memory")("NVIDIA H100", 85 * GB)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    said = look(machine)["devices"].said
    assert said == "torch sees 2 GPU(s): NVIDIA H100 (85 GB), NVIDIA H100 (85 GB)"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (machine / "nvidia-smi").write_text("#!/bin/sh\n")
    (machine / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(machine))
    check = look(machine)["devices"]
    assert check.level == "slow"
    assert "torch sees no GPU" in check.said
    (machine / "nvidia-smi").unlink()
    assert "no GPU that torch sees" in look(machine)["devices"].said


def test_what_is_not_installed_stands_in_the_way(machine, monkeypatch):
    monkeypatch.setattr(doctor.provenance, "versions", lambda: {"torch": "2.14.1", "ray": "2.60"})
    check = look(machine)["software"]
    assert check.level == "bad"
    assert "not installed: torchvision, optuna, numpy" in check.said


def test_ray_needs_a_place_for_its_token(machine, monkeypatch):
    assert look(machine)["Ray"].said.endswith(f"its token in {machine}/home/.ray/auth_token")
    (machine / "home" / ".ray").write_text("in the way")
    check = look(machine)["Ray"]
    assert check.level == "bad"
    assert "RAY_AUTH_MODE=disabled" in check.way_out
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert look(machine)["Ray"].level == "ok"
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(machine / "token"))
    assert look(machine)["Ray"].level == "bad", "Ray makes no token there"
    (machine / "token").write_text("secret-of-the-test")
    check = look(machine)["Ray"]
    assert check.level == "ok"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret-of-the-test")
    assert "secret-of-the-test" not in "".join(lines([check, look(machine)["Ray"]]))


def test_ray_needs_a_place_for_its_files(machine, monkeypatch):
    (machine / "tmp" / "ray").write_text("in the way")
    check = look(machine)["Ray"]
    assert check.level == "bad"
    assert "RAY_TMPDIR" in check.way_out


def test_a_cluster_is_found_by_its_address(machine, monkeypatch):
    assert look(machine)["cluster"].said.startswith("none is running here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (machine / "tmp" / "ray").mkdir()
        (machine / "tmp" / "ray" / "ray_current_cluster").write_text(f"{address}\n")
        said = look(machine)["cluster"].said
        assert said == f"one answers at {address}: join it with `run` --address auto"
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
        said = look(machine)["cluster"].said
        assert said.endswith(f"join it with `run` --address ray://{address}")
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert look(machine)["cluster"].said.endswith("--address auto")
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
    said = look(machine)["cluster"].said
    assert said.startswith(f"RAY_ADDRESS names ray://{address}, where none answers")
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    assert "where none answers" in look(machine)["cluster"].said


def test_what_static_images_need_is_named(machine, monkeypatch):
    monkeypatch.setenv("PATH", str(machine))
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    check = look(machine)["images"]
    assert check.level == "ok"
    assert check.said.startswith("no ")
    assert check.way_out
    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    monkeypatch.setenv("BROWSER_PATH", "/opt/chrome")
    assert look(machine)["images"].said.startswith("/opt/chrome draws")


def test_a_shell_completes_commands(machine):
    program = Path(sys.executable).parent / "nnclr-study"
    words = {"_NNCLR_STUDY_COMPLETE": "complete_bash", "COMP_WORDS": "nnclr-study do"}
    environment = os.environ | words | {"COMP_CWORD": "1"}
    done = subprocess.run([program], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["doctor"]


def test_a_torch_that_fails_without_a_text_is_named_by_the_error(machine, monkeypatch):
    def fail():
        raise RuntimeError("  \n")

    monkeypatch.setattr("torch.cuda.device_count", fail)
    found = look(machine)["devices"]
    assert (found.level, found.said) == ("bad", "torch does not load: RuntimeError")
