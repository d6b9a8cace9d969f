-- KEYS: a user's index. For clusters, where no other script reaches it. Adds an id that is kept until ARGV[3],
-- or removes it.
local id, score = ARGV[1], ARGV[3]
if score then index_add(KEYS[1], id, score) else redis.call('ZREM', KEYS[1], id) end
return { DONE }
