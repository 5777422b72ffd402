"""Asking the current bundle: scores and verdicts for candidates, live or of the past."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from core.app import App
from core.costs import CostRates, cost_rates
from core.domain import Candidate, Score, Series, Verdict
from core.errors import ModelError
from core.gating import Facts, verdict
from core.ml import Bundle, load_current
from core.store import markets as market_store
from core.store.models import bundles

log = logging.getLogger("trader.judge")


@dataclass(frozen=True, slots=True)
class Judge:
    """The gate as it stands: settings, the current bundle and how far its data reached."""

    app: App
    bundle: Bundle | None
    data_until_ms: int

    @classmethod
    def of(cls, app: App) -> Judge:
        """Load the current bundle of the present strategy, if there is one."""
        meta = app.config.models.meta
        try:
            bundle = load_current(app.models_dir, app.strategy) if meta.enabled else None
        except ModelError as error:
            log.error("%s Until then candidates are ungated.", error)
            bundle = None
        rows = [] if bundle is None else [r for r in bundles(app.db) if r["id"] == bundle.id]
        if not rows:
            return cls(app, None, 0)
        return cls(app, bundle, int(rows[0]["data_until_ms"]))

    def verdicts(self, candidates: Sequence[Candidate], *, retro: bool = False) -> list[Verdict]:
        """Return the verdict on each candidate.

        A retro candidate is scored only by a bundle whose data ended before its decision; where
        the current one is younger the candidate is ungated.
        """
        scores: list[Score | None] = [None] * len(candidates)
        if self.bundle is not None:
            rows = [
                i
                for i, candidate in enumerate(candidates)
                if not retro or candidate.decided_ms > self.data_until_ms
            ]
            chosen = [candidates[i] for i in rows]
            found = self.bundle.score_candidates(
                chosen,
                rates={s.symbol: self._rates(s) for s in {c.series for c in chosen}},
                costs_mode=self.app.config.models.meta.gating.costs_mode,
            )
            for i, score in zip(rows, found, strict=True):
                scores[i] = score
        certificates = self.bundle.certificates if self.bundle is not None else {}
        return [
            verdict(
                Facts.of(candidate),
                score,
                config=self.app.config,
                bundle=self.bundle.id if self.bundle is not None else None,
                certificates=certificates,
            )
            for candidate, score in zip(candidates, scores, strict=True)
        ]

    def _rates(self, series: Series) -> CostRates:
        market = market_store.market_of(self.app.db, series.exchange, series.symbol)
        return cost_rates(self.app.config.signals, market)
