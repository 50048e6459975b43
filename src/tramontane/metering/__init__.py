"""What passes an engine, counted: between the gateway and every engine, in trusted hands.

An instance's supervisor runs it (``runtimes``), outside of the engine's sandbox; ``reconcile``
reads the books it keeps.
"""
