"""Every setting an owner can turn, typed, ranged and with its default; no file is touched here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from core.config_notify import Notify
from core.section import IsoDate, SecretKeys, Section, Timeframe, Weekday, Word, Zone
from core.timeframe import MINUTE_MS, is_derivable, tf_ms

STRATEGY_VERSION = 1  # raise when code changes a candidate or its outcome


class App(Section):
    """Where things are kept, and the zone times are shown in."""

    data_dir: Word = "data"
    db_path: Word = "data/ohlcv.db"
    timezone: Zone = "UTC"


class Replay(Section):
    """A folder of Parquet candles served as an exchange would, at market time."""

    path: Word = "data/replay"
    start: IsoDate | None = None
    speed: Annotated[float, Field(ge=0)] = 1800.0


class Exchange(Section):
    """Which exchange, and how hard it may be asked."""

    id: Word = "bitget"
    rate_limit_ms: Annotated[int, Field(ge=1, le=60_000)] = 50
    ccxt: SecretKeys = Field(default_factory=dict)
    replay: Replay = Replay()


class Resample(Section):
    """How far back each cycle rebuilds derived bars."""

    lookback_minutes: Annotated[int, Field(ge=1, le=100_000)] = 180


class Data(Section):
    """The timeframe that is downloaded, and those made from it."""

    base_timeframe: Timeframe = "1m"
    derived_timeframes: tuple[Timeframe, ...] = ("5m", "15m", "1h", "4h", "1d")
    resample: Resample = Resample()

    @model_validator(mode="after")
    def _derivable(self) -> Data:
        bad = [t for t in self.derived_timeframes if not is_derivable(t, self.base_timeframe)]
        if bad:
            raise ValueError(
                f"derived_timeframes: {bad[0]} is no multiple of base_timeframe"
                f" {self.base_timeframe}"
            )
        return self


class Backfill(Section):
    """History before the first start."""

    start_date: IsoDate = date(2020, 1, 1)
    batch_limit: Annotated[int, Field(ge=1, le=1000)] = 200


class Incremental(Section):
    """The minute cycle."""

    run_seconds: Annotated[int, Field(ge=1, le=3600)] = 20
    overlap_candles: Annotated[int, Field(ge=1, le=500)] = 5
    batch_limit: Annotated[int, Field(ge=1, le=1000)] = 200


class Fibo(Section):
    """Pivots, impulses and the levels drawn on them."""

    piv_window: Annotated[int, Field(ge=2, le=50)] = 5
    anchors_to_consider: Annotated[int, Field(ge=1, le=20)] = 3
    min_impulse_atr: Annotated[float, Field(ge=0, le=50)] = 3.0
    entry_level: Annotated[float, Field(gt=0, lt=1)] = 0.618
    tp1_level: Annotated[float, Field(gt=1, le=10)] = 1.272
    tp2_level: Annotated[float, Field(gt=1, le=10)] = 1.618

    @model_validator(mode="after")
    def _ordered(self) -> Fibo:
        if self.tp2_level <= self.tp1_level:
            raise ValueError(
                f"tp2_level {self.tp2_level} must lie beyond tp1_level {self.tp1_level}"
            )
        return self


class Avwap(Section):
    """The volume-weighted average price anchored at the impulse's start."""

    use: bool = True


class Fees(Section):
    """Fees that replace the exchange's own record; null means: ask the record."""

    maker_pct: Annotated[float, Field(ge=-1, le=5)] | None = None
    taker_pct: Annotated[float, Field(ge=-1, le=5)] | None = None
    funding_pct_8h: Annotated[float, Field(ge=-5, le=5)] = 0.01


class Evaluation(Section):
    """The stake that turns percent into dollars."""

    usd_per_trade: Annotated[float, Field(gt=0)] = 1000.0


