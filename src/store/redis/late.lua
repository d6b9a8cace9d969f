-- KEYS: the record's. Undoes a plain write under the verifier ARGV[1], to the fields that follow, if the record
-- was destroyed or renewed before it.
local meta = redis.call('HGET', KEYS[1], 'meta')
if not meta then
    redis.call('DEL', KEYS[1])
elseif string.match(meta, '^%S+') ~= ARGV[1] then
    each_chunk('HDEL', KEYS[1], ARGV, 2, #ARGV)
end
return { DONE }
