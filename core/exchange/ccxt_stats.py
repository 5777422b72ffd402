"""What ccxt knows of a symbol beside candles: its record, funding and open interest.

Each function takes the client with the market list and the adapter's `call`, which paces, retries
and words the errors; all may raise ExchangeError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from core.domain import FundingRate, Market
from core.funding_law import lawful_rates
from core.timeframe import HOUR_MS

Call = Callable[[str, Callable[[Any], Any]], Any]  # what it is, and the request of a client

_PAGE = 100
_PAGES = 400
_PAGES_FORWARD = 4000  # an exchange whose every page is a little further on would never end
_NUMBERED = ("bitget",)  # funding by numbered pages, newest first; elsewhere forward from `since`
_MAX_FEE_FRAC = 0.1  # no exchange takes a tenth: such a record is damaged
_LONGEST_MS = 8 * HOUR_MS  # between two settlements


def market_records(
    client: Any, symbols: tuple[str, ...], *, observed_tick: Callable[[str], float]
) -> dict[str, Market]:
    """Return the records of the spot and swap symbols that are listed; the others are absent.

    A number that cannot be counted with, a fee of 300 %, is taken for one that is not stated.
    """
    found = {symbol: client.markets.get(symbol) for symbol in symbols}
    return {
        symbol: _market(client, symbol, record, observed_tick)
        for symbol, record in found.items()
        if isinstance(record, dict) and (record.get("spot") or record.get("swap"))
    }


def _market(
    client: Any, symbol: str, record: dict[str, Any], observed_tick: Callable[[str], float]
) -> Market:
    tick = _step(_inside(record, "precision", "price"), client.precisionMode)
    return Market(
        symbol=symbol,
        kind="spot" if record.get("spot") else "swap",
        tick=tick or observed_tick(symbol),
        step=_step(_inside(record, "precision", "amount"), client.precisionMode),
        min_qty=_stated(_inside(record, "limits", "amount", "min")) or 0.0,
        min_cost_usd=_stated(_inside(record, "limits", "cost", "min")) or 0.0,
        contract_size=_stated(record.get("contractSize")) or 1.0,
        active=record.get("active") is not False,
        fallback=not tick,
        **_fees(record),
    )


def offers_funding(client: Any, symbol: str) -> bool:
    """Say whether there are settlements of a symbol to be had."""
    return ":" in symbol and bool(client.has.get("fetchFundingRateHistory"))


def funding_rates(
    client: Any, call: Call, symbol: str, *, start_ms: int, end_ms: int, now_ms: int
) -> list[FundingRate]:
    """Return the lawful settlements in [start_ms, end_ms), oldest first."""
    read = _numbered if client.id in _NUMBERED else _forward
    rows = read(call, symbol, start_ms, end_ms, now_ms)
    pairs = [(row.get("timestamp"), row.get("fundingRate")) for row in rows]
    return lawful_rates(pairs, start_ms=start_ms, end_ms=end_ms)[0]


def _numbered(
    call: Call, symbol: str, start_ms: int, end_ms: int, now_ms: int
) -> list[dict[str, Any]]:
    """Read pages counted from the newest settlement, back to the start.

    At least one settlement in eight hours lies on the pages before an older window: those are
    skipped, but for one. Where that page begins inside the window all the same, settlements were
    left out, and the pages are read from the first.
    """
    skipped = max(0, (now_ms - end_ms) // _LONGEST_MS // _PAGE - 1)
    page = _page(call, symbol, None, {"pageNo": skipped + 1})
    if skipped and (not page or max(row["timestamp"] for row in page) < end_ms):
        skipped, page = 0, _page(call, symbol, None, {"pageNo": 1})
    rows = page
    for number in range(skipped + 2, skipped + _PAGES + 1):
        if not page or min(row["timestamp"] for row in page) < start_ms:
            break
        page = _page(call, symbol, None, {"pageNo": number})
        rows = rows + page
    return rows


def _forward(
    call: Call, symbol: str, start_ms: int, end_ms: int, _now_ms: int
) -> list[dict[str, Any]]:
    """Read from the start on; an exchange that ignores `since` gives its newest page alone."""
    rows: list[dict[str, Any]] = []
    cursor_ms = start_ms
    for _ in range(_PAGES_FORWARD):
        if cursor_ms >= end_ms:
            break
        page = _page(call, symbol, cursor_ms, {})
        newest_ms = max((row["timestamp"] for row in page), default=cursor_ms - 1)
        if newest_ms < cursor_ms:
            break
        rows += page
        cursor_ms = newest_ms + 1
    return rows


def _page(
    call: Call, symbol: str, since_ms: int | None, params: dict[str, Any]
) -> list[dict[str, Any]]:
    def request(client: Any) -> list[dict[str, Any]]:
        page = client.fetch_funding_rate_history(symbol, since_ms, _PAGE, params)
        return [row for row in page if isinstance(row.get("timestamp"), int)]

    found: list[dict[str, Any]] = call(f"funding of {symbol}", request)
    return found


def offers_open_interest(client: Any, symbol: str) -> bool:
    """Say whether the open interest of a symbol is to be had."""
    return ":" in symbol and bool(client.has.get("fetchOpenInterest"))


def open_interest_qty(client: Any, call: Call, symbol: str) -> float | None:
    """Return the open interest in base units as it is now; None where no number is given.

    ccxt counts in contracts where a contract is not one unit of the base.
    """
    amount = call(
        f"open interest of {symbol}",
        lambda client: client.fetch_open_interest(symbol).get("openInterestAmount"),
    )
    qty = _stated(amount)
    size = _stated(_inside(client.markets, symbol, "contractSize")) or 1.0
    return None if qty is None else qty * size


def _step(precision: Any, mode: int) -> float:
    """Return the step a ccxt precision means, 0.0 where it means none: significant digits."""
    from ccxt.base.decimal_to_precision import DECIMAL_PLACES, SIGNIFICANT_DIGITS

    stated = _stated(precision)
    if stated is None or mode == SIGNIFICANT_DIGITS:
        return 0.0
    return float(f"1e-{int(stated)}") if mode == DECIMAL_PLACES else stated


def _inside(record: Any, *names: str) -> Any:
    """Return what lies at the end of some names, None where one of them is not there."""
    for name in names:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _fees(record: dict[str, Any]) -> dict[str, float]:
    """Return the fees a record states; the rest keeps Market's defaults."""
    stated = {
        f"{leg}_frac": _stated(record.get(leg), low=-_MAX_FEE_FRAC, high=_MAX_FEE_FRAC)
        for leg in ("maker", "taker")
    }
    return {name: value for name, value in stated.items() if value is not None}


def _stated(value: Any, *, low: float = 0.0, high: float = math.inf) -> float | None:
    """Return a number in [low, high), or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if low <= number < high else None
