"""Batch norm over the whole batch of a trial, however many workers share it."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nnclr_study.trainer.world import World


def share_batch_norm(module: nn.Module, world: World) -> nn.Module:
    """Return the module with statistics over all workers; alone, it is returned as it is."""
    if world.size == 1:
        return module
    if world.device.type == "cuda":
        shared: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return shared
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, _CPUSyncBatchNorm.of(child))
        else:
            share_batch_norm(child, world)
    return module


class _CPUSyncBatchNorm(nn.BatchNorm2d):
    """What torch's SyncBatchNorm is on CUDA, for gloo; of the same names and shapes."""

    @classmethod
    def of(cls, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> "_CPUSyncBatchNorm":
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        shared.load_state_dict(norm.state_dict())
        return shared

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        assert input.ndim in (2, 4)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise (B, C) or (B, C, H, W) by the statistics of all workers' rows."""
        if not self.training:
            return super().forward(input)
        others = [dim for dim in range(input.ndim) if dim != 1]
        count = _over_workers(torch.tensor(float(input.numel() // input.shape[1])))
        mean_C = _over_workers(input.sum(others)) / count
        centred = input - _along(mean_C, input)
        variance_C = _over_workers(centred.square().sum(others)) / count
        with torch.no_grad():
            unbiased_C = variance_C * count / (count - 1)
            self.running_mean.lerp_(mean_C, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(unbiased_C, self.momentum)  # type: ignore[union-attr, arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        normal = centred / _along((variance_C + self.eps).sqrt(), input)
        return normal * _along(self.weight, input) + _along(self.bias, input)


class _Sum(torch.autograd.Function):
    """The sum over all workers; every worker's gradient of it is theirs together."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ARG004
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def _over_workers(own: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(own)
    return total


def _along(values_C: Tensor, like: Tensor) -> Tensor:
    return values_C.view(1, -1, *[1] * (like.ndim - 2))
