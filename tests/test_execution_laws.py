"""Laws of following an order, on random paths of whole prices: touches and ties are frequent."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from core.costs import CostRates
from core.domain import Candles, Floats, Ints
from core.execution import (
    ORDER,
    ExitRules,
    Outcome,
    follow,
    new_states,
    outcome,
    outcomes,
    state_from_json,
    state_to_json,
    states_to_json,
)
from core.timeframe import HOUR_MS, MINUTE_MS, tf_ms
from tests.oracle import simulate

MIDNIGHT_MS = 1_704_067_200_000


class World(NamedTuple):
    """One random path with holes and jumps, orders on it, and settings."""

    base: Candles
    orders: Any
    rules: ExitRules
    rates: CostRates
    funding: tuple[Ints, Floats]
    until_ms: int


def random_path(rng: np.random.Generator, timeframe: str) -> Candles:
    """A path of whole prices near 1000 with jumps and holes, from 06:00 on."""
    n, step = (300, MINUTE_MS) if timeframe == "1m" else (120, tf_ms(timeframe))
    moves = rng.integers(-3, 4, n)
    jumps = np.where(rng.random(n) < 0.1, rng.integers(-20, 21, n), 0)
    close = 1000.0 + np.cumsum(moves + jumps)
    opens = close - moves
    high = np.maximum(opens, close) + rng.integers(0, 4, n)
    low = np.minimum(opens, close) - rng.integers(0, 4, n)
    ts_ms = MIDNIGHT_MS + 6 * HOUR_MS + step * np.arange(n)
    matrix = np.column_stack((ts_ms, opens, high, low, close, np.ones(n)))
    return Candles.of_matrix(timeframe, matrix[rng.random(n) > rng.choice([0.0, 0.05, 0.3])])


def random_orders(rng: np.random.Generator, base: Candles, timeframe: str, n: int) -> Any:
    """Orders with whole-number levels around the price at their decision."""
    orders = np.zeros(n, ORDER)
    decided = rng.integers(5, len(base) // 2, n)
    side = rng.choice([-1, 1], n)
    step = tf_ms(timeframe)
    orders["side"], orders["tf_ms"] = side, step
    orders["entry"] = base.close[decided] - side * rng.integers(-4, 9, n)
    orders["stop"] = orders["entry"] - side * rng.integers(2, 16, n)
    orders["tp1"] = orders["entry"] + side * rng.integers(2, 16, n)
    orders["tp2"] = orders["tp1"] + side * rng.integers(1, 16, n)
    orders["atr"] = rng.integers(1, 5, n)
    far = orders["stop"] - side * rng.integers(1, 5, n)
    orders["liquidation"] = np.where(rng.random(n) < 0.5, far, 0)
    orders["decided_ms"] = base.ts_ms[decided] - base.ts_ms[decided] % step
    orders["actionable_ms"] = orders["decided_ms"] + rng.choice([0, 60_000, 90_000, 120_000], n)
    orders["valid_until_ms"] = orders["decided_ms"] + step * rng.integers(1, 9, n)
    return orders


def random_world(seed: int, n_orders: int = 24) -> World:
    """Everything is drawn: path, base and signal timeframe, levels, rules, rates, funding."""
    rng = np.random.default_rng(seed)
    base_tf, signal_tf = (("1m", "5m"), ("1m", "1m"), ("1m", "15m"), ("5m", "15m"))[
        rng.integers(0, 4)
    ]
    base = random_path(rng, base_tf)
    rules = ExitRules(
        tp1_fraction=float(rng.choice([0.0, 0.3, 0.5, 1.0])),
        be_on_tp1=bool(rng.integers(0, 2)),
        trail_atr_mult=float(rng.choice([0.0, 1.0, 2.5])),
        max_hold_candles=int(rng.integers(1, 30)),
        delay_ms=int(rng.choice([0, 60_000, 90_000, 120_000, 240_000])),
    )
    frac = rng.random(4) / 500
    rates = CostRates(
        maker_frac=frac[0], taker_frac=frac[1], slippage_frac=frac[2], funding_frac_8h=frac[3]
    )
    stored = MIDNIGHT_MS + HOUR_MS * np.unique(rng.integers(5, 14, rng.integers(0, 4)))
    return World(
        base,
        random_orders(rng, base, signal_tf, n_orders),
        rules,
        rates,
        (stored.astype(np.int64), rng.normal(0, 0.001, len(stored))),
        int(base.ts_ms[rng.integers(len(base) // 2, len(base))]) + tf_ms(base_tf),
    )


def walked(world: World, states: Any = None, until_ms: int | None = None) -> Any:
    """The states of a world's orders at an instant, by default its end."""
    return follow(
        world.orders,
        new_states(world.orders) if states is None else states,
        world.base,
        rules=world.rules,
        rates=world.rates,
        until_ms=world.until_ms if until_ms is None else until_ms,
        funding=world.funding,
    )


