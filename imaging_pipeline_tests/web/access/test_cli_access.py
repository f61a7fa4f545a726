"""The commands below ``access``, and that queries by ``sql`` are in the log before they run."""

from __future__ import annotations

import csv
import io
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from imaging_pipeline.cli import main
from imaging_pipeline.settings import Settings
from imaging_pipeline.web.access.audit import open_audit
from imaging_pipeline.web.access.gate import open_access
from imaging_pipeline_tests.conftest import environment

ME = pwd.getpwuid(os.geteuid()).pw_name

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command; its status, and what it prints on both streams."""
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOGNAME", "somebody_else")

    def run(*arguments: str) -> tuple[int, str]:
        status = main(arguments)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_a_user_a_token_and_what_ends_them(command: Command, settings: Settings) -> None:
    assert command("access", "user", "add", "ann", "--role", "research")[0] == 2, "without a project"
    assert command("access", "user", "add", "ann", "--role", "research", "--project", "research")[0] == 0
    status, printed = command("access", "token", "create", "ann", "--scope", "read")
    token = printed.split()[0]
    principal = open_access(settings, "research").accounts.of_token(token)
    assert status == 0
    assert principal is not None
    assert (principal.name, sorted(principal.scopes)) == ("ann", ["read"])
    assert "ann" in command("access", "user", "list")[1]
    assert token not in command("access", "token", "list")[1]
    assert command("access", "token", "revoke", token[4:16])[0] == 0
    assert "revoked" in command("access", "token", "list")[1]
    assert command("access", "user", "revoke", "ann")[0] == 0
    assert "revoked" in command("access", "user", "list")[1]
    assert command("access", "token", "create", "ann")[0] == 2
    assert command("access", "user", "list", "--zone", "clinical") == (0, "")


def test_the_access_of_the_research_zone_touches_nothing_of_the_other(command: Command, settings: Settings) -> None:
    command("access", "user", "add", "ann", "--role", "operator")
    assert [path.name for path in settings.home.iterdir()] == ["research"]
    command("access", "user", "list", "--zone", "clinical")
    assert (settings.home / "identified").stat().st_mode & 0o077 == 0


def test_links_are_made_and_revoked(command: Command, settings: Settings) -> None:
    command("access", "user", "add", "ann", "--role", "research", "--project", "research")
    status, link = command("access", "link", "create", "ann", "--path", "/a?b=c", "--base", "https://images.example/")
    assert status == 0
    assert link.startswith("https://images.example/a?b=c&link=")
    query = link.strip().partition("?")[2]
    access = open_access(settings, "research")
    assert access.links.of_path("/a", query) is not None
    assert command("access", "link", "create", "ann", "--study", "1.2.3")[1].startswith("http://127.0.0.1:8080/link/")
    assert command("access", "link", "revoke")[0] == 0
    assert access.links.of_path("/a", query) is None


def test_the_log_is_shown_proved_and_its_faults_are_an_exit_status(command: Command, settings: Settings) -> None:
    command("access", "user", "add", "ann", "--role", "operator")
    head = command("access", "audit", "head")[1].strip()
    command("access", "user", "revoke", "ann")
    _, printed = command("access", "audit", "show", "--who", ME)
    shown = list(csv.DictReader(io.StringIO(printed)))
    assert [(row["action"], row["via"]) for row in shown] == [
        ("user add", "shell"), ("user revoke", "shell"), ("audit", "shell"),
    ]  # fmt: skip
    status, printed = command("access", "audit", "verify", "--head", head)
    assert (status, printed.split(":")[0]) == (0, "sound")
    status, printed = command("access", "audit", "verify", "--head", head.replace("1:", "2:"))
    assert status == 1
    assert "FAULT" in printed
    (settings.access_files("research") / "audit-research.head").unlink()
    assert command("access", "audit", "verify")[0] == 1
    assert command("access", "user", "add", "bob", "--role", "operator")[0] == 2


def test_the_head_goes_where_the_site_wants_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings
) -> None:
    monkeypatch.setenv("IMAGING_PIPELINE_AUDIT_HEADS", str(tmp_path / "elsewhere"))
    command("access", "user", "add", "ann", "--role", "operator")
    assert (tmp_path / "elsewhere" / "audit-research.head").is_file()
    assert not (settings.access_files("research") / "audit-research.head").exists()


@pytest.mark.parametrize(
    ("lake", "zones"), [("research", ["research"]), ("identified", ["clinical"]), ("both", ["clinical", "research"])]
)
def test_a_query_is_in_the_log_of_the_zones_it_reads_by_tables_and_never_by_its_text(
    command: Command, settings: Settings, lake: str, zones: list[str]
) -> None:
    query = "SELECT 'DOE^JANE' FROM deid.dicom_study JOIN silver.dicom_patient USING (x) JOIN DOE USING (x)"
    assert command("sql", "--lake", lake, query)[0] != 0, "there are no lakes"
    made = [zone for zone in ("clinical", "research") if settings.access_files(zone).exists()]
    assert made == zones
    for zone in zones:
        (row,) = open_audit(settings, zone).rows()
        assert (row["who"], row["action"], row["outcome"], row["resource"]) == (ME, "sql", "begun", f"lake {lake}")
        assert str(row["detail"]).startswith("deid.dicom_study,silver.dicom_patient ")
        assert "DOE" not in str(row)


def test_no_query_runs_that_cannot_be_logged(command: Command, settings: Settings) -> None:
    command("access", "user", "add", "ann", "--role", "operator")
    (settings.access_files("research") / "audit-research.head").write_text("{}")
    status, printed = command("sql", "SELECT 1")
    assert status == 2
    assert "audit verify" in printed
