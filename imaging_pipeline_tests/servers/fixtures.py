"""Fixtures that give a test real servers; import the ones a test module uses by name.

The gateway needs the Debian packages ceph-mon, ceph-osd, radosgw and ceph-common. Without them its tests are skipped,
and fail where the environment has TESTS_REQUIRE_S3=1.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import boto3
import pytest

from imaging_pipeline.objects import s3_access
from imaging_pipeline.objects.s3 import S3Access
from imaging_pipeline_tests.servers.faults import FaultyProxy, faulty_proxy
from imaging_pipeline_tests.servers.radosgw import Gateway, Keys, missing_programs, running_gateway
from imaging_pipeline_tests.servers.sqs import running_sqs


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket of the gateway, reached through a proxy that can fail.

    Attributes:
        name: of the bucket; no other test has it.
        client: boto3, straight to the gateway as the bucket's owner, for a test's own doings.
        proxy: in front of the gateway.
        access: through the proxy, for the code under test.
    """

    name: str
    client: Any
    proxy: FaultyProxy
    access: S3Access

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """A Ceph gateway for all tests of the session."""
    if missing := missing_programs():
        _without_gateway(f"{', '.join(missing)} not found; apt-get install ceph-mon ceph-osd radosgw ceph-common")
    with ExitStack() as running:
        try:
            gateway = running.enter_context(running_gateway())
        except (OSError, AssertionError, subprocess.SubprocessError) as error:
            _without_gateway(f"it does not start here ({error})")
        yield gateway


def _without_gateway(why: str) -> NoReturn:
    if os.environ.get("TESTS_REQUIRE_S3") == "1":
        pytest.fail(f"no S3 server: {why}")
    pytest.skip(f"no S3 server: {why}")


@pytest.fixture
def bucket(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, with the owner's credentials in the environment."""
    use_credentials(monkeypatch, gateway.owner)
    client = client_of(gateway.endpoint_url, gateway.owner)
    name = f"test-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    with faulty_proxy(gateway.port) as proxy:
        yield Bucket(name, client, proxy, S3Access(proxy.endpoint_url, "us-east-1"))


@pytest.fixture(scope="session")
def sqs_url() -> Iterator[str]:
    """The endpoint of an SQS server for all tests of the session."""
    with running_sqs() as url:
        yield url


@pytest.fixture
def queue_url(sqs_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A queue of its own, whose messages show again at once when they were received and not deleted."""
    keys = Keys("anything", "anything")
    if "AWS_ACCESS_KEY_ID" not in os.environ:
        use_credentials(monkeypatch, keys)
    queue = client_of(sqs_url, keys, "sqs").create_queue(
        QueueName=f"test-{uuid.uuid4().hex[:12]}", Attributes={"VisibilityTimeout": "0"}
    )
    return str(queue["QueueUrl"])


def use_credentials(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    """Put credentials where boto3's default chain finds them, and nothing of this machine's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in keys.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    s3_access._CLIENTS.clear()  # they keep the credentials they were made with


@lru_cache
def client_of(endpoint_url: str, keys: Keys, service: str = "s3") -> Any:
    """A boto3 client of a test's own."""
    return boto3.session.Session(keys.access_key, keys.secret_key, region_name="us-east-1").client(
        service, endpoint_url=endpoint_url
    )
