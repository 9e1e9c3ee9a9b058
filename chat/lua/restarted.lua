-- Note that Redis had no scripts: it has just been started, or another server has taken over. See `is_recalling`.
let_through()
redis.call('SET', 'chatd:restarted', int(now_ms()))
