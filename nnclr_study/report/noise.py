"""How far trials scatter over seeds, and what difference a study to come can therefore resolve."""

from dataclasses import dataclass
from math import sqrt

from nnclr_study.report.blocks import smallest_difference
from nnclr_study.study.plan import plan_trials
from nnclr_study.study.spec import Study


@dataclass(frozen=True)
class Noise:
    """How far val_probe_top1 scatters over seeds, as shares of 1, by `value ~ arm + seed`."""

    seed_sd: float
    """Standard deviation of a condition over its seeds, pooled over conditions."""
    correlation: float
    """Of two conditions over the same seeds, ICC(3,1)."""
    source: str
    """The study that it was seen in."""

    @property
    def residual_sd(self) -> float:
        """Return what is left when the seeds' own levels are taken off."""
        return self.seed_sd * sqrt(1 - self.correlation)


PUBLISHED = {
    "digits": Noise(0.0216, 0.088, "reports/quickstart"),
    "cifar10": Noise(0.00901, 0.0856, "reports/cifar10_queue_size"),
}
"""By data set, of the studies that this project publishes; a test holds them to those rows."""


@dataclass(frozen=True)
class Resolution:
    """The smallest difference to the baseline that a study resolves with 80 % power."""

    residual_sds: float
    noise: Noise

    @property
    def difference(self) -> float:
        """Return it as a share of 1."""
        return self.residual_sds * self.noise.residual_sd


def resolution(study: Study, noise: Noise | None = None) -> Resolution | None:
    """Return what a grid's seeds resolve; without noise that of a published study.

    The one of its data set, and of CIFAR-10 where there is none. None: a search, which compares
    nothing, one condition, or too few seeds for a verdict.
    """
    if study.search is not None:
        return None
    trials = plan_trials(study)
    conditions = len(trials) // len(study.seeds)
    found = smallest_difference(conditions, len(trials[: study.budget.trials]) // conditions)
    published = PUBLISHED.get(trials[0].config.dataset, PUBLISHED["cifar10"])
    return None if found is None else Resolution(found, noise or published)
