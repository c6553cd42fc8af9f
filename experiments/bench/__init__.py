"""``make bench``: ours and the other way in turns, and what the machine and the counts allow."""
