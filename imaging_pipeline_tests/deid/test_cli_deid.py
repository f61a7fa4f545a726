"""The commands below ``deid``, as a person types them."""

from __future__ import annotations

import base64
import random
import stat
from pathlib import Path

import pytest
from pydicom import dcmread

from imaging_pipeline.cli import main
from imaging_pipeline.deid.pixels import Decisions, Verdict
from imaging_pipeline_tests.conftest import environment
from imaging_pipeline_tests.deid.corpus import NAME, PATIENT_ID, ROOT, chest_film, encode


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "home"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, more in enumerate(({}, {}, {"BurnedInAnnotation": "YES"})):
        film = chest_film(SOPInstanceUID=f"{ROOT}.3.{number}", **more)
        (folder / f"{NAME} {number}.dcm").write_bytes(encode(film))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["deid", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


@pytest.mark.usefixtures("home")
def test_a_run_says_what_became_of_each_object_and_names_none(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "run", inputs, tmp_path / "out", "--project", "chest")
    assert status == 1
    assert "in 3 = released 2 + held 1 + failed 0; files 2" in out
    assert "pixel_review_required" in out
    assert str(tmp_path / "out" / "evidence" / "index.html") in out
    for text in (out, err):
        assert "Zwyntharquist" not in text
        assert PATIENT_ID not in text
        assert ".dcm" not in text
    (inputs / f"{NAME} 2.dcm").unlink()
    assert run(capsys, "run", inputs, tmp_path / "out", "--project", "chest")[0] == 0


def test_misuse_is_told_and_writes_nothing(
    home: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_key = tmp_path / "open.key"
    open_key.write_text(base64.b64encode(random.Random(2).randbytes(32)).decode())
    open_key.chmod(0o644)
    out = tmp_path / "out"
    for arguments, told in (
        (("run", inputs, out, "--key-file", open_key), "can be read by others"),
        (("run", inputs, out, "--profile", "no such"), "profile"),
        (("run", inputs, inputs / "out"), "lie apart"),
        (("run", tmp_path / "nowhere", out), "nothing"),
        (("run", inputs, out, "--epoch", "-1"), "epoch"),
        (("run", inputs, out, "--source", "a b"), "letters, digits"),
        (("review", inputs, out), "no evidence"),
        (("explain", "NoSuchAttribute"), "keyword"),
    ):
        status, _, err = run(capsys, *arguments)
        assert (status, told in err) == (2, True), (arguments, err)
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))
    assert not (home / "research").exists()


def test_a_key_file_gives_what_the_same_key_in_the_environment_gives(
    home: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "run", inputs, tmp_path / "first", "--vault", "none")
    key_file = tmp_path / "key"
    key_file.write_text(environment(home)["IMAGING_PIPELINE_MASTER_KEY"])
    key_file.chmod(0o600)
    monkeypatch.delenv("IMAGING_PIPELINE_MASTER_KEY")
    run(capsys, "run", inputs, tmp_path / "second", "--vault", "none", "--key-file", key_file)
    found = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.dcm"))
        for name in ("first", "second")
    ]
    assert found[0] == found[1] != []
    assert not (home / "vault").exists()


@pytest.mark.usefixtures("home")
def test_another_epoch_gives_another_release_and_goes_into_another_folder(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "run", inputs, tmp_path / "out")
    status, _, err = run(capsys, "run", inputs, tmp_path / "out", "--epoch", "1")
    assert (status, "another project, key or epoch" in err) == (2, True)
    run(capsys, "run", inputs, tmp_path / "rotated", "--epoch", "1")
    names = [{path.name for path in (tmp_path / out).rglob("*.dcm")} for out in ("out", "rotated")]
    assert all(names)
    assert not names[0] & names[1]


def test_the_key_holder_finds_what_was_held_and_goes_back_from_a_pseudonym(
    home: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "run", inputs, tmp_path / "out", "--project", "chest")
    status, out, _ = run(capsys, "review", inputs, tmp_path / "out", "--project", "chest")
    assert status == 1
    assert f"{NAME.replace('^', '%5E')}%202.dcm" in out
    assert run(capsys, "review", inputs, tmp_path / "out", "--project", "chest", "--reason", "empty")[0] == 0
    assert run(capsys, "review", inputs, tmp_path / "out", "--project", "lung")[0] == 2
    ds = dcmread(next((tmp_path / "out").rglob("*.dcm")))
    assert PATIENT_ID in run(capsys, "reveal", ds.PatientID, "--project", "chest")[1]
    assert "ACC992817" in run(capsys, "reveal", ds.AccessionNumber, "--project", "chest")[1]
    assert f"{ROOT}.3." in run(capsys, "reveal", ds.SOPInstanceUID, "--project", "chest")[1]
    assert run(capsys, "reveal", "2.25.1", "--project", "chest")[0] == 2
    for path in (home / "vault").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_decision_is_noted_by_the_digest_of_the_object_alone(
    home: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "run", inputs, tmp_path / "out")
    token = run(capsys, "review", inputs, tmp_path / "out")[1].split()[0]
    arguments = ("decide", inputs, tmp_path / "out", token)
    assert run(capsys, *arguments, "BLANK", "--box", "0,0,4,1", "--by", "officer")[0] == 0
    path = home / "vault" / "decisions.yaml"
    (decision,) = Decisions.load(path).objects.values()
    assert (decision.verdict, decision.boxes, decision.by) == (Verdict.BLANK, ((0, 0, 4, 1),), "officer")
    assert "Zwyn" not in path.read_text()
    assert run(capsys, *arguments, "HOLD", "--device")[0] == 0
    assert [each.verdict for each in Decisions.load(path).devices.values()] == [Verdict.HOLD]
    for wrong in (("BLANK",), ("RELEASE", "--box", "0,0,1,1"), ("BLANK", "--box", "4,4")):
        assert run(capsys, *arguments, *wrong)[0] == 2
    assert run(capsys, "decide", inputs, tmp_path / "out", "0" * 32, "HOLD")[0] == 2


@pytest.mark.usefixtures("home")
def test_the_next_run_follows_a_decision(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "run", inputs, tmp_path / "out")[0] == 1
    token = run(capsys, "review", inputs, tmp_path / "out")[1].split()[0]
    assert run(capsys, "decide", inputs, tmp_path / "out", token, "RELEASE", "--by", "officer")[0] == 0
    status, out, _ = run(capsys, "run", inputs, tmp_path / "out")
    assert (status, "in 3 = released 3 + held 0" in out) == (0, True)
    assert run(capsys, "decide", inputs, tmp_path / "out", token, "HOLD", "--device")[0] == 0
    assert run(capsys, "decide", inputs, tmp_path / "out", token, "HOLD")[0] == 0
    assert run(capsys, "run", inputs, tmp_path / "out")[0] == 1
    assert not list((tmp_path / "out").rglob("*.dcm"))


@pytest.mark.usefixtures("home")
def test_explain_says_what_happens_and_shows_no_value(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "pseudonym" in run(capsys, "explain", "PatientName")[1]
    status, out, _ = run(capsys, "explain", next(inputs.iterdir()), "--profile", "basic")
    assert status == 0
    assert "00100020" in out
    assert PATIENT_ID not in out
    assert "Zwyntharquist" not in out
