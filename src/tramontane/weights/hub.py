"""``hf://``: model hubs that speak Hugging Face's HTTP API, its own or another at an endpoint.

Two calls are all it takes: one lists a repository at a revision, the other hands out a file, mostly
by a redirect to a content delivery network. Large files come with their sha256, small ones with
git's name for them. Mirrors that say less are asked further. Plain HTTP rather than the library
``huggingface_hub``: docs/decisions/0014-weights-are-fetched-by-one-downloader.md.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

from tramontane.base.errors import InvalidRequest, SourceFailed, TramontaneError
from tramontane.domain.reference import HubReference
from tramontane.domain.weights import Algorithm, Checksum, RemoteFile
from tramontane.plan.weights import choose_files
from tramontane.weights.settings import HubSettings
from tramontane.weights.transport import Answer, Request, Transport

SHA256 = re.compile(r"[0-9a-f]{64}")
SHA1 = re.compile(r"[0-9a-f]{40}")
TOKEN = "a token is given by `hf: {token: …}` in sources.yaml, or HF_TOKEN at tram up"  # noqa: S105


class Hub:
    """The hub of one platform."""

    def __init__(self, settings: HubSettings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._endpoint = settings.endpoint.rstrip("/")

    def name(self, reference: HubReference) -> str:
        """Return what tells this source's files from those of others."""
        return f"{self._endpoint}/{reference.repository}"

    def pin(self, reference: HubReference) -> HubReference:
        """Return the reference at the commit that its revision is now."""
        if reference.pinned:
            return reference
        listing = self._fetch_listing(reference)
        # Looked at now, so that a repository without usable weights is refused before it is kept.
        self._choose(reference, listing)
        commit = listing.get("sha")
        if not isinstance(commit, str) or not SHA1.fullmatch(commit):
            raise self._malformed(reference)
        return HubReference(repository=reference.repository, revision=commit, file=reference.file)

    def list_files(self, reference: HubReference) -> tuple[RemoteFile, ...]:
        """Return the files of the repository's model, with their checksums."""
        chosen = self._choose(reference, self._fetch_listing(reference))
        return tuple(
            each if each.checksum is not None else self._ask_about(reference, each)
            for each in chosen
        )

    def request(self, reference: HubReference, file: RemoteFile) -> Request:
        """Return how to ask for a file."""
        place = f"{reference.repository}/resolve/{quote(reference.revision, safe='')}"
        return self._request(f"{place}/{quote(file.location)}")

    def refuse(self, reference: HubReference, answer: Answer, body: bytes) -> TramontaneError:
        """Return the error that an answer stands for, in the hub's own words where it has some."""
        who = answer.host if answer.redirected else self._endpoint
        code = "" if answer.redirected else answer.headers.get("x-error-code", "")
        said = answer.headers.get("x-error-message", "")
        match answer.status, code:
            case _, "GatedRepo":
                return SourceFailed(
                    f"{reference} is gated: accept its conditions on {who}; {TOKEN}"
                )
            case _, "RevisionNotFound":
                return _invalid(f"{reference}: {who} has no revision {reference.revision} of it")
            case _, "EntryNotFound":
                return _invalid(f"{reference}: {who} has no such file at this revision")
            case ((401 | 404), _) if not answer.redirected and "credentials" not in said:
                known = "the hub's token does not open it" if self._settings.token else TOKEN
                return _invalid(
                    f"{reference}: {who} has no such repository, or shows it to few; {known}"
                )
            case ((401 | 403), _) if not answer.redirected:
                return SourceFailed(f"{reference}: {who} refuses the hub's token, if any; {TOKEN}")
            case _:
                return SourceFailed(f"{reference}: {who} answers with status {answer.status}")

    def _request(self, path: str, method: str = "GET") -> Request:
        if self._settings.offline:
            raise SourceFailed(
                "the model hub is switched off (`hf: {offline: true}` in sources.yaml, or "
                "HF_HUB_OFFLINE at tram up); what is in the cache can be deployed by its commit, "
                "see: tram models cache"
            )
        token = self._settings.token
        return Request(
            url=f"{self._endpoint}/{path}",
            method=method,
            credentials={"Authorization": f"Bearer {token}"} if token else {},
        )

    def _fetch_listing(self, reference: HubReference) -> Mapping[str, Any]:
        revision = quote(reference.revision, safe="")
        place = f"api/models/{reference.repository}"
        listing = self._fetch_document(reference, f"{place}/revision/{revision}?blobs=true")
        if not isinstance(listing, dict):
            raise self._malformed(reference)
        return cast("dict[str, Any]", listing)

    def _fetch_document(self, reference: HubReference, path: str) -> object:
        _, body = self._transport.fetch(
            self._request(path), lambda answer, body: self.refuse(reference, answer, body)
        )
        try:
            return json.loads(body)
        except ValueError:
            raise self._malformed(reference) from None

    def _choose(
        self, reference: HubReference, listing: Mapping[str, Any]
    ) -> tuple[RemoteFile, ...]:
        try:
            listed: Any = listing.get("siblings") or self._fetch_tree(reference, listing["sha"])
            files = [_read_file(each) for each in listed]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._malformed(reference) from error
        return choose_files(files, reference.file, str(reference))

    def _fetch_tree(self, reference: HubReference, commit: str) -> list[Any]:
        """Return the files as the hub's other listing has them."""
        place = f"api/models/{reference.repository}/tree/{quote(commit, safe='')}"
        tree: Any = self._fetch_document(reference, f"{place}?recursive=true")
        return [each for each in tree if each["type"] == "file"]

    def _ask_about(self, reference: HubReference, file: RemoteFile) -> RemoteFile:
        """Return the file with size and checksum: some mirrors list names alone."""
        plain = self.request(reference, file)
        headers, _ = self._transport.fetch(
            Request(url=plain.url, method="HEAD", credentials=plain.credentials),
            lambda answer, body: self.refuse(reference, answer, body),
            follow=False,
        )
        tag = headers.get("x-linked-etag") or headers.get("etag", "")
        tag = tag.removeprefix("W/").strip('"')
        size = headers.get("x-linked-size") or headers.get("content-length", "")
        if not size.isdigit():
            raise self._malformed(reference)
        return RemoteFile(
            name=file.name,
            size_bytes=int(size),
            location=file.location,
            checksum=_checksum(tag),
            version=f"{reference.revision} {tag}",
        )

    def _malformed(self, reference: HubReference) -> SourceFailed:
        return SourceFailed(
            f"{reference}: {self._endpoint} answers, but not as a model hub does; "
            "check the endpoint"
        )


def _read_file(listed: Mapping[str, Any]) -> RemoteFile:
    name = str(listed["rfilename"] if "rfilename" in listed else listed["path"])
    size, large = listed.get("size"), listed.get("lfs")
    if large:
        checksum = _checksum(str(large.get("sha256") or large.get("oid") or ""))
        size = large.get("size", size)
    else:
        checksum = _checksum(str(listed.get("blobId") or listed.get("oid") or ""))
    return RemoteFile(
        name=name,
        size_bytes=0 if size is None else int(size),
        location=name,
        checksum=None if size is None else checksum,
    )


def _checksum(text: str) -> Checksum | None:
    if SHA256.fullmatch(text):
        return Checksum(algorithm=Algorithm.SHA256, value=text)
    if SHA1.fullmatch(text):
        return Checksum(algorithm=Algorithm.GIT, value=text)
    return None


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, path="source.model")
