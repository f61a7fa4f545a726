"""Events of a real bucket through a real queue, and the reconcile that finds what they missed."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imaging_pipeline.catalog.intake import Heard, listen
from imaging_pipeline.catalog.ledger import Ledger, Scan
from imaging_pipeline.errors import TransientError
from imaging_pipeline.objects.events import EventQueue
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.s3 import S3Access, S3Bucket
from imaging_pipeline.sources import SourceConfig, SourceKind
from imaging_pipeline_tests.servers.fixtures import Bucket, bucket, client_of, gateway, queue_url, sqs_url
from imaging_pipeline_tests.servers.radosgw import Keys

__all__ = ["bucket", "gateway", "queue_url", "sqs_url"]

DAY = datetime(2026, 1, 31, tzinfo=UTC)


class Hospital:
    """A bucket, the queue of its events, and the ledger that follows them."""

    def __init__(self, bucket: Bucket, queue_url: str, sqs_url: str, folder: Path) -> None:
        self.bucket = bucket
        self.source = S3Bucket(
            SourceConfig("site", f"{bucket.uri}/in/", SourceKind.BUCKET, minimum_age_seconds=0.0), bucket.access
        )
        self.queue = EventQueue(S3Access(None, "us-east-1"), queue_url)
        self.sender = client_of(sqs_url, Keys("anything", "anything"), "sqs")
        self.queue_url = queue_url
        self.ledger = Ledger(folder / "ledger.sqlite")

    def tell(self, name: str, *keys: str) -> None:
        records = [
            {"eventName": name, "s3": {"bucket": {"name": self.bucket.name}, "object": {"key": k}}} for k in keys
        ]
        self.say(json.dumps({"Records": [record | {"eventSource": "aws:s3"} for record in records]}))

    def say(self, body: str) -> None:
        self.sender.send_message(QueueUrl=self.queue_url, MessageBody=body)

    def listen(self, budget_seconds: float = 5.0, queue: EventQueue | None = None) -> Heard:
        reader = ObjectReader(self.bucket.access)
        return listen(
            self.ledger,
            self.source,
            queue or self.queue,
            reader,
            now=DAY,
            budget_seconds=budget_seconds,
            clock=time.monotonic,
        )

    def there(self) -> set[str]:
        self.ledger.cut(day=DAY.date(), max_objects=100, max_bytes=1 << 40, max_batches=100)
        manifests = [self.ledger.manifest(batch.batch_id) for batch in self.ledger.batches()]
        found = [target for manifest in manifests for target in manifest]
        assert len({(target.uri, target.version) for target in found}) == len(found)
        return {target.name for target in found if target.deleted_at is None}

    def messages(self) -> int:
        answer = self.sender.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["All"])["Attributes"]
        return int(answer["ApproximateNumberOfMessages"]) + int(answer["ApproximateNumberOfMessagesNotVisible"])


@pytest.fixture
def hospital(bucket: Bucket, queue_url: str, sqs_url: str, tmp_path: Path) -> Hospital:
    return Hospital(bucket, queue_url, sqs_url, tmp_path)


def test_created_changed_and_removed_objects_are_followed_without_a_listing(hospital: Hospital) -> None:
    for name in ("a", "b", "c"):
        hospital.bucket.put(f"in/{name}", name.encode())
    hospital.tell("ObjectCreated:Put", "in/a", "in/b", "in/c", "elsewhere/x")
    assert hospital.listen().found == Scan(listed=3, new=3)
    assert hospital.there() == {"a", "b", "c"}
    hospital.bucket.put("in/b", b"other")
    hospital.bucket.delete("in/c")
    hospital.tell("ObjectRemoved:Delete", "in/c")
    hospital.tell("ObjectCreated:Put", "in/b")
    heard = hospital.listen()
    assert (heard.found.new, heard.found.gone) == (1, 1)
    assert hospital.there() == {"a", "b"}
    assert hospital.messages() == 0


def test_late_doubled_and_disordered_events_end_with_what_is_there(hospital: Hospital) -> None:
    hospital.bucket.put("in/a", b"1")
    hospital.bucket.put("in/b", b"1")
    hospital.bucket.delete("in/b")
    for name, key in (
        ("ObjectRemoved:Delete", "in/b"),
        ("ObjectRemoved:Delete", "in/a"),
        ("ObjectCreated:Put", "in/b"),
    ):
        hospital.tell(name, key)
        hospital.tell(name, key)
    hospital.listen()
    assert hospital.there() == {"a"}


def test_a_message_is_deleted_only_after_the_ledger_has_its_object(hospital: Hospital) -> None:
    class Dying(EventQueue):
        def delete(self, receipts: Sequence[str]) -> None:
            raise TransientError("killed before the message was deleted")

    hospital.bucket.put("in/a", b"1")
    hospital.tell("ObjectCreated:Put", "in/a")
    with pytest.raises(TransientError):
        hospital.listen(queue=Dying(hospital.queue.access, hospital.queue.queue_url))
    assert hospital.ledger.waiting() == 1
    assert hospital.listen().found == Scan(listed=1)  # it came again, and told nothing new
    assert hospital.messages() == 0


def test_a_message_that_makes_no_sense_stays_and_is_counted(hospital: Hospital) -> None:
    hospital.say("Hello!")
    hospital.bucket.put("in/a", b"1")
    hospital.tell("ObjectCreated:Put", "in/a")
    heard = hospital.listen(budget_seconds=0.2)
    assert heard.not_understood >= 1
    assert hospital.there() == {"a"}
    assert hospital.messages() == 1


def test_a_listing_finds_what_no_event_told_and_nothing_twice(hospital: Hospital) -> None:
    hospital.bucket.put("in/told", b"1")
    hospital.tell("ObjectCreated:Put", "in/told")
    hospital.listen()
    hospital.bucket.put("in/.hidden", b"1")
    hospital.bucket.put("in/not told", b"1")
    found = hospital.ledger.scan(hospital.source, ObjectReader(hospital.bucket.access), now=datetime.now(UTC))
    assert (found.listed, found.new) == (2, 1)
    assert hospital.there() == {"told", "not told"}
