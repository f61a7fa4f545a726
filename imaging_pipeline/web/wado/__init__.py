"""WADO-RS and WADO-URI: objects, metadata, bulk data, frames, rendered pictures and thumbnails (PS3.18 9, 10.4)."""
