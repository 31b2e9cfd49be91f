"""Memory that a trial lacked: how much it was, and the way out."""

import re

DEVICE = re.compile(
    r"Tried to allocate (?P<wanted>[\d.]+ \w+).*?"
    r"total capacity of (?P<there>[\d.]+ \w+) of which (?P<free>[\d.]+ \w+) is free"
    r"(?:.*?(?P<share>[\d.]+ \w+) allowed)?",
    re.DOTALL,
)
"""What torch says of a GPU."""
HOST = re.compile(r"can't allocate memory: you tried to allocate (?P<bytes>\d+) bytes")
"""What torch says of a machine."""
NODE = re.compile(
    r"low on memory.*? was (?P<used>[\d.]+ ?GB) used / (?P<limit>[\d.]+ ?GB)", re.DOTALL
)
"""What Ray says of a node on which it killed the process of a trial."""
OTHER = re.compile(r"out of memory|_ALLOC_FAILED", re.IGNORECASE)

LESS = "more micro_batches, a smaller batch_size or a smaller queue_size need less"
FEWER = f"{LESS}, and so do fewer trials at a time (--max-concurrent)"


def lack(error: BaseException | str) -> str | None:
    """Return how much memory was lacked and the way out, in a line.

    Args:
        error: of torch, numpy or Python, or the text of one of Ray's.

    Returns:
        None: it tells of something else.
    """
    text = str(error)
    if found := DEVICE.search(text):
        is_share = found["share"] not in (None, found["there"])
        share = f", and the trial's share is {found['share']}" * is_share
        return (
            f"the GPU ran out of memory: {found['wanted']} more wanted, {found['free']} of "
            f"{found['there']} free{share}; {LESS}, and so do fewer trials on a GPU "
            "(--gpus-per-trial)"
        )
    if found := HOST.search(text):
        wanted = f"{int(found['bytes']) / 2**30:,.1f} GiB more wanted"
        return f"the machine ran out of memory: {wanted}; {FEWER}"
    if found := NODE.search(text):
        used = f"{found['used']} of {found['limit']} used"
        return f"the node ran low on memory, and Ray ended the trial: {used}; {FEWER}"
    if isinstance(error, MemoryError):
        figure = " ".join(text.split()) or "no figure known"
        return f"the machine ran out of memory: {figure}; {FEWER}"
    if isinstance(error, RuntimeError) and OTHER.search(text):
        return f"{text.strip().splitlines()[0]}; {LESS}"
    return None
