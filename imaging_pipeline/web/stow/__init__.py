"""STOW-RS (PS3.18 10.5): what is sent to a zone, streamed to disk, examined, and kept or refused one by one."""
