"""What the benchmarks share: telling the machine."""

import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from nnclr_study.trainer.world import CPU


def machine(device: torch.device = CPU) -> str:
    """Return processor (or card), versions and date in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return (
        f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, "
        f"Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    )
