"""The dead man's switch: a sign of life to a service that raises the alarm when it stays out."""

from __future__ import annotations

import logging

import requests

from core.config import Config
from core.notify.redaction import redact

log = logging.getLogger("trader.deadman")

_TIMEOUT_S = 5.0


def sign_of_life(config: Config) -> bool:
    """Call `notify.deadman_url` and say whether it answered well; without an address do nothing.

    To be called when a cycle is complete. It never raises: a failure is logged, and its absence
    is noticed at the other end, which is the point.
    """
    url = config.notify.deadman_url
    if not url:
        return False
    try:
        requests.get(url, timeout=_TIMEOUT_S).raise_for_status()
    except requests.RequestException as error:
        log.warning("the dead man's switch was not reached: %s", redact(str(error), config))
        return False
    return True
