-- rule: objects_are_accounted_for
-- table: object_catalog
-- severity: ERROR
-- schemas: silver
-- means: An object has neither a header, nor an issue that says why not, nor is it no DICOM: it was lost.
-- do: A fault of the pipeline: materialize the batch again, and report it if it stays.
SELECT object_key FROM {own.object_catalog} AS object
WHERE CASE parse_status
    WHEN 'SKIPPED' THEN false
    WHEN 'FAILED' THEN NOT EXISTS (
        FROM {own.ingest_issue} AS issue WHERE issue.object_key = object.object_key AND severity = 'ERROR')
    ELSE NOT EXISTS (FROM {own.dicom_header} AS header WHERE header.object_key = object.object_key) END

-- rule: parsed_objects_are_placed
-- table: dicom_header
-- severity: ERROR
-- schemas: silver
-- means: A header became neither an instance nor an issue that says why not: it was lost.
-- do: A fault of the pipeline: materialize the batch again, and report it if it stays.
SELECT object_key FROM {own.dicom_header} AS header
WHERE NOT EXISTS (FROM {own.dicom_file_location} AS location WHERE location.object_key = header.object_key)
    AND NOT EXISTS (
        FROM {own.ingest_issue} AS issue
        WHERE issue.object_key = header.object_key AND stage = 'MAP' AND severity = 'ERROR')

-- rule: study_has_the_stated_images
-- table: dicom_study
-- severity: WARN
-- schemas: silver
-- means: The header states another number of images of the study (0020,1208) than are here.
-- do: If fewer are here and the study is complete, ask the archive to send the study again.
SELECT series.study_key, max(element.value_number)::BIGINT AS stated,
    any_value(number_of_study_related_instances) AS here
FROM {near.dicom_element} AS element
JOIN {near.dicom_instance} AS instance ON instance.instance_key = element.instance_key
JOIN {all.dicom_series} AS series ON series.series_key = instance.series_key
JOIN {all.dicom_study} AS study ON study.study_key = series.study_key
WHERE element_path = '00201208' AND abs(element.value_number) < 1e9 AND version_state IS DISTINCT FROM 'DELETED'
    AND series.study_key IN ({touched.study_key})
GROUP BY series.study_key HAVING max(element.value_number) <> any_value(number_of_study_related_instances)

-- rule: acquisition_has_the_stated_images
-- table: dicom_series
-- severity: WARN
-- schemas: silver
-- means: The header states another number of images of an acquisition (0020,1002) than the series has of it here.
-- do: If the study is complete, ask the archive to send the series again.
SELECT instance.series_key, acquisition_number, max(element.value_number)::BIGINT AS stated,
    count(DISTINCT instance.instance_key) AS here
FROM {near.dicom_instance} AS instance
LEFT JOIN {near.dicom_element} AS element
    ON element.instance_key = instance.instance_key AND element_path = '00201002' AND abs(element.value_number) < 1e9
WHERE version_state IS DISTINCT FROM 'DELETED' AND instance.series_key IN ({touched.series_key})
GROUP BY ALL HAVING max(element.value_number) <> count(DISTINCT instance.instance_key)

-- rule: image_has_the_stated_frames
-- table: dicom_instance
-- severity: WARN
-- schemas: silver
-- means: Number of Frames (0028,0008) is not the number of frames that are listed.
-- do: Do not index frames of this image by number; ask the sender for the object again.
SELECT pixel.instance_key, any_value(number_of_frames) AS stated, count(frame_number) AS here
FROM {own.dicom_image_pixel} AS pixel LEFT JOIN {own.dicom_frame} AS frame ON frame.instance_key = pixel.instance_key
GROUP BY pixel.instance_key
HAVING coalesce(any_value(number_of_frames), 1) <> count(frame_number) AND count(frame_number) < 65536
