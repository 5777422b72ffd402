"""Edits while the engine runs: taken and priced, or refused once; secrets stay where they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.app import App
from core.config import Config, config_from, strategy_id
from core.config_changes import changes, needs_restart, only_thresholds
from core.jobs.edits import Edits
from core.messages import plain
from tests.config_keys import turned
from tests.engine_world import opened, write_config

TOKEN = "987654321:CANARYcanaryCANARYcanary-CANARY_ca"
PAIRS = ["A/USDT:USDT", "B/USDT:USDT"]
COST = "new strategy_id, certificate restarts, old record kept"


def settings(**raw: Any) -> Config:
    """Settings with two pairs."""
    return config_from({"symbols": PAIRS, **raw})


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({}, {}, []),
        ({"timeframes": ["1h"]}, {"timeframes": ["1h", "4h"]}, ["4h added: 2 series"]),
        (
            {"timeframes": ["1h", "4h"]},
            {"timeframes": ["1h"]},
            ["4h removed: no new signals; none of it is open"],
        ),
        (
            {},
            {"symbols": [PAIRS[0], "C/USDT"]},
            [
                "C/USDT added: 3 series, its history is fetched",
                "B/USDT:USDT removed: no new signals; none of it is open",
            ],
        ),
        (
            {"signals": {"atr_mult_sl": 1.5}},
            {"signals": {"atr_mult_sl": 2}},
            [f"atr_mult_sl 1.5→2: {COST}"],
        ),
        (
            {},
            {"signals": {"fibo": {"piv_window": 4}}, "execution": {"be_on_tp1": False}},
            [f"fibo.piv_window 5→4, execution.be_on_tp1 true→false: {COST}"],
        ),
        ({}, {"risk": {"equity_usd": 5000}}, ["risk.equity_usd 10000→5000"]),
        ({}, {"risk": {"mode": "aggressive"}}, [f"risk.mode normal→aggressive: {COST}"]),
        (
            {},
            {"signals": {"evaluation": {"usd_per_trade": 5}}},
            ["evaluation.usd_per_trade 1000→5"],
        ),
        ({}, {"guards": {"max_open": 4}}, ["guards.max_open 6→4"]),
        ({}, {"risk": {"max_leverage": 2}}, [f"risk.max_leverage null→2: {COST}"]),
    ],
)
def test_an_edit_is_answered_with_its_cost(
    old: dict[str, Any], new: dict[str, Any], lines: list[str]
) -> None:
    """Each kind of change in its own words."""
    assert changes(settings(**old), settings(**new)) == lines


@given(
    value=st.floats(0.1, 19.9),
    hour=st.integers(0, 23),
    names=st.lists(st.sampled_from(["1m", "5m", "15m", "1h", "4h", "1d"]), min_size=1, unique=True),
)
def test_equal_settings_cost_nothing_and_different_ones_something(
    value: float, hour: int, names: list[str]
) -> None:
    """There is a line exactly where something differs; the strategy's cost where its id does."""
    old = settings()
    new = settings(
        signals={"atr_mult_sl": value},
        notify={"digest_hour": hour},
        timeframes=names,
        execution={"delivery_delay_s": 10},
    )
    same = settings(execution={"delivery_delay_s": 10})
    assert changes(old, old) == changes(new, new) == []
    assert (changes(same, new) == []) == (same == new)
    said = any(line.endswith(COST) for line in changes(same, new))
    assert said == (strategy_id(same) != strategy_id(new))


def test_no_secret_is_told() -> None:
    """A token, an address or credentials are `changed`, whatever they were and are."""
    old = settings(notify={"telegram": {"bot_token": TOKEN[:-2], "chat_id": 4711}})
    new = settings(
        notify={
            "deadman_url": "https://hc.test/SECRETsecret",
            "telegram": {"bot_token": TOKEN, "chat_id": 4712},
        },
        exchange={"ccxt": {"apiKey": "SECRETsecret"}},
    )
    told = changes(old, new)
    assert sorted(line for line in told) == [
        "exchange.ccxt changed",
        "notify.deadman_url changed",
        "notify.telegram.bot_token changed",
        "notify.telegram.chat_id changed",
    ]


@pytest.mark.parametrize(
    "name",
    ["app.db_path", "app.data_dir", "exchange.id", "exchange.rate_limit_ms",
     "incremental.run_seconds"],
)  # fmt: skip
def test_what_a_running_engine_holds_on_to_is_named(name: str) -> None:
    """Those, and nothing else, need a restart."""
    values: dict[str, Any] = {
        "exchange.id": "kraken",
        "incremental.run_seconds": 7,
        "exchange.rate_limit_ms": 77,
    }
    new = turned(name, values.get(name, "elsewhere"))
    assert name in needs_restart(turned("guards.max_open", 6), new)
    assert needs_restart(settings(), settings(guards={"max_open": 1}, timeframes=["4h"])) == []