def told_by_oracle(world: World, k: int) -> dict[str, Any]:
    """The slow executor's account of one order."""
    names = world.orders.dtype.names
    rates, rules = world.rates, world.rules
    columns = (x.tolist() for x in world.base.columns()[:5])
    stored_ms, stored = world.funding
    return simulate(
        dict(zip(names, world.orders[k].tolist(), strict=True)),
        list(zip(*columns, strict=True)),
        base_ms=tf_ms(world.base.timeframe),
        rules={
            "tp1_fraction": rules.tp1_fraction,
            "be_on_tp1": rules.be_on_tp1,
            "trail_atr_mult": rules.trail_atr_mult,
            "max_hold_candles": rules.max_hold_candles,
            "delay_ms": rules.delay_ms,
        },
        rates={
            "maker": rates.maker_frac,
            "taker": rates.taker_frac,
            "slippage": rates.slippage_frac,
            "funding": rates.funding_frac_8h,
        },
        funding=dict(zip(stored_ms.tolist(), stored.tolist(), strict=True)),
        until_ms=world.until_ms,
    )


def test_a_second_executor_written_from_the_words_tells_the_same() -> None:
    """3600 random orders under 150 settings: same words, same instants, same money."""
    seen: dict[str, int] = {}
    for seed in range(150):
        world = random_world(seed)
        states = walked(world)
        for k in range(len(world.orders)):
            want, got = told_by_oracle(world, k), outcome(world.orders[k], states[k])
            where = f"seed {seed} order {k}: {want}"
            seen[want["reason"]] = seen.get(want["reason"], 0) + 1
            assert (got.status.value, got.exit_reason) == (want["status"], want["reason"]), where
            instants = (got.opened_ts_ms or 0, got.closed_ts_ms or 0, int(states[k]["tp1_ms"]))
            assert instants == (want["opened_ms"], want["closed_ms"], want["tp1_ms"]), where
            assert got.ambiguous == want["ambiguous"], where
            row = states[k]
            fees = row["maker_frac"] + row["taker_frac"]
            parts = [row["gross_frac"], fees, row["slippage_frac"], row["funding_frac"]]
            parts.append(row["exit_value"])
            names = ("gross", "fees", "slippage", "funding", "exit_price")
            assert parts == pytest.approx([want[x] for x in names], rel=1e-9, abs=1e-14), where
            if got.r_multiple is not None:
                assert got.r_multiple == pytest.approx(want["r_multiple"], abs=1e-10), where
    assert len(seen) == 10, seen
    assert min(seen.values()) >= 10, seen


def test_any_split_into_calls_with_a_round_trip_through_text_gives_the_same_bits() -> None:
    """Fed in random pieces, its state written as JSON between them, an order ends the same."""
    rng = np.random.default_rng(5)
    for seed in range(200, 240):
        world = random_world(seed)
        whole, states = walked(world), new_states(world.orders)
        first_ms = int(world.base.ts_ms[0])
        cuts = np.sort(rng.integers(first_ms, world.until_ms, rng.integers(1, 40)))
        for until_ms in [*cuts.tolist(), world.until_ms]:
            states = walked(world, states, until_ms)
            states = np.concatenate([state_from_json(state_to_json(row)) for row in states])
        assert states.tobytes() == whole.tobytes(), f"seed {seed}"


def test_many_at_once_are_told_as_each_one_alone() -> None:
    """Outcomes and texts of a whole batch are those of its rows; a text is the plain encoder's."""
    for seed in range(240, 260):
        world = random_world(seed)
        states = walked(world)
        columns = outcomes(world.orders, states)
        states["mfe_r"][0] = np.nan
        texts = states_to_json(states)
        for k in range(1, len(states)):
            alone = outcome(world.orders[k], states[k])
            assert Outcome(**{name: column[k] for name, column in columns.items()}) == alone
        for k in range(len(states)):
            assert texts[k] == json.dumps(json.loads(texts[k]), separators=(",", ":"))
            assert state_from_json(texts[k]).tobytes() == states[k].tobytes()
        assert states_to_json(states[:0]) == []


