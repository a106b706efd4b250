"""Where in a model memorization sits: the INJ and DEL benchmarks, and analyses layer by layer. To come; it stands above `mitigation`."""
