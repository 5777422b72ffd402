"""Claims that are figures, with nothing asserted: speed, recorded candles, the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from proof.claim import Bench, Claim, Figures, Subject

_LATENCY = "the messages of a close are out after 1.45 s for 10 pairs and 6.28 s for 100"
_SCAN = (
    "One pair's five years of minutes at 15m take 1.25 s, followed trades and start-up included"
    " (2.1 million minutes a second, 1/193 of a bare compiled loop)"
)

SPEED = Subject(
    title="Speed and size",
    claims=(
        Claim(
            says="From a close of 10 pairs to its messages, 99 of 100 times within",
            by=Bench(name="latency", row="10", column="p99 with waits", at_most=3),
            readme=_LATENCY,
            quotes="1.45 s",
        ),
        Claim(
            says="From a close of 100 pairs to its messages, 99 of 100 times within",
            by=Bench(name="latency", row="100", column="p99 with waits", at_most=10),
            readme=_LATENCY,
            quotes="6.28 s",
        ),
        Claim(
            says="Memory of the scheduler of 10 pairs with a model in force, at most",
            by=Bench(name="resident", column="most", at_most=260),
            readme="the process of 10 pairs holds at most 241 MB with a model in force",
            quotes="241 MB",
        ),
        Claim(
            says="CPU of an ordinary minute of 100 pairs",
            by=Bench(name="cycle", title="100 symbols", row="an ordinary minute", column="CPU"),
            readme="a minute of 100 pairs costs 0.05 s of CPU",
            quotes="0.05 s",
        ),
        Claim(
            says="Five years of one pair at 15m, the whole command: time",
            by=Bench(name="scan", row="retro_scan.py 15m, whole command", column="took"),
            readme=_SCAN,
            quotes="1.25 s",
        ),
        Claim(
            says="Five years of one pair at 15m, the whole command: minutes a second",
            by=Bench(name="scan", row="retro_scan.py 15m, whole command", column="minutes/s"),
            readme=_SCAN,
            quotes="2.1 million",
        ),
        Claim(
            says="Five years of one pair at 15m, the whole command, to a bare compiled loop",
            by=Bench(name="scan", row="retro_scan.py 15m, whole command", column="to the 15m loop"),
            readme=_SCAN,
            quotes="1/193",
        ),
        Claim(
            says="Five years of two pairs at 15m, 1h and 4h on one core: time",
            by=Bench(name="scan", row="retro_scan.py 15m 1h 4h", column="took"),
            readme="two pairs at 15m, 1h and 4h take 3.5 s on one core",
            quotes="3.5 s",
        ),
        Claim(
            says="Share of the permitted request rate that a download uses",
            by=Bench(name="rate", row="all lanes", column="ratio"),
        ),
        Claim(
            says="Time to score one candidate",
            by=Bench(name="meta", row="one candidate", column="ours"),
        ),
    ),
)


def _record(row: str, says: str) -> tuple[Claim, ...]:
    """Return the claims of one row of the README's table of recorded candles."""
    cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
    place = {
        "all followed": "books/followed/metrics",
        "`limit`": "breakdowns/followed/setup/setup=limit",
        "`reclaim`": "breakdowns/followed/setup/setup=reclaim",
    }.get(cells[0], f"breakdowns/followed/timeframe/timeframe={cells[0]}")

    def claim(what: str, names: Sequence[str], quotes: str, **form: float) -> Claim:
        places = [f"{place}/{name}" for name in names]
        by = Figures(run="recorded", places=places, **form)  # type: ignore[arg-type]
        return Claim(says=f"{says}: {what}.", by=by, readme=row, quotes=quotes)

    return (
        claim("trades, effective ones", ["n", "n_eff"], cells[1], digits=0),
        claim("win-rate, %", ["win_rate"], cells[2], digits=1, scale=100),
        claim("a coin flip's, %", ["p_mart"], cells[3], digits=1, scale=100),
        claim("gross R", ["mean_gross_r"], cells[4]),
        claim("cost R", ["cost_r"], cells[5]),
        claim("net R", ["mean_r"], cells[6]),
    )


