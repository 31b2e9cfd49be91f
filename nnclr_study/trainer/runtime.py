"""What a trial sets of the process that it runs in: threads, memory and precision."""

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3), as malloc.h numbers them."""
KEPT_BYTES = 2**31 - 1


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
        allow = precision != "float32"
        torch.backends.cuda.matmul.allow_tf32 = allow
        torch.backends.cudnn.allow_tf32 = allow
    elif sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # not in musl
            libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
            libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which products take bf16, if that is the precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
