"""The meta-model: XGBoost, its calibrators, and the bundle folder they live in.

Nothing here is imported from XGBoost until a model is fitted or loaded.
"""

from core.ml.bundle import Bundle, load_bundle, load_current

__all__ = ["Bundle", "load_bundle", "load_current"]
