"""The `[search]` table: what is read, and that a bad one is refused with the way out."""

import pytest

from nnclr_study.study.plan import suggested_trial
from nnclr_study.study.spec import incomparable, parse_study
from tests.study.test_spec import problems

SEARCH = """
[study]
name = "hunt"
seeds = [7]
[budget]
trials = 12
[trial]
dataset = "digits"
batch_size = 32
labelled_batch_size = 8
epochs = 18
[search]
[search.space]
queue_size = { low = 40, high = 1_000, log = true }
temperature = { low = 0.05, high = 0.5, step = 0.05 }
optimizer = { choices = ["adam", "lars"] }
lars_trust = { low = 1e-4, high = 1e-2, log = true, when = { optimizer = "lars" } }
"""


def test_a_search_is_read_whole():
    study = parse_study(SEARCH, "hunt.toml")
    assert study.knobs == ["queue_size", "temperature", "optimizer", "lars_trust"]
    assert study.search.table.sampler == "tpe"
    assert study.search.directions == ["maximize"]
    assert study.search.min_epochs(18) == 2
    assert study.search.space["queue_size"].whole
    assert not study.search.space["temperature"].whole
    assert study.budget.trials == 12


def test_a_suggestion_is_a_trial_with_what_it_sets():
    study = parse_study(SEARCH, "hunt.toml")
    trial = suggested_trial(study, 3, {"queue_size": 100, "optimizer": "adam"})
    assert trial.id == f"0003_{trial.config.digest}"
    assert trial.condition == {"queue_size": 100, "optimizer": "adam"}
    assert (trial.config.seed, trial.config.queue_size, trial.config.epochs) == (7, 100, 18)


def changed(old, new):
    assert old in SEARCH
    return SEARCH.replace(old, new)


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (changed("seeds = [7]", "seeds = [1, 2]"), "study.seeds", "must be one seed"),
        (changed("trials = 12", ""), "budget", "a search ends with its budget"),
        (
            changed("step = 0.05", "step = 1e-320"),
            "search.space.temperature.step",
            "is too small for this range; it makes more than 1,000,000,000 values",
        ),
        (changed("trials = 12", "trials = 0"), "budget.trials", "greater than or equal to 1"),
        (changed("[search]\n", '[search]\nsampler = "tp"\n'), "search.sampler", "'tpe'"),
        (changed("[search]\n", "[search]\nsamples = 3\n"), "search.samples", "unknown key"),
        (changed("low = 40", "low = 4.5"), "search.space.queue_size.low", "a whole number"),
        (changed("low = 40", "low = -1"), "search.space.queue_size.low", "more than 0"),
        (changed("low = 40", "low = 0"), "search.space.queue_size.low", "more than 0 where log"),
        (changed("high = 1_000", "high = 40"), "search.space.queue_size.high", "more than low"),
        (
            changed("1_000, log = true", "1_000, log = true, step = 2"),
            "search.space.queue_size.step",
            "log",
        ),
        (
            changed("low = 40, high = 1_000, log = true", "choises = [40]"),
            "search.space.queue_size",
            "{ choices",
        ),
        (
            changed('["adam", "lars"]', '["adam", "larsen"]'),
            "search.space.optimizer.choices[1]",
            "one of",
        ),
        (
            changed('["adam", "lars"]', '["adam", "adam"]'),
            "search.space.optimizer.choices",
            "twice",
        ),
        (
            changed('choices = ["adam", "lars"]', "low = 1, high = 2"),
            "search.space.optimizer",
            "not a number",
        ),
        (
            changed('optimizer = "lars" }', 'optimizer = "sgd" }'),
            "search.space.lars_trust.when.optimizer",
            "nothing that",
        ),
        (
            changed('optimizer = "lars" }', "width = 3 }"),
            "search.space.lars_trust.when.width",
            "further up",
        ),
        (
            changed("temperature =", "temperatur ="),
            "search.space.temperatur",
            'did you mean "temperature"',
        ),
        (changed("temperature =", "seed ="), "search.space.seed", "seeds belong in [study]"),
        (
            changed("epochs = 18", "epochs = 18\ntemperature = 0.1"),
            "trial.temperature",
            "also searched",
        ),
        (SEARCH + "[grid]\nwidth = [8]\n", "grid", "does not go with [search]"),
        (SEARCH + "[[points]]\nwidth = 8\n", "points[0].width", "is not searched"),
        (
            SEARCH + "[[points]]\nqueue_size = 2_000\n",
            "points[0].queue_size",
            "is outside of what [search.space] has for queue_size: 40 to 1000; widen that",
        ),
        (
            SEARCH + '[[points]]\noptimizer = "sgd"\n',
            "points[0].optimizer",
            "choices = ['adam', 'lars']; widen that",
        ),
        (changed("seeds", 'baseline = "x"\nseeds'), "study.baseline", "must be a table"),
        (
            changed(
                "[search]\n",
                '[search]\nsampler = "cmaes"\nobjectives = ["val_probe_top1", "gpu_seconds"]\n',
            ),
            "search.sampler",
            "aims at one objective",
        ),
        (
            changed("seeds", "baseline = { width = 8 }\nseeds"),
            "study.baseline.width",
            "is not searched",
        ),
        (
            changed("seeds", "baseline = { queue_size = 10 }\nseeds"),
            "study.baseline",
            "cannot hold one global batch",
        ),
        (SEARCH.split("[search.space]")[0], "search.space", "must be a table of knobs"),
        (
            changed("[search]\n", '[search]\nobjectives = ["val_probe_top1", "gpu_seconds"]\n'),
            "search.early_stopping",
            'early_stopping = "none"',
        ),
        (
            changed("[search]\n", '[search]\nobjectives = ["top1"]\n'),
            "search.objectives",
            "val_probe_top1",
        ),
    ],
)
def test_a_bad_search_is_refused_with_the_way_out(text, key, says):
    found, _ = problems(text)
    assert says in found[key], found


