from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.objects.dicomdir import Dicomdir
from imaging_pipeline.objects.folder import Folder
from imaging_pipeline.objects.manifest import Manifest
from imaging_pipeline.objects.opening import access_of, open_source
from imaging_pipeline.objects.s3 import S3Access, S3Bucket
from imaging_pipeline.sources import Deletions, ElementMode, SourceConfig, SourceKind, load_sources, one_time_source

SECRET = "XYZZY-42"  # stands for whatever a person may have typed: no message may repeat it


def load(folder: Path, text: str) -> tuple[SourceConfig, ...]:
    (folder / "sources.yaml").write_text(text, encoding="utf-8")
    return load_sources(folder / "sources.yaml")


def test_every_key_is_read(tmp_path: Path) -> None:
    folder, bucket = load(
        tmp_path,
        """
        sources:
          - name: north
            location: scans/north
            kind: folder
            include: ["*.dcm", "2026/**"]
            exclude: [tmp/**]
            minimum_age_seconds: 30
            follow_links: true
            deletions: ignore
            elements: standard
          - {name: South_2, location: "s3://bucket/south", endpoint_url: "http://localhost:9000", region: eu-west-1,
             profile: reader, queue_url: "https://sqs.example/1/q"}
        """,
    )
    assert folder == SourceConfig(
        "north", str(tmp_path / "scans" / "north"), SourceKind.FOLDER, ("*.dcm", "2026/**"), ("tmp/**",), 30.0, True,
        Deletions.IGNORE, ElementMode.STANDARD,
    )  # fmt: skip
    assert bucket == SourceConfig(
        "South_2", "s3://bucket/south", SourceKind.BUCKET, endpoint_url="http://localhost:9000", region="eu-west-1",
        profile="reader", queue_url="https://sqs.example/1/q",
    )  # fmt: skip


