"""Find the jar that Maven made and how it is started; ``build`` calls it after the steps ran."""

import re
import zipfile
from pathlib import Path

from tramontane.base.errors import BuildFailed
from tramontane.builders.detect_compiled import JAVA_FLAGS

CLASS_PATH = "/app/target/dependency/*"
ASIDE = ("-sources.jar", "-javadoc.jar", "-tests.jar", "-test-sources.jar")
MANIFEST = "META-INF/MANIFEST.MF"


def find_start(app: Path) -> tuple[str, ...]:
    """Return the command that starts the jar below ``target/`` that names a main class.

    A jar that holds its dependencies wins over one that does not (shade writes the plain one as
    ``original-….jar``); a plain one gets its dependencies on the class path.
    """
    jars = [
        path
        for path in sorted((app / "target").glob("*.jar"))
        if not path.name.endswith(ASIDE) and not path.name.startswith("original-")
    ]
    started = [(path, main) for path in jars if (main := read_main_class(path)) is not None]
    if not started:
        made = ", ".join(path.name for path in jars) or "no jar"
        raise BuildFailed(
            f"Maven made {made}, but none names its main class; set `mainClass` in the manifest "
            "configuration of maven-jar-plugin, or set `run` in tramontane.yaml"
        )
    path, main = max(started, key=lambda item: item[0].stat().st_size)
    jar = f"/app/target/{path.name}"
    if any((app / "target/dependency").glob("*.jar")) and not _is_fat(path):
        return ("java", *JAVA_FLAGS, "-cp", f"{jar}:{CLASS_PATH}", main)
    return ("java", *JAVA_FLAGS, "-jar", jar)


def read_main_class(jar: Path) -> str | None:
    """Return the main class that a jar's manifest names."""
    try:
        with zipfile.ZipFile(jar) as archive:
            manifest = archive.read(MANIFEST).decode("utf-8", errors="replace")
    except (KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, KeyError):
            return None
        raise BuildFailed(f"{jar.name} is no readable jar; build it anew") from error
    # A long value goes on in the next line, after one space.
    unfolded = manifest.replace("\r\n", "\n").replace("\n ", "")
    match = re.search(r"^Main-Class:\s*(\S+)", unfolded, re.MULTILINE)
    return match.group(1) if match else None


def _is_fat(jar: Path) -> bool:
    with zipfile.ZipFile(jar) as archive:
        names = archive.namelist()
    poms = sum(name.startswith("META-INF/maven/") and name.endswith("pom.xml") for name in names)
    return poms > 1 or any(name.startswith(("BOOT-INF/", "lib/")) for name in names)
