"""A service with the store transaction only, and somebody who may use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.roles import Role
from imaging_pipeline.web.errors import install_errors
from imaging_pipeline.web.stow.receiving import Receiver
from imaging_pipeline.web.stow.routes import router

BOUNDARY = "a-boundary"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


class Service:
    """The service, and a client of it.

    Args:
        folder: for users and audit.
        zone: ``clinical`` or ``research``.
        receiver: where it keeps what is sent.
    """

    def __init__(self, folder: Path, zone: str, receiver: Receiver) -> None:
        access = Access(zone, folder / f"{zone}-access", project="chest")
        access.accounts.add_user("ann", {Role(zone), Role.ANNOTATOR}, {"chest"})
        access.accounts.add_user("reader", {Role(zone)}, {"chest"})
        self._tokens = {name: access.accounts.create_token(name).text for name in ("ann", "reader")}
        self.refreshed: list[int] = []
        app = FastAPI()
        install_errors(app)
        app.include_router(router(access, receiver, after_store=lambda: self.refreshed.append(1)), prefix="/dicom-web")
        access.install(app)
        self.client = TestClient(app, base_url="http://pacs.test")

    def post(
        self, content: Any, *, study: str = "", kind: str = MULTIPART, user: str = "ann", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer of one store transaction."""
        response = self.client.post(
            f"/dicom-web/studies{study and '/' + study}",
            content=content,
            headers={"Content-Type": kind, "Authorization": f"Bearer {self._tokens[user]}"} | headers,
        )
        return response.status_code, response.json() if response.content else {}


def body_of(*contents: bytes) -> bytes:
    """A multipart body of DICOM files."""
    head = f"\r\n--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + content for content in contents) + f"\r\n--{BOUNDARY}--\r\n".encode()


def failures(answer: dict[str, Any]) -> list[int]:
    """Failure reasons, of objects with a UID and without."""
    items = [item for tag in ("00081198", "0008119A") for item in answer.get(tag, {}).get("Value", [])]
    return [item["00081197"]["Value"][0] for item in items]


def stored(answer: dict[str, Any]) -> list[str]:
    """UIDs of what was kept."""
    return [item["00081155"]["Value"][0] for item in answer.get("00081199", {}).get("Value", [])]
