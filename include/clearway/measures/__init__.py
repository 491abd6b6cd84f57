"""Pure numbers: scores of predictions, resampling by day, distances between distributions. No files, no clocks."""
