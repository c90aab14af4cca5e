"""``wan-alpha demo``: the whole road on the tiny family, in minutes, with figures that must be met."""
