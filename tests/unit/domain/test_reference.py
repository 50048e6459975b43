"""References to weights: read as written, pinned for ever, refused with the right form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.base.errors import InvalidRequest
from tramontane.domain.reference import (
    BucketReference,
    BundledReference,
    FileReference,
    HubReference,
    Reference,
    RegistryReference,
    parse_reference,
)
from tramontane.domain.weights import RemoteFile, is_safe_name, make_state

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STATE = "0123456789abcdef0123456789abcdef"
DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "reference", "label"),
    [
        ("tiny", BundledReference(name="tiny"), "tiny"),
        ("/models/a b#1.gguf", FileReference(path="/models/a b#1.gguf"), "a b#1"),
        ("file:///models/a%20b.gguf", FileReference(path="/models/a b.gguf"), "a b"),
        ("/models//mistral/./", FileReference(path="/models/mistral"), "mistral"),
        ("/m/x-00001-of-00003.gguf", FileReference(path="/m/x-00001-of-00003.gguf"), "x"),
        ("hf://org/Repo.v1", HubReference(repository="org/Repo.v1"), "Repo.v1"),
        ("hf://o/r@main", HubReference(repository="o/r"), "r"),
        ("hf://o/r@refs/pr/1", HubReference(repository="o/r", revision="refs/pr/1"), "r"),
        (
            f"hf://o/r@{COMMIT}:q4/m.gguf",
            HubReference(repository="o/r", revision=COMMIT, file="q4/m.gguf"),
            "m",
        ),
        ("s3://models/7b/", BucketReference(bucket="models", key="7b/"), "7b"),
        ("s3://models/a#b@c.gguf", BucketReference(bucket="models", key="a#b@c.gguf"), "a#b@c"),
        (
            f"s3://models/m.gguf#{STATE}",
            BucketReference(bucket="models", key="m.gguf", state=STATE),
            "m",
        ),
        (
            "oci://localhost:5000/a/b",
            RegistryReference(registry="localhost:5000", repository="a/b", tag="latest"),
            "b",
        ),
        (
            "oci://registry.example.eu/a:7b",
            RegistryReference(registry="registry.example.eu", repository="a", tag="7b"),
            "a",
        ),
        (
            f"oci://[::1]:5000/a:7b@{DIGEST}",
            RegistryReference(registry="[::1]:5000", repository="a", digest=DIGEST),
            "a",
        ),
    ],
)
def test_a_reference_is_read_as_it_is_written(text: str, reference: Reference, label: str) -> None:
    found = parse_reference(text)
    assert found == reference
    assert found.label == label
    assert parse_reference(str(found)) == found


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("tiny", True),
        ("/m.gguf", False),
        (f"file:///m.gguf#{STATE}", True),
        ("hf://o/r", False),
        ("hf://o/r@v1", False),
        (f"hf://o/r@{COMMIT[:12]}", False),
        (f"hf://o/r@{COMMIT}", True),
        ("s3://models/m.gguf", False),
        (f"s3://models/m.gguf#{STATE}", True),
        ("oci://r.eu/m:1", False),
        (f"oci://r.eu/m@{DIGEST}", True),
    ],
)
def test_only_what_cannot_move_is_pinned(text: str, pinned: bool) -> None:
    assert parse_reference(text).pinned is pinned


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither bundled"),
        ("mistral", "bundled is tiny"),
        ("mistralai/Mistral-7B", "write hf://mistralai/Mistral-7B for a model hub"),
        ("models/m.gguf", "absolute path"),
        ("https://huggingface.co/org/repo", "write hf://org/repo"),
        ("https://example.eu/m.gguf", "https is no source of weights"),
        ("gs://bucket/m", "gs is no source of weights; there are hf://, s3://, oci://"),
        ("file://models/m.gguf", "not absolute; expected file:///DIRECTORY/FILE"),
        ("hf://repo", "'repo' is not ORGANIZATION/REPOSITORY; expected hf://ORGANIZATION"),
        ("hf://o/r/m.gguf", "not ORGANIZATION/REPOSITORY"),
        ("hf://../r", "not ORGANIZATION/REPOSITORY"),
        ("hf://o/r@", "no branch, tag or commit"),
        ("hf://o/r@a..b", "no branch, tag or commit"),
        ("hf://o/r:", "no path of a file"),
        ("hf://o/r:../../etc/passwd", "no path of a file"),
        ("s3://models", "names no object in the bucket"),
        ("s3://models/", "names no object in the bucket"),
        ("s3://Models/m", "no name of a bucket"),
        ("oci://registry.example.eu", "no repository"),
        ("oci:///m", "no host of a registry"),
        ("oci://user@registry/m", "no repository"),
        ("oci://registry/M", "no repository"),
        ("oci://registry/m:", "no tag"),
        ("oci://registry/m@sha256:1", "no digest"),
        ("hf://o/r\n", "cannot be printed"),
    ],
)
def test_a_wrong_reference_is_refused_with_the_right_form(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_reference(text)
    assert says in refused.value.message
    assert refused.value.path == "source.model"


@given(st.text(max_size=80) | st.from_regex(r"(hf|s3|oci|file)://[ -~]{0,60}", fullmatch=True))
def test_every_text_is_read_or_refused_and_written_back(text: str) -> None:
    try:
        found = parse_reference(text)
    except InvalidRequest:
        return
    assert parse_reference(str(found)) == found


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a\\b", "a\0b", "a\nb", "a" * 513]
)
def test_a_name_that_leads_elsewhere_is_not_safe(name: str) -> None:
    assert not is_safe_name(name)
    assert is_safe_name("q4/model-00001-of-00002.gguf")


def test_a_state_changes_with_what_it_stands_for_and_not_with_its_order() -> None:
    one = RemoteFile(name="a", size_bytes=1, location="a", version="v1")
    other = RemoteFile(name="b", size_bytes=1, location="b", version="v1")
    newer = RemoteFile(name="a", size_bytes=1, location="a", version="v2")
    assert make_state([one, other]) == make_state([other, one])
    assert len({make_state(each) for each in ([one], [newer], [other], [one, other])}) == 4
