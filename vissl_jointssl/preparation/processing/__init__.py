"""A source in memory to the arrays that training reads: turned, resampled, windowed, cropped, cut."""
