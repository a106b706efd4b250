"""Whether the Hugging Face Hub can be asked, known within a second: its client tries for minutes before it gives up."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

SECONDS = 0.8
"""Longest wait for the Hub's answer to a connection."""


def why_offline() -> str | None:
    """Why the Hub cannot be asked, as a clause; None where it can."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    place = _place(constants.ENDPOINT)
    answers: list[bool] = []
    asking = Thread(target=lambda: answers.append(_answers(*place)), daemon=True)  # names are looked up without a limit of time
    asking.start()
    asking.join(SECONDS)
    return None if answers == [True] else f"{place[0]} cannot be reached"


@contextmanager
def offline() -> Iterator[None]:
    """Let the clients of the Hub use what they have stored, and not the network."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _place(endpoint: str) -> tuple[str, int]:
    """Host and port of the Hub, or of the proxy that leads there."""
    url = urlsplit(endpoint)
    proxy = None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)
    found = urlsplit(proxy if proxy and "//" in proxy else f"//{proxy}") if proxy else url
    return found.hostname or "", found.port or (80 if found.scheme == "http" else 443)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=SECONDS).close()
    except OSError:
        return False
    return True
