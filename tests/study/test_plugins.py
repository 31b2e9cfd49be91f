"""Plug-ins by their names: what is there, what was meant, and which versions were used."""

import json
import subprocess
import sys

import pytest

from nnclr_study import doctor
from nnclr_study.cli import main
from nnclr_study.errors import PluginError, StudyFileError
from nnclr_study.study import plugins, provenance
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.plugins import find, installed, is_plugin, require
from nnclr_study.study.spec import load_study, parse_study
from tests.plugin_package import install, install_example
from tests.study.test_spec import GOOD

NAMED = [
    ("dataset", "plugin:shapes"),
    ("encoder", "plugin:patches"),
    ("aug_recipe", "plugin:erase"),
]


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A folder on Python's path, with the example of docs/plugins.md."""
    monkeypatch.syspath_prepend(install_example(tmp_path / "site"))
    return tmp_path / "site"


def study_file(path, line):
    path.write_text(GOOD.replace("[trial]", f"[trial]\n{line}"))
    return path


def test_what_is_installed_is_found_and_not_imported(example):
    code = """
import sys
from nnclr_study.study.plugins import GROUPS, installed
for knob in GROUPS:
    for plugin in installed(knob):
        print(plugin)
assert not {"shapes_for_nnclr", "torch"} & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": example}
    )
    assert done.stdout.splitlines() == [
        f"{knob} {value} of shapes-for-nnclr 0.1.0" for knob, value in NAMED
    ], done.stderr


@pytest.mark.parametrize("knob, value", NAMED)
def test_a_study_without_them_knows_their_names_and_no_more(knob, value):
    assert installed(knob) == []
    config = TrialConfig(**{knob: value})
    assert TrialConfig(**config.model_dump()) == config
    text = GOOD.replace('dataset = "digits"', f'{knob} = "{value}"')
    study = parse_study(text, "x.toml")
    assert study.plugins == [(knob, value)]
    with pytest.raises(
        PluginError, match=f"brings {knob} {value}; .* on every machine \\(known here: none"
    ):
        find(knob, value)


def test_a_config_is_the_same_wherever_the_package_is_installed_or_not(tmp_path, monkeypatch):
    config = TrialConfig(**dict(NAMED))
    assert config.image_size == 224
    assert config.width == config.features == config.projector_width == 128
    assert (config.crop_min_area, config.brightness_shift, config.flip_prob) == (1, 0, 0.5)
    monkeypatch.syspath_prepend(install_example(tmp_path / "site"))
    assert TrialConfig(**dict(NAMED)) == config


@pytest.mark.parametrize(
    "value", ["plugin:", "plugin:a b", "plugin:../a", "plugins:a", f"plugin:{'a' * 101}", "shapes"]
)
def test_what_is_no_plug_in_s_name_is_refused(value):
    assert not is_plugin(value)
    with pytest.raises(ValueError, match="plugin:NAME for what an installed package brings"):
        TrialConfig(dataset=value)


def test_a_name_without_its_prefix_is_taken_for_what_was_meant(example):
    with pytest.raises(ValueError, match='did you mean "plugin:patches"'):
        TrialConfig(encoder="patches")


def test_names_that_nothing_has_are_all_told_at_once(example, tmp_path):
    lines = 'dataset = "plugin:shape"\naug_recipe = "plugin:rain"\nencoder = "plugin:patches"'
    text = GOOD.replace('dataset = "digits"', lines)
    assert text.count("plugin:") == 3
    (tmp_path / "s.toml").write_text(text)
    study = load_study(tmp_path / "s.toml")
    with pytest.raises(StudyFileError) as caught:
        require(study.plugins, tmp_path / "s.toml")
    assert len(caught.value.problems) == 2
    assert 'did you mean "plugin:shapes"?' in str(caught.value)
    assert (
        "plugin:rain; install the one that does, on every machine (known here: plugin:erase)"
        in str(caught.value)
    )


@pytest.mark.parametrize("words", [["plan"], ["run"], ["trial"]], ids=" ".join)
def test_commands_that_need_it_tell_before_anything(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = study_file(tmp_path / "s.toml", 'encoder = "plugin:patches"')
    more = ["some_id"] if words == ["trial"] else []
    assert main([*words, str(file), *more]) == 2
    told = capsys.readouterr().err
    assert "no installed package brings encoder plugin:patches" in told
    assert "install the one that does, on every machine" in told
    assert not (tmp_path / "runs").exists()


def test_every_way_to_name_one_is_seen():
    grid = GOOD.replace("[grid]", '[grid]\nencoder = ["conv4", "plugin:a"]')
    points = grid + '[[points]]\nqueue_size = 0\nencoder = "plugin:b"\n'
    assert parse_study(points, "x.toml").plugins == [
        ("encoder", "plugin:b"),
        ("encoder", "plugin:a"),
    ]
    search = (
        '[study]\nname = "s"\nseeds = [1]\n[budget]\ntrials = 2\n[search.space]\n'
        'aug_recipe = { choices = ["simclr", "plugin:rain"] }\n'
    )
    assert parse_study(search, "x.toml").plugins == [("aug_recipe", "plugin:rain")]


def test_trials_of_plug_ins_have_ids_that_name_files(example):
    text = GOOD.replace("[grid]", '[grid]\nencoder = ["conv4", "plugin:patches"]')
    ids = [trial.id for trial in plan_trials(parse_study(text, "x.toml"))]
    assert any("encoder-plugin:patches" in name for name in ids)
    assert not any("/" in name for name in ids)


def test_versions_are_those_of_the_packages_used(example):
    usual = provenance.versions()
    assert "shapes-for-nnclr" not in usual
    assert provenance.versions(NAMED[:1]) == usual | {"shapes-for-nnclr": "0.1.0"}
    assert plugins.versions([("encoder", "plugin:shapes")]) == {}, "it is a data set"


def test_two_packages_with_one_name_are_told_apart(example, monkeypatch, tmp_path):
    points = {"nnclr_study.encoders": {"patches": "other:patches"}}
    monkeypatch.syspath_prepend(install(tmp_path / "more", "other", "", points))
    with pytest.raises(PluginError) as caught:
        find("encoder", "plugin:patches")
    assert "of other 1.0 and encoder plugin:patches of shapes-for-nnclr 0.1.0" in str(caught.value)
    assert [check.level for check in doctor._plugins()] == ["ok", "slow", "slow", "ok"]


def test_doctor_names_them(example, tmp_path, capsys):
    assert next(doctor._plugins()).said == "dataset plugin:shapes of shapes-for-nnclr 0.1.0"
    main(["doctor", "--json", "--data", str(tmp_path / "data")])
    told = json.loads(capsys.readouterr().out)["checks"]
    assert [check["name"] for check in told[-3:]] == ["plug-in"] * 3
