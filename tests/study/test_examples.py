"""The study files that come with the package."""

from pathlib import Path

import pytest

from nnclr_study.cli import main
from nnclr_study.errors import UsageError
from nnclr_study.study.examples import example_names, example_text
from nnclr_study.study.spec import load_study, parse_study

SPACES = Path(__file__).parents[2] / "search_spaces"


def test_every_study_file_is_one():
    assert example_names() == sorted(path.stem for path in SPACES.glob("*.toml"))


@pytest.mark.parametrize("name", example_names())
def test_it_is_the_same_study_and_names_no_path_of_a_checkout(name):
    text = example_text(name)
    # What a `#:schema` line names must lie beside the file, or editors complain.
    assert "#:schema" not in text
    assert "search_spaces" not in text
    assert f"nnclr-study run {name}.toml" in text
    again = parse_study(text, f"{name}.toml")
    shipped = load_study(SPACES / f"{name}.toml")
    assert (again.fixed, again.name, again.seeds) == (shipped.fixed, shipped.name, shipped.seeds)


def test_what_it_prints_can_be_planned(tmp_path, capsys):
    assert main(["example", "quickstart"]) == 0
    (tmp_path / "quickstart.toml").write_text(capsys.readouterr().out)
    assert main(["plan", str(tmp_path / "quickstart.toml")]) == 0
    assert "12 trials" in capsys.readouterr().out


def test_without_a_name_it_lists_them_with_their_questions(capsys):
    assert main(["example"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in example_names())
    assert "How cold should the softmax be?" in shown


def test_an_unknown_one_is_told(capsys):
    with pytest.raises(UsageError, match="choose from augmentation, "):
        example_text("../secrets")
    assert main(["example", "quick"]) == 2
    assert "there is no example 'quick'" in capsys.readouterr().err
