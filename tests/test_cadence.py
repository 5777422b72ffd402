"""Laws of what is due: nothing twice, nothing out of order, whatever instants we looked at."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.cadence import (
    DIGEST,
    MONITOR,
    PIPELINE,
    STATS,
    WEEKLY,
    Due,
    first_marks,
    last_digest_ms,
    last_weekly_ms,
    next_due,
    next_instant_ms,
    next_stats_ms,
)
from core.config import Config, WeeklyJob, config_from
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

SUNDAY_MS = 1_711_839_600_000  # 2024-03-30 23:00 UTC: midnight in Berlin, the day of 23 hours
WEEK_MS = 7 * DAY_MS
BERLIN = "Europe/Berlin"
ZONES = (
    "UTC",
    BERLIN,
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/Santiago",  # skips midnight
)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
few = settings(deadline=None, max_examples=60)


def utc_ms(text: str) -> int:
    """An instant written as 2024-03-31T01:00, UTC ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def quiet(**notify: object) -> Config:
    """Settings without weekly work."""
    off = {"enabled": False}
    return config_from(
        {"auto": {"train": off, "calibrate": off, "tune": off, "summary": off}, "notify": notify}
    )


def run(ticks: list[int], marks: dict[str, int], config: Config, stop_after: int = 0) -> list[Due]:
    """What a loop does that looks at these instants; it may be cut off after some pieces."""
    done: list[Due] = []
    for now_ms in ticks:
        marks |= first_marks(now_ms, marks)
        while (due := next_due(now_ms, marks, config)) is not None:
            assert due.due_ms <= now_ms
            done.append(due)
            marks[due.job] = due.due_ms
            if stop_after and len(done) >= stop_after:
                return done
    return done


def ticks_from(start_ms: int, steps: list[int]) -> list[int]:
    """Instants that start at one and go on by steps."""
    ticks = [start_ms]
    for step in steps:
        ticks.append(ticks[-1] + step)
    return ticks


def test_a_first_start_owes_nothing_but_the_minute_that_just_closed() -> None:
    """At 12:34:56 the pipeline runs once, for 12:34; neither digest nor weekly work is due."""
    now_ms = utc_ms("2024-05-01T12:34") + 56_000
    marks: dict[str, int] = {}
    done = run([now_ms], marks, Config())
    assert done == [Due(utc_ms("2024-05-01T12:34"), job) for job in PIPELINE]
    assert set(marks) == {*PIPELINE, *WEEKLY, STATS, DIGEST, MONITOR}
    assert first_marks(now_ms + DAY_MS, marks) == {}


def test_a_job_that_is_new_owes_nothing_of_the_past() -> None:
    """Marks of other jobs stay; the new one starts now."""
    marks = dict.fromkeys(PIPELINE, utc_ms("2024-05-01T12:00"))
    added = first_marks(utc_ms("2024-05-10T00:00"), marks)
    assert set(added) == {*WEEKLY, STATS, DIGEST, MONITOR}
    assert all(utc_ms("2024-05-10T00:00") - ms <= MINUTE_MS for ms in added.values())


@few
@given(
    start=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS),
    steps=st.lists(st.integers(1, 7 * MINUTE_MS), min_size=1, max_size=12),
)
def test_each_minute_is_done_once_and_in_order_by_every_stage(start: int, steps: list[int]) -> None:
    """Whatever the instants of the looks: consecutive minutes, each with its stages in order."""
    ticks = ticks_from(start, steps)
    done = run(ticks, {}, quiet())
    done = [due for due in done if due.job in PIPELINE]
    first, last = start - start % MINUTE_MS, ticks[-1] - ticks[-1] % MINUTE_MS
    wanted = [Due(m, job) for m in range(first, last + 1, MINUTE_MS) for job in PIPELINE]
    assert done == wanted


