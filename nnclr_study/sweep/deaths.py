"""Deaths of trial processes, as Ray Tune must hear of them to try again.

Tune (2.60) misunderstands two. A process that Ray killed because its node ran low on memory ends
the whole study. And one that dies as it is handed from a trial to the next counts twice, the
second time against a trial that waits to be tried again, which is then given up.
"""

from typing import Any

import ray.tune.execution.tune_controller
import ray.tune.tune
from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


class _Manager(RayActorManager):  # type: ignore[misc]
    """Takes a process that was killed for memory as one that died."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


class _Controller(TuneController):  # type: ignore[misc]
    """Counts a death between two trials once."""

    def _actor_failed(self, tracked_actor: TrackedActor, exception: Exception) -> None:
        trial = self._actor_to_trial[tracked_actor]
        if trial in self._resetting_trials:
            # At work already, it is not taken for one that never began: its task tells the rest.
            self._resetting_trials.remove(trial)
            self._set_trial_status(trial, Trial.RUNNING)
            self._unstage_trial_with_resources(trial)
        super()._actor_failed(tracked_actor, exception)


def understand() -> None:
    """Have Tune understand both from now on."""
    ray.tune.execution.tune_controller.RayActorManager = _Manager
    ray.tune.tune.TuneController = _Controller
