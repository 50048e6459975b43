"""A token service for a registry, as distribution's specification describes it."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

SERVICE = "registry of a test"


@dataclass
class TokenService:
    """Gives tokens to whoever signs in with one name and password."""

    realm: str
    certificate: Path
    key: rsa.RSAPrivateKey
    user: str = "robot"
    password: str = "a-password"
    lasts_s: int = 60
    given: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def auth(self) -> dict[str, Any]:
        """The registry's side of it."""
        token = {"realm": self.realm, "service": SERVICE, "issuer": "a test"}
        return {"token": {**token, "rootcertbundle": str(self.certificate)}}

    def make_token(self, scope: str) -> str:
        """Return a token that a registry believes."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        kind, name, actions = scope.split(":")
        now = int(time.time())
        claims = {
            "iss": "a test",
            "sub": self.user,
            "aud": SERVICE,
            "jti": str(self.given),
            "exp": now + self.lasts_s,
            "nbf": now - 5,
            "iat": now - 5,
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        text = b".".join(_encode(json.dumps(each).encode()) for each in (header, claims))
        signature = self.key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return b".".join((text, _encode(signature))).decode()


@contextmanager
def run_token_service(folder: Path) -> Iterator[TokenService]:
    """Run a token service until the block ends."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    bundle = folder / "certificate.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def do_GET(self) -> None:
            pair = f"{service.user}:{service.password}".encode()
            wanted = f"Basic {base64.b64encode(pair).decode()}"
            service.asked.append(self.path)
            if self.headers.get("authorization") != wanted:
                self.send_response(401)
                self.end_headers()
                return
            (scope,) = parse_qs(urlsplit(self.path).query)["scope"]
            service.given += 1
            body = {"token": service.make_token(scope), "expires_in": service.lasts_s}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    realm = f"http://127.0.0.1:{server.server_address[1]}/token"
    service = TokenService(realm, bundle, key)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
