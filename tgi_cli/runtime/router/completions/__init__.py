"""`/v1/completions`: what a call asks for, and how its tokens become choices."""
