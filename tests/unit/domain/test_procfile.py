"""What a Procfile says, and what it makes of a source where nobody says more."""

import pytest

from tramontane.domain.definition import ServiceKind
from tramontane.domain.procfile import implied_kind, read_procfile


def test_lines_are_commands_by_type() -> None:
    text = "# web: no\n web : a --x b:c \nworker:\nworker: d\nworker: e\n\nnothing\n: f\n"
    assert read_procfile(text) == {"# web": "no", "web": "a --x b:c", "worker": "d"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("worker: a", ServiceKind.WORKER),
        ("clock: b\nworker: a", ServiceKind.WORKER),
        ("web: b\nworker: a", ServiceKind.WEB),
        ("worker:", ServiceKind.WEB),
        ("clock: b", ServiceKind.WEB),
        ("", ServiceKind.WEB),
    ],
)
def test_a_source_that_only_works_is_a_worker(text: str, kind: ServiceKind) -> None:
    assert implied_kind(text) is kind
