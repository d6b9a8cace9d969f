-- KEYS: the record's, and where it moves to. Not for clusters, where these are in two slots.
local state, record = look(KEYS[1])
local new_state, taken = look(KEYS[2])
if new_state == 'live' and taken.write == write then return { DONE } end
local refused = refusal(state, record)
if refused then return refused end
if new_state == 'spoiled' then return { SPOILED } end
if new_state == 'live' then return { GONE } end
if taken.owner then reindex(taken.owner, new) end
reindex(record.owner, id, owner ~= '' and owner or record.owner, new)
if touch == '' then redis.call('HINCRBY', KEYS[1], 'version', 1) end
redis.call('HSET', KEYS[1], 'created', created)
merge(KEYS[1])
redis.call('RENAME', KEYS[1], KEYS[2])
return { DONE }
