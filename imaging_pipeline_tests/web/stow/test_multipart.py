"""Dividing multipart bodies: any cut into blocks gives the same parts, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.web.stow.multipart import MalformedBodyError, MultipartReader, parameters


class _Part:
    def __init__(self, kind: str, parts: list[tuple[str, bytes]]) -> None:
        self._kind, self._parts, self._content = kind, parts, bytearray()

    def write(self, block: memoryview) -> None:
        self._content += block

    def end(self) -> None:
        self._parts.append((self._kind, bytes(self._content)))


def parts_of(body: bytes, boundary: str = "B", size: int = 1 << 20) -> list[tuple[str, bytes]]:
    """Content-Type and content of each part, the body fed in blocks of a size."""
    parts: list[tuple[str, bytes]] = []
    reader = MultipartReader(boundary, lambda kind: _Part(kind, parts))
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    reader.finish()
    return parts


def body_of(*contents: bytes, boundary: bytes = b"B") -> bytes:
    """A body of parts of type application/dicom."""
    parts = (b"\r\n--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n" + each for each in contents)
    return b"".join(parts) + b"\r\n--" + boundary + b"--\r\n"


_NASTY = st.lists(st.sampled_from([b"\r", b"\n", b"--", b"B", b"\r\n--", b"\r\n", b"-", b"\0", b"x"]), max_size=30)


@given(st.lists(_NASTY.map(b"".join), max_size=4), st.integers(1, 40))
def test_any_cut_into_blocks_gives_the_parts_that_were_put_in(contents: list[bytes], size: int) -> None:
    contents = [content for content in contents if b"\r\n--B" not in b"\r\n" + content + b"\r"]
    expected = [("application/dicom", content) for content in contents]
    assert parts_of(body_of(*contents), size=size) == expected


def test_preamble_padding_and_epilogue_are_passed_over() -> None:
    body = (
        b"words before\r\n--B \t\r\nContent-Type:  a/b ; c=d\r\nX: y\r\n\r\none\r\n--B\r\n\r\ntwo\r\n--B--words behind"
    )
    assert parts_of(body) == [("a/b ; c=d", b"one"), ("", b"two")]
    assert parts_of(body[len("words before\r\n") :], size=1) == parts_of(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        b"--B\r\nContent-Type: a/b\r\n\r\ncut off",
        b"--Bxyz\r\n\r\n\r\n--B--",
        b"--B\r\n" + b"H: " + b"x" * 20_000 + b"\r\n\r\nbody\r\n--B--",
        b"--B" + b" " * 2_000 + b"\r\n\r\nbody\r\n--B--",
    ],
    ids=["empty", "none", "cut", "another", "long header", "long padding"],
)
def test_what_is_no_multipart_body_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        parts_of(body, size=64)


@pytest.mark.parametrize("boundary", ["", "x" * 71, "a\nb", "ü"])
def test_a_boundary_that_is_none_is_refused(boundary: str) -> None:
    with pytest.raises(MalformedBodyError):
        MultipartReader(boundary, lambda kind: _Part(kind, []))


def test_a_content_type_is_read_with_its_quotes() -> None:
    kind, values = parameters('Multipart/Related; TYPE="application/dicom"; boundary="a b;c"')
    assert (kind, values["type"], values["boundary"]) == ("multipart/related", "application/dicom", "a b;c")
