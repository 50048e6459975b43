"""What a build can see: nothing of the platform."""

from tramontane.builders.environment import build_environment, readable_paths
from tramontane.builders.sandbox import Bind, Machine, relocate, sandbox_argv

MACHINE = Machine(links=(("usr/bin", "/bin"),), folders=("/usr", "/etc/ssl"))


def test_only_what_names_package_sources_is_let_through() -> None:
    secrets = {
        *("TRAM_HOME", "TRAM_TOKEN", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "HOME", "PATH"),
        *("CARGO_HOME", "CARGO_REGISTRY_TOKEN", "UV_PUBLISH_TOKEN", "npm_config_userconfig"),
        *("LD_PRELOAD", "PYTHONPATH", "NODE_OPTIONS"),
    }
    wanted = {"PIP_CERT", "GOPROXY", "https_proxy", "NPM_CONFIG_REGISTRY", "CARGO_NET_OFFLINE"}
    seen = build_environment(dict.fromkeys({*secrets, *wanted}, "/x"))
    assert wanted <= set(seen)
    assert not secrets & set(seen)


def test_settings_of_pip_count_for_uv() -> None:
    seen = build_environment({"PIP_INDEX_URL": "a", "PIP_CERT": "/c", "SSL_CERT_FILE": "/own"})
    assert seen["UV_DEFAULT_INDEX"] == "a"
    assert seen["SSL_CERT_FILE"] == "/own"
    assert readable_paths(seen) == ("/c", "/own")


def test_the_sandbox_shows_binds_and_nothing_else() -> None:
    binds = [
        Bind(source="/s/nm", target="/app/node_modules"),
        Bind(source="/s/app", target="/app", writable=True),
    ]
    argv = sandbox_argv("bwrap", MACHINE, binds, "/app", ["npm", "ci"])
    text = " ".join(argv)
    assert "--ro-bind / /" not in text
    assert "--unshare-pid --unshare-ipc --unshare-uts" in text
    assert "--die-with-parent" in text
    assert "--unshare-user" in text
    assert "--seccomp 5" in text
    assert "--cap-drop ALL" in text
    # Whoever builds owns the memory that holds / and /dev.
    assert "--remount-ro /dev --remount-ro /" in text
    # The outer folder must come first, or it would cover the inner one.
    assert text.index("--bind /s/app /app ") < text.index("--ro-bind /s/nm /app/node_modules")
    assert argv[-5:] == ["--chdir", "/app", "--", "npm", "ci"]


def test_paths_are_replaced_whole() -> None:
    binds = [Bind(source="/s/a", target="/app"), Bind(source="/s/l", target="/layers/python")]
    wanted = "/s/l/bin:/s/a/src:/application:/x/app:/layers/python3"
    assert relocate("/layers/python/bin:/app/src:/application:/x/app:/layers/python3", binds) == (
        wanted
    )
