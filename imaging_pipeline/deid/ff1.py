"""Format-preserving encryption FF1 (NIST SP 800-38G, section 5 and Algorithms 7 and 8) on AES.

Owns the cipher alone. Contains no choice of what is encrypted and no keys. FF3 is not here: the draft of the second
edition (SP 800-38G Rev. 1, 2025) withdraws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

MIN_DOMAIN: Final = 1_000_000
"""Fewest texts a domain must have: with less, all can be tried (SP 800-38G Rev. 1, section 5, radix^minlen)."""

MAX_RADIX: Final = 1 << 16
MAX_LENGTH: Final = 1 << 12
"""Longest text in numerals; the standard allows 2^32, which no identifier needs."""

_ROUNDS: Final = 10
_BLOCK: Final = 16


class FF1:
    """The cipher with one key and one radix; its representation does not show the key."""

    __slots__ = ("_key", "_radix")

    def __init__(self, key: bytes, radix: int) -> None:
        """Prepare the cipher.

        Args:
            key: 16, 24 or 32 bytes (AES-128, AES-192, AES-256).
            radix: number of characters of the alphabet, 2 to 65,536.

        Raises:
            ValueError: key or radix is none of these.
        """
        if not 2 <= radix <= MAX_RADIX:
            raise ValueError(f"the radix is {radix}; allowed: 2 to {MAX_RADIX}")
        if len(key) not in (16, 24, 32):
            raise ValueError(f"the key has {len(key)} bytes; allowed: 16, 24, 32")
        self._key = key
        self._radix = radix

    def __repr__(self) -> str:
        return f"FF1(radix={self._radix})"

    def encrypt(self, numerals: Sequence[int], tweak: bytes = b"") -> list[int]:
        """Algorithm 7: as many numerals as were given, of the same radix.

        Raises:
            ValueError: a numeral is not below the radix, or there are too few or too many of them.
        """
        half, first, second = self._halves(numerals)
        for number in range(_ROUNDS):
            length = half if number % 2 == 0 else len(numerals) - half
            mask = self._round(number, second, len(numerals), tweak)
            first, second = second, (first + mask) % self._radix**length
        return self._joined(first, second, half, len(numerals))

    def decrypt(self, numerals: Sequence[int], tweak: bytes = b"") -> list[int]:
        """Algorithm 8: what `encrypt` was given.

        Raises:
            ValueError: as `encrypt`.
        """
        half, first, second = self._halves(numerals)
        for number in reversed(range(_ROUNDS)):
            length = half if number % 2 == 0 else len(numerals) - half
            mask = self._round(number, first, len(numerals), tweak)
            first, second = (second - mask) % self._radix**length, first
        return self._joined(first, second, half, len(numerals))

    def _halves(self, numerals: Sequence[int]) -> tuple[int, int, int]:
        """Length of the first half, and both halves as numbers."""
        if self._radix ** len(numerals) < MIN_DOMAIN or len(numerals) > MAX_LENGTH:
            raise ValueError(
                f"{len(numerals)} numerals of radix {self._radix}; at least {MIN_DOMAIN:,} texts and at most "
                f"{MAX_LENGTH} numerals are needed"
            )
        if not all(0 <= numeral < self._radix for numeral in numerals):
            raise ValueError(f"a numeral is not below the radix {self._radix}")
        half = len(numerals) // 2
        return half, self._number(numerals[:half]), self._number(numerals[half:])

    def _number(self, numerals: Sequence[int]) -> int:
        number = 0
        for numeral in numerals:
            number = number * self._radix + numeral
        return number

    def _joined(self, first: int, second: int, half: int, length: int) -> list[int]:
        return self._numerals(first, half) + self._numerals(second, length - half)

    def _numerals(self, number: int, length: int) -> list[int]:
        found = []
        for _ in range(length):
            number, numeral = divmod(number, self._radix)
            found.append(numeral)
        return found[::-1]

    def _round(self, number: int, operand: int, length: int, tweak: bytes) -> int:
        """Steps 5 and 6.i to 6.iv: the number that a round adds."""
        half = length // 2
        # Bits of the largest number that a half can be, exactly: logarithms would round (step 3).
        width = ((self._radix ** (length - half) - 1).bit_length() + 7) // 8
        size = 4 * ((width + 3) // 4) + 4
        fixed = b"\1\2\1" + self._radix.to_bytes(3, "big") + bytes((10, half % 256))
        fixed += length.to_bytes(4, "big") + len(tweak).to_bytes(4, "big")
        padding = bytes((-len(tweak) - width - 1) % _BLOCK)
        message = fixed + tweak + padding + bytes((number,)) + operand.to_bytes(width, "big")
        block = self._chained(message)[-_BLOCK:]
        stream = block
        for counter in range(1, -(-size // _BLOCK)):
            stream += self._chained(bytes(a ^ b for a, b in zip(block, counter.to_bytes(_BLOCK, "big"), strict=True)))
        return int.from_bytes(stream[:size], "big")

    def _chained(self, message: bytes) -> bytes:
        """AES in CBC mode with a zero vector: its last block is the PRF of Algorithm 6, of one block it is AES."""
        encryptor = Cipher(AES(self._key), CBC(bytes(_BLOCK))).encryptor()
        return encryptor.update(message) + encryptor.finalize()
