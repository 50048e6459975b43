"""European countries as a table: the half of the fact set that is about the world.

Checked by hand against general knowledge, as of 2026 (Bulgaria uses the euro since that year).
The year is that in which membership of the European Union, or of the Communities before it, began.
A `?` for neighbours means that no question about them is asked: the country borders a territory
whose status is disputed, or the answer needs more than one sentence. Overseas parts do not count.
"""

from __future__ import annotations

from typing import NamedTuple


class Country(NamedTuple):
    """One row; `currency` is a noun phrase without article, such as 'Swedish krona'."""

    name: str
    iso: str
    capital: str
    languages: tuple[str, ...]
    currency: str
    currency_code: str
    joined_eu: int | None
    left_eu: int | None
    eea: bool
    neighbours: tuple[str, ...] | None

    @property
    def in_eu(self) -> bool:
        """Whether it is a member today."""
        return self.joined_eu is not None and self.left_eu is None


# ISO|name|capital|languages|currency|in the EU since (-until)|EEA|land neighbours
_TABLE = """
AT|Austria|Vienna|German|EUR euro|1995|EEA|CZ DE HU IT LI SK SI CH
BE|Belgium|Brussels|Dutch, French, German|EUR euro|1958|EEA|FR DE LU NL
BG|Bulgaria|Sofia|Bulgarian|EUR euro|2007|EEA|GR MK RO RS TR
HR|Croatia|Zagreb|Croatian|EUR euro|2013|EEA|BA HU ME RS SI
CY|Cyprus|Nicosia|Greek, Turkish|EUR euro|2004|EEA|?
CZ|Czechia|Prague|Czech|CZK Czech koruna|2004|EEA|AT DE PL SK
DK|Denmark|Copenhagen|Danish|DKK Danish krone|1973|EEA|DE
EE|Estonia|Tallinn|Estonian|EUR euro|2004|EEA|LV RU
FI|Finland|Helsinki|Finnish, Swedish|EUR euro|1995|EEA|NO RU SE
FR|France|Paris|French|EUR euro|1958|EEA|AD BE DE IT LU MC ES CH
DE|Germany|Berlin|German|EUR euro|1958|EEA|AT BE CZ DK FR LU NL PL CH
GR|Greece|Athens|Greek|EUR euro|1981|EEA|AL BG MK TR
HU|Hungary|Budapest|Hungarian|HUF Hungarian forint|2004|EEA|AT HR RO RS SK SI UA
IE|Ireland|Dublin|Irish, English|EUR euro|1973|EEA|GB
IT|Italy|Rome|Italian|EUR euro|1958|EEA|AT FR SM SI CH VA
LV|Latvia|Riga|Latvian|EUR euro|2004|EEA|BY EE LT RU
LT|Lithuania|Vilnius|Lithuanian|EUR euro|2004|EEA|BY LV PL RU
LU|Luxembourg|Luxembourg City|Luxembourgish, French, German|EUR euro|1958|EEA|BE FR DE
MT|Malta|Valletta|Maltese, English|EUR euro|2004|EEA|none
NL|the Netherlands|Amsterdam|Dutch|EUR euro|1958|EEA|BE DE
PL|Poland|Warsaw|Polish|PLN Polish zloty|2004|EEA|BY CZ DE LT RU SK UA
PT|Portugal|Lisbon|Portuguese|EUR euro|1986|EEA|ES
RO|Romania|Bucharest|Romanian|RON Romanian leu|2007|EEA|BG HU MD RS UA
SK|Slovakia|Bratislava|Slovak|EUR euro|2004|EEA|AT CZ HU PL UA
SI|Slovenia|Ljubljana|Slovene|EUR euro|2004|EEA|AT HR HU IT
ES|Spain|Madrid|Spanish|EUR euro|1986|EEA|AD FR PT
SE|Sweden|Stockholm|Swedish|SEK Swedish krona|1995|EEA|FI NO
IS|Iceland|Reykjavik|Icelandic|ISK Icelandic krona|-|EEA|none
LI|Liechtenstein|Vaduz|German|CHF Swiss franc|-|EEA|AT CH
NO|Norway|Oslo|Norwegian|NOK Norwegian krone|-|EEA|FI RU SE
CH|Switzerland|Bern|German, French, Italian, Romansh|CHF Swiss franc|-|-|AT FR DE IT LI
GB|the United Kingdom|London|English|GBP pound sterling|1973-2020|-|IE
AL|Albania|Tirana|Albanian|ALL Albanian lek|-|-|?
AD|Andorra|Andorra la Vella|Catalan|EUR euro|-|-|FR ES
BY|Belarus|Minsk|Belarusian, Russian|BYN Belarusian rouble|-|-|LV LT PL RU UA
BA|Bosnia and Herzegovina|Sarajevo|Bosnian, Croatian, Serbian|BAM convertible mark|-|-|HR ME RS
MD|Moldova|Chisinau|Romanian|MDL Moldovan leu|-|-|RO UA
MC|Monaco|Monaco|French|EUR euro|-|-|FR
ME|Montenegro|Podgorica|Montenegrin|EUR euro|-|-|?
MK|North Macedonia|Skopje|Macedonian, Albanian|MKD Macedonian denar|-|-|?
SM|San Marino|San Marino|Italian|EUR euro|-|-|IT
RS|Serbia|Belgrade|Serbian|RSD Serbian dinar|-|-|?
TR|Turkey|Ankara|Turkish|TRY Turkish lira|-|-|?
UA|Ukraine|Kyiv|Ukrainian|UAH Ukrainian hryvnia|-|-|BY HU MD PL RO RU SK
"""


_NAMES = {
    "RU": "Russia",
    "VA": "Vatican City",
    **{line[:2]: line.split("|")[1] for line in _TABLE.strip().splitlines()},
}


def _parse(line: str) -> Country:
    iso, name, capital, languages, currency, years, eea, neighbours = line.split("|")
    code, currency_name = currency.split(" ", 1)
    lands = tuple(_NAMES[code] for code in neighbours.split() if code in _NAMES)
    joined, _, left = years.strip("-").partition("-")
    return Country(
        name=name,
        iso=iso,
        capital=capital,
        languages=tuple(languages.split(", ")),
        currency=currency_name,
        currency_code=code,
        joined_eu=int(joined) if joined else None,
        left_eu=int(left) if left else None,
        eea=eea == "EEA",
        neighbours=None if neighbours == "?" else lands,
    )


COUNTRIES: tuple[Country, ...] = tuple(_parse(line) for line in _TABLE.strip().splitlines())
