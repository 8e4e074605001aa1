"""Models: the catalogue of names, what their files say of themselves, and fetching them into the user's cache.

model = resolve("smollm2-135m-q4")     a name, a path or a hub name -> Model
path = ensure(model)                   fetched once, checked, -> the file
meta = read_gguf(path)                 what the file says of itself
"""

from __future__ import annotations

from meltbench.models.catalogue import Artifact, Entry, artifacts, catalogue
from meltbench.models.gguf import Gguf, kv_cache_bytes, read_gguf
from meltbench.models.hashes import file_sha256
from meltbench.models.header import Fit, Format, Header, fits, read_header
from meltbench.models.names import FileSource, FolderSource, HubSource, IndexSource, Model, of_artifact, resolve, target
from meltbench.models.store import adopt, cached, ensure, lies_at

__all__ = [
    "Artifact",
    "Entry",
    "FileSource",
    "Fit",
    "FolderSource",
    "Format",
    "Gguf",
    "Header",
    "HubSource",
    "IndexSource",
    "Model",
    "adopt",
    "artifacts",
    "cached",
    "catalogue",
    "ensure",
    "file_sha256",
    "fits",
    "kv_cache_bytes",
    "lies_at",
    "of_artifact",
    "read_gguf",
    "read_header",
    "resolve",
    "target",
]
