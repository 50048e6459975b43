"""``s3://``: object stores that speak Amazon's S3 protocol, of any provider, at any endpoint.

Three calls are all it takes: the head of an object, a list below a prefix, and the object itself.
An object has no revision that could be asked for again, so a reference is pinned by the state of
what was found; ``If-Match`` then keeps an object that is replaced meanwhile from coming half old,
half new. Checksums: the object's sha256 where the store knows it (its own, or put into the
object's metadata as ``sha256`` by whoever uploaded it), else the MD5 that is the tag of an object
uploaded in one piece. Where it knows neither, what came is named by its own content.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

# Expat refuses entities that expand without bound since version 2.4.1.
from xml.etree import ElementTree

from tramontane.base.clock import Clock
from tramontane.base.errors import InvalidRequest, SourceFailed, TramontaneError
from tramontane.domain.reference import BucketReference
from tramontane.domain.weights import Algorithm, Checksum, RemoteFile, make_state
from tramontane.plan.weights import choose_files
from tramontane.weights.settings import BucketSettings
from tramontane.weights.signing import encode, encode_query, sign
from tramontane.weights.transport import Answer, Request, Transport

MD5 = re.compile(r"[0-9a-f]{32}")
SHA256 = re.compile(r"[0-9a-f]{64}")
LISTED_MAX = 10_000
KEYS = "keys are given by `s3: {access_key_id: …, secret_access_key: …}` in sources.yaml"


class Bucket:
    """The object store of one platform."""

    def __init__(self, settings: BucketSettings, transport: Transport, clock: Clock) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        endpoint = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
        self._endpoint = endpoint.rstrip("/")

    def name(self, reference: BucketReference) -> str:
        """Return what tells this source's files from those of others."""
        return f"{self._endpoint}/{reference.bucket}"

    def pin(self, reference: BucketReference) -> BucketReference:
        """Return the reference with the state of its objects now."""
        if reference.pinned:
            return reference
        return replace(reference, state=make_state(self._find(reference)))

    def list_files(self, reference: BucketReference) -> tuple[RemoteFile, ...]:
        """Return the objects with their checksums. Raises if they are not those of the state."""
        found = self._find(reference)
        if reference.state != make_state(found):
            raise _changed(reference)
        return tuple(replace(each, checksum=self._ask_checksum(reference, each)) for each in found)

    def request(self, reference: BucketReference, file: RemoteFile) -> Request:
        """Return how to ask for an object, if it is still the same."""
        request = self._request(reference, "GET", file.location, headers={"If-Match": file.version})
        # Not every store heeds the header.
        return replace(request, tag=file.version)

    def refuse(self, reference: BucketReference, answer: Answer, body: bytes) -> TramontaneError:
        """Return the error that an answer stands for, with the store's own word for it."""
        said = _text(_parse(body), "Code")
        match answer.status, said:
            case 412, _:
                return _changed(reference)
            case _, "NoSuchBucket":
                return _invalid(reference, f"{self._endpoint} has no bucket {reference.bucket}")
            case 404, _:
                return _invalid(reference, f"there is no such object on {self._endpoint}")
            case ((301 | 307), _):
                region = answer.headers.get("x-amz-bucket-region", "another region")
                return _invalid(reference, f"the bucket is in {region}: `s3: {{region: …}}`")
            case ((400 | 401 | 403), _):
                word = said or f"status {answer.status}"
                return SourceFailed(f"{reference}: {self._endpoint} refuses this ({word}); {KEYS}")
            case _:
                return SourceFailed(
                    f"{reference}: {self._endpoint} answers with status {answer.status}"
                )

    def _find(self, reference: BucketReference) -> tuple[RemoteFile, ...]:
        if not reference.key.endswith("/"):
            headers = self._head(reference, reference.key)
            if headers is not None:
                name = reference.key.rpartition("/")[2]
                return (_describe(name, reference.key, headers),)
        prefix = reference.key.rstrip("/") + "/"
        listed = list(self._list(reference, prefix))
        if not listed:
            raise _invalid(reference, f"there is no object and nothing below {prefix}")
        return choose_files(listed, "", str(replace(reference, state="")))

    def _head(self, reference: BucketReference, key: str) -> Mapping[str, str] | None:
        """Return the head of an object; None if there is none, as far as one may know."""
        request = self._request(reference, "HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"})
        missing: list[Answer] = []

        def refuse(answer: Answer, body: bytes) -> TramontaneError:
            # To those who may not list a bucket, what is not there looks like what is forbidden.
            if answer.status in {403, 404}:
                missing.append(answer)
            return self.refuse(reference, answer, body)

        try:
            headers, _ = self._transport.fetch(request, refuse)
        except TramontaneError:
            if not missing:
                raise
            return None
        return headers

    def _list(self, reference: BucketReference, prefix: str) -> Iterator[RemoteFile]:
        query, count = {"list-type": "2", "prefix": prefix}, 0
        while True:
            request = self._request(reference, "GET", "", query=query)
            _, body = self._transport.fetch(
                request, lambda answer, body: self.refuse(reference, answer, body)
            )
            page = _parse(body)
            if page is None or page.tag.rpartition("}")[2] != "ListBucketResult":
                raise SourceFailed(
                    f"{reference}: {self._endpoint} answers, but not as an object store does; "
                    "check the endpoint"
                )
            for each in page.iterfind("{*}Contents"):
                key = _text(each, "Key")
                count += 1
                # Consoles show folders as empty objects whose names end so.
                if not key.endswith("/"):
                    yield RemoteFile(
                        name=key.removeprefix(prefix),
                        size_bytes=int(_text(each, "Size")),
                        location=key,
                        version=_text(each, "ETag"),
                    )
            if count > LISTED_MAX:
                raise _invalid(reference, f"more than {LISTED_MAX} objects: name those of a model")
            if _text(page, "IsTruncated") != "true":
                return
            query["continuation-token"] = _text(page, "NextContinuationToken")

    def _ask_checksum(self, reference: BucketReference, file: RemoteFile) -> Checksum | None:
        headers = self._head(reference, file.location)
        if headers is None or headers.get("etag") != file.version:
            raise _changed(reference)
        return read_checksum(headers)

    def _request(
        self,
        reference: BucketReference,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Request:
        path = encode(f"{urlsplit(self._endpoint).path}/{reference.bucket}/{key}".rstrip("/"))
        # A key may end with a slash, but no model is called so.
        origin = self._endpoint.removesuffix(urlsplit(self._endpoint).path)
        url = f"{origin}{path}" + (f"?{encode_query(query)}" if query else "")
        known = dict(headers or {})
        own = {key: value for key, value in known.items() if key.startswith("x-amz-")}
        credentials = sign(method, url, own, self._settings, self._clock.now())
        return Request(url=url, method=method, headers=known, credentials=credentials)


def read_checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Return what the head of an object says about its content."""
    sha256 = headers.get("x-amz-meta-sha256", "").lower()
    stored = headers.get("x-amz-checksum-sha256", "")
    # Of an object that was uploaded in parts it is a checksum of checksums, which nobody can hold
    # against the content.
    if stored and "-" not in stored and headers.get("x-amz-checksum-type") != "COMPOSITE":
        sha256 = base64.b64decode(stored).hex()
    if SHA256.fullmatch(sha256):
        return Checksum(algorithm=Algorithm.SHA256, value=sha256)
    tag = headers.get("etag", "").strip('"')
    encryption = headers.get("x-amz-server-side-encryption", "AES256")
    customer = "x-amz-server-side-encryption-customer-algorithm" in headers
    if MD5.fullmatch(tag) and encryption == "AES256" and not customer:
        return Checksum(algorithm=Algorithm.MD5, value=tag)
    return None


def _describe(name: str, key: str, headers: Mapping[str, str]) -> RemoteFile:
    return RemoteFile(
        name=name,
        size_bytes=int(headers.get("content-length", "0")),
        location=key,
        version=headers.get("etag", ""),
    )


def _parse(body: bytes) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(body) if body else None  # noqa: S314 - see the import
    except ElementTree.ParseError:
        return None


def _text(element: ElementTree.Element | None, tag: str) -> str:
    """Return the text of a child, whatever namespace a store puts it in."""
    found = None if element is None else element.find(f"{{*}}{tag}")
    return "" if found is None else found.text or ""


def _changed(reference: BucketReference) -> InvalidRequest:
    return _invalid(reference, "its objects have changed since it was deployed; deploy it again")


def _invalid(reference: BucketReference, what: str) -> InvalidRequest:
    shown = replace(reference, state="")
    return InvalidRequest(f"the model {shown} cannot be used: {what}", path="source.model")
