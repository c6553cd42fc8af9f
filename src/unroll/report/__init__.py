"""Runs to figures and to the page. Reads the tracking store only."""
