from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from imaging_pipeline.deid.explain import explain_attribute, explain_object
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.errors import ConfigurationError, PoisonInput
from imaging_pipeline_tests.deid.corpus import NAME, PATIENT_ID, chest_film, encode
from imaging_pipeline_tests.deid.test_options import _private_film

PET = "1.2.840.10008.5.1.4.1.1.128"


@pytest.mark.parametrize(
    ("attribute", "profile", "action", "why"),
    [
        ("PatientName", "basic", "D", "always replaced by a pseudonym"),
        ("(0010,1010)", "basic", "X", "Basic Profile X"),
        ("00101010", "research", "K", "option retain_patient_characteristics"),
        ("StudyDescription", "basic", "X", "Basic Profile X"),
        ("StudyDescription", "research", "C", "option clean_descriptors"),
        ("StudyDate", "basic", "C", "option retain_longitudinal_modified_dates"),
        ("StudyDate", "limited", "K", "option retain_longitudinal_full_dates"),
        ("InstitutionAddress", "limited", "X", "override: 45 CFR 164.514"),
        ("Manufacturer", "basic", "K", "not in Table E.1-1: the profile's list keep_text"),
        ("00189FFF", "basic", "X", "default deny"),
        ("60003000", "basic", "X", "default deny"),
        ("00191001", "research", "X", "default deny: private"),
        ("SOPInstanceUID", "basic", "U", "Basic Profile U"),
    ],
)
def test_an_attribute_is_explained_by_row_option_override_or_default(
    attribute: str, profile: str, action: str, why: str
) -> None:
    found = explain_attribute(attribute, load_profile(profile))
    assert found.action == action
    assert found.why.startswith(why)
    assert found.effect


def test_the_cap_of_an_age_that_is_kept_is_told() -> None:
    profile = load_profile("research")
    assert profile.max_age == 89
    assert "above 89 years becomes 90" in explain_attribute("PatientAge", profile).effect


def test_the_class_of_the_objects_changes_the_answer() -> None:
    assert explain_attribute("SeriesDate", load_profile("basic"), PET).action == "C"
    assert explain_attribute("OperatorsName", load_profile("basic")).action == "Z"
    asked = explain_attribute("OperatorsName", load_profile("basic"), PET)
    assert (asked.action, asked.why) == ("X", "Basic Profile X/Z/D, Type 3")


def test_what_is_no_attribute_is_told() -> None:
    with pytest.raises(ConfigurationError, match="give a keyword"):
        explain_attribute("PatientsNaem", load_profile())


def test_each_element_of_an_object_is_explained_and_no_value_is_shown() -> None:
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = "1.2.3.4"
    ds = chest_film(ReferencedImageSequence=Sequence([reference]), ImageComments=NAME)
    rows = {row.path: row for row in explain_object(encode(ds), load_profile("research"))}
    assert rows["00081140[0].00081155"].action == "U"
    assert rows["00204000"].effect.startswith("text cleaned")
    assert rows["00100010"].name == "Patient's Name"
    assert len(rows) == len(ds) + 1
    text = str(rows)
    for secret in (*NAME.split("^"), PATIENT_ID, "20210105", "1.2.3.4"):
        assert secret not in text


def test_private_elements_are_explained_by_creator_and_table() -> None:
    rows = {row.path: row for row in explain_object(encode(_private_film()), load_profile("research"))}
    assert rows["0019100C"].why == "option retain_safe_private: PS3.15 Table E.3.10-1"
    assert rows["0019100C"].name == "B_value"
    assert rows["0019100F"].action == rows["00991001"].action == "X"
    assert (
        "not in force" in {r.path: r for r in explain_object(encode(_private_film()), load_profile())}["0019100C"].why
    )


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(PoisonInput):
        explain_object(b"nothing", load_profile())
