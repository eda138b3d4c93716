"""From a reference or an object to a target that is ready to be queried, without running untrusted code."""
