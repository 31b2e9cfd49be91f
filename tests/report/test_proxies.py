"""Whether a score could have chosen: the numbers, the sentence and the figure."""

from dataclasses import replace
from math import tanh

import numpy as np
import pytest
from scipy.stats import spearmanr

from nnclr_study.report import figures
from nnclr_study.report.analyse import analyse
from nnclr_study.report.findings import find
from nnclr_study.report.load import load
from nnclr_study.report.proxies import MIN_RANKED, proxies, spearman
from nnclr_study.report.sections import sections
from tests.report.helpers import analysis_of, run_of

MEANS = [0.50, 0.54, 0.52, 0.56, 0.58]
SIZES = [0, 500, 1_000, 5_000, 10_000]
SEEDS = [0.000, 0.010, 0.020]


@pytest.fixture
def tables(tmp_path):
    outcomes = {
        f"q{size}": [mean + seed for seed in SEEDS]
        for size, mean in zip(SIZES, MEANS, strict=True)
    }
    found = load(run_of(tmp_path, **outcomes))
    test = found.trials["val_probe_top1"]
    return replace(found, trials=found.trials.assign(test_probe_top1=test))


def scored(tables, **scores):
    """Give every finished trial, by its test accuracy, these scores in its last epoch."""
    epochs = tables.epochs.copy()
    accuracy = tables.trials.set_index("trial_id")["test_probe_top1"]
    for name in ("rankme", "alignment", "uniformity", "c_acc", "val_knn_top1"):
        score = scores.get(name, lambda _: None)
        epochs[name] = [score(accuracy[trial]) for trial in epochs["trial_id"]]
    return replace(tables, epochs=epochs)


def row(found, name):
    return next(score for score in found["scores"] if score["score"] == name)


def test_a_score_that_follows_accuracy_picks_the_best_and_costs_nothing(tables):
    found = proxies(scored(tables, rankme=lambda top1: 100 * top1))
    told = row(found, "rankme")
    assert (found["arms"], found["trials"], found["best"]) == (5, 15, 4)
    assert told["across"]["rho"] == pytest.approx(1) and told["across"]["interval"] is None
    assert told["within"]["rho"] == pytest.approx(1)
    assert (told["picks"], told["cost"], told["cost_interval"]) == (4, 0.0, None)


def test_less_alignment_is_better(tables):
    found = proxies(scored(tables, alignment=lambda top1: 1 - top1, uniformity=lambda top1: top1))
    assert row(found, "alignment")["across"]["rho"] == pytest.approx(1)
    assert row(found, "uniformity")["across"]["rho"] == pytest.approx(-1)
    assert row(found, "uniformity")["picks"] == 0
    assert row(found, "uniformity")["cost"] == pytest.approx(0.08)


def test_ranks_across_and_within_conditions_are_told_apart(tables):
    """Seeds add 0.01 each; a score that sees only the seeds ranks no condition."""
    by_trial = tables.trials.set_index("trial_id")
    order = {4: 0, 0: 4, 1: 1, 2: 2, 3: 3}
    epochs = tables.epochs.copy()
    epochs["rankme"] = [
        1000 * order[by_trial["arm"][trial]] + by_trial["test_probe_top1"][trial]
        for trial in epochs["trial_id"]
    ]
    told = row(proxies(replace(tables, epochs=epochs)), "rankme")
    accuracies = by_trial.groupby("arm")["test_probe_top1"].mean()
    expected = spearmanr([order[arm] for arm in accuracies.index], accuracies).statistic
    assert told["across"]["rho"] == pytest.approx(expected) and expected < 0
    assert told["within"]["rho"] == pytest.approx(1)
    assert told["within"]["n"] == 15 - 5 + 1
    assert told["picks"] == 0 and told["cost"] == pytest.approx(0.08)
    assert told["cost_interval"] is None, "all seeds differ alike: no spread"


def test_a_cost_has_no_interval_of_other_seeds_than_its_own(tmp_path):
    lost = "OutOfMemoryError: 2 GiB"
    values = {"q0": [0.8, 0.81, 0.82, 0.2], "q500": [0.5, 0.51, 0.53, lost]}
    values |= {"q1000": [0.7, 0.71, 0.72, 0.74], "q2000": [0.75, 0.71, 0.72, 0.74]}
    values |= {"q4000": [0.75, 0.76, 0.72, 0.74]}
    found = analysis_of(tmp_path, **values)["proxies"]
    costly = [score for score in found["scores"] if score["cost"] > 0]
    assert found["best"] == 1, "test accuracy is turned round here"
    assert costly
    assert all(score["cost_interval"] is None for score in costly), "seed 4 failed in one"


