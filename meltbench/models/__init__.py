"""Models: the catalogue of names, reading GGUF headers, and fetching files into the user's cache."""
