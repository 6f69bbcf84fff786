"""A federation across machines: the coordinator's rounds, the calls to stations, a station's work."""
