-- KEYS: a user's index. For clusters, where no other script reaches it.
if expires then index_add(KEYS[1]) else redis.call('ZREM', KEYS[1], id) end
return { DONE }
