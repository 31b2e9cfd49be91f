"""The study file: what is read, and that every problem of a bad one is named at once."""

from pathlib import Path

import pytest

from nnclr_study.errors import StudyFileError
from nnclr_study.study.forecast import extremes
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import arms, incomparable, load_study, parse_study

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "search_spaces").glob("*.toml"))
PACKAGED_SCHEMA = ROOT / "nnclr_study" / "study_schema.json"

GOOD = """
[study]
name = "good"
seeds = [1, 2]
[trial]
dataset = "digits"
batch_size = 32
labelled_batch_size = 8
[grid]
queue_size = [0, 40, 100]
temperature = [0.1, 1]
"""


def problems(text):
    with pytest.raises(StudyFileError) as caught:
        parse_study(text, "bad.toml")
    return {getattr(p, "key", None): str(p) for p in caught.value.problems}, str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_plans_under_its_own_name(path):
    study = load_study(path)
    assert study.name == path.stem
    assert all(config.dataset for config in extremes(study))
    schema, command = study.text.splitlines()[:2]
    assert (path.parent / schema.removeprefix("#:schema ")).samefile(PACKAGED_SCHEMA)
    assert command == f"# nnclr-study run search_spaces/{path.name}"


QUESTIONS = {
    *("quickstart", "queue_size", "temperature", "augmentation", "width", "four_way"),
    *("queue_size_x_temperature", "stl10_keras_example", "paper", "cifar10_resnet18"),
    *("cifar10_queue_size", "cifar10_search", "cifar10_longer", "cifar10_search_confirm"),
    "cifar10_no_queue",
}


def test_the_shipped_questions_are_there():
    assert {path.stem for path in SHIPPED} == QUESTIONS
    sizes = load_study(SHIPPED[0].parent / "queue_size.toml")
    assert (sizes.grid["queue_size"][0], max(sizes.grid["queue_size"])) == (0, 98_304)
    assert len(plan_trials(sizes)) == 8 * 5
    four = load_study(SHIPPED[0].parent / "four_way.toml")
    assert four.knobs == ["queue_size", "temperature", "aug_strength", "width"]


def test_the_keras_example_is_set_as_it_sets_itself():
    (trial,) = plan_trials(load_study(SHIPPED[0].parent / "stl10_keras_example.toml"))
    config = trial.config
    assert (config.batch_size, config.labelled_batch_size) == (500, 25)
    assert (config.steps_per_epoch, config.epochs) == (200, 25)
    assert (config.width, config.projection_dim, config.queue_size) == (128, 128, 10_000)
    assert (config.temperature, config.aug_strength, config.learning_rate) == (0.1, 1.0, 1e-3)


def test_a_good_file_is_read_whole():
    study = parse_study(GOOD, "good.toml")
    assert (study.name, study.seeds) == ("good", [1, 2])
    assert study.fixed == {"dataset": "digits", "batch_size": 32, "labelled_batch_size": 8}
    assert study.text == GOOD


def test_conditions_are_the_full_product_in_file_order():
    study = parse_study(GOOD, "good.toml")
    assert arms(study) == [
        {"queue_size": size, "temperature": temperature}
        for size in (0, 40, 100)
        for temperature in (0.1, 1)
    ]
    assert arms(parse_study(GOOD.split("[grid]")[0], "good.toml")) == [{}]


POINTS = """
[[points]]
temperature = 0.2
[[points]]
queue_size = 100
width = 16
"""


def test_points_stand_after_the_grid_and_take_the_rest_from_trial():
    study = parse_study(
        GOOD.replace("= 8", "= 8\nqueue_size = 80", 1).split("[grid]")[0] + POINTS, ""
    )
    assert study.knobs == ["temperature", "queue_size", "width"]
    assert arms(study) == [
        {"temperature": 0.2, "queue_size": 80, "width": 128},
        {"temperature": 0.1, "queue_size": 100, "width": 16},
    ]
    with_grid = arms(parse_study(GOOD + POINTS, ""))
    assert len(with_grid) == 3 * 2 + 2
    assert with_grid[0] == {"queue_size": 0, "temperature": 0.1, "width": 128}
    assert with_grid[-1] == {"queue_size": 100, "temperature": 0.1, "width": 16}


