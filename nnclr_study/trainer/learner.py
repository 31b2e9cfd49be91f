"""Everything that learns in a trial, and one step of it."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.batch_norm import share_batch_norm
from nnclr_study.trainer.encoder import (
    build_encoder,
    initialise,
    prediction_head,
    projection_head,
)
from nnclr_study.trainer.objective import (
    contrastive_accuracy,
    contrastive_loss,
    correlation_accuracy,
    straight_through,
)
from nnclr_study.trainer.optimizers import KerasAdam, build_optimizer, learning_rate
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
        self.encoder = share_batch_norm(build_encoder(config, side), world)
        self.head = share_batch_norm(projection_head(config), world)
        self.predictor = share_batch_norm(prediction_head(config), world)
        self.probe = nn.Linear(config.features, num_classes)
        for module in (self.encoder, self.head, self.probe, self.predictor):
            initialise(module, start)
            module.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.support = (
            SupportSet(config.queue_size, config.projection_dim, start).to(world.device)
            if config.queue_size
            else None
        )
        self.steps_taken = 0
        self.optimizer = build_optimizer([self.encoder, self.head, self.predictor], config)
        self.probe_optimizer = KerasAdam(self.probe.parameters(), lr=config.probe_learning_rate)

    def contrastive_step(
        self, view1_BCHW: Tensor, view2_BCHW: Tensor, labels_L: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Update encoder, head and support set on our rows of two views of the global batch.

        The labels of its last L images change nothing but what is known of the neighbours.
        Returns c_loss, c_acc and r_acc of the global batch, from before the update, and what
        `SupportSet.observe` says of both views' neighbours.
        """
        self.encoder.train()
        features = self.encoder(torch.cat([view1_BCHW, view2_BCHW]))
        projected = self.head(features)
        features1, features2 = self._gather_views(features)
        projections1, projections2 = self._gather_views(F.normalize(projected))
        predictions1, predictions2 = (
            (projections1, projections2)
            if isinstance(self.predictor, nn.Identity)
            else self._gather_views(F.normalize(self.predictor(projected)))
        )
        views = [projections1, projections2]
        # Looked up before push(): otherwise every row would find itself.
        nearest = [
            self.support.nearest(view.detach()) for view in views if self.support is not None
        ]
        positives1, positives2 = self._positives(views, nearest)
        loss = contrastive_loss(
            positives1,
            positives2,
            predictions1,
            predictions2,
            self.config.temperature,
            self.config.loss_blocks,
        )
        self._update(loss)
        neighbours = {}
        if self.support is not None:
            count = self.config.global_batch
            known = projections1.new_empty(0).long() if labels_L is None else labels_L
            labels_B = F.pad(known, (count - len(known), 0), value=-1)
            neighbours = self.support.observe(torch.cat(nearest), labels_B.repeat(2))
            self.support.push(projections1, labels_B)
        with torch.no_grad():
            return neighbours | {
                "c_loss": loss.detach(),
                "c_acc": contrastive_accuracy(features1, features2),
                "r_acc": correlation_accuracy(features1, features2),
            }

    def probe_step(self, images_BCHW: Tensor, labels_L: Tensor) -> dict[str, Tensor]:
        """Update the online probe alone on our rows of the labelled batch, and all its labels.

        Returns p_loss and p_acc of the labelled batch, from before the update.
        """
        self.encoder.eval()
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
                    if tensor is not None:  # SGD's buffer without momentum
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

    def _gather_views(self, own: Tensor) -> list[Tensor]:
        """Return each view's rows of the global batch; `own` holds our rows of both."""
        return [self.world.gather(view, self.config.global_batch) for view in own.chunk(2)]

    def _update(self, loss: Tensor) -> None:
        """Take one step of the encoder and head, at the rate that the schedule gives it."""
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(parameters)
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
        for group in groups:
            group["lr"] = learning_rate(self.config, self.steps_taken)
        self.optimizer.step()
        self.steps_taken += 1

    def _positives(self, views: list[Tensor], nearest: list[Tensor]) -> list[Tensor]:
        """Return what stands in for each view: its neighbours, or itself without a queue."""
        if self.support is None:
            return views
        neighbours = [self.support.bank_QD[nearest_B] for nearest_B in nearest]
        if self.config.neighbour_gradient == "stop":
            return neighbours
        return [straight_through(*pair) for pair in zip(views, neighbours, strict=True)]

    def _modules(self) -> dict[str, nn.Module]:
        modules = {
            "encoder": self.encoder,
            "head": self.head,
            "predictor": self.predictor,
            "probe": self.probe,
        }
        return modules if self.support is None else {**modules, "support": self.support}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"optimizer": self.optimizer, "probe_optimizer": self.probe_optimizer}


def _below(part: str, flat: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    prefix = f"{part}/"
    return [(n.removeprefix(prefix), tensor) for n, tensor in flat.items() if n.startswith(prefix)]
