-- KEYS: the record's. Answers its owner. With an owner, destroys it only if it is theirs.
local mine = ARGV[3]
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
redis.call('DEL', key)
return { DONE, owned }
