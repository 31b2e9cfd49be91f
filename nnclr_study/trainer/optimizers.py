"""Optimisers, where torch's own differ from what is studied."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class KerasAdam(torch.optim.Adam):
    """Adam with Keras's epsilon, which stands beside the root of the uncorrected moment.

    That is epsilon-hat of Kingma and Ba (arXiv 1412.6980, end of section 2); torch adds its
    epsilon after the correction. The two differ by sqrt(1 - beta2^t), 32-fold in the first
    step: enough to take small gradients another way within a few steps.
    """

    EPSILON = 1e-7

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr=lr, eps=self.EPSILON)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step with the epsilon that Keras would use in it."""
        # The count lives on the CPU whatever the parameters' device: reading it does not wait.
        taken = next((int(state["step"]) for state in self.state.values()), 0)
        for group in self.param_groups:
            group["eps"] = self.EPSILON / (1 - group["betas"][1] ** (taken + 1)) ** 0.5
        return super().step(closure)
