"""How S3-compatible stores are reached, and what their errors mean here.

No message made here holds a URI, a key, a name or a credential.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from imaging_pipeline.errors import ConfigurationError, ImagingError, PoisonInput, Reason, TransientError

MAX_ATTEMPTS = 6
"""Tries of one request, with growing pauses between them (botocore's standard mode)."""

CONNECT_SECONDS = 10
READ_SECONDS = 60
CONNECTIONS = 32

_REFUSED = (
    "the store refused the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the source's profile, or "
    "the machine's role"
)
_RAN_OUT = "the store says that the credentials have expired: renew them, and restart what runs with the old ones"
_CHANGED = "the store holds another version than was listed; the next listing takes it in"
_NO_ANSWER = "the store does not answer, after several tries; run the batch again when it does"
_DENIED = "the store denies reading it: allow s3:GetObject (and the use of its encryption key), and run the batch again"
_REGION = "the bucket is in another region: set the source's region"

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"})
_CREDENTIALS: Mapping[str, str] = dict.fromkeys(_EXPIRED, _RAN_OUT) | dict.fromkeys(
    ("SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"), _REFUSED
)
SOURCE_ADVICE: Mapping[str, str] = {
    "NoSuchBucket": "the bucket does not exist at this endpoint: check the source's location and endpoint",
    "AccessDenied": "access is denied: allow s3:ListBucket and s3:GetObject on the bucket for these credentials",
    "RequestTimeTooSkewed": "the store refused the time of this machine's clock: set it right",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
}
"""What to do about a code that concerns a whole source."""

_MEANING_OF_STATUS: Mapping[int, tuple[Reason, str]] = {
    403: (Reason.ACCESS_DENIED, _DENIED),
    404: (Reason.GONE, "the store holds no such object any more; the next listing takes it out"),
    412: (Reason.CHANGED_WHILE_READ, _CHANGED),
    416: (Reason.CHANGED_WHILE_READ, _CHANGED),
}
_TRANSIENT = frozenset({"RequestTimeout", "OperationAborted", "Throttling", "ThrottlingException", "SlowDown"})
_NO_CREDENTIALS = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.TokenRetrievalError,
    aws.SSOError, aws.ProfileNotFound,
)  # fmt: skip
BROKEN = (aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError, ResponseParserError, HTTPError)
"""What a connection that fails or breaks off raises."""

FAILURES = (aws.BotoCoreError, aws.ClientError, ResponseParserError, HTTPError)
"""All that a request can raise; :func:`translate` gives our error for it."""


@dataclass(frozen=True, slots=True)
class S3Access:
    """How a store is reached. Holds no secret: credentials come from the environment, a profile or the machine's role.

    Attributes:
        endpoint_url: of an S3-compatible server; None: AWS.
        region: None: the environment's.
        profile: a profile of the shared AWS configuration; None: the default chain.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None

    def client(self, service: str = "s3") -> Any:
        """The boto3 client of a service: one for each process, access and service; safe to use from threads.

        Raises:
            ConfigurationError: the profile or region is missing or wrong.
        """
        key = (self, service, os.getpid())
        with _LOCK:
            if key not in _CLIENTS:
                _CLIENTS[key] = _make_client(self, service)
            return _CLIENTS[key]

    def send(self, operation: str, parameters: Mapping[str, object], service: str = "s3") -> Any:
        """One request; once more with credentials read afresh when they are said to have expired.

        Raises:
            Exception: one of :data:`FAILURES`, botocore's own.
        """
        client = self.client(service)
        try:
            return getattr(client, operation)(**parameters)
        except aws.ClientError as error:
            if error_code(error) not in _EXPIRED:
                raise
        with _LOCK:
            if _CLIENTS.get((self, service, os.getpid())) is client:  # no other thread has done it yet
                del _CLIENTS[self, service, os.getpid()]
        return getattr(self.client(service), operation)(**parameters)


_CLIENTS: dict[tuple[S3Access, str, int], Any] = {}
_LOCK = threading.Lock()


def _make_client(access: S3Access, service: str) -> Any:
    from boto3.session import Session  # noqa: PLC0415 - takes 0.4 s
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = Session(profile_name=access.profile, region_name=access.region)
        return session.client(service, endpoint_url=access.endpoint_url, config=config)
    except (aws.BotoCoreError, ValueError) as error:
        raise translate(error) from None


def translate(error: Exception, *, one_object: bool = False) -> ImagingError:
    """The error of ours that a failed request becomes.

    Args:
        error: one of :data:`FAILURES`.
        one_object: reading one object failed; otherwise listing a source or looking into it.

    Returns:
        For one object a :class:`PoisonInput`: GONE, CHANGED_WHILE_READ, ACCESS_DENIED, UNAVAILABLE or UNREADABLE.
        Otherwise a :class:`ConfigurationError`, or a :class:`TransientError` when a later call may succeed.
    """
    reason, advice = _meaning(error)
    if one_object:
        return PoisonInput(reason, advice)
    if reason is Reason.UNAVAILABLE:
        return TransientError(advice)
    return ConfigurationError(SOURCE_ADVICE.get(error_code(error), advice))


def _meaning(error: Exception) -> tuple[Reason, str]:
    if isinstance(error, aws.ClientError):
        return _meaning_of_answer(error_code(error), error.response["ResponseMetadata"].get("HTTPStatusCode", 0))
    if isinstance(error, _NO_CREDENTIALS):
        kind = type(error).__name__
        return Reason.ACCESS_DENIED, f"no credentials ({kind}): set them in the environment, a profile or a role"
    if isinstance(error, aws.SSLError):
        return Reason.UNREADABLE, "the store's TLS certificate is not trusted: set AWS_CA_BUNDLE, or mend the endpoint"
    if isinstance(error, BROKEN):
        return Reason.UNAVAILABLE, _NO_ANSWER
    kind = type(error).__name__
    return Reason.UNREADABLE, f"the store cannot be asked ({kind}): check the source's location, endpoint and region"


def _meaning_of_answer(code: str, status: int) -> tuple[Reason, str]:
    if code in _CREDENTIALS:
        return Reason.ACCESS_DENIED, _CREDENTIALS[code]
    if status >= 500 or status == 429 or code in _TRANSIENT:
        return Reason.UNAVAILABLE, _NO_ANSWER
    if code == "InvalidObjectState":
        return Reason.ACCESS_DENIED, "it is in cold storage: restore it, and run the batch again"
    if code.startswith("KMS"):
        return Reason.ACCESS_DENIED, _DENIED
    if status in _MEANING_OF_STATUS and code not in SOURCE_ADVICE.keys() - {"AccessDenied"}:
        return _MEANING_OF_STATUS[status]
    known = code if code.isascii() and code.isalnum() else status
    return Reason.UNREADABLE, f"the store refused the request ({known}): check the source's location and endpoint"


def error_code(error: Exception) -> str:
    """The store's code of an error, or an empty text."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, aws.ClientError) else ""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; the key is raw, as the store lists it.

    >>> split_uri("s3://bucket/a b/c%2F")
    ('bucket', 'a b/c%2F')
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
