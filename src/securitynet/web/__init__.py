"""The web page and the JSON API: `securitynet serve`. Reads any database the catalog supports, writes to none."""
