"""Laws of writing the tuner's block: no other byte changes, all or nothing, and it reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import Config, GatingOverride
from core.config_file import parse_config, replace_text, splice_overrides, spliced
from core.errors import ConfigError
from core.jobs.promotion import write_entries

SHIPPED = Path(__file__).resolve().parents[1] / "config.yaml"
HEAD = "# mine: ${TELEGRAM_BOT_TOKEN:-} ü\nrisk: {mode: aggressive}   # trailing \t\n"
TAIL = "      per_regime: {trend: {min_ev_pct: 0.1}}  # the owner's\nsymbols: [A/USDT] # end"
BLOCKS = {  # the tuner's block in every dress an owner may give it
    "flow": "      per_pair_tf: {}   # overrides: {SYMBOL: {TF}}\n      # below\n",
    "flow of two lines": '      per_pair_tf: {"A/USDT": {"1h": {threshold: 0.6}},\n'
    "        B/USDT: {}}\n",
    "block": "      per_pair_tf:   # the tuner's: not mine\n        A/USDT:\n          1h:\n"
    "            source: tuner\n            min_ev_pct: 0.25  # why: because\n      # below\n",
    "block of flows": "      per_pair_tf:\n        '*': {'*': {min_ev_pct: 0.1}}\n\n\n",
    "quoted key": '      "per_pair_tf" : {}\n',
    "anchored": "      per_pair_tf: &mine {}\n",
}
FEW = {"A/USDT": {"1h": {"min_ev_pct": 0.25, "source": "tuner", "bundle": "20240101-0123456789"}}}
words = st.text(st.characters(categories=("L", "Nd", "P")), min_size=1, max_size=8)
symbols = st.one_of(st.just("*"), words.map(lambda w: f"{w}/USDT"), st.just("币安/USDT:USDT"))
cells = st.fixed_dictionaries(
    {"source": st.sampled_from(("tuner", "owner"))},
    optional={
        "min_ev_pct": st.floats(-50, 50),
        "threshold": st.floats(0, 1),
        "bundle": st.one_of(st.none(), words),
    },
)
many = st.dictionaries(
    symbols, st.dictionaries(st.sampled_from(("*", "15m", "4h")), cells, max_size=3), max_size=5
)


def whole(block: str) -> str:
    """A configuration around one dress of the block."""
    return f"{HEAD}models:\n  meta:\n    gating:\n{block}{TAIL}"


def overrides_of(text: str) -> dict[str, dict[str, Any]]:
    """What the settings of a text say the overrides are."""
    found = parse_config(text).models.meta.gating.per_pair_tf
    return {symbol: dict(line) for symbol, line in found.items()}


def typed(overrides: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Overrides as the settings hold them."""
    return {
        symbol: {tf: GatingOverride.model_validate(cell) for tf, cell in line.items()}
        for symbol, line in overrides.items()
    }


def bare(config: Config) -> dict[str, Any]:
    """All settings but the overrides."""
    raw = config.model_dump()
    del raw["models"]["meta"]["gating"]["per_pair_tf"]
    return raw


@pytest.mark.parametrize("dress", BLOCKS)
@settings(deadline=None, max_examples=25)
@given(overrides=many)
def test_what_is_spliced_reads_back_and_nothing_else_changed(
    dress: str, overrides: dict[str, dict[str, dict[str, Any]]]
) -> None:
    """The bytes before the block and after it are the same; a second splice changes nothing."""
    before = whole(BLOCKS[dress])
    after = spliced(before, overrides)
    assert overrides_of(after) == typed(overrides)
    assert bare(parse_config(after)) == bare(parse_config(before))
    begin = before.index("per_pair_tf") + len("per_pair_tf")
    assert after[:begin] == before[:begin]
    assert after.endswith(TAIL)
    for comment in ("# below", "# overrides: {SYMBOL: {TF}}", "# why: because"):
        assert (comment in after) == (comment in before)
    assert spliced(after, overrides) == after


@settings(deadline=None, max_examples=25)
@given(first=many, second=many)
def test_the_last_splice_counts(first: dict[str, Any], second: dict[str, Any]) -> None:
    """What stood in the block before leaves no trace."""
    text = whole(BLOCKS["flow"])
    assert spliced(spliced(text, first), second) == spliced(text, second)


def test_the_shipped_file_takes_overrides(tmp_path: Path) -> None:
    """Every byte of it but the two braces is left."""
    path, text = tmp_path / "config.yaml", SHIPPED.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    new = splice_overrides(path, FEW, seen=text)
    assert path.read_text(encoding="utf-8") == new
    head, tail = text.split("per_pair_tf: {}", 1)
    assert new.startswith(f"{head}per_pair_tf: {{")
    assert new.endswith(tail)
    assert overrides_of(new) == typed(FEW)
    splice_overrides(path, {}, seen=new)
    assert path.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.parametrize("value", [1e-7, -3e-5, 5e-324, 1.0, 0.1 + 0.2, 0, -0.0])
def test_any_number_reads_back_to_the_same_bits(value: float) -> None:
    """YAML takes 1e-07 for a word; it has to be written so that it is a number."""
    new = spliced(whole(BLOCKS["flow"]), {"*": {"*": {"min_ev_pct": value}}})
    assert overrides_of(new)["*"]["*"].min_ev_pct == value


