"""A server that speaks SQS over HTTP: moto's, in a process of its own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imaging_pipeline_tests.servers.radosgw import answers, daemon, free_port, wait_until


@contextmanager
def running_sqs() -> Iterator[str]:
    """The endpoint URL of a server that ends with this context, and with this process if that is killed."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryDirectory(prefix="sqs-") as home, daemon(command, Path(home, "log")):
        wait_until(lambda: answers(url), "the SQS server")
        yield url
