"""Memorized labels of text classifiers: the setting in which Dankers and Titov 2024 define localization by layer."""
