"""What is to be known of Ray before it is imported: its settings, and whether a cluster answers at an address."""

import os
import socket
from typing import Final
from urllib.parse import urlsplit

#: How long Ray waits for the cause of an actor's death before it fails the calls that were out: those that ask where it
#: listens. Its own default of a second is a second in which nobody asks its successor.
DEATH_NEWS_MS: Final = 50
PROBE_S: Final = 5.0

_SETTINGS: Final = {
    "RAY_worker_niceness": "0",  # workers would run at nice 15
    "RAY_DEDUP_LOGS": "0",  # a repeated error line is a fact, too
    "RAY_COLOR_PREFIX": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_timeout_ms_task_wait_for_death_info": str(DEATH_NEWS_MS),
}


def set_environment() -> None:
    """Ray's settings, as far as nobody has set them. Ray reads some at its import: call this before it."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def unreachable(address: str) -> str | None:
    """Why no cluster can be joined at `host:port`, as far as a TCP connection tells; None for words such as `auto`.

    Ray asks an address that nobody listens on again and again, for longer than ten minutes.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"{address} is not host:port ({error})"
    if host is None or port is None:
        return None
    try:
        with socket.create_connection((host, port), PROBE_S):
            return None
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return f"nothing listens at {address} ({why})"
