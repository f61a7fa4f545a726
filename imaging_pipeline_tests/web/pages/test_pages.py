"""Study pages of both zones, asked for as a browser does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

import pytest
from fastapi.testclient import TestClient

from imaging_pipeline.errors import PoisonInput, Reason
from imaging_pipeline.lake import registry
from imaging_pipeline.lake.store import Lake
from imaging_pipeline.web.access.gate import Access
from imaging_pipeline.web.access.roles import Role, Scope
from imaging_pipeline.web.app import create_app
from imaging_pipeline.web.index import Index, Instance, Level, Search
from imaging_pipeline.web.pages import searching
from imaging_pipeline.web.pages.rendering import POLICY, STYLE
from imaging_pipeline.web.pages.study import PREVIEWS
from imaging_pipeline.web.zone import ZoneName
from imaging_pipeline_tests.web.clinic import BATCH, CT, DX, Clinic, image

NAME, PATIENT, ACCESSION, PHYSICIAN = "Zwetschge^Quirin", "P-4711-Q", "ACC-0815-Q", "Krautwickel^Ottilie"
HOSTILE = '"><script>alert(1)</script>\u202eevil\x07'
FILM = "/studies/2.25.1/series/2.25.1.1/instances/2.25.1.1.1"
IDENTIFIED = ("wetschge", "Quirin", PATIENT, ACCESSION, "rautwickel", "2.25.1.1.1", "Bogus^Bea", "1961")
NOW = datetime(2026, 2, 1, 12)  # noqa: DTZ001 - the lake's times are UTC without a zone


def objects() -> dict[str, bytes]:
    """A film, a stack of slices, and an object whose every text is meant to do harm."""
    patient: dict[str, object] = {
        "PatientName": NAME, "PatientID": PATIENT, "AccessionNumber": ACCESSION, "StudyDate": "20240105",
        "ReferringPhysicianName": PHYSICIAN, "StudyDescription": "THORAX pa", "SpecificCharacterSet": "ISO_IR 192",
    }  # fmt: skip
    stack: dict[str, object] = {
        "PatientName": "Bogus^Bea", "PatientID": "B1", "StudyDate": "20230105", "SOPClassUID": CT, "Modality": "CT",
        "SeriesDescription": "lung", "StudyDescription": "CT",
    }  # fmt: skip
    hostile: dict[str, object] = {
        "PatientName": "<img src=x onerror=alert(1)>^A", "PatientID": HOSTILE, "StudyDescription": HOSTILE,
        "SeriesDescription": "{{ 7 * 7 }}", "ImageComments": "&<b>" + "x" * 65_000, "StudyDate": "20220105",
        "SpecificCharacterSet": "ISO_IR 192", "AccessionNumber": "' OR 1=1",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "Modality": "CR",
    }  # fmt: skip
    found = {f"slice{number}": image(2, 1, number, **stack) for number in range(1, 9)}
    return found | {"film": image(1, 1, 1, **patient), "hostile": image(3, 1, 1, **hostile)}


@dataclass(frozen=True, slots=True)
class Front:
    """Both services of one home."""

    clinic: Clinic
    clinical: TestClient
    research: TestClient
    access: dict[ZoneName, Access]

    def client(self, zone: ZoneName, name: str, *roles: Role, scopes: tuple[Scope, ...] = tuple(Scope)) -> TestClient:
        """Somebody else."""
        accounts = self.access[zone].accounts
        accounts.add_user(name, set(roles), {"research"})
        one = self.clinical if zone is ZoneName.CLINICAL else self.research
        headers = {"Authorization": f"Bearer {accounts.create_token(name, scopes).text}", "Accept": "text/html"}
        return TestClient(one.app, headers=headers)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    clinic = Clinic(tmp_path_factory.mktemp("pages") / "home")
    clinic.take_in(BATCH, **objects())
    clinic.release()
    accesses, clients = {}, {}
    with ExitStack() as stack:
        for zone in ZoneName:
            access = accesses[zone] = Access(zone, clinic.workspace.settings.home / "access" / zone, project="research")
            access.accounts.add_user("reader", {Role.CLINICAL, Role.RESEARCH}, {"research"})
            token = access.accounts.create_token("reader").text
            app = create_app(clinic.workspace.zone(zone), access)
            app.state.index.refresh()
            clients[zone] = stack.enter_context(
                TestClient(app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False)
            )
        learned(clinic, *the_film(clients[ZoneName.RESEARCH]))
        judged(clinic)
        yield Front(clinic, clients[ZoneName.CLINICAL], clients[ZoneName.RESEARCH], accesses)


def index_of(client: TestClient) -> Index:
    index = client.app.state.index  # type: ignore[attr-defined]
    assert isinstance(index, Index)
    return index


def the_film(research: TestClient) -> tuple[Instance, Instance]:
    """The released film, and an object that stands for its picture with heat map."""
    index = index_of(research)
    found = [one for match in index.search(Search(Level.INSTANCE)).matches for one in index.instances(*match.uids)]
    film = next(one for one in found if one.sop_class_uid == DX)
    return film, next(one for one in found if one.study_instance_uid != film.study_instance_uid)


def path_of(one: Instance) -> str:
    return f"/studies/{one.study_instance_uid}"


def put(lake: Lake, schema: str, name: str, **values: object) -> None:
    """A row of a table whose other required columns do not matter here."""
    table = registry.table(name)
    required: dict[str, object] = {
        column.name: 1 if column.sql_type in {"INTEGER", "BIGINT"} else False if column.sql_type == "BOOLEAN" else "x"
        for column in table.columns
        if column.is_required and column.name not in values and column.name != registry.LOADED_AT
    }
    with lake.transaction():
        lake.replace_all(schema, name, table.rows([required | values]), where="false", parameters=[])


def learned(clinic: Clinic, film: Instance, picture: Instance) -> None:
    """What a model and people say of the released film."""
    key, batch = film.instance_key, {"arrival_batch": film.arrival_batch}
    model = {"model_name": "pneumonia", "model_version": "7"}
    version = {"dataset_id": "chest", "dataset_version": "abcdef0123456789"}
    uids = {
        "study_instance_uid": picture.study_instance_uid,
        "series_instance_uid": picture.series_instance_uid,
        "sop_instance_uid": picture.sop_instance_uid,
    }
    with clinic.workspace.research() as lake:
        put(lake, "gold", "image_tensor", tensor_key="tensor-1", instance_key=key, shape=[1, 224, 224], **batch)
        put(lake, "gold", "label", label_key="l1", subject_key=key, label_value="pneumonia", source="CSV:RSNA")
        put(lake, "gold", "dataset_version", **version, created_at=NOW)
        put(lake, "gold", "dataset_member", **version, tensor_key="tensor-1", split="test", label_key="l1")
        put(lake, "gold", "embedding_model", **model, **version, stage="production", mlflow_run_id="mlflow-run-9")
        put(
            lake, "gold", "model_prediction", **model, **batch, prediction_key="prediction-1", instance_key=key,
            tensor_key="tensor-1", probability=0.8768, threshold=0.5, flag="POSITIVE", created_at=NOW,
        )  # fmt: skip
        put(
            lake,
            "gold",
            "result_object",
            **model,
            **uids,
            **batch,
            instance_key="r1",
            source_instance_key=key,
            kind="SC",
        )
        put(lake, "gold", "lung_segmentation", **batch, instance_key=key, quality="DOUBTFUL", right_share=0.171)
        for user in ("ann", "unseen"):  # the other's has no row among the released: one of its images is held
            put(lake, "gold", "annotation", study_instance_uid=film.study_instance_uid, kind="SR", user_name=user,
                annotation_key=user, received_at=NOW, source_instance_keys=[key])  # fmt: skip
        put(lake, "deid", "made_object", instance_key="ann")
        put(lake, "gold", "delivery", peer="archive", sop_instance_uid=film.sop_instance_uid, state="WAITING",
            answer="A700", tried_at=NOW)  # fmt: skip
        put(lake, "gold", "drift", verdict="DRIFT", quantity="brightness", arrival_batch=BATCH)


def judged(clinic: Clinic) -> None:
    """What the clinical side has of the film beside the film."""
    with clinic.workspace.identified() as lake:
        ((key, object_key),) = lake.rows(
            "SELECT instance_key, object_key FROM silver.dicom_instance WHERE sop_instance_uid = '2.25.1.1.1'"
        )
        uids = {
            "study_instance_uid": "2.25.1", "series_instance_uid": "2.25.1.9", "sop_instance_uid": "2.25.1.9.9",
        }  # fmt: skip
        put(lake, "silver", "result_object", **uids, instance_key="r2", source_instance_key=key, kind="SC",
            model_name="pneumonia", model_version="7", arrival_batch=BATCH)  # fmt: skip
        put(lake, "bronze", "ingest_issue", object_key=object_key, stage="DEID", severity="WARNING",
            issue_code="vr_invalid", message="a number was expected", arrival_batch=BATCH)  # fmt: skip


def text(client: TestClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return str(answer.text)


def pages(client: TestClient) -> dict[str, str]:
    """All pages that can be reached from the study list, by their path."""
    found: dict[str, str] = {}
    waiting = ["/studies"]
    while waiting:
        path = waiting.pop()
        found[path] = client.get(path).text
        links = re.findall(r'href="(/(?:studies|system)[^"]*|\?[^"]*)"', found[path])
        whole = {(path.partition("?")[0] + link if link[0] == "?" else link).partition("#")[0] for link in links}
        waiting += sorted(whole - found.keys() - set(waiting))
    return found


@pytest.fixture(scope="module")
def clinical_pages(front: Front) -> dict[str, str]:
    return pages(front.clinical)


def test_the_first_page_is_the_study_list_newest_first(front: Front) -> None:
    answer = front.clinical.get("/", follow_redirects=True)
    assert answer.url.path == "/studies"
    assert re.findall(r'href="/studies/([^"]+)"', answer.text) == ["2.25.1", "2.25.2", "2.25.3"]
    assert "Zwetschge, Quirin" in answer.text
    assert "2024-01-05" in answer.text
    assert "identified patients" in answer.text


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"name": "zwetsch"}, ["2.25.1"]),
        ({"name": "quirin"}, ["2.25.1"]),
        ({"patient": "P-47"}, ["2.25.1"]),
        ({"patient": "*11-Q"}, ["2.25.1"]),
        ({"accession": ACCESSION}, ["2.25.1"]),
        ({"accession": "' OR 1=1"}, ["2.25.3"]),
        ({"from": "2023-01-05", "to": "2023-12-31"}, ["2.25.2"]),
        ({"from": "2024-01-01"}, ["2.25.1"]),
        ({"modality": "ct"}, ["2.25.2"]),
        ({"description": "thorax"}, ["2.25.1"]),
        ({"study": "2.25.2"}, ["2.25.2"]),
        ({"name": "zwetsch", "modality": "CT"}, []),
    ],
)
def test_studies_are_found_by_what_people_type(front: Front, form: dict[str, str], expected: list[str]) -> None:
    answer = front.clinical.post("/studies", data=form)
    assert answer.status_code == 200
    assert re.findall(r'href="/studies/([0-9.]+)"', answer.text) == expected


def test_what_is_typed_is_in_no_address_and_a_reader_needs_no_right_to_store(front: Front) -> None:
    answer = front.clinical.post("/studies", data={"name": "Zwetschge"}, follow_redirects=False)
    assert answer.status_code == 303
    place = answer.headers["location"]
    assert "wetschge" not in place
    found = text(front.clinical, place)
    assert 'value="Zwetschge"' in found  # the form stays filled in, also after a step back or a reload
    assert front.clinical.get(place[:-3]).status_code == 410
    assert front.clinical.post("/dicom-web/studies", content=b"").status_code == 403
    actions = [row["action"] for row in front.access[ZoneName.CLINICAL].audit.rows(0, 1000)]
    assert "search" in actions
    assert "store" in actions


def test_a_search_that_cannot_be_read_says_so_and_keeps_the_form(front: Front) -> None:
    answer = front.clinical.post("/studies", data={"study": "no uid", "name": "Zimt"})
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert 'value="Zimt"' in answer.text
    assert front.clinical.post("/studies", data={"name": "x" * 300}).status_code == 400
    assert front.clinical.get("/studies?page=x").status_code == 400


def test_the_list_has_pages(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "PER_PAGE", 2)
    first = front.clinical.post("/studies", data={"from": "2020-01-01"})
    assert "Page 1 of 2" in first.text
    (following,) = re.findall(r'rel="next" href="([^"]+)"', first.text)
    second = text(front.clinical, f"/studies{following.replace('&amp;', '&')}")
    assert re.findall(r'href="/studies/([0-9.]+)"', second) == ["2.25.3"]


def test_a_study_shows_its_series_with_pictures_and_ways_on(front: Front) -> None:
    found = text(front.clinical, "/studies/2.25.2")
    assert len(re.findall(r'<img [^>]*src="/dicom-web[^"]*/thumbnail"', found)) == PREVIEWS
    series = text(front.clinical, "/studies/2.25.2/series/2.25.2.1")
    pictures = re.findall(r'src="(/dicom-web[^"]*/thumbnail)"', series)
    assert [path.split("/")[-2] for path in pictures] == [f"2.25.2.1.{number}" for number in range(1, 9)]
    assert front.clinical.get(pictures[0]).headers["content-type"].startswith("image/")
    slice_page = text(front.clinical, "/studies/2.25.2/series/2.25.2.1/instances/2.25.2.1.4")
    assert "4 of 8" in slice_page
    assert 'rel="prev" href="/studies/2.25.2/series/2.25.2.1/instances/2.25.2.1.3"' in slice_page
    (shown,) = re.findall(r'src="([^"]+/rendered[^"]*)"', slice_page)
    assert front.clinical.get(shown).status_code == 200


def test_an_object_shows_every_attribute_of_its_header(front: Front) -> None:
    found = text(front.clinical, FILM)
    header = front.clinical.get(f"/dicom-web{FILM}/metadata").json()[0]
    tags = set(re.findall(r">\(([0-9A-F]{4}),([0-9A-F]{4})\)<", found))
    assert {(tag[:4], tag[4:]) for tag in header} <= tags
    assert "Krautwickel^Ottilie" in found
    some = text(front.clinical, f"{FILM}?find=physician")
    assert set(re.findall(r">\((\w{4},\w{4})\)<", some)) == {"0008,0090"}


def test_the_clinical_side_shows_issues_results_and_the_source_object(front: Front) -> None:
    study, film = text(front.clinical, "/studies/2.25.1"), text(front.clinical, FILM)
    for found in (study, film):
        assert "a number was expected" in found
        assert "/studies/2.25.1/series/2.25.1.9/instances/2.25.1.9.9" in found
    assert "Film with heat map, model pneumonia 7" in study
    assert "film.dcm" in film
    assert BATCH in film


def test_the_research_side_leads_from_the_released_file_to_prediction_and_delivery(front: Front) -> None:
    film, picture = the_film(front.research)
    study = text(front.research, path_of(film))
    assert "POSITIVE" in study
    assert "0.877" in study
    assert 'value="0.8768"' in study
    assert "DOUBTFUL" in study
    assert "17.1%" in study
    assert "CSV:RSNA" in study
    assert ">ann<" in study
    assert ">unseen<" not in study
    assert "Film with heat map, model pneumonia 7" in study
    assert f"/dicom-web{path_of(film)}/series/{picture.series_instance_uid}/instances/" in study
    lineage = text(front.research, next(iter(re.findall(r'href="([^"]+)#lineage"', study))))
    steps = ["Released file", "Tensors", "Dataset versions", "Models and predictions", "Results as DICOM", "Deliveries"]
    places = [lineage.index(f"<h3>{step}</h3>") for step in steps]
    assert places == sorted(places)
    for told in ("identifiers left", "tensor-1", "abcdef012345", "mlflow-run-9", "prediction-1", "archive", "A700"):
        assert told in lineage


def test_research_pages_hold_nothing_identified(front: Front) -> None:
    found = pages(front.research)
    assert len(found) > 6
    for path, page in found.items():
        for marker in (*IDENTIFIED, str(front.clinic.landing)):
            assert marker not in page, path


def test_hostile_values_are_seen_and_do_nothing(clinical_pages: dict[str, str]) -> None:
    for path, page in clinical_pages.items():
        assert "<script" not in page, path
        assert "<img src=x" not in page, path
        assert "\u202e" not in page, path
        assert "\x07" not in page, path
        assert not re.search(r"<[a-z][^>]*\s(on\w+|style)=", page), path
        assert "{{" not in page or "{{ 7 * 7 }}" in page, path
        assert len(page) < 200_000, path
    film = clinical_pages["/studies/2.25.3"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;⟨U+202E⟩evil" in film
    assert "{{ 7 * 7 }}" in film


def test_no_address_or_title_names_a_patient(clinical_pages: dict[str, str]) -> None:
    for path, page in clinical_pages.items():
        places = re.findall(r'(?:href|src|action)="([^"]*)"', page) + re.findall("<title>(.*)</title>", page)
        for place in (path, *places):
            assert not any(marker in place for marker in ("wetschge", "Quirin", PATIENT, ACCESSION, "Bogus")), path


def test_pages_load_nothing_but_pictures_and_one_style_sheet(front: Front) -> None:
    answer = front.clinical.get("/studies/2.25.1")
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "private, no-store"
    style = front.clinical.get(STYLE)
    assert style.headers["content-type"].startswith("text/css")
    again = front.clinical.get(STYLE, headers={"if-none-match": style.headers["etag"]})
    assert again.status_code == 304


def test_every_page_can_be_used_by_ear_and_keyboard(clinical_pages: dict[str, str]) -> None:
    for path, page in clinical_pages.items():
        assert page.count("<h1") == 1, path
        assert '<html lang="en">' in page, path
        assert 'href="#content"' in page, path
        assert all(" alt=" in tag for tag in re.findall(r"<img [^>]*>", page)), path
        inputs = re.findall(r'<input (?!type="hidden")[^>]*>', page)
        assert len(re.findall(r"<label>[^<]*<input ", page)) == len(inputs), path


@pytest.mark.parametrize(
    "path",
    [
        "/studies/2.25.999",
        "/studies/2.25.1/series/2.25.9",
        f"{FILM}9",
        "/studies/x",
        f"{FILM}?frame=2",
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(front: Front, path: str) -> None:
    answer = front.clinical.get(path)
    assert answer.status_code == 404
    assert "2.25.999" not in answer.text


def test_operators_see_the_state_of_the_system_and_no_patient(front: Front) -> None:
    assert front.clinical.get("/system").status_code == 403
    operator = front.client(ZoneName.RESEARCH, "op", Role.OPERATOR)
    found = text(operator, "/system")
    for told in ("DRIFT", "brightness", "archive", "A700", "mlflow-run-9", BATCH):
        assert told in found
    assert operator.get("/studies").status_code == 403
    clinical = text(front.client(ZoneName.CLINICAL, "op", Role.OPERATOR), "/system")
    assert "vr_invalid" in clinical
    assert "2.25." not in found + clinical
    assert not any(marker in found + clinical for marker in IDENTIFIED)


def test_a_link_to_one_study_shows_its_pages_alone(front: Front) -> None:
    access = front.access[ZoneName.CLINICAL]
    access.accounts.add_user("guest", {Role.CLINICAL}, set())
    ticket = access.links.to_study("guest", "2.25.2")
    guest = TestClient(front.clinical.app, headers={"Accept": "text/html"})
    first = guest.get(ticket)
    assert first.url.path == "/studies/2.25.2"
    assert "All studies of this" not in first.text
    assert 'href="/studies"' not in first.text
    assert guest.get("/studies/2.25.2/series/2.25.2.1").status_code == 200
    assert guest.get(STYLE).status_code == 200
    for path in ("/studies", "/studies/2.25.1", "/system"):
        assert guest.get(path).status_code == 403, path
    assert guest.post("/studies", data={"name": "z"}, headers={"origin": "http://testserver"}).status_code == 403


def test_an_object_that_has_vanished_is_a_page_that_says_so(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_arguments: object) -> None:
        raise PoisonInput(Reason.GONE)

    monkeypatch.setattr(Index, "headers", gone)
    answer = front.clinical.get(FILM)
    assert answer.status_code == 410
    assert 'role="alert"' in answer.text


def test_what_waits_for_the_checks_of_its_batch_is_not_shown_and_said_to_wait(front: Front) -> None:
    index = index_of(front.research)
    film, _ = the_film(front.research)
    total = front.research.get(path_of(film)).status_code
    operator = front.client(ZoneName.RESEARCH, "night-shift", Role.RESEARCH, Role.OPERATOR)
    front.clinic.judge(passed=False)
    try:
        index.refresh()
        assert total == 200
        assert front.research.get(path_of(film)).status_code == 404
        assert front.research.get(f"/dicom-web{path_of(film)}/metadata").status_code == 404
        page = operator.get("/studies").text
        assert "not shown: the checks of a batch" in page
        assert "no_identifier_on_research_side" in operator.get("/system").text
        assert BATCH in operator.get("/system").text.partition("Batches released")[0]
    finally:
        front.clinic.judge()
        index.refresh()
    assert front.research.get(path_of(film)).status_code == 200
    assert "not shown" not in operator.get("/studies").text
    assert BATCH not in operator.get("/system").text.partition("Batches released")[0]
