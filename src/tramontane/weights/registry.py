"""``oci://``: model artifacts in registries that speak the OCI distribution protocol.

A manifest lists layers with size and sha256; the layers of a model are its files, named by an
annotation. Read are CNCF ModelPack, also where it has an archive around each file, what ``oras
push`` makes of files, and the single GGUF layer of Docker's and Ollama's models. Registries say
with a challenge whether and how one has to sign in; most want a token of their own for each
repository, which runs out after a few minutes.
"""

import base64
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from tramontane.base.clock import Clock
from tramontane.base.errors import InvalidRequest, SourceFailed, TramontaneError
from tramontane.domain.addresses import AddressKind, kind_of, read_address
from tramontane.domain.reference import RegistryReference
from tramontane.domain.weights import Algorithm, Archive, Checksum, RemoteFile
from tramontane.plan.weights import choose_files
from tramontane.weights.reach import Reach, resolve
from tramontane.weights.settings import RegistrySettings, SourceSettings
from tramontane.weights.transport import Answer, Request, Transport

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
NAMES = (
    *("org.cncf.model.filepath", "org.cnai.model.filepath"),
    "org.opencontainers.image.title",
)
"""Annotations that hold the name of a layer's file."""
UNNAMED = {
    "application/vnd.ollama.image.model": "model.gguf",
    "application/vnd.docker.ai.gguf.v3": "model.gguf",
    "application/vnd.docker.ai.license": "LICENSE",
    "application/vnd.ollama.image.license": "LICENSE",
}
"""What layers without a name are, by their media type; others are not files of a model."""
PACKED = re.compile(r"[.+](tar|gzip|zstd|zip)([+.]|$)")
PLAIN_TAR = re.compile(r"application/vnd\.cn(ai|cf)\.model\..*\.tar")
"""What ModelPack's tools make by default: an archive around each file, which is not compressed."""
HEAD_BYTES = 16 * 1024
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
PARAMETER = re.compile(r'(\w+)="([^"]*)"')
TOKEN_S = 60.0
"""How long a token holds that does not say it (distribution's specification)."""
MARGIN_S = 10.0


@dataclass(frozen=True)
class _Ticket:
    """What opens one repository, for a while."""

    headers: Mapping[str, str]
    until: float


