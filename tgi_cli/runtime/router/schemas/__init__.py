"""The JSON bodies of requests and replies, as structs: key order is the order on the wire."""
