"""``make chaos``: trainings and sweeps that are killed, and stores that fail, against ones that
nothing disturbs."""
