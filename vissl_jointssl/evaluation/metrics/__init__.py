"""Numbers that a prediction gets, each by a stated definition and with its rule for what is empty."""
