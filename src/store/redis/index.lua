-- KEYS: a user's index. For clusters, where no other script reaches it. What is to be in it, or no more, comes
-- first, and when that ends only if it is to be there.
local id = ARGV[1]
if expires then index_add(KEYS[1], id) else redis.call('ZREM', KEYS[1], id) end
return { DONE }
