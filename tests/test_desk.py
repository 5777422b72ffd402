"""What the first screen says of open signals: bars, acts and standings, worked by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import equity, views
from core.domain import Series
from core.store import open_database
from core.store.candles import upsert_candles
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS
from core.views.account import positions
from core.views.chart import spread
from core.views.desk import act_text, call, r_now
from core.views.gauge import gauge, gauge_svg, gauge_text, price_r
from core.views.plan import chance_text, kind_text, stake_text
from tests.tiny_database import T0, add, flat_bars, tiny

RULES = {"tp1_fraction": 0.5, "be_on_tp1": True, "max_hold_candles": 96}
LONG: dict[str, Any] = {
    "id": 7,
    "exchange": "x",
    "symbol": "A/USDT",
    "timeframe": "1h",
    "setup": "limit",
    "direction": "long",
    "entry": 100.0,
    "sl": 90.0,
    "tp1": 115.0,
    "tp2": 130.0,
    "stop_now": 90.0,
    "status": "OPEN",
    "tp1_hit": 0,
    "delivery": "LIVE",
    "gate": "PASS",
    "evidence": "CERTIFIED",
    "opened_ts_ms": T0,
    "valid_until_ms": T0 + 5 * HOUR_MS,
    "exec_state": json.dumps({"opened_price": 100.0, "maker_frac": 0.001}),
}


def mirrored(row: dict[str, Any]) -> dict[str, Any]:
    """The same plan on the other side of its entry."""
    names = ("sl", "tp1", "tp2", "stop_now")
    return row | {"direction": "short"} | {name: 200.0 - row[name] for name in names}


# --- the bar -----------------------------------------------------------------------------------


@pytest.mark.parametrize("price", [80.0, 90.0, 97.0, 100.0, 111.0, 130.0, 150.0])
def test_mirrored_plans_give_the_same_bar(price: float) -> None:
    """Entry 0, stop -1: a short at the mirrored price is the long, also as a picture."""
    one, other = gauge(LONG, price), gauge(mirrored(LONG), 200.0 - price)
    assert one == other
    assert gauge_svg(one) == gauge_svg(other)
    assert gauge_text(one) == gauge_text(other)


def test_a_bar_is_in_multiples_of_the_risk() -> None:
    """With a risk of 10, TP1 15 and TP2 30 away, 105 is half an R."""
    found = gauge(LONG, 105.0)
    assert (found.tp1_r, found.tp2_r, found.stop_now_r, found.now_r) == (1.5, 3.0, -1.0, 0.5)


def test_places_on_the_bar_rise_with_the_price_and_stay_on_it() -> None:
    """From the stop to TP2 strictly rising; far outside at the ends, never beyond."""
    found = gauge(LONG, None)
    places = [found.place(r) for r in np.linspace(-1, 3, 50)]
    assert (np.diff(places) > 0).all()
    assert (found.place(-99), found.place(99)) == (0.0, 1.0)
    assert gauge_text(found).startswith("price unknown")


def test_a_picture_holds_numbers_only() -> None:
    """Nothing of a symbol or a label can get into the markup of a bar."""
    text = gauge_svg(gauge(LONG | {"symbol": "<script>"}, 104.0))
    assert "script" not in text
    widths = [float(value) for value in re.findall(r'<rect[^>]* width="([^"]+)"', text)]
    assert len(widths) == 8
    assert min(widths) >= 0


def test_labels_keep_their_order_and_their_distance() -> None:
    """Each label goes up as little as it must."""
    values = np.random.default_rng(3).uniform(0, 10, 6).tolist()
    places = np.array(spread(values, 0.5))
    order = np.argsort(values)
    assert (np.diff(places[order]) >= 0.5 - 1e-12).all()
    assert (places >= values).all()
    assert spread([1.0, 9.0], 0.5) == [1.0, 9.0]


# --- standings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tp1_hit", [0, 1])
@pytest.mark.parametrize("price", [93.0, 100.0, 121.5])
def test_the_standing_is_that_of_the_marked_equity(
    tmp_path: Path, price: float, tp1_hit: int
) -> None:
    """What a card says an open trade stands at is what the record marks it at."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    state = {"opened_price": 99.0, "maker_frac": 0.001, "funding_frac": 0.0005}
    number = add(
        db,
        strategy,
        1,
        status="OPEN",
        closed_ts_ms=None,
        exit_price=None,
        r_multiple=None,
        gross_r=None,
        tp1_hit=tp1_hit,
        tp1_ts_ms=T0 + DAY_MS + HOUR_MS if tp1_hit else None,
        exec_state=json.dumps(state | {"taker_frac": 0.0, "slippage_frac": 0.0}),
    )
    db.close()
    rows = views.results(path).rows
    at = np.array([T0 + 2 * DAY_MS])
    marked = equity.open_r(positions(rows[rows["opened_ts_ms"] > 0]), at, np.array([price]))
    row = views.signal_detail(path, number)
    assert row is not None
    assert r_now(row, price, tp1_fraction=0.5) == pytest.approx(marked[0])


