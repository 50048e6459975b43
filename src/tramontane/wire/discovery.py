"""Where the platform is and what opens it, for clients on the same machine or elsewhere.

A running platform leaves two files in ``TRAM_HOME``: ``platform.json`` with its addresses and
``credentials`` with the administrator's token (mode 0600). ``TRAM_API`` and ``TRAM_TOKEN`` point
to a platform on another machine. The environment is an argument; only ``own_environment`` reads it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tramontane.base.errors import InvalidRequest, Unauthenticated, Unavailable

HOME_VARIABLE = "TRAM_HOME"
API_VARIABLE = "TRAM_API"
TOKEN_VARIABLE = "TRAM_TOKEN"  # noqa: S105 - the name of a variable, not a secret
PLATFORM_FILE = "platform.json"
CREDENTIALS_FILE = "credentials"


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The addresses of one platform; ``gateway`` is None where only ``TRAM_API`` is known."""

    api: str
    gateway: str | None = None
    domain: str = "localhost"


def own_environment() -> Mapping[str, str]:
    """Return this process's environment: the one place where clients read it."""
    return dict(os.environ)  # noqa: TID251 - this is that place


def home_directory(environment: Mapping[str, str]) -> Path:
    """Return ``TRAM_HOME``, by default ``tramontane`` in the XDG data directory."""
    if home := environment.get(HOME_VARIABLE):
        return Path(home).expanduser().absolute()
    data = environment.get("XDG_DATA_HOME", "")
    # The XDG specification says that a relative path in its variables is to be ignored.
    base = Path(data) if Path(data).is_absolute() else Path("~/.local/share").expanduser()
    return base / "tramontane"


def read_platform(environment: Mapping[str, str], home: Path | None = None) -> Platform:
    """Return the platform's addresses, from ``TRAM_API`` or from the files it left."""
    file = (home or home_directory(environment)) / PLATFORM_FILE
    found = _read_platform_file(file)
    if api := environment.get(API_VARIABLE):
        same = found is not None and found.api == api.rstrip("/")
        return Platform(
            api=check_address(api, API_VARIABLE),
            gateway=found.gateway if found and same else None,
        )
    if found is None:
        raise Unavailable(
            f"no platform is running for {HOME_VARIABLE} {file.parent}: start one with `tram up`, "
            f"or set {API_VARIABLE} to reach one elsewhere",
            next_step="tram up --detach",
        )
    return found


def read_token(environment: Mapping[str, str], home: Path | None = None) -> str:
    """Return the token that opens the API, from ``TRAM_TOKEN`` or the credentials file."""
    if token := environment.get(TOKEN_VARIABLE, "").strip():
        return check_token(token)
    file = (home or home_directory(environment)) / CREDENTIALS_FILE
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unauthenticated(
            f"no token in {file}: set {TOKEN_VARIABLE}, or start a platform with `tram up`"
        ) from error
    return check_token(token)


def check_token(token: str) -> str:
    """Return the token, or say that it cannot be one (it travels in a header line)."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Unauthenticated(
            f"the token is not one word of ASCII text: check {TOKEN_VARIABLE}, "
            "or make a new one with `tram tokens create`"
        )
    return token


def check_address(address: str, name: str) -> str:
    """Return an ``http(s)://host[:port]`` address without its closing slash."""
    try:
        parts = urlsplit(address)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise InvalidRequest(
            f"{name}: expected an address such as http://127.0.0.1:8081, got {address!r}",
            path=name,
        )
    return address.rstrip("/")


def _read_platform_file(file: Path) -> Platform | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        return Platform(
            api=check_address(str(value["api"]), str(file)),
            gateway=check_address(str(value["gateway"]), str(file)),
            domain=str(value.get("domain", "localhost")),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(
            f"{file} is damaged ({error}): run `tram down`, then `tram up`",
            next_step="tram down, then tram up",
        ) from error
