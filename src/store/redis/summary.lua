-- KEYS: the record's. Answers what a summary shows of it, with the value of the key ARGV[1].
local meta, head, user = unpack(redis.call('HMGET', KEYS[1], 'meta', 'head', 'user'))
if not meta then return {} end
local begins = string.sub(meta, 1, 11)
local seen, note = unpack(redis.call('HMGET', KEYS[1], 'e' .. begins, begins .. ARGV[1]))
return { meta, head, user, seen, note }
