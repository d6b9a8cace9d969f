-- KEYS: the record's. Answers whose it was. With an owner, destroys it only if it is theirs.
local mine = ARGV[3]
local state, record = look(KEYS[1])
if state == 'corrupt' then return { SPOILED } end
if mine and record.owner ~= mine then
    reindex(mine)
    return { GONE }
end
if state == 'none' then return { DONE } end
reindex(record.owner)
redis.call('DEL', KEYS[1])
return { DONE, record.owner }
