"""Localization by layer: techniques of Dankers and Titov 2024, for noised sequences and for classifiers with flipped labels."""
