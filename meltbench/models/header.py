"""What a model says of itself, whatever it is stored as: a GGUF file, an ONNX graph, a folder of ONNX Runtime GenAI or
of MLC, or only a name that a server knows.

A folder is a model by the configuration that lies in it. Those are written by other tools, so they are untrusted: what
is no number of the right kind is as if it were not said.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from meltbench.errors import ModelDamaged, UserError
from meltbench.models.gguf import read_gguf
from meltbench.models.hashes import file_sha256
from meltbench.models.jsonfile import read_object
from meltbench.models.mlc.cache import cache_of, check_libraries, check_whole
from meltbench.spec import digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Format = Literal["gguf", "onnx-genai", "mlc", "onnx", "served"]

# What a folder holds when it is a model of this format.
CONFIGS: dict[str, Format] = {"genai_config.json": "onnx-genai", "mlc-chat-config.json": "mlc"}
LOCAL: tuple[Format, ...] = ("gguf", "onnx-genai", "mlc", "onnx")  # all but what a server has
FOLDERS = frozenset(CONFIGS.values())
SHORT: dict[Format, str] = {
    "gguf": "GGUF",
    "onnx-genai": "ONNX",
    "mlc": "MLC",
    "onnx": "plain ONNX",
    "served": "served",
}
BUILT = "meltbench.json"  # what models/onnx/build.py tells of a folder that it made
_TITLES: dict[Format, str] = {
    "gguf": "a GGUF file",
    "onnx-genai": "a folder with genai_config.json",
    "mlc": "a folder with mlc-chat-config.json",
    "onnx": "an .onnx file",
    "served": "the name by which a server knows it",
}
MAX_CONFIG_BYTES = 8 << 20
MAX_FILES = 1000
_MAX_COUNT = 1 << 40
_MAX_SAID = 500


class Header(Protocol):
    """What every model can be asked; None where it does not say."""

    @property
    def architecture(self) -> str | None:
        """The name of its family, such as llama."""

    @property
    def n_params(self) -> int | None:
        """Its parameters."""

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of its weights by parameters."""

    @property
    def context_length(self) -> int | None:
        """Tokens that it was made for."""

    @property
    def vocab_size(self) -> int | None:
        """How many tokens it knows."""

    def kv_cache_bytes(self, n_ctx: int) -> int | None:
        """Bytes of an f16 KV cache of so many tokens."""


@dataclass(frozen=True)
class Fit:
    """Whether a model fits: the parts that are needed, in bytes, against what is available."""

    weights_bytes: int
    kv_bytes: int
    reserve_bytes: int
    available_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Sum of the parts."""
        return self.weights_bytes + self.kv_bytes + self.reserve_bytes

    @property
    def ok(self) -> bool:
        """True when the needed bytes are available."""
        return self.needed_bytes <= self.available_bytes


def fits(header: Header, file_bytes: int, n_ctx: int, available_bytes: int, reserve_bytes: int = 256 * 2**20) -> Fit:
    """Compare weights, an f16 KV cache of ``n_ctx`` tokens (where it can be sized) and a reserve with
    ``available_bytes``."""
    return Fit(file_bytes, header.kv_cache_bytes(n_ctx) or 0, reserve_bytes, available_bytes)


@dataclass(frozen=True)
class Said:
    """What a configuration file, or nobody, says of a model."""

    architecture: str | None = None
    n_params: int | None = None
    bits_per_weight: float | None = None
    context_length: int | None = None
    vocab_size: int | None = None
    kv_bytes_per_token: int | None = None

    def kv_cache_bytes(self, n_ctx: int) -> int | None:
        """Bytes of an f16 KV cache of so many tokens."""
        return None if self.kv_bytes_per_token is None else self.kv_bytes_per_token * n_ctx


def format_of(path: Path) -> Format | None:
    """What a path holds, by its name and the names in it; None where it is no model. Nothing is read."""
    if path.is_dir():
        return next((kind for name, kind in CONFIGS.items() if (path / name).is_file()), None)
    return "onnx" if path.suffix == ".onnx" else "gguf"


def in_words(formats: tuple[Format, ...]) -> str:
    """Formats as one would ask for them."""
    return " or ".join(_TITLES[one] for one in formats)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of a model: itself, or those of its folder. UserError where a folder holds what is none, or too many.

    An ONNX graph may keep its weights beside it in ``NAME.onnx.data`` or ``NAME.onnx_data``.
    """
    if not path.is_dir():
        beside = [path.with_name(path.name + ending) for ending in (".data", "_data")] if path.suffix == ".onnx" else []
        return (path, *(one for one in beside if one.is_file()))
    found = sorted(one for one in path.iterdir() if not one.name.startswith("."))
    if odd := next((one for one in found if not one.is_file()), None):
        raise UserError(f"{odd} is no file: a model's folder holds files alone", hint="take it out of the folder")
    if len(found) > MAX_FILES:
        raise UserError(f"{path} holds {len(found)} files, at most {MAX_FILES} can be a model")
    return tuple(found)


