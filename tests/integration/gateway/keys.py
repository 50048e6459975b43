"""Signs API keys as the platform does: a JWT with EdDSA, prefixed ``tram_``."""

import base64
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Signer:
    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    @property
    def jwk(self) -> str:
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return json.dumps({"kty": "OKP", "crv": "Ed25519", "x": encode(raw)})

    def key(
        self,
        project: str = "p",
        jti: str = "key_1",
        issuer: str = "tramontane",
        **more: object,
    ) -> str:
        """Return a key; ``more`` are claims besides those that every key has."""
        head = encode(json.dumps({"alg": "EdDSA", "typ": "JWT"}).encode())
        claims = {
            "iss": issuer,
            "sub": "someone",
            "jti": jti,
            "project": project,
            "scope": "inference",
            **more,
        }
        body = encode(json.dumps(claims).encode())
        return f"tram_{head}.{body}.{encode(self._key.sign(f'{head}.{body}'.encode()))}"


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
