"""How requests for an alias are shared out, given which model services there are.

Called by ``reconcile.aliases``; the gateway makes Envoy's messages from the result.
"""

from collections.abc import Collection

from tramontane.domain.alias import Alias
from tramontane.domain.route import LOTS, AliasRoute, Choice


def plan_alias(alias: Alias, models: Collection[str]) -> AliasRoute:
    """Return the route of ``alias`` when ``models`` are the model services of its project.

    A service that is gone is skipped: the others take over its share in proportion. When none of
    the targets is left, the fallbacks serve. Nobody is asked twice for one request.
    """
    definition = alias.definition
    fallbacks = tuple(name for name in definition.fallbacks if name in models)
    targets = [each for each in definition.targets if each.service in models and each.percent > 0]
    choices = [
        Choice(chain=_chain(each.service, fallbacks), header=(each.header, each.value))
        for each in definition.canaries
        if each.service in models
    ]
    whole, below = sum(each.percent for each in targets), 0
    for target in targets:
        below += target.percent
        chain = _chain(target.service, fallbacks)
        choices.append(Choice(chain=chain, lots=LOTS * below // whole))
    if not targets and fallbacks:
        choices.append(Choice(chain=_chain(fallbacks[0], fallbacks)))
    return AliasRoute(
        project=alias.project,
        alias=alias.name,
        # A canary alone serves only those who ask for it; the others are told that nothing is left.
        choices=tuple(choices),
        first_token_s=definition.first_token_s,
        between_tokens_s=definition.between_tokens_s,
    )


def _chain(first: str, fallbacks: tuple[str, ...]) -> tuple[str, ...]:
    return (first, *(name for name in fallbacks if name != first))
