"""Detectors: one behaviour a file; files that begin with `_` are the framework."""
