"""The pages of docs/ say what is so: links, commands, flags and what is written from the code."""

import importlib
import json
import re
import runpy
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from subprocess import run

import pytest
import yaml
from PIL import Image

import nnclr_study
from nnclr_study.cli import main
from nnclr_study.report.blocks import seeds_for_margin
from nnclr_study.report.noise import PUBLISHED, resolution
from nnclr_study.study.config import TrialConfig
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.plugins import GROUPS
from nnclr_study.study.rows import EpochRow
from nnclr_study.study.search import SearchTable
from nnclr_study.study.spec import load_study, parse_study
from nnclr_study.study.tables import BudgetTable, StudyTable
from nnclr_study.trainer.evaluate import KNN_NEIGHBOURS, KNN_TEMPERATURE
from tests.test_cli import COMMANDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SPACES = ROOT / "search_spaces"
PAGES = sorted(DOCS.glob("*.md"))
AROUND = [ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")]
"""Pages outside docs/."""
FLAGS_OF_OTHERS = {"--force-reinstall", "--gpus", "--head", "--index-url"}
"""Flags of pip, docker and ray that pages name."""
WRITTEN = [page for page in PAGES if page.stem not in ("knobs", "commands")]
"""By hand."""


def anchors(page):
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def commands(text):
    """Every command that a page names, with what follows it there."""
    return re.findall(r"nnclr-study ([a-z]+)\b([^`\n|]*)", text)


def sections():
    """The keys of all sections that a page may have."""
    source = (ROOT / "nnclr_study" / "report" / "sections.py").read_text()
    made = re.findall(r"ection\(\s*\"(\w+)\"", source)
    return made + re.findall(r"^    \(\"(\w+)\", \"", source, flags=re.M)


@pytest.fixture(scope="module")
def generated():
    return runpy.run_path(str(DOCS / "generate.py"))["MADE"]


@pytest.mark.parametrize("name", ["knobs.md", "commands.md", "study_schema.json"])
def test_what_is_written_from_the_code_is_current(name, generated):
    ((path, made),) = ((p, m) for p, m in generated.items() if p.name == name)
    assert path.read_text() == made(), f"{name} is not current: python docs/generate.py writes it"


def test_the_generator_writes_what_the_test_compares(tmp_path, generated):
    assert {path.name for path in generated} == {"knobs.md", "commands.md", "study_schema.json"}
    listed = re.findall(r"^\| `(\w+)` ", (DOCS / "knobs.md").read_text(), flags=re.M)
    assert {*listed, "seed"} == set(TrialConfig.model_fields)
    titles = re.findall(r"^## ([a-z]+)$", (DOCS / "commands.md").read_text(), flags=re.M)
    assert set(titles) == set(COMMANDS)


@pytest.mark.parametrize("page", [*PAGES, *AROUND, ROOT / "README.md"], ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"\n *", " ", page.read_text()))
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else (page.parent / name).resolve()
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_names_every_page():
    linked = re.findall(r"\]\((\w+\.md)\)", (DOCS / "index.md").read_text())
    assert {*linked, "index.md"} == {page.name for page in PAGES}


def test_every_page_is_in_the_navigation_of_the_site_once():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    paths = [path for section in site["nav"] for path in nav_paths(section)]
    pages = [path for path in paths if not path.startswith("repository/")]
    assert sorted(pages) == [page.name for page in PAGES]
    for path in set(paths) - set(pages):
        assert (ROOT / path.removeprefix("repository/")).is_file(), path
    assert site["theme"]["font"] is False, "no page may load fonts from another host"


def nav_paths(entry):
    for value in entry.values():
        if isinstance(value, str):
            yield value
        else:
            yield from (path for each in value for path in nav_paths(each))


def test_the_api_page_lists_the_whole_api():
    listed = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), flags=re.M)
    for name in listed:
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), name
    assert {f"nnclr_study.{name}" for name in nnclr_study.__all__} <= set(listed)


