"""How torch's threads wait for each other, said before torch is imported.

They spin for some milliseconds, which is the fastest for as long as each has a processor to itself. Beside another program two share
one, and the one that spins takes the time that the other needs. Sleeping at once costs little there and much on a quiet machine. So
threads sleep where others are at work when the process starts, and spin a thirtieth as long elsewhere. No result depends on it;
docs/training.md has the figures.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping

LOOKS, PAUSE = 3, 0.01  # and seconds before each of them
BRIEFLY = "10000"  # turns of the loop; the library's own is 300,000
_SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def choose_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what GNU's OpenMP reads when torch brings it, unless somebody has said it."""
    if any(name in environment for name in _SAID):
        return
    others = sum(_others() or 0 for _ in range(LOOKS)) / LOOKS
    name, value = ("OMP_WAIT_POLICY", "PASSIVE") if others >= 1 else ("GOMP_SPINCOUNT", BRIEFLY)
    environment[name] = value


def _others() -> int | None:
    """Threads of others that are running or would like to, now; None where the system does not say."""
    time.sleep(PAUSE)
    try:
        with open("/proc/loadavg") as file:
            return max(0, int(file.read().split()[3].partition("/")[0]) - 1)
    except (OSError, ValueError, IndexError):
        return None
