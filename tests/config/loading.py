"""Loads YAML texts as files of one folder, the ledger beside them."""

from collections.abc import Mapping
from pathlib import Path

from cortexd.config.load import ConfigProblems, Loaded, load
from cortexd.config.problems import Problem


class Folder:
    """A folder for configuration files; `load` and `problems` take the text of cortexd.yaml."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {"STATE_DIRECTORY": str(path / "state")}

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes a file beside cortexd.yaml."""
        file = self.path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def load(
        self,
        text: str | bytes,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> Loaded:
        """What `load` makes of this text."""
        file = self.write("cortexd.yaml", text)
        return load(file, {**self.environment, **(environment or {})}, flags or {})

    def problems(
        self, text: str | bytes, environment: Mapping[str, str] | None = None
    ) -> list[Problem]:
        """The problems that `load` raises; none when it loads."""
        try:
            self.load(text, environment)
        except ConfigProblems as found:
            return found.problems
        return []

    def told(self, text: str | bytes, environment: Mapping[str, str] | None = None) -> list[str]:
        """The same as `where: what` lines."""
        return [f"{one.where}: {one.what}" for one in self.problems(text, environment)]
