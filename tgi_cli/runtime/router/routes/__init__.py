"""The handlers, one module per family of routes. Each gets the `Service` and a decoded body."""
