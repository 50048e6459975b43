"""Tokens: ``tram_`` and a JWT (RFC 7519) signed with the platform's Ed25519 key (RFC 8037).

The API knows a token by its hash in the store, so it can be revoked at once and is never parsed.
The gateway verifies the same token without us, by signature, expiry and a list of revoked ids:
that is why it is a JWT. The text is shown once; only its hash is kept.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from tramontane.base.clock import Clock
from tramontane.base.errors import Unauthenticated, Unsupported
from tramontane.base.files import write_private
from tramontane.base.ids import IdFactory
from tramontane.domain.ids import InstanceId
from tramontane.domain.service import Service
from tramontane.domain.token import Scope, Token
from tramontane.store.requests import RequestKey
from tramontane.store.store import Store

PREFIX = "tram_"
"""Lets people and secret scanners recognise one; the rest is the JWT."""
TOUCHED_EVERY_S = 600.0
"""The last use is noted to within this, so that reading does not cost a write."""


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the platform's key; at the first start it is made, readable by its owner alone."""
    if not path.exists():
        _make_signing_key(path)
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise Unsupported(f"{path} holds no Ed25519 key; put the platform's own key back there")
    return key


class TokenIssuer:
    """Makes tokens, recognises them, and says how the gateway can."""

    def __init__(self, key: Ed25519PrivateKey, store: Store, clock: Clock, ids: IdFactory) -> None:
        self._key = key
        self._store = store
        self._clock = clock
        self._ids = ids
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        # RFC 7638: the thumbprint is over exactly these members, in this order.
        public = {"crv": "Ed25519", "kty": "OKP", "x": _encode(raw)}
        thumbprint = json.dumps(public, separators=(",", ":"), sort_keys=True).encode()
        self._key_id = _encode(hashlib.sha256(thumbprint).digest())
        self._public_jwk = json.dumps(
            {**public, "kid": self._key_id, "alg": "EdDSA", "use": "sig"}, separators=(",", ":")
        )

    @property
    def issuer(self) -> str:
        """The ``iss`` of this platform's tokens: a token of another platform is not valid here."""
        return f"tramontane:{self._key_id}"

    def public_jwk(self) -> str:
        """Return the key that verifies tokens, as JSON Web Key (RFC 7517) text."""
        return self._public_jwk

    def mint(
        self,
        name: str,
        *,
        project: str | None,
        scope: Scope,
        models: Sequence[str] | None = None,
        expires_in_s: float | None = None,
        request: RequestKey | None = None,
    ) -> tuple[Token, str]:
        """Make and keep a token; the text in the answer can never be had again."""
        now = self._clock.now()
        token_id = self._ids("tok")
        expires_at = None if expires_in_s is None else now + expires_in_s
        unsigned = Token(
            id=token_id,
            name=name,
            project=project,
            scope=scope,
            token_hash="",
            created_at=now,
            expires_at=expires_at,
            models=None if models is None else tuple(models),
        )
        text = self._write(unsigned)
        token = replace(unsigned, token_hash=hash_token(text))
        self._store.add_token(token, request=request)
        return token, text

    def mint_for_instance(
        self,
        service: Service,
        instance_id: InstanceId,
        models: Sequence[str],
        expires_in_s: float | None,
    ) -> str:
        """Make a key for an instance, which calls these models and ends with its service.

        Nothing of it is kept: the gateway takes it while the service has instances, and nobody
        else ever does.
        """
        now = int(self._clock.now())
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": f"{service.project}/{service.name}",
            # What is used with it is counted with what comes in by the service's own way.
            "jti": service.id,
            "instance": instance_id,
            "project": service.project,
            "scope": Scope.INFERENCE.name.lower(),
            "models": list(models),
            "service": service.id,
            "iat": now,
        }
        if expires_in_s is not None:
            claims["exp"] = now + int(expires_in_s)
        return PREFIX + self._sign(claims)

    def lend(self, token: Token, expires_in_s: float) -> str:
        """Return a text that the gateway takes for this token until it expires, but the API not.

        For work that goes on when its user is gone: it is accounted to the token, allows what that
        allows, and ends when that is revoked.
        """
        now = self._clock.now()
        return self._write(replace(token, created_at=now, expires_at=now + expires_in_s))

    def authenticate(self, text: str) -> Token:
        """Return what is known of a token; raises ``Unauthenticated`` if it is not valid now."""
        expected = hash_token(text)
        record = self._store.find_token(expected)
        # The database compares as it likes; this comparison takes the same time for every text.
        if record is None or not hmac.compare_digest(record.token.token_hash, expected):
            raise Unauthenticated("this token is not known here; make one with: tram tokens create")
        token, now = record.token, self._clock.now()
        if token.revoked:
            raise Unauthenticated("this token was revoked; make one with: tram tokens create")
        if token.expires_at is not None and token.expires_at <= now:
            raise Unauthenticated("this token has expired; make one with: tram tokens create")
        if record.last_used_at is None or now - record.last_used_at >= TOUCHED_EVERY_S:
            self._store.touch_token(token.id, now)
        return token

    def ensure_admin_token(self, path: Path) -> str:
        """Return the administrator's token in ``path``, made anew unless a valid one is there."""
        try:
            text = path.read_text(encoding="utf-8").strip()
            if self.authenticate(text).scope is Scope.ADMIN:
                return text
        except (OSError, UnicodeDecodeError, Unauthenticated):
            # Nothing there, or a token of an earlier database: a new one replaces it.
            pass
        _, text = self.mint("administrator", project=None, scope=Scope.ADMIN)
        write_private(path, f"{text}\n")
        return text

    def _write(self, token: Token) -> str:
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": token.name,
            "jti": token.id,
            "project": token.project or "*",
            "scope": token.scope.name.lower(),
            "iat": int(token.created_at),
        }
        if token.models is not None:
            claims["models"] = list(token.models)
        if token.expires_at is not None:
            claims["exp"] = int(token.expires_at)
        return PREFIX + self._sign(claims)

    def _sign(self, claims: dict[str, object]) -> str:
        header = {"alg": "EdDSA", "typ": "JWT", "kid": self._key_id}
        body = ".".join(
            _encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)
        )
        return f"{body}.{_encode(self._key.sign(body.encode()))}"


def hash_token(text: str) -> str:
    """Return what is kept of a token: with 512 random bits in it, one plain hash is enough."""
    return hashlib.sha256(text.encode()).hexdigest()


def _make_signing_key(path: Path) -> None:
    made = Ed25519PrivateKey.generate()
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, pem.decode())


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