def test_costs_paid_so_far_are_taken_off() -> None:
    """0.1 % of 100 is 0.1, a hundredth of the risk of 10."""
    assert r_now(LONG, 105.0, tp1_fraction=0.5) == pytest.approx(0.5 - 0.01)


# --- acts --------------------------------------------------------------------------------------


def said(price: float | None = 104.0, **changes: Any) -> str:
    """The act of the long of these tests, with changes."""
    return act_text(LONG | changes, price=price, rules=RULES, live=True)


def test_each_situation_has_its_act() -> None:
    """A resting order, one that is void, a position, and what is left of it after TP1."""
    assert said(status="PENDING") == "keep a buy limit at 100, stop 90; not filled yet."
    assert said(status="PENDING", price=116.0).startswith("cancel the order at 100")
    assert said(status="PENDING", price=89.0).startswith("place nothing new")
    assert said() == "hold with the stop at 90; at TP1 115 close 50%, then stop to entry; TP2 130."
    after = said(tp1_hit=1, stop_now=100.0)
    assert after == "TP1 is taken; keep the stop at 100, the rest leaves at TP2 130."
    short = act_text(mirrored(LONG | {"status": "PENDING"}), price=None, rules=RULES, live=True)
    assert short.startswith("keep a sell limit at 100")


def test_a_paper_trade_is_never_told_as_a_call() -> None:
    """Only what was certified, passed and delivered LIVE is live; all else says paper, size 0."""
    for changes in ({"delivery": "PAPER"}, {"evidence": "UNCERTIFIED"}, {"gate": "REJECT"}):
        found = call(LONG | changes, price=104.0, now_ms=T0, rules=RULES)
        assert not found.is_live
        assert found.act.startswith("On paper: ")
    assert call(LONG, price=104.0, now_ms=T0, rules=RULES).is_live
    plan = {"position_notional": 2380.0, "leverage": 1.0, "risk_pct": 1.0, "liquidation": 1.0}
    assert "Recommended size 0" in stake_text(LONG | plan | {"delivery": "PAPER"})
    assert "Recommended" not in stake_text(LONG | plan)
    assert kind_text(LONG | {"delivery": "PAPER"}) == "PAPER · no proven edge"


def test_a_chance_never_stands_without_the_coin_flip() -> None:
    """With a model or without, with an interval or without one."""
    row = {"p_mart": 0.32, "ml_p": None, "p_lo": None, "p_hi": None}
    texts = [chance_text(row), chance_text(row | {"ml_p": 0.59})]
    texts.append(chance_text(row | {"ml_p": 0.59, "p_lo": 0.51, "p_hi": 0.67}))
    assert all("coin flip 32%" in text for text in texts)
    assert texts[2] == "59% [51% to 67%], coin flip 32%."


def test_time_left_runs_to_the_expiry_and_then_to_the_longest_hold() -> None:
    """A pending order expires; a position is held at most 96 bars of its own timeframe."""
    now = T0 + 2 * HOUR_MS
    pending = call(LONG | {"status": "PENDING"}, price=None, now_ms=now, rules=RULES)
    held = call(LONG, price=None, now_ms=now, rules=RULES)
    assert (pending.left_ms, held.left_ms) == (3 * HOUR_MS, 94 * HOUR_MS)
    assert (pending.r_now, held.r_now) == (None, None)


def test_the_desk_holds_open_signals_that_were_told(tmp_path: Path) -> None:
    """Live first, at the last stored close; what was not delivered, or has ended, is not there."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path, n_days=2)
    still = {"status": "OPEN", "closed_ts_ms": None, "exit_price": None, "r_multiple": None}
    told = {"delivery": "LIVE", "evidence": "CERTIFIED"}
    paper = add(db, strategy, 1.5, **still)
    live = add(db, strategy, 1, **still, **told)
    add(db, strategy, 1.2, **still, delivery="DIGEST")
    add(db, strategy, 1.3, **told)
    bars = flat_bars(T0 + DAY_MS, 5, MINUTE_MS, "1m")
    upsert_candles(db, Series("x", "A/USDT", "1m"), bars)
    db.close()
    found = views.desk(path)
    assert [one.id for one in found.calls] == [live, paper]
    assert [one.price for one in found.calls] == [1.0, 1.0]
    assert found.sentence == "1 live signal is open."


def test_an_idle_desk_says_that_there_is_nothing_to_do(tmp_path: Path) -> None:
    """With a paper trade open there is nothing to do either."""
    path = tmp_path / "market.db"
    open_database(path).close()
    assert views.desk(path).sentence == "Nothing to do."
    db, strategy = tiny(path)
    add(db, strategy, 1, status="OPEN", closed_ts_ms=None)
    db.close()
    assert views.desk(path).sentence == "Nothing to do. 1 paper trade is followed."


def test_the_stop_is_one_risk_away() -> None:
    """By definition, on both sides."""
    assert price_r(LONG, LONG["sl"]) == price_r(mirrored(LONG), mirrored(LONG)["sl"]) == -1.0
