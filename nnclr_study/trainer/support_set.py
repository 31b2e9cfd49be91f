"""The support set: the latest projections, in which each view looks up its neighbour."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 4_096
"""Rows looked up at once: as fast as all at once, in a fraction of the memory."""


class SupportSet(nn.Module):
    """A ring of `size` normalised rows, written in place, of any size and any batch.

    The head moves backwards, so reading forward from it is newest first: the order of
    `cat([batch, queue])[:size]`, which defines what a support set is.
    """

    bank_QD: Tensor
    head: Tensor

    def __init__(self, size: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        bank = F.normalize(torch.randn(size, dim, generator=generator))
        self.register_buffer("bank_QD", bank)
        self.register_buffer("head", torch.zeros((), dtype=torch.long))

    def nearest(self, queries_BD: Tensor) -> Tensor:
        """Return which row of the bank is closest to each normalised query: (B,) indices."""
        best_B = queries_BD.new_full((len(queries_BD),), -torch.inf)
        index_B = torch.zeros(len(queries_BD), dtype=torch.long, device=queries_BD.device)
        for start in range(0, len(self.bank_QD), CHUNK):
            similarity = queries_BD @ self.bank_QD[start : start + CHUNK].T
            closest_B, at_B = similarity.max(1)
            better_B = closest_B > best_B
            best_B = torch.where(better_B, closest_B, best_B)
            index_B = torch.where(better_B, at_B + start, index_B)
        return index_B

    def push(self, rows_BD: Tensor) -> None:
        """Put a batch at the front, in place of the oldest rows.

        The batch may be as large as the set, not larger (`TrialConfig` sees to it).
        """
        size = len(self.bank_QD)
        self.head.sub_(len(rows_BD)).remainder_(size)
        places_B = (self.head + torch.arange(len(rows_BD), device=self.head.device)) % size
        self.bank_QD.index_copy_(0, places_B, rows_BD.detach())

    def newest_first(self) -> Tensor:
        """Return a copy of all rows, (Q, D), the newest first."""
        size = len(self.bank_QD)
        return self.bank_QD[(self.head + torch.arange(size, device=self.head.device)) % size]
