"""Read by every Python process that has this folder on its path: see `dying`."""

import os

if "DYING_UNDER" in os.environ:
    import dying

    dying.install(databases=False)
