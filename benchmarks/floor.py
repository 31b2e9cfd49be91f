"""How near a train step comes to its arithmetic: counted operations over the measured peak.

Run with: python benchmarks/floor.py

Operations are those of the products and convolutions of one real step (torch's FlopCounterMode);
the peak is that of a large matrix product in the same precision, measured between the steps.

Last results, 2026-11-24, 2 cores of a virtual machine, 2 threads, torch 2.14.1, Python 3.11.7,
median of 3 rounds in alternation. Intel Xeon with AMX, which multiplies bf16 five times faster
than float32, so that a bf16 step waits for memory:

     32 px  float32      62 GFLOP  peak    433 GFLOP/s  floor  0.144 s  step  0.298 s   48%
     32 px  bf16         62 GFLOP  peak   2392 GFLOP/s  floor  0.026 s  step  0.171 s   15%
     96 px  float32     682 GFLOP  peak    434 GFLOP/s  floor  1.573 s  step  2.665 s   59%
     96 px  bf16        682 GFLOP  peak   2360 GFLOP/s  floor  0.289 s  step  0.945 s   31%

AMD EPYC with AVX-512 (bf16 and VNNI), 2026-11-25, median of 5, the machine's neighbours quiet. In
float32 the convolutions pass the product that stands for the peak:

     32 px  float32      62 GFLOP  peak    211 GFLOP/s  floor  0.296 s  step  0.272 s  109%
     32 px  bf16         62 GFLOP  peak    851 GFLOP/s  floor  0.073 s  step  0.195 s   38%
     96 px  float32     682 GFLOP  peak    217 GFLOP/s  floor  3.135 s  step  2.593 s  121%
     96 px  bf16        682 GFLOP  peak    907 GFLOP/s  floor  0.752 s  step  1.216 s   62%

Intel Xeon with AVX-512 bf16 and without AMX, 2026-11-26, median of 5. Its bf16 product is slower
than its float32 one, as `nnclr-study doctor` says:

     32 px  float32      62 GFLOP  peak    307 GFLOP/s  floor  0.204 s  step  0.373 s   55%
     32 px  bf16         62 GFLOP  peak    169 GFLOP/s  floor  0.370 s  step  0.538 s   69%
     96 px  float32     682 GFLOP  peak    322 GFLOP/s  floor  2.120 s  step  3.311 s   64%
     96 px  bf16        682 GFLOP  peak    167 GFLOP/s  floor  4.074 s  step  4.840 s   84%

On the AMD machine the day before, its neighbours busy, the bf16 peak was 410 GFLOP/s and
the step of then at 70 % of it.

The target of 75 % of the bf16 peak at 96 px is met where bf16 is of no use, and missed on the two
others. On AMX it cannot be met with these kernels: the library's convolutions alone, called as
the step calls them, leave 47 %.
"""

import argparse

import torch
from common import machine
from torch.utils.flop_counter import FlopCounterMode

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.pace import in_turn, train_step
from nnclr_study.trainer.runtime import settle
from nnclr_study.trainer.world import World


def main() -> None:
    """Measure step and peak in alternation and print the share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 96], help="of the images")
    args = parser.parse_args()
    device = World.alone().device
    torch.set_num_threads(args.threads)
    print(f"{machine(device)}; median of {args.rounds}")
    edge = 8_192 if device.type == "cuda" else 2_048
    for side in args.sides:
        for precision, kind in (("float32", torch.float32), ("bf16", torch.bfloat16)):
            settle(device, precision, args.threads)
            step = train_step(TrialConfig(precision=precision), side, device)
            with FlopCounterMode(display=False) as counter:
                step()
            operations = counter.get_total_flops()
            square = torch.randn(edge, edge, device=device).to(kind)

            def product(square: torch.Tensor = square) -> None:
                _ = square @ square
                if device.type == "cuda":
                    torch.cuda.synchronize(device)

            seconds = in_turn({"step": step, "product": product}, args.rounds)
            peak = 2 * edge**3 / seconds["product"]
            floor = operations / peak
            print(
                f"{side:>3} px  {precision:<8} {operations / 1e9:6.0f} GFLOP  peak "
                f"{peak / 1e9:6.0f} GFLOP/s  floor {floor:6.3f} s  step {seconds['step']:6.3f} s"
                f"  {floor / seconds['step']:4.0%} of the step"
            )


if __name__ == "__main__":
    main()
