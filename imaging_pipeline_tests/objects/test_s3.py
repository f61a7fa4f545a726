from __future__ import annotations

import hashlib
import io
import pickle
import random
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from imaging_pipeline.errors import ConfigurationError, ImagingError, PoisonInput, Reason, TransientError
from imaging_pipeline.objects import s3, s3_access
from imaging_pipeline.objects.model import ObjectVersion
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.objects.s3 import S3Access, S3Bucket, S3RangeFile, read_s3, stat_s3
from imaging_pipeline.objects.source import Page
from imaging_pipeline.sources import SourceConfig, SourceKind
from imaging_pipeline_tests.servers.faults import Fault, of_key, of_listing
from imaging_pipeline_tests.servers.fixtures import Bucket, bucket, gateway, use_credentials
from imaging_pipeline_tests.servers.radosgw import Gateway, Keys

__all__ = ["bucket", "gateway"]

ODD_KEYS = [
    "a", "a b", "a  b", "a!", "a!b.dcm", "a%2Fb", "a%b", "a+b", "a-b", "a//b", "a/b", "a<b>&\"'", "a?x=1&y=2", "a#b",
    "a\tb", "a\nb", "b=c;d:e@f", "A", "ä", "z", "日本.dcm", "\uffee", "\U0001f600", "a\\b", "~", "/lead", "{x}",
]  # fmt: skip


def source(bucket: Bucket, prefix: str = "", **options: object) -> S3Bucket:
    config = SourceConfig("site", f"{bucket.uri}/{prefix}", SourceKind.BUCKET, minimum_age_seconds=0.0)
    return S3Bucket(replace(config, **options), bucket.access)  # type: ignore[arg-type]


def pages(bucket: Bucket, prefix: str = "", after: str | None = None, **options: object) -> list[Page]:
    return list(source(bucket, prefix, **options).pages(after, datetime.now(UTC)))


def listed(bucket: Bucket, prefix: str = "", after: str | None = None, **options: object) -> list[ObjectVersion]:
    return [entry for page in pages(bucket, prefix, after, **options) for entry in page.objects]


def reader(bucket: Bucket) -> ObjectReader:
    return ObjectReader(bucket.access)


def refusal_of(read: Callable[[], object]) -> PoisonInput:
    with pytest.raises(PoisonInput) as refusal:
        read()
    return refusal.value


