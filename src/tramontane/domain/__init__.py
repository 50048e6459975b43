"""The nouns: frozen data, status enums and the one table of allowed transitions."""
