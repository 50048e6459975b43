"""What sandboxes look like, as the exact arguments of bubblewrap."""

import pytest

from tramontane.base.errors import InvalidRequest
from tramontane.domain.artifact import Artifact, Listen, Mount
from tramontane.domain.definition import Probe, ProbeKind, Resources
from tramontane.domain.ids import InstanceId
from tramontane.runtimes.process.sandbox import (
    HostTree,
    check_artifact,
    hostname,
    make_environment,
    make_sandbox,
    tmpfs_bytes,
    without_sandbox,
)
from tramontane.runtimes.runtime import InstanceSpec

TREE = HostTree(binds=("/usr", "/etc/ssl/certs"), links=(("/bin", "usr/bin"),))

GOLDEN = """
--unshare-user --unshare-ipc --unshare-pid --unshare-uts --unshare-cgroup-try --die-with-parent
--new-session --cap-drop ALL --disable-userns --uid 1000 --gid 1000 --hostname shop-web-2
--json-status-fd 3 --seccomp 5
--ro-bind /usr /usr --ro-bind /etc/ssl/certs /etc/ssl/certs --symlink usr/bin /bin
--proc /proc --dev /dev
--perms 1777 --size 268435456 --tmpfs /tmp
--perms 0700 --size 268435456 --tmpfs /home/app
--perms 1777 --size 268435456 --tmpfs /dev/shm
--perms 0644 --file 6 /etc/passwd --perms 0644 --file 7 /etc/group
--perms 0644 --file 8 /etc/hosts --perms 0644 --file 9 /etc/hostname
--perms 0644 --file 10 /etc/resolv.conf --perms 0644 --file 11 /etc/nsswitch.conf
--ro-bind /mnt/0/app /app --ro-bind /srv/weights /app/weights
--bind /mnt/1/app /run/tram
--remount-ro /dev --remount-ro / --chdir /app
--setenv PATH /app/bin --setenv HOME /home/app --setenv USER app --setenv LOGNAME app
--setenv LANG C.UTF-8 --setenv TMPDIR /tmp
--setenv HTTP_PROXY http://127.0.0.1:3128 --setenv HTTPS_PROXY http://127.0.0.1:3128
--setenv http_proxy http://127.0.0.1:3128 --setenv https_proxy http://127.0.0.1:3128
--setenv NO_PROXY localhost,127.0.0.1,::1 --setenv no_proxy localhost,127.0.0.1,::1
--setenv KEY value --setenv TRAM_INSTANCE ins_1 --setenv TRAM_SOCKET /run/tram/app.sock
""".split()


