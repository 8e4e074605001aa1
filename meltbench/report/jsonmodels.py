"""The keys of what is printed of models."""

from __future__ import annotations

from meltbench.report.jsonmlc import MLC_BUILT
from meltbench.report.jsonshapes import Document, Key

_UNSAID = "nobody has said"
_ALIAS = "it is an alias, or nobody has said"


def _entry(at: str) -> tuple[Key, ...]:
    return (
        Key(f"{at}name", "text", "What --model takes."),
        Key(f"{at}title", "text", "What it is.", _ALIAS),
        Key(f"{at}alias_of", "text", "The model or artifact that it is another name of.", "it is none's alias"),
        Key(f"{at}license", "text", "Its licence.", _ALIAS),
        Key(f"{at}parameters_billion", "number", "Its parameters.", _ALIAS),
        Key(f"{at}active_billion", "number", "Those that are used for one token.", "all are, or nobody has said"),
        Key(f"{at}context_tokens", "integer", "Tokens that it was made for.", _ALIAS),
        Key(f"{at}chat_template", "text", "The form of its conversations.", _ALIAS),
        Key(f"{at}artifacts", "list", "The forms that engines take it in; none of an alias."),
    )


def _artifact(at: str) -> tuple[Key, ...]:
    return (
        Key(f"{at}name", "text", "What --model takes for this one."),
        Key(f"{at}format", "text", "gguf, onnx-genai, mlc or onnx."),
        Key(f"{at}quantisation", "text", "Of its weights.", _UNSAID),
        Key(f"{at}source", "text", "Where it comes from: index:, hub:, or a path."),
        Key(f"{at}size_bytes", "integer", "Of its files.", _UNSAID),
        Key(f"{at}sha256", "text", "Of its file; of several that of their names and hashes.", "the first pull pins it"),
        Key(f"{at}sha256_from", "text", "Whose word that is: catalogue, pin (of the first pull) or file.", "none is"),
        Key(f"{at}bits_per_weight", "number", "Bits by parameter.", _UNSAID),
        Key(f"{at}descends_from", "text", "What it was requantised or built from.", "nobody says that it was"),
        Key(f"{at}path", "text", "Where it lies on this machine.", "it is not here"),
    )


_HEADER = "artifacts[].header"
MODELS = (
    Document("models", "meltbench models", "A list.", (*_entry("[]."), *_artifact("[].artifacts[]."))),
    Document(
        "model",
        "meltbench models show",
        "One object, with the artifacts that the name stands for.",
        (
            *_entry(""),
            *_artifact("artifacts[]."),
            Key("artifacts[].problem", "text", "Why its file cannot be read.", "it can, or it is not here"),
            Key(_HEADER, "object", "What its file says of itself.", "it is not here, or cannot be read"),
            Key(f"{_HEADER}.architecture", "text", "Its family, such as llama.", "it does not say"),
            Key(f"{_HEADER}.n_params", "integer", "Elements of all tensors.", "it does not say"),
            Key(f"{_HEADER}.context_tokens", "integer", "Tokens that it was made for.", "it does not say"),
            Key(f"{_HEADER}.vocabulary", "integer", "Tokens that it knows.", "it does not say"),
            Key(f"{_HEADER}.chat_template", "true or false", "Whether it brings one.", "its format has none inside"),
            Key(f"{_HEADER}.bits_per_weight", "number", "Computed from its tensors, of a GGUF.", "it does not say"),
            Key(f"{_HEADER}.quantisation", "text", "Its own word.", "it does not say"),
            Key(f"{_HEADER}.tensors", "object", "Tensors by type, of a GGUF; else empty."),
            Key(f"{_HEADER}.tensors.*", "integer", "How many."),
        ),
    ),
    Document("model pulled", "meltbench models pull", "One object.", _artifact("")),
    Document(
        "model added",
        "meltbench models add",
        "One object.",
        (
            Key("name", "text", "What --model takes."),
            Key("format", "text", "gguf, onnx-genai, mlc or onnx."),
            Key("source", "text", "Where it comes from."),
            Key("catalogue", "text", "The file that it was written into."),
        ),
    ),
    Document(
        "model quantised",
        "meltbench models quantize",
        "A list.",
        (
            Key("[].name", "text", "What --model takes."),
            Key("[].type", "text", "--type"),
            Key("[].path", "text", "The file."),
            Key("[].sha256", "text", "Of it."),
            Key("[].size_bytes", "integer", "Of it."),
            Key("[].bits_per_weight", "number", "Computed from its tensors."),
            Key("[].descends_from", "text", "What it was requantised or built from."),
            Key("[].requantised", "integer", "Tensors that have the type."),
            Key("[].kept", "integer", "Tensors that are as they were: norms and the like."),
            Key("[].fell_back", "integer", "Tensors that became F16, for the type does not fit their rows."),
            Key("[].anew", "true or false", "Whether it was made now; else it was there."),
        ),
    ),
    MLC_BUILT,
    Document(
        "model built",
        "meltbench models build-onnx",
        "One object; all but folder stands in the model's meltbench.json too.",
        (
            Key("folder", "text", "The model."),
            Key("descends_from", "text", "What it was built from."),
            Key("source_sha256", "text", "Of that."),
            Key("precision", "text", "--precision"),
            Key("provider", "text", "--provider"),
            Key("builder", "text", "The packages that made it."),
            Key("n_params", "integer", "Elements of its tensors."),
            Key("weights_bytes", "integer", "Bytes of the graph and its data."),
            Key("bits_per_weight", "number", "Bits of those by parameters."),
            Key("texts", "integer", "Texts that were split to check its tokenizer."),
            Key("differ", "list", "Those that the runtime splits otherwise."),
        ),
    ),
)
