"""What an operator says about the sources of weights: ``sources.yaml`` in the platform's home.

    hf: {endpoint: https://hub.example.eu, token: hf_…, offline: false}
    s3: {endpoint: https://s3.example.eu, region: eu-1, access_key_id: …, secret_access_key: …}
    oci:
      registry.example.eu: {username: robot, password: …}

What it does not say is taken from the variables that every tool of the field reads, as they were
at ``tram up``: ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``, ``AWS_…``. The file is read again
for each use, so it can be corrected while the platform runs. No error repeats a value: many are
secret.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tramontane.base.errors import InvalidRequest
from tramontane.weights.settings import (
    HUB,
    BucketSettings,
    HubSettings,
    RegistrySettings,
    SourceSettings,
)
from tramontane.wire.strict_yaml import BYTES_MAX, load_yaml

FILE = "sources.yaml"
SWITCHES = frozenset({"offline", "plain_http"})
SECRETS = frozenset({"token", "secret_access_key", "session_token", "password"})
EXPECTED = {"string_type": "text", "bool_type": "true or false"}
TRUE = frozenset({"1", "on", "yes", "true"})


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _HubForm(_Form):
    endpoint: str | None = None
    token: str | None = None
    offline: bool | None = None


class _BucketForm(_Form):
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None


class _RegistryForm(_Form):
    username: str = ""
    password: str = ""
    plain_http: bool = False


class _SourcesForm(_Form):
    hf: _HubForm = _HubForm()
    s3: _BucketForm = _BucketForm()
    oci: dict[str, _RegistryForm] = {}


def read_sources(home: Path, environment: Mapping[str, str]) -> SourceSettings:
    """Return the settings as they are now. Raises ``InvalidRequest`` that names file and key."""
    file = home / FILE
    form = _read_form(file)
    hub, bucket = form.hf, form.s3
    offline = environment.get("HF_HUB_OFFLINE", "").lower() in TRUE
    settings = SourceSettings(
        hub=HubSettings(
            endpoint=_first(hub.endpoint, environment, "HF_ENDPOINT") or HUB,
            token=_first(hub.token, environment, "HF_TOKEN"),
            offline=offline if hub.offline is None else hub.offline,
        ),
        bucket=BucketSettings(
            endpoint=_first(
                bucket.endpoint, environment, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"
            ),
            region=_first(bucket.region, environment, "AWS_REGION", "AWS_DEFAULT_REGION")
            or BucketSettings().region,
            access_key_id=_first(bucket.access_key_id, environment, "AWS_ACCESS_KEY_ID"),
            secret_access_key=_first(
                bucket.secret_access_key, environment, "AWS_SECRET_ACCESS_KEY"
            ),
            session_token=_first(bucket.session_token, environment, "AWS_SESSION_TOKEN"),
        ),
        registries={
            host: RegistrySettings(
                username=each.username, password=each.password, plain_http=each.plain_http
            )
            for host, each in form.oci.items()
        },
    )
    _check_address(settings.hub.endpoint, f"hf.endpoint in {file}, or HF_ENDPOINT")
    if settings.bucket.endpoint:
        _check_address(settings.bucket.endpoint, f"s3.endpoint in {file}, or AWS_ENDPOINT_URL")
    return settings


def _first(said: str | None, environment: Mapping[str, str], *names: str) -> str:
    if said is not None:
        return said
    return next((value for name in names if (value := environment.get(name, ""))), "")


def _read_form(file: Path) -> _SourcesForm:
    try:
        raw, mode = file.read_bytes()[: BYTES_MAX + 1], file.stat().st_mode
    except FileNotFoundError:
        return _SourcesForm()
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {error.strerror}", path=FILE) from error
    document = load_yaml(raw, str(file), lambda path: path[-1] not in SWITCHES)
    try:
        form = _SourcesForm.model_validate({} if document is None else document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise InvalidRequest(
            f"{file}: {'; '.join(_problem(each) for each in details)}", path=FILE
        ) from None
    if mode & 0o077 and _has_secrets(form.model_dump()):
        raise InvalidRequest(
            f"{file} holds secrets and is open to others: chmod 600 {file}", path=FILE
        )
    return form


def _problem(details: ErrorDetails) -> str:
    *above, last = map(str, details["loc"] or ("the file",))
    place = ".".join((*above, last))
    if details["type"] != "extra_forbidden":
        return f"{place}: expected {EXPECTED.get(details['type'], 'keys with values')}"
    forms = {"hf": _HubForm, "s3": _BucketForm, "oci": _RegistryForm}
    known = list((forms[above[0]] if above else _SourcesForm).model_fields)
    close = difflib.get_close_matches(last, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    return f"{place}: unknown key; {hint}"


def _has_secrets(value: Mapping[str, Any]) -> bool:
    return any(
        _has_secrets(cast("Mapping[str, Any]", each)) if isinstance(each, dict) else bool(each)
        for key, each in value.items()
        if isinstance(each, dict) or key in SECRETS
    )


def _check_address(address: str, what: str) -> None:
    try:
        parts = urlsplit(address)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    # Credentials in an address would be repeated by every error that names it.
    if not fits or "@" in address or "?" in address or "#" in address:
        raise InvalidRequest(
            f"{what}: expected an address such as https://hub.example.eu, without credentials",
            path=FILE,
        )
