"""Tensors -> named scalars.  Owns its frozen feature networks.  Knows no field."""
