from __future__ import annotations

import pickle
import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline_tests.deid.corpus import MASTER_KEY, keys

KEYS = keys()
OTHER = keys("another project")
ROTATED = ProjectKeys.derive(MASTER_KEY, "chest", 1)
FORMATTED = st.from_regex(r"[A-Za-z0-9 ._/-]{6,20}", fullmatch=True)
"""Identifiers as hospitals have them."""


def outputs(keys_: ProjectKeys, uid: str, patient: str) -> set[object]:
    """Everything the keys make of an identifier that could be compared."""
    return {
        keys_.uid(uid),
        keys_.patient_id("d", patient),
        keys_.accession_number("d", patient),
        keys_.date_shift("d", patient),
        keys_.token(patient),
        keys_.key_id,
    }


@given(st.text())
def test_a_research_uid_is_legal_and_always_the_same(original: str) -> None:
    uid = KEYS.uid(original)
    assert uid == keys().uid(original)
    if uid != original:
        assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid)
        assert len(uid) <= 64


@given(st.from_regex(r"[12](\.(0|[1-9]\d{0,8})){3,9}", fullmatch=True), st.text(min_size=1))
def test_two_projects_share_no_uid(original: str, patient: str) -> None:
    if KEYS.uid(original) != original:
        assert KEYS.uid(original) != OTHER.uid(original)
    assert KEYS.patient_id("d", patient) != OTHER.patient_id("d", patient)


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.6.1.1"])
def test_uids_of_the_standard_are_not_replaced(uid: str) -> None:
    assert KEYS.uid(uid) == uid


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.7731945", "1.2.840.10008.4410.2938.1961.412", "1.2.840.10008.5.1.4.1.1.77.31"]
)
def test_a_number_of_a_patient_below_the_standards_root_is_replaced(uid: str) -> None:
    assert KEYS.uid(uid).startswith("2.25.")


@given(st.text(), st.text())
def test_the_date_shift_goes_back_by_30_to_3650_days(domain: str, patient: str) -> None:
    assert timedelta(days=-3650) <= KEYS.date_shift(domain, patient) <= timedelta(days=-30)


def test_the_date_shift_has_seconds() -> None:
    assert any(KEYS.date_shift("d", str(number)).seconds % 60 for number in range(10))


def test_domain_and_patient_cannot_be_confused() -> None:
    assert KEYS.patient_id("ab", "c") != KEYS.patient_id("a", "bc")
    assert KEYS.patient_id("north", "1") != KEYS.patient_id("south", "1")


def test_pseudonyms_fit_their_vr() -> None:
    assert re.fullmatch(r"P[0-9A-HJKMNP-TV-Z]{16}", KEYS.patient_id("d", "1"))
    assert re.fullmatch(r"A[0-9A-HJKMNP-TV-Z]{15}", KEYS.accession_number("d", "1"))


@pytest.mark.parametrize("key", [b"", b"short", bytes(32), b"ab" * 40, bytes(range(31))])
def test_a_short_or_repeated_key_is_refused(key: bytes) -> None:
    with pytest.raises(ConfigurationError, match="master key"):
        ProjectKeys.derive(key, "p")


@pytest.mark.parametrize("project", ["", " ", " p"])
def test_a_project_needs_a_name(project: str) -> None:
    with pytest.raises(ConfigurationError, match="project"):
        ProjectKeys.derive(MASTER_KEY, project)


def test_no_representation_shows_a_key() -> None:
    assert repr(KEYS) == "ProjectKeys(project='chest')"
    assert not hasattr(KEYS, "__dict__")


def test_keys_travel_to_worker_processes() -> None:
    assert pickle.loads(pickle.dumps(KEYS)).uid("1.2.3") == KEYS.uid("1.2.3")


@given(st.text())
def test_what_is_sealed_opens_with_the_same_key(text: str) -> None:
    assert KEYS.unseal(KEYS.seal(text)) == text


def test_what_is_sealed_does_not_open_with_another_key_or_when_changed() -> None:
    token = KEYS.seal("secret")
    assert token != KEYS.seal("secret")
    for keys_, changed in ((OTHER, token), (KEYS, token[:-1] + bytes([token[-1] ^ 1])), (KEYS, b"")):
        with pytest.raises(ConfigurationError, match="does not open"):
            keys_.unseal(changed)


