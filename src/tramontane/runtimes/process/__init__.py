"""Instances as processes of this machine, each in a bubblewrap sandbox; see ``runtime``."""
