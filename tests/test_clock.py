"""Market time waits for the engine, never goes backwards and never runs ahead of an exchange."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import Clock, LiveClock, PacedClock, SteppedClock
from core.errors import ExchangeUnavailable

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000


class Wall:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


class Server:
    """An exchange's time, on the same wall; it may be down, slow or corrected."""

    def __init__(self, wall: Wall) -> None:
        self.wall = wall
        self.base_ms = START_MS - 50_000
        self.delay_s = 0.0
        self.down = False
        self.n_asked = 0

    def __call__(self) -> int:
        self.n_asked += 1
        if self.down:
            raise ExchangeUnavailable("down")
        stamped_ms = self.base_ms + round(self.wall.now_s * 1000)
        self.wall.now_s += self.delay_s
        return stamped_ms


def test_live_is_the_exchange_s_time_carried_on() -> None:
    """Between readings time goes on by the monotonic clock, without asking again."""
    wall = Wall()
    server = Server(wall)
    clock = LiveClock(server, monotonic=wall, reread_s=240)
    assert clock.now_ms() == START_MS
    wall.now_s += 100
    assert clock.now_ms() == START_MS + 100_000
    assert clock.wait_s(START_MS + 101_500) == 1.5
    assert clock.wait_s(START_MS) == 0.0
    assert server.n_asked == 1
    assert (clock.speed, clock.finished) == (1.0, False)


def test_live_is_never_ahead_of_a_slow_answer() -> None:
    """An answer that took 3 s makes the clock late, not early."""
    wall = Wall()
    server = Server(wall)
    server.delay_s = 3.0
    clock = LiveClock(server, monotonic=wall)
    true_ms = server.base_ms + round(wall.now_s * 1000)
    assert true_ms - 3000 <= clock.now_ms() <= true_ms


def test_live_rereads_and_never_goes_backwards() -> None:
    """A correction forwards is taken at once; one backwards makes the clock wait."""
    wall = Wall()
    server = Server(wall)
    clock = LiveClock(server, monotonic=wall, reread_s=240)
    server.base_ms += 2000
    wall.now_s += 240
    assert clock.now_ms() == START_MS + 242_000
    server.base_ms -= 5000
    wall.now_s += 240
    assert clock.now_ms() == START_MS + 477_000
    wall.now_s += 1
    assert clock.now_ms() == START_MS + 478_000
    server.base_ms -= 9000
    wall.now_s += 240
    assert clock.now_ms() == START_MS + 478_000 + 231_000
    server.base_ms -= 600_000
    before_ms = clock.now_ms()
    wall.now_s += 240
    assert clock.now_ms() == before_ms


def test_live_keeps_the_last_reading_while_the_exchange_is_down() -> None:
    """A failed reading changes nothing and is not repeated at every look."""
    wall = Wall()
    server = Server(wall)
    clock = LiveClock(server, monotonic=wall, reread_s=240)
    server.down = True
    wall.now_s += 300
    assert clock.now_ms() == START_MS + 300_000
    assert clock.now_ms() == START_MS + 300_000
    assert server.n_asked == 2


def test_live_cannot_start_without_a_reading() -> None:
    """The first reading's failure is the caller's to hear."""
    wall = Wall()
    server = Server(wall)
    server.down = True
    with pytest.raises(ExchangeUnavailable):
        LiveClock(server, monotonic=wall)


def test_paced_stands_until_the_start_is_settled() -> None:
    """What is due at the start must be done before time moves."""
    wall = Wall()
    clock = PacedClock(START_MS, START_MS + 10 * MINUTE_MS, 60, monotonic=wall)
    assert clock.now_ms() == START_MS
    wall.now_s += 0.5
    assert clock.now_ms() == START_MS
    clock.settled(START_MS + MINUTE_MS)
    assert clock.now_ms() == START_MS + 30_000


def test_paced_waits_for_the_engine_and_makes_up_for_it() -> None:
    """At an unsettled instant the market stands; then it is where elapsed x speed says."""
    wall = Wall()
    clock = PacedClock(START_MS, START_MS + 20 * MINUTE_MS, 60, monotonic=wall)
    clock.settled(START_MS + MINUTE_MS)
    assert clock.wait_s(START_MS + MINUTE_MS) == 1.0
    assert clock.wait_s(START_MS + 2 * MINUTE_MS) == float("inf")
    wall.now_s += 7
    assert clock.now_ms() == START_MS + MINUTE_MS
    clock.settled(START_MS + 2 * MINUTE_MS)
    assert clock.now_ms() == START_MS + 2 * MINUTE_MS
    clock.settled(START_MS + 10 * MINUTE_MS)
    assert clock.now_ms() == START_MS + 7 * MINUTE_MS
    assert clock.wait_s(START_MS + 8 * MINUTE_MS) == 1.0
    wall.now_s += 0.25
    assert clock.now_ms() == START_MS + 7 * MINUTE_MS + 15_000


