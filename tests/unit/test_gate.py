"""The gate before the vision work: how many at once, how long the others wait, what they are told."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from recognizer.deadline import Deadline
from recognizer.errors import Busy, DeadlineExceeded, Unavailable
from recognizer.vision.gate import Gate


def test_no_more_than_the_slots_are_inside() -> None:
    gate, inside, most = Gate(2, 30), 0, 0
    counting = threading.Lock()

    def work(_: int) -> None:
        nonlocal inside, most
        with gate.slot(Deadline(30)):
            with counting:
                inside += 1
                most = max(most, inside)
            time.sleep(0.002)
            with counting:
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(60)))
    assert most == 2
    assert inside == 0


def test_waiting_too_long_is_busy() -> None:
    gate = Gate(1, 0.01)
    with gate.slot(Deadline(30)), pytest.raises(Busy), gate.slot(Deadline(30)):
        pytest.fail("two in one slot")
    with gate.slot(Deadline(30)):
        pass  # free again


def test_the_request_s_own_deadline_is_told_as_such() -> None:
    gate = Gate(1, 30)
    with gate.slot(Deadline(30)), pytest.raises(DeadlineExceeded), gate.slot(Deadline(0.01)):
        pytest.fail("two in one slot")
    with pytest.raises(DeadlineExceeded), gate.slot(Deadline(0)):
        pytest.fail("let in after the deadline")


def test_a_slot_is_free_again_after_an_error() -> None:
    gate = Gate(1, 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.slot(Deadline(30)):
            raise ZeroDivisionError


def test_closing_waits_for_those_inside_and_refuses_the_others() -> None:
    gate = Gate(1, 30)
    entered, leave = threading.Event(), threading.Event()

    def inside() -> None:
        with gate.slot(Deadline(30)):
            entered.set()
            leave.wait(30)

    def outside() -> None:
        with gate.slot(Deadline(30)):
            pytest.fail("let in after closing")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(inside)
        entered.wait(30)
        second = pool.submit(outside)
        assert not gate.close(0.01)
        with pytest.raises(Unavailable):
            second.result(30)
        leave.set()
        assert gate.close(30)
        first.result(30)
    with pytest.raises(Unavailable), gate.slot(Deadline(30)):
        pytest.fail("let in after closing")
