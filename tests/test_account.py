"""What a book paid and stood at: against the execution's own state, and against its candles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core import views
from core.domain import Series
from core.store import Database, open_reader
from core.store.candles import read_candles, upsert_candles
from core.timeframe import DAY_MS, HOUR_MS
from tests.seed_database import EXCHANGE, N_DAYS, START_MS, Seeded, seed
from tests.tiny_database import T0, add, flat_bars, tiny, won


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """A synthetic database whose trades the engine's own execution followed."""
    return seed(tmp_path_factory.mktemp("seeded"))


def _stored(path: Path) -> list[dict[str, Any]]:
    with open_reader(path) as db:
        rows = db.dicts("SELECT * FROM signals WHERE opened_ts_ms NOT NULL ORDER BY id")
    return [row | {"state": json.loads(row["exec_state"])} for row in rows]


def _costs(row: dict[str, Any]) -> dict[str, float]:
    """What the execution says was paid, in R, worked from the row alone."""
    in_r = row["entry"] / abs(row["entry"] - row["sl"])
    state = row["state"]
    return {
        "fees": in_r * (state["maker_frac"] + state["taker_frac"]),
        "slippage": in_r * state["slippage_frac"],
        "funding": in_r * state["funding_frac"],
    }


def test_the_account_is_what_the_execution_charged(seeded: Seeded) -> None:
    """Fees, slippage and funding of each closed trade, summed; in dollars at 1000 a trade."""
    account = views.results(seeded.path).books["followed"].account
    closed = [row for row in _stored(seeded.path) if row["r_multiple"] is not None]
    assert len(closed) > 50
    for name in ("fees", "slippage", "funding"):
        in_r = [_costs(row)[name] for row in closed]
        risk = [abs(row["entry"] - row["sl"]) / row["entry"] for row in closed]
        assert getattr(account, f"{name}_r") == pytest.approx(sum(in_r))
        dollars = sum(1000 * r * part for r, part in zip(in_r, risk, strict=True))
        assert getattr(account, f"{name}_usd") == pytest.approx(dollars)
    assert account.fees_r > account.slippage_r > 0
    assert (account.stake_usd_lo, account.stake_usd_hi) == pytest.approx((1000, 1000))
    assert account.net_usd == pytest.approx(sum(row["pnl_usd"] for row in closed))
    assert (account.n_unsplit, account.unsplit_r) == (0, 0.0)
    assert account.constant_funding_share == 1.0


@pytest.mark.parametrize("book", views.BOOKS)
def test_gross_less_costs_is_net_in_every_cell(seeded: Seeded, book: str) -> None:
    """In the account, in R and in dollars, and in each cell of each breakdown."""
    found = views.results(seeded.path)
    account = found.books[book].account
    for unit in ("r", "usd"):
        parts = [getattr(account, f"{name}_{unit}") for name in ("fees", "slippage", "funding")]
        net = getattr(account, f"gross_{unit}") - sum(parts)
        assert net == pytest.approx(getattr(account, f"net_{unit}"), abs=1e-9)
    n_cells = 0
    for by in views.BY:
        cells = views.breakdown(found, book, by)
        paid = cells["fees_r"] + cells["slippage_r"] + cells["funding_r"]
        np.testing.assert_allclose(cells["mean_gross_r"] - paid, cells["mean_r"], atol=1e-9)
        np.testing.assert_allclose(cells["cost_r"], paid, atol=1e-9)
        n_cells += len(cells)
    assert n_cells > 15


