-- The present life of the server; see `life`.
let_through()
return life(now_ms())
