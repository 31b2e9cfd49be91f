"""The workers of a trial: which rows of a batch are ours, and how they become one batch."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

CPU = torch.device("cpu")


def compute_device(gpus: float | None = None) -> torch.device:
    """Return the GPU that this process may use, or the CPU.

    Args:
        gpus: GPUs that a scheduler gave this process: with 0 it uses the CPU, whatever torch sees.
            None: no scheduler is involved, and a GPU that torch sees is used.
    """
    return torch.device("cuda" if gpus != 0 and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class World:
    """One worker's place among the `size` workers of a trial.

    Every worker computes the loss of the whole gathered batch, in which only its own rows
    carry gradient; the sum of gradients over the workers is then the gradient of that
    loss, whatever the number of workers.
    """

    device: torch.device = CPU
    rank: int = 0
    size: int = 1
    gpu_share: float = 1.0
    """Share of the GPU's memory that this worker may take."""

    @classmethod
    def alone(cls, gpus: float | None = None) -> Self:
        """Return a world of one worker on `compute_device(gpus)`; a part of a GPU is its share."""
        return cls(compute_device(gpus), gpu_share=float(gpus or 1))

    @classmethod
    def joined(cls, device: torch.device, gpu_share: float = 1.0) -> Self:
        """Return our place in the process group that was joined."""
        return cls(device, dist.get_rank(), dist.get_world_size(), gpu_share)

    def rows(self, count: int, rank: int | None = None) -> slice:
        """Return which of `count` rows are ours (or another rank's): contiguous, in order."""
        rank = self.rank if rank is None else rank
        return slice(rank * count // self.size, (rank + 1) * count // self.size)

    def gather(self, own_B: Tensor, count: int) -> Tensor:
        """Return all `count` rows in rank order; gradient flows to our own rows only."""
        if self.size == 1:
            return own_B
        longest = -(-count // self.size)
        padded = own_B.new_zeros(longest, *own_B.shape[1:])
        padded[: len(own_B)] = own_B.detach()
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        lengths = [len(range(count)[self.rows(count, rank)]) for rank in range(self.size)]
        parts = [part[:length] for part, length in zip(parts, lengths, strict=True)]
        parts[self.rank] = own_B
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up gradients over the workers, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(
            gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))


def random_stream(seed: int, name: str, index: int, device: torch.device) -> torch.Generator:
    """Return the generator of one purpose at one epoch (or pass) of a trial.

    Randomness is a function of these three, so a resumed trial needs no generator states.
    """
    key = hashlib.sha256(f"{seed}/{name}/{index}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(key[:7], "big"))
