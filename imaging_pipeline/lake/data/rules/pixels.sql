-- rule: image_has_a_size
-- table: dicom_image_pixel
-- severity: WARN
-- schemas: silver
-- means: Rows, Columns, Samples per Pixel or Bits Allocated is 0: there is no image.
-- do: The image cannot be shown or trained on; ask the sender for the object again.
SELECT instance_key FROM {own.dicom_image_pixel}
WHERE least(image_rows, image_columns, samples_per_pixel, bits_allocated) <= 0

-- rule: stored_bits_fit
-- table: dicom_image_pixel
-- severity: WARN
-- schemas: silver
-- means: Bits Stored is more than Bits Allocated, or High Bit is not Bits Stored - 1 (PS3.5 8.1.1).
-- do: Grey values may be read wrongly; compare with the image on the device before it is used.
SELECT instance_key FROM {own.dicom_image_pixel} WHERE bits_stored > bits_allocated OR high_bit <> bits_stored - 1

-- rule: pixels_fill_the_frames
-- table: dicom_image_pixel
-- severity: WARN
-- schemas: silver
-- means: Uncompressed pixel data are shorter or longer than size and number of frames say.
-- do: Shorter: the object was cut off, ask for it again. Longer: it is read up to its stated size.
SELECT instance_key, stated, here FROM (
    SELECT pixel.instance_key,
        (image_rows::HUGEINT * image_columns * samples_per_pixel * bits_allocated
            * coalesce(number_of_frames, 1) + 7) // 8 AS stated,
        try_cast(regexp_extract(value_binary_ref, 'length=([0-9]+)', 1) AS BIGINT) AS here
    FROM {own.dicom_image_pixel} AS pixel
    JOIN {own.dicom_element} AS element ON element.instance_key = pixel.instance_key
    WHERE element_path = '7FE00010' AND is_encapsulated = false
        AND photometric_interpretation NOT IN ('YBR_FULL_422', 'YBR_PARTIAL_422', 'YBR_PARTIAL_420')
)
WHERE here NOT IN (stated, stated + stated % 2)

-- rule: rescale_slope_is_not_zero
-- table: dicom_image_pixel
-- severity: WARN
-- schemas: silver
-- means: Rescale Slope is 0: every pixel would have the same value.
-- do: Use stored values, or have the slope corrected at the source.
SELECT instance_key FROM {own.dicom_image_pixel} WHERE rescale_slope = 0

-- rule: window_has_a_width
-- table: dicom_image_pixel
-- severity: WARN
-- schemas: silver
-- means: Window Width is less than 1 (0 or less where the VOI LUT function is not linear; PS3.3 C.11.2.1.2).
-- do: The window cannot be shown; use another one, or the range of the pixels.
SELECT instance_key FROM {own.dicom_image_pixel}
WHERE list_min(window_width) < 1
    AND (coalesce(voi_lut_function, 'LINEAR') = 'LINEAR' OR list_min(window_width) <= 0)
