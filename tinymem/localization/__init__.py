"""Localization of memorization in a model: the INJ and DEL benchmarks, and analyses by layer. Planned; its layer is above `mitigation`."""
