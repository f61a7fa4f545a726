from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_pipeline.deid.ff1 import FF1, MIN_DOMAIN

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
KEY_128 = "2B7E151628AED2A6ABF7158809CF4F3C"
KEY_192 = KEY_128 + "EF4359D8D580AA4F"
KEY_256 = KEY_192 + "7F036D6F04FC6A94"
DIGITS, WORDS = "0123456789", "0123456789abcdefghi"
NO_TWEAK, SHORT, LONG = "", "39383736353433323130", "3737373770717273373737"

SAMPLES = [
    (KEY_128, 10, NO_TWEAK, DIGITS, "2433477484"),
    (KEY_128, 10, SHORT, DIGITS, "6124200773"),
    (KEY_128, 36, LONG, WORDS, "a9tv40mll9kdu509eum"),
    (KEY_192, 10, NO_TWEAK, DIGITS, "2830668132"),
    (KEY_192, 10, SHORT, DIGITS, "2496655549"),
    (KEY_192, 36, LONG, WORDS, "xbj3kv35jrawxv32ysr"),
    (KEY_256, 10, NO_TWEAK, DIGITS, "6657667009"),
    (KEY_256, 10, SHORT, DIGITS, "1001623463"),
    (KEY_256, 36, LONG, WORDS, "xs8a0azh2avyalyzuwd"),
]
"""The nine samples NIST publishes for FF1 (Cryptographic Standards: Examples with Intermediate Values)."""


def numerals(text: str) -> list[int]:
    return [ALPHABET.index(char) for char in text]


@pytest.mark.parametrize(("key", "radix", "tweak", "plain", "cipher"), SAMPLES)
def test_the_nine_samples_of_nist_come_out(key: str, radix: int, tweak: str, plain: str, cipher: str) -> None:
    ff1 = FF1(bytes.fromhex(key), radix)
    assert ff1.encrypt(numerals(plain), bytes.fromhex(tweak)) == numerals(cipher)
    assert ff1.decrypt(numerals(cipher), bytes.fromhex(tweak)) == numerals(plain)


@settings(max_examples=60)
@given(st.data(), st.integers(2, 1 << 16), st.binary(max_size=40))
def test_what_is_encrypted_can_be_decrypted_in_any_radix(data: st.DataObject, radix: int, tweak: bytes) -> None:
    shortest = next(length for length in range(1, 21) if radix**length >= MIN_DOMAIN)
    plain = data.draw(st.lists(st.integers(0, radix - 1), min_size=shortest, max_size=shortest + 40))
    ff1 = FF1(bytes(range(32)), radix)
    cipher = ff1.encrypt(plain, tweak)
    assert len(cipher) == len(plain)
    assert all(0 <= numeral < radix for numeral in cipher)
    assert ff1.decrypt(cipher, tweak) == plain


@pytest.mark.parametrize(("radix", "length"), [(10, 5), (36, 3), (2, 19), (10, 0), (10, 5000)])
def test_a_domain_that_can_be_tried_out_is_refused(radix: int, length: int) -> None:
    for step in (FF1(bytes(16), radix).encrypt, FF1(bytes(16), radix).decrypt):
        with pytest.raises(ValueError, match="numerals"):
            step([1] * length)


def test_numerals_beyond_the_radix_and_other_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="below the radix"):
        FF1(bytes(16), 10).encrypt([1, 2, 3, 4, 5, 10])
    for key, radix in ((b"short", 10), (bytes(16), 1), (bytes(16), 1 << 17)):
        with pytest.raises(ValueError, match="allowed"):
            FF1(key, radix)
    assert "radix=10" in repr(FF1(bytes(16), 10))
