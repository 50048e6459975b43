"""Where a model's weights come from, as users write it and deployments keep it. Pure.

    tiny                                  bundled with the platform
    /models/mistral.gguf                  a file or directory of the platform's machine; also file://
    hf://organization/repository[@revision][:file]                a repository of a model hub
    s3://bucket/key-or-prefix             one object, or all below a prefix
    oci://registry/repository[:tag|@sha256:…]                     a model artifact in a registry

What a user writes may move: ``main``, ``latest``, an object that is overwritten. A deployment
keeps a *pinned* reference, which names one content for ever: a commit, a digest, or after ``#`` a
*state*, which is a digest of the names, sizes and versions that were found. ``parse_reference``
reads both, and ``str`` writes both.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from tramontane.base.errors import InvalidRequest
from tramontane.domain.weights import is_safe_name

BUNDLED = ("tiny",)
"""Models that the package brings along."""
MAIN = "main"
LATEST = "latest"
FORMS = {
    "hf": "hf://ORGANIZATION/REPOSITORY[@REVISION][:FILE], "
    "such as hf://mistralai/Mistral-7B-Instruct-v0.3",
    "s3": "s3://BUCKET/KEY-OR-PREFIX, such as s3://models/mistral-7b/model.gguf",
    "oci": "oci://REGISTRY/REPOSITORY[:TAG] or oci://REGISTRY/REPOSITORY@sha256:DIGEST, "
    "such as oci://registry.example.eu/models/mistral:7b",
    "file": "file:///DIRECTORY/FILE, an absolute path, such as file:///models/mistral.gguf",
}
SPLIT_FILE = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
"""How llama.cpp names the files of one model that was split."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_STATE = re.compile(r"[0-9a-f]{32}")
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGISTRY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::\d{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class BundledReference:
    """A model of the package itself: as pinned as the package is."""

    name: str

    @property
    def pinned(self) -> bool:
        """Whether it names one content for ever."""
        return True

    @property
    def label(self) -> str:
        """What a service of this model may be called."""
        return self.name

    def __str__(self) -> str:
        """Return the reference as a user writes it."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class FileReference:
    """A file, or a directory of files, used where it lies."""

    path: str
    state: str = ""

    @property
    def pinned(self) -> bool:
        """Whether it names one content for ever."""
        return bool(self.state)

    @property
    def label(self) -> str:
        """What a service of this model may be called."""
        return _stem(self.path)

    def __str__(self) -> str:
        """Return the reference as a user writes it."""
        return f"file://{quote(self.path)}#{self.state}" if self.state else self.path


@dataclass(frozen=True, kw_only=True)
class HubReference:
    """A repository of a model hub at a revision: all that belongs to its model, or one file."""

    repository: str
    revision: str = MAIN
    file: str = ""

    @property
    def pinned(self) -> bool:
        """Whether it names one content for ever."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def label(self) -> str:
        """What a service of this model may be called."""
        return _stem(self.file) if self.file else self.repository.rpartition("/")[2]

    def __str__(self) -> str:
        """Return the reference as a user writes it."""
        revision = "" if self.revision == MAIN else f"@{self.revision}"
        return f"hf://{self.repository}{revision}" + (f":{self.file}" if self.file else "")


@dataclass(frozen=True, kw_only=True)
class BucketReference:
    """One object of a bucket, or all objects below a prefix."""

    bucket: str
    key: str
    state: str = ""

    @property
    def pinned(self) -> bool:
        """Whether it names one content for ever."""
        return bool(self.state)

    @property
    def label(self) -> str:
        """What a service of this model may be called."""
        return _stem(self.key)

    def __str__(self) -> str:
        """Return the reference as a user writes it."""
        return f"s3://{self.bucket}/{self.key}" + (f"#{self.state}" if self.state else "")


@dataclass(frozen=True, kw_only=True)
class RegistryReference:
    """A model artifact in an OCI registry; ``digest`` wins over ``tag``."""

    registry: str
    repository: str
    tag: str = LATEST
    digest: str = ""

    @property
    def pinned(self) -> bool:
        """Whether it names one content for ever."""
        return bool(self.digest)

    @property
    def label(self) -> str:
        """What a service of this model may be called."""
        return self.repository.rpartition("/")[2]

    def __str__(self) -> str:
        """Return the reference as a user writes it."""
        version = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"oci://{self.registry}/{self.repository}{version}"


LocalReference = BundledReference | FileReference
"""Weights that are on the platform's machine already, and not ours to keep."""
RemoteReference = HubReference | BucketReference | RegistryReference
Reference = LocalReference | RemoteReference


def parse_reference(text: str) -> Reference:
    """Return what a text refers to; raises ``InvalidRequest`` with the form it should have."""
    scheme, separator, rest = text.partition("://")
    if any(not letter.isprintable() for letter in text):
        raise _wrong(text, "it has a character that cannot be printed", "file")
    if not separator or text.startswith("/"):
        return _parse_plain(text)
    match scheme:
        case "hf":
            return _parse_hub(text, rest)
        case "s3":
            return _parse_bucket(text, rest)
        case "oci":
            return _parse_registry(text, rest)
        case "file":
            path, state = _split_state(rest)
            return _make_file(text, unquote(path), state)
        case "http" | "https" if rest.count("/") == 2 and "huggingface" in rest:
            name = rest.partition("/")[2]
            raise _invalid(text, f"a page of a hub is no reference; write hf://{name}")
        case _:
            known = ", ".join(f"{each}://" for each in FORMS)
            raise _invalid(
                text, f"{scheme} is no source of weights; there are {known} and {BUNDLED[0]!r}"
            )


def _parse_plain(text: str) -> Reference:
    if text in BUNDLED:
        return BundledReference(name=text)
    if text.startswith("/"):
        return _make_file(text, text, "")
    hint = f"write hf://{text} for a model hub, or " if text.count("/") == 1 else ""
    raise _invalid(
        text,
        f"it is neither bundled (bundled is {', '.join(BUNDLED)}) nor the absolute path of a file; "
        f"{hint}one of hf://, s3://, oci:// and file://",
    )


def _make_file(text: str, path: str, state: str) -> FileReference:
    if not path.startswith("/") or "\0" in path:
        raise _wrong(text, "its path is not absolute", "file")
    steps = [each for each in path.split("/") if each not in {"", "."}]
    return FileReference(path=f"/{'/'.join(steps)}", state=state)


def _parse_hub(text: str, rest: str) -> HubReference:
    # A revision may hold slashes (refs/pr/1), but git allows no colon in it.
    place, colon, file = rest.partition(":")
    repository, at, revision = place.partition("@")
    names = repository.split("/")
    if len(names) != 2 or not all(_HUB_NAME.fullmatch(each) for each in names):
        raise _wrong(text, f"{repository!r} is not ORGANIZATION/REPOSITORY", "hf")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise _wrong(text, f"{revision!r} is no branch, tag or commit", "hf")
    if colon and not is_safe_name(file):
        raise _wrong(text, f"{file!r} is no path of a file in the repository", "hf")
    return HubReference(repository=repository, revision=revision or MAIN, file=file)


def _parse_bucket(text: str, rest: str) -> BucketReference:
    place, state = _split_state(rest)
    bucket, _, key = place.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise _wrong(text, f"{bucket!r} is no name of a bucket", "s3")
    if not key.strip("/"):
        raise _wrong(text, "it names no object in the bucket", "s3")
    return BucketReference(bucket=bucket, key=key, state=state)


def _parse_registry(text: str, rest: str) -> RegistryReference:
    place, _, digest = rest.partition("@")
    registry, _, path = place.partition("/")
    repository, colon, tag = path.partition(":")
    if not _REGISTRY.fullmatch(registry):
        raise _wrong(text, f"{registry!r} is no host of a registry", "oci")
    if not _REPOSITORY.fullmatch(repository):
        raise _wrong(text, f"{repository!r} is no repository", "oci")
    if colon and not _TAG.fullmatch(tag):
        raise _wrong(text, f"{tag!r} is no tag", "oci")
    if "@" in rest and not _DIGEST.fullmatch(digest):
        raise _wrong(text, f"{digest!r} is no digest", "oci")
    return RegistryReference(
        registry=registry,
        repository=repository,
        # Beside a digest a tag says nothing, and one content should have one name.
        tag=LATEST if digest else tag or LATEST,
        digest=digest,
    )


def _split_state(text: str) -> tuple[str, str]:
    place, _, state = text.rpartition("#")
    return (place, state) if place and _STATE.fullmatch(state) else (text, "")


def _stem(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    split = SPLIT_FILE.match(name)
    return split["stem"] if split else name.removesuffix(".gguf").removesuffix(".safetensors")


def _wrong(text: str, what: str, form: str) -> InvalidRequest:
    return _invalid(text, f"{what}; expected {FORMS[form]}")


def _invalid(text: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"the model {text!r} cannot be read: {what}", path="source.model")