class Registry:
    """All registries of one platform."""

    def __init__(self, settings: SourceSettings, transport: Transport, clock: Clock) -> None:
        self._settings = settings.registries
        self._reach = Reach(settings.bounds, resolve)
        self._transport = transport
        self._clock = clock
        self._tickets: dict[tuple[str, str], _Ticket] = {}
        self._lock = Lock()

    def name(self, reference: RegistryReference) -> str:
        """Return what tells this source's files from those of others."""
        return f"{reference.registry}/{reference.repository}"

    def pin(self, reference: RegistryReference) -> RegistryReference:
        """Return the reference at the digest that its tag is now."""
        if reference.pinned:
            return reference
        pinned, manifest = self._fetch_manifest(reference)
        # Looked at now, so that an artifact without usable weights is refused before it is kept.
        _choose(manifest, pinned)
        return pinned

    def list_files(self, reference: RegistryReference) -> tuple[RemoteFile, ...]:
        """Return the layers that are files of the model."""
        pinned, manifest = self._fetch_manifest(reference)
        chosen = _choose(manifest, pinned)
        kinds = {each["digest"]: each["mediaType"] for each in manifest["layers"]}
        return tuple(
            self._look_inside(pinned, each) if PLAIN_TAR.fullmatch(kinds[each.location]) else each
            for each in chosen
        )

    def request(self, reference: RegistryReference, file: RemoteFile) -> Request:
        """Return how to ask for a layer."""
        return self._request(reference, f"blobs/{file.location}")

    def refuse(self, reference: RegistryReference, answer: Answer, body: bytes) -> TramontaneError:
        """Return the error that an answer stands for."""
        key = f"`oci: {{{reference.registry}: {{username: …, password: …}}}}` in sources.yaml"
        who = answer.host if answer.redirected else reference.registry
        match answer.status:
            case 404 if not answer.redirected:
                return _invalid(reference, f"{who} has no such artifact")
            case 401 | 403 if not answer.redirected:
                return SourceFailed(f"{reference}: {who} refuses this; who may is said by {key}")
            case status:
                return SourceFailed(f"{reference}: {who} answers with status {status}")

    def _fetch_manifest(
        self, reference: RegistryReference
    ) -> tuple[RegistryReference, Mapping[str, Any]]:
        """Return the manifest of one model, and the reference pinned to it."""
        wanted = reference.digest or reference.tag
        request = self._request(reference, f"manifests/{quote(wanted)}")
        accept = ", ".join((*MANIFESTS, *INDEXES))
        _, body = self._transport.fetch(
            replace(request, headers={"Accept": accept}),
            lambda answer, body: self.refuse(reference, answer, body),
        )
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if reference.digest and digest != reference.digest:
            raise SourceFailed(f"{reference}: {reference.registry} sent the manifest {digest}")
        try:
            manifest = json.loads(body)
            listed = manifest.get("manifests")
        except (ValueError, AttributeError):
            raise self._malformed(reference) from None
        pinned = replace(reference, tag=RegistryReference.tag, digest=digest)
        if listed is None:
            return pinned, cast("Mapping[str, Any]", manifest)
        return self._fetch_manifest(replace(pinned, digest=self._only_one(reference, listed)))

    def _only_one(self, reference: RegistryReference, listed: Any) -> str:
        """Return the one model of an index: variants for machines mean nothing for weights."""
        try:
            digests = [str(each["digest"]) for each in listed if not _is_attestation(each)]
        except (TypeError, KeyError, AttributeError):
            raise self._malformed(reference) from None
        if len(digests) != 1 or not DIGEST.fullmatch(digests[0]):
            shown = ", ".join(digests)
            raise _invalid(reference, f"it is an index of {len(digests)}: name one of {shown}")
        return digests[0]

    def _malformed(self, reference: RegistryReference) -> SourceFailed:
        return SourceFailed(
            f"{reference}: {reference.registry} answers, but not as a registry does"
        )

    def _look_inside(self, reference: RegistryReference, layer: RemoteFile) -> RemoteFile:
        """Return the one file in an archive, which is fetched without what stands around it.

        The digest that the registry knows is the archive's. It can be told from the file all the
        same: what comes before it is known, and after it are zeros.
        """
        request = self.request(reference, layer)
        wanted = f"bytes=0-{min(HEAD_BYTES, layer.size_bytes) - 1}"
        _, head = self._transport.fetch(
            replace(request, headers={"Range": wanted}),
            lambda answer, body: self.refuse(reference, answer, body),
        )
        try:
            # Nothing to close: it reads from memory.
            member = tarfile.open(fileobj=io.BytesIO(head[:HEAD_BYTES]), mode="r:").next()  # noqa: SIM115
        except tarfile.TarError:
            member = None
        if member is None or not member.isreg() or member.offset_data > len(head):
            raise _invalid(reference, f"{layer.name} is in an archive, but not alone")
        before = head[: member.offset_data]
        assert layer.checksum is not None, "every layer has a digest"
        archive = Archive(
            sha256=layer.checksum.value,
            head=before.hex(),
            tail_bytes=layer.size_bytes - len(before) - member.size,
        )
        # No tool adds more than a record of zeros; more would be another file.
        if not 0 <= archive.tail_bytes <= tarfile.RECORDSIZE:
            raise _invalid(reference, f"{layer.name} is in an archive, but not alone")
        return replace(layer, size_bytes=member.size, checksum=None, archive=archive)

    # --- signing in ----------------------------------------------------------------------------

    def _request(self, reference: RegistryReference, path: str) -> Request:
        settings = self._settings_of(reference.registry)
        place = f"{_origin(reference.registry, settings)}/v2/{reference.repository}/{path}"
        dial = self._dial(reference)
        return Request(url=place, credentials=self._sign_in(reference), dial=dial)

    def _dial(self, reference: RegistryReference) -> Reach | None:
        return None if reference.registry in self._settings else self._reach

    def _settings_of(self, registry: str) -> RegistrySettings:
        return self._settings.get(registry, RegistrySettings())

    def _sign_in(self, reference: RegistryReference) -> Mapping[str, str]:
        key = (reference.registry, reference.repository)
        # One thread signs in for all.
        with self._lock:
            ticket = self._tickets.get(key)
            if ticket is None or ticket.until <= self._clock.monotonic():
                ticket = self._tickets[key] = self._make_ticket(reference)
            return ticket.headers

    def _make_ticket(self, reference: RegistryReference) -> _Ticket:
        settings = self._settings_of(reference.registry)
        url = f"{_origin(reference.registry, settings)}/v2/"
        challenges: list[str] = []

        def refuse(answer: Answer, body: bytes) -> TramontaneError:
            challenges.append(answer.headers.get("www-authenticate", ""))
            return self.refuse(reference, answer, body)

        try:
            self._transport.fetch(Request(url=url, dial=self._dial(reference)), refuse)
        except TramontaneError:
            scheme, _, rest = (challenges or [""])[-1].partition(" ")
            if scheme.lower() == "bearer":
                return self._fetch_token(reference, dict(PARAMETER.findall(rest)), settings)
            if scheme.lower() != "basic" or not settings.username:
                raise
            return _Ticket(_basic(settings), float("inf"))
        return _Ticket({}, float("inf"))

    def _fetch_token(
        self,
        reference: RegistryReference,
        challenge: Mapping[str, str],
        settings: RegistrySettings,
    ) -> _Ticket:
        realm = challenge.get("realm", "")
        # Of an https registry, since the credentials are meant for it alone.
        secure = urlsplit(_origin(reference.registry, settings)).scheme == "https"
        if urlsplit(realm).scheme not in ({"https"} if secure else {"http", "https"}):
            raise self._malformed(reference)
        asked = {"scope": f"repository:{reference.repository}:pull"}
        if "service" in challenge:
            asked = {"service": challenge["service"], **asked}
        _, body = self._transport.fetch(
            Request(
                url=f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}",
                credentials=_basic(settings) if settings.username else {},
                dial=self._dial(reference),
            ),
            lambda answer, body: self.refuse(reference, answer, body),
        )
        try:
            answer = json.loads(body)
            token = str(answer.get("token") or answer["access_token"])
            lasts_s = float(answer.get("expires_in", TOKEN_S))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._malformed(reference) from None
        until = self._clock.monotonic() + max(lasts_s - MARGIN_S, 1.0)
        return _Ticket({"Authorization": f"Bearer {token}"}, until)


