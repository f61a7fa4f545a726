-- rule: values_are_legal
-- table: dicom_instance
-- severity: WARN
-- schemas: silver
-- means: Numbers, dates, UIDs or the number of values in the header break the rules of their type (PS3.5 6.2).
-- do: See which manufacturer's headers they are in; such values are empty in the tables and kept in dicom_element.
SELECT instance_key, count(*) AS elements FROM {own.dicom_element} WHERE is_valid = false GROUP BY instance_key
