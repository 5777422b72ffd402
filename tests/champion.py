"""A champion for any engine: learnt in a known world, given to another strategy."""

from __future__ import annotations

import tempfile
from pathlib import Path

from core.config import strategy_id
from core.config_file import load_config
from core.jobs import learning
from core.ml.folder import read_folder, read_pointer, write_folder, write_pointer
from tests.candidate_world import world


def enthrone(config_path: Path) -> str:
    """Put a bundle in force for the settings beside whose file `models` lies; returns its name.

    What it says of their candidates is worth nothing: it is there to be loaded and asked. It may
    speak of any time.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = world(Path(folder), n=600, skill=0.9)
        learning.weekly(made.db, made.config, **made.all_places)
        made.db.close()
        pointer = read_pointer(made.models_dir)
        assert pointer is not None
        name = pointer["bundle"]
        files, facts = read_folder(made.models_dir, name)
    strategy = strategy_id(load_config(config_path))
    models_dir = config_path.with_name("models")
    its = {"strategy_id": strategy, "window": {"data_until_ms": 0}}
    write_folder(models_dir, name, files, {**facts, **its})
    write_pointer(models_dir, bundle=name, strategy=strategy)
    return name
