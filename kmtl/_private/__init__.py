"""What other libraries keep private and kmtl needs all the same, one file per library.

Each function says what it is for, why nothing public does it, and has a test of its own
in `tests/test_canaries.py`. No other module of kmtl uses a foreign underscore name
(`tests/test_structure.py` holds that).
"""