def test_the_baseline_comes_first_and_the_others_stay_in_order():
    text = GOOD.replace("seeds", "baseline = { queue_size = 40, temperature = 1 }\nseeds")
    before, after = arms(parse_study(GOOD, "")), arms(parse_study(text, ""))
    assert after[0] == {"queue_size": 40, "temperature": 1}
    assert after[1:] == [arm for arm in before if arm != after[0]]


@pytest.mark.parametrize(
    ("head", "tail", "key", "says"),
    [
        ("baseline = { queue_size = 40 }", "", "study.baseline", "fits 2 conditions; name one"),
        ("baseline = { queue_size = 7 }", "", "study.baseline", "fits no condition"),
        ("margin_points = 0", "", "study.margin_points", "greater than 0"),
        ("", "[[points]]\nqueue_size = 40\n", "points", "is there twice"),
        ("", "[[points]]\nqueu_size = 40\n", "points[0].queu_size", 'did you mean "queue_size"'),
        ("", "[[points]]\nseed = 4\n", "points[0].seed", "seeds belong in [study]"),
        ("", "[points]\nqueue_size = 40\n", "points", "write [[points]] before each"),
    ],
)
def test_a_bad_point_or_baseline_is_refused_with_the_way_out(head, tail, key, says):
    found, _ = problems(GOOD.replace("seeds", f"{head}\nseeds") + tail)
    assert says in found[key]


REFERENCES = """
[[references]]
label = "NNCLR, ResNet-50"
test_top1 = 89.5
source = "arXiv:2104.14548"
[[references]]
label = "Keras example"
test_top1 = 64
source = "https://keras.io/examples/vision/nnclr"
"""
CONFIRMATION = """
[confirmation]
run = "hunt"
val_probe_top1 = [0.9, 0.875]
[[points]]
queue_size = 0
[[points]]
queue_size = 40
[[points]]
queue_size = 100
"""
POINTS_ALONE = GOOD.split("[grid]")[0]


def test_references_and_a_confirmation_are_read_whole():
    study = parse_study(POINTS_ALONE + CONFIRMATION + REFERENCES, "")
    first, second = study.references
    assert (first.label, first.test_top1, first.source) == (
        *("NNCLR, ResNet-50", 89.5, "arXiv:2104.14548"),
    )
    assert (second.label, second.test_top1) == ("Keras example", 64)
    assert study.confirmation.run == "hunt"
    assert study.confirmation.val_probe_top1 == [0.9, 0.875]
    plain = parse_study(GOOD, "")
    assert (plain.references, plain.confirmation) == ([], None)


def test_references_and_a_confirmation_make_no_trial_another():
    points = CONFIRMATION[CONFIRMATION.index("[[points]]") :]
    plain = parse_study(POINTS_ALONE + points, "")
    both = parse_study(POINTS_ALONE + CONFIRMATION + REFERENCES, "")
    assert plan_trials(plain) == plan_trials(both)
    assert incomparable(plain, both) == incomparable(both, plain) == []


def test_every_problem_of_references_and_confirmation_is_named_at_once():
    found, text = problems(
        POINTS_ALONE
        + CONFIRMATION.replace('"hunt"', '"../hunt"').replace("0.875", "87.5")
        + REFERENCES.replace("89.5", "101").replace("64", '"64 %"').replace("NNCLR, R", "X" * 80)
        + '[[references]]\nlabel = "Keras example"\ntop1 = 3\nsource = ""\n'
    )
    assert "bad.toml has 9 problems" in text
    assert "name of the study whose best are confirmed" in found["confirmation.run"]
    assert "shares of 1" in found["confirmation.val_probe_top1"]
    assert "at most 80" in found["references[0].label"]
    assert ">= 0 and <= 100" in found["references[0].test_top1"]
    assert "number" in found["references[1].test_top1"]
    assert "is there twice" in found["references[2].label"]
    assert 'did you mean "test_top1"' in found["references[2].top1"]
    assert "missing; test_top1: accuracy on the test split" in found["references[2].test_top1"]
    assert "at least 1 character" in found["references[2].source"]


