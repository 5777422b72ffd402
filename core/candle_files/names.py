"""What the name and place of a candle file say: our own names, archives', files of many series."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from core.errors import ConfigError, DataError
from core.timeframe import tf_ms

ARCHIVE_EXCHANGE = "binance"  # whose public archive names its files BTCUSDT-1m-2024-01.zip
_CODE = r"[^\W_](?:[^\W_]|\.)*"  # letters of every script: some coins are named so
_TIMEFRAME = r"(?P<timeframe>\d+[mhd])"
_END = r"(-\d{4}(-\d{2})?)?\.(parquet|csv|csv\.gz|csv\.zip)"
_OWN = re.compile(
    rf"(?P<base>{_CODE})_(?P<quote>{_CODE}?)(_(?P<settle>{_CODE}))?-{_TIMEFRAME}{_END}"
)
_ARCHIVE = re.compile(rf"(?P<pair>[^\W_]+)-{_TIMEFRAME}-\d{{4}}-\d{{2}}(-\d{{2}})?\.(csv|zip)")
_MANY = re.compile(rf"[^\W_].*?-{_TIMEFRAME}{_END}")
_QUOTES = """
    USDT USDC FDUSD BUSD TUSD USDP USDS USD1 DAI USD EUR GBP JPY TRY BRL AUD ARS MXN PLN RON ZAR COP
    CZK UAH RUB NGN BIDR IDRT BKRW BVND BTC ETH BNB SOL XRP TRX DOGE DOT PAX UST VAI EURI
"""
_SYMBOL = re.compile(r"[^\s/:,\"]+/[^\s/:,\"]+(:[^\s/:,\"]+)?")
_BY_LENGTH = tuple(sorted(_QUOTES.split(), key=len, reverse=True))
# the archive's other candles: of a mark, an index, a premium; and of contracts counted, not coins
_NOT_TRADED = {"markPriceKlines", "indexPriceKlines", "premiumIndexKlines", "cm"}
_MARKETS = {"spot": "spot", "futures": "swap"}


class Form(StrEnum):
    """How a file says which series it holds."""

    OWN = "own"  # by its name, BTC_USDT-1m-2024.parquet
    ARCHIVE = "archive"  # by its name and place, spot/.../BTCUSDT-1m-2024-01.zip
    MANY = "many"  # row by row, in a column `symbol`


class CandleFile(NamedTuple):
    """One file and the series its name says it holds; `symbol` is '' where a column says it."""

    path: Path
    symbol: str
    timeframe: str
    form: Form = Form.OWN


def parse_name(path: Path) -> tuple[str, str] | None:
    """Return the unified symbol and timeframe a file's name says, or None if it says neither.

    >>> parse_name(Path("FIL_USDT_USDT-1m-2024.parquet")), parse_name(Path("BTC_USDT-5m.csv"))
    (('FIL/USDT:USDT', '1m'), ('BTC/USDT', '5m'))
    """
    match = _OWN.fullmatch(path.name)
    if match is None or not _is_timeframe(match["timeframe"]):
        return None
    settle = f":{match['settle']}" if match["settle"] else ""
    return f"{match['base']}/{match['quote']}{settle}", match["timeframe"]


def name_of(
    symbol: str, timeframe: str, *, year: int | None = None, suffix: str = ".parquet"
) -> str:
    """Return the file name of a series, as `parse_name` reads it."""
    years = "" if year is None else f"-{year:04d}"
    return f"{symbol.replace('/', '_').replace(':', '_')}-{timeframe}{years}{suffix}"


def name_of_many(timeframe: str, *, suffix: str = ".parquet") -> str:
    """Return the name of a file of many series of one timeframe."""
    return f"candles-{timeframe}{suffix}"


def is_symbol(text: str) -> bool:
    """Say whether a text is a unified symbol, as BTC/USDT or BTC/USDT:USDT."""
    return _SYMBOL.fullmatch(text) is not None


def split_pair(pair: str) -> tuple[str, str] | None:
    """Return base and quote of a pair written as one word, by the longest quote that is known.

    >>> split_pair("BTCUSDT"), split_pair("ETHBTC"), split_pair("USDT")
    (('BTC', 'USDT'), ('ETH', 'BTC'), None)
    """
    for quote in _BY_LENGTH:
        if pair.endswith(quote) and pair != quote:
            return pair.removesuffix(quote), quote
    return None


def find(paths: Sequence[Path]) -> list[CandleFile]:
    """Return the Parquet and CSV files of our own names among files and folders, sorted by path.

    Folders are searched to the bottom. Raises DataError for a path that is absent, or that holds
    no candle file.
    """

    def own(path: Path) -> CandleFile | None:
        series = parse_name(path) if path.suffix in (".parquet", ".csv") else None
        return None if series is None else CandleFile(path, *series)

    return _found(paths, own)


def find_all(paths: Sequence[Path], *, market: str | None = None) -> list[CandleFile]:
    """Return every candle file among files and folders: what `find` does, archives, many series.

    `market` ('spot' or 'swap') says what an archive's file holds whose path does not. Raises
    DataError as `find` does, and where neither says it or the two disagree.
    """
    return _found(paths, lambda path: _series_of(path, market))


def _found(
    paths: Sequence[Path], series_of: Callable[[Path], CandleFile | None]
) -> list[CandleFile]:
    found: set[CandleFile] = set()
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist;", remedy="name a candle file or a folder")
        inside = path.rglob("*") if path.is_dir() else [path]
        # a pipe would be waited for
        files = {file for p in inside if p.is_file() and (file := series_of(p)) is not None}
        if not files:
            raise DataError(
                f"{path} holds no candle file;",
                remedy="names are like BTC_USDT-1m-2024.parquet (spot) or FIL_USDT_USDT-1m.csv",
            )
        for file in files:
            _want_text(file.path.name)
        found |= files
    return sorted(found)


def _want_text(name: str) -> None:
    """Raise DataError for a name that is no text: the database keeps where candles come from."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = name.encode(errors="backslashreplace").decode()
        raise DataError(f"{shown}: its name is no text;", remedy="rename it") from error