def sha256_of_model(path: Path) -> str:
    """The sha256 of a model's file; of several files that of their names and hashes."""
    files = files_of(path)
    return file_sha256(files[0]) if len(files) == 1 else digest([[one.name, file_sha256(one)] for one in files])


def read_header(path: Path, kind: Format) -> Header:
    """What a model says of itself. ModelDamaged or UserError where its file is not what it should be."""
    if kind == "gguf":
        return read_gguf(path)
    if kind == "onnx-genai":
        return _of_genai(_config(path / "genai_config.json"), path)
    if kind == "mlc":
        return _of_mlc(_config(path / "mlc-chat-config.json"), path)
    return Said()


def built_from(path: Path) -> tuple[str | None, str | None]:
    """What a folder that meltbench built descends from, and its precision; None where nobody says.

    ModelDamaged where its record is none."""
    record = _config(path / BUILT) if (path / BUILT).is_file() else {}
    said = (record.get("descends_from"), record.get("precision"))
    descends_from, precision = (one[:_MAX_SAID] if isinstance(one, str) and one.isprintable() else None for one in said)
    return descends_from, precision


def _config(path: Path) -> dict[str, Any]:
    return read_object(path, MAX_CONFIG_BYTES)


def _of_genai(config: Mapping[str, Any], path: Path) -> Said:
    model = _table(config, "model")
    decoder = _table(model, "decoder")
    graph = decoder.get("filename")
    if not isinstance(graph, str) or os.path.basename(graph) != graph or not (path / graph).is_file():
        said = graph if isinstance(graph, str) else "no graph"
        raise ModelDamaged(
            f"{path / 'genai_config.json'} names {said[:80]!r}, which is not beside it", hint="build it again"
        )
    layers, heads, size = (_count(decoder, key) for key in ("num_hidden_layers", "num_key_value_heads", "head_size"))
    kind, record = model.get("type"), path / BUILT
    built = _config(record) if record.is_file() else {}
    return Said(
        architecture=kind[:80] if isinstance(kind, str) else None,
        n_params=_count(built, "n_params"),
        bits_per_weight=_number(built, "bits_per_weight", 64),
        context_length=_count(model, "context_length"),
        vocab_size=_count(model, "vocab_size"),
        kv_bytes_per_token=_kv_bytes(layers, heads, size),
    )


def _of_mlc(config: Mapping[str, Any], path: Path) -> Said:
    inner = _table(config, "model_config")
    layers, heads = _count(inner, "num_hidden_layers"), _count(inner, "num_key_value_heads")
    size, hidden, all_heads = (_count(inner, key) for key in ("head_dim", "hidden_size", "num_attention_heads"))
    if size is None and hidden is not None and all_heads:
        size = hidden // all_heads
    kind = config.get("model_type")
    cache = cache_of(path)
    table = {} if cache is None else _config(cache)
    if cache is not None:
        check_whole(cache, table)
    check_libraries(path)
    meta = _table(table, "metadata")
    bits, held = _number(meta, "BitsPerParam", 64, least=0.1), _number(meta, "ParamBytes", _MAX_COUNT)
    return Said(
        architecture=kind[:80] if isinstance(kind, str) else None,
        n_params=None if bits is None or held is None else round(held * 8 / bits) or None,
        bits_per_weight=bits,
        context_length=_count(config, "context_window_size") or _count(inner, "context_window_size"),
        vocab_size=_count(config, "vocab_size") or _count(inner, "vocab_size"),
        kv_bytes_per_token=_kv_bytes(layers, heads, size),
    )


def _kv_bytes(layers: int | None, heads: int | None, size: int | None) -> int | None:
    """Bytes of one token's keys and values in f16; None where one of the numbers is not said."""
    return None if layers is None or heads is None or size is None else 2 * 2 * layers * heads * size


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _number(config: Mapping[str, Any], key: str, most: float, least: float = 0.0) -> float | None:
    value = config.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and max(least, 5e-324) <= value <= most
    return float(value) if good and value is not None else None


def _count(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_COUNT else None
