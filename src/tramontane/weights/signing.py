"""Signs requests to object stores as Amazon's Signature Version 4 asks. Pure.

Called by ``weights.bucket``. A test holds it against Amazon's published example and against its
own library, for any key, query and header.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from tramontane.weights.settings import BucketSettings

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY = hashlib.sha256(b"").hexdigest()
UNRESERVED = "-._~"


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    settings: BucketSettings,
    now: float,
) -> dict[str, str]:
    """Return the headers that authenticate a request without a body; none without a key.

    The path and the query of ``url`` are encoded as ``encode`` and ``encode_query`` do. ``headers``
    are signed as well; others may be added later.
    """
    if not settings.access_key_id:
        return {}
    at = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    added = {"x-amz-content-sha256": EMPTY, "x-amz-date": at}
    if settings.session_token:
        added["x-amz-security-token"] = settings.session_token
    signed = {key.lower(): " ".join(value.split()) for key, value in {**headers, **added}.items()}
    signed["host"] = parts.netloc
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        (
            method,
            parts.path or "/",
            parts.query,
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            EMPTY,
        )
    )
    scope = f"{at[:8]}/{settings.region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signature = _key(settings, at[:8]).digest_of("\n".join((ALGORITHM, at, scope, digest)))
    credential = f"Credential={settings.access_key_id}/{scope}"
    added["Authorization"] = (
        f"{ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature.hex()}"
    )
    return added


def encode(path: str) -> str:
    """Return a path as it is signed and sent."""
    return quote(path, safe=f"/{UNRESERVED}")


def encode_query(query: Mapping[str, str]) -> str:
    """Return a query as it is signed and sent: sorted by its encoded names."""
    pairs = sorted(
        (quote(name, safe=UNRESERVED), quote(value, safe=UNRESERVED))
        for name, value in query.items()
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


class _Key(bytes):
    def digest_of(self, text: str) -> "_Key":
        return _Key(hmac.digest(self, text.encode(), "sha256"))


def _key(settings: BucketSettings, day: str) -> _Key:
    """Return the key of one day, region and service, from which the secret cannot be had."""
    key = _Key(f"AWS4{settings.secret_access_key}".encode())
    for each in (day, settings.region, "s3", "aws4_request"):
        key = key.digest_of(each)
    return key
