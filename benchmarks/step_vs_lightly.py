"""One train step against lightly's blocks around the same encoder, on the same images.

Run with: pip install -e '.[lightly]' && python benchmarks/step_vs_lightly.py

The other side is put together as lightly's own NNCLR example does it: SimCLRTransform image by
image, projection and prediction head, NNMemoryBankModule and NTXentLoss; ours has the recipe
"simclr" and a prediction head. Both take 525 images of two views with a queue of 10,000.

Last results, 2026-11-24, 2 cores of a virtual machine, 1 thread, torch 2.14.1, lightly 1.6.0,
Python 3.11.7, light work beside them. Intel Xeon with AMX, median of 3 rounds in alternation:

     32 px  lightly    1.120 s   1.00x
     32 px  float32    0.602 s   1.86x
     32 px  bf16       0.329 s   3.40x
     96 px  lightly   10.713 s   1.00x
     96 px  float32    5.377 s   1.99x
     96 px  bf16       2.271 s   4.72x

AMD EPYC with AVX-512, median of 7:

     32 px  lightly    1.671 s   1.00x
     32 px  float32    0.949 s   1.76x
     32 px  bf16       0.618 s   2.70x
     96 px  lightly   17.747 s   1.00x
     96 px  float32    9.149 s   1.94x
     96 px  bf16       5.242 s   3.39x

Intel Xeon with AVX-512 bf16 and without AMX, 2026-11-26, median of 3; bf16 is slower than float32
there, as `nnclr-study doctor` says:

     32 px  lightly    1.468 s   1.00x
     32 px  float32    0.774 s   1.90x
     32 px  bf16       1.076 s   1.36x
     96 px  lightly   10.945 s   1.00x
     96 px  float32    7.017 s   1.56x
     96 px  bf16      10.175 s   1.08x

The target of 4x is met at 96 px with AMX alone.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np
import torch
from common import machine
from PIL import Image

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.encoder import conv4
from nnclr_study.trainer.pace import in_turn, train_step
from nnclr_study.trainer.runtime import settle
from nnclr_study.trainer.world import World

try:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import NNCLRPredictionHead, NNCLRProjectionHead, NNMemoryBankModule
    from lightly.transforms import SimCLRTransform
except ImportError as missing:
    sys.exit(f"{missing}; install the other side: pip install -e '.[lightly]'")

CONFIG = TrialConfig(aug_recipe="simclr", predictor_width=128, head_batch_norm=True)


class Theirs(torch.nn.Module):
    """lightly's blocks around the Keras example's encoder."""

    def __init__(self, side: int) -> None:
        super().__init__()
        width = CONFIG.width
        self.encoder = conv4(width, side)
        self.project = NNCLRProjectionHead(width, width, width)
        self.predict = NNCLRPredictionHead(width, width, width)
        self.memory = NNMemoryBankModule(size=(CONFIG.queue_size, width))
        self.loss = NTXentLoss(temperature=CONFIG.temperature)
        self.transform = SimCLRTransform(input_size=side)

    def step(self, images: list[Image.Image], optimizer: torch.optim.Optimizer) -> float:
        """Take one step, its images transformed first."""
        device = next(self.parameters()).device
        pairs = [self.transform(image) for image in images]
        views = [torch.stack([pair[number] for pair in pairs]).to(device) for number in (0, 1)]
        projected = [self.project(self.encoder(view)) for view in views]
        predicted = [self.predict(rows) for rows in projected]
        first = self.memory(projected[0].detach(), update=False)
        second = self.memory(projected[1].detach(), update=True)
        loss = 0.5 * (self.loss(first, predicted[1]) + self.loss(second, predicted[0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()


def main() -> None:
    """Measure all in alternation and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 96], help="of the images")
    args = parser.parse_args()
    device = World.alone().device
    torch.set_num_threads(args.threads)
    print(f"{machine(device)}; median of {args.rounds}")
    for side in args.sides:
        pixels = np.random.default_rng(0).integers(
            0, 256, (CONFIG.global_batch, side, side, 3), dtype=np.uint8
        )
        images = [Image.fromarray(image) for image in pixels]
        theirs = Theirs(side).to(device)
        optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-3)

        def lightly(theirs=theirs, images=images, optimizer=optimizer) -> None:  # noqa: ANN001
            settle(device, "float32", args.threads)
            theirs.step(images, optimizer)

        works: dict[str, Callable[[], None]] = {"lightly": lightly}
        for precision in ("float32", "bf16"):
            config = CONFIG.model_copy(update={"precision": precision})

            def ours(step=train_step(config, side, device), precision=precision) -> None:  # noqa: ANN001, B008
                settle(device, precision, args.threads)
                step()

            works[precision] = ours
        seconds = in_turn(works, args.rounds)
        for name, value in seconds.items():
            print(f"{side:>3} px  {name:<8} {value:7.3f} s   {seconds['lightly'] / value:4.2f}x")


if __name__ == "__main__":
    main()
