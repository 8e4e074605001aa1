"""What a run shows while it is under way: token rate, power and temperature, read from its journal as it grows.

For people who look on. Nothing here is a measurement: what a run came to is made of its whole journal once it has
ended. A look costs something too, so it is counted, and the run's record tells of it (docs/live.md).
"""
