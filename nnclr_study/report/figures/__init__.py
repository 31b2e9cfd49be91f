"""From a table to a figure; no files, and no averages but over the rows that are drawn."""

from nnclr_study.report.figures.comparison import best_set, forest, paired_seeds
from nnclr_study.report.figures.dose import dose_response
from nnclr_study.report.figures.factors import cell_means, interaction
from nnclr_study.report.figures.learning import learning_curves, queue_health
from nnclr_study.report.figures.proxies import proxies
from nnclr_study.report.figures.running import completeness, throughput, timeline
from nnclr_study.report.figures.search import search_curves, slices
from nnclr_study.report.figures.value import confirmation, cost

__all__ = [
    "best_set",
    "cell_means",
    "completeness",
    "confirmation",
    "cost",
    "dose_response",
    "forest",
    "interaction",
    "learning_curves",
    "paired_seeds",
    "proxies",
    "queue_health",
    "search_curves",
    "slices",
    "throughput",
    "timeline",
]