def test_the_tuner_tells_of_its_thresholds_itself() -> None:
    """Its own entries are no edit of the owner's; an entry of the owner is."""

    def cells(**cell: Any) -> Config:
        return settings(models={"meta": {"gating": {"per_pair_tf": {"*": {"1h": cell}}}}})

    tuned = cells(min_ev_pct=0.1, source="tuner", bundle="b1")
    owned = cells(min_ev_pct=0.1, source="owner")
    assert only_thresholds(settings(), tuned)
    assert not only_thresholds(settings(), owned)
    assert changes(settings(), tuned) == ["thresholds: 0 by you, 1 by the tuner"]
    assert changes(tuned, owned) == ["thresholds: 1 by you, 0 by the tuner"]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An engine whose file can be edited."""
    engine = opened(write_config(tmp_path, symbols=PAIRS))
    yield engine
    engine.close()


def edited(app: App, **more: Any) -> None:
    """Write other settings into the file."""
    raw = {"app": {"db_path": "ohlcv.db"}, "symbols": PAIRS, **more}
    app.config_path.write_text(json.dumps(raw))


def told(app: App) -> list[str]:
    """What was said, on one line each."""
    rows = app.db.rows("SELECT text FROM outbox WHERE kind = 'config' ORDER BY id")
    return [" ".join(plain(text).split()) for (text,) in rows]


def test_a_good_edit_is_taken_and_told_once(app: App) -> None:
    """At the next look; looks without an edit say nothing."""
    edits = Edits(app)
    edits.look()
    edited(app, guards={"max_open": 4})
    for _ in range(3):
        edits.look()
    assert app.config.guards.max_open == 4
    assert len(told(app)) == 1
    assert "guards.max_open 6→4" in told(app)[0]
    app.config_path.touch()
    edits.look()
    assert len(told(app)) == 1


def test_a_bad_edit_is_refused_once_until_the_file_changes(app: App) -> None:
    """The last good settings stay; a better edit is taken, and a worse one told again."""
    edits = Edits(app)
    edited(app, guards={"max_opne": 4})
    for _ in range(4):
        edits.look()
    assert app.config.guards.max_open == 6
    assert len(told(app)) == 1
    assert "did you mean max_open?" in told(app)[0]
    edited(app, guards={"max_open": 5})
    edits.look()
    assert app.config.guards.max_open == 5
    assert len(told(app)) == 2
    edited(app, guards={"max_open": -1})
    for _ in range(3):
        edits.look()
    assert len(told(app)) == 3
    assert app.config.guards.max_open == 5


def test_an_editor_may_write_in_two_steps(app: App) -> None:
    """What is bad at one look and good at the next was never told."""
    edits = Edits(app)
    app.config_path.write_text("guards: {max_op")
    edits.look()
    edited(app, guards={"max_open": 3})
    edits.look()
    edits.look()
    assert app.config.guards.max_open == 3
    assert len(told(app)) == 1
    app.config_path.unlink()
    for _ in range(3):
        edits.look()
    assert "cannot be read" in told(app)[-1] or "refused" in told(app)[-1]
    assert app.config.guards.max_open == 3


def test_what_needs_a_restart_is_refused_with_that_word(app: App) -> None:
    """The whole edit: half of it would be neither the old nor the new."""
    edits = Edits(app)
    edited(app, exchange={"id": "kraken"}, guards={"max_open": 1})
    for _ in range(3):
        edits.look()
    assert app.config.exchange.id == "bitget"
    assert app.config.guards.max_open == 6
    assert len(told(app)) == 1
    assert "restart needed" in told(app)[0]


def test_a_new_secret_is_hidden_at_once(app: App) -> None:
    """From the edit on no log line shows it."""
    handler = logging.StreamHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        edits = Edits(app)
        edited(app, notify={"deadman_url": "https://hc.test/verysecret"})
        edits.look()
        record = logging.LogRecord("x", 20, "", 0, "see https://hc.test/verysecret", None, None)
        assert all(f.filter(record) for f in handler.filters)  # type: ignore[union-attr]
        assert "verysecret" not in record.getMessage()
        assert "verysecret" not in " ".join(told(app))
    finally:
        root.removeHandler(handler)
