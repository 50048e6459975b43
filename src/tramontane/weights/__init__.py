"""Brings a model's files onto this machine; hides model hubs, object stores and registries."""
