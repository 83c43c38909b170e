"""What painted views are measured by: consistency, style, content, and the controls beside them."""
