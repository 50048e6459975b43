"""What the steps of a build may reach of the network: decided by name and by address. Pure.

A build needs the world: package registries, and whatever they send it on to. It needs nothing of
the machine it runs on, nor of the network around that, unless the operator's own settings say that
packages come from there. ``builders.proxy`` asks before it connects anybody.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from tramontane.base.errors import Unsupported
from tramontane.builders.environment import PROXIES
from tramontane.domain.addresses import NEVER, Address, AddressKind, kind_of
from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressBounds

REGISTRIES = frozenset(
    {
        *("pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "nodejs.org"),
        *("proxy.golang.org", "sum.golang.org", "storage.googleapis.com"),
        *("crates.io", "index.crates.io", "static.crates.io"),
        *("repo.maven.apache.org", "repo1.maven.org"),
        *("github.com", "codeload.github.com", "objects.githubusercontent.com"),
    }
)
"""Where packages come from by default. A company's name server may lead these to a mirror in its
private network, so there they may lead; another name that does is none of the build's business."""

_URL = re.compile(r"[a-z]+://[^\s\"'<>,|]+")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The operator's own proxy."""

    host: str
    port: int
    encrypted: bool
    authorization: str = ""
    """A header's value; the step never sees it."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How one platform's builds get out."""

    bounds: EgressBounds
    named: frozenset[EgressRule] = frozenset()
    """Where the operator's settings say that packages come from, this machine included."""
    tunnels: Upstream | None = None
    """Takes what is asked for with CONNECT; None: there is no proxy, connections are our own."""
    plain: Upstream | None = None
    """Takes requests to ``http://`` addresses."""
    direct: str = ""
    """``NO_PROXY``: hosts that are reached without either."""


def make_reach(environment: Mapping[str, str], texts: Iterable[str], bounds: EgressBounds) -> Reach:
    """Return what the operator's settings ask for.

    ``environment`` is what builds see of the operator's (``environment.build_environment``), and
    ``texts`` are configuration files of package managers. Raises ``Unsupported`` for a proxy of a
    kind that cannot be used.
    """
    known = {name.upper(): value for name, value in environment.items() if value}
    own = [value for name, value in known.items() if name not in PROXIES]
    found = [match for text in (*own, *texts) for match in _URL.findall(text)]
    everything = known.get("ALL_PROXY", "")
    tunnels = known.get("HTTPS_PROXY") or everything or _of_a_tool(known)
    plain = known.get("HTTP_PROXY") or everything or _of_a_tool(known)
    return Reach(
        bounds=bounds,
        named=frozenset(rule for url in found if (rule := _destination(url)) is not None),
        tunnels=_read_upstream(tunnels),
        plain=_read_upstream(plain),
        direct=known.get("NO_PROXY", ""),
    )


def upstream_for(reach: Reach, host: str, port: int, *, tunnel: bool) -> Upstream | None:
    """Return the proxy that a host is reached through; None: it is reached directly."""
    if any(_is_below(host, port, each.strip().lower()) for each in reach.direct.split(",")):
        return None
    return reach.tunnels if tunnel else reach.plain


def judge(reach: Reach, host: str, port: int, address: Address) -> str:
    """Return why a host may not be reached at an address that it has; empty if it may."""
    bounds = reach.bounds
    kind = kind_of(address, bounds.own)
    if kind is AddressKind.MACHINE and port == bounds.api_port:
        return "it is the platform's own API, which no build may reach"
    if EgressRule(host=host, port=port) in reach.named:
        return ""
    if kind in NEVER:
        return f"it is {kind}"
    private = kind is AddressKind.PRIVATE and host not in REGISTRIES
    if private and not any(rule.covers(host, port) for rule in bounds.allowed):
        return (
            f"it is {kind}; builds reach those of package sources that the operator's settings "
            "name, and what tram up --allow-egress-to names"
        )
    return ""


def choose(
    reach: Reach, host: str, port: int, addresses: Sequence[Address]
) -> tuple[list[Address], str]:
    """Return those addresses of a host that may be dialled, and why not if there are none."""
    verdicts = [judge(reach, host, port, address) for address in addresses]
    allowed = [each for each, why in zip(addresses, verdicts, strict=True) if not why]
    return allowed, "" if allowed else next(iter(verdicts), "it has no address")


def judge_forwarded(reach: Reach, host: str, port: int, addresses: Sequence[Address]) -> str:
    """Return why the operator's proxy may not be asked for a host; empty if it may.

    It resolves names itself, so one address too many is enough to refuse, and a name that has
    none here may have one there.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return f"it is {AddressKind.MACHINE}"
    verdicts = (judge(reach, host, port, address) for address in addresses)
    return next((why for why in verdicts if why), "")


def _is_below(host: str, port: int, pattern: str) -> bool:
    """Tell whether an entry of ``NO_PROXY`` means this host, as most tools read it."""
    name = pattern.removeprefix("*").removeprefix(".")
    if pattern == "*" or not name:
        return pattern == "*"
    return any(each == name or each.endswith(f".{name}") for each in (host, f"{host}:{port}"))


def _of_a_tool(known: Mapping[str, str]) -> str:
    return next((known[name] for name in PROXIES if known.get(name)), "")


def _destination(url: str) -> EgressRule | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return EgressRule(host=parts.hostname, port=port) if parts.hostname and port else None


def _read_upstream(text: str) -> Upstream | None:
    """Return the proxy that a variable names, as the tools read it: the scheme may be missing."""
    if not text:
        return None
    url = text if "://" in text else f"http://{text}"
    found = _destination(url)
    if found is None or not url.startswith(("http://", "https://")):
        # It may hold a password, so it is not repeated.
        raise Unsupported(
            "builds cannot use the proxy of the platform's environment; "
            "set HTTPS_PROXY to http://HOST:PORT or https://HOST:PORT"
        )
    parts, authorization = urlsplit(url), ""
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + b64encode(secret.encode()).decode()
    return Upstream(
        host=found.host,
        port=found.port,
        encrypted=parts.scheme == "https",
        authorization=authorization,
    )
