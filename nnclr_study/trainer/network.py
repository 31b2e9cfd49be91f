"""Encoder and heads as one network, and how a batch larger than memory passes it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.runtime import autocast

PIXELS_AT_A_TIME = {"float32": 2**18, "tf32": 2**18, "bf16": 2**20}
"""Of the images that an encoder without batch norm takes together on a CPU, by precision."""


class Embedded(NamedTuple):
    """What a network makes of two views of b images: (2, b, D) each."""

    features: Tensor
    projections: Tensor
    """Normalised: looked up, queued, and positives without a queue."""
    predictions: Tensor
    """Normalised: compared with the positives; the projections, without a prediction head."""


class Network(nn.Module):
    """An encoder and its heads, fed with both views at once."""

    def __init__(
        self, encoder: nn.Module, head: nn.Module, predictor: nn.Module, config: TrialConfig
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.predictor = encoder, head, predictor
        self._config = config
        # The same weights: evaluation takes the encoder as it is.
        self._encode = torch.compile(encoder, dynamic=False) if config.compile else encoder

    def forward(self, view1_BCHW: Tensor, view2_BCHW: Tensor) -> Embedded:
        """Embed two views; batch norm, in training, sees them as one batch."""
        with autocast(self._config.precision, view1_BCHW.device):
            features = self._features(view1_BCHW, view2_BCHW)
            projected = self.head(features)
            predicted = self.predictor(projected)
        # Outside, all is in the precision of the images again.
        features, projected, predicted = (
            rows.to(view1_BCHW.dtype) for rows in (features, projected, predicted)
        )
        both = features, F.normalize(projected), F.normalize(predicted)
        return Embedded._make(rows.unflatten(0, (2, -1)) for rows in both)

    def _features(self, *views_BCHW: Tensor) -> Tensor:
        """Encode views, on the CPU a few images at a time where each is encoded by itself.

        The sums are the same, and what a layer puts down for the next stays small: blocks that
        malloc has at hand, where those of a whole batch would be faulted in anew.
        """
        first = views_BCHW[0]
        if first.is_cuda or self._config.compile or _batch_norms(self.encoder):
            return self._encode(torch.cat(views_BCHW))  # type: ignore[no-any-return]
        few = max(PIXELS_AT_A_TIME[self._config.precision] // first[0, 0].numel(), 1)
        parts = [part for view in views_BCHW for part in torch.split(view, few)]
        return torch.cat([self.encoder(part) for part in parts])


def embed(
    network: Network, view1_BCHW: Tensor, view2_BCHW: Tensor, parts: int
) -> tuple[Embedded, Callable[[], None]]:
    """Return the embedding of two views, and what to call once its gradient is there.

    In several parts this is gradient caching (Gao et al. 2021, arXiv 2101.06983): the batch
    passes part by part and no graph is kept, the backward pass of the loss ends at the
    embedding, and then each part passes again and takes its share of that gradient to the
    weights. So the loss is the whole batch's and the memory a part's; the encoder works twice
    as often forward, and batch norm sees a part at a time.
    """
    if parts == 1:
        return network(view1_BCHW, view2_BCHW), lambda: None
    views = view1_BCHW.tensor_split(parts), view2_BCHW.tensor_split(parts)
    # Where no gradient is asked for, as of a slow copy, there is no second pass to count in.
    counted = _statistics_kept(network) if torch.is_grad_enabled() else nullcontext()
    with torch.no_grad(), counted:
        first_pass = [network(*part) for part in zip(*views, strict=True)]
    whole = Embedded._make(torch.cat(rows, dim=1) for rows in zip(*first_pass, strict=True))
    leaves = [rows.requires_grad_() for rows in whole[1:]]

    def take_gradient() -> None:
        gradients = [leaf.grad for leaf in leaves]
        starts = 0
        for part in zip(*views, strict=True):
            rows = slice(starts, starts := starts + len(part[0]))
            pairs = zip(network(*part)[1:], gradients, strict=True)
            # Projections have no gradient of their own where they only look up neighbours.
            reached = [(out, whole[:, rows]) for out, whole in pairs if whole is not None]
            outputs, shares = zip(*reached, strict=True)
            torch.autograd.backward(outputs, shares)

    return whole, take_gradient


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Keep batch norm's running statistics as they are, so that a batch enters them once."""
    norms = _batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
