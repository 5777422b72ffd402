"""Telling systemd that the service is ready, alive or stopping; elsewhere nothing happens."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def say(state: str, *, address: str | None = None) -> bool:
    """Send one state, such as WATCHDOG=1, to the socket systemd named; False where there is none.

    It never raises and never waits: the datagram is dropped where nobody reads.
    """
    place = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
    if not place:
        return False
    if place.startswith("@"):
        place = f"\0{place[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        out.sendto(state.encode(), place)
        return True
    return False
