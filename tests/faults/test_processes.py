"""Processes that die, get stuck, grow too large or are replaced: the others go on, and what is missing is back."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from contextlib import suppress

from fault_clients import LIMIT_SECONDS, Answer, Load, Server, StartServer, at_once, wait_until


def test_kill_9_of_a_worker_in_mid_request_harms_no_other_and_it_is_back(start: StartServer) -> None:
    server = start(workers=2, queue_length=1)
    server.await_workers(2)
    outcomes: list[Answer | Exception] = []

    def call() -> None:
        try:
            outcomes.append(server.get("/slow/3"))
        except (OSError, http.client.HTTPException) as error:
            outcomes.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    victim = server.workers()[0].pid
    os.kill(victim, signal.SIGKILL)
    assert server.get("/who").status == 200
    for caller in callers:
        caller.join()
    answered = [each for each in outcomes if isinstance(each, Answer)]
    assert {each.status for each in answered} == {200}, "the other worker's requests"
    assert 1 <= len(answered) < 4
    wait_until(lambda: len(server.pids() - {victim}) == 2)


def test_a_request_that_is_stuck_in_native_code_is_answered_and_its_worker_replaced(start: StartServer) -> None:
    server = start(workers=1, threads=2, request_timeout_seconds=1)
    (before,) = server.pids()
    answer = server.get("/stuck/25", seconds=20)
    assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
    with Load(lambda: server.get("/who"), clients=2) as load:
        wait_until(lambda: before not in server.pids(), 20)
    assert load.statuses() == {200}
    assert len(server.pids()) == 1
    assert "in stuck" in server.log(), "the log says where it was stuck"


def test_a_worker_over_its_memory_budget_is_replaced_without_a_refused_connection(start: StartServer) -> None:
    server = start(workers=1, threads=4, queue_length=20, worker_memory_bytes=2**27)
    (before,) = server.pids()
    (server.folder / "slow-start").touch()
    with Load(lambda: server.get("/who", seconds=2), clients=4) as load:  # less than a start takes
        server.get("/eat/100")
        wait_until(lambda: before not in server.pids())
        time.sleep(0.5)
    assert load.statuses() == {200}
    assert len(server.pids()) == 1


def test_all_workers_over_their_budget_are_replaced_one_after_the_other(start: StartServer) -> None:
    server = start(workers=2, worker_memory_bytes=2**27)
    wait_until(lambda: len(server.pids()) == 2)
    before = server.pids()
    eaters = at_once([lambda: server.get("/eat/100")] * 4)
    assert {answer.json["pid"] for answer in eaters} == before
    most = 0
    until = time.monotonic() + LIMIT_SECONDS
    while server.pids() & before:
        assert time.monotonic() < until, server.log()
        most = max(most, len(server.pids()))
        time.sleep(0.02)
    assert most <= 3
    wait_until(lambda: len(server.pids()) == 2)


def test_sighup_to_the_master_replaces_code_and_workers_without_a_failed_request(start: StartServer) -> None:
    server = start(workers=2, threads=4, queue_length=20)
    wait_until(lambda: len(server.pids()) == 2)
    before = server.pids()
    with Load(lambda: server.get("/who"), clients=4) as load:
        (server.folder / "version").write_text("2")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not server.pids() & before)
    assert load.statuses() == {200}
    assert server.get("/who").json["version"] == "2"


def test_sighup_with_code_that_cannot_start_leaves_the_old_workers_at_work(start: StartServer) -> None:
    server = start(workers=2)
    wait_until(lambda: len(server.pids()) == 2)
    before = server.pids()
    (server.folder / "broken").touch()
    with Load(lambda: server.get("/who"), clients=2) as load:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "those that serve go on" in server.log())
        wait_until(lambda: server.pids() == before)
    assert load.statuses() == {200}


def test_workers_that_die_at_once_are_started_with_growing_pauses(server: Server) -> None:
    (server.folder / "dies-at-start").touch()
    for worker in server.workers():
        worker.kill()
    wait_until(lambda: server.log().count("have died right after their start") >= 3, 20)
    starts = server.log().count("Booting worker")
    assert starts < 10
    (server.folder / "dies-at-start").unlink()
    wait_until(server.is_ready)


def test_sigterm_answers_what_was_accepted_then_ends(server: Server) -> None:
    answers: list[int] = []
    callers = [threading.Thread(target=lambda: answers.append(server.get("/slow/1").status)) for _ in range(4)]
    for caller in callers:  # two in threads, two in the queue
        caller.start()
    time.sleep(0.5)
    assert server.stop() == 0
    for caller in callers:
        caller.join()
    assert answers == [200] * 4


def test_workers_that_are_told_to_end_right_after_their_start_have_not_died(start: StartServer) -> None:
    server = start(workers=2)
    server.await_workers(2)
    assert server.stop() == 0
    assert "have died" not in server.log()


def test_a_stuck_thread_does_not_keep_the_service_from_ending(server: Server) -> None:
    with suppress(OSError):
        server.get("/stuck/60", seconds=0.5)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 20
