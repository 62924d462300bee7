"""Fuzzing of the wire formats: real payloads, mutated at byte and at field level, with one law that must hold."""
