"""Losses: tensors -> named scalars.  Compares images through the networks of `features`;
independent of fields."""
