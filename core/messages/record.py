"""A record in few words: what was earned, how often it won beside the coin flip, how sure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.messages.phone import in_r, percent, percent_range, r_range, wrapped
from core.streaks import longest_usual, p_run

_FEW = 30.0  # effective trades; a record of fewer proves nothing either way


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Closed trades of one book; rates and means are of those that have matured, `n` of them.

    `total_r` is of every closed trade, `run` how many losses stand at their end. `promised_r` is
    the mean EV told of the matured ones, where every one was scored. NaN where there is nothing
    to say.
    """

    title: str
    n_closed: int
    total_r: float
    n: int
    n_eff: float
    win_rate: float
    win_rate_lo: float
    win_rate_hi: float
    p_mart: float
    mean_r: float
    mean_r_lo: float
    mean_r_hi: float
    promised_r: float = math.nan
    run: int = 0


def record_lines(record: Record) -> list[str]:
    """Return a record; a win-rate never stands without its interval and the coin flip's."""
    if not record.n_closed:
        return [f"<b>{record.title}</b>: no trade closed yet"]
    lines = [f"<b>{record.title}</b>: {record.n_closed} closed, {in_r(record.total_r)}"]
    if not record.n:
        return [*lines, "too young to judge"]
    rate = percent(record.win_rate) + percent_range(record.win_rate_lo, record.win_rate_hi)
    mean = in_r(record.mean_r) + r_range(record.mean_r_lo, record.mean_r_hi)
    return [
        *lines,
        f"won {rate}, coin flip {percent(record.p_mart)}",
        f"a trade {mean}",
        f"n {record.n} (n_eff {record.n_eff:.0f})",
    ]


def promise_lines(record: Record) -> list[str]:
    """Return whether what was promised came, as far as the interval allows to say."""
    if not record.n or not math.isfinite(record.promised_r):
        return []
    lines = [f"promised {in_r(record.promised_r)} a trade:"]
    if not math.isfinite(record.mean_r_lo) or record.n_eff < _FEW:
        return [*lines, "too few to say whether it was kept"]
    if record.mean_r_hi < record.promised_r:
        return [*lines, "the promise was NOT kept"]
    if record.mean_r_lo >= record.promised_r:
        return [*lines, "more came than was promised"]
    return [*lines, "that agrees with the promise"]


def streak_lines(record: Record) -> list[str]:
    """Return a losing streak in proportion, or nothing while it is within its 90 % band."""
    rate = record.win_rate if math.isfinite(record.win_rate) else record.p_mart
    if not record.run or not math.isfinite(rate):
        return []
    usual = longest_usual(record.n_closed, win_rate=rate)
    if record.run <= usual:
        return []
    chance = p_run(record.n_closed, record.run, win_rate=rate)
    said = "under 1 %" if chance < 0.01 else f"{100 * chance:.0f} %"
    return wrapped(
        f"{record.run} losses in a row. With {percent(rate)} wins, 9 of 10 records of"
        f" {record.n_closed} trades hold no run longer than {usual}; {said} hold one like this."
        " No reason to stake more."
    )
