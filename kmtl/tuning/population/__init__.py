"""Populations: many trials as one program, on JAX."""