class Signals(Section):
    """The strategy."""

    setups: tuple[Literal["limit", "reclaim"], ...] = ("limit", "reclaim")
    lookback_candles: Annotated[int, Field(ge=50, le=5000)] = 300
    atr_period: Annotated[int, Field(ge=2, le=200)] = 14
    atr_mult_sl: Annotated[float, Field(gt=0, le=20)] = 0.5
    fibo: Fibo = Fibo()
    avwap: Avwap = Avwap()
    min_tp_net_pct: Annotated[float, Field(ge=0, le=50)] = 1.0
    max_cost_r: Annotated[float, Field(gt=0, le=5)] = 0.10
    fees: Fees = Fees()
    slippage_pct: Annotated[float, Field(ge=0, le=5)] = 0.02
    validity_candles: Annotated[int, Field(ge=1, le=1000)] = 24
    evaluation: Evaluation = Evaluation()

    @property
    def reclaim_reach_bars(self) -> int:
        """How many bars before P1 its P0 may lie, to be in the window of every possible reclaim."""
        return self.lookback_candles - self.validity_candles - 2 * self.fibo.piv_window - 1

    @model_validator(mode="after")
    def _reclaim_possible(self) -> Signals:
        if "reclaim" in self.setups and not (self.avwap.use and self.reclaim_reach_bars > 0):
            raise ValueError(
                "setups: reclaim needs avwap.use: true, and lookback_candles"
                f" {self.lookback_candles} well above validity_candles {self.validity_candles}"
            )
        return self


RISK_MODES = {  # risk per trade in percent of equity, maximum leverage
    "conservative": (0.5, 3.0),
    "normal": (1.0, 5.0),
    "aggressive": (2.0, 10.0),
}


class Risk(Section):
    """How much is at stake."""

    mode: Literal["conservative", "normal", "aggressive"] = "normal"
    equity_usd: Annotated[float, Field(gt=0)] = 10_000.0
    risk_per_trade_pct: Annotated[float, Field(gt=0, le=10)] | None = None
    max_leverage: Annotated[float, Field(ge=1, le=125)] | None = None
    liquidation_buffer_pct: Annotated[float, Field(ge=0, le=50)] = 1.0
    spot_long_only: bool = False

    @property
    def trade_pct(self) -> float:
        """Risk per trade in percent of equity: the mode's, unless set."""
        return self.risk_per_trade_pct or RISK_MODES[self.mode][0]

    @property
    def leverage_cap(self) -> float:
        """The maximum leverage: the mode's, unless set."""
        return self.max_leverage or RISK_MODES[self.mode][1]


class Execution(Section):
    """How a trade is followed to its end."""

    delivery_delay_s: Annotated[int, Field(ge=0, le=240)] = 120
    tp1_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    be_on_tp1: bool = True
    trail_atr_mult: Annotated[float, Field(ge=0, le=50)] = 2.0
    max_hold_candles: Annotated[int, Field(ge=1, le=5000)] = 96


class Calibration(Section):
    """Whether and how raw scores become probabilities."""

    enabled: bool = True
    path: Word = "models/meta_cal.pkl"
    method: Literal["auto", "identity", "platt", "binned_isotonic", "isotonic"] = "auto"


