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


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.9999"])
def test_uids_of_the_standard_are_not_replaced(uid: str) -> None:
    assert KEYS.uid(uid) == uid


def test_a_number_of_a_patient_below_the_standards_root_is_replaced() -> None:
    assert KEYS.uid("1.2.840.10008.7731945").startswith("2.25.")


@given(st.text(), st.text())
def test_the_date_shift_goes_back_by_one_to_3650_days(domain: str, patient: str) -> None:
    assert timedelta(days=-3650) <= KEYS.date_shift(domain, patient) <= timedelta(days=-1)


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
