-- KEYS: the record's. Answers its owner. With an owner in ARGV[4], destroys it only if it is theirs. Reports
-- that on the channel ARGV[3], which carries only the beginning of the id.
local channel, mine = ARGV[3], ARGV[4]
local key = KEYS[1]
local found = redis.pcall('HMGET', key, 'meta', 'head', 'owner')
if found.err then return string.find(found.err, 'WRONGTYPE') and { SPOILED } or error(found.err) end
local meta, head, owned = found[1], found[2] or '', found[3] or nil
local is_record = meta and string.match(meta, '^%S+ %d+$') and string.match(head, '^%d+ %d+ %S+$')
if meta and not is_record then return { SPOILED } end
if mine and owned ~= mine then
    reindex(mine)
    return { GONE }
end
reindex(owned)
-- A user without the right to publish must still be able to log out.
if redis.call('DEL', key) == 1 then redis.pcall('PUBLISH', channel, string.sub(string.match(key, '{(%x+)}$'), 1, 16)) end
return { DONE, owned }
