"""What the engine says of itself fits a phone, is escaped, and says what it must."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from core import notices
from core.messages import plain

BERLIN = ZoneInfo("Europe/Berlin")
AT_MS = 1_717_243_200_000  # 2024-06-01 12:00 UTC, 14:00 in Berlin
SIGNAL = {"signal_id": 12, "symbol": "BTC/USDT:USDT", "timeframe": "1h", "direction": "long"}
words = st.text(max_size=600)


@given(text=words, n=st.integers(1, 10**6), job=st.sampled_from(["incremental_sync", "x_y"]))
def test_every_line_fits_and_no_foreign_text_is_markup(text: str, n: int, job: str) -> None:
    """Whatever an error, a symbol or a setting says."""
    row = {**SIGNAL, "symbol": text, "direction": text}
    told = [
        notices.failure(job, text, n=n),
        notices.recovery(job, lasted_s=n / 7, n=n),
        notices.data_old({text: AT_MS}, [row] * 40, zone=BERLIN),
        notices.data_old({text: AT_MS, "b": AT_MS}, [], zone=BERLIN),
        notices.data_back(
            [{**row, "kind": text, "at_ms": AT_MS}] * 40, since_ms=AT_MS, zone=BERLIN
        ),
        notices.settings_changed([text] * 40),
        notices.settings_refused(text),
    ]
    for message in told:
        assert message.count("<") == 2  # the head's own tag
        assert message.replace("<b>", "").replace("</b>", "").count(">") == 0
        assert len(message) <= 4096
        for line in plain(message).splitlines():
            assert len(line) <= notices.WIDTH


def test_the_messages_read_so() -> None:
    """Looked at: one of each."""
    assert plain(notices.failure("incremental_sync", "bitget: down; it is retried", n=7)) == (
        "FAILURE\nFetching candles fails (7 times).\nEverything else goes on; this is tried\n"
        "again.\n\nbitget: down; it is retried"
    )
    assert plain(notices.recovery("auto_train", lasted_s=5400, n=1)) == (
        "RECOVERED\nWeekly training works again, after\n1 h 30 min and 1 failed run."
    )
    assert plain(notices.data_old({"a": AT_MS, "b": AT_MS + 1}, [SIGNAL], zone=BERLIN)) == (
        "DATA IS OLD\nAll candles: none since 01 Jun 14:00.\n\n"
        "These cannot be followed now; look at\nthem yourself:\n· #S12 BTC/USDT 1h long"
    )
    happened = [{**SIGNAL, "kind": "tp1", "at_ms": AT_MS}]
    assert plain(notices.data_back(happened, since_ms=AT_MS, zone=BERLIN)) == (
        "DATA IS BACK\nCandles are here again; they were\nmissing from 01 Jun 14:00.\n\n"
        "· 14:00 #S12 BTC/USDT 1h long TP1"
    )
    assert plain(notices.data_old({"a": AT_MS}, [], zone=BERLIN)).endswith(
        "a: none since 01 Jun 14:00.\nNo open signal was told to you."
    )
