"""Run folders, which are the truth, and the DuckDB index derived from them."""
