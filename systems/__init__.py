"""LightningModules: the schedule of one kind of training.  Ties fields, losses and data."""
