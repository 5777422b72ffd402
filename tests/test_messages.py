"""The laws of the texts: narrow lines, inert foreign words, and SIGNAL only with a certificate."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import messages
from core.config import Execution
from core.messages import GREEN, NO_EDGE, WIDTH, plain
from core.timeframe import DAY_MS, HOUR_MS, MINUTE_MS

DECIDED = 1_700_000_100_000 // MINUTE_MS * MINUTE_MS  # 2023-11-14 22:15 UTC
BERLIN = ZoneInfo("Europe/Berlin")
LOOK: dict[str, Any] = {"zone": BERLIN, "decimals": 1}
ALLOWED = re.compile(r'</?(b|code)>|<a href="[^"<>]*">|</a>')


def row(**changes: Any) -> dict[str, Any]:
    """A certified long on BTC: 600 at risk, targets 1.5 and 2.5 R away."""
    values: dict[str, Any] = {
        "id": 123,
        "exchange": "bitget",
        "symbol": "BTC/USDT:USDT",
        "timeframe": "15m",
        "setup": "limit",
        "direction": "long",
        "ts_ms": DECIDED - 15 * MINUTE_MS,
        "decided_ms": DECIDED,
        "entry": 64000.0,
        "sl": 63400.0,
        "tp1": 64900.0,
        "tp2": 65500.0,
        "atr": 410.25,
        "leverage": 2.0,
        "risk_pct": 1.0,
        "position_notional": 10666.67,
        "liquidation": 32320.0,
        "cost_r": 0.081,
        "valid_until_ms": DECIDED + 6 * HOUR_MS,
        "rationale": "Impulse of 5.2 ATR, entry at the 0.618 retracement above the AVWAP",
        "ml_p": 0.61,
        "p_mart": 0.4,
        "ev_pct": 0.42,
        "ev_lo_pct": 0.1,
        "gate": "PASS",
        "gate_reason": "ev",
        "evidence": "CERTIFIED",
        "delivery": "LIVE",
        "delivery_reason": "certified",
        "status": "PENDING",
        "opened_ts_ms": DECIDED + 3 * MINUTE_MS,
        "closed_ts_ms": DECIDED + 193 * MINUTE_MS,
        "exit_price": 63400.0,
        "exit_reason": "stop",
        "tp1_hit": 0,
        "tp1_ts_ms": DECIDED + 33 * MINUTE_MS,
        "pnl_pct": -1.02,
        "r_multiple": -1.09,
        "ambiguous": 0,
        "stop_now": 63400.0,
    }
    return values | changes


def digest_of(one: dict[str, Any], *, banner: str = "") -> str:
    """A digest of one found row and one closed trade."""
    return messages.digest(
        [one],
        closed_rows=[one],
        start_ms=DECIDED - HOUR_MS,
        end_ms=DECIDED + DAY_MS,
        zone=BERLIN,
        banner=banner,
    )


def of_all(one: dict[str, Any], *, banner: str = "") -> dict[str, str]:
    """Every message about one row."""
    simple: tuple[Callable[..., str], ...] = (
        messages.filled,
        messages.stop_moved,
        messages.closed,
        messages.expired,
        messages.cancelled,
    )
    texts = {make.__name__: make(one, banner=banner, **LOOK) for make in simple}
    for make in (messages.new_signal, messages.tp1):
        texts[make.__name__] = make(one, execution=Execution(), banner=banner, **LOOK)
    texts["expired_meanwhile"] = messages.expired_meanwhile(one, zone=BERLIN, banner=banner)
    return texts | {"digest": digest_of(one, banner=banner)}


def lines_of(text: str) -> list[str]:
    """What is visible, line by line."""
    return plain(text).split("\n")


def width(line: str) -> int:
    """Columns on a phone: the green mark takes two."""
    return len(line) + line.count(GREEN)


SHAPES = [
    {},
    {"direction": "short", "sl": 64600.0, "tp1": 63100.0, "tp2": 62500.0, "delivery": "PAPER"},
    {"ml_p": None, "ev_pct": None, "ev_lo_pct": None, "evidence": "UNGATED", "delivery": "PAPER"},
    {"symbol": "1000000MOGCOIN/USDT:USDT", "timeframe": "15m", "setup": "reclaim", "id": 1234567},
    {"delivery": "DIGEST", "delivery_reason": "max_open_per_side", "ambiguous": 1, "tp1_hit": 1},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("banner", ["", "GENERATED MARKET, EDGE PLANTED, AND THEN SOME MORE"])
def test_no_line_is_wider_than_a_phone(shape: dict[str, Any], banner: str) -> None:
    """Every visible line of every message fits."""
    for name, text in of_all(row(**shape), banner=banner).items():
        for line in lines_of(text):
            assert width(line) <= WIDTH, (name, line)


@given(foreign=st.text(min_size=1, max_size=300))
@settings(max_examples=60, deadline=None)
def test_foreign_words_are_inert(foreign: str) -> None:
    """Whatever stands in a text column: only our tags, bare entities, narrow lines, one id."""
    keys = ("symbol", "rationale", "exit_reason", "delivery_reason", "gate_reason", "setup")
    for name, text in of_all(row(**dict.fromkeys(keys, foreign)), banner=foreign).items():
        rest = ALLOWED.sub("", text)
        assert "<" not in rest, (name, text)
        assert ">" not in rest.replace("&gt;", ""), (name, text)
        assert not re.search(r"&(?!amp;|lt;|gt;)", rest), (name, text)
        assert all(line.isprintable() for line in lines_of(text)), (name, text)
        assert all(width(line) <= WIDTH for line in lines_of(text)), (name, text)


def test_script_and_ampersand_are_shown_literally() -> None:
    """What the owner reads is what stood in the column."""
    text = messages.new_signal(
        row(symbol="<script>&*_[", rationale="a <b> & c"), execution=Execution(), **LOOK
    )
    assert "LONG &lt;script&gt;&amp;*_[" in text
    assert "LONG <script>&*_[" in plain(text)
    assert "Why: a <b> & c" in plain(text)


def test_a_control_sequence_does_not_reach_the_terminal() -> None:
    """Escape codes and line breaks in a column become spaces."""
    text = messages.filled(row(symbol="A\x1b[2J\nB\u202e"), **LOOK)
    assert lines_of(text)[0] == "FILLED LONG A [2J B"


@pytest.mark.parametrize(
    "shape",
    [
        {"delivery": "PAPER"},
        {"evidence": "UNCERTIFIED"},
        {"evidence": "UNGATED"},
        {"gate": "REJECT"},
        {"delivery": "DIGEST"},
    ],
)
def test_signal_and_the_green_mark_need_a_certificate(shape: dict[str, Any]) -> None:
    """Anything but LIVE, CERTIFIED and PASS is paper: no such word, no mark, size 0."""
    for name, text in of_all(row(**shape)).items():
        assert "SIGNAL" not in text.upper(), name
        assert GREEN not in text, name
    text = messages.new_signal(row(**shape), execution=Execution(), **LOOK)
    assert lines_of(text)[0] == NO_EDGE
    assert "Size 0 (would be 10,667 USD)" in lines_of(text)


def test_a_certified_call_says_all_one_needs() -> None:
    """Each line worked by hand: 900/64000 = 1.41 %, 900/600 = 1.5 R, 2 x 410.25 = 820.5."""
    text = messages.new_signal(row(), execution=Execution(), banner="GENERATED MARKET", **LOOK)
    assert lines_of(text) == [
        "GENERATED MARKET",
        f"{GREEN} SIGNAL LONG BTC/USDT:USDT",
        "#S123 · 15m limit · LIVE",
        "",
        "Entry 64000.0 (limit order)",
        "Stop 63400.0 -0.94% -1.00R",
        "TP1 64900.0 +1.41% +1.50R",
        "TP2 65500.0 +2.34% +2.50R",
        "",
        "At TP1: close 50 %, stop to entry.",
        "Then trail the stop by 820.5",
        "Valid until 2023-11-15 05:15 CET",
        "Risk 1.00 % of equity",
        "Size 10,667 USD",
        "Leverage 2x",
        "Liquidation 32320.0",
        "",
        "Chance to win 61 %, coin flip 40 %",
        "EV +0.42 %, low end +0.10 %",
        "Cost 0.081 R",
        "Why: Impulse of 5.2 ATR, entry at the",
        "0.618 retracement above the AVWAP",
    ]
    for price in ("64000.0", "63400.0", "64900.0", "65500.0", "32320.0"):
        assert f"<code>{price}</code>" in text


def test_a_short_counts_distances_along_its_side() -> None:
    """The stop lies above and is a loss; the targets lie below and are gains."""
    short = row(direction="short", sl=64640.0, tp1=63040.0, tp2=62400.0, liquidation=0.0)
    text = lines_of(messages.new_signal(short, execution=Execution(), **LOOK))
    assert text[0] == f"{GREEN} SIGNAL SHORT BTC/USDT:USDT"
    assert text[4:7] == [
        "Stop 64640.0 -1.00% -1.00R",
        "TP1 63040.0 +1.50% +1.50R",
        "TP2 62400.0 +2.50% +2.50R",
    ]
    assert "Liquidation none" in text


def test_a_chance_is_never_shown_without_the_coin_flip() -> None:
    """With a model and without."""
    for p in (0.61, None):
        text = plain(messages.new_signal(row(ml_p=p, ev_pct=None), execution=Execution(), **LOOK))
        assert "coin flip 40 %" in text
        assert ("61 %" in text) == (p is not None)


def test_a_closed_trade_shows_net_result_reason_and_path() -> None:
    """Filled 22:18 UTC, TP1 22:48, out 3 h 10 min after the fill; Berlin is an hour ahead."""
    one = row(tp1_hit=1, exit_reason="trail", exit_price=64450.0, pnl_pct=0.98, r_multiple=1.04)
    assert lines_of(messages.closed(one, **LOOK)) == [
        "CLOSED LONG BTC/USDT:USDT",
        "#S123 · 15m limit · LIVE",
        "",
        "Net +1.04 R, +0.98 %",
        "Exit by trailed stop",
        "Price 64450.0",
        "",
        "Filled 2023-11-14 23:18 CET",
        "TP1 2023-11-14 23:48 CET",
        "Out 2023-11-15 02:28 CET",
        "Held 3 h 10 min",
    ]


def test_only_a_live_order_is_to_be_cancelled() -> None:
    """Who was recommended size 0 has no order."""
    for make in (messages.expired, messages.cancelled):
        assert "Cancel the order." in make(row(), **LOOK)
        assert "Cancel the order." not in make(row(delivery="PAPER"), **LOOK)


def test_every_message_carries_id_and_banner() -> None:
    """The id names the signal in each of its messages; the banner heads all."""
    for name, text in of_all(row(), banner="GENERATED MARKET").items():
        assert lines_of(text)[0] == "GENERATED MARKET", name
        assert name == "digest" or "#S123 " in text, name


def test_the_digest_says_when_nothing_qualified() -> None:
    """The sentence, the reasons by number, and the best of the rest by the low end of its EV."""
    rest: dict[str, Any] = {"delivery": "DIGEST", "evidence": "UNCERTIFIED"}
    rows = [
        row(id=1, ev_lo_pct=-0.2, delivery_reason="negative_ev", **rest),
        row(id=2, ev_lo_pct=0.3, delivery_reason="cooldown", **rest),
        row(id=3, delivery="DIGEST", gate="REJECT", gate_reason="max_cost_r"),
        row(id=4, delivery="DIGEST", gate="REJECT", gate_reason="max_cost_r"),
    ]
    text = messages.digest(rows, closed_rows=[], start_ms=0, end_ms=DAY_MS, zone=ZoneInfo("UTC"))
    assert lines_of(text) == [
        "DIGEST",
        "1970-01-01 00:00 UTC",
        "to 1970-01-02 00:00 UTC",
        "",
        "Found 4, passed the gate 2",
        "Live 0, paper 0",
        "",
        "Nothing qualified.",
        "max cost r: 2",
        "negative ev: 1",
        "cooldown: 1",
        "",
        "Best of the 2 not sent:",
        "#S2 BTC/USDT:USDT 15m long",
        "  EV low end +0.30 %, cooldown",
        "#S1 BTC/USDT:USDT 15m long",
        "  EV low end -0.20 %, negative ev",
    ]


def test_the_digest_counts_what_was_sent_and_what_closed() -> None:
    """LIVE and PAPER results stand apart, each with its number; then something did qualify."""
    closed = [row(r_multiple=1.5), row(r_multiple=-1.0), row(r_multiple=0.25, delivery="PAPER")]
    text = messages.digest(
        [row(), row(delivery="PAPER")], closed_rows=closed, start_ms=0, end_ms=1, zone=BERLIN
    )
    assert "Closed live: net +0.50 R (n=2)" in lines_of(text)
    assert "Closed paper: net +0.25 R (n=1)" in lines_of(text)
    assert "Live 1, paper 1" in lines_of(text)
    assert "Nothing qualified" not in text


def test_the_link_is_filled_in_and_quoted() -> None:
    """Values are percent-encoded, so a symbol cannot leave the attribute."""
    text = messages.new_signal(
        row(symbol='A"/B&C:D'),
        execution=Execution(),
        link_template="https://x.test/?s={base}{quote}&t={timeframe}",
        **LOOK,
    )
    assert '<a href="https://x.test/?s=A%22B%26C&amp;t=15m">Chart</a>' in text


def test_what_to_do_after_tp1_follows_the_settings() -> None:
    """No breakeven, no trail: neither is asked for."""
    rules = Execution(tp1_fraction=1.0, be_on_tp1=False, trail_atr_mult=0.0)
    text = plain(messages.tp1(row(tp1_hit=1), execution=rules, **LOOK))
    assert "At TP1: close 100 %." in text
    assert "trail" not in text
    assert "stop" not in text.lower()


@pytest.mark.parametrize(
    ("tick", "decimals"), [(0.01, 2), (0.5, 1), (0.25, 2), (1e-7, 7), (1.0, 0), (100.0, 0)]
)
def test_decimals_follow_the_tick(tick: float, decimals: int) -> None:
    """As many as the tick has."""
    assert messages.decimals_of(tick) == decimals
