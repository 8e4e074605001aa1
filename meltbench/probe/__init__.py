"""The controller's half of the probe: job writer, journal reader, building and calling the program.

docs/probe.md is the contract between both halves.
"""
