"""What a collector is."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from typing_extensions import override

from securitynet.catalog.store import Item
from securitynet.errors import SecurityNetError


class NotInstalled(SecurityNetError):
    """The library that a collector reads is not installed here."""


class Collector(ABC):
    """Harvests entries from one source.

    Attributes:
        library: Name of the installed package that it reads.
        install: How to install it.
        online: Whether it needs a network; ``collect --all`` passes those over.
    """

    library: ClassVar[str]
    install: ClassVar[str | None] = None
    online: ClassVar[bool] = False

    @abstractmethod
    def pages(self, cursor: Any) -> Iterator[tuple[list[Item], Any]]:
        """The models in parts, each with the mark from which to go on after it; each part is stored in one transaction.

        Args:
            cursor: Mark of the last part that was stored, or None to begin.

        Raises:
            NotInstalled: If the library is not installed.
        """

    def source(self) -> str:
        """The library and its version, as the source of what is collected.

        Raises:
            NotInstalled: If the library is not installed.
        """
        return f"{self.library} {self.version()}"

    def version(self) -> str:
        """The installed version.

        Raises:
            NotInstalled: If the library is not installed.
        """
        try:
            return importlib.metadata.version(self.library)
        except importlib.metadata.PackageNotFoundError:
            raise NotInstalled(
                f"{self.library} is not installed, so its models cannot be collected.",
                hint=f"Install it: {self.install or f'pip install {self.library}'}",
            ) from None


class LibraryCollector(Collector):
    """Harvests an installed library in one go."""

    @abstractmethod
    def collect(self) -> Iterator[Item]:
        """All image models of the library.

        Raises:
            NotInstalled: If the library is not installed.
        """

    @override
    def pages(self, cursor: Any) -> Iterator[tuple[list[Item], Any]]:
        del cursor  # There is one part only.
        yield list(self.collect()), None
