"""Tables out of the files of published benchmarks, and out of anybody's CSV and Parquet files; one format a file."""

from nas_gym.tables.importers.core import FORMATS, ImportedTable, Importer, Options, Source, recognise
from nas_gym.tables.importers.installation import Installed, install

__all__ = ["FORMATS", "ImportedTable", "Importer", "Installed", "Options", "Source", "install", "recognise"]
