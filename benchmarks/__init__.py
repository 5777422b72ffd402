"""Figures, as ratios to a bare yardstick measured in the same run; nothing is asserted."""
