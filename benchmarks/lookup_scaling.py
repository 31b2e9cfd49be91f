"""The look-up of 1,050 neighbours in queues of many sizes: time and scratch memory.

Run with: python benchmarks/lookup_scaling.py

In chunks as `SupportSet.nearest` does it, and all at once; scratch is what is allocated beyond
the queue at the worst moment of a look-up.

Last result, 2026-11-24: AMD EPYC with AVX-512 (2 cores of a virtual machine, 1 thread), torch
2.14.1, Python 3.11.7; median of 5. At 98,304 rows of 128 in bf16 that is 4.6 % of a 96 px step of
5.2 s with a queue of 10,000 (step_vs_lightly.py) and the look-up's difference. On an Intel Xeon
with AMX it took 132 ms: 5.5 % of 2.3 s.

   rows   dim  precision   in chunks   scratch   at once   scratch
  1,024   128  float32        4.3 ms      4 MB       4.4 ms      4 MB
 10,000   128  float32       41.3 ms     17 MB      39.3 ms     42 MB
 10,000   128  bf16          25.1 ms     10 MB      24.7 ms     24 MB
 98,304   128  float32      408.5 ms     17 MB     464.5 ms    413 MB
 98,304   128  bf16         254.1 ms     10 MB     248.0 ms    232 MB
131,072   128  float32      572.2 ms     17 MB     687.1 ms    551 MB
131,072   128  bf16         457.9 ms     10 MB     436.7 ms    309 MB
 98,304   256  float32      746.6 ms     17 MB     888.9 ms    413 MB
 98,304   256  bf16         369.4 ms     11 MB     373.7 ms    257 MB
 98,304   512  bf16         673.8 ms     14 MB     698.6 ms    308 MB
"""

import argparse

import torch
from common import machine
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from nnclr_study.trainer.pace import in_turn
from nnclr_study.trainer.runtime import autocast, settle
from nnclr_study.trainer.support_set import SupportSet
from nnclr_study.trainer.world import World

QUERIES = 1_050


def scratch(work: object, device: torch.device) -> float:
    """Return the most bytes that a call holds at a time beyond what was there before."""
    assert callable(work)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    held = most = 0
    events = (
        event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"
    )
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def main() -> None:
    """Measure chunked and whole look-ups in alternation and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128, 256, 512])
    args = parser.parse_args()
    device = World.alone().device
    settle(device, "float32", args.threads)
    print(f"{machine(device)}; {QUERIES:,} queries, median of {args.rounds}")
    print("   rows   dim  precision   in chunks   scratch   at once   scratch")
    for dim in args.dims:
        generator = torch.Generator().manual_seed(0)
        queries = F.normalize(torch.randn(QUERIES, dim, generator=generator)).to(device)
        for rows in (1_024, 10_000, 32_768, 98_304, 131_072):
            support = SupportSet(rows, dim, generator).to(device)
            for precision in ("float32", "bf16"):

                def chunked(support=support, queries=queries, precision=precision) -> None:  # noqa: ANN001
                    with autocast(precision, device):
                        support.nearest(queries)
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)

                def whole(support=support, queries=queries, precision=precision) -> None:  # noqa: ANN001
                    with autocast(precision, device):
                        (queries @ support.bank_QD.T).max(1)
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)

                works = {"chunked": chunked, "whole": whole}
                seconds = in_turn(works, args.rounds)
                said = [
                    f"{seconds[name] * 1e3:8.1f} ms  {scratch(work, device) / 1e6:5.0f} MB"
                    for name, work in works.items()
                ]
                print(f"{rows:>7,}  {dim:>4}  {precision:<9} {'  '.join(said)}")


if __name__ == "__main__":
    main()
