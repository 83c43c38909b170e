"""Frozen 2D networks that losses and stylisers look through.  Knows no field and no loss."""
