"""One file per benchmark: ``run_case(settings) -> list[Row]``."""
