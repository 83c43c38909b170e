"""A web page on which a trained field, or one in training, is looked at; viser is imported in
`viewer.page` alone."""