RECORDED = Subject(
    title="Raw setups on recorded candles: BTC and ETH, 2024",
    claims=(
        *_record(
            "| all followed | 3,433 (483) | 37.7 % [34.1, 41.4] | 38.7 % | -0.04 | 0.08 |"
            " -0.12 [-0.17, -0.08] |",
            "All",
        ),
        *_record(
            "| 15m | 2,468 (821) | 37.8 % [35.1, 40.6] | 38.6 % | -0.03 | 0.09 |"
            " -0.13 [-0.17, -0.08] |",
            "15m",
        ),
        *_record(
            "| 1h | 782 (234) | 38.2 % [33.2, 43.6] | 38.9 % | -0.04 | 0.06 |"
            " -0.11 [-0.20, -0.02] |",
            "1h",
        ),
        *_record(
            "| 4h | 183 (56) | 33.9 % [24.5, 44.8] | 38.9 % | -0.09 | 0.05 |"
            " -0.14 [-0.31, +0.02] |",
            "4h",
        ),
        *_record(
            "| `limit` | 2,355 (479) | 35.2 % [31.7, 38.9] | 35.2 % | -0.04 | 0.09 |"
            " -0.13 [-0.18, -0.09] |",
            "`limit`",
        ),
        *_record(
            "| `reclaim` | 1,078 (387) | 43.0 % [39.0, 47.2] | 46.4 % | -0.03 | 0.08 |"
            " -0.11 [-0.17, -0.04] |",
            "`reclaim`",
        ),
    ),
)

_BEST = "coverage/coverage=0.3/"


def _judged(says: str, figures: str, row: str, **form: float) -> Claim:
    """Return the claim of one row of the README's table of the evaluation: its three samples."""
    parts = ("all", "same", "unseen")
    places = [f"frozen/{part}/{figure}" for part in parts for figure in figures.split()]
    by = Figures(run="evaluate", places=places, **form)  # type: ignore[arg-type]
    return Claim(says=says, by=by, readme=row, quotes=row.partition(" | ")[2])


EVALUATION = Subject(
    title="Evaluation on candles the model never saw: all pairs, the same pairs, unseen pairs",
    claims=(
        Claim(
            says="Whether there is an edge after costs.",
            by=Figures(run="evaluate", places=["verdict"]),
            readme="**No edge after costs.**",
        ),
        _judged(
            "Trades of the best 30 %, effective ones.",
            f"{_BEST}n {_BEST}n_eff",
            "| trades (effective) | 2,481 (255) | 1,720 (225) | 1,406 (333) |",
            digits=0,
        ),
        _judged(
            "AUC, the coin flip's.",
            "auc auc_mart",
            "| AUC, coin flip's AUC | .547, .547 | .545, .547 | .545, .542 |",
            digits=3,
        ),
        _judged(
            "Net R of the best 30 %.",
            _BEST + "net_r",
            "| net R | -0.07 [-0.12, -0.01] | -0.11 [-0.16, -0.07] | -0.01 [-0.06, +0.06] |",
        ),
        _judged(
            "Net R lift of the best 30 % over taking all.",
            "lift_30/model/net_r",
            "| net R lift over taking all | +0.03 [-0.03, +0.10] | 0.00 [-0.05, +0.05] |"
            " +0.05 [-0.01, +0.11] |",
        ),
        _judged(
            "The same, taken by cost alone.",
            "lift_30/cost/net_r",
            "as many by cost alone | +0.02 [-0.02, +0.07] | +0.00 [-0.04, +0.05] |"
            " +0.03 [-0.03, +0.10] |",
        ),
        _judged(
            "Win-rate less the coin flip's of the best 30 %, points.",
            _BEST + "over_mart",
            "| win-rate less coin flip, points | +0.1 [-1.9, +2.6] | -1.3 [-3.2, +0.7] |"
            " +2.4 [-0.1, +5.5] |",
            digits=1,
            scale=100,
        ),
        _judged(
            "Calibration slope.",
            "calibration_slope",
            "| calibration slope | 1.08 [0.92, 1.28] | 1.06 [0.83, 1.31] | 1.16 [0.90, 1.44] |",
        ),
        Claim(
            says="Months at whose start no limit was certified.",
            by=Figures(
                run="evaluate",
                places=["goals/goal=months at whose start no limit was certified/figure"],
            ),
            readme="in none of the 12 months would a certificate have been in force",
        ),
    ),
)

MEASURED = (SPEED, RECORDED, EVALUATION)
