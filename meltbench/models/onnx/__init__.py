"""Models in ONNX Runtime GenAI's format, made by its own builder from a GGUF file or a folder of safetensors."""
