"""The whole chain from a bucket of a real S3 server: with faults on the way, and a run that is killed over them."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from imaging_pipeline.catalog.ledger import Ledger
from imaging_pipeline.samples.landing import new_study
from imaging_pipeline_tests.integration import chain
from imaging_pipeline_tests.servers.faults import Fault
from imaging_pipeline_tests.servers.fixtures import Bucket, bucket, gateway
from imaging_pipeline_tests.servers.radosgw import Gateway

__all__ = ["bucket", "gateway"]

LOOSE, ZIPPED, PER_BATCH = 5, 3, 5


def fill(bucket: Bucket, folder: Path) -> None:
    """Films as objects and in an archive, and a note among them."""
    films = [new_study(folder, seed=seed, size=96) for seed in range(LOOSE + ZIPPED)]
    for film in films[:LOOSE]:
        bucket.put(f"films/{film.name}", film.read_bytes())
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        for film in films[LOOSE:]:
            archive.write(film, film.name)
    bucket.put("films/more.zip", (folder / "more.zip").read_bytes())
    bucket.put("films/read me.txt", b"films of the night shift")


def trouble(bucket: Bucket) -> None:
    """The first two reads of each object fail: by a 503, by a reset in the body, or by a body that ends too early."""
    faults = (
        Fault(_early_reads(0), times=-1, status=503),
        Fault(_early_reads(1), times=-1, body_bytes=900, is_reset=True),
        Fault(_early_reads(2), times=-1, body_bytes=5000),
    )
    for fault in faults:
        bucket.proxy.add(fault)


def _early_reads(kind: int) -> Callable[[str, str], bool]:
    """Matches the first two reads of every third key."""
    reads: Counter[str] = Counter()

    def matches(method: str, path: str) -> bool:
        key = unquote(urlsplit(path).path)
        if method != "GET" or "/films/" not in key or zlib.crc32(key.encode()) % 3 != kind:
            return False
        reads[key] += 1
        return reads[key] <= 2

    return matches


@pytest.mark.slow
def test_faults_and_a_kill_leave_the_tables_of_a_quiet_run_and_nothing_committed_is_read_again(
    bucket: Bucket, gateway: Gateway, tmp_path: Path
) -> None:
    fill(bucket, tmp_path / "films")
    landing, quiet, rough = tmp_path / "landing", tmp_path / "quiet", tmp_path / "rough"
    location, size = f"{bucket.uri}/films/", {"BATCH_OBJECTS": str(PER_BATCH), "S3_REGION": "us-east-1"}

    status, output = chain.run(
        quiet, landing, "ingest", location, S3_ENDPOINT_URL=f"http://127.0.0.1:{gateway.port}", **size
    )
    assert status == 0, output
    undisturbed = chain.contents(quiet, landing)
    assert len(undisturbed["deid.dicom_instance"]) == LOOSE + ZIPPED

    trouble(bucket)
    proxied = {"S3_ENDPOINT_URL": bucket.proxy.endpoint_url, **size}

    def is_in_its_second_batch() -> bool:
        return len(chain.released_files(rough)) > PER_BATCH

    chain.run_and_kill(rough, landing, "ingest", location, when=is_in_its_second_batch, **proxied)
    with Ledger(rough / "identified" / "ledger.sqlite") as ledger:
        first = {target.uri.removeprefix("s3://") for target in ledger.manifest(ledger.batches()[0].batch_id)}
    assert {request.key for request in bucket.proxy.reads()} >= first
    bucket.proxy.reset()
    trouble(bucket)
    status, output = chain.run(rough, landing, "ingest", location, **proxied)
    assert status == 0, output

    again = chain.contents(rough, landing)
    assert {name: len(rows) for name, rows in again.items()} == {name: len(rows) for name, rows in undisturbed.items()}
    assert again == undisturbed
    assert {Path(name).name for name in chain.released_files(rough) if "/." not in name} == {
        Path(name).name for name in chain.released_files(quiet)
    }
    assert not first & {request.key for request in bucket.proxy.reads()}
