"""Models from a registry: a real one, with every way to sign in, and what is no model."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.weights.conftest import Fetching, make_weights
from tests.integration.weights.servers import RegistryServer, find_registry, run_registry
from tests.integration.weights.tokens import run_token_service
from tramontane.base.errors import InvalidRequest, SourceFailed
from tramontane.domain.definition import EgressRule
from tramontane.domain.reference import RegistryReference
from tramontane.domain.route import EgressBounds
from tramontane.testing.clocks import FakeClock
from tramontane.weights.cache import Cache
from tramontane.weights.reach import Reach
from tramontane.weights.settings import RegistrySettings, SourceSettings
from tramontane.weights.sources import Sources

WEIGHTS = make_weights(700_000)
RAW = "application/vnd.cncf.model.weight.v1.raw"
PATH, TITLE = "org.cncf.model.filepath", "org.opencontainers.image.title"
# bcrypt of "a-password".
HTPASSWD = "robot:$2b$05$pLPaHun5ewyfd0yIrJ7FUeDXH4pE/EaKUMAJ1dYWURPjFSzp8Ia4S\n"
SIGNED_IN = RegistrySettings(username="robot", password="a-password")


@pytest.fixture(scope="session")
def program(pytestconfig: pytest.Config) -> str:
    return find_registry(pytestconfig.cache.mkdir("docker-registry"))


@pytest.fixture(scope="module")
def registry(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with run_registry(program, tmp_path_factory.mktemp("registry"), {}) as running:
        yield running


@pytest.fixture
def fetching_from(tmp_path: Path) -> Iterator[Any]:
    cache = Cache(tmp_path / "weights")
    cache.ensure_folders()
    made = Fetching(cache, SourceSettings())

    def settle(server: RegistryServer, settings: RegistrySettings | None = None) -> Fetching:
        made.settings = SourceSettings(registries={server.host: settings or RegistrySettings()})
        return made

    yield settle
    made.transport.close()


def refer(server: RegistryServer, repository: str, tag: str = "latest") -> RegistryReference:
    return RegistryReference(registry=server.host, repository=repository, tag=tag)


def pin(fetching: Fetching, reference: RegistryReference) -> RegistryReference:
    pinned = fetching.sources.pin(reference)
    assert isinstance(pinned, RegistryReference)
    return pinned


def test_a_modelpack_is_pinned_by_its_digest_and_fetched_in_parts(
    registry: RegistryServer, fetching_from: Any
) -> None:
    fetching: Fetching = fetching_from(registry)
    layers = [
        (WEIGHTS, RAW, {PATH: "model.safetensors"}),
        (b"{}", "application/vnd.cncf.model.weight.config.v1.raw", {PATH: "config.json"}),
        (b"# hello", "application/vnd.cncf.model.doc.v1.raw", {PATH: "README.md"}),
        (b"print()", "application/vnd.cncf.model.code.v1.raw", {PATH: "modeling.py"}),
    ]
    kind = "application/vnd.cncf.model.manifest.v1+json"
    digest = registry.push("models/pack", "7b", layers, artifactType=kind)
    pinned = pin(fetching, refer(registry, "models/pack", "7b"))
    assert pinned.digest == digest
    assert str(pinned) == f"oci://{registry.host}/models/pack@{digest}"
    files = {"model.safetensors": WEIGHTS, "config.json": b"{}", "README.md": b"# hello"}
    assert fetching.fetch(pinned) == files
    registry.push("models/pack", "7b", [*layers[1:], (b"GGUF", RAW, {PATH: "m.gguf"})])
    assert pin(fetching, refer(registry, "models/pack", "7b")) != pinned
    assert fetching.fetch(pinned) == files


@pytest.mark.parametrize(
    ("kind", "notes", "name"),
    [
        ("application/vnd.oci.image.layer.v1.tar", {TITLE: "m.gguf"}, None),
        ("application/octet-stream", {TITLE: "m.gguf"}, "m.gguf"),
        ("application/vnd.ollama.image.model", {}, "model.gguf"),
        ("application/vnd.docker.ai.gguf.v3", {}, "model.gguf"),
    ],
)
def test_what_tools_push_is_understood(
    registry: RegistryServer, fetching_from: Any, kind: str, notes: dict[str, str], name: str | None
) -> None:
    fetching: Fetching = fetching_from(registry)
    repository = kind.rpartition("/")[2].replace("+", "-")
    params = (b"{}", "application/vnd.ollama.image.params", {})
    registry.push(repository, "latest", [(WEIGHTS, kind, notes), params])
    if name is None:
        with pytest.raises(InvalidRequest, match=r"m.gguf is packed .*modctl build --raw"):
            pin(fetching, refer(registry, repository))
    else:
        assert fetching.fetch(pin(fetching, refer(registry, repository))) == {name: WEIGHTS}


def make_archive(name: str, content: bytes, *more: bytes, pax: bool = False) -> bytes:
    buffer = io.BytesIO()
    kind = tarfile.PAX_FORMAT if pax else tarfile.USTAR_FORMAT
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for number, each in enumerate((content, *more)):
            member = tarfile.TarInfo(name if not number else f"{name}.{number}")
            member.size = len(each)
            archive.addfile(member, io.BytesIO(each))
    return buffer.getvalue()


@pytest.mark.parametrize("pax", [False, True])
def test_a_file_is_fetched_out_of_the_archive_around_it(
    registry: RegistryServer, fetching_from: Any, pax: bool
) -> None:
    fetching: Fetching = fetching_from(registry)
    name = "modèle-" + "long/" * 30 + "m.gguf" if pax else "m.gguf"
    archive = make_archive(name, WEIGHTS, pax=pax)
    layers = [(archive, "application/vnd.cncf.model.weight.v1.tar", {PATH: "m.gguf"})]
    registry.push("tarred", "latest", layers)
    pinned = pin(fetching, refer(registry, "tarred"))
    assert fetching.fetch(pinned) == {"m.gguf": WEIGHTS}
    (blob,) = fetching.cache.blobs.iterdir()
    assert blob.name == hashlib.sha256(WEIGHTS).hexdigest()
    (file,) = fetching.sources.list_files(pinned)
    assert fetching.cache.find_file(file, fetching.sources.name(pinned)) is not None


def test_an_archive_that_holds_more_or_else_is_refused(
    registry: RegistryServer, fetching_from: Any
) -> None:
    fetching: Fetching = fetching_from(registry)
    kind = "application/vnd.cncf.model.weight.v1.tar"
    for number, content in enumerate(
        (make_archive("m.gguf", WEIGHTS, WEIGHTS), b"no archive" * 100)
    ):
        registry.push(f"more{number}", "latest", [(content, kind, {PATH: "m.gguf"})])
        pinned = pin(fetching, refer(registry, f"more{number}"))
        with pytest.raises(InvalidRequest, match=r"m.gguf is in an archive, but not alone"):
            fetching.fetch(pinned)
    # A second one so small that it could be the end of the first is found by the checksum.
    small = make_archive("m.gguf", WEIGHTS, b"x")
    registry.push("small", "latest", [(small, kind, {PATH: "m.gguf"})])
    with pytest.raises(SourceFailed, match="has not the checksum"):
        fetching.fetch(pin(fetching, refer(registry, "small")))
    assert not list(fetching.cache.blobs.iterdir())


def test_an_index_of_one_is_that_one(registry: RegistryServer, fetching_from: Any) -> None:
    fetching: Fetching = fetching_from(registry)
    inner = registry.push("indexed", "inner", [(WEIGHTS, RAW, {PATH: "m.gguf"})])
    manifest = "application/vnd.oci.image.manifest.v1+json"
    size = len(httpx.get(f"http://{registry.host}/v2/indexed/manifests/{inner}").content)
    entry = {"mediaType": manifest, "digest": inner, "size": size}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }
    with httpx.Client(trust_env=False) as sender:
        registry.put_manifest(sender, "indexed", "one", index)
        other = registry.push("indexed", "other", [(b"GGUF", RAW, {PATH: "m.gguf"})])
        index["manifests"] = [entry, {**entry, "digest": other}]
        registry.put_manifest(sender, "indexed", "two", index)
    assert pin(fetching, refer(registry, "indexed", "one")).digest == inner
    with pytest.raises(InvalidRequest, match="it is an index of 2: name one of sha256:"):
        pin(fetching, refer(registry, "indexed", "two"))


def test_what_is_not_there_or_no_model_is_said(
    registry: RegistryServer, fetching_from: Any
) -> None:
    fetching: Fetching = fetching_from(registry)
    with pytest.raises(InvalidRequest, match="has no such artifact"):
        pin(fetching, refer(registry, "missing"))
    registry.push("image", "latest", [(b"x", "application/vnd.oci.image.layer.v1.tar+gzip", {})])
    with pytest.raises(InvalidRequest, match="there is nothing"):
        pin(fetching, refer(registry, "image"))


def test_signing_in_with_a_name_and_a_password(
    program: str, registry: RegistryServer, fetching_from: Any, tmp_path: Path
) -> None:
    registry.push("closed/m", "latest", [(WEIGHTS, RAW, {PATH: "m.gguf"})])
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "a test", "path": str(tmp_path / "htpasswd")}}
    with run_registry(program, registry.folder, auth) as closed:
        fetching: Fetching = fetching_from(closed, SIGNED_IN)
        assert fetching.fetch(pin(fetching, refer(closed, "closed/m"))) == {"m.gguf": WEIGHTS}
        for settings in (RegistrySettings(), replace(SIGNED_IN, password="wrong")):
            fetching = fetching_from(closed, settings)
            with pytest.raises(SourceFailed, match=r"refuses this; who may is said by `oci: {loc"):
                pin(fetching, refer(closed, "closed/m"))
        assert "a-password" not in repr(SIGNED_IN)


def test_signing_in_with_a_token_that_runs_out(
    program: str, registry: RegistryServer, fetching_from: Any, tmp_path: Path
) -> None:
    registry.push("closed/m", "latest", [(WEIGHTS, RAW, {PATH: "m.gguf"})])
    with (
        run_token_service(tmp_path) as service,
        run_registry(program, registry.folder, service.auth) as closed,
    ):
        fetching: Fetching = fetching_from(closed, SIGNED_IN)
        assert fetching.fetch(pin(fetching, refer(closed, "closed/m"))) == {"m.gguf": WEIGHTS}
        # One for each time that somebody asks anew, not one for each part.
        assert service.given <= 3
        clock = FakeClock()
        sources = Sources(fetching.settings, fetching.transport, clock)
        pinned = sources.pin(refer(closed, "closed/m"))
        assert isinstance(pinned, RegistryReference)
        (file,) = sources.list_files(pinned)
        given = service.given
        first = sources.request(pinned, file).credentials
        clock.advance(service.lasts_s - 15)
        assert sources.request(pinned, file).credentials == first
        clock.advance(15)
        assert sources.request(pinned, file).credentials != first
        assert service.given == given + 1
        assert all("scope=repository%3Aclosed%2Fm%3Apull" in each for each in service.asked)
        fetching = fetching_from(closed, replace(SIGNED_IN, password="wrong"))
        with pytest.raises(SourceFailed, match="refuses this"):
            pin(fetching, refer(closed, "closed/m"))


def test_a_registry_that_nobody_named_may_not_be_near(
    registry: RegistryServer, fetching_from: Any
) -> None:
    fetching: Fetching = fetching_from(registry)
    registry.push("near", "latest", [(b"GGUF", RAW, {PATH: "m.gguf"})])
    pin(fetching, refer(registry, "near"))
    fetching.settings = SourceSettings()
    with pytest.raises(SourceFailed, match=r"is this machine's own address; an operator allows"):
        pin(fetching, refer(registry, "near"))


def test_who_may_be_asked_is_judged_by_address() -> None:
    addresses = {
        "public.eu": ["93.184.216.34"],
        "mixed.eu": ["169.254.169.254", "93.184.216.34"],
        "corp.eu": ["10.1.2.3"],
        "metadata.eu": ["169.254.169.254"],
        "self.eu": ["93.184.216.35"],
        "nobody.eu": [],
    }
    bounds = EgressBounds(
        own=("93.184.216.35/32",), allowed=frozenset({EgressRule(host="corp.eu", port=443)})
    )
    reach = Reach(bounds, lambda host, _: addresses[host])
    assert reach("public.eu", 443) == "93.184.216.34"
    assert reach("mixed.eu", 443) == "93.184.216.34"
    assert reach("corp.eu", 443) == "10.1.2.3"
    assert reach("nobody.eu", 443) is None
    for host, port in (("corp.eu", 80), ("metadata.eu", 443), ("self.eu", 443)):
        with pytest.raises(SourceFailed, match="may not be asked for weights"):
            reach(host, port)
