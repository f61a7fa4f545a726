"""Looking for planted values in an output, whoever made it: bytes, decoded values, and what is packed inside them.

Independent of the engine's own screen: other folding, other decodings, no knowledge of rules.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import gzip
import io
import logging
import re
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from html import unescape
from urllib.parse import unquote

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging_pipeline_tests.deid.planted.plants import Plant

ENCODINGS = (
    "utf-8", "latin-1", "utf-16-le", "utf-16-be", "utf-32-le", "shift_jis", "iso2022_jp", "euc_jp", "euc_kr", "gb18030",
    "cp1251", "iso8859_2", "iso8859_5", "koi8_r", "cp437",
)  # fmt: skip
SHORT = 5
"""Needles with fewer letters and digits are looked for as words of decoded values only: bytes hold them by chance.
Of digits alone they must be written as they were: the parts of ``4.1.21`` are words of many objects.
"""
_SPECIAL = str.maketrans({"ß": "ss", "ø": "o", "ł": "l", "æ": "ae", "đ": "d", "ı": "i"})  # noqa: RUF001
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


def compact(text: str) -> str:
    """Letters and digits of ``text`` alone, lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_SPECIAL))
    return "".join(char for char in plain if char.isalnum())


def words(text: str) -> set[str]:
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_SPECIAL))
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return set(re.findall(r"[^\W_]+", plain))


class Output:
    """A written object made ready for many questions."""

    def __init__(self, data: bytes) -> None:
        self.raw = [bytes(part).lower() for part in _parts(data)]
        self.ds = quietly(data)
        texts = [text for source in (_meta(self.ds), self.ds) for text in _texts(source)]
        self.words = {word for text in texts for word in words(text)}
        self.texts = "\n".join(texts).casefold()
        self.compact = "\n".join(compact(text) for text in texts)
        self.compact += "\n" + "\n".join(compact(text) for data in self.raw for text in _unpacked_texts(data))

    def has(self, needle: str) -> bool:
        """Whether ``needle`` is in it in any form."""
        folded = compact(needle)
        if len(folded) < SHORT and folded.isdecimal():
            return re.search(rf"(?<!\d){re.escape(needle.casefold())}(?!\d)", self.texts) is not None
        if len(folded) < SHORT:
            return words(needle) <= self.words and bool(folded)
        return folded in self.compact or any(
            form in part for form in _forms(needle) if len(form) >= SHORT for part in self.raw
        )

    def left(self, plants: Iterable[Plant]) -> list[Plant]:
        """Those of ``plants`` that are still there. Of plain ones with the same value those whose path still has it."""
        found = [plant for plant in plants if any(self.has(needle) for needle in plant.needles)]
        left = [plant for plant in found if not plant.is_plain or self._is_at(plant)]
        known = {compact(needle) for plant in left for needle in plant.needles}
        moved = [plant for plant in found if plant not in left and not known & set(map(compact, plant.needles))]
        return left + moved

    def _is_at(self, plant: Plant) -> bool:
        value = compact(str(value_at(self.ds, plant.place)))
        return any(compact(needle) in value for needle in plant.needles)


def quietly(data: bytes) -> FileDataset:
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(io.BytesIO(data), force=True)


def value_at(ds: Dataset, path: str) -> object:
    """The value at a path such as ``0040A730[0].0040A160``, or None."""
    for step in path.split("."):
        tag, _, index = step.partition("[")
        if int(tag, 16) not in ds:
            return None
        value = ds[int(tag, 16)].value
        if not index:
            return value
        position = int(index.rstrip("]"))
        if not value or len(value) <= position:
            return None
        ds = value[position]
    return None


def _meta(ds: FileDataset) -> Dataset:
    return getattr(ds, "file_meta", None) or Dataset()


def _texts(ds: Dataset) -> Iterator[str]:
    """Every value as text, at every depth; binary ones as Latin-1 except pixels."""
    for tag in sorted(ds.keys()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                element = ds[tag]
                value = element.value
                if element.VR == "SQ":
                    for item in value or ():
                        yield from _texts(item)
                elif isinstance(value, bytes):
                    if tag not in _PIXELS:
                        yield value.decode("latin-1")
                elif value is not None:
                    yield str(value)
            except Exception:  # noqa: BLE001  # what cannot be decoded is still searched as bytes
                raw = ds.get_item(tag)
                yield bytes(getattr(raw, "value", b"") or b"").decode("latin-1")


def _parts(data: bytes) -> Iterator[bytes]:
    """The file, inflated where it is deflated, and everything packed inside it."""
    yield data
    meta = _meta(quietly(data))
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        start = 144 + int(meta.get("FileMetaInformationGroupLength", 0))
        data = zlib.decompress(data[start:], -zlib.MAX_WBITS)
        yield data
    yield from _unpacked(data)


def _unpacked(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """Streams of zlib, gzip, zip, and runs of base64 and hexadecimal digits found anywhere in ``data``."""
    if depth > 2:
        return
    found = [_try(_inflated, data[match.start() :]) for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data)]
    found += [_try(_gunzipped, data[match.start() :]) for match in re.finditer(rb"\x1f\x8b\x08", data)]
    if b"PK\x03\x04" in data:
        found.append(_try(_members, data[data.index(b"PK\x03\x04") :]))
    for match in re.finditer(rb"[A-Za-z0-9+/_-]{12,}={0,2}", data):
        run = match.group().rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        found += [_try(_from_base64, run[offset:]) for offset in range(4)] + [_try(_from_base32, run)]
    for match in re.finditer(rb"(?:[0-9A-Fa-f]{2}[ :]?){6,}", data):
        found.append(_try(binascii.unhexlify, re.sub(rb"[ :]", b"", match.group())))
    for match in re.finditer(rb"(?:[0-9]{2,3} ){6,}[0-9]{2,3}", data):
        found.append(_try(_from_decimals, match.group()))
    for part in found:
        if part:
            yield part
            yield from _unpacked(part, depth + 1)


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, 1 << 20)


def _gunzipped(data: bytes) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read(1 << 20)


def _from_base64(run: bytes) -> bytes:
    return base64.b64decode(run[: len(run) - (len(run) % 4 == 1)] + b"=" * (-len(run) % 4))


def _from_base32(run: bytes) -> bytes:
    return base64.b32decode(run + b"=" * (-len(run) % 8))


def _from_decimals(run: bytes) -> bytes:
    return bytes(int(number) for number in run.split())


def _members(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return b"\n".join(name.encode() + archive.read(name) for name in archive.namelist())


def _try(unpack: Callable[[bytes], bytes], data: bytes) -> bytes:
    try:
        return unpack(data)
    except Exception:  # noqa: BLE001  # not packed that way
        return b""


def _unpacked_texts(data: bytes) -> Iterator[str]:
    """Forms of the printable runs of ``data`` that people and programs write: entities, percent signs, backwards."""
    for match in re.finditer(rb"[\x20-\x7e\x80-\xff]{6,}", data):
        text = match.group().decode("latin-1")
        yield text[::-1]
        yield codecs.encode(text, "rot13")
        if "&" in text:
            yield unescape(text)
        if "%" in text:
            yield unquote(text)


def _forms(needle: str) -> set[bytes]:
    forms = set()
    for text in {needle, needle.lower(), needle.upper(), unicodedata.normalize("NFD", needle)}:
        for encoding in ENCODINGS:
            try:
                forms.add(text.encode(encoding).lower())
            except UnicodeError:
                continue
    return forms
