-- KEYS: a user's index. Adds the reservation ARGV[1], kept until ARGV[3], if every id of the index is among
-- those that follow. Others are of log-ins that came in between.
local id, score = ARGV[1], ARGV[3]
local seen = {}
for i = 4, #ARGV do seen[ARGV[i]] = true end
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if member ~= id and not seen[member] then return { CONFLICT } end
end
index_add(KEYS[1], id, score)
return { DONE }