class GatingOverride(Section):
    """One cell of `per_pair_tf`."""

    min_ev_pct: Annotated[float, Field(ge=-50, le=50)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    source: Literal["tuner", "owner"] = "owner"
    bundle: str | None = None


class RegimeOverride(Section):
    """One entry of `per_regime`."""

    min_ev_pct: Annotated[float, Field(ge=-50, le=50)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class Gating(Section):
    """What passes."""

    use_ev: bool = True
    min_ev_pct: Annotated[float, Field(ge=-50, le=50)] = 0.0
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.55
    costs_mode: Literal["auto", "maker", "taker"] = "auto"
    target_winrate_pct: Annotated[float, Field(gt=0, lt=100)] = 55.0
    window_days: Annotated[int, Field(ge=7, le=3650)] = 365
    min_closed_samples: Annotated[int, Field(ge=10, le=100_000)] = 50
    per_pair_tf: dict[str, dict[str, GatingOverride]] = Field(default_factory=dict)
    per_regime: dict[
        Literal["trend", "range", "vol_low", "vol_normal", "vol_high"], RegimeOverride
    ] = Field(default_factory=dict)


class Meta(Section):
    """The meta-model."""

    enabled: bool = True
    model_path: Word = "models/meta_xgb.pkl"
    calibration: Calibration = Calibration()
    gating: Gating = Gating()


class Models(Section):
    """Models; there is one."""

    meta: Meta = Meta()


class WeeklyJob(Section):
    """One weekly job, in UTC."""

    enabled: bool = True
    weekday: Weekday = "sun"
    hour: Annotated[int, Field(ge=0, le=23)] = 3
    minute: Annotated[int, Field(ge=0, le=59)] = 0


class Auto(Section):
    """The weekly work."""

    train: WeeklyJob = WeeklyJob()
    calibrate: WeeklyJob = WeeklyJob(minute=30)
    tune: WeeklyJob = WeeklyJob(hour=4)
    summary: WeeklyJob = WeeklyJob(weekday="mon", hour=8)


class Guards(Section):
    """Brakes on delivery; 0 switches one off."""

    cooldown_minutes: Annotated[int, Field(ge=0, le=100_000)] = 60
    max_open: Annotated[int, Field(ge=0, le=10_000)] = 6
    max_open_per_side: Annotated[int, Field(ge=0, le=10_000)] = 4
    max_consecutive_stops: Annotated[int, Field(ge=0, le=1000)] = 5
    stop_pause_hours: Annotated[int, Field(ge=0, le=1000)] = 12
    max_drawdown_r: Annotated[float, Field(ge=0, le=1000)] = 10.0
    locked_symbols: tuple[str, ...] = ()


class Backup(Section):
    """Copies of the database."""

    enabled: bool = True
    dir: Word = "data/backups"
    keep: Annotated[int, Field(ge=1, le=1000)] = 7


class Config(Section):
    """The whole of `config.yaml`."""

    app: App = App()
    exchange: Exchange = Exchange()
    symbols: Annotated[tuple[Word, ...], Field(min_length=1)] = ("BTC/USDT:USDT", "ETH/USDT:USDT")
    timeframes: Annotated[tuple[Timeframe, ...], Field(min_length=1)] = ("15m", "1h", "4h")
    data: Data = Data()
    backfill: Backfill = Backfill()
    incremental: Incremental = Incremental()
    signals: Signals = Signals()
    risk: Risk = Risk()
    execution: Execution = Execution()
    models: Models = Models()
    auto: Auto = Auto()
    guards: Guards = Guards()
    backup: Backup = Backup()
    notify: Notify = Notify()

    @field_validator("symbols", "timeframes")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise ValueError(f"{twice[0]} stands there twice; each may only once")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        base, delay_s = self.data.base_timeframe, self.execution.delivery_delay_s
        for timeframe in self.timeframes:
            if timeframe != base and not is_derivable(timeframe, base):
                raise ValueError(f"timeframes: {timeframe} is no multiple of base_timeframe {base}")
            if delay_s * 1000 >= tf_ms(timeframe) > MINUTE_MS:
                raise ValueError(
                    f"execution.delivery_delay_s: {delay_s} must be shorter than the timeframe"
                    f" {timeframe}"
                )
        return self


def config_from(raw: Mapping[str, Any]) -> Config:
    """Return the typed settings of a mapping of plain values, as YAML gives them.

    Raises pydantic.ValidationError; `config_file` turns that into one line with the remedy.
    """
    return Config.model_validate_json(json.dumps(_in_data_dir(raw), default=str))


def _in_data_dir(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let the paths of what the engine writes, where left out, lie in `app.data_dir`."""
    app, backup = raw.get("app"), raw.get("backup", {})
    if not isinstance(app, dict) or not isinstance(app.get("data_dir"), str):
        return raw
    folder = app["data_dir"].rstrip("/")
    if isinstance(backup, dict):
        raw = {**raw, "backup": {"dir": f"{folder}/backups", **backup}}
    return {**raw, "app": {"db_path": f"{folder}/ohlcv.db", **app}}


def strategy_settings(config: Config) -> dict[str, Any]:
    """Return every setting that can change a candidate or its outcome, as plain JSON values."""
    return {
        "version": STRATEGY_VERSION,
        "base_timeframe": config.data.base_timeframe,
        "signals": config.signals.model_dump(mode="json", exclude={"evaluation"}),
        "risk": config.risk.model_dump(mode="json", exclude={"equity_usd"}),
        "execution": config.execution.model_dump(mode="json"),
    }


def strategy_id(config: Config) -> str:
    """Return the 12-digit name of the strategy: a hash of `strategy_settings`."""
    text = json.dumps(strategy_settings(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
