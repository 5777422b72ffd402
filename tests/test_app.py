"""What a command works with: paths from the configuration's folder, one home for a database."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.app import open_app, settle_home
from core.store.db import WriterLock
from tests.engine_world import opened, write_config

CONFIG = "exchange: {id: replay}\nsymbols: [BTC/USDT]\n"


def config_in(folder: Path) -> Path:
    """Write a small configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_paths_start_at_the_configuration(tmp_path: Path) -> None:
    """Database, models and replay folder lie beside config.yaml, wherever one stands."""
    app = open_app(config_in(tmp_path / "here"))
    try:
        assert app.db.path == tmp_path / "here" / "data" / "ohlcv.db"
        assert app.models_dir == tmp_path / "here" / "models"
        assert app.config_here().exchange.replay.path == str(tmp_path / "here" / "data/replay")
    finally:
        app.close()


def test_a_copied_database_is_muted_until_taken_over(tmp_path: Path) -> None:
    """The first place is its home; a copy elsewhere sends nothing until it is told to."""
    first = open_app(config_in(tmp_path / "old"))
    assert settle_home(first, take_over=False)
    assert settle_home(first, take_over=False)
    first.close()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    copy = open_app(tmp_path / "new" / "config.yaml")
    assert not settle_home(copy, take_over=False)
    assert copy.muted
    assert settle_home(copy, take_over=True)
    assert not copy.muted
    copy.close()
    again = open_app(tmp_path / "new" / "config.yaml")
    assert settle_home(again, take_over=False)
    again.close()


def test_the_file_is_in_force_until_it_is_edited(tmp_path: Path) -> None:
    """However its lines end; not while it holds something else, broken text or nothing."""
    path = write_config(tmp_path, symbols=["A/USDT"])
    for ending in (b"\n", b"\r\n"):
        path.write_bytes(b"symbols: [A/USDT]" + ending + b"timeframes: [1h]" + ending)
        app = opened(path)
        assert app.is_file_in_force
        kept = path.read_bytes()
        for other in (kept + b"# more", b"\xff\xfe", None):
            path.unlink() if other is None else path.write_bytes(other)
            assert not app.is_file_in_force
        path.write_bytes(kept)
        assert app.is_file_in_force
        app.close()


def test_only_the_first_opener_holds_the_lock(tmp_path: Path) -> None:
    """A second opener of the same database works beside it, but may not move the WAL."""
    path = config_in(tmp_path)
    first, second = open_app(path), open_app(path)
    assert first.holds_lock
    assert not second.holds_lock
    second.close()
    assert not WriterLock(first.lock_file.path).acquire()
    first.close()
    lock = WriterLock(first.lock_file.path)
    assert lock.acquire()
    lock.release()


def test_the_strategy_follows_the_settings(tmp_path: Path) -> None:
    """An edit of the strategy's settings is a new strategy_id after a reload, and back again."""
    path = config_in(tmp_path)
    app = open_app(path)
    first = app.strategy
    path.write_text(CONFIG + "signals: {atr_mult_sl: 2.0}\n")
    app.reload_config()
    assert app.strategy != first
    path.write_text(CONFIG + "guards: {max_open: 1}\n")
    app.reload_config()
    assert app.strategy == first
    app.close()
