"""The serving index: a zone's studies, series and instances in one SQLite file that follows the lake.

Owns look-ups and searches by UID and attribute; knows no HTTP.
"""

from imaging_pipeline.web.index.index import Index
from imaging_pipeline.web.index.model import Instance
from imaging_pipeline.web.index.searching import Answer, Level, Match, Search

__all__ = ["Answer", "Index", "Instance", "Level", "Match", "Search"]
