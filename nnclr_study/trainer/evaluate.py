"""What the frozen features are worth: a fresh linear probe."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnclr_study.trainer.world import World

CHUNK = 1_024
MAX_ITERATIONS = 300


@torch.no_grad()
def encode(encoder: nn.Module, images_NCHW: Tensor, world: World) -> Tensor:
    """Return the features of uint8 images, (N, D), computed by all workers together."""
    own = images_NCHW[world.rows(len(images_NCHW))]
    parts = [encoder(chunk.to(world.device).float() / 255) for chunk in torch.split(own, CHUNK)]
    return world.gather(torch.cat(parts), len(images_NCHW))


class LinearProbe:
    """Multinomial logistic regression on standardised features, fitted to convergence.

    Minimises the mean cross entropy plus |W|^2 / (2 N), as scikit-learn's
    `LogisticRegression(C=1)` does, by L-BFGS in double precision. It draws no random
    numbers: the same features give the same probe.
    """

    def __init__(self, features_ND: Tensor, labels_N: Tensor, num_classes: int) -> None:
        features = features_ND.double()
        self._mean_D = features.mean(0)
        std_D = features.std(0, correction=0)
        self._std_D = torch.where(std_D > 0, std_D, 1)
        inputs = self._standardise(features)
        self._weight = torch.zeros(
            num_classes, inputs.shape[1], dtype=torch.double, device=inputs.device
        ).requires_grad_()
        self._bias = torch.zeros_like(self._weight[:, 0]).requires_grad_()
        solver = torch.optim.LBFGS(
            [self._weight, self._bias],
            max_iter=MAX_ITERATIONS,
            tolerance_grad=1e-6,
            tolerance_change=1e-10,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            solver.zero_grad()
            penalty = self._weight.square().sum() / (2 * len(inputs))
            loss = F.cross_entropy(F.linear(inputs, self._weight, self._bias), labels_N) + penalty
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        solver.step(closure)  # type: ignore[no-untyped-call]

    def top1(self, features_ND: Tensor, labels_N: Tensor) -> float:
        """Return the share of rows whose most likely class is their label."""
        with torch.no_grad():
            logits = F.linear(self._standardise(features_ND.double()), self._weight, self._bias)
        return float((logits.argmax(1) == labels_N).double().mean())

    def _standardise(self, features_ND: Tensor) -> Tensor:
        return (features_ND - self._mean_D) / self._std_D
