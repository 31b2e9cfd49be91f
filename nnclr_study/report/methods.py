"""The paragraph that a paper needs: how this study was done and what its numbers mean."""

from typing import Any

from nnclr_study.report.wording import listed, margin_said, points

BIBTEX = """\
@inproceedings{dwibedi2021nnclr,
  title     = {With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of
               Visual Representations},
  author    = {Dwibedi, Debidatta and Aytar, Yusuf and Tompson, Jonathan and Sermanet, Pierre
               and Zisserman, Andrew},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2021}
}
@misc{nnclrstudy,
  title = {nnclr-study: hyperparameter studies of NNCLR},
  note  = {Version %s}
}
"""


def methods(analysis: dict[str, Any]) -> str:
    """Return how the study was done, in sentences; only what was done is said."""
    study, status = analysis["study"], analysis["status"]
    said = [_design(analysis)]
    said.append(
        "val_probe_top1 is the accuracy of a linear probe on frozen features, on a part of the "
        "labelled training images that was held out; its regularisation is chosen there too. "
        "test_probe_top1 is read once, in a trial's last epoch, and nothing is chosen by it. "
        "Accuracies are of the last epoch."
    )
    if study["search"]:
        said.append(
            "All that is said of a search is exploratory: a trial is one seed, and the best of "
            "many looks better than it is."
        )
    elif analysis["blocks"]:
        said += _tests(analysis)
    if analysis["proxies"]:
        said.append(
            "Scores are compared with test_probe_top1 by Spearman's rank correlation, with "
            "intervals after Bonett and Wright (2000)."
        )
    if status["failed"]:
        said.append(f"{status['failed']} failed trial(s) are in no mean.")
    if status["interim"]:
        said.append("The study is not over: intervals are shown, tests are not.")
    elif analysis["setup"]["sessions"] > 1:
        said.append(
            f"Trials ended in {analysis['setup']['sessions']} calls of `run`; had seeds been "
            "added because of what was seen in between, errors would be more frequent than stated."
        )
    return " ".join(said)


def _design(analysis: dict[str, Any]) -> str:
    study, status, arms = analysis["study"], analysis["status"], analysis["arms"]
    on = f"on {listed(study['datasets'])}" if study["datasets"] else ""
    if search := study["search"]:
        return (
            f"{status['planned']} trials {on} were suggested by Optuna ({search['sampler']}, "
            f"early stopping {search['early_stopping']}); {status['finished']} were trained to "
            "the end."
        )
    seeds = len(study["seeds"])
    return (
        f"{len(arms)} condition(s) {on} were trained with {seeds} seed(s) each, the same in every "
        "condition; a seed sets initialisation, order of the data, augmentation and probe. "
        f"{status['finished']} of {status['planned']} trials finished."
    )


def _tests(analysis: dict[str, Any]) -> list[str]:
    blocks, margin = analysis["blocks"], margin_said(analysis["study"]["margin"])
    seeds = len(blocks["seeds"])
    said = [
        "Intervals of a mean are Student's t, 95 %.",
        f"Conditions are compared over the {seeds} seeds that all compared ones finished, by the "
        f"model accuracy ~ condition + seed (residual SD {points(blocks['residual_sd'], 2)}, "
        f"{blocks['df']} degrees of freedom).",
    ]
    if analysis["comparisons"]:
        said.append(
            "Differences to the baseline carry two-sided Dunnett intervals, 95 % for all "
            f"{analysis['comparisons']} together (critical value {blocks['critical']:.3f}); "
            "paired t-tests with Holm's correction are printed as a check"
            + (
                ", and must agree here: the conditions' standard deviations in these seeds differ "
                "by more than a factor of 3."
                if blocks["method"] == "holm"
                else "."
            )
        )
        said.append(
            "Better or worse: that interval excludes 0. Equivalent: the 90 % interval lies "
            f"within {margin} of 0 (two one-sided tests at 5 %). Not resolved: neither."
        )
    if analysis["best_set"]:
        said.append("The best set is by Hsu's multiple comparisons with the best, 95 %.")
    if analysis["sufficient"]:
        said.append(
            "The smallest sufficient value is found by stepping down from the largest while not "
            f"inferior by {margin} (one-sided, 5 % each; a fixed sequence needs no correction)."
        )
    if analysis["trend"]:
        said.append(
            "The slope is a paired t-interval over the seeds' own lines in log2; line or hinge is "
            "chosen by AICc, and the hinge's interval is by profile likelihood."
        )
    return said
