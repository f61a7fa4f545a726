-- rule: modality_is_defined
-- table: dicom_series
-- severity: WARN
-- schemas: silver deid
-- means: The Modality is none of the terms that the standard defines (PS3.3 C.7.3.1.1.1).
-- do: Queries by modality miss the series; map the sender's word (XR is CR or DX), or have it corrected.
SELECT series_key FROM {all.dicom_series}
WHERE series_key IN ({touched.series_key}) AND modality NOT IN (
    'ANN', 'AR', 'ASMT', 'AU', 'BDUS', 'BI', 'BMD', 'CFM', 'CR', 'CT', 'CTPROTOCOL', 'DMS', 'DG', 'DOC', 'DX', 'ECG',
    'EEG', 'EMG', 'EOG', 'EPS', 'ES', 'FID', 'GM', 'HC', 'HD', 'IO', 'IOL', 'IVOCT', 'IVUS', 'KER', 'KO', 'LEN', 'LS',
    'M3D', 'MG', 'MR', 'NM', 'OAM', 'OCT', 'OP', 'OPM', 'OPT', 'OPTBSV', 'OPTENF', 'OPV', 'OSS', 'OT', 'PA', 'PLAN',
    'POS', 'PR', 'PT', 'PX', 'REG', 'RESP', 'RF', 'RG', 'RTDOSE', 'RTIMAGE', 'RTINTENT', 'RTPLAN', 'RTRAD', 'RTRECORD',
    'RTSEGANN', 'RTSTRUCT', 'RWV', 'SEG', 'SM', 'SMR', 'SR', 'SRF', 'STAIN', 'TEXTUREMAP', 'TG', 'US', 'VA', 'XA',
    'XAPROTOCOL', 'XC')

-- rule: one_modality_per_series
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: Images of one series state different modalities; the series row holds one of them.
-- do: Split the series at the source, or go by the elements of the images (dicom_element 00080060).
SELECT instance.series_key, count(DISTINCT value_string) AS modalities
FROM {near.dicom_instance} AS instance
JOIN {near.dicom_element} AS element ON element.instance_key = instance.instance_key
WHERE element_path = '00080060' AND version_state IS DISTINCT FROM 'DELETED'
    AND instance.series_key IN ({touched.series_key})
GROUP BY ALL HAVING count(DISTINCT value_string) > 1

-- rule: one_frame_of_reference_per_series
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: Images of one series have different Frame of Reference UIDs: their positions cannot be compared.
-- do: Build no volume of the series as a whole; group its images by frame of reference (dicom_element 00200052).
SELECT instance.series_key, count(DISTINCT value_string) AS frames_of_reference
FROM {near.dicom_instance} AS instance
JOIN {near.dicom_element} AS element ON element.instance_key = instance.instance_key
WHERE element_path = '00200052' AND version_state IS DISTINCT FROM 'DELETED'
    AND instance.series_key IN ({touched.series_key})
GROUP BY ALL HAVING count(DISTINCT value_string) > 1

-- rule: instance_numbers_have_no_gaps
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: Instance Numbers of the series leave some out between the two named images; images may be missing.
-- do: If the study is complete, ask the archive to send the series again; some devices skip numbers on purpose.
SELECT series_key, previous AS instance_key, instance_key AS other_instance_key, number - before - 1 AS numbers_left_out
FROM (
    SELECT series_key, instance_key, instance_number::BIGINT AS number,
        lag(instance_number::BIGINT) OVER numbered AS before, lag(instance_key) OVER numbered AS previous
    FROM {near.dicom_instance}
    WHERE version_state IS DISTINCT FROM 'DELETED' AND series_key IN ({touched.series_key})
        AND instance_number IS NOT NULL
    WINDOW numbered AS (PARTITION BY series_key ORDER BY instance_number, instance_key)
)
WHERE number - before > 1