def test_too_few_conditions_are_not_ranked(tmp_path):
    few = {f"q{size}": [0.5, 0.6] for size in SIZES[: MIN_RANKED - 1]}
    assert proxies(load(run_of(tmp_path, **few))) is None


def test_a_score_that_a_trial_lacks_is_left_out(tables):
    found = proxies(scored(tables, rankme=lambda top1: None if top1 > 0.57 else top1))
    assert "rankme" not in [score["score"] for score in found["scores"]]


@pytest.mark.parametrize("n", [6, 12, 40])
def test_the_interval_covers_what_it_claims(n):
    """Two normal variables of correlation 0.5 have a rho of 6 / pi asin(0.25)."""
    generator, true, covered, rounds = np.random.default_rng(n), 6 / np.pi * np.arcsin(0.25), 0, 0
    for _ in range(1_000):
        x, noise = generator.standard_normal((2, n))
        told = spearman(x, 0.5 * x + np.sqrt(0.75) * noise, n)
        if told["interval"] is not None:
            rounds += 1
            covered += told["interval"][0] <= true <= told["interval"][1]
    assert covered / rounds >= 0.93
    assert n == 6 or covered / rounds <= 0.98


def test_the_interval_is_bonetts_and_wrights():
    told = spearman([1, 2, 3, 4, 5, 6, 7], [1, 3, 2, 5, 4, 7, 6], 7)
    half = 1.959964 * ((1 + told["rho"] ** 2 / 2) / 4) ** 0.5
    assert told["rho"] == pytest.approx(spearmanr([1, 2, 3, 4, 5, 6, 7], [1, 3, 2, 5, 4, 7, 6])[0])
    assert told["interval"][1] == pytest.approx(tanh(np.arctanh(told["rho"]) + half), abs=1e-6)
    assert spearman([1, 1, 1, 1], [1, 2, 3, 4], 4) is None


def test_the_page_says_that_no_score_could_choose(tables):
    order = {0.5: 3, 0.52: 4, 0.54: 1, 0.56: 2, 0.58: 0}
    backwards = {"rankme": lambda top1: -top1, "c_acc": lambda top1: order[round(top1, 2)]}
    backwards |= {"alignment": lambda top1: top1, "uniformity": lambda top1: top1}
    trials = tables.trials[tables.trials["seed"] == 1]
    epochs = tables.epochs[tables.epochs["trial_id"].isin(trials["trial_id"])]
    one_seed = replace(tables, trials=trials, epochs=epochs)
    said = find(analyse(scored(one_seed, **backwards)))["proxies"].text
    assert said.startswith(
        "No score without labels ranks conditions as test_probe_top1 does; c_acc"
    )
    assert "Backwards: rankme (rho -1.00), alignment (rho -1.00) and uniformity (rho" in said


def test_the_page_says_which_score_could_choose(tables):
    asked = scored(tables, rankme=lambda top1: 100 * top1, c_acc=lambda top1: 1 - top1)
    analysis = analyse(asked)
    findings = find(analysis)
    said = findings["proxies"].text
    assert said.startswith("Of the scores without labels rankme ranks conditions most as test")
    assert "n = 5 conditions" in said and "loses against the best: 8.0 points by c_acc" in said
    assert "Backwards: c_acc (rho -1.00). " in said
    (section,) = [s for s in sections(asked, analysis, findings) if s.key == "proxies"]
    assert section.data["picks"].tolist()[:2] == ["queue_size 10,000", "queue_size 0"]
    across, within = (trace for trace in section.figure.data if trace.name)
    assert list(across.x)[:2] == pytest.approx([1, -1])
    assert len(within.x) == len(section.data)


def test_a_trial_whose_epochs_are_lost_has_no_score(tables):
    assert proxies(replace(tables, epochs=tables.epochs.iloc[:0]))["scores"] == []


def test_a_running_study_ranks_nothing_yet(tmp_path):
    running = {f"q{size}": [0.5, 0.6] for size in SIZES} | {"q0": [0.5, 2]}
    assert analyse(load(run_of(tmp_path, **running)))["proxies"] is None


def test_the_figure_says_what_choosing_costs(tables):
    analysis = analyse(scored(tables, rankme=lambda top1: -top1))
    figure = figures.proxies(analysis["proxies"], analysis["arms"])
    texts = [note.text for note in figure.layout.annotations]
    assert "picks queue_size 0<br>8.0 points lost" in texts
