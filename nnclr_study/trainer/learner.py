"""Everything that learns in a trial, and one step of it."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.encoder import conv4, initialise, projection_head
from nnclr_study.trainer.objective import (
    contrastive_accuracy,
    contrastive_loss,
    correlation_accuracy,
    straight_through,
)
from nnclr_study.trainer.optimizers import KerasAdam
from nnclr_study.trainer.support_set import SupportSet
from nnclr_study.trainer.world import CPU, World, random_stream


class Learner:
    """Encoder, head, support set and online probe with their optimisers.

    Args:
        config: the trial's knobs.
        side: of the square images, in pixels.
        num_classes: of the labelled images.
        world: this worker's place among the trial's workers.
    """

    def __init__(self, config: TrialConfig, side: int, num_classes: int, world: World) -> None:
        self.config = config
        self.world = world
        start = random_stream(config.seed, "initialise", 0, CPU)
        self.encoder = conv4(config.width, side)
        self.head = projection_head(config.width, config.projection_dim)
        self.probe = nn.Linear(config.width, num_classes)
        for module in (self.encoder, self.head, self.probe):
            initialise(module, start)
            module.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.support = (
            SupportSet(config.queue_size, config.projection_dim, start).to(world.device)
            if config.queue_size
            else None
        )
        self.optimizer = KerasAdam(
            [*self.encoder.parameters(), *self.head.parameters()], lr=config.learning_rate
        )
        self.probe_optimizer = KerasAdam(self.probe.parameters(), lr=config.probe_learning_rate)

    def contrastive_step(self, view1_BCHW: Tensor, view2_BCHW: Tensor) -> dict[str, Tensor]:
        """Update encoder, head and support set on our rows of two views of the global batch.

        Returns c_loss, c_acc and r_acc of the global batch, from before the update.
        """
        features = self.encoder(torch.cat([view1_BCHW, view2_BCHW]))
        projections = F.normalize(self.head(features))
        count = self.config.global_batch
        own = [part for pair in (features, projections) for part in pair.chunk(2)]
        features1, features2, projections1, projections2 = (
            self.world.gather(part, count) for part in own
        )
        loss = contrastive_loss(
            self._positives(projections1),
            self._positives(projections2),
            projections1,
            projections2,
            self.config.temperature,
        )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.optimizer.param_groups[0]["params"])
        self.optimizer.step()
        if self.support is not None:
            self.support.push(projections1)
        with torch.no_grad():
            return {
                "c_loss": loss.detach(),
                "c_acc": contrastive_accuracy(features1, features2),
                "r_acc": correlation_accuracy(features1, features2),
            }

    def probe_step(self, images_BCHW: Tensor, labels_L: Tensor) -> dict[str, Tensor]:
        """Update the online probe alone on our rows of the labelled batch, and all its labels.

        Returns p_loss and p_acc of the labelled batch, from before the update.
        """
        with torch.no_grad():
            features = self.world.gather(self.encoder(images_BCHW), len(labels_L))
        # Every worker takes the same step on the same gathered features.
        logits = self.probe(features)
        loss = F.cross_entropy(logits, labels_L)
        self.probe_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.probe_optimizer.step()
        return {"p_loss": loss.detach(), "p_acc": (logits.argmax(1) == labels_L).float().mean()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor that a resumed trial needs, under flat names; not copies."""
        flat = {}
        for part, module in self._modules().items():
            for name, tensor in module.state_dict().items():
                flat[f"{part}/{name}"] = tensor
        for part, optimizer in self._optimizers().items():
            for index, moments in optimizer.state_dict()["state"].items():
                for name, tensor in moments.items():
                    flat[f"{part}/{index}/{name}"] = tensor
        return flat

    def load_state_dict(self, flat: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned, on whatever device it comes."""
        for part, module in self._modules().items():
            module.load_state_dict(dict(_below(part, flat)))
        for part, optimizer in self._optimizers().items():
            state: dict[int, dict[str, Any]] = {}
            for name, tensor in _below(part, flat):
                index, moment = name.split("/")
                state.setdefault(int(index), {})[moment] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})

    def _positives(self, projections_BD: Tensor) -> Tensor:
        """Return what stands in for a view: its nearest neighbour, or itself without a queue."""
        if self.support is None:
            return projections_BD
        # Looked up before push(): otherwise every row would find itself.
        nearest_B = self.support.nearest(projections_BD.detach())
        return straight_through(projections_BD, self.support.bank_QD[nearest_B])

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"encoder": self.encoder, "head": self.head, "probe": self.probe}
        return modules if self.support is None else {**modules, "support": self.support}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"optimizer": self.optimizer, "probe_optimizer": self.probe_optimizer}


def _below(part: str, flat: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    prefix = f"{part}/"
    return [(n.removeprefix(prefix), tensor) for n, tensor in flat.items() if n.startswith(prefix)]
