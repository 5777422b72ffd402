"""What is due: a pure function of the market's time, the last-done marks and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from core.config import Config, WeeklyJob
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, floor_ms

PIPELINE = ("incremental_sync", "resample", "scan_signals", "execute_signals")
WEEKLY = ("auto_train", "auto_calibrate", "auto_tune", "auto_summary")
DIGEST = "daily_digest"
STATS = "market_stats"
MONITOR = "monitor"
_STATS_MINUTES = (*range(11), 15, 30, 45)  # quarters, and while a settlement may be published late
_MONITOR_MS = 5 * MINUTE_MS  # after midnight UTC: what the day's last minutes ended is stored
_LATE_MINUTES = 2  # a look this late is no miss: a slow minute before it is enough
_MONDAY_MS = 4 * DAY_MS  # 1970-01-05, the first Monday of the epoch
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Due(NamedTuple):
    """One piece of work and the market instant it is due for."""

    due_ms: int
    job: str


def _weekly(config: Config) -> dict[str, WeeklyJob]:
    auto = config.auto
    return dict(zip(WEEKLY, (auto.train, auto.calibrate, auto.tune, auto.summary), strict=True))


def last_weekly_ms(job: WeeklyJob, now_ms: int) -> int:
    """Return the newest instant at or before now at which a weekly job was to run, UTC.

    >>> last_weekly_ms(WeeklyJob(weekday="mon", hour=3), 345_600_000 + 3 * HOUR_MS) == 356_400_000
    True
    """
    offset = _MONDAY_MS + _DAYS.index(job.weekday) * DAY_MS
    offset += job.hour * HOUR_MS + job.minute * MINUTE_MS
    return floor_ms(now_ms - offset, 7 * DAY_MS) + offset


def last_digest_ms(hour: int, zone: str, now_ms: int) -> int:
    """Return the newest instant at or before now at which it was `hour` o'clock in a zone.

    Of an hour that comes twice the first counts; one that is skipped begins where it would have.
    """
    there = ZoneInfo(zone)
    today = datetime.fromtimestamp(now_ms / 1000, there).date()
    for back in range(4):
        day = today - timedelta(days=back)
        instant = int(datetime.combine(day, time(hour), there).timestamp() * 1000)
        if instant <= now_ms:
            return instant
    raise AssertionError("a day has no such hour")  # a zone skips at most one occurrence


def next_stats_ms(after_ms: int) -> int:
    """Return the next instant at which funding, open interest and records are looked at.

    >>> [next_stats_ms(minute * MINUTE_MS) // MINUTE_MS for minute in (3, 10, 44, 45)]
    [4, 15, 45, 60]
    """
    hour, within = floor_ms(after_ms, HOUR_MS), after_ms % HOUR_MS
    later = [minute * MINUTE_MS for minute in _STATS_MINUTES if minute * MINUTE_MS > within]
    return hour + min(later, default=HOUR_MS)


def next_monitor_ms(after_ms: int) -> int:
    """Return the next instant at which the champion's record is looked at: 00:05 UTC of each day.

    >>> [next_monitor_ms(minute * MINUTE_MS) // MINUTE_MS for minute in (4, 5, 1445)]
    [5, 1445, 2885]
    """
    return floor_ms(after_ms - _MONITOR_MS, DAY_MS) + DAY_MS + _MONITOR_MS


def first_marks(now_ms: int, marks: Mapping[str, int]) -> dict[str, int]:
    """Return the marks that a first start sets: nothing that lies before it is due."""
    minute = floor_ms(now_ms, MINUTE_MS)
    wanted = dict.fromkeys((*PIPELINE, STATS), minute - MINUTE_MS)
    wanted.update(dict.fromkeys((*WEEKLY, DIGEST, MONITOR), now_ms))
    return {job: mark for job, mark in wanted.items() if job not in marks}


class Miss(NamedTuple):
    """Work for which nobody looked at its time; `n` times of a job, the first at `due_ms`."""

    due_ms: int
    job: str
    n: int
    detail: str


def missed(now_ms: int, marks: Mapping[str, int], config: Config) -> list[Miss]:
    """Return what lies so far back that it was not looked at in time, if nobody tried it.

    Minutes of the pipeline are done late, each of them; a weekly job is done once for its newest
    instant only.
    """
    minute, found = floor_ms(now_ms, MINUTE_MS), []
    behind = (minute - marks.get(PIPELINE[0], minute)) // MINUTE_MS
    if behind > _LATE_MINUTES:
        first_ms = marks[PIPELINE[0]] + MINUTE_MS
        found.append(Miss(first_ms, PIPELINE[0], behind - 1, f"{behind - 1} minutes, done late"))
    for job, weekly in _weekly(config).items():
        newest_ms = last_weekly_ms(weekly, now_ms)
        n = -(-(newest_ms - marks.get(job, newest_ms)) // (7 * DAY_MS)) - 1
        if weekly.enabled and n > 0:
            first_ms = newest_ms - n * 7 * DAY_MS
            found.append(Miss(first_ms, job, n, f"{n} weeks, left out"))
    return found


def next_due(now_ms: int, marks: Mapping[str, int], config: Config) -> Due | None:
    """Return the earliest work that is due by now and not done, or None.

    Minutes of the pipeline come one by one, in the order of the stages, and so do the days of the
    monitor; weekly work that was missed several times is due once, for its newest instant. Work
    for the same instant: the pipeline first.
    """
    minute = floor_ms(now_ms, MINUTE_MS)
    stages = [(marks.get(job, minute - MINUTE_MS) + MINUTE_MS, i) for i, job in enumerate(PIPELINE)]
    due_ms, stage = min(stages)
    candidates = [(due_ms, stage, PIPELINE[stage])] if due_ms <= minute else []
    stats = next_stats_ms(marks.get(STATS, minute))
    if stats <= minute:
        candidates.append((stats, len(PIPELINE), STATS))
    monitored = next_monitor_ms(marks.get(MONITOR, minute))
    if monitored <= minute:
        candidates.append((monitored, len(PIPELINE) + 1, MONITOR))
    for job, weekly in _weekly(config).items():
        instant = last_weekly_ms(weekly, now_ms)
        if weekly.enabled and instant > marks.get(job, now_ms):
            candidates.append((instant, 10 + WEEKLY.index(job), job))
    digest = last_digest_ms(config.notify.digest_hour, config.app.timezone, now_ms)
    if digest > marks.get(DIGEST, now_ms):
        candidates.append((digest, 9, DIGEST))
    if not candidates:
        return None
    instant, _, job = min(candidates)
    return Due(instant, job)


def next_instant_ms(now_ms: int) -> int:
    """Return the next instant at which anything can be due: all cadences lie on whole minutes."""
    return floor_ms(now_ms, MINUTE_MS) + MINUTE_MS
