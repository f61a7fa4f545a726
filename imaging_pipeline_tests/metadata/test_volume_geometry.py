from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pytest

from imaging_pipeline_tests.metadata.views import put, read, with_view

VIEW = "series_volume_geometry"
TABLES = ("dicom_instance", "dicom_image_plane", "dicom_image_pixel", "dicom_frame", "dicom_mr_acquisition")
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


@pytest.fixture
def lake() -> Iterator[duckdb.DuckDBPyConnection]:
    with with_view(VIEW, TABLES) as connection:
        yield connection


def put_slices(
    connection: duckdb.DuckDBPyConnection,
    positions: Sequence[Any],
    *,
    directions: Sequence[Any] = AXIAL,
    series: str = "series",
    name: str = "slice",
    spacing: list[float] | None = None,
    rows: int = 512,
    instance: dict[str, Any] | None = None,
    frame: dict[str, Any] | None = None,
    mr: dict[str, Any] | None = None,
) -> None:
    """One single-frame image at each position; in an order that is not theirs."""
    keys = [f"{name}{number}" for number in range(len(positions))]
    random.Random(1).shuffle(keys)
    plane = {"image_orientation_patient": directions, "pixel_spacing": spacing or [0.5, 0.7], "frame_number": 1}
    put(connection, "dicom_instance", [{"instance_key": key, "series_key": series} | (instance or {}) for key in keys])
    placed = zip(keys, positions, strict=True)
    put(connection, "dicom_image_plane", [plane | {"instance_key": k, "image_position_patient": p} for k, p in placed])
    pixel = {"image_rows": rows, "image_columns": 512}
    put(connection, "dicom_image_pixel", [pixel | {"instance_key": key} for key in keys])
    put(connection, "dicom_frame", [{"instance_key": key, "frame_number": 1} | (frame or {}) for key in keys])
    if mr:
        put(connection, "dicom_mr_acquisition", [{"instance_key": key, "frame_number": 0} | mr for key in keys])


def stack(depths: Sequence[float], x: float = -180.0, y: float = -170.0) -> list[list[float]]:
    return [[x, y, depth] for depth in depths]


