"""Pages of a report as PDF, by WeasyPrint (extra ``pdf``)."""

from __future__ import annotations

import logging

from PIL import ImageFile

from securitynet.errors import ConfigurationError, MissingExtra


def print_pdf(page: str) -> bytes:
    """A PDF of a self-contained page; nothing is fetched.

    Raises:
        MissingExtra: If WeasyPrint is not installed.
        ConfigurationError: If the libraries of the system that it needs are not there.
    """
    strict = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        import weasyprint
        import weasyprint.urls
    except ImportError as error:
        raise MissingExtra("weasyprint", "pdf", "A PDF") from error
    except OSError as error:  # it loads Pango when it is imported
        raise ConfigurationError(
            f"WeasyPrint can't be used: {str(error).splitlines()[0]}",
            hint="Install Pango (Debian: libpango-1.0-0 libpangoft2-1.0-0), or print the HTML from a browser.",
        ) from error
    finally:
        # Importing it lets Pillow fill cut-off images with grey, in the whole process: datasets must refuse those.
        ImageFile.LOAD_TRUNCATED_IMAGES = strict

    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it would warn about every rule for screens
    fetcher = weasyprint.urls.URLFetcher(allowed_protocols=["data"])  # a report loads nothing
    content: bytes = weasyprint.HTML(string=page, url_fetcher=fetcher).write_pdf()
    return content
