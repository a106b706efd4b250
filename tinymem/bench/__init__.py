"""Timings of our own code beside plain loops."""
