"""Localization of memorization in a model: the INJ and DEL benchmarks (Chang et al. 2024)."""
