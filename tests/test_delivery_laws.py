"""The laws of the delivery pass: causal, the same live and at once, and within every brake."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from core.delivery import SENT, WINDOW_MS, Decision
from core.domain import Delivery, Evidence, Gate, Side
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from tests.test_delivery import T0, TIGHT, decision, paper, run


def world(seed: int, *, n: int = 150, days: int = 45, step_ms: int = HOUR_MS) -> list[Decision]:
    """Random decisions in which instants, merits and exits often coincide."""
    chance = random.Random(seed)
    rows = []
    for i in range(n):
        at_ms = chance.randrange(days * DAY_MS // step_ms) * step_ms
        filled = chance.random() < 0.7
        r = chance.choice([-1.0, -1.0, 0.4, 1.6]) if filled else None
        scored = chance.random() < 0.8
        symbol = chance.choice(["BTC", "ETH", "SOL", "LUNA"])
        side = chance.choice(list(Side))
        rows.append(
            decision(
                at_ms,
                symbol,
                side,
                identity=("x", symbol, "15m", "limit", side.direction, 0, i),
                evidence=chance.choice([*Evidence, Evidence.UNCERTIFIED]),
                gate=Gate.REJECT if chance.random() < 0.2 else Gate.PASS,
                ev_lo_pct=chance.choice([-0.2, 0.0, 0.1, 0.3]) if scored else None,
                ev_pct=chance.choice([0.1, 0.4]) if scored and chance.random() < 0.5 else None,
                cost_r=chance.choice([0.02, 0.05]),
                late=chance.random() < 0.1,
                closed_ms=at_ms + chance.randint(1, 48) * step_ms,
                r_multiple=r,
                stopped=r == -1.0,
            )
        )
    return rows


MODES = st.sampled_from(["certified", "paper", "all"])


@given(seed=st.integers(0, 10_000), send=MODES, cut=st.integers(1, 45 * 24))
@settings(max_examples=40, deadline=None)
def test_later_decisions_and_exits_change_nothing_before_them(
    seed: int, send: str, cut: int
) -> None:
    """Prefix law: up to an instant, only decisions by it and exits before it count."""
    now_ms = T0 + cut * HOUR_MS
    rows = sorted(world(seed), key=lambda row: row.order)
    known = [
        replace(row, closed_ts_ms=None, r_multiple=None, stopped=False)
        if row.closed_ts_ms is not None and row.closed_ts_ms >= now_ms
        else row
        for row in rows
        if row.decided_ms <= now_ms
    ]
    assert run(known, TIGHT, send) == run(rows, TIGHT, send)[: len(known)]


@given(seed=st.integers(0, 10_000), send=MODES, hours=st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_deciding_step_by_step_equals_one_pass(seed: int, send: str, hours: int) -> None:
    """Live law: new rows, decided with only the past that `deliver` asks for, come out the same.

    Under the same pauses, the last of which lasts.
    """
    rows = sorted(world(seed), key=lambda row: row.order)
    ends = sorted(random.Random(seed).sample(range(45 * 24), 3))
    pauses = [(T0 + ends[0] * HOUR_MS, T0 + ends[1] * HOUR_MS), (T0 + ends[2] * HOUR_MS, None)]
    whole = run(rows, TIGHT, send, pauses=pauses)
    done: list[Decision] = []
    while len(done) < len(rows):
        start_ms = rows[len(done)].decided_ms
        stop_ms = start_ms + hours * HOUR_MS
        new = [row for row in rows[len(done) :] if row.decided_ms < stop_ms]
        past = [
            row for row in done if row.decided_ms >= start_ms - WINDOW_MS or row.delivery in SENT
        ]
        result = run(past + new, TIGHT, send, pauses=pauses)[len(past) :]
        done += [
            replace(row, delivery=delivery, delivery_reason=reason)
            for row, (delivery, reason) in zip(new, result, strict=True)
        ]
    assert [(row.delivery, row.delivery_reason) for row in done] == whole


@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_input_does_not_matter(seed: int, order: random.Random) -> None:
    """Permutation law: answers stay with their rows."""
    rows = world(seed)
    places = list(range(len(rows)))
    order.shuffle(places)
    answers = run(rows, TIGHT)
    assert run([rows[i] for i in places], TIGHT) == [answers[i] for i in places]


@given(seed=st.integers(0, 10_000), send=MODES)
@settings(max_examples=25, deadline=None)
def test_what_is_sent_obeys_every_brake(seed: int, send: str) -> None:
    """Checked row by row against the definitions, by quadratic counting."""
    rows = sorted(world(seed), key=lambda row: row.order)
    answers = run(rows, TIGHT, send)
    sent = [row for row, (delivery, _) in zip(rows, answers, strict=True) if delivery in SENT]
    assert sent
    for i, row in enumerate(sent):
        before = sent[:i]
        open_now = [b for b in before if b.closed_ts_ms is None or b.closed_ts_ms >= row.decided_ms]
        exits = sorted(
            (b.closed_ts_ms, j, b)
            for j, b in enumerate(before)
            if b.r_multiple is not None and b.closed_ts_ms and b.closed_ts_ms < row.decided_ms
        )
        levels = [0.0]
        for closed_ms, _, b in exits:
            if closed_ms >= row.decided_ms - WINDOW_MS and b.r_multiple is not None:
                levels.append(levels[-1] + b.r_multiple)
        assert row.gate is Gate.PASS
        assert not row.late
        assert row.symbol != "LUNA"
        assert all(
            row.decided_ms - b.decided_ms >= 90 * MINUTE_MS
            for b in before
            if b.symbol == row.symbol
        )
        assert len(open_now) < 3
        assert sum(b.side is row.side for b in open_now) < 2
        assert all((b.decided_ms, b.side) != (row.decided_ms, row.side) for b in before)
        assert max(levels) - levels[-1] < 3.0 - 1e-6
        streak = len(exits) >= 2 and all(b.stopped for _, _, b in exits[-2:])
        assert not streak or row.decided_ms - exits[-1][0] >= 6 * HOUR_MS


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_paper_rows_are_few_and_not_expected_to_lose(seed: int) -> None:
    """PAPER never exceeds twice `paper_per_day` on a UTC day, and its EV is never negative."""
    rows = world(seed, n=400, days=4, step_ms=5 * MINUTE_MS)
    answers = run(rows)
    papers = [row for row, (d, _) in zip(rows, answers, strict=True) if d is Delivery.PAPER]
    assert papers
    days = [row.decided_ms // DAY_MS for row in papers]
    assert max(days.count(day) for day in set(days)) <= 6
    for row in papers:
        ev = row.ev_pct if row.ev_pct is not None else row.ev_lo_pct
        assert row.ev_lo_pct is None or (ev is not None and ev >= 0)
        assert not row.is_certified


def test_the_quantile_yields_about_paper_per_day() -> None:
    """With 50 like candidates a day, days 30 to 90 bring three PAPER a day, give or take."""
    chance = random.Random(7)
    rows = [
        paper(i * DAY_MS // 50, ev_lo_pct=chance.random(), closed_ms=i * DAY_MS // 50 + 1)
        for i in range(50 * 90)
    ]
    answers = run(rows)[50 * 30 :]
    per_day = sum(d is Delivery.PAPER for d, _ in answers) / 60
    assert 2.5 < per_day < 3.5  # binomial: 180 +- 13 in 60 days
