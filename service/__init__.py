"""The web side: REST API and embedded stack. Never loads torch."""
