"""What a device's sensors are worth, found by load steps: a job of the probe, and pure functions of what it recorded.

``calibrate`` finds the unit, the sign and the scale of a battery gauge, and how fast, fine and quiet any source is;
``selftest`` shows which sensors see a load at all. Both make one journal by one job.
"""
