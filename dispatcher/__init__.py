"""What the dispatcher knows and offers, free of Ray."""
