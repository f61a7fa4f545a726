"""WADO-RS and WADO-URI over a real lake: every kind of pixel data, negotiation, parts, refusals."""

from __future__ import annotations

import io
import json
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import uvicorn
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

from imaging_pipeline.dicom.pixels import decode_frame, render_color
from imaging_pipeline.web.index import Index
from imaging_pipeline.web.wado import instances, places, service
from imaging_pipeline_tests.objects.test_ranges import counted_reads
from imaging_pipeline_tests.web.wado.served import BATCH, FILES, LARGE_FRAMES, ROOT, Served, bit_frames, parts, served

SLICES = f"{ROOT}/studies/2.25.100/series/2.25.101"
COMPRESSED = ["no_table", "table", "extended", "fragments"]
CT = ("2.25.100", "2.25.101")
OCTET = "application/octet-stream"
OCTETS = {"accept": OCTET}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("home")) as running:
        yield running


def accepting(media_type: str) -> dict[str, str]:
    return {"accept": media_type}


def multipart(kind: str, syntax: str = "") -> dict[str, str]:
    return accepting(f'multipart/related; type="{kind}"' + (f"; transfer-syntax={syntax}" if syntax else ""))


# --- whole objects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FILES, "large.dcm", "stored.dcm", "deflated.dcm"])
def test_an_object_comes_byte_for_byte_as_it_is_stored(site: Served, name: str) -> None:
    for accept in ("*/*", 'multipart/related; type="application/dicom"; transfer-syntax=*'):
        answer = site.client.get(site.path(name), headers=accepting(accept))
        ((kind, content),) = parts(answer.content, answer.headers["content-type"])
        assert content == site.stored(name)
        assert kind.startswith("application/dicom; transfer-syntax=1.2.840.10008.1.2")
    single = site.client.get(site.path(name), headers=accepting("application/dicom; transfer-syntax=*"))
    assert single.content == site.stored(name)


def test_a_series_comes_in_parts_in_the_order_of_its_instances(site: Served) -> None:
    answer = site.client.get(SLICES)
    found = parts(answer.content, answer.headers["content-type"])
    assert [content for _kind, content in found] == [site.stored(f"slice{number}.dcm") for number in range(5)]
    assert site.client.get(f"{ROOT}/studies/2.25.100").content.count(b"DICM") == 5


