from itertools import pairwise

import pandas as pd
import pytest

from nnclr_study.errors import RunFolderWarning
from nnclr_study.report.analyse import analyse
from nnclr_study.report.figures import learning_curves, queue_health, search_curves
from nnclr_study.report.figures.learning import MANY, POINTS, thinned
from nnclr_study.report.load import load
from tests.report.helpers import make_run, run_of, study_text
from tests.report.studies import columns
from tests.report.test_figures import made_arm, texts

MEASURES = ("nn_same_label", "nn_age", "feature_std", "rankme")


def made_epochs(status=("finished", "finished", "failed"), **measures):
    """Two arms, three seeds each, two epochs; the first arm has no queue."""
    rows = [
        {"arm": arm, "seed": seed, "status": state, "epoch": epoch}
        | {name: value(arm, seed, epoch) for name, value in measures.items()}
        for arm in (0, 1)
        for seed, state in enumerate(status, start=1)
        for epoch in (1, 2)
    ]
    return pd.DataFrame(
        dict.fromkeys(MEASURES), index=range(len(rows)), dtype=object
    ).combine_first(pd.DataFrame(rows))


def test_health_is_a_mean_over_finished_seeds_and_leaves_out_arms_without_a_queue():
    epochs = made_epochs(
        nn_same_label=lambda arm, seed, epoch: 0.1 * seed + 0.2 * epoch if arm else None,
        rankme=lambda arm, seed, epoch: 10 * arm + seed,
    )
    figure = queue_health(epochs, [made_arm(0), made_arm(500)])
    label, without, rank = figure.data
    assert list(label.y) == pytest.approx([35, 55])
    assert list(without.y) == pytest.approx([1.5, 1.5])
    assert list(rank.y) == pytest.approx([11.5, 11.5])
    assert (label.yaxis, without.yaxis, rank.yaxis) == ("y", "y2", "y2")
    assert "neighbours with the same label (%)" in texts(figure)
    assert "feature_std" not in texts(figure), "a measure that no epoch has"


def test_an_arm_looks_the_same_in_every_panel_and_is_in_the_legend_once():
    epochs = made_epochs(**dict.fromkeys(MEASURES, lambda arm, seed, epoch: 0.5 + arm))
    figure = queue_health(epochs, [made_arm(0), made_arm(500)])
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert named == ["queue_size 0 (n = 2)", "queue_size 500 (n = 2)"]
    looks = {(trace.name, trace.line.color, trace.line.dash) for trace in figure.data}
    assert len(looks) == 2
    assert len({dash for _, _, dash in looks}) == 2


def curves(arms, seeds, epochs, status=lambda arm, seed: "finished"):
    """Accuracies that rise by epoch, apart by seed."""
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "status": status(arm, seed), "trial_id": f"{arm}-{seed}"}
        | {"epoch": epoch, "val_probe_top1": 0.5 + 0.001 * seed + 0.3 * epoch / epochs}
        for arm in range(arms)
        for seed in range(seeds)
        for epoch in range(1, epochs + 1)
    )


def drawn(epochs, arms):
    figure = learning_curves(epochs, [made_arm(place) for place in range(arms)])
    singles = [trace for trace in figure.data if ", seed " in trace.name]
    return figure, singles, [trace for trace in figure.data if "(n = " in trace.name]


