"""What vanishes, changes or comes late at the source, carried through every zone by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from imaging_pipeline.samples.landing import new_study
from imaging_pipeline_tests.integration import chain

pytestmark = pytest.mark.slow

FILMS = 8

STATES = "SELECT version_state, count(*) AS n FROM identified.silver.dicom_instance GROUP BY ALL ORDER BY ALL"


def landing_of(folder: Path) -> Path:
    """Eight films of eight patients; the first has a copy under another name."""
    for seed in range(FILMS):
        new_study(folder, seed=seed, size=96)
    first = sorted(folder.rglob("*.dcm"))[0]
    shutil.copyfile(first, folder / "copy-of-the-first")
    return folder


def films(landing: Path) -> list[Path]:
    return sorted(landing.rglob("*.dcm"))


def count(home: Path, landing: Path, table: str, where: str = "true") -> int:
    (row,) = chain.query(home, landing, f"SELECT count(*) AS n FROM {table} WHERE {where}")
    return int(str(row["n"]))


def changes(home: Path, landing: Path, feed: str = "research.deid", after: int = 0) -> list[dict[str, object]]:
    sql = f"SELECT * EXCLUDE (_loaded_at) FROM {feed}.change_feed WHERE sequence > {after} ORDER BY sequence"
    return chain.query(home, landing, sql)


def delete_some(landing: Path) -> None:
    """The third film is gone, the fourth overwritten by a stranger's, the first lives on in its copy."""
    first, _, third, fourth, *_ = films(landing)
    first.unlink()
    third.unlink()
    stranger = new_study(landing.parent / "elsewhere", seed=99, size=96)
    shutil.copyfile(stranger, fourth)


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return landing_of(tmp_path_factory.mktemp("in") / "landing")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory, landing: Path) -> tuple[Path, Path]:
    """Two homes with the same films, from which the same films then vanish; the second is killed over it."""
    undisturbed, killed = tmp_path_factory.mktemp("undisturbed"), tmp_path_factory.mktemp("killed")
    for home in (undisturbed, killed):
        status, output = chain.run(home, landing, "ingest", str(landing))
        assert status == 0, output
        assert count(home, landing, "research.deid.dicom_instance") == FILMS
    delete_some(landing)
    status, output = chain.run(undisturbed, landing, "ingest", str(landing))
    assert status == 0, output
    return undisturbed, killed


def test_what_has_vanished_is_taken_back_in_every_zone(homes: tuple[Path, Path], landing: Path) -> None:
    home, _ = homes
    assert count(home, landing, "identified.bronze.object_catalog", "deleted_at IS NOT NULL") == 3
    assert chain.query(home, landing, STATES) == [
        {"version_state": "CURRENT", "n": FILMS - 1},
        {"version_state": "DELETED", "n": 2},
    ]
    assert count(home, landing, "research.deid.dicom_instance") == FILMS - 1
    assert count(home, landing, "research.deid.dicom_patient") == FILMS - 1
    assert len(chain.released_files(home)) == FILMS - 1
    assert count(home, landing, "research.gold.image_tensor") == FILMS - 1


def test_the_change_feed_tells_of_it_without_original_uids(homes: tuple[Path, Path], landing: Path) -> None:
    home, _ = homes
    feed = changes(home, landing)
    assert [each["sequence"] for each in feed] == list(range(1, len(feed) + 1))
    instances = [(each["action"], each["state"]) for each in feed if each["sop_instance_uid"]]
    assert sorted(instances) == [("create", "current")] * (FILMS + 1) + [("delete", "deleted")] * 2
    originals = {
        each["sop_instance_uid"] for each in changes(home, landing, "identified.silver") if each["sop_instance_uid"]
    }
    assert len(originals) == FILMS + 1
    assert not originals & {each["sop_instance_uid"] for each in feed}
    status, output = chain.run(home, landing, "changes", "--after", "2")
    assert status == 0, output
    told = [json.loads(line) for line in output.splitlines()]
    assert [{name: each[name] for name in feed[0]} for each in told] == feed[2:]
    assert not any(str(original) in output for original in originals)


def test_a_run_killed_while_taking_back_and_run_again_leaves_the_same(homes: tuple[Path, Path], landing: Path) -> None:
    undisturbed, killed = homes

    def is_taking_back() -> bool:
        return len(chain.released_files(killed)) < FILMS

    chain.run_and_kill(killed, landing, "ingest", str(landing), when=is_taking_back)
    status, output = chain.run(killed, landing, "ingest", str(landing))
    assert status == 0, output
    assert chain.contents(killed, landing) == chain.contents(undisturbed, landing)
    assert chain.released_files(killed) == chain.released_files(undisturbed)


def test_nothing_is_parsed_again_for_a_deletion(homes: tuple[Path, Path], landing: Path) -> None:
    home, _ = homes
    rows = chain.query(
        home,
        landing,
        """SELECT arrival_batch, count(DISTINCT _loaded_at) AS writes FROM identified.bronze.dicom_header
        GROUP BY ALL ORDER BY ALL""",
    )
    assert [row["writes"] for row in rows] == [1, 1]


def test_a_late_image_opens_its_study_again(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    first = new_study(landing, seed=1, size=96)
    status, output = chain.run(tmp_path / "home", landing, "ingest", str(landing))
    assert status == 0, output
    import pydicom
    from pydicom.uid import generate_uid

    late = pydicom.dcmread(first)
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    late.save_as(landing / "late.dcm")
    before = len(changes(tmp_path / "home", landing))
    status, output = chain.run(tmp_path / "home", landing, "ingest", str(landing))
    assert status == 0, output
    rows = chain.query(tmp_path / "home", landing, "SELECT state, revision, instances FROM research.deid.study_state")
    assert rows == [{"state": "COMPLETE", "revision": 1, "instances": 2}]
    told = [each["action"] for each in changes(tmp_path / "home", landing, after=before)]
    assert told == ["create", "reopen", "complete"]
