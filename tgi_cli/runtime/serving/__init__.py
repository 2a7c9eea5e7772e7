"""Start the router and the engine, watch, drain, stop. Only here are both known."""