def test_a_study_comes_as_a_zip_archive_the_same_each_time(site: Served) -> None:
    first, second = (site.client.get(f"{ROOT}/studies/2.25.100", headers=accepting("application/zip")) for _ in "ab")
    assert first.content == second.content
    with zipfile.ZipFile(io.BytesIO(first.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("2.25.101/2.25.100.3.dcm") == site.stored("slice2.dcm")
        assert len(archive.namelist()) == 5


@pytest.mark.parametrize("syntax", ["", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"])
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "SC_rgb_rle_2frame.dcm", "image_dfl.dcm"])
def test_a_transcoded_object_has_the_same_uids_and_pixels(site: Served, name: str, syntax: str) -> None:
    asked = f"application/dicom; transfer-syntax={syntax}" if syntax else "application/dicom"
    answer = site.client.get(site.path(name), headers=accepting(asked))
    made, stored = dcmread(io.BytesIO(answer.content)), dcmread(io.BytesIO(site.stored(name)))
    assert made.file_meta.TransferSyntaxUID == (syntax or "1.2.840.10008.1.2.1")
    assert (made.SOPInstanceUID, made.PatientID) == (stored.SOPInstanceUID, stored.PatientID)
    assert np.array_equal(pixel_array(made), pixel_array(stored))


def test_what_cannot_be_transcoded_is_not_acceptable_alone_and_comes_as_stored_among_others(site: Served) -> None:
    rle = "1.2.840.10008.1.2.5"
    alone = site.client.get(site.path("bits.dcm"), headers=accepting(f"application/dicom; transfer-syntax={rle}"))
    assert alone.status_code == 406
    answer = site.client.get(f"{ROOT}/studies/2.25.211", headers=multipart("application/dicom", rle))
    ((kind, content),) = parts(answer.content, answer.headers["content-type"])
    assert (kind, content) == ("application/dicom; transfer-syntax=1.2.840.10008.1.2.1", site.stored("bits.dcm"))


# --- metadata and bulk data --------------------------------------------------------------------------------------


def test_metadata_are_the_headers_without_file_meta_information(site: Served) -> None:
    answer = site.client.get(f"{SLICES}/metadata", headers=accepting("application/dicom+json"))
    assert answer.headers["content-type"] == "application/dicom+json"
    documents = answer.json()
    assert [document["00200013"]["Value"] for document in documents] == [[1], [2], [3], [4], [5]]
    assert not [tag for document in documents for tag in document if tag < "0008"]
    stored = dcmread(io.BytesIO(site.stored("slice3.dcm")))
    assert set(documents[3]) == {f"{elem.tag:08X}" for elem in stored}
    assert site.client.get(f"{SLICES}/metadata", headers=accepting("text/html")).status_code == 406


def test_metadata_come_as_xml_too(site: Served) -> None:
    answer = site.client.get(f"{SLICES}/metadata", headers=multipart("application/dicom+xml"))
    found = [ET.fromstring(part) for _kind, part in parts(answer.content, answer.headers["content-type"])]
    numbers = [each.find("*[@tag='00200013']") for each in found]
    assert ["".join(each.itertext()) for each in numbers if each is not None] == ["1", "2", "3", "4", "5"]
    assert b"/instances/2.25.100.1/bulkdata?" in answer.content


@pytest.mark.parametrize("name", ["CT_small.dcm", "image_dfl.dcm", "examples_palette.dcm", "stored.dcm"])
def test_each_bulk_data_address_gives_the_value(site: Served, name: str) -> None:
    document = site.client.get(site.path(name) + "/metadata").json()[0]
    stored = dcmread(io.BytesIO(site.stored(name)))
    addresses = {tag: element["BulkDataURI"] for tag, element in document.items() if "BulkDataURI" in element}
    assert "7FE00010" in addresses
    for tag, address in addresses.items():
        assert address.startswith(site.path(name) + "/bulkdata?")
        assert site.client.get(address).content == stored[int(tag, 16)].value
        answer = site.client.get(address, headers=multipart("application/octet-stream"))
        ((_kind, content),) = parts(answer.content, answer.headers["content-type"])
        assert content == stored[int(tag, 16)].value


def test_the_address_of_compressed_pixel_data_gives_all_frames(site: Served) -> None:
    document = site.client.get(site.path("no_table.dcm") + "/metadata").json()[0]
    answer = site.client.get(document["7FE00010"]["BulkDataURI"])
    assert [kind for kind, _ in parts(answer.content, answer.headers["content-type"])] == [
        "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
    ] * 10


@pytest.mark.parametrize(
    ("asked", "part", "told"),
    [
        ("bytes=10-19", slice(10, 20), "bytes 10-19/3276800"),
        ("bytes=3276790-", slice(3276790, None), "bytes 3276790-3276799/3276800"),
        ("bytes=-7", slice(3276793, None), "bytes 3276793-3276799/3276800"),
        ("bytes=0-2000000", slice(0, 2000001), "bytes 0-2000000/3276800"),
    ],
)
@pytest.mark.parametrize("name", ["large.dcm", "deflated.dcm"])
def test_a_range_of_bulk_data_is_given(site: Served, name: str, asked: str, part: slice, told: str) -> None:
    address = site.client.get(site.path(name) + "/metadata").json()[0]["7FE00010"]["BulkDataURI"]
    answer = site.client.get(address, headers={"range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (206, told)
    assert answer.content == dcmread(io.BytesIO(site.stored(name))).PixelData[part]


def test_a_range_behind_the_end_or_an_odd_address_is_refused(site: Served) -> None:
    path = site.path("large.dcm")
    assert site.client.get(f"{path}/bulkdata?offset=5&length=10", headers={"range": "bytes=10-"}).status_code == 416
    for query in ("", "?length=5", "?offset=-1&length=5", "?offset=x&length=5", "?offset=1&length=1e3"):
        assert site.client.get(f"{path}/bulkdata{query}").status_code == 400
    assert site.client.get(f"{path}/bulkdata?offset=999999999&length=5").content == b""


# --- frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPRESSED)
def test_frames_of_compressed_objects_are_found_with_every_kind_of_table(site: Served, name: str) -> None:
    original = dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
    streams = list(generate_frames(original.PixelData, number_of_frames=30))
    answer = site.client.get(site.path(f"{name}.dcm") + "/frames/3,1,10")
    assert answer.headers["content-type"].startswith('multipart/related; type="image/jpeg"')
    found = parts(answer.content, answer.headers["content-type"])
    assert [content.rstrip(b"\0") for _kind, content in found] == [streams[n].rstrip(b"\0") for n in (2, 0, 9)]
    assert {kind for kind, _ in found} == {"image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"}


@pytest.mark.parametrize("name", ["large.dcm", "stored.dcm", "deflated.dcm"])
def test_native_frames_are_cut_out(site: Served, name: str) -> None:
    answer = site.client.get(site.path(name) + "/frames/1,400,7")
    found = [np.frombuffer(content, "<u2") for _kind, content in parts(answer.content, answer.headers["content-type"])]
    assert [(each.min(), each.max(), each.size) for each in found] == [(n, n, 4096) for n in (0, 399, 6)]


def test_frames_of_single_bits_begin_with_a_byte_each(site: Served) -> None:
    for number, frame in enumerate(bit_frames(), start=1):
        content = site.client.get(site.path("bits.dcm") + f"/frames/{number}", headers=OCTETS).content
        assert np.array_equal(np.unpackbits(np.frombuffer(content, "u1"), count=25, bitorder="little"), frame.ravel())


@pytest.mark.parametrize("name", [*(name for name in FILES if "SR" not in name), "no_table.dcm"])
def test_a_frame_without_transfer_syntax_is_uncompressed_little_endian(site: Served, name: str) -> None:
    answer = site.client.get(site.path(name) + "/frames/1", headers=OCTETS)
    assert answer.headers["content-type"] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
    if "422_uncompressed" in name:  # two pixels share their colour, which the reader below resolves
        assert answer.content == dcmread(io.BytesIO(site.stored(name))).PixelData[:20_000]
        return
    wanted = dcmread(io.BytesIO(site.stored(name))).pixel_array
    wanted = wanted[0] if name == "SC_rgb_rle_2frame.dcm" or wanted.ndim == 4 else wanted
    found = np.frombuffer(answer.content, wanted.dtype.newbyteorder("<")).reshape(wanted.shape).astype(int)
    assert np.abs(found - wanted.astype(int)).max() <= ("ybr" in name or name == "no_table.dcm")


@pytest.mark.parametrize(
    ("name", "asked", "kind", "syntax"),
    [
        ("JPEG2000.dcm", 'multipart/related; type="application/octet-stream"; transfer-syntax=*', OCTET, "4.91"),
        ("JPEG2000.dcm", 'multipart/related; type="image/jp2"', "image/jp2", "4.91"),
        ("JPEG2000.dcm", "image/jp2", "image/jp2", "4.91"),
        ("JPEG2000.dcm", "image/*", "image/jp2", "4.91"),
        ("JPEG2000.dcm", "image/png, image/jp2;q=0.5, application/octet-stream;q=0.8", OCTET, "1"),
        ("CT_small.dcm", "image/jls", "image/jls", "4.80"),
        ("CT_small.dcm", "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90", "image/jp2", "4.90"),
        ("CT_small.dcm", "image/dicom-rle", "image/dicom-rle", "5"),
        ("CT_small.dcm", "image/jpeg, */*;q=0.1", OCTET, "1"),
    ],
)
def test_the_form_of_a_frame_is_negotiated(site: Served, name: str, asked: str, kind: str, syntax: str) -> None:
    answer = site.client.get(site.path(name) + "/frames/1", headers=accepting(asked))
    found = answer.headers["content-type"]
    found = parts(answer.content, found)[0][0] if found.startswith("multipart") else found
    assert found == f"{kind}; transfer-syntax=1.2.840.10008.1.2.{syntax}"
    asked_by_query = site.client.get(site.path(name) + "/frames/1", params={"accept": asked})
    assert asked_by_query.headers["content-type"] == answer.headers["content-type"]


@pytest.mark.parametrize("asked", ["image/png", "image/jpeg", 'multipart/related; type="image/jphc"', "*/*;q=0", "x"])
def test_a_form_that_cannot_be_had_is_not_acceptable(site: Served, asked: str) -> None:
    answer = site.client.get(site.path("CT_small.dcm") + "/frames/1", headers=accepting(asked))
    assert answer.status_code == 406
    assert "octet-stream" in answer.json()["detail"]


def test_frames_that_are_not_there_are_refused(site: Served) -> None:
    path = site.path("CT_small.dcm")
    assert [site.client.get(f"{path}/frames/{text}").status_code for text in ("2", "0", "-1", "x", "1,,2")] == [
        404, 400, 400, 400, 400,
    ]  # fmt: skip
    assert site.client.get(site.path("test-SR.dcm") + "/frames/1").status_code == 404
    assert site.client.get(f"{path}/frames/1,1", headers=OCTETS).status_code == 406


def test_a_frame_of_a_large_object_costs_little_more_than_its_own_bytes(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("large.dcm", "stored.dcm", "no_table.dcm", "fragments.dcm"):
        site.client.get(site.path(name) + "/frames/1")
    read = counted_reads(monkeypatch)
    for name, largest in (
        ("large.dcm", 8_192),
        ("stored.dcm", 8_300),
        ("no_table.dcm", 7_500),
        ("fragments.dcm", 7_500),
    ):
        read.clear()
        assert site.client.get(site.path(name) + "/frames/5").status_code == 200
        assert sum(read) <= largest
    read.clear()
    assert site.client.get(site.path("large.dcm") + f"/frames/{LARGE_FRAMES}/rendered").status_code == 200
    assert sum(read) < 10_000


def test_what_a_walk_over_compressed_frames_found_is_kept_for_the_next_process(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.client.get(site.path("no_table.dcm") + "/frames/2")
    file = site.zone.cache / "frame_places.sqlite"
    assert file.stat().st_mode & 0o077 == 0
    again = places.FramePlaces(file)
    monkeypatch.setattr(places, "_found", None)
    (instance,) = [each for each in Index(site.zone).instances("2.25.220") if each.uri.endswith("no_table.dcm")]
    with site.zone.reader.open_ranges(instance.target) as ranges:
        start, length = again.span(instance, ranges, 1)
        assert places.unwrapped(ranges.read_at(start, length)).startswith(b"\xff\xd8")


# --- pictures ----------------------------------------------------------------------------------------------------


def picture_at(site: Served, path: str, accept: str = "image/png") -> Image.Image:
    answer = site.client.get(path, headers=accepting(accept))
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.parametrize("name", [name for name in FILES if "SR" not in name])
def test_a_rendered_frame_is_what_the_pipeline_shows(site: Served, name: str) -> None:
    shown = picture_at(site, site.path(name) + "/rendered")
    frame = decode_frame(site.stored(name))
    wanted = Image.fromarray(render_color(frame))
    if frame.pixel_aspect != 1:
        assert shown.width / shown.height == pytest.approx(wanted.width / wanted.height / frame.pixel_aspect, rel=0.02)
        return
    assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(wanted))


def test_window_viewport_and_quality_are_heeded(site: Served) -> None:
    path = site.path("CT_small.dcm") + "/rendered"
    dark = np.asarray(picture_at(site, path + "?window=5000,10,linear"))
    light = np.asarray(picture_at(site, path + "?window=-5000,10,sigmoid"))
    assert (dark.max(), light.min()) == (0, 255)
    assert picture_at(site, path + "?viewport=64,50").size == (50, 50)
    whole = np.asarray(picture_at(site, path))
    part = np.asarray(picture_at(site, path + "?viewport=20,30,10,40,20,30"))
    mirrored = np.asarray(picture_at(site, path + "?viewport=20,30,10,40,-20,30"))
    assert np.array_equal(part, whole[40:70, 10:30])
    assert np.array_equal(mirrored, part[:, ::-1])
    coarse, fine = (site.client.get(f"{path}?quality={n}", headers=accepting("image/jpeg")).content for n in (10, 95))
    assert len(coarse) < len(fine) / 2


@pytest.mark.parametrize(
    "query",
    ["window=1", "window=1,0", "window=nan,5", "window=1,2,cubic", "viewport=0,5", "viewport=5", "viewport=1e9,5",
     "viewport=9,9,500,500", "viewport=9,9,1,1,nan,1", "quality=0", "quality=101", "quality=x", "viewport=99999,9"],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused_without_being_repeated(site: Served, query: str) -> None:
    answer = site.client.get(f"{site.path('CT_small.dcm')}/rendered?{query}")
    assert answer.status_code == 400
    assert query not in answer.json()["detail"]


def test_frames_come_as_parts_or_as_one_animation(site: Served) -> None:
    path = site.path("examples_ybr_color.dcm")
    answer = site.client.get(f"{path}/frames/1,2/rendered", headers=multipart("image/png"))
    assert [kind for kind, _ in parts(answer.content, answer.headers["content-type"])] == ["image/png", "image/png"]
    moving = picture_at(site, f"{path}/frames/1,5,9/rendered?viewport=80,60", "image/gif")
    assert (moving.n_frames, moving.size) == (3, (80, 60))
    stored = dcmread(io.BytesIO(site.stored("examples_ybr_color.dcm")))
    assert moving.info["duration"] == pytest.approx(float(stored.FrameTime), abs=10)
    assert picture_at(site, f"{path}/rendered?viewport=32,32", "image/gif").n_frames > 20  # equal ones are one


def test_a_rendered_series_has_a_picture_for_each_instance(site: Served) -> None:
    answer = site.client.get(f"{SLICES}/rendered", headers=multipart("image/jpeg"))
    assert len(parts(answer.content, answer.headers["content-type"])) == 5


def test_an_animation_too_large_for_memory_is_refused(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.rendered, "MAX_MOVING_PIXELS", 100_000)
    answer = site.client.get(site.path("examples_ybr_color.dcm") + "/rendered", headers=accepting("image/gif"))
    assert answer.status_code == 413


def test_a_thumbnail_is_the_one_that_the_lake_has(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with site.zone.open_lake() as lake:
        ((kept,),) = lake.rows("""SELECT image FROM silver.thumbnail
            JOIN silver.dicom_file_location USING (instance_key) WHERE storage_uri LIKE '%/large.dcm'""")
    assert kept
    path = site.path("large.dcm")
    read = counted_reads(monkeypatch)
    shown = picture_at(site, f"{path}/thumbnail", "image/webp")
    assert np.array_equal(np.asarray(shown.convert("L")), np.asarray(Image.open(io.BytesIO(kept)).convert("L")))
    assert not read
    assert picture_at(site, f"{path}/frames/2/thumbnail?viewport=16,16", "image/jpeg").size == (16, 16)
    assert picture_at(site, f"{ROOT}/studies/2.25.100/thumbnail", "*/*").format == "JPEG"


# --- what a client has already, and what is not there ----------------------------------------------------------------


def test_what_a_client_has_is_not_sent_again(site: Served) -> None:
    path = site.path("CT_small.dcm")
    for resource in ("", "/metadata", "/frames/1", "/rendered", "/thumbnail", "/bulkdata?offset=6900&length=50"):
        first = site.client.get(path + resource)
        again = site.client.get(path + resource, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert site.client.get(path + resource, headers={"if-none-match": '"other"'}).status_code == 200
    tags = {site.client.get(path + "/rendered" + query).headers["etag"] for query in ("", "?quality=5", "?window=1,9")}
    assert len(tags) == 3


def test_what_is_not_there_is_not_found(site: Served) -> None:
    study = f"{ROOT}/studies/1.2.3"
    for path in (study, f"{SLICES}/instances/1.2.3", f"{study}/metadata", f"{study}/series/1.2.3/rendered"):
        answer = site.client.get(path)
        assert answer.status_code == 404
        assert "1.2.3" not in answer.text


def test_an_object_that_went_costs_itself_and_not_the_others(site: Served) -> None:
    gone = site.landing / "slice1.dcm"
    content, status = gone.read_bytes(), gone.stat()
    gone.unlink()
    try:
        series = site.client.get(SLICES)
        assert series.status_code == 206
        assert len(parts(series.content, series.headers["content-type"])) == 4
        assert "1 of 5" in series.headers["warning"]
        alone = site.client.get(f"{SLICES}/instances/2.25.100.2")
        assert alone.status_code == 410
        assert "landing" not in alone.text
        assert len(site.client.get(f"{SLICES}/metadata").json()) == 5
    finally:
        gone.write_bytes(content)
    assert site.client.get(f"{SLICES}/instances/2.25.100.2/frames/1").status_code == 503
    os.utime(gone, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert site.client.get(f"{SLICES}/instances/2.25.100.2/frames/1").status_code == 200


# --- WADO-URI ----------------------------------------------------------------------------------------------------


def uri(site: Served, name: str, **more: str) -> str:
    ds = dcmread(io.BytesIO(site.stored(name)), stop_before_pixels=True)
    named = {"studyUID": ds.StudyInstanceUID, "seriesUID": ds.SeriesInstanceUID, "objectUID": ds.SOPInstanceUID}
    query = {"requestType": "WADO", **named, **more}
    return f"{ROOT}/wado?" + "&".join(f"{key}={value}" for key, value in query.items())


def test_wado_uri_gives_the_object_or_a_picture(site: Served) -> None:
    stored = site.client.get(uri(site, "CT_small.dcm", contentType="application/dicom"))
    assert stored.content == site.stored("CT_small.dcm")
    assert site.client.get(uri(site, "examples_ybr_color.dcm")).headers["content-type"].startswith("application/dicom")
    transcoded = uri(site, "CT_small.dcm", contentType="application/dicom", transferSyntax="1.2.840.10008.1.2.4.80")
    made = dcmread(io.BytesIO(site.client.get(transcoded).content))
    assert made.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.80"
    assert picture_at(site, uri(site, "CT_small.dcm")).format == "JPEG"
    window = {"windowCenter": "40", "windowWidth": "400"}
    shown = picture_at(site, uri(site, "CT_small.dcm", contentType="image/png", rows="32", **window))
    assert shown.size == (32, 32)
    region = picture_at(site, uri(site, "CT_small.dcm", contentType="image/png", region="0,0,0.5,1"))
    assert region.size == (64, 128)
    last = picture_at(site, uri(site, "examples_ybr_color.dcm", contentType="image/png", frameNumber="30"))
    wanted = render_color(decode_frame(site.stored("examples_ybr_color.dcm"), 29))
    assert np.array_equal(np.asarray(last), wanted)


@pytest.mark.parametrize(
    ("more", "status"),
    [({"requestType": "X"}, 400), ({"contentType": "text/html"}, 406), ({"frameNumber": "9"}, 404),
     ({"windowCenter": "5"}, 400), ({"region": "0,0,2,1"}, 400), ({"rows": "x"}, 400), ({"anonymize": "yes"}, 400),
     ({"contentType": "application/dicom", "transferSyntax": "1.2"}, 406), ({"objectUID": "1.2.3"}, 404)],
)  # fmt: skip
def test_wado_uri_refuses_what_makes_no_sense(site: Served, more: dict[str, str], status: int) -> None:
    assert site.client.get(uri(site, "CT_small.dcm", **more)).status_code == status


def test_nothing_of_an_object_is_in_the_log(site: Served, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    broken = site.landing / "slice4.dcm"
    status = broken.stat()
    content = broken.read_bytes()
    broken.write_bytes(content[:-600] + b"\xff" * 600)
    os.utime(broken, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        for resource in ("/rendered", "/frames/1", "/thumbnail", ""):
            site.client.get(f"{SLICES}/instances/2.25.100.5{resource}")
    finally:
        broken.write_bytes(content)
        os.utime(broken, ns=(status.st_atime_ns, status.st_mtime_ns))
    told = json.dumps([record.getMessage() for record in caplog.records if record.name != "httpx"])
    assert "2.25" not in told
    assert "slice4" not in told
    assert BATCH not in told
    assert not list(tmp_path.iterdir())


def test_a_long_answer_is_made_block_by_block(site: Served) -> None:
    found = [each for study in ("2.25.201", "2.25.100") for each in Index(site.zone).instances(study)]
    for blocks in (
        instances.multipart_blocks(found, site.zone.reader, None, "x"),
        instances.zip_blocks(found, site.zone.reader, None),
    ):
        sizes = [len(block) for block in blocks]
        assert sum(sizes) > 9_000_000
        assert max(sizes) < 1_200_000


# --- dicomweb-client, over a socket ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(site: Served) -> Iterator[DICOMwebClient]:
    server = uvicorn.Server(uvicorn.Config(site.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield DICOMwebClient(f"http://127.0.0.1:{port}/dicom-web")
    finally:
        server.should_exit = True
        thread.join()


def named(site: Served, name: str) -> tuple[str, str, str]:
    ds = dcmread(io.BytesIO(site.stored(name)), stop_before_pixels=True)
    return ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID


def test_a_series_its_metadata_and_an_instance(site: Served, client: DICOMwebClient) -> None:
    found = client.retrieve_series(*CT, media_types=(("application/dicom", "*"),))
    assert [ds.InstanceNumber for ds in found] == [1, 2, 3, 4, 5]
    assert [each["00200013"]["Value"] for each in client.retrieve_series_metadata(*CT)] == [[1], [2], [3], [4], [5]]
    ds = client.retrieve_instance(*named(site, "JPEG2000.dcm"))
    assert np.array_equal(ds.pixel_array, dcmread(io.BytesIO(site.stored("JPEG2000.dcm"))).pixel_array)


def test_frames_bulk_data_and_a_picture(site: Served, client: DICOMwebClient) -> None:
    frames = client.retrieve_instance_frames(*named(site, "large.dcm"), frame_numbers=[5, 399])
    assert [int(np.frombuffer(frame, "<u2").max()) for frame in frames] == [4, 398]
    (jpeg,) = client.retrieve_instance_frames(*named(site, "table.dcm"), [2], media_types=("image/jpeg",))
    assert Image.open(io.BytesIO(jpeg)).size == (320, 240)
    (document,) = [client.retrieve_instance_metadata(*named(site, "CT_small.dcm"))]
    (pixels,) = client.retrieve_bulkdata(document["7FE00010"]["BulkDataURI"])
    assert pixels == dcmread(io.BytesIO(site.stored("CT_small.dcm"))).PixelData
    picture = client.retrieve_instance_rendered(*named(site, "CT_small.dcm"), media_types=("image/png",))
    assert Image.open(io.BytesIO(picture)).size == (128, 128)


def test_many_clients_at_once_get_each_their_own_frame(site: Served, client: DICOMwebClient) -> None:
    names = named(site, "large.dcm")

    def value_of(number: int) -> int:
        (frame,) = client.retrieve_instance_frames(*names, frame_numbers=[number])
        return int(np.frombuffer(frame, "<u2").max())

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(value_of, range(1, 101))) == list(range(100))
