"""Asking the model: scores and verdicts for candidates, live or of the past, by one rule.

Whoever spoke at the decision speaks: the bundle that had been promoted last. What was decided
before any promotion is scored by the walk-forward model that could have spoken then, without its
limits, which were found later. So no score is in-sample, and a retro-scan says what was said live.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from core.app import App
from core.config import Config, Gating, GatingOverride
from core.costs import CostRates, cost_rates
from core.domain import Candidate, Evidence, Score, Series, Verdict
from core.errors import ModelError
from core.gating import Facts, verdict
from core.jobs.promotion import tuner_entries
from core.ml import Bundle, load_bundle, load_current
from core.proof_state import StateRow, is_degraded_at
from core.store import markets as market_store
from core.store.models import promotions
from core.store.states import states_of

log = logging.getLogger("trader.judge")


@dataclass(frozen=True, slots=True)
class Judge:
    """The gate as it stood at any instant: settings, the current bundle and those before it.

    `since_ms` are the instants of promotion, in order, and `names` the bundles promoted; `states`
    say from when on a certificate was withdrawn.
    """

    app: App
    bundle: Bundle | None
    since_ms: Sequence[int] = ()
    names: Sequence[str] = ()
    states: Sequence[StateRow] = ()
    loaded: dict[str, Bundle | None] = field(default_factory=dict)

    @classmethod
    def of(cls, app: App) -> Judge:
        """Load the current bundle of the present strategy, if there is one."""
        meta = app.config.models.meta
        try:
            bundle = load_current(app.models_dir, app.strategy) if meta.enabled else None
        except ModelError as error:
            log.error("%s Until then candidates are ungated.", error)
            bundle = None
        if bundle is None:
            return cls(app, None)
        told = promotions(app.db, app.strategy)
        since, names = [at_ms for at_ms, _ in told], [name for _, name in told]
        if names and names[-1] != bundle.id:
            since, names = [*since, since[-1]], [*names, bundle.id]  # the pointer decides
        states = states_of(app.db, app.strategy)
        return cls(app, bundle, since, names, states, {bundle.id: bundle})

    def speaker(self, decided_ms: int) -> Bundle | None:
        """Return who speaks for a decision, or None."""
        i = bisect_left(self.since_ms, decided_ms) - 1
        if i >= 0:
            return self._named(self.names[i])
        first = self._named(self.names[0]) if self.names else self.bundle
        cutoff_ms = None if first is None else first.cutoff_before(decided_ms)
        if first is None or cutoff_ms is None:
            return None
        return self._read(f"{first.id}@{cutoff_ms}", lambda _: first.at(cutoff_ms))

    def _named(self, name: str) -> Bundle | None:
        """Return a bundle of the past, or None where it is gone."""
        strategy = self.app.strategy
        return self._read(name, lambda n: load_bundle(self.app.models_dir, n, strategy=strategy))

    def _read(self, name: str, read: Callable[[str], Bundle]) -> Bundle | None:
        """Return what is read, once; None where it cannot be."""
        if name not in self.loaded:
            try:
                found = read(name)
            except ModelError as error:
                log.warning("%s What it scored then is ungated now.", error)
                found = None
            self.loaded[name] = found
        return self.loaded[name]

    def verdicts(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """Return the verdict on each candidate."""
        groups: dict[str, list[int]] = defaultdict(list)
        speakers: dict[str, Bundle] = {}
        out: dict[int, Verdict] = {}
        for i, candidate in enumerate(candidates):
            speaker = self.speaker(candidate.decided_ms)
            if speaker is None:
                out[i] = self._unscored(candidate)
            else:
                speakers[speaker.id] = speaker
                groups[speaker.id].append(i)
        for name, rows in groups.items():
            said = self._said(speakers[name], [candidates[i] for i in rows])
            out.update(zip(rows, said, strict=True))
        return [out[i] for i in range(len(candidates))]

    def _unscored(self, candidate: Candidate) -> Verdict:
        facts, config = Facts.of(candidate), self.app.config
        return verdict(facts, None, config=config, bundle=None, certificates={})

    def _said(self, bundle: Bundle, candidates: Sequence[Candidate]) -> list[Verdict]:
        config = self._config_under(bundle)
        scores: list[Score] = bundle.score_candidates(
            candidates,
            rates={s.symbol: self._rates(s) for s in {c.series for c in candidates}},
            costs_mode=config.models.meta.gating.costs_mode,
        )
        certificates = bundle.certificates
        verdicts = [
            verdict(
                Facts.of(candidate),
                score,
                config=config,
                bundle=bundle.id,
                certificates=certificates,
            )
            for candidate, score in zip(candidates, scores, strict=True)
        ]
        return [
            replace(one, evidence=Evidence.UNCERTIFIED)
            if is_degraded_at(self.states, candidate.decided_ms)
            else one
            for one, candidate in zip(verdicts, candidates, strict=True)
        ]

    def _config_under(self, bundle: Bundle) -> Config:
        """Return the settings with the limits that a bundle of the past had brought."""
        if self.bundle is not None and bundle.id == self.bundle.id:
            return self.app.config
        meta = self.app.config.models.meta
        gating = with_entries_of(bundle, meta.gating)
        models = self.app.config.models.model_copy(
            update={"meta": meta.model_copy(update={"gating": gating})}
        )
        return self.app.config.model_copy(update={"models": models})

    def _rates(self, series: Series) -> CostRates:
        market = market_store.market_of(self.app.db, series.exchange, series.symbol)
        return cost_rates(self.app.config.signals, market)


def with_entries_of(bundle: Bundle, gating: Gating) -> Gating:
    """Return settings in which a bundle's limits stand in place of every other bundle's."""
    cells = {
        symbol: {tf: GatingOverride(**entry) for tf, entry in entries.items()}
        for symbol, entries in tuner_entries(bundle).items()
    }
    for symbol, entries in gating.per_pair_tf.items():
        kept = {tf: entry for tf, entry in entries.items() if entry.source == "owner"}
        cells[symbol] = {**cells.get(symbol, {}), **kept}
    return gating.model_copy(update={"per_pair_tf": cells})
