"""Models from an object store: real servers, found, pinned, checked and refused in words."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.weights.conftest import Fetching, make_weights
from tests.integration.weights.servers import (
    ACCESS_KEY,
    SECRET_KEY,
    S3Server,
    run_moto,
    run_versitygw,
)
from tramontane.base.errors import InvalidRequest, SourceFailed, TramontaneError
from tramontane.domain.reference import BucketReference
from tramontane.domain.weights import Algorithm
from tramontane.weights.bucket import read_checksum
from tramontane.weights.cache import Cache
from tramontane.weights.settings import BucketSettings, SourceSettings

WEIGHTS = make_weights(700_000)


@pytest.fixture(scope="module", params=[run_moto, run_versitygw], ids=["moto", "versitygw"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    with request.param(tmp_path_factory.mktemp("s3")) as running:
        client = running.client()
        client.create_bucket(Bucket="models")
        client.put_object(Bucket="models", Key="tiny/m.gguf", Body=WEIGHTS)
        client.put_object(Bucket="models", Key="tiny/README.md", Body=b"hello")
        for name in ("config.json", "tokenizer.json"):
            client.put_object(Bucket="models", Key=f"st/{name}", Body=b"{}")
        client.put_object(Bucket="models", Key="st/model.safetensors", Body=WEIGHTS[:1000])
        yield running


@pytest.fixture
def store(server: S3Server, tmp_path: Path) -> Iterator[Fetching]:
    cache = Cache(tmp_path / "weights")
    cache.ensure_folders()
    settings = BucketSettings(
        endpoint=server.endpoint, access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY
    )
    made = Fetching(cache, SourceSettings(bucket=settings))
    yield made
    made.transport.close()


def pin(store: Fetching, key: str, bucket: str = "models") -> BucketReference:
    pinned = store.sources.pin(BucketReference(bucket=bucket, key=key))
    assert isinstance(pinned, BucketReference)
    return pinned


def test_an_object_and_a_prefix_are_models(store: Fetching) -> None:
    assert store.fetch(pin(store, "tiny/m.gguf")) == {"m.gguf": WEIGHTS}
    assert store.fetch(pin(store, "tiny")) == {"m.gguf": WEIGHTS, "README.md": b"hello"}
    assert store.fetch(pin(store, "st/")) == {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors": WEIGHTS[:1000],
    }


def test_any_key_is_asked_for_as_it_is(server: S3Server, store: Fetching) -> None:
    key = "odd/a b+c=d&é'(1)~%20.gguf"
    server.client().put_object(Bucket="models", Key=key, Body=WEIGHTS)
    (name,) = store.fetch(pin(store, key))
    assert name == key.rpartition("/")[2]
    assert list(store.fetch(pin(store, "odd"))) == [name]


def test_many_objects_come_in_pages(server: S3Server, store: Fetching) -> None:
    client = server.client()
    for number in range(1, 1101):
        client.put_object(Bucket="models", Key=f"many/m-{number:05}-of-01100.gguf", Body=b"GGUF")
    reference = pin(store, "many")
    sources = store.sources
    assert len(sources._bucket._find(reference)) == 1100


def test_what_is_replaced_is_another_model(server: S3Server, store: Fetching) -> None:
    client = server.client()
    client.put_object(Bucket="models", Key="moving/m.gguf", Body=WEIGHTS)
    first = pin(store, "moving/m.gguf")
    assert pin(store, "moving/m.gguf") == first
    download = store.download(first)
    client.put_object(Bucket="models", Key="moving/m.gguf", Body=make_weights(700_000, 1))
    assert pin(store, "moving/m.gguf") != first
    with pytest.raises(InvalidRequest, match="objects have changed since it was deployed"):
        store.fetch(first)
    # Replaced after it was looked at, while it is being fetched: never half and half.
    with pytest.raises(TramontaneError, match=r"have changed since|was replaced while"):
        download.run()
    assert not list(store.cache.blobs.iterdir())


def test_what_the_store_refuses_is_said_in_words(server: S3Server, store: Fetching) -> None:
    with pytest.raises(InvalidRequest, match="no bucket nowhere"):
        pin(store, "m", "nowhere")
    with pytest.raises(InvalidRequest, match="no object and nothing below missing/"):
        pin(store, "missing")
    if not server.checks_signatures:
        return
    wrong = replace(store.settings.bucket, secret_access_key="another")
    store.settings = SourceSettings(bucket=wrong)
    with pytest.raises(SourceFailed, match=r"refuses this \(SignatureDoesNotMatch\); keys are"):
        pin(store, "tiny")
    store.settings = SourceSettings(bucket=BucketSettings(endpoint=server.endpoint))
    with pytest.raises(SourceFailed, match=r"refuses this \(.*\); keys are"):
        pin(store, "tiny")
    assert "another" not in repr(wrong)


@pytest.mark.parametrize("kind", ["md5", "sha256", "metadata", "parts"])
def test_contents_are_checked_by_the_best_that_is_known(
    server: S3Server, store: Fetching, kind: str
) -> None:
    client = server.client()
    key, sha256 = f"checked/{kind}.gguf", hashlib.sha256(WEIGHTS)
    extra: dict[str, Any] = {
        "md5": {},
        "sha256": {"ChecksumSHA256": base64.b64encode(sha256.digest()).decode()},
        "metadata": {"Metadata": {"sha256": sha256.hexdigest()}},
    }.get(kind, {})
    if kind == "parts":
        upload = client.create_multipart_upload(Bucket="models", Key=key)["UploadId"]
        weights = make_weights(6_000_000)
        cut = [weights[: 5 * 1024**2], weights[5 * 1024**2 :]]
        parts = [
            {
                "PartNumber": number,
                "ETag": client.upload_part(
                    Bucket="models", Key=key, UploadId=upload, PartNumber=number, Body=body
                )["ETag"],
            }
            for number, body in enumerate(cut, 1)
        ]
        client.complete_multipart_upload(
            Bucket="models", Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )
    else:
        weights = WEIGHTS
        client.put_object(Bucket="models", Key=key, Body=WEIGHTS, **extra)
    (file,) = store.sources.list_files(pin(store, key))
    known = None if file.checksum is None else file.checksum.algorithm
    assert (
        known
        in {
            "md5": {Algorithm.MD5},
            # versitygw of this version keeps no checksums of objects, moto does.
            "sha256": {Algorithm.SHA256, Algorithm.MD5},
            "metadata": {Algorithm.SHA256},
            "parts": {None},
        }[kind]
    )
    assert store.fetch(pin(store, key)) == {f"{kind}.gguf": weights}


def test_what_a_head_says_of_a_content() -> None:
    digest = hashlib.sha256(b"x")
    stored = base64.b64encode(digest.digest()).decode()
    md5 = '"' + "a" * 32 + '"'

    def algorithm(**headers: str) -> Algorithm | None:
        found = read_checksum({key.replace("_", "-"): value for key, value in headers.items()})
        return None if found is None else found.algorithm

    assert algorithm(etag=md5, x_amz_checksum_sha256=stored) is Algorithm.SHA256
    assert algorithm(etag=md5) is Algorithm.MD5
    assert algorithm(etag=md5[:-1] + '-2"', x_amz_checksum_sha256=f"{stored}-2") is None
    composite = {"x_amz_checksum_type": "COMPOSITE", "x_amz_checksum_sha256": stored}
    assert algorithm(etag=md5[:-1] + '-2"', **composite) is None
    # Under a key of the store's key service, the tag is no MD5 of the content.
    assert algorithm(etag=md5, x_amz_server_side_encryption="aws:kms") is None
    assert algorithm(etag=md5, x_amz_server_side_encryption="AES256") is Algorithm.MD5
