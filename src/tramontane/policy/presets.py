"""Presets: what a user writes as ``policy: [eu]``, as conjunctions of rules over facts.

A rule names an attribute, the values that satisfy it and the least evidence it accepts. Presets
compose by intersection, so adding one can only shrink the choice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from tramontane.base.errors import InvalidRequest
from tramontane.domain.cell import EvidenceLevel
from tramontane.policy.countries import ADEQUATE, EEA, EU


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One demand on one attribute of a cell."""

    name: str
    attribute: str
    allowed: frozenset[str]
    evidence_min: EvidenceLevel
    demand: str
    """What is demanded, as the end of a sentence: "must be …"."""
    next_step: str
    """How an operator states the fact when it is unknown."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named conjunction of rules."""

    name: str
    summary: str
    rules: tuple[Rule, ...]


STATE_COUNTRY = "state it with: tram up --country CC"
STATE_OPERATOR = "state it with: tram up --country CC --operator NAME"


def _location(preset: str, allowed: frozenset[str], where: str) -> Rule:
    return Rule(
        name=f"{preset}.location",
        attribute="country",
        allowed=allowed,
        evidence_min=EvidenceLevel.CLAIM,
        demand=f"the machine must stand in {where}",
        next_step=STATE_COUNTRY,
    )


def _operator(preset: str, allowed: frozenset[str], where: str) -> Rule:
    return Rule(
        name=f"{preset}.operator",
        attribute="operator_country",
        allowed=allowed,
        evidence_min=EvidenceLevel.CLAIM,
        demand=f"its operator must be established in {where}",
        next_step=STATE_OPERATOR,
    )


def _make_presets() -> Mapping[str, Preset]:
    eea = EEA | ADEQUATE
    presets = (
        Preset(
            name="eu",
            summary="stored and processed in the European Union, by an operator established there",
            rules=(
                _location("eu", EU, "the European Union"),
                _operator("eu", EU, "the European Union"),
            ),
        ),
        Preset(
            name="eea-gdpr",
            summary="stored and processed in the EEA or a country with an adequacy decision",
            rules=(
                _location("eea-gdpr", eea, "the EEA or an adequate country"),
                _operator("eea-gdpr", eea, "the EEA or an adequate country"),
            ),
        ),
        *(
            Preset(
                name=f"country-{code.lower()}",
                summary=f"stored and processed in {code} only",
                rules=(_location(f"country-{code.lower()}", frozenset({code}), code),),
            )
            for code in sorted(EEA | {"CH", "GB"})
        ),
    )
    return MappingProxyType({preset.name: preset for preset in presets})


PRESETS: Mapping[str, Preset] = _make_presets()
"""Every preset that a policy may name."""


def find_presets(names: Iterable[str], *, path: str = "policy") -> tuple[Preset, ...]:
    """Return the presets of these names, in order and without repeats.

    Raises ``InvalidRequest`` with the path and the nearest known name for an unknown one.
    """
    found: dict[str, Preset] = {}
    for index, name in enumerate(names):
        preset = PRESETS.get(name)
        if preset is None:
            close = get_close_matches(name, PRESETS, n=1)
            hint = f"did you mean {close[0]}?" if close else "known are eu, eea-gdpr, country-de …"
            message = f"no policy preset is named {name!r}; {hint}"
            raise InvalidRequest(message, path=f"{path}[{index}]")
        found[name] = preset
    return tuple(found.values())
