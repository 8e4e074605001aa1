"""The keys of what is printed of a model that was built in MLC's form."""

from __future__ import annotations

from meltbench.report.jsonshapes import Document, Key

MLC_BUILT = Document(
    "model built in MLC's form",
    "meltbench models build-mlc",
    "One object.",
    (
        Key("folder", "text", "Where it is."),
        Key("source", "text", "The GGUF file or folder that it was built of."),
        Key("quantisation", "text", "q0f32 or q4f32_1, in MLC's names."),
        Key("descends_from", "text", "What the source's weights were quantised to.", "they were not, or nobody says"),
        Key("n_params", "integer", "Its parameters."),
        Key("bits_per_weight", "number", "Of its weights with their scales."),
        Key("bytes", "integer", "Of all its files."),
        Key("target", "text", "What its library was compiled for: the machine, and the level of its instructions."),
        Key("tvm", "text", "The version of Apache TVM that compiled it."),
        Key("messages", "true or false", "Whether it has a conversation template, and so can be asked messages."),
    ),
)