SEARCHED = """
[budget]
trials = 3
[search.space]
queue_size = { low = 0, high = 100 }
"""


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (
            POINTS_ALONE + CONFIRMATION.replace("0.9, ", ""),
            "confirmation.val_probe_top1",
            "one score for each of the [[points]] after the first: 2",
        ),
        (
            POINTS_ALONE + CONFIRMATION.split("[[points]]")[0],
            "confirmation.val_probe_top1",
            "after the first: 0",
        ),
        (
            POINTS_ALONE.replace("[1, 2]", "[1]") + CONFIRMATION + SEARCHED,
            "confirmation",
            "take [search] out",
        ),
        (GOOD + CONFIRMATION, "confirmation", "take [grid] out"),
        (
            POINTS_ALONE.replace("seeds", "baseline = { queue_size = 40 }\nseeds") + CONFIRMATION,
            "study.baseline",
            "must be the first of the [[points]]",
        ),
        (
            GOOD + REFERENCES.replace("[[", "[", 1).replace("]]", "]", 1).split("[[")[0],
            "references",
            "write [[references]] before each",
        ),
        (
            GOOD + '[[references]]\n[[confirmation]]\nrun = "x"\n',
            "confirmation",
            "must be a table",
        ),
        (GOOD + "[reference]\n", "reference", 'did you mean "references"'),
    ],
)
def test_a_bad_reference_or_confirmation_is_refused_with_the_way_out(text, key, says):
    found, _ = problems(text)
    assert says in found[key]


def test_every_problem_is_named_at_once():
    found, text = problems(
        """
[study]
nam = "x"
seeds = [1, 1]
[trail]
[trial]
temperatur = 0.1
dataset = "digit"
batch_size = "32"
aug_strength = nan
seed = 3
width = 8
[grid]
queue_size = [0, -1]
width = []
val_fraction = [0.1, 0.1]
"""
    )
    assert "bad.toml has 13 problems" in text
    assert 'did you mean "name"' in found["study.nam"]
    assert "missing" in found["study.name"]
    assert "twice" in found["study.seeds"]
    assert 'did you mean "trial"' in found["trail"]
    assert 'did you mean "temperature"' in found["trial.temperatur"]
    assert 'did you mean "digits"? use one of digits, synth' in found["trial.dataset"]
    assert "whole number" in found["trial.batch_size"]
    assert "default 500" in found["trial.batch_size"]
    assert "finite number" in found["trial.aug_strength"]
    assert "also varied in [grid]" in found["trial.width"]
    assert "[study]" in found["trial.seed"]
    assert ">= 0" in found["grid.queue_size[1]"]
    assert "list of values" in found["grid.width"]
    assert "twice" in found["grid.val_fraction"]
    for key in ("trial.temperatur", "grid.queue_size[1]"):
        assert f"{key} = " in text


def test_a_knob_is_fixed_or_varied_but_not_both():
    found, _ = problems(GOOD.replace("batch_size = 32", "batch_size = 32\ntemperature = 0.1"))
    assert list(found) == ["trial.temperature"]


def test_knobs_that_do_not_fit_each_other_are_named_with_their_condition():
    found, text = problems(GOOD.replace("batch_size = 32", "batch_size = 33"))
    assert list(found) == ["grid"]
    assert "queue_size=40 cannot hold one global batch of 41" in text
    assert text.count("cannot hold") == 1, "once, not for every temperature"
    assert "queue_size >= 41" in text


def test_a_point_that_does_not_fit_is_named_by_its_place():
    found, _ = problems(GOOD + "[[points]]\nqueue_size = 5\n")
    assert list(found) == ["points[0]"]