def test_a_range_holds_its_steps_alone():
    space = parse_study(SEARCH, "hunt.toml").search.space
    assert [space["temperature"].holds(value) for value in (0.05, 0.15, 0.5)] == [True] * 3
    assert not space["temperature"].holds(0.12)
    found, _ = problems(SEARCH + "[[points]]\ntemperature = 0.12\n")
    assert "0.05 to 0.5 by 0.05; widen that" in found["points[0].temperature"]


@pytest.mark.parametrize("objective", ["c_acc", "c_loss", "r_acc"])
def test_a_contrastive_objective_cannot_judge_what_changes_its_task(objective):
    table = f'[search]\nobjectives = ["{objective}"]\n'
    found, _ = problems(changed("[search]\n", table))
    said = found["search.objectives"]
    assert f"{objective} cannot judge queue_size, temperature" in said
    assert "val_probe_top1" in said
    harmless = changed("[search]\n", table).split("[search.space]")[0]
    study = parse_study(
        harmless + "[search.space]\nlearning_rate = { low = 1e-4, high = 1e-2, log = true }\n", ""
    )
    assert study.search.table.objectives == [objective]


def test_what_optuna_could_not_hold_in_one_study_is_incomparable():
    old = parse_study(SEARCH, "")
    assert incomparable(old, parse_study(changed("high = 1_000", "high = 2_000"), "")) == []
    assert incomparable(old, parse_study(changed("trials = 12", "trials = 99"), "")) == []
    (said,) = incomparable(old, parse_study(changed('["adam", "lars"]', '["lars", "sgd"]'), ""))
    assert "optimizer was searched in other choices" in said
    (said,) = incomparable(
        old,
        parse_study(
            changed(
                "[search]\n", '[search]\nearly_stopping = "none"\nobjectives = ["gpu_seconds"]\n'
            ),
            "",
        ),
    )
    assert said == "the objective was val_probe_top1, and is now gpu_seconds"
    (said,) = incomparable(old, parse_study(changed("epochs = 18", "epochs = 9"), ""))
    assert said == "epochs was 18, and is now 9"


def spaced(*lines):
    """Return a search whose space has these lines alone."""
    return SEARCH.split("queue_size =")[0] + "\n".join(lines) + "\n"


LARS = "lars_trust = { low = 1e-4, high = 1e-2, log = true, when = %s }"
CONTINUOUS = "temperature = { low = 0.05, high = 0.5 }"


