"""The database's migrations, run by `securitynet.catalog.database` when a catalog is opened."""