def test_paced_takes_an_earlier_due_instant() -> None:
    """Work that becomes due sooner than announced holds the market there."""
    wall = Wall()
    clock = PacedClock(START_MS, START_MS + 10 * MINUTE_MS, 60, monotonic=wall)
    clock.settled(START_MS + 5 * MINUTE_MS)
    wall.now_s += 1
    clock.settled(START_MS + 2 * MINUTE_MS)
    wall.now_s += 60
    assert clock.now_ms() == START_MS + 2 * MINUTE_MS


def test_paced_stands_still_at_the_end() -> None:
    """Beyond the data there is no time, and the run does not end by itself."""
    wall = Wall()
    end_ms = START_MS + 90_000
    clock = PacedClock(START_MS, end_ms, 60, monotonic=wall)
    clock.settled(START_MS + 10 * MINUTE_MS)
    wall.now_s += 1000
    assert clock.now_ms() == end_ms
    clock.settled(START_MS + 20 * MINUTE_MS)
    wall.now_s += 1000
    assert clock.now_ms() == end_ms
    assert clock.wait_s(end_ms + 1) == float("inf")
    assert not clock.finished


@settings(deadline=None, max_examples=100)
@given(
    steps=st.lists(
        st.tuples(st.floats(0, 30), st.integers(-2, 5), st.booleans()), min_size=1, max_size=30
    ),
    speed=st.sampled_from([0.5, 1.0, 60.0, 1800.0]),
)
def test_paced_never_goes_backwards_nor_past_what_is_due(
    steps: list[tuple[float, int, bool]], speed: float
) -> None:
    """Whatever the wall and the engine do: monotonic, and at most the last announced instant."""
    wall = Wall()
    end_ms = START_MS + 20 * MINUTE_MS
    clock = PacedClock(START_MS, end_ms, speed, monotonic=wall)
    last_ms, due_ms, run_s = START_MS, START_MS, 0.0
    for elapsed_s, n_minutes, settles in steps:
        wall.now_s += elapsed_s
        run_s += elapsed_s
        now_ms = clock.now_ms()
        assert last_ms <= now_ms <= min(max(due_ms, last_ms), end_ms)
        assert now_ms - START_MS <= run_s * 1000 * speed + 1
        last_ms = now_ms
        if settles:
            due_ms = now_ms + n_minutes * MINUTE_MS
            clock.settled(due_ms)


def test_stepped_jumps_and_ends() -> None:
    """Each settled instant is followed by the next one due; beyond the end the run is over."""
    clock = SteppedClock(START_MS, START_MS + 2 * MINUTE_MS)
    assert (clock.now_ms(), clock.speed, clock.finished) == (START_MS, 0.0, False)
    clock.settled(START_MS + MINUTE_MS)
    assert clock.now_ms() == START_MS + MINUTE_MS
    clock.settled(START_MS)
    assert clock.now_ms() == START_MS + MINUTE_MS
    clock.settled(START_MS + 2 * MINUTE_MS)
    assert (clock.now_ms(), clock.finished) == (START_MS + 2 * MINUTE_MS, False)
    assert clock.wait_s(START_MS + 3 * MINUTE_MS) == float("inf")
    clock.settled(START_MS + 3 * MINUTE_MS)
    assert (clock.now_ms(), clock.finished) == (START_MS + 2 * MINUTE_MS, True)


def test_clocks_serve_many_threads() -> None:
    """Threads that look while the engine settles see time only move forward."""
    clocks: list[Clock] = [
        SteppedClock(0, 10**9),
        PacedClock(0, 10**9, 10**6),
        LiveClock(lambda: START_MS, reread_s=0),
    ]
    for clock in clocks:
        seen: list[list[int]] = [[] for _ in range(4)]

        def look(clock: Clock, into: list[int]) -> None:
            into.extend(clock.now_ms() for _ in range(500))

        threads = [threading.Thread(target=look, args=(clock, into)) for into in seen]
        for thread in threads:
            thread.start()
        for minute in range(1, 200):
            clock.settled(minute * MINUTE_MS)
        for thread in threads:
            thread.join()
        assert all(len(times) == 500 and times == sorted(times) for times in seen)
