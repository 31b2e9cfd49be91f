"""One train step against the Keras example's on tensorflow-cpu: the same batch, model and queue.

Run with: python benchmarks/step_vs_keras.py --keras-python PYTHON

PYTHON is an interpreter with TensorFlow (`pip install tensorflow-cpu` in an environment of its
own, or `pip install -e '.[keras]'` here, its default). The other side is benchmarks/keras_step.py,
checked against the recorded steps of tests/trainer/golden before it is timed.

Last results, 2026-11-25, 2 cores of a virtual machine, 2 threads, torch 2.14.1, TensorFlow
2.21.0, Keras 3.15.1, Python 3.11.7; median of 7 rounds in alternation. AMD EPYC with AVX-512 (bf16
and VNNI):

     32 px  keras      0.264 s   1.00x
     32 px  float32    0.263 s   1.00x
     32 px  bf16       0.163 s   1.62x
     96 px  keras      2.424 s   1.00x
     96 px  float32    2.554 s   0.95x
     96 px  bf16       1.187 s   2.04x

On an Intel Xeon with AMX, in float32, the step took 2.67 s (floor.py) where Keras had taken 2.80 s
an hour before; the two have not been measured side by side there since.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from common import machine

from nnclr_study.study.config import TrialConfig
from nnclr_study.trainer.pace import in_turn, train_step
from nnclr_study.trainer.runtime import settle
from nnclr_study.trainer.world import World

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "trainer" / "golden"
AGREED = 1e-3


def check(python: str) -> None:
    """See that the other side takes the recorded steps."""
    for path in sorted(GOLDEN.glob("*.npz")):
        command = [python, HERE / "keras_step.py", "check", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1]
            sys.exit(f"{python} cannot take the example's step: {last}")
        deviation = float(done.stdout)
        if deviation > AGREED:
            sys.exit(f"keras_step.py is off {path.name} by {deviation:.1e}")
        print(f"{path.name}: the other side agrees to {deviation:.1e}")


def main() -> None:
    """Measure all in alternation and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keras-python", default=sys.executable, help="with TensorFlow")
    parser.add_argument("--threads", type=int, default=2, help="of both sides")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each")
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 96], help="of the images")
    args = parser.parse_args()
    check(args.keras_python)
    world = World.alone()
    settle(world.device, "float32", args.threads)
    print(f"{machine(world.device)}; median of {args.rounds}")
    for side in args.sides:
        command = [args.keras_python, HERE / "keras_step.py", "time", str(side)]
        other = subprocess.Popen(
            [*command, str(args.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert other.stdin is not None
        assert other.stdout is not None
        said, asked = other.stdout, other.stdin
        print(said.readline().strip())

        def keras(asked=asked, said=said) -> float:  # noqa: ANN001
            asked.write("\n")
            asked.flush()
            return float(said.readline())

        ours = {
            precision: train_step(TrialConfig(precision=precision), side, world.device)
            for precision in ("float32", "bf16")
        }
        seconds = in_turn({"keras": keras, **ours}, args.rounds)
        other.terminate()
        for name, value in seconds.items():
            print(f"{side:>3} px  {name:<8} {value:7.3f} s   {seconds['keras'] / value:4.2f}x")


if __name__ == "__main__":
    main()
