"""What trials wait for while others hold it: Ray itself would say nothing, for however long."""

from time import monotonic
from typing import Any

import ray
from ray.tune import Callback
from ray.util.state import list_placement_groups

from nnclr_study.sweep.resources import Placement
from nnclr_study.sweep.terminal import Progress

ASK_AGAIN_SECONDS = 10.0
"""How often the cluster is asked; what is taken twice in a row is being waited for."""
TIMEOUT_SECONDS = 5


class Waiting(Callback):  # type: ignore[misc]
    """Says what trials wait for, once until the next of them has ended.

    Args:
        placement: of every trial.
        progress: is told.
    """

    def __init__(self, placement: Placement, progress: Progress) -> None:
        self._placement = placement
        self._progress = progress
        self._asked = monotonic()
        self._seen = False
        self._said = False

    def __reduce__(self) -> Any:
        # Tune pickles its callbacks for a kind of restore that we do not use.
        return Callback, ()

    def on_step_begin(self, **_: Any) -> None:
        """Ask the cluster now and then."""
        if monotonic() - self._asked < ASK_AGAIN_SECONDS:
            return
        waiting = _waiting()
        self._asked = monotonic()
        lasts = waiting > 0 and self._seen
        self._seen = waiting > 0
        self._progress.waits(lasts)
        if lasts and not self._said:
            self._said = True
            there, free = ray.cluster_resources(), ray.available_resources()
            self._progress.say(told(self._placement, waiting, there, free))

    def on_trial_complete(self, **_: Any) -> None:
        """Say it again, should others wait now."""
        self._said = False

    def on_trial_error(self, **_: Any) -> None:
        """Say it again, should others wait now."""
        self._said = False


def told(
    placement: Placement, waiting: int, there: dict[str, float], free: dict[str, float]
) -> str:
    """Return who waits for what, and how much of it is free."""
    wanted = {"GPU": placement.gpus_per_worker * placement.workers, "CPU": placement.workers}
    wanted = {kind: amount for kind, amount in wanted.items() if amount}
    each = " and ".join(f"{amount:g} {kind}" for kind, amount in wanted.items())
    now = " and ".join(
        f"{round(free.get(kind, 0), 1):g} of {there.get(kind, 0):g} {kind}s" for kind in wanted
    )
    return f"waiting: {waiting} trial(s), for {each} each; free now: {now}"


def _waiting() -> int:
    """Return for how many placements this study waits; 0 where the cluster does not say."""
    context = ray.get_runtime_context()
    ours = [("creator_job_id", "=", context.get_job_id()), ("state", "=", "PENDING")]
    try:
        found = list_placement_groups(context.gcs_address, ours, timeout=TIMEOUT_SECONDS)
    except Exception:  # of its dashboard, which trials in Tune's processes do without
        return 0
    return len(found)
