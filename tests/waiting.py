"""What tests do that wait for something another process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(met: Callable[[], object], otherwise: str, seconds: float = 60) -> None:
    """Wait until a condition is met.

    Args:
        met: the condition, which is looked at again and again.
        otherwise: what the test says if it is not met.
        seconds: a safety net, far longer than it takes on a busy machine.
    """
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)
