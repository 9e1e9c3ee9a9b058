-- Where a job stands that is not being called: what for it waits, its place, and when its turn may come.
-- ARGV: 1 id
-- Returns {why, until (ms) or '', position or '', estimated start (ms) or ''}, or nil when it waits for nothing
return standing(ARGV[1])
