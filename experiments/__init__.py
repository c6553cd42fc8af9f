"""Studies: which runs answer which question, and the figures that they give."""
