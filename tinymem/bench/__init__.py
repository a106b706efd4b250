"""Timings of TinyMem's code against plain loops."""
