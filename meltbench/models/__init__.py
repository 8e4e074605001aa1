"""Models: the catalogue of names, what their files say of themselves, and fetching them into the user's cache.

model = resolve("smollm2-135m-q4")     a name, a path or a hub name -> Model
path = ensure(model)                   fetched once, checked, -> the file
meta = read_gguf(path)                 what the file says of itself
"""

from __future__ import annotations

from meltbench.models.gguf import Gguf, kv_cache_bytes, read_gguf
from meltbench.models.hashes import file_sha256
from meltbench.models.header import Fit, Format, Header, fits, read_header
from meltbench.models.names import Entry, FileSource, HubSource, IndexSource, Model, catalogue, resolve
from meltbench.models.store import cached, ensure

__all__ = [
    "Entry",
    "FileSource",
    "Fit",
    "Format",
    "Gguf",
    "Header",
    "HubSource",
    "IndexSource",
    "Model",
    "cached",
    "catalogue",
    "ensure",
    "file_sha256",
    "fits",
    "kv_cache_bytes",
    "read_gguf",
    "read_header",
    "resolve",
]
