"""Sends with PostHog's own library, in the environment of `make clients`: `posthog_events.py HOST API_KEY MARK`."""

from __future__ import annotations

import sys
from typing import Any


def main(host: str, key: str, mark: str) -> list[Any]:
    """Send some of each call, packed and plain, by both protocols; the errors that the library told."""
    from posthog import Posthog  # type: ignore[import-not-found]  # noqa: PLC0415  (not in our environment)

    failures: list[Any] = []
    for mode, gzip in (("v0", False), ("v0", True), ("v1", True)):
        client = Posthog(key, host=host, gzip=gzip, on_error=lambda error, _: failures.append(error), max_retries=1,
                         feature_flags_request_timeout_seconds=20, capture_mode=mode)  # fmt: skip
        for number in range(120):
            client.capture("Product Added", distinct_id=f"{mark}-{number % 5}", properties={"n": number, "gzip": gzip})
        flag = client.get_feature_flag("some-flag", f"{mark}-0")
        if flag not in (None, False):
            failures.append(f"a flag that nobody has: {flag}")
        client.set(distinct_id=f"{mark}-0", properties={"plan": "pro"})
        client.alias(f"{mark}-0", f"{mark}-a")
        client.flush()
        client.shutdown()
    return failures


if __name__ == "__main__":
    told = main(*sys.argv[1:])
    sys.exit(f"failed: {told}" if told else 0)
