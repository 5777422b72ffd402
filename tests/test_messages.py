"""The laws of the texts: narrow lines, inert foreign words, and SIGNAL only with a certificate."""

from __future__ import annotations

import json
import re
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import messages
from core.config import Execution
from core.messages import (
    GREEN,
    NO_EDGE,
    WIDTH,
    Day,
    Look,
    answers,
    plain,
)
from core.streaks import longest_usual
from core.timeframe import DAY_MS
from tests.message_world import (
    LOOK,
    call,
    lines_of,
    of_all,
    record,
    row,
    width,
)

ALLOWED = re.compile(r'</?(b|code)>|<a href="[^"<>]*">|</a>')
SHAPES = [
    {},
    {"direction": "short", "sl": 64600.0, "tp1": 63100.0, "tp2": 62500.0, "delivery": "PAPER"},
    {"ml_p": None, "ev_pct": None, "ev_lo_pct": None, "evidence": "UNGATED", "delivery": "PAPER"},
    {"symbol": "1000000MOGCOIN/USDT:USDT", "timeframe": "15m", "setup": "reclaim", "id": 1234567},
    {"delivery": "DIGEST", "delivery_reason": "max_open_per_side", "ambiguous": 1, "tp1_hit": 1},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("banner", ["", "GENERATED MARKET, EDGE PLANTED, AND THEN SOME MORE"])
@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_no_line_is_wider_than_a_phone(shape: dict[str, Any], banner: str, decimals: int) -> None:
    """Every visible line of every message fits."""
    for name, text in of_all(row(**shape), banner=banner, decimals=decimals).items():
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
    text = call(row(symbol="<script>&*_[", rationale="a <b> & c"))
    assert "LONG &lt;script&gt;&amp;*_[" in text
    assert "LONG <script>&*_[" in plain(text)
    assert "Setup: a <b> & c" in plain(text)


def test_a_number_stays_whole_and_beside_its_unit() -> None:
    """Wherever the line ends: groups of thousands, units, two parts of a span."""
    for n in range(1, 36):
        words = f"{'x' * n} 12 345.5 and 3 h 10 min, 41 % of 5.2 ATR"
        text = " ".join(lines_of(call(row(rationale=words)))[-3:])
        lines = lines_of(call(row(rationale=words)))
        assert "12 345.5 and 3 h 10 min, 41 % of 5.2 ATR" in text
        for whole in ("12 345.5", "3 h 10 min", "41 %", "5.2 ATR"):
            assert any(whole in line for line in lines), (n, whole)


def test_a_control_sequence_does_not_reach_the_terminal() -> None:
    """Escape codes and line breaks in a column become spaces."""
    text = messages.filled(row(symbol="A\x1b[2J\nB\u202e"), LOOK)
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
    text = call(row(**shape))
    assert lines_of(text)[0] == NO_EDGE
    assert "Size 0 (would be 10,667 USD)" in lines_of(text)


def test_a_short_counts_distances_along_its_side() -> None:
    """The stop lies above and is a loss; the targets lie below and are gains."""
    short = row(direction="short", sl=64640.0, tp1=63040.0, tp2=62400.0, liquidation=0.0)
    text = lines_of(call(short, latest=63_900.0))
    assert text[0] == f"{GREEN} SIGNAL SHORT BTC/USDT:USDT"
    assert text[4:8] == [
        "No entry below 63900.0",
        "Stop 64640.0 -1.00% -1.00R",
        "TP1 63040.0 +1.50% +1.50R",
        "TP2 62400.0 +2.50% +2.50R",
    ]
    assert "Liquidation none" in text


@pytest.mark.parametrize(
    ("side", "latest", "line"),
    [
        ("long", 64_100.0, "No entry above 64100.0"),
        ("long", 64_000.0, "Enter at this price or better only"),
        ("long", 63_000.0, "Enter at this price or better only"),
        ("short", 63_900.0, "No entry below 63900.0"),
        ("short", 65_000.0, "Enter at this price or better only"),
    ],
)
def test_the_latest_entry_is_beyond_the_plan_or_is_the_plan(
    side: str, latest: float, line: str
) -> None:
    """A limit short of the plan's own entry is no leave to chase."""
    assert line in lines_of(call(row(direction=side), latest=latest))


def test_a_chance_is_never_shown_without_the_coin_flip() -> None:
    """With a model and without."""
    for p in (0.61, None):
        text = plain(call(row(ml_p=p, ev_pct=None)))
        assert "Coin flip 40 %" in text
        assert ("61 %" in text) == (p is not None)


def test_reasons_stand_only_where_a_score_has_some() -> None:
    """Without a score neither record nor reasons; without a band the call says so."""
    bare = plain(call(row(why="")))
    assert "\nFor\n" not in bare
    assert "out of sample" not in bare
    why = '{"for": [], "against": [["cost_r", null, -0.1]], "data_until_ms": 0}'
    text = plain(call(row(why=why)))
    assert "\nFor\n" not in text
    assert "Against\n· cost r unknown" in text
    assert "Such scores have no out-of-sample" in text


def test_a_record_of_too_few_weeks_is_told_without_an_interval() -> None:
    """A band of scores that has a mean and no interval of it is no error: the mean stands alone."""
    band = {"n": 95, "n_eff": 76.4, "p_mart": 0.44, "win_rate": 0.48, "mean_r": 0.11}
    bounds = ("win_rate_lo", "win_rate_hi", "mean_r_lo", "mean_r_hi")
    why = {"for": [], "against": [], "data_until_ms": 0, "band": band | dict.fromkeys(bounds)}
    text = plain(call(row(why=json.dumps(why))))
    assert "won 48 %\nnet +0.11 R\n" in text


def test_a_streak_is_told_only_beyond_its_band() -> None:
    """31 trades at 45 %: 9 of 10 such records hold no run longer than 7."""
    usual = longest_usual(31, win_rate=0.45)
    assert usual == 7
    for run in range(usual + 1):
        assert not messages.streak_lines(record(run=run))
    said = " ".join(messages.streak_lines(record(run=usual + 1)))
    assert said.startswith("8 losses in a row. With 45 % wins, 9 of 10 records of 31 trades")


@pytest.mark.parametrize(
    ("low", "high", "n_eff", "said"),
    [
        (-0.31, 0.24, 20.0, "too few to say whether it was kept"),
        (-0.31, 0.24, 40.0, "that agrees with the promise"),
        (-0.31, 0.10, 40.0, "the promise was NOT kept"),
        (0.20, 0.40, 40.0, "more came than was promised"),
        (float("nan"), float("nan"), 40.0, "too few to say whether it was kept"),
    ],
)
def test_a_promise_is_judged_by_its_interval(
    low: float, high: float, n_eff: float, said: str
) -> None:
    """+0.18 R was promised: only an interval that leaves it out says anything."""
    one = record(mean_r_lo=low, mean_r_hi=high, n_eff=n_eff)
    assert messages.promise_lines(one)[-1] == said
    assert not messages.promise_lines(record(promised_r=float("nan")))


def test_only_a_live_order_is_to_be_cancelled() -> None:
    """Who was recommended size 0 has no order."""
    for make in (messages.expired, messages.cancelled):
        assert "Cancel the order." in make(row(), LOOK)
        assert "Cancel the order." not in make(row(delivery="PAPER"), LOOK)


def test_every_message_carries_id_and_banner() -> None:
    """The id names the signal in each of its messages; the banner heads all."""
    for name, text in of_all(row(), banner="GENERATED MARKET").items():
        assert lines_of(text)[0] == "GENERATED MARKET", name
        assert name == "digest" or "#S123 " in text, name
        assert len(text) < 4096, name


def test_the_digest_says_when_nothing_qualified() -> None:
    """The sentence, the reasons by number, and the best of the rest by the low end of its EV."""
    rest: dict[str, Any] = {"delivery": "DIGEST", "evidence": "UNCERTIFIED"}
    rows = [
        row(id=1, ev_lo_pct=-0.2, delivery_reason="negative_ev", r_multiple=None, **rest),
        row(id=2, ev_lo_pct=0.3, delivery_reason="cooldown", r_multiple=1.3, **rest),
        row(id=3, delivery="DIGEST", gate="REJECT", gate_reason="max_cost_r"),
        row(id=4, delivery="DIGEST", gate="REJECT", gate_reason="max_cost_r"),
    ]
    day = Day(start_ms=0, end_ms=DAY_MS, found=rows, ended=[])
    text = messages.digest(day, Look(zone=ZoneInfo("UTC")))
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
        "  ended +1.30 R",
        "#S1 BTC/USDT:USDT 15m long",
        "  EV low end -0.20 %, negative ev",
    ]