def test_locations_are_taken_from_the_file_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = "sources: [{name: a, location: ../a}, {name: b, location: ~/b}, {name: c, location: /c/./d/../e}]"
    (tmp_path / "etc").mkdir()
    locations = [source.location for source in load(tmp_path / "etc", text)]
    assert locations == [str(tmp_path / "a"), str(tmp_path / "home" / "b"), "/c/e"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("name: a, location: x, includes: []", "source 'a'.*'includes'.*known are.*include"),
        ("location: x", "source 1.*name is missing"),
        ("name: , location: x", "source 1.*name is missing"),
        ("name: a", "source 'a'.*location is missing"),
        ("name: 12, location: x", "source 1.*name"),
        (f"name: 'a {SECRET}', location: x", "source 1.*name must be letters, digits"),
        ("name: ä, location: x", "source 1.*name must be letters, digits"),
        ("name: a, location: [x]", "'a'.*location"),
        ("name: a, location: ''", "'a'.*location"),
        (f"name: a, location: 'gs://{SECRET}'", "'a'.*location must be a path or s3://"),
        ("name: a, location: 's3://'", "'a'.*location.*bucket"),
        (f"name: a, location: '~{SECRET}/x'", "'a'.*location"),
        (f"name: a, location: x, kind: {SECRET}", "'a'.*kind must be folder or bucket or manifest or dicomdir"),
        (f"name: a, location: x, deletions: {SECRET}", "'a'.*deletions must be tombstone or ignore"),
        ("name: a, location: x, deletions: [tombstone]", "'a'.*deletions must be tombstone or ignore"),
        ("name: a, location: x, kind: bucket", "'a'.*location must be s3://"),
        ("name: a, location: 's3://b/x', kind: folder", "'a'.*location must be s3://"),
        ("name: a, location: x, minimum_age_seconds: soon", "'a'.*minimum_age_seconds must be a number"),
        ("name: a, location: x, minimum_age_seconds: -1", "'a'.*minimum_age_seconds must be a number"),
        ("name: a, location: x, minimum_age_seconds: true", "'a'.*minimum_age_seconds must be a number"),
        ("name: a, location: x, minimum_age_seconds: .inf", "'a'.*minimum_age_seconds must be a number"),
        ("name: a, location: x, minimum_age_seconds: .nan", "'a'.*minimum_age_seconds must be a number"),
        ("name: a, location: x, follow_links: 'yes'", "'a'.*follow_links must be true or false"),
        ("name: a, location: x, include: '*.dcm'", "'a'.*include must be a list"),
        ("name: a, location: x, exclude: [1]", "'a'.*exclude must be a list"),
        ("name: a, location: x, queue_url: 'https://q'", "'a'.*queue_url is only for bucket"),
        ("name: a, location: 's3://b/x.txt', queue_url: 'https://q'", "'a'.*queue_url is only for bucket"),
        ("name: a, location: x, region: eu", "'a'.*region is only for bucket and manifest"),
        ("name: a, location: 's3://b', follow_links: true", "'a'.*follow_links is only for"),
        (f"name: a, location: 's3://b', queue_url: '{SECRET}'", "'a'.*queue_url must be an http"),
        (f"name: a, location: 's3://b', endpoint_url: 'http://u:{SECRET}@h'", "'a'.*endpoint_url.*credentials"),
        ("name: a, location: 's3://b', endpoint_url: 'http://[x'", "'a'.*endpoint_url must be an http"),
        (f"name: a, location: 's3://b', aws_secret_access_key: {SECRET}", "'a'.*credentials come from the environment"),
        (f"name: a, location: 's3://b', session_token: {SECRET}", "'a'.*credentials come from the environment"),
        (f"name: a, location: 's3://b', Password: {SECRET}", "'a'.*credentials come from the environment"),
        ("name: a, name: b, location: x", "given twice"),
    ],
)
def test_a_mistake_is_said_with_source_key_and_what_is_allowed(tmp_path: Path, entry: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refusal:
        load(tmp_path, f"sources: [{{{entry}}}]")
    assert SECRET not in str(refusal.value)
    assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("pattern", ["", "/a", "a/", "a//b", "../a", "a/./b", "!a", "[0-9]", "{a,b}", "a\\\\b"])
def test_patterns_of_other_tools_are_refused_rather_than_misread(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'a'.*pattern 2 of exclude"):
        load(tmp_path, f'sources: [{{name: a, location: x, exclude: [ok, "{pattern}"]}}]')


@pytest.mark.parametrize(
    "text", ["", "sources:", "sources: []", "sources: {a: 1}", "- name: a", "sources: [1]", "sources: [{]",
             "a: &x [*x]", "sources: [{name: a, location: x}]\nmore: 1", "sources: !!python/object:os.system []"],
)  # fmt: skip
def test_a_file_without_sources_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="source"):
        load(tmp_path, text)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="sources file"):
        load_sources(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_sources(tmp_path / "bytes.yaml")


def test_a_name_is_used_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'a'.*twice"):
        load(tmp_path, "sources: [{name: a, location: x}, {name: b, location: y}, {name: a, location: z}]")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/data", "/data/north"), ("/data/north", "/data/north"), ("/data/", "/data/list.txt"), ("/", "/data"),
        ("s3://b/north", "s3://b/north/ct"), ("s3://b", "s3://b/north"), ("s3://b/north/", "s3://b/north"),
        ("s3://b/x", "s3://b/x/list.csv"), ("/cd/DICOMDIR", "/cd/OTHER"),
    ],
)  # fmt: skip
def test_an_object_cannot_belong_to_two_sources(tmp_path: Path, one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        with pytest.raises(ConfigurationError, match="lies inside that of source"):
            load(tmp_path, f"sources: [{{name: a, location: '{first}'}}, {{name: b, location: '{second}'}}]")


def test_a_link_into_another_source_counts_as_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "all" / "north").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "all" / "north")
    with pytest.raises(ConfigurationError, match="lies inside"):
        load(tmp_path, "sources: [{name: a, location: all}, {name: b, location: link}]")


@pytest.mark.parametrize(
    ("one", "other"),
    [("/data/north", "/data/north2"), ("s3://b/site1", "s3://b/site10"), ("s3://b1", "s3://b10"), ("/b", "s3://b/b")],
)
def test_neighbours_are_two_sources(tmp_path: Path, one: str, other: str) -> None:
    loaded = load(tmp_path, f"sources: [{{name: a, location: '{one}'}}, {{name: b, location: '{other}'}}]")
    assert [source.name for source in loaded] == ["a", "b"]