def volumes(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return read(connection, VIEW, "series_key, volume_index")


def test_evenly_spaced_slices_are_a_regular_volume_with_an_affine(lake: duckdb.DuckDBPyConnection) -> None:
    put_slices(lake, stack([-100 + 2.5 * number for number in range(20)]))
    (volume,) = volumes(lake)
    flags = {name: value for name, value in volume.items() if isinstance(value, bool)}
    assert len(flags) == 8
    assert all(flags.values()), flags
    assert (volume["series_key"], volume["volume_index"], volume["split_key"]) == ("series", 0, "{}")
    assert (volume["n_slices"], volume["n_missing_slices"], volume["n_duplicate_positions"]) == (20, 0, 0)
    assert volume["slice_spacing_mm"] == pytest.approx(2.5)
    assert (volume["obliquity_degrees"], volume["gantry_tilt_degrees"]) == (0, 0)
    # rows are 0.5 mm apart, columns 0.7 mm
    assert volume["affine"] == pytest.approx([0.7, 0, 0, -180, 0, 0.5, 0, -170, 0, 0, 2.5, -100, 0, 0, 0, 1])


def test_a_voxel_of_an_oblique_volume_is_where_its_slice_says(lake: duckdb.DuckDBPyConnection) -> None:
    angle = math.radians(20)
    row, column = [math.cos(angle), math.sin(angle), 0.0], [0.0, 0.0, -1.0]
    normal = [-math.sin(angle), math.cos(angle), 0.0]
    positions = [[10 + 3 * k * normal[0], 20 + 3 * k * normal[1], 30.0] for k in range(7)]
    put_slices(lake, positions, directions=[*row, *column])
    (volume,) = volumes(lake)
    assert volume["is_regular_volume"]
    assert volume["obliquity_degrees"] == pytest.approx(20)
    affine = volume["affine"]
    # normal of the plane is row x column, so slices are counted along it
    crossed = [row[1] * column[2], -row[0] * column[2], 0.0]
    order = 1 if sum(a * b for a, b in zip(crossed, normal, strict=True)) > 0 else -1
    first = positions[0] if order > 0 else positions[-1]
    i, j, k = 11, 5, 4
    expected = [first[n] + i * 0.7 * row[n] + j * 0.5 * column[n] + order * 3 * k * normal[n] for n in range(3)]
    found = [affine[4 * n] * i + affine[4 * n + 1] * j + affine[4 * n + 2] * k + affine[4 * n + 3] for n in range(3)]
    assert found == pytest.approx(expected)


def test_gaps_are_counted_by_the_usual_distance(lake: duckdb.DuckDBPyConnection) -> None:
    put_slices(lake, stack([0, 2, 4, 10, 12, 14, 16, 20]))
    (volume,) = volumes(lake)
    assert (volume["n_slices"], volume["n_missing_slices"]) == (8, 3)
    assert (volume["uniform_slice_spacing"], volume["is_regular_volume"], volume["affine"]) == (False, False, None)


def test_a_distance_may_be_one_percent_off(lake: duckdb.DuckDBPyConnection) -> None:
    for series, last in (("within", 30.09), ("beyond", 30.4)):
        put_slices(lake, stack([0, 10, 20, last]), series=series, name=series)
    beyond, within = volumes(lake)
    assert (within["uniform_slice_spacing"], within["is_regular_volume"]) == (True, True)
    assert (beyond["uniform_slice_spacing"], beyond["is_regular_volume"]) == (False, False)


def test_slices_at_the_same_position_are_counted_and_leave_the_spacing_alone(lake: duckdb.DuckDBPyConnection) -> None:
    put_slices(lake, stack([0, 2, 2, 4, 4, 4.001, 6]))
    (volume,) = volumes(lake)
    assert (volume["n_slices"], volume["n_duplicate_positions"]) == (7, 3)
    assert (volume["unique_slice_positions"], volume["is_regular_volume"]) == (False, False)
    assert volume["slice_spacing_mm"] == pytest.approx(2)
    assert volume["n_missing_slices"] == 0


def test_a_tilted_gantry_shears_the_volume(lake: duckdb.DuckDBPyConnection) -> None:
    tilt = math.radians(15)
    directions = [1.0, 0.0, 0.0, 0.0, math.cos(tilt), math.sin(tilt)]
    put_slices(lake, stack([5 * number for number in range(10)]), directions=directions)
    (volume,) = volumes(lake)
    assert volume["gantry_tilt_degrees"] == pytest.approx(15)
    assert volume["obliquity_degrees"] == pytest.approx(15)
    assert volume["slice_spacing_mm"] == pytest.approx(5 * math.cos(tilt))
    assert (volume["consistent_in_plane_position"], volume["is_regular_volume"]) == (False, False)
    assert volume["affine"][2::4] == pytest.approx([0, 0, 5, 0])  # the slices do lie on a grid, a sheared one


def test_images_in_two_directions_are_no_volume(lake: duckdb.DuckDBPyConnection) -> None:
    put_slices(lake, stack([0, 2, 4]))
    put_slices(lake, stack([6]), directions=[0.0, 1.0, 0.0, 0.0, 0.0, -1.0], name="sagittal")
    (volume,) = volumes(lake)
    assert (volume["single_orientation"], volume["is_regular_volume"], volume["affine"]) == (False, False, None)


def test_directions_that_are_not_at_a_right_angle_are_told(lake: duckdb.DuckDBPyConnection) -> None:
    put_slices(lake, stack([0, 2, 4]), directions=[1.0, 0.0, 0.0, 0.1, 0.99, 0.0])
    (volume,) = volumes(lake)
    assert (volume["orthogonal_orientation"], volume["is_regular_volume"]) == (False, False)


def test_sizes_pixel_spacings_and_shifted_slices_are_told(lake: duckdb.DuckDBPyConnection) -> None:
    for series, other in (
        ("dimensions", {"rows": 256}),
        ("pixels", {"spacing": [0.6, 0.7]}),
        ("shifted", {"positions": stack([4], x=-150)}),
    ):
        put_slices(lake, stack([0, 2]), series=series, name=series)
        arguments: dict[str, Any] = {"positions": stack([4]), "series": series, "name": f"{series}-"} | other
        put_slices(lake, **arguments)
    dimensions, pixels, shifted = volumes(lake)
    assert (dimensions["consistent_image_dimensions"], dimensions["is_regular_volume"]) == (False, False)
    assert (pixels["consistent_pixel_spacing"], pixels["is_regular_volume"]) == (False, False)
    assert (shifted["consistent_in_plane_position"], shifted["is_regular_volume"]) == (False, False)


def test_a_series_with_several_images_at_each_position_is_split_by_what_tells_them_apart(
    lake: duckdb.DuckDBPyConnection,
) -> None:
    depths = [0.0, 3.0, 6.0]
    for number, echo in enumerate((10.0, 20.0)):
        mr = {"echo_time": echo}
        put_slices(lake, stack(depths), series="echoes", name=f"echo{number}", mr=mr)
    for number, value in enumerate((0.0, 800.0)):
        frame = {"diffusion_b_value": value}
        put_slices(lake, stack(depths), series="diffusion", name=f"b{number}", frame=frame)
    for number in (1, 2, 3):
        acquired = {"acquisition_number": number}
        put_slices(lake, stack(depths), series="phases", name=f"phase{number}", instance=acquired)
    found = volumes(lake)
    assert all(volume["is_regular_volume"] for volume in found)
    keys = [(volume["series_key"], volume["volume_index"], json.loads(volume["split_key"])) for volume in found]
    assert keys == [
        ("diffusion", 0, {"diffusion_b_value": 0.0}),
        ("diffusion", 1, {"diffusion_b_value": 800.0}),
        ("echoes", 0, {"echo_time": 10.0}),
        ("echoes", 1, {"echo_time": 20.0}),
        ("phases", 0, {"acquisition_number": 1}),
        ("phases", 1, {"acquisition_number": 2}),
        ("phases", 2, {"acquisition_number": 3}),
    ]


def test_what_changes_from_slice_to_slice_does_not_split_a_volume(lake: duckdb.DuckDBPyConnection) -> None:
    for number in range(5):
        acquired = {"acquisition_number": number}
        put_slices(lake, stack([2.0 * number]), name=f"step{number}", instance=acquired)
    (volume,) = volumes(lake)
    assert (volume["n_slices"], volume["is_regular_volume"]) == (5, True)


def test_phases_of_a_cine_are_volumes_although_trigger_times_differ_between_slices(
    lake: duckdb.DuckDBPyConnection,
) -> None:
    for depth in range(3):
        for phase in range(4):
            frame = {"trigger_time": phase * 25.0 + depth * 0.5}
            put_slices(lake, stack([8.0 * depth]), name=f"{depth}-{phase}-", frame=frame)
    found = volumes(lake)
    assert [volume["n_slices"] for volume in found] == [3, 3, 3, 3]
    assert all(volume["is_regular_volume"] for volume in found)
    assert [json.loads(volume["split_key"]) for volume in found] == [{"phase": phase} for phase in (1, 2, 3, 4)]


def test_frames_of_one_object_are_slices_and_stacks_are_volumes(lake: duckdb.DuckDBPyConnection) -> None:
    put(lake, "dicom_instance", [{"instance_key": "enhanced", "series_key": "series"}])
    put(lake, "dicom_image_pixel", [{"instance_key": "enhanced", "image_rows": 64, "image_columns": 64}])
    plane = {"instance_key": "enhanced", "image_orientation_patient": AXIAL, "pixel_spacing": [1.0, 1.0]}
    frames = [(number, "A" if number <= 4 else "B") for number in range(1, 9)]
    places = [
        plane | {"frame_number": n, "image_position_patient": [0.0, 0.0, 5.0 * n + 100 * (n > 4)]} for n, _ in frames
    ]
    put(lake, "dicom_image_plane", places)
    put(lake, "dicom_frame", [{"instance_key": "enhanced", "frame_number": n, "stack_id": s} for n, s in frames])
    found = volumes(lake)
    assert [(volume["n_slices"], json.loads(volume["split_key"])) for volume in found] == [
        (4, {"stack": "A"}),
        (4, {"stack": "B"}),
    ]
    assert all(volume["is_regular_volume"] for volume in found)


def test_localizers_deleted_images_and_images_without_a_place_are_left_out(lake: duckdb.DuckDBPyConnection) -> None:
    nowhere = [None, [0.0, 1.0], [0.0, 0.0, None], [math.nan, 0.0, 0.0], [1e300, 0.0, 0.0]]
    localizer = {"image_type": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    put_slices(lake, stack([0, 2]), series="localizer", name="localizer", instance=localizer)
    put_slices(lake, stack([0]), series="frames", name="frames", frame={"frame_type": ["ORIGINAL", "LOCALIZER"]})
    put_slices(lake, stack([4, 6]), series="deleted", name="deleted", instance={"version_state": "DELETED"})
    put_slices(lake, nowhere, series="nowhere", name="nowhere")
    put_slices(lake, stack([8]), directions=[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], series="flat", name="flat")
    assert volumes(lake) == []


def test_an_image_without_a_plane_does_not_take_its_series_with_it(lake: duckdb.DuckDBPyConnection) -> None:
    put_slices(lake, stack([8]), directions=[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], name="a-flat")
    put_slices(lake, stack([0, 2, 4]))
    (volume,) = volumes(lake)
    assert (volume["n_slices"], volume["is_regular_volume"]) == (3, True)


def test_a_single_slice_has_a_place_but_no_spacing(lake: duckdb.DuckDBPyConnection) -> None:
    put_slices(lake, stack([7.0]))
    (volume,) = volumes(lake)
    assert (volume["n_slices"], volume["is_regular_volume"], volume["single_orientation"]) == (1, False, True)
    names = ("slice_spacing_mm", "uniform_slice_spacing", "gantry_tilt_degrees", "affine")
    assert [volume[name] for name in names] == [None] * 4
    assert (volume["n_missing_slices"], volume["obliquity_degrees"]) == (0, 0)


def test_the_order_of_the_rows_changes_nothing(lake: duckdb.DuckDBPyConnection) -> None:
    put_slices(lake, stack([0, 2, 2, 4, 9]))
    before = volumes(lake)
    for table in TABLES:
        lake.execute(f"CREATE OR REPLACE TABLE silver.{table} AS SELECT * FROM silver.{table} ORDER BY random()")
    assert volumes(lake) == before


def test_no_numbers_stop_the_view(lake: duckdb.DuckDBPyConnection) -> None:
    chance = random.Random(5)
    odd = [None, math.nan, math.inf, -1e308, 0.0, 1e-320, 1.0, -1.0, 0.7071, 999999.0]
    for number in range(60):
        positions = [[chance.choice(odd) for _ in range(chance.choice((3, 3, 3, 2, 0)))] for _ in range(3)]
        directions = [chance.choice(odd) for _ in range(chance.choice((6, 6, 6, 5)))]
        spacing = [chance.choice(odd) for _ in range(chance.choice((2, 1, 3)))]
        name = f"odd{number}-"
        put_slices(lake, positions, directions=directions, series=name, name=name, spacing=spacing)  # type: ignore[arg-type]
    found = volumes(lake)
    assert len({(volume["series_key"], volume["volume_index"]) for volume in found}) == len(found)
