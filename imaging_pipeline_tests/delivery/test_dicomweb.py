"""Sending by STOW-RS: what is in the request, and what each answer means for each object."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from imaging_pipeline.delivery.dicomweb import StowSender
from imaging_pipeline.delivery.log import State
from imaging_pipeline.delivery.sending import Outgoing, PeerFailedError
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.pacs.config import Peer, PeerKind
from imaging_pipeline.web.stow.multipart import MultipartReader, parameters
from imaging_pipeline_tests.deid.corpus import ROOT, chest_film, encode
from imaging_pipeline_tests.delivery.peers import item_of

Answering = Callable[[httpx.Request, list[bytes]], httpx.Response]


class _Part:
    def __init__(self, contents: list[bytes]) -> None:
        self.contents, self.content = contents, bytearray()

    def write(self, block: memoryview) -> None:
        self.content += block

    def end(self) -> None:
        self.contents.append(bytes(self.content))


def sender(answering: Answering, **more: str) -> StowSender:
    """A sender to a service of the test's own, which gets the parts of each request."""

    def handle(request: httpx.Request) -> httpx.Response:
        contents: list[bytes] = []
        if request.method == "POST":
            body = request.read()
            assert len(body) == int(request.headers["Content-Length"])
            _, values = parameters(request.headers["Content-Type"])
            reader = MultipartReader(values["boundary"], lambda _: _Part(contents))
            reader.feed(body)
            reader.finish()
        return answering(request, contents)

    peer = Peer("cloud", PeerKind.DICOMWEB, url="http://cloud.test/dicom-web", **more)
    return StowSender(peer, httpx.MockTransport(handle))


def films(folder: Path, count: int) -> list[Outgoing]:
    """Some films on their way."""
    found = []
    for number in range(count):
        path = folder / f"{number}.dcm"
        path.write_bytes(encode(chest_film(SOPInstanceUID=f"{ROOT}.9.{number}")))
        item = item_of(path)
        found.append(Outgoing(item.key("cloud"), item, path))
    return found


def said(refused: dict[str, int], stored: Sequence[str] = ()) -> httpx.Response:
    """A response with the fates of some objects."""

    def item(uid: str, reason: int | None = None) -> dict[str, object]:
        found: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
        return found if reason is None else found | {"00081197": {"vr": "US", "Value": [reason]}}

    content = {
        "00081198": {"vr": "SQ", "Value": [item(uid, reason) for uid, reason in refused.items()]},
        "00081199": {"vr": "SQ", "Value": [item(uid) for uid in stored]},
    }
    status = 200 if not refused else 202 if stored else 409
    return httpx.Response(status, content=json.dumps(content), headers={"Content-Type": "application/dicom+json"})


def test_one_request_carries_the_files_as_they_are(tmp_path: Path) -> None:
    group, seen = films(tmp_path, 3), []

    def keep(request: httpx.Request, contents: list[bytes]) -> httpx.Response:
        seen.append((str(request.url), contents))
        return httpx.Response(200)

    with sender(keep) as cloud:
        answers = dict(cloud.send(group))
    assert seen == [("http://cloud.test/dicom-web/studies", [one.path.read_bytes() for one in group])]
    assert {answer.state for answer in answers.values()} == {State.ACCEPTED}


def test_each_object_gets_the_answer_that_is_about_it(tmp_path: Path) -> None:
    group = films(tmp_path, 4)
    uids = [one.item.sop_uid for one in group]
    with sender(lambda *_: said({uids[1]: 0xA700, uids[2]: 0xA900}, [uids[0]])) as cloud:
        answers = [(answer.state, answer.code) for _, answer in cloud.send(group)]
    assert answers == [
        (State.ACCEPTED, "0000"),
        (State.WAITING, "A700"),
        (State.REFUSED, "A900"),
        (State.WAITING, "not_named"),
    ]


def test_an_answer_that_passes_an_object_over_does_not_mean_that_it_is_stored(tmp_path: Path) -> None:
    (one,) = films(tmp_path, 1)
    with sender(lambda *_: said({}, [])) as cloud:  # as Orthanc answers where it did not like a part's header
        assert [answer.state for _, answer in cloud.send([one])] == [State.WAITING]


def test_a_request_refused_as_a_whole_is_divided_until_the_guilty_object_is_alone(tmp_path: Path) -> None:
    group = films(tmp_path, 5)
    guilty = group[3].path.read_bytes()
    with sender(lambda _, contents: httpx.Response(413 if guilty in contents else 200)) as cloud:
        answers = [(answer.state, answer.code) for _, answer in cloud.send(group)]
    assert answers[3] == (State.REFUSED, "http_413")
    assert answers[:3] + answers[4:] == [(State.ACCEPTED, "0000")] * 4


def test_what_the_peer_cannot_unpack_is_sent_again_uncompressed(tmp_path: Path) -> None:
    (one,) = films(tmp_path, 1)
    ds = pydicom.dcmread(one.path)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(one.path)
    packed = Outgoing(one.key, item_of(one.path), one.path)
    syntaxes: list[str] = []

    def answer(_: httpx.Request, contents: list[bytes]) -> httpx.Response:
        syntaxes.append(pydicom.dcmread(pydicom.filebase.DicomBytesIO(contents[0])).file_meta.TransferSyntaxUID)
        return said({packed.item.sop_uid: 0xC122}) if syntaxes[-1] == RLELossless else httpx.Response(200)

    with sender(answer) as cloud:
        ((_, fate),) = cloud.send([packed])
    assert (fate.state, syntaxes) == (State.ACCEPTED, [RLELossless, ExplicitVRLittleEndian])


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_peer_that_does_not_let_us_is_no_fault_of_the_objects(tmp_path: Path, status: int) -> None:
    with sender(lambda *_: httpx.Response(status)) as cloud, pytest.raises(PeerFailedError, match=str(status)):
        list(cloud.send(films(tmp_path, 2)))


def test_objects_are_in_flight_when_the_connection_breaks_and_not_when_there_is_none(tmp_path: Path) -> None:
    group = films(tmp_path, 2)
    for error, in_flight in (
        (httpx.ReadError("broken"), {one.key for one in group}),
        (httpx.ConnectError("none"), set()),
    ):

        def fail(*_: object, error: httpx.HTTPError = error) -> httpx.Response:
            raise error

        with sender(fail) as cloud, pytest.raises(PeerFailedError) as caught:
            list(cloud.send(group))
        assert caught.value.in_flight == in_flight


def test_a_token_goes_with_each_request_and_a_missing_one_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def keep(request: httpx.Request, _: list[bytes]) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(200)

    monkeypatch.setenv("CLOUD_TOKEN", "a-secret")
    with sender(keep, token_variable="CLOUD_TOKEN") as cloud:
        list(cloud.send(films(tmp_path, 1)))
    assert seen == ["Bearer a-secret"]
    monkeypatch.delenv("CLOUD_TOKEN")
    with pytest.raises(ConfigurationError, match="CLOUD_TOKEN"):
        sender(keep, token_variable="CLOUD_TOKEN")