def test_the_digest_counts_what_was_sent_and_what_closed() -> None:
    """LIVE and PAPER results stand apart, each with its number; then something did qualify."""
    closed = [row(r_multiple=1.5), row(r_multiple=-1.0), row(r_multiple=0.25, delivery="PAPER")]
    day = Day(start_ms=0, end_ms=1, found=[row(), row(delivery="PAPER")], ended=closed)
    text = messages.digest(day, LOOK)
    assert "Closed live 2: won 1, net +0.50 R" in lines_of(text)
    assert "Closed paper 1: won 1, net +0.25 R" in lines_of(text)
    assert "Live 1, paper 1" in lines_of(text)
    assert "Nothing qualified" not in text


def test_the_link_is_filled_in_and_quoted() -> None:
    """Values are percent-encoded, so a symbol cannot leave the attribute."""
    template = "https://x.test/?s={base}{quote}&t={timeframe}"
    text = call(row(symbol='A"/B&C:D'), link_template=template)
    assert '<a href="https://x.test/?s=A%22B%26C&amp;t=15m">Chart</a>' in text


def test_what_to_do_after_tp1_follows_the_settings() -> None:
    """No breakeven, no trail: neither is asked for."""
    rules = Execution(tp1_fraction=1.0, be_on_tp1=False, trail_atr_mult=0.0)
    text = plain(messages.tp1(row(tp1_hit=1), LOOK, execution=rules))
    assert "Now close 100 %" in text
    assert "trail" not in text
    assert "stop" not in text.lower()


