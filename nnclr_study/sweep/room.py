"""How many trials a cluster holds as nodes come and go, and what a node must have first."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

from nnclr_study.errors import ClusterError
from nnclr_study.study.plugins import Named
from nnclr_study.sweep.cluster import resources
from nnclr_study.sweep.nodes import Facts, alive, bring, check
from nnclr_study.sweep.resources import Demand, Placement, place
from nnclr_study.sweep.terminal import Progress

ASK_AGAIN_SECONDS = 5.0
"""How often the cluster is asked what it has."""


class Ready:
    """Makes nodes ready for trials: each once; the one of a cluster of ours needs nothing.

    Args:
        run: the run folder, if all nodes must see it.
        images: prepared data sets that each node must have.
        plugins: that each node must have in the same versions.
        is_ours: whether the cluster was started here, and is this machine alone.
    """

    def __init__(
        self, run: Path | None, images: Sequence[Path], plugins: Sequence[Named], is_ours: bool
    ) -> None:
        self._run = run
        self._images = images
        self._plugins = plugins
        self._is_ours = is_ours
        self._known: set[str] = set()

    def make(self, nodes: Sequence[Facts]) -> None:
        """Check nodes that are new, and send them the images that they lack."""
        new = [node for node in nodes if node["NodeID"] not in self._known]
        self._known |= {node["NodeID"] for node in new}
        if new and not self._is_ours:
            check(new, self._run, self._plugins)
            for path in self._images:
                bring(new, path)


class Room:
    """How many trials at a time the cluster holds, asked anew now and then: nodes may join.

    Args:
        demand: what a user asks for.
        placement: of every trial, as it was decided at the start.
        ready: makes nodes that join ready.
        progress: is told of nodes that cannot be made so.
    """

    def __init__(
        self, demand: Demand, placement: Placement, ready: Ready, progress: Progress
    ) -> None:
        self._demand = replace(
            demand,
            runner=placement.runner,
            workers=placement.workers,
            gpus_per_trial=placement.gpus_per_worker * placement.workers,
        )
        self._room = placement.max_concurrent
        self._ready = ready
        self._progress = progress
        self._asked = monotonic()

    def __call__(self) -> int:
        """Return how many; nodes that have joined are made ready first."""
        if monotonic() - self._asked > ASK_AGAIN_SECONDS:
            self._asked = monotonic()
            try:
                self._ready.make(alive())
            except ClusterError as error:  # its trials will fail, and say so
                self._progress.say(str(error))
            try:
                self._room = place(self._demand, resources()).max_concurrent
            except ClusterError:
                self._room = 0  # until a node is back
        return self._room
