from __future__ import annotations

import pickle
from importlib import resources
from pathlib import Path

import pytest

from imaging_pipeline.deid.engine import Deidentifier
from imaging_pipeline.deid.profile import load_profile
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
        ("profile: basic", "profile: [", "cannot be read as YAML"),
    ],
)
def test_a_wrong_profile_names_key_finding_and_choice(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_profile(_changed(tmp_path, old, new))


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
