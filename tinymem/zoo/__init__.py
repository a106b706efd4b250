"""Checkpoints that ship with TinyMem: their names, cards and hashes. To come; it stands above `report` and `runs`."""
