"""Run folders, which are the truth, and the DuckDB index derived from them."""

from meltbench.store.folder import RunEntry, RunFolder, Store, find_store, open_store
from meltbench.store.tables import read_record

__all__ = ["RunEntry", "RunFolder", "Store", "find_store", "open_store", "read_record"]
