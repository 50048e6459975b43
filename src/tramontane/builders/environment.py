"""The environment that a build's tools see: an allow-list, pure.

Builds run code of the user and of strangers (setup.py, build.rs, npm scripts), so nothing of the
platform's own environment is let through except where packages come from and how to reach it.
"""

from collections.abc import Collection, Mapping

BASE_PATH = ("/usr/local/bin", "/usr/bin", "/bin")

PREFIXES = ("PIP_", "UV_", "NPM_CONFIG_", "CARGO_")
NAMES = frozenset(
    {
        *("GOPROXY", "GOFLAGS", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE"),
        *("GOTOOLCHAIN", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("NODE_EXTRA_CA_CERTS", "MAVEN_OPTS", "MAVEN_ARGS"),
    }
)
HELD_BACK = frozenset(
    {
        # Places: the build has its own.
        *("CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "CARGO_INSTALL_ROOT"),
        *("UV_CACHE_DIR", "UV_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_SYSTEM_PYTHON", "UV_PROJECT"),
        *("UV_PROJECT_ENVIRONMENT", "UV_TOOL_DIR", "UV_TOOL_BIN_DIR"),
        *("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_CACHE_DIR", "NPM_CONFIG_CACHE"),
        *("NPM_CONFIG_PREFIX", "NPM_CONFIG_USERCONFIG", "NPM_CONFIG_GLOBALCONFIG"),
        # Credentials that publish: no build needs them.
        *("CARGO_REGISTRY_TOKEN", "UV_PUBLISH_TOKEN", "UV_PUBLISH_USERNAME"),
        *("UV_PUBLISH_PASSWORD", "UV_PUBLISH_URL"),
    }
)
FILES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
FILE_NAMES = frozenset({*FILES, "NODE_EXTRA_CA_CERTS", "NPM_CONFIG_CAFILE", "UV_CONFIG_FILE"})
"""Variables whose value is a file or folder that the tools must be able to read."""

PROXIES = (
    *("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "PIP_PROXY"),
    *("NPM_CONFIG_HTTPS_PROXY", "NPM_CONFIG_PROXY", "CARGO_HTTP_PROXY"),
)
"""Variables that say how to get out. The operator's say how this machine does."""
NO_PROXIES = ("NO_PROXY", "NPM_CONFIG_NOPROXY")
OWN_HOSTS = ("localhost", "127.0.0.1", "::1")

MAVEN_SETTINGS = """\
<settings>
  <proxies>
    <proxy>
      <id>build</id><active>true</active><protocol>http</protocol>
      <host>127.0.0.1</host><port>{port}</port>
    </proxy>
  </proxies>
</settings>
"""
"""Of the user, for Maven: the one tool that takes no notice of the variables."""

FOR_UV = (
    # uv does not read pip's variables; an operator who set them means every Python build.
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
    ("PIP_CERT", "SSL_CERT_FILE"),
)


def build_environment(operator: Mapping[str, str]) -> dict[str, str]:
    """Return what of the operator's environment a build may see, plus a neutral locale."""
    allowed = {
        name: value
        for name, value in operator.items()
        if (name.upper() in NAMES or name.upper().startswith(PREFIXES))
        and name.upper() not in HELD_BACK
    }
    for source, target in FOR_UV:
        if source in allowed:
            allowed.setdefault(target, allowed[source])
    return {"LANG": "C.UTF-8", **allowed}


def enclosed_environment(
    environment: Mapping[str, str], proxy: str, named: Collection[str]
) -> dict[str, str]:
    """Return the environment of a step whose only way out is ``proxy``.

    What runs on the step's own loopback, a server under test for one, is reached without it,
    unless the operator named that host as a source of packages: then the machine's is meant.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name.upper() not in PROXIES and name.upper() not in NO_PROXIES
    }
    ours = dict.fromkeys(PROXIES, proxy)
    direct = ",".join(host for host in OWN_HOSTS if host not in named)
    ours |= dict.fromkeys(NO_PROXIES, direct)
    # Some tools read the one spelling, some the other; npm only its own in lower case.
    ours |= {name.lower(): value for name, value in ours.items()}
    # A JVM asks the user database, not HOME, where Maven's settings lie.
    maven = f"{environment.get('MAVEN_OPTS', '')} -Duser.home={environment['HOME']}".strip()
    return {**kept, **ours, "NODE_USE_ENV_PROXY": "1", "MAVEN_OPTS": maven}


def readable_paths(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the certificate and configuration files that the environment names."""
    named = {value for name, value in environment.items() if name.upper() in FILE_NAMES}
    links = environment.get("PIP_FIND_LINKS", "").split()
    return tuple(sorted(path for path in {*named, *links} if path.startswith("/")))


def tool_environment() -> dict[str, str]:
    """Return where each tool keeps its caches, and that it asks no questions; for all steps."""
    return {
        "HOME": "/tmp/home",  # noqa: S108 - inside the sandbox /tmp is private
        "TMPDIR": "/tmp",  # noqa: S108
        "CI": "1",
        "UV_CACHE_DIR": "/cache/uv",
        "UV_LINK_MODE": "copy",  # hard links do not cross the sandbox's mounts
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "PIP_CACHE_DIR": "/cache/pip",
        "npm_config_cache": "/cache/npm",
        "npm_config_update_notifier": "false",
        "GOCACHE": "/cache/go-build",
        "GOMODCACHE": "/cache/go-mod",
        "GOPATH": "/cache/go",
        "CARGO_HOME": "/cache/cargo",
    }
