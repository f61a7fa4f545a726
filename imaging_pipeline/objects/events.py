"""Notifications of a bucket that arrive in an SQS queue: where to look, and nothing more.

What a message says happened is not believed: messages come twice, late and in any order. Whoever takes them looks at
what is there now. A message that cannot be understood is left in the queue, whose own policy puts it aside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.objects.s3_access import FAILURES, S3Access, error_code, translate

MESSAGES_AT_ONCE = 10
"""What SQS gives, or deletes, in one request at most."""

_REGION_OF_HOST = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_QUEUE_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})


@dataclass(frozen=True, slots=True)
class Notice:
    """One message of the queue.

    Attributes:
        uris: ``s3://bucket/key`` of the objects it is about, with raw keys; none for a test of the queue.
        receipt: what :meth:`EventQueue.delete` takes.
        is_understood: False: it has no known form; leave it, so that the queue's own policy puts it aside.
    """

    uris: tuple[str, ...]
    receipt: str
    is_understood: bool = True


@dataclass(frozen=True, slots=True)
class EventQueue:
    """The SQS queue of a bucket's notifications, sent straight, through SNS, or through EventBridge.

    Attributes:
        access: region and profile of the queue; the credentials are those of the default chain.
        queue_url: ``https://sqs.REGION.amazonaws.com/ACCOUNT/NAME``, or of a compatible server.
    """

    access: S3Access
    queue_url: str

    def receive(self, limit: int, wait_seconds: int = 0) -> list[Notice]:
        """The next messages, at most ``limit``; the queue shows them to nobody else for a while.

        Args:
            limit: messages.
            wait_seconds: how long to wait for the first one when there is none, 20 at most.

        Raises:
            ConfigurationError: the queue does not exist, or access to it is denied.
            TransientError: it does not answer.
        """
        notices: list[Notice] = []
        while len(notices) < limit:
            answer = self._send(
                "receive_message",
                MaxNumberOfMessages=min(limit - len(notices), MESSAGES_AT_ONCE),
                WaitTimeSeconds=0 if notices else wait_seconds,
            )
            messages = answer.get("Messages", [])
            notices += [_notice(message) for message in messages]
            if not messages:
                break
        return notices

    def delete(self, receipts: Sequence[str]) -> None:
        """Take messages out of the queue, once what they led to is recorded.

        Raises:
            ConfigurationError: the queue does not exist, or deleting is denied.
            TransientError: not all could be deleted; the rest comes again, which does no harm.
        """
        for start in range(0, len(receipts), MESSAGES_AT_ONCE):
            part = receipts[start : start + MESSAGES_AT_ONCE]
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(part)]
            if self._send("delete_message_batch", Entries=entries).get("Failed"):
                raise TransientError("the queue did not delete all messages; they will come again")

    def _send(self, operation: str, **parameters: object) -> Any:
        try:
            return _access_of(self.access, self.queue_url).send(
                operation, {"QueueUrl": self.queue_url} | parameters, service="sqs"
            )
        except FAILURES as error:
            code = error_code(error)
            if code in _QUEUE_MISSING:
                raise ConfigurationError("the queue does not exist: check the source's queue_url") from None
            if code in {"AccessDenied", "AccessDeniedException"}:
                raise ConfigurationError(
                    "access to the queue is denied: allow sqs:ReceiveMessage and sqs:DeleteMessage"
                ) from None
            raise translate(error) from None


def uris_of(body: str) -> tuple[str, ...] | None:
    """The ``s3://`` URIs that a message is about, each once; None when it has no known form.

    >>> uris_of('{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "a+b%2B.dcm"}}}]}')
    ('s3://b/a b+.dcm',)
    """
    try:
        return tuple(dict.fromkeys(_uris(json.loads(body))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _access_of(access: S3Access, queue_url: str) -> S3Access:
    """SQS is asked where the queue is: the access's own endpoint is that of the bucket."""
    parts = urlsplit(queue_url)
    host = _REGION_OF_HOST.fullmatch(parts.hostname or "")
    region = host[1] if host else access.region
    return replace(access, endpoint_url=f"{parts.scheme}://{parts.netloc}", region=region)


def _notice(message: Mapping[str, str]) -> Notice:
    uris = uris_of(message["Body"])
    return Notice(uris or (), message["ReceiptHandle"], is_understood=uris is not None)


def _uris(message: Any) -> Iterator[str]:
    if message.get("Event") == "s3:TestEvent":
        return
    if message.get("Type") == "Notification" and "Message" in message:  # wrapped by SNS
        yield from _uris(json.loads(message["Message"]))
    elif message.get("source") == "aws.s3" and "detail" in message:  # EventBridge, whose keys are not quoted
        yield _uri(message["detail"]["bucket"]["name"], message["detail"]["object"]["key"])
    else:
        for record in message["Records"]:
            bucket, key = record["s3"]["bucket"]["name"], record["s3"]["object"]["key"]
            yield _uri(bucket, unquote_plus(key))
            if record.get("eventSource", "aws:s3") != "aws:s3":  # Ceph 16 sends keys as they are: look at both
                yield _uri(bucket, key)


def _uri(bucket: Any, key: Any) -> str:
    if not (isinstance(bucket, str) and isinstance(key, str) and bucket and key):
        raise TypeError
    return f"s3://{bucket}/{key}"