def test_all_that_does_not_fit_in_a_condition_is_named_at_once():
    text = GOOD.replace("batch_size = 32", "batch_size = 33\nepochs = 3\nwarmup_epochs = 3")
    found, _ = problems(text)
    assert "cannot hold one global batch" in found["grid"]
    assert "use warmup_epochs < 3" in found["grid"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("seeds = 5", "must be a list; "),
        (f"seeds = {list(range(2_000))}", "at most 1000 items, not 2000; "),
        ("seeds = [1]\nquestion = 3", "must be text; "),
        ("seeds = [1]\nbaseline = 3", "must be a table; "),
    ],
)
def test_a_rule_is_told_in_words_of_toml(line, says):
    assert says in problems(f"[study]\nname = 'x'\n{line}\n")[1]


def test_a_queue_of_exactly_one_batch_fits():
    assert len(plan_trials(parse_study(GOOD, "good.toml"))) == 12


@pytest.mark.parametrize(
    "text, said",
    [
        ("[study", "not valid TOML"),
        ("[study]\nname = 'a'\nname = 'b'", "not valid TOML"),
        ("study = 3", "must be a table"),
        ("[study]\nname = '../../etc'\nseeds = [1]", "pattern"),
        ("[study]\nname = 'x'\nseeds = []", "at least 1"),
        ("[study]\nname = 'x'\nseeds = [true]", "whole number"),
        ("[study]\nname = 'x'\nseeds = 5", "list"),
        (
            "[study]\nname='x'\nseeds=[1]\n[grid]\nseed_=[1]\nwidth=3",
            "list of values: width = [..]",
        ),
        (
            "[study]\nname='x'\nseeds=[1]\n[grid]\n"
            + "\n".join(
                f"{knob} = {list(range(10, 1000))}" for knob in ("width", "epochs", "queue_size")
            ),
            "more than 100000",
        ),
    ],
)
def test_what_is_no_study_is_refused_with_the_rule(text, said):
    assert said in problems(text)[1]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    for path, said in (
        (tmp_path / "nope.toml", "No such file"),
        (tmp_path / "latin.toml", "UTF-8"),
    ):
        with pytest.raises(StudyFileError, match=said) as caught:
            load_study(path)
        assert path.name in str(caught.value)


def test_a_condition_that_is_there_twice_is_told_with_both_places():
    point = "[[points]]\nqueue_size = 200\n"
    found, _ = problems(GOOD + point + point + "temperature = 0.1\n")
    assert "is there twice, as points[0] and as points[1]" in found["points"]
    found, _ = problems(GOOD + point + "[[points]]\ntemperature = 1.0\nqueue_size = 0\n")
    assert "is there twice, as [grid] and as points[1]" in found["points"]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("[0.1, 1]", "[1, 1.0]", "grid.temperature"),
        ("[0.1, 1]", "[0.1, 0.10]", "grid.temperature"),
        ("[0.1, 1]", "[0.1, 1e-1]", "grid.temperature"),
        ("[0, 40, 100]", "[40, 0x28]", "grid.queue_size"),
        ("[0, 40, 100]", "[true, 1]", "grid.queue_size"),
        ("[1, 2]", "[2, 2]", "study.seeds"),
    ],
)
def test_a_value_is_there_twice_however_it_is_written(old, new, key):
    assert "twice" in problems(GOOD.replace(old, new))[1]
    assert key in problems(GOOD.replace(old, new))[0]


def test_an_editors_byte_order_mark_and_line_ends_change_nothing(tmp_path):
    path = tmp_path / "x.toml"
    text = '[study]\nname = "x"\nseeds = [1, 2]\n'
    path.write_text(text, encoding="utf-8-sig")
    assert load_study(path).text == text
    folder = RunFolder.create(tmp_path / "x").keep(load_study(path))
    assert folder.study_file.read_text() == text
    folder.study_file.write_text(text, encoding="utf-8-sig")
    folder.keep(load_study(path))
    assert folder.study_file.read_text() == text
    path.write_text(text.replace("\n", "\r\n"), newline="")
    assert load_study(path).seeds == [1, 2]
