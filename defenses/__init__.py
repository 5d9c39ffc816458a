"""Retrain a model to withstand attacks. Pure torch; knows attacks and the contract."""
