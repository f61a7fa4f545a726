"""An OpenID provider on loopback: its keys, its tokens, and people who log in there."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "imaging"


class Issuer:
    """An OpenID provider with two keys, that counts how often it is asked for them."""

    def __init__(self) -> None:
        self.keys = {"rsa": rsa.generate_private_key(65537, 2048), "ec": ec.generate_private_key(ec.SECP256R1())}
        self.shown = ["rsa"]
        self.asked = 0
        self.name = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.secret: str | None = None

    def jwks(self) -> dict[str, Any]:
        found = []
        for name in self.shown:
            key = self.keys[name].public_key()
            algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPublicKey) else ECAlgorithm
            found.append(json.loads(algorithm.to_jwk(key)) | {"kid": name, "use": "sig"})  # type: ignore[arg-type]
        return {"keys": found}

    def token(
        self, key: str = "rsa", algorithm: str = "RS256", headers: dict[str, str] | None = None, **changes: Any
    ) -> str:
        now = int(time.time())
        claims = {
            "iss": self.name, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300, "groups": ["radiology"],
        } | changes  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.keys[key], algorithm, headers={"kid": key} | (headers or {}))

    def log_in(self, address: str, **changes: Any) -> dict[str, str]:
        """Somebody logs in at the address they were sent to; with what they are sent back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = secrets.token_urlsafe()
        claims = {"aud": asked["client_id"], "nonce": asked["nonce"]} | changes
        self.codes[code] = {**asked, "id_token": self.token(**claims)}
        return {"code": code, "state": asked["state"]}

    def redeem(self, form: dict[str, str], authorization: str | None) -> dict[str, str] | None:
        """The token endpoint: what a code is good for, once."""
        given = self.codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        proof = self.secret and "Basic " + base64.b64encode(f"{form['client_id']}:{self.secret}".encode()).decode()
        is_good = (
            given is not None
            and authorization == proof
            and all(
                (
                    given["code_challenge"].encode() == challenge,
                    given["redirect_uri"] == form["redirect_uri"],
                    given["client_id"] == form["client_id"],
                    form["grant_type"] == "authorization_code",
                )
            )
        )
        return {"id_token": given["id_token"], "token_type": "Bearer"} if given and is_good else None


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += self.path == "/keys"
            content: dict[str, Any] = made.jwks()
            if self.path.endswith("/.well-known/openid-configuration"):
                content = {
                    "issuer": made.name,
                    "jwks_uri": f"{made.name}/keys",
                    "authorization_endpoint": f"{made.name}/authorize?realm=main",
                    "token_endpoint": f"{made.name}/token",
                }
            self.answer(200, content)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            found = made.redeem(form, self.headers.get("Authorization"))
            self.answer(200 if found else 400, found or {"error": "invalid_grant"})

        def answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.name = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
