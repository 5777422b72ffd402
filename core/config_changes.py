"""What an edit of the settings costs, in words; pure."""
