"""What each WADO-RS resource answers (PS3.18 10.4): from a request to a response, in the thread that calls.

Must not contain paths of routes, rights of users, or the making of pictures and objects.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from imaging_pipeline.dicom.frame import Frame
from imaging_pipeline.dicom.transcoding import WRITABLE
from imaging_pipeline.objects.ranges import BLOCK_BYTES, Ranges
from imaging_pipeline.objects.reading import MAX_OBJECT_BYTES
from imaging_pipeline.web.errors import WebError
from imaging_pipeline.web.index import Index, Instance
from imaging_pipeline.web.wado import instances as objects
from imaging_pipeline.web.wado import multipart, rendered
from imaging_pipeline.web.wado.answers import byte_answer, caching, not_modified, streamed
from imaging_pipeline.web.wado.frames import FrameReader, frame_count, frame_indices
from imaging_pipeline.web.wado.media import (
    DICOM,
    EXPLICIT_LITTLE,
    JSON,
    NATIVE,
    OCTETS,
    XML,
    ZIP,
    Choice,
    MediaRange,
    accepted,
    choose,
    choose_frames,
    choose_metadata,
    choose_object,
)
from imaging_pipeline.web.wado.metadata import metadata_blocks, root_of, xml_parts
from imaging_pipeline.web.wado.places import FramePlaces
from imaging_pipeline.web.wado.rendered import GIF, PICTURES, Rendering, read_rendering
from imaging_pipeline.web.zone import Zone

AT_ONCE_BYTES: Final = 4 << 20
"""Frames that take no more are sent in one piece, longer answers as they are read."""

MAX_PICTURES: Final = 1_000
"""Most objects of one rendered study or series."""

_THUMBNAIL_SCHEMAS: Final = {"silver": "silver", "deid": "gold"}
_FRAME_TIME: Final = "00181063"
_FRAME_TIMES: Final = (_FRAME_TIME, "00082144", "00180040")
_META_GROUP_LENGTH_END: Final = 144

Picture = tuple[Instance, int]
"""An instance and the index of one of its frames."""


@dataclass(frozen=True, slots=True)
class Wado:
    """The objects of a zone, as its index finds them.

    Attributes:
        zone: what is served.
        index: finds objects.
        places: where frames lie in them.
    """

    zone: Zone
    index: Index
    places: FramePlaces

    def retrieve(self, request: Request) -> Response:
        """Study, series or instance: the objects (PS3.18 10.4.1.1.1)."""
        found = self._instances(request)
        is_one = "instance" in request.path_params
        choice = choose_object(accepted(request), is_one=is_one, writable=WRITABLE)
        headers = _caching(found, choice)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        if choice.media_type == ZIP or choice.is_multipart:
            return self._several(found, choice, headers)
        return self.single(request, found[0], choice.syntax, headers)

    def single(self, request: Request, instance: Instance, syntax: str | None, headers: Mapping[str, str]) -> Response:
        """One object as a single part."""
        if syntax in (None, instance.transfer_syntax_uid):
            kind = multipart.part_type(DICOM, instance.transfer_syntax_uid)
            ranges = self.zone.reader.open_ranges(instance.target)
            return byte_answer(request, ranges, kind, headers, 0, ranges.size)
        data = objects.object_bytes(instance, self.zone.reader, syntax or "")
        return Response(data, headers=headers, media_type=multipart.part_type(DICOM, syntax))

    def _several(self, found: Sequence[Instance], choice: Choice, headers: Mapping[str, str]) -> Response:
        reader = self.zone.reader
        there = objects.readable(found, reader)
        if choice.media_type == ZIP:
            headers = {**headers, "content-disposition": 'attachment; filename="objects.zip"'}
            blocks, kind = objects.zip_blocks(there, reader, choice.syntax), ZIP
        else:
            boundary = multipart.boundary_of(headers["etag"])
            blocks = objects.multipart_blocks(there, reader, choice.syntax, boundary)
            kind = multipart.content_type(choice.media_type, boundary)
        answer = streamed(_gathered(blocks), kind, headers, ExitStack())
        if len(there) < len(found):
            answer.status_code = HTTPStatus.PARTIAL_CONTENT
            missing = len(found) - len(there)
            answer.headers["warning"] = f'299 - "{missing} of {len(found)} objects cannot be read now"'
        return answer

    def metadata(self, request: Request) -> Response:
        """Study, series or instance: headers (PS3.18 10.4.1.1.2)."""
        choice = choose_metadata(accepted(request))
        found = self._instances(request)
        root = root_of(request)
        headers = caching("metadata", choice.media_type, root, *_versions(found))
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        headers_of = self.index.headers(found)
        if choice.media_type == JSON:
            return _sent(metadata_blocks(headers_of, root), JSON, headers)
        boundary = multipart.boundary_of(headers["etag"])
        blocks = multipart.write(boundary, xml_parts(headers_of, root, boundary))
        return _sent(blocks, multipart.content_type(XML, boundary), headers)

    def bulk_data(self, request: Request) -> Response:
        """A long value of an object (PS3.18 10.4.1.1.5), or all its frames where its address names no length."""
        instance = self._instance(request)
        offset, length = (_number(request, name) for name in ("offset", "length"))
        if offset is None:
            raise WebError(400, "expected the address of a value as the metadata give it")
        if length is None:
            return self._frames(request, instance, range(frame_count(instance)))
        choice = choose(accepted(request), (OCTETS,), parts=1)
        headers = caching("bulk", str(offset), str(length), str(choice), *_versions([instance]))
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        boundary = multipart.boundary_of(headers["etag"])
        whole = multipart.content_type(OCTETS, boundary) if choice.is_multipart else OCTETS
        held = ExitStack()
        with held:
            ranges = held.enter_context(self.zone.reader.open_ranges(instance.target))
            if request.query_params.get("inflated") == "true":
                blocks: Iterator[bytes] = iter([_inflated(ranges, offset, length)])
            elif choice.is_multipart:
                blocks = ranges.blocks(offset, length)
            else:
                held.pop_all()
                return byte_answer(request, ranges, OCTETS, headers, offset, max(min(length, ranges.size - offset), 0))
            if choice.is_multipart:
                blocks = multipart.write(boundary, [(multipart.head(boundary, OCTETS), blocks)])
            return streamed(blocks, whole, headers, held.pop_all())

    def frames(self, request: Request) -> Response:
        """Frames of an instance (PS3.18 10.4.1.1.6)."""
        instance = self._instance(request)
        return self._frames(request, instance, frame_indices(request.path_params["frames"], instance))

    def _frames(self, request: Request, instance: Instance, indices: Sequence[int]) -> Response:
        stored = instance.transfer_syntax_uid
        choice = choose_frames(accepted(request), stored=stored, is_one=len(indices) == 1, writable=WRITABLE)
        headers = caching("frames", str(choice), request.url.path, *_versions([instance]))
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        given = choice.syntax or (EXPLICIT_LITTLE if stored in NATIVE else stored)
        kind = multipart.part_type(choice.media_type, given)
        held = ExitStack()
        with held:
            ranges = held.enter_context(self.zone.reader.open_ranges(instance.target))
            reader = FrameReader(instance, ranges, self.places)
            frames = (
                reader.stored(index) if choice.syntax is None else reader.in_syntax(index, choice.syntax)
                for index in indices
            )
            if not choice.is_multipart:
                return Response(next(frames), headers=headers, media_type=kind)
            boundary = multipart.boundary_of(headers["etag"])
            blocks = multipart.write(boundary, ((multipart.head(boundary, kind), [frame]) for frame in frames))
            whole = multipart.content_type(choice.media_type, boundary, given)
            first = next(blocks)
            if len(first) * len(indices) <= AT_ONCE_BYTES:
                return Response(b"".join((first, *blocks)), headers=headers, media_type=whole)
            return streamed(_after(first, blocks), whole, headers, held.pop_all())

    def rendered(self, request: Request) -> Response:
        """Study, series, instance or frames as pictures (PS3.18 10.4.1.1.3)."""
        wanted = accepted(request)
        pictures, is_moving = self._pictures(request, wanted)
        choice = choose(wanted, (GIF,) if is_moving else PICTURES, parts=1 if is_moving else len(pictures))
        rendering = read_rendering(request.query_params, choice.media_type)
        headers = caching("rendered", str(choice), str(rendering), str(pictures), *_versions(_objects(pictures)))
        if "annotation" in request.query_params:
            headers["warning"] = '299 - "annotations are not drawn"'
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        if is_moving:
            data = self._moving(pictures, rendering)
            drawn: Iterable[bytes] = [data]
        else:
            drawn = (rendered.picture(self._frame(*each), rendering) for each in pictures)
        if not choice.is_multipart:
            return Response(next(iter(drawn)), headers=headers, media_type=choice.media_type)
        boundary = multipart.boundary_of(headers["etag"])
        parts = ((multipart.head(boundary, choice.media_type), [picture]) for picture in drawn)
        kind = multipart.content_type(choice.media_type, boundary)
        return streamed(multipart.write(boundary, parts), kind, headers, ExitStack())

    def thumbnail(self, request: Request) -> Response:
        """Study, series, instance or frame as one small picture (PS3.18 10.4.1.1.4)."""
        choice = choose(accepted(request), PICTURES, parts=1)
        found = _images(self._instances(request))
        if not found:
            raise WebError(404, "there is nothing to see: no object has pixel data")
        instance = found[len(found) // 2]
        text = request.query_params.get("viewport")
        viewport = rendered.read_viewport(text) if text else None
        index = frame_count(instance) // 2
        if "frames" in request.path_params:
            index = frame_indices(request.path_params["frames"], instance)[0]
        headers = caching("thumbnail", choice.media_type, str(viewport), str(index), *_versions([instance]))
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        kept = self._kept_thumbnail(instance, index)
        if kept is not None:
            picture = rendered.resaved(kept, choice.media_type, viewport)
        else:
            picture = rendered.thumbnail(self._frame(instance, index), choice.media_type, viewport)
        return Response(picture, headers=headers, media_type=choice.media_type)

    def find(self, study: str, series: str, sop: str) -> Instance:
        """One instance.

        Raises:
            WebError: 404.
        """
        found = self.index.instance(study, series, sop)
        if found is None:
            raise WebError(404, "there is no such object here")
        return found

    def picture(self, instance: Instance, index: int, rendering: Rendering) -> bytes:
        """One frame as a picture.

        Raises:
            PoisonInput: it cannot be read or decoded.
        """
        return rendered.picture(self._frame(instance, index), rendering)

    def _frame(self, instance: Instance, index: int) -> Frame:
        with self.zone.reader.open_ranges(instance.target) as ranges:
            return FrameReader(instance, ranges, self.places).shown(index)

    def _moving(self, pictures: Sequence[Picture], rendering: Rendering) -> bytes:
        instance = pictures[0][0]
        with self.zone.reader.open_ranges(instance.target) as ranges:
            reader = FrameReader(instance, ranges, self.places)
            shown = (reader.shown(index) for _instance, index in pictures)
            return rendered.moving_picture(shown, rendering, self._frame_ms(instance))

    def _frame_ms(self, instance: Instance) -> float:
        """How long a frame is shown: Frame Time, or by Recommended Display Frame Rate or Cine Rate (PS3.3 C.7.6.5)."""
        header = json.loads(next(self.index.headers([instance]))[1])
        times = (header.get(tag, {}).get("Value", [None])[0] for tag in _FRAME_TIMES)
        for tag, value in zip(_FRAME_TIMES, times, strict=True):
            if isinstance(value, int | float) and value > 0:
                return value if tag == _FRAME_TIME else 1000 / value
        return rendered.DEFAULT_FRAME_MS

    def _pictures(self, request: Request, wanted: Sequence[MediaRange]) -> tuple[list[Picture], bool]:
        """What is to be shown, and whether as one moving picture."""
        found = _images(self._instances(request))
        if not found:
            raise WebError(404, "there is nothing to see: no object has pixel data")
        if "instance" not in request.path_params:
            if len(found) > MAX_PICTURES:
                raise WebError(413, f"more than {MAX_PICTURES} pictures: ask for single series or instances")
            return [(instance, 0) for instance in found], False
        instance = found[0]
        numbers = request.path_params.get("frames")
        indices = frame_indices(numbers, instance) if numbers else range(frame_count(instance))
        is_moving = len(indices) > 1 and bool(wanted) and wanted[0].media_type == GIF
        if not numbers and not is_moving:
            indices = range(1)
        return [(instance, index) for index in indices], is_moving

    def _kept_thumbnail(self, instance: Instance, index: int) -> bytes | None:
        """The thumbnail that the lake has of these bytes and this frame."""
        schema = _THUMBNAIL_SCHEMAS[self.zone.schema]
        sql = f"""SELECT image FROM {schema}.thumbnail
            WHERE instance_key = ? AND source_content_sha256 = ? AND frame_number = ?"""
        with self.zone.open_lake() as lake:
            rows = lake.rows(sql, [instance.instance_key, instance.sha256, index + 1])
        return bytes(rows[0][0]) if rows and isinstance(rows[0][0], bytes) else None

    def _instance(self, request: Request) -> Instance:
        parameters = request.path_params
        return self.find(parameters["study"], parameters["series"], parameters["instance"])

    def _instances(self, request: Request) -> list[Instance]:
        parameters = request.path_params
        if "instance" in parameters:
            return [self._instance(request)]
        found = self.index.instances(parameters["study"], parameters.get("series"))
        if not found:
            raise WebError(404, "there is no such study or series here")
        return found


def _images(found: Iterable[Instance]) -> list[Instance]:
    return [instance for instance in found if instance.number_of_frames]


def _objects(pictures: Iterable[Picture]) -> list[Instance]:
    return [instance for instance, _index in pictures]


def _versions(found: Iterable[Instance]) -> list[str]:
    return [text for instance in found for text in (instance.instance_key, instance.version)]


def _caching(found: Iterable[Instance], choice: Choice) -> dict[str, str]:
    return caching("objects", str(choice), *_versions(found))


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 15:
        raise WebError(400, "expected the address of a value as the metadata give it")
    return int(text)


def _after(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from blocks


def _gathered(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Small blocks put together: each one that is sent costs a change of thread."""
    waiting: list[bytes] = []
    size = 0
    for block in blocks:
        waiting.append(block)
        size += len(block)
        if size >= BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _sent(blocks: Iterable[bytes], media_type: str, headers: Mapping[str, str]) -> Response:
    """Blocks as one answer: at once when there are few, else as they are made."""
    gathered = _gathered(blocks)
    first = next(gathered)
    if len(first) < BLOCK_BYTES:
        return Response(first + b"".join(gathered), headers=dict(headers), media_type=media_type)
    return streamed(_after(first, gathered), media_type, headers, ExitStack())


def _inflated(ranges: Ranges, offset: int, length: int) -> bytes:
    """A part of a deflated data set (PS3.5 A.5), which begins behind the file meta information (PS3.10 7.1).

    Raises:
        WebError: 413 when it lies too far behind.
    """
    if offset + length > MAX_OBJECT_BYTES:
        raise WebError(413, "the value lies too far inside a deflated object")
    data = ranges.read_at(0, ranges.size)
    start = _META_GROUP_LENGTH_END + int.from_bytes(data[_META_GROUP_LENGTH_END - 4 : _META_GROUP_LENGTH_END], "little")
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], offset + length)[offset:]
    except zlib.error:
        raise WebError(500, "the object's deflated data set is damaged") from None
