"""Connections to DICOMweb services and Orthanc: secrets from the environment, no address of a patient in an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.pacs.config import Peer
from imaging_pipeline.settings import secret_of

BLOCK = 1 << 18


def open_client(peer: Peer, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """A client whose paths begin at the peer's URL; a proxy and own authorities are taken from the environment.

    Args:
        peer: a DICOMweb service or Orthanc.
        transport: for tests; None: the network.

    Raises:
        ConfigurationError: the peer has no URL, or its secret is not in the environment.
    """
    if not peer.url:
        raise ConfigurationError(f"peer {peer.name!r} has no url: it is no DICOMweb service and no Orthanc")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, which hold UIDs
    headers = {"Authorization": f"Bearer {secret_of(peer.token_variable)}"} if peer.token_variable else {}
    user, _, password = secret_of(peer.user_variable).partition(":") if peer.user_variable else ("", "", "")
    return httpx.Client(
        base_url=peer.url,
        headers=headers,
        auth=(user, password) if user else None,
        timeout=peer.timeout_seconds,
        transport=transport,
    )


@contextmanager
def answer(client: httpx.Client, peer: Peer, path: str, *, accept: str, **params: Any) -> Iterator[httpx.Response]:
    """The answer to a GET, its body not read yet.

    Args:
        client: of :func:`open_client`.
        peer: for messages.
        path: below the peer's URL.
        accept: media types that are taken.
        **params: of the query.

    Raises:
        ConfigurationError: the peer does not let us in.
        TransientError: it does not answer, or with an error (404 and the like included).
    """
    try:
        with client.stream("GET", path, params=params or None, headers={"Accept": accept}) as response:
            if response.status_code in {401, 403}:
                raise ConfigurationError(f"peer {peer.name!r} does not let us in (status {response.status_code})")
            if response.status_code >= 300:
                raise Unanswered(f"peer {peer.name!r} answers with status {response.status_code}", response.status_code)
            yield response
    except httpx.HTTPError as error:  # its text may hold the address
        raise TransientError(f"peer {peer.name!r} does not answer ({type(error).__name__})") from None


class Unanswered(TransientError):
    """An answer with an error status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])
