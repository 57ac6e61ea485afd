"""Small networks are fastest on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block.

    A controller's matrices are so small that waking other threads costs more than the work, and on a busy machine
    tens of times more. The previous setting returns afterwards, for evaluators that train large networks.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
