"""The scan: every closed bar once, its candidates scored, judged, delivered and stored."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core import features, signals
from core.app import App, wall_ms
from core.config import Config
from core.domain import (
    Candidate,
    Candles,
    Delivery,
    Origin,
    Series,
    Verdict,
)
from core.execution import new_states, order_of, state_to_json
from core.jobs.explain import funnel_of, uncounted
from core.jobs.guards import decision_of, past_decisions, run_guards
from core.jobs.judge import Judge
from core.jobs.sync import frontier_ms
from core.jobs.tell import queue_new_signals
from core.market_context import spot_of
from core.store import candles as store
from core.store import markets as market_store
from core.store import operation
from core.store import signals as signal_store
from core.store.db import Database
from core.store.gaps import missing_ms
from core.store.seams import seams_ms
from core.timeframe import floor_ms, higher_timeframes, tf_ms

log = logging.getLogger("trader.scan")


@dataclass(slots=True)
class ScanReport:
    """What one scan did, for the log, `--json` and `--explain`."""

    n_bars: int = 0
    n_setups: int = 0
    n_stored: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    gates: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "bars": self.n_bars,
            "setups": self.n_setups,
            "refused": dict(self.refusals),
            "gate": dict(self.gates),
            "delivery": dict(self.deliveries),
            "stored": self.n_stored,
            "waiting": self.waiting,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """The scan of one series: its result, the bar it reached, and bars that were not there.

    `is_first`: nothing was scanned live before, but a retro-scan may have counted these bars.
    """

    series: Series
    result: signals.ScanResult
    position_ms: int
    absent_ms: Sequence[int] = ()
    is_first: bool = False


def leader_of(symbol: str) -> str | None:
    """Return the symbol whose moves lead another: Bitcoin's in the same market, or None.

    >>> leader_of("ETH/USDT:USDT"), leader_of("ETH/USDT"), leader_of("BTC/USDT")
    ('BTC/USDT:USDT', 'BTC/USDT', None)
    """
    leader = f"BTC/{symbol.partition('/')[2]}"
    return None if leader == symbol else leader


def settled_ms(
    db: Database, config: Config, symbols: Iterable[str], *, now_ms: int
) -> dict[str, int]:
    """Return, for each symbol, the instant up to which it and those it is read with are settled.

    Those are its leader and a perpetual's spot pair. One that is not among the configured symbols
    is not waited for: nobody downloads it.
    """
    exchange = config.exchange.id
    wanted = {
        symbol: [s for s in (leader_of(symbol), spot_of(symbol)) if s in config.symbols]
        for symbol in symbols
    }
    reached = {
        name: frontier_ms(db, store.base_series(db, exchange, name))
        for name in {*wanted, *(name for others in wanted.values() for name in others)}
    }
    return {
        symbol: min(now_ms, reached[symbol], *(reached[name] for name in others))
        for symbol, others in wanted.items()
    }


def lacks_history(db: Database, config: Config, series: Series) -> str:
    """Return why a series cannot be scanned yet, or ''."""
    base = store.series_row(db, store.base_series(db, series.exchange, series.symbol))
    if base is None or not base.n_rows:
        return "no candles; run: python download_data.py"
    if base.rooted:
        return ""
    for timeframe in (series.timeframe, *higher_timeframes(series.timeframe)):
        row = store.series_row(db, Series(series.exchange, series.symbol, timeframe))
        n = row.n_rows if row else 0
        is_whole = row is not None and row.rooted
        if n < config.signals.lookback_candles and not is_whole:
            return f"history: {n} of {config.signals.lookback_candles} bars of {timeframe}"
    return ""


def scan_input(
    db: Database, config: Config, series: Series, *, n_bars: int, known_ms: int
) -> signals.ScanInput:
    """Read the windows that deciding the last `n_bars` bars of a series needs."""
    lookback = config.signals.lookback_candles + n_bars

    def bars(symbol: str, timeframe: str, n: int) -> Candles:
        name = Series(series.exchange, symbol, timeframe)
        return store.last_candles(db, name, n, known_at_ms=known_ms)

    own = bars(series.symbol, series.timeframe, lookback)
    first, second = higher_timeframes(series.timeframe)
    base = store.base_series(db, series.exchange, series.symbol)
    n_base = signals.NOISE_BARS + n_bars * tf_ms(series.timeframe) // tf_ms(base.timeframe)
    leader = leader_of(series.symbol)
    start_ms = int(own.ts_ms[0]) if len(own) else known_ms
    return signals.ScanInput(
        series=series,
        bars=own,
        higher=(bars(series.symbol, first, lookback), bars(series.symbol, second, lookback)),
        base=bars(series.symbol, base.timeframe, n_base),
        leader=None if leader is None else bars(leader, series.timeframe, lookback),
        market=market_store.market_of(db, series.exchange, series.symbol),
        missing_ms=missing_ms(db, base, start_ms=start_ms, end_ms=known_ms),
        seams_ms=seams_ms(db, series.exchange, series.symbol),
        context=market_store.context_of(
            db,
            series,
            first_ms=known_ms - n_bars * tf_ms(series.timeframe),
            known_ms=known_ms,
        ),
    )


def scan_series(app: App, series: Series, *, known_ms: int, position: int | None) -> Found | str:
    """Scan the closed bars of one series that were not scanned yet; or say why it waits."""
    db, config, step = app.db, app.config, tf_ms(series.timeframe)
    newest, is_first = floor_ms(known_ms, step) - step, position is None
    if position is None:
        position = _first_position(app, series, newest)
    if newest <= position:
        return ""
    lack = lacks_history(db, config, series)
    if lack:
        return lack
    n_bars = (newest - position) // step
    data = scan_input(db, config, series, n_bars=n_bars, known_ms=newest + step)
    result = signals.scan(data, config, first_ms=position + 1, last_ms=newest)
    absent = {*range(position + step, newest + 1, step)}.difference(data.bars.ts_ms.tolist())
    return Found(series, result, newest, sorted(absent), is_first)


def _completed(app: App, series: Series, ts_ms: int) -> Found:
    """Scan one bar that was completed after the scan had passed it."""
    known_ms = ts_ms + tf_ms(series.timeframe)
    data = scan_input(app.db, app.config, series, n_bars=1, known_ms=known_ms)
    return Found(series, signals.scan(data, app.config, first_ms=ts_ms, last_ms=ts_ms), ts_ms)


def _first_position(app: App, series: Series, newest_ms: int) -> int:
    """Return where an unscanned series starts: before its newest closed bar.

    Under a new strategy_id it goes on where the older one had come to.
    """
    older = app.db.value(
        "SELECT max(position_ms) FROM scan_positions WHERE exchange = ? AND symbol = ?"
        " AND timeframe = ?",
        series,
    )
    return int(older) if older is not None else newest_ms - tf_ms(series.timeframe)


def scan_all(
    app: App,
    *,
    now_ms: int,
    symbols: Sequence[str] = (),
    timeframes: Sequence[str] = (),
    dry_run: bool = False,
    found_ms: int | None = None,
) -> ScanReport:
    """Scan what closed, store all candidates and queue their messages, in one transaction.

    `now_ms` is the minute the scan stands for, `found_ms` the market time at which it runs: what
    can no longer be acted on then is late.
    """
    report, found = ScanReport(), list[Found]()
    timeframes = timeframes or app.config.timeframes
    known = settled_ms(app.db, app.config, symbols or app.config.symbols, now_ms=now_ms)
    positions = signal_store.positions(app.db, app.strategy)
    for symbol, known_ms in known.items():
        for timeframe in timeframes:
            series = Series(app.config.exchange.id, symbol, timeframe)
            one = scan_series(app, series, known_ms=known_ms, position=positions.get(series))
            if isinstance(one, Found):
                found.append(one)
            elif one:
                report.waiting[f"{symbol} {timeframe}"] = one
    for series, ts_ms in signal_store.completed_bars(app.db, app.strategy):
        settled = known.get(series.symbol, 0) >= ts_ms + tf_ms(series.timeframe)
        if settled and series.timeframe in timeframes:
            found.append(_completed(app, series, ts_ms))
    if found:
        _store_found(app, found, report, now_ms=found_ms or now_ms, dry_run=dry_run)
    return report


def _store_found(
    app: App, found: Sequence[Found], report: ScanReport, *, now_ms: int, dry_run: bool
) -> None:
    candidates = [candidate for one in found for candidate in one.result.candidates]
    candidates.sort(key=lambda candidate: candidate.decided_ms)
    judge = Judge.of(app) if candidates else None
    verdicts = judge.verdicts(candidates) if judge else []
    with app.db.write():
        signal_store.record_strategy(app.db, app.config, now_ms=wall_ms())
        delivered = _delivered(app, candidates, verdicts, now_ms=now_ms)
        _count(report, found, verdicts, delivered)
        if dry_run:
            return
        rows = _live_rows(app, candidates, verdicts, delivered)
        report.n_stored = store_rows(app, rows, candidates, now_ms=now_ms)
        for one in found:
            signal_store.move_position(
                app.db, one.series, app.strategy, position_ms=one.position_ms
            )
            signal_store.forget_skipped(app.db, one.series, app.strategy, one.position_ms)
            signal_store.note_skipped(app.db, one.series, app.strategy, one.absent_ms)
            signal_store.count_funnel(app.db, one.series, app.strategy, _funnel(app, one))


def _funnel(app: App, found: Found) -> list[tuple[int, str, int]]:
    result, opens_ms = found.result, found.result.opens_ms
    if found.is_first:
        opens_ms = uncounted(app.db, found.series, app.strategy, opens_ms)
    counted = {*opens_ms.tolist()}
    refused = [(one.ts_ms, one.reason) for one in result.rejections if one.ts_ms in counted]
    taken_ms = [one.ts_ms for one in result.candidates if one.ts_ms in counted]
    return funnel_of(opens_ms, [*taken_ms, *(ts_ms for ts_ms, _ in refused)], refused)


def _live_rows(
    app: App,
    candidates: Sequence[Candidate],
    verdicts: Sequence[Verdict],
    delivered: Sequence[tuple[Delivery, str]],
) -> list[dict[str, Any]]:
    """Return the rows of candidates that nobody has followed yet."""
    rows = []
    for candidate, verdict, how in zip(candidates, verdicts, delivered, strict=True):
        states = new_states(order_of(candidate.plan, candidate.series.timeframe))
        row = signal_store.signal_row(
            candidate,
            verdict,
            strategy=app.strategy,
            origin=Origin.LIVE,
            scan_stride=1,
            delivery=how[0],
            delivery_reason=how[1],
            base_timeframe=store.base_series(app.db, *candidate.series[:2]).timeframe,
            exec_state=state_to_json(states),
        )
        rows.append(row)
    return rows


def store_rows(
    app: App, rows: Sequence[dict[str, Any]], candidates: Sequence[Candidate], *, now_ms: int
) -> int:
    """Insert candidates with their features and the messages of those that are told."""
    vectors = [candidate.features for candidate in candidates]
    numbers = signal_store.insert_signals(app.db, rows, vectors, version=features.VERSION)
    live = [
        {**row, "id": number}
        for row, number in zip(rows, numbers, strict=True)
        if number and row["origin"] == "live"
    ]
    queue_new_signals(app, live, now_ms=now_ms)
    return sum(number > 0 for number in numbers)


def _delivered(
    app: App, candidates: Sequence[Candidate], verdicts: Sequence[Verdict], *, now_ms: int
) -> list[tuple[Delivery, str]]:
    """Run the guards over the last 30 days' decisions and these new ones."""
    if not candidates:
        return []
    first_ms, last_ms = candidates[0].decided_ms, candidates[-1].decided_ms
    past = past_decisions(app, first_ms=first_ms, end_ms=last_ms + 1)
    new = [
        decision_of(candidate, verdict, late=now_ms > candidate.plan.actionable_ms)
        for candidate, verdict in zip(candidates, verdicts, strict=True)
    ]
    fresh = {decision.identity for decision in new}
    past = [decision for decision in past if decision.identity not in fresh]
    pauses = operation.pauses(app.db)
    return run_guards(app.config, [*past, *new], muted=app.muted, pauses=pauses)[len(past) :]


def _count(
    report: ScanReport,
    found: Sequence[Found],
    verdicts: Iterable[Verdict],
    delivered: Iterable[tuple[Delivery, str]],
) -> None:
    for one in found:
        report.n_bars += one.result.n_bars
        report.n_setups += one.result.n_setups
        report.refusals.update(rejection.reason for rejection in one.result.rejections)
    report.gates.update(f"{verdict.gate} {verdict.reason}".strip() for verdict in verdicts)
    report.deliveries.update(f"{how} {why}".strip() for how, why in delivered)
