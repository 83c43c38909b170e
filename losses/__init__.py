"""Tensors -> named scalars.  Looks at images through the networks of `features`.  Knows no
field."""
