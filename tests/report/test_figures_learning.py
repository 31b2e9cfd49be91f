import pandas as pd
import pytest

from nnclr_study.report.figures import queue_health
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
