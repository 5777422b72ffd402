"""Laws of the state of a champion: at promotion, at a decision, and what the owner reads of it."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from core import messages
from core.proof_state import (
    Proof,
    StateRow,
    degraded_reason,
    is_degraded_at,
    state_after_promotion,
)

PROVEN: dict[str, Any] = {
    "certified": True,
    "mode": "ev",
    "value": 0.1,
    "estimate": 0.1234,
    "lower": 0.0249,
    "n_eff": 210.4,
    "reason": "certified",
}
BEST_SEEN = "not certified: wanted above 0 R, best seen +0.030 R at 10 % coverage (n 60, n_eff 41)"
UNPROVEN = PROVEN | {"certified": False, "value": None, "reason": BEST_SEEN}


def row(at_ms: int, state: Proof, bundle: str = "b1", reason: str = "why") -> StateRow:
    """A state set at an instant."""
    return StateRow(at_ms=at_ms, bundle=bundle, state=state, reason=reason)


def after(cells: dict[str, Any], **rest: Any) -> tuple[Proof, str]:
    """The state a bundle with these findings is promoted with."""
    return state_after_promotion({"cells": cells}, window_days=365, **rest)


def test_a_certified_whole_is_certified_with_its_figures() -> None:
    """Whatever its parts are."""
    said = (Proof.CERTIFIED, "net +0.12 R, at least +0.02, n_eff 210, last 365 days")
    assert after({"* *": PROVEN}) == said
    assert after({"* 1h": UNPROVEN, "* *": PROVEN, "A/USDT 1h": PROVEN}) == said


def test_one_certified_cell_is_enough_and_is_named() -> None:
    """The certificate then is that cell's; further ones are counted."""
    cells = {"* *": UNPROVEN, "* 1h": PROVEN}
    reason = "1h: net +0.12 R, at least +0.02, n_eff 210, last 365 days"
    assert after(cells) == (Proof.CERTIFIED, reason)
    assert after(cells | {"A/USDT 1h": PROVEN}) == (Proof.CERTIFIED, f"{reason}, and 1 more")


def test_a_win_rate_that_was_proven_is_said_in_percent() -> None:
    """Mode p; a bound that does not exist is left out."""
    cell = PROVEN | {"mode": "p", "estimate": 0.612, "lower": 0.5804}
    said = "win-rate 61.2 %, at least 58.0 %, n_eff 210, last 365 days"
    assert after({"* *": cell}) == (Proof.CERTIFIED, said)
    said = "win-rate 61.2 %, n_eff 210, last 365 days"
    assert after({"* *": cell | {"lower": None}}) == (Proof.CERTIFIED, said)


def test_without_a_certificate_the_best_seen_is_said() -> None:
    """Or that nothing was tested."""
    assert after({"* *": UNPROVEN, "* 1h": UNPROVEN}) == (Proof.UNCERTIFIED, BEST_SEEN)
    assert after({}) == (Proof.UNCERTIFIED, "no limit was tested")
    assert state_after_promotion({}, window_days=90)[0] is Proof.UNCERTIFIED


def test_a_refuted_certificate_does_not_come_back_by_rolling_back() -> None:
    """The bundle that was DEGRADED is so again; any other one is judged afresh."""
    history = [
        row(1, Proof.CERTIFIED),
        row(5, Proof.DEGRADED, reason="it lost"),
        row(7, Proof.CERTIFIED, "b2"),
    ]
    assert after({"* *": PROVEN}, bundle="b1", history=history) == (Proof.DEGRADED, "it lost")
    assert after({"* *": PROVEN}, bundle="b3", history=history)[0] is Proof.CERTIFIED


def test_a_decision_knows_the_states_set_before_it() -> None:
    """Not the one of its own instant; promotion of another bundle ends it."""
    states = [row(10, Proof.CERTIFIED), row(20, Proof.DEGRADED), row(30, Proof.CERTIFIED, "b2")]
    degraded = [t for t in range(5, 40) if is_degraded_at(states, t)]
    assert degraded == list(range(21, 31))
    assert not is_degraded_at([], 5)


@pytest.mark.parametrize("state", list(Proof))
def test_the_news_fits_a_phone_and_shows_no_markup_of_others(state: Proof) -> None:
    """Lines of at most 38 characters, foreign text escaped, green only where proven."""
    text = messages.state_changed(
        state,
        messages.Look(zone=ZoneInfo("Europe/Berlin"), banner="<i>DEMO</i> " * 8),
        reason="net <b>+0.12</b> R & more, at least +0.02, n_eff 210, last 365 days",
        at_ms=1_700_000_000_000,
        bundle="20260101-0123456789",
    )
    assert all(len(messages.plain(line)) <= messages.WIDTH for line in text.split("\n"))
    assert "<i>" not in text
    assert "Net &lt;b&gt;+0.12&lt;/b&gt; R &amp; more" in text
    assert (messages.GREEN in text) == (state is Proof.CERTIFIED)
    assert f"<b>{state}</b>" in text


def test_a_withdrawal_says_what_was_earned_and_promised() -> None:
    """And how strong the evidence is."""
    assert degraded_reason(e_peak=23.4, alpha=0.05, n=112, r=-0.081, promise_r=0.103) == (
        "net -0.08 R, promised at least +0.10, n 112; evidence 23 to 1 against the promise,"
        " 20 is enough"
    )
