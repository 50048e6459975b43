"""What an operator says about sources: file before environment, clear errors, no secret in any."""

import re
from pathlib import Path

import pytest

from tramontane.base.errors import InvalidRequest
from tramontane.processes.sources import FILE, read_sources
from tramontane.weights.settings import BucketSettings, HubSettings, SourceSettings

ENVIRONMENT = {
    "HF_ENDPOINT": "http://hub.example:8000",
    "HF_TOKEN": "hf_environment",
    "HF_HUB_OFFLINE": "TRUE",
    "AWS_ENDPOINT_URL": "https://s3.example.eu",
    "AWS_DEFAULT_REGION": "eu-1",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "secret",
}


def write(home: Path, text: str, mode: int = 0o600) -> None:
    (home / FILE).write_text(text)
    (home / FILE).chmod(mode)


def test_without_a_word_the_defaults_hold(tmp_path: Path) -> None:
    assert read_sources(tmp_path, {}) == SourceSettings()
    assert SourceSettings().hub.endpoint == "https://huggingface.co"
    write(tmp_path, "# nothing yet\n", 0o644)
    assert read_sources(tmp_path, {}) == SourceSettings()


def test_the_usual_variables_are_heard_and_the_file_wins(tmp_path: Path) -> None:
    found = read_sources(tmp_path, ENVIRONMENT)
    assert found.hub == HubSettings(
        endpoint="http://hub.example:8000", token="hf_environment", offline=True
    )
    assert found.bucket == BucketSettings(
        endpoint="https://s3.example.eu",
        region="eu-1",
        access_key_id="id",
        secret_access_key="secret",
    )
    write(
        tmp_path,
        "hf: {endpoint: https://hub.example.eu, token: '', offline: false}\n"
        "oci:\n  localhost:5000: {username: robot, password: 123, plain_http: true}\n",
    )
    found = read_sources(tmp_path, ENVIRONMENT)
    assert found.hub == HubSettings(endpoint="https://hub.example.eu")
    assert found.bucket.region == "eu-1"
    registry = found.registries["localhost:5000"]
    assert (registry.username, registry.password, registry.plain_http) == ("robot", "123", True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hf: {tokn: hf_secret}", "hf.tokn: unknown key; did you mean token?"),
        ("hub: {}", "hub: unknown key; known here: hf, s3, oci"),
        ("hf: hf_secret", "hf: expected keys with values"),
        ("hf: {offline: hf_secret}", "hf.offline: expected true or false"),
        ("oci: {r.eu: {password: {a: hf_secret}}}", "oci.r.eu.password: expected text"),
        ("- hf_secret", "the file: expected keys with values"),
        ("hf: {endpoint: 'ftp://hf_secret'}", "hf.endpoint in"),
        ("hf: {endpoint: 'https://u:hf_secret@hub'}", "without credentials"),
    ],
)
def test_a_mistake_is_named_and_no_value_repeated(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, text)
    with pytest.raises(InvalidRequest) as refused:
        read_sources(tmp_path, {})
    assert says in refused.value.message
    assert "hf_secret" not in refused.value.message
    assert refused.value.path == FILE


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    write(tmp_path, "oci: {r.eu: {username: a, password: b}}", 0o640)
    with pytest.raises(InvalidRequest, match="open to others: chmod 600"):
        read_sources(tmp_path, {})
    write(tmp_path, "hf: {endpoint: https://hub.example.eu}", 0o644)
    assert read_sources(tmp_path, {}).hub.endpoint == "https://hub.example.eu"


def test_the_example_of_the_page_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    write(tmp_path, example)
    found = read_sources(tmp_path, {})
    assert found.hub.offline
    assert found.bucket.region == "eu-west-1"
    assert found.registries["localhost:5000"].username == ""
    assert found.registries["old.example.eu"].plain_http
