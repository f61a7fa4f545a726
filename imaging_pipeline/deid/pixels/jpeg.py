"""Blanking blocks of a lossy JPEG stream without decoding the image.

Owns the entropy coding of sequential Huffman JPEG (ITU-T T.81: baseline and extended, 8 and 12 bits, one scan). Blocks
under the boxes get one flat value; the coefficients of all other blocks stay what they are, bit for bit. Contains no
transform of samples. Streams of another kind are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from imaging_pipeline.deid.pixels.boxes import Box
from imaging_pipeline.errors import PoisonInput, Reason

_SEQUENTIAL: Final = (0xC0, 0xC1)
_OTHER_FRAMES: Final = (0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF)
_END_OF_BLOCK: Final = 0x00
_ZERO_RUN: Final = 0xF0
_FLAT_CATEGORIES: Final = 16

Codes = dict[int, tuple[int, int]]
"""Symbol to its code and the length of the code in bits."""


@dataclass(slots=True)
class _Component:
    """A colour component of the frame: sampling factors, first quantizer, and the tables of the scan."""

    identifier: int
    horizontal: int
    vertical: int
    quantizer: int
    dc: int = 0
    ac: int = 0


@dataclass(slots=True)
class _Header:
    """What stands before the entropy-coded data, and where that begins."""

    precision: int
    rows: int
    columns: int
    components: list[_Component]
    tables: dict[tuple[int, int], list[tuple[int, int]]]
    codes: dict[tuple[int, int], Codes]
    restart: int
    scan: int
    start: int

    @property
    def unit(self) -> tuple[int, int]:
        """Rows and columns of a minimum coded unit in pixels (T.81 A.2)."""
        if len(self.components) == 1:
            return 8, 8
        return 8 * max(c.vertical for c in self.components), 8 * max(c.horizontal for c in self.components)


def blank(stream: bytes, boxes: Iterable[Box], fill: list[int]) -> bytes:
    """The stream with one flat value in every coded unit that a box touches.

    Args:
        stream: one frame.
        boxes: what is blanked.
        fill: the value of each component.

    Raises:
        PoisonInput: PIXEL_REVIEW_REQUIRED for a stream of another kind, or one with bytes that belong to no block.
    """
    header = _header(stream)
    if len(fill) != len(header.components):
        raise _refuse("its components are not those of the header")
    unit_rows, unit_columns = header.unit
    down, across = -(-header.rows // unit_rows), -(-header.columns // unit_columns)
    touched = {
        row * across + column
        for box in (box.within(header.rows, header.columns) for box in boxes)
        if box.area
        for row in range(box.top // unit_rows, (box.bottom - 1) // unit_rows + 1)
        for column in range(box.left // unit_columns, (box.right - 1) // unit_columns + 1)
    }
    parts, rest = _intervals(stream, header)
    size = header.restart or down * across
    if len(parts) != -(-down * across // size):
        raise _refuse("its restart intervals are not as many as its size asks for")
    units = [range(first, min(first + size, down * across)) for first in range(0, down * across, size)]
    blocks = [
        list(_blocks(part, header, [unit in touched for unit in interval], fill))
        for part, interval in zip(parts, units, strict=True)
    ]
    codes, extra = _dc_codes(header, blocks)
    made = bytearray(stream[: header.scan] + extra + stream[header.scan : header.start])
    for number, interval_blocks in enumerate(blocks):
        if number:
            made += bytes((0xFF, 0xD0 + (number - 1) % 8))
        made += _written(interval_blocks, codes)
    return bytes(made + rest)


def is_transformed_jpeg_2000(stream: bytes) -> bool:
    """Whether a JPEG 2000 code stream uses the multiple component transform (T.800 A.6.1, SGcod)."""
    start = stream.find(b"\xff\x52")
    return start > 0 and stream[start + 8] == 1


def _header(stream: bytes) -> _Header:
    position, restart, frame = 2, 0, b""
    quantizers: dict[int, int] = {}
    tables: dict[tuple[int, int], list[tuple[int, int]]] = {}
    codes: dict[tuple[int, int], Codes] = {}
    while stream[position] == 0xFF:
        marker, length = stream[position + 1], int.from_bytes(stream[position + 2 : position + 4], "big")
        if marker == 0xFF:
            position += 1
            continue
        body = stream[position + 4 : position + 2 + length]
        if marker in _OTHER_FRAMES and marker != 0xC4:
            raise _refuse("it is not sequential")
        if marker in _SEQUENTIAL:
            frame = body
        elif marker == 0xDB:
            quantizers |= _quantizers(body)
        elif marker == 0xC4:
            for key, found in _huffman(body):
                tables[key], codes[key] = _lookup(found), found
        elif marker == 0xDD:
            restart = int.from_bytes(body[:2], "big")
        elif marker == 0xDA:
            components = _components(frame, body, quantizers)
            rows, columns = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
            start = position + 2 + length
            return _Header(frame[0], rows, columns, components, tables, codes, restart, position, start)
        position += 2 + length
    raise _refuse("its segments cannot be followed")


def _quantizers(body: bytes) -> dict[int, int]:
    """Quantizer of the DC coefficient, by table."""
    found, position = {}, 0
    while position < len(body):
        wide, name = body[position] >> 4, body[position] & 15
        found[name] = int.from_bytes(body[position + 1 : position + 2 + wide], "big")
        position += 1 + 64 * (1 + wide)
    return found


def _huffman(body: bytes) -> Iterator[tuple[tuple[int, int], Codes]]:
    """Tables of a DHT segment by class (0: DC) and name (T.81 B.2.4.2, C.2)."""
    position = 0
    while position < len(body):
        key, counts = (body[position] >> 4, body[position] & 15), body[position + 1 : position + 17]
        symbols = iter(body[position + 17 : position + 17 + sum(counts)])
        codes: Codes = {}
        code = 0
        for length, count in enumerate(counts, 1):
            for _ in range(count):
                codes[next(symbols)] = (code, length)
                code += 1
            code <<= 1
        yield key, codes
        position += 17 + sum(counts)


def _lookup(codes: Codes) -> list[tuple[int, int]]:
    """Length and symbol for every 16 bits; length 0 where no code begins so."""
    table = [(0, 0)] * 65536
    for symbol, (code, length) in codes.items():
        first, many = code << (16 - length), 1 << (16 - length)
        table[first : first + many] = [(length, symbol)] * many
    return table


def _components(frame: bytes, scan: bytes, quantizers: dict[int, int]) -> list[_Component]:
    number = frame[5] if len(frame) > 5 else 0
    parts = [frame[6 + 3 * i : 9 + 3 * i] for i in range(number)]
    found = [_Component(part[0], part[1] >> 4, part[1] & 15, quantizers[part[2]]) for part in parts]
    if not number or scan[0] != number:
        raise _refuse("it has more than one scan")
    for position, component in enumerate(found):
        name, tables = scan[1 + 2 * position], scan[2 + 2 * position]
        if name != component.identifier:
            raise _refuse("its scan has another order of components")
        component.dc, component.ac = tables >> 4, tables & 15
    if number == 1:
        found[0].horizontal = found[0].vertical = 1  # a unit of a single component is one block (T.81 A.2.2)
    return found


def _intervals(stream: bytes, header: _Header) -> tuple[list[bytes], bytes]:
    """Entropy-coded bytes between restart markers, without stuffing, and the bytes from the next marker on."""
    parts, position, begin = [], header.start, header.start
    while True:
        position = stream.find(b"\xff", position)
        if position < 0 or position + 1 >= len(stream):
            raise _refuse("it has no end")
        marker = stream[position + 1]
        if 0xD0 <= marker <= 0xD7 or marker not in (0x00, 0xFF):
            parts.append(stream[begin:position].replace(b"\xff\x00", b"\xff"))
            if not 0xD0 <= marker <= 0xD7:
                if marker != 0xD9:
                    raise _refuse("it has more than one scan")
                return parts, stream[position:]
            begin = position + 2
        position += 1 if marker == 0xFF else 2


_Block = tuple[tuple[int, int], int, int, int]
"""DC table, DC difference, AC bits as a number, and how many bits these are."""


def _blocks(part: bytes, header: _Header, touched: list[bool], fill: list[int]) -> Iterator[_Block]:
    """Every block of a restart interval as it is written: differences follow the new DC values."""
    reader = _Reader(part)
    old, new = [0] * len(header.components), [0] * len(header.components)
    middle = 1 << (header.precision - 1)
    flat = [round((value - middle) * 8 / c.quantizer) for value, c in zip(fill, header.components, strict=True)]
    for is_touched in touched:
        for number, component in enumerate(header.components):
            dc, ac = header.tables[0, component.dc], header.tables[1, component.ac]
            for _ in range(component.horizontal * component.vertical):
                old[number] += reader.difference(dc)
                bits, length = reader.coefficients(ac)
                target = old[number]
                if is_touched:
                    end = header.codes[1, component.ac].get(_END_OF_BLOCK)
                    if end is None:
                        raise _refuse("its tables have no end of block")
                    (bits, length), target = end, flat[number]
                yield (0, component.dc), target - new[number], bits, length
                new[number] = target
    if reader.has_more():
        raise _refuse("it holds bytes that belong to no block")


def _dc_codes(header: _Header, blocks: list[list[_Block]]) -> tuple[dict[tuple[int, int], Codes], bytes]:
    """The codes of DC categories, and a segment that defines flat ones where a table lacks a category."""
    needed: dict[tuple[int, int], set[int]] = {}
    for interval in blocks:
        for table, difference, _, _ in interval:
            needed.setdefault(table, set()).add(abs(difference).bit_length())
    codes, extra = {}, b""
    for table, categories in sorted(needed.items()):
        codes[table] = header.codes[table]
        if not categories <= codes[table].keys():
            codes[table] = {category: (category, 5) for category in range(_FLAT_CATEGORIES)}
            counts = bytes((0, 0, 0, 0, _FLAT_CATEGORIES, *[0] * 11))
            body = bytes((table[1],)) + counts + bytes(range(_FLAT_CATEGORIES))
            extra += b"\xff\xc4" + (len(body) + 2).to_bytes(2, "big") + body
    return codes, extra


def _written(blocks: list[_Block], codes: dict[tuple[int, int], Codes]) -> bytes:
    """The entropy-coded bytes of one interval, filled up with ones and stuffed (T.81 F.1.2.3)."""
    made, bits, length = bytearray(), 0, 0
    for table, difference, ac_bits, ac_length in blocks:
        category = abs(difference).bit_length()
        code, code_length = codes[table][category]
        value = difference if difference >= 0 else difference + (1 << category) - 1
        bits = (((bits << code_length | code) << category | value) << ac_length) | ac_bits
        length += code_length + category + ac_length
        whole = length // 8
        if whole:
            made += (bits >> (length - 8 * whole)).to_bytes(whole, "big")
            length -= 8 * whole
            bits &= (1 << length) - 1
    if length:
        made.append((bits << (8 - length)) | ((1 << (8 - length)) - 1))
    return bytes(made).replace(b"\xff", b"\xff\x00")


class _Reader:
    """Bits of one restart interval."""

    __slots__ = ("_bits", "_content", "_held", "_position", "_spare")

    def __init__(self, content: bytes) -> None:
        self._content = content + b"\xff" * 8
        self._position = 0
        self._bits = 0
        self._held = 0
        self._spare = 64

    def difference(self, table: list[tuple[int, int]]) -> int:
        """A DC difference (T.81 F.2.2.1)."""
        category = self._symbol(table)
        if not category:
            return 0
        value = self._take(category)
        return value if value >> (category - 1) else value - (1 << category) + 1

    def coefficients(self, table: list[tuple[int, int]]) -> tuple[int, int]:
        """The AC part of a block, as it is coded: bits and their number."""
        bits = length = index = 0
        while index < 63:
            self._fill()
            code_length, symbol = table[(self._bits >> (self._held - 16)) & 0xFFFF]
            if not code_length:
                raise _refuse("its codes are not in its tables")
            many = code_length + (symbol & 15)
            self._held -= many
            bits = bits << many | (self._bits >> self._held)
            self._bits &= (1 << self._held) - 1
            length += many
            if symbol == _END_OF_BLOCK:
                break
            if not symbol & 15 and symbol != _ZERO_RUN:
                raise _refuse("it is not sequential")
            index += (symbol >> 4) + 1
        if index > 63:
            raise _refuse("a block has too many coefficients")
        return bits, length

    def has_more(self) -> bool:
        """Whether a whole byte of the interval was not read."""
        return 8 * (len(self._content) - 8 - self._position) + self._held >= 8

    def _symbol(self, table: list[tuple[int, int]]) -> int:
        self._fill()
        length, symbol = table[(self._bits >> (self._held - 16)) & 0xFFFF]
        if not length or symbol > 16:
            raise _refuse("its codes are not in its tables")
        self._held -= length
        self._bits &= (1 << self._held) - 1
        return symbol

    def _take(self, many: int) -> int:
        self._fill()
        self._held -= many
        value = self._bits >> self._held
        self._bits &= (1 << self._held) - 1
        return value

    def _fill(self) -> None:
        if self._held < 32:
            more = self._content[self._position : self._position + 8]
            if not more:
                raise _refuse("it ends before its last block")
            self._bits = self._bits << (8 * len(more)) | int.from_bytes(more, "big")
            self._held += 8 * len(more)
            self._position += len(more)


def _refuse(why: str) -> PoisonInput:
    return PoisonInput(Reason.PIXEL_REVIEW_REQUIRED, f"text was found in a JPEG stream that cannot be changed: {why}")
