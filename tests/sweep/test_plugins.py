"""Studies with plug-ins on Ray: they run, their versions are kept, and a node must have them."""

import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

import nnclr_study
from nnclr_study.errors import ClusterError, PluginError
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.sweep import engine, nodes
from tests.plugin_package import install, install_example
from tests.sweep.test_engine import call
from tests.trainer.test_plugins import STUDY

NODES = [{"NodeManagerHostname": "far", "NodeManagerAddress": "10.0.0.2"}]
NAMED = [("encoder", "plugin:patches")]


@pytest.fixture
def example(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(install_example(tmp_path / "site"))
    return tmp_path


@pytest.mark.parametrize(
    "theirs, said",
    [({}, "not at all"), ({"shapes-for-nnclr": "0.2.0"}, "0.2.0"), ({"nnclr-study": "0"}, "0")],
)
def test_a_node_with_another_version_is_named_before_the_first_trial(
    theirs, said, example, monkeypatch
):
    told = {"nnclr-study": nnclr_study.__version__} | theirs
    monkeypatch.setattr(nodes, "_on_each", lambda *_: [(told, True)])
    package = "nnclr-study" if "nnclr-study" in theirs else "shapes-for-nnclr"
    with pytest.raises(ClusterError, match=rf"node far .* has {package} {said}, and this is 0.1"):
        nodes.check(NODES, example, NAMED)


def test_a_node_with_the_same_version_is_ready(example, monkeypatch):
    monkeypatch.setattr(nodes, "_on_each", lambda _nodes, look, *words: [look(*words)])
    nodes.check(NODES, example, NAMED)


def test_a_plug_in_that_breaks_its_contract_ends_a_study_before_its_first_trial(
    tmp_path, monkeypatch
):
    source = "mine = lambda config, side: None\n"
    points = {"nnclr_study.encoders": {"mine": "my_plugins:mine"}}
    monkeypatch.syspath_prepend(install(tmp_path / "site", "my-plugins", source, points))
    configs = [
        TrialConfig(dataset="digits", batch_size=8, labelled_batch_size=4, encoder=encoder)
        for encoder in ("conv4", "plugin:mine")
    ]
    paths, seen = engine._prepare(configs[:1], tmp_path, Console())
    assert paths == []
    assert seen["digits, 32 px"].isalnum()
    with pytest.raises(PluginError, match=r"of my-plugins 1\.0 must return a torch\.nn\.Module"):
        engine._prepare(configs, tmp_path, Console())
    sys.modules.pop("my_plugins")


@pytest.mark.ray
def test_a_study_of_all_three_runs_and_says_with_which_versions(example):
    (example / "shapes.toml").write_text(STUDY)
    root = Path(nnclr_study.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{example / 'site'}:{root}"}
    done = call("run", "shapes.toml", cwd=example, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = RunFolder.open(example / "runs" / "shapes")
    assert [row.status for row in folder.trials().values()] == ["finished"] * 2
    assert folder.sessions()[0].versions["shapes-for-nnclr"] == "0.1.0"
    page = (folder.report / "index.html").read_text()
    assert "shapes-for-nnclr 0.1.0" in page
    environment["PYTHONPATH"] = str(root)
    done = call("report", "runs/shapes", cwd=example, env=environment)
    assert done.returncode == 0, "a report needs no plug-in"
