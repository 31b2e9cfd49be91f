"""What the frozen features are worth: a fresh linear probe and nearest neighbours."""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer import augment
from nnclr_study.trainer.images import Images
from nnclr_study.trainer.world import World

CHUNK_VALUES = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Of the images that are encoded at a time, counted over pixels and colours, by device."""
MAX_ITERATIONS = 300
TOLERANCE = 1e-5
"""Largest entry of the preconditioned gradient at the end; scikit-learn's default is 1e-4."""
PROBE_CS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Among which the probe's regularisation is chosen on val, the strongest first."""
KNN_NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07
KNN_CHUNK = 256
"""Queries compared with all labelled features at once."""


def images_at_once(config: TrialConfig, workers: int = 1) -> int:
    """Return how many images a worker's training step passes through the encoder at once.

    These are both views of its rows of a micro batch. They fit the memory with all that a
    gradient needs, so as many fit when they are only encoded.
    """
    return 2 * (config.global_batch // workers // config.micro_batches)


@torch.no_grad()
def encode(
    encoder: nn.Module,
    images: Images,
    world: World,
    view: augment.Draw | None = None,
    further: Callable[[Tensor], Tensor] = lambda seen: seen,
    most: int | None = None,
) -> Tensor:
    """Return the features of uint8 images, (N, D), computed by all workers together.

    Args:
        encoder: in evaluation mode from now on.
        images: that it encodes, all in the same order on every worker.
        world: this worker's place among those that share the images.
        view: a random view of each image, to be encoded instead of the image.
        further: what a plug-in does to the views.
        most: images encoded at once, as `images_at_once` says; None: whatever is fast.
    """
    encoder.eval()
    own = world.rows(len(images))
    length = max(1, CHUNK_VALUES[world.device.type] // (3 * images.side**2))
    length = length if most is None else min(length, most)
    features = torch.empty(0, 0)
    for start in range(own.start, max(own.stop, own.start + 1), length):
        rows = slice(start, min(start + length, own.stop))
        chunk = images[rows].to(world.device)
        seen = chunk.float() / 255 if view is None else augment.apply(chunk, view.rows(rows))
        encoded = encoder(further(seen))
        if start == own.start:
            # One block for all: small ones, kept, would cut the memory of the large to pieces.
            features = encoded.new_empty(own.stop - own.start, *encoded.shape[1:])
        features[start - own.start : rows.stop - own.start] = encoded
    return world.gather(features, len(images))


class LinearProbe:
    """Multinomial logistic regression on standardised features, fitted to convergence.

    Minimises the mean cross entropy plus |W|^2 / (2 C N), as scikit-learn's
    `LogisticRegression(C=C)` does, by L-BFGS in double precision. It runs in coordinates in which
    the Hessian at W = 0 is the identity, where it takes a third to a half of the steps. It draws
    no random numbers: the same features give the same probe.

    Args:
        features_ND: of the labelled training images.
        labels_N: their classes.
        num_classes: that there are.
        C: inverse strength of the regularisation, as in scikit-learn.
        start: a probe of the same features whose weights are near; without: from 0.
    """

    def __init__(
        self,
        features_ND: Tensor,
        labels_N: Tensor,
        num_classes: int,
        C: float = 1.0,
        start: Self | None = None,
    ) -> None:
        self.C = C
        features = features_ND.double()
        self._mean_D = features.mean(0)
        std_D = features.std(0, correction=0)
        self._std_D = torch.where(std_D > 0, std_D, 1)
        inputs = self._standardise(features)
        count, dims = inputs.shape
        self._spread_DD: Tensor
        self._weight: Tensor
        self._bias: Tensor
        if start is None:
            self._spread_DD = inputs.T @ inputs / count
            self._weight = inputs.new_zeros(num_classes, dims)
            self._bias = inputs.new_zeros(num_classes)
        else:
            self._spread_DD = start._spread_DD
            self._weight, self._bias = start._weight, start._bias
        # At W = 0 all classes are equally likely and inputs centred: a block, the same for each.
        hessian = self._spread_DD / num_classes + torch.eye(dims).to(inputs) / (C * count)
        factor, bias_factor = torch.linalg.cholesky(hessian), num_classes**-0.5
        turned_KD, turned_K = (self._weight @ factor).contiguous(), self._bias * bias_factor
        solver = torch.optim.LBFGS(
            [turned_KD, turned_K],
            max_iter=MAX_ITERATIONS,
            tolerance_grad=TOLERANCE,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )
        target = F.one_hot(labels_N, num_classes).to(inputs)

        def turn_back() -> None:
            back = torch.linalg.solve_triangular(factor, turned_KD, upper=False, left=False)
            self._weight, self._bias = back, turned_K / bias_factor

        def closure() -> float:
            # The gradient in closed form: what it costs here is mostly the number of calls.
            turn_back()
            log_share = self._logits(inputs).log_softmax(1)
            error = (log_share.exp() - target) / count
            pull = self._weight / (C * count)
            gradient = torch.linalg.solve_triangular(
                factor, (error.T @ inputs + pull).T, upper=False
            )
            turned_KD.grad = gradient.T.contiguous()
            turned_K.grad = error.sum(0) / bias_factor
            loss = (self._weight * pull).sum() / 2 - (target * log_share).sum() / count
            return float(loss)

        solver.step(closure)  # type: ignore[no-untyped-call]
        turn_back()

    @classmethod
    def chosen(
        cls,
        train_ND: Tensor,
        train_labels_N: Tensor,
        val_MD: Tensor,
        val_labels_M: Tensor,
        num_classes: int,
    ) -> Self:
        """Return the probe of the train features that is best on val, among all `PROBE_CS`.

        Of equally good ones the most strongly regularised. Each is fitted from where the one
        before it, the next stronger, ended.
        """
        probes: list[Self] = []
        for C in PROBE_CS:
            start = probes[-1] if probes else None
            probes.append(cls(train_ND, train_labels_N, num_classes, C, start))
        return max(probes, key=lambda probe: probe.top1(val_MD, val_labels_M))

    def top1(self, features_ND: Tensor, labels_N: Tensor) -> float:
        """Return the share of rows whose most likely class is their label."""
        logits = self._logits(self._standardise(features_ND.double()))
        return float((logits.argmax(1) == labels_N).double().mean())

    def _logits(self, inputs_ND: Tensor) -> Tensor:
        return F.linear(inputs_ND, self._weight, self._bias)

    def _standardise(self, features_ND: Tensor) -> Tensor:
        return (features_ND - self._mean_D) / self._std_D


def knn_top1(
    features_ND: Tensor,
    labels_N: Tensor,
    queries_MD: Tensor,
    query_labels_M: Tensor,
    num_classes: int,
) -> float:
    """Return the share of queries whose nearest labelled rows vote for their label.

    The weighted k-NN of Wu et al. 2018 (arXiv 1805.01978): the `KNN_NEIGHBOURS` rows of
    largest cosine similarity s (all, where there are fewer) vote with exp(s / T).
    """
    rows, queries = (F.normalize(features.double()) for features in (features_ND, queries_MD))
    votes_of_N = F.one_hot(labels_N, num_classes).to(rows)
    right = labels_N.new_zeros(())
    chunks = (torch.split(tensor, KNN_CHUNK) for tensor in (queries, query_labels_M))
    for chunk, labels in zip(*chunks, strict=True):
        similarity, nearest = (chunk @ rows.T).topk(min(KNN_NEIGHBOURS, len(rows)))
        weight = torch.exp(similarity / KNN_TEMPERATURE)
        votes = (weight[:, None] @ votes_of_N[nearest])[:, 0]
        right += (votes.argmax(1) == labels).sum()
    return float(right) / len(queries)
