"""Clusters that are not there, or not of these versions: told without starting one."""

import os
import subprocess
import sys

import pytest
import ray
from ray._private.utils import check_version_info

import nnclr_study
from nnclr_study.errors import ClusterError
from nnclr_study.sweep import cluster, nodes

NODE = {"NodeID": "a", "NodeManagerHostname": "gpu7", "NodeManagerAddress": "10.0.0.7"}


@pytest.mark.parametrize(
    "ray_version, python_version", [("2.59.0", "3.11.9"), (ray.__version__, "3.12.1")]
)
@pytest.mark.parametrize("address", ["10.0.0.7:6379", "ray://10.0.0.7:10001", "auto"])
def test_another_ray_or_python_is_told_with_both_versions(
    monkeypatch, address, ray_version, python_version
):
    theirs = {"ray_version": ray_version, "python_version": python_version}
    monkeypatch.setattr(cluster, "_knock", lambda _: None)
    monkeypatch.setattr(ray, "init", lambda **_: check_version_info(theirs, "here"))
    with pytest.raises(ClusterError) as caught, cluster.joined(address):
        pass
    said = str(caught.value)
    assert said.startswith(
        f"the cluster at {address} has Ray {ray_version} and Python {python_version}, "
    )
    assert f"this is Ray {ray.__version__} and Python 3." in said
    assert "environment" in said
    assert "\n" not in said
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "address", ["nowhere.invalid:6379", "127.0.0.1:1", "127.0.0.1:x", "ray://127.0.0.1:1", ":"]
)
def test_a_wrong_address_is_told_at_once(monkeypatch, address):
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would try for minutes"))
    told = pytest.raises(ClusterError, match="no Ray cluster at")
    with told as caught, cluster.joined(address):
        pass
    assert address in str(caught.value)
    assert "--address" in str(caught.value)
    assert caught.value.exit_code == 3


def test_another_nnclr_study_on_a_node_is_told_with_both_versions(monkeypatch, tmp_path):
    monkeypatch.setattr(nodes, "_on_each", lambda *_: [({"nnclr-study": "0.0.9"}, True)])
    with pytest.raises(
        ClusterError, match=r"gpu7 \(10\.0\.0\.7\) has nnclr-study 0\.0\.9"
    ) as caught:
        nodes.check([NODE], tmp_path)
    assert f"this is {nnclr_study.__version__}; install the same version" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name, fix",
    [
        ("RAY_TMPDIR", "set a folder with a short path that you may write to, as RAY_TMPDIR=/tmp"),
        ("HOME", "make it writable, name the file of a token with RAY_AUTH_TOKEN_PATH"),
    ],
)
def test_a_folder_that_ray_cannot_write_to_is_told(tmp_path, name, fix):
    (tmp_path / "file").touch()
    code = """
from nnclr_study.errors import ClusterError
from nnclr_study.sweep.cluster import joined
try:
    with joined(None):
        print("it started")
except ClusterError as error:
    print(error.exit_code, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {name: str(tmp_path / "file")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.startswith("3 Ray cannot start on this machine: "), done.stderr
    assert str(tmp_path / "file") in done.stdout
    assert fix in done.stdout
    assert "Traceback" not in done.stderr
