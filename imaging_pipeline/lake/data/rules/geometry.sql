-- rule: orientation_is_orthogonal
-- table: dicom_image_plane
-- severity: WARN
-- schemas: silver
-- means: Directions of rows and columns are not of length 1 at a right angle (within 0.001; PS3.3 C.7.6.2.1.1).
-- do: Distances in the image are wrong by the same factor; measure nothing in it.
SELECT instance_key, frame_number FROM (
    SELECT instance_key, frame_number, image_orientation_patient[1:3] AS r, image_orientation_patient[4:6] AS c
    FROM {own.dicom_image_plane} WHERE len(image_orientation_patient) = 6
)
WHERE greatest(abs(list_dot_product(r, r) - 1), abs(list_dot_product(c, c) - 1), abs(list_dot_product(r, c))) > 0.002

-- rule: spacing_is_positive
-- table: dicom_image_plane
-- severity: WARN
-- schemas: silver
-- means: Pixel Spacing, Imager Pixel Spacing or Slice Thickness is 0 or less.
-- do: Measure nothing in the image; ask the sender which spacing is right.
SELECT instance_key, frame_number FROM {own.dicom_image_plane}
WHERE least(list_min(pixel_spacing), list_min(imager_pixel_spacing), slice_thickness) <= 0

-- rule: volume_has_one_orientation
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: The two named images of one volume lie in different planes (within 0.001 of their direction cosines).
-- do: Build one volume for each orientation; a localizer should say so in its Image Type.
SELECT series_key, any_value(first_instance_key) AS instance_key, arg_max(instance_key, turned) AS other_instance_key
FROM {slices} WHERE turned > 0.001 GROUP BY series_key, volume_index

-- rule: volume_has_no_missing_slices
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: Between the two named images lie so many mm that slices must be missing.
-- do: If the study is complete, ask the archive to send the series again; do not interpolate across the gap.
SELECT series_key, previous_instance_key AS instance_key, instance_key AS other_instance_key, round(step, 3) AS mm,
    (round(step / usual) - 1)::BIGINT AS slices_missing,
    CASE WHEN previous_instance_key = instance_key THEN frame_number END AS before_frame_number
FROM {slices} WHERE step >= 0.01 AND round(step / usual) >= 2

-- rule: slices_have_distinct_positions
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: The two named images of one volume lie at the same place (within 0.01 mm).
-- do: One may be a copy, or of another time or echo that the headers do not tell; choose one before building a volume.
SELECT series_key, previous_instance_key AS instance_key, instance_key AS other_instance_key,
    round(max(step), 3) AS mm, CASE WHEN count(*) > 1 THEN count(*) END AS frames
FROM {slices} WHERE step < 0.01 GROUP BY series_key, previous_instance_key, instance_key

-- rule: slices_are_evenly_spaced
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: Distances of the slices differ by more than 1 % (and 0.02 mm); the worst pair is named.
-- do: Resample by the positions of the images, not by their number.
SELECT series_key, arg_max(previous_instance_key, abs(step - usual)) AS instance_key,
    arg_max(instance_key, abs(step - usual)) AS other_instance_key,
    round(arg_max(step, abs(step - usual)), 3) AS mm, round(any_value(usual), 3) AS usual_mm
FROM {slices}
WHERE step >= 0.01 AND round(step / usual) < 2 AND abs(step - usual) > greatest(0.01 * usual, 0.02)
GROUP BY series_key, volume_index

-- rule: gantry_is_not_tilted
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: Slices are shifted against each other by so many mm: the gantry was tilted (or the stack sheared), 0.5 degrees or more.
-- do: Shear or resample the volume before it is used as a cube; the affine of series_volume_geometry holds the shear.
SELECT series_key, arg_max(previous_instance_key, shift) AS instance_key,
    arg_max(instance_key, shift) AS other_instance_key, round(max(shift), 3) AS mm,
    round(degrees(max(atan2(shift, step))), 2) AS degrees
FROM {slices} WHERE step >= 0.01 AND turned <= 0.001 AND shift > 0.05 AND degrees(atan2(shift, step)) >= 0.5
GROUP BY series_key, volume_index
