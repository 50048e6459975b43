"""One module per noun: parse, call the store, answer, nudge. Nothing is decided here."""
