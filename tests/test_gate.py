"""The gate's record is of scored, matured candidates, by the verdict of their time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import maintenance
from core import views
from tests.seed_database import BUNDLE, seed
from tests.tiny_database import add, tiny, won


def test_the_record_of_a_tiny_gate_is_worked_by_hand(tmp_path: Path) -> None:
    """Passed +2 and -1.1; rejected -1.1 by value and -1.1 by cost; the unscored and young not."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    scored = {"ml_p": 0.5, "cost_r": 0.05}
    add(db, strategy, 1, **won(2.0), **scored)
    add(db, strategy, 2, **scored)
    add(db, strategy, 3, **scored | {"cost_r": 0.02}, gate="REJECT", gate_reason="ev")
    add(db, strategy, 4, **scored | {"cost_r": 0.2}, gate="REJECT", gate_reason="cost")
    add(db, strategy, 5, **scored, status="EXPIRED", r_multiple=None, gross_r=None)
    add(db, strategy, 6, **won(9.0))
    add(db, strategy, 59.5, **won(9.0), **scored)
    db.close()
    found = views.gate_record(views.results(path))
    assert found is not None
    assert (found.n_candidates, found.coverage) == (5, 0.6)
    assert (found.passed.n_candidates, found.passed.metrics.n) == (3, 2)
    assert found.lift.net_r.value == pytest.approx(0.45 + 1.1)
    assert found.lift.win_rate.value == pytest.approx(0.5)
    assert found.affordable.net_r.value == pytest.approx(0.45 + 1.1)
    # the three cheapest: .02, then the earlier of equals
    assert found.cheapest.metrics.mean_r == pytest.approx((2.0 - 1.1 - 1.1) / 3)
    assert found.cheapest_lift.net_r.value == pytest.approx(-0.2 / 3 + 1.1)
    assert "Too few trades" in found.sentence
    plain = json.loads(json.dumps(views.gate_as_json(found)))
    assert plain["lift"]["net_r"] == [pytest.approx(1.55), None, None]
    table = views.gate_table(found).set_index("candidates")
    assert table.loc["passed", "n (n_eff)"] == "2 (2)"
    assert table.loc["rejected", "net R"] == "-1.100"


def test_without_a_score_there_is_no_record(tmp_path: Path) -> None:
    """Ungated candidates say nothing of the gate."""
    path = tmp_path / "market.db"
    db, strategy = tiny(path)
    add(db, strategy, 1, **won(2.0))
    db.close()
    assert views.gate_record(views.results(path)) is None
    assert views.gate_as_json(None) is None


def test_evaluate_shows_the_gate_of_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --data: the champion's record, and the same gate as the report's."""
    seeded = seed(tmp_path)
    place = ["evaluate", "--config", str(seeded.config)]
    assert maintenance.main([*place, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = views.gate_as_json(views.gate_record(views.results(seeded.path)))
    assert found["bundle"] == BUNDLE
    assert found["gate"] == wanted
    assert maintenance.main(place) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert found["gate"]["sentence"] in said
    assert "as many by cost alone" in said