@few
@given(
    start=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS),
    steps=st.lists(st.integers(1, 5 * MINUTE_MS), min_size=1, max_size=20),
    kept=st.lists(st.booleans(), min_size=20, max_size=20),
    zone=st.sampled_from(ZONES),
)
def test_the_result_does_not_depend_on_when_ticks_fell(
    start: int, steps: list[int], kept: list[bool], zone: str
) -> None:
    """Leaving out looks between the first and the last changes nothing, weekly work included."""
    hour = (start // HOUR_MS + 3) % 24
    work = {"weekday": DAYS[(start // DAY_MS + 3) % 7], "hour": start // HOUR_MS % 24}
    config = config_from(
        {
            "app": {"timezone": zone},
            "notify": {"digest_hour": hour},
            "auto": {"train": work | {"minute": 20}, "tune": work | {"minute": 40}},
        }
    )
    ticks = ticks_from(start, steps)
    fewer = [t for t, keep in zip(ticks[1:-1], kept, strict=False) if keep]
    assert run(ticks, {}, config) == run([start, *fewer, ticks[-1]], {}, config)


@few
@given(
    start=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS),
    length=st.integers(0, 3 * HOUR_MS),
    more=st.integers(0, 3 * HOUR_MS),
)
def test_what_is_done_by_an_instant_is_the_beginning_of_what_is_done_later(
    start: int, length: int, more: int
) -> None:
    """`run` to an instant is a prefix of `run` to any later one."""
    config = Config()
    short = run([start, start + length], {}, config)
    assert run([start, start + length + more], {}, config)[: len(short)] == short


@few
@given(
    start=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS),
    length=st.integers(1, 2 * HOUR_MS),
    cut=st.integers(1, 400),
)
def test_a_stop_after_any_piece_loses_and_repeats_nothing(
    start: int, length: int, cut: int
) -> None:
    """Cut off after some piece and started again with the stored marks: the same work in all."""
    config, ticks = Config(), [start, start + length]
    marks: dict[str, int] = {}
    first = run(ticks, marks, config, stop_after=cut)
    rest = run([start + length], marks, config)
    assert first + rest == run(ticks, {}, config)


@few
@given(
    now=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS),
    back=st.dictionaries(
        st.sampled_from((*PIPELINE, *WEEKLY, DIGEST, MONITOR)), st.integers(0, 3 * WEEK_MS)
    ),
)
def test_equal_arguments_give_equal_answers_and_are_left_alone(
    now: int, back: dict[str, int]
) -> None:
    """A pure function: no argument is changed, and a repeat says the same."""
    marks = {job: now - ago for job, ago in back.items()}
    before = dict(marks)
    assert next_due(now, marks, Config()) == next_due(now, dict(reversed(marks.items())), Config())
    assert marks == before


def test_weekly_work_missed_many_times_is_due_once_for_its_newest_instant() -> None:
    """Five weeks off: one training, for the last Sunday 03:00 before now, and one summary."""
    now_ms = utc_ms("2024-05-01T12:00")
    marks = first_marks(now_ms, {}) | dict.fromkeys(WEEKLY, now_ms - 5 * WEEK_MS)
    done = [due for due in run([now_ms], marks, Config()) if due.job in WEEKLY]
    assert done == [
        Due(utc_ms("2024-04-28T03:00"), "auto_train"),
        Due(utc_ms("2024-04-28T03:30"), "auto_calibrate"),
        Due(utc_ms("2024-04-28T04:00"), "auto_tune"),
        Due(utc_ms("2024-04-29T08:00"), "auto_summary"),
    ]


def test_weekly_work_that_is_off_is_never_due() -> None:
    """However long it was not done."""
    now_ms = utc_ms("2024-05-01T12:00")
    marks = dict.fromkeys((*WEEKLY, *PIPELINE, DIGEST), now_ms)
    assert next_due(now_ms, marks | dict.fromkeys(WEEKLY, 0), quiet()) is None
    assert next_due(now_ms, marks | dict.fromkeys(WEEKLY, 0), Config()) is not None


@few
@given(
    now=st.integers(SUNDAY_MS, SUNDAY_MS + 60 * WEEK_MS),
    weekday=st.sampled_from(DAYS),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
)
def test_the_weekly_instant_is_the_newest_of_its_weekday_and_time(
    now: int, weekday: str, hour: int, minute: int
) -> None:
    """Not after now, less than a week old, and what a calendar says of it."""
    job = WeeklyJob.model_validate({"weekday": weekday, "hour": hour, "minute": minute})
    instant = last_weekly_ms(job, now)
    assert 0 <= now - instant < WEEK_MS
    there = datetime.fromtimestamp(instant / 1000, UTC)
    assert DAYS[there.weekday()] == weekday
    assert (there.hour, there.minute, there.second) == (hour, minute, 0)


def test_work_of_one_instant_is_the_pipeline_then_what_may_wait_for_it() -> None:
    """Sunday 03:00 with the digest at 3: the minute's candles are there before anything speaks."""
    at_ms = utc_ms("2024-05-05T03:00")
    config = config_from({"notify": {"digest_hour": 3}})
    marks = dict.fromkeys((*PIPELINE, *WEEKLY, STATS, DIGEST), at_ms - MINUTE_MS)
    done = run([at_ms + 5_000], marks, config)
    assert [due.job for due in done] == [*PIPELINE, STATS, DIGEST, "auto_train"]
    assert {due.due_ms for due in done} == {at_ms}


@pytest.mark.parametrize(
    ("day", "utc"),
    [
        ("2024-03-30", "2024-03-30T07:00"),
        ("2024-03-31", "2024-03-31T06:00"),
        ("2024-10-26", "2024-10-26T06:00"),
        ("2024-10-27", "2024-10-27T07:00"),
    ],
)
def test_the_digest_comes_at_eight_in_winter_and_in_summer(day: str, utc: str) -> None:
    """Berlin: 07:00 UTC in winter, 06:00 in summer, also on the days of the change."""
    for later_ms in (0, 1, 5 * HOUR_MS):
        assert last_digest_ms(8, BERLIN, utc_ms(utc) + later_ms) == utc_ms(utc)
    assert last_digest_ms(8, BERLIN, utc_ms(utc) - 1) < utc_ms(utc)
    local = datetime.fromtimestamp(utc_ms(utc) / 1000, ZoneInfo(BERLIN))
    assert f"{local:%Y-%m-%d %H:%M}" == f"{day} 08:00"


@few
@given(zone=st.sampled_from(ZONES), hour=st.integers(0, 23), step=st.integers(1, 400))
def test_a_year_of_digests_has_one_for_each_day(zone: str, hour: int, step: int) -> None:
    """Looked at every few minutes or once in hours: a later look never names an older instant.

    One instant for each local date, though one hour a year is missing and one comes twice.
    """
    start, end = utc_ms("2024-01-10T00:00"), utc_ms("2025-01-10T00:00")
    ticks = range(start, end, step * 7 * MINUTE_MS)
    assume(len(ticks) < 5000)
    instants = [last_digest_ms(hour, zone, now_ms) for now_ms in ticks]
    assert instants == sorted(instants)
    assert all(0 <= t - i <= 26 * HOUR_MS for t, i in zip(ticks, instants, strict=True))
    there = ZoneInfo(zone)
    days = [datetime.fromtimestamp(i / 1000, there).date() for i in sorted(set(instants))]
    assert len(days) == len(set(days))
    if step * 7 < 22 * 60:
        assert days == [days[0] + timedelta(days=n) for n in range(len(days))]
        assert days[-1] >= date(2025, 1, 8)


def test_an_hour_that_comes_twice_brings_one_digest() -> None:
    """02:00 in Berlin on 2024-10-27 is 00:00 and 01:00 UTC: the first counts, whenever we look."""
    first_ms = utc_ms("2024-10-27T00:00")
    for minutes in range(0, 24 * 60, 7):
        assert last_digest_ms(2, BERLIN, first_ms + minutes * MINUTE_MS) == first_ms


def test_after_the_short_day_the_newest_digest_is_still_its_own() -> None:
    """At 00:30 on the day after, the digest of 2024-03-31 01:00 Berlin is the newest one."""
    wanted = utc_ms("2024-03-31T00:00")
    assert last_digest_ms(1, BERLIN, utc_ms("2024-03-31T22:30")) == wanted


def test_digests_missed_for_days_are_due_once() -> None:
    """Off since the 1st: on the 9th one digest is due, for that morning."""
    config = quiet(digest_hour=8)
    now_ms = utc_ms("2024-06-09T12:00")
    marks = dict.fromkeys(PIPELINE, now_ms) | {DIGEST: utc_ms("2024-06-01T08:00")}
    done = [due for due in run([now_ms], marks, config) if due.job != STATS]
    assert done == [Due(utc_ms("2024-06-09T08:00"), DIGEST)]


@few
@given(now=st.integers(0, SUNDAY_MS))
def test_the_next_instant_is_the_next_whole_minute(now: int) -> None:
    """Later than now, by a minute at most."""
    instant = next_instant_ms(now)
    assert instant % MINUTE_MS == 0
    assert 0 < instant - now <= MINUTE_MS


@few
@given(
    start=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS),
    zone=st.sampled_from(ZONES),
    seconds=st.lists(st.integers(0, 59), min_size=1, max_size=3),
)
def test_nothing_becomes_due_between_two_whole_minutes(
    start: int, zone: str, seconds: list[int]
) -> None:
    """Once all is done, no look before `next_instant_ms` finds work: a replay may jump there."""
    config = config_from({"app": {"timezone": zone}})
    marks: dict[str, int] = {}
    run([start], marks, config)
    for second in seconds:
        later = min(start + second * 1000, next_instant_ms(start) - 1)
        assert next_due(later, marks, config) is None


