"""Signature Version 4, held against Amazon's published example and Amazon's own library."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from tramontane.weights.settings import BucketSettings
from tramontane.weights.signing import encode, encode_query, sign

SETTINGS = BucketSettings(
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
)
AT = datetime(2013, 5, 24, tzinfo=UTC)


def test_the_published_example() -> None:
    url = "https://examplebucket.s3.amazonaws.com/test.txt"
    signed = sign("GET", url, {"Range": "bytes=0-9"}, SETTINGS, AT.timestamp())
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert signed["x-amz-date"] == "20130524T000000Z"


def test_without_a_key_nothing_is_signed() -> None:
    assert sign("GET", "https://s3.example.eu/b/k", {}, BucketSettings(), 0.0) == {}
    assert "wJalr" not in repr(SETTINGS)


def sign_as_amazon(url: str, headers: Mapping[str, str], settings: BucketSettings) -> str:
    credentials = Credentials(
        settings.access_key_id, settings.secret_access_key, settings.session_token or None
    )
    request = AWSRequest(method="GET", url=url, headers=dict(headers))
    with pytest.MonkeyPatch.context() as patch:
        # It reads the clock by itself.
        patch.setattr("botocore.auth.get_current_datetime", lambda: AT)
        S3SigV4Auth(credentials, "s3", settings.region).add_auth(request)
    return request.headers["Authorization"]


keys = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda key: not {"", ".", ".."} & set(key.split("/"))
)


@given(
    key=keys,
    query=st.dictionaries(st.sampled_from(["prefix", "list-type", "a b"]), keys, max_size=3),
    token=st.sampled_from(["", "session/token="]),
    region=st.sampled_from(["us-east-1", "fr-par"]),
    value=st.sampled_from(["ENABLED", " two  words "]),
)
def test_any_request_is_signed_as_amazons_library_signs_it(
    key: str, query: dict[str, str], token: str, region: str, value: str
) -> None:
    settings = BucketSettings(
        access_key_id="id", secret_access_key="secret", region=region, session_token=token
    )
    url = f"https://s3.example.eu:9000{encode(f'/bucket/{key}')}"
    if query:
        url += f"?{encode_query(query)}"
    headers = {"x-amz-checksum-mode": value}
    ours = sign("GET", url, headers, settings, AT.timestamp())["Authorization"]
    assert ours == sign_as_amazon(url, headers, settings)