@pytest.fixture
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures that last are not waited for as long as in earnest."""
    monkeypatch.setattr(s3_access, "MAX_ATTEMPTS", 2)
    monkeypatch.setattr(s3, "MAX_RESUMES", 2)
    monkeypatch.setattr(s3, "RESUME_SECONDS", 0.01)


def test_odd_keys_are_listed_in_utf8_order_and_read_back(bucket: Bucket) -> None:
    for key in ODD_KEYS:
        bucket.put(key, key.encode())
    found = listed(bucket)
    assert [entry.uri for entry in found] == [f"{bucket.uri}/{key}" for key in sorted(ODD_KEYS, key=str.encode)]
    for entry in found:
        assert reader(bucket).read_all(entry).decode() == entry.uri.removeprefix(bucket.uri + "/")
        assert source(bucket).stat(entry.uri) == entry
    for entry in found[::4]:
        assert [behind.uri for behind in listed(bucket, after=entry.uri)] == [e.uri for e in found if e.uri > entry.uri]


def test_a_listing_of_many_pages_goes_on_from_any_of_them(bucket: Bucket) -> None:
    keys = [f"series/{number:05d}.dcm" for number in range(1_050)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: bucket.put(key, b"x"), keys))
    whole = pages(bucket)
    assert len(whole) >= 2
    assert max(len(page.objects) for page in whole) <= 1_000
    found = [entry for page in whole for entry in page.objects]
    assert [entry.uri for entry in found] == [f"{bucket.uri}/{key}" for key in keys]
    assert whole[0].upto == whole[0].objects[-1].uri
    assert whole[-1].upto is None
    assert listed(bucket, after=whole[0].upto) == found[len(whole[0].objects) :]
    bucket.proxy.reset()
    assert listed(bucket, after=f"{bucket.uri}/series/01047.dcm") == found[-2:]
    assert len(bucket.proxy.listings()) == 1


def test_a_prefix_is_a_folder_with_patterns_below_it_and_markers_are_no_objects(bucket: Bucket) -> None:
    for key in ("site1/a.dcm", "site1/b.txt", "site1/old/c.dcm", "site10/d.dcm", "site1.dcm", "site1/.e.dcm"):
        bucket.put(key, b"x")
    bucket.put("site1/", b"")
    bucket.put("site1/old/", b"")
    options = {"include": ("*.dcm",), "exclude": ("old/**",)}
    assert [entry.name for entry in listed(bucket, "site1")] == ["a.dcm", "b.txt", "c.dcm"]
    assert [entry.name for entry in listed(bucket, "site1/", **options)] == ["a.dcm"]
    some = source(bucket, "site1", **options)
    assert some.prefix == f"{bucket.uri}/site1/"
    assert some.stat(f"{bucket.uri}/site1/a.dcm") is not None
    for key in ("site1/b.txt", "site1/old/c.dcm", "site10/d.dcm", "site1.dcm", "site1/.e.dcm"):
        assert not some.selects(f"{bucket.uri}/{key}")
        assert some.stat(f"{bucket.uri}/{key}") is None
    assert source(bucket, "site1").stat(f"{bucket.uri}/site1/old/") is None


def test_a_location_may_name_one_object(bucket: Bucket) -> None:
    bucket.put("films/a.zip", b"PK")
    assert [entry.uri for entry in listed(bucket, "films/a.zip")] == [f"{bucket.uri}/films/a.zip"]
    assert [entry.uri for entry in listed(bucket, "films")] == [f"{bucket.uri}/films/a.zip"]
    assert listed(bucket, "films/b.zip") == listed(bucket, "nothing/") == []


def test_an_object_just_written_is_unsettled(bucket: Bucket) -> None:
    bucket.put("new", b"x")
    (page,) = pages(bucket, minimum_age_seconds=3_600.0)
    assert page == Page((), frozenset({f"{bucket.uri}/new"}), None)


def test_other_bytes_are_another_version_and_the_old_one_is_refused(bucket: Bucket) -> None:
    bucket.put("file.ZIP", b"before")
    (before,) = listed(bucket)
    assert before.version == hashlib.md5(b"before").hexdigest()
    assert before.is_archive
    bucket.put("file.ZIP", b"after!")
    (after,) = listed(bucket)
    assert (before.uri, before.version) < (after.uri, after.version) or before.version != after.version
    assert refusal_of(lambda: reader(bucket).read_all(before)).reason is Reason.CHANGED_WHILE_READ
    assert reader(bucket).read_all(after) == b"after!"


def test_an_object_replaced_while_it_is_read_is_refused_not_mixed(bucket: Bucket) -> None:
    bucket.put("file", bytes(3_000_000))
    (target,) = listed(bucket)
    replaced = Fault(
        of_key(f"{bucket.name}/file"), body_bytes=1_000_000, change=lambda: bucket.put("file", b"\1" * 3_000_000)
    )
    bucket.proxy.add(replaced)
    assert refusal_of(lambda: reader(bucket).read_all(target)).reason is Reason.CHANGED_WHILE_READ
    assert len(bucket.proxy.reads()) == 2


def test_an_object_that_was_deleted_is_gone(bucket: Bucket) -> None:
    bucket.put("file", b"x")
    (target,) = listed(bucket)
    bucket.delete("file")
    refusal = refusal_of(lambda: reader(bucket).read_all(target))
    assert refusal.reason is Reason.GONE
    assert bucket.name not in str(refusal)
    assert source(bucket).stat(target.uri) is None


def test_an_empty_object_is_read(bucket: Bucket) -> None:
    bucket.put("empty", b"")
    (target,) = listed(bucket)
    assert reader(bucket).read_all(target) == b""


@pytest.mark.parametrize("keys", [Keys("owner-key", "wrong-secret"), Keys("nobody-key", "wrong-secret")])
def test_refused_credentials_are_said_and_no_secret_is(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, keys: Keys
) -> None:
    bucket.put("doe^jane", b"x")
    (target,) = listed(bucket)
    use_credentials(monkeypatch, keys)
    with pytest.raises(ConfigurationError, match="refused the credentials") as listing:
        listed(bucket)
    with pytest.raises(ConfigurationError, match="refused the credentials"):
        source(bucket).stat(target.uri)
    refusal = refusal_of(lambda: reader(bucket).read_all(target))
    assert refusal.reason is Reason.ACCESS_DENIED
    assert "credentials" in refusal.message
    for text in (str(listing.value), str(refusal)):
        assert not any(word in text for word in (keys.secret_key, keys.access_key, bucket.name, "doe^jane"))


def test_no_credentials_at_all_are_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch, Keys("", ""))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="no credentials"):
        listed(bucket)


def test_a_profile_that_is_not_there_is_said(bucket: Bucket) -> None:
    with pytest.raises(ConfigurationError, match="ProfileNotFound"):
        replace(bucket.access, profile="nowhere").client()


def test_a_user_without_access_is_told(bucket: Bucket, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("file", b"x")
    (target,) = listed(bucket)
    use_credentials(monkeypatch, gateway.stranger)
    with pytest.raises(ConfigurationError, match="s3:ListBucket"):
        listed(bucket)
    with pytest.raises(ConfigurationError, match="s3:ListBucket"):
        source(bucket).stat(target.uri)
    assert refusal_of(lambda: reader(bucket).read_all(target)).reason is Reason.ACCESS_DENIED
    assert refusal_of(lambda: stat_s3(bucket.access, target.uri, "site")).reason is Reason.ACCESS_DENIED


def test_one_readable_object_of_a_closed_bucket_is_found(
    bucket: Bucket, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="open", Body=b"x", ACL="public-read")
    (before,) = listed(bucket)
    use_credentials(monkeypatch, gateway.stranger)
    found = stat_s3(bucket.access, before.uri, "site")
    assert found is not None
    assert found.version == before.version
    assert reader(bucket).read_all(found) == b"x"


def test_a_bucket_that_is_gone_is_not_taken_for_gone_objects(bucket: Bucket) -> None:
    bucket.put("file", b"x")
    (target,) = listed(bucket)
    bucket.delete("file")
    bucket.client.delete_bucket(Bucket=bucket.name)
    with pytest.raises(ConfigurationError, match="bucket does not exist"):
        listed(bucket)
    with pytest.raises(ConfigurationError, match="bucket does not exist"):
        source(bucket).stat(target.uri)
    assert refusal_of(lambda: reader(bucket).read_all(target)).reason is not Reason.GONE


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed early"])
@pytest.mark.parametrize("body_bytes", [0, 1, 1_500_000])
def test_a_body_that_breaks_off_is_taken_up_where_it_broke(bucket: Bucket, body_bytes: int, is_reset: bool) -> None:
    body = random.Random(1).randbytes(2_500_000)
    bucket.put("file", body)
    (target,) = listed(bucket)
    bucket.proxy.add(Fault(of_key(f"{bucket.name}/file"), times=1, body_bytes=body_bytes, is_reset=is_reset))
    content = reader(bucket).read_content(target, keep=len(body))
    assert content.prefix == body
    assert content.sha256 == hashlib.sha256(body).hexdigest()
    reads = bucket.proxy.reads()
    assert len(reads) == 2
    if not is_reset:  # what is on its way is lost when a connection is reset
        assert reads[1].range == f"bytes={body_bytes}-2499999"
        assert sum(read.body_bytes for read in reads) == len(body)


def test_a_stalled_body_is_taken_up(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_access, "READ_SECONDS", 0.5)
    bucket.put("file", bytes(range(256)) * 4_000)
    (target,) = listed(bucket)
    bucket.proxy.add(Fault(of_key(f"{bucket.name}/file"), body_bytes=10_000, stall_seconds=2.0))
    assert reader(bucket).read_all(target) == bytes(range(256)) * 4_000


def test_a_body_that_always_breaks_off_is_never_taken_for_whole(bucket: Bucket, few_attempts: None) -> None:
    bucket.put("file", bytes(100_000))
    (target,) = listed(bucket)
    bucket.proxy.add(Fault(of_key(f"{bucket.name}/file"), times=-1, body_bytes=10))
    refusal = refusal_of(lambda: reader(bucket).read_all(target))
    assert refusal.reason is Reason.UNAVAILABLE
    assert len(bucket.proxy.reads()) == 3


def test_a_link_that_breaks_often_but_makes_progress_is_borne(bucket: Bucket, few_attempts: None) -> None:
    body = random.Random(2).randbytes(6_000_000)
    bucket.put("file", body)
    (target,) = listed(bucket)
    bucket.proxy.add(Fault(of_key(f"{bucket.name}/file"), times=-1, body_bytes=s3.PROGRESS_BYTES))
    assert reader(bucket).read_all(target) == body


def test_a_burst_of_server_errors_is_survived(bucket: Bucket) -> None:
    bucket.put("file", b"body")
    bucket.proxy.add(Fault(of_listing, times=1, status=500))
    bucket.proxy.add(Fault(of_key(f"{bucket.name}/file"), times=2, status=503))
    (target,) = listed(bucket)
    assert reader(bucket).read_all(target) == b"body"
    assert len(bucket.proxy.reads()) == 3


def test_a_store_that_stays_away_costs_one_object_and_ends_a_listing(bucket: Bucket, few_attempts: None) -> None:
    bucket.put("file", b"body")
    (target,) = listed(bucket)
    bucket.proxy.add(Fault(lambda method, path: True, times=-1, status=503))
    assert refusal_of(lambda: reader(bucket).read_all(target)).reason is Reason.UNAVAILABLE
    with pytest.raises(TransientError):
        listed(bucket)
    with pytest.raises(TransientError):
        source(bucket).stat(target.uri)
    with pytest.raises(TransientError):
        read_s3(bucket.access, target.uri)


def test_a_server_that_is_not_there_is_a_matter_of_time(bucket: Bucket, few_attempts: None) -> None:
    nobody = replace(bucket.access, endpoint_url="http://127.0.0.1:1")
    with pytest.raises(TransientError):
        list(S3Bucket(source(bucket).config, nobody).pages(None, datetime.now(UTC)))
    target = ObjectVersion(f"{bucket.uri}/x", "0", 1, datetime.now(), "site")  # noqa: DTZ005
    assert refusal_of(lambda: ObjectReader(nobody).read_all(target)).reason is Reason.UNAVAILABLE


def test_a_listing_cut_off_is_asked_again_not_taken_for_whole(bucket: Bucket) -> None:
    for number in range(50):
        bucket.put(f"{number:03d}", b"x")
    bucket.proxy.add(Fault(of_listing, body_bytes=3_000))
    assert len(listed(bucket)) == 50


def test_every_source_is_read_with_its_own_access(bucket: Bucket) -> None:
    bucket.put("file", b"x")
    (target,) = listed(bucket)
    nowhere = S3Access("http://127.0.0.1:1", "us-east-1")
    moved = pickle.loads(pickle.dumps(ObjectReader(nowhere, {"site": bucket.access})))
    assert moved.read_all(target) == b"x"


def test_a_configuration_object_is_read_whole_or_named_missing(bucket: Bucket) -> None:
    bucket.put("list.txt", b"one\ntwo\n")
    assert read_s3(bucket.access, f"{bucket.uri}/list.txt") == b"one\ntwo\n"
    with pytest.raises(ConfigurationError, match="not there"):
        read_s3(bucket.access, f"{bucket.uri}/other.txt")


def test_expired_credentials_are_read_afresh_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("file", b"x")
    made = []

    class Expired:
        def __init__(self, client: object) -> None:
            self.client = client

        def list_objects_v2(self, **parameters: object) -> object:
            made.append(self)
            if len(made) <= expired:
                answer = {"Error": {"Code": "ExpiredToken"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
                raise ClientError(answer, "ListObjectsV2")  # type: ignore[arg-type]
            return self.client.list_objects_v2(**parameters)  # type: ignore[attr-defined]

    make = s3_access._make_client
    monkeypatch.setattr(s3_access, "_make_client", lambda *args: Expired(make(*args)))
    expired = 1
    assert len(listed(bucket)) == 1
    assert len(set(made)) == 2
    s3_access._CLIENTS.clear()
    expired = 100
    with pytest.raises(ConfigurationError, match="expired"):
        listed(bucket)


def test_threads_share_one_client_and_read_at_once(bucket: Bucket) -> None:
    for number in range(40):
        bucket.put(f"{number:02d}", str(number).encode() * 1_000)
    with ThreadPoolExecutor(8) as pool:
        assert len({id(client) for client in pool.map(lambda _: bucket.access.client(), range(16))}) == 1
        bodies = list(pool.map(reader(bucket).read_all, listed(bucket)))
    assert bodies == [str(number).encode() * 1_000 for number in range(40)]


def test_any_part_of_an_object_can_be_read_by_ranges(bucket: Bucket) -> None:
    body = random.Random(3).randbytes(3 * s3.RANGE_BYTES + 12_345)
    bucket.put("file", body)
    (target,) = listed(bucket)
    file = S3RangeFile(bucket.access, target.uri, target.version, target.size)
    plain, chance = io.BytesIO(body), random.Random(4)
    for _ in range(200):
        offset, size = chance.randrange(len(body) + 10), chance.choice([0, 1, 30, 5_000, 400_000])
        assert file.seek(offset) == plain.seek(offset)
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()
    assert file.seek(-22, io.SEEK_END) == plain.seek(-22, io.SEEK_END)
    assert file.read() == plain.read()
    assert sum(read.body_bytes for read in bucket.proxy.reads()) == len(body)


def zip_of(members: dict[str, bytes]) -> bytes:
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return stream.getvalue()


def test_a_member_of_a_zip_in_a_bucket_is_read_by_ranges_alone(bucket: Bucket) -> None:
    members = {f"study/{number:02d}!ü.dcm": random.Random(number).randbytes(400_000) for number in range(30)}
    body = zip_of(members)
    bucket.put("a !b.zip", body)
    (archive,) = listed(bucket)
    found = list(reader(bucket).list_members(archive))
    assert reader(bucket).read_all(found[17]) == members["study/17!ü.dcm"]
    reads = bucket.proxy.reads()
    assert sum(read.body_bytes for read in reads) < len(body) / 5
    assert all(read.range for read in reads)
    assert [member.parent_uri for member in found] == [archive.uri] * 30
    assert [reader(bucket).read_all(member) for member in found] == list(members.values())
    assert [member.version for member in found] == [
        member.version for member in ObjectReader(bucket.access).list_members(archive)
    ]


def test_small_members_read_in_turn_cost_few_requests_and_no_byte_twice(bucket: Bucket) -> None:
    members = {f"{number:05d}.dcm": random.Random(number).randbytes(2_000) for number in range(1_500)}
    body = zip_of(members)
    bucket.put("a.zip", body)
    (archive,) = listed(bucket)
    found = list(reader(bucket).list_members(archive))
    assert [reader(bucket).read_all(member) for member in found] == list(members.values())
    reads = bucket.proxy.reads()
    assert len(reads) <= 10
    assert sum(read.body_bytes for read in reads) <= len(body) + s3.RANGE_BYTES
    assert len(bucket.proxy.listings()) <= 3


def test_a_zip_replaced_meanwhile_gives_the_members_that_stayed_and_refuses_the_others(bucket: Bucket) -> None:
    stays, changes, last = (random.Random(size).randbytes(size) for size in (300_000, 3_000_000, 1_500_000))
    bucket.put("a.zip", zip_of({"stays": stays, "changes": changes, "last": last}))
    (archive,) = listed(bucket)
    kept, changed, kept_too = reader(bucket).list_members(archive)
    assert reader(bucket).read_all(kept) == stays
    bucket.put("a.zip", zip_of({"new": b"x" * 10, "changes": b"other", "stays": stays, "last": last}))
    assert reader(bucket).read_all(kept_too) == last
    assert refusal_of(lambda: reader(bucket).read_all(changed)).reason is Reason.CHANGED_WHILE_READ
    assert reader(bucket).read_all(kept) == stays
    (archive_now,) = listed(bucket)
    assert [member.name for member in reader(bucket).list_members(archive_now)] == ["new", "changes", "stays", "last"]
    assert refusal_of(lambda: list(reader(bucket).list_members(replace(archive, version="0" * 32)))).reason is (
        Reason.CHANGED_WHILE_READ
    )


def test_a_range_that_breaks_off_is_taken_up_inside_a_zip(bucket: Bucket) -> None:
    content = random.Random(5).randbytes(1_000_000)
    bucket.put("a.zip", zip_of({"one": content}))
    (archive,) = listed(bucket)
    (member,) = reader(bucket).list_members(archive)
    bucket.proxy.add(Fault(of_key(f"{bucket.name}/a.zip"), times=2, body_bytes=70_000))
    assert reader(bucket).read_all(member) == content


def test_members_of_a_zip_that_cannot_be_reached_say_why(bucket: Bucket, few_attempts: None) -> None:
    bucket.put("a.zip", zip_of({"one": random.Random(6).randbytes(600_000), "two": b"2"}))
    (archive,) = listed(bucket)
    member = next(iter(reader(bucket).list_members(archive)))
    bucket.proxy.add(Fault(lambda method, path: True, times=-1, status=503))
    assert refusal_of(lambda: reader(bucket).read_all(member)).reason is Reason.UNAVAILABLE
    bucket.proxy.reset()
    bucket.delete("a.zip")
    assert refusal_of(lambda: reader(bucket).read_all(member)).reason is Reason.GONE
    assert (
        refusal_of(lambda: list(reader(bucket).list_members(replace(archive, version="1" * 32)))).reason is Reason.GONE
    )


def test_a_damaged_zip_in_a_bucket_is_unreadable(bucket: Bucket) -> None:
    bucket.put("a.zip", b"PK\x03\x04 not really")
    bucket.put("b.zip", b"")
    for archive in listed(bucket):
        assert refusal_of(lambda target=archive: list(reader(bucket).list_members(target))).reason is (
            Reason.ARCHIVE_UNREADABLE
        )


def test_an_unknown_answer_of_the_store_becomes_an_error_of_ours() -> None:
    for status, code in ((400, "Surprise"), (418, "Weird Code/with path"), (301, "PermanentRedirect")):
        error = ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")  # type: ignore[typeddict-item]
        listing, reading = s3_access.translate(error), s3_access.translate(error, one_object=True)
        assert isinstance(listing, ImagingError)
        assert isinstance(reading, PoisonInput)
        assert "path" not in str(listing)


@pytest.mark.parametrize("method", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_part_of_an_object_or_member_is_read_without_the_rest(bucket: Bucket, method: int | None) -> None:
    content = random.Random(3).randbytes(2 << 20)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method or zipfile.ZIP_STORED) as target:
        target.writestr("study/image.dcm", content)
    bucket.put("image.dcm" if method is None else "scans.zip", content if method is None else archive.getvalue())
    (found,) = listed(bucket)
    image = found if method is None else next(reader(bucket).list_members(found))
    with reader(bucket).open_ranges(image) as opened:
        for offset, length in ((1_000_000, 5_000), (0, 10), (len(content) - 3, 10)):
            assert opened.read_at(offset, length) == content[offset : offset + length]
        assert b"".join(opened.blocks(5)) == content[5:]
    bucket.put(found.name, content[::-1])
    with reader(bucket).open_ranges(found) as opened:
        assert refusal_of(lambda: opened.read_at(5, 5)).reason is Reason.CHANGED_WHILE_READ
