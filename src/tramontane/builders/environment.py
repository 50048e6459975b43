"""The environment that a build's tools see: an allow-list, pure.

Builds run code of the user and of strangers (setup.py, build.rs, npm scripts), so nothing of the
platform's own environment is let through except where packages come from and how to reach it.
"""

from collections.abc import Mapping

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