def _choose(manifest: Mapping[str, Any], reference: RegistryReference) -> tuple[RemoteFile, ...]:
    try:
        layers = [_read_layer(each, reference) for each in manifest["layers"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _invalid(reference, "it is no model: its manifest lists no layers") from error
    return choose_files([each for each in layers if each is not None], "", str(reference))


def _read_layer(layer: Mapping[str, Any], reference: RegistryReference) -> RemoteFile | None:
    kind = str(layer["mediaType"])
    notes: Mapping[str, str] = layer.get("annotations") or {}
    name = next((notes[key] for key in NAMES if key in notes), UNNAMED.get(kind))
    if name is None:
        return None
    packed = PACKED.search(kind) and not PLAIN_TAR.fullmatch(kind)
    if packed or notes.get("io.deis.oras.content.unpack") == "true":
        raise _invalid(
            reference,
            f"{name} is packed ({kind}); push it as a plain file: `modctl build --raw`, or "
            "`oras push` with files rather than folders",
        )
    digest = DIGEST.fullmatch(str(layer["digest"]))
    if digest is None:
        raise _invalid(reference, f"{name} has the digest {layer['digest']}, which is no sha256")
    return RemoteFile(
        name=name,
        size_bytes=int(layer["size"]),
        location=digest[0],
        checksum=Checksum(algorithm=Algorithm.SHA256, value=digest[1]),
    )


def _is_attestation(entry: Mapping[str, Any]) -> bool:
    platform: Mapping[str, Any] = entry.get("platform") or {}
    return platform.get("os") == "unknown"


def _origin(registry: str, settings: RegistrySettings) -> str:
    host = urlsplit(f"//{registry}").hostname or ""
    address = read_address(host)
    here = host == "localhost" or (address is not None and kind_of(address) is AddressKind.MACHINE)
    return f"{'http' if here or settings.plain_http else 'https'}://{registry}"


def _basic(settings: RegistrySettings) -> dict[str, str]:
    pair = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _invalid(reference: RegistryReference, what: str) -> InvalidRequest:
    return InvalidRequest(f"the model {reference} cannot be used: {what}", path="source.model")
