"""One job in, one report out. Knows everything but service and client."""