def test_costs_without_a_record_of_what_for_are_said_to_be_so(tmp_path: Path) -> None:
    """A row whose execution says nothing: its costs stand apart, and net is still net."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    state = json.dumps(
        {"maker_frac": 0.002, "taker_frac": 0.006, "slippage_frac": 0.001, "funding_frac": 0.001}
    )
    add(db, strategy, 1)
    # 1 % of the notional is .1 R of a stop 10 % away
    add(db, strategy, 2, **won(1.5), pnl_pct=15.0, pnl_usd=150.0, exec_state=state)
    db.close()
    found = views.results(path)
    account = found.books["followed"].account
    assert (account.fees_r, account.slippage_r, account.funding_r) == pytest.approx(
        (0.08, 0.01, 0.01)
    )
    assert (account.fees_usd, account.unsplit_usd) == pytest.approx((8.0, 10.0))
    assert account.n_unsplit == 1
    assert account.unsplit_r == pytest.approx(0.1)
    assert account.gross_r - 0.1 - 0.1 == pytest.approx(account.net_r) == pytest.approx(0.4)
    column = views.metrics_table(found).set_index("figure")["All followed"]
    assert column["costs not told apart"] == "-0.10 R (-10.00 USD), 1 trades"
    assert column["stake of a trade"] == "1000 USD"


def _by_hand(rows: list[dict[str, Any]], bars: dict[str, Any], at: int) -> float:
    """The book's worth at an instant: each trade on its own."""
    total = 0.0
    for row in rows:
        if row["closed_ts_ms"] and row["closed_ts_ms"] <= at:
            total += row["r_multiple"]
        elif row["opened_ts_ms"] <= at:
            series = bars[row["symbol"]]
            price = series.close[np.searchsorted(series.ts_ms + HOUR_MS, at, side="right") - 1]
            side = 1 if row["direction"] == "long" else -1
            fill, out = row["state"]["opened_price"], 0.5 if row["state"]["tp1_ms"] else 0.0
            out *= 0 < row["state"]["tp1_ms"] <= at
            gain = out * (row["tp1"] - fill) + (1 - out) * (price - fill)
            total += side * gain / abs(row["entry"] - row["sl"]) - sum(_costs(row).values())
    return float(total)


def test_equity_at_market_is_each_trade_at_its_candles(seeded: Seeded) -> None:
    """On the hours of 45 days and three pairs, against the rows and the stored 1h closes."""
    found, rows = views.results(seeded.path), _stored(seeded.path)
    with open_reader(seeded.path) as db:
        bars = {
            symbol: read_candles(db, Series(EXCHANGE, symbol, "1h"), end_ms=1 << 50)
            for symbol in {row["symbol"] for row in rows}
        }
    curve = views.equity_at_market(found, "followed").set_index("ts_ms")
    assert len(curve) > 24 * (N_DAYS - 6)
    instants = curve.index.to_numpy()[::17]
    wanted = [_by_hand(rows, bars, int(at)) for at in instants]
    np.testing.assert_allclose(curve["equity_r"].loc[instants], wanted, atol=1e-9)
    book = found.books["followed"]
    assert book.n_open > 0
    assert curve["equity_r"].iloc[-1] == pytest.approx(book.total_r + book.open_r)
    assert book.marked.drawdown_r == pytest.approx(-curve["underwater_r"].min())
    assert (curve["underwater_r"] <= 0).all()


def _bars(db: Database, closes: list[float]) -> None:
    """1h candles from T0 + 1 day on."""
    bars = flat_bars(T0 + DAY_MS, len(closes), HOUR_MS)
    bars.close[:] = closes
    bars.high[:] = np.maximum(bars.open, closes)
    upsert_candles(db, Series("x", "A/USDT", "1h"), bars)


def test_a_fall_while_a_trade_was_open_is_seen_though_it_ended_well(tmp_path: Path) -> None:
    """Filled at 100 with the stop at 90: at 95 it stands at -.6 R, costs paid, before it wins 2."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    _bars(db, [100.0, 100.0, 95.0, 104.0, 120.0, 120.0])
    closed = T0 + DAY_MS + 5 * HOUR_MS
    add(db, strategy, 1, **won(2.0), pnl_usd=200.0, closed_ts_ms=closed)
    db.close()
    found = views.results(path)
    curve = views.equity_at_market(found, "followed")
    assert curve["equity_r"].tolist() == pytest.approx([-0.1, -0.1, -0.6, 0.3, 2.0, 2.0])
    book = found.books["followed"]
    assert (book.closed.drawdown_r, book.marked.drawdown_r) == pytest.approx((0.0, 0.6))


def test_without_candles_a_book_at_market_is_its_exits(tmp_path: Path) -> None:
    """Nothing to mark by: the curve of closed trades."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    for day in (1, 5, 9):
        add(db, strategy, day, **won(1.0 if day == 5 else -1.0))
    db.close()
    found = views.results(path)
    closed = views.equity(found, "followed").rename(columns={"closed_ms": "ts_ms"})
    marked = views.equity_at_market(found, "followed").drop(columns="open_r")
    pd.testing.assert_frame_equal(marked, closed, check_dtype=False)
    assert found.books["followed"].open_r == 0.0


def test_months_are_those_of_the_decision(seeded: Seeded) -> None:
    """2025-01 and 2025-02, by the calendar of UTC."""
    rows = views.results(seeded.path).rows
    wanted = pd.to_datetime(rows["decided_ms"], unit="ms").dt.strftime("%Y-%m")
    assert rows["month"].astype("str").tolist() == wanted.tolist()
    assert set(wanted) == {"2025-01", "2025-02"}
    assert rows["decided_ms"].min() > START_MS
