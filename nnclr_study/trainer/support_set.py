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

    Beside each row stand its label (-1: unknown) and the push that brought it, counted from
    0. The random rows of the start have no label and the age of the first push.
    """

    bank_QD: Tensor
    label_Q: Tensor
    pushed_Q: Tensor
    head: Tensor
    pushes: Tensor
    used_Q: Tensor
    """Which rows were anyone's neighbour since `take_used`."""
    used_and_gone: Tensor
    """How many more such rows have left since."""

    def __init__(self, size: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        bank = F.normalize(torch.randn(size, dim, generator=generator))
        self.register_buffer("bank_QD", bank)
        self.register_buffer("label_Q", torch.full((size,), -1))
        self.register_buffer("pushed_Q", torch.zeros(size, dtype=torch.long))
        self.register_buffer("head", torch.zeros((), dtype=torch.long))
        self.register_buffer("pushes", torch.zeros((), dtype=torch.long))
        # These begin anew with each epoch, so a checkpoint does without them.
        self.register_buffer("used_Q", torch.zeros(size, dtype=torch.bool), persistent=False)
        self.register_buffer("used_and_gone", torch.zeros((), dtype=torch.long), persistent=False)
        self._gone = 0

    def nearest(self, queries_BD: Tensor, neighbours: int = 1) -> Tensor:
        """Return which rows of the bank are closest to each normalised query, closest first.

        (B, neighbours) indices; of equally close rows the one that stands first.
        """
        count = len(queries_BD)
        best_BK = queries_BD.new_empty(count, 0)
        index_BK = torch.empty(count, 0, dtype=torch.long, device=queries_BD.device)
        for start in range(0, len(self.bank_QD), CHUNK):
            rows_ND = self.bank_QD[start : start + CHUNK]
            closest_BK, at_BK = _largest(queries_BD @ rows_ND.T, min(neighbours, len(rows_ND)))
            together = torch.cat([best_BK.to(closest_BK), closest_BK], dim=1)
            best_BK, kept_BK = _largest(together, min(neighbours, together.shape[1]))
            index_BK = torch.cat([index_BK, at_BK + start], dim=1).gather(1, kept_BK)
        return index_BK

    def observe(self, nearest_N: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
        """Note which rows were found; return what they were like as neighbours.

        Args:
            nearest_N: what `nearest` returned.
            labels_N: of the queries; -1: unknown.

        Returns:
            nn_known: how many neighbours have a known label as their query has.
            nn_same: how many of these have the same.
            nn_age: mean number of pushes since the neighbour's own, which is 1.
        """
        self.used_Q.index_fill_(0, nearest_N, True)
        label_N = self.label_Q[nearest_N]
        known_N = (label_N >= 0) & (labels_N >= 0)
        return {
            "nn_known": known_N.float().sum(),
            "nn_same": (known_N & (label_N == labels_N)).float().sum(),
            "nn_age": (self.pushes - self.pushed_Q[nearest_N]).float().mean(),
        }

    def push(self, rows_BD: Tensor, labels_B: Tensor | None = None) -> None:
        """Put a batch and its labels (-1 or None: unknown) in place of the oldest rows.

        The batch may be as large as the set, not larger (`TrialConfig` sees to it).
        """
        count = len(rows_BD)
        self.head.sub_(count).remainder_(len(self.bank_QD))
        places_B = self.newest(count)
        self.used_and_gone += self.used_Q[places_B].sum()
        self._gone += count
        self.used_Q.index_fill_(0, places_B, False)
        self.bank_QD.index_copy_(0, places_B, rows_BD.detach())
        self.label_Q.index_copy_(
            0, places_B, torch.full_like(places_B, -1) if labels_B is None else labels_B
        )
        self.pushed_Q.index_copy_(0, places_B, self.pushes.expand(count))
        self.pushes += 1

    def take_used(self) -> Tensor:
        """Return the share of rows that were anyone's neighbour, and begin to count anew.

        Of all rows that stood here at any time since the last call, those included that have
        left or that have only just come.
        """
        share = (self.used_and_gone + self.used_Q.sum()) / (self._gone + len(self.bank_QD))
        self.used_Q.zero_()
        self.used_and_gone.zero_()
        self._gone = 0
        return share

    def newest(self, count: int) -> Tensor:
        """Return where the `count` newest rows stand, the newest first."""
        places = self.head + torch.arange(count, device=self.head.device)
        return places % len(self.bank_QD)

    def newest_first(self) -> Tensor:
        """Return a copy of all rows, (Q, D), the newest first."""
        return self.bank_QD[self.newest(len(self.bank_QD))]


def _largest(values_BN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row and where they stand, (B, count)."""
    return values_BN.max(1, keepdim=True) if count == 1 else values_BN.topk(count)