@pytest.mark.parametrize("page", [*PAGES, *AROUND], ids=lambda page: page.stem)
def test_every_command_flag_and_file_it_names_exists(page, capsys):
    text = page.read_text()
    assert {name for name, _ in commands(text)} <= set(COMMANDS)
    helps = {}
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        helps[name] = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for name, rest in commands(text):
        assert set(re.findall(r"--[a-z-]+", rest)) <= helps[name], (name, rest)
    main(["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)).union(*helps.values())
    assert set(re.findall(r"(?<=[ `])--[a-z][a-z-]+", text)) <= known | FLAGS_OF_OTHERS
    for path in re.findall(r"(?:search_spaces|deploy|docs)/[\w.]+", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_every_key_it_names_exists(page):
    """Names of two words or more, alone or with a value, are keys of files or rows."""
    named = re.findall(r"`([a-z]+_[a-z0-9_]+)(?: = [^`]*)?`", page.read_text())
    models = (TrialConfig, EpochRow, StudyTable, BudgetTable, SearchTable)
    known = {name for model in models for name in model.model_fields} | set(sections())
    assert set(named) - known - {"load_encoder"} == set()


def test_the_settings_of_k_nn_are_the_code_s():
    assert f"the {KNN_NEIGHBOURS} labelled" in (DOCS / "faq.md").read_text()
    assert f"exp(s / {KNN_TEMPERATURE})" in (DOCS / "faq.md").read_text()


def test_a_section_of_the_page_has_its_paragraph():
    text = (DOCS / "report.md").read_text()
    assert len(sections()) > 15
    assert [key for key in sections() if f"`{key}`" not in text] == []


def test_a_section_of_the_page_has_its_picture():
    """The table of conditions has one too; of the page's fixed parts, those that can be seen."""
    text = (DOCS / "report.md").read_text()
    shown = re.findall(r"!\[[^\]]+\]\(pictures/(\w+)\.png\)", text)
    fixed = {"answer", "trials", "gallery", "methods", "provenance"}
    assert sorted(shown) == sorted({*sections(), *fixed})
    drawn = {path.stem: path for path in (DOCS / "pictures").iterdir()}
    assert drawn.keys() == set(shown)
    for path in drawn.values():
        with Image.open(path) as picture:
            assert 800 <= picture.width <= 1800
    assert sum(path.stat().st_size for path in drawn.values()) < 1.5e6


def test_the_changelog_has_the_version_that_comes(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nnclr-study {nnclr_study.__version__}\n"
    text = (ROOT / "CHANGELOG.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == nnclr_study.__version__
    assert "## [Unreleased]" in text or f"## [{nnclr_study.__version__}]" in text
    assert nnclr_study.__version__ in text


def test_the_page_of_plug_ins_shows_the_example_whole_and_a_study_of_it():
    text, example = (DOCS / "plugins.md").read_text(), DOCS / "plugin_example"
    project, study = re.findall(r"^```toml\n(.*?)^```", text, flags=re.M | re.S)
    (module,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    assert project == (example / "pyproject.toml").read_text()
    assert module == (example / "shapes_for_nnclr.py").read_text()
    groups = tomllib.loads(project)["project"]["entry-points"]
    named = {f"plugin:{name}" for points in groups.values() for name in points}
    assert {value for _, value in parse_study(study, "plugins.md").plugins} == named
    assert set(groups) == set(GROUPS.values())


def test_the_page_on_troubleshooting_has_every_exit_code():
    codes = [
        re.findall(r"^\| (\d+) \|", (DOCS / f"{name}.md").read_text(), flags=re.M)
        for name in ("troubleshooting", "commands")
    ]
    assert codes[0] == codes[1] != []


def test_the_tutorial_plans_the_trials_that_it_shows():
    text = (DOCS / "tutorial.md").read_text()
    (study,) = re.findall(r"^```toml\n(.*?)^```", text, flags=re.M | re.S)
    planned = plan_trials(parse_study(study, "tutorial.md"))
    shown = re.findall(r"queue_size-\d+_s\d_[0-9a-f]+", text)
    assert shown and set(shown) <= {trial.id for trial in planned}
    assert f"{len(planned)} trials: 3 conditions x 5 seeds" in text


def test_the_seeds_on_the_page_of_null_results_are_computed():
    text = (DOCS / "null_result.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) \| (\d+) \| (\d+) \| (\d+) \|$", text, flags=re.M)
    assert len(rows) == 7
    for ratio, *seeds in rows:
        expected = [seeds_for_margin(1.0, conditions, float(ratio)) for conditions in (2, 4, 6)]
        assert list(map(int, seeds)) == expected
    quickstart = load_study(SPACES / "quickstart.toml")
    assert f"says {100 * resolution(quickstart).difference:.1f} points" in text
    residual_sd = PUBLISHED["digits"].residual_sd
    assert f"residual SD is {100 * residual_sd:.1f} points" in text
    assert f"about {seeds_for_margin(residual_sd, 4, 0.016)} seeds" in text


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_need(tmp_path):
    """Needs the network: hatchling comes from the package index."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run([python, "-m", "pip", "install", "-q", "hatchling>=1.27"], check=True)
    out = tmp_path / "dist"
    run([python, "-m", "hatchling", "build", "-d", out], check=True, cwd=ROOT)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "nnclr_study").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    of_wheel = {name for name in held if ".dist-info/" not in name}
    examples = {f"nnclr_study/search_spaces/{path.name}" for path in SPACES.iterdir()}
    assert of_wheel == package | examples
    needed = ["py.typed", "study_schema.json", "report/template.html.j2", "report/style.css"]
    needed += ["report/page.js", "report/parts.html.j2", "report/compare.html.j2"]
    assert {f"nnclr_study/{name}" for name in needed} <= held
    assert any(name.endswith("licenses/LICENSE") for name in held)
    with tarfile.open(sdist) as archive:
        (top,) = {name.split("/")[0] for name in archive.getnames()}
        inside = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    wanted = ["README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "docs/index.md"]
    wanted += ["search_spaces/quickstart.toml", "reports/quickstart/trials.csv"]
    wanted += [
        "tests/test_docs.py",
        "docs/quickstart.png",
        "docs/study.ipynb",
        "deploy/slurm.sh",
        "constraints.txt",
        "mkdocs.yml",
        "CITATION.cff",
        ".github/workflows/test.yml",
    ]
    assert {*wanted, *package} <= inside
    installed_runs_the_quickstart(wheel, tmp_path)


def installed_runs_the_quickstart(wheel, home):
    """From an environment that has our package from the wheel alone, far from any checkout."""
    venv.create(home / "installed", with_pip=True)
    bin_, (packages,) = home / "installed" / "bin", home.glob("installed/lib/*/site-packages")
    # What it depends on takes minutes to install: it is taken from here.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run([bin_ / "python", "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)

    def ours(*words):
        command = [bin_ / "nnclr-study", *words]
        return run(command, check=True, cwd=home, capture_output=True, text=True).stdout

    code = "import nnclr_study; print(nnclr_study.__file__)"
    found = run(
        [bin_ / "python", "-c", code], check=True, cwd=home, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()) == packages / "nnclr_study" / "__init__.py"
    assert json.loads(ours("schema"))["definitions"]
    text = ours("example", "quickstart")
    assert ours("example").count("\n") >= len(list(SPACES.iterdir()))
    (home / "quickstart.toml").write_text(text)
    assert "12 trials: 4 conditions x 3 seeds" in ours("plan", "quickstart.toml")
    for whole, small in (
        ("seeds = [1, 2, 3]", "seeds = [1]"),
        ("epochs = 20", "epochs = 1"),
        ("steps_per_epoch = 25", "steps_per_epoch = 2"),
        ("[0, 100, 800, 3_200]", "[0, 100]"),
    ):
        assert whole in text
        text = text.replace(whole, small)
    (home / "small.toml").write_text(text)
    assert "report: runs/quickstart/report/index.html" in ours("run", "small.toml")
    assert "2 trials: 2 finished" in ours("status", "runs/quickstart")
    assert (home / "runs" / "quickstart" / "report" / "index.html").stat().st_size > 1e6