def test_every_byte_outside_the_block_stays_in_a_file_of_foreign_line_ends(tmp_path: Path) -> None:
    """CRLF, a byte order mark, no newline at the end: all as the owner's editor left them."""
    path, text = tmp_path / "config.yaml", whole(BLOCKS["block"])
    raw = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    path.write_bytes(raw)
    splice_overrides(path, FEW, seen=path.read_text(encoding="utf-8"))
    new = path.read_bytes()
    begin, end = raw.index(b"per_pair_tf:") + 12, raw.index(b"  # why")
    assert new[:begin] == raw[:begin]
    assert new.endswith(raw[end:])
    assert new.count(b"\n") == new.count(b"\r\n")
    assert overrides_of(path.read_text(encoding="utf-8")) == typed(FEW)


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """The owner saved it after we had read it: nothing is written, and the line says so."""
    path, seen = tmp_path / "config.yaml", whole(BLOCKS["flow"])
    path.write_text(seen + "\n# saved just now", encoding="utf-8")
    with pytest.raises(ConfigError, match="edited meanwhile"):
        splice_overrides(path, FEW, seen=seen)
    assert path.read_text(encoding="utf-8") == seen + "\n# saved just now"
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    "overrides",
    [
        {"A/USDT": {"1h": {"min_ev_pct": 51.0}}},
        {"A/USDT": {"1h": {"min_ev_pct": float("nan")}}},
        {"A/USDT": {"1h": {"threshold": "high"}}},
        {"A/USDT": {"1h": {"nonsense": 1}}},
        FEW | {"B/USDT": {"1h": {"source": "nobody"}}},
    ],
)
def test_overrides_that_could_not_be_read_back_are_not_written(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    """All or nothing: one bad cell, and the file keeps every byte."""
    path, text = tmp_path / "config.yaml", whole(BLOCKS["block"])
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        splice_overrides(path, overrides, seen=text)
    assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "symbols: [A/USDT]\n",
        "models: {meta: {enabled: true}}\n",
        "models: {meta: {gating: {use_ev: true}}}\n",
        "",
    ],
)
def test_a_missing_block_is_said_with_what_to_add(tmp_path: Path, text: str) -> None:
    """The line names the block; nothing is written."""
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no models\.meta\.gating\.per_pair_tf; add 'per_pair_"):
        splice_overrides(path, FEW, seen=text)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text",
    [
        "exchange: {ccxt: &shared {}}\nmodels: {meta: {gating: {per_pair_tf: *shared}}}\n",
        whole(
            "      per_pair_tf:\n        A/USDT: &a {1h: {threshold: 0.5}}\n        B/USDT: *a\n"
        ),
    ],
)
def test_a_block_written_as_an_alias_is_left_alone(tmp_path: Path, text: str) -> None:
    """Replacing it would change what stands elsewhere: refused in one line, nothing written."""
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="alias"):
        splice_overrides(path, FEW, seen=text)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("text", ["models: [", "risk: {mode: bold}\n" + whole(BLOCKS["flow"])])
def test_a_file_that_is_broken_is_not_written(tmp_path: Path, text: str) -> None:
    """A ConfigError as on reading, never an error of the YAML library."""
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        splice_overrides(path, FEW, seen=text)
    assert path.read_text(encoding="utf-8") == text


def test_a_folder_that_takes_no_file_is_a_line_and_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or a mounted file that cannot be replaced: the old file stays."""
    path, text = tmp_path / "config.yaml", whole(BLOCKS["flow"])
    path.write_text(text, encoding="utf-8")

    def refuse(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ConfigError, match="Device or resource busy"):
        splice_overrides(path, FEW, seen=text)
    assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    """A configuration with a token in it may be for its owner's eyes only."""
    path = tmp_path / "config.yaml"
    for mode in (0o600, 0o644):
        path.write_text("a", encoding="utf-8")
        path.chmod(mode)
        replace_text(path, "b")
        assert path.stat().st_mode & 0o777 == mode
        assert path.read_text(encoding="utf-8") == "b"


@pytest.mark.parametrize("text", ["models: [", "models: 5\n", "models: {meta: []}\n", "risk: 1\n"])
def test_a_promotion_into_a_broken_file_comes_back_as_a_note(tmp_path: Path, text: str) -> None:
    """The owner is in the middle of an edit: the promotion stands, and says what did not."""
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert str(path) in write_entries(path, FEW)
    assert path.read_text(encoding="utf-8") == text


def test_a_promotion_leaves_the_owners_entries(tmp_path: Path) -> None:
    """His win over the tuner's of the same cell; the tuner's older ones go."""
    path = tmp_path / "config.yaml"
    own = {"min_ev_pct": 0.5, "source": "owner"}
    old = {"min_ev_pct": 0.1, "source": "tuner", "bundle": "old"}
    block = {"A/USDT": {"1h": own, "4h": old}, "B/USDT": {"1h": old}}
    path.write_text(spliced(whole(BLOCKS["flow"]), block), encoding="utf-8")
    assert write_entries(path, {**FEW, "C/USDT": FEW["A/USDT"]}) == ""
    wanted = {"A/USDT": {"1h": own}, "C/USDT": FEW["A/USDT"]}
    assert overrides_of(path.read_text(encoding="utf-8")) == typed(wanted)
