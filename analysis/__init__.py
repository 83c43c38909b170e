"""Pictures and numbers of the feature space that jointly trained fields share."""
