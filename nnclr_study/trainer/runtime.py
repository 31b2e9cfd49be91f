"""What a trial sets of the process that it runs in: threads, memory and precision."""

import ctypes
import gc
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3), as malloc.h numbers them."""
KEPT_BYTES = 2**31 - 1

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def settle(device: torch.device, precision: str, threads: int = 1) -> None:
    """Give this process the threads, the memory and the precision of a trial.

    Large blocks that are freed stay with the process, to be used again in the next step;
    glibc would hand each back to the kernel, and fault its pages in anew.

    Args:
        device: where the trial computes.
        precision: of float32 products: IEEE, or on CUDA TF32 as well, if the knob says so.
        threads: of torch on the CPU.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        # Before it, queries of memory may answer nonsense.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        allow = precision != "float32"
        torch.backends.cuda.matmul.allow_tf32 = allow
        torch.backends.cudnn.allow_tf32 = allow
    elif sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # not in musl
            libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
            libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def limit_gpu_memory(device: torch.device, share: float) -> None:
    """Limit this process to a share of the GPU's memory, and free what its last trial left there.

    The limit holds until the next call; a share of 1 lifts it. On a CPU nothing is done.
    """
    if device.type == "cuda":
        gc.collect()  # tensors that an error's traceback holds in a cycle
        torch.cuda.set_per_process_memory_fraction(share, device.index)
        torch.cuda.empty_cache()


def forget_peak_memory(device: torch.device) -> None:
    """Let the peak of this process's memory count from now on."""
    if device.type == "cuda":
        # Before it, torch raises for a device with an index.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        with suppress(OSError):  # a container may forbid it: the process's whole peak counts then
            _CLEAR.write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory taken: on CUDA by tensors, on a CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        if found:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which products take bf16, if that is the precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
