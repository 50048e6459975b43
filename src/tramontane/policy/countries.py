"""Sets of countries that rules speak of, by ISO 3166-1 alpha-2 code.

Law changes these; each set says what it is and since when it has been so.
"""

EU = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()
)
"""Member States of the European Union since 1 February 2020 (Article 52 TEU, without the UK)."""

EEA = EU | frozenset({"IS", "LI", "NO"})
"""States of the Agreement on the European Economic Area."""

ADEQUATE = frozenset("AD AR BR CH FO GB GG IL IM JE JP KR NZ UY".split())
"""Countries with an adequacy decision for all recipients (GDPR Article 45), November 2026.

Canada (commercial organisations only) and the United States (listed organisations only) are
missing on purpose: their decisions depend on the recipient, which a country code does not name.
"""