def test_fed_each_minute_alone_an_order_ends_the_same() -> None:
    """One bar per call, each call seeing only that bar."""
    for seed in range(300, 306):
        world = random_world(seed)
        states = new_states(world.orders)
        for i in range(world.base.closed_by(world.until_ms)):
            one = world._replace(base=world.base[i : i + 1])
            until_ms = int(world.base.ts_ms[i]) + tf_ms(world.base.timeframe)
            states = walked(one, states, until_ms)
        assert states.tobytes() == walked(world).tobytes(), f"seed {seed}"


def test_no_later_bar_changes_what_is_known_at_an_instant() -> None:
    """A state at an instant is the same with and without the bars after it."""
    for seed in range(400, 430):
        world = random_world(seed)
        k = len(world.base) // 2
        until_ms = int(world.base.ts_ms[k])
        short = world._replace(base=world.base[: world.base.closed_by(until_ms)])
        assert walked(short, None, until_ms).tobytes() == walked(world, None, until_ms).tobytes()


def test_each_order_of_a_batch_ends_as_it_would_alone() -> None:
    """Orders do not see one another, and each has its own rates."""
    world = random_world(7)
    n = len(world.orders)
    rates = np.random.default_rng(7).random((n, 4)) / 500
    keywords: dict[str, Any] = {
        "rules": world.rules,
        "until_ms": world.until_ms,
        "funding": world.funding,
    }
    together = follow(world.orders, new_states(world.orders), world.base, rates=rates, **keywords)
    for k in range(n):
        order = world.orders[k : k + 1]
        names = ("maker_frac", "taker_frac", "slippage_frac", "funding_frac_8h")
        one = CostRates(**dict(zip(names, rates[k].tolist(), strict=True)))
        alone = follow(order, new_states(order), world.base, rates=one, **keywords)
        assert alone.tobytes() == together[k : k + 1].tobytes()


def test_following_leaves_what_it_was_given_alone() -> None:
    """Orders and states passed in are unchanged, and a finished state stays as it is."""
    world = random_world(8)
    states = new_states(world.orders)
    before = (world.orders.tobytes(), states.tobytes())
    after = walked(world, states)
    assert (world.orders.tobytes(), states.tobytes()) == before
    assert walked(world, after).tobytes() == after.tobytes()


def test_a_flipped_world_earns_the_same_gross_r() -> None:
    """Prices mirrored at 1000 and sides turned: same statuses and instants, same gross R."""
    for seed in range(500, 530):
        world = random_world(seed)
        turned = world.orders.copy()
        turned["side"] *= -1
        for name in ("entry", "stop", "tp1", "tp2"):
            turned[name] = 2000 - turned[name]
        has = turned["liquidation"] > 0
        turned["liquidation"] = np.where(has, 2000 - turned["liquidation"], 0)
        ts_ms, o, h, low, c, v = world.base.columns()
        base = Candles(world.base.timeframe, ts_ms, 2000 - o, 2000 - low, 2000 - h, 2000 - c, v)
        mirror = world._replace(base=base, orders=turned)
        there, here = walked(mirror), walked(world)
        for name in ("status", "opened_ms", "closed_ms", "tp1_ms", "reason", "ambiguous"):
            np.testing.assert_array_equal(there[name], here[name])
        pairs = zip(world.orders, here, turned, there, strict=True)
        closed = 0
        for order, state, order_there, state_there in pairs:
            one, other = outcome(order, state), outcome(order_there, state_there)
            if one.gross_r is not None:
                closed += 1
                assert other.gross_r == pytest.approx(one.gross_r, abs=1e-11)
                assert (other.mfe_r, other.mae_r) == pytest.approx((one.mfe_r, one.mae_r))
        assert closed > 0


def test_gross_less_costs_is_net() -> None:
    """The ledger closes: gross R - cost R = net R, and the parts add up to the whole."""
    closed = 0
    for seed in range(600, 630):
        world = random_world(seed)
        for order, state in zip(world.orders, walked(world), strict=True):
            got = outcome(order, state)
            if got.r_multiple is None:
                continue
            closed += 1
            assert got.gross_r is not None
            assert got.cost_r_paid is not None
            assert got.pnl_pct is not None
            assert abs(got.gross_r - got.cost_r_paid - got.r_multiple) < 1e-12
            parts = (got.fees_pct or 0) + (got.slippage_pct or 0) + (got.funding_pct or 0)
            risk_pct = 100 * abs(order["entry"] - order["stop"]) / order["entry"]
            assert got.pnl_pct + parts == pytest.approx(got.gross_r * risk_pct, abs=1e-12)
            assert state["qty_left"] == 0
    assert closed > 200