@pytest.mark.parametrize(
    ("lines", "key", "says"),
    [
        ([CONTINUOUS, LARS % "{ temperature = 0.1 }"], "temperature", "a continuous range"),
        (
            [
                "temperature = { low = 0.05, high = 0.5, log = true }",
                LARS % "{ temperature = 0.1 }",
            ],
            "temperature",
            "give temperature as { choices = [..] }",
        ),
        (
            ["queue_size = { low = 64, high = 10_000, log = true }", LARS % "{ queue_size = 64 }"],
            "queue_size",
            "practically never drawn: queue_size has 9,937 values",
        ),
        (
            ["queue_size = { low = 0, high = 10_000 }", LARS % "{ queue_size = 0 }"],
            "queue_size",
            "10,001 values",
        ),
        (
            [
                "temperature = { low = 0.1, high = 1.0, step = 0.001 }",
                LARS % "{ temperature = 0.1 }",
            ],
            "temperature",
            "901 values",
        ),
    ],
)
def test_a_condition_that_practically_never_holds_is_refused(lines, key, says):
    found, _ = problems(spaced(*lines))
    assert says in found[f"search.space.lars_trust.when.{key}"]


@pytest.mark.parametrize(
    "lines",
    [
        ["temperature = { choices = [0.1, 0.5] }", LARS % "{ temperature = 0.1 }"],
        ["temperature = { low = 0.1, high = 0.5, step = 0.1 }", LARS % "{ temperature = 0.3 }"],
        ["neighbours = { low = 1, high = 16, log = true }", LARS % "{ neighbours = 16 }"],
        [f"queue_size = {{ choices = {[*range(50, 350)]} }}", LARS % "{ queue_size = 50 }"],
        ["head_batch_norm = { choices = [true, false] }", LARS % "{ head_batch_norm = true }"],
    ],
)
def test_a_condition_on_a_value_that_is_drawn_is_accepted(lines):
    assert "lars_trust" in parse_study(spaced(*lines), "x").search.space


def test_a_condition_that_contradicts_itself_is_refused():
    lines = [
        'optimizer = { choices = ["adam", "sgd", "lars"] }',
        "lars_clip = { choices = [true, false], when = { optimizer = 'lars' } }",
        LARS % "{ optimizer = 'sgd', lars_clip = true }",
    ]
    found, _ = problems(spaced(*lines))
    said = found["search.space.lars_trust.when.lars_clip"]
    assert "never holds: it needs both optimizer = 'sgd' and optimizer = 'lars'" in said
    parse_study(spaced(*lines[:2], LARS % "{ optimizer = 'lars', lars_clip = true }"), "x")
    turned, _ = problems(spaced(*lines[:2], LARS % "{ lars_clip = true, optimizer = 'sgd' }"))
    assert "never holds" in turned["search.space.lars_trust.when.optimizer"]


@pytest.mark.parametrize(
    ("when", "key"),
    [
        ("{ optimizer = ['adam', 'lars'] }", "search.space.lars_trust.when"),
        ("{ lars_trust = 0.001 }", "search.space.lars_trust.when.lars_trust"),
        ("{ lars_clip = true }", "search.space.lars_trust.when.lars_clip"),
    ],
)
def test_a_condition_names_one_value_of_a_knob_further_up(when, key):
    lines = ['optimizer = { choices = ["adam", "lars"] }', LARS % when]
    lines += ["lars_clip = { choices = [true, false] }"]
    assert key in problems(spaced(*lines))[0]


POINT = '[[points]]\nqueue_size = 50\noptimizer = "adam"\n'


@pytest.mark.parametrize(
    "again",
    [
        POINT,
        '[[points]]\noptimizer = "adam"\nqueue_size = 50\n',
        POINT + "lars_trust = 0.001\n",
    ],
    ids=["the same", "another order", "a knob that does not apply"],
)
def test_a_point_that_is_there_twice_is_refused(again):
    other = '[[points]]\nqueue_size = 60\noptimizer = "adam"\n'
    found, _ = problems(SEARCH + POINT + other + again)
    assert "is there twice, as points[0] and as points[2]" in found["points"]


def test_points_that_differ_are_no_copies():
    """What a point leaves open is drawn by the sampler, and is not the default."""
    points = POINT + POINT + "temperature = 0.1\n" + POINT.replace("50", "60")
    assert len(parse_study(SEARCH + points, "x").points) == 3
    one = SEARCH.replace("step = 0.05", "step = 0.5").replace("low = 0.05", "low = 0.5")
    one = one.replace("high = 0.5", "high = 1.0")
    found, _ = problems(one + POINT + "temperature = 1\n" + POINT + "temperature = 1.0\n")
    assert "is there twice" in found["points"]
