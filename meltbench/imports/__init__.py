"""Recordings of other tools: pure functions from the bytes of their files to records, requests and runs of ours."""
