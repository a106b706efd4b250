"""Checkpoints that ship with TinyMem: their names, cards and hashes. Planned; its layer is above `report` and `runs`."""
