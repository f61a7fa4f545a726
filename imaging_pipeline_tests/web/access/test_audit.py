"""The audit log: nothing can be changed, taken out, moved or cut off without being found."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from imaging_pipeline.errors import ConfigurationError, TransientError
from imaging_pipeline.web.access.audit import AuditLog, Event, Head
from imaging_pipeline_tests.web.access.conftest import Clock

KEY = bytes(range(32))


def open_log(folder: Path, key: bytes = KEY) -> AuditLog:
    folder.mkdir(exist_ok=True)
    return AuditLog(folder, "clinical", key, heads=folder / "heads", clock=Clock())


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = open_log(tmp_path / "log")
    for number in range(8):
        made.append(Event(action="view", who=f"user{number}", study=f"1.2.{number}", bytes=number))
    return made


def tamper(folder: Path, statement: str) -> None:
    """As somebody does who may write the file."""
    with closing(sqlite3.connect(folder / "log" / "audit.sqlite", isolation_level=None)) as connection:
        for trigger in ("no_update", "no_delete", "no_replace"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.executescript(statement)


def test_what_was_written_is_read_back_in_order_and_is_sound(log: AuditLog) -> None:
    rows = list(log.rows())
    assert [row["row"] for row in rows] == list(range(1, 9))
    assert [row["who"] for row in rows] == [f"user{number}" for number in range(8)]
    assert rows[0]["at"] == "2027-01-15T08:00:00.000+00:00"
    assert [row["who"] for row in log.rows(after=2, limit=2)] == ["user2", "user3"]
    assert [row["row"] for row in log.rows(study="1.2.5")] == [6]
    verdict = log.verify()
    assert verdict.is_sound
    assert verdict.head.row == 8
    assert verdict.unanchored == 0


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET who = 'x' WHERE row = 3", "DELETE FROM audit", "INSERT OR REPLACE INTO audit "
                  "SELECT row, at, action, 'x', via, resource, study, series, instance, outcome, requests, bytes, "
                  "detail, seal FROM audit WHERE row = 3"],
)  # fmt: skip
def test_the_table_itself_only_grows(log: AuditLog, tmp_path: Path, statement: str) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "log" / "audit.sqlite", isolation_level=None)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="only grows"),
    ):
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit SET who = 'somebody' WHERE row = 3", "row 3 was changed"),
        ("UPDATE audit SET at = '2020-01-01' WHERE row = 8", "row 8 was changed"),
        ("UPDATE audit SET bytes = '7' WHERE row = 1", "row 1 was changed"),
        ("DELETE FROM audit WHERE row = 4", "before row 5, rows are missing from 4 on"),
        ("DELETE FROM audit WHERE row = 4; UPDATE audit SET row = row - 1 WHERE row > 4", "row 4 was changed, moved"),
        ("DELETE FROM audit WHERE row > 6", "the log ends at row 6, and a head says 8"),
        ("DELETE FROM audit", "the log ends at row 0, and a head says 8"),
        (
            "UPDATE audit SET row = 100 WHERE row = 2; UPDATE audit SET row = 2 WHERE row = 3; "
            "UPDATE audit SET row = 3 WHERE row = 100",
            "row 2 was changed, moved",
        ),
        (
            "INSERT INTO audit SELECT 9, at, action, who, via, resource, study, series, instance, outcome, requests, "
            "bytes, detail, seal FROM audit WHERE row = 8",
            "row 9 was changed, moved or put in",
        ),
    ],
)
def test_every_change_cut_swap_or_insertion_is_found(log: AuditLog, tmp_path: Path, statement: str, fault: str) -> None:
    tamper(tmp_path, statement)
    assert any(found.startswith(fault) for found in log.verify().faults), log.verify().faults


def test_a_log_written_anew_with_another_key_is_found(log: AuditLog, tmp_path: Path) -> None:
    forged = open_log(tmp_path / "forged", bytes(32))
    for row in log.rows():
        forged.append(Event(action=str(row["action"]), who="nobody"))
    (tmp_path / "forged" / "audit.sqlite").rename(tmp_path / "log" / "audit.sqlite")
    (tmp_path / "log" / "audit.sqlite-wal").unlink(missing_ok=True)
    assert any("row 1 was changed" in fault for fault in log.verify().faults)
    (tmp_path / "forged" / "heads" / "audit-clinical.head").rename(tmp_path / "log" / "heads" / "audit-clinical.head")
    assert "the head is not signed by this service" in log.verify().faults


def test_the_same_log_put_back_to_an_earlier_day_is_found_by_a_head_kept_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = open_log(folder)
    log.append(Event(action="view"))
    early = {path: path.read_bytes() for path in (folder / "audit.sqlite", folder / "heads" / "audit-clinical.head")}
    log.append(Event(action="view", who="thief"))
    kept = Head.parse(str(log.head()))
    for path, content in early.items():
        path.write_bytes(content)
    (folder / "audit.sqlite-wal").unlink(missing_ok=True)
    assert log.verify().is_sound, "whole in itself"
    assert log.verify(kept).faults == ("the log ends at row 1, and a head says 2: rows were cut off",)


def test_earlier_heads_stay_true_and_a_false_one_does_not(log: AuditLog) -> None:
    kept = log.head()
    log.append(Event(action="view"))
    assert log.verify(kept).is_sound
    assert not log.verify(Head(kept.row - 1, kept.seal)).is_sound
    with pytest.raises(ConfigurationError, match="ROW:SEAL"):
        Head.parse("yesterday")


@pytest.mark.parametrize("change", ["DELETE FROM audit WHERE row > 6", "DELETE FROM audit"])
def test_a_cut_log_does_not_go_on_growing(log: AuditLog, tmp_path: Path, change: str) -> None:
    tamper(tmp_path, change)
    with pytest.raises(ConfigurationError, match="nothing is added"):
        log.append(Event(action="view"))
    assert not log.verify().is_sound


def test_a_log_without_its_head_does_not_go_on_growing(log: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "log" / "heads" / "audit-clinical.head").unlink()
    with pytest.raises(ConfigurationError, match="nothing is added"):
        log.append(Event(action="view"))
    assert log.verify().faults == ("the file of the head is missing",)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"row": 8, "seal": "0", "signature": "é"}'])
def test_a_damaged_head_is_a_fault_and_no_crash(log: AuditLog, tmp_path: Path, content: str) -> None:
    (tmp_path / "log" / "heads" / "audit-clinical.head").write_text(content, "utf-8")
    assert not log.verify().is_sound
    with pytest.raises(ConfigurationError, match="nothing is added"):
        log.append(Event(action="view"))


def test_a_kill_between_row_and_head_is_no_fault_and_is_told(log: AuditLog, tmp_path: Path) -> None:
    head = tmp_path / "log" / "heads" / "audit-clinical.head"
    before = head.read_bytes()
    log.append(Event(action="view", who="late"), Event(action="view", who="later"))
    head.write_bytes(before)
    verdict = log.verify()
    assert verdict.is_sound
    assert verdict.unanchored == 2
    log.append(Event(action="view"))
    assert log.verify().unanchored == 0
    assert log.head().row == 11


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from imaging_pipeline_tests.web.access.test_audit import *\n"
        "log = open_log(Path(sys.argv[1]))\n"
        "for _ in range(15): log.append(Event(action='view', who=sys.argv[2]))"
    )
    arguments = [[sys.executable, "-c", code, str(tmp_path / "log"), name] for name in ("a", "b")]
    (tmp_path / "log").mkdir()
    running = [subprocess.Popen(each) for each in arguments]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    log = open_log(tmp_path / "log")
    assert log.verify().is_sound
    assert sorted(str(row["who"]) for row in log.rows()) == ["a"] * 15 + ["b"] * 15


def test_a_disk_that_refuses_is_said_and_can_be_tried_again(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("imaging_pipeline.web.access.audit.write_atomically", full)
        with pytest.raises(TransientError, match="cannot be written"):
            log.append(Event(action="view", who="first"))
    log.append(Event(action="view", who="second"))
    assert log.verify().is_sound
