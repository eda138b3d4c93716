"""Names of models, attacks, detectors, defenses, datasets and architectures. Listing loads no torch, except models."""

from __future__ import annotations

import fnmatch

from securitynet.errors import UnknownName

_LIBRARIES = ("pytorchcv", "timm", "torchvision")


def list_attacks(family: str | None = None) -> list[str]:
    """Full names of all attacks, for ``attacks=[...]`` of `securitynet.assess`.

    Args:
        family: Only of one: ``membership``, ``stealing``, ``inversion``, ``attribute`` or ``evasion``.

    Raises:
        UnknownName: If there is no such family.
    """
    from securitynet.attacks import ATTACKS

    if family is not None and family not in ATTACKS.families():
        raise UnknownName("family of attacks", family, ATTACKS.families())
    return ATTACKS.names(family)


def list_detectors() -> list[str]:
    """Names of all backdoor detectors, for ``detectors=[...]`` of `securitynet.assess`."""
    from securitynet.detectors import DETECTORS

    return DETECTORS.names()


def list_defenses() -> list[str]:
    """Names of all defenses, of trainings and of outputs."""
    from securitynet.defenses import DEFENSES

    return DEFENSES.names()


def list_backdoors() -> list[str]:
    """Names of all backdoors that `securitynet.train` can plant."""
    from securitynet.backdoors import BACKDOORS

    return BACKDOORS.names()


def list_datasets() -> list[str]:
    """Names of all datasets, for `securitynet.load_dataset`; ``folder:PATH`` and ``parquet:PATH`` name your own."""
    from securitynet.datasets.registry import DATASETS

    return DATASETS.names()


def list_architectures() -> list[str]:
    """Names of the architectures that `securitynet.train` builds; networks of other libraries have references."""
    from securitynet.models.architectures import ARCHITECTURES

    return ARCHITECTURES.names()


def list_backends() -> dict[str, str]:
    """The kinds of model that are understood: scheme of the reference -> an example of one."""
    from securitynet.models.sources.schemes import SCHEMES

    return {scheme.name: scheme.example for scheme in SCHEMES.schemes}


def list_models(pattern: str = "*", *, source: str | None = None) -> list[str]:
    """References of public models that can be loaded: those of the installed libraries, and of your catalog.

    Args:
        pattern: As of file names, for what follows the scheme: ``"resnet20*"``.
        source: Only of ``pytorchcv``, ``timm``, ``torchvision`` or ``catalog``.

    Raises:
        UnknownName: If there is no such source.
        NotInstalled: If its package is not installed.
    """
    from securitynet.catalog.collectors import COLLECTORS

    if source is not None and source not in (*_LIBRARIES, "catalog"):
        raise UnknownName("source of models", source, (*_LIBRARIES, "catalog"))
    references: set[str] = set()
    for library in _LIBRARIES:
        if source in (None, library):
            for items, _ in COLLECTORS.get(library)().pages(None):
                references |= {item.entry.reference for item in items if item.entry.reference}
    if source in (None, "catalog"):
        references |= _list_catalog()
    return sorted(name for name in references if fnmatch.fnmatch(name.partition(":")[2], pattern))


def _list_catalog() -> set[str]:
    """References of the entries of the user's catalog, if there is one."""
    from securitynet import catalog
    from securitynet.catalog.location import find_default_url, is_database_missing

    if is_database_missing(find_default_url()):
        return set()
    with catalog.open() as opened:
        return {entry.reference for entry in opened.query() if entry.reference}
