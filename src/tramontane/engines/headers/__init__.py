"""Reads what model files say of themselves, without loading a weight and without trusting them.

Pure over bytes that the caller opens (``engines.inspection``). Whatever the bytes are, the end is
facts or one ``MalformedHeader`` that names what is wrong.
"""
