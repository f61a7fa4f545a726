"""What a delivery chooses from a lake, and the table that tells what went where."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pydicom
import pytest

from imaging_pipeline.delivery.items import Item, items_of
from imaging_pipeline.delivery.log import Answer, DeliveryLog, State
from imaging_pipeline.delivery.record import record
from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.lake.console import run_query
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.made_objects import add_objects, write_object
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.pacs.config import Delivery, What, ZoneName
from imaging_pipeline.settings import Settings
from imaging_pipeline_tests.deid.corpus import ROOT
from imaging_pipeline_tests.deid.test_release import FIRST, Zones
from imaging_pipeline_tests.metadata.headers import memory_lake

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Sent:
    """A lake with two released films, and a result and a segmentation of the first."""

    def __init__(self, folder: Path, identified: Lake, research: Lake) -> None:
        self.lake = research
        self.zones = Zones(folder, identified, research)
        other = {"SOPInstanceUID": f"{ROOT}.3.2", "StudyInstanceUID": f"{ROOT}.1.2", "SeriesInstanceUID": f"{ROOT}.2.2"}
        self.zones.take_in(FIRST, first={}, second=other | {"PatientID": "MRN-2222222"})
        self.film = self.items(What.RELEASED)[0]
        self.make("results", "1.2.840.10008.5.1.4.1.1.7")
        self.make("segmentation", SEG)

    def make(self, kind: str, sop_class: str) -> None:
        """An object made from the first film: each time the same bytes."""
        ds = pydicom.dcmread(uri_to_path(self.film.uri))
        ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.SOPClassUID = f"2.25.{len(kind)}", f"2.25.{len(kind)}1", sop_class
        made = write_object(self.zones.folder / kind, ds, [self.film.instance_key])
        assert add_objects(self.lake, "deid", FIRST, kind, [made]).instance_keys

    def items(self, what: What, cohort: str | None = None) -> list[Item]:
        return items_of(self.lake, Delivery("out", "archive", what, cohort=cohort), self.lake.query)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Sent(tmp_path_factory.mktemp("sent"), identified, research)


@pytest.mark.parametrize("what", [What.RELEASED, What.RESULTS, What.SEGMENTATIONS])
def test_what_is_sent_says_of_which_batch_it_is_or_was_made(sent: Sent, what: What) -> None:
    assert {item.batch_id for item in sent.items(what)} == {FIRST}


def test_released_objects_are_chosen_with_the_digest_and_place_of_their_files(sent: Sent) -> None:
    items = sent.items(What.RELEASED)
    assert {uri_to_path(item.uri) for item in items} == sent.zones.files()
    for item in items:
        ds = pydicom.dcmread(uri_to_path(item.uri))
        uids = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID)
        assert uids == (item.study_uid, item.series_uid, item.sop_uid, item.sop_class_uid)
        assert (ds.file_meta.TransferSyntaxUID, uri_to_path(item.uri).stat().st_size) == (item.syntax_uid, item.size)


def test_results_and_segmentations_are_chosen_by_themselves(sent: Sent) -> None:
    assert [item.sop_uid for item in sent.items(What.RESULTS)] == ["2.25.7"]
    assert [item.sop_uid for item in sent.items(What.SEGMENTATIONS)] == ["2.25.12"]
    assert not sent.items(What.ANNOTATIONS)


def test_a_cohort_is_what_its_query_names_with_all_that_was_made_of_it(sent: Sent) -> None:
    (one, _) = sent.items(What.RELEASED)
    assert [item.sop_uid for item in sent.items(What.COHORT, f"SELECT '{one.sop_uid}' AS sop_instance_uid")] == [
        one.sop_uid
    ]
    studies = "SELECT study_key FROM deid.dicom_study WHERE study_instance_uid = '{}'"
    assert len(sent.items(What.COHORT, studies.format(one.study_uid))) == 3


def test_a_cohort_may_only_read_the_lake_and_must_name_what_it_means(
    sent: Sent, research: Lake, settings: Settings
) -> None:
    run = partial(run_query, locations=[settings.research])
    reaching = Delivery("out", "archive", What.COHORT, cohort="SELECT * FROM read_text('/etc/hostname')")
    with pytest.raises(ConfigurationError, match="cannot be run"):
        items_of(sent.lake, reaching, run)
    with pytest.raises(ConfigurationError, match="must have one of the columns"):
        sent.items(What.COHORT, "SELECT 1 AS one")


def test_the_clinical_zone_sends_no_original(sent: Sent) -> None:
    for what in What:
        cohort = "SELECT instance_key FROM silver.dicom_instance" if what is What.COHORT else None
        delivery = Delivery("out", "archive", what, ZoneName.CLINICAL, cohort=cohort)
        assert items_of(sent.zones.identified, delivery, sent.zones.identified.query) == []


def test_the_table_says_what_the_log_says_and_what_was_taken_back_since(sent: Sent, tmp_path: Path) -> None:
    items = sent.items(What.RESULTS) + sent.items(What.RELEASED)[1:]
    with DeliveryLog(tmp_path / "deliveries.sqlite") as log:
        log.begin("archive", "out", items, NOW)
        log.answer("archive", {item.key("archive"): Answer(State.ACCEPTED, "0000") for item in items}, NOW)
        times = "SELECT max(_loaded_at) FROM gold.delivery"
        assert record(sent.lake, ZoneName.RESEARCH, log) == 0
        written = sent.lake.rows(times)
        assert record(sent.lake, ZoneName.RESEARCH, log) == 0
        assert sent.lake.rows(times) == written, "nothing has changed, and something was written"
        add_objects(sent.lake, "deid", FIRST, "results", [])  # taken back
        assert record(sent.lake, ZoneName.RESEARCH, log) == 1
        rows = sent.lake.rows(
            "SELECT sop_instance_uid, state, is_withdrawn FROM gold.delivery ORDER BY is_withdrawn DESC"
        )
        assert rows[0] == ("2.25.7", "ACCEPTED", True)
        assert [row[1:] for row in rows[1:]] == [("ACCEPTED", False)]


def test_what_was_taken_back_is_sent_once_more_when_it_is_released_again(sent: Sent, tmp_path: Path) -> None:
    items, moments = sent.items(What.SEGMENTATIONS), [NOW + timedelta(days=day) for day in range(4)]
    with DeliveryLog(tmp_path / "deliveries.sqlite") as log:

        def send(state: State, moment: datetime) -> None:
            log.begin("archive", "out", items, moment)
            log.answer("archive", {item.key("archive"): Answer(state, "") for item in items}, moment)

        def withdrawn() -> int:
            return record(sent.lake, ZoneName.RESEARCH, log)

        send(State.ACCEPTED, moments[0])
        assert (withdrawn(), log.due("archive", items, NOW)) == (0, [])
        add_objects(sent.lake, "deid", FIRST, "segmentation", [])
        assert withdrawn() == 1
        sent.make("segmentation", SEG)
        assert sent.items(What.SEGMENTATIONS) == items
        assert withdrawn() == 0
        assert (log.due("archive", items, NOW), log.accepted("archive")) == (items, set())
        send(State.WAITING, moments[1])
        assert [entry.accepted_at for entry in log.entries()] == [moments[0].replace(tzinfo=None)]
        send(State.ACCEPTED, moments[2])
        assert (withdrawn(), log.due("archive", items, moments[3])) == (0, [])
        assert log.accepted("archive") == {item.key("archive") for item in items}
