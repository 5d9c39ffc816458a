"""Find x' near x that the model gets wrong. Pure torch; knows the contract only."""
