"""What ccxt knows of a symbol beside candles: its record, funding and open interest.

Each function takes the client with the market list and the adapter's `call`, which paces, retries
and words the errors; all may raise ExchangeError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.domain import FundingRate, Market
from core.funding_law import lawful_rates
from core.timeframe import HOUR_MS

Call = Callable[[str, Callable[[Any], Any]], Any]  # what it is, and the request of a client

_PAGE = 100
_PAGES = 400
_NUMBERED = ("bitget",)  # funding by numbered pages, newest first; elsewhere forward from `since`
_LONGEST_MS = 8 * HOUR_MS  # between two settlements


def market_records(
    client: Any, symbols: tuple[str, ...], *, observed_tick: Callable[[str], float]
) -> dict[str, Market]:
    """Return the records of the spot and swap symbols that are listed; the others are absent."""
    found = {symbol: client.markets.get(symbol) for symbol in symbols}
    return {
        symbol: _market(client, record, observed_tick)
        for symbol, record in found.items()
        if record is not None and (record.get("spot") or record.get("swap"))
    }


def _market(client: Any, record: dict[str, Any], observed_tick: Callable[[str], float]) -> Market:
    limits = record.get("limits") or {}
    precision = record.get("precision") or {}
    tick = _step(precision.get("price"), client.precisionMode)
    return Market(
        symbol=record["symbol"],
        kind="spot" if record.get("spot") else "swap",
        tick=tick or observed_tick(record["symbol"]),
        step=_step(precision.get("amount"), client.precisionMode),
        min_qty=_minimum(limits, "amount"),
        min_cost_usd=_minimum(limits, "cost"),
        contract_size=float(record.get("contractSize") or 1.0),
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
    while cursor_ms < end_ms:
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
    page = call(
        f"funding of {symbol}",
        lambda client: client.fetch_funding_rate_history(symbol, since_ms, _PAGE, params),
    )
    return [row for row in page if row.get("timestamp") is not None]


def offers_open_interest(client: Any, symbol: str) -> bool:
    """Say whether the open interest of a symbol is to be had."""
    return ":" in symbol and bool(client.has.get("fetchOpenInterest"))


def open_interest_qty(client: Any, call: Call, symbol: str) -> float | None:
    """Return the open interest in base units as it is now; None where no number is given.

    ccxt counts in contracts where a contract is not one unit of the base.
    """
    answer = call(f"open interest of {symbol}", lambda client: client.fetch_open_interest(symbol))
    amount = answer.get("openInterestAmount")
    size = float(client.markets[symbol].get("contractSize") or 1.0)
    return float(amount) * size if amount is not None else None


def _step(precision: float | int | None, mode: int) -> float:
    """Return the step a ccxt precision means, 0.0 where it means none: significant digits."""
    from ccxt.base.decimal_to_precision import DECIMAL_PLACES, SIGNIFICANT_DIGITS

    if precision is None or mode == SIGNIFICANT_DIGITS:
        return 0.0
    return float(f"1e-{int(precision)}") if mode == DECIMAL_PLACES else float(precision)


def _minimum(limits: dict[str, Any], of: str) -> float:
    return float((limits.get(of) or {}).get("min") or 0.0)


def _fees(record: dict[str, Any]) -> dict[str, float]:
    """Return the fees a record states; the rest keeps Market's defaults."""
    stated = {f"{leg}_frac": record.get(leg) for leg in ("maker", "taker")}
    return {name: float(value) for name, value in stated.items() if value is not None}
