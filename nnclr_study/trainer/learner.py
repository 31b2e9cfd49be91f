"""Everything that learns in a trial, and one step of it."""

from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnclr_study.errors import UsageError
from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.batch_norm import share_batch_norm
from nnclr_study.trainer.encoder import (
    build_encoder,
    initialise,
    prediction_head,
    projection_head,
)
from nnclr_study.trainer.network import Network, embed
from nnclr_study.trainer.objective import (
    contrastive_accuracy,
    contrastive_loss,
    correlation_accuracy,
    straight_through,
)
from nnclr_study.trainer.optimizers import KerasAdam, build_optimizer, learning_rate, restore
from nnclr_study.trainer.runtime import autocast
from nnclr_study.trainer.support_set import SupportSet
from nnclr_study.trainer.world import CPU, World, random_stream


class Learner:
    """Encoder, head, support set and online probe with their optimisers.

    Args:
        config: the trial's knobs.
        side: of the square images, in pixels.
        num_classes: of the labelled images.
        world: this worker's place among the trial's workers.

    Raises:
        UsageError: a worker's share of a batch holds fewer images than micro batches.
        PluginError: the encoder is a plug-in that is missing, or not what it should be.
    """

    def __init__(self, config: TrialConfig, side: int, num_classes: int, world: World) -> None:
        if (share := config.global_batch // world.size) < config.micro_batches:
            raise UsageError(
                f"micro_batches={config.micro_batches} with --workers {world.size}: a worker's "
                f"share of the batch is {share} images; use --workers "
                f"{config.global_batch // config.micro_batches} or fewer micro_batches"
            )
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
        self.network = Network(self.encoder, self.head, self.predictor, config)
        # Of a slower copy, if there is one, are the projections that are looked up and queued.
        self.slow = (
            Network(deepcopy(self.encoder), deepcopy(self.head), nn.Identity(), config)
            if config.encoder_momentum is not None
            else None
        )
        self.support = (
            SupportSet(config.queue_size, config.projection_dim, start).to(world.device)
            if config.queue_size
            else None
        )
        self.steps_taken = 0
        self.optimizer = build_optimizer([self.encoder, self.head, self.predictor], config)
        self.probe_optimizer = KerasAdam(
            self.probe.parameters(),
            lr=config.probe_learning_rate,
            fused=world.device.type == "cuda",
        )

    def contrastive_step(
        self, view1_BCHW: Tensor, view2_BCHW: Tensor, labels_L: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Update encoder, head and support set on our rows of two views of the global batch.

        The labels of its last L images change nothing but what is known of the neighbours.
        Returns c_loss, c_acc and r_acc of the global batch, from before the update, and what
        `SupportSet.observe` says of both views' neighbours.
        """
        config = self.config
        self.network.train()
        own, take_gradient = embed(self.network, view1_BCHW, view2_BCHW, config.micro_batches)
        features1, features2 = self._gather_views(own.features.detach())
        predictions1, predictions2 = self._gather_views(own.predictions)
        queries = own.projections
        if self.slow is not None:
            with torch.no_grad():
                slow, _ = embed(self.slow, view1_BCHW, view2_BCHW, config.micro_batches)
            queries = slow.projections
        views = self._gather_views(queries)
        # Looked up before push(): otherwise every row would find itself.
        nearest = [] if self.support is None else self._look_up(self.support, queries.detach())
        positives1, positives2 = self._positives(views, nearest)
        loss = contrastive_loss(
            positives1,
            positives2,
            predictions1,
            predictions2,
            config.temperature,
            config.loss_blocks,
        )
        self._update(loss, take_gradient)
        neighbours = {}
        if self.support is not None:
            count = config.global_batch
            known = views[0].new_empty(0).long() if labels_L is None else labels_L
            labels_B = F.pad(known, (count - len(known), 0), value=-1)
            neighbours = self.support.observe(torch.cat(nearest), labels_B.repeat(2))
            pushed = views[: config.pushed_views]
            self.support.push(torch.cat(pushed), labels_B.repeat(len(pushed)))
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
            with autocast(self.config.precision, self.world.device):
                own = self.encoder(images_BCHW)
            features = self.world.gather(own.to(images_BCHW.dtype), len(labels_L))
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
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _below(part, flat):
                index, moment = name.split("/")
                state.setdefault(int(index), {})[moment] = tensor
            restore(optimizer, state)

    def _gather_views(self, own_2BD: Tensor) -> list[Tensor]:
        """Return each view's rows of the global batch; `own_2BD` holds our rows of both."""
        return [self.world.gather(view, self.config.global_batch) for view in own_2BD]

    def _look_up(self, support: SupportSet, queries_2BD: Tensor) -> list[Tensor]:
        """Return where each view's neighbours stand in the queue, of the global batch.

        Every worker looks up its own rows.
        """
        config, world = self.config, self.world
        with autocast(config.precision, world.device):
            nearest = support.nearest(queries_2BD.flatten(0, 1), config.neighbours)
        nearest_2BK = nearest.view(2, -1, config.neighbours)
        if config.neighbours == 1:
            return self._gather_views(nearest_2BK[:, :, 0])
        # Drawn for the global batch, so that a draw does not depend on the workers.
        generator = random_stream(config.seed, "neighbours", self.steps_taken, world.device)
        shape = 2, config.global_batch
        drawn = torch.rand(shape, generator=generator, device=world.device) * config.neighbours
        own = drawn.long()[:, world.rows(config.global_batch), None]
        return self._gather_views(nearest_2BK.gather(2, own)[:, :, 0])

    def _update(self, loss: Tensor, take_gradient: Callable[[], None]) -> None:
        """Take one step of the encoder and head, at the rate that the schedule gives it."""
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        take_gradient()
        self.world.sum_gradients(parameters)
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
        for group in groups:
            group["lr"] = learning_rate(self.config, self.steps_taken)
        self.optimizer.step()
        self.steps_taken += 1
        if self.slow is not None and self.config.encoder_momentum is not None:
            pairs = zip(self.slow.parameters(), self.network.parameters(), strict=False)
            with torch.no_grad():
                for slow, fast in pairs:
                    slow.lerp_(fast, 1 - self.config.encoder_momentum)

    def _positives(self, views: list[Tensor], nearest: list[Tensor]) -> list[Tensor]:
        """Return what stands in for each view: its neighbours, or itself without a queue."""
        if self.support is None:
            return views
        neighbours = [self.support.bank_QD[nearest_B] for nearest_B in nearest]
        if self.config.neighbour_gradient == "stop":
            return neighbours
        return [straight_through(*pair) for pair in zip(views, neighbours, strict=True)]

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {
            "encoder": self.encoder,
            "head": self.head,
            "predictor": self.predictor,
            "probe": self.probe,
        }
        if self.slow is not None:
            modules |= {"slow_encoder": self.slow.encoder, "slow_head": self.slow.head}
        if self.support is not None:
            modules["support"] = self.support
        return modules

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"optimizer": self.optimizer, "probe_optimizer": self.probe_optimizer}


def _below(part: str, flat: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    prefix = f"{part}/"
    return [(n.removeprefix(prefix), tensor) for n, tensor in flat.items() if n.startswith(prefix)]