def _series_of(path: Path, market: str | None) -> CandleFile | None:
    if (series := parse_name(path)) is not None:
        return CandleFile(path, *series)
    match = _ARCHIVE.fullmatch(path.name)
    if match is not None and match["pair"] == match["pair"].upper():
        if _is_other_data(path) or not _is_timeframe(match["timeframe"]):
            return None
        pair = split_pair(match["pair"])
        if pair is not None:
            settle = f":{pair[1]}" if _market_of(path, market) == "swap" else ""
            symbol = f"{pair[0]}/{pair[1]}{settle}"
            return CandleFile(path, symbol, match["timeframe"], Form.ARCHIVE)
        if path.suffix == ".zip":
            raise DataError(
                f"{path}: {match['pair']} ends in no quote asset that is known;",
                remedy="unpack it and name it like BTC_USDT-1m-2024-01.csv, with a header line",
            )
    many = _MANY.fullmatch(path.name)
    if many is None or _OWN.fullmatch(path.name) or not _is_timeframe(many["timeframe"]):
        return None
    return CandleFile(path, "", many["timeframe"], Form.MANY)


def _is_other_data(path: Path) -> bool:
    return not _NOT_TRADED.isdisjoint(path.absolute().parts)


def _market_of(path: Path, market: str | None) -> str:
    """Return 'spot' or 'swap', by the nearest folder that says it, else as told."""
    folders = reversed(path.absolute().parts[:-1])
    placed = next((_MARKETS[name] for name in folders if name in _MARKETS), None)
    if placed is None and market is None:
        raise DataError(
            f"{path} may be spot or perpetual: neither its path nor the command says it;",
            remedy="add --market spot or --market swap, or keep it in a folder spot or futures/um",
        )
    if placed is not None and market is not None and placed != market:
        raise DataError(
            f"{path} lies in a folder of {placed} candles, the command says {market};",
            remedy="leave --market out, or move the file",
        )
    return str(placed or market)


def _is_timeframe(text: str) -> bool:
    try:
        tf_ms(text)
    except ConfigError:
        return False
    return True
