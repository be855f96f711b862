"""Who is let in: those who know the gallery's secret, and nobody who tries out many.

Wrong secrets cost: each address has a few at once and then one every ten seconds. All addresses together that were wrong before
share a second allowance, and those that were not a third, so that whoever guesses from a few places uses up nobody else's. A
visitor with a cookie is never held up.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

MONTH = 30 * 24 * 3600  # seconds that a visitor stays let in
ADDRESSES = 4096  # that were wrong and are remembered
OF_ONE, AGAIN_ONE = 10, 0.1  # wrong secrets of one address: at once, and then in a second
OF_ALL, AGAIN_ALL = 60, 1.0


class TooMany(Exception):
    """Too many wrong secrets; the next one may be tried in `seconds`."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = int(seconds) + 1


class Gate:
    """Knows the secret. `salt` makes the cookies of two galleries with the same secret different ones."""

    def __init__(self, secret: str, salt: bytes, clock: Callable[[], float] = time.monotonic):
        self._secret = secret.encode()
        self._key = hashlib.scrypt(self._secret, salt=salt, n=2**14, r=8, p=1)  # so that no cookie tells the secret to who tries many out
        self._clock = clock
        self._wrong: OrderedDict[str, _Allowance] = OrderedDict()
        self._known, self._strangers = _Allowance(OF_ALL, AGAIN_ALL, clock()), _Allowance(OF_ALL, AGAIN_ALL, clock())

    def opens(self, given: bytes, address: str) -> bool:
        """Whether this is the secret. Raises TooMany, right or wrong, when those who come from there have to wait."""
        now, of = self._clock(), _network(address)
        own = self._wrong.get(of)
        every = self._known if own else self._strangers
        own = own or _Allowance(OF_ONE, AGAIN_ONE, now)
        if wait := max(own.wait(now), every.wait(now)):
            raise TooMany(wait)
        if hmac.compare_digest(self._sign(given), self._sign(self._secret)):  # of equal length, so the secret's does not show
            return True
        own.take()
        every.take()
        self._wrong[of] = own
        self._wrong.move_to_end(of)
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)
        return False

    def cookie(self) -> str:
        """For a visitor who knew the secret: when that was, signed."""
        now = str(int(time.time()))
        return f"{now}.{self._sign(now.encode()).hex()}"

    def knows(self, cookie: str) -> bool:
        """Whether this gate gave it out, with this secret, and not too long ago."""
        at, _, signed = cookie.partition(".")
        return hmac.compare_digest(signed.encode(), self._sign(at.encode()).hex().encode()) and time.time() - int(at) < MONTH

    def _sign(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256")


class _Allowance:
    """So many at once, each of which comes back with time."""

    def __init__(self, size: int, again: float, now: float):
        self._size, self._again, self._left, self._at = size, again, float(size), now

    def wait(self, now: float) -> float:
        """Seconds until there is one, 0 when there is."""
        self._left, self._at = min(self._size, self._left + (now - self._at) * self._again), now
        return max(0.0, (1 - self._left) / self._again)

    def take(self) -> None:
        self._left -= 1


def _network(address: str) -> str:
    """An IPv6 address counts as its /64 network: whoever has one address has them all."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return parsed.exploded[:19] if isinstance(parsed, IPv6Address) and not parsed.ipv4_mapped else str(address)
