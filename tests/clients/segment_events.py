"""Sends with Segment's own library, in the environment of `make clients`: `segment_events.py HOST WRITE_KEY MARK`."""

from __future__ import annotations

import sys
from typing import Any


def main(host: str, key: str, mark: str) -> list[Any]:
    """Send some of each call; the errors that the library told."""
    from segment import analytics  # type: ignore[import-not-found]  # noqa: PLC0415  (not in our environment)

    failures: list[Any] = []
    analytics.host, analytics.write_key, analytics.gzip, analytics.max_retries = host, key, True, 2
    analytics.on_error = lambda error, _items: failures.append(error)
    for number in range(250):  # more than one batch
        analytics.track(f"{mark}-{number % 5}", "Product Added", {"price": 2.5}, message_id=f"{mark}-t{number}")
    analytics.page(f"{mark}-0", "Docs", "Install", {"url": "https://shop.example/docs"}, message_id=f"{mark}-p")
    analytics.identify(f"{mark}-0", {"plan": "pro"}, message_id=f"{mark}-i")
    analytics.group(f"{mark}-0", "team", message_id=f"{mark}-g")
    analytics.alias(f"{mark}-a", f"{mark}-0", message_id=f"{mark}-l")
    analytics.flush()
    analytics.shutdown()
    return failures


if __name__ == "__main__":
    told = main(*sys.argv[1:])
    sys.exit(f"failed: {told}" if told else 0)
