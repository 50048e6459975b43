"""Where the makers of well-known open weights have their seat, by the names they publish under.

Used by the readers of headers. The country is that of the company or public body itself, not of
its owners or its data centres; who is not listed, or is several at once, stays unknown.
"""

import re
from collections.abc import Mapping

_SEATS: Mapping[str, str] = {
    "AE": "tiiuae",
    "CA": "cohere coherelabs cohereforai",
    "CH": "swissai apertus",
    "CN": (
        "alibaba qwen deepseek deepseekai zhipuai zai zaiorg thudm moonshotai minimaxai baidu "
        "tencent 01ai baai openbmb internlm stepfunai"
    ),
    "DE": "alephalpha blackforestlabs jinaai opengptx",
    "ES": "bsclt projectaina",
    "FI": "lumiopen",
    "FR": "mistral mistralai lighton lightonai",
    "GB": "stabilityai",
    "KR": "upstage lgaiexaone lgairesearch naver naverhyperclovax",
    "LV": "tilde tildeai",
    "NO": "norallm norwai",
    "PL": "speakleash bielik",
    "US": (
        "meta metallama facebook google openai microsoft nvidia ibm ibmgranite apple allenai "
        "nomicai servicenow arceeai liquidai"
    ),
}
_COUNTRY = {name: country for country, names in _SEATS.items() for name in names.split()}


def country_of(organisation: str | None) -> str | None:
    """Return the ISO 3166 code of a maker's seat, if it is known for certain."""
    if organisation is None:
        return None
    return _COUNTRY.get(re.sub(r"[^a-z0-9]", "", organisation.lower()))
