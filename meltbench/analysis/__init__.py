"""Numbers of runs become statements about models and devices: statistics, intelligence per watt, fitted models.

Pure functions of rows and arrays: nothing here opens a file or reaches a device. docs/analysis.md has the definitions.
"""