def test_epoch_0_gives_the_same_values_for_ever() -> None:
    assert KEYS.uid("1.2.3") == "2.25.191103157518303626707426414031861308956"
    assert KEYS.patient_id("d", "1") == "PS2W8F4ZXWB1YY167"
    assert KEYS.accession_number("d", "1") == "A8D33FNFE5E9NECZ"
    assert KEYS.date_shift("d", "1") == timedelta(days=-2698, minutes=58, seconds=6)
    assert KEYS.unseal(keys().seal("text")) == "text"


@given(st.from_regex(r"[12](\.(0|[1-9]\d{0,8})){3,9}", fullmatch=True), st.text(min_size=1))
def test_another_epoch_and_another_project_have_nothing_in_common(uid: str, patient: str) -> None:
    made = [outputs(each, uid, patient) for each in (KEYS, ROTATED, OTHER, ProjectKeys.derive(MASTER_KEY, "chest", 2))]
    if KEYS.uid(uid) != uid:
        assert len(set.union(*made)) == sum(map(len, made))


def test_another_epoch_does_not_open_what_was_sealed() -> None:
    with pytest.raises(ConfigurationError, match="does not open"):
        ROTATED.unseal(KEYS.seal("secret"))
    with pytest.raises(ConfigurationError, match="epoch"):
        ProjectKeys.derive(MASTER_KEY, "chest", -1)


@given(st.sampled_from(["north", "south", ""]), FORMATTED)
def test_the_key_holder_goes_back_from_a_format_preserving_pseudonym(domain: str, original: str) -> None:
    pseudonym = KEYS.patient_id(domain, original, reversible=True)
    back = KEYS.original_patient_id(domain, pseudonym)
    if back is None:
        assert pseudonym == KEYS.patient_id(domain, original)
    else:
        assert back == original
        assert re.sub(r"[A-Za-z0-9]", "0", pseudonym) == re.sub(r"[A-Za-z0-9]", "0", original)
        assert (pseudonym.upper() == pseudonym) == (original.upper() == original)


@given(FORMATTED)
def test_a_format_preserving_accession_number_can_be_reversed_and_is_no_patients(original: str) -> None:
    pseudonym = KEYS.accession_number("d", original, reversible=True)
    assert len(pseudonym) <= 16
    assert KEYS.original_accession_number("d", pseudonym) in (original, None)
    assert pseudonym != KEYS.patient_id("d", original, reversible=True)


@pytest.mark.parametrize("original", ["7731945", "MRN-7731945", "ab 12 cd", "Ab/Cd.1234"])
def test_only_the_key_of_project_and_epoch_reverses(original: str) -> None:
    pseudonym = KEYS.patient_id("d", original, reversible=True)
    assert len({each.patient_id("d", original, reversible=True) for each in (KEYS, OTHER, ROTATED)}) == 3
    assert {each.original_patient_id("d", pseudonym) for each in (OTHER, ROTATED)}.isdisjoint({original})
    assert KEYS.original_patient_id("another domain", pseudonym) != original


def test_a_thousand_patients_keep_a_thousand_format_preserving_pseudonyms() -> None:
    originals = [f"{number:06d}" for number in range(1000)]
    assert len({KEYS.patient_id("d", original, reversible=True) for original in originals}) == 1000


@pytest.mark.parametrize("original", ["", "12345", "ab1", "Doe^Jane", "Größe123456", "9" * 65, "NO_PID:1.2.3.4.5.6"])
def test_an_identifier_outside_the_domain_gets_the_keyed_pseudonym(original: str) -> None:
    pseudonym = KEYS.patient_id("d", original, reversible=True)
    assert pseudonym == KEYS.patient_id("d", original)
    assert KEYS.original_patient_id("d", pseudonym) is None


def test_an_original_that_looks_like_a_keyed_pseudonym_is_not_taken_for_one() -> None:
    original = KEYS.patient_id("d", "1")
    assert KEYS.patient_id("d", original, reversible=True) == KEYS.patient_id("d", original)
