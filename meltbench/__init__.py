"""meltbench: what a language model costs on a device."""

__version__ = "0.1.0"
__all__ = ["__version__"]
