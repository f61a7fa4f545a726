-- Dose of each series as its headers state it, and of each radiation dose report; deleted instances are left out.
WITH live AS (
    SELECT instance_key, series_key, study_key, protocol_name
    FROM {schema}.dicom_instance JOIN {schema}.dicom_series USING (series_key)
    WHERE version_state IS DISTINCT FROM 'DELETED'
), ct_image AS (
    SELECT instance_key, max(ctdi_vol) AS ctdi_vol, max(exposure_time) AS exposure_time, max(kvp) AS kvp,
        avg(x_ray_tube_current) AS x_ray_tube_current, max(exposure) AS exposure
    FROM {schema}.dicom_ct_acquisition
    GROUP BY ALL
), header AS (
    SELECT study_key, series_key, protocol_name, max(ctdi_vol) AS ctdi_vol, max(exposure_time) AS exposure_time,
        max(kvp) AS kvp, avg(x_ray_tube_current) AS x_ray_tube_current, max(exposure) AS exposure,
        NULL::DOUBLE AS image_and_fluoroscopy_area_dose_product, NULL::DOUBLE AS entrance_dose_in_mgy,
        count(coalesce(ctdi_vol, exposure_time, kvp, x_ray_tube_current, exposure)) AS instance_count
    FROM ct_image JOIN live USING (instance_key)
    GROUP BY ALL
    UNION ALL
    SELECT study_key, series_key, protocol_name, NULL, sum(exposure_time),
        max(kvp), avg(x_ray_tube_current), sum(coalesce(exposure, exposure_in_uas / 1000)),
        sum(image_and_fluoroscopy_area_dose_product), max(entrance_dose_in_mgy),
        count(coalesce(exposure_time, kvp, x_ray_tube_current, exposure, exposure_in_uas,
            image_and_fluoroscopy_area_dose_product, entrance_dose_in_mgy))
    FROM {schema}.dicom_xray_acquisition JOIN live USING (instance_key)
    GROUP BY ALL
), report AS (
    SELECT instance_key
    FROM {schema}.dicom_sr_content_item
    WHERE parent_node_path IS NULL AND concept_name.code_value = '113701'
        AND concept_name.coding_scheme_designator = 'DCM'
), total AS (
    SELECT instance_key, concept_name.code_value AS code,
        numeric_value * CASE concept_name.code_value
            WHEN '113813' THEN CASE measurement_units.code_value
                WHEN 'mGy.cm' THEN 1 WHEN 'mGycm' THEN 1 WHEN 'Gy.cm' THEN 1e3 WHEN 'uGy.cm' THEN 1e-3
                WHEN 'mGy.m' THEN 1e2 END
            ELSE CASE measurement_units.code_value
                WHEN 'Gy.m2' THEN 1 WHEN 'Gym2' THEN 1 WHEN 'mGy.m2' THEN 1e-3 WHEN 'mGym2' THEN 1e-3
                WHEN 'uGy.m2' THEN 1e-6 WHEN 'uGym2' THEN 1e-6 WHEN 'Gy.cm2' THEN 1e-4 WHEN 'dGy.cm2' THEN 1e-5
                WHEN 'cGy.cm2' THEN 1e-6 WHEN 'mGy.cm2' THEN 1e-7 WHEN 'uGy.cm2' THEN 1e-10 END
            END AS number
    FROM {schema}.dicom_sr_content_item
    WHERE concept_name.code_value IN ('113813', '113722') AND concept_name.coding_scheme_designator = 'DCM'
        AND numeric_value IS NOT NULL
), totals AS (
    -- One part whose unit is not known leaves no total.
    SELECT instance_key,
        CASE WHEN bool_and(number IS NOT NULL) FILTER (code = '113813')
            THEN sum(number) FILTER (code = '113813') END AS dose_length_product,
        CASE WHEN bool_and(number IS NOT NULL) FILTER (code = '113722')
            THEN sum(number) FILTER (code = '113722') END AS dose_area_product_total
    FROM total
    GROUP BY ALL
), events AS (
    SELECT instance_key, max(mean_ctdi_vol_mgy) AS ctdi_vol, sum(exposure_time_ms) AS exposure_time, max(kvp) AS kvp,
        avg(tube_current_ma) AS x_ray_tube_current, count(*) AS irradiation_event_count
    FROM {schema}.dicom_irradiation_event
    GROUP BY ALL
)
SELECT study_key, series_key, 'HEADER' AS dose_source, NULL::VARCHAR AS sr_instance_key, ctdi_vol,
    NULL::DOUBLE AS dose_length_product, exposure_time, kvp, x_ray_tube_current, exposure,
    image_and_fluoroscopy_area_dose_product, NULL::DOUBLE AS dose_area_product_total, entrance_dose_in_mgy,
    protocol_name, NULL::INTEGER AS irradiation_event_count, instance_count::INTEGER AS instance_count
FROM header WHERE instance_count > 0
UNION ALL
SELECT study_key, NULL, 'RDSR', instance_key, ctdi_vol, dose_length_product, exposure_time, kvp, x_ray_tube_current,
    NULL, NULL, dose_area_product_total, NULL, protocol_name, coalesce(irradiation_event_count, 0)::INTEGER, 1
FROM report JOIN live USING (instance_key)
LEFT JOIN totals USING (instance_key)
LEFT JOIN events USING (instance_key)
