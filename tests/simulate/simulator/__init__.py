"""A computer in memory for the recorder and the drain, and the rules its books must keep."""
