from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote_plus

import pytest

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.objects.events import EventQueue, uris_of
from imaging_pipeline.objects.s3 import S3Access
from imaging_pipeline_tests.servers.fixtures import Bucket, bucket, client_of, gateway, queue_url, sqs_url
from imaging_pipeline_tests.servers.radosgw import Gateway, Keys

__all__ = ["bucket", "gateway", "queue_url", "sqs_url"]

ODD_KEY = "study 1/ü+%2B&!?.dcm"


def record(key: str, name: str = "ObjectCreated:Put", bucket: str = "images") -> dict[str, Any]:
    """A record as S3 sends it (event message structure 2.1), where keys are quoted as in forms."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-31T12:00:00.000Z",
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": quote_plus(key), "size": 1, "eTag": "0", "sequencer": "0055AED6DCD90281E5"},
        },
    }


def eventbridge(key: str, name: str = "Object Created") -> dict[str, Any]:
    return {
        "version": "0",
        "detail-type": name,
        "source": "aws.s3",
        "region": "us-east-1",
        "detail": {"version": "0", "bucket": {"name": "images"}, "object": {"key": key, "size": 1, "etag": "0"}},
    }


def by_sns(message: object) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:1:t", "Message": json.dumps(message)}


TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "images", "Time": "2026-01-31T12:00:00.000Z"}

KNOWN = {
    "straight": ({"Records": [record(ODD_KEY)]}, (f"s3://images/{ODD_KEY}",)),
    "several": ({"Records": [record("a"), record("b", "ObjectRemoved:Delete")]}, ("s3://images/a", "s3://images/b")),
    "twice": ({"Records": [record("a"), record("a", "ObjectRemoved:Delete")]}, ("s3://images/a",)),
    "through SNS": (by_sns({"Records": [record(ODD_KEY)]}), (f"s3://images/{ODD_KEY}",)),
    "EventBridge": (eventbridge(ODD_KEY), (f"s3://images/{ODD_KEY}",)),
    "EventBridge deleted": (eventbridge("a+b", "Object Deleted"), ("s3://images/a+b",)),
    "EventBridge through SNS": (by_sns(eventbridge("a")), ("s3://images/a",)),
    "another store": (
        {"Records": [record("a b") | {"eventSource": "ceph:s3"}]},
        ("s3://images/a b", "s3://images/a+b"),
    ),
    "test": (TEST_EVENT, ()),
    "test through SNS": (by_sns(TEST_EVENT), ()),
}

STRANGE = {
    "no JSON": "hello",
    "empty": "",
    "no object": "[]",
    "a number": "17",
    "another event": json.dumps({"source": "aws.ec2", "detail": {}}),
    "no key": json.dumps({"Records": [{"s3": {"bucket": {"name": "b"}, "object": {}}}]}),
    "a key of another type": json.dumps({"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": 1}}}]}),
    "an empty key": json.dumps({"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": ""}}}]}),
    "half understood": json.dumps({"Records": [record("a"), {"s3": None}]}),
    "SNS with plain text": json.dumps({"Type": "Notification", "Message": "hello"}),
    "deep": "[" * 100_000,
}


def send(queue_url: str, *bodies: str) -> None:
    client = client_of(queue_url, Keys("anything", "anything"), "sqs")
    for body in bodies:
        client.send_message(QueueUrl=queue_url, MessageBody=body)


def queue(url: str) -> EventQueue:
    return EventQueue(S3Access("http://127.0.0.1:1", "us-east-1"), url)  # the bucket's endpoint is none of the queue's


@pytest.mark.parametrize("form", KNOWN)
def test_each_known_form_of_a_message_names_its_objects(form: str) -> None:
    message, uris = KNOWN[form]
    assert uris_of(json.dumps(message)) == uris


@pytest.mark.parametrize("form", STRANGE)
def test_a_message_of_unknown_form_is_not_understood(form: str) -> None:
    assert uris_of(STRANGE[form]) is None


def test_messages_come_with_receipts_and_stay_until_they_are_deleted(queue_url: str) -> None:
    send(queue_url, json.dumps({"Records": [record("a"), record("b")]}), "hello")
    for _ in range(2):
        received = sorted(queue(queue_url).receive(2), key=lambda notice: notice.uris)
        assert [(notice.uris, notice.is_understood) for notice in received] == [
            ((), False), (("s3://images/a", "s3://images/b"), True),
        ]  # fmt: skip
    queue(queue_url).delete([received[1].receipt])
    (left,) = queue(queue_url).receive(1)
    assert not left.is_understood


def test_no_more_messages_are_taken_than_asked_for_and_all_are_deleted_at_once(queue_url: str) -> None:
    client = client_of(queue_url, Keys("anything", "anything"), "sqs")
    client.set_queue_attributes(QueueUrl=queue_url, Attributes={"VisibilityTimeout": "60"})
    send(queue_url, *(json.dumps({"Records": [record(f"{number:02d}")]}) for number in range(25)))
    first = queue(queue_url).receive(13)
    rest = queue(queue_url).receive(100)
    assert (len(first), len(rest)) == (13, 12)
    assert len({notice.receipt for notice in first + rest}) == 25
    queue(queue_url).delete([notice.receipt for notice in first + rest])
    counts = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == counts["ApproximateNumberOfMessagesNotVisible"] == "0"
    queue(queue_url).delete([])


def test_an_empty_queue_gives_nothing(queue_url: str) -> None:
    assert queue(queue_url).receive(10) == []


def test_a_queue_that_is_not_there_is_said(queue_url: str) -> None:
    with pytest.raises(ConfigurationError, match="queue does not exist"):
        queue(queue_url + "-other").receive(10)


def test_a_queue_that_does_not_answer_is_a_matter_of_time(monkeypatch: pytest.MonkeyPatch, queue_url: str) -> None:
    monkeypatch.setattr("imaging_pipeline.objects.s3_access.MAX_ATTEMPTS", 1)
    with pytest.raises(TransientError):
        queue("http://127.0.0.1:1/1/queue").receive(10)


def test_the_region_is_that_of_the_queues_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[S3Access] = []

    def send(access: S3Access, *args: object, **options: object) -> dict[str, object]:
        asked.append(access)
        return {}

    monkeypatch.setattr(S3Access, "send", send)
    EventQueue(S3Access(None, "us-east-1", "p"), "https://sqs.eu-central-1.amazonaws.com/1/images").receive(1)
    assert asked == [S3Access("https://sqs.eu-central-1.amazonaws.com", "eu-central-1", "p")]


@contextmanager
def forwarding(queue_url: str) -> Iterator[str]:
    """An HTTP endpoint that puts what is posted to it into the queue."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            send(queue_url, self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_real_store_says_what_was_written_and_deleted(bucket: Bucket, gateway: Gateway, queue_url: str) -> None:
    with forwarding(queue_url) as endpoint:
        sns = client_of(gateway.endpoint_url, gateway.owner, "sns")
        topic = sns.create_topic(Name=bucket.name, Attributes={"push-endpoint": endpoint})["TopicArn"]
        bucket.client.put_bucket_notification_configuration(
            Bucket=bucket.name,
            NotificationConfiguration={
                "TopicConfigurations": [
                    {"Id": "all", "TopicArn": topic, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
                ]
            },
        )
        bucket.put(ODD_KEY, b"x")
        bucket.put("other", b"x")
        bucket.delete("other")
        seen: set[str] = set()
        deadline = time.monotonic() + 20
        while f"{bucket.uri}/other" not in seen and time.monotonic() < deadline:
            for notice in queue(queue_url).receive(10):
                assert notice.is_understood
                seen.update(notice.uris)
        assert seen >= {f"{bucket.uri}/{ODD_KEY}", f"{bucket.uri}/other"}
