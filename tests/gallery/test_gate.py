"""Who guesses waits, and who knows the secret does not wait for who guesses."""

from __future__ import annotations

import time

import pytest

from ti_pipeline.gallery import gate as gates
from ti_pipeline.gallery.gate import AGAIN_ALL, AGAIN_ONE, MONTH, OF_ALL, OF_ONE, Gate, TooMany


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate("öffne dich", b"salt", clock)


def wrong(gate: Gate, address: str, times: int) -> int:
    """How many of so many wrong secrets were tried at all."""
    tried = 0
    for n in range(times):
        try:
            assert not gate.opens(f"guess {n}".encode(), address)
            tried += 1
        except TooMany:
            pass
    return tried


def test_one_address_has_a_few_tries_and_then_one_in_a_while(gate: Gate, clock: Clock):
    assert wrong(gate, "198.51.100.1", 1000) == OF_ONE
    with pytest.raises(TooMany) as held:
        gate.opens("öffne dich".encode(), "198.51.100.1")  # right as well: or guessing would only look slow
    assert held.value.seconds > 1
    assert gate.opens("öffne dich".encode(), "198.51.100.2")
    clock.now += held.value.seconds
    assert gate.opens("öffne dich".encode(), "198.51.100.1")
    clock.now += 100
    assert wrong(gate, "198.51.100.1", 1000) == pytest.approx(100 * AGAIN_ONE, abs=1)


def test_a_network_of_ipv6_is_one_address(gate: Gate):
    assert sum(wrong(gate, f"2001:db8::{n:x}", 1) for n in range(100)) == OF_ONE
    assert wrong(gate, "2001:db8:0:1::1", 1) == 1


def test_who_guesses_from_many_places_is_bounded_and_locks_no_stranger_out(gate: Gate, clock: Clock):
    assert sum(wrong(gate, f"198.51.100.{n}", 50) for n in range(12)) == OF_ALL + 12  # the first of each is a stranger's
    assert gate.opens("öffne dich".encode(), "203.0.113.1")
    tried = sum(wrong(gate, f"10.0.{n // 250}.{n % 250}", 1) for n in range(5000))
    assert tried <= OF_ALL
    clock.now += 10
    assert sum(wrong(gate, f"10.1.{n // 250}.{n % 250}", 1) for n in range(5000)) == 10 * AGAIN_ALL


def test_only_so_many_addresses_are_remembered(gate: Gate, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gates, "ADDRESSES", 5)
    for n in range(50):
        clock.now += 60
        wrong(gate, f"198.51.100.{n}", 1)
    assert list(gate._wrong) == [f"198.51.100.{n}" for n in range(45, 50)]


def test_a_cookie_is_of_one_gallery_and_secret_and_ends(gate: Gate, monkeypatch: pytest.MonkeyPatch):
    cookie = gate.cookie()
    at, _, signed = cookie.partition(".")
    assert gate.knows(cookie) and Gate("öffne dich", b"salt").knows(cookie)
    for false in ("", ".", "x", "²." + signed, f"{int(at) + 1}.{signed}", f"{at}.{signed[:-1]}", signed):
        assert not gate.knows(false), false
    assert not Gate("another", b"salt").knows(cookie) and not Gate("öffne dich", b"pepper").knows(cookie)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + MONTH + 1)
    assert not gate.knows(cookie)
