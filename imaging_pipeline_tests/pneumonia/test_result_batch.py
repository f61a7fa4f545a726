"""Results of a batch in both zones, from films through release, tensors and predictions by a real champion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from imaging_pipeline.errors import Reason
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.metadata.quality import count_violations
from imaging_pipeline.objects.folder import uri_to_path
from imaging_pipeline.objects.reading import ObjectReader
from imaging_pipeline.pneumonia.prediction import Predictor, load_champion
from imaging_pipeline.pneumonia.results import batch as results
from imaging_pipeline.pneumonia.results.batch import (
    CLINICAL,
    RESEARCH,
    Options,
    ResultCounts,
    load_clinical_results,
    load_research_results,
    withdraw_results,
)
from imaging_pipeline.pneumonia.results.finding import Kind
from imaging_pipeline.pneumonia.results.making import Maker
from imaging_pipeline.pneumonia.scoring import score_batch
from imaging_pipeline.tensors.batch import load_tensors
from imaging_pipeline.tensors.storage import ShardStore
from imaging_pipeline.tensors.withdrawal import withdraw_tensors
from imaging_pipeline_tests.deid.corpus import NAME, PATIENT_ID, ROOT, keys
from imaging_pipeline_tests.deid.test_release import FIRST, Zones
from imaging_pipeline_tests.metadata.headers import memory_lake
from imaging_pipeline_tests.pneumonia.learned import LearnedModel

FILMS = ("one", "two", "three")


def film(number: int) -> dict[str, object]:
    """A smooth picture, another one for every number."""
    rows, columns = np.mgrid[:48, :40]
    spot = np.exp(-((rows - 10 * number) ** 2 + (columns - 20) ** 2) / 60)
    pixels = np.round(1000 + 300 * rows / 48 + 2000 * spot).astype("<u2")
    return {
        "SOPInstanceUID": f"{ROOT}.3.{number}", "SeriesInstanceUID": f"{ROOT}.2.{number}", "Rows": 48, "Columns": 40,
        "PixelData": pixels.tobytes(), "WindowCenter": "2000", "WindowWidth": "4000",
    }  # fmt: skip


class Predicted:
    """A batch of films in both lakes that the champion has predicted."""

    def __init__(self, folder: Path, identified: Lake, research: Lake, model: LearnedModel) -> None:
        self.zones = Zones(folder, identified, research)
        self.folder, self.model = folder, model
        self.store = ShardStore(str(folder / "tensors"))
        self.zones.take_in(FIRST, **{name: film(number) for number, name in enumerate(FILMS, start=1)})
        self.predict()
        predictor = load_champion(model.tracker)
        assert predictor is not None
        self.predictor: Predictor = predictor

    def predict(self) -> None:
        load_tensors(self.zones.research, FIRST, [self.model.recipe], self.store, workers=1)
        score_batch(self.zones.research, FIRST, self.model.recipe.digest, self.model.tracker)

    def options(self, zone: str, kinds: tuple[Kind, ...] = tuple(Kind)) -> Options:
        maker = Maker(ObjectReader(), self.folder / zone, self.model.recipe, kinds)
        return Options(self.predictor, maker)

    def on_research(self, **options: Any) -> ResultCounts:
        return load_research_results(self.zones.research, FIRST, self.options("research", **options))

    def on_clinical(self) -> ResultCounts:
        zones = self.zones
        return load_clinical_results(zones.identified, zones.research, keys(), FIRST, self.options("clinical"))

    def files(self, zone: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / zone).rglob("*.dcm")}

    def rows(self, zone: str) -> list[dict[str, Any]]:
        place = RESEARCH if zone == "research" else CLINICAL
        lake = self.zones.research if zone == "research" else self.zones.identified
        found = lake.query(f"SELECT * EXCLUDE (_loaded_at) FROM {place.results}.result_object ORDER BY 1")
        return list(found.to_pylist())

    def objects(self, zone: str) -> int:
        """Rows among those of all objects, and of their content."""
        zones = self.zones
        lake, schema = (zones.research, "deid") if zone == "research" else (zones.identified, "silver")
        ((count,),) = lake.rows(
            f"""SELECT count(*) FROM {schema}.dicom_instance JOIN {schema}.made_object USING (instance_key)
            JOIN {schema}.dicom_file_location USING (instance_key) WHERE version_state = 'CURRENT'"""
        )
        return int(str(count))

    def datasets(self, zone: str) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(uri_to_path(row["storage_uri"])) for row in self.rows(zone)]


@pytest.fixture
def predicted(tmp_path: Path, learned_model: LearnedModel) -> Iterator[Predicted]:
    with memory_lake("identified") as identified, memory_lake("research") as research:
        yield Predicted(tmp_path, identified, research, learned_model)


def test_results_of_both_zones_say_the_same_of_the_same_image_under_other_identifiers(predicted: Predicted) -> None:
    assert predicted.on_research() == predicted.on_clinical() == ResultCounts(3, reports=3, captures=3)
    research, clinical = predicted.datasets("research"), predicted.datasets("clinical")
    originals = {f"{ROOT}.3.{number}" for number in (1, 2, 3)}
    for ds in clinical:
        assert (str(ds.PatientName), ds.PatientID, ds.StudyInstanceUID) == (NAME, PATIENT_ID, f"{ROOT}.1")
    assert {each.SourceImageSequence[0].ReferencedSOPInstanceUID for each in clinical if each.Modality == "OT"} == (
        originals
    )
    assert {str(each.StudyInstanceUID) for each in research} == {keys().uid(f"{ROOT}.1")}
    everything = b"".join(predicted.files("research").values())
    for text in (NAME, "Zwyntharquist", PATIENT_ID, ROOT, "Krautschnabel", "19610412", "20210105"):
        assert text.encode() not in everything
    said = {zone: {row["prediction_key"]: 1 for row in predicted.rows(zone)} for zone in ("research", "clinical")}
    assert said["research"].keys() == said["clinical"].keys()
    assert predicted.objects("research") == predicted.objects("clinical") == 6
    ((found,),) = predicted.zones.research.rows(
        """SELECT count(*) FROM deid.dicom_sr_content_item JOIN gold.result_object USING (instance_key)
        JOIN gold.model_prediction USING (prediction_key)
        WHERE concept_name.code_value = '111012' AND abs(numeric_value - 100 * probability) < 1e-6"""
    )
    assert found == 3, "the score in the report is the score in the lake"
    assert not count_violations(predicted.zones.research, "deid", FIRST)
    assert predicted.zones.closes(FIRST), "results do not disturb the release of their batch"
    for zone, make in (("research", predicted.on_research), ("clinical", predicted.on_clinical)):
        before = predicted.files(zone), predicted.rows(zone)
        assert make().kept == 6, "a batch that is run again keeps its files and rows"
        assert (predicted.files(zone), predicted.rows(zone)) == before
    predicted.zones.release(FIRST)
    assert predicted.objects("research") == predicted.objects("clinical") == 6, "a release does not take them back"


@pytest.mark.slow
def test_what_is_lost_or_said_otherwise_is_made_again_and_what_is_switched_off_goes(predicted: Predicted) -> None:
    predicted.on_research()
    before = predicted.files("research")
    uri_to_path(predicted.rows("research")[0]["storage_uri"]).unlink()
    assert predicted.on_research() == ResultCounts(3, reports=3, captures=3, kept=4)
    assert predicted.files("research") == before
    with predicted.zones.research.transaction():
        predicted.zones.research.rows(
            """UPDATE gold.model_prediction SET probability = NULL, flag = 'NO_ANSWER', predicted_label = NULL,
                uncertainty = NULL, no_answer_reason = 'unlike_training_films'
            WHERE prediction_key = (SELECT min(prediction_key) FROM gold.model_prediction)"""
        )
    assert predicted.on_research() == ResultCounts(3, reports=3, captures=2, kept=4)
    after = predicted.files("research")
    assert len(after) == 5
    assert len(before.keys() & after.keys()) == 4, "old files are gone"
    assert predicted.objects("research") == 5
    assert predicted.on_research(kinds=(Kind.REPORT,)) == ResultCounts(3, reports=3, kept=3)
    assert len(predicted.files("research")) == 3
    assert predicted.on_research(kinds=()) == ResultCounts(3)
    assert predicted.files("research") == {}
    assert predicted.objects("research") == len(predicted.rows("research")) == 0


def test_what_is_withdrawn_takes_its_results_along_in_both_zones(predicted: Predicted) -> None:
    predicted.on_research()
    predicted.on_clinical()
    zones = predicted.zones
    counts = zones.vanish(FIRST, "two")
    withdraw_tensors(zones.research, counts.held_keys, predicted.store)
    withdraw_results(zones.research, RESEARCH)
    withdraw_results(zones.identified, CLINICAL)
    for zone in ("research", "clinical"):
        assert len(predicted.rows(zone)) == len(predicted.files(zone)) == predicted.objects(zone) == 4
        uids = {str(ds.SOPInstanceUID) for ds in predicted.datasets(zone)}
        assert uids == {row["sop_instance_uid"] for row in predicted.rows(zone)}
    predicted.predict()
    assert predicted.on_research().predictions == predicted.on_clinical().predictions == 2


def test_a_kill_is_mended_by_running_again_and_an_unreadable_original_costs_its_own_results_only(
    predicted: Predicted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(results, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            predicted.on_research()
    assert predicted.rows("research") == []
    assert predicted.on_research() == ResultCounts(3, reports=3, captures=3)
    assert len(predicted.files("research")) == len(predicted.rows("research")) == predicted.objects("research") == 6
    (predicted.folder / "landing" / FIRST / "one.dcm").write_bytes(b"other bytes")
    assert predicted.on_clinical() == ResultCounts(3, reports=2, captures=2, failed=1)
    rows = predicted.zones.identified.rows(
        "SELECT issue_code, severity, message FROM bronze.ingest_issue WHERE message LIKE 'result: %'"
    )
    assert [row[:2] for row in rows] == [(Reason.CHANGED_WHILE_READ, "WARNING")]
    assert not any(text in str(rows) for text in (NAME, PATIENT_ID, ROOT, str(predicted.folder)))
