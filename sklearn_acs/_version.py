"""The version of the library, which files are marked with."""

__version__ = "0.1.0"
