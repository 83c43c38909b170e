"""Files of each format -> views -> Scene: one file a format, registered in `names`."""