def test_the_kind_follows_from_what_is_there(tmp_path: Path) -> None:
    medium = Path(str(get_testdata_file("DICOMDIR"))).parent
    (tmp_path / "uris.txt").write_text("# list\n\ns3://bucket/key\n")
    (tmp_path / "paths.lst").write_text("sub/none.dcm\r\nreport.txt\r\n")
    (tmp_path / "table.CSV").write_text('\ufeffid,"URI"\n1,x\n')
    (tmp_path / "report.txt").write_text("Findings: w/o contrast,\nnormal.\n")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "numbers.csv").write_text("1,2\n3,4\n")
    (tmp_path / "windows.txt").write_bytes("/a.dcm\r\n".encode("utf-16"))
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "renamed").write_bytes((medium / "DICOMDIR").read_bytes())
    kinds = {
        str(tmp_path): SourceKind.FOLDER, "uris.txt": SourceKind.MANIFEST, "paths.lst": SourceKind.MANIFEST,
        "table.CSV": SourceKind.MANIFEST, "report.txt": SourceKind.FOLDER, "empty.txt": SourceKind.FOLDER,
        "numbers.csv": SourceKind.FOLDER, "windows.txt": SourceKind.MANIFEST, "folder.txt": SourceKind.FOLDER,
        "a.zip": SourceKind.FOLDER, "renamed": SourceKind.DICOMDIR, str(medium / "DICOMDIR"): SourceKind.DICOMDIR,
        str(medium / "DICOMDIR-bigEnd"): SourceKind.DICOMDIR,
        str(get_testdata_file("CT_small.dcm")): SourceKind.FOLDER, "s3://bucket": SourceKind.BUCKET,
        "s3://bucket/a.zip": SourceKind.BUCKET, "s3://bucket/list.txt": SourceKind.MANIFEST,
    }  # fmt: skip
    for location, kind in kinds.items():
        place = location if location.startswith("s3://") else str(tmp_path / location)
        once = one_time_source(place, "site")
        assert once == SourceConfig("site", place, kind, minimum_age_seconds=0.0, deletions=Deletions.IGNORE)
        (loaded,) = load(tmp_path, f"sources: [{{name: a, location: '{location}'}}]")
        assert loaded.kind is kind


def test_a_source_that_is_not_mounted_yet_does_not_stop_the_others(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, "sources: [{name: a, location: x/off}, {name: b, location: off.txt}, {name: c, location: y/DICOMDIR}]"
    )
    assert [source.kind for source in loaded] == [SourceKind.FOLDER, SourceKind.MANIFEST, SourceKind.DICOMDIR]


def test_a_one_time_location_is_taken_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    assert one_time_source("in", "site").location == str(tmp_path / "in")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert one_time_source("~/in", "site").location == str(tmp_path / "in")


@pytest.mark.parametrize("location", ["nowhere", "", "gs://bucket", "s3://", "a\0b", "nowhere/below"])
def test_a_one_time_location_with_nothing_there_is_said(tmp_path: Path, location: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'site'.*location"):
        one_time_source(str(tmp_path / location) if "nowhere" in location else location, "site")


def test_a_one_time_name_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="letters, digits and underscores"):
        one_time_source(str(tmp_path), "no name")


def test_each_kind_opens_as_its_class(tmp_path: Path) -> None:
    classes = {
        SourceKind.FOLDER: Folder,
        SourceKind.BUCKET: S3Bucket,
        SourceKind.MANIFEST: Manifest,
        SourceKind.DICOMDIR: Dicomdir,
    }
    assert set(classes) == set(SourceKind)
    for kind, made in classes.items():
        location = "s3://bucket/x" if kind is SourceKind.BUCKET else str(tmp_path / "x")
        assert type(open_source(SourceConfig("a", location, kind), S3Access())) is made


def test_a_source_says_how_its_store_is_reached_and_the_installation_says_the_rest() -> None:
    default = S3Access("http://here", "eu", "shared")
    assert access_of(SourceConfig("a", "s3://b"), default) == default
    own = SourceConfig("a", "s3://b", endpoint_url="http://there", profile="own")
    assert access_of(own, default) == S3Access("http://there", "eu", "own")


def test_two_sources_cannot_share_a_queue(tmp_path: Path) -> None:
    queue = "queue_url: 'https://sqs.eu-central-1.amazonaws.com/1/q'"
    path = tmp_path / "sources.yaml"
    path.write_text(
        f"sources:\n- {{name: a, location: 's3://a', {queue}}}\n- {{name: b, location: 's3://b', {queue}}}\n"
    )
    with pytest.raises(ConfigurationError, match="share a queue_url"):
        load_sources(path)
