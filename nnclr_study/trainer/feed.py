"""The images of each step, there when the step wants them."""

import os
from collections.abc import Generator, Sequence
from queue import Queue
from threading import Event, Thread

import torch
from torch import Tensor

from nnclr_study.trainer.images import Dataset, Images

CHUNK_BYTES = 64 << 20
"""Of the images that are read at a time when they are streamed; up to three chunks are held."""

Steps = Generator[list[Tensor], None, None]
Request = tuple[Images, Tensor]
"""Images, and which of them each step wants: (steps, B) row numbers."""


def must_stream(data: Dataset, device: torch.device) -> bool:
    """Return whether images are to be read ahead of the steps.

    They need not where they lie on the device; nor on a CPU whose memory holds them twice, as
    then the system's cache has them at hand.
    """
    if device.type == "cuda":
        return data.unlabelled[:1].device.type != "cuda"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return data.bytes > memory / 2


def feed(requests: Sequence[Request], device: torch.device, stream: bool) -> Steps:
    """Yield, a step, the images of every request, (B, 3, S, S) uint8 on the device.

    Streamed or not, they are the same. Close the iterator to end a stream early.
    """
    if stream:
        yield from _stream(requests, device)
        return
    placed = [(images, rows.to(images[:0].device)) for images, rows in requests]
    for step in range(len(requests[0][1])):
        yield [images[rows[step]].to(device) for images, rows in placed]


def _stream(requests: Sequence[Request], device: torch.device) -> Steps:
    """Read chunks of several steps in a thread, each with its rows in order of the file."""
    step_bytes = sum(rows.shape[1] * 3 * images.side**2 for images, rows in requests)
    length = max(1, CHUNK_BYTES // step_bytes)
    chunks: Queue[list[Tensor] | BaseException | None] = Queue(maxsize=1)
    left = Event()

    def read() -> None:
        try:
            for start in range(0, len(requests[0][1]), length):
                chunk = [
                    _in_file_order(images, rows[start : start + length], device.type == "cuda")
                    for images, rows in requests
                ]
                chunks.put(chunk)
                if left.is_set():
                    return
            chunks.put(None)
        except BaseException as error:
            chunks.put(error)

    reader = Thread(target=read, name="image reader", daemon=True)
    reader.start()
    try:
        while (chunk := chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            for images in zip(*chunk, strict=True):
                yield [image.to(device, non_blocking=True) for image in images]
    finally:
        left.set()
        while reader.is_alive():
            # A reader that waits for room goes on, sees that we have left, and ends.
            if not chunks.empty():
                chunks.get()
            reader.join(timeout=0.01)


def _in_file_order(images: Images, rows_SB: Tensor, pinned: bool) -> Tensor:
    """Return the images of some steps, (steps, B, 3, S, S), read from first to last."""
    order = rows_SB.flatten().argsort()
    shape = *rows_SB.shape, 3, images.side, images.side
    read = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
    read.flatten(0, 1)[order] = images[rows_SB.flatten()[order]]
    return read
