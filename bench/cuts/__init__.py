"""chatd's processes killed, or cut from Redis, between any two commands they send it."""
