"""Options as asked, and the configuration that follows from them."""
