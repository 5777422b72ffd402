"""XGBoost, and nothing of it but fitting, predicting, saving and loading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.absent import absent
from core.domain import Bools, Floats
from core.errors import ModelError
from core.ml.calibrators import logit, sigmoid

# Depth 2 with few rounds keeps what little there is; deeper trees only fitted noise.
PARAMETER_SETS: tuple[Mapping[str, float | int], ...] = (
    {"max_depth": 2, "rounds": 120, "eta": 0.04, "min_child_weight": 60, "lambda": 20.0},
    {"max_depth": 2, "rounds": 60, "eta": 0.04, "min_child_weight": 30, "lambda": 40.0},
    {"max_depth": 3, "rounds": 100, "eta": 0.04, "min_child_weight": 40, "lambda": 20.0},
    {"max_depth": 1, "rounds": 150, "eta": 0.05, "min_child_weight": 30, "lambda": 10.0},
)


def _xgboost() -> Any:
    """Return the library, loaded without pandas and scikit-learn.

    It looks for both to take their frames and to be one of their models; we hand it arrays. They
    would take 130 MB of the long-lived process, and seconds of its first scored minute.
    """
    with absent("pandas", "sklearn"):
        import xgboost
    return xgboost


def fits(
    features: Floats,
    won: Bools,
    *,
    weight: Floats,
    p_mart: Floats,
    sets: Sequence[Mapping[str, float | int]],
    seed: int,
) -> list[Any]:
    """Return a booster for each parameter set; all start from the martingale's probability.

    Shapes (n, f), (n,). Weights are scaled to mean 1. One thread, so that the same rows give the
    same bytes; the sets share one binned copy of the rows, which saves a quarter of the work.
    """
    xgboost = _xgboost()
    data = xgboost.DMatrix(
        features,
        label=won.astype(np.float64),
        weight=weight / weight.mean(),
        base_margin=logit(p_mart),
        nthread=1,
    )
    fixed = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "nthread": 1,
        "seed": seed,
        "subsample": 0.7,
        "colsample_bytree": 0.7,
        "base_score": 0.5,
        "verbosity": 0,
    }
    return [
        xgboost.train(
            {**{name: value for name, value in params.items() if name != "rounds"}, **fixed},
            data,
            num_boost_round=int(params["rounds"]),
        )
        for params in sets
    ]


def predict(booster: Any, features: Floats, p_mart: Floats) -> Floats:
    """Return raw win probabilities, shape (n,); NaN features go the way the trees learnt.

    The martingale's log-odds are added here: handing them to XGBoost with each call makes it wake
    all cores, which costs more than the trees.
    """
    if not len(features):
        return np.empty(0)
    margin = booster.inplace_predict(features, predict_type="margin", validate_features=False)
    return sigmoid(np.asarray(margin, dtype=np.float64) + logit(p_mart))


def contributions(booster: Any, features: Floats) -> Floats:
    """Return what each feature adds to the log-odds of a win, shape (n, f); exact tree SHAP.

    With the martingale's log-odds and a constant they add up to the raw log-odds.

    Source: Lundberg et al. 2020, From local explanations to global understanding with explainable
    AI for trees, Nature Machine Intelligence 2.
    """
    xgboost = _xgboost()
    if not len(features):
        return np.empty(features.shape)
    data = xgboost.DMatrix(features, nthread=1)
    said = booster.predict(data, pred_contribs=True)
    return np.asarray(said[:, :-1], dtype=np.float64)


def gain_shares(booster: Any, names: Sequence[str]) -> dict[str, float]:
    """Return each feature's share of all that the trees' splits gained; 0 where none used it."""
    gained = booster.get_score(importance_type="total_gain")
    total = sum(gained.values()) or 1.0
    return {name: round(gained.get(f"f{i}", 0.0) / total, 6) for i, name in enumerate(names)}


def as_bytes(booster: Any) -> bytes:
    """Return the model in XGBoost's own binary JSON."""
    return bytes(booster.save_raw("ubj"))


def of_bytes(raw: bytes) -> Any:
    """Return the model of stored bytes. Raises ModelError when XGBoost cannot read them.

    What is no whole object is not shown to it: it would end the process.
    """
    xgboost = _xgboost()
    try:
        if not (raw.startswith(b"{L") and raw.endswith(b"}")):
            raise xgboost.core.XGBoostError("no whole object of binary JSON")
        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(raw))
    except (xgboost.core.XGBoostError, UnicodeError) as error:  # it quotes bytes that are no text
        raise ModelError(
            "model.ubj cannot be read by this XGBoost;", remedy="run: python train_meta.py"
        ) from error
    return booster


def library_version() -> str:
    """Return XGBoost's version."""
    xgboost = _xgboost()
    return str(xgboost.__version__)
