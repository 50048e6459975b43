"""Holds the content of a fetched file against what its source says about it."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

from tramontane.domain.weights import Algorithm, RemoteFile


class Hash(Protocol):
    """A digest on its way."""

    def update(self, data: bytes, /) -> object:
        """Take more of the content."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of what was taken so far."""
        ...


class Check:
    """One file: give its content to ``hashes``, then ask."""

    def __init__(self, file: RemoteFile) -> None:
        self._own = hashlib.sha256()
        self._told: Hash = self._own
        self._expected, self._tail = "", b""
        if file.archive is not None:
            self._told = hashlib.sha256(bytes.fromhex(file.archive.head))
            self._expected = file.archive.sha256
            self._tail = bytes(file.archive.tail_bytes)
        elif file.checksum is not None:
            self._told = begin_hash(file.checksum.algorithm, file.size_bytes)
            self._expected = file.checksum.value

    @property
    def hashes(self) -> Sequence[Hash]:
        """What the content is given to."""
        return (self._own, self._told) if self._expected else (self._own,)

    def finish(self) -> str | None:
        """Return the sha256 of the content, or None if it is not what the source says."""
        if self._expected:
            self._told.update(self._tail)
            if self._told.hexdigest() != self._expected:
                return None
        return self._own.hexdigest()


def begin_hash(algorithm: Algorithm, size_bytes: int) -> Hash:
    """Return the hash of an algorithm, ready for a content of this size."""
    match algorithm:
        case Algorithm.SHA256:
            return hashlib.sha256()
        case Algorithm.GIT:
            return hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False)
        case Algorithm.MD5:
            return hashlib.md5(usedforsecurity=False)
