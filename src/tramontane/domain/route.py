"""What the gateway should do with requests: our own model between product and Envoy.

``plan.routing`` makes it from services and instances, ``plan.aliases`` from aliases;
``gateway.resources`` translates it. It is the whole interface between deciding and carrying, so it
holds no Envoy words.
"""

from dataclasses import dataclass

from tramontane.domain.definition import EgressRule


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The instances behind one route.

    ``name`` is ``service@generation``. With ``endpoints`` None the upstream is asleep: the gateway
    knows no such upstream, holds the first requests and asks for it by name (which is the wake).
    """

    name: str
    endpoints: tuple[str, ...] | None
    """Unix socket paths, sorted; None while asleep. An empty tuple answers 503 at once."""
    draining: tuple[str, ...] = ()
    """Endpoints that get no new requests but whose requests in progress still count as load."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A fixed answer in place of an upstream: paused, failed to start, refused by policy."""

    status: int
    code: str
    message: str
    retry_after_s: int | None = None


@dataclass(frozen=True, kw_only=True)
class ServiceRoute:
    """How requests reach one service: by its host name and, for models, by name under ``/v1``."""

    project: str
    service: str
    target: Upstream | Refusal
    start_deadline_s: float = 60.0
    """How long a request may be held while the service wakes."""
    model: str | None = None
    """For a model: its public name, matched against ``model`` in request bodies."""
    key_required: bool = False


LOTS = 1_000_000
"""Each request draws one of so many lots; it keeps its lot while it is held and tried again."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way for requests of an alias; the first whose conditions hold is taken."""

    chain: tuple[str, ...]
    """Model services of the project: each is tried when the one before failed to begin."""
    header: tuple[str, str] | None = None
    """Only requests with this header and value."""
    lots: int = LOTS
    """Only requests whose lot is below this."""


@dataclass(frozen=True, kw_only=True)
class AliasRoute:
    """How requests that name an alias as their model are shared out among models."""

    project: str
    alias: str
    choices: tuple[Choice, ...]
    """The last one takes all that are left; none at all if no model is left."""
    first_token_s: float | None = None
    """How long a stream may take to begin before the next service of the chain is tried."""
    between_tokens_s: float | None = None
    """How long a stream may be silent; at least ``first_token_s``."""


@dataclass(frozen=True, kw_only=True)
class WaySockets:
    """Where the gateway lets the instances of one service out."""

    egress: str
    models: str


@dataclass(frozen=True, kw_only=True)
class EgressRoute:
    """The ways out for the instances of one service: a proxy socket and what it lets through, and
    a socket for the models that they are bound to, if any."""

    service_id: str
    project: str
    service: str
    socket: str
    """Unix socket on which the gateway accepts HTTP CONNECT and absolute-form requests."""
    rules: tuple[EgressRule, ...]
    models: tuple[str, ...] = ()
    """Names of the models that they are bound to, there or not."""
    models_socket: str = ""
    """Unix socket on which the gateway answers for these models, and for nothing else."""


@dataclass(frozen=True, kw_only=True)
class EgressBounds:
    """How far any way out may lead: what no manifest can decide, only this machine's operator."""

    own: tuple[str, ...] = ()
    """Networks, as ``192.0.2.7/32``, whose addresses are this machine's."""
    api_port: int | None = None
    """Where the platform's API listens on them; no instance ever reaches it."""
    allowed: frozenset[EgressRule] = frozenset()
    """Destinations that the operator opened although they lie in this machine or, given as a
    name, in a private network."""


@dataclass(frozen=True, kw_only=True)
class KeyTrust:
    """How the gateway recognises API keys: signed by this key, and not revoked."""

    public_jwk: str
    """JSON Web Key (RFC 7517) of the platform's Ed25519 signing key, as JSON text."""
    issuer: str
    revoked: frozenset[str] = frozenset()
    """Token ids (``jti``) that are refused although their signature is good."""
    spent: frozenset[str] = frozenset()
    """Token ids whose budget is spent: refused before they wake anything."""
