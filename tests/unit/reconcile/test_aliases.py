"""Aliases reach the gateway when they change, when models come and go, and not otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tramontane.base.nudges import NudgeQueue
from tramontane.domain.alias import Alias, AliasDefinition, Share
from tramontane.domain.route import AliasRoute
from tramontane.reconcile.aliases import ALL, AliasReconciler


def make_alias(project: str, name: str, service: str) -> Alias:
    definition = AliasDefinition(targets=(Share(service=service, percent=100),))
    return Alias(project=project, name=name, definition=definition, generation=1, created_at=0.0)


@dataclass
class Memory:
    aliases: list[Alias] = field(default_factory=list)

    def list_aliases(self, project: str | None = None) -> Sequence[Alias]:
        return [each for each in self.aliases if project in (None, each.project)]


@dataclass
class Routes:
    served: dict[tuple[str, str], AliasRoute] = field(default_factory=dict)
    calls: int = 0

    def publish_alias(self, route: AliasRoute) -> None:
        self.calls += 1
        self.served[route.project, route.alias] = route

    def remove_alias(self, project: str, alias: str) -> None:
        self.calls += 1
        del self.served[project, alias]


async def test_what_changed_is_published_and_nothing_else() -> None:
    memory, routes = Memory(), Routes()
    models = {"p": {"small"}, "q": {"small"}}
    reconciler = AliasReconciler(
        store=memory,
        routes=routes,
        models=lambda project: models[project],
        queue=NudgeQueue(lambda: 0.0),
    )
    memory.aliases = [make_alias("p", "a", "small"), make_alias("q", "b", "small")]
    assert len(await reconciler.adopt()) == 2
    await reconciler.reconcile(ALL)
    assert routes.calls == 0
    models["p"] = set()
    await reconciler.reconcile("q")
    assert routes.calls == 0
    await reconciler.reconcile("p")
    assert routes.served["p", "a"].choices == ()
    memory.aliases = memory.aliases[:1]
    await reconciler.reconcile("p")
    assert routes.calls == 1
    models["p"] = {"small"}
    routes.served["q", "b"] = routes.served["p", "a"]
    await reconciler.reconcile(ALL)
    assert set(routes.served) == {("p", "a")}
    assert routes.served["p", "a"].choices