@pytest.mark.parametrize(
    ("tick", "decimals"), [(0.01, 2), (0.5, 1), (0.25, 2), (1e-7, 7), (1.0, 0), (100.0, 0)]
)
def test_decimals_follow_the_tick(tick: float, decimals: int) -> None:
    """As many as the tick has."""
    assert messages.decimals_of(tick) == decimals


def test_every_kind_of_message_is_as_it_was_read() -> None:
    """Byte for byte as in tests/golden; `python -m tests.golden_messages` writes them anew."""
    from tests.golden_messages import FOLDER, texts

    wanted = texts()
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(wanted)
    for name, text in wanted.items():
        assert (FOLDER / f"{name}.txt").read_text(encoding="utf-8") == text + "\n", name
        assert all(width(line) <= WIDTH for line in lines_of(text)), name
        assert not re.search(r"<(?!/?b>|/?code>|a href|/a>)", text), name


@given(
    n=st.integers(1, 10**6),
    total=st.floats(-9999, 9999),
    rate=st.floats(0, 1),
    mean=st.floats(-9, 9),
    run=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_a_record_of_any_size_fits(
    n: int, total: float, rate: float, mean: float, run: int
) -> None:
    """However many trades and however good or bad they were."""
    one = record(
        title="All followed",
        n_closed=min(n, 3000),
        total_r=total,
        n=n,
        n_eff=float(n),
        win_rate=rate,
        win_rate_lo=rate,
        win_rate_hi=rate,
        mean_r=mean,
        mean_r_lo=mean,
        mean_r_hi=mean,
        run=min(run, n),
    )
    lines = lines_of(answers.performance([one], LOOK))
    assert all(width(line) <= WIDTH for line in lines), lines