def spec(**changes: object) -> InstanceSpec:
    artifact = Artifact(
        digest="sha256:0",
        language="python",
        command=("python", "main.py"),
        directory="/app",
        mounts=(
            Mount(source="/srv/weights", target="/app/weights"),
            Mount(source="/var/artifacts/app", target="/app"),
        ),
        environment=(("PATH", "/app/bin"),),
        listen=Listen.UNIX,
    )
    values: dict[str, object] = {
        "id": InstanceId("ins_1"),
        "label": "shop/web#2",
        "artifact": artifact,
        "command": artifact.command,
        "environment": (("KEY", "value"), ("TRAM_INSTANCE", "forged")),
        "resources": Resources(),
        "probe": Probe(),
        "log_path": "/log",
        "egress_socket": "/run/egress.sock",
    }
    return InstanceSpec(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def test_arguments_are_exactly_these() -> None:
    visible = {"/var/artifacts/app": "/mnt/0/app", "/run/r/ins_1/app": "/mnt/1/app"}
    made = make_sandbox(spec(), TREE, visible=visible, app_directory="/run/r/ins_1/app")
    assert list(made.arguments) == GOLDEN
    assert made.command == ("python", "main.py")
    assert b"app:x:1000:1000" in made.files[0]
    assert b"127.0.0.1 localhost shop-web-2" in made.files[2]


def test_without_a_way_out_there_is_no_proxy_and_port_is_set_for_tcp() -> None:
    closed = spec(
        egress_socket=None,
        artifact=Artifact(digest="", language="", command=("x",), directory="/", mounts=()),
    )
    environment = dict(make_environment(closed, port=8080, socket="/s"))
    assert "HTTP_PROXY" not in environment
    assert "TRAM_SOCKET" not in environment
    assert environment["PORT"] == "8080"


def test_bound_models_answer_on_the_sandboxs_own_loopback() -> None:
    given = (("OPENAI_API_KEY", "tram_x"), ("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"))
    bound = spec(environment=given, models_socket="/run/svc_1.models")
    environment = dict(make_environment(bound, port=8080, socket="/s"))
    assert environment["OPENAI_BASE_URL"] == "http://127.0.0.1:3129/v1"
    assert environment["OPENAI_API_KEY"] == "tram_x"
    assert "127.0.0.1" in environment["NO_PROXY"], "or clients would ask the proxy for it"
    unbound = dict(make_environment(spec(), port=8080, socket="/s"))
    assert not {"OPENAI_API_KEY", "OPENAI_BASE_URL"} & unbound.keys()


def test_what_takes_no_connections_is_told_no_place_to_listen() -> None:
    worker = spec(probe=Probe(kind=ProbeKind.NONE))
    assert worker.listen is None
    assert (
        not {"PORT", "TRAM_SOCKET"} & dict(make_environment(worker, port=8080, socket="/s")).keys()
    )


def test_users_cannot_forge_what_the_platform_says() -> None:
    forged = spec(environment=(("TRAM_SOCKET", "/tmp/x"), ("TRAM_INSTANCE", "ins_2")))
    environment = dict(make_environment(forged, port=8080, socket="/s"))
    assert (environment["TRAM_SOCKET"], environment["TRAM_INSTANCE"]) == ("/s", "ins_1")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("shop/web#2", "shop-web-2"),
        ("Ünï/cödé#1", "n-c-d-1"),
        ("///", "instance"),
        ("a" * 100, "a" * 63),
    ],
)
def test_labels_become_host_names(label: str, name: str) -> None:
    assert hostname(label) == name


@pytest.mark.parametrize(
    ("memory", "size"),
    [(1, 16), (64, 32), (512, 256), (64 * 1024, 1024)],
)
def test_temporary_directories_follow_the_memory(memory: int, size: int) -> None:
    resources = Resources(memory_bytes=memory * 1024**2)
    assert tmpfs_bytes(spec(resources=resources)) == size * 1024**2


@pytest.mark.parametrize(
    "mount",
    [
        Mount(source="/a", target="/"),
        Mount(source="/a", target="relative"),
        Mount(source="/a", target="/app/../../etc"),
        Mount(source="/a", target="/proc/self"),
        Mount(source="/a", target="/dev/shm"),
        Mount(source="/a", target="/run/tram"),
        Mount(source="a", target="/app"),
    ],
)
def test_mounts_that_break_the_sandbox_are_refused(mount: Mount) -> None:
    artifact = Artifact(digest="", language="", command=(), directory="/", mounts=(mount,))
    with pytest.raises(InvalidRequest) as caught:
        check_artifact(artifact)
    assert caught.value.path
    assert caught.value.path.startswith("artifact.mounts[0]")


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("/app", "/var/artifacts/app"),
        ("/app/main.py", "/var/artifacts/app/main.py"),
        ("/app/weights/x", "/srv/weights/x"),
        ("/application", "/application"),
        ("/app/bin:/usr/bin", "/var/artifacts/app/bin:/usr/bin"),
        ("main.py", "main.py"),
    ],
)
def test_without_a_sandbox_paths_are_the_hosts(inside: str, outside: str) -> None:
    assert without_sandbox(inside, spec().artifact) == outside