@few
@given(
    start=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS),
    length=st.integers(0, 5 * HOUR_MS),
)
def test_funding_is_looked_at_while_a_settlement_may_be_late_else_by_the_quarter(
    start: int, length: int
) -> None:
    """Of each hour the minutes 0 to 10, 15, 30 and 45, each once; never before its own minute."""
    done = [d.due_ms for d in run([start, start + length], {}, quiet()) if d.job == STATS]
    first, last = start - start % MINUTE_MS, (start + length) // MINUTE_MS * MINUTE_MS
    minutes = range(first, last + 1, MINUTE_MS)
    wanted = {*range(11), 15, 30, 45}
    assert done == [m for m in minutes if m % HOUR_MS // MINUTE_MS in wanted]


@few
@given(
    start=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS),
    days=st.integers(0, 9),
    ticks=st.integers(1, 4),
)
def test_the_champion_is_looked_at_on_every_day_also_on_those_missed(
    start: int, days: int, ticks: int
) -> None:
    """At 00:05 UTC, each day once and in order, after the minute's pipeline: as if never away."""
    looks = [start + days * DAY_MS * i // ticks for i in range(ticks + 1)]
    marks = first_marks(start, {}) | dict.fromkeys((*PIPELINE, STATS), looks[-1])
    done = [due.due_ms for due in run(looks, marks, quiet()) if due.job == MONITOR]
    wanted = [
        day + 5 * MINUTE_MS
        for day in range(start - start % DAY_MS, looks[-1] + 1, DAY_MS)
        if start < day + 5 * MINUTE_MS <= looks[-1]
    ]
    assert done == wanted


def test_the_look_at_the_champion_waits_for_its_minute() -> None:
    """00:05: the minute's candles, exits and funding are there before."""
    at_ms = utc_ms("2024-05-05T00:05")
    marks = dict.fromkeys((*PIPELINE, STATS, MONITOR), at_ms - MINUTE_MS)
    done = run([at_ms + 5_000], marks, quiet())
    assert [due.job for due in done] == [*PIPELINE, STATS, MONITOR]


@few
@given(at=st.integers(SUNDAY_MS, SUNDAY_MS + WEEK_MS))
def test_the_next_look_is_later_than_the_last(at: int) -> None:
    """By a quarter of an hour at most."""
    assert 0 < next_stats_ms(at) - at <= 15 * MINUTE_MS