@pytest.mark.parametrize(("seeds", "single"), [(MANY // 2, True), (MANY // 2 + 1, False)])
def test_single_seeds_of_many_trials_are_not_drawn(seeds, single):
    epochs = curves(2, seeds, 4)
    figure, singles, means = drawn(epochs, 2)
    assert bool(singles) == single
    assert [mean.name for mean in means] == [f"queue_size {arm} (n = {seeds})" for arm in (0, 1)]
    own = epochs[epochs["arm"] == 0].groupby("epoch")["val_probe_top1"].mean()
    assert list(means[0].y) == pytest.approx((100 * own).tolist(), abs=1e-3)
    low, high = figure.layout.yaxis.range
    top = 100 * epochs["val_probe_top1"].max()
    assert (high > top) == single, "the axis is wide enough for what is drawn, and no wider"
    assert low < means[0].y[1] < means[0].y[-1] < high


def test_many_trials_of_which_none_has_finished_are_lines():
    _, singles, means = drawn(curves(2, MANY, 1, lambda arm, seed: "running"), 2)
    assert (len(singles), means) == (2 * MANY, [])


def test_the_axis_fits_short_finished_trials_beside_long_running_ones():
    epochs = curves(1, MANY, 4)
    running = curves(2, 1, 100, lambda arm, seed: "running").query("arm == 1")
    figure, _, (mean,) = drawn(pd.concat([epochs, running]), 2)
    assert figure.layout.yaxis.range[0] < mean.y[1] < mean.y[-1] < figure.layout.yaxis.range[1]


def test_a_single_epoch_is_seen(tmp_path):
    text = study_text("queue_size = [0, 500]", seeds=[1, 2, 3]).replace("epochs = 4", "epochs = 1")
    tables = load(make_run(tmp_path, text, lambda trial: 0.8 + trial.config.seed / 100))
    arms = analyse(tables)["arms"]
    curves = learning_curves(tables.epochs, arms)
    points = [trace for trace in curves.data if "band" not in trace.name]
    assert {trace.mode for trace in points} == {"markers"}
    assert {trace.mode for trace in queue_health(tables.epochs, arms).data} == {"markers"}
    assert {trace.mode for trace in search_curves(tables.epochs, None).data} == {"markers"}


def test_a_curve_stands_at_its_own_epochs(tmp_path):
    folder = run_of(tmp_path, **columns([0.85, 0.87], seeds=3))
    lines = (folder.path / "epochs.jsonl").read_text().splitlines()
    kept = ["torn" if '"epoch": 1,' in line else line for line in lines]
    (folder.path / "epochs.jsonl").write_text("\n".join(kept) + "\n")
    with pytest.warns(RunFolderWarning):
        tables = load(folder)
    figure = learning_curves(tables.epochs, analyse(tables)["arms"])
    assert {min(trace.x) for trace in figure.data} == {2}


@pytest.mark.parametrize("length", [0, 1, 199, 200, 201, 1_001])
def test_a_thinned_curve_keeps_its_last_value_and_even_steps(length):
    kept = thinned(range(1, length + 1))
    assert len(kept) == length if length <= POINTS else POINTS / 2 < len(kept) <= POINTS
    assert kept[-1:] == list(range(1, length + 1))[-1:]
    assert len({b - a for a, b in pairwise(kept)}) <= 1


def test_long_curves_are_thinned_alike_in_every_figure():
    epochs = curves(1, 3, 1_000)
    expected = list(range(5, 1_001, 5))
    _, singles, (mean,) = drawn(epochs, 1)
    assert list(mean.x) == list(singles[0].x) == expected
    values = epochs.groupby("epoch")["val_probe_top1"].mean()
    assert list(mean.y) == pytest.approx([100 * values[at] for at in expected], abs=1e-3)
    health = epochs.assign(**dict.fromkeys(MEASURES) | {"rankme": epochs["epoch"] / 3})
    (rank,) = queue_health(health, [made_arm(0)]).data
    assert list(rank.x) == expected
    assert list(rank.y) == pytest.approx([at / 3 for at in expected], rel=1e-4)


def test_of_a_large_search_every_curve_is_drawn_and_the_best_in_full():
    epochs = curves(500, 1, 100)
    traces = search_curves(epochs, best=7).data
    assert len(traces) == 500
    assert len(traces[7].x) == 100
    assert {len(trace.x) for place, trace in enumerate(traces) if place != 7} == {34}
    assert {trace.x[-1] for trace in traces} == {100}
