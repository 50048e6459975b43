"""What an operator says about the sources of weights; ``processes.sources`` reads it.

Secrets are left out of every ``repr``, so that no log or error shows one by accident.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tramontane.domain.route import EgressBounds

HUB = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True)
class HubSettings:
    """The model hub behind ``hf://``."""

    endpoint: str = HUB
    token: str = field(default="", repr=False)
    offline: bool = False
    """Ask the hub nothing: only what is in the cache can be deployed, by its commit."""


@dataclass(frozen=True, kw_only=True)
class BucketSettings:
    """The object store behind ``s3://``."""

    endpoint: str = ""
    """Empty: that of Amazon in the region."""
    region: str = "us-east-1"
    access_key_id: str = ""
    """Empty: requests are not signed, which public buckets allow."""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    """One registry behind ``oci://``; those that are not named are asked without credentials."""

    username: str = ""
    password: str = field(default="", repr=False)
    plain_http: bool = False
    """Without TLS; registries on this machine never need it."""


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """All sources of one platform."""

    hub: HubSettings = field(default_factory=HubSettings)
    bucket: BucketSettings = field(default_factory=BucketSettings)
    registries: Mapping[str, RegistrySettings] = field(default_factory=dict[str, RegistrySettings])
    """By host, with the port where there is one."""
    bounds: EgressBounds = field(default_factory=EgressBounds)
    """How far registries may lead that are not among these."""
