"""What MELT's runs leave behind (github.com/brave-experiments/MELT-public, of 2024), by the formats of its own sources.

A module a format, and nothing here opens a file. Two accounts are given of the same evidence: MELT's numbers by MELT's
definitions (``theirs``), and ours by ours (``ours``).
"""
