"""Laws of reading settings: what is wrong is said in one line, and nothing secret is shown."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.config import Config, config_from, strategy_id
from core.config_file import load_config, parse_config
from core.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[1] / "config.yaml"


def nested(key: str, value: Any) -> dict[str, Any]:
    """One setting by its dotted name, as YAML would give it."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def complaint(text: str) -> str:
    """What is said of a text that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, name="my.yaml")
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 400
    return said


@pytest.fixture(autouse=True)
def without_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped file names one variable; whether it is set here must not matter."""
    monkeypatch.delenv("TELEGRAM_BOT_TOKEN", raising=False)


def test_the_shipped_file_says_the_defaults() -> None:
    """Leaving a key out changes nothing: every value but the symbols is the model's own."""
    shipped = load_config(SHIPPED)
    assert len(shipped.symbols) == 3
    assert shipped.model_copy(update={"symbols": Config().symbols}) == Config()


def test_an_empty_file_is_the_defaults() -> None:
    """Nothing, only comments, and an empty mapping."""
    for text in ("", "# nothing\n", "{}", "---\n"):
        assert parse_config(text) == Config()


@pytest.mark.parametrize(
    ("text", "named", "nearest"),
    [
        ("simbols: [A/USDT]", "simbols", "symbols"),
        ("signals: {atr_perod: 14}", "signals.atr_perod", "atr_period"),
        ("signals: {fibo: {pivot_window: 5}}", "signals.fibo.pivot_window", "piv_window"),
        ("models: {meta: {gating: {min_ev: 1}}}", "models.meta.gating.min_ev", "min_ev_pct"),
        ("notify: {telegram: {token: x}}", "notify.telegram.token", "bot_token"),
        (
            "models: {meta: {gating: {per_pair_tf: {A/USDT: {1h: {min_ev_pc: 1}}}}}}",
            "per_pair_tf.A/USDT.1h.min_ev_pc",
            "min_ev_pct",
        ),
        (
            "models: {meta: {gating: {per_regime: {trend: {treshold: 1}}}}}",
            "per_regime.trend.treshold",
            "threshold",
        ),
        ("auto: {train: {week_day: sun}}", "auto.train.week_day", "weekday"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    text: str, named: str, nearest: str
) -> None:
    """The line holds the file, the whole name of the key, and what was probably meant."""
    said = complaint(text)
    assert said.startswith("my.yaml: unknown key ")
    assert named in said
    assert f"did you mean {nearest}?" in said


def test_an_unknown_key_like_no_other_is_to_be_removed() -> None:
    """No guess is better than a wild one."""
    assert complaint("signals: {zzzzzz: 1}") == "my.yaml: unknown key signals.zzzzzz; remove it"


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("symbols", "BTC/USDT", "BTC/USDT"),
        ("symbols", [], None),
        ("symbols", ["A/USDT", "A/USDT"], None),
        ("symbols", [""], "''"),
        ("timeframes", ["7m"], "7m"),
        ("timeframes", ["1w"], "1w"),
        ("timeframes", [15], "15"),
        ("timeframes", ["15m", "15m"], "15m"),
        ("timeframes", ["9" * 3000], "999"),
        ("timeframes", ["30m", "15m", "x"], "x"),
        ("data.base_timeframe", "90s", "90s"),
        ("data.derived_timeframes", ["5m", "7m"], "7m"),
        ("app.timezone", "Mars/Olympus", "Mars/Olympus"),
        ("app.timezone", "../../etc/passwd", "../../etc/passwd"),
        ("app.timezone", "Europe", "Europe"),
        ("app.timezone", "x" * 9000, "xxx"),
        ("app.db_path", "", "''"),
        ("app.data_dir", 5, "5"),
        ("backfill.start_date", "2020-02-30", "2020-02-30"),
        ("backfill.batch_limit", 0, "0"),
        ("backfill.batch_limit", 1001, "1001"),
        ("exchange.replay.speed", float("inf"), "inf"),
        ("exchange.replay.speed", float("nan"), "nan"),
        ("incremental.run_seconds", "20", "20"),
        ("incremental.overlap_candles", True, "True"),
        ("signals.setups", ["limit", "breakout"], "breakout"),
        ("signals.atr_period", 1, "1"),
        ("signals.fibo.entry_level", 1.0, "1.0"),
        ("signals.avwap.use", "yes", "yes"),
        ("signals.fees.maker_pct", 7, "7"),
        ("signals.validity_candles", None, "None"),
        ("risk.mode", "bold", "bold"),
        ("risk.equity_usd", float("inf"), "inf"),
        ("execution.delivery_delay_s", 241, "241"),
        ("execution.tp1_fraction", 1.1, "1.1"),
        ("models.meta.calibration.method", "magic", "magic"),
        ("models.meta.gating.threshold", 1.2, "1.2"),
        ("models.meta.gating.costs_mode", "none", "none"),
        ("models.meta.gating.per_pair_tf", [1], None),
        ("auto.train.weekday", "Sunday", "Sunday"),
        ("auto.tune.hour", 24, "24"),
        ("backup.keep", 0, "0"),
        ("notify.digest_hour", "8", "8"),
        ("notify.telegram.send", "some", "some"),
        ("guards", None, "None"),
        ("guards", "off", "off"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(key: str, value: Any, shown: str | None) -> None:
    """One line: the key's whole name, and the value that was found there."""
    said = complaint(yaml.safe_dump(nested(key, value)))
    assert said.startswith(f"my.yaml: {key}")
    if shown is not None:
        assert shown in said.removeprefix(f"my.yaml: {key}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("signals: {fibo: {tp1_level: 1.5, tp2_level: 1.4}}", ("tp2_level", "1.4", "1.5")),
        ("timeframes: [5m]\ndata: {base_timeframe: 15m}", ("base_timeframe", "5m", "15m")),
        ("data: {base_timeframe: 1h, derived_timeframes: [90m]}", ("derived_timeframes", "90m")),
        ("timeframes: [3m]\nexecution: {delivery_delay_s: 180}", ("delivery_delay_s", "180", "3m")),
        ("signals: {avwap: {use: false}}", ("signals", "setups: reclaim", "avwap.use: true")),
        ("signals: {lookback_candles: 60, validity_candles: 50}", ("reclaim", "60", "50")),
    ],
)
def test_settings_that_contradict_each_other_are_named_both(
    text: str, words: tuple[str, ...]
) -> None:
    """The line names the keys and the values found."""
    said = complaint(text)
    assert said.startswith("my.yaml: ")
    assert not re.search(r": :|^:", said)
    for word in words:
        assert word in said


def test_a_key_that_stands_twice_is_refused() -> None:
    """YAML would silently take the last one; an owner would look at the first."""
    text = "risk:\n  mode: normal\n  equity_usd: 5\nsymbols: [A/USDT]\nrisk:\n  mode: aggressive\n"
    said = complaint(text)
    assert "risk" in said
    assert "line 5" in said
    said = complaint("signals:\n  fibo: {piv_window: 5, min_impulse_atr: 3.0, piv_window: 6}\n")
    assert "signals.fibo.piv_window" in said
    assert "twice" in said


def test_text_that_is_no_yaml_is_refused_with_its_line() -> None:
    """The line number is the one an editor shows."""
    assert complaint("app:\n  data_dir: [a\nsymbols: []\n").startswith("my.yaml line 3:")
    assert "sections" in complaint("- a\n- b\n")
    assert "sections" in complaint("just words")
    assert complaint("a: *nothing").startswith("my.yaml line 1:")
    assert complaint("a: !!python/object:os.system x").startswith("my.yaml line 1:")
    assert complaint("a: 1\n---\nb: 2").startswith("my.yaml line 2:")
    assert "my.yaml" in complaint("a: \x00")
    assert "my.yaml" in complaint("a: " + "[" * 5000)


def test_a_file_that_cannot_be_read_is_said_with_its_path(tmp_path: Path) -> None:
    """Absent, a folder, or not UTF-8: one line that holds the path and what to do."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("app: {data_dir: Börse}".encode("latin-1"))
    for path, remedy in ((tmp_path / "no.yaml", "--config"), (tmp_path, "--config")):
        with pytest.raises(ConfigError, match=remedy) as caught:
            load_config(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(latin)


def test_a_byte_order_mark_and_foreign_line_ends_do_no_harm(tmp_path: Path) -> None:
    """What Windows editors write is read like any other file."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfrisk:\r\n  mode: aggressive\r\nsymbols:\r\n- A/USDT\r\n")
    config = load_config(path)
    assert (config.risk.mode, config.symbols) == ("aggressive", ("A/USDT",))


def test_the_environment_fills_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """`${NAME}` anywhere in a value, several times, in lists too; keys and comments are left."""
    monkeypatch.setenv("COIN", "SOL")
    monkeypatch.setenv("QUOTE", "USDT")
    text = "symbols: ['${COIN}/${QUOTE}']  # ${NOT_SET}\napp: {db_path: 'x/${COIN}.db'}"
    config = parse_config(text)
    assert (config.symbols, config.app.db_path) == (("SOL/USDT",), "x/SOL.db")
    assert "${COIN}" in complaint("{'${COIN}': 1}")


def test_a_missing_variable_is_named_unless_it_has_a_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`${NAME:-word}` gives the word; `${NAME:-}` nothing; a variable set to '' is set."""
    monkeypatch.delenv("NOT_SET", raising=False)
    said = complaint("symbols: ['${NOT_SET}']")
    assert "NOT_SET is not set" in said
    assert "export NOT_SET=" in said
    assert parse_config("app: {data_dir: '${NOT_SET:-here}'}").app.data_dir == "here"
    token = parse_config("notify: {telegram: {bot_token: '${NOT_SET:-}'}}").notify.telegram
    assert token.bot_token.get_secret_value() == ""
    monkeypatch.setenv("NOT_SET", "there")
    assert parse_config("app: {data_dir: '${NOT_SET:-here}'}").app.data_dir == "there"
    monkeypatch.setenv("NOT_SET", "")
    assert parse_config("notify: {deadman_url: '${NOT_SET:-x}'}").notify.deadman_url == ""


def test_a_chat_id_may_be_a_number() -> None:
    """Group chats have negative ones; a truth value is no chat."""
    for value, text in ((-100123, "-100123"), ("-100123", "-100123"), ("@mine", "@mine")):
        assert config_from(nested("notify.telegram.chat_id", value)).notify.telegram.chat_id == text
    assert "notify.telegram.chat_id" in complaint("notify: {telegram: {chat_id: true}}")


def test_paths_that_are_left_out_lie_in_the_data_folder() -> None:
    """`app.data_dir` moves database and backups; a path that is written stands as it is."""
    config = parse_config("app: {data_dir: /srv/trader}")
    assert config.app.db_path == "/srv/trader/ohlcv.db"
    assert config.backup.dir == "/srv/trader/backups"
    config = parse_config("app: {data_dir: x/, db_path: y.db}\nbackup: {keep: 2}")
    assert (config.app.db_path, config.backup.dir, config.backup.keep) == ("y.db", "x/backups", 2)


UNHASHED = [
    ("symbols", ["A/USDT"]),
    ("timeframes", ["4h"]),
    ("exchange.id", "binance"),
    ("exchange.rate_limit_ms", 100),
    ("app.timezone", "Europe/Berlin"),
    ("backfill.start_date", "2024-01-01"),
    ("data.derived_timeframes", ["1h"]),
    ("models.meta.enabled", False),
    ("models.meta.gating.min_ev_pct", 0.2),
    ("models.meta.gating.per_pair_tf", {"*": {"*": {"threshold": 0.6}}}),
    ("auto.train.enabled", False),
    ("guards.max_open", 1),
    ("notify.paper_per_day", 0),
    ("notify.telegram.send", "all"),
    ("risk.equity_usd", 500),
    ("signals.evaluation.usd_per_trade", 50),
]
HASHED = [
    ("signals.setups", ["limit"]),
    ("signals.lookback_candles", 301),
    ("signals.atr_period", 15),
    ("signals.atr_mult_sl", 0.6),
    ("signals.fibo.piv_window", 4),
    ("signals.fibo.anchors_to_consider", 2),
    ("signals.fibo.min_impulse_atr", 3.5),
    ("signals.fibo.entry_level", 0.5),
    ("signals.fibo.tp1_level", 1.3),
    ("signals.fibo.tp2_level", 1.7),
    ("signals", {"setups": ["limit"], "avwap": {"use": False}}),
    ("signals.min_tp_net_pct", 1.1),
    ("signals.max_cost_r", 0.11),
    ("signals.fees.maker_pct", 0.02),
    ("signals.fees.funding_pct_8h", 0.02),
    ("signals.slippage_pct", 0.03),
    ("signals.validity_candles", 25),
    ("risk.mode", "aggressive"),
    ("risk.risk_per_trade_pct", 1.5),
    ("risk.max_leverage", 4),
    ("risk.liquidation_buffer_pct", 2),
    ("risk.spot_long_only", True),
    ("execution.delivery_delay_s", 60),
    ("execution.tp1_fraction", 0.4),
    ("execution.be_on_tp1", False),
    ("execution.trail_atr_mult", 1.0),
    ("execution.max_hold_candles", 90),
    ("data.base_timeframe", "5m"),
]


@pytest.mark.parametrize(("key", "value"), UNHASHED)
def test_the_strategy_keeps_its_name_where_candidates_and_outcomes_stay(
    key: str, value: Any
) -> None:
    """Symbols, timeframes, gating, guards, delivery and nominal sums may be turned freely."""
    turned = config_from(nested(key, value))
    assert turned != Config()
    assert strategy_id(turned) == strategy_id(Config())


def test_the_strategy_has_another_name_for_every_setting_that_changes_it() -> None:
    """Signals, risk and execution: all names are different, and stay when values are rewritten."""
    extra = {"data": {"base_timeframe": "5m", "derived_timeframes": ["15m", "1h", "4h", "1d"]}}
    names = {strategy_id(Config())}
    for key, value in HASHED:
        raw = extra if key == "data.base_timeframe" else nested(key, value)
        names.add(strategy_id(config_from(raw)))
    assert len(names) == len(HASHED) + 1
    whole, pointed = (config_from(nested("signals.min_tp_net_pct", x)) for x in (1, 1.0))
    assert strategy_id(whole) == strategy_id(pointed) == strategy_id(Config())


TOKENS = ("null", "[]", "{}", "- ", "0", "-1", "1e9", ".nan", "true", "'", '"', ":", "#", "\t",
          "&a", "*a", "!!set", "${X}", "${", "%", "|", ">", "?", "---", "2020-99-99", "é", "\x07",
          "<<: ", "0x" + "f" * 9000, "9" * 5000)  # fmt: skip


def mutated(text: str, chance: random.Random) -> str:
    """The text with one to four mishaps of the kind editors, disks and hurry bring about."""
    for _ in range(chance.randint(1, 4)):
        lines = text.splitlines(keepends=True) or [""]
        i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
        at = chance.randrange(len(text) + 1)
        match chance.randrange(8):
            case 0:
                text = text[:at]
            case 1:
                flipped = chr(ord(text[at]) ^ (1 << chance.randrange(7))) if at < len(text) else ""
                text = text[:at] + flipped + text[at + 1 :]
            case 2:
                text = "".join(lines[:i] + lines[i + 1 :])
            case 3:
                text = "".join([*lines[:i], lines[j], *lines[i:]])
            case 4:
                lines[i], lines[j] = lines[j], lines[i]
                text = "".join(lines)
            case 5:
                words = re.split(r"(\s+)", lines[i])
                words[chance.randrange(len(words))] = chance.choice(TOKENS)
                lines[i] = "".join(words)
                text = "".join(lines)
            case 6:
                lines[i] = " " * chance.randint(0, 9) + lines[i].lstrip()
                text = "".join(lines)
            case _:
                text = text[:at] + chance.choice(TOKENS) + text[at:]
    return text


def refusal_of(text: str) -> str:
    """What is said of a text, or '' for one that gives settings. Other errors go through."""
    try:
        config = parse_config(text, name="my.yaml")
    except ConfigError as error:
        return str(error)
    return "" if len(strategy_id(config)) == 12 else "no strategy"


def read_or_refused(numbers: range) -> float:
    """Check the law on some mutilated files; returns the share of those that were refused."""
    shipped = SHIPPED.read_text(encoding="utf-8")
    said = [refusal_of(mutated(shipped, random.Random(number))) for number in numbers]
    refused = [line for line in said if line]
    for line in refused:
        assert line.startswith("my.yaml")
        assert "\n" not in line
        assert len(line) < 400
    return len(refused) / len(said)


@pytest.mark.small
@pytest.mark.parametrize("part", range(5))
def test_five_hundred_mutilated_files_are_read_or_refused(part: int) -> None:
    """Each gives settings or a ConfigError of one line, and never another exception."""
    assert 0.2 < read_or_refused(range(100 * part, 100 * part + 100)) < 0.95


@pytest.mark.long(minutes=1)
def test_ten_thousand_mutilated_files_are_read_or_refused() -> None:
    """The same, twenty times as often."""
    assert 0.2 < read_or_refused(range(500, 10_500)) < 0.95
