from __future__ import annotations

import pickle
from importlib import resources
from pathlib import Path

import pytest

from imaging_pipeline.deid.engine import Deidentifier
from imaging_pipeline.deid.profile import SHIPPED, load_profile
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline_tests.deid.corpus import chest_film, encode, keys


def _changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (resources.files("imaging_pipeline.deid") / "data" / "profiles" / "basic.yaml").read_text("utf-8")
    assert old in text
    path = tmp_path / "site.yaml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    return path


def test_the_shipped_profile_loads_and_travels() -> None:
    profile = load_profile()
    assert profile.profile_id == "basic"
    assert pickle.loads(pickle.dumps(profile)).digest == profile.digest == load_profile().digest


def test_the_digest_follows_what_decides(tmp_path: Path) -> None:
    same = load_profile(_changed(tmp_path, "# What this file", "# Whatever this file"))
    other = load_profile(_changed(tmp_path, "  - StackID\n", ""))
    assert same.digest == load_profile().digest != other.digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("profile: basic", "profil: basic", r"\(top\): found 'profil'; allowed: the keys profile"),
        ('version: "1"', "version: 1", "version: found 1; allowed: a text"),
        ('version: "1"\n', "", "found 'no key version'"),
        ("options: [retain", "options: [keep_everything, retain", "options: found 'keep_everything'; allowed: retain_"),
        ('"1980-01-02"', '"soon"', "earliest_date: found 'soon'; allowed: a date"),
        ("CT Image Storage", "MR Image Storage", "allowed: the registered name, 'CT Image Storage'"),
        ("  - StackID", "  - StackIdent", "keep_text: found 'StackIdent'; allowed: keywords"),
        ("  - StackID", "  - PatientComments", "keep_text: found 'PatientComments'; .* does not list"),
        ("  - StackID", "  - Rows", "keep_text: found 'Rows'; allowed: attributes with a VR"),
        ("  - ICCProfile", "  - EncapsulatedDocument", "keep_binary: found 'EncapsulatedDocument'"),
        ("Laterality: [L, R]", "Laterality: [L, SMITH]", "essential.Laterality: found 'SMITH'"),
        ("type2: [Pos", "type2: yes # [Pos", "type2: found True; allowed: a list"),
        ("profile: basic", "profile: [", "is no YAML near line"),
    ],
)
def test_a_wrong_profile_names_key_finding_and_choice(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_profile(_changed(tmp_path, old, new))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("{keyword: StationName, action: K}", r"overrides\[0\]: found 'no reason'"),
        ("{keyword: StatioName, action: K, reason: r}", "found 'StatioName'; allowed: a keyword or tag"),
        ("{keyword: PatientName, action: K, reason: r}", "does not write itself"),
        ("{keyword: ReferringPhysicianName, action: K, reason: r}", "names are never kept"),
        ("{keyword: StationName, action: U, reason: r}", "U for UIDs only"),
        ("{keyword: Rows, action: C, reason: r}", "C for texts, dates, times and sequences only"),
        ("{keyword: ContentSequence, action: D, reason: r}", "C, Z, X or K for sequences"),
        ("{keyword: StationName, action: Q, reason: r}", "action: found 'Q'; allowed: D, Z, X, K, C, U"),
        ("{keyword: StationName, tag: '00081010', action: K, reason: r}", "either tag or keyword"),
        ("{tag: '00431039', private_creator: X, vr: IS, action: K, reason: r}", "retain_safe_private"),
        ("{keyword: StationName, sop_class: '1.2', action: K, reason: r}", "a registered SOP Class UID"),
        ("{keyword: StationName, site: X, action: K, reason: r}", "a mapping with the keys tag, keyword"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_profile(_changed(tmp_path, "overrides: []", f"overrides: [{override}]"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[retain_long", "[retain_longitudinal_full_dates, retain_long", "cannot be kept and moved at once"),
        ("[retain_long", "[clean_pixel_data, retain_long", "pixels.text: found 'hold'; allowed: blank with the option"),
        ("max_age: 89", "max_age: old", "max_age: found 'old'; allowed: years"),
        ("identifiers: pseudonym", "identifiers: md5", "identifiers: found 'md5'; allowed: pseudonym, ff1"),
        ("documents: hold", "documents: keep", "encapsulated_documents: found 'keep'; allowed: hold, placeholder"),
    ],
)
def test_choices_that_do_not_go_together_or_do_not_exist_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_profile(_changed(tmp_path, old, new))


def test_a_profile_that_extends_another_says_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text('extends: research\nprofile: site\nversion: "3"\nessential: {Modality: [US]}\n', "utf-8")
    profile, base = load_profile(path), load_profile("research")
    assert (profile.profile_id, profile.sop_classes, profile.options) == ("site", base.sop_classes, base.options)
    assert profile.essential["Modality"] == {"US"}
    assert profile.essential["ViewPosition"] == base.essential["ViewPosition"]
    assert profile.digest != base.digest
    path.write_text("extends: nobody\n", "utf-8")
    with pytest.raises(ConfigurationError, match="extends: found 'nobody'"):
        load_profile(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_loads_and_has_its_own_digest(name: str) -> None:
    profile = load_profile(name)
    assert profile.profile_id == name
    assert pickle.loads(pickle.dumps(profile)).digest == profile.digest
    assert len({load_profile(other).digest for other in SHIPPED}) == len(SHIPPED)


def test_a_limited_data_set_claims_no_institution_option_since_it_removes_the_address() -> None:
    assert "113112" not in load_profile("limited").codes
    assert "113106" in load_profile("limited").codes
    assert load_profile("research").codes == ("113100", "113103", "113104", "113105", "113107", "113108", "113111")


def test_a_missing_profile_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_profile(tmp_path / "none.yaml")


def test_without_the_option_no_date_is_kept(tmp_path: Path) -> None:
    profile = load_profile(_changed(tmp_path, "options: [retain_longitudinal_modified_dates]", "options: []"))
    output = (
        Deidentifier(profile, keys()).deidentify(encode(chest_film(SeriesDate="20210105")), patient_domain="n").data
    )
    assert b"20210105" not in output
    assert b"REMOVED" in output
    assert b"113107" not in output
