"""`python -m streams.collect [--check]`: writes `deploy/collect.openapi.json`, the document of all routes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from streams.collect.openapi import encoded
from streams.collect.routes import Routes
from streams.settings import CollectSettings, Settings

PATH: Final = Path(__file__).resolve().parents[2] / "deploy" / "collect.openapi.json"
_NONE: Final = "only for documents, no secret"
# A verification key as SendGrid shows one; the point is the generator of the curve.
_KEY: Final = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBo"
    "N79R9Q=="
)


class _Defaults(Settings):
    """Settings as the code has them: neither environment nor file may show in a document."""

    @classmethod
    def settings_customise_sources(cls, settings_cls, init_settings, *_sources, **_more):  # type: ignore[no-untyped-def]
        return (init_settings,)


def every_source() -> Settings:
    """Settings with all sources on, each with a secret that is none."""
    given = {
        "public_url": "https://collect.example.com", "segment": {"write_keys": [_NONE]},
        "posthog": {"api_keys": [_NONE]}, "snowplow": {"app_ids": [_NONE]}, "hubspot": {"client_secrets": [_NONE]},
        "sendgrid": {"public_keys": [_KEY]}, "events": {"tokens": [_NONE]},
    }  # fmt: skip
    return _Defaults(collect=CollectSettings.model_validate(given))


def main(arguments: Sequence[str] | None = None, path: Path = PATH) -> int:
    """Write the document, or (`--check`) only say whether it is stale; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m streams.collect", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if it is stale")
    check = parser.parse_args(arguments).check
    settings = every_source()
    fresh = encoded(Routes(settings).all, settings.collect)
    if path.is_file() and path.read_bytes() == fresh:
        return 0
    if check:
        print(f"FAIL {path.name} stale. Fix: make gen", file=sys.stderr)
        return 1
    path.write_bytes(fresh)
    print(f"wrote {path.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
