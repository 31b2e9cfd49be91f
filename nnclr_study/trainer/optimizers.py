"""Optimisers and their schedule: torch's own where it has them."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnclr_study.study.config import TrialConfig


class KerasAdam(torch.optim.Adam):
    """Adam with Keras's epsilon, which stands beside the root of the uncorrected moment.

    That is epsilon-hat of Kingma and Ba (arXiv 1412.6980, end of section 2); torch adds its
    epsilon after the correction. The two differ by sqrt(1 - beta2^t), 32-fold in the first
    step: enough to take small gradients another way within a few steps.
    """

    EPSILON = 1e-7

    def __init__(self, parameters: Iterable[Any], lr: float, fused: bool = False) -> None:
        super().__init__(parameters, lr=lr, eps=self.EPSILON, fused=fused)
        self._taken: int | None = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state, and its number of steps with it."""
        super().load_state_dict(state_dict)
        self._taken = None

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step with the epsilon that Keras would use in it."""
        if self._taken is None:
            # Read once: a fused optimiser counts on the device.
            self._taken = next((int(state["step"]) for state in self.state.values()), 0)
        taken, self._taken = self._taken, self._taken + 1
        for group in self.param_groups:
            group["eps"] = self.EPSILON / (1 - group["betas"][1] ** (taken + 1)) ** 0.5
        return super().step(closure)


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled, a layer, by |w| / |gradient| (arXiv 1708.03888).

    As SimCLR and NNCLR use it: biases and norms, which come with `weight_decay` 0 and
    `adapt` False in their group, take a plain step.
    """

    def __init__(
        self, groups: Iterable[Any], lr: float, momentum: float, trust: float, clip: bool
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})
        self._trust, self._clip = trust, clip

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step; norms stay on the device."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        update = gradient + group["weight_decay"] * parameter
        if group["adapt"]:
            ratio = self._trust * parameter.norm() / update.norm()
            if self._clip:
                ratio = (ratio / group["lr"]).clamp(max=1)
            update = update * torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0)
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        state["velocity"].mul_(group["momentum"]).add_(update, alpha=group["lr"])
        parameter.sub_(state["velocity"])


def build_optimizer(modules: Iterable[nn.Module], config: TrialConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a trial; weight decay spares biases and norms (all vectors)."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, momentum = config.learning_rate, config.optimizer_momentum
    fused = parameters[0].is_cuda
    match config.optimizer:
        case "adam":
            return KerasAdam(groups, lr=rate, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, fused=fused)
        case "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=momentum, fused=fused)
        case "lars":
            adapted = [
                g | {"adapt": adapt} for g, adapt in zip(groups, (True, False), strict=True)
            ]
            return LARS(adapted, rate, momentum, config.lars_trust, config.lars_clip)


def restore(optimizer: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Give an optimizer copies of saved state, each in the memory layout of its parameter.

    Checkpoints hold contiguous tensors, and convolutions are channels_last. torch restores the
    type and the device of a moment but not its strides, and a fused step needs them to be those
    of the parameter: on CUDA it raises, and on a CPU its update is wrong.

    Args:
        optimizer: takes over the state.
        state: tensors by name, for each parameter's number.

    Raises:
        RuntimeError: a moment has another shape than its parameter.
    """
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    for parameter, tensors in optimizer.state.items():
        for name, tensor in tensors.items():
            if name != "step" and tensor.shape != parameter.shape:
                raise RuntimeError(
                    f"{name} has the shape {tuple(tensor.shape)}, and its parameter has "
                    f"{tuple(parameter.shape)}"
                )
            # The number of steps is a scalar that need not be on the parameter's device.
            tensors[name] = (
                tensor.clone() if name == "step" else torch.empty_like(parameter).copy_(tensor)
            )


def learning_rate(config: TrialConfig, step: int) -> float:
    """Return the learning rate of a step, from 0: a linear warm-up, then constant or cosine."""
    warmup = config.warmup_epochs * config.steps_per_epoch
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - warmup) / max(1, config.epochs * config.steps_per_epoch - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
