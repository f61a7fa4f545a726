-- Is each series a regular volume? Distances and gaps of its slices, and the grid they lie on (PS3.3 C.7.6.2.1.1).
WITH slice AS (
    -- Frames with a place in the patient; numbers no scanner states (mm) are none.
    SELECT series_key, plane.instance_key, plane.frame_number, image_rows, image_columns, stack_id,
        image_position_patient AS place, image_orientation_patient AS directions, pixel_spacing,
        image_orientation_patient[1:3] AS along_row, image_orientation_patient[4:6] AS along_column,
        [image_orientation_patient[2] * image_orientation_patient[6]
            - image_orientation_patient[3] * image_orientation_patient[5],
         image_orientation_patient[3] * image_orientation_patient[4]
            - image_orientation_patient[1] * image_orientation_patient[6],
         image_orientation_patient[1] * image_orientation_patient[5]
            - image_orientation_patient[2] * image_orientation_patient[4]] AS crossed,
        acquisition_number,
        coalesce(temporal_position_index, temporal_position_identifier) AS temporal_position,
        coalesce(effective_echo_time, echo_time) AS echo_time,
        coalesce(frame.diffusion_b_value, mr.diffusion_b_value) AS diffusion_b_value,
        coalesce(frame.diffusion_gradient_orientation, mr.diffusion_gradient_orientation)::VARCHAR AS gradient,
        coalesce(nominal_cardiac_trigger_delay_time, frame.trigger_time, mr.trigger_time) AS trigger_time,
        referenced_segment_number::VARCHAR AS segment
    FROM {schema}.dicom_image_plane AS plane
    JOIN {schema}.dicom_instance AS instance ON instance.instance_key = plane.instance_key
    LEFT JOIN {schema}.dicom_image_pixel AS pixel ON pixel.instance_key = plane.instance_key
    LEFT JOIN {schema}.dicom_frame AS frame
        ON frame.instance_key = plane.instance_key AND frame.frame_number = plane.frame_number
    LEFT JOIN {schema}.dicom_mr_acquisition AS mr
        ON mr.instance_key = plane.instance_key AND mr.frame_number IN (0, plane.frame_number)
    WHERE version_state IS DISTINCT FROM 'DELETED'
        AND NOT coalesce(list_contains(image_type, 'LOCALIZER'), false)
        AND NOT coalesce(list_contains(frame_type, 'LOCALIZER'), false)
        AND len(image_position_patient) = 3 AND len(image_orientation_patient) = 6
        AND list_bool_and([coalesce(abs(number) < 1e6, false) FOR number IN image_position_patient])
        AND list_bool_and([coalesce(abs(number) < 2, false) FOR number IN image_orientation_patient])
), placed AS (
    SELECT *,
        [round(number, 2) FOR number IN list_concat(place, directions)]::VARCHAR AS spot
    FROM slice
    WHERE crossed[1] * crossed[1] + crossed[2] * crossed[2] + crossed[3] * crossed[3] > 1e-6
), spot AS (
    -- What takes several values at one spot tells sub-volumes apart; what changes from slice to slice does not.
    SELECT series_key, stack_id, spot,
        count(DISTINCT acquisition_number) > 1 AS acquisitions, count(DISTINCT temporal_position) > 1 AS times,
        count(DISTINCT echo_time) > 1 AS echoes, count(DISTINCT diffusion_b_value) > 1 AS b_values,
        count(DISTINCT gradient) > 1 AS gradients, count(DISTINCT trigger_time) > 1 AS triggers,
        count(DISTINCT segment) > 1 AS segments
    FROM placed GROUP BY ALL
), split AS (
    SELECT series_key, bool_or(acquisitions) AS acquisitions, bool_or(times) AS times, bool_or(echoes) AS echoes,
        bool_or(b_values) AS b_values, bool_or(gradients) AS gradients, bool_or(triggers) AS triggers,
        bool_or(segments) AS segments
    FROM spot GROUP BY ALL
), keyed AS (
    -- Trigger times differ a little between slices: their rank at the spot is the phase.
    SELECT placed.*,
        struct_pack(
            stack := stack_id,
            temporal_position := CASE WHEN times THEN temporal_position END,
            acquisition_number := CASE WHEN acquisitions THEN acquisition_number END,
            echo_time := CASE WHEN echoes THEN echo_time END,
            diffusion_b_value := CASE WHEN b_values THEN diffusion_b_value END,
            gradient := CASE WHEN gradients THEN gradient END,
            phase := CASE WHEN triggers AND NOT times THEN
                dense_rank() OVER (PARTITION BY series_key, stack_id, spot ORDER BY trigger_time) END,
            segment := CASE WHEN segments THEN segment END) AS split_key
    FROM placed JOIN split USING (series_key)
), volume AS (
    SELECT *, dense_rank() OVER (PARTITION BY series_key ORDER BY split_key) - 1 AS volume_index,
        first_value(along_row) OVER volume AS row_direction,
        first_value(along_column) OVER volume AS column_direction,
        first_value(crossed) OVER volume AS normal_direction
    FROM keyed
    WINDOW volume AS (PARTITION BY series_key, split_key ORDER BY instance_key, frame_number)
), directed AS (
    SELECT *, sqrt(list_dot_product(normal_direction, normal_direction)) AS normal_length,
        [number / sqrt(list_dot_product(normal_direction, normal_direction)) FOR number IN normal_direction] AS normal
    FROM volume
), measured AS (
    SELECT *, list_dot_product(place, normal) AS depth,
        list_dot_product(place, row_direction) AS across, list_dot_product(place, column_direction) AS down,
        list_max([abs(pair[1] - pair[2])
            FOR pair IN list_zip(directions, list_concat(row_direction, column_direction))]) AS turned,
        abs(normal_length - 1) <= 0.001 AND abs(sqrt(list_dot_product(row_direction, row_direction)) - 1) <= 0.001
            AND abs(sqrt(list_dot_product(column_direction, column_direction)) - 1) <= 0.001 AS is_orthogonal
    FROM directed
), stepped AS (
    SELECT *, depth - lag(depth) OVER (PARTITION BY series_key, volume_index ORDER BY depth, instance_key, frame_number)
        AS step
    FROM measured
), counted AS (
    -- The number of the position (from 0) that a slice is at, duplicates not counted.
    SELECT *, step IS NOT NULL AND step < 0.01 AS is_duplicate,
        sum((step >= 0.01)::INTEGER) OVER (
            PARTITION BY series_key, volume_index ORDER BY depth, instance_key, frame_number) AS number
    FROM stepped
    -- (the rules of quality name single slices: they read the steps up to here)
), summary AS (
    SELECT series_key, volume_index, any_value(split_key) AS split_key, any_value(normal) AS normal,
        any_value(row_direction) AS row_direction, any_value(column_direction) AS column_direction,
        max(turned) <= 0.001 AS single_orientation,
        bool_and(is_orthogonal) AS orthogonal_orientation,
        max(across) - min(across) <= 0.05 AND max(down) - min(down) <= 0.05 AS consistent_in_plane_position,
        count(DISTINCT pixel_spacing::VARCHAR) = 1 AND count(pixel_spacing) = count(*) AS consistent_pixel_spacing,
        count(DISTINCT (image_rows, image_columns)) = 1 AS consistent_image_dimensions,
        any_value(pixel_spacing) AS pixel_spacing,
        count(*) AS n_slices,
        count(*) FILTER (is_duplicate) AS n_duplicate_positions,
        max(depth) - min(depth) AS span,
        count(*) FILTER (NOT is_duplicate) AS positions,
        median(step) FILTER (NOT is_duplicate) AS usual_step,
        list(step) FILTER (NOT is_duplicate AND step IS NOT NULL) AS steps,
        min_by(place, depth) AS first_place, max_by(place, depth) AS last_place,
        list(struct_pack(number := coalesce(number, 0), place := place)) AS places
    FROM counted GROUP BY series_key, volume_index
), spaced AS (
    SELECT *, CASE WHEN positions > 1 THEN span / (positions - 1) END AS spacing,
        CASE WHEN positions > 1 THEN
            [(last_place[axis] - first_place[axis]) / (positions - 1) FOR axis IN [1, 2, 3]] END AS travel
    FROM summary
), judged AS (
    SELECT *, list_max([abs(step - spacing) FOR step IN steps]) <= 0.01 * spacing AS uniform_slice_spacing,
        sqrt(list_dot_product(travel, travel)) AS travel_length,
        list_max([
            list_max([abs(slice.place[axis] - first_place[axis] - slice.number * travel[axis]) FOR axis IN [1, 2, 3]])
            FOR slice IN places]) <= greatest(0.05, 0.01 * spacing) AS is_on_grid
    FROM spaced
), regular AS (
    SELECT *, coalesce(single_orientation AND orthogonal_orientation AND n_duplicate_positions = 0
        AND consistent_in_plane_position AND consistent_pixel_spacing AND consistent_image_dimensions
        AND uniform_slice_spacing, false) AS is_regular_volume
    FROM judged
)
SELECT series_key, volume_index::INTEGER AS volume_index,
    json_merge_patch(json_object(), to_json(split_key)) AS split_key,
    single_orientation, orthogonal_orientation, n_duplicate_positions = 0 AS unique_slice_positions,
    consistent_in_plane_position, consistent_pixel_spacing, consistent_image_dimensions, uniform_slice_spacing,
    is_regular_volume,
    degrees(acos(least(1, list_max([abs(number) FOR number IN normal])))) AS obliquity_degrees,
    CASE WHEN travel_length > 0 THEN
        degrees(acos(least(1, abs(list_dot_product(travel, normal)) / travel_length))) END AS gantry_tilt_degrees,
    spacing AS slice_spacing_mm, n_slices::INTEGER AS n_slices,
    coalesce(list_sum([greatest(round(step / usual_step) - 1, 0) FOR step IN steps]), 0)::INTEGER AS n_missing_slices,
    n_duplicate_positions::INTEGER AS n_duplicate_positions,
    CASE WHEN is_on_grid AND single_orientation AND consistent_pixel_spacing AND len(pixel_spacing) = 2 THEN
        [row_direction[1] * pixel_spacing[2], column_direction[1] * pixel_spacing[1], travel[1], first_place[1],
         row_direction[2] * pixel_spacing[2], column_direction[2] * pixel_spacing[1], travel[2], first_place[2],
         row_direction[3] * pixel_spacing[2], column_direction[3] * pixel_spacing[1], travel[3], first_place[3],
         0, 0, 0, 1] END AS affine
FROM regular
